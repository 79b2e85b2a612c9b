//! A cluster of three members with one keyspace: what they have used and said so far, a partition, and whether all show
//! the same.

use super::wire::{Answer, Wire};
use crate::Failure;
use crate::supervisor::{Ports, Supervisor};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use synod_bench::Usage;
use synod_lab::{LiveAction, LiveCluster, LiveVerb};
use tokio::time::sleep;

/// The keyspace that is measured.
pub const KEYSPACE: &str = "measured";
/// How long anything but convergence may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long convergence may take.
const CONVERGENCE_MAX: Duration = Duration::from_secs(600);
/// How often what is waited for is looked at: the resolution of the time of convergence.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running cluster.
pub struct Cluster {
    supervisor: Supervisor,
    /// One connection to each member.
    wires: Vec<Wire>,
}

/// What the members together have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub processor: Duration,
    /// Messages between them, whatever they are about.
    pub messages: u64,
}

impl Figures {
    /// What was used between then and now.
    pub fn since(self, before: Figures) -> Figures {
        Figures {
            processor: self.processor.saturating_sub(before.processor),
            messages: self.messages.saturating_sub(before.messages),
        }
    }
}

/// A partition: one member that did not lead, and the others.
#[derive(Clone, Debug)]
pub struct Sides {
    pub minority: Vec<String>,
    pub majority: Vec<String>,
}

impl Cluster {
    /// Starts three members and creates the keyspace, which every member serves when this returns.
    pub async fn start(folder: &Path, protocol: &str, level: &str) -> Result<Cluster, Failure> {
        let started = Supervisor::start_unwatched("levels", folder, protocol, 3, Ports::Any).await;
        let supervisor = started.map_err(Failure::Storage)?;
        let wires = supervisor.endpoints().iter().map(|address| Wire::new(address)).collect();
        let mut cluster = Cluster { supervisor, wires };
        match cluster.create(level).await {
            Ok(()) => Ok(cluster),
            Err(failure) => {
                cluster.stop().await;
                Err(failure)
            }
        }
    }

