// The attention explorer: whom one pixel attends to, in every head: in its window, in its tile or
// in the whole image. Stage I and the weights come from engine.js; here are the keys of a query.

import {
  aggregate, attentionWeights, channelsOf, entropyFraction, newMap, positionMap, project, reflect,
  scoresAt, softmax,
} from "./engine.js";
import {
  AMOUNT, IN_MEMORY, SIGNED, button, choice, clamp, colour, element, explorer, extent, figure,
  floats, headline, inkOn, intoMap, isCount, isInside, isPlace, later, mapView, memory, outline,
  pickable, plus, reach, scaleBar, slider, squareAt, steerable, toggle, tuple,
  written,
} from "./kit.js";

// ---- The mathematics ------------------------------------------------------------------------

// The keys of one query, by mode: a "window" around it; its "tile", as the map is cut from its
// corner (Swin); or the "whole image". A grid of rows × columns cells, `step` from cell to cell,
// with the place that each cell stands for and, past the border, the pixel that it is a mirror
// image of; `from` is the query's own cell.
function keysOf(query, { height, width }, { mode, kernel, dilation }) {
  const step = mode === "window" ? dilation : 1, half = ((kernel - 1) / 2) * step;
  const corner = query.map((n) =>
    ({ window: n - half, tile: n - (n % kernel), "whole image": 0 })[mode]);
  const [rows, columns] = [height, width].map((side, axis) => ({ window: kernel,
    tile: Math.min(kernel, side - corner[axis]), "whole image": side })[mode]);
  const from = query.map((n, axis) => (n - corner[axis]) / step);
  const places = Array.from({ length: rows * columns }, (_, t) =>
    [corner[0] + Math.floor(t / columns) * step, corner[1] + (t % columns) * step]);
  const pixels = places.map(([r, c]) => reflect(r, height) * width + reflect(c, width));
  const mirrored = places.map(([r, c]) => r < 0 || r >= height || c < 0 || c >= width);
  return { rows, columns, step, corner, from, places, pixels, mirrored };
}

// What falls on each pixel, added up: the weights of its copies or, if all are 1, how many.
function folded(weights, pixels, size) {
  const sums = new Float64Array(size).fill(NaN);
  pixels.forEach((pixel, t) => (sums[pixel] = (sums[pixel] || 0) + weights[t]));
  return sums;
}

// ---- From the model's traits to numbers -----------------------------------------------------

function readInputs(model) {
  const sizes = model.get("sizes"), places = model.get("places"), all = floats(model.get("layers"));
  const { channels, height, width } = sizes;
  const image = { data: floats(model.get("image")), channels, height, width };
  return { sizes, image, layer: (name) => ["weight", "bias"].map((part) =>
    all.subarray(...places[model.get("preset")][`${name}_${part}`])) };
}

// q / τ, k, v and pe, each computed again only when what it depends on changes.
function stage1(model, { sizes, image, layer, remember }) {
  const { height, width, d } = sizes, preset = model.get("preset");
  const [q, k, v] = ["conv1", "conv2", "conv3"].map((name) =>
    remember(name, preset, () => project(image, ...layer(name))));
  const full = remember("pe", preset, () => positionMap(height, width, ...layer("conv_p")));
  const none = remember("none", 0, () => newMap(d, height, width));
  const temperature = model.get("temperature");
  const cooled = remember("cooled", [preset, temperature], () =>
    ({ ...q, data: q.data.map((value) => value / temperature) }));
  return { q: cooled, k, v, pe: model.get("position") ? full : none,
    noPosition: layer("conv_p")[0].every((weight) => weight === 0) };
}

// The head's output, one channel. Where it is not known yet it comes right after the frame, which
// still shows the last one: a window's at once, else row by row, for over the whole image every
// pixel reads all others.
function outputOf(model, view, now) {
  const { sizes: { d }, remember, rest, redraw } = view, { v, mode, head } = now;
  const values = channelsOf(v, head * d + model.get("channel"), 1);
  const [q, k] = [now.q, now.k].map((map) => channelsOf(map, head * d, d));
  const traits = ["preset", "temperature", "position"].map((trait) => model.get(trait));
  const depends = [mode, now.kernel, now.dilation, head, model.get("channel"), ...traits];
  const compute = mode === "window" ? outputOfWindows : outputOfRow;
  const part = (n) => remember(`output ${n}`, depends, () => compute({ ...now, q, k }, values, n));
  const count = mode === "window" ? 1 : v.height;
  const late = !remember.has(`output ${count - 1}`, depends);
  if (late) rest.do(depends, count, part, redraw);
  else view.output = Float64Array.from(range(count).flatMap((n) => Array.from(part(n))));
  return { values, data: view.output ?? new Float64Array(v.height * v.width).fill(NaN), late };
}

