"""Run a module once and write down which operations its output comes from.

A forward pass is recorded as it runs on real tensors, not traced symbolically, so that guards on shapes,
loops and *args need no special care. Operations that only rearrange a tensor become part of an edge;
what depends on parameters alone is not a step but a name in the label of the step that uses it.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from sitekit.diagram import functions, lanes, layers, opened
from sitekit.diagram.graph import Graph, Lane, Step
from sitekit.diagram.names import Names
from sitekit.diagram.operations import greek
from sitekit.diagram.trail import trail


@dataclass(frozen=True)
class Value:
    """Where a tensor comes from: a step, or (step None) a constant, by name if it has one."""

    step: int | None = None
    name: str | None = None
    learned: bool = False


@dataclass
class Recorder:
    """What has been seen so far."""

    module: nn.Module
    names: Names
    coarse: bool
    fine: bool
    steps: list[Step] = field(default_factory=list)
    lanes: list[str] = field(default_factory=list)
    lane: int | None = None
    inside: nn.Module | None = None  # the submodule that is drawn as one step and is running now
    block: nn.Module | None = None  # the submodule of the snippet's own that is running now, the outermost
    blocks: list[str] = field(default_factory=list)
    block_of: list[int | None] = field(default_factory=list)  # of each step
    values: dict[int, Value] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)  # an id stays unique while its tensor lives
    results: list[Tensor] = field(default_factory=list)  # the first that each step returned
    calls: Counter[str] = field(default_factory=Counter)
    callers: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.paths = {submodule: path for path, submodule in self.module.named_modules()}
        for path, tensor in [*self.module.named_parameters(), *self.module.named_buffers()]:
            learned = isinstance(tensor, nn.Parameter)
            self.bind(tensor, Value(name=greek(path.rsplit(".", 1)[-1]), learned=learned))
        self.files = frozenset([inspect.getfile(type(self.module)), opened.__file__])

    def bind(self, tensor: Tensor, value: Value) -> None:
        """Remember where this tensor comes from."""
        self.values[id(tensor)] = value
        self.kept.append(tensor)

    def add(self, step: Step, tensors: list[Tensor]) -> None:
        """Append a step that returns these tensors."""
        self.steps.append(step)
        self.results.append(tensors[0])
        self.block_of.append(None if self.block is None else len(self.blocks) - 1)
        for tensor in tensors:
            self.bind(tensor, Value(step=len(self.steps) - 1))

    def operation(
        self, name: str, label: str | None, arguments: Any, result: Any, *, learned: bool = False
    ) -> None:
        """Record one operation; a label of None says that it only rearranges its first argument."""
        sources = [(tensor, self.values.get(id(tensor), Value())) for tensor in tensors_of(arguments)]
        results = list(tensors_of(result))
        data = [(tensor, value) for tensor, value in sources if value.step is not None]
        if not data or label is None:
            first = data or sources
            value = first[0][1] if first else Value()
            if not data or not self.fine:
                for tensor in results:
                    self.bind(tensor, value)
                return
            data = data[:1]
        inputs = tuple(dict.fromkeys(value.step for _, value in data if value.step is not None))
        step = Step(
            "step",
            label or "",
            self.names.shape(results[0].shape),
            inputs,
            self.lane,
            learned=learned or any(value.learned for _, value in sources),
            size=results[0].numel(),
            trail=trail(self.paths, self.files, name),
        )
        self.add(step, results)

    def step_of(self, tensor: Tensor) -> int | None:
        """Return the step this tensor comes from."""
        return self.values.get(id(tensor), Value()).step

    def is_one_step(self, module: nn.Module) -> bool:
        """Whether this submodule is drawn as one step: torch's own layers, and all if coarse."""
        if isinstance(module, nn.Sequential):
            return False
        return type(module).__module__.startswith("torch.nn.") or self.coarse

    def enter(self, module: nn.Module, arguments: Any) -> None:
        """A submodule starts."""
        if self.inside is not None or module is self.module:
            return
        if self.is_one_step(module):
            self.inside = module
        elif self.block is None and not isinstance(module, nn.Sequential):
            self.block = module
            self.blocks.append(self.paths.get(module, "").rsplit(".", 1)[-1])

    def leave(self, module: nn.Module, arguments: Any, keywords: Any, result: Any) -> None:
        """A submodule has returned."""
        if self.block is module:
            self.block = None
        if self.inside is not module:
            return
        self.inside = None
        path = self.paths.get(module, "")
        tensors = list(tensors_of((arguments, keywords)))
        label = layers.label(module, path, tuple(tensors[0].shape), self.names)
        learned = any(True for _ in module.parameters())
        before = len(self.steps)
        self.operation(path.rsplit(".", 1)[-1], label, tensors, result, learned=learned)
        if learned and len(self.steps) > before:
            self.calls[path] += 1
            self.callers[before] = path

    def function(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any], result: Any) -> None:
        """A torch function or tensor method has returned."""
        if name == "__setitem__":
            result = arguments[0]
        if not any(True for _ in tensors_of(result)):
            return
        if name in functions.FILLED:
            for tensor in tensors_of(result):
                self.bind(tensor, Value())
            return
        operands = [self._operand(tensor) for tensor in tensors_of((arguments, keywords))]
        counts = any(tensor.is_floating_point() for tensor in tensors_of((arguments, keywords, result)))
        call = functions.Call(name, arguments, keywords, operands, self.names)
        label = functions.label(call) if counts or len(call.data) > 1 else None
        self.operation(call.plain, label, (arguments, keywords), result)

    def _operand(self, tensor: Tensor) -> functions.Operand:
        value = self.values.get(id(tensor), Value())
        return functions.Operand(tuple(tensor.shape), value.step, value.name, self._ancestors(value.step))

    def _ancestors(self, step: int | None) -> frozenset[int]:
        found: set[int] = set()
        todo = [] if step is None else [step]
        while todo:
            for source in self.steps[todo.pop()].inputs:
                if source not in found:
                    found.add(source)
                    todo.append(source)
        return frozenset(found)


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention and self.recorder.fine:
            with self:
                return opened.scaled_dot_product_attention(*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if self.recorder.inside is None:
            name = getattr(func, "__name__", str(func))
            self.recorder.function(name, args, kwargs or {}, result)
        return result


def record(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    names: Names,
    *,
    coarse: bool = False,
    fine: bool = False,
) -> Graph:
    """Run `module(*inputs)` and return the steps its output comes from.

    Args:
        coarse: draw submodules that the snippet itself defines as one step each.
        fine: write torch's fused kernel of attention out in steps, and keep steps that only rearrange.
    """
    recorder = Recorder(module, names, coarse, fine)
    for name, tensor in zip(_input_names(module, inputs), inputs, strict=True):
        recorder.add(Step("input", name, names.shape(tensor.shape), size=tensor.numel()), [tensor])
    with ExitStack() as stack:
        pre = hooks.register_module_forward_pre_hook(recorder.enter)
        stack.callback(pre.remove)
        post = hooks.register_module_forward_hook(recorder.leave, with_kwargs=True)
        stack.callback(post.remove)
        for submodule in module.modules():
            if callable(getattr(type(submodule), "attention", None)):
                stack.enter_context(_marked(submodule, recorder))
        stack.enter_context(_Functions(recorder))
        result = module(*inputs)
    return _finish(recorder, inputs, list(tensors_of(result)))


@contextmanager
def _marked(module: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Let the outermost call of `attention` open a lane."""
    method: Any = module.attention
    owner = "" if module is recorder.module else recorder.paths[module].rsplit(".", 1)[-1]

    def attention(*args: Any, **kwargs: Any) -> Any:
        if recorder.lane is not None or recorder.inside is not None:
            return method(*args, **kwargs)
        recorder.lane = len(recorder.lanes)
        recorder.lanes.append(f"{owner}: g(x)" if owner else "g(x)")
        try:
            return method(*args, **kwargs)
        finally:
            recorder.lane = None

    vars(module)["attention"] = attention
    try:
        yield
    finally:
        del vars(module)["attention"]


def _finish(recorder: Recorder, inputs: tuple[Tensor, ...], results: list[Tensor]) -> Graph:
    """Add the outputs, mark what is shared and drop what does not reach an output."""
    steps, names = list(recorder.steps), list(recorder.lanes)
    for index, path in recorder.callers.items():
        if recorder.calls[path] > 1:
            steps[index] = replace(steps[index], label=f"{steps[index].label}, shared")
    if not any(step.lane is not None for step in steps):
        steps, names = lanes.assign(steps, recorder.results, lanes.weights(recorder.module, inputs))
    output = "f(g(x), x)" if names else "output"
    if not names:
        steps = [replace(step, lane=block) for step, block in zip(steps, recorder.block_of, strict=True)]
        names = recorder.blocks
    for position, tensor in enumerate(results):
        step = recorder.step_of(tensor)
        if step is not None:
            label = output if position == 0 else f"output {position + 1}"
            shape = recorder.names.shape(tensor.shape)
            steps.append(Step("output", label, shape, (step,), size=tensor.numel()))
    steps, names = _prune(steps, names)
    note = recorder.names.note([text for step in steps for text in (step.label, step.shape)])
    return Graph(type(recorder.module).__name__, steps, [Lane(name) for name in names], note)


def _prune(steps: list[Step], names: list[str]) -> tuple[list[Step], list[str]]:
    """Keep the steps that reach an output, and number steps and lanes anew."""
    alive: set[int] = set()
    for index in reversed(range(len(steps))):
        if steps[index].kind == "output" or index in alive:
            alive |= {index, *steps[index].inputs}
    kept = sorted(alive)
    used = sorted({lane for index in kept if (lane := steps[index].lane) is not None})
    return [
        replace(
            steps[index],
            inputs=tuple(kept.index(source) for source in steps[index].inputs),
            lane=None if (lane := steps[index].lane) is None else used.index(lane),
        )
        for index in kept
    ], [names[lane] for lane in used]


def _input_names(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    """Return what forward calls its inputs; several in *args are numbered."""
    names: list[str] = []
    for name, value in inspect.signature(module.forward).bind(*inputs).arguments.items():
        many = isinstance(value, tuple)
        names += [f"{name} {i + 1}" for i in range(len(value))] if many else [name]
    return names


def tensors_of(thing: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested arguments or results."""
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, tuple | list):
        for part in thing:
            yield from tensors_of(part)
    elif isinstance(thing, dict):
        yield from tensors_of(list(thing.values()))