    async fn create(&mut self, level: &str) -> Result<(), Failure> {
        let path = format!("/v1/keyspaces/{KEYSPACE}");
        let model = json!({"model": level}).to_string();
        for i in 0..self.wires.len() {
            let begun = Instant::now();
            loop {
                let said = match self.ask(i, "PUT", &path, &model).await {
                    Ok(answer) if answer.is_success() => {
                        let read = self.ask(i, "GET", &format!("{path}/keys/none"), "").await?;
                        if read.is_success() {
                            break;
                        }
                        said(&read)
                    }
                    Ok(answer) => said(&answer),
                    Err(failure) => failure.text().to_owned(),
                };
                if begun.elapsed() > PATIENCE {
                    return Err(Failure::Unreachable(format!("the keyspace could not be created: {said}")));
                }
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    pub async fn stop(&self) {
        self.supervisor.stop().await;
    }

    /// Where clients connect.
    pub fn endpoints(&self) -> Vec<String> {
        self.supervisor.endpoints()
    }

    pub async fn figures(&mut self) -> Result<Figures, Failure> {
        let used = self.supervisor.pids().into_iter().filter_map(Usage::of).map(|usage| usage.processor);
        let mut figures = Figures { processor: used.sum(), messages: 0 };
        for i in 0..self.wires.len() {
            let status = self.status(i).await?;
            let peers = status["peers"].as_object().into_iter().flatten();
            figures.messages += peers.filter_map(|(_, peer)| peer["messages-sent"].as_u64()).sum::<u64>();
        }
        Ok(figures)
    }

    /// Cuts a member that does not lead off from the others, and waits until all three have done it.
    pub async fn cut(&mut self) -> Result<Sides, Failure> {
        let names = self.supervisor.names();
        let leader = self.leader().await?;
        let alone = (0..names.len()).rev().find(|i| names[*i] != leader).unwrap_or(0);
        for (i, name) in names.iter().enumerate().filter(|(i, _)| *i != alone) {
            let action = LiveAction {
                verb: LiveVerb::Cut,
                node: Some(names[alone].clone()),
                peer: Some(name.clone()),
            };
            self.supervisor.act(&action).map_err(Failure::No)?;
            self.until_blocked(alone, name, true).await?;
            self.until_blocked(i, &names[alone], true).await?;
        }
        let (minority, majority): (Vec<_>, Vec<_>) =
            self.endpoints().into_iter().enumerate().partition(|(i, _)| *i == alone);
        let addresses = |side: Vec<(usize, String)>| side.into_iter().map(|(_, address)| address).collect();
        Ok(Sides { minority: addresses(minority), majority: addresses(majority) })
    }

    /// Mends all links.
    pub async fn heal(&mut self) -> Result<(), Failure> {
        let action = LiveAction { verb: LiveVerb::Heal, node: None, peer: None };
        self.supervisor.act(&action).map_err(Failure::No)?;
        let names = self.supervisor.names();
        for i in 0..names.len() {
            for other in names.iter().filter(|other| **other != names[i]) {
                self.until_blocked(i, other, false).await?;
            }
        }
        Ok(())
    }

    /// Waits until all members list the same keys with the same values.
    pub async fn converge(&mut self) -> Result<usize, Failure> {
        let path = format!("/v1/keyspaces/{KEYSPACE}/keys?limit={}&consistency=eventual", super::load::KEYS);
        let begun = Instant::now();
        loop {
            let first = self.ask(0, "GET", &path, "").await?.json();
            let mut same = first["keys"].is_array();
            for i in 1..self.wires.len() {
                // What two members say at different moments may differ though they are the same: nobody writes now.
                same = same && self.ask(i, "GET", &path, "").await?.json()["keys"] == first["keys"];
            }
            if same {
                return Ok(first["keys"].as_array().map_or(0, Vec::len));
            }
            if begun.elapsed() > CONVERGENCE_MAX {
                return Err(Failure::No(format!("not all the same after {CONVERGENCE_MAX:?}")));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whom all members take for the leader.
    async fn leader(&mut self) -> Result<String, Failure> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let mut leaders = Vec::new();
            for i in 0..self.wires.len() {
                leaders.push(self.status(i).await?["leader"].as_str().map(String::from));
            }
            if leaders.iter().all(|leader| *leader == leaders[0])
                && let Some(leader) = leaders.swap_remove(0)
            {
                return Ok(leader);
            }
            sleep(LOOK_EVERY).await;
        }
        Err(Failure::Unreachable("the members do not agree on a leader".into()))
    }

    async fn until_blocked(&mut self, i: usize, peer: &str, wanted: bool) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let link = &self.status(i).await?["peers"][peer];
            if link["block-in"] == wanted && link["block-out"] == wanted {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
        Err(Failure::Unreachable("a link could not be cut or mended".into()))
    }

    async fn status(&mut self, i: usize) -> Result<Value, Failure> {
        Ok(self.ask(i, "GET", "/status", "").await?.json())
    }

    async fn ask(&mut self, i: usize, method: &str, path: &str, body: &str) -> Result<Answer, Failure> {
        let wire = &mut self.wires[i];
        let failed =
            |address: &str, why: String| Failure::Unreachable(format!("{address} does not answer: {why}"));
        let asked = tokio::time::timeout(PATIENCE, async {
            match wire.ask(method, path, None, body).await {
                // Members close connections that were idle for some seconds. What is asked here may be asked twice.
                Err(_) => wire.ask(method, path, None, body).await,
                answered => answered,
            }
        })
        .await;
        let answer = asked
            .map_err(|_| failed(&wire.address, format!("nothing came within {PATIENCE:?}")))?
            .map_err(|error| failed(&wire.address, error.to_string()))?;
        let Some(elsewhere) = &answer.elsewhere else { return Ok(answer) };
        let asked = Wire::new(elsewhere).ask(method, path, None, body).await;
        asked.map_err(|error| failed(elsewhere, error.to_string()))
    }
}

/// What a member says about a request that it did not carry out.
fn said(answer: &Answer) -> String {
    let message = answer.json()["error"]["message"].as_str().map(String::from);
    message.unwrap_or_else(|| format!("status {}", answer.status))
}
