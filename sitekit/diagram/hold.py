"""An idea held against what ran: which operations each box stands for, and so which arrows there are."""

import re
from dataclasses import replace

from sitekit.diagram.graph import Graph, Lane, Step
from sitekit.diagram.idea import Idea, Line, amount
from sitekit.errors import BuildError

Key = int | str
"""Of what is drawn: the number of an input or output among what ran, the name of a box."""
RESULT = "f(g(x), x)"
JOINING = {"cat", "concat", "stack"}
"""Functions that need no box: they put side by side what others have made."""


def hold(idea: Idea, ran: Graph, sizes: dict[str, int]) -> Graph:
    """Return the boxes of an idea with the arrows of the recorded steps.

    Args:
        ran: the steps of a forward pass.
        sizes: what each symbol of a shape stands for.

    Raises:
        BuildError: a step belongs to no box or to two, a box to no step; a shape holds another amount of
            numbers than comes out of its box; or a box reads one that stands below it, outside of a frame.
    """
    ends = {i: _called(step) for i, step in enumerate(ran.steps) if step.kind != "step"}
    boxes = [line for line in idea.boxes if line.name not in ends.values()]
    owner: dict[int, Key] = {**_owners(boxes, ran.steps), **{i: i for i in ends}}
    said = {line.name: line for line in idea.boxes}
    steps: dict[Key, Step] = {}
    for i in (i for i in ends if ran.steps[i].kind == "input"):
        steps[i] = _end(ran.steps[i], said.get(ends[i]), sizes)
    for line in boxes:
        steps[line.name] = _box(
            line, [ran.steps[i] for i, key in owner.items() if key == line.name], idea, sizes
        )
    for i in (i for i in ends if ran.steps[i].kind == "output"):
        steps[i] = _end(ran.steps[i], said.get(ends[i]), sizes)
    place = {key: number for number, key in enumerate(steps)}
    reads: list[set[int]] = [set() for _ in steps]
    for i, key in owner.items():
        reads[place[key]] |= {place[owner[maker]] for maker in _makers(ran.steps, owner, ran.steps[i].inputs)}
    drawn = [
        replace(step, inputs=_above(list(steps.values()), number, reads[number]))
        for number, step in enumerate(steps.values())
    ]
    lanes = [Lane(one.words, "g" if one.name.startswith("g") else "part", one.number) for one in idea.frames]
    return Graph(ran.title, drawn, lanes)


def _called(step: Step) -> str:
    return step.label if step.kind == "input" else "output"


def _above(steps: list[Step], number: int, sources: set[int]) -> tuple[int, ...]:
    """Return the sources without those below, which only a loop may read: a frame that holds both."""
    lane = steps[number].lane
    for below in (source for source in sources if source > number):
        if lane is None or lane != steps[below].lane:
            one, other = (steps[i].title or steps[i].label for i in (number, below))
            raise BuildError(f"'{one}' reads '{other}', which must stand above it")
    return tuple(sorted(source for source in sources if source < number))


def _owners(boxes: list[Line], steps: list[Step]) -> dict[int, Key]:
    """Return the box of each step; of those that only rearrange, where a box stands for nothing else."""
    owner: dict[int, Key] = {}
    for index, step in enumerate(steps):
        if step.kind == "step" and step.label:
            owners = _nearest(boxes, step)
            if not owners and step.trail[-1] in JOINING:
                continue
            if len(owners) != 1:
                raise BuildError(
                    f"'{' '.join(step.trail)}' must belong to one box, not {owners or 'to none'}"
                )
            owner[index] = owners[0]
    idle = [box for box in boxes if box.name not in owner.values()]
    for index, step in enumerate(steps):
        if step.kind == "step" and index not in owner:
            for name in _nearest(idle, step):
                owner[index] = name
    return owner


def _nearest(boxes: list[Line], step: Step) -> list[str]:
    """Return the names of the boxes whose claims reach furthest into the trail of a step."""
    reach = {box.name: max(_reach(claim, step.trail) for claim in box.claims) for box in boxes}
    best = max(reach.values(), default=(-1, 0))
    return [name for name, found in reach.items() if found == best and best[0] >= 0]


def _makers(steps: list[Step], owner: dict[int, Key], indices: tuple[int, ...]) -> set[int]:
    """Return the steps with a box whose numbers come out of these, which may only rearrange them."""
    own = {index for index in indices if index in owner}
    others = (index for index in indices if index not in owner)
    return own.union(*(_makers(steps, owner, steps[index].inputs) for index in others))


def _reach(claim: str, trail: tuple[str, ...]) -> tuple[int, int]:
    """Return how far into a trail a claim reaches, and how many names it has; (-1, 0) if not at all.

    `heads.scores` is scores directly in heads, `heads..scores` anywhere in it.
    """
    runs = [tuple(run.split(".")) for run in claim.split("..")]
    end, last = len(trail), -1
    for run in reversed(runs):
        starts = [i for i in range(end - len(run) + 1) if trail[i : i + len(run)] == run]
        if not starts:
            return -1, 0
        end = starts[-1]
        last = max(last, end + len(run) - 1)
    return last, sum(map(len, runs))


def _box(line: Line, own: list[Step], idea: Idea, sizes: dict[str, int]) -> Step:
    if not own:
        raise BuildError(f"'{line.name}' must name something that ran")
    if line.shape and amount(line.shape, sizes) not in {step.size for step in own}:
        raise BuildError(f"{line.shape} of '{line.name}' must hold as many numbers as {own[-1].shape}")
    title, colon, label = re.split("(: |：|$)", line.words, maxsplit=1)
    return Step(
        "step",
        label if colon else title,
        line.shape,
        lane=next((i for i, frame in enumerate(idea.frames) if frame.name == line.frame), None),
        learned=any(step.learned for step in own),
        number=line.number,
        weighs=line.star,
        title=title if colon else "",
    )


def _end(step: Step, line: Line | None, sizes: dict[str, int]) -> Step:
    label = step.label if step.kind == "input" else RESULT
    if line is None:
        return Step(step.kind, label, step.shape)
    if line.shape and amount(line.shape, sizes) != step.size:
        raise BuildError(f"{line.shape} of '{line.name}' must hold as many numbers as {step.shape}")
    return Step(step.kind, line.words or label, line.shape, number=line.number)
