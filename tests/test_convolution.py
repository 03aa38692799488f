"""Stage I and the definition, against F.conv2d."""

import pytest
import torch
import torch.nn.functional as F

from acmix_edu import conv2d_by_definition, pointwise_maps


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (5, 3)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 3), (1, 7)])
def test_definition_is_conv2d(size, kernel):
    f, weight = torch.randn(2, 3, *size).double(), torch.randn(4, 3, *kernel).double()
    expected = F.conv2d(f, weight, padding=(kernel[0] // 2, kernel[1] // 2))
    torch.testing.assert_close(conv2d_by_definition(f, weight), expected)


def test_pointwise_maps_are_numbered_row_by_row():
    f, weight = torch.randn(2, 3, 4, 6), torch.randn(5, 3, 2, 3)
    maps = pointwise_maps(f, weight)
    assert maps.shape == (2, 6, 5, 4, 6)
    for p in range(2):
        for q in range(3):
            by_hand = torch.einsum("oi,bihw->bohw", weight[:, :, p, q], f)
            torch.testing.assert_close(maps[:, 3 * p + q], by_hand)


def test_stage_one_looks_at_no_neighbour():
    f = torch.randn(1, 2, 5, 5, requires_grad=True)
    pointwise_maps(f, torch.randn(3, 2, 3, 3))[..., 2, 3].sum().backward()
    touched = f.grad.abs().sum((0, 1)) > 0
    assert touched.nonzero().tolist() == [[2, 3]]


@pytest.mark.parametrize("size", [(2, 3), (3, 4)])
def test_definition_needs_a_centre(size):
    with pytest.raises(ValueError, match=r"odd sides.*decomposed_conv2d"):
        conv2d_by_definition(torch.ones(1, 2, 5, 5), torch.ones(1, 2, *size))


def test_definition_is_differentiable():
    f = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(2, 2, 3, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv2d_by_definition, (f, kernel))
    assert torch.autograd.gradcheck(pointwise_maps, (f, kernel))


@pytest.mark.parametrize("function", [conv2d_by_definition, pointwise_maps])
@pytest.mark.parametrize(
    ("f", "kernel", "error", "says"),
    [
        (torch.ones(2, 3, 3), torch.ones(1, 2, 3, 3), ValueError, r"f must.*unsqueeze\(0\)"),
        (torch.ones(1, 2, 3, 3), torch.ones(1, 3, 3, 3), ValueError, "3 channels.*has 2"),
        (torch.ones(1, 2, 3, 3), torch.ones(3, 3), ValueError, "kernel must have the shape"),
        (torch.ones(1, 2, 3, 3).int(), torch.ones(1, 2, 3, 3), TypeError, r"f must.*\.float\(\)"),
        ([[1.0]], torch.ones(1, 2, 3, 3), TypeError, "f must be a torch.Tensor.*list"),
        (
            torch.ones(1, 2, 3, 3).double(),
            torch.ones(1, 2, 3, 3),
            TypeError,
            "kernel must have the dtype of f",
        ),
    ],
)
def test_bad_input_is_named(function, f, kernel, error, says):
    with pytest.raises(error, match=says):
        function(f, kernel)
