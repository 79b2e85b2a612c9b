// @ts-check
/** What one cut did to the levels, in sums and sentences; pure. */

/**
 * @typedef {{puts:number, puts_refused:number, gets:number, gets_refused:number, gets_stale:number, behind_ms:number}} Tally
 * @typedef {{alone:Tally, others:Tally}} Slice
 * @typedef {{asked:number, refused:number, reads:number, stale:number, put_ms_p50:number, put_ms_p99:number, get_ms_p50:number, get_ms_p99:number}} Side
 * @typedef {{level:string, calm:Side, minority:Side, majority:Side, convergence_ms:number|null, messages_per_request:number, violations:string[]}} Sums
 * @typedef {{cap:Sums, split_ms:number, end_ms:number, slice_ms:number, slices:Slice[]}} Film
 * @typedef {{alone:string, others:string[]}} Names
 * @typedef {{value:number, text:string, second?:boolean, upto?:number}} Bar
 * @typedef {{id:string, title:string, about:string, kind:string, most:number, rows:Bar[][]}} Measure
 */

const NONE = { puts: 0, puts_refused: 0, gets: 0, gets_refused: 0, gets_stale: 0, behind_ms: 0 };

/** The sum of some slices; of how far answers lay behind, the most. @param {Slice[]} slices @param {number} from @param {number} to */
export function sumOf(slices, from, to) {
  const sum = { alone: { ...NONE }, others: { ...NONE } };
  for (const slice of slices.slice(Math.round(from), Math.round(to))) {
    for (const side of /** @type {const} */ (['alone', 'others'])) {
      const all = sum[side], one = slice[side];
      for (const key of /** @type {const} */ (['puts', 'puts_refused', 'gets', 'gets_refused', 'gets_stale'])) all[key] += one[key];
      all.behind_ms = Math.max(all.behind_ms, one.behind_ms);
    }
  }
  return sum;
}

/** Of a hundred. @param {number} part @param {number} whole */
export function share(part, whole) { return whole > 0 ? Math.min(100, (100 * part) / whole) : 0; }

/** Nearly all is not all, and hardly any is not none. @param {number} part @param {number} whole */
function percent(part, whole) {
  const rounded = Math.round(share(part, whole));
  return part < whole && rounded === 100 ? '>99%' : part > 0 && rounded === 0 ? '<1%' : `${rounded}%`;
}

