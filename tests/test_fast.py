"""The fast forms against the definition: forward, every gradient, every odd case."""

import random
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from acmix_edu import ACmix, LearnableShift
from acmix_edu import local_attention as by_definition
from acmix_edu.fast import (
    band_attention,
    compose,
    grouped_convolution,
    halo,
    halo_attention,
    local_attention,
    multiplicity,
    widen,
)
from acmix_edu.fast import convolution as grouped
from acmix_edu.fast.halo import tiles

FORMS = [halo_attention, band_attention]
SIDES = [1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 23, 31]


def configuration(seed: int) -> dict:
    """A random case: odd, prime and non-square maps, windows larger than the map, all rates."""
    pick = random.Random(seed)
    d = pick.choice([1, 2, 3, 4, 8, 16, 32, 128])
    return {
        "size": (pick.choice(SIDES), pick.choice(SIDES)),
        "d": d,
        "d_v": pick.choice([d, d, d, 5]),
        "heads": pick.choice([1, 2, 3, 8]) if d < 32 else 1,
        "window": {
            "kernel_size": pick.choice([1, 3, 5, 7, 9, 13]),
            "stride": pick.choice([1, 1, 2, 3, 5]),
            "dilation": pick.choice([1, 1, 2, 3, 4]),
        },
    }


def random_maps(case: dict) -> list[torch.Tensor]:
    sizes = (case["d"], case["d"], case["d_v"])
    return [torch.randn(1, case["heads"], d, *case["size"], dtype=torch.float64) for d in sizes]


def with_gradients(function, maps):
    """The output, and the gradient of every input for one fixed random direction."""
    maps = [m.detach().requires_grad_() for m in maps]
    out = function(*maps)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out, *torch.autograd.grad(out, maps, direction)]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("first", range(0, 320, 40))
def test_is_the_definition_forward_and_backward(form, first):
    for seed in range(first, first + 40):
        torch.manual_seed(seed)
        case = configuration(seed)
        maps = random_maps(case)
        expected = with_gradients(partial(by_definition, **case["window"]), maps)
        ours = with_gradients(partial(form, **case["window"]), maps)
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a, b, msg=lambda m, case=case: f"{case}: {m}")


@pytest.mark.parametrize("size", [(6, 5), (31, 22)])
@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_position_term_shifts_the_keys(size, leading):
    q, k, v = torch.randn(3, *leading, 4, *size, dtype=torch.float64)
    maps = [q, k, v, torch.randn(*(1 for _ in leading), 4, *size, dtype=torch.float64)]
    expected = with_gradients(lambda q, k, v, pe: by_definition(q, k, v, 5, pe, 2, 2), maps)
    ours = with_gradients(lambda q, k, v, pe: local_attention(q, k, v, 5, pe, 2, 2), maps)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("window", [(1, 1, 1), (3, 1, 3), (7, 2, 1), (13, 3, 4)])
