//! The `synod` binary: one command line over the whole house.

// Nothing of a binary is reachable from outside: `pub` says what a module offers to the others.
#![allow(unreachable_pub)]

#[macro_use]
mod out;

mod api;
mod bank;
mod bank_demo;
mod bench;
mod check;
mod cli;
mod client;
mod costs;
mod demo;
mod elections;
mod failover;
mod flp;
mod keys;
mod keyspace;
mod kv;
mod lab;
mod levels;
mod matrix;
mod members;
mod ops;
mod participant;
mod probe;
mod saga;
mod serve;
mod session_file;
mod shrink;
mod sim;
mod supervisor;
mod transfers;
mod txn;
mod weak;

use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

/// How a command ends, and the text for standard error. The numbers are in `synod --help`.
#[derive(Debug)]
pub enum Failure {
    /// It ran, and the answer is no.
    No(String),
    /// The command line, a configuration or a script is wrong.
    Usage(String),
    /// The cluster could not be reached, or did not answer in time.
    Unreachable(String),
    /// A data directory cannot be used.
    Storage(String),
    /// A member had to stop by itself.
    Stopped(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Failure::No(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::Storage(_) => 4,
            Failure::Stopped(_) => 5,
        }
    }

    fn text(&self) -> &str {
        match self {
            Failure::No(text)
            | Failure::Usage(text)
            | Failure::Unreachable(text)
            | Failure::Storage(text)
            | Failure::Stopped(text) => text,
        }
    }
}

type Done = Result<(), Failure>;

fn main() -> ExitCode {
    let parsed = Cli::try_parse().unwrap_or_else(|error| {
        let checks =
            std::env::args_os().nth(1).is_some_and(|command| command == "check" || command == "probe");
        // What is wrong with a history's flags must not look like a verdict on it.
        if checks && error.use_stderr() {
            let _ = error.print();
            std::process::exit(check::UNUSABLE.into());
        }
        error.exit()
    });
    let command = parsed.command.unwrap_or_else(|| Command::Demo(cli::Demo::default()));
    let done = match command {
        Command::Demo(options) => match &options.command {
            Some(cli::DemoCommand::Bank(options)) => bank_demo::run(options),
            None => demo::run(&options),
        },
        Command::Serve(options) => serve::run(&options),
        Command::Lab(options) => lab::run(&options),
        Command::Sim(options) => sim::run(&options),
        Command::Check(options) => return check::run(&options),
        Command::Probe(options) => return probe::run(&options),
        Command::Shrink(options) => shrink::run(&options),
        Command::Flp(options) => flp::run(&options),
        Command::Replay(options) => lab::replay(&options),
        Command::Put(options) => kv::put(&options),
        Command::Get(options) => kv::get(&options),
        Command::Del(options) => kv::del(&options),
        Command::Keyspace(command) => keyspace::run(&command),
        Command::Status(options) => kv::status(&options),
        Command::Member(command) => members::run(&command),
        Command::Txn(command) => txn::run(&command),
        Command::Saga(command) => saga::run(&command),
        Command::Participant(command) => participant::run(&command),
        Command::Transfer(options) => members::transfer(&options),
        Command::Bench(options) => match &options.command {
            Some(cli::BenchCommand::Transfers(options)) => transfers::run(options),
            Some(cli::BenchCommand::Levels(options)) => levels::run(options),
            None => bench::run(&options),
        },
        Command::Failover(options) => failover::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text().is_empty() {
                eprintln!("synod: {}", failure.text());
            }
            ExitCode::from(failure.code())
        }
    }
}

/// The one thread on which a command's network work runs.
fn block_on<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the operating system gives us an event loop").block_on(work)
}

/// Resolves when the person at the terminal, or a supervisor, asks us to stop.
async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
