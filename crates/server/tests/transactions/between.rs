//! What stands between two clusters: all that the coordinator of one and a keyspace of the other say to each other passes here, and is
//! stopped at the step that a test names.
//!
//! The members know nothing of it. One is registered with a [`Between`] as the other's endpoint, and in the envelopes that pass it puts itself in the
//! place where answers and questions are to be posted.

use super::client::{Answer, exchange};
use super::web::{Answered, Asked, Web};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;
use synod_protocols::commit::{KeyOp, Message, TxnId};
use synod_protocols::{Describe, Wire};
use synod_server::outside::{Envelope, MESSAGES_PATH, To};

/// A web server on a thread of its own. What answers may wait for as long as it wants.
pub(crate) struct Door {
    pub(crate) url: String,
    over: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Door {
    pub(crate) fn open(answer: impl Fn(&Asked) -> Answered + Send + Sync + 'static) -> Door {
        let (over, is_over) = tokio::sync::oneshot::channel();
        let (url, known) = channel();
        let answer = Arc::new(answer);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            runtime.block_on(async move {
                let web = Web::start(move |asked| {
                    let answer = Arc::clone(&answer);
                    async move {
                        let answered = tokio::task::spawn_blocking(move || answer(&asked));
                        answered.await.expect("no panic")
                    }
                });
                url.send(web.url()).expect("it is waited for");
                let _ = is_over.await;
            });
            // Who still waits for an order is not waited for.
            runtime.shutdown_background();
        });
        Door { url: known.recv().expect("an address"), over: Some(over), thread: Some(thread) }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(self.over.take());
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// What becomes of a message that was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    Lose,
    Twice,
    /// It arrives as a request of its own, also if nobody waits for it any more where it would be an answer.
    Deliver,
}

/// What else is lost of the transaction that is aimed at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Loss {
    #[default]
    Nothing,
    /// Orders to commit, until the aim is met: only who asks is told.
    Orders,
    /// Once the aim is met, what comes of the same name: the vote goes with the answer to another question too, say.
    Repetitions,
}

/// A message on its way, which goes nowhere before its fate is said.
pub(crate) struct Stopped {
    fate: Sender<Fate>,
    done: Receiver<()>,
}

impl Stopped {
    /// Waits until the message has arrived, or is lost.
    pub(crate) fn meets(self, fate: Fate) {
        let _ = self.fate.send(fate);
        let _ = self.done.recv();
    }
}

/// Where a message is stopped: the first one of this name of the next transaction that moves money.
struct Aim {
    at: &'static str,
    stopped: Sender<Stopped>,
}

#[derive(Default)]
struct State {
    aim: Option<Aim>,
    /// The transaction that is aimed at, once it is known.
    txn: Option<TxnId>,
    loss: Loss,
    /// What was struck, once it is.
    struck: Option<&'static str>,
    /// What has passed of that transaction, and when.
    seen: Vec<(Instant, String)>,
    /// How the keyspace is addressed.
    keyspace: Option<To>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The coordinator's cluster.
    Here,
    /// That of the keyspace.
    There,
}

struct Way {
    here: Vec<String>,
    there: Vec<String>,
    /// Where each side is reached by way of the test.
    urls: OnceLock<(String, String)>,
    state: Mutex<State>,
}

/// The only way between the members of two clusters.
pub(crate) struct Between {
    way: Arc<Way>,
    _doors: [Door; 2],
}

impl Between {
    pub(crate) fn open(here: &[String], there: &[String]) -> Between {
        let (here, there) = (here.to_vec(), there.to_vec());
        let way = Arc::new(Way { here, there, urls: OnceLock::new(), state: Mutex::default() });
        let doors = [Side::Here, Side::There].map(|side| {
            let way = Arc::clone(&way);
            Door::open(move |asked| way.carry(side, asked))
        });
        way.urls.set((doors[0].url.clone(), doors[1].url.clone())).expect("set once");
        Between { way, _doors: doors }
    }

    /// Where the other cluster is registered.
    pub(crate) fn url_there(&self) -> String {
        self.way.url(Side::There).to_owned()
    }

    /// Stops the first message of this name of the next transaction that moves money.
    pub(crate) fn aim(&self, at: &'static str, loss: Loss) -> Receiver<Stopped> {
        let (stopped, stops) = channel();
        let mut state = self.way.state();
        (state.aim, state.txn) = (Some(Aim { at, stopped }), None);
        (state.loss, state.struck) = (loss, None);
        state.seen.clear();
        stops
    }

    /// Stops the next message of this name of the same transaction.
    pub(crate) fn aim_again(&self, at: &'static str) -> Receiver<Stopped> {
        let (stopped, stops) = channel();
        let mut state = self.way.state();
        (state.aim, state.loss) = (Some(Aim { at, stopped }), Loss::Nothing);
        stops
    }

