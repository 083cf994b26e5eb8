// The flow, drawn: what stands where, how much goes over each edge now, and what bounds it. On a phone, a list.

import { h, s } from './dom.js';
import { bytes, number, short } from './format.js';

const W = 1180;
const H = 300;

/** `rates` per second: {consumed, bytes, accepted, refused, copies, late, delivered}; null where not known yet. */
export function flow(snapshot, bounds, views, rates) {
  const { status } = snapshot;
  const per = (value, unit) => (value === null || value === undefined ? '…' : `${short(value)} ${unit}/s`);
  const share = (used, limit) => (limit > 0 ? used / limit : 0);
  const inFlight = share(status.in_flight_bytes, status.in_flight_limit_bytes);
  const outbox = share(status.outbox_bytes, status.outbox_limit_bytes);
  const edges = [
    ['Kafka → source', per(rates.consumed, 'records'), `${bytes(bounds.in_flight_bytes / 2)} in queues`],
    ['source → deduplicate', per(rates.decoded, 'events'), `${bytes(status.in_flight_bytes)} of ${bytes(bounds.in_flight_bytes)} in flight`],
    ['deduplicate → views', per(rates.accepted, 'events'), 'a bounded working set each'],
    ['views → commit', 'each epoch', `at most 2 epochs open, ${number(bounds.epoch_ms)} ms each`],
    ['commit → deliver', per(rates.rows, 'rows'), `${bytes(status.outbox_bytes)} of ${bytes(bounds.outbox_bytes)} in the outbox`],
    ['deliver → ClickHouse', per(rates.delivered, 'rows'), `an insert a table each ${number(bounds.insert_every_ms)} ms, 100,000 rows at most`],
  ];
  const box = (x, y, w, name, more, kind = '') => [s('rect', { x, y, width: w, height: 58, rx: 9, class: kind }),
    s('text', { x: x + w / 2, y: y + 25, 'text-anchor': 'middle', class: 'name' }, name), s('text', { x: x + w / 2, y: y + 44, 'text-anchor': 'middle', class: 'bound' }, more)];
  const arrow = (x1, y1, x2, y2, whole) => [s('path', { d: `M${x1} ${y1}L${x2 - 7} ${y2}`, class: whole ? 'whole' : '' }), s('path', { d: `M${x2} ${y2}l-9 -5v10z`, class: 'tip' })];
  const bend = (x1, y1, x2, y2) => [s('path', { d: `M${x1} ${y1}V${y2 - 7}` }), s('path', { d: `M${x2} ${y2}l-5 -9h10z`, class: 'tip' })];
  const tell = (x, y, rate, bound) => [s('text', { x, y, 'text-anchor': 'middle', class: 'rate' }, rate), wrapped(x, y + 17, bound)];
  const count = (list, word) => `${list} ${word}${list === 1 ? '' : 's'}`;
  const partitions = status.sources.reduce((all, source) => all + source.partitions.length, 0);
  const top = 96;
  const mid = top + 29;
  const drawing = s('svg', { viewBox: `0 0 ${W} ${H}`, class: 'flow', role: 'img', 'aria-label': `The flow. ${edges.map((edge) => edge.join(', ')).join('. ')}.` },
    box(8, top, 96, 'Kafka', count(partitions, 'partition'), 'store'), arrow(104, mid, 226, mid), tell(165, 40, edges[0][1], edges[0][2]),
    box(226, top, 110, 'source', 'decode, rules', inFlight >= 0.95 ? 'full' : ''), arrow(336, mid, 458, mid), tell(397, 40, edges[1][1], edges[1][2]),
    box(458, top, 116, 'deduplicate', 'by event id'), arrow(574, mid, 690, mid, true), tell(632, 40, edges[2][1], edges[2][2]),
    box(690, top, 100, 'views', count(views, 'view')), arrow(790, mid, 900, mid, true), tell(845, 40, edges[3][1], edges[3][2]),
    box(900, top, 92, 'commit', `epoch ${number(status.committed_epoch)}`), arrow(992, mid, 1070, mid), tell(1031, 40, edges[4][1], edges[4][2]),
    box(1070, top, 102, 'deliver', `epoch ${number(status.delivered_epoch)}`, outbox >= 0.95 ? 'full' : ''),
    bend(281, top + 58, 281, 236), s('rect', { x: 206, y: 236, width: 150, height: 58, rx: 9, class: 'store' }),
    s('text', { x: 281, y: 261, 'text-anchor': 'middle', class: 'name' }, 'quarantine'), s('text', { x: 281, y: 280, 'text-anchor': 'middle', class: 'bound' }, 'topic and table'),
    s('text', { x: 294, y: 198, class: 'rate' }, per(rates.refused, 'refused')),
    bend(516, top + 58, 516, 236), box(441, 236, 150, 'ledger', `${per(rates.copies, 'copies')}`, 'store'),
    bend(740, top + 58, 740, 236), box(665, 236, 150, 'state', `${bytes(snapshot.state_bytes)} on disk`, 'store'),
    bend(1121, top + 58, 1121, 236), box(1058, 236, 116, 'ClickHouse', count(status.destinations.length, 'destination'), 'store'),
    // Its bound takes up to four lines, and all of them stand over the box of ClickHouse.
    s('text', { x: 1108, y: 172, 'text-anchor': 'end', class: 'rate' }, edges[5][1]), wrapped(1108, 187, edges[5][2], 'end'));
  const list = h('ul', { class: 'narrow-flow' }, edges.map(([name, rate, bound]) => h('li', {}, h('strong', {}, name), ' ', rate, h('span', { class: 'faint' }, ` · ${bound}`))));
  return h('div', {}, h('div', { class: 'scroll tall flow-wide', tabindex: '0', role: 'group', 'aria-label': 'The flow' }, drawing), list);
}

/** A bound over lines of about 18 characters. */
function wrapped(x, y, text, anchor = 'middle') {
  const lines = [];
  for (const word of text.split(' ')) {
    if (lines.length && `${lines.at(-1)} ${word}`.length <= 19) lines[lines.length - 1] += ` ${word}`;
    else lines.push(word);
  }
  return s('text', { 'text-anchor': anchor, class: 'bound' }, lines.map((line, at) => s('tspan', { x, y: y + at * 14 }, line)));
}
