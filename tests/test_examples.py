"""What the chapters are made from, and the exercises' judge."""

import base64
import json
import math
import re
from unittest.mock import patch

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import CASES

from acmix_edu import windows
from acmix_edu.examples import (
    PHOTOGRAPHS,
    SHARPNESS,
    _read,
    colour_acmix,
    colour_features,
    photograph,
    small_kernel,
    small_map,
)
from acmix_edu.exercises import check, check_function

matplotlib.use("Agg")


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_are_real(name):
    picture = photograph(name, 32)
    assert picture.shape == (1, 3, 32, 32)
    assert 0 <= picture.min() < 0.2 and 0.7 < picture.max() <= 1
    assert picture.std() > 0.15


@pytest.mark.parametrize("name", ["china", "grace_hopper"])  # wide, tall
def test_photographs_are_squares_from_the_middle(name):
    whole = torch.from_numpy(_read(name)).permute(2, 0, 1)[None] / 255
    height, width = whole.shape[2:]
    side = min(height, width)
    assert height != width
    middle = whole[..., (height - side) // 2 :, (width - side) // 2 :][..., :side, :side]
    torch.testing.assert_close(photograph(name, side), middle)


def test_photograph_says_what_there_is():
    with pytest.raises(ValueError, match="china, flower, grace_hopper, but 'lenna'"):
        photograph("lenna")
    with pytest.raises(TypeError, match="size must be a whole number"):
        photograph("china", 32.0)


def test_colour_features_measure_likeness_by_dot_product():
    a, b = torch.rand(2, 3, 40, 50)
    f, g = colour_features(a), colour_features(b)
    torch.testing.assert_close(f[:3], a - 0.5)
    assert f[3].min() > 0
    torch.testing.assert_close(f.square().sum(0), torch.full((40, 50), 3.0))
    far = 2 * (3 - (f * g).sum(0)) / (a - b).square().sum(0)
    assert 1 - 1e-3 < far.min() and far.max() < 4 / 3
    with pytest.raises(ValueError, match="image must be"):
        colour_features(torch.rand(4, 5, 5))


@pytest.mark.parametrize("kernel_conv", [1, 5])
def test_colour_acmix_has_its_laplacian_in_the_centre(kernel_conv):
    kernel = colour_acmix(kernel_conv=kernel_conv).convolution_kernel()[0, 0]
    expected = torch.full((kernel_conv, kernel_conv), -1 / max(kernel_conv**2 - 1, 1))
    expected[kernel_conv // 2, kernel_conv // 2] = 1
    torch.testing.assert_close(kernel, expected)


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
        (3.0, 3, True),
        (3.5, 3, False),
        (math.nan, 3, False),
        (math.inf, 3, False),
        (np.ceil(2.5), 3, True),
        (0.333333, 1 / 3, True),
        (0.34, 1 / 3, False),
        ("yes", "yes", True),
        (np.str_("Yes"), "yes", True),
        ((1, 2), (1, 2), True),
        ((1, 2, 3), (1, 2), False),
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(1), torch.ones(2), False),
        (torch.ones(2) * 1.01, torch.ones(2), False),
        (1.0, torch.ones(()), False),
        (..., 3, False),
        (True, 1.0, False),
        (True, 1, False),
        (1, True, False),
        (1, 1.0, True),
        (np.int64(3), 3, True),
        (np.float32(1 / 3), 1 / 3, True),
        (torch.tensor(1 / 3), 1 / 3, True),
        (torch.tensor(3), 3, True),
        (0.1 + 0.2 - 0.3, 0.0, True),
        (1e-6, 0.0, False),
        (math.nan, 0.5, False),
        (math.inf, math.inf, True),
        (-math.inf, math.inf, False),
        ([1, 2], (1, 2), True),
        (torch.tensor([1, 2]), (1, 2), True),
        (torch.tensor([1.0, 2.5]), [1, 2], False),
        (torch.tensor([[1, 2]]), (1, 2), False),
        (torch.tensor(1), (1,), False),
        (np.array([True, False]), (True, False), True),
        (tuple(np.array([True, False])), (True, False), True),
        (np.array([1, 0]), (True, False), False),
        (torch.tensor([0.5]), 0.5, True),
        (torch.tensor([0.5, 0.5]), 0.5, False),
        (torch.tensor([0.5 + 1j]), 0.5, False),
        (torch.ones(2, device="meta"), (1, 1), False),
        (torch.ones(2).to_sparse(), (1, 1), False),
        (torch.Size([1, 2]), (1, 2), True),
        (None, 0, False),
        ("3", 3, False),
        (torch.tensor([1.7]), torch.tensor([1]), False),
        (torch.tensor([1]), torch.tensor([1.0]), True),
        (torch.tensor([1 + 1j]), torch.tensor([1.0]), False),
        (torch.ones(2, requires_grad=True), torch.ones(2), True),
        (torch.ones(2).half(), torch.ones(2), True),
        (torch.tensor([True]), torch.tensor([True]), True),
        (torch.tensor([math.nan]), torch.tensor([1.0]), False),
        (torch.ones(2, device="meta"), torch.ones(2), False),
        ([[0, 1], [2, 3]], torch.tensor([[0.0, 1.0], [2.0, 3.0]]), True),
        (np.array([[0, 1]]), torch.tensor([[0.0, 1.0]]), True),
        ([0, 1], torch.tensor([[0.0, 1.0]]), False),
        ([[0], [1, 2]], torch.tensor([0.0]), False),
        (["a"], torch.tensor([0.0]), False),
        (1.0, torch.tensor(1.0), False),
    ],
)
def test_check_judges(answer, expected, right, capsys):
    assert check(answer, expected, hint="Think.") is right
    said = capsys.readouterr().out
    assert ("Right" in said) == right
    assert ("Think." in said) == (not right and answer is not ...)


