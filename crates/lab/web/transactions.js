// @ts-check
/** Transactions and sagas of the live cluster: where they stand, what they hold, and by hand what no machine may do. */

import { Accounts } from './accounts.js';
import { byId, h, keep } from './dom.js';
import { askMember, demandOfMember, part, poll, why } from './members.js';

/**
 * @typedef {{participant:string, key:string}} Lock
 * @typedef {{id:string, state:string, role?:string, participants:string[], 'waits-for'?:string[], locks:Lock[], 'age-ms':number, 'in-doubt':boolean, damage?:boolean, branches?:{participant:string, state:string, here?:string, decided?:string}[]}} Txn
 * @typedef {{name:string, service:string, state:string, output?:any, attempts?:number}} Step
 * @typedef {{saga:string, name:string, state:string, why?:string, steps?:Step[]}} Saga
 */

const POLL_MS = 1000;
/** Ages go on between two polls. */
const TICK_MS = 200;
/** Rows of each table; the oldest of what is open matters most. */
const ROWS_MAX = 50;

const MEANS = /** @type {Record<string, string>} */ ({
  open: 'its work is under way', preparing: 'votes are being asked for', alone: 'its one participant decides', committing: 'decided: those who must know are told',
  prepared: 'has promised, and waits for the decision',
  'by-hand': 'a person has ended it, and its coordinator has not confirmed that', damaged: 'it has ended otherwise here than its coordinator has decided',
});
const SIGNS = /** @type {Record<string, string>} */ ({ pending: '·', started: '…', running: '…', done: '✓', refused: '✗', undoing: '↶', compensating: '↶', undone: '↩', compensated: '↩', paused: '‖', skipped: '–' });

export class Transactions {
  /** @param {HTMLElement} panel @param {{cluster:() => any, complain:(why:string) => void, say:(text:string) => void}} does */
  constructor(panel, does) {
    this.does = does;
    this.stand = { transactions: '', sagas: '' };
    this.state = h('p', { class: 'quiet-text', role: 'status', text: 'One moment.' });
    this.rows = h('tbody');
    this.table = h('table', { class: 'txn-table', hidden: true }, h('caption', { class: 'unseen', text: 'Open transactions' }),
      h('thead', {}, h('tr', {}, ...['transaction', 'participants', 'locks', 'age'].map((text) => h('th', { scope: 'col', text })))), this.rows);
    this.sagas = h('div', { class: 'sagas' });
    this.sagaState = h('p', { class: 'quiet-text' });
    const moves = h('section', { class: 'moves', 'aria-label': 'Transfers by hand' });
    this.accounts = new Accounts(moves, { complain: does.complain, say: does.say, changed: () => { this.load(); } });
    panel.append(h('h3', { text: 'Open transactions' }), this.state, this.table, h('h3', { text: 'Move money' }), moves, h('h3', { text: 'Sagas' }), this.sagaState, this.sagas);
    this.refresh = poll(panel, () => !!does.cluster(), POLL_MS, () => this.load());
    setInterval(() => { if (!panel.hidden) tick(panel); }, TICK_MS);
  }

  async load() { await Promise.all([this.loadSpaces(), this.loadTransactions(), this.loadSagas()]); }

  /** Balances may be others once what is under way has moved on. @param {'transactions'|'sagas'} what @param {string} now */
  note(what, now) {
    if (this.stand[what] === now) return;
    this.stand[what] = now;
    this.accounts.look();
  }

  async loadSpaces() {
    const listed = await list('/v1/keyspaces', 'keyspaces');
    if (!listed.why) this.accounts.show(listed.items);
  }

  async loadTransactions() {
    const listed = await list('/v1/transactions', 'transactions');
    const all = listed.items.slice(0, ROWS_MAX).map((/** @type {any} */ one) => /** @type {Txn} */ (one));
    this.note('transactions', all.filter((one) => one['in-doubt']).map((one) => one.id).join());
    const doubt = all.filter((one) => one['in-doubt']).length, byHand = all.filter(({ state }) => state === 'by-hand' || state === 'damaged').length;
    this.state.textContent = listed.why ?? (all.length === 0 ? 'None is open: all have committed or aborted, and hold no lock.'
      : `${all.length - byHand} open${doubt ? `, ${doubt} in doubt: its locks stay held until it learns the decision` : ''}${byHand ? `; ${byHand} ended by hand` : ''}${listed.items.length > all.length ? `; the first ${all.length} are shown` : ''}.`);
    this.table.hidden = all.length === 0;
    keepFocus(this.rows, () => keep(this.rows, all, (one) => JSON.stringify(one, (key, value) => (key === 'age-ms' ? 0 : value)), (one) => this.row(one)));
    all.forEach((one, i) => age(this.rows.children[i], one));
    tick(this.rows);
  }

