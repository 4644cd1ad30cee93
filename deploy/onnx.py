"""Export to ONNX, run by ONNX Runtime: what goes through, which sizes stay open, how far results differ."""

import io
import logging
import warnings
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

from deploy import cases
from snippets.catalogue import CATALOGUE, Mechanism

OPSET = 20
TOLERANCE = 1e-4  # of the largest number in the result
logging.getLogger("onnxscript").setLevel(logging.ERROR)
logging.getLogger("torch.onnx").setLevel(logging.ERROR)


class NotTheSameError(Exception):
    """ONNX Runtime gives another result than torch."""


@dataclass(frozen=True)
class Outcome:
    """What became of one module: the sizes that may change after the export, or why there is no export."""

    open: tuple[str, ...] = ()
    difference: float = 0.0
    refused: str = ""


def candidates(row: Mechanism, name: str) -> list[str]:
    """Sizes of the input that a module in torch takes as they come, not fixed by its constructor."""
    usual = cases.sizes(row)
    module, inputs = cases.build(row, name, usual)
    found = []
    for symbol, size in usual.items():
        try:
            _, others = cases.build(row, name, usual | {symbol: 2 * size})
            module(*others)
        except (ValueError, RuntimeError):
            continue
        if any(cases.axes(inputs, others)):
            found.append(symbol)
    return found


def export(row: Mechanism, name: str, symbols: list[str]) -> float:
    """Export with these sizes open, run at others; return the largest difference to torch.

    Raises:
        NotTheSameError: the results differ. What export and runtime raise is of many kinds.
    """
    usual = cases.sizes(row)
    module, inputs = cases.build(row, name, usual)
    dimensions = [dict[int, torch.export.Dim]() for _ in inputs]
    for symbol in symbols:
        dimension = torch.export.Dim(symbol)
        _, others = cases.build(row, name, usual | {symbol: 2 * usual[symbol]})
        for places, of_input in zip(cases.axes(inputs, others), dimensions, strict=True):
            of_input.update(dict.fromkeys(places, dimension))
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, inputs, dynamo=True, opset_version=OPSET, dynamic_shapes=tuple(dimensions), verbose=False
        )
    assert program
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    _, others = cases.build(row, name, usual | {symbol: 2 * usual[symbol] for symbol in symbols})
    return max(difference(session, module, inputs), difference(session, module, others))


def difference(session: onnxruntime.InferenceSession, module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Largest difference between the runtime's results and torch's."""
    feed = {port.name: x.numpy() for port, x in zip(session.get_inputs(), inputs, strict=True)}
    with torch.no_grad():
        expected = module(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    largest = 0.0
    for y, right in zip(map(torch.as_tensor, session.run(None, feed)), expected, strict=True):
        if y.shape != right.shape:
            raise NotTheSameError(f"shape {tuple(y.shape)} instead of {tuple(right.shape)}")
        off = (y - right).abs().max().item()
        if not off <= TOLERANCE * max(1.0, right.abs().max().item()):
            raise NotTheSameError(f"ONNX Runtime differs from torch by {off:.2g}")
        largest = max(largest, off)
    return largest


def survey(row: Mechanism, name: str) -> Outcome:
    """Try all sizes open, else each one, else none."""
    wanted = candidates(row, name)
    reason = ""
    try:
        return Outcome(tuple(wanted), export(row, name, wanted))
    except Exception as error:  # of torch, onnxscript, onnxruntime: any kind
        reason = shortened(error)
    kept: list[str] = []
    for symbol in wanted:
        try:
            export(row, name, [*kept, symbol])
        except Exception:
            continue
        kept.append(symbol)
    try:
        return Outcome(tuple(kept), export(row, name, kept))
    except Exception as error:
        return Outcome(refused=shortened(error) or reason)


def shortened(error: Exception) -> str:
    """The first sentence of what the innermost error says."""
    while error.__cause__ is not None:
        error = error.__cause__  # type: ignore[assignment]
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()[:160]}" if lines else type(error).__name__


def record(row: Mechanism) -> dict[str, Any]:
    """All outcomes of a mechanism, with what they hold for."""
    return {
        "source": cases.source(row),
        "torch": torch.__version__.split("+")[0],
        "onnxruntime": onnxruntime.__version__,
        "opset": OPSET,
        "cases": {name: asdict(survey(row, name)) for name in cases.names(row)},
    }


def named_record(slug: str) -> tuple[str, dict[str, Any]]:
    """The record of a mechanism and its slug, for a process that has one thread."""
    torch.set_num_threads(1)
    return slug, record(CATALOGUE[slug])
