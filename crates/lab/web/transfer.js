// @ts-check
/**
 * $100 from bank 1 to bank 2, by every protocol under the same blows: the ladder. The address holds the blows.
 * @typedef {{at:number, blow:'crash'|'start'|'cut'|'heal', whom:'c'|'b1'|'b2'}} Blow
 */

import { Ladder } from './ladder.js';
import { h } from './dom.js';
import { showMenu } from './menu.js';

/** @typedef {import('./ladder.js').Shown} Shown */

const MS = 1e6;
/** How long is watched. */
const UNTIL = 10e9;
/** How long the whole film takes to play. */
const PLAY_MS = 9000;

const WHO = { c: 'whoever coordinates', b1: 'bank 1', b2: 'bank 2' };
const BLOWS = { crash: 'crashes', start: 'comes back', cut: 'is cut off', heal: 'the network is whole again' };

/** What there is to see first. @type {{id:string, title:string, about:string, refused:boolean, blows:Blow[]}[]} */
const SCENES = [
  { id: 'calm', title: 'Nothing goes wrong', about: 'All of them move the money. What differs is what they send, how long the client waits, and what a reader sees meanwhile.', refused: false, blows: [] },
  { id: 'no', title: 'Bank 2 says no', about: 'There is no such account at bank 2. With a protocol nothing has happened; without one the money has left and not arrived.', refused: true, blows: [] },
  { id: 'death', title: 'The coordinator dies after the votes', about: 'Both banks have promised. In two-phase commit they may not decide alone, so they wait with their locks held until the coordinator is back; the others find a way.', refused: false, blows: [{ at: 70 * MS, blow: 'crash', whom: 'c' }, { at: 4500 * MS, blow: 'start', whom: 'c' }] },
  { id: 'partition', title: 'Bank 2 is cut off', about: 'It hears nobody while the others go on. Two-phase commit waits for the network. Three-phase commit takes silence for death: one side commits, the other aborts.', refused: false, blows: [{ at: 110 * MS, blow: 'cut', whom: 'b2' }, { at: 4500 * MS, blow: 'heal', whom: 'b2' }] },
  { id: 'bank', title: 'Bank 2 crashes and comes back', about: 'What it had promised it remembers, since the promise was on its disk before anybody heard it.', refused: false, blows: [{ at: 90 * MS, blow: 'crash', whom: 'b2' }, { at: 1500 * MS, blow: 'start', whom: 'b2' }] },
];

const NAMES = /** @type {Record<string, [string, string]>} */ ({
  none: ['No protocol', 'take it here, then put it there, and hope'],
  avoid: ['Avoid', 'both accounts in one partition: one log entry'],
  '2pc': ['Two-phase commit', 'everybody promises, one decides'],
  '3pc': ['Three-phase commit', 'one phase more, so that the living can decide'],
  '2pc-replicated': ['Replicated coordinator', 'two-phase commit on a log of three'],
  saga: ['Saga', 'step by step, each with what takes it back'],
});
/** The rungs in the chapter's order. */
const ORDER = ['none', '2pc', '3pc', '2pc-replicated', 'saga', 'avoid'];

export class Transfer {
  /** @param {HTMLElement} box @param {{complain:(why:string) => void, say:(text:string) => void}} does */
  constructor(box, does) {
    this.box = box;
    this.does = does;
    this.asked = 0;
    /** @type {Blow[]} */ this.blows = [];
    this.refused = false;
    this.t = UNTIL;
    this.playing = 0;
  }

  /** @param {string} fragment such as `#transfer&x=70:crash:c,4500:start:c` */
  async open(fragment) {
    const told = new Map(fragment.split('&').slice(1).map((part) => { const at = part.indexOf('='); return at < 0 ? [part, ''] : [part.slice(0, at), part.slice(at + 1)]; }));
    const scene = SCENES.find((one) => one.id === told.get('e')) ?? (told.has('x') || told.has('no') ? null : SCENES[2]);
    this.blows = scene ? structuredClone(scene.blows) : blowsOf(told.get('x') ?? '');
    this.refused = scene ? scene.refused : told.has('no');
    this.scene = scene;
    await this.load(told.has('e') || !scene ? UNTIL : 0);
    if (!fragment.includes('&')) this.play();
  }

