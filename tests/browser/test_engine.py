"""engine.js against the package: every stage, on random configurations and the golden vectors."""

import base64
import random
from types import MappingProxyType

import numpy as np
import pytest
import torch

from acmix_edu import ACmix

PATHS = ("attention", "convolution", "mix")
CONFIGURATIONS, BATCH = 500, 50

RUN = """(cases) => {
  const plain = (value) => Array.from(value.data ?? value);
  const packed = (value) => {  // float64 bytes as base64: Playwright is slow with long lists
    const bytes = new Uint8Array(Float64Array.from(plain(value)).buffer);
    let text = "";
    for (let n = 0; n < bytes.length; n += 8192) {
      text += String.fromCharCode(...bytes.subarray(n, n + 8192));
    }
    return btoa(text);
  };
  return cases.map(({ x, weights, sizes, pixel }) => {
    const made = acmix({ ...x, data: Float32Array.from(x.data) }, weights, sizes);
    const { heads, kernelAtt, kernelConv, dilation } = sizes;
    const channels = made.q.channels, inPlanes = x.channels, d = channels / heads;
    const side = Math.max((kernelAtt - 1) * dilation + 1, kernelConv), taps = kernelAtt ** 2;
    const [i, j, c] = pixel, pixels = made.out.height * made.out.width;
    const place = (Math.floor(c / d) * pixels + i * made.out.width + j) * taps;
    const window = made.attention.subarray(place, place + taps);
    const projections = ["q", "k", "v"].map((name) => weights[name].weight);
    const att = attentionKernel(window, weights.v.weight, c, inPlanes);
    const conv = convolutionKernel(made.fused, projections, c, { heads, channels, inPlanes });
    const grids = [onGrid(sumInputs(att, inPlanes), dilation, side),
      onGrid(sumInputs(conv, inPlanes), 1, side)];
    const mixed = mixGrids(...grids, weights.alpha, weights.beta);
    const norms = [norm(made.outAtt.data), norm(made.outConv.data)];
    const all = { ...made, share: [normShare(...norms, weights.alpha, weights.beta)],
      entropy: [entropyFraction(window)],
      kernels: [...grids, mixed].map((grid) => plain(grid.map((v) => (isNaN(v) ? 0 : v)))).flat(),
      shift: shiftKernels(channels, kernelConv) };
    return Object.fromEntries(Object.entries(all).map(([name, v]) => [name, packed(v)]));
  });
}"""


def random_configuration(rng):
    """Draw a module's arguments and a map's sides: odd, prime, non-square, down to 1×1."""
    heads = rng.randint(1, 4)
    return {
        "in_planes": rng.randint(1, 6),
        "out_planes": heads * rng.randint(1, 4),
        "kernel_att": rng.randrange(1, 14, 2),
        "head": heads,
        "kernel_conv": rng.choice([1, 3, 5, 7]),
        "stride": rng.randint(1, 3),
        "dilation": rng.randint(1, 4),
    }, (rng.choice([1, 2, 3, 5, 7, 8, 11]), rng.choice([1, 2, 3, 4, 7, 9, 13]))


