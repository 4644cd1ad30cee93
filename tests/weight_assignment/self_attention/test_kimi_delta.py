"""Proofs of Kimi delta attention."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, Glm5NextTextConfig, KimiLinearConfig
from transformers.models.glm5_next import modeling_glm5_next
from transformers.models.kimi_linear import modeling_kimi_linear

from snippets.weight_assignment.self_attention.gated_delta import gated_delta
from snippets.weight_assignment.self_attention.kimi_delta import (
    KimiDeltaAttention,
    KimiDeltaState,
    example,
    kimi_delta,
)
from tests.in_float64 import in_float64
from tests.measure import Measured

E, T, HEADS, D = 12, 10, 4, 3
Rows = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
RAGGED = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 0, 1, 1], [1, 1, 1, 0, 1, 1, 1, 0, 0, 0]]).bool()
RIGHT = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 0]]).bool()


def naive_sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + torch.exp(-x))


def naive_unit(x: Tensor) -> Tensor:
    """Return x / sqrt(sum x^2 + 1e-6) over the last axis."""
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def naive_fade(s: Tensor, g: Tensor) -> Tensor:
    """Return S (d, e) with row c multiplied by exp(g_c), channel by channel."""
    return torch.stack([torch.exp(g[c]) * s[c] for c in range(s.shape[0])])


def naive(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    mask: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return out (B, T, H, e) and S (B, H, d, e): fade each channel, then write the corrected value."""
    (batch, t, heads, e), d = v.shape, k.shape[-1]
    out, states = [], []
    for b in range(batch):
        for h in range(heads):
            s = v.new_zeros(d, e) if state is None else state[b, h]
            for i in range(t):
                if mask is None or mask[b, i]:
                    s = naive_fade(s, g[b, i, h])
                    error = v[b, i, h] - (k[b, i, h][:, None] * s).sum(0)
                    s = s + k[b, i, h][:, None] * (beta[b, i, h] * error)[None, :]
                out.append((q[b, i, h][:, None] * s).sum(0))
            states.append(s)
    found = torch.stack(out).reshape(batch, heads, t, e).transpose(1, 2)
    return found, torch.stack(states).reshape(batch, heads, d, e)


