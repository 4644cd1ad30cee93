"""Linear attention: feature maps in place of the softmax, so that a running sum of fixed size holds the past.

Paper: Angelos Katharopoulos, Apoorv Vyas, Nikolaos Pappas, François Fleuret, "Transformers are RNNs: Fast
Autoregressive Transformers with Linear Attention", ICML 2020, arXiv 2006.16236.
Code: idiap/fast-transformers 2ad36b9 (2023-03), fast_transformers/attention/causal_linear_attention.py.
Differs: the code adds 1e-6 to the sum of the weights; here nothing is added. Start values are those of
`nn.Linear`.
SPDX-License-Identifier: MIT
"""

import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LinearState(NamedTuple):
    """What a layer keeps, however many tokens it has read.

    Attributes:
        memory: (B, heads, d, d + 1), the sum of all writes k v^T, in float32 at least; the last column is the
            sum of the keys.
    """

    memory: Tensor


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, state: Tensor | None = None, chunk_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Read a sum of writes: out_t = S_t^T q_t with S_t = S_{t-1} + k_t v_t^T.

    Weights are not normalised. Sums are taken in float32 at least.

    Args:
        q, k: (B, T, H, d).
        v: (B, T, H, e).
        state: S before the first token, (B, H, d, e); None for zeros.
        chunk_size: how many tokens are compared pair by pair; all that is older is read from S.

    Returns:
        All out_t, (B, T, H, e), and the last S.

    Raises:
        ValueError: the shapes do not fit, `state` is of another dtype, or `chunk_size` is below 1.

    Two tokens whose keys stand at right angles; a third comes back to the first key, and is added to it:

    >>> k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).view(1, 3, 1, 2)
    >>> v = torch.tensor([[3.0], [5.0], [4.0]]).view(1, 3, 1, 1)
    >>> out, state = linear_attention(k, k, v)
    >>> out.flatten().tolist(), state.flatten().tolist()
    ([3.0, 5.0, 7.0], [7.0, 5.0])
    """
    _check(q, k, v, state, chunk_size)
    return _read(q, k, v, state, chunk_size)


class LinearAttention(nn.Module):
    """Causal self-attention with weights phi(q)^T phi(k) over their sum, phi(x) = elu(x) + 1.

    g(x) has the rows phi(q_i)^T phi(k_j) / sum_j' phi(q_i)^T phi(k_j') for j, j' <= i;
    f(g, x) = concat(g V) W_O.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E into heads of width d.
        chunk_size: how many tokens are compared pair by pair; changes time and memory, not the result.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - mask: (B, T), bool, True = a token, False = padding, which is neither written nor answered
        - state: a `LinearState`, or None at the start
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

    What is kept does not grow:

    >>> [layer.step(x[:, :length])[1].memory.shape for length in (1, 10)]
    [torch.Size([2, 4, 6, 7]), torch.Size([2, 4, 6, 7])]
    """

    def __init__(self, embed_dim: int, num_heads: int, chunk_size: int = 64) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or chunk_size < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, num_heads {num_heads} and chunk_size {chunk_size} must be at least 1"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        self.num_heads, self.chunk_size = operator.index(num_heads), operator.index(chunk_size)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g(x), the weights that the layer never makes: (B, T, E) -> (B, heads, T, T)."""
        q, k, _ = self._project(x, mask)
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            weights = _scores(q.transpose(1, 2), k.transpose(1, 2))
            total = weights.sum(dim=-1, keepdim=True)
            return (weights / total.masked_fill(total == 0, 1)).to(x.dtype)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        return self.step(x, mask=mask)[0]

    def step(
        self, x: Tensor, state: LinearState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, LinearState]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        q, k, v = self._project(x, mask)
        v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)  # (B, T, heads, d + 1): it counts the weights
        out, memory = _read(q, k, v, _memory(state, k, v), self.chunk_size)
        heads, total = out.split([out.shape[-1] - 1, 1], dim=-1)
        heads = heads / total.masked_fill(total == 0, 1)  # padding has read nothing
        return self.out_proj(heads.flatten(2).to(x.dtype)), LinearState(memory)

    def _project(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (B, T, heads, d), in float32 at least."""
        _check_tokens(x, mask)
        q, k, v = (
            _wide(proj(x).unflatten(2, (self.num_heads, -1)))
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _positive(q), _positive(k)
        if mask is not None:
            q, k = (t.masked_fill(~mask[..., None, None], 0) for t in (q, k))
        return q, k, v


def _positive(x: Tensor) -> Tensor:
    """Return elu(x) + 1, as x + 1 or exp(x): far below zero, -1 + 1 would leave nothing."""
    return F.relu(x) + x.clamp(max=0).exp()


def _read(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, chunk_size: int) -> tuple[Tensor, Tensor]:
    """Read in chunks: pair by pair inside of one, from the sum of all earlier ones beyond."""
    T, size = q.shape[1], max(1, min(q.shape[1], chunk_size))
    with torch.autocast("cpu" if q.is_meta else q.device.type, enabled=False):
        q, k, v = (_chunks(_wide(t), size) for t in (q, k, v))  # (B, H, chunks, C, width)
        writes = k.mT @ v  # (B, H, chunks, d, e)
        S = torch.zeros_like(writes[:, :, 0]) if state is None else state
        before = []
        for n in range(q.shape[2]):
            before.append(S)
            S = S + writes[:, :, n]
        out = q @ torch.stack(before, dim=2) + _scores(q, k) @ v
    return out.flatten(2, 3)[:, :, :T].transpose(1, 2), S  # (B, T, H, e)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    """Return q_i · k_j where j <= i, else 0: (..., C, C)."""
    return (q @ k.mT).tril()


def _wide(t: Tensor) -> Tensor:
    """Return a tensor in float32 at least."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def _chunks(t: Tensor, size: int) -> Tensor:
    """Split time, zeros at the end, which write nothing: (B, T, H, width) -> (B, H, chunks, C, width)."""
    missing = -t.shape[1] % size if t.shape[1] else size  # no tokens at all are one chunk of zeros
    t = F.pad(t, (0, 0, 0, 0, 0, missing))
    chunks: Tensor = t.unflatten(1, (t.shape[1] // size, size)).permute(0, 3, 1, 2, 4)
    return chunks


def _check(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, chunk_size: int) -> None:
    if q.dim() != 4 or q.shape != k.shape:
        raise ValueError(
            f"q {tuple(q.shape)} and k {tuple(k.shape)} must be (B, T, H, d) with the same sizes"
        )
    if v.dim() != 4 or v.shape[:3] != k.shape[:3]:
        raise ValueError(f"v {tuple(v.shape)} must be (B, T, H, e) = {(*k.shape[:3], 'e')}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size {chunk_size} must be at least 1")
    if state is not None:
        _check_memory(state, k, v)


def _memory(state: LinearState | None, k: Tensor, v: Tensor) -> Tensor | None:
    """Return what a state holds; refuse one that cannot be of the layer with these keys and values."""
    if state is None:
        return None
    if not isinstance(state, LinearState):
        raise ValueError(f"state {type(state).__name__} must be a LinearState")
    _check_memory(state.memory, k, v)
    return state.memory


def _check_memory(memory: Tensor, k: Tensor, v: Tensor) -> None:
    B, _, H, d = k.shape
    wanted, wide = (B, H, d, v.shape[-1]), _wide(v[:0]).dtype
    if memory.shape != wanted or memory.dtype != wide:
        raise ValueError(
            f"state {tuple(memory.shape)} of {memory.dtype} must be (B, H, d, e) = {wanted} of {wide}"
        )


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
    B: int = 2, T: int = 10, E: int = 24, heads: int = 4, chunk: int = 3
) -> tuple[LinearAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features, in chunks."""
    torch.manual_seed(0)
    return LinearAttention(E, heads, chunk_size=chunk).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    mask = torch.arange(x.shape[1]) < torch.arange(x.shape[1], x.shape[1] - x.shape[0], -1)[:, None]
    return {"padding": (layer, (x, mask))}


if __name__ == "__main__":
    layer, (x,) = example()
    y, state = layer.step(x[:, :7])
    rest, _ = layer.step(x[:, 7:], state)
    print(f"state {tuple(state.memory.shape)} after 7 tokens, as after 7000")
    print(f"in two pieces as in one: {(torch.cat([y, rest], dim=1) - layer(x)).abs().max():.1e}")
