// The film explorer: nine kernels of one output while they learn, from two starts side by side.

import {
  SIGNED, draggable, element, explorer, extent, figure, floats, headline, intoMap, isInside,
  mapView, memory, nearest, outline, pickable, player, plus, reach, scaleBar, slider, spot,
  squareAt, steerable, toggle,
} from "./kit.js";

const TITLES = { acmix: "Shift start", "lost-init": "Random start" };
const K = 3, TAPS = K * K, SIZE = TAPS * TAPS, OUTPUTS = 4;
const DOTS = 3;  // of the map, along a side of a number: a line between kernels is one dot wide
const SIDE = DOTS * TAPS + K - 1;  // three rows of kernels and two lines between them

// ---- The mathematics ------------------------------------------------------------------------

// The 81 numbers of one output at one moment; `now` is { start, moment, channel }.
const kernelsOf = (all, moments, { start, moment, channel }) => {
  const first = ((start * moments + moment) * OUTPUTS + channel) * SIZE;
  return all.subarray(first, first + SIZE);
};

// A place among the nine kernels, 0 … 8 each way: its number, and its middle on the map. On a line,
// the number after it is meant.
const numberAt = ([row, column]) =>
  ((Math.floor(row / K) * K + Math.floor(column / K)) * K + (row % K)) * K + (column % K);
const onMap = (place) => place.map((n) => DOTS * n + Math.floor(n / K) + (DOTS - 1) / 2);
const fromMap = (place) => place.map((n) =>
  Math.floor((n - Math.floor(n / (DOTS * K + 1))) / DOTS));

// How many of the nine kernels are largest, by size, at the cell where a shift has its 1.
const atHome = (kernels) => Array.from({ length: TAPS }, (_, t) => {
  const sizes = [...kernels.subarray(t * TAPS, (t + 1) * TAPS)].map(Math.abs);
  return sizes[t] === Math.max(...sizes);
}).filter(Boolean).length;

// How far any number of another output is from the same number of this one.
const apart = (of, channel) => {
  const mine = of(channel), others = [0, 1, 2, 3].map(of);
  return Math.max(...others.flatMap((other) => [...other].map((v, n) => Math.abs(v - mine[n]))));
};

// ---- The page -------------------------------------------------------------------------------

function buildFilm(model, { redraw, set }) {
  const told = model.get("told"), starts = Object.keys(TITLES), moments = told[starts[0]].length;
  const controls = {
    moment: slider({ name: "moment", label: "Training step", min: 0, max: moments - 1,
      say: (n) => String(told[starts[0]][n].step) }),
    channel: slider({ name: "channel", label: "Output, 0 to 3", min: 0, max: OUTPUTS - 1 }),
    change: toggle({ name: "change", label: "change since the start" }),
  };
  const steps = player(controls.moment, (moment) => set({ moment }), 400);
  const maps = starts.map((start) => mapView(start, TITLES[start]));
  const [reading, scale] = ["reading", "scale"].map((name) => element("p", { class: name }));
  const data = { told, noisy: model.get("noisy") }, pick = (moment) => set({ moment });
  const charts = ["psnr", "drift"].map((name) => chart(name, data, pick));
  const view = { controls, maps, starts, told, moments, charts, reading, scale,
    all: floats(model.get("kernels")), remember: memory(), reset: steps.stop, release: steps.stop };
  const hover = (cell) => { view.hovered = cell; redraw(); };
  const pin = (cell) => { view.hovered = null; set({ cell }); };
  for (const map of maps) {
    pickable(map, hover, pin, fromMap);
    steerable(map, `Nine kernels, ${map.title.textContent}; arrow keys choose a number`,
      (step) => pin(intoMap(plus(model.get("cell"), step), [TAPS, TAPS])));
  }
  view.accept = { cell: isInside([TAPS, TAPS]) };
  view.player = steps.box;
  view.parts = [element("div", { class: "pair" }, ...maps.map((map) => map.box)), reading,
    scale, element("div", { class: "pair" }, ...charts.map(({ box }) => box))];
  return view;
}

