"""How much of the fast form's gain is memory that the system must supply anew?

Run it on Linux with glibc, from the root of the repository: ``python benchmarks/kept_memory.py``.
glibc gives large tensors back to the system, which must supply fresh pages for the next one. The
layers of fast.py run forward on one thread in processes of two kinds, in turn: as usual, and with
glibc told to keep what it has. The medians go to benchmarks/results/memory-<vectors>.json, from
which chapter 07 reads them.
"""

import json
import os
import statistics
import subprocess
import sys

import torch
from fast import RESULTS, STAGES, VECTORS, forward, machine, row

KEEP = {"MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**34),
        "MALLOC_TOP_PAD_": str(2**30)}  # fmt: skip
TURNS, ROUNDS = 3, 9


def measure() -> list[dict]:
    """Measure the layers in this process."""
    return [row("module", case, 1, torch.float32, ROUNDS, forward) for case in STAGES]


def in_a_process(settings: dict) -> list[dict]:
    usual = {name: value for name, value in os.environ.items() if name not in KEEP}
    command = [sys.executable, __file__, "measure"]
    ran = subprocess.run(command, env=usual | settings, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def main() -> None:
    turns = [(in_a_process({}), in_a_process(KEEP)) for _ in range(TURNS)]
    rows = []
    for n, case in enumerate(STAGES):
        found = {"map": list(case)}
        for kind, memory in enumerate(("usual", "kept")):
            for form in ("unfold_ms", "fast_ms"):
                found[f"{memory}_{form}"] = statistics.median(t[kind][n][form] for t in turns)
        gains = [found[f"{m}_unfold_ms"] / found[f"{m}_fast_ms"] for m in ("usual", "kept")]
        print(f"{found['map']}: {gains[0]:.1f}× faster, {gains[1]:.1f}× with kept memory")
        rows.append(found)
    file = RESULTS.with_name(f"memory-{VECTORS.lower()}.json")
    file.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    print(f"written to {file}")


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measure()))
    else:
        main()
