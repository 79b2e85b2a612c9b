// @ts-check
/** CAP, measured: one cut under each level of consistency, with one cursor over all of them. The address holds the knobs. */

import { CapLane } from './caplane.js';
import { calm, h, s } from './dom.js';
import { capMeasures, capSays, share, sumOf, time } from './capwords.js';

/** @typedef {import('./capwords.js').Film} Film */
/** @typedef {{films:Film[], alone:string, others:string[], sync_ms:number, command:string}} Answer */

/** How long the whole film takes to play, in milliseconds. */
const PLAY_MS = 8000;
/** What there is to turn: its name in the address, its words, what it may be, and what it is at first. */
const KNOBS = /** @type {const} */ ([
  ['m', 'Members', [['3', '3'], ['5', '5'], ['7', '7']], '3'],
  ['cut', 'n1 is cut off for', [['1', '1 s'], ['2', '2 s'], ['5', '5 s'], ['10', '10 s']], '5'],
  ['d', 'A message takes', [['1', '1 ms'], ['2', '2 ms'], ['5', '5 ms'], ['10', '10 ms'], ['20', '20 ms']], '10'],
]);
const SEED_MAX = 999_999;
/** What somebody may expect of a client who can reach n1 only: at which levels it still writes. */
const GUESSES = /** @type {[string, string[]][]} */ ([
  ['at none', []], ['eventual only', ['eventual']], ['causal and eventual', ['causal', 'eventual']], ['all but linearizable', ['sequential', 'causal', 'eventual']],
]);

export class Cap {
  /** @param {HTMLElement} box @param {{complain:(why:string) => void, say:(text:string) => void}} does */
  constructor(box, does) {
    this.box = box;
    this.does = does;
    this.asked = 0;
    this.playing = 0;
    this.t = 0;
    /** @type {Record<string, string>} */ this.knobs = {};
    /** @type {string|null} */ this.guess = null;
    /** @type {CapLane[]} */ this.lanes = [];
    let width = 0;
    new ResizeObserver(() => {
      if (!this.answer || box.hidden || box.clientWidth === width) return;
      width = box.clientWidth;
      this.draw();
    }).observe(box);
  }

  /** @param {string} fragment such as `#cap&m=5&cut=10&d=20&seed=7` */
  async open(fragment) {
    const told = new URLSearchParams(fragment.split('&').slice(1).join('&'));
    for (const [id, , values, usual] of KNOBS) {
      const value = told.get(id) ?? '';
      this.knobs[id] = values.some(([known]) => known === value) ? value : usual;
    }
    const seed = told.get('seed') ?? '';
    this.knobs.seed = /^\d{1,6}$/.test(seed) ? seed : '1';
    this.guess = null;
    if (await this.load() && !fragment.includes('&')) this.play();
  }

  async load() {
    const asked = ++this.asked, { m, cut, d, seed } = this.knobs;
    cancelAnimationFrame(this.playing);
    this.box.setAttribute('aria-busy', 'true');
    try {
      const body = JSON.stringify({ members: Number(m), cut_ms: 1000 * Number(cut), delay_ms: Number(d), seed: Number(seed) });
      const response = await fetch('/api/cap', { method: 'POST', headers: { 'content-type': 'application/json' }, body });
      const answer = await response.json();
      if (asked !== this.asked) return false;
      if (!response.ok) { this.does.complain(answer.error); return false; }
      this.answer = /** @type {Answer} */ (answer);
      this.t = this.end;
      this.draw();
      return true;
    } catch {
      this.does.complain('The laboratory does not answer. Is it still running?');
      return false;
    } finally { if (asked === this.asked) this.box.removeAttribute('aria-busy'); }
  }

  /** The end of the load, and of the cut, in milliseconds. */
  get end() { return this.answer?.films[0].end_ms ?? 0; }
  get split() { return this.answer?.films[0].split_ms ?? 0; }

  /** Another measurement: a new entry in the history, so that Back undoes it. @param {Record<string, string>} knobs */
  change(knobs) {
    this.knobs = { ...this.knobs, ...knobs };
    history.pushState(null, '', `#cap&${Object.entries(this.knobs).map(([id, value]) => `${id}=${value}`).join('&')}`);
    this.load();
  }