def test_multiplicity_counts_what_reflection_repeats(size, window):
    """Walk over the padded line and see which pixel numpy puts there."""
    k, stride, dilation = window
    reach = dilation * (k // 2)
    padded = np.pad(np.arange(size), reach, mode="reflect")
    counts = multiplicity(size, k, stride, dilation)
    for row, i in zip(counts, range(0, size, stride), strict=True):
        seen = padded[i : i + 2 * reach + 1 : dilation]
        assert row.tolist() == np.bincount(seen, minlength=size).tolist()


@pytest.mark.parametrize("window", [(3, 1, 1), (7, 1, 1), (5, 2, 3), (3, 3, 2), (5, 1, 64)])
@pytest.mark.parametrize("size", [1, 3, 8, 9, 30])
def test_every_output_pixel_has_one_home_and_its_whole_window(size, window):
    k, stride, dilation = window
    cut = tiles(size, k, stride, dilation)
    tile, place = cut.home
    assert len({*zip(tile.tolist(), place.tolist(), strict=True)}) == len(range(0, size, stride))
    assert cut.queries[tile, place].tolist() == list(range(0, size, stride))
    padded = np.pad(np.arange(size), dilation * (k // 2), mode="reflect")
    for t, p, i in zip(tile.tolist(), place.tolist(), range(0, size, stride), strict=True):
        window = padded[i : i + dilation * (k - 1) + 1 : dilation]
        assert cut.keys[t][cut.near[p]].tolist() == window.tolist()


def test_no_tile_is_without_queries():
    assert tiles(56, 7, dilation=512).queries.tolist() == [[i] for i in range(56)]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_large_logits(form, scale):
    q, k, v = torch.randn(3, 1, 4, 11, 9)
    expected = by_definition((q * scale).double(), k.double(), v.double(), 5).float()
    ours = with_gradients(lambda q, k, v: form(q * scale, k, v, 5), [q, k, v])
    torch.testing.assert_close(ours[0], expected, rtol=1e-2, atol=1e-2)
    assert all(f.isfinite().all() for f in ours)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("d", [4, 16, 64])
def test_low_precision_is_as_good_as_the_plain_form(form, dtype, d):
    """Error at most 1.5 times the plain form's in the same precision, both against float64."""
    maps = [f.to(dtype) for f in torch.randn(3, 1, 2, d, 21, 18)]
    exact = with_gradients(lambda *m: by_definition(*m, 7), [f.double() for f in maps])
    plain = with_gradients(lambda *m: by_definition(*m, 7), maps)
    ours = with_gradients(lambda *m: form(*m, 7), maps)
    for a, b, e in zip(ours, plain, exact, strict=True):
        assert a.dtype == dtype
        assert (a.double() - e).norm() <= 1.5 * (b.double() - e).norm()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_repeats_to_the_bit_and_writes_every_element(form):
    maps = list(torch.randn(3, 2, 8, 19, 26))
    first = with_gradients(lambda *m: form(*m, 7), maps)
    torch.use_deterministic_algorithms(True)  # fills fresh memory with NaN
    try:
        again = with_gradients(lambda *m: form(*m, 7), maps)
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_any_strides(form, channels_last):
    maps = [torch.randn(2, 8, 23, 17) for _ in range(3)]
    if channels_last:
        other = [m.to(memory_format=torch.channels_last) for m in maps]
    else:
        other = [m.mT.contiguous().mT for m in maps]
    torch.testing.assert_close(form(*other, 5), by_definition(*maps, 5))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_empty_batch(form):
    maps = [torch.randn(0, 2, 4, 9, 9, requires_grad=True) for _ in range(3)]
    out = form(*maps, 3)
    assert out.shape == (0, 2, 4, 9, 9)
    out.sum().backward()


class Largest(TorchDispatchMode):
    """Remember how many elements the largest tensor had."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // 4)
        return out


def test_nothing_is_copied_k_squared_times():
    maps = torch.randn(3, 1, 16, 56, 56)
    with Largest() as halo:
        local_attention(*maps, 7)
    with Largest() as unfold:
        local_attention(*maps, 7, backend="unfold")
    assert halo.elements < 3.2 * maps[0].numel()  # (1 + 6/8)² copies of k
    assert unfold.elements == 49 * maps[0].numel()


@pytest.mark.parametrize("size", [(2, 90), (90, 2)])
def test_bands_run_along_the_shorter_side(size):
    """A query meets the 14 rows or columns around its band of 8: no logits of all pairs."""
    maps = torch.randn(3, 1, 16, *size)
    with Largest() as chosen:
        out = local_attention(*maps, 7)
    assert out.is_contiguous() and chosen.elements < 180**2
    torch.testing.assert_close(out, local_attention(*maps, 7, backend="unfold"))


def test_band_attention_copies_nothing():
    maps = torch.randn(3, 1, 64, 14, 14)
    with Largest() as band:
        band_attention(*maps, 7)
    assert band.elements <= maps.numel()


@pytest.mark.parametrize("kernel, heads, stride", [(1, 1, 1), (3, 4, 1), (3, 2, 2), (5, 3, 3)])
def test_one_grouped_convolution_is_fc_and_then_shifts(kernel, heads, stride):
    shifts = LearnableShift(5, kernel, kernels=heads, stride=stride).double()
    torch.nn.init.normal_(shifts.weight)
    fc = torch.randn(kernel**2, 3 * heads, 1, 1, dtype=torch.float64, requires_grad=True)

    def by_two(q, k, v, fc, weight):
        light = torch.einsum("tm,bmdhw->bdthw", fc.flatten(1), torch.cat([q, k, v], 1))
        return torch.func.functional_call(shifts, {"weight": weight}, light.flatten(1, 2))

    maps = [torch.randn(2, heads, 5, 9, 6, dtype=torch.float64) for _ in range(3)]
    maps += [fc, shifts.weight]
    expected = with_gradients(by_two, maps)
    ours = with_gradients(
        lambda q, k, v, fc, weight: grouped_convolution(q, k, v, compose(fc, weight), stride), maps
    )
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("heads", "d", "by"), [(1, 8, 8), (2, 8, 4), (4, 6, 2), (6, 4, 4)])
@pytest.mark.parametrize("stride", [1, 2])
def test_groups_that_fill_a_vector_are_the_same_convolution(heads, d, by, stride, monkeypatch):
    """Values and gradients, and that it is the wide convolution that was computed."""
    maps = [torch.randn(2, heads, d, 9, 6) for _ in range(3)]
    maps.append(torch.randn(d * heads, 3 * heads, 3, 3))
    results, groups, convolve = [], [], F.conv2d
    monkeypatch.setattr(
        F, "conv2d", lambda *a, **b: groups.append(b["groups"]) or convolve(*a, **b)
    )
    for vector in (1, 8):
        monkeypatch.setattr(grouped, "VECTOR", vector)
        results.append(with_gradients(lambda *m: grouped_convolution(*m, stride), maps))
    assert groups == [d, d // by]
    for narrow, wide in zip(*results, strict=True):
        torch.testing.assert_close(wide, narrow, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("case", "heads", "d"),
    [("wide enough", 8, 4), ("odd", 4, 5), ("float64", 4, 4), ("autocast", 4, 4), ("traced", 4, 4)],
)
@pytest.mark.filterwarnings("ignore:`torch.jit.trace")
def test_groups_that_stay_narrow(case, heads, d, monkeypatch):
    monkeypatch.setattr(grouped, "VECTOR", 8)
    monkeypatch.setattr(grouped, "widen", None)
    q = torch.randn(2, heads, d, 9, 6, dtype=torch.float64 if case == "float64" else torch.float32)
    weight = torch.randn(d * heads, 3 * heads, 3, 3).to(q)
    run = lambda q: grouped_convolution(q, q, q, weight)  # noqa: E731
    with torch.autocast("cpu", enabled=case == "autocast"):
        out = torch.jit.trace(run, q, check_trace=False)(q) if case == "traced" else run(q)
    assert out.shape == (2, d * heads, 9, 6)


def test_wide_groups_have_zeros_between_them():
    weight = torch.randn(8, 3, 1, 1)
    wide = widen(weight, 4, 2)
    assert wide.shape == (8, 6, 1, 1)
    assert torch.equal(wide[:2, :3], weight[:2]) and torch.equal(wide[2:4, 3:], weight[2:4])
    assert not wide[:2, 3:].any() and not wide[2:4, :3].any()


MODULES = [{}, {"kernel_att": 5, "head": 2, "kernel_conv": 5}, {"stride": 2, "dilation": 3},
           {"kernel_att": 13, "head": 8, "kernel_conv": 1}]  # fmt: skip


@pytest.mark.parametrize("options", MODULES, ids=str)
@pytest.mark.parametrize("size", [(23, 20), (9, 14), (1, 3)])
def test_module_is_its_unfold_form(options, size):
    """One state, two backends: the output, and the gradient of the input and every parameter."""
    results = []
    state = ACmix(6, 16, **options).double().state_dict()
    state = {name: torch.randn(t.shape).double() for name, t in state.items()}
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    for backend in (None, "unfold"):
        module = ACmix(6, 16, **options, backend=backend).double()
        module.load_state_dict(state)
        loss = module(x).square().sum()
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        results.append([*with_gradients(module, [x]), *gradients])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_unknown_backend():
    with pytest.raises(ValueError, match=r"backend must be one of None, 'unfold'.*'cuda' came"):
        ACmix(4, 4, backend="cuda")
    maps = torch.randn(3, 1, 4, 5, 5)
    module = ACmix(8, 8)
    module.backend = "Unfold"
    with pytest.raises(ValueError, match=r"backend must be one of.*'Unfold' came"):
        module(torch.rand(1, 8, 5, 5))
    with pytest.raises(ValueError, match="backend must be one of"):
        local_attention(*maps, 3, backend="flash")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to run the kernel on")
def test_triton_says_why_it_cannot_run():
    maps = torch.randn(3, 1, 4, 5, 5)
    with pytest.raises(RuntimeError, match=r"backend='triton' cannot be used: .*cpu.*Leave"):
        local_attention(*maps, 3, backend="triton")


def test_many_images_and_tiles_are_taken_in_parts(monkeypatch):
    """A GPU's grid holds 65,535 of them."""
    monkeypatch.setattr(halo, "MOST", 3)
    attend, sizes = F.scaled_dot_product_attention, []

    def noted(q, *rest, **named):
        sizes.append(q.shape[:2])
        return attend(q, *rest, **named)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    maps = list(torch.randn(3, 7, 4, 17, 9, dtype=torch.float64))
    ours = with_gradients(lambda *f: halo_attention(*f, 5), maps)
    assert len(sizes) == 3 * 2 and max(map(max, sizes)) == 3
    for a, b in zip(ours, with_gradients(lambda *f: by_definition(*f, 5), maps), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"kernel_size": 4}, ValueError, "kernel_size must be odd"),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"dilation": 1.5}, TypeError, "dilation must be a whole number"),
        ({"k": torch.randn(1, 4, 5, 6)}, ValueError, "q and k must have one shape"),
        ({"v": torch.randn(1, 4, 6, 5)}, ValueError, "q and v must have one shape"),
        ({"v": torch.randn(1, 4, 5, 5).half()}, TypeError, "v must have the dtype of q"),
        ({"pe": torch.randn(1, 3, 5, 5)}, ValueError, "pe must have the shape"),
        ({"q": torch.zeros(1, 4, 5, 5, dtype=torch.int64)}, TypeError, "floating-point"),
    ],
)
@pytest.mark.parametrize("backend", [None, "unfold"])
def test_what_cannot_be_used_is_named(arguments, error, says, backend):
    maps = dict(zip("qkv", torch.randn(3, 1, 4, 5, 5), strict=True)) | {"kernel_size": 3}
    with pytest.raises(error, match=says):
        local_attention(**maps | arguments, backend=backend)


