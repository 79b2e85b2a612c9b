//! A run told in plain words, with its space-time diagram: what happened, in order, and which
//! promise it broke.

use crate::event::{Event, NodeState, Sink};
use crate::outcome::{Outcome, seconds};
use crate::script::Member;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Sentences that a story has at most: a page. More are counted, not told.
const SENTENCES_MAX: usize = 80;
/// Messages that a diagram draws at most.
const ARROWS_MAX: usize = 3000;

/// Takes the events of a run and tells them.
#[derive(Debug, Default)]
pub struct Story {
    sentences: Vec<(u64, String, Mood)>,
    untold: usize,
    members: BTreeMap<u8, Standing>,
    operations: BTreeMap<(String, u32), Doing>,
    arrows: Vec<Arrow>,
    flying: BTreeMap<u64, usize>,
    bars: Vec<Bar>,
    violations: Vec<u64>,
    end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Plain,
    Fault,
    Violation,
}

/// What was last told of a member, and since when it has been so.
#[derive(Clone, Debug, Default)]
struct Standing {
    state: NodeState,
    since: u64,
}

#[derive(Debug)]
struct Doing {
    began: u64,
    text: String,
    member: Option<Member>,
}

#[derive(Debug)]
struct Arrow {
    from: u8,
    to: u8,
    left: u64,
    arrives: u64,
    lost: bool,
    name: &'static str,
    detail: String,
}

/// A span of a member's line: what it was, or what a client waited for.
#[derive(Debug)]
struct Bar {
    member: u8,
    from: u64,
    to: u64,
    kind: &'static str,
    label: String,
}

impl Sink for Story {
    fn wants_events(&self) -> bool {
        true
    }

    fn event(&mut self, t: u64, event: &Event<'_>) {
        self.end = t;
        match event {
            Event::State { n, s } => self.on_state(t, *n, s),
            Event::Send { m, from, to, name, detail, at, .. } => {
                if self.arrows.len() < ARROWS_MAX {
                    let arrives = at.unwrap_or(t);
                    let lost = at.is_none();
                    self.flying.insert(*m, self.arrows.len());
                    let detail = detail.clone();
                    self.arrows.push(Arrow { from: from.0, to: to.0, left: t, arrives, lost, name, detail });
                }
            }
            Event::Recv { m } => {
                if let Some(arrow) = self.flying.remove(m) {
                    self.arrows[arrow].arrives = t;
                }
            }
            Event::Drop { m, .. } => {
                if let Some(arrow) = self.flying.remove(m) {
                    (self.arrows[arrow].arrives, self.arrows[arrow].lost) = (t, true);
                }
            }
            Event::Disk { n, op: op @ ("lost" | "torn" | "rot" | "full" | "failed"), bytes } => {
                self.tell(t, format!("{n}'s disk: {op}, {bytes} bytes"), Mood::Fault);
            }
            Event::Op { c, o, phase, f, key, value, node, error } => {
                self.on_operation(t, (c, *o), phase, (f, key, *value), *node, *error);
            }
            Event::Fault { text, .. } => self.tell(t, format!("fault: {text}"), Mood::Fault),
            Event::Violation { promise, detail } => {
                self.violations.push(t);
                self.tell(t, format!("**{promise}** is broken: {detail}"), Mood::Violation);
            }
            Event::Disk { .. }
            | Event::Record { .. }
            | Event::Timeout { .. }
            | Event::Link { .. }
            | Event::Commit { .. }
            | Event::Note { .. } => {}
        }
    }
}

impl Story {
    fn tell(&mut self, t: u64, text: String, mood: Mood) {
        // What comes last is what it is about: there is always room for a violation.
        if self.sentences.len() < SENTENCES_MAX || mood == Mood::Violation {
            self.sentences.push((t, text, mood));
        } else {
            self.untold += 1;
        }
    }

