"""What functions beside the classes owe when arguments nearly fit: an error, or the right result."""

import inspect
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from snippets.attention_domain.channel.gsop import covariance
from snippets.attention_domain.spatial import asymmetric_non_local, augmented_convolution, non_local, ra_cnn
from snippets.attention_domain.spatial.ram import look
from snippets.attention_domain.spatial_temporal.sta import inter_frame_regularisation
from snippets.foundations import general, masks, query_key_value, structured_masks
from snippets.weight_assignment.hard import gumbel, stochastic
from snippets.weight_assignment.self_attention.decayed_linear import decayed_linear
from snippets.weight_assignment.self_attention.delta_rule import delta_rule
from snippets.weight_assignment.self_attention.gated_delta import gated_delta
from snippets.weight_assignment.self_attention.kimi_delta import kimi_delta
from snippets.weight_assignment.self_attention.linear import linear_attention
from snippets.weight_assignment.self_attention.state_space_duality import state_space
from snippets.weight_assignment.self_attention.structured import penalty
from tests.contract.test_arguments import REFUSALS, replaced
from tests.contract.walker import MODULES, load

B, T, S, C, D, P, H, W = 3, 4, 5, 2, 6, 7, 9, 8
SQUARE = torch.tensor([[3.0, 2.0, 1.2], [4.0, 4.0, 2.0], [5.0, 3.0, 1.0]])
CLASSES = torch.tensor([0, 2, 1])
BITS = torch.rand(B, S) > 0.3
CALLS: dict[Callable[..., Tensor], tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    function: (call, inputs)
    for function, call, *inputs in [
        (covariance, covariance, torch.randn(B, B, B)),
        (
            asymmetric_non_local.pyramid,
            lambda x: asymmetric_non_local.pyramid(x, (2,)),
            torch.randn(B, C, H, W),
        ),
        (
            augmented_convolution.absolute_from_relative,
            augmented_convolution.absolute_from_relative,
            torch.randn(B, T, 2 * T - 1),
        ),
        (
            non_local.softmax_sum,
            lambda q, k, v: non_local.softmax_sum(q, k, v, 1.0),
            torch.randn(B, T, D),
            torch.randn(B, S, D),
            torch.randn(B, S, P),  # wider than the queries
        ),
        (
            non_local.relu_mean,
            non_local.relu_mean,
            torch.randn(B, T),
            torch.randn(B, S),
            torch.randn(B, S, P),
        ),
        (ra_cnn.boxcar, lambda t: ra_cnn.boxcar(t, H, W, 10.0), SQUARE),
        (ra_cnn.zoom, lambda x, t: ra_cnn.zoom(x, t, 4), torch.randn(B, C, H, W), SQUARE),
        (ra_cnn.ranking_loss, ra_cnn.ranking_loss, torch.randn(B, 4), torch.randn(B, 4), CLASSES),
        (look, lambda x, at: look(x, at, 2, 2), torch.randn(B, C, H, W), torch.rand(B, 2)),
        (inter_frame_regularisation, inter_frame_regularisation, torch.randn(B, T, H, W)),
        (general.what, general.what, torch.randn(B, T, C, H, W)),
        (general.where, general.where, torch.randn(B, T, C, H, W)),
        (general.when, general.when, torch.randn(B, T, C, H, W)),
        (general.scale, general.scale, torch.randn(B, C, S), torch.randn(B, C, S)),
        (masks.padding, lambda lengths: masks.padding(lengths, S), torch.tensor([3, 5, 1])),
        (masks.to_mha_padding, masks.to_mha_padding, BITS[:, None, None]),
        (masks.from_mha_padding, masks.from_mha_padding, BITS),
        (structured_masks.documents, structured_masks.documents, torch.tensor([[0, 0, 1, 1]] * B)),
        (
            structured_masks.prefix,
            lambda lengths: structured_masks.prefix(lengths, S),
            torch.tensor([3, 5, 1]),
        ),
        (structured_masks.tree, structured_masks.tree, torch.tensor([[-1, 0, 0, 1]] * B)),
        (masks.to_huggingface, masks.to_huggingface, BITS[:, None, None]),
        (masks.from_huggingface, masks.from_huggingface, BITS.long()),
        (query_key_value.dot, query_key_value.dot, torch.randn(B, T, D), torch.randn(B, S, D)),
        (query_key_value.scaled_dot, query_key_value.scaled_dot, torch.randn(B, T, D), torch.randn(B, S, D)),
        (query_key_value.weigh, query_key_value.weigh, torch.randn(B, T, S), BITS[:, None].expand(B, T, S)),
        (query_key_value.read, query_key_value.read, torch.rand(B, T, S), torch.randn(B, S, D)),
        (
            gumbel.gumbel_softmax,
            lambda scores, mask: gumbel.gumbel_softmax(scores, 0.5, mask=mask),
            torch.randn(B, T, S),
            BITS[:, None].expand(B, T, S),
        ),
        (
            stochastic.reinforce_loss,
            stochastic.reinforce_loss,
            torch.randn(B),
            torch.randn(B),
            torch.randn(B),
        ),
        (penalty, penalty, torch.rand(B, B, S)),
        (
            gated_delta,
            lambda q, k, v, g, beta: gated_delta(q, k, v, g, beta)[0],
            torch.randn(B, T, C, D),
            torch.randn(B, T, C, D),
            torch.randn(B, T, C, P),
            -torch.rand(B, T, C),
            torch.rand(B, T, C),
        ),
        (
            decayed_linear,
            lambda q, k, v, g: decayed_linear(q, k, v, g)[0],
            torch.randn(B, T, C, D),
            torch.randn(B, T, C, D),
            torch.randn(B, T, C, P),
            -torch.rand(B, T, C),
        ),
        (
            kimi_delta,
            lambda q, k, v, g, beta: kimi_delta(q, k, v, g, beta)[0],
            torch.randn(B, T, C, D),
            torch.randn(B, T, C, D),
            torch.randn(B, T, C, P),
            -torch.rand(B, T, C, D),
            torch.rand(B, T, C),
        ),
        (
            state_space,
            lambda q, k, v, dt: state_space(q, k, v, dt, -torch.arange(2.0 * C))[0],
            torch.randn(B, T, C, D),
            torch.randn(B, T, C, D),
            torch.randn(B, T, 2 * C, P),
            torch.rand(B, T, 2 * C),
        ),
        (
            delta_rule,
            lambda q, k, v, beta: delta_rule(q, k, v, beta)[0],
            torch.randn(B, T, C, D),
            torch.nn.functional.normalize(torch.randn(B, T, C, D), dim=-1),
            torch.randn(B, T, C, P),
            torch.rand(B, T, C),
        ),
        (
            linear_attention,
            lambda q, k, v: linear_attention(q, k, v)[0],
            torch.randn(B, T, C, D),
            torch.randn(B, T, C, D),
            torch.randn(B, T, C, P),
        ),
    ]
}
"""For each function a call with tensors of distinct sizes, and these tensors; the batch comes first."""
OTHERS = {
    "gate": "each number by itself",
    "pool": "one axis, which is given",
    "to_additive": "each number by itself",
    "from_additive": "each number by itself",
    "over": "each number by itself",
    "normalise": "axes of any number and length",
    "weighted_sum": "an axis of one means that the weights do not differ along it",
    "window": "a half of boxcar",
    "from_mha": "two axes are a mask for all samples, three one for each",
    "to_mha": "the shape is given beside the mask",
    "update_baseline": "a mean over all rewards",
    "hybrid_loss": "takes an episode, not tensors",
    "angles": "each position by itself",
    **dict.fromkeys(("linear", "blend", "turns", "paper_ramp", "longrope"), "each frequency by itself"),
    "bucket": "each distance by itself",
    "rotate": "one cosine for many vectors turns them alike",
    "update": "one step of a loop, with what the step before returned",
    "start": "its tensor gives the sizes alone",
    "updated": "element by element, of one shape",
}
"""Functions that are not called here, each with its reason."""


