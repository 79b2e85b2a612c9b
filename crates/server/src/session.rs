//! Sessions on the log: what a client has seen of the one order, as a token that it carries from member to member.
//!
//! A token says how far the log was applied where the session was last. A member that shows it what it has applied itself, once
//! that is at least as much, gives the session *sequential* reads: it never reads back in time and always sees its own writes,
//! though nobody else is asked. Tokens are sealed as those of causal keyspaces are: see
//! [`token`](synod_protocols::weak::token).

use crate::applied::NotReached;
use crate::member::Member;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;
use synod_node::spaces::{self, SpaceId};
use synod_protocols::log::{Index, ReplicatedLog};
use synod_protocols::weak::token::{self, Format, TOKEN_BYTES_MAX};
use synod_protocols::weak::{ClusterId, KeyspaceId, Secret, TokenError};

/// What begins a session, in the place of a token.
pub(crate) const NEW: &str = "new";
/// The keyspace that the etcd store is, in tokens: no other one has this number.
pub(crate) const ETCD_STORE: SpaceId = SpaceId(0);
/// How long a member that has not caught up with a session waits before it refuses. Causal keyspaces wait as long.
pub(crate) const WAIT: Duration = Duration::from_secs(2);

/// Why a session's token does not help it here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionError {
    /// Longer than any token is.
    TooLong,
    /// Nothing that was sealed here for this keyspace.
    Token(TokenError),
    /// This member has not applied what the session has seen elsewhere.
    Behind { applied: Index, wanted: Index },
    /// Too many wait.
    Busy,
}

impl SessionError {
    /// What programs call it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            SessionError::TooLong => "session-too-long",
            SessionError::Token(TokenError::Malformed) => "session-malformed",
            SessionError::Token(TokenError::OtherCluster(_)) => "session-other-cluster",
            SessionError::Token(TokenError::OtherKeyspace(_)) => "session-other-keyspace",
            SessionError::Token(TokenError::Forged) => "session-forged",
            SessionError::Behind { .. } => "behind",
            SessionError::Busy => "busy",
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionError::TooLong => {
                write!(f, "the session token is longer than any is; begin a new session")
            }
            SessionError::Token(error) => write!(f, "{error}"),
            SessionError::Behind { applied, wanted } => write!(
                f,
                "the session has seen the log up to {wanted} elsewhere, and this member has applied it up to {applied}; ask \
                 another member, or try again"
            ),
            SessionError::Busy => {
                write!(f, "too many sessions wait for this member to catch up; try again later")
            }
        }
    }
}

/// A token as text.
pub(crate) fn to_text(token: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(token)
}

/// A token from its text.
///
/// # Errors
/// What is no such text, or longer than a token may be.
pub(crate) fn from_text(text: &str) -> Result<Bytes, SessionError> {
    if text.len() > TOKEN_BYTES_MAX.div_ceil(3) * 4 {
        return Err(SessionError::TooLong);
    }
    let bytes = URL_SAFE_NO_PAD.decode(text);
    bytes.map(Bytes::from).map_err(|_| SessionError::Token(TokenError::Malformed))
}

/// What may seal tokens, if nothing does yet.
pub(crate) fn draw_secret() -> io::Result<spaces::Secret> {
    let mut bytes = [[0; 8]; 2];
    let mut source = File::open("/dev/urandom")?;
    bytes.iter_mut().try_for_each(|word| source.read_exact(word))?;
    Ok(spaces::Secret(bytes.map(u64::from_le_bytes)))
}

/// What seals the tokens of a cluster.
#[derive(Clone, Copy)]
pub(crate) struct Seal {
    pub(crate) secret: Secret,
    pub(crate) cluster: ClusterId,
}

impl Seal {
    /// The token of a session that has seen the log up to `index`.
    pub(crate) fn log_token(&self, space: SpaceId, index: Index) -> String {
        let Seal { secret, cluster } = *self;
        to_text(&token::seal_as(Format::Index, secret, cluster, KeyspaceId(space.0), &index.0))
    }

    /// What a session's token says that it has seen.
    pub(crate) fn open_log_token(&self, space: SpaceId, text: &str) -> Result<Index, SessionError> {
        let Seal { secret, cluster } = *self;
        let opened = token::open_as(Format::Index, &from_text(text)?, secret, cluster, KeyspaceId(space.0));
        opened.map(Index).map_err(SessionError::Token)
    }
}

/// A session of the etcd store: what it has seen, and what seals what it sees next.
#[derive(Clone, Copy)]
pub(crate) struct Session {
    pub(crate) seen: Index,
    pub(crate) seal: Seal,
}

impl Session {
    /// The session's token once it has been told of the log up to `index`.
    pub(crate) fn token(&self, index: Index) -> String {
        self.seal.log_token(ETCD_STORE, index.max(self.seen))
    }
}

impl<P: ReplicatedLog + 'static> Member<P> {
    /// What seals tokens of weak keyspaces and of the log alike; none before anybody needed it.
    pub(crate) fn seal(&self) -> Option<Seal> {
        let secret = self.core.borrow().node.machine().registry().secret()?;
        Some(Seal { secret: Secret(secret.0), cluster: ClusterId(self.config.cluster_id().0) })
    }

    /// The same, for a token that is shown: where there is no secret, nothing was ever sealed.
    pub(crate) fn seal_of_shown(&self) -> Result<Seal, SessionError> {
        self.seal().ok_or(SessionError::Token(TokenError::Forged))
    }

    /// How far this member has applied the log.
    pub(crate) fn applied_index(&self) -> Index {
        self.core.borrow().node.status().applied
    }

    /// Waits until this member has applied the log up to `wanted`, for `span` at the most.
    pub(crate) async fn catch_up(&self, wanted: Index, span: Duration) -> Result<(), SessionError> {
        if self.applied_index() >= wanted {
            return Ok(());
        }
        self.applied.wait(wanted, span, self.config.requests_max).await.map_err(|why| match why {
            NotReached::Busy => SessionError::Busy,
            NotReached::Late => SessionError::Behind { applied: self.applied_index(), wanted },
        })
    }
}
