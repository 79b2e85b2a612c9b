//! A member's data directory.
//!
//! ```text
//! DIR/LOCK               held (flock) by the one process that works here; names it
//! DIR/IDENTITY           whose data these are, as text; written once, after the first start
//! DIR/log/00000001.log   segments of the replicated log, preallocated
//! DIR/log/spare          the next segment in the making
//! DIR/KEYSPACES          weak keyspaces in which the member has lived, as text
//! DIR/keyspaces/ID/      segments of the log of a weak keyspace
//! DIR/state/             the state engine's files; while the log is whole they can be rebuilt from it
//! ```

use crate::Error;
use crate::config::Config;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The version of this layout and of what the files hold.
const FORMAT: u32 = 2;

/// A data directory that this process holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
    has_lived: bool,
}

impl Directory {
    /// Takes possession of the configured directory, made if need be, and checks whose data it holds.
    pub(crate) fn open(config: &Config) -> Result<Directory, Error> {
        let path = config.data_dir.clone();
        let refused = |why: String| Error::Directory { path: path.clone(), why };
        fs::create_dir_all(path.join("log")).map_err(|error| {
            refused(format!(
                "cannot be made or written ({error}): name another with data-dir, or mend its permissions"
            ))
        })?;
        let lock = lock(&path)?;
        let has_lived = match fs::read_to_string(path.join("IDENTITY")) {
            Ok(found) => {
                check_identity(&path, &identity(config), &found)?;
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(refused(format!("its IDENTITY cannot be read: {error}"))),
        };
        Ok(Directory { path, _lock: lock, has_lived })
    }

    /// Whether a member has started here before.
    pub(crate) fn has_lived(&self) -> bool {
        self.has_lived
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Marks the directory as this member's, durably. Called once the log holds the member's first
    /// records: a crash in between leaves a log without a mark, which is resumed like any other.
    pub(crate) fn mark(&mut self, config: &Config) -> Result<(), Error> {
        if self.has_lived {
            return Ok(());
        }
        let write = || -> std::io::Result<()> {
            let temporary = self.path.join("IDENTITY.new");
            let mut file = File::create(&temporary)?;
            file.write_all(identity(config).as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, self.path.join("IDENTITY"))?;
            sync_directory(&self.path)
        };
        write().map_err(|error| Error::Directory {
            path: self.path.clone(),
            why: format!("its IDENTITY cannot be written: {error}"),
        })?;
        self.has_lived = true;
        Ok(())
    }
}

/// Makes creations, renames and removals in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn lock(path: &Path) -> Result<File, Error> {
    let refused = |error: std::io::Error| Error::Directory {
        path: path.to_owned(),
        why: format!("cannot be written ({error}): name another with data-dir, or mend its permissions"),
    };
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path.join("LOCK"))
        .map_err(refused)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut owner = String::new();
            let _ = file.take(64).read_to_string(&mut owner);
            let owner = match owner.trim().parse::<u32>() {
                Ok(pid) => format!("process {pid}"),
                Err(_) => "another process".to_owned(),
            };
            return Err(Error::InUse { path: path.to_owned(), owner });
        }
        Err(error) => return Err(refused(error.into())),
    }
    let write = |file: &mut File| -> std::io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(refused)?;
    Ok(file)
}

fn identity(config: &Config) -> String {
    let founders: Vec<String> = config.ids().iter().map(ToString::to_string).collect();
    format!(
        "synod-data {FORMAT}\ncluster {}\ncluster-id {:016x}\nmember {}\nprotocol {}\nfounded by {}\n",
        config.cluster,
        config.cluster_id().0,
        config.name,
        config.protocol,
        founders.join(" ")
    )
}

/// Compares line by line, so that the first difference can be named.
fn check_identity(path: &Path, expected: &str, found: &str) -> Result<(), Error> {
    let mut found_lines = found.lines();
    for line in expected.lines() {
        let there = found_lines.next().unwrap_or("nothing");
        if there == line {
            continue;
        }
        let name = |line: &str| line.replacen("synod-data", "data format", 1);
        return Err(Error::Foreign {
            path: path.to_owned(),
            what: format!("{}, but this member is configured as {}", name(there), name(line)),
        });
    }
    Ok(())
}