def test_second_derivatives_need_the_definition():
    """What the library's fused attention cannot do says so; backend="unfold" can."""
    maps = torch.randn(3, 1, 4, 25, 25, dtype=torch.float64, requires_grad=True)

    def curvature(backend):
        out = local_attention(*maps, 3, backend=backend).square().sum()
        (first,) = torch.autograd.grad(out, maps, create_graph=True)
        return torch.autograd.grad(first.square().sum(), maps)[0]

    assert curvature("unfold").isfinite().all()
    with pytest.raises(NotImplementedError, match='take them with backend="unfold"'):
        curvature(None)
    out = local_attention(*maps, 3).square().sum()  # a graph of gradients alone does no harm
    first = torch.autograd.grad(out, maps, create_graph=True)
    plain = torch.autograd.grad(by_definition(*maps, 3).square().sum(), maps)
    torch.testing.assert_close(first, plain)


def test_a_gradient_that_is_never_asked_for():
    """What stands behind may use the output without a gradient: PyTorch then has None for it."""
    module, size = ACmix(2, 4, kernel_att=3, head=2).double(), (1, 2, 17, 17)
    x = torch.randn(size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, x, fast_mode=True)
    checkpoint(lambda y, x: y.detach().sum() * x.sum(), module(x), x, use_reentrant=True).backward()
    assert x.grad.any()


