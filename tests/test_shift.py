"""Shift and shift-and-sum: direction, composition, adjoint, and F.conv2d in all its arguments."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from acmix_edu import ShiftLayer, decomposed_conv2d, pointwise_maps, shift, shift_and_sum
from acmix_edu.examples import small_kernel, small_map


def test_shift_follows_the_definition():
    f = torch.randn(2, 4, 6)
    for di in range(-7, 8):
        for dj in range(-7, 8):
            moved = shift(f, di, dj)
            for i in range(4):
                for j in range(6):
                    inside = 0 <= i + di < 4 and 0 <= j + dj < 6
                    expected = f[:, i + di, j + dj] if inside else torch.zeros(2)
                    assert torch.equal(moved[:, i, j], expected)


def test_shift_by_nothing_is_a_copy():
    f = torch.zeros(3, 3)
    shift(f, 0, 0).add_(1)
    assert f.sum() == 0


def test_shift_moves_along_rows_first():
    f = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert shift(f, 1, 0).tolist() == [[3, 4], [0, 0]]
    assert shift(f, 0, -1).tolist() == [[0, 1], [0, 3]]


def test_shifts_compose_where_nothing_left_the_map():
    f = torch.randn(9, 9)
    inner = shift(shift(f, 2, -1), 1, 3)[0:6, 1:6]
    torch.testing.assert_close(inner, shift(f, 3, 2)[0:6, 1:6])
    assert not torch.equal(shift(shift(f, 2, 0), -2, 0), f)


@pytest.mark.parametrize("displacement", [(0, 0), (1, -2), (-3, 3), (5, 0)])
def test_adjoint_is_the_shift_back(displacement):
    x, y = torch.randn(2, 5, 7, dtype=torch.float64), torch.randn(2, 5, 7, dtype=torch.float64)
    there = (shift(x, *displacement) * y).sum()
    back = (x * shift(y, -displacement[0], -displacement[1])).sum()
    torch.testing.assert_close(there, back)


def test_shift_is_differentiable_even_when_all_leaves():
    f = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: shift(f, 1, -1), f)
    shift(f, 5, 0).sum().backward()
    assert torch.equal(f.grad, torch.zeros(3, 3, dtype=torch.float64))


@pytest.mark.parametrize("size", [(7, 7), (8, 5), (13, 11)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 4), (5, 1)])
@pytest.mark.parametrize("stride", [1, 2, (3, 1)])
@pytest.mark.parametrize("padding", [0, 1, (3, 4), "valid"])
@pytest.mark.parametrize("dilation", [1, (1, 2)])
def test_decomposed_conv2d_is_conv2d(size, kernel, stride, padding, dilation):
    f, weight = torch.randn(2, 3, *size).double(), torch.randn(4, 3, *kernel).double()
    bias = torch.randn(4).double()
    arguments = {"stride": stride, "padding": padding, "dilation": dilation}
    if padding in (0, "valid") and kernel == (2, 4) and size == (8, 5) and dilation == (1, 2):
        with pytest.raises(ValueError, match=r"larger than the padded map.*pad more"):
            decomposed_conv2d(f, weight, bias, **arguments)
        return
    expected = F.conv2d(f, weight, bias, **arguments)
    torch.testing.assert_close(decomposed_conv2d(f, weight, bias, **arguments), expected)


@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (4, 1)])
@pytest.mark.parametrize("dilation", [1, 2, (3, 1)])  # 1: the spare pixel lies below and right
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_padding_same(kernel, dilation):
    f, weight = torch.randn(1, 2, 6, 7), torch.randn(3, 2, *kernel)
    expected = F.conv2d(f, weight, padding="same", dilation=dilation)
    ours = decomposed_conv2d(f, weight, padding="same", dilation=dilation)
    torch.testing.assert_close(ours, expected)


def test_gradients_are_those_of_conv2d():
    f = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 4, 3, 4, dtype=torch.float64)
    ours = torch.autograd.grad(
        decomposed_conv2d(f, weight, stride=2, padding=1), (f, weight), upstream
    )
    theirs = torch.autograd.grad(F.conv2d(f, weight, stride=2, padding=1), (f, weight), upstream)
    torch.testing.assert_close(ours, theirs)


def test_dtype_under_autocast_is_that_of_conv2d():
    f, weight, bias = torch.randn(1, 2, 7, 7), torch.randn(3, 2, 3, 3), torch.randn(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert decomposed_conv2d(f, weight, bias).dtype == F.conv2d(f, weight, bias).dtype


def test_small_example_by_hand():
    maps = pointwise_maps(small_map(), small_kernel())
    g = shift_and_sum(maps, 3)[0, 0]
    # at (1, 1): 5·9 + 6·9 + 8·9 + 9·5
    assert g[1, 1].item() == 5 * 9 + 6 * 9 + 8 * 9 + 9 * 5
    assert g[0, 0].item() == 9 * 9


def test_integers_of_numpy_are_integers():
    f, kernel, two = torch.randn(1, 1, 7, 7), torch.randn(1, 1, 3, 3), np.int8(2)
    expected = F.conv2d(f, kernel, stride=2, padding=2, dilation=2)
    ours = decomposed_conv2d(f, kernel, stride=two, padding=(two, 2), dilation=two)
    torch.testing.assert_close(ours, expected)
    assert torch.equal(shift(f, -two, two), shift(f, -2, 2))
    assert ShiftLayer(np.uint8(200), np.int8(13)).displacement(168) == (6, 6)  # in int8 13² = −87


def test_shift_layer_deals_out_displacements():
    layer = ShiftLayer(20, kernel_size=3, dilation=2)
    f = torch.randn(1, 20, 7, 7)
    out = layer(f)
    for channel in range(20):
        t = channel // 2 if channel < 18 else 4
        expected = shift(f[:, channel], 2 * (t // 3 - 1), 2 * (t % 3 - 1))
        assert torch.equal(out[:, channel], expected)
    assert list(layer.parameters()) == []


@pytest.mark.parametrize(
    ("call", "shape"),
    [(ShiftLayer(54), (1, 54, 5, 4)), (lambda maps: shift_and_sum(maps, 3), (1, 9, 6, 5, 4))],
)
def test_a_gradient_of_the_whole_input_is_made_once(call, shape):
    f = torch.randn(shape, requires_grad=True)
    nodes, reading = [call(f).grad_fn], 0
    for node in nodes:
        before = [n for n, _ in node.next_functions if n]
        nodes += [n for n in before if n not in nodes]
        reading += any(n.name().endswith("AccumulateGrad") for n in before)
    assert reading == 1


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: shift(torch.ones(3), 1, 1), ValueError, "f must have the shape"),
        (lambda: shift(torch.ones(3, 3), 0.5, 1), TypeError, "di must be a whole number"),
        (lambda: shift(torch.ones(3, 3).long(), 1, 1), TypeError, "dtype is torch.int64"),
        (lambda: shift_and_sum(torch.ones(1, 8, 2, 3, 3), 3), ValueError, r"\[B, 9, C, H, W\]"),
        (lambda: shift(torch.ones(3, 3), 1, True), TypeError, "dj must be a whole number"),
        (lambda: shift(torch.ones(3, 3), 1, 1, (3, -1)), ValueError, "size must be at least 0"),
        (lambda: shift(torch.ones(3, 3).to_sparse(), 1, 1), TypeError, "f must be a dense"),
        (lambda: ShiftLayer(9).displacement(9), ValueError, "channel must be from 0 to 8"),
        (lambda: ShiftLayer(9).displacement(-1), ValueError, "channel must be at least 0"),
        (lambda: ShiftLayer(8), ValueError, "channels must be at least kernel_size² = 9"),
        (lambda: ShiftLayer(16, 4), ValueError, "kernel_size must be odd.*3 or kernel_size=5"),
        (lambda: ShiftLayer(9)(torch.ones(1, 8, 3, 3)), ValueError, "9 channels"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"dilation": 1.5}, TypeError, "dilation must be a whole number"),
        ({"padding": -1}, ValueError, "padding must be at least 0"),
        ({"padding": "full"}, ValueError, "padding must be .*'full'"),
        ({"padding": "same", "stride": 2}, ValueError, "padding='same' needs stride=1"),
        ({"stride": (1, 2, 3)}, ValueError, "stride must be an int or a pair"),
        ({"bias": torch.ones(3)}, ValueError, r"bias must have the shape \[1\]"),
        ({"bias": torch.ones(1).double()}, TypeError, "bias must have the dtype of f"),
        ({"bias": 1.0}, TypeError, "bias must be a torch.Tensor"),
    ],
)
def test_decomposed_conv2d_names_the_argument(arguments, error, says):
    with pytest.raises(error, match=says):
        decomposed_conv2d(small_map(), small_kernel(), **arguments)
