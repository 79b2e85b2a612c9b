use std::time::Duration;

use super::*;
use crate::Options;

/// A connection and the frames that it wrote, as a server would see them.
struct Pair {
    connection: Connection,
    requests: Requests,
    finished: Vec<Finished>,
    now: Instant,
}

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    id: u32,
    payload: Vec<u8>,
}

fn frame_bytes(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_frame_header(&mut bytes, payload.len(), kind, flags, id);
    bytes.extend_from_slice(payload);
    bytes
}

fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in entries {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame_bytes(frame::SETTINGS, 0, 0, &payload)
}

fn header_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        hpack::write_literal(&mut block, name, value, false);
    }
    block
}

/// A whole successful answer.
fn success(id: u32) -> Vec<u8> {
    let first = header_block(&[(":status", "200"), ("content-type", "application/grpc")]);
    let mut bytes = frame_bytes(frame::HEADERS, frame::END_HEADERS, id, &first);
    bytes.extend(frame_bytes(frame::DATA, 0, id, &[0, 0, 0, 0, 0]));
    bytes.extend(trailers(id, &[("grpc-status", "0")]));
    bytes
}

fn trailers(id: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame_bytes(frame::HEADERS, frame::END_HEADERS | frame::END_STREAM, id, &header_block(fields))
}

impl Pair {
    /// A connection whose server has these settings, with the greetings over.
    fn new(first_id: u32, value_bytes: usize, entries: &[(u16, u32)]) -> Self {
        let options = Options { value_bytes, ..Options::default() };
        let mut pair = Self {
            connection: Connection::new("localhost:1", first_id),
            requests: Requests::new(&options),
            finished: Vec::new(),
            now: Instant::now(),
        };
        assert!(!pair.connection.can_start(), "not before the server's settings");
        pair.receive(&settings(entries));
        let greeting = std::mem::take(&mut pair.connection.out);
        assert!(greeting.starts_with(PREFACE));
        pair.connection.out = greeting[PREFACE.len()..].to_vec();
        let kinds: Vec<(u8, u8)> = pair.sent().iter().map(|frame| (frame.kind, frame.flags)).collect();
        assert_eq!(kinds, [(frame::SETTINGS, 0), (frame::WINDOW_UPDATE, 0), (frame::SETTINGS, frame::ACK)]);
        pair
    }

    fn start(&mut self) {
        self.connection.start(&mut self.requests, self.now);
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.connection.receive(bytes, &mut self.finished).expect("nothing in it breaks the protocol");
    }

    fn fault(&mut self, bytes: &[u8]) -> Fault {
        self.connection.receive(bytes, &mut self.finished).expect_err("this breaks the protocol")
    }

    fn sent(&mut self) -> Vec<Frame> {
        let bytes = std::mem::take(&mut self.connection.out);
        self.connection.flushed();
        let mut rest = bytes.as_slice();
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (header, after) = rest.split_at(FRAME_HEADER_BYTES);
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let (payload, next) = after.split_at(length);
            let id = be32(&header[5..]);
            frames.push(Frame { kind: header[3], flags: header[4], id, payload: payload.to_vec() });
            rest = next;
        }
        frames
    }

    /// How many bytes of bodies were sent for a stream, and whether it was ended.
    fn sent_data(&mut self, id: u32) -> (usize, bool) {
        let frames = self.sent();
        let data = frames.iter().filter(|frame| frame.kind == frame::DATA && frame.id == id);
        data.fold((0, false), |(bytes, _), frame| {
            (bytes + frame.payload.len(), frame.flags & frame::END_STREAM != 0)
        })
    }

    fn failures(&mut self) -> Vec<Option<(Failure, String)>> {
        self.finished.drain(..).map(|call| call.failure).collect()
    }
}

#[test]
fn answers_in_any_order_and_any_pieces_finish_their_calls() {
    let mut pair = Pair::new(1, 256, &[]);
    for _ in 0..4 {
        pair.start();
    }
    let ids: Vec<u32> =
        pair.sent().iter().filter(|frame| frame.kind == frame::HEADERS).map(|frame| frame.id).collect();
    assert_eq!(ids, [1, 3, 5, 7]);
    let mut bytes = Vec::new();
    for id in [5, 1, 7, 3] {
        bytes.extend(success(id));
    }
    for byte in bytes {
        pair.receive(&[byte]);
    }
    assert_eq!(pair.failures(), [None, None, None, None]);
    assert_eq!(pair.connection.open(), 0);
    pair.start();
    assert_eq!(pair.sent()[0].id, 9);
}

