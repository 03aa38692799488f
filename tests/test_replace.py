"""Which convolutions are replaced, and that the network around them stays what it was."""

import copy
import re
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest
import torch
import yaml
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from acmix_edu import ACmix, ResNet, conv3x3, replace_conv3x3


def network() -> nn.Sequential:
    shared = nn.Conv2d(8, 8, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),  # 0: from 3 channels
        nn.Conv2d(8, 8, 3, padding=1, stride=2),  # 1
        nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), shared),  # 2.0, 2.1, 2.2
        nn.Conv2d(8, 8, 3, padding=1, groups=8),  # 3: depthwise
        nn.Conv2d(8, 8, 3, padding=2, dilation=2),  # 4
        nn.Conv2d(8, 8, 3),  # 5: unpadded
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),  # 6
        nn.Conv2d(8, 8, 3, padding=1, stride=(1, 2)),  # 7
        nn.Conv2d(8, 6, 3, padding=1),  # 8: not divisible by 4 heads
        nn.Conv2d(6, 8, 3, padding="same", bias=False),  # 9
        shared,  # 10
    )


def test_replaces_what_it_says_and_nothing_else():
    net = network()
    before = dict(net.named_modules())
    assert replace_conv3x3(net) == ["1", "10", "2.2"]
    assert isinstance(net[1], ACmix) and net[1].stride == 2
    assert net[2][2] is net[10] and isinstance(net[10], ACmix)
    assert all(net.get_submodule(n) is before[n] for n in ["0", "2.0", *"3456789"])


def test_where_chooses_and_may_change_the_channels():
    net = network()
    seen = []

    def where(name, conv):
        seen.append(name)
        assert isinstance(conv, nn.Conv2d)
        return name in {"0", "9"}

    assert replace_conv3x3(net, where) == ["0", "9"]
    assert (net[0].in_planes, net[0].out_planes, net[9].in_planes) == (3, 8, 6)
    assert {"0", "2.0", "9", "10"} <= set(seen)


@pytest.mark.parametrize(
    ("name", "says"),
    [("2.0", r"kernel is \(1, 1\)"), ("3", "groups are 8"), ("4", "padding is"),
     ("5", "padding is"), ("6", "reflect"), ("7", "stride"),
     ("8", "6 outputs are not divisible by head=4; let where")],
)  # fmt: skip
def test_where_cannot_pick_what_does_not_fit(name, says):
    with pytest.raises(ValueError, match=f"where picks {name}, which ACmix cannot.*{says}"):
        replace_conv3x3(network(), lambda own, _: own == name)


def test_dtype_and_mode_are_kept():
    net = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)).to(torch.bfloat16).eval()
    replace_conv3x3(net)
    assert net[0].rate1.dtype == torch.bfloat16 and not net[0].training


def test_resnet_becomes_the_acmix_resnet():
    plain, mixed = ResNet([1, 2, 1, 1], operator=conv3x3), ResNet([1, 2, 1, 1])
    names = replace_conv3x3(plain)
    assert len(names) == 5 and all(name.endswith("conv2") for name in names)
    plain.load_state_dict(mixed.state_dict())
    x = torch.randn(1, 3, 33, 40)
    torch.testing.assert_close(plain.eval()(x), mixed.eval()(x))


def test_options_are_those_of_the_new_modules():
    net = network()
    options = {"kernel_att": 5, "head": 2, "kernel_conv": 5, "dilation": 2, "backend": "unfold"}
    assert replace_conv3x3(net, lambda name, _: name in "18", **options) == ["1", "8"]
    for layer in (net[1], net[8]):  # 8 has 6 channels: with 2 heads it fits
        assert {name: getattr(layer, name) for name in options} == options
    with pytest.raises(ValueError, match=r"where picks 8, which ACmix cannot.*by head=5"):
        replace_conv3x3(network(), lambda name, _: name == "8", head=5)
    with pytest.raises(ValueError, match="as inputs, a multiple of head=3"):
        replace_conv3x3(network(), head=3)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        *(({name: 1}, TypeError, f"{name} cannot be an option, for it is taken from each")
          for name in ("in_planes", "out_planes", "stride", "device", "dtype")),
        ({"heads": 2}, TypeError, "heads"),
        ({"head": 0}, ValueError, "head must be at least 1"),
        ({"kernel_att": 4}, ValueError, "kernel_att must be odd"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used(options, error, says):
    net = network()
    with pytest.raises(error, match=says):
        replace_conv3x3(net, **options)
    assert not any(isinstance(module, ACmix) for module in net.modules())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("net",), "Module, but a str came"),
        ((nn.Sequential(), "layer"), "where must be a function"),
    ],
)
def test_what_is_no_network_and_no_function(arguments, says):
    with pytest.raises(TypeError, match=says):
        replace_conv3x3(*arguments)