    /// What has come by of the transaction that was aimed at.
    pub(crate) fn seen(&self) -> String {
        let state = self.way.state();
        let Some((first, _)) = state.seen.first() else { return String::new() };
        let line = |(at, what): &(Instant, String)| format!("  {:>5} ms {what}", (*at - *first).as_millis());
        state.seen.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Way {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    fn url(&self, side: Side) -> &str {
        let (here, there) = self.urls.get().expect("both doors are open");
        if side == Side::Here { here } else { there }
    }

    /// A request for this side.
    fn carry(&self, to: Side, asked: &Asked) -> Answered {
        let Ok(mut envelope) = Envelope::decode(&asked.body) else {
            return self.ask(to, "GET", &asked.path, "").map(shown);
        };
        let back = if to == Side::Here { Side::There } else { Side::Here };
        envelope.reply = vec![self.url(back).to_owned()];
        if to == Side::There {
            self.state().keyspace = Some(envelope.to.clone());
        }
        assert_eq!(envelope.messages.len(), 1, "a step of its own: {envelope:?}");
        let (fate, _done) = self.fate(&envelope.messages[0], true);
        if fate == Fate::Lose {
            return SILENCE;
        }
        let mut answers = Vec::new();
        for _ in 0..if fate == Fate::Twice { 2 } else { 1 } {
            let said = self.post(to, &envelope)?;
            let Ok(said) = Envelope::decode(said.text.as_bytes()) else { return Some(shown(said)) };
            answers.extend(said.messages);
        }
        answers.retain(|answer| self.passes(back, &envelope, answer));
        let said = Envelope { to: To::Coordinator, messages: answers, ..envelope };
        Some((200, None, String::from_utf8(said.encode().to_vec()).expect("JSON")))
    }

    /// Whether an answer goes back as one.
    fn passes(&self, to: Side, asked: &Envelope, answer: &Message) -> bool {
        let (fate, _done) = self.fate(answer, false);
        if matches!(fate, Fate::Twice | Fate::Deliver) {
            let whom = if to == Side::Here { Some(To::Coordinator) } else { self.state().keyspace.clone() };
            let messages = vec![answer.clone()];
            let envelope = Envelope { to: whom.expect("it was addressed"), messages, ..asked.clone() };
            self.post(to, &envelope);
        }
        matches!(fate, Fate::Pass | Fate::Twice)
    }

    /// What becomes of a message, when that is known. The second part is dropped when it has met its fate.
    fn fate(&self, message: &Message, is_request: bool) -> (Fate, Option<Sender<()>>) {
        let (fates, done) = {
            let mut state = self.state();
            // An order to abort may overtake the one to prepare.
            let is_meant = moves_money(message) || message.name() == "Abort";
            if state.aim.is_some() && state.txn.is_none() && is_meant {
                state.txn = txn_of(message);
            }
            if state.txn.is_none() || state.txn != txn_of(message) {
                return (Fate::Pass, None);
            }
            let name = message.name();
            let is_lost = match state.loss {
                Loss::Nothing => false,
                Loss::Orders => is_request && name == "Commit" && state.struck.is_none(),
                Loss::Repetitions => state.struck == Some(name),
            };
            let stops = if is_lost { None } else { state.aim.take_if(|aim| aim.at == name) };
            let what = if is_lost {
                ": lost"
            } else if stops.is_some() {
                ": struck"
            } else {
                ""
            };
            let how = if is_request { "asked" } else { "answered" };
            state.seen.push((Instant::now(), format!("{how} {name} {}{what}", message.detail())));
            let Some(aim) = stops else { return (if is_lost { Fate::Lose } else { Fate::Pass }, None) };
            state.struck = Some(aim.at);
            let ((fate, fates), (done, is_done)) = (channel(), channel());
            if aim.stopped.send(Stopped { fate, done: is_done }).is_err() {
                return (Fate::Pass, None);
            }
            (fates, done)
        };
        (fates.recv().unwrap_or(Fate::Lose), Some(done))
    }

    fn post(&self, to: Side, envelope: &Envelope) -> Option<Answer> {
        let body = String::from_utf8(envelope.encode().to_vec()).expect("JSON");
        self.ask(to, "POST", MESSAGES_PATH, &body)
    }

    /// Asks the leader of a side; nothing if it dies meanwhile, or is not there.
    fn ask(&self, to: Side, method: &str, path: &str, body: &str) -> Option<Answer> {
        let members = if to == Side::Here { &self.here } else { &self.there };
        // What a member has heard is not said to another one: that would be twice.
        let member = members.iter().find(|member| TcpStream::connect(member).is_ok())?;
        let answer = exchange(member, method, path, &[], body)?;
        match (answer.status, answer.header("location")) {
            (307, Some(location)) => {
                let (leader, path) = location.strip_prefix("http://")?.split_once('/')?;
                exchange(leader, method, &format!("/{path}"), &[], body)
            }
            _ => Some(answer),
        }
    }
}

/// Nothing is known of the request.
const SILENCE: Answered = Some((503, None, String::new()));

fn shown(answer: Answer) -> (u16, Option<String>, String) {
    (answer.status, None, answer.text)
}

/// Reads of all accounts pass by unharmed.
fn moves_money(message: &Message) -> bool {
    let (Message::Prepare { work: Some(work), .. } | Message::OnePhase { work: Some(work), .. }) = message
    else {
        return false;
    };
    let ops: Vec<KeyOp> = Vec::from_bytes(work.clone()).expect("work of a keyspace");
    ops.iter().any(|op| matches!(op, KeyOp::Add { .. }))
}

fn txn_of(message: &Message) -> Option<TxnId> {
    match message {
        Message::Work { txn, .. }
        | Message::Worked { txn, .. }
        | Message::Prepare { txn, .. }
        | Message::Vote { txn, .. }
        | Message::OnePhase { txn, .. }
        | Message::Finished { txn, .. }
        | Message::Decide { txn, .. }
        | Message::Ack { txn }
        | Message::Ask { txn, .. }
        | Message::Tell { txn, .. } => Some(*txn),
        Message::Fenced { .. } => None,
    }
}
