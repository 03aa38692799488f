"""The shift as a convolution: one-hot kernels, one grouped convolution, the learnable layer."""

import pytest
import torch
import torch.nn.functional as F

from acmix_edu import (
    LearnableShift,
    pointwise_maps,
    shift,
    shift_and_sum,
    shift_and_sum_grouped,
    shift_depthwise,
    shift_kernel,
    shift_kernels,
)


@pytest.mark.parametrize("displacement", [(0, 0), (-1, -1), (1, 0), (2, -3)])
def test_depthwise_shift_is_the_shift(displacement):
    f = torch.randn(2, 3, 5, 7)
    assert torch.equal(shift_depthwise(f, *displacement), shift(f, *displacement))


def test_shift_kernels_are_in_reading_order():
    kernels = shift_kernels(5)
    assert kernels.sum() == 25
    for t in range(25):
        assert kernels[t, t // 5, t % 5] == 1
        assert torch.equal(kernels[t], shift_kernel(t // 5 - 2, t % 5 - 2, 5))


@pytest.mark.parametrize("size", [1, 3, 5])
def test_grouped_convolution_shifts_and_sums(size):
    maps = pointwise_maps(torch.randn(2, 3, 6, 7), torch.randn(4, 3, size, size))
    torch.testing.assert_close(shift_and_sum_grouped(maps, size), shift_and_sum(maps, size))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_learnable_shift_starts_as_shift_and_sum(stride):
    layer = LearnableShift(dims=2, kernel_size=3, kernels=4, stride=stride)
    maps = torch.randn(2, 9, 2, 7, 5)
    out = layer(maps.transpose(1, 2).flatten(1, 2)).unflatten(1, (2, 4))
    expected = shift_and_sum(maps, 3, stride=stride)
    for n in range(4):  # dimension-major: the N outputs of a dimension lie side by side
        torch.testing.assert_close(out[:, :, n], expected)


def test_learnable_shift_gives_every_output_its_own_kernels():
    layer = LearnableShift(dims=3, kernel_size=3, kernels=2).double()
    torch.nn.init.normal_(layer.weight)
    maps = torch.randn(1, 27, 5, 4, dtype=torch.float64)
    out = layer(maps)
    for e in range(3):
        for n in range(2):
            kernel = layer.weight[2 * e + n]
            by_hand = F.conv2d(maps[:, 9 * e : 9 * e + 9], kernel[None], padding=1)
            torch.testing.assert_close(out[:, 2 * e + n], by_hand[:, 0])


def test_learnable_shift_survives_the_usual_initialisation():
    layer = LearnableShift(dims=2)
    for module in layer.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    assert torch.equal(layer.weight, shift_kernels(3).expand(2, 9, 3, 3))
    weight = torch.nn.init.zeros_(layer.weight)
    layer.reset_parameters()
    assert layer.weight is weight  # the one that an optimiser holds
    assert layer.weight.sum() == 18


def test_learnable_shift_gradcheck():
    layer = LearnableShift(dims=1, kernel_size=3, kernels=2, stride=2).double()
    maps = torch.randn(1, 9, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = layer.weight.detach().clone().requires_grad_()
    run = lambda maps, weight: torch.func.functional_call(layer, {"weight": weight}, maps)  # noqa: E731
    assert torch.autograd.gradcheck(run, (maps, weight))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: shift_kernel(2, 0, 3), "at least 5 to reach"),
        (lambda: shift_kernels(4), "kernel_size must be odd"),
        (lambda: shift_and_sum_grouped(torch.ones(1, 4, 2, 3, 3), 3), r"\[B, 9, C, H, W\]"),
        (lambda: LearnableShift(0), "dims must be at least 1"),
        (lambda: LearnableShift(2)(torch.ones(1, 9, 3, 3)), "maps must have 18 channels"),
        (lambda: shift_depthwise(torch.ones(3, 3), 1, 1), r"f must have the shape \[B, C, H, W\]"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: shift_kernel(1.0, 0), "di must be a whole number of pixels, but 1.0"),
        (lambda: shift_kernel(0, None), "dj must be a whole number of pixels"),
        (lambda: shift_depthwise(torch.ones(1, 1, 3, 3), 1, "2"), "dj must be a whole number"),
        (lambda: LearnableShift(1)(torch.ones(1, 9, 3, 3).half()), "maps must have the dtype of"),
    ],
)
def test_bad_types_are_named(call, says):
    with pytest.raises(TypeError, match=says):
        call()
