// @ts-check
/** The four replicated logs: the chapter's table, and a dictionary of their words. */

/** @typedef {{id:string, name:string, use:string, idea:string, leader:string, ask:string, replicate:string, entry:string, epoch:string, follower:string, paper:string}} About */

/** @type {About[]} */
export const PROTOCOLS = [
  {
    id: 'multi-paxos', name: 'Multi-Paxos', use: 'Chubby, Spanner',
    idea: 'Each place of the log is one instance of Paxos; a proposer that holds promises for all open places skips to their second phase.',
    epoch: 'ballot', leader: 'leader', follower: 'acceptor', ask: 'Prepare, Promise', replicate: 'Accept, Accepted', entry: 'slot',
    paper: 'Lamport, Paxos Made Simple, 2001',
  },
  {
    id: 'raft', name: 'Raft', use: 'etcd, Consul, CockroachDB',
    idea: 'One leader, whose log the others copy; only a candidate whose log is as good as its voters’ is elected. Made to be understood.',
    epoch: 'term', leader: 'leader', follower: 'follower', ask: 'RequestVote, Vote', replicate: 'AppendEntries', entry: 'entry',
    paper: 'Ongaro, Consensus: Bridging Theory and Practice, 2014',
  },
  {
    id: 'zab', name: 'Zab', use: 'ZooKeeper',
    idea: 'Older than Raft and close to it: an atomic broadcast, in which a new leader first brings its history to a quorum, and only then proposes.',
    epoch: 'epoch', leader: 'leader', follower: 'follower', ask: 'Notification, AckEpoch', replicate: 'Propose, Ack, Commit', entry: 'transaction (zxid)',
    paper: 'Junqueira, Reed and Serafini, Zab, DSN 2011',
  },
  {
    id: 'viewstamped', name: 'Viewstamped Replication', use: 'the first of them, known from research',
    idea: 'Earlier still: who is primary of a view is its number’s remainder, not an election; when a primary falls silent, the view changes.',
    epoch: 'view', leader: 'primary', follower: 'backup', ask: 'StartViewChange, DoViewChange', replicate: 'Prepare, PrepareOk', entry: 'operation (op-number)',
    paper: 'Liskov and Cowling, Viewstamped Replication Revisited, 2012',
  },
];

/** Agreement on one value: two proposers get in each other's way, and in the end agree. */
export const DUEL_SCRIPT = `synod-script 1
protocol single-paxos
nodes 3
seed 3
for 2s
latency 20ms..40ms
disk 2ms
election 200ms
at 200ms propose red on n1
at 240ms propose blue on n3
`;

/** @type {[keyof About, string][]} the dictionary: what each of them calls it */
export const WORDS = [
  ['epoch', 'The number that orders leaders'], ['leader', 'Who puts commands into order'], ['follower', 'Who keeps copies'],
  ['ask', 'How one comes into office'], ['replicate', 'How a command gets to a majority'], ['entry', 'One place of the log'],
];

/** @param {string} id */
export function aboutProtocol(id) {
  return PROTOCOLS.find((p) => p.id === id);
}
