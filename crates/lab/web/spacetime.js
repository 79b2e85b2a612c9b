// @ts-check
/**
 * All of time: one line a node, arrows for messages, bars for client operations.
 *
 * Drawn on two canvases: the picture, again only when the window or the run changes, and above it the
 * cursor. Only what lies in the window is drawn; when that is too much, messages that carry nothing
 * new are left out first, and the picture says so.
 */

import { h, palette } from './dom.js';
import { lostAt, messageKind } from './view.js';
import { clock, duration, epochNumber, epochWord, valueWords } from './words.js';

const GUTTER = 58;
const AXIS = 24;
const CLIENT_ROW = 19;
const SPAN_MIN = 5e6;
/** How long an arrow is drawn for a message that was lost as it was sent. */
const STUB_NS = 12e6;
/** Nanoseconds of a live run under the whole width at first. */
export const LIVE_SPAN = 6e9;
/** Messages that can still be told apart in one picture. */
const ARROWS_MAX = 900;
const COLOURS = ['bg', 'surface', 'text', 'muted', 'line', 'leader', 'candidate', 'follower', 'committed', 'violation', 'gossip'];

export class SpaceTime {
  /** @param {HTMLElement} box @param {{seek:(t:number)=>void, tip:(text:string|null, at?:DOMRect)=>void, hold:()=>void}} does */
  constructor(box, does) {
    this.does = does;
    this.box = box;
    this.picture = h('canvas', { 'aria-hidden': 'true' });
    this.overlay = h('canvas', { class: 'over', tabindex: 0, role: 'slider', 'aria-label': 'Time, in the space-time diagram', 'aria-orientation': 'horizontal' });
    box.append(this.picture, this.overlay);
    this.from = 0; this.to = 2e9; this.t = 0;
    /** The latest moment that was seen; what lies after it is drawn veiled. */ this.seen = 0;
    this.secret = false;
    this.follow = true;
    /** @type {any} */ this.trace = null;
    this.stale = true;
    new ResizeObserver(() => this.#resize()).observe(box);
    this.#gestures();
    this.recolour();
  }

  /** Takes the present theme's colours. */
  recolour() {
    this.colour = palette(COLOURS);
    this.stale = true;
    this.draw();
  }

  /** @param {any} trace @param {boolean} keep the window */
  show(trace, keep) {
    this.trace = trace;
    if (!keep) { this.from = trace.start; this.to = Math.min(trace.until, trace.start + 2e9); }
    this.stale = true;
  }

  #resize() {
    const ratio = devicePixelRatio || 1;
    this.w = this.box.clientWidth; this.h = this.box.clientHeight;
    for (const canvas of [this.picture, this.overlay]) {
      canvas.width = Math.round(this.w * ratio); canvas.height = Math.round(this.h * ratio);
      canvas.style.width = `${this.w}px`; canvas.style.height = `${this.h}px`;
      canvas.getContext('2d').setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    this.stale = true;
    this.draw();
  }

  /** @param {number} t */
  x(t) { return GUTTER + ((t - this.from) / (this.to - this.from)) * ((this.w ?? 1) - GUTTER - 10); }
  /** @param {number} x */
  time(x) { return this.from + ((x - GUTTER) / ((this.w ?? 1) - GUTTER - 10)) * (this.to - this.from); }

  /** @param {number} from @param {number} to */
  setWindow(from, to) {
    if (!this.trace) return;
    // A live run has room to the right, where its present moves on.
    const start = this.trace.start, ahead = this.trace.live ? Math.max(LIVE_SPAN, (to - from) * 0.3) : SPAN_MIN;
    const until = this.trace.live ? this.trace.until + ahead : Math.max(this.trace.until, start + SPAN_MIN);
    const span = Math.max(SPAN_MIN, Math.min(to - from, until - start));
    const first = Math.max(start, Math.min(from, until - span));
    if (first === this.from && first + span === this.to) return;
    this.from = first; this.to = first + span;
    this.stale = true;
  }

  /** Brings a moment into sight. @param {number} t @param {boolean} playing */
  reveal(t, playing) {
    const span = this.to - this.from;
    const edge = playing ? this.from + span * 0.72 : this.to - span * 0.04;
    if (t > edge) this.setWindow(t - span * (playing ? 0.72 : 0.5), t + span * (playing ? 0.28 : 0.5));
    else if (t < this.from + span * 0.02) this.setWindow(t - span * 0.3, t + span * 0.7);
  }

  /** @param {number} factor @param {number} [around] */
  zoom(factor, around = this.t) {
    const share = (around - this.from) / (this.to - this.from), span = (this.to - this.from) * factor;
    this.setWindow(around - span * share, around + span * (1 - share));
    this.draw();
  }

  #gestures() {
    const el = this.overlay;
    /** @type {Map<number, {x:number}>} */ const fingers = new Map();
    let apart = 0;
    el.addEventListener('pointerdown', (e) => {
      if (e.button !== 0) return;
      el.setPointerCapture(e.pointerId);
      fingers.set(e.pointerId, { x: e.offsetX });
      if (fingers.size === 2) apart = distance();
      else { this.does.hold(); this.does.seek(this.time(e.offsetX)); }
    });
    const distance = () => { const [a, b] = [...fingers.values()]; return Math.max(12, Math.abs(a.x - b.x)); };
    el.addEventListener('pointermove', (e) => {
      const finger = fingers.get(e.pointerId);
      if (!finger) { this.#hover(e); return; }
      finger.x = e.offsetX;
      if (fingers.size === 2) {
        const [a, b] = [...fingers.values()], now = distance();
        this.zoom(apart / now, this.time((a.x + b.x) / 2));
        apart = now;
      } else this.does.seek(this.time(e.offsetX));
    });
    for (const over of ['pointerup', 'pointercancel']) el.addEventListener(over, (/** @type {any} */ e) => fingers.delete(e.pointerId));
    el.addEventListener('pointerleave', () => this.does.tip(null));
    el.addEventListener('wheel', (e) => {
      e.preventDefault();
      const span = this.to - this.from;
      if (e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) {
        const by = ((e.deltaX || e.deltaY) / (this.w ?? 1)) * span;
        this.setWindow(this.from + by, this.to + by);
        this.draw();
      } else this.zoom(Math.exp(Math.max(-80, Math.min(80, e.deltaY)) * 0.004), this.time(e.offsetX));
    }, { passive: false });
  }

  /** @param {PointerEvent} e */
  #hover(e) {
    let best, near = 9;
    for (const spot of this.spots ?? []) {
      const d = spot.x2 === undefined ? Math.hypot(spot.x - e.offsetX, spot.y - e.offsetY) : toSegment(spot, e.offsetX, e.offsetY);
      if (d < near) { near = d; best = spot; }
    }
    this.does.tip(best ? best.text : null, best && new DOMRect(e.clientX - 6, e.clientY - 10, 12, 20));
  }

