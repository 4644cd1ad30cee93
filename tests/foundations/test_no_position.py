"""Proofs of attention without positions."""

import itertools
import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import InklingTextConfig, Llama4TextConfig, SmolLM3Config
from transformers.models.inkling.modeling_inkling import InklingAttention
from transformers.models.llama4.modeling_llama4 import Llama4TextAttention
from transformers.models.mistral_large4.modeling_mistral_large4 import MistralLarge4TextSoftmaxScaling
from transformers.models.smollm3.modeling_smollm3 import SmolLM3Attention

from snippets.foundations.no_position import MODES, NoPositionAttention, NoPositionCache, example
from tests.measure import Measured

E, HEADS, T = 12, 3, 6  # heads of 4 features
ALPHA, LENGTH = 0.7, 2
EXCHANGED = [1, 0, *range(2, T)]
each_mode = pytest.mark.parametrize("mode", MODES)
each_mask = pytest.mark.parametrize("is_causal", [True, False])


def linear(x: Tensor, w: Tensor) -> Tensor:
    """Return x W^T."""
    return torch.einsum("...i,oi->...o", x, w)


def naive_growth(mode: str, n: int, slope: Tensor, shift: Tensor) -> Tensor | float:
    """Return what the scores of a query that sees n keys are multiplied by, in one head."""
    if mode == "steps":
        return 1 + ALPHA * math.log(1 + n // LENGTH)
    if mode == "log":
        return 1 + ALPHA * max(0.0, math.log(n / LENGTH))
    return slope * math.log(n) + shift if mode == "learned" else 1.0


def naive_core(
    q: Tensor, k: Tensor, v: Tensor, mode: str, slope: Tensor, shift: Tensor, is_causal: bool
) -> Tensor:
    """Return (B, H, T, d) where query i reads the keys up to its own, or all."""
    batch, heads, length, d = q.shape
    out = []
    for b in range(batch):
        for h in range(heads):
            for i in range(length):
                seen = [j for j in range(length) if j <= i or not is_causal]
                times = d**-0.5 * naive_growth(mode, len(seen), slope[h], shift[h])
                e = [torch.exp((q[b, h, i] * k[b, h, j]).sum() * times) for j in seen]
                read = sum(a * v[b, h, j] for a, j in zip(e, seen, strict=True))
                out.append(read / sum(e))
    return torch.stack(out).reshape(q.shape)


def naive(x: Tensor, layer: NoPositionAttention, is_causal: bool) -> Tensor:
    """Return (B, T, E) of attention that knows no position but the causal order."""
    w_q, w_k, w_v, w_o = weights_of(layer)
    q, k, v = (linear(x, w).unflatten(-1, (HEADS, -1)).transpose(1, 2) for w in (w_q, w_k, w_v))
    none = torch.zeros(HEADS)
    slope, shift = (layer.slope, layer.shift) if layer.mode == "learned" else (none, none)
    return linear(naive_core(q, k, v, layer.mode, slope, shift, is_causal).transpose(1, 2).flatten(2), w_o)


def weights_of(layer: NoPositionAttention) -> list[Tensor]:
    return [layer.get_parameter(f"{name}_proj.weight") for name in ("q", "k", "v", "out")]


def small(mode: str = "constant", seed: int = 1) -> tuple[NoPositionAttention, Tensor]:
    """A layer with large random weights whose scores grow from the second token on, and tokens."""
    torch.manual_seed(seed)
    layer = NoPositionAttention(E, HEADS, mode, ALPHA, LENGTH).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer, torch.randn(2, T, E, dtype=torch.float64, requires_grad=True)


def stacked(layers: Sequence[NoPositionAttention], x: Tensor, is_causal: bool) -> Tensor:
    """What comes out of layers one above the other, each of which adds to its input."""
    for layer in layers:
        x = x + layer(x, is_causal)
    return x


def moved(change: Tensor) -> float:
    return change.abs().max().item()


@each_mode
@each_mask
def test_equals_naive_reference(measured: Measured, mode: str, is_causal: bool) -> None:
    layer, x = small(mode)
    expected = naive(x, layer, is_causal)
    measured.close(layer(x, is_causal), expected)
    measured.gradients(layer(x, is_causal), expected, of=(x, *layer.parameters()))


@each_mode
@each_mask
def test_fused_forward_equals_weights_times_values(measured: Measured, mode: str, is_causal: bool) -> None:
    layer, x = small(mode)
    values = layer.v_proj(x).unflatten(2, (HEADS, -1))
    weights = layer.attention(x, is_causal)
    explicit = layer.out_proj(torch.einsum("bhts,bshd->bthd", weights, values).flatten(2))
    measured.close(layer(x, is_causal), explicit)
    measured.gradients(layer(x, is_causal), explicit, of=(x, *layer.parameters()))


@each_mode
def test_without_a_mask_layers_are_blind_to_order(measured: Measured, mode: str) -> None:
    """Three layers, all orders of the first four tokens; the same layers with a mask are not."""
    x = small()[1]
    layers = [small(mode, seed)[0] for seed in range(3)]
    orders = [[*order, 4, 5] for order in itertools.permutations(range(4))]
    whole, masked = stacked(layers, x, False), stacked(layers, x, True)
    for order in orders:
        measured.close(stacked(layers, x[:, order], False), whole[:, order])
    causal = [moved((stacked(layers, x[:, order], True) - masked[:, order])[:, -1]) for order in orders[1:]]
    measured.value("causal, last token, max |Δ|", min(causal), above=1e-3)


@each_mode
def test_one_causal_layer_reads_a_bag_and_two_read_an_order(measured: Measured, mode: str) -> None:
    """The first two of six tokens exchanged: what the others get."""
    (one, x), (other, _) = small(mode), small(mode, seed=2)
    measured.close(one(x[:, EXCHANGED])[:, 2:], one(x)[:, 2:])
    two = stacked((one, other), x[:, EXCHANGED], True) - stacked((one, other), x, True)
    measured.value("two layers, last token, max |Δ|", moved(two[:, -1]), above=0.01)


def test_a_mark_on_the_first_token_counts(measured: Measured) -> None:
    """A head with equal scores reads the mean, so that 1 on the first token arrives as 1 / n."""
    layer = NoPositionAttention(1, 1).double()
    nn.init.zeros_(layer.q_proj.weight)
    for projection in (layer.v_proj, layer.out_proj):
        nn.init.ones_(projection.weight)
    mark = torch.zeros(1, 1000, 1, dtype=torch.float64)
    mark[:, 0] = 1
    counted = 1 / layer(mark).flatten()
    measured.close(counted, torch.arange(1, 1001, dtype=torch.float64))


@each_mode
def test_equal_tokens_stay_equal(measured: Measured, mode: str) -> None:
    """Through three causal layers: nobody can count what is all the same."""
    layers, token = [small(mode, seed)[0] for seed in range(3)], small()[1][:, :1]
    y = stacked(layers, token.expand(-1, T, -1), True)
    measured.close(y, y[:, :1].expand_as(y))
    other = torch.cat([-token, token.expand(-1, T - 1, -1)], dim=1)  # one that differs, in front
    y = stacked(layers, other, True)
    measured.value("behind another token, max |Δ|", moved(y[:, 1:] - y[:, -1:]), above=0.1)


def found_among(n: int, mode: str, slope: float) -> float:
    """Weight of one key of n whose score is 10 above that of the others, before it grows."""
    layer = NoPositionAttention(1, 1, mode).double()
    for name, parameter in layer.named_parameters():
        nn.init.constant_(parameter, name in ("q_proj.weight", "out_proj.weight"))
    if mode == "learned":
        nn.init.constant_(layer.slope, slope)
    keys = torch.zeros(1, 1, n - 1, 1, dtype=torch.float64)
    keys[:, :, 3] = 10
    query = torch.ones(1, 1, 1, dtype=torch.float64)  # its own key and value are zero
    return layer.step(query, NoPositionCache(keys, keys / 10))[0].item()


@pytest.mark.parametrize(
    ("mode", "slope", "few", "many"),
    [
        ("constant", 0, 0.999, 0.021),
        ("steps", 0, 0.999, 0.731),
        ("learned", 0.08, 0.380, 0.059),
        ("learned", 0.10, 0.516, 0.500),
        ("learned", 0.12, 0.650, 0.941),
    ],
)
def test_one_key_among_many(measured: Measured, mode: str, slope: float, few: float, many: float) -> None:
    """With a slope above 1 / 10 the key wins in the end, below it loses."""
    name = f"slope {slope}" if slope else mode
    for n, expected in ((16, few), (2**20, many)):
        measured.value(f"{name}, n = {n:,}", found_among(n, mode, slope), equals=expected, within=0.001)


def test_growth_of_llama_4(measured: Measured) -> None:
    """Of its defaults: nothing up to 8,191 tokens."""
    growth = NoPositionAttention(E, HEADS, "steps").double().growth
    for n, expected in ((8191, 1.0), (8192, 1.0693), (100_001, 1.2565)):
        measured.value(f"n = {n:,}", growth(torch.tensor([n])).item(), equals=expected, within=5e-5)


def test_a_new_layer_with_slopes_is_one_without(measured: Measured) -> None:
    """Slopes start at 0 and shifts at 1."""
    learned, x = NoPositionAttention(E, HEADS, "learned").double(), small()[1]
    plain = NoPositionAttention(E, HEADS).double()
    plain.load_state_dict({name: w for name, w in learned.state_dict().items() if "proj" in name})
    measured.close(learned(x), plain(x), tolerance=0)


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_step_that_counts_anew_is_wrong(measured: Measured, mode: str) -> None:
    layer, x = small(mode)
    _, state = layer.step(x[:, :5])
    right, _ = layer.step(x[:, 5:], state)
    measured.close(right, layer(x)[:, 5:])
    q, k, v = layer._project(x[:, 5:], 0, True)  # as if it was the first token
    keys, values = torch.cat([state.keys, k], dim=2), torch.cat([state.values, v], dim=2)
    wrong = layer._merge(nn.functional.scaled_dot_product_attention(q, keys, values))
    measured.value("max |Δ|", moved(wrong - right), above=0.01)


def released(layer: NoPositionAttention) -> dict[str, Tensor]:
    """The weights under the names of transformers."""
    return {name.replace("out", "o"): w for name, w in layer.state_dict().items() if "proj" in name}


SIZES = {
    "hidden_size": E,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": E // HEADS,
    "attn_implementation": "sdpa",
}


def test_constant_equals_smollm3(measured: Measured) -> None:
    """Its fourth layer, to which positions are handed, and which does not read them."""
    layer, x = small()
    theirs = SmolLM3Attention(SmolLM3Config(**SIZES, num_hidden_layers=4), layer_idx=3).double().eval()
    theirs.load_state_dict(released(layer))
    nothing = torch.full((1, T, 4), torch.nan, dtype=torch.float64)
    y = theirs(x, (nothing, nothing), None)[0]
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x,))


