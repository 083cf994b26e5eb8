// The analyst's page: every view over time, by its greatest, and row by row; with how complete it is, and its SQL.

import { ask, failed, foreign, h, named, note, put, renew, say, sql, table, visible } from './dom.js';
import { day, number, percent, time, EVER_S } from './format.js';
import { current, go, link } from './route.js';
import { listen, newest } from './live.js';
import { Chart, filled } from './chart.js';
import { completeness, throughOf } from './complete.js';

const RANGES = [
  [900, '15 min'], [3_600, '1 hour'], [21_600, '6 hours'], [86_400, '24 hours'], [604_800, '7 days'], [2_592_000, '30 days'],
  [7_776_000, '90 days'], [31_536_000, '1 year'],
];
const RELOAD_MS = 4_000;
/** A question that takes longer than RELOAD_MS is waited for this long, since asking again would end it. */
const ANSWER_MS = 30_000;
const POINTS_MAX = 50_000;
/** The range that isn't counted from now. */
const OWN = 'own';
/** The last second that ClickHouse's DateTime holds, nearly. */
const LAST_S = 4_291_747_200;
const EXTENT_MS = 30_000;

let catalog;
let root;
let parts = null;
let view = null;
let asked = '';
let abort = null;
let loadedAt = 0;
/** How far the view was when it was asked last. */
let loadedEpoch = null;
let loadedFinal = -Infinity;
const extents = new Map();

export function enter(main, all) {
  catalog = all;
  root = main;
  parts = null;
  const end = listen(refresh);
  return () => {
    end();
    abort?.abort();
    parts?.chart.destroy();
    parts = null;
    view = null;
  };
}

export function routed(route) {
  if (!catalog.views.length) {
    put(root, note('', 'This pipeline has no view yet.', 'Add a [views.NAME] with a SELECT to the pipeline file.'));
    return;
  }
  const of = catalog.views.find((one) => one.name === route.parts[0]) ?? (route.parts[0] ? null : catalog.views[0]);
  if (!parts) build();
  if (!of) {
    view = null;
    put(parts.body, note('bad', `There is no view ${visible(route.parts[0])}.`, 'Choose one of the list.'));
    return;
  }
  const isNew = of !== view;
  view = of;
  if (isNew) lay();
  mark();
  load(route.params, isNew);
}

/** The list of views, and the room beside it. */
function build() {
  const search = h('input', { type: 'search', id: 'find', placeholder: 'Find a view', 'aria-label': 'Find a view', oninput: () => narrow(search.value) });
  const items = catalog.views.map((of) => h('li', { 'data-name': of.name.toLowerCase() }, h('a', { href: link('analyst', [of.name]), 'data-view': of.name }, named(of.name))));
  const pick = h('select', { id: 'pick', 'aria-label': 'View', onchange: () => go('analyst', [pick.value]) },
    catalog.views.map((of) => h('option', { value: of.name }, visible(of.name))));
  const side = h('aside', { class: 'side' }, h('h2', { class: 'label' }, `Views (${catalog.views.length})`), catalog.views.length > 8 ? search : null, h('ul', { class: 'views' }, items));
  const body = h('div', { class: 'body' });
  put(root, h('div', { class: 'split' }, side, h('div', { class: 'pick' }, pick), body));
  parts = { body, items, pick, chart: new Chart('Time series') };
}

function narrow(text) {
  const wanted = text.trim().toLowerCase();
  for (const item of parts.items) item.hidden = !item.dataset.name.includes(wanted);
}

function mark() {
  parts.pick.value = view.name;
  for (const of of root.querySelectorAll('a[data-view]')) {
    if (of.dataset.view === view.name) of.setAttribute('aria-current', 'true');
    else of.removeAttribute('aria-current');
  }
}

