"""Train, record, stop and go on, in one process or in many under torchrun."""

import contextlib
import functools
import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from acmix_edu.checks import whole_number
from acmix_edu.training.data import Data, load
from acmix_edu.training.network import Network

PROBE = 32  # test pictures on which the layers are observed


@dataclass(frozen=True)
class Plan:
    """All that the numbers depend on; a checkpoint belongs to one plan.

    ``data`` and ``path`` are those of ``load``. ``arm`` is a name from ``ARMS`` or ``CONTROLS``.
    ``batch_size`` counts the pictures of all processes, ``lr`` is Adam's rate at the first step,
    and ``amp`` trains in half precision.
    """

    data: str = "digits"
    path: str | Path | None = None  # kept as a str
    arm: str = "acmix"
    epochs: int = 6
    seed: int = 0
    batch_size: int = 16
    lr: float = 4e-3
    amp: bool = False

    def __post_init__(self) -> None:
        keep = functools.partial(object.__setattr__, self)  # frozen
        keep("path", None if self.path is None else os.fspath(self.path))
        keep("epochs", whole_number("epochs", self.epochs, 0))
        keep("seed", whole_number("seed", self.seed, 0))
        if self.seed >= 2**64:  # what PyTorch's generators take
            raise ValueError(f"seed must be below 2⁶⁴, but {self.seed} came.")
        keep("batch_size", whole_number("batch_size", self.batch_size))


def train(
    plan: Plan,
    checkpoint: str | Path | None = None,
    report: Callable[[list[dict]], None] = lambda records: None,
    data: Data | None = None,
) -> tuple[Network, list[dict]]:
    """Train the network of a plan and record every epoch, from where the checkpoint ends.

    On one thread and with the same number of processes, the same plan gives the same numbers,
    whether or not it was interrupted: the order of the pictures depends only on seed and epoch, and
    the learning rate (a half cosine) only on the step. Under torchrun every process takes its share
    of each batch, and only the first one writes.

    Args:
        plan: what to train.
        checkpoint: a file, written after every epoch and read at the start if it exists; under
            torchrun one that all processes can read.
        report: called in the first process with all records after every epoch.
        data: pictures that are already loaded; ``load(plan.data, plan.path)`` when left out.

    Returns:
        The network and one record per epoch, the first of them made before training. A record holds
        ``epoch``, ``loss`` and ``train_accuracy`` (means over the epoch; None in the first),
        ``test_accuracy`` and ``layers``, which is what :meth:`Network.observe` sees.

    Raises:
        ValueError: the batches cannot be shared out or filled, or the checkpoint is damaged or of
            another plan; the message says how to mend it.

    Example:
        >>> network, records = train(Plan(arm="conv3x3", data="texture", epochs=1))
        >>> len(records)
        2
    """
    rank, world, device = _process()
    if plan.batch_size % world:
        raise ValueError(
            f"batch_size must be divisible by the {world} processes, but {plan.batch_size} came; "
            f"pass {-(-plan.batch_size // world) * world}."
        )
    data = data or load(plan.data, plan.path)
    run = _Run(plan, data, rank, world, device)
    records = run.restore(Path(checkpoint)) if checkpoint else []
    for epoch in range(len(records), plan.epochs + 1):
        record: dict = {"epoch": epoch, "loss": None, "train_accuracy": None}
        if epoch:
            record |= run.epoch(epoch)
        record |= {"test_accuracy": run.test(), "layers": run.observe()}
        records.append(record)
        if rank == 0:
            if checkpoint:
                run.save(Path(checkpoint), records)
            report(records)
    return run.network, records


