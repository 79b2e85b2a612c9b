//! Starting and stopping a member.

use crate::clock;
use crate::config::Config;
use crate::directory::Directory;
use crate::disk::{DiskThread, FileDisk};
use crate::engine::FileMap;
use crate::error::Error;
use crate::member::{Machine, Member, Persisted};
use crate::recorder::Recorder;
use crate::{grpc, http1};
use rustix::net::sockopt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use synod_node::{KvMachine, Node, NodeConfig, NodeLimits, Outbox, StartError};
use synod_protocols::log::{Lease, LogLimits, ReplicatedLog, Timing};
use synod_protocols::with_replicated_log;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc as mpsc_async};
use tokio::time::{sleep, timeout};

/// How long a new client may take to say what it speaks.
const SNIFF_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle client is asked whether it is still there after so long.
const CLIENT_IDLE: Duration = Duration::from_secs(60);
/// A client that takes nothing of what it is sent, or does not answer, for so long is given up.
const CLIENT_SILENT_MS_MAX: u32 = 60_000;
/// How long a stopping member goes on writing answers that are already given.
const FAREWELL: Duration = Duration::from_millis(50);

/// A running member. Dropping it stops the member as [`Server::stop`] does.
#[derive(Debug)]
pub struct Server {
    stop: Stop,
    thread: Option<JoinHandle<Result<(), Error>>>,
    addresses: Addresses,
}

#[derive(Clone, Copy, Debug)]
struct Addresses {
    clients: SocketAddr,
    peers: SocketAddr,
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

impl Server {
    /// Starts a member on a thread of its own, which says what it has to say on standard error.
    ///
    /// # Errors
    /// Why it did not start, as a line that says what to do.
    pub fn start(config: Config) -> Result<Server, Error> {
        let name = config.name.clone();
        Self::start_with_log(config, move |line| eprintln!("{name}: {line}"))
    }

    /// As [`Server::start`], with another place for its lines.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with_log(config: Config, log: impl Fn(&str) + Send + 'static) -> Result<Server, Error> {
        config.validate().map_err(Error::Config)?;
        let stop = Stop(Arc::new(Notify::new()));
        let asked = Arc::clone(&stop.0);
        let (ready, started) = mpsc::channel();
        let body = move || {
            let log: Box<dyn Fn(&str)> = Box::new(log);
            let name = config.protocol.clone();
            with_replicated_log!(&name, P => run::<P>(config, log, &asked, &ready))
                .unwrap_or_else(|| Err(Error::Config(vec![format!("protocol: {name:?} is not known here")])))
        };
        let thread = thread::Builder::new()
            .name("synod".to_owned())
            .spawn(body)
            .map_err(|error| Error::System { what: "a thread", error })?;
        match started.recv() {
            Ok(addresses) => Ok(Server { stop, thread: Some(thread), addresses }),
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) | Err(_) => {
                    Err(Error::Fatal("it ended before it had started: see the lines above".to_owned()))
                }
            },
        }
    }

    /// Where it listens for clients.
    pub fn client_address(&self) -> SocketAddr {
        self.addresses.clients
    }

    /// Where it listens for peers.
    pub fn peer_address(&self) -> SocketAddr {
        self.addresses.peers
    }

    /// A handle that can ask it to stop.
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// Why it had to end, if nobody asked it to.
    pub fn wait(mut self) -> Result<(), Error> {
        self.join()
    }

    /// Stops it: waiting clients are told, and nothing that was acknowledged is lost.
    ///
    /// # Errors
    /// Why it had to end before.
    pub fn stop(mut self) -> Result<(), Error> {
        self.stop.stop();
        self.join()
    }

    fn join(&mut self) -> Result<(), Error> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::Fatal("a defect: see the lines above".to_owned())),
            None => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.stop();
        let _ = self.join();
    }
}

/// A member's whole life, on this thread.
fn run<P: ReplicatedLog + 'static>(
    config: Config,
    log: Box<dyn Fn(&str)>,
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
            let clients = listen(config.client_address(), "clients").await?;
            let peers = listen(config.peer_address(), "peers").await?;
            let address = |listener: &TcpListener| listener.local_addr().map_err(system("an address"));
            let addresses = Addresses { clients: address(&clients)?, peers: address(&peers)? };

            let mut directory = Directory::open(&config)?;
            let mut disk = FileDisk::open(directory.log());
            let (persisted, done) = mpsc_async::unbounded_channel();
            let machine = open_state(&config, &directory, persisted)?;
            let mut outbox = Outbox::default();
            let node = Node::<P, Machine>::start(
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

            let member = Member::new(config, node, outbox, disk, recorder, log);
            tokio::task::spawn_local(Rc::clone(&member).accept_peers(peers));
            member.look_for_peers();
            tokio::task::spawn_local(accept_clients(Rc::clone(&member), clients));
            let _ = ready.send(addresses);
            let result = member.run(replies, done, stop).await;
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

async fn listen(address: &str, what: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| {
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
    })
}

fn open_state(
    config: &Config,
    directory: &Directory,
    persisted: mpsc_async::UnboundedSender<Persisted>,
) -> Result<Machine, Error> {
    let refused = |why: String| Error::State { path: directory.state(), why };
    let tell = move |ticket, result| {
        // A member that is gone need not know.
        let _ = persisted.send((ticket, result));
    };
    let map = FileMap::open(&directory.state(), config.state_cache, tell)
        .map_err(|error| refused(error.to_string()))?;
    KvMachine::open(map).map_err(|error| refused(error.to_string()))
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
            command_bytes_max: bytes(config.request_size_max) + 1,
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

fn start_recorder<P: ReplicatedLog + 'static>(
    config: &Config,
    node: &Node<P, Machine>,
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

/// Takes clients in, for ever.
async fn accept_clients<P: ReplicatedLog + 'static>(member: Rc<Member<P>>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let open = member.counters.client_connections.get();
                if open >= member.config.client_connections_max as u64 || member.is_stopping() {
                    continue;
                }
                let member = Rc::clone(&member);
                tokio::task::spawn_local(async move {
                    let _counted = grpc::Counted::new(&member.counters.client_connections);
                    serve_client(Rc::clone(&member), stream).await;
                });
            }
            // Out of file descriptors, most likely: those who are connected go on.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Finds out what a client speaks. HTTP/2 begins with `PRI`, which is no method of HTTP/1.
async fn serve_client<P: ReplicatedLog + 'static>(member: Rc<Member<P>>, stream: TcpStream) {
    // Without keep-alives the connections of clients whose machines have vanished would count for ever.
    let tuned = stream.set_nodelay(true).is_ok()
        && sockopt::set_socket_keepalive(&stream, true).is_ok()
        && sockopt::set_tcp_keepidle(&stream, CLIENT_IDLE).is_ok()
        && sockopt::set_tcp_user_timeout(&stream, CLIENT_SILENT_MS_MAX).is_ok();
    if !tuned {
        return;
    }
    let sniff = async {
        let mut first = [0; 3];
        loop {
            match stream.peek(&mut first).await {
                Ok(0) | Err(_) => return None,
                Ok(count) if first[..count] != b"PRI"[..count] => return Some(false),
                Ok(3) => return Some(true),
                // Readable, but not enough: there is nothing to wait for but time.
                Ok(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    match timeout(SNIFF_TIMEOUT, sniff).await {
        Ok(Some(true)) => grpc::serve(member, stream).await,
        Ok(Some(false)) => http1::serve(member, stream).await,
        Ok(None) | Err(_) => {}
    }
}
