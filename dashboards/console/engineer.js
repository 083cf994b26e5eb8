// The engineer's page: the flow now, who holds it back, and whether every record is accounted for.

import { ask, failed, foreign, h, named, objects, pace, put, renew, say, silent, sql, table, visible } from './dom.js';
import { ago, bytes, number, percent, short, span, time, EVER_S } from './format.js';
import { age, listen, rate, times } from './live.js';
import { Chart, filled } from './chart.js';
import { throughOf } from './complete.js';
import { flow } from './flow.js';

/** How often the quarantine and the ledger are asked for; where that takes long, ten times as long as it takes. */
const ASKED_EVERY_MS = 10_000;
const FATES = ['accepted', 'quarantined', 'duplicate', 'duplicate_differing', 'too_late', 'too_late_after_idle', 'tombstone'];

let catalog;
let parts;
const asking = pace(ASKED_EVERY_MS);
let told = [];

export function enter(main, all) {
  catalog = all;
  const place = (name) => h('div', { class: 'room', id: name });
  const card = (id, title, about, content) => h('section', { class: 'card', 'aria-labelledby': `t-${id}` }, h('h2', { id: `t-${id}` }, title, about ? h('span', { class: 'faint' }, ` ${about}`) : null), content);
  parts = { trouble: place('trouble'), figures: place('figures'), flow: place('flow'), partitions: place('partitions'), destinations: place('destinations'),
    views: place('completeness'), books: place('books'), causes: place('causes'), replays: place('replays'), diff: place('diff'), chart: new Chart('Records by fate') };
  parts.chart.canvas.classList.add('low');
  put(main, h('h1', { class: 'unseen' }, 'Engineer'), h('div', { class: 'stack' }, parts.trouble, parts.figures,
    card('flow', 'Flow', 'rates now, and what bounds each edge', parts.flow),
    card('partitions', 'Partitions', 'watermark of each, and who holds it', parts.partitions),
    h('div', { class: 'pairs uneven' }, card('views', 'Views', 'how far each is complete', parts.views), card('destinations', 'Destinations', '', parts.destinations)),
    card('ledger', 'Ledger', 'what became of every record', h('div', { class: 'room' }, parts.books, parts.chart.element)),
    card('causes', 'Quarantine', 'by cause', parts.causes),
    card('replays', 'Replays', '', [parts.replays, parts.diff])));
  for (const name of ['figures', 'flow', 'partitions', 'destinations', 'views', 'causes', 'replays']) put(parts[name], h('p', { class: 'loading' }, 'Loading …'));
  asking.hurry();
  told = [];
  const end = listen(shown);
  return () => {
    end();
    parts.chart.destroy();
  };
}

export function routed() {}

function shown(snapshot) {
  trouble(snapshot);
  figures(snapshot);
  renew(parts.flow, flow(snapshot, catalog.bounds, catalog.views.length, rates()));
  partitions(snapshot);
  destinations(snapshot);
  views(snapshot);
  books(snapshot);
  replays(snapshot);
  // Neither fails: what is wrong is shown.
  if (asking.isDue() && !document.hidden) asking.wait(Promise.all([causes(), minutes()]));
}

const sum = (of) => Object.values(of).reduce((all, one) => all + one, 0);

function rates() {
  const fate = (...names) => rate((one) => names.reduce((all, name) => all + (one.numbers.fates[name] ?? 0), 0));
  const rows = rate((one) => sum(one.numbers.delivered_rows));
  return { consumed: rate((one) => sum(one.numbers.consumed)), decoded: fate(...FATES.filter((name) => name !== 'quarantined' && name !== 'tombstone')), accepted: fate('accepted'),
    refused: fate('quarantined'), copies: fate('duplicate', 'duplicate_differing'), rows, delivered: rows };
}

