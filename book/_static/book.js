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

// An exercise that a line answers is answered here. What is typed is judged as exercises.py does.
(() => {
  const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
  const TRUTHS = new Map([["true", true], ["t", true], ["yes", true],
                          ["false", false], ["f", false], ["no", false]]);
  const number = (text) => (NUMBER.test(text) ? Number(text) : NaN);
  const ratio = (text) => text.split("/").map(number).reduce((a, b) => a / b);
  const product = (text) => text.split("*").map(ratio).reduce((a, b) => a * b);
  const READ = { // each returns undefined for what it cannot read
    string: (text) => text.replace(/^[ ."']+|[ ."']+$/g, "").toLowerCase() || undefined,
    boolean: (text) => TRUTHS.get(text.toLowerCase()),
    number: (text) => {
      const plain = text.replace(/%$/, "/100").replace(/(\d+)\*\*(\d+)/g, (_, a, b) => a ** b);
      const value = plain.split(/(?<=[\d.])\+/).map(product).reduce((a, b) => a + b);
      return Number.isFinite(value) ? value : undefined;
    },
  };
  const items = (text) => text.replace(/[()[\]]/g, " ").replace(/[−–]/g, "-").replace(/[×·]/g, "*")
    .replace(/\s*([*/]|(?<=[\d.]\s*)\+)\s*|\s+(?=%)/g, "$1").split(/[\s,;]+/).filter(Boolean);

  const judge = (text, { asked, values, slack, count, hint, choices }) => {
    const kind = typeof values[0];
    const one = count === 1 ? text.replace(/(?<=\d)[, ](?=\d{3}\b)/g, "") : text; // 40,300
    const answer = (kind === "string" ? [text] : items(one)).map(READ[kind]);
    if (!answer.length || answer.includes(undefined) || answer.length !== (count ?? answer.length)) {
      return choices.length ? "Choose one." : `Type ${asked}.`;
    }
    const isNear = (value, n) => value === values[n] || Math.abs(value - values[n]) <= slack[n];
    const right = answer.length === values.length && answer.every(isNear);
    return right ? "✓ Right." : `✗ Not yet. ${hint}`;
  };

  const numberAbove = (cell) => {
    let above = cell;
    while (above && !/^\d+\. /.test(above.textContent)) above = above.previousElementSibling;
    return parseInt(above?.textContent);
  };

  for (const sentence of document.querySelectorAll("[data-exercise]")) {
    const exercise = JSON.parse(atob(sentence.dataset.exercise));
    const radio = (word) => `<label><input type="radio" name="answer" value="${word}"> ${word}</label>`;
    const form = document.createElement("form");
    form.className = "exercise";
    form.ariaLabel = `Exercise ${numberAbove(sentence.closest(".cell"))}`;
    form.innerHTML = (exercise.choices.length
      ? `<fieldset><legend>Your answer</legend>${exercise.choices.map(radio).join("")}</fieldset>`
      : `<label>Your answer: ${exercise.asked} <input name="answer" autocomplete="off"
           autocapitalize="off" spellcheck="false"></label>`)
      + "<button>Check</button><p role=status></p>";
    const status = form.querySelector("p");
    form.addEventListener("input", () => (status.textContent = ""));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      status.textContent = judge(new FormData(form).get("answer") ?? "", exercise);
    });
    (sentence.closest(".output") ?? sentence).replaceWith(form); // .output stays light in the dark
  }
})();

// An exercise that takes code cannot be answered here: a link leads to where it can.
(() => {
  const colab = document.querySelector("a[href^='https://colab.research.google.com']");
  for (const output of colab ? document.querySelectorAll(".cell_output > .sentences") : []) {
    if (output.querySelector("pre").textContent.trim() !== "Not answered yet: replace the three dots.") continue;
    const line = document.createElement("p");
    line.className = "in-colab";
    line.innerHTML = `This one needs code: <a href="${colab.href}" target="_blank">answer it in Colab</a>.`;
    output.replaceWith(line);
  }
})();

// A prediction that lists options is made by choosing one, which opens the answer that follows. The
// answer begins with the option that is true, as tests/test_site.py makes sure.
(() => {
  const folds = [...document.querySelectorAll("details:not(.tag_hide-input > details)")];
  const button = (option) => `<button type="button" aria-pressed="false">${option}</button>`;
  for (const list of document.querySelectorAll("blockquote p:last-child > em:only-child")) {
    const box = list.closest("blockquote");
    const options = list.innerHTML.split(" · ");
    if (options.length < 2 || !box.textContent.trim().startsWith("Predict.")) continue;

    const follows = (fold) => box.compareDocumentPosition(fold) & Node.DOCUMENT_POSITION_FOLLOWING;
    const answer = folds.find(follows);
    const told = answer.querySelector(":scope > p, :scope > .cell_output > p").textContent.toLowerCase();
    const isTrue = (option) =>
      told.startsWith(option.toLowerCase()) && /^[.,:;]/.test(told.slice(option.length));
    answer.insertAdjacentHTML("beforebegin", '<p class="said" role="status"></p>');
    const said = answer.previousElementSibling;
    list.parentElement.outerHTML =
      `<div class="options" role="group" aria-label="Your prediction">${options.map(button).join("")}</div>`;
    const group = box.querySelector(".options");
    if (!box.nextElementSibling.contains(answer)) { // an explorer stands between: say where it is
      said.id = `answer-${folds.indexOf(answer)}`;
      group.insertAdjacentHTML("afterend", `<p class="way" hidden><a href="#${said.id}">The answer</a> is open now.</p>`);
    }
    group.addEventListener("click", ({ target }) => {
      const chosen = target.closest("button");
      if (!chosen) return;
      const judged = isTrue(chosen.textContent) ? "✓ Right." : "✗ Not so.";
      for (const each of group.children) each.setAttribute("aria-pressed", each === chosen);
      chosen.dataset.mark = judged[0];
      said.textContent = `You said: ${chosen.textContent}. ${judged}`;
      answer.open = true;
      box.querySelector(".way")?.removeAttribute("hidden");
    });
  }
})();
