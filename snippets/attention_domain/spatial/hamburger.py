"""Hamburger: the feature map is rebuilt from a few patterns, which are found anew for each input.

Paper: Zhengyang Geng, Meng-Hao Guo, Hongxu Chen, Xia Li, Ke Wei, Zhouchen Lin, "Is Attention Better Than
Matrix Decomposition?", ICLR 2021, arXiv 2109.04553.
Code: Gsunshine/Enjoy-Hamburger, commit d9b51f6, seg/HamNet/hamburger/burger.py (HamburgerV1) and ham.py.
Differs: the search starts from one drawing that is kept in a buffer; the released code draws anew in every
forward pass, at inference too. That code has a ReLU behind the addition, weights that start with variance
2 / C_out and statistics with momentum 3e-4, here as in torch, and options left out here: several heads,
patterns that are carried from batch to batch, another convolution before the upper one.
SPDX-License-Identifier: MIT
"""

import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Ham(nn.Module):
    """Decomposition X = D C^T in K rounds, each of which improves bases D and codes C.

    The gradient sees one more step, `encode`, in which D and the C before it are constants; the rounds are
    not differentiated, unless `one_step` is false. What is summed over the N positions is divided by N first,
    so that half precision can hold it.

    Shape:
        - x: (B, d, N)
        - output: D (B, d, R) and C (B, N, R)
    """

    non_negative = False
    bases: Tensor

    def __init__(self, width: int, rank: int, steps: int, one_step: bool) -> None:
        super().__init__()
        if min(width, rank, steps) < 1:
            raise ValueError(f"width {width}, rank {rank} and steps {steps} must be at least 1")
        self.steps = operator.index(steps)
        self.one_step = one_step
        self.register_buffer("bases", torch.empty(width, rank))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first patterns anew, each of length one."""
        draw = nn.init.uniform_ if self.non_negative else nn.init.normal_
        self.bases.copy_(F.normalize(draw(self.bases), dim=0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return D and C: (B, d, N) -> (B, d, R), (B, N, R)."""
        z = x.detach() if self.one_step else x
        bases = self.bases.expand(x.shape[0], -1, -1)  # (B, d, R)
        codes = (z.mT @ bases).softmax(dim=-1)  # (B, N, R)
        for _ in range(self.steps):
            bases, codes = self.improve(z, bases, codes)
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
        c = codes / x.shape[2]
        return updated(bases, x @ c, bases @ (codes.mT @ c), 1e-6 / x.shape[2]), codes

    def encode(self, x: Tensor, bases: Tensor, codes: Tensor) -> Tensor:
        """Update C."""
        return updated(codes, x.mT @ bases, codes @ (bases.mT @ bases), 1e-6)


def updated(old: Tensor, above: Tensor, below: Tensor, eps: float) -> Tensor:
    """old * above / (below + eps), in float32 at least: in float16 eps would be zero."""
    wide = torch.promote_types(old.dtype, torch.float32)
    return (old.to(wide) * above.to(wide) / (below.to(wide) + eps)).to(old.dtype)


class VQ(Ham):
    """Vector quantisation, a soft k-means by angle: C = softmax(100 cos(x, d)), D = means weighted by C."""

    def improve(self, x: Tensor, bases: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Let each position vote for the patterns; each pattern becomes the mean of its voters."""
        directions = F.normalize(x, dim=1, eps=max(1e-12, torch.finfo(x.dtype).tiny))
        codes = self.vote(directions, bases)
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
        """Return X^T D (D^T D + 0.1 I)^-1; torch solves in no type below float32."""
        exact = torch.promote_types(x.dtype, torch.float32)
        gram = (bases.mT @ bases).to(exact) + 0.1 * torch.eye(bases.shape[2], dtype=exact, device=x.device)
        solution: Tensor = torch.linalg.solve(gram, (x.mT @ bases).to(exact), left=False)
        return solution.to(x.dtype)


MODES: dict[str, type[Ham]] = {"nmf": NMF, "vq": VQ, "cd": CD}


class Hamburger(nn.Module):
    """A matrix decomposition ("ham") between two 1 x 1 convolutions ("bread").

    g(x) = C, how much of each of R patterns D is at each position; f(g, x) = x + BN(W_u D C^T).

    Args:
        channels: number of channels C.
        width: channels d between the convolutions.
        rank: number of patterns R.
        steps: rounds K of the decomposition.
        mode: "nmf" (with a ReLU before it), "vq" or "cd".
        one_step: whether the gradient sees the last step only; otherwise it goes back through all rounds.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, N, R), the codes; none negative with "nmf", rows sum to one with "vq"
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: a size is below 1, `mode` is unknown, or x is not (B, C, H, W).

    The 64 x 140 matrix D C^T has rank R, and each further round brings it closer to what is decomposed:

    >>> block, (x,) = example()
    >>> z = block.columns(x)
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
        mode: str = "nmf",
        one_step: bool = True,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels {channels} must be at least 1")
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        self.ham = MODES[mode](width, rank, steps, one_step)
        relu = nn.ReLU() if self.ham.non_negative else nn.Identity()
        self.lower = nn.Sequential(nn.Conv2d(channels, width, 1), relu)
        self.upper = nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def columns(self, x: Tensor) -> Tensor:
        """Return the matrix X that is decomposed: (B, C, H, W) -> (B, d, N)."""
        if x.dim() != 4:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W)")
        columns: Tensor = self.lower(x).flatten(2)
        return columns

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the codes: (B, C, H, W) -> (B, N, R)."""
        codes: Tensor = self.ham(self.columns(x))[1]
        return codes

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x): (B, C, H, W) -> (B, C, H, W)."""
        bases, codes = self.ham(self.columns(x))  # (B, d, R), (B, N, R)
        z = bases @ codes.mT  # (B, d, N), of rank R
        out: Tensor = x + self.upper(z.unflatten(2, x.shape[2:]))
        return out


def example(
    B: int = 2, C: int = 32, H: int = 14, W: int = 10, d: int = 64, R: int = 8, K: int = 6
) -> tuple[Hamburger, tuple[Tensor]]:
    """Return a seeded block and a (B, C, H, W) map."""
    torch.manual_seed(0)
    return Hamburger(C, d, rank=R, steps=K).eval(), (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[Hamburger, tuple[Tensor]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    block, (x,) = example(**sizes)
    width, rank = block.ham.bases.shape

    def other(mode: str, steps: int, one_step: bool = True) -> tuple[Hamburger, tuple[Tensor]]:
        return Hamburger(x.shape[1], width, rank, steps, mode, one_step).eval(), (x,)

    return {
        "vq": other("vq", steps=1),  # on noise, each vote so sharp makes rounding errors larger
        "cd": other("cd", steps=block.ham.steps),
        "full_gradient": other("nmf", steps=block.ham.steps, one_step=False),
    }


if __name__ == "__main__":
    block, (x,) = example()
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}, codes {tuple(block.attention(x).shape)}")
    z = block.columns(x)
    for block.ham.steps in (1, 6, 36):
        bases, codes = block.ham(z)
        error = (z - bases @ codes.mT).norm() / z.norm()
        print(f"{block.ham.steps:2} rounds: rank {codes.shape[2]} leaves out {error:.3f} of the whole")
