"""Proofs of the gated delta rule."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, OlmoHybridConfig, Qwen3NextConfig
from transformers.models.olmo_hybrid import modeling_olmo_hybrid
from transformers.models.qwen3_next import modeling_qwen3_next

from snippets.weight_assignment.self_attention.delta_rule import delta_rule
from snippets.weight_assignment.self_attention.gated_delta import (
    GatedDeltaAttention,
    GatedDeltaState,
    example,
    gated_delta,
)
from tests.in_float64 import in_float64
from tests.measure import Measured

E, T = 12, 10
Rows = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
RAGGED = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 0, 1, 1], [1, 1, 1, 0, 1, 1, 1, 0, 0, 0]]).bool()
RIGHT = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 0]]).bool()


def naive_sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + torch.exp(-x))


def naive_unit(x: Tensor) -> Tensor:
    """Return x / sqrt(sum x^2 + 1e-6) over the last axis."""
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def naive_step(s: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    """Return the next S: fade, read the faded state with k, write the corrected value."""
    s = torch.exp(g) * s
    read = (k[:, None] * s).sum(0)
    return s + k[:, None] * (beta * (v - read))[None, :]


def naive_step_in_other_order(s: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    """Return the S of another rule: the error is read from the state that has not faded yet."""
    read = (k[:, None] * s).sum(0)
    return torch.exp(g) * s + k[:, None] * (beta * (v - read))[None, :]


def naive(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    mask: Tensor | None = None,
    state: Tensor | None = None,
    step: Any = naive_step,
) -> tuple[Tensor, Tensor]:
    """Return out (B, T, H, e) and S (B, H, d, e), head h of values reading head h // (H / H_k) of keys."""
    (batch, t, heads, e), d = v.shape, k.shape[-1]
    repeat = heads // k.shape[2]
    out, states = [], []
    for b in range(batch):
        for h in range(heads):
            s = v.new_zeros(d, e) if state is None else state[b, h]
            for i in range(t):
                if mask is None or mask[b, i]:
                    s = step(s, k[b, i, h // repeat], v[b, i, h], g[b, i, h], beta[b, i, h])
                out.append((q[b, i, h // repeat][:, None] * s).sum(0))
            states.append(s)
    found = torch.stack(out).reshape(batch, heads, t, e).transpose(1, 2)
    return found, torch.stack(states).reshape(batch, heads, d, e)


def naive_convolution(x: Tensor, weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return SiLU(sum_s w[c, s] x_c(t - K + 1 + s)), padding left out of all windows, and the last inputs."""
    (batch, t, channels), taps = x.shape, weight.shape[1]
    out, tails = [], []
    for b in range(batch):
        window = [x.new_zeros(channels) for _ in range(taps - 1)]
        for i in range(t):
            if not mask[b, i]:
                out.append(x.new_zeros(channels))
                continue
            window = [*window, x[b, i]][-taps:]
            y = torch.stack([weight[:, s] * window[s] for s in range(taps)]).sum(dim=0)
            out.append(y * naive_sigmoid(y))
            window = window[1:]
        tails.append(torch.stack(window))
    return torch.stack(out).reshape(batch, t, channels), torch.stack(tails)


def naive_layer(layer: GatedDeltaAttention, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output (B, T, E), S, and the last inputs of the convolution."""
    w = {name: p[:, 0] if name.startswith("conv") else p for name, p in layer.named_parameters()}

    def linear(name: str, x: Tensor = x) -> Tensor:
        return torch.einsum("...i,oi->...o", x, w[f"{name}_proj.weight"])

    def heads(x: Tensor, count: int) -> Tensor:
        return torch.stack(x.chunk(count, -1), 2)

    n, m = layer.num_heads, layer.key_heads
    mixed = torch.cat([linear(name) for name in "qkv"], -1)
    mixed, tail = naive_convolution(mixed, w["conv.weight"], mask)
    cut = w["q_proj.weight"].shape[0]
    q = naive_unit(heads(mixed[..., :cut], m)) / math.sqrt(cut // m)
    k = naive_unit(heads(mixed[..., cut : 2 * cut], m))
    v = heads(mixed[..., 2 * cut :], n)
    g = -torch.exp(w["A_log"]) * torch.log(1 + torch.exp(linear("a") + w["dt_bias"]))
    beta = naive_sigmoid(linear("beta")) * (2 if layer.allow_neg_eigval else 1)
    o, s = naive(q, k, v, g, beta, mask)
    o = o / torch.sqrt((o * o).mean(-1, keepdim=True) + 1e-6) * w["norm.weight"]
    z = heads(linear("z"), n)
    y = o * z * naive_sigmoid(z)
    return linear("out", torch.cat([y[:, :, h] for h in range(n)], -1)), s, tail


def rows(count: int = T, heads: int = 2, d: int = 4, e: int = 3) -> Rows:
    """q, k, v, g and beta in float64, keys of length one, beta up to 2, and an S to begin with."""
    torch.manual_seed(1)
    q, k = torch.randn(2, 2, count, heads, d, dtype=torch.float64)
    v, state = torch.randn(2, count, heads, e).double(), torch.randn(2, heads, d, e).double()
    g, beta = -torch.rand(2, count, heads).double(), 2 * torch.rand(2, count, heads).double()
    k = nn.functional.normalize(k, dim=-1)
    for t in (q, k, v, g, beta, state):
        t.requires_grad_()
    return q, k, v, g, beta, state


def small(**options: Any) -> tuple[GatedDeltaAttention, Tensor]:
    """A layer with large random weights, and tokens."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"key_heads": 2, "head_dim": 3, "value_dim": 5, "chunk_size": 3}
    layer = GatedDeltaAttention(E, 4, **sizes | options).double().eval()
    for name, parameter in layer.named_parameters():
        nn.init.normal_(parameter, -1.0 if name == "A_log" else 0.0, 0.5)
    return layer, torch.randn(2, T, E, dtype=torch.float64, requires_grad=True)


SIZES: dict[str, Any] = {
    "hidden_size": E,
    "num_hidden_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 3,
    "linear_value_head_dim": 5,
}
QWEN = {
    "norm.weight": "norm.weight",
    "out_proj.weight": "out_proj.weight",
    "dt_bias": "dt_bias",
    "A_log": "A_log",
}
QWEN |= {"conv1d.weight": "conv.weight"}
OLMO = {f"{name}_proj.weight": f"{name}_proj.weight" for name in "qkva"}
OLMO |= {
    "b_proj.weight": "beta_proj.weight",
    "g_proj.weight": "z_proj.weight",
    "o_proj.weight": "out_proj.weight",
}
OLMO |= {
    "conv1d.weight": "conv.weight",
    "o_norm.weight": "norm.weight",
    "A_log": "A_log",
    "dt_bias": "dt_bias",
}


def of_qwen(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a Qwen3-Next layer, or their gradients, under the names of this page.

    For each head of keys, two matrices hold the rows of q, k, two heads of v, two of z; of two beta, two a.
    """
    found = {ours: theirs[name] for name, ours in QWEN.items()}
    packed = theirs["in_proj_qkvz.weight"].unflatten(0, (2, -1)).split([3, 3, 10, 10], dim=1)
    packed += theirs["in_proj_ba.weight"].unflatten(0, (2, -1)).split([2, 2], dim=1)
    names = ("q", "k", "v", "z", "beta", "a")
    return found | {f"{name}_proj.weight": w.flatten(0, 1) for name, w in zip(names, packed, strict=True)}


def qwen() -> tuple[Any, Qwen3NextConfig]:
    """A layer of Qwen3-Next in float64 with large random weights, and its configuration."""
    config = Qwen3NextConfig(**SIZES, linear_num_key_heads=2)
    return randomised(in_float64(modeling_qwen3_next).Qwen3NextGatedDeltaNet(config, layer_idx=0)), config


def randomised(layer: Any) -> Any:
    """A layer in float64 with large random weights, and gates that do not forget at once."""
    torch.manual_seed(2)
    for name, parameter in layer.double().eval().named_parameters():
        nn.init.normal_(parameter, -1.0 if name == "A_log" else 0.0, 0.5)
    return layer


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 64])
@pytest.mark.parametrize("count", [1, 7, T])
def test_rule_equals_naive_reference(measured: Measured, count: int, chunk_size: int) -> None:
    q, k, v, g, beta, state = leaves = rows(count)
    expected = naive(q, k, v, g, beta, state=state)
    for y, wanted in zip(gated_delta(*leaves, chunk_size), expected, strict=True):
        measured.close(y, wanted)
        measured.gradients(y, wanted, of=leaves if wanted is expected[0] else leaves[1:])


@pytest.mark.parametrize("options", [{}, {"allow_neg_eigval": True, "key_heads": 4, "kernel_size": 2}])
@pytest.mark.parametrize("mask", [torch.ones_like(RAGGED), RAGGED], ids=["whole", "padded"])
def test_layer_equals_naive_reference(measured: Measured, mask: Tensor, options: dict[str, Any]) -> None:
    layer, x = small(**options)
    y, state = layer.step(x, mask=mask)
    expected, memory, recent = naive_layer(layer, x, mask)
    kept, wanted = y[mask], expected[mask]
    measured.close(kept, wanted)
    measured.close(state.memory, memory)
    measured.close(state.recent, recent)
    measured.gradients(kept, wanted, of=(x, *layer.parameters()))


@pytest.mark.parametrize("mask", [None, RAGGED], ids=["whole", "padded"])
def test_weights_times_values_are_what_the_norm_takes(measured: Measured, mask: Tensor | None) -> None:
    layer, x = small()
    taken: list[Tensor] = []
    layer.norm.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    layer(x, mask)
    order = slice(None) if mask is None else mask
    mixed = torch.cat([layer.q_proj(x), layer.k_proj(x), layer.v_proj(x)], dim=-1)
    mask = torch.ones(2, T, dtype=torch.bool) if mask is None else mask
    values = naive_convolution(mixed, layer.conv.weight[:, 0], mask)[0][..., 12:].unflatten(2, (4, 5))
    read = torch.einsum("bhts,bshe->bthe", layer.attention(x, mask), values)
    measured.close(read[order], taken[0][order])


def test_decay_comes_before_the_error(measured: Measured) -> None:
    """Taking the error from what has not faded yet is another rule."""
    q, k, v, g, beta, state = rows()
    other, _ = naive(q, k, v, g, beta, state=state, step=naive_step_in_other_order)
    measured.value(
        "max |Δ| of the other order",
        (gated_delta(q, k, v, g, beta, state)[0] - other).abs().max().item(),
        above=0.1,
    )


def test_equals_a_layer_of_qwen3_next(measured: Measured) -> None:
    theirs, config = qwen()
    layer, x = small()
    layer.load_state_dict(of_qwen(theirs.state_dict()))
    cache: Any = DynamicCache(config=config)
    y, expected = layer.step(x), theirs(x, cache_params=cache)
    measured.close(y[0], expected)
    measured.close(y[1].memory, cache.layers[0].recurrent_states[0])
    measured.close(y[1].recent, cache.layers[0].conv_states[0][..., 1:].mT)
    cotangent = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, [x, *theirs.parameters()], cotangent)
    named = dict(zip(dict(theirs.named_parameters()), wanted[1:], strict=True))
    found = torch.autograd.grad(y[0], [x, *layer.parameters()], cotangent)
    for name, gradient in zip(["x", *dict(layer.named_parameters())], found, strict=True):
        measured.close(gradient, (of_qwen(named) | {"x": wanted[0]})[name])


def test_steps_equal_qwen3_next_with_its_cache(measured: Measured) -> None:
    """A prompt of six tokens, then token by token."""
    theirs, config = qwen()
    layer, x = small()
    layer.load_state_dict(of_qwen(theirs.state_dict()))
    cache: Any = DynamicCache(config=config)
    state = None
    for piece in x.split([6, 1, 1, 1, 1], dim=1):
        y, state = layer.step(piece, state)
        measured.close(y, theirs(piece, cache_params=cache))
        measured.close(state.memory, cache.layers[0].recurrent_states[0])


def test_projections_of_qwen3_next_are_interleaved(measured: Measured) -> None:
    """Cut into blocks of q, k, v and z they fit in shape and give another function."""
    theirs, _ = qwen()
    layer, x = small()
    state = of_qwen(theirs.state_dict())
    blocks = theirs.in_proj_qkvz.weight.split([6, 6, 20, 20])
    state |= {f"{name}_proj.weight": block for name, block in zip("qkvz", blocks, strict=True)}
    layer.load_state_dict(state)
    measured.value("max |Δ| with blocks", (layer(x) - theirs(x)).abs().max().item(), above=0.1)


def test_equals_a_layer_of_olmo_hybrid(measured: Measured) -> None:
    """Its beta goes up to 2, its projections are apart, its eps is larger."""
    config = OlmoHybridConfig(**SIZES, linear_num_key_heads=4)
    theirs = randomised(in_float64(modeling_olmo_hybrid).OlmoHybridGatedDeltaNet(config, layer_idx=0))
    layer, x = small(key_heads=4, allow_neg_eigval=True, eps=1e-5)
    layer.load_state_dict({OLMO[name]: w for name, w in theirs.state_dict().items()})
    measured.close(layer(x), theirs(x))
    measured.gradients(layer(x), theirs(x), of=(x,))


def test_padding_on_the_right_leaves_the_state_untouched(measured: Measured) -> None:
    """Behind six and nine tokens, which then are read alone."""
    layer, x = small()
    _, state = layer.step(x, mask=RIGHT)
    for row, count in enumerate(RIGHT.sum(dim=1).tolist()):
        _, alone = layer.step(x[row : row + 1, :count])
        measured.close(state.memory[row : row + 1], alone.memory, tolerance=1e-14)
        measured.close(state.recent[row : row + 1], alone.recent, tolerance=1e-14)


def test_padding_on_the_right_spoils_the_cache_of_qwen3_next(measured: Measured) -> None:
    """Its outputs are right; memory and last inputs are not, nor what the next token gets from them."""
    theirs, config = qwen()
    x = small()[1].detach()
    spoilt, right = DynamicCache(config=config), DynamicCache(config=config)
    mask = (torch.arange(T) < 6).expand(2, T)
    measured.close(
        theirs(x, cache_params=spoilt, attention_mask=mask)[:, :6], theirs(x[:, :6], cache_params=right)
    )
    for name, kept in (("memory", "recurrent_states"), ("last inputs", "conv_states")):
        bad, good = (getattr(cache.layers[0], kept)[0] for cache in (spoilt, right))
        measured.value(f"relative error of the {name}", ((bad - good).norm() / good.norm()).item(), above=0.3)
    following = torch.randn(2, 1, E, dtype=torch.float64)
    bad, good = (theirs(following, cache_params=cache) for cache in (spoilt, right))
    measured.value("relative error of the next output", ((bad - good).norm() / good.norm()).item(), above=0.3)


def test_without_decay_it_is_the_delta_rule(measured: Measured) -> None:
    """Each write then sets what stands under its key, where beta is one."""
    q, k, v, g, beta, state = rows()
    out, memory = gated_delta(q, k, v, 0 * g, beta, state)
    expected, last = delta_rule(q, k, v, beta, state)
    measured.close(out, expected)
    measured.close(memory, last)
    measured.gradients(out, expected, of=(q, k, v, beta, state))
    _, memory = gated_delta(q, k, v, g, torch.ones_like(beta), state)
    measured.close(torch.einsum("bhde,bhd->bhe", memory, k[:, -1]), v[:, -1])


def test_for_orthogonal_keys_it_is_decayed_linear_attention(measured: Measured) -> None:
    """Nothing stands under a new key, so that a write has no error to correct."""
    q, _, v, g, beta, _ = rows(4)
    k = torch.eye(4, dtype=torch.float64).view(1, 4, 1, 4).expand(2, -1, 2, -1)
    total = g.transpose(1, 2).cumsum(dim=2)
    decay = (total[..., None] - total[..., None, :]).exp().tril()
    weights = torch.einsum("bihd,bjhd->bhij", q, k) * decay
    expected = torch.einsum("bhij,bjhe->bihe", weights, beta[..., None] * v)
    measured.close(gated_delta(q, k, v, g, beta)[0], expected)


def test_a_closed_gate_forgets_all(measured: Measured) -> None:
    """Behind a token with g = -1000 nothing of the past is left, and all is finite, gradients too."""
    q, k, v, g, beta, state = leaves = rows()
    g = g - 1000.0 * (torch.arange(T) == 6)[:, None]
    out, memory = gated_delta(q, k, v, g, beta, state, chunk_size=4)
    fresh, last = gated_delta(q[:, 6:], k[:, 6:], v[:, 6:], g[:, 6:], beta[:, 6:], chunk_size=4)
    measured.close(out[:, 6:], fresh, tolerance=1e-12)
    measured.close(memory, last, tolerance=1e-12)
    gradients = torch.autograd.grad(out.sum() + memory.sum(), leaves)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_strong_gates_stay_exact_in_float32(measured: Measured) -> None:
    """Sums near -640 in a chunk of 64, known to 6e-5 there, whose exponentials alone leave float32."""
    torch.manual_seed(1)
    q, k = nn.functional.normalize(torch.randn(2, 1, 256, 2, 16), dim=-1)
    v, g, beta = torch.randn(1, 256, 2, 16), -20 * torch.rand(1, 256, 2), torch.rand(1, 256, 2)
    chunks, steps = gated_delta(q, k, v, g, beta)[0], gated_delta(q, k, v, g, beta, chunk_size=1)[0]
    measured.close(chunks, steps, tolerance=1e-4)


def test_keys_must_have_length_one(measured: Measured) -> None:
    """For longer ones a write overshoots by more each time, and the gate does not save it."""
    torch.manual_seed(1)
    q, k = torch.randn(2, 1, 200, 1, 16, dtype=torch.float64)
    v, g, beta = (
        torch.randn(1, 200, 1, 16).double(),
        torch.full((1, 200, 1), -0.01).double(),
        2 * torch.rand(1, 200, 1).double(),
    )
    unit = gated_delta(q, nn.functional.normalize(k, dim=-1), v, g, beta)[1]
    measured.value("norm of the memory, keys of length one", unit.norm().item(), below=50)
    measured.value(
        "norm of the memory, keys of length four", gated_delta(q, k, v, g, beta)[1].norm().item(), above=1e6
    )


def test_order_of_the_past_matters(measured: Measured) -> None:
    """Two tokens change places: the last of two writes to a key wins."""
    q, k, v, g, beta, state = rows()
    order = [*range(7), 8, 7, 9]
    swapped = gated_delta(q[:, order], k[:, order], v[:, order], g[:, order], beta[:, order], state)[0]
    change = (swapped - gated_delta(q, k, v, g, beta, state)[0])[:, -1].abs().max().item()
    measured.value("change of the last output", change, above=0.1)


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    layer, x = small(chunk_size=64)
    changed = torch.cat([x[:, :6], torch.randn_like(x[:, 6:])], dim=1)
    measured.close(layer(changed)[:, :6], layer(x)[:, :6], tolerance=1e-14)
    assert not torch.isclose(layer(changed), layer(x))[:, 6:].any()


def half_lives(layer: Any) -> Tensor:
    """After how many tokens of zeros half of the memory is left, by head, sorted."""
    decay = layer.A_log.exp() * nn.functional.softplus(layer.dt_bias)
    found: Tensor = (math.log(2) / decay).detach().sort().values
    return found


def test_new_layers_remember_and_those_of_qwen3_next_do_not(measured: Measured) -> None:
    """Half-lives of 32 heads, in tokens of zeros."""
    torch.manual_seed(0)
    ours = half_lives(GatedDeltaAttention(64, 32, head_dim=2))
    config = Qwen3NextConfig(**SIZES | {"linear_num_value_heads": 32}, linear_num_key_heads=2)
    theirs = half_lives(modeling_qwen3_next.Qwen3NextGatedDeltaNet(config, layer_idx=0))
    measured.value("median", ours.median().item(), above=5, below=30)
    measured.value("longest", ours.max().item(), above=100)
    measured.value("median, Qwen3-Next", theirs.median().item(), below=0.1)
    measured.value("longest, Qwen3-Next", theirs.max().item(), below=5)


def test_parameters_and_state_of_two_models(measured: Measured) -> None:
    """A layer of Qwen3-Next and one of OLMo-Hybrid."""
    with torch.device("meta"):
        layers = (
            GatedDeltaAttention(2048, 32, key_heads=16, head_dim=128),
            GatedDeltaAttention(3840, 30, head_dim=96, value_dim=192, allow_neg_eigval=True),
        )
    for layer, parameters, memory in zip(layers, (33_718_464, 88_750_332), (524_288, 552_960), strict=True):
        measured.count(sum(p.numel() for p in layer.parameters()), parameters)
        x = torch.empty(1, 1, layer.q_proj.in_features, device="meta")
        measured.count(layer.step(x)[1].memory.numel(), memory)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embed_dim": 13}, "embed_dim 13 must be divisible by num_heads 4"),
        ({"num_heads": 0}, "num_heads 0, key_heads 0, .* must be at least 1"),
        ({"key_heads": 3}, "num_heads 4 must be divisible by key_heads 3"),
        ({"head_dim": 0}, "head_dim 0 and value_dim 0 must be at least 1"),
        ({"kernel_size": 0}, "kernel_size 0 and chunk_size 64 must be at least 1"),
        ({"chunk_size": 0}, "chunk_size 0 must be at least 1"),
        ({"eps": math.nan}, "eps nan must be above 0 and finite"),
    ],
)
def test_refuses_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GatedDeltaAttention(**{"embed_dim": 12, "num_heads": 4} | arguments)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (0, lambda q: q[..., 1:], r"^q \(2, 10, 2, 3\) and k \(2, 10, 2, 4\) must be \(B, T, H, d\)"),
        (1, lambda k: k[:, :, :1], r"^q .* and k \(2, 10, 1, 4\) must be \(B, T, H, d\)"),
        (2, lambda v: v[:, 1:], r"^v \(2, 9, 2, 3\) must be \(B, T, H, e\)"),
        (3, lambda g: g[..., :1], r"^g \(2, 10, 1\) must be \(B, T, H\) = \(2, 10, 2\)"),
        (3, lambda g: g + 2, r"^g 1.* to 1.* must be at most 0 and finite"),
        (3, lambda g: g.where(g > -0.5, -math.inf), r"^g -inf to -.* must be at most 0 and finite"),
        (3, lambda g: g * math.nan, r"^g nan to nan must be at most 0 and finite"),
        (4, lambda beta: beta[1:], r"^beta \(1, 10, 2\) must be \(B, T, H\) = \(2, 10, 2\)"),
        (5, lambda state: state[:1], r"^state \(1, 2, 4, 3\) of torch.float64 must be \(B, H, d, e\)"),
        (5, lambda state: state.mT, r"^state \(2, 2, 3, 4\) of torch.float64 must be"),
        (
            5,
            lambda state: state.float(),
            r"^state \(2, 2, 4, 3\) of torch.float32 must be .* of torch.float64",
        ),
    ],
)
def test_refuses_rows_that_do_not_fit(place: int, change: Any, message: str) -> None:
    inputs: list[Any] = list(rows())
    inputs[place] = change(inputs[place])
    with pytest.raises(ValueError, match=message):
        gated_delta(*inputs)


def test_refuses_chunks_below_one() -> None:
    with pytest.raises(ValueError, match=r"^chunk_size 0 must be at least 1"):
        gated_delta(*rows(), 0)


def test_refuses_states_of_another_layer() -> None:
    layer, (x,) = example()
    _, state = layer.step(x)
    plain: Any = tuple(state)
    with pytest.raises(ValueError, match=r"^state tuple must be a GatedDeltaState"):
        layer.step(x, plain)
    with pytest.raises(
        ValueError, match=r"^state memory \(2, 8, 5, 6\) of torch.float32 must be \(2, 8, 6, 5\)"
    ):
        layer.step(x, GatedDeltaState(state.memory.mT, state.recent))
    with pytest.raises(ValueError, match=r"^state recent \(2, 2, 88\) of torch.float32 must be \(2, 3, 88\)"):
        layer.step(x, GatedDeltaState(state.memory, state.recent[:, 1:]))
