//! What to measure, and the checks that a run makes before it starts.

use std::time::Duration;

use serde::Serialize;

use crate::Error;

/// Connections at most; each is a file descriptor.
pub const CLIENTS_MAX: usize = 10_000;
/// Calls under way at most, over all connections.
pub const OUTSTANDING_MAX: usize = 1_000_000;
/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4096;
/// The longest value, in bytes: etcd refuses requests above 1.5 MiB unless told otherwise.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// How often each operation is drawn, in proportion to the sum of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mix {
    /// Puts.
    pub put: u32,
    /// Linearizable gets.
    pub get: u32,
    /// Gets answered from the asked member's own state.
    pub serializable_get: u32,
}

impl Default for Mix {
    /// Puts alone.
    fn default() -> Self {
        Self { put: 1, get: 0, serializable_get: 0 }
    }
}

/// When a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// After this much time, not counting the warm-up.
    Time(Duration),
    /// After this many calls came to their end, well or badly, not counting the warm-up.
    Operations(u64),
}

/// One run of the generator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Options {
    /// `host:port` of each member's client port; a leading `http://` is ignored. The connections are
    /// dealt out over them in turn.
    pub endpoints: Vec<String>,
    /// Connections, from 1 to [`CLIENTS_MAX`].
    pub clients: usize,
    /// Calls that each connection keeps under way, from 1; at most [`OUTSTANDING_MAX`] over all.
    pub outstanding_per_connection: usize,
    /// Length of a key: a decimal number with leading zeros. From 1 to [`KEY_BYTES_MAX`].
    pub key_bytes: usize,
    /// Length of a value, of incompressible bytes. From 0 to [`VALUE_BYTES_MAX`].
    pub value_bytes: usize,
    /// How many different keys there are; each call draws one, all alike.
    pub key_space: u64,
    /// What the calls do.
    pub mix: Mix,
    /// When the run is over.
    pub limit: Limit,
    /// How long calls run before anything is counted.
    pub warmup: Duration,
    /// How long a call may take before it is given up, from 1 ms. A connection that is silent for as long, or
    /// on which nothing but failures came for as long, is abandoned for the next endpoint.
    pub timeout: Duration,
    /// Draws keys, values and the mix.
    pub seed: u64,
    /// Processes whose processor time is charged to the run: the members, when they run on this machine.
    pub server_pids: Vec<u32>,
}

impl Default for Options {
    /// One client that puts 256 bytes under one of 100,000 keys of 8 bytes, for ten seconds after one of warm-up.
    /// Endpoints have no default.
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            clients: 1,
            outstanding_per_connection: 1,
            key_bytes: 8,
            value_bytes: 256,
            key_space: 100_000,
            mix: Mix::default(),
            limit: Limit::Time(Duration::from_secs(10)),
            warmup: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
            seed: 1,
            server_pids: Vec::new(),
        }
    }
}

/// A load: how many connections, and how much each has under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Connections.
    pub clients: usize,
    /// Calls under way on each.
    pub outstanding_per_connection: usize,
}

/// The loads that Synod's figures are given for: a lone client, which sees latency alone; 64 and 256
/// clients with one call each; and 1,024 calls over 64 connections, which sees throughput.
#[must_use]
pub fn standard_rows() -> [Row; 4] {
    let row = |clients, outstanding_per_connection| Row { clients, outstanding_per_connection };
    [row(1, 1), row(64, 1), row(256, 1), row(64, 16)]
}

impl Options {
    /// The same run under another load.
    #[must_use]
    pub fn with_row(&self, row: Row) -> Self {
        Self {
            clients: row.clients,
            outstanding_per_connection: row.outstanding_per_connection,
            ..self.clone()
        }
    }