  /** Draws what is stale. */
  draw() {
    if (!this.trace || !this.w) return;
    if (this.stale) { this.stale = false; this.#picture(); }
    this.#cursor();
  }

  /** @param {number} t */
  moveTo(t) {
    this.t = t;
    this.seen = Math.max(this.seen, t);
  }

  #rows() {
    // The nodes come first: of many clients only as many are drawn as leave them room.
    const clientRows = Math.max(2, Math.floor(((this.h ?? 200) * 0.3) / CLIENT_ROW));
    const clients = (this.trace.header.clients ?? []).slice(0, clientRows), nodes = this.trace.header.nodes;
    const top = clients.length ? 8 + clients.length * CLIENT_ROW + 4 : 6;
    const room = (this.h ?? 200) - AXIS - top, row = room / nodes.length;
    return {
      client: (/** @type {string} */ c) => 8 + (clients.indexOf(c) + 0.5) * CLIENT_ROW,
      node: (/** @type {string} */ n) => top + (nodes.indexOf(n) + 0.5) * row,
      clients, nodes, row,
    };
  }

  #picture() {
    const g = this.picture.getContext('2d'), c = this.colour ?? {}, rows = this.#rows();
    const w = this.w ?? 0, height = this.h ?? 0;
    g.clearRect(0, 0, w, height);
    g.font = `12px ${FONT}`;
    g.textBaseline = 'middle';
    /** @type {any[]} */ this.spots = [];
    this.#axis(g, c, w, height);
    g.save();
    g.beginPath();
    g.rect(GUTTER - 2, 0, w - GUTTER + 2, height - AXIS);
    g.clip();
    const chunks = this.trace.between(this.from, this.to);
    this.#faults(g, c, rows, chunks, height);
    this.#messages(g, c, rows, chunks);
    for (const n of rows.nodes) this.#line(g, c, rows, n, chunks);
    this.#marks(g, c, rows, chunks);
    this.#snapshots(g, c, rows);
    this.#operations(g, c, rows, chunks);
    g.restore();
    this.#labels(g, c, rows);
  }

  /** @param {any} g @param {any} c @param {number} w @param {number} height */
  #axis(g, c, w, height) {
    const step = tick((this.to - this.from) / Math.max(3, w / 130)), y = height - AXIS;
    g.strokeStyle = c.line; g.fillStyle = c.muted; g.lineWidth = 1; g.textAlign = 'center';
    const digits = step >= 1e9 ? 0 : step >= 1e8 ? 1 : step >= 1e7 ? 2 : 3;
    for (let t = Math.ceil(this.from / step) * step; t <= this.to; t += step) {
      const x = Math.round(this.x(t)) + 0.5;
      g.globalAlpha = 0.7;
      g.beginPath(); g.moveTo(x, 4); g.lineTo(x, y + 4); g.stroke();
      g.globalAlpha = 1;
      if (x > GUTTER + 14 && x < w - 18) g.fillText(clock(t, digits), x, y + 14);
    }
  }

  /** @param {any} g @param {any} c @param {any} rows */
  #labels(g, c, rows) {
    g.textAlign = 'right';
    g.fillStyle = c.text; g.font = `600 13px ${FONT}`;
    for (const n of rows.nodes) g.fillText(n, GUTTER - 12, rows.node(n));
    g.fillStyle = c.muted; g.font = `12px ${FONT}`;
    for (const n of rows.clients) g.fillText(n, GUTTER - 12, rows.client(n));
    if (this.hidden) {
      g.textAlign = 'right'; g.font = `11px ${FONT}`;
      g.fillText('heartbeats and their answers are left out at this zoom', (this.w ?? 0) - 14, (this.h ?? 0) - AXIS - 7);
    }
  }

  /** A node's line: its role by thickness and dash, its epochs as bands with their number. @param {any} g @param {any} c @param {any} rows @param {string} n @param {any[]} chunks */
  #line(g, c, rows, n, chunks) {
    const y = rows.node(n), segments = chunks.flatMap((chunk) => chunk.segments.filter((/** @type {any} */ s) => s.n === n));
    let shown = -1;
    for (const [i, seg] of segments.entries()) {
      const until = segments[i + 1]?.t ?? Math.min(this.trace.until, chunks[chunks.length - 1]?.to ?? this.to);
      const x1 = Math.max(GUTTER - 4, this.x(seg.t)), x2 = Math.min((this.w ?? 0) + 4, this.x(until));
      if (x2 < GUTTER - 4 || x1 > (this.w ?? 0)) { if (x2 < GUTTER) shown = -1; continue; }
      this.#segment(g, c, seg, x1, x2, y, !!segments[i - 1]?.up);
      if (seg.up && seg.epoch !== shown && seg.epoch > 0 && x2 - x1 > 3) {
        const at = Math.max(x1, GUTTER + 2);
        const role = seg.role === 'leader' ? c.leader : seg.role === 'candidate' ? c.candidate : c.follower;
        pill(g, at + 10, y - (rows.row > 30 ? 12 : 9), epochNumber(seg.epoch), role, c.bg);
        this.spots?.push({ x: at + 10, y: y - 10, text: `${n}: ${epochWord(this.trace.header.protocol)} ${epochNumber(seg.epoch)} from ${clock(seg.t)}, as ${seg.role}` });
      }
      shown = seg.up ? seg.epoch : -1;
    }
  }

  /** @param {any} g @param {any} c @param {any} seg @param {number} x1 @param {number} x2 @param {number} y @param {boolean} ran whether it ran until then */
  #segment(g, c, seg, x1, x2, y, ran) {
    g.setLineDash([]);
    if (!seg.up) {
      g.strokeStyle = c.violation; g.lineWidth = 2; g.globalAlpha = 1;
      if (ran && x1 >= GUTTER) { g.beginPath(); g.moveTo(x1 - 5, y - 5); g.lineTo(x1 + 5, y + 5); g.moveTo(x1 + 5, y - 5); g.lineTo(x1 - 5, y + 5); g.stroke(); }
      return;
    }
    const stroke = (/** @type {string} */ colour, /** @type {number} */ width, /** @type {number[]} */ dash, at = y) => {
      g.strokeStyle = colour; g.lineWidth = width; g.setLineDash(dash);
      g.beginPath(); g.moveTo(x1, at); g.lineTo(x2, at); g.stroke();
    };
    if (seg.paused) { stroke(c.follower, 7, [2, 4]); g.setLineDash([]); return; }
    if (seg.role === 'leader') { stroke(c.leader, 2.2, [], y - 2.6); stroke(c.leader, 2.2, [], y + 2.6); }
    else if (seg.role === 'candidate') stroke(c.candidate, 4, [6, 4]);
    else stroke(c.follower, 1.8, []);
    g.setLineDash([]);
  }

  /** @param {any} g @param {any} c @param {any} rows @param {any[]} chunks */
  #messages(g, c, rows, chunks) {
    const seen = new Set(), found = [];
    for (const chunk of chunks) {
      for (const e of chunk.sends) {
        const end = this.trace.ends.get(e.m), until = end?.t ?? e.at ?? (e.lost ? e.t + STUB_NS : this.trace.live ? e.t : this.trace.until);
        if (e.t > this.to || until < this.from || e.from === e.to || (e.m !== null && seen.has(e.m))) continue;
        seen.add(e.m);
        found.push({ e, end, until, kind: messageKind(e.name, e.detail) });
      }
    }
    this.hidden = found.length > ARROWS_MAX;
    const shown = this.hidden ? found.filter((m) => !/beat|ack|digest/.test(m.kind)) : found;
    const dense = Math.min(1, Math.max(0.3, 260 / Math.max(1, shown.length)));
    for (const m of shown) this.#arrow(g, c, rows, m, dense);
    g.globalAlpha = 1;
    g.setLineDash([]);
  }

  /** @param {any} g @param {any} c @param {any} rows @param {any} m @param {number} dense */
  #arrow(g, c, rows, { e, end, until, kind }, dense) {
    const lost = end?.k === 'drop' || e.lost, x1 = this.x(e.t), y1 = rows.node(e.from);
    let x2 = this.x(until), y2 = rows.node(e.to);
    // Not quite half-way, where another node's line may be, at which it would seem to arrive.
    if (e.lost) y2 = y1 + (y2 - y1) * Math.max(0.2, 0.85 * lostAt(e.lost));
    const style = ARROW[kind] ?? ARROW.other;
    g.strokeStyle = lost ? c.violation : c[style.colour];
    g.lineWidth = style.width;
    g.globalAlpha = lost ? Math.max(0.5, dense) : style.alpha * (style.key ? Math.max(dense, 0.75) : dense);
    g.setLineDash(style.dash);
    g.beginPath(); g.moveTo(x1, y1); g.lineTo(x2, y2); g.stroke();
    g.setLineDash([]);
    if (lost) { g.beginPath(); g.moveTo(x2 - 3.500, y2 - 3.500); g.lineTo(x2 + 3.500, y2 + 3.500); g.moveTo(x2 + 3.500, y2 - 3.500); g.lineTo(x2 - 3.500, y2 + 3.500); g.stroke(); }
    else head(g, x1, y1, x2, y2, style.key ? 7 : 5, g.strokeStyle);
    if ((this.spots?.length ?? 0) < 4000) {
      const word = lost ? `lost: ${end?.why ?? e.lost}` : end ? `took ${duration(until - e.t)}` : 'on its way';
      this.spots?.push({ x: x1, y: y1, x2, y2, text: `${e.name}, ${e.from} to ${e.to} (m${e.m})\n${e.detail ?? ''}\n${word}` });
    }
  }

  /** @param {any} g @param {any} c @param {any} rows @param {any[]} chunks @param {number} height */
  #faults(g, c, rows, chunks, height) {
    const after = (/** @type {any} */ e) => e.what !== 'crash' && e.what !== 'restart' && e.what !== 'pause' && e.what !== 'resume';
    let free = -Infinity;
    for (const chunk of chunks) for (const e of chunk.marks) {
      if (e.k !== 'fault' || e.echo || e.t < this.from || e.t > this.to) continue;
      const x = Math.round(this.x(e.t)) + 0.5;
      g.strokeStyle = c.violation; g.globalAlpha = 0.35; g.lineWidth = 1; g.setLineDash([2, 3]);
      g.beginPath(); g.moveTo(x, 0); g.lineTo(x, height - AXIS); g.stroke();
      g.setLineDash([]); g.globalAlpha = 1;
      if (after(e) || !rows.clients.length) {
        g.fillStyle = c.violation; g.textAlign = 'left'; g.font = `11px ${FONT}`;
        // Where faults crowd, only as many are named as can be read; each tells its name when it is pointed at.
        if (x > free) { g.fillText(e.text ?? e.what, x + 4, height - AXIS - 7); free = x + 8 + g.measureText(e.text ?? e.what).width; }
      }
      this.spots?.push({ x, y: height - AXIS - 7, text: `${e.text ?? e.what} at ${clock(e.t)}` });
    }
  }

  /** @param {any} g @param {any} c @param {any} rows @param {any[]} chunks */
  #marks(g, c, rows, chunks) {
    for (const chunk of chunks) for (const e of chunk.marks) {
      if (e.t < this.from || e.t > this.to || !e.n) continue;
      const x = this.x(e.t), y = rows.node(e.n);
      if (e.k === 'commit') {
        g.fillStyle = c.committed; g.beginPath(); g.moveTo(x, y + 4); g.lineTo(x + 4, y + 11); g.lineTo(x - 4, y + 11); g.closePath(); g.fill();
        this.spots?.push({ x, y: y + 8, text: `${e.n} knows that ${e.from === e.to ? `entry ${e.to} is` : `entries ${e.from} to ${e.to} are`} committed` });
      } else if (e.k === 'vote') {
        g.fillStyle = c.bg; g.strokeStyle = c.candidate; g.lineWidth = 1.6;
        g.beginPath(); g.moveTo(x, y - 6); g.lineTo(x + 6, y); g.lineTo(x, y + 6); g.lineTo(x - 6, y); g.closePath(); g.fill(); g.stroke();
        this.spots?.push({ x, y, text: `${e.n} votes for ${e.s.voted} in ${epochWord(this.trace.header.protocol)} ${epochNumber(e.s.epoch)}` });
      } else if (e.k === 'stand') {
        g.fillStyle = c.bg; g.strokeStyle = c.candidate; g.lineWidth = 1.8;
        g.beginPath(); g.arc(x, y, 4.5, 0, 7); g.fill(); g.stroke();
        this.spots?.push({ x, y, text: `${e.n} stands for election at ${clock(e.t)}` });
      } else if (e.k === 'disk') {
        g.fillStyle = c.violation; g.fillRect(x - 3, y - 3, 6, 6);
        this.spots?.push({ x, y, text: `${e.n}'s disk: ${e.op}` });
      }
    }
  }

  /** Who got another's snapshot, and when. @param {any} g @param {any} c @param {any} rows */
  #snapshots(g, c, rows) {
    for (const mark of this.trace.header.marks) {
      const who = mark.kind === 'snapshot' ? mark.label.split(' ')[0] : '';
      if (!rows.nodes.includes(who) || mark.t < this.from || mark.t > this.to) continue;
      const x = this.x(mark.t), y = rows.node(who);
      g.fillStyle = c.bg; g.strokeStyle = c.committed; g.lineWidth = 1.8;
      g.beginPath(); g.rect(x - 5, y - 6, 10, 12); g.moveTo(x - 5, y - 2); g.lineTo(x + 5, y - 2); g.moveTo(x - 5, y + 2); g.lineTo(x + 5, y + 2); g.fill(); g.stroke();
      this.spots?.push({ x, y, text: `${mark.label} at ${clock(mark.t)}` });
    }
  }

  /** @param {any} g @param {any} c @param {any} rows @param {any[]} chunks */
  #operations(g, c, rows, chunks) {
    /** @type {Map<string, {begin:any, end:any}>} */ const found = new Map();
    for (const chunk of chunks) for (const e of chunk.ops) {
      const key = `${e.c}/${e.o}`, op = found.get(key) ?? { begin: null, end: null };
      if (e.phase === 'invoke') op.begin = e; else op.end = e;
      found.set(key, op);
    }
    g.font = `11px ${FONT}`;
    for (const { begin, end } of found.values()) {
      const first = begin ?? end, y = rows.client(first.c);
      if (!rows.clients.includes(first.c)) continue;
      const x1 = begin ? this.x(begin.t) : GUTTER - 6, open = !end || end.phase === 'unknown';
      const x2 = open ? Math.min((this.w ?? 0), this.x(this.trace.until)) : this.x(end.t);
      if (x2 < GUTTER || x1 > (this.w ?? 0)) continue;
      const phase = end?.phase ?? 'open', colour = phase === 'ok' ? c.committed : phase === 'fail' ? c.violation : c.follower;
      g.fillStyle = c.surface; g.strokeStyle = colour; g.lineWidth = 1.3;
      g.setLineDash(phase === 'ok' ? [] : phase === 'fail' ? [5, 2] : [2, 3]);
      g.beginPath(); g.roundRect(x1, y - 7, Math.max(4, x2 - x1), 14, 3); g.fill(); g.stroke();
      g.setLineDash([]);
      const value = end?.value ?? first.value, label = `${first.f} ${valueWords(first.key)}${value === undefined || value === null ? '' : `${first.key ? '=' : ''}${valueWords(value)}`}`;
      const at = Math.max(x1, GUTTER) + 5;
      g.fillStyle = c.text; g.textAlign = 'left';
      if (x2 - at > g.measureText(label).width + 4) g.fillText(label, at, y + 0.5);
      this.spots?.push({ x: x1, y, x2, y2: y, text: `${first.c}: ${first.space ? `${first.space}, ` : ''}${label}\n${phase === 'ok' ? `ok after ${duration(end.t - (begin?.t ?? end.t))}` : phase === 'fail' ? 'failed: it had no effect' : phase === 'unknown' ? 'outcome unknown: it may still take effect' : 'no answer yet'}` });
    }
  }

  #cursor() {
    const g = this.overlay.getContext('2d'), c = this.colour ?? {}, w = this.w ?? 0, height = this.h ?? 0;
    g.clearRect(0, 0, w, height);
    const x = this.x(this.t), edge = Math.max(GUTTER, x);
    // What has not happened yet stays veiled: wholly, as long as the page asks who will win.
    if (edge < w) {
      g.fillStyle = c.bg;
      g.globalAlpha = this.secret && this.seen <= this.t + 1 ? 1 : 0.55;
      g.fillRect(edge, 0, w - edge, height - AXIS);
      g.globalAlpha = 1;
    }
    if (x >= GUTTER - 1 && x <= w) {
      g.strokeStyle = c.text; g.lineWidth = 1.5;
      g.beginPath(); g.moveTo(x, 0); g.lineTo(x, height - AXIS + 3); g.stroke();
      const text = clock(this.t);
      g.font = `600 12px ${FONT}`; g.textAlign = 'center'; g.textBaseline = 'middle';
      const half = g.measureText(text).width / 2 + 7, at = Math.min(w - half - 2, Math.max(half + 2, x));
      g.fillStyle = c.text; g.beginPath(); g.roundRect(at - half, height - AXIS + 3, half * 2, 20, 5); g.fill();
      g.fillStyle = c.bg; g.fillText(text, at, height - AXIS + 13.5);
    }
    this.overlay.setAttribute('aria-valuemin', '0');
    this.overlay.setAttribute('aria-valuemax', String(Math.round(this.trace.until / 1e6)));
    this.overlay.setAttribute('aria-valuenow', String(Math.round(this.t / 1e6)));
    this.overlay.setAttribute('aria-valuetext', clock(this.t));
  }
}