def _process() -> tuple[int, int, torch.device]:
    """Join the processes that torchrun started, if any; return rank, their number, the device."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return rank, world, device


class _Run:
    """One process's part of a training run."""

    def __init__(self, plan: Plan, data: Data, rank: int, world: int, device: torch.device):
        self.plan, self.data, self.rank, self.world, self.device = plan, data, rank, world, device
        self.network = Network(plan.arm, len(data.classes), plan.seed).to(device)
        self.model: torch.nn.Module = self.network
        if dist.is_initialized():
            self.model = DistributedDataParallel(self.network)
        learned = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(learned, plan.lr)
        half = torch.bfloat16
        if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            half = torch.float16
        self.autocast: Callable = contextlib.nullcontext
        if plan.amp:
            self.autocast = lambda: torch.autocast(device.type, half)
        self.scaler = torch.amp.GradScaler(device.type, enabled=plan.amp and half == torch.float16)

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train on every full batch once, in an order that depends on seed and epoch only."""
        generator = torch.Generator().manual_seed((1_000_003 * self.plan.seed + epoch) % 2**64)
        order = torch.randperm(len(self.data.train_y), generator=generator)
        size = self.plan.batch_size
        batches = order[: len(order) // size * size].view(-1, size)
        if not len(batches):
            raise ValueError(
                f"batch_size must be at most {len(order)}, the training pictures, but {size} came; "
                f"pass batch_size={len(order)} or less."
            )
        sums = torch.zeros(3, dtype=torch.float64)
        for number, batch in enumerate(batches):
            done = ((epoch - 1) * len(batches) + number) / (self.plan.epochs * len(batches))
            self.optimizer.param_groups[0]["lr"] = self.plan.lr * (1 + math.cos(math.pi * done)) / 2
            sums += self._step(batch[self.rank :: self.world])
        loss, right, seen = self._total(sums).tolist()
        return {"loss": loss / seen, "train_accuracy": right / seen}

    def _step(self, batch: torch.Tensor) -> torch.Tensor:
        x, y = self.data.train_x[batch].to(self.device), self.data.train_y[batch].to(self.device)
        with self.autocast():
            scores = self.model(x)
            loss = F.cross_entropy(scores, y)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        right = (scores.argmax(1) == y).sum()
        return torch.tensor([loss.item() * len(y), right.item(), len(y)], dtype=torch.float64)

    @torch.no_grad()
    def test(self) -> float:
        """Return the accuracy on the test pictures; each process takes its share."""
        x, y = (f[self.rank :: self.world] for f in (self.data.test_x, self.data.test_y))
        right = 0
        for part, labels in zip(x.split(64), y.split(64), strict=True):
            with self.autocast():
                scores = self.network(part.to(self.device))
            right += (scores.argmax(1).cpu() == labels).sum().item()
        return (self._total(torch.tensor([float(right)])) / len(self.data.test_y)).item()

    def observe(self) -> list[dict[str, float]]:
        return self.network.observe(self.data.test_x[:PROBE].to(self.device))

    def _total(self, sums: torch.Tensor) -> torch.Tensor:
        """Add up over the processes."""
        if self.world == 1:
            return sums
        sums = sums.to(self.device)
        dist.all_reduce(sums)
        return sums.cpu()

    def save(self, file: Path, records: list[dict]) -> None:
        """Write a checkpoint; at any moment the file is either the old one or the new one."""
        state = {
            "made_by": MADE_BY, "plan": asdict(self.plan), "records": records,
            "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }  # fmt: skip
        raw = io.BytesIO()  # PyTorch's own errors in writing to a file are not OSErrors
        torch.save(state, raw)
        write_whole(file, lambda temporary: temporary.write_bytes(raw.getbuffer()))

    def restore(self, file: Path) -> list[dict]:
        """Take up the state of a checkpoint, if there is one, and return its records."""
        if not file.exists():
            return []
        state = _read(file, self.device)
        if state["plan"] != asdict(self.plan):
            differs = [k for k, v in asdict(self.plan).items() if state["plan"].get(k) != v]
            raise ValueError(
                f"checkpoint {file} belongs to another run: "
                + ", ".join(f"{k} was {state['plan'].get(k)!r}" for k in differs)
                + "; pass the same arguments, or another file."
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        return state["records"]


MADE_BY = "acmix_edu.training 1"


def _read(file: Path, device: torch.device) -> dict:
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError(
            f"checkpoint {file} cannot be read: it is damaged or not a checkpoint; delete it, or "
            "pass another file."
        ) from error
    if not isinstance(state, dict) or state.get("made_by") != MADE_BY:
        raise ValueError(f"checkpoint {file} was not written by this program; pass another file.")
    return state


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name, then rename it: nobody ever sees half a file."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def write_log(file: str | Path, records: list[dict]) -> None:
    """Write all records as JSON lines, each time: a resumed run repeats none."""
    text = "".join(json.dumps(record) + "\n" for record in records)
    write_whole(Path(file), lambda temporary: temporary.write_text(text, encoding="utf-8"))
