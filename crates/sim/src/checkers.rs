//! The promises of a replicated log, checked after every step.
//!
//! Each check is incremental: it looks at what the step changed. For that the checkers keep their
//! own picture of every member's log, of what was ever committed, and of what each disk really holds.
//!
//! | promise | what is checked |
//! |---|---|
//! | election safety | no two members lead the same epoch |
//! | leader append-only | a leader's log does not shrink while it leads |
//! | log matching | entries of one index and epoch are equal and follow on the same epoch, everywhere |
//! | leader completeness | a new leader holds what was committed in earlier epochs |
//! | state-machine safety | members apply the same entries at the same indexes, without gaps, and their states are equal then |
//! | durability | what is committed is on the disks of a quorum at that moment; a member comes back with all that its disk said to have synced |
//!
//! A quorum is a majority of the voters; while members change, a majority of those before and one of those after the
//! change. Who they are is what the member says that found the entry committed, or its leader, who may know of a change that
//! the member has yet to hear of. What was on the disks of a quorum when a member heard of a change stays committed by
//! that quorum: it may have been found so just before. That loses nothing, since whoever holds the change holds what is
//! before it, and whoever does not is still elected by a quorum which meets that one. What reaches the disks later is
//! judged by who counts after the change.

use crate::outcome::Violation;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use synod_protocols::Fingerprint;
use synod_protocols::log::{
    CommittedEntry, Index, LogStatus, Member, MemberPart, Payload, ReplicatedLog, Role,
};

/// Violations that a run reports at most; what follows the first is mostly its consequence.
pub const VIOLATIONS_MAX: usize = 16;

/// The epoch of an entry that had left its member's memory before it could be looked at.
const UNSEEN: u64 = 0;

