//! ZooKeeper's client protocol, as far as a load generator needs it: connect, create, setData.
//!
//! Every message is a length (4 bytes, big endian) and a body of big-endian integers and counted byte strings; the formats
//! are those of `zookeeper.jute` in the ZooKeeper sources.

use std::io::{self, Read, Write};

const CREATE: i32 = 1;
const SET_DATA: i32 = 5;
const NODE_EXISTS: i32 = -110;
/// A reply of the requests used here is far smaller.
const FRAME_BYTES_MAX: usize = 1 << 20;
const SESSION_TIMEOUT_MS: i32 = 30_000;

fn frame(body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as i32).to_be_bytes().to_vec();
    out.extend_from_slice(body);
    out
}

fn put_bytes(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    body.extend_from_slice(bytes);
}

fn read_frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = i32::from_be_bytes(length);
    let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("this is no ZooKeeper server"))?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// Opens a session.
pub fn connect(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut body = Vec::new();
    body.extend_from_slice(&0_i32.to_be_bytes()); // protocol version
    body.extend_from_slice(&0_i64.to_be_bytes()); // the last transaction seen
    body.extend_from_slice(&SESSION_TIMEOUT_MS.to_be_bytes());
    body.extend_from_slice(&0_i64.to_be_bytes()); // a new session
    put_bytes(&mut body, &[0; 16]);
    stream.write_all(&frame(&body))?;
    read_frame(stream).map(drop)
}

/// A request that makes a node, with every right for everybody.
pub fn create(xid: i32, path: &str, data: &[u8]) -> Vec<u8> {
    let mut body = [xid.to_be_bytes(), CREATE.to_be_bytes()].concat();
    put_bytes(&mut body, path.as_bytes());
    put_bytes(&mut body, data);
    body.extend_from_slice(&1_i32.to_be_bytes());
    body.extend_from_slice(&31_i32.to_be_bytes());
    put_bytes(&mut body, b"world");
    put_bytes(&mut body, b"anyone");
    body.extend_from_slice(&0_i32.to_be_bytes()); // persistent
    frame(&body)
}

/// A request that sets a node's data, whatever its version.
pub fn set_data(xid: i32, path: &str, data: &[u8]) -> Vec<u8> {
    let mut body = [xid.to_be_bytes(), SET_DATA.to_be_bytes()].concat();
    put_bytes(&mut body, path.as_bytes());
    put_bytes(&mut body, data);
    body.extend_from_slice(&(-1_i32).to_be_bytes());
    frame(&body)
}

/// The next reply: it succeeded, or the node was there already.
pub fn reply(stream: &mut impl Read) -> io::Result<()> {
    let body = read_frame(stream)?;
    let error = body.get(12..16).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes);
    match error {
        Some(0 | NODE_EXISTS) => Ok(()),
        Some(code) => Err(io::Error::other(format!("ZooKeeper answered with error {code}"))),
        None => Err(io::Error::other("a reply is cut short")),
    }
}
