//! `synod put`, `get`, `del` and `status`: for people without etcdctl. Keys of keyspaces are [`keys`]'s.

use crate::cli::{Cluster, Del, Get, Put, Status};
use crate::client::{self, CallError};
use crate::{Done, Failure, block_on, keys};
use bytes::Bytes;
use serde_json::json;
use synod_store::proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, MemberListRequest, MemberListResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};

pub fn put(options: &Put) -> Done {
    if let Some(keyspace) = &options.place.keyspace {
        return keys::put(options, keyspace);
    }
    let request = PutRequest {
        key: Bytes::from(options.key.clone()),
        value: Bytes::from(options.value.clone()),
        ..PutRequest::default()
    };
    let answer: PutResponse = call(&options.cluster, "/etcdserverpb.KV/Put", &request)?;
    let revision = answer.header.unwrap_or_default().revision;
    if options.cluster.json {
        println!("{}", json!({"revision": revision}));
    } else {
        println!("{} = {} (revision {revision})", options.key, options.value);
    }
    Ok(())
}

pub fn get(options: &Get) -> Done {
    if let Some(keyspace) = &options.place.keyspace {
        return keys::get(options, keyspace);
    }
    let key = Bytes::from(options.key.clone());
    let request = RangeRequest {
        range_end: if options.prefix { prefix_end(&key) } else { Bytes::new() },
        // All keys are those from the smallest one on: etcd has no empty key.
        key: if options.prefix && key.is_empty() { Bytes::from_static(b"\0") } else { key },
        revision: options.revision,
        limit: options.limit,
        serializable: options.serializable,
        ..RangeRequest::default()
    };
    let answer: RangeResponse = call(&options.cluster, "/etcdserverpb.KV/Range", &request)?;
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    if options.cluster.json {
        let pairs: Vec<_> = answer
            .kvs
            .iter()
            .map(|kv| {
                json!({"key": text(&kv.key), "value": text(&kv.value), "create-revision": kv.create_revision,
                "mod-revision": kv.mod_revision, "version": kv.version})
            })
            .collect();
        println!(
            "{}",
            json!({"revision": answer.header.unwrap_or_default().revision, "count": answer.count, "kvs": pairs})
        );
    } else if options.prefix {
        answer.kvs.iter().for_each(|kv| println!("{} = {}", text(&kv.key), text(&kv.value)));
    } else {
        answer.kvs.iter().for_each(|kv| println!("{}", text(&kv.value)));
    }
    match answer.count {
        0 if !options.prefix => Err(Failure::No(format!("there is no key `{}`", options.key))),
        _ => Ok(()),
    }
}

pub fn del(options: &Del) -> Done {
    if let Some(keyspace) = &options.place.keyspace {
        return keys::del(options, keyspace);
    }
    let key = Bytes::from(options.key.clone());
    let request = DeleteRangeRequest {
        range_end: if options.prefix { prefix_end(&key) } else { Bytes::new() },
        key: if options.prefix && key.is_empty() { Bytes::from_static(b"\0") } else { key },
        ..DeleteRangeRequest::default()
    };
    let answer: DeleteRangeResponse = call(&options.cluster, "/etcdserverpb.KV/DeleteRange", &request)?;
    if options.cluster.json {
        println!("{}", json!({"deleted": answer.deleted}));
    } else {
        println!("deleted {}", answer.deleted);
    }
    Ok(())
}

pub fn status(options: &Status) -> Done {
    let cluster = &options.cluster;
    let members: Result<MemberListResponse, _> =
        call(cluster, "/etcdserverpb.Cluster/MemberList", &MemberListRequest::default());
    let names: Vec<(u64, String)> =
        members.map(|m| m.members).unwrap_or_default().into_iter().map(|m| (m.id, m.name)).collect();
    let name = |id: u64| {
        let found = names.iter().find(|(member, _)| *member == id);
        found
            .map_or_else(|| if id == 0 { "none".into() } else { format!("{id:x}") }, |(_, name)| name.clone())
    };
    let (mut rows, mut failures) = (Vec::new(), 0);
    for endpoint in &cluster.endpoints {
        let answer: Result<StatusResponse, CallError> = block_on(client::call(
            std::slice::from_ref(endpoint),
            cluster.timeout,
            "/etcdserverpb.Maintenance/Status",
            &StatusRequest::default(),
        ));
        match answer {
            Ok(status) => {
                let header = status.header.unwrap_or_default();
                let role = match status.leader == header.member_id {
                    true => "leader",
                    false if status.is_learner => "learner",
                    false => "follower",
                };
                rows.push(json!({"endpoint": endpoint, "name": name(header.member_id), "role": role,
                    "leader": name(status.leader), "term": status.raft_term, "log": status.raft_index,
                    "applied": status.raft_applied_index, "revision": header.revision}));
            }
            Err(error) => {
                failures += 1;
                let why = match error {
                    CallError::Unreachable(tried) => {
                        tried.into_iter().next().map(|(_, why)| why).unwrap_or_default()
                    }
                    refused => refused.to_string(),
                };
                rows.push(json!({"endpoint": endpoint, "error": why}));
            }
        }
    }
    if cluster.json {
        rows.iter().for_each(|row| println!("{row}"));
    } else {
        print_status(&rows);
    }
    match failures {
        0 => Ok(()),
        _ => Err(Failure::Unreachable(format!("{failures} of {} members did not answer", rows.len()))),
    }
}

fn print_status(rows: &[serde_json::Value]) {
    println!(
        "{:<22} {:<6} {:<9} {:<7} {:>6} {:>10} {:>10} {:>10}",
        "endpoint", "name", "role", "leader", "term", "log", "applied", "revision"
    );
    for row in rows {
        let text = |field: &str| match &row[field] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if row["error"].is_null() {
            println!(
                "{:<22} {:<6} {:<9} {:<7} {:>6} {:>10} {:>10} {:>10}",
                text("endpoint"),
                text("name"),
                text("role"),
                text("leader"),
                text("term"),
                text("log"),
                text("applied"),
                text("revision")
            );
        } else {
            println!("{:<22} does not answer: {}", text("endpoint"), text("error"));
        }
    }
}

fn call<Request: prost::Message, Answer: prost::Message + Default>(
    cluster: &Cluster,
    method: &str,
    request: &Request,
) -> Result<Answer, Failure> {
    block_on(client::call(&cluster.endpoints, cluster.timeout, method, request)).map_err(
        |error| match error {
            // Nobody could be asked, or those who could not serve: no leader, no quorum, out of time.
            CallError::Unreachable(_) | CallError::Refused { code: client::UNAVAILABLE, .. } => {
                Failure::Unreachable(error.to_string())
            }
            CallError::Refused { .. } => Failure::No(error.to_string()),
        },
    )
}

/// The first key after all that begin with `prefix`; etcd's `"\0"`, all keys from there on, when
/// there is none.
fn prefix_end(prefix: &Bytes) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_string_of_its_length_or_shorter() {
        assert_eq!(prefix_end(&Bytes::from_static(b"user/")), Bytes::from_static(b"user0"));
        assert_eq!(prefix_end(&Bytes::from_static(b"a\xFF")), Bytes::from_static(b"b"));
        assert_eq!(prefix_end(&Bytes::from_static(b"\xFF\xFF")), Bytes::from_static(b"\0"));
        assert_eq!(prefix_end(&Bytes::new()), Bytes::from_static(b"\0"));
    }
}