  play() {
    cancelAnimationFrame(this.playing);
    if (calm()) { this.seek(this.end); return; }
    const begun = performance.now();
    // All is well for a while: what is to be seen begins shortly before the cut.
    const from = Math.max(0, this.split - 1500);
    const frame = (/** @type {number} */ now) => {
      const part = Math.min(1, Math.max(0, now - begun) / PLAY_MS);
      this.seek(from + part * (this.end - from));
      if (part < 1 && !this.box.hidden) this.playing = requestAnimationFrame(frame);
      else if (part === 1 && this.answer) this.does.say(capSays(this.answer.films));
    };
    this.playing = requestAnimationFrame(frame);
  }

  /** @param {number} t milliseconds after the load begins */
  seek(t) {
    this.t = Math.max(0, Math.min(this.end, t));
    for (const lane of this.lanes) lane.moveTo(this.t);
    this.slider.value = String(this.t);
    const after = this.t - this.split;
    this.clock.textContent = after < 0 ? `${time(-after)} before` : `${time(after)} cut off`;
    this.slider.setAttribute('aria-valuetext', after < 0 ? `${time(-after)} before the cut` : `${time(after)} into the cut`);
    this.box.dataset.t = String(Math.round(this.t));
    this.drawGuess();
  }

  draw() {
    const answer = /** @type {Answer} */ (this.answer), { films } = answer;
    const names = { alone: answer.alone, others: answer.others };
    const style = getComputedStyle(this.box), width = this.box.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const seek = (/** @type {number} */ t) => { cancelAnimationFrame(this.playing); this.seek(t); };
    this.lanes = films.map((film) => new CapLane(film, films, names, width, seek));
    this.slider = h('input', { type: 'range', min: 0, max: this.end, step: films[0].slice_ms, 'aria-label': 'Moment, in all four lanes', oninput: (/** @type {any} */ e) => seek(Number(e.target.value)) });
    this.clock = h('span', { class: 'now cap-clock' });
    this.question = h('div', { class: 'cap-question' });
    this.box.replaceChildren(
      h('header', { class: 'page-head' }, h('p', { class: 'eyebrow', text: 'CAP, measured' }), h('h1', { text: 'Cut one member off. What do its clients get?' }),
        h('p', { text: `${answer.others.length + 1} members, and two clients at each that put and get all the time. Then ${answer.alone} is cut off from ${list(answer.others)}. A store can go on answering there, or never answer with the past; while the cut lasts, not both. Each lane is the same cut under the same load, at another level.` })),
      this.question,
      h('div', { class: 'blows' }, h('button', { type: 'button', class: 'verb', 'data-verb': 'play', onclick: () => this.play() }, 'Play'), this.slider, this.clock),
      this.legend(),
      ...this.lanes.map((lane) => lane.box),
      this.measures(names),
      this.turn(),
      h('p', { class: 'quiet-text cap-note' }, `A read is of the past if, before it was asked for, a write had been answered that began after the write of what was read had been answered. Refused is also what is not answered within a second; a client whose member refuses asks again soon, so the numbers of requests differ. Where both sides write on, each mostly reads what it has just written itself: replaced a moment ago, though it misses all that the other side has written since the cut. Messages take ${this.knobs.d} ms and syncs ${answer.sync_ms} ms in virtual time; the processes are the store’s own code. The two strong levels are Raft; their puts are the same. In a terminal: `, h('code', { text: answer.command })));
    this.seek(this.t);
    this.box.dataset.ready = String(this.asked);
    this.box.dataset.refused = films.map(({ cap }) => `${cap.minority.refused}/${cap.minority.asked}`).join(' ');
  }

  legend() {
    const key = (/** @type {string} */ kind, /** @type {string} */ sign) => s('svg', { viewBox: '0 0 16 14', width: 16, height: 14, class: 'cap-key', 'aria-hidden': 'true' }, s('rect', { class: `cap-${kind}`, width: 16, height: 14 }), sign ? s('rect', { width: 16, height: 14, fill: `url(#${sign}-linearizable)` }) : '');
    return h('ul', { class: 'cap-legend', 'aria-label': 'Signs' },
      ...[['fresh', '', 'answered, with the latest'], ['stale', 'cap-dots', 'answered, with the past'], ['refused', 'cap-hatch', 'refused']].map(([kind, sign, text]) => h('li', {}, key(kind, sign), text)),
      h('li', {}, s('svg', { viewBox: '0 0 22 14', width: 22, height: 14, 'aria-hidden': 'true' }, s('path', { d: 'M1 12L21 2', class: 'cap-behind' })), 'for how long the oldest read had been replaced'));
  }

