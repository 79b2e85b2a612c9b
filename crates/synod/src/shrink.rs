//! `synod shrink`: a failing run made small, and told.

use crate::cli::Shrink;
use crate::sim::{address, known, save, script, simulate};
use crate::{Done, Failure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::Write;
use synod_sim::{NoTrace, Story};

pub fn run(options: &Shrink) -> Done {
    let original = script(&options.run)?;
    known(&original.protocol)?;
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is well formed"));
    let run = |candidate: &_| synod_sim::run(candidate, &mut NoTrace).expect("the protocol is known");
    let shrunk = synod_sim::shrink(&original, run, |best, runs| {
        let (nodes, lines, until) = (best.nodes, best.actions.len(), best.until);
        bar.set_message(format!("{nodes} nodes, {lines} lines, {until} after {runs} runs"));
        bar.tick();
        true
    });
    bar.finish_and_clear();
    let Some(shrunk) = shrunk else {
        return Err(Failure::No(
            "this run breaks no promise: there is nothing to shrink. `synod sim --seeds 1000` looks for one that does"
                .into(),
        ));
    };
    let small = shrunk.script;
    let mut story = Story::default();
    let outcome = simulate(&small, &mut story)?;
    println!(
        "{} is broken by {} nodes, {} lines, {}; it was {} nodes, {} lines, {} ({} runs)\n",
        shrunk.promise,
        small.nodes,
        small.actions.len(),
        small.until,
        original.nodes,
        original.actions.len(),
        original.until,
        shrunk.runs
    );
    println!("{small}\n{}", story.text(&outcome));
    println!("on the page (`synod lab`)  {}", address(&outcome));
    if let Some(path) = &options.out {
        save(path, |file| file.write_all(small.to_string().as_bytes()))?;
    }
    if let Some(path) = &options.html {
        save(path, |file| file.write_all(story.html(&outcome).as_bytes()))?;
    }
    Ok(())
}
