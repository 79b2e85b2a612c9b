// @ts-check
/** One level under the cut: what the requests of either side met, slice by slice, and for how long what was read had been replaced. */

import { h, s } from './dom.js';
import { laneSays, time } from './capwords.js';

/** @typedef {import('./capwords.js').Film} Film */
/** @typedef {import('./capwords.js').Tally} Tally */

const ROW = 50, GAP = 7, AGE = 34, TOP = 16, AXIS = 18;
/** What is shown after the cut, at the least, in milliseconds. */
const TAIL_MS = 350;

export class CapLane {
  /** @param {Film} film @param {Film[]} all for one scale @param {import('./capwords.js').Names} names @param {number} width @param {(t:number) => void} seek */
  constructor(film, all, names, width, seek) {
    this.film = film;
    this.names = names;
    const narrow = width < 560, left = narrow ? 34 : 86, right = 6;
    const tail = Math.max(TAIL_MS, ...all.map(({ cap }) => cap.convergence_ms ?? 0));
    const per = (width - left - right) / (film.end_ms + tail);
    this.x = (/** @type {number} */ t) => left + t * per;
    this.height = TOP + 2 * ROW + AGE + 3 * GAP + AXIS;
    const most = (/** @type {'alone'|'others'} */ side) => Math.max(1, ...all.flatMap((one) => one.slices.map((slice) => slice[side].puts + slice[side].gets)));
    const oldest = Math.max(100, ...all.flatMap((one) => one.slices.flatMap((slice) => [slice.alone.behind_ms, slice.others.behind_ms])));
    const rows = { alone: TOP + ROW, others: TOP + 2 * ROW + GAP }, age = TOP + 2 * ROW + AGE + 2 * GAP;
    this.later = s('rect', { class: 'rung-later', y: 0, height: this.height - AXIS });
    this.cursor = s('path', { class: 'rung-cursor' });
    const band = this.x(film.split_ms);
    const svg = s('svg', { viewBox: `0 0 ${width} ${this.height}`, width, height: this.height, class: 'cap-svg', role: 'img' },
      this.defs(),
      s('rect', { class: 'cap-cut', x: band, y: 0, width: this.x(film.end_ms) - band, height: this.height - AXIS }),
      s('text', { class: 'cap-cut-name', x: band + 5, y: 11 }, narrow ? 'cut off' : `${names.alone} is cut off`),
      ...this.name(rows.alone - ROW / 2, narrow ? names.alone : `at ${names.alone}`), ...this.name(rows.others - ROW / 2, narrow ? 'rest' : names.others.length > 2 ? 'at the others' : `at ${names.others.join(', ')}`), ...this.name(age - AGE / 2, narrow ? 'age' : 'oldest read'),
      ...this.bars('alone', rows.alone, most('alone')), ...this.bars('others', rows.others, most('others')),
      ...[rows.alone, rows.others, age].map((y) => s('path', { class: 'cap-base', d: `M${left} ${y + 0.5}H${width - right}` })),
      ...this.ages(age, oldest),
      ...this.same(band, rows, age),
      ...this.ticks(narrow),
      this.later, this.cursor,
      // Around the whole of it, so that a drag may begin anywhere.
      s('rect', { class: 'cap-hit', x: left, y: 0, width: width - left - right, height: this.height }));
    this.svg = svg;
    svg.addEventListener('pointerdown', (/** @type {PointerEvent} */ e) => { svg.setPointerCapture(e.pointerId); seek(this.at(e)); });
    svg.addEventListener('pointermove', (/** @type {PointerEvent} */ e) => { if (svg.hasPointerCapture(e.pointerId)) seek(this.at(e)); });
    this.says = h('p', { class: 'cap-says' });
    this.reading = h('p', { class: 'quiet-text cap-reading' });
    this.box = h('section', { class: 'cap-lane', 'data-level': film.cap.level },
      h('div', { class: 'cap-head' }, h('h2', { text: film.cap.level }), this.says), svg, this.reading,
      ...film.cap.violations.map((text) => h('p', { class: 'warning', text })));
  }

  /** @param {PointerEvent} e */
  at(e) {
    const box = this.svg.getBoundingClientRect(), x = ((e.clientX - box.left) / box.width) * this.svg.viewBox.baseVal.width;
    return (x - this.x(0)) / (this.x(1) - this.x(0));
  }

