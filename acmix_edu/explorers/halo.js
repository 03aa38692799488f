// The halo explorer: a tile of queries, the keys that it copies, and what its mask hides.

import { reflect } from "./engine.js";
import {
  AMOUNT, clamp, draggable, element, explorer, extent, figure, floats, headline, intoMap, isInside,
  mapView, memory, nearest, outline, pickable, plus, scaleBar, slider, spot, squareAt, steerable,
  tuple,
} from "./kit.js";

// ---- The mathematics ------------------------------------------------------------------------

// One side of the map. A tile of `tile` queries begins at `corner`; its halo of `side` keys begins
// at `first`. `pixels` are the keys, reflected at the border; `uses`, how many of the tile's
// queries use each; `seen`, whether the query does, which stands at `query` in the tile.
function axisOf(length, { tile, kernel }, pixel) {
  const half = (kernel - 1) / 2, side = tile + kernel - 1, query = pixel % tile;
  const corner = pixel - query, first = corner - half;
  const each = (make) => Array.from({ length: side }, (_, n) => make(n));
  return { corner, first, side, query,
    pixels: each((n) => reflect(first + n, length)),
    mirrored: each((n) => first + n < 0 || first + n >= length),
    uses: each((n) => Math.min(n, tile - 1) - Math.max(n - kernel + 1, 0) + 1),
    seen: each((n) => n >= query && n < query + kernel) };
}

// How many tiles have a pixel of this side in their halos, mirror images aside.
const tilesOver = (pixel, length, { tile, kernel }) => {
  const half = (kernel - 1) / 2, last = Math.floor((pixel + half) / tile);
  const first = Math.ceil((pixel - half - tile + 1) / tile);
  return Math.min(last, length / tile - 1) - Math.max(first, 0) + 1;
};

// Every cell of the halo: make(row, column, number).
function cellsOf([rows, columns], make) {
  return Array.from({ length: rows.side * columns.side }, (_, n) =>
    make(Math.floor(n / columns.side), n % columns.side, n));
}

// How often a part of the halo's cells holds each pixel.
function timesOf(cells, pixels) {
  const times = new Map();
  pixels.forEach((pixel, n) => {
    if (cells[n]) times.set(pixel, (times.get(pixel) ?? 0) + 1);
  });
  return times;
}

// The copies of each key, and the logits per useful logit.
const ratiosOf = (tile, kernel) =>
  [tile, kernel].map((side) => ((tile + kernel - 1) / side) ** 2);

function computeHalo(model, { sizes: { height, width, channels }, hovered }) {
  const tile = model.get("tile"), kernel = model.get("kernel_att");
  const pixel = hovered ?? model.get("pixel");
  const axes = [height, width].map((length, n) => axisOf(length, { tile, kernel }, pixel[n]));
  const [rows, columns] = axes, cells = (make) => cellsOf(axes, make);
  const pixels = cells((r, c) => rows.pixels[r] * width + columns.pixels[c]);
  const mirrored = cells((r, c) => rows.mirrored[r] || columns.mirrored[c]);
  const seen = cells((r, c) => rows.seen[r] && columns.seen[c]);
  const [copies, logits] = ratiosOf(tile, kernel), bytes = 4 * channels * height * width;
  return { tile, kernel, pixel, axes, side: rows.side, pixels, mirrored, seen, copies, logits,
    uses: cells((r, c) => rows.uses[r] * columns.uses[c]),
    repeats: timesOf(pixels.map(() => true), pixels), times: timesOf(seen, pixels),
    bytes: bytes * copies, unfolded: bytes * kernel ** 2 };
}

// ---- The page -------------------------------------------------------------------------------

const TITLES = { picture: "Photograph: a tile, its halo", uses: "Queries that use each key",
  mask: "What one query sees" };

// A slider over a list of numbers.
function stops(values, { name, label, say }) {
  const inner = slider({ name, label, min: 0, max: values.length - 1, say: (n) => say(values[n]) });
  return { ...inner, show: (value) => inner.show(values.indexOf(value)),
    read: () => values[inner.read()], accept: (value) => values.includes(value) };
}

const square = (side) => `${side}×${side}`;

