// @ts-check
/** The menus of a node, a link and a message: every gesture of the picture, and those too fine for one. */

/** @param {any} ctx @param {string} id @returns {import('./menu.js').MenuItem[]} */
export function nodeMenu(ctx, id) {
  return ctx.live ? liveNode(ctx, id) : simNode(ctx, id);
}

/** @param {any} ctx @param {string} id @returns {import('./menu.js').MenuItem[]} */
function simNode({ v, forkable, line, inspect }, id) {
  const n = v.byId.get(id), others = v.nodes.filter((/** @type {any} */ x) => x.id !== id);
  /** @type {import('./menu.js').MenuItem[]} */ const items = [{ label: 'Inspect', does: () => inspect(id) }];
  if (!forkable) return items;
  const add = (/** @type {string} */ label, /** @type {string} */ text, note = '') => items.push({ label, does: () => line(text), note });
  if (!n.up) add('Restart', `restart ${id}`, 'with what its disk holds');
  else {
    add('Crash', `crash ${id}`, 'loses what was not synced');
    if (n.paused) add('Resume', `resume ${id}`); else add('Pause', `pause ${id}`, 'stands still and does not know it');
    add('Let its timer run out', `timeout ${id}`);
    add('Ask it to write x = 1', `put x 1 on ${id}`);
    add('Ask it to read x', `get x on ${id}`);
  }
  items.push({ heading: 'Members' });
  if (n.part === 'out') add('Add it to the cluster', `add ${id}`, 'it catches up first, and counts then');
  else {
    if (n.part === 'learner') add('Make it a voter', `promote ${id}`);
    else if (n.role !== 'leader') add('Hand leadership to it', `transfer ${id}`);
    add('Remove it from the cluster', `remove ${id}`);
  }
  items.push({ heading: 'Network' });
  add('Isolate from all', `isolate ${id}`);
  for (const x of others) {
    const cut = v.cuts.has(`${id}>${x.id}`) || v.cuts.has(`${x.id}>${id}`);
    add(`${cut ? 'Heal' : 'Cut'} ${id}–${x.id}`, `${cut ? 'heal' : 'cut'} ${id} ${x.id}`);
  }
  if (v.cuts.size) add('Heal every link', 'heal');
  items.push({ heading: 'Clock' });
  add('Runs 10% fast', `clock ${id} rate 1.1`);
  add('Runs 10% slow', `clock ${id} rate 0.9`);
  add('Jumps 200 ms ahead', `clock ${id} jump 200ms`);
  items.push({ heading: 'Disk' });
  add('Stalls for 500 ms', `disk ${id} stall 500ms`);
  add('Is full', `disk ${id} full`);
  add('Is well again', `disk ${id} clear`);
  add('Crash: unsynced writes are lost', `disk ${id} lose-unsynced`);
  add('Crash: the last write is torn', `disk ${id} tear`);
  add('A stored bit rots', `disk ${id} rot`);
  add('Everything on it is gone', `disk ${id} wipe`);
  return items;
}

/** @param {any} ctx @param {string} id @returns {import('./menu.js').MenuItem[]} */
function liveNode({ v, cluster, act, inspect }, id) {
  const process = cluster?.nodes.find((/** @type {any} */ p) => p.name === id), can = (/** @type {string} */ verb) => cluster?.actions.includes(verb);
  /** @type {import('./menu.js').MenuItem[]} */ const items = [{ label: 'Inspect', does: () => inspect(id) }];
  const add = (/** @type {string} */ verb, /** @type {string} */ label, note = '') => { if (can(verb)) items.push({ label, note, does: () => act({ do: verb, node: id }) }); };
  if (!process?.pid) add('start', 'Start', 'on the data that it left');
  else {
    add('kill', 'Kill', 'SIGKILL');
    if (process.stopped) add('cont', 'Resume', 'SIGCONT'); else add('stop', 'Pause', 'SIGSTOP');
  }
  items.push({ heading: 'Network' });
  if (!can('cut')) items.push({ label: 'Cut links', note: cluster?.note ?? 'needs fault injection, which is off' });
  else for (const x of v.nodes) {
    if (x.id === id) continue;
    const cut = v.cuts.has(`${id}>${x.id}`) || v.cuts.has(`${x.id}>${id}`);
    items.push({ label: `${cut ? 'Heal' : 'Cut'} ${id}–${x.id}`, does: () => act({ do: cut ? 'heal' : 'cut', node: id, peer: x.id }) });
  }
  items.push({ heading: 'Only in the simulator' }, { label: 'Clocks, disks, single messages', note: 'and going back in time' });
  return items;
}

/** @param {any} ctx @param {string} a @param {string} b @returns {import('./menu.js').MenuItem[]} */
export function linkMenu({ v, live, cluster, forkable, line, act }, a, b) {
  const cut = (/** @type {string} */ x, /** @type {string} */ y) => v.cuts.has(`${x}>${y}`);
  if (live) {
    if (!cluster?.actions.includes('cut')) return [{ label: 'Cut', note: cluster?.note ?? 'needs fault injection, which is off' }];
    const verb = cut(a, b) || cut(b, a) ? 'heal' : 'cut';
    return [{ label: verb === 'heal' ? 'Heal' : 'Cut', does: () => act({ do: verb, node: a, peer: b }) }];
  }
  if (!forkable) return [];
  /** @type {import('./menu.js').MenuItem[]} */ const items = [];
  if (!cut(a, b) || !cut(b, a)) items.push({ label: 'Cut both ways', does: () => line(`cut ${a} ${b}`) });
  for (const [x, y] of [[a, b], [b, a]]) if (!cut(x, y)) items.push({ label: `Cut only ${x} to ${y}`, does: () => line(`cut ${x} -> ${y}`) });
  if (cut(a, b) || cut(b, a)) items.push({ label: 'Heal', does: () => line(`heal ${a} ${b}`) });
  return items;
}

/** A message is changed where it was sent, so the line speaks of that moment. @param {any} ctx @param {any} m @returns {import('./menu.js').MenuItem[]} */
export function messageMenu({ forkable, line }, m) {
  if (!forkable) return [{ label: m.detail || m.name }];
  return [
    { label: 'Lose it', does: () => line(`lose m${m.m}`, m.sent) },
    { label: 'Delay it by 50 ms', does: () => line(`delay m${m.m} 50ms`, m.sent) },
    { label: 'Delay it by 500 ms', does: () => line(`delay m${m.m} 500ms`, m.sent) },
    { label: 'Deliver it twice', does: () => line(`duplicate m${m.m}`, m.sent) },
  ];
}
