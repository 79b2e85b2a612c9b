// @ts-check
/** A history and what the checker says of it: operations that can be moved, and the verdicts that follow. */

import { Bars } from './bars.js';
import { h } from './dom.js';
import { EXAMPLES, called, fromAddress, heard, toAddress, toLines } from './histories.js';
import { readAddress } from './script.js';
import { Trace } from './trace.js';

/** @typedef {import('./histories.js').Held} Held @typedef {import('./histories.js').Operation} Operation */
/** @typedef {{model:string, verdict:'yes'|'no'|'unknown', words:string, order?:number[], operations?:number[], minimal?:boolean, because?:{from:number, to:number, why:string}[], 'follows-from'?:string}} Finding */
/** @typedef {{name:string, model:string, version:number, anew:string|null, blind:boolean, verdict:string, weaker:number}} Promised */
/** @typedef {Held & {judgement:{object:string, operations:number, strongest:string[], models:Finding[]}}} Judged */

const LEVELS = ['linearizable', 'sequential', 'causal', 'eventual'];
const MEANS = /** @type {Record<string, string>} */ ({
  linearizable: 'One copy, and the clock counts: whoever asks after a write has ended sees it.',
  sequential: 'One order for all, each client’s own order kept; the clock does not count.',
  causal: 'Nobody sees an effect before its cause; the rest in any order.',
  eventual: 'Only what was written is read, and in the end everybody reads the same.',
});
/** How often a history that grows is asked for. */
const LIVE_MS = 700;
const SIGN = { yes: '✓', no: '✗', unknown: '?' }, KIND = { yes: 'good', no: 'bad', unknown: 'open' };
const FIELDS = /** @type {Record<string, string[]>} */ ({ kv: ['get', 'put', 'delete', 'cas'], register: ['read', 'write', 'cas'] });

export class Verdicts {
  /** @param {HTMLElement} box @param {{complain:(why:string) => void, say:(text:string) => void, tip:any}} does */
  constructor(box, does) {
    this.box = box;
    this.does = does;
    this.asked = 0;
    this.busy = false;
    this.again = false;
    /** @type {Judged|null} */ this.judged = null;
    /** @type {Held|null} */ this.held = null;
    /** @type {string|null} whose witness or contradiction is drawn */ this.level = null;
    /** @type {number|null} */ this.selected = null;
    this.source = '';
    /** The keyspace whose history is followed. @type {Promised|null} */ this.promise = null;
  }

  /** Opens what an address names: an example, a history, or a run up to a moment. @param {string} fragment */
  async open(fragment) {
    const told = new Map(fragment.split('&').slice(1).map((part) => { const at = part.indexOf('='); return [part.slice(0, at), part.slice(at + 1)]; }));
    const ticket = ++this.asked;
    this.level = null;
    this.selected = null;
    const text = told.get('d'), carried = text ? fromAddress(text) : null;
    if (text && !carried) this.does.complain('This address carries no history; here is the first example.');
    this.promise = null;
    if (fragment.split('&').includes('live')) { await this.fromLive(ticket); return; }
    if (told.has('live')) { await this.fromKeyspace(decodeURIComponent(told.get('live') ?? ''), ticket); return; }
    if (told.has('s')) { await this.fromRun(readAddress(fragment.replace('#verdicts', '#sim')), ticket); return; }
    const example = EXAMPLES.find((one) => one.id === told.get('e')) ?? (carried ? null : EXAMPLES[0]);
    this.example = example ?? null;
    this.source = '';
    this.hold(carried ?? structuredClone(/** @type {any} */ (example).held));
  }

  /** @param {{script:string|null, t:number|null}} address @param {number} ticket */
  async fromRun({ script, t }, ticket) {
    this.example = null;
    try {
      const trace = await Trace.run(script ?? '');
      const view = await this.post('/api/history/run', JSON.stringify({ run: trace.header.hash, ...(t === null ? {} : { until: Math.round(t) }) }), 'application/json');
      if (ticket !== this.asked || !view) return;
      this.source = `The operations of a simulated run of ${trace.header.protocol}, seed ${trace.header.seed}${t === null ? '' : `, up to ${(t / 1e9).toFixed(2)} s`}`;
      this.take(view);
    } catch (error) { this.does.complain(/** @type {Error} */ (error).message); }
  }