    fn on_state(&mut self, t: u64, n: Member, state: &NodeState) {
        let before = self.members.get(&n.0).cloned().unwrap_or_default();
        let role = |state: &NodeState| if state.up { state.role } else { "down" };
        let known = !before.state.role.is_empty();
        if known && (role(&before.state), before.state.epoch) != (role(state), state.epoch) {
            self.end_standing(n.0, &before, t);
        }
        if state.voted.is_some()
            && (state.epoch, &state.voted) != (before.state.epoch, &before.state.voted)
            && state.up
        {
            let whom = state.voted.clone().unwrap_or_default();
            let whom = if whom == n.to_string() { "itself".to_owned() } else { whom };
            self.tell(t, format!("{n} supports {whom} in epoch {}", state.epoch), Mood::Plain);
        }
        if state.role == "leader"
            && (before.state.role, before.state.epoch) != ("leader", state.epoch)
            && state.up
        {
            self.tell(t, format!("{n} leads epoch {}", state.epoch), Mood::Plain);
        }
        if before.state.role == "leader" && state.role != "leader" && state.up {
            self.tell(t, format!("{n} leads no more"), Mood::Plain);
        }
        if state.committed > before.state.committed && state.role == "leader" {
            self.tell(t, format!("{n} commits up to entry {}", state.committed), Mood::Plain);
        }
        let same = known && (role(&before.state), before.state.epoch) == (role(state), state.epoch);
        let since = if same { before.since } else { t };
        self.members.insert(n.0, Standing { state: state.clone(), since });
    }

    fn end_standing(&mut self, member: u8, standing: &Standing, t: u64) {
        let kind = match standing.state.role {
            _ if !standing.state.up => "down",
            "leader" => "leader",
            "candidate" => "candidate",
            _ => return,
        };
        let label = format!("{kind}, epoch {}", standing.state.epoch);
        self.bars.push(Bar { member, from: standing.since, to: t, kind, label });
    }

    fn on_operation(
        &mut self,
        t: u64,
        (client, number): (&str, u32),
        phase: &str,
        (what, key, value): (&str, &str, Option<&str>),
        node: Option<Member>,
        error: Option<&str>,
    ) {
        let key_of = (client.to_owned(), number);
        if phase == "invoke" {
            let value = value.map_or(String::new(), |value| format!(" {value}"));
            let text = format!("{what} {key}{value}");
            self.operations.insert(key_of, Doing { began: t, text, member: node });
            return;
        }
        let Some(doing) = self.operations.remove(&key_of) else { return };
        let answer = match (phase, value, error) {
            ("ok", Some(value), _) => format!("is told {value}"),
            ("ok", None, _) if what == "get" => "is told nothing is there".to_owned(),
            ("ok", ..) => "is told that it is done".to_owned(),
            (_, _, Some(error)) => format!("is told nothing ({error})"),
            _ => "is told nothing".to_owned(),
        };
        let on = doing.member.map_or(String::new(), |member| format!(" at {member}"));
        let text = &doing.text;
        let asked = seconds(doing.began);
        self.tell(t, format!("{client}, who asked `{text}`{on} at {asked}, {answer}"), Mood::Plain);
        if let Some(Member(member)) = doing.member {
            let label = format!("{client}: {text}: {answer}");
            self.bars.push(Bar { member, from: doing.began, to: t, kind: "operation", label });
        }
    }

    /// The run in words, a sentence a line.
    pub fn text(&self, outcome: &Outcome) -> String {
        let mut out = String::new();
        for (t, sentence, _) in &self.sentences {
            let _ = writeln!(out, "{:>9}  {}", seconds(*t), sentence.replace("**", ""));
        }
        if self.untold > 0 {
            let _ = writeln!(out, "           and {} things that are not told here", self.untold);
        }
        let _ = writeln!(out, "{:>9}  {}", seconds(self.end), outcome.verdict.detail);
        out
    }

    /// The run as one page of HTML which needs nothing else: script, words and diagram.
    pub fn html(mut self, outcome: &Outcome) -> String {
        let members = std::mem::take(&mut self.members);
        for (member, standing) in &members {
            self.end_standing(*member, standing, self.end);
        }
        let mut words = String::new();
        for (t, sentence, mood) in &self.sentences {
            let class = match mood {
                Mood::Plain => "",
                Mood::Fault => " class=fault",
                Mood::Violation => " class=violation",
            };
            let sentence = escape(&sentence.replace("**", ""));
            let _ = writeln!(words, "<li{class}><time>{}</time> {sentence}</li>", seconds(*t));
        }
        let promise = crate::broken(outcome).unwrap_or("nothing");
        format!(
            "<!doctype html>\n<html lang=en><meta charset=utf-8>\n<meta name=viewport content=\"width=device-width\">\n\
             <title>{promise} broken: Synod</title>\n<style>{STYLE}</style>\n<h1>How {promise} is broken</h1>\n\
             <p>{}</p>\n<div class=diagram>{}</div>\n<ol>{words}</ol>\n<h2>The script</h2>\n<pre>{}</pre>\n</html>\n",
            escape(&outcome.verdict.detail).replace('\n', "<br>"),
            self.diagram(outcome.script.nodes),
            escape(&outcome.script.to_string()),
        )
    }

