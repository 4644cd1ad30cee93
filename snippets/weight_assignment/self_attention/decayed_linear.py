"""Decayed linear attention: the running sum fades at each token, by a fixed share or one that tokens choose.

Paper: Yutao Sun, Li Dong, Shaohan Huang, Shuming Ma, Yuqing Xia, Jilong Xue, Jianyong Wang, Furu Wei,
"Retentive Network: A Successor to Transformer for Large Language Models", arXiv 2023, arXiv 2307.08621.
Gates that tokens choose: Songlin Yang, Bailin Wang, Yikang Shen, Rameswar Panda, Yoon Kim, "Gated Linear
Attention Transformers with Hardware-Efficient Training", ICML 2024, arXiv 2312.06635.
Code: fla-core 0.6.0, fla/ops/gla/naive.py and fla/ops/simple_gla/naive.py; microsoft/torchscale 4d1e0e8,
torchscale/component/multiscale_retention.py; huggingface/transformers 5.23.0,
models/minimax/modeling_minimax.py (MiniMaxLightningAttention).
Differs: RetNet rotates queries and keys; MiniMax applies SiLU to queries, keys and values, does not scale,
and forgets more slowly in deeper layers (here as in the first); all of them multiply the output by a gate.
Start values are those of `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import functools
import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = ("retention", "lightning", "scalar", "channel")


class DecayedState(NamedTuple):
    """What a layer keeps, however many tokens it has read.

    Attributes:
        memory: (B, heads, d, d), the faded sum of all writes k v^T, in float32 at least.
    """

    memory: Tensor


def decayed_linear(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None = None, chunk_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Read a fading sum: out_t = S_t^T q_t with S_t = exp(g_t) S_{t-1} + k_t v_t^T.

    Sums are taken in float32 at least.

    Args:
        q, k: (B, T, H, d).
        v: (B, T, H, e).
        g: natural logarithm of what remains, at most 0: (B, T, H) for the whole of S, or (B, T, H, d) for
            each of its rows, the channels of the keys.
        state: S before the first token, (B, H, d, e); None for zeros.
        chunk_size: how many tokens are compared pair by pair; all that is older is read from S.

    Returns:
        All out_t, (B, T, H, e), and the last S.

    Raises:
        ValueError: the shapes do not fit, a gate is not finite or above 0, `state` is of another dtype, or
            `chunk_size` is below 1.

    The same key is written twice, and half of the first value is left:

    >>> k, v = torch.ones(1, 2, 1, 1), torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    >>> out, _ = decayed_linear(k, k, v, torch.tensor(0.5).log().expand(1, 2, 1))
    >>> out.flatten().tolist()
    [3.0, 5.5]
    """
    _check(q, k, v, state, chunk_size)
    if g.shape not in (k.shape[:3], k.shape):
        raise ValueError(f"g {tuple(g.shape)} must be (B, T, H) or (B, T, H, d) = {tuple(k.shape)}")
    if (g > 0).any():
        raise ValueError(f"g {g.max():.3g} must be at most 0")
    if not g.isfinite().all():
        raise ValueError(f"g {g.min():.3g} must be finite")
    return _read(q, k, v, g if g.dim() == 4 else g[..., None], state, chunk_size)


