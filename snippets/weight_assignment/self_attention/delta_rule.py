"""Delta rule: a memory of fixed size that corrects what it holds under a key, in place of adding to it.

Paper: Songlin Yang, Bailin Wang, Yu Zhang, Yikang Shen, Yoon Kim, "Parallelizing Linear Transformers with the
Delta Rule over Sequence Length", NeurIPS 2024, arXiv 2406.06484.
The rule: Imanol Schlag, Kazuki Irie, Jürgen Schmidhuber, "Linear Transformers Are Secretly Fast Weight
Programmers", ICML 2021, arXiv 2102.11174.
Code: fla-core 0.6.0, fla/ops/delta_rule/naive.py; the layer flash-linear-attention 0.6.0,
fla/layers/delta_net.py.
Differs: the layer of the code passes queries, keys and values through a short convolution, and values, too,
through SiLU. Start values are those of `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DeltaState(NamedTuple):
    """What a layer keeps, however many tokens it has read.

    Attributes:
        memory: (B, heads, d, d), which value stands under which key, in float32 at least.
    """

    memory: Tensor


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None = None, chunk_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Read a corrected memory: out_t = S_t^T q_t with S_t = S_{t-1} + k_t (beta_t (v_t - S_{t-1}^T k_t))^T.

    That is one step of gradient descent on |S^T k_t - v_t|^2 / 2. S stays bounded for keys of length one and
    beta from 0 to 2; with beta |k|^2 above 2 it diverges. Sums are taken in float32 at least.

    Args:
        q, k: (B, T, H, d).
        v: (B, T, H, e).
        beta: (B, T, H), how much of the error is corrected.
        state: S before the first token, (B, H, d, e); None for zeros.
        chunk_size: how many tokens are compared pair by pair; all that is older is read from S.

    Returns:
        All out_t, (B, T, H, e), and the last S.

    Raises:
        ValueError: the shapes do not fit, `state` is of another dtype, or `chunk_size` is below 1.

    Two tokens whose keys stand at right angles; a third comes back to the first key, and replaces its value:

    >>> k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).view(1, 3, 1, 2)
    >>> v = torch.tensor([[3.0], [5.0], [4.0]]).view(1, 3, 1, 1)
    >>> out, state = delta_rule(k, k, v, torch.ones(1, 3, 1))
    >>> out.flatten().tolist(), state.flatten().tolist()
    ([3.0, 5.0, 4.0], [4.0, 5.0])
    """
    _check(q, k, v, state, chunk_size)
    if beta.shape != k.shape[:3]:
        raise ValueError(f"beta {tuple(beta.shape)} must be (B, T, H) = {tuple(k.shape[:3])}")
    return _read(q, k, v, beta[..., None], state, chunk_size)


