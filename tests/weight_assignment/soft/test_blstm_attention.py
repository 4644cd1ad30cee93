"""Proofs of BLSTM softmax attention."""

from collections.abc import Mapping, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.weight_assignment.soft.blstm_attention import BLSTMAttention, example
from tests.measure import Measured

EXCEPTIONS = {
    "test_compiles_without_a_graph_break": {
        "blstm_attention": "the compiler refuses every nn.LSTM unless torch._dynamo.config.allow_rnn is set",
        "blstm_attention:without_mask": "the compiler refuses every nn.LSTM, see blstm_attention",
        "blstm_attention:padded_left": "the compiler refuses every nn.LSTM, see blstm_attention",
    },
}
"""Checks of the contract that it cannot pass, with the reason."""


def sigmoid(z: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-z))


def lstm_step(x: Tensor, h: Tensor, c: Tensor, p: Mapping[str, Tensor], end: str) -> tuple[Tensor, Tensor]:
    """One cell update; gate rows of the torch layout are stacked input, forget, cell (g), output."""
    z = p["weight_ih_l0" + end] @ x + p["weight_hh_l0" + end] @ h
    if "bias_ih_l0" + end in p:
        z = z + p["bias_ih_l0" + end] + p["bias_hh_l0" + end]
    d = len(h)
    i, f = sigmoid(z[:d]), sigmoid(z[d : 2 * d])
    g, o = torch.tanh(z[2 * d : 3 * d]), sigmoid(z[3 * d :])
    c = f * c + i * g
    return o * torch.tanh(c), c


def run_direction(x: Tensor, steps: Sequence[int], p: Mapping[str, Tensor], end: str) -> dict[int, Tensor]:
    """Hidden state at every visited position, from zero state, visiting `steps` in order."""
    h = c = x.new_zeros(p["weight_hh_l0" + end].shape[1])
    states = {}
    for t in steps:
        h, c = lstm_step(x[t], h, c, p, end)
        states[t] = h
    return states


def naive_blstm(x: Tensor, lengths: Sequence[int], params: Mapping[str, Tensor]) -> Tensor:
    """x (B,T,I); params: weight_ih_l0 (4d,I), weight_hh_l0 (4d,d), bias_*_l0 (4d,), and the *_reverse set.

    Returns H (B,T,d), the sum of both directions, zero at and after each sample's length.
    """
    rows = []
    for b in range(x.shape[0]):
        n = int(lengths[b])
        fwd = run_direction(x[b], range(n), params, "")
        bwd = run_direction(x[b], range(n - 1, -1, -1), params, "_reverse")
        nothing = x.new_zeros(params["weight_hh_l0"].shape[1])
        rows.append(torch.stack([fwd[t] + bwd[t] if t < n else nothing for t in range(x.shape[1])]))
    return torch.stack(rows)


