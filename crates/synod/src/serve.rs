//! `synod serve`: one member, configured by flags, environment and file.

use crate::cli::Serve;
use crate::{Done, Failure, asked_to_stop, block_on};
use std::io::Read;
use std::time::Duration;
use synod_server::{Config, Error, MemberAddress, Server};
use tokio::sync::oneshot;
use toml::{Table, Value};

/// How often it is looked whether the member had to end by itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub fn run(options: &Serve) -> Done {
    let config = configuration(options)?;
    let name = config.name.clone();
    let server = Server::start(config).map_err(failure)?;
    eprintln!("{name}: clients at {}, peers at {}", server.client_address(), server.peer_address());
    block_on(async {
        tokio::select! {
            () = asked_to_stop() => {}
            () = leash(options.until_stdin_closes) => {}
            () = end_of(&server) => {}
        }
    });
    server.stop().map_err(failure)
}

/// Resolves when the member has ended by itself.
async fn end_of(server: &Server) {
    while server.is_running() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Resolves when standard input closes, if that matters: whoever holds its other end is gone.
async fn leash(matters: bool) {
    let (tell, told) = oneshot::channel::<()>();
    if !matters {
        return std::future::pending().await;
    }
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(tell);
    });
    let _ = told.await;
}

fn failure(error: Error) -> Failure {
    let text = error.to_string();
    match error {
        Error::Config(_) | Error::Listen { .. } => Failure::Usage(text),
        Error::Fatal(_) | Error::Removed { .. } | Error::System { .. } => Failure::Stopped(text),
        _ => Failure::Storage(text),
    }
}

/// The file's table with the flags (and variables) laid over it, read as a configuration.
fn configuration(options: &Serve) -> Result<Config, Failure> {
    let mut table = match &options.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| Failure::Usage(format!("cannot read {}: {e}", path.display())))?;
            text.parse::<Table>().map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?
        }
        None => Table::new(),
    };
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|p| p.display().to_string());
    let said = [
        ("name", options.name.clone()),
        ("data-dir", path(&options.data_dir)),
        ("listen-clients", options.listen_clients.clone()),
        ("listen-peers", options.listen_peers.clone()),
        ("cluster", options.cluster.clone()),
        ("protocol", options.protocol.clone()),
        ("start", options.start.clone()),
        ("heartbeat", options.heartbeat.clone()),
        ("election-timeout", options.election_timeout.clone()),
        ("flight-recorder", path(&options.flight_recorder)),
        ("segment-size", options.segment_size.clone()),
    ];
    for (key, value) in said {
        if let Some(value) = value {
            table.insert(key.into(), Value::String(value));
        }
    }
    if options.fault_injection {
        table.insert("fault-injection".into(), Value::Boolean(true));
    }
    if options.lease_reads {
        table.insert("lease-reads".into(), Value::Boolean(true));
    }
    if let Some(priority) = options.priority {
        table.insert("priority".into(), Value::Integer(priority.into()));
    }
    let mut config: Config = table.try_into().map_err(|e| Failure::Usage(e.to_string()))?;
    if !options.members.is_empty() {
        let members: Result<Vec<MemberAddress>, String> = options.members.iter().map(|m| m.parse()).collect();
        config.members = members.map_err(Failure::Usage)?;
    }
    if !options.join.is_empty() {
        let join: Result<Vec<MemberAddress>, String> = options.join.iter().map(|m| m.parse()).collect();
        config.join = join.map_err(Failure::Usage)?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flag_wins_over_the_file() {
        let folder = std::env::temp_dir().join(format!("synod-serve-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let file = folder.join("n1.toml");
        let text =
            "name = \"n2\"\nheartbeat = \"70ms\"\nmembers = [{ name = \"n2\", peers = \"127.0.0.1:1\" }]";
        std::fs::write(&file, text).expect("written");
        let options = Serve { config: Some(file), name: Some("n1".into()), ..Serve::default() };
        let config = configuration(&options).expect("a configuration");
        assert_eq!((config.name.as_str(), config.heartbeat), ("n1", Duration::from_millis(70)));
        assert_eq!(config.members[0].name, "n2");
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn an_unknown_option_in_a_file_is_named() {
        let table: Table = "nmae = \"n1\"".parse().expect("TOML");
        let error = table.try_into::<Config>().expect_err("a misspelt option").to_string();
        assert!(error.contains("nmae"), "{error}");
    }
}
