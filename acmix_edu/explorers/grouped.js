// The grouped explorer: the k² kernels of every output of a grouped convolution, which start as
// shifts, the maps that they read and the outputs to which they add.

import { shiftKernels } from "./engine.js";
import {
  SIGNED, button, choice, element, explorer, intoMap, isCount, mapView, memory, moveOf, outline,
  pickable, plus, slider, steerable, tuple,
} from "./kit.js";

// ---- The plan -------------------------------------------------------------------------------

// For each dimension e: k² input maps as tiles, and for each set n a map of k² kernels and a tile
// for the output e·N + n.
function makePlan(view, { k, dims, sets }) {
  const number = (n, attributes) => element("span", attributes, String(n));
  const tiles = (e) => Array.from({ length: k * k }, (_, t) =>
    number(e * k * k + t, { class: "tile", "data-part": "map", "data-channel": e * sets, "data-tap": t }));
  view.blocks = Array.from({ length: dims * sets }, (_, c) => mapView(`kernels${c}`));
  const output = (c) => element("span", { class: "tile out", "data-part": "output",
    "data-channel": c, "data-tap": 0, title: `output ${c}, the sum` }, `Σ ${c}`);
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

// k² kernels as k rows of k, each weight a square of dots, with a line of nothing between them that
// is one dot wide; and which of the kernels holds a dot.
const DOTS = 3;
const pitch = (k) => DOTS * k + 1;  // from a kernel to the next
const tapOf = (place, k) => {
  const [p, q] = place.map((n) => Math.min(Math.floor(n / pitch(k)), k - 1));
  return p * k + q;
};
function drawKernels(block, weight, k) {
  const side = k * pitch(k) - 1, at = (n) => Math.floor((n % pitch(k)) / DOTS);
  const dots = Float32Array.from({ length: side * side }, (_, n) => {
    const place = [Math.floor(n / side), n % side], [row, column] = place.map(at);
    return Math.max(row, column) === k ? NaN : weight[(tapOf(place, k) * k + row) * k + column];
  });
  block.draw(dots, side, side, -1, 1, SIGNED);
}

// What is lit: part, channel and tap, where each limit depends on the sizes.
function clampLit({ part, channel, tap }, { k, dims, sets }) {
  const c = Math.min(channel, dims * sets - 1), e = Math.floor(c / sets);
  return { part, c, e, n: c % sets, t: Math.min(tap, k * k - 1) };
}

const isLit = (lit, { part, e, c, t }) => e === lit.e
  && (lit.part === "output" || part === "output" || t === lit.t)
  && (lit.part === "map" || part === "map" || c === lit.c);

function draw(model, view) {
  const [k, dims, sets] = ["kernel_size", "dims", "sets"].map((trait) => model.get(trait));
  const sizes = { k, dims, sets };
  view.remember("plan", sizes, () => makePlan(view, sizes));
  const of = (trait) => view.hovered?.[trait] ?? model.get(trait);
  const lit = clampLit({ part: of("part"), channel: of("channel"), tap: of("tap") }, sizes);
  for (const tile of view.plan.querySelectorAll("[data-part]")) {
    const { part, channel, tap } = tile.dataset, c = Number(channel);
    tile.classList.toggle("lit", isLit(lit, { part, c, e: Math.floor(c / sets), t: Number(tap) }));
  }
  view.blocks.forEach((block, c) => outline(block, Array.from({ length: k * k }, (_, t) => t)
    .filter((t) => isLit(lit, { part: "kernel", e: Math.floor(c / sets), c, t }))
    .map((t) => ({ row: Math.floor(t / k) * pitch(k), column: (t % k) * pitch(k), rows: DOTS * k,
      columns: DOTS * k, kind: "here" }))));
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
  view.count.textContent = `At the start ${all * taps} of ${all * taps * taps} weights are 1 (red), `
    + `all others 0 (white)${sets > 1 ? `; the ${sets} outputs of a dimension are equal.` : "."}`;
  view.plan.setAttribute("aria-label", `${words[lit.part]} Arrow keys: left and right choose t, `
    + "up and down the output");
  return words[lit.part];
}

// ---- The widget -----------------------------------------------------------------------------

function build(model, { redraw, set }) {
  const controls = {
    kernel_size: choice({ name: "kernel_size", label: "k, kernel",
      options: [[3, "3 × 3"], [5, "5 × 5"]] }),
    dims: slider({ name: "dims", label: "d, dimensions", min: 1, max: 2 }),
    sets: slider({ name: "sets", label: "N, sets of kernels", min: 1, max: 4 }),
  };
  const view = { controls, remember: memory(), plan: element("div", { class: "plan" }),
    words: element("p", { class: "words" }), code: element("code", {}),
    count: element("p", { class: "count" }) };
  view.hover = (lit) => { view.hovered = lit; redraw(); };
  view.light = (lit) => { view.hovered = null; set(lit); };
  pickPart(model, view);
  view.parts = [element("div", { class: "heads" }, ...Object.values(view.heads)),
    element("div", { class: "both", "data-aim": "" }, view.plan,
      element("div", { class: "said" }, view.code, view.words, view.count))];
  view.accept = { channel: isCount(8), tap: isCount(25),
    part: (part) => Object.hasOwn(HEADINGS, part) };
  return view;
}

// A part of the plan is lit while it is pointed at, and stays lit after a click or a tap; the
// arrow keys go from kernel to kernel and from output to output.
function pickPart(model, view) {
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
  steerable({ frame: plan }, "", (step) => {
    const most = [model.get("dims") * model.get("sets"), model.get("kernel_size") ** 2];
    const [channel, tap] = intoMap(plus([view.lit.c, view.lit.t], step), most);
    view.light({ channel, tap });
  });
}

export default explorer({ build, draw });
