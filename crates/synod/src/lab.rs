//! `synod lab` and `synod replay`: the page alone, as one file, and on a recording.

use crate::cli::{self, LabCommand};
use crate::{Done, Failure, asked_to_stop, block_on};
use synod_lab::Lab;

pub fn run(options: &cli::Lab) -> Done {
    match &options.command {
        Some(LabCommand::Export(options)) => export(options),
        None => serve(Lab::new(options.page), ""),
    }
}

fn export(options: &cli::Export) -> Done {
    let (from, to) = (options.script.display(), options.output.display());
    let script = std::fs::read_to_string(&options.script)
        .map_err(|e| Failure::Usage(format!("cannot read {from}: {e}")))?;
    let trace = synod_lab::simulate(&script).map_err(|e| match e.line {
        0 => Failure::Usage(format!("{from}: {}", e.error)),
        line => Failure::Usage(format!("{from}: line {line}: {}", e.error)),
    })?;
    let page = synod_lab::export(&trace).map_err(|e| Failure::Usage(e.to_string()))?;
    std::fs::write(&options.output, page).map_err(|e| Failure::Usage(format!("cannot write {to}: {e}")))
}

pub fn replay(options: &cli::Replay) -> Done {
    let path = options.recording.display();
    let bytes = std::fs::read(&options.recording);
    let mut recording =
        bytes::Bytes::from(bytes.map_err(|e| Failure::Usage(format!("cannot read {path}: {e}")))?);
    // The first line is the member's configuration, for people; the tape follows it.
    let tape = recording.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let tape = recording.split_off(tape);
    let mut events = synod_sim::Trace::new();
    let replayed =
        synod_sim::replay(tape, &mut events).map_err(|e| Failure::Usage(format!("{path}: {e}")))?;
    if options.text {
        println!("{}", replayed.header);
        print!("{}", events.lines());
        return Ok(());
    }
    println!("member     {}, {} inputs", replayed.member, replayed.inputs);
    let lines = events.lines().lines().map(Box::from);
    let trace =
        synod_lab::Trace::new(replayed.header, lines).map_err(|e| Failure::Usage(format!("{path}: {e}")))?;
    serve(Lab::new(options.page).with_trace(trace), "#replay")
}

fn serve(lab: Lab, view: &str) -> Done {
    block_on(async {
        let page = lab.bind().await.map_err(|e| Failure::Usage(e.to_string()))?;
        println!("page       {}{view}", page.url());
        println!("stop       Ctrl-C");
        page.serve(asked_to_stop()).await.map_err(|e| Failure::Stopped(e.to_string()))
    })
}
