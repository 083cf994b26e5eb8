// Runs before the first paint, so that a chosen theme doesn't flash: the choice, else what the system asks for.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem('weir.theme');
  } catch {
    // Storage may be forbidden; then the system decides.
  }
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
})();
