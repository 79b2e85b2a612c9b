//! `synod bench transfers` as a whole, with small counts: every row is measured, and nothing is left in the databases.

#[path = "../../server/tests/outside/database.rs"]
mod database;

use database::Server;
use serde_json::Value;
use std::process::Command;

fn bench(arguments: &[&str], databases: &str) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["bench", "transfers", "--for", "300ms", "--accounts", "50", "--clients", "2", "--json"])
        .args(arguments)
        .env("SYNOD_BENCH_POSTGRES", databases)
        .output()
        .expect("synod runs");
    let text = |bytes| String::from_utf8(bytes).expect("it is text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn rows(said: &str) -> Vec<Value> {
    said.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

#[tokio::test]
async fn transfers_are_measured_between_keyspaces_clusters_and_databases() {
    let mut servers = Vec::new();
    for bank in ["bank1", "bank2"] {
        let Some(server) = Server::start(&["max_prepared_transactions=50"]) else { return };
        server.create_bank(bank, &[]).await;
        servers.push((server, bank));
    }
    let urls: Vec<_> = servers.iter().map(|(server, bank)| server.url(bank)).collect();
    // The second is not taken for the first, whose transactions the databases know.
    let (code, said, why) = bench(&["--runs", "0"], &urls.join(","));
    assert_eq!(code, Some(0), "{said}{why}");
    let (code, said, why) = bench(&["--runs", "1"], &urls.join(","));
    assert_eq!(code, Some(0), "{said}{why}");
    assert!(!said.contains(database::PASSWORD) && !why.contains(database::PASSWORD), "{said}{why}");
    let rows = rows(&said);
    let transfers: Vec<_> = rows.iter().filter(|row| row["transfers-per-second"].is_number()).collect();
    assert_eq!(transfers.len(), 9, "{said}");
    for row in transfers {
        assert!(row["transfers-per-second"].as_f64() > Some(0.0), "{row}");
        assert!(
            row["p50-ms"].as_f64() > Some(0.0) && row["p99-ms"].as_f64() >= row["p50-ms"].as_f64(),
            "{row}"
        );
    }
    for (server, bank) in &servers {
        let left = "select count(*) from pg_tables where tablename = 'synod_bench_accounts'";
        let left: i64 = server.connect(bank).await.query_one(left, &[]).await.expect("a count").get(0);
        assert_eq!(left, 0, "the bench leaves its table behind");
        let open = "select count(*) from pg_prepared_xacts";
        let open: i64 = server.connect(bank).await.query_one(open, &[]).await.expect("a count").get(0);
        assert_eq!(open, 0, "the bench leaves transactions prepared");
    }
}

#[test]
fn a_third_database_is_refused() {
    let (code, _, why) = bench(&[], "postgres://a/x,postgres://b/x,postgres://c/x");
    assert_eq!(code, Some(2), "{why}");
    assert!(why.contains("one or two databases"), "{why}");
}
