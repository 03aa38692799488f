"""The speed panel, on a processor: what it runs, what it finds, draws and says."""

import base64
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import psutil
import pytest
import torch
from matplotlib.figure import Figure

from acmix_edu import ACmix
from acmix_edu.examples import colour_acmix, colour_features, photograph
from acmix_edu.explorers import SpeedPanel, panel
from acmix_edu.fast import triton_attention, triton_base


@pytest.fixture
def pictures():
    """Asked for by the tests that need real pictures, which take a while."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch, request):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(panel, "ROUNDS", 1)
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)


def small(channels: int = 8, **values) -> SpeedPanel:
    made = SpeedPanel(channels)
    for name, value in {"side": 10, "batch": 1, **values}.items():
        made.controls[name].value = value
    return made


def free_memory(monkeypatch, amount: int) -> None:
    memory = SimpleNamespace(available=amount)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def at_rest(made: SpeedPanel) -> bool:
    return not made.button.disabled and made.progress.layout.visibility == "hidden"


# ---- What is run -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "ran"),
    [
        ("kernel_att", 5, lambda m, x: m.kernel_att),
        ("kernel_conv", 7, lambda m, x: m.kernel_conv),
        ("dilation", 3, lambda m, x: m.dilation),
        ("heads", 2, lambda m, x: m.head),
        ("alpha", -0.25, lambda m, x: m.rate1.item()),
        ("beta", 1.0, lambda m, x: m.rate2.item()),
        ("side", 12, lambda m, x: x.shape[2]),
        ("batch", 3, lambda m, x: x.shape[0]),
        ("dtype", "bfloat16", lambda m, x: str(m.conv1.weight.dtype).removeprefix("torch.")),
        ("backend", "halo", lambda m, x: m.backend),
    ],
)
def test_a_control_changes_what_is_run(monkeypatch, name, value, ran):
    seen = []
    monkeypatch.setattr(panel, "_once", lambda m, x, both: seen.append((m, x)) or 1.0)
    monkeypatch.setattr(panel, "_peak_bytes", lambda run, device: run())
    made = small()
    made.measure()
    assert ran(made.module, seen[0][1]) != value
    seen.clear()
    made.controls[name].value = value
    assert made.measure()[name] == value
    assert ran(made.module, seen[0][1]) == value
    assert made.module is seen[0][0]
    assert made.maps["input"].shape == (1, *seen[0][1].shape[1:])
    unfold = seen[1 + 1][0]
    assert unfold.backend == "unfold" and str(unfold).startswith(str(made.module)[:40])


def test_starts_with_the_fastest():
    made = small()
    made.measure()
    assert made.module.backend is None and made.controls["backend"].options[0] == "fastest"


def test_the_button_measures():
    made = small()
    made.button.click()
    assert made.results["forward_ms"] > 0


def test_channels():
    made = small(6)
    assert made.controls["heads"].options == (1, 2)
    made.measure()
    assert (made.module.in_planes, made.module.out_planes) == (6, 6)
    assert SpeedPanel().channels == 64
    with pytest.raises(ValueError, match="channels must be at least 1"):
        SpeedPanel(0)


def test_a_processor_can_do_what_is_offered():
    offered = SpeedPanel().controls["dtype"].options
    assert offered == ("float32", "float16", "bfloat16")
    for name in offered:
        found = small(dtype=name, side=24, kernel_att=3).measure()
        assert found["both_ms"] > 0 and found["unfold_both_ms"] > 0


@pytest.mark.skipif(triton_base.INTERPRETED, reason="Triton's interpreter runs anywhere")
def test_triton_is_offered_where_it_runs(monkeypatch):
    assert SpeedPanel().controls["backend"].options == ("fastest", "unfold", "halo")
    monkeypatch.setattr(triton_attention, "why_not", lambda *_: None)
    assert SpeedPanel().controls["backend"].options[-1] == "triton"


# ---- What is found ---------------------------------------------------------------------------


def test_figures(capfd):
    found = small().measure()
    both = ("forward", "both", "unfold_forward", "unfold_both")
    figures = [found[f"{name}_{unit}"] for name in both for unit in ("ms", "bytes")]
    assert all(figure > 0 for figure in figures) and "refused" not in found
    assert found["both_bytes"] > found["forward_bytes"]
    assert found["both_ratio"] == found["unfold_both_ms"] / found["both_ms"]
    assert capfd.readouterr() == ("", "")


def test_peak_bytes_counts_what_is_held_at_one_time():
    def run():
        a = torch.ones(1000)
        b = a + 1
        del a
        return b + torch.ones(500).sum()

    assert panel._peak_bytes(run, torch.device("cpu")) in range(8000, 8100)


def test_forward_records_nothing_and_both_takes_all_gradients(monkeypatch):
    module, x = ACmix(8, 8, head=2), torch.randn(1, 8, 9, 9)
    recorded, taken = [], []
    module.register_forward_hook(lambda m, x, out: recorded.append(out.requires_grad))
    monkeypatch.setattr(torch.autograd, "grad", lambda out, inputs: taken.extend(inputs))
    assert panel._once(module, x, False) > 0 and not taken
    assert panel._once(module, x, True) > 0
    assert recorded == [False, True]
    assert taken[0].shape == x.shape and taken[0].requires_grad and not x.requires_grad
    assert [*map(id, taken[1:])] == [*map(id, module.parameters())]


def test_median_of_the_turns_and_no_more_than_the_time(monkeypatch):
    times = iter([100.0, 100.0, 3.0, 300.0, 1.0, 100.0, 2.0, 200.0])  # two to warm up
    monkeypatch.setattr(panel, "_once", lambda *_: next(times))
    monkeypatch.setattr(panel, "_peak_bytes", lambda run, _: run())
    monkeypatch.setattr(panel, "ROUNDS", 3)
    bar = panel.widgets.IntProgress()
    found = panel._measure({"": ACmix(4, 4)}, torch.zeros(1, 4, 5, 5), bar)
    assert (found["forward_ms"], found["both_ms"]) == (2.0, 200.0)
    assert bar.value == bar.max == 8
    times = iter([1.0] * 4)
    monkeypatch.setattr(panel, "SECONDS", 0)
    assert panel._measure({"": ACmix(4, 4)}, torch.zeros(1, 4, 5, 5), bar)["both_ms"] == 1.0


def test_unfold_is_not_compared_with_itself():
    found = small(backend="unfold").measure()
    assert found["both_ms"] > 0 and not any(name.startswith("unfold_") for name in found)


@pytest.mark.parametrize("kernel_att", [3, 7, 13])
def test_unfold_is_refused_before_the_memory_is_used_up(monkeypatch, kernel_att):
    made = small(64, kernel_att=kernel_att, side=14)
    needed = made.measure()["unfold_both_bytes"]
    free_memory(monkeypatch, needed)
    found = made.measure()
    copies = f"with {kernel_att**2} copies of k and of v it would take about 0.. GB, and 0.. GB"
    assert re.search(copies, found["refused"]) and found["refused"] in made.said.value
    assert found["both_ms"] > 0 and "both_ratio" not in found and "unfold_both_ms" not in found
    assert "unfold" not in made.table.value
    free_memory(monkeypatch, 3 * needed)
    assert "refused" not in made.measure()


# ---- What is drawn ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [{}, {"kernel_att": 13, "heads": 1, "alpha": 1}, {"kernel_conv": 7, "beta": -0.5, "side": 24},
     {"dilation": 4, "heads": 8, "side": 30}, {"kernel_conv": 1, "backend": "unfold"}],
)  # fmt: skip
def test_maps_are_the_packages(values):
    made = small(16, **values)
    setting = made.measure()
    x = colour_features(photograph("grace_hopper", setting["side"])).repeat(1, 4, 1, 1)
    sizes = {name: setting[name] for name in ("kernel_att", "kernel_conv", "dilation")}
    oracle = ACmix(16, 16, head=setting["heads"], backend="unfold", **sizes)
    rates = {"rate1": torch.tensor([setting["alpha"]]), "rate2": torch.tensor([setting["beta"]])}
    oracle.load_state_dict(made.module.state_dict() | rates)
    steps = oracle.explain(x)
    for name, step in (("input", "x"), ("attention", "out_att"), ("convolution", "out_conv"),
                       ("output", "out")):  # fmt: skip
        torch.testing.assert_close(made.maps[name], steps[step].detach(), rtol=1e-4, atol=1e-5)


def test_weights_are_those_of_the_legible_module():
    made = small(16, side=20)
    made.measure()
    steps = colour_acmix().explain(made.maps["input"][:, :4])
    sharpness_10 = slice(4, 8)  # its second head
    torch.testing.assert_close(made.maps["attention"][:, :4], steps["out_att"][:, sharpness_10])
    torch.testing.assert_close(made.maps["convolution"], steps["out_conv"])


def test_alpha_and_beta_mix_again_and_measure_nothing(monkeypatch, pictures):
    made = small()
    made.controls["alpha"].value = 0.25  # nothing to mix yet
    assert not made.picture.value
    results = made.measure()
    drawn = made.picture.value
    monkeypatch.setattr(SpeedPanel, "_run", None)
    made.controls["alpha"].value, made.controls["beta"].value = 1.0, -1.0
    expected = made.maps["attention"] - made.maps["convolution"]
    torch.testing.assert_close(made.maps["output"], expected)
    assert made.picture.value != drawn and made.results is results
    assert "Measured on" in made.said.value


def test_picture_has_a_text_and_is_an_image(pictures):
    made = small()
    made.measure()
    text, data = re.fullmatch(
        r'<img alt="(.*)" style=".*" src="data:image/png;base64,(.*)">', made.picture.value
    ).groups()
    assert "convolution path" in text and base64.b64decode(data).startswith(b"\x89PNG")
    assert not plt.get_fignums()


# ---- What is said ----------------------------------------------------------------------------


def test_everything_is_labelled():
    for control in SpeedPanel().controls.values():
        assert control.description and control.style.description_width == "initial"
        assert not getattr(control, "continuous_update", False)


def test_says_that_figures_are_of_before():
    made = small(kernel_att=5)
    assert "Press Measure to run ACmix on the processor" in made.said.value
    made.measure()
    made.controls["kernel_att"].value = 3
    assert "before this change" in made.said.value and made.module.kernel_att == 5


def test_an_error_of_a_backend_is_a_sentence(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(triton_attention, "why_not", lambda *_: None)
        made = small(backend="triton")
    monkeypatch.setattr(triton_attention, "why_not", lambda *_: "No <GPU> is here.")
    found = made.measure()
    assert found["error"].startswith("backend='triton' cannot be used: No <GPU> is here.")
    assert "No &lt;GPU&gt; is here." in made.said.value and "Traceback" not in made.said.value
    assert at_rest(made) and not made.maps and not made.table.value and not made.picture.value
    made.controls["alpha"].value = 1  # nothing to mix
    made.controls["backend"].value = "fastest"
    assert "error" not in made.measure()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried …"), "There is not enough memory: make"),
        (RuntimeError("[enforce fail] can't allocate memory: …"), "There is not enough memory:"),
        (ValueError("k is wrong.\nmore"), "k is wrong."),
        (AssertionError(), "AssertionError"),
    ],
)
def test_any_error_is_a_sentence(monkeypatch, error, says):
    made = small()
    made.measure()
    monkeypatch.setattr(ACmix, "forward", lambda *_: (_ for _ in ()).throw(error))
    found = made.measure()
    assert found["error"].startswith(says) and "\n" not in found["error"]
    assert found["error"].replace("'", "&#x27;") in made.said.value
    assert "forward_ms" not in found and at_rest(made)


def test_the_unfold_form_that_does_not_fit_is_not_run(monkeypatch):
    made = small(backend="unfold")
    free_memory(monkeypatch, 1000)
    monkeypatch.setattr(ACmix, "forward", None)
    assert made.measure()["error"].startswith("The unfold form does not fit: with 49 copies")


def test_nothing_is_left_running(monkeypatch):
    made = small()
    seen, real = [], panel._once

    def spy(*arguments):
        seen.append((made.button.disabled, made.progress.layout.visibility, made.said.value))
        return real(*arguments)

    monkeypatch.setattr(panel, "_once", spy)
    made.measure()
    running = (True, "visible", '<div role="status">Running on the processor …</div>')
    assert set(seen) == {running}
    assert at_rest(made) and made.progress.value == made.progress.max
