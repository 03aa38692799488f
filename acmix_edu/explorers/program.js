// The program explorer: one tile of the GPU kernel, and its softmax block after block.

import { colourFeatures, reflect } from "./engine.js";
import {
  AMOUNT, choice, clamp, element, explorer, figure, floats, headline, intoMap, isInside, mapView,
  memory, outline, pickable, player, plus, precise, scaleBar, slider, squareAt, steerable, tuple,
} from "./kit.js";

// ---- The mathematics ------------------------------------------------------------------------

const QUERIES = 16, FEATURES = 4, COLOURS = 3, SMALLEST = -1e38;
const SCALE = Math.log2(Math.E) / Math.sqrt(FEATURES);
const range = (count, make) => Array.from({ length: count }, (_, n) => make(n));
const product = (a, b) => a * b;

// "2×8" → [2, 8]; W is the map's width.
const sidesOf = (text, width) => text.replace("W", width).split("×").map(Number);

// One side of the map: where the tile begins and where the blocks do, `count` of `block` pixels,
// enough for all that the tile's windows reach; and where these begin and end.
function axisOf(size, { tile, block, kernel }, pixel) {
  const half = (kernel - 1) / 2, corner = pixel - (pixel % tile);
  const count = Math.ceil(Math.min(tile + kernel - 1, size) / block);
  const first = Math.max(Math.min(corner - half, size - count * block), 0);
  const low = Math.max(corner - half, 0), high = Math.min(corner + tile + half, size);
  return { size, tile, block, kernel, corner, count, first, low, reached: high - low };
}

// How often the window of each of the tile's queries holds each key of the axis' blocks.
function timesOf({ size, tile, block, kernel, corner, count, first }) {
  const half = (kernel - 1) / 2, offsets = range(kernel, (n) => n - half);
  return range(tile, (i) => {
    const times = new Uint8Array(count * block), query = corner + i;
    if (query >= size) return times;
    for (const offset of offsets) times[reflect(query + offset, size) - first] += 1;
    return times;
  });
}

const axesOf = (model, { height, width }, pixel) => {
  const [tile, block] = ["tile", "block"].map((trait) => sidesOf(model.get(trait), width));
  const kernel = model.get("kernel_att");
  return [height, width].map((size, n) => axisOf(size, { tile: tile[n], block: block[n], kernel },
    pixel[n]));
};
const neededBy = (axes) => axes.map(({ count }) => count).reduce(product);

// The logits of one block, by query and key, and how often each key counts for each query.
function logitsOf({ q, width, height }, axes, times, block) {
  const [rows, columns] = axes, at = [Math.floor(block / columns.count), block % columns.count];
  const origin = axes.map((axis, n) => axis.first + at[n] * axis.block);
  const keys = rows.block * columns.block, size = height * width;
  const logits = new Float64Array(QUERIES * keys), counts = new Uint8Array(QUERIES * keys);
  for (let n = 0; n < QUERIES * keys; n++) {
    const query = Math.floor(n / keys), key = n % keys;
    const i = [Math.floor(query / columns.tile), query % columns.tile];
    const y = [Math.floor(key / columns.block), key % columns.block];
    const m = [0, 1].map((axis) => times[axis][i[axis]][at[axis] * axes[axis].block + y[axis]]);
    counts[n] = m[0] * m[1];
    logits[n] = Math.sqrt(FEATURES) * Math.log(counts[n]);
    if (!counts[n]) continue;
    const from = (rows.corner + i[0]) * width + columns.corner + i[1];
    const to = (origin[0] + y[0]) * width + origin[1] + y[1];
    for (let e = 0; e < FEATURES; e++) logits[n] += q[e * size + from] * q[e * size + to];
  }
  const pixels = range(keys, (n) => (origin[0] + Math.floor(n / columns.block)) * width
    + origin[1] + n % columns.block);
  const there = [height, width].map((side, n) => Math.min(axes[n].block, side - origin[n]));
  return { origin, keys, logits, counts, pixels, there: there.reduce(product) };
}

