//! Which keyspaces there are, and which participants outside: the part of the state that names the rest.

use super::contacts::{CONTACT_ENDPOINT_BYTES_MAX, CONTACT_ENDPOINTS_MAX, CONTACTS_MAX};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use synod_protocols::{DecodeError, NodeId, Reader, Wire, wire_format};

/// Keyspaces of a cluster at the most: each weak one is a process with a log of its own at every member.
pub const KEYSPACES_MAX: usize = 64;
/// Participants outside at the most.
pub const OUTSIDE_MAX: usize = 64;
/// Bytes of a name at the most.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of the description of a participant outside at the most.
pub const OUTSIDE_BYTES_MAX: usize = 4 << 10;

/// A keyspace, by a number that no other one of the cluster ever has: the index of the entry that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpaceId(pub u64);

/// What a keyspace promises, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Model {
    /// As if there were one copy.
    Linearizable,
    /// One order for all, which keeps every session's own.
    Sequential,
    /// Effects never before causes.
    Causal,
    /// Without new writes all members come to show the same.
    Eventual,
}

impl Model {
    /// All of them, the strongest first.
    pub const ALL: [Model; 4] = [Model::Linearizable, Model::Sequential, Model::Causal, Model::Eventual];

    /// Whether a keyspace with this model lives on the cluster's replicated log.
    pub fn is_on_log(self) -> bool {
        matches!(self, Model::Linearizable | Model::Sequential)
    }

    /// Whether this promises at least what `other` does.
    pub fn is_at_least(self, other: Model) -> bool {
        self as u8 <= other as u8
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Model::Linearizable => "linearizable",
            Model::Sequential => "sequential",
            Model::Causal => "causal",
            Model::Eventual => "eventual",
        })
    }
}

impl FromStr for Model {
    type Err = String;

    fn from_str(name: &str) -> Result<Model, String> {
        let found = Model::ALL.into_iter().find(|model| model.to_string() == name);
        let names = Model::ALL.map(|model| model.to_string()).join(", ");
        found.ok_or_else(|| format!("there is no consistency model `{name}`; there is: {names}"))
    }
}

impl Wire for Model {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }

    fn decode(input: &mut Reader) -> Result<Model, DecodeError> {
        let tag = input.byte("consistency model")?;
        let found = Model::ALL.into_iter().find(|model| *model as u8 == tag);
        found.ok_or(DecodeError::Invalid { what: "consistency model", value: u64::from(tag) })
    }
}

/// A keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Its number.
    pub id: SpaceId,
    /// What it is called.
    pub name: String,
    /// What it promises.
    pub model: Model,
    /// Who the members were when it was made.
    pub founders: Vec<NodeId>,
}

/// A participant of transactions and sagas that is no keyspace of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Its number, from the same count as those of keyspaces.
    pub id: SpaceId,
    /// What it is called; no keyspace has the same name.
    pub name: String,
    /// Where and what it is, in the words of whoever talks to it. May hold a password.
    pub description: Bytes,
}

/// What seals session tokens, of all keyspaces of the cluster. It is not shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u64; 2]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Wire for SpaceId {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(input: &mut Reader) -> Result<SpaceId, DecodeError> {
        Ok(SpaceId(input.varint("keyspace")?))
    }
}

impl Wire for Secret {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|word| word.encode(out));
    }

    fn decode(input: &mut Reader) -> Result<Secret, DecodeError> {
        Ok(Secret([input.varint("secret")?, input.varint("secret")?]))
    }
}

wire_format!(struct Space { id, name, model, founders });
wire_format!(struct Outside { id, name, description });

/// Why the registry was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No name for a keyspace or a participant.
    Name(String),
    /// There is a keyspace of this name already, with another model.
    OtherModel(String, Model),
    /// There is a participant of the other sort with this name.
    Taken(String),
    /// There is nothing of this name.
    Unknown(String),
    /// As many as there may be.
    Full(usize),
    /// The description of a participant is too long.
    TooLong(usize),
    /// The keyspace holds keys.
    HoldsKeys(String),
    /// The keyspace takes part in a transaction that is not over.
    InTransaction(String),
    /// No endpoints of a coordinator, or too many, or too long ones.
    Endpoints,
    /// A keyspace knows as many coordinators as it may.
    Coordinators,
    /// The command cannot be read.
    Malformed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Name(name) => write!(
                f,
                "`{name}` is no name: use 1 to {NAME_BYTES_MAX} of a to z, 0 to 9, - and _, beginning with a letter"
            ),
            Refusal::OtherModel(name, model) => write!(
                f,
                "there is a keyspace `{name}` already, and it is {model}: a keyspace's model cannot be changed. Drop it \
                 first, or choose another name"
            ),
            Refusal::Taken(name) => {
                write!(f, "`{name}` is the name of another participant: choose another one, or remove that first")
            }
            Refusal::Unknown(name) => write!(f, "there is nothing called `{name}`: create it first"),
            Refusal::Full(max) => write!(f, "there are {max} already, which is as many as there may be: drop one"),
            Refusal::TooLong(bytes) => {
                write!(f, "a description of {bytes} bytes; at most {OUTSIDE_BYTES_MAX} are kept")
            }
            Refusal::HoldsKeys(name) => {
                write!(f, "the keyspace `{name}` holds keys: delete them, or drop it with force")
            }
            Refusal::InTransaction(name) => write!(
                f,
                "the keyspace `{name}` takes part in a transaction that is not over: wait for its end, or resolve it"
            ),
            Refusal::Endpoints => write!(
                f,
                "a coordinator has 1 to {CONTACT_ENDPOINTS_MAX} endpoints of at most {CONTACT_ENDPOINT_BYTES_MAX} bytes"
            ),
            Refusal::Coordinators => write!(
                f,
                "{CONTACTS_MAX} other clusters coordinate transactions on this keyspace already, which is as many as there may \
                 be: use another keyspace"
            ),
            Refusal::Malformed => {
                f.write_str("the command cannot be read: this member may be older than the one that proposed it; upgrade it")
            }
        }
    }
}

