r"""ResNets whose 3×3 convolutions are ACmix modules. Chapter 06 tells the story."""

from collections.abc import Callable

import torch
from torch import nn

from acmix_edu.acmix import ACmix
from acmix_edu.checks import whole_number

EXPANSION = 4
WIDTHS = (64, 128, 256, 512)


def conv3x3(planes: int, *, stride: int = 1) -> nn.Conv2d:
    """Return the convolution of a plain bottleneck: 3×3, planes → planes, no bias."""
    planes, stride = whole_number("planes", planes), whole_number("stride", stride)
    return nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)


def acmix3x3(planes: int, *, stride: int = 1) -> ACmix:
    """Return the ACmix that takes its place: window 7, 4 heads, shift kernels 3×3."""
    return ACmix(planes, planes, kernel_att=7, head=4, kernel_conv=3, stride=stride)


class Bottleneck(nn.Module):
    """Residual block: 1×1, spatial operator, 1×1, each with batch norm, added to its input.

    Args:
        in_planes: input channels.
        planes: width inside; the output has 4·planes channels.
        stride: of the spatial operator and of the shortcut.
        operator: makes the spatial operator; it is called as ``operator(planes, stride=stride)``.

    Shape:
        ``[B, in_planes, H, W]`` → ``[B, 4·planes, ⌈H/s⌉, ⌈W/s⌉]``. The shortcut is the identity
        where the shapes allow, else a 1×1 convolution with batch norm.

    Example:
        >>> Bottleneck(256, 64)(torch.randn(1, 256, 8, 8)).shape
        torch.Size([1, 256, 8, 8])
    """

    def __init__(
        self,
        in_planes: int,
        planes: int,
        stride: int = 1,
        operator: Callable[..., nn.Module] = acmix3x3,
    ):
        super().__init__()
        in_planes = whole_number("in_planes", in_planes)
        planes, stride = whole_number("planes", planes), whole_number("stride", stride)
        if not callable(operator):
            raise TypeError(
                "operator must make a module, called as operator(planes, stride=stride), but a "
                f"{type(operator).__name__} came; pass acmix3x3 or conv3x3."
            )
        out_planes = EXPANSION * planes
        self.conv1 = nn.Conv2d(in_planes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = operator(planes, stride=stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out_planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_planes != out_planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_planes, out_planes, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_planes),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + identity)


class ResNet(nn.Module):
    """Residual network of bottlenecks, with ACmix or any other spatial operator inside.

    It has a 7×7/2 stem, a 3×3/2 max-pool, four layers of widths 64, 128, 256 and 512 (stride 2 at
    the start of layers 2–4), a global average and a linear layer. Parameter names are those of the
    published network.

    Args:
        layers: the number of blocks in each of the four layers.
        num_classes: outputs of the linear layer.
        operator: makes the spatial operator of a block, as in :class:`Bottleneck`: ``acmix3x3``, or
            ``conv3x3`` for the plain network.

    Shape:
        ``[B, 3, H, W]`` → ``[B, num_classes]``, any H, W ≥ 1; made for 224×224.

    Differs from the published code: there, the constructor re-initialises every convolution after
    ACmix has set its shift kernels, and so loses them. Here they survive.

    Example:
        >>> ResNet([1, 1, 1, 1], num_classes=10).eval()(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 10])

    Source: K. He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        layers: list[int] | tuple[int, ...],
        num_classes: int = 1000,
        operator: Callable[..., nn.Module] = acmix3x3,
    ):
        super().__init__()
        if not isinstance(layers, list | tuple) or len(layers) != 4:
            raise ValueError(
                f"layers must name the blocks of 4 layers, but {layers!r} came; ResNet-50 is "
                "[3, 4, 6, 3]."
            )
        num_classes = whole_number("num_classes", num_classes)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        in_planes = 64
        for number, (blocks, planes) in enumerate(zip(layers, WIDTHS, strict=True), start=1):
            layer = nn.Sequential()
            for block in range(whole_number(f"layers[{number - 1}]", blocks)):
                stride = 2 if number > 1 and block == 0 else 1
                layer.append(Bottleneck(in_planes, planes, stride, operator))
                in_planes = EXPANSION * planes
            self.add_module(f"layer{number}", layer)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_planes, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def acmix_resnet26(num_classes: int = 1000) -> ResNet:
    """Return ResNet-26 with ACmix: layers (1, 2, 4, 1).

    Example:
        >>> sum(p.numel() for p in acmix_resnet26().parameters())
        10487816
    """
    return ResNet([1, 2, 4, 1], num_classes)


def acmix_resnet38(num_classes: int = 1000) -> ResNet:
    """Return ResNet-38 with ACmix: layers (2, 3, 5, 2).

    Example:
        >>> sum(p.numel() for p in acmix_resnet38().parameters())
        14410896
    """
    return ResNet([2, 3, 5, 2], num_classes)


def acmix_resnet50(num_classes: int = 1000) -> ResNet:
    """Return ResNet-50 with ACmix: layers (3, 4, 6, 3), the published network.

    Example:
        >>> sum(p.numel() for p in acmix_resnet50().parameters())
        18333976
    """
    return ResNet([3, 4, 6, 3], num_classes)