#[test]
fn a_body_waits_for_both_windows_and_is_split_into_frames() {
    let mut pair = Pair::new(1, 100_000, &[(setting::INITIAL_WINDOW_SIZE, 10)]);
    let body_bytes = pair.requests.body_bytes(Operation::Put);
    pair.start();
    assert_eq!(pair.sent_data(1), (10, false));
    pair.receive(&frame_bytes(frame::WINDOW_UPDATE, 0, 1, &1_000_000_u32.to_be_bytes()));
    assert_eq!(pair.sent_data(1), (65_535 - 10, false), "now the connection's window is the limit");
    pair.receive(&frame_bytes(frame::WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes()));
    let frames = pair.sent();
    assert!(frames.iter().all(|frame| frame.payload.len() <= FRAME_BYTES_MAX));
    assert_eq!(frames.iter().map(|frame| frame.payload.len()).sum::<usize>(), body_bytes - 65_535);
    assert_eq!(frames.last().unwrap().flags, frame::END_STREAM);
    assert_eq!(pair.connection.window, 65_535 + 1_000_000 - body_bytes as i64);
}

#[test]
fn a_smaller_initial_window_can_make_a_streams_window_negative() {
    let mut pair = Pair::new(1, 70_000, &[(setting::INITIAL_WINDOW_SIZE, 1000)]);
    pair.start();
    assert_eq!(pair.sent_data(1), (1000, false));
    pair.receive(&settings(&[(setting::INITIAL_WINDOW_SIZE, 400)]));
    pair.receive(&frame_bytes(frame::WINDOW_UPDATE, 0, 1, &600_u32.to_be_bytes()));
    assert_eq!(pair.sent_data(1), (0, false), "600 were owed");
    pair.receive(&frame_bytes(frame::WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()));
    assert_eq!(pair.sent_data(1), (1, false));
    pair.receive(&settings(&[(setting::INITIAL_WINDOW_SIZE, 500)]));
    assert_eq!(pair.sent_data(1), (100, false));
}

#[test]
fn windows_beyond_the_maximum_are_faults_of_connection_or_stream() {
    let mut pair = Pair::new(1, 256, &[]);
    let most = (WINDOW_MAX as u32).to_be_bytes();
    pair.start();
    pair.receive(&frame_bytes(frame::WINDOW_UPDATE, 0, 1, &most));
    assert_eq!(pair.failures(), [Some((Failure::Reset(code::FLOW_CONTROL_ERROR), String::new()))]);
    assert_eq!(pair.fault(&frame_bytes(frame::WINDOW_UPDATE, 0, 0, &most)).code, code::FLOW_CONTROL_ERROR);
    let mut pair = Pair::new(1, 256, &[]);
    assert_eq!(pair.fault(&frame_bytes(frame::WINDOW_UPDATE, 0, 0, &[0; 4])).code, code::PROTOCOL_ERROR);
    let mut pair = Pair::new(1, 256, &[]);
    let above = settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]);
    assert_eq!(pair.fault(&above).code, code::FLOW_CONTROL_ERROR);
}

#[test]
fn received_data_is_given_back_in_one_update_a_gigabyte() {
    let mut pair = Pair::new(1, 256, &[]);
    pair.start();
    pair.sent();
    let piece = frame_bytes(frame::DATA, 0, 1, &[0; FRAME_BYTES_MAX]);
    let pieces = (WINDOW_UPDATE_BYTES as usize).div_ceil(FRAME_BYTES_MAX);
    for _ in 0..pieces - 1 {
        pair.receive(&piece);
    }
    assert_eq!(pair.sent(), []);
    pair.receive(&piece);
    let update = pair.sent().remove(0);
    assert_eq!((update.kind, update.id), (frame::WINDOW_UPDATE, 0));
    assert_eq!(be32(&update.payload) as usize, pieces * FRAME_BYTES_MAX);
    assert_eq!(pair.connection.receive_window, WINDOW_MAX);
}

