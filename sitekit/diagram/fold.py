"""Many steps made fewer: what changes each number by itself joins the step before it."""

import re
from dataclasses import replace

from sitekit.diagram.graph import Graph, Step

POINTWISE = re.compile(r"BatchNorm|ReLU6?|GELU|SiLU|ELU|tanh|sigmoid|[×÷+−] (constant|\S+)")


def fold(graph: Graph) -> Graph:
    """Return the graph with each pointwise step in the box of the step that only it reads."""
    steps: list[Step] = []
    place: dict[int, int] = {}  # of each step of the graph in `steps`
    for index, step in enumerate(graph.steps):
        moved = replace(step, inputs=tuple(dict.fromkeys(place[source] for source in step.inputs)))
        if _joins(graph.steps, step):
            place[index] = place[step.inputs[0]]
            steps[place[index]] = _joined(steps[place[index]], moved)
        else:
            place[index] = len(steps)
            steps.append(moved)
    return replace(graph, steps=steps)


def _joins(steps: list[Step], step: Step) -> bool:
    if len(step.inputs) != 1 or not POINTWISE.fullmatch(step.label):
        return False
    (source,) = step.inputs
    before = steps[source]
    readers = sum(source in other.inputs for other in steps)
    return readers == 1 and before.kind == "step" and (before.shape, before.lane) == (step.shape, step.lane)


def _joined(before: Step, step: Step) -> Step:
    label = before.label + "; " + step.label.replace(" ", "\u00a0")
    return replace(before, label=label, learned=before.learned or step.learned)
