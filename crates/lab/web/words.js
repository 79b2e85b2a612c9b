// @ts-check
/** Sentences about a moment: what is going on, and why nothing happens. Pure. */

import { leaderOf, reach } from './view.js';

/** The protocol that agrees on one value only. */
export const SINGLE = 'single-paxos';

/** What each protocol calls its ordering of leaders. */
const EPOCH = { raft: 'term', 'multi-paxos': 'ballot', 'single-paxos': 'ballot', zab: 'epoch', viewstamped: 'view' };

/** What is said of a message that overtook its sender's disk. */
export const EARLY = 'early: it left while its sender’s disk was still writing, and stays true if that is lost';

/** @param {string} protocol */
export function epochWord(protocol) {
  return /** @type {any} */ (EPOCH)[baseOf(protocol)] ?? 'epoch';
}

/** `raft` of `raft/old_term_counted`, which is Raft with a rule taken out. @param {string} protocol */
export function baseOf(protocol) {
  return protocol.split('/')[0];
}

/** What a ballot's round counts for in the number of an epoch: a ballot is a round and the member that it belongs to. */
const BALLOT_ROUND = 1e6;

/** How many views Viewstamped Replication counts in each of its epochs: a view-number is both. */
const VIEWS = 1e12;

/**
 * An epoch as its protocol writes it. No term, Zab epoch or view of the founders comes near a ballot's numbers, and no
 * ballot of a run near a view's in a later epoch.
 * @param {number} epoch
 */
export function epochNumber(epoch) {
  if (epoch >= VIEWS) return `${Math.floor(epoch / VIEWS)}.${epoch % VIEWS}`;
  return epoch < BALLOT_ROUND ? String(epoch) : `${Math.floor(epoch / BALLOT_ROUND)}.n${epoch % BALLOT_ROUND}`;
}

/** "a, b and c" @param {string[]} items */
export function list(items) {
  if (items.length < 2) return items.join('');
  return `${items.slice(0, -1).join(', ')} and ${items[items.length - 1]}`;
}

