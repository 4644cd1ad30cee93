"""SKNet: several kernel sizes side by side, and for every channel a softmax over them.

Paper: Xiang Li, Wenhai Wang, Xiaolin Hu, Jian Yang, "Selective Kernel Networks", CVPR 2019,
arXiv 1903.06586.
Code: implus/SKNet, 17dd708, models/sknet50.prototxt; read, not run.
Differs: nothing in the forward pass. As in the released network, branch m is a 3 x 3 convolution of dilation
m and so reaches as far as a (2 m + 1) x (2 m + 1) kernel. Starts as the released layers do; normalisation has
torch's momentum of 0.1, where the released one moves its statistics by 0.05.
SPDX-License-Identifier: MIT
"""

import operator

import torch
from torch import Tensor, nn


class SelectiveKernel(nn.Module):
    """Selective kernel convolution: split, fuse, select.

    Split: U_m = relu(BN(conv_m(x))) for m = 1 ... M.
    Fuse: z = relu(BN(W_fc s)), s the mean of U_1 + ... + U_M over all positions.
    Select: g(x)_mc = softmax over m of (W_select z)_mc; f(g, x) = sum over m of g_m * U_m.

    Args:
        channels: number of channels C, of the input and of the output.
        branches: number of branches M.
        groups: number of groups G of the convolutions.
        reduction: ratio r; z has d = max(C / r, L) features.
        min_width: lower limit L of d.
        stride: stride of the convolutions.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, M, C, 1, 1), not negative, sums to one over M
        - forward(x): (B, C, H', W') with H' = ceil(H / stride), likewise W'

    Raises:
        ValueError: `branches` is below 2, another size is below 1, `groups` or `reduction` does not divide
            `channels`; from torch, in training mode with one sample, since z is batch normalised.

    >>> block, (x,) = example()
    >>> torch.allclose(block.attention(x).sum(dim=1), torch.tensor(1.0))
    True

    Without weights to select by, each of three branches gets a third:

    >>> block = SelectiveKernel(32, branches=3)
    >>> _ = nn.init.zeros_(block.select.weight)
    >>> block.eval().attention(x).unique().tolist()
    [0.3333333432674408]

    The second branch covers 5 x 5 positions with nine weights: a single 1 in the middle of a map reaches

    >>> point = torch.zeros(1, 32, 5, 5)
    >>> point[..., 2, 2] = 1
    >>> block.split[1][0](point)[0, 0].ne(0).int()
    tensor([[1, 0, 1, 0, 1],
            [0, 0, 0, 0, 0],
            [1, 0, 1, 0, 1],
            [0, 0, 0, 0, 0],
            [1, 0, 1, 0, 1]], dtype=torch.int32)
    """

    def __init__(
        self,
        channels: int,
        branches: int = 2,
        groups: int = 32,
        reduction: int = 16,
        min_width: int = 32,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if branches < 2:
            raise ValueError(f"branches {branches} must be at least 2")
        divisors = {"groups": groups, "reduction": reduction}
        sizes = {"channels": channels, **divisors, "min_width": min_width, "stride": stride}
        for name, size in sizes.items():
            if not size >= 1:
                raise ValueError(f"{name} {size} must be at least 1")
        for name, size in divisors.items():
            if channels % size:
                raise ValueError(f"channels {channels} must be divisible by {name} {size}")
        stride, width = operator.index(stride), max(channels // reduction, operator.index(min_width))
        self.split = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, stride, padding=m, dilation=m, groups=groups, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            )
            for m in range(1, branches + 1)
        )
        self.fuse = nn.Sequential(nn.Linear(channels, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())
        self.select = nn.Linear(width, branches * channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the released layers do: He's normal convolutions, a selection that is nearly even."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weight of each branch for each channel: (B, C, H, W) -> (B, M, C, 1, 1)."""
        return self._weigh(self._branches(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), the weighted sum of the branches: (B, C, H, W) -> (B, C, H', W')."""
        maps = self._branches(x)  # (B, M, C, H', W')
        return (self._weigh(maps) * maps).sum(dim=1)

    def _branches(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, M, C, H', W')."""
        return torch.stack([branch(x) for branch in self.split], dim=1)

    def _weigh(self, maps: Tensor) -> Tensor:
        """(B, M, C, H', W') -> (B, M, C, 1, 1)."""
        squeezed = maps.mean(dim=(3, 4)).sum(dim=1)  # (B, C), the mean of the sum of the branches
        logits: Tensor = self.select(self.fuse(squeezed))  # (B, M C)
        weights = logits.view(maps.shape[:3]).softmax(dim=1)  # (B, M, C)
        return weights[..., None, None]  # (B, M, C, 1, 1)


def example(
    B: int = 3, C: int = 32, H: int = 10, W: int = 12, M: int = 2, G: int = 4, r: int = 8, L: int = 6
) -> tuple[SelectiveKernel, tuple[Tensor]]:
    """Return a seeded block of M branches and its input, a (B, C, H, W) map."""
    torch.manual_seed(0)
    block = SelectiveKernel(C, branches=M, groups=G, reduction=r, min_width=L)
    return block.eval(), (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[SelectiveKernel, tuple[Tensor]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    C = x.shape[1]
    return {
        "three_branches": (SelectiveKernel(C, branches=3, groups=1, reduction=2).eval(), (x,)),
        "stride": (SelectiveKernel(C, groups=C, reduction=1, stride=2).eval(), (x,)),
    }


if __name__ == "__main__":
    block, (x,) = example()
    weights = block.attention(x)[0, :, :, 0, 0]
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    print(f"weights of the first sample: {tuple(weights.shape)}, one row per branch")
    for side, row in zip((3, 5), weights, strict=True):
        print(f"{side} x {side}: {row.min():.3f} to {row.max():.3f}, mean {row.mean():.3f}")
