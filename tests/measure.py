"""What a proof measures: asserts it, and keeps the figure for `docs/proofs.json`."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

DIFFERENCE = "max |Δ|"
GRADIENT_DIFFERENCE = "max |Δ∇|"


class Measured:
    """Collects the figures of one proof; each method asserts before it records."""

    def __init__(self) -> None:
        self.figures: list[tuple[str, float]] = []

    def close(self, actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
        """Assert equal shapes and max |actual - expected| <= tolerance; record the difference."""
        assert actual.shape == expected.shape, f"shape {tuple(actual.shape)} is not {tuple(expected.shape)}"
        difference = (actual - expected).abs().max().item()
        assert difference <= tolerance, f"max |difference| {difference:.3g} exceeds {tolerance:.3g}"
        self.figures.append((DIFFERENCE, difference))

    def gradients(
        self, actual: Tensor, expected: Tensor, of: Sequence[Tensor], tolerance: float = 1e-10
    ) -> None:
        """Assert that two outputs have the same gradient in every tensor of `of`; record the difference."""
        cotangent = torch.linspace(-1, 1, actual.numel(), dtype=actual.dtype).view_as(actual)
        pairs = zip(
            torch.autograd.grad(actual, of, cotangent, retain_graph=True),
            torch.autograd.grad(expected, of, cotangent, retain_graph=True),
            strict=True,
        )
        difference = max((a - e).abs().max().item() for a, e in pairs)
        assert difference <= tolerance, f"max |gradient difference| {difference:.3g} exceeds {tolerance:.3g}"
        self.figures.append((GRADIENT_DIFFERENCE, difference))

    def count(self, actual: int, expected: int) -> None:
        """Assert that two counts are equal; record the count."""
        assert actual == expected, f"counted {actual:,}, expected {expected:,}"
        self.figures.append(("", actual))

    def value(self, name: str, actual: float, holds: Callable[[float], bool]) -> None:
        """Assert that `holds(actual)`; record `name = actual`."""
        assert holds(actual), f"{name} = {actual:.6g} does not hold"
        self.figures.append((name, actual))


def summary(figures: Iterable[tuple[str, float]]) -> str:
    """Say in one line what the runs of a proof measured: largest difference, all counts, range of a value.

    >>> summary([("max |Δ|", 1e-16), ("max |Δ|", 3e-16), ("", 28088024), ("ratio", 0.5), ("ratio", 2)])
    'max |Δ| = 3.0e-16; 28,088,024; ratio = 0.5 … 2'
    """
    parts: dict[str, list[float]] = {}
    for name, value in figures:
        parts.setdefault(name, []).append(value)
    return "; ".join(_phrase(name, values) for name, values in parts.items())


def _phrase(name: str, values: list[float]) -> str:
    if not name:
        return "; ".join(f"{value:,}" for value in dict.fromkeys(values))
    if name in (DIFFERENCE, GRADIENT_DIFFERENCE):
        return f"{name} = {max(values):.1e}"
    low, high = min(values), max(values)
    return f"{name} = {low:.3g}" if low == high else f"{name} = {low:.3g} … {high:.3g}"
