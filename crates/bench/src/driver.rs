//! The one thread that drives all connections: waits for sockets, hands bytes to and fro, keeps every
//! connection at its number of calls, and moves connections away from members that fail.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;

use crate::connection::{Connection, Finished};
use crate::request::Requests;
use crate::tally::Tally;
use crate::usage::Usage;
use crate::{Error, Limit, Options, Report};

/// How often timeouts, reconnections and pauses are looked at.
const TICK: Duration = Duration::from_millis(10);
/// How long a call's place stays empty after a failure, so that a member which refuses everything at
/// once is not asked in a tight loop.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);
/// How long the first endpoint may take to answer before the run is given up.
const START_MAX: Duration = Duration::from_secs(5);
/// How long a connection may take until the peer's settings arrived.
const HANDSHAKE_MAX: Duration = Duration::from_millis(500);
/// The pause before a connection is tried again: doubled with each failure in a row, up to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// How long to wait for the last answers, so that the next run starts on an idle server.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// A run of a given number of operations is given up after this long without a single success.
const STALL_MAX: Duration = Duration::from_secs(60);
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
const READ_BUFFER_BYTES: usize = 256 * 1024;
const EVENTS_MAX: usize = 1024;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Calls run, but nothing counts yet.
    Warmup,
    /// Everything counts.
    Measuring,
}

/// What a run tells while it goes on, about ten times a second.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Where the run is.
    pub phase: Phase,
    /// Since when this phase lasts.
    pub elapsed: Duration,
    /// The share of this phase that is over, from 0 to 1.
    pub share: f64,
    /// Calls that succeeded in this phase.
    pub operations: u64,
    /// Calls that failed in this phase.
    pub failures: u64,
}

/// Puts one load on the endpoints and measures what comes of it. Blocks until the run is over and calls
/// `progress` from this thread meanwhile.
///
/// # Errors
/// Bad options, a process that cannot be read, endpoints of which none answers within five seconds, or an operating
/// system that gives no sockets. Whatever happens after the first answer is part of the report.
pub fn run(options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Report, Error> {
    options.check()?;
    if let Some(&pid) = options.server_pids.iter().find(|&&pid| Usage::of(pid).is_none()) {
        return Err(Error::NoProcess(pid));
    }
    Driver::new(options)?.run(progress)
}

#[derive(Debug)]
struct Endpoint {
    /// As the user wrote it: also the authority of the requests.
    name: String,
    addresses: Vec<SocketAddr>,
}

/// One client's connection, through all its lives.
#[derive(Debug)]
struct Link {
    endpoint: usize,
    /// Attempts in a row that did not lead to the peer's settings.
    attempts: u32,
    life: Life,
    standing: Standing,
}

/// How a link's calls fare.
#[derive(Debug)]
struct Standing {
    /// When each place that failed may be used again, soonest first.
    paused: VecDeque<Instant>,
    /// Whether the last call that ended had failed.
    failing: bool,
    /// When a call last succeeded, or when the connection began.
    last_success: Instant,
}

#[derive(Debug)]
enum Life {
    Waiting { until: Instant },
    Connected(Box<Wire>),
}

#[derive(Debug)]
struct Wire {
    socket: TcpStream,
    connection: Connection,
    /// How much of the connection's `out` is written.
    written: usize,
    writable: bool,
    /// The peer closed its side: reads go on until they say so.
    closing: bool,
    /// When the attempt began.
    began: Instant,
    /// When bytes last came in.
    heard: Instant,
}

/// What all links share.
#[derive(Debug)]
struct Shared<'a> {
    options: &'a Options,
    requests: Requests,
    tally: Tally,
    buffer: Vec<u8>,
    finished: Vec<Finished>,
    /// Whether finished calls are followed by new ones.
    issuing: bool,
    /// How many calls may still be counted.
    countable: u64,
}

#[derive(Debug)]
struct Driver<'a> {
    poll: Poll,
    endpoints: Vec<Endpoint>,
    links: Vec<Link>,
    shared: Shared<'a>,
    /// What the last failed attempt to connect said.
    last_error: String,
}

