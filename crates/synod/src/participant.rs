//! `synod participant`: systems outside the cluster that take part in its transactions and sagas.

use crate::api::{self, segment};
use crate::cli::{Cluster, ParticipantAdd, ParticipantCommand, ParticipantName};
use crate::{Done, Failure};
use http::Method;
use serde_json::{Value, json};

/// Bytes of a password at the most.
const PASSWORD_BYTES_MAX: usize = 1024;

pub fn run(command: &ParticipantCommand) -> Done {
    match command {
        ParticipantCommand::Add(options) => add(options),
        ParticipantCommand::List(cluster) => list(cluster),
        ParticipantCommand::Remove(options) => remove(options),
    }
}

fn add(options: &ParticipantAdd) -> Done {
    let form = form(options).map_err(Failure::Usage)?;
    let path = format!("/v1/participants/{}", segment(&options.name));
    let answer = api::call(&options.cluster, Method::PUT, &path, Some(&form))?;
    match options.cluster.json {
        true => println!("{answer}"),
        false => println!("{} takes part: {}", options.name, described(&answer)),
    }
    Ok(())
}

fn list(cluster: &Cluster) -> Done {
    let answer = api::call(cluster, Method::GET, "/v1/participants", None)?;
    if cluster.json {
        println!("{answer}");
        return Ok(());
    }
    let all = answer["participants"].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        println!("no system outside is known: `synod participant add` makes one known");
    }
    for one in all {
        println!("{:<16} {}", one["name"].as_str().unwrap_or("?"), described(one));
    }
    Ok(())
}

fn remove(options: &ParticipantName) -> Done {
    let path = format!("/v1/participants/{}", segment(&options.name));
    let answer = api::call(&options.cluster, Method::DELETE, &path, None)?;
    match options.cluster.json {
        true => println!("{answer}"),
        false => println!("{} is forgotten", options.name),
    }
    Ok(())
}

/// What the API is told. Errors: one line for the person who said it.
fn form(options: &ParticipantAdd) -> Result<Value, String> {
    let password = password(options)?;
    if let Some(url) = &options.postgres {
        return Ok(json!({"kind": "postgres", "url": with_password(url, password.as_deref())?}));
    }
    if let Some(url) = &options.http {
        return Ok(json!({"kind": "http", "url": with_password(url, password.as_deref())?}));
    }
    if password.is_some() {
        return Err(
            "another cluster asks for no password: leave --password-env and --password-file out".into()
        );
    }
    let endpoints = options.other.iter().map(|endpoint| match endpoint.contains("://") {
        true => endpoint.clone(),
        false => format!("http://{endpoint}"),
    });
    Ok(json!({"kind": "cluster", "endpoints": endpoints.collect::<Vec<_>>(), "keyspace": options.keyspace}))
}

fn password(options: &ParticipantAdd) -> Result<Option<String>, String> {
    let (text, from) = match (&options.password_env, &options.password_file) {
        (Some(name), _) => {
            let text = std::env::var(name)
                .map_err(|_| format!("--password-env: there is no variable {name}, or it is not UTF-8"))?;
            (text, name.clone())
        }
        (None, Some(path)) => {
            let from = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("--password-file: cannot read {from}: {error}"))?;
            (text.lines().next().unwrap_or_default().to_owned(), from)
        }
        (None, None) => return Ok(None),
    };
    match text.len() {
        0 => Err(format!("{from} holds no password: it is empty")),
        1..=PASSWORD_BYTES_MAX => Ok(Some(text)),
        _ => Err(format!("the password in {from} is longer than {PASSWORD_BYTES_MAX} bytes")),
    }
}

/// `scheme://user@host/...` with the password behind the user. Errors never repeat the URL, which may hold a secret.
fn with_password(url: &str, password: Option<&str>) -> Result<String, String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("the address has no scheme: write it as in postgres://USER@HOST/DATABASE".into());
    };
    let Some(password) = password else { return Ok(url.to_owned()) };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        None => {
            Err("a password needs its user: write the address as in postgres://USER@HOST/DATABASE".into())
        }
        Some((user, _)) if user.contains(':') => {
            Err("there is a password in the address and another one beside it: leave one of them out".into())
        }
        Some((user, host)) => Ok(format!("{scheme}://{user}:{}@{host}{path}", segment(password))),
    }
}

/// A participant in one line. The cluster leaves passwords out; whatever it sends, none is shown.
fn described(one: &Value) -> String {
    let text = |field: &str| one[field].as_str().unwrap_or_default();
    match text("kind") {
        "cluster" => {
            let endpoints = one["endpoints"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let endpoints: Vec<_> = endpoints.map(|e| e.trim_start_matches("http://")).collect();
            format!("keyspace {} of the cluster at {}", text("keyspace"), endpoints.join(", "))
        }
        "postgres" => format!("PostgreSQL at {}", without_password(text("url"))),
        "http" => format!("a service at {}, for sagas", without_password(text("url"))),
        other => format!("of a kind that this program does not know: {other}"),
    }
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "an address".into() };
    // A query may hold a password too.
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            format!("{scheme}://{}@{host}{path}", user.split(':').next().unwrap_or_default())
        }
        None => format!("{scheme}://{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_behind_its_user_and_is_encoded() {
        let url = with_password("postgres://synod@127.0.0.1:5432/ledger?x=1", Some("p@ss/:word"));
        assert_eq!(url.expect("well"), "postgres://synod:p%40ss%2F%3Aword@127.0.0.1:5432/ledger?x=1");
        assert_eq!(with_password("http://h/p", None).expect("well"), "http://h/p");
    }

    #[test]
    fn an_address_that_cannot_take_a_password_is_refused_without_being_repeated() {
        for url in ["postgres://u:secret@h/d", "secret-host/d", "postgres://host/d"] {
            let error = with_password(url, Some("hush")).expect_err(url);
            assert!(
                !error.contains("secret") && !error.contains("hush") && !error.contains("//host"),
                "{error}"
            );
        }
    }

    #[test]
    fn no_password_is_ever_shown() {
        let shown = described(
            &json!({"kind": "postgres", "url": "postgres://synod:secret@h:5432/d?password=secret"}),
        );
        assert_eq!(shown, "PostgreSQL at postgres://synod@h:5432/d");
        let shown = described(
            &json!({"kind": "cluster", "endpoints": ["http://h:1", "http://h:2"], "keyspace": "b"}),
        );
        assert_eq!(shown, "keyspace b of the cluster at h:1, h:2");
    }
}
