//! `synod serve`: one member, configured by flags, environment and file.

use crate::cli::Serve;
use crate::{Done, Failure, asked_to_stop};
use synod_server::{Config, MemberAddress};
use toml::{Table, Value};

pub fn run(options: &Serve) -> Done {
    let config = configuration(options)?;
    config.validate().map_err(|problems| Failure::Usage(problems.join("\n  ")))?;
    let _ = (config, asked_to_stop);
    Ok(())
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
    ];
    for (key, value) in said {
        if let Some(value) = value {
            table.insert(key.into(), Value::String(value));
        }
    }
    if options.fault_injection {
        table.insert("fault-injection".into(), Value::Boolean(true));
    }
    let mut config: Config = table.try_into().map_err(|e| Failure::Usage(e.to_string()))?;
    if !options.members.is_empty() {
        let members: Result<Vec<MemberAddress>, String> = options.members.iter().map(|m| m.parse()).collect();
        config.members = members.map_err(Failure::Usage)?;
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
        let text = "name = \"n2\"\nheartbeat = \"70ms\"\nmembers = [{ name = \"n2\", peers = \"127.0.0.1:1\" }]";
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
        let error = TryInto::<Config>::try_into(table).expect_err("a misspelt option").to_string();
        assert!(error.contains("nmae"), "{error}");
    }
}
