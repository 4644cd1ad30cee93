"""The skeleton of ResNet-50 and ResNeXt-50, to count what a block adds to a network.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1;
Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017, table 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Width and number of bottlenecks of the stages conv2_x to conv5_x."""


def conv_bn(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, then batch normalisation."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1, then `block` on the residual branch before the addition.

    The stride stands on the first 1 x 1 convolution, as in the paper. `middle(channels, stride)`
    replaces the 3 x 3 convolution with its activation; `block(channels)` is the block to insert.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        stride: int,
        block: Callable[[int], nn.Module] | None,
        middle: Callable[[int, int], nn.Module] | None,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if middle is None else (1, stride)
        self.residual = nn.Sequential(
            conv_bn(inputs, width, 1, first),
            nn.ReLU(),
            middle(width, second) if middle else nn.Sequential(conv_bn(width, width, 3), nn.ReLU()),
            conv_bn(width, outputs, 1),
            block(outputs) if block else nn.Identity(),
        )
        self.shortcut = conv_bn(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.relu(self.shortcut(x) + self.residual(x))
        return out


def resnet50(
    block: Callable[[int], nn.Module] | None = None,
    middle: Callable[[int, int], nn.Module] | None = None,
    width_factor: int = 1,
    stages: tuple[int, ...] = (0, 1, 2, 3),
) -> nn.Sequential:
    """ResNet-50 on the meta device; `width_factor=2` and a grouped `middle` give ResNeXt-50.

    `block` is inserted in the stages whose index is in `stages`.
    """
    with torch.device("meta"):
        layers: list[nn.Module] = [conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        inputs = 64
        for index, (width, repeats) in enumerate(STAGES):
            inserted = block if index in stages else None
            for repeat in range(repeats):
                stride = 2 if index > 0 and repeat == 0 else 1
                outputs = 4 * width
                layers.append(Bottleneck(inputs, width * width_factor, outputs, stride, inserted, middle))
                inputs = outputs
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]
        return nn.Sequential(*layers)


def parameters(module: nn.Module) -> int:
    """Number of parameters, buffers not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs(network: nn.Module, size: int = 224) -> int:
    """Multiply-adds of convolutions and matrix products for one image of size x size."""
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, size, size, device="meta"))
    return int(counter.get_total_flops()) // 2
