"""Notebooks: a mistake stops the build and says where; outputs become plain Markdown."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sitekit import paths
from sitekit.errors import BuildError
from sitekit.notebooks.execute import execute
from sitekit.notebooks.render import markdown

WRONG = """# %% [markdown]
# # Halves

# %%
whole = 1

# %%
parts = 0
whole / parts
"""


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty notebook file whose outputs are kept in a folder of the test."""
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    file = tmp_path / "en" / "notebooks" / "halves.py"
    file.parent.mkdir(parents=True)
    return file


def test_an_error_names_the_file_the_line_and_the_reason(notebook: Path) -> None:
    notebook.write_text(WRONG)
    with pytest.raises(BuildError, match=r"halves\.py:9: ZeroDivisionError: division by zero$"):
        execute(notebook)
    assert not list(paths.CACHE.rglob("*.ipynb")), "a failed run must not be kept"


def test_outputs_are_kept_until_the_notebook_or_what_it_imports_changes(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "snippets").mkdir()
    printed = []
    for half, shown in [("1 / 2", "half"), ("1 / 2", "half"), ("2 / 4.1", "half"), ("2 / 4.1", "-half")]:
        (tmp_path / "snippets" / "toy.py").write_text(f"half = {half}\n")
        notebook.write_text(f"# %%\nfrom snippets.toy import half\nprint({shown})\n")
        printed.append(execute(notebook).cells[0].outputs[0].text)
    assert printed == ["0.5\n", "0.5\n", f"{2 / 4.1}\n", f"{-2 / 4.1}\n"]
    assert capsys.readouterr().err.count("notebook halves  ") == 3


def test_a_translation_shares_the_outputs(notebook: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for prose in ("Half of it", "一半"):
        notebook.write_text(
            f'# %% [markdown]\n# {prose}\n\n# %% alt="{prose}"\nimport time\nprint(time.time())\n'
        )
        texts.append(execute(notebook).cells)
    (english, first), (chinese, second) = texts
    assert (english.source, chinese.source) == ("Half of it", "一半")
    assert (first.metadata.alt, second.metadata.alt) == ("Half of it", "一半")
    assert first.outputs == second.outputs != []
    assert capsys.readouterr().err.count("notebook halves  ") == 1


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
