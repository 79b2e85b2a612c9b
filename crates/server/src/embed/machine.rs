//! A program's state machine as the node drives it: in memory, with its snapshots in a file.
//!
//! The state is as durable as the log, which is replayed on top of the last snapshot. A snapshot is taken when the node
//! wants to cut the log; a thread of its own writes it, beside the last one, whose place it takes when it is whole.
//! `docs/formats.md` has the file's bytes.

use super::StateMachine;
use crate::directory::sync_directory;
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use synod_node::{Part, Stored};
use synod_protocols::Reader;
use synod_protocols::log::{Index, Ticket};
use synod_protocols::wire::put_bytes;

/// The largest snapshot, in bytes: 1 GiB. A replica whose state machine makes a larger one stops and says so.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// What a snapshot's file begins with; the last byte is the format's version.
const MAGIC: &[u8; 8] = b"SYNODSN\x01";
const FILE: &str = "snapshot";

/// What the thread that writes files does.
struct Work {
    /// What the file holds behind its magic.
    body: Vec<Bytes>,
    done: Done,
}

/// Who wants to know.
enum Done {
    /// The member, under this ticket.
    Member(Ticket),
    /// Whoever waits here.
    Waiter(mpsc::Sender<io::Result<()>>),
}

/// A program's state machine, and what the node stores beside it.
pub(super) struct InMemory<M> {
    machine: M,
    stored: Option<Stored>,
    /// What has arrived of another member's snapshot.
    staged: Vec<u8>,
    /// Gone only while it is dropped.
    work: Option<mpsc::Sender<Work>>,
    writer: Option<thread::JoinHandle<()>>,
}

impl<M: StateMachine> InMemory<M> {
    /// The state that `path` holds, or else `machine` as it is. `persisted` is called, on another thread, when what was
    /// to be made durable is so.
    pub(super) fn open(
        path: &Path,
        mut machine: M,
        persisted: impl Fn(Ticket, Result<(), String>) + Send + 'static,
    ) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|error| format!("cannot be made or written ({error})"))?;
        let mut stored = None;
        if let Some((found, state)) = read(&path.join(FILE))? {
            restore(&mut machine, &state)?;
            stored = Some(found);
        }
        let (work, incoming) = mpsc::channel::<Work>();
        let path = path.to_owned();
        let body = move || {
            for Work { body, done } in incoming {
                let result = write(&path, &body);
                match done {
                    Done::Member(ticket) => persisted(ticket, result.map_err(|error| failed(&path, &error))),
                    Done::Waiter(tell) => drop(tell.send(result)),
                }
            }
        };
        let writer = thread::Builder::new()
            .name("synod-state".to_owned())
            .spawn(body)
            .map_err(|error| format!("no thread can be started to write it ({error})"))?;
        Ok(InMemory { machine, stored, staged: Vec::new(), work: Some(work), writer: Some(writer) })
    }

    fn snapshot(&self) -> Result<Bytes, String> {
        let state = self.machine.snapshot();
        if state.len() > SNAPSHOT_BYTES_MAX {
            return Err(format!(
                "a snapshot of {} bytes is larger than {SNAPSHOT_BYTES_MAX}: state of that size belongs into a store",
                state.len()
            ));
        }
        Ok(state.into())
    }

    fn submit(&self, stored: &Stored, state: Bytes, done: Done) -> Result<(), String> {
        let mut head = Vec::new();
        put_bytes(&mut head, &stored.replicated);
        put_bytes(&mut head, &stored.own);
        let work = self.work.as_ref().expect("the thread lives as long as this");
        work.send(Work { body: vec![head.into(), state], done })
            .map_err(|_| "the thread that writes snapshots has ended: see the lines above".to_owned())
    }
}