def naive_second(q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same for Gated DeltaNet-2, b (B, T, H, d) erasing, w (B, T, H, e) writing."""
    (batch, t, heads, e), d = v.shape, k.shape[-1]
    out, states = [], []
    for n in range(batch):
        for h in range(heads):
            s = v.new_zeros(d, e)
            for i in range(t):
                s = naive_fade(s, g[n, i, h])
                erased = ((b[n, i, h] * k[n, i, h])[:, None] * s).sum(0)
                s = s + k[n, i, h][:, None] * (w[n, i, h] * v[n, i, h] - erased)[None, :]
                out.append((q[n, i, h][:, None] * s).sum(0))
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


def naive_layer(layer: KimiDeltaAttention, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output (B, T, E), S, and the last inputs of the convolution."""
    w = {name: p[:, 0] if name.startswith("conv") else p for name, p in layer.named_parameters()}

    def linear(name: str, x: Tensor = x) -> Tensor:
        return torch.einsum("...i,oi->...o", x, w[f"{name}.weight"])

    def heads(x: Tensor) -> Tensor:
        return torch.stack(x.chunk(layer.num_heads, -1), 2)

    mixed = torch.cat([linear(f"{name}_proj") for name in "qkv"], -1)
    mixed, tail = naive_convolution(mixed, w["conv.weight"], mask)
    q, k, v = (heads(part) for part in mixed.chunk(3, -1))
    q, k = naive_unit(q) / math.sqrt(q.shape[-1]), naive_unit(k)
    f = heads(linear("gate_proj.1", linear("gate_proj.0")) + w["dt_bias"])
    rate = torch.exp(w["A_log"])[:, None]
    if layer.lower_bound is None:
        g = -rate * torch.log(1 + torch.exp(f))
    else:
        g = layer.lower_bound * naive_sigmoid(rate * f)
    o, s = naive(q, k, v, g, naive_sigmoid(linear("beta_proj")), mask)
    o = o / torch.sqrt((o * o).mean(-1, keepdim=True) + 1e-5) * w["norm.weight"]
    y = o * naive_sigmoid(heads(linear("z_proj.1", linear("z_proj.0"))))
    return linear("out_proj", torch.cat([y[:, :, h] for h in range(layer.num_heads)], -1)), s, tail


def rows(count: int = T, heads: int = 2, d: int = 4, e: int = 3) -> Rows:
    """q, k, v, g and beta in float64, keys of length one, beta up to 2, and an S to begin with."""
    torch.manual_seed(1)
    q, k, g = torch.randn(3, 2, count, heads, d, dtype=torch.float64)
    v, state = torch.randn(2, count, heads, e).double(), torch.randn(2, heads, d, e).double()
    beta = 2 * torch.rand(2, count, heads).double()
    k, g = nn.functional.normalize(k, dim=-1), -g.abs()
    for t in (q, k, v, g, beta, state):
        t.requires_grad_()
    return q, k, v, g, beta, state


def small(**options: Any) -> tuple[KimiDeltaAttention, Tensor]:
    """A layer with large random weights, and tokens."""
    torch.manual_seed(1)
    layer = KimiDeltaAttention(E, HEADS, **{"chunk_size": 3} | options).double().eval()
    for name, parameter in layer.named_parameters():
        nn.init.normal_(parameter, -1.0 if name == "A_log" else 0.0, 0.5)
    return layer, torch.randn(2, T, E, dtype=torch.float64, requires_grad=True)


SIZES: dict[str, Any] = {
    "hidden_size": E,
    "num_hidden_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_heads": HEADS,
    "linear_head_dim": D,
}
THEIRS = {f"{name}_proj.weight": f"{name}_proj.weight" for name in "qkv"} | {
    "forget_gate.f_a_proj.weight": "gate_proj.0.weight",
    "forget_gate.f_b_proj.weight": "gate_proj.1.weight",
    "forget_gate.A_log": "A_log",
    "forget_gate.dt_bias": "dt_bias",
    "g_a_proj.weight": "z_proj.0.weight",
    "g_b_proj.weight": "z_proj.1.weight",
    "b_proj.weight": "beta_proj.weight",
    "conv1d.weight": "conv.weight",
    "o_norm.weight": "norm.weight",
    "o_proj.weight": "out_proj.weight",
}


def of_theirs(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a layer of transformers, or their gradients, under the names of this page."""
    found = {THEIRS[name]: weight for name, weight in theirs.items()}
    return found | {"A_log": found["A_log"].flatten()}  # Kimi's has the axes of a batch


def randomised(layer: Any) -> Any:
    """A layer in float64 with large random weights, and gates that do not forget at once."""
    torch.manual_seed(2)
    for name, parameter in layer.double().eval().named_parameters():
        nn.init.normal_(parameter, -1.0 if "A_log" in name else 0.0, 0.5)
    return layer


def kimi() -> tuple[Any, KimiLinearConfig]:
    """A layer of Kimi Linear in float64 with large random weights, and its configuration."""
    config = KimiLinearConfig(**SIZES)
    return randomised(in_float64(modeling_kimi_linear).KimiLinearDeltaAttention(config, layer_idx=0)), config


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 64])
@pytest.mark.parametrize("count", [1, 7, T])
def test_rule_equals_naive_reference(measured: Measured, count: int, chunk_size: int) -> None:
    leaves = rows(count)
    q, k, v, g, beta, state = leaves
    expected = naive(q, k, v, g, beta, state=state)
    for y, wanted in zip(kimi_delta(*leaves, chunk_size), expected, strict=True):
        measured.close(y, wanted)
        measured.gradients(y, wanted, of=leaves if wanted is expected[0] else leaves[1:])


@pytest.mark.parametrize("options", [{}, {"lower_bound": -5.0, "head_dim": 5, "kernel_size": 2}])
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
    values = naive_convolution(mixed, layer.conv.weight[:, 0], mask)[0][..., 24:].unflatten(2, (HEADS, D))
    read = torch.einsum("bhts,bshe->bthe", layer.attention(x, mask), values)
    measured.close(read[order], taken[0][order])


@pytest.mark.parametrize("chunk_size", [1, 4, 64])
def test_equal_gates_are_the_gated_delta_rule(measured: Measured, chunk_size: int) -> None:
    """Output, last memory and gradients, one gate repeated over the channels."""
    leaves = rows()
    q, k, v, g, beta, state = leaves
    one = g[..., 0]
    found = kimi_delta(q, k, v, one[..., None].expand_as(k), beta, state, chunk_size)
    for y, wanted in zip(found, gated_delta(q, k, v, one, beta, state), strict=True):
        measured.close(y, wanted)
        measured.gradients(y, wanted, of=leaves[1:])


def test_no_single_gate_does_what_channel_gates_do(measured: Measured) -> None:
    """One value to keep for 59 tokens, one to forget within 20: nothing is written over."""
    k, v, beta = (
        torch.zeros(1, 60, 1, 2).double(),
        torch.ones(1, 60, 1, 1).double(),
        torch.zeros(1, 60, 1).double(),
    )
    for token, key in ((0, 0), (39, 1)):
        k[:, token, :, key], beta[:, token] = 1, 1
    wanted = torch.tensor([1.0, 0.0]).double()

    def error(memory: Tensor) -> float:
        return (memory.flatten() - wanted).abs().max().item()

    gates = torch.linspace(0.5, 1, 501, dtype=torch.float64).log()
    single = min(error(gated_delta(k, k, v, gate.expand(1, 60, 1), beta)[1]) for gate in gates)
    channels = kimi_delta(k, k, v, torch.tensor([0.0, -1.0]).double().expand_as(k), beta)[1]
    measured.value("error of the best of 501 single gates", single, above=0.5)
    measured.value("error with a gate for each", error(channels), below=1e-8)


def test_what_is_written_over_needs_no_gate(measured: Measured) -> None:
    """One key is written once, another 59 times: the delta rule has both, sums with one gate do not."""
    torch.manual_seed(1)
    k = torch.zeros(1, 60, 1, 2).double()
    k[:, 0, :, 0], k[:, 1:, :, 1] = 1, 1
    v = torch.randn(1, 60, 1, 1).double()
    wanted = v[0, [0, -1], 0, 0]
    memory = kimi_delta(k, k, v, torch.zeros_like(k), torch.ones(1, 60, 1).double())[1].flatten()
    measured.close(memory, wanted)
    ages = 59 - torch.arange(60)
    sums = [
        ((gate**ages)[:, None] * k[0, :, 0] * v[0, :, 0]).sum(dim=0) for gate in torch.linspace(0.5, 1, 501)
    ]
    best = min((found - wanted).abs().max().item() for found in sums)
    measured.value("error of sums with the best of 501 single gates", best, above=0.3)


def test_it_is_diagonal_plus_rank_one(measured: Measured) -> None:
    """S_t = (diag(exp g) + a b^T) S + beta k v^T with a = -beta k and b = exp(g) * k."""
    q, k, v, g, beta, state = rows()
    S = state
    for t in range(T):
        fade, rate = g[:, t].exp(), beta[:, t, :, None]
        change = torch.diag_embed(fade) - (rate * k[:, t])[..., None] * (fade * k[:, t])[..., None, :]
        S = change @ S + (rate * k[:, t])[..., None] * v[:, t, :, None]
    measured.close(kimi_delta(q, k, v, g, beta, state)[1], S)


def test_equals_a_layer_of_kimi_linear(measured: Measured) -> None:
    theirs, config = kimi()
    layer, x = small()
    layer.load_state_dict(of_theirs(theirs.state_dict()))
    cache: Any = DynamicCache(config=config)
    y, expected = layer.step(x), theirs(x, cache_params=cache)
    measured.close(y[0], expected)
    measured.close(y[1].memory, cache.layers[0].recurrent_states[0])
    measured.close(y[1].recent, cache.layers[0].conv_states[0][..., 1:].mT)
    cotangent = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, [x, *theirs.parameters()], cotangent)
    named = of_theirs(dict(zip(dict(theirs.named_parameters()), wanted[1:], strict=True)))
    found = torch.autograd.grad(y[0], [x, *layer.parameters()], cotangent)
    for name, gradient in zip(["x", *dict(layer.named_parameters())], found, strict=True):
        measured.close(gradient, (named | {"x": wanted[0]})[name])


def test_steps_equal_kimi_linear_with_its_cache(measured: Measured) -> None:
    """A prompt of six tokens, then token by token."""
    theirs, config = kimi()
    layer, x = small()
    layer.load_state_dict(of_theirs(theirs.state_dict()))
    cache: Any = DynamicCache(config=config)
    state = None
    for piece in x.split([6, 1, 1, 1, 1], dim=1):
        y, state = layer.step(piece, state)
        measured.close(y, theirs(piece, cache_params=cache))
        measured.close(state.memory, cache.layers[0].recurrent_states[0])


def test_bounded_gates_equal_a_layer_of_glm(measured: Measured) -> None:
    """GLM-5.3-Flash: a sigmoid in place of the softplus, from -5 to 0."""
    config = Glm5NextTextConfig(**SIZES)
    theirs = randomised(in_float64(modeling_glm5_next).Glm5NextTextLinearAttention(config, layer_idx=0))
    layer, x = small(lower_bound=config.linear_lower_bound, eps=config.rms_norm_eps)
    layer.load_state_dict(of_theirs(theirs.state_dict()))
    measured.close(layer(x), theirs(x))
    measured.gradients(layer(x), theirs(x), of=(x,))


def test_the_bound_keeps_chunks_within_float32(measured: Measured) -> None:
    """exp(G_i) exp(-G_j) in float32 with the strongest gates: 16 tokens fit, 18 do not."""
    layer, _ = small(lower_bound=-5.0)
    strongest = layer.float().gates(torch.full((1, 1, E), -1e4)).min().item()
    measured.value("least log gate with the bound -5", strongest, at_least=-5)
    for count in (16, 18):
        G = (strongest * torch.ones(count)).cumsum(dim=0)
        apart = G.exp()[:, None] * (-G).exp()[None, :]
        lost = (~apart.tril().isfinite()).sum().item()
        measured.value(
            f"factors that are lost, {count} tokens", lost, **({"equals": 0} if count == 16 else {"above": 0})
        )


def test_strong_gates_stay_exact_in_float32(measured: Measured) -> None:
    """Log gates down to -20, which no bound holds: differences are taken before the exponential."""
    torch.manual_seed(1)
    q, k = nn.functional.normalize(torch.randn(2, 1, 256, 2, 16), dim=-1)
    v, g, beta = torch.randn(1, 256, 2, 16), -20 * torch.rand(1, 256, 2, 16), torch.rand(1, 256, 2)
    chunks, steps = kimi_delta(q, k, v, g, beta)[0], kimi_delta(q, k, v, g, beta, chunk_size=1)[0]
    measured.close(chunks, steps, tolerance=1e-4)


def test_a_closed_channel_forgets_alone(measured: Measured) -> None:
    """One channel with g = -1000: its row begins anew, the others stay, and gradients are finite."""
    q, k, v, g, beta, state = leaves = rows()
    closed = g - 1000.0 * torch.eye(4)[0] * (torch.arange(T) == T - 1)[:, None, None]
    beta = beta * (torch.arange(T) < T - 1)[:, None]
    out, memory = kimi_delta(q, k, v, closed, beta, state, chunk_size=4)
    _, kept = kimi_delta(q, k, v, g, beta, state, chunk_size=4)
    measured.value("left of the closed channel", memory[:, :, 0].abs().max().item(), equals=0)
    measured.close(memory[:, :, 1:], kept[:, :, 1:])
    gradients = torch.autograd.grad(out.sum() + memory.sum(), leaves)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_channels_that_fade_apart_turn_the_key(measured: Measured) -> None:
    """A value under a key of two channels: one fades, and another key reads more of it than its own."""
    k = torch.tensor([0.6, 0.8]).double().view(1, 1, 1, 2)
    v, beta = torch.ones(1, 1, 1, 1).double(), torch.ones(1, 1, 1).double()
    S = kimi_delta(k, k, v, torch.zeros_like(k), beta)[1]
    _, S = kimi_delta(k, k, v, torch.tensor([0.0, -20.0]).double().view_as(k), 0 * beta, S)
    own = torch.einsum("d,bhde->bhe", k.flatten(), S).item()
    measured.value("read under its own key", own, equals=0.36, within=1e-6)
    measured.value("read under the first channel", S[0, 0, 0, 0].item(), equals=0.6, within=1e-6)


def test_padding_on_the_right_leaves_the_state_untouched(measured: Measured) -> None:
    """Behind six and nine tokens, which then are read alone."""
    layer, x = small()
    _, state = layer.step(x, mask=RIGHT)
    for row, count in enumerate(RIGHT.sum(dim=1).tolist()):
        _, alone = layer.step(x[row : row + 1, :count])
        measured.close(state.memory[row : row + 1], alone.memory, tolerance=1e-14)
        measured.close(state.recent[row : row + 1], alone.recent, tolerance=1e-14)


def test_padding_on_the_right_spoils_the_cache_of_kimi_linear(measured: Measured) -> None:
    """Its outputs are right; memory and last inputs are not, nor what the next token gets from them."""
    theirs, config = kimi()
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


def test_equal_rates_of_gated_deltanet_2_are_this_rule(measured: Measured) -> None:
    """b = w = beta; with other rates it is another rule."""
    q, k, v, g, beta, _ = rows()
    b, w = beta[..., None].expand_as(k), beta[..., None].expand_as(v)
    for y, wanted in zip(kimi_delta(q, k, v, g, beta), naive_second(q, k, v, g, b, w), strict=True):
        measured.close(y, wanted)
    other, _ = naive_second(q, k, v, g, b * torch.rand_like(b), w)
    difference = (other - kimi_delta(q, k, v, g, beta)[0]).abs().max().item()
    measured.value("max |Δ| where channels erase apart", difference, above=0.1)


def test_order_of_the_past_matters(measured: Measured) -> None:
    """Two tokens change places: the last of two writes to a key wins."""
    q, k, v, g, beta, state = rows()
    order = [*range(7), 8, 7, 9]
    swapped = kimi_delta(q[:, order], k[:, order], v[:, order], g[:, order], beta[:, order], state)[0]
    change = (swapped - kimi_delta(q, k, v, g, beta, state)[0])[:, -1].abs().max().item()
    measured.value("change of the last output", change, above=0.1)


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    layer, x = small(chunk_size=64)
    changed = torch.cat([x[:, :6], torch.randn_like(x[:, 6:])], dim=1)
    measured.close(layer(changed)[:, :6], layer(x)[:, :6], tolerance=1e-14)
    assert not torch.isclose(layer(changed), layer(x))[:, 6:].any()


def test_new_layers_remember(measured: Measured) -> None:
    """Half-lives of the 128 channels of 32 heads, in tokens of zeros, without and with a bound."""
    for name, bound in (("", None), (", bounded", -5.0)):
        torch.manual_seed(0)
        layer = KimiDeltaAttention(64, 32, head_dim=128, lower_bound=bound)
        remains = layer.gates(torch.zeros(1, 1, 64)).flatten()
        lives = math.log(2) / -remains
        measured.value(f"median{name}", lives.median().item(), above=5, below=30)
        measured.value(f"longest{name}", lives.max().item(), above=100)


def test_parameters_and_state_of_two_models(measured: Measured) -> None:
    """A layer of Kimi Linear; the memory of one of GLM-5.3-Flash."""
    with torch.device("meta"):
        layer = KimiDeltaAttention(2304, 32, head_dim=128)
        larger = KimiDeltaAttention(64, 64, head_dim=128, lower_bound=-5.0)
    measured.count(sum(p.numel() for p in layer.parameters()), 39_514_272)
    for made, memory in ((layer, 524_288), (larger, 1_048_576)):
        x = torch.empty(1, 1, made.q_proj.in_features, device="meta")
        measured.count(made.step(x)[1].memory.numel(), memory)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embed_dim": 13}, "embed_dim 13 must be divisible by num_heads 4"),
        ({"num_heads": 0}, "num_heads 0, .* must be at least 1"),
        ({"head_dim": 0}, "head_dim 0 must be at least 1"),
        ({"kernel_size": 0}, "kernel_size 0 and chunk_size 16 must be at least 1"),
        ({"chunk_size": 0}, "chunk_size 0 must be at least 1"),
        ({"lower_bound": 0.0}, "lower_bound 0.0 must be below 0 and finite"),
        ({"lower_bound": -math.inf}, "lower_bound -inf must be below 0 and finite"),
        ({"eps": math.nan}, "eps nan must be above 0 and finite"),
    ],
)
def test_refuses_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KimiDeltaAttention(**{"embed_dim": 12, "num_heads": 4} | arguments)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (0, lambda q: q[..., 1:], r"^q \(2, 10, 2, 3\) and k \(2, 10, 2, 4\) must be \(B, T, H, d\)"),
        (1, lambda k: k[:, :, :1], r"^q .* and k \(2, 10, 1, 4\) must be \(B, T, H, d\)"),
        (2, lambda v: v[:, 1:], r"^v \(2, 9, 2, 3\) must be \(B, T, H, e\)"),
        (3, lambda g: g[..., 0], r"^g \(2, 10, 2\) must be \(B, T, H, d\) = \(2, 10, 2, 4\)"),
        (3, lambda g: g[..., :1], r"^g \(2, 10, 2, 1\) must be \(B, T, H, d\) = \(2, 10, 2, 4\)"),
        (3, lambda g: g + 9, r"^g .* to .* must be at most 0 and finite"),
        (3, lambda g: g - math.inf, r"^g -inf to -inf must be at most 0 and finite"),
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
        kimi_delta(*inputs)


def test_refuses_chunks_below_one() -> None:
    with pytest.raises(ValueError, match=r"^chunk_size 0 must be at least 1"):
        kimi_delta(*rows(), 0)


def test_refuses_states_of_another_layer() -> None:
    layer, (x,) = example()
    _, state = layer.step(x)
    plain: Any = tuple(state)
    with pytest.raises(ValueError, match=r"^state tuple must be a KimiDeltaState"):
        layer.step(x, plain)
    with pytest.raises(
        ValueError, match=r"^state memory \(2, 3, 5, 5\) of torch.float32 must be \(2, 4, 5, 5\)"
    ):
        layer.step(x, KimiDeltaState(state.memory[:, 1:], state.recent))
    with pytest.raises(ValueError, match=r"^state recent \(2, 2, 60\) of torch.float32 must be \(2, 3, 60\)"):
        layer.step(x, KimiDeltaState(state.memory, state.recent[:, 1:]))
