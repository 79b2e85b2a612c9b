// @ts-check
/** The matrix: every protocol under every fault. Its cells open a run. */

import { h } from './dom.js';
import { LESSONS } from './lessons.js';
import { aboutProtocol } from './protocols.js';
import { simAddress } from './script.js';

/** @typedef {{protocol:string, fault:string, runs:number, unsafe_runs:number, stalled_runs:number, faults:number, as_expected:boolean, served:boolean, example:any}} Cell */

/** Draws the page, once. @param {HTMLElement} box @param {(why:string) => void} complain */
export async function drawMatrix(box, complain) {
  if (box.firstChild) return;
  const response = await fetch('matrix.json');
  const matrix = await response.json();
  /** @type {Cell[]} */ const cells = matrix.cells;
  const faults = [...new Set(cells.map((c) => c.fault))], protocols = [...new Set(cells.map((c) => c.protocol))];
  const runs = cells.reduce((sum, c) => sum + c.runs, 0), struck = cells.reduce((sum, c) => sum + c.faults, 0);
  const cell = (/** @type {string} */ fault, /** @type {string} */ protocol) => cells.find((c) => c.fault === fault && c.protocol === protocol);
  box.replaceChildren(
    h('header', { class: 'page-head' }, h('p', { class: 'eyebrow', text: 'Faults' }), h('h1', { text: 'Every protocol under every fault' }),
      h('p', { text: `Each cell is a campaign of ${matrix.seeds} random runs with ${matrix.nodes} nodes in which one kind of fault strikes: ${runs.toLocaleString('en')} runs and ${struck.toLocaleString('en')} faults in all. Within its budget a protocol must keep every promise. The last rows are one fault beyond what any protocol can bear; a simulator that saw nothing wrong there would be blind. A cell opens one of its runs.` })),
    h('section', { class: 'tables' },
      h('div', { class: 'wide' }, h('table', { class: 'matrix' },
        h('thead', {}, h('tr', {}, h('th', { scope: 'col', text: 'Fault' }), ...protocols.map((p) => h('th', { scope: 'col', text: aboutProtocol(p)?.name ?? p })))),
        h('tbody', {}, ...faults.map((fault) => h('tr', {}, h('th', { scope: 'row', text: fault }), ...protocols.map((p) => drawCell(matrix, cell(fault, p), complain))))))),
      h('p', { class: 'quiet-text' }, 'Measured with ', h('code', { text: 'synod sim matrix --json' }), '; the same command runs it on your machine.'),
      h('h2', { text: 'One rule taken out' }),
      h('p', { text: 'The other way to see what a rule is for: take it out, and let the simulator look for the run that breaks.' }),
      h('ul', { class: 'lessons' }, ...LESSONS.map((lesson) => h('li', {},
        h('a', { href: simAddress({ script: lesson.script, t: lesson.steps[0].t }), 'data-lesson': lesson.protocol, text: lesson.title }), h('span', { text: lesson.rule }))))));
}

/** @param {any} matrix @param {Cell|undefined} cell @param {(why:string) => void} complain */
function drawCell(matrix, cell, complain) {
  if (!cell) return h('td');
  const { unsafe_runs: broken, stalled_runs: stalled, runs } = cell;
  const [kind, sign, text] = cell.served === false ? ['open', '·', 'not served'] : broken ? ['bad', '✗', `${broken} of ${runs} broken`] : stalled ? ['open', '–', `safe, ${stalled} of ${runs} stall`] : ['good', '✓', 'kept'];
  const example = cell.example;
  const title = cell.served === false ? 'This protocol refuses what this row is about, and the runs were judged all the same' : example ? `${example.violation.promise}: ${example.violation.detail}` : `${cell.faults.toLocaleString('en')} faults in ${runs} runs, and every promise was kept`;
  return h('td', {}, h('button', {
    type: 'button', class: `cell ${kind}${cell.as_expected ? '' : ' wrong'}`, title, 'data-cell': `${cell.protocol}/${cell.fault}`,
    onclick: () => open(matrix, cell).catch((error) => complain(error.message)),
  }, h('span', { class: 'sign', 'aria-hidden': 'true', text: sign }), h('span', { text })));
}

/** Opens the run that failed, at the moment when it did, or else the cell's first. @param {any} matrix @param {Cell} cell */
async function open(matrix, cell) {
  const ask = { protocol: cell.protocol, fault: cell.fault, seed: cell.example?.seed ?? 0, nodes: matrix.nodes, until: matrix.until };
  const response = await fetch('/api/swarm', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(ask) });
  if (!response.ok) throw new Error((await response.json()).error);
  location.hash = simAddress({ script: await response.text(), t: cell.example?.violation.t ?? null });
}
