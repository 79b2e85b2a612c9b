// @ts-check
/** The reader as the scheduler: keep Paxos from deciding, or let it. The address holds the schedule. */

import { h, s } from './dom.js';

/** @typedef {'bivalent'|'zero'|'one'|'unknown'} Valence */
/** @typedef {{step:string, what:string, mark:Valence, to:string|null}} Choice */
/** @typedef {{decided:number|null, mark:Valence, witness:[number, number]|null, members:{id:string, wants:number|null, state:[string,string][]}[], enabled:Choice[], turn:{member:string, due:string, before:string[]|null}|null, ballots:number}} View */

const WORDS = { bivalent: 'open', zero: 'only 0', one: 'only 1', unknown: 'not known' };
const MEANING = {
  bivalent: 'Both outcomes can still come: two schedules prove it.',
  zero: 'Whatever happens now, only 0 can be decided.',
  one: 'Whatever happens now, only 1 can be decided.',
  unknown: 'Only one outcome was found; not every schedule could be tried.',
};
/** Turns that the adversary plays at a press. */
const TURNS = 30;

/** @param {string} fragment such as `#flp&d0,w1` */
export function scheduleOf(fragment) {
  const text = fragment.split('&')[1] ?? '';
  return text.split(',').filter((step) => /^[dw]\d+$/.test(step));
}

export class Flp {
  /** @param {HTMLElement} box @param {(why:string) => void} complain */
  constructor(box, complain) {
    this.box = box;
    this.complain = complain;
    /** @type {string[]} */ this.steps = [];
    this.asked = 0;
  }

  /** @param {string[]} steps */
  async show(steps) {
    const asked = ++this.asked, view = await this.ask(steps);
    if (!view || asked !== this.asked) return;
    this.steps = steps;
    this.draw(view);
  }

