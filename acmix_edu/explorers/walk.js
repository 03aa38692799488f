// The walk explorer: the forward pass of an ACmix, step by step. The steps, their symbols, shapes
// and lines of code come from Python's table; the maps are computed here, with engine.js.

import { acmix, reflect, windowPixels } from "./engine.js";
import {
  AMOUNT, NOTHING, SIGNED, button, clamp, element, explorer, extent, figure, floats, headline,
  intoMap, isInside, isPlace, mapView, outline, pickable, player, plus, reach, scaleBar,
  slider, squareAt, steerable, tuple,
} from "./kit.js";

// ---- The mathematics ------------------------------------------------------------------------

// All stages of the module, and what the maps between them are made from.
function forwardPass(x, weights, sizes) {
  const { heads, kernelAtt, dilation, stride } = sizes;
  const window = { kernel: kernelAtt, dilation, stride };
  const made = acmix(x, weights, sizes), { channels, height, width } = made.q;
  return { ...made, x, weights, sizes, height, width, heads, d: channels / heads, stride,
    rim: dilation * (kernelAtt - 1) / 2, taps: kernelAtt ** 2, lightTaps: sizes.kernelConv ** 2,
    read: windowPixels(height, width, window), outHeight: made.out.height,
    outWidth: made.out.width };
}

const plane = ({ data, height, width }, c) => data.subarray(c * height * width,
  (c + 1) * height * width);

// A channel with `rim` mirrored pixels on each side.
function mirrored(values, height, width, rim) {
  const columns = width + 2 * rim;
  return Float32Array.from({ length: (height + 2 * rim) * columns }, (_, n) => {
    const row = reflect(Math.floor(n / columns) - rim, height);
    return values[row * width + reflect((n % columns) - rim, width)];
  });
}

// Where the query of output pixel n stands in the map.
const centreOf = ({ width, outWidth, stride }, n) =>
  Math.floor(n / outWidth) * stride * width + (n % outWidth) * stride;

// ℓ_o at output pixel n, with both position terms.
function logit(pass, head, n, o) {
  const { q, k, pe, d, height, width } = pass, size = height * width;
  const here = centreOf(pass, n), there = pass.read[n * pass.taps + o];
  let sum = 0;
  for (let e = 0; e < d; e++) {
    const c = (head * d + e) * size, p = e * size;
    sum += q.data[c + here] * (k.data[c + there] + pe.data[p + here] - pe.data[p + there]);
  }
  return sum / Math.sqrt(d);
}

// Map t of the light layer, dimension e, at place n of the map.
function light({ q, k, v, weights, heads, d, height, width }, e, t, n) {
  let sum = 0;
  for (let m = 0; m < 3 * heads; m++) {
    const piece = [q, k, v][Math.floor(m / heads)].data;
    sum += weights.fc[t * 3 * heads + m] * piece[((m % heads) * d + e) * height * width + n];
  }
  return sum;
}

// What a tensor that holds windows is at place n and cell t: `at` says which head and dimension.
const IN_WINDOWS = {
  unfold_k: (pass, at, n, t) => plane(pass.k, at.c)[pass.read[n * pass.taps + t]],
  unfold_v: (pass, at, n, t) => plane(pass.v, at.c)[pass.read[n * pass.taps + t]],
  unfold_pe: (pass, at, n, t) => plane(pass.pe, at.e)[pass.read[n * pass.taps + t]],
  logits: (pass, at, n, t) => logit(pass, at.head, n, t),
  att: (pass, at, n, t) =>
    pass.attention[at.head * pass.read.length + n * pass.taps + t],
  f_all: (pass, at, n, t) => light(pass, at.group, t, n),
  f_conv: (pass, at, n, t) => light(pass, at.group, t, n),
};

// The maps of the other tensors: channels of a stage, but for these.
const STAGES = { q_att: "q", k_att: "k", v_att: "v", out_att: "outAtt", out_conv: "outConv" };
const PLANES = {
  pe: ({ pe }, at) => plane(pe, at.e),
  pad_k: ({ k, height, width, rim }, at) => mirrored(plane(k, at.c), height, width, rim),
  pad_v: ({ v, height, width, rim }, at) => mirrored(plane(v, at.c), height, width, rim),
};

function valuesOf(pass, tensor, at) {
  const { name, shape } = tensor;
  if (PLANES[name]) return PLANES[name](pass, at);
  if (!IN_WINDOWS[name]) return plane(pass[STAGES[name] ?? name], at.c);
  const t = cellOf(tensor, at), count = shape.at(-2) * shape.at(-1);
  return Float32Array.from({ length: count }, (_, n) => IN_WINDOWS[name](pass, at, n, t));
}

