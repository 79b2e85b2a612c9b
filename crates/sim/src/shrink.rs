//! Makes a failing script small: fewer members, faults, commands and less time, as long as the
//! same promise is broken. What is left can be read, told and kept as a regression test.
//!
//! Faults and commands are removed by delta debugging (Zeller and Hildebrandt, "Simplifying and
//! isolating failure-inducing input", TSE 2002): first large parts, then small ones, until no
//! single line can go. Everything else is made plainer one step at a time. A candidate counts only
//! if its own run breaks the same promise; nothing is concluded from the run before.

use crate::outcome::Outcome;
use crate::script::{Action, Delay, HandOperation, Limits, Member, Mix, Script, Target, Timed, Transport};
use crate::units::Span;
use synod_check::history::Operation;

/// Operations at most that are written out in place of a workload.
const WRITTEN_OUT_MAX: usize = 60;

/// Seeds under which a large change is tried.
const RESEEDINGS: u64 = 40;

/// The promise that a run broke first; none if it kept all that were judged.
pub fn broken(outcome: &Outcome) -> Option<&'static str> {
    if outcome.passed() {
        return None;
    }
    // Progress is the least of them: a run that broke safety as well is about that.
    let safety = outcome.verdict.violations.iter().find(|violation| violation.promise != "progress");
    Some(match safety.or(outcome.verdict.violations.first()) {
        Some(violation) if !outcome.verdict.safe || violation.promise == "progress" => violation.promise,
        _ => "linearizability",
    })
}

/// A script that no single step makes smaller.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The script.
    pub script: Script,
    /// The promise that it breaks, as the first script did.
    pub promise: &'static str,
    /// Runs that it took.
    pub runs: u64,
}

/// Makes `script` smaller. `run` runs a candidate. `watch` is told of every candidate that failed the
/// same way and of the runs so far, and ends the search by returning `false`. None if the script
/// breaks no promise.
pub fn shrink(
    script: &Script,
    run: impl FnMut(&Script) -> Outcome,
    watch: impl FnMut(&Script, u64) -> bool,
) -> Option<Shrunk> {
    let mut search = Search { best: script.clone(), promise: "", runs: 0, stopped: false, run, watch };
    search.promise = broken(&(search.run)(script))?;
    search.runs = 1;
    loop {
        let before = search.best.clone();
        search.end_early();
        search.make_plain();
        search.calm_clients();
        search.drop_members();
        search.begin_late();
        search.drop_actions();
        search.write_out_clients();
        search.round_times();
        if search.best == before || search.stopped {
            break;
        }
    }
    Some(Shrunk { script: search.best, promise: search.promise, runs: search.runs })
}

struct Search<R, W> {
    best: Script,
    promise: &'static str,
    runs: u64,
    stopped: bool,
    run: R,
    watch: W,
}

impl<R: FnMut(&Script) -> Outcome, W: FnMut(&Script, u64) -> bool> Search<R, W> {
    /// Whether the best script, so changed, still breaks the promise; then it is the best one.
    fn attempt(&mut self, change: impl FnOnce(&mut Script)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        // What its own text would not give back is no script.
        if self.stopped || candidate == self.best || candidate.to_string().parse().as_ref() != Ok(&candidate)
        {
            return false;
        }
        self.runs += 1;
        if broken(&(self.run)(&candidate)) != Some(self.promise) {
            return false;
        }
        self.best = candidate;
        self.stopped = !(self.watch)(&self.best, self.runs);
        true
    }

    /// As `attempt`, under other seeds too: what it drops may have mattered only through the moments at
    /// which other things happened.
    fn attempt_reseeded(&mut self, change: impl Fn(&mut Script)) -> bool {
        let mut changed = self.best.clone();
        change(&mut changed);
        changed != self.best
            && (0..RESEEDINGS).any(|other| {
                self.attempt(|script| {
                    change(script);
                    script.seed = script.seed.wrapping_add(other);
                })
            })
    }

    /// Everything after the violation goes.
    fn end_early(&mut self) {
        if self.promise != "progress" {
            self.attempt(|script| script.progress = None);
            self.runs += 1;
            let outcome = (self.run)(&self.best);
            if let Some(violation) = outcome.verdict.violations.iter().find(|v| v.promise == self.promise) {
                let end = Span(violation.t + 1_000_000);
                self.attempt(|script| cut_off(script, end));
            }
        }
        // For what is judged at the end only, and for what a shorter run shows as well.
        for quarters in [1, 2, 3] {
            let end = Span(self.best.until.0 / 4 * quarters);
            if self.attempt(|script| cut_off(script, end)) {
                break;
            }
        }
    }

    /// What comes before some action goes, and the rest happens that much earlier.
    fn begin_late(&mut self) {
        let count = self.best.actions.len();
        let step = count.div_ceil(16).max(1);
        for keep in (1..count).step_by(step) {
            let dropped = count - keep;
            let lead = self.best.election.0;
            let shift = self.best.actions[dropped].at.0.saturating_sub(lead);
            let late = |script: &mut Script| {
                script.actions.drain(..dropped);
                script.actions.iter_mut().for_each(|timed| timed.at.0 -= shift);
                script.until.0 = script.until.0.saturating_sub(shift).max(1);
            };
            if self.attempt_reseeded(late) {
                return;
            }
        }
    }

    fn drop_actions(&mut self) {
        let mut chunk = self.best.actions.len().div_ceil(2).max(1);
        loop {
            let mut from = 0;
            while from < self.best.actions.len() {
                let to = (from + chunk).min(self.best.actions.len());
                if !self.attempt(|script| drop(script.actions.drain(from..to))) {
                    from = to;
                }
            }
            if chunk == 1 || self.stopped {
                return;
            }
            chunk = chunk.div_ceil(2);
        }
    }