// One more block for one query: the kernel's four lines.
function meetBlock({ top, total, average }, { keys, logits, pixels, weights }, query, colours) {
  const first = query * keys, size = colours.length / COLOURS;
  const newTop = logits.subarray(first, first + keys).reduce((a, b) => Math.max(a, b), top);
  const shrink = 2 ** ((top - newTop) * SCALE);
  const next = { top: newTop, shrink, total: total * shrink,
    average: average.map((a) => a * shrink) };
  for (let n = 0; n < keys; n++) {
    const weight = weights[first + n] = 2 ** ((logits[first + n] - newTop) * SCALE);
    if (!weight) continue;
    next.total += weight;
    for (let c = 0; c < COLOURS; c++) next.average[c] += weight * colours[c * size + pixels[n]];
  }
  return next;
}

// All of the program: its blocks, and what the queries hold before the first and after each.
function runProgram(view, axes) {
  const times = axes.map(timesOf);
  const blocks = range(neededBy(axes), (n) => logitsOf(view.data, axes, times, n));
  const nothing = { top: SMALLEST, shrink: 1, total: 0, average: [0, 0, 0] };
  const states = [range(QUERIES, () => nothing)];
  for (const block of blocks) {
    block.weights = new Float64Array(block.logits.length);
    states.push(states.at(-1).map((state, n) => meetBlock(state, block, n, view.data.colours)));
  }
  return { blocks, states };
}

const outOf = ({ total, average }) => average.map((a) => a / total);  // NaN before the first key
const lseOf = ({ top, total }) => top * SCALE + Math.log2(total);

function computeProgram(model, view) {
  const pixel = view.hovered ?? model.get("pixel"), axes = axesOf(model, view.sizes, pixel);
  const corner = axes.map((axis) => axis.corner);
  const traits = ["tile", "block", "kernel_att"].map((trait) => model.get(trait));
  const { blocks, states } = view.remember("run", [traits, corner], () => runProgram(view, axes));
  const needed = blocks.length, met = Math.min(model.get("step"), needed);
  const query = (pixel[0] - corner[0]) * axes[1].tile + pixel[1] - corner[1];
  return { pixel, axes, blocks, states, needed, met, query, kernel: traits[2] };
}

// ---- The page -------------------------------------------------------------------------------

const TITLES = { picture: "Photograph: a tile, its blocks of keys", logits: "",
  patch: "The blocks of keys", sofar: "Output so far", answer: "At the end", own: "Photograph" };
const BLOCKS = { "8×16": "8×16, kernel's", "4×W": "4×W, whole rows" };
const square = (side) => `${side}×${side}`;

function controlsOf(model, sizes) {
  const needed = () => neededBy(axesOf(model, sizes, model.get("pixel")));
  const step = slider({ name: "step", label: "Blocks met", min: 0, max: sizes.most,
    say: (n) => `${n} of ${needed()}` });
  const show = (value) => {
    step.input.max = needed();
    step.show(Math.min(value, needed()));
  };
  return {
    tile: choice({ name: "tile", label: "Tile of queries",
      options: sizes.tiles.map((tile) => [tile, tile]) }),
    block: choice({ name: "block", label: "Block of keys",
      options: sizes.blocks.map((block) => [block, BLOCKS[block] ?? block]) }),
    kernel_att: slider({ name: "kernel_att", label: "Window, k", min: sizes.windows[0],
      max: sizes.windows.at(-1), step: 2, say: square }),
    step: { ...step, show } };
}

function buildProgram(model, { redraw, set }) {
  const sizes = model.get("sizes"), { height, width } = sizes, colours = floats(model.get("image"));
  const controls = controlsOf(model, sizes);
  const steps = player(controls.step, (step) => set({ step }), 900);
  const maps = Object.fromEntries(Object.entries(TITLES).map(([name, title]) =>
    [name, mapView(name, title)]));
  maps.picture.photo({ data: colours, channels: COLOURS, height, width });
  const q = Float64Array.from(colourFeatures(colours), (f) => sizes.scaled * f);
  const rows = Object.fromEntries(Object.keys(TALLIES).map((name) => [name, tallyOf(name)]));
  const [reading, end] = ["reading", "end"].map((name) => element("p", { class: name }));
  const lines = element("tbody"), heading = headline("");
  const view = { sizes, controls, maps, rows, reading, end, lines, heading, player: steps.box,
    data: { colours, q, height, width }, remember: memory(), reset: steps.stop,
    release: steps.stop, accept: { pixel: isInside([height, width]) } };
  view.parts = partsOf(view);
  followProgram(model, view, { redraw, set });
  return view;
}

