// @ts-check
/** The page: one run, one moment, and everything that is drawn of it. */

import { FORMAT, LabError, Trace } from './trace.js';
import { leaderOf, view } from './view.js';
import { Ring } from './ring.js';
import { LIVE_SPAN, SpaceTime } from './spacetime.js';
import { Transport, SPEEDS } from './transport.js';
import { Inspector } from './inspector.js';
import { EventTable } from './table.js';
import { ScriptPanel } from './editor.js';
import { Story, drawVerdict, election } from './story.js';
import { LiveTrace, act, drawLive } from './live.js';
import { Cap } from './cap.js';
import { Compare, LOCKSTEP_SCRIPT, Lockstep } from './compare.js';
import { lessonOf } from './lessons.js';
import { Flp, scheduleOf } from './flp.js';
import { Keyspaces } from './keyspaces.js';
import { drawMatrix } from './matrix.js';
import { Transactions } from './transactions.js';
import { Transfer } from './transfer.js';
import { Verdicts } from './verdicts.js';
import { PROTOCOLS } from './protocols.js';
import { DEFAULT_SCRIPT, compareAddress, lasting, nanoseconds, readAddress, simAddress, withLine } from './script.js';
import { closeMenu, showMenu } from './menu.js';
import { linkMenu, messageMenu, nodeMenu } from './gestures.js';
import { legend, showHelp } from './help.js';
import { byId, calm } from './dom.js';
import { SINGLE, scriptTime, summary } from './words.js';

const PLACES = ['sim', 'live', 'compare', 'matrix', 'verdicts', 'cap', 'transfer', 'flp', 'replay'];
/** Those that show no run, and so have no time. */
const TIMELESS = ['matrix', 'verdicts', 'cap', 'transfer', 'flp'];
/** Beside the picture; the last two of a live cluster only. */
const TABS = ['node', 'script', 'events', 'keys', 'transactions'];
/** How long before the loss of the leader the first run starts to play, and how long it goes on after its end. */
const PRELUDE_NS = 900e6;
const DUEL_PRELUDE_NS = 20e6;
const CODA_NS = 180e6;
/** How much of the run lies under the whole width at first. */
const FIRST_SPAN_NS = 1.7e9;
/** How much of the first lockstep plays by itself. */
const LOCKSTEP_PLAYS_NS = 2.3e9;
/** One step in lockstep. */
const LOCKSTEP_STEP_NS = 5e6;
/** With reduced motion, time goes in steps this far apart, in milliseconds. */
const CALM_STEP_MS = 500;
/** What a run gets after a fault near its end, so that the outcome can be seen. */
const AFTERMATH_NS = 4e9;
const ADDRESS_MS = 400;

const lab = byId('lab');
/** The run that a page carries which was exported as one file; such a page has no server. */
const carried = document.getElementById('embedded');
const state = {
  place: 'sim',
  /** @type {any} */ trace: null,
  t: 0,
  playing: false,
  /** @type {number|null} where playing stops by itself */ stopAt: null,
  speed: 200e6,
  present: false,
  selected: '',
  /** Whether somebody has picked a node; until then the leader is shown. */ picked: false,
  /** @type {string|null} */ warning: null,
  dirty: true,
  loading: 0,
};

