//! What a member is told when it starts, and the checks it makes before it touches anything.

use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::fmt;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use synod_node::{Bootstrap, ClusterId};
use synod_protocols::NodeId;
use synod_protocols::catalogue::{REPLICATED_LOGS, replicated_log};

/// Members at most: votes and progress are counted in small sets.
pub const MEMBERS_MAX: usize = 31;
/// The longest cluster name, in bytes.
pub const CLUSTER_NAME_BYTES_MAX: usize = 128;
/// The largest request that may be configured: a peer frame has to carry it.
pub const REQUEST_BYTES_MAX_MAX: usize = 16 << 20;
/// The protocols that a member can run.
pub const PROTOCOLS: &[&str] = REPLICATED_LOGS;

/// One member of the cluster, as the others know it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MemberAddress {
    /// Its name: `n` and its number, from 1, as in `n1`. The number is its identity for ever.
    pub name: String,
    /// Where its peers reach it, `host:port`.
    pub peers: String,
    /// Where clients reach it, `host:port`; shown to clients that ask who the members are.
    #[serde(default)]
    pub clients: Option<String>,
}

impl FromStr for MemberAddress {
    type Err = String;

    /// Reads `n1=host:port` or `n1=host:port,host:port`: name, address for peers, address for clients.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            format!(
                "`{text}` does not name a member: write n1=PEER-ADDRESS or n1=PEER-ADDRESS,CLIENT-ADDRESS"
            )
        };
        let (name, addresses) = text.split_once('=').ok_or_else(form)?;
        let mut addresses = addresses.split(',').map(str::trim);
        let peers = addresses.next().filter(|address| !address.is_empty()).ok_or_else(form)?.to_owned();
        let clients = addresses.next().map(str::to_owned);
        if addresses.next().is_some() {
            return Err(form());
        }
        Ok(MemberAddress { name: name.trim().to_owned(), peers, clients })
    }
}

/// What an empty data directory means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// The member founds the cluster together with the others. A directory that holds data is
    /// simply resumed.
    #[default]
    New,
    /// The member has lived before: an empty directory is a lost disk, and is refused.
    Existing,
}

