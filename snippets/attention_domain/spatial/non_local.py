"""Non-local block: every position adds a sum over all positions, weighted by how the two features match.

Paper: Xiaolong Wang, Ross Girshick, Abhinav Gupta, Kaiming He, "Non-local Neural Networks", CVPR 2018,
arXiv 1711.07971.
Differs: maps of two dimensions; `W_z` has no bias, because the batch normalisation behind it removes one;
projections start as torch starts them. The released code scales the exponent (`scale`) and pools x itself.
`forward` stores no N x N matrix, whatever the pairwise function.
"""

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

    Args:
        channels: number of channels C.
        mode: pairwise function, one of the four above.
        reduction: ratio r.
        scale: factor of the exponent in the two Gaussians; 1 in the paper, P^-0.5 in the released code.
        subsample: max-pool keys and values by 2 x 2; N' = H W / 4 instead of N' = N = H W.

    Shape:
        - x: (B, C, H, W), any H and W (from 2 on with `subsample`)
        - attention(x): (B, N, N'), queries by keys; only the Gaussian weights of a query sum to one
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `mode` is unknown, a size is below 1, or `reduction` does not divide `channels`.

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
            raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}")
        if channels < 1 or reduction < 1:
            raise ValueError(f"channels {channels} and reduction {reduction} must be at least 1")
        if channels % reduction:
            raise ValueError(f"channels {channels} is not divisible by reduction {reduction}")
        self.mode = mode
        self.scale = scale
        inner = channels // reduction
        embedded = mode != "gaussian"
        self.theta = nn.Conv2d(channels, inner, 1) if embedded else nn.Identity()
        self.phi = nn.Conv2d(channels, inner, 1) if embedded else nn.Identity()
        self.g = nn.Conv2d(channels, inner, 1)
        if mode == "concatenation":
            self.w_f = nn.Linear(2 * inner, 1, bias=False)
        self.pool = nn.MaxPool2d(2) if subsample else nn.Identity()
        self.W_z = nn.Conv2d(inner, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weight of each key for each query: (B, C, H, W) -> (B, N, N')."""
        query, key = _rows(self.theta(x)), _rows(self.pool(self.phi(x)))  # (B, N, P), (B, N', P)
        if self.mode == "concatenation":
            a, b = self._halves(query, key)
            return F.relu(a[:, :, None] + b[:, None]) / b.shape[1]
        scores = query @ key.mT  # (B, N, N')
        if self.mode == "dot_product":
            return scores / scores.shape[-1]
        return (self.scale * scores).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), without the weights themselves: (B, C, H, W) -> (B, C, H, W)."""
        query, key = _rows(self.theta(x)), _rows(self.pool(self.phi(x)))  # (B, N, P), (B, N', P)
        value = _rows(self.pool(self.g(x)))  # (B, N', P)
        if self.mode == "concatenation":
            y = relu_sum(*self._halves(query, key), value) / value.shape[1]
        elif self.mode == "dot_product":
            y = query @ (key.mT @ value) / value.shape[1]  # P x P is what lies between
        else:
            y = softmax_sum(query, key, value, self.scale)
        y = y.mT.reshape(x.shape[0], -1, *x.shape[2:])  # (B, P, H, W)
        z: Tensor = x + self.norm(self.W_z(y))
        return z

    def _halves(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """w_f . [theta_i, phi_j] = a_i + b_j: (B, N, P), (B, N', P) -> (B, N), (B, N')."""
        w_query, w_key = self.w_f.weight[0].chunk(2)
        return query @ w_query, key @ w_key


def softmax_sum(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Return softmax(scale query key^T) value: (B, N, D), (B, N', D), (B, N', P) -> (B, N, P), P <= D.

    The fused kernel wants an axis of heads and equal widths; otherwise torch falls back to the N x N' matrix.
    """
    wide = F.pad(value, (0, query.shape[-1] - value.shape[-1]))  # (B, N', D)
    y = F.scaled_dot_product_attention(query[:, None], key[:, None], wide[:, None], scale=scale)
    return y[:, 0, :, : value.shape[-1]]


def relu_sum(a: Tensor, b: Tensor, value: Tensor) -> Tensor:
    """Return sum_j relu(a_i + b_j) value_j: (B, N), (B, N'), (B, N', P) -> (B, N, P).

    Key j counts where its threshold -b_j is below a_i. With the keys in order of their thresholds, those
    that count come first, and the sum is a difference of two running sums: O(N log N) instead of O(N^2).
    """
    threshold, order = (-b).sort(dim=1)  # (B, N')
    value = torch.take_along_dim(value, order[..., None], dim=1)  # (B, N', P)
    terms = torch.cat([value, threshold[..., None] * value], dim=-1)  # (B, N', 2 P)
    running = F.pad(terms.cumsum(dim=1), (0, 0, 1, 0))  # (B, 1 + N', 2 P), begins with the sum of no key
    count = torch.searchsorted(threshold, a)  # (B, N), keys with threshold < a_i
    values, weighted = torch.take_along_dim(running, count[..., None], dim=1).chunk(2, dim=-1)
    return a[..., None] * values - weighted


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


if __name__ == "__main__":
    block, (x,) = example()
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    for mode in MODES:
        weights = NonLocalBlock(16, mode).attention(x)
        low, high = weights.sum(dim=-1).aminmax()
        print(f"{mode:17}  smallest weight {weights.min():6.3f}, rows sum to {low:6.3f} ... {high:.3f}")
