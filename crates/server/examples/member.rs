//! One member of a cluster, as a process of its own:
//! `cargo run --release -p synod-server --example member -- n1 DIRECTORY n1=127.0.0.1:2380,127.0.0.1:2379 n2=… n3=…`

use std::error::Error;
use std::path::PathBuf;
use synod_server::{Config, MemberAddress, Server};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "member NAME DIRECTORY NAME=PEERS,CLIENTS...";
    let name = arguments.next().ok_or(usage)?;
    let data_dir = PathBuf::from(arguments.next().ok_or(usage)?);
    let members = arguments.map(|member| member.parse()).collect::<Result<Vec<MemberAddress>, String>>()?;
    let server =
        Server::start(Config { name, data_dir, members, fault_injection: true, ..Config::default() })?;
    println!("clients: {}", server.client_address());
    server.wait()?;
    Ok(())
}
