//! `synod demo`: three members as processes of their own, and the page beside them.

use crate::cli::Demo;
use crate::supervisor::{Ports, Supervisor};
use crate::{Done, Failure, asked_to_stop, block_on};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use synod_lab::{BoundLab, Lab};

pub fn run(options: &Demo) -> Done {
    block_on(start(options))
}

async fn start(options: &Demo) -> Done {
    std::fs::create_dir_all(&options.data_dir).map_err(|e| {
        let folder = options.data_dir.display();
        Failure::Storage(format!("cannot create {folder}: {e}. Choose another place with --data-dir DIR."))
    })?;
    let folder = options.data_dir.canonicalize().unwrap_or_else(|_| options.data_dir.clone());
    let ports = if options.any_ports { Ports::Any } else { Ports::Usual };
    let started = Supervisor::start(&folder, &options.protocol, options.nodes, ports).await;
    let supervisor = started.map_err(Failure::Storage)?;
    let page = match bind(options.page, &supervisor).await {
        Ok(page) => page,
        Err(why) => {
            supervisor.stop().await;
            return Err(Failure::Usage(why));
        }
    };
    announce(options, &page.url(), &supervisor.endpoints(), &folder.display().to_string());
    let served = page.serve(asked_to_stop()).await;
    supervisor.stop().await;
    served.map_err(|e| Failure::No(e.to_string()))
}

/// The page where it was asked for, or, when only the default was asked for, anywhere free.
async fn bind(wanted: SocketAddr, supervisor: &Supervisor) -> Result<BoundLab, String> {
    let lab = |address| Lab::new(address).with_live(Arc::new(supervisor.clone()));
    match lab(wanted).bind().await {
        Err(_) if wanted == Demo::default().page => {
            lab(SocketAddr::new(wanted.ip(), 0)).bind().await.map_err(|e| e.to_string())
        }
        other => other.map_err(|e| e.to_string()),
    }
}

/// The page's address, the endpoints, the data directory and how to stop, and nothing else.
fn announce(options: &Demo, page: &str, endpoints: &[String], folder: &str) {
    let endpoints = endpoints.join(",");
    if options.json {
        println!("{}", serde_json::json!({"page": page, "endpoints": endpoints, "data-dir": folder}));
    } else {
        println!("page       {page}");
        println!("endpoints  {endpoints}");
        println!("data       {folder}");
        println!("stop       Ctrl-C");
    }
    // Whoever reads this through a pipe waits for it.
    let _ = std::io::stdout().flush();
}