impl<'a> Driver<'a> {
    fn new(options: &'a Options) -> Result<Self, Error> {
        let endpoints = options.endpoints.iter().map(|name| resolve(name)).collect::<Result<Vec<_>, _>>()?;
        let now = Instant::now();
        let links = (0..options.clients).map(|client| Link {
            endpoint: client % endpoints.len(),
            attempts: 0,
            life: Life::Waiting { until: now },
            standing: Standing { paused: VecDeque::new(), failing: false, last_success: now },
        });
        Ok(Self {
            poll: Poll::new()?,
            links: links.collect(),
            endpoints,
            shared: Shared {
                options,
                requests: Requests::new(options),
                tally: Tally::begin(options, now),
                buffer: vec![0; READ_BUFFER_BYTES],
                finished: Vec::new(),
                issuing: true,
                countable: u64::MAX,
            },
            last_error: "nothing at all".into(),
        })
    }

    fn run(mut self, progress: &mut dyn FnMut(Progress)) -> Result<Report, Error> {
        let options = self.shared.options;
        self.connect_first()?;
        let over = |tally: &Tally, now: Instant| (now - tally.began() >= options.warmup).then_some(None);
        if !options.warmup.is_zero() {
            self.shared.tally = Tally::begin(options, Instant::now());
            self.phase(Phase::Warmup, &over, progress)?;
        }
        self.shared.tally = Tally::begin(options, Instant::now());
        if let Limit::Operations(operations) = options.limit {
            self.shared.countable = operations;
        }
        let over = |tally: &Tally, now: Instant| match options.limit {
            Limit::Time(limit) => (now - tally.began() >= limit).then_some(None),
            Limit::Operations(limit) if tally.succeeded() + tally.failed() >= limit => Some(None),
            Limit::Operations(_) => (now - tally.last_success() >= STALL_MAX)
                .then(|| Some(format!("no call succeeded for {} s", STALL_MAX.as_secs()))),
        };
        let ended_early = self.phase(Phase::Measuring, &over, progress)?;
        let now = Instant::now();
        // Taken out before the drain, which must not count.
        let tally = std::mem::replace(&mut self.shared.tally, Tally::begin(options, now));
        let report = tally.report(options, now, ended_early);
        self.drain()?;
        Ok(report)
    }

    /// Runs until one connection is ready.
    fn connect_first(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.links.iter().any(Link::is_ready) {
            if began.elapsed() >= START_MAX {
                return Err(Error::NoEndpoint {
                    seconds: START_MAX.as_secs(),
                    last: self.last_error.clone(),
                });
            }
            self.tick(Instant::now())?;
            self.turn(&mut events)?;
        }
        Ok(())
    }

    /// Runs until `over` says so, and why it ended early if it did.
    fn phase(
        &mut self,
        phase: Phase,
        over: &dyn Fn(&Tally, Instant) -> Option<Option<String>>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<String>, Error> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut now = Instant::now();
        let (mut next_tick, mut next_progress) = (now, now);
        loop {
            if let Some(ended_early) = over(&self.shared.tally, now) {
                progress(self.progress(phase, now));
                return Ok(ended_early);
            }
            if now >= next_tick {
                self.tick(now)?;
                next_tick = now + TICK;
            }
            if now >= next_progress {
                progress(self.progress(phase, now));
                next_progress = now + PROGRESS_EVERY;
            }
            now = self.turn(&mut events)?;
        }
    }

    fn progress(&self, phase: Phase, now: Instant) -> Progress {
        let Shared { options, tally, .. } = &self.shared;
        let elapsed = now.saturating_duration_since(tally.began());
        let ended = tally.succeeded() + tally.failed();
        let share = match (phase, options.limit) {
            (Phase::Warmup, _) => elapsed.as_secs_f64() / options.warmup.as_secs_f64(),
            (Phase::Measuring, Limit::Time(limit)) => elapsed.as_secs_f64() / limit.as_secs_f64(),
            (Phase::Measuring, Limit::Operations(limit)) => ended as f64 / limit as f64,
        };
        Progress {
            phase,
            elapsed,
            share: share.min(1.0),
            operations: tally.succeeded(),
            failures: tally.failed(),
        }
    }

