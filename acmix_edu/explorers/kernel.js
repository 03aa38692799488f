// The kernel explorer: one kernel that the reader edits, and what the convolution with it is; and
// the k² kernels of every output of a grouped convolution, which start as shifts.

import { groupedConv, newMap, shiftKernels } from "./engine.js";
import {
  SIGNED, button, choice, colour, element, explorer, extent, figure, floats, headline,
  inkOn, intoMap, isCount, isInside, mapView, memory, outline, pickable, plus, reach, slider,
  squareAt, steerable, tuple, written,
} from "./kit.js";

// ---- The mathematics ------------------------------------------------------------------------

const sideOf = (kernel) => Math.sqrt(kernel.length);

// [Δx, Δy] of a one-hot kernel; nothing of any other.
export function displacementOf(kernel) {
  const used = kernel.flatMap((value, n) => (value === 0 ? [] : [n])), k = sideOf(kernel);
  if (used.length !== 1 || kernel[used[0]] !== 1) return undefined;
  return moveOf(used[0], k);
}

export const convolved = (f, kernel) => groupedConv(f, Float32Array.from(kernel),
  { channels: 1, groups: 1, kernel: sideOf(kernel), stride: 1 });

const within = ({ height, width }, row, column) =>
  row >= 0 && row < height && column >= 0 && column < width;

const valueAt = (f, row, column) =>
  (within(f, row, column) ? f.data[row * f.width + column] : 0);

// f̃(i, j) = f(i + Δx, j + Δy), equation 4: a copy, without any arithmetic.
export function copied(f, [dx, dy]) {
  const made = newMap(1, f.height, f.width);
  made.data.forEach((_, n) =>
    (made.data[n] = valueAt(f, Math.floor(n / f.width) + dx, (n % f.width) + dy)));
  return made;
}

// The pixels under the kernel's cells, row by row.
export function windowAt(f, [row, column], k) {
  const half = (k - 1) / 2;
  return Array.from({ length: k * k }, (_, n) =>
    valueAt(f, row + Math.floor(n / k) - half, column + (n % k) - half));
}

// The ready-made kernels by name; `learnt`: [name, kernel] of one that was trained, 3×3.
const oneHot = (k, t) => Array.from({ length: k * k }, (_, n) => (n === t ? 1 : 0));
const outer = (down, across) => down.flatMap((a) => across.map((b) => a * b + 0));
const SOBEL = { 3: [[1, 2, 1], [-1, 0, 1]], 5: [[1, 4, 6, 4, 1], [-1, -2, 0, 2, 1]] };
function readyMade(k, learnt) {
  const taps = k * k, middle = (taps - 1) / 2;
  const shifts = Array.from({ length: taps }, (_, t) => [`shift ${tuple(moveOf(t, k))}`, oneHot(k, t)]);
  return [...shifts, ["box: the mean", Array(taps).fill(1 / taps)],
    ["Sobel: upright", outer(...SOBEL[k])],
    ["Laplacian: all edges", oneHot(k, middle).map((n) => 1 - n * taps)],
    ...(k === 3 ? [learnt] : [])];
}

// The kernel at another size: the ready-made one of its name, or its middle, or zeros around it.
function resized(kernel, k, learnt) {
  const from = sideOf(kernel), ring = (k - from) / 2, name = nameOf(kernel, learnt);
  const known = readyMade(k, learnt).find(([text]) => text === name);
  return known?.[1] ?? Array.from({ length: k * k }, (_, n) => {
    const row = Math.floor(n / k) - ring, column = (n % k) - ring;
    return within({ height: from, width: from }, row, column) ? kernel[row * from + column] : 0;
  });
}

// Its name among the ready-made.
const nameOf = (kernel, learnt) => readyMade(sideOf(kernel), learnt)
  .find(([, values]) => values.every((value, n) => value === kernel[n]))?.[0];

// ---- Words ----------------------------------------------------------------------------------

const moveOf = (t, k) => [Math.floor(t / k), t % k].map((place) => place - (k - 1) / 2);

// The picture goes against the displacement: "1 down, 2 left".
const wayOf = ([dx, dy]) => [[dx, "up", "down"], [dy, "left", "right"]].filter(([n]) => n)
  .map(([n, ahead, back]) => `${Math.abs(n)} ${n > 0 ? ahead : back}`).join(", ");

