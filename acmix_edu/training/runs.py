"""Which task needs which path? Train every arm on every task with ten seeds; keep the records.

On the task "match" alone there are also the controls, and ten fresh seeds of all arms that have
both paths, which test what the first ten made likely ("match-again"). A few of the arms train three
times as long on "match" and six times as long on "mixture" ("match-longer", "mixture-longer").
Fresh seeds then test what was likely on "mixture" ("mixture-again"), and so do other learning rates
("mixture-lr-0.002" and so on).

Run ``python -m acmix_edu.training.runs`` from the root of the repository. It takes one core eight
to nine hours. A run that is already in its file is not repeated, so the command may be stopped.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import torch

from acmix_edu.training.data import Data, load
from acmix_edu.training.loop import Plan, train, write_whole
from acmix_edu.training.network import ARMS, CONTROLS, MIXING, WIDTHS, WINDOWS
from acmix_edu.training.released import command


class Series(NamedTuple):
    """The runs of one record: every arm with every seed."""

    task: str
    epochs: int
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: range = range(10)
    curves: bool = False  # keep only the accuracies of every epoch
    lr: float = Plan.lr


PATIENT, FRESH = ("conv3x3", "attention", "acmix", "small-beta"), range(10, 20)
BOTH, OTHER_RATES = ("conv3x3", "convolution", "acmix"), (0.002, 0.008, 0.016)
SERIES = {
    "match": Series("match", 6, (*ARMS, *CONTROLS)),
    "mixture": Series("mixture", 4),
    "texture": Series("texture", 2),
    "digits": Series("digits", 5),
    "rotation": Series("rotation", 4),
    "match-again": Series("match", 6, tuple(MIXING), FRESH),
    "match-longer": Series("match", 18, PATIENT, curves=True),
    "mixture-longer": Series("mixture", 24, (*PATIENT, "convolution"), curves=True),
    "mixture-again": Series("mixture", 24, BOTH, FRESH, curves=True),
} | {f"mixture-lr-{lr}": Series("mixture", 24, BOTH, curves=True, lr=lr) for lr in OTHER_RATES}
TASKS = tuple(name for name, series in SERIES.items() if name == series.task)
RECORDS = Path(__file__).parent / "records"


def run(series: Series, arm: str, seed: int, data: Data) -> dict:
    """Train once; return the records, the command and the time that the processor took."""
    plan = Plan(data=series.task, arm=arm, epochs=series.epochs, seed=seed, lr=series.lr)
    started = time.process_time()
    network, records = train(plan, data=data)
    return {
        "arm": arm, "seed": seed, "command": command(plan), "records": _kept(records, series),
        "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "cpu_seconds": round(time.process_time() - started, 1),
    }  # fmt: skip


def _kept(records: list[dict], series: Series) -> list[dict]:
    if series.curves:
        records = [{k: r[k] for k in ("epoch", "train_accuracy", "test_accuracy")} for r in records]
    return [{k: round(v, 5) if isinstance(v, float) else v for k, v in r.items()} for r in records]


def run_series(record: str, seed: int) -> None:
    """Make those runs with this seed that the file of a record does not hold."""
    series, file = SERIES[record], RECORDS / f"{record}.json"
    data = load(series.task)
    result: dict = {
        "task": series.task, "train": len(data.train_y), "test": len(data.test_y),
        "classes": data.classes, "widths": WIDTHS, "windows": WINDOWS,
        "torch": torch.__version__, "machine": platform.machine(), "runs": [],
    }  # fmt: skip
    if file.exists():
        result["runs"] = json.loads(file.read_text(encoding="utf-8"))["runs"]
    done = [r["arm"] for r in result["runs"] if r["seed"] == seed]
    for arm in [arm for arm in series.arms if arm not in done]:
        result["runs"].append(run(series, arm, seed, data))
        result["summary"] = summary(result["runs"])
        _write(file, result)
        last = result["runs"][-1]
        accuracy, seconds = last["records"][-1]["test_accuracy"], last["cpu_seconds"]
        print(f"{record:12} {arm:12} seed {seed}  {accuracy:6.1%}  {seconds:.0f} s", flush=True)


def _write(file: Path, result: dict) -> None:
    """Write one run per line: the file is small, and a difference can be read."""
    runs = ",\n".join(json.dumps(r, separators=(",", ":")) for r in result["runs"])
    rest = json.dumps({k: v for k, v in result.items() if k != "runs"})
    text = f'{rest[:-1]}, "runs": [\n{runs}\n]}}\n'
    write_whole(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def records(task: str) -> dict:
    """Return the recorded runs of a task, or of another series of ``SERIES``.

    "summary" holds the accuracies at the end.

    Example:
        >>> sorted(records("texture")["summary"])[:3]
        ['acmix', 'attention', 'conv3x3']
    """
    if task not in SERIES:
        raise ValueError(f"task must be one of {', '.join(sorted(SERIES))}, but {task!r} came.")
    return json.loads((RECORDS / f"{task}.json").read_text(encoding="utf-8"))


def summary(runs: list[dict]) -> dict[str, dict[str, float]]:
    """Return the mean and range, over the seeds, of the last test accuracy of each arm."""
    result = {}
    for arm in [*ARMS, *CONTROLS]:
        values = [r["records"][-1]["test_accuracy"] for r in runs if r["arm"] == arm]
        if values:
            result[arm] = {"mean": round(statistics.fmean(values), 4),
                           "lowest": min(values), "highest": max(values)}  # fmt: skip
    return result


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    torch.set_num_threads(1)
    for record, series in SERIES.items():
        for seed in series.seeds:
            run_series(record, seed)
        for arm, v in records(record)["summary"].items():
            line = f"{v['mean']:6.1%}  ({v['lowest']:.1%} … {v['highest']:.1%})"
            print(f"{record:12} {arm:12} {line}", flush=True)


if __name__ == "__main__":
    main()
