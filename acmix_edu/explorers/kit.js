// The parts that every explorer shares: controls, maps on canvases, picking, redrawing.

// ---- Elements and controls ------------------------------------------------------------------

// element("p", { class: "note" }, "text", child): a DOM element with attributes and children.
export function element(tag, attributes = {}, ...children) {
  const svg = ["svg", "rect", "path", "text"].includes(tag);
  const node = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// A line above a part of an explorer. Not one of the page's headings: it would break their order.
export const headline = (...words) => element("p", { class: "heading" }, ...words);

// Without this attribute JupyterLab takes the arrow keys away from an input.
const KEEP_KEYS = { "data-lm-suppress-shortcuts": "true" };

// A control is { box, input, show(value), read(), accept(value) }: `box` goes into the page,
// `accept` says whether the control could have given the value.

// A labelled native slider; `say(value)` writes the value with its unit.
export function slider({ name, label, min, max, step = 1, say = String }) {
  const input = element("input", { type: "range", name, min, max, step, ...KEEP_KEYS });
  const value = element("span", { class: "value", "aria-hidden": "true" });
  const box = element("label", { class: "control" }, element("span", {}, label), value, input);
  const show = (number) => {
    if (Number(input.value) !== number) input.value = number;
    value.textContent = say(number);
    input.setAttribute("aria-valuetext", say(number));
  };
  const onStep = (number) => Math.abs((number - min) / step - Math.round((number - min) / step));
  const accept = (number) => number >= min && number <= max && onStep(number) < 1e-6;
  return { box, input, show, read: () => Number(input.value), accept };
}

// A labelled native list; `options` are [value, text] with numbers or strings as values.
export function choice({ name, label, options }) {
  const items = options.map(([value, text]) => element("option", { value }, text));
  const input = element("select", { name, ...KEEP_KEYS }, ...items);
  const box = element("label", { class: "control" }, element("span", {}, label), input);
  const accept = (value) => options.some(([known]) => known === value);
  const read = () => options[input.selectedIndex][0];
  return { box, input, show: (value) => (input.value = value), read, accept };
}

// A labelled native checkbox.
export function toggle({ name, label }) {
  const input = element("input", { type: "checkbox", name, ...KEEP_KEYS });
  const box = element("label", { class: "control toggle" }, input, element("span", {}, label));
  const show = (on) => (input.checked = on);
  return { box, input, show, read: () => input.checked, accept: (on) => typeof on === "boolean" };
}

export function button(text, press, attributes = {}) {
  const node = element("button", { type: "button", ...attributes }, text);
  node.addEventListener("click", press);
  return node;
}

// A button that calls next(true), and next() again after as many milliseconds as the last call has
// returned, until one returns none; another click stops it, and so does hiding the page. `idle` and
// `busy` are what stands on it, [sign, name].
export function playing(idle, busy, next) {
  let timer = 0;
  const name = (sign, text) => {
    node.textContent = `${sign} ${text}`;
    node.setAttribute("aria-label", text);
  };
  const stop = () => {
    clearTimeout(timer);
    timer = 0;
    document.removeEventListener("visibilitychange", stop);
    name(...idle);
  };
  const go = (first) => {
    const pause = next(first);
    if (pause) timer = setTimeout(go, pause); else stop();
  };
  const start = () => {
    document.addEventListener("visibilitychange", stop);
    name(...busy);
    go(true);
  };
  const node = button("", () => (timer ? stop() : start()), { class: "play" });
  stop();
  return { node, stop };
}

// Buttons that step a slider back and forth, and play it to its end, a step every `pause`
// milliseconds; any other use of the slider or the buttons stops it, and so does hiding the page.
// `send(value)` sets the trait.
export function player({ input, read }, send, pause = 700) {
  const to = (value) => send(clamp(value, Number(input.min), Number(input.max)));
  const by = (steps) => to(read() + steps * Number(input.step));
  const isAtEnd = () => read() >= Number(input.max);
  let left;  // where the player has left the slider: if it is elsewhere now, others have moved it
  const { node, stop } = playing(["▶", "Play"], ["❚❚", "Pause"], (first) => {
    if (first && isAtEnd()) to(Number(input.min));
    if (!first && (read() !== left || isAtEnd())) return 0;
    if (!first) by(1);
    left = read();
    return pause;
  });
  const step = (text, label, steps) =>
    button(text, () => { stop(); by(steps); }, { "aria-label": label });
  input.addEventListener("input", stop);
  const box = element("div", { class: "player", role: "group", "aria-label": "Step by step" },
    step("◀", "One step back", -1), node, step("▶", "One step on", 1));
  return { box, stop };
}

// Keep a control and a trait of the model equal; returns how to let go.
function bind(model, trait, control, set) {
  const show = () => control.show(model.get(trait));
  const send = () => set({ [trait]: control.read() });
  control.input.addEventListener("input", send);
  model.on(`change:${trait}`, show);
  show();
  return () => model.off(`change:${trait}`, show);
}

// Set traits and tell Python, where there is one.
function save(model, traits) {
  for (const [trait, value] of Object.entries(traits)) model.set(trait, value);
  model.save_changes();
}

// ---- Data -----------------------------------------------------------------------------------

// The 32-bit floats of a Bytes trait, which arrives as a DataView, an ArrayBuffer or a typed array.
export function floats(bytes) {
  const view = bytes instanceof ArrayBuffer ? new Uint8Array(bytes) : bytes;
  const { buffer, byteOffset, byteLength } = view;
  return new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
}

// Remember each stage until the values it depends on change; `has` says whether it is known.
export function memory() {
  const kept = {};
  const remember = (stage, dependsOn, compute) => {
    if (!remember.has(stage, dependsOn)) {
      kept[stage] = { key: JSON.stringify(dependsOn), value: compute() };
    }
    return kept[stage].value;
  };
  remember.has = (stage, dependsOn) => kept[stage]?.key === JSON.stringify(dependsOn);
  return remember;
}

// What may come a little later than the picture: do(what, count, step, done) waits until nothing
// else has been asked for `pause` milliseconds, then calls step(0) … step(count - 1) and done(),
// each in its own task, so that input and frames come between. The same `what` again goes on.
export function later(pause) {
  let timer = 0, doing;
  const stop = () => { clearTimeout(timer); doing = undefined; };
  const next = (n, count, step, done) => {
    timer = setTimeout(() => {
      if (n === count) { stop(); done(); } else { step(n); next(n + 1, count, step, done); }
    }, n === 0 ? pause : 0);
  };
  const start = (what, ...work) => {
    const key = JSON.stringify(what);
    if (doing === key) return;
    stop();
    doing = key;
    next(0, ...work);
  };
  return { do: start, stop };
}

// The one of some values that is least far away.
export const nearest = (values, away) =>
  values.reduce((best, one) => (away(one) < away(best) ? one : best));

export const clamp = (n, low, high) => Math.min(Math.max(n, low), high);

// Keeps the sign: colours that follow the square root of the value show small ones, too.
export const rooted = (value) => Math.sign(value) * Math.sqrt(Math.abs(value));

// A place is [row, column], sides are [rows, columns].
export const isCount = (bound) => (n) => Number.isInteger(n) && n >= 0 && n < bound;
export const isPlace = (place) => place.length === 2 && place.every(Number.isSafeInteger);
export const isInside = (sides) => (place) =>
  isPlace(place) && place.every((n, axis) => isCount(sides[axis])(n));
export const intoMap = (place, sides) => place.map((n, axis) => clamp(n, 0, sides[axis] - 1));
export const plus = (a, b) => a.map((n, axis) => n + b[axis]);
// [Δx, Δy] of cell t of a k×k kernel, from its middle.
export const moveOf = (t, k) => [Math.floor(t / k), t % k].map((place) => place - (k - 1) / 2);

// Numbers as they are, with a true minus sign: "−1" and "(0, −1)".
export const written = (value) => String(value).replaceAll("-", "−");
export const tuple = (values) => `(${values.map(written).join(", ")})`;

// A number for a reader: about three digits, a true minus sign. "0" is zero, "0.000" not quite.
export function figure(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  return written(value && value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3));
}
// The same with nothing larger beside it: two digits of what is tiny.
export const precise = (value) => (value && Math.abs(value) < 0.001
  ? written(value.toExponential(1)) : figure(value));