function verdictOf(kernel, f, result) {
  const move = displacementOf(kernel);
  if (move) {
    const copy = copied(f, move).data, apart = copy.filter((v, n) => v !== result.data[n]).length;
    return [true, `This is the shift by ${tuple(move)}: the picture `
      + `${wayOf(move) ? `goes ${wayOf(move)}` : "stays"}. Of ${copy.length} `
      + `numbers, ${apart} differ from a plain copy.`];
  }
  const used = kernel.filter((value) => value !== 0), sum = used.reduce((a, b) => a + b, 0);
  if (used.length === 0) return [false, "Not a shift: no cell is left, and nothing gets through."];
  if (used.length === 1) {
    const moves = moveOf(kernel.indexOf(sum), sideOf(kernel)).some(Boolean);
    return [false, `Not a shift: it ${moves ? "moves" : "stays"}, and multiplies by ${figure(sum)}.`];
  }
  return [false, `Not a shift: ${used.length} cells are not zero. They sum to ${figure(sum)}`
    + `${Math.abs(sum) < 1e-9 ? ", so an even area becomes zero." : "."}`];
}

// ---- The bench ------------------------------------------------------------------------------

const LARGEST = 100;
const usable = (number) => Number.isFinite(number) && Math.abs(number) <= LARGEST;

// One labelled number for each cell, with the pixel that lies under it. `change(n, value)`.
function kernelTable(change) {
  const table = element("div", { class: "cells", role: "group" });
  const box = element("div", { class: "table" }, table);
  const cellOf = (n, k) => {
    const input = element("input", { type: "number", step: 0.25, min: -LARGEST, max: LARGEST,
      "aria-label": `Row ${Math.floor(n / k)}, column ${n % k}`,
      "data-lm-suppress-shortcuts": "true" });
    const read = () => (input.value.trim() === "" ? NaN : Number(input.value));
    input.addEventListener("input", () => usable(read()) && change(n, read() || 0));
    input.addEventListener("blur", () => (input.value = input.dataset.value));
    for (const come of ["focus", "click"]) input.addEventListener(come, () => input.select());
    return element("label", { class: "weight" }, input, element("span", {}));
  };
  const resize = (k) => {
    if (table.children.length === k * k) return;
    box.style.setProperty("--k", k);
    box.classList.toggle("large", k > 3);
    table.setAttribute("aria-label", `Kernel ${k}×${k}`);
    table.replaceChildren(...Array.from({ length: k * k }, (_, n) => cellOf(n, k)));
  };
  return { box, table, resize };
}

const rounded = (value) => String(Number(value.toPrecision(4)));

function drawTable({ table, resize }, kernel, pixels) {
  resize(sideOf(kernel));
  const end = reach(kernel);
  kernel.forEach((value, n) => {
    const cell = table.children[n], [input, under] = cell.children;
    input.dataset.value = rounded(value);
    if (input !== document.activeElement || Number(input.value) !== value) {
      input.value = rounded(value);
    }
    const back = colour(value, -end, end, SIGNED).slice(0, 3);
    cell.style.cssText = `background: rgb(${back}); color: ${inkOn(back)}`;
    under.textContent = `${kernel.length > 9 ? "" : "× "}${figure(pixels[n])}`;  // 25 are narrow
  });
}

const GREY = [[0, 0, 0], [255, 255, 255]];

// A picture where all values are from 0 to 1, rounding aside; else blue, white and red.
function drawResult(view, { data, height, width }) {
  const [low, high] = extent(data), end = reach(data), slack = 1e-6;
  if (low >= -slack && high <= 1 + slack) {
    view.draw(data, height, width, 0, 1, GREY);
    return "black 0, white 1";
  }
  view.draw(data, height, width, -end, end, SIGNED);
  return `blue −${figure(end)}, white 0, red ${figure(end)}`;
}

// The cells that are not zero, as "1 × 0.53 + …", and their sum.
function sumOf(kernel, pixels, value) {
  const terms = kernel.flatMap((weight, n) =>
    (weight === 0 ? [] : [`${written(rounded(weight))} × ${figure(pixels[n])}`]));
  const shown = terms.length > 3 ? [...terms.slice(0, 2), "…", terms.at(-1)] : terms;
  return `${shown.join(" + ") || "nothing"} = ${figure(value)}`;
}

