// @ts-check
/**
 * The cluster at one moment: nodes on a ring, links between them, messages on their way.
 *
 * Roles are told by shape (a leader has two rings, a candidate a dashed one, a crashed node a hatch
 * and a cross, a paused one two bars); colour only repeats it.
 */

import { s, put } from './dom.js';
import { EARLY, SINGLE, epochNumber, epochWord } from './words.js';

const LOG_CELLS = 6;
/** The width that a label beside a node may take, in pixels. */
const SIDE_LABEL = 118;
const LONG_PRESS_MS = 500;
/** How far a message's lane lies beside its link, in pixels. */
const LANE = 7;

export class Ring {
  /**
   * @param {HTMLElement} box
   * @param {{node:(id:string)=>void, nodeMenu:(id:string, at:DOMRect)=>void, select:(id:string)=>void,
   *   link:(a:string,b:string)=>void, linkMenu:(a:string,b:string,at:DOMRect)=>void,
   *   messageMenu:(m:any, at:DOMRect)=>void, delay:(m:any, ns:number)=>void, tip:(text:string|null, at?:DOMRect)=>void,
   *   nodeVerb:(id:string)=>string, linkVerb:(a:string,b:string)=>string}} does
   * @param {{compact?:boolean}} [how] compact: without the words and the log beside each node
   */
  constructor(box, does, { compact = false } = {}) {
    this.compact = compact;
    this.box = box;
    this.does = does;
    this.svg = s('svg', { class: `ring${compact ? ' compact' : ''}`, role: 'group', 'aria-label': 'Cluster' });
    this.svg.append(defs());
    this.linkLayer = s('g', { class: 'links' });
    this.messageLayer = s('g', { class: 'messages' });
    this.nodeLayer = s('g', { class: 'nodes' });
    this.svg.append(this.linkLayer, this.messageLayer, this.nodeLayer);
    box.append(this.svg);
    /** @type {Map<string, any>} */ this.nodes = new Map();
    /** @type {Map<string, any>} */ this.links = new Map();
    /** @type {Map<string, any>} */ this.messages = new Map();
    /** @type {string[]} */ this.ids = [];
    /** @type {any} */ this.dragged = null;
    this.selected = '';
    new ResizeObserver(() => { this.#place(); if (this.view) this.draw(this.view, this.protocol ?? ''); }).observe(box);
  }

  /** Lays out the nodes. @param {string[]} ids */
  #build(ids) {
    this.ids = ids;
    for (const layer of [this.linkLayer, this.messageLayer, this.nodeLayer]) layer.replaceChildren();
    this.nodes.clear(); this.links.clear(); this.messages.clear();
    for (const [i, a] of ids.entries()) for (const b of ids.slice(i + 1)) this.#link(a, b);
    for (const id of ids) this.#node(id);
    this.#place();
  }

  /** @param {string} a @param {string} b */
  #link(a, b) {
    const parts = {
      g: s('g', { class: 'link' }), hit: s('line', { class: 'hit' }),
      there: s('line', { class: 'wire' }), back: s('line', { class: 'wire' }),
      scissors: s('path', { class: 'gap' }),
    };
    parts.g.append(parts.there, parts.back, parts.scissors, parts.hit);
    const rect = () => parts.g.getBoundingClientRect();
    this.#press(parts.hit, () => this.does.link(a, b), () => this.does.linkMenu(a, b, rect()));
    parts.hit.addEventListener('pointerenter', () => this.does.tip(this.does.linkVerb(a, b), rect()));
    parts.hit.addEventListener('pointerleave', () => this.does.tip(null));
    this.linkLayer.append(parts.g);
    this.links.set(`${a}>${b}`, parts);
  }