    /// Lets the calls that are under way end, so that they do not weigh on whatever runs next.
    fn drain(&mut self) -> Result<(), Error> {
        self.shared.issuing = false;
        let began = Instant::now();
        let mut events = Events::with_capacity(EVENTS_MAX);
        while began.elapsed() < DRAIN_MAX && self.links.iter().any(|link| link.open() > 0) {
            self.turn(&mut events)?;
        }
        Ok(())
    }

    /// Waits for sockets, at most until the next tick, and serves them. Returns the time after it.
    fn turn(&mut self, events: &mut Events) -> Result<Instant, Error> {
        if let Err(error) = self.poll.poll(events, Some(TICK)) {
            if error.kind() == ErrorKind::Interrupted {
                return Ok(Instant::now());
            }
            return Err(error.into());
        }
        for event in events.iter() {
            let link = &mut self.links[event.token().0];
            if let Life::Connected(wire) = &mut link.life {
                wire.writable |= event.is_writable();
                wire.closing |= event.is_read_closed() || event.is_error();
            }
            if let Err(why) = link.serve(&mut self.shared) {
                self.lose(event.token().0, &why);
            }
        }
        Ok(Instant::now())
    }

    /// Does what time asks for: connects, gives up what takes too long, wakes paused places.
    fn tick(&mut self, now: Instant) -> Result<(), Error> {
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            if let Life::Waiting { until } = link.life {
                if now >= until && self.shared.issuing {
                    self.connect(index, now)?;
                }
                continue;
            }
            if let Err(why) = link.tick(&mut self.shared, now) {
                self.lose(index, &why);
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: usize, now: Instant) -> Result<(), Error> {
        let link = &mut self.links[index];
        let endpoint = &self.endpoints[link.endpoint];
        // Each round over the endpoints tries the next address of a name that has several.
        let round = link.attempts as usize / self.endpoints.len();
        let address = endpoint.addresses[round % endpoint.addresses.len()];
        let opened = TcpStream::connect(address).and_then(|mut socket| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(index), interest)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => {
                link.standing.failing = false;
                link.standing.last_success = now;
                link.life = Life::Connected(Box::new(Wire {
                    socket,
                    connection: Connection::new(&endpoint.name, 1),
                    written: 0,
                    writable: false,
                    closing: false,
                    began: now,
                    heard: now,
                }));
                Ok(())
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) => Err(Error::BadOption {
                option: "clients",
                problem: format!(
                    "{} connections exceed the limit of open files (ulimit -n)",
                    self.links.len()
                ),
            }),
            Err(error) => {
                self.lose(index, &error.to_string());
                Ok(())
            }
        }
    }

    /// Ends a connection and goes on to the next endpoint after a pause.
    fn lose(&mut self, index: usize, why: &str) {
        let now = Instant::now();
        let link = &mut self.links[index];
        let endpoint = &self.endpoints[link.endpoint];
        self.last_error = format!("{}: {why}", endpoint.name);
        if let Life::Connected(wire) = &mut link.life {
            if wire.connection.is_ready() && !wire.connection.is_spent() {
                self.shared.tally.lost_connection();
            }
            wire.connection.lose(&self.last_error, &mut self.shared.finished);
            // A farewell, if there is one, and if it can be sent at once.
            let _ = wire.flush();
        }
        let pause = BACK_OFF.0.saturating_mul(1 << link.attempts.min(16)).min(BACK_OFF.1);
        link.life = Life::Waiting { until: now + pause };
        link.attempts += 1;
        link.endpoint = (link.endpoint + 1) % self.endpoints.len();
        self.shared.record(&mut link.standing, now);
    }
}

impl Link {
    fn open(&self) -> usize {
        match &self.life {
            Life::Connected(wire) => wire.connection.open(),
            Life::Waiting { .. } => 0,
        }
    }

    fn is_ready(&self) -> bool {
        matches!(&self.life, Life::Connected(wire) if wire.connection.is_ready())
    }

    /// Reads what came in, starts what may start, writes what is due. An error ends the connection.
    fn serve(&mut self, shared: &mut Shared<'_>) -> Result<(), String> {
        let Life::Connected(wire) = &mut self.life else {
            return Ok(());
        };
        wire.read(shared)?;
        if wire.connection.is_ready() {
            self.attempts = 0;
        }
        let now = wire.heard;
        shared.record(&mut self.standing, now);
        self.start_and_flush(shared, now, false)
    }

