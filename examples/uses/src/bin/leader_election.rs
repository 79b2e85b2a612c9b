//! One of several workers leads, and the others wait.
//!
//! It needs *linearizable*: a worker works only as long as it has just been told that it still leads. One that can no longer be
//! told stops. (Between being told and working there is still a moment; what can go wrong in it is the story of `lock`.)
//!
//! One level below, *sequential*, a member that is cut off goes on telling its worker what was true when it last heard.
//!
//! Synod has no leases yet, so here a worker that is thought to be dead is deposed by another one. That is one step
//! from the leader that it knew, so of several who try it at once one succeeds.

use std::process::ExitCode;
use uses::{Client, Cluster, Ending, Error, N1, N3, eventually, say, tell};

/// Where it stands who leads: a number of the office, and a name.
const OFFICE: &str = "leader";

fn main() -> ExitCode {
    tell(
        "Two workers, of whom one leads",
        ("Linearizable: who cannot be told that they lead, do not", |cluster| {
            hand_over(cluster, "office", "linearizable")
        }),
        ("sequential: who are not told otherwise, lead", |cluster| {
            hand_over(cluster, "office-below", "sequential")
        }),
    )
}

/// A worker, and the entry by which it leads.
struct Worker {
    entry: &'static str,
    client: Client,
}

impl Worker {
    /// Leads from now on, if who led until now is who `before` says.
    fn stand(&mut self, before: Option<&str>) -> Result<bool, Error> {
        self.client.put_if(OFFICE, before, self.entry)
    }

    /// Whether it may work: only if it is told that it leads.
    fn leads(&mut self) -> Result<bool, Error> {
        match self.client.get(OFFICE) {
            Ok(leader) => {
                let leader = leader.unwrap_or_else(|| "nobody".into());
                say!("{} asks who leads: {leader}.", self.entry);
                Ok(leader == self.entry)
            }
            Err(Error::Refused { message, .. }) => {
                say!("{} asks who leads: no answer ({message}).", self.entry);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn hand_over(cluster: &Cluster, keyspace: &str, model: &str) -> Result<Ending, Error> {
    cluster.create(keyspace, model)?;
    let mut ann = Worker { entry: "1 ann", client: cluster.client(N3, keyspace) };
    let mut ben = Worker { entry: "2 ben", client: cluster.client(N1, keyspace) };
    if !ann.stand(None)? {
        return Err(Error::Broken("nobody led, and yet Ann could not".into()));
    }
    // Her session has seen her election, so this waits until n3 has, too.
    eventually("Ann leads", || Ok(ann.leads()?.then_some(())))?;

    cluster.cut_n3_off()?;
    say!("n3, where Ann asks, is cut off. Ben, at n1, hears nothing of her and stands for leader.");
    if !ben.stand(Some("1 ann"))? {
        return Err(Error::Broken("Ben knew who led, and yet could not depose her".into()));
    }
    let (ann_works, ben_works) = (ann.leads()?, ben.leads()?);
    cluster.heal()?;
    Ok(match (ann_works, ben_works) {
        (false, true) => {
            Ending::Kept("one worker works, and the one that might have been deposed has stopped")
        }
        (true, true) => Ending::Broken("two workers work, and each believes that it is alone"),
        _ => Ending::Broken("nobody works"),
    })
}
