// The shift explorer: a map is moved by dragging it, or the window that reads it. What leaves and
// what enters is hatched, and two shifts in a row are held against one.

import {
  AMOUNT, SIGNED, choice, clamp, colour, element, explorer, extent, figure, floats, intoMap,
  inkOn, isInside, mapView, outline, plus, precise, reach, scaleBar, slider, steerable, toggle,
  tuple, written,
} from "./kit.js";

const MOST = 8;
const MOVES = [["dx", "dy"], ["dx2", "dy2"]];
const ZERO = -1, BLANK = -2;  // where no pixel is read

// ---- The mathematics ------------------------------------------------------------------------
// A place and a displacement are [rows, columns].

const opposite = (delta) => delta.map((n) => -n || 0);
const inside = ({ height, width }, [row, column]) =>
  row >= 0 && row < height && column >= 0 && column < width;

// The place that is read for a place outside: none, or that on the other side.
function landing(map, place, border) {
  if (border !== "roll") return place;
  return place.map((n, axis) => {
    const side = axis ? map.width : map.height;
    return ((n % side) + side) % side;
  });
}

// The pixel's number in its channel; ZERO outside.
function pixelAt(map, place, border) {
  const [row, column] = landing(map, place, border);
  return inside(map, [row, column]) ? row * map.width + column : ZERO;
}

// f̃(i, j) = f(i + Δx, j + Δy), equation 4; "roll" takes from the other side what is not there.
function moved(map, delta, border) {
  const size = map.height * map.width, data = new Float32Array(map.data.length);
  for (let n = 0; n < size; n++) {
    const at = pixelAt(map, plus(placeOf(n, map.width), delta), border);
    if (at === ZERO) continue;
    for (let c = 0; c < map.data.length; c += size) data[c + n] = map.data[c + at];
  }
  return { ...map, data };
}

const placeOf = (n, width) => [Math.floor(n / width), n % width];

// The places at which two maps differ, in any channel.
function differing(a, b) {
  const size = a.height * a.width, places = new Set();
  a.data.forEach((value, n) => { if (value !== b.data[n]) places.add(n % size); });
  return [...places].map((n) => placeOf(n, a.width));
}

// What stands in each cell of a panel, which shows a map and a margin around it: the number of the
// map's pixel, ZERO or BLANK; and which cells hold what enters and what leaves. A panel shows the
// map at rest and the window moved (`byReading`), or the window at rest and the map moved.
function panelCells(map, delta, border, margin, byReading) {
  const rows = map.height + 2 * margin, columns = map.width + 2 * margin;
  const at = new Int32Array(rows * columns).fill(BLANK), enters = [], leaves = [];
  for (let n = 0; n < at.length; n++) {
    const cell = placeOf(n, columns), place = cell.map((m) => m - margin);
    const target = byReading ? plus(place, opposite(delta)) : place, read = plus(target, delta);
    const isWritten = inside(map, target), isThere = inside(map, read);
    if (isWritten || isThere) at[n] = pixelAt(map, read, border);
    if (isWritten && !isThere) enters.push(cell);
    if (isThere && !isWritten) leaves.push(cell);
  }
  return { rows, columns, at, enters, leaves };
}

// A displacement, no further than the map's side: beyond it there are only zeros.
const mostOf = ({ height, width }) => [height, width].map((side) => Math.min(side, MOST));
const held = (map, delta) =>
  mostOf(map).map((most, axis) => clamp(delta[axis], -most, most));

// What goes further than the margin leaves the panel.
const marginOf = ({ height, width }) =>
  clamp(Math.ceil(Math.max(height, width) / 4), 2, MOST);

// ---- From the model's traits to maps --------------------------------------------------------

function readMaps(model) {
  const all = floats(model.get("values")), maps = {};
  let first = 0;
  for (const [name, [channels, height, width]] of model.get("sizes")) {
    const data = all.subarray(first, first += channels * height * width);
    maps[name] = { data, channels, height, width, ...appearance(data, channels) };
  }
  return maps;
}