/// A member's configuration. Every field but `members` has a default; [`Config::validate`] says
/// what does not fit.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// The cluster's name. Members and data of clusters with different names never mix. Default `synod`.
    pub cluster: String,
    /// This member's name, one of `members`. Default `n1`.
    pub name: String,
    /// The founding members, the same list on all members for ever, whoever joins or leaves later.
    pub members: Vec<MemberAddress>,
    /// Members that joined later, as far as they are known when this one starts: this one itself if
    /// it joins, and at the least those which it must be able to reach at first. Default none.
    pub join: Vec<MemberAddress>,
    /// The directory that holds this member's log and state. Default `synod.data`.
    pub data_dir: PathBuf,
    /// The consensus protocol, one of [`PROTOCOLS`]. Default `raft`.
    pub protocol: String,
    /// What an empty data directory means. Default `new`.
    pub start: Start,
    /// Where to listen for clients, `host:port`. Default: this member's own `clients` address in
    /// `members`, or else `127.0.0.1:2379`.
    pub listen_clients: Option<String>,
    /// Where to listen for peers, `host:port`. Default: this member's own `peers` address in `members`.
    pub listen_peers: Option<String>,
    /// How often an idle leader speaks. Default 50 ms.
    #[serde(deserialize_with = "duration")]
    pub heartbeat: Duration,
    /// How long a member waits for its leader at the least; each wait is drawn between this and
    /// twice this. Default 200 ms, at least three heartbeats.
    #[serde(deserialize_with = "duration")]
    pub election_timeout: Duration,
    /// How long a client's request may take before it is refused as timed out. Default 5 s.
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Duration,
    /// The largest request, in bytes. Default 1.5 MiB, as in etcd; at most [`REQUEST_BYTES_MAX_MAX`].
    #[serde(deserialize_with = "size")]
    pub request_size_max: u64,
    /// The most operations in each list of a transaction. Default 128, as in etcd.
    pub txn_ops_max: usize,
    /// Requests waiting at the most; at the bound clients are told to slow down. Default 65,536.
    pub requests_max: usize,
    /// Bytes of waiting commands at the most; at the bound clients are told to slow down. Default 64 MiB.
    #[serde(deserialize_with = "size")]
    pub request_buffer: u64,
    /// Client connections at the most; more are closed at once. Default 10,000.
    pub client_connections_max: usize,
    /// Calls under way on one client connection at the most. Default 4,096.
    pub client_streams_max: u32,
    /// The size of one segment of the log. Default 16 MiB.
    #[serde(deserialize_with = "size")]
    pub segment_size: u64,
    /// Memory for cached blocks of the state. Default 32 MiB.
    #[serde(deserialize_with = "size")]
    pub state_cache: u64,
    /// Whether `POST /fault` may cut and delay this member's links. Never in production. Default no.
    pub fault_injection: bool,
    /// A file to which this member's inputs are recorded, for `synod replay`. Default none.
    pub flight_recorder: Option<PathBuf>,
    /// Where the recording ends, in bytes. Default 256 MiB.
    #[serde(deserialize_with = "size")]
    pub flight_recorder_size_max: u64,
    /// How ready this member is to lead: of those that could, one with a higher number goes first, and
    /// one with 0 leads only if nobody else does. Default 1.
    pub priority: u8,
    /// Whether the leader may answer reads by itself, which relies on the members' clocks running at
    /// nearly the same rate. The same on all members. Default no.
    pub lease_reads: bool,
    /// The seed of this life's randomness. Default: drawn from the operating system.
    pub seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            cluster: "synod".to_owned(),
            name: "n1".to_owned(),
            members: Vec::new(),
            join: Vec::new(),
            data_dir: PathBuf::from("synod.data"),
            protocol: "raft".to_owned(),
            start: Start::New,
            listen_clients: None,
            listen_peers: None,
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(200),
            request_timeout: Duration::from_secs(5),
            request_size_max: 1536 << 10,
            txn_ops_max: 128,
            requests_max: 65_536,
            request_buffer: 64 << 20,
            client_connections_max: 10_000,
            client_streams_max: 4_096,
            segment_size: 16 << 20,
            state_cache: 32 << 20,
            fault_injection: false,
            flight_recorder: None,
            flight_recorder_size_max: 256 << 20,
            priority: 1,
            lease_reads: false,
            seed: None,
        }
    }
}

impl Config {
    /// Checks everything that can be checked without touching disk or network, beyond looking up
    /// host names.
    ///
    /// # Errors
    /// One line for each problem, naming the option and what it may be.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        self.check_cluster(&mut problems);
        self.check_members(&mut problems);
        self.check_times(&mut problems);
        self.check_sizes(&mut problems);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn check_cluster(&self, problems: &mut Vec<String>) {
        if self.cluster.is_empty()
            || self.cluster.len() > CLUSTER_NAME_BYTES_MAX
            || has_control(&self.cluster)
        {
            problems.push(format!(
                "cluster: {:?} is no name: use 1 to {CLUSTER_NAME_BYTES_MAX} bytes of printable text",
                self.cluster
            ));
        }
        if replicated_log(&self.protocol).is_none() {
            problems.push(format!(
                "protocol: {:?} is not known here: use one of {}",
                self.protocol,
                PROTOCOLS.join(", ")
            ));
        }
        if self.data_dir.as_os_str().is_empty() {
            problems.push("data-dir: is empty: name a directory for this member alone".to_owned());
        }
    }

