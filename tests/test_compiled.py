"""The Triton kernels as a GPU would get them: compiled for it, and run here by ``ptx.py``.

Triton's interpreter knows no bfloat16, no TF32, no matrix units and no forbidden addresses.
"""

import sys
from types import SimpleNamespace

import pytest
import torch
from triton_cases import (
    BANDED,
    CUTS,
    check,
    check_convolution,
    check_convolution_of_cut_out,
    check_cut_out,
)

from acmix_edu.fast import triton_attention, triton_banded, triton_convolution

if sys.platform != "linux":
    pytest.skip("Triton is published for Linux only", allow_module_level=True)

import triton
import triton.language as tl
from ptx import Fault, Launch
from triton.backends.compiler import GPUTarget

KERNELS = [
    function
    for module in (triton_attention, triton_banded, triton_convolution)
    for name, function in vars(module).items()
    if name.endswith("_kernel")
]
GPUS = {  # compute capability: dtypes
    (7, 5): [torch.float32, torch.float16],
    (8, 0): [torch.float32, torch.bfloat16],
    (9, 0): [torch.float16, torch.bfloat16],
    (12, 0): [torch.bfloat16],
}
ON = [(gpu, dtype) for gpu, dtypes in GPUS.items() for dtype in dtypes]
MAPS = [  # size, kernel_size, stride, dilation, layout
    ((2, 2, 16, 9, 20), 7, 1, 1, "BCHW"),
    ((1, 2, 17, 13, 9), 5, 2, 1, "channels_last"),
    ((1, 1, 32, 5, 40), 7, 1, 3, "BCHW"),
    ((1, 1, 64, 3, 2), 13, 1, 1, "columns first"),
]


def on_cpu(kernel, monkeypatch):
    """Compile the kernel's launches, and run them here."""
    compile_only = kernel.run

    def run(*args, grid, warmup=False, **options):
        ours = kernel.fn.__module__ != __name__
        assert options.get("enable_fp_fusion", not ours)  # Triton says that 3.10 leaves it out
        compiled = compile_only(*args, grid=grid, warmup=True, **options)
        named = dict(zip(kernel.arg_names, args, strict=False)) | options
        values = []
        for name, kind in compiled.src.signature.items():
            values += runtime_values(named[name], kind)
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        values = [v.data_ptr() if isinstance(v, torch.Tensor) else v for v in values]
        warps, shared = compiled.metadata.num_warps, compiled.metadata.shared
        Launch(compiled.asm["ptx"], grid, warps, shared, values, tensors)
        return compiled

    monkeypatch.setattr(kernel, "run", run)


def runtime_values(value, kind) -> list:
    """Those that are not constants of the compiled kernel, tuples taken apart."""
    if isinstance(kind, tuple):
        return [v for pair in zip(value, kind, strict=True) for v in runtime_values(*pair)]
    return [] if kind == "constexpr" else [value]


@pytest.fixture
def gpu(request, monkeypatch):
    """Make Triton and the package take this machine for one with such a GPU."""
    number = 10 * request.param[0] + request.param[1]
    driver = SimpleNamespace(
        get_current_device=lambda: number,
        get_current_stream=lambda _: 0,
        get_current_target=lambda: GPUTarget("cuda", number, 32),
    )
    monkeypatch.setattr(triton.runtime.driver, "_active", driver)
    for module in (triton_attention, triton_banded):
        monkeypatch.setattr(module, "capability", lambda _: request.param)
    for module in (triton_attention, triton_convolution):
        monkeypatch.setattr(module, "no_triton", lambda _: None)
    for kernel in KERNELS:
        on_cpu(kernel, monkeypatch)
    return request.param


@pytest.mark.parametrize(("size", "k", "stride", "dilation", "layout"), MAPS)
@pytest.mark.parametrize(("gpu", "dtype"), ON, indirect=["gpu"], ids=str)
def test_attention(gpu, dtype, size, k, stride, dilation, layout):
    check(size, k, stride, dilation, True, layout, seed=0, dtype=dtype)