// How a map is drawn: the colour of a pixel, its scale, and whether numbers fit into the
// cells. Three channels from 0 to 1 are a picture, of others the first channel is drawn.
function appearance(data, channels) {
  const size = data.length / channels, [least, most] = extent(data);
  if (channels === 3 && least >= 0 && most <= 1) {
    return { size, drawn: 3, scale: ["The picture's own colours; zero is black."],
      shade: (values, n) => [0, 1, 2, 3].map((c) =>
        (c === 3 ? 255 : n === ZERO ? 0 : Math.round(255 * values[c * size + n]))) };
  }
  const first = data.subarray(0, size), end = reach(first), signed = extent(first)[0] < 0;
  const numbers = size <= 100 && first.every((value) => written(value).length <= 3);
  const [low, stops] = signed ? [-end, SIGNED] : [0, AMOUNT];
  return { size, drawn: 1, numbers,
    scale: [channels > 1 ? `channel 0 of ${channels}: ` : "",
      scaleBar(low, end, stops, { say: numbers ? written : precise })],
    shade: (values, n) => colour(n === ZERO ? 0 : values[n], low, end, stops) };
}

const many = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

// ---- The page -------------------------------------------------------------------------------

// The panels by name: the displacement that a drag changes, and whether it moves the window.
const PANELS = {
  f: { drags: ["dx", "dy"], byReading: true },
  first: { drags: ["dx", "dy"] },
  second: { drags: ["dx2", "dy2"] },
  once: { drags: [] },
};

function controlsOf(sizes) {
  const along = (name, label, back, forth) => slider({ name, label, min: -MOST, max: MOST,
    say: (n) => (n > 0 ? `+${n}, ${back}` : n < 0 ? `${written(n)}, ${forth}` : "0, stays") });
  const kinds = { numbers: "numbers", flower: "flower", own: "your map" };
  return {
    dx: along("dx", "Δx, rows", "up", "down"),
    dy: along("dy", "Δy, columns", "left", "right"),
    border: choice({ name: "border", label: "What enters",
      options: [["zeros", "zeros: Shift"], ["roll", "other side: roll"]] }),
    map: choice({ name: "map", label: "Map", options: sizes.map(
      ([name, [, height, width]]) => [name, `${kinds[name]}, ${height}×${width}`]) }),
    twice: toggle({ name: "twice", label: "second shift" }),
    memory: toggle({ name: "memory", label: "memory" }),
    dx2: along("dx2", "second Δx", "up", "down"),
    dy2: along("dy2", "second Δy", "left", "right"),
  };
}

function build(model, { redraw, set }) {
  const maps = readMaps(model), controls = controlsOf(model.get("sizes"));
  const panels = Object.fromEntries(Object.keys(PANELS).map((name) => [name, mapView(name)]));
  const boxes = element("div", { class: "maps" }, ...Object.values(panels).map(({ box }) => box));
  const [reading, verdict, legend, cost] = ["reading", "verdict", "legend", "cost"].map((name) =>
    element("p", { class: name }));
  const view = { controls, maps, panels, boxes, reading, verdict, legend, cost,
    parts: [boxes, reading, verdict, legend, cost] };
  const hover = (pixel) => { view.hovered = pixel; redraw(); };
  const pin = (pixel) => { hover(null); if (pixel) set({ pixel }); };
  for (const [name, { drags, byReading }] of Object.entries(PANELS)) {
    const panel = panels[name];
    const start = () => held(view.map, drags.map((trait) => model.get(trait)));
    const move = (from, by) => {
      const to = held(view.map, plus(from, byReading ? by : opposite(by)));
      set(Object.fromEntries(drags.map((trait, axis) => [trait, to[axis]])));
    };
    const pixel = (place) => resultOf(model, view.map, name, place);
    panel.grip = element("div", { class: drags.length ? "grip drag" : "grip" });
    panel.frame.append(panel.grip);
    dragged(panel, { start, move, leave: () => hover(null), hover: (at) => hover(pixel(at)),
      pin: (at) => pin(pixel(at)) });
    const label = `Arrow keys move the ${byReading ? "window" : "picture"}`;
    if (drags.length) steerable(panel, label, (by) => move(start(), by));
  }
  steerable({ frame: reading }, "", (by) => {
    const { height, width } = view.map;
    pin(intoMap(plus(pixelOf(model, view.map), by), [height, width]));
  });
  view.accept = { pixel: isInside([Infinity, Infinity]) };
  return view;
}