// The k² values at one place: a window, as it stands in the tensor.
function windowOf(pass, tensor, at, [row, column]) {
  const { name, shape } = tensor, n = row * shape.at(-1) + column;
  const taps = isLight(tensor) ? pass.lightTaps : pass.taps;
  return Float32Array.from({ length: taps }, (_, t) => IN_WINDOWS[name](pass, at, n, t));
}

const isLight = ({ name }) => name === "f_all" || name === "f_conv";
const cellOf = (tensor, at) => (isLight(tensor) ? at.lightCell : at.cell);

// ---- What is shown --------------------------------------------------------------------------

// Channel, head, dimension, group and cells that the traits choose. An offset outside a window
// stands for its edge.
function lookAt(model, { heads, d, taps, lightTaps, sizes }, offset = model.get("offset")) {
  const head = model.get("head"), e = model.get("channel"), c = head * d + e;
  const cellIn = (count, step) => {
    const k = Math.sqrt(count), half = (k - 1) / 2;
    const [row, column] = offset.map((n) => clamp(Math.round(n / step), -half, half) + half);
    return row * k + column;
  };
  return { head, e, c, group: Math.floor(c / heads), cell: cellIn(taps, sizes.dilation),
    lightCell: cellIn(lightTaps, 1) };
}

// The index of the shown map on each axis but the last two; null for the cells of a window.
function indices(tensor, at, pass) {
  const first = { "B": 0, "1": 0, "N·d": at.c, "d·N": at.c, "N": at.head,
    "d": isLight(tensor) ? at.group : at.e, "k_a²": at.cell, "k_c²": at.lightCell,
    "d·k_c²": at.group * pass.lightTaps + at.lightCell,
    "C_in": pass.x.channels >= 3 ? ":3" : ":1" };
  return tensor.axes.slice(0, -2).map((axis) => first[axis]);
}

// "logits[0, 1, 24]", and for the window at a place "logits[0, 1, :, 13, 12]".
function expression(tensor, at, pass, place) {
  const index = indices(tensor, at, pass);
  if (!place) return `${tensor.name}[${index.join(", ")}]`;
  const cells = tensor.axes.findIndex((axis) => /k_[ac]²/.test(axis));
  const first = at.group * pass.lightTaps;
  index[cells] = tensor.axes[cells] === "d·k_c²" ? `${first}:${first + pass.lightTaps}` : ":";
  return `${tensor.name}[${[...index, ...place].join(", ")}]`;
}

// Between an output pixel and the place where it stands in a tensor.
function geometry(tensor, { stride, rim }) {
  const axis = tensor.axes.at(-2);
  const [scale, shift] = axis === "H" ? [stride, 0] : axis === "H+2R" ? [stride, rim] : [1, 0];
  return { to: (pixel) => pixel.map((n) => n * scale + shift),
    from: (place) => place.map((n) => Math.floor((n - shift) / scale)) };
}

// The ends of a map's scale and its colours.
function scaleOf({ name }, values, end = reach(values)) {
  const [low, high] = extent(values), least = Math.max(Math.abs(low), Math.abs(high)) * 1e-4;
  if (name === "att") return [0, Math.max(high, NOTHING), AMOUNT];
  if (name === "logits") return [low, Math.max(high, low + least, low + NOTHING), AMOUNT];
  return [-end, end, SIGNED];
}

function paintMap(view, tensor, values, rows, columns, end) {
  const scale = scaleOf(tensor, values, end);
  view.draw(values, rows, columns, ...scale);
  return scale;
}

// ---- Text -----------------------------------------------------------------------------------

// Text in which _ lowers what follows, as in TeX: k_a², q_{ij}, v_n.
function typeset(text) {
  return text.split(/(_(?:\{[^}]*\}|[a-zA-Z0-9]+))/).map((part) => (part[0] === "_" && part.length > 1
    ? element("sub", {}, part.slice(1).replace(/[{}]/g, "")) : part));
}

// The axes of tensors of one kind as a table: symbol, number, what it counts.
function axesTable(names, { axes, shape }, words) {
  const line = (tag, cells) => element("tr", {}, ...cells.map((cell) =>
    element(tag, tag === "th" ? { scope: "col" } : {}, ...cell)));
  return element("table", { class: "axes" },
    element("caption", {}, element("code", {}, names.join(", "))),
    line("th", axes.map((axis) => typeset(axis))),
    line("td", shape.map((n) => [String(n)])),
    line("td", axes.map((axis) => [words[axis]])));
}