@pytest.mark.parametrize("gpu", [(8, 0)], indirect=True, ids=str)
@pytest.mark.parametrize("cut", CUTS)
def test_a_map_cut_out_of_a_wider_one(gpu, cut):
    check_cut_out(*cut)
    if cut[2] == 1:
        check_convolution_of_cut_out(*cut[:2])


@pytest.mark.parametrize("gpu", [(7, 5), (9, 0)], indirect=True, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_logits_of_ten_thousand(gpu, dtype):
    check((1, 1, 16, 5, 9), 7, 1, 1, False, "BCHW", seed=0, dtype=dtype, scale=60)


@pytest.mark.parametrize(("size", "k", "stride", "dilation", "layout"), MAPS[:2])
@pytest.mark.parametrize(("gpu", "dtype"), ON, indirect=["gpu"], ids=str)
def test_convolution(gpu, dtype, size, k, stride, dilation, layout):
    check_convolution(size, 3, stride, layout, seed=0, dtype=dtype)


@pytest.mark.parametrize(("size", "k", "layout"), BANDED)
@pytest.mark.parametrize("gpu", [(8, 0), (9, 0), (12, 0)], indirect=True, ids=str)
def test_convolution_by_banded_matrices(gpu, size, k, layout, monkeypatch):
    monkeypatch.setattr(triton_banded, "PROGRAMS", 12)  # so that each has several tiles
    check_convolution(size, k, 1, layout, seed=0, dtype=torch.bfloat16)


@pytest.mark.parametrize("gpu", [(8, 0)], indirect=True, ids=str)
def test_tf32(gpu):
    q, k, v = torch.randn(3, 1, 2, 32, 9, 12)
    weight = torch.randn(64, 6, 3, 3, requires_grad=True)

    def results():
        out = triton_convolution.run(q, k, v.requires_grad_(), weight, 1)
        grads = torch.autograd.grad(out.square().sum(), (v, weight))
        return triton_attention.attend(q, k, v, 7, None, 1, 1).detach(), out.detach(), *grads

    exact = results()
    torch.set_float32_matmul_precision("high")
    try:
        rounded = results()
    finally:
        torch.set_float32_matmul_precision("highest")
    for a, b in zip(exact, rounded, strict=True):
        assert 1e-6 < (a - b).norm() / a.norm() < 2e-3  # 10 bits of mantissa


# ---- Does ptx.py see what it should? ---------------------------------------------------------


@triton.jit
def copy(source, target, size, SHIFT: tl.constexpr, WIDE: tl.constexpr):
    at = tl.program_id(0) * 128 + tl.arange(0, 128) + SHIFT
    if WIDE:  # a promise that is not kept if there is a shift
        at = tl.max_contiguous(tl.multiple_of(at, 4), 4)
        tl.store(target + at, tl.load(source + at))
    else:
        tl.store(target + at, tl.load(source + at, mask=at < size), mask=at < size)


@triton.jit
def number(target, SAME: tl.constexpr):
    tl.store(target, 1.0 if SAME else tl.program_id(0).to(tl.float32))


@pytest.mark.parametrize("gpu", [(8, 0)], indirect=True, ids=str)
def test_what_a_gpu_would_refuse_is_a_fault(gpu, monkeypatch):
    for kernel in (copy, number):
        on_cpu(kernel, monkeypatch)
    source, target = torch.arange(200.0), torch.zeros(200)
    copy[2,](source, target, 200, SHIFT=0, WIDE=False)
    assert torch.equal(source, target)
    for size, shift, wide, message in (
        (201, 0, False, "outside of all tensors"),
        (200, -1, False, "outside of all tensors"),
        (200, 1, True, "misaligned"),
    ):
        with pytest.raises(Fault, match=message):
            copy[2 - wide,](source, target, size, SHIFT=shift, WIDE=wide, num_warps=1)
    number[2,](target, SAME=True)
    with pytest.raises(Fault, match="two different numbers"):
        number[2,](target, SAME=False)