    /// The last members go, with what is said of them.
    fn drop_members(&mut self) {
        for nodes in 1..self.best.nodes {
            let fewer = |script: &mut Script| {
                script.nodes = nodes;
                script.actions.retain(|timed| members_of(&timed.action).all(|member| member.0 <= nodes));
            };
            if self.attempt_reseeded(fewer) {
                return;
            }
        }
    }

    fn calm_clients(&mut self) {
        self.attempt_reseeded(|script| script.clients = None);
        let Some(workload) = self.best.clients else { return };
        for clients in 1..workload.clients {
            if self.attempt_reseeded(|script| script.clients.iter_mut().for_each(|all| all.clients = clients))
            {
                break;
            }
        }
        for mix in [Mix { put: 1, get: 0, cas: 0, delete: 0 }, Mix { put: 1, get: 1, cas: 0, delete: 0 }] {
            if self.attempt_reseeded(|script| script.clients.iter_mut().for_each(|all| all.mix = mix)) {
                break;
            }
        }
        self.attempt_reseeded(|script| script.clients.iter_mut().for_each(|all| all.keys = 1));
        while self.attempt_reseeded(|script| {
            script.clients.iter_mut().for_each(|all| all.every = Span(all.every.0.saturating_mul(2)));
        }) {}
    }

    /// Lines for the single operations that the clients did, in place of the clients.
    fn write_out_clients(&mut self) {
        if self.best.clients.is_none() {
            return;
        }
        self.runs += 1;
        let outcome = (self.run)(&self.best);
        let lines: Vec<Timed> = outcome.history.operations.iter().filter_map(by_hand).collect();
        if lines.len() > WRITTEN_OUT_MAX {
            return;
        }
        self.attempt(|script| {
            script.clients = None;
            script.actions.extend(lines);
            script.actions.sort_by_key(|timed| timed.at);
        });
    }

    /// Delays that are always the same, limits as they usually are.
    fn make_plain(&mut self) {
        self.attempt_reseeded(|script| script.transport = Transport::Streams);
        self.attempt_reseeded(|script| script.limits = Limits::default());
        self.attempt_reseeded(|script| script.segment = Script::default().segment);
        let places: [fn(&mut Script) -> &mut Delay; 3] =
            [|script| &mut script.latency, |script| &mut script.detect, |script| &mut script.disk];
        for place in places {
            for part in [2, 8, 32] {
                self.attempt_reseeded(|script| {
                    let delay = place(script);
                    *delay = Delay::Fixed(within(*delay, part));
                });
            }
        }
        for target in [Target::Leader, Target::Follower] {
            // Who is meant by name is easier to follow than who happens to lead.
            let named = self.best.actions.iter().position(|timed| target_of(&timed.action) == Some(target));
            let Some(at) = named else { continue };
            for member in 1..=self.best.nodes {
                if self.attempt(|script| set_target(&mut script.actions[at].action, Member(member))) {
                    break;
                }
            }
        }
    }

    fn round_times(&mut self) {
        for unit in [100_000_000, 10_000_000, 1_000_000, 100_000] {
            for at in 0..self.best.actions.len() {
                self.attempt(|script| {
                    let time = &mut script.actions[at].at;
                    time.0 = (time.0 + unit / 2) / unit * unit;
                    script.actions.sort_by_key(|timed| timed.at);
                });
            }
        }
    }
}

/// The line that does what a client did.
fn by_hand(operation: &Operation) -> Option<Timed> {
    let key = operation.call.key.as_deref()?.to_owned();
    let value = || operation.call.value.as_ref().map(|value| value.as_str().unwrap_or_default().to_owned());
    let what = match &*operation.call.op {
        "get" => HandOperation::Get(key),
        "delete" => HandOperation::Delete(key),
        _ => HandOperation::Put(key, value()?),
    };
    let member = operation.node.as_deref()?.strip_prefix('n')?.parse().ok().map(Member);
    Some(Timed { at: Span(operation.invoked.time?.0), action: Action::Client(member, what) })
}

fn cut_off(script: &mut Script, end: Span) {
    script.until = script.until.min(end);
    script.actions.retain(|timed| timed.at < end);
}

/// A delay that was possible: the middle, or a given part of the way from the least to the most.
fn within(delay: Delay, part: u64) -> Span {
    match delay {
        Delay::Fixed(span) | Delay::LogNormal { median: span, .. } => span,
        Delay::Uniform(low, high) => Span(low.0 + (high.0 - low.0) / part),
    }
}

/// The members that an action names.
fn members_of(action: &Action) -> impl Iterator<Item = Member> {
    let text = action.to_string();
    let names: Vec<Member> = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter_map(|word| word.strip_prefix('n')?.parse().ok().map(Member))
        .collect();
    names.into_iter()
}

fn target_of(action: &Action) -> Option<Target> {
    match action {
        Action::Crash(target)
        | Action::Restart(target)
        | Action::Pause(target)
        | Action::Resume(target)
        | Action::Isolate(target)
        | Action::Timeout(target)
        | Action::Clock(target, _)
        | Action::Disk(target, _) => Some(*target),
        _ => None,
    }
}

fn set_target(action: &mut Action, member: Member) {
    match action {
        Action::Crash(target)
        | Action::Restart(target)
        | Action::Pause(target)
        | Action::Resume(target)
        | Action::Isolate(target)
        | Action::Timeout(target)
        | Action::Clock(target, _)
        | Action::Disk(target, _) => *target = Target::Node(member),
        _ => {}
    }
}
