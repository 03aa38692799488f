// The mixing explorer: both paths of an ACmix on one image, their mix, and the effective kernel
// at the pixel under the pointer with its two parts. All numbers come from engine.js, all drawing from kit.js.

import {
  aggregate, attentionKernel, attentionWeights, channelsOf, colourFeatures, convolutionKernel,
  entropyFraction, fuseConvPath, groupedConv, mix, mixGrids, norm, normShare, onGrid, positionMap,
  project, reflect, regroup, shiftKernels, sumInputs,
} from "./engine.js";
import {
  NOTHING, SIGNED, choice, clamp, element, explorer, extent, figure, floats, headline,
  intoMap, isInside, isPlace, later, mapView, memory, outline, pickable, playing, plus,
  precise, reach, rooted, scaleBar, slider, squareAt, steerable, toggle, tuple, written,
} from "./kit.js";
import { ownPicture } from "./picture.js";

const KERNELS_CONV = [1, 3, 5, 7];

// ---- From the model's traits to numbers -----------------------------------------------------

// The image and the weights of the chosen preset by name.
function readData(model) {
  const sizes = model.get("sizes"), places = model.get("places");
  const all = floats(model.get("weights"));
  const weight = (name, of = model.get("preset")) => all.subarray(...places[of][name]);
  const { in_planes: channels, height, width } = sizes;
  const image = { data: floats(model.get("image")), channels, height, width };
  return { sizes, weight, image, d: sizes.out_planes / sizes.heads };
}

// fc and dep_conv for a kernel size: the module's own, or a seeded fc with shift kernels.
function convWeights({ sizes, weight }, kernel) {
  if (kernel === sizes.kernel_conv) return [weight("dep_conv_weight"), weight("fc_weight")];
  return [shiftKernels(sizes.out_planes, kernel), weight(kernel, "seeded_fc")];
}

// All stages for the model's state; each is computed again only when what it depends on changes,
// and of Stage II only the heads and channels that are asked for.
function stages(model, data, remember) {
  const { sizes: { heads, stride, out_planes: channels }, weight, image, d } = data;
  const kernelAtt = model.get("kernel_att"), dilation = model.get("dilation");
  const kernelConv = model.get("kernel_conv");
  const linear = (name, conv) => remember(name, [], () =>
    project(image, weight(`${conv}_weight`), weight(`${conv}_bias`)));
  const [q, k, v] = [linear("q", "conv1"), linear("k", "conv2"), linear("v", "conv3")];
  const pe = remember("pe", [], () =>
    positionMap(image.height, image.width, weight("conv_p_weight"), weight("conv_p_bias")));
  const window = { heads: 1, kernel: kernelAtt, dilation, stride };
  const attention = (head) => remember(`attention ${head}`, window, () =>
    attentionWeights(channelsOf(q, head * d, d), channelsOf(k, head * d, d), pe, window));
  const outAtt = (c) => remember(`outAtt ${c}`, window, () =>
    aggregate(attention(Math.floor(c / d)), channelsOf(v, c, 1), window));
  const path = { channels, heads, kernel: kernelConv };
  const fused = remember("fused", path, () => fuseConvPath(...convWeights(data, kernelConv), path));
  const stacked = remember("stacked", [], () => regroup(q, k, v, heads));
  const inputs = 3 * heads, one = { channels: 1, groups: 1, kernel: kernelConv, stride };
  const outConv = (c) => remember(`outConv ${c}`, path, () =>
    groupedConv(channelsOf(stacked, Math.floor(c / heads) * inputs, inputs),
      fused.subarray(...[c, c + 1].map((n) => n * inputs * kernelConv ** 2)), one));
  return { q, k, v, attention, outAtt, fused, outConv, dependsOn: [window, path] };
}

// The norms of both paths over all channels, for which all heads are needed: what is not known yet
// comes a little later, head by head, and then the view is drawn again.
function normsOf({ data: { sizes, d }, remember, rest, redraw }, { outAtt, outConv, dependsOn }) {
  const channels = Array.from({ length: sizes.out_planes }, (_, c) => c);
  const squares = (c) => remember(`squares ${c}`, dependsOn, () =>
    [outAtt(c), outConv(c)].map((map) => norm(map.data) ** 2));
  if (channels.every((c) => remember.has(`squares ${c}`, dependsOn))) {
    const all = channels.map(squares);
    return [0, 1].map((path) => Math.sqrt(all.reduce((sum, pair) => sum + pair[path], 0)));
  }
  rest.do(dependsOn, sizes.heads,
    (head) => channels.slice(head * d, (head + 1) * d).forEach(squares), redraw);
  return null;
}

