// @ts-check
/** What a key may hold, what can be asked of each kind, and how answers read. Pure. */

import { part } from './members.js';

/** @typedef {'register'|'counter'|'set'|'siblings'} Kind */
/** @typedef {{verb:string, text:string, title?:string}} Verb */

/**
 * The first is what every keyspace has. `field` is what its writes take besides the key.
 * @type {{kind:Kind, says:string, field:string, value:string, number?:boolean, verbs:Verb[]}[]}
 */
export const KINDS = [
  { kind: 'register', says: 'One value. Of two writes that do not know of each other, the one with the later clock stays.', field: 'Value', value: '1',
    verbs: [{ verb: 'PUT', text: 'Put' }, { verb: 'GET', text: 'Get' }, { verb: 'DELETE', text: 'Delete' }] },
  { kind: 'counter', says: 'A sum. Whatever is added counts, on both sides of a cut; a negative number takes away.', field: 'By', value: '1', number: true,
    verbs: [{ verb: 'ADD', text: 'Add' }, { verb: 'GET', text: 'Read' }] },
  { kind: 'set', says: 'Elements. Of an insertion and a removal that do not know of each other, the insertion wins.', field: 'Element', value: 'a',
    verbs: [{ verb: 'INSERT', text: 'Insert' }, { verb: 'REMOVE', text: 'Remove' }, { verb: 'GET', text: 'Read' }] },
  { kind: 'siblings', says: 'Every value that was written without knowing of the others. Read them, and replace what you have read by one.', field: 'Value', value: '1',
    verbs: [{ verb: 'PUT', text: 'Put beside', title: 'One more value, whatever is there' }, { verb: 'GET', text: 'Read' },
      { verb: 'MERGE', text: 'Replace', title: 'This value in the place of those that were read last' }, { verb: 'DELETE', text: 'Delete', title: 'Those that were read last' }] },
];

/** @param {string} kind */
export function kindOf(kind) { return KINDS.find((one) => one.kind === kind) ?? KINDS[0]; }

/** Which kinds a keyspace of this model has. @param {string} model */
export function kindsOf(model) { return model === 'causal' || model === 'eventual' ? KINDS : KINDS.slice(0, 1); }

/** Whether an operation needs what a read has said of the siblings. @param {string} kind @param {string} verb */
export function needsContext(kind, verb) { return kind === 'siblings' && (verb === 'MERGE' || verb === 'DELETE'); }

/**
 * A request in the API's words, and in a person's; or why it cannot be made.
 * @param {{space:string, kind:string, verb:string, key:string, value:string, level:string, context?:string|null, replaces?:string[]}} asked
 * @returns {{method:string, path:string, body?:any, words:string}|{wrong:string}}
 */
export function request({ space, kind, verb, key, value, level, context, replaces = [] }) {
  if (!key) return { wrong: 'Say which key.' };
  const of = kind === 'register' ? {} : { kind }, query = new URLSearchParams(of);
  const at = (/** @type {URLSearchParams} */ search) => `/v1/keyspaces/${part(space)}/keys/${part(key)}${[...search].length ? `?${search}` : ''}`;
  const write = (/** @type {any} */ body, /** @type {string} */ words) => ({ method: 'PUT', path: at(new URLSearchParams()), body: { ...of, ...body }, words });
  switch (verb) {
    case 'GET':
      if (level) query.set('consistency', level);
      return { method: 'GET', path: at(query), words: `${kind === 'register' ? 'get' : 'read'} ${key}${level ? `, ${level}` : ''}` };
    case 'PUT': return write({ value }, `put ${key} ${kind === 'siblings' ? '+ ' : '= '}${value}`);
    case 'MERGE': return write({ value, context }, `replace ${key}: ${replaces.join(', ') || 'nothing'} by ${value}`);
    case 'DELETE':
      if (context) query.set('context', context);
      return { method: 'DELETE', path: at(query), words: `delete ${key}` };
    case 'ADD': {
      const by = Number(value.trim());
      if (!Number.isSafeInteger(by) || value.trim() === '') return { wrong: `A counter adds whole numbers, such as 1 or -3, and not “${value}”.` };
      return write({ add: by }, `add ${by} to ${key}`);
    }
    case 'INSERT': return write({ insert: [value] }, `insert ${value} into ${key}`);
    case 'REMOVE': return write({ remove: [value] }, `remove ${value} from ${key}`);
  }
  return { wrong: `There is no ${verb} of a ${kind}.` };
}

/**
 * What a read says, whatever kind it is of: `one` value (null for nothing), or `many`.
 * @param {any} body @returns {{one:string|null, many:string[]|null, context:string|null}}
 */
export function reading(body) {
  const many = body.values ?? body.elements, context = body.context ?? null;
  if (Array.isArray(many)) return { one: null, many: many.map(plain), context };
  return { one: body.value === null || body.value === undefined ? null : plain(body.value), many: null, context };
}

/** Bytes that are no text are shown as the API writes them. @param {any} value @returns {string} */
function plain(value) { return typeof value === 'string' ? value : JSON.stringify(value?.base64 ?? value); }