function trouble(snapshot) {
  const { status } = snapshot;
  const all = [];
  if (status.waits_for) all.push(silent('warn', 'No epoch opens', `${visible(status.waits_for)}.`));
  for (const of of status.destinations.filter((one) => one.failing)) {
    all.push(silent('bad', `${visible(of.name)} isn't taken`, `Since ${time(of.failing.since_ms / 1000, 'UTC', true)} UTC, ${number(of.failing.attempts)} attempts: ${visible(of.failing.error)}`));
  }
  for (const source of status.sources) {
    for (const text of source.notes) all.push(silent('warn', `Source ${visible(source.name)}`, visible(text)));
    const parked = source.partitions.filter((of) => of.state === 'parked');
    if (parked.length) all.push(silent('bad', `${parked.length} of ${source.partitions.length} partitions of ${visible(source.name)} are parked`, parked.slice(0, 3).map((of) => `${of.topic}/${of.partition}: ${visible(of.detail)}. `).join('')));
  }
  const unbalanced = snapshot.books.reduce((count, one) => count + Number(one.unbalanced), 0);
  if (unbalanced) all.push(silent('bad', `The ledger doesn't balance in ${number(unbalanced)} rows`, 'Records went astray, or were counted twice: this is a bug of Weir.'));
  if (snapshot.faults.length) all.push(silent('warn', 'Not everything could be asked', visible(snapshot.faults.join('; '))));
  renew(parts.trouble, all);
  parts.trouble.hidden = !all.length;
  // The rest of a text may change each second.
  const titles = all.map((of) => of.firstChild.textContent);
  const news = titles.filter((title) => !told.includes(title));
  if (news.length) say(`${news.join('. ')}.`);
  else if (told.length && !titles.length) say('All troubles are over.');
  told = titles;
}

function figures(snapshot) {
  const { status, numbers } = snapshot;
  const partitions = status.sources.flatMap((source) => source.partitions);
  const lag = partitions.reduce((all, of) => all + Math.max(0, of.end_offset - of.next_offset), 0);
  const watermarks = status.sources.map((source) => source.watermark).filter((of) => of !== null && of < EVER_S * 1e6);
  const least = watermarks.length ? Math.min(...watermarks) / 1e6 : null;
  const commit = times((one) => one.numbers.commits);
  const delivery = times((one) => one.numbers.deliveries);
  const speed = rate((one) => sum(one.numbers.consumed));
  const load = rate((one) => sum(one.numbers.consumed_bytes));
  const figure = (label, value, more) => h('div', {}, h('dt', {}, label), h('dd', {}, value, more ? h('small', {}, more) : null));
  const two = (of) => (of ? `p99 ${span(of.p99)}, last minute` : 'none in the last minute');
  renew(parts.figures, h('dl', { class: 'figures' },
    figure('Reading', speed === null ? '…' : `${short(speed)}/s`, load === null ? '' : `${bytes(load)}/s, ${number(sum(numbers.consumed))} since the start`),
    figure('Lag', `${short(lag)}`, `records, ${partitions.length} partition${partitions.length === 1 ? '' : 's'}`),
    figure('Event time', least === null ? '–' : span(snapshot.at_ms / 1000 - least), least === null ? 'no watermark yet' : `behind; watermark ${time(least, 'UTC', true)} UTC`),
    figure('Commit', commit ? span(commit.p50) : '–', two(commit)),
    figure('Delivery', delivery ? span(delivery.p50) : '–', two(delivery)),
    figure('In flight', bytes(status.in_flight_bytes), `of ${bytes(status.in_flight_limit_bytes)}`),
    figure('Outbox', bytes(status.outbox_bytes), `of ${bytes(status.outbox_limit_bytes)}`),
    figure('State', bytes(snapshot.state_bytes), 'on disk'),
    figure('Epochs', number(status.open_epoch), `open; committed ${number(status.committed_epoch)}, delivered ${number(status.delivered_epoch)}`)));
}

