"""CondConv: every picture is convolved with a kernel of its own, mixed from a few experts.

Paper: Brandon Yang, Gabriel Bender, Quoc V. Le, Jiquan Ngiam, "CondConv: Conditionally Parameterized
Convolutions for Efficient Inference", NeurIPS 2019, arXiv 1904.04971.
Differs: nothing in the forward pass. The released EfficientNet computes the weights once per block, from the
block's input, and uses them in three convolutions: hand them to `convolve`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CondConv2d(nn.Module):
    """Convolution with a kernel per sample, W(x) = sum over i of alpha_i W_i.

    g(x) = alpha = sigmoid(R z + b) with z the mean of each channel; f(g, x) = (sum over i of g_i W_i) * x.

    Args:
        in_channels: number of channels C of the input.
        out_channels: number of channels D of the output.
        kernel_size: side k of the kernels, odd; the map is padded by (k - 1) / 2.
        experts: number n of experts W_i, kernels of the same shape.
        stride: stride of the convolution.
        groups: number of groups G of the convolution.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, n), each weight in (0, 1); the weights do not sum to one
        - forward(x): (B, D, H', W') with H' = ceil(H / stride), likewise W'

    Raises:
        ValueError: a size is below 1, `kernel_size` is even, or `groups` does not divide both channels.

    The mixture of kernels gives the mixture of the experts' outputs, at the price of one convolution:

    >>> layer, (x,) = example()
    >>> outputs = torch.stack([F.conv2d(x, expert, padding=2, groups=2) for expert in layer.experts], dim=1)
    >>> mixture = (layer.attention(x)[:, :, None, None, None] * outputs).sum(dim=1)
    >>> torch.allclose(layer(x), mixture, atol=1e-5)
    True

    The weights do not compete. If all are one half, four experts give twice their mean:

    >>> _ = nn.init.zeros_(layer.routing.weight), nn.init.zeros_(layer.routing.bias)
    >>> doubled = F.conv2d(x, 2 * layer.experts.mean(dim=0), padding=2, groups=2)
    >>> torch.allclose(layer(x), doubled, atol=1e-5)
    True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        experts: int = 4,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        for name, size in (("experts", experts), ("stride", stride), ("groups", groups)):
            if size < 1:
                raise ValueError(f"{name} {size} must be at least 1")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} is not an odd number from 1")
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels < 1 or channels % groups:
                raise ValueError(f"{name} {channels} is not a positive multiple of groups {groups}")
        self.stride, self.groups = stride, groups
        self.routing = nn.Linear(in_channels, experts)
        shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        self.experts = nn.Parameter(torch.empty(experts, *shape))
        fan_out = kernel_size**2 * out_channels // groups  # of one expert
        nn.init.normal_(self.experts, std=(2 / fan_out) ** 0.5)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights of the experts: (B, C, H, W) -> (B, n)."""
        return torch.sigmoid(self.routing(x.mean(dim=(2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), each sample convolved with its kernel: (B, C, H, W) -> (B, D, H', W')."""
        return self.convolve(x, self.attention(x))

    def convolve(self, x: Tensor, weights: Tensor) -> Tensor:
        """Mix a kernel per sample and apply it: (B, C, H, W), (B, n) -> (B, D, H', W').

        The batch is folded into the channels, so that one grouped convolution serves all samples.
        """
        B, C, H, W = x.shape
        _, D, *kernel = self.experts.shape
        kernels = (weights @ self.experts.flatten(1)).view(B * D, *kernel)  # (B D, C / G, k, k)
        folded = x.reshape(1, B * C, H, W)
        y = F.conv2d(folded, kernels, stride=self.stride, padding=kernel[-1] // 2, groups=B * self.groups)
        return y.view(B, D, *y.shape[2:])  # (B, D, H', W')


def example(
    B: int = 3, C: int = 8, D: int = 20, H: int = 14, W: int = 11, k: int = 5, n: int = 4, G: int = 2
) -> tuple[CondConv2d, tuple[Tensor]]:
    """Return a seeded layer of n experts and its input: a (B, C, H, W) map whose channels differ in means."""
    torch.manual_seed(0)
    x = torch.randn(B, C, H, W) + torch.randn(B, C, 1, 1)
    return CondConv2d(C, D, k, experts=n, groups=G).eval(), (x,)


if __name__ == "__main__":
    layer, (x,) = example()
    print(f"input {tuple(x.shape)}, output {tuple(layer(x).shape)}")
    for sample, weights in enumerate(layer.attention(x)):
        print(f"sample {sample}: weights {[round(weight, 2) for weight in weights.tolist()]}")