const range = (count) => Array.from({ length: count }, (_, n) => n);

// The output of one head at every pixel.
function outputOfWindows({ q, k, pe, kernel, dilation }, values) {
  const window = { heads: 1, kernel, dilation, stride: 1 };
  return aggregate(attentionWeights(q, k, pe, window), values, window).data;
}

// And at the pixels of a row, each with the keys of its tile or with all.
function outputOfRow(now, values, row) {
  return range(values.width).map((column) => {
    const query = [row, column];
    const { pixels } = now.mode === "tile" ? keysOf(query, values, now) : now.keys;
    const weights = softmax(scoresAt(now, 1, query, pixels)[0]);
    return pixels.reduce((sum, n, t) => sum + weights[t] * values.data[n], 0);
  });
}

// All that is shown, for one query.
function computeView(model, view) {
  const { sizes } = view, pixel = view.hovered ?? model.get("pixel");
  const now = { ...stage1(model, view), pixel, mode: model.get("mode"),
    kernel: model.get("kernel_att"), dilation: model.get("dilation"), head: model.get("head") };
  const keys = keysOf(pixel, sizes, now), size = sizes.height * sizes.width;
  const scores = scoresAt(now, sizes.heads, pixel, keys.pixels), weights = scores.map(softmax);
  const key = plus(view.hoveredKey ?? model.get("key"), keys.from);
  const [row, column] = intoMap(key, [keys.rows, keys.columns]);
  const t = row * keys.columns + column, box = boxOf(keys);
  Object.assign(now, { keys, weights, scores: belowLargest(scores[now.head]),
    cell: [row, column], t, box,
    around: surroundings(box, sizes),
    keyPixel: [Math.floor(keys.pixels[t] / sizes.width), keys.pixels[t] % sizes.width],
    sums: weights.map((own) => folded(own, keys.pixels, size)),
    counts: folded(new Uint8Array(keys.pixels.length).fill(1), keys.pixels, size) });
  return Object.assign(now, outputOf(model, view, now));
}

// A softmax does not notice a constant: the largest score counts as 0.
function belowLargest(scores) {
  const largest = extent(scores)[1];
  return scores.map((score) => score - largest);
}

// Where the keys lie on the picture, and what of the picture is shown around it.
const boxOf = ({ corner, rows, columns, step }) =>
  ({ corner, rows: (rows - 1) * step + 1, columns: (columns - 1) * step + 1 });

function surroundings({ corner, rows, columns }, { height, width }) {
  const shown = { rows: Math.min(2 * rows + 1, height), columns: Math.min(2 * columns + 1, width) };
  const middle = [corner[0] + (rows - shown.rows) / 2, corner[1] + (columns - shown.columns) / 2];
  const last = [height - shown.rows, width - shown.columns];
  return { ...shown, corner: middle.map((n, axis) => clamp(Math.floor(n), 0, last[axis])) };
}

// Part of a map of pixels; outside the picture not a number.
const cutOut = (values, { corner, rows, columns }, { height, width }) =>
  new Float64Array(rows * columns).map((_, n) => {
    const [r, c] = [corner[0] + Math.floor(n / columns), corner[1] + (n % columns)];
    return r >= 0 && r < height && c >= 0 && c < width ? values[r * width + c] : NaN;
  });

// ---- The page -------------------------------------------------------------------------------

// A slider of powers of 2; the trait is rounded, for the address.
function temperatureSlider() {
  const inner = slider({ name: "temperature", label: "Temperature τ", min: -2, max: 2, step: 0.5,
    say: (power) => (2 ** power).toFixed(2) });
  return { ...inner, show: (value) => inner.show(Math.log2(value)),
    read: () => Number((2 ** inner.read()).toFixed(3)),
    accept: (value) => value >= 0.25 && value <= 4 };
}