    fn check_members(&self, problems: &mut Vec<String>) {
        if self.members.is_empty() {
            problems.push(
                "members: is empty: list every member, this one included, as in n1=127.0.0.1:2380".to_owned(),
            );
            return;
        }
        if self.members.len() > MEMBERS_MAX {
            problems.push(format!("members: {} are more than {MEMBERS_MAX}", self.members.len()));
        }
        if self.members.len() == 2 && replicated_log(&self.protocol) == Some("viewstamped") {
            problems.push(
                "members: viewstamped replication needs 2f + 1 replicas to survive the loss of f, and two survive \
                 none: found it with one or three"
                    .to_owned(),
            );
        }
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for member in self.members.iter().chain(&self.join) {
            if let Err(problem) = parse_name(&member.name) {
                problems.push(format!("members: {problem}"));
            }
            if !names.insert(&member.name) {
                problems.push(format!("members: {} is listed twice", member.name));
            }
            for address in [Some(&member.peers), member.clients.as_ref()].into_iter().flatten() {
                check_address(&format!("members: {}", member.name), address, problems);
                if !addresses.insert(address) {
                    problems.push(format!("members: the address {address} is listed twice"));
                }
            }
        }
        let founders = self.ids();
        for member in &self.join {
            if let (Ok(id), Some(last)) = (parse_name(&member.name), founders.last())
                && id <= *last
            {
                problems.push(format!(
                    "join: {} is not above the founding members: a new member gets a new number, as `synod member add` \
                     says",
                    member.name
                ));
            }
        }
        if !names.contains(&self.name) {
            let known: Vec<&str> =
                self.members.iter().chain(&self.join).map(|member| member.name.as_str()).collect();
            problems.push(format!(
                "name: {:?} is not among the members {}: add a founding member to `members`, one that joins to `join`, \
                 or correct it",
                self.name,
                known.join(", ")
            ));
        }
        for (option, address) in
            [("listen-clients", &self.listen_clients), ("listen-peers", &self.listen_peers)]
        {
            if let Some(address) = address {
                check_address(option, address, problems);
            }
        }
    }

    fn check_times(&self, problems: &mut Vec<String>) {
        if self.heartbeat < Duration::from_millis(1) {
            problems.push("heartbeat: below 1 ms a member would do nothing else".to_owned());
        }
        if self.election_timeout < self.heartbeat * 3 {
            problems.push(format!(
                "election-timeout: {:?} is less than three heartbeats of {:?}: one late heartbeat would cost the \
                 leader its office",
                self.election_timeout, self.heartbeat
            ));
        }
        if self.election_timeout > Duration::from_secs(60) {
            problems.push(format!("election-timeout: {:?} is above 60 s", self.election_timeout));
        }
        if self.request_timeout < self.election_timeout {
            problems.push(format!(
                "request-timeout: {:?} is less than the election timeout of {:?}: every election would fail requests",
                self.request_timeout, self.election_timeout
            ));
        }
    }

    fn check_sizes(&self, problems: &mut Vec<String>) {
        let mut within = |option: &str, value: u64, min: u64, max: u64| {
            if !(min..=max).contains(&value) {
                problems.push(format!("{option}: {value} is not from {min} to {max}"));
            }
        };
        within("request-size-max", self.request_size_max, 1 << 10, REQUEST_BYTES_MAX_MAX as u64);
        within("txn-ops-max", self.txn_ops_max as u64, 1, 1 << 16);
        within("requests-max", self.requests_max as u64, 1, 1 << 24);
        within(
            "request-buffer",
            self.request_buffer,
            self.request_size_max.min(REQUEST_BYTES_MAX_MAX as u64),
            1 << 34,
        );
        within("client-connections-max", self.client_connections_max as u64, 1, 1 << 20);
        within("client-streams-max", u64::from(self.client_streams_max), 1, 1 << 20);
        within("segment-size", self.segment_size, 64 << 10, 1 << 30);
        within("state-cache", self.state_cache, 1 << 20, 1 << 36);
        within("flight-recorder-size-max", self.flight_recorder_size_max, 1 << 16, u64::MAX);
    }

    /// This member's identity. The configuration has been validated.
    pub fn id(&self) -> NodeId {
        parse_name(&self.name).unwrap_or_default()
    }

