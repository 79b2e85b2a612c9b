//! What a transaction is to do, checked, and by which route.

use super::{HostedError, OPS_MAX, PARTICIPANTS_MAX};
use crate::member::Member;
use crate::outside::Description;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use synod_node::spaces::SpaceId;
use synod_protocols::commit::KeyOp;
use synod_protocols::log::ReplicatedLog;
use synod_protocols::{NodeId, Wire};

/// Bytes of a key at the most.
pub(crate) const KEY_BYTES_MAX: usize = 4 << 10;

/// Work at one participant.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    /// The name of a keyspace on the log, or of a participant outside.
    pub(crate) participant: String,
    pub(crate) work: Work,
}

/// What is to be done at a participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// At a keyspace, here or in another cluster.
    Keys(Vec<KeyOp>),
    /// At a participant outside, in its own words.
    Sql(Bytes),
}

/// Which route is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The cheapest one.
    Auto,
    /// One entry of the log, or nothing.
    OneEntry,
    /// Two phases, even if there is one participant, which then decides by itself all the same.
    TwoPhase,
}

/// How a transaction was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Everything was in one keyspace: as one entry of the log.
    OneEntry,
    /// By two-phase commit.
    TwoPhase,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Route::OneEntry => "one-entry",
            Route::TwoPhase => "two-phase",
        })
    }
}

/// A transaction that can be carried out.
pub(super) struct Planned {
    pub(super) branches: BTreeMap<NodeId, Bytes>,
    pub(super) names: BTreeMap<NodeId, String>,
    pub(super) route: Route,
}

/// Checks what is asked, and picks the route.
pub(super) fn plan<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    branches: Vec<Branch>,
    asked: Asked,
) -> Result<Planned, HostedError> {
    let mut keys: BTreeMap<(NodeId, String), Vec<KeyOp>> = BTreeMap::new();
    let mut others: BTreeMap<(NodeId, String), Bytes> = BTreeMap::new();
    let mut elsewhere: BTreeSet<NodeId> = BTreeSet::new();
    for Branch { participant, work } in branches {
        match (find(member, &participant)?, work) {
            (Found::Keyspace(space), Work::Keys(ops)) => {
                ops.iter().try_for_each(|op| check_key(op.key()))?;
                keys.entry((NodeId(space.0), participant)).or_default().extend(ops);
            }
            (Found::Elsewhere(id), Work::Keys(ops)) => {
                ops.iter().try_for_each(|op| check_key(op.key()))?;
                elsewhere.insert(id);
                keys.entry((id, participant)).or_default().extend(ops);
            }
            (Found::Outside(id), Work::Sql(work)) => {
                if others.insert((id, participant.clone()), work).is_some() {
                    let why = format!("`{participant}` is named twice: put all of its work into one branch");
                    return Err(HostedError::Refused { code: "twice", why });
                }
            }
            (Found::Keyspace(_) | Found::Elsewhere(_), Work::Sql(_)) => {
                let why = format!(
                    "`{participant}` is a keyspace: its work is put, delete, get, expect and add, and not of this kind"
                );
                return Err(HostedError::Refused { code: "wrong-work", why });
            }
            (Found::Outside(_), Work::Keys(_)) => {
                let why = format!("`{participant}` is no keyspace: its work is of another kind");
                return Err(HostedError::Refused { code: "wrong-work", why });
            }
        }
    }
    if keys.values().all(Vec::is_empty) && others.is_empty() {
        let why = "there is nothing to do: name at least one participant and its work".to_owned();
        return Err(HostedError::Refused { code: "empty", why });
    }
    check_size(member, &keys, &others)?;
    let names: Vec<&(NodeId, String)> = keys.keys().chain(others.keys()).collect();
    let route = match (names.as_slice(), asked) {
        // With one keyspace even two-phase commit is one phase: it decides by itself.
        ([_], _) if others.is_empty() && elsewhere.is_empty() => Route::OneEntry,
        ([one, rest @ ..], Asked::OneEntry) => {
            let apart = match rest {
                [] => format!("`{}` is not on this cluster's log", one.1),
                [other, ..] => format!("`{}` and `{}` are apart: one entry cannot hold both", one.1, other.1),
            };
            let why = format!("{apart}. Put everything into one keyspace, or use two-phase commit or a saga");
            return Err(HostedError::Refused { code: "apart", why });
        }
        _ => Route::TwoPhase,
    };
    let names = names.into_iter().cloned().collect();
    let encoded = keys.into_iter().map(|((id, _), ops)| (id, ops.to_bytes()));
    let branches = encoded.chain(others.into_iter().map(|((id, _), work)| (id, work))).collect();
    Ok(Planned { branches, names, route })
}

