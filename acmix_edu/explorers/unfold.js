// The unfold explorer: a convolution taken apart. Each cell of the kernel multiplies the whole
// picture (Stage I); the products are moved to their place and added (Stage II).

import { newMap, project } from "./engine.js";
import {
  SIGNED, button, choice, colour, element, explorer, extent, figure, floats, headline,
  inkOn, intoMap, isInside, mapView, memory, outline, pickable, player, plus, precise, reach,
  rooted, scaleBar, slider, squareAt, steerable, toggle, tuple, written,
} from "./kit.js";

// ---- The mathematics ------------------------------------------------------------------------

// [down, right]: how far the map of each cell is moved. `kernel` is k.
function movesOf({ kernel, dilation }) {
  const half = (kernel - 1) / 2;
  return Array.from({ length: kernel ** 2 }, (_, t) =>
    [Math.floor(t / kernel), t % kernel].map((place) => (half - place) * dilation));
}

const contains = ({ height, width }, row, column) =>
  row >= 0 && row < height && column >= 0 && column < width;

// The value of a map's channel c at a pixel; outside the map it is zero.
function valueAt(map, row, column, c = 0) {
  const n = (c * map.height + row) * map.width + column;
  return contains(map, row, column) ? map.data[n] : 0;
}

// K_t·f: cell t of the kernel [C, k, k] times each pixel, a 1×1 convolution.
function multiplied(f, weights, t) {
  const taps = weights.length / f.channels;
  const matrix = Float32Array.from({ length: f.channels }, (_, c) => weights[c * taps + t]);
  return project(f, matrix, [0]);
}

// One channel, moved down and to the right; what enters is zero.
function moved(map, down, right) {
  const { data, height, width } = map, made = newMap(1, height, width);
  const first = Math.max(0, right), end = Math.min(width, width + right);
  for (let row = 0; row < height; row++) {
    const from = (row - down) * width - right;
    if (row < down || row >= height + down || first >= end) continue;
    made.data.set(data.subarray(from + first, from + end), row * width + first);
  }
  return made;
}

// Every stride-th pixel of every stride-th row.
function thinned(map, stride) {
  if (stride === 1) return map;
  const kept = newMap(1, Math.ceil(map.height / stride), Math.ceil(map.width / stride));
  kept.data.forEach((_, n) => {
    const row = Math.floor(n / kept.width), column = n % kept.width;
    kept.data[n] = map.data[(row * map.width + column) * stride];
  });
  return kept;
}

// The sums of the first 1, 2, … k² maps, moved and thinned.
function growingSums(f, weights, moves, stride) {
  const sums = [];
  moves.forEach((move, t) => {
    const part = thinned(moved(multiplied(f, weights, t), ...move), stride);
    if (t > 0) part.data.forEach((value, n) => (part.data[n] = sums[t - 1].data[n] + value));
    sums.push(part);
  });
  return sums;
}

// The products of which one output pixel is made; `row` and `column` are the window's middle.
function productsAt(f, weights, row, column, moves) {
  const products = new Float64Array(moves.length);
  for (let c = 0; c < f.channels; c++) {
    moves.forEach(([down, right], t) => (products[t] +=
      weights[c * moves.length + t] * valueAt(f, row - down, column - right, c)));
  }
  return products;
}

const total = (values) => values.reduce((sum, value) => sum + value, 0);

// The convolution by its definition: pixel by pixel, in double precision.
function convolved(f, weights, moves, stride) {
  const made = newMap(1, Math.ceil(f.height / stride), Math.ceil(f.width / stride));
  for (let n = 0; n < made.data.length; n++) {
    const row = Math.floor(n / made.width) * stride, column = (n % made.width) * stride;
    let sum = 0;
    for (let c = 0, w = 0; c < f.channels; c++) {
      for (const [down, right] of moves) {
        sum += weights[w++] * valueAt(f, row - down, column - right, c);
      }
    }
    made.data[n] = sum;
  }
  return made;
}

// ---- From the model's traits to numbers -----------------------------------------------------

function readModel(model) {
  const places = model.get("places"), all = floats(model.get("kernels"));
  return { f: { ...model.get("sizes"), data: floats(model.get("image")) },
    weightsOf: (preset, k) => all.subarray(...places[preset + k]),
    presets: PRESETS.filter(([preset]) => `${preset}1` in places) };
}

const PRESETS = [["own", "yours"], ["edge", "edge (Sobel)"], ["sharpen", "sharpen"],
  ["blur", "blur"]];

