//! In which weak keyspaces a member has lived: `DIR/KEYSPACES`.
//!
//! A log that is empty although its member has written to it was lost. The member must not begin anew then, as if what it
//! had acknowledged had never been; and the log, being lost, cannot say so. So it is said here, one number a line, behind
//! a line that names the format.

use crate::directory::sync_directory;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use synod_node::spaces::SpaceId;

const FORMAT: &str = "synod-keyspaces 1";
const FILE: &str = "KEYSPACES";

/// See [the module](self).
#[derive(Debug, Default)]
pub(super) struct Lived {
    directory: PathBuf,
    spaces: BTreeSet<SpaceId>,
}

impl Lived {
    /// Reads what is noted in a data directory.
    pub(super) fn read(directory: &Path) -> io::Result<Lived> {
        let text = match fs::read_to_string(directory.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => format!("{FORMAT}\n"),
            Err(error) => return Err(error),
        };
        let mut lines = text.lines();
        if lines.next() != Some(FORMAT) {
            return Err(io::Error::other(format!(
                "its first line is not `{FORMAT}`: start it with the version of the program that wrote it"
            )));
        }
        let number = |line: &str| line.parse().map(SpaceId).ok();
        let spaces: Option<BTreeSet<SpaceId>> = lines.map(number).collect();
        let spaces = spaces.ok_or_else(|| io::Error::other("a line of it is no keyspace's number"))?;
        Ok(Lived { directory: directory.to_owned(), spaces })
    }

    /// Whether the member has lived in this keyspace.
    pub(super) fn contains(&self, space: SpaceId) -> bool {
        self.spaces.contains(&space)
    }

    /// Notes, durably, that it lives in this keyspace.
    pub(super) fn note(&mut self, space: SpaceId) -> io::Result<()> {
        if self.contains(space) {
            return Ok(());
        }
        let mut spaces = self.spaces.clone();
        spaces.insert(space);
        self.write(spaces)
    }

    /// Forgets the keyspaces of which this is not so.
    pub(super) fn retain(&mut self, keep: impl Fn(SpaceId) -> bool) -> io::Result<()> {
        let spaces: BTreeSet<SpaceId> = self.spaces.iter().copied().filter(|space| keep(*space)).collect();
        if spaces == self.spaces { Ok(()) } else { self.write(spaces) }
    }

    fn write(&mut self, spaces: BTreeSet<SpaceId>) -> io::Result<()> {
        let temporary = self.directory.join(format!("{FILE}.new"));
        let mut file = File::create(&temporary)?;
        let lines: String = spaces.iter().map(|space| format!("{}\n", space.0)).collect();
        file.write_all(format!("{FORMAT}\n{lines}").as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, self.directory.join(FILE))?;
        sync_directory(&self.directory)?;
        self.spaces = spaces;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_again_and_what_was_forgotten_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut lived = Lived::read(directory.path()).expect("nothing there yet");
        [7, 12, 300].into_iter().for_each(|id| lived.note(SpaceId(id)).expect("noted"));
        lived.retain(|space| space != SpaceId(12)).expect("forgotten");
        let text = fs::read_to_string(directory.path().join(FILE)).expect("a file");
        assert_eq!(text, "synod-keyspaces 1\n7\n300\n");
        let again = Lived::read(directory.path()).expect("read");
        assert_eq!(again.spaces, lived.spaces);
    }

    #[test]
    fn what_this_version_did_not_write_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        for (text, expected) in [("synod-keyspaces 2\n", "first line"), ("synod-keyspaces 1\nx\n", "number")]
        {
            fs::write(directory.path().join(FILE), text).expect("written");
            let why = Lived::read(directory.path()).expect_err("it is not fine").to_string();
            assert!(why.contains(expected), "{why}");
        }
    }
}
