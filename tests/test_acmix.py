"""ACmix: the published module's results, a loop written from the paper, and what it never ran."""

import copy
import io
import math
import sys
from collections import Counter

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import check_published
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from acmix_edu import (
    ACmix,
    LearnableShift,
    checks,
    local_attention,
    shift_and_sum,
    split_heads,
)
from acmix_edu.examples import small_acmix, small_kernel, small_map


def randomised(*arguments, **options) -> ACmix:
    """An ACmix none of whose weights is special."""
    module = ACmix(*arguments, **options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def test_forward_and_every_gradient_are_the_published_modules(golden, published):
    check_published(published, golden)


def test_state_is_written_back_as_it_came(golden, published):
    file = io.BytesIO()
    torch.save(published.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    names = [k.removeprefix("state/") for k in golden if k.startswith("state/")]
    assert sorted(state) == sorted(names)
    assert all(torch.equal(state[name], golden[f"state/{name}"]) for name in names)


@pytest.mark.parametrize("size", [(7, 5), (2, 3), (1, 1), (8, 8)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"kernel_att": 5, "dilation": 3},
        {"kernel_conv": 1, "head": 1},
        {"kernel_conv": 5, "stride": 3, "head": 6},
        {"kernel_att": 1, "kernel_conv": 7, "head": 3},
        {"kernel_att": 13, "dilation": 2, "stride": 2},
    ],
    ids=str,
)
def test_module_is_its_two_paths(size, options):
    """Written again from the paper: dense kernels per offset, heads and dimensions by loops."""
    options = {"kernel_att": 7, "head": 2, "kernel_conv": 3, "stride": 1, "dilation": 1, **options}
    module = randomised(5, 12, **options).double()
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    n_heads, d, k, s = (
        options["head"],
        12 // options["head"],
        options["kernel_conv"],
        options["stride"],
    )
    q, key, v = (F.conv2d(x, c.weight, c.bias) for c in (module.conv1, module.conv2, module.conv3))
    xs = torch.linspace(-1, 1, size[1]).double().expand(size)
    ys = torch.linspace(-1, 1, size[0]).double()[:, None].expand(size)
    pe = torch.einsum("dc,chw->dhw", module.conv_p.weight[..., 0, 0], torch.stack([xs, ys]))
    attention, convolution = [], {}
    for n in range(n_heads):
        rows = slice(n * d, n * d + d)
        attention.append(
            local_attention(q[:, rows], key[:, rows] - pe, v[:, rows],
                            options["kernel_att"], None, s, options["dilation"])
        )  # fmt: skip
    for e in range(d):
        stacked = torch.stack([f[:, n * d + e] for f in (q, key, v) for n in range(n_heads)], dim=1)
        light = torch.einsum("tm,bmhw->bthw", module.fc.weight[..., 0, 0], stacked)
        for n in range(n_heads):
            kernel = module.dep_conv.weight[e * n_heads + n]
            convolution[e * n_heads + n] = F.conv2d(light, kernel[None], stride=s, padding=k // 2)
    conv = torch.cat([convolution[c] for c in range(12)], dim=1)
    expected = module.rate1 * torch.cat(attention, dim=1) + module.rate2 * conv
    out = module(x)
    assert out.shape == (2, 12, math.ceil(size[0] / s), math.ceil(size[1] / s))
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(module.explain(x)["out"], expected)


def test_explain_has_the_shapes_of_layer_1():
    shapes = {
        name: list(f.shape) for name, f in ACmix(64, 64).explain(torch.randn(2, 64, 14, 10)).items()
    }
    assert shapes["q"] == shapes["k"] == shapes["v"] == [2, 64, 14, 10]
    assert shapes["pe"] == [1, 16, 14, 10]
    assert shapes["q_att"] == shapes["k_att"] == shapes["v_att"] == [2, 4, 16, 14, 10]
    assert shapes["pad_k"] == shapes["pad_v"] == [2, 4, 16, 20, 16]
    assert shapes["unfold_k"] == shapes["unfold_v"] == [2, 4, 16, 49, 14, 10]
    assert shapes["unfold_pe"] == [1, 16, 49, 14, 10]
    assert shapes["logits"] == shapes["att"] == [2, 4, 49, 14, 10]
    assert shapes["f_all"] == [2, 9, 16, 14, 10]
    assert shapes["f_conv"] == [2, 144, 14, 10]
    assert shapes["out_att"] == shapes["out_conv"] == shapes["out"] == [2, 64, 14, 10]


def test_starts_as_shift_and_sum_with_equal_rates():
    module, x = ACmix(8, 16, head=4), torch.randn(1, 8, 6, 6)
    assert module.rate1.tolist() == module.rate2.tolist() == [0.5]
    steps = module.explain(x)
    expected = shift_and_sum(steps["f_all"], 3)  # one map for each of the d dimensions
    for n in range(4):
        torch.testing.assert_close(steps["out_conv"][:, n::4], expected)


def test_a_rate_of_zero_leaves_one_path():
    module, x = randomised(4, 8), torch.randn(2, 4, 6, 5)
    steps = module.explain(x)
    for rate, other, path in (("rate1", "rate2", "out_att"), ("rate2", "rate1", "out_conv")):
        with torch.no_grad():
            getattr(module, rate).fill_(2)
            getattr(module, other).zero_()
        torch.testing.assert_close(module(x), 2 * steps[path])
    assert module.norm_share(x) == 0


def test_norm_share_by_hand():
    module, x = randomised(4, 8), torch.randn(2, 4, 6, 5)
    steps = module.explain(x)
    a, c = (module.rate1 * steps["out_att"]).norm(), (module.rate2 * steps["out_conv"]).norm()
    torch.testing.assert_close(module.norm_share(x), a / (a + c))
    assert not module.norm_share(x).requires_grad
    with torch.no_grad():
        module.rate1.neg_()
    torch.testing.assert_close(module.norm_share(x), a / (a + c))


def test_small_example_by_hand():
    steps = small_acmix().explain(small_map())
    # head 0, pixel (2, 2): neighbours 9×5, 5×3, 1 with logits (5/4)·(f/4)
    weights = torch.tensor([9, 9, 9, 9, 5, 5, 9, 5, 1.0]).mul(5 / 16).softmax(0)
    torch.testing.assert_close(steps["att"][0, 0, :, 2, 2], weights)
    torch.testing.assert_close(
        steps["att"][0, 1, :, 2, 2],
        torch.tensor([9, 9, 9, 9, 5, 5, 9, 5, 1.0]).mul(-5 / 16).softmax(0),
    )
    conv = F.conv2d(small_map(), small_kernel() / 45, padding=1)
    torch.testing.assert_close(steps["out_conv"], conv.expand(1, 2, 5, 5))


@pytest.mark.parametrize("kernel_conv", [1, 3, 5])
def test_convolution_kernel_composes_the_path(kernel_conv):
    module = randomised(5, 8, head=2, kernel_conv=kernel_conv).double()
    for projection in (module.conv1, module.conv2, module.conv3):
        torch.nn.init.zeros_(projection.bias)
    x = torch.randn(2, 5, 7, 6, dtype=torch.float64)
    expected = module.explain(x)["out_conv"]
    kernel = module.convolution_kernel()
    torch.testing.assert_close(F.conv2d(x, kernel, padding=kernel_conv // 2), expected)


@pytest.mark.parametrize(
    "options", [{}, {"dilation": 2}, {"stride": 2}, {"kernel_conv": 7, "kernel_att": 3}]
)
def test_effective_kernels_give_the_output(options):
    module = randomised(3, 8, **{"kernel_att": 5, "head": 2, **options}).double()
    for projection in (module.conv1, module.conv2, module.conv3):
        torch.nn.init.zeros_(projection.bias)
    x = torch.randn(1, 3, 17, 19, dtype=torch.float64)
    s = module.stride
    i, j = 8 // s, 10 // s
    steps, kernels = module.explain(x), module.effective_kernels(x, i, j)
    reach = kernels["mix"].shape[-1] // 2
    patch = x[0, :, s * i - reach : s * i + reach + 1, s * j - reach : s * j + reach + 1]
    for name, out in (("attention", "out_att"), ("convolution", "out_conv"), ("mix", "out")):
        by_kernel = torch.einsum("oihw,ihw->o", kernels[name], patch)
        torch.testing.assert_close(by_kernel, steps[out][0, :, i, j])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_as_good_as_its_roundings(dtype):
    """The truth is float64 on the rounded weights and the rounded input."""
    module, x = ACmix(16, 16).to(dtype), torch.randn(2, 16, 9, 7).to(dtype)
    out = module(x)
    truth = copy.deepcopy(module).double()(x.double())
    assert out.dtype == dtype
    # a few roundings (q, k, v, weights, sums), each of half a unit in the last place
    assert (out.double() - truth).abs().max() < 16 * torch.finfo(dtype).eps * truth.abs().max()


def test_autocast_runs_and_trains():
    module, x = ACmix(8, 8), torch.randn(2, 8, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    out.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    torch.testing.assert_close(out.float(), module(x), atol=0.05, rtol=0.05)


def test_memory_formats_agree():
    module, x = randomised(8, 16), torch.randn(3, 8, 6, 5)
    expected = module(x)
    torch.testing.assert_close(module(x.to(memory_format=torch.channels_last)), expected)
    torch.testing.assert_close(module(x.transpose(2, 3).contiguous().transpose(2, 3)), expected)
    module.to(memory_format=torch.channels_last)
    torch.testing.assert_close(module(x.to(memory_format=torch.channels_last)), expected)


def test_gradcheck_in_float64():
    module = randomised(2, 4, kernel_att=3, head=2, stride=2).double()
    x = torch.randn(1, 2, 3, 5, dtype=torch.float64, requires_grad=True)
    names, values = zip(*module.named_parameters(), strict=True)
    values = [v.detach().clone().requires_grad_() for v in values]

    def run(x, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(run, (x, *values))


def test_empty_batch():
    module = ACmix(4, 8, stride=2)
    empty = module(torch.zeros(0, 4, 5, 7))
    assert empty.shape == (0, 8, 3, 4)
    empty.sum().backward()
    assert module.conv1.weight.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (
            {"kernel_att": 6},
            ValueError,
            "kernel_att must be odd.*6 came.*kernel_att=5 or kernel_att=7",
        ),
        ({"kernel_att": 0}, ValueError, "kernel_att must be at least 1"),
        ({"kernel_att": -3}, ValueError, "kernel_att must be at least 1, but -3"),
        ({"kernel_att": 7.0}, TypeError, r"kernel_att must be a whole number.*7.0 \(float\)"),
        ({"kernel_att": True}, TypeError, "kernel_att must be a whole number"),
        ({"head": torch.ones(9, 9)}, TypeError, r"but a tensor of shape \[9, 9\] \(Tensor\)"),
        ({"kernel_conv": 2}, ValueError, "kernel_conv must be odd"),
        ({"kernel_conv": "3"}, TypeError, "kernel_conv must be a whole number"),
        ({"head": 3}, ValueError, "out_planes must be divisible by head.*out_planes=9"),
        ({"head": 0}, ValueError, "head must be at least 1"),
        ({"head": -1}, ValueError, "head must be at least 1"),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"dilation": 0}, ValueError, "dilation must be at least 1"),
        ({"in_planes": 0}, ValueError, "in_planes must be at least 1"),
        ({"out_planes": 8.0}, TypeError, "out_planes must be a whole number"),
    ],
)
def test_bad_arguments_are_named(arguments, error, says):
    with pytest.raises(error, match=says):
        ACmix(**{"in_planes": 8, "out_planes": 8, **arguments})


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: m(x),
        lambda m, x: m.explain(x),
        lambda m, x: m.norm_share(x),
        lambda m, x: m.effective_kernels(x, 0, 0),
    ],
)
@pytest.mark.parametrize(
    ("x", "error", "says"),
    [
        (torch.ones(1, 3, 5, 5), ValueError, r"x must have 4 channels.*\[1, 3, 5, 5\].*has 3\.$"),
        (torch.ones(1, 5, 5, 4), ValueError, r"permute\(0, 3, 1, 2\)"),
        (torch.ones(4, 5, 5), ValueError, r"x must have the shape \[B, C, H, W\].*unsqueeze\(0\)"),
        (torch.ones(1, 4, 5), ValueError, "x must have the shape"),
        (torch.ones(1, 4, 0, 5), ValueError, "at least one channel and one pixel"),
        (torch.ones(1, 4, 5, 5, dtype=torch.uint8), TypeError, r"torch.uint8.*x\.float\(\)"),
        (torch.ones(1, 4, 5, 5, dtype=torch.complex64), TypeError, "torch.complex64"),
        (
            torch.ones(1, 4, 5, 5).double(),
            TypeError,
            "dtype of the module, torch.float32.*float64 came",
        ),
        (torch.ones(1, 4, 5, 5).numpy(), TypeError, "x must be a torch.Tensor, but a ndarray"),
        (torch.ones(1, 4, 5, 5, device="meta"), ValueError, r"x must be on.*cpu.*is on meta"),
        (torch.ones(1, 4, 5, 5).to_sparse(), TypeError, r"x must be a dense.*to_dense\(\)"),
        (None, TypeError, "x must be a torch.Tensor, but a NoneType"),
        ([torch.ones(4, 5, 5)], TypeError, r"but a list came; join .*torch\.stack\(x\)"),
        (torch.ones(1, 4, 5, 5).to(torch.float8_e4m3fn), TypeError, r"float8_e4m3fn; .*float\(\)"),
    ],
)
def test_bad_input_is_named(call, x, error, says):
    with pytest.raises(error, match=says):
        call(ACmix(4, 8), x)


