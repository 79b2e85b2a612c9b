//! Seeded random runs: transfers and audits under loss, repetition, reordering, partitions, and crashes
//! that lose what was not synced; safety throughout, and progress once the trouble is over.

use super::party::{ByPiece, Party};
use super::subject::{BankOp, Decision, Limits};
use super::world::{World, account, audit, bank_of, transfer};
use std::collections::BTreeSet;
use std::time::Duration;
use synod_protocols::log::Ticket;
use synod_protocols::types::NodeId;
use synod_protocols::{Input, Rng};

const ACTIONS: u64 = 600;
const COORDINATOR: NodeId = NodeId(10);

#[derive(Debug, Default)]
pub struct Totals {
    pub steps: u64,
    pub crashes: u64,
    pub commits: u64,
    pub aborts: u64,
    pub reads: u64,
    /// Participants that were in doubt when the trouble ended.
    pub doubts: u64,
}

/// How likely each kind of trouble is in this run, in thousandths of an action.
struct Weather {
    lose: u64,
    repeat: u64,
    reorder: u64,
    crash: u64,
    cut: u64,
    timers: u64,
}

struct Run<P: Party> {
    world: World<P>,
    rng: Rng,
    weather: Weather,
    banks: u64,
    reads: BTreeSet<Ticket>,
    /// Transactions whose work comes piece by piece.
    pieces: Vec<Ticket>,
}

pub fn drive<P: Party>(seed: u64, total: &mut Totals, is_traced: bool) {
    let mut rng = Rng::new(seed);
    let weather = Weather {
        lose: [0, 20, 100][rng.below(3) as usize],
        repeat: [0, 50, 200][rng.below(3) as usize],
        reorder: [0, 300][rng.below(2) as usize],
        crash: [0, 5, 20][rng.below(3) as usize],
        cut: [0, 5][rng.below(2) as usize],
        timers: [20, 60, 150][rng.below(3) as usize],
    };
    let banks = 1 + rng.below(3);
    let mut limits = Limits::default();
    if rng.chance(1, 4) {
        (limits.transactions_max, limits.window_max) = (3, 6);
    }
    let mut world: World<P> = World::new(banks, limits);
    world.trace = is_traced.then(String::new);
    for id in machines(&world) {
        world.machine(id).is_slow = rng.chance(1, 2);
    }
    let mut run = Run { world, rng, weather, banks, reads: BTreeSet::new(), pieces: Vec::new() };
    for _ in 0..ACTIONS {
        run.act(total);
    }
    run.heal(total);
}

fn machines<P: Party>(world: &World<P>) -> Vec<NodeId> {
    world.machines.keys().copied().collect()
}

impl<P: Party> Run<P> {
    fn act(&mut self, total: &mut Totals) {
        let all = machines(&self.world);
        let id = all[self.rng.below(all.len() as u64) as usize];
        let other = all[self.rng.below(all.len() as u64) as usize];
        if !self.world.is_up(id) {
            if self.rng.chance(1, 20) {
                self.world.start(id);
            }
            return;
        }
        if self.rng.chance(self.weather.crash, 1_000) {
            if self.rng.chance(1, 2) {
                self.world.checkpoint(id);
            }
            let durable = self.rng.below(1 + self.world.unsynced(id) as u64) as usize;
            total.crashes += 1;
            return self.world.crash(id, durable);
        }
        if self.rng.chance(self.weather.cut, 1_000) {
            return if self.rng.chance(1, 2) { self.world.cut(id, other) } else { self.world.cut.clear() };
        }
        if self.rng.chance(self.weather.timers, 1_000) {
            let due =
                if self.rng.chance(1, 2) { Some(id) } else { self.world.next_deadline().map(|next| next.1) };
            due.map(|id| self.world.timeout(id));
            return;
        }
        match self.rng.below(100) {
            0..60 => self.traffic(),
            60..75 => {
                let some = self.rng.below(3) as usize;
                self.world.sync(id, some);
            }
            75..80 => self.world.now = self.world.now + Duration::from_millis(self.rng.below(100)),
            _ => self.ask(),
        }
    }