@pytest.mark.parametrize(("typed", "answer", "expected", "right"), CASES)
def test_check_judges_as_the_page_does(typed, answer, expected, right):
    assert check(answer, expected) is right


def test_check_allows_for_what_the_exercise_says():
    assert check(3.945, 3.94, within=0.01) and not check(3.96, 3.94, within=0.01)
    assert check((1.2, 3), (1, 3), within=0.2) and not check((1, 3.3), (1, 3), within=0.2)
    assert not check(1e9, math.inf, within=1)
    assert not check(10**400, 1.0)


def form(*arguments, **options):
    """What an exercise without an answer hands to the book's page."""
    with patch("acmix_edu.exercises.display") as display:
        assert not check(..., *arguments, **options)
    if not display.called:
        return None
    shown = display.call_args.args[0]
    sentence, html = repr(shown), shown._repr_html_()
    packed = re.fullmatch(rf'<pre data-exercise="([\w+/=]+)">{sentence}</pre>', html)[1]
    assert sentence == "Not answered yet: replace the three dots."
    return json.loads(base64.b64decode(packed))


def test_what_a_line_answers_is_asked_on_the_page(capsys):
    assert form((2, 3.0), hint="√2") == {
        "asked": "two numbers, as in 1, 2", "values": [2, 3.0], "slack": [0, 3 * 1e-4], "count": 2,
        "hint": "√2", "choices": [],
    }  # fmt: skip
    assert form("b", choices="abc")["choices"] == ["a", "b", "c"]
    assert form(3.94, within=0.01)["slack"] == [0.01]
    assert form([8, 9])["count"] is None and form((8,))["asked"] == form(8)["asked"]
    assert form((True,) * 6)["asked"] == "True or False, six times"
    assert form(tuple(range(8)))["asked"].startswith("8 numbers")
    assert capsys.readouterr().out == ""
    nothing = (torch.ones(2), None, (), [], ("a", "b"), (1, (2, 3)), (1, True), math.inf, math.nan)
    for expected in nothing:
        assert form(expected) is None
        assert capsys.readouterr().out == "Not answered yet: replace the three dots.\n"


def test_check_function_judges(capsys):
    inputs = [(small_map(), 1), (small_kernel(), 2)]
    assert check_function(lambda f, n: f * n, torch.mul, *inputs)
    assert not check_function(lambda f, n: f + n, torch.mul, *inputs, hint="Multiply.")
    assert not check_function(lambda f: f, torch.mul, *inputs)
    assert not check_function(lambda f, n: f, torch.mul, *inputs)  # wrong in the second trial only
    assert not check_function(..., torch.mul, *inputs)
    assert not check_function(lambda f, n: f.add_(n), lambda f, n: f, *inputs)  # works in place
    assert torch.equal(inputs[0][0], small_map())
    with pytest.raises(ValueError, match="inputs must hold at least one trial"):
        check_function(torch.mul, torch.mul)
    said = capsys.readouterr().out
    assert (
        "2 of 2" in said and "Multiply." in said and "TypeError" in said and "Not answered" in said
    )


