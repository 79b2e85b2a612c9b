// @ts-check
/** The few helpers that the page needs instead of a framework. */

const SVG = 'http://www.w3.org/2000/svg';

/**
 * An HTML element. Keys that start with `on` are listeners, `text` is its text.
 * @param {string} tag @param {Record<string, any>} [attrs] @param {(Node|string|null|undefined|false)[]} children
 * @returns {any}
 */
export function h(tag, attrs = {}, ...children) {
  return fill(document.createElement(tag), attrs, children);
}

/** An SVG element, in the same way. @returns {any} @param {string} tag @param {Record<string, any>} [attrs] @param {(Node|string)[]} children */
export function s(tag, attrs = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attrs, children);
}

/** @param {any} el @param {Record<string, any>} attrs @param {any[]} children */
function fill(el, attrs, children) {
  for (const [key, value] of Object.entries(attrs)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) el.addEventListener(key.slice(2), value);
    else if (key === 'text') el.textContent = value;
    else el.setAttribute(key, value === true ? '' : String(value));
  }
  for (const child of children) if (child) el.append(child);
  return el;
}

/** Sets attributes that differ from what was set last; null takes one away. @param {any} el @param {Record<string, any>} attrs */
export function put(el, attrs) {
  const last = (el.lastPut ??= {});
  for (const key in attrs) {
    const value = attrs[key];
    if (last[key] === value) continue;
    last[key] = value;
    if (key === 'text') el.textContent = value ?? '';
    else if (value === null || value === undefined || value === false) el.removeAttribute(key);
    else el.setAttribute(key, value === true ? '' : String(value));
  }
}

/**
 * Children for items, each kept for as long as its item says the same: what somebody is about to press must not be replaced under the finger.
 * @template T @param {any} box @param {T[]} items @param {(item:T) => string} says @param {(item:T) => any} make
 */
export function keep(box, items, says, make) {
  const old = new Map([...box.children].map((el) => [el.keptAs, el])), wanted = new Set(items.map(says));
  for (const [as, el] of old) if (!wanted.has(as)) el.remove();
  let at = box.firstChild;
  for (const item of items) {
    const as = says(item), el = old.get(as) ?? make(item);
    el.keptAs = as;
    if (el === at) at = at.nextSibling; else box.insertBefore(el, at);
  }
}

/** @param {string} id @returns {any} */
export function byId(id) {
  return document.getElementById(id);
}

/** Whether motion should be little. */
export function calm() {
  return matchMedia('(prefers-reduced-motion: reduce)').matches;
}

/** Reads the palette of the present theme. @param {string[]} names */
export function palette(names) {
  const style = getComputedStyle(document.documentElement);
  /** @type {Record<string,string>} */ const found = {};
  for (const name of names) found[name] = style.getPropertyValue(`--${name}`).trim();
  return found;
}
