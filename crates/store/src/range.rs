//! Reads: now, and as of an earlier revision.

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::ControlFlow;

use bytes::Bytes;

use crate::layout::{
    Record, Span, Stamp, Version, current_key, split_version_key, unescape_version_prefix, user_key,
    version_key,
};
use crate::map::OrderedMap;
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::{RangeRequest, RangeResponse};
use crate::proto::mvccpb::KeyValue;
use crate::refusal::{Error, Refusal};
use crate::store::{Budget, CURRENT_VALUES, OLD_VERSIONS, Store, corrupt, header};
use crate::validate::check_range;

/// How many keys found in the table of versions a read of the past holds while it merges them
/// with the current values.
const PAST_KEYS_MAX: usize = 256;

/// One key with its value, as a walk over keys finds it.
pub(crate) struct Found<'a> {
    /// The key as it stands in the table of current values.
    entry: &'a Bytes,
    record: &'a Bytes,
}

impl Found<'_> {
    fn key(&self) -> Bytes {
        user_key(self.entry)
    }

    pub(crate) fn version<E>(&self) -> Result<Version, Error<E>> {
        Version::decode(self.record).map_err(corrupt(CURRENT_VALUES))
    }
}

pub(crate) type Visit<'a, E> = &'a mut dyn FnMut(Found<'_>) -> Result<ControlFlow<()>, Error<E>>;

impl<M: OrderedMap> Store<M> {
    /// Reads keys as etcd does. Sees what was applied, committed or not.
    ///
    /// The whole range is walked even where `limit` is small, since the answer counts its keys.
    /// Keys that sort alike come in the order of the keys.
    ///
    /// # Errors
    /// Refuses a request without a key, a revision that is compacted or still to come, and an
    /// answer above [`RESPONSE_BYTES_MAX`](crate::RESPONSE_BYTES_MAX); else the map's.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error<M::Error>> {
        self.range_within(request, self.meta.revision, &mut Budget::of_response())
    }

    /// A read while the store's revision is `now`: inside a transaction that has written, that is
    /// the one in the making.
    pub(crate) fn range_within(
        &self,
        request: &RangeRequest,
        now: i64,
        budget: &mut Budget,
    ) -> Result<RangeResponse, Error<M::Error>> {
        check_range(request)?;
        let at = self.revision_to_read(request.revision, now)?;
        let mut wanted = Wanted::new(request);
        let mut count = 0;
        self.visit(Span::new(&request.key, &request.range_end), at, now, &mut |found| {
            count += 1;
            wanted.offer(&found, budget)?;
            Ok(ControlFlow::Continue(()))
        })?;
        let (kvs, more) = wanted.finish(budget);
        Ok(RangeResponse { header: header(now), kvs, more, count })
    }

    /// The revision to read at, where 0 and less mean now.
    pub(crate) fn revision_to_read(&self, asked: i64, now: i64) -> Result<i64, Refusal> {
        if asked > now {
            return Err(Refusal::FUTURE_REVISION);
        }
        let at = if asked <= 0 { now } else { asked };
        if at < self.meta.compacted {
            return Err(Refusal::COMPACTED);
        }
        Ok(at)
    }

    /// Visits the keys in `span` that exist at revision `at`, in order.
    pub(crate) fn visit(
        &self,
        span: Span<'_>,
        at: i64,
        now: i64,
        visit: Visit<'_, M::Error>,
    ) -> Result<(), Error<M::Error>> {
        if let Span::One(key) = span {
            return self.visit_one(key, at, visit);
        }
        if at < now {
            return self.visit_past(span, at, visit);
        }
        let (from, to) = span.in_current();
        self.scan(&from, &to, &mut |entry, record| visit(Found { entry, record }))
    }

    fn visit_one(&self, key: &[u8], at: i64, visit: Visit<'_, M::Error>) -> Result<(), Error<M::Error>> {
        let entry = current_key(key);
        let current = self.current(&entry)?;
        if let Some((version, record)) = current
            && version.modified.main <= at
        {
            return visit(Found { entry: &entry, record: &record }).map(drop);
        }
        let newest = version_key(key, Stamp { main: at, sub: u32::MAX });
        let (_, to) = Span::One(key).in_versions();
        self.scan(&newest, &to, &mut |_, record| {
            if !Record::is_tombstone(record) {
                let _ = visit(Found { entry: &entry, record })?;
            }
            Ok(ControlFlow::Break(()))
        })
    }

    /// Merges the two tables, piece by piece, so that memory stays bounded however large the
    /// range is: what the table of versions says about the next keys, then the current values
    /// between them.
    fn visit_past(&self, span: Span<'_>, at: i64, visit: Visit<'_, M::Error>) -> Result<(), Error<M::Error>> {
        let (mut from_versions, to_versions) = span.in_versions();
        let (mut from_current, to_current) = span.in_current();
        loop {
            let (past, next) = self.past(&from_versions, &to_versions, at)?;
            let stop = match &next {
                Some(prefix) => current_key(&unescape_version_prefix(prefix).map_err(corrupt(OLD_VERSIONS))?),
                None => to_current.clone(),
            };
            let mut past = past.iter().peekable();
            let mut broken = false;
            let mut offer = |entry: &Bytes, record: &Bytes| {
                let flow = visit(Found { entry, record })?;
                broken = flow.is_break();
                Ok(flow)
            };
            self.scan(&from_current, &stop, &mut |entry, record| {
                while let Some((before, record)) = past.next_if(|(key, _)| key < entry) {
                    if offer(before, record)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                let old = past.next_if(|(key, _)| key == entry);
                let current = Version::decode(record).map_err(corrupt(CURRENT_VALUES))?;
                match old {
                    _ if current.modified.main <= at => offer(entry, record),
                    Some((_, record)) => offer(entry, record),
                    None => Ok(ControlFlow::Continue(())),
                }
            })?;
            if broken {
                return Ok(());
            }
            for (entry, record) in past {
                if visit(Found { entry, record })?.is_break() {
                    return Ok(());
                }
            }
            match next {
                Some(prefix) => (from_versions, from_current) = (prefix, stop),
                None => return Ok(()),
            }
        }
    }

    /// The next keys for which the table of versions holds a value as of revision `at`, as
    /// entries of the table of current values, and where to go on if there are more.
    #[allow(clippy::type_complexity, reason = "read at once, by one caller")]
    fn past(
        &self,
        from: &[u8],
        to: &[u8],
        at: i64,
    ) -> Result<(Vec<(Bytes, Bytes)>, Option<Bytes>), Error<M::Error>> {
        let mut past = Vec::new();
        let mut next = None;
        let mut prefix = Bytes::new();
        let mut settled = false;
        self.scan(from, to, &mut |entry, record| {
            let (its_prefix, stamp) = split_version_key(entry).map_err(corrupt(OLD_VERSIONS))?;
            if its_prefix != prefix {
                prefix = entry.slice(..its_prefix.len());
                settled = false;
                if past.len() == PAST_KEYS_MAX {
                    next = Some(prefix.clone());
                    return Ok(ControlFlow::Break(()));
                }
            }
            // Newest first: the first version that is old enough is the one that counted.
            if !settled && stamp.main <= at {
                settled = true;
                if !Record::is_tombstone(record) {
                    let key = unescape_version_prefix(&prefix).map_err(corrupt(OLD_VERSIONS))?;
                    past.push((current_key(&key), record.clone()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((past, next))
    }
}

/// Gathers what a request wants of the keys that it is offered.
struct Wanted<'a> {
    request: &'a RangeRequest,
    /// None: in the order in which the keys come.
    sort: Option<(SortTarget, SortOrder)>,
    limit: Option<usize>,
    /// How many keys to gather; none: all, to sort them.
    kvs_max: Option<usize>,
    filtered: bool,
    kvs: Vec<KeyValue>,
    /// Keys that pass the filters, as far as was looked.
    matched: usize,
}

impl<'a> Wanted<'a> {
    fn new(request: &'a RangeRequest) -> Self {
        let sort = match (request.sort_target(), request.sort_order()) {
            (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => None,
            (target, SortOrder::None) => Some((target, SortOrder::Ascend)),
            sort => Some(sort),
        };
        let filtered = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ]
        .iter()
        .any(|bound| *bound != 0);
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        let kvs_max = match sort {
            None => limit,
            // An oddity of etcd's: a target without an order is sorted only after the limit, and
            // one more key, was taken in the order of the keys; unless a filter is set.
            Some(_) if request.sort_order() == SortOrder::None && !filtered => {
                limit.map(|limit| limit.saturating_add(1))
            }
            Some(_) => None,
        };
        Self { request, sort, limit, kvs_max, filtered, kvs: Vec::new(), matched: 0 }
    }

    fn offer<E>(&mut self, found: &Found<'_>, budget: &mut Budget) -> Result<(), Error<E>> {
        if self.request.count_only {
            return Ok(());
        }
        let full = self.kvs_max == Some(self.kvs.len());
        if full && (!self.filtered || self.matched > self.kvs.len()) {
            self.matched = self.kvs.len() + 1;
            return Ok(());
        }
        let version = found.version()?;
        if !self.passes(&version) {
            return Ok(());
        }
        self.matched += 1;
        if full {
            return Ok(());
        }
        let mut kv = version.into_key_value(found.key());
        if self.request.keys_only && self.request.sort_target() != SortTarget::Value {
            kv.value = Bytes::new();
        }
        if self.is_overfull(PAST_KEYS_MAX) {
            self.sort_and_cut(budget);
        }
        if budget.spend(kv.key.len(), kv.value.len()).is_err() {
            if self.is_overfull(1) {
                self.sort_and_cut(budget);
            }
            budget.spend(kv.key.len(), kv.value.len())?;
        }
        self.kvs.push(kv);
        Ok(())
    }

    /// What is sorted with a limit can be cut on the way, which pays once half of it goes.
    fn is_overfull(&self, kvs_min: usize) -> bool {
        let Some(limit) = self.limit else { return false };
        self.kvs_max.is_none() && self.kvs.len() / 2 >= limit.max(kvs_min)
    }

    fn passes(&self, version: &Version) -> bool {
        let above = |bound: i64, revision: i64| bound != 0 && revision > bound;
        let below = |bound: i64, revision: i64| bound != 0 && revision < bound;
        let request = self.request;
        !(above(request.max_mod_revision, version.modified.main)
            || below(request.min_mod_revision, version.modified.main)
            || above(request.max_create_revision, version.created)
            || below(request.min_create_revision, version.created))
    }

    fn sort_and_cut(&mut self, budget: &mut Budget) {
        if let Some((target, order)) = self.sort {
            self.kvs.sort_by(|a, b| match order {
                SortOrder::Descend => compare(target, b, a),
                SortOrder::None | SortOrder::Ascend => compare(target, a, b),
            });
        }
        if let Some(limit) = self.limit
            && self.kvs.len() > limit
        {
            for kv in self.kvs.drain(limit..) {
                budget.refund(kv.key.len(), kv.value.len());
            }
        }
    }

    fn finish(mut self, budget: &mut Budget) -> (Vec<KeyValue>, bool) {
        self.sort_and_cut(budget);
        if self.request.keys_only {
            for kv in &mut self.kvs {
                kv.value = Bytes::new();
            }
        }
        let more = self.limit.is_some_and(|limit| self.matched > limit);
        (self.kvs, more)
    }
}

fn compare(target: SortTarget, a: &KeyValue, b: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}
