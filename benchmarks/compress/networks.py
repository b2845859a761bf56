"""Networks for images of 32x32, as their users write them: plain torch modules."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netlathe.archspace.presets import make_divisible

MOBILENET_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1),
)  # fmt: skip
"""Expansion, channels, layers and first stride (Sandler et al., arXiv:1801.04381, table 2); with the stem's, strides of
1 in place of 2 twice leave 4x4 pixels at the end."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _conv(cin, cout, 3, stride), _conv(cout, cout, 3)
        self.short = nn.Identity() if cin == cout else _conv(cin, cout, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.short(x))


class ResNet(nn.Module):
    """ResNet of 6n + 2 layers for small images (He et al., arXiv:1512.03385, section 4.2)."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, 16, 3), nn.ReLU()]
        cin = 16
        for cout in (16, 32, 64):
            for _ in range(blocks):
                layers.append(BasicBlock(cin, cout, 1 if cin == cout else 2))
                cin = cout
        self.features, self.linear = nn.Sequential(*layers), nn.Linear(cin, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """A narrow layer widened, filtered depthwise, and narrowed again."""

    def __init__(self, cin: int, cout: int, stride: int, expand: int) -> None:
        super().__init__()
        mid = cin * expand
        wider = [] if expand == 1 else [_conv(cin, mid, 1), nn.ReLU6()]
        self.layers = nn.Sequential(*wider, _conv(mid, mid, 3, stride, groups=mid), nn.ReLU6(), _conv(mid, cout, 1))
        self.is_residual = cin == cout and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)  # type: ignore[no-any-return]


class MobileNetV2(nn.Module):
    """MobileNetV2, its last convolution scaled by `width` as well."""

    def __init__(self, width: float, classes: int = 10) -> None:
        super().__init__()
        cin = make_divisible(32 * width)
        layers: list[nn.Module] = [_conv(3, cin, 3), nn.ReLU6()]
        for expand, channels, count, first in MOBILENET_STAGES:
            for index in range(count):
                cout = make_divisible(channels * width)
                layers.append(InvertedResidual(cin, cout, 1 if index else first, expand))
                cin = cout
        last = make_divisible(1280 * width)
        self.features = nn.Sequential(*layers, _conv(cin, last, 1), nn.ReLU6())
        self.linear = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


def _conv(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with BatchNorm."""
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": lambda: ResNet(3),
    "mobilenetv2_0.5": lambda: MobileNetV2(0.5),
    "resnet14": lambda: ResNet(2),
}


def example() -> Tensor:
    """Input that each of them is called with."""
    return torch.zeros(1, 3, 32, 32)
