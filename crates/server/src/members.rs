//! Who the members are: with whom to keep connections, what clients are told of them, and how
//! clients change them.

use crate::config::{Config, MemberAddress, parse_name};
use crate::member::{Core, Member};
use crate::peers::Link;
use crate::service::Service;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use synod_node::Change;
use synod_protocols::log::{ChangeRefusal, Member as LogMember, MemberPart, MembershipChange, ReplicatedLog};
use synod_protocols::{NodeId, Time};
use synod_store::proto::etcdserverpb::{Member as EtcdMember, MemberAddRequest};
use synod_store::{Code, Refusal};

/// How long a member that has left stays connected: it has to hear that it has.
const FAREWELL: Duration = Duration::from_secs(3);

/// A member, as the others know it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberInfo {
    /// Its number: its identity for ever. Its name is `n` and this number, as `Display` writes it.
    pub id: NodeId,
    /// Whether it votes, or only receives the log, or is on its way between the two.
    pub part: MemberPart,
    /// Where its peers reach it, `host:port`.
    pub peers: Option<String>,
    /// Where its clients reach it, `host:port`: as configured, or as it said when it was met.
    pub clients: Option<String>,
}

/// Who the members are, as the log has it now.
#[derive(Debug)]
pub(crate) struct Members {
    me: NodeId,
    /// In the order of their ids.
    now: Vec<LogMember>,
    /// Whether this member was ever among them.
    taken_in: bool,
    /// When this member is to stop, unless it is taken in again.
    gone_at: Option<Time>,
    /// The addresses of all who were ever heard of: for peers, and for clients.
    addresses: BTreeMap<NodeId, (String, Option<String>)>,
    /// When the links to those who have left are to be given up.
    leaving: BTreeMap<NodeId, Time>,
}

impl Members {
    pub(crate) fn new(config: &Config) -> Members {
        let addresses = config.known().filter_map(|member| {
            Some((parse_name(&member.name).ok()?, (member.peers.clone(), member.clients.clone())))
        });
        Members {
            me: config.id(),
            now: Vec::new(),
            taken_in: !config.joins(),
            gone_at: None,
            addresses: addresses.collect(),
            leaving: BTreeMap::new(),
        }
    }

    /// Where a peer is to be dialled.
    pub(crate) fn peer_address(&self, peer: NodeId) -> Option<&str> {
        self.addresses.get(&peer).map(|(peers, _)| peers.as_str())
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.leaving.values().copied().chain(self.gone_at).min()
    }

    /// Whether this member has been out of the cluster for long enough to be sure.
    pub(crate) fn is_gone(&self, now: Time) -> bool {
        self.gone_at.is_some_and(|at| at <= now)
    }

    fn take(&mut self, now: Time, members: Vec<LogMember>) {
        for member in &members {
            if let Some(said) = read_context(&member.context) {
                self.addresses.insert(member.id, said);
            }
        }
        let here = members.iter().any(|member| member.id == self.me);
        self.taken_in |= here;
        self.gone_at = if here || !self.taken_in { None } else { self.gone_at.or(Some(now + FAREWELL)) };
        self.now = members;
    }

    /// What is known of a member.
    fn info(&self, member: &LogMember, link: Option<&Link>, own_clients: Option<String>) -> MemberInfo {
        let (peers, configured) = self.addresses.get(&member.id).cloned().unwrap_or_default();
        let said = match link {
            Some(link) => link.clients.clone(),
            None => own_clients.filter(|_| member.id == self.me),
        };
        let peers = Some(peers).filter(|peers| !peers.is_empty());
        MemberInfo { id: member.id, part: member.part, peers, clients: configured.or(said) }
    }
}

impl From<MemberInfo> for EtcdMember {
    fn from(member: MemberInfo) -> EtcdMember {
        let url = |address: String| format!("http://{address}");
        EtcdMember {
            id: member.id.0,
            // One that nobody has met has not started.
            name: if member.clients.is_some() { member.id.to_string() } else { String::new() },
            peer_urls: member.peers.into_iter().map(url).collect(),
            client_urls: member.clients.into_iter().map(url).collect(),
            is_learner: matches!(member.part, MemberPart::Learner { .. }),
        }
    }
}

