//! A member that serves the etcd v3 API: how it is started and stopped, and how its clients come in.

use crate::calls::{Calls, Machine};
use crate::config::Config;
use crate::directory::Directory;
use crate::engine::FileMap;
use crate::error::Error;
pub use crate::life::Stop;
use crate::life::{Life, Log, listen};
use crate::member::{Core, Member, Persisted};
use crate::service::Service;
use crate::{grpc, hosted, http, weak};
use bytes::Bytes;
use rustix::net::sockopt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use synod_node::Reply;
use synod_node::spaces::{self, SpacesMachine};
use synod_protocols::log::{Epoch, ReplicatedLog, Role};
use synod_protocols::{NodeId, Time};
use synod_store::Command;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{sleep, timeout};

/// How long a new client may take to say what it speaks.
const SNIFF_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle client is asked whether it is still there after so long.
const CLIENT_IDLE: Duration = Duration::from_secs(60);
/// A client that takes nothing of what it is sent, or does not answer, for so long is given up.
const CLIENT_SILENT_MS_MAX: u32 = 60_000;
/// Characters of a key that an entry's label shows.
const KEY_CHARS_SHOWN: usize = 24;

/// A running member that serves the etcd v3 API. Dropping it stops the member as [`Server::stop`] does.
#[derive(Debug)]
pub struct Server {
    life: Life,
    clients: SocketAddr,
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
        let log: Log = Box::new(log);
        let life = Life::begin(config, log, Calls::new)?;
        let clients = life.addresses.clients.expect("the API has an address");
        Ok(Server { life, clients })
    }

    /// Where it listens for clients.
    pub fn client_address(&self) -> SocketAddr {
        self.clients
    }

    /// Where it listens for peers.
    pub fn peer_address(&self) -> SocketAddr {
        self.life.addresses.peers
    }

    /// A handle that can ask it to stop.
    pub fn stop_handle(&self) -> Stop {
        self.life.stop_handle()
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.life.is_running()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// Why it had to end, if nobody asked it to.
    pub fn wait(mut self) -> Result<(), Error> {
        self.life.join()
    }

    /// Stops it: waiting clients are told, and nothing that was acknowledged is lost.
    ///
    /// # Errors
    /// Why it had to end before.
    pub fn stop(mut self) -> Result<(), Error> {
        self.life.stop_handle().stop();
        self.life.join()
    }
}

impl Service for Calls {
    type Machine = Machine;
    type Door = TcpListener;

    async fn open(&mut self, config: &Config) -> Result<(TcpListener, Option<SocketAddr>), Error> {
        let (listener, address) = listen(config.client_address(), "clients").await?;
        Ok((listener, Some(address)))
    }

    fn machine(
        &mut self,
        config: &Config,
        directory: &Directory,
        persisted: UnboundedSender<Persisted>,
    ) -> Result<Machine, Error> {
        let refused = |why: String| Error::State { path: directory.state(), why };
        let tell = move |ticket, result| {
            // A member that is gone need not know.
            let _ = persisted.send((ticket, result));
        };
        let map = FileMap::open(&directory.state(), config.state_cache, tell)
            .map_err(|error| refused(error.to_string()))?;
        SpacesMachine::open(map).map_err(|error| refused(error.to_string()))
    }

    fn welcome<P: ReplicatedLog + 'static>(member: &Rc<Member<P>>, door: TcpListener) {
        if let Some(happened) = member.calls.borrow_mut().happened() {
            hosted::spawn(member, happened);
        }
        tokio::task::spawn_local(accept_clients(Rc::clone(member), door));
    }

    fn clients_at(config: &Config) -> Option<String> {
        Some(config.client_address().to_owned())
    }

    fn answer<P: ReplicatedLog + 'static>(member: &Member<P>, core: &Core<P>, replies: Vec<Reply<Machine>>) {
        let status = core.node.status();
        let revision = core.node.machine().store().revision();
        let mut calls = member.calls.borrow_mut();
        for reply in replies {
            calls.answer(reply, &status, revision, |members| member.member_infos(core, members));
        }
    }

    fn turned<P: ReplicatedLog + 'static>(
        member: &Rc<Member<P>>,
        core: &mut Core<P>,
        now: Time,
    ) -> Result<(), Error> {
        let machine = core.node.machine();
        if core.weak.is_behind(now, machine.generation()) {
            let status = core.node.status();
            let peers: Vec<NodeId> = core.links.keys().copied().collect();
            let registry = (machine.generation(), status.applied.0, machine.registry());
            core.weak.reconcile(now, registry, status.incarnation, &peers)?;
        }
        weak::roster::keep(member, core, now);
        Ok(())
    }

    fn deadline(&self) -> Option<Time> {
        Calls::deadline(self)
    }

    fn expire(&mut self, now: Time) {
        Calls::expire(self, now);
    }

    /// Clients ask, by a call of its own; processes on the log run where the leader is.
    fn standing(&mut self, role: Role, _epoch: Epoch, _leader: Option<NodeId>) {
        self.host.tell(hosted::Happened::Leads(role == Role::Leader));
    }

    fn stop(&mut self) {
        Calls::stop(self);
    }

    fn label(command: Bytes) -> Option<String> {
        if let Some(command) = spaces::Command::from_log(&command) {
            return Some(match command.ok()? {
                spaces::Command::Create { name, model, .. } => format!("create {name}, {model}"),
                spaces::Command::Drop { name, .. } => format!("drop {name}"),
                spaces::Command::Register { name, .. } => format!("register {name}"),
                spaces::Command::Unregister { name } => format!("unregister {name}"),
                spaces::Command::Seal { .. } => "seal sessions".to_owned(),
                spaces::Command::Contact { space, coordinator, .. } => {
                    format!("keyspace {} hears of coordinator {coordinator}", space.0)
                }
                spaces::Command::Process { step } => hosted::label(&step),
            });
        }
        Some(match Command::decode(command).ok()? {
            Command::Put(put) => format!("put {}", shorten(&put.key)),
            Command::DeleteRange(delete) => format!("del {}", shorten(&delete.key)),
            Command::Txn(txn) => format!("txn of {}", txn.success.len().max(txn.failure.len())),
            Command::Compact(compaction) => format!("compact {}", compaction.revision),
        })
    }
}

fn shorten(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    let mut short: String =
        text.chars().take(KEY_CHARS_SHOWN).map(|c| if c.is_control() { '\u{b7}' } else { c }).collect();
    if text.chars().count() > KEY_CHARS_SHOWN {
        short.push('\u{2026}');
    }
    short
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
        Ok(Some(false)) => http::serve(member, stream).await,
        Ok(None) | Err(_) => {}
    }
}
