// Time series, drawn by uPlot: lines by name, what may still change dashed on hatched ground, a legend that follows the
// cursor, keys that move it, and the same numbers as a table.
//
// uPlot writes its own legend as markup, so it is switched off; every name goes through `visible`.

import { h, put, visible, table } from './dom.js';
import { number, short, time } from './format.js';

const COLORS = {
  light: ['#0f766e', '#b45309', '#6d28d9', '#be185d', '#1d4ed8', '#4d7c0f', '#0e7490', '#7c2d12'],
  dark: ['#4fd1c1', '#f6ad55', '#b794f6', '#f687b3', '#7fb3ff', '#a3d977', '#67d4ee', '#e6a08c'],
};
const ROWS_SHOWN = 500;
const LONGEST = 50_000;
/** How far apart the marks of the time axis may be, in seconds. */
const INCREMENTS = [1, 5, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 31_536_000];

/** Which theme is shown. */
export function theme() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
}

/** The color of the n-th line. */
export const color = (at) => COLORS[theme()][at % COLORS.light.length];

const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** The points of a line that have no neighbour, which no line would show. */
const alone = (ys) => ys.flatMap((y, at) => (isThere(y) && !isThere(ys[at - 1]) && !isThere(ys[at + 1]) ? [at] : []));
const isThere = (y) => y !== null && y !== undefined;

/**
 * Times of points, and those of the windows between them that have no rows: all of them where that counts as 0, else the
 * first of each gap, which a line then leaves open. Of days in a zone with summer time the step isn't always the same: half
 * of one is no gap.
 */
export function filled(xs, step, isZero) {
  const all = [];
  for (const x of xs) {
    for (let gap = all.length ? all.at(-1) + step : x; gap < x - step / 2 && all.length < LONGEST; gap += step) {
      all.push(gap);
      if (!isZero) break;
    }
    all.push(x);
  }
  return all;
}

/**
 * A chart. `draw({lines, zone, step_s, complete_through, unit, label, from, to})` shows lines of {name, xs, ys, quiet,
 * dashed}: `xs` seconds, ascending.
 */
export class Chart {
  constructor(label) {
    // A slider over its points: the one role whose value screen readers read out as keys move it.
    this.canvas = h('div', { class: 'plot', tabindex: '0', role: 'img', 'aria-label': label, 'aria-roledescription': 'chart' });
    this.legend = h('div', { class: 'legend' });
    this.data = h('details', { class: 'alternative' }, h('summary', {}, 'As a table'));
    this.data.addEventListener('toggle', () => this.data.open && this.tell());
    this.element = h('figure', { class: 'chart' }, this.legend, this.canvas, this.data);
    this.canvas.addEventListener('keydown', (event) => this.key(event));
    this.resized = new ResizeObserver(() => this.fit());
    this.resized.observe(this.canvas);
    this.plot = null;
    this.shown = null;
    Chart.all.add(this);
  }

  draw(shown) {
    // Who reads by keys goes on at the same time.
    const reading = this.shown && isThere(this.index) ? this.xs[this.index] : null;
    this.shown = shown;
    const { xs, columns } = aligned(shown.lines);
    this.xs = xs;
    this.columns = columns;
    const cut = provisionalFrom(shown);
    const series = [];
    const data = [xs];
    shown.lines.forEach((line, at) => {
      const stroke = line.quiet ? variable('--faint') : line.color ?? color(at);
      const points = { show: xs.length < 3, size: 5, filter: (plot, of, show) => (show ? null : alone(plot.data[of])) };
      const base = { stroke, width: line.quiet ? 1 : 1.75, spanGaps: false, points };
      if (line.stepped) base.paths = uPlot.paths.stepped({ align: 1 });
      const isClosed = (x) => cut === null || x < cut;
      const last = xs.findLastIndex(isClosed);
      data.push(columns[at].map((y, index) => (index <= last ? y : null)));
      series.push({ ...base, dash: line.dashed ? [2, 4] : undefined });
      if (cut !== null && !line.dashed && !line.quiet) {
        // The dashed part begins at the last point that is closed, so that the line doesn't break.
        data.push(columns[at].map((y, index) => (index >= last ? y : null)));
        series.push({ ...base, width: 1.5, dash: [5, 4] });
      } else if (cut !== null) {
        data[data.length - 1] = columns[at];
      }
    });
    const options = this.options(series, cut);
    this.plot?.destroy();
    this.canvas.replaceChildren();
    this.plot = xs.length ? new uPlot(options, data, this.canvas) : null;
    if (!xs.length) put(this.canvas, h('p', { class: 'nothing' }, shown.nothing ?? 'No rows in this range.'));
    this.canvas.setAttribute('role', xs.length ? 'slider' : 'img');
    for (const name of ['min', 'max', 'now', 'text']) this.canvas.removeAttribute(`aria-value${name}`);
    const index = xs.indexOf(reading);
    this.at(index >= 0 ? index : null);
    // The plot knows its places a moment later.
    if (index >= 0) queueMicrotask(() => this.plot && this.xs === xs && this.read(index));
    if (xs.length) this.valueNow(index >= 0 ? index : xs.length - 1);
    if (this.data.open) this.tell();
    const ends = xs.length ? `${time(xs[0], shown.zone)} to ${time(xs.at(-1), shown.zone)}` : 'no rows';
    this.canvas.setAttribute('aria-label', `${shown.label}: ${shown.lines.length} lines, ${ends}. Arrow keys read values; a table follows.`);
  }

