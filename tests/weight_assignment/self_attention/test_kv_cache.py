"""Proofs of the KV cache."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config
from transformers.cache_utils import DynamicCache, StaticSlidingWindowLayer
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

from snippets.weight_assignment.self_attention.kv_cache import CachedAttention, KVCache, example
from tests.measure import Measured

WINDOWS = [None, 1, 3, 7]


def linear(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """y = x W^T + b."""
    return torch.einsum("...i,oi->...o", x, W) + b


def read(q: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """The softmax mean of the values of at least one key."""
    e = [((q * k).sum() * q.shape[0] ** -0.5).exp() for k in keys]
    return sum((a * v for a, v in zip(e, values, strict=True)), torch.zeros_like(values[0])) / sum(e)


def naive_last(x: Tensor, parameters: list[Tensor], heads: int, window: int | None) -> Tensor:
    """Output (B, E) of the last token of a prefix x (B, n, E), computed from this prefix alone."""
    W_Q, b_Q, W_K, b_K, W_V, b_V, W_O, b_O = parameters
    n, d, rows = x.shape[1], W_Q.shape[0] // heads, []
    q, k, v = linear(x, W_Q, b_Q), linear(x, W_K, b_K), linear(x, W_V, b_V)
    seen = [j for j in range(n) if window is None or n - 1 - window < j]
    for b in range(x.shape[0]):
        parts = []
        for h in range(heads):
            own = slice(h * d, (h + 1) * d)
            parts.append(read(q[b, n - 1, own], [k[b, j, own] for j in seen], [v[b, j, own] for j in seen]))
        rows.append(torch.cat(parts))
    return linear(torch.stack(rows), W_O, b_O)


def naive(x: Tensor, parameters: list[Tensor], heads: int, window: int | None) -> Tensor:
    """Output (B, T, E), each row from the prefix up to its token."""
    prefixes = range(1, x.shape[1] + 1)
    return torch.stack([naive_last(x[:, :n], parameters, heads, window) for n in prefixes], dim=1)


def small(window: int | None = None, T: int = 6) -> tuple[CachedAttention, Tensor]:
    """A layer with large random weights, and a batch of two sequences."""
    torch.manual_seed(1)
    layer = CachedAttention(6, 2, window).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return layer, torch.randn(2, T, 6, dtype=torch.float64, requires_grad=True)


def in_pieces(layer: CachedAttention, x: Tensor, sizes: list[int]) -> tuple[Tensor, KVCache]:
    """Read pieces of these sizes, one after the other."""
    ys: list[Tensor] = []
    state = None
    for piece in x.split(sizes, dim=1):
        y, state = layer.step(piece, state)
        ys.append(y)
    assert state is not None
    return torch.cat(ys, dim=1), state


def splits(T: int, count: int = 20) -> list[list[int]]:
    """All at once, one by one, and random pieces."""
    drawn = torch.Generator().manual_seed(3)
    found = [[T], [1] * T]
    for _ in range(count):
        cuts = (torch.rand(T - 1, generator=drawn) < 0.4).nonzero().flatten().add(1).tolist()
        found.append([end - start for start, end in zip([0, *cuts], [*cuts, T], strict=True)])
    return found


@pytest.mark.parametrize("window", WINDOWS)
def test_equals_recomputing_every_prefix(measured: Measured, window: int | None) -> None:
    layer, x = small(window)
    parameters = list(layer.parameters())
    y = naive(x, parameters, 2, window)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x, *parameters))


@pytest.mark.parametrize("window", WINDOWS)
def test_any_split_equals_the_full_pass(measured: Measured, window: int | None) -> None:
    layer, x = small(window, T=17)
    for sizes in splits(17):
        y, _ = in_pieces(layer, x, sizes)
        measured.close(y, layer(x))
        measured.gradients(y, layer(x), of=(x, *layer.parameters()))


@pytest.mark.parametrize("window", WINDOWS)
def test_fused_forward_equals_weights_times_values(measured: Measured, window: int | None) -> None:
    layer, x = small(window)
    weights, (_, _, v) = layer.attention(x), layer._project(x)
    measured.close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    measured.close(layer(x), layer._merge(weights @ v))


def test_a_full_ring_holds_the_last_tokens(measured: Measured) -> None:
    """Token p in slot p mod W."""
    layer, x = small(window=5, T=17)
    _, state = in_pieces(layer, x, [4, 1, 7, 5])
    assert state.position.tolist() == [15, 16, 12, 13, 14]
    _, k, v = layer._project(x)
    measured.close(state.keys, k[:, :, state.position])
    measured.close(state.values, v[:, :, state.position])


@pytest.mark.parametrize("window", [None, 5])
def test_the_order_of_the_slots_means_nothing(measured: Measured, window: int | None) -> None:
    """Who may be seen is read from the positions; without them the result is another."""
    layer, x = small(window, T=17)
    _, state = in_pieces(layer, x[:, :12], [12])
    y, _ = layer.step(x[:, 12:13], state)
    order = torch.arange(len(state.position)).flip(0)
    turned = KVCache(state.keys[:, :, order], state.values[:, :, order], state.position[order], state.seen)
    measured.close(layer.step(x[:, 12:13], turned)[0], y)


def write_first(layer: CachedAttention, x: Tensor, state: KVCache) -> Tensor:
    """What the new tokens read from a ring that holds them already."""
    q, _, _ = layer._project(x)
    _, written = layer.step(x, state)
    new = torch.arange(state.seen, written.seen)
    visible = layer._visible(new, written.position)
    return layer._merge(F.scaled_dot_product_attention(q, written.keys, written.values, visible))


def test_a_ring_must_be_read_before_it_is_written(measured: Measured) -> None:
    """With one new token the order does not matter, with four it does."""
    layer, x = small(window=5, T=17)
    _, state = in_pieces(layer, x[:, :12], [12])
    measured.close(write_first(layer, x[:, 12:13], state), layer(x)[:, 12:13])
    wrong = write_first(layer, x[:, 12:16], state) - layer(x)[:, 12:16]
    measured.value("wrong by", wrong.abs().max().item(), above=1.0)


def test_a_window_of_one_passes_each_value(measured: Measured) -> None:
    layer, x = small(window=1)
    measured.close(in_pieces(layer, x, [2, 4])[0], layer.out_proj(layer.v_proj(x)))


def test_a_window_as_long_as_the_sequence_hides_nothing(measured: Measured) -> None:
    ring, x = small(window=17, T=17)
    layer, _ = small()
    measured.close(in_pieces(ring, x, [9, 8])[0], layer(x))
    measured.value("one slot less", (small(window=16)[0](x) - layer(x)).abs().max().item(), above=0.01)


def test_equals_gpt2_with_its_cache(measured: Measured) -> None:
    layer, x = small(T=9)
    config = GPT2Config(n_embd=6, n_head=2, attn_pdrop=0.0, resid_pdrop=0.0, attn_implementation="sdpa")
    theirs = GPT2Attention(config, layer_idx=0).double()
    with torch.no_grad():
        inner = (layer.q_proj, layer.k_proj, layer.v_proj)
        theirs.c_attn.weight.copy_(torch.cat([linear.weight for linear in inner]).mT)
        theirs.c_attn.bias.copy_(torch.cat([linear.bias for linear in inner]))
        theirs.c_proj.weight.copy_(layer.out_proj.weight.mT)
        theirs.c_proj.bias.copy_(layer.out_proj.bias)
    cache, state, seen = DynamicCache(), None, 0
    for piece in x.split([4, 1, 3, 1], dim=1):
        visible = torch.arange(seen + piece.shape[1]) <= torch.arange(seen, seen + piece.shape[1])[:, None]
        seen += piece.shape[1]
        expected, _ = theirs(piece.contiguous(), past_key_values=cache, attention_mask=visible[None, None])
        y, state = layer.step(piece, state)
        measured.close(y, expected)
        measured.gradients(y, expected, of=(x,))
        measured.close(state.keys, cache.layers[0].keys)


def test_the_ring_holds_what_transformers_keeps(measured: Measured) -> None:
    """Its static layer keeps the last W in order; ours in slots."""
    layer, x = small(window=5, T=17)
    theirs = StaticSlidingWindowLayer(max_cache_len=17, sliding_window=5)
    state = None
    for piece in x.detach().split([4, 1, 7, 1, 3, 1], dim=1):
        _, k, v = layer._project(piece)
        theirs.update(k, v)
        _, state = layer.step(piece, state)
        order = state.position.argsort()[state.position.sort().values >= 0]
        measured.close(state.keys[:, :, order], theirs.keys[:, :, : len(order)])
        measured.close(state.values[:, :, order], theirs.values[:, :, : len(order)])


def multiply_adds(run: Callable[[], object]) -> int:
    """Counted in the kernel that is made of matrix products."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