// [smallest, largest], leaving out what is not a number.
export function extent(values) {
  let low = Infinity, high = -Infinity;
  for (let n = 0; n < values.length; n++) {
    if (values[n] < low) low = values[n];
    if (values[n] > high) high = values[n];
  }
  return [low, high];
}

// The largest size |value| over several arrays: the end of a symmetric scale, never 0.
export const NOTHING = 1e-12;
export function reach(...arrays) {
  const sizes = arrays.map((values) => extent(values).map(Math.abs)).flat();
  return Math.max(...sizes.filter(Number.isFinite), NOTHING);
}

// ---- Colours: the one place where a value becomes a colour ----------------------------------

// Blue, white, red for signed values; dark to light for amounts. Both are safe for colour-blind
// readers. The stops are equally spaced.
export const SIGNED = [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]];
export const AMOUNT = [
  [0, 32, 77], [66, 77, 108], [124, 123, 120], [188, 175, 111], [255, 234, 70],
];

// value in [low, high] → [r, g, b, 255]: linear between the stops, clamped at the ends, rounded.
// A value that is not a number is transparent.
export function colour(value, low, high, stops) {
  if (Number.isNaN(value)) return [0, 0, 0, 0];
  const place = clamp((value - low) / (high - low), 0, 1) * (stops.length - 1);
  const stop = Math.min(Math.floor(place), stops.length - 2), part = place - stop;
  const [from, to] = [stops[stop], stops[stop + 1]];
  const level = (n) => Math.round(from[n] + part * (to[n] - from[n]));
  return [level(0), level(1), level(2), 255];
}