const ring = new Ring(byId('cluster'), {
  node: (id) => clickNode(id),
  nodeMenu: (id, at) => { select(id); showMenu(id, at, nodeMenu(context(), id)); },
  select: (id) => select(id),
  link: (a, b) => clickLink(a, b),
  linkMenu: (a, b, at) => showMenu(`${a} and ${b}`, at, linkMenu(context(), a, b)),
  messageMenu: (m, at) => showMenu(`${m.name}, ${m.from} to ${m.to}`, at, messageMenu(context(), m)),
  delay: (m, ns) => addLine(`delay m${m.m} ${Math.round(ns / 1e6)}ms`, m.sent),
  tip,
  nodeVerb: (id) => nodeVerb(id),
  linkVerb: (a, b) => linkVerb(a, b),
});
const spacetime = new SpaceTime(byId('spacetime'), { seek: (t) => seek(t), tip, hold: () => pause() });
const transport = new Transport(byId('transport'), {
  toggle: () => (state.playing ? pause() : play()),
  step: (by) => step(by),
  jump: (by) => jump(by),
  seek: (t) => seek(t),
  end: () => toEnd(),
  speed: (ns) => { state.speed = ns; state.dirty = true; },
  hold: () => pause(),
});
const inspector = new Inspector(byId('panel-node'), { select: (id) => { select(id); ring.focus(id); }, menu: (id, at) => showMenu(id, at, nodeMenu(context(), id)) });
const table = new EventTable(byId('panel-events'), { seek: (t) => { pause(); seek(t); } });
const script = new ScriptPanel(byId('panel-script'), { run: (text) => runEdited(text), seek: (t) => { pause(); seek(t); } });
const compare = new Compare(byId('compare'), {
  choose: (ids) => loadCompare(state.trace.header.script, { protocols: ids, t: state.t, push: true }),
  act: (line) => addLine(line),
  seek: (t) => seek(t), tip, hold: () => pause(),
});
const cap = new Cap(byId('cap'), { complain: toast, say });
const flp = new Flp(byId('flp'), toast);
const liveCluster = () => (state.place === 'live' ? state.trace?.cluster : null);
const keyspaces = new Keyspaces(byId('panel-keys'), { cluster: liveCluster, act: (action) => doLive(action), complain: toast, say });
const transactions = new Transactions(byId('panel-transactions'), { cluster: liveCluster, complain: toast, say });
const transfer = new Transfer(byId('transfer'), { complain: toast, say });
const verdicts = new Verdicts(byId('verdicts'), { complain: toast, say, tip });
const story = new Story(byId('story'), { act: (line) => addLine(line), guess: () => { state.dirty = true; }, jump: (t) => seek(t) });

/** What a gesture may do now. */
function context() {
  const v = view(state.trace, state.t), live = state.place === 'live';
  return { v, live, cluster: live ? state.trace.cluster : null, forkable: forkable(), protocol: state.trace.header.protocol, line: addLine, act: doLive, inspect: (/** @type {string} */ id) => { select(id); showTab('node'); } };
}

function forkable() { return !carried && state.place !== 'live' && !!state.trace?.header.script; }

/* ---- time ---- */

function play(stopAt = null) {
  if (!state.trace) return;
  if (state.place === 'live') {
    if (state.t >= state.trace.until - 1e6) state.present = true;
  } else if (state.t >= state.trace.until) seek(state.trace.start);
  state.stopAt = stopAt;
  state.playing = true;
  state.dirty = true;
}

function pause() {
  if (!state.playing && !state.present) return;
  state.playing = false;
  state.present = false;
  state.stopAt = null;
  state.dirty = true;
  settle();
}

/** @param {number} t */
function seek(t) {
  if (!state.trace) return;
  state.present = false;
  state.t = Math.max(state.trace.start, Math.min(state.trace.until, t));
  state.dirty = true;
  state.trace.ensure(state.t, state.t);
  settle();
}

/** @param {number} by */
function step(by) {
  pause();
  // The events of several runs are too dense to go through one by one.
  if (state.place === 'compare') { seek(state.t + by * LOCKSTEP_STEP_NS); return; }
  const chunk = state.trace?.chunkAt(state.t);
  if (!chunk) return;
  const i = chunk.after(by > 0 ? state.t : state.t - 1);
  const event = by > 0 ? chunk.events[i] : chunk.events[i - 1];
  seek(event ? event.t : by > 0 ? chunk.to : chunk.from - 1);
}

/** @param {number} by */
function jump(by) {
  const marks = state.trace?.header.marks ?? [];
  const mark = by > 0 ? marks.find((/** @type {any} */ m) => m.t > state.t + 1e6) : marks.findLast((/** @type {any} */ m) => m.t < state.t - 1e6);
  pause();
  if (mark) { seek(mark.t); say(mark.label); } else seek(by > 0 ? state.trace.until : state.trace.start);
}

