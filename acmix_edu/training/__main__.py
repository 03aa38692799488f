"""Train a small network from the command line; ``python -m acmix_edu.training --help``."""

import argparse
import os
import sys
import time
from dataclasses import fields
from pathlib import Path

import torch
import torch.distributed as dist

from acmix_edu.training.data import SOURCES
from acmix_edu.training.loop import Plan, train, write_log
from acmix_edu.training.network import ARMS, CONTROLS
from acmix_edu.training.released import export, library

DESCRIPTION = """\
Train a small three-stage network on 32×32 pictures and record, every epoch, what each ACmix
does. Without arguments: ACmix on scikit-learn's digits, under a minute on one core. On a
CPU it computes with one thread, so that the numbers are the same at every run; for more
cores or GPUs start it with torchrun --nproc-per-node N -m acmix_edu.training ...
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m acmix_edu.training",
        description=DESCRIPTION,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, plan = p.add_argument, Plan()
    add("--data", default=plan.data, choices=SOURCES, metavar="NAME",
        help="what to learn: " + ", ".join(SOURCES))  # fmt: skip
    add("--path", metavar="FOLDER", help="the files of cifar10, or train/ and test/ of folder")
    add("--arm", default=plan.arm, choices=[*ARMS, *CONTROLS], metavar="ARM",
        help="the operator that looks at neighbours: " + ", ".join([*ARMS, *CONTROLS]))  # fmt: skip
    add("--epochs", type=_positive(int), default=plan.epochs, metavar="N", help="how long")
    add("--seed", type=int, default=plan.seed, metavar="N", help="of weights and order")
    add("--batch-size", type=_positive(int), default=plan.batch_size, metavar="N",
        help="pictures per step, over all processes")  # fmt: skip
    add("--lr", type=_positive(float), default=plan.lr, metavar="X", help="first learning rate")
    add("--amp", action="store_true", help="compute in half precision where it is safe")
    add("--checkpoint", metavar="FILE", help="written every epoch; resumes from it if it exists")
    add("--log-file", metavar="FILE", help="the records, as JSON lines")  # torchrun takes --log
    add("--export", metavar="FILE", help="trained weights as safetensors, and a .json beside them")
    return p


def _positive(kind: type):
    def parse(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be above 0, but {text} came")
        return value

    parse.__name__ = kind.__name__
    return parse


def line(record: dict, epochs: int, seconds: float) -> str:
    """Return one epoch as one line."""
    text = f"epoch {record['epoch']}/{epochs}  test {record['test_accuracy']:6.1%}"
    if record["epoch"]:
        text += f"  train {record['train_accuracy']:6.1%}  loss {record['loss']:.4f}"
    if record["layers"]:
        text += "  attention's share " + " ".join(f"{x['share']:.2f}" for x in record["layers"])
    return f"{text}  {seconds:.0f} s"


def check_files(options: dict) -> None:
    """Raise before the training, and not after it, if a file cannot be written."""
    names = [name for name in ("checkpoint", "log_file", "export") if options[name]]
    files = {"--" + name.replace("_", "-"): Path(options[name]) for name in names}
    if weights := files.get("--export"):
        if weights.suffix != ".safetensors":
            raise ValueError(
                f"--export must end in .safetensors, but {weights} came; pass a name such as "
                "w.safetensors: what is said of the weights goes to w.json."
            )
        files["the .json beside --export"] = weights.with_suffix(".json")
        library()
    owners: dict[Path, str] = {}
    for option, file in files.items():
        _check_file(option, file)
        if (other := owners.setdefault(file.resolve(), option)) != option:
            raise ValueError(
                f"{other} and {option} must be two files, but {file} came for both; pass another "
                "name for one of them."
            )


def _check_file(option: str, file: Path) -> None:
    if not file.absolute().parent.is_dir():
        raise ValueError(
            f"{option} must be a file in a folder that is there, but {file} came; "
            "make the folder first."
        )
    if not os.access(file.absolute().parent, os.W_OK):
        raise ValueError(
            f"{option} must be a file in a folder that can be written, but {file} came; "
            "name another folder."
        )
    if file.is_dir():
        raise ValueError(f"{option} must be a file, but {file} is a folder; name a file in it.")


def main(arguments: list[str] | None = None) -> None:
    options = vars(parser().parse_args(arguments))
    torch.set_num_threads(1)
    started = time.perf_counter()

    def report(records: list[dict]) -> None:
        print(line(records[-1], plan.epochs, time.perf_counter() - started), flush=True)
        if options["log_file"]:
            write_log(options["log_file"], records)

    try:
        plan = Plan(**{f.name: options[f.name] for f in fields(Plan)})
        check_files(options)
        network, records = train(plan, options["checkpoint"], report)
        if int(os.environ.get("RANK", 0)) == 0:
            if options["log_file"]:  # after a finished checkpoint nothing is reported
                write_log(options["log_file"], records)
            if options["export"]:
                export(options["export"], network, plan, records)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
