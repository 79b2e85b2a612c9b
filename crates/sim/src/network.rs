//! The network: one link for each direction of each pair, and the messages on their way.
//!
//! A member is told when its link *to* a peer comes up, with the number of the new session, and
//! when it is lost, some time after the fact. With streams a session delivers in order and once,
//! and what was sent after a lost message is lost as well; with datagrams every message is on its own.

use crate::dice::{Place, dice, draw};
use crate::queue::{Due, Queue};
use crate::script::{Delay, NetworkChange, Script, Transport};
use crate::units::Share;

/// What is wrong with the network, and how long it takes.
#[derive(Clone, Copy, Debug)]
struct Weather {
    latency: Delay,
    loss: Share,
    duplicate: Share,
    reorder: Share,
}

/// All links and messages.
#[derive(Debug)]
pub(crate) struct Network<M> {
    seed: u64,
    nodes: u8,
    transport: Transport,
    detect: Delay,
    /// As the script began, and as it is now.
    fair: Weather,
    weather: Weather,
    links: Vec<Link>,
    flying: Vec<Option<Flying<M>>>,
    free: Vec<u32>,
    sessions: u64,
    /// Messages sent so far; they are numbered from 1.
    pub(crate) messages: u64,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flying<M> {
    pub(crate) number: u64,
    pub(crate) from: u8,
    pub(crate) to: u8,
    pub(crate) message: M,
    session: u64,
    sent: u64,
    arrives: u64,
    /// Somebody took it off the wire by hand.
    lost: bool,
}

/// One direction between two members.
#[derive(Clone, Copy, Debug)]
struct Link {
    cut: bool,
    /// When it was last cut, in virtual nanoseconds.
    cut_at: Option<u64>,
    phase: Phase,
    /// Changes with the phase, so that what was scheduled before is void.
    generation: u32,
    /// The latest session.
    session: u64,
    /// The session whose messages still arrive; 0 if none.
    alive: u64,
    /// Messages sent so far: what chance is keyed by.
    sent: u64,
    last_arrival: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection, and the sender knows.
    Down,
    /// A connection is being made.
    Connecting,
    /// There is one.
    Up,
    /// It is lost, and the sender does not know yet.
    Broken,
}

/// What becomes of a message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives then, if nothing happens to the link until then.
    Arrives(u64),
    /// It never arrives.
    Lost(&'static str),
}

/// What came of an arrival.
pub(crate) enum Arrival {
    /// The message arrives: whoever asked takes it out of its slot.
    Message { number: u64, from: u8, to: u8 },
    /// It does not.
    Lost { number: u64, why: &'static str },
    /// It was dealt with already.
    Nothing,
}

impl<M: Clone> Network<M> {
    pub(crate) fn new(script: &Script) -> Network<M> {
        let fair = Weather {
            latency: script.latency,
            loss: script.loss,
            duplicate: script.duplicate,
            reorder: script.reorder,
        };
        let link = Link {
            cut: false,
            cut_at: None,
            phase: Phase::Down,
            generation: 0,
            session: 0,
            alive: 0,
            sent: 0,
            last_arrival: 0,
        };
        Network {
            seed: script.seed,
            nodes: script.size(),
            transport: script.transport,
            detect: script.detect,
            fair,
            weather: fair,
            links: vec![link; usize::from(script.size()).pow(2)],
            flying: Vec::new(),
            free: Vec::new(),
            sessions: 0,
            messages: 0,
        }
    }

    fn at(&self, from: u8, to: u8) -> usize {
        usize::from(from) * usize::from(self.nodes) + usize::from(to)
    }

    fn link(&mut self, from: u8, to: u8) -> &mut Link {
        let at = self.at(from, to);
        &mut self.links[at]
    }

    pub(crate) fn change(&mut self, change: NetworkChange) {
        match change {
            NetworkChange::Latency(delay) => self.weather.latency = delay,
            NetworkChange::Loss(share) => self.weather.loss = share,
            NetworkChange::Duplicate(share) => self.weather.duplicate = share,
            NetworkChange::Reorder(share) => self.weather.reorder = share,
        }
    }

    /// Nothing is lost, repeated or overtaken from now on, and latency is as the script began.
    pub(crate) fn clear_weather(&mut self) {
        let none = Share(0);
        self.weather = Weather { loss: none, duplicate: none, reorder: none, ..self.fair };
    }

