// A picture of the reader's own: opened, dropped, pasted or drawn. It never leaves the page.
// Colours are [3, H, W], values 0 … 1.

import { IN_MEMORY, button, cellUnder, element, isInside, plus } from "./kit.js";

// The middle of a picture's file, scaled to the height and width, as colours.
async function readFile(file, height, width) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(bitmap.width / width, bitmap.height / height);
  const [w, h] = [width * scale, height * scale];
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d", IN_MEMORY);
  Object.assign(context, { imageSmoothingQuality: "high", fillStyle: "white" });
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, (bitmap.width - w) / 2, (bitmap.height - h) / 2, w, h, 0, 0, width,
    height);
  const { data } = context.getImageData(0, 0, width, height), size = height * width;
  return Float32Array.from({ length: 3 * size }, (_, n) =>
    data[4 * (n % size) + Math.floor(n / size)] / 255);
}

const colourOf = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);

// A dab of the brush: the cell and its four neighbours, inside the picture.
function dab(colours, place, { rows, columns }, colour) {
  const cells = [[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]].map((step) => plus(place, step));
  for (const [r, c] of cells.filter(isInside([rows, columns]))) {
    colour.forEach((level, n) => (colours[(n * rows + r) * columns + c] = level));
  }
  return colours;
}

// The cells on the way from one to another: a fast pointer leaves some out.
function between(from, to) {
  const steps = Math.max(...from.map((n, axis) => Math.abs(to[axis] - n)), 1);
  return Array.from({ length: steps }, (_, n) =>
    from.map((start, axis) => Math.round(start + ((to[axis] - start) * (n + 1)) / steps)));
}

// Buttons below a picture's map. `read()` gives its colours, `change(colours)` takes new ones, and
// `place()` is the cell at which the space bar draws.
export function ownPicture(view, { place, read, change }) {
  const { frame } = view, says = element("p", { role: "status" });
  const file = element("input", { type: "file", accept: "image/*", "aria-label": "A picture file" });
  const ink = element("input", { type: "color", value: "#d02020", "aria-label": "Colour to draw" });
  const draw = button("Draw", () => drawing(!on), { "aria-pressed": "false" });
  let on = false, last = null;

  const drawing = (value) => {
    on = value;
    draw.setAttribute("aria-pressed", on);
    frame.classList.toggle("drawing", on);
    says.textContent = on ? "Draw with the pointer, or with the arrow keys and the space bar." : "";
  };
  const paint = (...cells) => change(cells.reduce((colours, cell) =>
    dab(colours, cell, view, colourOf(ink.value)), read()));
  const take = async (picture) => {
    if (!picture) return;
    try {
      change(await readFile(picture, view.rows, view.columns));
      says.textContent = `Your picture${picture.name ? ` ${picture.name}` : ""}; it stays here.`;
    } catch {
      says.textContent = "This browser cannot read that file as a picture; try a PNG or a JPEG.";
    }
  };
  const pictureIn = (transfer) => [...transfer?.files ?? []].find((f) => f.type.startsWith("image/"))
    ?? transfer?.files[0];

  file.addEventListener("change", () => { take(file.files[0]); file.value = ""; });
  frame.addEventListener("dragover", (event) => event.preventDefault());
  frame.addEventListener("drop", (event) => {
    event.preventDefault();
    take(pictureIn(event.dataTransfer));
  });
  const pasted = (event) => {
    const here = frame.matches(":hover") || frame.contains(document.activeElement);
    if (here && event.clipboardData?.files.length) take(pictureIn(event.clipboardData));
  };
  document.addEventListener("paste", pasted);
  frame.addEventListener("pointerdown", (event) => {
    if (!on || event.button) return;
    frame.setPointerCapture(event.pointerId);
    last = cellUnder(view, event);
    paint(last);
  });
  frame.addEventListener("pointermove", (event) => {
    if (!on || !last) return;
    const cell = cellUnder(view, event);
    paint(...between(last, cell));
    last = cell;
  });
  for (const end of ["pointerup", "pointercancel"]) {
    frame.addEventListener(end, () => (last = null));
  }
  frame.addEventListener("keydown", (event) => {
    if (!on || event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    paint(place());
  });
  const open = element("label", { class: "file" }, "Open a picture", file);
  const box = element("div", { class: "own" }, open, draw, ink,
    element("p", {}, "Or drop a picture here, or point at this one and paste. It never leaves this page."),
    says);
  const stop = () => { drawing(false); says.textContent = ""; };
  return { box, stop, release: () => document.removeEventListener("paste", pasted) };
}
