//! A state machine that remembers the commands in order; its storage may lose the latest commits.

use bytes::Bytes;
use std::cell::Cell;
use std::convert::Infallible;
use synod_node::{Part, StateMachine, Stored};
use synod_protocols::Reader;
use synod_protocols::log::{Index, Ticket};
use synod_protocols::wire::put_bytes;

#[derive(Clone, Debug, Default)]
pub(crate) struct List {
    pub(crate) commands: Vec<Bytes>,
    stored: Option<Stored>,
    /// What each commit stored: how many commands, and what the node wanted stored.
    commits: Vec<(usize, Stored)>,
    /// How many of them a crash cannot undo.
    pub(crate) durable: usize,
    /// How many there were when the machine was told to make them durable.
    persisting: Option<(Ticket, usize)>,
    staged: Vec<Bytes>,
    pub(crate) queries: Cell<u64>,
}

impl List {
    /// What a crash leaves when the last `lost` commits did not reach the disk, if they need not have.
    pub(crate) fn crash(&self, lost: usize) -> List {
        let mut commits = self.commits.clone();
        commits.truncate(commits.len().saturating_sub(lost).max(self.durable));
        let (len, stored) = commits.last().map_or((0, None), |(len, stored)| (*len, Some(stored.clone())));
        let (commands, durable) = (self.commands[..len].to_vec(), self.durable);
        List { commands, stored, commits, durable, ..List::default() }
    }

    /// How many commits a crash may undo.
    pub(crate) fn commits(&self) -> usize {
        self.commits.len() - self.durable
    }
}

impl StateMachine for List {
    type Query = ();
    type Answer = usize;
    type Response = usize;
    type Error = Infallible;
    type View = Vec<Bytes>;

    fn apply(&mut self, _index: Index, command: Bytes) -> Result<usize, Infallible> {
        self.commands.push(command);
        Ok(self.commands.len())
    }

    fn query(&mut self, (): ()) -> Result<usize, Infallible> {
        self.queries.set(self.queries.get() + 1);
        Ok(self.commands.len())
    }

    fn metadata(&self) -> Result<Option<Stored>, Infallible> {
        Ok(self.stored.clone())
    }

    fn commit(&mut self, stored: Stored) -> Result<(), Infallible> {
        self.stored = Some(stored.clone());
        self.commits.push((self.commands.len(), stored));
        Ok(())
    }

    fn persist(&mut self, ticket: Ticket) -> Result<(), Infallible> {
        assert!(self.persisting.is_none(), "one is under way at a time");
        self.persisting = Some((ticket, self.commits.len()));
        Ok(())
    }

    fn persisted(&mut self, ticket: Ticket) {
        if let Some((_, commits)) = self.persisting.take_if(|(asked, _)| *asked == ticket) {
            self.durable = self.durable.max(commits);
        }
    }

    fn view(&mut self) -> Result<Vec<Bytes>, Infallible> {
        let committed = self.commits.last().map_or(0, |(len, _)| *len);
        Ok(self.commands[..committed].to_vec())
    }

    fn read(&self, view: &Vec<Bytes>, from: &Bytes, bytes_max: usize) -> Result<Part, Infallible> {
        let from = from.first_chunk::<8>().map_or(0, |from| u64::from_le_bytes(*from) as usize);
        let mut bytes = Vec::new();
        let mut at = from;
        while at < view.len() && (at == from || bytes.len() < bytes_max) {
            put_bytes(&mut bytes, &view[at]);
            at += 1;
        }
        let next = (at < view.len()).then(|| Bytes::from((at as u64).to_le_bytes().to_vec()));
        Ok(Part { bytes: bytes.into(), next })
    }

    fn stage(&mut self, first: bool, part: Bytes) -> Result<Result<(), String>, Infallible> {
        if first {
            self.staged.clear();
        }
        let mut reader = Reader::new(part);
        while reader.remaining() > 0 {
            match reader.bytes("a command") {
                Ok(command) => self.staged.push(command),
                Err(why) => return Ok(Err(why.to_string())),
            }
        }
        Ok(Ok(()))
    }

    fn unstage(&mut self) {
        self.staged.clear();
    }

    fn install(&mut self, stored: Stored) -> Result<(), Infallible> {
        self.commands = std::mem::take(&mut self.staged);
        self.stored = Some(stored.clone());
        self.commits = vec![(self.commands.len(), stored)];
        self.durable = 1;
        self.persisting = None;
        Ok(())
    }
}
