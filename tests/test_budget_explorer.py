"""The budget explorer in Python: sizes, traits, the networks that it sends."""

import pytest
import torch
from torch import nn

from acmix_edu import ACmix, Cost, ResNet, acmix_cost, conv3x3, model_cost, total
from acmix_edu.explorers import BudgetExplorer

MEASURES = {"multiply-adds": "multiply_adds", "parameters": "parameters", "memory": "activations"}


def test_starts_in_layer_1():
    explorer = BudgetExplorer()
    layer, *first = explorer.networks["ResNet-50"]["blocks"][0]
    assert layer == 1 and first == [explorer.channels, explorer.side, explorer.stride]
    assert explorer.costs() == acmix_cost(64, 64, 56, 56)


def test_takes_the_sizes_of_a_module():
    module = ACmix(36, 36, kernel_att=5, head=3, kernel_conv=1, stride=2)
    explorer = BudgetExplorer(module)
    costs = explorer.costs()
    assert total(costs).parameters == sum(p.numel() for p in module.parameters())
    assert costs == acmix_cost(36, 36, 56, 56, kernel_att=5, head=3, kernel_conv=1, stride=2)
    assert 36 in explorer.offered["channels"] and 3 in explorer.offered["heads"]


def test_counts_heads_that_divide_the_channels():
    explorer = BudgetExplorer()
    explorer.channels, explorer.heads = 1000, 7
    assert explorer.costs() == acmix_cost(1000, 1000, 56, 56, head=5)


@pytest.mark.parametrize("name", ["ResNet-26", "ResNet-38", "ResNet-50"])
def test_networks_are_the_packages(name):
    """What is around the blocks and the blocks make the whole, with either operator inside."""
    sent = BudgetExplorer().networks[name]
    layers = [sum(block[0] == n for block in sent["blocks"]) for n in (1, 2, 3, 4)]
    with torch.device("meta"):
        plain, mixed = ResNet(layers, operator=conv3x3), ResNet(layers)
    middles = [[m.in_planes, m.stride] for m in mixed.modules() if isinstance(m, ACmix)]
    assert middles == [[channels, stride] for _, channels, _, stride in sent["blocks"]]
    inside = Cost()
    for _, channels, side, stride in sent["blocks"]:
        inside += total(acmix_cost(channels, channels, side, side, stride=stride))
    whole, without = total(model_cost(mixed)), total(model_cost(plain))
    assert without.parameters == sum(p.numel() for p in plain.parameters())
    for measure, field in MEASURES.items():
        assert sent["rest"][measure] + getattr(inside, field) == getattr(whole, field)


@pytest.mark.parametrize(
    ("module", "error", "says"),
    [
        (nn.Conv2d(3, 3, 3), TypeError, r"a Conv2d came; pass ACmix\(64, 64\)"),
        (ACmix(3, 8), ValueError, r"3 → 8 came; pass ACmix\(8, 8\)"),
        (ACmix(8, 8, kernel_att=33), ValueError, "kernel_att must be from 1 to 31, but 33 came"),
    ],
)
def test_refuses(module, error, says):
    with pytest.raises(error, match=says):
        BudgetExplorer(module)


@pytest.mark.parametrize(
    ("trait", "value", "says"),
    [
        ("measure", "flops", r"measure must be one of .*'multiply-adds'.*, but 'flops' came"),
        ("network", "ResNet-18", "'ResNet-50'.*, but 'ResNet-18' came"),
        ("stage", "stage II", "'stage I', 'position', .*but 'stage II' came"),
        ("precision", 8, r"precision must be one of \[4, 2\], but 8 came"),
        ("channels", 0, "channels must be from 1 to 4096, but 0 came"),
        ("batch", 1025, "batch must be from 1 to 1024, but 1025 came"),
        ("stride", 9, "stride must be from 1 to 8, but 9 came"),
        ("kernel_att", 6, "pass kernel_att=5 or kernel_att=7"),
        ("kernel_conv", 4, "kernel_conv must be odd"),
    ],
)
def test_refuses_a_trait(trait, value, says):
    explorer = BudgetExplorer()
    before = getattr(explorer, trait)
    with pytest.raises(ValueError, match=says):
        setattr(explorer, trait, value)
    assert getattr(explorer, trait) == before
