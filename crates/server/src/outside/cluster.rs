//! Another Synod cluster as a participant of two-phase commit: messages between clusters, over HTTP.
//!
//! The participant there is a keyspace, and runs the same code as one here. This is only the way: an [`Envelope`] of messages is posted to
//! `/v1/participant/messages` of any endpoint, whose member redirects to its leader. Answers come back in the response, in an envelope the
//! other way round, or later, posted to one of the endpoints that the first envelope names: those a participant keeps with its promise,
//! durably, since in doubt it must find its coordinator. Everything may be lost, repeated or late, which the protocol bears.

use super::http::{BadUrl, Base, Client};
use super::{from_base64, one_line, to_base64};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use synod_protocols::NodeId;
use synod_protocols::commit::{Message, Stamp, TxnId};
use synod_protocols::wire::Wire;

/// Where envelopes are posted.
pub const MESSAGES_PATH: &str = "/v1/participant/messages";
/// Messages in one envelope; more are sent in several.
pub const MESSAGES_MAX: usize = 64;
/// Bytes of an envelope as JSON. A message that does not fit is not sent.
pub const ENVELOPE_BYTES_MAX: usize = 4 << 20;
/// Endpoints of one cluster.
pub const ENDPOINTS_MAX: usize = 16;
/// Bytes of a keyspace's name.
const NAME_BYTES_MAX: usize = 256;
/// Of what should be a number, so much is repeated to its sender.
const NUMBER_SHOWN_MAX: usize = 24;
/// Redirections that are followed for one request.
const REDIRECTS_MAX: usize = 3;

/// Whom an envelope is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// The participant: a keyspace of the cluster that gets the envelope.
    Keyspace(KeyspaceThere),
    /// The coordinator. An answer says so too: it goes back where the question came from.
    Coordinator,
}

/// A keyspace of another cluster, so that neither another cluster that answers at the same address, nor another keyspace of the same name,
/// is taken for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceThere {
    /// The cluster, by the name of its coordinator.
    pub cluster: NodeId,
    /// The keyspace's number there.
    pub id: NodeId,
    /// What it is called there.
    pub name: String,
}

/// Messages between the coordinator in one cluster and a participant in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The coordinator, by its own name.
    pub coordinator: NodeId,
    /// The participant, as the coordinator's cluster calls it: its answers name it so.
    pub participant: NodeId,
    /// Which of the two gets it.
    pub to: To,
    /// Endpoints of the sender's cluster, where answers that come later, and questions of who is in doubt, are to be posted.
    pub reply: Vec<String>,
    /// At most [`MESSAGES_MAX`].
    pub messages: Vec<Message>,
}

/// A message, if it is one that such an envelope may carry: about transactions of its coordinator, and from the one to the other. What a
/// coordinator says of other participants is left out: their numbers mean others here, and would be asked how the transaction ended. So
/// is whom to ask: it is itself.
pub(crate) fn admitted(coordinator: NodeId, is_for_coordinator: bool, message: Message) -> Option<Message> {
    use Message::{Ack, Ask, Decide, Fenced, Finished, OnePhase, Prepare, Tell, Vote, Work, Worked};
    let is_own = |stamp: &Stamp, txn: &TxnId| {
        (stamp.floor.coordinator, txn.coordinator) == (coordinator, coordinator) && !is_for_coordinator
    };
    let (addresses, peers) = (vec![coordinator], Vec::new());
    Some(match message {
        Work { stamp, txn, sequence, work, .. } if is_own(&stamp, &txn) => {
            Work { stamp, txn, sequence, addresses, work }
        }
        Prepare { stamp, txn, life, work, .. } if is_own(&stamp, &txn) => {
            Prepare { stamp, txn, addresses, peers, life, work }
        }
        OnePhase { ref stamp, ref txn, .. } | Decide { ref stamp, ref txn, .. } if is_own(stamp, txn) => {
            message
        }
        Worked { txn, .. } | Vote { txn, .. } | Finished { txn, .. } | Ack { txn } | Ask { txn, .. }
            if txn.coordinator == coordinator && is_for_coordinator =>
        {
            message
        }
        Fenced { coordinator: fenced, .. } if fenced == coordinator && is_for_coordinator => message,
        Tell { .. } | Work { .. } | Prepare { .. } | OnePhase { .. } | Decide { .. } => return None,
        Worked { .. } | Vote { .. } | Finished { .. } | Ack { .. } | Ask { .. } | Fenced { .. } => {
            return None;
        }
    })
}