#[test]
fn errors_come_with_their_code_and_decoded_message() {
    let mut pair = Pair::new(1, 256, &[]);
    for _ in 0..4 {
        pair.start();
    }
    let fields =
        [(":status", "200"), ("grpc-status", "8"), ("grpc-message", "etcdserver: too many requests%21 100%")];
    pair.receive(&trailers(1, &fields));
    pair.receive(&trailers(3, &[(":status", "503")]));
    pair.receive(&trailers(5, &[(":status", "200")]));
    pair.receive(&frame_bytes(frame::RST_STREAM, 0, 7, &11_u32.to_be_bytes()));
    let message = "etcdserver: too many requests! 100%".to_owned();
    assert_eq!(
        pair.failures(),
        [
            Some((Failure::Status(8), message)),
            Some((Failure::Http(503), String::new())),
            Some((Failure::NoStatus, String::new())),
            Some((Failure::Reset(11), String::new())),
        ]
    );
}

#[test]
fn headers_arrive_padded_with_priority_and_continued() {
    let mut pair = Pair::new(1, 256, &[]);
    pair.start();
    let block = header_block(&[(":status", "200"), ("grpc-status", "0")]);
    let mut payload = vec![3, 0, 0, 0, 0, 16];
    payload.extend_from_slice(&block[..5]);
    payload.extend_from_slice(&[0; 3]);
    let flags = frame::PADDED | frame::PRIORITY | frame::END_STREAM;
    pair.receive(&frame_bytes(frame::HEADERS, flags, 1, &payload));
    pair.receive(&frame_bytes(frame::CONTINUATION, 0, 1, &block[5..8]));
    assert!(pair.finished.is_empty());
    pair.receive(&frame_bytes(frame::CONTINUATION, frame::END_HEADERS, 1, &block[8..]));
    assert_eq!(pair.failures(), [None]);
}

#[test]
fn a_ping_is_answered_but_is_no_reason_to_write() {
    let mut pair = Pair::new(1, 256, &[]);
    pair.receive(&frame_bytes(frame::PING, 0, 0, b"abcdefgh"));
    assert!(!pair.connection.is_flush_due());
    pair.start();
    assert!(pair.connection.is_flush_due());
    let pong = pair.sent().remove(0);
    assert_eq!((pong.kind, pong.flags, pong.payload.as_slice()), (frame::PING, frame::ACK, &b"abcdefgh"[..]));
    pair.receive(&frame_bytes(frame::PING, frame::ACK, 0, b"abcdefgh"));
    assert_eq!(pair.sent(), []);
}

#[test]
fn no_more_calls_than_the_server_admits() {
    let mut pair = Pair::new(1, 256, &[(setting::MAX_CONCURRENT_STREAMS, 2)]);
    pair.start();
    pair.start();
    assert!(!pair.connection.can_start());
    pair.receive(&success(3));
    assert!(pair.connection.can_start());
    pair.receive(&settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)]));
    assert!(!pair.connection.can_start());
}

#[test]
fn after_goodbye_known_calls_end_and_later_ones_were_not_looked_at() {
    let mut pair = Pair::new(1, 256, &[]);
    for _ in 0..3 {
        pair.start();
    }
    let mut payload = 3_u32.to_be_bytes().to_vec();
    payload.extend_from_slice(&11_u32.to_be_bytes());
    payload.extend_from_slice(b"too_many_pings");
    pair.receive(&frame_bytes(frame::GOAWAY, 0, 0, &payload));
    assert_eq!(pair.failures(), [Some((Failure::Refused, "too_many_pings".into()))]);
    assert!(!pair.connection.can_start() && !pair.connection.is_spent());
    pair.receive(&success(1));
    pair.receive(&success(3));
    assert_eq!(pair.failures(), [None, None]);
    assert!(pair.connection.is_spent());
    assert_eq!(pair.connection.goodbye.as_deref(), Some("goodbye with code 11: too_many_pings"));
}

#[test]
fn stream_ids_run_out_without_wrapping() {
    let mut pair = Pair::new(STREAM_ID_MAX - 2, 256, &[]);
    pair.start();
    assert!(pair.connection.can_start());
    pair.start();
    assert!(!pair.connection.can_start());
    pair.receive(&success(STREAM_ID_MAX));
    pair.receive(&success(STREAM_ID_MAX - 2));
    assert_eq!(pair.failures(), [None, None]);
    assert!(pair.connection.is_spent());
}

#[test]
fn a_late_call_is_cancelled_and_its_answer_ignored() {
    let mut pair = Pair::new(1, 256, &[]);
    pair.start();
    let first = pair.now;
    pair.now = first + Duration::from_secs(1);
    pair.start();
    pair.sent();
    pair.connection.time_out(pair.now, &mut pair.finished);
    assert_eq!(pair.failures(), [Some((Failure::TimedOut, String::new()))]);
    let reset = pair.sent().remove(0);
    assert_eq!((reset.kind, reset.id, be32(&reset.payload)), (frame::RST_STREAM, 1, code::CANCEL));
    pair.receive(&success(1));
    assert!(pair.finished.is_empty());
    pair.receive(&success(3));
    assert_eq!(pair.failures(), [None]);
}

