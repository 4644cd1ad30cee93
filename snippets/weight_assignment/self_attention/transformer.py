"""Transformer: an encoder reads a sequence with self-attention, a decoder writes another and attends to both.

Paper: Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones, Aidan N. Gomez,
Lukasz Kaiser, Illia Polosukhin, "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762 (section 3).
Pre-norm: Ruibin Xiong, Yunchang Yang, Di He, Kai Zheng, Shuxin Zheng, Chen Xing, Huishuai Zhang, Yanyan
Lan, Liwei Wang, Tie-Yan Liu, "On Layer Normalization in the Transformer Architecture", ICML 2020,
arXiv 2002.04745.
Code: tensorflow/tensor2tensor bafdc1b, tensor2tensor/layers/transformer_layers.py and models/transformer.py.
Differs: inputs and outputs are vectors, so embeddings (times sqrt(E)) and the output softmax are left to the
caller; the attention projections have biases, as in torch; with `norm_first=True`, which is not in the first
paper, each stack ends in a norm. Norms add 1e-5, not the 1e-6 of the released code. Start values are those
of `nn.Linear`, drawn for each layer; Xavier's in the released code.
SPDX-License-Identifier: MIT
"""

import math
import operator
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoidal_positions(length: int, width: int, first: int = 0) -> Tensor:
    """Return sin(p / 10000^(2i / width)) at feature 2i and the cosine at 2i + 1: (length, width), float64.

    Positions p are those from `first` on.

    Raises:
        ValueError: `width` is odd or below 2.

    >>> sinusoidal_positions(2, 4)
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0100, 1.0000]], dtype=torch.float64)
    """
    if width < 2 or width % 2:
        raise ValueError(f"width {width} must be even and at least 2")
    speed = 10000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)  # (width / 2)
    place = torch.arange(first, first + length, dtype=torch.float64)
    angle = place[:, None] * speed  # (length, width / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # (length, width)


