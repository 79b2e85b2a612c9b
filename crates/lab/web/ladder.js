// @ts-check
/** One rung: the messages of a transfer on its machines' lines, locks, and below them the money that a reader can see. */

import { h, s } from './dom.js';

/**
 * @typedef {{t:number, kind:string, who:string, to:string|null, what:string|null, at:number|null}} FilmEvent
 * @typedef {{t:number, balances:Record<string, number>, locked:string[]}} FilmState
 * @typedef {{protocol:string, machines:[string, 'coordinator'|'bank'][], asked:string|null, events:FilmEvent[], states:FilmState[], told:[number, string]|null, messages:number, violations:string[]}} Shown
 */

const ROW = 40, TOP = 14, METER = 26, NAME = 92, ALL = 200, ACCOUNTS = 2;
/** The first part of a film, in which the messages are, takes this much of the width. */
const NEAR_NS = 0.45e9, NEAR_PART = 0.66;

export class Ladder {
  /** @param {Shown} film @param {{width:number, until:number, asked:number, strike:(whom:'c'|'b1'|'b2', t:number, at:DOMRect) => void}} how */
  constructor(film, how) {
    this.film = film;
    this.how = how;
    const near = NAME + (how.width - NAME - 12) * NEAR_PART, end = how.width - 12;
    const x = (/** @type {number} */ t) => (t <= NEAR_NS ? NAME + (t / NEAR_NS) * (near - NAME) : near + ((t - NEAR_NS) / (how.until - NEAR_NS)) * (end - near));
    const t = (/** @type {number} */ at) => Math.max(0, at <= near ? ((at - NAME) / (near - NAME)) * NEAR_NS : NEAR_NS + ((at - near) / (end - near)) * (how.until - NEAR_NS));
    this.scale = { x, t, from: NAME, to: end };
    // Coordinators above, banks below.
    this.machines = [...film.machines.filter(([, part]) => part === 'coordinator'), ...film.machines.filter(([, part]) => part === 'bank')];
    this.y = new Map(this.machines.map(([id], i) => [id, TOP + i * ROW + ROW / 2]));
    this.outcome = this.judge();
    this.box = h('div', { class: 'rung-box' }, this.draw());
  }

  /** Times from one state to the next. */
  spans() {
    const { states } = this.film;
    return states.map((state, i) => ({ ...state, end: states[i + 1]?.t ?? this.how.until }));
  }

  /** How it stands at the end, in words and figures. */
  judge() {
    const { film } = this, spans = this.spans(), last = spans[spans.length - 1];
    const sum = (/** @type {FilmState} */ state) => Object.values(state.balances).reduce((all, one) => all + one, 0);
    const whole = (/** @type {FilmState} */ state) => Object.keys(state.balances).length === ACCOUNTS;
    const length = (/** @type {(one:any) => boolean} */ which) => spans.filter(which).reduce((all, one) => all + one.end - one.t, 0);
    const locked = length((one) => one.locked.length > 0);
    const wrong = (/** @type {any} */ one) => whole(one) && one.locked.length === 0 && sum(one) !== ALL;
    const lost = wrong(last), missing = lost ? Infinity : length(wrong);
    const a = last.balances.a, split = film.violations.some((why) => why.includes('another said'));
    const [kind, says] = split ? ['bad', 'One side committed, the other aborted.']
      : lost && film.protocol === 'saga' && !film.told ? ['open', `Not ended yet: $${ALL - sum(last)} are on their way.`]
        : lost ? ['bad', sum(last) < ALL ? `$${ALL - sum(last)} are gone.` : `$${sum(last) - ALL} too much.`]
        : last.locked.length ? ['open', 'Still blocked: the locks are held.']
          : a === 0 ? ['good', locked > 1e9 ? `Moved, after locks held for ${(locked / 1e9).toFixed(1)} s.` : 'Moved.'] : ['good', locked > 1e9 ? `Nothing has happened, after locks held for ${(locked / 1e9).toFixed(1)} s.` : 'As if nothing had happened.'];
    return { kind, says, locked, missing };
  }