// Tensors whose axes are the same stand in one table.
function axesTables(tensors, words) {
  const kinds = new Map(tensors.map((tensor) => [tensor.axes.join(), tensor]));
  return [...kinds].map(([kind, tensor]) => axesTable(
    tensors.filter(({ axes }) => axes.join() === kind).map(({ name }) => name), tensor, words));
}

// ---- The diagram ----------------------------------------------------------------------------

// Each step's block: row, first and last column of 25; and whether all its tensors are drawn in it.
const BLOCKS = [[1, 1, 9], [1, 10, 26], [2, 1, 26], [4, 1, 13], [5, 3, 13], [6, 1, 13], [7, 3, 13],
  [8, 3, 13], [9, 1, 13], [4, 14, 26], [6, 14, 26], [9, 14, 26], [10, 1, 26]];
// Rows are 4 high and 1 apart, columns 4 wide: the wires, with the step that they lead to.
const WIRES = [["M32 2H36", 2], ["M68 4V5", 3], ["M24 9V15", 4], ["M4 19V25", 6], ["M28 24V25", 6],
  ["M28 29V30", 7], ["M28 34V35", 8], ["M28 39V40M4 29V40", 9], ["M76 9V15", 10],
  ["M76 19V25", 11], ["M76 29V40", 12], ["M24 44V45M76 44V45", 13]];
const LABELS = [["attention", 3, 1, 7], ["convolution", 3, 14, 20], ["v", 7, 1, 3]];

function diagram(table, choose) {
  const wires = element("svg", { class: "wires", viewBox: "0 0 100 49",
    preserveAspectRatio: "none", "aria-hidden": "true" },
    ...WIRES.map(([d, to]) => element("path", { d, "data-to": to })));
  const thumbs = {};
  const blocks = table.map((step, n) => {
    const [row, first, last] = BLOCKS[n];
    const shown = last - first > 12 ? step.tensors : step.tensors.slice(0, 1);
    for (const { name } of shown) thumbs[name] = mapView(`small_${name}`);
    const frames = shown.map(({ name }) => thumbs[name].frame);
    for (const frame of frames) frame.setAttribute("aria-hidden", "true");
    const block = button("", () => choose(n + 1),
      { style: `grid-area: ${row} / ${first} / auto / ${last}` });
    block.append(...frames, element("span", {},
      element("b", {}, `${n + 1} ${step.title}`),
      element("span", { class: "size" }, step.tensors[0].shape.join("×"))));
    return block;
  });
  const labels = LABELS.map(([text, row, first, last]) => element("span",
    { class: `label ${text}`, style: `grid-area: ${row} / ${first} / auto / ${last}` }, text));
  const box = element("div", { class: "diagram", role: "group",
    "aria-label": "All steps; choose one" }, wires, ...labels, ...blocks);
  return { box, blocks, wires, thumbs };
}

function drawDiagram(view, at, step) {
  view.blocks.forEach((block, n) => {
    if (n + 1 === step) block.setAttribute("aria-current", "step");
    else block.removeAttribute("aria-current");
  });
  for (const wire of view.wires.children) {
    wire.setAttribute("class", Number(wire.getAttribute("data-to")) === step ? "lit" : "");
  }
  for (const tensor of view.tensors) {
    const thumb = view.thumbs[tensor.name], text = expression(tensor, at, view.pass);
    if (!thumb || tensor.name === "x" || thumb.shows === text) continue;
    thumb.shows = text;
    paintMap(thumb, tensor, valuesOf(view.pass, tensor, at), ...tensor.shape.slice(-2));
  }
}

// ---- The step -------------------------------------------------------------------------------

function detail() {
  const parts = {}, part = (name) => (parts[name] = element("div", { class: name }));
  const group = (kind, ...names) => element("div", { class: kind }, ...names.map(part));
  return { parts, boxes: [group("shown", "head", "formula", "why", "light", "maps", "tables"),
    group("told", "code")] };
}

const hasWindows = ({ name }) => name in IN_WINDOWS;

