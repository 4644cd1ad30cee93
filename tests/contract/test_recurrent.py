"""What a layer owes whose state is of fixed size: any chunk gives the same, padding leaves no trace."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sitekit.cost import tensors
from tests.contract.test_step import double
from tests.contract.walker import build, cast

PADDED = {
    "left": [[False, False, False, True, True, True, True, True, True, True], [False] + [True] * 9],
    "right": [[True] * 6 + [False] * 4, [True] * 9 + [False]],
    "both": [[False, True, True, True, True, True, True, True, False, False], [False] * 4 + [True] * 6],
    "between": [[True, False, True, True, False, False, True, True, True, True], [True] * 4 + [False] * 6],
    "nothing": [[False] * 10, [True] * 10],
}


def results(block: Any, x: Tensor) -> list[Tensor]:
    """Output, last state, and the gradients of both in input and parameters."""
    x = x.clone().requires_grad_()
    y, state = block.step(x)
    ends = [y, *tensors(state)]
    torch.manual_seed(1)
    total = sum((end * torch.randn_like(end)).sum() for end in ends)
    return [*ends, *torch.autograd.grad(total, [x, *block.parameters()])]


@pytest.mark.parametrize("chunk_size", [1, 4, 7, 10, 64])
def test_chunks_of_any_size_give_the_same(recurrent: str, chunk_size: int) -> None:
    """One token at a time is the recurrence itself, all in one chunk the implicit matrix."""
    block, (x,) = double(recurrent)
    expected = results(block, x)
    block.chunk_size = chunk_size
    torch.testing.assert_close(results(block, x), expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("side", PADDED)
@pytest.mark.parametrize("filling", [lambda x: x.flip(1), lambda x: 1e3 * x.flip(1)], ids=["usual", "large"])
def test_padding_leaves_no_trace(recurrent: str, side: str, filling: Callable[[Tensor], Tensor]) -> None:
    """Neither in outputs of tokens nor in the state; its own outputs are zeros, no gradient reaches it."""
    block, (x,) = double(recurrent)
    mask = torch.tensor(PADDED[side])
    leaf = torch.where(mask[..., None], x, filling(x)).requires_grad_()
    y, state = block.step(leaf, mask=mask)
    (gradient,) = torch.autograd.grad(y.square().sum(), leaf)
    assert not gradient[~mask].any()
    bias = block(x, mask=torch.zeros_like(mask))  # of the output projection, where it has one
    torch.testing.assert_close(y[~mask], bias[~mask], atol=0, rtol=0)
    following = block.step(x[:, :2], state)[0]
    for row, kept in enumerate(mask):
        if not kept.any():  # as if nothing had been read
            torch.testing.assert_close(following[row], block(x[:, :2])[row], atol=1e-10, rtol=1e-10)
            continue
        alone, last = block.step(x[row : row + 1, kept])
        torch.testing.assert_close(y[row, kept], alone[0], atol=1e-10, rtol=1e-10)
        for part, right in zip(tensors(state), tensors(last), strict=True):
            torch.testing.assert_close(part[row], right[0], atol=1e-10, rtol=1e-10)
        after = block.step(x[row : row + 1, :2], last)[0]
        torch.testing.assert_close(following[row], after[0], atol=1e-10, rtol=1e-10)


def test_padding_between_steps_is_passed_over(recurrent: str) -> None:
    block, (x,) = double(recurrent)
    mask = torch.tensor(PADDED["both"])
    expected, last = block.step(x, mask=mask)
    state, ys = None, []
    for piece, kept in zip(x.split(3, dim=1), mask.split(3, dim=1), strict=True):
        y, state = block.step(piece, state, kept)
        ys.append(y)
    torch.testing.assert_close(torch.cat(ys, dim=1), expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(list(tensors(state)), list(tensors(last)), atol=1e-10, rtol=1e-10)


def test_weights_of_padding_are_zeros(recurrent: str) -> None:
    block, (x,) = double(recurrent)
    mask = torch.tensor(PADDED["both"])
    weights = block.attention(x, mask)
    assert not weights.transpose(1, 2)[~mask].any()  # what padding reads
    assert not weights.permute(0, 3, 1, 2)[~mask].any()  # who reads padding
    kept = mask[0]
    alone = block.attention(x[:1, kept])
    torch.testing.assert_close(weights[0][:, kept][:, :, kept], alone[0], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("shape", [(10,), (2, 1, 10), (2, 10, 10), (2, 9), (1, 10)], ids=str)
def test_a_mask_that_is_no_padding_is_refused(recurrent: str, shape: tuple[int, ...]) -> None:
    block, (x,) = build(recurrent)
    mask = torch.ones(shape, dtype=torch.bool)
    for call in (block.forward, block.attention):
        with pytest.raises(ValueError, match=r"^mask .* must be \(B, T\)"):
            call(x, mask)
    with pytest.raises(TypeError, match=r"^mask must be bool"):
        block(x, torch.ones(x.shape[:2]))


def test_the_state_is_of_fixed_size(recurrent: str) -> None:
    block, (x,) = build(recurrent)
    sizes = [[part.shape for part in tensors(block.step(x[:, :length])[1])] for length in (1, 2, 10)]
    assert sizes[0] == sizes[1] == sizes[2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_memory_stays_in_float32(recurrent: str, dtype: torch.dtype) -> None:
    block, inputs = build(recurrent)
    (x,) = cast(inputs, dtype)
    _, state = block.to(dtype).step(x)
    assert next(tensors(state)).dtype == torch.float32
    assert block.step(x, state)[0].dtype == dtype
