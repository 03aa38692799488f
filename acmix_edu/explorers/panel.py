"""The speed panel: how long ACmix takes on the reader's own device, its memory and its maps."""

import base64
import html
import io
import math
import os
import statistics
import time
from functools import partial
from itertools import accumulate

import ipywidgets as widgets
import psutil
import torch
from torch.profiler import ProfilerActivity, profile

from acmix_edu.acmix import ACmix
from acmix_edu.checks import whole_number
from acmix_edu.examples import colour_features, legible_acmix, photograph
from acmix_edu.fast import triton_attention

ROUNDS, SECONDS = 9, 10  # the most turns of each form; none begins after these seconds
SHARPNESS = 10  # a neighbour's weight falls as exp(−10·r²); r is the difference of the colours
PASSES = {"forward": "forward", "both": "forward and backward"}
COLUMNS = "repeat(auto-fit, minmax(min(290px, 100%), 1fr))"
WHOLE = {"description_width": "initial"}  # no label is cut off


class SpeedPanel(widgets.VBox):
    """Measure ACmix on the reader's device, with controls for its sizes and its input.

    Press "Measure", or call :meth:`measure`. α and β only mix the two paths, so they just redraw
    the maps that were measured last. The panel needs a kernel. It runs on the CUDA device if there
    is one, else on the CPU.

    Args:
        channels: of the input and of the output.

    Attributes:
        controls: by name, each with a ``value``: kernel_att, kernel_conv, dilation, heads, alpha,
            beta, side, batch, dtype, backend.
        module, maps, results: what the last measurement ran, drew and found.

    Example:
        >>> panel = SpeedPanel()
        >>> panel.controls["side"].value = 14
        >>> panel.measure()["forward_ms"] > 0
        True
    """

    def __init__(self, channels: int = 64):
        self.channels = whole_number("channels", channels)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        cuda = self.device.type == "cuda"
        self.where = torch.cuda.get_device_name() if cuda else "the processor"
        self.controls = _controls(self.channels, self.device)
        self.module: ACmix | None = None
        self.maps: dict[str, torch.Tensor] = {}
        self.results: dict = {}
        self.button = widgets.Button(description="Measure", button_style="primary")
        self.progress = widgets.IntProgress(description="Measuring", style=WHOLE)
        self.progress.layout.visibility = "hidden"
        self.said, self.table, self.picture = (widgets.HTML() for _ in range(3))
        grid = widgets.Layout(grid_template_columns=COLUMNS)
        controls = widgets.GridBox(list(self.controls.values()), layout=grid)
        wrap = widgets.Layout(flex_flow="row wrap")
        start = widgets.HBox([self.button, self.progress], layout=wrap)
        super().__init__([controls, start, self.said, self.table, self.picture])
        self._say(f"Press Measure to run ACmix on {self.where}.")
        self.button.on_click(lambda _: self.measure())
        for control in self.controls.values():
            control.observe(self._follow, "value")

    def measure(self) -> dict:
        """Measure what the controls say, show it and return it.

        Returns:
            The controls' values and, for "forward" and "both" (forward and backward), ``…_ms``, a
            median, and ``…_bytes``, the peak on top of input and weights. Unless the form is
            "unfold" itself, also the same for the unfold form, ``unfold_…``, and ``…_ratio``, how
            many times as long that takes; or ``refused``, why it does not fit. If nothing ran, only
            the values and ``error``.
        """
        setting = {name: control.value for name, control in self.controls.items()}
        self.module, self.maps, self.table.value, self.picture.value = None, {}, "", ""
        self.button.disabled, self.progress.layout.visibility = True, "visible"
        self._say(f"Running on {self.where} …")
        try:
            self.results = setting | self._run(setting)
            self._draw()
            self.table.value = _table(self.results)
            self._say(self.results.get("refused", f"Measured on {self.where}."))
        except Exception as error:  # whatever it is, the reader gets a sentence
            few = isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
            says = "There is not enough memory: make batch, side or kernel_att smaller."
            says = says if few else str(error).split("\n")[0] or type(error).__name__
            self.results = setting | {"error": says}
            self._say(says)
        finally:
            self.button.disabled, self.progress.layout.visibility = False, "hidden"
        return self.results

    def _run(self, setting: dict) -> dict:
        x = _features(self.channels, setting).to(self.device)
        refused = _too_large(x, setting)
        forms = dict.fromkeys([setting["backend"]] if refused else [setting["backend"], "unfold"])
        if refused and "unfold" in forms:
            raise MemoryError(refused)
        modules = [_acmix(self.channels, setting, form).to(x) for form in forms]
        found = _measure(dict(zip(("", "unfold_"), modules, strict=False)), x, self.progress)
        self.module = modules[0]
        with torch.no_grad():
            q, k, v = self.module.project(x[:1])
            self.maps = {"input": x[:1], "attention": self.module.attention_path(q, k, v),
                         "convolution": self.module.convolution_path(q, k, v)}  # fmt: skip
        return found | ({"refused": refused} if refused else {})

    @torch.no_grad()
    def _draw(self) -> None:
        """Mix the two paths and draw channel 0 of all maps, if there are any."""
        if self.module is None or not self.maps:
            return
        from acmix_edu.figures import plt, show_maps  # the other explorers need no matplotlib

        self.module.rate1.fill_(self.controls["alpha"].value)
        self.module.rate2.fill_(self.controls["beta"].value)
        self.maps["output"] = self.module.mix(self.maps["attention"], self.maps["convolution"])
        titles = ["input", "attention path", "convolution path", "α·attention + β·convolution"]
        figure = show_maps([f[0, 0] for f in self.maps.values()], titles, size=2.6)
        figure.savefig(file := io.BytesIO(), format="png")
        plt.close(figure)
        data = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        text = f"Channel 0: {', '.join(titles)}"
        self.picture.value = f'<img alt="{text}" style="max-width: 100%" src="{data}">'

    def _follow(self, change) -> None:
        if change.owner in (self.controls["alpha"], self.controls["beta"]):
            self._draw()
        elif self.results:
            self._say("What is shown was measured before this change. Press Measure.")

    def _say(self, sentence: str) -> None:
        self.said.value = f'<div role="status">{html.escape(sentence)}</div>'