// Everything of a step that its number alone decides; its maps are made when they are first shown.
function openStep(view, model, step) {
  if (view.open === step) return;
  const { title, symbol, formula, tensors, shown, code, where, why } = view.table[step - 1];
  const { head, formula: line, light: mixed, maps, tables, code: lines, why: words } =
    view.detail.parts;
  head.replaceChildren(headline(`${step}. ${title}: `, ...typeset(symbol)));
  line.replaceChildren(...typeset(formula));
  mixed.replaceChildren(...(isMixed(tensors) ? [view.light.grid, view.light.sum] : []));
  tables.replaceChildren(...axesTables(tensors, view.words));
  const [file, ...name] = where.split(".");
  lines.replaceChildren(element("div", { class: "lines" }, element("code", {}, code.join("\n"))),
    element("p", {}, `${name.join(".")} in ${file}.py`));
  words.replaceChildren(...typeset(why));
  const windows = tensors.filter(hasWindows).map((tensor) => view.windowOf(tensor));
  maps.replaceChildren(...[...shown.map(view.mapOf), ...windows].map((map) => map.box));
  maps.style.setProperty("--columns", windows.length === 1 ? 2 : shown.length);
  view.open = step;
}

// The pixel's windows where a whole map is read, the border where it is padded.
function marksOn(tensor, place, { height, width, rim, lightTaps }) {
  const marks = [squareAt(place, 1, "here")];
  const padded = tensor.axes.at(-2) === "H+2R";
  if (padded || tensor.name === "x") marks.unshift(squareAt(place, 2 * rim + 1, "attention"));
  if (tensor.name === "x") marks.unshift(squareAt(place, Math.sqrt(lightTaps), "convolution"));
  if (padded) marks.unshift({ row: rim, column: rim, rows: height, columns: width, kind: "edge" });
  return marks;
}

// The last step shows both paths, weighed, and their sum, in one scale.
const MIX = { out_att: "α F_att", out_conv: "+ β F_conv", out: "= F_out" };

function mixOf(pass, shown, at) {
  const rates = [pass.weights.alpha, pass.weights.beta, 1];
  const weighed = (tensor, n) => valuesOf(pass, tensor, at).map((value) => rates[n] * value);
  const end = reach(...shown.map(weighed));
  return shown.map(({ name }, n) => ({ text: MIX[name], rate: rates[n], end }));
}

// The map of a tensor, or a term of the mix: the map times its rate.
function drawMap(view, tensor, at, pixel, { text: term, rate = 1, end } = {}) {
  const { pass } = view, map = view.mapOf(tensor), [rows, columns] = tensor.shape.slice(-2);
  const place = geometry(tensor, pass).to(pixel), text = term ?? expression(tensor, at, pass);
  const n = place[0] * columns + place[1];
  map.title.replaceChildren(...(term ? typeset(text) : [element("code", {}, text)]));
  outline(map, marksOn(tensor, place, pass));
  map.frame.setAttribute("aria-label", `${text} at ${tuple(place)}; arrow keys move the pixel`);
  if (tensor.name === "x") {
    const size = rows * columns, channels = pass.x.channels >= 3 ? 3 : 1;
    const values = Array.from({ length: channels }, (_, c) => figure(pass.x.data[c * size + n]));
    return map.say("The input as a picture", `at ${tuple(place)}: ${values.join(", ")}`);
  }
  const values = valuesOf(pass, tensor, at), weighed = values.map((value) => rate * value);
  const scale = paintMap(map, tensor, weighed, rows, columns, end);
  const product = rate === 1 ? "" : `${figure(rate)} · ${figure(values[n])} = `;
  map.say(text, scaleBar(...scale), `at ${tuple(place)}: ${product}${figure(weighed[n])}`);
}

function drawWindow(view, tensor, at, pixel) {
  const { pass } = view, map = view.windowOf(tensor);
  const place = geometry(tensor, pass).to(pixel), text = expression(tensor, at, pass, place);
  const values = windowOf(pass, tensor, at, place), side = Math.sqrt(values.length);
  const cell = cellOf(tensor, at), middle = (side - 1) / 2;
  const step = isLight(tensor) ? 1 : pass.sizes.dilation;
  const [row, column] = [Math.floor(cell / side), cell % side];
  const scale = paintMap(map, tensor, values, side, side);
  map.title.replaceChildren(element("code", {}, text));
  outline(map, [squareAt([row, column], 1, "here")]);
  map.frame.setAttribute("aria-label",
    `${text}, ${side} by ${side}; arrow keys choose the cell whose map is shown`);
  const offset = tuple([(row - middle) * step, (column - middle) * step]);
  map.say(text, scaleBar(...scale), `offset ${offset}, number ${cell}: ${figure(values[cell])}`);
}

// ---- The light layer: fc as a table, its pieces above, and at the end of each row its map ---

