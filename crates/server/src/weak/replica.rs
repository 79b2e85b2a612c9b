//! The replica of one weak keyspace, of whichever level.

use crate::disk::FileDisk;
use synod_node::spaces::{Model, Space};
use synod_node::{DiskReply, StartError, WeakFigures, WeakNode, WeakNodeConfig, WeakOutbox};
use synod_protocols::weak::{self, Causal, Content, Eventual, Message, Name, Request, WeakReplica};
use synod_protocols::{Input, LinkSession, NodeId, Time};

/// A causal or an eventual replica.
#[derive(Debug)]
pub(super) enum Replica {
    Causal(WeakNode<Causal>),
    Eventual(WeakNode<Eventual>),
}

/// What happens to a replica of either level.
pub(super) enum Happening {
    Message { from: NodeId, message: Message },
    LinkUp { peer: NodeId, session: LinkSession },
    LinkDown { peer: NodeId },
    Request(Request),
}

impl Happening {
    fn input<P: WeakReplica>(self) -> Input<P> {
        match self {
            Happening::Message { from, message } => Input::Message { from, message },
            Happening::LinkUp { peer, session } => Input::LinkUp { peer, session },
            Happening::LinkDown { peer } => Input::LinkDown { peer },
            Happening::Request(request) => Input::Request(request),
        }
    }
}

/// Does the same with a node of either level.
macro_rules! either {
    ($replica:expr, $node:ident => $does:expr) => {
        match $replica {
            Replica::Causal($node) => $does,
            Replica::Eventual($node) => $does,
        }
    };
}

impl Replica {
    /// Recovers the replica of a keyspace, which must be a weak one.
    pub(super) fn start(
        space: &Space,
        config: WeakNodeConfig,
        disk: &mut FileDisk,
        now: Time,
        out: &mut WeakOutbox,
    ) -> Result<Replica, StartError> {
        match space.model {
            Model::Causal => WeakNode::start(config, disk, now, out).map(Replica::Causal),
            Model::Eventual => WeakNode::start(config, disk, now, out).map(Replica::Eventual),
            Model::Linearizable | Model::Sequential => unreachable!("such a keyspace lives on the log"),
        }
    }

    pub(super) fn step(&mut self, now: Time, happening: Happening, out: &mut WeakOutbox) {
        either!(self, node => node.step(now, happening.input(), out));
    }

    pub(super) fn on_disk(&mut self, now: Time, reply: DiskReply, out: &mut WeakOutbox) {
        either!(self, node => node.on_disk(now, reply, out));
    }

    pub(super) fn flush(&mut self, now: Time, out: &mut WeakOutbox) {
        either!(self, node => node.flush(now, out));
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        either!(self, node => node.deadline())
    }

    pub(super) fn has_begun(&self) -> bool {
        either!(self, node => node.has_begun())
    }

    pub(super) fn damage(&self) -> Option<&str> {
        either!(self, node => node.damage())
    }

    pub(super) fn figures(&self) -> WeakFigures {
        either!(self, node => node.figures())
    }

    /// The process, as far as both levels are alike.
    pub(super) fn state(&self) -> &weak::Replica {
        either!(self, node => node.process().replica())
    }

    /// What it shows: names after `after` whose keys begin with `prefix`, `max` at the most.
    pub(super) fn list(&self, prefix: &[u8], after: Option<&Name>, max: usize) -> Vec<(Name, Content)> {
        let shown = self.state().store().shown(prefix, after);
        shown.take(max).map(|(name, content)| (name.clone(), content)).collect()
    }
}

/// The ticket of a request that has one, so that its answer finds who asked.
pub(super) fn told_ticket(event: &weak::Event) -> Option<synod_protocols::log::Ticket> {
    match event {
        weak::Event::Written { ticket, .. }
        | weak::Event::Read { ticket, .. }
        | weak::Event::Changed { ticket }
        | weak::Event::Refused { ticket, .. } => Some(*ticket),
        weak::Event::Members { .. } | weak::Event::ClockAhead { .. } | weak::Event::Compacted => None,
    }
}
