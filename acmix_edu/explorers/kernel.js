// The kernel explorer: one kernel that the reader edits, and what the convolution with it is.

import { groupedConv, newMap } from "./engine.js";
import {
  SIGNED, choice, clamp, colour, element, explorer, extent, figure, floats, inkOn, intoMap,
  isInside, mapView, memory, moveOf, outline, pickable, plus, precise, reach, scaleBar, squareAt,
  steerable, tuple, written,
} from "./kit.js";

// ---- The mathematics ------------------------------------------------------------------------

const sideOf = (kernel) => Math.sqrt(kernel.length);

// [Δx, Δy] of a one-hot kernel; nothing of any other.
function displacementOf(kernel) {
  const used = kernel.flatMap((value, n) => (value === 0 ? [] : [n])), k = sideOf(kernel);
  if (used.length !== 1 || kernel[used[0]] !== 1) return undefined;
  return moveOf(used[0], k);
}

const convolved = (f, kernel) => groupedConv(f, Float32Array.from(kernel),
  { channels: 1, groups: 1, kernel: sideOf(kernel), stride: 1 });

const within = ({ height, width }, row, column) =>
  row >= 0 && row < height && column >= 0 && column < width;

const valueAt = (f, row, column) =>
  (within(f, row, column) ? f.data[row * f.width + column] : 0);

// f̃(i, j) = f(i + Δx, j + Δy), equation 4: a copy, without any arithmetic.
function copied(f, [dx, dy]) {
  const made = newMap(1, f.height, f.width);
  made.data.forEach((_, n) =>
    (made.data[n] = valueAt(f, Math.floor(n / f.width) + dx, (n % f.width) + dy)));
  return made;
}

// The pixels under the kernel's cells, row by row.
function windowAt(f, [row, column], k) {
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
    ["Sobel: vertical", outer(...SOBEL[k])],
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
    return [false, `Not a shift: it ${moves ? "moves" : "stays"}, and multiplies by ${precise(sum)}.`];
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
  const note = element("div", { class: "note" });
  const box = element("div", { class: "editor" }, table, note);
  const cellOf = (n, k) => {
    const input = element("input", { type: "number", step: 0.25, min: -LARGEST, max: LARGEST,
      "aria-label": `Row ${Math.floor(n / k)}, column ${n % k}`,
      "data-lm-suppress-shortcuts": "true" });
    input.addEventListener("input", () => {
      const typed = input.value.trim() === "" ? NaN : Number(input.value);
      if (Number.isNaN(typed)) return;
      const value = clamp(typed, -LARGEST, LARGEST);
      if (value !== typed) input.value = value;
      change(n, value || 0);
    });
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
  return { box, table, note, resize };
}

const rounded = (value) => String(Number(value.toPrecision(4)));

// The colours end at ±1 or, beyond, at the largest number.
function drawTable({ table, note, resize }, kernel, pixels) {
  resize(sideOf(kernel));
  const end = Math.max(1, reach(kernel));
  const texts = pixels.map(figure), fits = kernel.length === 9 || texts.every((t) => t.length < 6);
  note.replaceChildren(scaleBar(-end, end, SIGNED), `numbers from −${LARGEST} to ${LARGEST}`);
  kernel.forEach((value, n) => {
    const cell = table.children[n], [input, under] = cell.children;
    input.dataset.value = rounded(value);
    if (input !== document.activeElement || Number(input.value) !== value) {
      input.value = rounded(value);
    }
    const back = colour(value, -end, end, SIGNED).slice(0, 3);
    cell.style.cssText = `background: rgb(${back}); color: ${inkOn(back)}`;
    under.textContent = `${fits ? "× " : ""}${texts[n]}`;  // 25 are narrow
  });
}

const GREY = [[0, 0, 0], [255, 255, 255]];

// A picture where all values are from 0 to 1, rounding aside; else blue, white and red. Returns
// the ends of the scale and its colours.
function drawResult(view, { data, height, width }) {
  const [low, high] = extent(data), end = reach(data), slack = 1e-6;
  const scale = low >= -slack && high <= 1 + slack ? [0, 1, GREY] : [-end, end, SIGNED];
  view.draw(data, height, width, ...scale);
  return scale;
}

// The three largest products as "1 × 0.53 + …", of cells that are not zero, and the sum of all.
function sumOf(kernel, pixels, value) {
  const used = [...kernel.keys()].filter((n) => kernel[n] !== 0);
  const size = (n) => Math.abs(kernel[n] * pixels[n]);
  const largest = used.sort((m, n) => size(n) - size(m)).slice(0, 3).sort((m, n) => m - n);
  const terms = largest.map((n) => `${written(rounded(kernel[n]))} × ${figure(pixels[n])}`);
  if (used.length > 3) terms.push("…");
  return `${terms.join(" + ") || "nothing"} = ${figure(value)}`;
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
  maps.result.say("The convolution of the picture with the kernel", scaleBar(...now.scale),
    `at (${row}, ${column}): ${figure(value)}`);
  view.sum.textContent = sumOf(kernel, pixels, value);
  const [isShift, text] = now.verdict;
  verdict.textContent = `${isShift ? "✓ " : ""}${text}`;
  verdict.classList.toggle("shift", isShift);
  return text;
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
  const controls = { kernel: kernelControl(model, set) };
  const maps = { picture: mapView("picture", "Picture"), result: mapView("result", "Convolution") };
  // Between a new size and its frame the old cells still stand: what is past the end is left out.
  const change = (n, value) =>
    set({ kernel: model.get("kernel").map((old, m) => (m === n ? value : old)) });
  const table = kernelTable(change);
  const line = (kind) => element("p", { class: kind });
  const view = { f, controls, maps, table, verdict: line("verdict"), sum: line("sum"),
    remember: memory() };
  maps.picture.photo(f);
  pickPixel(model, view, { redraw, set });
  const middle = element("div", { class: "map" }, element("div", { class: "title" }, "Kernel"),
    table.box, view.sum);
  view.parts = [
    element("div", { class: "bench", "data-aim": "" }, maps.picture.box, middle, maps.result.box),
    view.verdict];
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
  view.accept = { pixel: isInside(bounds) };
}

const draw = (model, view) =>
  drawBench(model, view, model.get("kernel"), view.pointed ?? model.get("pixel"));

export default explorer({ build, draw });
