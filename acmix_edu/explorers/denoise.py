"""The denoise explorer: where attention looks, while it learns to take noise out of pictures."""

import torch
import traitlets

from acmix_edu.acmix import ACmix
from acmix_edu.checks import pair
from acmix_edu.examples import colour_features
from acmix_edu.explorers.explorer import Explorer, below, inside, one_image, one_of, place
from acmix_edu.explorers.loader import bundle, source
from acmix_edu.training.released import film

ARMS = ("small-beta", "acmix", "lost-init")
SENT = ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "conv_p.weight", "conv_p.bias")
NUMBERS = ("step", "psnr", "alpha", "beta", "share", "drift", "entropy")


class DenoiseExplorer(Explorer):
    """Scrub through the training of an ACmix that takes the noise out of pictures.

    At the end of the arm "small-beta" it is :func:`~acmix_edu.training.released.trained_acmix`. The
    windows of attention of all four heads at one pixel, at 20 recorded moments, are computed by
    the view from the weights of that moment.

    Args:
        picture: colours ``[3, H, W]`` or ``[1, 3, H, W]``, floats 0 … 1; the clean flower of the
            chapters when left out.
        arm: "small-beta", "acmix" or "lost-init".
        pixel: (row, column) of the query to look at first; the centre when left out.

    Traits:
        arm, moment (0, before training, to 19), pixel.

    Raises:
        TypeError, ValueError: an argument or a trait's new value cannot be used; the message
            says how to mend it.

    Example:
        >>> explorer = DenoiseExplorer(torch.rand(3, 32, 32), arm="acmix")
        >>> explorer.observe(lambda change: print("moment", change.new), "moment")
        >>> explorer.moment = 19
        moment 19
    """

    _esm = bundle("engine.js", "kit.js", "denoise.js")
    _css = source("explorer.css") + source("training.css")

    arm = traitlets.Unicode().tag(sync=True, state=True)
    moment = traitlets.Int(0).tag(sync=True, state=True)
    pixel = place().tag(sync=True, state=True)

    image = traitlets.Bytes(read_only=True).tag(sync=True)  # colours
    weights = traitlets.Bytes(read_only=True).tag(sync=True)  # [arm, moment, all that is SENT]
    told = traitlets.Dict(read_only=True).tag(sync=True)  # arm: a list of NUMBERS by moment
    sizes = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, picture=None, *, arm: str = "small-beta", pixel=None):
        if picture is None:
            from acmix_edu.training.denoise import held_out

            picture = held_out()[0]
        self._picture = one_image(picture, 3, "the colours of a picture")
        self._films = {name: _some(film(name)) for name in ARMS}
        _, height, width = self._picture.shape
        packed = [frame["state"][n].flatten() for frames in self._films.values()
                  for frame in frames for n in SENT]  # fmt: skip
        told = {name: [{n: frame[n] for n in NUMBERS} for frame in frames]
                for name, frames in self._films.items()}  # fmt: skip
        constants = {
            "image": self._picture.numpy().tobytes(),
            "weights": torch.cat(packed).numpy().tobytes(),
            "told": told,
            "sizes": {"height": height, "width": width, "in_planes": 4, "out_planes": 16,
                      "heads": 4, "kernel_att": 7, "arms": ARMS},
        }  # fmt: skip
        pixel = (height // 2, width // 2) if pixel is None else pair("pixel", pixel, 0)
        super().__init__("denoise", constants, arm=arm, pixel=pixel)

    def current_module(self) -> ACmix:
        """Return the ACmix as it was at the moment shown.

        Example:
            >>> DenoiseExplorer().current_module().rate1.item()
            0.5
        """
        module = ACmix(4, 16, kernel_att=7, head=4)
        module.load_state_dict(self._films[self.arm][self.moment]["state"])
        return module.requires_grad_(False).eval()

    def windows(self) -> torch.Tensor:
        """Return the attention weights at the pixel, ``[N, k²]``, as the view shows them."""
        seen = self.current_module().explain(colour_features(self._picture[None]))
        return seen["att"][0, :, :, self.pixel[0], self.pixel[1]]

    @traitlets.validate("arm")
    def _known(self, proposal):
        return one_of("arm", proposal.value, ARMS)

    @traitlets.validate("moment")
    def _recorded(self, proposal):
        return below("moment", proposal.value, len(self._films[ARMS[0]]))

    @traitlets.validate("pixel")
    def _inside(self, proposal):
        return inside("pixel", proposal.value, self._picture.shape[1:])


def _some(frames: list[dict]) -> list[dict]:
    """Every second moment, and the last."""
    return [*frames[:-1:2][:19], frames[-1]]