def public() -> Iterator[Callable[..., Tensor]]:
    """Functions of snippets that take a tensor."""
    for name in MODULES:
        for key, found in vars(load(name)).items():
            if not inspect.isfunction(found) or found.__module__ != name or key.startswith("_"):
                continue
            if any("Tensor" in str(p.annotation) for p in inspect.signature(found).parameters.values()):
                yield found


def result(call: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Tensor | None:
    """Result of the call, None if it is refused."""
    torch.manual_seed(1)
    try:
        return call(*inputs)
    except REFUSALS:
        return None


def test_every_function_is_called_here() -> None:
    missing = [f.__name__ for f in public() if f not in CALLS and f.__name__ not in OTHERS]
    assert not missing


@pytest.mark.parametrize("change", ["without a batch", "with another axis"])
@pytest.mark.parametrize("function", CALLS, ids=lambda f: f.__name__)
def test_another_number_of_axes_is_refused_or_right(function: Callable[..., Tensor], change: str) -> None:
    call, inputs = CALLS[function]
    if change == "without a batch":
        found, right = result(call, tuple(x[0] for x in inputs)), result(call, tuple(x[:1] for x in inputs))
        right = right[0] if right is not None and right.dim() else right
    else:
        found, right = result(call, tuple(x[None] for x in inputs)), result(call, tuple(inputs))
        right = right[None] if right is not None and right.dim() else right
    assert right is not None
    if found is not None and not function.__module__.endswith("gumbel"):  # which draws
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("function", CALLS, ids=lambda f: f.__name__)
def test_an_axis_of_one_is_refused_or_expanded(function: Callable[..., Tensor]) -> None:
    """Axes that two tensors share, in one of them of length one."""
    call, inputs = CALLS[function]
    for n, x in enumerate(inputs):
        others = {size for m, other in enumerate(inputs) if m != n for size in other.shape}
        for axis in range(x.dim()):
            if x.shape[axis] not in others:
                continue
            single = x.narrow(axis, 0, 1)
            found = result(call, replaced(tuple(inputs), n, single))
            if found is not None:
                expected = result(call, replaced(tuple(inputs), n, single.expand_as(x)))
                torch.testing.assert_close(found.expand_as(expected), expected)


@pytest.mark.parametrize("width", [2, 4])
def test_a_square_has_three_numbers(width: int) -> None:
    """A box, (x, y, width, height), is no square."""
    t = torch.rand(B, width)
    for call in (lambda: ra_cnn.boxcar(t, H, W, 10.0), lambda: ra_cnn.zoom(torch.rand(B, C, H, W), t, 4)):
        with pytest.raises(ValueError, match="must be"):
            call()


def test_softmax_sum_keeps_values_wider_than_queries() -> None:
    _, (query, key, value) = CALLS[non_local.softmax_sum]
    expected = (query @ key.mT).softmax(-1) @ value
    torch.testing.assert_close(non_local.softmax_sum(query, key, value, 1.0), expected)
