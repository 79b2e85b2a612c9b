//! Which engine should keep a member's state, and in which style should its log be written? Measured on the
//! disk that holds `--dir`, each figure the median of several rounds in which the candidates take turns,
//! so that a noisy minute on the machine hits all of them.
//!
//! ```text
//! cargo run --release -- state [--dir data] [--rounds 3] [--keys 1000000]
//! cargo run --release -- log   [--dir data] [--rounds 7]
//! ```
//!
//! Engines run in child processes, so that memory, processor time and what survives `kill -9` are
//! theirs alone.

mod engine;
mod log;
mod measure;
mod state;

use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What the command line said.
#[derive(Debug)]
pub struct Arguments {
    pub dir: PathBuf,
    pub rounds: usize,
    pub keys: u64,
    pub only: Option<String>,
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    if command == "child" {
        return state::child(&words.collect::<Vec<_>>());
    }
    let mut arguments = Arguments { dir: "data".into(), rounds: 0, keys: 1_000_000, only: None };
    while let Some(flag) = words.next() {
        let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--dir" => arguments.dir = value.into(),
            "--rounds" => arguments.rounds = value.parse()?,
            "--keys" => arguments.keys = value.parse()?,
            "--only" => arguments.only = Some(value),
            _ => {
                return Err(
                    format!("unknown flag {flag}: there are --dir, --rounds, --keys and --only").into()
                );
            }
        }
    }
    std::fs::create_dir_all(&arguments.dir)?;
    match command.as_str() {
        "state" => state::compare(&arguments),
        "log" => log::compare(&arguments),
        _ => Err("say what to measure: `state` or `log`".into()),
    }
}