def randomised(module, generator):
    """Fill every parameter, the shift kernels too, so that no order of channels is hidden."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def numbers(tensor):
    return tensor.detach().flatten().tolist()


def as_case(module, x, pixel):
    """What the page gets: numbers that float32 holds exactly."""
    names = {"q": "conv1", "k": "conv2", "v": "conv3", "position": "conv_p"}
    weights = {}
    for role, name in names.items():
        layer = getattr(module, name)
        weights[role] = {"weight": numbers(layer.weight), "bias": numbers(layer.bias)}
    weights |= {"fc": numbers(module.fc.weight), "dep": numbers(module.dep_conv.weight)}
    weights |= {"alpha": module.rate1.item(), "beta": module.rate2.item()}
    sizes = {"heads": module.head, "kernelAtt": module.kernel_att, "stride": module.stride}
    sizes |= {"kernelConv": module.kernel_conv, "dilation": module.dilation}
    channels, height, width = x.shape[1:]
    image = {"data": numbers(x), "channels": channels, "height": height, "width": width}
    return {"x": image, "weights": weights, "sizes": sizes, "pixel": pixel}


def expected(module, x, pixel):
    """The same stages in Python, in double precision."""
    module, x = module.double(), x.double()
    i, j, c = pixel
    with torch.no_grad():
        stages = module.explain(x)
        kernels = module.effective_kernels(x, i, j)
        share = module.norm_share(x)
    n, d, m = module.head, module.head_dim, 3 * module.head
    fused = torch.einsum("otpr,tm->ompr", module.dep_conv.weight, module.fc.weight.flatten(1))
    assert fused.shape == (n * d, m, module.kernel_conv, module.kernel_conv)
    window = stages["att"][0, c // d, :, i, j]
    entropy = -torch.special.xlogy(window, window).sum() / max(np.log(len(window)), 1e-300)
    terms = max(kernels[path][c].abs().sum(0).max().item() for path in PATHS)
    return {
        **{name: stages[name] for name in ("q", "k", "v", "pe", "out")},
        "attention": stages["att"][0].flatten(2).transpose(1, 2),  # [N, pixels, k²]
        "outAtt": stages["out_att"],
        "outConv": stages["out_conv"],
        "fused": fused,
        "share": share,
        "entropy": entropy,
        "kernels": torch.stack([kernels[path][c].sum(0) for path in PATHS]),
        "shift": ACmix(
            module.in_planes, module.out_planes, head=n, kernel_conv=module.kernel_conv
        ).dep_conv.weight,
    }, {"kernels": terms}


def run(beside, cases):
    """Evaluate the cases by engine.js in the page: for each, every stage as a flat array."""
    made = beside(["engine.js"], RUN, cases)
    return [{n: np.frombuffer(base64.b64decode(v)) for n, v in stages.items()} for stages in made]


def assert_equal(got, want, what, cancelled=MappingProxyType({})):
    """Compare to 1e-5, relative to the largest value; entropy and share are fractions of 1.

    ``cancelled``: how large the terms of a sum are, by stage, where they nearly cancel.
    """
    assert set(want) == set(got)
    for name, tensor in want.items():
        g, w = got[name], tensor.detach().double().flatten().numpy()
        assert g.shape == w.shape, f"{what}: {name} has {g.size} values, not {w.size}"
        largest = 1 if name in ("entropy", "share") else np.abs(w).max()
        error = np.abs(g - w).max() / max(largest, cancelled.get(name, 0), 1e-30)
        assert error < 1e-5, f"{what}: {name} is off by {error:.1e} of its largest value"


@pytest.mark.parametrize("batch", range(CONFIGURATIONS // BATCH))
def test_engine_equals_package(beside, batch):
    torch.set_num_threads(1)
    rng, generator = random.Random(batch), torch.Generator().manual_seed(batch)
    cases, wants, labels = [], [], []
    for _ in range(BATCH):
        config, (height, width) = random_configuration(rng)
        module = randomised(ACmix(**config), generator)
        x = torch.randn(1, config["in_planes"], height, width, generator=generator)
        sides = [-(-side // config["stride"]) for side in (height, width)]
        pixel = [*(rng.randrange(side) for side in sides), rng.randrange(config["out_planes"])]
        cases.append(as_case(module, x, pixel))
        wants.append(expected(module, x, pixel))  # stages, sizes of terms
        labels.append(f"{config} on {height}×{width}, pixel and channel {pixel}")
    for got, want, label in zip(run(beside, cases), wants, labels, strict=True):
        assert_equal(got, want[0], label, want[1])


def test_engine_equals_published_module(beside, golden, published):
    cases = [as_case(published, image[None], [0, 0, 0]) for image in golden["x"]]
    for got, want in zip(run(beside, cases), golden["y"], strict=True):
        assert_equal({"out": got["out"]}, {"out": want}, "the published module")


def test_reflect_is_numpys(beside):
    """Where an index lands, far beyond several borders."""
    sides = range(1, 8)
    everywhere = """(sides) => sides.map((side) =>
      [...Array(41).keys()].map((n) => reflect(n - 20, side)))"""
    got = beside(["engine.js"], everywhere, list(sides))
    for side, indices in zip(sides, got, strict=True):
        padded = np.pad(np.arange(side), 20, mode="reflect" if side > 1 else "edge")
        assert indices == padded[:41].tolist()