    /// Time goes to the right, each member has a line.
    fn diagram(&self, nodes: u8) -> String {
        const TOP: f64 = 30.0;
        const LEFT: f64 = 40.0;
        const ROW: f64 = 70.0;
        let end = self.end.max(1);
        let width = (self.arrows.len() as f64 * 6.0).clamp(900.0, 8000.0);
        let x = |t: u64| LEFT + t as f64 / end as f64 * width;
        let y = |member: u8| TOP + f64::from(member - 1) * ROW;
        let height = TOP + f64::from(nodes) * ROW;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{height:.0}\" role=img \
             aria-label=\"space-time diagram\">\n",
            width + LEFT * 2.0
        );
        for member in 1..=nodes {
            let (from, to, at) = (x(0), x(end), y(member));
            let _ = writeln!(out, "<text x=8 y={:.0}>n{member}</text>", at + 4.0);
            let _ = writeln!(out, "<line class=life x1={from:.1} y1={at:.1} x2={to:.1} y2={at:.1} />");
        }
        for Bar { member, from, to, kind, label } in &self.bars {
            let shift = if *kind == "operation" { 10.0 } else { -3.0 };
            let (left, wide, at) = (x(*from), (x(*to) - x(*from)).max(2.0), y(*member) + shift);
            let label = escape(label);
            let _ = writeln!(
                out,
                "<rect class={kind} x={left:.1} y={at:.1} width={wide:.1} height=6><title>{label}</title></rect>"
            );
        }
        for Arrow { from, to, left, arrives, lost, name, detail } in &self.arrows {
            let class = if *lost { "lost" } else { "arrow" };
            let _ = writeln!(
                out,
                "<line class={class} x1={:.1} y1={:.1} x2={:.1} y2={:.1}><title>{}</title></line>",
                x(*left),
                y(*from),
                x((*arrives).max(*left)),
                if *lost { (y(*from) * 2.0 + y(*to)) / 3.0 } else { y(*to) },
                escape(&format!("{name}: {detail}")),
            );
        }
        for (t, sentence, _) in self.sentences.iter().filter(|(.., mood)| *mood == Mood::Fault) {
            let (at, sentence) = (x(*t), escape(sentence));
            let _ = writeln!(
                out,
                "<line class=mark x1={at:.1} y1=8 x2={at:.1} y2=20><title>{sentence}</title></line>"
            );
        }
        for t in &self.violations {
            let at = x(*t);
            let _ = writeln!(out, "<line class=broken x1={at:.1} y1=0 x2={at:.1} y2={height:.0} />");
        }
        out + "</svg>"
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "
:root{color-scheme:light dark;--ink:light-dark(#1b1f24,#e6e8eb);--soft:light-dark(#9aa3ad,#68717c);
--paper:light-dark(#fff,#14171a);--good:light-dark(#2f6fd0,#6ea8ff);--bad:light-dark(#c02f2f,#ff7a7a);--warm:light-dark(#b26a00,#e8a33d)}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:70rem;margin:2rem auto;padding:0 1rem}
.diagram{overflow-x:auto}svg text{fill:var(--ink);font:13px ui-monospace,monospace}
.life{stroke:var(--soft)}.arrow{stroke:var(--soft);stroke-width:.8}.lost{stroke:var(--bad);stroke-width:.8;stroke-dasharray:3 3}
.leader{fill:var(--good)}.candidate{fill:var(--warm)}.down{fill:var(--paper);stroke:var(--bad);stroke-dasharray:2 2}
.operation{fill:var(--soft);opacity:.6}.mark{stroke:var(--warm);stroke-width:3}.broken{stroke:var(--bad);stroke-width:2}
ol{list-style:none;padding:0}time{display:inline-block;width:5rem;font-family:ui-monospace,monospace;color:var(--soft)}
.fault{color:var(--warm)}.violation{color:var(--bad);font-weight:600}pre{overflow-x:auto}";