/** @param {number} ms */
export function time(ms) { return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms)} ms`; }

/** What one side got. @param {string} who @param {Tally} tally @param {boolean} many */
function sideSays(who, tally, many) {
  const asked = tally.puts + tally.gets, refused = tally.puts_refused + tally.gets_refused, read = tally.gets - tally.gets_refused, s = many ? '' : 's';
  if (asked === 0) return `Nobody asks ${who}.`;
  if (refused === asked) return `${who} answer${s} nothing: all ${asked} requests are refused.`;
  const answers = refused === 0 ? `${who} answer${s} all ${asked} requests`
    : tally.gets_refused === 0 && tally.puts_refused === tally.puts ? `${who} refuse${s} every put (${refused}) and answer${s} every get`
      : `${who} refuse${s} ${refused} of ${asked} requests`;
  if (read === 0) return `${answers}.`;
  const past = tally.gets_stale === 0 ? 'none of them with the past' : `${tally.gets_stale} of ${read} reads with the past, replaced up to ${time(tally.behind_ms)} before`;
  return `${answers}, ${tally.gets_stale === 0 && refused > 0 ? 'no read with the past' : past}.`;
}

/** What a level has shown until a moment. @param {Film} film @param {number} t @param {Names} names @returns {{alone:string, others:string, after:string}} */
export function laneSays(film, t, names) {
  const split = film.split_ms / film.slice_ms, now = t / film.slice_ms;
  if (now <= split) {
    const { alone, others } = sumOf(film.slices, 0, now);
    const both = { ...NONE };
    for (const key of /** @type {(keyof Tally)[]} */ (Object.keys(NONE))) both[key] = key === 'behind_ms' ? Math.max(alone[key], others[key]) : alone[key] + others[key];
    return { alone: sideSays('All', both, true), others: '', after: '' };
  }
  const { alone, others } = sumOf(film.slices, split, now), over = t >= film.end_ms, same = film.cap.convergence_ms;
  const after = !over ? '' : same === null ? 'Within a minute after the cut they do not come to show the same.' : `All the same ${time(same)} after the cut.`;
  return { alone: sideSays(names.alone, alone, false), others: sideSays('The others', others, true), after };
}

/** What comes of it, in a paragraph. @param {Film[]} films */
export function capSays(films) {
  const of = (/** @type {Film} */ { cap }) => cap.minority;
  const pick = (/** @type {(film:Film) => boolean} */ is) => films.filter(is).map(({ cap }) => cap.level).join(' and ');
  const mute = pick((f) => of(f).refused === of(f).asked), open = pick((f) => of(f).refused === 0), half = pick((f) => of(f).refused > 0 && of(f).refused < of(f).asked);
  const never = pick((f) => f.cap.calm.stale + f.cap.minority.stale + f.cap.majority.stale === 0);
  const quick = films.filter((f) => of(f).refused === 0).map((f) => f.cap.calm.put_ms_p50), slow = films.filter((f) => of(f).refused > 0).map((f) => f.cap.calm.put_ms_p50);
  const parts = [
    mute && `Cut off, a member that is ${mute} refuses everything`, half && `one that is ${half} tells its past and writes nothing`, open && `one that is ${open} goes on as if nothing had happened`,
  ].filter(Boolean);
  const first = parts.length ? `${parts.join('; ')}. ` : '';
  const fresh = never ? `What is ${never} never answers with the past, here or at any time. ` : '';
  const price = quick.length && slow.length && Math.min(...slow) > Math.max(...quick) ? `The price is paid on good days too: before the cut, half of all puts took ${time(Math.min(...slow))} or longer where a quorum must agree, and ${time(Math.max(...quick))} where it need not.` : '';
  return `${first.charAt(0).toUpperCase()}${first.slice(1)}${fresh}${price}`;
}

/** Bars for each level, in the order of the films. @param {Film[]} films @param {Names} names @returns {Measure[]} */
export function capMeasures(films, names) {
  const both = (/** @type {(side:Side) => [number, number]} */ of) => films.map(({ cap }) => [cap.minority, cap.majority].map((side, i) => {
    const [part, whole] = of(side), value = share(part, whole);
    return { value, second: i === 1, text: `${whole ? percent(part, whole) : 'none asked'} at ${i === 0 ? names.alone : 'the others'}${whole ? ` (${part} of ${whole})` : ''}` };
  }));
  const stale = films.map(({ cap }) => [cap.minority, cap.majority].map((side, i) => ({ value: share(side.stale, side.reads), second: i === 1,
    text: side.reads ? `${percent(side.stale, side.reads)} at ${i === 0 ? names.alone : 'the others'} (${side.stale} of ${side.reads})` : `none answered at ${i === 0 ? names.alone : 'the others'}` })));
  const waits = films.map(({ cap: { calm } }) => [['put', calm.put_ms_p50, calm.put_ms_p99], ['get', calm.get_ms_p50, calm.get_ms_p99]].map(([what, p50, p99], i) => ({ value: Number(p50), upto: Number(p99), second: i === 1, text: `${what}: ${wait(Number(p50))}, p99 ${wait(Number(p99))}` })));
  const same = films.map(({ cap }) => [{ value: cap.convergence_ms ?? Infinity, text: cap.convergence_ms === null ? 'not within a minute' : time(cap.convergence_ms) }]);
  const most = (/** @type {Bar[][]} */ rows) => Math.max(1, ...rows.flat().map((bar) => bar.upto ?? bar.value).filter(Number.isFinite));
  return [
    { id: 'refused', title: 'Refused', about: 'of the requests while the cut lasts', kind: 'bad', most: 100, rows: both((side) => [side.refused, side.asked]) },
    { id: 'stale', title: 'With the past', about: 'of the reads that were answered while it lasts', kind: 'old', most: 100, rows: stale },
    { id: 'latency', title: 'How long a request takes', about: 'when all is well: half of them (bar), and 99 of 100 (line)', kind: 'wait', most: most(waits), rows: waits },
    { id: 'convergence', title: 'All the same again', about: 'after the cut', kind: 'wait', most: most(same), rows: same },
  ];
}

/** @param {number} ms */
function wait(ms) { return ms < 10 && ms > 0 ? `${ms.toFixed(1)} ms` : time(ms); }
