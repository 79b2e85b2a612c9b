//! Participants outside this cluster: other people's databases, other clusters, services.
//!
//! Each is driven by an *agent*, which runs beside the coordinator or the orchestrator and speaks its words on the
//! outside's behalf: a message in, the answers out. An agent keeps nothing that it cannot do without. What was
//! promised is where the promise must hold, in the system outside, so an agent that is dropped in the middle of
//! anything is replaced by a new one on another member, which asks.
//!
//! | outside | agent | words | what makes it safe there |
//! |---|---|---|---|
//! | a PostgreSQL database | [`Postgres`] | two-phase commit | `PREPARE TRANSACTION`, and a mark written inside the transaction |
//! | another Synod cluster | [`ClusterPeer`] | two-phase commit | the participant there is the same code as here |
//! | a service behind HTTP | [`HttpService`] | sagas | an idempotency key that the service remembers |
//!
//! **Silence is an answer.** Where an agent does not know what became of something it says nothing: coordinators
//! and orchestrators ask again. It never guesses, and never takes "not found" for "done".

mod cluster;
mod description;
mod http;
mod neighbour;
mod postgres;
mod service;

pub(crate) use cluster::admitted;
pub(crate) use description::{Description, Found};
pub(crate) use neighbour::find_keyspace;

pub use cluster::{
    BadEnvelope, ClusterPeer, ENDPOINTS_MAX, ENVELOPE_BYTES_MAX, Envelope, KeyspaceThere, MESSAGES_MAX,
    MESSAGES_PATH, PeerError, To,
};
pub use http::BadUrl;
pub use postgres::{Cannot, CannotUrl, Damage, InDoubt, Postgres, Timing};
pub use service::{HttpService, OUTPUT_BYTES_MAX};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// Of what others say, at most this much is passed on.
const WORDS_MAX: usize = 400;

/// What somebody outside has said, on one line of bounded length.
fn one_line(words: &str) -> String {
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn from_base64(text: &str) -> Option<Bytes> {
    STANDARD.decode(text).ok().map(Bytes::from)
}