  /** @param {string} id */
  #node(id) {
    const g = s('g', { class: 'node', role: 'button', tabindex: this.nodes.size ? -1 : 0, 'data-node': id, 'aria-haspopup': 'menu' });
    const parts = {
      g, x: 0, y: 0,
      halo: s('circle', { class: 'halo' }), track: s('circle', { class: 'timer-track' }), timer: s('path', { class: 'timer' }),
      disc: s('circle', { class: 'disc' }), hatch: s('circle', { class: 'hatch' }), inner: s('circle', { class: 'inner' }),
      cross: s('path', { class: 'cross' }), bars: s('path', { class: 'bars' }),
      name: s('text', { class: 'name' }), epoch: s('text', { class: 'epoch' }),
      label: s('g', { class: 'label' }), role: s('text', { class: 'role' }), log: s('g', { class: 'log' }), more: s('text', { class: 'more' }),
      pips: s('g', { class: 'pips' }), disk: s('g', { class: 'disk' }, s('path', { d: 'M-7-3.500v7c0 1.800 3.100 3 7 3s7-1.200 7-3v-7M-7-3.500c0 1.800 3.100 3 7 3s7-1.200 7-3-3.100-3-7-3-7 1.200-7 3Z' })),
      cells: /** @type {any[]} */ ([]), pipList: /** @type {any[]} */ ([]),
    };
    for (let i = 0; i < LOG_CELLS; i++) {
      const cell = { g: s('g'), box: s('rect', { width: 15, height: 15, rx: 3 }), text: s('text', { class: 'cell' }) };
      cell.g.append(cell.box, cell.text);
      parts.log.append(cell.g);
      parts.cells.push(cell);
    }
    parts.label.append(parts.role, parts.log, parts.more);
    g.append(parts.halo, parts.track, parts.timer, parts.disc, parts.hatch, parts.inner, parts.name, parts.epoch, parts.cross, parts.bars, parts.disk, parts.pips, parts.label);
    const rect = () => parts.disc.getBoundingClientRect();
    this.#press(g, () => this.does.node(id), () => this.does.nodeMenu(id, rect()));
    g.addEventListener('pointerenter', () => { this.does.select(id); this.does.tip(this.does.nodeVerb(id), rect()); });
    g.addEventListener('pointerleave', () => this.does.tip(null));
    g.addEventListener('focus', () => this.does.select(id));
    g.addEventListener('keydown', (/** @type {KeyboardEvent} */ e) => this.#key(e, id, rect));
    this.nodeLayer.append(g);
    this.nodes.set(id, parts);
  }

