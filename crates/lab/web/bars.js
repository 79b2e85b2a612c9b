// @ts-check
/**
 * Operations as bars on their clients' lines, with the order found or the contradiction drawn on them. A bar's ends can be
 * dragged, or moved by the arrow keys.
 */

import { h, s } from './dom.js';
import { called, heard } from './histories.js';
import { clock } from './words.js';

/** @typedef {import('./histories.js').Held} Held @typedef {import('./histories.js').Operation} Operation */
/** @typedef {{order:number[]|null, timed:boolean, own:number[], links:{from:number, to:number, why:string}[]}} Overlay */

const ROW = 58, BAR = 30, TOP = 26, PAD = 18, CHAR = 7.1;
/** Pixels between two neighbouring events. */
const GAP_MIN = 16, GAP_MAX = 150, GAP_MEAN = 58;
/** How far from a bar's end it can be taken hold of, in pixels. */
const GRIP = 14;

export class Bars {
  /** @param {HTMLElement} box @param {{move:(id:number, start:number, end:number|null) => void, done:() => void, select:(id:number|null) => void, tip:(text:string|null, at?:DOMRect) => void}} does */
  constructor(box, does) {
    this.does = does;
    this.names = h('div', { class: 'bar-names' });
    this.view = h('div', { class: 'bar-view' });
    box.replaceChildren(h('div', { class: 'bars' }, this.names, this.view));
    /** @type {number|null} */ this.selected = null;
    /** @type {Scale|null} */ this.held = null;
    this.editable = true;
  }