#[test]
fn an_answer_before_the_question_is_complete_resets_the_stream() {
    let mut pair = Pair::new(1, 1000, &[(setting::INITIAL_WINDOW_SIZE, 10)]);
    pair.start();
    pair.sent();
    pair.receive(&trailers(1, &[(":status", "200"), ("grpc-status", "8")]));
    assert_eq!(pair.failures(), [Some((Failure::Status(8), String::new()))]);
    assert_eq!(pair.sent()[0].kind, frame::RST_STREAM);
    pair.receive(&frame_bytes(frame::WINDOW_UPDATE, 0, 1, &1000_u32.to_be_bytes()));
    assert_eq!(pair.sent(), []);
}

#[test]
fn a_lost_connection_fails_what_was_under_way() {
    let mut pair = Pair::new(1, 256, &[]);
    pair.start();
    pair.start();
    pair.receive(&success(1));
    pair.connection.lose("reset by peer", &mut pair.finished);
    assert_eq!(pair.failures(), [None, Some((Failure::ConnectionLost, "reset by peer".into()))]);
    assert!(pair.connection.is_spent());
}

#[test]
fn what_is_not_http2_is_recognised() {
    for (bytes, hint) in [
        (&b"HTTP/1.1 400 Bad Request\r\n"[..], "client (gRPC) port"),
        (&[0x15, 3, 1, 0, 2, 2, 70, 0, 0][..], "TLS alert"),
        (&[0; 9][..], "does not begin with SETTINGS"),
    ] {
        let fault = Connection::new("a:1", 1).receive(bytes, &mut Vec::new()).unwrap_err();
        assert!(fault.message.contains(hint), "{fault:?}");
    }
}

#[test]
fn breaches_of_the_protocol_end_the_connection_with_a_farewell() {
    let block = header_block(&[(":status", "200")]);
    let mut interrupted = frame_bytes(frame::HEADERS, 0, 1, &block);
    interrupted.extend(frame_bytes(frame::PING, 0, 0, &[0; 8]));
    for (bytes, code) in [
        (frame_bytes(frame::DATA, 0, 9, b"x"), code::PROTOCOL_ERROR),
        (frame_bytes(frame::DATA, 0, 2, b"x"), code::PROTOCOL_ERROR),
        (frame_bytes(frame::DATA, frame::PADDED, 1, &[9, 0]), code::PROTOCOL_ERROR),
        (frame_bytes(frame::PUSH_PROMISE, 0, 1, &[0; 8]), code::PROTOCOL_ERROR),
        (frame_bytes(frame::CONTINUATION, 0, 1, b"x"), code::PROTOCOL_ERROR),
        (interrupted, code::PROTOCOL_ERROR),
        (frame_bytes(frame::HEADERS, frame::END_HEADERS, 1, &[0xff]), code::COMPRESSION_ERROR),
        (frame_bytes(frame::PING, 0, 0, b"short"), code::FRAME_SIZE_ERROR),
        (frame_bytes(frame::SETTINGS, 0, 0, b"short"), code::FRAME_SIZE_ERROR),
        (frame_bytes(frame::GOAWAY, 0, 0, b"short"), code::FRAME_SIZE_ERROR),
        (frame_bytes(frame::DATA, 0, 1, &[0; FRAME_BYTES_MAX + 1]), code::FRAME_SIZE_ERROR),
    ] {
        let mut pair = Pair::new(1, 256, &[]);
        pair.start();
        pair.sent();
        assert_eq!(pair.fault(&bytes).code, code, "{:?}", &bytes[..bytes.len().min(20)]);
        let farewell = pair.sent().pop().unwrap();
        assert_eq!((farewell.kind, be32(&farewell.payload[4..])), (frame::GOAWAY, code));
    }
}

#[test]
fn unknown_frames_and_settings_are_ignored() {
    let mut pair = Pair::new(1, 256, &[(0xfff0, 1)]);
    pair.start();
    pair.receive(&frame_bytes(0xfa, 0xff, 1, b"whatever"));
    pair.receive(&frame_bytes(2, 0, 1, &[0; 5]));
    pair.receive(&success(1));
    assert_eq!(pair.failures(), [None]);
}
