//! What must hold in every run, checked as it happens (dissertation, figure 3.2).

use std::collections::{BTreeMap, HashMap};
use synod_protocols::log::{CommittedEntry, Epoch, Index, LogEvent, Payload, ReplicatedLog, Role, Ticket};
use synod_protocols::types::NodeId;

/// What an outsider who sees everything remembers of a run.
#[derive(Clone, Default)]
pub struct Oracle {
    /// Who led each epoch.
    leaders: BTreeMap<Epoch, NodeId>,
    /// The committed log, from position 1.
    committed: Vec<(Epoch, Payload)>,
    /// For each position, the epoch of the first member that knew it to be committed.
    committed_by: Vec<Epoch>,
    /// Every entry that ever was in a log, with the epoch of the one before it.
    appended: HashMap<(Index, Epoch), (Epoch, Payload)>,
    /// For each open read, what was committed when it was asked.
    reads: BTreeMap<Ticket, Index>,
}

impl Oracle {
    /// The last position known to be committed.
    pub fn committed(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// How many of the epochs that were led are not after `epoch`.
    pub fn count_epochs(&self, epoch: Epoch) -> usize {
        self.leaders.range(..=epoch).count()
    }

    /// How many epochs were led.
    pub fn leaders(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// How many reads were neither served nor refused by a member that still lives.
    pub fn reads_open(&self) -> usize {
        self.reads.len()
    }

    /// The member has crashed, and whoever asked it knows.
    pub fn reads_lost(&mut self, tickets: &[Ticket]) {
        self.reads.retain(|ticket, _| !tickets.contains(ticket));
    }

    /// What an outsider remembers decides whether a state is new.
    pub fn hash_into(&self, digest: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        (&self.leaders, &self.committed, &self.reads).hash(digest);
    }

    pub fn read_asked(&mut self, ticket: Ticket) {
        self.reads.insert(ticket, self.committed());
    }

    /// Log matching: an index and an epoch determine the entry and, in most protocols, all before it.
    pub fn check_appended<P: ReplicatedLog>(&mut self, id: NodeId, process: &P, first: Index, last: Index) {
        for index in (first.0..=last.0).map(Index) {
            let Some((epoch, payload)) = process.entry(index) else { continue };
            let before = match index.previous() {
                _ if !P::LOG_MATCHING => Epoch(0),
                Index::ZERO => Epoch(0),
                previous => match process.entry(previous) {
                    Some((epoch, _)) => epoch,
                    None => continue,
                },
            };
            let seen = self.appended.entry((index, epoch)).or_insert_with(|| (before, payload.clone()));
            assert!(
                (seen.0, &seen.1) == (before, payload),
                "LOG MATCHING: {id} has {payload:?} at {index}@{} after epoch {}, another log had {:?} after epoch {}",
                epoch.0,
                before.0,
                seen.1,
                seen.0.0
            );
        }
    }

    /// State machine safety: nobody ever takes another entry for committed at the same position.
    pub fn check_commit<P: ReplicatedLog>(&mut self, id: NodeId, process: &P, committed: Index) {
        while self.committed() < committed {
            let index = self.committed().next();
            let Some((epoch, payload)) = process.entry(index) else { return };
            assert!(epoch > Epoch(0), "{id}: the entry at {index} has no epoch");
            self.committed.push((epoch, payload.clone()));
            self.committed_by.push(process.status().epoch);
        }
    }

    pub fn check_event<P: ReplicatedLog>(&mut self, id: NodeId, process: Option<&P>, event: &LogEvent) {
        match event {
            LogEvent::Committed { entries } => {
                let epoch = process.map_or(Epoch(u64::MAX), |process| process.status().epoch);
                entries.iter().for_each(|entry| self.check_entry(id, epoch, entry));
            }
            LogEvent::Role { role: Role::Leader, epoch, .. } => {
                let leader = *self.leaders.entry(*epoch).or_insert(id);
                assert!(leader == id, "ELECTION SAFETY: {leader} and {id} both lead epoch {}", epoch.0);
                if let Some(process) = process {
                    self.check_complete(id, process, *epoch);
                }
            }
            LogEvent::ReadReady { ticket, index, .. } => {
                let floor = self.reads.remove(ticket).expect("a read is answered once");
                assert!(
                    *index >= floor,
                    "STALE READ: {id} serves a read at {index}, but {floor} was committed when it was asked"
                );
            }
            LogEvent::Refused { ticket, .. } => {
                self.reads.remove(ticket);
            }
            LogEvent::Done { .. } | LogEvent::Members { .. } | LogEvent::Role { .. } => {}
        }
    }

    fn check_entry(&mut self, id: NodeId, epoch: Epoch, entry: &CommittedEntry) {
        match self.committed.get(entry.index.0 as usize - 1) {
            Some((epoch, payload)) => assert!(
                (*epoch, payload) == (entry.epoch, &entry.payload),
                "STATE MACHINE SAFETY: {id} applies {:?} of epoch {} at {}, {payload:?} of epoch {} was committed",
                entry.payload,
                entry.epoch.0,
                entry.index,
                epoch.0
            ),
            // Its member read it back from disk, so that it could not be seen in memory.
            None => {
                assert_eq!(self.committed().next(), entry.index, "{id} applies what nobody has committed");
                self.committed.push((entry.epoch, entry.payload.clone()));
                self.committed_by.push(epoch);
            }
        }
    }

    /// Leader completeness: a new leader has everything that was committed in earlier epochs. (A
    /// leader of an older one may still be elected meanwhile, and can commit nothing.)
    fn check_complete<P: ReplicatedLog>(&self, id: NodeId, process: &P, epoch: Epoch) {
        let status = process.status();
        if status.role != Role::Leader || status.epoch != epoch {
            return;
        }
        let earlier = self.committed_by.iter().take_while(|by| **by < epoch).count() as u64;
        assert!(
            status.last.0 >= earlier,
            "LEADER COMPLETENESS: {id} leads epoch {} with a log to {}, but {earlier} is committed",
            epoch.0,
            status.last
        );
        for index in (1..=earlier).map(Index) {
            let (epoch, payload) = &self.committed[index.0 as usize - 1];
            if let Some(own) = process.entry(index) {
                assert!(
                    own == (*epoch, payload),
                    "LEADER COMPLETENESS: the new leader {id} has {own:?} at {index}, {payload:?} of epoch {} was committed",
                    epoch.0
                );
            }
        }
    }
}