/** The room of a view: what it is, its controls, and a place for each of its three looks. */
function lay() {
  const room = (name) => h('div', { class: 'room', id: name });
  Object.assign(parts, { figure: room('figure'), controls: h('form', { class: 'controls', onsubmit: (event) => event.preventDefault() }), series: room('series'), below: h('div', { class: 'room' }), top: room('top'), rows: room('rows') });
  put(parts.body,
    h('div', { class: 'head' }, h('div', {}, h('h1', {}, named(view.name)), h('p', { class: 'about' }, visible(view.comment || `One row per ${view.window} and group.`), ' ',
      h('span', { class: 'faint' }, `${spanWords(view.window_s)} windows, ${view.zone}; ${view.retention_days ? `kept ${view.retention_days} days` : 'kept for ever'}.`)), sql(view.sql, 'The view’s SELECT')),
    parts.figure),
    parts.controls,
    h('section', { class: 'card', 'aria-labelledby': 't-series' }, h('h2', { id: 't-series' }, 'Over time'), parts.series),
    h('div', { class: 'pair' },
      h('section', { class: 'card', 'aria-labelledby': 't-top' }, h('h2', { id: 't-top' }, 'Greatest'), parts.top),
      h('section', { class: 'card wide', 'aria-labelledby': 't-rows' }, h('h2', { id: 't-rows' }, 'Rows, the newest first'), parts.rows)));
  put(parts.figure, h('p', { class: 'loading' }, 'Loading …'));
  for (const place of [parts.top, parts.rows]) put(place, h('p', { class: 'loading' }, 'Loading …'));
  put(parts.series, parts.chart.element, parts.below);
}

function spanWords(seconds) {
  const [unit, name] = seconds % 86_400 === 0 ? [86_400, 'day'] : seconds % 3_600 === 0 ? [3_600, 'hour'] : seconds % 60 === 0 ? [60, 'minute'] : [1, 'second'];
  const count = seconds / unit;
  return `${count}-${name}`;
}

/** What is asked for, as the address says it. */
function wanted(params, extent) {
  const measure = view.measures.find((one) => one.name === params.get('measure') && one.is_number) ?? view.measures.find((one) => one.is_number);
  const by = view.dimensions.find((one) => one.name === params.get('by'));
  // Data that ended long ago is looked at where it ends.
  const now = Math.ceil(Date.now() / 1000);
  const end = extent?.to && extent.to < now - 2 * Math.max(3_600, view.window_s) ? extent.to + view.window_s : now;
  const custom = params.get('from') && params.get('to');
  // As long as there are windows, and no longer than a screen shows well.
  const there = extent?.to ? end - extent.from : Infinity;
  const length = Number(params.get('range')) || RANGES.map(([s]) => s).find((s) => s >= 2 * view.window_s && (s >= there || (s >= 150 * view.window_s && s >= 3_600))) || 31_536_000;
  const to = custom ? Number(params.get('to')) : end;
  const from = custom ? Number(params.get('from')) : Math.max(0, end - length);
  const filters = [...params].filter(([key]) => key.startsWith('filter.') || key.startsWith('null.'));
  const step = view.steps.some((one) => String(one.step_s) === params.get('step')) ? params.get('step') : undefined;
  return { measure, by, from, to, length, custom: Boolean(custom), filters, step, compare: params.get('compare') === 'week', isPast: end !== now && !custom };
}

async function extentOf() {
  const held = extents.get(view.name);
  // A view that had no rows yet has some soon.
  if (held?.to && Date.now() - held.at < EXTENT_MS) return held;
  const name = view.name;
  const of = await ask(`/api/views/${encodeURIComponent(name)}/extent`).catch(() => null);
  const told = { at: Date.now(), from: of?.from ?? null, to: of?.to ?? null };
  extents.set(name, told);
  return told;
}