// All that the state says: the stages of the kernel, then those of the chosen cell t.
function computeStages(model, { f, weightsOf, remember }) {
  const kernel = model.get("kernel_size"), preset = model.get("preset");
  const stride = model.get("stride"), dilation = model.get("dilation"), taps = kernel ** 2;
  const step = Math.min(model.get("step"), taps), t = step - 1;
  const isMoved = model.get("move"), state = [preset, kernel, stride, dilation, isMoved];
  const weights = weightsOf(preset, kernel);
  const whole = remember("whole", state, () => {
    const due = movesOf({ kernel, dilation }), moves = isMoved ? due : due.map(() => [0, 0]);
    const sums = growingSums(f, weights, moves, stride);
    const convolution = convolved(f, weights, due, stride);
    const overInputs = (of) => moves.map((_, n) =>
      total(Array.from({ length: f.channels }, (_, c) => of(weights[c * taps + n]))));
    return { moves, sums, convolution, grey: overInputs(Number),
      most: reach(f.data) * reach(overInputs(Math.abs)),
      end: reach(convolution.data, ...sums.map((sum) => sum.data)) };
  });
  const cell = remember("cell", [...state, t], () => {
    const product = multiplied(f, weights, t), move = whole.moves[t], sum = whole.sums[t];
    const missing = whole.convolution.data.map((value, n) => value - sum.data[n]);
    return { product, move, slid: moved(product, ...move), sum, missing };
  });
  const isDone = step === taps && (isMoved || kernel === 1);
  return { preset, kernel, stride, dilation, taps, step, t, weights, isDone, ...whole, ...cell };
}

const nameOf = (t, kernel) => tuple([Math.floor(t / kernel), t % kernel]);

// ---- The kernel as a grid of buttons --------------------------------------------------------

// A number that fits into a small cell; "0.00" is not quite zero, of either sign.
function short(value) {
  const size = Math.abs(value);
  return written(value && (size < 0.005 ? "0.00" : size < 100 ? value.toFixed(2)
    : size < 1e4 ? value.toFixed(0) : value.toExponential(0))).replace("+", "");
}

function cellOf(t, choose) {
  const box = button("", () => choose(t), { "data-lm-suppress-shortcuts": "true" });
  const [weight, times, product] = ["b", "span", "span"].map((tag) => element(tag));
  box.append(weight, " ", times, " ", product);
  return { box, texts: { weight, times, product } };
}

function kernelGrid(choose) {
  const grid = element("div", { class: "cells", role: "group" });
  const line = element("p", { class: "line" });
  const title = headline();
  const box = element("div", { class: "kernel" }, title, grid, line);
  const cells = [];  // once made, they are kept for the next time
  const resize = (kernel) => {
    const wanted = Array.from({ length: kernel * kernel }, (_, t) =>
      (cells[t] ??= cellOf(t, choose)));
    if (grid.children.length !== wanted.length) {
      box.style.setProperty("--k", kernel);
      grid.replaceChildren(...wanted.map((cell) => cell.box));
    }
    return wanted;
  };
  grid.addEventListener("keydown", (event) => {
    const cells = [...grid.children], k = Math.sqrt(cells.length);
    const from = cells.indexOf(event.target), column = from % k;
    const to = { ArrowLeft: column > 0 && from - 1, ArrowRight: column < k - 1 && from + 1,
      ArrowUp: from - k, ArrowDown: from + k, Home: 0, End: cells.length - 1 }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (to === false || !cells[to]) return;
    choose(to);
    cells[to].focus();
  });
  return { box, grid, line, title, resize };
}

function drawGrid(view, now, [row, column]) {
  const { kernels, f } = view, { grid, line, title } = kernels, end = rooted(reach(now.grey));
  const products = productsAt(f, now.weights, row, column, now.moves);
  title.textContent = `Kernel ${now.kernel}×${now.kernel} at pixel (${row}, ${column})`;
  grid.setAttribute("aria-label", `Kernel, ${now.taps} cells; arrow keys choose one`);
  kernels.resize(now.kernel).forEach(({ box, texts }, t) => {
    const [down, right] = now.moves[t], weight = now.grey[t], added = t <= now.t;
    const outside = !contains(f, row - down, column - right);
    const times = `× ${short(valueAt(f, row - down, column - right))}`;
    const said = { weight: short(weight), times: f.channels === 1 ? times : "",
      product: `= ${short(products[t])}` };
    for (const [name, text] of Object.entries(said)) {
      if (texts[name].textContent !== text) texts[name].textContent = text;
    }
    texts.times.className = outside ? "outside" : "";
    box.setAttribute("aria-label", `Cell ${nameOf(t, now.kernel)}: ${Object.values(said).join(" ")}`
      + `${outside ? ", outside the picture" : ""}${added ? ", added" : ""}`);
    const back = colour(rooted(weight), -end, end, SIGNED).slice(0, 3);
    box.style.cssText = added ? `background: rgb(${back}); color: ${inkOn(back)}` : "";
    box.className = `${added ? "added" : "waiting"}${t === now.t ? " chosen" : ""}`;
    box.tabIndex = t === now.t ? 0 : -1;
    box.setAttribute("aria-pressed", t === now.t);
  });
  const soFar = figure(total(products.subarray(0, now.step)));
  const [down, right] = now.moves[now.t], pixel = valueAt(f, row - down, column - right);
  line.textContent = `${legendOf(now, f.channels > 1, pixel, products[now.t])} Sum of ${now.step === now.taps ? `all ${now.taps}: ${soFar}.`
    : `the first ${now.step}: ${soFar}, of all ${now.taps}: ${figure(total(products))}.`}`;
}

