"""A plain page that works wherever it is pasted: it carries its address, and its links are whole."""

import re
from urllib.parse import urljoin

LINK = re.compile(
    r"^(?P<mark>`{3,}|~{3,}).*?^(?P=mark)$|`[^`]+`|\]\((?P<target>[^\s()]+)\)", re.DOTALL | re.MULTILINE
)


def linked(text: str, base: str) -> str:
    """Return Markdown whose links are absolute; code stays as it is.

    >>> linked("[CBAM](../cbam.md), `x[0](1)`, [a](https://b.c)", "https://atlas.org/channel/senet.md")
    '[CBAM](https://atlas.org/cbam.md), `x[0](1)`, [a](https://b.c)'
    """
    return LINK.sub(
        lambda found: f"]({urljoin(base, found['target'])})" if found["target"] else found[0], text
    )


def addressed(text: str, address: str) -> str:
    """Return a page with its address below its heading.

    >>> addressed("# SENet\\n\\nText.", "https://atlas.org/senet/")
    '# SENet\\n\\n<https://atlas.org/senet/>\\n\\nText.'
    """
    heading, _, rest = text.partition("\n")
    return f"{heading}\n\n<{address}>\n{rest}"
