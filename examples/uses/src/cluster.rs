//! Three members in this process, each on a thread of its own, as `synod serve` would run them on three machines.

use crate::client::{Client, Error};
use crate::eventually;
use crate::exchange::exchange;
use serde_json::json;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use synod_server::{Config, MemberAddress, Server};
use tempfile::TempDir;

/// A member, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member(usize);

/// On the side that will have the majority.
pub const N1: Member = Member(0);
/// On the same side.
pub const N2: Member = Member(1);
/// The member that will be cut off.
pub const N3: Member = Member(2);

impl Member {
    fn name(self) -> String {
        format!("n{}", self.0 + 1)
    }
}

/// A running cluster. Its data are in a temporary directory, and go with it.
pub struct Cluster {
    servers: Vec<Server>,
    _folder: TempDir,
}

impl Cluster {
    /// Starts three members and waits until one leads.
    pub fn start() -> Result<Cluster, Error> {
        let folder = tempfile::tempdir()?;
        // All ports are held until all are known, so that none is given out twice.
        let ports = (0..6).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
        let addresses = ports.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
        drop(ports);
        let address = |member: Member| MemberAddress {
            name: member.name(),
            peers: addresses[2 * member.0].to_string(),
            clients: Some(addresses[2 * member.0 + 1].to_string()),
        };
        let members: Vec<MemberAddress> = [N1, N2, N3].map(address).into();
        let start = |member: Member| {
            let config = Config {
                cluster: "uses".into(),
                name: member.name(),
                members: members.clone(),
                data_dir: folder.path().join(member.name()),
                // Only so can a program cut a link. Never where it matters.
                fault_injection: true,
                // Three members in one process on a busy machine: none shall take another one for dead.
                election_timeout: Duration::from_millis(500),
                ..Config::default()
            };
            Server::start_with_log(config, |_| {}).map_err(|error| Error::Broken(error.to_string()))
        };
        let servers = [N1, N2, N3].into_iter().map(start).collect::<Result<_, _>>()?;
        let cluster = Cluster { servers, _folder: folder };
        cluster.agree_on_a_leader(&[N1, N2, N3])?;
        Ok(cluster)
    }

    /// Creates a keyspace of this model, and waits until every member knows it.
    pub fn create(&self, keyspace: &str, model: &str) -> Result<(), Error> {
        let path = format!("/v1/keyspaces/{keyspace}");
        exchange(self.address(N1), "PUT", &path, None, Some(&json!({"model": model})))?.success()?;
        for member in [N1, N2, N3] {
            exchange(self.address(member), "GET", &path, None, None)?.success()?;
        }
        Ok(())
    }

    /// Somebody who talks to this member about this keyspace.
    pub fn client(&self, member: Member, keyspace: &str) -> Client {
        Client::new(self.address(member), keyspace)
    }

    /// Lets somebody go on at another member, with the session that they have.
    pub fn moved(&self, client: Client, to: Member) -> Client {
        client.at(self.address(to))
    }

    /// Cuts n3 off from the others, and waits until it has noticed and they are led by one of them.
    pub fn cut_n3_off(&self) -> Result<(), Error> {
        self.links_of_n3("block")?;
        eventually("n3 knows no leader", || Ok(self.leader(N3)?.is_none().then_some(())))?;
        self.agree_on_a_leader(&[N1, N2])
    }

    /// Mends the links, and waits until all three have the same leader.
    pub fn heal(&self) -> Result<(), Error> {
        self.links_of_n3("unblock")?;
        self.agree_on_a_leader(&[N1, N2, N3])
    }

    /// Stops all members.
    pub fn stop(self) -> Result<(), Error> {
        self.servers.into_iter().try_for_each(Server::stop).map_err(|error| Error::Broken(error.to_string()))
    }

    fn links_of_n3(&self, verb: &str) -> Result<(), Error> {
        for (member, peers) in [(N1, vec!["n3"]), (N2, vec!["n3"]), (N3, vec!["n1", "n2"])] {
            exchange(self.address(member), "POST", "/fault", None, Some(&json!({ verb: peers })))?
                .success()?;
        }
        Ok(())
    }

    fn agree_on_a_leader(&self, members: &[Member]) -> Result<(), Error> {
        eventually("the members agree on a leader", || {
            let known = members.iter().map(|member| self.leader(*member)).collect::<Result<Vec<_>, _>>()?;
            let one_of_them = members.iter().any(|member| known[0] == Some(member.name()));
            Ok((one_of_them && known.iter().all(|leader| *leader == known[0])).then_some(()))
        })
    }

    /// Whom a member takes for the leader.
    fn leader(&self, member: Member) -> Result<Option<String>, Error> {
        let status = exchange(self.address(member), "GET", "/status", None, None)?.success()?;
        Ok(status["leader"].as_str().map(String::from))
    }

    fn address(&self, member: Member) -> SocketAddr {
        self.servers[member.0].client_address()
    }
}
