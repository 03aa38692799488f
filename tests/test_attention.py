"""Attention over windows, against numpy's reflection, plain loops and dense masked softmax."""

import math

import numpy as np
import pytest
import torch

from acmix_edu import (
    aggregate,
    entropy,
    global_attention,
    local_attention,
    local_attention_weights,
    patchwise_attention,
    position_map,
    reflect_indices,
    reflect_pad,
    split_heads,
    window_attention,
    windows,
)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("pad", [0, 1, 3, 7, 24])
def test_reflection_is_numpys(size, pad):
    expected = np.pad(np.arange(size), pad, mode="reflect")
    assert reflect_indices(size, pad).tolist() == expected.tolist()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_reflection_divides_no_negative_number(size, monkeypatch):
    """Runtimes of exported graphs do not agree on how to round −3 / 4 down."""
    divide = torch.Tensor.div
    monkeypatch.setattr(
        torch.Tensor, "div", lambda a, b, rounding_mode: divide(a, b, rounding_mode="trunc")
    )
    expected = np.pad(np.arange(size), 11, mode="reflect")
    assert reflect_indices(size, 11).tolist() == expected.tolist()


def test_reflect_pad_pads_rows_and_columns():
    f = torch.randn(2, 3, 2, 5)
    expected = np.pad(f.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)), mode="reflect")
    assert np.array_equal(reflect_pad(f, 4).numpy(), expected)


