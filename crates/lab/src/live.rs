//! What the page needs of a live cluster, and the buffer that lets a page opened late see the past.

use crate::operations::Operations;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Events of the live cluster that the server keeps for pages opened later.
pub const LIVE_EVENTS_MAX: usize = 20_000;

/// Bytes of those events that the server keeps.
pub const LIVE_BYTES_MAX: usize = 16 << 20;

/// Events that a slow page may lie behind before it is told of a gap.
pub const LIVE_LAG_MAX: usize = 4_096;

/// A running cluster of real processes that the page can watch and break.
///
/// The demo supervisor implements it. All methods are called from the server's runtime and must
/// not block for long; `act` may start work and report its outcome through the event stream.
pub trait LiveCluster: Send + Sync + 'static {
    /// The members as they are now, and which faults this cluster can do.
    fn describe(&self) -> LiveDescription;

    /// The stream of events from now on: each a JSON object of the trace format, its `t` in
    /// nanoseconds since the cluster started, in order of time.
    ///
    /// Besides the trace's own events the stream may carry `{"t":..,"k":"process","n":"n1",
    /// "pid":4711,"running":true,"stopped":false}` whenever a process changes.
    fn subscribe(&self) -> broadcast::Receiver<Arc<str>>;

    /// Does one thing to the cluster.
    ///
    /// # Errors
    /// A sentence for the person who clicked: what was not done, why, and what to do instead.
    fn act(&self, action: &LiveAction) -> Result<(), String>;

    /// What the clients that [`LiveVerb::Ask`] started have asked and heard, in a format that the checker reads, while they
    /// go on too; nothing before the first time.
    fn history(&self) -> Option<LiveHistory> {
        None
    }
}

/// What clients of a live cluster have asked and heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveHistory {
    /// The history.
    pub text: Vec<u8>,
    /// Whether it still grows.
    pub growing: bool,
}

/// A live cluster as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveDescription {
    /// The protocol it runs, such as `raft`.
    pub protocol: String,
    /// Its members, in order.
    pub nodes: Vec<LiveNode>,
    /// What can be done to it. A cluster without fault injection leaves out `Cut` and `Heal`.
    pub actions: Vec<LiveVerb>,
    /// Why an action that is not in `actions` is missing and how to get it, if that is worth saying.
    pub note: Option<String>,
    /// Nanoseconds since the cluster started.
    pub t: u64,
}

/// One live member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveNode {
    /// Its name in the events, such as `n1`.
    pub name: String,
    /// Its process id, when it runs.
    pub pid: Option<u32>,
    /// Whether its process is stopped (SIGSTOP).
    pub stopped: bool,
    /// Where clients reach it, such as `http://127.0.0.1:2379`.
    pub client: String,
    /// Where its peers reach it.
    pub peer: String,
    /// Its data directory.
    pub data: String,
}

/// What a click may do to a live cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LiveVerb {
    /// End the process at once (SIGKILL).
    Kill,
    /// Stop the process (SIGSTOP).
    Stop,
    /// Let a stopped process go on (SIGCONT).
    Cont,
    /// Start the process again on the data that it left.
    Start,
    /// Cut the link between two members, both ways.
    Cut,
    /// Mend the link between two members; without names, mend all.
    Heal,
    /// Let clients write and read for a while, and record what they hear; to no member in particular.
    Ask,
}

/// One thing to do to a live cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveAction {
    /// What to do.
    #[serde(rename = "do")]
    pub verb: LiveVerb,
    /// To whom. Only `heal` and `ask` go without.
    #[serde(default)]
    pub node: Option<String>,
    /// The other end of the link, for `cut` and `heal`.
    #[serde(default)]
    pub peer: Option<String>,
}

/// The recent past of a live cluster, and its present to whoever listens.
pub(crate) struct LiveFeed {
    past: Mutex<Past>,
    operations: Mutex<Operations>,
    onward: broadcast::Sender<Arc<str>>,
}

#[derive(Default)]
struct Past {
    events: VecDeque<Arc<str>>,
    bytes: usize,
    /// The last state of each node that has fallen out of `events`.
    states: BTreeMap<String, Value>,
    cuts: Option<Value>,
}

impl Past {
    fn push(&mut self, event: Arc<str>) {
        self.bytes += event.len();
        self.events.push_back(event);
        while self.events.len() > LIVE_EVENTS_MAX || self.bytes > LIVE_BYTES_MAX {
            let Some(old) = self.events.pop_front() else { break };
            self.bytes -= old.len();
            self.remember(&old);
        }
    }

    fn remember(&mut self, event: &str) {
        let Ok(mut event) = serde_json::from_str::<Value>(event) else { return };
        if event["k"] == "state"
            && let Some(node) = event["n"].as_str()
        {
            self.states.insert(node.to_owned(), event["s"].take());
        } else if event["k"] == "process"
            && let Some(state) = event["n"].as_str().and_then(|node| self.states.get_mut(node))
        {
            // A process that ended or stands still cannot say so itself.
            state["up"] = event["running"].take();
            state["paused"] = event["stopped"].take();
        } else if event["k"] == "fault" && event["cuts"].is_array() {
            self.cuts = Some(event["cuts"].take());
        }
    }
}

impl LiveFeed {
    /// Listens to `cluster` for as long as the runtime lives.
    pub(crate) fn start(cluster: &Arc<dyn LiveCluster>) -> Arc<LiveFeed> {
        let (onward, _) = broadcast::channel(LIVE_LAG_MAX);
        let feed = Arc::new(LiveFeed { past: Mutex::default(), operations: Mutex::default(), onward });
        let mut events = cluster.subscribe();
        let listener = Arc::clone(&feed);
        tokio::spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event) => listener.take(event),
                    Err(RecvError::Lagged(missed)) => {
                        listener.operations().hole("more happened than could be kept up with");
                        listener.take(gap(missed));
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        });
        feed
    }

    /// What clients of keyspaces have asked and heard.
    pub(crate) fn operations(&self) -> MutexGuard<'_, Operations> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, event: Arc<str>) {
        self.operations().take(&event);
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.push(Arc::clone(&event));
        // Under the lock, so that a page that joins now gets each event once. Nobody listening
        // is no error.
        let _ = self.onward.send(event);
    }

    /// The past, as messages for one page, and the receiver of what follows on it.
    pub(crate) fn join(&self) -> (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let keyframe = serde_json::json!({
            "k": "keyframe", "states": past.states, "cuts": past.cuts,
        });
        let mut messages = Vec::with_capacity(past.events.len() + 1);
        messages.push(Arc::from(keyframe.to_string()));
        messages.extend(past.events.iter().cloned());
        (messages, self.onward.subscribe())
    }
}

/// What a listener is told that could not keep up.
pub(crate) fn gap(missed: u64) -> Arc<str> {
    Arc::from(format!("{{\"k\":\"gap\",\"missed\":{missed}}}"))
}
