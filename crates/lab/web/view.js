// @ts-check
/**
 * `view(trace, t)`: everything that the page draws of one moment, as a pure function of the run and
 * the time. Nothing else on the page decides what the cluster looks like.
 *
 * @typedef {import('./trace.js').NodeState & {id:string, known:boolean, syncing:boolean, votes:string[],
 *   pre:boolean, granted:string[], part:string}} NodeView
 * @typedef {{m:number|string, from:string, to:string, name:string, detail:string, kind:string, progress:number,
 *   sent:number, end:number|null, dying:boolean, why:string, early:boolean}} MessageView
 * @typedef {{t:number, known:boolean, nodes:NodeView[], byId:Map<string,NodeView>, messages:MessageView[],
 *   cuts:Set<string>, ops:any[], voters:number, quorum:number}} View
 */

/** How long a message that dies at once is shown dying, in nanoseconds of the run. */
const DYING_NS = 60e6;

/** How long, and how many, messages between real processes are shown. */
const LIVE_SHOWN_NS = 350e6;
const LIVE_SHOWN_MAX = 40;

/** A node of which nothing is known. */
export const BLANK = {
  up: true, paused: false, role: 'follower', epoch: 0, voted: null, leader: null, last: 0, lastEpoch: 0,
  base: 0, members: [], durable: 0, committed: 0, applied: 0, deadline: null, deadlineFrom: null, log: [], fields: [],
};

/**
 * @param {any} trace a Trace or a LiveTrace
 * @param {number} t nanoseconds
 * @returns {View}
 */
export function view(trace, t) {
  /** @type {string[]} */ const ids = trace.header.nodes;
  const chunk = trace.chunkAt(t);
  const moment = chunk?.moment(t);
  /** @type {NodeView[]} */
  const nodes = ids.map((id) => {
    const state = moment?.states.get(id);
    return { ...BLANK, ...state, id, known: !!state, syncing: moment?.syncing.has(id) ?? false, votes: [], pre: false, granted: [], part: 'voter' };
  });
  const byId = new Map(nodes.map((n) => [n.id, n]));
  for (const n of nodes) {
    const chosen = n.voted ? byId.get(n.voted) : undefined;
    if (chosen && chosen.epoch === n.epoch) chosen.votes.push(n.id);
  }
  for (const n of nodes) if (n.role === 'candidate') standing(n);
  const members = configuration(nodes);
  for (const n of nodes) n.part = members?.get(n.id) ?? (members ? 'out' : 'voter');
  const voters = nodes.filter((n) => n.part === 'voter' || n.part === 'leaving').length;
  // A live member tells of its timer only along with something else; a deadline that has passed is not its present one.
  if (trace.live) for (const n of nodes) if (n.deadline !== null && n.deadline < t) n.deadline = null;
  return {
    t, known: !!moment, nodes, byId,
    messages: chunk ? messages(trace, chunk, moment, t) : [],
    cuts: moment?.cuts ?? new Set(),
    ops: [...(moment?.ops.values() ?? [])],
    voters, quorum: Math.floor(voters / 2) + 1,
  };
}

/**
 * The members and their parts as the newest leader knows them, or else whoever has the longest log.
 * @param {NodeView[]} nodes @returns {Map<string, string>|null} none where nobody tells
 */
function configuration(nodes) {
  const tell = nodes.filter((n) => n.known && n.members?.length);
  const rank = (/** @type {NodeView} */ n) => [n.up && n.role === 'leader' ? 1 : 0, n.epoch, n.last];
  const best = tell.sort((a, b) => { const x = rank(a), y = rank(b); return y[0] - x[0] || y[1] - x[1] || y[2] - x[2]; })[0];
  return best ? new Map(best.members) : null;
}

/**
 * Whether a candidate only asks whether a vote could be won, and who agreed so far. A protocol that
 * tells this in its fields is believed; otherwise it is read from the votes.
 * @param {NodeView} n
 */
function standing(n) {
  const part = n.fields.find(([name]) => name === 'part')?.[1], granted = n.fields.find(([name]) => name === 'granted by')?.[1];
  n.pre = part ? part.startsWith('pre') : !n.votes.includes(n.id);
  n.granted = granted === undefined ? (n.pre ? [] : n.votes) : granted.split(/[\s,]+/).filter((word) => word !== 'nobody' && word !== 'yet' && word !== '');
}

