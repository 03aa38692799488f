// What scrolls sideways in its own box must be reachable with the keyboard, and only then.
(() => {
  const boxes = "div.math, table, pre, .pst-scrollable-table-container";
  const isWide = (box) => box.scrollWidth > box.clientWidth + 1;
  const mark = ([box, wide]) => {
    if (wide) box.tabIndex = 0;
    else if (box.tabIndex === 0) box.removeAttribute("tabindex");
  };
  // All are read before the first is changed: a page is laid out once, not once for each.
  const sizes = new ResizeObserver((entries) =>
    entries.map(({ target }) => [target, isWide(target)]).forEach(mark));
  for (const box of document.querySelectorAll(boxes)) {
    sizes.observe(box);
    for (const child of box.children) sizes.observe(child);
  }
})();

// On paper the page is light.
(() => {
  const root = document.documentElement;
  let theme;
  addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
  });
  addEventListener("afterprint", () => (root.dataset.theme = theme));
})();
