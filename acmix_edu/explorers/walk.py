"""The walk explorer: one forward pass of an ACmix, step by step, tensor by tensor."""

import copy
import math
from typing import NamedTuple

import torch
import traitlets

from acmix_edu.acmix import ACmix
from acmix_edu.examples import colour_features, photograph
from acmix_edu.explorers.explorer import (
    Array,
    Explorer,
    between,
    frozen,
    one_image,
    packed,
    place,
    weights_of,
)
from acmix_edu.explorers.loader import bundle, source
from acmix_edu.training.released import trained_acmix


class Step(NamedTuple):
    """One step: what it makes, in symbols, in code and in shapes.

    In the texts ``_`` lowers what follows, as in TeX: ``k_a``, ``k_{ij+o}``.
    ``tensors`` gives keys of ``ACmix.explain`` with their axes; ``code`` is found in ``where``.
    """

    title: str
    symbol: str
    formula: str
    tensors: dict[str, str]
    code: tuple[str, ...]
    where: str
    why: str


MAP, HEADS, PADDED = "B N·d H W", "B N d H W", "B N d H+2R W+2R"
WINDOWS, WEIGHTS, OUTPUT = "B N d k_a² H′ W′", "B N k_a² H′ W′", "B N·d H′ W′"
AXES = {  # what an axis counts
    "B": "images",
    "1": "for all",
    "C_in": "channels",
    "N·d": "channels",
    "d·N": "channels",
    "N": "heads",
    "d": "dims",
    "k_a²": "offsets",
    "k_c²": "maps",
    "d·k_c²": "maps",
    **dict.fromkeys(("H", "H+2R", "H′"), "rows"),
    **dict.fromkeys(("W", "W+2R", "W′"), "columns"),
}
STEPS = (
    Step(
        "Input", "x", "x", {"x": "B C_in H W"},
        ("def forward(self, x: torch.Tensor) -> torch.Tensor:",), "acmix.ACmix.forward",
        "A map with C_in channels. The first three are drawn as red, green and blue; if there are "
        "fewer, the first alone, in grey.",
    ),
    Step(
        "Project", "q, k, v", "q = W_q x + b_q,  k = W_k x + b_k,  v = W_v x + b_v",
        {"q": MAP, "k": MAP, "v": MAP},
        ("return self.conv1(x), self.conv2(x), self.conv3(x)",), "acmix.ACmix.project",
        "Three 1×1 convolutions: each pixel by itself. Both paths read these three maps; nothing "
        "is projected twice.",
    ),
    Step(
        "Cut into heads", "q_n, k_n, v_n", "channel n·d + e  =  head n, dimension e",
        {"q_att": HEADS, "k_att": HEADS, "v_att": HEADS},
        ("cut = (q.shape[0], self.head, self.head_dim, *q.shape[2:])",
         "return q.reshape(cut), k.reshape(cut), v.reshape(cut)"), "acmix.ACmix._heads",
        "No number changes: the N·d channels get two indices instead of one. These 3N pieces of "
        "d dimensions are what the two paths share.",
    ),
    Step(
        "Reflect", "k, v mirrored", "k_{−i,j} = k_{i,j},  v_{−i,j} = v_{i,j}",
        {"pad_k": PADDED, "pad_v": PADDED},
        ("padded = reflect_pad(f, dilation * (k // 2))",), "attention.windows",
        "A window at the border needs R more pixels on each side. They are mirrored, so that every "
        "window is full. The dotted line is the border of the map.",
    ),
    Step(
        "Position", "pe", "pe = W_p loc + b_p", {"pe": "1 d H W"},
        ("loc = position_map(*q.shape[-2:], dtype=self.rate1.dtype, device=q.device)",
         "return self.conv_p(loc)"), "acmix.ACmix.position_term",
        "loc holds two ramps from −1 to 1, along the rows and down the columns. A 1×1 convolution "
        "mixes them, so pe depends on the place alone: one pe serves all images and heads.",
    ),
    Step(
        "Unfold", "k_{ij+o}, v_{ij+o}, pe_{ij+o}", "o = all offsets of the window",
        {"unfold_k": WINDOWS, "unfold_v": WINDOWS, "unfold_pe": "1 d k_a² H′ W′"},
        ("copies = F.unfold(padded.reshape(-1, *padded.shape[-3:]), k, dilation=dilation, "
         "stride=stride)",), "attention.windows",
        "k_a² copies of each map, each moved by one offset o, so that the neighbours of a pixel "
        "are under it. At stride 1 they are together k_a² times as large as the map.",
    ),
    Step(
        "Compare", "ℓ_o", "ℓ_o = q_{ij}·(k_{ij+o} + pe_{ij} − pe_{ij+o}) / √d", {"logits": WEIGHTS},
        ("keys = keys + here - windows(pe, kernel_size, stride, dilation)",
         'return torch.einsum("...dhw,...dthw->...thw", queries, keys)'),
        "attention.local_attention_logits",
        "Each query meets the k_a² keys of its window. The d dimensions are summed away. Only "
        "differences within a window count in the next step, so the colours run from the lowest "
        "value to the highest.",
    ),
    Step(
        "Weigh", "a_o", "a_o = softmax_o ℓ_o", {"att": WEIGHTS},
        ("att = logits.softmax(dim=-3)",), "acmix.ACmix.explain",
        "The k_a² weights of a pixel are never negative and add up to one. With them the next step "
        "averages the values around the pixel.",
    ),
    Step(
        "Aggregate", "F_att", "F_att(i, j) = Σ_o a_o v_{ij+o}", {"out_att": OUTPUT},
        ('return torch.einsum("...thw,...dthw->...dhw", weights, values)',),
        "attention.aggregate",
        "The values of the window, averaged by the weights. The heads lie one after the other "
        "again: channel n·d + e.",
    ),
    Step(
        "Weigh pieces", "g̃_t", "g̃_{t,e} = Σ_m fc_{t,m} piece_{m,e}",
        {"f_all": "B k_c² d H W"},
        ("maps = torch.cat(heads, dim=1)",
         "return self.fc(maps.flatten(2, 3)).unflatten(2, maps.shape[2:4])"),
        "acmix.ACmix._light_maps",
        "The light layer: for each of the k_c² cells of a kernel, a weighted sum of the 3N pieces. "
        "The weights are the same for every dimension and every pixel.",
    ),
    Step(
        "Regroup", "g̃_{ek²+t}", "channel e·k_c² + t  =  dimension e, map t",
        {"f_conv": "B d·k_c² H W"},
        ("f_conv = f_all.transpose(1, 2).flatten(1, 2)",), "acmix.ACmix.explain",
        "No number changes: the k_c² maps of one dimension now lie side by side, as one group of "
        "the next convolution.",
    ),
    Step(
        "Shift and sum", "F_conv", "F_{conv,eN+n} = Σ_t K_{eN+n,t} ∗ g̃_{ek²+t}",
        {"out_conv": "B d·N H′ W′"},
        ("return F.conv2d(",
         "maps, self.weight, stride=self.stride, padding=self.kernel_size // 2, groups=self.dims"),
        "depthwise.LearnableShift.forward",
        "One grouped convolution moves each of the k_c² maps to its place and adds them. Each of "
        "the d groups makes N channels, so here channel c is group ⌊c/N⌋, kernel c mod N.",
    ),
    Step(
        "Mix", "F_out", "F_out = α F_att + β F_conv", {"out": OUTPUT},
        ("scaled = beta.type_as(out_conv) * out_conv",
         "return torch.addcmul(scaled, alpha.type_as(out_att), out_att)"),
        "acmix.ACmix.mix",
        "Two learned numbers, the same for all channels, weigh the paths.",
    ),
)  # fmt: skip