async function load(params, isNew) {
  abort?.abort();
  abort = new AbortController();
  const { signal } = abort;
  const of = view;
  const extent = await extentOf();
  if (signal.aborted || view !== of) return;
  const want = wanted(params, extent);
  const key = `${view.name}?${params}`;
  if (isNew || key !== asked) controls(params, want);
  asked = key;
  loadedAt = Date.now();
  // A snapshot is older than the answers: they hold at least what it tells.
  const progress = progressOf(newest());
  loadedEpoch = progress?.epoch ?? null;
  loadedFinal = Number(progress?.final_through ?? -Infinity);
  const pairs = [['measure', want.measure?.name], ['from', want.from], ['to', want.to], ['step', want.step], ...want.filters];
  const path = `/api/views/${encodeURIComponent(view.name)}`;
  const by = want.by ?? view.dimensions.find((one) => one.name !== view.tenant) ?? view.dimensions[0];
  const shown = (place, promise, draw) => promise.then((answer) => !signal.aborted && draw(answer)).catch((error) => {
    if (error.name !== 'AbortError' && !signal.aborted) renew(place, failed(error));
  });
  parts.body.setAttribute('aria-busy', 'true');
  await Promise.all([
    want.measure
      ? shown(parts.series, ask(`${path}/series`, [...pairs, ['by', want.by?.name], ['compare', want.compare ? 'week' : undefined]], signal), (answer) => { drawSeries(answer, want); drawFigure(answer, want); })
      : put(parts.series, note('', 'No measure of this view is a number.', 'Its rows are below.')),
    by && want.measure ? shown(parts.top, ask(`${path}/top`, [...pairs, ['by', by.name]], signal), (answer) => drawTop(answer, want, by)) : put(parts.top, note('', 'This view has no dimension.')),
    shown(parts.rows, ask(`${path}/rows`, pairs, signal), (answer) => drawRows(answer, `${path}/rows`, pairs)),
  ]);
  if (!signal.aborted) parts.body.removeAttribute('aria-busy');
}

const progressOf = (snapshot) => snapshot?.progress.find((one) => one.view === view.name);

/** Asks again when the view has moved on, unless somebody looks at a range of their own that was final when it was asked for. */
function refresh(snapshot) {
  if (!view || !parts?.figure) return;
  const epoch = progressOf(snapshot)?.epoch ?? null;
  const pause = parts.body.hasAttribute('aria-busy') ? ANSWER_MS : RELOAD_MS;
  if (epoch === loadedEpoch || Date.now() - loadedAt < pause || document.hidden) return;
  // Whoever reads isn't disturbed; the next snapshot after that is soon enough.
  if (root.querySelector('.room details[open]') || root.querySelector('.plot:hover')) return;
  const { params } = current();
  const isOwn = params.get('from') && params.get('to');
  if (!isOwn || loadedFinal < Number(params.get('to'))) load(params, false);
}

function controls(params, want) {
  const change = (key, value) => {
    if (key === 'range' && value === OWN) {
      // As it is now: what was drawn with these controls may be long ago.
      const now = wanted(params, extents.get(view.name));
      choose(Math.floor(now.from), Math.ceil(now.to));
      return;
    }
    const next = new URLSearchParams(params);
    if (value === '' || value === null) next.delete(key);
    else next.set(key, value);
    if (key === 'range') ['from', 'to', 'step'].forEach((one) => next.delete(one));
    go('analyst', [view.name], next);
  };
  const select = (id, label, value, options, key) => h('label', { class: 'field', for: id }, h('span', {}, label),
    h('select', { id, onchange: (event) => change(key, event.target.value) }, options.map(([of, text]) => h('option', { value: of, selected: String(of) === String(value ?? '') }, text))));
  const steps = view.steps.filter((one) => (want.to - want.from) / one.step_s <= 20_000 && (want.to - want.from) / one.step_s >= 2);
  // A view with HAVING has points of its own windows only, and they may be too many.
  const ranges = RANGES.filter(([s]) => s >= view.window_s * 2 && (!view.has_having || s / view.window_s <= POINTS_MAX)).map(([s, text]) => [s, text]);
  ranges.push([OWN, 'chosen']);
  put(parts.controls,
    select('measure', 'Measure', want.measure?.name, view.measures.filter((one) => one.is_number).map((one) => [one.name, visible(one.name)]), 'measure'),
    view.dimensions.length ? select('by', 'Lines by', want.by?.name, [['', 'none'], ...view.dimensions.map((one) => [one.name, visible(one.name)])], 'by') : null,
    select('range', 'Range', want.custom ? OWN : want.length, ranges, 'range'),
    want.custom ? ownRange(want) : null,
    select('step', 'Points', want.step, [['', 'automatic'], ...steps.map((one) => [one.step_s, one.text])], 'step'),
    view.dimensions.map((one) => filterOf(one, params, want)),
    h('label', { class: 'field check', for: 'compare' }, h('span', {}, 'Compare'), h('span', { class: 'box' },
      h('input', { type: 'checkbox', id: 'compare', checked: want.compare, onchange: (event) => change('compare', event.target.checked ? 'week' : '') }), ' week before')),
    [...params].length ? h('button', { type: 'button', class: 'quiet', id: 'reset', onclick: () => go('analyst', [view.name]) }, 'Reset') : null);
}

