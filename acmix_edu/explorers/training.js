// The training explorer: curves of recorded runs, with a cursor that the reader moves through time.

import {
  button, choice, draggable, element, explorer, figure, headline, player, slider, spot, toggle,
  written,
} from "./kit.js";

const CHARTS = {
  test_accuracy: "Test accuracy", loss: "Loss on the training pictures",
  share: "Attention's share of the norm", alpha: "α", beta: "β",
  drift: "Drift of the shift kernels", entropy: "Entropy of the attention weights",
};
const OF_RUNS = ["test_accuracy", "loss"];
const FULL = ["share", "entropy"];  // fractions: their charts go from 0 to 1
const PATHS = { conv3x3: "Conv", convolution: "Conv", attention: "Att" };  // others have both

const percent = (part) => `${(100 * part).toFixed(1)} %`;
const tenths = (part) => `${Math.round(100 * part)} %`;
const sayer = (measure) => (measure === "test_accuracy" ? percent : figure);

// ---- From records to lines ------------------------------------------------------------------

// null where a value was not recorded: before training, there is no loss.
const meanOf = (values) =>
  (values.includes(null) ? null : values.reduce((sum, value) => sum + value, 0) / values.length);

// What the arm's colour and dashes follow from: what it has, and whether it is the one beside.
const kindOf = (arm, isBeside) => `kind${PATHS[arm] ?? "Both"}${isBeside ? " beside" : ""}`;

// The lines of a chart: { label, kind, seeds: [[value by epoch]] }.
function linesOf({ arms }, measure, arm, beside) {
  if (OF_RUNS.includes(measure)) {
    return [...new Set([arm, beside])].map((name, n) => ({ label: name,
      kind: kindOf(name, n === 1), seeds: arms[name].map((run) => run[measure]) }));
  }
  return arms[arm][0][measure].map((_, layer) => ({ label: `layer ${layer + 1}`,
    kind: `kindLayer${layer + 1}`, seeds: arms[arm].map((run) => run[measure][layer]) }));
}

// Accuracies are drawn from the tenth below chance, and below all that was recorded, to 1.
function lowest({ arms, chance }) {
  const values = Object.values(arms).flat().flatMap((run) => run.test_accuracy);
  return Math.max(0, Math.ceil(10 * Math.min(chance, ...values)) - 1) / 10;
}

// The range of a measure over all arms of a task, so that arms can be compared by eye.
function rangeOf(task, measure) {
  if (measure === "test_accuracy") return [lowest(task), 1];
  const values = Object.values(task.arms).flat().map((run) => run[measure]).flat(2)
    .filter((value) => value !== null);
  if (FULL.includes(measure)) return [0, 1];
  return [Math.min(0, ...values), Math.max(...values, 1e-6)];
}

// ---- The page -------------------------------------------------------------------------------

function chart(measure, pick) {
  const svg = element("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
  const [top, bottom, end] = Array.from({ length: 3 }, () => element("span", {}));
  const level = element("span", { class: "level" }, "chance");
  const note = element("div", { class: "note" });
  const box = element("div", { class: "chart", "data-chart": measure },
    element("div", { class: "title" }, CHARTS[measure]),
    element("div", { class: "plot" }, element("div", { class: "ends" }, top, bottom), svg, level,
      element("div", { class: "along" }, element("span", {}, "0"), end)), note);
  draggable(svg, pick);
  return { box, svg, top, bottom, end, level, note, say: sayer(measure) };
}

function drawChart(view, lines, [low, high], epoch, last, chance) {
  const { svg, top, bottom, end, level, note, say } = view;
  const y = (value) => 100 * (1 - (value - low) / (high - low));
  const x = (n) => (100 * n) / last;
  const d = (values) => values.slice(0, epoch + 1).map((value, n) => (value === null ? ""
    : `${n && values[n - 1] !== null ? "L" : "M"}${x(n)} ${y(value)}`)).join("");
  const dot = (values) => (values[epoch] === null ? "" : spot(x(epoch), y(values[epoch])));
  const paths = lines.flatMap(({ kind, seeds }) => [
    ...seeds.map((values) => element("path", { d: dot(values), class: `dot ${kind}` })),
    ...seeds.map((values) => element("path", { d: d(values), class: `seed ${kind}` })),
    element("path", { d: d(seeds[0].map((_, n) => meanOf(seeds.map((s) => s[n])))),
      class: `mean ${kind}` })]);
  level.hidden = chance === undefined;
  level.style.setProperty("--at", (y(chance) + 4) / 108);
  const dotted = level.hidden ? []
    : [element("path", { d: `M0 ${y(chance)}H100`, class: "chance" })];
  const cursor = element("path", { d: `M${x(epoch)} 0V100`, class: "cursor" });
  svg.setAttribute("viewBox", "0 -4 100 108");  // room above and below the lines
  svg.replaceChildren(...dotted, ...paths, cursor);
  [top.textContent, bottom.textContent] = [high, low].map((end) =>
    (say === percent ? tenths(end) : written(Number(end.toPrecision(3)))));
  end.textContent = `epoch ${last}`;
  const said = lines.map(({ label, kind, seeds }) => {
    const values = seeds.map((s) => s[epoch]), mean = meanOf(values);
    const said = mean === null ? "none yet"
      : `${say(mean)} (${say(Math.min(...values))} … ${say(Math.max(...values))})`;
    return element("span", { class: "entry" }, element("span", { class: `key ${kind}` }),
      ` ${label}: ${said}`);
  });
  note.replaceChildren(...said);
}

// All arms at once: a row for each, and on it a dot for each seed's test accuracy. The ends of the
// scale and chance stand above the rows.
function raceOf(names, choose) {
  const title = element("div", { class: "title" }, "Test accuracy of every arm, a dot for each seed");
  const [low, chance] = ["low", "chance"].map((name) => element("span", { class: name }));
  const scale = element("div", { class: "arm-scale" }, low, element("div", {}, chance),
    element("span", {}, "100 %"));
  const rows = names.map((name) => {
    const svg = element("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none",
      "aria-hidden": "true" });
    const value = element("span", { class: "value" });
    const row = button("", () => choose(name), { class: "arm-row", "data-arm": name });
    row.append(element("span", {}, name), svg, value);
    return { name, row, svg, value };
  });
  const box = element("div", { class: "race", role: "group", "aria-label": "All arms" }, title, scale,
    ...rows.map(({ row }) => row));
  return { box, rows, low, chance };
}

