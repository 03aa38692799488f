"""The composed module against the trained one."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune

from acmix_edu import ACmix, DeployedACmix, ResNet, deploy

FORMS = ["grouped", "dense"]
OPTIONS = [{}, {"kernel_att": 5, "head": 2, "kernel_conv": 5}, {"stride": 2, "dilation": 2},
           {"head": 8, "kernel_conv": 1, "stride": 3}]  # fmt: skip


class Shifted(ACmix):
    def forward(self, x):
        return super().forward(x) + 1


class Sharper(ACmix):
    def mix(self, out_att, out_conv):
        return super().mix(out_att, out_conv).sigmoid()


def trained(**options) -> ACmix:
    """A module whose every weight, bias and rate differs from its start."""
    module = ACmix(6, 16, **options).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


@pytest.mark.parametrize("form", FORMS)
def test_the_state_is_one_that_safetensors_takes(form, tmp_path):
    state = deploy(trained(), convolution=form).state_dict()
    save_file(state, tmp_path / "state.safetensors")  # contiguous tensors only
    assert load_file(tmp_path / "state.safetensors").keys() == state.keys()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", [(23, 20), (9, 14), (2, 1)])
def test_composed_is_trained(form, options, size):
    module, x = trained(**options), torch.randn(2, 6, *size).double()
    for known in (None, size, (5, 5)):
        torch.testing.assert_close(deploy(module, known, form)(x), module(x))


@pytest.mark.parametrize("form", FORMS)
def test_published_state(golden, published, form):
    """The published module's own outputs."""
    torch.testing.assert_close(deploy(published, None, form)(golden["x"]), golden["y"])


def test_biases_reach_the_border_as_zero_padding_cuts_them():
    """The dense form's bias map: constant inside, another value in each corner and edge."""
    module = trained(kernel_att=1)
    nn.init.zeros_(module.rate1)
    border = deploy(module, None, "dense")(torch.zeros(1, 6, 7, 8).double())[0, 3]
    assert border[1:-1, 1:-1].unique().numel() == 1
    assert border[:2, :2].unique().numel() == 4


def test_network_is_copied_and_composed():
    network = ResNet([1, 1, 1, 1], num_classes=3).double()
    before = copy.deepcopy(network.state_dict())
    composed = deploy(network)
    x = torch.randn(1, 3, 40, 33).double()
    assert sum(isinstance(m, DeployedACmix) for m in composed.modules()) == 4
    assert not any(isinstance(m, ACmix) for m in composed.modules())
    assert network.training and not composed.training
    torch.testing.assert_close(composed(x), network.eval()(x))
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


def test_later_training_does_not_reach_it():
    module, x = trained(), torch.randn(1, 6, 9, 9).double()
    composed = deploy(module)
    before = composed(x)
    for parameter in module.parameters():
        parameter.data.zero_()
    assert torch.equal(composed(x), before)


@pytest.mark.parametrize("form", FORMS)
def test_state_and_dtype_travel(form):
    module = trained()
    one, other = deploy(module, (9, 9), form), deploy(ACmix(6, 16).double(), (9, 9), form)
    other.load_state_dict(one.state_dict())
    for size in ((12, 9), (9, 9)):  # the second has its position term from before
        x = torch.randn(1, 6, *size).double()
        assert torch.equal(one(x), other(x))
        torch.testing.assert_close(other(x), module(x))
    assert one.float()(x.float()).dtype == torch.float32
    assert not list(one.parameters())


def test_a_state_from_the_other_side_of_deploy_is_named():
    network = nn.Sequential(trained())
    composed = deploy(network)
    with pytest.raises(RuntimeError, match="0 is deployed, and the state is of an ACmix"):
        composed.load_state_dict(network.state_dict())
    with pytest.raises(RuntimeError, match="0 is an ACmix, and the state is of a deployed one"):
        network.load_state_dict(composed.state_dict())
    with pytest.raises(RuntimeError, match="The module is deployed"):
        composed[0].load_state_dict(network[0].state_dict())


def test_a_state_fills_what_was_made_on_the_meta_device():
    module, x = trained(), torch.randn(1, 6, 9, 9).double()
    state = deploy(module, (9, 9)).state_dict()
    with torch.device("meta"):
        empty = [deploy(ACmix(6, 16).double(), (9, 9)) for _ in range(2)]
    filled = empty[0].to_empty(device="cpu")
    filled.load_state_dict(state)
    empty[1].load_state_dict(state, assign=True)
    for composed in (filled, empty[1]):
        torch.testing.assert_close(composed(x), module(x))


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_read_through_their_attributes(form):
    """As a parametrized, or a pruned, module has them."""
    module, x = trained(), torch.randn(1, 6, 9, 8).double()
    nn.utils.parametrizations.weight_norm(module.conv1)
    prune.l1_unstructured(module.fc, "weight", amount=0.5)
    torch.testing.assert_close(deploy(module, None, form)(x), module(x))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(x).square().mean().backward()
    optimizer.step()  # what pruning and weight norm compute is older than this
    torch.testing.assert_close(deploy(module, None, form)(x), module(x))
    network = nn.Sequential(module)
    network(x).sum().backward()  # what they compute belongs to a graph now
    torch.testing.assert_close(deploy(network, None, form)(x), network(x))
    torch.testing.assert_close(DeployedACmix(module, None, form)(x), module(x))