// What the cells hold; in those of 7×7 there is no room but for the weight.
function legendOf({ t, kernel, grey }, coloured, pixel, product) {
  if (kernel < 7 && coloured) return "Weights, summed over the colours, and products.";
  if (kernel < 7) return "Weight × pixel = product.";
  const made = coloured ? "the product is" : `${precise(grey[t])} × ${figure(pixel)} =`;
  return `Cell ${nameOf(t, kernel)}: ${made} ${precise(product)}.`;
}

// ---- The maps -------------------------------------------------------------------------------

const TITLES = { picture: "Picture f", product: "1. Multiply", slid: "2. Move", sum: "3. Add",
  convolution: "The convolution", missing: "Still missing" };

// An arrow (as text, not as an emoji), and "1 down, 2 left".
function wayOf([down, right]) {
  const arrow = [["↖", "↑", "↗"], ["←", "·", "→"], ["↙", "↓", "↘"]];
  const words = [[down, "down", "up"], [right, "right", "left"]].filter(([n]) => n)
    .map(([n, ahead, back]) => `${Math.abs(n)} ${n > 0 ? ahead : back}`);
  const sign = arrow[Math.sign(down) + 1][Math.sign(right) + 1];
  return [`${sign}\uFE0E`, words.join(", ") || "stays in place"];
}

// A stroke across each pixel that entered from outside; returns how many there are.
function hatchEntered(view, map, [down, right]) {
  const entered = [];
  for (let row = 0; row < map.height; row++) {
    for (let column = 0; column < map.width; column++) {
      if (!contains(map, row - down, column - right)) entered.push(`M${column} ${row + 1}l1 -1`);
    }
  }
  view.overlay.append(element("path", { d: entered.join(""), class: "entered" }));
  return entered.length;
}

// What is shown of the reader's own kernel at another size.
function ownNote({ preset, kernel }, own) {
  if (preset !== "own" || kernel === own) return "";
  return `Your ${own}×${own} kernel ${kernel < own ? "is cut to its middle" : "has zeros around it"}. `;
}

function drawMaps(view, now, ownSize) {
  const { maps, f } = view, { end, most, convolution } = now, { height, width } = convolution;
  const kept = now.slid.data.map((value, n) =>  // a dropped pixel is not drawn
    (Math.floor(n / f.width) % now.stride || (n % f.width) % now.stride ? NaN : value));
  const draw = (view, values) =>
    view.draw(values.map(rooted), f.height, f.width, -rooted(most), rooted(most), SIGNED);
  draw(maps.product, now.product.data);
  draw(maps.slid, kept);
  const results = { sum: now.sum.data, convolution: convolution.data, missing: now.missing };
  for (const [name, values] of Object.entries(results)) {
    maps[name].draw(values, height, width, -end, end, SIGNED);
  }
  maps.slid.title.replaceChildren("2. Move ", element("b", { class: "way" }, wayOf(now.move)[0]));
  view.scale.replaceChildren("Multiply, move (hatched: zeros entered):",
    scaleBar(-most, most, SIGNED, { curve: rooted }), "Add, convolution, missing:",
    scaleBar(-end, end, SIGNED), ownNote(now, ownSize),
    `Padding ${now.dilation * (now.kernel - 1) / 2}: outside the picture `
    + `counts as zero. Size ${f.height}×${f.width} → ${height}×${width}.`);
}

function drawMarks(view, now, [row, column]) {
  const { maps, f } = view, { kernel, dilation, stride } = now;
  const reads = now.moves.map(([down, right]) => squareAt([row - down, column - right], 1, "read"));
  const window = squareAt([row, column], dilation * (kernel - 1) + 1, "convolution");
  const [down, right] = now.move, from = squareAt([row - down, column - right], 1, "here");
  outline(maps.picture, [...(dilation > 1 ? reads : []), window, from]);
  outline(maps.product, [from]);
  outline(maps.slid, [squareAt([row, column], 1, "here")]);
  now.entered = hatchEntered(maps.slid, f, now.move);
  for (const name of ["sum", "convolution", "missing"]) {
    outline(maps[name], [squareAt([row / stride, column / stride], 1, "here")]);
  }
  return [row - down, column - right];
}

