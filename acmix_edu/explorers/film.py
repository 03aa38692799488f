"""The film explorer: kernels that started as shifts, and some that did not, while they learn."""

import torch
import traitlets

from acmix_edu.explorers.explorer import Explorer, evenly, place
from acmix_edu.explorers.loader import bundle, source
from acmix_edu.training.denoise import held_out, psnr
from acmix_edu.training.released import film

STARTS = ("acmix", "lost-init")
MOMENTS, OUTPUTS = 20, 4
NUMBERS = ("step", "psnr", "drift")


class FilmExplorer(Explorer):
    """Scrub through the training of the kernels of ``dep_conv``, from two starts side by side.

    The same small ACmix learns twice to take noise out of pictures: "acmix" starts with shifts,
    "lost-init" with the random numbers that the published ResNet writes over them. Shown are the k²
    = 9 kernels of one of the N = 4 outputs of dimension 0, at 20 of the moments that
    :func:`~acmix_edu.training.released.film` returns.

    Args:
        moment: where to start, from 0 (before training) to 19.

    Traits:
        moment; channel, the output, 0 … 3; change, whether to show how far each number is from its
        start instead of the number; and cell, (row, column) of the number that is written out,
        counted over the nine kernels, 0 … 8.

    Raises:
        ValueError: a trait's new value cannot be used; the message says what can.

    Example:
        >>> explorer = FilmExplorer()
        >>> explorer.observe(lambda change: print("moment", change.new), "moment")
        >>> explorer.moment = 19
        moment 19
    """

    _esm = bundle("kit.js", "film.js")
    _css = source("explorer.css") + source("film.css")

    _bounds = {"moment": MOMENTS, "channel": OUTPUTS, "cell": (9, 9)}  # noqa: RUF012

    moment = traitlets.Int(0).tag(sync=True, state=True)
    channel = traitlets.Int(0).tag(sync=True, state=True)
    change = traitlets.Bool(False).tag(sync=True, state=True)
    cell = place().tag(sync=True, state=True)

    kernels = traitlets.Bytes(read_only=True).tag(sync=True)  # [start, moment, output, 9, 3, 3]
    told = traitlets.Dict(read_only=True).tag(sync=True)  # start: a list of NUMBERS by moment
    noisy = traitlets.Float(read_only=True).tag(sync=True)  # PSNR of the picture as it comes

    def __init__(self, moment: int = 0):
        films = {start: evenly(film(start), MOMENTS) for start in STARTS}
        self._kernels = torch.stack([
            torch.stack([frame["state"]["operator.dep_conv.weight"][:OUTPUTS] for frame in frames])
            for frames in films.values()
        ])  # fmt: skip
        told = {start: [{name: frame[name] for name in NUMBERS} for frame in frames]
                for start, frames in films.items()}  # fmt: skip
        clean, noisy = held_out()
        constants: dict = {"kernels": self._kernels.numpy().tobytes(), "told": told}
        constants |= {"noisy": psnr(noisy, clean)}
        super().__init__("film", constants, moment=moment)

    def current_kernels(self) -> dict[str, torch.Tensor]:
        """Return the kernels that the view shows now, ``[9, 3, 3]``, by start.

        Example:
            >>> FilmExplorer().current_kernels()["acmix"][5]
            tensor([[0., 0., 0.],
                    [0., 0., 1.],
                    [0., 0., 0.]])
        """
        shown = self._kernels[:, self.moment, self.channel]
        shown = shown - self._kernels[:, 0, self.channel] if self.change else shown.clone()
        return dict(zip(STARTS, shown, strict=True))
