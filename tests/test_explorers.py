"""The explorers in Python: one module of several files, arguments, traits, what to take away."""

import gzip
import inspect
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrizations, prune
from traitlets import TraitError

from acmix_edu import ACmix, explorers
from acmix_edu.examples import colour_features
from acmix_edu.explorers import MixingExplorer
from acmix_edu.explorers.explorer import Explorer
from acmix_edu.explorers.loader import bundle, source
from acmix_edu.training.network import OnePath

CLASSES = [getattr(explorers, name) for name in explorers.__all__]
FILES = {  # the JavaScript files of each explorer, as its class names them
    cls.__name__: re.findall(r'"(\w+\.js)"', inspect.getsource(cls))
    for cls in CLASSES
    if issubclass(cls, Explorer)
}


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = ACmix(3, 8, kernel_att=5, head=2, kernel_conv=3, stride=2, dilation=2)
    torch.nn.init.normal_(module.dep_conv.weight)
    return module


@pytest.fixture
def explorer(module):
    return MixingExplorer(module, torch.rand(3, 9, 14))


# ---- One module of several files -------------------------------------------------------------


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_bundle_is_one_module(files):
    text = bundle(*files)
    assert not re.search(r"^import\b", text, re.MULTILINE)
    assert len(re.findall(r"^export default explorer\(", text, re.MULTILINE)) == 1
    assert len(re.findall(r"^export\b", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_bundled_names_differ(files):
    text = "\n".join(map(source, files))
    names = re.findall(r"^(?:export )?(?:const|let|function|class)\s+(\w+)", text, re.MULTILINE)
    assert len(names) == len(set(names)) > 20


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_bundle_is_light(files):
    """Without comments and indentation; at most 16 KiB of a page, packed."""
    text = bundle(*files)
    assert not re.search(r"^\s*//|  //|^[ \t]", text, re.MULTILINE)
    assert len(gzip.compress(text.encode())) <= 16 * 1024


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_imports_are_exported(files):
    """Each file is a module of its own too: what it imports, the named file exports."""
    for name in files:
        for wanted, file in re.findall(r'import\s+\{([^}]*)\}\s+from\s+"\./(.*)";', source(name)):
            exported = re.findall(r"^export (?:function|const) (\w+)", source(file), re.MULTILINE)
            assert set(re.findall(r"\w+", wanted)) <= set(exported)


def test_package_works_without_anywidget():
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "import acmix_edu\n"
        "try: import acmix_edu.explorers\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "acmix-edu[book]"' in said.stdout


# ---- What the view gets ----------------------------------------------------------------------


def test_starts_as_the_module(module, explorer):
    assert explorer.alpha == module.rate1.item() and explorer.beta == module.rate2.item()
    assert (explorer.kernel_att, explorer.dilation, explorer.kernel_conv) == (5, 2, 3)
    assert explorer.pixel == (2, 3)  # the middle of the 5×7 output


def test_sends_the_weights(module, explorer):
    sent = np.frombuffer(explorer.weights, np.float32)
    places = explorer.places["own"]
    for name, value in module.state_dict().items():
        first, end = places[name.replace(".", "_")]
        np.testing.assert_array_equal(sent[first:end], value.flatten().numpy())
    assert max(end for _, end in places.values()) == len(sent)


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(3, 4, 5),
        torch.rand(1, 3, 4, 5).double(),
        np.random.default_rng(0).random((3, 4, 5)),
        np.random.default_rng(0).random((4, 5, 3)).transpose(2, 0, 1),
        np.random.default_rng(0).random((3, 4, 10))[:, :, ::-2].tolist(),
        torch.rand(3, 5, 4).half().mT.requires_grad_(),
    ],
)
def test_takes_any_floats(module, image):
    explorer = MixingExplorer(module, image)
    x = image.detach() if isinstance(image, torch.Tensor) else torch.tensor(np.array(image))
    wanted = x.float().reshape(3, 4, 5).numpy()
    sent = np.frombuffer(explorer.image, np.float32).reshape(3, 4, 5)
    np.testing.assert_array_equal(sent, wanted)
    np.testing.assert_array_equal(explorer.current_image().numpy(), wanted)
    explorer.current_image().zero_()  # a copy
    np.testing.assert_array_equal(explorer.current_image().numpy(), wanted)


def test_later_training_does_not_change_it(module, explorer):
    x = explorer.current_image()[None]
    before = explorer.current_module()(x)
    torch.nn.init.zeros_(module.conv3.weight)
    torch.testing.assert_close(explorer.current_module()(x), before, rtol=0, atol=0)


def test_starts_folded_unless_told_otherwise(module, explorer):
    assert explorer.more is False and explorer.start["more"] is False
    opened = MixingExplorer(module, torch.rand(3, 9, 14), more=True)
    assert opened.more is True and opened.start["more"] is True


# ---- What to take away -----------------------------------------------------------------------


