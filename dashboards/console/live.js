// What changes by itself: events from the server; while they don't come, questions every few seconds.

const QUIET_MS = 6_000;
const POLL_MS = 2_000;
const LONGEST_PAUSE_MS = 15_000;

/** The newest snapshots, the oldest first: for rates. */
const kept = [];
const KEPT_MS = 70_000;
const listeners = new Set();
let source = null;
let pause = 1_000;
let heardAt = 0;
let state = 'connecting';
let polling = null;
let waiting = null;

/** The newest snapshot, or null. */
export const newest = () => kept.at(-1) ?? null;

/** How old what a snapshot says of `name` is, in seconds, where it couldn't be asked anew; null where nobody ever told it. */
export function age(snapshot, name) {
  const told = snapshot.told_at_ms[name];
  if (told === undefined) return null;
  return snapshot.faults.length ? (snapshot.at_ms - told) / 1000 : 0;
}

/** Calls `listener(snapshot)` with each; returns what ends that. */
export function listen(listener) {
  listeners.add(listener);
  if (newest()) listener(newest());
  return () => listeners.delete(listener);
}

/** How a total changed per second, over about `seconds`; null while that isn't known. */
export function rate(of, seconds = 5) {
  const last = kept.at(-1);
  if (!last) return null;
  const first = kept.find((one) => last.at_ms - one.at_ms <= seconds * 1000 + 500);
  if (!first || first === last) return null;
  const passed = (last.at_ms - first.at_ms) / 1000;
  const change = (of(last) ?? 0) - (of(first) ?? 0);
  return passed > 0 && change >= 0 ? change / passed : null;
}

/** A distribution of the last minute: {count, p50, p99} in seconds. */
export function times(of) {
  const last = kept.at(-1);
  const first = kept[0];
  if (!last) return null;
  const now = of(last);
  const before = first === last ? null : of(first);
  const count = now.count - (before?.count ?? 0);
  if (count <= 0) return null;
  const quantile = (level) => {
    let lower = 0;
    let below = 0;
    for (const [at, [bound, n]] of now.buckets.entries()) {
      const here = n - (before?.buckets[at]?.[1] ?? 0);
      if (here >= level * count) return lower + (bound - lower) * ((level * count - below) / Math.max(1, here - below));
      lower = bound;
      below = here;
    }
    return lower;
  };
  return { count, p50: quantile(0.5), p99: quantile(0.99) };
}

function take(text) {
  let snapshot;
  try {
    snapshot = JSON.parse(text);
  } catch {
    return;
  }
  // A pipeline that was started again counts from nothing.
  const last = newest();
  if (last && snapshot.at_ms < last.at_ms) return;
  kept.push(snapshot);
  while (kept.length > 2 && snapshot.at_ms - kept[0].at_ms > KEPT_MS) kept.shift();
  heardAt = Date.now();
  for (const listener of listeners) listener(snapshot);
}

function become(next) {
  if (state === next) return;
  state = next;
  show();
}

function show() {
  const at = document.getElementById('live');
  if (!at) return;
  const words = { live: 'Live', polling: 'Polling', connecting: 'Connecting', away: 'No answer' };
  at.className = `live ${state}`;
  at.textContent = words[state];
}

/** Nobody looks at a hidden page: it holds no place that another could have, and nothing is asked for it. */
const isAway = () => document.hidden;

function connect() {
  source?.close();
  source = null;
  if (isAway()) return;
  source = new EventSource('/api/live');
  source.addEventListener('snapshot', (event) => {
    pause = 1_000;
    stopPolling();
    become('live');
    take(event.data);
  });
  source.onerror = () => {
    // The browser would try again by itself, but not after an answer that is no stream.
    source.close();
    source = null;
    startPolling();
    again();
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  };
}

function again() {
  clearTimeout(waiting);
  waiting = setTimeout(connect, pause);
}

function startPolling() {
  if (polling || isAway()) return;
  become(heardAt ? 'polling' : 'connecting');
  polling = setInterval(poll, POLL_MS);
  poll();
}

function stopPolling() {
  clearInterval(polling);
  polling = null;
}

async function poll() {
  try {
    const answer = await fetch('/api/snapshot', { signal: AbortSignal.timeout(5_000) });
    if (!answer.ok) throw new Error();
    const text = await answer.text();
    if (!polling) return;
    become('polling');
    take(text);
  } catch {
    if (polling) become('away');
  }
}

/** Begins to listen. */
export function start() {
  show();
  connect();
  // A connection may be cut without anybody being told.
  setInterval(() => {
    if (source && heardAt && Date.now() - heardAt > QUIET_MS) {
      source.close();
      source = null;
      startPolling();
      again();
    }
  }, 1_000);
  document.addEventListener('visibilitychange', () => {
    clearTimeout(waiting);
    if (isAway()) {
      stopPolling();
      source?.close();
      source = null;
      return;
    }
    heardAt = 0;
    pause = 1_000;
    connect();
  });
}
