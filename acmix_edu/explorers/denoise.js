// The denoise explorer: a noisy picture, what an ACmix makes of it through training, and where the
// attention of its heads looks at one pixel.

import {
  aggregate, attentionWeights, colourFeatures, entropyFraction, groupedConv, newMap, positionMap,
  project,
} from "./engine.js";
import {
  AMOUNT, choice, clamp, element, explorer, figure, floats, intoMap, isInside, mapView, memory,
  outline, pickable, player, plus, slider, squareAt, steerable,
} from "./kit.js";

const MOST = 4;  // windows are drawn on a scale from 0 to four times an even weight
const TOLD = {
  alpha: "α", beta: "β", share: "Attention's share", drift: "Drift of the shift kernels",
  entropy: "Mean entropy",
};

// ---- From the weights of a moment to a picture and to windows -------------------------------

// The tensors of one moment, in the order in which Python packs them.
function tensorsOf(weights, number, { in_planes: inputs, out_planes: outputs, heads }) {
  const lengths = [outputs * inputs, outputs, outputs * inputs, outputs, (outputs / heads) * 2,
    outputs / heads, heads * 3 * inputs, 3 * (inputs + 1) * 9, 3];
  let at = number * lengths.reduce((sum, n) => sum + n, 0);
  return lengths.map((length) => weights.subarray(at, at += length));
}

// The features, and a fifth map that is 1 in the picture: beside it lie the zeros of the padding.
function withOnes({ data, channels, height, width }) {
  const more = newMap(channels + 1, height, width);
  more.data.fill(1).set(data);
  return more;
}

// The attention weights of all pixels, and the colours: Σ_heads Σ_o a_o·(V_head x_o), and the
// convolution path in one 3×3 kernel. α, β and the last 1×1 convolution are multiplied in.
function denoised(features, tensors, { heads, kernel_att: kernel }) {
  const [qWeight, qBias, kWeight, kBias, pWeight, pBias, made, light, constant] = tensors;
  const { height, width, channels } = features, how = { heads, kernel, dilation: 1, stride: 1 };
  const weights = attentionWeights(project(features, qWeight, qBias),
    project(features, kWeight, kBias), positionMap(height, width, pWeight, pBias), how);
  const values = project(features, made, new Float32Array(made.length / channels));
  const att = aggregate(weights, values, how).data;
  const colours = groupedConv(withOnes(features), light,
    { channels: 3, groups: 1, kernel: 3, stride: 1 });
  colours.data.forEach((value, n, all) => {
    let sum = value + constant[Math.floor(n / (height * width))];
    for (let head = 0; head < heads; head++) sum += att[head * all.length + n];
    all[n] = clamp(sum, 0, 1);
  });
  return { weights, colours };
}

// Peak signal to noise ratio in dB.
function psnr(colours, clean) {
  let sum = 0;
  for (let n = 0; n < clean.length; n++) sum += (colours[n] - clean[n]) ** 2;
  return -10 * Math.log10(sum / clean.length);
}

// ---- The page -------------------------------------------------------------------------------

function buildDenoise(model, { redraw, set }) {
  const sizes = model.get("sizes"), { height, width, arms } = sizes, told = model.get("told");
  const [clean, noisy] = ["clean", "noisy"].map((name) => floats(model.get(name)));
  const last = told[arms[0]].length - 1;
  const controls = {
    arm: choice({ name: "arm", label: "Arm", options: arms.map((name) => [name, name]) }),
    moment: slider({ name: "moment", label: "Training step", min: 0, max: last,
      say: (n) => String(told[arms[0]][n].step) }),
  };
  const steps = player(controls.moment, (moment) => set({ moment }), 400);
  const pictures = { noisy: mapView("noisy", "Noisy picture"), result: mapView("result", "Result"),
    clean: mapView("clean", "Clean picture") };
  const heads = Array.from({ length: sizes.heads }, (_, n) => mapView(`head${n}`, `Head ${n}`));
  const photo = (data) => ({ data, channels: 3, height, width });
  pictures.noisy.photo(photo(noisy));
  pictures.noisy.say("The noisy picture", `${figure(psnr(noisy, clean))} dB. The square is the `
    + "window. Point, tap or use arrow keys.");
  pictures.clean.photo(photo(clean));
  pictures.clean.say("The clean picture", "The network never sees it.");
  const numbers = element("dl", { class: "numbers simple" });
  const words = element("p", {}, "Each head shows its weights for the 49 pixels around the chosen one; "
    + "an even weight is 1/49. Past the border, attention reads mirrored pixels.");
  const view = { controls, sizes, pictures, heads, numbers, clean, remember: memory(), arms,
    weights: floats(model.get("weights")), features: { data: colourFeatures(noisy), channels: 4, height, width },
    moments: last + 1 };
  const hover = (pixel) => { view.hovered = pixel; redraw(); };
  const pin = (pixel) => { hover(null); set({ pixel }); };
  for (const picture of Object.values(pictures)) pickable(picture, hover, pin);
  steerable(pictures.noisy, "Noisy picture", (step) =>
    pin(intoMap(plus(model.get("pixel"), step), [height, width])));
  view.accept = { pixel: isInside([height, width]) };
  view.player = steps.box;
  view.parts = [
    element("div", { class: "maps pictures", "data-aim": "moment" },
      ...Object.values(pictures).map((map) => map.box), numbers),
    element("div", { class: "maps kernels", "data-aim": "pixel arm" }, ...heads.map((map) => map.box)),
    scaleOf(), words];
  return Object.assign(view, { reset: steps.stop, release: steps.stop });
}