def test_current_module_is_the_module(module, explorer):
    x = torch.rand(1, 3, 9, 14)
    torch.testing.assert_close(explorer.current_module()(x), module(x).detach(), rtol=0, atol=0)


def test_current_module_follows_the_traits(module, explorer):
    x = torch.rand(1, 3, 9, 14)
    explorer.alpha, explorer.beta, explorer.kernel_att, explorer.dilation = 0.25, -1.5, 3, 1
    wanted = ACmix(3, 8, kernel_att=3, head=2, kernel_conv=3, stride=2)
    wanted.load_state_dict(
        module.state_dict() | {"rate1": torch.tensor([0.25]), "rate2": torch.tensor([-1.5])}
    )
    torch.testing.assert_close(explorer.current_module()(x), wanted(x).detach(), rtol=0, atol=0)


def test_another_kernel_is_seeded_and_starts_as_shifts(module):
    first, second = (MixingExplorer(module, torch.rand(3, 4, 4)) for _ in range(2))
    first.kernel_conv = second.kernel_conv = 5
    made, again = first.current_module(), second.current_module()
    torch.testing.assert_close(made.fc.weight, again.fc.weight, rtol=0, atol=0)
    assert made.fc.weight.shape == (25, 6, 1, 1) and made.fc.weight.std() > 0.1
    fresh = ACmix(3, 8, head=2, kernel_conv=5)
    torch.testing.assert_close(made.dep_conv.weight, fresh.dep_conv.weight.detach())
    first.kernel_conv = 3
    torch.testing.assert_close(first.current_module().fc.weight, module.fc.weight.detach())


def test_several_modules_to_choose_from(module):
    torch.manual_seed(1)
    other = ACmix(3, 8, kernel_att=5, head=2, kernel_conv=3, stride=2, dilation=2)
    torch.nn.init.constant_(other.rate1, -0.25)
    explorer = MixingExplorer({"first": module, "second": other}, torch.rand(3, 9, 14))
    assert (explorer.preset, explorer.alpha) == ("first", 0.5)
    explorer.preset = "second"
    assert explorer.alpha == -0.25  # a preset brings its rates
    explorer.set_state({"preset": "first", "alpha": 1.0, "beta": 0.25})  # a link, in the view
    assert (explorer.alpha, explorer.beta) == (1.0, 0.25)
    explorer.preset = "second"
    x = torch.rand(1, 3, 9, 14)
    assert torch.equal(explorer.current_module()(x), other(x).detach())
    with pytest.raises(ValueError, match=r"one of .'first', 'second'., but 'third' came"):
        explorer.preset = "third"
    with pytest.raises(ValueError, match=r"must agree in .*head"):
        MixingExplorer({"a": module, "b": ACmix(3, 8, head=4)}, torch.rand(3, 9, 14))
    with pytest.raises(TypeError, match=r"module must be .*dict"):
        MixingExplorer({}, torch.rand(3, 9, 14))


def test_the_readers_picture_comes_back(module):
    explorer = MixingExplorer(module, torch.rand(3, 9, 14))
    own = torch.rand(3, 9, 14)
    explorer.set_state({"image": memoryview(own.numpy().tobytes())})  # as the view's message does
    assert torch.equal(explorer.current_image(), own)
    with pytest.raises(ValueError, match=r"image must be 378 float32 numbers, \[3, 9, 14\]"):
        explorer.image = b"1234"
    with pytest.raises(ValueError, match="image must be finite"):
        explorer.image = own.mul(torch.nan).numpy().tobytes()


@pytest.mark.parametrize(
    ("image", "lift"),
    [
        (torch.rand(3, 4, 4), "picture"),
        (torch.rand(3, 4, 4) - 0.5, ""),
        (colour_features(torch.rand(3, 4, 4)), "colour"),
        (torch.rand(4, 4, 4) / 2, ""),
        (torch.rand(5, 4, 4), ""),
    ],
)
def test_knows_which_images_are_pictures(image, lift):
    assert MixingExplorer(ACmix(len(image), 8), image).sizes["lift"] == lift


