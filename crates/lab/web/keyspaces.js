// @ts-check
/** The live cluster's keyspaces: what they hold, asked by hand at a member, at a level, with a session, and what comes of it. */

import { h, keep, put } from './dom.js';
import { KINDS, kindOf, kindsOf, needsContext, reading, request } from './kinds.js';
import { askMember, demandOfMember, part, poll, why } from './members.js';
import { Sessions } from './sessions.js';

/** @typedef {{name:string, id:any, model:string, levels?:string[]}} Space */
/** @typedef {{sent:number, acked:number, value:string|null}} Written */

/** The strongest first. */
const LEVELS = ['linearizable', 'sequential', 'causal', 'eventual'];
const MEANS = /** @type {Record<string, string>} */ ({
  linearizable: 'as if there were one copy', sequential: 'one order for all; a session never goes back', causal: 'no effect before its cause; writes on both sides of a cut',
  eventual: 'in the end all show the same; writes on both sides of a cut',
});
const POLL_MS = 2000;
/** Answers that stay in sight. */
const ANSWERS_MAX = 30;
/** Of a value this much is shown. */
const VALUE_SHOWN_MAX = 60;

export class Keyspaces {
  /** @param {HTMLElement} panel @param {{cluster:() => any, act:(action:any) => void, complain:(why:string) => void, say:(text:string) => void}} does */
  constructor(panel, does) {
    this.does = does;
    /** @type {Space[]} */ this.spaces = [];
    this.chosen = '';
    this.member = '';
    /** What each keyspace's keys are taken to hold. @type {Map<string, string>} */ this.kinds = new Map();
    /** Who holds each, as far as it was asked. @type {Map<string, string>} */ this.holders = new Map();
    /** The siblings that were read last, by keyspace and key. @type {Map<string, {context:string|null, values:string[]}>} */ this.siblings = new Map();
    /** What was written from here and acknowledged, by keyspace and key. @type {Map<string, Written[]>} */ this.written = new Map();
    this.list = h('div', { class: 'spaces', role: 'group', 'aria-label': 'Keyspaces' });
    this.state = h('p', { class: 'quiet-text', role: 'status', text: 'One moment.' });
    this.about = h('p', { class: 'quiet-text about-space' });
    this.members = h('div', { class: 'picker', role: 'group', 'aria-label': 'At which member' });
    this.kindPicker = h('div', { class: 'picker kinds', role: 'group', 'aria-label': 'What the key holds' });
    this.kindSays = h('p', { class: 'quiet-text kind-says' });
    this.key = h('input', { id: 'keys-key', value: 'x', maxlength: 200, autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false', oninput: () => this.draw() });
    this.value = h('input', { id: 'keys-value', value: '1', maxlength: 2000, autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false' });
    this.valueName = h('span', { text: 'Value' });
    this.verbs = h('div', { class: 'verb-list wide-verbs' });
    this.level = h('select', { id: 'keys-level' });
    this.levelName = h('span', { text: 'A get is' });
    this.session = new Sessions(does.complain);
    this.cutOff = h('button', { type: 'button', class: 'verb', 'data-do': 'cut-off', onclick: () => this.isolate() });
    this.cuts = h('div', { class: 'verb-list wide-verbs' }, this.cutOff, h('button', { type: 'button', class: 'verb', text: 'heal every link', 'data-do': 'heal-all', onclick: () => does.act({ do: 'heal' }) }));
    this.more = h('button', { type: 'button', class: 'space new', text: '+ new', 'aria-label': 'A new keyspace', 'aria-controls': 'keys-make', 'data-do': 'new', onclick: () => { this.make.hidden = !this.make.hidden; this.draw(); if (!this.make.hidden) name.focus(); } });
    this.hint = h('p', { class: 'quiet-text', text: 'Put x. Cut a member off, put x again at another, and get it at the one that is cut off: with the session, and without.' });
    this.judged = h('a', { class: 'verb link', 'data-judged': '' }, 'what was heard, judged');
    this.answers = h('ol', { class: 'answers-list', 'aria-live': 'polite', 'aria-label': 'Answers, the latest first' });
    this.form = h('form', { class: 'ask-form', hidden: true, onsubmit: (/** @type {Event} */ e) => { e.preventDefault(); this.ask('GET'); } },
      this.about, this.members, this.cuts, this.kindPicker, this.kindSays,
      h('div', { class: 'ask-row' }, h('label', { class: 'field' }, 'Key', this.key), h('label', { class: 'field' }, this.valueName, this.value), h('label', { class: 'field' }, this.levelName, this.level)),
      this.verbs, this.session.box, this.hint, h('div', { class: 'answers-head' }, h('h3', { text: 'Answers' }), this.judged), this.answers);
    const name = h('input', { required: true, maxlength: 64, pattern: '[a-z0-9_\\-]+', title: 'a to z, 0 to 9, - and _', id: 'keys-new-name', autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false' });
    const model = h('select', { id: 'keys-new-model' }, ...LEVELS.map((text) => h('option', { value: text, text, selected: text === 'causal' })));
    const means = h('p', { class: 'quiet-text', text: MEANS.causal });
    model.addEventListener('change', () => { means.textContent = MEANS[model.value]; });
    this.make = h('form', { class: 'make-space', id: 'keys-make', hidden: true, onsubmit: (/** @type {Event} */ e) => { e.preventDefault(); this.create(name.value, model.value); } },
      h('div', { class: 'ask-row' }, h('label', { class: 'field' }, 'Name', name), h('label', { class: 'field' }, 'Model', model), h('button', { class: 'verb', text: 'Make it', 'data-do': 'make' })), means);
    this.first = h('div', { class: 'verb-list first-spaces', hidden: true },
      ...[['feed', 'causal'], ['accounts', 'linearizable']].map(([called, as]) => h('button', { type: 'button', class: 'verb', 'data-first': called, text: `make “${called}”, ${as}`, onclick: () => this.create(called, as) })));
    panel.append(this.state, this.first, this.list, this.make, this.form);
    this.refresh = poll(panel, () => !!does.cluster(), POLL_MS, () => this.load());
  }

  async load() {
    try {
      const said = await askMember({ path: '/v1/keyspaces' });
      if (said.status >= 300) throw new Error(why(said));
      this.spaces = said.body.keyspaces ?? [];
      this.state.textContent = this.spaces.length ? '' : 'There is no keyspace yet. Each promises what its model says, and no more: cut a member off, and a causal one goes on on both sides, where a linearizable one refuses.';
      this.first.hidden = this.spaces.length > 0;
    } catch (error) { this.state.textContent = `${/** @type {Error} */ (error).message}`; }
    if (!this.spaces.some((space) => space.name === this.chosen)) this.choose(this.spaces[0]?.name ?? '');
    this.draw();
  }

  /** The chosen keyspace. @returns {Space|undefined} */
  get space() { return this.spaces.find((one) => one.name === this.chosen); }
  get model() { return this.space?.model ?? 'linearizable'; }
  get kind() { return kindOf(kindsOf(this.model).length > 1 ? this.kinds.get(this.chosen) ?? 'register' : 'register'); }
  /** Another keyspace of the same name has sessions and keys of its own. */
  get named() { return `${this.chosen}#${this.space?.id ?? ''}`; }

  /** @param {string} name */
  choose(name) {
    this.chosen = name;
    const { model } = this;
    const levels = [model, ...(this.space?.levels ?? LEVELS.slice(LEVELS.indexOf(model))).filter((level) => level !== model)];
    this.level.replaceChildren(...levels.map((level, i) => h('option', { value: i ? level : '', text: i ? level : `${level}, as promised` })));
    this.value.value = this.kind.value;
    this.describe(name);
    this.draw();
  }

  /** @param {string} kind */
  hold(kind) {
    if (kind === this.kind.kind) return;
    this.kinds.set(this.chosen, kind);
    this.value.value = this.kind.value;
    this.draw();
  }

  /** Its members, which the list does not tell. @param {string} name */
  async describe(name) {
    if (!name) return;
    const said = await askMember({ path: `/v1/keyspaces/${part(name)}` }).catch(() => null);
    const members = said?.status === 200 ? said.body.members : null;
    if (Array.isArray(members)) this.holders.set(name, members.map((member) => (typeof member === 'string' ? member : member.name)).join(', '));
    this.draw();
  }

  draw() {
    const cluster = this.does.cluster(), names = (cluster?.nodes ?? []).map((/** @type {any} */ n) => n.name), { kind, model } = this;
    if (!names.includes(this.member)) this.member = names[0] ?? '';
    this.form.hidden = !this.chosen;
    keep(this.list, [...this.spaces, null], (space) => (space ? `${space.name} ${space.model}` : ''), (space) => (space ? this.button(space) : this.more));
    for (const button of this.list.querySelectorAll('[data-space]')) put(button, { 'aria-pressed': String(button.dataset.space === this.chosen) });
    const holders = this.holders.get(this.chosen);
    put(this.about, { text: holders ? `Held by ${holders}.` : '', title: MEANS[model] });
    put(this.more, { 'aria-expanded': String(!this.make.hidden) });
    keep(this.members, names, (name) => name, (/** @type {string} */ name) => h('button', { type: 'button', text: name, 'aria-label': `Ask ${name}`, 'data-at': name, onclick: () => { this.member = name; this.draw(); } }));
    for (const button of this.members.children) put(button, { 'aria-pressed': String(button.dataset.at === this.member) });
    this.cuts.hidden = !cluster?.actions.includes('cut');
    put(this.cutOff, { text: `cut ${this.member} off` });
    this.drawKind(kind, model);
    put(this.judged, { href: `#verdicts&live=${encodeURIComponent(this.chosen)}` });
    this.judged.hidden = !this.answers.children.length;
    this.session.show(this.named, model, this.member);
  }

  /** @param {typeof KINDS[0]} kind @param {string} model */
  drawKind(kind, model) {
    const kinds = kindsOf(model);
    this.kindPicker.hidden = kinds.length < 2;
    keep(this.kindPicker, KINDS, (one) => one.kind, (one) => h('button', { type: 'button', text: one.kind, 'data-kind': one.kind, onclick: () => this.hold(one.kind) }));
    for (const button of this.kindPicker.children) put(button, { 'aria-pressed': String(button.dataset.kind === kind.kind) });
    put(this.kindSays, { text: kinds.length > 1 ? kind.says : 'Keys hold one value each: writes have an order here, so there is nothing to merge.' });
    put(this.valueName, { text: kind.field });
    put(this.value, { inputmode: kind.number ? 'numeric' : null });
    put(this.levelName, { text: kind.kind === 'register' ? 'A get is' : 'A read is' });
    keep(this.verbs, kind.verbs, ({ verb }) => `${kind.kind} ${verb}`, ({ verb, text, title }) => h('button', verb === 'GET' ? { class: 'verb', text, 'data-ask': verb } : { type: 'button', class: 'verb', text, title, 'data-ask': verb, onclick: () => this.ask(verb) }));
    const known = this.siblings.get(this.place(this.key.value));
    for (const button of this.verbs.children) {
      const lacks = needsContext(kind.kind, button.dataset.ask) && !known?.context;
      put(button, { disabled: lacks, title: lacks ? 'Read first: what is replaced is what was read' : kind.verbs.find(({ verb }) => verb === button.dataset.ask)?.title ?? null });
    }
  }

  /** A key of the chosen keyspace. @param {string} key */
  place(key) { return `${this.named}/${key}`; }

  /** @param {Space} space */
  button(space) {
    return h('button', { type: 'button', class: 'space', title: MEANS[space.model], 'data-space': space.name, onclick: () => this.choose(space.name) }, h('strong', { text: space.name }), h('span', { text: space.model }));
  }

  /** Cuts the chosen member off from all others. */
  isolate() {
    for (const { name } of this.does.cluster()?.nodes ?? []) if (name !== this.member) this.does.act({ do: 'cut', node: this.member, peer: name });
  }

  /** @param {string} name @param {string} model */
  async create(name, model) {
    try {
      await demandOfMember({ method: 'PUT', path: `/v1/keyspaces/${part(name)}`, body: { model } });
      await this.load();
      this.make.hidden = true;
      this.choose(name);
      this.does.say(`The keyspace ${name} is made, and ${model}.`);
    } catch (error) { this.does.complain(/** @type {Error} */ (error).message); }
  }

  /** @param {string} verb */
  async ask(verb) {
    const { chosen, member: at, named } = this, { kind } = this.kind, key = this.key.value, value = this.value.value, place = this.place(key), known = this.siblings.get(place);
    const asked = request({ space: chosen, kind, verb, key, value, level: this.level.value, context: known?.context, replaces: known?.values });
    if ('wrong' in asked) { this.does.complain(asked.wrong); return; }
    const line = h('li', { class: 'waiting', 'data-answer': verb }, h('span', { class: 'asked', text: `${at} ${asked.words}` }), h('span', { class: 'said', text: 'waits' }));
    this.hint.hidden = true;
    this.answers.prepend(line);
    while (this.answers.children.length > ANSWERS_MAX) this.answers.lastChild?.remove();
    this.draw();
    const sent = performance.now(), { method, path, body } = asked;
    try {
      const said = await askMember({ at, method, path, body, session: this.session.shows() });
      const ms = performance.now() - sent;
      if (said.status >= 300) throw new Error(why(said));
      this.session.seen(named, said.at, said.session);
      const how = `${said.at === at ? '' : ` by ${said.at}`}, ${took(ms)}`;
      if (method === 'GET') this.answered(line, { kind, place, sent, how }, said.body);
      else {
        // Of siblings, what was read is not what is there any more.
        if (kind === 'siblings') this.siblings.delete(place);
        if (kind === 'register') this.note(place, { sent, acked: performance.now(), value: verb === 'PUT' ? value : null });
        finish(line, 'good', `done${how}`);
        // The next value, so that old and new can be told apart.
        if ((verb === 'PUT' || verb === 'MERGE') && /^\d{1,15}$/.test(value)) this.value.value = String(Number(value) + 1);
      }
    } catch (error) { finish(line, 'bad', `${/** @type {Error} */ (error).message} (${took(performance.now() - sent)})`); }
    this.draw();
  }

  /** @param {string} place @param {Written} one */
  note(place, one) { this.written.set(place, [...(this.written.get(place) ?? []), one].slice(-100)); }

  /** @param {HTMLElement} line @param {{kind:string, place:string, sent:number, how:string}} asked @param {any} body */
  answered(line, { kind, place, sent, how }, body) {
    const { one, many, context } = reading(body);
    if (many) {
      if (kind === 'siblings') this.siblings.set(place, { context, values: many });
      finish(line, 'good', `${many.length ? '' : 'nothing'}${how.replace(/^, /, many.length ? '' : ', ')}`, kind === 'siblings' && many.length > 1 ? `${many.length} siblings, written without knowing of each other: Replace puts one value in their place` : '');
      line.querySelector('.said')?.querySelector('b')?.after(' ', ...many.map((text) => h('span', { class: 'held-value', text: short(text) })));
      return;
    }
    const past = kind === 'register' ? replacedBy(this.written.get(place) ?? [], one, sent) : null, text = one === null ? 'nothing' : short(one);
    if (!past) { finish(line, 'good', `${text}${how}`); return; }
    finish(line, 'past', `${text}${how}`, `of the past: ${past.value === null ? 'its deletion' : past.value} had been acknowledged ${took(sent - past.acked)} before this was asked`);
  }
}

/**
 * What had replaced a value when somebody asked for it, of what was written from here; null if nothing is known to have. A value that was not
 * written from here may be anybody's latest.
 * @param {Written[]} written @param {string|null} value @param {number} sent @returns {Written|null}
 */
export function replacedBy(written, value, sent) {
  const own = written.findLast((one) => one.value === value);
  if (!own && value !== null) return null;
  const known = own?.acked ?? -Infinity;
  return written.findLast((one) => one.value !== value && one.sent > known && one.acked < sent) ?? null;
}

/** @param {string} text */
function short(text) { return text.length > VALUE_SHOWN_MAX ? `${text.slice(0, VALUE_SHOWN_MAX)}…` : text; }

/** @param {HTMLElement} line @param {string} kind @param {string} text @param {string} [more] */
function finish(line, kind, text, more) {
  line.className = kind;
  const sign = { good: '✓', past: '⟲', bad: '✗' }[kind] ?? '';
  line.querySelector('.said')?.replaceChildren(h('b', { 'aria-hidden': 'true', text: sign }), ` ${text}`, ...(more ? [h('em', { text: more })] : []));
}

/** @param {number} ms */
function took(ms) { return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.max(1, Math.round(ms))} ms`; }
