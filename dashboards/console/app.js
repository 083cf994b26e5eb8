// The page: which part is shown, the theme, and what is the same everywhere.

import { ask, failed, put, renew, visible, h } from './dom.js';
import { current } from './route.js';
import { age, start, listen } from './live.js';
import { redraw, theme } from './chart.js';
import * as analyst from './analyst.js';

const main = document.getElementById('main');
// The other two come when they are asked for, so that the first paint waits for less.
const pages = { analyst: async () => analyst, engineer: () => import('./engineer.js'), sdk: () => import('./sdk.js') };
const titles = { analyst: 'Analyst', engineer: 'Engineer', sdk: 'SDK team' };

let catalog = null;
let leave = null;
let shownPage = null;
let turn = 0;

async function show() {
  const route = current();
  const page = pages[route.page] ? route.page : 'analyst';
  const mine = ++turn;
  for (const link of document.querySelectorAll('nav.pages a')) {
    if (link.dataset.page === page) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = `${titles[page]} · ${catalog.pipeline} · Weir`;
  const part = await pages[page]();
  if (mine !== turn) return;
  if (shownPage !== page) {
    leave?.();
    put(main);
    shownPage = page;
    leave = part.enter(main, catalog);
  }
  part.routed(route);
}

function switchTheme() {
  const next = theme() === 'dark' ? 'light' : 'dark';
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem('weir.theme', next);
  } catch {
    // It holds for this page, then.
  }
  nameTheme();
  redraw();
}

function nameTheme() {
  const button = document.getElementById('theme');
  const other = theme() === 'dark' ? 'Light' : 'Dark';
  button.textContent = other;
  button.setAttribute('aria-label', `${other} theme`);
}

async function begin() {
  document.getElementById('theme').addEventListener('click', switchTheme);
  document.getElementById('skip').addEventListener('click', (event) => {
    event.preventDefault();
    main.focus();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    nameTheme();
    redraw();
  });
  nameTheme();
  start();
  try {
    catalog = await ask('/api/views');
  } catch (error) {
    put(main, failed(error), h('p', {}, h('button', { type: 'button', onclick: () => location.reload() }, 'Try again')));
    return;
  }
  document.getElementById('pipeline').textContent = visible(catalog.pipeline);
  window.addEventListener('hashchange', show);
  window.addEventListener('routed', show);
  listen((snapshot) => {
    // Alerts are worth a number wherever one is.
    const link = document.querySelector('nav.pages a[data-page="sdk"]');
    // A snapshot holds the worst ones; that there are more is said.
    const open = `${snapshot.alerts.length}${snapshot.are_alerts_cut ? '+' : ''}`;
    const isUnknown = catalog.has_alerts && age(snapshot, 'alerts') === null;
    const badge = isUnknown ? h('span', { class: 'badge', 'aria-label': 'alerts not known' }, '?') : snapshot.alerts.length ? h('span', { class: 'badge', 'aria-label': `${open} open alerts` }, open) : null;
    renew(link, 'SDK team', badge);
  });
  await show();
}

begin();