def drawn(maps, **options) -> list:
    """Each map's image as matplotlib holds it."""
    from acmix_edu.figures import plt, show_maps

    figure = show_maps(maps, **options)
    figure.canvas.draw()
    plt.close(figure)
    return [image for axis in figure.axes[: len(maps)] for image in axis.images]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([[0.0, 0.0]], (0, 1)),
        ([[2.0, 3.0]], (0, 3)),
        ([[2.0, 2.0]], (0, 2)),
        ([[-1.0, -3.0]], (-3, 3)),
        ([[-1.0, 4.0]], (-4, 4)),
        ([[math.nan, -1.0, 2.0]], (-2, 2)),
        ([[math.inf, 2.0]], (0, 2)),
        ([[math.nan, math.nan]], (0, 1)),
    ],
)
def test_colours_start_at_zero_or_lie_around_it(values, scale):
    (image,) = drawn([torch.tensor(values)])
    assert image.get_clim() == scale
    assert image.get_cmap().name == ("RdBu_r" if scale[0] < 0 else "cividis")


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1), (3, 1, 4), (3, 1, 1)])
def test_maps_of_one_pixel_a_side_keep_their_sides(shape):
    (image,) = drawn([torch.rand(1, *shape).bfloat16()])
    assert image.get_array().shape == (shape if len(shape) == 2 else (*shape[1:], 3))


def test_one_scale_or_one_each():
    maps = [torch.ones(2, 2), 5 * torch.ones(2, 2)]
    assert [image.get_clim() for image in drawn(maps)] == [(0, 5), (0, 5)]
    assert [image.get_clim() for image in drawn(maps, shared=False)] == [(0, 1), (0, 5)]


@pytest.mark.parametrize(
    ("maps", "titles", "says"),
    [
        ([], None, r"maps must be a list.*\[\] came"),
        ([torch.rand(2, 4, 4)], None, r"\(2, 4, 4\)"),
        ([torch.rand(4)], None, r"\(4,\)"),
        ([torch.rand(0, 4)], None, r"\(0, 4\)"),
        ([torch.rand(2, 2)], ["a", "b"], "titles must be one for each of the 1 maps, but 2"),
    ],
)
def test_show_maps_names_what_it_cannot_draw(maps, titles, says):
    with pytest.raises(ValueError, match=says):
        drawn(maps, titles=titles)


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([0.0222, 0.2], ["0.0222", "0.2"]),
        ([0.0222, 8.768, -0.004, 22.344], ["0.02", "8.77", "0", "22.3"]),
    ],
)
def test_numbers_are_short_enough_for_their_cells(values, written):
    from acmix_edu.figures import plt, show_maps

    figure = show_maps([torch.tensor([values])])
    assert [text.get_text() for text in figure.axes[0].texts] == written
    plt.close(figure)


def test_a_mask_is_a_map_of_zeros_and_ones():
    from acmix_edu.figures import plt, show_maps

    figure = show_maps([np.eye(2, dtype=bool)])
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "0", "0", "1"]
    plt.close(figure)


def test_the_scale_is_about_as_high_as_a_map():
    from acmix_edu.figures import plt, show_maps

    for columns in (4, 2, 1):
        figure = show_maps([torch.rand(4, 4)] * 4, columns=columns)
        figure.canvas.draw()
        height, scale = (axis.get_position().height for axis in figure.axes[::4])
        assert 0.6 * height < scale < 1.4 * height, f"{columns} columns"
        plt.close(figure)


def test_numbers_and_windows_lie_where_they_belong():
    from acmix_edu.figures import mark_window, plt, show_maps

    figure = show_maps([torch.tensor([[0.0, 9.0, 0.5]])])
    axis = figure.axes[0]
    written = [(text.get_text(), text.get_position(), text.get_color()) for text in axis.texts]
    assert written == [
        ("0", (0, 0), "white"),
        ("9", (1, 0), "black"),
        ("0.5", (2, 0), "white"),
    ]
    mark_window(axis, 1, 4, 5)
    boxes = [patch.get_bbox().bounds for patch in axis.patches]
    assert boxes == [(1.5, -1.5, 5, 5), (3.5, 0.5, 1, 1)]
    plt.close(figure)
