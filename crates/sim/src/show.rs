//! Showing members and operations: only when somebody watches.

use crate::event::{Event, LOG_SHOWN, NodeState};
use crate::world::{World, member};
use synod_node::sessions;
use synod_protocols::ballot::ID_BOUND;
use synod_protocols::log::{Index, LogStatus, Payload, ReplicatedLog, Role};
use synod_protocols::viewstamped::ViewNumber;
use synod_store::Command;

impl<P: ReplicatedLog> World<'_, P> {
    /// Shows a member's state if it is not as it was shown last.
    pub(crate) fn show_state(&mut self, index: u8) {
        if !self.shows {
            return;
        }
        let state = self.state(index);
        let shown = &mut self.members[usize::from(index)].shown;
        if *shown != state {
            shown.clone_from(&state);
            self.show(&Event::State { n: member(index), s: &state });
        }
    }

    fn state(&mut self, index: u8) -> NodeState {
        let now = self.now;
        let at = &mut self.members[usize::from(index)];
        let Some(node) = &at.node else {
            let shown = &at.shown;
            // What is left of it is what it had on disk.
            return NodeState {
                role: "down",
                epoch: shown.epoch,
                base: shown.base,
                members: shown.members.clone(),
                last: shown.last,
                last_epoch: shown.last_epoch,
                durable: shown.durable,
                log: shown.log.clone(),
                ..NodeState::default()
            };
        };
        let status = node.status();
        // The protocol's own timer: what the node waits for besides, such as the end of a batch,
        // would hide how long an election is still away.
        let deadline = node.process().deadline();
        if at.deadline.0 != deadline {
            at.deadline = (deadline, now);
        }
        NodeState {
            up: true,
            paused: at.paused,
            applied: status.applied.0,
            deadline: deadline.map(|deadline| at.clock.when(deadline)),
            deadline_from: at.deadline.1,
            fields: node.process().describe(at.clock.at(now)),
            ..log_state(node.process(), &status.log)
        }
    }

    /// Shows a phase of an operation; `answer` is its value and its error.
    pub(crate) fn show_operation(
        &mut self,
        number: u32,
        phase: &'static str,
        answer: Option<(Option<&str>, Option<&'static str>)>,
    ) {
        if !self.shows {
            return;
        }
        let operation = &self.clients.operations[number as usize];
        let (who, what, key, asked) =
            (operation.who, operation.what, operation.key.clone(), operation.member);
        let written = operation.value.clone();
        let name = self.clients.name(who).to_owned();
        let (value, error) = answer.unwrap_or((None, None));
        let value = value.or(written.as_deref());
        let event = Event::Op {
            c: &name,
            o: number,
            phase,
            f: what.name(),
            key: &key,
            value,
            node: Some(member(asked)),
            error,
        };
        self.show(&event);
    }
}

/// What the protocol itself says of its member's state.
pub(crate) fn log_state<P: ReplicatedLog>(process: &P, status: &LogStatus) -> NodeState {
    let last = status.last.0;
    let log = (last.saturating_sub(LOG_SHOWN) + 1..=last).filter_map(|index| {
        let (epoch, payload) = process.entry(Index(index))?;
        Some((index, epoch.0, label(payload)))
    });
    NodeState {
        role: match status.role {
            Role::Leader => "leader",
            Role::Candidate => "candidate",
            Role::Follower => "follower",
            Role::Learner => "learner",
            Role::Abstaining => "abstaining",
        },
        epoch: status.epoch.0,
        voted: status.voted_for.map(|id| id.to_string()),
        leader: status.leader.map(|id| id.to_string()),
        base: status.base.0,
        members: process.members().iter().map(|member| (member.id.to_string(), member.part.name())).collect(),
        last,
        last_epoch: status.last_epoch.0,
        durable: status.durable.0,
        committed: status.committed.0,
        log: log.collect(),
        ..NodeState::default()
    }
}

/// A log entry in a few words.
fn label(payload: &Payload) -> String {
    let bytes = match payload {
        Payload::Noop => return "no-op".into(),
        Payload::Membership(_) => return "members".into(),
        Payload::Command(bytes) => bytes,
    };
    let Ok((_, command)) = sessions::open(bytes.clone()) else { return format!("{} bytes", bytes.len()) };
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(16)]).into_owned();
    match Command::decode(command) {
        Ok(Command::Put(put)) => format!("{}={}", text(&put.key), text(&put.value)),
        Ok(Command::DeleteRange(delete)) => format!("delete {}", text(&delete.key)),
        Ok(Command::Txn(txn)) => match txn.compare.first() {
            Some(compare) => format!("cas {}", text(&compare.key)),
            None => "transaction".into(),
        },
        Ok(Command::Compact(compact)) => format!("compact {}", compact.revision),
        Err(_) => "unknown command".into(),
    }
}

/// The number that orders leaders, as its protocol calls and writes it.
pub(crate) fn epoch_words(protocol: &str, epoch: u64) -> String {
    match protocol {
        "raft" => format!("term {epoch}"),
        "multi-paxos" => format!("ballot {}.n{}", epoch / ID_BOUND, epoch % ID_BOUND),
        "viewstamped" => format!("view {}", ViewNumber(epoch)),
        _ => format!("epoch {epoch}"),
    }
}