@pytest.mark.parametrize("size", [(5, 7), (1, 4), (2, 2)])
@pytest.mark.parametrize(("k", "stride", "dilation"), [(3, 1, 1), (5, 2, 1), (3, 1, 3), (3, 3, 2)])
def test_windows_by_loop(size, k, stride, dilation):
    f = torch.randn(2, 3, *size)
    reach = dilation * (k // 2)
    padded = np.pad(f.numpy(), ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="reflect")
    out = windows(f, k, stride, dilation)
    assert out.shape == (2, 3, k * k, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
    for i in range(out.shape[-2]):
        for j in range(out.shape[-1]):
            for p in range(k):
                for q in range(k):
                    pixel = padded[:, :, i * stride + p * dilation, j * stride + q * dilation]
                    assert np.array_equal(out[:, :, p * k + q, i, j].numpy(), pixel)


def attention_by_loop(q, k, v, size, pe=None, stride=1, dilation=1):
    """Local attention as plain loops over numpy arrays, one head: [d, H, W]."""
    d, height, width = q.shape
    pe = np.zeros_like(q) if pe is None else pe
    reach = dilation * (size // 2)
    rows = np.pad(np.arange(height), reach, mode="reflect")
    columns = np.pad(np.arange(width), reach, mode="reflect")
    out = np.zeros((v.shape[0], -(-height // stride), -(-width // stride)))
    for i in range(0, height, stride):
        for j in range(0, width, stride):
            near = [(rows[i + a * dilation], columns[j + b * dilation])
                    for a in range(size) for b in range(size)]  # fmt: skip
            logits = np.array([
                q[:, i, j] @ (k[:, y, x] + pe[:, i, j] - pe[:, y, x]) / math.sqrt(d)
                for y, x in near
            ])  # fmt: skip
            weights = np.exp(logits - logits.max())
            weights /= weights.sum()
            out[:, i // stride, j // stride] = sum(
                a * v[:, y, x] for a, (y, x) in zip(weights, near, strict=True)
            )
    return out


@pytest.mark.parametrize("size", [(6, 5), (1, 3), (2, 7)])
@pytest.mark.parametrize(("k", "stride", "dilation"), [(3, 1, 1), (7, 2, 1), (3, 1, 2), (5, 3, 3)])
@pytest.mark.parametrize("position", [False, True])
def test_local_attention_by_loop(size, k, stride, dilation, position):
    q, key, v = torch.randn(3, 4, *size, dtype=torch.float64)
    pe = torch.randn(4, *size, dtype=torch.float64) if position else None
    ours = local_attention(q, key, v, k, pe, stride, dilation)
    arrays = (q.numpy(), key.numpy(), v.numpy(), k, None if pe is None else pe.numpy())
    expected = torch.from_numpy(attention_by_loop(*arrays, stride, dilation))
    torch.testing.assert_close(ours, expected)


def test_window_over_the_whole_map_is_masked_dense_attention():
    """An odd map, a window that covers it: each key counts as often as reflection repeats it."""
    q, k, v = torch.randn(3, 2, 4, 5, 5, dtype=torch.float64)
    rows = np.stack([np.bincount(np.pad(np.arange(5), 4, mode="reflect")[i : i + 9], minlength=5)
                     for i in range(5)])  # fmt: skip
    times = torch.from_numpy(np.einsum("iy,jx->ijyx", rows, rows)).flatten(2).flatten(0, 1)
    tokens = [f.flatten(-2).mT for f in (q, k, v)]
    logits = tokens[0] @ tokens[1].mT / 2 + times.log()
    expected = (logits.softmax(-1) @ tokens[2]).mT.unflatten(-1, (5, 5))
    torch.testing.assert_close(local_attention(q, k, v, 9), expected)


def test_weights_sum_to_one_and_position_query_term_cancels():
    q, k, pe = torch.randn(3, 2, 4, 5, 6, dtype=torch.float64)
    weights = local_attention_weights(q, k, 5, pe)
    torch.testing.assert_close(weights.sum(-3), torch.ones(2, 5, 6, dtype=torch.float64))
    torch.testing.assert_close(weights, local_attention_weights(q, k - pe, 5))
    shifted = local_attention_weights(q, k, 5, pe + torch.randn(2, 4, 1, 1))
    torch.testing.assert_close(weights, shifted)


def test_heads_do_not_mix():
    q, k, v = torch.randn(3, 1, 12, 5, 5)
    heads = [split_heads(f, 3) for f in (q, k, v)]
    together = local_attention(*heads, 3)
    for n in range(3):
        one = local_attention(*(f[:, 4 * n : 4 * n + 4] for f in (q, k, v)), 3)
        torch.testing.assert_close(together[:, n], one)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(
        local_attention(*(f[:, order] for f in heads), 3), together[:, order]
    )


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_large_logits_stay_finite(scale):
    q, v = torch.randn(2, 1, 4, 5, 5)
    assert local_attention(q * scale, q, v, 3).isfinite().all()


def test_gradcheck():
    maps = torch.randn(4, 2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda m: local_attention(m[0], m[1], m[2], 5, m[3], 2, 1), maps
    )


def test_global_attention_is_a_softmax_over_all_pixels():
    q, k, v = torch.randn(3, 2, 4, 3, 5, dtype=torch.float64)
    logits = torch.einsum("ndij,ndab->nijab", q, k) / 2
    weights = logits.flatten(-2).softmax(-1).unflatten(-1, (3, 5))
    expected = torch.einsum("nijab,ndab->ndij", weights, v)
    torch.testing.assert_close(global_attention(q, k, v), expected)


@pytest.mark.parametrize("window", [1, 2, 3, 4, 9])
def test_window_attention_is_masked_global_attention(window):
    q, k, v = torch.randn(3, 2, 4, 7, 5, dtype=torch.float64)
    block = (torch.arange(7)[:, None] // window * 100 + torch.arange(5) // window).flatten()
    tokens = [f.flatten(-2).mT for f in (q, k, v)]
    logits = (tokens[0] @ tokens[1].mT / 2).masked_fill(block[:, None] != block, -torch.inf)
    expected = (logits.softmax(-1) @ tokens[2]).mT.unflatten(-1, (7, 5))
    torch.testing.assert_close(window_attention(q, k, v, window), expected)


def test_patchwise_attention_gives_phi_the_query_and_its_window():
    q, k, v = torch.randn(3, 2, 3, 5, 4)
    seen = {}

    def phi(features):
        seen["features"] = features
        return torch.cat([features[:, :1], torch.zeros(2, 8, 5, 4)], dim=1)

    out = patchwise_attention(q, k, v, 3, phi)
    assert torch.equal(seen["features"][:, :3], q)
    for t in range(9):
        assert torch.equal(seen["features"][:, 3 + 3 * t : 6 + 3 * t], windows(k, 3)[:, :, t])
    torch.testing.assert_close(out, q[:, :1] * windows(v, 3)[:, :, 0])


def test_entropy_runs_from_one_key_to_all():
    one = torch.zeros(9, 1, 1)
    one[4] = 1
    assert entropy(one).item() == 0
    torch.testing.assert_close(entropy(torch.full((25, 2, 2), 1 / 25)), torch.ones(2, 2))


def test_entropy_of_a_weight_that_vanishes_has_gradients():
    logits = torch.tensor([0.0, -200, 1])[:, None, None].requires_grad_()
    two = torch.tensor([0.0, 1])[:, None, None].requires_grad_()
    for f in (logits, two):
        entropy(f.softmax(0)).sum().backward()
    expected = two.grad * math.log(2) / math.log(3)  # of two keys, in units of three
    torch.testing.assert_close(logits.grad[::2], expected)
    assert logits.grad[1] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_position_map_is_the_same_in_every_dtype(dtype):
    loc = position_map(5, 3, dtype=dtype)
    assert loc.shape == (1, 2, 5, 3) and loc.dtype == dtype
    assert loc[0, 0, 2].tolist() == [-1, 0, 1]
    assert loc[0, 1, :, 1].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert position_map(1, 1).tolist() == [[[[-1]], [[-1]]]]
    exact = position_map(3, 301, dtype=torch.float64)
    rounding = position_map(3, 301, dtype=dtype).double() - exact  # one, not one a step
    assert (rounding.abs() <= 0.501 * torch.finfo(dtype).eps * exact.abs() + 1e-6).all()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: local_attention(m, m, m, 4), ValueError, "kernel_size must be odd"),
        (lambda m: local_attention(m, m[:1], m, 3), ValueError, "q and k must have one shape"),
        (lambda m: local_attention(m, m, m[..., :3], 3), ValueError, "q and v must have one shape"),
        (lambda m: local_attention(m, m, m, 3, pe=m[:2]), ValueError, "pe must have the shape"),
        (lambda m: local_attention(m, m, m, 3, stride=0), ValueError, "stride must be at least 1"),
        (lambda m: local_attention(m.int(), m, m, 3), TypeError, "q must hold floating-point"),
        (lambda m: windows(m[0], 3), ValueError, r"\[\.\.\., C, H, W\]"),
        (lambda m: split_heads(m[None], 3), ValueError, "head=3 equal parts"),
        (lambda m: window_attention(m, m, m, 0), ValueError, "window_size must be at least 1"),
        (
            lambda m: global_attention(m, m, m[..., :2]),
            ValueError,
            "q and v must have one shape.*but for d",
        ),
        (lambda m: aggregate(m[:3], m, 3), ValueError, "weights must be"),
        (
            lambda m: aggregate(torch.ones(2, 9, 5, 5), m.expand(3, 4, 5, 5), 3),
            ValueError,
            "weights and v must agree",
        ),
        (lambda m: aggregate(torch.ones(9, 5, 5), m.double(), 3), TypeError, "v must have the d"),
        (lambda m: local_attention(m, m, m, 3, pe=m[None]), ValueError, "pe must have the shape"),
        (lambda m: local_attention(m, m, m, 3, pe=m.double()), TypeError, "pe must have the dtype"),
        (lambda m: local_attention(m[None], m[None], m, 3), ValueError, "q and v must have one"),
        (lambda m: local_attention(m, m.half(), m, 3), TypeError, "k must have the dtype of q"),
        (lambda m: global_attention(m, m, m.double()), TypeError, "v must have the dtype of q"),
        (lambda m: global_attention(m, m, m[0]), ValueError, "q and v must have one shape"),
        (lambda m: global_attention(*[m[..., :0]] * 3), ValueError, "no side 0"),
        (lambda m: window_attention(m, m, m.to("meta"), 2), ValueError, "v must be on the device"),
        (lambda m: patchwise_attention(m, m, m, 3, None), TypeError, "phi must be a module"),
        (lambda m: patchwise_attention(m, m, m, 3, lambda x: x), ValueError, "phi must return"),
        (lambda m: patchwise_attention(m, m, m, 3, repr), TypeError, r"phi\(\.\.\.\) must be a"),
        (lambda m: aggregate(torch.ones(9, 5, 5), m.long(), 3), TypeError, "v must hold floating"),
        (lambda m: windows(m[0], 3), ValueError, "f must have the shape"),
        (lambda m: windows(m.cfloat(), 3), TypeError, r"take f\.abs\(\) or f\.real"),
        (lambda m: entropy(m[:1]), ValueError, "weights must have.*at least two keys"),
        (lambda m: entropy(m[0]), ValueError, "weights must have the shape"),
        (lambda m: split_heads(m, 2), ValueError, "f must have the shape"),
        (lambda m: split_heads(None, 2), TypeError, "f must be a torch.Tensor"),
        (lambda m: reflect_pad(m.int(), 1), TypeError, "f must hold floating-point"),
        (lambda m: reflect_pad(m[:, :0], 1), ValueError, "f must have.*no side 0"),
        (lambda m: reflect_pad(m, -1), ValueError, "pad must be at least 0"),
        (lambda m: reflect_indices(0, 1), ValueError, "size must be at least 1"),
        (lambda m: reflect_indices(2.0, 1), TypeError, "size must be a whole number"),
        (lambda m: position_map(0, 1), ValueError, "height must be at least 1"),
        (lambda m: position_map(1, "2"), TypeError, "width must be a whole number"),
        (lambda m: position_map(1, 2, dtype=torch.int64), TypeError, "dtype must be a floating"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call(torch.randn(4, 5, 5))