// The colours of the heads, and what they mean; a white line marks an even weight.
function scaleOf() {
  const colours = AMOUNT.map((levels) => `rgb(${levels})`).join(", ");
  const marks = [[0, "0"], [1, "even"], [MOST / 2, `${MOST / 2} ×`], [MOST, `${MOST} × or more`]];
  const ticks = marks.map(([n, word]) =>
    element("span", { style: `left: ${(100 * n) / MOST}%` }, word));
  return element("div", { class: "weights" },
    element("div", { class: "ramp", style: "background: linear-gradient(#fff, #fff) "
      + `${100 / MOST}% / 2px 100% no-repeat, linear-gradient(90deg, ${colours})` }),
    element("div", { class: "ticks" }, ...ticks));
}

function drawDenoise(model, view) {
  const { sizes, pictures } = view, { height, width } = sizes;
  const arm = model.get("arm"), moment = model.get("moment"), now = model.get("told")[arm][moment];
  const number = view.arms.indexOf(arm) * view.moments + moment;
  const pixel = view.hovered ?? model.get("pixel");
  const { weights, colours } = view.remember("result", number, () =>
    denoised(view.features, tensorsOf(view.weights, number, sizes), sizes));
  const quality = figure(psnr(colours.data, view.clean));
  pictures.result.photo(colours);
  pictures.result.say("The result", `${quality} dB after ${now.step} steps`);
  drawMarks(pictures, sizes, pixel);
  drawHeads(view, weights, (pixel[0] * width + pixel[1]), height * width);
  pictures.noisy.frame.setAttribute("aria-label",
    `Noisy picture, pixel row ${pixel[0]}, column ${pixel[1]}; arrow keys move it`);
  view.numbers.replaceChildren(...Object.entries(TOLD).map(([name, label]) =>
    element("div", {}, element("dt", {}, label),
      element("dd", { "data-told": name }, figure(now[name])))));
  return `${arm}, step ${now.step}: quality ${quality} dB, entropy ${figure(now.entropy)}. `
    + `Pixel row ${pixel[0]}, column ${pixel[1]}.`;
}

function drawMarks(pictures, { kernel_att: k }, pixel) {
  const here = squareAt(pixel, 1, "here");
  outline(pictures.noisy, [squareAt(pixel, k, "attention"), here]);
  for (const name of ["result", "clean"]) outline(pictures[name], [here]);
}

function drawHeads({ heads, sizes }, all, place, pixels) {
  const k = sizes.kernel_att, taps = k * k, half = (k - 1) / 2;
  heads.forEach((map, head) => {
    const start = (head * pixels + place) * taps, weights = all.subarray(start, start + taps);
    map.draw(weights, k, k, 0, MOST / taps, AMOUNT);
    outline(map, [squareAt([half, half], 1, "here")]);
    const most = figure(Math.max(...weights) * taps), entropy = figure(entropyFraction(weights));
    map.say(`Attention weights of head ${head}, at most ${most} times an even weight`,
      `at most ${most} × even, entropy ${entropy}`);
  });
}

export default explorer({ build: buildDenoise, draw: drawDenoise });
