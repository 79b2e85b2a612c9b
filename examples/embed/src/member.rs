//! One replica of the bank in this process, driven by lines on standard input.

use crate::bank::{Answer, Bank, Query};
use std::error::Error;
use std::io::{BufRead, Write};
use synod_server::{Handle, Replica};

/// Runs the replica `name` with its data in `data_dir` until standard input ends. `members` are name and address of all
/// three, as in `n1=127.0.0.1:7001`.
pub fn run(name: &str, data_dir: &str, members: &[String]) -> Result<(), Box<dyn Error>> {
    let mut builder = Replica::builder("bank", name).data_dir(data_dir);
    for member in members {
        let (name, address) = member.split_once('=').ok_or("a member is NAME=HOST:PORT")?;
        builder = builder.member(name, address);
    }
    let replica = builder.start(Bank::default())?;
    let handle = replica.handle();
    for line in std::io::stdin().lock().lines() {
        println!("{}", answer(&handle, &line?));
        std::io::stdout().flush()?;
    }
    replica.stop()?;
    Ok(())
}

/// Carries a line out, and says in a line what came of it.
fn answer(handle: &Handle<Bank>, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        // Answered from the state as all have it, whichever member is asked.
        ["balance", account] => match handle.read(Query::Balance(account.to_owned())).wait() {
            Ok(Answer::Balance(money)) => format!("ok {money}"),
            Ok(other) => format!("error {other:?} is no balance"),
            Err(error) => format!("error {error}"),
        },
        ["total"] => match handle.read(Query::Total).wait() {
            Ok(Answer::Total { money, deposits }) => format!("ok {money} from {deposits} deposits"),
            Ok(other) => format!("error {other:?} is no total"),
            Err(error) => format!("error {error}"),
        },
        ["leader"] => match handle.standing().leader {
            Some(leader) => format!("ok {leader}"),
            None => "error no leader is known".to_owned(),
        },
        // Everything else changes the bank, or wants to.
        _ => match handle.propose(line.to_owned()).wait() {
            Ok(Ok(balance)) => format!("ok {balance}"),
            Ok(Err(why)) => format!("refused {why}"),
            Err(error) if error.is_surely_not_done() => format!("error {error}"),
            Err(error) => format!("unknown {error}"),
        },
    }
}