function drawBench(model, view, kernel, pixel) {
  const { f, maps, verdict } = view, k = sideOf(kernel), [row, column] = pixel;
  const now = view.remember("result", kernel, () => {
    const result = convolved(f, kernel);
    return { result, scale: drawResult(maps.result, result), verdict: verdictOf(kernel, f, result) };
  });
  const pixels = windowAt(f, pixel, k), value = valueAt(now.result, row, column);
  const reads = kernel.flatMap((weight, n) =>
    (weight === 0 ? [] : [squareAt(plus(pixel, moveOf(n, k)), 1, "here")]));
  const window = squareAt(pixel, k, "convolution");
  outline(maps.picture, [window, ...(reads.length === 1 ? reads : [])]);
  outline(maps.result, [squareAt(pixel, 1, "here")]);
  drawTable(view.table, kernel, pixels);
  maps.picture.say(`The picture; the kernel lies on row ${row}, column ${column}`,
    `${f.height}×${f.width}; at (${row}, ${column}): ${figure(valueAt(f, row, column))}`);
  maps.result.say(`The convolution of the picture with the kernel; ${now.scale}`,
    `${now.scale}; at (${row}, ${column}): ${figure(value)}`);
  view.sum.textContent = sumOf(kernel, pixels, value);
  const [isShift, text] = now.verdict;
  verdict.textContent = `${isShift ? "✓ " : ""}${text}`;
  verdict.classList.toggle("shift", isShift);
  return text;
}

// ---- The kernels of the grouped convolution -------------------------------------------------

// For each dimension e: k² input maps as tiles, and for each set n a map of k² kernels and a tile
// for the output e·N + n.
function makePlan(view, { k, dims, sets }) {
  const number = (n, attributes) => element("span", attributes, String(n));
  const tiles = (e) => Array.from({ length: k * k }, (_, t) =>
    number(e * k * k + t, { class: "tile", "data-part": "map", "data-channel": e * sets, "data-tap": t }));
  view.blocks = Array.from({ length: dims * sets }, (_, c) => mapView(`kernels${c}`));
  const output = (c) => element("span", { class: "tile out", "data-part": "output",
    "data-channel": c, "data-tap": 0 }, `Σ = output ${c}`);
  const groups = Array.from({ length: dims }, (_, e) => element("div", { class: "group" },
    element("div", { class: "tiles" }, ...tiles(e)),
    ...Array.from({ length: sets }, (_, n) => element("div", { class: "set" },
      view.blocks[e * sets + n].box, output(e * sets + n)))));
  view.plan.replaceChildren(...groups);
  view.plan.style.setProperty("--k", k);
  view.plan.style.setProperty("--sets", sets);
  view.plan.classList.toggle("small", k > 3);
  const weight = shiftKernels(dims * sets, k);
  view.blocks.forEach((block, c) => {
    drawKernels(block, weight.subarray(c * k ** 4), k);
    block.say(`The ${k * k} kernels of output ${c}; number t is one-hot at (t div ${k}, t mod ${k})`);
    pickable(block, view.hover, view.light, (place) =>
      ({ part: "kernel", channel: c, tap: tapOf(place, k) }));
  });
}

// k² kernels as k rows of k, with a line of nothing between them; and which of them holds a place.
const spread = (k) => k * k + k - 1;
const tapOf = (place, k) => {
  const [p, q] = place.map((n) => Math.min(Math.floor(n / (k + 1)), k - 1));
  return p * k + q;
};
function drawKernels(block, weight, k) {
  const cells = new Float32Array(spread(k) ** 2).fill(NaN);
  for (let n = 0; n < k ** 4; n++) {
    const t = Math.floor(n / (k * k)), cell = n % (k * k);
    const row = Math.floor(t / k) * (k + 1) + Math.floor(cell / k);
    cells[row * spread(k) + (t % k) * (k + 1) + (cell % k)] = weight[n];
  }
  block.draw(cells, spread(k), spread(k), -1, 1, SIGNED);
}

// What is lit: part, channel and tap, where each limit depends on the sizes.
function clampLit({ part, channel, tap }, { k, dims, sets }) {
  const c = Math.min(channel, dims * sets - 1), e = Math.floor(c / sets);
  return { part, c, e, n: c % sets, t: Math.min(tap, k * k - 1) };
}

const isLit = (lit, { part, e, c, t }) => e === lit.e
  && (lit.part === "output" || part === "output" || t === lit.t)
  && (lit.part === "map" || part === "map" || c === lit.c);

