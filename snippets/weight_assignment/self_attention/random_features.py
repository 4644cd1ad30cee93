"""Random features: the weights of softmax are estimated, so that a state of fixed size holds the past.

Paper: Krzysztof Choromanski, Valerii Likhosherstov, David Dohan, Xingyou Song, Andreea Gane, Tamas Sarlos,
Peter Hawkins, Jared Davis, Afroz Mohiuddin, Lukasz Kaiser, David Belanger, Lucy Colwell, Adrian Weller,
"Rethinking Attention with Performers", ICLR 2021, arXiv 2009.14794.
Code: performer-pytorch 1.1.4, performer_pytorch/performer_pytorch.py.
Differs: the signs of the QR decomposition are repaired, without which the estimate is biased. The code
subtracts a maximum over all keys, later ones too, and adds 1e-4 to each feature; here each feature keeps the
logarithm of its sum over the keys so far, and nothing is added. Only `reset_parameters` draws anew. Start
values are those of `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import math
import operator
from typing import NamedTuple

import torch
from torch import Tensor, nn


class PerformerState(NamedTuple):
    """What a layer keeps, however many tokens it has read; in float32 at least.

    Attributes:
        mean: (B, heads, m, d), for each feature the mean of the values, weighted by this feature of the keys.
        log_sum: (B, heads, m), the logarithm of the sum of these weights.
    """

    mean: Tensor
    log_sum: Tensor


def directions(features: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Draw normal vectors that are orthogonal to each other in blocks of `dim`: (features, dim).

    `torch.linalg.qr` gives the diagonal of R signs of its own choice. Without their repair the first number
    of each block would never be positive, so that not all directions would be as likely:

    >>> _ = torch.manual_seed(0)
    >>> drawn = torch.stack([directions(2, 2) for _ in range(1000)])
    >>> (drawn[:, 0] * drawn[:, 1]).sum(dim=1).abs().max().item() < 1e-5
    True
    >>> round(drawn[:, 0, 0].gt(0).double().mean().item(), 1)
    0.5
    """
    blocks = torch.randn(math.ceil(features / dim), dim, dim, device=device)
    q, r = torch.linalg.qr(blocks)
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]
    lengths = torch.randn(features, dim, device=device).norm(dim=1, keepdim=True)
    drawn: Tensor = lengths * q.flatten(0, 1)[:features]
    return drawn