// What the two paths give, each times its rate, and the sum of both; and for each of the three the
// end of a scale that holds it at the weights' own rates, too: so it gets paler with its rate.
function weighed(model, att, conv, add) {
  const at = ([alpha, beta]) => [att.map((value) => alpha * value),
    conv.map((value) => beta * value), add(att, conv, alpha, beta)];
  const now = at([model.get("alpha"), model.get("beta")]);
  const own = at(model.get("rates")[model.get("preset")]);
  return { now, ends: now.map((values, n) => reach(values, own[n])) };
}

// The kernels at one output pixel, summed over the input channels, on a common grid.
function kernelsAt(model, data, { attention, fused, outAtt }, pixel) {
  const { sizes: { heads, in_planes: inPlanes, out_planes: channels }, weight, d } = data;
  const k = model.get("kernel_att"), dilation = model.get("dilation"), head = model.get("head");
  const c = head * d + model.get("channel"), taps = k * k;
  const place = pixel[0] * outAtt(c).width + pixel[1];
  const weights = attention(head).subarray(place * taps, (place + 1) * taps);
  const side = Math.max((k - 1) * dilation + 1, model.get("kernel_conv"));
  const projections = ["conv1", "conv2", "conv3"].map((name) => weight(`${name}_weight`));
  const byContent = attentionKernel(weights, projections[2], c, inPlanes);
  const fixed = convolutionKernel(fused, projections, c, { heads, channels, inPlanes });
  const att = onGrid(sumInputs(byContent, inPlanes), dilation, side);
  const conv = onGrid(sumInputs(fixed, inPlanes), 1, side);
  return { side, weights, ...weighed(model, att, conv, mixGrids) };
}

// ---- The page -------------------------------------------------------------------------------

function controls(model, { sizes, d }) {
  const start = model.get("start"), { presets } = sizes;
  const sizesOf = Object.values(model.get("rates")).flat().map(Math.abs);
  const span = Math.max(2, Math.ceil(Math.max(...sizesOf)));
  const say = (value) => written(Number(value.toFixed(2)).toFixed(2));
  const rate = (name, label) => ({ ...slider({ name, label, min: -span, max: span, step: 0.01, say }),
    accept: (value) => Math.abs(value) <= span });  // a trained rate lies between two steps
  const index = (name, label, count) => slider({ name, label, min: 0, max: count - 1 });
  const sizesConv = [...new Set([...KERNELS_CONV, sizes.kernel_conv])].sort((a, b) => a - b);
  const made = { alpha: rate("alpha", "Rate α"), beta: rate("beta", "Rate β") };
  if (sizes.heads > 1) made.head = index("head", "Head", sizes.heads);
  if (d > 1) made.channel = index("channel", "Channel", d);
  if (presets.length > 1) {
    made.preset = choice({ name: "preset", label: "Weights",
      options: presets.map((name) => [name, name]) });
  }
  return Object.assign(made, {
    kernel_att: slider({ name: "kernel_att", label: "Window", min: 1,
      max: Math.max(13, start.kernel_att), step: 2, say: (k) => `${k}×${k}` }),
    dilation: slider({ name: "dilation", label: "Dilation", min: 1,
      max: Math.max(4, start.dilation), say: (value) => `${value} px` }),
    kernel_conv: choice({ name: "kernel_conv", label: "Kernel",
      options: sizesConv.map((k) =>
        [k, `${k}×${k}${k === sizes.kernel_conv ? "" : ", new"}`]) }),
    more: toggle({ name: "more",
      label: `More: q, k, v, ${d > 1 ? "channel, " : ""}window, dilation, kernel` }),
  });
}

// Between two underscores: an index.
const HEADINGS = {
  picture: "Picture", q: "q", k: "k", v: "v", f_att: "α · F_att_", f_conv: "+ β · F_conv_",
  f_out: "= F_out_", kernel_att: "α · attention",
  kernel_conv: "+ β · convolution", kernel_mix: "= mix",
};

