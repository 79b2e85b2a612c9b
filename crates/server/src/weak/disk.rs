//! One thread that writes and syncs the logs of all weak keyspaces.

use crate::directory::sync_directory;
use crate::disk::FileDisk;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use synod_node::spaces::SpaceId;
use synod_node::{DiskCommand, DiskReply};
use tokio::sync::mpsc as async_mpsc;

/// What a log's disk has answered.
pub(crate) type Replied = (SpaceId, DiskReply);

/// What the thread is asked.
enum Work {
    /// From now on this log's files are its own.
    Open(SpaceId, FileDisk),
    /// Carry out, and reply.
    Run(SpaceId, DiskCommand),
    /// Remove the log's directory, of a keyspace that is no more.
    Remove(SpaceId, PathBuf),
}

/// The thread, which is begun when there is something for it to do.
#[derive(Debug)]
pub(super) struct WeakDisk {
    replies: async_mpsc::UnboundedSender<Replied>,
    thread: Option<(mpsc::Sender<Work>, thread::JoinHandle<()>)>,
}

impl WeakDisk {
    /// Replies arrive at the receiver, in the order of each log's commands.
    pub(super) fn new() -> (WeakDisk, async_mpsc::UnboundedReceiver<Replied>) {
        let (replies, outgoing) = async_mpsc::unbounded_channel();
        (WeakDisk { replies, thread: None }, outgoing)
    }

    /// Hands a log's files to the thread.
    pub(super) fn open(&mut self, space: SpaceId, disk: FileDisk) -> io::Result<()> {
        self.hand(Work::Open(space, disk))
    }

    /// Has a command carried out.
    pub(super) fn submit(&mut self, space: SpaceId, command: DiskCommand) -> io::Result<()> {
        self.hand(Work::Run(space, command))
    }

    /// Has a log removed.
    pub(super) fn remove(&mut self, space: SpaceId, directory: PathBuf) -> io::Result<()> {
        self.hand(Work::Remove(space, directory))
    }

    fn hand(&mut self, work: Work) -> io::Result<()> {
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => {
                let (work, incoming) = mpsc::channel();
                let replies = self.replies.clone();
                let name = "synod-weak-disk".to_owned();
                (work, thread::Builder::new().name(name).spawn(move || serve(incoming, replies))?)
            }
        };
        let result = thread.0.send(work);
        self.thread = Some(thread);
        result.map_err(|_| io::Error::other("the thread that writes keyspaces ended: see the lines above"))
    }
}

impl Drop for WeakDisk {
    /// Lets the command in progress end, so that the directory is quiet when its lock is given up.
    fn drop(&mut self) {
        if let Some((work, thread)) = self.thread.take() {
            drop(work);
            let _ = thread.join();
        }
    }
}

fn serve(incoming: mpsc::Receiver<Work>, replies: async_mpsc::UnboundedSender<Replied>) {
    let mut disks: BTreeMap<SpaceId, FileDisk> = BTreeMap::new();
    for work in incoming {
        match work {
            Work::Open(space, disk) => drop(disks.insert(space, disk)),
            Work::Run(space, command) => {
                let Some(disk) = disks.get_mut(&space) else { continue };
                if replies.send((space, command.execute(disk))).is_err() {
                    return;
                }
            }
            Work::Remove(space, directory) => {
                disks.remove(&space);
                // What stays is found, and removed, by the next start.
                let _ = fs::remove_dir_all(&directory);
                let _ = directory.parent().map(sync_directory);
            }
        }
    }
}
