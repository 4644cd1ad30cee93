"""The switch on the code of a module: without docstrings, what is left is the module."""

import pytest
from bs4 import BeautifulSoup
from markdown import Markdown

from sitekit.language import CHINESE
from snippets.catalogue import CATALOGUE
from snippets.docstrings import docstrings, without_docstrings
from snippets.lookup import code

HIGHLIGHTED = {"extensions": ["pymdownx.highlight", "sitekit.markdown.extension"]}
OPTIONS = {
    "pymdownx.highlight": {"anchor_linenums": False, "pygments_lang_class": True},
    "sitekit.markdown.extension": {"language": CHINESE.code},
}


def page(name: str, source: str) -> BeautifulSoup:
    """A page with this code in a block of this name."""
    html = Markdown(extension_configs=OPTIONS, **HIGHLIGHTED).convert(
        f'```python title="{name}.py"\n{source}```'
    )
    return BeautifulSoup(html, "html.parser")


@pytest.mark.parametrize("slug", CATALOGUE)
def test_what_is_hidden_is_every_docstring_but_the_header(slug: str) -> None:
    source = code(CATALOGUE[slug])
    found = page(slug, source)
    assert found.select_one("label").get_text(strip=True) == "隐藏文档字符串"
    assert found.select_one("code").get_text().strip() == source.strip()
    for docstring in found.select(".atlas-docstring"):
        docstring.decompose()
    left = found.select_one("code").get_text()
    assert len(docstrings(left)) == 1
    assert without_docstrings(left).strip() == without_docstrings(source).strip()


def test_other_code_has_no_switch() -> None:
    source = '"""A network."""\n\n\ndef f(x):\n    """Twice."""\n    return 2 * x\n'
    assert page("senet", source).label is not None
    assert page("network", source).label is None
