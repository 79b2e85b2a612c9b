//! The seam between what makes a member and what it serves: a state machine, and those who wait for its answers.
//!
//! There are two: the etcd store, whose clients come over the network, and a program's own state machine, whose clients
//! are the program's threads. Everything else about a member, from the log on disk to the peers' connections, knows
//! neither.

use crate::config::Config;
use crate::directory::Directory;
use crate::error::Error;
use crate::member::{Core, Member, Persisted};
use bytes::Bytes;
use std::net::SocketAddr;
use std::rc::Rc;
use synod_node::{Reply, StateMachine};
use synod_protocols::log::{Epoch, ReplicatedLog, Role};
use synod_protocols::{NodeId, Time};
use tokio::sync::mpsc::UnboundedSender;

/// What a member serves. The value itself keeps those who wait for an answer.
pub(crate) trait Service: Sized + 'static {
    /// What is replicated.
    type Machine: StateMachine + 'static;
    /// Where clients come in.
    type Door;

    /// Opens the door, at the address that comes back if it has one, and lets nobody in yet. This comes before the disk
    /// is touched: a port that is taken must not cost a start.
    async fn open(&mut self, config: &Config) -> Result<(Self::Door, Option<SocketAddr>), Error>;

    /// The state as this member's disk holds it. `persisted` takes the answers to [`StateMachine::persist`].
    fn machine(
        &mut self,
        config: &Config,
        directory: &Directory,
        persisted: UnboundedSender<Persisted>,
    ) -> Result<Self::Machine, Error>;

    /// Lets clients in, from now on.
    fn welcome<P: ReplicatedLog + 'static>(member: &Rc<Member<P, Self>>, door: Self::Door);

    /// Where clients reach the member, for those who ask another one.
    fn clients_at(config: &Config) -> Option<String>;

    /// Passes the node's replies on to those who wait for them.
    fn answer<P: ReplicatedLog + 'static>(
        member: &Member<P, Self>,
        core: &Core<P, Self>,
        replies: Vec<Reply<Self::Machine>>,
    );

    /// A turn is over but for what it sends: what follows from the new state?
    ///
    /// # Errors
    /// Whatever the member must stop for.
    fn turned<P: ReplicatedLog + 'static>(
        _member: &Rc<Member<P, Self>>,
        _core: &mut Core<P, Self>,
        _now: Time,
    ) -> Result<(), Error> {
        Ok(())
    }

    /// When [`Service::expire`] has something to do.
    fn deadline(&self) -> Option<Time>;

    /// Answers those who do not want to wait any longer.
    fn expire(&mut self, now: Time);

    /// The member's part has changed, or the leader that it knows.
    fn standing(&mut self, role: Role, epoch: Epoch, leader: Option<NodeId>);

    /// Tells all who wait that the member stops.
    fn stop(&mut self);

    /// A command in a few words, for those who watch; none if there are none for it.
    fn label(command: Bytes) -> Option<String>;
}
