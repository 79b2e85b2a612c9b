// @ts-check
/**
 * The words beside the picture: a question before the crash, the run, then why; and the verbs, which
 * are buttons.
 */

import { h } from './dom.js';
import { lessonOf } from './lessons.js';
import { aboutProtocol } from './protocols.js';
import { simAddress, verdictsAddress } from './script.js';
import { leaderOf, reach, view } from './view.js';
import { SINGLE, clock, duration, epochNumber, epochWord, list } from './words.js';

/** Nodes that a script may have. */
const NODES_MAX = 15;
/** How long before the loss of a leader its question is asked. */
const ASK_BEFORE_NS = 2e9;

/**
 * The loss of a leader nearest to a moment, and who came after it: nobody, if nobody did before the end.
 * @param {any} trace @param {number} t
 * @returns {{lost:string|null, at:number, winner:string|null, won:number}|null}
 */
export function election(trace, t) {
  const marks = trace.header.marks, leaders = marks.filter((/** @type {any} */ m) => m.kind === 'leader');
  let found = null;
  for (const m of marks) {
    if (!/^(crash|pause|partition|cut|isolate|timeout)/.test(m.kind)) continue;
    const before = leaders.filter((/** @type {any} */ l) => l.t <= m.t).pop(), after = leaders.find((/** @type {any} */ l) => l.t > m.t);
    if (!before) continue;
    const lost = leadName(before), winner = after ? leadName(after) : null;
    // Only a fault that touches the leader asks the question.
    if (lost && !m.label.includes(lost) && !/leader|all/.test(m.label)) continue;
    // Without an heir only a crash is surely the end of a leader.
    if (!after && m.kind !== 'crash') continue;
    if (m.t - ASK_BEFORE_NS <= t) found = { lost, at: m.t, winner, won: after?.t ?? trace.until };
  }
  return found;
}

/** @param {any} mark */
function leadName(mark) {
  return /^(\S+) leads/.exec(mark.label)?.[1] ?? null;
}

