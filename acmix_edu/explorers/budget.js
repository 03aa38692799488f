// The budget explorer: parameters, multiply-adds and memory of four operators, from one table.

import {
  button, choice, clamp, draggable, element, explorer, headline, memory, nearest, slider,
} from "./kit.js";

// ---- The formulas ---------------------------------------------------------------------------

// Those of cost.py, as text that is read, computed and shown. C channels in N heads of d, a map of
// H×H pixels, H′×H′ after the stride. Of `memory`, the numbers written for one image.
const STAGES = {
  convolution: { parameters: "k_c²·C²", "multiply-adds": "k_c²·C²·H′²", memory: "C·H′²",
    does: "an ordinary convolution: k_c² products of all channels with all",
    writes: "[C, H′, H′]" },
  "stage I": { parameters: "3·C² + 3·C", "multiply-adds": "3·C²·H²", memory: "3·C·H²",
    does: "three 1×1 projections, q, k and v: paid once, used by both paths",
    writes: "q, k and v, [C, H, H] each" },
  position: { parameters: "2·d + d", "multiply-adds": "2·d·H²", memory: "d·H² + k_a²·d·H′²",
    does: "each pixel's place, projected to the d dimensions of a head",
    writes: "[d, H, H] and its windows, [d, k_a², H′, H′]" },
  attention: { parameters: "0", "multiply-adds": "2·k_a²·C·H′²",
    memory: "2·k_a²·C·H′² + 2·k_a²·N·H′² + C·H′²",
    does: "each query against k_a² keys, then the mean of k_a² values",
    writes: "the windows of k and of v, [C, k_a², H′, H′] each; logits and weights, "
      + "[N, k_a², H′, H′] each; the result, [C, H′, H′]" },
  fc: { parameters: "3·N·k_c²", "multiply-adds": "3·k_c²·C·H²", memory: "k_c²·d·H²",
    does: "k_c² maps, each a weighted sum of the 3·N pieces of q, k and v",
    writes: "[k_c²·d, H, H]" },
  "shift and sum": { parameters: "k_c⁴·C", "multiply-adds": "k_c⁴·C·H′²", memory: "C·H′²",
    does: "moves k_c² maps by kernels of k_c² weights, and adds them",
    writes: "[C, H′, H′]" },
  mix: { parameters: "2", "multiply-adds": "0", memory: "C·H′²",
    does: "α times attention plus β times convolution",
    writes: "[C, H′, H′]" },
};
const isCounted = (stage, measure) => stage !== "mix" || measure !== "multiply-adds";
const ATT = ["stage I", "position", "attention"], CONV = ["stage I", "fc", "shift and sum"];
const ALL = [...ATT, ...CONV.slice(1), "mix"];
const OPERATORS = { convolution: ["convolution"], attention: ATT, path: CONV, ACmix: ALL };

// "2·d·H² + C" as terms of names and numbers: [["2", "d", "H", "H"], ["C"]].
const known = new Map();
function termsOf(formula) {
  const repeated = (text) => {
    const [, name, power] = /^(.+?)([²⁴]?)$/.exec(text);
    return Array({ "": 1, "²": 2, "⁴": 4 }[power]).fill(name);
  };
  const terms = () => formula.split(" + ").map((term) => term.split("·").flatMap(repeated));
  if (!known.has(formula)) known.set(formula, terms());
  return known.get(formula);
}

// Whole numbers stay whole, however large. With sizes that are ordinary numbers it is quicker,
// and exact enough for a curve.
function evaluate(formula, sizes) {
  const number = typeof sizes.H === "number" ? Number : BigInt;
  const product = (term) =>
    term.reduce((all, name) => all * (sizes[name] ?? number(name)), number(1));
  return termsOf(formula).reduce((all, term) => all + product(term), number(0));
}

// The formula with its numbers put in.
const inserted = (text, sizes) =>
  text.replace(/k_a|k_c|H′|[CNdH](?![\p{L}])/gu, (name) => sizes[name]);

function sizesOf({ channels, heads, side, stride, kernel_att, kernel_conv }) {
  let n = heads;
  while (channels % n) n -= 1;  // the next number of heads that divides the channels
  const sizes = { C: channels, N: n, d: channels / n, H: side, "H′": Math.ceil(side / stride),
    k_a: kernel_att, k_c: kernel_conv };
  return Object.fromEntries(Object.entries(sizes).map(([name, size]) => [name, BigInt(size)]));
}

