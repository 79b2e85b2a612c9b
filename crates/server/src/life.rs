//! A member's life: a thread of its own, from the first look at the ports to the release of the directory.

use crate::clock;
use crate::config::Config;
use crate::directory::Directory;
use crate::disk::{DiskThread, FileDisk};
use crate::error::Error;
use crate::member::Member;
use crate::recorder::Recorder;
use crate::service::Service;
use crate::weak::Weak;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use synod_node::{Node, NodeConfig, NodeLimits, Outbox, StartError, StateMachine};
use synod_protocols::log::{Lease, LogLimits, ReplicatedLog, Timing};
use synod_protocols::with_replicated_log;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc as mpsc_async};
use tokio::time::sleep;

/// How much longer than a client's request an entry of a process on the log may be.
const PROCESS_BYTES_MAX: usize = 4 << 20;
/// How long a stopping member goes on writing answers that are already given.
const FAREWELL: Duration = Duration::from_millis(50);

/// Where a member says what it has to say, line by line.
pub(crate) type Log = Box<dyn Fn(&str) + Send>;

/// A member that runs. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Life {
    stop: Stop,
    thread: Option<JoinHandle<Result<(), Error>>>,
    pub(crate) addresses: Addresses,
}

/// Where a member listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) clients: Option<SocketAddr>,
    pub(crate) peers: SocketAddr,
}

/// Asks a member to stop, from anywhere.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Notify>);

impl Stop {
    /// Asks; the member ends within a fraction of a second.
    pub fn stop(&self) {
        self.0.notify_one();
    }
}

impl Life {
    /// Starts a member that serves what `service` makes; returns when it has started or cannot.
    pub(crate) fn begin<S: Service>(
        config: Config,
        log: Log,
        service: impl FnOnce(&Config) -> S + Send + 'static,
    ) -> Result<Life, Error> {
        config.validate().map_err(Error::Config)?;
        let stop = Stop(Arc::new(Notify::new()));
        let asked = Arc::clone(&stop.0);
        let (ready, started) = mpsc::channel();
        let body = move || {
            let name = config.protocol.clone();
            let service = service(&config);
            with_replicated_log!(&name, P => run::<P, S>(config, service, log, &asked, &ready))
                .unwrap_or_else(|| Err(Error::Config(vec![format!("protocol: {name:?} is not known here")])))
        };
        let thread = thread::Builder::new()
            .name("synod".to_owned())
            .spawn(body)
            .map_err(|error| Error::System { what: "a thread", error })?;
        match started.recv() {
            Ok(addresses) => Ok(Life { stop, thread: Some(thread), addresses }),
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) | Err(_) => {
                    Err(Error::Fatal("it ended before it had started: see the lines above".to_owned()))
                }
            },
        }
    }

    pub(crate) fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Waits until it ends.
    pub(crate) fn join(&mut self) -> Result<(), Error> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::Fatal("a defect: see the lines above".to_owned())),
            None => Ok(()),
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.stop.stop();
        let _ = self.join();
    }
}

/// A member's whole life, on this thread.
fn run<P: ReplicatedLog + 'static, S: Service>(
    config: Config,
    mut service: S,
    log: Log,
    stop: &Notify,
    ready: &mpsc::Sender<Addresses>,
) -> Result<(), Error> {
    let system = |what| move |error| Error::System { what, error };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(system("an event loop"))?;
    runtime
        .block_on(async {
            // Addresses first: a port that is taken must not cost a start on the disk.
            let (door, clients) = service.open(&config).await?;
            let (peers, address) = listen(config.peer_address(), "peers").await?;
            let addresses = Addresses { clients, peers: address };

            let mut directory = Directory::open(&config)?;
            let mut disk = FileDisk::open(directory.log());
            let (persisted, done) = mpsc_async::unbounded_channel();
            let machine = service.machine(&config, &directory, persisted)?;
            let mut outbox = Outbox::default();
            let node = Node::<P, S::Machine>::start(
                node_config(&config, &directory)?,
                &mut disk,
                machine,
                clock::now(),
                &mut outbox,
            )
            .map_err(|error| start_error(&config, &directory, error))?;
            directory.mark(&config)?;
            let recorder = start_recorder(&config, &node)?;
            let (disk, replies) = DiskThread::start(&config.name, disk).map_err(system("a thread"))?;

            let (weak, weak_replies) = Weak::open(&config)?;
            let member = Member::new(config, service, (node, outbox), disk, weak, recorder, log);
            tokio::task::spawn_local(Rc::clone(&member).accept_peers(peers));
            member.look_for_peers();
            S::welcome(&member, door);
            let _ = ready.send(addresses);
            let result = member.run(replies, done, weak_replies, stop).await;
            member.wind_up();
            sleep(FAREWELL).await;
            // The directory's lock is given up last, after the disk's thread has ended with the member.
            drop(member);
            result.map(|()| directory)
        })
        .map(|directory| {
            drop(runtime);
            drop(directory);
        })
}

