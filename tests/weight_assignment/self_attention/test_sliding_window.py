"""Proofs of sliding-window attention."""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask
from transformers import GPTNeoConfig, LongformerConfig, MistralConfig
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import (
    create_sliding_window_causal_mask,
    sliding_window_bidirectional_mask_function,
    sliding_window_causal_mask_function,
)
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention
from transformers.models.mistral.modeling_mistral import MistralAttention

from snippets.weight_assignment.self_attention.kv_cache import CachedAttention
from snippets.weight_assignment.self_attention.sliding_window import (
    SlidingWindowAttention,
    WindowCache,
    example,
)
from tests.measure import Measured
from tests.memory import peak_bytes


def linear(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """y = x W^T + b."""
    return torch.einsum("...i,oi->...o", x, W) + b


def naive_keys(i: int, window: int | None) -> list[int]:
    """The keys of query i: i - W < j <= i, or all j <= i without a window."""
    return [j for j in range(i + 1) if window is None or i - window < j]


def naive(x: Tensor, parameters: list[Tensor], heads: int, window: int) -> Tensor:
    """Output (B, T, E), loops over batch, heads, queries and the keys of each."""
    W_Q, b_Q, W_K, b_K, W_V, b_V, W_O, b_O = parameters
    q, k, v = linear(x, W_Q, b_Q), linear(x, W_K, b_K), linear(x, W_V, b_V)
    (B, T, E), d, rows = x.shape, x.shape[2] // heads, []
    for b in range(B):
        for i in range(T):
            parts = []
            for h in range(heads):
                own, keys = slice(h * d, (h + 1) * d), naive_keys(i, window)
                e = [((q[b, i, own] * k[b, j, own]).sum() * d**-0.5).exp() for j in keys]
                read = sum((a * v[b, j, own] for a, j in zip(e, keys, strict=True)), x.new_zeros(d))
                parts.append(read / sum(e))
            rows.append(torch.cat(parts))
    return linear(torch.stack(rows).view(B, T, E), W_O, b_O)


def naive_reach(i: int, windows: Sequence[int | None]) -> list[int]:
    """The input tokens on which token i depends after a layer for each window."""
    seen = {i}
    for window in reversed(windows):
        seen = {j for p in seen for j in naive_keys(p, window)}
    return sorted(seen)


def small(window: int, T: int = 8, E: int = 6) -> tuple[SlidingWindowAttention, Tensor]:
    """A layer with large random weights, and a batch of two sequences."""
    torch.manual_seed(1)
    layer = SlidingWindowAttention(E, 2, window).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return layer, torch.randn(2, T, E, dtype=torch.float64, requires_grad=True)


def in_pieces(layer: SlidingWindowAttention, x: Tensor, sizes: list[int]) -> tuple[Tensor, WindowCache]:
    """Read pieces of these sizes, one after the other."""
    ys: list[Tensor] = []
    state = None
    for piece in x.split(sizes, dim=1):
        y, state = layer.step(piece, state)
        ys.append(y)
    assert state is not None
    return torch.cat(ys, dim=1), state


def with_mask(layer: SlidingWindowAttention, x: Tensor, visible: Tensor) -> Tensor:
    """The same projections around torch's function with a mask."""
    return layer._merge(F.scaled_dot_product_attention(*layer._project(x), attn_mask=visible))


def band(T: int, window: int) -> Tensor:
    """True where a query (row) sees a key (column): (T, T)."""
    return torch.ones(T, T, dtype=torch.bool).tril() & ~torch.ones(T, T, dtype=torch.bool).tril(-window)


@pytest.mark.parametrize("window", [1, 2, 3, 5, 8, 9])
def test_equals_naive_reference(measured: Measured, window: int) -> None:
    layer, x = small(window)
    y = naive(x, list(layer.parameters()), 2, window)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x, *layer.parameters()))


@pytest.mark.parametrize("window", [1, 16, 64, 100, 300, 301, 400])
def test_blocks_equal_one_mask(measured: Measured, window: int) -> None:
    layer, x = small(window, T=301)
    y = with_mask(layer, x, band(301, window))
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x, *layer.parameters()))


