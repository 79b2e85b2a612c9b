//! Tests of a node through its public interface.

mod changes;
mod clients;
mod cluster;
mod compaction;
mod crash_images;
mod disk;
mod host;
mod list;
mod rules;
mod script;
mod snapshots;
mod weak;
