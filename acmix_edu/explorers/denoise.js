// The denoise explorer: the windows of attention of all heads at one pixel, through training.

import {
  attentionWeightsAt, entropyFraction, positionMap, project, windowPixels,
} from "./engine.js";
import {
  AMOUNT, choice, element, explorer, figure, floats, mapView, memory, outline, pickable, player,
  slider, steerable,
} from "./kit.js";

const MOST = 4;  // windows are drawn on a scale from 0 to four times an even weight
const TOLD = {
  psnr: "Quality (PSNR, dB)", alpha: "α", beta: "β", share: "Attention's share",
  drift: "Drift of the shift kernels", entropy: "Entropy",
};

// ---- From the weights of a moment to windows ------------------------------------------------

// Colours 0 … 1 → colour_features: the colour minus ½, and what lifts it onto a sphere.
function featuresOf(colours, height, width) {
  const size = height * width, data = new Float32Array(4 * size);
  for (let n = 0; n < size; n++) {
    let rest = 3;
    for (let c = 0; c < 3; c++) {
      const value = data[c * size + n] = colours[c * size + n] - 0.5;
      rest -= value * value;
    }
    data[3 * size + n] = Math.sqrt(rest);
  }
  return { data, channels: 4, height, width };
}

// q, k and the position term's weights, in the order in which Python packs them.
function layersOf(weights, number, { in_planes: inputs, out_planes: outputs, heads }) {
  const lengths = [outputs * inputs, outputs, outputs * inputs, outputs, (outputs / heads) * 2,
    outputs / heads];
  let at = number * lengths.reduce((sum, n) => sum + n, 0);
  return lengths.map((length) => weights.subarray(at, at += length));
}

// Stage I: the maps of queries and keys, and the position map.
function mapsOf(features, [qWeight, qBias, kWeight, kBias, pWeight, pBias], { height, width }) {
  return { q: project(features, qWeight, qBias), k: project(features, kWeight, kBias),
    pe: positionMap(height, width, pWeight, pBias) };
}

// ---- The page -------------------------------------------------------------------------------

function buildDenoise(model, { redraw, set }) {
  const sizes = model.get("sizes"), { height, width } = sizes, told = model.get("told");
  const { arms } = sizes, last = told[arms[0]].length - 1;
  const colours = floats(model.get("image")), weights = floats(model.get("weights"));
  const controls = {
    arm: choice({ name: "arm", label: "Arm", options: arms.map((name) => [name, name]) }),
    moment: slider({ name: "moment", label: "Training step", min: 0, max: last,
      say: (n) => String(told[model.get("arm")][n].step) }),
  };
  const steps = player(controls.moment, (moment) => set({ moment }), 400);
  const picture = mapView("picture", "Picture");
  const heads = Array.from({ length: sizes.heads }, (_, n) => mapView(`head${n}`, `Head ${n}`));
  picture.photo({ data: colours, channels: 3, height, width });
  picture.say("The picture", "The square is the window. Point, tap or use arrow keys.");
  const numbers = element("dl", { class: "numbers" });
  const scale = element("p", {}, "A window shows the weights of the 49 pixels around the chosen "
    + `one: dark 0, yellow ${MOST} times an even weight (1/49) or more. Past the border, attention `
    + "reads mirrored pixels.");
  const view = { controls, sizes, picture, heads, numbers, weights, remember: memory(),
    features: featuresOf(colours, height, width), arms, moments: last + 1 };
  const hover = (pixel) => { view.hovered = pixel; redraw(); };
  const pin = (...pixel) => { hover(null); set({ pixel }); };
  pickable(picture, { hover: (...at) => hover(at), leave: () => hover(null), pin });
  steerable(picture, "Picture", (...step) => pin(...model.get("pixel").map((n, axis) =>
    Math.min(Math.max(n + step[axis], 0), [height, width][axis] - 1))));
  view.accept = { pixel: (at) => at.length === 2 && at.every((n, axis) =>
    Number.isInteger(n) && n >= 0 && n < [height, width][axis]) };
  view.parts = [steps.box, element("div", { class: "flow" },
    element("div", { class: "source" }, picture.box),
    element("div", { class: "stages" },
      element("div", { class: "maps kernels" }, ...heads.map((map) => map.box)), numbers)), scale];
  return Object.assign(view, { reset: steps.stop, release: steps.stop });
}

function drawDenoise(model, view) {
  const { sizes, heads, picture, controls } = view, { kernel_att: k, height, width } = sizes;
  const arm = model.get("arm"), moment = model.get("moment");
  const pixel = view.hovered ?? model.get("pixel"), taps = k * k;
  const now = model.get("told")[arm][moment];
  const number = view.arms.indexOf(arm) * view.moments + moment;
  const maps = view.remember("maps", number, () =>
    mapsOf(view.features, layersOf(view.weights, number, sizes), sizes));
  const read = windowPixels(height, width, { kernel: k, dilation: 1, stride: 1 });
  const place = pixel[0] * width + pixel[1], half = (k - 1) / 2;
  const windows = attentionWeightsAt(maps, sizes.heads, pixel,
    read.subarray(place * taps, (place + 1) * taps));
  const square = (side, kind) => ({ row: pixel[0] - (side - 1) / 2,
    column: pixel[1] - (side - 1) / 2, rows: side, columns: side, kind });
  outline(picture, [square(k, "attention"), square(1, "here")]);
  picture.frame.setAttribute("aria-label",
    `Picture, pixel row ${pixel[0]}, column ${pixel[1]}; arrow keys move it`);
  heads.forEach((map, head) => {
    const weights = windows[head];
    map.draw(weights, k, k, 0, MOST / taps, AMOUNT);
    outline(map, [{ row: half, column: half, rows: 1, columns: 1, kind: "here" }]);
    const most = figure(Math.max(...weights) * taps), entropy = figure(entropyFraction(weights));
    map.say(`Attention weights of head ${head}, at most ${most} times an even weight`,
      `at most ${most} × even, entropy ${entropy}`);
  });
  controls.moment.show(moment);
  view.numbers.replaceChildren(...Object.entries(TOLD).flatMap(([name, label]) =>
    [element("dt", {}, label), element("dd", { "data-told": name }, figure(now[name]))]));
  return `${arm}, step ${now.step}: quality ${figure(now.psnr)} dB, entropy ${figure(now.entropy)}. `
    + `Pixel row ${pixel[0]}, column ${pixel[1]}.`;
}

export default explorer({ build: buildDenoise, draw: drawDenoise });