/** Both ends of a chosen range, to be typed. They hold when somebody says so: a half-typed time is a time, too. */
function ownRange(want) {
  const wrong = h('span', { class: 'wrong', id: 'range-wrong', role: 'alert' });
  const enter = (event) => {
    if (event.key !== 'Enter') return;
    event.preventDefault();
    show();
  };
  const input = (id, at) => h('input', { type: 'datetime-local', id, step: '1', value: typed(at), 'aria-describedby': 'range-wrong', onkeydown: enter });
  const ends = [input('range-from', want.from), input('range-to', want.to)];
  const show = () => {
    const [from, to] = ends.map((of) => Date.parse(`${of.value}Z`) / 1000);
    const isMissing = Number.isNaN(from) || Number.isNaN(to);
    const why = isMissing ? 'Give both times, with day and time of day.' : from < 0 || to > LAST_S ? 'Give times from 1970 to 2105.'
      : from >= to ? 'The range has no end behind its beginning: give a “from” before “to”.' : '';
    wrong.textContent = why;
    for (const of of ends) {
      if (why) of.setAttribute('aria-invalid', 'true');
      else of.removeAttribute('aria-invalid');
    }
    if (!why) choose(from, to);
  };
  const field = (of, text) => h('div', { class: 'field' }, h('label', { for: of.id }, text), of);
  return h('div', { class: 'own', role: 'group', 'aria-label': 'Chosen range' }, field(ends[0], 'From (UTC)'), field(ends[1], 'To (UTC)'),
    h('button', { type: 'button', id: 'range-show', onclick: show }, 'Show'), wrong);
}

/** Seconds since 1970 as an input of times has them; nothing where they are none. */
function typed(seconds) {
  return seconds >= 0 && seconds <= LAST_S ? new Date(seconds * 1000).toISOString().slice(0, 19) : '';
}

/** A filter: what is chosen, what occurs, asked for when somebody looks, and a place to type anything else. */
function filterOf(dimension, params, want) {
  const key = `filter.${dimension.name}`;
  const chosen = params.get(key);
  const isNull = params.has(`null.${dimension.name}`);
  const label = dimension.name === view.tenant && dimension.name !== 'tenant' ? `${dimension.name} (tenant)` : dimension.name;
  const option = (value, text, selected) => h('option', { value, selected, dir: 'auto' }, text);
  const now = isNull ? option('null', '(null)', true) : chosen !== null ? option('chosen', visible(chosen) || '(empty)', true) : null;
  const id = `f-${view.dimensions.indexOf(dimension)}`;
  const values = [];
  const select = h('select', { id }, option('', 'all', !now), now, option('other', 'other …'));
  // Only so many values are offered, and only of the range.
  const other = h('input', { type: 'text', id: `${id}-other`, 'aria-label': `${visible(label)}: any value`, placeholder: 'any value', autocomplete: 'off', spellcheck: 'false', dir: 'auto', hidden: true });
  const offer = async () => {
    if (select.dataset.asked) return;
    select.dataset.asked = 'yes';
    const pairs = [['by', dimension.name], ['from', want.from], ['to', want.to], ...want.filters];
    const answer = await ask(`/api/views/${encodeURIComponent(view.name)}/values`, pairs).catch(() => null);
    for (const [value] of answer?.rows ?? []) {
      if (value === chosen) continue;
      // What was cut can't be asked for.
      if (typeof value === 'string' && value.endsWith('…') && value.length > 400) continue;
      values.push(value);
      select.append(option(value === null ? 'null' : String(values.length - 1), value === null ? '(null)' : visible(value) || '(empty)'));
    }
  };
  select.addEventListener('focus', offer);
  select.addEventListener('pointerdown', offer);
  const filter = (change) => {
    const next = new URLSearchParams(params);
    next.delete(key);
    next.delete(`null.${dimension.name}`);
    change(next);
    go('analyst', [view.name], next);
  };
  select.addEventListener('change', () => {
    other.hidden = select.value !== 'other';
    // The focus stays where it is: whoever goes through the values by keys passes this one.
    if (!other.hidden) say('Type a value in the next field.');
    else if (select.value === 'null') filter((next) => next.set(`null.${dimension.name}`, ''));
    else if (select.value === 'chosen') filter((next) => next.set(key, chosen));
    else filter((next) => select.value !== '' && next.set(key, String(values[Number(select.value)])));
  });
  const take = () => other.value !== '' && filter((next) => next.set(key, other.value));
  other.addEventListener('change', take);
  other.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter') return;
    event.preventDefault();
    // The field goes when the filter is there; what stays keeps the focus.
    select.focus();
    take();
  });
  return h('div', { class: 'field' }, h('label', { for: id }, visible(label)), select, other);
}

