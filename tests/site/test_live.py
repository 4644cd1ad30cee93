"""What `make live` does: it shows what changed in any file, rebuilds only that, and survives mistakes."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.site import small_atlas
from tests.site.small_atlas import CATALOGUE, FIGURE, PLAIN, SmallAtlas

PATIENCE = 120.0  # seconds
PAGES = {
    "index.md": "# Home\n\nAll.\n\n```members\nchannel\n```",
    "foundations/plain.md": "# Plain\n\nA weighted mean.\n\n## Cost\n\n```cost\nplain\n```\n\n"
    '```python\n--8<-- "snippets/foundations/plain.py"\n```',
    "attention-domain/channel/senet.md": "# SENet\n\nGates.\n\n## See\n\n```figure\nsenet\n```",
    "bibliography.md": "# Bibliography\n\n## Formula\n\n$x$",
}
PAGE = "docs/en/bibliography.md"
HOME, PLAIN_PAGE, SENET_PAGE = "", "foundations/plain/", "attention-domain/channel/senet/"


class Live:
    """The server, and what a browser and a terminal see of it."""

    def __init__(self, atlas: SmallAtlas, log: Path) -> None:
        self.atlas, self.log = atlas, log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        with log.open("a") as output:
            command = [sys.executable, "-m", "sitekit.live", "en", str(self.port)]
            environment = atlas.environment()
            self.process = subprocess.Popen(
                command, cwd=atlas.root, env=environment, stdout=output, stderr=output
            )

    def get(self, path: str) -> str:
        """Return what the browser gets, empty if nothing."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=PATIENCE) as answer:
                return str(answer.read().decode())
        except URLError:
            return ""

    def shows(self, path: str, text: str) -> None:
        """Wait until a page holds a text."""
        self._wait(lambda: text in self.get(path), f"{text} on {path}")

    def says(self, text: str) -> str:
        """Wait until a line holds a text; return the line and forget those before it."""
        self._wait(lambda: text in self.log.read_text(), text)
        line = next(line for line in self.log.read_text().splitlines() if text in line)
        assert "Traceback" not in self.log.read_text()
        return line

    def built(self) -> int:
        """Return how many pages were built since this was asked for the last time."""
        self.says(" pages in ")
        counts = [int(count) for count in re.findall(r"(\d+) pages in", self.log.read_text())]
        self.log.write_text("")
        return sum(counts)

    def _wait(self, until: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not until():
            assert time.monotonic() < end, f"no {what}:\n{self.log.read_text()}"
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    atlas = small_atlas.create(tmp_path_factory.mktemp("live") / "atlas")
    atlas.write("mkdocs.yml", "INHERIT: mkdocs.en.yml\n")
    for name, text in PAGES.items():
        atlas.write(f"docs/en/{name}", text)
    live = Live(atlas, atlas.root.parent / "log")
    live.shows(HOME, "Toy")
    assert live.built() == len(list((atlas.root / "docs" / "en").rglob("*.md")))
    yield live
    live.process.terminate()
    live.process.wait()


def test_a_page_is_one_page(live: Live) -> None:
    live.atlas.replace("docs/en/foundations/plain.md", "```cost", "Costs little.\n\n```cost")
    live.shows(PLAIN_PAGE, "Costs little")
    assert live.built() == 1


def test_a_new_summary_is_shown_wherever_it_stands(live: Live) -> None:
    live.atlas.replace("docs/en/attention-domain/channel/senet.md", "Gates.", "Opens and closes.")
    live.shows(HOME, "Opens and closes")
    assert live.built() > 1


def test_a_snippet_is_the_pages_that_show_it(live: Live) -> None:
    live.atlas.replace(PLAIN, "super().__init__()", "super().__init__()  # now so")
    live.shows(PLAIN_PAGE, "now so")
    assert live.built() == 1


def test_code_is_shown_at_once_and_what_running_it_yields_when_it_is_there(live: Live) -> None:
    """The figure of senet waits for a file, as one that trains would; plain has none and does not wait."""
    wait = (
        "def figure(say):\n    import time\n    from pathlib import Path\n"
        "    while not Path('go').exists():\n        time.sleep(0.1)\n"
    )
    live.atlas.replace(FIGURE, "def figure(say):\n", wait)
    live.atlas.replace(PLAIN, "E: int = 5):", "E: int = 6):  # wider")
    live.shows(PLAIN_PAGE, "wider")
    live.shows(PLAIN_PAGE, "E = 6")
    assert "figure of" not in live.log.read_text()
    live.atlas.replace(FIGURE, '"channel"', '"gate"')
    live.atlas.write("go", "")
    live.shows(SENET_PAGE, "gate</text>")
    live.atlas.replace(FIGURE, wait, "def figure(say):\n")
    live.atlas.replace(FIGURE, '"gate"', '"channel"')
    live.shows(SENET_PAGE, "channel</text>")
    live.built()


def test_a_changed_block_is_drawn_again(live: Live) -> None:
    page = "docs/en/foundations/plain.md"
    block = "plain\ng:\n  1 weights = score softmax: Scores\nmean = mul sum: Mean"
    live.atlas.add(page, f"\n\n```diagram\n{block}\n```\n")
    live.shows(PLAIN_PAGE, "Scores")
    live.atlas.replace(page, ": Scores", ": Votes")
    live.shows(PLAIN_PAGE, "Votes")
    live.built()


def test_the_catalogue_is_read_again(live: Live) -> None:
    live.atlas.replace(CATALOGUE, '"Toy", Weights.HARD', '"Toy", Weights.SOFT')
    live.shows(HOME, ">soft<")
    live.built()


def test_figures_and_styles_are_made_again(live: Live) -> None:
    live.atlas.replace(FIGURE, '"channel"', '"gate"')
    live.shows(SENET_PAGE, "<text")
    live.shows(SENET_PAGE, "gate</text>")
    assert live.built() == 1
    live.atlas.write("styles/print.css", "/* on paper */")
    live.shows("assets/stylesheets/atlas.css", "on paper")
    assert live.built() == 0


@pytest.mark.parametrize(
    ("path", "right", "wrong", "said"),
    [
        ("docs/en/bibliography.md", "$x$", r"$\frac{x$", r"docs/en/bibliography.md:5: formula"),
        (
            "docs/en/bibliography.md",
            "$x$",
            "[@nobody2020]",
            "docs/en/bibliography.md:5: unknown citation key",
        ),
        (PLAIN, "return self.score(x)", "return self.gone(x)", f"{PLAIN}:11: AttributeError"),
        (FIGURE, "    return figure\n", "    return figure.gone\n", f"{FIGURE}:12: AttributeError"),
        (CATALOGUE, "Domain.CHANNEL, Ch", "Domain.CANAL, Ch", f"{CATALOGUE}:"),
        ("sitekit/parts/cost.py", "def ", "deff ", "sitekit/parts/cost.py:"),
    ],
)
def test_a_mistake_is_one_sentence_and_goes_when_mended(
    live: Live, path: str, right: str, wrong: str, said: str
) -> None:
    before = (live.atlas.root / path).read_text()
    live.atlas.write(path, before.replace(right, wrong, 1))
    live.says(said)
    assert "Home" in live.get(HOME)  # the server goes on
    live.atlas.write(path, before)
    live.built()


def test_a_port_in_use_is_one_sentence(live: Live) -> None:
    done = live.atlas.python("-m", "sitekit.live", "en", str(live.port))
    assert done.returncode == 1
    assert done.stderr == f"Port {live.port}: Address already in use. Choose another, e.g. PORT=8001.\n"


def test_an_unknown_language_is_one_sentence(live: Live) -> None:
    done = live.atlas.python("-m", "sitekit.live", "fr", "8000")
    assert done.returncode == 1
    assert done.stderr == "LANGUAGE=fr is not one of en, zh\n"