  /** @param {string[]} steps @returns {Promise<View|null>} */
  async ask(steps) {
    try {
      const response = await fetch('/api/flp', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ steps }) });
      const answer = await response.json();
      if (response.ok) return answer;
      this.complain(answer.error);
    } catch { this.complain('The laboratory does not answer. Is it still running?'); }
    return null;
  }

  /** Takes steps: a new entry in the history, so that Back undoes it. @param {string[]} more */
  take(more) {
    const steps = [...this.steps, ...more];
    history.pushState(null, '', `#flp&${steps.join(',')}`);
    return this.show(steps);
  }

  /** Lets the proof's adversary play: before each message that is due it takes the steps that keep the outcome open. */
  async adversary() {
    const asked = ++this.asked;
    let steps = [...this.steps];
    for (let turn = 0; turn < TURNS; turn += 1) {
      const view = await this.ask(steps);
      if (!view?.turn || asked !== this.asked) break;
      steps = [...steps, ...(view.turn.before ?? []), view.turn.due];
    }
    if (asked !== this.asked) return;
    history.pushState(null, '', `#flp&${steps.join(',')}`);
    await this.show(steps);
  }

  /** @param {View} view */
  draw(view) {
    const steps = this.steps.length, { turn } = view;
    const danger = view.enabled.filter((choice) => choice.mark !== 'bivalent');
    const say = view.decided !== null
      ? `Decided: ${view.decided}, after ${steps} steps. Go back, and hold one message longer.`
      : view.mark === 'bivalent'
        ? `${steps} steps, ${view.ballots} ballots at most, and still open: ${view.witness ? `${view.witness[0]} more steps could decide 0, ${view.witness[1]} others 1` : 'both can come'}.`
        : `${MEANING[view.mark]} The adversary has lost.`;
    this.box.replaceChildren(
      h('header', { class: 'page-head' }, h('p', { class: 'eyebrow', text: 'No time, one crash' }), h('h1', { text: 'You are the network. Keep them from deciding.' }),
        h('p', { text: 'Three processes run Paxos for one value: n1 wants 0, n2 wants 1, n3 helps. You choose which message arrives next; none is lost, and nobody crashes. Without clocks a slow process looks like a dead one, so they may never wait for all three. Fischer, Lynch and Paterson proved in 1985 that somebody in your place can always win.' })),
      h('section', { class: 'flp' },
        h('p', { class: 'flp-now', role: 'status', 'data-mark': view.decided === null ? view.mark : 'decided' }, sign(view.mark), h('span', { text: say })),
        h('div', { class: 'flp-members' }, ...view.members.map(drawMember)),
        h('div', { class: 'verb-list' },
          turn && h('button', { type: 'button', class: 'verb', 'data-verb': 'fair', onclick: () => this.take([turn.due]) }, `Let ${turn.member} have its turn`),
          turn && h('button', { type: 'button', class: 'verb', 'data-verb': 'adversary', onclick: () => this.adversary() }, `Let the adversary play ${TURNS} turns`),
          steps > 0 && h('button', { type: 'button', class: 'verb', onclick: () => history.back() }, 'Back'),
          steps > 0 && h('button', { type: 'button', class: 'verb', onclick: () => { history.pushState(null, '', '#flp'); this.show([]); } }, 'Begin anew')),
        turn && h('p', { class: 'quiet-text', text: advice(view) }),
        h('h2', { text: view.enabled.length ? 'What may happen next' : 'Nothing is left to choose' }),
        danger.length > 0 && view.decided === null && h('p', { class: 'quiet-text', text: `Withhold ${danger.length === 1 ? 'the one' : `the ${danger.length}`} marked otherwise than open: it would settle the outcome.` }),
        h('ol', { class: 'flp-choices' }, ...view.enabled.map((choice) => h('li', {},
          h('button', { type: 'button', class: 'flp-choice', 'data-step': choice.step, 'data-mark': choice.mark, title: MEANING[choice.mark], onclick: () => this.take([choice.step]) },
            sign(choice.mark), h('span', { class: 'flp-mark', text: WORDS[choice.mark] }), h('span', { text: choice.what }), turn?.due === choice.step && h('em', { text: 'due' }))))),
        h('p', { class: 'quiet-text' }, 'The same in a terminal, with coins (Ben-Or) and bounds on delays, which end the game: ', h('code', { text: 'synod flp' }))));
    this.box.dataset.steps = String(steps);
    this.box.dataset.mark = view.decided === null ? view.mark : 'decided';
  }
}

/** @param {View} view */
function advice({ turn, enabled }) {
  if (!turn) return '';
  const what = enabled.find((choice) => choice.step === turn.due)?.what ?? '';
  if (turn.before === null) return `Due for ${turn.member}: ${what}. No way was found to keep the outcome open past it.`;
  if (turn.before.length === 0) return `Due for ${turn.member}: ${what}. It does no harm now.`;
  const first = turn.before.map((step) => enabled.find((choice) => choice.step === step)?.what ?? 'what follows from it');
  return `Due for ${turn.member}: ${what}. Now it would settle the outcome. First: ${first.join('; then ')}.`;
}

/** @param {{id:string, wants:number|null, state:[string,string][]}} member */
function drawMember(member) {
  return h('article', { 'data-member': member.id }, h('h3', { text: member.id }), h('p', { text: member.wants === null ? 'helps' : `wants ${member.wants}` }),
    h('dl', {}, ...member.state.flatMap(([name, value]) => [h('dt', { text: name }), h('dd', { text: value.trim() || 'nobody' })])));
}

/** A ring that is whole, or half filled while both outcomes can come. @param {Valence} mark */
function sign(mark) {
  const half = { bivalent: 'M8 2a6 6 0 0 0 0 12Z', zero: '', one: 'M8 2a6 6 0 1 0 0 12a6 6 0 1 0 0-12Z', unknown: '' }[mark];
  return s('svg', { viewBox: '0 0 16 16', class: 'flp-sign', 'aria-hidden': 'true' },
    s('circle', { cx: 8, cy: 8, r: 6, ...(mark === 'unknown' ? { 'stroke-dasharray': '3 3' } : {}) }), half ? s('path', { d: half }) : '');
}
