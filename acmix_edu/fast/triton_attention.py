r"""Local attention on a GPU in one pass over memory, in Triton. Chapter 08 reads it.

A program computes one *tile*, 2×8 pixels of one head, and meets the pixels of the other side (the
keys of queries, or the queries of keys) in *blocks* of up to 8×16: a 7×7 window around 2×8 queries
covers 8×14 keys, so one block is enough. The logits of a block never leave the chip. The softmax
is online: a running maximum and a running total are corrected when a later block brings a larger
logit. Besides q, k and v only the output and, per query, the logarithm of the softmax's denominator
are kept for the backward pass.

Reflection costs nothing: key (y, x) counts $m_{iy}\, m_{jx}$ times for query (i, j)
(:mod:`acmix_edu.fast.border`),

$$\begin{aligned} g_{ij} &= \sum_{y,x} \frac{m_{iy}\, m_{jx}\, e^{l_{yx}}}
{\sum_{y',x'} m_{iy'}\, m_{jx'}\, e^{l_{y'x'}}}\; v_{yx} \\
l_{yx} &= \frac{q_{ij}^{\top}(k_{yx} - \mathit{pe}_{yx})}{\sqrt d} \end{aligned}$$

so the products qᵀk start from the sum of two small tables of √d·ln m, which are −∞ out of reach and
outside the map. The softmax has base 2, because the chip's own exponential is 2ˣ. No two programs
write to the same place, so the results are the same in every bit, every time.

The position term shifts the keys beforehand; that of the query cancels in the softmax. This takes
one more pass over k, and PyTorch then knows pe's gradient by itself. The maps may have any strides;
channels-last maps stay channels-last. Under autocast they are cast to the dtype that the user chose
for it. Float32 is multiplied in full precision or, after
``torch.set_float32_matmul_precision("high")``, on the matrix units with 10 bits of mantissa. Second
derivatives raise NotImplementedError.
"""

from __future__ import annotations  # the kernels' tl.constexpr stays a name where there is no tl

import math

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import register_flop_formula

from acmix_edu.attention import reflect
from acmix_edu.fast.triton_base import (
    capability,
    cast_to,
    empty_map,
    in_aligns,
    kernel,
    no_triton,
    power_of_two,
    register,
    tf32_is_allowed,
    tl,
    too_large,
)

TILE, LARGEST = (2, 8), 16  # rows and columns of a tile; the longest side of a block
MOST_FEATURES = 256
ROOMY = (8, 0), (9, 0), (10, 0), (10, 3)  # 163 KB of shared memory or more; others may have 99
KEPT: dict[tuple, torch.Tensor] = {}  # never thrown away: a CUDA graph knows only their addresses


@kernel
def this_tile(width, TILE: tl.constexpr):
    """Return which image of the batch is this program's, and at which pixel its tile begins."""
    tiles_x = tl.cdiv(width, TILE[1])
    tile = tl.program_id(0)
    image = tl.program_id(2).to(tl.int64)  # 64 bits: batches are large
    return image, tile // tiles_x * TILE[0], tile % tiles_x * TILE[1]


@kernel
def map_of(f, image, strides, ALIGN: tl.constexpr):
    """Return a pointer to the first feature of the first pixel of this program's head."""
    return f + (image * strides[0] + tl.program_id(1) * strides[1]) * ALIGN