const TABLE = ["Block", "top·scale", "shrink", "total", "average/total"];

function partsOf({ maps, rows, reading, end, lines, heading }) {
  const { picture, logits, patch, ...tiles } = maps;
  const head = element("tr", {}, ...TABLE.map((name) => element("th", { scope: "col" }, name)));
  const table = element("table", {}, element("thead", {}, head), lines);
  const boxesOf = (views) => Object.values(views).map(({ box }) => box);
  picture.box.dataset.aim = "tile block kernel_att pixel";
  return [element("div", { class: "board" },
    picture.box,
    element("div", { class: "tallies" }, ...boxesOf(rows)),
    element("div", { class: "work", "data-aim": "step" }, logits.box, patch.box),
    element("div", { class: "tiles" }, ...boxesOf(tiles)),
    element("div", { class: "lines" }, reading, heading, table, end))];
}

const TALLIES = { blocks: "Blocks per tile", logits: "Logits per useful logit",
  keys: "Keys read" };

function tallyOf(name) {
  const [value, why] = ["b", "span"].map((tag) => element(tag));
  const box = element("div", { class: "tally", "data-row": name },
    element("span", {}, TALLIES[name]), value, why);
  return { box, say: (number, words) => { value.textContent = number; why.textContent = words; } };
}

// The picture chooses tile and query at once, the other maps only a query of the tile.
function followProgram(model, view, { redraw, set }) {
  const { maps, sizes: { height, width } } = view, sides = [height, width];
  const hover = (pixel) => { view.hovered = pixel; redraw(); };
  const pin = (pixel) => { view.hovered = null; set({ pixel }); };
  const inTile = (place) =>
    intoMap(plus(view.now.axes.map(({ corner }) => corner), place), sides);
  const ofRow = ([row]) => {
    const { tile } = view.now.axes[1];
    return inTile([Math.floor(row / tile), row % tile]);
  };
  const ofPatch = (place) => inTile(view.now.axes.map(({ first, corner, tile }, axis) =>
    clamp(first + place[axis] - corner, 0, tile - 1)));
  const places = { picture: (at) => at, logits: ofRow, patch: ofPatch, sofar: inTile,
    answer: inTile, own: inTile };
  for (const [name, place] of Object.entries(places)) pickable(maps[name], hover, pin, place);
  steerable(maps.picture, "Photograph; arrow keys move the query", (step) =>
    pin(intoMap(plus(model.get("pixel"), step), sides)));
}

// ---- Drawing --------------------------------------------------------------------------------

const exact = (value) => (Number.isInteger(value) ? String(value) : figure(value));
const counted = (count, one, many) => `${count} ${count === 1 ? one : many}`;
const percent = (part) => (part > 0 && part < 0.01 ? "less than 1 %"
  : part > 0.99 && part < 1 ? "more than 99 %" : `${Math.round(100 * part)} %`);
const TALL = 7;  // of a map whose shape changes, in rem
const rectangle = (axes, first, sides, kind) => {
  const [[row, column], [rows, columns]] = [first, sides].map((name) =>
    axes.map((axis) => axis[name]));
  return { row, column, rows, columns, kind };
};
const sidewise = (sides) => sides.join("×");

const entryOf = (kind, words) => element("span", { class: "entry" },
  element("span", { class: `key ${kind}` }), ` ${words}`);

// The blocks of a map that begins at (top, left), the present one on top of the others.
function blockShapes({ axes, blocks, met }, kind, [top, left]) {
  const shape = ({ origin: [y, x] }, name) => element("rect", { x: x - left, y: y - top,
    width: axes[1].block, height: axes[0].block, class: name });
  const shapes = blocks.map((block, n) => shape(block, kind(n)));
  const present = shapes.splice(met - 1, met ? 1 : 0);
  return met ? [...shapes, shape(blocks[met - 1], "halo"), ...present] : shapes;
}