/** Why the winner won: whose timer ran out, who voted. @param {any} trace @param {any} e @returns {string[]} */
export function why(trace, e) {
  const said = [], word = epochWord(trace.header.protocol);
  if (!e.winner) {
    const end = view(trace, e.won);
    const best = Math.max(...end.nodes.filter((n) => n.up).map((n) => reach(end, n.id).length));
    return [best < end.quorum ? `No node reaches more than ${best} of ${end.voters}, itself included, and ${end.quorum} votes are needed.` : 'No candidate gathered a majority before the run ended. Let it run longer: a "for" line of the script says how long it takes.'];
  }
  const stands = [];
  for (const chunk of trace.between(e.at, e.won)) {
    for (const x of chunk.marks) if (x.k === 'stand' && x.t >= e.at && x.t <= e.won && x.n !== e.lost) stands.push(x);
  }
  const own = stands.filter((x) => x.n === e.winner), first = stands[0], stood = own[own.length - 1];
  if (stood) {
    const just = view(trace, stood.t - 1);
    const rivals = just.nodes.filter((n) => n.up && !n.paused && n.id !== e.winner && n.id !== e.lost && n.deadline !== null && Number(n.deadline) >= stood.t);
    const rival = rivals.sort((a, b) => Number(a.deadline) - Number(b.deadline))[0];
    if (first && first.n !== e.winner) said.push(`${first.n}'s timer ran out first, at ${clock(first.t, 2)}, but it did not gather a majority.`);
    said.push(`${e.winner}'s timer ran out at ${clock(stood.t, 2)}${rival ? `, ${duration(Number(rival.deadline) - stood.t)} before ${rival.id}'s would have` : ''}. Timers are drawn at random, so that mostly one node stands alone.`);
  }
  const then = view(trace, e.won), winner = then.byId.get(e.winner);
  if (winner) {
    const voters = winner.votes.filter((id) => id !== e.winner);
    const shorter = voters.every((id) => (then.byId.get(id)?.last ?? 0) <= winner.last);
    said.push(`${voters.length ? `${list(voters)} gave it ${voters.length > 1 ? 'their votes' : 'its vote'}` : 'It was elected'} for ${word} ${epochNumber(winner.epoch)}: with its own, ${winner.votes.length} of ${then.voters}, and ${then.quorum} are enough.${shorter && voters.length ? ' None of them held a longer log, or it would have refused.' : ''}`);
  }
  return said;
}

export class Story {
  /** @param {HTMLElement} box @param {{act:(line:string)=>void, guess:(id:string)=>void, jump:(t:number)=>void}} does */
  constructor(box, does) {
    this.box = box;
    this.does = does;
    this.key = '';
    /** @type {Map<string,string>} answers given, by run and election */ this.guesses = new Map();
  }

  /** @param {any} trace @param {import('./view.js').View} v @param {{title:string, warning:string|null, forkable:boolean}} about */
  draw(trace, v, about) {
    const e = election(trace, v.t), leader = leaderOf(v);
    const phase = !e ? 'none' : v.t < e.at ? 'before' : v.t < e.won ? 'during' : 'after';
    const guess = e ? this.guesses.get(`${trace.header.seed}/${e.at}`) : undefined;
    const cuts = v.cuts.size, down = v.nodes.filter((n) => !n.up).map((n) => n.id).join();
    const key = [trace.header.hash, phase, e?.at, guess, leader?.id, cuts, down, about.title, about.warning, trace.chunks.size].join('/');
    if (key === this.key) return;
    this.key = key;
    const parts = [];
    if (about.warning) parts.push(h('p', { class: 'warning', role: 'alert', text: about.warning }));
    const lesson = lessonOf(trace.header.protocol), single = trace.header.protocol === SINGLE;
    if (single) parts.push(...this.#oneValue(trace));
    else if (lesson) parts.push(...this.#lesson(trace, lesson));
    else parts.push(...this.#head(trace, e, phase, about));
    if (e && !lesson && !single && !trace.header.recorded) parts.push(this.#question(trace, v, e, phase, guess));
    if (about.forkable) parts.push(this.#verbs(v, leader, single));
    this.box.replaceChildren(...parts);
  }

  /** @param {any} trace @param {any} e @param {string} phase @param {any} about */
  #head(trace, e, phase, about) {
    const { nodes, protocol } = trace.header;
    const name = aboutProtocol(protocol)?.name ?? protocol;
    const lede = [h('p', { class: 'eyebrow', text: `${name}, ${nodes.length} ${nodes.length === 1 ? 'node' : 'nodes'}, ${about.title}` })];
    if (trace.header.recorded) {
      lede.push(h('h1', { text: `What ${trace.header.recorded} did` }), h('p', { text: `The flight recording of one member, run again: every input that ${trace.header.recorded} had, and so everything that it did. Of the others it shows what ${trace.header.recorded} heard from them and told them, and when; what else they did, it cannot know.` }));
    } else if (!e) {
      lede.push(h('h1', { text: 'A cluster at work' }), h('p', { text: 'One node leads and puts every change into one order; the others follow and stand ready. Break something and see what holds.' }));
    } else {
      const title = phase === 'before' ? 'A cluster about to lose its leader' : phase === 'during' ? 'The leader is gone' : e.winner ? `${e.winner} leads now` : 'Nobody leads';
      const text = phase === 'before'
        ? `${number(nodes.length)} servers keep one log. ${e.lost ?? 'One of them'} leads: it alone puts new entries into order. At ${clock(e.at, 2)} it is lost.`
        : phase === 'during'
          ? 'No more heartbeats arrive. Each follower waits until its own timer, the arc around it, has run down; then it asks the others for their votes.'
          : e.winner
            ? `Nobody could write for ${duration(e.won - e.at)}. No committed entry was lost, because whoever wins must have a log as good as its voters’.`
            : 'This run ends without another leader. What was committed is still safe on a majority of the disks; it only cannot grow.';
      lede.push(h('h1', { text: title }), h('p', { text }));
    }
    return lede;
  }

  /** Agreement on one value, the place to begin. @param {any} trace */
  #oneValue(trace) {
    const marks = trace.header.marks.filter((/** @type {any} */ m) => m.kind === 'propose' || m.kind === 'chosen');
    return [
      h('p', { class: 'eyebrow', text: `Paxos, one value, ${trace.header.nodes.length} nodes, seed ${trace.header.seed}` }), h('h1', { text: 'Agreeing on one value' }),
      h('p', { text: 'A proposer first asks a majority to promise that they accept nothing under a lower ballot (prepare, promise); then it asks them to accept a value (accept, accepted). If a promiser has accepted something before, the proposer must take that value instead of its own.' }),
      h('p', { text: 'Two proposers can overtake each other with ever higher ballots. They wait for random times, so that one of them gets through; and what a majority has once accepted under one ballot, no later ballot can change.' }),
      h('ol', { class: 'steps' }, ...marks.map((/** @type {any} */ m) => h('li', {}, h('button', { type: 'button', class: 'soft', onclick: () => this.does.jump(m.t) }, h('span', { class: 'at-time', text: clock(m.t) }), ` ${m.label}`)))),
    ];
  }

  /** A rule, the run that breaks without it, and where to look. @param {any} trace @param {import('./lessons.js').Lesson} lesson */
  #lesson(trace, lesson) {
    const broken = trace.header.verdict?.violations?.[0];
    // Whoever has changed the script tells another story.
    const steps = (trace.header.script === lesson.script ? lesson.steps : []).map(({ t, label }) => ({ t, label, bad: false }));
    if (broken) steps.push({ t: broken.t, label: `${broken.promise} is broken: ${broken.detail}.`, bad: true });
    return [
      h('p', { class: 'eyebrow', text: 'One rule taken out' }), h('h1', { text: lesson.title }), h('p', { class: 'rule', text: lesson.rule }),
      ...lesson.text.map((text) => h('p', { text })),
      h('ol', { class: 'steps' }, ...steps.map((step) => h('li', {}, h('button', { type: 'button', class: `soft${step.bad ? ' violation' : ''}`, onclick: () => this.does.jump(step.t) }, h('span', { class: 'at-time', text: clock(step.t) }), ` ${step.label}`)))),
      h('a', { class: 'verb link', href: simAddress({ script: trace.header.script.replace(lesson.protocol, lesson.base), t: steps[steps.length - 1]?.t ?? 0 }), 'data-with-rule': '', text: 'Run the same with the rule in place' }),
    ];
  }

  /** @param {any} trace @param {import('./view.js').View} v @param {any} e @param {string} phase @param {string|undefined} guess */
  #question(trace, v, e, phase, guess) {
    if (phase === 'after') {
      const reasons = why(trace, e);
      return h('div', { class: 'question' },
        guess && h('p', { class: 'guess' }, h('strong', { text: guess === (e.winner ?? 'nobody') ? `You said ${guess}. Right.` : `You said ${guess}; it was ${e.winner ?? 'nobody'}.` })),
        h('h2', { text: `Why ${e.winner ?? 'nobody'}?` }), ...reasons.map((text) => h('p', { text })));
    }
    const box = h('div', { class: 'question' }, h('h2', { text: 'Who will lead next?' }), h('div', { class: 'answers', role: 'group', 'aria-label': 'Your guess' },
      ...[...v.nodes.map((n) => n.id).filter((id) => id !== e.lost), 'nobody'].map((id) => h('button', {
        type: 'button', class: 'answer', text: id, 'aria-pressed': String(guess === id),
        onclick: () => { this.guesses.set(`${trace.header.seed}/${e.at}`, id); this.key = ''; this.does.guess(id); },
      }))));
    box.append(h('p', { class: 'quiet-text', text: guess ? `You say ${guess}. Watch the arcs.` : 'Guess, or just watch: the arc around each node is its timer.' }));
    return box;
  }

  /** @param {import('./view.js').View} v @param {any} leader @param {boolean} single */
  #verbs(v, leader, single) {
    const verb = (/** @type {string} */ label, /** @type {string} */ line) => h('button', { type: 'button', class: 'verb', text: label, 'data-line': line, onclick: () => this.does.act(line) });
    const up = v.nodes.filter((n) => n.up), down = v.nodes.filter((n) => !n.up), verbs = [];
    const target = leader ?? up[0];
    if (single) {
      for (const [i, n] of up.slice(0, 3).entries()) { const line = `propose ${['amber', 'green', 'white'][i]} on ${n.id}`; verbs.push(verb(line, line)); }
      if (target) verbs.push(verb(`crash ${target.id}`, `crash ${target.id}`));
    } else if (target) {
      const rest = v.nodes.filter((n) => n.id !== target.id).map((n) => n.id);
      verbs.push(verb(`crash ${target.id}`, `crash ${target.id}`), verb(`pause ${target.id}`, `pause ${target.id}`));
      if (rest.length > 2) {
        const few = [target.id, ...rest.slice(0, v.quorum - 2)], many = rest.slice(v.quorum - 2);
        verbs.push(verb(`split ${few.join(' ')} from ${many.join(' ')}`, `partition ${few.join(' ')} | ${many.join(' ')}`));
      }
      const peer = up.find((n) => n.id !== target.id);
      if (peer) verbs.push(verb(`cut ${target.id}–${peer.id}`, `cut ${target.id} ${peer.id}`));
    }
    if (!single && v.nodes.length < NODES_MAX) { const line = `add n${v.nodes.length + 1}`; verbs.push(verb(line, line)); }
    for (const n of down.slice(0, 2)) verbs.unshift(verb(`restart ${n.id}`, `restart ${n.id}`));
    if (v.cuts.size) verbs.unshift(verb('heal every link', 'heal'));
    return h('div', { class: 'verbs' }, h('h2', { text: 'Break it here and now' }), h('div', { class: 'verb-list' }, ...verbs));
  }
}

/** @param {number} n */
function number(n) {
  return ['No', 'One', 'Two', 'Three', 'Four', 'Five', 'Six', 'Seven', 'Eight', 'Nine'][n] ?? String(n);
}

/**
 * The verdict on a run: what was promised, whether it held, and where it broke.
 * @param {HTMLElement} box @param {HTMLElement} chips the same in two words @param {any} trace @param {(t:number) => void} jump
 * @param {boolean} levels whether its operations can be judged at other levels too
 */
export function drawVerdict(box, chips, trace, jump, levels) {
  const verdict = trace.header.verdict, counts = trace.header.counts;
  if (!verdict) { box.replaceChildren(); chips.replaceChildren(); return; }
  const first = verdict.violations?.[0], single = trace.header.protocol === SINGLE;
  const chip = (/** @type {string} */ kind, /** @type {string} */ sign, /** @type {string} */ text, /** @type {() => void} */ onclick) =>
    h('button', { type: 'button', class: kind, onclick }, h('span', { 'aria-hidden': 'true', text: sign }), ` ${text}`);
  const more = () => box.scrollIntoView({ block: 'nearest' });
  chips.replaceChildren(...[
    verdict.safe ? chip('good', '✓', 'safe', more) : chip('bad', '✗', first ? `${first.promise} is broken: go there` : 'not safe', () => (first ? jump(first.t) : more())),
    !single && verdict.linearizable && chip({ yes: 'good', no: 'bad' }[/** @type {'yes'} */ (verdict.linearizable)] ?? '', { yes: '✓', no: '✗' }[/** @type {'yes'} */ (verdict.linearizable)] ?? '?', { yes: 'linearizable', no: 'not linearizable' }[/** @type {'yes'} */ (verdict.linearizable)] ?? 'linearizable: unknown', more),
    typeof verdict.live === 'boolean' && chip(verdict.live ? 'good' : 'bad', verdict.live ? '✓' : '✗', verdict.live ? 'went on' : 'did not go on', more),
  ].filter(Boolean));
  const line = (/** @type {string} */ kind, /** @type {string} */ sign, /** @type {string} */ text, /** @type {string} */ detail) =>
    h('p', { class: `finding ${kind}` }, h('span', { class: 'sign', 'aria-hidden': 'true', text: sign }), h('span', {}, h('strong', { text }), detail && ` ${detail}`));
  const parts = [h('h2', { text: 'Verdict on this run' })];
  const promises = single ? 'that nobody learns another value than anybody else, and that it was proposed' : verdict.promises?.length ? list(verdict.promises) : 'every promise of the protocol';
  parts.push(verdict.safe
    ? line('good', '✓', 'Safe.', `${promises.charAt(0).toUpperCase()}${promises.slice(1)}: checked after every step, held throughout.`)
    : line('bad', '✗', 'A promise is broken.', ''));
  for (const violation of verdict.violations ?? []) {
    parts.push(h('button', { type: 'button', class: 'soft violation', onclick: () => jump(violation.t) }, `${violation.promise} at ${clock(violation.t)}: ${violation.detail ?? ''}`));
  }
  const kind = { yes: 'good', no: 'bad' }[/** @type {string} */ (verdict.linearizable)] ?? 'open';
  const says = { yes: 'Linearizable.', no: 'Not linearizable.' }[/** @type {string} */ (verdict.linearizable)] ?? 'Linearizable? Unknown.';
  // The detail speaks of the promises too, which stand above.
  const detail = (verdict.detail ?? '').split('; ').filter((/** @type {string} */ part) => !/^every promise/.test(part)).join('; ');
  if (verdict.linearizable && !single) parts.push(line(kind, { good: '✓', bad: '✗', open: '?' }[kind] ?? '?', says, detail.charAt(0).toUpperCase() + detail.slice(1)));
  if (levels && !single) parts.push(h('a', { class: 'verb link', href: verdictsAddress({ script: trace.header.script, t: null }), 'data-verdicts': '' }, 'The clients’ operations, at four levels of consistency'));
  if (counts) {
    const short = (/** @type {number|undefined} */ n) => (n ?? 0).toLocaleString('en');
    parts.push(h('p', { class: 'counts', text: `${short(counts.messages)} messages, ${short(counts.syncs)} disk syncs, ${short(counts.elections)} elections, ${short(counts.commits)} commits` }));
  }
  box.replaceChildren(...parts);
}
