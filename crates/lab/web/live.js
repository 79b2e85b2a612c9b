// @ts-check
/** A cluster of real processes: its events as they come in, and the panel that breaks it. */

import { Chunk, Moment } from './trace.js';
import { BLANK } from './view.js';
import { h } from './dom.js';
import { epochNumber, epochWord } from './words.js';

/** Events of one chunk, and chunks that are kept: the past that can be scrubbed back over. */
const CHUNK_EVENTS = 1500;
const CHUNKS_MAX = 40;
const MARKS_MAX = 400;
/** Lines of clients that are drawn; members tell what they are asked as `at n1`. */
const CLIENTS_MAX = 5;
/** After this a message that nobody has received is forgotten, in nanoseconds. */
const FLIGHT_MAX_NS = 5e9;

/** Has the same surface as `Trace`, and grows. */
export class LiveTrace {
  constructor() {
    this.live = true;
    /** @type {any} */
    this.header = { protocol: 'raft', nodes: [], clients: [], seed: 0, until: 0, events: 0, hash: 'live', script: '', marks: [], verdict: null, counts: null };
    /** @type {Chunk[]} */ this.list = [];
    this.chunks = { size: 0 };
    /** @type {Map<number, any>} */ this.ends = new Map();
    this.offset = 0;
    this.latest = 0;
    /** @type {any} */ this.cluster = null;
    this.state = 'connecting';
    this.onload = () => {};
    this.onchange = () => {};
    this.keyframe = new Moment();
  }

  /** Listens to the server; the browser reconnects by itself. */
  connect() {
    const source = new EventSource('/api/live');
    this.source = source;
    source.addEventListener('hello', (e) => this.#hello(JSON.parse(e.data)));
    source.onmessage = (e) => this.#event(JSON.parse(e.data));
    source.onerror = () => { this.state = source.readyState === EventSource.CLOSED ? 'gone' : 'lost'; this.onchange(); };
  }

  close() { this.source?.close(); }

  /** @param {any} cluster */
  #hello(cluster) {
    const fresh = this.state !== 'open';
    this.cluster = cluster;
    this.state = 'open';
    this.header.protocol = cluster.protocol;
    this.header.nodes = cluster.nodes.map((/** @type {any} */ n) => n.name);
    this.offset = performance.now() * 1e6 - cluster.t;
    if (fresh) { this.list = []; this.ends.clear(); this.latest = 0; this.header.marks = []; this.keyframe = new Moment(); }
    this.onchange();
  }

  /** @param {any} e */
  #event(e) {
    if (e.k === 'keyframe') {
      for (const [n, s] of Object.entries(e.states ?? {})) this.keyframe.states.set(n, /** @type {any} */ (s));
      for (const [a, b] of e.cuts ?? []) this.keyframe.cuts.add(`${a}>${b}`);
      return;
    }
    if (e.k === 'gap') { e.t = this.latest; }
    if (e.k === 'process') this.#process(e);
    let chunk = this.list[this.list.length - 1];
    if (!chunk || chunk.events.length >= CHUNK_EVENTS) {
      const start = chunk?.now ?? this.keyframe;
      // Of a message to a process that died nobody will hear again.
      for (const [m, sent] of start.flying) if (sent.t < e.t - FLIGHT_MAX_NS) start.flying.delete(m);
      chunk = new Chunk(chunk ? chunk.to : e.t, start, this.header.nodes);
      this.list.push(chunk);
      this.#evict();
    }
    // Events of several processes may come in a little out of order; time on the page does not go back.
    e.t = Math.max(e.t, chunk.to);
    e.i = ++this.header.events;
    // A member only knows that it has no connection; that the process at its other end is gone is known here.
    if (e.k === 'send' && e.lost === 'no connection' && this.#down(e.to)) e.lost = 'receiver down';
    // What a supervisor did to a link, its ends report as well.
    if (e.k === 'fault' && !e.cuts) e.echo = true;
    this.#mark(e, chunk);
    if (e.k === 'recv' || e.k === 'drop') this.ends.set(e.m, e);
    if (e.c && !this.header.clients.includes(e.c) && this.header.clients.length < CLIENTS_MAX) { this.header.clients.push(e.c); this.header.clients.sort(); }
    chunk.push(e);
    this.latest = e.t;
    this.chunks.size = this.list.length;
    this.onload();
  }

  /** @param {string} id */
  #down(id) {
    const node = this.cluster?.nodes.find((/** @type {any} */ n) => n.name === id);
    return !!node && !node.pid;
  }

  /** @param {any} e */
  #process(e) {
    const node = this.cluster?.nodes.find((/** @type {any} */ n) => n.name === e.n);
    if (node) { node.pid = e.running ? e.pid : null; node.stopped = !!e.stopped; }
    this.onchange();
    // A process that ended or stands still cannot say so itself.
    const known = this.list[this.list.length - 1]?.now.states.get(e.n);
    const s = { ...BLANK, ...known, up: e.running, paused: !!e.stopped };
    if (!e.running || !known?.up) Object.assign(s, { role: 'follower', leader: null, deadline: null });
    this.#event({ k: 'state', t: e.t, n: e.n, s });
  }

  /** @param {any} e @param {Chunk} chunk */
  #mark(e, chunk) {
    const add = (/** @type {string} */ label, /** @type {string} */ kind) => { this.header.marks.push({ t: e.t, label, kind }); if (this.header.marks.length > MARKS_MAX) this.header.marks.shift(); };
    if (e.k === 'state' && e.s.role === 'leader' && e.s.up) {
      const before = chunk.now.states.get(e.n);
      if (before?.role !== 'leader' || before.epoch !== e.s.epoch) add(`${e.n} leads ${epochWord(this.header.protocol)} ${epochNumber(e.s.epoch)}`, 'leader');
    } else if (e.k === 'fault' && !e.echo) add(e.text ?? e.what, e.what);
    else if (e.k === 'violation') add(e.promise, 'violation');
  }

  #evict() {
    while (this.list.length > CHUNKS_MAX) {
      for (const e of this.list[0].events) if (e.k === 'recv' || e.k === 'drop') this.ends.delete(e.m);
      this.list.shift();
    }
  }

  get start() { return this.list[0]?.from ?? 0; }
  get until() {
    if (this.state !== 'open') return this.latest;
    return Math.max(this.latest, performance.now() * 1e6 - this.offset);
  }

  /** @param {number} t */
  chunkAt(t) {
    for (let i = this.list.length - 1; i >= 0; i--) if (this.list[i].from <= t) return this.list[i];
    return this.list[0];
  }

  /** @param {number} from @param {number} to */
  between(from, to) { return this.list.filter((chunk, i) => chunk.from <= to && (this.list[i + 1]?.from ?? Infinity) >= from); }

  async ensure() {}
}

