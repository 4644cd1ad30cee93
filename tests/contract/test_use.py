"""What every snippet owes when it is used: export, memory formats, empty batches, hooks, derivatives."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from tests.contract.constructed import recorded
from tests.contract.walker import build, cast, load

Axes = list[set[int]]


def outputs(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Outputs of forward as a tuple."""
    return result if isinstance(result, tuple) else (result,)


def batch_axes(case: str) -> Axes:
    """For each input, the axes that are as long as the batch."""
    _, two = build(case, B=2)
    _, five = build(case, B=5)
    return [
        {axis for axis, sizes in enumerate(zip(a.shape, b.shape, strict=True)) if len(set(sizes)) > 1}
        for a, b in zip(two, five, strict=True)
    ]


def own_state(module: nn.Module) -> dict[str, Tensor]:
    """Buffers, but for those of torch's own layers."""
    return {
        f"{name}.{key}": buffer.clone()
        for name, part in module.named_modules()
        if not type(part).__module__.startswith("torch.")
        for key, buffer in part.named_buffers(recurse=False)
    }


def test_exports_with_a_dynamic_batch(case: str) -> None:
    module, inputs = build(case, B=2)
    batch = torch.export.Dim("batch")
    axes = batch_axes(case)
    exported = torch.export.export(
        module, inputs, dynamic_shapes=(*({axis: batch for axis in found} for found in axes),)
    ).module()
    for size in (2, 1, 5):
        _, inputs = build(case, B=size)
        for y, expected in zip(outputs(exported(*inputs)), outputs(module(*inputs)), strict=True):
            torch.testing.assert_close(y, expected)


def test_keeps_its_result_in_channels_last(case: str) -> None:
    """A network is converted as a whole, with the block in it."""
    module, inputs = build(case)
    expected = outputs(module(*inputs))
    network = copy.deepcopy(module).to(memory_format=torch.channels_last)
    inputs = tuple(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs)
    for y, kept in zip(outputs(network(*inputs)), expected, strict=True):
        torch.testing.assert_close(y, kept)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_an_empty_batch_is_empty_or_refused(case: str, training: bool) -> None:
    module, inputs = build(case)
    module.train(training)
    before = own_state(module)
    shapes = [y.shape for y in outputs(copy.deepcopy(module)(*inputs))]
    empty = inputs
    for place, axes in enumerate(batch_axes(case)):
        for axis in axes:
            x = empty[place].narrow(axis, 0, 0)
            empty = (*empty[:place], x, *empty[place + 1 :])
    try:
        ys = outputs(module(*empty))
    except ValueError:
        ys, shapes = (), []
    assert all(y.numel() == 0 and y.dim() == len(shape) for y, shape in zip(ys, shapes, strict=True))
    for key, buffer in own_state(module).items():
        assert torch.equal(buffer, before[key]), f"{key} moved"