class DecayedLinearAttention(nn.Module):
    """Causal self-attention with weights q^T k that fade with each token in between.

    g(x)_ij = q_i^T (exp(g_{j+1} + ... + g_i) * k_j) / sqrt(d) for j <= i, signed, not normalised;
    f(g, x) = concat(RMSNorm(g V)) W_O, per head.

    "retention": head h keeps 1 - 2^{-5-h} at each token; "lightning": exp(-2^{-8 (h+1) / heads});
    "scalar": exp(log sigmoid(W x) / 16), one number per head, which each token chooses;
    "channel": likewise for each channel of the keys, W a product of two matrices of rank 16.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E into heads of width d.
        mode: one of `MODES`.
        chunk_size: how many tokens are compared pair by pair; changes time and memory, not the result.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - mask: (B, T), bool, True = a token, False = padding, which is neither written nor answered
        - state: a `DecayedState`, or None at the start
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim`, `mode` is none of `MODES`, `x`
            is not (B, T, E), `mask` is not (B, T), or `state` is not one that fits this layer, `x` and its
            dtype.
        TypeError: `mask` is not bool.

    What remains of a write after one token, in the first heads of the two fixed modes:

    >>> x = torch.zeros(1, 1, 24)
    >>> for mode in ("retention", "lightning"):
    ...     layer = DecayedLinearAttention(24, 8, mode)
    ...     print([round(share, 4) for share in layer.gates(x).exp().flatten().tolist()[:3]])
    [0.9688, 0.9844, 0.9922]
    [0.6065, 0.7788, 0.8825]
    """

    def __init__(self, embed_dim: int, num_heads: int, mode: str = "scalar", chunk_size: int = 64) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or chunk_size < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, num_heads {num_heads} and chunk_size {chunk_size} must be at least 1"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        self.num_heads, self.chunk_size = operator.index(num_heads), operator.index(chunk_size)
        self.mode = mode
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        if mode == "scalar":
            self.gate_proj: nn.Module = nn.Linear(embed_dim, num_heads)
        elif mode == "channel":
            self.gate_proj = nn.Sequential(nn.Linear(embed_dim, 16, bias=False), nn.Linear(16, embed_dim))
        self.norm = nn.RMSNorm(embed_dim // num_heads, eps=1e-5, elementwise_affine=False)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=False)

    def gates(self, x: Tensor) -> Tensor:
        """Return the logarithm of what remains: (B, T, E) -> (B, T, heads, 1 or, in "channel", d)."""
        if self.mode in ("scalar", "channel"):
            gates: Tensor = self.gate_proj(x).unflatten(2, (self.num_heads, -1))
            return F.logsigmoid(_wide(gates)) / 16
        h = torch.arange(self.num_heads, dtype=_wide(x[:0]).dtype, device=x.device)
        share = torch.log1p(-(2 ** (-5 - h))) if self.mode == "retention" else -(2 ** (-8 * (h + 1) / len(h)))
        return share[:, None].expand(*x.shape[:2], -1, 1)

    def attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g(x), the weights that the layer never makes: (B, T, E) -> (B, heads, T, T)."""
        q, k, _, g = (t.transpose(1, 2) for t in self._project(x, mask))
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            return _scores(q, k, g.cumsum(dim=2)).to(x.dtype)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        return self.step(x, mask=mask)[0]

    def step(
        self, x: Tensor, state: DecayedState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, DecayedState]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        q, k, v, g = self._project(x, mask)
        heads, memory = _read(q, k, v, g, _memory(state, k, v), self.chunk_size)
        return self.out_proj(self.norm(heads).flatten(2).to(x.dtype)), DecayedState(memory)

    def _project(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return queries, keys, values and gates (B, T, heads, d), in float32 at least."""
        _check_tokens(x, mask)
        q, k, v = (
            _wide(proj(x).unflatten(2, (self.num_heads, -1)))
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, g = q * q.shape[-1] ** -0.5, self.gates(x)
        if mask is not None:
            q, k, g = (t.masked_fill(~mask[..., None, None], 0) for t in (q, k, g))
        return q, k, v, g


def _read(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """Read in chunks: pair by pair inside of one, from the sum of all earlier ones beyond."""
    T, size = q.shape[1], max(1, min(q.shape[1], chunk_size))
    with torch.autocast("cpu" if q.is_meta else q.device.type, enabled=False):
        q, k, v, g = (_chunks(_wide(t), size) for t in (q, k, v, g))  # (B, H, chunks, C, width)
        g = g.cumsum(dim=3)
        faded = g[..., -1:, :].exp().mT  # of a whole chunk, (B, H, chunks, d or 1, 1)
        writes = (k * (g[..., -1:, :] - g).exp()).mT @ v  # (B, H, chunks, d, e)
        S = torch.zeros_like(writes[:, :, 0]) if state is None else state
        before = []
        for n in range(q.shape[2]):
            before.append(S)
            S = faded[:, :, n] * S + writes[:, :, n]
        out = (q * g.exp()) @ torch.stack(before, dim=2) + _scores(q, k, g) @ v
    return out.flatten(2, 3)[:, :, :T].transpose(1, 2), S  # (B, T, H, e)


def _scores(q: Tensor, k: Tensor, g: Tensor) -> Tensor:
    """Return q_i · (exp(g_i - g_j) k_j) where j <= i, else 0, for summed gates g: (..., C, C)."""
    later = torch.ones(g.shape[-2], g.shape[-2], dtype=torch.bool, device=g.device).triu(1)
    # the difference before the exponential: exp(g_i) exp(-g_j) would leave the range of numbers
    fade = (g[..., :, None, :] - g[..., None, :, :]).masked_fill(later[..., None], -torch.inf).exp()
    if g.shape[-1] == 1:
        return (q @ k.mT) * fade[..., 0]
    return ((fade * k[..., None, :, :]) @ q[..., None])[..., 0]


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


def _memory(state: DecayedState | None, k: Tensor, v: Tensor) -> Tensor | None:
    """Return what a state holds; refuse one that cannot be of the layer with these keys and values."""
    if state is None:
        return None
    if not isinstance(state, DecayedState):
        raise ValueError(f"state {type(state).__name__} must be a DecayedState")
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
) -> tuple[DecayedLinearAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features, in chunks."""
    torch.manual_seed(0)
    return DecayedLinearAttention(E, heads, chunk_size=chunk).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    mask = torch.arange(x.shape[1]) < torch.arange(x.shape[1], x.shape[1] - x.shape[0], -1)[:, None]
    build = functools.partial(
        DecayedLinearAttention, x.shape[2], layer.num_heads, chunk_size=layer.chunk_size
    )
    fixed = {mode: (build(mode).eval(), (x,)) for mode in ("retention", "lightning", "channel")}
    return {**fixed, "padding": (layer, (x, mask))}


if __name__ == "__main__":
    _, (x,) = example()
    for mode in MODES:
        layer = DecayedLinearAttention(24, 4, mode)
        weights = layer.attention(x)[0, :, -1].abs().mean(dim=0)
        print(f"{mode}: {' '.join(f'{weight:.2f}' for weight in weights)}")