function makeControls(model, { sizes }) {
  const presets = sizes.presets.map((name) => [name, name]);
  return {
    ...(presets.length > 1 && {
      preset: choice({ name: "preset", label: "Weights", options: presets }) }),
    mode: choice({ name: "mode", label: "Keys",
      options: [["window", "a window"], ["tile", "a tile (Swin)"],
        ["whole image", "the whole image"]] }),
    kernel_att: slider({ name: "kernel_att", label: "Window", min: 1, max: sizes.kernel_att,
      step: 2, say: (k) => `${k}×${k}` }),
    dilation: slider({ name: "dilation", label: "Dilation", min: 1, max: sizes.dilation,
      say: (n) => `${n} px` }),
    temperature: temperatureSlider(),
    channel: slider({ name: "channel", label: `Channel, 0 to ${sizes.d - 1}`, min: 0,
      max: sizes.d - 1 }),
    position: toggle({ name: "position", label: "Position term" }),
  };
}

function makeHeads({ sizes }, choose) {
  return Array.from({ length: sizes.heads }, (_, head) => {
    const name = button(`Head ${head}`, () => choose(head), { class: "pick" });
    const backdrop = element("canvas", { class: "backdrop", "aria-hidden": "true" });
    const map = Object.assign(mapView(`head${head}`, name), { name, backdrop });
    map.frame.prepend(backdrop);
    return map;
  });
}

const TITLES = { scores: "", cells: "→ Weights: softmax", v: "× Values v",
  output: "→ Average: output", counts: "How often each is read" };

function build(model, { redraw, set }) {
  const inputs = readInputs(model), { sizes } = inputs, { height, width } = sizes;
  const heads = makeHeads(inputs, (head) => set({ head }));
  const picture = mapView("picture", "The picture");
  const maps = Object.fromEntries(Object.entries(TITLES).map(([name, title]) =>
    [name, mapView(name, title)]));
  for (const name of ["scores", "cells", "counts"]) {
    maps[name].frame.append(element("div", { class: `numbers ${name}` }));
  }
  const where = headline(), scale = element("p", { class: "scale" });
  const legend = element("p", { class: "scale" });
  const boxes = (views) => views.map((map) => map.box);
  const looks = element("div", { class: "looks" }, element("div", { class: "query" }, picture.box),
    element("div", { class: "maps heads", "data-aim": "" }, ...boxes(heads)), legend);
  const steps = element("div", { class: "maps kernels", "data-aim": "head key" },
    ...boxes(Object.values(maps)), scale);
  const arrange = (form) => [looks, form, where, steps];
  const view = { ...inputs, controls: makeControls(model, inputs), arrange, heads, picture, maps,
    where, scale, legend, remember: memory(), rest: later(10), redraw };
  view.release = view.rest.stop;
  picture.photo(inputs.image);
  followPointer(model, view, { redraw, set });
  view.accept = { key: isPlace, head: isCount(sizes.heads), pixel: isInside([height, width]) };
  return view;
}

// The query is steered on the picture, the value and the output; the key wherever keys are shown.
function followPointer(model, view, { redraw, set }) {
  const { picture, heads, maps, sizes: { height, width } } = view;
  const hover = (pixel) => { view.hovered = pixel; redraw(); };
  const ask = (pixel) => {
    view.hovered = null;
    set({ pixel: intoMap(pixel, [height, width]) });
  };
  for (const map of [picture, maps.v, maps.output]) pickable(map, hover, ask);
  const look = (key) => { view.hoveredKey = key; redraw(); };
  const pin = (key, more) => { view.hoveredKey = null; set({ ...(key && { key }), ...more }); };
  const inCells = (at) => at.map((n, axis) => n - view.now.keys.from[axis]);
  const inside = (part) => (at) => keyAt(view.now, plus(at, view.now[part].corner));
  const shown = [[maps.scores, inCells], [maps.cells, inCells], [maps.counts, inside("box")],
    ...heads.map((head) => [head, inside("around")])];
  for (const [map, keyOf] of shown) {
    const more = heads.includes(map) && { head: heads.indexOf(map) };
    pickable(map, look, (key) => pin(key, more), keyOf);
  }
  steerable(picture, "Picture; arrow keys move the query", (step) =>
    ask(plus(model.get("pixel"), step)));
  steerable(maps.cells, "Weights; arrow keys choose a key", (step) => {
    view.hoveredKey = null;
    const { cell, keys } = computeView(model, view);
    const moved = intoMap(plus(cell, step), [keys.rows, keys.columns]);
    pin(moved.map((n, axis) => n - keys.from[axis]));
  });
}

// The key that reads a pixel, in steps from the query: the pixel itself before its mirror images;
// nothing where it is not read.
function keyAt({ keys, v }, [row, column]) {
  const direct = keys.places.findIndex(([r, c]) => r === row && c === column);
  const t = direct < 0 ? keys.pixels.indexOf(row * v.width + column) : direct;
  return t < 0 ? null : [Math.floor(t / keys.columns), t % keys.columns]
    .map((n, axis) => n - keys.from[axis]);
}

