//! What a participant outside is, as it stands in the registry.

use super::http::Base;
use super::{Postgres, Timing};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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
}

impl Description {
    /// As a client writes it, and as it is kept.
    pub(crate) const FORM: &str = r#"{"kind":"postgres","url":"postgres://USER:PASSWORD@HOST:PORT/DATABASE"} or {"kind":"http","url":"http://HOST:PORT"}"#;

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
        }
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
        }
    }
}
