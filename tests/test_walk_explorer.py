"""The walk explorer in Python: its table of steps against the package, arguments, traits."""

import importlib
import inspect
import itertools
import re

import numpy as np
import pytest
import torch

from acmix_edu import ACmix
from acmix_edu.explorers import WalkExplorer
from acmix_edu.explorers.walk import AXES, STEPS

MODULES = [  # arguments and the sides of an image, odd and prime
    (dict(in_planes=3, out_planes=8, head=2), (9, 14)),
    (dict(in_planes=5, out_planes=6, head=3, kernel_att=5, kernel_conv=5, stride=2), (7, 9)),
    (dict(in_planes=1, out_planes=4, head=1, kernel_att=3, kernel_conv=1, dilation=3), (5, 5)),
    (dict(in_planes=2, out_planes=5, head=5, kernel_att=1, kernel_conv=7, stride=3), (11, 4)),
]


def sizes_of(m, height, width):
    """The number that each axis of the table stands for, from the module's arguments."""
    rim = m.dilation * (m.kernel_att // 2)
    rows, columns = -(-height // m.stride), -(-width // m.stride)
    return {
        "B": 1, "1": 1, "C_in": m.in_planes, "N": m.head, "d": m.out_planes // m.head,
        "N·d": m.out_planes, "d·N": m.out_planes, "k_a²": m.kernel_att**2,
        "k_c²": m.kernel_conv**2, "d·k_c²": m.out_planes // m.head * m.kernel_conv**2,
        "H": height, "W": width, "H+2R": height + 2 * rim, "W+2R": width + 2 * rim,
        "H′": rows, "W′": columns,
    }  # fmt: skip


@pytest.fixture
def explorer():
    return WalkExplorer(ACmix(3, 8, head=2, stride=2), torch.rand(3, 9, 14))


# ---- The table -------------------------------------------------------------------------------


def test_every_tensor_of_explain_is_in_one_step():
    made = ACmix(3, 4, head=2).explain(torch.rand(1, 3, 4, 4))
    listed = [name for step in STEPS for name in step.tensors]
    assert sorted(listed) == sorted(made)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_its_code_is_the_packages_code(step):
    file, *names = step.where.split(".")
    thing = importlib.import_module(f"acmix_edu.{file}")
    for name in names:
        thing = getattr(thing, name)
    lines = [line.strip() for line in inspect.getsource(thing).splitlines()]
    for line in step.code:
        assert line in lines, f"{step.where} no longer holds {line!r}"


@pytest.mark.filterwarnings("ignore:ACmix")  # the third is meant
@pytest.mark.parametrize(("arguments", "sides"), MODULES)
def test_its_axes_are_the_shapes_of_a_run(arguments, sides):
    module, image = ACmix(**arguments), torch.rand(1, arguments["in_planes"], *sides)
    made, sizes = module.explain(image), sizes_of(module, *sides)
    for step in WalkExplorer(module, image).table:
        for tensor in step["tensors"]:
            shape = list(made[tensor["name"]].shape)
            assert tensor["shape"] == shape
            assert [sizes[axis] for axis in tensor["axes"]] == shape


def test_every_axis_has_words():
    used = {axis for step in STEPS for axes in step.tensors.values() for axis in axes.split()}
    assert used == set(AXES)


def test_indices_are_well_written():
    """Braces close, and something follows each _."""
    for step in STEPS:
        for text in (step.symbol, step.formula):
            assert text.count("{") == text.count("}")
            assert not re.search(r"_(?![{a-zA-Z0-9])", text)


# ---- Arguments and traits --------------------------------------------------------------------


def test_by_default_no_map_is_empty():
    explorer = WalkExplorer()
    for step in range(1, len(STEPS) + 1):
        explorer.step = step
        for name, tensor in explorer.current_tensors().items():
            flat = tensor[0].flatten(-2)
            assert flat.std(-1).max() > 1e-3, f"{name} is the same everywhere"


def test_sends_the_weights_and_the_image(explorer):
    module = ACmix(3, 8, head=2, stride=2)
    sent = np.frombuffer(explorer.weights, np.float32)
    module.load_state_dict({
        name: torch.tensor(sent[slice(*explorer.places[name.replace(".", "_")])]).view_as(own)
        for name, own in module.state_dict().items()
    })  # fmt: skip
    image = torch.tensor(np.frombuffer(explorer.image, np.float32)).view(1, 3, 9, 14)
    explorer.step = 13
    torch.testing.assert_close(module(image), explorer.current_tensors()["out"])
    places = sorted(map(tuple, explorer.places.values()))
    assert places[0][0] == 0 and places[-1][1] == len(sent)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(places))


def test_later_training_does_not_change_it():
    module = ACmix(3, 8, head=2)
    explorer = WalkExplorer(module, torch.rand(3, 5, 5))
    explorer.step = 2
    before = explorer.current_tensors()["q"]
    with torch.no_grad():
        module.conv1.weight.add_(1)
    assert torch.equal(explorer.current_tensors()["q"], before)


def test_one_head_and_one_dimension():
    explorer = WalkExplorer(ACmix(1, 1, head=1), torch.rand(1, 3, 3))
    assert (explorer.head, explorer.channel) == (0, 0)


@pytest.mark.parametrize(
    ("trait", "value", "says"),
    [
        ("step", 0, "step must be from 1 to 13, but 0 came"),
        ("step", 14, "step must be from 1 to 13"),
        ("head", 2, "head must be from 0 to 1"),
        ("channel", 4, "channel must be from 0 to 3"),
        ("pixel", (5, 0), "row must be from 0 to 4"),
        ("pixel", (0, 7), "column must be from 0 to 6"),
    ],
)
def test_refuses_a_trait(explorer, trait, value, says):
    before = getattr(explorer, trait)
    with pytest.raises(ValueError, match=says):
        setattr(explorer, trait, value)
    assert getattr(explorer, trait) == before


def test_refuses_an_argument():
    with pytest.raises(TypeError, match=r"module must be .*Conv2d"):
        WalkExplorer(torch.nn.Conv2d(3, 8, 3))
    with pytest.raises(ValueError, match=r"\[4, H, W\].*\[3, 8, 8\]"):
        WalkExplorer(image=torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r"\[3, H, W\], .*\[1, 4, 48, 48\]"):
        WalkExplorer(ACmix(3, 8))
