//! Runs on the protocols of the catalogue, and on copies of them with one rule taken out.
//!
//! A lesson is a copy which `synod-mutants` generates from the protocol's own sources when it is built, so that it is
//! the real protocol but for the one rule. A script names it like a protocol: `protocol raft/old_term_counted`.

use synod_sim::{Outcome, Script, Sink, UnknownProtocol, run_with};

/// The protocols with a rule taken out that a script of the page may name.
pub const LESSONS: &[&str] = &["raft/old_term_counted"];

/// Runs a script on the protocol or the lesson that it names.
///
/// # Errors
/// [`UnknownProtocol`] where there is neither.
pub(crate) fn run(script: &Script, sink: &mut dyn Sink) -> Result<Outcome, UnknownProtocol> {
    match script.protocol.as_str() {
        "raft/old_term_counted" => Ok(run_with::<synod_mutants::raft::old_term_counted::Raft>(script, sink)),
        _ => synod_sim::run(script, sink),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_sim::NoTrace;

    #[test]
    fn every_lesson_can_be_named_in_a_script() {
        for name in LESSONS {
            let script: Script =
                format!("synod-script 1\nprotocol {name}\nfor 10ms\n").parse().expect("it parses");
            run(&script, &mut NoTrace).expect("it is known");
        }
        let script: Script = "synod-script 1\nprotocol raft/no_such_rule\n".parse().expect("it parses");
        assert!(run(&script, &mut NoTrace).is_err());
    }
}