@kernel
def pixels(
    y0, x0, height, width, strides,
    D: tl.constexpr, ALIGN: tl.constexpr, FEATURES: tl.constexpr, SIDES: tl.constexpr,
):  # fmt: skip
    """Return where the pixels of a rectangle from (y0, x0) on are in memory, and which are there.

    All strides but that of x are counted in ALIGNs, so that the compiler knows that ALIGN divides
    them and that ALIGN neighbours can be moved at once.
    """
    pixel, e = tl.arange(0, SIDES[0] * SIDES[1])[:, None], tl.arange(0, FEATURES)[None, :]
    y, x = y0 + pixel // SIDES[1], x0 + pixel % SIDES[1]
    offset = y * (strides[3] * ALIGN) + x * strides[4] + e * (strides[2] * ALIGN)
    there = (y < height) & (x < width // ALIGN * ALIGN) & (e < D)
    return offset, there  # [pixels, FEATURES]


@kernel
def load(
    f, y0, x0, height, width, strides, D: tl.constexpr, ALIGN: tl.constexpr,
    FEATURES: tl.constexpr, SIDES: tl.constexpr, WHOLE: tl.constexpr = False,
):  # fmt: skip
    """Read a rectangle of pixels as the rows of a matrix, with zeros where there is nothing.

    WHOLE promises that the map holds all of them; then, if D is FEATURES, nothing is checked.
    """
    offset, there = pixels(y0, x0, height, width, strides, D, ALIGN, FEATURES, SIDES)
    if WHOLE and D == FEATURES:
        return tl.load(f + offset)
    return tl.load(f + offset, mask=there, other=0)


@kernel
def store(
    f, tile, y0, x0, height, width, strides,
    D: tl.constexpr, ALIGN: tl.constexpr, FEATURES: tl.constexpr, SIDES: tl.constexpr,
):  # fmt: skip
    """Write the rows of a matrix to their pixels."""
    offset, there = pixels(y0, x0, height, width, strides, D, ALIGN, FEATURES, SIDES)
    tl.store(f + offset, tile.to(f.dtype.element_ty), mask=there)


@kernel
def per_query(f, image, i, j, rows, columns):
    """Return where the one number of each query is, and which of the queries are there."""
    first = (image * tl.num_programs(1) + tl.program_id(1)) * rows * columns
    at = first + i[:, None] * columns + j[None, :]
    there = (i < rows)[:, None] & (j < columns)[None, :]
    return f + at, there


@kernel
def log_multiplicity(table, i, y, STRIDE: tl.constexpr, MARGIN: tl.constexpr):
    """Read √d·ln m(i, y) along one side from its table; −∞ out of reach and outside the map.

    For all pixels of a program y − i·STRIDE is between −MARGIN and MARGIN, so nothing is checked.
    """
    return tl.load(table + i[:, None] * (2 * MARGIN + 1 - STRIDE) + y[None, :] + MARGIN)


@kernel
def block_start(first, size, BLOCKS: tl.constexpr):
    """Return where blocks of BLOCKS pixels in all begin, to hold the pixels from ``first`` on.

    They begin early enough to end with the map, or at 0 where the map is smaller than they are.
    """
    return tl.maximum(tl.minimum(first, size - BLOCKS), 0)


@kernel
def combine(row, column):
    """Return row[a, c] + column[b, d] as a matrix [(a, b), (c, d)]: from two sides to pixels."""
    both = row[:, None, :, None] + column[None, :, None, :]
    return both.reshape(row.shape[0] * column.shape[0], row.shape[1] * column.shape[1])


@kernel
def row_sums(weights, PRECISION: tl.constexpr):
    """Sum the weights over the keys, rounded as they are when the values are multiplied by them.

    The average is then exact where one key has all the weight. On matrix units the sum costs
    nothing.
    """
    if PRECISION == "ieee" and weights.dtype == tl.float32:
        return tl.sum(weights, 1)
    ones = tl.full([weights.shape[1], 16], 1, weights.dtype)
    return tl.max(tl.dot(weights, ones, input_precision=PRECISION), 1)  # of 16 equal numbers


@kernel
def forward_kernel(
    q, k, v, out, lse, row_table, column_table, height, width, scale,
    q_strides, k_strides, v_strides, out_strides,
    D: tl.constexpr, STRIDE: tl.constexpr, REACH: tl.constexpr, MARGIN: tl.constexpr,
    ALIGN: tl.constexpr, FEATURES: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
    STEPS: tl.constexpr, WHOLE: tl.constexpr, ALIKE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attend from one tile of queries to the blocks of keys that it can reach."""
    rows, columns = tl.cdiv(height, STRIDE), tl.cdiv(width, STRIDE)
    image, i0, j0 = this_tile(columns, TILE)
    i, j = i0 + tl.arange(0, TILE[0]), j0 + tl.arange(0, TILE[1])
    if ALIKE:  # k and v have their numbers in the same places, computed once
        v_strides = k_strides
    q = map_of(q, image, q_strides, ALIGN)
    k = map_of(k, image, k_strides, ALIGN)
    v = map_of(v, image, v_strides, ALIGN)
    out = map_of(out, image, out_strides, ALIGN)
    queries = load(q, i0, j0, rows, columns, q_strides, D, ALIGN, FEATURES, TILE)

    top = tl.full([TILE[0] * TILE[1]], -1e38, tl.float32)  # finite: −∞ − top is never NaN
    total = tl.zeros([TILE[0] * TILE[1]], tl.float32)
    average = tl.zeros([TILE[0] * TILE[1], FEATURES], tl.float32)
    y0 = block_start(i0 * STRIDE - REACH, height, STEPS[0] * BLOCK[0])
    x0 = block_start(j0 * STRIDE - REACH, width, STEPS[1] * BLOCK[1]) // ALIGN * ALIGN
    for step in range(STEPS[0] * STEPS[1]):
        y1, x1 = y0 + step // STEPS[1] * BLOCK[0], x0 + step % STEPS[1] * BLOCK[1]
        y, x = y1 + tl.arange(0, BLOCK[0]), x1 + tl.arange(0, BLOCK[1])
        keys = load(k, y1, x1, height, width, k_strides, D, ALIGN, FEATURES, BLOCK, WHOLE)
        values = load(v, y1, x1, height, width, v_strides, D, ALIGN, FEATURES, BLOCK, WHOLE)
        row = log_multiplicity(row_table, i, y, STRIDE, MARGIN)
        column = log_multiplicity(column_table, j, x, STRIDE, MARGIN)
        logits = tl.dot(queries, keys.T, combine(row, column), input_precision=PRECISION)
        new_top = tl.maximum(top, tl.max(logits, 1))
        weights = tl.exp2(logits * scale - (new_top * scale)[:, None])
        weights = weights.to(values.dtype)  # [queries, keys]
        shrink = tl.exp2((top - new_top) * scale)
        total = total * shrink + row_sums(weights, PRECISION)
        seen = tl.dot(weights, values, input_precision=PRECISION)
        average = average * shrink[:, None] + seen
        top = new_top

    average *= (1 / total)[:, None]
    store(out, average, i0, j0, rows, columns, out_strides, D, ALIGN, FEATURES, TILE)
    at, there = per_query(lse, image, i, j, rows, columns)
    tl.store(at, (top * scale + tl.log2(total)).reshape(TILE[0], TILE[1]), mask=there)


@kernel
def query_gradient_kernel(
    q, k, v, out, lse, grad_out, grad_q, delta, row_table, column_table,
    height, width, scale,
    q_strides, k_strides, v_strides, out_strides, grad_out_strides, grad_q_strides,
    D: tl.constexpr, STRIDE: tl.constexpr, REACH: tl.constexpr, MARGIN: tl.constexpr,
    ALIGN: tl.constexpr, FEATURES: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
    STEPS: tl.constexpr, WHOLE: tl.constexpr, ALIKE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Make the gradient of one tile of queries, with weights recomputed from the logits and lse."""
    rows, columns = tl.cdiv(height, STRIDE), tl.cdiv(width, STRIDE)
    image, i0, j0 = this_tile(columns, TILE)
    i, j = i0 + tl.arange(0, TILE[0]), j0 + tl.arange(0, TILE[1])
    if ALIKE:
        v_strides = k_strides
    q = map_of(q, image, q_strides, ALIGN)
    k = map_of(k, image, k_strides, ALIGN)
    v = map_of(v, image, v_strides, ALIGN)
    out = map_of(out, image, out_strides, ALIGN)
    grad_out = map_of(grad_out, image, grad_out_strides, ALIGN)
    grad_q = map_of(grad_q, image, grad_q_strides, ALIGN)
    queries = load(q, i0, j0, rows, columns, q_strides, D, ALIGN, FEATURES, TILE)
    outputs = load(out, i0, j0, rows, columns, out_strides, D, ALIGN, FEATURES, TILE)
    grads = load(grad_out, i0, j0, rows, columns, grad_out_strides, D, ALIGN, FEATURES, TILE)

    at, there = per_query(lse, image, i, j, rows, columns)
    norm = tl.load(at, mask=there, other=0).reshape(TILE[0] * TILE[1])
    mean = tl.sum(grads.to(tl.float32) * outputs.to(tl.float32), 1)  # Σ_o a_o·(∂L/∂a_o)
    at, there = per_query(delta, image, i, j, rows, columns)
    tl.store(at, mean.reshape(TILE[0], TILE[1]), mask=there)

    gradient = tl.zeros([TILE[0] * TILE[1], FEATURES], tl.float32)
    y0 = block_start(i0 * STRIDE - REACH, height, STEPS[0] * BLOCK[0])
    x0 = block_start(j0 * STRIDE - REACH, width, STEPS[1] * BLOCK[1]) // ALIGN * ALIGN
    for step in range(STEPS[0] * STEPS[1]):
        y1, x1 = y0 + step // STEPS[1] * BLOCK[0], x0 + step % STEPS[1] * BLOCK[1]
        y, x = y1 + tl.arange(0, BLOCK[0]), x1 + tl.arange(0, BLOCK[1])
        keys = load(k, y1, x1, height, width, k_strides, D, ALIGN, FEATURES, BLOCK, WHOLE)
        values = load(v, y1, x1, height, width, v_strides, D, ALIGN, FEATURES, BLOCK, WHOLE)
        row = log_multiplicity(row_table, i, y, STRIDE, MARGIN)
        column = log_multiplicity(column_table, j, x, STRIDE, MARGIN)
        logits = tl.dot(queries, keys.T, combine(row, column), input_precision=PRECISION)
        weights = tl.exp2(logits * scale - norm[:, None])  # [queries, keys]
        grad_weights = tl.dot(grads, values.T, input_precision=PRECISION)
        grad_logits = weights * (grad_weights - mean[:, None])
        gradient += tl.dot(grad_logits.to(keys.dtype), keys, input_precision=PRECISION)

    gradient *= scale * 0.6931471805599453  # ln 2: scale is 1/√d in base 2
    store(grad_q, gradient, i0, j0, rows, columns, grad_q_strides, D, ALIGN, FEATURES, TILE)


@kernel
def key_gradient_kernel(
    q, k, v, lse, delta, grad_out, grad_k, grad_v, row_table, column_table,
    height, width, scale,
    q_strides, k_strides, v_strides, grad_out_strides, grad_k_strides, grad_v_strides,
    D: tl.constexpr, STRIDE: tl.constexpr, REACH: tl.constexpr, MARGIN: tl.constexpr,
    ALIGN: tl.constexpr, FEATURES: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
    STEPS: tl.constexpr, WHOLE: tl.constexpr, ALIKE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Make the gradients of one tile of keys from the blocks of queries that can reach it.

    Nothing is scattered.
    """
    rows, columns = tl.cdiv(height, STRIDE), tl.cdiv(width, STRIDE)
    image, y0, x0 = this_tile(width, TILE)
    y, x = y0 + tl.arange(0, TILE[0]), x0 + tl.arange(0, TILE[1])
    if ALIKE:
        grad_out_strides = q_strides
    q = map_of(q, image, q_strides, ALIGN)
    k = map_of(k, image, k_strides, ALIGN)
    v = map_of(v, image, v_strides, ALIGN)
    grad_out = map_of(grad_out, image, grad_out_strides, ALIGN)
    grad_k = map_of(grad_k, image, grad_k_strides, ALIGN)
    grad_v = map_of(grad_v, image, grad_v_strides, ALIGN)
    keys = load(k, y0, x0, height, width, k_strides, D, ALIGN, FEATURES, TILE)
    values = load(v, y0, x0, height, width, v_strides, D, ALIGN, FEATURES, TILE)

    key_gradient = tl.zeros([TILE[0] * TILE[1], FEATURES], tl.float32)
    value_gradient = tl.zeros([TILE[0] * TILE[1], FEATURES], tl.float32)
    i0 = tl.cdiv(tl.maximum(y0 - REACH, 0), STRIDE)
    j0 = tl.cdiv(tl.maximum(x0 - REACH, 0), STRIDE)
    i0 = block_start(i0, rows, STEPS[0] * BLOCK[0])
    j0 = block_start(j0, columns, STEPS[1] * BLOCK[1]) // ALIGN * ALIGN
    for step in range(STEPS[0] * STEPS[1]):
        i1, j1 = i0 + step // STEPS[1] * BLOCK[0], j0 + step % STEPS[1] * BLOCK[1]
        i, j = i1 + tl.arange(0, BLOCK[0]), j1 + tl.arange(0, BLOCK[1])
        queries = load(q, i1, j1, rows, columns, q_strides, D, ALIGN, FEATURES, BLOCK, WHOLE)
        grads = load(
            grad_out, i1, j1, rows, columns, grad_out_strides, D, ALIGN, FEATURES, BLOCK, WHOLE
        )
        at, there = per_query(lse, image, i, j, rows, columns)
        norm = tl.load(at, mask=there, other=0).reshape(BLOCK[0] * BLOCK[1])
        at, there = per_query(delta, image, i, j, rows, columns)
        mean = tl.load(at, mask=there, other=0).reshape(BLOCK[0] * BLOCK[1])
        row = log_multiplicity(row_table, i, y, STRIDE, MARGIN)  # m(i, y), not m(y, i)
        column = log_multiplicity(column_table, j, x, STRIDE, MARGIN)
        bias = combine(row.T, column.T)
        logits = tl.dot(keys, queries.T, bias, input_precision=PRECISION)
        weights = tl.exp2(logits * scale - norm[None, :])  # [keys, queries]
        value_gradient += tl.dot(weights.to(grads.dtype), grads, input_precision=PRECISION)
        grad_weights = tl.dot(values, grads.T, input_precision=PRECISION)
        grad_logits = weights * (grad_weights - mean[None, :])
        key_gradient += tl.dot(grad_logits.to(queries.dtype), queries, input_precision=PRECISION)

    key_gradient *= scale * 0.6931471805599453
    store(grad_k, key_gradient, y0, x0, height, width, grad_k_strides, D, ALIGN, FEATURES, TILE)
    store(grad_v, value_gradient, y0, x0, height, width, grad_v_strides, D, ALIGN, FEATURES, TILE)


def margin(reach: int, stride: int) -> int:
    """Return a bound on |y − i·stride| for all queries i and keys y that a program brings together.

    The blocks hold what a tile of 8 can reach, 2·reach + 8 pixels. Rounding these up to whole
    blocks and their start down to an ALIGN adds at most LARGEST + 3 queries or keys.
    """
    return 2 * reach + 40 * stride


def log_table(
    size: int, d: int, kernel_size: int, stride: int, dilation: int, device
) -> torch.Tensor:
    """Return √d·ln m(i, y) where y − i·stride is up to ±margin; −∞ for queries not there.

    The kernels divide the sum of this and qᵀk by √d, hence the factor. The result is float32
    ``[⌈H/s⌉ + 16, 2·margin + 1]``. No program looks further, so none needs to check.
    """
    reach = dilation * (kernel_size // 2)
    i = torch.arange(0, size, stride, device=device)[:, None]
    window = reflect(i + torch.arange(-reach, reach + 1, dilation, device=device), size)
    y = i + torch.arange(-reach, reach + 1, device=device)
    counts = (window[:, None, :] == y[:, :, None]).sum(-1)
    beyond = margin(reach, stride) - reach
    return math.sqrt(d) * F.pad(counts, (beyond, beyond, 0, LARGEST)).float().log()


def kept_table(*arguments) -> torch.Tensor:
    """Return a table that other streams may read, too: it is ready when it is handed out.

    While a CUDA graph is recorded, a table that is not there yet is made by each replay, because
    what a graph makes must not be used outside.
    """
    if arguments not in KEPT:
        table = log_table(*arguments)
        if table.is_cuda:
            with torch.cuda.device(table.device):
                if torch.cuda.is_current_stream_capturing():
                    return table
                torch.cuda.current_stream().synchronize()
        KEPT[arguments] = table
    return KEPT[arguments]


def tables(make, k: torch.Tensor, kernel_size: int, stride: int, dilation: int) -> list:
    """Make the tables of rows and of columns."""
    return [make(side, k.shape[-3], kernel_size, stride, dilation, k.device)
            for side in k.shape[-2:]]  # fmt: skip


def block_shape(features: int, dtype: torch.dtype, tf32: bool, device) -> tuple[int, ...]:
    """Return the rows and columns of a block and the warps of a program.

    The block is the largest that the registers hold: ``benchmarks/triton_aot.py`` compiles all of
    them and counts what is spilled. Matrix units need few registers. Float32 in full precision, and
    everything on compute capability 7.5, is multiplied without them.
    """
    found, half = capability(device), dtype != torch.float32
    if (half or tf32) and found >= (8, 0):
        most = 256 if not half else 1024 if found in ROOMY else 512
        return min(8, most // features), 16, min(features // 16, 8)
    rows = {16: 8, 32: 8, 64: 4}.get(features, 1)
    return min(rows, 4) if half else rows, 16, 4 if features == 16 else 8


def launch(kernel, tensors, maps, kernel_size, stride, dilation, rows=None, columns=None) -> None:
    """Run one program for each tile of queries, or of keys for the gradients of k and v.

    Args:
        tensors: what the kernel reads and writes, in its order.
        maps: those whose strides it takes, ``[B, N, d, ·, ·]``; q and k are the first two.
        rows, columns: the tables. A compiled graph makes them anew; otherwise they are kept here.
    """
    q, k = maps[:2]
    if rows is None:
        rows, columns = tables(kept_table, k, kernel_size, stride, dilation)
    (batch, heads, d, *outputs), inputs = q.shape, k.shape[3:]
    features, reach = max(16, power_of_two(d)), dilation * (kernel_size // 2)
    align = math.gcd(4, inputs[1], outputs[1], *(s for f in maps for s in f.stride()[:4]))
    if kernel is key_gradient_kernel:  # how many queries reach a tile of keys?
        tiled, other, pair = inputs, outputs, (q, maps[3])
        spans = [(side - 1 + 2 * reach) // stride + 1 for side in TILE]
        slack = -reach % align if stride == 1 else align - 1
    else:  # how many keys can a tile of queries reach?
        tiled, other, pair = outputs, inputs, (k, maps[2])
        spans = [(side - 1) * stride + 2 * reach + 1 for side in TILE]
        slack = -reach % align
    tf32 = tf32_is_allowed()
    *block, warps = block_shape(features, q.dtype, tf32, q.device)
    reached = min(spans[0], other[0]), min(spans[1] + slack, other[1])
    steps = tuple(-(-a // b) for a, b in zip(reached, block, strict=True))
    whole = all(n * b <= o for n, b, o in zip(steps, block, other, strict=True))
    tiles = -(-tiled[0] // TILE[0]) * -(-tiled[1] // TILE[1])
    with torch.cuda.device_of(q):
        kernel[tiles, heads, batch](
            *tensors,
            rows, columns, *inputs, math.log2(math.e) / math.sqrt(d),
            *(in_aligns(f, align) for f in maps),
            D=d, STRIDE=stride, REACH=reach, MARGIN=margin(reach, stride), ALIGN=align,
            FEATURES=features,
            TILE=TILE, BLOCK=tuple(block), STEPS=steps, WHOLE=whole,
            ALIKE=pair[0].stride() == pair[1].stride(),
            PRECISION="tf32" if tf32 else "ieee", num_warps=warps, num_stages=1,
            enable_fp_fusion=True,
        )  # fmt: skip


def forward_outputs(q, k, v, *_) -> tuple[torch.Tensor, torch.Tensor]:
    """Allocate the output and, for each query, the logarithm of the softmax's denominator."""
    return empty_map(q.shape, q), q.new_empty(*q.shape[:2], *q.shape[3:], dtype=torch.float32)


def forward(q, k, v, *window):
    """Attend; q holds the queries only, every stride-th pixel."""
    out, lse = forward_outputs(q, k, v)
    launch(forward_kernel, (q, k, v, out, lse), (q, k, v, out), *window)
    return out, lse


def backward_outputs(grad_out, q, k, v, *_) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Allocate the gradients of q, k and v."""
    return empty_map(q.shape, q), empty_map(k.shape, k), empty_map(v.shape, v)


def backward(grad_out, q, k, v, out, lse, *window):
    """Return the gradients of q, k and v from that of the output."""
    grad_q, grad_k, grad_v = backward_outputs(grad_out, q, k, v)
    delta = torch.empty_like(lse)
    tensors = q, k, v, out, lse, grad_out, grad_q, delta
    launch(query_gradient_kernel, tensors, (q, k, v, out, grad_out, grad_q), *window)
    tensors = q, k, v, lse, delta, grad_out, grad_k, grad_v
    launch(key_gradient_kernel, tensors, (q, k, v, grad_out, grad_k, grad_v), *window)
    return grad_q, grad_k, grad_v


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3], *output, *inputs[-2:])
    ctx.window = inputs[3:-2]
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx, grad_out, _):
    backward_op = torch.ops.acmix_edu.local_attention_backward.default
    *tensors, rows, columns = ctx.saved_tensors
    return *backward_op(grad_out, *tensors, *ctx.window, rows, columns), *[None] * 5


WINDOW = "int kernel_size, int stride, int dilation, Tensor? rows, Tensor? columns"
register(
    "acmix_edu::local_attention",
    f"(Tensor q, Tensor k, Tensor v, {WINDOW}) -> (Tensor, Tensor)",
    forward, forward_outputs, _gradients, _keep,
)  # fmt: skip
register(
    "acmix_edu::local_attention_backward",
    "(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
    f"{WINDOW}) -> (Tensor, Tensor, Tensor)",
    backward, backward_outputs,
)  # fmt: skip


@register_flop_formula(torch.ops.acmix_edu.local_attention)
def _operations(q, k, v, kernel_size, *_, **__) -> int:
    """Count the definition's operations, two for a multiply-add, whatever else the kernel does."""
    return 4 * kernel_size**2 * q.numel()


@register_flop_formula(torch.ops.acmix_edu.local_attention_backward)
def _operations_backward(grad_out, q, k, v, out, lse, kernel_size, *_, **__) -> int:
    return 8 * kernel_size**2 * q.numel()


def attend(q, k, v, kernel_size, pe, stride, dilation) -> torch.Tensor:
    """Attend as :func:`acmix_edu.fast.local_attention`, which has checked the arguments."""
    dtype = cast_to(q)
    k = k if pe is None else k - pe
    q = q if stride == 1 else q[..., ::stride, ::stride]
    maps = (_five_dimensions(f.to(dtype)) for f in (q, k, v))
    window = [kernel_size, stride, dilation]
    held = tables(log_table, k, *window) if torch.compiler.is_compiling() else [None, None]
    run = torch.ops.acmix_edu.local_attention.default
    return run(*maps, *window, *held)[0].reshape(q.shape)


def why_not(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> str | None:
    """Return, in one sentence, why the kernel cannot take these maps, or None if it can.

    It takes any window, stride and dilation: only the maps decide.

    Example:
        >>> f = torch.zeros(4, 5, 5, dtype=torch.float64)
        >>> bool(why_not(f, f, f))
        True
    """
    if reason := no_triton(q):
        return reason
    d, found = q.shape[-3], capability(q.device)
    most = MOST_FEATURES if found >= (8, 0) else MOST_FEATURES // 2
    if max(q.shape[-4:-3].numel(), q.shape[:-4].numel()) >= 2**16:
        return f"The Triton kernel takes up to 65535 images and heads, but {list(q.shape)} came."
    if d > most or v.shape[-3] != d:
        return (
            f"The Triton kernel takes up to {most} features a head, as many in v as in q, but "
            f"{d} and {v.shape[-3]} came."
        )
    return too_large(q, k, v)


def _five_dimensions(f: torch.Tensor) -> torch.Tensor:
    """View ``[..., d, H, W]`` as ``[B, N, d, H, W]``."""
    if f.dim() < 5:
        f = f.unsqueeze(-4) if f.dim() == 4 else f[None, None]
    return f.flatten(0, -5)