function partitions(snapshot) {
  const rows = snapshot.status.sources.flatMap((source) => source.partitions.map((of) => ({ of, source: source.name, holds: source.held_back_by === `${of.topic}/${of.partition}` })));
  rows.sort(({ of: one }, { of: other }) => one.topic.localeCompare(other.topic) || one.partition - other.partition);
  const kinds = { parked: 'bad', waiting: 'warn', reading: 'good' };
  const columns = [
    { label: 'Partition', cell: ({ of }) => foreign(`${of.topic}/${of.partition}`) },
    { label: 'Source', cell: ({ source }) => foreign(source) },
    { label: 'State', cell: ({ of }) => [h('span', { class: `tag ${kinds[of.state] ?? ''}` }, visible(of.state)), of.detail ? h('span', { class: 'faint' }, ` ${visible(of.detail)}`) : null] },
    { label: 'Watermark (UTC)', cell: ({ of, holds }) => [of.watermark < -2e15 ? '–' : time(of.watermark / 1e6, 'UTC', true), holds ? h('span', { class: 'tag warn' }, 'holds') : null] },
    { label: 'Offset', number: true, cell: ({ of }) => number(of.next_offset) },
    { label: 'End', number: true, cell: ({ of }) => number(of.end_offset) },
    { label: 'Lag', number: true, cell: ({ of }) => number(Math.max(0, of.end_offset - of.next_offset)) },
    { label: 'Worker', number: true, cell: ({ of }) => number(of.worker) },
  ];
  renew(parts.partitions, rows.length ? table('Partitions', columns, rows, { class: 'dense' }) : h('p', { class: 'nothing' }, 'No partition is read yet.'));
}

function destinations(snapshot) {
  const columns = [
    { label: 'Destination', cell: (of) => foreign(of.name) },
    { label: 'Rows/s', number: true, cell: (of) => short(rate((one) => one.numbers.delivered_rows[of.name] ?? 0)) },
    { label: 'Waiting', number: true, cell: (of) => `${number(of.waiting_rows)} rows` },
    { label: 'Bytes', number: true, cell: (of) => bytes(of.waiting_bytes) },
    { label: 'Epoch', number: true, cell: (of) => number(of.delivered_epoch) },
    { label: 'Trouble', cell: (of) => (of.failing ? h('span', { class: 'tag bad' }, 'failing') : null) },
  ];
  renew(parts.destinations, table('Destinations', columns, snapshot.status.destinations, { class: 'dense' }));
}

/** What stands over what couldn't be asked anew: how old it is, or that nobody knows. */
function aged(snapshot, name) {
  const of = age(snapshot, name);
  if (of === null) return h('p', { class: 'nothing', 'data-unknown': name }, 'Unknown: ClickHouse has not told it yet.');
  return of > 10 ? h('p', { class: 'faint', 'data-aged': name }, `As ClickHouse told it at ${time((snapshot.at_ms / 1000) - of, 'UTC', true)} UTC.`) : null;
}

function views(snapshot) {
  const of = new Map(snapshot.progress.map((one) => [one.view, one]));
  const unknown = snapshot.told_at_ms.progress === undefined ? '?' : '–';
  const through = (view, name) => (of.has(view.name) ? time(of.get(view.name)[name], 'UTC', true) : unknown);
  const columns = [
    { label: 'View', cell: (view) => h('a', { href: `#/analyst/${encodeURIComponent(view.name)}` }, named(view.name)) },
    { label: 'Complete to (UTC)', cell: (view) => (throughOf(of.get(view.name)) === -Infinity ? unknown : through(view, 'complete_through')) },
    { label: 'Final to (UTC)', cell: (view) => through(view, 'final_through') },
    { label: 'Held by', cell: (view) => foreign(of.get(view.name)?.held_back_by || '–') },
    { label: 'Told', cell: (view) => ago(of.get(view.name)?.committed_at) },
  ];
  renew(parts.views, aged(snapshot, 'progress'), table('Views', columns, catalog.views, { class: 'dense' }));
}