// Every stage by name, and the sum of some.
const costsOf = (measure, sizes) => Object.fromEntries(
  Object.entries(STAGES).map(([stage, formulas]) => [stage, evaluate(formulas[measure], sizes)]));
const sum = (costs, stages) => stages.map((stage) => costs[stage]).reduce((a, b) => a + b);
const part = (one, all) => (all ? Number(one) / Number(all) : 0);
const withWidth = (sizes, C) => ({ ...sizes, C, d: C / sizes.N });

// The smallest number of channels from which Stage I is half of ACmix; undefined if it never is.
// Only multiples of the heads are modules, and once it is half it stays so.
function halfFrom(measure, sizes) {
  const isHalf = (m) => {
    const costs = costsOf(measure, withWidth(sizes, m * sizes.N));
    return 2n * costs["stage I"] >= sum(costs, ALL);
  };
  if (!isHalf(2n ** 40n)) return undefined;
  let high = 1n;
  while (!isHalf(high)) high *= 2n;
  let low = high / 2n;
  while (high - low > 1n) {
    const middle = (low + high) / 2n;
    if (isHalf(middle)) high = middle;
    else low = middle;
  }
  return high * sizes.N;
}

// A network: what is around its blocks, with the operator in each of them.
function networkCost({ rest, blocks }, measure, state, stages) {
  const middle = ([, channels, side, stride]) =>
    sum(costsOf(measure, sizesOf({ ...state, channels, side, stride })), stages);
  return blocks.reduce((all, block) => all + middle(block), BigInt(rest[measure]));
}

// ---- Words ----------------------------------------------------------------------------------

const grouped = (n) => n.toLocaleString("en");
const percent = (share) => (share > 0 && share < 0.0005 ? "< 0.1 %"
  : `${(100 * share).toFixed(1)} %`);

// Three or four digits: "115.6 M", "4.09 G", "76.6 MiB"; small counts in full.
function amount(value, measure) {
  const bytes = measure === "memory", base = bytes ? 1024 : 1000;
  const units = bytes ? ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] : ["", "", "M", "G", "T", "P"];
  let size = Number(value), n = 0;
  if (size < (bytes ? 1024 : 1e6)) return `${grouped(value)} ${units[0]}`.trim();
  while (size >= base && n < units.length - 1) { size /= base; n += 1; }
  return `${size.toFixed(size < 10 ? 2 : 1)} ${units[n]}`;
}

// Letters with their indices: k_a becomes k with a small a.
const typeset = (text) => element("span", {}, ...text.split(/_([ac])/).map((piece, n) =>
  (n % 2 ? element("sub", {}, piece) : piece)));

const titleOf = (stage) => stage.replace("stage", "Stage");
const operatorName = (name, k) => ({ convolution: `${k}×${k} convolution`,
  attention: "Attention path alone", path: "Convolution path alone" })[name] ?? name;

// ---- The page -------------------------------------------------------------------------------

// A slider that stops at some values only; others, from an address or from Python, it shows too.
function ladder(name, label, values, { most, odd = false, say = String }) {
  const control = slider({ name, label, min: 0, max: values.length - 1 });
  const show = (value) => {
    control.show(nearest([...values.keys()], (n) => Math.abs(Math.log(values[n] / value))));
    control.box.querySelector(".value").textContent = say(value);
    control.input.setAttribute("aria-valuetext", say(value));
  };
  const accept = (value) =>
    Number.isInteger(value) && value >= 1 && value <= most && !(odd && value % 2 === 0);
  return { ...control, show, accept, read: () => values[control.read()] };
}

function controlsOf(model) {
  const offered = model.get("offered"), most = model.get("most");
  const square = (n) => `${n} × ${n}`;
  const step = (name, label, more) =>
    ladder(name, label, offered[name], { most: most[name], ...more });
  const measures = ["multiply-adds", "parameters", "memory"].map((name) => [name, name]);
  return {
    measure: choice({ name: "measure", label: "Count", options: measures }),
    channels: step("channels", "Channels C"),
    side: step("side", "Map", { say: square }),
    heads: step("heads", "Heads N"),
    kernel_att: step("kernel_att", typeset("Window k_a"), { odd: true, say: square }),
    kernel_conv: step("kernel_conv", typeset("Kernel k_c"), { odd: true, say: square }),
    batch: step("batch", "Images at once"),
    precision: choice({ name: "precision", label: "Numbers",
      options: [[4, "float32, 4 bytes"], [2, "float16, 2 bytes"]] }),
  };
}

