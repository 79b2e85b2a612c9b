//! What came of a run.

use crate::event::Mark;
use crate::script::Script;
use serde::Serialize;
use std::fmt;
use synod_check::history::History;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// When, in nanoseconds of virtual time.
    pub t: u64,
    /// Which promise, such as `election safety`.
    pub promise: &'static str,
    /// How, naming members and positions.
    pub detail: String,
}

/// Whether the clients' history is linearizable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Linearizable {
    /// An order was found.
    Yes,
    /// There is none.
    No,
    /// The budget was spent first.
    Unknown,
}

/// The judgement of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// No promise of safety was broken, linearizability included.
    pub safe: bool,
    /// What was promised of progress was kept; none if nothing was.
    pub live: Option<bool>,
    /// What was broken, in order of time; at most [`crate::VIOLATIONS_MAX`].
    pub violations: Vec<Violation>,
    /// Whether the clients' history is linearizable.
    pub linearizable: Linearizable,
    /// The above in a sentence, and the contradiction if there is one.
    pub detail: String,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Steps of the protocol, of all members and lives.
    pub steps: u64,
    /// Things that happened in the world.
    pub events: u64,
    /// Messages sent between members.
    pub messages: u64,
    /// Their bytes, encoded.
    pub bytes: u64,
    /// Messages that never arrived.
    pub lost: u64,
    /// Syncs of disks that were completed.
    pub syncs: u64,
    /// Bytes written to disks.
    pub disk_bytes: u64,
    /// Leaders that came into office.
    pub elections: u64,
    /// Entries committed.
    pub commits: u64,
    /// Entries applied, of all members.
    pub applied: u64,
    /// Crashes.
    pub crashes: u64,
    /// Starts after a crash.
    pub restarts: u64,
    /// Starts that were refused, because the disk was damaged or lost.
    pub refused: u64,
    /// Starts on a disk that had lost something which may have been acknowledged.
    pub damaged: u64,
    /// Faults of all kinds.
    pub faults: u64,
    /// Changes of members, and transfers, that were completed.
    pub changes: u64,
    /// Those that the protocol does not offer.
    pub unserved: u64,
    /// Reads answered under a lease.
    pub leased_reads: u64,
    /// Client operations begun.
    pub operations: u64,
    /// Those that succeeded.
    pub ok: u64,
    /// Those that certainly did nothing.
    pub failed: u64,
    /// Those of which nobody knows.
    pub unknown: u64,
}

impl Counts {
    /// Adds what happened in another run.
    pub fn add(&mut self, other: &Counts) {
        self.steps += other.steps;
        self.events += other.events;
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.lost += other.lost;
        self.syncs += other.syncs;
        self.disk_bytes += other.disk_bytes;
        self.elections += other.elections;
        self.commits += other.commits;
        self.applied += other.applied;
        self.crashes += other.crashes;
        self.restarts += other.restarts;
        self.refused += other.refused;
        self.damaged += other.damaged;
        self.faults += other.faults;
        self.changes += other.changes;
        self.unserved += other.unserved;
        self.leased_reads += other.leased_reads;
        self.operations += other.operations;
        self.ok += other.ok;
        self.failed += other.failed;
        self.unknown += other.unknown;
    }
}

/// Everything about a run but its events.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was run.
    pub script: Script,
    /// A digest of everything that happened: equal for equal scripts, on every machine.
    pub hash: u64,
    /// The clients' names.
    pub clients: Vec<String>,
    /// How much happened.
    pub counts: Counts,
    /// The judgement.
    pub verdict: Verdict,
    /// Moments worth jumping to; at most [`crate::MARKS_MAX`].
    pub marks: Vec<Mark>,
    /// The clients' history.
    pub history: History,
}

impl Outcome {
    /// Whether every promise was kept that was judged.
    pub fn passed(&self) -> bool {
        self.verdict.safe && self.verdict.live != Some(false)
    }

    /// The hash as 16 digits.
    pub fn hash_text(&self) -> String {
        format!("{:016x}", self.hash)
    }
}

/// Everything but script text, history and marks, for programs.
impl Serialize for Outcome {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("Outcome", 8)?;
        fields.serialize_field("protocol", &self.script.protocol)?;
        fields.serialize_field("nodes", &self.script.nodes)?;
        fields.serialize_field("seed", &self.script.seed)?;
        fields.serialize_field("until", &self.script.until.0)?;
        fields.serialize_field("hash", &self.hash_text())?;
        fields.serialize_field("passed", &self.passed())?;
        fields.serialize_field("counts", &self.counts)?;
        fields.serialize_field("verdict", &self.verdict)?;
        fields.end()
    }
}

/// What happened, in plain words.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Script { protocol, nodes, seed, until, .. } = &self.script;
        let Counts { messages, bytes, lost, syncs, disk_bytes, elections, commits, .. } = self.counts;
        let Counts { steps, crashes, restarts, refused, faults, operations, ok, failed, unknown, .. } =
            self.counts;
        writeln!(f, "{nodes} members of {protocol}, {until} of virtual time, seed {seed}")?;
        writeln!(f, "  leaders    {elections} elected")?;
        for mark in self.marks.iter().filter(|mark| mark.kind == "leader").take(8) {
            writeln!(f, "             {} {}", seconds(mark.t), mark.label)?;
        }
        if elections > 8 {
            writeln!(f, "             and {} more", elections - 8)?;
        }
        writeln!(f, "  log        {commits} entries committed in {steps} steps")?;
        writeln!(f, "  network    {messages} messages of {bytes} bytes in all, {lost} lost")?;
        writeln!(f, "  disks      {syncs} syncs, {disk_bytes} bytes written")?;
        writeln!(
            f,
            "  faults     {faults}, among them {crashes} crashes; {restarts} restarts, {refused} refused"
        )?;
        let Counts { changes, unserved, leased_reads, .. } = self.counts;
        if changes + unserved > 0 {
            writeln!(
                f,
                "  members    {changes} changes and transfers done, {unserved} not offered by the protocol"
            )?;
        }
        if self.script.lease.is_some() {
            writeln!(f, "  leases     {leased_reads} reads answered under one")?;
        }
        writeln!(f, "  clients    {operations} operations: {ok} done, {failed} failed, {unknown} unknown")?;
        writeln!(f, "  hash       {}", self.hash_text())?;
        write!(f, "  verdict    {}", self.verdict.detail.replace('\n', "\n             "))?;
        for violation in &self.verdict.violations {
            let Violation { t, promise, detail } = violation;
            write!(
                f,
                "\n  violation  {} {promise}: {}",
                seconds(*t),
                detail.replace('\n', "\n             ")
            )?;
        }
        Ok(())
    }
}

/// A moment in seconds with three decimals, for people.
pub(crate) fn seconds(t: u64) -> String {
    format!("{}.{:03}s", t / 1_000_000_000, t / 1_000_000 % 1000)
}
