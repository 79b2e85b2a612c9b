// @ts-check
/** Runs that break because one rule was taken out of a protocol, and what to look at in them. */

/** Figure 3.7 of Ongaro's dissertation (figure 8 of the Raft paper), found and made small by the simulator. */
const FIGURE_8 = `synod-script 1
protocol raft/old_term_counted
nodes 5
seed 274
for 225.038824ms
transport datagrams
latency 745.767us
detect 52.5ms
election 50ms
heartbeat 10ms
disk 1.25ms
message-bytes 1
window 4
at 50ms timeout n4
at 65ms put x 5 on n2
at 66ms put x 4 on n2
at 68ms partition n4 n5 | n1 n2 n3
at 80ms clock n2 jump 50ms
at 80ms clock n1 jump 50ms
at 80ms timeout n3
at 80ms disk n2 stall 15.985848ms
at 96ms cut n3 -> n2
at 96ms cut n3 -> n1
at 100ms put x 6 on n5
at 100ms crash n5
at 100ms crash n3
at 100ms heal
at 126ms timeout n4
at 136ms crash n4
at 140ms restart n3
`;

/** @typedef {{protocol:string, base:string, title:string, rule:string, text:string[], steps:{t:number, label:string}[], script:string}} Lesson */

/** @type {Lesson[]} */
export const LESSONS = [
  {
    protocol: 'raft/old_term_counted', base: 'raft', script: FIGURE_8,
    title: 'Why old entries do not commit by counting',
    rule: 'A leader counts copies only of entries of its own term; older ones commit along with one of those (Ongaro, section 3.6.2).',
    text: [
      'This is Raft with that rule taken out: the leader commits whatever lies on a majority of the disks, of whichever term.',
      'An entry of an old term may lie on a majority and still be overwritten, because another member’s last entry is of a later term: its log passes for better, and it is elected.',
    ],
    steps: [
      { t: 68e6, label: 'n4 leads term 1. The network splits, and its entries 3 and 4 reach n5 alone.' },
      { t: 99e6, label: 'n3 was elected by the other side. Its own entry 3, of term 2, is on no other disk. Both leaders crash.' },
      { t: 135.8e6, label: 'n4 leads again, in term 3, and has brought its old entry 3 to n1 and n2: a majority. Without the rule it counts as committed, and n2 applies it.' },
      { t: 150e6, label: 'n4 is down and n3 is back. Its entry 3 is of term 2 and passes for newer than that of term 1.' },
      { t: 219.6e6, label: 'n1 has met the better log, as it seems, and fetched it: n3’s entry 3 takes the place of the committed one.' },
    ],
  },
];

/** @param {string} protocol */
export function lessonOf(protocol) {
  return LESSONS.find((lesson) => lesson.protocol === protocol);
}
