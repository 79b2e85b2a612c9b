// @ts-check
/** The script of the run: its timed lines as a list, and the whole text to edit. */

import { h } from './dom.js';
import { timed, withoutLine } from './script.js';

export class ScriptPanel {
  /** @param {HTMLElement} panel @param {{run:(text:string)=>void, seek:(t:number)=>void}} does */
  constructor(panel, does) {
    this.does = does;
    this.list = h('ol', { class: 'timed' });
    this.text = h('textarea', { id: 'script', spellcheck: 'false', autocapitalize: 'off', autocomplete: 'off', 'aria-label': 'Script', 'aria-describedby': 'script-error', rows: 16 });
    this.error = h('p', { id: 'script-error', class: 'warning', role: 'alert', hidden: true });
    this.run = h('button', { type: 'button', class: 'primary', id: 'run-script', text: 'Run', title: 'Run this script (Ctrl+Enter)', onclick: () => does.run(this.text.value) });
    this.text.addEventListener('keydown', (/** @type {KeyboardEvent} */ e) => { if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) { e.preventDefault(); does.run(this.text.value); } });
    panel.append(h('p', { class: 'quiet-text', text: 'A run is a function of this text: the same script gives the same run, anywhere. What you click becomes a line here.' }),
      h('h3', { text: 'What happens when' }), this.list, h('h3', { text: 'The whole script' }), this.text, this.error, h('div', { class: 'row' }, this.run));
  }

  /** @param {string} script @param {{message:string, line:number}|null} error */
  show(script, error) {
    if (this.text.value !== script) this.text.value = script;
    this.error.hidden = !error;
    this.error.textContent = error ? `${error.line ? `Line ${error.line}: ` : ''}${error.message}` : '';
    if (error) { if (error.line) this.#point(error.line); return; }
    const lines = timed(script);
    this.list.replaceChildren(...lines.map((line) => h('li', {},
      h('button', { type: 'button', class: 'at', text: line.time, title: 'Go there', onclick: () => this.does.seek(line.t) }),
      h('span', { text: line.what }),
      h('button', { type: 'button', class: 'remove', title: `Take back: ${line.what}`, 'aria-label': `Take back: at ${line.time} ${line.what}`, text: '×', onclick: () => this.does.run(withoutLine(script, line.number)) }))));
    if (!lines.length) this.list.replaceChildren(h('li', { class: 'quiet-text', text: 'Nothing goes wrong in this run yet.' }));
  }

  /** @param {number} line */
  #point(line) {
    const lines = this.text.value.split('\n'), start = lines.slice(0, line - 1).join('\n').length + (line > 1 ? 1 : 0);
    this.text.focus();
    this.text.setSelectionRange(start, start + (lines[line - 1]?.length ?? 0));
  }
}