function toEnd() {
  if (state.place === 'live') { state.present = true; state.playing = true; state.dirty = true; } else { pause(); seek(state.trace.until); }
}

let lastFrame = 0, lastCalm = 0, loop = 0;
/** @param {number} now */
function frame(now) {
  const passed = Math.min(100, now - lastFrame);
  lastFrame = now;
  if (state.trace) {
    if (state.place === 'live' && state.present) { state.t = state.trace.until; state.dirty = true; }
    else if (state.playing) advance(now, passed);
    if (state.dirty) { state.dirty = false; draw(); }
  }
  loop = requestAnimationFrame(frame);
}

/** @param {number} now @param {number} passed */
function advance(now, passed) {
  let by = passed;
  if (calm()) {
    if (now - lastCalm < CALM_STEP_MS) return;
    by = CALM_STEP_MS;
    lastCalm = now;
  }
  const before = state.t, until = Math.min(state.stopAt ?? Infinity, state.trace.until);
  // A part that is still on its way is waited for.
  if (!state.trace.chunkAt(Math.min(before + 1, until))) { state.trace.ensure(before, before + 1); return; }
  state.t = Math.min(until, before + (by / 1000) * state.speed);
  state.dirty = true;
  for (const mark of state.trace.header.marks) if (mark.t > before && mark.t <= state.t) say(mark.label);
  if (state.t >= until) {
    if (state.place === 'live' && state.stopAt === null) state.present = true;
    else pause();
  }
  state.trace.ensure(state.t, Math.min(until, state.t + 2 * state.speed));
}

/* ---- drawing ---- */

function draw() {
  if (TIMELESS.includes(state.place)) return;
  if (state.place === 'compare') { drawCompare(); return; }
  const { trace, t } = state, v = view(trace, t), protocol = trace.header.protocol;
  if (!v.byId.has(state.selected) || !state.picked) state.selected = leaderOf(v)?.id ?? (v.byId.has(state.selected) ? state.selected : trace.header.nodes[0] ?? '');
  ring.selected = state.selected;
  ring.draw(v, protocol);
  spacetime.moveTo(t);
  if (state.playing || state.present) spacetime.reveal(t, true); else if (t < spacetime.from || t > spacetime.to) spacetime.reveal(t, false);
  if (state.present) spacetime.stale = true;
  // Who wins is not asked where the page tells another story.
  const asks = state.place !== 'live' && protocol !== SINGLE && !lessonOf(protocol), e = asks ? election(trace, t) : null;
  spacetime.secret = !!e && t < e.won;
  spacetime.draw();
  transport.draw({ t, playing: state.playing || state.present, from: spacetime.from, to: spacetime.to, speed: state.speed, present: state.present });
  if (!byId('panel-node').hidden) inspector.draw(v, state.selected, protocol, forkable() || state.place === 'live');
  table.draw(trace, t);
  if (state.place !== 'live') story.draw(trace, v, { title: carried ? `seed ${trace.header.seed}, as one file` : state.place === 'replay' ? 'a recording' : `seed ${trace.header.seed}`, warning: state.warning, forkable: forkable() });
  const sentence = summary(v, protocol);
  if (byId('summary').textContent !== sentence) byId('summary').textContent = sentence;
  const leader = leaderOf(v);
  lab.dataset.leader = leader && v.known ? leader.id : '';
  lab.dataset.epoch = leader ? String(leader.epoch) : '';
  lab.dataset.t = String(Math.round(t));
  lab.dataset.playing = String(state.playing || state.present);
}

function drawCompare() {
  const playing = state.playing;
  compare.draw(state.t, playing);
  transport.draw({ t: state.t, playing, from: compare.from, to: compare.to, speed: state.speed, present: false });
  lab.dataset.t = String(Math.round(state.t));
  lab.dataset.playing = String(playing);
}

/** @param {string} id */
function select(id) {
  state.picked = true;
  if (id === state.selected) return;
  state.selected = id;
  state.dirty = true;
}

