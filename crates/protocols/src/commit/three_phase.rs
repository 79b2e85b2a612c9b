//! Three-phase commit: a phase more, so that the living can always decide, if the network lets them.
//!
//! # The idea
//!
//! Two-phase commit blocks because a participant that voted yes cannot tell whether another one has
//! committed already. So a phase goes between: when all have voted yes the coordinator says *pre-commit*,
//! and only when everybody who is alive has acknowledged that, *commit*. Now no site can have committed
//! while a living one is still only waiting for the votes' outcome:
//!
//! | the states of the living | so | they decide |
//! |---|---|---|
//! | somebody committed or aborted | that is known | the same |
//! | somebody is pre-committed | all voted yes; nobody aborted | commit, after the others are pre-committed too |
//! | all wait | nobody committed, dead or alive | abort |
//!
//! When a site hears nothing for too long it runs for *backup coordinator*: it asks all sites for their
//! states under a number above all that it has seen, decides by the table, and carries that out (Skeen's
//! termination protocol). The lowest sites try first. A site that crashed and came back cannot count as
//! living, since the others may have decided without it: it follows them; only when every single site
//! has answered, none of them living, may they decide among themselves.
//!
//! # Why it is safe, and when it is not
//!
//! The argument needs that whoever does not answer in time is dead. **A partition breaks it**: each side
//! takes the other for dead. If the cut comes while the pre-commit is under way, the side that has it
//! commits and the other side, where all wait, aborts; both follow the table. A message slower than
//! [`Config::patience`] does the same. No protocol that tolerates partitions is non-blocking (Skeen and
//! Stonebraker, 1983): to decide safely one needs a majority, which is what the replicated coordinator has.
//!
//! # Sources
//!
//! Dale Skeen, *Nonblocking Commit Protocols*, SIGMOD 1981; Skeen and Stonebraker, *A Formal Model of Crash
//! Recovery in a Distributed System*, 1983; Bernstein, Hadzilacos and Goodman, 1987, section 7.5, for the
//! termination protocol's rules and for total failure.
//!
//! # Departures and omissions
//!
//! Every site is coordinator and participant in one. Numbers keep an earlier coordinator from
//! interfering with a later one, but promise nothing under a partition. Messages are not sent again: the
//! network is taken to be reliable. It is here to be compared; two-phase commit has the
//! short cuts, floors and fences, and runs in the server.

pub use super::three_phase_message::{Message, Record, State};

use super::resource::{Refusal, Resource};
use super::{Decision, TxnId};
use crate::ballot::{Ballot, ROUND_MAX};
use crate::contract::{Effects, Input, Process, Recovery};
use crate::fingerprint::Fingerprint;
use crate::log::Ticket;
use crate::types::{NodeId, Time};
use crate::wire::Wire;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use core::hash::Hash;
use core::time::Duration;

/// What an owner of a site decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config<R> {
    /// This site.
    pub id: NodeId,
    /// What its resource holds before the first transaction; the same in every life.
    pub initial: R,
    /// How long a coordinator waits for an answer before it takes the site for dead; above twice the
    /// slowest message, or nothing is promised. A site waits three times as long for a coordinator.
    /// Default 200 ms.
    pub patience: Duration,
    /// Transactions under way at one time; more are refused. Default 1,024.
    pub transactions_max: usize,
    /// Ended transactions that are remembered; what is older begins no more. Default 65,536.
    pub ended_max: usize,
}

impl<R> Config<R> {
    /// A site with defaults for everything else.
    pub fn new(id: NodeId, initial: R) -> Config<R> {
        let patience = Duration::from_millis(200);
        Config { id, initial, patience, transactions_max: 1_024, ended_max: 65_536 }
    }
}

/// What a host asks: have all of this done, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Returned with the name or the refusal.
    pub ticket: Ticket,
    /// The work, by site.
    pub branches: BTreeMap<NodeId, Bytes>,
}

