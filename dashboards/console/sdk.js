// The page of the teams that own SDKs: what is wrong with which release since when, and a look at every release.

import { ask, failed, foreign, h, note, objects, pace, put, renew, sql, table, visible } from './dom.js';
import { ago, number, percent, time } from './format.js';
import { current, go, link } from './route.js';
import { listen } from './live.js';
import { Chart, filled } from './chart.js';

const RANGES = [[3_600, '1 hour'], [21_600, '6 hours'], [86_400, '24 hours'], [604_800, '7 days'], [2_592_000, '30 days']];
/** How often releases are asked for again; where that takes long, ten times as long as it takes, since it reads every event of the range. */
const AGAIN_MS = 30_000;

let catalog;
let root;
let body;
let tabs;
let shownKey = '';
let charts = [];
let alertsKey = null;
/** Of releases, which the first page of them sets off. */
const asking = pace(AGAIN_MS, Infinity);

export function enter(main, all) {
  catalog = all;
  root = main;
  body = h('div', { class: 'stack', id: 'sdk' });
  tabs = h('nav', { class: 'tabs', 'aria-label': 'SDK team' });
  put(root, h('div', { class: 'stack' }, tabs, body));
  alertsKey = null;
  const end = listen(refresh);
  return () => {
    end();
    forget();
    shownKey = '';
  };
}

function forget() {
  charts.forEach((chart) => chart.destroy());
  charts = [];
}

export function routed(route) {
  const [kind, name] = route.parts;
  const tab = kind === 'releases' || kind === 'release' ? 'releases' : 'alerts';
  const tabOf = (of, parts, text) => h('a', { href: link('sdk', parts), 'aria-current': of === tab ? 'page' : undefined }, text);
  put(tabs, tabOf('alerts', [], 'Alerts'), tabOf('releases', ['releases'], 'Releases'));
  const key = location.hash;
  if (key === shownKey) return;
  shownKey = key;
  forget();
  put(body, h('p', { class: 'loading' }, 'Loading …'));
  const draw = kind === 'alert' && name ? alert(name) : kind === 'release' && name ? asking.wait(release(name, route.params)) : kind === 'releases' ? asking.wait(releases(route.params)) : alerts(route.params);
  draw.catch((error) => shownKey === key && put(body, failed(error)));
}

/** Alerts come and go by themselves, and releases go on; what somebody reads stays as it is until they look up. */
function refresh(snapshot) {
  const { parts: [kind, name], params } = current();
  const key = snapshot.alerts.map((one) => `${one.fingerprint}${one.status}${one.last_seen_at}${one.acknowledged_by}`).join();
  const isFirst = alertsKey === null;
  if (isFirst) alertsKey = key;
  if (isFirst || document.hidden || isRead()) return;
  // A question that fails leaves what is there: the next one may be answered.
  if (kind === 'releases' || kind === 'release') {
    if (!asking.isDue()) return;
    asking.wait(kind === 'releases' ? releases(params, true) : release(name, params, true)).catch(() => {});
    return;
  }
  if (key === alertsKey) return;
  alertsKey = key;
  if (!kind) alerts(params).catch(() => {});
  else if (kind === 'alert') alert(name, true).catch(() => {});
}

/** Whether somebody reads: has unfolded or selected something, is on a chart, has scrolled a table or is at a link by keys. */
function isRead() {
  const selection = getSelection();
  return Boolean(body.querySelector('details[open], .plot:hover, a:focus, button:focus, summary:focus, .plot:focus'))
    || [...body.querySelectorAll('.scroll')].some((of) => of.scrollLeft > 0 || of.scrollTop > 0)
    || (!selection.isCollapsed && body.contains(selection.anchorNode));
}

/** The release that an alert names; of one that is put down to a platform or a tenant there is none. */
const releaseOf = (of) => (['release', 'sdk_version', 'app_version'].includes(of.cause_kind) ? `${of.sdk} ${of.sdk_version} / ${of.app_version}` : '');
const about = (of) => [of.rule, of.reason, of.indicator].find((text) => text) ?? '';

