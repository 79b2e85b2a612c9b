// @ts-check
/** The script: its lines, what a click adds to it, and how an address carries it. Pure. */

export const DEFAULT_SCRIPT = `synod-script 1
protocol raft
nodes 5
seed 7
for 8s
latency 20ms..60ms
election 500ms
heartbeat 150ms
disk 2ms..6ms
clients 2 every 700ms keys 3 mix put:3,get:2
at 2.5s crash leader
`;

/** The script with one more line. @param {string} script @param {string} line */
export function withLine(script, line) {
  return `${script.replace(/\s+$/, '')}\n${line}\n`;
}

/** The script on another protocol. @param {string} script @param {string} protocol */
export function withProtocol(script, protocol) {
  const line = `protocol ${protocol}`;
  return /^protocol .*$/m.test(script) ? script.replace(/^protocol .*$/m, line) : script.replace(/^(synod-script .*)$/m, `$1\n${line}`);
}

/** The script without its line `number`, counted from 0. @param {string} script @param {number} number */
export function withoutLine(script, number) {
  return script.split('\n').filter((_, i) => i !== number).join('\n');
}

/**
 * The timed lines of a script.
 * @param {string} script @returns {{number:number, t:number, time:string, what:string}[]}
 */
export function timed(script) {
  const found = [];
  for (const [number, line] of script.split('\n').entries()) {
    const match = /^\s*at\s+(\S+)\s+([^#]*?)\s*(#.*)?$/.exec(line);
    if (match) found.push({ number, t: nanoseconds(match[1]), time: match[1], what: match[2] });
  }
  return found.sort((a, b) => a.t - b.t);
}

/** The script, made to last at least until `ns`. @param {string} script @param {number} ns */
export function lasting(script, ns) {
  const length = /^[ \t]*for[ \t]+(\S+)/m.exec(script)?.[1];
  if (length && nanoseconds(length) >= ns) return script;
  const line = `for ${Math.ceil(ns / 1e9)}s`;
  return length ? script.replace(/^[ \t]*for[ \t]+\S+/m, line) : withLine(script, line);
}

/** @param {string} text such as `2.5s`; NaN when it is no duration */
export function nanoseconds(text) {
  const match = /^([\d.]+)(ns|us|µs|ms|s|m)$/.exec(text);
  if (!match) return NaN;
  const unit = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 6e10 }[match[2]];
  return Number(match[1]) * Number(unit);
}

/**
 * What an address says: `#sim`, `#live`, `#replay`, `#compare` or `#matrix`, and for simulated runs their script (`s`),
 * the protocols (`p`, of several), the hash that the run had (`h`), the trace format (`v`) and the moment (`t`, milliseconds).
 * @param {string} fragment
 * @returns {{place:string, script:string|null, protocols:string[], hash:string|null, version:number|null, t:number|null}}
 */
export function readAddress(fragment) {
  const [place, ...rest] = fragment.replace(/^#/, '').split('&');
  const told = new Map(rest.map((part) => {
    const at = part.indexOf('=');
    return at < 0 ? [part, ''] : [part.slice(0, at), part.slice(at + 1)];
  }));
  const number = (/** @type {string} */ key) => {
    const value = Number(told.get(key) ?? NaN);
    return Number.isFinite(value) ? value : null;
  };
  const text = told.get('s');
  const t = number('t');
  return {
    place: ['sim', 'live', 'replay', 'compare', 'matrix', 'flp', 'verdicts', 'cap', 'transfer'].includes(place) ? place : 'sim',
    script: text === undefined ? null : unpack(text),
    protocols: (told.get('p') ?? '').split(',').filter((name) => name !== ''),
    hash: told.get('h') ?? null,
    version: number('v'),
    t: t === null ? null : t * 1e6,
  };
}

/** @param {{script:string, hash?:string|null, version?:number, t?:number|null}} run */
export function simAddress({ script, hash, version = 1, t }) {
  const parts = ['#sim', `v=${version}`, `s=${pack(script)}`];
  if (hash) parts.push(`h=${hash}`);
  if (t !== null && t !== undefined) parts.push(`t=${Math.round(t / 1e6)}`);
  return parts.join('&');
}

/** The operations of a run up to a moment, to be judged. @param {{script:string, t:number|null}} run */
export function verdictsAddress({ script, t }) {
  return `#verdicts&v=1&s=${pack(script)}${t === null ? '' : `&t=${Math.round(t / 1e6)}`}`;
}

/** @param {{script:string, protocols:string[], t?:number|null}} runs */
export function compareAddress({ script, protocols, t }) {
  const moment = t === null || t === undefined ? '' : `&t=${Math.round(t / 1e6)}`;
  return `#compare&v=1&p=${protocols.join(',')}&s=${pack(script)}${moment}`;
}

/** Text for a fragment that people can still read: `+` is a space, `~` a new line. @param {string} text */
export function pack(text) {
  return encodeURIComponent(text.trim())
    .replaceAll('~', '%7E').replaceAll('%20', '+').replaceAll('%0A', '~')
    .replaceAll('%3A', ':').replaceAll('%2C', ',').replaceAll('%3E', '>').replaceAll('%7C', '|');
}

/** @param {string} text */
export function unpack(text) {
  try {
    return `${decodeURIComponent(text.replaceAll('~', '%0A').replaceAll('+', '%20'))}\n`;
  } catch {
    return '';
  }
}
