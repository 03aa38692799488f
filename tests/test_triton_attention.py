"""The Triton kernel without a GPU: run by Triton's interpreter, and compiled ahead of time.

The interpreter must be chosen before Triton is imported, so ``triton_cases.py`` runs in processes
of its own.
"""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from acmix_edu import fast
from acmix_edu.fast import (
    _attention_trial,
    choice,
    grouped_convolution,
    multiplicity,
    triton_attention,
    triton_base,
    triton_convolution,
)
from acmix_edu.fast.triton_attention import log_table, margin, why_not

ROOT = Path(__file__).resolve().parents[1]
linux = pytest.mark.skipif(sys.platform != "linux", reason="Triton is published for Linux only")


@linux
@pytest.mark.parametrize(
    ("cases", "least"),
    [
        ("configuration", 60),
        ("convolution or trial", 55),
        ("not (configuration or convolution or trial)", 30),
    ],
    ids=["configurations", "convolution", "the rest"],
)
def test_in_the_interpreter(cases, least):
    """In three processes, for they take minutes."""
    command = [sys.executable, "-m", "pytest", "tests/triton_cases.py", "-q", "-k", cases]
    command += ["-p", "no:xdist", "-p", "no:cacheprovider"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= least  # none was skipped


@linux
@pytest.mark.parametrize("capability", [(7, 5), (8, 9), (9, 0), (12, 0)], ids=str)
@pytest.mark.parametrize(
    ("dtype", "head_dim"), [(torch.float16, 16), (torch.bfloat16, 32), (torch.float32, 64)]
)
def test_compiled_ahead_of_time(capability, dtype, head_dim, monkeypatch):
    """The kernels fit on a T4, an L4, an H100 and an RTX 50; next to no register is spilled."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from triton_aot import SHARED, compiled, dtypes

    if dtype not in dtypes(capability):
        dtype = torch.float16
    found = compiled(capability, dtype, head_dim)
    assert len(found) == 6  # three of attention, three of the convolution path
    for name, resources in found.items():
        assert resources["shared"] <= SHARED[capability], name
        assert resources["stack"] <= 32, name


@linux
@pytest.mark.parametrize("capability", [(8, 9), (12, 0)], ids=str)
@pytest.mark.parametrize("head_dim", [72, 256])
def test_large_heads_fit_where_shared_memory_is_small(capability, head_dim, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from triton_aot import SHARED, compiled

    for name, resources in compiled(
        capability, torch.float16, head_dim, channels_last=True
    ).items():
        assert resources["shared"] <= SHARED[capability], name


@linux
def test_float32_is_rounded_only_where_pytorch_may_round_it(monkeypatch):
    """By the switch that matrix products have; compiled, the products are then other ones."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from triton_aot import compiled

    assert not triton_base.tf32_is_allowed()
    torch.set_float32_matmul_precision("high")
    try:
        assert triton_base.tf32_is_allowed()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert not triton_base.tf32_is_allowed()
    exact, rounded = (compiled((8, 9), torch.float32, 16, tf32=tf32) for tf32 in (False, True))
    assert exact["forward_kernel"] != rounded["forward_kernel"]


@pytest.mark.parametrize("size", [1, 2, 5, 12])
@pytest.mark.parametrize(("k", "stride", "dilation"), [(3, 1, 1), (7, 2, 1), (3, 1, 3), (5, 3, 4)])
def test_the_table_holds_all_keys_of_a_window_and_nothing_around(size, k, stride, dilation):
    middle = margin(dilation * (k // 2), stride)
    table = log_table(size, 5, k, stride, dilation, torch.device("cpu")) / 5**0.5
    expected = multiplicity(size, k, stride, dilation)
    assert table.shape == (expected.shape[0] + 16, 2 * middle + 1)
    assert (table[expected.shape[0] :] == -torch.inf).all()
    for row, i in enumerate(range(0, size, stride)):
        for step, count in enumerate(table[row].exp().round().int().tolist()):
            y = i + step - middle
            assert count == (expected[row, y] if 0 <= y < size else 0)


def fake_maps(dtype=torch.float32, leading=(1, 2), d=16, device="cuda"):
    with FakeTensorMode():
        return [torch.empty(*leading, d, 7, 7, dtype=dtype, device=device) for _ in range(3)]


def pretend(monkeypatch, capability, driver=lambda: None):
    """Pretend that this machine has a GPU."""
    monkeypatch.setattr(triton_base, "no_driver", driver)
    for module in (triton_base, triton_attention):
        monkeypatch.setattr(module, "capability", lambda _: capability)


@linux
@pytest.mark.parametrize(
    ("capability", "maps", "sentence"),
    [
        ((9, 0), {}, None),
        ((8, 0), {"dtype": torch.bfloat16, "d": 256}, None),
        ((7, 5), {"dtype": torch.float16}, None),
        ((9, 0), {"device": "cpu"}, "needs a CUDA device, but the maps are on cpu"),
        ((9, 0), {"dtype": torch.float64}, "not in torch.float64"),
        ((7, 0), {}, "needs compute capability 7.5"),
        ((7, 5), {"dtype": torch.bfloat16}, "bfloat16 needs compute capability 8.0"),
        ((7, 5), {"d": 256}, "up to 128 features a head"),
        ((9, 0), {"d": 300}, "up to 256 features a head"),
        ((9, 0), {"leading": (2**15, 2, 1)}, "up to 65535 images and heads"),
        ((9, 0), {"leading": (2**16,)}, "up to 65535 images and heads"),
        ((9, 0), {"leading": (2**16 - 1, 1)}, None),
        ((9, 0), {"leading": ()}, None),
    ],
)
def test_why_not(capability, maps, sentence, monkeypatch):
    pretend(monkeypatch, capability)
    reason = why_not(*fake_maps(**maps))
    assert reason is None if sentence is None else sentence in reason


@linux
def test_without_a_compiler_the_plain_form_runs(monkeypatch, tmp_path):
    """As in a container with a GPU but without gcc: PyTorch works there, Triton does not."""
    from triton.backends.nvidia import driver
    from triton.runtime.driver import DriverConfig

    monkeypatch.setattr(triton_base.triton.runtime, "driver", DriverConfig())
    monkeypatch.setattr(driver.CudaDriver, "is_active", lambda: True)
    monkeypatch.setattr(driver, "library_dirs", list)  # libcuda.so is there
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(fast.halo, "attend", lambda *_: "the plain form")
    pretend(monkeypatch, (9, 0), driver=triton_base.no_driver)
    triton_base._driver_failure.cache_clear()
    maps = fake_maps()
    with maps[0].fake_mode, pytest.warns(UserWarning, match="C compiler.*slower without") as warned:
        reason = why_not(*maps)
        assert reason.startswith("Triton cannot start kernels here: Failed to find C compiler.")
        assert fast.local_attention(*maps, 7) == "the plain form"
        with pytest.raises(RuntimeError, match="backend='triton' cannot be used: Triton cannot"):
            fast.local_attention(*maps, 7, backend="triton")
    assert len(warned) == 1
    triton_base._driver_failure.cache_clear()


def wrong(q, k, v, *rest):
    return fast.halo.attend(q, k, v, *rest) * 1.001


def without_a_gradient(q, k, v, *rest):
    return fast.halo.attend(q, k.detach(), v, *rest) + 0 * k[..., :1, :1]


def not_a_number(*maps):
    return fast.halo.attend(*maps) * math.nan


def refused(*maps):
    raise RuntimeError("out of\nresource: shared memory.")


@pytest.mark.parametrize(
    ("kernel", "problem"),
    [
        (fast.halo.attend, None),
        (wrong, r"wrong by 1\.0e-03 of the largest number"),
        (without_a_gradient, r"wrong by 1\.0e\+00 of"),
        (not_a_number, "wrong by nan of"),
        (refused, r"\(4, 3, 1, 1\)\): out of resource: shared memory\. PyTorch's own"),
    ],
)
def test_a_kernel_that_fails_its_trial_is_not_used(kernel, problem, monkeypatch):
    """On a GPU that computes something else than the compiler meant, or does not start."""

    def attention_trial(*sizes):
        return kernel, *fast._attention_trial(*sizes)[1:]

    trial = attention_trial, (4, 3, 1, 1), False, torch.float32, torch.device("cpu")
    if problem is None:
        assert choice.passes(*trial)
    else:
        with pytest.warns(UserWarning, match="failed its attention trial on cpu.*" + problem):
            assert not choice.passes(*trial)
        assert not choice.passes(*trial)  # it is not tried again, and nothing more is said


def test_a_trial_that_runs_out_of_memory_says_nothing_of_the_kernel():
    tries = []

    def attention_trial(*sizes):
        tries.append(sizes)
        raise torch.OutOfMemoryError("CUDA out of memory")

    trial = attention_trial, (4, 3, 1, 1), False, torch.float32, torch.device("cpu")
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            choice.passes(*trial)
    assert len(tries) == 2


def test_no_trial_is_held_in_a_backward_pass(monkeypatch):
    """The thread of a CUDA device would wait for the trial, and the trial for this thread."""
    monkeypatch.setattr(choice, "_passes", lambda *_: False)
    found, x = [], torch.ones(1, requires_grad=True)
    x.register_hook(lambda _: found.append(choice.passes(None, (), False, None, None)))
    (2 * x).backward()
    assert found == [True] and not choice.passes(None, (), False, None, None)


@linux
@pytest.mark.parametrize("passed", [True, False])
def test_a_kernel_is_chosen_after_its_trial(passed, monkeypatch):
    held = []
    monkeypatch.setattr(choice, "_passes", lambda *trial: held.append(trial) or passed)
    monkeypatch.setattr(triton_attention, "attend", lambda *_: "the kernel")
    monkeypatch.setattr(fast.halo, "attend", lambda *_: "the plain form")
    pretend(monkeypatch, (9, 0))
    maps = fake_maps(torch.float16, d=12)
    with maps[0].fake_mode:
        chosen = fast.local_attention(*maps, 7, stride=2)
        sizes = 12, 7, 2, 1
        assert held == [(_attention_trial, sizes, False, torch.float16, maps[0].device, False)]
        assert chosen == ("the kernel" if passed else "the plain form")
        assert fast.local_attention(*maps, 7, backend="triton") == "the kernel"
        assert fast.local_attention(*maps, 7, backend="halo") == "the plain form"
    assert len(held) == 1  # whoever insists on a form gets it untried


@linux
def test_why_not_is_raised():
    q, weight = torch.zeros(1, 1, 4, 3, 3), torch.zeros(4, 3, 3, 3)
    for call in (
        lambda: fast.local_attention(q, q, q, 3, backend="triton"),
        lambda: grouped_convolution(q, q, q, weight, backend="triton"),
    ):
        with pytest.raises(RuntimeError, match="needs a CUDA device"):
            call()


@linux
def test_why_not_of_the_convolution(monkeypatch):
    pretend(monkeypatch, (9, 0))
    with FakeTensorMode():
        few, many = (torch.empty(1, n, 4, 7, 7, device="cuda") for n in (16, 17))
    assert triton_convolution.why_not(few, few, few) is None
    assert "up to 16 heads, but 17 came" in triton_convolution.why_not(many, many, many)


@linux
@pytest.mark.parametrize(
    ("step", "side", "attention", "convolution"),
    [(2**29, 4, True, True), (2**30, 4, False, False), (None, 2**14, True, False)],
    ids=["near", "far heads", "gradients"],
)
def test_numbers_of_an_image_are_told_apart_by_32_bits(
    step, side, attention, convolution, monkeypatch
):
    """Two heads of two features; far apart in memory, or as large as three gradients allow."""
    pretend(monkeypatch, (9, 0))
    with FakeTensorMode():
        f = torch.empty(2**32, device="cuda")
        sizes, steps = (1, 3, 1, side, side), (1, step or side**2, 1, side, 1)
        f = f.as_strided(sizes, steps)
        found = [m.why_not(f, f, f) for m in (triton_attention, triton_convolution)]
    assert [reason is None for reason in found] == [attention, convolution]


@linux
def test_fake_tensors_run_no_kernel(monkeypatch):
    monkeypatch.setattr(triton_base, "INTERPRETED", True)
    q, k, v = fake_maps(device="cpu")
    with q.fake_mode:
        assert triton_attention.attend(q, k, v, 7, None, 2, 1).shape == (1, 2, 16, 4, 4)


def test_the_package_works_without_triton():
    code = """
import sys
sys.modules["triton"] = None  # importing it now fails
import torch
from acmix_edu import ACmix
from acmix_edu.fast import multiplicity, triton_attention
f = torch.zeros(1, 1, 4, 3, 3)
print(triton_attention.why_not(f, f, f))
print(ACmix(4, 4)(torch.zeros(1, 4, 3, 3)).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "pip install triton" in done.stdout