  /** Signs for those who cannot tell the colours apart: dots on what is of the past, a hatch on what is refused. */
  defs() {
    const id = this.film.cap.level;
    return s('defs', {},
      s('pattern', { id: `cap-dots-${id}`, width: 5, height: 5, patternUnits: 'userSpaceOnUse' }, s('circle', { cx: 2.5, cy: 2.5, r: 1.1, class: 'cap-dot' })),
      s('pattern', { id: `cap-hatch-${id}`, width: 5, height: 5, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' }, s('path', { d: 'M0 0V5', class: 'cap-stripe' })));
  }

  /** @param {number} y @param {string} text */
  name(y, text) { return [s('text', { class: 'cap-name', x: 0, y }, text)]; }

  /** @param {'alone'|'others'} side @param {number} base @param {number} most */
  bars(side, base, most) {
    const { slices, slice_ms: wide, end_ms: end } = this.film, id = this.film.cap.level;
    return slices.flatMap((slice, i) => {
      const parts = partsOf(slice[side]), x = this.x(i * wide), width = Math.max(0.5, this.x(Math.min(end, (i + 1) * wide)) - x - (this.x(wide) - this.x(0) > 5 ? 1 : 0));
      let y = base;
      return /** @type {const} */ (['fresh', 'stale', 'refused']).flatMap((kind) => {
        const height = (parts[kind] / most) * (ROW - 4);
        if (height === 0) return [];
        y -= height;
        const rect = { x, y, width, height };
        const fill = kind === 'stale' ? `url(#cap-dots-${id})` : kind === 'refused' ? `url(#cap-hatch-${id})` : '';
        return [s('rect', { ...rect, class: `cap-${kind}` }), ...(fill ? [s('rect', { ...rect, fill })] : [])];
      });
    });
  }

  /** Of each slice the read whose value had been replaced for longest. @param {number} base @param {number} oldest */
  ages(base, oldest) {
    const { slices, slice_ms: wide } = this.film;
    const line = (/** @type {'alone'|'others'} */ side) => slices.map((slice, i) => `${i ? 'L' : 'M'}${this.x((i + 0.5) * wide).toFixed(1)} ${(base - (slice[side].behind_ms / oldest) * AGE).toFixed(1)}`).join('');
    const peak = Math.max(...slices.map((slice) => slice.alone.behind_ms)), at = slices.findLastIndex((slice) => slice.alone.behind_ms === peak);
    const label = peak > oldest / 8 ? [s('text', { class: 'cap-peak', x: this.x((at + 0.5) * wide) - 6, y: base - (peak / oldest) * AGE - 3 }, time(peak))] : [];
    return [s('path', { class: 'cap-behind others', d: line('others') }), s('path', { class: 'cap-behind', d: line('alone') }), ...label];
  }

  /** From the end of the cut until all members show the same. @param {number} band @param {{alone:number, others:number}} rows @param {number} age */
  same(band, rows, age) {
    const { cap, end_ms: end } = this.film;
    if (cap.convergence_ms === null) return [];
    const x = this.x(end), to = this.x(end + cap.convergence_ms);
    return [s('rect', { class: 'cap-same', x, y: 0, width: Math.max(2, to - x), height: age }), s('text', { class: 'cap-same-name', x: x - 5, y: 11 }, `the same after ${time(cap.convergence_ms)}`)].slice(0, this.x(end) - band > 260 ? 2 : 1);
  }

  /** @param {boolean} narrow */
  ticks(narrow) {
    const { split_ms: split, end_ms: end } = this.film, step = (end > 12_000 || narrow ? 2 : 1) * 1000, ticks = [];
    for (let t = split % step; t <= end; t += step) ticks.push(t);
    return ticks.flatMap((t) => [s('path', { class: 'cap-tick', d: `M${this.x(t)} ${this.height - AXIS}v4` }), s('text', { class: 'cap-tick-name', x: this.x(t), y: this.height - 4 }, `${(t - split) / 1000} s`)]);
  }

  /** @param {number} t */
  moveTo(t) {
    const { film, names } = this, x = this.x(t), over = t >= film.end_ms, width = this.svg.viewBox.baseVal.width;
    this.cursor.setAttribute('d', over ? '' : `M${x} 0V${this.height - AXIS}`);
    this.later.setAttribute('x', String(x));
    this.later.setAttribute('width', String(over ? 0 : Math.max(0, width - x)));
    const { alone, others, after } = laneSays(film, t, names), all = [alone, others, after].filter(Boolean).join(' ');
    if (this.says.textContent !== all) { this.says.textContent = all; this.svg.setAttribute('aria-label', `${film.cap.level}: ${all}`); }
    const slice = film.slices[Math.min(film.slices.length - 1, Math.floor(t / film.slice_ms))];
    const one = (/** @type {string} */ who, /** @type {Tally} */ tally) => {
      const { fresh, stale, refused } = partsOf(tally);
      return `${who}: ${[[fresh, 'answered with the latest'], [stale, `with the past${tally.behind_ms ? `, replaced up to ${time(tally.behind_ms)} before` : ''}`], [refused, 'refused']].filter(([count]) => count).map(([count, text]) => `${count} ${text}`).join(', ') || 'nobody asked'}`;
    };
    this.reading.textContent = over ? '' : `In these ${Math.round(film.slice_ms)} ms, ${one(names.alone, slice.alone)}; ${one('the others', slice.others)}.`;
  }
}

/** Every request of a tally is one of three. @param {Tally} tally */
function partsOf(tally) {
  const refused = tally.puts_refused + tally.gets_refused;
  return { fresh: tally.puts + tally.gets - refused - tally.gets_stale, stale: tally.gets_stale, refused };
}