const isOneOf = (list) => (value) => list.includes(value);
const segment = (stage) => element("span", { class: "segment", "data-stage": stage });

// A bar of the stages of an operator, with its name and its cost.
function barOf(name, stages) {
  const label = element("span", { class: "name" }), value = element("span", { class: "cost" });
  const segments = stages.map((stage) => [stage, segment(stage)]);
  const track = element("div", { class: "track" }, ...segments.map(([, node]) => node));
  const box = element("div", { class: "operator", "data-operator": name }, label, value, track);
  return { box, label, value, segments, stages };
}

function chipOf(stage, press) {
  const value = element("span", { class: "number" });
  const box = button("", press, { class: "chip", "data-stage": stage });
  box.append(element("span", { class: "swatch", "data-stage": stage }),
    element("span", {}, titleOf(stage)), value);
  return { stage, box, value };
}

function blockOf(press) {
  const segments = ALL.map((stage) => [stage, segment(stage)]);
  const plain = element("span", { class: "plain" });
  const box = button("", press, { class: "block" });
  box.append(...segments.map(([, node]) => node), plain);
  return { box, segments, plain };
}

// The blocks of one network, as one group of buttons for each of its layers.
function layersOf(blocks, set) {
  const buttons = blocks.map(([, channels, side, stride]) =>
    blockOf(() => set({ channels, side, stride })));
  const layers = [...new Set(blocks.map(([layer]) => layer))].map((layer) => {
    const mine = blocks.flatMap((block, n) => (block[0] === layer ? [n] : []));
    const [, channels, side, stride] = blocks[mine[0]], H = Math.ceil(side / stride);
    return element("div", { class: "layer", style: `flex-grow: ${mine.length}` },
      element("div", { class: "columns" }, ...mine.map((n) => buttons[n].box)),
      element("div", { class: "note" }, `layer ${layer}: C = ${channels}, ${H}×${H}`));
  });
  return { buttons, layers };
}

// What the columns are made of: a colour for each stage, a line for the convolution.
function legendOf() {
  const plain = element("span", {});
  const entry = (mark, words) => element("span", { class: "entry" }, mark, " ", words);
  const stages = ALL.map((stage) =>
    entry(element("span", { class: "swatch", "data-stage": stage }), titleOf(stage)));
  const box = element("p", { class: "legend" },
    entry(element("span", { class: "rule" }), plain), ...stages);
  return { box, plain };
}

function chartOf(pick) {
  const svg = element("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" });
  const ticks = element("div", { class: "ticks" });
  const ends = element("div", { class: "ends" },
    ...["100 %", "50 %", "0 %"].map((text) => element("span", {}, text)));
  const title = element("div", { class: "title" }, "Share of each stage in ACmix, by channels C");
  const box = element("div", { class: "widths" }, title, ends, svg, ticks);
  draggable(svg, pick);
  return { box, svg, ticks };
}

// Where a number of channels lies on the chart, in percent, and which one lies nearest to a place.
const along = (C, [low, high]) =>
  100 * clamp(Math.log(C / low) / Math.log(high / low), 0, 1);