@pytest.mark.parametrize("window", [1, 3, 8])
def test_fused_forward_equals_weights_times_values(measured: Measured, window: int) -> None:
    layer, x = small(window)
    weights, (_, _, v) = layer.attention(x), layer._project(x)
    measured.close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    measured.close(layer(x), layer._merge(weights @ v))
    measured.count(int((weights[0, 0, -1] > 0).sum()), min(window, 8))


@pytest.mark.parametrize("window", [1, 4, 16, 40])
def test_the_ring_equals_the_mask(measured: Measured, window: int) -> None:
    layer, x = small(window, T=40)
    y = with_mask(layer, x, band(40, window))
    for sizes in ([1] * 40, [23] + [1] * 17, [7, 30, 3], [2, 20, 18]):
        stepped, state = in_pieces(layer, x, sizes)
        measured.close(stepped, y)
        measured.gradients(stepped, y, of=(x, *layer.parameters()))
        assert state.keys.shape == (2, 2, window, 3)


def test_equals_the_ring_of_the_kv_cache(measured: Measured) -> None:
    layer, x = small(5, T=23)
    other = CachedAttention(6, 2, window=5).double()
    other.load_state_dict(layer.state_dict())
    state, theirs = None, None
    for piece in x.split([9, 1, 1, 12], dim=1):
        y, state = layer.step(piece, state)
        expected, theirs = other.step(piece, theirs)
        measured.close(y, expected)
        measured.close(state.keys, theirs.keys)
        assert state.position.tolist() == theirs.position.tolist()


def test_a_window_of_one_passes_each_value(measured: Measured) -> None:
    layer, x = small(1)
    measured.close(layer(x), layer.out_proj(layer.v_proj(x)))


def stack(windows: Sequence[int | None], T: int) -> tuple[Tensor, Tensor]:
    """A layer for each window, one as wide as the sequence for None, and their input."""
    layers = [small(window or T)[0] for window in windows]
    _, x = small(1, T)
    y = x
    for layer in layers:
        y = y + layer(y)
    return x, y


@pytest.mark.parametrize(
    "windows",
    [(4,), (4, 4), (4, 4, 4), (2, 5, 3), (4, 4, 4, None), (None, 4), (1, 1, 1)],
    ids=lambda windows: "".join("G" if window is None else str(window) for window in windows),
)
def test_layers_reach_as_far_as_their_windows_add_up(
    measured: Measured, windows: tuple[int | None, ...]
) -> None:
    """The tokens on which the last output depends: one, and W - 1 more for each layer."""
    x, y = stack(windows, T=16)
    (gradient,) = torch.autograd.grad(y[0, -1].sum(), x)
    reached = gradient[0].abs().sum(1).nonzero().flatten().tolist()
    assert reached == naive_reach(15, windows)
    expected = 16 if None in windows else 1 + sum(window - 1 for window in windows if window)
    measured.count(len(reached), expected)


@pytest.mark.parametrize("pieces", [[19], [8, 1, 1, 6, 3]], ids=str)
def test_equals_mistral_with_its_mask_and_cache(measured: Measured, pieces: list[int]) -> None:
    """Without its rotation and with one head of keys for each query head."""
    layer, x = small(4, T=19, E=8)
    config = MistralConfig(
        hidden_size=8,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_hidden_layers=1,
        sliding_window=4,
        attn_implementation="sdpa",
    )
    theirs = MistralAttention(config, 0).double()
    for name, ours in (("q", layer.q_proj), ("k", layer.k_proj), ("v", layer.v_proj), ("o", layer.out_proj)):
        torch.nn.init.zeros_(ours.bias)
        theirs.get_submodule(f"{name}_proj").load_state_dict({"weight": ours.weight})
    cache, state = DynamicCache(config=config), None
    for piece in x.split(pieces, dim=1):
        mask = create_sliding_window_causal_mask(config, piece, None, cache)
        unturned = torch.ones(2, piece.shape[1], 4), torch.zeros(2, piece.shape[1], 4)
        expected, _ = theirs(piece, unturned, mask, cache)
        y, state = layer.step(piece, state)
        measured.close(y, expected)
        measured.gradients(y, expected, of=(x,))