/** Speaks to those who do not see the picture. @param {string} text */
function say(text) { byId('speak').textContent = text; }

let toastTimer = 0;
/** @param {string} text @param {number} [ms] */
function toast(text, ms = 5000) {
  const box = byId('toast');
  box.textContent = text;
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = window.setTimeout(() => { box.hidden = true; }, ms);
}

/** @type {HTMLElement|null} */ let tipBox = null;
/** @param {string|null} text @param {DOMRect} [at] */
function tip(text, at) {
  if (!text || !at) { tipBox?.remove(); tipBox = null; return; }
  if (!tipBox) { tipBox = document.createElement('div'); tipBox.className = 'tip'; document.body.append(tipBox); }
  tipBox.textContent = text;
  const box = tipBox.getBoundingClientRect();
  tipBox.style.left = `${Math.max(8, Math.min(innerWidth - box.width - 8, at.left + at.width / 2 - box.width / 2))}px`;
  tipBox.style.top = `${at.top - box.height - 8 > 4 ? at.top - box.height - 8 : at.bottom + 8}px`;
}

/* ---- doing ---- */

/** @param {string} id */
function nodeVerb(id) {
  const n = state.trace && view(state.trace, state.t).byId.get(id);
  if (!n) return '';
  if (state.place === 'live') {
    const process = state.trace.cluster?.nodes.find((/** @type {any} */ p) => p.name === id);
    return `${!process?.pid ? 'start' : process.stopped ? 'resume' : 'kill'} ${id}`;
  }
  return forkable() ? `${!n.up ? 'restart' : n.paused ? 'resume' : 'crash'} ${id}` : `inspect ${id}`;
}

/** @param {string} id */
function clickNode(id) {
  select(id);
  closeMenu(false);
  tip(null);
  const verb = nodeVerb(id);
  if (state.place === 'live') doLive({ do: /** @type {any} */ ({ start: 'start', resume: 'cont', kill: 'kill' })[verb.split(' ')[0]], node: id });
  else if (forkable()) addLine(verb);
  else showTab('node');
}

/** @param {string} a @param {string} b */
function linkVerb(a, b) {
  const v = view(state.trace, state.t), cut = v.cuts.has(`${a}>${b}`) || v.cuts.has(`${b}>${a}`);
  return `${cut ? 'heal' : 'cut'} ${a} ${b}`;
}

/** @param {string} a @param {string} b */
function clickLink(a, b) {
  tip(null);
  const verb = linkVerb(a, b);
  if (state.place === 'live') doLive({ do: verb.split(' ')[0], node: a, peer: b });
  else if (forkable()) addLine(verb);
}

/** @param {{do:string, node?:string, peer?:string}} action */
async function doLive(action) {
  try {
    await act(action);
    state.present = state.playing = true;
  } catch (error) { toast(/** @type {Error} */ (error).message); }
}

/**
 * A line for the script at this moment; the run is done again, and history forks here.
 * @param {string} line @param {number} [at] the moment it speaks of, when that is not now
 */
async function addLine(line, at = state.t) {
  if (!forkable()) { toast('This recording has no script, so it can be watched but not changed.'); return; }
  const time = scriptTime(at), now = nanoseconds(time);
  settle.now();
  const text = lasting(withLine(state.trace.header.script, `at ${time} ${line}`), Math.max(state.t, now) + AFTERMATH_NS);
  const how = { t: now, push: true };
  const done = state.place === 'compare' ? loadCompare(text, { ...how, protocols: compare.rows.map((row) => row.id) }) : load(text, how);
  if (await done) { say(`At ${time}: ${line}. The run goes on from here.`); play(); }
}

/** @param {string} text */
async function runEdited(text) {
  settle.now();
  await load(text, { t: state.t, push: true });
}

