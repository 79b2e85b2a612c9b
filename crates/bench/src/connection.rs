//! One client connection of HTTP/2 (RFC 9113) carrying unary gRPC calls, without any I/O: bytes from the
//! peer go in, bytes for the peer come out, and calls finish.
//!
//! Streams are kept in a ring that is ordered by their ids. A call takes one entry at the back; entries
//! leave at the front once everything before them is finished. Nothing is looked up in a map, and a call
//! whose request fits the windows, as nearly all do, is written in one go and allocates nothing.
//!
//! Left out, because a caller of unary methods never meets them: server push (disabled by a setting),
//! priorities (ignored, as RFC 9113 allows), and reading response messages (only their status counts).

use std::collections::VecDeque;
use std::time::Instant;

use crate::hpack;
use crate::request::{Operation, RequestHeaders, Requests};
use crate::wire::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, Fault, STREAM_ID_MAX, be32, code, fault, frame, not_http2, parse,
    percent_decode, setting, unpadded, write_frame_header, write_reset, write_window_update, wrong_size,
};

/// What a connection sends before anything else (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest flow-control window there is. Ours are that large from the start, so that they cost one
/// update a gigabyte.
const WINDOW_MAX: i64 = (1 << 31) - 1;
const WINDOW_DEFAULT: i64 = 65_535;
/// How much is received before the connection's window is topped up.
const WINDOW_UPDATE_BYTES: i64 = 1 << 30;
/// The largest header block accepted, over all its continuation frames.
const HEADER_BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// The server answered with a gRPC status other than 0.
    Status(u32),
    /// The server answered with an HTTP status other than 200, and no gRPC status.
    Http(u16),
    /// The answer ended without a status.
    NoStatus,
    /// The server reset the stream with this HTTP/2 code.
    Reset(u32),
    /// The server said that it had not looked at the call.
    Refused,
    /// No answer within the time allowed.
    TimedOut,
    /// The connection ended before the answer came.
    ConnectionLost,
}

/// A call that came to its end.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) operation: Operation,
    pub(crate) started: Instant,
    /// Nothing when the call succeeded; else why not, with the server's words.
    pub(crate) failure: Option<(Failure, String)>,
}

#[derive(Debug)]
struct Stream {
    operation: Operation,
    started: Instant,
    open: bool,
    grpc_status: Option<u32>,
    http_status: u16,
    message: String,
    /// What the peer still accepts on this stream.
    window: i64,
    /// The request's body, as far as no window admitted it yet; `sent` of it are gone.
    body: Vec<u8>,
    sent: usize,
}

