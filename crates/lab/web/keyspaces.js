// @ts-check
/** The live cluster's keyspaces: put and get at a member, at a level, with a session, and see what comes of it. */

import { h, keep, put } from './dom.js';
import { askMember, demandOfMember, part, poll, why } from './members.js';

/** @typedef {{name:string, id:any, model:string, levels?:string[]}} Space */
/** @typedef {{sent:number, acked:number, value:string|null}} Written */

/** The strongest first. */
const LEVELS = ['linearizable', 'sequential', 'causal', 'eventual'];
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
    /** Who holds each, as far as it was asked. @type {Map<string, string>} */ this.holders = new Map();
    /** The session's token of each keyspace. @type {Map<string, string>} */ this.sessions = new Map();
    /** What was written from here and acknowledged, by keyspace and key. @type {Map<string, Written[]>} */ this.written = new Map();
    this.list = h('div', { class: 'spaces', role: 'group', 'aria-label': 'Keyspaces' });
    this.state = h('p', { class: 'quiet-text', role: 'status', text: 'One moment.' });
    this.about = h('p', { class: 'quiet-text about-space' });
    this.members = h('div', { class: 'picker', role: 'group', 'aria-label': 'At which member' });
    this.key = h('input', { id: 'keys-key', value: 'x', maxlength: 200, autocomplete: 'off', spellcheck: 'false' });
    this.value = h('input', { id: 'keys-value', value: '1', maxlength: 2000, autocomplete: 'off', spellcheck: 'false' });
    this.level = h('select', { id: 'keys-level' });
    this.carries = h('input', { type: 'checkbox', checked: true, id: 'keys-carries', onchange: () => this.drawSession() });
    this.token = h('span', { class: 'token quiet-text' });
    this.anew = h('button', { type: 'button', class: 'soft', text: 'New session', 'data-do': 'new-session', onclick: () => { this.sessions.delete(this.chosen); this.drawSession(); } });
    this.cutOff = h('button', { type: 'button', class: 'verb', 'data-do': 'cut-off', onclick: () => this.isolate() });
    this.cuts = h('div', { class: 'verb-list' }, this.cutOff, h('button', { type: 'button', class: 'verb', text: 'heal every link', 'data-do': 'heal-all', onclick: () => does.act({ do: 'heal' }) }));
    this.more = h('button', { type: 'button', class: 'space new', text: '+ new', 'aria-label': 'A new keyspace', 'data-do': 'new', onclick: () => { this.make.hidden = !this.make.hidden; this.draw(); if (!this.make.hidden) name.focus(); } });
    this.hint = h('p', { class: 'quiet-text', text: 'Put x. Cut a member off, put x again at another, and get it at the one that is cut off: with the session, and without.' });
    this.answers = h('ol', { class: 'answers-list', 'aria-live': 'polite', 'aria-label': 'Answers, the latest first' });
    this.form = h('form', { class: 'ask-form', hidden: true, onsubmit: (/** @type {Event} */ e) => { e.preventDefault(); this.ask('GET'); } },
      this.about, h('div', { class: 'ask-row' }, this.members, this.cuts),
      h('div', { class: 'ask-row' }, h('label', { class: 'field' }, 'Key', this.key), h('label', { class: 'field' }, 'Value', this.value),
        ...[['PUT', 'Put'], ['GET', 'Get'], ['DELETE', 'Delete']].map(([method, text]) => h('button', { type: 'button', class: 'verb', text, 'data-ask': method, onclick: () => this.ask(method) }))),
      h('div', { class: 'ask-row' }, h('label', { class: 'field' }, 'A get is', this.level), h('label', { class: 'check' }, this.carries, ' carry a session’s token'), this.anew), this.token,
      this.hint, this.answers);
    const name = h('input', { required: true, maxlength: 100, id: 'keys-new-name', autocomplete: 'off', spellcheck: 'false' });
    const model = h('select', { id: 'keys-new-model' }, ...LEVELS.map((text) => h('option', { text, selected: text === 'causal' })));
    this.make = h('form', { class: 'ask-row', hidden: true, onsubmit: (/** @type {Event} */ e) => { e.preventDefault(); this.create(name.value, model.value); } },
      h('label', { class: 'field' }, 'Name', name), h('label', { class: 'field' }, 'Model', model), h('button', { class: 'verb', text: 'Make it', 'data-do': 'make' }));
    panel.append(this.state, this.list, this.make, this.form);
    this.refresh = poll(panel, () => !!does.cluster(), POLL_MS, () => this.load());
  }

  async load() {
    try {
      const said = await askMember({ path: '/v1/keyspaces' });
      if (said.status >= 300) throw new Error(why(said));
      this.spaces = said.body.keyspaces ?? [];
      this.state.textContent = this.spaces.length ? '' : 'There is no keyspace yet. Its model is what it promises: make a causal one, cut a member off, and both sides go on.';
    } catch (error) { this.state.textContent = `${/** @type {Error} */ (error).message}`; }
    if (!this.spaces.some((space) => space.name === this.chosen)) this.choose(this.spaces[0]?.name ?? '');
    this.draw();
  }

  /** @param {string} name */
  choose(name) {
    this.chosen = name;
    const space = this.spaces.find((one) => one.name === name), model = space?.model ?? 'linearizable';
    const levels = [model, ...(space?.levels ?? LEVELS.slice(LEVELS.indexOf(model))).filter((level) => level !== model)];
    this.level.replaceChildren(...levels.map((level, i) => h('option', { value: i ? level : '', text: i ? level : `${level}, as it promises` })));
    this.drawSession();
    this.describe(name);
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
    const cluster = this.does.cluster(), names = (cluster?.nodes ?? []).map((/** @type {any} */ n) => n.name);
    if (!names.includes(this.member)) this.member = names[0] ?? '';
    this.form.hidden = !this.chosen;
    keep(this.list, [...this.spaces, null], (space) => (space ? `${space.name} ${space.model}` : ''), (space) => (space ? this.button(space) : this.more));
    for (const button of this.list.querySelectorAll('[data-space]')) put(button, { 'aria-pressed': String(button.dataset.space === this.chosen) });
    const holders = this.holders.get(this.chosen);
    put(this.about, { text: holders ? `Held by ${holders}.` : '' });
    put(this.more, { 'aria-expanded': String(!this.make.hidden) });
    keep(this.members, names, (name) => name, (/** @type {string} */ name) => h('button', { type: 'button', text: name, 'data-at': name, onclick: () => { this.member = name; this.draw(); } }));
    for (const button of this.members.children) put(button, { 'aria-pressed': String(button.dataset.at === this.member) });
    this.cuts.hidden = !cluster?.actions.includes('cut');
    put(this.cutOff, { text: `cut ${this.member} off` });
  }

  /** @param {Space} space */
  button(space) {
    return h('button', { type: 'button', class: 'space', 'data-space': space.name, onclick: () => { this.choose(space.name); this.draw(); } }, h('strong', { text: space.name }), h('span', { text: space.model }));
  }

  /** Cuts the chosen member off from all others. */
  isolate() {
    for (const { name } of this.does.cluster()?.nodes ?? []) if (name !== this.member) this.does.act({ do: 'cut', node: this.member, peer: name });
  }

  drawSession() {
    const token = this.sessions.get(this.chosen);
    this.token.textContent = !this.carries.checked ? 'Each request is a stranger’s.' : token ? `What this session has seen: ${token.slice(0, 18)}…` : 'A new session: it has seen nothing yet.';
    this.anew.disabled = !token || !this.carries.checked;
  }

  /** @param {string} name @param {string} model */
  async create(name, model) {
    try {
      await demandOfMember({ method: 'PUT', path: `/v1/keyspaces/${part(name)}`, body: { model } });
      await this.load();
      this.make.hidden = true;
      this.choose(name);
      this.draw();
    } catch (error) { this.does.complain(/** @type {Error} */ (error).message); }
  }

  /** @param {string} method */
  async ask(method) {
    const { chosen, member: at } = this, key = this.key.value, value = this.value.value, level = method === 'GET' ? this.level.value : '', carries = this.carries.checked;
    if (!key) { this.does.complain('Say which key.'); return; }
    const path = `/v1/keyspaces/${part(chosen)}/keys/${part(key)}${level ? `?consistency=${level}` : ''}`;
    const line = h('li', { class: 'waiting', 'data-answer': method }, h('span', { class: 'asked', text: `${at} ${{ PUT: `put ${key} = ${value}`, GET: `get ${key}`, DELETE: `delete ${key}` }[method]}${level ? `, ${level}` : ''}` }), h('span', { class: 'said', text: 'waits' }));
    this.hint.hidden = true;
    this.answers.prepend(line);
    while (this.answers.children.length > ANSWERS_MAX) this.answers.lastChild?.remove();
    const sent = performance.now();
    try {
      const said = await askMember({ at, method, path, ...(method === 'PUT' ? { body: { value } } : {}), session: carries ? this.sessions.get(chosen) : null });
      const ms = performance.now() - sent;
      if (said.status >= 300) throw new Error(why(said));
      if (carries && said.session) { this.sessions.set(chosen, said.session); this.drawSession(); }
      const by = said.at === at ? '' : ` by ${said.at}`;
      if (method === 'GET') this.answered(line, chosen, key, shown(said.body), sent, `${by}, ${took(ms)}`);
      else {
        this.note(chosen, key, { sent, acked: performance.now(), value: method === 'PUT' ? value : null });
        finish(line, 'good', `done${by}, ${took(ms)}`);
        // The next value, so that old and new can be told apart.
        if (method === 'PUT' && /^\d{1,15}$/.test(value)) this.value.value = String(Number(value) + 1);
      }
    } catch (error) { finish(line, 'bad', `${/** @type {Error} */ (error).message} (${took(performance.now() - sent)})`); }
  }

  /** @param {string} space @param {string} key @param {Written} one */
  note(space, key, one) {
    const id = `${space}/${key}`;
    this.written.set(id, [...(this.written.get(id) ?? []), one].slice(-100));
  }

  /** @param {HTMLElement} line @param {string} space @param {string} key @param {string|null} value @param {number} sent @param {string} how */
  answered(line, space, key, value, sent, how) {
    const past = replacedBy(this.written.get(`${space}/${key}`) ?? [], value, sent), text = value === null ? 'nothing' : value.length > VALUE_SHOWN_MAX ? `${value.slice(0, VALUE_SHOWN_MAX)}…` : value;
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

/** What a get says, whatever kind of object it is of. @param {any} body @returns {string|null} */
function shown(body) {
  const plain = (/** @type {any} */ value) => (typeof value === 'string' ? value : JSON.stringify(value?.base64 ?? value));
  const many = body.values ?? body.elements;
  if (Array.isArray(many)) return many.map(plain).join(', ');
  return body.value === null || body.value === undefined ? null : plain(body.value);
}

/** @param {HTMLElement} line @param {string} kind @param {string} text @param {string} [more] */
function finish(line, kind, text, more) {
  line.className = kind;
  const sign = { good: '✓', past: '⟲', bad: '✗' }[kind] ?? '';
  line.querySelector('.said')?.replaceChildren(h('b', { 'aria-hidden': 'true', text: sign }), ` ${text}`, ...(more ? [h('em', { text: more })] : []));
}

/** @param {number} ms */
function took(ms) { return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.max(1, Math.round(ms))} ms`; }
