//! `synod member` and `synod transfer`: who the members are, and who leads.

use crate::cli::{Cluster, MemberAdd, MemberCommand, MemberName, Transfer};
use crate::client::{self, CallError, UNAVAILABLE};
use crate::{Done, Failure, block_on};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use synod_store::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MoveLeaderRequest, MoveLeaderResponse,
};

/// The pause before a change that surely was not made is asked for again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

pub fn run(command: &MemberCommand) -> Done {
    match command {
        MemberCommand::List(cluster) => list(cluster),
        MemberCommand::Add(options) => add(options),
        MemberCommand::Remove(options) => remove(options),
        MemberCommand::Promote(options) => promote(options),
    }
}

fn list(cluster: &Cluster) -> Done {
    let answer: MemberListResponse =
        change(cluster, "/etcdserverpb.Cluster/MemberList", &MemberListRequest::default())?;
    print_members(cluster, &answer.members, None);
    Ok(())
}

fn add(options: &MemberAdd) -> Done {
    // One URL carries both addresses, as on the command line of `synod serve`.
    let addresses = match &options.clients {
        Some(clients) => format!("{},{clients}", options.peers),
        None => options.peers.clone(),
    };
    let request =
        MemberAddRequest { peer_urls: vec![format!("http://{addresses}")], is_learner: options.learner };
    let answer: MemberAddResponse = change(&options.cluster, "/etcdserverpb.Cluster/MemberAdd", &request)?;
    let name = format!("n{}", answer.member.map(|member| member.id).unwrap_or_default());
    print_members(&options.cluster, &answer.members, Some(("added", &name)));
    if !options.cluster.json {
        println!(
            "\nStart it with an empty data directory, with the same --cluster and --member options as the others, and:\n  \
             synod serve --name {name} --data-dir {name}.data --join {name}={addresses} --member ...\n\
             It {}.",
            if options.learner {
                "receives the log, and votes once `synod member promote` lets it"
            } else {
                "votes of its own accord once it has caught up"
            }
        );
    }
    Ok(())
}

fn remove(options: &MemberName) -> Done {
    let id = number(&options.name)?;
    let answer: MemberRemoveResponse =
        change(&options.cluster, "/etcdserverpb.Cluster/MemberRemove", &MemberRemoveRequest { id })?;
    print_members(&options.cluster, &answer.members, Some(("removed", &options.name)));
    Ok(())
}

fn promote(options: &MemberName) -> Done {
    let id = number(&options.name)?;
    let answer: MemberPromoteResponse =
        change(&options.cluster, "/etcdserverpb.Cluster/MemberPromote", &MemberPromoteRequest { id })?;
    print_members(&options.cluster, &answer.members, Some(("promoted", &options.name)));
    Ok(())
}

pub fn transfer(options: &Transfer) -> Done {
    let target_id = options.to.as_deref().map(number).transpose()?.unwrap_or(0);
    let request = MoveLeaderRequest { target_id };
    let _: MoveLeaderResponse = change(&options.cluster, "/etcdserverpb.Maintenance/MoveLeader", &request)?;
    let to = options.to.as_deref().unwrap_or("another member");
    if options.cluster.json {
        println!("{}", json!({"transferred": options.to}));
    } else {
        println!("{to} leads");
    }
    Ok(())
}

/// The number in a member's name.
fn number(name: &str) -> Result<u64, Failure> {
    let number = name.strip_prefix('n').unwrap_or(name).parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| {
        Failure::Usage(format!(
            "{name:?} is no member's name: use n and its number, as in n4, or the number alone"
        ))
    })
}

fn print_members(cluster: &Cluster, members: &[Member], done: Option<(&str, &str)>) {
    let row = |member: &Member| {
        json!({
            "name": format!("n{}", member.id),
            "id": member.id,
            "part": if member.is_learner { "learner" } else { "voter" },
            "peers": member.peer_urls,
            "clients": member.client_urls,
            "met": !member.name.is_empty(),
        })
    };
    if cluster.json {
        let mut said = json!({"members": members.iter().map(row).collect::<Vec<Value>>()});
        if let Some((verb, name)) = done {
            said[verb] = name.into();
        }
        println!("{said}");
        return;
    }
    if let Some((verb, name)) = done {
        println!("{verb} {name}");
    }
    println!("{:<6} {:<8} {:<24} clients", "name", "part", "peers");
    for member in members {
        let text = |urls: &[String]| match urls {
            [] => "not met yet".to_owned(),
            urls => urls.iter().map(|url| url.trim_start_matches("http://")).collect::<Vec<_>>().join(", "),
        };
        let part = if member.is_learner { "learner" } else { "voter" };
        let (peers, clients) = (text(&member.peer_urls), text(&member.client_urls));
        println!("{:<6} {part:<8} {peers:<24} {clients}", format!("n{}", member.id));
    }
}

/// Asks one member after the other, and again while the answer is that it surely was not done and
/// may be done soon. What may have been done is never asked for twice.
fn change<Request: prost::Message, Answer: prost::Message + Default>(
    cluster: &Cluster,
    method: &str,
    request: &Request,
) -> Result<Answer, Failure> {
    let begun = Instant::now();
    loop {
        let mut unreached = Vec::new();
        let mut soon = None;
        for endpoint in &cluster.endpoints {
            let one = std::slice::from_ref(endpoint);
            match block_on(client::call(one, cluster.timeout, method, request)) {
                Ok(answer) => return Ok(answer),
                Err(CallError::Unreachable(tried)) => unreached.extend(tried),
                Err(error @ CallError::Refused { code: UNAVAILABLE, .. }) => {
                    let text = error.to_string();
                    if text.contains("timed out") {
                        return Err(Failure::Unreachable(format!(
                            "no answer came in time, and it may have been done or not: see `synod member list`. {text}"
                        )));
                    }
                    soon = Some(text);
                }
                Err(refused) => return Err(Failure::No(refused.to_string())),
            }
        }
        if begun.elapsed() + RETRY_AFTER > cluster.timeout {
            return Err(Failure::Unreachable(
                soon.unwrap_or_else(|| CallError::Unreachable(unreached).to_string()),
            ));
        }
        std::thread::sleep(RETRY_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_named_by_name_or_number() {
        assert_eq!(number("n4").ok(), Some(4));
        assert_eq!(number("17").ok(), Some(17));
        for name in ["", "n", "n0", "m4", "-1"] {
            assert!(number(name).is_err(), "{name}");
        }
    }
}
