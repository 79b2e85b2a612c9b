// @ts-check
/** One fault script on two, three or four protocols, in lockstep: one cursor over all of them. */

import { h, put } from './dom.js';
import { Measures } from './measures.js';
import { DUEL_SCRIPT, PROTOCOLS, WORDS, aboutProtocol } from './protocols.js';
import { Ring } from './ring.js';
import { DEFAULT_SCRIPT, simAddress, withProtocol } from './script.js';
import { SpaceTime } from './spacetime.js';
import { Trace } from './trace.js';
import { leaderOf, view } from './view.js';
import { duration, summary } from './words.js';

/** What is shown first: the leader is lost, and later a minority is cut off with the next one. */
export const LOCKSTEP_SCRIPT = `synod-script 1
protocol raft
nodes 3
seed 7
for 8s
latency 20ms
election 500ms
heartbeat 150ms
disk 2ms
clients 2 every 300ms keys 3 mix put:3,get:1
at 3s crash leader
at 5s restart all
`;

/** Runs of several protocols as one: what the page's cursor moves over. */
export class Lockstep {
  /** @param {string} script @param {{id:string, trace:Trace}[]} runs */
  constructor(script, runs) {
    this.runs = runs;
    this.live = false;
    const first = runs[0].trace.header;
    // Faults are the same for all; who leads then is each protocol's own affair.
    const marks = first.marks.filter((m) => m.kind !== 'leader');
    this.header = {
      ...first, protocol: 'lockstep', script, marks, hash: runs.map((run) => run.trace.header.hash).join('-'),
      events: runs.reduce((sum, run) => sum + run.trace.header.events, 0),
    };
    this.chunks = { size: 0 };
    this.onload = () => {};
  }

  /** Runs a script on each of some protocols. @param {string} script @param {string[]} ids */
  static async run(script, ids) {
    const runs = await Promise.all(ids.map(async (id) => {
      const trace = await Trace.run(withProtocol(script, id));
      await trace.ensure(0, trace.until);
      return { id, trace };
    }));
    return new Lockstep(script, runs);
  }

  get until() { return this.header.until; }
  get start() { return 0; }
  async ensure() {}

  /** @param {number} t */
  chunkAt(t) { return this.runs[0].trace.chunkAt(t); }
}

export class Compare {
  /**
   * @param {HTMLElement} box
   * @param {{choose:(ids:string[])=>void, act:(line:string)=>void, seek:(t:number)=>void, tip:(text:string|null, at?:DOMRect)=>void, hold:()=>void}} does
   */
  constructor(box, does) {
    this.does = does;
    /** @type {any[]} */ this.rows = [];
    this.chooser = h('div', { class: 'filters', role: 'group', 'aria-label': 'Which protocols' });
    this.verbs = h('div', { class: 'verb-list' });
    this.list = h('div', { class: 'lanes' });
    this.costs = h('table', { class: 'costs' });
    box.replaceChildren(
      h('header', { class: 'page-head' }, h('p', { class: 'eyebrow', text: 'Protocols' }), h('h1', { text: 'Four answers to one question' }),
        h('p', { text: 'The same clients, the same network, the same faults at the same moments. All four keep one log on a majority of the members; they differ in how a leader comes into office, and in their words. Click a node to crash it in all of them.' }),
        h('div', { class: 'choices' }, this.chooser, this.verbs)),
      this.list,
      h('section', { class: 'tables' }, h('h2', { text: 'What it has cost up to the cursor' }), h('div', { class: 'wide' }, this.costs),
        h('h2', { text: 'The algorithms' }), h('div', { class: 'wide' }, algorithms()),
        h('h2', { text: 'A dictionary' }), h('div', { class: 'wide' }, dictionary())));
  }