/** @param {string} text @param {{t:number|null, push?:boolean, expect?:string|null}} how @returns {Promise<boolean>} */
async function load(text, { t, push = false, expect = null }) {
  const ticket = ++state.loading;
  lab.setAttribute('aria-busy', 'true');
  try {
    const trace = await Trace.run(text);
    const at = t ?? firstMoment(trace);
    await trace.ensure(at, at);
    if (ticket !== state.loading) return false;
    const address = simAddress({ script: trace.header.script, hash: trace.header.hash, version: FORMAT, t: at });
    if (push) history.pushState(null, '', address); else history.replaceState(null, '', address);
    state.warning = expect && expect !== trace.header.hash
      ? `This link was made for run ${expect}, but here the same script gives run ${trace.header.hash}: the simulator has changed since. What you see is this version's run.` : null;
    state.place = 'sim';
    show(trace, at, push);
    script.show(trace.header.script, null);
    return true;
  } catch (error) {
    const { message, line = 0 } = /** @type {LabError} */ (error);
    script.show(text, { message, line });
    if (!(error instanceof LabError)) toast('The laboratory does not answer. Is it still running?');
    else { showTab('script'); toast(line ? `Line ${line}: ${message}` : message); }
    return false;
  } finally { lab.removeAttribute('aria-busy'); }
}

/**
 * The same script on several protocols.
 * @param {string} text @param {{protocols:string[], t:number|null, push?:boolean}} how @returns {Promise<boolean>}
 */
async function loadCompare(text, { protocols, t, push = false }) {
  const ticket = ++state.loading;
  lab.setAttribute('aria-busy', 'true');
  try {
    const known = PROTOCOLS.map((p) => p.id).filter((id) => protocols.includes(id));
    const lockstep = await Lockstep.run(text, known.length ? known : PROTOCOLS.map((p) => p.id));
    if (ticket !== state.loading) return false;
    const first = lockstep.header.marks[0]?.t ?? 0, at = t ?? Math.max(0, first - PRELUDE_NS), fresh = state.place !== 'compare' || !compare.lockstep;
    enter('compare');
    const address = compareAddress({ script: text, protocols: lockstep.runs.map((run) => run.id), t: at });
    if (push) history.pushState(null, '', address); else history.replaceState(null, '', address);
    state.trace = lockstep;
    state.t = Math.max(0, Math.min(lockstep.until, at));
    state.playing = state.present = false;
    state.stopAt = null;
    compare.show(lockstep);
    if (fresh) compare.setWindow(at - FIRST_SPAN_NS * 0.1, at + FIRST_SPAN_NS * 1.4);
    transport.show(lockstep);
    lab.dataset.hash = lockstep.header.hash;
    state.dirty = true;
    return true;
  } catch (error) {
    toast(error instanceof LabError ? error.message : 'The laboratory does not answer. Is it still running?');
    return false;
  } finally { lab.removeAttribute('aria-busy'); }
}

/** Shows one of the page's places and hides the others. @param {string} place */
function enter(place) {
  state.place = place;
  lab.dataset.place = place;
  lab.hidden = place === 'compare' || TIMELESS.includes(place);
  byId('compare').hidden = place !== 'compare';
  for (const timeless of TIMELESS) byId(timeless).hidden = place !== timeless;
  byId('transport').hidden = TIMELESS.includes(place);
  for (const other of PLACES) {
    const link = byId(`place-${other}`);
    if (other === place) link.setAttribute('aria-current', 'page'); else link.removeAttribute('aria-current');
  }
  // On a phone the row of places is longer than the screen is wide.
  const row = byId('places'), here = byId(`place-${place}`);
  row.scrollLeft = here.offsetLeft - row.offsetLeft - (row.clientWidth - here.offsetWidth) / 2;
}