    /// Sends; tells what becomes of the message, and of its copy if the network repeats it.
    pub(crate) fn send(
        &mut self,
        now: u64,
        from: u8,
        to: u8,
        message: M,
        queue: &mut Queue,
    ) -> (u64, Fate, Option<(u64, Fate)>) {
        self.messages += 1;
        let number = self.messages;
        let at = self.at(from, to);
        let link = &mut self.links[at];
        link.sent += 1;
        let streams = self.transport == Transport::Streams;
        if streams && link.phase != Phase::Up {
            let why = if link.cut { "cut" } else { "no connection" };
            return (number, Fate::Lost(why), None);
        }
        if link.cut {
            return (number, Fate::Lost("cut"), None);
        }
        let mut rng = dice(self.seed, Place::Message, from.into(), to.into(), link.sent);
        let weather = self.weather;
        let happens = |share: Share, rng: &mut synod_protocols::Rng| {
            share.0 > 0 && rng.chance(share.0.into(), 1_000_000)
        };
        let mut arrives = now + draw(weather.latency, &mut rng);
        if happens(weather.loss, &mut rng) {
            if streams {
                self.break_link(from, to, arrives, queue);
            }
            return (number, Fate::Lost("loss"), None);
        }
        // Late by up to eight more latencies: whatever is sent meanwhile overtakes it.
        if happens(weather.reorder, &mut rng) {
            arrives += (0..rng.between(1, 8)).map(|_| draw(weather.latency, &mut rng)).sum::<u64>();
        } else {
            arrives = arrives.max(link.last_arrival + 1);
            link.last_arrival = arrives;
        }
        let (session, sent) = (link.session, now);
        let copy = happens(weather.duplicate, &mut rng).then(|| {
            let arrives = arrives + draw(weather.latency, &mut rng);
            let flying = Flying {
                number: number + 1,
                from,
                to,
                message: message.clone(),
                session,
                sent,
                arrives,
                lost: false,
            };
            self.messages += 1;
            self.launch(flying, queue);
            (number + 1, Fate::Arrives(arrives))
        });
        self.launch(Flying { number, from, to, message, session, sent, arrives, lost: false }, queue);
        (number, Fate::Arrives(arrives), copy)
    }