function drawPlan(model, view, k) {
  const sizes = { k, dims: model.get("dims"), sets: model.get("sets") }, { dims, sets } = sizes;
  view.remember("plan", sizes, () => makePlan(view, sizes));
  const of = (trait) => view.hovered?.[trait] ?? model.get(trait);
  const lit = clampLit({ part: of("part"), channel: of("channel"), tap: of("tap") }, sizes);
  for (const tile of view.plan.querySelectorAll("[data-part]")) {
    const { part, channel, tap } = tile.dataset, c = Number(channel);
    tile.classList.toggle("lit", isLit(lit, { part, c, e: Math.floor(c / sets), t: Number(tap) }));
  }
  view.blocks.forEach((block, c) => outline(block, Array.from({ length: k * k }, (_, t) => t)
    .filter((t) => isLit(lit, { part: "kernel", e: Math.floor(c / sets), c, t }))
    .map((t) => ({ row: Math.floor(t / k) * (k + 1), column: (t % k) * (k + 1), rows: k,
      columns: k, kind: "here" }))));
  view.lit = lit;
  return drawWords(view, sizes, lit);
}

const HEADINGS = { map: "k² maps for each dimension", kernel: "their kernels, N sets", output: "outputs" };

function drawWords(view, { k, dims, sets }, lit) {
  const taps = k * k, { c, e, n, t } = lit, map = e * taps + t, all = dims * sets;
  const shapes = { map: `maps [B, ${dims * taps}, H, W]`, kernel: `weight [${all}, ${taps}, ${k}, ${k}]`,
    output: `out [B, ${all}, H, W]` };
  for (const [part, head] of Object.entries(view.heads)) {
    head.setAttribute("aria-pressed", part === lit.part);
    head.replaceChildren(element("b", {}, shapes[part]), element("span", {}, HEADINGS[part]));
  }
  const words = {
    map: `Map ${map} = e·k² + t: dimension e = ${e}, kernel position t = ${t}. `
      + `${sets === 1 ? "One kernel reads" : `${sets} kernels read`} it, one in each set, and no `
      + `other group does.`,
    kernel: `weight[${c}, ${t}] is one kernel, ${k}×${k}: the shift by ${tuple(moveOf(t, k))} at the `
      + `start. It reads map ${map} and adds to output ${c}.`,
    output: `Output ${c} = e·N + n: dimension e = ${e}, set n = ${n}. It is the sum of maps `
      + `${e * taps} … ${e * taps + taps - 1}, each convolved with its own kernel.`,
  };
  const code = { output: "out", map: "maps", kernel: "weight" }, mark = (part) =>
    element(part === lit.part ? "mark" : "span", {}, code[part]);
  view.code.replaceChildren(mark("output"), " = F.conv2d(", mark("map"), ", ", mark("kernel"),
    `, padding=${(k - 1) / 2}, groups=${dims})`);
  view.words.textContent = words[lit.part];
  view.lay.hidden = lit.part !== "kernel";
  view.count.textContent = `At the start ${all * taps} of ${all * taps * taps} weights are 1 (red), `
    + `all others 0 (white)${sets > 1 ? `; the ${sets} outputs of a dimension are equal.` : "."}`;
  view.plan.setAttribute("aria-label", `${words[lit.part]} Arrow keys: left and right choose t, `
    + "up and down the output");
  return words[lit.part];
}

// ---- The widget -----------------------------------------------------------------------------

// Two lists that both set the kernel: the ready-made ones, and its size.
function kernelControl(model, set) {
  const learnt = model.get("learnt");
  const pick = choice({ name: "preset", label: "Kernel", options: [] });
  const size = choice({ name: "size", label: "Size", options: [[3, "3 × 3"], [5, "5 × 5"]] });
  const show = (kernel) => {
    const names = readyMade(sideOf(kernel), learnt).map(([text]) => text);
    const name = nameOf(kernel, learnt) ?? "by hand";
    const all = names.includes(name) ? names : [...names, name];
    pick.input.replaceChildren(...all.map((text) => element("option", { value: text }, text)));
    pick.show(name);
    size.show(sideOf(kernel));
  };
  const read = () => {
    const now = model.get("kernel");
    return readyMade(sideOf(now), learnt).find(([text]) => text === pick.input.value)?.[1] ?? now;
  };
  size.input.addEventListener("input", () =>
    set({ kernel: resized(model.get("kernel"), size.read(), learnt) }));
  const accept = (value) => [9, 25].includes(value.length) && value.every(usable);
  const box = element("div", { class: "both" }, pick.box, size.box);
  return { box, input: pick.input, show, read, accept };
}