    fn tick(&mut self, shared: &mut Shared<'_>, now: Instant) -> Result<(), String> {
        let Life::Connected(wire) = &mut self.life else {
            return Ok(());
        };
        if !wire.connection.is_ready() && now - wire.began > HANDSHAKE_MAX.min(shared.options.timeout) {
            return Err(format!("no HTTP/2 settings within {} ms", (now - wire.began).as_millis()));
        }
        if let Some(limit) = now.checked_sub(shared.options.timeout) {
            wire.connection.time_out(limit, &mut shared.finished);
            if !shared.finished.is_empty() && wire.heard < limit {
                return Err(format!("silent for {} ms", (now - wire.heard).as_millis()));
            }
        }
        shared.record(&mut self.standing, now);
        let Standing { failing, last_success, .. } = self.standing;
        if failing && shared.options.endpoints.len() > 1 && now - last_success >= shared.options.timeout {
            return Err(format!("no call succeeded for {} ms", (now - last_success).as_millis()));
        }
        self.start_and_flush(shared, now, true)
    }

    /// Starts what may start and writes what is due, or on a tick whatever there is.
    fn start_and_flush(&mut self, shared: &mut Shared<'_>, now: Instant, tick: bool) -> Result<(), String> {
        let Life::Connected(wire) = &mut self.life else {
            return Ok(());
        };
        while self.standing.paused.front().is_some_and(|&until| until <= now) {
            self.standing.paused.pop_front();
        }
        let connection = &mut wire.connection;
        let places = shared.options.outstanding_per_connection.saturating_sub(self.standing.paused.len());
        while shared.issuing && connection.open() < places && connection.can_start() {
            connection.start(&mut shared.requests, now);
        }
        if connection.is_spent() {
            return Err(connection.goodbye.take().unwrap_or_else(|| "the connection was used up".into()));
        }
        if tick || wire.connection.is_flush_due() {
            wire.flush().map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

impl Wire {
    fn read(&mut self, shared: &mut Shared<'_>) -> Result<(), String> {
        loop {
            match self.socket.read(&mut shared.buffer) {
                Ok(0) => {
                    let goodbye = self.connection.goodbye.take();
                    return Err(goodbye.unwrap_or_else(|| "the connection was closed".into()));
                }
                Ok(bytes) => {
                    self.heard = Instant::now();
                    let received = self.connection.receive(&shared.buffer[..bytes], &mut shared.finished);
                    received.map_err(|fault| fault.message)?;
                    // A short read means that the socket is empty, and that later bytes raise a new event;
                    // but an end that came with the last bytes raises none.
                    if bytes < shared.buffer.len() && !self.closing {
                        return Ok(());
                    }
                }
                Err(error) if is_not_yet(&error) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        while self.writable && self.written < self.connection.out.len() {
            match self.socket.write(&self.connection.out[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if is_not_yet(&error) => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.written == self.connection.out.len() {
            self.connection.flushed();
            self.written = 0;
        }
        Ok(())
    }
}

/// Whether a socket has nothing to give or take now, or is still connecting.
fn is_not_yet(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

impl Shared<'_> {
    /// Counts the calls that finished; the places of failed ones pause.
    fn record(&mut self, standing: &mut Standing, now: Instant) {
        for call in self.finished.drain(..) {
            standing.failing = call.failure.is_some();
            if standing.failing {
                standing.paused.push_back(now + FAILURE_PAUSE);
            } else {
                standing.last_success = now;
            }
            if self.countable > 0 {
                self.countable -= 1;
                self.tally.record(call, now);
            }
        }
    }
}

fn resolve(name: &str) -> Result<Endpoint, Error> {
    let name = name.trim_start_matches("http://").trim_end_matches('/');
    let bad = |problem: String| Error::BadOption { option: "endpoints", problem };
    let addresses: Vec<SocketAddr> = name
        .to_socket_addrs()
        .map_err(|error| bad(format!("{name}: {error}; expected host:port, as in 127.0.0.1:2379")))?
        .collect();
    if addresses.is_empty() {
        return Err(bad(format!("{name} has no address")));
    }
    Ok(Endpoint { name: name.to_owned(), addresses })
}