def test_a_pruned_module_is_not_run_as_its_user_would():
    """Neither its hooks, which may want to see a picture, nor a kernel that is not to be had."""
    module, seen = trained(), []
    module.backend = "triton"
    prune.l1_unstructured(module.conv1, "weight", amount=0.5)
    module.register_forward_pre_hook(lambda *_: seen.append("called"))
    module.conv2.register_forward_hook(lambda *_: seen.append("called"))
    deployed = deploy(module)
    assert not seen
    deployed.backend = module.backend = None
    x = torch.randn(1, 6, 9, 8).double()
    torch.testing.assert_close(deployed(x), ACmix.forward(module, x))


def test_spectral_norm_is_that_of_evaluation_and_left_alone():
    """In training each use of such a weight changes it."""
    module, x = trained(), torch.randn(1, 6, 9, 8).double()
    nn.utils.parametrizations.spectral_norm(module.conv1)
    before = copy.deepcopy(module.state_dict())
    composed = [deploy(module), deploy(nn.Sequential(module))]
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert module.training
    for layer in composed:
        torch.testing.assert_close(layer(x), module.eval()(x))


def test_what_is_compiled_is_deployed_without_its_compiled_call():
    module, x = trained(), torch.randn(1, 6, 9, 8).double()
    module.compile(backend="eager")
    composed = deploy(module)
    expected = composed(x)
    nn.init.zeros_(module.rate1)
    nn.init.zeros_(module.rate2)
    assert torch.equal(composed(x), expected) and not composed(x).requires_grad
    module.forward = lambda x: x
    with pytest.raises(TypeError, match="a forward of its own"):
        deploy(module)


def test_a_layer_that_was_compiled_alone_is_refused():
    """The copy would go on calling it; in a network that was compiled as a whole it is found."""
    module, x = trained(), torch.randn(1, 6, 9, 8).double()
    alone = torch.compile(module, backend="eager")
    for model in (alone, nn.Sequential(alone)):
        with pytest.raises(ValueError, match=r"_orig_mod .*inside torch.compile, .*uncompiled"):
            deploy(model)
    composed = deploy(torch.compile(nn.Sequential(module), backend="eager"))
    torch.testing.assert_close(composed(x), module(x))
    assert not composed(x).requires_grad


@pytest.mark.parametrize("form", FORMS)
def test_projections_without_biases(form):
    module, x = trained(), torch.randn(1, 6, 9, 8).double()
    module.conv1.bias = module.conv_p.bias = None
    torch.testing.assert_close(deploy(module, None, form)(x), module(x))


@pytest.mark.parametrize("form", FORMS)
def test_autocast_decides_the_dtype(form):
    module = trained().float()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = [f(torch.randn(1, 6, 9, 8)).dtype for f in (module, deploy(module, None, form))]
    assert outputs == [torch.bfloat16, torch.bfloat16]


def test_autocast_does_not_round_what_is_kept():
    module, size = trained().float(), (9, 8)
    exact = deploy(module, size).position
    with torch.autocast("cpu", torch.bfloat16):
        made, loaded = deploy(module, size), deploy(module, size)
        loaded.load_state_dict(made.state_dict())
    assert torch.equal(made.position, exact) and torch.equal(loaded.position, exact)


def test_half_precision_is_composed_exactly():
    """Products are formed in float64, and only then rounded."""
    module = trained().half()
    composed = deploy(module, None, "dense")
    exact = deploy(copy.deepcopy(module).double(), None, "dense")
    assert torch.equal(composed.kernel, exact.kernel.half())


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((nn.Linear(2, 2),), ValueError, "contains no ACmix"),
        ((ACmix(4, 4), None, "winograd"), ValueError, "'grouped', 'dense', but 'winograd' came"),
        ((ACmix(4, 4), (0, 3)), ValueError, "size must be at least 1"),
        (("net",), TypeError, "model must be a torch.nn.Module, but a str came"),
        ((Shifted(4, 4),), TypeError, "Shifted has a forward of its own"),
        ((Sharper(4, 4),), TypeError, "Sharper has a mix of its own"),
    ],
)
def test_what_cannot_be_deployed(arguments, error, says):
    with pytest.raises(error, match=says):
        deploy(*arguments)


def test_inputs_are_checked():
    composed = deploy(ACmix(4, 4))
    with pytest.raises(ValueError, match="x must have 4 channels"):
        composed(torch.randn(1, 3, 5, 5))
    with pytest.raises(TypeError, match="x must have the dtype of the module"):
        composed(torch.randn(1, 4, 5, 5).double())
    with pytest.raises(TypeError, match="module must be an ACmix, but a Linear came"):
        DeployedACmix(nn.Linear(2, 2))


def test_it_says_what_it_was_made_of():
    module = ACmix(8, 16, 5, 2, 5, 2, 3, backend="halo")
    says = module.extra_repr()
    assert says.endswith(", backend='halo'")
    assert deploy(module, None, "dense").extra_repr() == f"{says}, convolution='dense'"


def test_what_a_framework_wrote_on_a_layer_stays():
    """YOLO's parsers number the layers: model[i].f says whose output layer i takes."""
    net = nn.Sequential(ACmix(8, 8))
    net[0].i, net[0].f, net[0].type, net[0].rate = 4, -1, "ACmix", "no tensor"
    for layer in (deploy(net)[0], deploy(net[0])):
        assert isinstance(layer, DeployedACmix)
        assert (layer.i, layer.f, layer.type, layer.training) == (4, -1, "ACmix", False)
        assert layer(torch.randn(1, 8, 5, 5)).shape == (1, 8, 5, 5)