/** @param {any} trace @param {number} t @param {boolean} keep the window of the space-time diagram */
function show(trace, t, keep) {
  if (state.trace !== trace) state.trace?.close?.();
  state.trace = trace;
  state.t = Math.max(trace.start, Math.min(trace.until, t));
  state.playing = state.present = false;
  state.stopAt = null;
  trace.onload = () => { spacetime.stale = true; state.dirty = true; };
  transport.show(trace);
  spacetime.show(trace, keep);
  if (!keep) spacetime.setWindow(t - FIRST_SPAN_NS * 0.12, t + FIRST_SPAN_NS * 0.88);
  spacetime.seen = state.t;
  story.key = '';
  drawVerdict(byId('verdict'), byId('chips'), trace, (at) => { pause(); seek(at); }, forkable());
  table.refresh();
  enter(state.place);
  lab.dataset.hash = trace.header.hash;
  byId('undo').disabled = byId('redo').disabled = byId('copy').disabled = state.place === 'live';
  const live = state.place === 'live';
  byId('legend').hidden = !live;
  byId('tab-script').hidden = live;
  byId('tab-keys').hidden = byId('tab-transactions').hidden = !live;
  if ((live ? ['script'] : ['keys', 'transactions']).some((name) => !byId(`panel-${name}`).hidden)) showTab('node');
  byId('hint').textContent = state.place === 'live' ? 'Click a node to kill or start its process. Right-click, or hold, for more.'
    : forkable() ? 'Click a node or a link to break it. Right-click, or hold, for more.' : carried ? 'This page carries one run. The laboratory can run its script again, and break it elsewhere.' : 'A recording: look at any moment of it.';
  state.dirty = true;
  if (trace.until < 120e9 && !trace.live && trace.header.events < 120_000) trace.ensure(0, trace.until);
}

/** Where a run is worth entering: shortly before it loses its leader. @param {any} trace */
function firstMoment(trace) {
  const e = election(trace, Infinity), first = trace.header.marks.find((/** @type {any} */ m) => m.kind !== 'leader');
  if (trace.header.protocol === SINGLE) return Math.max(0, (first?.t ?? 0) - DUEL_PRELUDE_NS);
  const at = e?.at ?? first?.t ?? 0;
  return Math.max(0, at - PRELUDE_NS);
}

/* ---- addresses ---- */

let settling = 0;
/** Lets the address name the moment, once time stands still. */
function settle() {
  clearTimeout(settling);
  settling = window.setTimeout(settle.now, ADDRESS_MS);
}
settle.now = () => {
  clearTimeout(settling);
  if (state.place === 'compare' && compare.lockstep === state.trace) {
    const protocols = compare.rows.map((row) => row.id);
    history.replaceState(null, '', compareAddress({ script: state.trace.header.script, protocols, t: state.t }));
  }
  if (state.place !== 'sim' || !state.trace) return;
  history.replaceState(null, '', simAddress({ script: state.trace.header.script, hash: state.trace.header.hash, version: FORMAT, t: state.t }));
};

async function navigate() {
  clearTimeout(settling);
  const address = readAddress(location.hash);
  closeMenu(false);
  if (address.place === 'live') { openLive(); return; }
  if (address.place === 'matrix') { openMatrix(); return; }
  if (address.place === 'flp') { openFlp(); return; }
  if (address.place === 'verdicts') { openVerdicts(); return; }
  if (address.place === 'cap') { openCap(); return; }
  if (address.place === 'transfer') { openTransfer(); return; }
  if (address.place === 'compare') {
    const first = address.script === null;
    if (await loadCompare(address.script ?? LOCKSTEP_SCRIPT, { protocols: address.protocols, t: address.t }) && first) play(state.t + LOCKSTEP_PLAYS_NS);
    return;
  }
  if (address.place === 'replay') {
    try {
      const trace = await Trace.recorded();
      state.place = 'replay';
      state.warning = null;
      const at = firstMoment(trace);
      await trace.ensure(at, at);
      show(trace, at, false);
      script.show(trace.header.script ?? '', null);
    } catch (error) { toast(/** @type {Error} */ (error).message); }
    return;
  }
  const first = address.script === null, same = state.trace?.header.script === address.script;
  const ok = await load(address.script ?? DEFAULT_SCRIPT, { t: address.t, expect: address.hash });
  if (!ok) { if (!state.trace && !first) await load(DEFAULT_SCRIPT, { t: null }); return; }
  if (address.version !== null && address.version !== FORMAT) state.warning = `This link was made for version ${address.version} of the trace format; this laboratory speaks version ${FORMAT}. The run may differ.`;
  if (first && !same) playFirst();
}

