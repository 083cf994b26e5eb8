// How complete a view is, in words: "complete to 12:04", who holds it, and whom it leaves out.

import { h, visible } from './dom.js';
import { time, EVER_S } from './format.js';

/** The time through which a view is complete, in seconds; -Infinity while no window is closed. ClickHouse's least time says that, too. */
export function throughOf(progress) {
  const through = Number(progress?.complete_through ?? NaN);
  return through > LEAST_S ? through : -Infinity;
}

const LEAST_S = -2_000_000_000;

/** A view's completeness by `progress`, with what the snapshot says of its source's partitions. */
export function completeness(view, snapshot, progress, isWhole) {
  const through = throughOf(progress);
  if (through === -Infinity) {
    return h('p', { class: 'complete open' }, h('span', { class: 'dot' }), 'No window is closed yet.');
  }
  const words = through >= EVER_S ? 'complete: the run has ended' : `complete to ${time(through, view.zone)}`;
  const zone = through >= EVER_S ? '.' : ` ${view.zone}.`;
  const { out, waiting } = leftOut(view, snapshot, through);
  const holds = progress.held_back_by && !isWhole ? ` Held by ${visible(progress.held_back_by)}.` : '';
  const more = [
    out.length ? `Leaves out ${list(out)}.` : '',
    waiting.length ? `Waits for ${list(waiting)}.` : '',
  ].filter(Boolean).join(' ');
  return h('p', { class: `complete${isWhole ? '' : ' open'}` }, h('span', { class: 'dot' }), h('strong', { id: 'complete', 'data-through': String(through) }, words), h('span', { class: 'faint' }, zone),
    h('span', { class: 'faint' }, `${holds}${more ? ` ${more}` : ''}`));
}

/**
 * The partitions of a view's source whose watermark was passed by what the view is complete through, in seconds, as
 * `is_left_out` of weir_progress_by_partition has it: what they say later is late. And those of the others that wait.
 */
export function leftOut(view, snapshot, through) {
  const source = snapshot?.status.sources.find((one) => one.name === view.source);
  const partitions = source?.partitions ?? [];
  // The end of a run passes all of them, which needs no list. Watermarks are in microseconds.
  const isOut = (of) => through < EVER_S && of.watermark / 1e6 < through;
  const named = (of) => `${of.topic}/${of.partition} (${of.state}${of.detail ? `: ${of.detail}` : ''})`;
  return {
    out: partitions.filter(isOut).map(named),
    waiting: partitions.filter((of) => !isOut(of) && (of.state === 'waiting' || of.state === 'parked')).map(named),
  };
}

function list(names) {
  const shown = names.slice(0, 6).map(visible).join(', ');
  return names.length > 6 ? `${shown} and ${names.length - 6} more` : shown;
}
