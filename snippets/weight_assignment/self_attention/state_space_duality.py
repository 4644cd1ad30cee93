"""State space duality (Mamba-2): a state space layer that is decayed linear attention, step by token.

Paper: Tri Dao, Albert Gu, "Transformers are SSMs: Generalized Models and Efficient Algorithms Through
Structured State Space Duality", ICML 2024, arXiv 2405.21060.
Code: huggingface/transformers 5.23.0, models/mamba2/modeling_mamba2.py (Mamba2Mixer).
Differs: the code has one projection in place of five. Padding is passed over by convolution and memory. A, D
and the steps start as in the code; all else as `nn.Linear` and `nn.Conv1d` do.
SPDX-License-Identifier: MIT
"""

import math
import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StateSpace(NamedTuple):
    """What a layer keeps, however many tokens it has read.

    Attributes:
        memory: (B, heads, N, P), the faded sum of all writes, in float32 at least.
        recent: (B, kernel_size - 1, channels), what the convolution has still to read.
    """

    memory: Tensor
    recent: Tensor


def state_space(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dt: Tensor,
    A: Tensor,
    state: Tensor | None = None,
    chunk_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Read a state space: out_t = S_t^T q_t with S_t = exp(dt_t A) S_{t-1} + k_t (dt_t v_t)^T.

    The paper calls q, k and v C, B and x. Sums are taken in float32 at least.

    Args:
        q, k: (B, T, G, N), each for H / G neighbouring heads.
        v: (B, T, H, P).
        dt: (B, T, H), how far a token moves the state, at least 0.
        A: (H,), at most 0.
        state: S before the first token, (B, H, N, P); None for zeros.
        chunk_size: how many tokens are compared pair by pair; all that is older is read from S.

    Returns:
        All out_t, (B, T, H, P), and the last S.

    Raises:
        ValueError: the shapes do not fit, `dt` is below or `A` above 0, `state` is of another dtype, or
            `chunk_size` is below 1.

    A token of step 0 leaves the state as it was:

    >>> k, v = torch.ones(1, 2, 1, 1), torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    >>> dt, A = torch.tensor([1.0, 0.0]).view(1, 2, 1), torch.tensor([-2.0])
    >>> state_space(k, k, v, dt, A)[1].flatten().tolist()
    [3.0]
    """
    _check(q, k, v, state, chunk_size)
    if dt.shape != v.shape[:3] or A.shape != v.shape[2:3]:
        raise ValueError(f"dt {tuple(dt.shape)} and A {tuple(A.shape)} must be (B, T, H) and (H,)")
    if (dt < 0).any():
        raise ValueError(f"dt {dt.min():.3g} must be at least 0")
    if (A > 0).any():
        raise ValueError(f"A {A.max():.3g} must be at most 0")
    group = v.shape[2] // k.shape[2]
    q, k = (t.repeat_interleave(group, dim=2) for t in (q, k))
    return _read(q, k, v * dt[..., None], (dt * A)[..., None], state, chunk_size)


class StateSpaceDuality(nn.Module):
    """The layer of Mamba-2: what a token adds to the state, and how far the state fades, is one step dt.

    q, k and v (C, B and x in the paper) pass through a short causal convolution and SiLU;
    dt = softplus(W x + dt_bias), A = -exp(A_log), dt A summed over time to G.
    g(x)_ij = q_i^T k_j exp(G_i - G_j) dt_j for j <= i, plus D on the diagonal, signed, not normalised;
    f(g, x) = RMSNorm((g V) SiLU(W_z x)) W_O, the norm over all heads of a group.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads of values.
        head_dim: width P of values; None for 2 E / num_heads.
        state_dim: width N of queries and keys.
        groups: number of heads of queries and keys, each for neighbouring heads of values; divides
            `num_heads`.
        kernel_size: how many tokens the convolution reads.
        eps: of the norm.
        chunk_size: how many tokens are compared pair by pair; changes time and memory, not the result.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - mask: (B, T), bool, True = a token, False = padding, which is neither written nor answered
        - state: a `StateSpace`, or None at the start
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide 2 `embed_dim` or `groups` not `num_heads`,
            `eps` is not above 0 and finite, `x` is not (B, T, E), `mask` is not (B, T), or `state` is not one
            that fits this layer, `x` and its dtype.
        TypeError: `mask` is not bool.

    The mixer of Mamba-2 as transformers configures it:

    >>> with torch.device("meta"):
    ...     layer = StateSpaceDuality(4096, 128, head_dim=64, state_dim=128, groups=8)
    >>> sum(p.numel() for p in layer.parameters())
    109635968
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        head_dim: int | None = None,
        state_dim: int = 128,
        groups: int = 1,
        kernel_size: int = 4,
        eps: float = 1e-5,
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        sizes = embed_dim, num_heads, state_dim, groups, kernel_size, chunk_size
        if min(sizes) < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, num_heads {num_heads}, state_dim {state_dim}, groups {groups}, "
                f"kernel_size {kernel_size} and chunk_size {chunk_size} must be at least 1"
            )
        if head_dim is None and 2 * embed_dim % num_heads:
            raise ValueError(f"2 * embed_dim {2 * embed_dim} must be divisible by num_heads {num_heads}")
        if num_heads % groups:
            raise ValueError(f"num_heads {num_heads} must be divisible by groups {groups}")
        head_dim = 2 * embed_dim // num_heads if head_dim is None else head_dim
        if head_dim < 1:
            raise ValueError(f"head_dim {head_dim} must be at least 1")
        if not 0 < eps < math.inf:
            raise ValueError(f"eps {eps} must be above 0 and finite")
        self.num_heads, self.groups = operator.index(num_heads), operator.index(groups)
        self.chunk_size = operator.index(chunk_size)
        keys, values = groups * state_dim, num_heads * head_dim
        self.q_proj = nn.Linear(embed_dim, keys, bias=False)
        self.k_proj = nn.Linear(embed_dim, keys, bias=False)
        self.v_proj = nn.Linear(embed_dim, values, bias=False)
        self.z_proj = nn.Linear(embed_dim, values, bias=False)
        self.dt_proj = nn.Linear(embed_dim, num_heads, bias=False)
        channels = 2 * keys + values
        self.conv = nn.Conv1d(channels, channels, kernel_size, groups=channels)
        self.A_log = nn.Parameter(torch.empty(num_heads))
        self.dt_bias = nn.Parameter(torch.empty(num_heads))
        self.D = nn.Parameter(torch.empty(num_heads))
        self.norm = nn.RMSNorm(values // groups, eps, elementwise_affine=False)
        self.scale = nn.Parameter(torch.empty(values))  # one number per channel, whatever the groups
        self.out_proj = nn.Linear(values, embed_dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start A at -1, -2, ..., D at 1, the step of a token of zeros from 0.001 to 0.1, by logarithm."""
        with torch.no_grad():
            self.A_log.copy_(torch.arange(1, self.num_heads + 1).log())
            step = self.dt_bias.uniform_(math.log(0.001), math.log(0.1)).exp()
            self.dt_bias.copy_(step.expm1().log())  # its softplus is the step
            self.D.fill_(1)
            self.scale.fill_(1)

    def steps(self, x: Tensor) -> Tensor:
        """Return dt, how far each token moves the state: (B, T, E) -> (B, T, heads)."""
        return F.softplus(_wide(self.dt_proj(x)) + self.dt_bias)

    def attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g(x), the weights that the layer never makes: (B, T, E) -> (B, heads, T, T)."""
        projected, _ = self._project(x, mask, None)
        q, k, _, dt, g = (t.transpose(1, 2) for t in projected)
        skip = _wide(self.D)[:, None].expand(-1, x.shape[1])
        if mask is not None:
            skip = skip * mask[:, None]
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            return (_scores(q, k, g.cumsum(dim=2)) * dt.mT + torch.diag_embed(skip)).to(x.dtype)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        return self.step(x, mask=mask)[0]

    def step(
        self, x: Tensor, state: StateSpace | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, StateSpace]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        (q, k, v, dt, g), recent = self._project(x, mask, state)
        memory = None if state is None else state.memory
        read, memory = _read(q, k, v * dt, g, memory, self.chunk_size)
        heads = read + _wide(self.D)[:, None] * v
        gated = heads.flatten(2) * F.silu(_wide(self.z_proj(x)))
        normed = self.norm(gated.unflatten(2, (self.groups, -1))).flatten(2) * self.scale
        return self.out_proj(normed.to(x.dtype)), StateSpace(memory, recent)

    def _project(
        self, x: Tensor, mask: Tensor | None, state: StateSpace | None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return q, k, v, dt and g, each (B, T, heads, width) in float32 at least, and the last inputs."""
        _check_tokens(x, mask)
        mixed = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)  # (B, T, channels)
        self._check_state(state, mixed)
        mixed, recent = _convolve(self.conv, mixed, None if state is None else state.recent, mask)
        keys = self.q_proj.out_features
        q, k, v = _wide(F.silu(mixed)).split([keys, keys, self.v_proj.out_features], dim=-1)
        group = self.num_heads // self.groups
        q, k = (t.unflatten(2, (self.groups, -1)).repeat_interleave(group, dim=2) for t in (q, k))
        v, dt = v.unflatten(2, (self.num_heads, -1)), self.steps(x)[..., None]
        if mask is not None:
            q, k, v, dt = (t.masked_fill(~mask[..., None, None], 0) for t in (q, k, v, dt))
        g = -_wide(self.A_log).exp()[:, None] * dt
        return (q, k, v, dt, g), recent

    def _check_state(self, state: StateSpace | None, mixed: Tensor) -> None:
        """Refuse a state that cannot be of this layer and the inputs of its convolution."""
        if state is None:
            return
        if not isinstance(state, StateSpace):
            raise ValueError(f"state {type(state).__name__} must be a StateSpace")
        B, _, channels = mixed.shape
        widths = self.q_proj.out_features // self.groups, self.v_proj.out_features // self.num_heads
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
    """Return q_i · k_j exp(g_i - g_j) where j <= i, else 0, for summed gates g: (..., C, C)."""
    later = torch.ones(g.shape[-2], g.shape[-2], dtype=torch.bool, device=g.device).triu(1)
    # the difference before the exponential: exp(g_i) exp(-g_j) would leave the range of numbers
    return (q @ k.mT) * (g - g.mT).masked_fill(later, -torch.inf).exp()


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
            f"q {tuple(q.shape)} and k {tuple(k.shape)} must be (B, T, G, N) with the same sizes"
        )
    if v.dim() != 4 or v.shape[:2] != k.shape[:2] or v.shape[2] % k.shape[2]:
        raise ValueError(
            f"k {tuple(k.shape)} and v {tuple(v.shape)} must be (B, T, G, N) and (B, T, H, P) with the same "
            "B and T, and H a multiple of G"
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size {chunk_size} must be at least 1")
    if state is not None:
        _check_memory(state, k, v)


def _check_memory(memory: Tensor, k: Tensor, v: Tensor) -> None:
    wanted, wide = (v.shape[0], v.shape[2], k.shape[3], v.shape[3]), _wide(v[:0]).dtype
    if memory.shape != wanted or memory.dtype != wide:
        raise ValueError(
            f"state {tuple(memory.shape)} of {memory.dtype} must be (B, H, N, P) = {wanted} of {wide}"
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
    B: int = 2,
    T: int = 10,
    E: int = 12,
    heads: int = 8,
    P: int = 5,
    N: int = 6,
    groups: int = 4,
    chunk: int = 3,
) -> tuple[StateSpaceDuality, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features, in chunks."""
    torch.manual_seed(0)
    return StateSpaceDuality(E, heads, P, N, groups, chunk_size=chunk).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    mask = torch.arange(x.shape[1]) < torch.arange(x.shape[1], x.shape[1] - x.shape[0], -1)[:, None]
    shared = StateSpaceDuality(x.shape[2], layer.num_heads, state_dim=8, kernel_size=1)
    return {"one_group": (shared.eval(), (x,)), "padding": (layer, (x, mask))}


if __name__ == "__main__":
    layer, (x,) = example()
    remains = (-layer.A_log.exp() * layer.steps(x)).exp()
    print(f"one token leaves from {remains.min():.2f} to {remains.max():.2f} of the state")
    _, state = layer.step(x)
    print(f"state after {x.shape[1]} tokens: {[tuple(kept.shape) for kept in state]}")
