//! `synod keyspace`: making, showing and dropping keyspaces.

use crate::Done;
use crate::api::{self, segment};
use crate::cli::{Cluster, KeyspaceCommand, KeyspaceCreate, KeyspaceDrop};
use http::Method;
use serde_json::{Value, json};

pub fn run(command: &KeyspaceCommand) -> Done {
    match command {
        KeyspaceCommand::Create(options) => create(options),
        KeyspaceCommand::List(cluster) => list(cluster),
        KeyspaceCommand::Drop(options) => drop_space(options),
    }
}

fn create(options: &KeyspaceCreate) -> Done {
    let path = format!("/v1/keyspaces/{}", segment(&options.name));
    let form = json!({"model": options.model.name()});
    let answer = api::call(&options.cluster, Method::PUT, &path, Some(&form))?;
    match options.cluster.json {
        true => println!("{answer}"),
        false => println!("keyspace {}, {}", text(&answer["name"]), text(&answer["model"])),
    }
    Ok(())
}

fn list(cluster: &Cluster) -> Done {
    let answer = api::call(cluster, Method::GET, "/v1/keyspaces", None)?;
    if cluster.json {
        println!("{answer}");
        return Ok(());
    }
    let all = answer["keyspaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        println!("there is no keyspace: `synod keyspace create` makes one");
    }
    for one in all {
        println!("{:<24} {:<13} {}", text(&one["name"]), text(&one["model"]), one["id"]);
    }
    Ok(())
}

fn drop_space(options: &KeyspaceDrop) -> Done {
    let force = if options.force { "?force=true" } else { "" };
    let path = format!("/v1/keyspaces/{}{force}", segment(&options.name));
    let answer = api::call(&options.cluster, Method::DELETE, &path, None)?;
    match options.cluster.json {
        true => println!("{answer}"),
        false => println!("dropped {}", text(&answer["name"])),
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
