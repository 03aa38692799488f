"""What the chapters use as examples: one small map in numbers, photographs, and a legible ACmix."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from acmix_edu.acmix import ACmix
from acmix_edu.checks import floating, whole_number


def small_map() -> torch.Tensor:
    """Return the 5×5 map that goes through chapters 1 to 8, ``[1, 1, 5, 5]``: a bright corner."""
    return torch.tensor(
        [[[[0, 0, 0, 0, 0],
           [0, 9, 9, 9, 0],
           [0, 9, 5, 5, 0],
           [0, 9, 5, 1, 0],
           [0, 0, 0, 0, 0]]]],
        dtype=torch.float32,
    )  # fmt: skip


def small_kernel() -> torch.Tensor:
    """Return its 3×3 kernel, ``[1, 1, 3, 3]``: 1 … 9, so that each weight can be recognised."""
    return torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)


def blank(module: ACmix) -> ACmix:
    """Set all weights to zero except α, β and the shift kernels."""
    for name, parameter in module.named_parameters():
        if name.startswith(("conv", "fc")):
            nn.init.zeros_(parameter)
    return module


def small_acmix() -> ACmix:
    """Return an ACmix for the small map that can be followed by hand: N = 2, k = 3, d = 1.

    q is the map divided by 4. In head 0, k equals q, so bright pixels attract; in head 1, k is
    minus q, so dark ones do. v is the map in both heads. ``fc`` hands the values of head 0 to the
    k² maps, with the weights of :func:`small_kernel` divided by their sum, 45. The shift kernels
    are one-hot. There is no position term, and there are no biases.
    """
    module = blank(ACmix(1, 2, kernel_att=3, head=2, kernel_conv=3))
    with torch.no_grad():
        module.conv1.weight[:, 0, 0, 0] = torch.tensor([0.25, 0.25])
        module.conv2.weight[:, 0, 0, 0] = torch.tensor([0.25, -0.25])
        module.conv3.weight[:, 0, 0, 0] = torch.tensor([1.0, 1.0])
        module.fc.weight[:, 4, 0, 0] = small_kernel().flatten() / small_kernel().sum()
    return module


PHOTOGRAPHS = ("china", "flower", "grace_hopper")


def photograph(name: str, size: int = 96) -> torch.Tensor:
    """Return a photograph that comes with the installed libraries, as ``[1, 3, size, size]``.

    It is the largest square from the middle, scaled down by averaging, with values 0 … 1.

    Args:
        name: "china" (a temple) or "flower" (a dahlia), from scikit-learn; "grace_hopper" (a
            portrait), from matplotlib.
        size: the side, in pixels.

    Raises:
        ValueError: there is no such photograph.
        ImportError: scikit-learn or matplotlib is missing; ``pip install "acmix-edu[book]"``.
    """
    whole_number("size", size)
    if name not in PHOTOGRAPHS:
        raise ValueError(f"name must be one of {', '.join(PHOTOGRAPHS)}, but {name!r} came.")
    pixels = torch.from_numpy(_read(name)).permute(2, 0, 1)[None].float() / 255
    side = min(pixels.shape[-2:])
    top, left = (pixels.shape[-2] - side) // 2, (pixels.shape[-1] - side) // 2
    square = pixels[..., top : top + side, left : left + side]
    return F.interpolate(square, size=(size, size), mode="area")


def _read(name: str) -> np.ndarray:
    try:
        if name == "grace_hopper":
            from matplotlib import cbook, image

            file = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
            return np.array(image.imread(file, format="jpg"))
        from sklearn import datasets

        return np.array(datasets.load_sample_image(f"{name}.jpg"))
    except ImportError as error:
        raise ImportError(
            f"the photograph {name!r} comes with a library that is missing ({error.name}); "
            'install it with pip install "acmix-edu[book]".'
        ) from error


def colour_features(image: torch.Tensor) -> torch.Tensor:
    r"""Lift each colour onto a sphere, so that a dot product measures how alike two colours are.

    With c = rgb − ½ the features are $f = (c, \sqrt{3 - \lvert c\rvert^2})$. Their length is √3, so
    $f_1^\top f_2 = 3 - \tfrac12\lvert f_1 - f_2\rvert^2$, and $\lvert f_1 - f_2\rvert^2$ is 1 to
    4/3 times the squared difference of the colours. Attention whose q and k are both these features
    times 2√s is therefore a bilateral filter of sharpness s.

    Args:
        image: ``[..., 3, H, W]``, values 0 … 1.

    Returns:
        ``[..., 4, H, W]``; the first three are the colour minus ½.
    """
    floating("image", image)
    if image.dim() < 3 or image.shape[-3] != 3:
        raise ValueError(f"image must be [..., 3, H, W], but {list(image.shape)} came.")
    colour = image - 0.5
    lift = (3 - colour.square().sum(-3, keepdim=True)).sqrt()
    return torch.cat([colour, lift], dim=-3)


SHARPNESS = (0.0, 10.0, 40.0, 160.0)


def colour_acmix(kernel_att: int = 7, kernel_conv: int = 3) -> ACmix:
    """Return an ACmix whose weights are set by hand so that every map can be read.

    It takes :func:`colour_features` ``[B, 4, H, W]`` and gives 16 channels: 4 heads of 4 dimensions
    (red, green, blue, lift). In attention, q and k are the features, scaled so that the weight of a
    neighbour is proportional to exp(−s·r²), where r² is the squared difference of the features. The
    sharpness s grows from head to head: 0 is a plain average, and the others are bilateral filters
    that keep to ever more similar colours. v is the features. In the convolution path, ``fc``
    applies a Laplacian (centre minus the mean of the neighbours) to the values and the shift
    kernels are one-hot, so it finds edges.
    """
    return legible_acmix(4, 16, SHARPNESS, kernel_att=kernel_att, kernel_conv=kernel_conv)


def legible_acmix(
    in_planes: int, out_planes: int, sharpness: tuple[float, ...], **options: Any
) -> ACmix:
    """Return an ACmix like that of :func:`colour_acmix`, with one head for each sharpness.

    It takes :func:`colour_features`, repeated until they fill ``in_planes``; ``options`` go to
    :class:`~acmix_edu.ACmix`.
    """
    module = blank(ACmix(in_planes, out_planes, head=len(sharpness), **options))
    heads, d, window = module.head, module.head_dim, module.kernel_conv**2
    same = torch.eye(d, in_planes).repeat(heads, 1)[..., None, None]
    # scale²/√d = 2s·4/d: a head holds d/4 copies of the features; each adds −½|difference|² to q·k
    scale = (8 * torch.tensor(sharpness) / math.sqrt(d)).sqrt().repeat_interleave(d)
    with torch.no_grad():
        for layer in (module.conv1, module.conv2):
            layer.weight += scale[:, None, None, None] * same
        module.conv3.weight += same
        module.fc.weight[:, 2 * heads] = -1 / max(window - 1, 1)
        module.fc.weight[window // 2, 2 * heads] = 1
    return module