def test_state_of_another_shape_says_what_it_was_saved_from():
    """As PyTorch does: one RuntimeError for all that does not fit in a model."""
    module, other = ACmix(8, 16, head=2), ACmix(8, 16, head=4, kernel_conv=5)
    says = r"(?s)The module is ACmix\(8, 16.*head=4, kernel_conv=5.*size mismatch for conv_p.weight"
    with pytest.raises(RuntimeError, match=says):
        module.load_state_dict(other.state_dict())
    net = torch.nn.Sequential(module)
    state = {f"0.{name}": value for name, value in ACmix(4, 16, head=2).state_dict().items()}
    with pytest.raises(RuntimeError, match=r"(?s)0 is ACmix.*in_planes=4.*0.conv1.weight"):
        net.load_state_dict(state)
    with pytest.raises(RuntimeError, match="Missing key"):
        module.load_state_dict({})


def test_effective_kernels_refuse_what_is_no_pixel():
    module = ACmix(4, 8, stride=2)
    with pytest.raises(ValueError, match=r"pixel of the 3×3 output, but \(3, 0\)"):
        module.effective_kernels(torch.ones(1, 4, 5, 5), 3, 0)
    with pytest.raises(ValueError, match=r"one image.*x\[:1\]"):
        module.effective_kernels(torch.ones(2, 4, 5, 5), 0, 0)

    for pixel in ((-1, 0), (0, -1)):
        with pytest.raises(ValueError, match=r"[ij] must be at least 0"):
            module.effective_kernels(torch.ones(1, 4, 5, 5), *pixel)
    with pytest.raises(ValueError, match=r"pixel of the 3×3 output, but \(0, 3\)"):
        module.effective_kernels(torch.ones(1, 4, 5, 5), 0, 3)
    for pixel in ((True, 0), (1.0, 0), (None, 0)):
        with pytest.raises(TypeError, match="i must be a whole number"):
            module.effective_kernels(torch.ones(1, 4, 5, 5), *pixel)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m, f: m.attention_path(f, f[:1], f), ValueError, "q and k must have one shape"),
        (lambda m, f: m.convolution_path(f, f, f[:, :4]), ValueError, "v must have 8 channels"),
        (lambda m, f: m.convolution_path(f, f.double(), f), TypeError, "k must have the dtype"),
        (lambda m, f: m.attention_path(None, f, f), TypeError, "q must be a torch.Tensor"),
        (lambda m, f: m.position_term(f[0]), ValueError, r"q must have the shape \[B, C, H, W\]"),
        (lambda m, f: m.mix(f, f[:1]), ValueError, "out_att and out_conv must have one shape"),
        (lambda m, f: m.mix(f, f.double()), TypeError, "out_conv must have the dtype of out_att"),
    ],
)
def test_the_stages_name_their_maps(call, error, says):
    with pytest.raises(error, match=says):
        call(ACmix(4, 8), torch.ones(2, 8, 5, 5))


