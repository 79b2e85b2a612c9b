//! What shrinking must give: the same broken promise, from a script of which nothing can go.

use synod_mutants::raft as bugs;
use synod_protocols::log::ReplicatedLog;
use synod_sim::script::{Action, Timed};
use synod_sim::{Fault, NoTrace, Script, Span, Story, Swarm, broken, run_with, shrink, swarm};

/// The first seed whose script breaks a promise of safety on a protocol with a mistake in it.
fn failing<P: ReplicatedLog>(nodes: u8, only: Option<Fault>) -> Script {
    let common = Swarm { nodes, only, until: Span::secs(4), ..Swarm::default() };
    let scripts = (0..1000).map(|seed| swarm(seed, &common));
    let mut failing = scripts.filter(|script| !run_with::<P>(script, &mut NoTrace).verdict.safe);
    failing.next().expect("the mistake is found")
}

fn shrinks<P: ReplicatedLog>(original: &Script, actions_max: usize) -> Script {
    let promise = broken(&run_with::<P>(original, &mut NoTrace)).expect("it fails");
    let shrunk =
        shrink(original, |script| run_with::<P>(script, &mut NoTrace), |_, _| true).expect("it fails");
    let small = shrunk.script;
    assert_eq!(shrunk.promise, promise);
    assert_eq!(broken(&run_with::<P>(&small, &mut NoTrace)), Some(promise), "{small}");
    assert!(small.actions.len() <= actions_max, "{} actions are left:\n{small}", small.actions.len());
    for at in 0..small.actions.len() {
        let mut less = small.clone();
        less.actions.remove(at);
        let still = broken(&run_with::<P>(&less, &mut NoTrace));
        assert_ne!(still, Some(promise), "line {at} is not needed:\n{small}");
    }
    println!("{} runs: {} actions of {}\n{small}", shrunk.runs, small.actions.len(), original.actions.len());
    small
}

#[test]
fn a_forgotten_vote_is_told_in_a_few_lines() {
    type Forgetful = bugs::vote_forgotten::Raft;
    let small = shrinks::<Forgetful>(&failing::<Forgetful>(3, Some(Fault::Duel)), 14);
    let mut story = Story::default();
    let outcome = run_with::<Forgetful>(&small, &mut story);
    let text = story.text(&outcome);
    assert!(text.contains("is broken") && text.contains("crash"), "{text}");
    let html = story.html(&outcome);
    assert!(html.contains("<svg") && html.contains("class=broken") && !html.contains("http://127"), "{html}");
}

#[test]
fn an_acknowledgement_before_the_sync_needs_almost_nothing() {
    type Hasty = bugs::acknowledged_before_sync::Raft;
    let small = shrinks::<Hasty>(&failing::<Hasty>(5, None), 3);
    assert!(small.nodes <= 3 && small.clients.is_none(), "{small}");
}

#[test]
fn a_script_that_breaks_nothing_is_not_shrunk() {
    let crash = Timed { at: Span::secs(1), action: Action::Crash(synod_sim::script::Target::Leader) };
    let script = Script { actions: vec![crash], until: Span::secs(3), ..Script::default() };
    let run = |script: &Script| synod_sim::run(script, &mut NoTrace).expect("the protocol is known");
    assert!(shrink(&script, run, |_, _| true).is_none());
}