  /** @param {KeyboardEvent} e @param {string} id @param {() => DOMRect} rect */
  #key(e, id, rect) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
    if (step) {
      const next = this.ids[(this.ids.indexOf(id) + step + this.ids.length) % this.ids.length];
      for (const [other, parts] of this.nodes) put(parts.g, { tabindex: other === next ? 0 : -1 });
      this.nodes.get(next).g.focus();
    } else if (e.key === 'Enter') this.does.node(id);
    else if (e.key === ' ' || e.key === 'ContextMenu' || e.key === 'm' || (e.key === 'F10' && e.shiftKey)) this.does.nodeMenu(id, rect());
    else return;
    e.preventDefault();
    e.stopPropagation();
  }

  /** A click, and its menu by right-click or long press. @param {any} el @param {() => void} click @param {() => void} menu */
  #press(el, click, menu) {
    let timer = 0, long = false;
    el.addEventListener('pointerdown', (/** @type {PointerEvent} */ e) => {
      long = false;
      if (e.pointerType === 'mouse') return;
      timer = window.setTimeout(() => { long = true; menu(); }, LONG_PRESS_MS);
    });
    for (const over of ['pointerup', 'pointercancel', 'pointerleave']) el.addEventListener(over, () => clearTimeout(timer));
    el.addEventListener('click', () => { if (!long) click(); });
    el.addEventListener('contextmenu', (/** @type {Event} */ e) => { e.preventDefault(); if (!long) menu(); long = true; });
  }

  /** Where everything stands, in the box's own pixels. */
  #place() {
    const w = this.box.clientWidth, height = this.box.clientHeight;
    if (!w || !height) return;
    this.narrow = this.compact || w < 520;
    put(this.svg, { viewBox: `0 0 ${w} ${height}` });
    this.r = this.compact ? 22 : this.narrow ? 29 : Math.max(32, Math.min(44, height / 11));
    const n = this.ids.length, side = this.compact ? 38 : this.narrow ? 56 : this.r + 20 + SIDE_LABEL;
    const above = this.compact ? 22 : this.narrow ? 64 : 68, below = this.compact ? 20 : this.narrow ? 60 : 72;
    const room = height - 2 * this.r - above - below, rx = Math.min(w / 2 - side, height * 0.52);
    // A ring of an odd number is lower than it is high: what it leaves free below goes to its radius.
    const lowest = Math.max(...this.ids.map((_, i) => Math.sin(-Math.PI / 2 + (i * 2 * Math.PI) / n)));
    const alone = n === 1, ry = alone ? 0 : room / (1 + lowest), cx = w / 2, cy = above + this.r + (alone ? room / 2 : ry);
    for (const [i, id] of this.ids.entries()) {
      const angle = -Math.PI / 2 + (i * 2 * Math.PI) / n, node = this.nodes.get(id);
      node.x = cx + rx * Math.cos(angle);
      node.y = cy + ry * Math.sin(angle);
      const where = this.narrow || Math.abs(Math.cos(angle)) < 0.7 ? (Math.sin(angle) < 0.1 ? 'above' : 'below') : Math.cos(angle) > 0 ? 'right' : 'left';
      this.#placeNode(node, where);
    }
    for (const [key, link] of this.links) this.#placeLink(key, link);
  }

  /** @param {any} node @param {string} where */
  #placeNode(node, where) {
    const r = this.r ?? 40, arc = r + 10;
    put(node.g, { transform: `translate(${node.x.toFixed(1)} ${node.y.toFixed(1)})` });
    put(node.halo, { r: r + 18 });
    put(node.track, { r: arc });
    for (const disc of [node.disc, node.hatch]) put(disc, { r });
    put(node.inner, { r: r - 5 });
    const x = r * 0.48;
    put(node.cross, { d: `M${-x} ${-x}L${x} ${x}M${x} ${-x}L${-x} ${x}` });
    put(node.bars, { d: `M-6 ${r * 0.34}v12M6 ${r * 0.34}v12` });
    put(node.name, { y: this.narrow ? -1 : -2 });
    put(node.epoch, { y: this.compact ? 11 : r * 0.42 });
    put(node.disk, { transform: `translate(${r * 0.78} ${r * 0.78})` });
    const at = { above: [0, -r - 58], below: [0, r + 31], right: [r + 22, -8], left: [-r - 22, -8] }[where] ?? [0, 0];
    node.align = where === 'right' ? 'start' : where === 'left' ? 'end' : 'middle';
    put(node.label, { transform: `translate(${at[0]} ${at[1]})` });
    for (const text of [node.role, node.more]) put(text, { 'text-anchor': node.align });
  }

  /** @param {string} key @param {any} link */
  #placeLink(key, link) {
    const [a, b] = key.split('>').map((id) => this.nodes.get(id));
    link.a = a; link.b = b;
    put(link.hit, { x1: a.x, y1: a.y, x2: b.x, y2: b.y });
  }

  /** @param {import('./view.js').View} v @param {string} protocol */
  draw(v, protocol) {
    this.view = v;
    this.protocol = protocol;
    const ids = v.nodes.map((n) => n.id);
    if (ids.join() !== this.ids.join()) this.#build(ids);
    if (!this.r) this.#place();
    if (!this.r) return;
    for (const [key, link] of this.links) this.#drawLink(key, link, v);
    for (const n of v.nodes) this.#drawNode(n, v, epochWord(protocol));
    this.#drawMessages(v);
  }

  /** @param {string} key @param {any} link @param {import('./view.js').View} v */
  #drawLink(key, link, v) {
    const [ia, ib] = key.split('>'), { a, b } = link;
    const ab = v.cuts.has(key), ba = v.cuts.has(`${ib}>${ia}`);
    const gap = ab || ba ? 0.07 : 0;
    const mx = (a.x + b.x) / 2, my = (a.y + b.y) / 2, dx = b.x - a.x, dy = b.y - a.y;
    put(link.there, { x1: a.x, y1: a.y, x2: mx - dx * gap, y2: my - dy * gap });
    put(link.back, { x1: b.x, y1: b.y, x2: mx + dx * gap, y2: my + dy * gap });
    const length = Math.hypot(dx, dy) || 1, nx = -dy / length, ny = dx / length, k = 8;
    const ends = [-gap, gap].map((f) => [mx + dx * f, my + dy * f]);
    // Each end of a cut link is closed by a bar; a link cut one way keeps an arrow the other way.
    const bar = ([x, y]) => `M${x - nx * k} ${y - ny * k}L${x + nx * k} ${y + ny * k}`;
    let d = '';
    if (ab) d += bar(ends[0]);
    if (ba) d += bar(ends[1]);
    if (gap && ab !== ba) {
      const [from, to] = ab ? [ends[1], ends[0]] : [ends[0], ends[1]], ux = (to[0] - from[0]) / 3, uy = (to[1] - from[1]) / 3;
      d += `M${from[0]} ${from[1]}L${to[0]} ${to[1]}M${to[0] - ux - nx * 4} ${to[1] - uy - ny * 4}L${to[0]} ${to[1]}L${to[0] - ux + nx * 4} ${to[1] - uy + ny * 4}`;
    }
    put(link.scissors, { d });
    const dead = [ia, ib].some((id) => !v.byId.get(id)?.up);
    put(link.g, { class: `link${gap ? ' cut' : ''}${dead ? ' dead' : ''}` });
  }

  /** @param {import('./view.js').NodeView} n @param {import('./view.js').View} v @param {string} word */
  #drawNode(n, v, word) {
    const parts = this.nodes.get(n.id), r = this.r ?? 40;
    const role = !n.up ? 'crashed' : n.paused ? `paused ${n.role}` : n.role;
    put(parts.g, {
      class: `node ${role}${n.part === 'voter' ? '' : ` part-${n.part}`}${this.selected === n.id ? ' selected' : ''}${n.syncing ? ' syncing' : ''}`,
      'aria-label': `${n.id}: ${role}, ${word} ${epochNumber(n.epoch)}, ${n.last} entries, ${n.committed} committed. Enter: ${this.does.nodeVerb(n.id)}. M: menu.`,
    });
    put(parts.name, { text: n.id });
    put(parts.epoch, { text: `${this.narrow ? word[0] : `${word} `}${epochNumber(n.epoch)}` });
    put(parts.role, { text: roleText(n, this.protocol ?? '') });
    this.#drawTimer(parts, n, v.t, r + 10);
    this.#drawPips(parts, n, v, r);
    this.#drawLog(parts, n);
  }

  /** @param {any} parts @param {import('./view.js').NodeView} n @param {number} t @param {number} r */
  #drawTimer(parts, n, t, r) {
    const from = n.deadlineFrom ?? (n.deadline ?? 0) - 1e9;
    const left = n.up && n.deadline !== null && n.deadline > from ? Math.max(0, Math.min(1, (n.deadline - t) / (n.deadline - from))) : 0;
    put(parts.track, { class: `timer-track${n.up && n.deadline !== null ? '' : ' none'}` });
    if (left <= 0.002) { put(parts.timer, { d: '' }); return; }
    const angle = -Math.PI / 2 + Math.min(left, 0.9999) * 2 * Math.PI;
    const d = `M0 ${-r}A${r} ${r} 0 ${left > 0.5 ? 1 : 0} 1 ${(r * Math.cos(angle)).toFixed(2)} ${(r * Math.sin(angle)).toFixed(2)}`;
    put(parts.timer, { d, class: `timer${left < 0.2 && n.role !== 'leader' ? ' soon' : ''}` });
  }

  /** A candidate's and a leader's votes: a full mark for each that it has. @param {any} parts @param {import('./view.js').NodeView} n @param {import('./view.js').View} v @param {number} r */
  #drawPips(parts, n, v, r) {
    const shown = n.up && (n.role === 'candidate' || (n.role === 'leader' && n.votes.length > 0)), has = (n.role === 'candidate' ? n.granted : n.votes).length;
    put(parts.pips, { class: `pips${shown ? '' : ' none'}` });
    if (!shown) return;
    while (parts.pipList.length < v.voters) { const pip = s('circle', { r: 3.6 }); parts.pips.append(pip); parts.pipList.push(pip); }
    const step = 11, start = (-(v.voters - 1) * step) / 2;
    for (const [i, pip] of parts.pipList.entries()) put(pip, { cx: start + i * step, cy: -r * 0.52, class: i < has ? 'has' : '' });
  }

  /** The end of its log: one cell an entry, with the epoch that wrote it. @param {any} parts @param {import('./view.js').NodeView} n */
  #drawLog(parts, n) {
    const room = this.narrow ? 5 : LOG_CELLS, entries = n.log.slice(-room), step = 18;
    const width = entries.length * step - 3;
    const left = parts.align === 'start' ? 0 : parts.align === 'end' ? -width : -width / 2;
    for (const [i, cell] of parts.cells.entries()) {
      const entry = entries[i];
      put(cell.g, { class: entry ? `entry${entry[0] <= n.committed ? ' committed' : ''}${entry[0] <= n.durable ? ' durable' : ''}` : 'none', transform: `translate(${left + i * step} 8)` });
      // A ballot is long for its cell, so the cell has it without the letter.
      const epoch = entry ? epochNumber(entry[1]).replace('n', '') : '';
      if (entry) put(cell.text, { text: epoch, class: epoch.length > 2 ? 'cell long' : 'cell', x: 7.5, y: epoch.length > 2 ? 10.4 : 11.2 });
    }
    put(parts.more, { text: this.narrow ? '' : this.protocol === SINGLE ? (n.last ? `accepted ${n.log[0]?.[2] ?? ''}` : 'nothing accepted') : !n.last ? 'log empty' : n.up ? `${n.committed} of ${n.last} committed${n.base ? `, ${n.base} in snapshot` : ''}` : `${n.durable} on disk`, y: 39 });
  }

  /** @param {import('./view.js').View} v */
  #drawMessages(v) {
    const present = new Set();
    for (const m of v.messages) {
      const a = this.nodes.get(m.from), b = this.nodes.get(m.to);
      if (!a || !b || a === b) continue;
      const key = `${m.m ?? `${m.sent} ${m.from}>${m.to}`}/${m.dying}`;
      present.add(key);
      let el = this.messages.get(key);
      if (!el) { el = this.#message(m); this.messages.set(key, el); }
      el.message = m;
      const progress = this.dragged?.m === m.m ? this.dragged.progress : m.progress;
      const [x, y, angle] = along(a, b, this.r ?? 40, progress);
      put(el, { transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, class: `message ${m.kind}${m.dying ? ' dying' : ''}` });
      put(el.glyph, { transform: /entries|beat/.test(m.kind) ? `rotate(${angle.toFixed(0)})` : null });
    }
    for (const [key, el] of this.messages) if (!present.has(key)) { el.remove(); this.messages.delete(key); }
  }

  /** @param {any} m */
  #message(m) {
    const glyph = s('path', { class: 'glyph', d: GLYPH[m.dying ? 'dying' : m.kind] ?? GLYPH.other });
    const el = s('g', { role: 'img', 'aria-label': `${m.name} from ${m.from} to ${m.to}` }, s('circle', { class: 'hit', r: 15 }), glyph);
    el.glyph = glyph;
    el.addEventListener('pointerenter', () => this.does.tip(`${el.message.name}, ${el.message.from} to ${el.message.to}\n${el.message.detail}${el.message.why ? `\nlost: ${el.message.why}` : ''}${el.message.early ? `\n${EARLY}` : ''}`, el.getBoundingClientRect()));
    el.addEventListener('pointerleave', () => this.does.tip(null));
    el.addEventListener('contextmenu', (/** @type {Event} */ e) => { e.preventDefault(); this.does.messageMenu(el.message, el.getBoundingClientRect()); });
    this.#drag(el);
    this.messageLayer.append(el);
    return el;
  }

  /** Dragged back along its line, a message arrives later; clicked, it shows its menu. @param {any} el */
  #drag(el) {
    el.addEventListener('pointerdown', (/** @type {PointerEvent} */ e) => {
      if (e.button !== 0 || el.message.dying) return;
      const m = el.message, a = this.nodes.get(m.from), b = this.nodes.get(m.to), box = this.svg.getBoundingClientRect();
      const drag = { m: m.m, progress: m.progress, moved: false };
      el.setPointerCapture(e.pointerId);
      const move = (/** @type {PointerEvent} */ at) => {
        const dx = b.x - a.x, dy = b.y - a.y;
        const p = ((at.clientX - box.left - a.x) * dx + (at.clientY - box.top - a.y) * dy) / (dx * dx + dy * dy);
        drag.moved ||= Math.abs(p - m.progress) > 0.04;
        drag.progress = Math.max(0, Math.min(m.progress, p));
        if (drag.moved) { this.dragged = drag; this.does.tip(`delay by ${Math.round(this.#delay(m, drag.progress) / 1e6)} ms`, el.getBoundingClientRect()); }
        if (this.view) this.#drawMessages(this.view);
      };
      const up = () => {
        el.removeEventListener('pointermove', move);
        this.dragged = null;
        this.does.tip(null);
        if (!drag.moved) this.does.messageMenu(m, el.getBoundingClientRect());
        else if (m.progress - drag.progress > 0.03) this.does.delay(m, this.#delay(m, drag.progress));
      };
      el.addEventListener('pointermove', move);
      el.addEventListener('pointerup', up, { once: true });
    });
  }

  /** @param {any} m @param {number} progress */
  #delay(m, progress) {
    return Math.max(1e6, ((m.end ?? m.sent + 1e7) - m.sent) * (m.progress - progress));
  }

  /** @param {string} id */
  select(id) {
    this.selected = id;
    for (const [other, parts] of this.nodes) parts.g.classList.toggle('selected', other === id);
  }

  /** @param {string} id */
  focus(id) { this.nodes.get(id)?.g.focus(); }
}

