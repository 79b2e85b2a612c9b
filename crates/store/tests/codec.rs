//! Bytes in and out: what goes into the log comes back, and hostile bytes are refused.

mod support;

use bytes::Bytes;
use support::{Random, each_seed, put, put_op, txn, txn_op};
use synod_store::{
    Code, Command, CommandKind, Limits, MemoryMap, Refusal, Store, decode_outcome, encode_outcome, validate,
};

#[test]
fn commands_and_outcomes_come_back_as_they_were() {
    each_seed(100, |seed| {
        let mut random = Random(seed);
        let mut store = Store::open(MemoryMap::new()).unwrap();
        for _ in 0..50 {
            let command = random.command(store.revision().0);
            let encoded = command.encode();
            assert_eq!(Command::decode(encoded.clone()).as_ref(), Ok(&command));
            assert_eq!(encoded.len(), 1 + command.request_len());
            assert_eq!(Command::wrap(command.kind(), &encoded[1..]), encoded);
            let outcome = store.apply(&command).map_err(|error| error.refusal().unwrap().clone());
            assert_eq!(decode_outcome(encode_outcome(&outcome)), Some(outcome));
        }
    });
}

#[test]
fn decoding_borrows_the_value_instead_of_copying_it() {
    let encoded = Command::Put(put("key", "a value of some length")).encode();
    let Command::Put(decoded) = Command::decode(encoded.clone()).unwrap() else { panic!() };
    let range = encoded.as_ptr_range();
    assert!(range.contains(&decoded.key.as_ptr()) && range.contains(&decoded.value.as_ptr()));
}

#[test]
fn the_log_format_is_pinned() {
    let encoded = Command::Put(put("k", "v")).encode();
    assert_eq!(encoded[..], [1, 0x0a, 1, b'k', 0x12, 1, b'v']);
    let encoded = support::compact(300).encode();
    assert_eq!(encoded[..], [4, 0x08, 0xac, 0x02]);
    assert_eq!(encode_outcome(&Err(Refusal::EMPTY_KEY))[..2], [0, 3]);
}

#[test]
fn bytes_that_are_no_command_are_refused() {
    for (bytes, text) in [
        (&b""[..], "the command is empty"),
        (b"\x00", "unknown kind of command 0"),
        (b"\x09abc", "unknown kind of command 9"),
        (b"\x01\x0a\xff", "not a Put message"),
        (b"\x03\x0f", "not a Txn message"),
    ] {
        let error = Command::decode(Bytes::from_static(bytes)).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains(text), "{error}");
    }
}

#[test]
fn transactions_nested_without_end_are_refused_by_the_decoder() {
    let mut deep = txn(vec![], vec![put_op("a", "")], vec![]);
    for _ in 0..200 {
        deep = txn(vec![], vec![txn_op(deep)], vec![]);
    }
    let error = Command::decode(Command::Txn(deep).encode()).unwrap_err();
    assert!(error.message.contains("not a Txn message"), "{error}");
}

#[test]
fn no_bytes_make_it_panic_and_no_refusal_changes_anything() {
    each_seed(300, |seed| {
        let mut random = Random(seed);
        let mut store = Store::open(MemoryMap::new()).unwrap();
        for _ in 0..40 {
            let mut bytes = random.command(store.revision().0).encode().to_vec();
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                match random.below(4) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => bytes[at] = random.below(256) as u8,
                    2 => bytes.truncate(at + 1),
                    _ => bytes.insert(at, random.below(256) as u8),
                }
            }
            let bytes = Bytes::from(bytes);
            let _ = decode_outcome(bytes.clone());
            let Ok(command) = Command::decode(bytes) else { continue };
            let _ = validate(&command, &Limits::default());
            // Even what no member would have proposed.
            let before = store.fingerprint().unwrap();
            if let Err(error) = store.apply(&command) {
                assert!(error.refusal().is_some(), "{error:?}");
                assert_eq!(store.fingerprint().unwrap(), before);
            }
        }
    });
}

#[test]
fn every_kind_and_code_has_its_number() {
    for number in 0..=u8::MAX {
        if let Some(kind) = CommandKind::from_tag(number) {
            assert_eq!(kind.tag(), number);
        }
        assert_eq!(Code::from_number(number).map(Code::number), (1..=16).contains(&number).then_some(number));
    }
}