const FONT = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif';

/** @type {Record<string, {colour:string, dash:number[], width:number, alpha:number, key?:boolean}>} */
const ARROW = {
  entries: { colour: 'leader', dash: [], width: 1.5, alpha: 0.95, key: true },
  beat: { colour: 'follower', dash: [], width: 1, alpha: 0.5 },
  ack: { colour: 'follower', dash: [2, 3], width: 1, alpha: 0.5 },
  ask: { colour: 'candidate', dash: [], width: 1.7, alpha: 1, key: true },
  vote: { colour: 'candidate', dash: [7, 3], width: 1.7, alpha: 1, key: true },
  'pre-ask': { colour: 'candidate', dash: [1, 3], width: 1.3, alpha: 0.9 },
  'pre-vote': { colour: 'candidate', dash: [4, 3, 1, 3], width: 1.3, alpha: 0.9 },
  gossip: { colour: 'gossip', dash: [], width: 1.5, alpha: 0.95, key: true },
  digest: { colour: 'gossip', dash: [2, 3], width: 1, alpha: 0.55 },
  other: { colour: 'text', dash: [], width: 1, alpha: 0.7 },
};

/** A round step of the axis, at least `ns`. @param {number} ns */
function tick(ns) {
  const base = 10 ** Math.floor(Math.log10(ns));
  return [1, 2, 5, 10].map((k) => k * base).find((step) => step >= ns) ?? base * 10;
}