function drawFigure(answer, want) {
  const through = throughOf(answer.progress);
  const change = answer.total_before !== undefined && answer.total_before !== null && Number(answer.total_before) !== 0
    ? Number(answer.total) / Number(answer.total_before) - 1 : null;
  const isWhole = through >= want.to;
  renew(parts.figure,
    h('p', { class: 'big' }, h('span', { class: 'value', id: 'total' }, number(answer.total)), ' ', h('span', { class: 'unit' }, visible(want.measure.name))),
    view.has_having ? h('p', { class: 'faint' }, 'Of rows that met HAVING.') : null,
    want.compare ? h('p', { class: 'change' }, change === null ? 'nothing a week before' : `${change >= 0 ? '+' : '−'}${percent(Math.abs(change))} against the week before (${number(answer.total_before)})`) : null,
    completeness(view, newest(), answer.progress, isWhole),
    want.isPast ? h('p', { class: 'faint' }, `The newest window is of ${time(want.to - view.window_s, view.zone)}.`) : null);
}

function drawSeries(answer, want) {
  if (!parts.series.contains(parts.chart.element)) put(parts.series, parts.chart.element, parts.below);
  const lines = want.by ? byDimension(answer.points, answer, want) : [lineOf(want.measure.name, answer.points, answer, want)];
  // The server has moved them to this week's times.
  if (answer.before && (!want.by || want.measure.is_additive)) {
    const sums = answer.before.points.reduce((all, of) => all.set(of[0], (all.get(of[0]) ?? 0) + Number(of.at(-1))), new Map());
    const before = want.by ? [...sums] : answer.before.points;
    lines.push({ ...lineOf('a week before', before, answer, want), dashed: true, quiet: true });
  }
  const through = throughOf(answer.progress);
  parts.chart.draw({
    lines, zone: view.zone, step_s: answer.step_s, from: want.from, to: want.to, label: `${visible(want.measure.name)} of ${visible(view.name)} over time`,
    complete_through: through >= EVER_S ? null : through,
    select: (from, to) => choose(from, to),
  });
  const more = [sql(answer.sql), answer.before ? sql(answer.before.sql, 'SQL of the week before') : null, sql(answer.total_sql, 'SQL of the number')];
  renew(parts.below, h('p', { class: 'faint' }, want.by ? 'The eight greatest in the range. ' : '', view.has_having ? 'Of rows that met HAVING. ' : '', 'Drag over the chart to look closer; what is dashed may still change.'), h('div', { class: 'sqls' }, more));
}

function choose(from, to) {
  const next = new URLSearchParams(current().params);
  ['range', 'step'].forEach((one) => next.delete(one));
  next.set('from', from);
  next.set('to', to);
  go('analyst', [view.name], next);
  say('The range has changed.');
}

const toNumber = (y) => (y === null || y === undefined ? null : Number(y));

/** A line; of counts, sums and distinct counts, windows without rows are 0; of others they are a gap. */
function lineOf(name, points, answer, want) {
  const isZero = want.measure.empty_is_zero;
  return lineOver(name, filled(points.map(([x]) => x), answer.step_s, isZero), new Map(points), isZero);
}