/// What a site tells its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The transaction has a name.
    Opened {
        /// Which request.
        ticket: Ticket,
        /// Its name.
        txn: TxnId,
    },
    /// Too much is under way, or no site was named: nothing was begun.
    Refused {
        /// Which request.
        ticket: Ticket,
    },
    /// The coordinator has decided.
    Decided {
        /// Which transaction.
        txn: TxnId,
        /// How.
        decision: Decision,
        /// What the work read, by site. Means nothing after an abort.
        answers: BTreeMap<NodeId, Bytes>,
        /// Who said no, and why.
        why: Option<(NodeId, Refusal)>,
    },
    /// This site has voted yes.
    Prepared {
        /// For which transaction.
        txn: TxnId,
    },
    /// This site has kept or undone what the transaction did here.
    Ended {
        /// Which transaction.
        txn: TxnId,
        /// Which of the two.
        decision: Decision,
    },
}

/// A site of three-phase commit. See [the module](self).
#[derive(Clone, Debug)]
pub struct Site<R> {
    config: Config<R>,
    epoch: u64,
    number: u64,
    resource: R,
    /// The first coordinator's transactions.
    begun: BTreeMap<TxnId, Begun>,
    /// The participant's.
    branches: BTreeMap<TxnId, Branch>,
    ended: BTreeMap<TxnId, Decision>,
    /// The latest ended transaction that was forgotten, by coordinator.
    forgotten: BTreeMap<NodeId, TxnId>,
    abstains: bool,
}

/// A transaction of the first coordinator.
#[derive(Clone, Debug)]
struct Begun {
    /// Answers to `CanCommit`.
    answers: BTreeMap<NodeId, Bytes>,
    /// Who has not answered the current phase.
    missing: Vec<NodeId>,
    sites: Vec<NodeId>,
    is_pre_committing: bool,
    deadline: Time,
}

/// A transaction that this site voted yes for.
#[derive(Clone, Debug)]
struct Branch {
    sites: Vec<NodeId>,
    state: State,
    /// Whether it has been alive since it voted.
    is_living: bool,
    /// The highest number of a coordinator that was heard of.
    ballot: Ballot,
    deadline: Time,
    /// This site's attempt to be the backup coordinator.
    attempt: Option<Attempt>,
}

#[derive(Clone, Debug, Default)]
struct Attempt {
    states: BTreeMap<NodeId, (State, bool)>,
    /// Who has not acknowledged the pre-commit, once it is under way.
    missing: Option<Vec<NodeId>>,
}

impl<R: Resource> Process for Site<R> {
    type Config = Config<R>;
    type Message = Message;
    type Record = Record;
    type Request = Run;
    type Ask = ();
    type Answer = ();
    type Event = Event;
    type Base = ();

    fn recover(
        config: Config<R>,
        from: Recovery<'_, Record>,
        (): (),
        now: Time,
        out: &mut Effects<Self>,
    ) -> Self {
        assert!(!config.patience.is_zero(), "the patience must be above zero");
        let mut site = Site {
            epoch: 0,
            number: 0,
            resource: config.initial.clone(),
            begun: BTreeMap::new(),
            branches: BTreeMap::new(),
            ended: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            abstains: matches!(from, Recovery::Damaged { .. }),
            config,
        };
        if let Recovery::Resume { records } = from {
            records.for_each(|record| site.restore(record, now));
        }
        if !site.abstains {
            site.epoch += 1;
            out.record(Record::Epoch { epoch: site.epoch });
        }
        site
    }

    fn step(&mut self, now: Time, input: Input<Self>, out: &mut Effects<Self>) {
        match input {
            _ if self.abstains => {}
            Input::Request(run) => self.on_run(now, run, out),
            Input::Message { from, message } => self.on_message(now, from, message, out),
            Input::Timeout => self.on_timeout(now, out),
            Input::StorageFault(_) | Input::LinkUp { .. } | Input::LinkDown { .. } | Input::Answer(()) => {}
        }
    }

