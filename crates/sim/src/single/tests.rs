use super::*;
use crate::NoTrace;
use crate::trace::Trace;

fn script(lines: &str) -> Script {
    let head = "synod-script 1\nprotocol single-paxos\nnodes 3\ndisk 2ms\nelection 150ms\nfor 5s\n";
    format!("{head}{lines}\n").parse().unwrap_or_else(|error| panic!("{error}\n{lines}"))
}

fn traced(lines: &str) -> (Outcome, String) {
    let mut trace = Trace::new();
    let outcome = crate::run(&script(lines), &mut trace).expect("it is known");
    (outcome, trace.lines().to_owned())
}

#[test]
fn one_proposer_is_done_after_two_phases() {
    let (outcome, events) = traced("latency 20ms\nat 100ms propose red on n1");
    assert!(outcome.passed(), "{outcome}");
    let chosen = outcome.marks.iter().find(|mark| mark.kind == "chosen").expect("it is chosen");
    // Prepare, Promise and Accept travel for 20 ms each, and three times a disk must sync; then n2 knows that n1 and it
    // have accepted.
    assert_eq!(chosen.t, 166_000_000, "{}", chosen.label);
    assert!(events.contains("\"phase\":\"ok\"") && chosen.label.starts_with("red"), "{}", chosen.label);
}

#[test]
fn duelling_proposers_overtake_each_other_and_agree_in_the_end() {
    let (outcome, events) = traced("latency 20ms\nat 100ms propose red on n1\nat 125ms propose blue on n3");
    assert!(outcome.passed() && outcome.marks.iter().any(|mark| mark.kind == "chosen"), "{outcome}");
    assert!(events.contains("\"name\":\"Preempted\""), "they got in each other's way");
}

#[test]
fn a_value_that_may_be_chosen_is_taken_over_after_its_proposer_died() {
    let (outcome, _) =
        traced("latency 20ms\nat 100ms propose red on n1\nat 165ms crash n1\nat 300ms propose blue on n2");
    let chosen = outcome.marks.iter().find(|mark| mark.kind == "chosen").expect("it is chosen");
    assert!(outcome.passed() && chosen.label.starts_with("red"), "{}", chosen.label);
}

#[test]
fn a_minority_chooses_nothing_and_many_seeds_agree() {
    let alone =
        crate::run(&script("latency 20ms\nat 50ms isolate n1\nat 100ms propose red on n1"), &mut NoTrace)
            .expect("known");
    assert!(alone.passed() && alone.marks.iter().all(|mark| mark.kind != "chosen"));
    for seed in 0..200 {
        let lines = format!(
            "seed {seed}\nloss 10%\nlatency 5ms..60ms\nat 100ms propose red on n1\nat 130ms propose blue on n2\n\
             at 150ms propose green on n3\nat 200ms crash n1\nat 400ms restart n1\nat 500ms crash n2\nat 600ms restart n2"
        );
        let outcome = crate::run(&script(&lines), &mut NoTrace).expect("known");
        assert!(outcome.passed(), "seed {seed}: {:?}", outcome.verdict.violations);
    }
}