  /** What clients of the live cluster asked and heard, and go on to ask and hear. @param {number} ticket */
  async fromLive(ticket) {
    this.example = null;
    for (;;) {
      const response = await fetch('/api/history/live').catch(() => null), view = await response?.json().catch(() => null);
      if (ticket !== this.asked || this.box.hidden) return;
      if (!response?.ok) { this.does.complain(view?.error ?? 'The laboratory does not answer. Is it still running?'); this.hold(structuredClone(EXAMPLES[0].held)); return; }
      this.source = `${view.judgement.operations} operations of clients of the live cluster${view.growing ? ', who go on asking: break something' : ''}`;
      this.take(view);
      this.bars?.toEnd(view.growing);
      if (!view.growing) return;
      await new Promise((again) => { setTimeout(again, LIVE_MS); });
    }
  }

  /** What clients of a live cluster's keyspace ask and hear, as its members tell it. @param {string} name @param {number} ticket */
  async fromKeyspace(name, ticket) {
    this.example = null;
    let seen = -1, said = '';
    for (;;) {
      const response = await fetch(`/api/history/live?keyspace=${encodeURIComponent(name)}&seen=${Math.max(0, seen)}`).catch(() => null), view = await response?.json().catch(() => null);
      if (ticket !== this.asked || this.box.hidden) return;
      if (!response?.ok) {
        const why = view?.error ?? 'The laboratory does not answer. Is it still running?';
        if (why !== said) this.does.complain(said = why);
      } else if (view.none) {
        if (said !== 'none') this.empty(name);
        said = 'none';
      } else if (!view.same) {
        seen = view.keyspace.version;
        said = '';
        this.follow(view);
      }
      await new Promise((again) => { setTimeout(again, LIVE_MS); });
    }
  }

  /** Shows what has come, and nothing else: who is at a button there stays at it. @param {Judged & {keyspace:Promised}} view */
  follow(view) {
    const { name, model, anew } = view.keyspace, first = this.promise?.name !== name || !this.bars, atEnd = !this.bars || this.bars.isAtEnd();
    this.promise = view.keyspace;
    const count = view.operations.filter((o) => !/^not seen/.test(o.client)).length;
    this.source = `Keyspace ${name}, ${model}: ${count === 1 ? 'one operation' : `${count} operations`} of whoever asks it, by hand or by program${anew ? `. Begun anew: ${anew}` : ''}`;
    this.held = view;
    this.judged = view;
    if (first) this.draw();
    else {
      const words = this.box.querySelector('.page-head p:not(.eyebrow)');
      if (words) words.textContent = `${this.source}.`;
      this.drawVerdicts();
    }
    this.drawPromise();
    this.bars?.toEnd(first || atEnd);
  }

  /** There is nothing to be judged yet of a keyspace. @param {string} name */
  empty(name) {
    this.promise = null;
    this.bars = undefined;
    this.kept = h('nav', { class: 'kept', 'aria-label': 'What can be judged' });
    delete this.box.dataset.judged;
    this.box.replaceChildren(h('header', { class: 'page-head' }, h('p', { class: 'eyebrow', text: 'Consistency' }), h('h1', { text: 'Nothing was asked yet' }), h('p', { text: `Nobody has asked the keyspace ${name} anything yet. Put something and get it, by hand or by program: it comes here by itself, and is judged as it comes.` })), this.kept,
      h('div', { class: 'verb-list' }, h('a', { class: 'verb link', href: '#live&tab=keys' }, 'to the keys of the live cluster')));
    this.listKeyspaces();
  }

  /** Whether the keyspace has kept what its model promises. */
  drawPromise() {
    const one = this.promise;
    if (!this.promised) return;
    this.promised.hidden = !one;
    if (!one) return;
    this.box.dataset.promise = one.blind ? 'blind' : one.verdict;
    const less = one.weaker ? ` (${one.weaker === 1 ? 'one read that asked for less is' : `${one.weaker} reads that asked for less are`} left out of this, and drawn below)` : '';
    const says = one.blind ? ['?', `Transactions or sagas write to ${one.name}. What they did is not in this history, so nothing is claimed about the rest.`, 'open']
      : one.verdict === 'yes' ? ['✓', `${one.name} promises to be ${one.model}, and has kept it${less}.`, 'good']
        : one.verdict === 'no' ? ['✗', `${one.name} promises to be ${one.model}, and has broken it${less}: that is a bug.`, 'bad'] : ['?', `Whether ${one.name} is ${one.model} was not decided in time${less}.`, 'open'];
    this.promised.className = `promised ${says[2]}`;
    this.promised.replaceChildren(h('b', { 'aria-hidden': 'true', text: says[0] }), h('span', { text: says[1] }));
  }

