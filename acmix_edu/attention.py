r"""Self-attention, taken apart: the same Stage I as a convolution, a different Stage II.

Chapter 04 tells the story. Stage I, the three 1×1 convolutions that make q, k and v (eq. 11), is
left to the caller. The attention functions here therefore take maps ``[..., d, H, W]``: any leading
dimensions (batch, heads), then the d features of one head, then rows and columns.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from acmix_edu.checks import (
    alike,
    feature_map,
    floating,
    floating_dtype,
    odd_kernel,
    same_shape,
    whole_number,
    whole_numbers,
)


def split_heads(f: torch.Tensor, head: int) -> torch.Tensor:
    """Cut the channels into heads: ``[B, N·d, H, W]`` → ``[B, N, d, H, W]``, head-major.

    Example:
        >>> split_heads(torch.randn(2, 64, 5, 5), head=4).shape
        torch.Size([2, 4, 16, 5, 5])
    """
    head = whole_number("head", head)
    feature_map("f", f)
    if not torch.jit.is_tracing() and f.shape[1] % head:
        raise ValueError(
            f"the {f.shape[1]} channels of f cannot be cut into head={head} equal parts; "
            "head must divide the number of channels."
        )
    return f.reshape(f.shape[0], head, f.shape[1] // head, *f.shape[2:])


def reflect_indices(size: int, pad: int, device: torch.types.Device = None) -> torch.Tensor:
    r"""Return, for each pixel of a reflection-padded line, the pixel that it copies.

    Reflection does not repeat the border pixel: … 2 1 0 1 2 …. A line that is no longer than the
    padding is reflected back and forth as often as needed, as numpy's ``mode="reflect"`` does and
    PyTorch's does not. A line of one pixel repeats that pixel.

    Args:
        size: H, the length of the line.
        pad: pixels added on either side.

    Returns:
        int64 ``[H + 2·pad]``, with values from 0 to H − 1.

    Example:
        >>> reflect_indices(3, 4)
        tensor([0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2])
    """
    size, pad = whole_number("size", size), whole_number("pad", pad, least=0)
    return reflect(torch.arange(-pad, size + pad, device=device), size)


def reflect(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Map positions on a line of ``size`` pixels, or beyond its ends, onto it by reflection.

    Example:
        >>> reflect(torch.tensor([-2, 0, 3]), 3)
        tensor([2, 0, 1])
    """
    period = 2 * (size - 1) + 1 // size  # at least 1
    positions = positions.abs()  # mirrored in 0; OpenVINO rounds −3 / 4 to zero
    folded = positions - positions.div(period, rounding_mode="floor") * period  # not %, for ONNX
    return torch.minimum(folded, period - folded)


def reflect_pad(f: torch.Tensor, pad: int) -> torch.Tensor:
    """Pad ``[..., H, W]`` on all four sides, by reflecting as often as ``pad`` needs.

    Example:
        >>> reflect_pad(torch.tensor([[1., 2.]]), 1)
        tensor([[2., 1., 2., 1.],
                [2., 1., 2., 1.],
                [2., 1., 2., 1.]])
    """
    floating("f", f)
    if f.dim() < 2 or 0 in f.shape[-2:]:
        raise ValueError(
            f"f must have the shape [..., H, W] with no side 0, but {list(f.shape)} came."
        )
    rows = reflect_indices(f.shape[-2], pad, f.device)
    columns = reflect_indices(f.shape[-1], pad, f.device)
    return f.index_select(-2, rows).index_select(-1, columns)