    fn deadline(&self) -> Option<Time> {
        let begun = self.begun.values().map(|begun| begun.deadline);
        begun.chain(self.branches.values().map(|branch| branch.deadline)).min()
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        (self.epoch, self.number, &self.resource, &self.ended, &self.forgotten).hash(digest);
        for (txn, begun) in &self.begun {
            let Begun { answers, missing, sites, is_pre_committing, deadline } = begun;
            (txn, answers, missing, sites, is_pre_committing, deadline.since(now)).hash(digest);
        }
        for (txn, Branch { sites, state, is_living, ballot, deadline, attempt }) in &self.branches {
            (txn, sites, state, is_living, ballot, deadline.since(now)).hash(digest);
            attempt.as_ref().map(|attempt| (&attempt.states, &attempt.missing)).hash(digest);
        }
    }
}

/// For hosts, tests and people.
impl<R: Resource> Site<R> {
    /// What transactions change here.
    pub fn resource(&self) -> &R {
        &self.resource
    }

    /// Transactions that this site voted yes for and that are not decided here, with their states.
    pub fn in_doubt(&self) -> Vec<(TxnId, State)> {
        self.branches.iter().map(|(txn, branch)| (*txn, branch.state)).collect()
    }
}

/// The first coordinator.
impl<R: Resource> Site<R> {
    fn on_run(&mut self, now: Time, Run { ticket, branches }: Run, out: &mut Effects<Self>) {
        if branches.is_empty() || self.begun.len() >= self.config.transactions_max {
            return out.event(Event::Refused { ticket });
        }
        self.number += 1;
        let txn = TxnId { coordinator: self.config.id, epoch: self.epoch, number: self.number };
        out.event(Event::Opened { ticket, txn });
        let sites: Vec<NodeId> = branches.keys().copied().collect();
        for (site, work) in branches {
            out.send(site, Message::CanCommit { txn, sites: sites.clone(), work });
        }
        let begun = Begun {
            answers: BTreeMap::new(),
            missing: sites.clone(),
            sites,
            is_pre_committing: false,
            deadline: now + self.config.patience,
        };
        self.begun.insert(txn, begun);
    }

    fn on_yes(&mut self, now: Time, from: NodeId, txn: TxnId, answer: Bytes, out: &mut Effects<Self>) {
        let Some(begun) = self.begun.get_mut(&txn).filter(|begun| !begun.is_pre_committing) else { return };
        begun.missing.retain(|site| *site != from);
        begun.answers.insert(from, answer);
        if begun.missing.is_empty() {
            begun.is_pre_committing = true;
            begun.missing = begun.sites.clone();
            begun.deadline = now + self.config.patience;
            let say = |site: &NodeId| out.send(*site, Message::PreCommit { txn, ballot: Ballot::ZERO });
            begun.sites.iter().for_each(say);
        }
    }

    fn on_no(&mut self, from: NodeId, txn: TxnId, why: Refusal, out: &mut Effects<Self>) {
        if self.begun.get(&txn).is_some_and(|begun| !begun.is_pre_committing) {
            self.finish(txn, Decision::Abort, Some((from, why)), out);
        }
    }

    /// All who are alive know that all voted yes, or somebody said no or nothing.
    fn finish(
        &mut self,
        txn: TxnId,
        decision: Decision,
        why: Option<(NodeId, Refusal)>,
        out: &mut Effects<Self>,
    ) {
        let Some(begun) = self.begun.remove(&txn) else { return };
        begun.sites.iter().for_each(|site| out.send(*site, Message::Decide { txn, decision }));
        out.event(Event::Decided { txn, decision, answers: begun.answers, why });
    }
}