function lineOver(name, xs, values, isZero) {
  const none = isZero ? 0 : null;
  return { name, xs, ys: xs.map((x) => (values.has(x) ? toNumber(values.get(x)) : none)), none };
}

function byDimension(points, answer, want) {
  const isZero = want.measure.empty_is_zero;
  const xs = filled([...new Set(points.map(([x]) => x))], answer.step_s, isZero);
  const lines = new Map();
  for (const [x, key, y] of points) {
    const name = key === null ? '(null)' : key === '' ? '(empty)' : String(key);
    if (!lines.has(name)) lines.set(name, { values: new Map(), sum: 0 });
    const line = lines.get(name);
    line.values.set(x, y);
    line.sum += Math.abs(Number(y) || 0);
  }
  return [...lines].sort(([, one], [, other]) => other.sum - one.sum).map(([name, { values }]) => lineOver(name, xs, values, isZero));
}

function drawTop(answer, want, by) {
  const rows = answer.rows;
  if (!rows.length) {
    renew(parts.top, h('p', { class: 'nothing' }, 'No rows in this range.'));
    return;
  }
  const most = Math.max(...rows.map(([, y]) => Math.abs(Number(y) || 0)), 1e-12);
  const columns = [
    { label: visible(by.name), cell: ([key]) => h('button', { type: 'button', class: 'link', onclick: () => narrowTo(by, key) }, key === null ? '(null)' : foreign(key)) },
    { label: visible(want.measure.name), number: true, cell: ([, y]) => number(y) },
    { label: '', hidden: 'Against the greatest', cell: ([, y]) => h('span', { class: 'meter', 'aria-hidden': 'true' }, h('span', { class: 'filled', 'width%': Math.min(100, Math.abs(Number(y) || 0) / most * 100) })) },
  ];
  renew(parts.top, table(`${visible(want.measure.name)} by ${visible(by.name)}`, columns, rows, { class: 'dense bars' }),
    view.has_having ? h('p', { class: 'faint' }, 'Of rows that met HAVING.') : null, sql(answer.sql));
}

function narrowTo(dimension, key) {
  const next = new URLSearchParams(current().params);
  if (key === null) next.set(`null.${dimension.name}`, '');
  else next.set(`filter.${dimension.name}`, String(key));
  if (next.get('by') === dimension.name) next.delete('by');
  go('analyst', [view.name], next);
}

function drawRows(answer, path, pairs) {
  if (!answer.rows.length) {
    renew(parts.rows, h('p', { class: 'nothing' }, 'No rows in this range.'), sql(answer.sql));
    return;
  }
  const isNumber = (type) => /^(Nullable\()?(U?Int|Float|Decimal)/.test(type);
  const columns = answer.columns.map((column, at) => ({
    label: visible(column.name), number: isNumber(column.type),
    cell: (row) => cell(row[at], column),
  }));
  const closed = answer.columns.findIndex((column) => column.name === 'is_closed');
  const query = new URLSearchParams([...pairs.filter(([, value]) => value !== undefined), ['format', 'csv']]);
  renew(parts.rows, table(`Rows of ${visible(view.name)}`, columns, answer.rows, { class: 'dense', row: (row) => ({ class: row[closed] === false ? 'open' : undefined }) }),
    h('p', { class: 'faint' }, answer.is_cut ? `The newest ${answer.rows.length} rows. ` : `${answer.rows.length} rows. `,
      h('a', { href: `${path}?${query}`, download: `${view.name}.csv` }, 'CSV'), ` (${number(answer.csv_rows)} rows at most). What is slanted may still change.`), sql(answer.sql));
}

function cell(value, column) {
  if (value === null) return h('span', { class: 'faint' }, 'null');
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (column.name === view.window && view.window_s % 86_400 === 0) return day(Date.parse(value) / 1000, view.zone);
  if (/DateTime/.test(column.type)) return time(Date.parse(value) / 1000, view.zone, view.window_s < 60);
  if (/String/.test(column.type)) return foreign(value);
  return visible(value);
}
