//! The store against etcd itself: what etcd 3.4.23 answered to some thousand random requests.
//!
//! `tests/etcd/recorded.txt` holds one request a line: the method, the request in hexadecimal, then
//! `ok` and the response in hexadecimal, or the gRPC code and the message. To record it anew, for
//! another version of etcd or other requests:
//!
//! ```text
//! cargo run -p synod-store --example etcd_requests > requests.txt
//! etcd --data-dir empty &
//! python3 tests/etcd/record.py localhost:2379 < requests.txt > tests/etcd/recorded.txt
//! ```

use bytes::Bytes;
use prost::Message;
use synod_store::proto::etcdserverpb::*;
use synod_store::{
    Code, Command, CommandKind, Limits, MemoryMap, Refusal, Response, Store, validate, validate_range,
};

const RECORDED: &str = include_str!("etcd/recorded.txt");

/// A request, or a response, in bytes; or a refusal.
type Answer = Result<Message_, Refusal>;

#[derive(Debug, PartialEq)]
enum Message_ {
    Range(RangeResponse),
    Command(Response),
}

#[test]
fn etcd_answered_the_same() {
    let mut store = Store::open(MemoryMap::new()).unwrap();
    let mut refusals = 0;
    for (number, line) in RECORDED.lines().enumerate() {
        let [method, request, verdict, rest] = line.splitn(4, ' ').collect::<Vec<_>>()[..] else {
            panic!("line {}: {line}", number + 1);
        };
        let request = Bytes::from(unhex(request));
        let expected = match verdict {
            "ok" => Ok(decode_response(method, unhex(rest).into())),
            code => Err(Refusal::new(Code::from_number(code.parse().unwrap()).unwrap(), rest.to_owned())),
        };
        refusals += usize::from(expected.is_err());
        let (answer, shown) = answer(&mut store, method, request);
        assert_eq!(answer, expected, "line {}: {shown}", number + 1);
    }
    assert!(store.revision().0 > 500 && refusals > 500, "the recording is not the one this test is for");
}

fn answer(store: &mut Store<MemoryMap>, method: &str, request: Bytes) -> (Answer, String) {
    let limits = Limits::default();
    if method == "Range" {
        let request = RangeRequest::decode(request).unwrap();
        let shown = format!("{request:?}");
        let answer = validate_range(&request, &limits).and_then(|()| {
            store.range(&request).map(Message_::Range).map_err(|error| error.refusal().unwrap().clone())
        });
        return (answer, shown);
    }
    let command = Command::decode_request(kind(method), request).unwrap();
    let answer = validate(&command, &limits).and_then(|()| {
        store.apply(&command).map(Message_::Command).map_err(|error| error.refusal().unwrap().clone())
    });
    store.commit().unwrap();
    (answer, format!("{command:?}"))
}

/// Leaves out what the store leaves to the server: which cluster, which member, which term.
fn decode_response(method: &str, bytes: Bytes) -> Message_ {
    if method == "Range" {
        let mut response = RangeResponse::decode(bytes).unwrap();
        keep_revision(response.header.as_mut().unwrap());
        return Message_::Range(response);
    }
    let mut response = match kind(method) {
        CommandKind::Put => Response::Put(Message::decode(bytes).unwrap()),
        CommandKind::DeleteRange => Response::DeleteRange(Message::decode(bytes).unwrap()),
        CommandKind::Txn => Response::Txn(Message::decode(bytes).unwrap()),
        CommandKind::Compact => Response::Compact(Message::decode(bytes).unwrap()),
    };
    keep_revision(response.header_mut());
    Message_::Command(response)
}

fn keep_revision(header: &mut ResponseHeader) {
    *header = ResponseHeader { revision: header.revision, ..ResponseHeader::default() };
}

fn kind(method: &str) -> CommandKind {
    match method {
        "Put" => CommandKind::Put,
        "DeleteRange" => CommandKind::DeleteRange,
        "Txn" => CommandKind::Txn,
        "Compact" => CommandKind::Compact,
        other => panic!("unknown method {other}"),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