// Seeds that reach the same stand above each other: the y of each, in a row that is 10 high.
function stacked(places) {
  return places.map((place, n) => {
    const alike = [...places.keys()].filter((m) => Math.abs(places[m] - place) < 1);
    const step = Math.min(2.4, 8 / (alike.length - 1));
    return 5 + (alike.length > 1 ? (alike.indexOf(n) - (alike.length - 1) / 2) * step : 0);
  });
}

function drawRace({ rows, ...scale }, task, { arm, beside, epoch }) {
  const { arms, chance } = task, low = lowest(task);
  const x = (value) => (100 * (value - low)) / (1 - low);
  scale.low.textContent = tenths(low);
  scale.chance.textContent = "chance";
  scale.chance.style.left = `${x(chance)}%`;
  for (const { name, row, svg, value } of rows) {
    const seeds = arms[name].map((run) => run.test_accuracy[epoch]), places = seeds.map(x);
    const heights = stacked(places);
    const kind = kindOf(name, false) + ([arm, beside].includes(name) ? "" : " other");
    svg.replaceChildren(element("path", { d: `M${x(chance)} 0V10`, class: "chance" }),
      ...places.map((at, n) => element("path", { d: spot(at, heights[n]), class: `dot ${kind}` })));
    value.textContent = percent(meanOf(seeds));
    row.setAttribute("aria-pressed", name === arm);
  }
}

function buildTraining(model, { set }) {
  const runs = model.get("runs"), { tasks, arms: named } = model.get("names");
  const arms = named.map((name) => [name, name]);
  const longest = Math.max(...tasks.map((task) => lastEpoch(runs[task])));
  const controls = {
    task: choice({ name: "task", label: "Task", options: tasks.map((name) => [name, name]) }),
    arm: choice({ name: "arm", label: "Arm", options: arms }),
    beside: choice({ name: "beside", label: "Beside it", options: arms }),
    epoch: slider({ name: "epoch", label: "Epoch", min: 0, max: longest }),
    inside: toggle({ name: "inside", label: "Loss, and inside the layers" }),
  };
  const shown = () => runs[model.get("task")];
  const steps = player(controls.epoch, (epoch) => set({ epoch }));
  const pick = (part) => set({ epoch: Math.round(part * lastEpoch(shown())) });
  const charts = Object.fromEntries(Object.keys(CHARTS).map((name) => [name, chart(name, pick)]));
  charts.share.box.dataset.aim = "inside";
  const heading = headline(), key = element("p", {},
    "Brown: attention alone. Teal: a convolution. Purple: both. Dashed: the arm beside it. Dotted: "
    + "chance. Each thin line is a seed, each thick one the mean of the seeds; the brackets give the "
    + "lowest and the highest seed. Every chart has one scale for all arms of the task. Click or "
    + "drag on a chart to choose the epoch.");
  const grid = (...names) =>
    element("div", { class: "charts", "data-aim": "" }, ...names.map((name) => charts[name].box));
  const [first, loss, ...layers] = Object.keys(CHARTS);
  const race = raceOf(named, (arm) => set({ arm }));
  const inside = element("div", {}, grid(loss), heading, grid(...layers));
  const parts = [grid(first), race.box, inside, key];
  return { controls, player: steps.box, parts, charts, inside, heading, race, reset: steps.stop, release: steps.stop };
}

const lastEpoch = ({ arms }) => Object.values(arms)[0][0].loss.length - 1;

function drawTraining(model, { charts, inside, heading, controls, race }) {
  const task = model.get("runs")[model.get("task")], last = lastEpoch(task);
  const [arm, beside] = [model.get("arm"), model.get("beside")];
  const epoch = Math.min(model.get("epoch"), last);
  controls.epoch.input.max = last;
  controls.epoch.show(epoch);
  for (const [measure, view] of Object.entries(charts)) {
    const lines = linesOf(task, measure, arm, beside);
    const chance = measure === "test_accuracy" ? task.chance : undefined;
    view.box.hidden = !lines.length;
    drawChart(view, lines, rangeOf(task, measure), epoch, last, chance);
  }
  inside.hidden = !model.get("inside");
  drawRace(race, task, { arm, beside, epoch });
  const when = epoch ? `after epoch ${epoch} of ${last}` : "before training";
  heading.textContent = charts.share.box.hidden ? `${arm} has no ACmix to look into`
    : `Inside ${arm}, layer by layer, ${when}`;
  const accuracy = linesOf(task, "test_accuracy", arm, beside).map(({ label, seeds }) =>
    `${label} ${percent(meanOf(seeds.map((s) => s[epoch])))}`);
  return `Epoch ${epoch} of ${last}. Mean test accuracy: ${accuracy.join(", ")}.`;
}

export default explorer({ build: buildTraining, draw: drawTraining });
