"""How the chapters draw: maps, numbers and windows that look the same everywhere.

The module needs matplotlib, which the package itself does not; ``pip install "acmix-edu[book]"``.
"""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SEQUENTIAL, DIVERGING = "cividis", "RdBu_r"
ATTENTION, CONVOLUTION, BOTH = "#b5651d", "#1f7a8c", "#7b3fa0"  # as in the explorers
CONVOLUTIONS = ("conv3x3", "conv7x7", "relu7x7", "three3x3", "convolution")  # no attention


def _array(f) -> np.ndarray:
    """Return a tensor's numbers as an array, without leading dimensions of size 1."""
    f = f.detach().cpu().float().numpy() if isinstance(f, torch.Tensor) else np.asarray(f, float)
    while f.ndim > 2 and f.shape[0] == 1:
        f = f[0]
    return f


def _limits(maps: list[np.ndarray]) -> dict:
    """Return imshow's colour arguments: diverging around zero if any map is negative.

    NaN and infinity are ignored.
    """
    finite = np.concatenate([m[np.isfinite(m)] for m in maps] + [np.zeros(1)])
    low, high = finite.min(), finite.max()
    if low < 0:
        reach = max(-low, high)
        return {"cmap": DIVERGING, "vmin": -reach, "vmax": reach}
    return {"cmap": SEQUENTIAL, "vmin": 0, "vmax": high if high > 0 else 1}


def show_maps(
    maps: Iterable[torch.Tensor | np.ndarray],
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    numbers: bool = True,
    shared: bool = True,
    size: float = 2.0,
    colorbar: bool = True,
) -> Figure:
    """Draw maps side by side: ``[H, W]`` on a colour scale, ``[3, H, W]`` as RGB.

    Args:
        maps: a list of tensors or arrays; leading dimensions of size 1 are dropped.
        titles: one for each map.
        columns: maps in a row; when left out, all of them, but at most 5.
        numbers: write the values into the cells of maps up to 9×9.
        shared: one colour scale for all maps; otherwise each has its own.
        size: inches per map.
        colorbar: draw the colour scale, if it is shared.

    Returns:
        The figure.
    """
    arrays = [_array(m) for m in maps]
    shapes = [m.shape for m in arrays]
    if not arrays or any(len(s) not in (2, 3) or 0 in s or (s[2:] and s[0] != 3) for s in shapes):
        raise ValueError(
            f"maps must be a list of maps [H, W] or [3, H, W], but the shapes {shapes} came; "
            "pass for example [f[0, c] for c in range(f.shape[1])]."
        )
    if titles and len(titles) != len(arrays):
        raise ValueError(
            f"titles must be one for each of the {len(arrays)} maps, but {len(titles)} came."
        )
    columns = columns or min(len(arrays), 5)
    rows = -(-len(arrays) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size * columns, size * rows * 1.12), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    flat = [m for m in arrays if m.ndim == 2]
    drawn = None
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, title in zip(axes.flat, titles or (), strict=False):
        axis.set_title(title, fontsize=9)
    for axis, m in zip(axes.flat, arrays, strict=False):
        if m.ndim == 3:
            axis.imshow(np.clip(m.transpose(1, 2, 0), 0, 1))
        else:
            drawn = axis.imshow(m, **_limits(flat if shared else [m]))
            if numbers and max(m.shape) <= 9:
                _write_numbers(axis, m, drawn)
    if colorbar and shared and drawn is not None:
        figure.colorbar(drawn, ax=axes, shrink=0.8 / rows, aspect=20)  # about one map high
    return figure


def _write_numbers(axis, values: np.ndarray, drawn) -> None:
    """Write each value into its cell, dark on light and light on dark.

    Unless all are whole, values have at most three figures, and at most two decimals in a map that
    reaches 1.
    """
    whole = np.allclose(values, values.round())
    short = values.round(2) + 0.0 if np.abs(values).max() >= 1 else values  # + 0.0: no −0
    for (i, j), value in np.ndenumerate(values):
        red, green, blue, _ = drawn.cmap(drawn.norm(value))
        light = 0.3 * red + 0.59 * green + 0.11 * blue > 0.5
        text = f"{value:.0f}" if whole else f"{short[i, j]:.3g}"
        axis.text(
            j, i, text, ha="center", va="center", fontsize=7, color="black" if light else "white"
        )


def mark_window(axis: Axes, i: int, j: int, kernel_size: int, color: str = "orange") -> None:
    """Outline the window of pixel (i, j) on an image, and the pixel itself."""
    for half, width in ((kernel_size / 2, 1.8), (0.5, 1.2)):
        axis.add_patch(
            plt.Rectangle((j - half, i - half), 2 * half, 2 * half, fill=False, ec=color, lw=width)
        )


def show_seeds(axis: Axes, values: Mapping[str, Sequence[float]], colours: dict[str, str]) -> None:
    """Draw a row for each arm, with a dot for each of its seeds and a stroke at their mean.

    Args:
        axis: of matplotlib, to draw on.
        values: the numbers of the seeds, by arm; the first arm is drawn at the top.
        colours: by arm, as ``path_colours`` gives them.
    """
    for row, (arm, seeds) in enumerate(values.items()):
        axis.plot(seeds, [row] * len(seeds), "o", color=colours[arm], ms=5, mfc="none")
        axis.plot(np.mean(seeds), row, "k|", ms=13, mew=2)
    axis.set(yticks=range(len(values)), yticklabels=list(values), ylim=(len(values) - 0.4, -0.6))


def path_colours(arms: Iterable[str]) -> dict[str, str]:
    """Return each arm's colour: that of attention alone, a convolution alone, or both paths.

    Example:
        >>> path_colours(["attention", "conv3x3"])
        {'attention': '#b5651d', 'conv3x3': '#1f7a8c'}
    """
    alone = {"attention": ATTENTION} | dict.fromkeys(CONVOLUTIONS, CONVOLUTION)
    return {arm: alone.get(arm, BOTH) for arm in arms}
