"""Notebooks: a mistake stops the build and says where; outputs become plain Markdown."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sitekit import paths, store
from sitekit.errors import BuildError
from sitekit.kinds import KINDS
from sitekit.notebooks.execute import make
from sitekit.notebooks.render import executed, markdown

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
        texts.append(executed(file).cells)
    (english, first), (chinese, second) = texts
    assert (english.source, chinese.source) == ("Half of it", "一半")
    assert (first.metadata.alt, second.metadata.alt) == ("Half of it", "一半")
    assert first.outputs == second.outputs != []
    assert made == [NAME]
    file.write_text("# %%\nprint(1)\n")
    assert executed(file).cells[0].outputs[0].text == "1\n"
    assert made == [NAME, "zh/notebooks/halves"]


def render(*cells: nbformat.NotebookNode) -> str:
    return markdown(new_notebook(cells=list(cells)), Path(__file__))


def test_text_and_front_matter_stay_as_written() -> None:
    text = "# Weights\n\nThey sum to one: $\\sum_i \\alpha_i = 1$."
    assert render(new_markdown_cell(text)) == text


def test_printed_text_is_joined_and_loses_its_colours() -> None:
    pieces = [new_output("stream", text="\x1b[31mone\x1b[0m\n"), new_output("stream", text="two\n")]
    assert render(new_code_cell("f()", outputs=pieces)) == (
        "```python\nf()\n```\n\n```{ .text .atlas-output .no-copy }\none\ntwo\n```"
    )


def test_code_that_holds_a_fence_gets_a_longer_one() -> None:
    assert render(new_code_cell("'''```'''")) == "````python\n'''```'''\n````"


def test_a_figure_needs_a_description() -> None:
    picture = new_output("display_data", {"image/png": "AAAA", "text/plain": "<Figure>"})
    with pytest.raises(BuildError, match="no description"):
        render(new_code_cell("draw()", outputs=[picture]))
    described = new_code_cell("draw()", outputs=[picture], metadata={"alt": "A <bar>"})
    assert '<img alt="A &lt;bar&gt;" src="data:image/png;base64,AAAA">' in render(described)