@pytest.mark.filterwarnings("ignore:`torch.jit.script")  # torch's own
@pytest.mark.parametrize("form", [*FORMS, local_attention], ids=lambda form: form.__name__)
def test_forward_mode_differentiation(form):
    """Along a direction, and along it again over the gradient: a product with the Hessian."""
    maps, direction = torch.randn(2, 3, 1, 4, 24, 24, dtype=torch.float64)
    pairs = tuple(maps), tuple(direction)

    def both(form):
        gradient = torch.func.grad(lambda *maps: form(*maps, 7).square().sum(), (0, 1, 2))
        return [torch.func.jvp(lambda *maps: form(*maps, 7), *pairs),
                *zip(*torch.func.jvp(gradient, *pairs), strict=True)]  # fmt: skip

    for ours, exact in zip(both(form), both(by_definition), strict=True):
        torch.testing.assert_close(ours, exact)
    with forward_ad.dual_level():
        dual = form(forward_ad.make_dual(*(f[0] for f in pairs)), *maps[1:], 7)
        assert forward_ad.unpack_dual(dual).tangent.any()


@pytest.mark.filterwarnings("ignore:`torch.jit.script")
def test_forward_mode_scales_before_it_multiplies():
    """q·k is 160,000, which float16 cannot hold; a quarter of it is a logit."""
    q = torch.full((1, 16, 40, 40), 100.0).half()
    with forward_ad.dual_level():
        out = local_attention(forward_ad.make_dual(q, q), q, q, 3)
        torch.testing.assert_close(forward_ad.unpack_dual(out).primal, q)


