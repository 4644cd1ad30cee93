"""Generalized attention: four factors, each on or off, decide what a query position reads.

Paper: Xizhou Zhu, Dazhi Cheng, Zheng Zhang, Stephen Lin, Jifeng Dai, "An Empirical Study of Spatial Attention
Mechanisms in Deep Networks", ICCV 2019, arXiv 1904.05873.
Code: open-mmlab/mmcv, version 2.2.0, mmcv/cnn/bricks/generalized_attention.py, by the authors.
Differs: projections start as torch starts them, in mmcv uniformly up to sqrt(3 / inputs), biases at zero. The
weights keep one row if no factor asks for the query, and one sample if no factor asks for the input. mmcv has
`stride=2` and an offset with the opposite sign, and computes factor 2 without factor 4 wrongly.
SPDX-License-Identifier: MIT
"""

import operator

import torch
from torch import Tensor, nn


class GeneralizedAttention(nn.Module):
    """Multi-head attention between positions of a map, from any subset of four factors.

    Position q asks position k, in each head, with z_q = the query of q and R = sinusoids of the offset k - q:
    - E1 = z_q . key_k         query content and key content
    - E2 = z_q . (V_R R_k-q)   query content and relative position
    - E3 = u . key_k           key content only
    - E4 = v . (V_R R_k-q)     relative position only

    g(x) = softmax over k of the sum of the chosen factors; f(g, x) = x + gamma * proj(g(x) value).
    The block starts as the identity: gamma is zero.

    Args:
        channels: number of channels C.
        num_heads: number of heads M, each of d = C / M channels.
        factors: four digits, "1" for each factor that takes part, E1 first; "0010" is E3 alone.
        stride: keys and values are taken from every `stride`-th row and column.

    Shape:
        - x: (B, C, H, W), any H and W; N = H W queries, N' = ceil(H / stride) ceil(W / stride) keys
        - attention(x): (B, M, N, N'), rows sum to one; (B, M, 1, N') for E3 alone, (1, M, N, N') for E4 alone
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `factors` is not four digits 0 or 1 with at least one 1, a size is below 1, `channels` is
            not divisible by `num_heads` and by 4 (sine and cosine, in x and in y), or x is not (B, C, H, W).

    E3 has no query: one row of weights serves all, and every position gets the same added.

    >>> block, (x,) = example()
    >>> keys_only = GeneralizedAttention(24, 4, factors="0010")
    >>> _ = nn.init.ones_(keys_only.gamma)
    >>> keys_only.attention(x).shape[2], (keys_only(x) - x).flatten(2).std(dim=2).max().item() < 1e-6
    (1, True)

    E4 sees offsets only: the query one column to the right has the same scores one column to the right.

    >>> score = GeneralizedAttention(24, 4, factors="0001").scores(x)[0, 0].view(5, 7, 5, 7)
    >>> torch.allclose(score[2, 3, :, 1:], score[2, 2, :, :-1], atol=1e-6)
    True
    """

    def __init__(self, channels: int, num_heads: int = 8, factors: str = "1111", stride: int = 1) -> None:
        super().__init__()
        if channels < 1 or num_heads < 1 or stride < 1:
            raise ValueError(
                f"channels {channels}, num_heads {num_heads} and stride {stride} must be at least 1"
            )
        if channels % num_heads or channels % 4:
            raise ValueError(f"channels {channels} must be divisible by num_heads {num_heads} and 4")
        if len(factors) != 4 or set(factors) - set("01") or "1" not in factors:
            raise ValueError(f"factors {factors!r} must hold four digits, 0 or 1, and a 1 among them")
        self.num_heads = operator.index(num_heads)
        self.stride = operator.index(stride)
        self.e1, self.e2, self.e3, self.e4 = (digit == "1" for digit in factors)
        if self.e1 or self.e2:
            self.query = nn.Conv2d(channels, channels, 1, bias=False)
        if self.e1 or self.e3:
            self.key = nn.Conv2d(channels, channels, 1, bias=False)
        if self.e2 or self.e4:
            self.position_x = nn.Linear(channels // 2, channels, bias=False)
            self.position_y = nn.Linear(channels // 2, channels, bias=False)
        if self.e3:
            self.u = nn.Parameter(torch.empty(num_heads, 1, channels // num_heads))
        if self.e4:
            self.v = nn.Parameter(torch.empty(num_heads, 1, channels // num_heads))
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.proj = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the identity, with u and v drawn as in the authors' code."""
        nn.init.zeros_(self.gamma)
        for name in ["u"] * self.e3 + ["v"] * self.e4:
            vector = getattr(self, name)
            limit = (2 * vector.shape[2]) ** -0.5
            nn.init.uniform_(vector, -limit, limit)

    def scores(self, x: Tensor) -> Tensor:
        """Return the sum of the chosen factors, shaped like the weights: (B, C, H, W) -> (B, M, N, N')."""
        if x.dim() != 4:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W)")
        total, *content = self._terms(x)
        for term in content:
            total = total.add_(term) if self.e2 else total + term  # E2 is as large as the result
        return total.flatten(4).flatten(2, 3)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weight of each key for each query: (B, C, H, W) -> (B, M, N, N')."""
        return self.scores(x).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x): (B, C, H, W) -> (B, C, H, W)."""
        weights = self.attention(x)  # (B, M, N or 1, N')
        value = self._heads(self.value(self._sample(x)))  # (B, M, H', W', d)
        y = weights @ value.flatten(2, 3)  # (B, M, N or 1, d)
        y = self.proj(y.mT.flatten(1, 2)[..., None])[..., 0]  # (B, C, N or 1)
        z: Tensor = x.flatten(2) + self.gamma * y
        return z.reshape(x.shape)

    def _terms(self, x: Tensor) -> list[Tensor]:
        """Return what is added up, each of a shape that broadcasts to (B, M, H, W, H', W').

        E2 + E4 = (z_q + v) . (V_R R_k-q), a part for x plus a part for y, and E1 + E3 = (z_q + u) . key_k.
        """
        of_content, of_position = [], []  # what asks, of shapes that broadcast to (B, M, H, W, d)
        if self.e1 or self.e2:
            query = self._heads(self.query(x))  # (B, M, H, W, d)
            of_content += [query] if self.e1 else []
            of_position += [query] if self.e2 else []
        if self.e3:
            of_content.append(self.u[None, :, None])
        if self.e4:
            of_position.append(self.v[None, :, None])
        terms = []
        if of_position:
            columns = self._offsets(self.position_x, x.shape[3], x)  # (W, W', M, d)
            rows = self._offsets(self.position_y, x.shape[2], x)  # (H, H', M, d)
            of_columns = torch.einsum("bmhwd,wjmd->bmhwj", sum(of_position), columns).contiguous()
            of_rows = torch.einsum("bmhwd,himd->bmhwi", sum(of_position), rows).contiguous()
            terms.append(of_columns[..., None, :] + of_rows[..., :, None])
        if of_content:
            key = self._heads(self.key(self._sample(x)))  # (B, M, H', W', d)
            terms.append(torch.einsum("bmhwd,bmijd->bmhwij", sum(of_content), key))
        return terms

    def _offsets(self, layer: nn.Linear, size: int, x: Tensor) -> Tensor:
        """V_R R of one axis, for each offset k - q: (size, size', M, d)."""
        exact = torch.promote_types(x.dtype, torch.float32)  # half precision is too coarse for angles
        position = torch.arange(size, device=x.device, dtype=exact)
        offset = position[:: self.stride] - position[:, None]  # (size, size')
        quarter = x.shape[1] // 4
        frequency = 1000 ** (-torch.arange(quarter, device=x.device, dtype=exact) / quarter)
        angle = offset[..., None] * frequency  # (size, size', C / 4)
        waves = torch.cat([angle.sin(), angle.cos()], dim=-1) / 2**0.5  # (size, size', C / 2)
        projected: Tensor = layer(waves.to(x.dtype))
        return projected.view(size, -1, self.num_heads, x.shape[1] // self.num_heads)

    def _sample(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W')."""
        return x[:, :, :: self.stride, :: self.stride]

    def _heads(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, M, H, W, d)."""
        return torch.unflatten(x, 1, (self.num_heads, -1)).movedim(2, -1)


def example(
    B: int = 2, C: int = 24, H: int = 5, W: int = 7, heads: int = 4
) -> tuple[GeneralizedAttention, tuple[Tensor]]:
    """Return a seeded block, gamma set to one so that it adds something, and a (B, C, H, W) map."""
    torch.manual_seed(0)
    block = GeneralizedAttention(C, heads).eval()
    nn.init.ones_(block.gamma)
    return block, (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[GeneralizedAttention, tuple[Tensor]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    block, (x,) = example(**sizes)

    def other(factors: str, stride: int = 1) -> tuple[GeneralizedAttention, tuple[Tensor]]:
        made = GeneralizedAttention(x.shape[1], block.num_heads, factors, stride).eval()
        nn.init.ones_(made.gamma)
        return made, (x,)

    alone = {f"e{n + 1}": other("0" * n + "1" + "0" * (3 - n)) for n in range(4)}
    return {**alone, "stride": other("1111", stride=2)}


if __name__ == "__main__":
    _, (x,) = example()
    for factors in ("1000", "0100", "0010", "0001", "1111"):
        block = GeneralizedAttention(24, 4, factors)
        parameters = sum(parameter.numel() for parameter in block.parameters())
        print(f"{factors}: {parameters:4} parameters, weights {tuple(block.attention(x).shape)}")
