"""How many instructions, registers and shared bytes do the Triton kernels need on each GPU?

Run it from the root of the repository: ``python benchmarks/triton_aot.py``. No GPU is needed: each
kernel is compiled ahead of time, with the arguments that the package itself would launch it with,
for a T4 (compute capability 7.5), an A100 (8.0), an L4 or RTX 40 (8.9), an H100 (9.0), a B200
(10.0) and an RTX 50 (12.0). Instructions are those of the program as it is written down: what is in
a loop counts once, and the forward kernel at 56×56 has no loop. A stack above zero holds registers
that were spilled to memory.
Options: ``--kernel-size 7``, ``--head-dims 16 32 64 128``.
"""

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget

from acmix_edu import split_heads
from acmix_edu.fast import triton_attention, triton_banded, triton_convolution

SHARED = {  # bytes that a program may have
    (7, 5): 64 * 1024, (8, 0): 163 * 1024, (8, 9): 99 * 1024, (9, 0): 227 * 1024,
    (10, 0): 227 * 1024, (12, 0): 99 * 1024,
}  # fmt: skip
KERNELS = [
    function
    for module in (triton_attention, triton_banded, triton_convolution)
    for name, function in vars(module).items()
    if name.endswith("_kernel")
]
COLUMNS = ["warps", "instructions", "registers", "stack", "shared"]
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def dtypes(capability: tuple[int, int]) -> list[torch.dtype]:
    return [torch.float32, torch.float16] + [torch.bfloat16] * (capability >= (8, 0))


def compiled(capability, dtype, head_dim, kernel_size=7, channels_last=False, tf32=False):
    """Compile the kernels as the package would launch them: name → resources."""
    found = {}

    def instead(kernel):
        run = kernel.run

        def record(*args, grid, warmup, **options):
            name = kernel.__name__ + (", turned" if options.get("TURNED") else "")
            found[name] = resources(run(*args, grid=grid, warmup=True, **options))

        return mock.patch.object(kernel, "run", record)

    number = 10 * capability[0] + capability[1]
    device = SimpleNamespace(  # as much of a driver as the compiler asks for
        get_current_device=lambda: number,
        get_current_stream=lambda _: 0,
        get_current_target=lambda: GPUTarget("cuda", number, 32),
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    f = torch.zeros(1, 2 * head_dim, 56, 56, dtype=dtype).contiguous(memory_format=layout)
    f = split_heads(f, head=2)
    window = kernel_size, 1, 1
    weight = torch.zeros(2 * head_dim, 6, 3, 3, dtype=dtype)
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(triton.runtime.driver, "_active", device))
        for module in (triton_attention, triton_banded):
            patches.enter_context(mock.patch.object(module, "capability", lambda _: capability))
            patches.enter_context(mock.patch.object(module, "tf32_is_allowed", lambda: tf32))
        for kernel in KERNELS:
            patches.enter_context(instead(kernel))
        out, lse = triton_attention.forward(f, f, f, *window)
        triton_attention.backward(out, f, f, f, out, lse, *window)
        out = triton_convolution.forward(f, f, f, weight, 1)
        triton_convolution.backward(out, f, f, f, weight, 1, True, True)
    return found


def resources(kernel) -> dict[str, int]:
    """Instructions, registers and stack bytes of a thread, shared bytes of a program, warps."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [CUOBJDUMP, "--dump-resource-usage", "--dump-sass", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    instructions = len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?!NOP)\S", text, re.MULTILINE))
    registers, stack = (int(re.search(rf"{key}:(\d+)", text)[1]) for key in ("REG", "STACK"))
    metadata = kernel.metadata
    return {
        "instructions": instructions,
        "registers": registers,
        "stack": stack,
        "shared": metadata.shared,
        "warps": metadata.num_warps,
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernel-size", type=int, default=7)
    parser.add_argument("--head-dims", type=int, nargs="+", default=[16, 32, 64, 128])
    options = parser.parse_args()
    print(f"Triton {triton.__version__}, kernel_size {options.kernel_size}, a 56×56 map")
    columns = "  ".join(COLUMNS)
    print(f"GPU  dtype     layout  head_dim  {'kernel':<26}  {columns}")
    failed = False
    for capability, limit in SHARED.items():
        modes = [(dtype, False) for dtype in dtypes(capability)]
        modes += [(torch.float32, True)] * (capability >= (8, 0))
        for dtype, tf32 in modes:
            name = "tf32" if tf32 else str(dtype).removeprefix("torch.")
            for layout in ("BCHW", "BHWC"):
                for head_dim in options.head_dims:
                    found = compiled(
                        capability, dtype, head_dim, options.kernel_size, layout == "BHWC", tf32
                    )
                    for kernel, r in found.items():
                        print(
                            f"{capability[0]}.{capability[1]}  {name:<8}  {layout:<6}  "
                            f"{head_dim:>8}  {kernel:<26}  "
                            + "  ".join(f"{r[column]:>{len(column)}}" for column in COLUMNS),
                            flush=True,
                        )
                        failed |= r["shared"] > limit
    return failed


if __name__ == "__main__":
    sys.exit(main())
