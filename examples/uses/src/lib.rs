//! What the six programs share: a cluster in this process with links that can be cut, clients that talk to it
//! over HTTP, and the way in which their stories are told.

mod client;
mod cluster;
mod exchange;

pub use client::{Client, Error};
pub use cluster::{Cluster, Member, N1, N2, N3};

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before a program gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause before something that is not there yet is looked for again.
const PAUSE: Duration = Duration::from_millis(10);

/// How a story ends: what its program promises its users was kept, or was broken before the reader's eyes.
pub enum Ending {
    /// Kept, and how.
    Kept(&'static str),
    /// Broken, and how.
    Broken(&'static str),
}

/// One half of a program: with which level, and what happens then.
pub type Half = (&'static str, fn(&Cluster) -> Result<Ending, Error>);

/// Starts a cluster and lets both halves happen on it: with the level that the program needs, and with one less. Success
/// if the first keeps the promise and the second breaks it.
pub fn tell(title: &str, (level, enough): Half, (below, too_little): Half) -> ExitCode {
    println!("{title}\n");
    let told = Cluster::start().and_then(|cluster| {
        println!("{level}");
        let kept = matches!(half(&cluster, enough)?, Ending::Kept(_));
        println!("\nOne level below: {below}");
        let broken = matches!(half(&cluster, too_little)?, Ending::Broken(_));
        cluster.stop()?;
        Ok(kept && broken)
    });
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("\nThat is not how this story goes: a mistake, which we would like to hear of.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("\nThe story could not be told to its end: {error}");
            ExitCode::FAILURE
        }
    }
}

fn half(cluster: &Cluster, story: fn(&Cluster) -> Result<Ending, Error>) -> Result<Ending, Error> {
    let ending = story(cluster)?;
    match ending {
        Ending::Kept(how) => println!("  => kept: {how}"),
        Ending::Broken(how) => println!("  => BROKEN: {how}"),
    }
    Ok(ending)
}

/// Tells a line of the story.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => { println!("  {}", format_args!($($words)*)) };
}

/// Asks until there is something, and an error if there is nothing for too long.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>, Error>) -> Result<T, Error> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(found) = ask()? {
            return Ok(found);
        }
        sleep(PAUSE);
    }
    Err(Error::Broken(format!("after {PATIENCE:?} still not: {what}")))
}
