//! Ways between processes here and those of other clusters: the coordinator here and a keyspace there, or the other way round.
//!
//! A message goes out as a request of its own, and what comes back with the answer arrives here as messages. What arrives as a
//! request waits for the answers of the process that it is for; an answer that nobody waits for any more goes out as a request. Whatever is
//! lost is said again by whoever needs it said.

use super::host::{Happened, Mailbox};
use crate::outside::{ClusterPeer, Envelope, PeerError, To, admitted};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use synod_protocols::commit::{Decision, Message, Refusal, TxnId, Vote};
use synod_protocols::{Describe, NodeId};
use tokio::sync::mpsc::UnboundedSender;

/// How long an endpoint may take to answer: longer than a member waits for the process that it asks.
const PATIENCE: Duration = Duration::from_secs(3);
/// Requests under way to one participant or coordinator; more messages are lost.
const UNDER_WAY_MAX: usize = 256;
/// Requests from other clusters whose answers are waited for; more are answered with nothing.
const WAITING_MAX: usize = 4096;

/// All of them, while this member leads.
#[derive(Default)]
pub(super) struct Ways {
    /// From a process here to one elsewhere.
    ways: BTreeMap<(NodeId, NodeId), Way>,
    waiting: Vec<Waiting>,
}

/// A message by the kind that it is of, and its transaction.
type Said = (Option<TxnId>, &'static str);

struct Way {
    /// Of what it was made, which may change.
    endpoints: Vec<String>,
    header: Envelope,
    peer: Rc<ClusterPeer>,
    /// What is under way: the same need not be said twice at a time.
    under_way: Rc<RefCell<BTreeSet<Said>>>,
}

/// A request from another cluster.
struct Waiting {
    /// The process here.
    from: NodeId,
    /// The process there.
    to: NodeId,
    txns: BTreeSet<TxnId>,
    answers: UnboundedSender<Message>,
}

impl Ways {
    /// Another member leads now.
    pub(super) fn forget(&mut self) {
        *self = Ways::default();
    }

    /// Messages from elsewhere have come in a request, whose sender waits for answers.
    pub(super) fn wait(
        &mut self,
        (there, here): (NodeId, NodeId),
        messages: &[Message],
        answers: UnboundedSender<Message>,
    ) {
        self.waiting.retain(|waiting| !waiting.answers.is_closed());
        let txns: BTreeSet<TxnId> =
            messages.iter().filter(|message| is_answered(message)).filter_map(txn_of).collect();
        if !txns.is_empty() && self.waiting.len() < WAITING_MAX {
            self.waiting.push(Waiting { from: here, to: there, txns, answers });
        }
    }

    /// Hands a message to a request that waits for it, if there is one.
    pub(super) fn give(&mut self, from: NodeId, to: NodeId, message: &Message) -> bool {
        // A question is for whoever knows, and not what anybody waits for.
        let Some(txn) = txn_of(message).filter(|_| !matches!(message, Message::Ask { .. })) else {
            return false;
        };
        let mut is_given = false;
        self.waiting.retain_mut(|waiting| {
            let is_for = (waiting.from, waiting.to) == (from, to) && waiting.txns.contains(&txn);
            if is_for && !is_given {
                is_given = waiting.answers.send(message.clone()).is_ok();
                waiting.txns.remove(&txn);
            }
            !waiting.txns.is_empty() && !waiting.answers.is_closed()
        });
        is_given
    }

    /// Sends a message to another cluster; what is answered comes back by the mailbox.
    pub(super) fn send(
        &mut self,
        mailbox: &Mailbox,
        (from, to): (NodeId, NodeId),
        (endpoints, header): (&[String], Envelope),
        message: Message,
    ) {
        let what = (txn_of(&message), message.name());
        let Some(way) = self.way((from, to), endpoints, header) else { return };
        {
            let mut under_way = way.under_way.borrow_mut();
            if under_way.len() >= UNDER_WAY_MAX || !under_way.insert(what) {
                return;
            }
        }
        let (peer, under_way) = (Rc::clone(&way.peer), Rc::clone(&way.under_way));
        let (coordinator, is_for_coordinator) = (way.header.coordinator, way.header.to != To::Coordinator);
        let mailbox = mailbox.clone();
        tokio::task::spawn_local(async move {
            let answers = match peer.send(vec![message.clone()]).await {
                Ok(answers) => answers,
                Err(PeerError::Refused(why)) => decline(&message, why).into_iter().collect(),
                Err(PeerError::NoAnswer(_)) => Vec::new(),
            };
            under_way.borrow_mut().remove(&what);
            for message in answers {
                if let Some(message) = admitted(coordinator, is_for_coordinator, message) {
                    mailbox.tell(Happened::Message { from: to, to: from, message });
                }
            }
        });
    }

    fn way(&mut self, ends: (NodeId, NodeId), endpoints: &[String], header: Envelope) -> Option<&Way> {
        let is_made = |way: &Way| way.endpoints == endpoints && way.header == header;
        if !self.ways.get(&ends).is_some_and(is_made) {
            let peer = Rc::new(ClusterPeer::new(endpoints, header.clone(), PATIENCE).ok()?);
            let (endpoints, under_way) = (endpoints.to_vec(), Rc::default());
            self.ways.insert(ends, Way { endpoints, header, peer, under_way });
        }
        self.ways.get(&ends)
    }
}

/// Which transaction a message is about.
fn txn_of(message: &Message) -> Option<TxnId> {
    Some(match message {
        Message::Work { txn, .. }
        | Message::Worked { txn, .. }
        | Message::Prepare { txn, .. }
        | Message::Vote { txn, .. }
        | Message::OnePhase { txn, .. }
        | Message::Finished { txn, .. }
        | Message::Decide { txn, .. }
        | Message::Ack { txn }
        | Message::Ask { txn, .. }
        | Message::Tell { txn, .. } => *txn,
        Message::Fenced { .. } => return None,
    })
}

/// Whether its receiver has something to say to it.
pub(super) fn is_answered(message: &Message) -> bool {
    match message {
        Message::Work { .. } | Message::Prepare { .. } | Message::OnePhase { .. } | Message::Ask { .. } => {
            true
        }
        Message::Decide { decision, .. } => *decision == Decision::Commit,
        _ => false,
    }
}

/// The other cluster does not take the message. Whatever it has promised before, a no is true: then the transaction aborts. Nothing
/// is said of work that it decides alone, because an earlier request may have done it.
fn decline(message: &Message, why: String) -> Option<Message> {
    match message {
        Message::Prepare { txn, .. } | Message::Work { txn, .. } => {
            Some(Message::Vote { txn: *txn, vote: Vote::No { why: Refusal::Declined { why } } })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_protocols::commit::Stamp;
    use tokio::sync::mpsc::unbounded_channel;

    const COORDINATOR: NodeId = NodeId(u64::MAX >> 1);
    const KEYSPACE: NodeId = NodeId(3);

    fn txn(number: u64) -> TxnId {
        TxnId { coordinator: COORDINATOR, epoch: 1, number }
    }

    fn decide(number: u64, decision: Decision) -> Message {
        Message::Decide { stamp: Stamp { epoch: 1, floor: txn(1) }, txn: txn(number), decision }
    }

    #[test]
    fn an_answer_goes_to_the_request_that_waits_for_it_and_to_no_other() {
        let mut ways = Ways::default();
        let (first, mut firsts) = unbounded_channel();
        let (second, mut seconds) = unbounded_channel();
        let commit = |number| [decide(number, Decision::Commit)];
        ways.wait((COORDINATOR, KEYSPACE), &commit(1), first);
        ways.wait((COORDINATOR, KEYSPACE), &commit(2), second);
        let ack = |number| Message::Ack { txn: txn(number) };
        assert!(!ways.give(NodeId(4), COORDINATOR, &ack(2)), "another keyspace");
        assert!(!ways.give(KEYSPACE, COORDINATOR, &Message::Ask { txn: txn(2), life: 0 }), "a question");
        assert!(ways.give(KEYSPACE, COORDINATOR, &ack(2)));
        assert!(!ways.give(KEYSPACE, COORDINATOR, &ack(2)), "once");
        assert_eq!((seconds.try_recv(), seconds.try_recv().is_err()), (Ok(ack(2)), true));
        assert!(firsts.try_recv().is_err(), "nothing yet");
        drop(firsts);
        assert!(!ways.give(KEYSPACE, COORDINATOR, &ack(1)), "whoever has gone waits no more");
    }

    #[test]
    fn what_has_no_answer_is_not_waited_for() {
        let mut ways = Ways::default();
        let (answers, mut heard) = unbounded_channel();
        ways.wait((COORDINATOR, KEYSPACE), &[decide(1, Decision::Abort)], answers);
        assert!(heard.try_recv().is_err() && heard.is_closed());
    }

    #[test]
    fn a_refusal_is_a_no_unless_the_work_may_be_done_already() {
        let (stamp, txn) = (Stamp { epoch: 1, floor: txn(1) }, txn(1));
        let why = || "there is no such keyspace".to_owned();
        let prepare = Message::Prepare { stamp, txn, addresses: vec![], peers: vec![], life: 0, work: None };
        let no = Message::Vote { txn, vote: Vote::No { why: Refusal::Declined { why: why() } } };
        assert_eq!(decline(&prepare, why()), Some(no));
        assert_eq!(decline(&Message::OnePhase { stamp, txn, life: 0, work: None }, why()), None);
        assert_eq!(decline(&decide(1, Decision::Commit), why()), None);
    }
}