def _controls(channels: int, device: torch.device) -> dict[str, widgets.Widget]:
    """Return the controls by name; they offer what the device and the channels allow."""

    def control(kind, value, label, **offered):
        if kind is not menu:
            offered["continuous_update"] = False
        layout = widgets.Layout(width="auto")
        return kind(value=value, description=label, style=WHOLE, layout=layout, **offered)

    heads = [n for n in (1, 2, 4, 8) if channels % n == 0]
    bfloat16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    dtypes = ["float32", "float16", "bfloat16"][: 2 + bfloat16]
    f = torch.zeros(1, 1, 1, device=device)
    triton = not triton_attention.why_not(f, f, f)
    backends = ["fastest", "unfold", "halo", "triton"][: 3 + triton]
    steps, whole, part = widgets.SelectionSlider, widgets.IntSlider, widgets.FloatSlider
    menu, rate = widgets.Dropdown, {"min": -1, "max": 1, "step": 0.05}
    return {
        "kernel_att": control(steps, 7, "kernel_att", options=range(3, 14, 2)),
        "kernel_conv": control(steps, 3, "kernel_conv", options=range(1, 8, 2)),
        "dilation": control(whole, 1, "dilation", min=1, max=4),
        "heads": control(steps, min(4, heads[-1]), "heads", options=heads),
        "alpha": control(part, 0.5, "α (attention)", **rate),
        "beta": control(part, 0.5, "β (convolution)", **rate),
        "side": control(whole, 56, "side of the map", min=7, max=160),
        "batch": control(whole, 2, "batch", min=1, max=32),
        "dtype": control(menu, "float32", "dtype", options=dtypes),
        "backend": control(menu, "fastest", "backend", options=backends),
    }