/// Why bytes are no envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEnvelope(String);

impl fmt::Display for BadEnvelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this is no envelope of messages: {}", self.0)
    }
}

impl std::error::Error for BadEnvelope {}

impl fmt::Display for KeyspaceThere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keyspace {} of cluster {}", self.id.0, self.cluster.0)
    }
}

/// As it is written. Numbers are text, because many readers of JSON hold them as floating point.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    coordinator: String,
    participant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyspace: Option<WrittenKeyspace>,
    #[serde(default)]
    reply: Vec<String>,
    messages: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKeyspace {
    cluster: String,
    id: String,
    name: String,
}

impl Envelope {
    /// As JSON.
    pub fn encode(&self) -> Bytes {
        let keyspace = match &self.to {
            To::Keyspace(there) => Some(WrittenKeyspace {
                cluster: there.cluster.0.to_string(),
                id: there.id.0.to_string(),
                name: there.name.clone(),
            }),
            To::Coordinator => None,
        };
        let written = Written {
            coordinator: self.coordinator.0.to_string(),
            participant: self.participant.0.to_string(),
            keyspace,
            reply: self.reply.clone(),
            messages: self.messages.iter().map(|message| to_base64(&message.to_bytes())).collect(),
        };
        // Text, lists and options can always be written.
        Bytes::from(serde_json::to_vec(&written).unwrap_or_default())
    }

    /// Reads what [`Envelope::encode`] has written.
    ///
    /// # Errors
    /// What is wrong with it, for its sender.
    pub fn decode(json: &[u8]) -> Result<Envelope, BadEnvelope> {
        let bad = |why: String| BadEnvelope(why);
        if json.len() > ENVELOPE_BYTES_MAX {
            return Err(bad(format!("it has more than {ENVELOPE_BYTES_MAX} bytes")));
        }
        let written: Written = serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
        let node = |text: &str| match text.parse() {
            Ok(0) | Err(_) => {
                let text: String = text.chars().take(NUMBER_SHOWN_MAX).collect();
                Err(bad(format!("{text:?} is no number of a coordinator or a participant")))
            }
            Ok(number) => Ok(NodeId(number)),
        };
        let name_bytes = written.keyspace.as_ref().map_or(0, |keyspace| keyspace.name.len());
        if name_bytes > NAME_BYTES_MAX
            || written.reply.len() > ENDPOINTS_MAX
            || written.messages.len() > MESSAGES_MAX
        {
            return Err(bad(format!(
                "it has at most {MESSAGES_MAX} messages, {ENDPOINTS_MAX} endpoints and {NAME_BYTES_MAX} bytes of a name"
            )));
        }
        for endpoint in &written.reply {
            Base::parse(endpoint).map_err(|why| bad(format!("the endpoint {endpoint:?}: {why}")))?;
        }
        let message = |text: &String| {
            let bytes = from_base64(text).ok_or_else(|| bad("a message is not base64".into()))?;
            Message::from_bytes(bytes).map_err(|error| bad(format!("a message cannot be read: {error}")))
        };
        let to = match written.keyspace {
            Some(WrittenKeyspace { cluster, id, name }) => {
                To::Keyspace(KeyspaceThere { cluster: node(&cluster)?, id: node(&id)?, name })
            }
            None => To::Coordinator,
        };
        Ok(Envelope {
            coordinator: node(&written.coordinator)?,
            participant: node(&written.participant)?,
            to,
            reply: written.reply,
            messages: written.messages.iter().map(message).collect::<Result<_, _>>()?,
        })
    }
}

/// Why no answer came from another cluster. The messages may have arrived or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// None of its endpoints has taken them now: try again later.
    NoAnswer(String),
    /// It does not take them: there is no such keyspace, say.
    Refused(String),
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerError::NoAnswer(why) => write!(f, "the other cluster does not answer: {why}"),
            PeerError::Refused(why) => write!(f, "the other cluster refuses: {why}"),
        }
    }
}

impl std::error::Error for PeerError {}

/// The way from this cluster to one participant, or one coordinator, of another.
#[derive(Debug)]
pub struct ClusterPeer {
    endpoints: Vec<Base>,
    /// Which of them has answered last.
    latest: AtomicUsize,
    header: Envelope,
    timeout: Duration,
    client: Client,
}