/** What a live cluster is asked to do. @param {{do:string, node?:string, peer?:string}} action */
export async function act(action) {
  const response = await fetch('/api/live/act', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(action) });
  const body = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(body.error ?? `the server answered ${response.status}`);
}

const VERBS = {
  kill: ['Kill', 'SIGKILL: the process ends at once, as if the machine lost power'],
  stop: ['Pause', 'SIGSTOP: the process stands still and does not know it'],
  cont: ['Resume', 'SIGCONT: a paused process goes on'],
  start: ['Start', 'starts it again on the data that it left'],
};

/** The words and the cards beside the live picture. @param {HTMLElement} box @param {LiveTrace} live @param {(action:any) => void} does */
export function drawLive(box, live, does) {
  const cluster = live.cluster;
  if (!cluster) {
    const gone = live.state === 'gone';
    box.replaceChildren(h('p', { class: 'eyebrow', text: 'Live' }), h('h1', { text: gone ? 'No live cluster here' : 'Looking for the cluster' }),
      h('p', {}, gone ? 'This laboratory was started alone. ' : 'One moment. ', gone && h('span', {}, 'Start ', h('code', { text: 'synod demo' }), ' to run three real processes with their data on disk, and open the address that it prints.')));
    return;
  }
  const can = (/** @type {string} */ verb) => cluster.actions.includes(verb);
  const cards = cluster.nodes.map((/** @type {any} */ n) => {
    const running = n.pid !== null && n.pid !== undefined, verbs = !running ? ['start'] : n.stopped ? ['cont', 'kill'] : ['kill', 'stop'];
    return h('article', { class: 'process', 'data-process': n.name, 'data-pid': n.pid ?? '' },
      h('h3', {}, n.name, h('code', { text: n.client.replace(/^https?:\/\//, ''), title: `clients: ${n.client}\npeers: ${n.peer}\ndata: ${n.data}` }), h('span', { class: 'pid', text: running ? `${n.stopped ? 'stopped, ' : ''}pid ${n.pid}` : 'not running' })),
      h('div', { class: 'process-verbs' }, ...verbs.filter(can).map((verb) => h('button', {
        type: 'button', class: 'verb', title: VERBS[/** @type {'kill'} */ (verb)][1], 'data-do': verb, 'aria-label': `${VERBS[/** @type {'kill'} */ (verb)][0]} ${n.name}`,
        text: VERBS[/** @type {'kill'} */ (verb)][0], onclick: () => does({ do: verb, node: n.name }),
      }))));
  });
  const endpoints = cluster.nodes.map((/** @type {any} */ n) => n.client).join(',');
  box.replaceChildren(
    h('p', { class: 'eyebrow', text: `Live, ${cluster.protocol}, ${cluster.nodes.length} processes` }),
    h('h1', { text: 'The same protocol, for real' }),
    live.state === 'open' ? h('p', { text: 'Operating-system processes on this machine, with their data on disk. A click on a node kills its process; another starts it on what it left.' })
      : h('p', { class: 'warning', role: 'alert', text: 'The connection to the laboratory was lost; the page tries again. What you see is the past.' }),
    h('div', { class: 'processes' }, ...cards),
    can('cut') && h('div', { class: 'verb-list' }, h('button', { type: 'button', class: 'verb', text: 'heal every link', 'data-do': 'heal', onclick: () => does({ do: 'heal' }) })),
    can('ask') && h('div', { class: 'verb-list' }, h('button', { type: 'button', class: 'verb', text: 'let three clients ask for ten seconds', 'data-do': 'ask', onclick: () => does({ do: 'ask' }) }),
      h('a', { class: 'verb link', href: '#verdicts&live', 'data-verdicts': '' }, 'what they heard, judged')),
    h('details', { class: 'try' }, h('summary', { text: 'Write to it' }), h('pre', {}, h('code', { text: `etcdctl --endpoints=${endpoints} \\\n  put greeting hello` }))),
    h('details', { class: 'try', open: true }, h('summary', { text: 'What can be broken here' }),
      h('p', { text: `Here and in the simulator: crash, restart, pause${can('cut') ? ', cut and heal links' : ''}.` }),
      !can('cut') && h('p', { text: cluster.note ?? 'Cut links need the fault injection of the server, which was not switched on.' }),
      h('p', { text: 'Only in the simulator: lost, late and doubled messages, clocks that run wrong, disks that stall, fill up, tear or rot, and going back in time.' })),
  );
}
