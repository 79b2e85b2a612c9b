//! The log's files, and the one thread that writes them.
//!
//! A segment is filled with zeros and synced before it is used, so that a write inside it changes
//! neither its length nor its extents and `fdatasync` has the data alone to write. Because that
//! takes a while, a helper thread keeps the next segment ready under the name `spare`; creating a
//! segment is then a rename.

use crate::directory::sync_directory;
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use synod_node::{Disk, DiskCommand, DiskFault, DiskReply, SegmentId};
use tokio::sync::mpsc as async_mpsc;

/// Zeros written at once while a segment is made: a page. What one long write has filled the kernel keeps as one large
/// piece, and dirties it whole at the next small write inside it.
const ZEROS_BYTES: usize = 4 << 10;

/// Zeros that are synced together.
const ZEROS_SYNCED_BYTES: u64 = 1 << 20;

/// A member's log on files.
#[derive(Debug)]
pub(crate) struct FileDisk {
    directory: PathBuf,
    files: BTreeMap<SegmentId, File>,
    /// The size that segments have unless one write needs more: the smallest that was asked for.
    usual: u64,
    /// A spare in the making or made: its size and how it went.
    spare: Option<(u64, mpsc::Receiver<io::Result<()>>)>,
}

impl FileDisk {
    /// The log in `directory`, which exists.
    pub(crate) fn open(directory: PathBuf) -> FileDisk {
        FileDisk { directory, files: BTreeMap::new(), usual: u64::MAX, spare: None }
    }

    fn path(&self, segment: SegmentId) -> PathBuf {
        self.directory.join(format!("{:08}.log", segment.0))
    }

    fn file(&mut self, segment: SegmentId) -> io::Result<&File> {
        let path = self.path(segment);
        match self.files.entry(segment) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                Ok(entry.insert(OpenOptions::new().read(true).write(true).open(path)?))
            }
        }
    }

    fn list(&self) -> io::Result<Vec<(SegmentId, u64)>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_suffix(".log"))
                .and_then(|number| number.parse().ok());
            if let Some(number) = number {
                segments.push((SegmentId(number), entry.metadata()?.len()));
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    /// A segment of zeros under its name, durably, and a helper at work on the next.
    fn create_segment(&mut self, segment: SegmentId, bytes: u64) -> io::Result<()> {
        let spare = self.directory.join("spare");
        match self.spare.take() {
            Some((size, made)) if size == bytes => {
                made.recv().unwrap_or_else(|_| make_zeros(&spare, bytes))?
            }
            Some((_, made)) => {
                // Of another size: wait until the helper is out of the way.
                let _ = made.recv();
                make_zeros(&spare, bytes)?;
            }
            None => make_zeros(&spare, bytes)?,
        }
        self.files.remove(&segment);
        fs::rename(&spare, self.path(segment))?;
        sync_directory(&self.directory)?;
        self.usual = self.usual.min(bytes);
        self.start_spare(spare, self.usual);
        Ok(())
    }

    fn start_spare(&mut self, path: PathBuf, bytes: u64) {
        let (tell, made) = mpsc::channel();
        let work = move || {
            let _ = tell.send(make_zeros(&path, bytes));
        };
        // Without a helper the next segment is made when it is needed.
        if thread::Builder::new().name("synod-spare".to_owned()).spawn(work).is_ok() {
            self.spare = Some((bytes, made));
        }
    }
}

/// A file of zeros, synced. The name is not: a rename and its sync follow. The zeros are synced piece by piece, because
/// the log's own syncs would have to wait behind one long one.
fn make_zeros(path: &Path, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    let file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
    let mut offset = 0;
    while offset < bytes {
        let len = (bytes - offset).min(ZEROS_BYTES as u64) as usize;
        file.write_all_at(&zeros[..len], offset)?;
        offset += len as u64;
        if offset % ZEROS_SYNCED_BYTES == 0 {
            file.sync_data()?;
        }
    }
    file.sync_all()
}

pub(crate) fn fault(doing: &str) -> impl Fn(io::Error) -> DiskFault {
    move |error| match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => DiskFault::Full,
        _ => DiskFault::Failed(format!("{doing} the log: {error}")),
    }
}

impl Disk for FileDisk {
    fn segments(&mut self) -> Result<Vec<(SegmentId, u64)>, DiskFault> {
        self.list().map_err(fault("listing"))
    }

    fn read(&mut self, segment: SegmentId, offset: u64, len: usize) -> Result<Bytes, DiskFault> {
        let read = |file: &File| -> io::Result<Bytes> {
            let length = file.metadata()?.len();
            let len = len.min(usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX));
            let mut bytes = BytesMut::zeroed(len);
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes.freeze())
        };
        self.file(segment).and_then(read).map_err(fault("reading"))
    }

    fn create(&mut self, segment: SegmentId, bytes: u64) -> Result<(), DiskFault> {
        self.create_segment(segment, bytes).map_err(fault("making room in"))
    }

    fn write(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) -> Result<(), DiskFault> {
        self.file(segment).and_then(|file| file.write_all_at(bytes, offset)).map_err(fault("writing"))
    }

    fn sync(&mut self, segment: SegmentId) -> Result<(), DiskFault> {
        // A sync that failed must not be retried: the kernel may have dropped the pages and call
        // the next sync a success.
        self.file(segment)
            .and_then(|file| file.sync_data())
            .map_err(|error| DiskFault::Failed(format!("syncing the log: {error}")))
    }

    fn remove(&mut self, segment: SegmentId) -> Result<(), DiskFault> {
        self.files.remove(&segment);
        match fs::remove_file(self.path(segment)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(fault("shortening")(error)),
            _ => sync_directory(&self.directory).map_err(fault("shortening")),
        }
    }
}

