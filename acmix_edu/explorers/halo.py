"""The halo explorer: why a tile of queries needs few copies, and what its mask hides."""

import math

import traitlets

from acmix_edu.examples import photograph
from acmix_edu.explorers.explorer import Array, Explorer, one_image, one_of, place
from acmix_edu.explorers.loader import bundle, source

WINDOWS = (3, 5, 7, 9, 11, 13)
CHANNELS = 64  # of the map whose copies are counted in bytes


class HaloExplorer(Explorer):
    r"""Choose a tile of queries on a photograph, and see the keys that it copies: its halo.

    A tile of t×t queries reads (t+k−1)² keys. The view shows how many of its queries use each key,
    and the mask that leaves k² keys to one query. It writes the copies of each key,
    $((t+k-1)/t)^2$, and the logits per useful logit, $((t+k-1)/k)^2$. A chart draws both over t,
    only as far as the tile that is chosen.

    Args:
        image: your own, floats ``[3, H, W]``, at most 128×128 pixels. When left out, it is a flower
            of 56×56.

    Traits:
        - tile: t, a common divisor of H and W; at the start, the smallest after 1. 1 is the unfold
          form; on a square map, its side is dense attention.
        - kernel_att: k, one of 3, 5, … 13.
        - pixel: (row, column) of the query; the tile is the one that holds it.

    Raises:
        TypeError, ValueError: the image or a trait's new value cannot be used; the message
            says how to mend it. A new value of another type is a ``traitlets.TraitError``.

    Example:
        >>> explorer = HaloExplorer()
        >>> explorer.observe(lambda change: print("tiles of", change.new), "tile")
        >>> explorer.tile = 14
        tiles of 14
    """

    _esm = bundle("engine.js", "kit.js", "halo.js")
    _css = source("explorer.css") + source("halo.css")

    tile = traitlets.Int(1).tag(sync=True, state=True)
    kernel_att = traitlets.Int(7).tag(sync=True, state=True)
    pixel = place().tag(sync=True, state=True)

    image = traitlets.Bytes(read_only=True).tag(sync=True)
    sizes = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, image: Array | None = None):
        image = photograph("flower", 56)[0] if image is None else one_image(image, 3, "as colours")
        _, height, width = image.shape
        self._bounds = {"pixel": (height, width)}
        self._tiles = _common_divisors(height, width)
        constants = {
            "image": image.numpy().tobytes(),
            "sizes": {"height": height, "width": width, "channels": CHANNELS,
                      "tiles": self._tiles, "windows": list(WINDOWS)},
        }  # fmt: skip
        start = {"tile": self._tiles[:2][-1], "pixel": (height // 3, width // 2)}
        super().__init__("halo", constants, **start)

    def ratios(self) -> dict[str, float]:
        """Return the copies of each key, and the logits per useful logit, as the view writes them.

        Example:
            >>> explorer = HaloExplorer()
            >>> explorer.tile = 8
            >>> explorer.ratios()
            {'copies': 3.0625, 'logits': 4.0}
        """
        side = self.tile + self.kernel_att - 1
        return {"copies": (side / self.tile) ** 2, "logits": (side / self.kernel_att) ** 2}

    @traitlets.validate("tile", "kernel_att")
    def _offered(self, proposal):
        offered = {"tile": self._tiles, "kernel_att": WINDOWS}[proposal.trait.name]
        return one_of(proposal.trait.name, proposal.value, offered)


def _common_divisors(*sides: int) -> list[int]:
    largest = math.gcd(*sides)
    return [t for t in range(1, largest + 1) if largest % t == 0]