/// The picture of everything.
#[derive(Debug)]
pub(crate) struct Checkers {
    /// Whether each position is agreed on by itself.
    by_position: bool,
    /// After how many positions a change of members governs there.
    alpha: u64,
    leaders: BTreeMap<u64, u8>,
    /// What was committed, from index 1.
    chosen: Vec<Chosen>,
    /// Every entry that ever stood at an index, from index 1.
    known: Vec<Known>,
    members: Vec<Shadow>,
    /// The founding members.
    founding: Vec<(u8, MemberPart)>,
    /// The digest of the state after each index, 0 if nobody was seen there.
    states: Vec<u64>,
    pub(crate) violations: Vec<Violation>,
    /// Leaders that came into office.
    pub(crate) elections: u64,
    /// Memory for the entries that are new in a log: index, epoch and digest.
    fresh: Vec<(u64, u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Chosen {
    epoch: u64,
    digest: u64,
    /// The epoch of the member that said so first.
    committed_in: u64,
}

/// The entries that were seen at one index; nearly always one.
#[derive(Clone, Debug, Default)]
struct Known {
    first: Option<Seen>,
    more: Vec<Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    epoch: u64,
    digest: u64,
    previous: u64,
}

/// The picture of one member.
#[derive(Clone, Debug, Default)]
struct Shadow {
    /// The epochs of its log, from index 1.
    log: Vec<u64>,
    role: Option<Role>,
    epoch: u64,
    last: u64,
    last_epoch: u64,
    committed: u64,
    /// The last entry handed to its state machine.
    delivered: u64,
    /// The last entry on its disk, in truth.
    durable: u64,
    /// The last entry on its disk, as its disk said.
    promised: u64,
    /// The members and their parts, as its log has it; none while it does not know.
    members: Vec<(u8, MemberPart)>,
    /// Where each position is agreed on by itself, a change of members governs from so many positions after its own on: the
    /// first that the last change governs, and who counts before it.
    governs_from: u64,
    members_before: Vec<(u8, MemberPart)>,
    /// The last entry that a quorum had on disk when it heard of the last change of members, of those before the change.
    settled: u64,
    /// Where records end that are being written: a crash may keep them although they were not synced, and
    /// they may replace a longer log.
    writing: Option<u64>,
}

impl Checkers {
    /// For a cluster founded by `nodes` members, `size` with those that join it.
    pub(crate) fn new<P: ReplicatedLog>(nodes: u8, size: u8, alpha: u32) -> Checkers {
        let founding = (0..nodes).map(|index| (index, MemberPart::Voter)).collect();
        Checkers {
            founding,
            by_position: !P::LOG_MATCHING,
            alpha: alpha.into(),
            leaders: BTreeMap::new(),
            chosen: Vec::new(),
            known: Vec::new(),
            members: vec![Shadow::default(); size.into()],
            states: Vec::new(),
            violations: Vec::new(),
            elections: 0,
            fresh: Vec::new(),
        }
    }

    /// Entries committed so far.
    pub(crate) fn committed(&self) -> u64 {
        self.chosen.len() as u64
    }

    pub(crate) fn violation(&mut self, t: u64, promise: &'static str, detail: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { t, promise, detail });
        }
    }

    /// A member has started; `applied` is what its state machine held.
    pub(crate) fn on_start<P: ReplicatedLog>(
        &mut self,
        t: u64,
        member: u8,
        process: &P,
        status: &LogStatus,
        applied: Index,
    ) {
        let shadow = &mut self.members[usize::from(member)];
        let promised = shadow.writing.map_or(shadow.promised, |last| last.min(shadow.promised));
        *shadow = Shadow {
            delivered: applied.0,
            durable: status.last.0,
            promised: status.last.0,
            ..Shadow::default()
        };
        if status.last.0 < promised {
            let n = member + 1;
            let detail = format!(
                "n{n}'s disk had said to hold entries up to {promised}, and n{n} came back with {}",
                status.last
            );
            self.violation(t, "durability", detail);
        }
        self.observe(t, member, process, status);
    }

    /// A member's log says who the members are.
    pub(crate) fn on_members(&mut self, member: u8, members: &[Member]) {
        let settled = self.settled(member);
        let shadow = &mut self.members[usize::from(member)];
        let parts = members.iter().map(|member| ((member.id.0 - 1) as u8, member.part)).collect();
        shadow.members_before = std::mem::replace(&mut shadow.members, parts);
        shadow.settled = settled;
    }

    /// The last entry of a member's log which, as all before it, is on the disks of a quorum of the members that it knows of.
    fn settled(&self, member: u8) -> u64 {
        let log = &self.members[usize::from(member)].log;
        let is_held = |index: &u64| {
            let epoch = log[*index as usize - 1];
            is_quorum(self.voting(member), |member| self.holds(member, *index, epoch))
        };
        (self.committed() + 1..=log.len() as u64).take_while(is_held).last().unwrap_or(self.committed())
    }

    /// Who counts, as a member has it.
    fn voting(&self, member: u8) -> &[(u8, MemberPart)] {
        match self.members[usize::from(member)].members.as_slice() {
            [] => &self.founding,
            known => known,
        }
    }

    /// Whether a member's disk holds the entry of that epoch at the index, or one that says the same.
    fn holds(&self, member: u8, index: u64, epoch: u64) -> bool {
        let shadow = &self.members[usize::from(member)];
        let same = |found: &u64| {
            *found == epoch || *found == UNSEEN || self.is_proposed_again(index as usize, *found)
        };
        shadow.durable >= index && shadow.log.get(index as usize - 1).is_some_and(same)
    }

    /// A member's state is now, durably, one that was fetched from another and covers this entry.
    pub(crate) fn on_installed(&mut self, member: u8, index: u64) {
        let shadow = &mut self.members[usize::from(member)];
        // What its log held after that entry may be gone: it need not have been of the same history.
        (shadow.delivered, shadow.promised, shadow.writing) = (index, index, None);
        shadow.durable = shadow.durable.max(index);
        // What its log held up to there is no longer what it stands on.
        shadow.log.iter_mut().take(index as usize).for_each(|epoch| *epoch = UNSEEN);
    }

    /// A member's disk was lost. It is not expected to come back with anything; but what it
    /// held is still counted for commits, since acknowledgements of it may be on their way, and the loss of a
    /// minority of disks is within a protocol's budget.
    pub(crate) fn on_wipe(&mut self, member: u8) {
        self.members[usize::from(member)].promised = 0;
    }

    /// Records which end with this entry are being written to a member's disk.
    pub(crate) fn on_writing(&mut self, member: u8, last: u64) {
        self.members[usize::from(member)].writing = Some(last);
    }

    /// A member's disk has synced records which end with this entry; a lie if not `truly`.
    pub(crate) fn on_synced(&mut self, member: u8, last: u64, truly: bool) {
        let shadow = &mut self.members[usize::from(member)];
        shadow.promised = last;
        shadow.writing = None;
        if truly {
            shadow.durable = last;
        }
    }

    /// A member has made a step.
    pub(crate) fn observe<P: ReplicatedLog>(&mut self, t: u64, member: u8, process: &P, status: &LogStatus) {
        let shadow = &self.members[usize::from(member)];
        let (last, last_epoch) = (status.last.0, status.last_epoch.0);
        let moved = (last, last_epoch) != (shadow.last, shadow.last_epoch);
        let elected = status.role == Role::Leader
            && (shadow.role != Some(Role::Leader) || shadow.epoch != status.epoch.0);
        let committed = status.committed.0;
        if committed < shadow.committed {
            let detail = format!(
                "n{} took back its commit index from {} to {committed}",
                member + 1,
                shadow.committed
            );
            self.violation(t, "state-machine safety", detail);
        }
        if moved || self.by_position {
            self.observe_log(t, member, process, status);
        }
        let shadow = &mut self.members[usize::from(member)];
        (shadow.role, shadow.epoch) = (Some(status.role), status.epoch.0);
        (shadow.last, shadow.last_epoch, shadow.committed) = (last, last_epoch, committed);
        if elected {
            self.on_elected(t, member, status.epoch.0);
        }
    }

    fn observe_log<P: ReplicatedLog>(&mut self, t: u64, member: u8, process: &P, status: &LogStatus) {
        let n = member + 1;
        let last = status.last.0;
        let at = usize::from(member);
        let shadow = &self.members[at];
        let before = shadow.log.len() as u64;
        if last < before {
            let leads = status.role == Role::Leader
                && shadow.role == Some(Role::Leader)
                && shadow.epoch == status.epoch.0;
            let known = shadow.committed.max(shadow.delivered);
            if leads {
                let detail = format!(
                    "n{n} leads epoch {} and shortened its log from {before} to {last}",
                    status.epoch.0
                );
                self.violation(t, "leader append-only", detail);
            }
            if last < known {
                let detail =
                    format!("n{n} knew that entries up to {known} are committed and cut its log to {last}");
                self.violation(t, "leader completeness", detail);
            }
            self.members[at].log.truncate(last as usize);
        }
        // Back from the end to where the log is as it was. Where each position is agreed on by itself, any that is not
        // known to be committed may have changed.
        let settled = if self.by_position { self.members[at].committed } else { last };
        let mut fresh = std::mem::take(&mut self.fresh);
        let mut index = last;
        while index > 0 {
            let old = self.members[at].log.get(index as usize - 1).copied();
            match process.entry(Index(index)) {
                Some((epoch, _)) if old == Some(epoch.0) && index <= settled => break,
                Some((epoch, _)) if old == Some(epoch.0) => {}
                Some((epoch, payload)) => {
                    if self.by_position && matches!(payload, Payload::Membership(_)) {
                        let governs = &mut self.members[at].governs_from;
                        *governs = (*governs).max(index + self.alpha);
                    }
                    fresh.push((index, epoch.0, payload_digest(payload)));
                }
                // No longer in memory: it was seen when it was, or is what the disk held at the start.
                None if old.is_some() && index <= settled => break,
                None if old.is_some() => {}
                None => fresh.push((index, UNSEEN, 0)),
            }
            index -= 1;
        }
        // What was settled of the log that it had says nothing of what replaces it.
        let kept = fresh.last().map_or(last, |(index, ..)| index - 1);
        self.members[at].settled = self.members[at].settled.min(kept);
        for (index, epoch, digest) in fresh.drain(..).rev() {
            let log = &mut self.members[at].log;
            let previous = if index > 1 && P::LOG_MATCHING { log[index as usize - 2] } else { 0 };
            match log.get_mut(index as usize - 1) {
                Some(old) => *old = epoch,
                None => log.push(epoch),
            }
            if epoch != UNSEEN {
                self.learn(t, n, index, Seen { epoch, digest, previous });
            }
        }
        self.fresh = fresh;
    }

    /// Log matching, by induction on the index.
    fn learn(&mut self, t: u64, n: u8, index: u64, seen: Seen) {
        let at = index as usize - 1;
        if self.known.len() <= at {
            self.known.resize(at + 1, Known::default());
        }
        let known = &mut self.known[at];
        let same = known.first.iter().chain(&known.more).find(|other| other.epoch == seen.epoch).copied();
        match same {
            Some(other) if other.digest != seen.digest => {
                let detail =
                    format!("entry {index} of epoch {} is not the same at n{n} as elsewhere", seen.epoch);
                self.violation(t, "log matching", detail);
            }
            Some(other) if other.previous != seen.previous && other.previous > 0 && seen.previous > 0 => {
                let detail = format!(
                    "entry {index} of epoch {} follows on epoch {} at n{n}, and on epoch {} elsewhere",
                    seen.epoch, seen.previous, other.previous
                );
                self.violation(t, "log matching", detail);
            }
            Some(_) => {}
            None if known.first.is_none() => known.first = Some(seen),
            None => known.more.push(seen),
        }
    }

    fn on_elected(&mut self, t: u64, member: u8, epoch: u64) {
        self.elections += 1;
        let n = member + 1;
        let first = *self.leaders.entry(epoch).or_insert(member);
        if first != member {
            self.violation(t, "election safety", format!("n{} and n{n} both lead epoch {epoch}", first + 1));
        }
        let log = &self.members[usize::from(member)].log;
        let missing = self.chosen.iter().enumerate().find(|(i, chosen)| {
            let holds = |found: &u64| {
                *found == chosen.epoch || *found == UNSEEN || self.is_proposed_again(i + 1, *found)
            };
            chosen.committed_in < epoch && !log.get(*i).is_some_and(holds)
        });
        if let Some((i, chosen)) = missing {
            let held = log.get(i).map_or("nothing".to_owned(), |epoch| format!("an entry of epoch {epoch}"));
            let detail = format!(
                "n{n} leads epoch {epoch} and holds {held} at {}, where an entry of epoch {} was committed",
                i + 1,
                chosen.epoch
            );
            self.violation(t, "leader completeness", detail);
        }
    }

    /// A member's state machine was given these entries.
    pub(crate) fn on_committed(
        &mut self,
        t: u64,
        member: u8,
        entries: &[CommittedEntry],
        status: &LogStatus,
    ) {
        let n = member + 1;
        let before = self.chosen.len();
        for entry in entries {
            let index = entry.index.0;
            let shadow = &mut self.members[usize::from(member)];
            let expected = shadow.delivered + 1;
            shadow.delivered = index;
            if index != expected {
                let detail = format!("n{n} applied entry {index} where entry {expected} was next");
                self.violation(t, "state-machine safety", detail);
            }
            let found = Chosen {
                epoch: entry.epoch.0,
                digest: payload_digest(&entry.payload),
                committed_in: status.epoch.0,
            };
            match self.chosen.get(index as usize - 1) {
                Some(chosen) if (chosen.epoch, chosen.digest) != (found.epoch, found.digest) => {
                    let detail = format!(
                        "n{n} applied an entry of epoch {} at {index}, where another of epoch {} was applied before",
                        found.epoch, chosen.epoch
                    );
                    self.violation(t, "state-machine safety", detail);
                }
                None if index as usize == self.chosen.len() + 1 => self.chosen.push(found),
                _ => {}
            }
        }
        if self.chosen.len() > before {
            self.check_quorum(t, member, status.epoch.0);
        }
    }

    /// What was just committed is on the disks of a quorum.
    fn check_quorum(&mut self, t: u64, member: u8, led_in: u64) {
        let index = self.chosen.len();
        let epoch = self.chosen[index - 1].epoch;
        let holds = |member: u8| self.holds(member, index as u64, epoch);
        let counts = |member: u8| {
            let shadow = &self.members[usize::from(member)];
            is_quorum(self.voting(member), holds)
                || index as u64 <= shadow.settled
                || ((index as u64) < shadow.governs_from && is_quorum(&shadow.members_before, holds))
        };
        let leader = self.leaders.get(&led_in).copied().unwrap_or(member);
        if !counts(member) && !counts(leader) {
            let all = 0..self.members.len() as u8;
            let holders: Vec<String> =
                all.filter(|member| holds(*member)).map(|member| format!("n{}", member + 1)).collect();
            let who = if holders.is_empty() { "no member".to_owned() } else { holders.join(", ") };
            let detail =
                format!("entry {index} of epoch {epoch} counts as committed, and {who} alone has it on disk");
            self.violation(t, "durability", detail);
        }
    }

    /// Whether the entry of that epoch repeats what was chosen at the index in an earlier one. Where each position is
    /// agreed on by itself, whoever accepted the later one holds what was chosen.
    fn is_proposed_again(&self, index: usize, epoch: u64) -> bool {
        let Some(chosen) = self.chosen.get(index - 1) else { return false };
        let known =
            self.known.get(index - 1).into_iter().flat_map(|known| known.first.iter().chain(&known.more));
        self.by_position
            && epoch > chosen.epoch
            && known.clone().any(|seen| seen.epoch == epoch && seen.digest == chosen.digest)
    }

    /// A client was told that its command was applied there.
    pub(crate) fn on_acknowledged(&mut self, t: u64, member: u8, index: u64) {
        if index > self.committed() {
            let detail = format!(
                "n{} acknowledged entry {index}, and entries are committed up to {}",
                member + 1,
                self.committed()
            );
            self.violation(t, "durability", detail);
        }
    }

    /// A member's state machine is in this state, which it came to by applying up to `applied`.
    pub(crate) fn on_state(&mut self, t: u64, member: u8, applied: u64, digest: u64) {
        if applied == 0 {
            return;
        }
        let at = applied as usize - 1;
        if self.states.len() <= at {
            self.states.resize(at + 1, 0);
        }
        // Zero is the one digest that means nothing.
        let digest = digest.max(1);
        match self.states[at] {
            0 => self.states[at] = digest,
            other if other == digest => {}
            _ => {
                let detail =
                    format!("n{}'s state after entry {applied} is not that of another member", member + 1);
                self.violation(t, "state-machine safety", detail);
                self.states[at] = digest;
            }
        }
    }
}

/// Whether the members for which it holds are a majority of the voters, before and after a change under way.
fn is_quorum(members: &[(u8, MemberPart)], holds: impl Fn(u8) -> bool) -> bool {
    [MemberPart::Leaving, MemberPart::Entering].into_iter().all(|also| {
        let voters = members.iter().filter(|(_, part)| *part == MemberPart::Voter || *part == also);
        voters.clone().filter(|(member, _)| holds(*member)).count() > voters.count() / 2
    })
}

fn payload_digest(payload: &Payload) -> u64 {
    let mut digest = Fingerprint::new();
    payload.hash(&mut digest);
    digest.finish()
}

#[cfg(test)]
mod tests;
