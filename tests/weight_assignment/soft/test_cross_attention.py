"""Proofs of cross-attention."""

import math
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BartConfig, EncoderDecoderCache, MllamaTextConfig
from transformers.cache_utils import DynamicCache
from transformers.models.bart.modeling_bart import BartAttention
from transformers.models.mllama.modeling_mllama import MllamaCrossAttentionDecoderLayer

from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from snippets.weight_assignment.soft.cross_attention import (
    CrossAttention,
    GatedCrossAttention,
    Source,
    example,
)
from tests.measure import Measured


def linear(x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    y = torch.einsum("...i,oi->...o", x, W)
    return y if b is None else y + b


def read(q: Tensor, keys: list[Tensor], values: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Weights of the allowed keys, one at least, and the mean of their values."""
    e = [torch.exp((q * k).sum() / math.sqrt(len(q))) for k in keys]
    weights = [a / sum(e) for a in e]
    return weights, sum(a * v for a, v in zip(weights, values, strict=True))


def naive(
    x: Tensor,
    source: Tensor,
    W_Q: Tensor,
    b_Q: Tensor | None,
    W_K: Tensor,
    b_K: Tensor | None,
    W_V: Tensor,
    b_V: Tensor | None,
    W_O: Tensor,
    b_O: Tensor | None,
    heads: int,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """x (B,T,E) reads source (B,S,C) where mask (B,S) is True; returns (B,heads,T,S) and (B,T,E)."""
    (B, T, _), S, d = x.shape, source.shape[1], W_Q.shape[0] // heads
    q, k, v = linear(x, W_Q, b_Q), linear(source, W_K, b_K), linear(source, W_V, b_V)
    weights, out = x.new_zeros(B, heads, T, S), []
    for b in range(B):
        seen = [j for j in range(S) if mask is None or bool(mask[b, j])]
        rows = []
        for i in range(T):
            parts = []
            for h in range(heads):
                own = slice(h * d, (h + 1) * d)
                keys, values = [k[b, j, own] for j in seen], [v[b, j, own] for j in seen]
                part = v.new_zeros(d)
                if seen:
                    row, part = read(q[b, i, own], keys, values)
                    weights[b, h, i, seen] = torch.stack(row)
                parts.append(part)
            rows.append(torch.cat(parts))
        out.append(torch.stack(rows))
    return weights, linear(torch.stack(out), W_O, b_O)


Layer = TypeVar("Layer", bound=nn.Module)


def prepared(layer: Layer) -> Layer:
    """The layer in float64 and eval mode with large random parameters."""
    torch.manual_seed(1)
    for parameter in layer.double().eval().parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer


def tokens(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def small(E: int = 6, C: int = 5, heads: int = 2, bias: bool = True) -> tuple[CrossAttention, Tensor, Tensor]:
    """A layer, three tokens that ask and five to read, in two samples."""
    return prepared(CrossAttention(E, C, heads, bias)), tokens(2, 3, E), tokens(2, 5, C)


REAL = torch.tensor([[True, True, True, True, True], [True, False, True, False, False]])


def projections(layer: CrossAttention) -> list[Tensor | None]:
    linears = (layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj)
    return [tensor for linear in linears for tensor in (linear.weight, linear.bias)]


@pytest.mark.parametrize("mask", [None, REAL], ids=["", "padded"])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_naive_reference(measured: Measured, bias: bool, mask: Tensor | None) -> None:
    layer, x, source = small(bias=bias)
    weights, y = naive(x, source, *projections(layer), heads=2, mask=mask)
    measured.close(layer.attention(x, source, mask), weights)
    measured.close(layer(x, source, mask), y)
    measured.gradients(layer(x, source, mask), y, of=(x, source, *layer.parameters()))
    measured.gradients(layer.attention(x, source, mask), weights, of=(x, source, layer.k_proj.weight))


def test_gated_form_equals_naive_reference(measured: Measured) -> None:
    layer, x, source = prepared(GatedCrossAttention(6, 5, 2)), tokens(2, 3, 6), tokens(2, 5, 5)
    y = x + torch.tanh(layer.alpha) * naive(x, source, *projections(layer), heads=2, mask=REAL)[1]
    measured.close(layer(x, source, REAL), y)
    measured.gradients(layer(x, source, REAL), y, of=(x, source, *layer.parameters()))


def public(layer: CrossAttention) -> nn.MultiheadAttention:
    """torch's own module with the same weights."""
    E, C = layer.q_proj.in_features, layer.k_proj.in_features
    theirs = nn.MultiheadAttention(E, layer.num_heads, kdim=C, vdim=C, batch_first=True).double()
    inner = (layer.q_proj, layer.k_proj, layer.v_proj)
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    state = {name: linear.weight for name, linear in zip(names, inner, strict=True)}
    state["in_proj_bias"] = torch.cat([linear.bias for linear in inner])
    theirs.load_state_dict(state | {f"out_proj.{key}": p for key, p in layer.out_proj.state_dict().items()})
    return theirs


def test_equals_torch_module_with_a_width_of_its_own(measured: Measured) -> None:
    layer, x, source = small(E=12, C=10, heads=3)
    theirs = public(layer)
    y, weights = theirs(x, source, source, key_padding_mask=~REAL, average_attn_weights=False)
    measured.close(layer.attention(x, source, REAL), weights)
    measured.close(layer(x, source, REAL), y)
    measured.gradients(layer(x, source, REAL), y, of=(x, source))
    cotangent = torch.randn_like(y)
    y.backward(cotangent)
    layer(x, source, REAL).backward(cotangent)
    for ours, other in (
        (layer.q_proj.weight, theirs.q_proj_weight),
        (layer.k_proj.weight, theirs.k_proj_weight),
        (layer.v_proj.weight, theirs.v_proj_weight),
        (layer.out_proj.weight, theirs.out_proj.weight),
    ):
        measured.close(ours.grad, other.grad)


def bart(layer: CrossAttention) -> BartAttention:
    """The cross-attention of a BART decoder with the same weights."""
    config = BartConfig(attn_implementation="sdpa")
    theirs = BartAttention(
        layer.q_proj.in_features, layer.num_heads, is_decoder=True, config=config, layer_idx=0
    )
    theirs.double().load_state_dict(layer.state_dict())
    return theirs


def test_equals_the_layer_of_bart(measured: Measured) -> None:
    layer, x, source = small(E=12, C=12, heads=3)
    y, _ = bart(layer)(x, source, attention_mask=REAL[:, None, None])
    measured.close(layer(x, source, REAL), y)
    measured.gradients(layer(x, source, REAL), y, of=(x, source))


def test_bart_keeps_the_first_source_whatever_follows(measured: Measured) -> None:
    layer, x, source = small(E=12, C=12, heads=3)
    theirs, other, state = bart(layer), tokens(2, 5, 12), layer.start(source)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    for token in x.split(1, dim=1):
        measured.close(layer.step(token, state)[0], theirs(token, source, cache)[0])
    late, _ = theirs(x, other, cache)
    measured.close(late, layer(x, source))
    measured.value("differs from the new source", (late - layer(x, other)).abs().max().item(), above=0.1)


def mllama(layer: GatedCrossAttention) -> MllamaCrossAttentionDecoderLayer:
    """The gated layer of Llama 3.2 with the same weights, without its norms and its feed-forward network."""
    E = layer.q_proj.in_features
    config = MllamaTextConfig(
        hidden_size=E, num_attention_heads=layer.num_heads, num_key_value_heads=layer.num_heads,
        intermediate_size=E, attn_implementation="sdpa",
    )  # fmt: skip
    theirs = MllamaCrossAttentionDecoderLayer(config, layer_idx=0).double().eval()
    theirs.input_layernorm = theirs.cross_attn.q_norm = theirs.cross_attn.k_norm = nn.Identity()
    weights = {key: p for key, p in layer.state_dict().items() if key != "alpha"}
    theirs.cross_attn.load_state_dict({key.replace("out_", "o_"): p for key, p in weights.items()})
    nn.init.constant_(theirs.cross_attn_attn_gate, layer.alpha.item())
    return theirs


def reads(layer: MllamaCrossAttentionDecoderLayer, x: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
    return layer(x, source, mask, attention_mask=None, full_text_row_masked_out_mask=None)


def test_gated_form_equals_the_layer_of_llama(measured: Measured) -> None:
    layer, x, source = (
        prepared(GatedCrossAttention(12, 12, 3, bias=False)),
        tokens(2, 3, 12),
        tokens(2, 5, 12),
    )
    y = reads(mllama(layer), x, source, REAL[:, None, None])
    measured.close(layer(x, source, REAL), y)
    measured.gradients(layer(x, source, REAL), y, of=(x, source))


def test_the_layer_of_llama_without_a_mask_hides_the_end_of_the_source(measured: Measured) -> None:
    layer, x, source = (
        prepared(GatedCrossAttention(12, 12, 3, bias=False)),
        tokens(2, 3, 12),
        tokens(2, 5, 12),
    )
    y = reads(mllama(layer), x, source, None)
    for t in range(3):
        measured.close(y[:, t], layer(x, source[:, : t + 1])[:, t])
    measured.value("differs from the whole source", (y - layer(x, source)).abs().max().item(), above=0.1)


def test_order_of_the_source_means_nothing(measured: Measured) -> None:
    layer, x, source = small()
    order = torch.tensor([3, 0, 4, 1, 2])
    measured.close(layer(x, source[:, order], REAL[:, order]), layer(x, source, REAL))
    measured.close(layer.attention(x, source[:, order]), layer.attention(x, source)[..., order])


def test_tokens_that_ask_do_not_see_each_other(measured: Measured) -> None:
    layer, x, source = small()
    before = layer(x, source)
    for t in range(3):
        other = torch.cat([x[:, :t], tokens(2, 1, 6), x[:, t + 1 :]], dim=1)
        change = (layer(other, source) - before).abs().amax(dim=(0, 2))
        assert change[t] > 1e-3
        measured.value("change of the others", change.sum().item() - change[t].item(), at_most=1e-10)


def test_a_source_kept_once_gives_what_one_pass_gives(measured: Measured) -> None:
    for kind in (CrossAttention, GatedCrossAttention):
        layer, x, source = prepared(kind(6, 5, 2)), tokens(2, 3, 6), tokens(2, 5, 5)
        state = layer.start(source, REAL)
        steps = torch.cat([layer.step(token, state)[0] for token in x.split(1, dim=1)], dim=1)
        measured.close(steps, layer(x, source, REAL))
        measured.gradients(steps, layer(x, source, REAL), of=(x, source, *layer.parameters()))


def multiply_adds(layer: CrossAttention, x: Tensor, source: Tensor, kept: bool) -> int:
    """Of a decoder that writes T tokens, with the source projected once or at each of them."""
    with FlopCounterMode(display=False) as counter:
        state = layer.start(source)
        for number, token in enumerate(x.split(1, dim=1)):
            state = state if kept or not number else layer.start(source)
            layer.step(token, state)
    return counter.get_total_flops() // 2


def test_multiply_adds_of_writing_a_text(measured: Measured) -> None:
    with torch.device("meta"):
        layer = CrossAttention(512, 512, 8)
        x, source = torch.empty(1, 1000, 512), torch.empty(1, 1000, 512)
    kept, again = (multiply_adds(layer, x, source, kept) for kept in (True, False))
    measured.count(kept, 2 * 512 * (1000 * 512 + 1000 * 512 + 1000 * 1000))
    measured.value("source projected at each token, times as many", again / kept, equals=253.7, within=0.1)


def test_one_token_to_read_leaves_no_choice(measured: Measured) -> None:
    layer, x, source = small()
    alone = source[:, :1]
    measured.close(layer.attention(x, alone), torch.ones(2, 2, 3, 1, dtype=torch.float64))
    measured.close(layer(x, alone), layer.out_proj(layer.v_proj(alone)).expand(-1, 3, -1))


def test_a_source_read_twice_over_is_the_same_source(measured: Measured) -> None:
    layer, x, source = small()
    measured.close(layer(x, torch.cat([source, source], dim=1)), layer(x, source))


def test_masked_tokens_of_the_source_are_as_if_deleted(measured: Measured) -> None:
    layer, x, source = small()
    real = torch.tensor([True, True, False, True, False]).expand(2, 5)
    measured.close(layer(x, source, real), layer(x, source[:, [0, 1, 3]]))
    hidden = layer.attention(x, source, real)[..., [2, 4]]
    measured.close(hidden, torch.zeros_like(hidden), tolerance=0)


def test_a_source_of_padding_alone_gives_the_output_bias(measured: Measured) -> None:
    layer, x, source = small()
    hidden = torch.zeros(2, 5, dtype=torch.bool)
    y, weights = layer(x, source, hidden), layer.attention(x, source, hidden)
    measured.close(y, layer.out_proj.bias.expand_as(y), tolerance=0)
    measured.close(weights, torch.zeros_like(weights), tolerance=0)
    gradients = torch.autograd.grad(y.square().sum(), (x, source, *layer.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_two_sources_in_one_softmax_are_a_mean_of_both(measured: Measured) -> None:
    layer, x, (first, second) = prepared(CrossAttention(6, 5, 1)), tokens(2, 3, 6), tokens(2, 2, 4, 5)
    together = layer(x, torch.cat([first, second], dim=1))
    share = layer.attention(x, torch.cat([first, second], dim=1))[:, 0, :, :4].sum(dim=-1, keepdim=True)
    measured.close(share * layer(x, first) + (1 - share) * layer(x, second), together)
    gap = (layer(x, first) + layer(x, second) - layer.out_proj.bias - together).abs().max().item()
    measured.value("differs from the sum of both", gap, above=0.1)


def test_reading_itself_is_multi_head_self_attention(measured: Measured) -> None:
    layer, x, _ = small(C=6)
    other = MultiHeadAttention(6, 2).double()
    other.load_state_dict(layer.state_dict())
    measured.close(layer(x, x), other(x))
    measured.gradients(layer(x, x), other(x), of=(x,))


def test_a_closed_gate_changes_nothing_and_opens(measured: Measured) -> None:
    layer, x, source = prepared(GatedCrossAttention(6, 5, 2)), tokens(2, 3, 6), tokens(2, 5, 5)
    layer.reset_parameters()
    measured.close(layer(x, source), x, tolerance=0)
    *others, gate = torch.autograd.grad(
        layer(x, source).sin().sum(), [p for n, p in layer.named_parameters() if n != "alpha"] + [layer.alpha]
    )
    measured.value("gradient of the gate", gate.abs().item(), above=0.1)
    measured.value("of all else", max(g.abs().max().item() for g in others), equals=0)


def test_parameters(measured: Measured) -> None:
    def size(layer: nn.Module) -> int:
        return sum(p.numel() for p in layer.parameters())

    layer = CrossAttention(32, 20, 4)
    measured.count(size(layer), 3456)
    assert size(public(layer.double())) == 3456
    measured.count(size(GatedCrossAttention(32, 20, 4)), 3457)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((24, 20, 5), "embed_dim 24 must be divisible by num_heads 5"),
        ((0, 20, 4), "embed_dim 0, source_dim 20 and num_heads 4 must be at least 1"),
        ((24, 0, 4), "source_dim 0"),
        ((24, 20, 0), "num_heads 0"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, int, int], message: str) -> None:
    for kind in (CrossAttention, GatedCrossAttention):
        with pytest.raises(ValueError, match=message):
            kind(*arguments)


def test_refuses_masks_that_do_not_fit() -> None:
    layer, (x, source) = example()
    for call in (layer, layer.attention):
        for shape in ((11,), (2, 7), (1, 11), (2, 1, 1, 11)):
            with pytest.raises(ValueError, match=r"must be \(B, S\) = \(2, 11\)"):
                call(x, source, torch.ones(shape, dtype=torch.bool))
        with pytest.raises(TypeError, match="True = may be attended"):
            call(x, source, torch.ones(2, 11))


def test_refuses_tokens_that_would_broadcast() -> None:
    layer, (x, source) = example()
    for pair in ((x[0], source), (x, source[0]), (x[:1], source), (x, source[:1])):
        for call in (layer, layer.attention):
            with pytest.raises(ValueError, match=r"\(B, T, E\) and \(B, S, C\) with the same B"):
                call(*pair)
    with pytest.raises(ValueError, match=r"x \(7, 24\) must be \(B, T, E\)"):
        layer.step(x[0], layer.start(source))
    with pytest.raises(ValueError, match=r"source \(11, 20\) must be \(B, S, C\)"):
        layer.start(source[0])


def test_refuses_a_state_of_other_heads() -> None:
    layer, (x, source) = example()
    keys, values, mask = CrossAttention(24, 20, 3).start(source)
    with pytest.raises(
        ValueError, match=r"^state keys \(2, 3, 11, 8\) of torch.float32 must be .* \(2, 4, 11, 6\)"
    ):
        layer.step(x, Source(keys, values, mask))