// Call move(start(), [rows, columns]) while the pointer drags, hover(place) while a mouse is over
// the map, and pin(place) after a click or a tap that did not drag.
function dragged({ grip, canvas }, { start, move, hover, leave, pin }) {
  let drag = null;
  const cells = (x, y) => {
    const side = canvas.getBoundingClientRect().width / canvas.width;
    return [y / side, x / side];
  };
  const under = ({ clientX, clientY }) => {
    const { left, top } = grip.getBoundingClientRect();
    return cells(clientX - left, clientY - top).map(Math.floor);
  };
  const on = (event, react) => grip.addEventListener(event, react);
  on("pointerdown", ({ button, pointerId, clientX, clientY }) => {
    if (button !== 0) return;
    drag = { x: clientX, y: clientY, from: start(), far: false };
    grip.setPointerCapture(pointerId);
  });
  on("pointermove", (event) => {
    if (!drag) return event.pointerType === "mouse" && hover(under(event));
    const [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
    drag.far ||= Math.hypot(x, y) > 5;
    if (drag.far) move(drag.from, cells(x, y).map(Math.round));
  });
  on("pointerup", (event) => {
    if (drag && !drag.far) pin(under(event));
    drag = null;
  });
  on("pointercancel", () => (drag = null));
  on("pointerleave", leave);
}

// ---- What is read where ---------------------------------------------------------------------

const deltas = (model, map) =>
  MOVES.map((traits) => held(map, traits.map((trait) => model.get(trait))));

// The chosen pixel; one beyond the map means its last.
function pixelOf(model, { height, width }) {
  const [row, column] = model.get("pixel");
  return [Math.min(row, height - 1), Math.min(column, width - 1)];
}

// The pixel of the last result that reads this place of a panel; null if none does.
function resultOf(model, map, panel, place) {
  const [a, b] = deltas(model, map), border = model.get("border");
  const after = model.get("twice") ? { f: plus(a, b), first: b } : { f: a };
  const pixel = landing(map, plus(place, opposite(after[panel] ?? [0, 0])), border);
  return inside(map, pixel) ? pixel : null;
}

// On each panel, the place of the map at rest from which a pixel of the last result comes.
function origins({ f, a, b, twice, border }, pixel) {
  const first = twice ? landing(f, plus(pixel, b), border) : pixel;
  return { f: landing(f, plus(first, a), border), first, second: pixel, once: pixel };
}

// ---- Drawing --------------------------------------------------------------------------------

// All that the state shows, as maps and panels.
function scene(model, view) {
  const f = view.map = view.maps[model.get("map")], border = model.get("border");
  const [a, b] = deltas(model, f), twice = model.get("twice"), sum = plus(a, b);
  const margin = marginOf(f), first = moved(f, a, border);
  const rivals = twice ? [moved(first, b, border), moved(f, sum, border)]
    : [first, moved(f, a, "zeros")];
  const cells = (map, delta, byReading) => ({ map, delta, byReading,
    ...panelCells(map, delta, border, margin, byReading) });
  const panels = { f: cells(f, a, true), first: cells(f, a),
    ...(twice && { second: cells(first, b), once: cells(f, sum) }) };
  return { f, a, b, sum, border, twice, margin, panels, differs: differing(...rivals),
    name: border === "roll" ? "roll" : "Shift" };
}

// One path of all cells' squares, or of a stroke through each of them.
const pathOf = (cells, shape) => cells.map(([row, column]) => shape(column, row)).join("");
const square = (x, y) => `M${x} ${y}h1v1h-1z`;
const rising = (x, y) => `M${x} ${y + 1}l1 -1`;
const falling = (x, y) => `M${x} ${y}l1 1`;

// The border of a set of cells: every side that only one of two neighbours has.
function contour(cells) {
  const has = new Set(cells.map(String)), lines = [];
  for (const [row, column] of cells) {
    if (!has.has(`${row - 1},${column}`)) lines.push(`M${column} ${row}h1`);
    if (!has.has(`${row + 1},${column}`)) lines.push(`M${column} ${row + 1}h1`);
    if (!has.has(`${row},${column - 1}`)) lines.push(`M${column} ${row}v1`);
    if (!has.has(`${row},${column + 1}`)) lines.push(`M${column + 1} ${row}v1`);
  }
  return lines.join("");
}

function drawNothing(view) {
  view.paint(1, 1, () => [0, 0, 0, 0]);
  view.overlay.replaceChildren();
  view.grip.removeAttribute("style");
  view.box.hidden = true;
}

function drawPanel(view, cells, margin, pixel, differs) {
  const { map, rows, columns, at, enters, leaves, delta, byReading } = cells;
  const { data, shade, numbers, height, width } = map;
  const colours = [...at].map((n) => (n === BLANK ? [0, 0, 0, 0] : shade(data, n)));
  view.paint(rows, columns, (n) => colours[n]);
  view.box.hidden = false;
  view.grip.style.inset = `${(100 * margin) / rows}% ${(100 * margin) / columns}%`;
  const frame = (place, kind) => ({ row: place[0], column: place[1], rows: height, columns: width,
    kind });
  const rest = [margin, margin], away = plus(rest, byReading ? delta : opposite(delta));
  const [still, other] = byReading ? ["picture", "window"] : ["window", "picture"];
  const here = { ...frame(plus(rest, pixel), "here"), rows: 1, columns: 1 };
  outline(view, [frame(rest, still), frame(away, `${other} away`), here]);
  const path = (kind, d) => (d ? [element("path", { class: kind, d })] : []);
  view.overlay.prepend(...path("faded", pathOf(leaves, square)),
    ...path("leaves", pathOf(leaves, rising)),
    ...path("enters", pathOf(enters, falling)),
    ...(numbers ? digits(data, at, columns, colours, leaves) : []));
  view.overlay.append(...path("differs", contour(differs.map((place) => plus(place, rest)))),
    ...path(`way ${other}`, arrow(rest, away, rows / 22)));
}

// The numbers of a small map, dark on light and light on dark.
function digits(data, at, columns, colours, leaves) {
  const faded = new Set(leaves.map(([row, column]) => row * columns + column));
  return [...at].flatMap((n, cell) => {
    if (n === BLANK) return [];
    const text = written(n === ZERO ? 0 : data[n]), [row, column] = placeOf(cell, columns);
    const ink = faded.has(cell) ? "currentColor" : inkOn(colours[cell]);
    return [element("text", { x: column + 0.5, y: row + 0.5, dy: "0.36em", fill: ink,
      class: `long${text.length}` }, text)];
  });
}

// From one corner to another, with a head of this size.
function arrow([row, column], [toRow, toColumn], size) {
  const [down, right] = [toRow - row, toColumn - column], length = Math.hypot(down, right);
  if (!length) return "";
  const [y, x] = [(size * down) / length, (size * right) / length];
  return `M${column} ${row}L${toColumn} ${toRow}l${-x - y / 2} ${-y + x / 2}m${x + y / 2} `
    + `${y - x / 2}l${-x + y / 2} ${-y - x / 2}`;
}

// torch.roll takes the displacement of the picture, Shift that of the window.
const givenTo = (name, delta) => (name === "roll" ? opposite(delta) : delta);

function drawPanels({ panels: views, controls, boxes }, now, here) {
  const { panels, twice, differs, margin, name, a, b, sum } = now;
  const call = (delta) => tuple(["f", ...givenTo(name, delta)]);
  const titles = { f: "f and the window", first: `f̃ = ${name}${call(a)}`,
    second: `then ${name}${call(b).replace("f", "f̃")}`, once: `at once: ${name}${call(sum)}` };
  const notes = { f: `Drag the window: it moves by ${tuple(a)}.`,
    first: `Drag the picture: it moves by ${tuple(opposite(a))}.`,
    second: `Drag it: it moves by ${tuple(opposite(b))}.`,
    once: `It moves by ${tuple(opposite(sum))}.` };
  for (const [panel, view] of Object.entries(views)) {
    const outlined = panel === "f" || (twice && panel === "first") ? [] : differs;
    if (panels[panel]) drawPanel(view, panels[panel], margin, here[panel], outlined);
    else drawNothing(view);
    view.title.textContent = titles[panel];
    view.say(titles[panel], notes[panel]);
  }
  for (const trait of ["dx2", "dy2"]) controls[trait].box.hidden = !twice;
  boxes.classList.toggle("twice", twice);
}

// Each goes as far as the map does.
function drawSliders({ controls }, { f, a, b }) {
  MOVES.flat().forEach((trait, n) => {
    const { input, show } = controls[trait], most = mostOf(f)[n % 2];
    Object.assign(input, { min: -most, max: most });
    show([...a, ...b][n]);
  });
}

function valueAt(map, place) {
  if (!inside(map, place)) return "outside, so 0";
  const n = pixelAt(map, place, "zeros"), digits = map.numbers ? written : figure;
  return Array.from({ length: map.drawn }, (_, c) => digits(map.data[c * map.size + n])).join(", ");
}

// "f(1 + 2, 0 − 1) = f(3, −1): outside, so 0"
function readingAt(name, map, place, delta, border) {
  const far = plus(place, delta), landed = landing(map, far, border);
  const terms = place.map((n, axis) =>
    `${n} ${delta[axis] < 0 ? "−" : "+"} ${Math.abs(delta[axis])}`);
  const wraps = String(far) === String(landed) ? "" : ` → ${name}${tuple(landed)}`;
  return `${name}(${terms.join(", ")}) = ${name}${tuple(far)}${wraps}: ${valueAt(map, landed)}`;
}

// The reading of the chosen pixel, step by step.
function readingOf({ f, a, b, sum, twice, border, panels }, pixel, between) {
  const at = `Pixel ${tuple(pixel)} reads`;
  if (!twice) return `${at} ${readingAt("f", f, pixel, a, border)}.`;
  const which = inside(f, between) ? `, which reads ${readingAt("f", f, between, a, border)}` : "";
  return `${at} ${readingAt("f̃", panels.second.map, pixel, b, border)}${which}. At once: `
    + `${readingAt("f", f, pixel, sum, border)}.`;
}

// What is lost or brought back, in words.
function verdictOf({ f, twice, border, differs, panels }) {
  const gone = panels.first.enters.length, outlined = differs.length;
  const count = `${outlined} of ${many(f.size, "pixel")} ${outlined === 1 ? "differs" : "differ"}`;
  if (twice) {
    const never = new Set(panels.once.enters.map(String));
    const lost = panels.second.enters.filter((cell) => !never.has(String(cell))).length;
    return `${count} from one ${border === "roll" ? "roll" : "shift"} by the sum: ${
      border === "roll" ? "a roll loses nothing"
      : outlined ? "they left in the first shift, and what left never comes back"
      : lost ? `${many(lost, "pixel")} left and would have come back, but held only zeros`
      : "nothing that left would have come back"}.`;
  }
  if (border === "zeros") return `${gone} of ${many(f.size, "pixel")} leave; as many zeros enter.`;
  return `${count} from the shift: ${outlined ? "what left comes in on the other side"
    : gone ? "what left and came in again held only zeros" : "nothing left"}.`;
}

// The values that one shift, and the nine of a 3×3 convolution, read and write.
function costOf({ f, a, border, name, panels }) {
  const { channels, height, width, size } = f, all = channels * size;
  const say = (n) => n.toLocaleString("en");
  const [read, read9] = border === "roll" ? [all, 9 * all]
    : [all - channels * panels.first.enters.length, channels * (3 * height - 2) * (3 * width - 2)];
  return `Memory: ${name} by ${tuple(givenTo(name, a))} reads ${say(read)} values and writes `
    + `${say(all)}. The nine of a 3×3 convolution read ${say(read9)} and write ${say(9 * all)}, `
    + `${say(4 * (read9 + 9 * all))} bytes, and multiply nothing.`;
}

function drawLegend(view, { f, twice, border }) {
  const key = (kind, text) => [element("span", { class: "key" },
    element("span", { class: `swatch ${kind}` }), ` ${text}`), " "];
  view.legend.replaceChildren(...key("picture", "picture f"), ...key("window", "window"),
    ...key("leaves", "leaves"), ...key("enters", "enters"),
    ...(twice || border === "roll" ? key("differs", "differs") : []), ...f.scale);
}

function draw(model, view) {
  const now = scene(model, view), pixel = view.hovered ?? pixelOf(model, now.f);
  const here = origins(now, pixel);
  drawSliders(view, now);
  drawPanels(view, now, here);
  view.reading.textContent = readingOf(now, pixel, here.first);
  view.reading.setAttribute("aria-label", `${view.reading.textContent} Arrow keys choose it`);
  view.verdict.textContent = verdictOf(now);
  view.cost.hidden = !model.get("memory");
  view.cost.textContent = costOf(now);
  drawLegend(view, now);
  const given = [now.a, now.b].map((delta) => tuple(givenTo(now.name, delta)));
  const second = now.twice ? `, then by ${given[1]}` : "";
  return `${now.name} by ${given[0]}${second}. ${view.verdict.textContent}`;
}

export default explorer({ build, draw });