def test_steps_equal_llama_4(measured: Measured) -> None:
    """Its fourth layer; it computes the growth in float32."""
    layer, x = small("steps")
    config = Llama4TextConfig(**SIZES, num_hidden_layers=4, attn_scale=ALPHA, floor_scale=LENGTH)
    theirs = Llama4TextAttention(config, layer_idx=3).double().eval()
    theirs.load_state_dict(released(layer))
    y = theirs(x, torch.full((1, T, 2), torch.nan), None)[0]
    measured.close(layer(x), y, tolerance=1e-6)
    measured.gradients(layer(x), y, of=(x,), tolerance=1e-5)


def test_log_equals_inkling(measured: Measured) -> None:
    """Without its norms, convolutions and relative scores; eager, with a softmax in float32."""
    layer, x = small("log")
    config = InklingTextConfig(
        **SIZES | {"attn_implementation": "eager"},
        num_hidden_layers=1,
        layer_types=["hybrid"],
        log_scaling_alpha=ALPHA,
        log_scaling_n_floor=LENGTH,
    )
    theirs = InklingAttention(config, layer_idx=0).double().eval()
    theirs.load_state_dict(released(layer), strict=False)
    nn.init.zeros_(theirs.rel_logits_proj.proj)
    theirs.q_norm = theirs.k_norm = nn.Identity()
    theirs.k_sconv.forward = theirs.v_sconv.forward = lambda x, **_: x
    theirs.scaling = (E // HEADS) ** -0.5
    mask = torch.full((T, T), -torch.inf, dtype=torch.float64).triu(1)
    y = theirs(x, mask[None, None])[0]
    measured.close(layer(x), y, tolerance=1e-6)
    measured.gradients(layer(x), y, of=(x,), tolerance=1e-5)


def test_learned_growth_equals_mistral_large_4(measured: Measured) -> None:
    """Its logarithm is in float32."""
    layer, _ = small("learned")
    theirs = MistralLarge4TextSoftmaxScaling(HEADS).double()
    theirs.load_state_dict({"scale": layer.slope, "bias": layer.shift})
    ones = torch.ones(1, HEADS, 100, 1, dtype=torch.float64)
    y = theirs(ones, torch.arange(100)[None], head_dim_first=True)[0, :, :, 0]
    measured.close(layer.growth(torch.arange(1, 101)), y, tolerance=1e-6)


def turned(family: str, prefix: str, layers: int, **more: Any) -> str:
    """Which layers of a family read the angles they are given, by its defaults: R if so, N if not."""
    module = import_module(f"transformers.models.{family}.modeling_{family}")
    config = getattr(module, f"{prefix}Config")(**SIZES, num_hidden_layers=layers, **more)
    found = ""
    for index in range(layers):
        torch.manual_seed(0)
        layer = getattr(module, f"{prefix}Attention")(config, layer_idx=index).eval()
        x, angle = torch.randn(1, T, E), torch.arange(T)[:, None] * torch.tensor([1.0, 0.1] * 2)
        with torch.no_grad():
            plain, other = (
                layer(x, position_embeddings=(a.cos()[None], a.sin()[None]), attention_mask=None)[0]
                for a in (0 * angle, angle)
            )
        found += "N" if torch.equal(plain, other) else "R"
    return found


@pytest.mark.parametrize(
    ("family", "prefix", "expected"),
    [
        ("smollm3", "SmolLM3", "RRRNRRRN"),
        ("cohere2", "Cohere2", "RRRNRRRN"),
        ("exaone4", "Exaone4", "RRRNRRRN"),
        ("afmoe", "Afmoe", "RRRNRRRN"),
        ("kolibri1", "Kolibri1", "RRRRNRRRRN"),
        ("flint", "Flint", "NNRRRNRN"),
    ],
)
def test_layers_that_read_no_positions(measured: Measured, family: str, prefix: str, expected: str) -> None:
    found = turned(family, prefix, len(expected))
    assert found == expected
    measured.count(found.count("N"), expected.count("N"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((65, 4), "embed_dim 65 must be divisible by num_heads 4"),
        ((0, 4), "embed_dim 0, num_heads 4 and length 8192 must be at least 1"),
        ((64, 4, "constant", 0.1, 0), "embed_dim 64, num_heads 4 and length 0 must be at least 1"),
        ((64, 4, "sqrt"), "mode 'sqrt' must be one of constant, steps, log, learned"),
        ((64, 4, "log", math.nan), "alpha nan must be finite"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoPositionAttention(*arguments)


def test_refuses_caches_whose_halves_do_not_fit() -> None:
    layer, (x,) = example()
    _, state = layer.step(x)
    with pytest.raises(ValueError, match=r"^state values \(.*\) of torch.float32 must be \(B, heads, S, d\)"):
        layer.step(x, NoPositionCache(state.keys, state.values[:, :, 1:]))
