//! `synod bench`: the load generator on the command line.

use crate::cli::Bench;
use crate::{Done, Failure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use synod_bench::{Error, Limit, Mix, Options, Phase, Report, Row, Table, run as measure, standard_rows};

pub fn run(options: &Bench) -> Done {
    if options.reads > 100 {
        return Err(Failure::Usage(format!(
            "--reads {}: a share in a hundred is at most 100",
            options.reads
        )));
    }
    let base = Options {
        endpoints: options.endpoints.clone(),
        key_bytes: options.key_bytes,
        value_bytes: options.value_bytes,
        mix: Mix { put: 100 - u32::from(options.reads), get: u32::from(options.reads), serializable_get: 0 },
        limit: Limit::Time(options.span),
        warmup: options.warmup,
        server_pids: options.server_pids.clone(),
        ..Options::default()
    };
    let rows = match options.clients {
        Some(clients) => vec![Row { clients, outstanding_per_connection: options.outstanding }],
        None => standard_rows().to_vec(),
    };
    let mut reports = Vec::new();
    for row in rows {
        let report = measure_row(&base.with_row(row))?;
        if options.json {
            println!("{}", serde_json::to_string(&report).expect("a report is plain data"));
        }
        reports.push(report);
    }
    if !options.json {
        print!("{}", Table(&reports));
    }
    let silent = reports.iter().any(|report| report.operations == 0);
    if silent { Err(Failure::Unreachable("a row saw no operation succeed".into())) } else { Ok(()) }
}

/// One row, with a bar on a terminal.
pub fn measure_row(options: &Options) -> Result<Report, Failure> {
    let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix} {bar:30} {msg}").expect("the template is well formed");
    bar.set_style(style);
    bar.set_prefix(format!("{} clients, {} each", options.clients, options.outstanding_per_connection));
    let report = measure(options, &mut |progress| {
        bar.set_position((progress.share * 1000.0) as u64);
        let phase = if matches!(progress.phase, Phase::Warmup) { "warming up" } else { "measuring" };
        bar.set_message(format!("{phase}, {} done, {} failed", progress.operations, progress.failures));
    });
    bar.finish_and_clear();
    report.map_err(|error| match error {
        Error::NoEndpoint { .. } => Failure::Unreachable(error.to_string()),
        other => Failure::Usage(other.to_string()),
    })
}
