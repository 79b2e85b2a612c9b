//! `synod put`, `get` and `del` with `--keyspace`: keys of keyspaces, over the members' API.

use crate::api::{Session, segment};
use crate::cli::{Cluster, Del, Get, InKeyspace, Kind, Put};
use crate::session_file::{self, Place};
use crate::{Done, Failure, block_on};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

/// Keys that one answer of a list brings.
const PAGE: i64 = 1_000;

pub fn put(options: &Put, keyspace: &str) -> Done {
    let body = written(options).map_err(Failure::Usage)?;
    let path = format!("/v1/keyspaces/{}/keys/{}", segment(keyspace), segment(&options.key));
    let mut asking = Asking::of(&options.place, &options.cluster)?;
    let answer = block_on(asking.ask(Method::PUT, &path, &[], Some(&body)))?;
    match options.cluster.json {
        true => println!("{answer}"),
        false => println!("{keyspace}/{} is written", options.key),
    }
    Ok(())
}

/// What a put sends.
fn written(options: &Put) -> Result<Value, String> {
    let kind = options.place.kind.unwrap_or(Kind::Register);
    let mut body = match kind {
        Kind::Register => json!({"value": options.value}),
        Kind::Siblings => json!({"kind": "siblings", "value": options.value}),
        Kind::Counter => {
            let add: i64 = options
                .value
                .parse()
                .map_err(|_| format!("a counter adds a whole number, and `{}` is none", options.value))?;
            json!({"kind": "counter", "add": add})
        }
        Kind::Set if options.remove => json!({"kind": "set", "remove": [options.value]}),
        Kind::Set => json!({"kind": "set", "insert": [options.value]}),
    };
    if options.remove && kind != Kind::Set {
        return Err("--remove takes an element out of a set: say --kind set, or use `synod del`".into());
    }
    if let Some(context) = &options.place.context {
        body["context"] = context.as_str().into();
    }
    match &options.condition {
        Some(value) => body["if"] = json!({"value": value}),
        None if options.if_absent => body["if"] = json!({"value": null}),
        None => {}
    }
    Ok(body)
}

pub fn get(options: &Get, keyspace: &str) -> Done {
    let mut asking = Asking::of(&options.place, &options.cluster)?;
    let kind = options.place.kind.map(|kind| ("kind", kind.name().to_owned()));
    if options.prefix {
        return block_on(list(options, keyspace, &mut asking, kind));
    }
    let path = format!("/v1/keyspaces/{}/keys/{}", segment(keyspace), segment(&options.key));
    let answer = block_on(asking.ask(Method::GET, &path, kind.as_slice(), None))?;
    if options.cluster.json {
        println!("{answer}");
    } else {
        held(&answer).iter().for_each(|line| println!("{line}"));
    }
    match held(&answer).is_empty() {
        true => Err(Failure::No(format!("there is no key `{}` in {keyspace}", options.key))),
        false => Ok(()),
    }
}

/// All keys with a prefix, page by page.
async fn list(
    options: &Get,
    keyspace: &str,
    asking: &mut Asking,
    kind: Option<(&'static str, String)>,
) -> Done {
    let path = format!("/v1/keyspaces/{}/keys", segment(keyspace));
    let mut left = if options.limit > 0 { options.limit } else { i64::MAX };
    let mut next: Option<String> = None;
    while left > 0 {
        let mut query = vec![("prefix", options.key.clone()), ("limit", left.min(PAGE).to_string())];
        query.extend(kind.clone());
        query.extend(next.take().map(|next| ("after", next)));
        let answer = asking.ask(Method::GET, &path, &query, None).await?;
        let keys = answer["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        for entry in keys {
            match options.cluster.json {
                true => println!("{entry}"),
                false => println!("{} = {}", shown(&entry["key"]), held(entry).join(", ")),
            }
        }
        left -= keys.len() as i64;
        match answer["next"].as_str() {
            Some(more) if !keys.is_empty() => next = Some(more.to_owned()),
            _ => break,
        }
    }
    Ok(())
}

pub fn del(options: &Del, keyspace: &str) -> Done {
    let path = format!("/v1/keyspaces/{}/keys/{}", segment(keyspace), segment(&options.key));
    let mut query: Vec<(&str, String)> = Vec::new();
    query.extend(options.place.kind.map(|kind| ("kind", kind.name().to_owned())));
    query.extend(options.place.context.clone().map(|context| ("context", context)));
    let mut asking = Asking::of(&options.place, &options.cluster)?;
    let answer = block_on(asking.ask(Method::DELETE, &path, &query, None))?;
    match options.cluster.json {
        true => println!("{answer}"),
        false => println!("{keyspace}/{} is deleted", options.key),
    }
    Ok(())
}

/// What a key holds, as lines; none if it holds nothing.
fn held(entry: &Value) -> Vec<String> {
    let many = entry["values"].as_array().or_else(|| entry["elements"].as_array());
    match (many, &entry["value"]) {
        (Some(many), _) => many.iter().map(shown).collect(),
        (None, Value::Null) => Vec::new(),
        (None, value) => vec![shown(value)],
    }
}

/// A text as it is; bytes that are none as well as may be.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(object) => {
            let bytes =
                object.get("base64").and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
            String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
        }
        other => other.to_string(),
    }
}

/// Requests of one command, in its session if it belongs to one.
struct Asking {
    session: Session,
    place: Option<Place>,
    consistency: Option<&'static str>,
}

impl Asking {
    fn of(place: &InKeyspace, cluster: &Cluster) -> Result<Asking, Failure> {
        let opened = place.session.as_deref().map(session_file::open).transpose()?;
        let (kept, token) = opened.map_or((None, None), |(kept, token)| (Some(kept), token));
        let mut session = Session::new(&cluster.endpoints, 0, cluster.timeout);
        session.show(token);
        Ok(Asking { session, place: kept, consistency: place.consistency.map(|level| level.name()) })
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let level = self.consistency.map(|level| ("consistency", level.to_owned()));
        let pairs: Vec<String> =
            query.iter().chain(&level).map(|(name, value)| format!("{name}={}", segment(value))).collect();
        let target = if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) };
        let answer = self.session.call(method, &target, body).await?;
        if let (Some(place), Some(token)) = (&self.place, answer["session"].as_str()) {
            session_file::keep(place, token)?;
            self.session.show(Some(token.to_owned()));
        }
        Ok(answer)
    }
}
