r"""ACmix for inference: what does not depend on the input is multiplied out once."""

import torch
import torch.nn.functional as F
from torch import nn

from acmix_edu import fast
from acmix_edu.acmix import ACmix
from acmix_edu.altered import (
    LAYERS,
    copied,
    is_hooked,
    refuse_other_layers,
    refuse_other_stages,
)
from acmix_edu.attention import position_map
from acmix_edu.checks import alike, feature_map, pair
from acmix_edu.fast.halo import is_known
from acmix_edu.fast.triton_base import is_recorded
from acmix_edu.replace import swap

FORMS = ("grouped", "dense")


class DeployedACmix(nn.Module):
    r"""A trained ACmix with its constants multiplied out; :func:`deploy` makes it.

    The three projections become one 1×1 convolution, whose outputs are in the order in which the
    convolution path reads them. That path is β times

    - ``"grouped"``: the grouped convolution of the projected maps, with fc multiplied into the
      shift kernels. It takes 3·k_c²·N multiply-adds per pixel and output channel (plus some by zero
      on a CPU); or
    - ``"dense"``: one convolution of x itself, with the projections multiplied in as well, plus the
      map that their biases make, which is constant except near the border. It takes k_c²·in_planes
      multiply-adds: the convolution that was taken apart is put together again. On a CPU it may pay
      up to about 16 channels (chapter 07).

    The output has the module's shape and, up to rounding, its values. Hooks are the exception: only
    those that compute weights, as in pruning, take effect.

    Args:
        module: the ACmix; it is left as it is.
        size: (H, W) of the inputs, if it is known: the position term is then computed once. Inputs
            of another size still give the right result.
        convolution: the form of the convolution path.

    Raises:
        TypeError, ValueError: module is not an ACmix, or it or one of its layers has a forward of
            its own, or an argument cannot be used.

    Example:
        >>> layer, x = ACmix(16, 16), torch.randn(1, 16, 9, 9)
        >>> torch.testing.assert_close(DeployedACmix(layer)(x), layer(x))
    """

    in_planes: int  # from here to backend: as in the module
    head: int
    head_dim: int
    kernel_att: int
    stride: int
    dilation: int
    backend: str | None
    projections: torch.Tensor
    biases: torch.Tensor
    place: torch.Tensor
    rate: torch.Tensor
    light: torch.Tensor  # if grouped
    kernel: torch.Tensor  # if dense
    border: torch.Tensor  # if dense
    position: torch.Tensor | None

    def __init__(
        self, module: ACmix, size: int | tuple[int, int] | None = None, convolution: str = "grouped"
    ):
        super().__init__()
        if not isinstance(module, ACmix):
            raise TypeError(
                f"module must be an ACmix, but a {type(module).__name__} came; for a network "
                "that contains some, call deploy(network)."
            )
        refuse_other_stages(module, ACmix)
        refuse_other_layers(module)
        if convolution not in FORMS:
            raise ValueError(
                f"convolution must be one of {', '.join(map(repr, FORMS))}, but "
                f"{convolution!r} came."
            )
        module = copied(module).eval()  # in training, spectral norm changes with each use
        layers = [getattr(module, name) for name in LAYERS]
        for layer in layers:
            layer._forward_hooks.clear()  # they see outputs, and those here mean nothing
        if any(map(is_hooked, layers)):
            with torch.no_grad():  # pruning computes its weights when a layer is called
                ACmix.explain(module, module.rate1.new_zeros(1, module.in_planes, 1, 1))
        self.convolution = convolution
        for name, tensor in _composed(module, convolution).items():
            self.register_buffer(name, tensor.to(module.conv1.weight).contiguous())
        self.size = None if size is None else pair("size", size)
        self.register_buffer("position", None, persistent=False)
        _fix_position(self)
        self.register_load_state_dict_post_hook(_fix_position)
        _take_attributes(module, self)

    def _load_from_state_dict(self, state: dict, prefix: str, *rest) -> None:
        if prefix + "conv1.weight" in state:
            rest[-1].append(
                f"{prefix[:-1] or 'The module'} is deployed, and the state is of an ACmix, as "
                "before; load it into the network itself, then deploy that again."
            )
        super()._load_from_state_dict(state, prefix, *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        feature_map("x", x, self.in_planes)
        alike("x", x, "the module", self.projections)
        maps = F.conv2d(x, self.projections, self.biases)  # [B, d·3N, H, W], dimension-major
        stacked = (x.shape[0], self.head_dim, 3 * self.head, *x.shape[2:])
        q, k, v = maps.reshape(stacked).transpose(1, 2).chunk(3, dim=1)
        pe = self.position
        if pe is None or not is_known(*x.shape[-2:]) or pe.shape[-2:] != x.shape[-2:]:
            pe = self._position(*x.shape[-2:])
        window = self.kernel_att, pe, self.stride, self.dilation
        att = fast.attend(q, k, v, *window, self.backend).flatten(1, 2)
        if self.convolution == "dense":
            conv = self._dense(x)
        else:
            conv = fast.convolve(q, k, v, self.light, self.stride, self.backend, stacked=maps)
        rate = self.rate[:, None].type_as(att)
        return conv + rate * att if is_recorded() else torch.addcmul(conv, rate, att)

    def _dense(self, x: torch.Tensor) -> torch.Tensor:
        """Return β times the convolution path, from x itself."""
        how: dict = {"stride": self.stride, "padding": self.kernel.shape[-1] // 2}
        ones = torch.ones_like(x[:1, :1])  # their zero padding makes the border
        return F.conv2d(x, self.kernel, **how) + F.conv2d(ones, self.border, **how)

    def _position(self, height: int, width: int) -> torch.Tensor:
        """Return the position term of the keys, without the position's bias, which cancels."""
        loc = position_map(height, width, dtype=self.place.dtype, device=self.place.device)
        return F.conv2d(loc, self.place)

    def extra_repr(self) -> str:
        sizes = ACmix.extra_repr(self)  # type: ignore[arg-type]  # it has the same attributes
        return f"{sizes}, convolution={self.convolution!r}"


def _take_attributes(module: ACmix, deployed: DeployedACmix) -> None:
    """Take over sizes, backend and what others wrote on the module, as YOLO does i, f and type."""
    for name, value in vars(module).items():
        if not name.startswith("_") and name not in deployed._buffers:
            vars(deployed).setdefault(name, value)


def deploy(
    model: nn.Module, size: int | tuple[int, int] | None = None, convolution: str = "grouped"
) -> nn.Module:
    """Copy a network, or one ACmix, with every ACmix in it composed for inference.

    Args:
        model: a trained network, or an ACmix; it is left as it is.
        size: as for :class:`DeployedACmix`. It is meant for a single ACmix, since those of a
            network see maps of different sizes.
        convolution: as for :class:`DeployedACmix`.

    Returns:
        The copy, in eval mode, with the same outputs up to rounding. Its ACmix modules do not
        train. Its state loads into what ``deploy`` makes of another such network, not into the
        network itself. Hooks on an ACmix and its layers are not carried over, even if they change
        an output; attributes that a framework wrote on it are.

    Raises:
        TypeError, ValueError: model is not a module, or contains no ACmix, or one that
            :class:`DeployedACmix` does not take or that was given to ``torch.compile`` alone.

    Example:
        >>> layer, x = ACmix(16, 16), torch.randn(1, 16, 9, 9)
        >>> torch.testing.assert_close(deploy(layer, size=(9, 9))(x), layer(x))
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, but a {type(model).__name__} came.")
    if isinstance(model, ACmix):
        return DeployedACmix(model, size, convolution).eval()
    model = copied(model)

    def make(_, module):
        return DeployedACmix(module, size, convolution) if isinstance(module, ACmix) else None

    if not swap(model, make):
        raise ValueError("model contains no ACmix that is not deployed already.")
    return model.eval()


def _composed(module: ACmix, convolution: str) -> dict[str, torch.Tensor]:
    """Multiply out, in float64, what depends on the weights alone."""
    layers, stacked = (module.conv1, module.conv2, module.conv3), (3 * module.head, module.head_dim)
    weights = [layer.weight for layer in layers]
    biases = [w.new_zeros(len(w)) if c.bias is None else c.bias
              for c, w in zip(layers, weights, strict=True)]  # fmt: skip
    weight, bias = (torch.cat([*map(_exact, t)]).unflatten(0, stacked) for t in (weights, biases))
    weight, bias = weight.transpose(0, 1), bias.mT  # [d, 3N, in_planes, 1, 1] and [d, 3N]
    composed = {
        "projections": weight.flatten(0, 1),
        "biases": bias.flatten(),
        "place": _exact(module.conv_p.weight),
        "rate": _exact(module.rate1),
    }
    light = fast.compose(_exact(module.fc.weight), _exact(module.dep_conv.weight))
    light = _exact(module.rate2) * light
    if convolution == "grouped":
        return composed | {"light": light}
    light = light.unflatten(0, (module.head_dim, module.head))  # [d, N, 3N, k_c, k_c]
    kernel = torch.einsum("enmpq,emc->encpq", light, weight[..., 0, 0])
    border = torch.einsum("enmpq,em->enpq", light, bias)
    return composed | {"kernel": kernel.flatten(0, 1), "border": border.flatten(0, 1)[:, None]}


def _exact(weight: torch.Tensor) -> torch.Tensor:
    """Return a copy in float64, on the CPU for an Apple GPU, which has no float64."""
    weight = weight.detach()
    return (weight.cpu() if weight.device.type == "mps" else weight).double().clone()


def _fix_position(module: DeployedACmix, _=None) -> None:
    """Compute the position term of the fixed size, now and after a state is loaded.

    The term is kept, so autocast, if it is on, must not round it.
    """
    if module.size is not None:
        kind = module.place.device.type  # "meta" has no autocast
        kind = kind if torch.amp.is_autocast_available(kind) else "cpu"
        with torch.autocast(kind, enabled=False):
            module.position = module._position(*module.size)