  options(series, cut) {
    const { shown } = this;
    // As large as the page's small print, which grows on a wall.
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize) || 15;
    const axis = { stroke: variable('--muted'), grid: { stroke: variable('--grid'), width: 1 }, ticks: { show: false }, font: `${Math.round(rem * 0.8)}px system-ui, sans-serif` };
    return {
      width: Math.max(200, this.canvas.clientWidth), height: Math.max(120, this.canvas.clientHeight), legend: { show: false },
      cursor: { y: false, points: { size: 6 }, drag: { x: true, y: false, setScale: false } },
      select: { show: true, left: 0, top: 0, width: 0, height: 0 },
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), shown.zone === 'UTC' ? 'Etc/UTC' : shown.zone),
      scales: {
        x: { time: true, range: (_, least, most) => [shown.from ?? least, Math.max(shown.to ?? most, (shown.from ?? least) + 1)] },
        y: { range: (_, least, most) => bounds(least, most, shown.most) },
      },
      axes: [
        { ...axis, values: this.ticks.bind(this), space: rem * 5, incrs: INCREMENTS.filter((of) => of >= Math.min(shown.step_s ?? 1, 3_600)) },
        { ...axis, size: Math.round(rem * 3.9), values: (_, values) => values.map((value) => (shown.percent ? `${+(value * 100).toPrecision(3)} %` : short(value))) },
      ],
      series: [{}, ...series],
      hooks: {
        drawClear: [(plot) => this.ground(plot, cut)],
        setCursor: [(plot) => this.at(plot.cursor.idx)],
        setSelect: [(plot) => this.selected(plot)],
      },
    };
  }

  ticks(_, values, __, ___, step) {
    const { zone } = this.shown;
    const options = step >= 86_400 ? { day: 'numeric', month: 'short' }
      : { hour: '2-digit', minute: '2-digit', second: step < 60 ? '2-digit' : undefined, hourCycle: 'h23' };
    const of = new Intl.DateTimeFormat('en-GB', { ...options, timeZone: zone });
    const days = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', timeZone: zone });
    let before = '';
    return values.map((value) => {
      const date = new Date(value * 1000);
      const today = days.format(date);
      const text = step >= 86_400 || today === before ? of.format(date) : `${of.format(date)}\n${today}`;
      before = today;
      return text;
    });
  }

  /** Hatches the stretch that may still change, behind the lines. */
  ground(plot, cut) {
    if (cut === null) return;
    const { ctx, bbox } = plot;
    const left = Math.max(bbox.left, plot.valToPos(cut, 'x', true));
    const width = bbox.left + bbox.width - left;
    if (width <= 0) return;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, bbox.top, width, bbox.height);
    ctx.clip();
    ctx.strokeStyle = variable('--hatch');
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    for (let x = left - bbox.height; x < left + width; x += 8 * devicePixelRatio) {
      ctx.moveTo(x, bbox.top + bbox.height);
      ctx.lineTo(x + bbox.height, bbox.top);
    }
    ctx.stroke();
    ctx.restore();
  }

  selected(plot) {
    const { left, width } = plot.select;
    if (width < 4) return;
    const from = Math.floor(plot.posToVal(left, 'x'));
    const to = Math.ceil(plot.posToVal(left + width, 'x'));
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.shown.select?.(from, to);
  }

  /** Shows the values at a point in the legend; without one, the newest. */
  at(index) {
    const { shown, xs, columns } = this;
    if (!shown) return;
    this.index = index;
    const cut = provisionalFrom(shown);
    const of = index ?? xs.length - 1;
    const when = xs.length ? `${time(xs[of], shown.zone)}${cut !== null && xs[of] >= cut ? ', provisional' : ''}` : '';
    const items = shown.lines.map((line, at) => h('span', { class: `key${line.quiet ? ' quiet' : ''}` },
      h('span', { class: `swatch${line.dashed ? ' dashed' : ''}`, color: line.quiet ? variable('--faint') : line.color ?? color(at) }),
      h('bdi', { class: 'name' }, visible(line.name)), ' ', h('b', {}, this.value(columns[at]?.[of]))));
    const most = 10;
    put(this.legend, items.slice(0, most), items.length > most ? h('span', { class: 'faint' }, `and ${items.length - most} more`) : null,
      h('span', { class: 'when' }, when));
  }

  value(y) {
    if (y === null || y === undefined) return '–';
    return this.shown.percent ? `${+(y * 100).toPrecision(3)} %` : number(y);
  }

  key(event) {
    const { plot, xs } = this;
    if (!plot || !['ArrowLeft', 'ArrowRight', 'Home', 'End', 'Escape'].includes(event.key)) return;
    event.preventDefault();
    const last = xs.length - 1;
    const of = this.index ?? last;
    const to = { ArrowLeft: of - 1, ArrowRight: of + 1, Home: 0, End: last, Escape: last }[event.key];
    const index = Math.min(last, Math.max(0, to));
    this.read(index);
    this.valueNow(index);
  }

  /** Moves the cursor to a point. */
  read(index) {
    this.plot.setCursor({ left: this.plot.valToPos(this.xs[index], 'x'), top: 10 });
    this.at(index);
  }

  /** What a screen reader reads out of a point. */
  valueNow(index) {
    const { shown, xs, columns } = this;
    const cut = provisionalFrom(shown);
    const said = shown.lines.map((line, at) => `${visible(line.name)} ${this.value(columns[at][index])}`).join(', ');
    const of = { min: 0, max: xs.length - 1, now: index, text: `${time(xs[index], shown.zone)}${cut !== null && xs[index] >= cut ? ', provisional' : ''}: ${said}` };
    for (const [name, value] of Object.entries(of)) this.canvas.setAttribute(`aria-value${name}`, String(value));
  }

  /** The same as a table, the newest first. */
  tell() {
    const { shown, xs, columns } = this;
    if (!shown) return;
    const cut = provisionalFrom(shown);
    const rows = xs.map((x, at) => ({ x, at })).reverse().slice(0, ROWS_SHOWN);
    const head = [{ label: `Time (${shown.zone})`, cell: (row) => `${time(row.x, shown.zone)}${cut !== null && row.x >= cut ? ' (provisional)' : ''}` },
      ...shown.lines.map((line, at) => ({ label: visible(line.name), number: true, cell: (row) => this.value(columns[at][row.at]) }))];
    put(this.data, h('summary', {}, 'As a table'), table(shown.label, head, rows, { class: 'dense' }),
      xs.length > ROWS_SHOWN ? h('p', { class: 'faint' }, `The newest ${ROWS_SHOWN} of ${xs.length} points.`) : null);
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!this.plot || width === 0 || height === 0) return;
    if (Math.abs(this.plot.width - width) > 1 || Math.abs(this.plot.height - height) > 1) this.plot.setSize({ width, height });
  }

  destroy() {
    this.resized.disconnect();
    this.plot?.destroy();
    Chart.all.delete(this);
  }
}

