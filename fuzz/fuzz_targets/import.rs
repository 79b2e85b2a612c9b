//! Whatever the input, an importer gives a clear error or a history; what it gives can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use synod_check::history::History;
use synod_check::{Error, ReadLimits, import};

const LIMITS: ReadLimits = ReadLimits { line_bytes_max: 1 << 16, operations_max: 1_000 };

fuzz_target!(|input: &[u8]| {
    let history = match import::any(input, LIMITS) {
        Ok((history, _)) => history,
        Err(error) => {
            assert!(!matches!(error, Error::Io(_)), "memory does not fail: {error}");
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let mut written = Vec::new();
    history.write(&mut written).expect("memory takes all");
    let limits = ReadLimits { line_bytes_max: 1 << 24, ..LIMITS };
    let again = History::read(written.as_slice(), limits).expect("what was written can be read");
    assert_eq!(again.operations.len(), history.operations.len());
});
