//! A judgement as one HTML file of bounded size, which needs nothing from elsewhere.
//!
//! A violation of real-time order is drawn as a timeline: one lane per client, one bar per operation, faults as vertical
//! lines. A cycle of transactions is drawn as a ring. Only the order of events counts, so time is not to scale.

use std::collections::BTreeMap;

use crate::answer::{Answer, Reason};
use crate::explain::{answer, cut, returned};
use crate::history::{History, Operation};
use crate::judge::{Finding, Judgement};
use crate::linearizable::OperationIndex;
use crate::report::escaped;

/// Operations that are drawn at the most.
const DRAWN_MAX: usize = 40;
/// Operations drawn for orientation beside those of the contradiction.
const BESIDE_MAX: usize = 12;
/// Notes that are drawn at the most.
const NOTES_MAX: usize = 12;
/// Transactions of a ring at the most; a longer cycle is only told.
const RING_MAX: usize = 12;

/// Characters of a sentence at the most.
const SENTENCE_CHARS_MAX: usize = 1_000;

const STYLE: &str = "\
:root{--back:#fbfaf7;--text:#22262b;--faint:#8a8f98;--line:#d8d5cd;--bar:#c9d7ea;--bad:#c2410c;--badback:#fbe3d3;--good:#15803d}
@media(prefers-color-scheme:dark){:root{--back:#15181c;--text:#e6e4de;--faint:#858b95;--line:#33383f;--bar:#2d4059;--bad:#fb923c;--badback:#4a2a14;--good:#4ade80}}
body{background:var(--back);color:var(--text);font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}td{padding:.15rem .8rem .15rem 0;vertical-align:top}
.yes{color:var(--good)}.no{color:var(--bad)}.unknown{color:var(--faint)}
svg{display:block;width:100%;height:auto;margin:1rem 0}svg text{fill:var(--text);font:12px system-ui,sans-serif}
.faint text,text.faint{fill:var(--faint)}.lane{stroke:var(--line)}.note{stroke:var(--faint);stroke-dasharray:3 3}
.bar{fill:var(--bar);stroke:var(--faint)}.own .bar{fill:var(--badback);stroke:var(--bad)}.open .bar{stroke-dasharray:4 3}
.arrow{stroke:var(--bad);fill:none}.head{fill:var(--bad)}li{margin:.2rem 0}code{font-size:.92em}";

/// The judgement as a web page. Its size is bounded, whatever the history.
///
/// ```
/// use synod_check::{history::*, judge::judge, linearizable::Limits, picture};
/// let history = Recorder::new(Header::new("kv")).finish();
/// let judgement = judge(&history, None, None, &Limits::default(), &mut || false)?;
/// assert!(picture::html(&history, &judgement, "empty").starts_with("<!doctype html>"));
/// # Ok::<(), synod_check::Error>(())
/// ```
pub fn html(history: &History, judgement: &Judgement, title: &str) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n<title>{0}</title>\n<style>{STYLE}</style>\n<h1>{0}</h1>\n<p>{1} operations on a {2}.</p>\n<table>\n",
        escaped(&cut(title)),
        judgement.operations,
        judgement.object.name()
    );
    for finding in &judgement.findings {
        let (class, words) = match &finding.answer {
            Answer::Yes(proof) => ("yes", proof.words.as_str()),
            Answer::No(reason) => ("no", reason.words.as_str()),
            Answer::Unknown(why) => ("unknown", why.as_str()),
        };
        let model = finding.model.name();
        add(&mut page, format!("<tr><td>{model}<td class=\"{class}\">{class}<td>{}\n", sentence(words)));
    }
    page.push_str("</table>\n");
    let own = |finding: &&Finding| finding.answer.is_no() && finding.follows_from.is_none();
    if let Some(finding) = judgement.findings.iter().find(own)
        && let Answer::No(reason) = &finding.answer
    {
        add(
            &mut page,
            format!("<h2>Why it is not {}</h2>\n<p>{}</p>\n", finding.model, sentence(&reason.words)),
        );
        if is_cycle(reason) {
            page.push_str(&ring(history, reason));
        }
        page.push_str(&timeline(history, &reason.operations));
        page.push_str(&because(history, reason));
    }
    page.push_str("</html>\n");
    page
}