    /// The founding members, in the order of their numbers.
    pub fn ids(&self) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> =
            self.members.iter().filter_map(|member| parse_name(&member.name).ok()).collect();
        ids.sort_unstable();
        ids
    }

    /// The cluster's identity: a hash of its name (FNV-1a, 64 bits), the same on every member.
    pub fn cluster_id(&self) -> ClusterId {
        let hash = self.cluster.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        ClusterId(hash)
    }

    /// Where to listen for clients.
    pub fn client_address(&self) -> &str {
        self.listen_clients.as_deref().or_else(|| self.me()?.clients.as_deref()).unwrap_or("127.0.0.1:2379")
    }

    /// Where to listen for peers.
    pub fn peer_address(&self) -> &str {
        self.listen_peers.as_deref().or_else(|| Some(self.me()?.peers.as_str())).unwrap_or("127.0.0.1:2380")
    }

    pub(crate) fn bootstrap(&self, has_lived: bool) -> Bootstrap {
        if has_lived || self.start == Start::Existing {
            Bootstrap::Existing
        } else if self.joins() {
            Bootstrap::Join
        } else {
            Bootstrap::Found
        }
    }

    /// Whether this member joins a cluster that others founded.
    pub(crate) fn joins(&self) -> bool {
        self.join.iter().any(|member| member.name == self.name)
    }

    /// The members whose addresses the configuration tells.
    pub(crate) fn known(&self) -> impl Iterator<Item = &MemberAddress> {
        self.members.iter().chain(&self.join)
    }

    fn me(&self) -> Option<&MemberAddress> {
        self.known().find(|member| member.name == self.name)
    }
}

/// The number in a member's name.
pub(crate) fn parse_name(name: &str) -> Result<NodeId, String> {
    name.strip_prefix('n')
        .filter(|digits| !digits.starts_with(['0', '+']))
        .and_then(|digits| digits.parse::<u32>().ok())
        .map(|number| NodeId(u64::from(number)))
        .ok_or_else(|| format!("{name:?} is no member's name: use n and a number from 1, as in n1"))
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn check_address(what: &str, address: &str, problems: &mut Vec<String>) {
    let well_formed =
        address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !well_formed {
        problems.push(format!("{what}: {address:?} is no address: write host:port, as in 127.0.0.1:2380"));
    } else if let Err(error) = address.to_socket_addrs() {
        problems.push(format!("{what}: {address:?} cannot be looked up ({error}): correct the host name"));
    }
}

/// Reads a duration: a number and `ns`, `us`, `ms`, `s`, `m` or `h`, as in `200ms` or `1.5s`.
///
/// # Errors
/// What it may be instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 6] =
        [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, unit) = split_unit(text);
    UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .and_then(|(_, factor)| Duration::try_from_secs_f64(number? * factor).ok())
        .ok_or_else(|| format!("{text:?} is no duration: write a number and a unit, as in 200ms or 5s"))
}

/// Reads a size in bytes: a number, alone or with `B`, `KiB`, `MiB`, `GiB`, `kB`, `MB` or `GB`, as in `64MiB`.
///
/// # Errors
/// What it may be instead.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let (number, unit) = split_unit(text);
    UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .zip(number)
        .map(|((_, factor), number)| number * *factor as f64)
        .filter(|bytes| *bytes >= 0.0 && *bytes < u64::MAX as f64)
        .map(|bytes| bytes as u64)
        .ok_or_else(|| format!("{text:?} is no size: write a number and a unit, as in 64MiB"))
}