/// What is kept in the log of a member that is added: its addresses, as on a command line.
fn read_context(context: &[u8]) -> Option<(String, Option<String>)> {
    let text = std::str::from_utf8(context).ok()?;
    let MemberAddress { peers, clients, .. } = format!("n1={text}").parse().ok()?;
    Some((peers, clients))
}

impl<P: ReplicatedLog + 'static, S: Service> Member<P, S> {
    /// The members have changed, or are known for the first time.
    pub(crate) fn on_members(self: &Rc<Self>, core: &mut Core<P, S>, now: Time, members: Vec<LogMember>) {
        let named = |members: &[LogMember]| members.iter().map(name_of).collect::<Vec<_>>().join(", ");
        let (before, after) = (named(&core.members.now), named(&members));
        if before != after {
            self.log(&format!("the members are {after}"));
            core.events.note(now, &format!("the members are {after}"));
        }
        core.members.take(now, members);
        let present: Vec<NodeId> = core.members.now.iter().map(|member| member.id).collect();
        for peer in present.iter().copied().filter(|peer| *peer != self.id) {
            core.members.leaving.remove(&peer);
            self.keep_link(core, peer);
        }
        for peer in core.links.keys().filter(|peer| !present.contains(peer)) {
            // One that joins does not know who is there before the log tells it.
            if core.members.taken_in {
                core.members.leaving.entry(*peer).or_insert(now + FAREWELL);
            }
        }
    }

    /// Makes sure that there is a link to a peer, and that somebody dials.
    pub(crate) fn keep_link(self: &Rc<Self>, core: &mut Core<P, S>, peer: NodeId) {
        if core.links.contains_key(&peer) {
            return;
        }
        core.links.insert(peer, Link::new(peer));
        if peer < self.id
            && let Some(address) = core.members.peer_address(peer)
        {
            tokio::task::spawn_local(Rc::clone(self).dial_for_ever(peer, address.to_owned()));
        }
    }

    /// Gives up the links to those who left a while ago.
    pub(crate) fn end_leaving(&self, core: &mut Core<P, S>, now: Time) {
        let over = |at: &Time| *at <= now;
        let gone: Vec<NodeId> =
            core.members.leaving.iter().filter(|(_, at)| over(at)).map(|(peer, _)| *peer).collect();
        for peer in gone {
            core.members.leaving.remove(&peer);
            self.disconnect(core, now, peer, None);
            core.links.remove(&peer);
        }
    }

    /// What is known of these members.
    pub(crate) fn member_infos(&self, core: &Core<P, S>, members: &[LogMember]) -> Vec<MemberInfo> {
        let info = |member: &LogMember| {
            core.members.info(member, core.links.get(&member.id), S::clients_at(&self.config))
        };
        members.iter().map(info).collect()
    }
}

fn name_of(member: &LogMember) -> String {
    let part = match member.part {
        MemberPart::Voter => "",
        MemberPart::Leaving => " (leaving)",
        MemberPart::Entering => " (entering)",
        MemberPart::Learner { .. } => " (learner)",
    };
    format!("{}{part}", member.id)
}

/// A request to add a member, as the log wants it.
pub(crate) fn addition(request: &MemberAddRequest, present: &[MemberInfo]) -> Result<Change, Refusal> {
    let [url] = &request.peer_urls[..] else {
        return Err(Refusal::new(
            Code::InvalidArgument,
            "etcdserver: exactly one peer URL is expected, as in http://127.0.0.1:2380",
        ));
    };
    let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    if !is_pair_of_addresses(address) {
        let text = format!(
            "etcdserver: given member URLs are invalid: {url:?} is not http://HOST:PORT (no TLS in this version)"
        );
        return Err(Refusal::new(Code::InvalidArgument, text));
    }
    let peers = address.split(',').next();
    if present.iter().any(|member| member.peers.as_deref() == peers) {
        return Err(Refusal::new(Code::FailedPrecondition, "etcdserver: Peer URLs already exists"));
    }
    Ok(Change::Members(MembershipChange::Add {
        // The leader chooses one that was never used.
        id: NodeId(0),
        context: address.to_owned().into(),
        promote: !request.is_learner,
    }))
}