async function alerts(params) {
  if (!catalog.has_alerts) {
    put(body, note('', 'This pipeline has no detector.', 'Add [alerts.judge] or [alerts.refused_share] to the pipeline file.'));
    return;
  }
  const key = shownKey;
  const all = params.get('all') === '1';
  const answer = await ask('/api/alerts', all ? [['all', '1']] : []);
  if (key !== shownKey) return;
  const rows = objects(answer);
  const owners = Map.groupBy ? Map.groupBy(rows, (of) => of.owner) : rows.reduce((map, of) => map.set(of.owner, [...(map.get(of.owner) ?? []), of]), new Map());
  const open = rows.filter((of) => of.status !== 'resolved').length;
  // The open ones come first: where one that is over is told, no open one was cut.
  const more = answer.is_cut && open === rows.length ? '+' : '';
  const toggle = h('label', { class: 'field check', for: 'all' }, h('span', { class: 'box' }, h('input', { type: 'checkbox', id: 'all', checked: all, onchange: (event) => go('sdk', [], new URLSearchParams(event.target.checked ? { all: '1' } : {})) }), ' with those that are over'));
  put(body,
    h('div', { class: 'head' }, h('h1', {}, open ? `${open}${more} open alert${open === 1 && !more ? '' : 's'}` : 'No open alert'), toggle),
    rows.length ? [...owners].map(([owner, list]) => h('section', { class: 'stack' }, h('h2', {}, owner ? foreign(owner) : 'Nobody named', h('span', { class: 'faint' }, ` ${list.length}`)), h('ul', { class: 'alerts' }, list.map((of) => h('li', {}, line(of))))))
      : note('', 'Nothing is wrong that a detector knows of.', 'An alert opens here by itself, and goes when it is over.'),
    answer.is_cut ? h('p', { class: 'faint' }, `The first ${rows.length}: there are more.`) : null, sql(answer.sql));
}

/** An alert in the list. */
function line(of) {
  const isOver = of.status === 'resolved';
  return h('a', { class: `alert ${isOver ? 'resolved' : of.severity}`, href: link('sdk', ['alert', of.fingerprint]), 'data-fingerprint': of.fingerprint },
    h('span', { class: 'what' }, title(of)), h('span', { class: 'share' }, percent(of.affected_share)),
    h('span', { class: 'more' }, h('span', { class: `tag ${isOver ? 'good' : of.severity}` }, isOver ? 'over' : visible(of.severity)), ' ',
      `${number(of.affected_records)} of ${number(of.records)} records`,
      of.last_good_release ? [' · last good ', foreign(of.last_good_release)] : null,
      of.tenants.length ? [' · ', foreign(of.tenants.slice(0, 3).join(', ')), of.tenant_count > 3 ? ` and ${number(of.tenant_count - 3)} more` : null] : null,
      of.acknowledged_by ? [' · ', foreign(of.acknowledged_by), ' has it'] : null, of.suppressed_by ? [' · suppressed by ', foreign(of.suppressed_by)] : null),
    h('span', { class: 'more' }, `since ${time(of.opened_at)} UTC`));
}

function title(of) {
  const where = [...of.fields, ...of.event_types].slice(0, 3).join(', ');
  const who = releaseOf(of) || `${of.cause_kind} ${of.cause}`;
  return [foreign(about(of)), where ? [' on ', foreign(where)] : of.detail && of.detail !== about(of) ? [' · ', foreign(of.detail)] : null, h('span', { class: 'by' }, ' by ', foreign(who))];
}