/** A duration of the run for people. @param {number} ns */
export function duration(ns) {
  const ms = ns / 1e6, size = Math.abs(ms);
  if (size >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (size >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  if (size >= 10) return `${Math.round(ms)} ms`;
  return `${ms.toFixed(size >= 1 ? 1 : 2)} ms`;
}

/** A moment of the run. @param {number} ns @param {number} [digits] */
export function clock(ns, digits = 3) {
  return `${(ns / 1e9).toFixed(digits)} s`;
}

/** A moment as the script writes it: milliseconds are fine enough. @param {number} ns */
export function scriptTime(ns) {
  return `${Number((Math.ceil(ns / 1e6) / 1000).toFixed(3))}s`;
}

/** What the whole cluster does. @param {import('./view.js').View} v @param {string} protocol */
export function summary(v, protocol) {
  if (!v.known) return 'This part of the run is on its way.';
  if (protocol === SINGLE) return onOneValue(v);
  const word = epochWord(protocol);
  const parts = [];
  const up = v.nodes.filter((n) => n.up && !n.paused && (n.part === 'voter' || n.part === 'leaving'));
  const leader = leaderOf(v);
  const candidates = up.filter((n) => n.role === 'candidate');
  if (up.length < v.quorum) {
    parts.push(`Only ${up.length} of ${v.voters} run: that is no majority, so nobody can be elected and nothing commits.`);
  } else if (leader && !(leader.paused && candidates.length)) {
    parts.push(leads(v, leader, word));
  } else if (candidates.length) {
    const best = candidates.reduce((a, b) => (b.granted.length > a.granted.length ? b : a));
    parts.push(`${best.id} stands for election: ${standing(v, best, word)}`);
  } else {
    parts.push(`Nobody leads. ${nextTimer(v, up)}`);
  }
  const learners = v.nodes.filter((n) => n.part === 'learner' || n.part === 'entering').map((n) => n.id), out = v.nodes.filter((n) => n.part === 'out').map((n) => n.id);
  if (learners.length) parts.push(`${list(learners)} ${learners.length > 1 ? 'learn' : 'learns'} and ${learners.length > 1 ? 'do' : 'does'} not count yet.`);
  if (out.length) parts.push(`${list(out)} ${out.length > 1 ? 'are' : 'is'} not in the cluster.`);
  const down = v.nodes.filter((n) => !n.up).map((n) => n.id);
  if (down.length && up.length >= v.quorum) parts.push(`${list(down)} ${down.length > 1 ? 'are' : 'is'} down.`);
  const paused = v.nodes.filter((n) => n.up && n.paused).map((n) => n.id);
  if (paused.length) parts.push(`${list(paused)} ${paused.length > 1 ? 'are' : 'is'} paused.`);
  return parts.join(' ');
}

/** @param {import('./view.js').NodeView} n @param {string} name */
function field(n, name) { return n.fields.find(([key]) => key === name)?.[1]; }

/** What the members of single-decree Paxos do. @param {import('./view.js').View} v */
function onOneValue(v) {
  const up = v.nodes.filter((n) => n.up), knows = up.filter((n) => field(n, 'chosen'));
  const parts = [];
  if (knows.length) parts.push(`“${field(knows[0], 'chosen')}” is chosen, as ${list(knows.map((n) => n.id))} ${knows.length > 1 ? 'know' : 'knows'}: no other value can be, ever.`);
  for (const n of knows.length ? [] : up.filter((x) => field(x, 'ballot'))) {
    const ballot = field(n, 'ballot'), promised = (field(n, 'granted by') ?? '').split(' ').filter((id) => /^n/.test(id)).length;
    parts.push(n.role === 'candidate' ? `${n.id} asks for promises under ballot ${ballot}: it has ${promised} and needs ${v.quorum}.`
      : n.role === 'leader' ? `${n.id} has a majority’s promises, and asks all to accept under ballot ${ballot}.` : `${n.id} was overtaken under ballot ${ballot}, and waits before it tries a higher one.`);
  }
  if (!parts.length) parts.push('Nobody proposes. Each member remembers what it has promised and accepted.');
  const down = v.nodes.filter((n) => !n.up).map((n) => n.id);
  if (down.length) parts.push(`${list(down)} ${down.length > 1 ? 'are' : 'is'} down.`);
  return parts.join(' ');
}

/** @param {import('./view.js').View} v @param {import('./view.js').NodeView} leader @param {string} word */
function leads(v, leader, word) {
  const reached = reach(v, leader.id).length;
  if (leader.paused) return `${leader.id} leads ${word} ${epochNumber(leader.epoch)}, but stands still: its followers will not wait for it long.`;
  if (reached < v.quorum) {
    return `${leader.id} still takes itself for the leader of ${word} ${epochNumber(leader.epoch)}, but reaches only ${reached} of ${v.voters}: what it appends now cannot commit.`;
  }
  const others = v.nodes.filter((n) => n.up && n.role === 'leader' && n !== leader);
  const stale = others.map((n) => ` ${n.id} still takes itself for the leader of ${word} ${epochNumber(n.epoch)}, which is past.`).join('');
  const with_ = leader.votes.length ? ` with the votes of ${list(leader.votes)}` : '';
  return `${leader.id} leads ${word} ${epochNumber(leader.epoch)}${with_}.${stale}`;
}

/** @param {import('./view.js').View} v @param {import('./view.js').NodeView} n @param {string} word */
function standing(v, n, word) {
  const has = `${n.granted.length} of ${v.voters}`, near = reach(v, n.id).length;
  if (near < v.quorum) return `it needs ${v.quorum} of ${v.voters}, and reaches only ${near}, itself included: it cannot win.`;
  if (n.pre) return `before it calls for votes, it asks who would give it one in the next ${word}; ${has} would so far, and it needs ${v.quorum}.`;
  return `in ${word} ${epochNumber(n.epoch)} it has ${has} votes and needs ${v.quorum}.`;
}

/** @param {import('./view.js').View} v @param {import('./view.js').NodeView[]} up */
function nextTimer(v, up) {
  const waiting = up.filter((n) => n.deadline !== null && n.deadline >= v.t);
  if (!waiting.length) return '';
  const first = waiting.reduce((a, b) => (Number(b.deadline) < Number(a.deadline) ? b : a));
  return `${first.id}'s timer runs out first, in ${duration(Number(first.deadline) - v.t)}.`;
}

/** What one node does, and what it waits for. @param {import('./view.js').View} v @param {string} id @param {string} protocol */
export function waits(v, id, protocol) {
  const n = v.byId.get(id), word = epochWord(protocol);
  if (!n || !n.known) return '';
  if (protocol === SINGLE) return waitsForOneValue(v, n);
  if (!n.up) return `${id} is down. What it had synced to disk will be there when it returns; the rest is lost.`;
  if (n.paused) return `${id} is paused. Messages to it wait, and it does not know that time passes.`;
  const left = n.deadline === null ? null : n.deadline - v.t;
  if (n.role === 'candidate') return `${id} waits: ${standing(v, n, word)}`;
  if (n.role === 'leader') {
    if (n.last > n.committed) {
      const open = n.committed + 1, entry = n.log.find(([index]) => index === open);
      if (protocol === 'raft' && entry && entry[1] < n.epoch) return `${id} leads term ${n.epoch}. Entry ${open} is of term ${entry[1]}, and copies of it count for nothing: it commits along with the first entry of term ${n.epoch}.`;
      const holders = v.nodes.filter((x) => x.up && x.durable >= open && x.epoch <= n.epoch).length;
      return `${id} leads ${word} ${epochNumber(n.epoch)}. Entry ${open} is on the disks of ${holders} of ${v.voters}; it commits when ${v.quorum} have told ${id} so.`;
    }
    return `${id} leads ${word} ${epochNumber(n.epoch)}. ${n.last === 1 ? 'Its one entry is' : `All ${n.last} entries are`} committed; it sends heartbeats so that nobody else stands.`;
  }
  if (n.part === 'out') return `${id} is not a member: nobody counts what it holds or says.`;
  if (n.role === 'learner') return `${id} receives the log and does not vote.`;
  if (n.role === 'abstaining') return `${id} abstains: its disk is damaged, and it may not vote on what it may have forgotten.`;
  const timer = left === null ? '' : ` Unless it hears from a leader within ${duration(Math.max(0, left))}, it stands for election.`;
  if (n.leader) return `${id} follows ${n.leader} in ${word} ${epochNumber(n.epoch)}.${timer}`;
  return `${id} knows no leader in ${word} ${epochNumber(n.epoch)}${n.voted ? `, and voted for ${n.voted}` : ''}.${timer}`;
}

/** @param {import('./view.js').View} v @param {import('./view.js').NodeView} n */
function waitsForOneValue(v, n) {
  if (!n.up) return `${n.id} is down. What it has promised and accepted is on its disk.`;
  const chosen = field(n, 'chosen'), ballot = field(n, 'ballot'), left = n.deadline === null ? '' : ` If it comes to nothing within ${duration(Math.max(0, n.deadline - v.t))}, it tries a higher ballot.`;
  if (chosen) return `${n.id} knows that “${chosen}” is chosen.`;
  if (n.role === 'candidate') return `${n.id} prepares: it asks for promises to accept nothing under a ballot below ${ballot}, and what was accepted so far.${left}`;
  if (n.role === 'leader') return `${n.id} proposes under ballot ${ballot}: the value accepted under the highest ballot that its promisers told, or its own if there was none.${left}`;
  if (ballot) return `${n.id} was overtaken by a higher ballot.${left}`;
  return `${n.id} has promised to accept nothing below ballot ${field(n, 'promised')}, and accepted ${field(n, 'accepted')}.`;
}

/** A key or a value as people read it. @param {any} value */
export function valueWords(value) {
  return value === undefined || value === null ? '' : typeof value === 'object' ? JSON.stringify(value.base64 ?? value) : String(value);
}

/** One event as a line of the table. @param {any} e @returns {{who:string, what:string, detail:string}} */
export function eventWords(e) {
  switch (e.k) {
    case 'state': return { who: e.n, what: 'state', detail: `${e.s.up ? (e.s.paused ? 'paused' : e.s.role) : 'down'}, epoch ${epochNumber(e.s.epoch)}, log ${e.s.last}, durable ${e.s.durable}, committed ${e.s.committed}` };
    case 'send': return { who: e.from, what: `sends ${e.name}`, detail: `m${e.m} to ${e.to}${e.copy_of ? `, a copy of m${e.copy_of}` : ''}: ${e.detail ?? ''}${e.lost ? ` (will be lost: ${e.lost})` : ''}${e.early ? ` (${EARLY})` : ''}` };
    case 'recv': return { who: e.to ?? '', what: `receives ${e.sent?.name ?? ''}`, detail: `m${e.m}${e.sent ? ` from ${e.sent.from}: ${e.sent.detail ?? ''}` : ''}` };
    case 'drop': return { who: e.to ?? '', what: `never gets ${e.sent?.name ?? ''}`, detail: `m${e.m}${e.sent ? ` from ${e.sent.from}` : ''}: ${e.why ?? ''}` };
    case 'disk': return { who: e.n, what: `disk ${e.op}`, detail: e.bytes === undefined ? '' : `${e.bytes} bytes` };
    case 'record': return { who: e.n, what: `records ${e.name}`, detail: e.detail ?? '' };
    case 'timeout': return { who: e.n, what: 'timer runs out', detail: '' };
    case 'commit': return { who: e.n, what: 'commits', detail: e.from === e.to ? `entry ${e.to}` : `entries ${e.from} to ${e.to}` };
    case 'op': return { who: e.c, what: `${e.f ?? ''} ${e.phase}`, detail: `${e.space ? `${e.space}/` : ''}${valueWords(e.key)}${e.value === undefined || e.value === null ? '' : ` = ${valueWords(e.value)}`}${e.error ? `, ${e.error}` : ''}${e.node ? ` at ${e.node}` : ''}` };
    case 'fault': return { who: e.a ?? '', what: 'fault', detail: e.text ?? e.what };
    case 'note': return { who: '', what: 'note', detail: e.text ?? '' };
    case 'violation': return { who: '', what: `breaks ${e.promise}`, detail: e.detail ?? '' };
    case 'process': return { who: e.n, what: e.running ? (e.stopped ? 'process stopped' : 'process runs') : 'process ended', detail: e.pid ? `pid ${e.pid}` : '' };
    case 'link': return { who: e.n, what: e.up ? 'connects' : 'loses a connection', detail: e.to ? `to ${e.to}` : '' };
    case 'hole': return { who: e.n, what: 'not shown', detail: e.text ?? '' };
    case 'gap': return { who: '', what: 'gap', detail: `${e.missed} events were missed` };
    default: return { who: e.n ?? '', what: e.k, detail: '' };
  }
}
