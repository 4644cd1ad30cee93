"""Gated delta rule: the memory fades, then what is left of it under the token's key is corrected.

Paper: Songlin Yang, Jan Kautz, Ali Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule",
ICLR 2025, arXiv 2412.06464.
Code: huggingface/transformers 5.23.0, models/qwen3_next/modeling_qwen3_next.py (Qwen3NextGatedDeltaNet); the
rule also fla-core 0.6.0, fla/ops/gated_delta_rule/naive.py.
Differs: Qwen3-Next interleaves its projections by head. Padding is passed over by convolution and memory.
Gates start as in OLMo-Hybrid, with half-lives from one to some hundred tokens; Qwen3-Next starts with gates
that forget within three. All else starts as `nn.Linear` and `nn.Conv1d` do.
SPDX-License-Identifier: MIT
"""

import math
import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GatedDeltaState(NamedTuple):
    """What a layer keeps, however many tokens it has read.

    Attributes:
        memory: (B, heads, d, e), which value stands under which key, in float32 at least.
        recent: (B, kernel_size - 1, channels), what the convolution has still to read.
    """

    memory: Tensor
    recent: Tensor


def gated_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
    chunk_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Read a memory that fades and is corrected: out_t = S_t^T q_t with R = exp(g_t) S_{t-1} and
    S_t = R + k_t (beta_t (v_t - R^T k_t))^T.

    It converges for keys of length one and beta from 0 to 2. Sums are taken in float32 at least.

    Args:
        q, k: (B, T, H, d).
        v: (B, T, H, e).
        g: (B, T, H), natural logarithm of what remains of S, at most 0.
        beta: (B, T, H), how much of the error is corrected.
        state: S before the first token, (B, H, d, e); None for zeros.
        chunk_size: how many tokens are compared pair by pair; all that is older is read from S.

    Returns:
        All out_t, (B, T, H, e), and the last S.

    Raises:
        ValueError: the shapes do not fit, a gate is above 0 or not finite, `state` is of another dtype, or
            `chunk_size` is below 1.

    The gate halves both values; then the value under the first key is replaced:

    >>> k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).view(1, 3, 1, 2)
    >>> v = torch.tensor([[3.0], [5.0], [4.0]]).view(1, 3, 1, 1)
    >>> g, beta = torch.tensor([0.0, 0.0, -0.6931472]).view(1, 3, 1), torch.ones(1, 3, 1)
    >>> [round(value, 4) for value in gated_delta(k, k, v, g, beta)[1].flatten().tolist()]
    [4.0, 2.5]
    """
    _check(q, k, v, state, chunk_size)
    for name, given in (("g", g), ("beta", beta)):
        if given.shape != k.shape[:3]:
            raise ValueError(f"{name} {tuple(given.shape)} must be (B, T, H) = {tuple(k.shape[:3])}")
    if not (g <= 0).all() or g.isinf().any():
        raise ValueError(f"g {g.min():.3g} to {g.max():.3g} must be at most 0 and finite")
    return _read(q, k, v, g[..., None], beta[..., None], state, chunk_size)


class GatedDeltaAttention(nn.Module):
    """Causal self-attention over a memory that fades by head and token, and that each token corrects.

    q, k and v pass through a short causal convolution and SiLU; q and k have length one, q is divided by
    sqrt(d); beta = sigmoid(W_b x); g = -exp(A_log) softplus(W_a x + dt_bias), summed over time to G.
    g(x) = (D * Q K^T) (I + diag(beta) (D * K K^T, below the diagonal))^{-1} diag(beta) with
    D_ij = exp(G_i - G_j) for j <= i, signed, not normalised; f(g, x) = concat(RMSNorm(g V) SiLU(W_z x)) W_O.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads of values.
        key_heads: number of heads of queries and keys, each for neighbouring heads of values; divides
            `num_heads`; None for as many.
        head_dim: width d of queries and keys; None for E / num_heads.
        value_dim: width e of values; None for d.
        allow_neg_eigval: double beta, so that a write may turn what stands under its key round.
        kernel_size: how many tokens the convolution reads.
        eps: of the norm.
        chunk_size: how many tokens are compared pair by pair; changes time and memory, not the result.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - mask: (B, T), bool, True = a token, False = padding, which is neither written nor answered
        - state: a `GatedDeltaState`, or None at the start
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim` or `key_heads` not `num_heads`,
            `eps` is not above 0 and finite, `x` is not (B, T, E), `mask` is not (B, T), or `state` is not one
            that fits this layer, `x` and its dtype.
        TypeError: `mask` is not bool.

    The layer of Qwen3-Next:

    >>> with torch.device("meta"):
    ...     layer = GatedDeltaAttention(2048, 32, key_heads=16, head_dim=128)
    >>> sum(p.numel() for p in layer.parameters())
    33718464
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        key_heads: int | None = None,
        head_dim: int | None = None,
        value_dim: int | None = None,
        allow_neg_eigval: bool = False,
        kernel_size: int = 4,
        eps: float = 1e-6,
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        key_heads = num_heads if key_heads is None else key_heads
        if embed_dim < 1 or num_heads < 1 or key_heads < 1 or kernel_size < 1 or chunk_size < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, num_heads {num_heads}, key_heads {key_heads}, kernel_size "
                f"{kernel_size} and chunk_size {chunk_size} must be at least 1"
            )
        if head_dim is None and embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        if num_heads % key_heads:
            raise ValueError(f"num_heads {num_heads} must be divisible by key_heads {key_heads}")
        if not 0 < eps < math.inf:
            raise ValueError(f"eps {eps} must be above 0 and finite")
        head_dim = embed_dim // num_heads if head_dim is None else head_dim
        value_dim = head_dim if value_dim is None else value_dim
        if head_dim < 1 or value_dim < 1:
            raise ValueError(f"head_dim {head_dim} and value_dim {value_dim} must be at least 1")
        self.num_heads, self.key_heads = operator.index(num_heads), operator.index(key_heads)
        self.allow_neg_eigval, self.chunk_size = allow_neg_eigval, operator.index(chunk_size)
        keys, values = key_heads * head_dim, num_heads * value_dim
        self.q_proj = nn.Linear(embed_dim, keys, bias=False)
        self.k_proj = nn.Linear(embed_dim, keys, bias=False)
        self.v_proj = nn.Linear(embed_dim, values, bias=False)
        self.z_proj = nn.Linear(embed_dim, values, bias=False)
        self.a_proj = nn.Linear(embed_dim, num_heads, bias=False)
        self.beta_proj = nn.Linear(embed_dim, num_heads, bias=False)
        channels = 2 * keys + values
        self.conv = nn.Conv1d(channels, channels, kernel_size, groups=channels, bias=False)
        self.A_log = nn.Parameter(torch.empty(num_heads))
        self.dt_bias = nn.Parameter(torch.empty(num_heads))
        self.norm = nn.RMSNorm(value_dim, eps)
        self.out_proj = nn.Linear(values, embed_dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw A from 0 to 16, and the step of a token of zeros from 0.001 to 0.1, evenly by logarithm."""
        with torch.no_grad():
            self.A_log.uniform_(0, 16).clamp_(min=1e-4).log_()
            step = self.dt_bias.uniform_(math.log(0.001), math.log(0.1)).exp()
            self.dt_bias.copy_(step.expm1().log())  # its softplus is the step

    def gates(self, x: Tensor) -> Tensor:
        """Return the logarithm of what remains of the memory: (B, T, E) -> (B, T, heads)."""
        return -_wide(self.A_log).exp() * F.softplus(_wide(self.a_proj(x)) + self.dt_bias)

    def attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g(x), the weights that the layer never makes: (B, T, E) -> (B, heads, T, T)."""
        projected, _ = self._project(x, mask, None)
        q, k, _, g, beta = (t.transpose(1, 2) for t in projected)
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            g = g.cumsum(dim=2)
            written = _corrections(k, g, beta, torch.diag_embed(beta[..., 0]))
            return (_scores(q, k, g) @ written).to(x.dtype)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        return self.step(x, mask=mask)[0]

    def step(
        self, x: Tensor, state: GatedDeltaState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, GatedDeltaState]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        (q, k, v, g, beta), recent = self._project(x, mask, state)
        heads, memory = _read(q, k, v, g, beta, None if state is None else state.memory, self.chunk_size)
        z = self.z_proj(x).unflatten(2, (self.num_heads, -1))
        heads = self.norm(heads.to(self.norm.weight.dtype)) * F.silu(z)
        return self.out_proj(heads.flatten(2).to(x.dtype)), GatedDeltaState(memory, recent)

    def _project(
        self, x: Tensor, mask: Tensor | None, state: GatedDeltaState | None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return q, k, v, g and beta, each (B, T, heads, width) in float32 at least, and the last inputs."""
        _check_tokens(x, mask)
        mixed = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)  # (B, T, channels)
        self._check_state(state, mixed)
        mixed, recent = _convolve(self.conv, mixed, None if state is None else state.recent, mask)
        keys = self.q_proj.out_features
        q, k, v = _wide(F.silu(mixed)).split([keys, keys, self.v_proj.out_features], dim=-1)
        group = self.num_heads // self.key_heads
        q, k = (_unit(t.unflatten(2, (self.key_heads, -1))).repeat_interleave(group, dim=2) for t in (q, k))
        q, v = q * q.shape[-1] ** -0.5, v.unflatten(2, (self.num_heads, -1))
        g, beta = self.gates(x)[..., None], _wide(self.beta_proj(x)).sigmoid()[..., None]
        beta = beta * (2 if self.allow_neg_eigval else 1)
        if mask is not None:
            q, k, g, beta = (t.masked_fill(~mask[..., None, None], 0) for t in (q, k, g, beta))
        return (q, k, v, g, beta), recent

    def _check_state(self, state: GatedDeltaState | None, mixed: Tensor) -> None:
        """Refuse a state that cannot be of this layer and the inputs of its convolution."""
        if state is None:
            return
        if not isinstance(state, GatedDeltaState):
            raise ValueError(f"state {type(state).__name__} must be a GatedDeltaState")
        B, _, channels = mixed.shape
        widths = self.q_proj.out_features // self.key_heads, self.v_proj.out_features // self.num_heads
        for name, kept, shape, dtype in (
            ("memory", state.memory, (B, self.num_heads, *widths), _wide(mixed[:0]).dtype),
            ("recent", state.recent, (B, self.conv.kernel_size[0] - 1, channels), mixed.dtype),
        ):
            if kept.shape != shape or kept.dtype != dtype:
                raise ValueError(
                    f"state {name} {tuple(kept.shape)} of {kept.dtype} must be {tuple(shape)} of {dtype}"
                )


def _convolve(
    conv: nn.Conv1d, mixed: Tensor, recent: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Mix each channel with its last tokens, passing over padding; return that, and what to read again."""
    B, T, channels = mixed.shape
    length = conv.kernel_size[0] - 1
    if mask is not None:
        order = (~mask).int().argsort(dim=1, stable=True)[..., None]  # all tokens first, in their order
        mixed = mixed.gather(1, order.expand_as(mixed))
    mixed = torch.cat([mixed.new_zeros(B, length, channels) if recent is None else recent, mixed], dim=1)
    convolved = conv(mixed.mT).mT if T else mixed[:, :0]  # (B, T, channels)
    if mask is None:
        return convolved, mixed[:, T:]
    last = mask.sum(dim=1, keepdim=True) + torch.arange(length, device=mask.device)  # (B, length)
    recent = mixed.gather(1, last[..., None].expand(-1, -1, channels))
    return convolved.gather(1, order.argsort(dim=1).expand_as(convolved)), recent


def _read(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """Read in chunks: pair by pair inside of one, from the memory of all earlier ones beyond."""
    T, size = q.shape[1], max(1, min(q.shape[1], chunk_size))
    with torch.autocast("cpu" if q.is_meta else q.device.type, enabled=False):
        q, k, v, g, beta = (_chunks(_wide(t), size) for t in (q, k, v, g, beta))  # (B, H, chunks, C, width)
        g = g.cumsum(dim=3)
        faded = g[..., -1:, :].exp().mT  # of a whole chunk, (B, H, chunks, 1, 1)
        # what a token writes is v minus what S holds under k: both pass through the corrections of its chunk
        right = beta * torch.cat([v, k * g.exp()], dim=-1)
        new, old = _corrections(k, g, beta, right).split([v.shape[-1], k.shape[-1]], dim=-1)
        kept = (k * (g[..., -1:, :] - g).exp()).mT  # keys as they have faded when the chunk ends
        S = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]) if state is None else state
        before, written = [], []
        for n in range(q.shape[2]):
            before.append(S)
            written.append(new[:, :, n] - old[:, :, n] @ S)
            S = faded[:, :, n] * S + kept[:, :, n] @ written[n]
        out = (q * g.exp()) @ torch.stack(before, dim=2) + _scores(q, k, g) @ torch.stack(written, dim=2)
    return out.flatten(2, 3)[:, :, :T].transpose(1, 2), S  # (B, T, H, e)


def _scores(q: Tensor, k: Tensor, g: Tensor) -> Tensor:
    """Return q_i · k_j exp(g_i - g_j) where j <= i, else 0, for summed gates g: (..., C, C)."""
    later = torch.ones(g.shape[-2], g.shape[-2], dtype=torch.bool, device=g.device).triu(1)
    # the difference before the exponential: exp(g_i) exp(-g_j) would leave the range of numbers
    return (q @ k.mT) * (g - g.mT).masked_fill(later, -torch.inf).exp()


def _corrections(k: Tensor, g: Tensor, beta: Tensor, right: Tensor) -> Tensor:
    """Return (I + diag(beta) (D * K K^T, below the diagonal))^{-1} right: what each token writes."""
    overlap = beta * _scores(k, k, g)  # the solver takes ones on the diagonal, whatever stands there
    written: Tensor = torch.linalg.solve_triangular(overlap, right, upper=False, unitriangular=True)
    return written


def _unit(t: Tensor) -> Tensor:
    """Return vectors of length one, as the code does: t / sqrt(|t|^2 + 1e-6)."""
    return t * (t.square().sum(dim=-1, keepdim=True) + 1e-6).rsqrt()


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
    B: int = 2, T: int = 10, E: int = 24, heads: int = 8, d: int = 6, e: int = 5, chunk: int = 3
) -> tuple[GatedDeltaAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features, in chunks.

    Two heads of values share one of keys.
    """
    torch.manual_seed(0)
    layer = GatedDeltaAttention(E, heads, heads // 2, d, e, chunk_size=chunk)
    return layer.eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    mask = torch.arange(x.shape[1]) < torch.arange(x.shape[1], x.shape[1] - x.shape[0], -1)[:, None]
    doubled = GatedDeltaAttention(x.shape[2], layer.num_heads, allow_neg_eigval=True, kernel_size=1)
    return {"negative_eigenvalues": (doubled.eval(), (x,)), "padding": (layer, (x, mask))}


if __name__ == "__main__":
    layer, (x,) = example()
    remains = layer.gates(x).exp()
    print(f"one token leaves from {remains.min():.2f} to {remains.max():.2f} of the memory")
    _, state = layer.step(x)
    print(f"state after {x.shape[1]} tokens: {[tuple(kept.shape) for kept in state]}")