def test_what_a_forward_pass_checks():
    """Each map where a public method takes it, and none again in what computes."""
    module, x, calls = ACmix(4, 8), torch.ones(2, 4, 5, 5), Counter()

    def count(frame, event, _):
        if event == "call" and frame.f_code.co_filename == checks.__file__:
            calls[frame.f_code.co_name] += 1

    sys.setprofile(count)
    try:
        module(x)
    finally:
        sys.setprofile(None)
    # x; q, k, v in each path; q in position_term; and what mix takes
    assert calls["feature_map"] == 1 + 3 + 1 + 3
    assert calls["floating"] == calls["feature_map"] + 2


def test_integers_of_numpy_are_integers():
    # in int8 13² would be −87, and 64 · 9 would be 64
    sizes = np.array([64, 64, 13, 4, 3, 1, 1], dtype=np.int8)
    module = ACmix(*sizes)
    assert module.extra_repr() == ACmix(64, 64, 13).extra_repr()
    assert all(type(value) is int for value in (module.head_dim, module.kernel_att, module.stride))
    x = torch.randn(1, 64, 3, 3)
    assert module(x).shape == x.shape


def test_second_derivatives():
    module = randomised(2, 4, kernel_att=3, head=2).double()
    x = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(module, x)


def test_default_dtype_and_inference_mode():
    torch.set_default_dtype(torch.float64)
    try:
        module, x = ACmix(4, 8, stride=2), torch.randn(2, 4, 5, 5)
    finally:
        torch.set_default_dtype(torch.float32)
    expected = module(x)
    with torch.inference_mode():
        assert torch.equal(module(x), expected) and expected.dtype == torch.float64


