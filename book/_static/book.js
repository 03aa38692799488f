// What scrolls sideways in its own box must be reachable with the keyboard, and only then.
(() => {
  const boxes =
    "div.math, table, pre, .pst-scrollable-table-container, .cell_output .text_html";
  const mark = (box) => {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    else if (box.tabIndex === 0) box.removeAttribute("tabindex");
  };
  const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => mark(target)));
  for (const box of document.querySelectorAll(boxes)) {
    sizes.observe(box);
    for (const child of box.children) sizes.observe(child);
  }
})();
