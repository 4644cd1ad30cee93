"""What every snippet owes when it runs: shapes, gradients, dtypes, devices, compilation."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.contract.walker import build, cast

ODD_SIZES = [
    {"B": 1},
    {"H": 7, "W": 5},
    {"H": 1, "W": 3},
    {"T": 7, "S": 5},
    {"T": 1},
]


def outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Outputs of forward as a tuple."""
    result = module(*inputs)
    return result if isinstance(result, tuple) else (result,)


def test_is_seeded_and_in_eval_mode(case: str) -> None:
    first, first_inputs = build(case)
    second, second_inputs = build(case)
    assert not first.training
    for a, b in zip(first_inputs, second_inputs, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(outputs(first, first_inputs), outputs(second, second_inputs), strict=True):
        assert torch.equal(a, b)


def test_attention_changes_with_the_input(case: str) -> None:
    module, inputs = build(case)
    changed = tuple(x.roll(1, 0) * 0.5 if x.is_floating_point() else x for x in inputs)
    assert not torch.allclose(module.attention(*inputs), module.attention(*changed))


def test_does_not_change_its_input(case: str) -> None:
    module, inputs = build(case)
    before = copy.deepcopy(inputs)
    module(*inputs)
    module.attention(*inputs)
    for x, kept in zip(inputs, before, strict=True):
        assert torch.equal(x, kept)


def test_samples_do_not_influence_each_other(case: str) -> None:
    module, inputs = build(case)
    module, inputs = module.double(), cast(inputs, torch.float64)
    together = outputs(module, inputs)
    for sample in range(inputs[0].shape[0]):
        alone = outputs(module, tuple(x[sample : sample + 1] for x in inputs))
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[sample : sample + 1], part)


def test_state_dict_round_trip(case: str) -> None:
    module, inputs = build(case)
    other, _ = build(case)
    for tensor in other.state_dict().values():
        tensor.zero_()
    other.load_state_dict(module.state_dict())
    for a, b in zip(outputs(module, inputs), outputs(other, inputs), strict=True):
        assert torch.equal(a, b)


def test_every_parameter_receives_a_gradient(case: str) -> None:
    module, inputs = build(case)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    loss = sum(y.square().sum() for y in outputs(module.train(), inputs))
    if loss.requires_grad:  # a module without parameters has nothing to train
        loss.backward()
    silent = [key for key, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


@pytest.mark.parametrize("sizes", ODD_SIZES, ids=str)
def test_odd_sizes(case: str, sizes: dict[str, int]) -> None:
    module, inputs = build(case, **sizes)
    for y in outputs(module, inputs):
        assert y.isfinite().all()


def test_gradcheck(case: str) -> None:
    """Gradient against finite differences, along one random direction of all inputs and parameters."""
    module, inputs = build(case)
    point = {f"input {n}": x for n, x in enumerate(cast(inputs, torch.float64)) if x.is_floating_point()}
    point |= {key: p.detach() for key, p in module.double().named_parameters() if p.requires_grad}
    direction = {key: torch.randn_like(x) for key, x in point.items()}
    weights = [torch.randn_like(y) for y in outputs(module, cast(inputs, torch.float64))]

    def loss(point: dict[str, Tensor]) -> Tensor:
        moved = tuple(point.get(f"input {n}", x) for n, x in enumerate(inputs))
        parameters = {key: x for key, x in point.items() if not key.startswith("input")}
        result = torch.func.functional_call(module, parameters, moved)
        ys = result if isinstance(result, tuple) else (result,)
        return sum((y * w).sum() for y, w in zip(ys, weights, strict=True))

    there, back = (loss({key: x + e * direction[key] for key, x in point.items()}) for e in (1e-7, -1e-7))
    leaves = {key: x.requires_grad_() for key, x in point.items()}
    slopes = torch.autograd.grad(loss(leaves), list(leaves.values()), materialize_grads=True)
    exact = sum((slope * direction[key]).sum() for key, slope in zip(leaves, slopes, strict=True))
    torch.testing.assert_close(exact, (there - back) / 2e-7, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e3], ids=["unit", "large"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_stays_finite(case: str, dtype: torch.dtype, scale: float) -> None:
    module, inputs = build(case)
    module = module.to(dtype)
    scaled = tuple(x * scale if x.is_floating_point() else x for x in cast(inputs, dtype))
    for y in (*outputs(module, scaled), module.attention(*scaled)):
        assert y.isfinite().all()
        assert not y.is_floating_point() or y.dtype == dtype


def test_meta_device(case: str) -> None:
    module, inputs = build(case)
    expected = outputs(module, inputs)
    for y, real in zip(outputs(module.to("meta"), cast(inputs, "meta")), expected, strict=True):
        assert y.is_meta
        assert y.shape == real.shape


def test_takes_device_and_type_from_its_input(case: str) -> None:
    """Not from the defaults of torch, which may be others when it runs than when it was made."""
    module, inputs = build(case)
    expected = outputs(module, inputs)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            ys = outputs(module, inputs)
    finally:
        torch.set_default_dtype(torch.float32)
    for y, kept in zip(ys, expected, strict=True):
        torch.testing.assert_close(y, kept)


def test_compiles_without_a_graph_break(case: str) -> None:
    torch.compiler.reset()  # variants share code, and recompilations are counted
    module, inputs = build(case)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    for y, expected in zip(outputs(compiled, inputs), outputs(module, inputs), strict=True):
        torch.testing.assert_close(y, expected)


def test_exports(case: str) -> None:
    module, inputs = build(case)
    exported = torch.export.export(module, inputs).module()
    for y, expected in zip(outputs(exported, inputs), outputs(module, inputs), strict=True):
        torch.testing.assert_close(y, expected)
