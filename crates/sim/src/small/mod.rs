//! The small worlds: any processes, each on a disk of its own, and a network between them, in virtual time.
//!
//! Each of these worlds is a [`Stage`] of machines, whose faults are all here, and a world above it that asks, listens
//! and judges. Banks ([`crate::bank`]) and the strong levels of consistency ([`crate::weak`]) need no node, no store and
//! no files: what they put to the test is the processes of `synod_protocols` themselves, on a disk that is a list of
//! records ([`Host`]). Causal and eventual members run on the server's own node and a disk of bytes. The durability rule
//! of `synod_protocols::contract` is kept to the letter by both, and everything random is drawn from one seed.

mod hazard;
mod host;
mod network;
mod seeds;
mod seen;
mod stage;

pub use hazard::Hazard;
pub(crate) use hazard::{Moment, Strike, weather};
pub(crate) use host::{Effect, Happens, Host, Machine};
pub(crate) use network::Weather;
pub(crate) use seeds::each_seed;
pub(crate) use seen::{Happened, Message, Seen, member, told, trace};
pub(crate) use stage::{Next, Stage};