    /// Checks every option without touching the network.
    ///
    /// # Errors
    /// [`Error::BadOption`], naming the option and what it may be.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |option, problem: String| Err(Error::BadOption { option, problem });
        if self.endpoints.is_empty() {
            return bad("endpoints", "none given: name at least one, as in 127.0.0.1:2379".into());
        }
        if let Some(endpoint) = self.endpoints.iter().find(|endpoint| endpoint.starts_with("https://")) {
            return bad("endpoints", format!("{endpoint}: TLS is not spoken here, use a plain-text port"));
        }
        if !(1..=CLIENTS_MAX).contains(&self.clients) {
            return bad("clients", format!("{} is not from 1 to {CLIENTS_MAX}", self.clients));
        }
        let outstanding = self.clients.saturating_mul(self.outstanding_per_connection);
        if !(1..=OUTSTANDING_MAX).contains(&outstanding) {
            let each = self.outstanding_per_connection;
            return bad(
                "outstanding_per_connection",
                format!("{each} on each of {} connections is not from 1 to {OUTSTANDING_MAX}", self.clients),
            );
        }
        if !(1..=KEY_BYTES_MAX).contains(&self.key_bytes) {
            return bad("key_bytes", format!("{} is not from 1 to {KEY_BYTES_MAX}", self.key_bytes));
        }
        if self.value_bytes > VALUE_BYTES_MAX {
            return bad("value_bytes", format!("{} is above {VALUE_BYTES_MAX}", self.value_bytes));
        }
        if self.key_space == 0 {
            return bad("key_space", "no keys to choose from: give at least 1".into());
        }
        let digits = (self.key_space - 1).checked_ilog10().unwrap_or(0) as usize + 1;
        if digits > self.key_bytes {
            return bad(
                "key_space",
                format!("{} keys need {digits} digits, but key_bytes is {}", self.key_space, self.key_bytes),
            );
        }
        if self.mix == (Mix { put: 0, get: 0, serializable_get: 0 }) {
            return bad("mix", "every operation has weight 0: give at least one of them more".into());
        }
        if matches!(self.limit, Limit::Time(Duration::ZERO) | Limit::Operations(0)) {
            return bad("limit", "nothing to measure: give a duration or a number of operations".into());
        }
        if self.timeout < Duration::from_millis(1) {
            return bad("timeout", "below 1 ms no call could finish".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut Options)) -> String {
        let mut options = Options { endpoints: vec!["127.0.0.1:2379".into()], ..Options::default() };
        options.check().expect("the defaults are good");
        change(&mut options);
        options.check().expect_err("this option is bad").to_string()
    }

    #[test]
    fn each_bad_option_is_named_with_its_remedy() {
        let cases = [
            (problem(|options| options.endpoints.clear()), "endpoints: none given"),
            (problem(|options| options.endpoints = vec!["https://a:1".into()]), "TLS is not spoken"),
            (problem(|options| options.clients = 0), "clients: 0 is not from 1"),
            (
                problem(|options| options.outstanding_per_connection = 0),
                "outstanding_per_connection: 0 on each",
            ),
            (problem(|options| options.outstanding_per_connection = usize::MAX), "is not from 1 to 1000000"),
            (problem(|options| options.key_bytes = 0), "key_bytes: 0"),
            (problem(|options| options.value_bytes = VALUE_BYTES_MAX + 1), "value_bytes"),
            (problem(|options| options.key_space = 0), "key_space: no keys"),
            (problem(|options| options.key_bytes = 4), "100000 keys need 5 digits, but key_bytes is 4"),
            (problem(|options| options.mix.put = 0), "mix: every operation has weight 0"),
            (problem(|options| options.limit = Limit::Operations(0)), "limit: nothing to measure"),
            (problem(|options| options.timeout = Duration::ZERO), "timeout: below 1 ms"),
        ];
        for (said, expected) in cases {
            assert!(said.contains(expected), "{said:?} does not say {expected:?}");
        }
    }

    #[test]
    fn as_many_keys_as_digits_allow_are_accepted() {
        let options =
            Options { endpoints: vec!["a:1".into()], key_bytes: 2, key_space: 100, ..Options::default() };
        options.check().expect("00 to 99 are a hundred keys");
    }

    #[test]
    fn the_last_standard_row_has_1024_calls_under_way() {
        let rows = standard_rows();
        assert_eq!(rows[3].clients * rows[3].outstanding_per_connection, 1024);
    }
}