// Beside the picture stand attention, convolution and their mix, in three columns: the kernels at
// the chosen pixel, the rates, and what comes out at every pixel. What a first look can do without
// is folded, below them.
function buildView(model, data) {
  const inputs = controls(model, data);
  const maps = Object.fromEntries(Object.entries(HEADINGS).map(([name, heading]) =>
    [name, mapView(name, ...heading.split("_").map((part, n) =>
      (n % 2 ? element("sub", {}, part) : part)))]));
  const share = element("div", { class: "share" }), ends = element("div");
  const scale = element("p", { class: "scale" });
  const kernelScale = element("p", { class: "scale" });
  const where = headline();
  const row = (kind, aim, ...names) => element("div", { class: `maps ${kind}`, "data-aim": aim },
    ...names.map((name) => maps[name].box));
  const rates = element("div", { class: "maps" });
  const source = element("div", { class: "source" }, maps.picture.box);
  const sum = element("div", { class: "sum" }, where,
    row("kernels", "pixel offset head", "kernel_att", "kernel_conv", "kernel_mix"),
    rates, headline("At every pixel: the output"),
    row("", "", "f_att", "f_conv", "f_out"), ends, share,
    element("p", {}, "Each kernel has its own scale, by the square root, so that small weights show; the maps share one. Grey: not read."));
  const stage1 = element("div", {},
    headline("Stage I: q, k and v, for both paths"), row("", "more", "q", "k", "v"));
  const others = element("div", { class: "controls" });
  const fold = element("div", { class: "fold" }, stage1, others,
    element("div", { class: "told" }, kernelScale, scale));
  const arrange = (form) => {
    const move = (to, ...names) => to.append(...names.flatMap((name) => inputs[name]?.box ?? []));
    move(rates, "alpha", "beta");
    move(others, "channel", "kernel_att", "dilation", "kernel_conv");
    return [element("div", { class: "scene" }, source, sum, form), inputs.more.box, fold];
  };
  return { controls: inputs, arrange, maps, source, fold, share, ends, scale, where, kernelScale };
}

// ---- Drawing --------------------------------------------------------------------------------

function drawStage1(model, data, view, { q, k, v }) {
  const { maps } = view, c = model.get("head") * data.d + model.get("channel");
  for (const [name, map] of Object.entries({ q, k, v })) {
    const values = channelsOf(map, c, 1).data, end = reach(values);
    maps[name].draw(values, q.height, q.width, -end, end, SIGNED);
    maps[name].say(`Map ${name} of head ${model.get("head")}, channel ${model.get("channel")}`,
      scaleBar(-end, end, SIGNED));
  }
  return c;
}

const PATHS = { f_att: "Attention path, times α", f_conv: "Convolution path, times β",
  f_out: "Output" };

function drawPaths(model, view, { outAtt, outConv }, c) {
  const { maps } = view, { data: att, height, width } = outAtt(c);
  const { now, ends } = weighed(model, att, outConv(c).data, mix), end = Math.max(...ends);
  Object.entries(PATHS).forEach(([name, label], n) => {
    const rms = figure(norm(now[n]) / Math.sqrt(now[n].length));
    maps[name].draw(now[n].map(rooted), height, width, -rooted(end), rooted(end), SIGNED);
    const seeded = name === "f_conv" && model.get("kernel_conv") !== model.get("sizes").kernel_conv;
    maps[name].say(`${label}, output channel ${c}; root mean square ${rms}`,
      seeded ? "seeded, untrained weights" : "");
  });
  const head = model.get("head"), e = model.get("channel"), heads = model.get("sizes").heads;
  view.scale.textContent = `Output channel ${c}: attention's head ${head}, dimension ${e}; `
    + `convolution's dimension ${Math.floor(c / heads)}, set ${c % heads}.`;
  view.ends.replaceChildren(scaleBar(-end, end, SIGNED, { curve: rooted }));
}

function drawShare(model, data, view, norms) {
  view.share.setAttribute("aria-busy", !norms);
  if (!norms && view.share.hasChildNodes()) return view.share.textContent;
  const share = norms ? normShare(...norms, model.get("alpha"), model.get("beta")) : NaN;
  const percent = (part) => `${(100 * part).toFixed(0)} %`;
  const parts = Number.isFinite(share) ? { attention: share, convolution: 1 - share } : {};
  const bar = element("div", { class: "bar", "data-share": share });
  const text = element("p", {},
    `Share of the output, by norm over all ${data.sizes.out_planes} channels:`);
  for (const [path, part] of Object.entries(parts)) {
    bar.append(element("span", { class: path, style: `flex-grow:${part}` }));
    text.append(path === "attention" ? " " : ", ", element("span", { class: "key" },
      element("span", { class: `swatch ${path}` }), ` ${path} ${percent(part)}`));
  }
  if (!Number.isFinite(share)) text.append(norms ? " both paths are zero" : " …");
  view.share.replaceChildren(bar, text);
  return text.textContent.replace(/\s+/g, " ");
}

