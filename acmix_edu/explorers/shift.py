"""The shift explorer: move a map by hand, and see what leaves, what enters and what is lost."""

import numpy as np
import torch
import traitlets

from acmix_edu.examples import photograph, small_map
from acmix_edu.explorers.explorer import Array, Explorer, between, one_image, one_of, place
from acmix_edu.explorers.loader import bundle, source
from acmix_edu.shift import shift

MOST = 8  # pixels, in each direction
BORDERS = ("zeros", "roll")


class ShiftExplorer(Explorer):
    r"""Move a map by (Δx, Δy): drag the picture, or the window that reads it.

    Each pixel of the result reads $f_{i+\Delta x,\, j+\Delta y}$ (eq. 4), so the picture moves
    against the displacement. A second shift can follow the first. Beside the two, the view shows
    the one shift by their sum, and outlines where the results differ.

    Args:
        image: your own map, floats ``[C, H, W]``, ``[1, C, H, W]`` or ``[H, W]``, at most 128×128
            pixels, offered besides the book's small map and a flower. Three channels with values 0
            … 1 are drawn as colours; of any others the first channel is drawn.

    Traits:
        - dx, dy: the displacement, −8 … 8; dx is along the rows, as in the paper. More than the
          side of the map means the side: there are only zeros beyond.
        - twice: whether a second shift, by dx2 and dy2, follows.
        - dx2, dy2: the displacement of the second shift, −8 … 8.
        - memory: whether a line says what is read and written.
        - border: "zeros" (Shift) or "roll" (``torch.roll``, by the negative displacement).
        - map: "numbers" (the small map), "flower" or, if an image was passed, "own".
        - pixel: (row, column) of the result whose reading is written out; a place beyond the last
          pixel means the last.

    Raises:
        TypeError, ValueError: the image or a trait's new value cannot be used; the message
            says how to mend it. A new value of another type is a ``traitlets.TraitError``.

    Example:
        >>> explorer = ShiftExplorer(torch.rand(3, 24, 32))
        >>> explorer.observe(lambda change: print("Δx is", change.new), "dx")
        >>> explorer.dx = -3
        Δx is -3
    """

    _esm = bundle("kit.js", "shift.js")
    _css = source("explorer.css") + source("shift.css")

    dx = traitlets.Int(0).tag(sync=True, state=True)
    dy = traitlets.Int(0).tag(sync=True, state=True)
    twice = traitlets.Bool(False).tag(sync=True, state=True)
    memory = traitlets.Bool(False).tag(sync=True, state=True)
    dx2 = traitlets.Int(-2).tag(sync=True, state=True)
    dy2 = traitlets.Int(-1).tag(sync=True, state=True)
    border = traitlets.Unicode("zeros").tag(sync=True, state=True)
    map = traitlets.Unicode("numbers").tag(sync=True, state=True)
    pixel = place().tag(sync=True, state=True)

    values = traitlets.Bytes(read_only=True).tag(sync=True)
    sizes = traitlets.List(traitlets.Any(), read_only=True).tag(sync=True)  # map, [C, H, W]

    def __init__(self, image: Array | None = None):
        self._maps = {"numbers": small_map()[0], "flower": photograph("flower", 32)[0]}
        if image is not None:
            self._maps["own"] = _any_map(image)
        constants = {
            "values": torch.cat([f.flatten() for f in self._maps.values()]).numpy().tobytes(),
            "sizes": [[name, list(f.shape)] for name, f in self._maps.items()],
        }
        first = "numbers" if image is None else "own"
        super().__init__("shift", constants, pixel=(1, 1), map=first)

    def current_map(self) -> torch.Tensor:
        """Return a copy of the map that is moved, ``[C, H, W]``, float32."""
        return self._maps[self.map].clone()

    def shifted(self) -> torch.Tensor:
        """Return the map as the view shows it now, moved by one or both shifts, ``[C, H, W]``.

        Example:
            >>> explorer = ShiftExplorer()
            >>> explorer.dx = 1
            >>> torch.equal(explorer.shifted(), shift(explorer.current_map(), 1, 0))
            True
        """
        first = self._move(self.current_map(), self.dx, self.dy)
        return self._move(first, self.dx2, self.dy2) if self.twice else first

    def _move(self, f: torch.Tensor, dx: int, dy: int) -> torch.Tensor:
        dx, dy = (max(-side, min(d, side)) for d, side in zip((dx, dy), f.shape[1:], strict=True))
        return shift(f, dx, dy) if self.border == "zeros" else f.roll((-dx, -dy), (-2, -1))

    @traitlets.validate("dx", "dy", "dx2", "dy2")
    def _near(self, proposal):
        return between(proposal.trait.name, proposal.value, -MOST, MOST)

    @traitlets.validate("border", "map")
    def _offered(self, proposal):
        offered = {"border": BORDERS, "map": tuple(self._maps)}[proposal.trait.name]
        return one_of(proposal.trait.name, proposal.value, offered)

    @traitlets.validate("pixel")
    def _in_bounds(self, proposal):
        if min(proposal.value) < 0:
            raise ValueError(
                f"pixel must be a (row, column) counted from 0, but {proposal.value} came."
            )
        return proposal.value


def _any_map(image) -> torch.Tensor:
    """Return the image as ``[C, H, W]``, whatever its C."""
    shape = np.shape(image)
    return one_image(image, shape[-3] if len(shape) > 2 else 1, "or [H, W]")