/// The participant.
impl<R: Resource> Site<R> {
    fn on_message(&mut self, now: Time, from: NodeId, message: Message, out: &mut Effects<Self>) {
        match message {
            Message::CanCommit { txn, sites, work } => {
                let vote = match self.can_commit(now, txn, sites, work, out) {
                    Ok(answer) => Message::Yes { txn, answer },
                    Err(why) => Message::No { txn, why },
                };
                out.send(from, vote);
            }
            Message::Yes { txn, answer } => self.on_yes(now, from, txn, answer, out),
            Message::No { txn, why } => self.on_no(from, txn, why, out),
            Message::PreCommit { txn, ballot } => {
                if self.pre_commit(now, txn, ballot, out) {
                    out.send(from, Message::PreCommitted { txn, ballot });
                }
            }
            Message::PreCommitted { txn, ballot } => self.on_pre_committed(from, txn, ballot, out),
            Message::Decide { txn, decision } => self.on_decide(txn, decision, out),
            Message::StateAsk { txn, ballot } => self.on_state_ask(now, from, txn, ballot, out),
            Message::State { txn, ballot, state, is_living } => {
                self.on_state(now, from, txn, ballot, (state, is_living), out);
            }
        }
    }

    fn can_commit(
        &mut self,
        now: Time,
        txn: TxnId,
        sites: Vec<NodeId>,
        work: Bytes,
        out: &mut Effects<Self>,
    ) -> Result<Bytes, Refusal> {
        let is_forgotten = self.forgotten.get(&txn.coordinator).is_some_and(|last| txn <= *last);
        if self.ended.contains_key(&txn) || self.branches.contains_key(&txn) || is_forgotten {
            return Err(Refusal::Over);
        }
        if self.branches.len() >= self.config.transactions_max || !sites.contains(&self.config.id) {
            return Err(Refusal::Busy);
        }
        let parsed = R::Work::from_bytes(work.clone()).map_err(|_| Refusal::Malformed)?;
        let answer = match self.resource.work(txn, &parsed) {
            Ok(answer) => answer,
            Err(why) => {
                self.remember(txn, Decision::Abort);
                return Err(why);
            }
        };
        out.record(Record::Prepared { txn, sites: sites.clone(), work });
        out.event(Event::Prepared { txn });
        self.branches.insert(txn, Branch::new(sites, true, now));
        self.wait(now, txn);
        Ok(answer)
    }

    /// Whether it is pre-committed now, under this coordinator.
    fn pre_commit(&mut self, now: Time, txn: TxnId, ballot: Ballot, out: &mut Effects<Self>) -> bool {
        let Some(branch) = self.branches.get_mut(&txn).filter(|branch| ballot >= branch.ballot) else {
            return false;
        };
        branch.ballot = ballot;
        if branch.state == State::Waiting {
            branch.state = State::PreCommitted;
            out.record(Record::PreCommitted { txn });
        }
        self.wait(now, txn);
        true
    }

    /// Somebody has decided, and nobody who follows the table contradicts it.
    fn on_decide(&mut self, txn: TxnId, decision: Decision, out: &mut Effects<Self>) {
        if self.branches.remove(&txn).is_some() {
            match decision {
                Decision::Commit => self.resource.commit(txn),
                Decision::Abort => self.resource.abort(txn),
            }
            out.record(Record::Ended { txn, decision });
            out.event(Event::Ended { txn, decision });
            self.remember(txn, decision);
        } else if decision == Decision::Abort {
            // It overtook `CanCommit`.
            self.remember(txn, decision);
        }
    }

    fn remember(&mut self, txn: TxnId, decision: Decision) {
        self.ended.entry(txn).or_insert(decision);
        while self.ended.len() > self.config.ended_max {
            let Some((oldest, _)) = self.ended.pop_first() else { return };
            let last = self.forgotten.entry(oldest.coordinator).or_insert(oldest);
            *last = (*last).max(oldest);
        }
    }

    fn restore(&mut self, record: Record, now: Time) {
        match record {
            Record::Epoch { epoch } => self.epoch = epoch,
            Record::Prepared { txn, sites, work } => {
                let parsed = R::Work::from_bytes(work).ok();
                let done = parsed.and_then(|work| self.resource.work(txn, &work).ok());
                assert!(done.is_some(), "{txn}: work that was done once cannot be done again");
                self.branches.insert(txn, Branch::new(sites, false, now));
                self.wait(now, txn);
            }
            Record::PreCommitted { txn } => {
                if let Some(branch) = self.branches.get_mut(&txn) {
                    branch.state = State::PreCommitted;
                }
            }
            Record::Ended { txn, decision } => {
                self.branches.remove(&txn);
                match decision {
                    Decision::Commit => self.resource.commit(txn),
                    Decision::Abort => self.resource.abort(txn),
                }
                self.remember(txn, decision);
            }
        }
    }