def test_nothing_to_replace():
    with pytest.raises(ValueError, match="nothing was replaced: the model has no"):
        replace_conv3x3(nn.Sequential(nn.Conv2d(4, 4, 1)))
    reflected = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
    with pytest.raises(ValueError, match=r"padding 1 of zeros, .* the forward of nn.Conv2d"):
        replace_conv3x3(nn.Sequential(reflected))
    with pytest.raises(ValueError, match="nothing was replaced: where picks no convolution"):
        replace_conv3x3(network(), lambda name, conv: False)
    with pytest.raises(ValueError, match="is one itself; wrap it"):
        replace_conv3x3(nn.Conv2d(4, 4, 3, padding=1))


class Standardized(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


def test_a_forward_of_its_own_and_channels_not_yet_known():
    net = nn.Sequential(Standardized(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    assert replace_conv3x3(net) == ["1"]
    with pytest.raises(ValueError, match="a Standardized with a forward of its own"):
        replace_conv3x3(net, lambda name, conv: True)
    complex_numbers = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"its weight is torch\.complex64, not of"):
        replace_conv3x3(complex_numbers, lambda name, conv: True)
    with pytest.raises(ValueError, match="run the network once, before"):
        replace_conv3x3(nn.Sequential(nn.LazyConv2d(4, 3, padding=1)), lambda name, conv: True)


def test_a_refused_model_is_as_it_was():
    net = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 5, padding=2))
    with pytest.raises(ValueError, match="where picks 1"):
        replace_conv3x3(net, where=lambda name, conv: True)
    assert [type(layer) for layer in net] == [nn.Conv2d, nn.Conv2d]


def test_what_was_compiled_alone_is_refused():
    """It goes on calling the old layer; a network that was compiled as a whole sees the new one."""
    conv, x = nn.Conv2d(8, 8, 3, padding=1), torch.randn(1, 8, 9, 9)
    alone = torch.compile(conv, backend="eager")
    for net, name in ((nn.Sequential(alone), r"0\._orig_mod"), (nn.Sequential(conv, alone), "1")):
        with pytest.raises(ValueError, match=f"{name}.* inside torch.compile, .*uncompiled"):
            replace_conv3x3(net)
        assert not any(isinstance(module, ACmix) for module in net.modules())
    for wrap in (lambda net: torch.compile(net, backend="eager"), nn.DataParallel):
        net = wrap(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)))
        before = net(x)
        assert replace_conv3x3(net) and not torch.allclose(net(x), before)


def test_what_is_not_replaced_is_not_computed():
    """In training each use of a weight with spectral norm changes it."""
    fits, other = (spectral_norm(nn.Conv2d(8, 8, k, padding=k // 2)) for k in (3, 1))
    both = nn.ModuleList([fits, other])
    before = copy.deepcopy(both.state_dict())
    with pytest.raises(ValueError, match="where picks 1"):
        replace_conv3x3(nn.Sequential(fits, other), lambda name, conv: True)
    replace_conv3x3(nn.Sequential(other, nn.Conv2d(8, 8, 3, padding=1)))
    torch.testing.assert_close(both.state_dict(), before, rtol=0, atol=0)


def recipes(language: str) -> list[str]:
    """The fenced blocks of the README, as they are copied from it."""
    text = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    return [dedent(block) for block in re.findall(rf"```{language}\n(.*?)```", text, re.S)]


def test_the_recipe_for_a_resnet(monkeypatch):
    """Torchvision's names of the convolutions are those of the book's own ResNet."""
    models = ModuleType("torchvision.models")
    models.resnet50 = lambda: ResNet([3, 4, 6, 3], operator=conv3x3)
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    [recipe] = [code for code in recipes("python") if "torchvision" in code]
    names: dict = {}
    exec(recipe, names)
    replaced = [n for n, m in names["net"].named_modules() if isinstance(m, ACmix)]
    assert len(replaced) == 16 and all(n.endswith("conv2") for n in replaced)


def test_the_recipe_for_a_parser_of_yaml(monkeypatch):
    """A parser finds the class among its own names and hands it the numbers of the row."""
    tasks = ModuleType("ultralytics.nn.tasks")
    for name in ("ultralytics", "ultralytics.nn"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "ultralytics.nn.tasks", tasks)
    sys.modules["ultralytics"].nn = sys.modules["ultralytics.nn"]
    sys.modules["ultralytics.nn"].tasks = tasks
    [recipe] = [code for code in recipes("python") if "ultralytics" in code]
    exec(recipe, {})
    [rows] = recipes("yaml")
    source, repeats, name, arguments = yaml.safe_load(rows)[-1]
    assert (source, repeats) == (-1, 1)
    layer = getattr(tasks, name)(*arguments)
    assert layer(torch.randn(1, 64, 6, 8)).shape == (1, 64, 6, 8)
