"""Kimi delta attention: the gated delta rule with a gate of its own for each channel of the keys.

Paper: Kimi Team, "Kimi Linear: An Expressive, Efficient Attention Architecture", arXiv 2025,
arXiv 2510.26692.
Code: huggingface/transformers 5.23.0, models/kimi_linear/modeling_kimi_linear.py (KimiLinearDeltaAttention);
the rule also fla-core 0.6.0, fla/ops/kda/naive.py. The bounded gate: models/glm5_next/modeling_glm5_next.py.
Differs: padding is passed over by convolution and memory. Gates start as there, all else as `nn.Linear` and
`nn.Conv1d` do.
SPDX-License-Identifier: MIT
"""

import math
import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KimiDeltaState(NamedTuple):
    """What a layer keeps, however many tokens it has read.

    Attributes:
        memory: (B, heads, d, e), which value stands under which key, in float32 at least.
        recent: (B, kernel_size - 1, channels), what the convolution has still to read.
    """

    memory: Tensor
    recent: Tensor


def kimi_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
    chunk_size: int = 16,
) -> tuple[Tensor, Tensor]:
    """Read a memory that fades and is corrected: out_t = S_t^T q_t with R = diag(exp(g_t)) S_{t-1} and
    S_t = R + k_t (beta_t (v_t - R^T k_t))^T.

    It converges for keys of length one and beta from 0 to 2. Sums are taken in float32 at least.

    Args:
        q, k: (B, T, H, d).
        v: (B, T, H, e).
        g: (B, T, H, d), natural logarithm of what remains of each row of S, at most 0.
        beta: (B, T, H), how much of the error is corrected.
        state: S before the first token, (B, H, d, e); None for zeros.
        chunk_size: how many tokens are compared pair by pair, channel by channel; all that is older is read
            from S.

    Returns:
        All out_t, (B, T, H, e), and the last S.

    Raises:
        ValueError: the shapes do not fit, a gate is above 0 or not finite, `state` is of another dtype, or
            `chunk_size` is below 1.

    The gate halves what stands in the second channel alone; then the value under the first key is replaced:

    >>> k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).view(1, 3, 1, 2)
    >>> v = torch.tensor([[3.0], [5.0], [4.0]]).view(1, 3, 1, 1)
    >>> g = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, -0.6931472]]).view(1, 3, 1, 2)
    >>> [round(value, 4) for value in kimi_delta(k, k, v, g, torch.ones(1, 3, 1))[1].flatten().tolist()]
    [4.0, 2.5]
    """
    _check(q, k, v, state, chunk_size)
    if g.shape != k.shape:
        raise ValueError(f"g {tuple(g.shape)} must be (B, T, H, d) = {tuple(k.shape)}")
    if beta.shape != k.shape[:3]:
        raise ValueError(f"beta {tuple(beta.shape)} must be (B, T, H) = {tuple(k.shape[:3])}")
    if not (g <= 0).all() or g.isinf().any():
        raise ValueError(f"g {g.min():.3g} to {g.max():.3g} must be at most 0 and finite")
    return _read(q, k, v, g, beta[..., None], state, chunk_size)


