//! `synod sim matrix`: every protocol under every fault.

use crate::cli;
use crate::sim::{known_or_all, save};
use crate::{Done, Failure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::io::Write;
use synod_sim::{Cell, Fault, Matrix, Span};

pub fn run(options: &cli::Matrix) -> Done {
    let matrix = Matrix {
        protocols: known_or_all(&options.protocols)?,
        faults: if options.faults.is_empty() { Fault::ALL.to_vec() } else { options.faults.clone() },
        nodes: u8::try_from(options.nodes).expect("the command line allows no more than the simulator does"),
        seeds: options.seeds,
        until: Span(u64::try_from(options.span.as_nanos()).unwrap_or(u64::MAX)),
        threads: options
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
    };
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = "{bar:30} {pos}/{len} runs, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is well formed"));
    let cells = matrix.run(&|done, total| {
        bar.set_length(total);
        bar.set_position(done);
        true
    });
    bar.finish_and_clear();
    let cells = cells.map_err(|e| Failure::Usage(e.to_string()))?;
    if let Some(path) = &options.out {
        save(path, |file| file.write_all(matrix.markdown(&cells).as_bytes()))?;
    }
    if options.json {
        println!(
            "{}",
            json!({"nodes": matrix.nodes, "seeds": matrix.seeds, "until": matrix.until.0, "cells": cells})
        );
    } else {
        print(&matrix, &cells);
    }
    match cells.iter().filter(|cell| !cell.as_expected).count() {
        0 => Ok(()),
        n => Err(Failure::No(format!("{n} cells are not what they must be"))),
    }
}

fn print(matrix: &Matrix, cells: &[Cell]) {
    print!("{:<18}", "");
    matrix.protocols.iter().for_each(|protocol| print!("{protocol:<24}"));
    println!();
    for fault in &matrix.faults {
        print!("{fault:<18}");
        cells.iter().filter(|cell| cell.fault == *fault).for_each(|cell| print!("{cell:<24}"));
        println!();
    }
    let steps: u64 = cells.iter().map(|cell| cell.steps).sum();
    let runs: u64 = cells.iter().map(|cell| cell.runs).sum();
    let faults: u64 = cells.iter().map(|cell| cell.faults).sum();
    let seconds: f64 = cells.iter().map(|cell| cell.seconds).sum();
    println!("{runs} runs, {faults} faults, {steps} steps in {seconds:.1} s");
    for cell in cells.iter().filter(|cell| !cell.as_expected) {
        match &cell.example {
            Some(failure) => println!("{} under {}: {failure}", cell.protocol, cell.fault),
            None => println!(
                "{} under {}: nothing was broken, though it is beyond the budget: more seeds, or the simulator is blind",
                cell.protocol, cell.fault
            ),
        }
    }
}