def test_multiply_adds_with_and_without_a_cache(measured: Measured) -> None:
    """Token n costs 4 E^2 + 2 n E, or n (4 E^2 + 2 n E) if all is computed anew; at E = 512, T = 1000."""
    E, T = 512, 1000
    layer, (x,) = example(B=1, T=T, E=E, heads=8)
    for n in (1, 10, T):
        _, state = layer.step(x[:, : n - 1])
        measured.count(multiply_adds(lambda: layer.step(x[:, n - 1 : n], state)), 4 * E**2 + 2 * n * E)  # noqa: B023
        measured.count(multiply_adds(lambda: layer(x[:, :n])), n * (4 * E**2 + 2 * n * E))  # noqa: B023
    cached, anew = (sum(n**again * (4 * E**2 + 2 * n * E) for n in range(1, T + 1)) for again in (0, 1))
    measured.value("times fewer", anew / cached, equals=555, within=0.5)


def of(state: KVCache, **changed: object) -> KVCache:
    """The state with other fields."""
    return state._replace(**changed)


def test_states_that_do_not_fit_are_refused() -> None:
    append, x = small()
    ring, _ = small(window=3)
    kept, turned = append.step(x)[1], ring.step(x)[1]
    refused = [
        (append, turned, r"^state keys \(2, 2, 3, 3\) .* must be .* \(2, 2, 6, 3\)"),
        (ring, kept, r"^state keys \(2, 2, 6, 3\) .* must be .* \(2, 2, 3, 3\)"),
        (append, of(kept, seen=5), "^state keys .* must be"),
        (append, of(kept, values=kept.values[:, :1]), "^state values .* must be"),
        (append, of(kept, keys=kept.keys.float()), "^state keys .* of torch.float32 must be"),
        (ring, of(turned, seen=4), r"^state position \[3, 4, 5\] must be below seen 4$"),
    ]
    for layer, state, message in refused:
        with pytest.raises(ValueError, match=message):
            layer.step(x, state)


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_below_one_is_refused(window: int) -> None:
    with pytest.raises(ValueError, match=f"^window {window} must be at least 1$"):
        CachedAttention(6, 2, window)


def test_a_step_compiles_whole_and_runs_on_shapes_alone() -> None:
    layer, (x,) = example()
    _, state = layer.step(x[:, :4])
    step = torch.compile(layer.step, fullgraph=True, backend="eager")
    torch.testing.assert_close(step(x[:, 4:5], state)[0], layer.step(x[:, 4:5], state)[0])
    layer.to("meta")
    _, state = layer.step(x[:, :4].to("meta"))
    assert layer.step(x[:, 4:5].to("meta"), state)[0].shape == x[:, :1].shape