class KimiDeltaAttention(nn.Module):
    """Causal self-attention over a memory whose channels each fade at a pace of their own, and are corrected.

    q, k and v pass through a short causal convolution and SiLU; q and k have length one, q is divided by
    sqrt(d); beta = sigmoid(W_b x); g = -exp(A_log) softplus(W_up W_down x + dt_bias), or with a bound
    lower_bound sigmoid(exp(A_log) (W_up W_down x + dt_bias)), summed over time to G.
    g(x) = A(Q, K) (I + diag(beta) A(K, K) below the diagonal)^{-1} diag(beta), signed, not normalised, with
    A(Q, K)_ij = q_i^T (exp(G_i - G_j) * k_j) for j <= i;
    f(g, x) = concat(RMSNorm(g V) sigmoid(V_up V_down x)) W_O.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads.
        head_dim: width d of queries, keys and values, and of the narrow side of both gates; None for
            E / num_heads.
        lower_bound: below 0, the least logarithm of what remains after one token; None for no bound.
        kernel_size: how many tokens the convolution reads.
        eps: of the norm.
        chunk_size: how many tokens are compared pair by pair, channel by channel; changes time and memory,
            not the result.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - mask: (B, T), bool, True = a token, False = padding, which is neither written nor answered
        - state: a `KimiDeltaState`, or None at the start
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim`, `lower_bound` is not below 0
            and finite, `eps` is not above 0 and finite, `x` is not (B, T, E), `mask` is not (B, T), or
            `state` is not one that fits this layer, `x` and its dtype.
        TypeError: `mask` is not bool.

    The layer of Kimi Linear:

    >>> with torch.device("meta"):
    ...     layer = KimiDeltaAttention(2304, 32, head_dim=128)
    >>> sum(p.numel() for p in layer.parameters())
    39514272
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        head_dim: int | None = None,
        lower_bound: float | None = None,
        kernel_size: int = 4,
        eps: float = 1e-5,
        chunk_size: int = 16,
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or kernel_size < 1 or chunk_size < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, num_heads {num_heads}, kernel_size {kernel_size} and chunk_size "
                f"{chunk_size} must be at least 1"
            )
        if head_dim is None and embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        if lower_bound is not None and not -math.inf < lower_bound < 0:
            raise ValueError(f"lower_bound {lower_bound} must be below 0 and finite")
        if not 0 < eps < math.inf:
            raise ValueError(f"eps {eps} must be above 0 and finite")
        head_dim = embed_dim // num_heads if head_dim is None else head_dim
        if head_dim < 1:
            raise ValueError(f"head_dim {head_dim} must be at least 1")
        self.num_heads, self.chunk_size = operator.index(num_heads), operator.index(chunk_size)
        self.lower_bound = lower_bound
        width = num_heads * head_dim
        self.q_proj = nn.Linear(embed_dim, width, bias=False)
        self.k_proj = nn.Linear(embed_dim, width, bias=False)
        self.v_proj = nn.Linear(embed_dim, width, bias=False)
        self.conv = nn.Conv1d(3 * width, 3 * width, kernel_size, groups=3 * width, bias=False)
        self.gate_proj = _narrow(embed_dim, head_dim, width)
        self.z_proj = _narrow(embed_dim, head_dim, width)
        self.beta_proj = nn.Linear(embed_dim, num_heads, bias=False)
        self.A_log = nn.Parameter(torch.empty(num_heads))
        self.dt_bias = nn.Parameter(torch.empty(width))
        self.norm = nn.RMSNorm(head_dim, eps)
        self.out_proj = nn.Linear(width, embed_dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw A from 1 to 16, 1 with a bound, and steps for zeros from 0.001 to 0.1, evenly by logarithm."""
        with torch.no_grad():
            self.A_log.uniform_(1, 16 if self.lower_bound is None else 1).log_()
            step = self.dt_bias.uniform_(math.log(0.001), math.log(0.1)).exp()
            self.dt_bias.copy_(step.expm1().log())  # its softplus is the step, its sigmoid 1 - exp(-step)

    def gates(self, x: Tensor) -> Tensor:
        """Return the logarithm of what remains of each channel: (B, T, E) -> (B, T, heads, d)."""
        step = (_wide(self.gate_proj(x)) + self.dt_bias).unflatten(2, (self.num_heads, -1))
        A = _wide(self.A_log)[:, None].exp()
        return -A * F.softplus(step) if self.lower_bound is None else self.lower_bound * (A * step).sigmoid()

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
        self, x: Tensor, state: KimiDeltaState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, KimiDeltaState]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        (q, k, v, g, beta), recent = self._project(x, mask, state)
        heads, memory = _read(q, k, v, g, beta, None if state is None else state.memory, self.chunk_size)
        z = self.z_proj(x).unflatten(2, (self.num_heads, -1))
        heads = self.norm(heads.to(self.norm.weight.dtype)) * z.sigmoid()
        return self.out_proj(heads.flatten(2).to(x.dtype)), KimiDeltaState(memory, recent)

    def _project(
        self, x: Tensor, mask: Tensor | None, state: KimiDeltaState | None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return q, k, v, g and beta, each (B, T, heads, width) in float32 at least, and the last inputs."""
        _check_tokens(x, mask)
        mixed = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)  # (B, T, channels)
        self._check_state(state, mixed)
        mixed, recent = _convolve(self.conv, mixed, None if state is None else state.recent, mask)
        q, k, v = _wide(F.silu(mixed)).unflatten(2, (3, self.num_heads, -1)).unbind(2)
        q, k = _unit(q) * q.shape[-1] ** -0.5, _unit(k)
        g, beta = self.gates(x), _wide(self.beta_proj(x)).sigmoid()[..., None]
        if mask is not None:
            q, k, g, beta = (t.masked_fill(~mask[..., None, None], 0) for t in (q, k, g, beta))
        return (q, k, v, g, beta), recent

    def _check_state(self, state: KimiDeltaState | None, mixed: Tensor) -> None:
        """Refuse a state that cannot be of this layer and the inputs of its convolution."""
        if state is None:
            return
        if not isinstance(state, KimiDeltaState):
            raise ValueError(f"state {type(state).__name__} must be a KimiDeltaState")
        B, _, channels = mixed.shape
        widths = (channels // 3 // self.num_heads,) * 2
        for name, kept, shape, dtype in (
            ("memory", state.memory, (B, self.num_heads, *widths), _wide(mixed[:0]).dtype),
            ("recent", state.recent, (B, self.conv.kernel_size[0] - 1, channels), mixed.dtype),
        ):
            if kept.shape != shape or kept.dtype != dtype:
                raise ValueError(
                    f"state {name} {tuple(kept.shape)} of {kept.dtype} must be {tuple(shape)} of {dtype}"
                )


def _narrow(embed_dim: int, middle: int, width: int) -> nn.Sequential:
    """Two layers, the first of them narrow."""
    return nn.Sequential(nn.Linear(embed_dim, middle, bias=False), nn.Linear(middle, width, bias=False))


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
        faded = g[..., -1:, :].exp().mT  # of a whole chunk, (B, H, chunks, d, 1)
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
    """Return q_i · (exp(g_i - g_j) k_j) where j <= i, else 0, for summed gates g: (..., C, C)."""
    later = torch.ones(g.shape[-2], g.shape[-2], dtype=torch.bool, device=g.device).triu(1)
    # the difference before the exponential: exp(g_i) exp(-g_j) would leave the range of numbers
    fade = (g[..., :, None, :] - g[..., None, :, :]).masked_fill(later[..., None], -torch.inf).exp()
    return ((fade * k[..., None, :, :]) @ q[..., None])[..., 0]


def _corrections(k: Tensor, g: Tensor, beta: Tensor, right: Tensor) -> Tensor:
    """Return (I + diag(beta) A(K, K) below the diagonal)^{-1} right: what each token writes."""
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
    B: int = 2, T: int = 10, E: int = 24, heads: int = 4, d: int = 5, chunk: int = 3
) -> tuple[KimiDeltaAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features, in chunks."""
    torch.manual_seed(0)
    return KimiDeltaAttention(E, heads, d, chunk_size=chunk).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    mask = torch.arange(x.shape[1]) < torch.arange(x.shape[1], x.shape[1] - x.shape[0], -1)[:, None]
    bounded = KimiDeltaAttention(x.shape[2], layer.num_heads, lower_bound=-5.0, kernel_size=1)
    return {"bounded": (bounded.eval(), (x,)), "padding": (layer, (x, mask))}


if __name__ == "__main__":
    layer, (x,) = example()
    remains = layer.gates(x).exp()[0, 0]
    for head, channels in enumerate(remains.tolist()):
        print(
            f"head {head}: one token leaves {' '.join(f'{share:.2f}' for share in channels)} of its channels"
        )