/// Listens at an address; where the port was 0, the one that it became comes back.
pub(crate) async fn listen(address: &str, what: &'static str) -> Result<(TcpListener, SocketAddr), Error> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "the port is taken: stop who listens there, or choose another port".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have that address: listen on one that it has, or on 0.0.0.0".to_owned()
            }
            io::ErrorKind::PermissionDenied => "not permitted: choose a port above 1023".to_owned(),
            _ => error.to_string(),
        };
        Error::Listen { address: address.to_owned(), what, why }
    })?;
    let address = listener.local_addr().map_err(|error| Error::System { what: "an address", error })?;
    Ok((listener, address))
}

fn node_config(config: &Config, directory: &Directory) -> Result<NodeConfig, Error> {
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    Ok(NodeConfig {
        cluster: config.cluster_id(),
        id: config.id(),
        members: config.ids(),
        bootstrap: config.bootstrap(directory.has_lived()),
        timing: Timing { heartbeat: config.heartbeat, election: config.election_timeout },
        log: LogLimits::default(),
        priority: config.priority,
        lease: config.lease_reads.then(Lease::default),
        limits: NodeLimits {
            request_timeout: config.request_timeout,
            requests_max: config.requests_max,
            request_bytes_max: bytes(config.request_buffer),
            segment_bytes: config.segment_size,
            // Clients' requests are bounded where they come in. What a process on the log records of one may be longer, by
            // what it has read and by what is kept of it.
            command_bytes_max: bytes(config.request_size_max) + PROCESS_BYTES_MAX,
            ..NodeLimits::default()
        },
        seed: match config.seed {
            Some(seed) => seed,
            None => random_seed().map_err(|error| Error::System { what: "random numbers", error })?,
        },
        record: config.flight_recorder.is_some(),
    })
}

fn random_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn start_error(config: &Config, directory: &Directory, error: StartError) -> Error {
    let path = directory.path().to_owned();
    match error {
        StartError::Foreign { what } => Error::Foreign { path, what },
        StartError::Blank => Error::Blank { path },
        StartError::Damaged { what } => Error::Damaged { path: directory.log(), what },
        StartError::Disk(fault) => Error::Directory { path: config.data_dir.clone(), why: fault.to_string() },
        StartError::Machine(why) => Error::State { path: directory.state(), why },
    }
}

fn start_recorder<P: ReplicatedLog + 'static, M: StateMachine>(
    config: &Config,
    node: &Node<P, M>,
) -> Result<Option<Recorder>, Error> {
    let Some(path) = &config.flight_recorder else { return Ok(None) };
    let header = serde_json::json!({
        "synod-recording": 1,
        "cluster": config.cluster,
        "member": config.name,
        "members": config.members.iter().map(|member| &member.name).collect::<Vec<_>>(),
        "protocol": P::NAME,
        "incarnation": node.status().incarnation.0,
        "heartbeat-ns": config.heartbeat.as_nanos() as u64,
        "election-ns": config.election_timeout.as_nanos() as u64,
    });
    let recorder =
        Recorder::start(path, &header.to_string(), config.flight_recorder_size_max).map_err(|error| {
            Error::Config(vec![format!("flight-recorder: {} cannot be written ({error})", path.display())])
        })?;
    Ok(Some(recorder))
}
