//! Writes of one keyspace on the log, as one entry: all of them, or none.

use super::{Refusal, SpaceId, SpacesMachine};
use crate::kv::StateMap;
use bytes::Bytes;
use std::fmt;
use synod_protocols::wire_format;
use synod_store::Error;

/// What becomes of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// Which.
    pub key: Bytes,
    /// Its value from now on; none deletes it.
    pub value: Option<Bytes>,
    /// What it must be before, or that there must be none: otherwise nothing at all is changed.
    pub condition: Option<Option<Bytes>>,
}

wire_format!(struct KeyChange { key, value, condition });

impl<M: StateMap> SpacesMachine<M>
where
    Error<M::Error>: fmt::Display,
{
    /// Writes all or nothing. Conditions are about the values before.
    pub(super) fn write(
        &mut self,
        name: &str,
        id: SpaceId,
        changes: Vec<KeyChange>,
    ) -> Result<Result<(), Refusal>, Error<M::Error>> {
        // It may have been dropped since the write was asked for, and another one made under its name.
        let known = self.registry.space(name).filter(|space| space.id == id);
        if !known.is_some_and(|space| space.model.is_on_log()) {
            return Ok(Err(Refusal::Unknown(name.to_owned())));
        }
        for change in &changes {
            if let Some(expected) = &change.condition
                && self.value(id, &change.key)? != *expected
            {
                return Ok(Err(Refusal::Unexpected(change.key.clone())));
            }
        }
        changes.into_iter().for_each(|change| self.put_value(id, &change.key, change.value));
        Ok(Ok(()))
    }
}
