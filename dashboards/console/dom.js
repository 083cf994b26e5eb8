// Making elements. Text goes in as text, never as markup: there is no other way here.

/** Characters that hide, or turn other text around: shown by their names instead. */
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;
const LONGEST = 300;

/** What an event brought, as text that can't pretend to be something else. */
export function visible(value) {
  let text = typeof value === 'string' ? value : value === null || value === undefined ? '' : String(value);
  if (text.length > LONGEST) text = `${text.slice(0, LONGEST)}…`;
  return text.replace(HIDDEN, byName);
}

const byName = (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}⟩`;

/** A value of an event, set apart from the text around it whatever its direction. */
export function foreign(value, attributes = {}) {
  const text = visible(value);
  return h('bdi', attributes, text === '' ? h('span', { class: 'faint' }, '(empty)') : text);
}

/** A name of the pipeline's own, which may break behind an underscore and nowhere else. */
export function named(name) {
  return visible(name).split(/(?<=_)/).flatMap((part, at) => (at ? [h('wbr'), part] : [part]));
}

/** An element: attributes, `on…` listeners, `class`, and children, which are nodes, texts, or nothing. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

const SVG = 'http://www.w3.org/2000/svg';

/** The same for SVG. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) hear(element, name.slice(2), value);
    else if (name === 'value' || name === 'checked' || name === 'selected') element[name] = value;
    else if (name === 'width%') element.style.setProperty('width', `${value}%`);
    else if (name === 'color') element.style.setProperty('--own', value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** What an element does is kept beside it, so that `renew` can hand it on. */
function hear(element, event, listener) {
  element.heard ??= {};
  if (!(event in element.heard)) element.addEventListener(event, (of) => element.heard[event]?.(of));
  element.heard[event] = listener;
}

const solid = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

/** Puts children in the place of those that are there, and keeps the focus where it was, by id. */
export function put(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.id : '';
  parent.replaceChildren(...solid(children));
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/** As `put`, but changes only what differs, so that focus, selection and scrolling stay: for what is drawn again by itself. */
export function renew(parent, ...children) {
  const next = document.createDocumentFragment();
  next.append(...solid(children));
  patch(parent, next);
}

function patch(there, next) {
  const nodes = [...next.childNodes];
  nodes.forEach((node, at) => {
    const old = there.childNodes[at];
    if (!old) there.append(node);
    else if (old.nodeType === Node.TEXT_NODE && node.nodeType === Node.TEXT_NODE) {
      if (old.data !== node.data) old.data = node.data;
    } else if (old.nodeName === node.nodeName && old.id === node.id && node.nodeType === Node.ELEMENT_NODE) {
      alike(old, node);
      patch(old, node);
    } else old.replaceWith(node);
  });
  while (there.childNodes.length > nodes.length) there.lastChild.remove();
}

/** Gives an element the attributes and the listeners of another. What somebody has unfolded stays unfolded. */
function alike(old, node) {
  for (const { name, value } of node.attributes) {
    // The policy of the page lets scripts set styles, and attributes not.
    if (name === 'style') old.style.cssText = node.style.cssText;
    else if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!node.hasAttribute(name) && name !== 'open') old.removeAttribute(name);
  }
  for (const event of Object.keys({ ...old.heard, ...node.heard })) hear(old, event, node.heard?.[event]);
}

/** Tells people who listen rather than look. */
export function say(text) {
  const said = document.getElementById('said');
  if (said) said.textContent = text;
}

/** A table: columns as {name, label, number, cell}, rows as objects. */
export function table(caption, columns, rows, options = {}) {
  const head = h('thead', {}, h('tr', {}, columns.map((column) =>
    h('th', { scope: 'col', class: column.number ? 'number' : undefined }, column.label || h('span', { class: 'unseen' }, column.hidden ?? 'More')))));
  const line = (row) => h('tr', options.row?.(row) ?? {}, columns.map((column, at) =>
    h(at === 0 && !column.number ? 'th' : 'td',
      { class: column.number ? 'number' : undefined, scope: at === 0 && !column.number ? 'row' : undefined },
      column.cell(row))));
  const of = h('table', { class: options.class }, h('caption', { class: options.caption ? undefined : 'unseen' }, caption),
    head, h('tbody', {}, rows.map(line)));
  // What is wider than the page scrolls by itself, and can be scrolled by keys.
  return h('div', { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': caption }, of);
}

/** SQL, folded, with a button that copies it. */
export function sql(text, label = 'SQL') {
  const copy = h('button', { type: 'button', class: 'small', onclick: () => copied(text) }, 'Copy');
  return h('details', { class: 'sql' }, h('summary', {}, label),
    h('div', { class: 'code' }, h('pre', { tabindex: '0', 'aria-label': label }, visibleLines(text)), copy));
}

const HIDDEN_BUT_LINES = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

function visibleLines(text) {
  return text.slice(0, 20_000).replace(HIDDEN_BUT_LINES, byName);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    say('Copied.');
  } catch {
    // Beyond loopback browsers give the clipboard to https pages only.
    const area = h('textarea', { class: 'unseen', 'aria-hidden': 'true' });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    say(done ? 'Copied.' : 'The browser does not let the page copy: select the text.');
  }
}

/** What stands where nothing is, or something failed: said at once when it is bad. */
export function note(kind, title, ...more) {
  return h('div', { class: `note ${kind}`, role: kind === 'bad' ? 'alert' : undefined }, h('strong', {}, title), more.length ? h('p', {}, more) : null);
}

/** The same, said by nobody: whoever shows it says what has changed. */
export function silent(kind, title, ...more) {
  const of = note(kind, title, ...more);
  of.removeAttribute('role');
  return of;
}

/** A failed question. */
export function failed(error) {
  return note('bad', visible(error.what ?? error.message ?? 'It failed.'), visible(error.remedy ?? ''));
}

/** Asks the server; throws {what, remedy}. */
export async function ask(path, pairs = [], signal = undefined) {
  const query = new URLSearchParams(pairs.filter(([, value]) => value !== undefined && value !== null)).toString();
  let answer;
  try {
    answer = await fetch(query ? `${path}?${query}` : path, { signal, headers: { accept: 'application/json' } });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw { what: 'Weir does not answer.', remedy: 'See that it runs; the page tries again by itself.' };
  }
  const body = await answer.json().catch(() => ({ what: `Weir answered ${answer.status}.`, remedy: '' }));
  if (!answer.ok) throw body;
  return body;
}

/** One row of an answer as an object. */
export function objects(answer) {
  return answer.rows.map((row) => Object.fromEntries(answer.columns.map((column, at) => [column.name, row[at]])));
}

/**
 * When something that is asked for again and again is due: at `dueAt` first (milliseconds since 1970), never while it is being
 * asked for, then after `everyMs`, or ten times as long as it took.
 */
export function pace(everyMs, dueAt = 0) {
  return {
    isDue: () => Date.now() >= dueAt,
    hurry() { dueAt = 0; },
    async wait(asked) {
      const began = Date.now();
      dueAt = Infinity;
      try {
        await asked;
      } finally {
        dueAt = Date.now() + Math.max(everyMs, 10 * (Date.now() - began));
      }
    },
  };
}
