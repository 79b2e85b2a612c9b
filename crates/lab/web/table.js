// @ts-check
/** The event table: the accessible twin of both pictures. It shows the events around the cursor. */

import { h, put } from './dom.js';
import { clock, eventWords } from './words.js';

const ROWS_BEFORE = 60;
const ROWS_AFTER = 60;
/** How often the table follows a moving cursor, in milliseconds. */
const REFRESH_MS = 250;

const KINDS = [
  ['roles', 'roles and timers', /^(state|timeout)$/], ['messages', 'messages', /^(send|recv|drop|link)$/], ['disk', 'disk', /^(disk|record)$/],
  ['log', 'commits', /^commit$/], ['clients', 'clients', /^op$/], ['faults', 'faults and findings', /^(fault|note|violation|process|gap|hole)$/],
];

export class EventTable {
  /** @param {HTMLElement} panel @param {{seek:(t:number)=>void}} does */
  constructor(panel, does) {
    this.does = does;
    this.off = new Set(['disk']);
    this.filters = h('div', { class: 'filters', role: 'group', 'aria-label': 'Show' });
    for (const [key, label] of KINDS) {
      const button = h('button', { type: 'button', class: 'chip', text: label, 'aria-pressed': String(!this.off.has(/** @type {string} */ (key))), onclick: () => {
        if (!this.off.delete(key)) this.off.add(key);
        button.setAttribute('aria-pressed', String(!this.off.has(key)));
        this.refresh();
      } });
      this.filters.append(button);
    }
    this.words = h('input', { type: 'search', placeholder: 'Filter: a node, a message, a word', 'aria-label': 'Filter events', oninput: () => this.refresh() });
    this.body = h('tbody');
    this.note = h('p', { class: 'quiet-text' });
    panel.append(this.filters, this.words, this.note, h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Events around the cursor' },
      h('table', { class: 'event-table' }, h('thead', {}, h('tr', {}, ...['time', 'who', 'what'].map((text) => h('th', { scope: 'col', text })))), this.body)));
    this.panel = panel;
    this.last = 0;
    /** @type {any} */ this.trace = null;
    this.t = 0;
  }

  refresh() { this.last = 0; this.key = ''; if (this.trace) this.draw(this.trace, this.t); }

  /** @param {any} trace @param {number} t */
  draw(trace, t) {
    const now = performance.now();
    this.trace = trace; this.t = t;
    if (this.panel.hidden || now - this.last < REFRESH_MS) return;
    this.last = now;
    const { rows, at } = this.#collect(trace, t);
    const key = `${trace.header.hash}/${rows[0]?.i}/${rows.length}/${at}/${this.words.value}/${[...this.off]}`;
    if (key === this.key) return;
    this.key = key;
    /** @type {any} */ let current = null;
    this.body.replaceChildren(...rows.map((e, i) => {
      const { who, what, detail } = eventWords(e);
      const row = h('tr', { class: `${e.k}${i === at ? ' current' : ''}${e.t > t ? ' later' : ''}`, 'aria-current': i === at ? 'time' : null },
        h('td', {}, h('button', { type: 'button', class: 'at', text: clock(e.t, 4), title: 'Go there', onclick: () => this.does.seek(e.t) })),
        h('td', { text: who }), h('td', {}, h('span', { text: what }), detail && h('small', { text: detail })));
      if (i === at) current = row;
      return row;
    }));
    put(this.note, { text: rows.length ? '' : 'No event matches near this moment.' });
    const scroll = this.body.closest('.scroll');
    if (current && !scroll.matches(':focus-within')) scroll.scrollTop = current.offsetTop - scroll.clientHeight * 0.45;
  }

  /** @param {any} trace @param {number} t */
  #collect(trace, t) {
    const hidden = KINDS.filter(([key]) => this.off.has(/** @type {string} */ (key))).map(([, , test]) => /** @type {RegExp} */ (test));
    const words = this.words.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = (/** @type {any} */ e) => {
      if (hidden.some((test) => test.test(e.k))) return false;
      if (!words.length) return true;
      const { who, what, detail } = eventWords(e), text = `${who} ${what} ${detail}`.toLowerCase();
      return words.every((/** @type {string} */ word) => text.includes(word));
    };
    const chunk = trace.chunkAt(t), events = chunk?.events ?? [], rows = [];
    const middle = chunk ? chunk.after(t) : 0;
    for (let i = middle - 1; i >= 0 && rows.length < ROWS_BEFORE; i--) if (wanted(events[i])) rows.unshift(events[i]);
    const at = rows.length - 1;
    for (let i = middle; i < events.length && rows.length < at + ROWS_AFTER; i++) if (wanted(events[i])) rows.push(events[i]);
    return { rows, at };
  }
}