  /** @param {Txn} one */
  row(one) {
    const awaited = one['waits-for'] ?? [], names = [...new Set([...one.participants, ...awaited])];
    return h('tr', { 'data-txn': one.id, 'data-doubt': String(!!one['in-doubt']), class: one['in-doubt'] ? 'doubt' : '' },
      h('th', { scope: 'row' }, h('code', { text: one.id }), h('span', { class: 'txn-state', text: one.state, title: MEANS[one.state] ?? '' }), one.role && h('small', { text: one.role }),
        one['in-doubt'] && h('strong', { class: 'in-doubt', text: '? in doubt' }),
        ...(one.branches ?? []).filter(({ state }) => state === 'damaged').map(({ participant, here, decided }) => h('strong', { class: 'in-doubt', title: 'it is not atomic any more: compare the data, and mend them by hand', text: `! damage: ${here} at ${participant}, ${decided} was decided` })),
        one['in-doubt'] && h('button', { type: 'button', class: 'soft violation', 'data-resolve': one.id, text: 'Resolve…', onclick: () => this.resolve(one) })),
      h('td', { 'data-label': 'participants' }, h('ul', {}, ...names.map((name) => h('li', {}, name, awaited.includes(name) && h('small', { text: ' … awaited', title: 'nothing goes on before it has answered' }))))),
      h('td', { 'data-label': 'locks' }, one.locks.length ? h('ul', {}, ...one.locks.map(({ participant, key }) => h('li', {}, h('span', { class: 'lock', 'aria-hidden': 'true' }), `${participant}: `, h('code', { text: typeof key === 'string' ? key : JSON.stringify(key) })))) : 'none'),
      h('td', { 'data-label': 'age' }, h('span', { class: 'age' })));
  }

  /** By hand, behind a warning. @param {Txn} one */
  resolve(one) {
    const dialog = byId('resolve'), choice = (/** @type {string} */ value, /** @type {string} */ text) => h('label', { class: 'check' }, h('input', { type: 'radio', name: 'decision', value, onchange: () => ready() }), ` ${text}`);
    const who = h('select', { id: 'resolve-who' }, ...[...new Set([...one.locks.map(({ participant }) => participant), ...one.participants])].map((text) => h('option', { text })));
    const sure = h('input', { type: 'checkbox', id: 'resolve-sure', onchange: () => ready() });
    const does = h('button', { type: 'button', class: 'soft violation', text: 'Resolve', disabled: true, 'data-do': 'resolve' });
    const decision = () => dialog.querySelector('input[name=decision]:checked')?.value;
    const ready = () => { does.disabled = !decision() || !sure.checked; };
    does.addEventListener('click', async () => {
      does.disabled = true;
      try {
        const said = await demandOfMember({ method: 'POST', path: `/v1/transactions/${part(one.id)}/resolve`, body: { participant: who.value, decision: decision(), 'i-know-that-this-can-break-atomicity': true } });
        dialog.close();
        this.does.complain(said.body?.warning ?? `${who.value} was told to ${decision()} ${one.id}.`);
        await this.load();
      } catch (error) { says.textContent = /** @type {Error} */ (error).message; says.hidden = false; ready(); }
    });
    const says = h('p', { class: 'warning', role: 'alert', hidden: true });
    dialog.replaceChildren(h('h2', { id: 'resolve-title', text: `Resolve ${one.id} by hand?` }),
      h('p', {}, 'A participant in doubt has promised to commit and has not heard the decision. It keeps its locks, and may not decide alone: the coordinator may have decided, and told others.'),
      h('p', { class: 'warning' }, h('strong', { text: 'What can break: ' }), 'if you abort what others have committed, or commit what they have aborted, one half of the transaction happens and the other does not. Money is lost or made. Nothing repairs it by itself: if the coordinator is heard of later and has decided otherwise, the damage is shown here, logged and counted, and that is all.'),
      h('p', {}, 'Better: bring back whom it waits for. A member that is killed comes back with what it had promised, and the doubt ends by itself. Decide by hand only if the coordinator is gone for good, and do what it decided if anybody can tell.'),
      h('label', { class: 'field' }, 'Participant', who),
      h('div', { class: 'decisions', role: 'radiogroup', 'aria-label': 'Decision' }, choice('commit', 'commit'), choice('abort', 'abort')),
      h('label', { class: 'check wraps' }, sure, ' I know that this can break atomicity'), says,
      h('div', { class: 'verb-list dialog-verbs' }, h('button', { type: 'button', class: 'primary', text: 'Leave it alone', autofocus: true, onclick: () => dialog.close() }), does));
    dialog.showModal();
  }

