r"""Local attention without k² copies, in plain PyTorch. Chapter 07 tells the story.

Neighbouring queries share most of their keys. A tile of t×t queries needs t+k−1 rows and columns of
keys, its halo, instead of t² windows of k×k. There is one dense attention per tile, in which a bias
of −∞ hides the keys outside each query's own window. With t = 8 and k = 7 each key is copied 3
times instead of 49. On a small map a band of whole rows serves as well, and nothing is copied: the
bias then carries the logarithm of how often reflection repeats each key.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from acmix_edu.attention import check_maps, reflect
from acmix_edu.fast.border import multiplicity
from acmix_edu.fast.triton_base import (
    cast_to,
    is_exporting,
    is_recorded,
    no_second_gradients,
)

TILE = 8
MOST = 65535  # the most images, or tiles, that PyTorch's attention takes at once on a GPU


class Tiles(NamedTuple):
    """One side of the map, cut into tiles of queries with their halos of keys."""

    queries: torch.Tensor  # [n, t]: the input pixel of each query
    keys: torch.Tensor  # [n, u]: the input pixel of each key, reflected at the border
    near: torch.Tensor  # [t, u]: is the key in the query's window?
    home: tuple[torch.Tensor, torch.Tensor]  # [⌈H/s⌉] each: tile and place of every output pixel


def tiles(
    size: int,
    kernel_size: int,
    stride: int = 1,
    dilation: int = 1,
    device: torch.types.Device = None,
) -> Tiles:
    """Cut one side of the map into tiles.

    With a dilation D, pixels whose distance is not a multiple of D share only reflected keys. A
    tile therefore takes queries of one residue class, and its keys are D pixels apart, without
    waste.

    Example:
        >>> tiles(16, 3).keys
        tensor([[ 1,  0,  1,  2,  3,  4,  5,  6,  7,  8],
                [ 7,  8,  9, 10, 11, 12, 13, 14, 15, 14]])
    """
    outputs = _parts(size, stride)
    classes = dilation // math.gcd(stride, dilation)
    if is_known(outputs):
        classes = min(classes, outputs)  # no class without a query
    step = classes * stride  # pixels from query to query in a tile, a multiple of the dilation
    members = _parts(outputs, classes)
    side = _side(members)
    count = _parts(members, side)
    if isinstance(members, torch.SymInt):  # left open by torch.export, which would take a
        count = count + 1  # count of 1 for a constant; one more, and it is never 1
    place = torch.arange(side, device=device)
    start = torch.arange(count, device=device) * side * step
    start = (torch.arange(classes, device=device)[:, None] * stride + start).reshape(-1, 1)
    offset = torch.arange((side - 1) * (step // dilation) + kernel_size, device=device)
    within = offset - place[:, None] * (step // dilation)
    output = torch.arange(outputs, device=device)
    member = output // classes
    return Tiles(
        queries=(start + place * step).clamp(max=size - 1),
        keys=reflect(start + (offset - kernel_size // 2) * dilation, size),
        near=(within >= 0) & (within < kernel_size),
        home=(output % classes * count + member // side, member % side),
    )


def halo_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kernel_size: int,
    stride: int = 1,
    dilation: int = 1,
) -> torch.Tensor:
    """Attend tile by tile; arguments and result as :func:`acmix_edu.local_attention`, without pe.

    At stride 1 this makes (1 + (k−1)/t)² copies of k and v, and as many logits per query as the
    halo has keys.

    Example:
        >>> q, k, v = torch.randn(3, 1, 4, 20, 20)
        >>> halo_attention(q, k, v, kernel_size=7).shape
        torch.Size([1, 4, 20, 20])
    """
    check_maps(q, k, v, kernel_size, None, stride, dilation)
    return _in_tiles(q, k, v, kernel_size, stride, dilation)


def _in_tiles(q, k, v, kernel_size: int, stride: int, dilation: int) -> torch.Tensor:
    """As :func:`halo_attention`, without its checks."""
    if _has_slow_gradients(q, k, v):
        with torch.autocast("cpu", enabled=False):
            maps = q.float(), k.float(), v.float()
            out = _in_tiles(*maps, kernel_size, stride, dilation)
        return out.to(cast_to(q))
    height, width = q.shape[-2:]
    rows = tiles(height, kernel_size, stride, dilation, q.device)
    columns = tiles(width, kernel_size, stride, dilation, q.device)
    queries = _gather(q, _pixels(rows.queries, columns.queries, width))
    around = _pixels(rows.keys, columns.keys, width)
    near = rows.near[:, None, :, None] & columns.near[:, None, :]
    bias = q.new_zeros(near.shape).masked_fill(~near, -math.inf)
    bias = bias.flatten(2).flatten(0, 1)  # [t², u²]
    out = _attend(queries, _gather(k, around), _gather(v, around), bias)
    (tile_row, row), (tile_column, column) = rows.home, columns.home
    tile = tile_row[:, None] * columns.queries.shape[0] + tile_column
    place = row[:, None] * columns.queries.shape[1] + column
    home = place * around.shape[0] + tile  # where each output pixel was computed
    out = out.transpose(1, 2).flatten(1, 2).index_select(1, _whole(home))
    return out.transpose(1, 2).reshape(*v.shape[:-2], *home.shape)


def _has_slow_gradients(*maps: torch.Tensor) -> bool:
    """Return whether there will be gradients in half precision on a CPU.

    They take PyTorch up to three times as long as in float32, with AVX2 and AVX-512 alike.
    """
    half = maps[0].device.type == "cpu" and cast_to(maps[0]).itemsize == 2
    learns = torch.is_grad_enabled() and any(f.requires_grad for f in maps)
    return half and learns and not is_recorded()


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Attend within every tile, ``[images, tiles, tokens, d]``, in parts if there are too many."""
    for dim in (0, 1) if not is_exporting() else ():  # where a comparison bounds an open size
        if is_known(q.shape[dim]) and q.shape[dim] > MOST:
            parts = zip(q.split(MOST, dim), k.split(MOST, dim), v.split(MOST, dim), strict=True)
            return torch.cat([_attend(*part, bias) for part in parts], dim)
    if forward_ad._current_level >= 0:  # PyTorch's attention has no rule for it
        return torch.softmax(q / math.sqrt(q.shape[-1]) @ k.mT + bias, -1) @ v
    if not (is_recorded() or torch.compiler.is_compiling()):
        for f in (f for f in (q, k, v) if f.requires_grad):
            f.register_hook(_say_that_gradients_end)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _say_that_gradients_end(grad: torch.Tensor | None) -> None:
    """Say that PyTorch's attention cannot be differentiated twice, before PyTorch does.

    Under ``torch.func`` PyTorch's own message comes first. A gradient that nobody needs is None.
    """
    if grad is not None and grad.requires_grad:
        grad.register_hook(no_second_gradients)


