"""An explorer on a page: what it draws, what it says, what state it is in."""

import base64

import numpy as np

# The colour scales, written down a second time.
SIGNED = [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]]
AMOUNT = [[0, 32, 77], [66, 77, 108], [124, 123, 120], [188, 175, 111], [255, 234, 70]]

READ = """(root) => Object.fromEntries([...root.querySelectorAll("[data-map]")].map((canvas) => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let text = "";
  for (let n = 0; n < data.length; n += 8192) {
    text += String.fromCharCode(...data.subarray(n, n + 8192));
  }
  return [canvas.dataset.map, [height, width, btoa(text)]];
}))"""
STATE = """(root) => Object.fromEntries(
  Object.keys(root.model.get("start")).map((trait) => [trait, root.model.get(trait)]))"""
# All text and all attributes of the explorer but those that only the pointer or the focus change.
MARKUP = """(root) => {
  const copy = root.cloneNode(true);
  copy.querySelectorAll("[role=status]").forEach((node) => node.remove());
  root.querySelectorAll("input").forEach((input, n) => {
    copy.querySelectorAll("input")[n].setAttribute("value", `${input.value} ${input.checked}`);
  });
  root.querySelectorAll("select").forEach((list, n) => {
    copy.querySelectorAll("select")[n].setAttribute("value", list.value);
  });
  return copy.innerHTML;
}"""
# The text of a node, with a line for each bar of colours: what listeners hear of it.
SAID = """const said = (node) => {
  const copy = node.cloneNode(true);
  for (const bar of copy.querySelectorAll(".scale-bar")) {
    bar.replaceWith(`\\n${bar.getAttribute("aria-label")}\\n`);
  }
  return copy.textContent.trim();
};"""
# Under load a browser may stop drawing frames for good; then five seconds are enough.
TWO_FRAMES = """new Promise((done) => {
  requestAnimationFrame(() => requestAnimationFrame(done));
  setTimeout(done, 5000);
})"""
# A frame for what was asked for, and then until nothing is still to come.
SETTLED = f"""async () => {{
  do await {TWO_FRAMES}; while (document.querySelector(".acmix-explorer [aria-busy=true]"));
}}"""
# Explorers start when they come into view.
VIEWS = "script[type$='widget-view+json']"
START_ALL = f"""async () => {{
  for (const script of document.querySelectorAll("{VIEWS}")) {{
    script.parentElement.scrollIntoView({{ behavior: "instant" }});
    await {TWO_FRAMES};
  }}
  scrollTo({{ top: 0, behavior: "instant" }});
}}"""


def colours(values, low, high, stops):
    """The colour of each value: linear between equally spaced stops; nothing for NaN."""
    values = np.asarray(values, dtype=float)
    place = np.clip((values - low) / (high - low), 0, 1) * (len(stops) - 1)
    levels = [np.interp(place, range(len(stops)), channel) for channel in zip(*stops, strict=True)]
    rgba = np.stack([*levels, np.full(values.shape, 255.0)], axis=-1)
    rgba[np.isnan(values)] = 0
    return np.floor(rgba + 0.5)


def picture(image):
    """The first three channels as red, green, blue, stretched where they leave 0 … 1."""
    rgb = image[:3] if len(image) >= 3 else np.repeat(image[:1], 3, axis=0)
    low, high = (0, 1) if rgb.min() >= 0 and rgb.max() <= 1 else (rgb.min(), rgb.max())
    levels = np.floor((rgb.transpose(1, 2, 0) - low) / (high - low) * 255 + 0.5)
    return np.concatenate([levels, np.full((*levels.shape[:2], 1), 255)], axis=-1)


def number(text):
    """A number as a page writes it."""
    return float(text.replace("−", "-"))


class Shown:
    """The explorer of a name on a page; the `number`-th, where there are several."""

    def __init__(self, page, name, number=0):
        self.page = page
        self.root = page.locator(f".acmix-explorer.{name}").nth(number)
        page.locator(f"{VIEWS}, .jp-Notebook").first.wait_for(state="attached")
        page.evaluate(START_ALL)
        self.root.wait_for()
        page.evaluate(SETTLED)

    def state(self) -> dict:
        """The traits that make the state, as the view has them now."""
        return self.root.evaluate(STATE)

    def follow(self) -> None:
        """Set the explorer in Python, of those that have one, to the state of the page."""
        for trait, value in self.state().items():
            setattr(self.explorer, trait, tuple(value) if isinstance(value, list) else value)

    def drawn(self) -> dict:
        """Every map by name, as [rows, columns, 4] levels."""
        self.page.evaluate(SETTLED)
        return {
            name: np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)
            for name, (height, width, data) in self.root.evaluate(READ).items()
        }

    def markup(self) -> str:
        """Text and attributes of the explorer, and the values of its controls."""
        self.page.evaluate(SETTLED)
        return self.root.evaluate(MARKUP)

    def control(self, name):
        return self.root.locator(f'[name="{name}"]')

    def frame(self, name):
        return self.root.locator(f'.frame:has(canvas[data-map="{name}"])')

    def note(self, name) -> str:
        """The line below a map."""
        self.page.evaluate(SETTLED)
        return self.root.locator(f'.map:has(canvas[data-map="{name}"]) .note').inner_text()

    def place(self, name, row, column):
        """Where on the page a cell of a map lies."""
        self.frame(name).scroll_into_view_if_needed()
        canvas = self.root.locator(f'canvas[data-map="{name}"]')
        box = canvas.bounding_box()  # a frame has a border, which is half a cell of a small map
        rows, columns = canvas.evaluate("(canvas) => [canvas.height, canvas.width]")
        return (
            box["x"] + (column + 0.5) * box["width"] / columns,
            box["y"] + (row + 0.5) * box["height"] / rows,
        )

    def click_track(self, name) -> None:
        """Move a slider by the mouse, to the side where there is more room."""
        control = self.control(name)
        control.scroll_into_view_if_needed()
        box = control.bounding_box()
        low, high, now = control.evaluate("(c) => [c.min, c.max, c.value].map(Number)")
        where = 0.85 if now < (low + high) / 2 else 0.2
        self.page.mouse.click(box["x"] + where * box["width"], box["y"] + box["height"] / 2)

    def press_one(self, name) -> None:
        """Move a slider by one step with the keyboard, away from its end."""
        control = self.control(name)
        control.focus()
        highest = control.get_attribute("max") == control.input_value()
        self.page.keyboard.press("ArrowLeft" if highest else "ArrowRight")

    def compare(self, wanted) -> dict:
        """Hold what is drawn against maps by name, to one level; return what is drawn."""
        drawn = self.drawn()
        assert set(drawn) == set(wanted)
        for name, rgba in wanted.items():
            assert drawn[name].shape == rgba.shape, f"{name}: {drawn[name].shape}, not {rgba.shape}"
            apart = np.abs(drawn[name] - rgba).max()
            assert apart <= 1, f"{name} is up to {apart:.0f} levels away from Python's"
        return drawn


def moved(shown, name):
    """Follow the page, see that the trait has changed, and compare everything."""
    old = getattr(shown.explorer, name)
    shown.page.evaluate(TWO_FRAMES)
    shown.follow()
    assert getattr(shown.explorer, name) != old, f"{name} has not moved"
    return shown.check()
