//! How HTTP/2 looks on the wire (RFC 9113): frames, settings, error codes, and what a peer may get wrong.

/// Length, kind, flags and stream, before every payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 9;
/// The largest frame that we accept: the protocol's initial value, which we leave as it is.
pub(crate) const FRAME_BYTES_MAX: usize = 16_384;
/// The last id of a stream: 31 bits.
pub(crate) const STREAM_ID_MAX: u32 = (1 << 31) - 1;

pub(crate) mod frame {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;

    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
}

pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const COMPRESSION_ERROR: u32 = 9;
}

/// The peer broke the protocol: the connection is of no more use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: u32,
    pub(crate) message: String,
}

pub(crate) fn fault<T>(code: u32, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { code, message: message.into() })
}

pub(crate) fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

pub(crate) fn parse<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// gRPC escapes its messages as URLs do; whatever is not an escape stays as it is.
pub(crate) fn percent_decode(value: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        decoded.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// What to tell somebody whose endpoint does not begin with SETTINGS.
pub(crate) fn not_http2(bytes: &[u8]) -> String {
    let guess = match bytes {
        [b'H', b'T', b'T', b'P', b'/', b'1', ..] => {
            "it answers in HTTP/1: is this the member's client (gRPC) port?"
        }
        [0x15, 3, ..] => "it answers with a TLS alert: only plain-text endpoints can be measured",
        _ => "it does not begin with SETTINGS",
    };
    format!("this is not an HTTP/2 server: {guess}")
}

pub(crate) fn wrong_size(kind: &str) -> Fault {
    Fault { code: code::FRAME_SIZE_ERROR, message: format!("a {kind} frame of the wrong size") }
}

/// The payload without its padding.
pub(crate) fn unpadded(flags: u8, payload: &[u8]) -> Result<&[u8], Fault> {
    if flags & frame::PADDED == 0 {
        return Ok(payload);
    }
    let inner = payload
        .split_first()
        .and_then(|(&padding, rest)| rest.get(..rest.len().checked_sub(padding.into())?));
    inner.map_or_else(|| fault(code::PROTOCOL_ERROR, "padding that is longer than its frame"), Ok)
}

pub(crate) fn write_frame_header(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, id: u32) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
}

pub(crate) fn write_window_update(out: &mut Vec<u8>, id: u32, increment: i64) {
    write_frame_header(out, 4, frame::WINDOW_UPDATE, 0, id);
    out.extend_from_slice(&(increment as u32).to_be_bytes());
}

pub(crate) fn write_reset(out: &mut Vec<u8>, id: u32, code: u32) {
    write_frame_header(out, 4, frame::RST_STREAM, 0, id);
    out.extend_from_slice(&code.to_be_bytes());
}