/** @param {any} g @param {number} x1 @param {number} y1 @param {number} x2 @param {number} y2 @param {number} size @param {any} colour */
function head(g, x1, y1, x2, y2, size, colour) {
  const angle = Math.atan2(y2 - y1, x2 - x1), x = x2 - Math.cos(angle) * 3, y = y2 - Math.sin(angle) * 3;
  g.fillStyle = colour;
  g.beginPath();
  g.moveTo(x, y);
  g.lineTo(x - size * Math.cos(angle - 0.4), y - size * Math.sin(angle - 0.4));
  g.lineTo(x - size * Math.cos(angle + 0.4), y - size * Math.sin(angle + 0.4));
  g.closePath();
  g.fill();
}

/** @param {any} g @param {number} x @param {number} y @param {string} text @param {string} colour @param {string} bg */
function pill(g, x, y, text, colour, bg) {
  g.font = `600 11px ${FONT}`;
  const half = Math.max(8, g.measureText(text).width / 2 + 5);
  g.fillStyle = bg; g.strokeStyle = colour; g.lineWidth = 1.2;
  g.beginPath(); g.roundRect(x - half, y - 7, half * 2, 14, 7); g.fill(); g.stroke();
  g.fillStyle = colour; g.textAlign = 'center';
  g.fillText(text, x, y + 0.5);
}

/** @param {any} spot @param {number} x @param {number} y */
function toSegment(spot, x, y) {
  const dx = spot.x2 - spot.x, dy = spot.y2 - spot.y, length = dx * dx + dy * dy || 1;
  const p = Math.max(0, Math.min(1, ((x - spot.x) * dx + (y - spot.y) * dy) / length));
  return Math.hypot(spot.x + dx * p - x, spot.y + dy * p - y);
}
