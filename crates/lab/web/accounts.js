// @ts-check
/** Money from one account to another, by hand: as a transaction, or as a saga. */

import { h, keep, put } from './dom.js';
import { askMember, demandOfMember, part, why } from './members.js';

/** @typedef {{name:string, model:string}} Space @typedef {{space:string, key:string}} Account */

/** Two banks to begin with, and what their accounts hold. */
const BANKS = [{ space: 'bank1', key: 'alice', value: '100' }, { space: 'bank2', key: 'bob', value: '0' }];
/** Outcomes that stay in sight. */
const OUTCOMES_MAX = 12;
const ROUTES = /** @type {Record<string, string>} */ ({ 'one-entry': 'one entry of the log, since both are in one keyspace', 'two-phase': 'two-phase commit' });

export class Accounts {
  /** @param {HTMLElement} box @param {{complain:(why:string) => void, say:(text:string) => void, changed:() => void}} does */
  constructor(box, does) {
    this.does = does;
    /** @type {Space[]} */ this.spaces = [];
    /** Whether the balances could not be read, and are to be. */ this.unread = false;
    /** Whether somebody has chosen the accounts. */ this.touched = false;
    /** @type {Promise<any>} what is under way */ this.turn = Promise.resolve();
    /** @type {Promise<void>|null} a look that has not begun */ this.waiting = null;
    const key = (/** @type {string} */ id, /** @type {string} */ value) => h('input', { id, value, maxlength: 200, autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false', onchange: () => this.look() });
    const space = (/** @type {string} */ id) => h('select', { id, onchange: () => this.look() });
    this.from = { space: space('move-from'), key: key('move-from-key', BANKS[0].key) };
    this.to = { space: space('move-to'), key: key('move-to-key', BANKS[1].key) };
    this.amount = h('input', { id: 'move-amount', value: '30', inputmode: 'numeric', maxlength: 15, autocomplete: 'off' });
    this.person = h('input', { type: 'checkbox', id: 'move-person' });
    this.sums = h('p', { class: 'sums', role: 'status' });
    this.outcomes = h('ol', { class: 'answers-list', 'aria-live': 'polite', 'aria-label': 'Transfers, the latest first' });
    /** Accounts that are chosen and nobody has opened. @type {{space:string, key:string, value:string}[]} */ this.missing = [];
    this.firstSays = h('p', { class: 'quiet-text' });
    this.opens = h('button', { type: 'button', class: 'verb', 'data-do': 'open-banks', onclick: () => this.open() });
    this.first = h('div', { class: 'first-spaces', hidden: true }, this.firstSays, this.opens);
    const account = (/** @type {string} */ text, /** @type {{space:any, key:any}} */ one) => h('fieldset', { class: 'account' }, h('legend', { text }), one.space, h('label', { class: 'unseen', for: one.key.id, text: `account, ${text.toLowerCase()}` }), one.key);
    this.from.space.setAttribute('aria-label', 'keyspace, from');
    this.to.space.setAttribute('aria-label', 'keyspace, to');
    this.form = h('form', { class: 'ask-form', hidden: true, onsubmit: (/** @type {Event} */ e) => { e.preventDefault(); this.transact(); } },
      h('div', { class: 'accounts' }, account('From', this.from), account('To', this.to), h('label', { class: 'field' }, 'Amount', this.amount)),
      h('div', { class: 'verb-list' },
        h('button', { class: 'verb', 'data-do': 'transact', text: 'Transfer, all or nothing' }),
        h('button', { type: 'button', class: 'verb', 'data-do': 'begin-saga', text: 'As a saga', title: 'Take it, then give it; if that is refused, give it back', onclick: () => this.beginSaga() }),
        h('label', { class: 'check wraps' }, this.person, ' the saga waits for a person in between')),
      this.sums, this.outcomes);
    box.append(this.form, this.first);
  }

  /** @param {Space[]} all */
  show(all) {
    const spaces = all.filter(({ model }) => model === 'linearizable' || model === 'sequential'), fresh = spaces.some(({ name }) => !this.spaces.some((one) => one.name === name));
    this.spaces = spaces;
    this.drawFirst();
    this.form.hidden = spaces.length === 0;
    for (const [i, { space }] of [this.from, this.to].entries()) {
      const chosen = space.value;
      keep(space, spaces, ({ name }) => name, ({ name }) => h('option', { text: name }));
      const wanted = chosen && spaces.some(({ name }) => name === chosen) && !(fresh && !this.touched) ? chosen : (spaces.find(({ name }) => name === BANKS[i].space) ?? spaces[Math.min(i, spaces.length - 1)])?.name ?? '';
      if (space.value !== wanted) space.value = wanted;
    }
    if (fresh || this.unread) this.look();
  }

  /** Makes what is missing: two banks, and the accounts that are chosen. What is there stays as it is. */
  async open() {
    this.opens.disabled = true;
    try {
      const fresh = this.spaces.length < 2, accounts = fresh ? BANKS : this.missing;
      if (fresh) for (const { space } of BANKS) await demandOfMember({ method: 'PUT', path: `/v1/keyspaces/${part(space)}`, body: { model: 'linearizable' } });
      for (const { space, key, value } of accounts) {
        const ended = await this.inTurn(() => this.run([{ participant: space, work: [{ expect: { key, value: null } }, { put: { key, value } }] }]));
        if (ended.decision !== 'commit' && !fresh) this.does.complain(`${space}/${key} was not opened: ${ended.why ?? 'no reason was given'}.`);
      }
      this.does.changed();
    } catch (error) { this.does.complain(/** @type {Error} */ (error).message); }
    await this.look();
    this.opens.disabled = false;
  }

  drawFirst() {
    const fresh = this.spaces.length < 2, named = this.missing.map(({ space, key, value }) => `${space}/${key} with ${value}`).join(' and ');
    this.first.hidden = !fresh && !this.missing.length;
    put(this.firstSays, { text: fresh ? 'Accounts are keys of keyspaces on the log. With two of them a transfer takes two participants, and either both do their part or none.' : 'Nobody has opened this account: a transfer to it, or from it, is refused.' });
    put(this.opens, { text: fresh ? 'open two banks, with 100 at the first' : `open ${named}` });
  }

  /** @param {any[]} branches */
  async run(branches) { return (await demandOfMember({ method: 'POST', path: '/v1/transactions', body: { branches } })).body; }

  /** @returns {{from:Account, to:Account, amount:number}|null} */
  asked() {
    const account = (/** @type {{space:any, key:any}} */ one) => ({ space: one.space.value, key: one.key.value.trim() });
    const from = account(this.from), to = account(this.to), amount = Number(this.amount.value.trim());
    if (!from.key || !to.key) { this.does.complain('Say which account: the key that holds its balance.'); return null; }
    if (!Number.isSafeInteger(amount) || amount <= 0) { this.does.complain(`“${this.amount.value}” cannot be transferred: write a whole number above 0.`); return null; }
    if (from.space === to.space && from.key === to.key) { this.does.complain('From and to are the same account: choose another one.'); return null; }
    this.touched = true;
    return { from, to, amount };
  }

  /** One transaction: both balances change, or none. */
  async transact() {
    const asked = this.asked();
    if (!asked) return;
    const { from, to, amount } = asked, take = { add: { key: from.key, by: -amount, 'at-least': 0 } }, give = { add: { key: to.key, by: amount } };
    const branches = from.space === to.space ? [{ participant: from.space, work: [take, give] }] : [{ participant: from.space, work: [take] }, { participant: to.space, work: [give] }];
    const line = this.line(`${from.space}/${from.key} → ${to.space}/${to.key}: ${amount}`), sent = performance.now();
    try {
      const ended = await this.inTurn(() => this.run(branches)), ms = Math.max(1, Math.round(performance.now() - sent)), by = ROUTES[ended.route] ?? ended.route;
      if (ended.decision === 'commit') finish(line, 'good', `committed, ${ms} ms`, `by ${by}`);
      else finish(line, 'bad', `aborted, and nothing has happened: ${ended.why ?? 'no reason was given'}`, '');
    } catch (error) { finish(line, 'bad', /** @type {Error} */ (error).message, ''); }
    this.does.changed();
    await this.look();
  }

  /** One step after the other, each of which can be undone. */
  async beginSaga() {
    const asked = this.asked();
    if (!asked) return;
    const { from, to, amount } = asked, add = (/** @type {string} */ key, /** @type {number} */ by, /** @type {any} */ more = {}) => ({ ops: [{ add: { key, by, ...more } }] });
    const steps = [
      { name: 'take', service: from.space, action: add(from.key, -amount, { 'at-least': 0 }), compensation: add(from.key, amount) },
      { name: 'give', service: to.space, action: add(to.key, amount), compensation: add(to.key, -amount), after: ['take'], ...(this.person.checked ? { 'waits-for-person': true } : {}) },
    ];
    const line = this.line(`saga, ${from.space}/${from.key} → ${to.space}/${to.key}: ${amount}`);
    try {
      const said = await demandOfMember({ method: 'POST', path: '/v1/sagas', body: { name: 'transfer', steps } });
      finish(line, 'good', `begun, as ${said.body.saga}`, 'its steps are below; between them the money is in nobody’s account');
    } catch (error) { finish(line, 'bad', /** @type {Error} */ (error).message, ''); }
    this.does.changed();
    await this.look();
  }

  /** One thing after the other: what is read here would be in the way of what is written here. @template T @param {() => Promise<T>} does @returns {Promise<T>} */
  inTurn(does) {
    const mine = this.turn.then(does);
    this.turn = mine.catch(() => {});
    return mine;
  }

  /** Both balances at one moment, by a transaction that reads; once for all who ask before it begins. */
  look() {
    this.waiting ??= this.inTurn(() => { this.waiting = null; return this.lookOnce(); });
    return this.waiting;
  }

  async lookOnce() {
    const of = [this.from, this.to].map(({ space, key }) => ({ space: space.value, key: key.value.trim() })).filter(({ space, key }) => space && key);
    if (of.length < 2 || (of[0].space === of[1].space && of[0].key === of[1].key)) { this.unread = false; put(this.sums, { text: '' }); return; }
    this.unread = true;
    const names = [...new Set(of.map(({ space }) => space))];
    const branches = names.map((participant) => ({ participant, work: of.filter(({ space }) => space === participant).map(({ key }) => ({ get: { key } })) }));
    const said = await askMember({ method: 'POST', path: '/v1/transactions', body: { branches } }).catch((error) => ({ at: '', status: 0, body: error.message, session: null }));
    if (said.status !== 200) { put(this.sums, { text: said.status ? why(said) : said.body }); return; }
    if (said.body.decision !== 'commit') { put(this.sums, { text: `The balances cannot be read now: ${said.body.why ?? 'somebody holds a lock'}.` }); return; }
    const held = of.map(({ space }, i) => said.body.answers[space]?.[of.slice(0, i).filter((one) => one.space === space).length] ?? null);
    this.unread = false;
    this.missing = of.flatMap((one, i) => (held[i] === null ? [{ ...one, value: i ? '0' : '100' }] : []));
    this.drawFirst();
    const sum = held.reduce((total, value) => total + Number(value ?? 0), 0);
    this.sums.replaceChildren(...of.flatMap(({ space, key }, i) => [h('span', { class: 'sum', 'data-account': `${space}/${key}` }, `${space}/${key} `, h('strong', { text: held[i] ?? 'no account' }))]),
      h('span', { class: 'sum' }, 'together ', h('strong', { text: String(sum) })));
    this.sums.lastPut = {};
  }

  /** @param {string} text */
  line(text) {
    const line = h('li', { class: 'waiting' }, h('span', { class: 'asked', text }), h('span', { class: 'said', text: 'waits' }));
    this.outcomes.prepend(line);
    while (this.outcomes.children.length > OUTCOMES_MAX) this.outcomes.lastChild?.remove();
    return line;
  }
}

/** @param {HTMLElement} line @param {string} kind @param {string} text @param {string} more */
function finish(line, kind, text, more) {
  line.className = kind;
  line.querySelector('.said')?.replaceChildren(h('b', { 'aria-hidden': 'true', text: kind === 'good' ? '✓' : '✗' }), ` ${text}`, ...(more ? [h('em', { text: more })] : []));
}
