//! Keyspaces of the log as participants of transactions: their lives, and what becomes of what they want.

use super::host::{Heard, Host, Proposed, heard};
use super::life::Hosted;
use crate::calls::Machine;
use crate::member::Member;
use std::collections::BTreeMap;
use std::rc::Rc;
use synod_node::spaces::{ProcessId, SpaceId, Standing, Step};
use synod_protocols::commit::{Changes, Keyspace, Participant, ParticipantConfig};
use synod_protocols::log::ReplicatedLog;
use synod_protocols::replicated::{Verdict, Wants};
use synod_protocols::{Input, NodeId, Time};

/// Values of a keyspace that are read from the state at a time.
const LOADED_AT_A_TIME: usize = 10_000;

impl<P: ReplicatedLog + 'static> Host<P> {
    pub(super) fn is_keyspace(&self, space: SpaceId) -> bool {
        let core = self.member.core.borrow();
        core.node.machine().registry().spaces().any(|known| known.id == space && known.model.is_on_log())
    }

    pub(super) fn keyspace(&mut self, space: SpaceId) -> &mut Hosted<Participant<Keyspace>> {
        let hosted = || Hosted::new(NodeId(space.0), ProcessId::Keyspace(space));
        self.keyspaces.entry(space).or_insert_with(hosted)
    }

    pub(super) fn participate(&mut self, now: Time, space: SpaceId, input: Input<Participant<Keyspace>>) {
        let wants = self.keyspace(space).step(now, input);
        self.take_keyspaces(space, wants);
    }

    fn take_keyspaces(&mut self, space: SpaceId, wants: Wants<Participant<Keyspace>>) {
        let process = ProcessId::Keyspace(space);
        let hosted = self.keyspace(space);
        let (id, life) = (hosted.id, hosted.life());
        let mut changes = Changes::new();
        let mut standing = Standing::Settled;
        if let Some(tenant) = hosted.tenant() {
            let participant = tenant.process_mut();
            changes = participant.resource_mut().take_committed();
            standing = match participant.is_in_doubt() {
                true => Standing::InDoubt,
                false if participant.by_hand().is_empty() => Standing::Settled,
                false => Standing::ByHand,
            };
        }
        assert!(changes.is_empty() || !wants.entries.is_empty(), "what changes values is recorded");
        for entry in wants.entries {
            // With the first one: it is the step's own, and another one replaces what it says too.
            let changes = std::mem::take(&mut changes);
            self.propose(process, life, |_| {
                let step = Step { standing, ..Step::new(process, entry) };
                step.with_writes(changes)
            });
        }
        self.messages.extend(wants.sends.into_iter().map(|(to, message)| (id, to, message)));
        wants.events.into_iter().for_each(|event| self.on_told(space, event));
    }

    pub(super) fn on_keyspaces(&mut self, now: Time, space: SpaceId, proposed: Proposed) {
        let member = Rc::clone(&self.member);
        let Some(hosted) = self.keyspaces.get_mut(&space) else { return };
        match heard(&member, hosted, now, &proposed) {
            Heard::Counts => {
                let wants = hosted.accepted(now);
                self.take_keyspaces(space, wants);
            }
            Heard::Begins(life, records) => {
                let values = match load(&member, space) {
                    Ok(values) => values,
                    Err(why) => {
                        self.member.log(&why);
                        return hosted.cease(now);
                    }
                };
                let mut config = ParticipantConfig::new(hosted.id, Keyspace::kept(values));
                config.is_kept = true;
                let (wants, held) = hosted.begin(now, life, config, records);
                self.take_keyspaces(space, wants);
                held.into_iter().for_each(|input| self.participate(now, space, input));
            }
            // A keyspace that was dropped is not tried again.
            Heard::Over if proposed.outcome.is_ok_and(|(_, verdict)| verdict == Verdict::Stale) => {
                let core = self.member.core.borrow();
                let is_there = core.node.machine().registry().spaces().any(|known| known.id == space);
                if !is_there {
                    self.keyspaces.remove(&space);
                }
            }
            Heard::Over | Heard::Nothing => {}
        }
    }
}

/// All values of a keyspace, those that are Synod's own included.
fn load<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    space: SpaceId,
) -> Result<BTreeMap<String, bytes::Bytes>, String> {
    let core = member.core.borrow();
    let machine: &Machine = core.node.machine();
    let mut values = BTreeMap::new();
    for prefix in [&b"\0"[..], b""] {
        let mut after = bytes::Bytes::new();
        loop {
            let some = machine
                .values(space, prefix, &after, LOADED_AT_A_TIME)
                .map_err(|error| format!("the values of a keyspace cannot be read: {error}"))?;
            let Some((last, _)) = some.last() else { break };
            after = last.clone();
            let is_last = some.len() < LOADED_AT_A_TIME;
            // Keys come in as text, so that none is left out here.
            let text = |(key, value): (bytes::Bytes, _)| Some((String::from_utf8(key.into()).ok()?, value));
            values.extend(some.into_iter().filter_map(text));
            if is_last {
                break;
            }
        }
    }
    Ok(values)
}
