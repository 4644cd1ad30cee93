"""Non-local block: every position adds a sum over all positions, weighted by how the two features match.

Paper: Xiaolong Wang, Ross Girshick, Abhinav Gupta, Kaiming He, "Non-local Neural Networks", CVPR 2018,
arXiv 1711.07971.
Code: facebookresearch/video-nonlocal-net, c253ed5, lib/models/nonlocal_helper.py (Caffe2: read, not run).
Differs: maps of two dimensions; `W_z` has no bias, because the batch normalisation behind it removes one;
convolutions start as torch starts them (paper: He's method; released code: N(0, 0.01^2) and biases of zero).
The released code scales the exponent (`scale`) and pools x itself. `forward` stores no N x N matrix, whatever
the pairwise function.
SPDX-License-Identifier: MIT
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


class NonLocalBlock(nn.Module):
    """Non-local block in two dimensions (section 3, equations 1 to 6) with P = C / r inner channels.

    g(x) = the weights a_ij of all pairs of positions; f(g, x)_i = x_i + W_z sum_j a_ij g_j.
    - gaussian: a_ij = exp(x_i . x_j), divided by its sum over j
    - embedded_gaussian: a_ij = exp(theta_i . phi_j), divided by its sum over j
    - dot_product: a_ij = theta_i . phi_j / N'
    - concatenation: a_ij = relu(w_f . [theta_i, phi_j]) / N'

    The block starts as the identity: the batch normalisation behind `W_z` has weight zero.

    Second derivatives and forward mode of the Gaussians need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Args:
        channels: number of channels C.
        mode: pairwise function, one of the four above.
        reduction: ratio r.
        scale: factor of the exponent in the two Gaussians; 1 in the paper, P^-0.5 in the released code.
        subsample: max-pool keys and values by 2 x 2, but no side of one; N' = H W / 4, not N' = N = H W.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, N, N'), queries by keys; only the Gaussian weights of a query sum to one
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `mode` is unknown, a size is below 1, `reduction` does not divide `channels`, `scale` is
            not finite, or x has another number of dimensions.

    >>> block, (x,) = example()
    >>> torch.equal(NonLocalBlock(16)(x), x)
    True

    Without query weights no query has a preference, and a softmax gives each of 10 x 12 keys 1 / 120:

    >>> _ = block.theta.weight.data.zero_(), block.theta.bias.data.zero_()
    >>> [round(1 / weight.item(), 3) for weight in block.attention(x).aminmax()]
    [120.0, 120.0]

    A dot product is no softmax: its weights may be negative and sum to anything.

    >>> weights = NonLocalBlock(16, mode="dot_product").attention(x)
    >>> bool((weights < 0).any()), bool(weights.sum(-1).std() > 0.01)
    (True, True)
    """

    def __init__(
        self,
        channels: int,
        mode: str = "embedded_gaussian",
        reduction: int = 2,
        scale: float = 1.0,
        subsample: bool = False,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        if channels < 1 or reduction < 1:
            raise ValueError(f"channels {channels} and reduction {reduction} must be at least 1")
        if channels % reduction:
            raise ValueError(f"channels {channels} must be divisible by reduction {reduction}")
        if not math.isfinite(scale):
            raise ValueError(f"scale {scale} must be finite")
        self.mode = mode
        self.scale = scale
        self.subsample = subsample
        inner = channels // reduction
        embedded = mode != "gaussian"
        self.theta = nn.Conv2d(channels, inner, 1) if embedded else nn.Identity()
        self.phi = nn.Conv2d(channels, inner, 1) if embedded else nn.Identity()
        self.g = nn.Conv2d(channels, inner, 1)
        if mode == "concatenation":
            self.w_f = nn.Linear(2 * inner, 1, bias=False)
        self.W_z = nn.Conv2d(inner, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight of the normalisation to zero, so that the block is the identity."""
        nn.init.zeros_(self.norm.weight)

    def pool(self, x: Tensor) -> Tensor:
        """Return the maxima of 2 x 2 windows, if `subsample`: (B, P, H, W) -> (B, P, H / 2, W / 2)."""
        return F.max_pool2d(x, (min(2, x.shape[2]), min(2, x.shape[3]))) if self.subsample else x

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weight of each key for each query: (B, C, H, W) -> (B, N, N')."""
        query, key = self._compared(x)  # (B, N, P), (B, N', P)
        if self.mode == "concatenation":
            a, b = self._halves(query, key)
            return F.relu(a[:, :, None] + b[:, None]) / b.shape[1]
        if self.mode == "dot_product":
            root: float = key.shape[1] ** -0.5  # half of 1 / N' on each side keeps float16 in its range
            return (root * query) @ (root * key).mT
        return (self.scale * _scores(query, key)).softmax(dim=-1).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), without the weights themselves: (B, C, H, W) -> (B, C, H, W)."""
        query, key = self._compared(x)  # (B, N, P), (B, N', P)
        value = _rows(self.pool(self.g(x)))  # (B, N', P)
        if self.mode == "concatenation":
            y = relu_mean(*self._halves(query, key), value)
        elif self.mode == "dot_product":
            root: float = key.shape[1] ** -0.5
            y = query @ ((root * key).mT @ (root * value))  # P x P is what lies between
        else:
            y = softmax_sum(query, key, value, self.scale)
        y = y.mT.reshape(*y.mT.shape[:2], *x.shape[2:])  # (B, P, H, W)
        z: Tensor = x + self.norm(self.W_z(y))
        return z

    def _compared(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys: (B, C, H, W) -> (B, N, P), (B, N', P)."""
        if x.dim() != 4:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W)")
        return _rows(self.theta(x)), _rows(self.pool(self.phi(x)))

    def _halves(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """w_f . [theta_i, phi_j] = a_i + b_j: (B, N, P), (B, N', P) -> (B, N), (B, N')."""
        zeros = query.shape[-1]
        a, b = self.w_f(F.pad(query, (0, zeros))), self.w_f(F.pad(key, (zeros, 0)))  # (B, N, 1), (B, N', 1)
        return a[..., 0], b[..., 0]


def softmax_sum(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Return softmax(scale query key^T) value: (B, N, D), (B, N', D), (B, N', P) -> (B, N, P).

    The fused kernel wants an axis of heads and equal widths; otherwise torch falls back to the N x N' matrix,
    as it does for P > D, which the block does not have.
    """
    wide = F.pad(value, (0, max(0, query.shape[-1] - value.shape[-1])))  # (B, N', D)
    y = F.scaled_dot_product_attention(query[:, None], key[:, None], wide[:, None], scale=scale)
    return y[:, 0, :, : value.shape[-1]]


def relu_mean(a: Tensor, b: Tensor, value: Tensor) -> Tensor:
    """Return the mean over j of relu(a_i + b_j) value_j: (B, N), (B, N'), (B, N', P) -> (B, N, P).

    Key j counts where its threshold -b_j is below a_i. With the keys in order of their thresholds, those
    that count come first, and the sum is a difference of two running sums: O(N log N) instead of O(N^2).
    Differences of long sums need float32 at least.
    """
    if b.shape != value.shape[:2]:
        raise ValueError(f"value {tuple(value.shape)} must be (B, N', P) with B and N' of b {tuple(b.shape)}")
    wide = torch.promote_types(value.dtype, torch.float32)
    a, (threshold, order) = a.to(wide), (-b).to(wide).sort(dim=1)  # (B, N), (B, N') twice
    ordered = value.to(wide).gather(1, order[..., None].expand_as(value)) / b.shape[1]  # (B, N', P)
    terms = torch.cat([ordered, threshold[..., None] * ordered], dim=-1)  # (B, N', 2 P)
    running = F.pad(terms.cumsum(dim=1), (0, 0, 1, 0))  # (B, 1 + N', 2 P), begins with the sum of no key
    count = torch.searchsorted(threshold, a)  # (B, N), keys with threshold < a_i
    read = running.gather(1, count[..., None].expand(-1, -1, running.shape[-1]))  # (B, N, 2 P)
    values, weighted = read.chunk(2, dim=-1)
    return (a[..., None] * values - weighted).to(value.dtype)


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """Return query . key in float32 at least: (B, N, P), (B, N', P) -> (B, N, N').

    Queries are divided by 256 before the product, so that float16 has room for scores beyond 65504.
    """
    return 256 * (query / 256 @ key.mT).to(torch.promote_types(query.dtype, torch.float32))


def _rows(x: Tensor) -> Tensor:
    """(B, P, H, W) -> (B, N, P), the features of a position side by side in memory."""
    return x.flatten(2).mT.contiguous()


def example(
    B: int = 3, C: int = 16, H: int = 10, W: int = 12, r: int = 2
) -> tuple[NonLocalBlock, tuple[Tensor]]:
    """Return a seeded block, its last norm set to one so that it adds something, and a (B, C, H, W) map."""
    torch.manual_seed(0)
    block = NonLocalBlock(C, reduction=r).eval()
    nn.init.ones_(block.norm.weight)
    return block, (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    C, r = x.shape[1], sizes.get("r", 2)
    blocks = {mode: NonLocalBlock(C, mode, r) for mode in MODES if mode != "embedded_gaussian"}
    blocks["scaled_subsampled"] = NonLocalBlock(C, reduction=r, scale=(C // r) ** -0.5, subsample=True)
    for block in blocks.values():
        nn.init.ones_(block.norm.weight)
    return {name: (block.eval(), (x,)) for name, block in blocks.items()}


if __name__ == "__main__":
    block, (x,) = example()
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    for mode in MODES:
        weights = NonLocalBlock(16, mode).attention(x)
        low, high = weights.sum(dim=-1).aminmax()
        print(f"{mode:17}  smallest weight {weights.min():6.3f}, rows sum to {low:6.3f} ... {high:.3f}")
