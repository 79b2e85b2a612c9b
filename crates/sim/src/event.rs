//! What happens in a run, as it is shown: the events of a trace, and who takes them.

use crate::script::Member;
use serde::{Serialize, Serializer};

impl Serialize for Member {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One thing that happened. `docs/scripts.md` describes each in its JSON form.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "k", rename_all = "lowercase")]
pub enum Event<'a> {
    /// A member's state after a step that changed it.
    State {
        /// Whose.
        n: Member,
        /// The state.
        s: &'a NodeState,
    },
    /// A message was sent.
    Send {
        /// Its number.
        m: u64,
        /// The message that it is a copy of, if the network repeats one.
        #[serde(skip_serializing_if = "Option::is_none")]
        copy_of: Option<u64>,
        /// The sender.
        from: Member,
        /// The receiver.
        to: Member,
        /// Its kind.
        name: &'static str,
        /// Its fields.
        detail: String,
        /// Its size, encoded.
        bytes: u64,
        /// Whether it left before its sender's disk held all that was recorded before it.
        early: bool,
        /// When it arrives, in nanoseconds; none if it never does.
        at: Option<u64>,
        /// Why it never does.
        lost: Option<&'static str>,
    },
    /// A message was delivered.
    Recv {
        /// Its number.
        m: u64,
    },
    /// A message died on its way.
    Drop {
        /// Its number.
        m: u64,
        /// Why.
        why: &'static str,
    },
    /// Something on a member's disk.
    Disk {
        /// Whose.
        n: Member,
        /// What: `write`, `sync-begin`, `sync-end`, `read`, `full`, `failed`, `lost`, `torn` or `rot`.
        op: &'static str,
        /// How many bytes it concerns.
        bytes: u64,
    },
    /// A record was written to a member's disk; durable at the next `sync-end`.
    Record {
        /// Whose.
        n: Member,
        /// Its kind.
        name: &'static str,
        /// Its fields.
        detail: String,
    },
    /// A member's timer ran out.
    Timeout {
        /// Whose.
        n: Member,
    },
    /// A connection to a peer was made or lost.
    Link {
        /// The member that learnt it.
        n: Member,
        /// The other end.
        to: Member,
        /// Whether it is up.
        up: bool,
    },
    /// A member learnt that entries are committed, and applied them.
    Commit {
        /// Which member.
        n: Member,
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// A client operation.
    Op {
        /// Who asks.
        c: &'a str,
        /// Its number.
        o: u32,
        /// `invoke`, `ok`, `fail` or `unknown`.
        phase: &'static str,
        /// `put`, `get`, `cas` or `delete`.
        f: &'static str,
        /// Which key.
        key: &'a str,
        /// What is written, or what the answer says.
        value: Option<&'a str>,
        /// Which member is asked.
        node: Option<Member>,
        /// Why it failed or is unknown.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'static str>,
    },
    /// A fault, or its end.
    Fault {
        /// The first word of the action, such as `crash`.
        what: &'static str,
        /// The member it concerns, if it concerns one.
        a: Option<Member>,
        /// The other one, for links.
        b: Option<Member>,
        /// For people.
        text: String,
        /// All directions that are cut after it.
        cuts: Vec<(Member, Member)>,
    },
    /// A remark.
    Note {
        /// For people.
        text: String,
    },
    /// A promise was broken.
    Violation {
        /// Which.
        promise: &'static str,
        /// How.
        detail: &'a str,
    },
}

/// What is shown of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// Whether it runs or is paused; not, when it is down.
    pub up: bool,
    /// Whether it is paused.
    pub paused: bool,
    /// `leader`, `candidate`, `follower`, `learner` or `abstaining`; `down` if it is.
    pub role: &'static str,
    /// Its term, ballot, epoch or view.
    pub epoch: u64,
    /// Whom it supports under it.
    pub voted: Option<String>,
    /// Whom it takes for the leader.
    pub leader: Option<String>,
    /// What its log begins after: the entries up to there are in the snapshot that it keeps.
    pub base: u64,
    /// The members as it knows them, and the part of each: `voter`, `leaving`, `entering` or `learner`.
    pub members: Vec<(String, &'static str)>,
    /// The last entry of its log.
    pub last: u64,
    /// The epoch of that.
    pub last_epoch: u64,
    /// The last entry on its disk, as it knows.
    pub durable: u64,
    /// The last entry that it knows to be committed.
    pub committed: u64,
    /// The last entry applied.
    pub applied: u64,
    /// When its timer runs out, in virtual nanoseconds.
    pub deadline: Option<u64>,
    /// When that timer was set.
    pub deadline_from: u64,
    /// The last entries of its log, see [`LOG_SHOWN`]: index, epoch and label.
    pub log: Vec<(u64, u64, String)>,
    /// Everything else in the protocol's own words.
    pub fields: Vec<(&'static str, String)>,
}

/// Entries of a log that a state shows at most.
pub const LOG_SHOWN: u64 = 12;

/// A moment worth jumping to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// When, in nanoseconds.
    pub t: u64,
    /// For people.
    pub label: String,
    /// `leader`, `crash`, `restart`, `partition`, `heal`, `fault`, `recover` or `violation`.
    pub kind: &'static str,
}

/// Takes the events of a run.
pub trait Sink {
    /// Whether it wants any: describing them costs more than the run itself.
    fn wants_events(&self) -> bool;

    /// One event at a virtual time in nanoseconds, which never goes back.
    fn event(&mut self, t: u64, event: &Event<'_>);
}

/// Wants nothing: for campaigns, which only need the outcome.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl Sink for NoTrace {
    fn wants_events(&self) -> bool {
        false
    }

    fn event(&mut self, _: u64, _: &Event<'_>) {}
}
