"""The denoise explorer: an ACmix learns to take noise out of pictures, and shows where it looks."""

import torch
import traitlets

from acmix_edu.checks import pair
from acmix_edu.deploy import DeployedACmix
from acmix_edu.examples import colour_features
from acmix_edu.explorers.explorer import Array, Explorer, evenly, one_image, one_of, place
from acmix_edu.explorers.loader import bundle, source
from acmix_edu.training.denoise import held_out
from acmix_edu.training.released import Denoiser, denoiser_of, film

ARMS, MOMENTS = ("small-beta", "acmix", "lost-init"), 20
NUMBERS = ("step", "alpha", "beta", "share", "drift", "entropy")


class DenoiseExplorer(Explorer):
    """Scrub through the training of an ACmix that takes the noise out of pictures.

    At the end of the arm "small-beta" it is :func:`~acmix_edu.training.released.trained_denoiser`,
    with ``dep_conv`` rounded to half precision. The view computes the result, and the windows of
    attention of all four heads at one pixel, from the weights of 20 recorded moments.

    Args:
        picture: colours ``[3, H, W]`` or ``[1, 3, H, W]``, floats 0 … 1, without noise, which the
            explorer adds. When left out, it is the flower of the chapters.
        arm: "small-beta", "acmix" or "lost-init".
        moment: where to start, from 0 (before training) to 19.
        pixel: (row, column) of the query to look at first; the centre when left out.

    Traits:
        arm, moment, pixel.

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
    _css = source("explorer.css") + source("denoise.css")

    arm = traitlets.Unicode().tag(sync=True, state=True)
    moment = traitlets.Int(0).tag(sync=True, state=True)
    pixel = place().tag(sync=True, state=True)

    clean = traitlets.Bytes(read_only=True).tag(sync=True)  # colours
    noisy = traitlets.Bytes(read_only=True).tag(sync=True)
    weights = traitlets.Bytes(read_only=True).tag(sync=True)  # [arm, moment, all of `_composed`]
    told = traitlets.Dict(read_only=True).tag(sync=True)  # arm: a list of NUMBERS by moment
    sizes = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self,
        picture: Array | None = None,
        *,
        arm: str = "small-beta",
        moment: int = 0,
        pixel: tuple[int, int] | None = None,
    ):
        if picture is not None:
            picture = one_image(picture, 3, "the colours of a picture")[None]
        (self._clean,), (self._noisy,) = held_out(picture)
        self._films = {name: evenly(film(name), MOMENTS) for name in ARMS}
        _, height, width = self._clean.shape
        self._bounds = {"moment": MOMENTS, "pixel": (height, width)}
        packed = [tensor.flatten() for frames in self._films.values() for frame in frames
                  for tensor in _composed(denoiser_of(frame["state"]))]  # fmt: skip
        told = {name: [{n: frame[n] for n in NUMBERS} for frame in frames]
                for name, frames in self._films.items()}  # fmt: skip
        constants = {
            "clean": self._clean.numpy().tobytes(),
            "noisy": self._noisy.numpy().tobytes(),
            "weights": torch.cat(packed).float().numpy().tobytes(),
            "told": told,
            "sizes": {"height": height, "width": width, "in_planes": 4, "out_planes": 16,
                      "heads": 4, "kernel_att": 7, "arms": ARMS},
        }  # fmt: skip
        pixel = (height // 2, width // 2) if pixel is None else pair("pixel", pixel, 0)
        super().__init__("denoise", constants, arm=arm, moment=moment, pixel=pixel)

    def current_denoiser(self) -> Denoiser:
        """Return the network as it was at the moment shown: ``operator``, then ``head``.

        Example:
            >>> DenoiseExplorer().current_denoiser().operator.rate1.item()
            0.5
        """
        return denoiser_of(self._films[self.arm][self.moment]["state"]).requires_grad_(False)

    def result(self) -> torch.Tensor:
        """Return what the network makes of the noisy picture now, ``[3, H, W]``."""
        return self.current_denoiser()(colour_features(self._noisy[None]))[0]

    def windows(self) -> torch.Tensor:
        """Return the attention weights at the pixel, ``[N, k²]``, as the view shows them."""
        seen = self.current_denoiser().operator.explain(colour_features(self._noisy[None]))
        return seen["att"][0, :, :, self.pixel[0], self.pixel[1]]

    @traitlets.validate("arm")
    def _known(self, proposal):
        return one_of("arm", proposal.value, ARMS)


def _composed(denoiser: Denoiser) -> list[torch.Tensor]:
    """Multiply out what the view needs.

    The colours of the result come from 16 maps by one 1×1 convolution, so each path can make the
    three colours itself.

    Returns:
        The weights and biases of q, of k and of the position term; what a head's attention makes of
        the features, ``[3N, 4]``; the convolution path with a fifth input, which is 1 in the
        picture, ``[3, 5, 3, 3]``; and the constant, ``[3]``.
    """
    operator, deployed = denoiser.operator, DeployedACmix(denoiser.operator, convolution="dense")
    head = denoiser.head.weight[:, :, 0, 0]  # [3, 16]
    light = torch.cat([deployed.kernel, deployed.border], dim=1)  # [16, 5, 3, 3]
    paid = operator.rate1 * head.unflatten(1, (operator.head, operator.head_dim))  # [3, N, d]
    values = operator.conv3.weight[:, :, 0, 0].unflatten(0, (operator.head, operator.head_dim))
    weights = dict(denoiser.named_parameters())
    constant = weights["head.bias"] + operator.rate1 * head @ weights["operator.conv3.bias"]
    layers = (operator.conv1, operator.conv2, operator.conv_p)
    asked = [weight for layer in layers for weight in layer.parameters()]  # and its bias
    made = [torch.einsum("cne,nei->nci", paid, values),
            torch.einsum("co,oipq->cipq", head, light), constant]  # fmt: skip
    return [tensor.detach() for tensor in (*asked, *made)]
