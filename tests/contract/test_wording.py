"""One wording for each rule in the errors of all snippets, one word for each thing in their arguments."""

import ast
import inspect
import re
from collections.abc import Callable, Iterator

from torch import nn

from tests.conftest import ROOT
from tests.contract.constructed import classes
from tests.contract.walker import load, source

FILLED = r"'\w+'|\((?:\d[\d, ]*)?\)|torch\.\w+|\b(?:nan|inf)\b|(?<!, )(?<!\()-?\b\d[\d.]*"
NAME = r"(?:\w+|{})(?: (?:\*|//|of) \w+)?"
THING = f"{NAME} {{}}(?: to {{}})?"
AXES = r"\((?:[\w'.]+|[, *])*\)"
RULES = {
    "bound": f"{THING}((, | and ){THING})* must be (at least|at most|above|below) ({THING}|{{}})"
    "( and finite)?",
    "range": rf"{THING} must be in [\[(]{{}}, ({{}}|\d)[\])]",
    "finite": f"{THING} must be finite",
    "divisible": f"{THING} must be divisible by ({THING}|{{}})( and {{}})?",
    "odd, even": f"{THING} must be (odd|even) and at least {{}}",
    "power": f"{THING} must be a power of two",
    "choice": r"mode {} must be one of ({}|\w+(, \w+)*)",
    "choice and another": f"{THING} must be (equal to {THING}|{AXES}|None) in mode {{}}( with .+)?",
    "shape": f"{THING}( and {THING})* must be {AXES}((, | and | or ){AXES})*( = {{}}| with .+)?",
    "equal shapes": rf"{THING} must (be {{}} or )?have the shape of {THING}",
    "broadcast": f"{THING} must have (three|four|at most {{}}|{{}}) dimensions that broadcast to "
    rf"({AXES} =|\w+) {{}}(; .+)?",
    "dtype": f"{NAME} must be (bool|integer|float32|floating-point)(, .+| in .+)?, not {{}}([;,] .+)?",
    "state": r"state( (?:\w+|{}))?( {})?( of {})? must be .+",
    "contents": f"{NAME}( {{}})? must hold .+",
}
"""What an error says, by the rule that is broken; `{}` stands for what is filled in, and for each number."""
SYNONYMS = {
    "num_heads": r"heads|n_?heads?|head_count|number_of_heads",
    "kv_heads": r"(num|n)_kv_heads?|num_key_value_heads|n_?kv",
    "head_dim": r"(d|dim|width|size)_head|head_(width|size|channels)",
    "mode": r"kind|variant|type|method|fusion|\w+_(kind|type|mode)",
}


def blank(text: str) -> str:
    """Put `{}` in the place of each number, shape, dtype and quoted word."""
    return re.sub(FILLED, "{}", text)


def broken(text: str) -> list[str]:
    """Rules that this error can be about."""
    return [
        rule for rule, wording in RULES.items() if re.fullmatch(wording.replace("{}", r"\{\}"), blank(text))
    ]


def raised(name: str) -> Iterator[tuple[int, str]]:
    """Line and text of each error that the file raises with a text; `{}` stands for what is filled in."""
    for node in ast.walk(ast.parse(source(name).read_text())):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            text = node.exc.args[0]
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            yield node.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in parts)


def test_errors_about_one_rule_are_worded_alike(name: str) -> None:
    odd = [f"line {line}: {text}" for line, text in raised(name) if not broken(text)]
    assert not odd, "CONTRIBUTING.md has a table of wordings"


def test_the_table_of_wordings_is_complete() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = dict(re.findall(r"^\| ([\w, ]+) \| `(.+)` \|$", text, re.MULTILINE))
    assert {rule: broken(wording) for rule, wording in table.items()} == {rule: [rule] for rule in RULES}


def public(name: str) -> Iterator[tuple[str, Callable[..., object]]]:
    """Classes and functions of the module but `example`, whose arguments are symbols of formulas."""
    for key, member in vars(load(name)).items():
        own = getattr(member, "__module__", None) == name and not key.startswith("_")
        if own and callable(member) and key not in ("example", "variants"):
            yield key, member


def arguments(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """Parameters with a name."""
    parameters = inspect.signature(function).parameters
    return {key: p for key, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def test_arguments_have_one_word_for_one_thing(name: str) -> None:
    others = [
        f"{key}({argument}): {word}"
        for key, member in public(name)
        for argument in arguments(member)
        for word, synonyms in SYNONYMS.items()
        if re.fullmatch(synonyms, argument)
    ]
    assert not others


def test_a_choice_is_called_mode(name: str) -> None:
    module = load(name)
    choices = {key for kind in classes(module) for key, p in arguments(kind).items() if p.annotation is str}
    assert choices <= {"mode"}
    assert not choices or module.MODES


def section(text: str, heading: str) -> str:
    """The part of a docstring below a heading, up to the next empty line."""
    return text.partition(f"\n{heading}:\n")[2].partition("\n\n")[0]


def undocumented(kind: type[nn.Module]) -> Iterator[str]:
    """What is missing in the docstring of a class with `attention`."""
    text = inspect.cleandoc(kind.__doc__ or "")
    documented = re.findall(r"^    ([\w, ]+):", section(text, "Args"), re.MULTILINE)
    yield from set(arguments(kind)) - set(", ".join(documented).split(", "))
    shapes = section(text, "Shape")
    yield from (method for method in ("attention", "forward") if f"- {method}(" not in shapes)
    errors = ["ValueError"] + ["TypeError"] * any("mask" in name for name in arguments(kind.attention))
    yield from (error for error in errors if f"{error}:" not in section(text, "Raises"))


def test_classes_with_attention_are_documented(name: str) -> None:
    found = [kind for kind in classes(load(name)) if hasattr(kind, "attention")]
    assert found
    missing = {kind.__name__: list(undocumented(kind)) for kind in found}
    assert not {key: parts for key, parts in missing.items() if parts}