  /** What else of the live cluster can be judged. */
  async listKeyspaces() {
    const box = this.kept, response = await fetch('/api/history/live/keyspaces').catch(() => null);
    if (!box || !response?.ok) return;
    const { keyspaces, clients } = await response.json();
    const link = (/** @type {string} */ href, /** @type {string} */ text, /** @type {boolean} */ here) => h('a', { class: 'verb link', href, ...(here ? { 'aria-current': 'true' } : {}) }, text);
    box.replaceChildren(...[h('span', { class: 'quiet-text', text: 'Of the live cluster:' }), clients && link('#verdicts&live', 'three clients of the store', false),
      ...keyspaces.map((/** @type {any} */ one) => link(`#verdicts&live=${encodeURIComponent(one.name)}`, `${one.name}, ${one.model}`, this.promise?.name === one.name))].filter(Boolean));
    box.hidden = box.children.length < 2;
  }

  /** What somebody changes is theirs, and is not written over. */
  unfollow() {
    if (!this.promise) return;
    this.asked += 1;
    this.promise = null;
    this.drawPromise();
    this.does.say('This is your own copy now: what the cluster does is not followed any more.');
  }

  /** A file that somebody dropped, in any format that the checker reads. @param {File} file */
  async file(file) {
    const ticket = ++this.asked;
    const view = await this.post('/api/history', await file.arrayBuffer(), 'application/octet-stream');
    if (!view || ticket !== this.asked) return;
    this.example = null;
    this.level = null;
    this.selected = null;
    this.source = `${file.name}, ${view.judgement.operations.toLocaleString('en')} operations`;
    this.take(view);
    this.remember();
    this.does.say(`${file.name}: ${this.summary()}`);
  }

  /** @param {string} where @param {any} body @param {string} type @returns {Promise<Judged|null>} */
  async post(where, body, type) {
    try {
      const response = await fetch(where, { method: 'POST', headers: { 'content-type': type }, body });
      const answer = await response.json();
      if (response.ok) return answer;
      this.does.complain(answer.error);
    } catch { this.does.complain('The laboratory does not answer. Is it still running?'); }
    return null;
  }

  /** A history that the checker has judged already. @param {Judged} view */
  take(view) {
    this.held = view;
    this.judged = view;
    this.draw();
  }

  /** A history that it has not. @param {Held} held */
  hold(held) {
    this.held = held;
    this.judged = null;
    this.draw();
    this.judge();
  }

  /** Asks for verdicts; while one question is under way, only the latest waits. */
  async judge() {
    if (this.busy) { this.again = true; return; }
    this.busy = true;
    const held = this.held, view = held && await this.post('/api/history', toLines(held), 'application/json');
    this.busy = false;
    if (view && (this.held === held || this.again)) {
      const before = this.judged;
      this.judged = { ...view };
      if (before) this.flips(before, view);
      this.drawVerdicts();
    }
    if (this.again) { this.again = false; this.judge(); }
  }

  /** Says which verdicts have changed. @param {Judged} before @param {Judged} after */
  flips(before, after) {
    const was = new Map(before.judgement.models.map((m) => [m.model, m.verdict]));
    const changed = this.cards(after).filter((m) => was.get(m.model) !== m.verdict);
    if (changed.length) this.does.say(changed.map((m) => `${m.model}: ${m.verdict}`).join(', '));
  }

  get editable() { return !!this.held?.whole; }

  /** @param {number} id @param {(o:Operation) => void} change */
  edit(id, change) {
    const o = this.held?.operations.find((one) => one.id === id);
    if (!o || !this.editable) return;
    this.unfollow();
    change(o);
    this.drawBars();
    this.judge();
  }