// A bar of the colours from low to high, which stand beside it; 0 is in the middle of a signed one.
// The values went through `curve` before they were drawn, and are written by `say`.
export function scaleBar(low, high, stops, { curve = (value) => value, say = precise } = {}) {
  if (stops === SIGNED && high <= NOTHING) return element("span", {}, "zero everywhere");
  const shades = Array.from({ length: 33 }, (_, n) => `rgb(${colour(
    curve(low + ((high - low) * n) / 32), curve(low), curve(high), stops).slice(0, 3)})`);
  const ends = [low, high].map(say);
  return element("span", { class: "scale-bar", role: "img", "aria-label": `scale: ${ends.join(" to ")}` },
    ends[0], element("span", { class: "ramp", style: `background: linear-gradient(90deg, ${shades})` },
      stops === SIGNED ? "0" : ""), ends[1]);
}

// Black or white, whichever is easier to read on a colour.
export const inkOn = ([r, g, b]) => (0.3 * r + 0.59 * g + 0.11 * b > 125 ? "#000" : "#fff");

// A colour in four bytes, as the pixels of a canvas hold it (processors that browsers run on put
// the lowest byte first); and all shades of a scale.
const SHADES = 4096;
const pack = ([r, g, b, a]) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;
const tables = new Map();
function shadesOf(stops) {
  const shade = (_, n) => pack(colour(n, 0, SHADES - 1, stops));
  if (!tables.has(stops)) tables.set(stops, Uint32Array.from({ length: SHADES }, shade));
  return tables.get(stops);
}

// ---- Maps on canvases -----------------------------------------------------------------------