fn check_size<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    keys: &BTreeMap<(NodeId, String), Vec<KeyOp>>,
    others: &BTreeMap<(NodeId, String), Bytes>,
) -> Result<(), HostedError> {
    let (participants, ops) = (keys.len() + others.len(), keys.values().map(Vec::len).sum::<usize>());
    let bytes_max = usize::try_from(member.config.request_size_max).unwrap_or(usize::MAX);
    let bytes = keys.values().map(|ops| ops.to_bytes().len()).chain(others.values().map(Bytes::len)).max();
    let why = match bytes.unwrap_or_default() {
        _ if participants > PARTICIPANTS_MAX => {
            format!("{participants} participants; a transaction has at most {PARTICIPANTS_MAX}")
        }
        _ if ops > OPS_MAX => format!("{ops} operations; a transaction has at most {OPS_MAX}"),
        bytes if bytes > bytes_max => {
            format!("{bytes} bytes of work at one participant; at most {bytes_max} are taken")
        }
        _ => return Ok(()),
    };
    Err(HostedError::TooLarge(why))
}

pub(crate) fn check_key(key: &str) -> Result<(), HostedError> {
    let why = match key.as_bytes() {
        [] => "a key is empty: it has at least one byte".to_owned(),
        [0, ..] => "a key begins with a zero byte, and those are Synod's own: choose another one".to_owned(),
        bytes if bytes.len() > KEY_BYTES_MAX => {
            format!("a key of {} bytes; at most {KEY_BYTES_MAX} are taken", bytes.len())
        }
        _ => return Ok(()),
    };
    Err(HostedError::Refused { code: "key", why })
}

/// Whether a participant's work is operations on keys.
pub(crate) fn takes_keys<P: ReplicatedLog + 'static>(member: &Member<P>, name: &str) -> bool {
    matches!(find(member, name), Ok(Found::Keyspace(_) | Found::Elsewhere(_)))
}

enum Found {
    Keyspace(SpaceId),
    /// A keyspace of another cluster.
    Elsewhere(NodeId),
    Outside(NodeId),
}

fn find<P: ReplicatedLog + 'static>(member: &Member<P>, name: &str) -> Result<Found, HostedError> {
    let core = member.core.borrow();
    let registry = core.node.machine().registry();
    if let Some(space) = registry.space(name) {
        if !space.model.is_on_log() {
            let why = format!(
                "the keyspace `{name}` is {}: only linearizable and sequential ones, which share the cluster's log, \
                 take part in transactions and sagas",
                space.model
            );
            return Err(HostedError::Refused { code: "not-on-the-log", why });
        }
        return Ok(Found::Keyspace(space.id));
    }
    let outside = registry.outside().find(|outside| outside.name == name);
    let described = outside.map(|outside| Description::parse(&outside.description));
    if matches!(described, Some(Ok(Description::Http { .. }))) {
        let why = format!("`{name}` is a service behind HTTP, which cannot promise anything: use a saga");
        return Err(HostedError::Refused { code: "wrong-work", why });
    }
    let is_cluster = matches!(described, Some(Ok(Description::Cluster { .. })));
    outside
        .map(|outside| NodeId(outside.id.0))
        .map(|id| if is_cluster { Found::Elsewhere(id) } else { Found::Outside(id) })
        .ok_or_else(|| HostedError::Unknown(name.to_owned()))
}