def _features(channels: int, setting: dict) -> torch.Tensor:
    """Repeat the colours of a photograph until they fill all channels and the batch."""
    f = colour_features(photograph("grace_hopper", setting["side"]))
    f = f.repeat(setting["batch"], math.ceil(channels / 4), 1, 1)[:, :channels]
    return f.to(getattr(torch, setting["dtype"]))


def _acmix(channels: int, setting: dict, backend: str) -> ACmix:
    options = {name: setting[name] for name in ("kernel_att", "kernel_conv", "dilation")}
    options["backend"] = None if backend == "fastest" else backend
    return legible_acmix(channels, channels, (SHARPNESS,) * setting["heads"], **options)


def _too_large(x: torch.Tensor, setting: dict) -> str | None:
    """Return why the unfold form does not fit, or None. It holds four sets of its copies."""
    copies, maps = setting["kernel_att"] ** 2, setting["kernel_conv"] ** 2
    needed = 4 * (copies + maps) * x.numel() * x.itemsize
    if x.is_cuda:
        free = torch.cuda.mem_get_info()[0]
        free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    else:
        free = psutil.virtual_memory().available
    says = f"with {copies} copies of k and of v it would take about {needed / 1e9:.1f} GB"
    says = f"The unfold form does not fit: {says}, and {free / 1e9:.1f} GB are free."
    return says if needed > free else None


def _measure(modules: dict[str, ACmix], x: torch.Tensor, progress) -> dict[str, float]:
    """Return peak bytes, median milliseconds and ratios; the forms take turns."""
    runs = {f"{form}{name}": partial(_once, module, x, name == "both")
            for form, module in modules.items() for name in PASSES}  # fmt: skip
    progress.value, progress.max = 0, len(runs) * (ROUNDS + 1)
    found: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in runs}
    began = time.perf_counter()
    for turn in range(ROUNDS + 1):
        for name, run in runs.items():
            if turn:
                times[name].append(run())
            else:  # this also warms up
                found[f"{name}_bytes"] = _peak_bytes(run, x.device)
            progress.value += 1
        if turn and time.perf_counter() - began > SECONDS:
            break
    found |= {f"{name}_ms": statistics.median(t) for name, t in times.items()}
    for name in PASSES if len(modules) > 1 else ():
        found[f"{name}_ratio"] = found[f"unfold_{name}_ms"] / found[f"{name}_ms"]
    return found


def _once(module: ACmix, x: torch.Tensor, both: bool) -> float:
    """Run forward, or forward and backward; return the milliseconds that it took."""
    began = time.perf_counter()
    with torch.set_grad_enabled(both):
        x = x.detach().requires_grad_(both)
        out = module(x)
        if both:
            torch.autograd.grad(out.sum(), [x, *module.parameters()])
    if x.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) * 1e3


def _peak_bytes(run, device: torch.device) -> int:
    """Return the most that was allocated at one time during a run, after a first run."""
    run()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes into the notebook
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


def _table(found: dict) -> str:
    """Set the figures as a table, with the unfold form beside the chosen one if both were run."""
    forms = {"": found["backend"]} | ({"unfold_": "unfold"} if "both_ratio" in found else {})
    lines = [["", *forms.values(), "unfold takes" if len(forms) > 1 else ""]]
    for name, what in PASSES.items():
        for key, unit, scale in (("ms", "ms", 1), ("bytes", "MB", 1e-6)):
            values = [found[f"{form}{name}_{key}"] * scale for form in forms]
            times = f"{values[1] / values[0]:.1f} times as much" if len(forms) > 1 else ""
            lines.append([f"{what}, {unit}", *(f"{value:.2f}" for value in values), times])
    rows = ("".join(f'<td style="padding-right: 1.5em">{c}</td>' for c in line) for line in lines)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