/** Charts that are there, to be drawn anew when the theme changes. */
Chart.all = new Set();
export function redraw() {
  for (const chart of Chart.all) {
    if (!chart.canvas.isConnected) chart.destroy();
    else if (chart.shown) chart.draw(chart.shown);
  }
}

/** The time from which points may still change: the first whose end isn't complete. */
export function provisionalFrom(shown) {
  if (shown.complete_through === null || shown.complete_through === undefined) return null;
  // A day has an hour more once a year; a point is complete only when its end is, whatever the calendar says.
  const slack = shown.step_s >= 86_400 && shown.zone !== 'UTC' ? 3_600 : 0;
  const whole = shown.complete_through - shown.step_s - slack;
  const firsts = shown.lines.filter((line) => !line.dashed).map((line) => line.xs.find((x) => x > whole)).filter((x) => x !== undefined);
  return firsts.length ? Math.min(...firsts) : null;
}

/** All lines over the union of their times. */
function aligned(lines) {
  if (lines.length === 1) return { xs: lines[0].xs, columns: [lines[0].ys] };
  const xs = [...new Set(lines.flatMap((line) => line.xs))].sort((one, other) => one - other);
  const place = new Map(xs.map((x, at) => [x, at]));
  const columns = lines.map((line) => {
    const ys = new Array(xs.length).fill(line.none ?? null);
    line.xs.forEach((x, at) => { ys[place.get(x)] = line.ys[at]; });
    return ys;
  });
  return { xs, columns };
}

function bounds(least, most, greatest) {
  if (least === null || most === null || least === undefined) return [0, 1];
  const low = Math.min(0, least);
  const high = Math.max(greatest ?? 0, most);
  if (low === high) return [0, high === 0 ? 1 : high * 1.1];
  return [low < 0 ? low * 1.05 : 0, high + (high - low) * 0.06];
}
