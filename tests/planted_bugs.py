"""How many plausible bugs, planted one at a time, do the tests and the notebooks catch?

Each bug replaces one piece of text in a copy of the package. The unit tests alone and the
notebooks alone then run on that copy; whoever stays green has missed it. Takes an hour or two on
two cores: ``python tests/planted_bugs.py [number …]``. The notebooks run no kernel without a GPU,
and so miss what is wrong in one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

BUGS = [
    ("convolution", "kernel positions numbered by columns",
     "for p in range(kh) for q in range(kw)]", "for q in range(kw) for p in range(kh)]"),
    ("convolution", "the definition turns the kernel round",
     "i + p - kh // 2, j + q - kw // 2", "i - p + kh // 2, j - q + kw // 2"),
    ("shift", "a shift goes the other way",
     "    height, width = f.shape[-2:] if",
     "    di, dj = -di, -dj\n    height, width = f.shape[-2:] if"),
    ("shift", "rows and columns of a shift swapped",
     "    height, width = f.shape[-2:] if",
     "    di, dj = dj, di\n    height, width = f.shape[-2:] if"),
    ("shift", "what leaves comes back on the other side",
     "    return moved",
     "    return torch.roll(f, (-di, -dj), (-2, -1)) if size is None else moved"),
    ("shift", "dilation of the rows forgotten", "p * dh - top", "p - top"),
    ("shift", "bias forgotten", "return g + bias.type_as(g)[:, None, None]", "return g"),
    ("depthwise", "one-hot kernels transposed",
     "torch.eye(k * k).reshape(k * k, k, k)", "torch.eye(k * k).reshape(k * k, k, k).mT"),
    ("depthwise", "maps of one dimension not side by side",
     "maps.transpose(1, 2).flatten(1, 2)", "maps.flatten(1, 2)"),
    ("depthwise", "learnable kernels start at random",
     "self.weight[:, t, t // k, t % k].fill_(1)", "nn.init.kaiming_normal_(self.weight)"),
    ("attention", "the border repeated, not reflected",
     "    return torch.minimum(folded, period - folded)",
     "    return positions.clamp(0, size - 1)"),
    ("attention", "1/√d forgotten", " / math.sqrt(q.shape[-3])", ""),
    ("attention", "softmax along a row of the map", ".softmax(dim=-3)", ".softmax(dim=-2)"),
    ("attention", "position term with the wrong sign",
     "keys + here - windows(pe", "keys - here + windows(pe"),
    ("attention", "x and y of the position map swapped",
     "torch.stack([x.expand(shape), y[:, None].expand(shape)])",
     "torch.stack([y[:, None].expand(shape), x.expand(shape)])"),
    ("acmix", "convolution path cut in the wrong order",
     "self._light_maps(heads).transpose(1, 2).flatten(1, 2)",
     "self._light_maps(heads).flatten(1, 2)"),
    ("acmix", "α and β swapped",
     "alpha, beta = self.rate1[:, None], self.rate2[:, None]",
     "beta, alpha = self.rate1[:, None], self.rate2[:, None]"),
    ("acmix", "fc sees the keys before the queries",
     "maps = torch.cat(heads, dim=1)", "maps = torch.cat([heads[i] for i in (1, 0, 2)], dim=1)"),
    ("fast/halo", "a tile's queries see one key too many",
     "near=(within >= 0) & (within < kernel_size)", "near=(within >= 0) & (within <= kernel_size)"),
    ("fast/halo", "a band sees the keys outside its window once",
     ".log().masked_fill(m == 0, -math.inf)", ".log()"),
    ("fast/border", "multiplicity transposed", "return (window[..., None] == "
     "torch.arange(size, device=device)).sum(1)", "out = (window[..., None] == "
     "torch.arange(size)).sum(1)\n    return out.T if out.shape[0] == out.shape[1] else out"),
    ("fast/convolution", "keys before queries in the grouped convolution",
     "for f in (q, k, v)], dim=2", "for f in (k, q, v)], dim=2"),
    ("deploy", "the biases' border map left out",
     " + F.conv2d(ones, self.border, **how)", ""),
    ("resnet", "stride 2 starts one layer late", "2 if number > 1 and", "2 if number > 2 and"),
    ("cost", "attention counted once, not for logits and values",
     "2 * n * channels * pixels", "n * channels * pixels"),
    ("fast/triton_attention", "the total is not corrected for a larger logit",
     "total = total * shrink + row_sums", "total = total + row_sums"),
    ("fast/triton_attention", "the stride forgotten where the border is looked up",
     "2 * MARGIN + 1 - STRIDE", "2 * MARGIN"),
    ("fast/triton_attention", "four pixels are moved at once where the map ends earlier",
     "align = math.gcd(4, inputs[1], outputs[1], ", "align = math.gcd(4, "),
    ("fast/triton_attention", "the keys' gradient forgets the softmax's mean",
     "weights * (grad_weights - mean[None, :])", "weights * grad_weights"),
    ("fast/triton_convolution", "the gradient's kernel is not turned round",
     "y, x = (i - p) // STRIDE, (j - r) // STRIDE", "y, x = (i + p) // STRIDE, (j + r) // STRIDE"),
    ("fast/triton_convolution", "the weight's gradient knows the last image only",
     "total += grads.to", "total = grads.to"),
    ("fast/triton_banded", "the gradient's kernel is not turned round",
     "(WIDE - 1 - x if TURNED else x)", "x"),
    ("fast/triton_banded", "four pixels are moved at once where the map ends earlier",
     "math.gcd(4, maps[0].shape[4], ", "math.gcd(4, "),
    ("fast/triton_banded", "the weight's gradient knows the last tile only",
     "tl.dot(values, grads, total,", "tl.dot(values, grads,"),
    ("acmix", "the share of attention does not know α",
     "(self.rate1 * self.attention_path(q, k, v).to(exact))",
     "self.attention_path(q, k, v).to(exact)"),
    ("training/denoise", "the scaling folded into the weights only",
     "            bias.sub_(weight[:, :, 0, 0] @ weight.new_tensor(CENTRE))\n", ""),
    ("explorers/program", "an earlier block's average is not corrected",
     '"average": before["average"] * shrink[:, None] +', '"average": before["average"] +'),
    ("explorers/denoise", "the bias of v left out",
     ' + operator.rate1 * head @ weights["operator.conv3.bias"]', ""),
    ("fast/choice", "a kernel that computes NaN passes its trial",
     "None if error <= allowed else", "None if not error > allowed else"),
    ("fast/choice", "a kernel's gradients are not tried",
     "(out, *torch.autograd.grad(out, tensors, weight))", "(out,)"),
]  # fmt: skip

SUITES = {
    "tests": ["tests", "--ignore", "tests/browser", "--ignore", "tests/test_site.py", "-n", "2"],
    "notebooks": ["--nbval-lax", "--nbval-current-env", "book", "-n", "2", "--dist", "loadfile"],
}


def caught(tree: Path, arguments: list[str]) -> bool:
    """Run pytest on the tree; True if something failed."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True,
    )  # fmt: skip
    if run.returncode not in (0, 1, 2):
        sys.exit(f"pytest could not run:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return run.returncode != 0


def unspoilt(tree: Path) -> None:
    """Put a fresh copy of the package into the tree."""
    shutil.rmtree(tree / "acmix_edu", ignore_errors=True)
    shutil.copytree(ROOT / "acmix_edu", tree / "acmix_edu")


def planted(tree: Path, module: str, old: str, new: str) -> None:
    """Put one bug into a fresh copy of the package."""
    unspoilt(tree)
    file = tree / "acmix_edu" / f"{module}.py"
    text = file.read_text(encoding="utf-8")
    if old not in text:
        sys.exit(f"{module}.py does not hold {old!r} any more: mend the list of bugs.")
    file.write_text(text.replace(old, new), encoding="utf-8")


def main(numbers: list[int]) -> None:
    scores = dict.fromkeys(SUITES, 0)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in ("tests", "book", "benchmarks"):
            shutil.copytree(ROOT / name, tree / name)
        for name in ("pyproject.toml", "_config.yml", "_toc.yml", "README.md"):
            shutil.copy(ROOT / name, tree)
        unspoilt(tree)
        for suite, arguments in SUITES.items():
            if caught(tree, arguments):
                sys.exit(f"The {suite} fail without a bug: mend that first.")
        for number in numbers:
            module, what, old, new = BUGS[number - 1]
            planted(tree, module, old, new)
            found = {suite: caught(tree, arguments) for suite, arguments in SUITES.items()}
            for suite in SUITES:
                scores[suite] += found[suite]
            said = "  ".join(
                f"{suite} {'caught' if found[suite] else 'MISSED'}" for suite in SUITES
            )
            print(f"{number:2}  {module:12} {what:50} {said}", flush=True)
    print(", ".join(f"{suite} alone: {score} of {len(numbers)}" for suite, score in scores.items()))


if __name__ == "__main__":
    main([int(n) for n in sys.argv[1:]] or list(range(1, len(BUGS) + 1)))
