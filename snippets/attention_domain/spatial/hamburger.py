"""Hamburger: the feature map is rebuilt from a few patterns, which are found anew for each input.

Paper: Zhengyang Geng, Meng-Hao Guo, Hongxu Chen, Xia Li, Ke Wei, Zhouchen Lin, "Is Attention Better Than
Matrix Decomposition?", ICLR 2021, arXiv 2109.04553.
Differs: the search starts from one drawing that is kept in a buffer; the released code draws anew in every
forward pass, at inference too. That code has a ReLU behind the addition, and options left out here: several
heads, patterns that are carried from batch to batch, another convolution before the upper one.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Ham(nn.Module):
    """Decomposition X = D C^T in K rounds, each of which improves bases D and codes C.

    The gradient sees one more step, `encode`, in which D and the C before it are constants; the rounds are
    not differentiated, unless `one_step` is false.

    Shape:
        - x: (B, d, N)
        - output: D (B, d, R) and C (B, N, R)
    """

    non_negative = False
    bases: Tensor

    def __init__(self, width: int, rank: int, steps: int, one_step: bool) -> None:
        super().__init__()
        self.steps = steps
        self.one_step = one_step
        bases = torch.rand(width, rank) if self.non_negative else torch.randn(width, rank)
        self.register_buffer("bases", F.normalize(bases, dim=0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return D and C: (B, d, N) -> (B, d, R), (B, N, R)."""
        with torch.no_grad() if self.one_step else nullcontext():
            bases = self.bases.expand(x.shape[0], -1, -1)  # (B, d, R)
            codes = (x.mT @ bases).softmax(dim=-1)  # (B, N, R)
            for _ in range(self.steps):
                bases, codes = self.improve(x, bases, codes)
        return bases, self.encode(x, bases, codes)

    def improve(self, x: Tensor, bases: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return better D and C: (B, d, N), (B, d, R), (B, N, R) -> (B, d, R), (B, N, R)."""
        raise NotImplementedError

    def encode(self, x: Tensor, bases: Tensor, codes: Tensor) -> Tensor:
        """Return a better C for the same D: (B, d, N), (B, d, R), (B, N, R) -> (B, N, R)."""
        raise NotImplementedError


class NMF(Ham):
    """Non-negative matrix factorisation by multiplicative updates: X, D and C have no negative entry."""

    non_negative = True

    def improve(self, x: Tensor, bases: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Update C for the old D, then D for the new C."""
        codes = self.encode(x, bases, codes)
        return bases * (x @ codes) / (bases @ (codes.mT @ codes) + 1e-6), codes

    def encode(self, x: Tensor, bases: Tensor, codes: Tensor) -> Tensor:
        """Update C."""
        return codes * (x.mT @ bases) / (codes @ (bases.mT @ bases) + 1e-6)


class VQ(Ham):
    """Vector quantisation, a soft k-means by angle: C = softmax(100 cos(x, d)), D = means weighted by C."""

    def improve(self, x: Tensor, bases: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Let each position vote for the patterns; each pattern becomes the mean of its voters."""
        codes = self.vote(F.normalize(x, dim=1), bases)
        return x @ (codes / (codes.sum(dim=1, keepdim=True) + 1e-6)), codes

    def encode(self, x: Tensor, bases: Tensor, codes: Tensor) -> Tensor:
        """Vote once more; for the gradient, the length of x is a constant."""
        return self.vote(x / (x.detach().norm(dim=1, keepdim=True) + 1e-6), bases)

    def vote(self, directions: Tensor, bases: Tensor) -> Tensor:
        """Divide one vote of each position among the patterns: (B, d, N), (B, d, R) -> (B, N, R)."""
        cosines = directions.mT @ F.normalize(bases, dim=1, eps=1e-6)  # (B, N, R)
        return (100 * cosines).softmax(dim=-1)


class CD(VQ):
    """Concept decomposition: D as in VQ but of length one; C minimises |X - D C^T|^2 + 0.1 |C|^2."""

    def improve(self, x: Tensor, bases: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Vote as in VQ, then scale each pattern to length one."""
        bases, codes = super().improve(x, bases, codes)
        return F.normalize(bases, dim=1, eps=1e-6), codes

    def encode(self, x: Tensor, bases: Tensor, codes: Tensor) -> Tensor:
        """Return X^T D (D^T D + 0.1 I)^-1."""
        gram = bases.mT @ bases + 0.1 * torch.eye(bases.shape[2], dtype=x.dtype, device=x.device)
        solution: Tensor = torch.linalg.solve(gram, x.mT @ bases, left=False)
        return solution


HAMS: dict[str, type[Ham]] = {"nmf": NMF, "vq": VQ, "cd": CD}


class Hamburger(nn.Module):
    """A matrix decomposition ("ham") between two 1 x 1 convolutions ("bread").

    g(x) = C, how much of each of R patterns D is at each position; f(g, x) = x + BN(W_u D C^T).

    Args:
        channels: number of channels C.
        width: channels d between the convolutions.
        rank: number of patterns R.
        steps: rounds K of the decomposition.
        ham: "nmf" (with a ReLU before it), "vq" or "cd".
        one_step: whether the gradient sees the last step only; otherwise it goes back through all rounds.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, N, R), the codes; none negative with "nmf", rows sum to one with "vq"
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: a size is below 1, or `ham` is unknown.

    The 64 x 140 matrix D C^T has rank R, and each further round brings it closer to what is decomposed:

    >>> block, (x,) = example()
    >>> z = block.lower(x).flatten(2)
    >>> bases, codes = block.ham(z)
    >>> torch.linalg.matrix_rank(bases @ codes.mT, rtol=1e-5).tolist()
    [8, 8]
    >>> errors = []
    >>> for block.ham.steps in range(7):
    ...     bases, codes = block.ham(z)
    ...     errors.append((z - bases @ codes.mT).norm().item())
    >>> errors == sorted(errors, reverse=True), errors[6] < 0.9 * errors[0]
    (True, True)
    """

    def __init__(
        self,
        channels: int,
        width: int,
        rank: int = 64,
        steps: int = 6,
        ham: str = "nmf",
        one_step: bool = True,
    ) -> None:
        super().__init__()
        if min(channels, width, rank, steps) < 1:
            raise ValueError(
                f"channels {channels}, width {width}, rank {rank} and steps {steps} must be at least 1"
            )
        if ham not in HAMS:
            raise ValueError(f"ham {ham!r} is not one of {', '.join(HAMS)}")
        self.lower = nn.Sequential(
            nn.Conv2d(channels, width, 1), nn.ReLU() if HAMS[ham].non_negative else nn.Identity()
        )
        self.ham = HAMS[ham](width, rank, steps, one_step)
        self.upper = nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the codes: (B, C, H, W) -> (B, N, R)."""
        codes: Tensor = self.ham(self.lower(x).flatten(2))[1]
        return codes

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x): (B, C, H, W) -> (B, C, H, W)."""
        z = self.lower(x).flatten(2)  # (B, d, N)
        bases, codes = self.ham(z)  # (B, d, R), (B, N, R)
        z = bases @ codes.mT  # (B, d, N), of rank R
        out: Tensor = x + self.upper(z.unflatten(2, x.shape[2:]))
        return out


def example(
    B: int = 2, C: int = 32, H: int = 14, W: int = 10, d: int = 64, R: int = 8, K: int = 6
) -> tuple[Hamburger, tuple[Tensor]]:
    """Return a seeded block and a (B, C, H, W) map."""
    torch.manual_seed(0)
    return Hamburger(C, d, rank=R, steps=K).eval(), (torch.randn(B, C, H, W),)


if __name__ == "__main__":
    block, (x,) = example()
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}, codes {tuple(block.attention(x).shape)}")
    z = block.lower(x).flatten(2)
    for block.ham.steps in (1, 6, 36):
        bases, codes = block.ham(z)
        error = (z - bases @ codes.mT).norm() / z.norm()
        print(f"{block.ham.steps:2} rounds: rank {codes.shape[2]} leaves out {error:.3f} of the whole")
