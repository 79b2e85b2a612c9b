//! A run against a real etcd: one member, started here. Skipped, and says so, where none is installed.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use synod_bench::{Limit, Mix, Options, run};

/// A member with its data in a directory of its own; both go when it is dropped.
struct Etcd {
    process: Child,
    dir: PathBuf,
    endpoint: String,
}

impl Etcd {
    /// Nothing when etcd is not installed.
    fn start() -> Option<Self> {
        let free_port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (client, peer) = (free_port(), free_port());
        let dir = std::env::temp_dir().join(format!("synod-bench-etcd-{}", std::process::id()));
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let process = Command::new("etcd")
            .args(["--name", "one", "--initial-cluster", &format!("one={peer_url}"), "--data-dir"])
            .arg(&dir)
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = match process {
            Ok(process) => process,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("etcd cannot be started: {error}"),
        };
        let etcd = Self { process, dir, endpoint: client };
        let began = Instant::now();
        while TcpStream::connect(&etcd.endpoint).is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "etcd opens no port");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(etcd)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn etcd_takes_puts_and_gets_and_says_what_it_refuses() {
    let Some(etcd) = Etcd::start() else {
        eprintln!("SKIPPED: etcd is not installed (Debian: etcd-server), so nothing was tried against it");
        return;
    };
    let options = Options {
        endpoints: vec![etcd.endpoint.clone()],
        clients: 4,
        outstanding_per_connection: 8,
        mix: Mix { put: 2, get: 1, serializable_get: 1 },
        // The first calls wait for the member to elect itself.
        warmup: Duration::from_secs(2),
        limit: Limit::Operations(2000),
        timeout: Duration::from_secs(20),
        server_pids: vec![etcd.process.id()],
        ..Options::default()
    };
    let report = run(&options, &mut |_| {}).unwrap();
    assert_eq!((report.operations, report.failures()), (2000, 0), "{report}");
    assert!(report.servers.unwrap().processor_us_per_operation.unwrap() > 0.0);

    let too_large = Options {
        value_bytes: 2 << 20,
        mix: Mix::default(),
        clients: 1,
        outstanding_per_connection: 1,
        limit: Limit::Operations(3),
        ..options
    };
    let report = run(&too_large, &mut |_| {}).unwrap();
    assert_eq!(report.operations, 0, "{report}");
    let error = &report.errors[0];
    assert!(["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"].contains(&error.code.as_str()), "{report}");
    assert!(error.first_message.contains("too large") || error.first_message.contains("larger"), "{report}");
}
