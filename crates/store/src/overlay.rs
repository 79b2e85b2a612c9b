//! Writes not yet committed, laid over the map below: a batch of commands reads its own writes,
//! and reaches the map all at once.

use alloc::vec::Vec;
use core::mem;
use core::ops::ControlFlow;

use bytes::Bytes;

use crate::map::{OrderedMap, WriteBatch};

#[derive(Clone, Debug)]
pub(crate) struct Overlay<M> {
    base: M,
    pending: WriteBatch,
    /// Inside a transaction: what `pending` held before each of its writes.
    undo: Option<Vec<(Bytes, Option<Option<Bytes>>)>>,
}

impl<M: OrderedMap> Overlay<M> {
    pub(crate) fn new(base: M) -> Self {
        Self { base, pending: WriteBatch::default(), undo: None }
    }

    pub(crate) fn base(&self) -> &M {
        &self.base
    }

    pub(crate) fn base_mut(&mut self) -> &mut M {
        &mut self.base
    }

    pub(crate) fn into_base(self) -> M {
        self.base
    }

    pub(crate) fn pending_len(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, M::Error> {
        match self.pending.lookup(key) {
            Some(pending) => Ok(pending.clone()),
            None => self.base.get(key),
        }
    }

    pub(crate) fn put(&mut self, key: Bytes, value: Bytes) {
        self.write(key, Some(value));
    }

    pub(crate) fn remove(&mut self, key: Bytes) {
        self.write(key, None);
    }

    fn write(&mut self, key: Bytes, value: Option<Bytes>) {
        match &mut self.undo {
            None => {
                self.pending.set(key, value);
            }
            Some(undo) => {
                let before = self.pending.set(key.clone(), value);
                undo.push((key, before));
            }
        }
    }

    /// From here on, writes can be taken back.
    pub(crate) fn begin(&mut self) {
        assert!(self.undo.is_none(), "transactions do not nest in the overlay");
        self.undo = Some(Vec::new());
    }

    /// The writes since `begin` stay.
    pub(crate) fn keep(&mut self) {
        assert!(self.undo.take().is_some(), "only a transaction that began can end");
    }

    /// The writes since `begin` never happened.
    pub(crate) fn roll_back(&mut self) {
        let undo = self.undo.take().expect("only a transaction that began can be rolled back");
        for (key, before) in undo.into_iter().rev() {
            match before {
                Some(before) => {
                    self.pending.set(key, before);
                }
                None => self.pending.forget(&key),
            }
        }
    }

    /// Hands all pending writes to the map below, as one.
    pub(crate) fn commit(&mut self) -> Result<(), M::Error> {
        assert!(self.undo.is_none(), "a transaction is committed whole or not at all");
        if self.pending.is_empty() {
            return Ok(());
        }
        self.base.commit(mem::take(&mut self.pending))
    }

    /// Drops all pending writes.
    pub(crate) fn forget_pending(&mut self) {
        assert!(self.undo.is_none(), "a transaction ends before its writes are dropped");
        self.pending = WriteBatch::default();
    }

    /// As [`OrderedMap::scan`], over the map below with the pending writes laid over it.
    pub(crate) fn scan(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), M::Error> {
        let mut pending = self.pending.range(from, to).peekable();
        if pending.peek().is_none() {
            return self.base.scan(from, to, visit);
        }
        let mut broken = false;
        self.base.scan(from, to, &mut |key, value| {
            let mut hidden = false;
            while let Some((over, change)) = pending.next_if(|(over, _)| *over <= key) {
                hidden = over == key;
                if let Some(change) = change
                    && visit(over, change).is_break()
                {
                    broken = true;
                    return ControlFlow::Break(());
                }
            }
            if !hidden && visit(key, value).is_break() {
                broken = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if !broken {
            for (over, change) in pending {
                if let Some(change) = change
                    && visit(over, change).is_break()
                {
                    break;
                }
            }
        }
        Ok(())
    }
}
