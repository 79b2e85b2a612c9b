//! What processes of other clusters say to those here, and which way leads to them.

use super::host::{Happened, Host};
use super::{coordinator_of, ways};
use crate::member::Member;
use crate::outside::{Description, ENDPOINTS_MAX, Envelope, To};
use std::rc::Rc;
use std::time::Duration;
use synod_node::spaces::SpaceId;
use synod_protocols::NodeId;
use synod_protocols::commit::Message;
use synod_protocols::log::ReplicatedLog;
use tokio::sync::mpsc::unbounded_channel;

/// How long a request waits for what a process here has to say. What comes later is sent.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Gives messages from a process elsewhere to one here, and waits for its answers: all of them, or those that came in time.
pub(crate) async fn exchange<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    (there, here): (NodeId, NodeId),
    messages: Vec<Message>,
) -> Vec<Message> {
    let expected = messages.iter().filter(|message| ways::is_answered(message)).count();
    let (answers, mut heard) = unbounded_channel();
    let mailbox = member.calls.borrow().host.clone();
    mailbox.tell(Happened::Arrived { from: there, to: here, messages, answers });
    let mut said = Vec::new();
    let all = async {
        while said.len() < expected
            && let Some(answer) = heard.recv().await
        {
            said.push(answer);
        }
    };
    // Too late is no error: what was said so far is an answer.
    let _ = tokio::time::timeout(ANSWER_WAIT, all).await;
    said
}

/// Where this cluster's members answer clients, for those who are to answer.
pub(crate) fn endpoints<P: ReplicatedLog + 'static>(member: &Member<P>) -> Vec<String> {
    let core = member.core.borrow();
    let members = member.member_infos(&core, &core.node.process().members());
    let addresses = members.into_iter().filter_map(|info| info.clients);
    addresses.map(|address| format!("http://{address}")).take(ENDPOINTS_MAX).collect()
}

impl<P: ReplicatedLog + 'static> Host<P> {
    /// Hands a message to whoever it is for in another cluster. False if there is nobody of that name.
    pub(super) fn send_elsewhere(&mut self, from: NodeId, to: NodeId, message: &Message) -> bool {
        if self.ways.give(from, to, message) {
            return true;
        }
        let Some((endpoints, coordinator, participant, whom)) = self.way(from, to) else { return false };
        // Only the coordinator talks to participants elsewhere: what those here ask them, it is asked too.
        if from != self.coordinator.id && whom != To::Coordinator {
            return true;
        }
        let reply = self::endpoints(&self.member);
        let header = Envelope { coordinator, participant, to: whom, reply, messages: Vec::new() };
        let mailbox = self.member.calls.borrow().host.clone();
        self.ways.send(&mailbox, (from, to), (&endpoints, header), message.clone());
        true
    }

    /// Where somebody elsewhere is reached, and under which names the two talk.
    fn way(&self, from: NodeId, to: NodeId) -> Option<(Vec<String>, NodeId, NodeId, To)> {
        let core = self.member.core.borrow();
        let machine = core.node.machine();
        if let Some(outside) = machine.registry().outside().find(|outside| outside.id.0 == to.0) {
            let description = Description::parse(&outside.description).ok()?;
            let (there, endpoints) = description.elsewhere()?;
            let own = coordinator_of(self.member.config.cluster_id());
            return Some((endpoints.to_vec(), own, to, To::Keyspace(there)));
        }
        let contact = machine.contact(SpaceId(from.0), to).ok()??;
        Some((contact.endpoints, to, contact.participant, To::Coordinator))
    }
}
