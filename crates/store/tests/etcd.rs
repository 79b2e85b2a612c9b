//! The store against etcd itself: what etcd 3.4.23 answered to some thousand random requests.
//!
//! `tests/etcd/recorded.txt` holds one request a line: the method, the request in hexadecimal, then
//! `ok` and the response in hexadecimal, or the gRPC code and the message. To record it anew, for
//! another version of etcd or other requests:
//!
//! ```text
//! cargo test -p synod-store --test etcd -- --ignored --nocapture write_requests > requests.txt
//! etcd --data-dir empty &
//! python3 tests/etcd/record.py localhost:2379 < requests.txt > tests/etcd/recorded.txt
//! ```

mod support;

use bytes::Bytes;
use prost::Message;
use support::{Random, compact, delete_op, op, put, put_op, range, range_op, txn, txn_op};
use synod_store::proto::etcdserverpb::request_op::Request;
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
#[ignore = "prints requests for the recorder"]
fn write_requests() {
    // Runs along, since requests are interesting only near the revision at which they arrive.
    let mut store = Store::open(MemoryMap::new()).unwrap();
    let print = |store: &mut Store<MemoryMap>, command: Command| {
        let (name, bytes) = match &command {
            Command::Put(_) => ("Put", command.encode()),
            Command::DeleteRange(_) => ("DeleteRange", command.encode()),
            Command::Txn(_) => ("Txn", command.encode()),
            Command::Compact(_) => ("Compact", command.encode()),
        };
        println!("{name} {}", hex(&bytes[1..]));
        if validate(&command, &Limits::default()).is_ok() {
            let _ = store.apply(&command);
        }
    };
    for command in wrong_commands() {
        print(&mut store, command);
    }
    let mut random = Random(34);
    for _ in 0..2500 {
        let command = random.command(store.revision().0);
        // etcd goes down when a put is to keep the value of a key that its own transaction deleted.
        if let Command::Txn(txn) = &command
            && any(txn, &|op| matches!(op, Request::RequestDeleteRange(_)))
            && any(txn, &|op| matches!(op, Request::RequestPut(put) if put.ignore_value || put.ignore_lease))
        {
            continue;
        }
        print(&mut store, command);
        println!("Range {}", hex(&random.range(store.revision().0).encode_to_vec()));
    }
}

fn wrong_commands() -> Vec<Command> {
    let empty = Command::Txn(txn(vec![], vec![RequestOp { request: None }], vec![]));
    let many = |count| (0..count).map(|_| range_op("a", "")).collect::<Vec<_>>();
    let nested = txn(vec![], vec![put_op("a", "1")], vec![]);
    let deleting = txn(vec![], vec![delete_op("a", "")], vec![]);
    let sides = |success, failure| Command::Txn(txn(vec![], success, failure));
    vec![
        Command::Put(put("", "x")),
        Command::DeleteRange(support::delete("", "\0")),
        sides(vec![op(Request::RequestRange(range("", "\0")))], vec![]),
        Command::Txn(txn(vec![Compare::default()], vec![], vec![])),
        empty,
        sides(vec![], many(128)),
        sides(vec![], many(129)),
        sides([many(127), vec![txn_op(txn(vec![], many(1), vec![]))]].concat(), vec![]),
        compact(-2),
        compact(-1),
        compact(0),
        compact(0),
        compact(2),
        sides(vec![txn_op(nested.clone()), txn_op(deleting.clone())], vec![]),
        sides(vec![txn_op(deleting.clone()), txn_op(nested.clone())], vec![]),
        sides(vec![delete_op("a", "\0"), put_op("b", "2")], vec![]),
        sides(vec![put_op("b", "3"), delete_op("a", "\0")], vec![]),
        sides(vec![delete_op("\0", "\0"), put_op("\0", "2")], vec![]),
        sides(vec![delete_op("c", "a"), put_op("b", "2")], vec![]),
        sides(vec![], vec![txn_op(txn(vec![], vec![delete_op("a", "c")], vec![])), put_op("b", "2")]),
    ]
}

fn any(txn: &TxnRequest, wanted: &dyn Fn(&Request) -> bool) -> bool {
    txn.success.iter().chain(&txn.failure).filter_map(|op| op.request.as_ref()).any(|op| match op {
        Request::RequestTxn(nested) => any(nested, wanted),
        op => wanted(op),
    })
}
