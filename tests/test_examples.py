"""What the chapters are made from, and the exercises' judge."""

import pytest
import torch
import torch.nn.functional as F

from acmix_edu import windows
from acmix_edu.examples import (
    PHOTOGRAPHS,
    SHARPNESS,
    colour_acmix,
    colour_features,
    photograph,
    small_kernel,
    small_map,
)
from acmix_edu.exercises import check, check_function


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_are_real(name):
    picture = photograph(name, 32)
    assert picture.shape == (1, 3, 32, 32)
    assert 0 <= picture.min() < 0.2 and 0.7 < picture.max() <= 1
    assert picture.std() > 0.15


def test_photograph_says_what_there_is():
    with pytest.raises(ValueError, match="china, flower, grace_hopper, but 'lenna'"):
        photograph("lenna")
    with pytest.raises(TypeError, match="size must be a whole number"):
        photograph("china", 32.0)


def test_colour_features_measure_likeness_by_dot_product():
    a, b = torch.rand(2, 3, 40, 50)
    f, g = colour_features(a), colour_features(b)
    torch.testing.assert_close(f[:3], a - 0.5)
    torch.testing.assert_close(f.square().sum(0), torch.full((40, 50), 3.0))
    far = 2 * (3 - (f * g).sum(0)) / (a - b).square().sum(0)
    assert 1 - 1e-3 < far.min() and far.max() < 4 / 3
    with pytest.raises(ValueError, match="image must be"):
        colour_features(torch.rand(4, 5, 5))


def test_colour_acmix_is_bilateral_filters_and_a_laplacian():
    picture = photograph("flower", 16)
    module = colour_acmix(kernel_att=5)
    features = colour_features(picture)
    near = windows(features, 5)
    distance = (near - features.unsqueeze(2)).square().sum(1)
    steps = module.explain(features)
    for n, sharpness in enumerate(SHARPNESS):
        weights = (-sharpness * distance).softmax(1)
        torch.testing.assert_close(steps["att"][:, n], weights, rtol=1e-3, atol=1e-5)
        filtered = (weights.unsqueeze(1) * near).sum(2)
        torch.testing.assert_close(
            steps["out_att"][:, 4 * n : 4 * n + 4], filtered, rtol=1e-3, atol=1e-4
        )
    laplacian = torch.full((1, 1, 3, 3), -1 / 8)
    laplacian[..., 1, 1] = 1
    red = F.conv2d(picture[:, :1] - 0.5, laplacian, padding=1)
    torch.testing.assert_close(
        steps["out_conv"][:, :4], red.expand(-1, 4, -1, -1), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        (3, 3, True),
        (3.0, 3, False),
        (0.333333, 1 / 3, True),
        (0.34, 1 / 3, False),
        ("yes", "yes", True),
        ((1, 2), (1, 2), True),
        ((1, 2, 3), (1, 2), False),
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(1), torch.ones(2), False),
        (torch.ones(2) * 1.01, torch.ones(2), False),
        (1.0, torch.ones(()), False),
        (..., 3, False),
    ],
)
def test_check_judges(answer, expected, right, capsys):
    assert check(answer, expected, hint="Think.") is right
    said = capsys.readouterr().out
    assert ("Right" in said) == right
    assert ("Think." in said) == (not right and answer is not ...)


def test_check_function_judges(capsys):
    inputs = [(small_map(), 1), (small_kernel(), 2)]
    assert check_function(lambda f, n: f * n, torch.mul, *inputs)
    assert not check_function(lambda f, n: f + n, torch.mul, *inputs, hint="Multiply.")
    assert not check_function(lambda f: f, torch.mul, *inputs)
    assert not check_function(..., torch.mul, *inputs)
    said = capsys.readouterr().out
    assert (
        "2 of 2" in said and "Multiply." in said and "TypeError" in said and "Not answered" in said
    )
