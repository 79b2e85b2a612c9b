// @ts-check
/** Histories as the page holds them: their text for the checker, their address, and the chapter's examples. Pure. */

import { pack, unpack } from './script.js';

/**
 * @typedef {{id:number, client:string, node?:string|null, session?:string|null, op:string, key?:string|null, value?:any, expect?:any, more?:Record<string, any>,
 *   start:number, end:number|null, outcome:'ok'|'fail'|'unknown', answered:boolean, answer?:any, reply?:Record<string, any>, error?:string|null}} Operation
 * @typedef {{header:{object:string, initial?:any, about?:string|null, more?:Record<string, any>}, timed:boolean, whole:boolean, operations:Operation[], notes:{t:number, text:string, node?:string|null}[]}} Held
 */

/** What an address may carry; a longer history is kept by the page only. */
export const ADDRESS_CHARS_MAX = 12_000;

/** One unit of an example's time. */
export const SECOND = 1e9;

/** @param {Held} held @returns {string} the history in the checker's own format */
export function toLines(held) {
  const { object, initial, more } = held.header;
  const events = held.notes.map((note) => ({ t: note.t, rank: 0, line: { event: 'note', text: note.text, ...(note.node ? { node: note.node } : {}) } }));
  for (const o of held.operations) {
    const optional = { node: o.node, session: o.session, key: o.key, value: o.value };
    const told = Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== null && value !== undefined));
    // A compare-and-set that expects nothing says so.
    const expect = o.op === 'cas' ? { expect: o.expect ?? null } : {};
    events.push({ t: o.start, rank: 1, line: { event: 'invoke', id: o.id, client: o.client, op: o.op, ...told, ...expect, ...o.more } });
    if (o.end === null) continue;
    const outcome = o.outcome === 'ok' ? { ...(o.answered ? { value: o.answer ?? null } : {}), ...o.reply } : o.error ? { error: o.error } : {};
    events.push({ t: o.end, rank: 2, line: { event: o.outcome, id: o.id, ...outcome } });
  }
  // Of two events at one time the invocation comes first, since that claims less.
  events.sort((a, b) => a.t - b.t || a.rank - b.rank);
  const head = { 'synod-history': 1, object, ...(initial === undefined || initial === null ? {} : { initial }), ...more };
  return [head, ...events.map(({ t, line }) => ({ ...line, time: Math.max(0, Math.round(t)) }))].map((line) => JSON.stringify(line)).join('\n') + '\n';
}

/** @param {Operation} o such as `put x = 1` */
export function called(o) {
  const say = (/** @type {any} */ value) => (typeof value === 'string' ? value : JSON.stringify(value));
  const name = o.key ? `${o.op} ${o.key}` : o.op;
  if (o.op === 'cas') return `${name} ${say(o.expect ?? null)} ⇒ ${say(o.value)}`;
  if (o.more?.ops) return `${name} ${JSON.stringify(o.more.ops)}`;
  return o.value === null || o.value === undefined ? name : `${name} = ${say(o.value)}`;
}

/** @param {Operation} o what the client heard */
export function heard(o) {
  if (o.outcome === 'fail') return 'refused';
  if (o.outcome === 'unknown') return '?';
  if (!o.answered) return '';
  if (o.answer === null || o.answer === undefined) return '→ nothing';
  return `→ ${typeof o.answer === 'string' ? o.answer : JSON.stringify(o.answer)}`;
}

/** @param {Held} held its place in an address, or null if it is too long for one */
export function toAddress(held) {
  const rows = held.operations.map((o) => [o.client, o.start, o.end, o.op, o.key ?? null, o.value ?? null, o.expect ?? null, o.outcome, o.answered ? 1 : 0, o.answer ?? null, o.more ?? {}, o.reply ?? {}]);
  const text = pack(JSON.stringify([held.header.object, held.header.initial ?? null, held.header.more ?? {}, rows]));
  return text.length <= ADDRESS_CHARS_MAX ? text : null;
}

/** @param {string} text @returns {Held|null} null if an address carries no history */
export function fromAddress(text) {
  try {
    const [object, initial, more, rows] = JSON.parse(unpack(text));
    const operations = rows.map((/** @type {any[]} */ [client, start, end, op, key, value, expect, outcome, answered, answer, more, reply], /** @type {number} */ id) =>
      ({ id, client, start, end, op, key, value, expect, outcome, answered: answered === 1, answer, more, reply }));
    return { header: { object, initial, more }, timed: true, whole: true, operations, notes: [] };
  } catch { return null; }
}