class WalkExplorer(Explorer):
    """Walk through the forward pass of an ACmix: each tensor with its shape, its line and a map.

    The steps are those of ``ACmix.explain``; the shapes are recorded from a run of the module.

    Args:
        module: an ``ACmix``; its weights are copied. When left out, ``trained_acmix``.
        image: floats ``[C, H, W]`` or ``[1, C, H, W]``, C = ``module.in_planes``, at most 128×128
            pixels; the ``colour_features`` of a flower, C = 4, when left out.

    Traits:
        - step: from 1 to 13.
        - head, channel: the head, and its dimension, whose maps are shown, from 0. Together they
          choose output channel ``head * module.head_dim + channel``, and all that it is made of.
        - pixel: (row, column) of the output.
        - offset: (rows, columns) from the pixel to the neighbour that is shown of the tensors that
          hold a window; it also chooses the map of the light layer. An offset outside a window
          means the nearest one at its edge.

    Raises:
        TypeError, ValueError: an argument or a trait's new value cannot be used; the message
            says how to mend it. A new value of another type is a ``traitlets.TraitError``.

    Example:
        >>> explorer = WalkExplorer(ACmix(3, 8, head=2), torch.rand(3, 24, 32))
        >>> explorer.observe(lambda change: print(*explorer.current_tensors()), "step")
        >>> explorer.step = 2
        q k v
    """

    _esm = bundle("engine.js", "kit.js", "walk.js")
    _css = source("explorer.css") + source("walk.css")

    step = traitlets.Int(1).tag(sync=True, state=True)
    head = traitlets.Int(0).tag(sync=True, state=True)
    channel = traitlets.Int(0).tag(sync=True, state=True)
    pixel = place().tag(sync=True, state=True)
    offset = place().tag(sync=True, state=True)

    image = traitlets.Bytes(read_only=True).tag(sync=True)
    weights = traitlets.Bytes(read_only=True).tag(sync=True)
    places = traitlets.Dict(read_only=True).tag(sync=True)  # name: [first, one past the last]
    sizes = traitlets.Dict(read_only=True).tag(sync=True)
    table = traitlets.List(traitlets.Any(), read_only=True).tag(sync=True)  # the steps, with shapes
    words = traitlets.Dict(read_only=True).tag(sync=True)  # axis: what it counts

    def __init__(self, module: ACmix | None = None, image: Array | None = None):
        self._module = module = frozen(trained_acmix() if module is None else module)
        image = colour_features(photograph("flower", 48)) if image is None else image
        self._image = one_image(image, module.in_planes)
        height, width = (math.ceil(side / module.stride) for side in self._image.shape[1:])
        self._bounds = {"head": module.head, "channel": module.head_dim, "pixel": (height, width)}
        names = ("in_planes", "kernel_att", "kernel_conv", "stride", "dilation")
        sizes = {name: getattr(module, name) for name in names} | {"heads": module.head}
        sizes |= {"height": self._image.shape[1], "width": self._image.shape[2]}
        weights, places = packed({"own": weights_of(module)})
        constants = {
            "image": self._image.numpy().tobytes(),
            "weights": weights,
            "places": places["own"],
            "sizes": sizes,
            "table": _table(module, self._image),
            "words": AXES,
        }
        start: dict = {"head": min(2, module.head - 1), "channel": min(2, module.head_dim - 1)}
        start |= {"pixel": (height // 4, width // 4), "offset": (0, 2 * module.dilation)}
        super().__init__("walk", constants, **start)

    def current_tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors that the step makes, by their names in ``ACmix.explain``.

        Example:
            >>> explorer = WalkExplorer()
            >>> explorer.step = 7
            >>> explorer.current_tensors()["logits"].shape
            torch.Size([1, 4, 49, 48, 48])
        """
        tensors = self._module.explain(self._image[None])
        return {name: tensors[name] for name in STEPS[self.step - 1].tensors}

    @traitlets.validate("step")
    def _counted(self, proposal):
        return between("step", proposal.value, 1, len(STEPS))


def _table(module: ACmix, image: torch.Tensor) -> list[dict]:
    """Return the steps for the page, with the shapes of a run (on tensors that hold no data)."""
    made = copy.deepcopy(module).to("meta").explain(image[None].to("meta"))
    return [
        step._asdict()
        | {
            "tensors": [
                {"name": name, "axes": axes.split(), "shape": list(made[name].shape)}
                for name, axes in step.tensors.items()
            ],
        }
        for step in STEPS
    ]