function books(snapshot) {
  const lines = snapshot.books.map((one) => {
    const fates = FATES.filter((name) => Number(one[name]) > 0);
    const isEven = Number(one.unbalanced) === 0;
    return h('p', { class: 'books' }, foreign(one.source), h('b', {}, number(one.consumed)), 'consumed =',
      fates.map((name, at) => [at ? ' + ' : '', h('b', {}, number(one[name])), ` ${name.replaceAll('_', ' ')}`]), ' ',
      h('span', { class: `tag ${isEven ? 'good' : 'bad'}` }, isEven ? 'balanced' : `${number(one.unbalanced)} rows don't balance`));
  });
  const isKnown = age(snapshot, 'books') !== null;
  renew(parts.books, aged(snapshot, 'books'), lines.length || !isKnown ? lines : h('p', { class: 'nothing' }, 'Nothing was consumed yet.'));
}

async function minutes() {
  try {
    const { minutes: answer, step_s } = await ask('/api/ledger');
    const rows = new Map(objects(answer).map((row) => [Number(row.minute), row]));
    // A minute without a row had no record.
    const xs = filled([...rows.keys()], step_s, true);
    const names = FATES.filter((name) => [...rows.values()].some((row) => Number(row[name]) > 0));
    const lines = names.map((name) => ({ name: name.replaceAll('_', ' '), xs, ys: xs.map((x) => Number(rows.get(x)?.[name] ?? 0)) }));
    parts.chart.draw({ lines: lines.length ? lines : [{ name: 'records', xs: [], ys: [] }], zone: 'UTC', step_s, label: 'Records by fate and minute, the newest hour of event time', nothing: 'Nothing was consumed yet.' });
    parts.ledgerSql ??= h('div', {});
    if (!parts.ledgerSql.isConnected) parts.chart.element.after(parts.ledgerSql);
    renew(parts.ledgerSql, sql(answer.sql));
  } catch (error) {
    parts.ledgerSql ??= h('div', {});
    if (!parts.ledgerSql.isConnected) parts.chart.element.after(parts.ledgerSql);
    renew(parts.ledgerSql, failed(error));
  }
}

async function causes() {
  try {
    const answer = await ask('/api/quarantine');
    const rows = objects(answer);
    if (!rows.length) {
      renew(parts.causes, h('p', { class: 'nothing' }, 'Nothing was refused.'), sql(answer.sql));
      return;
    }
    const columns = [
      { label: 'Why', cell: (of) => [h('div', {}, visible(of.why)), h('div', { class: 'than' }, foreign(of.rules || of.about || of.details))] },
      { label: 'Waiting', number: true, cell: (of) => (of.is_late ? '–' : number(of.waiting)) },
      { label: 'Late', number: true, cell: (of) => (of.is_late ? number(of.waiting) : '–') },
      ...(catalog.has_retries ? [{ label: 'Retried', number: true, cell: (of) => number(of.retried) }] : []),
      { label: 'Owner', cell: (of) => foreign(of.whose || '–') },
      { label: 'Expected, found', cell: (of) => (of.expects || of.finds ? [foreign(of.expects), h('span', { class: 'faint' }, ' · '), foreign(of.finds)] : foreign(of.details)) },
      { label: 'Releases', cell: (of) => releases(of.releases.filter((one) => one !== '/')) },
      { label: 'Last (UTC)', cell: (of) => time(of.last_seen, 'UTC', true) },
      { label: 'A place', cell: (of) => foreign(of.place) },
      { label: 'Cause', cell: (of) => h('code', {}, visible(of.cause.slice(0, 12))) },
    ];
    const days = `the newest ${answer.days} days of refused records`;
    const which = answer.is_cut ? `The first ${rows.length} causes of ${days}; there are more. ` : `Of ${days}. `;
    renew(parts.causes, table('Causes', columns, rows, { class: 'dense causes' }), h('p', { class: 'faint' }, which, 'A cause that was mended: ', h('code', {}, 'weir quarantine retry FILE CAUSE')), sql(answer.sql));
  } catch (error) {
    renew(parts.causes, failed(error));
  }
}

function releases(names) {
  return [names.slice(0, 2).map((one) => h('div', {}, foreign(one))), names.length > 2 ? h('div', { class: 'faint' }, `and ${names.length - 2} more`) : null];
}

