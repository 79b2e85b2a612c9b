// @ts-check
/** What a run has cost up to a moment: messages, bytes, syncs, commits, time without a leader. Pure. */

/**
 * @typedef {{messages:number, bytes:number, syncs:number, commits:number, writes:number, median:number|null,
 *   leaderless:number, quiet:number}} Cost
 */

/** The costs of one run, which must be here as a whole, at any of its moments. */
export class Measures {
  /** @param {any} trace */
  constructor(trace) {
    /** @type {number[]} */ this.sends = [];
    /** @type {number[]} bytes of all sends up to each */ this.bytes = [];
    /** @type {number[]} */ this.syncs = [];
    /** @type {{t:number, to:number}[]} the highest entry that anybody knew to be committed */ this.commits = [];
    /** @type {{t:number, took:number}[]} acknowledged writes */ this.writes = [];
    /** @type {{from:number, to:number}[]} */ this.leaderless = [];
    const leaders = new Leaders(), begun = new Map();
    let bytes = 0, highest = 0;
    for (const chunk of trace.between(0, trace.until)) {
      for (const e of chunk.events) {
        if (e.k === 'send') { this.sends.push(e.t); this.bytes.push(bytes += e.bytes ?? 0); }
        else if (e.k === 'disk' && e.op === 'sync-end') this.syncs.push(e.t);
        else if (e.k === 'commit' && e.to > highest) this.commits.push({ t: e.t, to: highest = e.to });
        else if (e.k === 'op') this.#operation(e, begun);
        else if (e.k === 'state') leaders.take(e, this.leaderless);
      }
    }
    leaders.end(trace.until, this.leaderless);
  }

  /** @param {any} e @param {Map<string, number>} begun */
  #operation(e, begun) {
    const key = `${e.c}/${e.o}`;
    if (e.phase === 'invoke') begun.set(key, e.t);
    else if (e.phase === 'ok' && e.f !== 'get') this.writes.push({ t: e.t, took: e.t - (begun.get(key) ?? e.t) });
  }

  /** @param {number} t @returns {Cost} */
  at(t) {
    const sends = before(this.sends, t, (x) => x), writes = before(this.writes, t, (x) => x.t);
    const commits = before(this.commits, t, (x) => x.t), took = this.writes.slice(0, writes).map((w) => w.took).sort((a, b) => a - b);
    const ends = [0, ...this.writes.slice(0, writes).map((w) => w.t), t];
    return {
      messages: sends, bytes: sends ? this.bytes[sends - 1] : 0, syncs: before(this.syncs, t, (x) => x),
      commits: commits ? this.commits[commits - 1].to : 0, writes, median: took.length ? took[Math.floor(took.length / 2)] : null,
      leaderless: this.leaderless.reduce((sum, gap) => sum + Math.max(0, Math.min(t, gap.to) - gap.from), 0),
      quiet: ends.reduce((most, end, i) => Math.max(most, i ? end - ends[i - 1] : 0), 0),
    };
  }
}

/** Whether somebody leads: runs, and takes itself for the leader under the highest epoch that any member has seen. */
class Leaders {
  constructor() {
    /** @type {Map<string, any>} */ this.states = new Map();
    /** @type {number|null} since when nobody does */ this.since = 0;
  }

  /** @param {any} e @param {{from:number, to:number}[]} gaps */
  take(e, gaps) {
    this.states.set(e.n, e.s);
    const all = [...this.states.values()], highest = Math.max(...all.map((s) => s.epoch));
    const led = all.some((s) => s.up && !s.paused && s.role === 'leader' && s.epoch === highest);
    if (led && this.since !== null) { gaps.push({ from: this.since, to: e.t }); this.since = null; }
    else if (!led) this.since ??= e.t;
  }

  /** @param {number} until @param {{from:number, to:number}[]} gaps */
  end(until, gaps) {
    if (this.since !== null) gaps.push({ from: this.since, to: until });
  }
}

/** How many of a list in order of time lie at or before `t`. @template T @param {T[]} list @param {number} t @param {(x:T) => number} time */
function before(list, t, time) {
  let low = 0, high = list.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (time(list[mid]) <= t) low = mid + 1; else high = mid;
  }
  return low;
}
