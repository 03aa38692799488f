"""The grouped explorer: which map, kernel and output belong together in one grouped convolution."""

import traitlets

from acmix_edu.depthwise import LearnableShift
from acmix_edu.explorers.explorer import Explorer, between, one_of
from acmix_edu.explorers.loader import bundle, source

SIZES = (3, 5)
MOST_DIMS, MOST_SETS = 2, 4
PARTS = ("map", "kernel", "output")


class GroupedExplorer(Explorer):
    """Point at a map, a kernel or an output of a grouped convolution: what belongs to it is lit.

    The kernels that are drawn are those with which :class:`acmix_edu.LearnableShift` starts: k² for
    each of its d·N outputs, in d groups.

    Traits:
        - kernel_size: k, 3 or 5.
        - dims, sets: d from 1 to 2 and N from 1 to 4.
        - part: "map", "kernel" or "output", the kind of part that is lit.
        - channel, tap: which output, 0 … 7, and which of its kernels, 0 … 24. Too large a number
          means the last.

    Raises:
        ValueError: a trait's new value cannot be used; the message says what can.

    Example:
        >>> explorer = GroupedExplorer()
        >>> explorer.observe(lambda change: print("N is", change.new), "sets")
        >>> explorer.sets = 4
        N is 4
    """

    _esm = bundle("engine.js", "kit.js", "grouped.js")
    _css = source("explorer.css") + source("grouped.css")

    _bounds = {"channel": MOST_DIMS * MOST_SETS, "tap": max(SIZES) ** 2}  # noqa: RUF012

    kernel_size = traitlets.Int(3).tag(sync=True, state=True)
    dims = traitlets.Int(1).tag(sync=True, state=True)
    sets = traitlets.Int(1).tag(sync=True, state=True)
    part = traitlets.Unicode("kernel").tag(sync=True, state=True)
    channel = traitlets.Int(0).tag(sync=True, state=True)
    tap = traitlets.Int(0).tag(sync=True, state=True)

    def __init__(self):
        super().__init__("grouped", {})

    def module(self) -> LearnableShift:
        """Return the grouped convolution that is drawn.

        Example:
            >>> list(GroupedExplorer().module().weight.shape)
            [1, 9, 3, 3]
        """
        return LearnableShift(self.dims, self.kernel_size, self.sets)

    @traitlets.validate("dims", "sets")
    def _drawable(self, proposal):
        most = {"dims": MOST_DIMS, "sets": MOST_SETS}[proposal.trait.name]
        return between(proposal.trait.name, proposal.value, 1, most)

    @traitlets.validate("part", "kernel_size")
    def _known(self, proposal):
        offered = {"part": PARTS, "kernel_size": SIZES}[proposal.trait.name]
        return one_of(proposal.trait.name, proposal.value, offered)