/** The first run plays once, and pauses in sight of its outcome. */
function playFirst() {
  const e = election(state.trace, Infinity);
  // A narrow picture follows the present; a wide one holds all of it.
  const end = innerWidth < 600 ? state.t + 700e6 : (e?.won ?? state.t + 1.5e9) + 350e6;
  spacetime.setWindow(state.t - 150e6, end);
  play(e ? e.won + CODA_NS : null);
}

function openMatrix() {
  pause();
  clearTimeout(settling);
  enter('matrix');
  drawMatrix(byId('matrix'), toast).catch(() => toast('The laboratory does not answer. Is it still running?'));
}

function openFlp() {
  pause();
  clearTimeout(settling);
  enter('flp');
  flp.show(scheduleOf(location.hash));
}

function openCap() {
  pause();
  clearTimeout(settling);
  enter('cap');
  cap.open(location.hash);
}

function openTransfer() {
  pause();
  clearTimeout(settling);
  enter('transfer');
  transfer.open(location.hash);
}

function openVerdicts() {
  pause();
  clearTimeout(settling);
  enter('verdicts');
  verdicts.open(location.hash);
}

/** The one run of a page that was exported. */
function openCarried() {
  const trace = Trace.embedded(JSON.parse(carried?.textContent ?? ''));
  state.place = 'replay';
  show(trace, firstMoment(trace), false);
  script.show(trace.header.script, null);
  playFirst();
}

function openLive() {
  // What the address says, before anything is shown.
  const named = location.hash.match(/&tab=(\w+)/)?.[1] ?? '', tab = TABS.includes(named) && named !== 'script' ? named : 'node';
  const live = new LiveTrace();
  state.place = 'live';
  state.warning = null;
  live.onchange = () => { if (state.trace === live) { drawLive(byId('story'), live, doLive); state.dirty = true; } };
  show(live, 0, false);
  live.connect();
  spacetime.setWindow(0, LIVE_SPAN);
  state.speed = SPEEDS[6];
  state.present = state.playing = true;
  drawLive(byId('story'), live, doLive);
  showTab(tab);
}

/* ---- the rest of the page ---- */

/** @param {string} name */
function showTab(name) {
  lab.dataset.tab = name;
  if (state.place === 'live' && location.hash.startsWith('#live')) history.replaceState(null, '', name === 'node' ? '#live' : `#live&tab=${name}`);
  for (const other of TABS) {
    const on = other === name;
    byId(`tab-${other}`).setAttribute('aria-selected', String(on));
    byId(`tab-${other}`).tabIndex = on ? 0 : -1;
    byId(`panel-${other}`).hidden = !on;
  }
  if (name === 'keys') keyspaces.refresh();
  if (name === 'transactions') transactions.refresh();
  table.refresh();
  state.dirty = true;
}

function tabs() {
  for (const name of TABS) {
    const tab = byId(`tab-${name}`);
    tab.addEventListener('click', () => showTab(name));
    tab.addEventListener('keydown', (/** @type {KeyboardEvent} */ e) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
      if (!by) return;
      const shown = TABS.filter((n) => !byId(`tab-${n}`).hidden), next = shown[(shown.indexOf(name) + by + shown.length) % shown.length];
      showTab(next);
      byId(`tab-${next}`).focus();
      e.preventDefault();
      e.stopPropagation();
    });
  }
}

function theme() {
  const dark = () => (document.documentElement.dataset.theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
  const stored = (() => { try { return localStorage.getItem('synod-theme'); } catch { return null; } })();
  if (stored) document.documentElement.dataset.theme = stored;
  byId('theme').addEventListener('click', () => {
    const next = dark() ? 'light' : 'dark';
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem('synod-theme', next); } catch { /* without storage the choice lasts as long as the page */ }
    recolour();
  });
  const recolour = () => { spacetime.recolour(); compare.recolour(); };
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', recolour);
  recolour();
}