// Two lines up to the moment (what is to come is left to be guessed), from 0 to the largest value,
// over the square root of the step; a dotted one for the picture as it came; a cursor, which a
// click or a drag moves.
const CHARTS = { psnr: "Quality on the flower, PSNR in dB", drift: "Distance from the shifts" };
function chart(name, { told, noisy }, pick) {
  const frames = Object.keys(TITLES).map((start) => told[start]);
  const lines = frames.map((line) => line.map((frame) => frame[name]));
  const last = frames[0].at(-1).step, high = extent(lines.flat())[1];
  const x = (step) => 100 * Math.sqrt(step / last), y = (value) => 100 - (100 * value) / high;
  const path = (line, count) => line.slice(0, count).map((value, n) =>
    `${n ? "L" : "M"}${x(frames[0][n].step)} ${y(value)}`).join("");
  const cursor = element("path", { class: "cursor" });
  const level = name === "psnr"
    ? [element("path", { class: "chance", d: `M0 ${y(noisy)}H100` })] : [];
  const paths = lines.map((_, n) => element("path", { class: `line${n}` }));
  const dots = lines.map((_, n) => element("path", { class: `dot line${n}` }));
  const svg = element("svg", { viewBox: "0 -4 100 108", preserveAspectRatio: "none",
    "aria-hidden": "true" }, cursor, ...level, ...paths, ...dots);
  draggable(svg, (part) => pick(nearest([...frames[0].keys()],
    (n) => Math.abs(x(frames[0][n].step) - 100 * part))));
  const ends = element("div", { class: "ends" },
    ...[high, 0].map((end) => element("span", {}, figure(end))));
  const says = element("p", { class: "told", "data-told": name });
  const move = (moment) => {
    cursor.setAttribute("d", `M${x(frames[0][moment].step)} 0V100`);
    paths.forEach((node, n) => node.setAttribute("d", path(lines[n], moment + 1)));
    dots.forEach((node, n) => node.setAttribute("d",
      spot(x(frames[n][moment].step), y(lines[n][moment]))));
    const entry = (kind, ...words) => element("span", { class: "entry" },
      element("span", { class: `key ${kind}` }), ...words);
    says.replaceChildren(...Object.values(TITLES).map((title, n) => entry(`line${n}`,
      ` ${title.toLowerCase()} `, element("b", {}, figure(lines[n][moment])))),
      ...(level.length ? [entry("chance", ` noisy picture ${figure(noisy)}`)] : []));
  };
  const ticks = [0, last / 10, last].map((step) =>
    element("span", { style: `left: ${x(step)}%` }, step));
  const plot = element("div", { class: "plot" }, ends, svg,
    element("div", { class: "along" }, ...ticks),
    element("div", { class: "axis" }, "step (√ scale)"));
  return { box: element("div", { class: "chart" }, headline(CHARTS[name]), plot, says), move };
}

// ---- Drawing --------------------------------------------------------------------------------

function drawFilm(model, view) {
  const { all, maps, moments, starts, told } = view;
  const moment = model.get("moment"), channel = model.get("channel"), change = model.get("change");
  const at = (start, moment, channel) => kernelsOf(all, moments, { start, moment, channel });
  const shownAt = (start, n) => (change
    ? at(start, n, channel).map((value, m) => value - at(start, 0, channel)[m])
    : at(start, n, channel));
  const end = view.remember("end", [channel, change], () => reach(...starts.flatMap((_, start) =>
    Array.from({ length: moments }, (_, n) => shownAt(start, n)))));  // the scale stays
  const cell = view.hovered ?? model.get("cell"), n = numberAt(cell);
  maps.forEach((map, start) => {
    drawNine(map, shownAt(start, moment), end);
    outline(map, [squareAt(onMap(cell), DOTS, "here")]);
    const kernels = at(start, moment, channel);
    map.say(`The nine kernels of output ${channel}, ${TITLES[starts[start]].toLowerCase()}`,
      `${atHome(kernels)} of 9 are largest where a shift has its 1. The other three outputs `
      + `differ from this one by at most ${figure(apart((c) => at(start, moment, c), channel))}.`);
  });
  view.charts.forEach(({ move }) => move(moment));
  const values = starts.map((start, s) => `${TITLES[start].toLowerCase()} `
    + `${figure(at(s, moment, channel)[n])}, at the start ${figure(at(s, 0, channel)[n])}`);
  view.reading.textContent = `weight[${channel}, ${Math.floor(n / TAPS)}, ${cell[0] % K}, `
    + `${cell[1] % K}]: ${values.join("; ")}.`;
  view.scale.replaceChildren(change ? "Change since the start, " : "The numbers themselves, ",
    "on one scale at every step of this output:", scaleBar(-end, end, SIGNED));
  const { step } = told[starts[0]][moment];
  return `Step ${step}, output ${channel}. ${starts.map((start, s) => `${TITLES[start]}: quality `
    + `${figure(told[start][moment].psnr)} dB, ${maps[s].note.textContent}`).join(" ")}`;
}

// Kernel t stands at row t div 3, column t mod 3.
function drawNine(map, kernels, end) {
  const isLine = (n) => n % (DOTS * K + 1) === DOTS * K;
  const dots = Float32Array.from({ length: SIDE * SIDE }, (_, n) => {
    const place = [Math.floor(n / SIDE), n % SIDE];
    return place.some(isLine) ? NaN : kernels[numberAt(fromMap(place))];
  });
  map.draw(dots, SIDE, SIDE, -end, end, SIGNED);
}

export default explorer({ build: buildFilm, draw: drawFilm });
