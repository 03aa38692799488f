r"""ACmix: project once, aggregate twice, mix with α and β. Chapter 05 tells the story."""

import warnings

import torch
import torch.nn.functional as F
from torch import nn

from acmix_edu import fast
from acmix_edu.altered import is_plain, refuse_other_layers
from acmix_edu.attention import (
    aggregate,
    local_attention_logits,
    position_map,
    reflect_pad,
    windows,
)
from acmix_edu.checks import (
    alike,
    divisible,
    feature_map,
    fitting_state,
    floating_dtype,
    odd_kernel,
    one_shape,
    same_shape,
    whole_number,
)
from acmix_edu.depthwise import LearnableShift
from acmix_edu.fast.triton_base import is_recorded

READ_AS_CONV2D = (
    "ACmix({0}, {1}, 3, {2}, 1) has kernel_att=3, head={2} and kernel_conv=1, with which the "
    "convolution path sees a single pixel; nn.Conv2d would read kernel_size, stride and padding. "
    "Name the arguments: ACmix({0}, {1}, stride={2}). If it is meant, filter this warning."
)


class ACmix(nn.Module):
    r"""Mix self-attention and convolution that share one set of 1×1 projections (section 4).

    $$F_{out} = \alpha\, F_{att} + \beta\, F_{conv}$$

    Stage I: three 1×1 convolutions make q, k and v, which are cut into N heads of d = out_planes/N
    dimensions. Stage II, attention: every query attends to its k_a×k_a window. Stage II,
    convolution: a 1×1 convolution ``fc`` over the 3N maps of a dimension makes k_c² maps, which
    ``dep_conv`` shifts and sums.

    Args:
        in_planes: input channels. The arguments have the order of the published module: unlike in
            ``nn.Conv2d``, the third number is not the kernel size and the fourth not the stride, so
            pass them by name. The five numbers of a 3×3 ``nn.Conv2d`` with padding 1 are built,
            with a UserWarning; fewer of them without.
        out_planes: output channels, divisible by ``head``.
        kernel_att: k_a, odd, the side of the attention window.
        head: N, the number of heads and of groups of shift kernels.
        kernel_conv: k_c, odd, the side of the convolution kernel.
        stride: the output side is ⌈side/stride⌉.
        dilation: of the attention window only.
        backend: how Stage II is computed. None takes a fast form that runs on the device of the
            input; "unfold" is the paper's form; "halo" and "triton" are those of
            :func:`acmix_edu.fast.local_attention`. For finite numbers the results are equal up to
            rounding; an infinite one or a NaN spreads further than its window. The gradients of
            large maps lose digits where logits are above 10⁴, as those of PyTorch's own attention
            do. Second derivatives in reverse mode, as for a gradient penalty, need "unfold" (on
            small maps they may work without). Traces and exported graphs with open sizes need a
            backend other than "unfold", and torch.export its default, ``strict=False``, if the
            height or the width is open.
        device, dtype: of the parameters, as in every layer of PyTorch.

    Shape:
        ``[B, in_planes, H, W]`` → ``[B, out_planes, ⌈H/s⌉, ⌈W/s⌉]``, any H, W ≥ 1, any B ≥ 0. The
        input may have any memory format; that of the output depends on the device.

    Cost, in multiply-adds per pixel (C = in_planes = out_planes, stride 1): Stage I 3C²; attention
    2k_a²C; fc 3k_c²C; shift and sum k_c⁴C; position 2d, once for all images (see
    :func:`acmix_edu.acmix_cost`). This is the count of ``backend="unfold"``, which also copies k
    and v k_a² times; the other forms copy each about 3 times, or not at all. PyTorch's
    ``FlopCounterMode`` counts what runs, including multiplications by zero, and leaves out the
    attention of large maps on a CPU. Use it with ``backend="unfold"``, or call acmix_cost or
    model_cost instead.

    Raises:
        TypeError, ValueError: an argument or an input cannot be used; the message says which, what
            came and how to mend it.
        RuntimeError: ``load_state_dict`` is given tensors of other shapes, or backend is "triton"
            and the kernel cannot run.
        NotImplementedError: second derivatives need "unfold"; under ``torch.func`` PyTorch raises a
            RuntimeError of its own.

    Example:
        >>> layer = ACmix(64, 64)
        >>> layer(torch.randn(2, 64, 14, 14)).shape
        torch.Size([2, 64, 14, 14])

    Parameters have the names of the published code, so its checkpoints load as they are: conv1,
    conv2, conv3 are the projections W_q, W_k, W_v; conv_p turns positions into the position term;
    rate1 is α, rate2 is β.

    Differs from the published code: any dtype, memory format, odd kernel_conv and dilation work,
    and so do odd sides with a stride and maps smaller than the window. ``dep_conv`` is not an
    ``nn.Conv2d``, so a network's own initialisation does not overwrite the shift kernels. For
    finite inputs the results are equal, up to rounding, wherever the published code runs with
    kernel_conv 3.

    Source: X. Pan et al., *On the Integration of Self-Attention and Convolution*, CVPR 2022.
    """

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_att: int = 7,
        head: int = 4,
        kernel_conv: int = 3,
        stride: int = 1,
        dilation: int = 1,
        backend: str | None = None,
        device: torch.types.Device = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_planes = in_planes = whole_number("in_planes", in_planes)
        self.out_planes = out_planes = whole_number("out_planes", out_planes)
        self.kernel_att = odd_kernel("kernel_att", kernel_att)
        self.head = head = whole_number("head", head)
        self.kernel_conv = kernel_conv = odd_kernel("kernel_conv", kernel_conv)
        self.stride = whole_number("stride", stride)
        self.dilation = whole_number("dilation", dilation)
        self.backend = fast.check_backend(backend)
        divisible("out_planes", self.out_planes, "head", self.head)
        floating_dtype(dtype)
        if (self.kernel_att, kernel_conv) == (3, 1) and head <= 2:
            warnings.warn(READ_AS_CONV2D.format(in_planes, out_planes, head), stacklevel=2)
        made: dict = {"device": device, "dtype": dtype}
        self.head_dim = dims = self.out_planes // self.head
        self.conv1 = nn.Conv2d(in_planes, out_planes, kernel_size=1, **made)
        self.conv2 = nn.Conv2d(in_planes, out_planes, kernel_size=1, **made)
        self.conv3 = nn.Conv2d(in_planes, out_planes, kernel_size=1, **made)
        self.conv_p = nn.Conv2d(2, dims, kernel_size=1, **made)
        self.fc = nn.Conv2d(3 * head, kernel_conv**2, kernel_size=1, bias=False, **made)
        self.dep_conv = LearnableShift(dims, kernel_conv, kernels=head, stride=self.stride, **made)
        self.rate1 = nn.Parameter(torch.empty(1, **made))
        self.rate2 = nn.Parameter(torch.empty(1, **made))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set α and β to ½; the layers inside have a ``reset_parameters`` of their own."""
        with torch.no_grad():
            self.rate1.fill_(0.5)
            self.rate2.fill_(0.5)

    def _load_from_state_dict(self, state: dict, prefix: str, *rest) -> None:
        fitting_state(self, state, prefix, errors=rest[-1])
        super()._load_from_state_dict(state, prefix, *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.project(x)
        out_att = self.attention_path(q, k, v)
        return self.mix(out_att, self.convolution_path(q, k, v))

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return Stage I (eq. 11), which both paths share: q, k, v, ``[B, out_planes, H, W]``."""
        self._check_input("x", x, self.in_planes)
        return self.conv1(x), self.conv2(x), self.conv3(x)

    def position_term(self, q: torch.Tensor) -> torch.Tensor:
        """Return the position features ``[1, d, H, W]``: a 1×1 convolution of the position map."""
        self._check_input("q", q, self.out_planes)
        loc = position_map(*q.shape[-2:], dtype=self.rate1.dtype, device=q.device)
        return self.conv_p(loc)

    def attention_path(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return Stage II of attention, ``[B, out_planes, H', W']``, head-major (n·d + e)."""
        heads = self._heads(q, k, v)
        pe = self.position_term(q)
        window = (self.kernel_att, pe, self.stride, self.dilation)
        return fast.attend(*heads, *window, self.backend).flatten(1, 2)

    def convolution_path(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return Stage II of convolution, ``[B, out_planes, H', W']``, dimension-major (e·N + n).

        ``fc`` and ``dep_conv`` are multiplied into one convolution. They are called one after the
        other if the backend is "unfold", if they do more than their weights say (hooks of pruning
        or FSDP, an adapter in their place), and on a CPU where two calls are less work, which with
        kernel_conv 3 is from 9 heads on.
        """
        heads = self._heads(q, k, v)
        called = self.backend == "unfold" or not (is_plain(self.fc) and is_plain(self.dep_conv))
        if called or (q.device.type == "cpu" and not self._composing_pays()):
            return self.dep_conv(self._light_maps(heads).transpose(1, 2).flatten(1, 2))
        weight = fast.compose(self.fc.weight, self.dep_conv.weight)
        return fast.convolve(*heads, weight, self.dep_conv.stride, self.backend)

    def _composing_pays(self) -> bool:
        """Return whether one convolution is less work than two, which it is not with many heads.

        It takes 3k²N multiply-adds against 3k² + k⁴, but moves less; hence the factor 2.
        """
        size = self.kernel_conv**2
        return 3 * size * self.head <= 2 * (3 * size + size**2)

    def _light_maps(self, heads: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the maps that ``fc`` makes from the 3N maps of q, k, v: ``[B, k_c², d, H, W]``."""
        maps = torch.cat(heads, dim=1)
        return self.fc(maps.flatten(2, 3)).unflatten(2, maps.shape[2:4])

    def _heads(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Check the three maps and cut each into heads."""
        for name, f in (("q", q), ("k", k), ("v", v)):
            self._check_input(name, f, self.out_planes)
            one_shape("q", q, name, f)
        cut = (q.shape[0], self.head, self.head_dim, *q.shape[2:])
        return q.reshape(cut), k.reshape(cut), v.reshape(cut)

    def mix(self, out_att: torch.Tensor, out_conv: torch.Tensor) -> torch.Tensor:
        """Return β·F_conv with α·F_att added to it in one pass, in the paths' dtype."""
        same_shape("out_att", out_att, "out_conv", out_conv)
        alpha, beta = self.rate1[:, None], self.rate2[:, None]  # as views, for ONNX in PyTorch 2.11
        scaled = beta.type_as(out_conv) * out_conv
        if is_recorded():  # Core ML has no addcmul
            return scaled + alpha.type_as(out_att) * out_att
        return torch.addcmul(scaled, alpha.type_as(out_att), out_att)

    def explain(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the module and return every tensor along the way, by name and in order.

        Returns:
            A dict: ``x``; ``q``, ``k``, ``v`` ``[B, C, H, W]``; ``pe`` ``[1, d, H, W]``;
            ``q_att``, ``k_att``, ``v_att`` ``[B, N, d, H, W]``; ``pad_k``, ``pad_v``
            (reflection); ``unfold_k``, ``unfold_v`` ``[B, N, d, k_a², H', W']``,
            ``unfold_pe`` ``[1, d, k_a², H', W']``; ``logits`` and ``att``
            ``[B, N, k_a², H', W']``; ``out_att`` ``[B, C, H', W']``; ``f_all``
            ``[B, k_c², d, H, W]``; ``f_conv`` ``[B, d·k_c², H, W]``; ``out_conv`` and ``out``
            ``[B, C, H', W']``.

        Example:
            >>> ACmix(8, 8, head=2).explain(torch.randn(1, 8, 5, 5))["att"].shape
            torch.Size([1, 2, 49, 5, 5])
        """
        s, d, size = self.stride, self.dilation, self.kernel_att
        q, k, v = self.project(x)
        pe = self.position_term(q)
        q_att, k_att, v_att = heads = self._heads(q, k, v)
        logits = local_attention_logits(q_att, k_att, size, pe, s, d)
        att = logits.softmax(dim=-3)
        out_att = aggregate(att, v_att, size, s, d).flatten(1, 2)
        f_all = self._light_maps(heads)
        f_conv = f_all.transpose(1, 2).flatten(1, 2)
        out_conv = self.dep_conv(f_conv)
        reach = d * (size // 2)
        return {
            "x": x, "q": q, "k": k, "v": v, "pe": pe,
            "q_att": q_att, "k_att": k_att, "v_att": v_att,
            "pad_k": reflect_pad(k_att, reach), "pad_v": reflect_pad(v_att, reach),
            "unfold_k": windows(k_att, size, s, d), "unfold_v": windows(v_att, size, s, d),
            "unfold_pe": windows(pe, size, s, d),
            "logits": logits, "att": att, "out_att": out_att,
            "f_all": f_all, "f_conv": f_conv, "out_conv": out_conv,
            "out": self.mix(out_att, out_conv),
        }  # fmt: skip

    @torch.no_grad()
    def norm_share(self, x: torch.Tensor) -> torch.Tensor:
        r"""Return the attention path's share of the output, a scalar from 0 to 1.

        $$\frac{\lVert\alpha F_{att}\rVert_2}
        {\lVert\alpha F_{att}\rVert_2+\lVert\beta F_{conv}\rVert_2}$$

        α and β alone do not say which path leads, because the paths differ in size. The share is
        NaN if both paths are zero. The norms are summed in float32 at least, so that half precision
        cannot overflow. No gradients are recorded.
        """
        q, k, v = self.project(x)
        exact = torch.promote_types(x.dtype, torch.float32)
        att = (self.rate1 * self.attention_path(q, k, v).to(exact)).norm()
        conv = (self.rate2 * self.convolution_path(q, k, v).to(exact)).norm()
        return att / (att + conv)

    def convolution_kernel(self) -> torch.Tensor:
        r"""Compose the convolution path, from x to F_conv, into one dense kernel.

        $$K_{c} = \sum_t W_{c,t} \sum_{m} \mathrm{fc}_{t,m}\, P_{m,e}$$

        Here P are the 3N stacked projections (rows of conv1, conv2, conv3) for the dimension e of
        output channel c = e·N + n. The projections' biases are left out: they add a map that is
        constant except near the border. Weights that a hook computes, as in pruning, are those of
        the last call.

        Returns:
            ``[out_planes, in_planes, k_c, k_c]``, for ``F.conv2d`` with padding k_c // 2.

        Raises:
            TypeError: a layer does more than its weight says, as an adapter in its place does.
        """
        refuse_other_layers(self)
        projections = torch.cat([c.weight for c in (self.conv1, self.conv2, self.conv3)])
        stacked = projections.reshape(3 * self.head, self.head_dim, self.in_planes)
        light = torch.einsum("tm,mei->eti", self.fc.weight.flatten(1), stacked)
        shifts = self.dep_conv.weight.unflatten(0, (self.head_dim, self.head))
        return torch.einsum("enthw,eti->enihw", shifts, light).flatten(0, 1)

    def effective_kernels(self, x: torch.Tensor, i: int, j: int) -> dict[str, torch.Tensor]:
        r"""Return what each path does at one output pixel, as a kernel over its neighbours.

        Both paths compute $g_{ij} = \sum_o W_o(i,j)\, x_{s(i,j)+o}$ plus a bias, at stride s. The
        convolution path's W_o is the same at every pixel; the attention path's, a_o(i,j)·W_v,
        follows the content. Beyond the border x is the reflected map for attention and zero for
        convolution.

        Args:
            x: one image, ``[1, in_planes, H, W]``.
            i, j: the output pixel.

        Returns:
            ``{"attention", "convolution", "mix"}``, each ``[out_planes, in_planes, K, K]``. The
            first two are without α and β; "mix" is α·attention + β·convolution. K is the side of
            the larger of the two windows, in the middle of which the smaller one is placed.

        Raises:
            ValueError: x holds more than one image, or (i, j) is outside the output.
            TypeError: as :meth:`convolution_kernel`.
        """
        refuse_other_layers(self)
        self._check_input("x", x, self.in_planes)
        i, j = whole_number("i", i, least=0), whole_number("j", j, least=0)
        if x.shape[0] != 1:
            raise ValueError(
                f"x must be one image [1, C, H, W], but {list(x.shape)} came; pass x[:1]."
            )
        att = self.explain(x)["att"][0]  # [N, k_a², H', W']
        if i >= att.shape[-2] or j >= att.shape[-1]:
            raise ValueError(
                f"(i, j) must be a pixel of the {att.shape[-2]}×{att.shape[-1]} output, but "
                f"({i}, {j}) came."
            )
        values = self.conv3.weight.reshape(self.head, self.head_dim, self.in_planes)
        dense = torch.einsum("nt,nei->neit", att[:, :, i, j], values).flatten(0, 1)
        reach = self.dilation * (self.kernel_att // 2)
        window = dense.new_zeros(*dense.shape[:2], 2 * reach + 1, 2 * reach + 1)
        window[..., :: self.dilation, :: self.dilation] = dense.unflatten(
            -1, (self.kernel_att, self.kernel_att)
        )
        conv = self.convolution_kernel()
        half = max(reach, self.kernel_conv // 2)
        window, conv = (F.pad(w, [half - w.shape[-1] // 2] * 4) for w in (window, conv))
        mixed = self.rate1 * window + self.rate2 * conv
        return {"attention": window, "convolution": conv, "mix": mixed}

    def _check_input(self, name: str, x: torch.Tensor, channels: int) -> None:
        feature_map(name, x, channels)
        alike(name, x, "the module", self.rate1)

    def extra_repr(self) -> str:
        backend = self.backend
        return (
            f"{self.in_planes}, {self.out_planes}, kernel_att={self.kernel_att}, "
            f"head={self.head}, kernel_conv={self.kernel_conv}, stride={self.stride}, "
            f"dilation={self.dilation}" + ("" if backend is None else f", backend={backend!r}")
        )