function drawNotes(view, now, [row, column], from) {
  const { maps, f } = view, at = (map, ...pixel) => figure(valueAt(map, ...pixel));
  const out = [row, column].map((n) => n / now.stride);
  const values = Array.from({ length: f.channels }, (_, c) => at(f, ...from, c)).join(", ");
  maps.picture.say(`The picture; the window stands on row ${row}, column ${column}`,
    `reads ${tuple(from)}\n${contains(f, ...from) ? values : "0, outside"}`);
  const cell = nameOf(now.t, now.kernel), way = wayOf(now.move)[1];
  maps.product.say(`The picture times cell ${cell} of the kernel`,
    `by ${f.channels === 1 ? figure(now.grey[now.t]) : cell}\nthere ${at(now.product, ...from)}`);
  maps.slid.say(`That map, moved: ${way}; ${now.entered} zeros entered`,
    `${way}\nhere ${at(now.slid, row, column)}`);
  maps.sum.say(`The sum of ${now.step} of ${now.taps} maps`,
    `${now.step} of ${now.taps} maps\nhere ${at(now.sum, ...out)}`);
  maps.convolution.say("The convolution", `by definition\nhere ${at(now.convolution, ...out)}`);
  const { isDone } = now, gap = precise(Math.max(...extent(now.missing).map(Math.abs)));
  maps.missing.say("What the sum lacks", `${isDone ? "✓ only rounding" : "at most"}\n${gap}`);
  maps.missing.box.classList.toggle("done", isDone);
  return `${isDone ? "nothing but rounding" : "at most"}, ${gap}`;
}

// ---- The widget -----------------------------------------------------------------------------

function makeControls(model, presets, set) {
  const taps = () => model.get("kernel_size") ** 2;
  const few = (name, label, say) => slider({ name, label, min: 1, max: 3, say });
  const step = slider({ name: "step", label: "Maps added", min: 1, max: 49,
    say: (n) => `${Math.min(n, taps())} of ${taps()}` });
  const play = player(step, (value) => set({ step: value }));
  const made = {
    preset: choice({ name: "preset", label: "Kernel", options: presets }),
    kernel_size: choice({ name: "kernel_size", label: "Size",
      options: [1, 3, 5, 7].map((k) => [k, `${k} × ${k}`]) }),
    stride: few("stride", "Stride", String),
    dilation: few("dilation", "Dilation", (n) => `${n} px`),
    move: toggle({ name: "move", label: "2. Move" }),
    step: { ...step, box: element("div", { class: "steps" }, step.box, play.box) },
  };
  const { input, read } = made.kernel_size;  // at another size all maps are added
  input.addEventListener("input", () => { play.stop(); set({ step: read() ** 2 }); });
  return [made, play];
}

function build(model, { redraw, set }) {
  const data = readModel(model), { f } = data;
  const [controls, play] = makeControls(model, data.presets, set);
  const maps = Object.fromEntries(Object.entries(TITLES).map(([n, title]) => [n, mapView(n, title)]));
  const kernels = kernelGrid((t) => { play.stop(); set({ step: t + 1 }); });
  const scale = element("p", { class: "scale" });
  const parts = [element("div", { class: "board" }, kernels.box,
    element("div", { class: "maps", "data-aim": "" },
      ...Object.values(maps).map((map) => map.box)), scale)];
  const view = { ...data, controls, parts, maps, kernels, scale, remember: memory(),
    reset: play.stop, release: play.stop };
  maps.picture.photo(f);

  const stride = () => model.get("stride"), bounds = [f.height, f.width];
  const hover = (pixel) => { view.hovered = pixel && intoMap(pixel, bounds); redraw(); };
  const pin = (pixel) => { view.hovered = null; set({ pixel: intoMap(pixel, bounds) }); };
  const results = ["sum", "convolution", "missing"];
  for (const name of ["picture", "product", "slid", ...results]) {
    pickable(maps[name], hover, pin, (at) => (results.includes(name)
      ? at.map((n) => n * stride()) : name === "product" ? plus(at, view.move) : at));
  }
  steerable(maps.picture, "Picture; arrow keys move the window", (step) =>
    pin(plus(model.get("pixel"), step.map((n) => n * stride()))));
  view.accept = { pixel: isInside(bounds) };
  return view;
}

function draw(model, view) {
  const now = computeStages(model, view), { step } = view.controls;
  step.input.max = now.taps;
  step.show(model.get("step"));
  view.move = now.move;
  const pixel = (view.hovered ?? model.get("pixel")).map((n) => n - (n % now.stride));
  drawMaps(view, now, model.get("start").kernel_size);
  drawGrid(view, now, pixel);
  const text = drawNotes(view, now, pixel, drawMarks(view, now, pixel));
  return `Cell ${nameOf(now.t, now.kernel)}, moved: ${wayOf(now.move)[1]}. `
    + `${now.step} of ${now.taps} maps added. Missing: ${text}.`;
}

export default explorer({ build, draw });