class DeltaRuleAttention(nn.Module):
    """Causal self-attention whose memory is corrected by each token: key k gets value v, as far as beta says.

    q and k have length one, q is divided by sqrt(d); beta = sigmoid(W x), per head and token.
    g(x) = tril(Q K^T) (I + diag(beta) tril(K K^T, -1))^{-1} diag(beta), signed, not normalised;
    f(g, x) = concat(RMSNorm(g V)) W_O, per head.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E into heads of width d.
        allow_neg_eigval: double beta, so that a write may turn what stands under its key round, up to -1.
        chunk_size: how many tokens are compared pair by pair; changes time and memory, not the result.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - mask: (B, T), bool, True = a token, False = padding, which is neither written nor answered
        - state: a `DeltaState`, or None at the start
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim`, `x` is not (B, T, E), `mask`
            is not (B, T), or `state` is not one that fits this layer, `x` and its dtype.
        TypeError: `mask` is not bool.

    The same token again and again: its value is approached, not added up, so no weight grows with the length.

    >>> layer, (x,) = example()
    >>> weights = layer.attention(x[:1, :1].expand(1, 100, -1))  # heads of width 6
    >>> bool((weights.sum(dim=-1).abs() <= 6**-0.5).all())
    True
    """

    def __init__(
        self, embed_dim: int, num_heads: int, allow_neg_eigval: bool = False, chunk_size: int = 64
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or chunk_size < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, num_heads {num_heads} and chunk_size {chunk_size} must be at least 1"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        self.num_heads, self.chunk_size = operator.index(num_heads), operator.index(chunk_size)
        self.allow_neg_eigval = allow_neg_eigval
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.beta_proj = nn.Linear(embed_dim, num_heads, bias=False)
        self.norm = nn.RMSNorm(embed_dim // num_heads, eps=1e-5)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=False)

    def attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g(x), the weights that the layer never makes: (B, T, E) -> (B, heads, T, T)."""
        q, k, _, beta = (t.transpose(1, 2) for t in self._project(x, mask))
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            return (_scores(q, k) @ _corrections(k, beta, torch.diag_embed(beta[..., 0]))).to(x.dtype)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        return self.step(x, mask=mask)[0]

    def step(
        self, x: Tensor, state: DeltaState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, DeltaState]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        q, k, v, beta = self._project(x, mask)
        heads, memory = _read(q, k, v, beta, _memory(state, k, v), self.chunk_size)
        heads = self.norm(heads.to(self.norm.weight.dtype))
        return self.out_proj(heads.flatten(2).to(x.dtype)), DeltaState(memory)

    def _project(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return queries, keys, values (B, T, heads, d) and beta (B, T, heads, 1), in float32 at least."""
        _check_tokens(x, mask)
        q, k, v, beta = (
            _wide(proj(x).unflatten(2, (self.num_heads, -1)))
            for proj in (self.q_proj, self.k_proj, self.v_proj, self.beta_proj)
        )
        q, k = _unit(F.silu(q)) * q.shape[-1] ** -0.5, _unit(F.silu(k))
        beta = beta.sigmoid() * (2 if self.allow_neg_eigval else 1)
        if mask is not None:
            q, k, beta = (t.masked_fill(~mask[..., None, None], 0) for t in (q, k, beta))
        return q, k, v, beta


def _read(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """Read in chunks: pair by pair inside of one, from the memory of all earlier ones beyond."""
    T, size = q.shape[1], max(1, min(q.shape[1], chunk_size))
    with torch.autocast("cpu" if q.is_meta else q.device.type, enabled=False):
        q, k, v, beta = (_chunks(_wide(t), size) for t in (q, k, v, beta))  # (B, H, chunks, C, width)
        # what a token writes is v minus what S holds under k: both pass through the corrections of its chunk
        new, old = _corrections(k, beta, beta * torch.cat([v, k], dim=-1)).split(
            [v.shape[-1], k.shape[-1]], -1
        )
        S = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]) if state is None else state
        before, written = [], []
        for n in range(q.shape[2]):
            before.append(S)
            written.append(new[:, :, n] - old[:, :, n] @ S)
            S = S + k[:, :, n].mT @ written[n]
        out = q @ torch.stack(before, dim=2) + _scores(q, k) @ torch.stack(written, dim=2)
    return out.flatten(2, 3)[:, :, :T].transpose(1, 2), S  # (B, T, H, e)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    """Return q_i · k_j where j <= i, else 0: (..., C, C)."""
    return (q @ k.mT).tril()


def _corrections(k: Tensor, beta: Tensor, right: Tensor) -> Tensor:
    """Return (I + diag(beta) tril(K K^T, -1))^{-1} right: what each token writes, after those before it."""
    overlap = beta * _scores(k, k)  # the solver takes ones on the diagonal, whatever stands there
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


def _memory(state: DeltaState | None, k: Tensor, v: Tensor) -> Tensor | None:
    """Return what a state holds; refuse one that cannot be of the layer with these keys and values."""
    if state is None:
        return None
    if not isinstance(state, DeltaState):
        raise ValueError(f"state {type(state).__name__} must be a DeltaState")
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
) -> tuple[DeltaRuleAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features, in chunks."""
    torch.manual_seed(0)
    return DeltaRuleAttention(E, heads, chunk_size=chunk).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    mask = torch.arange(x.shape[1]) < torch.arange(x.shape[1], x.shape[1] - x.shape[0], -1)[:, None]
    doubled = DeltaRuleAttention(x.shape[2], layer.num_heads, True, layer.chunk_size)
    return {"negative_eigenvalues": (doubled.eval(), (x,)), "padding": (layer, (x, mask))}


if __name__ == "__main__":
    k = torch.eye(2)[[0, 1, 0]].view(1, 3, 1, 2)  # the third token has the key of the first
    v = torch.tensor([3.0, 5.0, 4.0]).view(1, 3, 1, 1)
    _, state = delta_rule(k, k, v, torch.ones(1, 3, 1))
    print(f"written 3, 5, 4; under the two keys stand {state.flatten().tolist()}, a sum would hold 7 and 5")