// ---- Drawing --------------------------------------------------------------------------------

const percent = (weight, digits = 3) => (weight > 0 && weight < 5e-6 ? "0.000"
  : Number((100 * weight).toPrecision(digits))) + "\u00a0%";

// Mark the window, the border, the query and the key on a map that begins at the pixel `corner`.
function mark(map, { box, pixel, keyPixel, v }, kinds, corner = [0, 0]) {
  const shapes = { attention: [box.corner, box.rows, box.columns],
    edge: [[0, 0], v.height, v.width], here: [pixel, 1, 1], key: [keyPixel, 1, 1] };
  outline(map, kinds.map((kind) => {
    const [[row, column], rows, columns] = shapes[kind];
    return { row: row - corner[0], column: column - corner[1], rows, columns, kind };
  }));
}

function drawHeads(view, now) {
  const { rows, columns, corner } = now.around, [top, left] = corner, count = now.keys.pixels.length;
  view.heads.forEach((map, n) => {
    const entropy = entropyFraction(now.weights[n]), end = extent(now.sums[n])[1];
    map.draw(cutOut(now.sums[n], now.around, view.sizes), rows, columns, 0, end, AMOUNT);
    Object.assign(map.backdrop, { width: columns, height: rows }).getContext("2d", IN_MEMORY)
      .drawImage(view.picture.canvas, left, top, columns, rows, 0, 0, columns, rows);
    mark(map, now, ["attention", "here", "key"], corner);
    map.say(`Head ${n}: whom ${tuple(now.pixel)} attends to; entropy ${figure(entropy)}`);
    map.note.replaceChildren(element("span", {}, `entropy ${entropy.toFixed(2)}, `),
      element("span", {}, `max ${percent(end, 2)}`),
      element("div", { class: "bar" }, element("span", { style: `flex-basis:${100 * entropy}%` })));
    map.name.setAttribute("aria-pressed", n === now.head);
    map.box.classList.toggle("chosen", n === now.head);
  });
  view.legend.replaceChildren("Weights, head by head, in the orange frame:",
    scaleBar(0, 1, AMOUNT, { say: (n) => (n ? "the head's largest" : "0") }),
    count > 1 ? `Entropy 1: all ${count} keys weigh the same; 0: one has all the weight.`
      : "Entropy 0: one key has all the weight.");
}

// Numbers on the cells of a map, where they are large enough to be read.
function writeNumbers(map, values, [low, high], columns, text) {
  const box = map.frame.querySelector(".numbers"), made = map.numbers ??= [];
  const wanted = columns > 7 ? [] : Array.from(values, (_, n) => (made[n] ??= element("span")));
  box.style.setProperty("--columns", columns);
  if (box.children.length !== wanted.length) box.replaceChildren(...wanted);
  wanted.forEach((span, n) => {
    span.style.color = inkOn(colour(values[n], low, high, AMOUNT));
    span.textContent = Number.isNaN(values[n]) ? "" : text(values[n]);
  });
}

// What each key has, cell by cell; mirror images are hatched, not through the number.
function drawKeys(map, { keys, cell }, values, ends, text) {
  map.draw(values, keys.rows, keys.columns, ...ends, AMOUNT);
  writeNumbers(map, values, ends, keys.columns, text);
  outline(map, [squareAt(keys.from, 1, "here"), squareAt(cell, 1, "key")]);
  const hatches = keys.mirrored.map((is, n) => (is
    ? `M${n % keys.columns} ${Math.floor(n / keys.columns) + 1}l.25-.25m.5-.5l.25-.25` : ""));
  map.overlay.prepend(element("path", { d: hatches.join(""), class: "mirrored" }));
}

// The scale of the scores is always the same: so one sees τ divide them.
const DARK = -5;

// At most three characters: tenths or whole numbers.
const shortScore = (score) => (score < -99.5 ? ""
  : written(score.toFixed(score > -0.95 ? 1 : 0)).replace("0.", ".").replace(/^−?\.0$/, "0"));

