// Every name that the page reads of an answer is one that the answer has: an unknown one is said on the console as an error, which
// fails the test. What answers say of their SQL is kept, to be looked at.
(() => {
  // Numbers by name of a source, fate, destination: what isn't there is none. And what came when.
  const dictionary = /\.(numbers\.(consumed|consumed_bytes|fates|delivered_rows|delivered_bytes|operator_seconds)|told_at_ms)$/;
  const proxies = new WeakMap();
  const statements = new Set();
  window.statements_ = () => [...statements];

  function strict(value, path) {
    if (value === null || typeof value !== 'object') return value;
    if (!proxies.has(value)) proxies.set(value, new Proxy(value, { get: (of, name) => read(of, name, path) }));
    return proxies.get(value);
  }

  function read(of, name, path) {
    const value = Reflect.get(of, name);
    if (typeof name === 'symbol' || name in of) return typeof value === 'function' ? value : strict(value, `${path}.${name}`);
    const isIndex = Array.isArray(of) && /^\d+$/.test(name);
    // A promise asks whether it is one.
    if (!isIndex && name !== 'then' && !dictionary.test(path)) console.error(`unknown name: ${path}.${name}`);
    return undefined;
  }

  function gather(value) {
    if (value === null || typeof value !== 'object') return;
    for (const [name, of] of Object.entries(value)) {
      // A view's own SQL is of its events, which need not be kept.
      if (/(^|_)sql$/.test(name) && typeof of === 'string' && !('dimensions' in value)) statements.add(of);
      else gather(of);
    }
  }

  const json = Response.prototype.json;
  Response.prototype.json = async function () {
    const body = await json.call(this);
    if (!this.ok) return body;
    gather(body);
    return strict(body, new URL(this.url).pathname);
  };
  const parse = JSON.parse;
  JSON.parse = (text, ...more) => {
    const value = parse(text, ...more);
    return value?.told_at_ms ? strict(value, 'snapshot') : value;
  };
  const fromEntries = Object.fromEntries;
  Object.fromEntries = (pairs) => strict(fromEntries(pairs), 'row');
})();
