"""What filters the comparison and sets its sizes.

It stands in the page from the start, so that nothing moves when comparison.js and sizes.js take it over.
Without JavaScript the style sheet hides what only they work.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from sitekit.language import Language
from sitekit.pieces.elements import element

_FIELDS = ("B", "C", "H = W", "T = S", "D = E = d", "heads", "r")
FREE = "r"  # differs between mechanisms: each keeps its own until the reader sets one


def filters(lists: Mapping[str, Mapping[str, str]], count: int, language: Language) -> str:
    """Return a form with a text field and a list for each of several keys.

    Args:
        lists: name of each value that can be chosen, by the value, by the key of its column.
        count: number of mechanisms.
        language: of the words.
    """
    name = labelled(language.word("filter"), element("input", type="search"))
    choices = "".join(_list(key, names, language) for key, names in lists.items())
    shown = element("output", escape(language.word("shown", shown=count, all=count)))
    return _form(name + choices + shown, class_="atlas-filter")


def chooser(rows: Iterable[Mapping[str, int]], language: Language) -> str:
    """Return a form with a field for each size; it shows what most mechanisms have.

    Args:
        rows: value of each symbol, for each mechanism.
        language: of the words.
    """
    found = {field: Counter[int]() for field in _FIELDS}
    for sizes in rows:
        for symbol, field in fields(sizes).items():
            found[field][sizes[symbol]] += 1
    inputs = "".join(_size(field, values) for field, values in found.items() if values)
    title = language.word("choose")
    reset = element("button", escape(language.word("reset")), type="reset")
    return _form(f"{escape(title)} {inputs}{reset}", class_="atlas-filter atlas-sizes", aria_label=title)


def columns_shown(names: Mapping[str, str], chosen: str, language: Language) -> str:
    """Return a form that shows more columns, or on a phone another one and the other forms.

    The style sheet alone works it.

    Args:
        names: of the columns that a phone can show beside the first, by key.
        chosen: key of the one it shows at first.
        language: of the words.
    """
    switch = labelled(language.word("formulas"), element("input", type="checkbox", name="formulas"))
    column = labelled(language.word("column"), element("select", options(names, chosen), name="column"))
    fold = labelled(language.word("fields"), element("input", type="checkbox", name="fields"))
    return _form(column + switch + fold, class_="atlas-columns")


def two_names(names: Sequence[str], first: Sequence[str], language: Language) -> str:
    """Return a form with two text fields that know all names, and room for what a script says of them."""
    known = element(
        "datalist", "".join(element("option", "", value=name) for name in names), id="atlas-names"
    )
    inputs = (
        element("label", element("input", type="text", value=name, list="atlas-names", aria_label=name_label))
        for name, name_label in zip(first, "AB", strict=True)
    )
    title = language.word("two")
    form = _form(
        f"{escape(title)} {''.join(inputs)}{known}", class_="atlas-filter atlas-two", aria_label=title
    )
    return form + element("div", "", class_="atlas-beside", role="status")


def labelled(text: str, control: str) -> str:
    """Return a control with its name before it."""
    return element("label", f"{escape(text)} {control}")


def options(names: Mapping[str, str], chosen: str | None = None) -> str:
    """Return the options of a list: names by value, and the value that it shows at first."""
    return "".join(
        element("option", escape(name), value=value, **({"selected": "selected"} if value == chosen else {}))
        for value, name in names.items()
    )


def fields(sizes: Mapping[str, int]) -> dict[str, str]:
    """Return the name of the field that sets each size; some sizes have none.

    >>> fields({"B": 2, "H": 14, "W": 14, "d_k": 8, "heads": 2, "K": 3})
    {'B': 'B', 'H': 'H = W', 'W': 'H = W', 'd_k': 'D = E = d', 'heads': 'heads'}
    """
    found = ((symbol, _field(symbol, "H" in sizes)) for symbol in sizes)
    return {symbol: field for symbol, field in found if field}


def _field(symbol: str, of_maps: bool) -> str | None:
    if of_maps and symbol in "TS":  # frames, not words
        return None
    name = "d" if symbol.startswith("d_") else symbol
    return next((field for field in _FIELDS if name in field.split(" = ")), None)


def _form(content: str, **attributes: str) -> str:
    """Browsers that go back would fill it in again, beside a table that is as it was at first."""
    return element("form", content, autocomplete="off", **attributes)


def _list(key: str, names: Mapping[str, str], language: Language) -> str:
    every = {"": language.word("all")}
    return labelled(language.word(key), element("select", options(every | dict(names)), name=key))


def _size(field: str, values: Counter[int]) -> str:
    value = "" if field == FREE else str(values.most_common(1)[0][0])
    attributes = {"type": "number", "min": "1", "max": "1000000", "step": "1", "inputmode": "numeric"}
    return labelled(field, element("input", name=field, value=value, **attributes))