async function alert(fingerprint, again = false) {
  const key = shownKey;
  const { alert: of, steps } = await ask(`/api/alerts/${encodeURIComponent(fingerprint)}`);
  if (key !== shownKey) return;
  if (again) forget();
  const rows = objects(steps);
  const isOver = of.status === 'resolved';
  const isVolume = of.indicator === 'number of events';
  const over = chart('Over time, against what was expected');
  const by = chart('By release over time');
  const byPlace = h('div', { class: 'room' }, by.element);
  put(body,
    h('p', {}, h('a', { href: '#/sdk' }, '← All alerts')),
    h('div', { class: 'head' }, h('div', {}, h('h1', {}, title(of)), h('p', { class: 'about' },
      h('span', { class: `tag ${isOver ? 'good' : of.severity}` }, isOver ? 'over' : visible(of.severity)), isOver ? ' since ' : ' open since ', time(isOver ? of.last_seen_at : of.opened_at), ' UTC: ', foreign(of.status_reason))),
    h('div', { class: 'room' }, h('p', { class: 'big' }, h('span', { class: 'value' }, percent(of.affected_share)), ' ', h('span', { class: 'unit' }, 'of records affected')),
      h('p', { class: 'faint' }, `${number(of.affected_records)} of ${number(of.records)} in the newest window`))),
    h('div', { class: 'pairs' },
      card('Who and what', facts([
        ['First bad release', releaseOf(of) ? h('a', { href: link('sdk', ['release', releaseOf(of)]) }, foreign(releaseOf(of))) : '–'],
        ['Last good release', of.last_good_release ? foreign(of.last_good_release) : 'unknown'],
        ['Owner', of.owner ? foreign(of.owner) : 'nobody named'],
        ['Put down to', foreign(`${of.cause_kind} ${of.cause}`)],
        ['Tenants', [foreign(of.tenants.slice(0, 8).join(', ') || '–'), of.tenant_count > 8 ? ` and ${number(of.tenant_count - 8)} more` : null]],
        ['Event types, fields', foreign([...of.event_types, ...of.fields].join(', ') || '–')],
        ['Rule, reason', foreign([...new Set([of.rule, of.reason, of.detail])].filter(Boolean).join(' · ') || '–')],
        ['Users affected', number(of.affected_users)],
        ['Evidence', foreign(of.statistic || '–')],
        ['Taken on by', of.acknowledged_by ? foreign(of.acknowledged_by) : h('span', { class: 'faint' }, 'nobody: weir alerts ack FILE ', visible(of.fingerprint.slice(0, 8)))],
      ])),
      card('In the log', facts([
        ['First record', foreign(of.first_place || '–')], ['Last record', foreign(of.last_place || '–')],
        ['Examples', of.examples.length ? of.examples.map((one) => h('div', {}, foreign(one))) : '–'],
        ['Detector', foreign(`${of.detector}, ${of.indicator}`)], ['Fingerprint', h('code', {}, visible(of.fingerprint))],
      ]), of.query ? sql(of.query, 'SQL to look further with') : null)),
    card(isVolume ? 'Against the usual number' : 'Share over time', over.element, sql(steps.sql)),
    card(isVolume ? 'Number by release' : 'Share by release', byPlace),
    card('Samples', of.samples.length ? of.samples.map((one) => h('pre', { class: 'sample', tabindex: '0', 'aria-label': 'A record' }, foreignBlock(one))) : h('p', { class: 'nothing' }, 'None were kept.')),
    card('Steps', table('Steps of the alert', [
      { label: 'Window (UTC)', cell: (row) => time(atOf(row)) }, { label: 'Status', cell: (row) => visible(row.status) }, { label: 'Why', cell: (row) => foreign(row.status_reason) },
      { label: 'Severity', cell: (row) => visible(row.severity) }, { label: 'Share', number: true, cell: (row) => percent(row.affected_share) }, { label: 'Records', number: true, cell: (row) => number(row.affected_records) },
    ], [...rows].reverse(), { class: 'dense' })));
  overTime(over, rows, isVolume);
  byRelease(by, byPlace, of, rows).catch((error) => put(byPlace, failed(error)));
}

function foreignBlock(text) {
  const of = String(text);
  const parts = [];
  for (let at = 0; at < Math.min(of.length, 4_000); at += 250) parts.push(visible(of.slice(at, at + 250)));
  return h('bdi', {}, parts.join(''));
}

function card(title_, ...content) {
  return h('section', { class: 'card' }, h('h2', {}, title_), h('div', { class: 'room' }, content));
}

