"""Proofs for state space duality."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, Mamba2Config
from transformers.models.mamba2 import modeling_mamba2

from snippets.weight_assignment.self_attention.decayed_linear import decayed_linear
from snippets.weight_assignment.self_attention.linear import linear_attention
from snippets.weight_assignment.self_attention.state_space_duality import (
    StateSpace,
    StateSpaceDuality,
    example,
    state_space,
)
from tests.in_float64 import in_float64
from tests.measure import Measured

mamba2: Any = in_float64(modeling_mamba2)
E, T, H, P, N, G = 12, 10, 4, 6, 5, 2
RAGGED = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 0, 1, 1], [1, 1, 1, 0, 1, 1, 1, 0, 0, 0]]).bool()


def naive_ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    b: Tensor,
    c: Tensor,
    mask: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return y (B, T, H, P) and S (B, H, N, P), S = exp(A dt) S + b (dt x)^T, y = S^T c; padding leaves S."""
    (batch, t, heads, p), n = x.shape, b.shape[-1]
    share = heads // b.shape[2]
    out, states = [], []
    for r in range(batch):
        for h in range(heads):
            s = x.new_zeros(n, p) if state is None else state[r, h]
            for i in range(t):
                if mask is None or mask[r, i]:
                    value = dt[r, i, h] * x[r, i, h]
                    s = torch.exp(A[h] * dt[r, i, h]) * s + b[r, i, h // share][:, None] * value[None, :]
                out.append((c[r, i, h // share][:, None] * s).sum(0))
            states.append(s)
    found = torch.stack(out).reshape(batch, heads, t, p).transpose(1, 2)
    return found, torch.stack(states).reshape(batch, heads, n, p)


def naive_matrix(dt: Tensor, A: Tensor, b: Tensor, c: Tensor, D: Tensor) -> Tensor:
    """Return (B, H, T, T), which acts on x itself: dt_j in column j, D on the diagonal, pair by pair."""
    batch, t, heads = dt.shape
    share = heads // b.shape[2]
    out = []
    for r in range(batch):
        for h in range(heads):
            for i in range(t):
                for j in range(t):
                    a = (c[r, i, h // share] * b[r, j, h // share]).sum() * dt[r, j, h]
                    for m in range(j + 1, i + 1):
                        a = a * torch.exp(A[h] * dt[r, m, h])
                    a = a * 0 if j > i else a
                    out.append(a + D[h] if i == j else a)
    return torch.stack(out).reshape(batch, heads, t, t)


def naive_silu(x: Tensor) -> Tensor:
    """Return x sigmoid(x)."""
    return x / (1 + torch.exp(-x))


def naive_convolution(x: Tensor, conv: nn.Conv1d, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return SiLU(b_c + sum_s w[c, s] x_c(t - K + 1 + s)), padding in no window, and the last inputs."""
    weight = conv.weight[:, 0]
    (batch, t, channels), taps = x.shape, weight.shape[1]
    out, tails = [], []
    for r in range(batch):
        window = [x.new_zeros(channels) for _ in range(taps - 1)]
        for i in range(t):
            if not mask[r, i]:
                out.append(x.new_zeros(channels))
                continue
            window = [*window, x[r, i]][-taps:]
            out.append(naive_silu(conv.bias + sum(weight[:, s] * window[s] for s in range(taps))))
            window = window[1:]
        tails.append(torch.stack(window))
    return torch.stack(out).reshape(batch, t, channels), torch.stack(tails)


def naive_heads(x: Tensor, heads: int) -> Tensor:
    """Return (B, T, heads, width), the channels of a head side by side."""
    return torch.stack(x.chunk(heads, -1), 2)


def naive_inside(
    layer: StateSpaceDuality, x: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return queries and keys (B, T, G, N), values (B, T, H, P), steps (B, T, H), and the last inputs."""
    w = dict(layer.named_parameters())
    mixed, dt = (
        torch.cat([torch.einsum("bti,oi->bto", x, w[f"{name}_proj.weight"]) for name in names], -1)
        for names in (("q", "k", "v"), ("dt",))
    )
    mixed, tail = naive_convolution(mixed, layer.conv, mask)
    keys = w["q_proj.weight"].shape[0]
    q, k, v = mixed[..., :keys], mixed[..., keys : 2 * keys], mixed[..., 2 * keys :]
    dt = torch.log(1 + torch.exp(dt + w["dt_bias"]))
    return (*(naive_heads(t, layer.groups) for t in (q, k)), naive_heads(v, layer.num_heads), dt, tail)


def naive(layer: StateSpaceDuality, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output (B, T, E), S, and the last inputs of the convolution."""
    q, k, v, dt, tail = naive_inside(layer, x, mask)
    y, s = naive_ssd(v, dt, -torch.exp(layer.A_log), k, q, mask)
    y = y + layer.D[:, None] * v
    y = torch.cat([y[:, :, h] for h in range(layer.num_heads)], -1)
    y = y * naive_silu(torch.einsum("bti,oi->bto", x, layer.z_proj.weight))
    parts = y.chunk(layer.groups, -1)
    y = torch.cat([part / torch.sqrt((part * part).mean(-1, keepdim=True) + 1e-5) for part in parts], -1)
    y = y * layer.scale
    return torch.einsum("bti,oi->bto", y, layer.out_proj.weight), s, tail


def rows(count: int = T, groups: int = G) -> tuple[Tensor, ...]:
    """q, k, v, dt, A and an S to begin with, in float64."""
    torch.manual_seed(1)
    q, k = torch.randn(2, 2, count, groups, N, dtype=torch.float64)
    v, state = torch.randn(2, count, H, P).double(), torch.randn(2, H, N, P).double()
    dt, A = torch.rand(2, count, H).double(), -torch.rand(H).double()
    return tuple(t.requires_grad_() for t in (q, k, v, dt, A, state))


def small(**options: Any) -> tuple[StateSpaceDuality, Tensor]:
    """A layer with large random weights, and tokens."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"state_dim": N, "groups": G, "chunk_size": 3}
    layer = StateSpaceDuality(E, H, **sizes | options).double().eval()
    return randomised(layer), torch.randn(2, T, E, dtype=torch.float64, requires_grad=True)


def randomised(layer: Any) -> Any:
    """A layer in float64 with large random weights, whose memory does not fade at once."""
    torch.manual_seed(2)
    for name, parameter in layer.double().eval().named_parameters():
        nn.init.normal_(parameter, -1.0 if name in ("A_log", "dt_bias") else 0.0, 0.5)
    return layer


def mixer(**options: Any) -> tuple[Any, Mamba2Config]:
    """A mixer of Mamba-2 in float64 with large random weights, and its configuration."""
    sizes = {"num_heads": H, "head_dim": P, "state_size": N, "n_groups": G, "chunk_size": 4}
    config = Mamba2Config(hidden_size=E, num_hidden_layers=1, **sizes | options)
    return randomised(mamba2.Mamba2Mixer(config, layer_idx=0)), config


def of_mixer(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a mixer, or their gradients, by our names: one matrix holds z, x, B, C and dt."""
    rows_of = theirs["in_proj.weight"].split([H * P, H * P, G * N, G * N, H])
    found = {f"{name}_proj.weight": w for name, w in zip("zvkq", rows_of[:4], strict=True)}
    found |= {"dt_proj.weight": rows_of[4], "scale": theirs["norm.weight"]}
    for part in ("weight", "bias"):  # of x, B and C
        v, k, q = theirs[f"conv1d.{part}"].split([H * P, G * N, G * N])
        found[f"conv.{part}"] = torch.cat([q, k, v])
    return found | {name: theirs[name] for name in ("A_log", "dt_bias", "D", "out_proj.weight")}


def kept_by(cache: DynamicCache) -> tuple[Tensor, Tensor]:
    """What a cache of transformers keeps, in the order of this page: memory, and the last inputs."""
    v, k, q = cache.layers[0].conv_states[0][..., 1:].mT.split([H * P, G * N, G * N], dim=-1)
    return cache.layers[0].recurrent_states[0].mT, torch.cat([q, k, v], dim=-1)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 7, T])
@pytest.mark.parametrize("chunk_size", [1, 3, 64])
def test_rule_equals_naive_reference(measured: Measured, chunk_size: int, count: int, groups: int) -> None:
    q, k, v, dt, A, state = leaves = rows(count, groups)
    out, last = state_space(*leaves, chunk_size=chunk_size)
    expected, s = naive_ssd(v, dt, A, k, q, state=state)
    measured.close(out, expected)
    measured.close(last, s)
    ends = (torch.cat([out.flatten(), last.flatten()]), torch.cat([expected.flatten(), s.flatten()]))
    measured.gradients(*ends, of=leaves)


@pytest.mark.parametrize("options", [{}, {"groups": 1, "kernel_size": 2, "head_dim": 7, "chunk_size": 64}])
@pytest.mark.parametrize("mask", [torch.ones_like(RAGGED), RAGGED], ids=["whole", "padded"])
def test_layer_equals_naive_reference(measured: Measured, mask: Tensor, options: dict[str, Any]) -> None:
    layer, x = small(**options)
    y, state = layer.step(x, mask=mask)
    expected, memory, recent = naive(layer, x, mask)
    measured.close(y[mask], expected[mask])
    measured.close(state.memory, memory)
    measured.close(state.recent, recent)
    measured.gradients(y[mask], expected[mask], of=(x, *layer.parameters()))


@pytest.mark.parametrize("mask", [torch.ones_like(RAGGED), RAGGED], ids=["whole", "padded"])
def test_chunks_equal_weights_times_values(measured: Measured, mask: Tensor) -> None:
    """What goes into the norm is the T x T matrix times the values, times SiLU(z)."""
    layer, x = small()
    read: list[Tensor] = []
    layer.norm.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
    layer(x, mask)
    _, _, v, _, _ = naive_inside(layer, x, mask)
    heads = torch.einsum("bhts,bshp->bthp", layer.attention(x, mask), v)
    found, expected = read[0].flatten(2), heads.flatten(2) * F.silu(layer.z_proj(x))
    measured.close(found[mask], expected[mask])
    measured.gradients(found[mask], expected[mask], of=(x, layer.k_proj.weight, layer.A_log, layer.D))


def test_weights_are_products_pair_by_pair(measured: Measured) -> None:
    layer, x = small()
    q, k, _, dt, _ = naive_inside(layer, x, torch.ones_like(RAGGED))
    measured.close(layer.attention(x), naive_matrix(dt, -layer.A_log.exp(), k, q, layer.D))


def test_equals_a_whole_mixer_of_transformers(measured: Measured) -> None:
    """Output, state, last inputs, and the gradients of tokens and of each weight."""
    theirs, config = mixer()
    layer, x = small()
    layer.load_state_dict(of_mixer(theirs.state_dict()))
    cache = DynamicCache(config=config)
    (y, state), expected = layer.step(x), theirs(x, cache_params=cache)
    measured.close(y, expected)
    for ours, kept in zip(state, kept_by(cache), strict=True):
        measured.close(ours, kept)
    cotangent = torch.randn_like(expected)
    wanted = torch.autograd.grad(theirs(x), [x, *theirs.parameters()], cotangent)
    named = dict(zip(dict(theirs.named_parameters()), wanted[1:], strict=True))
    found = torch.autograd.grad(y, [x, *layer.parameters()], cotangent)
    for name, gradient in zip(["x", *dict(layer.named_parameters())], found, strict=True):
        measured.close(gradient, (of_mixer(named) | {"x": wanted[0]})[name])


def test_steps_equal_the_mixer_with_its_cache(measured: Measured) -> None:
    """A prompt of six tokens, then token by token."""
    theirs, config = mixer()
    layer, x = small()
    layer.load_state_dict(of_mixer(theirs.state_dict()))
    cache, state = DynamicCache(config=config), None
    for piece in x.split([6, 1, 1, 1, 1], dim=1):
        y, state = layer.step(piece, state)
        measured.close(y, theirs(piece, cache_params=cache))
        for ours, kept in zip(state, kept_by(cache), strict=True):
            measured.close(ours, kept)


def test_padding_on_the_right_leaves_no_trace(measured: Measured) -> None:
    """Six tokens and four of padding, then one more; transformers' mixer is given the same mask."""
    theirs, config = mixer()
    layer, x = small()
    layer.load_state_dict(of_mixer(theirs.state_dict()))
    mask = (torch.arange(T) < 6).expand(2, -1)
    _, alone = layer.step(x[:, :6])
    _, padded = layer.step(x, mask=mask)
    for ours, right in zip(padded, alone, strict=True):
        measured.close(ours, right)
    expected = layer.step(x[:, :1], alone)[0]
    measured.close(layer.step(x[:, :1], padded)[0], expected)
    cache = DynamicCache(config=config)
    theirs(x, cache_params=cache, attention_mask=mask)
    memory, recent = kept_by(cache)
    measured.value("memory in transformers, relative error", relative(memory, alone.memory), above=0.1)
    measured.value("last inputs in transformers, relative error", relative(recent, alone.recent), above=0.9)
    error = relative(theirs(x[:, :1], cache_params=cache), expected)
    measured.value("next output in transformers, relative error", error, above=0.1)


def relative(found: Tensor, right: Tensor) -> float:
    return ((found - right).norm() / right.norm()).item()


def test_a_limit_of_the_step_holds_for_prompts_alone_in_transformers(measured: Measured) -> None:
    """Nine tokens and one, or ten at once: without a limit the last output is the same."""
    for limit, bound in (((0.0, math.inf), {"at_most": 1e-12}), ((0.0, 0.1), {"above": 0.01})):
        theirs, config = mixer(time_step_limit=limit)
        _, x = small()
        cache = DynamicCache(config=config)
        theirs(x[:, :9], cache_params=cache)
        last = theirs(x[:, 9:], cache_params=cache)
        measured.value(f"limit {limit}, relative error", relative(last, theirs(x)[:, 9:]), **bound)


def test_it_is_decayed_linear_attention(measured: Measured) -> None:
    """With gates A dt, values dt v, and each query and key for neighbouring heads."""
    q, k, v, dt, A, state = leaves = rows()
    wide_q, wide_k = (t.repeat_interleave(H // G, dim=2) for t in (q, k))
    expected, s = decayed_linear(wide_q, wide_k, dt[..., None] * v, A * dt, state)
    out, last = state_space(*leaves)
    measured.close(out, expected)
    measured.close(last, s)
    measured.gradients(out, expected, of=leaves)


def test_without_fading_it_is_linear_attention(measured: Measured) -> None:
    """A of zero and steps of one."""
    q, k, v, _, _, state = rows(groups=H)
    out, last = state_space(q, k, v, torch.ones_like(v[..., 0]), torch.zeros(H).double(), state)
    expected, s = linear_attention(q, k, v, state)
    measured.close(out, expected)
    measured.close(last, s)


def test_the_mask_is_the_exponential_of_transformers_segment_sum(measured: Measured) -> None:
    """With queries and keys of ones and dt v = 1 at one token, the outputs are a column of L."""
    _, _, _, dt, A, _ = rows()
    one = torch.ones(2, T, 1, 1, dtype=torch.float64)
    v = (torch.eye(T, dtype=torch.float64)[:, None] / dt[..., None]).detach()
    L, _ = state_space(one, one, v, dt, A)
    expected = mamba2.segment_sum((dt * A).transpose(1, 2)).exp()
    measured.close(L.transpose(1, 2), expected)


@pytest.mark.parametrize("n", [1, 3, 5])
def test_blocks_below_the_diagonal_have_rank_n(measured: Measured, n: int) -> None:
    """Of 64 tokens: no block that ends left of the diagonal has more, whatever its size; the whole has 64."""
    torch.manual_seed(0)
    layer = randomised(StateSpaceDuality(E, H, state_dim=n))
    weights = layer.attention(torch.randn(1, 64, E, dtype=torch.float64))[0]
    measured.count(torch.linalg.matrix_rank(weights).min().item(), 64)
    ranks = torch.stack(
        [torch.linalg.matrix_rank(weights[:, i:, :i], rtol=1e-10) for i in range(1, 64)]
    )  # (63, H)
    measured.count(ranks.max().item(), n)
    measured.count(torch.linalg.matrix_rank(weights[:, 32:, :32], rtol=1e-10).min().item(), n)


def test_a_step_of_zero_leaves_the_state_and_a_long_one_clears_it(measured: Measured) -> None:
    q, k, v, dt, A, state = rows()
    _, kept = state_space(q, k, v, torch.zeros_like(dt), A, state)
    measured.close(kept, state, tolerance=0)
    dt, A = dt + 100.0 * (torch.arange(T) == 6)[:, None], A - 1
    out, last = state_space(q, k, v, dt, A, state, chunk_size=4)
    fresh, s = state_space(*(t[:, 6:] for t in (q, k, v, dt)), A, chunk_size=4)
    measured.close(out[:, 6:], fresh)
    measured.close(last, s)
    gradients = torch.autograd.grad(out.sum() + last.sum(), [q, k, v, dt, A, state])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_long_steps_stay_exact_in_float32(measured: Measured) -> None:
    """Sums below -1000 within one chunk, whose exponentials alone leave the range of float32."""
    torch.manual_seed(1)
    q, k, v = torch.randn(3, 1, 256, 2, 16)
    dt, A = 5 * torch.rand(1, 256, 2), torch.tensor([-1.0, -16.0])
    chunks, steps = (state_space(q, k, v, dt, A, chunk_size=size)[0] for size in (64, 1))
    measured.value("relative error of chunks", relative(chunks, steps), below=1e-4)


def test_parameters_and_state_of_mamba_2(measured: Measured) -> None:
    """The mixer as transformers configures it; its own count, and that of the module."""
    with torch.device("meta"):
        layer = StateSpaceDuality(4096, 128, head_dim=64, state_dim=128, groups=8)
        theirs = modeling_mamba2.Mamba2Mixer(Mamba2Config(), layer_idx=0)
    counts = [sum(p.numel() for p in module.parameters()) for module in (layer, theirs)]
    measured.count(counts[0], 109_635_968)
    assert counts[0] == counts[1]
    measured.count(layer.step(torch.empty(1, 1, 4096, device="meta"))[1].memory.numel(), 1_048_576)


def test_new_layers_start_with_short_steps(measured: Measured) -> None:
    """Of a token of zeros, in 128 heads, and how many of them leave half of the memory."""
    layer = StateSpaceDuality(64, 128, 4)
    step = layer.steps(torch.zeros(1, 1, 64)).detach().flatten()
    measured.value("shortest step", step.min().item(), at_least=0.00099, below=0.002)
    measured.value("longest step", step.max().item(), at_most=0.1001, above=0.05)
    half = math.log(2) / (step * layer.A_log.detach().exp())
    measured.value("half-life, median", half.median().item(), above=0.7, below=3)
    measured.value("half-life, longest", half.max().item(), above=20)


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    layer, x = small(chunk_size=64)
    changed = torch.cat([x[:, :6], torch.randn_like(x[:, 6:])], dim=1)
    measured.close(layer(changed)[:, :6], layer(x)[:, :6], tolerance=1e-14)
    assert not torch.isclose(layer(changed), layer(x))[:, 6:].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embed_dim": 13, "num_heads": 4}, r"2 \* embed_dim 26 must be divisible by num_heads 4"),
        ({"num_heads": 0}, "num_heads 0, .* must be at least 1"),
        ({"groups": 3}, "num_heads 4 must be divisible by groups 3"),
        ({"head_dim": 0}, "head_dim 0 must be at least 1"),
        ({"state_dim": 0}, "state_dim 0, .* must be at least 1"),
        ({"kernel_size": 0}, "kernel_size 0 and chunk_size 64 must be at least 1"),
        ({"chunk_size": 0}, "chunk_size 0 must be at least 1"),
        ({"eps": math.nan}, "eps nan must be above 0 and finite"),
    ],
)
def test_refuses_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StateSpaceDuality(**{"embed_dim": 12, "num_heads": 4} | arguments)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (0, lambda q: q[..., 1:], r"^q \(2, 10, 2, 4\) and k \(2, 10, 2, 5\) must be \(B, T, G, N\)"),
        (2, lambda v: v[:, :, 1:], r"^k \(2, 10, 2, 5\) and v \(2, 10, 3, 6\) must be .* H a multiple of G"),
        (3, lambda dt: dt[1:], r"^dt \(1, 10, 4\) and A \(4,\) must be \(B, T, H\) and \(H,\)"),
        (3, lambda dt: dt - 1, r"^dt -.* must be at least 0"),
        (4, lambda A: A[1:], r"^dt \(2, 10, 4\) and A \(3,\) must be"),
        (4, lambda A: A + 1, r"^A 0.* must be at most 0"),
        (5, lambda state: state[:1], r"^state \(1, 4, 5, 6\) of torch.float64 must be \(B, H, N, P\)"),
        (5, lambda state: state.mT, r"^state \(2, 4, 6, 5\) of torch.float64 must be"),
        (
            5,
            lambda state: state.float(),
            r"^state \(2, 4, 5, 6\) of torch.float32 must be .* of torch.float64",
        ),
    ],
)
def test_refuses_rows_that_do_not_fit(place: int, change: Any, message: str) -> None:
    inputs = list(rows())
    inputs[place] = change(inputs[place])
    with pytest.raises(ValueError, match=message):
        state_space(*inputs)


def test_refuses_chunks_below_one() -> None:
    with pytest.raises(ValueError, match=r"^chunk_size 0 must be at least 1"):
        state_space(*rows(), chunk_size=0)


def test_refuses_states_of_another_layer() -> None:
    layer, (x,) = example()
    _, state = layer.step(x)
    with pytest.raises(ValueError, match=r"^state tuple must be a StateSpace"):
        layer.step(x, tuple(state))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^state memory \(2, 8, 5, 6\) .* must be \(2, 8, 6, 5\)"):
        layer.step(x, StateSpace(state.memory.mT, state.recent))
    with pytest.raises(ValueError, match=r"^state recent \(2, 2, 88\) .* must be \(2, 3, 88\)"):
        layer.step(x, StateSpace(state.memory, state.recent[:, 1:]))
    with pytest.raises(ValueError, match=r"^state memory .* of torch.float64 must be .* of torch.float32"):
        layer.step(x, StateSpace(state.memory.double(), state.recent))