    // Inlined, so that the message is moved once and not from call to call.
    #[inline(always)]
    fn launch(&mut self, flying: Flying<M>, queue: &mut Queue) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.flying.push(None);
            (self.flying.len() - 1) as u32
        });
        queue.push(flying.arrives, Due::Arrival { slot });
        self.flying[slot as usize] = Some(flying);
    }

    /// The message in a slot reaches its receiver's machine.
    pub(crate) fn arrive(&mut self, now: u64, slot: u32, queue: &mut Queue) -> Arrival {
        let flying = self.flying[slot as usize].as_ref().expect("an arrival has its message");
        let Flying { number, from, to, session, sent, arrives, lost, .. } = *flying;
        if arrives > now {
            queue.push(arrives, Due::Arrival { slot });
            return Arrival::Nothing;
        }
        let link = &self.links[self.at(from, to)];
        let arrival = if lost {
            Arrival::Nothing
        } else if link.cut || link.cut_at.is_some_and(|cut| cut >= sent) {
            Arrival::Lost { number, why: "link cut" }
        } else if self.transport == Transport::Streams && session != link.alive {
            Arrival::Lost { number, why: "connection lost" }
        } else {
            return Arrival::Message { number, from, to };
        };
        self.take(slot);
        arrival
    }

    /// Takes a message that has arrived out of its slot.
    pub(crate) fn take(&mut self, slot: u32) -> M {
        self.free.push(slot);
        self.flying[slot as usize].take().expect("an arrival has its message").message
    }

    /// Changes whether a direction is cut; `false` if it was so already.
    pub(crate) fn set_cut(&mut self, now: u64, from: u8, to: u8, cut: bool, queue: &mut Queue) -> bool {
        let link = self.link(from, to);
        if link.cut == cut {
            return false;
        }
        link.cut = cut;
        if cut {
            link.cut_at = Some(now);
            link.alive = 0;
            let mut rng = self.link_dice(from, to);
            let noticed = now + draw(self.detect, &mut rng);
            self.break_link(from, to, noticed, queue);
        }
        true
    }

    /// The connection is lost, and its sender will notice then.
    fn break_link(&mut self, from: u8, to: u8, noticed: u64, queue: &mut Queue) {
        let link = self.link(from, to);
        match link.phase {
            Phase::Up => {
                link.phase = Phase::Broken;
                link.generation += 1;
                queue.push(noticed, Due::LinkDown { from, to, generation: link.generation });
            }
            Phase::Connecting => {
                link.phase = Phase::Down;
                link.generation += 1;
            }
            Phase::Down | Phase::Broken => {}
        }
    }

    /// Makes a connection if there is none and both ends are `possible`.
    pub(crate) fn connect(&mut self, now: u64, from: u8, to: u8, possible: bool, queue: &mut Queue) {
        let link = self.link(from, to);
        if !possible || link.cut || link.phase != Phase::Down {
            return;
        }
        link.phase = Phase::Connecting;
        link.generation += 1;
        let generation = link.generation;
        let mut rng = self.link_dice(from, to);
        let latency = self.weather.latency;
        let up = now + draw(latency, &mut rng) + draw(latency, &mut rng);
        queue.push(up, Due::LinkUp { from, to, generation });
    }

    /// A connection that was being made exists: the number of its session, unless it is void.
    pub(crate) fn on_link_up(&mut self, from: u8, to: u8, generation: u32) -> Option<u64> {
        let session = self.sessions + 1;
        let link = self.link(from, to);
        if link.generation != generation {
            return None;
        }
        link.phase = Phase::Up;
        (link.session, link.alive) = (session, session);
        self.sessions = session;
        Some(session)
    }

    /// The sender notices the loss of its connection: whether that is still so.
    pub(crate) fn on_link_down(&mut self, from: u8, to: u8, generation: u32) -> bool {
        let link = self.link(from, to);
        if link.generation != generation {
            return false;
        }
        link.phase = Phase::Down;
        link.generation += 1;
        true
    }

    /// A member is gone. What it sent is still on its way; what was sent to it has nowhere to go,
    /// and its peers notice within a latency, because its machine answers for it.
    pub(crate) fn on_crash(&mut self, now: u64, member: u8, queue: &mut Queue) {
        for peer in (0..self.nodes).filter(|peer| *peer != member) {
            let own = self.link(member, peer);
            own.phase = Phase::Down;
            own.generation += 1;
            self.link(peer, member).alive = 0;
            let mut rng = self.link_dice(peer, member);
            let noticed = now + draw(self.weather.latency, &mut rng);
            self.break_link(peer, member, noticed, queue);
        }
    }

    fn link_dice(&mut self, from: u8, to: u8) -> synod_protocols::Rng {
        let seed = self.seed;
        let generation = self.link(from, to).generation;
        dice(seed, Place::Link, from.into(), to.into(), generation.into())
    }

    /// All directions that are cut.
    pub(crate) fn cuts(&self) -> impl Iterator<Item = (u8, u8)> {
        let nodes = self.nodes;
        (0..nodes)
            .flat_map(move |a| (0..nodes).map(move |b| (a, b)))
            .filter(|(a, b)| self.links[self.at(*a, *b)].cut)
    }

    fn flying_mut(&mut self, number: u64) -> Option<&mut Flying<M>> {
        self.flying.iter_mut().flatten().find(|flying| flying.number == number && !flying.lost)
    }

    /// Takes a message off the wire; none if it is not in flight. With streams its connection breaks.
    pub(crate) fn lose(&mut self, now: u64, number: u64, queue: &mut Queue) -> Option<()> {
        let flying = self.flying_mut(number)?;
        flying.lost = true;
        let (from, to, session) = (flying.from, flying.to, flying.session);
        if self.transport == Transport::Streams && self.link(from, to).session == session {
            self.link(from, to).alive = 0;
            self.break_link(from, to, now, queue);
        }
        Some(())
    }

    /// Makes a message late; with streams those after it as well.
    pub(crate) fn delay(&mut self, number: u64, by: u64) -> Option<u64> {
        let flying = self.flying_mut(number)?;
        flying.arrives += by;
        let (from, to, arrives) = (flying.from, flying.to, flying.arrives);
        if self.transport == Transport::Streams {
            let link = self.link(from, to);
            link.last_arrival = link.last_arrival.max(arrives);
            let mut behind: Vec<&mut Flying<M>> = self
                .flying
                .iter_mut()
                .flatten()
                .filter(|other| (other.from, other.to) == (from, to) && other.number > number)
                .collect();
            behind.sort_by_key(|other| other.number);
            let mut last = arrives;
            for other in behind {
                last = other.arrives.max(last + 1);
                other.arrives = last;
            }
            self.link(from, to).last_arrival = last;
        }
        Some(arrives)
    }

    /// Sends a message that is in flight once more: its copy's number, receiver and time of arrival.
    pub(crate) fn duplicate(&mut self, number: u64, queue: &mut Queue) -> Option<(Flying<M>, u64)> {
        let original = self.flying_mut(number)?.clone();
        self.messages += 1;
        let copy_number = self.messages;
        let arrives = original.arrives + 1;
        let copy = Flying { number: copy_number, arrives, ..original };
        self.launch(copy.clone(), queue);
        Some((copy, arrives))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Span;

    fn network(text: &str) -> (Network<u32>, Queue) {
        let script: Script = format!("synod-script 1\nnodes 2\n{text}").parse().expect("a script");
        (Network::new(&script), Queue::default())
    }

    /// Runs to the end and returns the messages that arrive, the losses and the sessions.
    fn drain(network: &mut Network<u32>, queue: &mut Queue) -> (Vec<u32>, Vec<&'static str>, u32) {
        let (mut arrived, mut lost, mut downs) = (Vec::new(), Vec::new(), 0);
        while let Some((now, due)) = queue.pop(u64::MAX) {
            match due {
                Due::Arrival { slot } => match network.arrive(now, slot, queue) {
                    Arrival::Message { .. } => arrived.push(network.take(slot)),
                    Arrival::Lost { why, .. } => lost.push(why),
                    Arrival::Nothing => {}
                },
                Due::LinkUp { from, to, generation } => drop(network.on_link_up(from, to, generation)),
                Due::LinkDown { from, to, generation } => {
                    downs += u32::from(network.on_link_down(from, to, generation))
                }
                other => unreachable!("{other:?}"),
            }
        }
        (arrived, lost, downs)
    }

    fn connected(text: &str) -> (Network<u32>, Queue) {
        let (mut network, mut queue) = network(text);
        network.connect(0, 0, 1, true, &mut queue);
        drain(&mut network, &mut queue);
        (network, queue)
    }

    #[test]
    fn a_stream_keeps_its_order() {
        let (mut network, mut queue) = connected("latency 1ms..50ms");
        for i in 0..100 {
            network.send(1000 + u64::from(i), 0, 1, i, &mut queue);
        }
        assert_eq!(drain(&mut network, &mut queue).0, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_message_lost_from_a_stream_takes_the_connection_along() {
        let (mut network, mut queue) = connected("loss 20%");
        for i in 0..100 {
            network.send(1000 + u64::from(i), 0, 1, i, &mut queue);
        }
        let (arrived, _, downs) = drain(&mut network, &mut queue);
        assert_eq!(arrived, (0..arrived.len() as u32).collect::<Vec<_>>());
        assert!(arrived.len() < 60);
        assert_eq!(downs, 1);
    }

    #[test]
    fn datagrams_are_lost_repeated_and_overtaken_one_by_one() {
        let (mut network, mut queue) = connected("transport datagrams\nloss 10%\nduplicate 10%\nreorder 10%");
        for i in 0..1000 {
            network.send(u64::from(i) * 1_000_000, 0, 1, i, &mut queue);
        }
        let (arrived, _, downs) = drain(&mut network, &mut queue);
        let mut distinct = arrived.clone();
        distinct.sort_unstable();
        assert_ne!(arrived, distinct, "some are overtaken");
        let total = distinct.len();
        distinct.dedup();
        assert!((850..950).contains(&distinct.len()), "{}", distinct.len());
        assert!((50..150).contains(&(total - distinct.len())));
        assert_eq!(downs, 0);
    }

    #[test]
    fn a_cut_kills_what_is_in_flight_and_is_noticed_later() {
        let (mut network, mut queue) = connected("detect 100ms");
        network.send(1000, 0, 1, 1, &mut queue);
        assert!(network.set_cut(2000, 0, 1, true, &mut queue));
        assert_eq!(network.send(3000, 0, 1, 2, &mut queue).1, Fate::Lost("cut"));
        assert!(network.set_cut(4000, 0, 1, false, &mut queue));
        // Healed, but the old connection is gone, and the sender does not know yet.
        assert_eq!(network.send(5000, 0, 1, 3, &mut queue).1, Fate::Lost("no connection"));
        let (arrived, lost, downs) = drain(&mut network, &mut queue);
        assert_eq!((arrived, lost, downs), (vec![], vec!["link cut"], 1));
        network.connect(Span::secs(1).0, 0, 1, true, &mut queue);
        drain(&mut network, &mut queue);
        network.send(Span::secs(2).0, 0, 1, 4, &mut queue);
        assert_eq!(drain(&mut network, &mut queue).0, [4]);
    }

    #[test]
    fn what_a_crashed_member_sent_arrives_and_what_was_sent_to_it_does_not() {
        let (mut network, mut queue) = connected("latency 10ms");
        network.connect(0, 1, 0, true, &mut queue);
        drain(&mut network, &mut queue);
        network.send(1000, 0, 1, 1, &mut queue);
        network.send(1000, 1, 0, 2, &mut queue);
        network.on_crash(2000, 1, &mut queue);
        let (arrived, lost, _) = drain(&mut network, &mut queue);
        assert_eq!((arrived, lost), (vec![2], vec!["connection lost"]));
    }

    #[test]
    fn messages_can_be_lost_delayed_and_repeated_by_hand() {
        let (mut network, mut queue) = connected("transport datagrams\nlatency 10ms");
        let numbers: Vec<u64> = (0..3).map(|i| network.send(1000, 0, 1, i, &mut queue).0).collect();
        assert_eq!(network.lose(2000, numbers[0], &mut queue), Some(()));
        assert_eq!(network.lose(2000, numbers[0], &mut queue), None);
        assert!(network.delay(numbers[1], 5_000_000).is_some());
        assert!(network.duplicate(numbers[2], &mut queue).is_some());
        assert_eq!(drain(&mut network, &mut queue).0, [2, 2, 1]);
    }
}