function buildHalo(model, { redraw, set }) {
  const sizes = model.get("sizes"), { height, width } = sizes, data = floats(model.get("image"));
  const controls = {
    tile: stops(sizes.tiles, { name: "tile", label: "Tile, t", say: square }),
    kernel_att: stops(sizes.windows, { name: "kernel_att", label: "Window, k", say: square }) };
  const maps = Object.fromEntries(Object.entries(TITLES).map(([n, title]) => [n, mapView(n, title)]));
  maps.picture.photo({ data, channels: 3, height, width });
  const photo = maps.picture.canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const rows = Object.fromEntries(["copies", "logits"].map((name) => [name, rowOf(name)]));
  const bytes = element("p", { class: "bytes" });
  const chart = chartOf(sizes, (tile) => set({ tile }));
  const parts = [
    element("div", { class: "maps", "data-aim": "tile kernel_att pixel" },
      ...Object.values(maps).map((map) => map.box)),
    element("div", { class: "board" },
      element("div", {}, ...Object.values(rows).map((row) => row.box), bytes), chart.box)];
  const view = { sizes, controls, maps, photo, rows, bytes, chart, parts, remember: memory() };
  view.accept = { pixel: isInside([height, width]) };
  followHalo(model, view, { redraw, set });
  return view;
}

// The picture chooses tile and query at once, the other maps only a query of the tile.
function followHalo(model, view, { redraw, set }) {
  const { maps, sizes: { height, width } } = view;
  const hover = (pixel) => { view.hovered = pixel; redraw(); };
  const pin = (pixel) => { view.hovered = null; set({ pixel }); };
  const inTile = (cell) => view.now.axes.map(({ corner, first }, axis) =>
    corner + clamp(first + cell[axis] - corner, 0, view.now.tile - 1));
  const places = { picture: (at) => at, uses: inTile, mask: inTile };
  for (const [name, place] of Object.entries(places)) pickable(maps[name], hover, pin, place);
  steerable(maps.picture, "Photograph; arrow keys move to the next tile", (step) => {
    const tile = model.get("tile"), now = model.get("pixel").map((n) => Math.floor(n / tile));
    const kept = intoMap(plus(now, step), [height / tile, width / tile]);
    pin(model.get("pixel").map((n, axis) => (n % tile) + tile * kept[axis]));
  });
  steerable(maps.mask, "The halo; arrow keys move the query in its tile", (step) => {
    const tile = model.get("tile");
    pin(model.get("pixel").map((n, axis) =>
      n - (n % tile) + clamp((n % tile) + step[axis], 0, tile - 1)));
  });
}

const ROWS = { copies: "Copies of each key", logits: "Logits per useful logit" };

function rowOf(name) {
  const [value, why] = ["b", "span"].map((tag) => element(tag));
  const key = element("span", { class: `key ${name}` });
  const box = element("div", { class: "tally", "data-row": name }, key,
    element("span", {}, ROWS[name]), value, why);
  return { box, say: (number, words) => { value.textContent = number; why.textContent = words; } };
}

// Both ratios over the side of the tile, on logarithmic axes that stay while k changes. The lines
// end at the tile that is chosen: what larger ones bring is left to be guessed, and a hint says how
// to see it. A tile that lies too near to the next one has no number below the chart.
const NEAR = 6;  // percent of the width
function chartOf({ tiles, windows, height, width }, choose) {
  const most = tiles.at(-1), ends = [windows[0], windows.at(-1)];
  const top = Math.max(...[1, most].flatMap((t) => ends.flatMap((k) => ratiosOf(t, k))));
  const across = (t) => 100 * Math.log(t) / (Math.log(most) || 1);
  const up = (ratio) => 100 - 96 * Math.log(ratio) / Math.log(top) - 2;
  const svg = element("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" });
  draggable(svg, (part) => choose(nearest(tiles, (t) => Math.abs(across(t) - 100 * part))));
  const label = (place, text) => element("span", { style: place }, text);
  const levels = [1, 10, 100].filter((n) => n <= top);
  const told = tiles.filter((t, n) => !(across(tiles[n + 1]) - across(t) < NEAR));
  const hint = element("span", { class: "hint" }, "Drag t up", element("br"), "to extend the lines");
  const box = element("div", { class: "chart" },
    headline("Both, by the side t of a tile"),
    element("div", { class: "levels", "aria-hidden": "true" },
      ...levels.map((n) => label(`top: ${up(n).toFixed(2)}%`, `${n}×`))), svg, hint,
    element("div", { class: "ticks", "aria-hidden": "true" },
      ...told.map((t) => label(`left: ${across(t).toFixed(2)}%`, t))),
    element("p", { class: "extremes" }, element("span", {}, "← t = 1: unfold"),
      element("span", {}, most === height && most === width ? `t = ${most}: dense →` : "")));
  const grid = [...levels.slice(1).map((n) => `M0 ${up(n).toFixed(2)}H100`),
    ...told.map((t) => `M${across(t).toFixed(2)} 0V100`)].join("");
  return { box, svg, tiles, across, up, hint, grid };
}