fn split_unit(text: &str) -> (Option<f64>, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (text[..end].parse().ok(), text[end..].trim())
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Size;
    impl serde::de::Visitor<'_> for Size {
        type Value = u64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a size, as in \"64MiB\" or a number of bytes")
        }
        fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<u64, E> {
            Ok(bytes)
        }
        fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<u64, E> {
            u64::try_from(bytes).map_err(|_| E::custom(format!("{bytes} is no size")))
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
            parse_size(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_any(Size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Config {
        let members = ["n1=127.0.0.1:1", "n2=127.0.0.1:2", "n3=127.0.0.1:3,127.0.0.1:4"];
        Config {
            members: members.iter().map(|m| m.parse().expect("a member")).collect(),
            ..Config::default()
        }
    }

    fn problem(change: impl FnOnce(&mut Config)) -> String {
        let mut config = three();
        assert_eq!(config.validate(), Ok(()));
        change(&mut config);
        let problems = config.validate().expect_err("this does not fit");
        assert_eq!(problems.len(), 1, "one line for one problem: {problems:?}");
        problems[0].clone()
    }

    #[test]
    fn each_problem_is_one_line_that_names_its_option_and_remedy() {
        let cases = [
            (problem(|c| c.cluster.clear()), "cluster: \"\" is no name"),
            (
                problem(|c| c.protocol = "gossip".into()),
                "protocol: \"gossip\" is not known here: use one of raft, multi-paxos, zab, viewstamped",
            ),
            (problem(|c| c.members.clear()), "members: is empty: list every member"),
            (
                problem(|c| {
                    c.protocol = "vr".into();
                    c.members.truncate(2);
                }),
                "two survive none: found it with one or three",
            ),
            (problem(|c| c.name = "n4".into()), "name: \"n4\" is not among the members n1, n2, n3"),
            (
                problem(|c| c.members[1].name = "two".into()),
                "\"two\" is no member's name: use n and a number",
            ),
            (problem(|c| c.members[1].name = "n0".into()), "\"n0\" is no member's name"),
            (
                problem(|c| c.members[1].peers = "127.0.0.1:1".into()),
                "the address 127.0.0.1:1 is listed twice",
            ),
            (problem(|c| c.listen_peers = Some("2380".into())), "listen-peers: \"2380\" is no address"),
            (problem(|c| c.heartbeat = Duration::from_millis(150)), "less than three heartbeats"),
            (problem(|c| c.request_timeout = Duration::from_millis(1)), "request-timeout: 1ms"),
            (problem(|c| c.request_size_max = 1 << 30), "request-size-max: 1073741824 is not from"),
            (problem(|c| c.segment_size = 1), "segment-size: 1 is not from"),
        ];
        for (said, expected) in cases {
            assert!(said.contains(expected), "{said:?} does not say {expected:?}");
            assert!(!said.contains('\n'));
        }
    }

    #[test]
    fn durations_and_sizes_are_read_with_their_units() {
        assert_eq!(parse_duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_duration("1.5 s"), Ok(Duration::from_millis(1500)));
        assert!(parse_duration("200").is_err());
        assert!(parse_duration("fast").is_err());
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("1.5 MiB"), Ok(1536 << 10));
        assert_eq!(parse_size("17"), Ok(17));
        assert!(parse_size("64 bananas").is_err());
        assert!(parse_size("-1").is_err());
    }

    #[test]
    fn a_configuration_is_read_with_kebab_case_names_and_unknown_ones_are_refused() {
        let json = r#"{"name": "n2", "election-timeout": "300ms", "segment-size": "1MiB", "request-buffer": 1048576,
                       "members": [{"name": "n2", "peers": "127.0.0.1:2380"}]}"#;
        let config: Config = serde_json::from_str(json).expect("a configuration");
        assert_eq!(config.election_timeout, Duration::from_millis(300));
        assert_eq!((config.segment_size, config.request_buffer), (1 << 20, 1 << 20));
        let error = serde_json::from_str::<Config>(r#"{"elections": "300ms"}"#).expect_err("unknown");
        assert!(error.to_string().contains("unknown field `elections`"), "{error}");
    }

    #[test]
    fn a_member_is_read_from_a_command_line() {
        let member: MemberAddress = "n3=a:1,b:2".parse().expect("a member");
        assert_eq!((member.name.as_str(), member.peers.as_str()), ("n3", "a:1"));
        assert_eq!(member.clients.as_deref(), Some("b:2"));
        for text in ["n3", "n3=", "n3=a:1,b:2,c:3"] {
            assert!(text.parse::<MemberAddress>().is_err(), "{text}");
        }
    }
}