/// The thread that carries out disk commands in order.
#[derive(Debug)]
pub(crate) struct DiskThread {
    commands: Option<mpsc::Sender<DiskCommand>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl DiskThread {
    /// Starts the thread; replies arrive at the receiver in the order of the commands, each with how long it took, which
    /// is left out where a segment was made.
    pub(crate) fn start(
        name: &str,
        mut disk: FileDisk,
    ) -> io::Result<(DiskThread, async_mpsc::UnboundedReceiver<(DiskReply, Duration)>)> {
        let (commands, incoming) = mpsc::channel::<DiskCommand>();
        let (replies, outgoing) = async_mpsc::unbounded_channel();
        let work = move || {
            for command in incoming {
                // Making a segment is rare, and says nothing about how fast the disk syncs.
                let ordinary = !matches!(command, DiskCommand::Append { create: Some(_), .. });
                let begun = Instant::now();
                let reply = command.execute(&mut disk);
                let took = if ordinary { begun.elapsed() } else { Duration::ZERO };
                if replies.send((reply, took)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name(format!("{name}-disk")).spawn(work)?;
        Ok((DiskThread { commands: Some(commands), thread: Some(thread) }, outgoing))
    }

    /// Hands a command to the thread. At most one append is in flight at a time, so the queue is short.
    pub(crate) fn submit(&self, command: DiskCommand) {
        if let Some(commands) = &self.commands {
            // A thread that is gone has panicked, and its replies' channel has closed: the member stops.
            let _ = commands.send(command);
        }
    }
}

impl Drop for DiskThread {
    /// Lets the command in progress end, so that the directory is quiet when its lock is given up.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_protocols::log::Ticket;

    fn disk() -> (tempfile::TempDir, FileDisk) {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = FileDisk::open(directory.path().to_owned());
        (directory, disk)
    }

    #[test]
    fn a_segment_is_zeros_of_its_full_length_and_keeps_what_was_written() {
        let (directory, mut disk) = disk();
        let segment = SegmentId(1);
        disk.create(segment, 3_000_000).expect("created");
        assert_eq!(disk.segments(), Ok(vec![(segment, 3_000_000)]));
        disk.write(segment, 10, b"synod").expect("written");
        disk.sync(segment).expect("synced");
        let mut again = FileDisk::open(directory.path().to_owned());
        assert_eq!(again.read(segment, 9, 7).expect("read"), Bytes::from_static(b"\0synod\0"));
        assert_eq!(again.read(segment, 2_999_999, 100).expect("read").len(), 1, "fewer at the end");
        assert_eq!(again.read(segment, 4_000_000, 100).expect("read").len(), 0, "none behind it");
    }

    #[test]
    fn the_next_segment_comes_from_the_spare_and_segments_are_listed_in_order() {
        let (_directory, mut disk) = disk();
        for number in [1, 2, 10] {
            disk.create(SegmentId(number), 1 << 16).expect("created");
        }
        disk.remove(SegmentId(1)).expect("removed");
        disk.remove(SegmentId(1)).expect("removed already");
        assert_eq!(disk.segments(), Ok(vec![(SegmentId(2), 1 << 16), (SegmentId(10), 1 << 16)]));
    }

    #[test]
    fn creating_a_segment_again_gives_fresh_zeros() {
        let (_directory, mut disk) = disk();
        disk.create(SegmentId(1), 1 << 16).expect("created");
        disk.write(SegmentId(1), 0, b"old").expect("written");
        disk.create(SegmentId(1), 1 << 12).expect("created again");
        assert_eq!(disk.segments(), Ok(vec![(SegmentId(1), 1 << 12)]));
        assert_eq!(disk.read(SegmentId(1), 0, 3).expect("read"), Bytes::from_static(b"\0\0\0"));
    }

    #[test]
    fn what_the_file_system_refuses_is_a_fault_with_its_reason() {
        let (directory, mut disk) = disk();
        let fault = disk.read(SegmentId(7), 0, 1).expect_err("there is none");
        assert!(matches!(&fault, DiskFault::Failed(why) if why.contains("No such file")), "{fault}");
        drop(directory);
        assert!(matches!(disk.create(SegmentId(1), 1 << 12), Err(DiskFault::Failed(_))));
        assert_eq!(super::fault("x")(io::Error::from(ErrorKind::StorageFull)), DiskFault::Full);
    }

    #[test]
    fn the_thread_answers_commands_in_order() {
        let (_directory, disk) = disk();
        let (thread, mut replies) = DiskThread::start("n1", disk).expect("a thread");
        let segment = SegmentId(1);
        thread.submit(DiskCommand::Append {
            ticket: Ticket(1),
            segment,
            create: Some(4096),
            offset: 0,
            bytes: Bytes::from_static(b"abc"),
            sync: true,
        });
        thread.submit(DiskCommand::Read { ticket: Ticket(2), segment, offset: 1, len: 2 });
        let mut next = || replies.blocking_recv().map(|(reply, _)| reply);
        assert_eq!(next(), Some(DiskReply::Appended { ticket: Ticket(1), result: Ok(()) }));
        let read = DiskReply::Read { ticket: Ticket(2), result: Ok(Bytes::from_static(b"bc")) };
        assert_eq!(next(), Some(read));
        drop(thread);
        assert_eq!(next(), None);
    }
}
