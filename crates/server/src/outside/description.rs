//! What a participant outside is, as it stands in the registry.

use super::cluster::{ENDPOINTS_MAX, KeyspaceThere};
use super::http::Base;
use super::{Postgres, Timing};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use synod_node::spaces::NAME_BYTES_MAX;
use synod_protocols::NodeId;

/// What somebody registers. Holds passwords: only [`Description::shown`] is for other eyes.
#[derive(Clone, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Description {
    /// A PostgreSQL database, for transactions.
    Postgres {
        /// Where, and as whom.
        url: String,
    },
    /// A service behind HTTP, for sagas.
    Http {
        /// Where.
        url: String,
    },
    /// A keyspace of another Synod cluster, for transactions.
    Cluster {
        /// Where clients of that cluster ask.
        endpoints: Vec<String>,
        /// What the keyspace is called there.
        keyspace: String,
        /// Which keyspace of which cluster that was found to be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found: Option<Found>,
    },
}

/// What was found at the endpoints. Numbers are text, because many readers of JSON hold them as floating point.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Found {
    cluster: String,
    id: String,
}

impl Found {
    pub(crate) fn of(there: &KeyspaceThere) -> Found {
        Found { cluster: there.cluster.0.to_string(), id: there.id.0.to_string() }
    }
}

impl Description {
    /// As a client writes it, and as it is kept.
    pub(crate) const FORM: &str = r#"{"kind":"postgres","url":"postgres://USER:PASSWORD@HOST:PORT/DATABASE"} or {"kind":"cluster","endpoints":["http://HOST:PORT"],"keyspace":"NAME"} or {"kind":"http","url":"http://HOST:PORT"}"#;

    pub(crate) fn parse(json: &[u8]) -> Result<Description, String> {
        // The reader's own words could repeat a part of the text, which may hold a password.
        serde_json::from_slice(json).map_err(|_| format!("the body is not understood: send {}", Self::FORM))
    }

    pub(crate) fn written(&self) -> Vec<u8> {
        // Text can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether it can be used, by what it says itself.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Description::Postgres { url } => {
                Postgres::new(url, NodeId(0), Timing::default()).map(drop).map_err(|why| why.to_string())
            }
            Description::Http { url } => Base::parse(url).map(drop).map_err(|why| why.to_string()),
            Description::Cluster { endpoints, keyspace, .. } => {
                if endpoints.is_empty() || endpoints.len() > ENDPOINTS_MAX {
                    return Err(format!("name 1 to {ENDPOINTS_MAX} endpoints of the other cluster"));
                }
                endpoints.iter().try_for_each(|endpoint| {
                    Base::parse(endpoint).map(drop).map_err(|why| format!("the endpoint {endpoint:?}: {why}"))
                })?;
                let fits =
                    |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
                match keyspace.bytes().all(fits) && (1..=NAME_BYTES_MAX).contains(&keyspace.len()) {
                    true => Ok(()),
                    false => Err("`keyspace` is no name of a keyspace".into()),
                }
            }
        }
    }

    /// The keyspace of another cluster that this is, and where that cluster is reached.
    pub(crate) fn elsewhere(&self) -> Option<(KeyspaceThere, &[String])> {
        let Description::Cluster { endpoints, keyspace, found: Some(found) } = self else { return None };
        let (cluster, id) = (NodeId(found.cluster.parse().ok()?), NodeId(found.id.parse().ok()?));
        Some((KeyspaceThere { cluster, id, name: keyspace.clone() }, endpoints))
    }

    /// Without passwords.
    pub(crate) fn shown(&self) -> Value {
        match self {
            Description::Postgres { url } => {
                let agent = Postgres::new(url, NodeId(0), Timing::default());
                json!({"kind": "postgres", "url": agent.map_or_else(|_| String::new(), |agent| agent.url().to_owned())})
            }
            // Such an address holds none.
            Description::Http { url } => json!({"kind": "http", "url": url}),
            Description::Cluster { endpoints, keyspace, found } => {
                let mut shown = json!({"kind": "cluster", "endpoints": endpoints, "keyspace": keyspace});
                if let Some(Found { cluster, id }) = found {
                    shown["found"] = json!({"cluster": cluster, "id": id});
                }
                shown
            }
        }
    }
}