// A figure with a canvas that has one canvas pixel for each value (CSS enlarges it, unsmoothed),
// an SVG overlay in the same units, a heading and a note below.
export function mapView(name, ...heading) {
  const canvas = element("canvas", { "data-map": name, role: "img" });
  const overlay = element("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
  const frame = element("div", { class: "frame" }, canvas, overlay);
  const title = element("div", { class: "title" }, ...heading);
  const note = element("div", { class: "note" });
  const box = element("div", { class: "map" }, title, frame, note);
  const view = { box, canvas, overlay, frame, title, note, rows: 0, columns: 0 };
  view.paint = (rows, columns, rgba) =>
    paint(view, rows, columns, (n) => pack(rgba(n)));
  view.draw = (values, rows, columns, low, high, stops) => {
    const shades = shadesOf(stops), scale = (SHADES - 1) / (high - low);
    paint(view, rows, columns, (n) => {  // colour(), from a table
      const place = Math.round((values[n] - low) * scale);
      return Number.isNaN(place) ? 0 : shades[clamp(place, 0, SHADES - 1)];
    });
  };
  // Channels 0, 1, 2 as red, green, blue (one as grey), stretched where values leave 0 … 1.
  view.photo = ({ data, channels, height, width }) => {
    const size = height * width, step = channels >= 3 ? size : 0;
    let [low, high] = extent(data.subarray(0, 2 * step + size));
    if (low >= 0 && high <= 1) [low, high] = [0, 1];
    const level = (n) => Math.round((255 * (data[n] - low)) / (high - low || 1));
    view.paint(height, width, (n) => [level(n), level(n + step), level(n + 2 * step), 255]);
  };
  view.say = (label, ...notes) => {
    canvas.setAttribute("aria-label", label);
    if (notes.length) note.replaceChildren(...notes);
  };
  return view;
}

// Canvases in the processor's memory: they are small, and often read back.
export const IN_MEMORY = { willReadFrequently: true };

function paint(view, rows, columns, packedColour) {
  const { canvas, overlay } = view;
  if (view.rows !== rows || view.columns !== columns) {
    Object.assign(view, { rows, columns });
    Object.assign(canvas, { width: columns, height: rows });
    overlay.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
    view.frame.style.aspectRatio = `${columns} / ${rows}`;
  }
  const pixels = new ImageData(columns, rows), packed = new Uint32Array(pixels.data.buffer);
  for (let n = 0; n < packed.length; n++) packed[n] = packedColour(n);
  canvas.getContext("2d", IN_MEMORY).putImageData(pixels, 0, 0);
}

// The square of so many cells around a place, to be outlined.
export const squareAt = ([row, column], side, kind) => ({ row: row - (side - 1) / 2,
  column: column - (side - 1) / 2, rows: side, columns: side, kind });

// Outline cells of a map: each shape is { row, column, rows, columns, kind }, kind a CSS class.
export function outline(view, shapes) {
  view.overlay.replaceChildren(...shapes.flatMap(({ row, column, rows, columns, kind }) => {
    const place = { x: column, y: row, width: columns, height: rows };
    return ["halo", kind].map((name) => element("rect", { ...place, class: name }));
  }));
}

// A dot of a chart, as a path with round ends. It has a length, if none that is seen: WebKit
// stretches a dot without one as it stretches the chart.
export const spot = (x, y) => `M${x} ${y}h0.01`;

// ---- Picking --------------------------------------------------------------------------------

// The cell of a map that an event is at; it may lie outside.
export function cellUnder({ canvas, rows, columns }, { clientX, clientY }) {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  return [((clientY - top) / height) * rows, ((clientX - left) / width) * columns].map(Math.floor);
}

// Call hover(read([row, column])) while a mouse is over the map, hover(null) when it goes, and
// pin(read([row, column])) on a click or a tap.
export function pickable(view, hover, pin, read = (place) => place) {
  const cell = (event) => intoMap(cellUnder(view, event), [view.rows, view.columns]);
  view.frame.classList.add("pickable");
  view.frame.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse") hover(read(cell(event)));
  });
  view.frame.addEventListener("pointerleave", () => hover(null));
  view.frame.addEventListener("click", (event) => pin(read(cell(event))));
}

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
  PageUp: [-5, 0], PageDown: [5, 0], Home: [0, -1e6], End: [0, 1e6] };

// Make a map a tab stop where the arrow keys call move([rows, columns]); with shift, five at a time.
// Home and End move further than any map is wide: move() stops at the border.
export function steerable(view, label, move) {
  const attributes = { tabindex: 0, role: "application", "aria-label": label, ...KEEP_KEYS };
  for (const [name, value] of Object.entries(attributes)) view.frame.setAttribute(name, value);
  view.frame.addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    move(step.map((cells) => cells * (event.shiftKey ? 5 : 1)));
  });
}

// Call pick(part), from 0 to 1 along a chart, on a click or a tap on it and while it is dragged
// sideways; a finger that moves up or down scrolls the page.
export function draggable(svg, pick) {
  let from = null, going = false;
  const at = ({ clientX }) => {
    const { left, width } = svg.getBoundingClientRect();
    pick(clamp((clientX - left) / width, 0, 1));
  };
  const isSideways = ({ clientX, clientY }) =>
    Math.abs(clientX - from[0]) > Math.max(10, Math.abs(clientY - from[1]));
  svg.classList.add("draggable");
  svg.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    from = [event.clientX, event.clientY];
    going = event.pointerType === "mouse";
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (from && (going ||= isSideways(event))) at(event);
  });
  for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => (from = null));
  svg.addEventListener("click", at);
}

// ---- The state in the address ---------------------------------------------------------------

// An address ends in "#mixing:alpha=1&pixel=3,4": the name of an explorer and the traits that
// differ from its start; several explorers stand side by side with ";" between them. A link in the
// text sets an explorer by such an address, but leaves the places where the reader has put them,
// those of two numbers, if it does not name them.

