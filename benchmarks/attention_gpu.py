"""How fast is local attention on a GPU: k² copies, halos, FlexAttention, the Triton kernel?

Run it from the root of the repository: ``python benchmarks/attention_gpu.py``. One layer of
ResNet-50's first stage: batch 32, 64 channels in 4 heads, a 56×56 map, kernel 7. Every form is
checked against the definition before it is timed. Times are of the GPU alone: ten calls are
captured in a CUDA graph and replayed, the forms take turns, and the median of the rounds counts;
"eager" is the time of a call from Python, launches included. The calls read the same maps again and
again; in half precision these fit into the L2 cache of a large GPU. FlexAttention gets its maps as
tokens, for free. The results go to benchmarks/results/gpu-<name>.json.
"""

import contextlib
import json
import re
import statistics
import subprocess
import time
from pathlib import Path

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from acmix_edu import fast
from acmix_edu import local_attention as unfold_attention
from acmix_edu.fast import triton_attention, triton_base
from acmix_edu.fast.border import multiplicity

BATCH, HEADS, HEAD_DIM, SIDE, KERNEL = 32, 4, 16, 56, 7
CALLS, ROUNDS = 10, 15
RESULTS = Path(__file__).parent / "results"


def flex(device):
    """Compiled FlexAttention: the window as a block mask, log m as an additive bias."""
    log_m = multiplicity(SIDE, KERNEL, device=device).float().log()  # [H, H]; −∞ out of reach

    def near(b, h, query, key):
        rows = (query // SIDE - key // SIDE).abs() <= KERNEL // 2
        return rows & ((query % SIDE - key % SIDE).abs() <= KERNEL // 2)

    def bias(score, b, h, query, key):
        return score + log_m[query // SIDE, key // SIDE] + log_m[query % SIDE, key % SIDE]

    mask = create_block_mask(near, None, None, SIDE**2, SIDE**2, device=device)
    compiled = torch.compile(flex_attention, fullgraph=True)
    return lambda q, k, v: compiled(q, k, v, score_mod=bias, block_mask=mask)


def forms(device) -> dict:
    """Name → function of q, k, v; all but FlexAttention take [B, N, d, H, W]."""
    return {
        "unfold": lambda q, k, v: unfold_attention(q, k, v, KERNEL),
        "halo": lambda q, k, v: fast.local_attention(q, k, v, KERNEL, backend="halo"),
        "flex": flex(device),
        "triton": lambda q, k, v: fast.local_attention(q, k, v, KERNEL, backend="triton"),
        "triton tf32": lambda q, k, v: fast.local_attention(q, k, v, KERNEL, backend="triton"),
    }


@contextlib.contextmanager
def precision(name):
    """TF32 for the form that has it in its name; the others multiply float32 exactly."""
    torch.set_float32_matmul_precision("high" if name == "triton tf32" else "highest")
    yield
    torch.set_float32_matmul_precision("highest")


def tokens(f: torch.Tensor) -> torch.Tensor:
    return f.flatten(-2).mT.contiguous()


def inputs(name, maps):
    """Fresh leaves, as tokens for FlexAttention."""
    maps = [tokens(f) if name == "flex" else f.clone() for f in maps]
    return [f.detach().requires_grad_() for f in maps]


def right(name, form, maps) -> bool:
    """Is the form equal to the definition in float32, up to the rounding of its dtype?"""
    expected = unfold_attention(*(f[:2].float() for f in maps), KERNEL)
    q, k, v = inputs(name, maps)
    with torch.no_grad(), precision(name):
        out = form(q, k, v)[:2].float()
    expected = tokens(expected) if name == "flex" else expected
    roundings = 50 if q.dtype == torch.float32 else 10  # exponentials are approximate on a GPU
    rounding = 1e-2 if name == "triton tf32" else roundings * torch.finfo(q.dtype).eps
    return bool((out - expected).abs().max() <= rounding * expected.abs().max())


def step(name, form, maps, backward: bool):
    """One call, as a function without arguments."""
    q, k, v = inputs(name, maps)
    grad = torch.randn_like(q)

    def forward():
        with torch.no_grad(), precision(name):
            form(q, k, v)

    def both():
        with precision(name):
            torch.autograd.grad(form(q, k, v), (q, k, v), grad)

    return both if backward else forward


def captured(function) -> torch.cuda.CUDAGraph:
    """CALLS calls in one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            function()
    return graph


def gpu_microseconds(graph: torch.cuda.CUDAGraph) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return 1000 * start.elapsed_time(end) / CALLS


def eager_microseconds(function) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(CALLS):
        function()
    torch.cuda.synchronize()
    return 1e6 * (time.perf_counter() - start) / CALLS


def measure(steps: dict) -> dict[str, dict[str, float]]:
    """Interleaved rounds: name → median GPU and eager microseconds."""
    graphs = {name: captured(function) for name, function in steps.items()}
    times = {name: {"gpu": [], "eager": []} for name in steps}
    for _ in range(ROUNDS):
        for name, function in steps.items():
            times[name]["gpu"].append(gpu_microseconds(graphs[name]))
            times[name]["eager"].append(eager_microseconds(function))
    return {
        name: {kind: statistics.median(values) for kind, values in kinds.items()}
        for name, kinds in times.items()
    }


def saved_bytes(name, form, maps) -> int:
    """Bytes that autograd keeps for the backward pass, without the inputs themselves."""
    leaves = inputs(name, maps)
    kept = {}

    def pack(f):
        storage = f.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return f

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda f: f):
        form(*leaves)
    own = {f.untyped_storage().data_ptr() for f in leaves}
    return sum(size for pointer, size in kept.items() if pointer not in own)


def said_by(*command: str) -> str:
    """Return the first line that a command prints; "unknown" where there is no such command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.split("\n")[0] or "unknown"


def about() -> dict[str, str]:
    """GPU, driver, versions and commit: what a figure belongs to."""
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "torch": torch.__version__,
        "triton": getattr(triton_base.triton, "__version__", "none"),
        "commit": said_by("git", "rev-parse", "HEAD"),
    }


def write(kind: str, result: dict) -> None:
    """Keep a result in benchmarks/results, under the name of the GPU."""
    slug = re.sub(r"[^a-z0-9]+", "-", result["about"]["gpu"].lower()).strip("-")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{kind}-{slug}.json").write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    if not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was measured.")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    size = (BATCH, HEADS, HEAD_DIM, SIDE, SIDE)
    result = {"about": about(), "size": size, "kernel_size": KERNEL, "measured": []}
    print(result["about"])
    print("dtype     pass              form         GPU µs  × unfold  eager µs   saved MB")
    everything = forms(device)
    for dtype in (torch.float16, torch.float32, torch.bfloat16):
        maps = [torch.randn(size, device=device).to(dtype) for _ in range(3)]
        if triton_attention.why_not(*maps):
            continue
        chosen = {
            name: form
            for name, form in everything.items()
            if name != "triton tf32" or dtype == torch.float32
        }
        for name, form in list(chosen.items()):
            try:
                assert right(name, form, maps), f"{name} is not equal to the definition in {dtype}"
                step(name, form, maps, backward=True)()
            except Exception as error:  # of another form: ours is measured all the same
                if name.startswith(("triton", "unfold")):
                    raise
                print(f"{name} is left out in {dtype}: {str(error).splitlines()[:1]}", flush=True)
                del chosen[name]
        saved = {name: saved_bytes(name, form, maps) for name, form in chosen.items()}
        for backward in (False, True):
            steps = {name: step(name, form, maps, backward) for name, form in chosen.items()}
            for name, times in measure(steps).items():
                row = {
                    "dtype": str(dtype).removeprefix("torch."),
                    "pass": "forward+backward" if backward else "forward",
                    "form": name,
                    "gpu_us": times["gpu"],
                    "eager_us": times["eager"],
                    "saved_bytes": saved[name],
                }
                result["measured"].append(row)
                if name == "unfold":
                    unfold = times["gpu"]
                print(
                    f"{row['dtype']:<8}  {row['pass']:<16}  {name:<11}  {times['gpu']:>7.1f}  "
                    f"{unfold / times['gpu']:>8.1f}  {times['eager']:>8.1f}  "
                    f"{saved[name] / 1e6:>9.1f}",
                    flush=True,
                )
        write("gpu", result)


if __name__ == "__main__":
    main()
