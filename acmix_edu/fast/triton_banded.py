r"""The convolution path on a GPU's matrix units: along a row, a convolution is a banded matrix.

From 16 pixels in a row, a kernel of width k makes eight outputs. Each is a sum over all 16, with
weights that are zero except for k neighbours. On either side 4 pixels are left over, so k may be up
to 9:

$$\mathrm{out}_j = \sum_x \mathrm{in}_x\, T_{xj}, \qquad
T_{xj} = w_r \text{ if } 0 \le r < k, \text{ else } 0, \qquad r = x - j - 4 + \lfloor k/2 \rfloor.$$

Rows of pixels, one below the other, are a matrix to multiply by T, for each input and each row of
the kernel. For k = 3, 13 of the 16 numbers in a column of T are zeros. But a matrix unit takes 16
rows and eight columns in one instruction, and neighbours in a row can be loaded at once, so this
takes a fraction of the instructions of the plain sum. The gradient of the weight comes the same
way. All inputs of a row are multiplied by all gradients of a row, and the products are summed over
the rows. Those of one r are on a diagonal, and their sum is the gradient of w_r.
"""

from __future__ import annotations  # the kernels' tl.constexpr stays a name where there is no tl

import math

import torch
import torch.nn.functional as F

from acmix_edu.fast.triton_base import (
    capability,
    in_aligns,
    kernel,
    power_of_two,
    tf32_is_allowed,
    tl,
)

WIDE, COLUMNS, LINES = 16, 8, 64  # pixels read in a row, outputs made of them; rows, at most
MOST = WIDE - COLUMNS + 1  # largest width of a kernel
PROGRAMS = 2048  # about how many share the gradient of the weight
WARPS = 2  # with four, Triton would choose units that read an operand from shared memory


