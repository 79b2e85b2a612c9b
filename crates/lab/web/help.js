// @ts-check
/** The keys, and the signs of the pictures. */

import { h, s } from './dom.js';

const KEYS = [
  ['Space', 'play, pause'], [', and .', 'one event back, on'], ['[ and ]', 'to what is worth seeing'], ['← →', 'move time; with Shift, further'],
  ['Home, End', 'start and end; live: the present'], ['+ −', 'zoom time'], ['1 to 9', 'go to a node'], ['arrows, on a node', 'to the next node'],
  ['Enter, or C', 'crash or restart the node'], ['M, or the menu key', 'everything else that can happen to it'], ['Ctrl+Z', 'undo; with Shift, redo'], ['?', 'this'],
];

const SIGNS = [
  ['leader', 'two rings: leads'], ['candidate', 'dashed ring: asks for votes'], ['follower', 'plain ring: follows'], ['crashed', 'hatch and cross: crashed'], ['paused', 'two bars: paused'],
];

const ARROWS = [
  ['entries', 'new entries', ''], ['beat', 'heartbeat', ''], ['ack', 'answer', '2 3'], ['ask', 'asks for a vote', ''], ['vote', 'vote', '7 3'], ['pre-ask', 'asks whether a vote could be won, and the answer', '1 3'],
  ['gossip', 'updates of a causal or eventual keyspace', ''], ['digest', 'what a member has seen of it', '2 3'],
];

/** @param {any} dialog */
export function showHelp(dialog) {
  dialog.replaceChildren(
    h('div', { class: 'help-head' }, h('h2', { id: 'help-title', text: 'Keys and signs' }), h('button', { type: 'button', class: 'soft', text: 'Close', onclick: () => dialog.close() })),
    h('div', { class: 'help-columns' },
      h('dl', { class: 'keys-list' }, ...KEYS.flatMap(([key, what]) => [h('dt', {}, h('kbd', { text: key })), h('dd', { text: what })])),
      h('div', {},
        h('ul', { class: 'signs' }, ...SIGNS.map(([kind, what]) => h('li', {}, sign(kind), h('span', { text: what }))),
          ...ARROWS.map(([kind, what, dash]) => h('li', {}, arrow(kind, dash), h('span', { text: what })))),
        h('p', { class: 'quiet-text', text: 'The arc around a node is its timer running down. The dots in a node are its votes. The cells beside it are the end of its log: the number is the term that wrote the entry; filled is committed, a full edge is on disk, a dashed edge only in memory.' }))));
  dialog.showModal();
}

/** @param {string} kind */
function sign(kind) {
  const g = s('g', { class: `node ${kind}`, transform: 'translate(18 18)' }, s('circle', { class: 'disc', r: 13 }), s('circle', { class: 'hatch', r: 13 }), s('circle', { class: 'inner', r: 9 }),
    s('path', { class: 'cross', d: 'M-6-6 6 6M6-6-6 6' }), s('path', { class: 'bars', d: 'M-4-5v10M4-5v10' }));
  return s('svg', { viewBox: '0 0 36 36', width: 36, height: 36, 'aria-hidden': 'true' }, g);
}

/** What the live picture shows of messages, in a line below it. */
export function legend() {
  const entries = [['entries', 'the log', ''], ['gossip', 'causal and eventual updates', ''], ['digest', 'what was seen of them', '2 3']];
  return h('ul', { class: 'legend', 'aria-label': 'Messages' }, ...entries.map(([kind, what, dash]) => h('li', {}, arrow(kind, dash, 22), what)));
}

/** @param {string} kind @param {string} dash @param {number} [size] */
function arrow(kind, dash, size = 36) {
  const g = s('g', { class: `sample ${kind}` }, s('path', { d: 'M2 18H28', 'stroke-dasharray': dash || null }), s('path', { class: 'tipped', d: 'M34 18l-7-4v8Z' }));
  return s('svg', { viewBox: '0 0 36 36', width: size, height: size, 'aria-hidden': 'true' }, g);
}
