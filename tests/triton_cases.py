"""The Triton kernel against the plain form, on whatever device runs it.

``test_triton_attention.py`` runs this file in Triton's interpreter, on the CPU, in processes of
their own (the interpreter must be chosen before Triton is imported). ``test_gpu.py`` runs the same
checks on a GPU.
"""

import contextlib
import functools
import random

import pytest
import torch
from conftest import GOLDEN, check_published
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from acmix_edu import ACmix, split_heads
from acmix_edu import local_attention as plain_attention
from acmix_edu.fast import (
    _attention_trial,
    choice,
    grouped_convolution,
    triton_banded,
    triton_convolution,
)
from acmix_edu.fast import local_attention as fast_attention
from acmix_edu.fast.convolution import _convolution_trial

local_attention = functools.partial(fast_attention, backend="triton")
CPU = torch.device("cpu")
FORWARD = torch.ops.acmix_edu.local_attention.default
CONVOLUTION = torch.ops.acmix_edu.grouped_convolution.default
BACKWARD = torch.ops.acmix_edu.local_attention_backward.default
CONVOLUTION_BACKWARD = torch.ops.acmix_edu.grouped_convolution_backward.default
# NumPy, which stands in for the GPU, reports what a GPU does not: 0/0 in pixels outside the map.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning"),  # opcheck's own
]


def configuration(seed: int, pixels: int = 32) -> dict:
    """Draw sizes: odd, prime, one-pixel and non-square maps, windows larger than the map."""
    draw = random.Random(seed)
    sides = [1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 23, 31]
    sides = [side for side in sides if side * side <= 6 * pixels]
    height = draw.choice(sides)
    width = draw.choice([side for side in sides if side * height <= pixels])
    heads = draw.choice([1, 2, 3, 8]) if height * width <= pixels // 3 else 1
    return {
        "size": (
            draw.choice([1, 2]) if heads < 3 else 1,
            heads,
            draw.choice([1, 2, 5, 8, 16, 16, 17, 32, 64, 128]),
            height,
            width,
        ),
        "kernel_size": draw.choice([3, 3, 5, 7, 7, 9, 11, 13]),
        "stride": draw.choice([1, 1, 1, 2, 3]),
        "dilation": draw.choice([1, 1, 1, 2, 3, 4]),
        "position": draw.random() < 0.7,
        "layout": draw.choice(["BCHW", "channels_last", "chunks", "columns first"]),
        "seed": seed,
    }


def maps(size, layout, device=CPU, scale=1.0) -> list[torch.Tensor]:
    """Three float64 maps [B, N, d, H, W] as views of what networks hand over."""
    batch, heads, d, height, width = size
    if layout == "chunks":
        f = torch.randn(batch, 3 * heads * d, height, width, dtype=torch.float64).chunk(3, dim=1)
    else:
        f = torch.randn(3, batch, heads * d, height, width, dtype=torch.float64).unbind()
    if layout == "channels_last":
        f = [one.contiguous(memory_format=torch.channels_last) for one in f]
    if layout == "columns first":
        f = [one.mT.contiguous().mT for one in f]
    return [split_heads(scale * one, heads).to(device) for one in f]


@contextlib.contextmanager
def poison(device):
    """Fill what is allocated with NaN, so that a pixel that nobody writes is found."""
    torch.use_deterministic_algorithms(True)  # PyTorch then fills new memory with NaN
    try:
        assert torch.empty_permuted((3, 2), (1, 0), device=device).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def run(attention, inputs, grad, dtype, *window) -> list[torch.Tensor]:
    """The output and all gradients, in float64."""
    cast = [None if f is None else f.to(dtype).detach().requires_grad_() for f in inputs]
    out = attention(*cast[:3], window[0], cast[3], *window[1:])
    grads = torch.autograd.grad(out, [f for f in cast if f is not None], grad.to(dtype))
    return [f.detach().double() for f in (out, *grads)]