def band_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kernel_size: int,
    stride: int = 1,
    dilation: int = 1,
) -> torch.Tensor:
    r"""Attend band by band: some rows of queries, and all rows of keys that they can reach.

    There is no padding and no copy, because a band of rows is a slice of the map. The bias is log
    m, and −∞ outside the window: repeating a key m times multiplies its weight by m, which adds log
    m to its logit. Arguments and result are as for :func:`acmix_edu.local_attention`, without pe.
    At stride and dilation 1 every query has up to (t+k−1)·W logits.

    Example:
        >>> q, k, v = torch.randn(3, 1, 4, 5, 5)
        >>> band_attention(q, k, v, kernel_size=7).shape
        torch.Size([1, 4, 5, 5])
    """
    check_maps(q, k, v, kernel_size, None, stride, dilation)
    return _in_bands(q, k, v, kernel_size, stride, dilation)


def _in_bands(q, k, v, kernel_size: int, stride: int, dilation: int) -> torch.Tensor:
    """As :func:`band_attention`, without its checks."""
    (height, width), reach = q.shape[-2:], dilation * (kernel_size // 2)
    logs = {}
    for size in {height, width}:
        m = multiplicity(size, kernel_size, stride, dilation, q.device).type_as(q)
        logs[size] = m.clamp(min=1).log().masked_fill(m == 0, -math.inf)  # ONNX warns of log 0
    log_rows, log_columns = logs[height], logs[width]
    q = q[..., ::stride, ::stride]
    maps = [f.reshape(-1, *f.shape[-3:]) for f in (q, k, v)]
    bands = []
    side = _side(q.shape[-2])
    for i in range(0, q.shape[-2], side):
        end = min(i + side, q.shape[-2])
        first, last = max(i * stride - reach, 0), min((end - 1) * stride + reach + 1, height)
        bias = log_rows[i:end, None, first:last, None] + log_columns[:, None, :]
        keys, values = (f[:, :, first:last].flatten(2) for f in maps[1:])  # [·, d, u·W]
        queries = maps[0][:, :, i:end].flatten(2).transpose(1, 2)
        bias = bias.flatten(2).flatten(0, 1)
        logits = torch.baddbmm(bias, queries, keys, alpha=1 / math.sqrt(q.shape[-3]))
        bands.append(values @ logits.softmax(-1).transpose(1, 2))
    return torch.cat(bands, -1).reshape(*v.shape[:-2], *q.shape[-2:])


def attend(q, k, v, kernel_size, pe, stride, dilation) -> torch.Tensor:
    r"""As :func:`acmix_edu.fast.local_attention`, without its checks.

    The position term of the query is the same for all its keys and cancels in the softmax, so only
    the keys are shifted: $k'_{ab} = k_{ab} - \mathit{pe}_{ab}$.
    """
    _settle(*q.shape[-2:])
    k = k if pe is None else k - pe
    if not _is_small(q, kernel_size):
        return _in_tiles(q, k, v, kernel_size, stride, dilation)
    if q.shape[-1] <= q.shape[-2]:
        return _in_bands(q, k, v, kernel_size, stride, dilation)
    turned = _in_bands(q.mT, k.mT, v.mT, kernel_size, stride, dilation)
    return turned.mT.contiguous()  # bands along the shorter side are smaller


def _settle(*sizes: int) -> None:
    """Let torch.compile make a graph for these sizes alone.

    It cannot handle tiles of open sizes; an exported graph can.
    """
    if torch.compiler.is_dynamo_compiling() and not is_exporting():
        for size in sizes:
            len(range(size))


def _is_small(q: torch.Tensor, kernel_size: int) -> bool:
    """Return whether the map has no more pixels than the halos of two tiles."""
    height, width = q.shape[-2:]
    return is_known(height, width) and height * width <= 2 * (TILE + kernel_size - 1) ** 2


def is_known(*sizes) -> bool:
    """Return whether the sizes are numbers; while traced or exported they may be symbols."""
    return all(isinstance(size, int) for size in sizes)


def _side(length: int) -> int:
    """Return the size of a part when a length is cut into the fewest equal parts up to TILE."""
    return _parts(length, _parts(length, TILE)) if is_known(length) else TILE


def _parts(length: int, size: int) -> int:
    """Return ⌈length/size⌉ without −(−length // size), which ONNX rounds towards zero."""
    return (length - 1) // size + 1


def _pixels(rows: torch.Tensor, columns: torch.Tensor, width: int) -> torch.Tensor:
    """Combine the rows and columns of tiles: flat indices ``[n, pixels of a tile]``."""
    flat = rows[:, None, :, None] * width + columns[:, None, :]
    return flat.flatten(2).flatten(0, 1)


def _gather(f: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Copy pixels of a map ``[..., d, H, W]`` as tokens: ``[-1, n, pixels of a tile, d]``."""
    tokens = f.flatten(-2).transpose(-2, -1)  # not movedim, which Core ML does not know
    tokens = tokens.reshape(-1, *tokens.shape[-2:])
    return tokens.index_select(1, _whole(pixels)).unflatten(1, pixels.shape)


def _whole(index: torch.Tensor) -> torch.Tensor:
    """Flatten an index, and make it whole again where Core ML has divided one size by another."""
    return index.flatten().long()
