// @ts-check
/** The bar that moves time: play, step, speed, and a track of the whole run with what is worth a jump. */

import { h, put } from './dom.js';
import { clock } from './words.js';

/** Nanoseconds of the run in one second here. */
export const SPEEDS = [5e6, 20e6, 40e6, 100e6, 200e6, 400e6, 1e9, 4e9];

/** @param {number} ns */
function amount(ns) { return ns >= 1e9 ? `${ns / 1e9} s` : `${ns / 1e6} ms`; }

const ICON = {
  play: 'M6 4.500v11l9-5.500Z', pause: 'M6 4.500h3v11H6ZM11 4.500h3v11h-3Z',
  back: 'M13.500 5 7.500 10l6 5ZM5.500 5v10', step: 'M6.500 5l6 5-6 5ZM14.500 5v10',
  before: 'M10 5 5 10l5 5M15 5l-5 5 5 5', next: 'm10 5 5 5-5 5M5 5l5 5-5 5', end: 'M5 5l7 5-7 5ZM14.500 5v10',
};

export class Transport {
  /** @param {HTMLElement} bar @param {{toggle:()=>void, step:(by:number)=>void, jump:(by:number)=>void, seek:(t:number)=>void, end:()=>void, speed:(ns:number)=>void, hold:()=>void}} does */
  constructor(bar, does) {
    const button = (/** @type {string} */ id, /** @type {string} */ title, /** @type {string} */ d, /** @type {() => void} */ onclick, kind = '') =>
      h('button', { type: 'button', id, title, 'aria-label': title, class: `key ${kind}`, onclick }, svg(d, kind));
    this.play = button('play', 'Play (space)', ICON.play, does.toggle, 'main');
    this.end = button('to-end', 'To the end (End)', ICON.end, does.end);
    const keys = h('div', { class: 'keys' },
      button('jump-back', 'Previous event worth seeing ([)', ICON.before, () => does.jump(-1)),
      button('step-back', 'One event back (comma)', ICON.back, () => does.step(-1)),
      this.play,
      button('step', 'One event on (full stop)', ICON.step, () => does.step(1)),
      button('jump', 'Next event worth seeing (])', ICON.next, () => does.jump(1)),
      this.end);
    this.now = h('output', { class: 'now', 'aria-label': 'Time in the run' });
    this.speed = h('select', { id: 'speed', 'aria-label': 'Speed', onchange: () => does.speed(Number(this.speed.value)) });
    for (const ns of SPEEDS) this.speed.append(h('option', { value: ns, text: innerWidth < 600 ? `${amount(ns)}/s` : `1 s here = ${amount(ns)} there` }));
    this.rate = h('span', { class: 'rate' }, this.speed);
    this.marks = h('div', { class: 'track-marks' });
    this.window = h('div', { class: 'track-window' });
    this.done = h('div', { class: 'track-done' });
    this.knob = h('div', { class: 'track-knob' });
    this.track = h('div', { class: 'track', role: 'slider', tabindex: 0, 'aria-label': 'Time', 'aria-valuemin': 0 }, h('div', { class: 'track-line' }), this.window, this.done, this.marks, this.knob);
    this.#drag(does);
    this.does = does;
    bar.replaceChildren(keys, this.track, this.now, this.rate);
    /** @type {any} */ this.trace = null;
  }

  /** @param {any} does */
  #drag(does) {
    const at = (/** @type {PointerEvent} */ e) => {
      const box = this.track.getBoundingClientRect(), share = Math.max(0, Math.min(1, (e.clientX - box.left - 8) / (box.width - 16)));
      does.seek(this.trace.start + share * (this.trace.until - this.trace.start));
    };
    this.track.addEventListener('pointerdown', (/** @type {PointerEvent} */ e) => {
      if (!this.trace) return;
      this.track.setPointerCapture(e.pointerId);
      does.hold();
      at(e);
    });
    this.track.addEventListener('pointermove', (/** @type {PointerEvent} */ e) => { if (this.track.hasPointerCapture(e.pointerId)) at(e); });
  }

  /** @param {any} trace */
  show(trace) {
    this.trace = trace;
    this.#drawMarks();
  }

  #drawMarks() {
    const { start, until, header } = this.trace, span = until - start || 1;
    this.drawn = `${header.marks.length}/${until}`;
    this.marks.replaceChildren(...header.marks.filter((/** @type {any} */ m) => m.t >= start).map((/** @type {any} */ m) => {
      const mark = h('span', { class: `mark ${m.kind}`, title: `${m.label} at ${clock(m.t)}` });
      mark.style.left = `${((m.t - start) / span) * 100}%`;
      return mark;
    }));
  }

  /** @param {{t:number, playing:boolean, from:number, to:number, speed:number, present:boolean}} now */
  draw({ t, playing, from, to, speed, present }) {
    if (!this.trace) return;
    const { start, until, header, live } = this.trace, span = until - start || 1;
    if (live && this.drawn !== `${header.marks.length}/${until}`) this.#drawMarks();
    const share = (/** @type {number} */ x) => `${(Math.max(0, Math.min(1, (x - start) / span)) * 100).toFixed(3)}%`;
    this.knob.style.left = share(t);
    this.done.style.width = share(t);
    this.window.style.left = share(from);
    this.window.style.right = `calc(100% - ${share(to)})`;
    put(this.track, { 'aria-valuemax': Math.round(until / 1e6), 'aria-valuenow': Math.round(t / 1e6), 'aria-valuetext': clock(t) });
    put(this.now, { text: live && present ? `now, ${clock(t, 1)}` : clock(t) });
    put(this.play, { title: playing ? 'Pause (space)' : 'Play (space)', 'aria-label': playing ? 'Pause (space)' : 'Play (space)' });
    put(this.play.firstChild.firstChild, { d: playing ? ICON.pause : ICON.play });
    put(this.end, { title: live ? 'Follow the present (End)' : 'To the end (End)' });
    if (Number(this.speed.value) !== speed) this.speed.value = String(speed);
    this.rate.hidden = live && present;
  }
}

/** @param {string} d @param {string} kind */
function svg(d, kind) {
  const el = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  el.setAttribute('viewBox', '0 0 20 20');
  el.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', d);
  if (kind === 'main') path.setAttribute('class', 'full');
  el.append(path);
  return el;
}