  /** Moves a bar; a client's own operations do not change places. @param {number} id @param {number} start @param {number|null} end */
  move(id, start, end) {
    const o = /** @type {Operation} */ (this.held?.operations.find((one) => one.id === id));
    const own = (this.held?.operations ?? []).filter((one) => one.client === o.client && one.id !== id);
    const after = Math.max(0, ...own.filter((one) => one.end !== null && one.end <= o.start).map((one) => /** @type {number} */ (one.end) + 1));
    const before = Math.min(Infinity, ...own.filter((one) => o.end !== null && one.start >= o.end).map((one) => one.start - 1));
    const least = 1e6;
    let from = Math.max(after, start), to = end === null ? null : Math.min(before, end);
    if (to !== null && to - from < least) { if (end === o.end) from = Math.max(after, to - least); else to = Math.min(before, from + least); }
    if (to !== null && to <= from) return;
    this.edit(id, (one) => { one.start = from; one.end = to; });
  }

  /** Lets the address carry what is shown. */
  remember() {
    if (!this.held) return;
    const text = this.held.whole ? toAddress(this.held) : null;
    history.pushState(null, '', text ? `#verdicts&d=${text}` : '#verdicts');
    this.linkable = text !== null;
  }

  /** @param {number|null} id */
  select(id) {
    if (this.selected === id) return;
    this.selected = id;
    this.drawBars();
    this.drawForm();
  }

