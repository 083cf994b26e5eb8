// Numbers and times for people.

const WHOLE = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const FINE = new Intl.NumberFormat('en', { maximumSignificantDigits: 6 });
const SHORT = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });

/** A number with its digits. */
export function number(value) {
  if (value === null || value === undefined || value === '') return '–';
  const of = Number(value);
  if (!Number.isFinite(of)) return '–';
  return Number.isInteger(of) || Math.abs(of) >= 100_000 ? WHOLE.format(of) : FINE.format(of);
}

/** A number in few characters. */
export function short(value) {
  return value === null || value === undefined || !Number.isFinite(Number(value)) ? '–' : SHORT.format(Number(value));
}

/** A share as per cent. */
export function percent(share) {
  if (share === null || share === undefined || !Number.isFinite(Number(share))) return '–';
  const of = Number(share) * 100;
  return `${of === 0 || of >= 10 ? of.toFixed(0) : of.toFixed(of >= 1 ? 1 : 2)} %`;
}

/** Bytes. */
export function bytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  let of = Number(count) || 0;
  while (of >= 1024 && at < units.length - 1) {
    of /= 1024;
    at += 1;
  }
  return `${of >= 100 || at === 0 ? of.toFixed(0) : of.toFixed(1)} ${units[at]}`;
}

/** A span of seconds. */
export function span(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '–';
  const of = Math.max(0, seconds);
  if (of < 0.001) return '< 1 ms';
  if (of < 1) return `${(of * 1000).toFixed(0)} ms`;
  if (of < 10) return `${of.toFixed(1)} s`;
  if (of < 120) return `${of.toFixed(0)} s`;
  if (of < 7200) return `${(of / 60).toFixed(0)} min`;
  if (of < 172_800) return `${(of / 3600).toFixed(0)} h`;
  return `${(of / 86_400).toFixed(0)} d`;
}

/** Beyond this a time stands for "for ever": a run that has ended is complete through it. */
export const EVER_S = 4_000_000_000;

const formats = new Map();

function format(zone, options) {
  const key = `${zone} ${JSON.stringify(options)}`;
  if (!formats.has(key)) {
    let of;
    try {
      of = new Intl.DateTimeFormat('en-GB', { ...options, timeZone: zone, hourCycle: 'h23' });
    } catch {
      of = new Intl.DateTimeFormat('en-GB', { ...options, timeZone: 'UTC', hourCycle: 'h23' });
    }
    formats.set(key, of);
  }
  return formats.get(key);
}

/** A time of day, with the date where it isn't today's. `seconds` since 1970, or ClickHouse's text of them. */
export function time(seconds, zone = 'UTC', withSeconds = false) {
  const of = Number(seconds);
  if (!Number.isFinite(of) || of <= -2_000_000_000) return '–';
  if (of >= EVER_S) return 'the end';
  const date = new Date(of * 1000);
  const day = (at) => format(zone, { year: 'numeric', month: '2-digit', day: '2-digit' }).format(at);
  const clock = format(zone, { hour: '2-digit', minute: '2-digit', second: withSeconds ? '2-digit' : undefined }).format(date);
  if (day(date) === day(new Date())) return clock;
  const year = date.getUTCFullYear() === new Date().getUTCFullYear() ? undefined : 'numeric';
  return `${format(zone, { day: 'numeric', month: 'short', year }).format(date)} ${clock}`;
}

/** A day. */
export function day(seconds, zone = 'UTC') {
  return format(zone, { day: 'numeric', month: 'short', year: 'numeric' }).format(new Date(Number(seconds) * 1000));
}

/** How long ago. */
export function ago(seconds) {
  const of = Number(seconds);
  if (!Number.isFinite(of) || of <= 0 || of >= EVER_S) return '–';
  return `${span(Date.now() / 1000 - of)} ago`;
}