function build(model, { redraw, set }) {
  const networks = model.get("networks"), names = model.get("offered").network;
  const controls = controlsOf(model), widths = model.get("offered").channels;
  const ends = [widths[0], widths.at(-1)];
  const chart = chartOf((place) => set({ channels:
    nearest(widths, (C) => Math.abs(along(C, ends) - 100 * place)) }));
  const bars = Object.entries(OPERATORS).map(([name, stages]) => barOf(name, stages));
  const chips = Object.keys(STAGES).map((stage) => chipOf(stage, () => set({ stage })));
  const choices = names.map((network) =>
    button(network, () => set({ network }), { class: "network" }));
  const [verdict, counted, share, reading, heads, memo] =
    ["verdict", "counted", "half", "reading", "heads", "memo"].map((name) =>
      element("p", { class: name }));
  const layers = element("div", { class: "layers", "data-aim": "" }), heading = headline();
  const legend = legendOf(), resnet = element("div", { class: "resnet" },
    element("div", { class: "networks", role: "group", "aria-label": "Network" }, ...choices),
    layers, legend.box, counted);
  const arrange = (form) => [resnet, form, heading,
    element("div", { class: "board" },
      element("div", { class: "bars", "data-aim": "measure kernel_att stage" },
        ...bars.map(({ box }) => box), verdict),
      element("div", {}, chart.box, share)),
    element("div", { class: "chips", role: "group", "aria-label": "Stage" },
      ...chips.map(({ box }) => box)),
    reading, heads, memo];
  const view = { controls, arrange, chart, bars, chips, choices, verdict, counted, share, reading,
    heads, memo, layers, legend, heading, networks, ends, set, keep: memory(), accept: {
      stride: (n) => Number.isInteger(n) && n >= 1 && n <= model.get("most").stride,
      network: isOneOf(names), stage: isOneOf(Object.keys(STAGES)) } };
  const light = (stage) => () => {
    if (view.hovered === stage) return;
    view.hovered = stage;
    redraw();
  };
  const segments = bars.flatMap((bar) => bar.segments);
  for (const [stage, node] of [...segments, ...chips.map(({ stage, box }) => [stage, box])]) {
    node.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse") light(stage)();
    });
    node.addEventListener("pointerleave", light(undefined));
  }
  for (const [stage, node] of segments) node.addEventListener("click", () => set({ stage }));
  for (const { stage, box } of chips) {
    box.addEventListener("focus", () => { if (box.matches(":focus-visible")) light(stage)(); });
    box.addEventListener("blur", light(undefined));
  }
  return view;
}

// ---- Drawing --------------------------------------------------------------------------------

// The state, and all that is computed from it.
function scene(model, { keep, networks }) {
  const state = Object.fromEntries(["measure", "network", "stage", "channels", "heads", "side",
    "stride", "kernel_att", "kernel_conv", "batch", "precision"].map((t) => [t, model.get(t)]));
  const { measure } = state, sizes = sizesOf(state), network = networks[state.network];
  const costs = costsOf(measure, sizes);
  const sums = Object.fromEntries(Object.entries(OPERATORS).map(([name, stages]) =>
    [name, sum(costs, stages)]));
  const { channels, side, stride, batch, precision, ...apart } = state;
  const blocks = keep("blocks", apart, () => network.blocks.map(([, C, H, s]) =>
    costsOf(measure, sizesOf({ ...state, channels: C, side: H, stride: s }))));
  const nets = keep("networks", apart, () => [["convolution"], ALL].map((stages) =>
    networkCost(network, measure, state, stages)));
  const { C, d, ...others } = sizes, key = [measure, ...Object.values(others).map(String)];
  const half = keep("half", key, () => halfFrom(measure, sizes));
  const bytes = measure === "memory" ? BigInt(batch * precision) : 1n;
  const say = (value) => amount(value * bytes, measure);
  return { state, measure, sizes, network, costs, sums, blocks, nets, half, bytes, say, key };
}

const size = (node, side, share) => { node.style[side] = `${+(100 * share).toFixed(4)}%`; };

function drawBars({ bars, verdict }, { costs, sums, say, measure, state }) {
  const longest = Object.values(sums).reduce((a, b) => (a > b ? a : b));
  for (const { box, label, value, segments } of bars) {
    const name = box.dataset.operator;
    label.textContent = operatorName(name, state.kernel_conv);
    value.textContent = say(sums[name]);
    for (const [stage, node] of segments) {
      size(node, "width", part(costs[stage], longest));
      const wide = segments.length > 1 && part(costs[stage], longest) > 0.12;
      const share = Math.round(100 * part(costs[stage], sums[name]));
      node.textContent = wide ? (share === 100 ? "> 99 %" : `${share} %`) : "";
    }
  }
  const times = part(sums.ACmix, sums.convolution).toFixed(2);
  verdict.textContent = `ACmix takes ${times} times the ${measure} of the `
    + `${operatorName("convolution", state.kernel_conv)}. As two modules its paths would take `
    + `${say(sums.attention + sums.path)}: sharing Stage I saves ${say(costs["stage I"])}.`;
}

