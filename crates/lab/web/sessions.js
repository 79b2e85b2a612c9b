// @ts-check
/**
 * The session of each keyspace: a token that says what it has seen, shown to whichever member is asked next. It is kept for as long as this
 * tab of the browser, over reloads too. Whoever has a token may use it, so it is kept nowhere else.
 */

import { h } from './dom.js';

/** @typedef {{token:string, at:string, operations:number}} Session */

const STORED = 'synod-sessions';
/** Of a token this much is shown; all of it on request. */
const SHOWN_MAX = 14;

export class Sessions {
  /** @param {(text:string) => void} say */
  constructor(say) {
    /** @type {Map<string, Session>} */ this.of = stored();
    this.space = '';
    this.at = '';
    this.model = '';
    this.carries = h('input', { type: 'checkbox', checked: true, id: 'keys-carries', onchange: () => this.draw() });
    this.words = h('span', { class: 'session-words' });
    this.token = h('code', { class: 'token', id: 'keys-token' });
    this.anew = h('button', { type: 'button', class: 'soft', text: 'New session', title: 'Forgets what this one has seen', 'data-do': 'new-session', onclick: () => { this.of.delete(this.space); store(this.of); this.draw(); } });
    this.copy = h('button', { type: 'button', class: 'soft', text: 'Copy token', title: 'For synod get --session, or curl with Synod-Session', 'data-do': 'copy-token', onclick: async () => {
      try { await navigator.clipboard.writeText(this.held()?.token ?? ''); say('The session’s token is copied. Whoever has it may use it.'); }
      catch { this.token.textContent = this.held()?.token ?? ''; say('Copying was refused: here is all of it, to be marked by hand.'); }
    } });
    this.box = h('section', { class: 'session', 'aria-label': 'Session' },
      h('div', { class: 'session-head' }, h('label', { class: 'check' }, this.carries, ' carry a session’s token'), this.copy, this.anew), h('p', { class: 'quiet-text', role: 'status' }, this.words, ' ', this.token));
  }

  /** @returns {Session|undefined} */
  held() { return this.of.get(this.space); }

  /** What is shown to a member; none for a stranger. @returns {string|null} */
  shows() { return this.carries.checked && this.model !== 'eventual' ? this.held()?.token ?? null : null; }

  /** What a member has given back. @param {string} space @param {string} at @param {string|null} token */
  seen(space, at, token) {
    if (!token || !this.carries.checked) return;
    this.of.set(space, { token, at, operations: (this.of.get(space)?.operations ?? 0) + 1 });
    store(this.of);
    this.draw();
  }

  /** @param {string} space @param {string} model @param {string} at the member that is asked next */
  show(space, model, at) {
    if (this.space === space && this.at === at && this.model === model) return;
    Object.assign(this, { space, at, model });
    this.draw();
  }

  draw() {
    const held = this.held(), none = this.model === 'eventual';
    this.carries.disabled = none;
    this.copy.hidden = this.anew.hidden = none || !held || !this.carries.checked;
    this.token.textContent = held && this.carries.checked && !none ? (held.token.length > SHOWN_MAX ? `${held.token.slice(0, SHOWN_MAX)}…` : held.token) : '';
    this.words.textContent = none ? 'An eventual keyspace has no sessions: a read may go back in time.'
      : !this.carries.checked ? 'Each request is a stranger’s: it may be shown an older state than the one before.'
        : !held ? 'A new session: it has seen nothing yet.'
          : `The session has seen ${held.operations === 1 ? 'one answer' : `${held.operations} answers`}, the last of ${held.at}${held.at === this.at ? '' : `, and goes on at ${this.at}`}.`;
  }
}

/** @returns {Map<string, Session>} */
function stored() {
  try { return new Map(JSON.parse(sessionStorage.getItem(STORED) ?? '[]')); } catch { return new Map(); }
}

/** @param {Map<string, Session>} of */
function store(of) {
  try { sessionStorage.setItem(STORED, JSON.stringify([...of])); } catch { /* without storage a session lasts as long as the page */ }
}
