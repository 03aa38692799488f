"""A trained ACmix that can be read: it takes the noise out of photographs. Chapter 09 shows it.

Run ``python -m acmix_edu.training.denoise`` from the root of the repository. It takes one core
about an hour, and writes the weights, what they reach, and the film of their training.

The network is small: :func:`acmix_edu.examples.colour_features` of the noisy picture, the operator
under test from 4 to 16 channels, and a 1×1 convolution to 3 colours. It trains on crops of two
photographs; the third, the flower, is held out. Every operator is trained at four rates with three
seeds, and :func:`best_rate` chooses one of the rates on the photographs of training. At that rate
ten fresh seeds are trained, and compared on the flower.
"""

import argparse
import copy
import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from acmix_edu.acmix import ACmix
from acmix_edu.examples import colour_features, photograph
from acmix_edu.training.loop import write_whole
from acmix_edu.training.network import ARMS, observe
from acmix_edu.training.released import FILM, WEIGHTS, library, write

SIDE, NOISE = 48, 0.1
STEPS, BATCH, RATE = 1000, 2, 0.02
RATES = (RATE / 16, RATE / 4, RATE, 4 * RATE)


def _wide(before: int, planes: int, window: int) -> nn.Conv2d:
    return nn.Conv2d(before, planes, window, padding=window // 2)


def _deep(before: int, planes: int, window: int) -> nn.Sequential:
    """Stack 3×3 convolutions until they see what one window sees, with ReLUs between them."""
    first, *others = [_wide(planes if n else before, planes, 3) for n in range(window // 2)]
    return nn.Sequential(first, *(part for conv in others for part in (nn.ReLU(), conv)))


OPERATORS = ARMS | {  # as wide as the window of attention
    "conv7x7": _wide,
    "relu7x7": lambda *sizes: nn.Sequential(_wide(*sizes), nn.ReLU()),
    "three3x3": _deep,
}
COMPARED = ("conv3x3", "conv7x7", "relu7x7", "three3x3", "convolution", "attention", "acmix",
            "lost-init", "small-beta")  # fmt: skip
RELEASED = "small-beta"
FILMED = ("acmix", "lost-init", "small-beta")
FRAMES = 40
SEEDS, FRESH = range(3), range(3, 13)


def noisy(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Add Gaussian noise of standard deviation 0.1 and clip to 0 … 1."""
    noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    return (clean + NOISE * noise).clamp(0, 1)


def held_out(picture: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a picture clean and noisy, with the same noise at every call.

    When left out, the picture is the flower, ``[1, 3, 48, 48]``, which no denoiser here trains on.
    """
    picture = photograph("flower", SIDE) if picture is None else picture
    return picture, noisy(picture, torch.Generator().manual_seed(7))


@functools.cache
def _photographs() -> list[torch.Tensor]:
    return [photograph(name, size)[0] for name in ("china", "grace_hopper")
            for size in (SIDE, 72, 96, 144)]  # fmt: skip


def _crop(photographs: list[torch.Tensor], generator: torch.Generator) -> tuple:
    """Return a square of one of the photographs, and a random number for whether to mirror it."""
    which, top, left, chance = torch.rand(4, generator=generator).tolist()
    photo = photographs[int(which * len(photographs))]
    room = photo.shape[-1] - SIDE + 1
    i, j = int(top * room), int(left * room)
    return photo[:, i : i + SIDE, j : j + SIDE], chance


def _batch(generator: torch.Generator) -> torch.Tensor:
    crops = [_crop(_photographs(), generator) for _ in range(BATCH)]
    return torch.stack([crop.flip(-1) if chance < 0.5 else crop for crop, chance in crops])


def trials(held: bool, count: int = 24) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return crops, clean and noisy, to choose a rate by or to compare the operators on.

    Args:
        held: crop the flower, at the scales of training, instead of the photographs of training.
        count: the number of crops. They are the same at every call, each with a noise of its own.

    Example:
        >>> len(trials(held=True))
        24
    """
    sizes, generator = (SIDE, 72, 96, 144), torch.Generator().manual_seed(1000 * (1 + held))
    photographs = [photograph("flower", size)[0] for size in sizes] if held else _photographs()
    crops = (_crop(photographs, generator)[0][None] for _ in range(count))
    return [(crop, noisy(crop, generator)) for crop in crops]


def psnr(picture: torch.Tensor, clean: torch.Tensor) -> float:
    """Return a picture's peak signal-to-noise ratio in dB.

    The picture is clipped to 0 … 1 first. Halving the error adds 6.
    """
    return -10 * math.log10(F.mse_loss(picture.clamp(0, 1), clean).item())


def _start(arm: str, seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        head = nn.Conv2d(16, 3, 1)  # first: the arms share it
        denoiser = nn.Sequential()
        denoiser.add_module("operator", OPERATORS[arm](4, 16, 7))
        denoiser.add_module("head", head)
    return denoiser


GAIN, CENTRE = 4.0, (0.0, 0.0, 0.0, math.sqrt(3))


def _scaled(features: torch.Tensor) -> torch.Tensor:
    """Scale colour features to about zero mean and unit size, on which training is quicker."""
    return GAIN * (features - features.new_tensor(CENTRE)[:, None, None])


def fold(denoiser: nn.Sequential) -> nn.Sequential:
    """Return a copy whose projections do the scaling, with the same result on plain features."""
    folded = copy.deepcopy(denoiser)
    with torch.no_grad():
        for conv in ("operator.conv1", "operator.conv2", "operator.conv3"):
            weight, bias = map(folded.get_parameter, (f"{conv}.weight", f"{conv}.bias"))
            weight.mul_(GAIN)
            bias.sub_(weight[:, :, 0, 0] @ weight.new_tensor(CENTRE))
    return folded


def train_denoiser(
    arm: str,
    seed: int = 0,
    rate: float = RATE,
    steps: int = STEPS,
    watch: Callable[[int, nn.Sequential, float], None] = lambda step, denoiser, loss: None,
) -> nn.Sequential:
    """Train operator and head, with the same numbers at every call on one core.

    Adam minimises the mean squared error. The rate follows a half cosine, and is five times larger
    for the projections to q and k, because attention starts almost even and would otherwise stay so
    for long.

    Args:
        arm: a name from ``ARMS``, or "conv7x7", or "relu7x7", which has a ReLU after it, or
            "three3x3", with ReLUs between its three convolutions.
        seed: of weights, crops and noise.
        rate: Adam's, at the start.
        steps: of two crops each.
        watch: called before the first step and after each, with the step's number, the denoiser as
            it is then, and the step's loss.

    Returns:
        A network from *scaled* features to colours; :func:`fold` makes it take plain ones.
    """
    denoiser, generator = _start(arm, seed), torch.Generator().manual_seed(100 + seed)
    asked = [p for name, p in denoiser.named_parameters()
             if name.startswith(("operator.conv1", "operator.conv2"))]  # fmt: skip
    rest = [p for p in denoiser.parameters() if all(p is not q for q in asked)]
    groups: list[dict] = [{"params": asked, "lr": 5 * rate}, {"params": rest}]
    optimizer = torch.optim.Adam(groups, rate)
    falling = LambdaLR(optimizer, lambda n: (1 + math.cos(math.pi * n / steps)) / 2)
    watch(0, denoiser, math.nan)
    for step in range(1, steps + 1):
        clean = _batch(generator)
        loss = F.mse_loss(denoiser(_scaled(colour_features(noisy(clean, generator)))), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
        watch(step, denoiser, loss.item())
    return denoiser


@torch.no_grad()
def result(denoiser: nn.Sequential) -> dict[str, float]:
    """Return the PSNR on the flower, from scaled features, and what the network's ACmix does."""
    clean, seen = held_out()
    x = _scaled(colour_features(seen))
    values = {"psnr": round(psnr(denoiser(x), clean), 3)}
    if isinstance(denoiser.operator, ACmix):
        values |= observe(denoiser.operator, x)
    return values


@torch.no_grad()
def mean_psnr(denoiser: nn.Sequential, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Return the mean PSNR over clean and noisy pictures, of a network on scaled features."""
    values = [psnr(denoiser(_scaled(colour_features(seen))), clean) for clean, seen in pairs]
    return round(sum(values) / len(values), 3)


def best_rate(compared: list[dict], arm: str) -> float:
    """Return an operator's best rate on the photographs of training, over seeds 0 to 2."""

    def known(rate: float) -> float:
        place = (arm, rate)
        return sum(run["known"] for run in compared
                   if (run["arm"], run["rate"]) == place and run["seed"] in SEEDS)  # fmt: skip

    return max(RATES, key=known)


class _Camera:
    """Keep 40 moments of a training run, close together at first."""

    def __init__(self, steps: int = STEPS):
        self.moments = [round(steps * (n / (FRAMES - 1)) ** 2) for n in range(FRAMES)]
        self.losses: list[float] = []
        self.records: list[dict] = []
        self.states: list[dict[str, torch.Tensor]] = []

    def __call__(self, step: int, denoiser: nn.Sequential, loss: float) -> None:
        self.losses.append(loss)
        if step in self.moments:
            mean = None if step == 0 else round(sum(self.losses) / len(self.losses), 6)
            self.records.append({"step": step, "loss": mean, **result(denoiser)})
            self.states.append(fold(denoiser).state_dict())
            self.losses = []

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the states, stacked; ``dep_conv``, the bulk of them, is in half precision."""
        stacks = {name: torch.stack([s[name] for s in self.states]) for name in self.states[0]}
        stacks["operator.dep_conv.weight"] = stacks["operator.dep_conv.weight"].half()
        return stacks


def write_film(cameras: dict[str, _Camera]) -> None:
    tensors = {f"{arm}/{name}": stack for arm, camera in cameras.items()
               for name, stack in camera.tensors().items()}  # fmt: skip
    records = json.dumps({arm: camera.records for arm, camera in cameras.items()})
    about = {"records": records}  # one entry: the order of many would change from run to run
    write_whole(FILM, lambda temporary: temporary.write_bytes(library().torch.save(tensors, about)))


def release(denoiser: nn.Sequential, runs: list[dict], compared: list[dict]) -> None:
    """Write the folded denoiser that comes with the package, and what all runs reached."""
    about = {"command": "python -m acmix_edu.training.denoise", "arm": RELEASED, "seed": 0}
    untouched = [psnr(seen, clean) for clean, seen in trials(held=True)]
    measured = {"noise": NOISE, "steps": STEPS, "noisy": round(psnr(*reversed(held_out())), 3),
                "noisy_crops": round(sum(untouched) / len(untouched), 3)}  # fmt: skip
    rest = measured | {"runs": runs, "compared": compared}
    write(WEIGHTS / "denoise.safetensors", denoiser, about, rest)


def to_train(compared: list[dict]) -> Iterator[tuple[str, float, int]]:
    """Yield every arm, rate and seed; fresh seeds at the rate that ``compared`` gives by then."""
    for arm in COMPARED:
        yield from itertools.product([arm], RATES, SEEDS)
        yield from itertools.product([arm], [best_rate(compared, arm)], FRESH)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    torch.set_num_threads(1)
    cameras = {arm: _Camera() for arm in FILMED}
    runs: list[dict] = []
    compared: list[dict] = []
    for arm, rate, seed in to_train(compared):
        watch: dict = {"watch": cameras[arm]} if arm in FILMED and (rate, seed) == (RATE, 0) else {}
        denoiser = train_denoiser(arm, seed, rate, **watch)
        compared.append({"arm": arm, "rate": rate, "seed": seed,
                         "known": mean_psnr(denoiser, trials(held=False)),
                         "flower": mean_psnr(denoiser, trials(held=True))})  # fmt: skip
        print(*compared[-1].values(), flush=True)
        if rate == RATE and seed in SEEDS:
            runs.append({"arm": arm, "seed": seed, **result(denoiser)})
        if (arm, rate, seed) == (RELEASED, RATE, 0):
            released = fold(denoiser)
    write_film(cameras)
    release(released, runs, compared)


if __name__ == "__main__":
    main()