/// A sentence as it may stand on the page: the start of one that quotes a value without end.
fn sentence(words: &str) -> String {
    match words.char_indices().nth(SENTENCE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", escaped(&words[..end])),
        None => escaped(words),
    }
}

fn add(page: &mut String, text: String) {
    page.push_str(&text);
}

fn label(operation: &Operation) -> String {
    let answer = answer(operation);
    let answer = if answer == "ok" { String::new() } else { format!(" {answer}") };
    format!("{}{answer}", cut(&operation.call.to_string()))
}

fn because(history: &History, reason: &Reason) -> String {
    let mut list = String::from("<ol>\n");
    for link in reason.links.iter().take(RING_MAX) {
        let name = |index: OperationIndex| {
            let operation = &history.operations[index.0];
            format!("<code>{}</code> of {}", escaped(&label(operation)), escaped(&cut(&operation.client)))
        };
        add(
            &mut list,
            format!("<li>{} before {}: {}.\n", name(link.from), name(link.to), sentence(&link.why)),
        );
    }
    list.push_str("</ol>\n");
    if reason.links.is_empty() { String::new() } else { list }
}

fn is_cycle(reason: &Reason) -> bool {
    let follows = reason.links.windows(2).all(|pair| pair[0].to == pair[1].from);
    let closes = reason.links.first().map(|link| link.from) == reason.links.last().map(|link| link.to);
    follows && closes && (2..=RING_MAX).contains(&reason.links.len())
}