@kernel
def this_tile(tile, height, width, LINES: tl.constexpr, COLUMNS: tl.constexpr):
    """Return which image of the batch has this tile, and where the tile begins."""
    down, across = tl.cdiv(height, LINES), tl.cdiv(width, COLUMNS)
    image = (tile // (down * across)).to(tl.int64)  # 64 bits: a batch may exceed 2³¹ numbers
    return image, tile // across % down * LINES, tile % across * COLUMNS


@kernel
def load_rows(f, y, x, channel, height, width, strides, CHANNELS, ALIGN: tl.constexpr):
    """Read pixels of some rows and channels, with zeros where there is nothing.

    All strides but that of x are counted in ALIGNs, so that the compiler knows that ALIGN divides
    them and that ALIGN neighbours can be moved at once.
    """
    offset = y * (strides[3] * ALIGN) + channel * (strides[1] * ALIGN) + x * strides[4]
    there = (x >= 0) & (x < width // ALIGN * ALIGN) & (channel < CHANNELS)
    return tl.load(f + offset, mask=there & (y >= 0) & (y < height), other=0)


@kernel
def banded_kernel(
    maps, matrices, out, height, width, strides, out_strides,
    MAPS: tl.constexpr, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK: tl.constexpr,
    SIZE: tl.constexpr, WIDE: tl.constexpr, COLUMNS: tl.constexpr, LINES: tl.constexpr,
    ALIGN: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    """Make BLOCK outputs of a dimension from ``MAPS`` maps ``[B, INPUTS, d, height, width]``.

    TURNED: the outputs are gradients of inputs, and the kernel is turned by 180°.
    """
    image, i, first = this_tile(tl.program_id(0), height, width, LINES, COLUMNS)
    i += tl.arange(0, LINES)[:, None]
    e, x = tl.program_id(1).to(tl.int64), tl.arange(0, WIDE)
    column = tl.arange(0, BLOCK * COLUMNS)[None, :]
    cells = (WIDE - 1 - x if TURNED else x)[:, None] * (BLOCK * COLUMNS) + column
    size: tl.constexpr = WIDE * BLOCK * COLUMNS
    cells += (e * tl.num_programs(2) + tl.program_id(2)) * (MAPS * INPUTS * SIZE * size)
    total = tl.zeros([LINES, BLOCK * COLUMNS], tl.float32)
    for s in tl.static_range(MAPS):
        f = maps[s] + (image * strides[s][0] + e * strides[s][2]) * ALIGN
        for step in range(INPUTS * SIZE):
            m, p = step // SIZE, step % SIZE
            values = load_rows(
                f, i + p - SIZE // 2, first - (WIDE - COLUMNS) // 2 + x[None, :], m,
                height, width, strides[s], INPUTS, ALIGN,
            )  # fmt: skip
            which = (s * INPUTS + m) * SIZE + (SIZE - 1 - p if TURNED else p)
            matrix = tl.load(matrices + which * size + cells)
            total = tl.dot(values, matrix, total, input_precision="tf32")
    n, j = tl.program_id(2) * BLOCK + column // COLUMNS, column % COLUMNS
    j = first + (j if TURNED else COLUMNS - 1 - j)
    out += (image * out_strides[0] + e * out_strides[2]) * ALIGN
    at = n * (out_strides[1] * ALIGN) + i * (out_strides[3] * ALIGN) + j * out_strides[4]
    made = (i < height) & (n < OUTPUTS) & (j < width)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=made)


@kernel
def banded_weight_gradient_kernel(
    maps, grad_out, parts, height, width, tiles, strides, grad_out_strides, parts_strides,
    MAPS: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr, SIZE: tl.constexpr,
    WIDE: tl.constexpr, COLUMNS: tl.constexpr, LINES: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Make the gradient of row p of a kernel, from BLOCK inputs of each map to BLOCK outputs."""
    blocks: tl.constexpr = (HEADS + BLOCK - 1) // BLOCK
    margin: tl.constexpr = (WIDE - COLUMNS) // 2
    e, p, block = tl.program_id(1), tl.program_id(2) % SIZE, tl.program_id(2) // SIZE
    m, n = block // blocks * BLOCK, block % blocks * BLOCK
    x, j = tl.arange(0, BLOCK * WIDE)[:, None], tl.arange(0, BLOCK * COLUMNS)[None, :]
    of_m, of_n = m + tl.arange(0, BLOCK)[:, None], n + tl.arange(0, BLOCK)[None, :]
    r = tl.arange(0, WIDE)[None, :, None, None] - tl.arange(0, COLUMNS)[None, None, None, :]
    r += SIZE // 2 - margin
    parts += tl.program_id(0).to(tl.int64) * parts_strides[0] + e * parts_strides[1] + p * SIZE
    for s in tl.static_range(MAPS):
        total = tl.zeros([BLOCK * WIDE, BLOCK * COLUMNS], tl.float32)
        for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
            image, i, first = this_tile(tile, height, width, LINES, COLUMNS)
            line = i + tl.arange(0, LINES)
            values = load_rows(  # [inputs and pixels, lines]
                maps[s] + (image * strides[s][0] + e * strides[s][2]) * ALIGN,
                line[None, :] + p - SIZE // 2, first - margin + x % WIDE, m + x // WIDE,
                height, width, strides[s], HEADS, ALIGN,
            )  # fmt: skip
            grads = load_rows(  # [lines, outputs and pixels]
                grad_out + (image * grad_out_strides[0] + e * grad_out_strides[2]) * ALIGN,
                line[:, None], first + j % COLUMNS, n + j // COLUMNS,
                height, width, grad_out_strides, HEADS, ALIGN,
            )  # fmt: skip
            total = tl.dot(values, grads, total, input_precision="tf32")
        products = tl.reshape(total, [BLOCK, WIDE, BLOCK, COLUMNS])
        at = of_n * parts_strides[2] + (s * HEADS + of_m) * parts_strides[3]
        for diagonal in range(SIZE):
            sums = tl.sum(tl.sum(tl.where(r == diagonal, products, 0.0), 3), 1)
            tl.store(parts + at + diagonal, sums, mask=(of_m < HEADS) & (of_n < HEADS))


def suits(f: torch.Tensor, size: int, stride: int) -> bool:
    """Return whether matrix units take such numbers and kernels, and rows are adjacent pixels."""
    units = (f.dtype != torch.float32 or tf32_is_allowed()) and capability(f.device) >= (8, 0)
    by_rows = f.stride(2) > f.stride(4) or f.shape[2] == 1
    return units and by_rows and stride == 1 and size <= MOST


def banded(weight: torch.Tensor, block: int) -> torch.Tensor:
    """Return T for each input and row of the kernel: ``[d, blocks, inputs, k, x, outputs, j]``.

    Its last axis is reversed, so that the numbers of T are those of a row of the kernel, with zeros
    on both sides, read from x on.

    Args:
        weight: ``[d, outputs, inputs, k, k]``, k odd and at most 9.
        block: how many outputs are side by side; missing ones are zero.

    Example:
        >>> row, w = torch.randn(16), torch.tensor([1.0, 2.0, 3.0])
        >>> T = banded(w.expand(1, 1, 1, 3, 3), block=1)[0, 0, 0, 0, :, 0].flip(1)
        >>> plain = F.conv1d(row[None, None], w[None, None])[0, 0, 3:11]
        >>> torch.testing.assert_close(row @ T, plain)
    """
    around = (WIDE + COLUMNS - 1 - weight.shape[-1]) // 2
    padding = (around, around, 0, 0, 0, 0, 0, -weight.shape[1] % block)
    windows = F.pad(weight, padding).unfold(-1, COLUMNS, 1).unflatten(1, (-1, block))
    return windows.permute(0, 1, 3, 4, 5, 2, 6).contiguous()


def common_align(*maps: torch.Tensor) -> int:
    """Return how many neighbours in a row can be moved at once, up to 4, in maps of one width."""
    return math.gcd(4, maps[0].shape[4], *(stride for f in maps for stride in f.stride()[:4]))


def tiles_of(f: torch.Tensor) -> tuple[int, int]:
    """Return how many rows a tile of a map has, and how many tiles all images have."""
    lines = max(16, min(LINES, power_of_two(f.shape[3])))
    return lines, f.shape[0] * -(-f.shape[3] // lines) * -(-f.shape[4] // COLUMNS)


def side_by_side(outputs: int) -> int:
    """Return how many outputs a program makes; a product has at least 16 columns."""
    return 4 if outputs > 2 else 2


def convolve(maps, weight, out, turned: bool) -> None:
    """Fill ``out``, ``[B, outputs, d, H, W]``, from maps of that form.

    Args:
        weight: ``[d, outputs, inputs of all maps, k, k]``.
        turned: out is the gradient of the maps that the kernel was applied to.
    """
    outputs, dims, height, width = out.shape[1:]
    (lines, tiles), block = tiles_of(out), side_by_side(outputs)
    align = common_align(*maps, out)
    with torch.cuda.device_of(out):
        banded_kernel[tiles, dims, -(-outputs // block)](
            tuple(maps), banded(weight, block), out, height, width,
            tuple(in_aligns(f, align) for f in maps), in_aligns(out, align),
            MAPS=len(maps), INPUTS=maps[0].shape[1], OUTPUTS=outputs, BLOCK=block,
            SIZE=weight.shape[-1], WIDE=WIDE, COLUMNS=COLUMNS, LINES=lines, ALIGN=align,
            TURNED=turned, num_warps=WARPS, num_stages=1, enable_fp_fusion=True,
        )  # fmt: skip


def weight_gradient(maps, grad_out, size: int) -> torch.Tensor:
    """Return the gradient of the weight in parts, float32 ``[parts, d, N, 3N, k²]``."""
    heads, dims, height, width = grad_out.shape[1:]
    (lines, tiles), block = tiles_of(grad_out), side_by_side(heads)
    align = common_align(*maps, grad_out)
    programs = dims, size * (-(-heads // block)) ** 2
    parts_of = min(tiles, max(1, PROGRAMS // math.prod(programs)))
    shape = parts_of, dims, heads, len(maps) * heads, size**2
    parts = torch.empty(shape, dtype=torch.float32, device=grad_out.device)
    with torch.cuda.device_of(grad_out):
        banded_weight_gradient_kernel[parts_of, *programs](
            tuple(maps), grad_out, parts, height, width, tiles,
            tuple(in_aligns(f, align) for f in maps), in_aligns(grad_out, align), parts.stride(),
            MAPS=len(maps), HEADS=heads, BLOCK=block, SIZE=size, WIDE=WIDE, COLUMNS=COLUMNS,
            LINES=lines, ALIGN=align, num_warps=WARPS, num_stages=1, enable_fp_fusion=True,
        )  # fmt: skip
    return parts
