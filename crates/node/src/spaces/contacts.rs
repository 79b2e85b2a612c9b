//! Where coordinators in other clusters are reached: what a keyspace that has promised them something asks when it is in doubt.
//!
//! A contact is in the log before the first promise that it is for, so that whoever leads after that promise has it too. It
//! goes with its keyspace. Otherwise it is not forgotten: a participant does not forget the lives of a coordinator either, because an
//! earlier one must never be obeyed again.

use super::{Refusal, SpaceId, SpacesMachine};
use crate::kv::StateMap;
use std::fmt;
use std::ops::ControlFlow;
use synod_protocols::{NodeId, Wire, wire_format};
use synod_store::Error;

/// Coordinators in other clusters that one keyspace knows at the most. With that of its own cluster they are as many as a
/// participant takes orders from.
pub const CONTACTS_MAX: usize = 63;
/// Endpoints of one contact at the most.
pub const CONTACT_ENDPOINTS_MAX: usize = 16;
/// Bytes of an endpoint at the most.
pub const CONTACT_ENDPOINT_BYTES_MAX: usize = 512;

/// A coordinator in another cluster, as a keyspace here knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// What the keyspace is called there.
    pub participant: NodeId,
    /// Where members of that cluster answer clients, as in `http://127.0.0.1:2379`.
    pub endpoints: Vec<String>,
}

wire_format!(struct Contact { participant, endpoints });

fn contacts_prefix(space: SpaceId) -> Vec<u8> {
    let mut key = vec![b'c'];
    key.extend_from_slice(&space.0.to_be_bytes());
    key
}

fn contact_key(space: SpaceId, coordinator: NodeId) -> Vec<u8> {
    let mut key = contacts_prefix(space);
    key.extend_from_slice(&coordinator.0.to_be_bytes());
    key
}

impl<M: StateMap> SpacesMachine<M>
where
    Error<M::Error>: fmt::Display,
{
    /// How a keyspace reaches a coordinator in another cluster, if that has ever asked something of it.
    ///
    /// # Errors
    /// The map's, and [`Error::Corrupt`] if it holds something else.
    pub fn contact(&self, space: SpaceId, coordinator: NodeId) -> Result<Option<Contact>, Error<M::Error>> {
        let stored = self.kv.store().node_get(&contact_key(space, coordinator)).map_err(Error::Map)?;
        let read = |bytes| {
            Contact::from_bytes(bytes)
                .map_err(|_| Error::Corrupt { table: "coordinators elsewhere", what: "one cannot be read" })
        };
        stored.map(read).transpose()
    }

    /// Keeps how a keyspace reaches a coordinator, in the place of what it knew before.
    pub(super) fn keep_contact(
        &mut self,
        space: SpaceId,
        coordinator: NodeId,
        contact: &Contact,
    ) -> Result<Result<(), Refusal>, Error<M::Error>> {
        if !self.registry().spaces().any(|known| known.id == space && known.model.is_on_log()) {
            return Ok(Err(Refusal::Unknown(format!("keyspace {}", space.0))));
        }
        let endpoints = &contact.endpoints;
        if endpoints.is_empty()
            || endpoints.len() > CONTACT_ENDPOINTS_MAX
            || endpoints.iter().any(|endpoint| endpoint.len() > CONTACT_ENDPOINT_BYTES_MAX)
        {
            return Ok(Err(Refusal::Endpoints));
        }
        let key = contact_key(space, coordinator);
        let is_known = self.kv.store().node_get(&key).map_err(Error::Map)?.is_some();
        if !is_known && self.count_contacts(space)? >= CONTACTS_MAX {
            return Ok(Err(Refusal::Coordinators));
        }
        self.kv.store_mut().node_put(&key, contact.to_bytes());
        Ok(Ok(()))
    }

    fn count_contacts(&self, space: SpaceId) -> Result<usize, Error<M::Error>> {
        let mut count = 0;
        let mut visit = |_, _: &_| {
            count += 1;
            ControlFlow::Continue(())
        };
        self.kv.store().node_scan(&contacts_prefix(space), &mut visit).map_err(Error::Map)?;
        Ok(count)
    }

    /// The keyspace is gone.
    pub(super) fn forget_contacts(&mut self, space: SpaceId) -> Result<(), Error<M::Error>> {
        self.remove_all(&contacts_prefix(space))
    }
}