def trained(case: str, under_checkpoint: bool) -> dict[str, Tensor]:
    """Gradients of parameters and inputs after one step of training, and the module's own buffers."""
    module, inputs = build(case)
    module.train().double()
    inputs = tuple(x.requires_grad_() if x.is_floating_point() else x for x in cast(inputs, torch.float64))
    torch.manual_seed(1)
    ys = outputs(checkpoint(module, *inputs, use_reentrant=False) if under_checkpoint else module(*inputs))
    sum((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum() for y in ys).backward()
    found = {f"input {n}": x.grad for n, x in enumerate(inputs)} | own_state(module)
    found |= {key: p.grad for key, p in module.named_parameters()}
    return {key: x for key, x in found.items() if x is not None}


def test_checkpointing_changes_nothing(case: str) -> None:
    module, inputs = build(case)
    if not any(y.requires_grad for y in outputs(module.train()(*cast_with_gradients(inputs)))):
        return  # nothing to recompute
    plain, recomputed = trained(case, False), trained(case, True)
    assert plain.keys() == recomputed.keys()
    for key, expected in plain.items():
        torch.testing.assert_close(recomputed[key], expected, msg=lambda text, key=key: f"{key}: {text}")


def cast_with_gradients(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The inputs, asked for gradients where they can have any."""
    return tuple(x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs)


def test_the_hook_of_every_layer_fires(case: str) -> None:
    """A layer whose weights are read but which is not called is missed by hooks, LoRA and quantisation."""
    module, inputs = build(case)
    called: set[str] = set()
    layers = {
        name: part
        for name, part in module.named_modules()
        if type(part).__module__.startswith("torch.nn") and any(True for _ in part.parameters(recurse=False))
    }
    for name, part in layers.items():
        part.register_forward_hook(lambda *_, name=name: called.add(name))
    module(*inputs)
    assert set(layers) - called == set()


def test_evaluation_changes_no_state(case: str) -> None:
    module, inputs = build(case)
    before = copy.deepcopy(module.state_dict())
    module(*inputs)
    module.attention(*inputs)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_reset_makes_an_empty_module_new(case: str) -> None:
    """As large networks are built: on `meta`, then `to_empty`, then a reset of all parts, children first."""
    with recorded(load(case.partition(":")[0])) as constructions:
        module, _ = build(case)
    fresh = next((c for c in constructions if c.kind is type(module) and same_shapes(c.state, module)), None)
    if fresh is None:
        assert not module.state_dict()
        return
    for part in fresh.arguments.values():
        if isinstance(part, nn.Module):
            part.to("meta")
    with torch.device("meta"):
        again = fresh.again()
    real = [key for key, x in (*again.named_parameters(), *again.named_buffers()) if not x.is_meta]
    assert not real
    again.to_empty(device="cpu")
    for tensor in again.state_dict().values():
        tensor.fill_(float("nan") if tensor.is_floating_point() else -7)
    again.apply(lambda part: part.reset_parameters() if hasattr(part, "reset_parameters") else None)
    for key, value in again.state_dict().items():
        start = fresh.state[key]
        assert value.isfinite().all(), f"{key} is not set"
        if is_constant(start):
            assert torch.equal(value, start), key
        elif start.numel() >= 64:
            spread = (value.double().std() / start.double().std()).item()
            assert 0.6 < spread < 1.6, f"{key}: {spread:.2f} times as spread as in a new module"


def is_constant(start: Tensor) -> bool:
    """Whether the numbers were set, not drawn."""
    first = start.flatten()[0]
    return bool((start == first).all()) and (start.numel() > 1 or first.item() in (0.0, 1.0))


def same_shapes(state: dict[str, Tensor], module: nn.Module) -> bool:
    """Whether the module has the state's shapes."""
    return {key: x.shape for key, x in state.items()} == {
        key: x.shape for key, x in module.state_dict().items()
    }


class Line:
    """The sum of all outputs, weighted at random, along a line through inputs and parameters."""

    def __init__(self, case: str, rounded: bool = False) -> None:
        self.module, inputs = build(case)
        self.module.double()
        self.inputs = cast(inputs, torch.float64)
        if rounded:
            self.inputs = tuple(x.round() if x.is_floating_point() else x for x in self.inputs)
        self.point = {f"input {n}": x for n, x in enumerate(self.inputs) if x.is_floating_point()}
        self.point |= {key: p.detach() for key, p in self.module.named_parameters() if p.requires_grad}
        torch.manual_seed(2)
        self.direction = {key: torch.randn_like(x) for key, x in self.point.items()}
        self.weights = [torch.randn_like(y) for y in outputs(self.module(*self.inputs))]

    def at(self, point: dict[str, Tensor]) -> Tensor:
        """Value for these inputs and parameters."""
        moved = tuple(point.get(f"input {n}", x) for n, x in enumerate(self.inputs))
        parameters = {key: x for key, x in point.items() if not key.startswith("input")}
        ys = outputs(torch.func.functional_call(self.module, parameters, moved))
        return sum((y * w).sum() for y, w in zip(ys, self.weights, strict=True))

    def slope(self, step: float = 0.0, create_graph: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """Derivative along the line by backward mode, some steps away, and the leaves it was taken at."""
        leaves = {
            key: (x + step * self.direction[key]).detach().requires_grad_() for key, x in self.point.items()
        }
        value = self.at(leaves)
        if not value.requires_grad:
            return torch.zeros((), dtype=torch.float64), leaves
        slopes = torch.autograd.grad(
            value, list(leaves.values()), materialize_grads=True, create_graph=create_graph
        )
        return sum((s * self.direction[key]).sum() for key, s in zip(leaves, slopes, strict=True)), leaves


@pytest.mark.parametrize("rounded", [False, True], ids=["", "equal numbers"])
def test_forward_mode_equals_backward_mode(case: str, rounded: bool) -> None:
    """Rounded inputs have equal maxima, whose derivative is a choice: the same in both modes."""
    line = Line(case, rounded)
    with sdpa_kernel(SDPBackend.MATH):
        _, forward = torch.func.jvp(line.at, (line.point,), (line.direction,))
        torch.testing.assert_close(forward, line.slope()[0].detach())


def test_second_derivative(case: str) -> None:
    """As a gradient penalty takes it, against a difference of first derivatives."""
    line = Line(case)
    with sdpa_kernel(SDPBackend.MATH):
        slope, leaves = line.slope(create_graph=True)
        if not slope.requires_grad:
            return  # linear
        second = torch.autograd.grad(slope, list(leaves.values()), materialize_grads=True)
        exact = sum((s * line.direction[key]).sum() for key, s in zip(leaves, second, strict=True))
        numeric = (line.slope(1e-8)[0] - line.slope(-1e-8)[0]).detach() / 2e-8
    torch.testing.assert_close(exact.detach(), numeric, rtol=1e-4, atol=1e-3)


def test_says_where_second_derivatives_need_the_math_kernel(case: str) -> None:
    line = Line(case)
    try:
        slope, leaves = line.slope(create_graph=True)
        if slope.requires_grad:
            torch.autograd.grad(slope, list(leaves.values()), allow_unused=True)
    except RuntimeError as error:
        if "scaled_dot_product" not in str(error) or "sdpa_kernel" not in (type(line.module).__doc__ or ""):
            raise