function build(model, { redraw, set }) {
  const { height, width } = model.get("sizes");
  const f = { data: floats(model.get("image")), channels: 1, height, width };
  const dims = slider({ name: "dims", label: "d, dimensions", min: 1, max: 2 });
  const sets = slider({ name: "sets", label: "N, sets of kernels", min: 1, max: 4 });
  const controls = { kernel: kernelControl(model, set),  // the others stand further down
    dims: { ...dims, box: "" }, sets: { ...sets, box: "" } };
  const maps = { picture: mapView("picture", "Picture"), result: mapView("result", "Convolution") };
  // Between a new size and its frame the old cells still stand: what is past the end is left out.
  const change = (n, value) =>
    set({ kernel: model.get("kernel").map((old, m) => (m === n ? value : old)) });
  const table = kernelTable(change);
  const line = (kind) => element("p", { class: kind });
  const view = { f, controls, maps, table, verdict: line("verdict"), sum: line("sum"),
    remember: memory(), plan: element("div", { class: "plan" }), words: line("words"),
    code: element("code", {}), count: line("count") };
  maps.picture.photo(f);
  view.hover = (lit) => { view.hovered = lit; redraw(); };
  view.light = (lit) => { view.hovered = null; set(lit); };
  pickPixel(model, view, { redraw, set });
  pickPart(model, view, set);
  const heading = headline("Side by side: one grouped convolution");
  const groups = element("div", { class: "groups", "data-aim": "dims sets part channel tap" },
    heading,
    element("div", { class: "controls" }, dims.box, sets.box),
    element("div", { class: "heads" }, ...Object.values(view.heads)), view.plan,
    element("div", { class: "said" }, view.code, view.words, view.lay, view.count));
  const middle = element("div", { class: "map" }, element("div", { class: "title" }, "Kernel"),
    table.box, view.sum);
  view.parts = [
    element("div", { class: "bench", "data-aim": "" }, maps.picture.box, middle, maps.result.box),
    view.verdict, groups];
  return view;
}

function pickPixel(model, view, { redraw, set }) {
  const { f, maps } = view, bounds = [f.height, f.width];
  const point = (pixel) => { view.pointed = pixel; redraw(); };
  const pin = (at) => {
    view.pointed = null;
    set({ pixel: intoMap(at, bounds) });
  };
  for (const map of Object.values(maps)) pickable(map, point, pin);
  steerable(maps.picture, "Picture; arrow keys move the kernel", (step) =>
    pin(plus(model.get("pixel"), step)));
  view.accept = { pixel: isInside(bounds), channel: isCount(8), tap: isCount(25),
    part: (part) => Object.hasOwn(HEADINGS, part) };
}

// A part of the plan is lit while it is pointed at, and stays lit after a click or a tap; the
// arrow keys go from kernel to kernel and from output to output.
function pickPart(model, view, set) {
  const { plan } = view;
  const partOf = ({ target }) => {
    const { part, channel, tap } = target.closest("[data-part]")?.dataset ?? {};
    return part && { part, channel: Number(channel), tap: Number(tap) };
  };
  plan.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse" && partOf(event)) view.hover(partOf(event));
  });
  plan.addEventListener("pointerleave", () => view.hover(null));
  plan.addEventListener("click", (event) => partOf(event) && view.light(partOf(event)));
  view.heads = Object.fromEntries(Object.keys(HEADINGS).map((part) =>
    [part, button("", () => view.light({ part }))]));
  const bench = () => set({ kernel: oneHot(sideOf(model.get("kernel")), view.lit.t) });
  view.lay = button("Use this kernel above", bench, { class: "lay" });
  steerable({ frame: plan }, "", (step) => {
    const most = [model.get("dims") * model.get("sets"), model.get("kernel").length];
    const [channel, tap] = intoMap(plus([view.lit.c, view.lit.t], step), most);
    view.light({ channel, tap });
  });
}

function draw(model, view) {
  const kernel = model.get("kernel"), pixel = view.pointed ?? model.get("pixel");
  const text = drawBench(model, view, kernel, pixel);
  return `${text} ${drawPlan(model, view, sideOf(kernel))}`;
}

export default explorer({ build, draw });
