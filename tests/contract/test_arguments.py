"""What every snippet owes when arguments nearly fit: an error, never a silent other result.

Which axes belong together is read off the inputs themselves: those that grow when a size of `example` grows.
"""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.contract.constructed import Construction, recorded
from tests.contract.walker import build, load, sizes

REFUSALS = (TypeError, ValueError, RuntimeError, IndexError)
Place = tuple[int, int]
"""Number of the input, and the axis."""


def run(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """What `forward` and `attention` return."""
    ys = module(*inputs)
    return [*(ys if isinstance(ys, tuple) else (ys,)), module.attention(*inputs)]


def refused(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether both `forward` and `attention` raise an error, or at least the one that uses what is wrong."""
    try:
        module(*inputs)
    except REFUSALS:
        return True
    return False


def grown(case: str, symbol: str) -> int | None:
    """A larger size with which the case can be built."""
    size = sizes(case)[symbol]
    for times in (2, 3):
        try:
            build(case, **{symbol: size * times})
        except ValueError:
            continue
        return size * times
    return None


def places(inputs: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> list[Place]:
    """Axes along which two tuples of inputs differ in length."""
    return [
        (n, axis)
        for n, (a, b) in enumerate(zip(inputs, others, strict=True))
        for axis in range(a.dim())
        if a.shape[axis] != b.shape[axis]
    ]


def shared(case: str) -> Iterator[tuple[str, tuple[Tensor, ...], list[Place]]]:
    """Each size on which more than one input depends, the larger inputs, and the places where it shows."""
    _, inputs = build(case)
    for symbol in sizes(case):
        larger = grown(case, symbol)
        others = build(case, **{symbol: larger})[1] if larger else inputs
        found = places(inputs, others)
        if len({n for n, _ in found}) > 1:
            yield symbol, others, found


def replaced(inputs: tuple[Tensor, ...], n: int, x: Tensor) -> tuple[Tensor, ...]:
    """The inputs with another n-th one."""
    return (*inputs[:n], x, *inputs[n + 1 :])


def test_inputs_that_do_not_match_are_refused(case: str) -> None:
    """One input longer than the others, or of length one, which would broadcast. Masks may broadcast."""
    module, inputs = build(case)
    accepted = []
    for symbol, larger, found in shared(case):
        for n in {n for n, _ in found}:
            if not refused(module, replaced(inputs, n, larger[n])):
                accepted.append(f"{symbol} of input {n} doubled")
        for n, axis in found:
            single = inputs[n].narrow(axis, 0, 1)
            if inputs[n].dtype != torch.bool and not refused(module, replaced(inputs, n, single)):
                accepted.append(f"{symbol} of input {n} is 1")
    assert not accepted


def test_a_mask_that_broadcasts_is_expanded(case: str) -> None:
    module, inputs = build(case)
    for _, _, found in shared(case):
        for n, axis in found:
            if inputs[n].dtype != torch.bool:
                continue
            single = inputs[n].narrow(axis, 0, 1)
            try:
                ys = run(module, replaced(inputs, n, single))
            except ValueError:  # in words; an index out of range is none
                continue
            expanded = single.expand_as(inputs[n])
            for y, expected in zip(ys, run(module, replaced(inputs, n, expanded)), strict=True):
                torch.testing.assert_close(y, expected)


def made(case: str, **wanted: int) -> tuple[nn.Module, tuple[Tensor, ...], list[Construction]]:
    """A case, and how its parts were constructed."""
    with recorded(load(case.partition(":")[0])) as found:
        module, inputs = build(case, **wanted)
    return module, inputs, [part for part in found if part.part_of(module)]


def numbers(found: list[Construction]) -> list[object]:
    """The plain arguments of all constructors."""
    plain = (int, float, str, tuple)
    return [value for part in found for value in part.arguments.values() if isinstance(value, plain)]


def test_sizes_fixed_by_the_constructor_are_checked(case: str) -> None:
    """Another number of channels than the module was made for, one among them."""
    module, inputs, parts = made(case)
    accepted = []
    for symbol in sizes(case):
        larger = grown(case, symbol)
        if larger is None or numbers(parts) == numbers(made(case, **{symbol: larger})[2]):
            continue
        _, others = build(case, **{symbol: larger})
        found = places(inputs, others)
        if found and not refused(module, others):
            accepted.append(f"{symbol} doubled")
        for n, axis in found:
            single = inputs[n].narrow(axis, 0, 1)
            if not refused(module, replaced(inputs, n, single)):
                accepted.append(f"{symbol} of input {n} is 1")
    assert not accepted


@pytest.mark.parametrize("change", ["without a batch", "with another axis"])
def test_another_number_of_axes_is_refused_or_right(case: str, change: str) -> None:
    module, inputs = build(case)
    with_batch = [x for x in inputs if x.shape[0] == inputs[0].shape[0]]
    assert with_batch
    if change == "without a batch":
        changed = tuple(x[0] for x in inputs)
        expected = [y[0] for y in run(module, tuple(x[:1] for x in inputs))]
    else:
        changed = tuple(x[None] for x in inputs)
        expected = [y[None] for y in run(module, inputs)]
    try:
        ys = run(module, changed)
    except REFUSALS:
        return
    for y, right in zip(ys, expected, strict=True):
        torch.testing.assert_close(y, right)


def constructions(case: str) -> list[Construction]:
    """How the parts of a case were constructed, each class once."""
    return list({part.kind: part for part in made(case)[2]}.values())


def test_bad_numbers_are_refused_by_the_constructor(case: str) -> None:
    """NaN, negative counts, counts that are no whole numbers."""
    accepted = []
    for found in constructions(case):
        bad = [(name, math.nan) for name in found.annotated(int, float)]
        bad += [(name, value) for name, n in found.annotated(int).items() for value in (n + 0.5, -n or -1)]
        for name, value in bad:
            try:
                found.again(**{name: value})
            except (TypeError, ValueError, RuntimeError):
                continue
            accepted.append(f"{found.kind.__name__}({name}={value})")
    assert not accepted


def described(module: nn.Module) -> dict[str, object]:
    """Counts, sizes and numbers that a module keeps, types and shapes of its state."""
    kept = {
        f"{name}.{key}": value
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, int | float | tuple | list) and not key.startswith("_")
    }
    return kept | {key: (x.dtype, x.shape) for key, x in module.state_dict().items()}


def test_numbers_are_taken_by_value_not_by_type(case: str) -> None:
    """A temperature of 30 is 30.0, a list of sizes a tuple; a count of 2.0 is 2 or refused."""
    taken_otherwise = []
    for found in constructions(case):
        whole = {
            name: float(math.ceil(value))
            for name, value in found.annotated(float).items()
            if value < math.inf
        }
        pairs = [(name, value, int(value)) for name, value in whole.items()]
        pairs += [(name, v, list(v)) for name, v in found.arguments.items() if isinstance(v, tuple)]
        for name, plain, other in pairs:
            try:
                expected = described(found.again(**{name: plain}))
            except ValueError:
                continue  # rounded up, it is out of range
            try:
                same = described(found.again(**{name: other})) == expected
            except (TypeError, ValueError):
                same = False
            if not same:
                taken_otherwise.append(f"{found.kind.__name__}({name}={other})")
        for name, value in found.annotated(int).items():
            try:
                kept = described(found.again(**{name: float(value)})).values()
            except (TypeError, ValueError):
                continue
            if any(isinstance(number, float) and number == value for number in kept):
                taken_otherwise.append(f"{found.kind.__name__}({name}={float(value)})")
    assert not taken_otherwise