    fn traffic(&mut self) {
        let length = self.world.flight.len() as u64;
        if length == 0 {
            return;
        }
        let position = if self.rng.chance(self.weather.reorder, 1_000) { self.rng.below(length) } else { 0 };
        if self.rng.chance(self.weather.lose, 1_000) {
            self.world.flight.remove(position as usize);
        } else {
            if self.rng.chance(self.weather.repeat, 1_000) {
                let flying = self.world.flight[position as usize].clone();
                self.world.flight.push(flying);
            }
            self.world.deliver(position as usize);
        }
    }

    /// Clients ask for something.
    fn ask(&mut self) {
        if !self.world.is_up(COORDINATOR) {
            return;
        }
        let (from, to) = (self.account(), self.account());
        let amount = self.rng.below(80);
        match self.rng.below(10) {
            0..5 => drop(self.world.run_txn(COORDINATOR, &transfer(&from, &to, amount))),
            5..7 => {
                let ticket = self.world.run_txn(COORDINATOR, &audit(self.banks));
                self.reads.insert(ticket);
            }
            7 => {
                if let Some(ticket) = self.by_piece(ByPiece::Open) {
                    self.pieces.push(ticket);
                }
            }
            _ => self.next_piece(&from, &to, amount),
        }
    }

    fn account(&mut self) -> String {
        account(NodeId(1 + self.rng.below(self.banks)))
    }

    fn by_piece(&mut self, asked: ByPiece) -> Option<Ticket> {
        let ticket = self.world.ticket();
        let request = P::by_piece(ticket, asked)?;
        self.world.asked.insert(ticket, Default::default());
        self.world.step(COORDINATOR, Input::Request(request));
        Some(ticket)
    }

    /// Some transaction by pieces goes on. Its client takes as much as it gives before it commits.
    fn next_piece(&mut self, from: &str, to: &str, amount: u64) {
        if self.pieces.is_empty() {
            return;
        }
        let which = self.rng.below(self.pieces.len() as u64) as usize;
        let Some(txn) = self.world.asked[&self.pieces[which]].txn else { return };
        match self.rng.below(5) {
            0 => {
                let work = vec![BankOp::Balance { account: from.into() }];
                self.by_piece(ByPiece::Work(txn, bank_of(from), work));
            }
            1 | 2 => {
                // Both pieces in one request each, so that money is never made by half a transfer; the
                // second may be refused because the first is on its way.
                let mut work = transfer(from, to, amount).into_iter();
                let (first, second) = (work.next(), work.next());
                let asked: Vec<Ticket> = [first, second]
                    .into_iter()
                    .flatten()
                    .filter_map(|(id, work)| self.by_piece(ByPiece::Work(txn, id, work)))
                    .collect();
                let is_half = |ticket: &Ticket| self.world.asked[ticket].refused.is_some();
                if asked.iter().any(is_half) {
                    self.by_piece(ByPiece::Abort(txn));
                }
            }
            3 => drop(self.by_piece(ByPiece::Commit(txn))),
            _ => drop(self.by_piece(ByPiece::Abort(txn))),
        }
    }

    /// The trouble ends: everything comes to an end, locks are released, and no money is gone.
    fn heal(&mut self, total: &mut Totals) {
        self.world.cut.clear();
        for id in machines(&self.world) {
            self.world.machine(id).is_slow = false;
            self.world.sync(id, usize::MAX);
            if !self.world.is_up(id) {
                self.world.start(id);
            }
            let process = self.world.machines[&id].process.as_ref();
            total.doubts += process.map_or(0, |process| process.in_doubt().len()) as u64;
        }
        self.world.pass(Duration::from_secs(60));
        assert!(self.world.is_quiet(), "NO PROGRESS: a minute after the last fault a lock is held");
        self.world.check_money();
        self.world.check_reads(&self.reads);
        total.steps += self.world.steps;
        total.commits += self.world.oracle.commits;
        total.aborts += self.world.oracle.aborts;
        let is_read = |ticket: &&Ticket| self.world.asked[*ticket].decision == Some(Decision::Commit);
        total.reads += self.reads.iter().filter(is_read).count() as u64;
    }
}