def longformer(window: int, T: int) -> Tensor:
    """Which inputs its layer reads: (T, T)."""
    config = LongformerConfig(
        attention_window=[window], hidden_size=8, num_attention_heads=2, num_hidden_layers=1
    )
    none, layer = torch.zeros(1, T), LongformerSelfAttention(config, 0).eval()

    def run(x: Tensor) -> Tensor:
        y: Tensor = layer(x[None], none, is_index_masked=none > 0, is_index_global_attn=none > 0)[0][0]
        return y.sum(1)

    jacobian = torch.autograd.functional.jacobian(run, torch.randn(T, 8))
    return jacobian.abs().sum(2) > 0


def gpt_neo(window: int, T: int) -> Tensor:
    """The mask of a local layer."""
    kinds = [[["global", "local"], 1]]
    sizes = {"hidden_size": 8, "num_heads": 2, "num_layers": 2, "max_position_embeddings": T}
    config = GPTNeoConfig(window_size=window, attention_types=kinds, **sizes)
    mask: Tensor = GPTNeoSelfAttention(config, "local", 0).bias[0, 0]
    return mask


def painted(allowed: Callable[..., Tensor], T: int) -> Tensor:
    """What a mask function of flex_attention and transformers allows: (T, T)."""
    return create_mask(allowed, None, None, T, T, "cpu")[0, 0]


CONVENTIONS: dict[str, tuple[Callable[[int, int], Tensor], int]] = {
    "this page": (lambda W, T: SlidingWindowAttention(8, 2, W).attention(torch.randn(1, T, 8))[0, 0] > 0, 4),
    "transformers, causal": (lambda W, T: painted(sliding_window_causal_mask_function(W), T), 4),
    "transformers, GPT-Neo": (gpt_neo, 4),
    "mistral-inference, prompt": (lambda W, T: torch.ones(T, T).tril().triu(-W) > 0, 5),
    "flex_attention, q - k <= W": (
        lambda W, T: painted(lambda b, h, q, k: (q >= k) & (q - k <= W), T),
        5,
    ),
    "transformers, Longformer": (longformer, 5),
    "transformers, both sides": (lambda W, T: painted(sliding_window_bidirectional_mask_function(W), T), 9),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_keys_that_a_window_of_four_shows(measured: Measured, name: str) -> None:
    """Those of a query far from both ends."""
    visible, keys = CONVENTIONS[name]
    measured.value(name, int(visible(4, 40)[20].sum()), equals=keys)


def test_memory_grows_with_the_length_not_with_its_square(measured: Measured) -> None:
    layer = SlidingWindowAttention(64, 2, 256)

    def peak(T: int, run: Callable[[Tensor], Tensor]) -> int:
        with torch.no_grad():
            return peak_bytes(run, torch.randn(1, T, 64))

    long, short = peak(8192, layer), peak(4096, layer)
    measured.value("twice the length", long / short, below=2.05)
    mask = band(8192, 256)
    share = long / peak(8192, lambda x: with_mask(layer, x, mask))
    measured.value("share of what one mask takes", share, below=0.1)


def test_states_that_do_not_fit_are_refused() -> None:
    layer, x = small(4)
    wider, _ = small(5)
    kept = layer.step(x)[1]
    refused = [
        (wider, kept, r"^state keys \(2, 2, 4, 3\) .* must be .* \(2, 2, 5, 3\)"),
        (layer, kept._replace(values=kept.values[:1]), "^state values .* must be"),
        (layer, kept._replace(keys=kept.keys.float()), "^state keys .* of torch.float32 must be"),
        (layer, kept._replace(seen=4), r"^state position \[4, 5, 6, 7\] must be below seen 4$"),
        (layer, CachedAttention(6, 2, 4).double().step(x)[1], "^state KVCache must be a WindowCache$"),
    ]
    for module, state, message in refused:
        with pytest.raises(ValueError, match=message):
            module.step(x, state)


def test_a_step_compiles_whole_and_runs_on_shapes_alone() -> None:
    layer, (x,) = example()
    _, state = layer.step(x[:, :4])
    step = torch.compile(layer.step, fullgraph=True, backend="eager")
    torch.testing.assert_close(step(x[:, 4:5], state)[0], layer.step(x[:, 4:5], state)[0])
    layer.to("meta")
    _, state = layer.step(x[:, :4].to("meta"))
    assert layer.step(x[:, 4:5].to("meta"), state)[0].shape == x[:, :1].shape