// ---- Drawing --------------------------------------------------------------------------------

const HIDDEN = 0.8;  // how far a hidden key is faded to grey
const FEW = 24;  // keys along a side, so that a number on a cell can be read
const exact = (value) => (Number.isInteger(value) ? String(value) : figure(value));
const counted = (count, one, many) => `${count} ${count === 1 ? one : many}`;

// The photograph, a little bluer with every further halo that a pixel lies in; but not where they
// overlap everywhere.
const OVERLAP = [31, 122, 140], LEAST = 0.7, EACH = 0.4;  // of its own colour, that it keeps
function tintOverlaps({ maps: { picture }, photo, sizes: { height, width } }, now) {
  const rows = Array.from({ length: height }, (_, n) => tilesOver(n, height, now));
  const columns = Array.from({ length: width }, (_, n) => tilesOver(n, width, now));
  const tells = now.tile >= now.kernel;
  picture.paint(height, width, (n) => {
    const others = tells ? rows[Math.floor(n / width)] * columns[n % width] - 1 : 0;
    const kept = LEAST + (1 - LEAST) * EACH ** others;
    return [...OVERLAP.map((level, c) =>
      Math.round(level + kept * (photo[4 * n + c] - level))), 255];
  });
}

function drawPhotograph(view, now) {
  const { maps: { picture } } = view, { axes, tile, side, pixel } = now;
  view.remember("tint", [tile, now.kernel], () => tintOverlaps(view, now));
  const [[top, left], [y, x]] = ["corner", "first"].map((name) => axes.map((axis) => axis[name]));
  outline(picture, [
    { row: y, column: x, rows: side, columns: side, kind: "reach" },
    { row: top, column: left, rows: tile, columns: tile, kind: "tile" },
    squareAt(pixel, 1, "here")]);
  picture.say(`The photograph; the tile of query ${tuple(pixel)} and its halo`);
  const entry = (kind, words) =>
    element("span", { class: "entry" }, element("span", { class: `key ${kind}` }), ` ${words} `);
  picture.note.replaceChildren(entry("tile", `tile: ${square(tile)} queries`), " ",
    entry("reach", `halo: ${square(side)} keys`), " ",
    ...(tile < Math.max(view.sizes.height, view.sizes.width) ? [overlap(now, entry)] : []));
}

// Where tiles are smaller than windows, only the pixels in the corners can lie in one halo alone.
function overlap({ tile, kernel }, entry) {
  if (tile >= kernel) return entry("overlap", "where halos overlap");
  const but = tile > (kernel - 1) / 2 ? " but in the corners" : "";
  return element("span", { class: "entry" }, `halos overlap everywhere${but}`);
}

function drawUses({ maps: { uses } }, now) {
  const { side, tile, kernel, axes } = now, most = extent(now.uses)[1];
  uses.draw(now.uses, side, side, 0, most, AMOUNT);
  const at = axes.map(({ query }) => query);
  outline(uses, [tileOn(now), { row: at[0], column: at[1], rows: kernel, columns: kernel,
    kind: "window" }]);
  hatchMirrored(uses, now);
  uses.say(`The halo, ${side} by ${side} keys: how many queries of the tile use each`,
    scaleBar(0, most, AMOUNT, { say: String }),
    `of the tile's ${counted(tile ** 2, "query", "queries")}; each key is copied once`);
}

const tileOn = ({ kernel, tile }) => {
  const half = (kernel - 1) / 2;
  return { row: half, column: half, rows: tile, columns: tile, kind: "tile" };
};

function hatchMirrored(map, { mirrored, side }) {
  const strokes = mirrored.map((is, n) => (is ? `M${n % side} ${Math.floor(n / side) + 1}l1 -1` : ""));
  map.overlay.prepend(element("path", { d: strokes.join(""), class: "mirrored" }));
}

