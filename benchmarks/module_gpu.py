"""How fast is ACmix on a GPU, as a whole and in its convolution path?

Run it from the root of the repository: ``python benchmarks/module_gpu.py``. The four maps of
ResNet-50, batch 32, kernel_att 7, 4 heads; the module in its three forms (unfold, plain PyTorch,
kernels), and the convolution path as fc and dep_conv, as PyTorch's grouped convolution of copied
maps, and as the kernel. All are compared with the unfold form before they are timed, in the manner
of attention_gpu.py. The results go to benchmarks/results/gpu-module-<name>.json.
"""

import torch
from attention_gpu import about, measure, write

from acmix_edu import ACmix

BATCH, STAGES = 32, [(64, 56), (128, 28), (256, 14), (512, 7)]
FORMS = {"unfold": "unfold", "pytorch": "halo", "kernels": "triton"}


def modules(channels: int, dtype, device) -> dict[str, ACmix]:
    """The same weights in all forms."""
    torch.manual_seed(0)
    plain = ACmix(channels, channels)
    found = {name: ACmix(channels, channels, backend=b) for name, b in FORMS.items()}
    for module in found.values():
        module.load_state_dict(plain.state_dict())
        module.to(device, dtype)
    return found


def whole(module: ACmix, x: torch.Tensor, backward: bool):
    """One call of the module, as a function without arguments."""
    x = x.clone().requires_grad_(backward)
    return _step(lambda: module(x), [x, *module.parameters()], backward)


def path(module: ACmix, x: torch.Tensor, backward: bool):
    """One call of its convolution path."""
    with torch.no_grad():
        maps = [f.clone().requires_grad_(backward) for f in module.project(x)]
    weights = [module.fc.weight, module.dep_conv.weight]
    return _step(lambda: module.convolution_path(*maps), [*maps, *weights], backward)


def _step(call, leaves, backward: bool):
    grad = torch.randn_like(call())

    def forward():
        with torch.no_grad():
            return call()

    def both():
        return torch.autograd.grad(call(), leaves, grad, allow_unused=True)

    return both if backward else forward


def main() -> None:
    if not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was measured.")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    rounded = torch.backends.cudnn.allow_tf32  # float32 convolutions of all forms but the kernels
    result = {"about": about(), "batch": BATCH, "cudnn_tf32": rounded, "measured": []}
    print(result["about"])
    print("what    map      dtype     pass              form       GPU µs  × unfold  eager µs")
    for channels, side in STAGES:
        for dtype in (torch.float16, torch.float32):
            x = torch.randn(BATCH, channels, side, side, device=device, dtype=dtype)
            forms = modules(channels, dtype, device)
            for what, make in (("module", whole), ("path", path)):
                for backward in (False, True):
                    steps = {name: make(module, x, backward) for name, module in forms.items()}
                    if not backward:
                        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                            _compare({name: step() for name, step in steps.items()}, dtype)
                    for name, times in measure(steps).items():
                        row = {"what": what, "map": [channels, side], "form": name,
                               "dtype": str(dtype).removeprefix("torch."),
                               "pass": "forward+backward" if backward else "forward",
                               "gpu_us": times["gpu"], "eager_us": times["eager"]}  # fmt: skip
                        result["measured"].append(row)
                        if name == "unfold":
                            unfold = times["gpu"]
                        print(
                            f"{what:<6}  {channels:>3}×{side:<2}²  {row['dtype']:<8}  "
                            f"{row['pass']:<16}  {name:<8}  {times['gpu']:>8.1f}  "
                            f"{unfold / times['gpu']:>8.1f}  {times['eager']:>8.1f}",
                            flush=True,
                        )
            write("gpu-module", result)


def _compare(outputs: dict[str, torch.Tensor], dtype) -> None:
    """Raise if a form is not equal to unfold, up to the roundings of its dtype."""
    expected = outputs["unfold"].float()
    rounding = 1e-4 if dtype == torch.float32 else 2e-2
    for name, out in outputs.items():
        error = (out.float() - expected).abs().max() / expected.abs().max()
        assert error <= rounding, f"{name} differs from unfold by {error:.1e}; nothing was measured"


if __name__ == "__main__":
    main()
