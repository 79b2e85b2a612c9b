// @ts-check
/**
 * A run as the page holds it: a header and the windows of its events that were fetched so far.
 *
 * A window ("chunk") starts with a keyframe, so it can be drawn without its predecessors. Within a
 * chunk, a checkpoint every few events makes any moment cheap to find.
 *
 * @typedef {{up:boolean, paused:boolean, role:string, epoch:number, voted:string|null, leader:string|null,
 *   base?:number, members?:[string,string][], last:number, lastEpoch:number, durable:number, committed:number, applied:number,
 *   deadline:number|null, deadlineFrom:number|null, log:[number,number,string][], fields:[string,string][]}} NodeState
 * @typedef {{i:number, t:number, k:string, [more:string]:any}} TraceEvent
 * @typedef {{t:number, label:string, kind:string}} Mark
 * @typedef {{protocol:string, nodes:string[], clients:string[], seed:number, until:number, events:number,
 *   hash:string, script:string, marks:Mark[], verdict:any, counts:any}} Header
 * @typedef {{n:string, t:number, role:string, epoch:number, up:boolean, paused:boolean}} Segment
 */

export const FORMAT = 1;

/** Events that one window should hold, roughly. */
const CHUNK_EVENTS = 4000;
/** Windows that are kept; the farthest from the cursor goes first. */
const CHUNKS_MAX = 48;
/** Events between two checkpoints of a chunk. */
const CHECKPOINT_EVERY = 96;

/** What holds at one moment. */
export class Moment {
  constructor() {
    /** @type {Map<string, NodeState>} */ this.states = new Map();
    /** @type {Map<number, TraceEvent>} */ this.flying = new Map();
    /** @type {Map<string, TraceEvent>} */ this.ops = new Map();
    /** @type {Map<string, number>} node -> when its running sync began */ this.syncing = new Map();
    /** @type {Set<string>} "n1>n2" */ this.cuts = new Set();
  }

  clone() {
    const copy = new Moment();
    copy.states = new Map(this.states);
    copy.flying = new Map(this.flying);
    copy.ops = new Map(this.ops);
    copy.syncing = new Map(this.syncing);
    copy.cuts = new Set(this.cuts);
    return copy;
  }

  /** @param {TraceEvent} e @param {string[]} nodes */
  apply(e, nodes) {
    switch (e.k) {
      case 'state':
        this.states.set(e.n, e.s);
        if (!e.s.up) this.syncing.delete(e.n);
        break;
      // What is lost as it is sent never flies.
      case 'send': if (!e.lost) this.flying.set(e.m, e); break;
      case 'recv': case 'drop': this.flying.delete(e.m); break;
      case 'disk':
        if (e.op === 'sync-begin') this.syncing.set(e.n, e.t);
        else if (e.op === 'sync-end') this.syncing.delete(e.n);
        break;
      case 'op':
        if (e.phase === 'invoke') this.ops.set(`${e.c}/${e.o}`, e);
        else if (e.phase !== 'unknown') this.ops.delete(`${e.c}/${e.o}`);
        break;
      case 'fault': applyCuts(this.cuts, e, nodes); break;
    }
  }
}

/**
 * A fault that says which links are cut after it is believed; one that does not is read.
 * @param {Set<string>} cuts @param {TraceEvent} e @param {string[]} nodes
 */
function applyCuts(cuts, e, nodes) {
  if (e.cuts) {
    cuts.clear();
    for (const [a, b] of e.cuts) cuts.add(`${a}>${b}`);
    return;
  }
  const both = (/** @type {string} */ a, /** @type {string} */ b, cut = true) => {
    for (const key of [`${a}>${b}`, `${b}>${a}`]) cut ? cuts.add(key) : cuts.delete(key);
  };
  if (e.what === 'cut' && e.a && e.b) {
    if (/->/.test(e.text ?? '')) cuts.add(`${e.a}>${e.b}`); else both(e.a, e.b);
  } else if (e.what === 'heal' && e.a && e.b) {
    if (/->/.test(e.text ?? '')) cuts.delete(`${e.a}>${e.b}`); else both(e.a, e.b, false);
  }
  else if (e.what === 'delay') return;
  else if (e.what === 'heal-all' || e.what === 'heal') cuts.clear();
  else if (e.what === 'isolate' && e.a) nodes.forEach((n) => n !== e.a && both(e.a, n));
  else if (e.what === 'partition') {
    const groups = (e.text ?? '').replace(/^partition/, '').split('|').map((/** @type {string} */ g) => g.trim().split(/\s+/));
    const side = new Map(groups.flatMap((/** @type {string[]} */ g, /** @type {number} */ i) => g.map((n) => [n, i])));
    for (const a of nodes) for (const b of nodes) if (a < b && side.get(a) !== side.get(b)) both(a, b);
  }
}

