"""The place of what a reader can move; panels.js fills it when it is opened."""

import json

from sitekit.kinds import explores
from sitekit.labels import WORDS
from sitekit.language import Language
from sitekit.pieces.elements import element
from sitekit.store import exploration


def panel(path: str, language: Language) -> str:
    """Return the panel beside figures/<path>.py, closed; nothing if there is none."""
    if not explores(path):
        return ""
    kind = exploration(path, language)["kind"]
    words = {
        key.removeprefix(f"{kind}: "): language.say(*text)
        for key, text in WORDS.items()
        if key.startswith(f"{kind}: ")
    }
    button = element("button", words.pop("open"), type="button", aria_expanded="false")
    said = json.dumps(words | {"comma": language.comma}, ensure_ascii=False)
    return element("form", button, class_="atlas-panel", data_kind=kind, data_source=path, data_words=said)