  draw() {
    const { film, how, scale } = this, meter = TOP + this.machines.length * ROW + 8, height = meter + METER + 8;
    this.cursor = s('path', { class: 'rung-cursor' });
    this.later = s('rect', { class: 'rung-later', y: 0, height });
    this.reading = s('text', { class: 'rung-reading', y: meter + METER / 2 + 1 });
    this.meter = meter;
    this.height = height;
    return s('svg', { viewBox: `0 0 ${how.width} ${height}`, width: how.width, height, class: 'rung-svg', role: 'img', 'aria-label': `${film.protocol}: ${this.outcome.says}` },
      ...this.locks(), ...this.lines(), ...this.messages(), ...this.moments(), ...this.money(meter), this.later, this.cursor, this.reading);
  }

  lines() {
    return this.machines.flatMap(([id, part]) => {
      const y = this.y.get(id), name = part === 'bank' ? `bank ${id.slice(1)}` : isReplicated(this.machines) ? `log ${id.slice(1)}` : this.film.protocol === 'none' ? 'client' : 'coordinator';
      const whom = part === 'bank' ? id : 'c';
      const hit = s('rect', { x: NAME, y: y - ROW / 2, width: this.scale.to - NAME, height: ROW, class: 'rung-hit', 'data-line': id });
      hit.addEventListener('click', (/** @type {MouseEvent} */ e) => {
        const left = hit.ownerSVGElement.getBoundingClientRect(), t = this.scale.t(((e.clientX - left.left) / left.width) * this.how.width);
        this.how.strike(/** @type {any} */ (whom), t, new DOMRect(e.clientX, e.clientY, 1, 1));
      });
      return [hit, s('text', { x: 0, y, class: 'rung-name' }, name), ...this.lives(id).map((life) => s('path', { d: `M${this.scale.x(life.from)} ${y}H${this.scale.x(life.to)}`, class: `rung-line ${life.kind}` }))];
    });
  }

  /** When a machine was up, down or cut off. @param {string} id */
  lives(id) {
    const parts = [];
    let from = 0, up = true, cut = false;
    const kind = () => (!up ? 'down' : cut ? 'cut' : 'up');
    for (const e of this.film.events) {
      const mine = e.who === id && ['crash', 'start', 'cut'].includes(e.kind), whole = e.kind === 'heal';
      if (!mine && !whole) continue;
      parts.push({ from, to: e.t, kind: kind() });
      from = e.t;
      if (e.kind === 'crash') up = false; else if (e.kind === 'start') up = true; else cut = e.kind === 'cut';
    }
    return [...parts, { from, to: this.how.until, kind: kind() }];
  }

  locks() {
    return this.spans().flatMap((span) => span.locked.map((id) => s('rect', { x: this.scale.x(span.t), y: this.y.get(id) - 9, width: Math.max(1, this.scale.x(span.end) - this.scale.x(span.t)), height: 18, class: 'rung-lock' })));
  }

  messages() {
    const lost = new Set(this.film.events.filter((e) => e.kind === 'lost').map((e) => `${e.who}>${e.to}@${e.t}`));
    const own = (/** @type {FilmEvent} */ e) => e.who.startsWith('c') && e.to?.startsWith('c');
    /** @type {Map<string, number>} */ const said = new Map();
    // What the members of the log say to each other is shown where it matters: later there are only heartbeats.
    return this.film.events.filter((e) => e.kind === 'send' && !(own(e) && e.t > NEAR_NS)).map((e) => {
      const x1 = this.scale.x(e.t), x2 = this.scale.x(e.at ?? e.t), y1 = this.y.get(e.who), y2 = this.y.get(/** @type {string} */ (e.to)), gone = lost.has(`${e.who}>${e.to}@${e.at}`);
      const down = y2 > y1, quiet = own(e), to = gone ? 0.72 : 1;
      // Of several messages with one name at one time, one says it; far out there is no room for names.
      const key = `${e.what}@${Math.round(e.t / 2e6)}@${e.who.startsWith('c')}`, first = !said.has(key) && !quiet && e.t < NEAR_NS && x2 - x1 > 26;
      if (first) said.set(key, 1);
      const angle = (Math.atan2(y2 - y1, x2 - x1) * 180) / Math.PI, mx = x1 + (x2 - x1) * 0.5, my = y1 + (y2 - y1) * 0.5;
      return s('g', { class: `rung-message${quiet ? ' own' : ''}${gone ? ' gone' : ''}` }, s('title', {}, `${e.what} ${(e.t / 1e6).toFixed(0)} ms${gone ? ', lost' : ''}`),
        s('path', { d: `M${x1} ${y1}L${x1 + (x2 - x1) * to} ${y1 + (y2 - y1) * to}` }),
        gone ? s('path', { d: cross(x1 + (x2 - x1) * to, y1 + (y2 - y1) * to), class: 'rung-cross' }) : s('circle', { cx: x2, cy: y2, r: quiet ? 1.6 : 2.6 }),
        first && Math.abs(y2 - y1) >= ROW ? s('text', { x: mx, y: my - 4, transform: `rotate(${Math.abs(angle) > 75 ? 0 : angle} ${mx} ${my})`, class: down ? 'ask' : 'answer' }, e.what ?? '') : '');
    });
  }