def check(size, kernel_size, stride, dilation, position, layout, seed, dtype=torch.float32,
          device=CPU, scale=1.0, attention=local_attention):  # fmt: skip
    """Compare with float64: at most 1.5 times the error of the plain form in the same precision.

    And where the plain form happens to be exact, a few roundings: of the largest number, and, as
    they are in an exponent, of the largest logit, which the kernel computes in float32.
    """
    torch.manual_seed(seed)
    q, k, v = (f.to(dtype).double() for f in maps(size, layout, device, scale))
    pe = torch.randn(1, 1, *size[2:], dtype=torch.float64, device=device).to(dtype).double()
    inputs = (q, k, v, pe if position else None)
    window = kernel_size, stride, dilation
    rows, columns = (-(-side // stride) for side in size[3:])
    grad = torch.randn(*size[:3], rows, columns, dtype=torch.float64, device=device)
    grad = grad.to(dtype).double()
    exact = run(plain_attention, inputs, grad, torch.float64, *window)
    plain = run(plain_attention, inputs, grad, dtype, *window)
    with poison(device):
        fast = run(attention, inputs, grad, dtype, *window)
    roundings = 8 * torch.finfo(dtype).eps + 4 * torch.finfo(torch.float32).eps * largest_logit(
        q, k
    )
    names = ["out", "grad of q", "grad of k", "grad of v", "grad of pe"]
    for name, a, b, c in zip(names, fast, plain, exact, strict=False):
        assert a.shape == c.shape
        assert a.isfinite().all(), f"{name} is not finite"
        allowed = 1.5 * (b - c).abs().max() + roundings * c.abs().max().clamp(1)
        error = (a - c).abs().max()
        assert error <= allowed, f"{name}: error {error:.2e}, allowed {allowed:.2e}"


def largest_logit(q: torch.Tensor, k: torch.Tensor) -> float:
    """A bound on |qᵀk|/√d over all pairs of pixels, window or not."""
    return (q.norm(dim=2).max() * k.norm(dim=2).max() / q.shape[2] ** 0.5).item()


@pytest.mark.parametrize("seed", range(60))
def test_configuration(seed):
    check(**configuration(seed))


@pytest.mark.parametrize("seed", range(100, 104))
def test_half_precision(seed):
    check(**configuration(seed), dtype=torch.float16)


@pytest.mark.parametrize(
    ("kernel_size", "stride", "dilation"),
    [(7, 1, 1), (13, 1, 1), (5, 1, 4), (11, 2, 2), (13, 2, 2)],
)
def test_several_blocks_side_by_side(kernel_size, stride, dilation):
    """40 columns: four neighbours are moved at once, so that blocks begin before their window."""
    check((1, 1, 4, 2, 40), kernel_size, stride, dilation, True, "BCHW", 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_logits_of_ten_thousand(dtype):
    size = (1, 1, 16, 5, 9)
    torch.manual_seed(0)
    q, k, _ = maps(size, "BCHW", scale=60)
    assert (q.flatten(3).mT @ k.flatten(3)).abs().max() / 4 > 1e4
    check(size, 7, 1, 1, False, "BCHW", seed=0, dtype=dtype, scale=60)


def test_equal_bit_for_bit():
    inputs = (*maps((1, 2, 16, 7, 9), "BCHW"), torch.randn(1, 1, 16, 7, 9))
    grad = torch.randn(1, 2, 16, 7, 9)
    first, second = (run(local_attention, inputs, grad, torch.float32, 7, 1, 1) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(4, 3, 5), (2, 4, 3, 5), (2, 1, 3, 4, 3, 5)])
def test_any_leading_dimensions(shape):
    q, k, v = torch.randn(3, *shape)
    torch.testing.assert_close(local_attention(q, k, v, 3), plain_attention(q, k, v, 3))


def test_an_empty_batch():
    q, k, v = (torch.randn(0, 2, 4, 3, 5, requires_grad=True) for _ in range(3))
    out = local_attention(q, k, v, 3)
    assert out.shape == q.shape
    assert [g.shape for g in torch.autograd.grad(out.sum(), (q, k, v))] == [q.shape] * 3


@pytest.mark.parametrize("layout", ["BCHW", "channels_last"])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_output_has_the_memory_format_of_the_input(layout, stride):
    q, k, v = (f.float() for f in maps((2, 2, 4, 4, 6), layout))
    out = local_attention(q, k, v, 3, stride=stride).flatten(1, 2)
    formats = {"BCHW": torch.contiguous_format, "channels_last": torch.channels_last}
    assert out.is_contiguous(memory_format=formats[layout])


CUTS = [(0, 8, 1), (1, 8, 1), (0, 9, 1), (0, 7, 2)]  # first column, width, stride


@pytest.mark.parametrize("cut", CUTS)
def test_a_map_cut_out_of_a_wider_one(cut):
    check_cut_out(*cut)


def check_cut_out(first, width, stride, device=CPU):
    """Rows begin 12 numbers apart: four could be moved at once, were it not for the map's edges."""
    maps = torch.randn(3, 1, 2, 16, 6, 12, device=device)[..., first : first + width]
    maps = [f.requires_grad_() for f in maps]
    fast, plain = (f(*maps, 7, stride=stride) for f in (local_attention, plain_attention))
    grad = torch.randn_like(plain)
    grads = (torch.autograd.grad(f, maps, grad) for f in (fast, plain))
    for a, b in [(fast, plain), *zip(*grads, strict=True)]:
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_gradient_without_memory_of_its_own():
    q, k, v = (torch.randn(1, 2, 4, 3, 5, requires_grad=True) for _ in range(3))
    fast = torch.autograd.grad(local_attention(q, k, v, 3).sum(), (q, k, v))  # an expanded 1
    plain = torch.autograd.grad(plain_attention(q, k, v, 3).sum(), (q, k, v))
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b)


def test_only_these_are_kept_for_the_backward_pass():
    kept = []
    q, k, v = (torch.randn(1, 2, 4, 3, 5, requires_grad=True) for _ in range(3))
    with torch.autograd.graph.saved_tensors_hooks(lambda f: kept.append(f) or f, lambda f: f):
        out = local_attention(q, k, v, 3)
    own = {f.untyped_storage().data_ptr() for f in (q, k, v)}
    new = [f for f in kept if f.untyped_storage().data_ptr() not in own]
    assert sum(f.numel() for f in new) == out.numel() + 2 * 3 * 5  # lse: one number a query


@pytest.mark.parametrize("layout", ["BCHW", "channels_last"])
def test_opcheck(layout):
    maps_ = [f.float().requires_grad_() for f in maps((1, 2, 4, 2, 3), layout)]
    torch.library.opcheck(FORWARD, (*maps_, 3, 1, 1, None, None))
    q, k, v = (f.detach() for f in maps_)
    out, lse = FORWARD(q, k, v, 3, 1, 1, None, None)
    inputs = torch.ones_like(out), q, k, v, out, lse, 3, 1, 1, None, None
    torch.library.opcheck(BACKWARD, inputs)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_in_one_graph(dynamic):
    compiled = torch.compile(local_attention, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    inputs = (*maps((1, 2, 4, 3, 5), "BCHW"), torch.randn(1, 1, 4, 3, 5))
    for stride in (1, 2):
        grad = torch.randn(1, 2, 4, -(-3 // stride), -(-5 // stride))
        both = [run(f, inputs, grad, torch.float32, 3, stride) for f in (compiled, local_attention)]
        for a, b in zip(*both, strict=True):
            torch.testing.assert_close(a, b)


def operations(function):
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def test_operations_are_those_of_the_definition():
    """As PyTorch counts the plain forms; both ways take three times as many."""
    inputs = [f.requires_grad_() for f in torch.randn(3, 1, 2, 4, 4, 5)]
    plain, fast = (
        lambda how=how: how(*inputs, 3, stride=2) for how in (plain_attention, local_attention)
    )
    assert operations(fast) == operations(plain) > 0
    assert operations(lambda: fast().sum().backward()) == 3 * operations(plain)
    weight = torch.randn(8, 6, 3, 3, requires_grad=True)
    definition = 2 * weight.numel() * 2 * 3  # of the pixels that stay; joined groups have more
    assert operations(lambda: by_kernel(*inputs, weight, 2)) == definition
    assert operations(lambda: by_kernel(*inputs, weight, 2).sum().backward()) == 3 * definition


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # PyTorch's own
def test_transforms_are_left_to_pytorch():
    """The kernels have no rules for them, and would call a tangent zero."""
    x = torch.randn(2, 8, 4, 5)
    module = ACmix(8, 8, head=2, backend="triton").requires_grad_(False)
    for transform in (
        lambda: torch.func.jvp(module, (x,), (x,)),
        lambda: torch.func.grad(lambda x: module(x).sum())(x),
        lambda: torch.func.vmap(lambda x: module(x[None])[0])(x),
    ):
        with pytest.raises(RuntimeError, match=r"no rules for torch.func"):
            transform()
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward-mode"):
        module(forward_ad.make_dual(x, x))
    assert module(x).shape == x.shape


@pytest.mark.parametrize(
    ("batch", "side", "programs", "parts"),
    [
        (2, 33, 5, 5),  # 66 blocks of pixels, in 5 parts
        (5, 33, 200, 66 * 3),  # the images in 3 parts, of which two hold two images
        (7, 4, 3, 3),  # one block
    ],
)
def test_the_parts_of_the_gradient_of_the_weight(batch, side, programs, parts, monkeypatch):
    monkeypatch.setattr(triton_convolution, "PROGRAMS", programs)
    maps_of = torch.zeros(3, batch, 16, 1, side, 32)
    assert len(triton_convolution.weight_gradient(maps_of, maps_of[0], 1, 1)) == parts
    check_convolution((batch, 16, 1, side, 32), 1, 1, "BCHW", 0)


def test_autocast_decides_the_dtype():
    q, k, v = torch.randn(3, 1, 2, 4, 3, 5)
    with torch.autocast("cpu", torch.float16):
        out = local_attention(q, k.half(), v, 3)
    torch.testing.assert_close(out, local_attention(q.half(), k.half(), v.half(), 3))


def test_second_derivatives_are_refused():
    q, k, v = (torch.randn(1, 1, 4, 2, 3, requires_grad=True) for _ in range(3))
    (grad,) = torch.autograd.grad(local_attention(q, k, v, 3).sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match='backend="unfold"'):
        torch.autograd.grad(grad.sum(), q)


def convolution(seed: int, pixels: int = 32) -> dict:
    """Draw sizes for the convolution path: few dimensions, for each has programs of its own."""
    draw, others = random.Random(seed), configuration(seed, pixels)
    return {
        "size": (
            draw.choice([1, 2, 3]),
            draw.choice([1, 2, 3, 4] if pixels < 100 else [1, 3, 4, 8, 16]),
            draw.choice([1, 2, 3, 5] if pixels < 100 else [1, 5, 16, 33]),
            *others["size"][3:],
        ),
        "kernel_size": draw.choice([1, 3, 3, 3] if pixels < 100 else [1, 3, 5, 7]),
        "stride": others["stride"],
        "layout": others["layout"],
        "seed": seed,
    }


def check_convolution(size, kernel_size, stride, layout, seed, dtype=torch.float32, device=CPU):
    """Output and gradients: at most 1.5 times the error of PyTorch's convolution, or roundings."""
    torch.manual_seed(seed)
    heads, d = size[1:3]
    weight = torch.randn(d * heads, 3 * heads, kernel_size, kernel_size, dtype=torch.float64)
    inputs = [f.to(dtype).double() for f in (*maps(size, layout, device), weight.to(device))]
    shape = size[0], d * heads, *(-(-side // stride) for side in size[3:])
    grad = torch.randn(shape, dtype=torch.float64, device=device).to(dtype)

    def run_on(convolve, dtype):
        cast = [f.to(dtype).detach().requires_grad_() for f in inputs]
        out = convolve(*cast, stride)
        return [f.double() for f in (out, *torch.autograd.grad(out, cast, grad.to(dtype)))]

    exact, plain = (run_on(by_torch, kind) for kind in (torch.float64, dtype))
    with poison(device):
        fast = run_on(by_kernel, dtype)
    names = ["out", "grad of q", "grad of k", "grad of v", "grad of the weight"]
    for name, a, b, c in zip(names, fast, plain, exact, strict=True):
        assert a.shape == c.shape
        assert a.isfinite().all(), f"{name} is not finite"
        roundings = 8 * torch.finfo(dtype).eps * c.abs().max().clamp(1)
        error, allowed = (a - c).abs().max(), 1.5 * (b - c).abs().max() + roundings
        assert error <= allowed, f"{name}: error {error:.2e}, allowed {allowed:.2e}"


def by_kernel(q, k, v, weight, stride=1):
    return grouped_convolution(q, k, v, weight, stride, backend="triton")


def by_torch(q, k, v, weight, stride):
    return grouped_convolution(q, k, v, weight, stride, backend="halo")


@pytest.mark.parametrize("seed", range(3000, 3030))
def test_convolution(seed):
    check_convolution(**convolution(seed))


BANDED = [  # size, kernel_size, layout: several tiles down and across, blocks of heads, odd widths
    ((2, 4, 3, 5, 4), 3, "BCHW"),
    ((1, 2, 2, 66, 20), 3, "chunks"),
    ((3, 5, 1, 7, 9), 5, "BCHW"),
    ((2, 1, 2, 17, 8), 7, "columns first"),
    ((1, 3, 2, 3, 18), 9, "BCHW"),
    ((2, 9, 1, 2, 3), 1, "BCHW"),
]


@pytest.mark.parametrize(("size", "kernel_size", "layout"), BANDED)
def test_convolution_by_banded_matrices(size, kernel_size, layout, monkeypatch):
    monkeypatch.setattr(triton_banded, "PROGRAMS", 12)  # so that each has several tiles
    calls = []
    for name in ("convolve", "weight_gradient"):
        run = getattr(triton_banded, name)
        monkeypatch.setattr(
            triton_banded, name, lambda *a, f=run, n=name, **k: calls.append(n) or f(*a, **k)
        )
    check_convolution(size, kernel_size, 1, layout, 0, dtype=torch.float16)
    assert calls == ["convolve", "convolve", "weight_gradient"]


@pytest.mark.parametrize("cut", [(0, 8), (1, 8), (0, 9)])
def test_convolution_of_maps_cut_out_of_wider_ones(cut):
    check_convolution_of_cut_out(*cut)


def check_convolution_of_cut_out(first, width, device=CPU):
    """As check_cut_out, for the convolution."""
    maps = torch.randn(3, 1, 2, 3, 6, 12, device=device).half()[..., first : first + width]
    inputs = [f.requires_grad_() for f in (*maps, torch.randn(6, 6, 3, 3, device=device).half())]
    fast, plain = by_kernel(*inputs), by_torch(*(f.double() for f in inputs), 1)
    grad = torch.randn(1, 6, 6, 12, device=device).half()[..., first : first + width]
    of_fast = torch.autograd.grad(fast, inputs, grad)
    of_plain = torch.autograd.grad(plain, inputs, grad.double())
    for a, b in [(fast, plain), *zip(of_fast, of_plain, strict=True)]:
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("kernel_size", "stride", "layout"), [(11, 1, "BCHW"), (3, 2, "BCHW"), (3, 1, "channels_last")]
)
def test_convolution_in_half_precision(kernel_size, stride, layout):
    """What the banded matrices are not for."""
    check_convolution((2, 4, 3, 5, 4), kernel_size, stride, layout, 0, dtype=torch.float16)


def test_convolution_of_several_blocks():
    """More pixels and dimensions than one program takes, in both memory formats."""
    check_convolution((1, 1, 33, 2, 9), 1, 1, "channels_last", 0)
    check_convolution((1, 1, 2, 19, 15), 1, 1, "BCHW", 0)
    check_convolution((1, 1, 2, 5, 3), 5, 2, "BCHW", 0)


def test_convolution_of_an_empty_batch():
    q, k, v = (torch.randn(0, 2, 4, 3, 5, requires_grad=True) for _ in range(3))
    weight = torch.randn(8, 6, 3, 3, requires_grad=True)
    out = by_kernel(q, k, v, weight)
    assert out.shape == (0, 8, 3, 5)
    grads = torch.autograd.grad(out.sum(), (q, k, v, weight))
    assert [g.shape for g in grads] == [q.shape] * 3 + [weight.shape]
    assert not grads[3].any()


def test_convolution_is_known_to_pytorch():
    for layout in ("BCHW", "channels_last"):
        inputs = [f.float() for f in maps((1, 2, 3, 3, 4), layout)]
        inputs = [f.requires_grad_() for f in (*inputs, torch.randn(6, 6, 3, 3))]
        torch.library.opcheck(CONVOLUTION, (*inputs, 2))
        out, inputs = CONVOLUTION(*inputs, 2), [f.detach() for f in inputs]
        for asked in ((True, False), (False, True)):
            torch.library.opcheck(CONVOLUTION_BACKWARD, (torch.ones_like(out), *inputs, 2, *asked))
    inputs = [f.requires_grad_() for f in inputs]
    compiled = torch.compile(by_kernel, backend="aot_eager", fullgraph=True)
    out, expected = compiled(*inputs), by_kernel(*inputs)
    torch.testing.assert_close(out, expected)
    for a, b in zip(*(torch.autograd.grad(f.sum(), inputs) for f in (out, expected)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("frozen", "left"), [("weight", "convolve"), ("maps", "weight_gradient")])
def test_convolution_with_frozen_parameters(frozen, left, dtype, monkeypatch):
    """What no one asks for is not computed: half of the backward pass."""
    q, k, v = torch.randn(3, 1, 2, 4, 3, 5).to(dtype)
    weight = torch.randn(8, 6, 3, 3).to(dtype)
    learnt = [weight] if frozen == "maps" else [q, v]
    out = by_kernel(*(f.requires_grad_(any(f is g for g in learnt)) for f in (q, k, v, weight)))
    calls = []
    for module in (triton_convolution, triton_banded):
        for name in ("convolve", "weight_gradient"):
            run = getattr(module, name)
            monkeypatch.setattr(
                module, name, lambda *a, f=run, n=name, **key: calls.append(n) or f(*a, **key)
            )
    grads = torch.autograd.grad(out.sum(), learnt)
    assert calls == [left]
    expected = torch.autograd.grad(by_torch(q, k, v, weight, 1).sum(), learnt)
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=2e-2)


def test_convolution_under_autocast():
    q, k, v = torch.randn(3, 1, 2, 4, 3, 5)
    weight = torch.randn(8, 6, 3, 3)
    with torch.autocast("cpu", torch.float16):
        out = by_kernel(q, k, v, weight)
    torch.testing.assert_close(out, by_kernel(*(f.half() for f in (q, k, v, weight))))


def test_second_derivatives_of_the_convolution_are_refused():
    q, k, v = (torch.randn(1, 1, 4, 2, 3, requires_grad=True) for _ in range(3))
    weight = torch.randn(4, 3, 3, 3)
    (grad,) = torch.autograd.grad(by_kernel(q, k, v, weight).sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match='backend="unfold"'):
        torch.autograd.grad(grad.sum(), q)


@pytest.mark.parametrize("golden", [GOLDEN[0], GOLDEN[5]], indirect=True)
def test_acmix(golden, published):
    published.backend = "triton"
    check_published(published, golden)


@pytest.mark.parametrize(
    ("trial", "sizes", "channels_last", "dtype"),
    [
        (_attention_trial, (1, 7, 1, 1), False, torch.float32),
        (_attention_trial, (12, 5, 2, 3), True, torch.float32),
        (_attention_trial, (12, 5, 2, 3), True, torch.float16),
        (_convolution_trial, (1, 3, 1), False, torch.float16),
        (_convolution_trial, (2, 3, 2), True, torch.float32),
    ],
)
def test_the_kernels_pass_their_trial(trial, sizes, channels_last, dtype):
    error = choice.disagreement(trial, sizes, channels_last, dtype, CPU)
    least, most = (0, 1e-5) if dtype == torch.float32 else (1e-5, 2e-3)
    assert least < error < most


def test_a_trial_is_the_same_wherever_it_is_held():
    """It neither sees nor moves what the user has set."""
    trial = _attention_trial, (1, 3, 1, 1), False, torch.float32, CPU
    expected, state = choice.disagreement(*trial), torch.get_rng_state()
    counter = FlopCounterMode(display=False)
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(kept.append, lambda f: f)  # a checkpoint
    fake, half = FakeTensorMode(), torch.autocast("cpu", torch.float16)
    with torch.inference_mode(), half, fake, counter, hooks, torch.device("meta"):
        assert choice.disagreement(*trial) == expected
    assert counter.get_total_flops() == 0 and kept == []
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_trial_is_held_while_a_graph_is_made(dynamic):
    @torch.compile(backend="aot_eager", fullgraph=True, dynamic=dynamic)
    def compiled(q):
        case = choice.known((q.shape[1], 3, 1, 1), q)
        return q * choice.passes(_attention_trial, *case, q.dtype, q.device)

    choice._passes.cache_clear()
    for features in (2, 2, 1):
        q = torch.randn(1, features, 3, 5, requires_grad=True)
        torch.testing.assert_close(compiled(q), q)
    assert choice._passes.cache_info().misses == 2
