// Shows the book's widgets on a page that has no kernel behind it. A notebook saves each widget
// as a model (its traits, its JavaScript module `_esm` and its style `_css`) and, where a cell
// displayed it, as a view. This file reads both from the page and plays the part of Jupyter:
// it gives each view the model interface that anywidget documents. A model shown twice is one
// model, so its views move together. There is nobody to send to: `send` and `save_changes`
// have nothing left to do, because `set` tells every view at once, as it does in Jupyter.
(() => {
  "use strict";
  const STATE = "application/vnd.jupyter.widget-state+json";
  const VIEW = "application/vnd.jupyter.widget-view+json";
  const scripts = (type) => [...document.querySelectorAll(`script[type="${type}"]`)];

  function once(make) {
    const made = new Map();
    return (key) => made.get(key) ?? made.set(key, make(key)).get(key);
  }

  function same(a, b) {
    const plain = (v) => v === null || typeof v !== "object" || !ArrayBuffer.isView(v);
    return Object.is(a, b) || (plain(a) && plain(b) && JSON.stringify(a) === JSON.stringify(b));
  }

  // Binary traits are saved apart, as base64: put each back, as a DataView, where it belongs.
  function traits({ state, buffers = [] }) {
    for (const { path, data } of buffers) {
      const text = atob(data), bytes = new Uint8Array(text.length);
      for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n);
      const owner = path.slice(0, -1).reduce((value, key) => value[key], state);
      owner[path.at(-1)] = new DataView(bytes.buffer);
    }
    return state;
  }

  function createModel(values) {
    const listeners = [];
    const emit = (event, ...args) =>
      listeners.filter((l) => l.event === event).forEach((l) => l.callback(...args));
    const model = {
      address: true,  // the page's address is free to hold the state
      get: (name) => values[name],
      set(name, value) {
        const changes = typeof name === "object" ? name : { [name]: value };
        const changed = Object.keys(changes).filter((key) => !same(values[key], changes[key]));
        Object.assign(values, changes);
        changed.forEach((key) => emit(`change:${key}`, model, values[key]));
        if (changed.length) emit("change", model);
      },
      on: (events, callback) =>
        events.split(" ").forEach((event) => listeners.push({ event, callback })),
      off(event, callback) {
        const gone = (l) =>
          (!event || l.event === event) && (!callback || l.callback === callback);
        listeners.splice(0, listeners.length, ...listeners.filter((l) => !gone(l)));
      },
      save_changes() {},
      send() {},
    };
    return model;
  }

  const addStyle = once((css) => {
    document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
    return true;
  });

  const importModule = once(async (source) => {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const module = await import(url);
    const widget = module.default ?? module;
    return typeof widget === "function" ? widget() : widget;
  });

  const saved = once(() =>
    Object.assign({}, ...scripts(STATE).map((script) => JSON.parse(script.textContent).state)));

  const open = once(async (id) => {
    const entry = saved("page")[id];
    if (!entry?.state._esm) throw new Error(`the page holds no anywidget model ${id}`);
    const model = createModel(traits(entry));
    const widget = await importModule(model.get("_esm"));
    if (model.get("_css")) addStyle(model.get("_css"));
    await widget.initialize?.({ model });
    return { model, widget };
  });

  // Safari does not anchor the scroll: what starts above the window would move the text in it, while
  // it grows from the height of its place to its own.
  function keepPlace(place) {
    if (CSS.supports("overflow-anchor", "auto")) return;
    let height = place.offsetHeight;
    const growth = new ResizeObserver(() => {
      const grown = place.offsetHeight - height, wasAbove = place.getBoundingClientRect().bottom <= grown;
      height += grown;
      if (grown && wasAbove) scrollBy({ top: grown, behavior: "instant" });
    });
    growth.observe(place);
    setTimeout(() => growth.disconnect(), 1000);
  }

  async function show(script) {
    keepPlace(script.parentElement);
    const message = script.parentElement.querySelector(".explorer-message");
    const el = document.createElement("div");
    try {
      const { model, widget } = await open(JSON.parse(script.textContent).model_id);
      script.after(el);
      await widget.render?.({ model, el });
      message?.remove();
    } catch (error) {
      el.remove();
      if (message) message.textContent = `This explorer could not start: ${error.message}`;
      console.error(error);
    }
  }

  // Each starts when it comes near the window; all of them where the address names one, and to print.
  const waiting = new Map(scripts(VIEW).map((script) => [script.parentElement, script]));
  const near = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) =>
      start(entry.target)), { rootMargin: "100%" });

  function start(place) {
    const script = waiting.get(place);
    near.unobserve(place);
    waiting.delete(place);
    return script && show(script);
  }

  const startAll = () => Promise.all([...waiting.keys()].map(start));
  const startNamed = () => { if (location.hash.includes(":")) startAll(); };
  // Explorers follow the links to them: where some have not started, the click waits until they have.
  async function startFirst(event) {
    const link = event.target.closest?.("a[href^='#'][href*=':']");
    const isOther = event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
    if (!link || isOther || !waiting.size) return;
    event.preventDefault();
    event.stopPropagation();
    await startAll();
    requestAnimationFrame(() => requestAnimationFrame(() => link.click()));  // they have been drawn
  }

  addEventListener("click", startFirst, true);
  addEventListener("hashchange", startNamed);
  addEventListener("beforeprint", startAll);
  startNamed();

  for (const place of waiting.keys()) {
    const message = place.querySelector(".explorer-message");
    if (message) message.textContent = "This explorer starts when it comes into view.";
    near.observe(place);
  }

  // After Reload and Back the browser looks for the reader's line by counting from the top: so an
  // explorer that has not started has the height that it had when the page was left.
  const places = [...document.querySelectorAll(".explorer")], kept = `heights ${location.pathname}`;
  addEventListener("pagehide", () => sessionStorage.setItem(kept,
    JSON.stringify(places.map((place) => place.offsetHeight))));
  JSON.parse(sessionStorage.getItem(kept) ?? "[]").forEach((height, n) =>
    places[n]?.style.setProperty("--height", `${height}px`));
})();