// A column lower than a fiftieth of the box is not seen: say how high it is.
function lowOnes(blocks, all, highest, say) {
  const low = blocks.flatMap(([layer], n) => (part(all[n], highest) < 0.02 ? [[layer, n]] : []));
  return [...new Map(low)].map(([layer, n]) =>
    ` In layer ${layer} the columns are too low to be seen: ${say(all[n])} each.`).join("");
}

function drawNetwork(view, { state, sizes, measure, network, blocks, nets, bytes, say }) {
  const { layers, legend, choices, counted, heading } = view;
  if (view.network !== state.network) {
    view.network = state.network;
    view.made = layersOf(network.blocks, view.set);
    layers.replaceChildren(...view.made.layers);
  }
  for (const node of choices) {
    node.setAttribute("aria-pressed", node.textContent === state.network);
  }
  const isHere = ([, C, H, stride]) =>
    C === state.channels && H === state.side && stride === state.stride;
  const all = blocks.map((costs) => sum(costs, ALL));
  const highest = [...all, ...blocks.map((costs) => costs.convolution)]
    .reduce((a, b) => (a > b ? a : b));
  view.made.buttons.forEach(({ box, segments, plain }, n) => {
    const [layer, C, H, stride] = network.blocks[n];
    for (const [stage, node] of segments) size(node, "height", 0.95 * part(blocks[n][stage], highest));
    size(plain, "bottom", 0.95 * part(blocks[n].convolution, highest));
    box.setAttribute("aria-pressed", isHere(network.blocks[n]));
    box.setAttribute("aria-label", `Layer ${layer}: ACmix with ${C} channels, ${H}×${H}, stride `
      + `${stride}: ${say(all[n])}, the convolution ${say(blocks[n].convolution)}`);
  });
  const { C, H, "H′": out } = sizes, where = network.blocks.find(isHere);
  const images = measure === "memory" && state.batch > 1 ? `${state.batch} images` : "one image";
  heading.textContent = `One module, ${images}: [${C}, ${H}, ${H}] → [${C}, ${out}, ${out}]`
    + (state.stride === 1 ? "" : `, stride ${state.stride}`)
    + (where ? `, as in layer ${where[0]} of ${state.network}` : "");
  const [plain, mixed] = nets, k = state.kernel_conv, times = part(mixed, plain).toFixed(2);
  const number = (value) => element("b", { title: grouped(value * bytes) }, say(value));
  const what = measure === "memory" ? "" : ` ${measure}`;
  legend.plain.textContent = operatorName("convolution", k);
  counted.replaceChildren(`${state.network} on ${images} of 224×224 pixels: `, number(plain),
    `${what} with ${k}×${k} convolutions → `, number(mixed), ` with ACmix (${times}×). A column is `
    + "one block: choose one." + lowOnes(network.blocks, all, highest, say));
}

function drawChart({ chart, keep, ends, share }, now, lit) {
  const { sizes, measure, key, half, costs, sums } = now;
  const curves = keep("curves", [key, ends], () => sharesByWidth(measure, sizes, ends));
  const points = (row) => row.map((y, n) => `${curves.places[n]} ${(100 - 100 * y).toFixed(2)}`);
  const areas = ALL.map((stage, n) => {
    const around = [...points(curves.rows[n]), ...points(curves.rows[n + 1]).reverse()];
    const kind = stage === lit ? "area lit" : "area";
    return element("path", { class: kind, "data-stage": stage, d: `M${around.join("L")}Z` });
  });
  const x = along(Number(sizes.C), ends).toFixed(2);
  chart.svg.replaceChildren(...areas, element("path", { class: "fifty", d: "M0 50H100" }),
    element("path", { class: "cursor", d: `M${x} 0V100` }));
  const ticks = [16, 64, 256, 1024].filter((C) => C >= ends[0] && C <= ends[1]);
  chart.ticks.replaceChildren(...ticks.map((C) =>
    element("span", { style: `left: ${along(C, ends).toFixed(2)}%` }, `${C}`)));
  share.textContent = `Stage I is ${percent(part(costs["stage I"], sums.ACmix))} of ACmix. `
    + (half === undefined ? "It is never half of it, however many channels there are."
      : `It is at least half from C = ${grouped(half)} on.`);
  chart.svg.setAttribute("aria-label", `Shares by number of channels. ${share.textContent}`);
}

