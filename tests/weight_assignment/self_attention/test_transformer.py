"""Proofs of the Transformer's encoder and decoder."""

import math
import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3Config, Qwen3NextConfig
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextDecoderLayer

from snippets.foundations.rotary import RotaryAttention, angles
from snippets.weight_assignment.self_attention.bounded_logits import BoundedAttention
from snippets.weight_assignment.self_attention.grouped_query import GroupedQueryAttention
from snippets.weight_assignment.self_attention.output_gate import GatedAttention
from snippets.weight_assignment.self_attention.transformer import (
    Attention,
    DecoderLayer,
    EncoderLayer,
    Transformer,
    causal_mask,
    example,
    sinusoidal_positions,
)
from tests.conftest import ROOT
from tests.measure import Measured

EXCEPTIONS = {
    "test_takes_device_and_type_from_its_input": {
        "transformer": "positions start on the default device; the input's may lack float64",
        "transformer:pre_norm": "positions start on the default device; the input's may lack float64",
        "transformer:source_mask": "positions start on the default device; the input's may lack float64",
    },
}
"""Checks of the contract that it cannot pass, with the reason."""

Params = Mapping[str, Tensor]
Mask = Tensor | None


def linear(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    return torch.stack([(W[o] * x).sum(dim=-1) + b[o] for o in range(W.shape[0])], dim=-1)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    gap = x - x.sum(dim=-1, keepdim=True) / x.shape[-1]
    return gap / torch.sqrt((gap**2).sum(dim=-1, keepdim=True) / x.shape[-1] + eps) * weight + bias


def feed_forward(x: Tensor, p: Params) -> Tensor:
    u = linear(x, p["linear1.weight"], p["linear1.bias"])
    return linear(torch.where(u > 0, u, torch.zeros_like(u)), p["linear2.weight"], p["linear2.bias"])


def attention(xq: Tensor, xk: Tensor, p: Params, name: str, heads: int, mask: Mask) -> Tensor:
    """xq (B,T,E), xk (B,S,E), mask broadcastable to (B,T,S), True = may attend; no key allowed reads 0."""
    (B, T, E), S, d = xq.shape, xk.shape[1], xq.shape[2] // heads
    W, b = p[name + ".in_proj_weight"], p[name + ".in_proj_bias"]
    q, k, v = (linear(x, W[i * E : (i + 1) * E], b[i * E : (i + 1) * E]) for i, x in enumerate((xq, xk, xk)))
    may = (torch.ones(B, T, S, dtype=torch.bool) if mask is None else mask.expand(B, T, S)).tolist()
    rows = []
    for n, t in ((n, t) for n in range(B) for t in range(T)):
        keys, read = [s for s in range(S) if may[n][t][s]], []
        for h in range(heads):
            own = slice(h * d, (h + 1) * d)
            e = [(q[n, t, own] * k[n, s, own]).sum() / math.sqrt(d) for s in keys]
            exps = [torch.exp(x - max(float(y.detach()) for y in e)) for x in e]
            parts = [x / sum(exps) * v[n, s, own] for x, s in zip(exps, keys, strict=True)]
            read.append(sum(parts, xq.new_zeros(d)))
        rows.append(torch.cat(read))
    return linear(
        torch.stack(rows).reshape(B, T, E), p[name + ".out_proj.weight"], p[name + ".out_proj.bias"]
    )


def residual(x: Tensor, sub: Callable[[Tensor], Tensor], p: Params, norm: str, pre: bool) -> Tensor:
    w, b = p[norm + ".weight"], p[norm + ".bias"]
    return x + sub(layer_norm(x, w, b)) if pre else layer_norm(x + sub(x), w, b)


def naive_encoder_layer(x: Tensor, p: Params, heads: int, pre: bool, mask: Mask = None) -> Tensor:
    x = residual(x, lambda z: attention(z, z, p, "self_attn", heads, mask), p, "norm1", pre)
    return residual(x, lambda z: feed_forward(z, p), p, "norm2", pre)


def naive_decoder_layer(
    x: Tensor, memory: Tensor, p: Params, heads: int, pre: bool, mask: Mask = None, memory_mask: Mask = None
) -> Tensor:
    """x (B,T,E), memory (B,S,E) (not normalised here); mask broadcastable to (B,T,T), j <= i added."""
    may = torch.tensor([[[j <= i for j in range(x.shape[1])] for i in range(x.shape[1])]])
    may = may if mask is None else may & mask
    x = residual(x, lambda z: attention(z, z, p, "self_attn", heads, may), p, "norm1", pre)
    x = residual(x, lambda z: attention(z, memory, p, "multihead_attn", heads, memory_mask), p, "norm2", pre)
    return residual(x, lambda z: feed_forward(z, p), p, "norm3", pre)


def naive_positions(length: int, d: int, base: float = 10000.0) -> Tensor:
    """(length, d): sin(p / base^(2i/d)) in column 2i, the cosine of it in column 2i + 1."""
    angle = [[p / base ** (2 * (c // 2) / d) for c in range(d)] for p in range(length)]
    rows = [[math.cos(t) if c % 2 else math.sin(t) for c, t in enumerate(r)] for r in angle]
    return torch.tensor(rows, dtype=torch.float64).reshape(length, d)


Module = TypeVar("Module", bound=nn.Module)


def prepared(module: Module) -> Module:
    """The module in float64 and eval mode with large random weights, those of its norms included."""
    torch.manual_seed(1)
    for parameter in module.double().eval().parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def tokens(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def real(*lengths: int, longest: int) -> Tensor:
    """True at real tokens, False at padding: (B, longest)."""
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


def later(length: int) -> Tensor:
    """torch's causal mask: True at later tokens, which are ignored."""
    return nn.Transformer.generate_square_subsequent_mask(length).isinf()


def stacked(attention: Attention) -> dict[str, Tensor]:
    """Parameters of an attention under torch's names, with three projections in one matrix."""
    inner = (attention.q_proj, attention.k_proj, attention.v_proj)
    return {
        "in_proj_weight": torch.cat([linear.weight for linear in inner]),
        "in_proj_bias": torch.cat([linear.bias for linear in inner]),
        "out_proj.weight": attention.out_proj.weight,
        "out_proj.bias": attention.out_proj.bias,
    }


def named(layer: Any) -> dict[str, Tensor]:
    """Parameters of a layer under the names of torch's layers; gradients still reach the layer."""
    found = {f"self_attn.{key}": tensor for key, tensor in stacked(layer.self_attention).items()}
    parts = {"linear1": layer.feed_forward[0], "linear2": layer.feed_forward[2]}
    parts |= {"norm1": layer.add1.norm, "norm2": layer.add2.norm}
    if isinstance(layer, DecoderLayer):
        cross = stacked(layer.cross_attention)
        found |= {f"multihead_attn.{key}": tensor for key, tensor in cross.items()}
        parts["norm3"] = layer.add3.norm
    return found | {
        f"{n}.{key}": tensor for n, part in parts.items() for key, tensor in part.named_parameters()
    }


def whole(model: Transformer) -> dict[str, Tensor]:
    """Parameters of a model under the names of nn.Transformer."""
    found = {}
    for stack in ("encoder", "decoder"):
        for number, layer in enumerate(getattr(model, stack)):
            found |= {f"{stack}.layers.{number}.{key}": tensor for key, tensor in named(layer).items()}
        norm = getattr(model, f"{stack}_norm")
        found |= {f"{stack}.norm.{key}": tensor for key, tensor in norm.named_parameters()}
    return found


def small(pre: bool, layers: int = 2, T: int = 4) -> tuple[Transformer, Tensor, Tensor]:
    """A model with large random weights, sources of five tokens and targets of T."""
    model = prepared(Transformer(12, 3, 20, layers, norm_first=pre))
    return model, tokens(2, 5, 12), tokens(2, T, 12)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


BOTH_NORMS = pytest.mark.parametrize("pre", [False, True], ids=["post-norm", "pre-norm"])


@BOTH_NORMS
@pytest.mark.parametrize("masked", [False, True])
def test_encoder_layer_equals_naive_reference(measured: Measured, pre: bool, masked: bool) -> None:
    layer, x = prepared(EncoderLayer(6, 2, 10, norm_first=pre)), tokens(2, 4, 6)
    mask = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(2)) > 0.4
    mask[:, 1] = False
    expected = naive_encoder_layer(x, named(layer), 2, pre, mask if masked else None)
    actual = layer(x, mask[:, None] if masked else None)
    measured.close(actual, expected)
    measured.gradients(actual, expected, of=(x, *layer.parameters()))


@BOTH_NORMS
@pytest.mark.parametrize("padded", [False, True])
def test_decoder_layer_equals_naive_reference(measured: Measured, pre: bool, padded: bool) -> None:
    layer, x, memory = prepared(DecoderLayer(6, 3, 10, norm_first=pre)), tokens(2, 3, 6), tokens(2, 5, 6)
    mask = real(5, 2, longest=5)[:, None]
    expected = naive_decoder_layer(x, memory, named(layer), 3, pre, memory_mask=mask if padded else None)
    actual = layer(x, memory, mask[:, None] if padded else None)
    measured.close(actual, expected)
    measured.gradients(actual, expected, of=(x, memory, *layer.parameters()))


@BOTH_NORMS
def test_model_equals_naive_reference(measured: Measured, pre: bool) -> None:
    model = prepared(Transformer(6, 2, 10, num_layers=2, norm_first=pre))
    source, target, mask = tokens(2, 4, 6), tokens(2, 3, 6), real(4, 3, longest=4)
    memory, x = source + naive_positions(4, 6), target + naive_positions(3, 6)
    for layer in model.encoder:
        memory = naive_encoder_layer(memory, named(layer), 2, pre, mask[:, None])
    memory = layer_norm(memory, *model.encoder_norm.parameters()) if pre else memory
    for layer in model.decoder:
        x = naive_decoder_layer(x, memory, named(layer), 2, pre, memory_mask=mask[:, None])
    expected = layer_norm(x, *model.decoder_norm.parameters()) if pre else x
    actual = model(source, target, mask)
    measured.close(actual, expected)
    measured.gradients(actual, expected, of=(source, target, *model.parameters()))


def test_positions_equal_naive_reference(measured: Measured) -> None:
    for length, width in ((50, 6), (2000, 64)):
        measured.close(sinusoidal_positions(length, width), naive_positions(length, width))


@BOTH_NORMS
def test_encoder_layer_equals_torch_layer(measured: Measured, pre: bool) -> None:
    layer, x = prepared(EncoderLayer(12, 3, 20, norm_first=pre)), tokens(2, 5, 12)
    mask = real(5, 2, longest=5)
    theirs = nn.TransformerEncoderLayer(12, 3, 20, dropout=0.0, batch_first=True, norm_first=pre).double()
    actual = layer(x, mask[:, None, None])
    expected = functional_call(theirs, named(layer), (x,), {"src_key_padding_mask": ~mask})
    measured.close(actual, expected)
    measured.gradients(actual, expected, of=(x, *layer.parameters()))


@BOTH_NORMS
def test_decoder_layer_equals_torch_layer(measured: Measured, pre: bool) -> None:
    layer, x, memory = prepared(DecoderLayer(12, 3, 20, norm_first=pre)), tokens(2, 4, 12), tokens(2, 5, 12)
    mask = real(5, 2, longest=5)
    theirs = nn.TransformerDecoderLayer(12, 3, 20, dropout=0.0, batch_first=True, norm_first=pre).double()
    masks = {"tgt_mask": later(4), "memory_key_padding_mask": ~mask}
    actual = layer(x, memory, mask[:, None, None])
    expected = functional_call(theirs, named(layer), (x, memory), masks)
    measured.close(actual, expected)
    measured.gradients(actual, expected, of=(x, memory, *layer.parameters()))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@BOTH_NORMS
def test_model_equals_torch_model(measured: Measured, pre: bool) -> None:
    model, source, target = small(pre)
    theirs = nn.Transformer(12, 3, 2, 2, 20, dropout=0.0, batch_first=True, norm_first=pre).double()
    if not pre:
        theirs.encoder.norm = theirs.decoder.norm = None
    mask = real(5, 2, longest=5)
    masks = {"tgt_mask": later(4), "src_key_padding_mask": ~mask, "memory_key_padding_mask": ~mask}
    inputs = (source + sinusoidal_positions(5, 12), target + sinusoidal_positions(4, 12))
    actual = model(source, target, mask)
    expected = functional_call(theirs, whole(model), inputs, masks)
    measured.close(actual, expected)
    measured.gradients(actual, expected, of=(source, target, *model.parameters()))


@BOTH_NORMS
@pytest.mark.parametrize("padded", [False, True])
def test_weights_are_those_the_decoder_reads_with(measured: Measured, pre: bool, padded: bool) -> None:
    model = prepared(Transformer(16, 2, num_layers=2, norm_first=pre))
    source, target = tokens(2, 5, 16), tokens(2, 4, 16)
    reads: list[tuple[Tensor, Tensor]] = []
    for layer in model.decoder:
        layer.cross_attention.register_forward_hook(lambda _, inputs, read: reads.append((inputs[1], read)))
    mask = real(5, 2, longest=5) if padded else None
    model(source, target, mask)
    kept = list(reads)
    weights = model.attention(source, target, mask)
    for number, (memory, read) in enumerate(kept):
        cross = model.decoder[number].cross_attention
        values = cross.v_proj(memory).view(2, 5, 2, 8)
        explicit = torch.einsum("bhts,bshd->bthd", weights[:, number], values).reshape(2, 4, 16)
        measured.close(cross.out_proj(explicit), read)
    measured.close(weights.sum(dim=-1), torch.ones(2, 2, 2, 4, dtype=torch.float64))


@BOTH_NORMS
def test_later_targets_do_not_change_earlier_outputs(measured: Measured, pre: bool) -> None:
    model, source, target = small(pre, layers=3, T=6)
    before = model(source, target)
    for j in range(6):
        other = torch.cat([target[:, :j], tokens(2, 1, 12), target[:, j + 1 :]], dim=1)
        after = model(source, other)
        if j > 0:
            measured.close(after[:, :j], before[:, :j], tolerance=0)
        assert (after[:, j:] - before[:, j:]).abs().amax(dim=2).gt(1e-6).all()


@BOTH_NORMS
def test_every_output_sees_every_source_token(measured: Measured, pre: bool) -> None:
    model, source, target = small(pre, layers=1)
    influence = [
        torch.autograd.grad(output.pow(3).sum(), source, retain_graph=True)[0][0]
        for output in model(source, target)[0]
    ]
    measured.count(sum(int(token.any()) for gradient in influence for token in gradient), 4 * 5)


@BOTH_NORMS
def test_step_by_step_equals_teacher_forcing(measured: Measured, pre: bool) -> None:
    model, source, start = small(pre, T=1)
    memory, target = model.encode(source), start
    steps = []
    for _ in range(6):
        steps.append(model.decode(target, memory)[:, -1:])
        target = torch.cat([target, steps[-1]], dim=1)
    measured.close(model(source, target[:, :-1]), torch.cat(steps, dim=1))


@BOTH_NORMS
@pytest.mark.parametrize("pieces", [[6], [1] * 6, [3, 1, 2]], ids=str)
def test_steps_with_a_state_equal_one_pass(measured: Measured, pre: bool, pieces: list[int]) -> None:
    model, source, target = small(pre, T=6)
    mask = real(5, 2, longest=5)
    state, steps = model.start(source, mask), []
    for piece in target.split(pieces, dim=1):
        y, state = model.step(piece, state)
        steps.append(y)
    whole = model(source, target, mask)
    measured.close(torch.cat(steps, dim=1), whole)
    measured.gradients(torch.cat(steps, dim=1), whole, of=(source, target, *model.parameters()))


@BOTH_NORMS
def test_steps_equal_kept_inputs_of_each_self_attention(measured: Measured, pre: bool) -> None:
    model, source, target = small(pre, T=6)
    memory, started = model.encode(source), target + naive_positions(6, 12)
    seen: list[list[Tensor]] = [[] for _ in model.decoder]
    state = model.start(source)
    for t in range(6):
        x = started[:, t : t + 1]
        for layer, kept in zip(model.decoder, seen, strict=True):
            kept.append(layer.add1.enter(x))
            so_far = torch.cat(kept, dim=1)
            x = layer.add1(x, lambda y, layer=layer, keys=so_far: layer.self_attention(y, keys))
            x = layer.add2(x, lambda y, layer=layer: layer.cross_attention(y, memory))
            x = layer.add3(x, layer.feed_forward)
        y, state = model.step(target[:, t : t + 1], state)
        measured.close(y, model.decoder_norm(x))


def multiply_adds(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


def test_multiply_adds_of_writing_a_sentence(measured: Measured) -> None:
    S, T, E = 100, 100, 512
    with torch.device("meta"):
        model = Transformer(E, 8, num_layers=1)
        source, target = torch.empty(1, S, E), torch.empty(1, T, E)

    def with_state() -> None:
        state = model.start(source)
        for token in target.split(1, dim=1):
            _, state = model.step(token, state)

    def without() -> None:
        memory = model.encode(source)
        for t in range(1, T + 1):
            model.decode(target[:, :t], memory)

    kept, again = multiply_adds(with_state), multiply_adds(without)
    encoder = 12 * S * E**2 + 2 * S**2 * E
    measured.count(kept, encoder + (14 * T + 2 * S) * E**2 + (T * (T + 1) + 2 * T * S) * E)
    each = ((14 * t + 2 * S) * E**2 + 2 * (t * t + t * S) * E for t in range(1, T + 1))
    measured.count(again, encoder + sum(each))
    measured.value("times as many", again / kept, equals=32.9, within=0.05)


@BOTH_NORMS
def test_masked_source_tokens_change_nothing(measured: Measured, pre: bool) -> None:
    model, source, target = small(pre)
    padded, mask = torch.cat([source, 100 * tokens(2, 3, 12)], dim=1), real(5, 5, longest=8)
    measured.close(model(padded, target, mask), model(source, target))
    weights = model.attention(padded, target, mask)
    measured.close(weights[..., :5], model.attention(source, target))
    measured.close(weights[..., 5:], torch.zeros_like(weights[..., 5:]), tolerance=0)


@BOTH_NORMS
def test_source_of_padding_alone_stays_finite(measured: Measured, pre: bool) -> None:
    model, source, target = small(pre)
    mask = real(5, 0, longest=5)
    weights, output = model.attention(source, target, mask), model(source, target, mask)
    measured.close(weights[1], torch.zeros_like(weights[1]), tolerance=0)
    gradients = torch.autograd.grad(output.square().sum(), (source, target, *model.parameters()))
    assert all(part.isfinite().all() for part in (output, *gradients))
    measured.close(gradients[0][1], torch.zeros_like(source[1]), tolerance=0)


@BOTH_NORMS
def test_order_of_the_source_is_told_by_positions_alone(measured: Measured, pre: bool) -> None:
    layer, x = prepared(EncoderLayer(12, 3, 20, norm_first=pre)), tokens(2, 5, 12)
    order = torch.tensor([3, 0, 4, 1, 2])
    measured.close(layer(x[:, order]), layer(x)[:, order])
    measured.close(layer.attention(x[:, order]), layer.attention(x)[:, :, order][..., order])
    model, target = prepared(Transformer(12, 3, num_layers=1, norm_first=pre)), tokens(2, 4, 12)
    change = (model(x[:, order], target) - model(x, target)).abs().max().item()
    measured.value("change with positions", change, above=0.01)


def test_pre_norm_is_an_identity_without_its_last_layers(measured: Measured) -> None:
    torch.manual_seed(1)
    for kind, inputs in (
        (EncoderLayer, (tokens(2, 4, 12),)),
        (DecoderLayer, (tokens(2, 4, 12), tokens(2, 5, 12))),
    ):
        pre, post = (prepared(kind(12, 3, 20, norm_first=norm_first)) for norm_first in (True, False))
        for layer in (pre, post):
            for name, parameter in layer.named_parameters():
                if "out_proj" in name or "feed_forward.2" in name:
                    nn.init.zeros_(parameter)
        measured.close(pre(*inputs), inputs[0], tolerance=0)
        x = inputs[0]
        for norm in (module for module in post.modules() if isinstance(module, nn.LayerNorm)):
            x = layer_norm(x, norm.weight, norm.bias)
        measured.close(post(*inputs), x)


def test_post_norm_outputs_have_mean_0_and_variance_1(measured: Measured) -> None:
    torch.manual_seed(1)
    model = Transformer(64, 4, num_layers=2).double().eval()
    output = model(100 * tokens(2, 5, 64), tokens(2, 4, 64))
    measured.close(output.mean(dim=-1), torch.zeros(2, 4, dtype=torch.float64))
    variance = output.var(dim=-1, unbiased=False)
    measured.close(variance, torch.ones_like(variance), tolerance=1e-4)


def test_causal_encoder_layer_is_decoder_without_memory(measured: Measured) -> None:
    decoder, x = prepared(DecoderLayer(12, 3, 20, norm_first=True)), tokens(2, 4, 12)
    encoder = EncoderLayer(12, 3, 20, norm_first=True).double().eval()
    for parameter in decoder.cross_attention.out_proj.parameters():
        nn.init.zeros_(parameter)
    encoder.self_attention = decoder.self_attention
    encoder.feed_forward, encoder.add1, encoder.add2 = decoder.feed_forward, decoder.add1, decoder.add3
    measured.close(encoder(x, causal_mask(4)), decoder(x, tokens(2, 5, 12)))


def test_layers_start_different(measured: Measured) -> None:
    torch.manual_seed(1)
    model = Transformer(12, 3, num_layers=2)
    theirs = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 3), 2, enable_nested_tensor=False)
    ours, copied = (
        (first.weight - second.weight).abs().max().item()
        for first, second in (
            (model.encoder[0].feed_forward[0], model.encoder[1].feed_forward[0]),
            (theirs.layers[0].linear1, theirs.layers[1].linear1),
        )
    )
    measured.value("here", ours, above=0.1)
    measured.value("nn.TransformerEncoder", copied, equals=0)


def test_parameters_of_the_base_layers(measured: Measured) -> None:
    for ours, theirs, expected in (
        (EncoderLayer(512, 8, 2048), nn.TransformerEncoderLayer(512, 8, 2048), 3_152_384),
        (DecoderLayer(512, 8, 2048), nn.TransformerDecoderLayer(512, 8, 2048), 4_204_032),
    ):
        assert size(theirs) == expected
        measured.count(size(ours), expected)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_parameters_of_the_models(measured: Measured) -> None:
    with torch.device("meta"):
        base, pre = (Transformer(512, 8, norm_first=norm_first) for norm_first in (False, True))
        big = Transformer(1024, 16)
        theirs = nn.Transformer(512, 8, 6, 6, 2048)
    measured.count(size(pre), 44_140_544)
    assert size(theirs) == size(pre)
    measured.count(size(base), 44_140_544 - 4 * 512)
    measured.count(size(base) + 37_000 * 512, 63_082_496)
    measured.count(size(big) + 37_000 * 1024, 214_245_376)


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the page defines in its section on today's block."""
    for folder in ("foundations", "weight_assignment/self_attention"):
        monkeypatch.syspath_prepend(ROOT / "snippets" / folder)
    page = ROOT / "docs/en/weight-assignment/self-attention/transformer.md"
    _, _, section = page.read_text(encoding="utf-8").partition("{#today}")
    code = re.search(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert code
    defined: dict[str, Any] = {}
    exec(code[1], defined)
    return SimpleNamespace(**defined)


SIZES = {
    "hidden_size": 12,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 20,
    "num_hidden_layers": 1,
    "attn_implementation": "sdpa",
}
NAMES = {
    "self_attn": "self_attention",
    "o_proj": "out_proj",
    "input_layernorm": "add1.norm",
    "post_attention_layernorm": "add2.norm",
    "mlp": "feed_forward",
}
"""Of a layer of transformers, and of this one."""


class Norm(nn.Module):
    """The norm of the layers of transformers without their cast to float32; `plus` is added to its weight."""

    def __init__(self, theirs: Any, plus: float) -> None:
        super().__init__()
        self.weight, self.plus = theirs.weight, plus

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-6) * (self.weight + self.plus)


def exact(layer: Any, plus: float = 0.0) -> Any:
    """A layer of transformers in float64, with large random weights."""
    for parent in (layer, layer.self_attn):
        for name, part in parent.named_children():
            if name.endswith("norm"):
                setattr(parent, name, Norm(part, plus))
    layer.double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer


def turns(x: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines as transformers wants them, in float64."""
    angle = angles(torch.arange(x.shape[1]), width, dtype=x.dtype).repeat(x.shape[0], 1, 2)
    return angle.cos(), angle.sin()


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers, or their gradients, under the names of this page."""
    found = dict(state)
    for old, new in NAMES.items():
        found = {name.replace(old, new): tensor for name, tensor in found.items()}
    return found


def test_todays_layer_equals_qwen3(measured: Measured, today: SimpleNamespace) -> None:
    torch.manual_seed(1)
    theirs = exact(Qwen3DecoderLayer(Qwen3Config(**SIZES), layer_idx=0))
    ours = today.todays_layer(today.TodaysAttention(12, 6, 2, 8, gated=False), 20).double().eval()
    ours.load_state_dict(renamed(theirs.state_dict()))
    x = tokens(2, 7, 12)
    y, expected = ours(x, causal_mask(7)), theirs(x, position_embeddings=turns(x, 8))
    measured.close(y, expected)
    measured.gradients(y, expected, of=(x,))
    cotangent = torch.randn_like(y)
    y.backward(cotangent)
    expected.backward(cotangent)
    gradients = renamed({name: p.grad for name, p in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        measured.close(parameter.grad, gradients.pop(name))
    assert not gradients


def test_todays_layer_with_a_gate_equals_qwen3_next(measured: Measured, today: SimpleNamespace) -> None:
    """Its queries and gates are rows of one matrix, head by head; its norms lack a one."""
    torch.manual_seed(1)
    config = Qwen3NextConfig(**SIZES, layer_types=["full_attention"], num_experts=0)
    theirs = exact(Qwen3NextDecoderLayer(config, layer_idx=0), plus=1.0)
    attention = today.TodaysAttention(12, 6, 2, 8, rotary_dim=2)
    ours = today.todays_layer(attention, 20).double().eval()

    def unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = renamed(state)
        packed = found["self_attention.q_proj.weight"].unflatten(0, (6, 2, 8))
        for part, name in enumerate(("q_proj", "gate_proj")):
            found[f"self_attention.{name}.weight"] = packed[:, part].flatten(0, 1)
        return found

    state = unpacked(theirs.state_dict())
    ours.load_state_dict({name: w + 1 if "norm" in name else w for name, w in state.items()})
    x = tokens(2, 7, 12)
    y, expected = ours(x, causal_mask(7)), theirs(x, position_embeddings=turns(x, 2))
    measured.close(y, expected)
    measured.gradients(y, expected, of=(x,))
    cotangent = torch.randn_like(y)
    y.backward(cotangent)
    expected.backward(cotangent)
    gradients = unpacked({name: p.grad for name, p in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        measured.close(parameter.grad, gradients.pop(name))
    assert not gradients


@pytest.mark.parametrize("part", ["rotary", "grouped_query", "bounded_logits", "output_gate"])
def test_each_part_of_todays_attention_is_that_of_its_page(
    measured: Measured, today: SimpleNamespace, part: str
) -> None:
    """All other parts are switched off; weights fit by name."""
    torch.manual_seed(1)
    page: nn.Module = {
        "rotary": RotaryAttention(12, 3),
        "grouped_query": GroupedQueryAttention(12, 3, 1),
        "bounded_logits": BoundedAttention(12, 3),
        "output_gate": GatedAttention(12, 3),
    }[part]
    turned, kv_heads = (4 if part == "rotary" else 0), (1 if part == "grouped_query" else 3)
    attention = today.TodaysAttention(12, 3, kv_heads, 4, rotary_dim=turned, gated=part == "output_gate")
    if part != "bounded_logits":
        attention.q_norm = attention.k_norm = nn.Identity()
    page, attention = prepared(page), attention.double().eval()
    attention.load_state_dict(page.state_dict())
    x = tokens(2, 7, 12)
    y = attention(x, x, causal_mask(7))
    measured.close(y, page(x))
    measured.gradients(y, page(x), of=(x,))


def test_dropout_acts_in_training_only() -> None:
    model, inputs = example()
    assert torch.equal(model(*inputs), model(*inputs))
    assert not torch.equal(model.train()(*inputs), model(*inputs))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embed_dim": 33, "num_heads": 3}, "embed_dim 33 must be even"),
        ({"embed_dim": 32, "num_heads": 3}, "embed_dim 32 must be divisible by num_heads 3"),
        ({"embed_dim": 0, "num_heads": 4}, "embed_dim 0"),
        ({"embed_dim": 32, "num_heads": 0}, "num_heads 0"),
        ({"embed_dim": 32, "num_heads": 4, "num_layers": 0}, "num_layers 0"),
        ({"embed_dim": 32, "num_heads": 4, "ff_dim": 0}, "ff_dim 0"),
        ({"embed_dim": 32, "num_heads": 4, "dropout": 1.5}, "dropout"),
        ({"embed_dim": 32, "num_heads": 4, "dropout": math.nan}, "dropout"),
    ],
    ids=str,
)
def test_refuses_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Transformer(**arguments)


def test_positions_refuse_an_odd_width() -> None:
    with pytest.raises(ValueError, match="width 5 must be even"):
        sinusoidal_positions(4, 5)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (1, 7), (3, 1, 7)])
def test_refuses_source_masks_that_do_not_fit(shape: tuple[int, ...]) -> None:
    model, inputs = example()
    for call in (model, model.attention):
        with pytest.raises(ValueError, match=r"must be \(B, S\) = \(3, 7\)"):
            call(*inputs, torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(7,), (3, 7), (7, 7), (3, 7, 7), (2, 4, 7, 7)])
def test_layer_refuses_masks_that_do_not_fit(shape: tuple[int, ...]) -> None:
    model, (source, _) = example()
    layer = model.encoder[0]
    for call in (layer, layer.attention):
        with pytest.raises(ValueError, match=r"broadcast to \(B, heads, T, S\) = \(3, 4, 7, 7\)"):
            call(source, torch.ones(shape, dtype=torch.bool))


def test_refuses_a_memory_mask_that_depends_on_the_token() -> None:
    layer, memory = DecoderLayer(24, 4, 8), torch.zeros(3, 7, 24)
    for shape in ((3, 4, 5, 7), (3, 7), (2, 1, 1, 7)):
        with pytest.raises(ValueError, match=r"broadcast to \(B, heads, T, S\) = \(3, 4, 1, 7\)"):
            layer.start(memory, torch.ones(shape, dtype=torch.bool))
    for call in (layer.start, lambda x: layer.step(x, layer.start(memory))):
        with pytest.raises(ValueError, match=r"\(7, 24\) must be \(B, "):
            call(memory[0])


def test_refuses_states_of_other_parts() -> None:
    model, (source, target) = example()
    with pytest.raises(ValueError, match=r"^state LayerState must be a TransformerState"):
        model.step(target, model.start(source).layers[0])
    with pytest.raises(ValueError, match=r"^state layers 3 must be 2"):
        model.step(target, example(layers=3)[0].start(source))
    with pytest.raises(ValueError, match=r"^state TransformerState must be a LayerState"):
        model.decoder[0].step(target, model.start(source))


def test_refuses_masks_that_are_not_bool() -> None:
    model, inputs = example()
    for call in (model, model.attention):
        with pytest.raises(TypeError, match="True = may be attended"):
            call(*inputs, torch.ones(3, 7))


def test_refuses_tokens_that_would_broadcast() -> None:
    model, (source, target) = example()
    for call in (model, model.attention):
        with pytest.raises(ValueError, match=r"tokens \(7, 24\) must be \(B, T, E\)"):
            call(source[0], target)
        for pair in ((source[:1], target), (source, target[:1])):
            with pytest.raises(ValueError, match=r"\(B, T, E\) and \(B, S, E\) with the same B"):
                call(*pair)


def test_refuses_a_number_of_heads_that_is_no_whole_number() -> None:
    with pytest.raises(TypeError, match="integer"):
        Transformer(32, 4.0)


def test_causal_mask_is_made_on_the_device_that_is_asked_for() -> None:
    assert causal_mask(3).shape == (1, 1, 3, 3)
    assert causal_mask(3, "meta").is_meta
    assert torch.equal(causal_mask(2, past=3), causal_mask(5)[:, :, 3:])


def test_second_derivatives_and_forward_mode_work_in_the_math_kernel() -> None:
    model, (source, target) = example()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        torch.func.jvp(model, (source, target), (torch.ones_like(source), torch.ones_like(target)))
        output = model(source.requires_grad_(), target)
        slope = torch.autograd.grad(output.pow(3).sum(), source, create_graph=True)[0]
        assert torch.autograd.grad(slope.square().sum(), source)[0].isfinite().all()


def test_a_state_whose_parts_do_not_fit_each_other_is_refused() -> None:
    model, (source, target) = example()
    state = model.start(source)
    first = state.layers[0]
    for name in ("values", "memory_values"):
        longer = torch.cat([getattr(first, name), first.memory_values], dim=2)
        wrong = state._replace(layers=(first._replace(**{name: longer}), *state.layers[1:]))
        with pytest.raises(ValueError, match=rf"^state {name} "):
            model.step(target, wrong)
