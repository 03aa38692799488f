"""How many times faster, and how much smaller, than the unfold form is ACmix on a processor?

Run it from the root of the repository: ``python benchmarks/fast.py``. Each ratio is that of two
medians; the two forms take turns in one process, on the same data, after their outputs have been
compared. Memory is the peak of what PyTorch allocates beside inputs and weights. The table goes
to the screen and to benchmarks/results, one file for each kind of vectors that a processor may
have (cpu-avx2.json, cpu-avx512.json), from which chapter 07 reads it.
"""

import argparse
import json
import platform
import statistics
import subprocess
import time
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from acmix_edu import ACmix, ResNet, acmix_resnet50, conv3x3, deploy

VECTORS = torch.backends.cpu.get_cpu_capability()  # "AVX2", "AVX512", …
RESULTS = Path(__file__).parent / "results" / f"cpu-{VECTORS.lower()}.json"
STAGES = [(2, 64, 56), (2, 128, 28), (2, 256, 14), (2, 512, 7)]  # B, C, H = W: ResNet-50's four
DETECTOR = (1, 64, 160)  # a 640-pixel detector's map of stride 4
UNFOLD, FAST = "unfold", None


def seconds(functions: dict, rounds: int) -> dict[str, float]:
    """Run the functions in turn, ``rounds`` times; the median of each.

    A turn begins with a call that is not timed: the caches then hold its own data, not those of
    the other form, as they do in a network that runs again and again.
    """
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            function()
            started = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(t) for name, t in times.items()}


def peak_bytes(function) -> int:
    """The most that was allocated at one time while the function ran."""
    function()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return max(held)


def pair(batch: int, channels: int, side: int, dtype) -> tuple[dict, torch.Tensor]:
    """The same weights in both forms, and an input; raises if their outputs differ."""
    torch.manual_seed(0)
    modules = {b: ACmix(channels, channels, backend=b) for b in (UNFOLD, FAST)}
    modules[FAST].load_state_dict(modules[UNFOLD].state_dict())
    x = torch.randn(batch, channels, side, side)
    outputs = [module(x) for module in modules.values()]
    torch.testing.assert_close(*outputs)
    return {b: m.to(dtype) for b, m in modules.items()}, x.to(dtype)


def forward(module, x):
    with torch.no_grad():
        module(x)


def both_ways(module, x):
    module(x.detach().requires_grad_()).sum().backward()


def row(what: str, case, threads: int, dtype, rounds: int, pass_, memory: bool = False) -> dict:
    torch.set_num_threads(threads)
    modules, x = pair(*case, dtype)
    calls = {b: (lambda m=m: pass_(m, x)) for b, m in modules.items()}
    measured = seconds(calls, rounds)
    found = {"what": what, "pass": pass_.__name__, "map": list(case), "threads": threads,
             "dtype": str(dtype).removeprefix("torch."),
             "unfold_ms": measured[UNFOLD] * 1e3, "fast_ms": measured[FAST] * 1e3}  # fmt: skip
    if memory:
        found |= {f"{b or 'fast'}_bytes": peak_bytes(call) for b, call in calls.items()}
    return found


def modules(rounds: int):
    """Yield a row for every stage, precision and number of threads."""
    for case in STAGES:
        for pass_ in (forward, both_ways):
            yield row("module", case, 1, torch.float32, rounds, pass_, memory=True)
    for case in STAGES:
        for pass_ in (forward, both_ways):
            yield row("module, 2 threads", case, 2, torch.float32, rounds, pass_)
    for case in STAGES:
        for pass_ in (forward, both_ways):
            yield row("module, bfloat16", case, 1, torch.bfloat16, max(rounds // 3, 3), pass_)
    for pass_ in (forward, both_ways):
        yield row("detector's map", DETECTOR, 1, torch.float32, max(rounds // 3, 3), pass_)


def networks(rounds: int):
    """Yield ResNet-50 on one image of 224 pixels: unfold, fast, deployed, and the plain network."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    fast, unfold = acmix_resnet50().eval(), acmix_resnet50().eval()
    unfold.load_state_dict(fast.state_dict())
    for module in unfold.modules():
        if isinstance(module, ACmix):
            module.backend = UNFOLD
    x = torch.randn(1, 3, 224, 224)
    nets = {"unfold": unfold, "fast": fast, "deployed": deploy(fast),
            "plain": ResNet([3, 4, 6, 3], operator=conv3x3).eval()}  # fmt: skip
    measured = seconds({n: (lambda m=m: forward(m, x)) for n, m in nets.items()}, rounds)
    found = {"what": "ResNet-50, one image", "pass": "forward", "map": [1, 3, 224], "threads": 1}
    yield found | {"dtype": "float32"} | {f"{name}_ms": s * 1e3 for name, s in measured.items()}


def machine() -> dict:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [n for n in info.read_text().splitlines() if n.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True,
                            text=True, check=False).stdout.strip()  # fmt: skip
    return {"processor": cpu, "vectors": VECTORS, "torch": torch.__version__,
            "python": platform.python_version(), "commit": commit}  # fmt: skip


def said(found: dict) -> str:
    size = "×".join(str(n) for n in found["map"])
    times = "  ".join(f"{key[:-3]} {ms:8.2f} ms" for key, ms in found.items() if key[-3:] == "_ms")
    line = f"{found['what']:22} {found['pass']:10} {size:10} {times}"
    line += f"  {found['unfold_ms'] / found['fast_ms']:5.1f}× faster"
    if "fast_bytes" in found:
        line += f"  {found['unfold_bytes'] / found['fast_bytes']:5.1f}× smaller"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each form (default: 5)")
    rounds = parser.parse_args().rounds
    rows = []
    for found in (*modules(rounds), *networks(rounds)):
        print(said(found), flush=True)
        rows.append(found)
    RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