def test_inputs_stay_as_they_were():
    module, x = randomised(4, 8), torch.randn(2, 4, 5, 5)
    before = x.clone()
    steps = module.explain(x)
    kept = {name: value.clone() for name, value in steps.items()}
    module.norm_share(x)
    module.effective_kernels(x[:1], 2, 2)
    module.attention_path(steps["q"], steps["k"], steps["v"])
    module.mix(steps["out_att"], steps["out_conv"])
    assert torch.equal(x, before)
    assert all(torch.equal(steps[name], value) for name, value in kept.items())


def test_images_of_a_batch_do_not_mix():
    module, x = randomised(3, 6, head=3, stride=2).double(), torch.randn(3, 3, 6, 5).double()
    torch.testing.assert_close(module(x), torch.cat([module(image[None]) for image in x]))


def test_positional_arguments_are_in_the_published_order():
    module = ACmix(8, 12, 5, 3, 1, 2, 4)
    assert module.extra_repr() == "8, 12, kernel_att=5, head=3, kernel_conv=1, stride=2, dilation=4"
    assert split_heads(torch.ones(1, 12, 2, 2), module.head).shape[2] == module.head_dim == 4


@pytest.mark.parametrize("stride", [1, 2])
def test_the_positional_arguments_of_a_convolution_are_warned_of(stride):
    with pytest.warns(UserWarning, match=rf"sees a single pixel.*stride={stride}\)\.") as warned:
        assert ACmix(8, 8, 3, stride, 1).head == stride
    assert warned[0].filename == __file__  # the caller's line