// The stages' shares, added up from Stage I, at numbers of channels that the heads divide.
function sharesByWidth(measure, sizes, [low, high]) {
  const rough = Object.fromEntries(Object.entries(sizes).map(([name, n]) => [name, Number(n)]));
  const heads = rough.N;
  const wanted = Array.from({ length: 33 }, (_, n) => low * (high / low) ** (n / 32));
  const widths = [...new Set(wanted.map((C) => heads * Math.max(1, Math.round(C / heads))))];
  const rows = [widths.map(() => 0), ...ALL.map(() => [])];
  widths.forEach((C, n) => {
    const costs = costsOf(measure, withWidth(rough, C)), all = sum(costs, ALL);
    ALL.forEach((stage, s) => { rows[s + 1][n] = rows[s][n] + part(costs[stage], all); });
  });
  return { rows, places: widths.map((C) => along(C, [low, high]).toFixed(2)) };
}

function drawReading({ reading, heads, memo }, now, stage) {
  const { state, measure, sizes, costs, sums, bytes, say } = now;
  const plain = (text) => (state.stride === 1 ? text.replaceAll("H′", "H") : text);
  const { does, writes, [measure]: formula } = STAGES[stage], numbers = inserted(formula, sizes);
  const unit = measure === "memory"
    ? ` numbers × ${state.batch} × ${state.precision} bytes = ${say(costs[stage])}` : ` ${measure}`;
  const steps = formula === numbers ? [] : [typeset(plain(formula)), " = "];
  const result = numbers === grouped(costs[stage]) ? [] : [numbers, " = "];
  const of = stage === "convolution" ? "" : `: ${percent(part(costs[stage], sums.ACmix))} of ACmix`;
  const count = isCounted(stage, measure) ? [...steps, ...result, grouped(costs[stage]), unit, of]
    : ["Its 2·C multiply-adds a pixel are not counted"];
  const shapes = writes.replace(/\[.*?\]/g, (shape) =>
    `[${inserted(shape.slice(1, -1), sizes).replace(/\d+[²·\d]*/g, (product) =>
      evaluate(product, {}))}]`);
  const forAll = measure === "memory" && stage === "position"
    ? " The same for every image: a batch could share it, the formula counts it for each." : "";
  reading.replaceChildren(element("strong", {}, titleOf(stage)), ": ", typeset(does), ". ",
    element("span", { class: "formula" }, ...count), `. It writes ${shapes}.${forAll}`);
  heads.hidden = Number(sizes.N) === state.heads;
  heads.textContent = `${state.heads} heads do not divide ${state.channels} channels: counted are `
    + `${sizes.N}.`;
  memo.hidden = measure !== "memory";
  const copies = sizes.k_a === 1n ? "1 copy" : `${sizes.k_a ** 2n} copies`;
  memo.textContent = "Counted is the paper's form, which copies the window of every pixel: "
    + `${copies} of k and of v. The package's default form makes no such copies `
    + "(Chapter 7).";
}

function draw(model, view) {
  const now = scene(model, view), stage = view.hovered ?? now.state.stage;
  for (const trait of ["batch", "precision"]) {
    view.controls[trait].box.hidden = now.measure !== "memory";
  }
  drawBars(view, now);
  drawNetwork(view, now);
  drawChart(view, now, stage);
  for (const { stage, box, value } of view.chips) {
    box.setAttribute("aria-pressed", stage === now.state.stage);
    value.textContent = isCounted(stage, now.measure) ? now.say(now.costs[stage]) : "not counted";
  }
  drawReading(view, now, stage);
  const segments = [...view.bars, ...view.made.buttons].flatMap((bar) => bar.segments);
  for (const [name, node] of [...segments, ...view.chips.map(({ stage, box }) => [stage, box])]) {
    node.classList.toggle("lit", name === stage);
  }
  return `ACmix: ${now.say(now.sums.ACmix)}. ${view.verdict.textContent} ${view.share.textContent}`;
}

export default explorer({ build, draw });