def windows(f: torch.Tensor, kernel_size: int, stride: int = 1, dilation: int = 1) -> torch.Tensor:
    r"""Copy the k×k window of every pixel: the unfold with which attention over a window starts.

    Args:
        f: ``[..., C, H, W]``.
        kernel_size: k, odd.
        stride: windows are centred on every stride-th pixel.
        dilation: D, the distance in pixels from one window position to the next.

    Returns:
        ``[..., C, k², ⌈H/s⌉, ⌈W/s⌉]``, which is k² copies of the map when stride is 1. Position
        t = p·k + q holds the pixel (s·i + (p−⌊k/2⌋)·D, s·j + (q−⌊k/2⌋)·D), reflected at the border.

    Example:
        >>> windows(torch.randn(2, 64, 56, 56), 7).shape
        torch.Size([2, 64, 49, 56, 56])
    """
    floating("f", f)
    k = odd_kernel("kernel_size", kernel_size)
    stride, dilation = whole_number("stride", stride), whole_number("dilation", dilation)
    if f.dim() < 3 or 0 in f.shape[-3:]:
        raise ValueError(
            f"f must have the shape [..., C, H, W] with no side 0, but {list(f.shape)} came."
        )
    padded = reflect_pad(f, dilation * (k // 2))
    size = (len(range(0, f.shape[-2], stride)), len(range(0, f.shape[-1], stride)))
    copies = F.unfold(padded.reshape(-1, *padded.shape[-3:]), k, dilation=dilation, stride=stride)
    return copies.reshape(*f.shape[:-2], k * k, *size)


def position_map(
    height: int,
    width: int,
    *,
    device: torch.types.Device = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return the position of every pixel, ``[1, 2, H, W]``.

    Channel 0 runs from −1 to 1 along each row and channel 1 from −1 to 1 down each column, so the
    step from pixel to pixel depends on the size of the map. Along a side of one pixel the position
    is −1.

    Example:
        >>> position_map(2, 3)[0, 0]
        tensor([[-1.,  0.,  1.],
                [-1.,  0.,  1.]])
    """
    height, width = whole_numbers(height=height, width=width)
    floating_dtype(dtype)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    exact = torch.promote_types(dtype, torch.float32)
    x, y = (_from_minus_one_to_one(n, exact, device) for n in (width, height))
    shape = (height, width)
    return torch.stack([x.expand(shape), y[:, None].expand(shape)])[None].to(dtype)


def _from_minus_one_to_one(n: int, dtype, device) -> torch.Tensor:
    if isinstance(n, int):
        return torch.linspace(-1, 1, n, dtype=dtype, device=device)
    # linspace does not take an n that an exporter leaves open
    return torch.arange(n, dtype=dtype, device=device) * 2 / (n - 1 + 1 // n) - 1


def local_attention_weights(
    q: torch.Tensor,
    k: torch.Tensor,
    kernel_size: int,
    pe: torch.Tensor | None = None,
    stride: int = 1,
    dilation: int = 1,
) -> torch.Tensor:
    r"""Compare each query with the keys of its window and normalise (eq. 10).

    $$\begin{aligned} &a_o(i,j) = \\ &\quad \mathop{\mathrm{softmax}}_{o}\; \frac{q_{ij}^{\top}
    \left(k_{ij+o} + \mathit{pe}_{ij} - \mathit{pe}_{ij+o}\right)}{\sqrt d} \end{aligned}$$

    Here pe is the position term. It is zero in the paper's equation, but part of the published
    module.

    Args:
        q, k: ``[..., d, H, W]``.
        kernel_size: k_a, odd, the side of the window.
        pe: position features ``[..., d, H, W]``, or None.
        stride: queries are taken at every stride-th pixel, (s·i, s·j) for (i, j).
        dilation: the distance in pixels between the keys of a window.

    Returns:
        ``[..., k_a², ⌈H/s⌉, ⌈W/s⌉]``. The k_a² weights of a pixel add up to one, and cost k_a²·d
        multiply-adds per pixel and head.

    Raises:
        TypeError: a map is not a floating-point tensor, or the maps' dtypes differ.
        ValueError: the shapes or devices of q and k differ, pe does not fit q, or kernel_size is
            even.

    Example:
        >>> a = local_attention_weights(torch.randn(4, 5, 5), torch.randn(4, 5, 5), 3)
        >>> a.shape, bool(torch.allclose(a.sum(0), torch.ones(5, 5)))
        (torch.Size([9, 5, 5]), True)
    """
    return local_attention_logits(q, k, kernel_size, pe, stride, dilation).softmax(dim=-3)


def local_attention_logits(
    q: torch.Tensor,
    k: torch.Tensor,
    kernel_size: int,
    pe: torch.Tensor | None = None,
    stride: int = 1,
    dilation: int = 1,
) -> torch.Tensor:
    """Return the logits that :func:`local_attention_weights` normalises, from the same arguments.

    Example:
        >>> local_attention_logits(torch.ones(4, 2, 2), torch.ones(4, 2, 2), 1)
        tensor([[[2., 2.],
                 [2., 2.]]])
    """
    same_shape("q", q, "k", k)
    keys = windows(k, kernel_size, stride, dilation)
    queries = q[..., ::stride, ::stride] / math.sqrt(q.shape[-3])
    if pe is not None:
        _check_position(pe, q)
        here = pe[..., ::stride, ::stride].unsqueeze(-3)
        keys = keys + here - windows(pe, kernel_size, stride, dilation)
    return torch.einsum("...dhw,...dthw->...thw", queries, keys)


def aggregate(
    weights: torch.Tensor, v: torch.Tensor, kernel_size: int, stride: int = 1, dilation: int = 1
) -> torch.Tensor:
    r"""Average the values of each window with their weights (the sum in eq. 9).

    $$g_{ij} = \sum_o a_o(i,j)\, v_{ij+o}$$

    Args:
        weights: ``[..., k_a², ⌈H/s⌉, ⌈W/s⌉]``, from :func:`local_attention_weights`.
        v: values ``[..., d, H, W]``.
        kernel_size, stride, dilation: as for the weights.

    Returns:
        ``[..., d, ⌈H/s⌉, ⌈W/s⌉]``, at k_a²·d multiply-adds per pixel and head.

    Example:
        >>> box_blur = torch.full((9, 5, 5), 1 / 9)
        >>> aggregate(box_blur, torch.randn(3, 5, 5), 3).shape
        torch.Size([3, 5, 5])
    """
    floating("weights", weights)
    floating("v", v)
    values = windows(v, kernel_size, stride, dilation)
    if weights.shape[-3:] != values.shape[-3:]:
        raise ValueError(
            f"weights must be [..., {', '.join(map(str, values.shape[-3:]))}] for this v, "
            f"kernel_size, stride and dilation, but {list(weights.shape)} came."
        )
    try:
        torch.broadcast_shapes(weights.shape[:-3], v.shape[:-3])
    except RuntimeError:
        raise ValueError(
            "weights and v must agree in the dimensions before the last three, but "
            f"{list(weights.shape)} and {list(v.shape)} came."
        ) from None
    alike("v", v, "weights", weights)
    return torch.einsum("...thw,...dthw->...dhw", weights, values)


def local_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kernel_size: int,
    pe: torch.Tensor | None = None,
    stride: int = 1,
    dilation: int = 1,
) -> torch.Tensor:
    r"""Attend from every pixel to the k_a×k_a window around it (eq. 9–10, Stage II).

    $$g_{ij} = \sum_{(a,b)\in\mathcal N_k(i,j)} A(q_{ij}, k_{ab})\, v_{ab}$$

    The map is padded by reflection, so that a window at the border is full. Pixels that reflection
    repeats count twice, in a corner up to four times, and perhaps more often where a side has no
    more than ⌊k_a/2⌋·D + 1 pixels.

    Args:
        q, k, v: ``[..., d, H, W]``; give the heads a dimension of their own.
        kernel_size, pe, stride, dilation: as in :func:`local_attention_weights`.

    Returns:
        ``[..., d, ⌈H/s⌉, ⌈W/s⌉]``, at 2·k_a²·d multiply-adds per pixel and head and with k_a²
        copies of k and of v in memory.

    Example:
        >>> q, k, v = torch.randn(3, 2, 4, 16, 16)
        >>> local_attention(q, k, v, kernel_size=7).shape
        torch.Size([2, 4, 16, 16])
    """
    same_shape("q", q, "v", v, features=False)
    weights = local_attention_weights(q, k, kernel_size, pe, stride, dilation)
    return aggregate(weights, v, kernel_size, stride, dilation)


def global_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    r"""Attend from every pixel to all pixels (ViT; section 4.5 of the paper).

    $$g_{ij} = \sum_{a,b} \mathop{\mathrm{softmax}}_{a,b}\!
    \left(q_{ij}^{\top} k_{ab}/\sqrt d\right) v_{ab}$$

    Args:
        q, k, v: ``[..., d, H, W]``.

    Returns:
        ``[..., d, H, W]``, at 2·H·W·d multiply-adds per pixel: the total is quadratic in the size
        of the map.

    Example:
        >>> q, k, v = torch.randn(3, 2, 4, 8, 8)
        >>> global_attention(q, k, v).shape
        torch.Size([2, 4, 8, 8])
    """
    same_shape("q", q, "k", k)
    same_shape("q", q, "v", v, features=False)
    queries, keys, values = (f.flatten(-2).transpose(-1, -2) for f in (q, k, v))
    tokens = F.scaled_dot_product_attention(queries, keys, values)
    return tokens.transpose(-1, -2).unflatten(-1, q.shape[-2:])


def window_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window_size: int
) -> torch.Tensor:
    r"""Attend inside windows that do not overlap (Swin, without its shift; section 4.5).

    The map is cut into M×M windows, and every pixel attends to the pixels of its own window. At the
    right and lower borders a window may be smaller.

    Args:
        q, k, v: ``[..., d, H, W]``.
        window_size: M ≥ 1, even or odd.

    Returns:
        ``[..., d, H, W]``, at 2·M²·d multiply-adds per pixel.

    Example:
        >>> q, k, v = torch.randn(3, 2, 4, 10, 10)
        >>> window_attention(q, k, v, window_size=4).shape
        torch.Size([2, 4, 10, 10])
    """
    m = whole_number("window_size", window_size)
    same_shape("q", q, "k", k)
    same_shape("q", q, "v", v, features=False)
    rows = []
    for i in range(0, q.shape[-2], m):
        row = [
            global_attention(*(f[..., i : i + m, j : j + m] for f in (q, k, v)))
            for j in range(0, q.shape[-1], m)
        ]
        rows.append(torch.cat(row, dim=-1))
    return torch.cat(rows, dim=-2)


def patchwise_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kernel_size: int,
    phi: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    r"""Let a small network read the whole window and decide all its weights (SAN; section 4.5).

    $$\begin{aligned} a(i,j) &= \varphi\left(\left[q_{ij},\; [k_{ab}]_{(a,b)\in\mathcal N_k(i,j)}
    \right]\right) \\ g_{ij} &= \sum_o a_o(i,j)\, v_{ij+o} \end{aligned}$$

    where [ ] concatenates features. In the paper φ is two linear layers with a non-linearity
    between them, and there is no softmax: the weights may be negative and need not add up to 1.

    Args:
        q, k, v: ``[B, d, H, W]``.
        kernel_size: k_a, odd.
        phi: maps ``[B, d·(1 + k_a²), H, W]`` to ``[B, k_a², H, W]``. Channels 0 … d−1 are q,
            followed by the keys, one window position after another (channel d + t·d + e). An
            example is ``nn.Sequential(nn.Conv2d(d*(1+n), r, 1), nn.ReLU(), nn.Conv2d(r, n, 1))``
            with n = k_a².

    Returns:
        ``[B, d, H, W]``, at the cost of φ plus k_a²·d multiply-adds per pixel.

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 5, 5)
        >>> patchwise_attention(q, k, v, 3, torch.nn.Conv2d(20, 9, 1)).shape
        torch.Size([1, 2, 5, 5])
    """
    same_shape("q", q, "k", k)
    same_shape("q", q, "v", v, features=False)
    if not callable(phi):
        raise TypeError(
            f"phi must be a module or a function, but a {type(phi).__name__} came; pass for "
            "example torch.nn.Conv2d(d * (1 + kernel_size**2), kernel_size**2, 1)."
        )
    keys = windows(k, kernel_size).transpose(-4, -3).flatten(-4, -3)
    weights = phi(torch.cat([q, keys], dim=-3))
    due = [*q.shape[:-3], kernel_size**2, *q.shape[-2:]]
    if list(floating("phi(...)", weights).shape) != due:
        raise ValueError(
            f"phi must return {due}, a weight for every key of the window, but "
            f"{list(weights.shape)} came."
        )
    return aggregate(weights, v, kernel_size)


def entropy(weights: torch.Tensor) -> torch.Tensor:
    r"""Return how evenly each pixel attends: −Σ a·log a / log k², from 0 (one key) to 1 (all).

    Args:
        weights: ``[..., k², H, W]``, k² ≥ 2.

    Returns:
        ``[..., H, W]``, without a unit: the fraction of the largest possible entropy.

    Example:
        >>> entropy(torch.full((9, 1, 1), 1 / 9))
        tensor([[1.]])
    """
    floating("weights", weights)
    if weights.dim() < 3 or weights.shape[-3] < 2:
        raise ValueError(
            "weights must have the shape [..., k², H, W] with at least two keys, but "
            f"{list(weights.shape)} came; attention to a single key has no spread."
        )
    weights = weights.masked_fill(weights == 0, 1)  # 0·log 0 = 1·log 1, whose gradient is finite
    return torch.special.entr(weights).sum(-3) / math.log(weights.shape[-3])


def check_maps(q, k, v, kernel_size: int, pe=None, stride: int = 1, dilation: int = 1) -> None:
    """Raise unless :func:`local_attention` takes these arguments."""
    odd_kernel("kernel_size", kernel_size)
    whole_numbers(stride=stride, dilation=dilation)
    if torch.jit.is_tracing():
        return  # the shapes are symbols there
    same_shape("q", q, "v", v, features=False)
    same_shape("q", q, "k", k)
    if pe is not None:
        _check_position(pe, q)


def _check_position(pe: torch.Tensor, q: torch.Tensor) -> None:
    floating("pe", pe)
    if pe.shape[-3:] != q.shape[-3:] or not _broadcasts(pe.shape[:-3], q.shape[:-3]):
        raise ValueError(
            f"pe must have the shape {list(q.shape)} of q, or 1 for a dimension before the "
            f"last three, but {list(pe.shape)} came."
        )
    alike("pe", pe, "q", q)


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    """Return whether a shape expands to the target; ``broadcast_shapes`` is ten times slower."""
    aligned = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(side in (1, wanted) for side, wanted in aligned)