def causal_mask(length: int, device: torch.device | str | None = None, past: int = 0) -> Tensor:
    """Return the mask that hides later tokens: (1, 1, length, past + length), True = may be attended.

    `past` tokens, which all may see, stand before those that ask.

    >>> causal_mask(3)[0, 0].int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    return torch.ones(1, 1, length, past + length, dtype=torch.bool, device=device).tril(past)


class Attention(nn.Module):
    """Multi-head attention of `x` to `memory` (section 3.2).

    g = softmax(Q K^T / sqrt(d)) per head of width d = E / heads; f = concat(g V) W_O.

    Args:
        embed_dim: width E of all tokens.
        num_heads: number of heads; divides E.

    Shape:
        - x: (B, T, E), the tokens that ask
        - memory: (B, S, E), the tokens that are read
        - mask: bool, True = may be attended; four dimensions that broadcast to (B, heads, T, S)
        - attention(x, memory): (B, heads, T, S); zeros for a token that may attend to nothing
        - forward(x, memory): (B, T, E)

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide E, or the shapes of `x`, `memory` and
            `mask` do not fit.
        TypeError: `mask` is not bool.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1:
            raise ValueError(f"embed_dim {embed_dim} and num_heads {num_heads} must be at least 1")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        self.num_heads = operator.index(num_heads)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def attention(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g, the weights of each head: (B, heads, T, S)."""
        self._check(x, memory, mask)
        q, k = self._split(self.q_proj(x)), self._split(self.k_proj(memory))
        scores: Tensor = (q / math.sqrt(q.shape[-1])) @ k.mT  # (B, heads, T, S)
        if mask is None:
            return scores.softmax(dim=-1)
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1).masked_fill(~mask, 0.0)  # the last step empties rows without a key

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g, memory): (B, T, E)."""
        self._check(x, memory, mask)
        return self.read(x, *self.project(memory), mask)

    def project(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values of the memory: (B, S, E) -> twice (B, heads, S, d)."""
        return self._split(self.k_proj(memory)), self._split(self.v_proj(memory))

    def read(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read what was projected, by the fused kernel, which never stores the weights: (B, T, E)."""
        q = self._split(self.q_proj(x))  # (B, heads, T, d)
        heads = F.scaled_dot_product_attention(q, keys, values, mask)  # (B, heads, T, d)
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))  # (B, T, E)
        return output

    def _check(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> None:
        if x.dim() != 3 or memory.dim() != 3 or x.shape[0] != memory.shape[0]:
            raise ValueError(
                f"x {tuple(x.shape)} and memory {tuple(memory.shape)} must be (B, T, E) and (B, S, E) "
                "with the same B"
            )
        _check_mask(mask, (x.shape[0], self.num_heads, x.shape[1], memory.shape[1]))

    def _split(self, x: Tensor) -> Tensor:
        B, N, E = x.shape
        return x.reshape(B, N, self.num_heads, E // self.num_heads).transpose(1, 2)  # (B, heads, N, d)


class AddNorm(nn.Module):
    """Residual and LayerNorm around a sublayer s.

    Post-norm, the paper's: norm(x + s(x)). Pre-norm: x + s(norm(x)), which leaves the residual path free.
    """

    def __init__(self, embed_dim: int, dropout: float, norm_first: bool) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout {dropout} must be in [0, 1)")
        self.norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

    def enter(self, x: Tensor) -> Tensor:
        """Return what the sublayer gets to see: (B, T, E) -> (B, T, E)."""
        return self.norm(x) if self.norm_first else x

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Return x joined with what the sublayer makes of it: (B, T, E) -> (B, T, E)."""
        x = x + self.dropout(sublayer(self.enter(x)))
        return x if self.norm_first else self.norm(x)


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward network at each position; with a causal mask, a GPT layer.

    Order means nothing to it without that mask: permuted tokens give permuted outputs.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E.
        ff_dim: hidden width of the feed-forward network.
        dropout: probability with which a feature of a sublayer's output is dropped, in training only.
        norm_first: pre-norm instead of the paper's post-norm.

    Shape:
        - x: (B, T, E)
        - mask: bool, True = may be attended; four dimensions that broadcast to (B, heads, T, T)
        - attention(x): (B, heads, T, T), the weights of the self-attention
        - forward(x): (B, T, E)

    Second derivatives and forward mode need the kernel that `Attention` names, by `sdpa_kernel`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide E, `dropout` is not in [0, 1), or the
            shapes of `x` and `mask` do not fit.
        TypeError: `mask` is not bool.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, ff_dim: int, dropout: float = 0.1, norm_first: bool = False
    ) -> None:
        super().__init__()
        self.self_attention = Attention(embed_dim, num_heads)
        self.feed_forward = _feed_forward(embed_dim, ff_dim)
        self.add1, self.add2 = (AddNorm(embed_dim, dropout, norm_first) for _ in range(2))

    def attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the weights of the self-attention: (B, T, E) -> (B, heads, T, T)."""
        y = self.add1.enter(x)
        return self.self_attention.attention(y, y, mask)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the tokens after both sublayers: (B, T, E) -> (B, T, E)."""
        x = self.add1(x, lambda y: self.self_attention(y, y, mask))
        output: Tensor = self.add2(x, self.feed_forward)
        return output


class LayerState(NamedTuple):
    """What a decoder layer keeps: of the target so far, and of the memory, which does not grow.

    Attributes:
        keys, values: (B, heads, t, d), of the t target tokens that were read.
        memory_keys, memory_values: (B, heads, S, d).
        memory_mask: bool, four dimensions that broadcast to (B, heads, 1, S); None if all may be attended.
    """

    keys: Tensor
    values: Tensor
    memory_keys: Tensor
    memory_values: Tensor
    memory_mask: Tensor | None


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder's output `memory`, feed-forward network.

    Args:
        embed_dim, num_heads, ff_dim, dropout, norm_first: as in `EncoderLayer`.

    Shape:
        - x: (B, T, E); token t is changed by tokens 0 to t and by the memory
        - memory: (B, S, E)
        - memory_mask: bool, True = may be attended; four dimensions that broadcast to (B, heads, T, S)
        - attention(x, memory): (B, heads, T, S), the weights of the cross-attention
        - forward(x, memory): (B, T, E)
        - start(memory): a `LayerState`, for a mask with T = 1
        - step(x, state): (B, T, E), the next tokens, and the new state

    Second derivatives and forward mode need the kernel that `Attention` names, by `sdpa_kernel`.

    Raises:
        ValueError: as in `EncoderLayer`, the shapes of `x`, `memory` and `memory_mask` do not fit, or `state`
            is not one of this layer for `x` and its dtype.
        TypeError: `memory_mask` is not bool.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, ff_dim: int, dropout: float = 0.1, norm_first: bool = False
    ) -> None:
        super().__init__()
        self.self_attention = Attention(embed_dim, num_heads)
        self.cross_attention = Attention(embed_dim, num_heads)
        self.feed_forward = _feed_forward(embed_dim, ff_dim)
        self.add1, self.add2, self.add3 = (AddNorm(embed_dim, dropout, norm_first) for _ in range(3))

    def attention(self, x: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """Return the weights of the cross-attention: (B, T, E) and (B, S, E) -> (B, heads, T, S)."""
        y = self.add2.enter(self._read_target(x))
        return self.cross_attention.attention(y, memory, memory_mask)

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """Return the tokens after all three sublayers: (B, T, E) and (B, S, E) -> (B, T, E)."""
        x = self._read_target(x)
        x = self.add2(x, lambda y: self.cross_attention(y, memory, memory_mask))
        output: Tensor = self.add3(x, self.feed_forward)
        return output

    def start(self, memory: Tensor, memory_mask: Tensor | None = None) -> LayerState:
        """Project the memory, once for all tokens to come."""
        if memory.dim() != 3:
            raise ValueError(f"memory {tuple(memory.shape)} must be (B, S, E)")
        k, v = self.cross_attention.project(memory)  # (B, heads, S, d)
        _check_mask(memory_mask, (*k.shape[:2], 1, k.shape[2]))
        return LayerState(k[:, :, :0], v[:, :, :0], k, v, memory_mask)

    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        if x.dim() != 3:
            raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
        k, v = self.self_attention.project(self.add1.enter(x))  # (B, heads, T, d)
        _check_state(state, k)
        mask = causal_mask(x.shape[1], x.device, past=state.keys.shape[2])
        keys, values = torch.cat([state.keys, k], dim=2), torch.cat([state.values, v], dim=2)
        memory = (state.memory_keys, state.memory_values, state.memory_mask)
        x = self.add1(x, lambda y: self.self_attention.read(y, keys, values, mask))
        x = self.add2(x, lambda y: self.cross_attention.read(y, *memory))
        return self.add3(x, self.feed_forward), LayerState(keys, values, *memory)

    def _read_target(self, x: Tensor) -> Tensor:
        mask = causal_mask(x.shape[1], x.device)
        read: Tensor = self.add1(x, lambda y: self.self_attention(y, y, mask))
        return read


class TransformerState(NamedTuple):
    """What the decoder keeps between steps.

    Attributes:
        layers: one `LayerState` for each decoder layer.
    """

    layers: tuple[LayerState, ...]


class Transformer(nn.Module):
    """Encoder and decoder.

    Args:
        embed_dim: width E of all tokens; even.
        num_heads: number of heads; divides E.
        ff_dim: hidden width F of the feed-forward networks; 4 E if not given.
        num_layers: layers of the encoder, and as many of the decoder.
        dropout: probability with which a feature of the input or of a sublayer's output is dropped, in
            training only.
        norm_first: pre-norm instead of the paper's post-norm.

    Shape:
        - source: (B, S, E), embedded tokens; positions are added here
        - target: (B, T, E), likewise: a start token, then the output so far
        - source_mask: (B, S), bool, True = may be attended; False at padding. Padding at the end of the
          target needs no mask, since no earlier token sees it
        - attention(source, target): (B, layers, heads, T, S), the cross-attention
        - forward(source, target): (B, T, E); output t has seen the whole source and target 0 to t
        - start(source): a `TransformerState`
        - step(target, state): (B, T, E), for the next T tokens of the target, and the new state

    Second derivatives and forward mode need the kernel that `Attention` names, by `sdpa_kernel`.

    Raises:
        ValueError: a size is below 1, E is odd or not divisible by `num_heads`, `dropout` is not in [0, 1),
            the shapes of `source`, `target` and `source_mask` do not fit, or `state` is not one of this model
            for `target` and its dtype.
        TypeError: `source_mask` is not bool.

    What comes later changes nothing before it, so all outputs can be trained at once:

    >>> model, (source, target) = example()
    >>> output = model(source, target)
    >>> torch.allclose(model(source, target[:, :3]), output[:, :3], atol=1e-5)
    True

    To write, it reads the source once, and each target token as it comes:

    >>> state = model.start(source)
    >>> y, state = model.step(target[:, :4], state)
    >>> y, state = model.step(target[:, 4:], state)
    >>> torch.allclose(y, output[:, 4:], atol=1e-5)
    True

    Layers of the paper's base model:

    >>> layers = EncoderLayer(512, 8, 2048), DecoderLayer(512, 8, 2048)
    >>> [sum(p.numel() for p in layer.parameters()) for layer in layers]
    [3152384, 4204032]

    Post-norm ends in a LayerNorm whatever the weights; its outputs have mean 0 and variance 1:

    >>> bool(output.mean(dim=-1).abs().max() < 1e-6), round(output.var(unbiased=False).item(), 3)
    (True, 1.0)
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        ff_dim: int | None = None,
        num_layers: int = 6,
        dropout: float = 0.1,
        norm_first: bool = False,
    ) -> None:
        super().__init__()
        ff_dim = 4 * embed_dim if ff_dim is None else ff_dim
        if embed_dim < 2 or embed_dim % 2:
            raise ValueError(f"embed_dim {embed_dim} must be even and at least 2")
        if num_layers < 1:
            raise ValueError(f"num_layers {num_layers} must be at least 1")
        sizes = (embed_dim, num_heads, ff_dim, dropout, norm_first)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(num_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(num_layers))
        self.encoder_norm = nn.LayerNorm(embed_dim) if norm_first else nn.Identity()
        self.decoder_norm = nn.LayerNorm(embed_dim) if norm_first else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """Return what the decoder reads, the memory: (B, S, E) -> (B, S, E)."""
        mask = _padding(source_mask, source)
        x = self._start(source)
        for layer in self.encoder:
            x = layer(x, mask)
        memory: Tensor = self.encoder_norm(x)
        return memory

    def decode(self, target: Tensor, memory: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """Return the outputs, none of which has seen later tokens: (B, T, E) -> (B, T, E)."""
        mask = _padding(source_mask, memory)
        x = self._start(target)
        for layer in self.decoder:
            x = layer(x, memory, mask)
        output: Tensor = self.decoder_norm(x)
        return output

    def start(self, source: Tensor, source_mask: Tensor | None = None) -> TransformerState:
        """Encode the source, once for all target tokens to come."""
        memory, mask = self.encode(source, source_mask), _padding(source_mask, source)
        layers = []
        for layer in self.decoder:
            assert isinstance(layer, DecoderLayer)
            layers.append(layer.start(memory, mask))
        return TransformerState(tuple(layers))

    def step(self, target: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """Read the next target tokens; return what `forward` would give them, and the new state."""
        if not isinstance(state, TransformerState):
            raise ValueError(f"state {type(state).__name__} must be a TransformerState")
        if len(state.layers) != len(self.decoder):
            raise ValueError(f"state layers {len(state.layers)} must be {len(self.decoder)}")
        x = self._start(target, first=_tokens(state.layers[0].keys))
        layers = []
        for layer, kept in zip(self.decoder, state.layers, strict=True):
            assert isinstance(layer, DecoderLayer)
            x, now = layer.step(x, kept)
            layers.append(now)
        return self.decoder_norm(x), TransformerState(tuple(layers))

    def attention(self, source: Tensor, target: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """Return g, how each decoder layer attends to the source: (B, layers, heads, T, S)."""
        memory, mask = self.encode(source, source_mask), _padding(source_mask, source)
        x = self._start(target)
        weights = []
        for layer in self.decoder:
            assert isinstance(layer, DecoderLayer)
            weights.append(layer.attention(x, memory, mask))
            x = layer(x, memory, mask)
        return torch.stack(weights, dim=1)

    def forward(self, source: Tensor, target: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """Return the outputs: (B, S, E) and (B, T, E) -> (B, T, E)."""
        return self.decode(target, self.encode(source, source_mask), source_mask)

    def _start(self, x: Tensor, first: int = 0) -> Tensor:
        if x.dim() != 3:
            raise ValueError(f"tokens {tuple(x.shape)} must be (B, T, E)")
        positions = sinusoidal_positions(x.shape[1], x.shape[2], first).to(x.device, x.dtype)
        started: Tensor = self.dropout(x + positions)
        return started


def _feed_forward(embed_dim: int, ff_dim: int) -> nn.Sequential:
    if ff_dim < 1:
        raise ValueError(f"ff_dim {ff_dim} must be at least 1")
    return nn.Sequential(nn.Linear(embed_dim, ff_dim), nn.ReLU(), nn.Linear(ff_dim, embed_dim))


def _padding(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """Give a mask of tokens (B, S) the axes of heads and queries: (B, 1, 1, S)."""
    if mask is None:
        return None
    if mask.shape != x.shape[:2]:
        raise ValueError(f"mask {tuple(mask.shape)} must be (B, S) = {tuple(x.shape[:2])}")
    return mask[:, None, None, :]


def _check_mask(mask: Tensor | None, shape: tuple[int, ...]) -> None:
    """Refuse a mask that is not bool or does not broadcast to (B, heads, T, S)."""
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
    fits = all(n in (1, full) for n, full in zip(mask.shape[::-1], shape[::-1], strict=False))
    if mask.dim() != 4 or not fits:
        raise ValueError(
            f"mask {tuple(mask.shape)} must have four dimensions that broadcast to (B, heads, T, S) = "
            f"{shape}; (T, S) is passed as mask[None, None], padding (B, S) as padding[:, None, None]"
        )


def _tokens(kept: Tensor) -> int:
    """Return S of (B, heads, S, d), 0 for what has another form and is refused."""
    return kept.shape[2] if kept.dim() == 4 else 0


def _check_state(state: LayerState, new: Tensor) -> None:
    """Refuse a state that cannot be of the layer with these new keys (B, heads, T, d)."""
    if not isinstance(state, LayerState):
        raise ValueError(f"state {type(state).__name__} must be a LayerState")
    B, heads, _, d = new.shape
    for kind in ("", "memory_"):
        keys, values = getattr(state, f"{kind}keys"), getattr(state, f"{kind}values")
        S = _tokens(keys)
        for name, kept in ((f"{kind}keys", keys), (f"{kind}values", values)):
            if kept.shape != (B, heads, S, d) or kept.dtype != new.dtype:
                raise ValueError(
                    f"state {name} {tuple(kept.shape)} of {kept.dtype} must be (B, heads, S, d) = "
                    f"{(B, heads, S, d)} of {new.dtype}"
                )


def example(
    B: int = 3, S: int = 7, T: int = 5, E: int = 24, heads: int = 4, layers: int = 2
) -> tuple[Transformer, tuple[Tensor, Tensor]]:
    """Return a seeded model and its input: B sources of S tokens and B targets of T tokens, E features."""
    torch.manual_seed(0)
    model = Transformer(E, heads, num_layers=layers).eval()
    return model, (torch.randn(B, S, E), torch.randn(B, T, E))


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    model, (source, target) = example(**sizes)
    B, layers, heads, T, S = model.attention(source, target).shape
    real = torch.arange(S).expand(B, S) % 4 < 3
    encoder_layer, decoder_layer = model.encoder[0], model.decoder[0]
    return {
        "pre_norm": (
            Transformer(source.shape[2], heads, num_layers=layers, norm_first=True).eval(),
            (source, target),
        ),
        "source_mask": (model, (source, target, real)),
        "causal_encoder_layer": (encoder_layer, (target, causal_mask(T).expand(B, 1, T, T))),
        "decoder_layer": (decoder_layer, (target, source, real[:, None, None])),
        "attention": (decoder_layer.get_submodule("cross_attention"), (target, source, real[:, None, None])),
    }


if __name__ == "__main__":
    model, (source, target) = example()
    weights = model.attention(source, target)
    print(f"source {tuple(source.shape)}, target {tuple(target.shape)}, weights {tuple(weights.shape)}")
    output = model(source, target)
    changed = torch.cat([target[:, :3], torch.randn_like(target[:, 3:])], dim=1)
    for t, change in enumerate((model(source, changed) - output).abs().amax(dim=(0, 2))):
        print(f"other target tokens 3 and 4 change output {t} by {change:.3f}")