#[derive(Debug)]
struct HeaderBlock {
    id: u32,
    end_stream: bool,
    bytes: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Connection {
    /// For the peer, in order.
    pub(crate) out: Vec<u8>,
    /// How many bytes of `out` answer pings.
    pong_bytes: usize,
    /// The peer's settings arrived: calls may start.
    ready: bool,
    /// No new calls: the peer said goodbye, or stream ids ran out.
    draining: bool,
    /// The reason that the peer gave with its goodbye, when it was not a friendly one.
    pub(crate) goodbye: Option<String>,
    /// In the order of their ids, which are consecutive odd numbers.
    streams: VecDeque<Stream>,
    /// The id of the first of `streams`, or of the next stream when there are none.
    first_id: u32,
    open: usize,
    /// Streams with a body that waits for a window, oldest first.
    blocked: VecDeque<u32>,
    /// What the peer still accepts over all streams.
    window: i64,
    stream_window_initial: i64,
    frame_bytes_max: usize,
    streams_max: usize,
    /// What we still accept over all streams.
    receive_window: i64,
    headers: RequestHeaders,
    decoder: hpack::Decoder,
    /// A frame that is not complete yet.
    partial: Vec<u8>,
    /// A header block whose continuation is awaited.
    header_block: Option<HeaderBlock>,
}

impl Connection {
    /// A connection to a server called `authority`, whose first stream has the (odd) id `first_id`.
    pub(crate) fn new(authority: &str, first_id: u32) -> Self {
        assert!(first_id % 2 == 1 && first_id <= STREAM_ID_MAX, "client streams have odd ids of 31 bits");
        let mut out = PREFACE.to_vec();
        let settings = [(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, WINDOW_MAX as u32)];
        write_frame_header(&mut out, settings.len() * 6, frame::SETTINGS, 0, 0);
        for (name, value) in settings {
            out.extend_from_slice(&name.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        write_window_update(&mut out, 0, WINDOW_MAX - WINDOW_DEFAULT);
        Self {
            out,
            pong_bytes: 0,
            ready: false,
            draining: false,
            goodbye: None,
            streams: VecDeque::new(),
            first_id,
            open: 0,
            blocked: VecDeque::new(),
            window: WINDOW_DEFAULT,
            stream_window_initial: WINDOW_DEFAULT,
            frame_bytes_max: FRAME_BYTES_MAX,
            streams_max: usize::MAX,
            receive_window: WINDOW_MAX,
            headers: RequestHeaders::new(authority),
            decoder: hpack::Decoder::default(),
            partial: Vec::new(),
            header_block: None,
        }
    }

    /// How many calls are under way.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Whether the peer's settings have arrived.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether nothing will ever happen on this connection again.
    pub(crate) fn is_spent(&self) -> bool {
        self.draining && self.open == 0
    }

    /// Whether `out` holds more than answers to pings. Those may wait for company: grpc-go pings once for
    /// every request that it reads, and a write of its own for each answer would double our cost.
    pub(crate) fn is_flush_due(&self) -> bool {
        self.out.len() > self.pong_bytes
    }

    /// The peer got all of `out`.
    pub(crate) fn flushed(&mut self) {
        self.out.clear();
        self.pong_bytes = 0;
    }

    /// Whether another call may start now.
    pub(crate) fn can_start(&self) -> bool {
        self.ready && !self.draining && self.open < self.streams_max
    }

    /// Starts a call of the mix; only while [`can_start`](Self::can_start).
    pub(crate) fn start(&mut self, requests: &mut Requests, now: Instant) {
        assert!(self.can_start(), "a call was started on a connection that takes none");
        let id = self.next_id();
        let operation = requests.draw();
        let frame_at = self.out.len();
        write_frame_header(&mut self.out, 0, frame::HEADERS, frame::END_HEADERS, id);
        self.headers.write_block(operation, &mut self.out);
        let block_bytes = self.out.len() - frame_at - FRAME_HEADER_BYTES;
        self.out[frame_at..frame_at + 3].copy_from_slice(&(block_bytes as u32).to_be_bytes()[1..]);

        let body_bytes = requests.body_bytes(operation);
        let mut stream = Stream {
            operation,
            started: now,
            open: true,
            grpc_status: None,
            http_status: 0,
            message: String::new(),
            window: self.stream_window_initial,
            body: Vec::new(),
            sent: 0,
        };
        let room = self.window.min(self.stream_window_initial);
        let at_once =
            self.blocked.is_empty() && body_bytes <= self.frame_bytes_max && body_bytes as i64 <= room;
        if at_once {
            write_frame_header(&mut self.out, body_bytes, frame::DATA, frame::END_STREAM, id);
            requests.write_body(operation, &mut self.out);
            self.window -= body_bytes as i64;
            stream.window -= body_bytes as i64;
        } else {
            requests.write_body(operation, &mut stream.body);
            self.blocked.push_back(id);
        }
        self.streams.push_back(stream);
        self.open += 1;
        if id > STREAM_ID_MAX - 2 {
            self.draining = true;
        }
        if !at_once {
            self.send_blocked();
        }
    }

    /// Gives up every call that started before `limit`.
    pub(crate) fn time_out(&mut self, limit: Instant, finished: &mut Vec<Finished>) {
        for index in 0..self.streams.len() {
            let stream = &self.streams[index];
            if stream.started >= limit {
                break;
            }
            if stream.open {
                let id = self.first_id + 2 * index as u32;
                write_reset(&mut self.out, id, code::CANCEL);
                self.finish(index, Some((Failure::TimedOut, String::new())), finished);
            }
        }
        self.forget_finished();
    }

    /// Ends every call because the connection is lost for the given reason.
    pub(crate) fn lose(&mut self, why: &str, finished: &mut Vec<Finished>) {
        for index in 0..self.streams.len() {
            if self.streams[index].open {
                self.finish(index, Some((Failure::ConnectionLost, why.to_owned())), finished);
            }
        }
        self.forget_finished();
        self.draining = true;
    }

    /// Takes the next bytes from the peer. After a fault the connection is to be closed, once the
    /// farewell in `out` was tried.
    pub(crate) fn receive(&mut self, bytes: &[u8], finished: &mut Vec<Finished>) -> Result<(), Fault> {
        let result = if self.partial.is_empty() {
            self.frames(bytes, finished).map(|consumed| self.partial.extend_from_slice(&bytes[consumed..]))
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            self.frames(&partial, finished).map(|consumed| {
                partial.drain(..consumed);
                self.partial = partial;
            })
        };
        self.forget_finished();
        if let Err(fault) = &result {
            write_frame_header(&mut self.out, 8, frame::GOAWAY, 0, 0);
            self.out.extend_from_slice(&0_u32.to_be_bytes());
            self.out.extend_from_slice(&fault.code.to_be_bytes());
        }
        result
    }

    /// Handles all complete frames and returns how many bytes they took.
    fn frames(&mut self, bytes: &[u8], finished: &mut Vec<Finished>) -> Result<usize, Fault> {
        let mut rest = bytes;
        while let Some((header, after)) = rest.split_at_checked(FRAME_HEADER_BYTES) {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let (kind, flags) = (header[3], header[4]);
            let id = be32(&header[5..9]) & STREAM_ID_MAX;
            if !self.ready && (kind != frame::SETTINGS || flags & frame::ACK != 0) {
                return fault(code::PROTOCOL_ERROR, not_http2(bytes));
            }
            if length > FRAME_BYTES_MAX {
                return fault(
                    code::FRAME_SIZE_ERROR,
                    format!("a frame of {length} bytes, above {FRAME_BYTES_MAX}"),
                );
            }
            let Some((payload, next)) = after.split_at_checked(length) else {
                break;
            };
            if self.header_block.is_some() && kind != frame::CONTINUATION {
                return fault(code::PROTOCOL_ERROR, "a header block was interrupted by another frame");
            }
            self.on_frame(kind, flags, id, payload, finished)?;
            rest = next;
        }
        Ok(bytes.len() - rest.len())
    }

    fn on_frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        finished: &mut Vec<Finished>,
    ) -> Result<(), Fault> {
        match kind {
            frame::DATA => self.on_data(flags, id, payload, finished),
            frame::HEADERS => {
                let mut fragment = unpadded(flags, payload)?;
                if flags & frame::PRIORITY != 0 {
                    fragment = fragment.get(5..).ok_or_else(|| wrong_size("HEADERS"))?;
                }
                let end_stream = flags & frame::END_STREAM != 0;
                if flags & frame::END_HEADERS != 0 {
                    self.on_header_block(id, end_stream, fragment, finished)
                } else {
                    self.header_block = Some(HeaderBlock { id, end_stream, bytes: fragment.to_vec() });
                    Ok(())
                }
            }
            frame::CONTINUATION => self.on_continuation(flags, id, payload, finished),
            frame::RST_STREAM => self.on_reset(id, payload, finished),
            frame::SETTINGS => self.on_settings(flags, payload),
            frame::PUSH_PROMISE => fault(code::PROTOCOL_ERROR, "a push, though pushing is disabled"),
            frame::PING => {
                if payload.len() != 8 {
                    return Err(wrong_size("PING"));
                }
                if flags & frame::ACK == 0 {
                    write_frame_header(&mut self.out, 8, frame::PING, frame::ACK, 0);
                    self.out.extend_from_slice(payload);
                    self.pong_bytes += FRAME_HEADER_BYTES + payload.len();
                }
                Ok(())
            }
            frame::GOAWAY => self.on_goaway(payload, finished),
            frame::WINDOW_UPDATE => self.on_window_update(id, payload, finished),
            // PRIORITY and extensions are ignored (RFC 9113, sections 5.3 and 5.5).
            _ => Ok(()),
        }
    }

    fn on_data(
        &mut self,
        flags: u8,
        id: u32,
        payload: &[u8],
        finished: &mut Vec<Finished>,
    ) -> Result<(), Fault> {
        self.receive_window -= payload.len() as i64;
        if self.receive_window < 0 {
            return fault(code::FLOW_CONTROL_ERROR, "more data than the window admits");
        }
        if self.receive_window <= WINDOW_MAX - WINDOW_UPDATE_BYTES {
            write_window_update(&mut self.out, 0, WINDOW_MAX - self.receive_window);
            self.receive_window = WINDOW_MAX;
        }
        unpadded(flags, payload)?;
        if let Some(index) = self.index_of(id)?
            && flags & frame::END_STREAM != 0
        {
            self.answered(index, finished);
        }
        Ok(())
    }

    fn on_continuation(
        &mut self,
        flags: u8,
        id: u32,
        payload: &[u8],
        finished: &mut Vec<Finished>,
    ) -> Result<(), Fault> {
        let Some(mut block) = self.header_block.take_if(|block| block.id == id) else {
            return fault(code::PROTOCOL_ERROR, "a continuation of no header block");
        };
        if block.bytes.len() + payload.len() > HEADER_BLOCK_BYTES_MAX {
            return fault(code::PROTOCOL_ERROR, "headers that are too long");
        }
        block.bytes.extend_from_slice(payload);
        if flags & frame::END_HEADERS != 0 {
            return self.on_header_block(id, block.end_stream, &block.bytes, finished);
        }
        self.header_block = Some(block);
        Ok(())
    }

    fn on_header_block(
        &mut self,
        id: u32,
        end_stream: bool,
        block: &[u8],
        finished: &mut Vec<Finished>,
    ) -> Result<(), Fault> {
        let index = self.index_of(id)?;
        // Blocks of streams that were given up are decoded too: they may change the table.
        let mut ignored = None;
        let stream = index.map(|index| &mut self.streams[index]);
        let (grpc_status, http_status, message) = match stream {
            Some(stream) => (&mut stream.grpc_status, &mut stream.http_status, &mut stream.message),
            None => (&mut ignored, &mut 0, &mut String::new()),
        };
        let decoded = self.decoder.decode(block, &mut |name, value| match name {
            b":status" => *http_status = parse(value).unwrap_or(0),
            b"grpc-status" => *grpc_status = parse(value),
            b"grpc-message" if !value.is_empty() => *message = percent_decode(value),
            _ => {}
        });
        if let Err(malformed) = decoded {
            return fault(code::COMPRESSION_ERROR, format!("undecodable headers: {}", malformed.0));
        }
        if let Some(index) = index
            && end_stream
        {
            self.answered(index, finished);
        }
        Ok(())
    }

    fn on_reset(&mut self, id: u32, payload: &[u8], finished: &mut Vec<Finished>) -> Result<(), Fault> {
        if payload.len() != 4 {
            return Err(wrong_size("RST_STREAM"));
        }
        if let Some(index) = self.index_of(id)? {
            let failure = match be32(payload) {
                code::REFUSED_STREAM => Failure::Refused,
                code => Failure::Reset(code),
            };
            self.finish(index, Some((failure, String::new())), finished);
        }
        Ok(())
    }

    fn on_settings(&mut self, flags: u8, payload: &[u8]) -> Result<(), Fault> {
        if flags & frame::ACK != 0 {
            return Ok(());
        }
        if !payload.len().is_multiple_of(6) {
            return Err(wrong_size("SETTINGS"));
        }
        for entry in payload.chunks_exact(6) {
            let value = be32(&entry[2..]);
            match u16::from_be_bytes([entry[0], entry[1]]) {
                setting::HEADER_TABLE_SIZE => self.headers.limit_table(value as usize),
                setting::MAX_CONCURRENT_STREAMS => self.streams_max = value as usize,
                setting::INITIAL_WINDOW_SIZE => {
                    let initial = i64::from(value);
                    if initial > WINDOW_MAX {
                        return fault(code::FLOW_CONTROL_ERROR, "an initial window above 2^31-1");
                    }
                    // A stream's window may become negative (RFC 9113, section 6.9.2).
                    for stream in &mut self.streams {
                        stream.window += initial - self.stream_window_initial;
                    }
                    self.stream_window_initial = initial;
                }
                setting::MAX_FRAME_SIZE => {
                    if !(16_384..1 << 24).contains(&value) {
                        return fault(code::PROTOCOL_ERROR, "a maximal frame size out of its range");
                    }
                    self.frame_bytes_max = value as usize;
                }
                _ => {}
            }
        }
        write_frame_header(&mut self.out, 0, frame::SETTINGS, frame::ACK, 0);
        self.ready = true;
        self.send_blocked();
        Ok(())
    }

    fn on_goaway(&mut self, payload: &[u8], finished: &mut Vec<Finished>) -> Result<(), Fault> {
        let Some((fixed, words)) = payload.split_at_checked(8) else {
            return Err(wrong_size("GOAWAY"));
        };
        self.draining = true;
        let last = be32(fixed) & STREAM_ID_MAX;
        let code = be32(&fixed[4..]);
        if code != code::NO_ERROR {
            self.goodbye = Some(format!("goodbye with code {code}: {}", String::from_utf8_lossy(words)));
        }
        for index in 0..self.streams.len() {
            let id = self.first_id + 2 * index as u32;
            if id > last && self.streams[index].open {
                let words = String::from_utf8_lossy(words).into_owned();
                self.finish(index, Some((Failure::Refused, words)), finished);
            }
        }
        Ok(())
    }

    fn on_window_update(
        &mut self,
        id: u32,
        payload: &[u8],
        finished: &mut Vec<Finished>,
    ) -> Result<(), Fault> {
        if payload.len() != 4 {
            return Err(wrong_size("WINDOW_UPDATE"));
        }
        let increment = i64::from(be32(payload) & STREAM_ID_MAX);
        if increment == 0 {
            return fault(code::PROTOCOL_ERROR, "a window update of zero");
        }
        if id == 0 {
            self.window += increment;
            if self.window > WINDOW_MAX {
                return fault(code::FLOW_CONTROL_ERROR, "a window above 2^31-1");
            }
        } else if let Some(index) = self.index_of(id)? {
            self.streams[index].window += increment;
            if self.streams[index].window > WINDOW_MAX {
                write_reset(&mut self.out, id, code::FLOW_CONTROL_ERROR);
                self.finish(index, Some((Failure::Reset(code::FLOW_CONTROL_ERROR), String::new())), finished);
            }
        }
        self.send_blocked();
        Ok(())
    }

    /// Writes as much of the waiting bodies as the windows admit.
    fn send_blocked(&mut self) {
        for _ in 0..self.blocked.len() {
            let Some(id) = self.blocked.pop_front() else { break };
            let Ok(Some(index)) = self.index_of(id) else { continue };
            let stream = &mut self.streams[index];
            while stream.sent < stream.body.len() {
                let room = self.window.min(stream.window).min(self.frame_bytes_max as i64);
                if room <= 0 {
                    break;
                }
                let bytes = (room as usize).min(stream.body.len() - stream.sent);
                let last = stream.sent + bytes == stream.body.len();
                let flags = if last { frame::END_STREAM } else { 0 };
                write_frame_header(&mut self.out, bytes, frame::DATA, flags, id);
                self.out.extend_from_slice(&stream.body[stream.sent..stream.sent + bytes]);
                stream.sent += bytes;
                stream.window -= bytes as i64;
                self.window -= bytes as i64;
            }
            if stream.sent < stream.body.len() {
                // Going round keeps the order, as all of them pass once.
                self.blocked.push_back(id);
            }
        }
    }

    /// The server ended its side of a stream.
    fn answered(&mut self, index: usize, finished: &mut Vec<Finished>) {
        let stream = &mut self.streams[index];
        let failure = match stream.grpc_status {
            Some(0) => None,
            Some(status) => Some(Failure::Status(status)),
            None if stream.http_status != 200 => Some(Failure::Http(stream.http_status)),
            None => Some(Failure::NoStatus),
        };
        let failure = failure.map(|failure| (failure, std::mem::take(&mut stream.message)));
        if stream.sent < stream.body.len() {
            // Answered before it was asked in full: our side is still open, so it is closed.
            write_reset(&mut self.out, self.first_id + 2 * index as u32, code::CANCEL);
        }
        self.finish(index, failure, finished);
    }

    /// Closes a stream; its entry stays until [`forget_finished`](Self::forget_finished), so that indices
    /// hold.
    fn finish(&mut self, index: usize, failure: Option<(Failure, String)>, finished: &mut Vec<Finished>) {
        let stream = &mut self.streams[index];
        assert!(stream.open, "a stream finished twice");
        stream.open = false;
        stream.body = Vec::new();
        stream.sent = 0;
        self.open -= 1;
        finished.push(Finished { operation: stream.operation, started: stream.started, failure });
    }

    fn forget_finished(&mut self) {
        while self.streams.front().is_some_and(|stream| !stream.open) {
            self.streams.pop_front();
            self.first_id = self.first_id.saturating_add(2);
        }
    }

    fn next_id(&self) -> u32 {
        // Bounded: the connection drains once ids run out.
        self.first_id + 2 * self.streams.len() as u32
    }

    /// Where an open stream is; nothing when it was closed before.
    fn index_of(&self, id: u32) -> Result<Option<usize>, Fault> {
        let next = u64::from(self.first_id) + 2 * self.streams.len() as u64;
        if id.is_multiple_of(2) || u64::from(id) >= next {
            return fault(code::PROTOCOL_ERROR, format!("a frame for stream {id}, which was never opened"));
        }
        let Some(distance) = id.checked_sub(self.first_id) else {
            return Ok(None);
        };
        let index = distance as usize / 2;
        Ok(self.streams[index].open.then_some(index))
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