// The pixel's window on every map. Where the window is dilated, the pixels that it reads.
function drawMarks(model, data, view, pixel) {
  const { stride, height, width } = data.sizes, place = pixel.map((n) => n * stride);
  const k = model.get("kernel_att"), dilation = model.get("dilation"), read = [];
  for (let n = 0; dilation > 1 && n < k * k; n++) {
    const offset = [Math.floor(n / k), n % k].map((m) => (m - (k - 1) / 2) * dilation);
    const [row, column] = plus(place, offset);
    read.push(squareAt([reflect(row, height), reflect(column, width)], 1, "read"));
  }
  const here = squareAt(place, 1, "here");
  outline(view.maps.picture, [...read, squareAt(place, (k - 1) * dilation + 1, "attention"),
    squareAt(place, model.get("kernel_conv"), "convolution"), here]);
  for (const name of ["q", "k", "v"]) outline(view.maps[name], [here]);
  for (const name of ["f_att", "f_conv", "f_out"]) {
    outline(view.maps[name], [squareAt(pixel, 1, "here")]);
  }
}

function drawKernels(model, data, view, now, pixel, cell) {
  const { maps } = view, at = kernelsAt(model, data, now, pixel), middle = (at.side - 1) / 2;
  const [row, column] = cell.map((n) => clamp(n, -middle, middle));
  const n = (row + middle) * at.side + column + middle;
  const place = row || column ? tuple([row, column]) : "itself";
  const { now: kernels, ends } = at;
  ends[2] = reach(kernels[2]);  // the mix has no rate of its own: without one path it is the other
  const entropy = entropyFraction(at.weights);
  const { height, width, stride } = data.sizes;
  const edge = { row: middle - pixel[0] * stride, column: middle - pixel[1] * stride,
    rows: height, columns: width, kind: "edge" };
  Object.entries(KERNEL_NAMES).forEach(([name, label], part) => {
    const values = kernels[part], end = rooted(ends[part]);
    const [low, high] = extent(values).map(figure);
    maps[name].draw(values.map(rooted), at.side, at.side, -end, end, SIGNED);
    outline(maps[name], [edge, squareAt([row + middle, column + middle], 1, "here")]);
    maps[name].say(`${label}, from ${low} to ${high}`,
      `${low} to ${high}\n${place}: ${figure(values[n])}`);
  });
  const pixelName = `row ${pixel[0]}, column ${pixel[1]}`;
  view.where.textContent = `At ${pixelName}: the kernels`;
  maps.kernel_att.note.append(`\nentropy ${figure(entropy)}`);
  view.kernelScale.textContent = "Kernels are summed over the input channels "
    + `and multiplied by their rate. Their scales go to ±${ends.map(precise).join(", ±")}. `
    + "Past the picture's border (dotted) attention reads mirrored pixels, "
    + "convolution zeros. Entropy: 1 if all weigh alike, 0 if one has all.";
  return `Pixel ${pixelName}; attention weights with entropy ${figure(entropy)} of the maximum`;
}

const KERNEL_NAMES = {
  kernel_att: "Effective kernel of the attention path, times α",
  kernel_conv: "Effective kernel of the convolution path, times β",
  kernel_mix: "Effective kernel of the mix",
};

// ---- The guided walk ------------------------------------------------------------------------

// A button that walks along the edges, shows either path alone, and goes back to where it began.
// It sets what the reader would, and look() stops it where someone else has done something.
function guide(model, view, set) {
  const values = () => Object.keys(model.get("start")).map((trait) => [trait, model.get(trait)]);
  const state = () => JSON.stringify([view.hovered, view.pointed, values()]);
  let steps, left;
  const { node, stop } = playing(["▶", "Along the edges"], ["■", "Stop"], (first) => {
    if (first) {
      const [alpha, beta] = model.get("rates")[model.get("preset")];
      view.hovered = view.pointed = null;
      steps = [...model.get("sizes").edges.map((pixel) => ({ alpha, beta, pixel })),
        { alpha, beta: 0 }, { alpha: 0, beta }, Object.fromEntries(values())];
    }
    const now = steps.shift();
    set(now);
    left = state();
    return steps.length && (now.pixel ? 500 : 1500);
  });
  const look = () => { if (left && state() !== left) { left = ""; stop(); } };
  return { node, stop, look };
}