class PerformerAttention(nn.Module):
    """Causal self-attention with a random estimate of the weights of softmax.

    With q and k divided by d^(1/4), exp(q · k) is the mean over normal vectors w of exp(w · q - |q|^2 / 2)
    times exp(w · k - |k|^2 / 2). g(x) is the mean over m of them, divided by its sum over the keys up to the
    query's own; f(g, x) = concat(g V) W_O.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E into heads of width d.
        num_features: number m of vectors, the same for all heads; None for d ln d.
        chunk_size: how many tokens are compared pair by pair; changes time and memory, not the result.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - mask: (B, T), bool, True = a token, False = padding, which is neither read nor answered
        - state: a `PerformerState`, or None at the start
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim`, `x` is not (B, T, E), `mask`
            is not (B, T), or `state` is not one that fits this layer, `x` and its dtype.
        TypeError: `mask` is not bool.

    Weights are positive and rows sum to one:

    >>> layer, (x,) = example()
    >>> weights = layer.attention(x)
    >>> bool((weights >= 0).all()), torch.allclose(weights.sum(dim=-1), torch.tensor(1.0))
    (True, True)

    A token that later tokens dwarf keeps its output, to the last bit:

    >>> x[:, 7:] *= 1000
    >>> torch.equal(layer(x)[:, :7], layer(x[:, :7]))
    True
    """

    projection: Tensor

    def __init__(
        self, embed_dim: int, num_heads: int, num_features: int | None = None, chunk_size: int = 8
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or chunk_size < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, num_heads {num_heads} and chunk_size {chunk_size} must be at least 1"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        dim = embed_dim // num_heads
        if num_features is None:
            num_features = max(1, int(dim * math.log(dim)))
        if num_features < 1:
            raise ValueError(f"num_features {num_features} must be at least 1")
        self.num_heads, self.chunk_size = operator.index(num_heads), operator.index(chunk_size)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.register_buffer("projection", torch.empty(num_features, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors. In training this is done again from time to time."""
        m, d = self.projection.shape
        self.projection.copy_(directions(m, d, self.projection.device))

    def attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g(x), the weights that the layer never makes: (B, T, E) -> (B, heads, T, T)."""
        log_q, log_k, _ = self._project(x, mask)
        estimates = [(q[..., None, :] + log_k[:, :, None]).logsumexp(dim=-1) for q in log_q.split(64, dim=2)]
        visible = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        if mask is not None:
            visible = visible & mask[:, None, None] & mask[:, None, :, None]
        scores = torch.cat(estimates, dim=2).masked_fill(~visible, _lowest(log_q))
        return scores.softmax(dim=-1).masked_fill(~visible, 0).to(x.dtype)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        return self.step(x, mask=mask)[0]

    def step(
        self, x: Tensor, state: PerformerState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, PerformerState]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        log_q, log_k, v = self._project(x, mask)
        state = _start(log_k, v) if state is None else _checked(state, log_k, v)
        if mask is not None:
            log_k = log_k.masked_fill(~mask[:, None, :, None], -torch.inf)
        read = []
        for chunk in zip(*(t.split(self.chunk_size, dim=2) for t in (log_q, log_k, v)), strict=True):
            out, state = _read(chunk, state)
            read.append(out)
        heads = torch.cat(read, dim=2).transpose(1, 2).flatten(2).to(x.dtype)  # (B, T, E)
        if mask is not None:
            heads = heads.masked_fill(~mask[..., None], 0)
        return self.out_proj(heads), state

    def _project(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return logarithms of features (B, heads, T, m) and values (B, heads, T, d), in float32 at least."""
        _check_tokens(x, mask)
        wide = torch.promote_types(x.dtype, torch.float32)
        q, k, v = (
            proj(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2).to(wide)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (t * t.shape[-1] ** -0.25 for t in (q, k))
        with _exact(x):
            log_q, log_k = (t @ self.projection.to(wide).mT for t in (q, k))
        log_k = (
            log_k - k.square().sum(dim=-1, keepdim=True) / 2
        )  # |q|^2 / 2 is the same for all keys: cancels
        return log_q, log_k, v


def _read(chunk: tuple[Tensor, Tensor, Tensor], state: PerformerState) -> tuple[Tensor, PerformerState]:
    """Read one chunk of C tokens: features weigh the keys so far, queries weigh the features."""
    log_q, log_k, v = chunk
    C = log_k.shape[2]
    if not C:
        return v, state
    later = torch.ones(C, C, dtype=torch.bool, device=log_k.device).triu(1)
    keys = log_k[:, :, None].masked_fill(later[..., None], -torch.inf)  # (B, heads, C, C, m)
    past = state.log_sum[:, :, None, None].expand(*keys.shape[:3], 1, -1)  # what was read counts as one key
    keys = torch.cat([past, keys], dim=3)  # (B, heads, C, 1 + C, m)
    log_sum = keys.logsumexp(dim=3)  # (B, heads, C, m)
    shares = (keys - log_sum[:, :, :, None]).exp()  # of each key in a feature; sum to one
    features = (log_q + log_sum).softmax(dim=-1)  # of each feature in an answer; sum to one
    with _exact(v):
        weights = (shares[:, :, :, 1:] @ features[..., None]).squeeze(-1)  # (B, heads, C, C)
        out = (features * shares[:, :, :, 0]) @ state.mean + weights @ v
        mean = shares[:, :, -1, 0, :, None] * state.mean + shares[:, :, -1, 1:].mT @ v
    return out, PerformerState(mean, log_sum[:, :, -1])


def _start(log_k: Tensor, v: Tensor) -> PerformerState:
    """Nothing was read: a sum so small that the first key outweighs it, and yet finite."""
    B, heads, _, m = log_k.shape
    return PerformerState(v.new_zeros(B, heads, m, v.shape[-1]), v.new_full((B, heads, m), _lowest(v)))


def _exact(x: Tensor) -> torch.autocast:
    """Keep autocast from rounding the factors of products; it knows no device `meta`."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


def _lowest(x: Tensor) -> float:
    return torch.finfo(x.dtype).min / 2


def _checked(state: PerformerState, log_k: Tensor, v: Tensor) -> PerformerState:
    """Refuse a state that cannot be of the layer with these features and values."""
    if not isinstance(state, PerformerState):
        raise ValueError(f"state {type(state).__name__} must be a PerformerState")
    B, heads, _, m = log_k.shape
    for name, wanted in (("mean", (B, heads, m, v.shape[-1])), ("log_sum", (B, heads, m))):
        kept = getattr(state, name)
        if kept.shape != wanted or kept.dtype != v.dtype:
            letters = "(B, heads, m, d)" if name == "mean" else "(B, heads, m)"
            raise ValueError(
                f"state {name} {tuple(kept.shape)} of {kept.dtype} must be {letters} = {wanted} of {v.dtype}"
            )
    return state


def _check_tokens(x: Tensor, mask: Tensor | None) -> None:
    if x.dim() != 3:
        raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = a token, not {mask.dtype}")
    if mask.shape != x.shape[:2]:
        raise ValueError(f"mask {tuple(mask.shape)} must be (B, T) = {tuple(x.shape[:2])}")


def example(
    B: int = 2, T: int = 10, E: int = 24, heads: int = 3, m: int = 9, chunk: int = 4
) -> tuple[PerformerAttention, tuple[Tensor]]:
    """Return a seeded layer of m features and its input: B sequences of T tokens, E wide, in chunks."""
    torch.manual_seed(0)
    return PerformerAttention(E, heads, m, chunk_size=chunk).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    mask = torch.arange(x.shape[1]) < torch.arange(x.shape[1], x.shape[1] - x.shape[0], -1)[:, None]
    ragged = PerformerAttention(x.shape[2], layer.num_heads, chunk_size=5).eval()
    return {"padding": (layer, (x, mask)), "ragged": (ragged, (x,))}


if __name__ == "__main__":
    layer, (x,) = example()
    y, state = layer.step(x[:, :7])
    rest, _ = layer.step(x[:, 7:], state)
    print(f"state of {sum(part[0].numel() for part in state)} numbers after 7 tokens, as after 7000")
    print(f"in two pieces as in one: {(torch.cat([y, rest], dim=1) - layer(x)).abs().max():.1e}")
