// Deep links: what is looked at stands in the address, behind #, so that a link shows the same to somebody else.

/** {page, parts, params}: `#/analyst/VIEW?measure=users` */
export function current() {
  const hash = location.hash.startsWith('#/') ? location.hash.slice(2) : 'analyst';
  const [path, query = ''] = hash.split(/\?(.*)/s);
  const [page, ...parts] = path.split('/').map(decoded);
  return { page: page || 'analyst', parts, params: new URLSearchParams(query) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address of a page. */
export function link(page, parts = [], params = undefined) {
  const query = params?.toString();
  return `#/${[page, ...parts].map(encodeURIComponent).join('/')}${query ? `?${query}` : ''}`;
}

/** Goes there; `quietly` leaves no step in the history. */
export function go(page, parts, params, quietly = false) {
  const to = link(page, parts, params);
  if (to === location.hash) return;
  if (quietly) history.replaceState(null, '', to);
  else history.pushState(null, '', to);
  window.dispatchEvent(new Event('routed'));
}