  /** @param {Lockstep} lockstep */
  show(lockstep) {
    this.lockstep = lockstep;
    const ids = lockstep.runs.map((run) => run.id);
    this.chooser.replaceChildren(...PROTOCOLS.map((p) => h('button', {
      type: 'button', class: 'chip', 'aria-pressed': String(ids.includes(p.id)), 'data-protocol': p.id, text: p.name, onclick: () => this.#choose(p.id),
    })));
    if (this.rows.map((row) => row.id).join() !== ids.join()) {
      this.rows = ids.map((id) => this.#row(id));
      this.list.replaceChildren(...this.rows.map((row) => row.el));
    }
    for (const [i, row] of this.rows.entries()) {
      row.trace = lockstep.runs[i].trace;
      row.measures = new Measures(row.trace);
      row.time.show(row.trace, true);
      row.link.href = simAddress({ script: row.trace.header.script, hash: row.trace.header.hash });
    }
    this.costsKey = '';
  }

  /** @param {string} id */
  #choose(id) {
    const ids = this.rows.map((row) => row.id);
    const next = PROTOCOLS.map((p) => p.id).filter((other) => ids.includes(other) !== (other === id));
    if (next.length) this.does.choose(next);
  }

  /** @param {string} id */
  #row(id) {
    const about = aboutProtocol(id), cluster = h('div', { class: 'ring-box' }), time = h('div', { class: 'spacetime' });
    const line = (/** @type {string} */ verb) => this.does.act(verb);
    const row = { id, link: h('a', { text: about?.name ?? id, title: 'Open this run alone' }), says: h('p'), cost: h('p', { class: 'counts' }), el: null, ring: null, time: null, trace: null, measures: null };
    const verb = (/** @type {string} */ node) => (row.trace && view(row.trace, this.t ?? 0).byId.get(node)?.up ? `crash ${node}` : `restart ${node}`);
    const cut = (/** @type {string} */ a, /** @type {string} */ b) => `${row.trace && view(row.trace, this.t ?? 0).cuts.has(`${a}>${b}`) ? 'heal' : 'cut'} ${a} ${b}`;
    const nothing = () => {};
    row.el = h('article', { class: 'lane', 'data-lane': id }, h('div', { class: 'lane-words' }, h('h2', {}, row.link), row.says, row.cost), cluster, time);
    row.ring = new Ring(cluster, {
      node: (node) => line(verb(node)), nodeMenu: (node) => line(verb(node)), select: nothing, link: (a, b) => line(cut(a, b)), linkMenu: (a, b) => line(cut(a, b)),
      messageMenu: nothing, delay: nothing, tip: this.does.tip, nodeVerb: (node) => `${verb(node)}, in all`, linkVerb: (a, b) => `${cut(a, b)}, in all`,
    }, { compact: true });
    row.time = new SpaceTime(time, { seek: this.does.seek, tip: this.does.tip, hold: this.does.hold });
    return row;
  }

  /** The window that all of them share. */
  get from() { return this.rows[0]?.time.from ?? 0; }
  get to() { return this.rows[0]?.time.to ?? 1; }

  /** @param {number} from @param {number} to */
  setWindow(from, to) { for (const row of this.rows) row.time.setWindow(from, to); }

  /** @param {number} factor */
  zoom(factor) { for (const row of this.rows) row.time.zoom(factor); }

  recolour() { for (const row of this.rows) row.time.recolour(); }

  /** @param {number} t @param {boolean} playing */
  draw(t, playing) {
    this.t = t;
    // Whichever was moved last takes the others along.
    const moved = this.rows.find((row) => row.time.from !== this.window?.from || row.time.to !== this.window?.to);
    if (moved) this.setWindow(moved.time.from, moved.time.to);
    for (const row of this.rows) {
      const v = view(row.trace, t), protocol = row.trace.header.protocol;
      row.ring.draw(v, protocol);
      row.time.moveTo(t);
      if (playing) row.time.reveal(t, true);
      row.time.draw();
      put(row.says, { text: summary(v, protocol) });
      row.el.dataset.leader = leaderOf(v)?.id ?? '';
    }
    this.window = { from: this.from, to: this.to };
    this.#verbs();
    this.#costs(t);
  }

  #verbs() {
    const v = view(this.rows[0].trace, this.t ?? 0), ids = v.nodes.map((n) => n.id), few = ids.slice(0, v.quorum - 1), many = ids.slice(v.quorum - 1);
    const verbs = ['crash leader', 'pause leader', `partition ${few.join(' ')} | ${many.join(' ')}`];
    if (v.nodes.some((n) => !n.up)) verbs.unshift('restart all');
    if (v.cuts.size) verbs.unshift('heal');
    if (v.nodes.some((n) => n.paused)) verbs.unshift('resume all');
    if (this.shownVerbs === verbs.join()) return;
    this.shownVerbs = verbs.join();
    this.verbs.replaceChildren(...verbs.map((line) => h('button', { type: 'button', class: 'verb', text: line, 'data-line': line, onclick: () => this.does.act(line) })));
  }

  /** @param {number} t */
  #costs(t) {
    const costs = this.rows.map((row) => row.measures.at(t)), key = JSON.stringify(costs);
    if (key === this.costsKey) return;
    this.costsKey = key;
    for (const [i, row] of this.rows.entries()) put(row.cost, { text: `${count(costs[i].messages)} messages, ${count(costs[i].syncs)} syncs, ${count(costs[i].commits)} committed; ${duration(costs[i].leaderless)} without a leader` });
    const per = (/** @type {number} */ n, /** @type {number} */ commits) => (commits ? (n / commits).toFixed(1) : '–');
    const delay = oneWay(this.lockstep?.header.script ?? '');
    /** @type {[string, (c:import('./measures.js').Cost) => string][]} */
    const lines = [
      ['Entries committed', (c) => count(c.commits)],
      ['Messages, per entry', (c) => `${count(c.messages)}, ${per(c.messages, c.commits)}`],
      ['Bytes, per entry', (c) => `${count(c.bytes)}, ${per(c.bytes, c.commits)}`],
      ['Disk syncs, per entry', (c) => `${count(c.syncs)}, ${per(c.syncs, c.commits)}`],
      ['A write, at the median', (c) => (c.median === null ? '–' : `${duration(c.median)}${delay ? `, ${(c.median / delay).toFixed(1)} message delays` : ''}`)],
      ['Time without a leader', (c) => duration(c.leaderless)],
      ['Longest time without an acknowledged write', (c) => duration(c.quiet)],
    ];
    this.costs.replaceChildren(
      h('thead', {}, h('tr', {}, h('th'), ...this.rows.map((row) => h('th', { scope: 'col', text: aboutProtocol(row.id)?.name ?? row.id })))),
      h('tbody', {}, ...lines.map(([name, text]) => h('tr', {}, h('th', { scope: 'row', text: name }), ...costs.map((c) => h('td', { text: text(c) }))))));
  }
}

