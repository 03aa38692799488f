"""Which task needs which path? Every arm on every task, ten seeds; the records go to files.

The controls, too, on the task "match" alone. What these made likely there was then put to ten
fresh seeds of all arms that have both paths: the record "match-again".

From the root of the repository: ``python -m acmix_edu.training.runs``. One core, about three and a
half hours; a run that is already in its file is not repeated, so the command may be stopped.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from acmix_edu.training.data import load
from acmix_edu.training.loop import Plan, train, write_whole
from acmix_edu.training.network import ARMS, CONTROLS, MIXING, WIDTHS, WINDOWS
from acmix_edu.training.released import command

EPOCHS = {"match": 6, "mixture": 4, "texture": 2, "digits": 5, "rotation": 4}
SEEDS, FRESH = range(10), range(10, 20)
CONTROLLED, AGAIN = "match", "match-again"
RECORDS = Path(__file__).parent / "records"


def run(task: str, arm: str, seed: int, data) -> dict:
    """Train once; keep the records, the command and the time that the processor took."""
    plan = Plan(data=task, arm=arm, epochs=EPOCHS[task], seed=seed)
    started = time.process_time()
    network, records = train(plan, data=data)
    return {
        "arm": arm, "seed": seed, "command": command(plan), "records": _rounded(records),
        "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "cpu_seconds": round(time.process_time() - started, 1),
    }  # fmt: skip


def _rounded(records: list[dict]) -> list[dict]:
    return [{k: round(v, 5) if isinstance(v, float) else v for k, v in r.items()} for r in records]


def run_task(task: str, seed: int, arms: Iterable[str], record: str | None = None) -> None:
    """Make the runs of a task and a seed that its file, or that of ``record``, does not hold."""
    file, data = RECORDS / f"{record or task}.json", load(task)
    result = {"task": task, "train": len(data.train_y), "test": len(data.test_y),
              "classes": data.classes, "widths": WIDTHS, "windows": WINDOWS,
              "torch": torch.__version__, "machine": platform.machine(), "runs": []}  # fmt: skip
    if file.exists():
        result["runs"] = json.loads(file.read_text(encoding="utf-8"))["runs"]
    done = [r["arm"] for r in result["runs"] if r["seed"] == seed]
    for arm in [arm for arm in arms if arm not in done]:
        result["runs"].append(run(task, arm, seed, data))
        result["summary"] = summary(result["runs"])
        _write(file, result)
        last = result["runs"][-1]
        accuracy, seconds = last["records"][-1]["test_accuracy"], last["cpu_seconds"]
        print(f"{task:8} {arm:12} seed {seed}  {accuracy:6.1%}  {seconds:.0f} s", flush=True)


def _write(file: Path, result: dict) -> None:
    """One run a line: small, and a difference can be read."""
    runs = ",\n".join(json.dumps(r, separators=(",", ":")) for r in result["runs"])
    rest = json.dumps({k: v for k, v in result.items() if k != "runs"})
    text = f'{rest[:-1]}, "runs": [\n{runs}\n]}}\n'
    write_whole(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def records(task: str) -> dict:
    """Return the recorded runs of a task, or "match-again"; "summary" holds the last accuracies.

    Example:
        >>> sorted(records("texture")["summary"])[:3]
        ['acmix', 'attention', 'conv3x3']
    """
    file = RECORDS / f"{task}.json"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in RECORDS.glob("*.json")))
        raise ValueError(f"task must be one of {known}, but {task!r} came.")
    return json.loads(file.read_text(encoding="utf-8"))


def summary(runs: list[dict]) -> dict[str, dict[str, float]]:
    """Mean and range over the seeds of the last test accuracy, for each arm."""
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
    for seed in SEEDS:
        for task in EPOCHS:
            run_task(task, seed, [*ARMS, *(CONTROLS if task == CONTROLLED else ())])
    for seed in FRESH:
        run_task(CONTROLLED, seed, MIXING, AGAIN)
    for task in (*EPOCHS, AGAIN):
        for arm, v in records(task)["summary"].items():
            print(f"{task:11} {arm:12} {v['mean']:6.1%}  ({v['lowest']:.1%} … {v['highest']:.1%})")


if __name__ == "__main__":
    main()