const parts = (hash) => decoded(hash.replace(/^#/, "")).split(";").filter(Boolean);
function decoded(text) {
  try { return decodeURIComponent(text); } catch { return ""; }  // a % that is no escape
}

// The traits that the address gives to the explorer of this name, in the kinds that `start` has;
// nothing where it does not name it.
function readAddress(hash, name, start) {
  const mine = parts(hash).find((part) => part === name || part.startsWith(`${name}:`));
  if (mine === undefined) return undefined;
  const pairs = mine.slice(name.length + 1).split("&").map((pair) => pair.split("="));
  const known = pairs.filter(([trait, text]) => trait in start && text !== undefined);
  return Object.fromEntries(known.map(([trait, text]) => [trait, parse(text, start[trait])]));
}

function parse(text, like) {
  if (Array.isArray(like)) return text === "" ? [] : text.split(",").map(Number);
  if (typeof like === "number") return text === "" ? NaN : Number(text);
  return typeof like === "boolean" ? { true: true, false: false }[text] : text;
}

// The address in which this explorer's part is put in the place of its old one.
function writeAddress(hash, name, values, start) {
  const changed = Object.keys(start).filter((trait) =>
    JSON.stringify(values[trait]) !== JSON.stringify(start[trait]));
  const mine = `${name}:${changed.map((trait) => `${trait}=${values[trait]}`).join("&")}`;
  const isOther = (part) => part.includes(":") && !part.startsWith(`${name}:`);
  const all = [...parts(hash).filter(isOther), ...(changed.length ? [mine] : [])];
  return all.length ? `#${all.join(";")}` : "";
}

// Show an explorer that a link has set: all of it or, where the window is too low, from its top as
// far down as the part that shows one of the traits, [data-aim~=trait], or else the part that shows
// them all, [data-aim=""].
function bringIntoView(root, traits) {
  const aims = [...traits.map(([trait]) => `[data-aim~=${trait}]`), "[data-aim=\"\"]"];
  const aim = aims.map((selector) => root.querySelector(selector)).find(Boolean);
  root.scrollIntoView({ block: root.offsetHeight > innerHeight - 64 ? "start" : "nearest" });
  aim?.scrollIntoView({ block: "nearest" });
}

// After a link has led away from the text: a button that leads back to it, while it is out of sight.
function wayBack() {
  let link;
  const back = button("↩ Back to the text", () => {
    for (let box = link; box; box = box.parentElement.closest("details")) box.open = true;
    link.scrollIntoView({ block: "center" });
    link.focus({ preventScroll: true });
  }, { class: "back", hidden: "" });
  const sight = new IntersectionObserver((seen) => {
    const isSeen = seen.at(-1).isIntersecting;
    if (isSeen && !back.hidden) sight.disconnect();
    back.hidden = isSeen;
  });
  const from = (clicked) => {
    link = clicked;
    sight.disconnect();
    sight.observe(link);
  };
  return { box: element("div", { class: "way-back" }, back), from, release: () => sight.disconnect() };
}

// Back has put the page where it was when the link was clicked, with the height that the explorer has
// now: what is drawn next must not move it.
function stay() {
  const { style } = document.documentElement;
  style.overflowAnchor = "none";
  setTimeout(() => (style.overflowAnchor = ""), 300);
}

// Follow the address and the links on the page, and keep the state in the address where it is
// ours to write: Jupyter's belongs to Jupyter. Each entry of the browser's history holds the state,
// too: so Back and Reload restore it, and leave the page where the reader was. An anchor stays in
// the address until the explorer is changed again. Returns how to let go.
function followAddress(model, root, accepts, setTraits, back) {
  const name = model.get("name"), start = model.get("start"), traits = Object.keys(start);
  const values = () => Object.fromEntries(traits.map((trait) => [trait, model.get(trait)]));
  const note = (address) =>
    history.replaceState({ ...history.state, [name]: values() }, "", address);
  const set = (given, kept) => {
    const good = Object.entries(given).filter(([trait, value]) => accepts(trait, value));
    save(model, { ...start, ...kept });
    setTraits(Object.fromEntries(good));
    return good;
  };
  const show = (given, kept) => {
    const good = set(given, kept);
    requestAnimationFrame(() => bringIntoView(root, good));
  };
  const anchor = () => (location.hash.includes(":") ? "" : location.hash);
  const write = () => {
    const { pathname, search, hash } = location;
    note(pathname + search + (writeAddress(hash, name, values(), start) || anchor()));
  };
  let timer = 0;
  const later = () => { clearTimeout(timer); timer = setTimeout(write, 250); };
  const noted = () => history.state?.[name];
  const named = () => readAddress(location.hash, name, start);
  const arrived = () => {
    if (noted()) { stay(); set(noted()); } else if (named()) show(named());
    if (!anchor()) return later();
    clearTimeout(timer);
    note();
  };
  const clicked = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const link = event.target.closest?.("a[href*='#']");
    const hash = link?.getAttribute("href").replace(/^[^#]*/, "");
    const given = hash && readAddress(hash, name, start);
    if (!given) return;
    event.preventDefault();
    const goes = model.address && location.hash !== hash;
    if (goes) {
      note();
      location.hash = hash;  // now: Firefox would follow the link, and note where, after the scroll
    }
    const chosen = Object.entries(values()).filter(([, at]) => Array.isArray(at) && isPlace(at));
    show(given, Object.fromEntries(chosen));
    if (goes) note();
    back.from(link);
  };
  document.addEventListener("click", clicked, true);
  if (!model.address) return () => document.removeEventListener("click", clicked, true);
  window.addEventListener("hashchange", arrived);
  for (const trait of traits) model.on(`change:${trait}`, later);
  if (noted() || named()) arrived();
  return () => {
    clearTimeout(timer);
    document.removeEventListener("click", clicked, true);
    window.removeEventListener("hashchange", arrived);
    for (const trait of traits) model.off(`change:${trait}`, later);
  };
}

// ---- The frame of every explorer ------------------------------------------------------------

// A widget made of two functions. build(model, { redraw, set }) makes, once for each view,
//   { controls: { trait: control }, parts: [nodes below the controls],
//     player: a node beside Reset,
//     arrange(form): the parts and the form of the controls, where it does not come first,
//     accept: { trait: (value) => boolean } for traits that have no control, reset(), release(),
//     derive(traits): the traits, and those that follow from them },
// the last six if need be. draw(model, view) paints the state, at most once a frame after a
// trait has changed or redraw() was called, and returns it in words for those who listen.
export function explorer({ build, draw }) {
  return { render: ({ model, el }) => show(model, el, build, draw) };
}

function show(model, el, build, draw) {
  const name = model.get("name"), start = model.get("start"), traits = Object.keys(start);
  const status = speaker();
  const redraw = oncePerFrame(() => status.say(draw(model, view)));
  const set = (values) => save(model, view.derive?.(values) ?? values);
  const view = build(model, { redraw, set });
  const { controls, player, accept = {}, parts } = view;
  const reset = button("Reset", () => { view.reset?.(); set(start); }, { class: "reset" });
  const boxes = Object.values(controls).map((control) => control.box);
  const buttons = player ? element("div", { class: "buttons" }, player, reset) : reset;
  const form = element("div", { class: "controls" }, ...boxes, buttons);
  const back = wayBack(), inOrder = view.arrange?.(form) ?? [form, ...parts];
  const root = element("div", { class: `acmix-explorer ${name}` }, ...inOrder, status.box, back.box);
  root.model = model;  // for the browser's console
  el.append(root);
  const accepts = (trait, value) => (accept[trait] ?? controls[trait]?.accept)?.(value) ?? false;
  const letGo = Object.entries(controls).map(([trait, control]) => bind(model, trait, control, set));
  for (const trait of traits) model.on(`change:${trait}`, redraw);
  letGo.push(followAddress(model, root, accepts, set, back), back.release);
  redraw();
  return () => {
    redraw.cancel();
    view.release?.();
    for (const release of letGo) release();
    for (const trait of traits) model.off(`change:${trait}`, redraw);
  };
}

// ---- Redrawing and speaking -----------------------------------------------------------------

// draw, at most once a frame however often it is asked for.
function oncePerFrame(draw) {
  let waiting = 0;
  const ask = () => {
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      draw();
    });
  };
  ask.cancel = () => cancelAnimationFrame(waiting);
  return ask;
}

// A line that says the state in words to those who listen, once it has settled.
function speaker() {
  const box = element("p", { class: "status", role: "status", "aria-live": "polite" });
  let timer = 0;
  const say = (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => (box.textContent = text), box.textContent ? 300 : 0);
  };
  return { box, say };
}