function drawMask({ maps: { mask }, photo }, now) {
  const { side, seen, pixels, axes, kernel, tile, pixel } = now;
  const faded = (level) => Math.round(level + HIDDEN * (128 - level));
  mask.paint(side, side, (n) => {
    const own = [...photo.subarray(4 * pixels[n], 4 * pixels[n] + 3)];
    return [...(seen[n] ? own : own.map(faded)), 255];
  });
  const [row, column] = axes.map(({ query }) => query), half = (kernel - 1) / 2;
  outline(mask, [tileOn(now), { row, column, rows: kernel, columns: kernel, kind: "window" },
    squareAt([row + half, column + half], 1, "here")]);
  hatchMirrored(mask, now);
  writeTimes(mask, now);
  mask.say(`The keys that query ${tuple(pixel)} sees, of those that its tile copies`,
    `${tuple(pixel)} sees ${kernel ** 2} of ${side ** 2} keys, the mask hides `
    + `${side ** 2 - kernel ** 2}`);
}

// How often the window meets a key, written on the key itself where it is more than once.
function writeTimes(map, { side, seen, mirrored, pixels, times }) {
  const box = map.numbers ??= map.frame.appendChild(element("div", { class: "numbers" }));
  const many = (n) => seen[n] && !mirrored[n] && times.get(pixels[n]) > 1;
  const cells = side > FEW ? [] : [...seen.keys()].filter(many);
  box.replaceChildren(...cells.map((n) => element("span", { "data-cell": n,
    style: `left: ${(100 * (n % side + 0.5)) / side}%; `
      + `top: ${(100 * (Math.floor(n / side) + 0.5)) / side}%` }, times.get(pixels[n]))));
}

function drawNumbers({ rows, bytes, chart, sizes }, now) {
  const { tile, kernel, side, copies, logits } = now, { svg, tiles, across, up, hint, grid } = chart;
  rows.copies.say(exact(copies), `(${side}/${tile})², unfold: ${kernel ** 2}`);
  rows.logits.say(exact(logits), `(${side}/${kernel})², unfold: 1`);
  const mebibytes = (count) => `${figure(count / 2 ** 20)} MiB`;
  bytes.textContent = `All copies of k, ${sizes.channels} channels of ${sizes.height}×`
    + `${sizes.width}: ${mebibytes(now.bytes)}, unfold: ${mebibytes(now.unfolded)}.`
    + ` ${repeated(now)}`;
  const point = (t, n) => [across(t), up(ratiosOf(t, kernel)[n])].map((at) => at.toFixed(2));
  const reached = tiles.filter((t) => t <= tile);
  const drawn = ["copies", "logits"].flatMap((kind, n) => [
    element("path", { class: kind, d: `M${reached.map((t) => point(t, n).join(" ")).join("L")}` }),
    element("path", { class: `${kind} dot`, d: spot(...point(tile, n)) })]);
  const x = across(tile).toFixed(2);
  svg.replaceChildren(element("path", { class: "grid", d: grid }),
    element("path", { class: "cursor", d: `M${x} 0V100` }), ...drawn);
  hint.hidden = across(tile) > 50;
  svg.setAttribute("aria-label", "Copies of each key and logits per useful logit over the side of "
    + `a tile, drawn from 1 to ${tile}: there, ${exact(copies)} and ${exact(logits)}`);
}

// What the halo holds more than once, because it hangs over the border.
function repeated({ repeats, mirrored }) {
  const outside = mirrored.filter(Boolean).length, tally = new Map();
  if (!outside) return "This halo lies inside the map.";
  for (const times of repeats.values()) tally.set(times, (tally.get(times) ?? 0) + 1);
  const said = [...tally].sort(([a], [b]) => a - b).filter(([times]) => times > 1)
    .map(([times, keys]) => `${counted(keys, "key", "keys")} ${times} times`);
  return `Hatched: ${outside} mirror images past the border; the halo holds ${said.join(", ")}.`;
}

function drawHalo(model, view) {
  const now = view.now = computeHalo(model, view), { tile, kernel } = now;
  drawPhotograph(view, now);
  drawUses(view, now);
  drawMask(view, now);
  drawNumbers(view, now);
  return `Tiles of ${square(tile)}, windows of ${square(kernel)}: ${exact(now.copies)} copies of `
    + `each key, ${exact(now.logits)} logits per useful logit. ${view.maps.mask.note.textContent}.`;
}

export default explorer({ build: buildHalo, draw: drawHalo });
