//! Names that are looked up everywhere all the time, and changed now and then.
//!
//! It needs *sequential*: all changes in one order, which every reader sees in that order and no session sees backwards. Reads
//! are answered by the nearest member, also while it is cut off. They may be of the past, and that is no harm: so is an
//! address that was looked up a second ago.
//!
//! Two people take machines out of service, each by the rule: first take mine out of the list, then look whether another
//! one is left, and if not, put mine back. In one order one of the two changes comes second, and who made it sees the first.
//!
//! One level below, *causal*, changes that do not know of each other have no order. Each of the two sees the other's machine.

use std::process::ExitCode;
use uses::{Client, Cluster, Ending, Error, N1, N2, N3, eventually, say, tell};

fn main() -> ExitCode {
    tell(
        "The shop runs on two machines, blue and green, and both need a new disk",
        ("Sequential: changes have one order, and a member that cannot know it makes none", |cluster| {
            take_both_out(cluster, "machines", "sequential")
        }),
        ("causal: changes that do not know of each other have none", |cluster| {
            take_both_out(cluster, "machines-below", "causal")
        }),
    )
}

/// Takes a machine out of service if another one stays, and says whether it did.
fn take_out(operator: &mut Client, mine: &str, other: &str) -> Result<bool, Error> {
    operator.put(mine, "out")?;
    if operator.get(other)?.as_deref() == Some("serves") {
        return Ok(true);
    }
    operator.put(mine, "serves")?;
    Ok(false)
}

fn take_both_out(cluster: &Cluster, keyspace: &str, model: &str) -> Result<Ending, Error> {
    cluster.create(keyspace, model)?;
    let (mut olga, mut pete) = (cluster.client(N1, keyspace), cluster.client(N3, keyspace));
    let mut shopper = cluster.client(N3, keyspace);
    for machine in ["blue", "green"] {
        olga.put(machine, "serves")?;
        eventually("n3 knows the machine", || shopper.get(machine))?;
    }
    cluster.cut_n3_off()?;
    say!("Both serve. n3 is cut off from n1 and n2.");

    let blue_is_out = take_out(&mut olga, "blue", "green")?;
    say!("Olga, at n1, takes blue out: {}.", told(blue_is_out));
    let green_is_out = match take_out(&mut pete, "green", "blue") {
        Ok(done) => {
            say!("Pete, at n3, takes green out: {}.", told(done));
            done
        }
        Err(Error::Refused { message, .. }) => {
            say!("Pete, at n3, takes green out: refused ({message}).");
            false
        }
        Err(error) => return Err(error),
    };
    let blue = shopper.get("blue")?.unwrap_or_default();
    say!("A shopper looks blue up at n3: it {blue}. (Out of date, and harmless: green is asked next.)");

    cluster.heal()?;
    if !green_is_out {
        let done = take_out(&mut pete, "green", "blue")?;
        say!("The link is mended, and Pete tries again: {}.", told(done));
    }
    ending(cluster, keyspace)
}

/// How many machines serve, when all members say the same.
fn ending(cluster: &Cluster, keyspace: &str) -> Result<Ending, Error> {
    let serving = eventually("all members show the same", || {
        let mut shown = Vec::new();
        for member in [N1, N2, N3] {
            let mut client = cluster.client(member, keyspace);
            shown.push([client.get("blue")?, client.get("green")?]);
        }
        // Olga's change is known to have been made, so what is from before it is not the end.
        let same = shown.iter().all(|list| *list == shown[0]) && shown[0][0].as_deref() == Some("out");
        Ok(same.then(|| shown[0].iter().filter(|state| state.as_deref() == Some("serves")).count()))
    })?;
    say!(
        "All three members say: {serving} of the two machines {}.",
        if serving == 1 { "serves" } else { "serve" }
    );
    Ok(match serving {
        0 => Ending::Broken("both were taken out, each because the other one served, and the shop is closed"),
        _ => Ending::Kept("the shop was open all the time, and could be found at every member"),
    })
}

fn told(is_out: bool) -> &'static str {
    if is_out { "done, the other one serves" } else { "put back, since the other one is out" }
}
