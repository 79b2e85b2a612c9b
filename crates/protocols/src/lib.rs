//! The contract between a protocol and its host, and every protocol as a pure state machine.
