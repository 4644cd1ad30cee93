"""Notebooks: a mistake stops the build and says where; outputs become plain Markdown."""

from pathlib import Path

import pytest

from sitekit import paths, store
from sitekit.errors import BuildError
from sitekit.kinds import KINDS
from sitekit.notebooks.cells import Cell, cells
from sitekit.notebooks.execute import make
from sitekit.notebooks.render import Output, executed, markdown

WRONG = """# %% [markdown]
# # Halves

# %%
whole = 1

# %%
parts = 0
whole / parts
"""


NAME = "en/notebooks/halves"
IMPORT = "from snippets.toy import half\n"


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pages, in two languages, without notebooks."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    for language in ("en", "zh"):
        (tmp_path / "docs" / language / "notebooks").mkdir(parents=True)
    return tmp_path / "docs"


def test_an_error_names_the_file_the_line_and_the_reason(docs: Path) -> None:
    (docs / f"{NAME}.py").write_text(WRONG)
    with pytest.raises(
        BuildError, match=r"^docs/en/notebooks/halves\.py:9: ZeroDivisionError: division by zero$"
    ):
        make(NAME)


def test_outputs_are_kept_until_the_notebook_or_what_it_imports_changes(docs: Path) -> None:
    (docs.parent / "snippets").mkdir()
    keys = []
    for half, text in [
        ("1 / 2", f"# %%\n{IMPORT}print(half)\n"),
        (
            "1 / 2  # a comment",
            '# %% [markdown]\n# Prose\n\n# %% alt="x"\nfrom snippets.toy import half\nprint(half)\n',
        ),
        ("1 / 3", f"# %%\n{IMPORT}print(half)\n"),
        ("1 / 3", f"# %%\n{IMPORT}print(-half)\n"),
        ("1 / 3", f"# %%\n{IMPORT}# %%\nprint(-half)\n"),
    ]:
        (docs.parent / "snippets" / "toy.py").write_text(f"half = {half}\n")
        (docs / f"{NAME}.py").write_text(text)
        keys.append(KINDS["notebook"].key(NAME))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_a_translation_shares_the_outputs(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def run(stale: dict[store.Name, str], order: list[store.Name]) -> None:
        for (kind, name), key in stale.items():
            made.append(name)
            store._keep(kind, name, key, {"result": make(name), "seconds": 1.0})

    monkeypatch.setattr(store, "KINDS", {"notebook": KINDS["notebook"]})
    monkeypatch.setattr(store, "_known", {})
    monkeypatch.setattr(store, "make", run)
    texts = []
    for language, prose in {"en": "Half of it", "zh": "一半"}.items():
        file = docs / language / "notebooks" / "halves.py"
        file.write_text(
            f'# %% [markdown]\n# {prose}\n\n# %% alt="{prose}"\nimport time\nprint(time.time())\n'
        )
        texts.append(executed(file))
    ((english, _), (first, outputs)), ((chinese, _), (second, others)) = texts
    assert (english.source, chinese.source) == ("Half of it", "一半")
    assert (first.alt, second.alt) == ("Half of it", "一半")
    assert outputs == others != []
    assert made == [NAME]
    file.write_text("# %%\nprint(1)\n")
    ((_, (printed,)),) = executed(file)
    assert printed["text"] == "1\n"
    assert made == [NAME, "zh/notebooks/halves"]


def test_a_file_is_front_matter_text_and_code(docs: Path) -> None:
    file = docs / f"{NAME}.py"
    file.write_text(
        "# ---\n# description: Halves.\n# ---\n\n# %% [markdown]\n# # Halves\n#\n#     x\n\n"
        "# %% alt=\"A 'bar'\"\n\nhalf = 1 / 2  # exact\n\n\nhalf\n"
    )
    assert cells(file) == [
        Cell(1, "---\ndescription: Halves.\n---", code=False, alt=""),
        Cell(6, "# Halves\n\n    x", code=False, alt=""),
        Cell(12, "half = 1 / 2  # exact\n\n\nhalf", code=True, alt="A 'bar'"),
    ]


def test_an_unknown_kind_of_cell_is_one_sentence(docs: Path) -> None:
    file = docs / f"{NAME}.py"
    file.write_text("# %%\n1\n\n# %% [raw]\n# 1\n")
    expected = r"^docs/en/notebooks/halves\.py:4: a cell cannot begin with '# %% \[raw\]'$"
    with pytest.raises(BuildError, match=expected):
        cells(file)


def render(source: str, *outputs: Output, code: bool = True, alt: str = "") -> str:
    return markdown([(Cell(1, source, code, alt), list(outputs))], Path(__file__))


def test_text_stays_as_written() -> None:
    text = "# Weights\n\nThey sum to one: $\\sum_i \\alpha_i = 1$."
    assert render(text, code=False) == text


def test_printed_text_is_joined_and_loses_its_colours() -> None:
    pieces = [{"output_type": "stream", "text": text} for text in ("\x1b[31mone\x1b[0m\n", "two\n")]
    assert render("f()", *pieces) == (
        "```python\nf()\n```\n\n```{ .text .atlas-output .no-copy }\none\ntwo\n```"
    )


def test_code_that_holds_a_fence_gets_a_longer_one() -> None:
    assert render("'''```'''") == "````python\n'''```'''\n````"


def test_a_figure_needs_a_description() -> None:
    data = {"image/png": "AAAA", "text/plain": "<Figure>"}
    picture = {"output_type": "display_data", "data": data}
    with pytest.raises(BuildError, match="no description"):
        render("draw()", picture)
    shown = '<img alt="A &lt;bar&gt;" src="data:image/png;base64,AAAA">'
    assert shown in render("draw()", picture, alt="A <bar>")