function drawPicture({ maps: { picture } }, now) {
  const { axes, met, pixel } = now;
  outline(picture, [rectangle(axes, "low", "reached", "reach"),
    rectangle(axes, "corner", "tile", "tile"), squareAt(pixel, 1, "here")]);
  const kind = (n) => (n < met - 1 ? "seen" : n < met ? "seen present" : "block");
  picture.overlay.prepend(...blockShapes(now, kind, [0, 0]));
  picture.say(`The photograph; the tile of query ${tuple(pixel)} and the blocks of its keys`);
  picture.note.replaceChildren(
    entryOf("tile", `tile: ${sidewise(axes.map(({ tile }) => tile))} queries`), " ",
    entryOf("reach", `reached: ${sidewise(axes.map(({ reached }) => reached))} keys`), " ",
    entryOf("seen", "blocks met"));
}

// All blocks, large: what is read in its colours, what is still to come nearly grey.
const TO_COME = 0.8;
function drawPatch({ maps: { patch }, data: { colours, height, width } }, now) {
  const { axes: [rows, columns], blocks, met, pixel, kernel } = now, size = height * width;
  const sides = [rows, columns].map(({ count, block }) => count * block);
  patch.paint(...sides, (n) => {
    const y = Math.floor(n / sides[1]), x = n % sides[1];
    const block = Math.floor(y / rows.block) * columns.count + Math.floor(x / columns.block);
    if (rows.first + y >= height || columns.first + x >= width) return [0, 0, 0, 0];
    const faded = block < met ? 0 : TO_COME, at = (rows.first + y) * width + columns.first + x;
    const level = (c) => 255 * colours[c * size + at];
    return [...range(COLOURS, (c) => Math.round(level(c) + faded * (128 - level(c)))), 255];
  });
  patch.frame.style.width = `min(100%, ${TALL * sides[1] / sides[0]}rem)`;
  const moved = ({ row, column, ...shape }) =>
    ({ row: row - rows.first, column: column - columns.first, ...shape });
  outline(patch, [rectangle(now.axes, "corner", "tile", "tile"), squareAt(pixel, kernel, "window"),
    squareAt(pixel, 1, "here")].map(moved));
  patch.overlay.prepend(...blockShapes(now, (n) => (n === met - 1 ? "present" : "block"),
    [rows.first, columns.first]));
  const read = blocks.slice(0, met).reduce((sum, { there }) => sum + there, 0);
  patch.say(`The ${counted(blocks.length, "block", "blocks")} of keys, of which ${met} met`);
  patch.note.replaceChildren(entryOf("window", "the window"),
    `; ${counted(read, "key", "keys")} read${met < blocks.length ? ", grey: not yet" : ""}`);
}

// Before the first block, its place is blank.
function drawLogits({ maps: { logits } }, { axes, blocks, met, query }) {
  const { keys, weights, counts } = blocks[Math.max(met - 1, 0)], across = axes[1].block;
  logits.draw(weights.map((weight, n) => (met && counts[n] ? weight : NaN)), QUERIES, keys, 0, 1,
    AMOUNT);
  outline(logits, [{ row: query, column: 0, rows: 1, columns: keys, kind: "here" }]);
  logits.overlay.prepend(element("path", { class: "rows",
    d: range(keys / across - 1, (n) => `M${(n + 1) * across} 0V${QUERIES}`).join("") }));
  const hidden = counts.filter((count) => !count).length / counts.length;
  const size = `${QUERIES} queries × ${keys} keys`;
  logits.title.textContent = met ? `Logits of block ${met}: ${size}` : `No block yet: ${size}`;
  logits.say(met ? `The logits of block ${met}, ${size}, as weights` : "No block has been met",
    ...(met ? [scaleBar(0, 1, AMOUNT, { say: (n) => (n ? "1, a query's largest logit so far" : "weight 0") }),
      `Rows are queries, columns keys. Hatched: outside a query's window, ${percent(hidden)}.`]
      : ["The first block will stand here."]));
}

// Every tile map has a colour for each query that is there; nothing where no key has been met.
function drawTile(map, { axes, query }, label, colourOf) {
  const [rows, columns] = axes.map(({ tile }) => tile);
  map.paint(rows, columns, (n) => {
    const levels = colourOf(n).map((level) => Math.round(255 * level));
    return levels.some(Number.isNaN) ? [0, 0, 0, 0] : [...levels, 255];
  });
  map.frame.style.width = columns > rows ? "" : `min(100%, ${TALL * columns / rows}rem)`;
  map.box.classList.toggle("wide", columns > rows);
  outline(map, [squareAt([Math.floor(query / columns), query % columns], 1, "here")]);
  map.say(label);
}

