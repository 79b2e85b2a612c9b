//! `synod lab` and `synod replay`: the page alone, and the page on a recording.

use crate::cli;
use crate::{Done, Failure, asked_to_stop, block_on};
use synod_lab::Lab;

pub fn run(options: &cli::Lab) -> Done {
    serve(Lab::new(options.page), "")
}

fn serve(lab: Lab, view: &str) -> Done {
    block_on(async {
        let page = lab.bind().await.map_err(|e| Failure::Usage(e.to_string()))?;
        println!("page  {}{view}", page.url());
        println!("stop  Ctrl-C");
        page.serve(asked_to_stop()).await.map_err(|e| Failure::No(e.to_string()))
    })
}

pub fn replay(_options: &cli::Replay) -> Done {
    Ok(())
}
