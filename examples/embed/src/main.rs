//! A bank that is replicated in its own process, with `synod-server` as a library. See `README.md`.

mod bank;
mod demo;
mod member;

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => demo::run(),
        [command, name, data_dir, members @ ..] if command == "member" => {
            member::run(name, data_dir, members)
        }
        _ => Err("usage: embed, or embed member NAME DIRECTORY NAME=HOST:PORT...".into()),
    }
}
