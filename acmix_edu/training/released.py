"""Trained weights that come with the package: safetensors, and a JSON that says what they are."""

import hashlib
import json
import shlex
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from acmix_edu.acmix import ACmix
from acmix_edu.training.loop import Plan, write_whole
from acmix_edu.training.network import Network

WEIGHTS = Path(__file__).parent.parent / "weights"
FILM = Path(__file__).parent / "records" / "film.safetensors"


def command(plan: Plan) -> str:
    """Return the command line that trains a plan, with the defaults named, too."""
    parts = ["python -m acmix_edu.training"]
    for name, value in asdict(plan).items():
        if value is not None and value is not False:
            option = "--" + name.replace("_", "-")
            parts.append(option if value is True else f"{option} {shlex.quote(str(value))}")
    return " ".join(parts)


def export(file: str | Path, network: Network, plan: Plan, records: list[dict]) -> None:
    """Write the weights as safetensors and, beside them, a JSON: command, SHA-256, last record."""
    about = {"command": command(plan), "arm": plan.arm, "classes": network.fc.out_features}
    write(Path(file), network, about, {"last_record": records[-1]})


def write(file: Path, module: nn.Module, about: dict, rest: dict) -> None:
    """Write a module's weights, and a JSON with ``about``, SHA-256, size and the rest."""
    state = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    raw = library().torch.save(state)
    sha256 = hashlib.sha256(raw).hexdigest()
    text = json.dumps({**about, "sha256": sha256, "bytes": len(raw), **rest}, indent=1) + "\n"

    def write_both(temporary: Path) -> None:  # if this fails, the old ones stay, which agree
        temporary.write_text(text, encoding="utf-8")
        write_whole(file, lambda other: other.write_bytes(raw))

    write_whole(file.with_suffix(".json"), write_both)


class Denoiser(nn.Sequential):
    """An ACmix, ``operator``, and a 1×1 convolution to the three colours, ``head``."""

    def __init__(self) -> None:
        super().__init__()
        self.operator = ACmix(4, 16, kernel_att=7, head=4)
        self.head = nn.Conv2d(16, 3, 1)


def released(name: str = "digits", weights: Path = WEIGHTS) -> Network:
    """Return a trained network that comes with the package, in evaluation mode.

    Raises:
        ValueError: there are no such weights, or their SHA-256 is not the recorded one.
        ImportError: safetensors is missing; ``pip install "acmix-edu[book]"``.

    Example:
        >>> released("digits").fc
        Linear(in_features=64, out_features=10, bias=True)
    """
    about, state = read(weights / f"{name}.safetensors")
    if "classes" not in about:
        raise ValueError(f"name must be that of a Network; for {name!r} use trained_denoiser().")
    network = Network(about["arm"], about["classes"])
    network.load_state_dict(state)
    return network.eval()


def trained_denoiser() -> Denoiser:
    """Return the network of :mod:`acmix_edu.training.denoise`, trained, in evaluation mode.

    It takes :func:`acmix_edu.examples.colour_features` of a noisy picture and returns the picture
    with less noise. It has two parts: ``operator``, an ACmix, and ``head``, a 1×1 convolution.
    """
    return denoiser_of(read(WEIGHTS / "denoise.safetensors")[1])


def denoiser_of(state: dict[str, torch.Tensor]) -> Denoiser:
    """Return the denoiser with these weights, "operator.…" and "head.…", in evaluation mode.

    Example:
        >>> denoiser_of(film()[0]["state"]).operator.rate1.item()  # before training
        0.5
    """
    denoiser = Denoiser()
    denoiser.load_state_dict(state)
    return denoiser.eval()


def trained_acmix() -> ACmix:
    """Return the ACmix of the trained denoiser; it takes ``colour_features(picture)``.

    Example:
        >>> trained_acmix()(torch.randn(1, 4, 48, 48)).shape
        torch.Size([1, 16, 48, 48])
    """
    return trained_denoiser().operator


def film(arm: str = "small-beta") -> list[dict]:
    """Return 40 moments of the denoiser's training: "step", "psnr", … and "state", its weights.

    "state" is for :func:`denoiser_of`. "loss" is the mean since the moment before, and None in the
    first. "psnr", in dB, and the names of ``Network.observe`` are as measured on the noisy flower.

    Args:
        arm: "acmix", "lost-init" or "small-beta". The last moment of "small-beta" is
            :func:`trained_denoiser`, with ``dep_conv`` rounded to half precision.

    Raises:
        ValueError: there is no film of this arm.
        ImportError: safetensors is missing; ``pip install "acmix-edu[book]"``.

    Example:
        >>> film("acmix")[0]["step"], film("acmix")[0]["alpha"]
        (0, 0.5)
    """
    with library().safe_open(FILM, framework="pt") as file:
        records = json.loads(file.metadata()["records"])
        if arm not in records:
            raise ValueError(f"arm must be one of {', '.join(records)}, but {arm!r} came.")
        names = [name for name in file.keys() if name.startswith(f"{arm}/")]
        stacks = {name.partition("/")[2]: file.get_tensor(name).float() for name in names}
    return [record | {"state": {name: stack[n] for name, stack in stacks.items()}}
            for n, record in enumerate(records[arm])]  # fmt: skip


def read(file: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Return what the JSON beside a file of weights says, and the weights, once they agree."""
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in file.parent.glob("*.safetensors")))
        raise ValueError(f"name must be one of {known}, but {file.stem!r} came.")
    about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    raw = file.read_bytes()
    if hashlib.sha256(raw).hexdigest() != about["sha256"]:
        raise ValueError(f"{file} is damaged: its SHA-256 is not the recorded one; install again.")
    return about, library().torch.load(raw)


def library():
    """Return the safetensors library, or say how to install it."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            'the weights need safetensors; install it with pip install "acmix-edu[book]".'
        ) from error
    return safetensors
