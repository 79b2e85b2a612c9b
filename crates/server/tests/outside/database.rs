//! A PostgreSQL server of one's own, on a free port of this machine.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

const USER: &str = "keeper";
pub const PASSWORD: &str = "wagtail-7";
/// How long a server may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, until it is dropped.
pub struct Server {
    directory: tempfile::TempDir,
    binaries: PathBuf,
    port: u16,
    settings: Vec<String>,
    process: Option<Child>,
}

/// Where PostgreSQL's programs are, if it is installed.
fn binaries() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    // Debian keeps them beside each other, one folder for each version.
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    let found = folders.into_iter().find(|folder| folder.join("initdb").exists());
    let found = found.map(|folder| folder.join("initdb").canonicalize().expect("it exists"));
    if found.is_none() {
        assert!(
            std::env::var_os("SYNOD_REQUIRE_TOOLS").is_none(),
            "PostgreSQL is required here and not installed"
        );
        eprintln!("\n*** SKIPPED: PostgreSQL is not installed, so that it takes part was NOT tested ***\n");
    }
    found.and_then(|initdb| initdb.parent().map(Path::to_owned))
}

impl Server {
    /// A server with these settings beside the usual ones; `None`, loudly, where PostgreSQL is not installed.
    pub fn start(settings: &[&str]) -> Option<Server> {
        let binaries = binaries()?;
        let directory = tempfile::tempdir().expect("a directory");
        give_to_postgres(directory.path());
        let password = directory.path().join("password");
        std::fs::write(&password, PASSWORD).expect("a file");
        give_to_postgres(&password);
        let output = unprivileged(&binaries.join("initdb"))
            .args(["--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"])
            .arg("--username")
            .arg(USER)
            .arg("--pwfile")
            .arg(&password)
            .arg("--pgdata")
            .arg(directory.path().join("data"))
            .output()
            .expect("initdb runs");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr()).expect("a port").port();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Server { directory, binaries, port, settings, process: None };
        server.up();
        Some(server)
    }

    /// Starts the server again on its data, and waits until it takes connections.
    pub fn up(&mut self) {
        let begun = Instant::now();
        // What a killed server has left behind may be in the way for a moment.
        while self.process.as_mut().is_none_or(|process| process.try_wait().expect("a child").is_some()) {
            assert!(begun.elapsed() < PATIENCE, "PostgreSQL does not start: {}", self.said());
            let said = std::fs::File::create(self.directory.path().join("said")).expect("a file");
            let mut command = unprivileged(&self.binaries.join("postgres"));
            command.arg("-D").arg(self.directory.path().join("data"));
            let port = format!("port={}", self.port);
            let usual =
                ["listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=16MB", &port];
            for setting in usual.into_iter().chain(self.settings.iter().map(String::as_str)) {
                command.args(["-c", setting]);
            }
            self.process = Some(command.stderr(said).stdout(Stdio::null()).spawn().expect("postgres runs"));
            while !self.is_ready() && self.process.as_mut().is_some_and(is_running) {
                assert!(begun.elapsed() < PATIENCE, "PostgreSQL does not start: {}", self.said());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    fn is_ready(&self) -> bool {
        let ready = Command::new(self.binaries.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-d", "postgres", "-p", &self.port.to_string()])
            .status();
        ready.is_ok_and(|status| status.success())
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("said")).unwrap_or_default()
    }

    /// `kill -9`, and the end of all that it was doing.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("it is ours");
        process.wait().expect("it ends");
    }

    /// The address of a database of this server, as somebody would register it.
    pub fn url(&self, database: &str) -> String {
        Server::url_at(self.port, database)
    }

    /// The same by way of another port.
    pub fn url_at(port: u16, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/{database}")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection to a database, for what nobody would do through an agent.
    pub async fn connect(&self, database: &str) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.url(database), NoTls).await.expect("a connection");
        tokio::spawn(async move {
            let _ = connection.await;
        });
        client
    }

    /// A bank: a database with these accounts, none of which may be overdrawn.
    pub async fn create_bank(&self, name: &str, accounts: &[(&str, i64)]) {
        self.connect("postgres")
            .await
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .expect("created");
        let client = self.connect(name).await;
        let table = "CREATE TABLE accounts (name text PRIMARY KEY, balance bigint CONSTRAINT no_overdraft CHECK (balance >= 0))";
        client.batch_execute(table).await.expect("created");
        for (account, balance) in accounts {
            client
                .execute("INSERT INTO accounts VALUES ($1, $2)", &[account, balance])
                .await
                .expect("inserted");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let pid = rustix::process::Pid::from_child(&process);
        // Its immediate shutdown, which takes its own children with it.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = process.wait();
    }
}

fn is_running(process: &mut Child) -> bool {
    process.try_wait().expect("a child").is_none()
}

/// PostgreSQL refuses to run as a superuser: then it runs as the user whom its packages make.
fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    // It does not outlive who started it, were that killed.
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=QUIT", "--"])
        .arg(program);
    command.current_dir("/");
    command
}

fn give_to_postgres(path: &Path) {
    if rustix::process::geteuid().is_root() {
        let status = Command::new("chown").arg("postgres:postgres").arg(path).status().expect("chown runs");
        assert!(status.success(), "{} cannot be given to the user postgres", path.display());
    }
}