/** One window of events, which may still grow when the run is live. */
export class Chunk {
  /** @param {number} from @param {Moment} start @param {string[]} nodes */
  constructor(from, start, nodes) {
    this.from = from;
    this.to = from;
    this.nodes = nodes;
    /** @type {TraceEvent[]} */ this.events = [];
    this.checkpoints = [start.clone()];
    this.now = start.clone();
    /** @type {Segment[]} what each node's line looks like from a moment on */ this.segments = [];
    /** @type {TraceEvent[]} messages that began in or before this chunk */ this.sends = [...start.flying.values()];
    /** @type {TraceEvent[]} */ this.marks = [];
    /** @type {TraceEvent[]} */ this.ops = [...start.ops.values()];
    /** @type {Map<string, string>} */ this.drawn = new Map();
    for (const [n, s] of start.states) this.#segment(n, from, s);
  }

  /** @param {string} n @param {number} t @param {NodeState} s */
  #segment(n, t, s) {
    const looks = `${s.role}/${s.epoch}/${s.up}/${s.paused}`;
    if (this.drawn.get(n) === looks) return;
    this.drawn.set(n, looks);
    this.segments.push({ n, t, role: s.role, epoch: s.epoch, up: s.up, paused: s.paused });
  }

  /** @param {TraceEvent} e */
  push(e) {
    if (this.events.length && this.events.length % CHECKPOINT_EVERY === 0) this.checkpoints.push(this.now.clone());
    const before = e.k === 'state' ? this.now.states.get(e.n) : undefined;
    if (e.k === 'recv' || e.k === 'drop') {
      e.sent = this.now.flying.get(e.m);
      e.to ??= e.sent?.to;
    }
    this.now.apply(e, this.nodes);
    this.events.push(e);
    this.to = Math.max(this.to, e.t);
    switch (e.k) {
      case 'state':
        this.#segment(e.n, e.t, e.s);
        if (e.s.voted && e.s.up && (e.s.voted !== before?.voted || e.s.epoch !== before?.epoch)) this.marks.push({ ...e, k: 'vote' });
        // Many timers only end a batch; the one that matters makes a candidate.
        if (e.s.role === 'candidate' && before?.role !== 'candidate') this.marks.push({ ...e, k: 'stand' });
        break;
      case 'send': this.sends.push(e); break;
      case 'op': this.ops.push(e); break;
      case 'commit': case 'fault': case 'violation': this.marks.push(e); break;
      case 'disk': if (!/^(write|read|sync-.*)$/.test(e.op)) this.marks.push(e); break;
    }
  }

  /** The index of the first event later than `t`. @param {number} t */
  after(t) {
    let low = 0, high = this.events.length;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (this.events[mid].t <= t) low = mid + 1; else high = mid;
    }
    return low;
  }

  /** What holds at `t`, events at `t` included. @param {number} t */
  moment(t) {
    const position = this.after(t);
    const checkpoint = Math.min(Math.floor(position / CHECKPOINT_EVERY), this.checkpoints.length - 1);
    const moment = this.checkpoints[checkpoint].clone();
    for (let i = checkpoint * CHECKPOINT_EVERY; i < position; i++) moment.apply(this.events[i], this.nodes);
    return moment;
  }
}

/** An error of the server's, with the line of the script that it is about. */
export class LabError extends Error {
  /** @param {string} message @param {number} [line] */
  constructor(message, line = 0) {
    super(message);
    this.line = line;
  }
}

/** @param {Response} response */
async function answer(response) {
  const body = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new LabError(body.error ?? `the server answered ${response.status}`, body.line ?? 0);
  return body;
}

/** A recorded or simulated run. */
export class Trace {
  /** @param {Header} header */
  constructor(header) {
    this.header = header;
    this.live = false;
    /** @type {Map<number, Chunk>} by number */ this.chunks = new Map();
    /** @type {Map<number, Promise<void>>} */ this.coming = new Map();
    /** @type {Map<number, {t:number, k:string, why?:string}>} how each message ended */ this.ends = new Map();
    this.count = Math.max(1, Math.ceil(header.events / CHUNK_EVENTS));
    this.width = Math.ceil((header.until + 1) / this.count);
    /** Called when more of the run has arrived. */ this.onload = () => {};
  }

