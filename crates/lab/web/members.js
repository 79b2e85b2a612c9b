// @ts-check
/** What members of the live cluster are asked over their own HTTP API, by way of the laboratory's server. */

/** @typedef {{at:string, status:number, body:any, session:string|null}} Said */

/** Who answered last when anybody might. @type {string|undefined} */ let first;

/**
 * @param {{at?:string, method?:string, path:string, body?:any, session?:string|null}} ask `at` is a member's name; without it whoever answers
 * @returns {Promise<Said>}
 */
export async function askMember({ at, method = 'GET', path, body, session }) {
  const asked = { ...(at ? { at } : { first }), method, path, ...(body === undefined ? {} : { body }), ...(session ? { session } : {}) };
  let response;
  try {
    response = await fetch('/api/live/member', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(asked) });
  } catch { throw new Error('The laboratory does not answer. Is it still running?'); }
  const said = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(said.error);
  if (!at) first = said.at;
  return said;
}

/** As `askMember`, for what must succeed. @param {Parameters<typeof askMember>[0]} ask @returns {Promise<Said>} */
export async function demandOfMember(ask) {
  const said = await askMember(ask);
  if (said.status >= 300) throw new Error(why(said));
  return said;
}

/** Why a member did not do what it was asked, in its own words. @param {Said} said @returns {string} */
export function why({ at, status, body }) {
  const text = typeof body === 'string' ? body : body?.error?.message;
  return text ? `${at}: ${text}` : `${at} answered ${status}`;
}

/** A part of a path. @param {string} text */
export function part(text) { return encodeURIComponent(text); }

/** Calls again and again while a panel is seen; returns a function that calls at once. @param {HTMLElement} panel @param {() => boolean} is whether it is wanted @param {number} ms @param {() => Promise<void>} does */
export function poll(panel, is, ms, does) {
  let busy = false;
  const now = async () => {
    if (busy || document.hidden || panel.hidden || !is()) return;
    busy = true;
    try { await does(); } finally { busy = false; }
  };
  setInterval(now, ms);
  return now;
}