/** @param {any} trace @param {any} chunk @param {any} moment @param {number} t @returns {MessageView[]} */
function messages(trace, chunk, moment, t) {
  const shown = [];
  if (trace.live) return liveMessages(chunk, t);
  for (const e of moment.flying.values()) {
    const end = e.at ?? trace.ends.get(e.m)?.t ?? null;
    const span = Math.max(1, (end ?? e.t + DYING_NS) - e.t);
    const progress = Math.min(1, (t - e.t) / span);
    shown.push(message(e, progress, end, false, ''));
  }
  // What died a moment ago is still shown, where it died.
  for (let i = chunk.after(t) - 1; i >= 0 && chunk.events[i].t > t - DYING_NS; i--) {
    const e = chunk.events[i];
    if (e.k === 'drop' && e.sent) shown.push(message(e.sent, /cut/.test(e.why ?? '') ? 0.5 : 1, e.t, true, e.why ?? ''));
    else if (e.k === 'send' && e.lost) shown.push(message(e, lostAt(e.lost), e.t, true, e.lost));
  }
  return shown;
}

/** How far a message comes that is lost as it is sent: over a link that is known to be dead, hardly out of the door. @param {string} why */
export function lostAt(why) {
  return /connection|down/.test(why) ? 0.06 : 0.5;
}

/**
 * Between real processes on one machine a message takes far less than a frame, so each is shown
 * longer than it travels.
 * @param {any} chunk @param {number} t @returns {MessageView[]}
 */
function liveMessages(chunk, t) {
  const shown = [];
  for (let i = chunk.after(t) - 1; i >= 0 && shown.length < LIVE_SHOWN_MAX; i--) {
    const e = chunk.events[i];
    if (e.t <= t - LIVE_SHOWN_NS) break;
    if (e.k !== 'send') continue;
    const progress = (t - e.t) / LIVE_SHOWN_NS;
    const far = e.lost ? lostAt(e.lost) : 1;
    shown.push(message(e, Math.min(far, progress), e.t + LIVE_SHOWN_NS, !!e.lost && progress > far, e.lost ?? ''));
  }
  return shown;
}

/** @returns {MessageView} @param {any} e @param {number} progress @param {number|null} end @param {boolean} dying @param {string} why */
function message(e, progress, end, dying, why) {
  return { m: e.m, from: e.from, to: e.to, name: e.name, detail: e.detail ?? '', kind: messageKind(e.name, e.detail), progress, sent: e.t, end, dying, why, early: !!e.early };
}

/** What each message of the four protocols is for. @type {Record<string, string>} */
const KIND = {
  RequestVote: 'ask', Vote: 'vote', RequestPreVote: 'pre-ask', PreVote: 'pre-vote', AppendEntriesReply: 'ack', InstallSnapshot: 'entries',
  Promise: 'vote', Preempted: 'vote', Probe: 'pre-ask', Willing: 'pre-vote', Accept: 'entries', Accepted: 'ack',
  Notification: 'ask', LeaderInfo: 'ask', AckEpoch: 'vote', NewLeader: 'entries', Propose: 'entries', Diff: 'entries', Snap: 'entries', Trunc: 'entries', Ack: 'ack', Ping: 'beat', Pong: 'ack', UpToDate: 'beat',
  StartViewChange: 'ask', DoViewChange: 'vote', PreViewChange: 'pre-ask', PreViewChangeOk: 'pre-vote', StartView: 'entries', NewState: 'entries', PrepareOk: 'ack',
  Commit: 'beat', Chosen: 'beat', SnapshotPart: 'entries',
  Updates: 'gossip', Part: 'gossip', Digest: 'digest', Pull: 'digest',
};

/**
 * What a message is for, which decides its shape and dash: `ask` (for a vote), `vote`, `pre-ask`,
 * `pre-vote`, `entries`, `beat` (nothing new), `ack`, of causal and eventual keyspaces `gossip` and `digest` (what has been
 * seen), `other`.
 * @param {string} name @param {string} [detail]
 */
export function messageKind(name, detail = '') {
  // Paxos asks with it, and Viewstamped Replication replicates.
  if (name === 'Prepare') return /ballot/.test(detail) ? 'ask' : 'entries';
  if (name === 'AppendEntries' || KIND[name] === 'entries') return /heartbeat|\b(no|0) (entr|operation|value|proposal)/i.test(detail) ? 'beat' : 'entries';
  return KIND[name] ?? 'other';
}

/** Who leads: the leader of the highest epoch among those that run. @param {View} v */
export function leaderOf(v) {
  let best;
  for (const n of v.nodes) if (n.up && n.role === 'leader' && (!best || n.epoch > best.epoch)) best = n;
  return best;
}

/** Members that `id` can exchange messages with, itself included. @param {View} v @param {string} id */
export function reach(v, id) {
  return v.nodes.filter((n) => n.id === id || (n.up && !n.paused && !v.cuts.has(`${id}>${n.id}`) && !v.cuts.has(`${n.id}>${id}`)));
}