  /** @param {number} t where the cursor stands then */
  async load(t) {
    const asked = ++this.asked;
    try {
      const response = await fetch('/api/transfer', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ strikes: this.blows, refused: this.refused, until: UNTIL }) });
      const answer = await response.json();
      if (asked !== this.asked) return;
      if (!response.ok) { this.does.complain(answer.error); return; }
      this.answer = answer;
      this.t = t;
      this.draw();
    } catch { this.does.complain('The laboratory does not answer. Is it still running?'); }
  }

  /** Another script of blows: a new entry in the history, so that Back undoes it. @param {Blow[]} blows */
  change(blows) {
    this.blows = blows.sort((a, b) => a.at - b.at);
    this.scene = null;
    this.keep();
    this.load(UNTIL);
  }

  keep() {
    const parts = [...(this.refused ? ['no'] : []), `x=${this.blows.map((one) => `${Math.round(one.at / MS)}:${one.blow}:${one.whom}`).join(',')}`];
    history.pushState(null, '', `#transfer&${parts.join('&')}`);
  }

  play() {
    cancelAnimationFrame(this.playing);
    const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
    if (calm) { this.seek(UNTIL); return; }
    const begun = performance.now(), ladder = this.ladders?.[0];
    if (!ladder) return;
    const frame = (/** @type {number} */ now) => {
      const part = Math.min(1, (now - begun) / PLAY_MS);
      this.seek(ladder.scale.t(ladder.scale.from + part * (ladder.scale.to - ladder.scale.from)));
      if (part < 1 && !this.box.hidden) this.playing = requestAnimationFrame(frame);
    };
    this.playing = requestAnimationFrame(frame);
  }

  /** @param {number} t */
  seek(t) {
    this.t = t;
    for (const ladder of this.ladders ?? []) ladder.moveTo(t);
    if (this.slider) this.slider.value = String(this.ladders?.[0].scale.x(t) ?? 0);
    if (this.clock) this.clock.textContent = `${(t / 1e9).toFixed(2)} s`;
  }

  draw() {
    cancelAnimationFrame(this.playing);
    const films = new Map(this.answer.films.map((/** @type {any} */ one) => [one.film.protocol, one]));
    const shown = ORDER.map((id) => /** @type {{film:Shown, cost:any}} */ (films.get(id)));
    const width = Math.max(640, this.box.clientWidth - 56);
    this.ladders = shown.map(({ film }) => new Ladder(film, { width, until: UNTIL, asked: this.answer.asked_at, strike: (whom, t, at) => this.menu(whom, t, at) }));
    const { scale } = this.ladders[0];
    this.slider = h('input', { type: 'range', min: scale.from, max: scale.to, step: 1, 'aria-label': 'Moment', oninput: (/** @type {any} */ e) => { cancelAnimationFrame(this.playing); this.seek(scale.t(Number(e.target.value))); } });
    this.clock = h('span', { class: 'now' });
    this.box.replaceChildren(...[
      h('header', { class: 'page-head' }, h('p', { class: 'eyebrow', text: 'All or nothing' }), h('h1', { text: '$100 goes from bank 1 to bank 2' }),
        h('p', { text: this.scene?.about ?? 'The banks are independent systems: no clock, disk or owner in common. Each lane is the same transfer under the same blows; a click on a machine’s line strikes it there.' })),
      h('div', { class: 'verb-list', role: 'group', 'aria-label': 'Scenes' }, ...SCENES.map((one) => h('a', { class: 'verb link', href: `#transfer&e=${one.id}`, 'data-scene': one.id, ...(one === this.scene ? { 'aria-current': 'true' } : {}), text: one.title }))),
      h('div', { class: 'blows' }, h('button', { type: 'button', class: 'verb', 'data-verb': 'play', onclick: () => this.play() }, 'Play'), this.slider, this.clock,
        h('label', { class: 'check' }, h('input', { type: 'checkbox', checked: this.refused, 'data-verb': 'refuse', onchange: (/** @type {any} */ e) => { this.refused = e.target.checked; this.change(this.blows); } }), ' bank 2 votes no')),
      h('ul', { class: 'blow-list' }, ...this.blows.map((one, i) => h('li', {}, h('span', { text: `${(one.at / 1e9).toFixed(2)} s: ${one.blow === 'heal' ? BLOWS.heal : `${WHO[one.whom]} ${BLOWS[one.blow]}`}` }),
        h('button', { type: 'button', class: 'remove', 'aria-label': 'Take it back', text: '×', onclick: () => this.change(this.blows.filter((_, j) => j !== i)) }))),
      this.blows.length === 0 && h('li', { class: 'quiet-text', text: 'Nobody is struck. Click a machine’s line to change that.' })),
      ...this.ladders.map((ladder, i) => h('section', { class: `rung ${shown[i].film.violations.length ? 'bad' : ''}`, 'data-rung': shown[i].film.protocol, 'data-end': ladder.outcome.kind },
        h('div', { class: 'rung-head' }, h('h2', { text: NAMES[shown[i].film.protocol][0] }), h('p', { class: 'quiet-text', text: NAMES[shown[i].film.protocol][1] }), h('p', { class: `rung-says ${ladder.outcome.kind}`, text: ladder.outcome.says })), ladder.box)),
      h('section', { class: 'tables' }, h('h2', { text: 'What each costs, and what it held up here' }), h('div', { class: 'wide' }, this.table(shown))),
    ].filter(Boolean));
    this.box.dataset.ready = String(this.asked);
    this.seek(this.t);
  }

  /** @param {'c'|'b1'|'b2'} whom @param {number} t @param {DOMRect} at */
  menu(whom, t, at) {
    const strike = (/** @type {Blow['blow']} */ blow) => () => this.change([...this.blows, { at: Math.round(t / MS) * MS, blow, whom }]);
    showMenu(`${WHO[whom]} at ${(t / 1e9).toFixed(2)} s`, at, [
      { label: 'Crash it here', does: strike('crash'), note: 'it loses what was not synced' }, { label: 'Let it come back here', does: strike('start') },
      { label: 'Cut it off here', does: strike('cut'), note: 'it lives, hears nobody, and nobody hears it' }, { label: 'Make the network whole here', does: strike('heal') },
    ]);
  }

  /** @param {{film:Shown, cost:any}[]} shown */
  table(shown) {
    const head = ['', 'messages', 'delays', 'syncs', 'client knows', 'locks held', 'money missing', 'in the end'];
    const ms = (/** @type {number} */ ns) => (ns === 0 ? '0' : ns >= 1e9 ? `${(ns / 1e9).toFixed(2)} s` : `${Math.round(ns / 1e6)} ms`);
    return h('table', { class: 'costs-table' }, h('caption', { class: 'quiet-text', text: 'The first three without faults, until the client knows; messages in all, from and to banks. The rest is measured in the run above.' }),
      h('thead', {}, h('tr', {}, ...head.map((text) => h('th', { scope: 'col', text })))),
      h('tbody', {}, ...shown.map(({ film, cost }, i) => {
        const { locked, missing, says } = /** @type {Ladder[]} */ (this.ladders)[i].outcome;
        return h('tr', {}, h('th', { scope: 'row', text: NAMES[film.protocol][0] }), ...[cost.messages, cost.delays, cost.syncs, film.told ? `${ms(film.told[0] - this.answer.asked_at)}: ${film.told[1]}` : 'never', ms(locked), missing === Infinity ? 'for good' : ms(missing), says].map((text) => h('td', { text: String(text) })));
      })));
  }
}

/** @param {string} text @returns {Blow[]} */
function blowsOf(text) {
  return text.split(',').flatMap((part) => {
    const [at, blow, whom] = part.split(':');
    return /^\d+$/.test(at) && blow in BLOWS && whom in WHO ? [/** @type {Blow} */ ({ at: Number(at) * MS, blow, whom })] : [];
  });
}