def test_walks_where_the_image_changes():
    row, column = torch.meshgrid(torch.arange(41) - 20, torch.arange(60) - 30, indexing="ij")
    disc = (torch.hypot(row.float(), column.float()) < 12).float()
    edges = torch.tensor(MixingExplorer(ACmix(1, 8), disc).sizes["edges"])
    away = torch.hypot(edges[:, 0] - 20.0, edges[:, 1] - 30.0)
    assert len(edges.unique(dim=0)) == 12 and 10.5 < away.min() and away.max() < 12.5
    halves = MixingExplorer(ACmix(1, 8, stride=2), disc).sizes["edges"]
    assert torch.equal(torch.tensor(halves), edges // 2)  # pixels of the output
    assert MixingExplorer(ACmix(1, 8), torch.rand(1, 1, 1)).sizes["edges"] == [[0, 0]] * 12


# ---- What is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "image", "error", "says"),
    [
        (torch.nn.Conv2d(3, 8, 3), torch.rand(3, 4, 4), TypeError, "module must be .*Conv2d"),
        (OnePath(3, 8, 3, "attention"), torch.rand(3, 4, 4), TypeError, "OnePath has a forward"),
        (ACmix(3, 8), torch.rand(4, 8, 8), ValueError, r"\[3, H, W\].*\[4, 8, 8\]"),
        (ACmix(3, 8), torch.rand(2, 3, 8, 8), ValueError, r"\[2, 3, 8, 8\]"),
        (ACmix(3, 8), torch.rand(8, 8), ValueError, r"\[8, 8\] came"),
        (ACmix(3, 8), torch.rand(3, 0, 8), ValueError, r"\[3, 0, 8\]"),
        (ACmix(3, 8), "flower.jpg", TypeError, "str came"),
        (ACmix(3, 8), None, TypeError, "NoneType came"),
        (ACmix(3, 8), torch.zeros(3, 4, 4, dtype=torch.uint8), TypeError, "uint8.*/ 255"),
        (ACmix(3, 8), torch.rand(3, 129, 128), ValueError, "129×128 came; make it smaller"),
        (ACmix(3, 8), torch.full((3, 4, 4), torch.nan), ValueError, "finite"),
        (ACmix(3, 8), torch.ones(3, 4, 4).double() * 1e300, ValueError, "finite"),
    ],
)
def test_refuses(module, image, error, says):
    with pytest.raises(error, match=says):
        MixingExplorer(module, image)


@pytest.mark.parametrize(
    ("trait", "value", "says"),
    [
        ("alpha", float("nan"), "alpha must be finite"),
        ("kernel_att", 4, "kernel_att must be odd"),
        ("kernel_att", -1, "kernel_att must be at least 1"),
        ("kernel_att", 15, "kernel_att must be at most 13"),
        ("dilation", 0, "dilation must be at least 1"),
        ("dilation", 5, "dilation must be at most 4"),
        ("kernel_conv", 9, r"one of \[1, 3, 5, 7\], but 9 came"),
        ("head", 2, "head must be from 0 to 1"),
        ("channel", -1, "channel must be from 0 to 3"),
        ("pixel", (5, 0), "row must be from 0 to 4"),
        ("pixel", (0, 7), "column must be from 0 to 6"),
    ],
)
def test_refuses_a_trait(explorer, trait, value, says):
    before = getattr(explorer, trait)
    with pytest.raises(ValueError, match=says):
        setattr(explorer, trait, value)
    assert getattr(explorer, trait) == before


@pytest.mark.parametrize(
    ("argument", "error", "says"),
    [
        ({"head": 1.0}, TypeError, "head must be a whole number"),
        ({"channel": "a"}, TypeError, "channel must be a whole number"),
        ({"channel": 4}, ValueError, "channel must be from 0 to 3"),
        ({"pixel": 3}, ValueError, "column must be|row must be"),
        ({"pixel": (1.5, 0)}, TypeError, "pixel must be a whole number"),
        ({"pixel": (1, 2, 3)}, ValueError, "pixel must be an int or a pair"),
    ],
)
def test_refuses_an_argument(argument, error, says):
    with pytest.raises(error, match=says):
        MixingExplorer(ACmix(3, 8, head=2), torch.rand(3, 3, 3), **argument)


@pytest.mark.parametrize("value", ["true", 2, None])
def test_more_is_true_or_false(module, explorer, value):
    with pytest.raises(TraitError, match="'more' trait"):
        explorer.more = value
    with pytest.raises(TraitError, match="'more' trait"):
        MixingExplorer(module, torch.rand(3, 9, 14), more=value)
    assert explorer.more is False


def test_takes_integers_of_numpy(module):
    explorer = MixingExplorer(
        module, torch.rand(3, 9, 14), head=np.int64(1), pixel=np.array([4, 6]).tolist()
    )
    assert (explorer.head, explorer.pixel) == (1, (4, 6))


def test_refuses_weights_that_are_computed_from_others(module):
    parametrizations.weight_norm(module.conv1)
    prune.l1_unstructured(module.fc, "weight", amount=0.5)
    with pytest.raises(TypeError, match=r"but conv1.weight, fc.weight is computed .* or left out"):
        MixingExplorer(module, torch.rand(3, 9, 14))


def test_sends_float32_whatever_the_default_and_the_module(module):
    first = MixingExplorer(module, torch.rand(3, 9, 14))
    torch.set_default_dtype(torch.float64)
    try:
        second = MixingExplorer(module.double(), torch.rand(3, 9, 14))
        again = second.current_module()
    finally:
        torch.set_default_dtype(torch.float32)
    assert first.weights == second.weights and first.places == second.places
    assert again(second.current_image()[None]).dtype == torch.float32


def test_data_is_read_only(explorer):
    with pytest.raises(TraitError):
        explorer.weights = b""