    /// A coordinator is alive: it has time again. The lowest site loses its patience first.
    fn wait(&mut self, now: Time, txn: TxnId) {
        let id = self.config.id;
        if let Some(branch) = self.branches.get_mut(&txn) {
            let rank = branch.sites.iter().filter(|site| **site < id).count() as u32;
            branch.deadline = now + self.config.patience * 3 * (rank + 1);
        }
    }
}

/// The termination protocol.
impl<R: Resource> Site<R> {
    fn on_timeout(&mut self, now: Time, out: &mut Effects<Self>) {
        let is_due = |(_, begun): &(&TxnId, &Begun)| now >= begun.deadline;
        let due: Vec<(TxnId, bool)> =
            self.begun.iter().filter(is_due).map(|(txn, begun)| (*txn, begun.is_pre_committing)).collect();
        for (txn, is_pre_committing) in due {
            // Who has not voted is dead: abort. Who has not acknowledged is dead: the others commit.
            let decision = if is_pre_committing { Decision::Commit } else { Decision::Abort };
            self.finish(txn, decision, None, out);
        }
        let is_due = |(_, branch): &(&TxnId, &Branch)| now >= branch.deadline;
        let due: Vec<TxnId> = self.branches.iter().filter(is_due).map(|(txn, _)| *txn).collect();
        for txn in due {
            match self.branches[&txn].attempt {
                None => self.run_for_backup(now, txn, out),
                Some(_) => self.conclude(now, txn, out),
            }
        }
    }

    fn run_for_backup(&mut self, now: Time, txn: TxnId, out: &mut Effects<Self>) {
        let id = self.config.id;
        let Some(branch) = self.branches.get_mut(&txn) else { return };
        branch.ballot = Ballot { round: (branch.ballot.round + 1).min(ROUND_MAX), id };
        branch.deadline = now + self.config.patience;
        let states = BTreeMap::from([(id, (branch.state, branch.is_living))]);
        branch.attempt = Some(Attempt { states, missing: None });
        let ballot = branch.ballot;
        let others = branch.sites.iter().filter(|site| **site != id);
        others.for_each(|site| out.send(*site, Message::StateAsk { txn, ballot }));
        if branch.sites.len() == 1 {
            self.conclude(now, txn, out);
        }
    }

    fn on_state_ask(&mut self, now: Time, from: NodeId, txn: TxnId, ballot: Ballot, out: &mut Effects<Self>) {
        if self.forgotten.get(&txn.coordinator).is_some_and(|last| txn <= *last) {
            return;
        }
        let (state, is_living) = match (self.branches.get_mut(&txn), self.ended.get(&txn)) {
            (Some(branch), _) if ballot > branch.ballot => {
                branch.ballot = ballot;
                branch.attempt = None;
                (branch.state, branch.is_living)
            }
            (Some(_), _) => return,
            (None, Some(Decision::Commit)) => (State::Committed, true),
            (None, _) => {
                // It has not voted, and now never will.
                out.record(Record::Ended { txn, decision: Decision::Abort });
                self.remember(txn, Decision::Abort);
                (State::Aborted, true)
            }
        };
        self.wait(now, txn);
        out.send(from, Message::State { txn, ballot, state, is_living });
    }

    fn on_state(
        &mut self,
        now: Time,
        from: NodeId,
        txn: TxnId,
        ballot: Ballot,
        state: (State, bool),
        out: &mut Effects<Self>,
    ) {
        let Some(branch) = self.branches.get_mut(&txn).filter(|branch| branch.ballot == ballot) else {
            return;
        };
        let sites = branch.sites.len();
        let Some(attempt) = branch.attempt.as_mut().filter(|attempt| attempt.missing.is_none()) else {
            return;
        };
        attempt.states.insert(from, state);
        if attempt.states.len() == sites {
            self.conclude(now, txn, out);
        }
    }

