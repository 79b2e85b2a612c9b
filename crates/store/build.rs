//! Compiles the client API's messages from `proto/`, without a `protoc` binary.

use std::error::Error;

const DIRECTORY: &str = "proto";
const FILES: [&str; 2] = ["kv.proto", "etcd.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={DIRECTORY}");
    let descriptors = protox::compile(FILES, [DIRECTORY])?;
    prost_build::Config::new()
        // Byte fields become slices of the received buffer instead of copies of it.
        .bytes(["."])
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
