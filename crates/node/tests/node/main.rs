//! Tests of a node through its public interface.

mod clients;
mod cluster;
mod crash_images;
mod disk;
mod host;
mod rules;
mod script;
