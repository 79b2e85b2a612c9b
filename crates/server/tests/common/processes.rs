//! Members as processes that are killed and stopped.
//!
//! The processes are the test program itself, told by a variable to be a member. It has a test of this name for that:
//!
//! ```text
//! #[test]
//! fn be_a_member() {
//!     processes::be_a_member();
//! }
//! ```

use super::*;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, Stdio};

const ROLE: &str = "SYNOD_TEST_MEMBER";

/// What such a process runs; nothing in any other.
pub fn be_a_member() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut parts = role.split(' ');
    let mut part = || parts.next().expect("a cluster, a protocol, a name and a directory").to_owned();
    let (cluster, protocol, name, data_dir) = (part(), part(), part(), part().into());
    let members = parts.map(|member| member.parse().expect("a member")).collect();
    let config =
        Config { cluster, protocol, name, data_dir, members, segment_size: 1 << 20, ..Config::default() };
    match Server::start(config).and_then(Server::wait) {
        Ok(()) => {}
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

pub struct Processes {
    pub directory: tempfile::TempDir,
    pub configs: Vec<Config>,
    pub children: Vec<Option<Child>>,
}

impl Processes {
    pub fn start(protocol: &str, count: usize) -> Processes {
        Processes::named(&Config::default().cluster, protocol, count)
    }

    /// A cluster of this name.
    pub fn named(cluster: &str, protocol: &str, count: usize) -> Processes {
        let directory = tempfile::tempdir().expect("a directory");
        let mut configs = configs(directory.path(), count);
        for config in &mut configs {
            (config.cluster, config.protocol) = (cluster.to_owned(), protocol.to_owned());
        }
        let children = (0..count).map(|_| None).collect();
        let mut processes = Processes { directory, configs, children };
        processes.heal();
        processes
    }

    /// A member that says on its standard error what it says.
    pub fn spawn(&self, i: usize) -> Child {
        self.command(i).stderr(Stdio::piped()).spawn().expect("a process")
    }

    fn command(&self, i: usize) -> Command {
        let config = &self.configs[i];
        let members: Vec<String> = config
            .members
            .iter()
            .map(|member| {
                format!("{}={},{}", member.name, member.peers, member.clients.as_deref().expect("one"))
            })
            .collect();
        let Config { cluster, protocol, name, data_dir, .. } = config;
        let role = format!("{cluster} {protocol} {name} {} {}", data_dir.display(), members.join(" "));
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "be_a_member", "--nocapture"]).env(ROLE, role).stdout(Stdio::null());
        command
    }

    pub fn up(&mut self, i: usize) {
        // Nobody would read what it says, and a pipe that is full would stop it.
        let child = self.command(i).stderr(Stdio::null()).spawn();
        self.children[i] = Some(child.expect("a process"));
    }

    pub fn kill(&mut self, i: usize) {
        let mut child = self.children[i].take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("gone");
    }

    /// Those that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.children.len()).filter(|i| self.children[*i].is_some()).collect()
    }

    /// The leader of those that run.
    pub fn lead(&self) -> usize {
        self.leader(&self.running())
    }

    pub fn kill_all(&mut self) {
        // All of them before any is waited for.
        for child in self.children.iter_mut().flatten() {
            child.kill().expect("killed");
        }
        self.running().into_iter().for_each(|i| self.kill(i));
    }

    /// Starts those that do not run.
    pub fn heal(&mut self) {
        for i in 0..self.children.len() {
            if self.children[i].is_none() {
                self.up(i);
            }
        }
    }

    pub fn endpoints(&self) -> Vec<String> {
        (0..self.configs.len()).map(|i| self.endpoint(i)).collect()
    }

    pub fn signal(&self, i: usize, signal: Signal) {
        let pid = self.children[i].as_ref().expect("it runs").id();
        let pid = Pid::from_raw(i32::try_from(pid).expect("a small number")).expect("not zero");
        kill_process(pid, signal).expect("signalled");
    }

    pub fn endpoint(&self, i: usize) -> String {
        self.configs[i].client_address().to_owned()
    }

    pub fn leader(&self, among: &[usize]) -> usize {
        let name = until("a leader among the running", || {
            let names: Vec<String> = among.iter().filter_map(|i| leader_name(&self.endpoint(*i))).collect();
            let first = names.first()?.clone();
            let runs = among.iter().any(|i| self.configs[*i].name == first);
            (names.len() == among.len() && names.iter().all(|name| *name == first) && runs).then_some(first)
        });
        self.configs.iter().position(|config| config.name == name).expect("a member")
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
