//! A feed of posts and replies.
//!
//! It needs *causal*: whoever sees a reply sees the post that it answers. Posts that have nothing to do with each other may come in any
//! order, so nobody has to be asked: every member takes posts, also while it is cut off.
//!
//! What holds it together is the session. Ben has read the post at n2 and goes on at n3, as a telephone does. His session's
//! token tells n3 what his reply depends on, and n3 takes it only once it has that, too.
//!
//! One level below, *eventual*, there are no sessions, and n3 shows what it is given.

use std::process::ExitCode;
use uses::{Client, Cluster, Ending, Error, N1, N2, N3, eventually, say, tell};

const POST: &str = "1 ann";
const REPLY: &str = "1 ann, reply by ben";

fn main() -> ExitCode {
    tell(
        "Ann posts, Ben replies, and Carol reads along",
        ("Causal: no reply without its post", |cluster| converse(cluster, "feed", "causal")),
        ("eventual: each message as it comes", |cluster| converse(cluster, "feed-below", "eventual")),
    )
}

fn converse(cluster: &Cluster, keyspace: &str, model: &str) -> Result<Ending, Error> {
    cluster.create(keyspace, model)?;
    let (mut ann, mut ben) = (cluster.client(N1, keyspace), cluster.client(N2, keyspace));
    let mut carol = cluster.client(N3, keyspace);
    cluster.cut_n3_off()?;
    say!("n3 is cut off from n1 and n2.");
    carol.put("2 carol", "What a morning")?;
    say!("Carol, at n3: \"What a morning\". Nobody needs to be asked for that.");

    ann.put(POST, "Shall we have lunch?")?;
    let post = eventually("Ann's post at n2", || ben.get(POST))?;
    say!("Ann, at n1: \"{post}\". Ben reads it at n2, and goes on at n3.");
    let mut ben = cluster.moved(ben, N3);
    let was_taken = reply(&mut ben)?;
    let looked = look(&mut carol)?;

    cluster.heal()?;
    say!("The link is mended.");
    if !was_taken {
        eventually("Ben's reply is taken", || Ok(reply(&mut ben)?.then_some(())))?;
    }
    // By now she sees both, sooner or later; what counts is what she has seen on the way.
    let mut always = looked;
    eventually("Carol sees the reply and its post", || {
        let (reply, post) = (carol.get(REPLY)?, carol.get(POST)?);
        always &= reply.is_none() || post.is_some();
        Ok(reply.and(post))
    })?;
    say!("Carol sees the post and the reply.");
    Ok(match always {
        true => Ending::Kept("Carol never saw a reply without the post that it answers"),
        false => Ending::Broken("Carol saw a reply, and not the post that it answers"),
    })
}

/// Ben replies where he is now, and says whether his reply was taken.
fn reply(ben: &mut Client) -> Result<bool, Error> {
    match ben.put(REPLY, "With pleasure!") {
        Ok(()) => {
            say!("Ben, at n3: \"With pleasure!\"");
            Ok(true)
        }
        Err(Error::Refused { message, .. }) => {
            say!("Ben, at n3, wants to reply: not yet ({message}).");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Carol looks at her feed. (The reply first: with a session, what she sees afterwards is not older.)
fn look(carol: &mut Client) -> Result<bool, Error> {
    let (reply, post) = (carol.get(REPLY)?, carol.get(POST)?);
    match (&reply, &post) {
        (None, None) => say!("Carol's feed, at n3, has her own post, and nothing of the others."),
        (Some(reply), None) => say!("Carol's feed, at n3: \"{reply}\", by Ben. With pleasure what?"),
        _ => say!("Carol's feed, at n3, has Ann's post."),
    }
    Ok(reply.is_none() || post.is_some())
}
