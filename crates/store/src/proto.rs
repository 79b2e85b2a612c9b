//! The client API's messages, generated from the files in `proto/`.

/// Keys with their versions, and events.
#[allow(missing_docs, reason = "a header says the same in every message")]
#[allow(clippy::all, reason = "generated")]
pub mod mvccpb {
    include!(concat!(env!("OUT_DIR"), "/mvccpb.rs"));
}

/// Requests and responses.
#[allow(missing_docs, reason = "a header says the same in every message")]
#[allow(clippy::all, reason = "generated")]
pub mod etcdserverpb {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}
