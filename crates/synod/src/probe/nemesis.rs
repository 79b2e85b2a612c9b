//! The user's own command, which breaks things while the load runs.

use super::log::Log;
use rustix::process::{Pid, Signal, kill_process_group};
use std::cell::RefCell;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// Notes taken from what the command prints, at the most; what is beyond is read and forgotten.
const NOTES_MAX: usize = 1_000;
/// Bytes of one note at the most.
const NOTE_BYTES_MAX: usize = 200;
/// How long the command may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(2);

/// Waits, runs the command in a process group of its own, and stops it when the load ends. When it begins, each
/// line that it prints, and how it ends become notes of the history.
pub async fn run(
    command: String,
    endpoints: String,
    wait: Duration,
    mut stop: watch::Receiver<bool>,
    log: Rc<RefCell<Log>>,
) {
    if tokio::time::timeout(wait, stop.wait_for(|stop| *stop)).await.is_ok() {
        return;
    }
    log.borrow_mut().note(&cut(&format!("nemesis begins: {command}")));
    let child = Command::new("sh")
        .args(["-c", &command])
        .env("SYNOD_ENDPOINTS", endpoints)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return log.borrow_mut().note(&format!("nemesis could not be started: {error}")),
    };
    let ended = tokio::select! {
        words = follow(&mut child, &log) => Some(words),
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let words = match ended {
        Some(words) => words,
        None => {
            end(&mut child).await;
            "nemesis stopped: the load has ended".into()
        }
    };
    log.borrow_mut().note(&words);
}

/// Notes what the command prints, until it ends.
async fn follow(child: &mut Child, log: &RefCell<Log>) -> String {
    let mut output = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
    let (mut line, mut noted) = (Vec::new(), 0);
    while let Ok(1..) = (&mut output).take(NOTE_BYTES_MAX as u64).read_until(b'\n', &mut line).await {
        let text = cut(String::from_utf8_lossy(&line).trim());
        if noted < NOTES_MAX && !text.is_empty() {
            log.borrow_mut().note(&text);
            noted += 1;
        }
        line.clear();
    }
    match child.wait().await {
        Ok(status) if status.success() => "nemesis ends".into(),
        Ok(status) => format!("nemesis ends with {status}"),
        Err(error) => format!("nemesis is lost: {error}"),
    }
}

/// Asks the command and all that it started to end, and does not ask twice.
async fn end(child: &mut Child) {
    let group = child.id().and_then(|id| Pid::from_raw(id as i32));
    for signal in [Signal::TERM, Signal::KILL] {
        if let Some(group) = group {
            let _ = kill_process_group(group, signal);
        }
        if tokio::time::timeout(GRACE, child.wait()).await.is_ok() {
            return;
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(NOTE_BYTES_MAX).collect()
}
