"""The program explorer: one tile of the GPU kernel, and its softmax block after block."""

import math

import torch
import torch.nn.functional as F
import traitlets

from acmix_edu.examples import SHARPNESS, colour_features, photograph
from acmix_edu.explorers.explorer import Array, Explorer, between, one_image, one_of, place
from acmix_edu.explorers.loader import bundle, source
from acmix_edu.fast.border import multiplicity

TILES = ("1×16", "2×8", "4×4", "8×2", "16×1")  # of 16 queries, as many as a matrix unit takes
BLOCKS = ("8×16", "4×8", "2×16", "4×W")
WINDOWS = (3, 5, 7, 9, 11, 13)
MOST_STEPS = 16  # blocks of 4×8 for a tile of 1×16 with 13×13 windows
SCALED = 2 * math.sqrt(SHARPNESS[2])  # for head 2, not the sharpest
SMALLEST = -1e38  # the kernel's first maximum: −∞ minus it is never NaN


class ProgramExplorer(Explorer):
    r"""Follow one program of the GPU kernel: 16 queries meet the keys that they reach in blocks.

    q and k are the colours of a photograph as head 2 of ``colour_acmix`` has them, and v is the
    photograph itself: the output is smooth where colours are alike. With
    $\ell = q^\top k + \sqrt d\,\log m$ and $c = \log_2 e/\sqrt d$, a block turns the running
    maximum $t$ (``top``), denominator $s$ (``total``) and numerator $u$ (``average``) into

    $$\begin{aligned} t' &= \max(t,\, \max_o \ell_o), \quad r = 2^{(t - t')c}, \quad
    w_o = 2^{(\ell_o - t')c} \\
    s' &= r s + \sum_o w_o, \quad u' = r u + \sum_o w_o v_o \end{aligned}$$

    where $r$ is ``shrink``. After any block, average/total is attention to the keys met so far
    alone; after the last it is local attention.

    Differs from the kernel, whose tile is 2×8 and whose block is 8×16 for d ≤ 32 (in half precision
    on compute capability 7.5, 4×16): here d is 4 for q and k and 3 for v, no number is rounded to
    half precision, and ``ALIGN`` is 1, so that blocks begin at the first key that is reached.

    Args:
        image: your own, floats from 0 to 1, ``[3, H, W]``, at most 128×128 pixels. When left out,
            it is a flower of 56×56.

    Traits:
        - tile: rows×columns of queries, "1×16", "2×8", "4×4", "8×2" or "16×1".
        - block: rows×columns of keys, "8×16", "4×8", "2×16", or "4×W" for 4 whole rows.
        - kernel_att: k, one of 3, 5, … 13.
        - pixel: (row, column) of the query; the program is that of the tile that holds it.
        - step: how many blocks the program has met, from 0 to 16. A number larger than it needs
          means all of them, so 16 is the end whatever the other traits are.

    Raises:
        TypeError, ValueError: the image or a trait's new value cannot be used; the message
            says how to mend it. A new value of another type is a ``traitlets.TraitError``.

    Example:
        >>> explorer = ProgramExplorer()
        >>> explorer.block = "8×16"
        >>> explorer.tallies()["blocks"]
        1
    """

    _esm = bundle("engine.js", "kit.js", "program.js")
    _css = source("explorer.css") + source("program.css")

    tile = traitlets.Unicode("2×8").tag(sync=True, state=True)
    block = traitlets.Unicode("4×8").tag(sync=True, state=True)
    kernel_att = traitlets.Int(7).tag(sync=True, state=True)
    pixel = place().tag(sync=True, state=True)
    step = traitlets.Int(2).tag(sync=True, state=True)

    image = traitlets.Bytes(read_only=True).tag(sync=True)
    sizes = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, image: Array | None = None):
        image = photograph("flower", 56)[0] if image is None else one_image(image, 3, "as colours")
        if image.min() < 0 or image.max() > 1:
            raise ValueError(
                f"image must hold colours from 0 to 1, but {image.min():.3g} to {image.max():.3g} "
                "came; for pixel values from 0 to 255 pass image / 255."
            )
        self._image, (height, width) = image, image.shape[1:]
        self._bounds = {"pixel": (height, width)}
        constants = {
            "image": image.numpy().tobytes(),
            "sizes": {"height": height, "width": width, "scaled": SCALED, "most": MOST_STEPS,
                      "tiles": list(TILES), "blocks": list(BLOCKS), "windows": list(WINDOWS)},
        }  # fmt: skip
        super().__init__("program", constants, pixel=(height // 5, width // 2))

    def met(self) -> int:
        """Return how many blocks the program has met: ``step``, or all that it needs."""
        return min(self.step, int(self.tallies()["blocks"]))

    def tallies(self) -> dict[str, float]:
        """Return the blocks, the logits per useful logit and the keys read, as in the view.

        The useful logits are the k² of a query, with mirror images counted; those computed are with
        all keys of all blocks. What a block holds beyond the map is not read.

        Example:
            >>> {name: round(n, 2) for name, n in ProgramExplorer().tallies().items()}
            {'blocks': 4, 'logits': 2.61, 'keys': 128}
        """
        axes = [math.prod(axis) for axis in self._covered()]
        logits = math.prod(axes) / self.kernel_att**2
        keys = math.prod(min(n, side) for n, side in zip(axes, self._image.shape[1:], strict=True))
        return {"blocks": math.prod(n for n, _ in self._covered()), "logits": logits, "keys": keys}

    def states(self) -> list[dict[str, torch.Tensor]]:
        """Return what the program holds before the first block and after each.

        Returns:
            ``top``, ``shrink`` and ``total``, ``[16]``, and ``average``, ``[16, 3]``, in float64,
            row by row for the 16 queries. A query outside the map meets no key, so its total stays
            0.

        Example:
            >>> end = ProgramExplorer().states()[-1]
            >>> (end["average"] / end["total"][:, None]).shape
            torch.Size([16, 3])
        """
        q, v, counts, (i, j), tile = self._operands()
        scale = math.log2(math.e) / math.sqrt(len(q))
        queries = q[:, i : i + tile[0], j : j + tile[1]].flatten(1).T
        top = torch.full((16,), SMALLEST, dtype=torch.float64)
        states = [{"top": top, "shrink": torch.ones_like(top), "total": torch.zeros_like(top),
                   "average": torch.zeros(16, 3, dtype=torch.float64)}]  # fmt: skip
        for (y, rows), (x, columns) in self._blocks():
            keys, values = (f[:, y : y + rows, x : x + columns].flatten(1) for f in (q, v))
            m = torch.kron(counts[0][i : i + tile[0], y : y + rows].contiguous(),
                           counts[1][j : j + tile[1], x : x + columns].contiguous())  # fmt: skip
            logits = queries @ keys + math.sqrt(len(q)) * m.log()
            states.append(_met(states[-1], logits, values, scale))
        return states

    def _covered(self) -> list[tuple[int, int]]:
        """Return (blocks, pixels of one) down and across: enough for all that the tile reaches."""
        tile, block = _sides(self.tile), self._block()
        reached = (min(t + self.kernel_att - 1, side)
                   for t, side in zip(tile, self._image.shape[1:], strict=True))  # fmt: skip
        return [(-(-r // b), b) for r, b in zip(reached, block, strict=True)]

    def _block(self) -> tuple[int, int]:
        return _sides(self.block.replace("W", str(self._image.shape[2])))

    def _corner(self) -> list[int]:
        return [at - at % t for at, t in zip(self.pixel, _sides(self.tile), strict=True)]

    def _blocks(self) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Return the (first, count) of the rows and of the columns of each block, in order."""
        starts = []
        for corner, (n, b), side in zip(
            self._corner(), self._covered(), self._image.shape[1:], strict=True
        ):
            first = max(min(corner - self.kernel_att // 2, side - n * b), 0)
            starts.append([(first + b * block, b) for block in range(n)])
        return [(rows, columns) for rows in starts[0] for columns in starts[1]]

    def _operands(self):
        """Return q, v and both multiplicities, with zeros beyond the map, and where the tile is."""
        tile, sides = _sides(self.tile), self._image.shape[1:]
        beyond = [max(t, math.prod(axis)) for t, axis in zip(tile, self._covered(), strict=True)]
        around = (0, beyond[1], 0, beyond[0])
        q, v = (F.pad(f.double(), around) for f in
                (SCALED * colour_features(self._image), self._image))  # fmt: skip
        counts = [F.pad(multiplicity(side, self.kernel_att).double(), (0, n, 0, n))
                  for side, n in zip(sides, beyond, strict=True)]  # fmt: skip
        return q, v, counts, self._corner(), tile

    @traitlets.validate("tile", "block", "kernel_att")
    def _offered(self, proposal):
        offered = {"tile": TILES, "block": BLOCKS, "kernel_att": WINDOWS}[proposal.trait.name]
        return one_of(proposal.trait.name, proposal.value, offered)

    @traitlets.validate("step")
    def _counted(self, proposal):
        return between("step", proposal.value, 0, MOST_STEPS)


def _sides(text: str) -> tuple[int, int]:
    rows, columns = text.split("×")
    return int(rows), int(columns)


def _met(before: dict, logits: torch.Tensor, values: torch.Tensor, scale: float) -> dict:
    """Return what the program holds after one more block."""
    top = torch.maximum(before["top"], logits.amax(1))
    weights = ((logits - top[:, None]) * scale).exp2()
    shrink = ((before["top"] - top) * scale).exp2()
    return {
        "top": top,
        "shrink": shrink,
        "total": before["total"] * shrink + weights.sum(1),
        "average": before["average"] * shrink[:, None] + weights @ values.T,
    }
