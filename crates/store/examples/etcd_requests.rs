//! Prints the requests whose answers by etcd are kept in `tests/etcd/recorded.txt`, one a line: a method and the request in
//! hexadecimal. How to record them again, from another version of etcd for instance, stands in `tests/etcd.rs`.

#[path = "../tests/support/mod.rs"]
mod support;

use prost::Message;
use support::{Random, compact, delete_op, op, put, put_op, range, range_op, txn, txn_op};
use synod_store::proto::etcdserverpb::request_op::Request;
use synod_store::proto::etcdserverpb::*;
use synod_store::{Command, Limits, MemoryMap, Store, validate};

fn main() {
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