/** @param {number} n */
function count(n) { return n.toLocaleString('en'); }

/** How long every message travels, if the script has them all take the same time. @param {string} script */
function oneWay(script) {
  const ms = /^latency (\d+)ms$/m.exec(script)?.[1];
  return ms ? Number(ms) * 1e6 : null;
}

/** The chapter's table; each row opens its run. */
function algorithms() {
  return h('table', { class: 'algorithms' },
    h('thead', {}, h('tr', {}, ...['Algorithm', 'Used by', 'Idea', 'Source'].map((text) => h('th', { scope: 'col', text })))),
    h('tbody', {}, h('tr', {},
      h('th', { scope: 'row' }, h('a', { href: simAddress({ script: DUEL_SCRIPT }), 'data-duel': '', text: 'Paxos' })),
      h('td', { text: 'the place to begin' }), h('td', { text: 'One value, two phases: prepare and promise, accept and accepted. Two proposers can overtake each other for a while, and can never choose two values.' }), h('td', { text: 'Lamport, Paxos Made Simple, 2001' })),
    ...PROTOCOLS.map((p) => h('tr', {},
      h('th', { scope: 'row' }, h('a', { href: simAddress({ script: withProtocol(DEFAULT_SCRIPT, p.id) }), text: p.name })),
      h('td', { text: p.use }), h('td', { text: p.idea }), h('td', { text: p.paper })))));
}

function dictionary() {
  return h('table', { class: 'dictionary' },
    h('thead', {}, h('tr', {}, h('th'), ...PROTOCOLS.map((p) => h('th', { scope: 'col', text: p.name })))),
    h('tbody', {}, ...WORDS.map(([key, what]) => h('tr', {}, h('th', { scope: 'row', text: what }), ...PROTOCOLS.map((p) => h('td', { text: p[key] }))))));
}