  /** Decisions, crashes and returns. */
  moments() {
    return this.film.events.flatMap((e) => {
      const x = this.scale.x(e.t), y = this.y.get(e.who);
      if (e.kind === 'crash') return [s('path', { d: cross(x, y, 7), class: 'rung-cross' })];
      if (e.kind === 'start') return [s('circle', { cx: x, cy: y, r: 5, class: 'rung-start' })];
      if (e.kind === 'applied' || (e.kind === 'decided' && e.who.startsWith('c'))) {
        return [s('g', { class: `rung-decision ${e.what}` }, s('title', {}, `${e.kind} ${e.what}`), s('circle', { cx: x, cy: y, r: 8 }), s('text', { x, y: y + 0.5 }, e.what === 'commit' ? '✓' : '✗'))];
      }
      return [];
    });
  }

  /** What somebody who adds up all accounts sees. @param {number} y */
  money(y) {
    return [s('text', { x: 0, y: y + METER / 2 + 1, class: 'rung-name' }, 'money'), ...this.spans().flatMap((span) => {
      const x = this.scale.x(span.t), width = Math.max(0.5, this.scale.x(span.end) - x), sum = Object.values(span.balances).reduce((all, one) => all + one, 0);
      const hidden = Object.keys(span.balances).length < ACCOUNTS, waits = span.locked.length > 0;
      const share = Math.min(1, sum / ALL), kind = hidden ? 'hidden' : waits ? 'waits' : sum === ALL ? 'whole' : 'missing';
      if (kind !== 'missing') return [s('rect', { x, y, width, height: METER, class: `rung-money ${kind}` })];
      return [s('rect', { x, y, width, height: METER * (1 - share), class: 'rung-money missing' }), s('rect', { x, y: y + METER * (1 - share), width, height: METER * share, class: 'rung-money whole' })];
    })];
  }

  /** @param {number} t */
  moveTo(t) {
    const x = this.scale.x(t), at = this.film.states.findLast((state) => state.t <= t) ?? this.film.states[0];
    const sum = Object.values(at.balances).reduce((all, one) => all + one, 0), hidden = Object.keys(at.balances).length < ACCOUNTS;
    const says = hidden ? 'a bank is down' : at.locked.length ? 'a reader waits' : sum === ALL ? `$${sum}` : `$${sum}: $${Math.abs(ALL - sum)} ${sum < ALL ? 'missing' : 'too much'}`;
    this.cursor?.setAttribute('d', `M${x} 0V${this.height}`);
    this.later?.setAttribute('x', String(x));
    this.later?.setAttribute('width', String(Math.max(0, this.how.width - x)));
    const late = x > this.how.width * 0.7;
    this.reading?.setAttribute('x', String(late ? x - 6 : x + 6));
    this.reading?.setAttribute('text-anchor', late ? 'end' : 'start');
    if (this.reading) this.reading.textContent = says;
  }
}

/** @param {[string, string][]} machines */
function isReplicated(machines) { return machines.filter(([, part]) => part === 'coordinator').length > 1; }

/** @param {number} x @param {number} y @param {number} [size] */
function cross(x, y, size = 5) { return `M${x - size} ${y - size}L${x + size} ${y + size}M${x - size} ${y + size}L${x + size} ${y - size}`; }