function drawScores(model, view, now) {
  const { scores: map } = view.maps, { scores, keys, t } = now, tau = model.get("temperature");
  const divided = tau === 1 ? "" : ` ÷ ${Number(tau.toFixed(2))}`;
  const key = model.get("position") && !now.noPosition ? "(k − pe)" : "k";
  drawKeys(map, now, scores, [DARK, 0], shortScore);
  map.title.textContent = `Scores q·${key}/√d${divided}`;
  map.say(`Scores of head ${now.head}, ${keys.rows} by ${keys.columns}`,
    scaleBar(DARK, 0, AMOUNT, { say: (n) => (n ? `≤ ${written(n)}` : "0") }),
    `key ${tuple(keys.places[t])}: ${divided && `${figure(scores[t] * tau)}${divided} = `}`
    + figure(scores[t]));
}

function drawCells(view, now) {
  const { cells } = view.maps, { keys, t } = now, own = now.weights[now.head];
  const copy = tuple(now.keyPixel), at = tuple(keys.places[t]), most = extent(own)[1];
  drawKeys(cells, now, own, [0, most], (value) => (100 * value).toFixed(0));
  cells.say(`Weights of head ${now.head}, ${keys.rows} by ${keys.columns}`,
    scaleBar(0, most, AMOUNT, { say: (weight) => percent(weight, 2) }),
    `${keys.mirrored[t] ? `${at}, a mirror image of ${copy}` : `key ${at}`}: ${percent(own[t])}`);
}

function drawCounts(view, now) {
  const { maps: { counts }, sizes } = view, { box, keyPixel } = now;
  const end = Math.max(4, extent(now.counts)[1]), own = now.weights[now.head][now.t];
  const n = keyPixel[0] * sizes.width + keyPixel[1], copies = now.counts[n];
  const values = cutOut(now.counts, box, sizes);
  counts.draw(values, box.rows, box.columns, 0, end, AMOUNT);
  writeNumbers(counts, values, [0, end], box.columns, String);
  mark(counts, now, ["edge", "here", "key"], box.corner);
  counts.say("How often each pixel is read", scaleBar(0, end, AMOUNT, { say: String }), `${tuple(keyPixel)} is read ${copies === 1 ? "once"
    : `${copies} times: ${copies} × ${percent(own)} = ${percent(now.sums[now.head][n])}`}`);
}

function drawValues(view, now) {
  const { maps: { v, output }, sizes: { height, width } } = view, end = reach(now.values.data);
  const at = ([row, column]) => row * width + column, { pixel, keyPixel, head } = now;
  output.box.setAttribute("aria-busy", now.late);
  v.draw(now.values.data, height, width, -end, end, SIGNED);
  output.draw(now.data, height, width, -end, end, SIGNED);
  mark(v, now, ["attention", "here", "key"]);
  mark(output, now, ["here"]);
  v.say(`The values of head ${head}`, scaleBar(-end, end, SIGNED),
    `${tuple(keyPixel)} has ${figure(now.values.data[at(keyPixel)])}`);
  output.say(`The output of head ${head}`, scaleBar(-end, end, SIGNED),
    `${tuple(pixel)} gets ${figure(now.data[at(pixel)])}`);
}

function draw(model, view) {
  const now = view.now = computeView(model, view), { keys, pixel, head } = now;
  const different = new Set(keys.pixels).size;
  drawHeads(view, now);
  drawScores(model, view, now);
  drawCells(view, now);
  drawCounts(view, now);
  drawValues(view, now);
  const count = keys.pixels.length, isTwice = different < count;
  view.maps.counts.box.hidden = !isTwice;
  view.controls.kernel_att.input.disabled = now.mode === "whole image";
  view.controls.dilation.input.disabled = now.mode !== "window";
  const { input, box } = view.controls.position;
  input.disabled = box.hidden = now.noPosition;  // there is none to leave out
  mark(view.picture, now, ["attention", "here", "key"]);
  view.picture.say(`The picture; pixel ${tuple(pixel)} asks`,
    `Black: query ${tuple(pixel)}. Magenta: key ${tuple(now.keyPixel)}.`);
  view.where.textContent = `Head ${head} at ${tuple(pixel)}: ${count} ${count > 1 ? "keys" : "key"}`
    + (isTwice ? `, ${different} different pixels` : "");
  view.scale.textContent = "The largest score counts as 0"
    + `${extent(now.scores)[0] < -99.5 ? "; scores below −99 are not printed" : ""}. Weights are in %. `
    + (keys.mirrored.includes(true) ? "Hatched: mirror images past the border. " : "")
    + `Values and output: channel ${model.get("channel")}, on one scale.`;
  const spread = now.weights.map((own) => figure(entropyFraction(own))).join(", ");
  return `${tuple(pixel)} asks; entropy of the heads ${spread}. ${view.where.textContent}.`;
}

export default explorer({ build, draw });
