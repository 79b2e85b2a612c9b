// @ts-check
/** One node, in the field's own words: what it is, what it waits for, its log and its fields. */

import { h, put } from './dom.js';
import { duration, epochNumber, epochWord, waits } from './words.js';

export class Inspector {
  /** @param {HTMLElement} panel @param {{select:(id:string)=>void, menu:(id:string, at:DOMRect)=>void}} does */
  constructor(panel, does) {
    this.does = does;
    this.picker = h('div', { class: 'picker', role: 'group', 'aria-label': 'Which node' });
    this.title = h('h2');
    this.more = h('button', { type: 'button', class: 'soft', text: 'Do something to it', 'aria-haspopup': 'menu', onclick: () => does.menu(this.id, this.more.getBoundingClientRect()) });
    this.waits = h('p', { class: 'waits' });
    this.extra = h('div', { class: 'extra' });
    this.timer = h('div', { class: 'meter', role: 'img' }, h('div'));
    this.timerText = h('p', { class: 'meter-text' });
    this.log = h('tbody');
    this.fields = h('dl', { class: 'fields' });
    panel.append(this.picker, h('div', { class: 'node-head' }, this.title, this.more), this.waits, this.extra, this.timer, this.timerText,
      h('h3', { text: 'Log' }),
      h('table', { class: 'log-table' }, h('thead', {}, h('tr', {}, ...['#', 'epoch', 'entry', 'held'].map((text) => h('th', { scope: 'col', text })))), this.log),
      h('h3', { text: 'State' }), this.fields);
    this.id = '';
    this.shown = '';
  }

  /** @param {import('./view.js').View} v @param {string} id @param {string} protocol @param {Node|null} [extra] */
  draw(v, id, protocol, extra = null) {
    this.id = id;
    const n = v.byId.get(id);
    if (!n) return;
    const ids = v.nodes.map((x) => x.id).join();
    if (this.ids !== ids) {
      this.ids = ids;
      this.picker.replaceChildren(...v.nodes.map((x) => h('button', { type: 'button', text: x.id, 'data-pick': x.id, onclick: () => this.does.select(x.id) })));
    }
    for (const button of this.picker.children) put(button, { 'aria-pressed': String(button.dataset.pick === id) });
    const word = epochWord(protocol);
    put(this.title, { text: `${id}, ${!n.up ? 'crashed' : n.paused ? `paused ${n.role}` : n.role} in ${word} ${epochNumber(n.epoch)}` });
    put(this.waits, { text: waits(v, id, protocol) });
    if (extra !== this.lastExtra) { this.lastExtra = extra; this.extra.replaceChildren(...(extra ? [extra] : [])); }
    this.#timer(n, v.t);
    // The log and the fields change far less often than the time.
    const looks = JSON.stringify([id, n.base, n.log, n.committed, n.durable, n.fields, n.last]);
    if (looks === this.shown) return;
    this.shown = looks;
    this.#log(n);
    this.fields.replaceChildren(...n.fields.flatMap(([name, value]) => [h('dt', { text: name }), h('dd', { text: value })]));
  }

  /** @param {import('./view.js').NodeView} n @param {number} t */
  #timer(n, t) {
    const runs = n.up && n.deadline !== null && !n.paused, from = n.deadlineFrom ?? (n.deadline ?? 0) - 1e9;
    const left = runs ? Math.max(0, Number(n.deadline) - t) : 0;
    this.timer.hidden = this.timerText.hidden = !runs;
    if (!runs) return;
    this.timer.firstChild.style.width = `${Math.min(100, (left / Math.max(1, Number(n.deadline) - from)) * 100)}%`;
    put(this.timerText, { text: `${n.role === 'leader' ? 'next heartbeat' : 'its timer runs out'} in ${duration(left)}` });
  }

  /** @param {import('./view.js').NodeView} n */
  #log(n) {
    const rows = n.log.slice().reverse().map(([index, epoch, label]) => {
      const committed = index <= n.committed, durable = index <= n.durable;
      const held = committed ? 'committed' : durable ? 'on disk' : 'in memory';
      return h('tr', { class: committed ? 'committed' : durable ? 'durable' : '' },
        h('td', { text: index }), h('td', { text: epochNumber(epoch) }), h('td', { class: 'entry-text', text: label, title: label }), h('td', {}, h('span', { class: 'held', text: held })));
    });
    const before = n.last - n.log.length, cut = n.base ? `; its snapshot covers entries 1 to ${n.base}, which the log need not hold` : '';
    if (before > 0) rows.push(h('tr', {}, h('td', { colspan: 4, class: 'quiet-text', text: `and ${before} before${cut}` })));
    if (!rows.length) rows.push(h('tr', {}, h('td', { colspan: 4, class: 'quiet-text', text: 'nothing yet' })));
    this.log.replaceChildren(...rows);
  }
}
