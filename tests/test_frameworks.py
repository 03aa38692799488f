"""What training and export frameworks do to a module; the unfold form or plain eager is right."""

import copy
import io
import pickle
from collections import Counter

import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch._decomp import core_aten_decompositions
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from acmix_edu import ACmix, ResNet
from acmix_edu.deploy import DeployedACmix, deploy

# The older ways out of PyTorch say that they are old; they are tested because they are in use.
# The newer exporter calls two functions of PyTorch that PyTorch itself has put on its way out.
old_tracer = pytest.mark.filterwarnings("ignore:`torch.jit.trace")  # its class changes
exporters = [
    pytest.mark.filterwarnings("ignore:You are using the legacy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
]


def randomised(*arguments, **options) -> ACmix:
    """An ACmix none of whose weights is special, and whose outputs are of size 1."""
    module = ACmix(*arguments, **options)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


def network() -> nn.Sequential:
    """Three layers; the second map is large, the third small enough for bands."""
    layers = nn.Conv2d(3, 8, 3, padding=1), randomised(8, 8, stride=2), randomised(8, 12, head=2)
    return nn.Sequential(*layers).eval()


def unfolded(module: nn.Module) -> nn.Module:
    """The same weights in the paper's form."""
    module = copy.deepcopy(module)
    for part in module.modules():
        if isinstance(part, ACmix):
            part.backend = "unfold"
    return module


def gradients(module: nn.Module, x: torch.Tensor, run=None) -> dict[str, torch.Tensor]:
    """The output for x, and the gradients that a fixed random direction gives."""
    module.zero_grad()
    x = x.detach().clone().requires_grad_()
    y = module(x) if run is None else run(x)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    y.backward(direction.to(y.dtype))
    return {"y": y.detach(), "x": x.grad} | {n: p.grad for n, p in module.named_parameters()}


def assert_alike(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        scale = max(theirs[name].abs().max().item(), 1)
        torch.testing.assert_close(
            value, theirs[name], rtol=1e-4, atol=1e-5 * scale, msg=lambda m, n=name: n + m
        )


def saved(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def stated(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    twin = network()
    twin.load_state_dict(torch.load(file, weights_only=True))
    return twin


@pytest.mark.parametrize(
    "copy_of", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), saved, stated]
)
def test_copies_are_equal_and_apart(copy_of):
    module, x = network(), torch.randn(2, 3, 44, 30)
    expected = module(x)
    twin = copy_of(module)
    assert torch.equal(twin(x), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(module(x), expected)


def test_an_average_of_weights():
    module, x = network(), torch.randn(1, 3, 20, 20)
    average = AveragedModel(module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    average.update_parameters(module)
    with torch.no_grad():
        module[1].rate1.add_(1.0)
    average.update_parameters(module)
    middle = copy.deepcopy(module)
    with torch.no_grad():
        middle[1].rate1.sub_(0.5)
    torch.testing.assert_close(average(x), middle(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [(44, 30), (9, 7)])
def test_converted_weights(dtype, size):
    module, x = network().to(dtype), torch.randn(2, 3, *size).to(dtype)
    ours, theirs = module(x), unfolded(module)(x)
    truth = unfolded(module).double()(x.double())
    assert ours.dtype == dtype
    allowed = 1.5 * (theirs.double() - truth).norm() + 1e-13 * truth.norm()
    assert (ours.double() - truth).norm() <= allowed


@pytest.mark.parametrize(("size", "draws"), [((44, 30), 8), ((14, 9), 32)])
def test_autocast_is_as_near_as_the_unfold_form(size, draws):
    """In the mean of several draws: the rounding of one sum over all pixels is up to luck."""
    errors, bounds = Counter(), Counter()
    for _ in range(draws):
        module, x = randomised(8, 8), torch.randn(4, 8, *size)
        ours, theirs = (gradients(m, x, autocast(m)) for m in (module, unfolded(module)))
        truth = gradients(unfolded(module).double(), x.double())
        assert ours["y"].dtype == torch.bfloat16
        for name, exact in truth.items():
            assert ours[name].isfinite().all(), name
            errors[name] += (ours[name].double() - exact).square().sum().item()
            bounds[name] += (theirs[name].double() - exact).square().sum().item()
    assert all(errors[name] <= 1.5**2 * bounds[name] for name in errors), (errors, bounds)


def autocast(module: nn.Module):
    def run(x):
        with torch.autocast("cpu", torch.bfloat16):
            return module(x)

    return run


@pytest.mark.parametrize("make", [network, lambda: ResNet([1, 1, 1, 1], num_classes=5).eval()])
def test_channels_last(make):
    module, x = make().double(), torch.randn(2, 3, 44, 30).double()
    expected = gradients(module, x)
    module.to(memory_format=torch.channels_last)
    assert_alike(gradients(module, x.to(memory_format=torch.channels_last)), expected)


def test_training_under_autocast_lowers_the_loss():
    module, x = ResNet([1, 1, 1, 1], num_classes=4), torch.randn(4, 3, 64, 48)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02)
    losses = []
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(nn.functional.cross_entropy(module(x), torch.arange(4)))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[3] < losses[2] < losses[1] < losses[0]


def test_every_parameter_has_a_gradient():
    """DistributedDataParallel waits for all of them, also for the one that is always zero."""
    module = network().double()
    found = gradients(module, torch.randn(2, 3, 44, 30).double())
    for name, gradient in found.items():
        largest = gradient.abs().max()
        assert largest < 1e-10 if "conv_p.bias" in name else largest > 1e-3, name


def test_checkpoint_gives_the_same_gradients():
    module, x = network(), torch.randn(2, 3, 44, 30)
    again = gradients(module, x, lambda x: checkpoint(module, x, use_reentrant=False))
    assert_alike(again, gradients(module, x))


# attention has no batching rule on a CPU: vmap calls it for one image after the other
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_gradients_of_each_image_at_once():
    module, x = network(), torch.randn(3, 3, 34, 26)
    state = dict(module.named_parameters())

    def loss(state, image):
        return torch.func.functional_call(module, state, image[None]).square().sum()

    per_image = torch.func.vmap(torch.func.grad(loss), (None, 0))(state, x)
    for i, image in enumerate(x):
        one = torch.autograd.grad(loss(state, image), list(state.values()))
        expected = dict(zip(state, one, strict=True))
        assert_alike({name: value[i] for name, value in per_image.items()}, expected)


@pytest.mark.parametrize("change", [parametrizations.weight_norm, prune.l1_unstructured])
def test_weights_are_read_through_their_attributes(change):
    module, x = randomised(8, 8), torch.randn(2, 8, 16, 30)
    before = module(x)
    for part in (module.conv1, module.conv2, module.fc, module.dep_conv):
        change(part, "weight", **({"amount": 0.5} if change is prune.l1_unstructured else {}))
        for name, parameter in list(part.named_parameters()):
            if "original0" in name:  # the norms of weight_norm
                nn.init.uniform_(parameter, 0.5, 2)
    plain = randomised(8, 8)
    state = {name: module.get_parameter(name) for name, _ in plain.named_parameters()
             if name in dict(module.named_parameters())}  # fmt: skip
    for name in ("conv1", "conv2", "fc", "dep_conv"):
        state[f"{name}.weight"] = getattr(module, name).weight
    plain.load_state_dict(state)
    torch.testing.assert_close(module(x), plain(x))
    assert not torch.allclose(module(x), before, atol=0.01)


def test_pruned_layers_train():
    """Pruning computes a weight when its layer is called: two steps, each of them seen."""
    module, x = randomised(8, 8), torch.randn(2, 8, 16, 30)
    layers = [(module.fc, "weight"), (module.dep_conv, "weight"), (module.conv1, "weight")]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=0.5)
    optimizer, losses = torch.optim.SGD(module.parameters(), lr=0.01), []
    for _ in range(3):
        optimizer.zero_grad()
        loss = module(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]
    nn.init.zeros_(module.fc.weight_orig)
    assert not module.convolution_path(*module.project(x)).any()


@pytest.mark.parametrize("layer", ["fc", "dep_conv"])
def test_a_hook_has_its_layer_called(layer):
    module, x, seen = randomised(8, 8), torch.randn(2, 8, 16, 30), []
    before = module(x)
    handle = getattr(module, layer).register_forward_hook(lambda *_: seen.append(layer))
    torch.testing.assert_close(module(x), before)
    assert seen == [layer]
    handle.remove()
    module(x)
    assert seen == [layer]


class Adapted(nn.Conv2d):
    """A convolution with a weight beside its own, as adapters have it."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.beside = nn.Parameter(torch.randn_like(self.weight))

    def forward(self, x):
        return self._conv_forward(x, self.weight + self.beside, self.bias)


@pytest.mark.parametrize("kind, bias", [(Adapted, False), (nn.Conv2d, True)])
def test_what_stands_in_the_place_of_fc_is_called(kind, bias):
    module, x = randomised(8, 8), torch.randn(2, 8, 16, 30)
    module.fc = kind(12, 9, kernel_size=1, bias=bias)
    assert_alike(gradients(module, x), gradients(unfolded(module), x))
    for read in (deploy, ACmix.convolution_kernel, lambda m: m.effective_kernels(x[:1], 0, 0)):
        with pytest.raises(TypeError, match=r"module\.fc must compute what ACmix's own layer does"):
            read(module)


@pytest.mark.parametrize("name", ["conv1", "conv2", "conv3", "conv_p", "fc", "dep_conv"])
def test_every_layer_may_be_wrapped(name):
    module, x = randomised(8, 8), torch.randn(2, 8, 16, 30)
    expected = module(x)
    setattr(module, name, nn.Sequential(getattr(module, name)))
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("kind", ["backward", "backward_pre"])
def test_backward_hooks_fire(kind):
    module, seen = randomised(8, 8), []
    for layer in (module.fc, module.dep_conv):
        getattr(layer, f"register_full_{kind}_hook")(lambda layer, *_: seen.append(layer))
    module(torch.randn(2, 8, 16, 30)).sum().backward()
    assert seen == [module.dep_conv, module.fc]


@pytest.mark.parametrize("heads", [4, 16])
def test_many_heads_are_not_composed(heads):
    """With 16 of them the composition would have four times the multiply-adds."""
    module, x = randomised(32, 32, head=heads), torch.randn(1, 32, 9, 9)
    q, k, v = module.project(x)
    with FlopCounterMode(display=False) as counter:
        path = module.convolution_path(q, k, v)
    torch.testing.assert_close(path, unfolded(module).convolution_path(q, k, v))
    by_two = 2 * (27 + 81) * path.numel()
    assert (counter.get_total_flops() == by_two) == (heads == 16)


def test_a_symbolic_trace_is_told_what_to_do():
    with pytest.raises(TypeError, match=r"a Proxy came; make the module a leaf of torch\.fx"):
        torch.fx.symbolic_trace(randomised(8, 8))

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, module, name):
            return isinstance(module, ACmix | DeployedACmix) or super().is_leaf_module(module, name)

    network, x = ResNet([1, 1, 1, 1], num_classes=5).eval(), torch.randn(1, 3, 40, 33)
    for made in (network, deploy(network)):
        traced = torch.fx.GraphModule(made, Tracer().trace(made))
        assert torch.equal(traced(x), made(x))


def test_a_shallow_copy_loads_a_state():
    module = randomised(8, 8)
    state, shallow = module.state_dict(), copy.copy(module)
    del module
    shallow.load_state_dict(state)


def test_hooks_fire_once():
    module, seen = randomised(8, 8), []
    for name in ("conv1", "conv2", "conv3", "conv_p"):
        hook = lambda _, inputs, out, name=name: seen.append((name, list(out.shape)))  # noqa: E731
        getattr(module, name).register_forward_hook(hook)
    module(torch.randn(2, 8, 16, 30))
    projections = [(f"conv{i}", [2, 8, 16, 30]) for i in (1, 2, 3)]
    assert sorted(seen) == [*projections, ("conv_p", [1, 2, 16, 30])]


def test_operations_are_counted():
    module, x = randomised(64, 64), torch.randn(2, 64, 28, 28)
    counts = []
    for form in (module, unfolded(module)):
        with FlopCounterMode(display=False) as counter:
            form(x)
        counts.append(counter.get_total_flops())
    projections = 3 * 2 * 64 * 64 * x[:, 0].numel()
    assert projections < counts[0] < 8 * projections and projections < counts[1]


def test_meta_device_and_fake_tensors_know_the_shape():
    module, x = network(), torch.randn(2, 3, 44, 30)
    expected = module(x)
    with torch.device("meta"):
        empty = network()
        assert empty(torch.empty(2, 3, 44, 30)).shape == expected.shape
    filled = empty.to_empty(device="cpu")
    filled.load_state_dict(module.state_dict())
    assert torch.equal(filled(x), expected)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = module(mode.from_tensor(x))
    assert fake.shape == expected.shape


FORMS = {
    "module": lambda module, size: module,
    "deployed": lambda module, size: deploy(module),
    "dense": lambda module, size: deploy(module, size=size, convolution="dense"),
}
CASES = [
    ("module", 8, (32, 24), {}),
    ("module", 8, (31, 24), {"stride": 2}),
    ("module", 8, (30, 24), {"dilation": 2}),
    ("module", 8, (5, 3), {}),  # smaller than the window
    ("module", 64, (80, 60), {}),  # a 640×480 image at stride 8
    ("deployed", 64, (80, 60), {}),
    ("deployed", 8, (5, 3), {"stride": 2}),
    ("dense", 64, (80, 60), {}),
    ("dense", 8, (31, 24), {"stride": 2}),
]


@old_tracer
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(30, 22), (7, 7), (1, 6), (1, 1)])
def test_a_trace_is_right_at_every_size(form, size):
    module = randomised(8, 8, stride=2)
    traced = torch.jit.trace(FORMS[form](module, size), torch.randn(2, 8, *size))
    for other in (size, (40, 33), (9, 7), (1, 5), (3, 1)):
        x = torch.randn(3, 8, *other)
        torch.testing.assert_close(traced(x), unfolded(module)(x), rtol=1e-4, atol=1e-5)


@old_tracer
def test_a_trace_made_under_autocast_runs_without_it():
    module = randomised(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        traced = torch.jit.trace(module, torch.randn(2, 8, 30, 22), check_trace=False)
    x = torch.randn(3, 8, 40, 33)
    torch.testing.assert_close(
        traced(x), unfolded(module)(x), rtol=0.05, atol=0.1, check_dtype=False
    )


@old_tracer
def test_a_traced_network_is_right_at_every_size():
    module = ResNet([1, 1, 1, 1], num_classes=5).eval()
    traced = torch.jit.trace(module, torch.randn(2, 3, 64, 48))
    for size in ((64, 48), (33, 90), (128, 96)):
        x = torch.randn(1, 3, *size)
        torch.testing.assert_close(traced(x), unfolded(module)(x), rtol=1e-4, atol=1e-4)


@old_tracer
@pytest.mark.parametrize("form", FORMS)
def test_a_trace_holds_what_core_ml_converts(form):
    """It lacks three operations, and what it has divided is no index until it is made whole."""
    model, x = FORMS[form](randomised(8, 8), (30, 22)), torch.randn(1, 8, 30, 22)
    graph = torch.jit.trace(model, x).inlined_graph
    lacking = {"aten::addcmul", "aten::movedim", "aten::new_ones"}
    assert not lacking & {node.kind() for node in graph.nodes()}
    indices = [[*node.inputs()][2] for node in graph.findAllNodes("aten::index_select")]
    assert [index.node().kind() for index in indices] == ["aten::to"] * 4


def compiled(module: nn.Module, backend="aot_eager", **options):
    torch._dynamo.reset()
    count = CompileCounterWithBackend(backend)
    return torch.compile(module, fullgraph=True, backend=count, **options), count


@pytest.mark.parametrize("size", [(44, 30), (9, 7)])
def test_compiled_in_one_graph(size):
    module, x = network(), torch.randn(2, 3, *size)
    run, count = compiled(module)
    assert_alike(gradients(module, x, run), gradients(unfolded(module), x))
    assert count.frame_count == 1


@pytest.mark.filterwarnings("ignore:`torch.jit.script")  # torch's own
def test_compiled_to_machine_code():
    module, x = randomised(4, 4, head=2), torch.randn(2, 4, 4, 3)
    run, _ = compiled(module, "inductor")
    assert_alike(gradients(module, x, run), gradients(unfolded(module), x))


@pytest.mark.filterwarnings("ignore:`torch.jit.script")
def test_compiled_to_machine_code_for_several_sizes():
    module = randomised(4, 4, head=2)
    run, count = compiled(module, "inductor")
    for size in ((20, 21), (24, 18)):
        x = torch.randn(2, 4, *size)
        assert_alike(gradients(module, x, run), gradients(unfolded(module), x))
    assert count.frame_count == 2


def test_compiled_once_for_all_batches_and_once_for_each_size():
    module = randomised(8, 8)
    run, count = compiled(module, dynamic=True)
    for graphs, size in ((1, (9, 7)), (2, (32, 24)), (3, (33, 25))):
        for batch in (2, 3, 7):
            x = torch.randn(batch, 8, *size)
            torch.testing.assert_close(run(x), unfolded(module)(x), rtol=1e-4, atol=1e-5)
        assert count.frame_count == graphs


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(32, 24), (5, 3)])
def test_exported_with_an_open_batch(form, size, strict):
    module = randomised(8, 8)
    model = FORMS[form](module, size)
    program = torch.export.export(
        model, (torch.randn(2, 8, *size),), dynamic_shapes=({0: Dim("b")},), strict=strict
    )
    for batch in (1, 2, 5):
        x = torch.randn(batch, 8, *size)
        torch.testing.assert_close(program.module()(x), unfolded(module)(x), rtol=1e-4, atol=1e-5)


OPEN = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", [{}, {"stride": 2, "dilation": 3}], ids=str)
def test_exported_with_an_open_size(form, options):
    module = randomised(8, 8, **options)
    model = FORMS[form](module, (40, 34))
    program = torch.export.export(model, (torch.randn(2, 8, 40, 34),), dynamic_shapes=(OPEN,))
    for size in ((40, 34), (33, 47), (48, 18), (8, 8), (3, 40), (17, 3)):
        x = torch.randn(3, 8, *size)
        torch.testing.assert_close(program.module()(x), unfolded(module)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(24, 20), (9, 7)])
def test_an_export_holds_core_operators_only(form, size):
    """Those are what ExecuTorch, LiteRT and their like know."""
    module, x = randomised(8, 8), torch.randn(2, 8, *size)
    program = torch.export.export(FORMS[form](module, size), (x,))
    program = program.run_decompositions(core_aten_decompositions())
    torch.testing.assert_close(program.module()(x), unfolded(module)(x), rtol=1e-4, atol=1e-5)
    called = {n.target for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload)}
    others = {str(target) for target in called if torch.Tag.core not in target.tags}
    assert others <= {"aten._assert_tensor_metadata.default"}


@pytest.mark.parametrize("form", ["module", "deployed"])
@pytest.mark.parametrize("size", [(40, 34), (9, 7)])
def test_an_export_made_under_autocast_runs_without_it(form, size):
    """PyTorch records no casts: what runs the graph decides, and the graph follows."""
    module, x = randomised(8, 8), torch.randn(2, 8, *size)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        run = torch.export.export(FORMS[form](module, size), (x,)).module()
        assert run(x).dtype == torch.bfloat16
    torch.testing.assert_close(run(x), unfolded(module)(x), rtol=1e-4, atol=1e-5)


def test_exported_small_for_sizes_with_bounds():
    """What is one tile at the size of the export may be several elsewhere."""
    module, side = randomised(8, 8), {"min": 2, "max": 100}
    sizes = {0: Dim("b"), 2: Dim("h", **side), 3: Dim("w", **side)}
    x = torch.randn(2, 8, 7, 8)
    program = torch.export.export(module, (x,), dynamic_shapes=(sizes,)).module()
    for size in ((2, 2), (8, 9), (31, 100)):
        x = torch.randn(3, 8, *size)
        torch.testing.assert_close(program(x), unfolded(module)(x), rtol=1e-4, atol=1e-5)


def through_exporters(test):
    for mark in exporters:
        test = mark(test)
    return test


def to_onnx(model: nn.Module, x: torch.Tensor, path, dynamo: bool, open_size: bool = False):
    """Export with an open batch, check the file, and return what runs it."""
    if dynamo:
        shapes = OPEN if open_size else {0: Dim.DYNAMIC}
        how = {"dynamic_shapes": (shapes,), "verbose": False}
    else:
        axes = {0: "batch"} | ({2: "height", 3: "width"} if open_size else {})
        how = {"dynamic_axes": {"x": axes}, "opset_version": 14}
    torch.onnx.export(model, (x,), path, dynamo=dynamo, input_names=["x"], **how)
    onnx.checker.check_model(path, full_check=True)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


@through_exporters
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "older exporter"])
@pytest.mark.parametrize(("form", "channels", "size", "options"), CASES)
@torch.no_grad()
def test_onnx_file_with_an_open_batch(dynamo, form, channels, size, options, tmp_path):
    module = randomised(channels, channels, **options)
    model, x = FORMS[form](module, size), torch.randn(2, channels, *size)
    run = to_onnx(model, x, tmp_path / "acmix.onnx", dynamo)
    for batch in (1, 3):
        x = torch.randn(batch, channels, *size)
        torch.testing.assert_close(run(x), unfolded(module)(x), rtol=1e-4, atol=1e-4)


@through_exporters
@torch.no_grad()
def test_onnx_export_says_nothing_of_log_0(tmp_path, caplog):
    """Where warnings are errors, as here, what folds the constants says that it failed."""
    to_onnx(randomised(8, 8), torch.randn(2, 8, 14, 13), tmp_path / "acmix.onnx", dynamo=True)
    assert "divide by zero" not in caplog.text


@through_exporters
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "older exporter"])
@pytest.mark.parametrize("form", ["module", "dense"])
@torch.no_grad()
def test_onnx_file_with_an_open_size(dynamo, form, tmp_path):
    module = randomised(8, 8)
    model, x = FORMS[form](module, (32, 24)), torch.randn(2, 8, 32, 24)
    run = to_onnx(model, x, tmp_path / "acmix.onnx", dynamo, open_size=True)
    for size in ((32, 24), (37, 29), (9, 50), (80, 60), (5, 3)):
        x = torch.randn(3, 8, *size)
        torch.testing.assert_close(run(x), unfolded(module)(x), rtol=1e-4, atol=1e-4)


@through_exporters
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "older exporter"])
@torch.no_grad()
def test_onnx_file_of_a_network(dynamo, tmp_path):
    model = network() if dynamo else ResNet([1, 1, 1, 1], num_classes=5).eval()
    run = to_onnx(model, torch.randn(2, 3, 80, 60), tmp_path / "network.onnx", dynamo)
    x = torch.randn(3, 3, 80, 60)
    torch.testing.assert_close(run(x), unfolded(model)(x), rtol=1e-4, atol=1e-4)