impl<M> Drop for InMemory<M> {
    /// Lets the write in progress end, so that the directory is quiet when its lock is given up.
    fn drop(&mut self) {
        self.work = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl<M: StateMachine> synod_node::StateMachine for InMemory<M> {
    type Query = M::Query;
    type Answer = M::Answer;
    type Response = M::Response;
    type Error = String;
    type View = Bytes;

    fn apply(&mut self, index: Index, command: Bytes) -> Result<M::Response, String> {
        Ok(self.machine.apply(index, &command))
    }

    fn query(&mut self, query: M::Query) -> Result<M::Answer, String> {
        Ok(self.machine.query(&query))
    }

    fn metadata(&self) -> Result<Option<Stored>, String> {
        Ok(self.stored.clone())
    }

    fn commit(&mut self, stored: Stored) -> Result<(), String> {
        self.stored = Some(stored);
        Ok(())
    }

    fn persist(&mut self, ticket: Ticket) -> Result<(), String> {
        let stored = self.stored.clone().ok_or("nothing was committed yet that could be kept")?;
        self.submit(&stored, self.snapshot()?, Done::Member(ticket))
    }

    fn view(&mut self) -> Result<Bytes, String> {
        self.snapshot()
    }

    /// A part is a piece of the snapshot; the next one is named by its offset.
    fn read(&self, view: &Bytes, from: &Bytes, bytes_max: usize) -> Result<Part, String> {
        let begin =
            <[u8; 8]>::try_from(&from[..]).map_or(0, |at| u64::from_le_bytes(at) as usize).min(view.len());
        let end = view.len().min(begin + bytes_max.max(1));
        let next = (end < view.len()).then(|| Bytes::copy_from_slice(&(end as u64).to_le_bytes()));
        Ok(Part { bytes: view.slice(begin..end), next })
    }

    fn stage(&mut self, first: bool, part: Bytes) -> Result<Result<(), String>, String> {
        if first {
            self.staged.clear();
        }
        if self.staged.len() + part.len() > SNAPSHOT_BYTES_MAX {
            self.unstage();
            return Ok(Err(format!("it is larger than {SNAPSHOT_BYTES_MAX} bytes")));
        }
        self.staged.extend_from_slice(&part);
        Ok(Ok(()))
    }

    fn unstage(&mut self) {
        self.staged = Vec::new();
    }

    fn install(&mut self, stored: Stored) -> Result<(), String> {
        let state = Bytes::from(std::mem::take(&mut self.staged));
        restore(&mut self.machine, &state)?;
        let (tell, told) = mpsc::channel();
        self.submit(&stored, state, Done::Waiter(tell))?;
        // Behind whatever is being written of the old state, which it replaces.
        told.recv()
            .map_err(|_| "the thread that writes snapshots has ended: see the lines above".to_owned())?
            .map_err(|error| format!("a snapshot cannot be written: {error}"))?;
        self.stored = Some(stored);
        Ok(())
    }
}

fn restore<M: StateMachine>(machine: &mut M, state: &[u8]) -> Result<(), String> {
    machine
        .restore(state)
        .map_err(|why| format!("the program cannot restore its state from a snapshot: {why}"))
}

fn failed(path: &Path, error: &io::Error) -> String {
    format!("the snapshot in {} cannot be written: {error}", path.display())
}

/// Puts a snapshot in the place of the last one, durably.
fn write(path: &Path, body: &[Bytes]) -> io::Result<()> {
    let mut checksum = crc32fast::Hasher::new();
    body.iter().for_each(|bytes| checksum.update(bytes));
    let temporary = path.join(format!("{FILE}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(MAGIC)?;
    file.write_all(&checksum.finalize().to_le_bytes())?;
    for bytes in body {
        file.write_all(bytes)?;
    }
    file.sync_all()?;
    fs::rename(&temporary, path.join(FILE))?;
    sync_directory(path)
}

/// What a snapshot's file holds, if there is one.
fn read(path: &PathBuf) -> Result<Option<(Stored, Bytes)>, String> {
    let file = match fs::read(path) {
        Ok(file) => Bytes::from(file),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("the snapshot cannot be read ({error})")),
    };
    let body = file.len().min(MAGIC.len() + 4);
    let intact =
        file.starts_with(MAGIC) && file[MAGIC.len()..body] == crc32fast::hash(&file[body..]).to_le_bytes();
    let decode = || {
        let mut reader = Reader::new(file.slice(body..));
        let replicated = reader.bytes("what is replicated").ok()?;
        let own = reader.bytes("what is the member's own").ok()?;
        Some((Stored { replicated, own }, file.slice(file.len() - reader.remaining()..)))
    };
    match decode().filter(|_| intact) {
        Some(found) => Ok(Some(found)),
        None => Err("the snapshot is damaged, or of another version of this format".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_node::StateMachine as _;

    /// The commands that were applied, one behind the other.
    #[derive(Debug, Default, PartialEq)]
    struct Tape(Vec<u8>);

    impl StateMachine for Tape {
        type Response = usize;
        type Query = ();
        type Answer = Vec<u8>;

        fn apply(&mut self, _index: Index, command: &[u8]) -> usize {
            self.0.extend_from_slice(command);
            self.0.len()
        }

        fn query(&self, (): &()) -> Vec<u8> {
            self.0.clone()
        }

        fn snapshot(&self) -> Vec<u8> {
            self.0.clone()
        }

        fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
            if snapshot.contains(&b'!') {
                return Err("an exclamation mark".to_owned());
            }
            self.0 = snapshot.to_vec();
            Ok(())
        }
    }

    fn stored() -> Stored {
        Stored { replicated: Bytes::from_static(b"ours"), own: Bytes::from_static(b"mine") }
    }

    fn open(path: &Path) -> Result<(InMemory<Tape>, mpsc::Receiver<Ticket>), String> {
        let (tell, told) = mpsc::channel();
        let persisted = move |ticket, result| {
            assert_eq!(result, Ok(()));
            let _ = tell.send(ticket);
        };
        Ok((InMemory::open(path, Tape::default(), persisted)?, told))
    }

    fn tape(machine: &mut InMemory<Tape>) -> Vec<u8> {
        machine.query(()).expect("it is in memory")
    }

    #[test]
    fn what_was_persisted_is_there_after_opening_again_and_what_came_later_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut machine, told) = open(directory.path()).expect("opens");
        assert_eq!(machine.metadata(), Ok(None));
        machine.apply(Index(1), "one".into()).expect("applies");
        machine.commit(stored()).expect("commits");
        machine.persist(Ticket(7)).expect("begins");
        machine.apply(Index(2), "two".into()).expect("applies");
        assert_eq!(told.recv(), Ok(Ticket(7)));
        drop(machine);
        let (mut machine, _) = open(directory.path()).expect("opens");
        assert_eq!((machine.metadata(), tape(&mut machine)), (Ok(Some(stored())), b"one".to_vec()));
    }

    #[test]
    fn a_view_is_sent_in_parts_and_installed_durably_in_the_place_of_the_state() {
        let theirs = tempfile::tempdir().expect("a directory");
        let (mut theirs, _told) = open(theirs.path()).expect("opens");
        theirs.apply(Index(1), "0123456789".into()).expect("applies");
        let view = theirs.view().expect("a view");
        theirs.apply(Index(2), "later".into()).expect("applies");

        let directory = tempfile::tempdir().expect("a directory");
        let (mut ours, _told) = open(directory.path()).expect("opens");
        ours.apply(Index(1), "ours".into()).expect("applies");
        let (mut from, mut first, mut parts) = (Bytes::new(), true, 0);
        loop {
            let part = theirs.read(&view, &from, 4).expect("a part");
            assert_eq!(ours.stage(first, part.bytes), Ok(Ok(())));
            (first, parts) = (false, parts + 1);
            assert_eq!(tape(&mut ours), b"ours", "it goes on serving");
            match part.next {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!(parts, 3);
        ours.install(stored()).expect("installs");
        assert_eq!(tape(&mut ours), b"0123456789");
        drop(ours);
        let (mut ours, _) = open(directory.path()).expect("opens");
        assert_eq!((ours.metadata(), tape(&mut ours)), (Ok(Some(stored())), b"0123456789".to_vec()));
    }

    #[test]
    fn a_damaged_file_and_a_state_that_the_program_refuses_are_said() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        let body = [Bytes::from_static(b"\x00\x00"), Bytes::from_static(b"!")];
        write(directory.path(), &body).expect("writes");
        let said = open(directory.path()).err().expect("the program refuses it");
        assert!(said.contains("cannot restore its state from a snapshot: an exclamation mark"), "{said}");
        let whole = fs::read(&path).expect("reads");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            for bytes in [&damaged[..], &whole[..at]] {
                fs::write(&path, bytes).expect("writes");
                let said = open(directory.path()).err().expect("it is damaged");
                assert!(said.contains("the snapshot is damaged"), "{said}");
            }
        }
    }

    #[test]
    fn the_bytes_of_a_snapshots_file_never_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let (machine, _) = open(directory.path()).expect("opens");
        let (tell, told) = mpsc::channel();
        machine.submit(&stored(), Bytes::from_static(b"state"), Done::Waiter(tell)).expect("submits");
        told.recv().expect("an answer").expect("written");
        let bytes = fs::read(directory.path().join(FILE)).expect("reads");
        assert_eq!(bytes[..8], *b"SYNODSN\x01");
        assert_eq!(bytes[12..], *b"\x04ours\x04minestate");
        assert_eq!(bytes[8..12], crc32fast::hash(&bytes[12..]).to_le_bytes());
    }
}
