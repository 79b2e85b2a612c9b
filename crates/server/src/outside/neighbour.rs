//! Getting to know another cluster: which one it is, and whether it has the keyspace that is to take part.

use super::cluster::KeyspaceThere;
use super::http::{Base, Client};
use super::one_line;
use crate::hosted::coordinator_of;
use http::StatusCode;
use serde_json::Value;
use std::time::Duration;
use synod_node::ClusterId;
use synod_protocols::NodeId;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Finds out which keyspace of which cluster is meant. Endpoints that do not answer now are passed over, if one does.
///
/// # Errors
/// What is wrong, and what to do.
pub(crate) async fn find_keyspace(
    endpoints: &[String],
    name: &str,
    patience: Duration,
) -> Result<KeyspaceThere, String> {
    let client = Client::default();
    let mut cluster: Option<(NodeId, Base)> = None;
    let mut why = "it has no endpoint".to_owned();
    let mut there = Err("nobody answers".to_owned());
    for endpoint in endpoints {
        let base = Base::parse(endpoint).map_err(|why| why.to_string())?;
        let status = match get(&client, &base, "/status", patience).await {
            Ok((_, status)) => status,
            Err(silent) => {
                why = silent;
                continue;
            }
        };
        let id = status["cluster-id"].as_str().and_then(|id| u64::from_str_radix(id, 16).ok());
        let Some(id) = id else {
            return Err(format!(
                "{base} is no member of a Synod cluster: name the addresses where its clients ask"
            ));
        };
        let found = coordinator_of(ClusterId(id));
        match &cluster {
            Some((known, first)) if *known != found => {
                return Err(format!("{first} and {base} are of two clusters: name endpoints of one"));
            }
            Some(_) => {}
            None => cluster = Some((found, base.clone())),
        }
        if there.is_err() {
            there = keyspace_at(&client, &base, name, patience).await;
        }
    }
    let (cluster, _) = cluster.ok_or_else(|| format!("the other cluster does not answer: {why}"))?;
    Ok(KeyspaceThere { cluster, id: there?, name: name.to_owned() })
}

/// The number of a keyspace on the log.
async fn keyspace_at(client: &Client, base: &Base, name: &str, patience: Duration) -> Result<NodeId, String> {
    let (status, answer) = get(client, base, &format!("/v1/keyspaces/{name}"), patience).await?;
    let said = || one_line(answer["error"]["message"].as_str().unwrap_or("no reason was given"));
    if status == StatusCode::NOT_FOUND {
        return Err(format!("{base} has no keyspace `{name}`: create it there first"));
    }
    if !status.is_success() {
        return Err(format!("{base} does not say whether it has a keyspace `{name}`: {}", said()));
    }
    match (answer["model"].as_str(), answer["id"].as_u64()) {
        (Some("linearizable" | "sequential"), Some(id)) if id > 0 => Ok(NodeId(id)),
        (Some(model), Some(_)) => Err(format!(
            "the keyspace `{name}` there is {}: only linearizable and sequential ones take part in transactions",
            one_line(model)
        )),
        _ => Err(format!("{base} describes its keyspace `{name}` in words that are not understood here")),
    }
}

async fn get(
    client: &Client,
    base: &Base,
    path: &str,
    patience: Duration,
) -> Result<(StatusCode, Value), String> {
    let answer = client.get(base, path, (patience, ANSWER_BYTES_MAX)).await.map_err(|none| none.why())?;
    // What is no JSON is no answer of a member, and is seen as such by what it lacks.
    Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
}