impl ClusterPeer {
    /// A way to any of these endpoints. `header` is what goes with all messages; its own are ignored. An endpoint that does not answer within
    /// `timeout` is passed over.
    ///
    /// # Errors
    /// If there is no endpoint, or too many, or one that is no `http` address.
    pub fn new(endpoints: &[String], header: Envelope, timeout: Duration) -> Result<ClusterPeer, BadUrl> {
        if endpoints.is_empty() || endpoints.len() > ENDPOINTS_MAX {
            return Err(BadUrl::new(format!("a cluster has 1 to {ENDPOINTS_MAX} endpoints")));
        }
        let endpoints = endpoints.iter().map(|url| Base::parse(url)).collect::<Result<_, _>>()?;
        let (latest, client) = (AtomicUsize::new(0), Client::default());
        Ok(ClusterPeer { endpoints, latest, header, timeout, client })
    }

    /// Sends messages, in several envelopes if they are many, and returns the answers that came at once.
    ///
    /// Needs a tokio runtime with I/O and time. May be dropped at any moment.
    ///
    /// # Errors
    /// [`PeerError`] for the first envelope that was not answered; later ones are not sent.
    pub async fn send(&self, messages: Vec<Message>) -> Result<Vec<Message>, PeerError> {
        let mut answers = Vec::new();
        for messages in messages.chunks(MESSAGES_MAX) {
            let envelope = Envelope { messages: messages.to_vec(), ..self.header.clone() };
            let body = envelope.encode();
            if body.len() <= ENVELOPE_BYTES_MAX {
                answers.extend(self.post(&body).await?);
                continue;
            }
            for message in envelope.messages {
                let body = Envelope { messages: vec![message], ..self.header.clone() }.encode();
                if body.len() > ENVELOPE_BYTES_MAX {
                    return Err(PeerError::Refused(format!(
                        "a message has more than {ENVELOPE_BYTES_MAX} bytes"
                    )));
                }
                answers.extend(self.post(&body).await?);
            }
        }
        Ok(answers)
    }

    /// Tries one endpoint after the other, beginning with the one that answered last.
    async fn post(&self, body: &Bytes) -> Result<Vec<Message>, PeerError> {
        let first = self.latest.load(Ordering::Relaxed);
        let mut why = String::new();
        for place in 0..self.endpoints.len() {
            let place = (first + place) % self.endpoints.len();
            match self.post_to(&self.endpoints[place], body).await {
                Ok(answers) => {
                    self.latest.store(place, Ordering::Relaxed);
                    return Ok(answers);
                }
                Err(PeerError::NoAnswer(reason)) => why = reason,
                Err(refused) => return Err(refused),
            }
        }
        Err(PeerError::NoAnswer(why))
    }

    /// Asks one endpoint, and whom it redirects to.
    async fn post_to(&self, endpoint: &Base, body: &Bytes) -> Result<Vec<Message>, PeerError> {
        let (mut base, mut path) = (endpoint.clone(), MESSAGES_PATH.to_owned());
        for _ in 0..=REDIRECTS_MAX {
            let bounds = (self.timeout, ENVELOPE_BYTES_MAX);
            let answer = self.client.post(&base, &path, &[], body, bounds).await;
            let answer = answer.map_err(|none| PeerError::NoAnswer(none.why()))?;
            let status = answer.status;
            if status.is_redirection() {
                let location = answer.location.unwrap_or_default();
                (base, path) = base.resolve(&location).map_err(|why| PeerError::NoAnswer(why.to_string()))?;
                continue;
            }
            if status.is_success() {
                return self.open(&answer.body);
            }
            let said =
                one_line(&format!("{base} answered {status}: {}", String::from_utf8_lossy(&answer.body)));
            return Err(match status.as_u16() {
                400 | 404 | 409 | 413 => PeerError::Refused(said),
                _ => PeerError::NoAnswer(said),
            });
        }
        Err(PeerError::NoAnswer(format!("{endpoint} redirects more than {REDIRECTS_MAX} times")))
    }

    /// The messages of an answer, which must be one to this header.
    fn open(&self, body: &Bytes) -> Result<Vec<Message>, PeerError> {
        let envelope = Envelope::decode(body).map_err(|why| PeerError::NoAnswer(why.to_string()))?;
        let Envelope { coordinator, participant, .. } = &self.header;
        if (envelope.coordinator, envelope.participant) != (*coordinator, *participant) {
            return Err(PeerError::NoAnswer("it answered to somebody else".into()));
        }
        Ok(envelope.messages)
    }
}
