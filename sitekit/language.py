"""The languages of the site: nothing else asks which one it is. Their words are in sitekit.labels."""

from collections.abc import Mapping
from dataclasses import dataclass

from sitekit import paths
from sitekit.labels import WORDS


@dataclass(frozen=True)
class Language:
    """One language of the site.

    Attributes:
        code: name of its folder in docs/, also what HTML calls it.
        column: where it stands among texts in both languages, English first.
        stop: end of a sentence.
        comma: between parts of a sentence.
        separator: between the items of a list.
        semicolon: between items that have commas in them.
        colon: before an explanation.
        joiner: between sentences, and before a bracket.
        brackets: the opening and the closing one.
    """

    code: str
    column: int
    stop: str
    comma: str
    separator: str
    semicolon: str
    colon: str
    joiner: str
    brackets: tuple[str, str]

    def say(self, english: str, chinese: str) -> str:
        """Return that of the texts which is in this language: `say("weight", "权重")`."""
        return (english, chinese)[self.column]

    def word(self, key: str, **values: object) -> str:
        """Return a word or sentence of sitekit.labels, `values` filled in."""
        return self.say(*WORDS[key]).format(**values)

    def aside(self, text: str) -> str:
        """Return text in brackets, to stand after other text."""
        opening, closing = self.brackets
        return f"{self.joiner}{opening}{text}{closing}"


ENGLISH = Language(paths.LANGUAGES[0], 0, ".", ", ", ", ", "; ", ": ", " ", ("(", ")"))
CHINESE = Language(paths.LANGUAGES[1], 1, "。", "，", "、", "；", "：", "", ("（", "）"))
LANGUAGES: Mapping[str, Language] = {language.code: language for language in (ENGLISH, CHINESE)}
