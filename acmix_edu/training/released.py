"""Trained weights that come with the package: safetensors, and a JSON that says what they are."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from acmix_edu.training.loop import Plan, replace
from acmix_edu.training.network import Network

WEIGHTS = Path(__file__).parent.parent / "weights"


def command(plan: Plan) -> str:
    """The command line that trains a plan, defaults named too."""
    parts = ["python -m acmix_edu.training"]
    for name, value in asdict(plan).items():
        if value is not None and value is not False:
            option = "--" + name.replace("_", "-")
            parts.append(option if value is True else f"{option} {value}")
    return " ".join(parts)


def export(file: str | Path, network: Network, plan: Plan, records: list[dict]) -> None:
    """Write the weights as safetensors and, beside them, a JSON: command, SHA-256, last record."""
    from safetensors.torch import save

    file = Path(file)
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    replace(file, lambda temporary: temporary.write_bytes(save(state)))
    about = {
        "command": command(plan), "arm": plan.arm, "classes": network.fc.out_features,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size,
        "last_record": records[-1],
    }  # fmt: skip
    file.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def released(name: str = "digits", weights: Path = WEIGHTS) -> Network:
    """Return a trained network that comes with the package, in evaluation mode.

    Raises:
        ValueError: no such weights, or their SHA-256 is not the recorded one.
        ImportError: safetensors is missing; ``pip install "acmix-edu[book]"``.

    Example:
        >>> released("digits").fc
        Linear(in_features=64, out_features=10, bias=True)
    """
    try:
        from safetensors.torch import load
    except ImportError as error:
        raise ImportError(
            'the weights need safetensors; install it with pip install "acmix-edu[book]".'
        ) from error
    file = weights / f"{name}.safetensors"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in weights.glob("*.safetensors")))
        raise ValueError(f"name must be one of {known}, but {name!r} came.")
    about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    raw = file.read_bytes()
    if hashlib.sha256(raw).hexdigest() != about["sha256"]:
        raise ValueError(f"{file} is damaged: its SHA-256 is not the recorded one; install again.")
    network = Network(about["arm"], about["classes"])
    network.load_state_dict(load(raw))
    return network.eval()