/** A history of a key-value store in seconds: `client start end put|get key value`; `-` reads nothing. @param {string} text @returns {Held} */
function example(text) {
  const operations = text.trim().split('\n').map((line, id) => {
    const [client, start, end, op, key, value] = line.trim().split(/\s+/);
    const got = value === '-' ? null : value;
    return /** @type {Operation} */ ({
      id, client, op, key, start: Number(start) * SECOND, end: Number(end) * SECOND, outcome: 'ok',
      ...(op === 'put' ? { value: got, answered: false } : { answered: true, answer: got }),
    });
  });
  return { header: { object: 'kv' }, timed: true, whole: true, operations, notes: [] };
}

/** The chapter's own examples, strongest first, each with what to try. */
export const EXAMPLES = [
  {
    id: 'one-copy', title: 'As if there were one copy', point: 'Linearizable',
    about: 'Client 1 writes x = 1. Once the write has completed, clients 2 and 3 both see it.',
    attempt: 'Change client 3’s answer to nothing: it reads a value that was overwritten before it asked.',
    held: example('client-1 0 2 put x 1\nclient-2 3 4.5 get x 1\nclient-3 3.5 5 get x 1'),
  },
  {
    id: 'during', title: 'While the write is under way', point: 'Linearizable',
    about: 'Two reads overlap the write. One sees the old value and one the new: the write takes effect between them.',
    attempt: 'Drag the first read’s beginning behind the second read’s end: the new value was seen, and now the old one again.',
    held: example('client-1 0 5 put x 1\nclient-2 0.6 1.9 get x -\nclient-3 2.6 4.2 get x 1'),
  },
  {
    id: 'late', title: 'One order, but late', point: 'Sequential, not linearizable',
    about: 'Client 1 writes x = 1 at once. Client 2 still reads nothing at 1, then 1 at 2. Everybody agrees on one order; it is only not the clock’s.',
    attempt: 'Drag the end of the write to the right until it overlaps the first read: then it is linearizable too.',
    held: example('client-1 0 0.7 put x 1\nclient-2 1 1.6 get x -\nclient-2 2 2.6 get x 1'),
  },
  {
    id: 'disagree', title: 'Two readers disagree', point: 'Causal, not sequential',
    about: 'Alice and Carol post without knowing of each other. Dave sees only Alice’s post at first, Erin only Carol’s. No single order explains both; none is needed.',
    attempt: 'Change Dave’s first answer about c to lunch?: one order is enough again.',
    held: example('alice 0 1 put a hello\ncarol 0.2 1.2 put c lunch?\ndave 2 2.8 get a hello\ndave 3.2 4 get c -\nerin 2.1 2.9 get c lunch?\nerin 3.3 4.1 get a -\ndave 4.6 5.4 get c lunch?\nerin 4.7 5.5 get a hello'),
  },
  {
    id: 'reply', title: 'A reply after what it answers', point: 'Causal',
    about: 'Alice posts, Bob reads it and replies; whoever sees the reply finds the post. Carol’s post may appear anywhere.',
    attempt: 'Change what Dave reads of a to nothing: he sees an answer without its question.',
    held: example('alice 0 0.8 put a lunch?\nbob 1.2 2 get a lunch?\nbob 2.3 3.1 put b yes!\ncarol 0.5 1.4 put c hello\ndave 3.8 4.5 get b yes!\ndave 4.8 5.5 get a lunch?\ndave 5.8 6.5 get c -\ndave 6.8 7.5 get c hello'),
  },
  {
    id: 'before', title: 'The reply before the post', point: 'Eventual, not causal',
    about: 'Dave sees Bob’s reply, and not yet what it answers. In the end everything is there: that is all that was promised.',
    attempt: 'Change what Dave first reads of a to lunch?: effects come after their causes again.',
    held: example('alice 0 0.8 put a lunch?\nbob 1.2 2 get a lunch?\nbob 2.3 3.1 put b yes!\ndave 3.8 4.5 get b yes!\ndave 4.8 5.5 get a -\ndave 6.4 7.1 get a lunch?'),
  },
  {
    id: 'back', title: 'Back in time', point: 'Eventual, not causal',
    about: 'A client that asks one replica, then another that lags, then the first again: 1, nothing, 1.',
    attempt: 'Change the middle answer to 1. Or give the middle read to another client: then nobody went back.',
    held: example('writer 0 0.8 put x 1\nreader 1.2 1.9 get x 1\nreader 2.3 3 get x -\nreader 3.4 4.1 get x 1'),
  },
  {
    id: 'converge', title: 'In the end', point: 'Eventual',
    about: 'Written at node A, read at node B: early nothing, later the value. Nothing is said about when.',
    attempt: 'Change the last answer to 2, which nobody wrote: that breaks even the weakest promise.',
    held: example('writer 0 0.7 put x 1\nreader 1 1.7 get x -\nreader 2 2.7 get x -\nreader 3 3.7 get x 1'),
  },
];
