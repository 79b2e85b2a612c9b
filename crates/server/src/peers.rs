//! Long-lived connections between members.
//!
//! One connection for each pair, dialled by the member with the larger number. One rather than two, because
//! acknowledgements then ride in the same packets as data, half as many wake-ups are needed, and both directions end
//! together, so that "the link is down" means the same to both; a fixed dialling side, because simultaneous dialling
//! would need a tie-break.
//!
//! Frames of one turn of the member go out in one write. What the kernel does not take waits in a queue of
//! [`QUEUE_BYTES_MAX`] bytes; at the bound the connection is dropped, and the protocol starts afresh on the next one.

use crate::frame::{FrameBuffer, FrameError, Hello, Kind, MAGIC, put_frame};
use crate::member::{Event, Member};
use crate::service::Service;
use rustix::net::sockopt;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use synod_node::PeerMessage;
use synod_node::spaces::SpaceId;
use synod_protocols::log::ReplicatedLog;
use synod_protocols::weak;
use synod_protocols::{Incarnation, NodeId, Reader, Time, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// Bytes that wait for one peer at the most, beyond what the kernel buffers.
pub(crate) const QUEUE_BYTES_MAX: usize = 64 << 20;
/// How long the two sides may take to introduce themselves.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before dialling again: doubled from the first to the last while it fails.
const DIAL_PAUSE_MIN: Duration = Duration::from_millis(10);
const DIAL_PAUSE_MAX: Duration = Duration::from_millis(500);
/// The pause after a refusal: an operator has to mend something first.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);
/// How long sent bytes may go unacknowledged before the kernel gives the connection up.
const UNACKNOWLEDGED_MS_MAX: u32 = 5_000;
/// Connections that have not introduced themselves, at the most.
const STRANGERS_MAX: usize = 64;

/// A connection whose two sides know each other.
pub(crate) struct Connection {
    /// Numbers this member's connections in this life.
    pub(crate) number: u64,
    /// The same on both sides and different for each connection: names its messages to watchers.
    pub(crate) key: u64,
    write: Rc<OwnedWriteHalf>,
    read: Option<(OwnedReadHalf, FrameBuffer)>,
    /// Tasks that hold a part of the socket.
    tasks: Vec<AbortHandle>,
    /// Dropped with the connection, which the dialling task waits for.
    _closed: Option<oneshot::Sender<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What this member does to a link on purpose, where fault injection is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkFault {
    /// Nothing that arrives is looked at.
    pub(crate) block_in: bool,
    /// Nothing is sent.
    pub(crate) block_out: bool,
    /// Everything is sent so much later.
    pub(crate) delay: Duration,
}

/// What a request changes about a link. (Not what it makes of it: requests that are carried out one
/// after the other must not undo each other, though all were read before the first was.)
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultChange {
    pub(crate) block_in: Option<bool>,
    pub(crate) block_out: Option<bool>,
    pub(crate) delay: Option<Duration>,
}

impl LinkFault {
    pub(crate) fn after(self, change: FaultChange) -> LinkFault {
        LinkFault {
            block_in: change.block_in.unwrap_or(self.block_in),
            block_out: change.block_out.unwrap_or(self.block_out),
            delay: change.delay.unwrap_or(self.delay),
        }
    }
}

/// This member's end of the link to one peer.
pub(crate) struct Link {
    pub(crate) peer: NodeId,
    pub(crate) connection: Option<Connection>,
    pub(crate) fault: LinkFault,
    /// Where the peer takes clients, once it was met.
    pub(crate) clients: Option<String>,
    /// The largest incarnation in which the peer was met.
    pub(crate) incarnation: Incarnation,
    /// Messages shown to watchers on this connection: sent, received.
    pub(crate) shown: (u64, u64),
    out: Vec<u8>,
    delayed: VecDeque<(Time, Vec<u8>)>,
    /// A task waits until the kernel takes more.
    stuck: bool,
    /// Messages that were put on their way.
    pub(crate) messages_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

impl Link {
    pub(crate) fn new(peer: NodeId) -> Link {
        Link {
            peer,
            connection: None,
            fault: LinkFault::default(),
            clients: None,
            incarnation: Incarnation(0),
            shown: (0, 0),
            out: Vec::new(),
            delayed: VecDeque::new(),
            stuck: false,
            messages_sent: 0,
            bytes_sent: 0,
            bytes_received: 0,
        }
    }

    /// Replaces the connection; what waited for the old one is forgotten.
    pub(crate) fn connect(&mut self, connection: Option<Connection>) {
        self.connection = connection;
        self.out.clear();
        self.delayed.clear();
        self.shown = (0, 0);
        self.stuck = false;
    }

    /// Puts a frame on its way, if there is one.
    pub(crate) fn send(&mut self, now: Time, kind: Kind, body: impl FnOnce(&mut Vec<u8>)) {
        if self.connection.is_none() || self.fault.block_out {
            return;
        }
        self.messages_sent += 1;
        if self.fault.delay.is_zero() {
            put_frame(&mut self.out, kind, body);
        } else {
            let mut frame = Vec::new();
            put_frame(&mut frame, kind, body);
            self.delayed.push_back((now + self.fault.delay, frame));
        }
    }

    /// When delayed frames want to go.
    pub(crate) fn due(&self) -> Option<Time> {
        self.delayed.front().map(|(due, _)| *due)
    }

    /// Writes as much as the kernel takes. An error means that the connection is of no more use.
    pub(crate) fn flush<P: ReplicatedLog + 'static, S: Service>(
        &mut self,
        now: Time,
        member: &Rc<Member<P, S>>,
    ) -> io::Result<()> {
        while self.due().is_some_and(|due| due <= now) {
            let Some((_, frame)) = self.delayed.pop_front() else { break };
            self.out.extend_from_slice(&frame);
        }
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if self.out.is_empty() || self.stuck {
            return self.check_bound();
        }
        let mut written = 0;
        while written < self.out.len() {
            match connection.write.try_write(&self.out[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.bytes_sent += written as u64;
        self.out.drain(..written);
        if !self.out.is_empty() {
            self.stuck = true;
            member.clone().wake_when_writable(self.peer, connection);
        } else if self.out.capacity() > 4 << 20 {
            self.out = Vec::new();
        }
        self.check_bound()
    }

    /// The kernel takes more.
    pub(crate) fn unstick(&mut self) {
        self.stuck = false;
    }

    /// Bytes that wait here for the kernel to take them, or for their time.
    pub(crate) fn held_bytes(&self) -> usize {
        self.out.len() + self.delayed.iter().map(|(_, frame)| frame.len()).sum::<usize>()
    }

    fn check_bound(&self) -> io::Result<()> {
        if self.held_bytes() > QUEUE_BYTES_MAX {
            return Err(io::Error::other(format!("more than {QUEUE_BYTES_MAX} bytes wait to be sent")));
        }
        Ok(())
    }
}

impl<P: ReplicatedLog + 'static, S: Service> Member<P, S> {
    /// Starts reading from a connection that has just been taken into use.
    pub(crate) fn start_reading(self: &Rc<Self>, peer: NodeId, connection: &mut Connection) {
        let Some((read, buffer)) = connection.read.take() else { return };
        let number = connection.number;
        let member = Rc::clone(self);
        let task = tokio::task::spawn_local(async move {
            let why = member.read_frames(peer, number, read, buffer).await;
            member.tell(Event::LinkDown { peer, connection: number, why });
        });
        connection.tasks.push(task.abort_handle());
    }

    async fn read_frames(
        &self,
        peer: NodeId,
        connection: u64,
        mut read: OwnedReadHalf,
        mut buffer: FrameBuffer,
    ) -> Option<String> {
        loop {
            loop {
                let (kind, body) = match buffer.next() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(error) => return Some(error.to_string()),
                };
                let bytes = body.len();
                let shown = match kind {
                    Kind::Message => false,
                    Kind::Shown => true,
                    Kind::Weak | Kind::WeakShown => {
                        let shown = kind == Kind::WeakShown;
                        let mut rest = Reader::new(body);
                        let decoded = SpaceId::decode(&mut rest)
                            .and_then(|space| Ok((space, weak::Message::from_bytes(rest.into_rest())?)));
                        match decoded {
                            Ok((space, message)) => {
                                self.tell(Event::WeakPeer { peer, connection, shown, bytes, space, message });
                            }
                            Err(error) => return Some(FrameError::Body(error).to_string()),
                        }
                        continue;
                    }
                    Kind::Hello | Kind::Refusal => return Some("it introduced itself twice".to_owned()),
                };
                match PeerMessage::from_bytes(body) {
                    Ok(message) => self.tell(Event::Peer { peer, connection, shown, bytes, message }),
                    Err(error) => return Some(FrameError::Body(error).to_string()),
                }
            }
            match read.read_buf(buffer.space()).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn wake_when_writable(self: Rc<Self>, peer: NodeId, connection: &mut Connection) {
        let number = connection.number;
        let write = Rc::clone(&connection.write);
        let task = tokio::task::spawn_local(async move {
            let _ = write.writable().await;
            self.tell(Event::Writable { peer, connection: number });
        });
        connection.tasks.retain(|task| !task.is_finished());
        connection.tasks.push(task.abort_handle());
    }

    /// Keeps the connection to a peer with a smaller number alive, as long as it is a member.
    pub(crate) async fn dial_for_ever(self: Rc<Self>, peer: NodeId, address: String) {
        let mut pause = DIAL_PAUSE_MIN;
        while self.knows(peer) {
            if !self.is_blocked(peer) {
                match self.dial(peer, &address).await {
                    Ok(mut connection) => {
                        let (closed, wait) = oneshot::channel();
                        connection._closed = Some(closed);
                        self.tell(Event::LinkUp { peer, connection });
                        let _ = wait.await;
                        pause = DIAL_PAUSE_MIN;
                    }
                    Err(DialError::Refused(why)) => {
                        self.log_once(peer, format!("no connection to {peer} at {address}: {why}"));
                        pause = REFUSED_PAUSE;
                    }
                    Err(DialError::Unreachable) => {}
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(DIAL_PAUSE_MAX);
        }
    }

    async fn dial(&self, peer: NodeId, address: &str) -> Result<Connection, DialError> {
        let exchange = async {
            let mut stream = TcpStream::connect(address).await?;
            tune(&stream)?;
            let number = self.next_connection();
            let mine = Hello { to: peer, connection: number, ..self.hello() };
            let mut bytes = MAGIC.to_vec();
            put_frame(&mut bytes, Kind::Hello, |out| mine.encode(out));
            stream.write_all(&bytes).await?;
            let mut buffer = FrameBuffer::new();
            let (kind, body) = read_frame(&mut stream, &mut buffer).await?;
            if kind == Kind::Refusal {
                return Err(DialError::Refused(printable(&body)));
            }
            let theirs = Hello::from_bytes(body).map_err(|error| DialError::Refused(error.to_string()))?;
            mine.check(&theirs, self.knows(theirs.from)).map_err(DialError::Refused)?;
            if theirs.from != peer {
                return Err(DialError::Refused(format!("{} answers there", theirs.from)));
            }
            self.meet(&theirs).map_err(DialError::Refused)?;
            Ok(connection(number, connection_key(&mine, &theirs), stream, buffer))
        };
        timeout(HELLO_TIMEOUT, exchange).await.unwrap_or(Err(DialError::Unreachable))
    }

    /// Takes connections from peers with larger numbers, for ever.
    pub(crate) async fn accept_peers(self: Rc<Self>, listener: TcpListener) {
        let strangers = Rc::new(());
        loop {
            match listener.accept().await {
                Ok((stream, _)) if Rc::strong_count(&strangers) > STRANGERS_MAX => drop(stream),
                Ok((stream, address)) => {
                    let member = Rc::clone(&self);
                    let stranger = Rc::clone(&strangers);
                    tokio::task::spawn_local(async move {
                        let result = timeout(HELLO_TIMEOUT, member.welcome(stream)).await;
                        drop(stranger);
                        match result {
                            Ok(Ok((peer, connection))) => member.tell(Event::LinkUp { peer, connection }),
                            Ok(Err(Some(why))) => {
                                member.log_once(
                                    NodeId(0),
                                    format!("refused a connection from {}: {why}", address.ip()),
                                );
                            }
                            Ok(Err(None)) | Err(_) => {}
                        }
                    });
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Introduces itself to who has dialled. The error is worth a line in the log if there is one.
    async fn welcome(&self, mut stream: TcpStream) -> Result<(NodeId, Connection), Option<String>> {
        tune(&stream).map_err(|_| None)?;
        let mut buffer = FrameBuffer::new();
        loop {
            match buffer.magic() {
                Some(true) => break,
                Some(false) => {
                    return Err(Some(
                        "it does not speak this version of the peer protocol. Clients connect to the other port".to_owned(),
                    ));
                }
                None => {}
            }
            if stream.read_buf(buffer.space()).await.map_err(|_| None)? == 0 {
                return Err(None);
            }
        }
        let (kind, body) = match read_frame(&mut stream, &mut buffer).await {
            Ok(frame) => frame,
            Err(DialError::Refused(why)) => return Err(Some(why)),
            Err(DialError::Unreachable) => return Err(None),
        };
        let theirs = match Hello::from_bytes(body) {
            Ok(hello) if kind == Kind::Hello => hello,
            _ => return Err(Some("it does not introduce itself as a member".to_owned())),
        };
        let number = self.next_connection();
        let mine = Hello { to: theirs.from, connection: number, ..self.hello() };
        let checked = mine.check(&theirs, self.knows(theirs.from)).and_then(|()| {
            if theirs.from < mine.from {
                return Err(format!("{} should wait to be dialled by {}", theirs.from, mine.from));
            }
            self.meet(&theirs)
        });
        let mut bytes = Vec::new();
        match &checked {
            Ok(()) if self.is_blocked(theirs.from) => return Err(None),
            Ok(()) => put_frame(&mut bytes, Kind::Hello, |out| mine.encode(out)),
            Err(why) => put_frame(&mut bytes, Kind::Refusal, |out| out.extend_from_slice(why.as_bytes())),
        }
        stream.write_all(&bytes).await.map_err(|_| None)?;
        checked.map_err(Some)?;
        Ok((theirs.from, connection(number, connection_key(&theirs, &mine), stream, buffer)))
    }
}

enum DialError {
    /// Nobody is there, which needs no word: dialling goes on.
    Unreachable,
    /// Somebody is there and will not, or must not, be talked to.
    Refused(String),
}

impl From<io::Error> for DialError {
    fn from(_: io::Error) -> Self {
        DialError::Unreachable
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Without these a peer whose machine has vanished would count as connected for many minutes.
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS_MAX)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(2))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    Ok(())
}

fn connection(number: u64, key: u64, stream: TcpStream, mut buffer: FrameBuffer) -> Connection {
    buffer.trust();
    let (read, write) = stream.into_split();
    Connection {
        number,
        key,
        write: Rc::new(write),
        read: Some((read, buffer)),
        tasks: Vec::new(),
        _closed: None,
    }
}

/// The two sides' names for one connection come out alike.
fn connection_key(dialler: &Hello, welcomer: &Hello) -> u64 {
    let parts = [
        dialler.from.0,
        dialler.incarnation.0,
        dialler.connection,
        welcomer.from.0,
        welcomer.incarnation.0,
        welcomer.connection,
    ];
    parts.into_iter().fold(0, |key, part| synod_protocols::rng::keyed(key, part, 0))
}

async fn read_frame(
    stream: &mut TcpStream,
    buffer: &mut FrameBuffer,
) -> Result<(Kind, bytes::Bytes), DialError> {
    loop {
        match buffer.next() {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(error) => return Err(DialError::Refused(error.to_string())),
        }
        if stream.read_buf(buffer.space()).await? == 0 {
            return Err(DialError::Unreachable);
        }
    }
}

/// A stranger's text, fit for a line of the log.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(500).collect()
}