@pytest.fixture
def attended(monkeypatch):
    """The dtypes in which PyTorch attends, call by call: of the queries and of the mask."""
    seen, attend = [], F.scaled_dot_product_attention

    def spy(q, k, v, attn_mask):
        cast = torch.is_autocast_enabled("cpu")
        seen.append(torch.get_autocast_dtype("cpu") if cast else q.dtype)
        seen.append(attn_mask.dtype)
        return attend(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return seen


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_mask_has_the_dtype_of_the_queries(dtype, attended):
    """On CUDA another dtype is refused, or read as if it were that of the queries."""
    q = torch.randn(1, 2, 4, 20, 20).to(dtype)
    halo_attention(q, q, q, 7)
    assert attended == [dtype, dtype]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_in_half_precision_are_computed_in_float32(dtype, autocast, attended):
    """PyTorch's own, in half precision, take a processor up to three times as long."""
    q = torch.randn(1, 2, 4, 20, 20)
    q = (q if autocast else q.to(dtype)).requires_grad_()
    with torch.autocast("cpu", dtype, enabled=autocast):
        out = halo_attention(q, q, q, 7)
        with torch.no_grad():
            halo_attention(q, q, q, 7)
    assert out.dtype == dtype
    assert attended[0::2] == [torch.float32, dtype]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weight": torch.randn(16, 5, 3, 3)}, r"weight must have the shape \[16, 12, k_c, k_c\]"),
        ({"v": torch.randn(2, 4, 3, 6, 6)}, r"q, k and v must have one shape"),
        ({"k": torch.randn(2, 4, 4, 9, 6)}, "q and k must have one shape"),
        ({"backend": "cuda"}, "backend must be one of"),
        ({"weight": torch.randn(16, 12, 3, 5)}, r"weight must have the shape"),
        ({"weight": torch.randn(16, 12, 2, 2)}, "weight must have an odd k_c"),
        ({"weight": torch.randn(16, 12, 3, 3).double()}, "weight must have the dtype of q"),
        ({"weight": None}, "weight must be a torch.Tensor"),
        ({"stacked": torch.randn(2, 47, 6, 6)}, "stacked must have 48 channels"),
        ({"stacked": torch.randn(2, 48, 6, 9)}, "stacked and q must have one shape"),
    ],
    ids=["weight", "v", "k", "backend", "oblong", "even", "dtype", "none", "few", "wide"],
)
def test_what_the_grouped_convolution_refuses(change, says):
    arguments = {name: torch.randn(2, 4, 4, 6, 6) for name in "qkv"}
    arguments |= {"weight": torch.randn(16, 12, 3, 3)} | change
    with pytest.raises((ValueError, TypeError), match=says):
        grouped_convolution(**arguments)


@pytest.mark.parametrize("form", [halo_attention, band_attention])
def test_what_the_forms_refuse_by_themselves(form):
    q, k, v = torch.randn(3, 1, 4, 20, 20)
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        form(q, k, v, 4)
    with pytest.raises(ValueError, match="q and k must have one shape"):
        form(q, k[..., :10, :], v, 7)
    with pytest.raises(ValueError, match="stride must be at least 1"):
        form(q, k, v, 7, stride=0)