  draw() {
    this.verdicts = h('section', { class: 'levels', 'aria-label': 'Verdicts', 'aria-live': 'polite' });
    this.because = h('section', { class: 'because' });
    this.promised = h('p', { class: 'promised', role: 'status', hidden: true });
    this.kept = h('nav', { class: 'kept', 'aria-label': 'What can be judged', hidden: true });
    this.form = h('section', { class: 'bar-form', 'aria-label': 'The chosen operation' });
    const picture = h('section', { class: 'bar-box', 'aria-label': 'The history' });
    const drop = h('label', { class: 'drop' }, h('input', { type: 'file', class: 'unseen', onchange: (/** @type {any} */ e) => e.target.files[0] && this.file(e.target.files[0]) }),
      h('span', {}, h('strong', { text: 'Drop a history here' }), ' or choose a file: ours, Jepsen’s, Maelstrom’s, Porcupine’s, Plume’s or dbcop’s'));
    this.box.replaceChildren(
      h('header', { class: 'page-head' }, h('p', { class: 'eyebrow', text: 'Consistency' }), h('h1', { text: 'What did they promise, and was it kept?' }),
        h('p', { text: this.example?.about ?? (this.source ? `${this.source}.` : 'Each bar is an operation: it began when a client asked and ended when it was answered.') })),
      ...(this.example ? [h('p', { class: 'attempt' }, h('strong', { text: 'Try: ' }), this.example.attempt)] : []),
      this.kept, this.promised, picture, this.form, this.verdicts, this.because,
      h('section', { class: 'tables' }, h('h2', { text: 'The chapter’s examples' }),
        h('ul', { class: 'example-list' }, ...EXAMPLES.map((one) => h('li', {}, h('a', { href: `#verdicts&e=${one.id}`, 'data-example': one.id, ...(one === this.example ? { 'aria-current': 'true' } : {}) }, h('strong', { text: one.title }), h('span', { text: one.point }))))),
        drop, h('p', { class: 'quiet-text' }, 'The same in a terminal: ', h('code', { text: 'synod check FILE' }), '. How to record one: docs/history-format.md.')));
    this.box.ondragover = (/** @type {DragEvent} */ e) => { e.preventDefault(); this.box.classList.add('dropping'); };
    this.box.ondragleave = () => this.box.classList.remove('dropping');
    this.box.ondrop = (/** @type {DragEvent} */ e) => { e.preventDefault(); this.box.classList.remove('dropping'); const file = e.dataTransfer?.files[0]; if (file) this.file(file); };
    this.bars = new Bars(picture, {
      move: (id, start, end) => this.move(id, start, end), done: () => { this.drawBars(); this.remember(); }, select: (id) => this.select(id), tip: this.does.tip,
    });
    this.drawBars();
    this.drawForm();
    this.drawVerdicts();
    if (/^#verdicts&live/.test(location.hash)) this.listKeyspaces();
  }

  drawBars() {
    if (!this.held || !this.bars) return;
    this.bars.selected = this.selected;
    const finding = this.finding();
    this.bars.draw(this.held, {
      order: finding?.verdict === 'yes' ? finding.order ?? null : null, timed: finding?.model === 'linearizable' || finding?.model === 'strict-serializable',
      own: finding?.operations ?? [], links: finding?.because ?? [],
    }, this.editable);
  }

  /** The levels that are shown as cards: the four of the chapter where the object has them. @param {Judged|null} judged */
  cards(judged) {
    const models = judged?.judgement.models ?? [];
    const four = LEVELS.map((level) => models.find((m) => m.model === level));
    return four.every(Boolean) ? /** @type {Finding[]} */ (four) : models.slice(0, 6);
  }

  /** The verdict whose reason is drawn: the one that was chosen, or the weakest that fails, or the strongest. */
  finding() {
    const cards = this.cards(this.judged);
    return cards.find((m) => m.model === this.level) ?? cards.findLast((m) => m.verdict === 'no') ?? cards[0];
  }

  summary() {
    return this.cards(this.judged).map((m) => `${m.model}: ${m.verdict}`).join(', ');
  }

  drawVerdicts() {
    const cards = this.cards(this.judged), shown = this.finding();
    this.verdicts?.replaceChildren(...cards.map((m) => h('button', {
      type: 'button', class: `level ${KIND[m.verdict]}`, 'data-model': m.model, 'data-verdict': m.verdict, 'aria-pressed': String(m === shown),
      onclick: () => { this.level = m.model; this.drawVerdicts(); },
    }, h('span', { class: 'level-name' }, h('span', { class: 'sign', 'aria-hidden': 'true', text: SIGN[m.verdict] }), h('strong', { text: m.model })),
    h('span', { class: 'level-says', text: { yes: 'holds', no: 'does not hold', unknown: 'not decided' }[m.verdict] }), h('span', { class: 'level-means', text: MEANS[m.model] ?? '' }))));
    this.drawBecause(shown);
    this.drawBars();
    this.box.dataset.judged = this.summary();
  }

  /** @param {Finding|undefined} finding */
  drawBecause(finding) {
    if (!finding || !this.because) { this.because?.replaceChildren(h('p', { class: 'quiet-text', text: 'Being judged…' })); return; }
    const byId = new Map((this.held?.operations ?? []).map((o) => [o.id, o]));
    const name = (/** @type {number} */ id) => { const o = byId.get(id); return o ? `${o.client}’s ${called(o)} ${heard(o)}`.trim() : `operation ${id}`; };
    const links = (finding.because ?? []).slice(0, 12);
    const others = (this.judged?.judgement.models ?? []).filter((m) => !this.cards(this.judged).includes(m));
    this.because.replaceChildren(...[
      h('h2', { text: finding.verdict === 'yes' ? `Why it is ${finding.model}` : finding.verdict === 'no' ? `Why it is not ${finding.model}` : `${finding.model}: not decided` }),
      h('p', { text: finding.verdict === 'yes' && finding.order ? 'The numbers are an order that explains every answer: read them as one copy that does one thing at a time.' : sentence(finding.words) }),
      links.length > 0 && h('ol', { class: 'links' }, ...links.map((link) => h('li', {}, h('b', { text: name(link.from) }), ' before ', h('b', { text: name(link.to) }), `: ${link.why}.`))),
      finding.verdict === 'no' && finding.minimal && h('p', { class: 'quiet-text', text: 'None of the marked operations can be left out: without any one of them there is no contradiction.' }),
      this.held && !this.held.whole && h('p', { class: 'quiet-text', text: `Only ${this.held.operations.length} operations are drawn, those that matter and their neighbours; a history this long cannot be edited here.` }),
      others.length > 0 && h('details', { class: 'try' }, h('summary', { text: 'More models' }), h('ul', { class: 'more-models' }, ...others.map((m) => h('li', { class: `finding ${KIND[m.verdict]}` }, h('span', { class: 'sign', text: SIGN[m.verdict] }), h('span', {}, h('strong', { text: m.model }), ` ${sentence(m['follows-from'] && m.verdict === 'no' ? `It is not ${m['follows-from']}.` : m.words)}`))))),
    ].filter(Boolean));
  }

  drawForm() {
    const o = this.held?.operations.find((one) => one.id === this.selected), { form } = this;
    if (!form) return;
    if (!o || !this.editable) {
      form.replaceChildren(h('p', { class: 'quiet-text', text: this.editable ? 'Drag a bar or one of its ends; choose a bar to change what it did. With keys: Tab to a bar, ← and → move its end, with Shift its beginning.' : '' }));
      return;
    }
    const ops = FIELDS[this.held?.header.object ?? ''] ?? [o.op];
    const done = (/** @type {(o:Operation) => void} */ change) => { this.edit(o.id, change); this.drawForm(); this.remember(); };
    const clients = [...new Set(this.held?.operations.map((one) => one.client))];
    form.replaceChildren(...[
      pick('Client', clients, o.client, (client) => done((one) => { one.client = client; })),
      ops.length > 1 && pick('Does', ops, o.op, (op) => done((one) => retype(one, op))),
      typeof o.key === 'string' && text('Key', o.key, (key) => done((one) => { one.key = key || 'x'; })),
      o.op === 'cas' && text('Expects', json(o.expect), (value) => done((one) => { one.expect = parse(value); })),
      o.value !== null && o.value !== undefined && text('Writes', json(o.value), (value) => done((one) => { one.value = parse(value) ?? '0'; })),
      o.outcome === 'ok' && o.answered && text('Hears', json(o.answer), (value) => done((one) => { one.answer = parse(value); }), 'empty: nothing was there'),
      pick('Ends', ['answered', 'refused', 'nobody knows'], { ok: 'answered', fail: 'refused', unknown: 'nobody knows' }[o.outcome], (end) => done((one) => { one.outcome = /** @type {any} */ ({ answered: 'ok', refused: 'fail', 'nobody knows': 'unknown' })[end]; if (one.end === null) one.end = one.start + 5e8; })),
      h('button', { type: 'button', class: 'soft', onclick: () => this.copy(o) }, 'Another like it'),
      h('button', { type: 'button', class: 'soft', onclick: () => this.remove(o.id) }, 'Take it away'),
    ].filter(Boolean));
  }

  /** The same operation once more, after all others of its client. @param {Operation} o */
  copy(o) {
    if (!this.held) return;
    this.unfollow();
    const own = this.held.operations.filter((one) => one.client === o.client), last = Math.max(...own.map((one) => one.end ?? one.start)), long = o.end === null ? 5e8 : o.end - o.start;
    const id = Math.max(...this.held.operations.map((one) => one.id)) + 1;
    this.held.operations.push({ ...structuredClone(o), id, start: last + long / 2, end: last + long * 1.5 });
    this.selected = id;
    this.drawBars(); this.drawForm(); this.judge(); this.remember();
  }

  /** @param {number} id */
  remove(id) {
    if (!this.held) return;
    this.unfollow();
    this.held.operations = this.held.operations.filter((one) => one.id !== id);
    this.selected = null;
    this.drawBars(); this.drawForm(); this.judge(); this.remember();
  }
}

/** Another kind of operation with fields that fit. @param {Operation} o @param {string} op */
function retype(o, op) {
  const reads = op === 'get' || op === 'read';
  o.op = op;
  o.value = reads || op === 'delete' ? null : o.value ?? o.answer ?? '1';
  o.expect = op === 'cas' ? o.expect ?? null : null;
  o.answered = reads || op === 'cas';
  o.answer = op === 'cas' ? true : reads ? o.answer ?? null : null;
}

/** @param {any} value as a person types it: text stands for itself */
function json(value) { return value === null || value === undefined ? '' : typeof value === 'string' ? value : JSON.stringify(value); }

/** @param {string} text nothing, true, false or a list stand for themselves; all else is text */
function parse(text) {
  const plain = text.trim();
  if (plain === '') return null;
  if (plain === 'true' || plain === 'false' || /^[[{]/.test(plain)) { try { return JSON.parse(plain); } catch { return plain; } }
  return plain;
}

/** @param {string} text */
function sentence(text) { return text ? text.charAt(0).toUpperCase() + text.slice(1) : ''; }

/** @param {string} label @param {string[]} options @param {string} value @param {(value:string) => void} change */
function pick(label, options, value, change) {
  return h('label', { class: 'field' }, h('span', { text: label }), h('select', { onchange: (/** @type {any} */ e) => change(e.target.value) }, ...options.map((option) => h('option', { value: option, selected: option === value, text: option }))));
}

/** @param {string} label @param {string} value @param {(value:string) => void} change @param {string} [hint] */
function text(label, value, change, hint) {
  return h('label', { class: 'field' }, h('span', { text: label }), h('input', { type: 'text', value, placeholder: hint, 'data-field': label.toLowerCase(), onchange: (/** @type {any} */ e) => change(e.target.value) }));
}
