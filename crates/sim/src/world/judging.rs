//! The judgement at the end of a run.

use super::World;
use crate::outcome::{Linearizable, Outcome, Verdict};
use std::hash::Hasher;
use synod_check::linearizable::{self, Limits};
use synod_check::model::KeyValue;
use synod_protocols::log::{ReplicatedLog, Role};

/// What judging a history may cost.
const JUDGE: Limits = Limits {
    configurations_max: 2_000_000,
    bytes_max: 256 << 20,
    minimise_configurations_max: 100_000,
    threads_max: 1,
};

impl<P: ReplicatedLog> World<'_, P> {
    /// Judges the whole run.
    pub(super) fn finish(mut self) -> Outcome {
        for member in &self.members {
            let status = member.node.as_ref().map(|node| node.status());
            self.counts.steps += member.steps_before + status.map_or(0, |status| status.steps);
            self.counts.leased_reads += member.leased_before + status.map_or(0, |status| status.leased_reads);
            self.counts.disk_bytes += member.bytes_before + status.map_or(0, |status| status.bytes_written);
        }
        self.counts.commits = self.checkers.committed();
        let live = self.judge_progress();
        let mut digest = std::mem::take(&mut self.digest);
        for word in [self.counts.steps, self.counts.commits, self.counts.messages, self.counts.events] {
            digest.word(word);
        }
        let hash = digest.finish();
        let clients = self.clients.names().to_vec();
        let history = self.clients.finish();
        let report = linearizable::check(&KeyValue::of(&history), &history, &JUDGE, &mut || false);
        let report = report.expect("the simulator's clients only use what the model knows");
        let (linearizable, mut detail) = match &report.verdict {
            linearizable::Verdict::Yes(_) => (Linearizable::Yes, report.verdict.to_string()),
            linearizable::Verdict::No(no) => {
                (Linearizable::No, format!("{}\n{}", report.verdict, no.explanation))
            }
            linearizable::Verdict::Unknown(_) => (Linearizable::Unknown, report.verdict.to_string()),
        };
        let violations = self.checkers.violations;
        let broken = violations.iter().filter(|violation| violation.promise != "progress").count();
        let safe = broken == 0 && linearizable != Linearizable::No;
        let kept = match (broken, live) {
            (0, None) => "every promise of safety was kept",
            (0, Some(true)) => "every promise of safety and progress was kept",
            (0, Some(false)) => "safe, but without the progress that was promised",
            _ => "a promise of safety was broken",
        };
        detail = format!("{kept}; the clients' history is {detail}");
        Outcome {
            script: self.script.clone(),
            hash,
            clients,
            counts: self.counts,
            verdict: Verdict { safe, live, violations, linearizable, detail },
            marks: self.marks,
            history,
        }
    }

    fn judge_progress(&mut self) -> Option<bool> {
        self.script.progress?;
        let election = self.script.election;
        let (from, due) =
            (crate::outcome::seconds(self.progress.from), crate::outcome::seconds(self.progress.due));
        let Some(shown) = self.progress.shown else {
            let why = format!("no write succeeded from {from} to {due} (election timeout {election})");
            self.checkers.violation(self.now, "progress", why);
            self.report_violations();
            return Some(false);
        };
        let cuts: Vec<(u8, u8)> = self.network.cuts().collect();
        let leader = self.leader();
        // Whom the leader does not reach, or who does not reach it, cannot be asked to catch up.
        let reached = |index: u8| {
            cuts.is_empty()
                || leader.is_some_and(|leader| {
                    !cuts.iter().any(|cut| [(index, leader), (leader, index)].contains(cut))
                })
        };
        let known = self.known_members();
        let behind = self.members.iter().zip(0..).find_map(|(member, index)| {
            let status = member.node.as_ref().filter(|_| !member.paused)?.status();
            let applied = status.applied.0;
            // Who knows that its disk has lost a promise takes no part any more, nor does who was removed.
            let takes_part = status.log.role != Role::Abstaining && known.contains(&index);
            (takes_part && reached(index) && applied < shown).then(|| {
                format!("n{} has applied up to {applied}, and {shown} was committed at {from}", index + 1)
            })
        });
        match behind {
            Some(why) => {
                self.checkers.violation(self.now, "progress", why);
                self.report_violations();
                Some(false)
            }
            None => Some(true),
        }
    }
}