  drawGuess() {
    const films = /** @type {Answer} */ (this.answer).films, name = this.answer?.alone, over = this.t >= this.end;
    const writes = films.filter(({ slices, slice_ms, split_ms }) => { const { alone } = sumOf(slices, split_ms / slice_ms, slices.length); return alone.puts > alone.puts_refused; }).map(({ cap }) => cap.level);
    const key = `${this.guess}${over}`;
    if (this.question.dataset.key === key) return;
    this.question.dataset.key = key;
    const right = GUESSES.find(([, levels]) => levels.join() === writes.join());
    const says = !over ? 'Watch, or drag the moment.' : this.guess === null ? '' : this.guess === right?.[0] ? 'So it is.' : `No: ${writes.length ? list(writes) : 'at none'}.`;
    const because = over && this.guess !== null ? ' A linearizable or sequential put waits for a quorum’s disks, which cannot be reached; a causal or eventual one waits for its own member’s disk only.' : '';
    this.question.replaceChildren(h('h2', { text: `Whose client, at ${name}, can still write?` }),
      h('div', { class: 'answers', role: 'group', 'aria-label': 'Your guess' }, ...GUESSES.map(([text]) => h('button', { type: 'button', class: 'answer', 'aria-pressed': String(this.guess === text), text, onclick: () => { this.guess = text; this.question.dataset.key = ''; if (over) this.play(); else this.drawGuess(); } }))),
      h('p', { class: 'quiet-text', role: 'status', text: says + because }));
  }

  /** What the cut did to each level, as bars beside their figures. @param {{alone:string, others:string[]}} names */
  measures(names) {
    const { films } = /** @type {Answer} */ (this.answer);
    return h('section', { class: 'tables' }, h('h2', { text: 'All of it in one chart' }), h('p', { text: capSays(films) }),
      h('div', { class: 'cap-measures' }, ...capMeasures(films, names).map((measure) => h('table', { class: 'cap-measure', 'data-measure': measure.id },
        h('caption', {}, h('strong', { text: measure.title }), ` ${measure.about}`),
        h('thead', { class: 'unseen' }, h('tr', {}, h('th', { scope: 'col', text: 'level' }), h('th', { scope: 'col', text: measure.title }))),
        h('tbody', {}, ...films.map(({ cap }, i) => h('tr', {}, h('th', { scope: 'row', text: cap.level }), h('td', {}, ...measure.rows[i].map((bar) => h('div', { class: 'cap-bar' },
          s('svg', { width: '100%', height: 12, 'aria-hidden': 'true', class: measure.kind }, s('rect', { class: 'whole', width: '100%', height: 12, rx: 2 }),
            s('rect', { class: bar.second ? 'second' : 'first', width: `${share(bar.value, measure.most)}%`, height: 12, rx: 2 }),
            bar.upto === undefined ? '' : s('rect', { class: 'upto', x: `${share(bar.value, measure.most)}%`, y: 5, width: `${Math.max(0, share(bar.upto, measure.most) - share(bar.value, measure.most))}%`, height: 2 })),
          h('span', { text: bar.text }))))))))),
      ));
  }

  turn() {
    const field = (/** @type {string} */ label, /** @type {HTMLElement} */ control) => h('label', { class: 'field' }, label, control);
    return h('section', { class: 'tables' }, h('h2', { text: 'Measure it again' }), h('form', { class: 'bar-form', onsubmit: (/** @type {Event} */ e) => e.preventDefault() },
      ...KNOBS.map(([id, label, values]) => field(label, h('select', { 'data-knob': id, onchange: (/** @type {any} */ e) => this.change({ [id]: e.target.value }) }, ...values.map(([value, text]) => h('option', { value, text, selected: this.knobs[id] === value }))))),
      field('Seed', h('input', { type: 'number', min: 0, max: SEED_MAX, step: 1, value: this.knobs.seed, 'data-knob': 'seed', onchange: (/** @type {any} */ e) => { if (/^\d{1,6}$/.test(e.target.value)) this.change({ seed: e.target.value }); else this.does.complain(`A seed is a number from 0 to ${SEED_MAX}.`); } })),
      h('button', { type: 'button', class: 'verb', 'data-verb': 'seed', onclick: () => this.change({ seed: String(Number(this.knobs.seed) + 1) }) }, 'Another seed')));
  }
}

/** @param {string[]} names */
function list(names) { return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names[names.length - 1]}`; }
