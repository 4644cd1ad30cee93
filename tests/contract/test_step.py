"""What every snippet with `step` owes: read in pieces, the tokens give what `forward` gives them at once."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from sitekit.cost import decoding, tensors
from tests.contract.walker import build, cast, sizes


def double(case: str, **wanted: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Build a case in float64."""
    block, inputs = build(case, **wanted)
    return copy.deepcopy(block).double(), cast(inputs, torch.float64)


def read(block: Any, x: Tensor, state: Any, sizes: list[int]) -> tuple[Tensor, Any]:
    """Read pieces of the given sizes, one after the other."""
    ys = []
    for piece in x.split(sizes, dim=1):
        y, state = block.step(piece, state)
        ys.append(y)
    return torch.cat(ys, dim=1), state


def splits(length: int) -> list[list[int]]:
    """All at once; one by one; a prompt, then one by one; pieces; the last ones at once."""
    rest = length - 2
    return [[length], [1] * length, [rest, 1, 1], [2, rest - 1, 1], [1, 1, rest]]


def test_any_split_into_steps_gives_what_forward_gives(reader: str) -> None:
    block, inputs = double(reader)
    expected = block(*inputs)
    for pieces in splits(expected.shape[1]):
        y, _ = read(block, *decoding(block, inputs), pieces)
        torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)


def test_gradients_through_steps_are_those_of_forward(reader: str) -> None:
    block, inputs = double(reader)
    inputs = tuple(x.requires_grad_() if x.is_floating_point() else x for x in inputs)
    wanted = [*(x for x in inputs if x.requires_grad), *block.parameters()]
    whole = block(*inputs)
    upstream = torch.randn_like(whole)
    expected = torch.autograd.grad(whole, wanted, upstream, allow_unused=True)
    stepped, _ = read(block, *decoding(block, inputs), [1] * whole.shape[1])
    found = torch.autograd.grad(stepped, wanted, upstream, allow_unused=True)
    for gradient, right in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, right, atol=1e-9, rtol=1e-9)


def test_a_step_leaves_the_state_that_it_was_given(reader: str) -> None:
    """So one prompt can be continued in several ways."""
    block, inputs = double(reader)
    with torch.no_grad():
        x, start = decoding(block, inputs)
        _, state = read(block, x, start, [x.shape[1]])
        before = copy.deepcopy(state)
        first, _ = block.step(x, state)
        block.step(-x, state)
        again, _ = block.step(x, state)
    torch.testing.assert_close(list(tensors(state)), list(tensors(before)), atol=0, rtol=0)
    torch.testing.assert_close(again, first, atol=0, rtol=0)


def test_a_step_of_no_tokens_changes_nothing(reader: str) -> None:
    """As a server calls it that has nothing new to read for now."""
    block, inputs = double(reader)
    x, start = decoding(block, inputs)
    expected, last = read(block, x, start, [x.shape[1]])
    y, state = read(block, x, start, [0, 2, 0, x.shape[1] - 2, 0])
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    following, right = block.step(x[:, :2], state)[0], block.step(x[:, :2], last)[0]
    torch.testing.assert_close(following, right, atol=1e-10, rtol=1e-10)


def of_another_batch(case: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    _, inputs = build(case)
    return double(case, B=inputs[0].shape[0] + 1)


def of_another_dtype(case: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    return build(case)


def state_after(block: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    with torch.no_grad():
        x, start = decoding(block, inputs)
        return read(block, x, start, [x.shape[1]])[1]


@pytest.mark.parametrize("other", [of_another_batch, of_another_dtype])
def test_a_state_of_another_batch_or_dtype_is_refused(reader: str, other: Any) -> None:
    block, inputs = double(reader)
    x, _ = decoding(block, inputs)
    with pytest.raises(ValueError, match=r"^state .* must "):
        block.step(x, state_after(*other(reader)))


def test_a_state_of_another_width_is_refused(reader: str) -> None:
    """Each size is doubled in turn, where the state shows it."""
    block, inputs = double(reader)
    x, _ = decoding(block, inputs)
    own = [part.shape for part in tensors(state_after(block, inputs))]
    tried = 0
    for name, size in sizes(reader).items():
        if name in ("B", "S", "T"):  # a sequence or a source of another length is none of another width
            continue
        try:
            other = state_after(*double(reader, **{name: 2 * size}))
        except ValueError:
            continue  # a size that the module refuses
        if [part.shape for part in tensors(other)] == own:
            continue
        tried += 1
        with pytest.raises(ValueError, match=r"^state .* must "):
            block.step(x, other)
    assert tried, "no size of the example shows in the state"


@pytest.mark.parametrize("stranger", [(), (torch.zeros(1),), torch.zeros(2, 3), 3], ids=str)
def test_what_is_no_state_of_this_module_is_refused(reader: str, stranger: Any) -> None:
    block, inputs = double(reader)
    x, _ = decoding(block, inputs)
    with pytest.raises(ValueError, match=r"^state .* must "):
        block.step(x, stranger)


def flat(part: Tensor) -> list[Tensor]:
    return [part.flatten()]


def shorter(part: Tensor) -> list[Tensor]:
    return [part.narrow(axis, 0, size - 1) for axis, size in enumerate(part.shape) if size > 1]


@pytest.mark.parametrize("change", [flat, shorter])
def test_a_state_whose_parts_do_not_fit_each_other_is_refused(reader: str, change: Any) -> None:
    """One of its tensors is changed at a time; one that stands alone may be of fewer tokens."""
    block, inputs = double(reader)
    x, _ = decoding(block, inputs)
    parts, form = tree_flatten(state_after(block, inputs))
    places = [n for n, part in enumerate(parts) if isinstance(part, Tensor) and part.is_floating_point()]
    if change is shorter and len(places) == 1:
        return
    for place in places:
        for other in change(parts[place]):
            with pytest.raises(ValueError, match=r"^state .* must "):
                block.step(x, tree_unflatten([*parts[:place], other, *parts[place + 1 :]], form))