  get until() { return this.header.until; }
  get start() { return 0; }

  /** Runs a script on the server. @param {string} script */
  static async run(script) {
    const response = await fetch('/api/run', { method: 'POST', body: script, headers: { 'content-type': 'text/plain; charset=utf-8' } });
    return new Trace(await answer(response));
  }

  /** The recording that this server was started with. */
  static async recorded() {
    return new Trace(await answer(await fetch('/api/recorded')));
  }

  /**
   * The run that came with the page, in one file: all of it is here at once.
   * @param {{header:Header, events:TraceEvent[]}} embedded
   */
  static embedded({ header, events }) {
    const trace = new Trace(header);
    let next = 0, moment = new Moment();
    for (let n = 0; n < trace.count; n++) {
      const chunk = new Chunk(n * trace.width, moment, header.nodes);
      chunk.to = n + 1 === trace.count ? header.until + 1 : chunk.from + trace.width;
      for (; next < events.length && (events[next].t < chunk.to || n + 1 === trace.count); next++) trace.#take(chunk, events[next]);
      trace.chunks.set(n, chunk);
      moment = chunk.now;
    }
    return trace;
  }

  /** @param {number} t */
  #number(t) { return Math.min(this.count - 1, Math.max(0, Math.floor(t / this.width))); }

  /** The chunk that holds `t`, if it is here. @param {number} t */
  chunkAt(t) { return this.chunks.get(this.#number(t)); }

  /** The chunks between two moments that are here, in order. @param {number} from @param {number} to */
  between(from, to) {
    const found = [];
    for (let n = this.#number(from); n <= this.#number(to); n++) {
      const chunk = this.chunks.get(n);
      if (chunk) found.push(chunk);
    }
    return found;
  }

  /** Fetches what lies between two moments and is not here. @param {number} from @param {number} to */
  async ensure(from, to) {
    const wanted = [];
    for (let n = this.#number(from); n <= this.#number(to); n++) if (!this.chunks.has(n)) wanted.push(this.#fetch(n));
    await Promise.all(wanted);
  }

  /** @param {number} n */
  #fetch(n) {
    let coming = this.coming.get(n);
    if (!coming) {
      coming = this.#load(n).finally(() => this.coming.delete(n));
      this.coming.set(n, coming);
    }
    return coming;
  }

  /** @param {number} n */
  async #load(n) {
    const from = n * this.width, to = n + 1 === this.count ? this.header.until + 1 : from + this.width;
    /** @type {Chunk|undefined} */ let chunk;
    for (let at = from; at < to;) {
      const url = `/api/events?run=${encodeURIComponent(this.header.hash)}&from=${at}&to=${to}`;
      let response = await fetch(url);
      if (response.status === 404 && this.header.script) {
        // The server has forgotten this run; it is a function of its script.
        await Trace.run(this.header.script);
        response = await fetch(url);
      }
      const window = await answer(response);
      chunk ??= new Chunk(from, momentOf(window.keyframe), this.header.nodes);
      for (const e of window.events) this.#take(chunk, e);
      // A server that does not say how far the window reaches has sent all of it.
      at = window.to > at ? window.to : to;
    }
    if (!chunk) return;
    chunk.to = to;
    this.chunks.set(n, chunk);
    this.#evict(n);
    this.onload();
  }

  /** @param {Chunk} chunk @param {TraceEvent} e */
  #take(chunk, e) {
    if (e.k === 'recv' || e.k === 'drop') this.ends.set(e.m, e);
    chunk.push(e);
  }

  /** @param {number} near */
  #evict(near) {
    while (this.chunks.size > CHUNKS_MAX) {
      let farthest = near;
      for (const n of this.chunks.keys()) if (Math.abs(n - near) > Math.abs(farthest - near)) farthest = n;
      for (const e of this.chunks.get(farthest)?.events ?? []) if (e.k === 'recv' || e.k === 'drop') this.ends.delete(e.m);
      this.chunks.delete(farthest);
    }
  }
}

/** @param {any} keyframe */
export function momentOf(keyframe) {
  const moment = new Moment();
  for (const [n, s] of Object.entries(keyframe.states ?? {})) moment.states.set(n, /** @type {NodeState} */ (s));
  for (const e of keyframe.flying ?? []) moment.flying.set(e.m, e);
  for (const e of keyframe.ops ?? []) moment.ops.set(`${e.c}/${e.o}`, e);
  for (const [a, b] of keyframe.cuts ?? []) moment.cuts.add(`${a}>${b}`);
  return moment;
}