function replays(snapshot) {
  if (age(snapshot, 'replays') === null) {
    renew(parts.replays, aged(snapshot, 'replays'));
    return;
  }
  if (!snapshot.replays.length) {
    renew(parts.replays, h('p', { class: 'nothing' }, 'No replay. ', h('code', {}, 'weir replay FILE --last "7 days" --plan'), ' tells what one would read.'));
    return;
  }
  const columns = [
    { label: 'Replay', cell: (of) => foreign(of.run) },
    { label: 'State', cell: (of) => h('span', { class: `tag ${{ complete: 'good', interrupted: 'warn', cancelled: '' }[of.state] ?? ''}` }, visible(of.state)) },
    { label: 'Progress', cell: (of) => progress(of) },
    { label: 'Records', number: true, cell: (of) => `${of.read === null ? '?' : number(of.read)} of ${number(of.records)}` },
    { label: 'Event times (UTC)', cell: (of) => `${time(of.from_s)} to ${time(of.to_s)}` },
    { label: 'Views', cell: (of) => foreign(of.views.join(', ')) },
    { label: 'Next', cell: (of) => (of.state === 'complete' ? h('button', { type: 'button', class: 'small', id: `compare-${of.run}`, onclick: () => compare(of.run) }, 'Compare')
      : h('code', {}, of.state === 'interrupted' ? `weir replay FILE --run ${of.run}` : `weir replay show FILE ${of.run}`)) },
  ];
  renew(parts.replays, aged(snapshot, 'replays'), table('Replays', columns, snapshot.replays, { class: 'dense' }));
}

/** What a replay would change of the live rows. */
async function compare(run) {
  put(parts.diff, h('p', { class: 'loading' }, `Comparing ${visible(run)} with the live rows …`));
  try {
    const { views: all } = await ask(`/api/replays/${encodeURIComponent(run)}/diff`);
    const isEqual = (of) => of.added + of.removed + of.changed === 0 && of.live_rows + of.replay_rows > 0;
    const change = ([name, changed, live, replayed]) => h('div', {}, foreign(name), ` ${number(live)} → ${number(replayed)}`, h('span', { class: 'faint' }, `, ${number(changed)} cells`));
    const columns = [
      { label: 'View', cell: (of) => named(of.view) },
      { label: 'Rows live', number: true, cell: (of) => number(of.live_rows) }, { label: 'Rows replayed', number: true, cell: (of) => number(of.replay_rows) },
      { label: 'Added', number: true, cell: (of) => number(of.added) }, { label: 'Removed', number: true, cell: (of) => number(of.removed) }, { label: 'Changed', number: true, cell: (of) => number(of.changed) },
      { label: 'Sums of measures that differ', cell: (of) => of.measures.filter((one) => one[1] > 0 || one[2] !== one[3]).map(change) },
      { label: 'Verdict', cell: (of) => h('span', { class: `tag ${isEqual(of) ? 'good' : 'warn'}` }, isEqual(of) ? 'equal' : of.live_rows + of.replay_rows === 0 ? 'no rows' : 'different') },
    ];
    put(parts.diff, h('h3', {}, `What ${visible(run)} would change`), table(`Differences of ${visible(run)}`, columns, all, { class: 'dense' }),
      h('p', { class: 'faint' }, 'To let readers see its rows: ', h('code', {}, `weir swap FILE ${run} --why "…"`)));
  } catch (error) {
    put(parts.diff, failed(error));
  }
}

function progress(of) {
  if (of.read === null) return h('span', { role: 'progressbar', 'aria-label': `Progress of ${visible(of.run)}, not known`, 'data-run': of.run }, h('small', { class: 'faint' }, 'not known'));
  const share = of.records > 0 ? Math.min(1, of.read / of.records) : of.state === 'complete' ? 1 : 0;
  return h('span', { role: 'progressbar', 'aria-valuemin': '0', 'aria-valuemax': '100', 'aria-valuenow': String(Math.round(share * 100)), 'aria-label': `Progress of ${visible(of.run)}`, 'data-run': of.run },
    h('span', { class: 'meter' }, h('span', { class: 'filled', 'width%': share * 100 })), h('small', { class: 'faint' }, percent(share)));
}