function drawTiles({ maps, data: { colours, height, width } }, now) {
  const { axes, states, met } = now, [rows, columns] = axes, size = height * width;
  const own = (n) => {
    const y = rows.corner + Math.floor(n / columns.tile), x = columns.corner + n % columns.tile;
    const isThere = y < height && x < width;
    return range(COLOURS, (c) => (isThere ? colours[c * size + y * width + x] : NaN));
  };
  drawTile(maps.sofar, now, "The tile's output so far", (n) => outOf(states[met][n]));
  drawTile(maps.answer, now, "The tile's output at the end", (n) => outOf(states.at(-1)[n]));
  drawTile(maps.own, now, "The tile in the photograph", own);
}

const MOST_LINES = 4;

function drawLines({ lines, end, heading }, { states, met, query, pixel, needed }) {
  heading.textContent = `What query ${tuple(pixel)} holds`;
  const shown = range(Math.min(met, MOST_LINES), (n) => met - Math.min(met, MOST_LINES) + n + 1);
  lines.replaceChildren(...shown.map((n) => lineOf(n, states[n][query])));
  const last = states[met][query];
  end.textContent = met < needed ? "" : `All blocks met: out = average/total, lse = top·scale + `
    + `log₂ total = ${figure(lseOf(last))}.`;
}

function lineOf(n, state) {
  const out = outOf(state), levels = out.map((level) => Math.round(255 * level));
  const swatch = state.total
    ? [element("span", { class: "swatch", style: `background: rgb(${levels.join(", ")})` }),
      ` ${out.map((level) => level.toFixed(2)).join(", ")}`] : ["–"];
  const top = state.top === SMALLEST ? "−7·10³⁷" : figure(state.top * SCALE);
  const cells = [n, top, precise(state.shrink), figure(state.total)];
  return element("tr", {}, ...cells.map((text) => element("td", {}, text)),
    element("td", {}, ...swatch));
}

// The keys of its window that the query has met, and how much weight they have in the end.
function readingOf({ blocks, states, met, query, kernel }) {
  const all = kernel ** 2, last = states.at(-1)[query], now = states[met][query];
  const times = blocks.map(({ counts, keys }) => counts.subarray(query * keys, (query + 1) * keys));
  const seen = times.slice(0, met).reduce((sum, some) => some.reduce((a, b) => a + b, sum), 0);
  const mirrored = times.some((some) => some.some((m) => m > 1)) ? ", mirror images counted" : "";
  const window = `${all} keys of its window${mirrored}`;
  if (seen === all) return `The query has met all ${window}: this is its output.`;
  if (!seen) return `The query has met none of the ${window}: no output yet.`;
  const share = 2 ** (lseOf(now) - lseOf(last));
  return `The query has met ${seen} of the ${window}, ${percent(share)} of the total weight. `
    + "Their softmax is not yet its output.";
}

function drawTallies({ rows }, { axes, kernel, needed }) {
  const counts = axes.map(({ count }) => count), blocks = axes.map(({ block }) => block);
  const keys = blocks.reduce(product), covered = counts.map((count, n) => count * blocks[n]);
  const read = covered.map((side, n) => Math.min(side, axes[n].size));
  rows.blocks.say(needed, `${counts.join(" × ")} of ${sidewise(blocks)} keys`);
  rows.logits.say(exact((needed * keys) / kernel ** 2),
    `${needed} · ${keys} a query; its window has ${kernel ** 2}`);
  rows.keys.say(read.reduce(product),
    `${sidewise(read)}; ${QUERIES} separate windows: ${QUERIES * kernel ** 2}`);
}

function drawProgram(model, view) {
  const now = view.now = computeProgram(model, view), { axes, met, needed, pixel, kernel } = now;
  view.controls.step.show(model.get("step"));
  drawPicture(view, now);
  drawPatch(view, now);
  drawLogits(view, now);
  drawTiles(view, now);
  drawLines(view, now);
  drawTallies(view, now);
  view.reading.textContent = readingOf(now);
  return `A tile of ${sidewise(axes.map(({ tile }) => tile))} queries, windows of `
    + `${square(kernel)}: ${met} of ${counted(needed, "block", "blocks")} met. `
    + `Query ${tuple(pixel)}: `
    + view.reading.textContent;
}

export default explorer({ build: buildProgram, draw: drawProgram });