/// Whether this is an address for peers, and perhaps one for clients behind a comma.
pub(crate) fn is_pair_of_addresses(text: &str) -> bool {
    let is_address = |address: &str| {
        address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    text.split(',').count() <= 2 && text.split(',').all(is_address)
}

/// Why a change was refused, in etcd's words where it has some.
pub(crate) fn change_refusal(why: ChangeRefusal) -> Refusal {
    let (code, text) = match why {
        ChangeRefusal::InProgress => {
            (Code::FailedPrecondition, "another change of the members is under way: try again later".to_owned())
        }
        ChangeRefusal::NotYet => {
            (Code::Unavailable, "the leader has only just come into office: try again".to_owned())
        }
        ChangeRefusal::Unknown(id) => (Code::NotFound, format!("etcdserver: member not found: there is no {id}")),
        ChangeRefusal::AlreadyMember(id) => (
            Code::FailedPrecondition,
            format!("etcdserver: can only promote a learner member: {id} has that part already"),
        ),
        ChangeRefusal::IdUsed { highest } => (
            Code::FailedPrecondition,
            format!("etcdserver: member ID already exist: ids are never used twice, and {highest} was the highest"),
        ),
        ChangeRefusal::NotCaughtUp(id) => (
            Code::FailedPrecondition,
            format!("etcdserver: can only promote a learner member which is in sync with leader: {id} is not yet"),
        ),
        ChangeRefusal::WouldLoseQuorum => (
            Code::FailedPrecondition,
            "etcdserver: re-configuration failed due to not enough started members: of the voters that there would be, \
             too few can be reached"
                .to_owned(),
        ),
        ChangeRefusal::Size => (
            Code::FailedPrecondition,
            "there would be no voter left, or more members than are allowed".to_owned(),
        ),
        ChangeRefusal::CannotLead(id) => (
            Code::FailedPrecondition,
            format!("etcdserver: bad leader transferee: {id} does not vote, cannot be reached, or was too slow"),
        ),
    };
    Refusal::new(code, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(urls: &[&str]) -> MemberAddRequest {
        MemberAddRequest { peer_urls: urls.iter().map(ToString::to_string).collect(), is_learner: false }
    }

    #[test]
    fn a_request_to_add_a_member_keeps_its_addresses_and_leaves_the_id_to_the_leader() {
        for (url, peers, clients) in [
            ("http://a:1/", "a:1", None),
            ("a:1", "a:1", None),
            ("http://a:1,b:2", "a:1", Some("b:2".to_owned())),
        ] {
            let Ok(Change::Members(MembershipChange::Add { id: NodeId(0), context, promote: true })) =
                addition(&request(&[url]), &[])
            else {
                panic!("{url} is fine")
            };
            assert_eq!(read_context(&context), Some((peers.to_owned(), clients)));
        }
    }

    #[test]
    fn addresses_that_cannot_be_or_are_taken_are_refused() {
        let (id, peers) = (NodeId(1), Some("a:1".to_owned()));
        let present = [MemberInfo { id, part: MemberPart::Voter, peers, clients: None }];
        for (urls, expected) in [
            (&[][..], "exactly one"),
            (&["a:1", "b:1"], "exactly one"),
            (&["https://a:1:x"], "invalid"),
            (&["a"], "invalid"),
            (&["a:1,b:2,c:3"], "invalid"),
            (&["http://a:1"], "already exists"),
        ] {
            let refusal = addition(&request(urls), &present).expect_err("it is not fine");
            assert!(refusal.message.contains(expected), "{urls:?}: {refusal}");
        }
    }
}
