"""Sequence models beside the modules of torch itself."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.pair import Pair
from snippets.weight_assignment.hard.gumbel import GumbelAttention
from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from snippets.weight_assignment.self_attention.online_softmax import OnlineSoftmaxAttention
from snippets.weight_assignment.self_attention.self_attention import SelfAttention
from snippets.weight_assignment.self_attention.sliding_window import SlidingWindowAttention
from snippets.weight_assignment.self_attention.transformer import (
    DecoderLayer,
    EncoderLayer,
    causal_mask,
)
from snippets.weight_assignment.soft.cross_attention import CrossAttention

BATCH, TOKENS, WIDTH, SOURCE, HEADS = 2, 512, 256, 192, 8


def gumbel() -> Pair:
    """Draws with the same noise; straight through, the rest of the attention around torch's function."""
    ours = GumbelAttention(WIDTH, WIDTH).train()

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = F.linear(query, ours.W.weight) @ key.mT
        return F.gumbel_softmax(scores, ours.temperature, hard=True) @ value

    return Pair("torch.nn.functional.gumbel_softmax", ours, run, (tokens(), tokens(), tokens()))


def self_attention() -> Pair:
    ours = SelfAttention(WIDTH)
    theirs = nn.MultiheadAttention(WIDTH, 1, bias=False, batch_first=True)
    theirs.load_state_dict({"in_proj_weight": joined(ours, "weight"), "out_proj.weight": torch.eye(WIDTH)})
    return Pair("torch.nn.MultiheadAttention, 1 head", ours, to_itself(theirs), (tokens(),))


def multi_head() -> Pair:
    ours = MultiHeadAttention(WIDTH, HEADS)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    theirs.load_state_dict(stacked(ours))
    return Pair("torch.nn.MultiheadAttention", ours, to_itself(theirs), (tokens(),))


def cross_attention() -> Pair:
    """A source as long as the tokens that ask, three quarters as wide."""
    ours = CrossAttention(WIDTH, SOURCE, HEADS)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, kdim=SOURCE, vdim=SOURCE, batch_first=True)
    weights = {f"{name}_proj_weight": ours.get_parameter(f"{name}_proj.weight") for name in "qkv"}
    biases = {"in_proj_bias": joined(ours, "bias"), "out_proj.bias": ours.out_proj.bias}
    theirs.load_state_dict({**weights, **biases, "out_proj.weight": ours.out_proj.weight})

    def run(x: Tensor, source: Tensor) -> Tensor:
        y: Tensor = theirs(x, source, source, need_weights=False)[0]
        return y

    source = torch.randn(BATCH, TOKENS, SOURCE)
    return Pair("torch.nn.MultiheadAttention, kdim", ours, run, (tokens(), source))


def sliding_window() -> Pair:
    """At 8192 tokens and a window of 256, beside one mask for all pairs, which is made before."""
    ours = SlidingWindowAttention(64, 2, 256)
    distance = torch.arange(8192)[:, None] - torch.arange(8192)
    visible = (distance >= 0) & (distance < 256)

    def run(x: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(2, (2, -1)).transpose(1, 2) for part in (ours.q_proj, ours.k_proj, ours.v_proj)
        )
        y: Tensor = ours.out_proj(F.scaled_dot_product_attention(q, k, v, visible).transpose(1, 2).flatten(2))
        return y

    return Pair(
        "torch.nn.functional.scaled_dot_product_attention, mask", ours, run, (torch.randn(1, 8192, 64),)
    )


def online_softmax() -> Pair:
    return Pair(
        "F.scaled_dot_product_attention", OnlineSoftmaxAttention(), F.scaled_dot_product_attention, long()
    )


def online_softmax_explicit() -> Pair:
    ours = OnlineSoftmaxAttention()

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        y: Tensor = (query @ key.mT * query.shape[-1] ** -0.5).softmax(dim=-1) @ value
        return y

    return Pair("the explicit softmax", ours, run, long())


def transformer_encoder() -> Pair:
    ours = EncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0)
    theirs = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True)
    theirs.load_state_dict(named(ours))
    return Pair("torch.nn.TransformerEncoderLayer", ours, theirs, (tokens(),))


def transformer_decoder() -> Pair:
    ours = DecoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0)
    theirs = nn.TransformerDecoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True)
    theirs.load_state_dict(named(ours))
    hidden = ~causal_mask(TOKENS)[0, 0]

    def run(x: Tensor, memory: Tensor) -> Tensor:
        y: Tensor = theirs(x, memory, tgt_mask=hidden, tgt_is_causal=True)
        return y

    return Pair("torch.nn.TransformerDecoderLayer", ours, run, (tokens(), tokens()))


def tokens() -> Tensor:
    return torch.randn(BATCH, TOKENS, WIDTH)


def long() -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one head, 8192 tokens."""
    query, key, value = torch.randn(3, 1, 1, 8192, 64)
    return query, key, value


def to_itself(theirs: nn.MultiheadAttention) -> Callable[[Tensor], Tensor]:
    return lambda x: theirs(x, x, x, need_weights=False)[0]


def joined(ours: nn.Module, kind: str) -> Tensor:
    """The three projections as one."""
    return torch.cat([getattr(getattr(ours, f"{name}_proj"), kind) for name in "qkv"])


def stacked(ours: nn.Module) -> dict[str, Tensor]:
    """The state of multi-head attention under the names of torch."""
    return {
        "in_proj_weight": joined(ours, "weight"),
        "in_proj_bias": joined(ours, "bias"),
        "out_proj.weight": ours.get_parameter("out_proj.weight"),
        "out_proj.bias": ours.get_parameter("out_proj.bias"),
    }


def named(ours: EncoderLayer | DecoderLayer) -> dict[str, Tensor]:
    """The state of a layer under the names of torch."""
    attentions = {"self_attn": ours.self_attention}
    parts = {"linear1": ours.feed_forward[0], "linear2": ours.feed_forward[2]}
    parts |= {"norm1": ours.add1.norm, "norm2": ours.add2.norm}
    if isinstance(ours, DecoderLayer):
        attentions["multihead_attn"] = ours.cross_attention
        parts["norm3"] = ours.add3.norm
    state = {
        f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.state_dict().items()
    }
    for name, attention in attentions.items():
        state |= {f"{name}.{key}": tensor for key, tensor in stacked(attention).items()}
    return state