def naive_pool(H: Tensor, lengths: Sequence[int], w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """H (B,T,d), w (d,) -> alpha (B,T), r (B,d), h_star (B,d)."""
    alphas, rs = [], []
    for b in range(H.shape[0]):
        n = int(lengths[b])
        exps = [torch.exp((w * torch.tanh(H[b, t])).sum()) for t in range(n)]
        total = sum(exps, H.new_zeros(()))
        alpha = [exps[t] / total if t < n else H.new_zeros(()) for t in range(H.shape[1])]
        alphas.append(torch.stack(alpha))
        rs.append(sum((alpha[t] * H[b, t] for t in range(n)), torch.zeros_like(H[b, 0])))
    r = torch.stack(rs)
    return torch.stack(alphas), r, torch.tanh(r)


def naive_blstm_attention(
    x: Tensor, lengths: Sequence[int], params: Mapping[str, Tensor], w: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns H (B,T,d), alpha (B,T), r (B,d), h_star (B,d)."""
    H = naive_blstm(x, lengths, params)
    return (H, *naive_pool(H, lengths, w))


def build(lengths: Sequence[int], T: int, E: int, d: int) -> tuple[BLSTMAttention, Tensor, Tensor]:
    """A block with large random weights in float64, its input and the mask of these lengths."""
    block, (x, _) = example(B=len(lengths), T=T, E=E, d=d)
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    return block.double(), x.double().requires_grad_(), torch.arange(T) < torch.tensor(lengths)[:, None]


def lstm_parameters(block: BLSTMAttention) -> dict[str, Tensor]:
    """Parameters of both directions under the names of a bidirectional `nn.LSTM`."""
    backward = {key + "_reverse": value for key, value in block.backward_lstm.named_parameters()}
    return dict(block.forward_lstm.named_parameters()) | backward


def reference(block: BLSTMAttention, x: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Weights and output of the naive loops."""
    _, weights, _, out = naive_blstm_attention(x, lengths, lstm_parameters(block), block.score.weight[0])
    return weights, out


CASES = pytest.mark.parametrize(
    ("lengths", "T", "E", "d"), [([1], 1, 2, 3), ([4, 7, 2], 7, 5, 4), ([9, 1, 6, 3], 9, 3, 8)]
)


@CASES
def test_equals_a_naive_loop_over_tokens(
    lengths: list[int], T: int, E: int, d: int, measured: Measured
) -> None:
    block, x, mask = build(lengths, T, E, d)
    weights, out = reference(block, x, lengths)
    measured.close(block.attention(x, mask), weights)
    measured.close(block(x, mask), out)


@CASES
def test_gradients_equal_those_of_the_naive_loop(
    lengths: list[int], T: int, E: int, d: int, measured: Measured
) -> None:
    block, x, mask = build(lengths, T, E, d)
    _, out = reference(block, x, lengths)
    measured.gradients(block(x, mask), out, [x, *block.parameters()])


def test_states_are_the_sum_of_a_packed_bidirectional_lstm(measured: Measured) -> None:
    lengths = [9, 4, 1, 6]
    block, x, mask = build(lengths, 9, 5, 4)
    block.score.weight.data.zero_()
    lstm = nn.LSTM(5, 4, batch_first=True, bidirectional=True).double()
    lstm.load_state_dict(lstm_parameters(block))
    pack = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    states, _ = nn.utils.rnn.pad_packed_sequence(lstm(pack)[0], batch_first=True)
    mean = (states[..., :4] + states[..., 4:]).sum(1) / torch.tensor(lengths)[:, None]
    measured.close(block(x, mask), mean.tanh())


def test_pooling_is_scaled_dot_product_attention_with_a_learned_query(measured: Measured) -> None:
    block, x, mask = build([8, 3, 5], 8, 6, 4)
    states = naive_blstm(x, [8, 3, 5], lstm_parameters(block))
    query = block.score.weight.expand(3, 1, 4)
    pooled = F.scaled_dot_product_attention(query, states.tanh(), states, mask[:, None], scale=1.0)
    measured.close(block(x, mask), pooled[:, 0].tanh())


def test_weights_are_one_distribution_over_time_and_zero_on_padding(measured: Measured) -> None:
    block, x, mask = build([9, 4, 1, 6], 9, 5, 4)
    weights = block.attention(x, mask)
    assert weights.shape == (4, 9)
    assert torch.equal(weights > 0, mask)
    measured.close(weights.sum(1), torch.ones(4, dtype=x.dtype))
    measured.value("max weight on padding", weights[~mask].max().item(), equals=0)


def test_padding_influences_nothing(measured: Measured) -> None:
    block, x, mask = build([9, 4, 1, 6], 9, 5, 4)
    expected = block(x, mask)
    poisoned = x.masked_fill(~mask[..., None], torch.nan)
    measured.close(block(poisoned, mask), expected, tolerance=0)
    gradient = torch.autograd.grad(expected.square().sum(), x)[0]
    measured.value("max |∇| on padding", gradient[~mask].abs().max().item(), equals=0)
    for sample, length in enumerate([9, 4, 1, 6]):
        torch.testing.assert_close(block(x[sample : sample + 1, :length]), expected[sample : sample + 1])


def test_a_mask_with_holes_equals_the_sequence_without_them(measured: Measured) -> None:
    block, x, _ = build([10], 10, 5, 4)
    mask = torch.tensor([[False, True, True, False, True, False, False, True, True, False]])
    measured.close(block(x, mask), block(x[mask][None]))
    measured.close(block.attention(x, mask)[mask], block.attention(x[mask][None])[0])


def test_reversed_tokens_and_swapped_directions_reverse_the_weights(measured: Measured) -> None:
    block, x, mask = build([8, 8], 8, 5, 4)
    swapped, _, _ = build([8, 8], 8, 5, 4)
    swapped.load_state_dict(block.state_dict())
    swapped.forward_lstm, swapped.backward_lstm = swapped.backward_lstm, swapped.forward_lstm
    measured.close(swapped.attention(x.flip(1), mask), block.attention(x, mask).flip(1))


def test_attention_adds_one_vector_to_the_blstm(measured: Measured) -> None:
    block = BLSTMAttention(100, 100)
    blstm = nn.LSTM(100, 100, bidirectional=True)
    total, without = (sum(p.numel() for p in module.parameters()) for module in (block, blstm))
    measured.count(total - without, 100)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_sequence_without_real_tokens_gives_zeros(dtype: torch.dtype) -> None:
    block, (x, mask) = example()
    block, x = block.to(dtype), x.to(dtype).requires_grad_()
    mask[1] = False
    out = block(x, mask)
    assert not out[1].any()
    assert not block.attention(x, mask)[1].any()
    out.square().sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (x, *block.parameters()))


def test_the_lstm_class_is_all_that_keeps_dynamo_away() -> None:
    block, inputs = example()
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(block, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(*inputs), block(*inputs))


def test_refuses_sizes_below_one() -> None:
    with pytest.raises(ValueError, match="hidden_dim 0 must be at least 1"):
        BLSTMAttention(4, 0)


def test_refuses_masks_that_are_not_bool_or_do_not_fit() -> None:
    block, (x, mask) = example()
    with pytest.raises(TypeError, match="mask must be bool, True = may be attended"):
        block(x, mask.float())
    with pytest.raises(ValueError, match=r"must be \(B, T\) = \(3, 7\)"):
        block.attention(x, mask[:, 1:])


def test_refuses_one_sequence_without_a_batch() -> None:
    block, (x, _) = example()
    for call in (block, block.attention):
        with pytest.raises(ValueError, match=r"x \(7, 5\) must be \(B, T, E\)"):
            call(x[0])


@pytest.mark.filterwarnings("ignore:TF32")
def test_forward_mode_works_without_onednn() -> None:
    block, (x, mask) = example()
    with torch.backends.mkldnn.flags(enabled=False):
        _, change = torch.func.jvp(lambda x: block(x, mask), (x,), (torch.ones_like(x),))
    moved = (block.double()(x.double() + 1e-6, mask) - block(x.double() - 1e-6, mask)) / 2e-6
    torch.testing.assert_close(change.double(), moved, rtol=1e-4, atol=1e-5)
