//! The libraries, each used as its own examples use it.

pub mod omni;
pub mod openraft;
pub mod synod;
pub mod tikv;