/// All keyspaces and participants outside, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    spaces: BTreeMap<String, Space>,
    outside: BTreeMap<String, Outside>,
    secret: Option<Secret>,
}

impl Wire for Registry {
    fn encode(&self, out: &mut Vec<u8>) {
        self.spaces.values().cloned().collect::<Vec<_>>().encode(out);
        self.outside.values().cloned().collect::<Vec<_>>().encode(out);
        self.secret.encode(out);
    }

    fn decode(input: &mut Reader) -> Result<Registry, DecodeError> {
        let spaces = Vec::<Space>::decode(input)?;
        let outside = Vec::<Outside>::decode(input)?;
        Ok(Registry {
            spaces: spaces.into_iter().map(|space| (space.name.clone(), space)).collect(),
            outside: outside.into_iter().map(|outside| (outside.name.clone(), outside)).collect(),
            secret: Option::decode(input)?,
        })
    }
}

impl Registry {
    /// The keyspaces, by name.
    pub fn spaces(&self) -> impl Iterator<Item = &Space> {
        self.spaces.values()
    }

    /// The keyspace of a name.
    pub fn space(&self, name: &str) -> Option<&Space> {
        self.spaces.get(name)
    }

    /// The participants outside, by name.
    pub fn outside(&self) -> impl Iterator<Item = &Outside> {
        self.outside.values()
    }

    /// What seals session tokens; there is none before the first keyspace.
    pub fn secret(&self) -> Option<Secret> {
        self.secret
    }

    /// Keeps what seals session tokens, if nothing does yet.
    pub(super) fn seal(&mut self, secret: Secret) {
        self.secret.get_or_insert(secret);
    }

    /// Makes a keyspace. One of that name and model that is there already is the answer too.
    pub(super) fn create(&mut self, mut space: Space, secret: Secret) -> Result<Space, Refusal> {
        check_name(&space.name)?;
        if let Some(present) = self.spaces.get(&space.name) {
            return match present.model == space.model {
                true => Ok(present.clone()),
                false => Err(Refusal::OtherModel(space.name, present.model)),
            };
        }
        if self.outside.contains_key(&space.name) {
            return Err(Refusal::Taken(space.name));
        }
        if self.spaces.len() >= KEYSPACES_MAX {
            return Err(Refusal::Full(KEYSPACES_MAX));
        }
        space.founders.sort_unstable();
        self.secret.get_or_insert(secret);
        self.spaces.insert(space.name.clone(), space.clone());
        Ok(space)
    }

    /// Forgets a keyspace.
    pub(super) fn drop_space(&mut self, name: &str) -> Result<Space, Refusal> {
        self.spaces.remove(name).ok_or_else(|| Refusal::Unknown(name.to_owned()))
    }

    /// Adds a participant outside, or describes it anew.
    pub(super) fn register(&mut self, outside: Outside) -> Result<Outside, Refusal> {
        check_name(&outside.name)?;
        if outside.description.len() > OUTSIDE_BYTES_MAX {
            return Err(Refusal::TooLong(outside.description.len()));
        }
        if self.spaces.contains_key(&outside.name) {
            return Err(Refusal::Taken(outside.name));
        }
        if let Some(present) = self.outside.get_mut(&outside.name) {
            // The same participant at a new address: what it has promised is known by its number.
            present.description = outside.description;
            return Ok(present.clone());
        }
        if self.outside.len() >= OUTSIDE_MAX {
            return Err(Refusal::Full(OUTSIDE_MAX));
        }
        self.outside.insert(outside.name.clone(), outside.clone());
        Ok(outside)
    }

    /// Forgets a participant outside.
    pub(super) fn unregister(&mut self, name: &str) -> Result<Outside, Refusal> {
        self.outside.remove(name).ok_or_else(|| Refusal::Unknown(name.to_owned()))
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let fits = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
    match fits {
        true => Ok(()),
        false => Err(Refusal::Name(name.chars().take(NAME_BYTES_MAX).collect())),
    }
}