/// The transactions of a cycle on a circle.
fn ring(history: &History, reason: &Reason) -> String {
    let count = reason.links.len();
    let (width, height, radius) = (900.0, 380.0, 130.0);
    let place = |at: usize| {
        let angle = std::f64::consts::TAU * at as f64 / count as f64 - std::f64::consts::FRAC_PI_2;
        (width / 2.0 + radius * 1.6 * angle.cos(), height / 2.0 + radius * angle.sin())
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"the cycle\"><defs><marker id=\"h\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path class=\"head\" d=\"M0 0L8 4L0 8z\"/></marker></defs>\n"
    );
    for at in 0..count {
        let (x, y) = place(at);
        let (to_x, to_y) = place((at + 1) % count);
        let (dx, dy) = (to_x - x, to_y - y);
        let length = (dx * dx + dy * dy).sqrt().max(1.0);
        let (ux, uy) = (dx / length * 14.0, dy / length * 14.0);
        // Two arrows between the same two are bent apart.
        let (mid_x, mid_y) = ((x + to_x) / 2.0 - dy / length * 30.0, (y + to_y) / 2.0 + dx / length * 30.0);
        add(
            &mut svg,
            format!(
                "<path class=\"arrow\" marker-end=\"url(#h)\" d=\"M{:.0} {:.0}Q{mid_x:.0} {mid_y:.0} {:.0} {:.0}\"/><text class=\"faint\" x=\"{mid_x:.0}\" y=\"{mid_y:.0}\" text-anchor=\"middle\">{}</text>\n",
                x + ux,
                y + uy,
                to_x - ux,
                to_y - uy,
                at + 1
            ),
        );
        let operation = &history.operations[reason.links[at].from.0];
        let anchor = if x > width / 2.0 + 1.0 {
            "start"
        } else if x < width / 2.0 - 1.0 {
            "end"
        } else {
            "middle"
        };
        let (text_x, text_y) = match anchor {
            "start" => (x + 14.0, y + 4.0),
            "end" => (x - 14.0, y + 4.0),
            _ => (x, if y < height / 2.0 { y - 16.0 } else { y + 26.0 }),
        };
        add(
            &mut svg,
            format!(
                "<g class=\"own\"><circle class=\"bar\" cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"9\"/></g><text x=\"{text_x:.0}\" y=\"{text_y:.0}\" text-anchor=\"{anchor}\">{}</text>\n",
                escaped(&format!("{}: {}", cut(&operation.client), label(operation)))
            ),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Operations that are drawn: those of the contradiction, and some that overlap them.
fn drawn(history: &History, own: &[OperationIndex]) -> Vec<OperationIndex> {
    let mut drawn: Vec<OperationIndex> = own.iter().rev().take(DRAWN_MAX).copied().collect();
    let from = drawn.iter().map(|index| history.operations[index.0].invoked.order).min().unwrap_or(0);
    let until = drawn.iter().map(|index| {
        let operation = &history.operations[index.0];
        returned(operation).unwrap_or(operation.invoked.order)
    });
    let until = until.max().unwrap_or(0);
    let overlaps = |index: &OperationIndex| {
        let operation = &history.operations[index.0];
        operation.invoked.order < until && returned(operation).is_none_or(|returned| returned > from)
    };
    // The ones nearest to the end, which is where it becomes visible.
    let all = (0..history.operations.len()).rev().map(OperationIndex);
    let beside = all.filter(|index| !own.contains(index)).filter(overlaps);
    let room = BESIDE_MAX.min(DRAWN_MAX - drawn.len());
    drawn.extend(beside.take(room).collect::<Vec<OperationIndex>>());
    drawn.sort();
    drawn
}

fn timeline(history: &History, own: &[OperationIndex]) -> String {
    let drawn = drawn(history, own);
    if drawn.is_empty() {
        return String::new();
    }
    let mut events: Vec<u64> = Vec::new();
    for index in &drawn {
        let operation = &history.operations[index.0];
        events.push(operation.invoked.order);
        events.extend(returned(operation));
    }
    let (first, last) =
        (events.iter().min().copied().unwrap_or(0), events.iter().max().copied().unwrap_or(0));
    let notes = history.notes.iter().filter(|note| (first..=last).contains(&note.moment.order));
    let notes: Vec<_> = notes.take(NOTES_MAX).collect();
    events.extend(notes.iter().map(|note| note.moment.order));
    events.sort_unstable();
    events.dedup();
    // Operations of one client that overlap get a lane each.
    let mut lanes: Vec<(&str, u64)> = Vec::new();
    let mut lane_of: BTreeMap<OperationIndex, usize> = BTreeMap::new();
    for index in &drawn {
        let operation = &history.operations[index.0];
        let end = returned(operation).unwrap_or(u64::MAX);
        let free = lanes
            .iter()
            .position(|(client, busy)| *client == &*operation.client && *busy < operation.invoked.order);
        let lane = free.unwrap_or(lanes.len());
        if lane == lanes.len() {
            lanes.push((&operation.client, end));
        }
        lanes[lane].1 = end;
        lane_of.insert(*index, lane);
    }
    let (left, step, lane_height) = (110.0, (1060.0 / events.len() as f64).clamp(14.0, 110.0), 46.0);
    let x = |event: u64| left + step * events.partition_point(|other| *other < event) as f64;
    let (width, height) =
        (left + step * (events.len() as f64 + 0.6), 34.0 + lane_height * lanes.len() as f64);
    let mut svg =
        format!("<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"timeline\">\n");
    for (lane, (client, _)) in lanes.iter().enumerate() {
        let y = 44.0 + lane_height * lane as f64;
        add(
            &mut svg,
            format!(
                "<path class=\"lane\" d=\"M{left} {y}H{width:.0}\"/><text x=\"4\" y=\"{:.0}\">{}</text>\n",
                y + 4.0,
                escaped(&cut(client))
            ),
        );
    }
    for note in notes {
        let at = x(note.moment.order);
        let node = note.node.as_deref().map_or(String::new(), |node| format!(" {node}"));
        let words = escaped(&cut(&format!("{}{node}", note.text)));
        add(
            &mut svg,
            format!(
                "<path class=\"note\" d=\"M{at:.0} 14V{height:.0}\"/><text class=\"faint\" x=\"{:.0}\" y=\"12\">{words}</text>\n",
                at + 3.0
            ),
        );
    }
    for index in &drawn {
        let operation = &history.operations[index.0];
        let y = 34.0 + lane_height * lane_of[index] as f64;
        let (from, to) = (x(operation.invoked.order), returned(operation).map_or(width, x));
        let class = match (own.contains(index), returned(operation)) {
            (true, Some(_)) => "own",
            (true, None) => "own open",
            (false, Some(_)) => "",
            (false, None) => "open",
        };
        add(
            &mut svg,
            format!(
                "<g class=\"{class}\"><rect class=\"bar\" x=\"{from:.0}\" y=\"{y:.0}\" width=\"{:.0}\" height=\"20\" rx=\"4\"/><text x=\"{:.0}\" y=\"{:.0}\">{}</text></g>\n",
                (to - from).max(6.0),
                from + 4.0,
                y + 34.0,
                escaped(&label(operation))
            ),
        );
    }
    svg.push_str("</svg>\n");
    svg
}
