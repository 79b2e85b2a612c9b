//! The four standard loads against a cluster:
//! `cargo run --release -p synod-bench --example bench -- 127.0.0.1:2379,127.0.0.1:22379 [pid,pid] [seconds]`

use std::time::Duration;

use synod_bench::{Limit, Options, Table, run, standard_rows};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let list = |text: Option<String>| -> Vec<String> {
        text.iter()
            .flat_map(|text| text.split(','))
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let endpoints = list(arguments.next());
    let server_pids =
        list(arguments.next()).iter().map(|pid| pid.parse()).collect::<Result<Vec<u32>, _>>()?;
    let seconds = arguments.next().map_or(Ok(10), |seconds| seconds.parse())?;
    let options = Options {
        endpoints,
        server_pids,
        limit: Limit::Time(Duration::from_secs(seconds)),
        ..Options::default()
    };
    let mut reports = Vec::new();
    for row in standard_rows() {
        reports.push(run(&options.with_row(row), &mut |_| {})?);
    }
    print!("{}", Table(&reports));
    Ok(())
}
