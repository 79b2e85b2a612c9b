//! The laboratory page alone, without the rest of Synod: quick to build while working on the page.
//!
//! `cargo run -p synod-lab --example page [PORT]`; Ctrl-C stops it.

use std::net::Ipv4Addr;
use synod_lab::Lab;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).map_or(Ok(0), |port| port.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let lab = Lab::new((Ipv4Addr::LOCALHOST, port).into()).bind().await?;
        println!("{}", lab.url());
        lab.serve(std::future::pending()).await?;
        Ok(())
    })
}