def test_norm_share_does_not_overflow_in_half_precision():
    layer, x = ACmix(8, 16), 80 * torch.randn(4, 8, 40, 40)
    share = layer.half().norm_share(x.half())
    torch.testing.assert_close(share, layer.float().norm_share(x), rtol=0.02, atol=0)


def test_what_was_made_on_the_meta_device_starts_as_usual():
    """Every module that owns parameters has reset_parameters, as sharded training expects."""
    with torch.device("meta"):
        layer = ACmix(8, 8)
    layer.to_empty(device="cpu")
    for parameter in layer.parameters():
        parameter.data.fill_(torch.nan)
    for module in layer.modules():
        assert hasattr(module, "reset_parameters")
        module.reset_parameters()
    assert all(p.isfinite().all() for p in layer.parameters())
    assert layer.rate1.item() == layer.rate2.item() == 0.5
    assert torch.equal(layer.dep_conv.weight, ACmix(8, 8).dep_conv.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_device_and_dtype_are_those_asked_for(dtype):
    layer = ACmix(8, 8, dtype=dtype, device="cpu")
    assert {p.dtype for p in layer.parameters()} == {dtype}
    assert layer(torch.randn(1, 8, 5, 5, dtype=dtype)).dtype == dtype
    assert torch.equal(layer.dep_conv.weight, ACmix(8, 8).dep_conv.weight.to(dtype))
    assert all(p.is_meta for p in ACmix(8, 8, device="meta").parameters())


@pytest.mark.parametrize(("kind", "sizes"), [(ACmix, (8, 8)), (LearnableShift, (8, 5))])
def test_initialisation_can_be_skipped(kind, sizes):
    layer, whole = torch.nn.utils.skip_init(kind, *sizes), kind(*sizes)
    layer.load_state_dict(whole.state_dict())
    assert all(map(torch.equal, layer.parameters(), whole.parameters()))
    for dtype in (torch.int64, torch.complex64, torch.float8_e5m2, "float32"):
        with pytest.raises(TypeError, match=f"dtype must be a floating-point.*{dtype}.* came"):
            kind(*sizes, dtype=dtype)


def test_shards_start_as_the_whole():
    """As after ``fully_shard`` on the meta device, with one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        layer = ACmix(8, 8).dep_conv
        whole = layer.weight.detach().clone()
        layer.weight.data.fill_(torch.nan)
        shard = distribute_tensor(layer.weight.data, init_device_mesh("cpu", (1,)), [Shard(0)])
        layer.weight = torch.nn.Parameter(shard)
        layer.reset_parameters()
        assert torch.equal(layer.weight.full_tensor(), whole)
    finally:
        dist.destroy_process_group()


def test_a_state_is_checked_without_being_saved():
    layer, saved = ACmix(4, 4), []
    layer.register_state_dict_post_hook(lambda *_: saved.append(1))
    layer.load_state_dict(ACmix(4, 4).state_dict())
    assert not saved


def test_float64_beside_float32_is_refused_under_autocast_too():
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=r"float32\)\.$"):
        ACmix(4, 4)(torch.randn(1, 4, 5, 5).double())
