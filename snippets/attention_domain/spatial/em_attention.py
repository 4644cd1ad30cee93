"""EM attention: expectation-maximisation fits a few bases to the map, and the map is rebuilt from them.

Paper: Xia Li, Zhisheng Zhong, Jianlong Wu, Yibo Yang, Zhouchen Lin, Hong Liu, "Expectation-Maximization
Attention Networks for Semantic Segmentation", ICCV 2019, arXiv 1907.13426.
Code: XiaLiPKU/EMANet, f09ffac, network.py and train.py.
Differs: bases get length one exactly (the released code adds 1e-6 to two divisors); the moving average is a
method, to be called once a step (released code: lines of its training script); the batch normalisation has
torch's momentum 0.1 (released code: 0.0003).
SPDX-License-Identifier: MIT
"""

import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EMAUnit(nn.Module):
    """Expectation-maximisation attention unit.

    Features h_n = W x_n + b of the N = H W positions, bases mu_k of length one, T times:
    - E step: z_nk = softmax over k of h_n . mu_k
    - M step: mu_k = sum_n z_nk h_n, divided by its length

    g(x) = z, how much each position belongs to each basis; f(g, x) = relu(x + BN(V relu(sum_k z_k mu_k))).

    The steps are not differentiated: z and mu are constants in the backward pass. So W and b never change,
    and are frozen here. `bases`, where the steps start, learn by a moving average instead: in training
    `forward` notes the mean of mu as `fitted`, and `move_bases`, called once a step, moves them towards it.

    Args:
        channels: number of channels C.
        bases: number K of bases.
        iterations: number T of steps of each kind.
        momentum: share of the old bases that a step leaves.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, N, K), the weights of a position sum to one
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: a size is below 1, `momentum` is not in [0, 1], or x has another number of dimensions.

    Whatever the map, it is rebuilt from K = 6 vectors; the weights of a position sum to one:

    >>> block, (x,) = example()
    >>> z, mu = block.fit(x)
    >>> torch.linalg.matrix_rank(z @ mu).tolist()
    [6, 6]
    >>> torch.allclose(z.sum(dim=-1), torch.ones(2, 5 * 7))
    True

    Only the last layers learn by gradients, and the bases by the moving average:

    >>> block.train()(x).sum().backward()
    >>> sorted({name.split(".")[0] for name, p in block.named_parameters() if p.grad is not None})
    ['expand']
    >>> before = block.bases.clone()
    >>> block.move_bases()
    >>> torch.allclose(block.bases, 0.9 * before + 0.1 * mu.mean(dim=0))
    True
    """

    bases: Tensor

    def __init__(self, channels: int, bases: int = 64, iterations: int = 3, momentum: float = 0.9) -> None:
        super().__init__()
        if channels < 1 or bases < 1 or iterations < 1:
            raise ValueError(
                f"channels {channels}, bases {bases} and iterations {iterations} must be at least 1"
            )
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum {momentum} must be in [0, 1]")
        self.iterations = operator.index(iterations)
        self.momentum = momentum
        self.project = nn.Conv2d(channels, channels, 1).requires_grad_(False)
        self.expand = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.register_buffer("bases", torch.empty(bases, channels))
        self.fitted: Tensor | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the released code: weights of variance 2 / C, bases in random directions."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        self.bases.copy_(F.normalize(torch.randn_like(self.bases), dim=-1))

    def fit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights z and bases mu after T steps: (B, C, H, W) -> (B, N, K), (B, K, C).

        Means instead of sums: they have the same direction, and stay in the range of float16.
        """
        if x.dim() != 4:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W)")
        wide = torch.promote_types(x.dtype, torch.float32)
        features = self.project(x).detach().flatten(2).mT.to(wide)  # (B, N, C)
        mu = self.bases.to(wide).expand(x.shape[0], -1, -1)  # (B, K, C)
        for _ in range(self.iterations):
            z = (features @ mu.mT).to(wide).softmax(dim=-1)  # (B, N, K)
            means = F.normalize(z, p=1, dim=1).mT @ features  # (B, K, C), weighted by z
            mu = F.normalize(means.to(wide), dim=-1)
        return z.to(x.dtype), mu.to(x.dtype)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x) = z, the weight of each basis for each position: (B, C, H, W) -> (B, N, K)."""
        return self.fit(x)[0]

    def move_bases(self) -> None:
        """Move `bases` towards those of the last training batch; call it once a step, after backward.

        A batch that was empty or led to NaN leaves them where they are.
        """
        if self.fitted is not None and self.fitted.isfinite().all():
            self.bases.lerp_(self.fitted.to(self.bases), 1 - self.momentum)
        self.fitted = None

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x); in training, also note the mean bases: (B, C, H, W) -> (B, C, H, W)."""
        z, mu = self.fit(x)
        if self.training:
            self.fitted = mu.mean(dim=0)  # (K, C)
        rebuilt = (z @ mu).mT.reshape(x.shape)  # (B, C, H, W), of rank K at most
        return F.relu(x + self.expand(F.relu(rebuilt)))


def example(
    B: int = 2, C: int = 16, H: int = 5, W: int = 7, K: int = 6, T: int = 3
) -> tuple[EMAUnit, tuple[Tensor]]:
    """Return a seeded block and its input, a (B, C, H, W) map."""
    torch.manual_seed(0)
    return EMAUnit(C, bases=K, iterations=T).eval(), (torch.randn(B, C, H, W),)


if __name__ == "__main__":
    block, (x,) = example()
    z, mu = block.fit(x)
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    print(f"weights {tuple(z.shape)}, bases {tuple(mu.shape)} of length {mu.norm(dim=-1).mean():.3f}")
    print("share of each basis:", *(f"{share:.3f}" for share in z[0].mean(dim=0)))