// ---- The widget -----------------------------------------------------------------------------

function build(model, { redraw, set }) {
  const sizes = model.get("sizes"), { height, width, stride } = sizes;
  const view = { ...buildView(model, readData(model)), rest: later(50), redraw }, { maps } = view;
  const walk = view.walk = guide(model, view, set), original = model.get("image");
  const read = () => {
    view.rest.stop();
    walk.stop();
    walk.node.hidden = model.get("image") !== original;  // it knows the way in that one
    Object.assign(view, { data: readData(model), remember: memory() });
    maps.picture.photo(view.data.image);
    redraw();
  };
  maps.picture.say("The picture", "Solid: the attention window; dashed: the convolution kernel. "
    + "Point at a pixel; click or tap to keep it; or use arrow keys.");
  const followed = ["change:image", "change:preset"];
  for (const change of followed) model.on(change, read);
  let own;
  view.release = () => {
    for (const change of followed) model.off(change, read);
    view.rest.stop();
    walk.stop();
    own?.release();
  };
  if (sizes.lift) {
    own = ownPicture(maps.picture, {
      place: () => model.get("pixel").map((n) => n * stride),
      read: () => asColours(view.data.image, sizes.lift),
      change: (colours) => set({ image: new DataView(
        (sizes.lift === "picture" ? colours : colourFeatures(colours)).buffer) }),
    });
    view.reset = () => { walk.stop(); own.stop(); set({ image: original }); };
  }
  const tools = own?.box ?? element("div", { class: "own" });
  tools.prepend(walk.node);
  view.source.append(tools);
  view.derive = (traits) => {  // a preset brings its own rates
    const [alpha, beta] = model.get("rates")[traits.preset] ?? [];
    return alpha === undefined ? traits : { alpha, beta, ...traits };
  };
  read();

  const hover = (pixel) => { view.hovered = pixel; redraw(); };
  const pin = (pixel) => { hover(null); set({ pixel }); };
  for (const name of ["picture", "q", "k", "v", "f_att", "f_conv", "f_out"]) {
    const scale = name.startsWith("f_") ? 1 : stride;
    pickable(maps[name], hover, pin, (at) => at.map((n) => Math.floor(n / scale)));
  }
  const bounds = [height, width].map((side) => Math.ceil(side / stride));
  steerable(maps.picture, "Picture", (step) =>
    pin(intoMap(plus(model.get("pixel"), step), bounds)));

  const point = (at) => { view.pointed = at; redraw(); };
  const choose = (offset) => { view.pointed = null; set({ offset }); };
  for (const name of ["kernel_att", "kernel_conv", "kernel_mix"]) {
    pickable(maps[name], point, choose, (at) => at.map((n) => n - (maps[name].rows - 1) / 2));
  }
  steerable(maps.kernel_mix, "Kernels; arrow keys choose the offset whose values are shown",
    (step) => {
      const most = (maps.kernel_mix.rows - 1) / 2, from = view.pointed ?? model.get("offset");
      choose(plus(from, step).map((n) => clamp(n, -most, most)));
    });
  view.accept = { pixel: isInside(bounds), offset: isPlace };
  return view;
}

const asColours = ({ data, height, width }, lift) =>
  data.slice(0, 3 * height * width).map((value) => value + (lift === "colour" ? 0.5 : 0));

function draw(model, view) {
  const { data, maps } = view, now = stages(model, data, view.remember);
  view.walk.look();
  const pixel = view.hovered ?? model.get("pixel");
  view.fold.hidden = !model.get("more");
  drawPaths(model, view, now, drawStage1(model, data, view, now));
  const share = drawShare(model, data, view, normsOf(view, now));
  drawMarks(model, data, view, pixel);
  const kernels = drawKernels(model, data, view, now, pixel,
    view.pointed ?? model.get("offset"));
  maps.picture.frame.setAttribute("aria-label",
    `Picture, pixel row ${pixel[0]}, column ${pixel[1]}; arrow keys move it`);
  return `${kernels}. ${share}.`;
}

export default explorer({ build, draw });
