r"""The convolution path on a GPU, in Triton: the 3N maps of a dimension are read where they are.

PyTorch's own grouped convolution needs q, k and v side by side. Copying them there moves six maps
through memory, and convolving then moves four more; here only those four are moved. A program makes
all outputs of a block of pixels and dimensions, so that every number it reads serves all of them.
Sums are float32. The same kernel, with the weight turned round, makes the gradients of q, k and v.
The gradient of the weight is summed in parts, each of some blocks of pixels, and then over the
parts, so no two programs write to the same place. Where matrix units can do the work,
``triton_banded`` does it.
"""

from __future__ import annotations  # the kernels' tl.constexpr stays a name where there is no tl

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import register_flop_formula

from acmix_edu.fast import triton_banded
from acmix_edu.fast.triton_base import (
    cast_to,
    empty_map,
    is_channels_last,
    kernel,
    no_triton,
    power_of_two,
    register,
    tl,
    too_large,
)

MOST_HEADS = 16
PROGRAMS = 4096  # about how many share the gradient of the weight


@kernel
def convolution_kernel(
    maps, weight, out, height, width, rows, columns, dims, strides, out_strides,
    MAPS: tl.constexpr, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, PADDED: tl.constexpr,
    SIZE: tl.constexpr, STRIDE: tl.constexpr, TURNED: tl.constexpr, PIXELS: tl.constexpr,
    DIMS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Make all outputs of a block of pixels, from ``MAPS`` maps [B, INPUTS, d, height, width].

    TURNED: the outputs are gradients of inputs, so pixel i reads pixel (i − p)/STRIDE of the maps,
    where that is a whole number, instead of pixel i·STRIDE + p.
    """
    blocks = tl.cdiv(rows * columns, PIXELS)
    image = (tl.program_id(0) // blocks).to(tl.int64)  # 64 bits: a batch may exceed 2³¹ numbers
    pixel = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    e = tl.program_id(1) * DIMS + tl.arange(0, DIMS)
    if CHANNELS_LAST:  # what lies side by side in memory varies last
        pixel, e = pixel[:, None], e[None, :]
    else:
        pixel, e = pixel[None, :], e[:, None]
    i, j = pixel // columns, pixel % columns
    inside = (pixel < rows * columns) & (e < dims)
    n = tl.arange(0, PADDED)[:, None, None]
    weights = weight + (e * (MAPS * INPUTS * SIZE * SIZE * PADDED))[None, :, :] + n
    total = tl.zeros([PADDED, inside.shape[0], inside.shape[1]], tl.float32)
    for t in range(SIZE * SIZE):
        p, r = t // SIZE - SIZE // 2, t % SIZE - SIZE // 2
        if TURNED:
            y, x = (i - p) // STRIDE, (j - r) // STRIDE
            there = inside & (y * STRIDE == i - p) & (x * STRIDE == j - r) & (i >= p) & (j >= r)
        else:
            y, x = i * STRIDE + p, j * STRIDE + r
            there = inside & (y >= 0) & (x >= 0)
        there = there & (y < height) & (x < width)
        for s in tl.static_range(MAPS):
            f = maps[s] + image * strides[s][0]
            offset = e * strides[s][2] + y * strides[s][3] + x * strides[s][4]
            for m in range(INPUTS):
                value = tl.load(f + m * strides[s][1] + offset, mask=there, other=0)
                at = ((s * INPUTS + m) * SIZE * SIZE + t) * PADDED
                factors = tl.load(weights + at, mask=(e < dims)[None, :, :], other=0)
                total += factors * value.to(tl.float32)[None, :, :]
    offset = image * out_strides[0] + e * out_strides[2] + i * out_strides[3] + j * out_strides[4]
    there = (n < OUTPUTS) & inside[None, :, :]
    at = out + n * out_strides[1] + offset[None, :, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=there)


@kernel
def weight_gradient_kernel(
    maps, grad_out, parts, batch, height, width, rows, columns, strides, grad_out_strides,
    parts_strides, blocks, at_once, MAPS: tl.constexpr, HEADS: tl.constexpr, PADDED: tl.constexpr,
    SIZE: tl.constexpr, STRIDE: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Sum the gradient at one position and dimension, over a share of the blocks and images."""
    e, t = tl.program_id(1), tl.program_id(2)
    n = tl.arange(0, PADDED)[:, None]
    parts += tl.program_id(0).to(tl.int64) * parts_strides[0] + e * parts_strides[1]
    first_image, images_at_once = tl.program_id(0) // at_once, tl.num_programs(0) // at_once
    for s in tl.static_range(MAPS):
        total = tl.zeros([PADDED, PADDED, PIXELS], tl.float32)
        for block in range(tl.program_id(0) % at_once, blocks, at_once):
            pixel = block * PIXELS + tl.arange(0, PIXELS)[None, :]
            i, j = pixel // columns, pixel % columns
            y, x = i * STRIDE + t // SIZE - SIZE // 2, j * STRIDE + t % SIZE - SIZE // 2
            inside = (pixel < rows * columns) & (n < HEADS)
            there = inside & (y >= 0) & (y < height) & (x >= 0) & (x < width)
            of_grads = e * grad_out_strides[2] + i * grad_out_strides[3] + j * grad_out_strides[4]
            grads_at = grad_out + of_grads + n * grad_out_strides[1]
            of_values = e * strides[s][2] + y * strides[s][3] + x * strides[s][4]
            values_at = maps[s] + of_values + n * strides[s][1]
            for b in range(first_image, batch, images_at_once):
                image = tl.cast(b, tl.int64)
                grads = tl.load(grads_at + image * grad_out_strides[0], mask=inside, other=0)
                values = tl.load(values_at + image * strides[s][0], mask=there, other=0)
                total += grads.to(tl.float32)[:, None, :] * values.to(tl.float32)[None, :, :]
        at = n * parts_strides[2] + (s * HEADS + tl.arange(0, PADDED)[None, :]) * parts_strides[3]
        filled = (n < HEADS) & (tl.arange(0, PADDED)[None, :] < HEADS)
        tl.store(parts + at + t, tl.sum(total, 2), mask=filled)


def convolve(maps, weight, out, stride: int, turned: bool) -> None:
    """Fill ``out``, ``[B, outputs, d, ·, ·]``, from maps of that form.

    Args:
        weight: ``[d, outputs, inputs of all maps, k, k]``.
    """
    batch, outputs, dims, rows, columns = out.shape
    size, padded = weight.shape[-1], power_of_two(outputs)
    weight = weight.flatten(3).permute(0, 2, 3, 1).float()
    weight = F.pad(weight, (0, padded - outputs)).contiguous()  # the outputs are side by side
    channels_last = out.stride(4) > out.stride(2)
    room = min(256, 4096 // padded)  # pixels times dimensions that fit the registers
    most = min(power_of_two(dims), 32 if channels_last else room)
    pixels = min(room // most if channels_last else room, power_of_two(rows * columns))
    block_dims = min(room // pixels, most)
    grid = batch * -(-rows * columns // pixels), -(-dims // block_dims)
    with torch.cuda.device_of(out):
        convolution_kernel[grid](
            tuple(maps), weight, out, *maps[0].shape[3:], rows, columns, dims,
            tuple(f.stride() for f in maps), out.stride(),
            MAPS=len(maps), INPUTS=maps[0].shape[1], OUTPUTS=outputs, PADDED=padded, SIZE=size,
            STRIDE=stride, TURNED=turned, PIXELS=pixels, DIMS=block_dims,
            CHANNELS_LAST=channels_last, num_warps=2, enable_fp_fusion=True,
        )  # fmt: skip


def weight_gradient(maps, grad_out, size: int, stride: int) -> torch.Tensor:
    """Return the gradient of the weight in parts, float32 ``[parts, d, N, 3N, k²]``."""
    batch, heads, dims, rows, columns = grad_out.shape
    padded = power_of_two(heads)
    pixels = min(4096 // padded**2, 256, max(16, power_of_two(rows * columns)))
    blocks = -(-rows * columns // pixels)
    most = max(1, PROGRAMS // (dims * size**2))
    at_once = min(blocks, most)
    parts_of = at_once * min(batch, most // at_once)
    shape = parts_of, dims, heads, len(maps) * heads, size**2
    parts = torch.empty(shape, dtype=torch.float32, device=grad_out.device)
    with torch.cuda.device_of(grad_out):
        weight_gradient_kernel[parts_of, dims, size**2](
            tuple(maps), grad_out, parts, batch, *maps[0].shape[3:], rows, columns,
            tuple(f.stride() for f in maps), grad_out.stride(), parts.stride(),
            blocks, at_once, MAPS=len(maps), HEADS=heads, PADDED=padded, SIZE=size, STRIDE=stride,
            PIXELS=pixels, num_warps=2, enable_fp_fusion=True,
        )  # fmt: skip
    return parts


def heads_first(out: torch.Tensor, heads: int) -> torch.Tensor:
    """View ``[B, d·N, ·, ·]``, dimension-major, as ``[B, N, d, ·, ·]``."""
    return out.unflatten(1, (-1, heads)).transpose(1, 2)


def forward_output(q, k, v, weight, stride) -> torch.Tensor:
    """Allocate ``[B, d·N, ⌈H/s⌉, ⌈W/s⌉]``, channels-last where q is."""
    batch, heads, dims, *sides = q.shape
    layout = torch.channels_last if is_channels_last(q) else torch.contiguous_format
    shape = batch, dims * heads, *(-(-side // stride) for side in sides)
    return torch.empty(shape, dtype=q.dtype, device=q.device, memory_format=layout)


def forward(q, k, v, weight, stride):
    """Convolve; weight is ``[d·N, 3N, k, k]``."""
    out = forward_output(q, k, v, weight, stride)
    if not out.numel():
        return out
    by_dimension = weight.unflatten(0, (q.shape[2], q.shape[1]))
    task = (q, k, v), by_dimension, heads_first(out, q.shape[1])
    if triton_banded.suits(q, weight.shape[-1], stride):
        triton_banded.convolve(*task, turned=False)
    else:
        convolve(*task, stride, turned=False)
    return out


def backward_outputs(grad_out, q, k, v, weight, stride, of_maps, of_weight):
    """Allocate the gradients of q, k, v, side by side ``[B, 3N, d, H, W]``, and of the weight.

    A gradient that is not asked for is empty.
    """
    batch, heads, *others = q.shape
    grads = empty_map((batch * of_maps, 3 * heads, *others), q)
    return grads, torch.empty_like(weight[: len(weight) * of_weight])


def backward(grad_out, q, k, v, weight, stride, of_maps, of_weight):
    """Return the gradients of q, k, v, side by side, and of the weight, as far as asked for."""
    grads, grad_weight = backward_outputs(grad_out, q, k, v, weight, stride, of_maps, of_weight)
    if not grad_out.numel():
        return grads, grad_weight.zero_()
    heads, size = q.shape[1], weight.shape[-1]
    grad_out = heads_first(grad_out, heads)
    by_dimension = weight.unflatten(0, (q.shape[2], heads))  # [d, N, 3N, k, k]
    task = (grad_out,), by_dimension.transpose(1, 2), grads
    banded = triton_banded.suits(q, size, stride)
    if of_maps and banded:
        triton_banded.convolve(*task, turned=True)
    elif of_maps:
        convolve(*task, stride, turned=True)
    if of_weight and banded:
        parts = triton_banded.weight_gradient((q, k, v), grad_out, size)
    elif of_weight:
        parts = weight_gradient((q, k, v), grad_out, size, stride)
    if of_weight:
        grad_weight.copy_(parts.sum(0).view_as(grad_weight))
    return grads, grad_weight


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:4])
    ctx.stride = inputs[4]


def _gradients(ctx, grad_out):
    backward_op = torch.ops.acmix_edu.grouped_convolution_backward.default
    of_maps, of_weight = any(ctx.needs_input_grad[:3]), ctx.needs_input_grad[3]
    grads, grad_weight = backward_op(grad_out, *ctx.saved_tensors, ctx.stride, of_maps, of_weight)
    grads = grads.chunk(3, dim=1) if of_maps else [None] * 3
    return *grads, grad_weight if of_weight else None, None


register(
    "acmix_edu::grouped_convolution",
    "(Tensor q, Tensor k, Tensor v, Tensor weight, int stride) -> Tensor",
    forward, forward_output, _gradients, _keep,
)  # fmt: skip
register(
    "acmix_edu::grouped_convolution_backward",
    "(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor weight, int stride, "
    "bool of_maps, bool of_weight) -> (Tensor, Tensor)",
    backward, backward_outputs,
)  # fmt: skip


@register_flop_formula(torch.ops.acmix_edu.grouped_convolution)
def _operations(q, k, v, weight, stride, *_, out_shape, **__) -> int:
    return 2 * out_shape[0] * out_shape[2:].numel() * weight.numel()


@register_flop_formula(torch.ops.acmix_edu.grouped_convolution_backward)
def _operations_backward(grad_out, q, k, v, weight, stride, of_maps, of_weight, **__) -> int:
    return 2 * (of_maps + of_weight) * grad_out[0] * grad_out[2:].numel() * weight.numel()


def run(q, k, v, weight, stride) -> torch.Tensor:
    """As :func:`acmix_edu.fast.grouped_convolution`, without its checks.

    For the backward pass it keeps q, k, v and the weight.
    """
    dtype = cast_to(q)
    tensors = (f.to(dtype) for f in (q, k, v, weight))
    return torch.ops.acmix_edu.grouped_convolution.default(*tensors, stride)


def why_not(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> str | None:
    """Return, in one sentence, why the kernel cannot take these maps, or None if it can."""
    if reason := no_triton(q):
        return reason
    if q.shape[1] > MOST_HEADS:
        return f"The Triton kernel takes up to {MOST_HEADS} heads, but {q.shape[1]} came."
    return too_large(q, k, v, copies=3)  # the gradients of all three are side by side