function facts(pairs) {
  return h('dl', { class: 'facts' }, pairs.map(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
}

function chart(label) {
  const of = new Chart(label);
  of.canvas.classList.add('low');
  charts.push(of);
  return of;
}

function overTime(of, rows, isVolume) {
  const xs = [];
  const kept = [];
  // Several steps of one window: the last counts.
  for (const row of rows) {
    if (xs.at(-1) === atOf(row)) kept[kept.length - 1] = row;
    else {
      xs.push(atOf(row));
      kept.push(row);
    }
  }
  const column = (name) => kept.map((row) => (row[name] === null || row[name] === undefined ? null : Number(row[name])));
  const lines = [{ name: isVolume ? 'of the usual number' : 'seen', xs, ys: column('seen') }];
  for (const [name, text] of [['expected', 'expected'], ['expected_lower', 'least that is no alert'], ['expected_upper', 'most that is no alert']]) {
    if (kept.some((row) => row[name] !== null && (isVolume || row[name] <= 1))) lines.push({ name: text, xs, ys: column(name), quiet: true, dashed: true, stepped: true });
  }
  of.draw({ lines, zone: 'UTC', step_s: rows.length ? widthOf(rows[0]) : 60, percent: true, label: isVolume ? 'Number of events by window, against the usual one' : 'Share by window' });
}

const atOf = (row) => Number(row.window_start);
const widthOf = (row) => Math.max(1, Number(row.window_end) - Number(row.window_start));

/** How this release went beside the others in what the alert is about, and who says so. */
async function byRelease(of, place, alertOf, rows) {
  const key = shownKey;
  const first = rows.length ? Math.min(...rows.map(atOf)) : Number(alertOf.opened_at);
  const last = Math.max(Number(alertOf.last_seen_at), first + 60);
  const room = Math.max(1_800, 12 * widthOf(alertOf), (last - first) / 2);
  const answer = await ask(`/api/alerts/${encodeURIComponent(alertOf.fingerprint)}/releases`, [['from', Math.floor(first - room)], ['to', Math.ceil(last + room / 2)]]);
  if (key !== shownKey) return;
  if (answer.left_out) {
    put(place, h('p', { class: 'nothing' }, answer.left_out));
    return;
  }
  const label = alertOf.indicator === 'number of events' ? 'Number of events by release' : answer.drawn === 'share' ? 'Affected share by release' : 'Affected records by release';
  drawShares(of, answer, releaseOf(alertOf), label);
  place.append(h('p', { class: 'faint' }, visible(answer.told), cutWords(answer)), sql(answer.sql));
}

/** What is said of shares that go back less far than was asked, since there are too many. */
const cutWords = (answer) => (answer.is_cut ? ` Only the newest ${number(answer.rows.length)} points: a shorter range shows all.` : '');

/** Lines of `affected` and `records` by release; what isn't marked stands back. */
function drawShares(of, answer, marked, label = 'Refused share by release') {
  const isShare = answer.drawn !== 'count';
  const lines = new Map();
  for (const row of objects(answer)) {
    if (!lines.has(row.release)) lines.set(row.release, { name: row.release.trim() === '/' ? '(unknown)' : row.release, release: row.release, xs: [], ys: [], affected: 0, all: 0 });
    const line = lines.get(row.release);
    const [affected, all] = [Number(row.affected), Number(row.records)];
    line.xs.push(Number(row.time));
    line.ys.push(isShare ? (all ? affected / all : null) : affected);
    line.affected += affected;
    line.all += all;
  }
  const all = [...lines.values()];
  const named = all.filter((line) => line.name !== '(unknown)');
  const known = named.length ? named : all;
  const size = (line) => (isShare ? line.affected / (line.all || 1) : line.affected);
  known.sort((one, other) => (other.release === marked) - (one.release === marked) || size(other) - size(one) || other.all - one.all);
  const isMarked = known.some((line) => line.release === marked);
  const xs = filled([...new Set(known.flatMap((line) => line.xs))].sort((one, other) => one - other), answer.step_s, !isShare);
  const shown = known.slice(0, 12).map((line, at) => {
    const values = new Map(line.xs.map((x, of) => [x, line.ys[of]]));
    return { ...line, xs, ys: xs.map((x) => values.get(x) ?? (isShare ? null : 0)), quiet: isMarked ? line.release !== marked : at >= 8 };
  });
  of.draw({ lines: shown.length ? shown : [{ name: 'refused', xs: [], ys: [] }], zone: 'UTC', step_s: answer.step_s, percent: isShare, label, nothing: 'Nothing is known of releases in these times.' });
}

function ranged(params, parts) {
  const range = RANGES.find(([s]) => String(s) === params.get('range'))?.[0] ?? 86_400;
  const now = Math.ceil(Date.now() / 1000 / 60) * 60;
  const picker = h('label', { class: 'field', for: 'since' }, h('span', {}, 'Range'), h('select', { id: 'since', onchange: (event) => go('sdk', parts, new URLSearchParams({ range: event.target.value })) }, RANGES.map(([s, text]) => h('option', { value: s, selected: s === range }, text))));
  return { pairs: [['from', now - range], ['to', now]], picker };
}

async function releases(params, again = false) {
  const key = shownKey;
  const { pairs, picker } = ranged(params, ['releases']);
  const answer = await ask('/api/releases', pairs);
  if (key !== shownKey) return;
  const rows = objects(answer);
  const open = await openAlerts();
  if (key !== shownKey || (again && isRead())) return;
  const columns = [
    { label: 'Release', cell: (of) => (of.release.trim() === '/' ? '(unknown)' : h('a', { href: link('sdk', ['release', of.release]) }, foreign(of.release))) },
    ...(answer.knows_accepted ? [
      { label: 'Refused share', number: true, cell: (of) => percent(of.share) },
      { label: 'Against the others', cell: (of) => h('span', { class: 'meter', 'aria-hidden': 'true' }, h('span', { class: `filled${of.share >= 0.05 ? ' bad' : of.share >= 0.01 ? ' warn' : ''}`, 'width%': Math.min(100, of.share * 100) })) },
      { label: 'Records', number: true, cell: (of) => number(of.records) }] : []),
    { label: 'Refused', number: true, cell: (of) => number(of.refused_records) },
    { label: 'Alerts', cell: (of) => open.filter((one) => releaseOf(one) === of.release).map((one) => h('div', {}, h('a', { href: link('sdk', ['alert', one.fingerprint]) }, foreign(about(one)), one.tenants.length ? [' (', foreign(one.tenants.slice(0, 2).join(', ')), ')'] : null))) },
    { label: 'First seen (UTC)', cell: (of) => time(of.first_seen) },
    { label: 'Last seen', cell: (of) => ago(of.last_seen) },
  ];
  const show = again ? renew : put;
  show(body, h('div', { class: 'head' }, h('h1', {}, answer.is_cut ? `The ${rows.length} worst releases` : `${rows.length} release${rows.length === 1 ? '' : 's'}`), picker),
    answer.knows_accepted ? null : note('', 'Only what was refused is known by release.', 'Set keep_events_days in the source, and shares are known, too.'),
    rows.length ? card('Releases, the worst first', table('Releases', columns, rows, { class: 'dense' }), answer.is_cut ? h('p', { class: 'faint' }, 'There are more, with smaller shares.') : null, sql(answer.sql)) : note('', 'No release in this range.'));
}

const openAlerts = async () => (catalog.has_alerts ? objects(await ask('/api/alerts')) : []);

async function release(name, params, again = false) {
  const key = shownKey;
  const { pairs, picker } = ranged(params, ['release', name]);
  const ofIt = [...pairs, ['release', name]];
  const shares = ask('/api/releases/shares', pairs).then((answer) => ({ answer }), (error) => ({ error }));
  const [one, reasons, open] = await Promise.all([ask('/api/releases/one', ofIt), ask('/api/releases/reasons', ofIt), openAlerts()]);
  // What is drawn again is drawn at once, so that no chart is empty meanwhile.
  if (again) await shares;
  if (key !== shownKey || (again && isRead())) return;
  if (again) forget();
  const [of] = objects(one);
  const share = (refused, records) => (Number(records) ? Number(refused) / Number(records) : null);
  const isSeen = Number(of.own_records) > 0;
  const over = chart('Refused share of the release and of the others');
  const place = h('div', { class: 'room' }, over.element);
  const mine = open.filter((one) => releaseOf(one) === name);
  put(body, h('p', {}, h('a', { href: '#/sdk/releases' }, '← All releases')),
    h('div', { class: 'head' }, h('div', {}, h('h1', {}, foreign(name)), h('p', { class: 'about' }, isSeen ? `Seen from ${time(of.own_first_seen)} to ${time(of.own_last_seen)} UTC, ${number(of.own_records)} records.` : 'Not seen in this range.')),
      h('div', { class: 'room' }, h('p', { class: 'big' }, h('span', { class: 'value' }, percent(share(of.own_refused, of.own_records))), ' ', h('span', { class: 'unit' }, 'refused')), h('p', { class: 'faint' }, `${percent(share(of.others_refused, of.others_records))} over the ${number(of.others)} others`)), picker),
    mine.length ? h('ul', { class: 'alerts' }, mine.map((alertOf) => h('li', {}, line(alertOf)))) : note('', 'No open alert is about it.'),
    card('Against the others', place),
    card('Why its records are refused', reasons.rows.length ? table('Reasons', [
      { label: 'Reason', cell: (of) => foreign(of.reason) }, { label: 'Rule', cell: (of) => foreign(of.rule || '–') }, { label: 'Field', cell: (of) => foreign(of.field || '–') },
      { label: 'Records', number: true, cell: (of) => number(of.records) }, { label: 'Expected', cell: (of) => foreign(of.expects || '–') }, { label: 'Found', cell: (of) => foreign(of.finds || '–') }, { label: 'A place', cell: (of) => foreign(of.place) },
    ], objects(reasons), { class: 'dense' }) : h('p', { class: 'nothing' }, 'None were refused.'), sql(reasons.sql)));
  const { answer, error } = await shares;
  if (key !== shownKey) return;
  if (error) {
    put(place, failed(error));
    return;
  }
  drawShares(over, answer, name);
  if (answer.is_cut) place.append(h('p', { class: 'faint' }, cutWords(answer).trim()));
  place.append(sql(answer.sql));
}
