// The parts that every explorer shares: controls, maps on canvases, picking, redrawing.

// ---- Elements and controls ------------------------------------------------------------------

// element("p", { class: "note" }, "text", child): a DOM element with attributes and children.
export function element(tag, attributes = {}, ...children) {
  const svg = ["svg", "rect", "path"].includes(tag);
  const node = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Without this attribute JupyterLab takes the arrow keys away from an input.
const KEEP_KEYS = { "data-lm-suppress-shortcuts": "true" };

// A labelled native slider; `say(value)` writes the value with its unit.
export function slider({ name, label, min, max, step, say }) {
  const input = element("input", { type: "range", name, min, max, step, ...KEEP_KEYS });
  const value = element("span", { class: "value", "aria-hidden": "true" });
  const box = element("label", { class: "control" }, element("span", {}, label), value, input);
  const show = (number) => {
    if (Number(input.value) !== number) input.value = number;
    value.textContent = say(number);
    input.setAttribute("aria-valuetext", say(number));
  };
  return { box, input, show, read: () => Number(input.value) };
}

// A labelled native list; `options` are [value, text] with whole numbers as values.
export function choice({ name, label, options }) {
  const items = options.map(([value, text]) => element("option", { value }, text));
  const input = element("select", { name, ...KEEP_KEYS }, ...items);
  const box = element("label", { class: "control" }, element("span", {}, label), input);
  return { box, input, show: (number) => (input.value = number), read: () => Number(input.value) };
}

// Keep a control and a trait of the model equal; returns how to let go.
export function bind(model, trait, control) {
  const show = () => control.show(model.get(trait));
  const send = () => save(model, { [trait]: control.read() });
  control.input.addEventListener("input", send);
  model.on(`change:${trait}`, show);
  show();
  return () => model.off(`change:${trait}`, show);
}

// Set traits and tell Python, where there is one.
export function save(model, traits) {
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

// Remember each stage until the values it depends on change.
export function memory() {
  const kept = {};
  return (stage, dependsOn, compute) => {
    const key = JSON.stringify(dependsOn);
    if (kept[stage]?.key !== key) kept[stage] = { key, value: compute() };
    return kept[stage].value;
  };
}

// A number for a reader: about three digits, a true minus sign.
export function figure(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const text = size === 0 || size >= 0.001 ? value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3)
    : value.toExponential(1);
  return text.replace("-", "−").replace("e-", "e−").replace("−0.000", "0.000");
}

// [smallest, largest], leaving out what is not a number.
export function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
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
  const place = Math.min(Math.max((value - low) / (high - low), 0), 1) * (stops.length - 1);
  const stop = Math.min(Math.floor(place), stops.length - 2), part = place - stop;
  const [from, to] = [stops[stop], stops[stop + 1]];
  const level = (n) => Math.round(from[n] + part * (to[n] - from[n]));
  return [level(0), level(1), level(2), 255];
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
  view.paint = (rows, columns, rgba) => paint(view, rows, columns, rgba);
  view.draw = (values, rows, columns, low, high, stops) =>
    paint(view, rows, columns, (n) => colour(values[n], low, high, stops));
  view.say = (label, text) => {
    canvas.setAttribute("aria-label", label);
    if (text !== undefined) note.textContent = text;
  };
  return view;
}

function paint(view, rows, columns, rgba) {
  const { canvas, overlay } = view;
  if (view.rows !== rows || view.columns !== columns) {
    Object.assign(view, { rows, columns });
    Object.assign(canvas, { width: columns, height: rows });
    overlay.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
    view.frame.style.aspectRatio = `${columns} / ${rows}`;
  }
  const pixels = new ImageData(columns, rows);
  for (let n = 0; n < rows * columns; n++) {
    const levels = rgba(n);
    for (let c = 0; c < 4; c++) pixels.data[4 * n + c] = levels[c];
  }
  // In the processor's memory: these are small, and often read back.
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(pixels, 0, 0);
}

// Outline cells of a map: each shape is { row, column, rows, columns, kind }, kind a CSS class.
export function outline(view, shapes) {
  view.overlay.replaceChildren(...shapes.flatMap(({ row, column, rows, columns, kind }) => {
    const place = { x: column, y: row, width: columns, height: rows };
    return ["halo", kind].map((name) => element("rect", { ...place, class: name }));
  }));
}

// ---- Picking --------------------------------------------------------------------------------

// Call hover(row, column) while a mouse is over the map, leave() when it goes, and pin(row, column)
// on a click or a tap.
export function pickable(view, { hover, leave, pin }) {
  const cell = (event) => {
    const { left, top, width, height } = view.canvas.getBoundingClientRect();
    const at = (part, cells) => Math.min(Math.max(Math.floor(part * cells), 0), cells - 1);
    const [down, right] = [(event.clientY - top) / height, (event.clientX - left) / width];
    return [at(down, view.rows), at(right, view.columns)];
  };
  view.frame.classList.add("pickable");
  view.frame.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse") hover(...cell(event));
  });
  view.frame.addEventListener("pointerleave", leave);
  view.frame.addEventListener("click", (event) => pin(...cell(event)));
}

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

// Make a map a tab stop where the arrow keys call move(rows, columns); with shift, five at a time.
export function steerable(view, label, move) {
  const attributes = { tabindex: 0, role: "application", "aria-label": label, ...KEEP_KEYS };
  for (const [name, value] of Object.entries(attributes)) view.frame.setAttribute(name, value);
  view.frame.addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    move(...step.map((cells) => cells * (event.shiftKey ? 5 : 1)));
  });
}

// ---- Redrawing and speaking -----------------------------------------------------------------

// draw, at most once a frame however often it is asked for.
export function oncePerFrame(draw) {
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
export function speaker() {
  const box = element("p", { class: "status", role: "status", "aria-live": "polite" });
  let timer = 0;
  const say = (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => (box.textContent = text), box.textContent ? 300 : 0);
  };
  return { box, say };
}
