// @ts-check
/** A menu at a place: arrow keys, Home, End, Escape; a click beside it closes it. */

import { h } from './dom.js';

/** @typedef {{label:string, does?:() => void, note?:string}|{heading:string}} MenuItem */

/** @type {HTMLElement|null} */ let open = null;
/** @type {any} */ let before = null;

/** Closes the menu that is open, if one is. @param {boolean} [back] whether focus returns */
export function closeMenu(back = true) {
  if (!open) return;
  open.remove();
  open = null;
  if (back) before?.focus?.();
}

/** @param {string} title @param {DOMRect} at @param {MenuItem[]} items */
export function showMenu(title, at, items) {
  closeMenu(false);
  before = document.activeElement;
  const menu = h('div', { class: 'menu', role: 'menu', 'aria-label': title }, h('p', { class: 'menu-title', text: title, role: 'presentation' }));
  for (const item of items) {
    if ('heading' in item) { menu.append(h('p', { class: 'menu-heading', role: 'presentation', text: item.heading })); continue; }
    menu.append(h('button', {
      type: 'button', role: 'menuitem', tabindex: -1, 'aria-disabled': !item.does,
      onclick: () => { if (!item.does) return; closeMenu(); item.does(); },
    }, h('span', { text: item.label }), item.note && h('small', { text: item.note })));
  }
  document.body.append(menu);
  open = menu;
  const box = menu.getBoundingClientRect(), room = 8;
  const left = Math.max(room, Math.min(innerWidth - box.width - room, at.right + 6 + box.width < innerWidth ? at.right + 6 : at.left - box.width - 6));
  const top = Math.max(room, Math.min(innerHeight - box.height - room, at.top));
  menu.style.left = `${left}px`;
  menu.style.top = `${top}px`;
  menu.addEventListener('keydown', keys);
  menu.addEventListener('contextmenu', (/** @type {Event} */ e) => e.preventDefault());
  menu.querySelector('button')?.focus();
}

/** @param {KeyboardEvent} e */
function keys(e) {
  const items = /** @type {HTMLElement[]} */ ([...(open?.querySelectorAll('button') ?? [])]);
  const at = items.indexOf(/** @type {any} */ (document.activeElement));
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[e.key];
  if (to !== undefined) items[(to + items.length) % items.length].focus();
  else if (e.key === 'Escape' || e.key === 'Tab') closeMenu();
  else if (e.key !== 'Enter' && e.key !== ' ') return;
  else { e.stopPropagation(); return; }
  e.preventDefault();
  e.stopPropagation();
}

document.addEventListener('pointerdown', (e) => {
  if (open && !open.contains(/** @type {Node} */ (e.target))) closeMenu(false);
}, true);