  /** @param {Held} held @param {Overlay} overlay @param {boolean} editable */
  draw(held, overlay, editable) {
    this.history = held;
    this.overlay = overlay;
    this.editable = editable;
    const lanes = laneRows(held.operations);
    // While a bar is in somebody's hand the scale stays as it is.
    const scale = this.held ?? scaleOf(held, this.view.clientWidth || 600);
    this.scale = scale;
    const rows = lanes.reduce((sum, lane) => sum + lane.rows, 0), height = TOP + rows * ROW + 8;
    const top = new Map();
    let row = 0;
    const label = (/** @type {string} */ text, /** @type {number} */ size) => { const el = h('div', { class: 'bar-name', title: text }, h('span', { text })); el.style.height = `${size}px`; return el; };
    this.names.replaceChildren(label('', TOP), ...lanes.map((lane) => {
      for (const [id, at] of lane.row) top.set(id, TOP + (row + at) * ROW + (ROW - BAR) / 2);
      row += lane.rows;
      return label(lane.client, lane.rows * ROW);
    }));
    this.top = top;
    const focus = document.activeElement?.getAttribute('data-op') ?? null;
    const svg = s('svg', { width: scale.width, height, class: 'bar-svg', role: 'group', 'aria-label': 'Operations of the clients' },
      s('defs', {}, s('pattern', { id: 'bar-hatch', width: 6, height: 6, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' }, s('path', { d: 'M0 0V6', class: 'bar-hatch-line' })),
        s('marker', { id: 'bar-arrow', viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: 'auto-start-reverse' }, s('path', { d: 'M0 0 8 4 0 8Z', class: 'bar-head' }))),
      ...axis(held, scale, height),
      ...lines(lanes, scale),
      ...held.notes.map((note) => { const x = scale.x(note.t); return s('g', { class: 'bar-note' }, s('path', { d: `M${x} ${TOP - 6}V${height}` }), titled(`${note.text}${note.node ? ` ${note.node}` : ''}`)); }),
      ...this.arrows(), ...held.operations.map((o) => this.bar(o)), ...this.order());
    this.view.replaceChildren(svg);
    if (focus) svg.querySelector(`[data-op="${focus}"]`)?.focus({ preventScroll: true });
  }

  /** Shows the latest operations while there come more. @param {boolean} follow */
  toEnd(follow) { if (follow) this.view.scrollLeft = this.view.scrollWidth; }

  /** Whether the latest operations are in sight. */
  isAtEnd() { return this.view.scrollLeft + this.view.clientWidth > this.view.scrollWidth - 40; }

  /** @param {Operation} o */
  bar(o) {
    const { scale } = this, y = this.top.get(o.id), x = scale.x(o.start), end = o.end === null ? scale.width - 4 : scale.x(o.end);
    const own = this.overlay.own.includes(o.id), words = `${o.client}: ${called(o)} ${heard(o)}`.trim();
    const open = o.outcome === 'unknown';
    const bar = s('g', {
      class: `bar ${o.outcome}${own ? ' own' : ''}${this.selected === o.id ? ' selected' : ''}${o.answered ? ' read' : ''}`, 'data-op': o.id, tabindex: 0, role: 'button',
      'aria-pressed': String(this.selected === o.id),
      'aria-label': `${words}, ${o.end === null ? 'never answered' : `answered`}${own ? ', part of the contradiction' : ''}`,
    },
    s('rect', { x, y, width: Math.max(4, end - x), height: BAR, rx: 5, class: 'bar-body' }),
    own ? s('rect', { x, y, width: Math.max(4, end - x), height: BAR, rx: 5, class: 'bar-hatch' }) : '',
    s('path', { d: `M${x} ${y}v${BAR}`, class: 'bar-end' }), open ? '' : s('path', { d: `M${end} ${y}v${BAR}`, class: 'bar-end' }),
    s('text', { x: x + 8, y: y + BAR / 2 }, s('tspan', { class: 'bar-call' }, called(o)), s('tspan', { class: 'bar-heard', dx: 7 }, heard(o))));
    bar.addEventListener('pointerdown', (/** @type {PointerEvent} */ e) => this.grab(e, o));
    bar.addEventListener('pointermove', (/** @type {PointerEvent} */ e) => { if (this.editable) bar.style.cursor = this.gripOf(e, o) === 'body' ? 'grab' : 'ew-resize'; });
    bar.addEventListener('keydown', (/** @type {KeyboardEvent} */ e) => this.key(e, o));
    return bar;
  }

  /** Which part of a bar a pointer has. @param {PointerEvent} e @param {Operation} o @returns {'start'|'end'|'body'} */
  gripOf(e, o) {
    const x = e.clientX - this.view.firstElementChild.getBoundingClientRect().left, from = this.scale.x(o.start), to = o.end === null ? Infinity : this.scale.x(o.end);
    const grip = Math.min(GRIP, (to - from) / 3);
    return to - x < grip ? 'end' : x - from < grip ? 'start' : 'body';
  }

  /** @param {PointerEvent} e @param {Operation} o */
  grab(e, o) {
    this.does.select(o.id);
    if (!this.editable || e.button !== 0) return;
    e.preventDefault();
    const part = this.gripOf(e, o), from = e.clientX, { start, end } = o, scale = this.scale;
    this.held = scale;
    const at = (/** @type {number|null} */ t, /** @type {number} */ by) => (t === null ? null : scale.t(scale.x(t) + by));
    const move = (/** @type {PointerEvent} */ to) => {
      const by = to.clientX - from;
      this.does.move(o.id, part === 'end' ? start : /** @type {number} */ (at(start, by)), part === 'start' ? end : at(end, by));
    };
    const up = () => {
      removeEventListener('pointermove', move); removeEventListener('pointerup', up); removeEventListener('pointercancel', up);
      this.held = null;
      this.does.done();
    };
    addEventListener('pointermove', move); addEventListener('pointerup', up); addEventListener('pointercancel', up);
  }

  /** @param {KeyboardEvent} e @param {Operation} o */
  key(e, o) {
    if (e.key === 'Enter' || e.key === ' ') { this.does.select(o.id); e.preventDefault(); return; }
    const by = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (!by || !this.editable) return;
    e.preventDefault();
    const step = (/** @type {number} */ t) => beyond(this.history, t, by);
    if (e.shiftKey) this.does.move(o.id, step(o.start), o.end);
    else this.does.move(o.id, o.start, o.end === null ? null : step(o.end));
    this.does.done();
  }

  /** The order that was found: a number on each bar; where real time counts, at the moment when it may take effect. */
  order() {
    const { order, timed } = this.overlay, { scale } = this;
    if (!order) return [];
    const byId = new Map(this.history.operations.map((o) => [o.id, o]));
    let last = -Infinity;
    const points = order.flatMap((id, i) => {
      const o = byId.get(id);
      if (!o) return [];
      const from = scale.x(o.start) + 9, to = Math.max(from, (o.end === null ? scale.width - 12 : scale.x(o.end)) - 9);
      const x = timed ? Math.min(to, Math.max(from, last + 12)) : (from + to) / 2;
      last = x;
      return [{ x, y: this.top.get(id) + BAR + 2, n: i + 1 }];
    });
    return [s('path', { d: points.map((p, i) => `${i ? 'L' : 'M'}${p.x} ${p.y}`).join(''), class: 'bar-order' }),
      ...points.map((p) => s('g', { class: 'bar-number' }, s('circle', { cx: p.x, cy: p.y, r: 8.5 }), s('text', { x: p.x, y: p.y + 0.5 }, String(p.n))))];
  }

  /** What must come before what. */
  arrows() {
    const { scale } = this, byId = new Map(this.history.operations.map((o) => [o.id, o]));
    return this.overlay.links.flatMap((link) => {
      const from = byId.get(link.from), to = byId.get(link.to);
      if (!from || !to || from === to) return [];
      const middle = (/** @type {Operation} */ o) => (scale.x(o.start) + (o.end === null ? scale.width : scale.x(o.end))) / 2;
      const [x1, x2] = [middle(from), middle(to)], down = this.top.get(to.id) >= this.top.get(from.id);
      const y1 = this.top.get(from.id) + (down ? BAR : 0), y2 = this.top.get(to.id) + (this.top.get(to.id) === this.top.get(from.id) ? BAR : down ? 0 : BAR);
      const bend = y1 === y2 ? 26 : 0;
      return [s('g', { class: 'bar-link' }, s('path', { d: `M${x1} ${y1}C${x1} ${y1 + (bend || (y2 - y1) / 2)} ${x2} ${y2 + (bend || (y1 - y2) / 2)} ${x2} ${y2}`, 'marker-end': 'url(#bar-arrow)' }), titled(link.why))];
    });
  }
}

/** @param {string} text */
function titled(text) { return s('title', {}, text); }

/** The next moment beyond a neighbouring event. @param {Held} held @param {number} t @param {number} by */
function beyond(held, t, by) {
  const times = moments(held).filter((other) => (by > 0 ? other > t : other < t)).sort((a, b) => (a - b) * by);
  if (times.length === 0) return Math.max(0, t + by * 2e8);
  return times.length === 1 ? Math.max(0, times[0] + by * 2e8) : (times[0] + times[1]) / 2;
}

/** @param {Held} held */
function moments(held) {
  return [...new Set(held.operations.flatMap((o) => (o.end === null ? [o.start] : [o.start, o.end])))].sort((a, b) => a - b);
}

/** The rows of each client: operations that overlap stand below each other. @param {Operation[]} operations */
function laneRows(operations) {
  /** @type {Map<string, {client:string, ends:number[], row:Map<number, number>, rows:number}>} */ const lanes = new Map();
  for (const o of [...operations].sort((a, b) => a.start - b.start)) {
    const lane = lanes.get(o.client) ?? { client: o.client, ends: [], row: new Map(), rows: 1 };
    let row = lane.ends.findIndex((end) => end <= o.start);
    if (row < 0) row = lane.ends.length;
    lane.ends[row] = o.end ?? Infinity;
    lane.row.set(o.id, row);
    lane.rows = Math.max(1, lane.ends.length);
    lanes.set(o.client, lane);
  }
  return [...lanes.values()].sort((a, b) => a.client.localeCompare(b.client, 'en', { numeric: true }));
}

/** @typedef {{width:number, x:(t:number) => number, t:(x:number) => number, stops:[number, number][]}} Scale */

/**
 * Time to pixels, piece by piece between neighbouring events: long waits are shortened and short ones widened, and each bar has
 * room for its words. What comes before what stays as it is.
 * @param {Held} held @param {number} room @returns {Scale}
 */
export function scaleOf(held, room) {
  const times = moments(held);
  const gaps = times.slice(1).map((t, i) => t - times[i]), mean = gaps.reduce((sum, gap) => sum + gap, 0) / Math.max(1, gaps.length);
  const wide = gaps.map((gap) => Math.max(GAP_MIN, Math.min(GAP_MAX, (gap / (mean || 1)) * GAP_MEAN)));
  const place = new Map(times.map((t, i) => [t, i]));
  for (const o of held.operations) {
    if (o.end === null) continue;
    const from = place.get(o.start) ?? 0, to = place.get(o.end) ?? 0, need = (called(o).length + heard(o).length + 2) * CHAR + 14;
    const has = wide.slice(from, to).reduce((sum, gap) => sum + gap, 0);
    if (to > from && has < need) for (let i = from; i < to; i += 1) wide[i] *= need / has;
  }
  const tail = held.operations.some((o) => o.end === null) ? 150 : PAD;
  const needed = wide.reduce((sum, gap) => sum + gap, 0), stretch = Math.max(1, (room - PAD - tail) / Math.max(1, needed));
  /** @type {[number, number][]} */ const stops = [];
  let x = PAD;
  times.forEach((t, i) => { stops.push([t, x]); x += (wide[i] ?? 0) * stretch; });
  if (stops.length === 0) stops.push([0, PAD]);
  const slope = (stops[stops.length - 1][1] - PAD) / Math.max(1, stops[stops.length - 1][0] - stops[0][0]) || 1e-7;
  const along = (/** @type {number} */ value, /** @type {0|1} */ a, /** @type {0|1} */ b) => {
    let i = stops.findIndex((stop) => stop[a] >= value);
    const k = a === 0 ? slope : 1 / slope;
    if (i === 0) return stops[0][b] - (stops[0][a] - value) * k;
    if (i < 0) { const end = stops[stops.length - 1]; return end[b] + (value - end[a]) * k; }
    const [p, q] = [stops[i - 1], stops[i]];
    return p[b] + ((value - p[a]) / (q[a] - p[a])) * (q[b] - p[b]);
  };
  return { width: Math.max(room, x + tail), stops, x: (t) => along(t, 0, 1), t: (at) => Math.max(0, along(at, 1, 0)) };
}

/** @param {Held} held @param {Scale} scale @param {number} height */
function axis(held, scale, height) {
  if (!held.timed) return [s('text', { x: PAD, y: 15, class: 'bar-tick' }, 'in the order of events: this history has no times')];
  let last = -Infinity;
  return scale.stops.flatMap(([t, x]) => {
    if (x - last < 76) return [];
    last = x;
    const atEnd = x > scale.width - 60;
    return [s('path', { d: `M${x} ${TOP - 6}V${height}`, class: 'bar-grid' }), s('text', { x, y: 15, class: `bar-tick${atEnd ? ' last' : ''}` }, clock(t, t % 1e8 === 0 ? 1 : 3))];
  });
}

/** @param {{rows:number}[]} lanes @param {Scale} scale */
function lines(lanes, scale) {
  let row = 0;
  return lanes.map((lane) => {
    const y = TOP + (row + lane.rows / 2) * ROW;
    row += lane.rows;
    return s('path', { d: `M0 ${y}H${scale.width}`, class: 'bar-lane' });
  });
}