  async loadSagas() {
    const listed = await list('/v1/sagas', 'sagas');
    /** @type {Saga[]} */ const all = await Promise.all(listed.items.slice(-ROWS_MAX).reverse().map(async (/** @type {any} */ one) => {
      if (one.steps) return one;
      const said = await askMember({ path: `/v1/sagas/${part(one.saga ?? one)}` }).catch(() => null);
      return said?.status === 200 ? said.body : { ...one, steps: [] };
    }));
    this.sagaState.textContent = listed.why ?? (all.length ? '' : 'None has been begun. A saga takes its steps one after the other, and undoes them in reverse order if one is refused: “As a saga” begins one, and synod saga run FILE another.');
    this.note('sagas', all.map((one) => `${one.saga} ${(one.steps ?? []).map((step) => step.state).join()}`).join());
    keepFocus(this.sagas, () => keep(this.sagas, all, (one) => JSON.stringify(one), (one) => this.saga(one)));
  }

  /** @param {Saga} one */
  saga(one) {
    const steps = one.steps ?? [], paused = pausedSteps(one), ends = ['done', 'compensated'].includes(one.state);
    return h('article', { class: 'saga', 'data-saga': one.saga, 'data-state': one.state },
      h('h4', {}, one.name, h('code', { text: one.saga }), h('span', { class: `saga-state ${one.state}`, text: one.state })),
      one.why && h('p', { class: 'quiet-text', text: one.why }),
      h('ol', { class: 'saga-steps' }, ...steps.map((step) => {
        const state = paused.includes(step) ? 'paused' : step.state;
        return h('li', { class: `saga-step ${state}`, 'data-step': step.name }, h('b', { 'aria-hidden': 'true', text: SIGNS[state] ?? '' }), h('strong', { text: step.name }), h('span', { text: step.service }),
          h('small', { text: `${state}${(step.attempts ?? 0) > 1 ? `, ${step.attempts} attempts` : ''}` }),
          paused.includes(step) && h('button', { type: 'button', class: 'soft', text: 'Resume', 'aria-label': `Resume ${step.name} of ${one.saga}`, 'data-resume': `${one.saga}/${step.name}`, onclick: () => this.tell(`/v1/sagas/${part(one.saga)}/steps/${part(step.name)}/resume`, `${step.name} goes on.`) }));
      })),
      !ends && one.state !== 'compensating' && h('button', { type: 'button', class: 'soft', text: 'Cancel', 'aria-label': `Cancel ${one.saga}`, 'data-cancel': one.saga, title: 'Undoes what was done, in reverse order; refused once its pivot was started', onclick: () => this.tell(`/v1/sagas/${part(one.saga)}/cancel`, `${one.saga} will be undone.`) }));
  }

  /** @param {string} path @param {string} done */
  async tell(path, done) {
    try {
      await demandOfMember({ method: 'POST', path });
      this.does.say(done);
      await this.load();
    } catch (error) { this.does.complain(/** @type {Error} */ (error).message); }
  }
}

/** The steps that wait for a person: those that say so, or else where a paused saga stands. @param {Saga} saga @returns {Step[]} */
export function pausedSteps({ state, steps = [] }) {
  const told = steps.filter((step) => step.state === 'paused');
  if (told.length || state !== 'paused') return told;
  return steps.filter((step) => ['pending', 'started', 'undoing'].includes(step.state)).slice(0, 1);
}

/** @param {string} path @param {string} field @returns {Promise<{items:any[], why:string|null}>} */
async function list(path, field) {
  try {
    const said = await askMember({ path });
    if (said.status === 404) return { items: [], why: `${said.at} does not offer them: it may be of an older version.` };
    if (said.status >= 300) return { items: [], why: why(said) };
    return { items: said.body[field] ?? [], why: null };
  } catch (error) { return { items: [], why: /** @type {Error} */ (error).message }; }
}

/** Whoever is at a button there stays at it. @param {HTMLElement} box @param {() => void} draw */
function keepFocus(box, draw) {
  const at = box.contains(document.activeElement) ? /** @type {HTMLElement} */ (document.activeElement) : null;
  const found = at && ['data-resolve', 'data-cancel', 'data-resume'].find((name) => at.hasAttribute(name));
  draw();
  if (found && !at.isConnected) /** @type {HTMLElement|null} */ (box.querySelector(`[${found}="${CSS.escape(at.getAttribute(found) ?? '')}"]`))?.focus();
}

/** @param {any} row @param {Txn} one */
function age(row, one) { const el = row?.querySelector('.age'); if (el) el.since = performance.now() - one['age-ms']; }

/** @param {Element} box */
function tick(box) {
  for (const el of /** @type {Iterable<any>} */ (box.querySelectorAll('.age'))) {
    const ms = performance.now() - el.since;
    el.textContent = ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.floor(ms / 60_000)} min ${Math.floor((ms % 60_000) / 1000)} s`;
  }
}