    /// Whoever is alive has answered: the table decides.
    fn conclude(&mut self, now: Time, txn: TxnId, out: &mut Effects<Self>) {
        let Some(branch) = self.branches.get_mut(&txn) else { return };
        let Some(attempt) = branch.attempt.take() else { return };
        if attempt.missing.is_some() {
            return self.decide_all(txn, Decision::Commit, out);
        }
        let everybody_answered = attempt.states.len() == branch.sites.len();
        let nobody_lives = attempt.states.values().all(|(_, is_living)| !is_living);
        // After a total failure all states together are what there is.
        let counts = |(_, is_living): &&(State, bool)| *is_living || nobody_lives && everybody_answered;
        let of = |wanted| attempt.states.values().any(|(state, _)| *state == wanted);
        let living: Vec<State> = attempt.states.values().filter(counts).map(|(state, _)| *state).collect();
        if of(State::Committed) {
            self.decide_all(txn, Decision::Commit, out);
        } else if of(State::Aborted) {
            self.decide_all(txn, Decision::Abort, out);
        } else if living.is_empty() {
            self.wait(now, txn);
        } else if living.contains(&State::PreCommitted) {
            self.pre_commit_all(now, txn, attempt, out);
        } else {
            self.decide_all(txn, Decision::Abort, out);
        }
    }

    fn pre_commit_all(&mut self, now: Time, txn: TxnId, mut attempt: Attempt, out: &mut Effects<Self>) {
        let id = self.config.id;
        let ballot = self.branches[&txn].ballot;
        self.pre_commit(now, txn, ballot, out);
        let missing: Vec<NodeId> = attempt.states.keys().copied().filter(|site| *site != id).collect();
        missing.iter().for_each(|site| out.send(*site, Message::PreCommit { txn, ballot }));
        let is_alone = missing.is_empty();
        attempt.missing = Some(missing);
        let Some(branch) = self.branches.get_mut(&txn) else { return };
        branch.attempt = Some(attempt);
        branch.deadline = now + self.config.patience;
        if is_alone {
            self.decide_all(txn, Decision::Commit, out);
        }
    }

    fn on_pre_committed(&mut self, from: NodeId, txn: TxnId, ballot: Ballot, out: &mut Effects<Self>) {
        if ballot == Ballot::ZERO {
            let Some(begun) = self.begun.get_mut(&txn).filter(|begun| begun.is_pre_committing) else {
                return;
            };
            begun.missing.retain(|site| *site != from);
            if begun.missing.is_empty() {
                self.finish(txn, Decision::Commit, None, out);
            }
            return;
        }
        let branch = self.branches.get_mut(&txn).filter(|branch| branch.ballot == ballot);
        let attempt = branch.and_then(|branch| branch.attempt.as_mut());
        let Some(missing) = attempt.and_then(|attempt| attempt.missing.as_mut()) else { return };
        missing.retain(|site| *site != from);
        if missing.is_empty() {
            self.decide_all(txn, Decision::Commit, out);
        }
    }

    fn decide_all(&mut self, txn: TxnId, decision: Decision, out: &mut Effects<Self>) {
        let id = self.config.id;
        let sites = self.branches.get(&txn).map(|branch| branch.sites.clone()).unwrap_or_default();
        self.on_decide(txn, decision, out);
        let others = sites.iter().filter(|site| **site != id);
        others.for_each(|site| out.send(*site, Message::Decide { txn, decision }));
    }
}

impl Branch {
    fn new(sites: Vec<NodeId>, is_living: bool, now: Time) -> Branch {
        let state = State::Waiting;
        Branch { sites, state, is_living, ballot: Ballot::ZERO, deadline: now, attempt: None }
    }
}
