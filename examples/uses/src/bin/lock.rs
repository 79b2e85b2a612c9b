//! A lock, and a document that only its holder may write.
//!
//! It needs *linearizable*, and a *fencing token* besides. A holder that was away for a while (collecting garbage, swapped out)
//! cannot know that its lock was given to somebody else: however well it asked before, the answer is old by the time it
//! writes. So every holder gets a larger number, and what the lock guards takes no write with an old one. Here lock and
//! document are in one keyspace, so that one transaction can say: write this, if the lock still has my number.
//!
//! One level below, *sequential* and without the number, the holder asks its member whether the lock is still its own.

use std::process::ExitCode;
use uses::{Client, Cluster, Ending, Error, N1, N3, say, tell};

fn main() -> ExitCode {
    tell(
        "A holder of a lock falls asleep, and wakes up after it was taken from her",
        ("Linearizable, with a fencing token in every write", fenced),
        ("sequential, with a look at the lock before every write", looked_at),
    )
}

/// Takes the lock from `before`, and returns the number under which it is held now: one more with each holder.
fn take(client: &mut Client, before: Option<&str>, person: &str) -> Result<String, Error> {
    let number = before.and_then(|held| held.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) + 1;
    let held = format!("{number} {person}");
    match client.put_if("lock", before, &held)? {
        true => Ok(held),
        false => Err(Error::Broken(format!("the lock was not held by {before:?}"))),
    }
}

fn fenced(cluster: &Cluster) -> Result<Ending, Error> {
    cluster.create("office", "linearizable")?;
    let (mut ann, mut ben) = (cluster.client(N3, "office"), cluster.client(N1, "office"));
    let anns = take(&mut ann, None, "ann")?;
    say!("Ann, at n3, takes the lock: \"{anns}\". She begins to write, and falls asleep; n3 is cut off.");
    cluster.cut_n3_off()?;

    let bens = take(&mut ben, Some(&anns), "ben")?;
    say!("Ben, at n1, takes the lock from her: \"{bens}\".");
    let write =
        |client: &mut Client, held: &str, words: &str| client.put_while(("lock", held), "document", words);
    let ben_wrote = write(&mut ben, &bens, "by ben")?;
    say!("Ben writes, if the lock is \"{bens}\": {}.", done(ben_wrote));

    cluster.heal()?;
    let ann_wrote = write(&mut ann, &anns, "by ann")?;
    say!("The link is mended, Ann wakes up and writes, if the lock is \"{anns}\": {}.", done(ann_wrote));
    ending(&mut ben, ben_wrote && !ann_wrote)
}

fn looked_at(cluster: &Cluster) -> Result<Ending, Error> {
    cluster.create("office-below", "sequential")?;
    let (mut ann, mut ben) = (cluster.client(N3, "office-below"), cluster.client(N1, "office-below"));
    let anns = take(&mut ann, None, "ann")?;
    // Her session has seen that, so n3 has, too, when it has answered.
    ann.get("lock")?;
    say!("Ann, at n3, takes the lock. She begins to write, and falls asleep; n3 is cut off.");
    cluster.cut_n3_off()?;

    take(&mut ben, Some(&anns), "ben")?;
    ben.put("document", "by ben")?;
    say!("Ben, at n1, takes the lock from her, and writes.");

    let is_hers = ann.get("lock")?.as_deref() == Some(&anns);
    say!("Ann wakes up and asks n3 whether the lock is hers: {}.", if is_hers { "yes" } else { "no" });
    cluster.heal()?;
    if is_hers {
        ann.put("document", "by ann")?;
        say!("The link is mended, and Ann writes: done.");
    }
    ending(&mut ben, true)
}

fn ending(reader: &mut Client, as_told: bool) -> Result<Ending, Error> {
    let document = reader.get("document")?.unwrap_or_default();
    say!("The document is \"{document}\".");
    Ok(match document.as_str() {
        "by ben" if as_told => Ending::Kept("only who held the lock has written"),
        _ => Ending::Broken("what the holder of the lock wrote was lost to somebody who did not hold it"),
    })
}

fn done(done: bool) -> &'static str {
    if done { "done" } else { "not done, it is not" }
}
