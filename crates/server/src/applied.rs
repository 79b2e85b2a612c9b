//! Tasks that wait until this member has applied the log up to an index: sessions that have seen more elsewhere.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;
use synod_protocols::log::Index;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Who waits, in the order in which they will go on.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    waiting: RefCell<BTreeMap<(Index, u64), oneshot::Sender<()>>>,
    last: Cell<u64>,
}

/// Why nobody waits any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotReached {
    /// It did not come in time.
    Late,
    /// Too many wait already.
    Busy,
}

impl Applied {
    /// Lets those go on who waited for no more than this.
    pub(crate) fn reach(&self, applied: Index) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(first) = waiting.first_entry().filter(|first| first.key().0 <= applied) {
            // Who has given up meanwhile does not hear it.
            let _ = first.remove().send(());
        }
    }

    /// Waits for [`Applied::reach`] with this index or a higher one.
    pub(crate) async fn wait(
        &self,
        index: Index,
        span: Duration,
        waiting_max: usize,
    ) -> Result<(), NotReached> {
        if self.waiting.borrow().len() >= waiting_max {
            return Err(NotReached::Busy);
        }
        self.last.set(self.last.get() + 1);
        let place = Place { all: self, key: (index, self.last.get()) };
        let (tell, reached) = oneshot::channel();
        self.waiting.borrow_mut().insert(place.key, tell);
        timeout(span, reached).await.map_or(Err(NotReached::Late), |_| Ok(()))
    }
}

/// A place among those who wait, given back however the wait ends: also when its client is gone.
struct Place<'a> {
    all: &'a Applied,
    key: (Index, u64),
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.all.waiting.borrow_mut().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::Builder;

    #[test]
    fn who_waits_goes_on_at_its_index_and_leaves_nothing_behind() {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let applied = Applied::default();
            let (span, two) = (Duration::from_millis(50), Index(2));
            let (reached, late, ()) =
                tokio::join!(applied.wait(two, span, 8), applied.wait(Index(3), span, 8), async {
                    applied.reach(two)
                });
            assert_eq!((reached, late), (Ok(()), Err(NotReached::Late)));
            assert_eq!(applied.wait(two, span, 0).await, Err(NotReached::Busy));
            assert!(applied.waiting.borrow().is_empty());
        });
    }
}