const isMixed = ([{ name }]) => name === "f_all";

// Piece m of dimension e: the heads of q, then those of k, then those of v.
const pieceOf = ({ q, k, v, heads, d }, m, e) =>
  plane([q, k, v][Math.floor(m / heads)], (m % heads) * d + e);
const pieceName = ({ heads }, m) => `${"qkv"[Math.floor(m / heads)]}_${m % heads}`;

function lightLayer({ heads, lightTaps }, hover, pin, cellNow) {
  const many = (count, name) => Array.from({ length: count }, (_, n) => mapView(`${name}_${n}`));
  const pieces = many(3 * heads, "piece"), maps = many(lightTaps, "light"), fc = mapView("fc");
  const side = Math.sqrt(lightTaps), half = (side - 1) / 2;
  const choose = (t) => ({ offset: [Math.floor(t / side) - half, (t % side) - half] });
  pickable(fc, hover, pin, ([t]) => choose(t));
  maps.forEach((map, t) => pickable(map, hover, pin, () => choose(t)));
  steerable(fc, "fc", ([rows]) => pin(choose(clamp(cellNow() + rows, 0, lightTaps - 1))));
  fc.frame.style.gridArea = `3 / 1 / span ${lightTaps} / span ${3 * heads}`;
  maps.forEach(({ frame }, t) => (frame.style.gridArea = `${t + 3} / -2`));
  const letters = ["q", "k", "v"].map((name) =>
    element("i", { style: `grid-column: span ${heads}` }, name));
  const equals = element("b", {}, "="), sum = element("p", { class: "sum" });
  const head = element("i", { style: "grid-area: 2 / -2" }, ...typeset("g̃_t"));
  const grid = element("div", { class: "weighed",
    style: `grid-template-columns: repeat(${3 * heads}, minmax(0, 1fr)) auto minmax(0, 1fr)` },
  ...letters, ...pieces.map(({ frame }) => frame), head, fc.frame, equals,
  ...maps.map(({ frame }) => frame));
  pieces.forEach(({ frame }, m) => (frame.style.gridArea = `2 / ${m + 1}`));
  return { pieces, fc, maps, grid, equals, sum };
}

function drawLight({ light: view, pass }, { group, lightCell: chosen }) {
  const { heads, lightTaps, height, width, weights } = pass, columns = 3 * heads;
  const inOneScale = (views, valuesOf, nameOf) => {
    const values = views.map((_, n) => valuesOf(n)), end = reach(...values);
    views.forEach((one, n) => {
      one.draw(values[n], height, width, -end, end, SIGNED);
      one.say(nameOf(n));
    });
  };
  inOneScale(view.pieces, (m) => pieceOf(pass, m, group),
    (m) => `Piece ${pieceName(pass, m).replace("_", ", head ")}`);
  inOneScale(view.maps, (t) => Float32Array.from({ length: height * width }, (_, n) =>
    light(pass, group, t, n)), (t) => `Map ${t}`);
  const end = reach(weights.fc);
  view.fc.draw(weights.fc, lightTaps, columns, -end, end, SIGNED);
  outline(view.fc, [{ row: chosen, column: 0, rows: 1, columns, kind: "here" }]);
  view.maps.forEach(({ frame }, t) => frame.classList.toggle("chosen", t === chosen));
  view.equals.style.gridArea = `${chosen + 3} / -3`;
  const terms = Array.from({ length: columns }, (_, m) => {
    const weight = weights.fc[chosen * columns + m], sign = weight < 0 ? "− " : m ? "+ " : "";
    return `${sign}${figure(Math.abs(weight))} ${pieceName(pass, m)}`;
  });
  view.sum.replaceChildren(
    ...typeset(`map ${chosen}, dimension ${group}  =  ${terms.join(" ")}`));
  view.fc.say("fc");
  view.fc.frame.setAttribute("aria-label", `fc, ${lightTaps} by ${columns}, row ${chosen}; `
    + "arrow keys choose the row");
}

// ---- The widget -----------------------------------------------------------------------------

function readPass(model) {
  const sizes = model.get("sizes"), places = model.get("places");
  const all = floats(model.get("weights")), part = (name) => all.subarray(...places[name]);
  const layer = (name) => ({ weight: part(`${name}_weight`), bias: part(`${name}_bias`) });
  const { in_planes: channels, height, width } = sizes;
  const x = { data: floats(model.get("image")), channels, height, width };
  return forwardPass(x, { q: layer("conv1"), k: layer("conv2"), v: layer("conv3"),
    position: layer("conv_p"), fc: part("fc_weight"), dep: part("dep_conv_weight"),
    alpha: part("rate1")[0], beta: part("rate2")[0] },
  { heads: sizes.heads, kernelAtt: sizes.kernel_att, kernelConv: sizes.kernel_conv,
    dilation: sizes.dilation, stride: sizes.stride });
}

