//! What transactions leave behind does not grow with their number: neither the records of those who took part, nor the log, nor the state.

use super::*;
use common::keyspaces::{Api, Session};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use synod_protocols::replicated::CHECKPOINT_RECORDS;

/// How many transfers, if not as many as a test has time for.
const TRANSFERS: &str = "SYNOD_TRANSFERS";
const TRANSFERS_USUAL: u64 = 3_000;
const CLIENTS: u64 = 8;
/// Enough for clients to be seldom in each other's way.
const ACCOUNTS: u64 = 64;
const ROUNDS: u64 = 3;

const SEGMENT_BYTES: u64 = 64 << 10;
/// Bytes of the log. One segment is written, and the state does not have all of the others on disk yet.
const LOG_BYTES_MAX: u64 = 4 * SEGMENT_BYTES;
/// Bytes of the state: it takes 64 MiB at a time for what it will write, and gives back what it has written elsewhere.
const STATE_BYTES_MAX: u64 = 3 * (64 << 20);
/// Bytes of an entry of a transfer, on average.
const ENTRY_BYTES_MAX: u64 = 256;

/// Entries that a process keeps. It sums up after so many records and four times as many as it summed up in last time, which is what is
/// not over: at most one transaction of each client, and its life and its coordinators'.
const ENTRIES_MAX: u64 = CHECKPOINT_RECORDS as u64 + 4 * (2 * CLIENTS + 4);

#[test]
fn what_is_kept_of_transactions_does_not_grow_with_their_number() {
    let transfers = std::env::var(TRANSFERS).map_or(TRANSFERS_USUAL, |text| text.parse().expect("a number"));
    let (one, other) = (alone("here"), alone("there"));
    let (here, there) = (one.endpoint(0), other.endpoint(0));
    let accounts: Vec<String> = (0..ACCOUNTS).map(|number| format!("a{number}")).collect();
    let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
    for (endpoint, name) in [(&here, "bank1"), (&here, "bank2"), (&there, "bank3")] {
        bank(endpoint, name, &accounts);
    }
    let form = json!({"kind": "cluster", "endpoints": [format!("http://{}", there)], "keyspace": "bank3"});
    assert_eq!(surely(&here, "PUT", "/v1/participants/far", &form).status, 201);

    let begun = Instant::now();
    let mut kept = Vec::new();
    for _ in 0..ROUNDS {
        transfer_much(&here, transfers / ROUNDS);
        for endpoint in [&here, &there] {
            until("nothing is open", || pair::open(std::slice::from_ref(endpoint))?.is_empty().then_some(()));
        }
        let both = [(&one, &here), (&other, &there)];
        kept.push(both.map(|(cluster, endpoint)| Kept::of(endpoint, &cluster.configs[0].data_dir)));
    }
    println!("{transfers} transfers in {:.0} s", begun.elapsed().as_secs_f64());
    for (round, [here, there]) in kept.iter().enumerate() {
        println!("after {}: here {here:?}, there {there:?}", (round as u64 + 1) * transfers / ROUNDS);
        // Here a coordinator and two keyspaces, there one.
        for (kept, processes) in [(here, 3), (there, 1)] {
            assert!(kept.entries > 0 && kept.entries <= processes * ENTRIES_MAX, "{kept:?}");
            assert!(kept.entry_bytes <= processes * ENTRIES_MAX * ENTRY_BYTES_MAX, "{kept:?}");
            assert!(kept.log <= LOG_BYTES_MAX && kept.state <= STATE_BYTES_MAX, "{kept:?}");
        }
    }
    let [last, _] = kept.last().expect("a round");
    assert!(last.written > last.log, "the log has forgotten nothing yet: {last:?}");
}

/// A cluster of one member, with small segments of the log.
fn alone(name: &str) -> Cluster {
    let mut cluster = Cluster::stopped(1);
    (cluster.configs[0].cluster, cluster.configs[0].segment_size) = (name.to_owned(), SEGMENT_BYTES);
    cluster.up(0);
    cluster.leader();
    cluster
}

/// What is left of them at a member.
#[derive(Debug)]
struct Kept {
    /// Of the journals.
    entries: u64,
    entry_bytes: u64,
    /// Written to the log since the member started.
    written: u64,
    /// Files of the log.
    log: u64,
    /// Files of the state.
    state: u64,
}

impl Kept {
    fn of(endpoint: &str, data_dir: &Path) -> Kept {
        let metrics = exchange(endpoint, "GET", "/metrics", &[], "").expect("an answer").text;
        let figure = |name: &str| {
            let mut lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            lines.next().unwrap_or_else(|| panic!("{name}: {metrics}")).parse().expect("a number")
        };
        Kept {
            entries: figure("synod_journal_entries"),
            entry_bytes: figure("synod_journal_bytes"),
            written: figure("synod_log_written_bytes_total"),
            log: size(&data_dir.join("log")),
            state: size(&data_dir.join("state")),
        }
    }
}

/// Bytes of all files below.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let one = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        // It was removed meanwhile.
        Err(_) => 0,
    };
    entries.map(one).sum()
}

/// So many transfers, from `bank1` to `bank2` and to `far` by turns.
fn transfer_much(endpoint: &str, count: u64) {
    let begun = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let begun = &begun;
            scope.spawn(move || {
                let mut api = Api::to(endpoint);
                loop {
                    let number = begun.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    transfer_one(&mut api, number);
                }
            });
        }
    });
}

/// Tries until it is committed: two may meet at an account.
fn transfer_one(api: &mut Api, number: u64) {
    let (from, to) = (format!("a{}", number % ACCOUNTS), format!("a{}", (7 * number + 1) % ACCOUNTS));
    let other = if number.is_multiple_of(2) { "bank2" } else { "far" };
    let amount = if number.is_multiple_of(3) { 1 } else { -1 };
    let body = json!({"branches": [
        {"participant": "bank1", "work": [{"add": {"key": from, "by": -amount}}]},
        {"participant": other, "work": [{"add": {"key": to, "by": amount}}]},
    ]});
    let begun = Instant::now();
    loop {
        let (status, answer) = api.ask("POST", "/v1/transactions", &Session::default(), Some(&body));
        if status == 200 && answer["decision"] == "commit" {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{status}: {answer}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