async function copyLink() {
  settle.now();
  try {
    await navigator.clipboard.writeText(location.href);
    toast('The link is copied. It opens exactly this run, at this moment.');
  } catch { toast('Copying was refused: take the address from the address bar; it says the same.'); }
}

/** The keys that do something to the selected node. @returns {Record<string, () => void>} */
function onNode() {
  const menu = () => showMenu(state.selected, nodeRect(), nodeMenu(context(), state.selected));
  return { m: menu, ContextMenu: menu, c: () => clickNode(state.selected) };
}

/** @param {KeyboardEvent} e */
function keys(e) {
  const target = /** @type {HTMLElement} */ (e.target);
  if (target.closest('input, textarea, select, dialog') || e.altKey) return;
  if (e.ctrlKey || e.metaKey) {
    if (e.key === 'z' && (state.place === 'sim' || state.place === 'compare')) { e.shiftKey ? history.forward() : history.back(); e.preventDefault(); }
    return;
  }
  if (TIMELESS.includes(state.place)) return;
  const onButton = target.closest('button, a, summary, [role=tab]');
  if (e.key === ' ' && onButton) return;
  const diagram = state.place === 'compare' ? compare : spacetime;
  const span = diagram.to - diagram.from, nodes = state.trace?.header.nodes ?? [];
  const does = /** @type {Record<string, () => void>} */ ({
    ' ': () => (state.playing || state.present ? pause() : play()),
    ',': () => step(-1), '.': () => step(1), '[': () => jump(-1), ']': () => jump(1),
    ArrowLeft: () => { pause(); seek(state.t - span / (e.shiftKey ? 10 : 100)); }, ArrowRight: () => { pause(); seek(state.t + span / (e.shiftKey ? 10 : 100)); },
    Home: () => { pause(); seek(state.trace.start); }, End: () => toEnd(),
    '+': () => diagram.zoom(0.7), '=': () => diagram.zoom(0.7), '-': () => diagram.zoom(1 / 0.7),
    '?': () => showHelp(byId('help')),
    ...(state.place === 'compare' ? {} : onNode()),
  })[e.key];
  if (does) { does(); e.preventDefault(); state.dirty = true; return; }
  const number = state.place === 'compare' ? 0 : Number(e.key);
  if (number >= 1 && number <= nodes.length) { select(nodes[number - 1]); ring.focus(nodes[number - 1]); e.preventDefault(); }
}

function nodeRect() {
  return byId('cluster').querySelector(`[data-node="${CSS.escape(state.selected)}"] .disc`)?.getBoundingClientRect() ?? new DOMRect(40, 40, 1, 1);
}

async function open() {
  theme();
  tabs();
  byId('undo').addEventListener('click', () => history.back());
  byId('redo').addEventListener('click', () => history.forward());
  byId('copy').addEventListener('click', copyLink);
  byId('keys').addEventListener('click', () => showHelp(byId('help')));
  byId('legend').append(legend());
  document.querySelector('[data-skip]')?.addEventListener('click', (e) => { e.preventDefault(); ring.focus(state.selected); });
  document.addEventListener('keydown', keys);
  document.addEventListener('visibilitychange', () => { cancelAnimationFrame(loop); if (!document.hidden) loop = requestAnimationFrame(frame); });
  window.addEventListener('popstate', () => navigate());
  loop = requestAnimationFrame(frame);
  if (carried) {
    document.querySelectorAll('.places, #copy, #undo, #redo').forEach((el) => { /** @type {HTMLElement} */ (el).hidden = true; });
    openCarried();
    lab.dataset.ready = 'true';
    return;
  }
  fetch('/api/about').then((r) => r.json()).then((about) => {
    byId('place-replay').hidden = !about.recorded;
    byId('place-live').hidden = !about.live;
  }).catch(() => {});
  await navigate();
  lab.dataset.ready = 'true';
}

open();