function makeControls(table, { heads, d }, set) {
  const step = slider({ name: "step", label: "Step", min: 1, max: table.length,
    say: (n) => `${n} of ${table.length}` });
  const play = player(step, (value) => set({ step: value }), 2500);
  const index = (name, label, count) => slider({ name, label, min: 0, max: count - 1 });
  const box = element("div", { class: "steps" }, step.box, play.box);
  const controls = { step: { ...step, box } };
  if (heads > 1) controls.head = index("head", "Head n", heads);
  if (d > 1) controls.channel = index("channel", "Dimension e", d);
  return [controls, play];
}

function build(model, { redraw, set }) {
  const table = model.get("table").map((step) => ({ shown: step.tensors, ...step }));
  const tensors = table.flatMap((step) => step.tensors), pass = readPass(model);
  table.at(-1).shown = tensors.filter(({ name }) => name in MIX);
  const [controls, play] = makeControls(table, pass, set);
  const { box, ...drawing } = diagram(table, (step) => { play.stop(); set({ step }); });
  const view = { table, pass, controls, ...drawing, detail: detail(), words: model.get("words"),
    tensors, reset: play.stop, release: play.stop };
  view.parts = [element("div", { class: "board" }, box, ...view.detail.boxes)];
  const hover = (hovered) => { view.hovered = hovered ?? {}; redraw(); };
  const pin = (values) => { view.hovered = {}; set(values); };
  view.hovered = {};
  Object.assign(view, makeMaps(model, pass, hover, pin));
  view.light = lightLayer(pass, hover, pin, () => lookAt(model, pass).lightCell);
  for (const map of [view.thumbs.x, view.mapOf(tensors[0])]) {
    map.photo(pass.x);
  }
  view.accept = { offset: isPlace, pixel: isInside([pass.outHeight, pass.outWidth]) };
  return view;
}

// Maps on which a pixel is chosen, and windows in which an offset is, made once for each tensor.
function makeMaps(model, pass, hover, pin) {
  const bounds = [pass.outHeight, pass.outWidth], made = {};
  const once = (name, make) => (made[name] ??= make(mapView(name)));
  const use = (map, label, valueOf, byKeys) => {
    pickable(map, hover, pin, (at) => valueOf(at, map));
    steerable(map, label, (step) => pin(byKeys(step, map)));
    return map;
  };
  const mapOf = (tensor) => once(tensor.name, (map) => use(map, tensor.name,
    (at) => ({ pixel: intoMap(geometry(tensor, pass).from(at), bounds) }),
    (step) => ({ pixel: intoMap(plus(model.get("pixel"), step), bounds) })));
  const windowOf = (tensor) => once(`${tensor.name}_window`, (map) => {
    const step = isLight(tensor) ? 1 : pass.sizes.dilation;
    const offset = (at) => ({ offset: at.map((n) =>
      (clamp(n, 0, map.rows - 1) - (map.rows - 1) / 2) * step) });
    return use(map, tensor.name, offset, (by) => {
      const cell = cellOf(tensor, lookAt(model, pass));
      return offset(plus([Math.floor(cell / map.rows), cell % map.rows], by));
    });
  });
  return { mapOf, windowOf };
}

function draw(model, view) {
  const step = model.get("step"), { title, symbol, tensors, shown } = view.table[step - 1];
  const pixel = view.hovered.pixel ?? model.get("pixel");
  const at = lookAt(model, view.pass, view.hovered.offset);
  openStep(view, model, step);
  drawDiagram(view, at, step);
  if (isMixed(tensors)) drawLight(view, at);
  const terms = shown === tensors ? [] : mixOf(view.pass, shown, at);
  shown.forEach((tensor, n) => drawMap(view, tensor, at, pixel, terms[n]));
  for (const tensor of tensors.filter(hasWindows)) drawWindow(view, tensor, at, pixel);
  const shapes = tensors.map(({ name, shape }) => `${name} ${shape.join(" by ")}`).join(", ");
  return `Step ${step}, ${title}: ${symbol.replace(/[_{}]/g, "")}; ${shapes}.`;
}

export default explorer({ build, draw });