/** @param {import('./view.js').NodeView} n @param {string} protocol */
function roleText(n, protocol) {
  if (!n.up) return 'crashed';
  if (n.paused) return 'paused';
  if (protocol === SINGLE) return n.fields.some(([name]) => name === 'chosen') ? 'knows the value' : { candidate: 'prepares', leader: 'asks to accept' }[n.role] ?? (n.fields.some(([name]) => name === 'ballot') ? 'overtaken' : 'acceptor');
  if (n.part === 'out') return 'not a member';
  if (n.part === 'leaving' || n.part === 'entering') return `${n.role}, ${n.part}`;
  if (n.role === 'leader') return 'leader';
  if (n.role === 'candidate') return n.pre ? 'asking first' : 'candidate';
  if (n.voted && n.voted !== n.id && !n.leader) return `voted for ${n.voted}`;
  return n.role;
}

/** A point on the lane from a to b, and the direction there in degrees. @param {any} a @param {any} b @param {number} r @param {number} p */
function along(a, b, r, p) {
  const dx = b.x - a.x, dy = b.y - a.y, length = Math.hypot(dx, dy) || 1, ux = dx / length, uy = dy / length;
  const start = r + 14, at = start + (length - 2 * start) * p;
  return [a.x + ux * at - uy * LANE, a.y + uy * at + ux * LANE, (Math.atan2(dy, dx) * 180) / Math.PI];
}

