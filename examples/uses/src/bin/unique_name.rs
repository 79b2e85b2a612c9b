//! A user name that only one person may have.
//!
//! It needs *linearizable*: once Ann has been told that `ada` is hers, everybody who asks later, anywhere, has to hear that it
//! is taken. Who asks where that cannot be known is refused, and not told something wrong.
//!
//! One level below, *sequential*, a member answers from what it has heard so far. That is a past that truly was, and "nobody
//! has this name" was true in it.

use std::process::ExitCode;
use uses::{Client, Cluster, Ending, Error, N1, N3, say, tell};

fn main() -> ExitCode {
    tell(
        "Two people want the same user name",
        ("Linearizable, and in one step", in_one_step),
        ("sequential, by a look and then a step", by_a_look),
    )
}

/// Takes the name if nobody has it. Looking and taking are one step in the one order of all: if they were two, somebody
/// else could come in between, however good the look was.
fn sign_up(client: &mut Client, name: &str, person: &str) -> Result<bool, Error> {
    client.put_if(name, None, person)
}

fn in_one_step(cluster: &Cluster) -> Result<Ending, Error> {
    cluster.create("names", "linearizable")?;
    let (mut at_n1, mut at_n3) = (cluster.client(N1, "names"), cluster.client(N3, "names"));
    cluster.cut_n3_off()?;
    say!("n3 is cut off from n1 and n2.");

    let ann_has_it = sign_up(&mut at_n1, "ada", "ann")?;
    say!("Ann signs up as ada at n1: {}.", told(ann_has_it));
    match sign_up(&mut at_n3, "ada", "ben") {
        Err(Error::Refused { message, .. }) => say!("Ben signs up as ada at n3: refused ({message})."),
        Err(error) => return Err(error),
        Ok(_) => return Ok(Ending::Broken("n3 answered what it could not know")),
    }

    cluster.heal()?;
    let ben_has_it = sign_up(&mut at_n3, "ada", "ben")?;
    say!("The link is mended, and Ben tries again: {}.", told(ben_has_it));
    let owner = at_n3.get("ada")?;
    say!("At n3, too, ada is {}.", owner.as_deref().unwrap_or("nobody"));
    Ok(match (ann_has_it, ben_has_it, owner.as_deref()) {
        (true, false, Some("ann")) => Ending::Kept("one person has the name, and the other one was told so"),
        _ => Ending::Broken("the name is not Ann's alone"),
    })
}

/// Takes the name if nobody has it as far as this member has heard. `meanwhile` is what happens between look and step.
fn sign_up_by_a_look(
    client: &mut Client,
    name: &str,
    person: &str,
    meanwhile: impl FnOnce() -> Result<(), Error>,
) -> Result<bool, Error> {
    if client.get(name)?.is_some() {
        return Ok(false);
    }
    meanwhile()?;
    client.put(name, person)?;
    Ok(true)
}

fn by_a_look(cluster: &Cluster) -> Result<Ending, Error> {
    cluster.create("names-below", "sequential")?;
    let (mut at_n1, mut at_n3) = (cluster.client(N1, "names-below"), cluster.client(N3, "names-below"));
    cluster.cut_n3_off()?;
    say!("n3 is cut off from n1 and n2.");

    let ann_has_it = sign_up_by_a_look(&mut at_n1, "ada", "ann", || Ok(()))?;
    say!("Ann signs up as ada at n1: {}.", told(ann_has_it));
    let ben_has_it = sign_up_by_a_look(&mut at_n3, "ada", "ben", || {
        say!("Ben looks at n3: nobody is ada, as far as n3 has heard. The link is mended, and he goes on.");
        cluster.heal()
    })?;
    say!("Ben signs up as ada at n3: {}.", told(ben_has_it));
    let owner = at_n1.get("ada")?;
    say!("At n1 ada is {}, who was told so after Ann.", owner.as_deref().unwrap_or("nobody"));
    Ok(match (ann_has_it, ben_has_it) {
        (true, true) => Ending::Broken("two people were told that the name is theirs"),
        _ => Ending::Kept("one of them was told no"),
    })
}

fn told(has_it: bool) -> &'static str {
    if has_it { "it is yours" } else { "it is taken" }
}