/** @type {Record<string,string>} */
const GLYPH = {
  entries: 'M-8-5.500H4L9 0 4 5.500H-8Z',
  beat: 'M-4-3H1L5 0 1 3H-4Z',
  ack: 'M0-3.800A3.800 3.800 0 1 1 0 3.800 3.800 3.800 0 1 1 0-3.800Z',
  ask: 'M0-8 8 0 0 8-8 0Z',
  vote: 'M0-8 8 0 0 8-8 0ZM-3.400 0-.8 2.800 3.600-2.600',
  'pre-ask': 'M0-6 6 0 0 6-6 0Z',
  'pre-vote': 'M0-6 6 0 0 6-6 0ZM-2.600 0-.6 2.200 2.800-2',
  gossip: 'M-8 0-4-6.500H4L8 0 4 6.500H-4Z',
  digest: 'M-4.500 0-2.200-3.800H2.200L4.500 0 2.200 3.800H-2.200Z',
  other: 'M-5-5H5V5H-5Z',
  dying: 'M-6-6 6 6M6-6-6 6',
};

/** The hatch of a crashed node. */
function defs() {
  const pattern = s('pattern', { id: 'hatching', width: 7, height: 7, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' }, s('line', { x1: 0, y1: 0, x2: 0, y2: 7, class: 'hatch-line' }));
  return s('defs', {}, pattern);
}
