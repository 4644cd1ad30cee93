"""What is kept between builds: damaged files are made anew, two builds do not disturb each other, a disk that
cannot be written is one sentence.
"""

import errno
import itertools
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mkdocs.exceptions import Abort
from nbformat import NotebookNode
from nbformat.v4 import new_output

from sitekit import javascript, mathfont, paths, run, store
from sitekit.errors import BuildError
from sitekit.hooks.disk import on_build_error
from sitekit.notebooks import execute
from sitekit.results import CostRow, Results, to_json
from snippets.catalogue import CATALOGUE
from tests.site import small_atlas
from tests.site.small_atlas import ROOT, SmallAtlas

SENET = CATALOGUE["senet"]
FOUND = Results(
    "<svg/>", "<svg/>", ("(B, C)",), ("(B, C)",), ("(B, C)",), "C", "C", (CostRow({"C": 2}, 1, 1, 1),)
)


class Store:
    """One of the stores: `ask` for what it keeps, `made` says how often that was made."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self.ask = ask
        self.made = 0

    def count(self) -> None:
        self.made += 1


def results(patch: pytest.MonkeyPatch, folder: Path) -> Store:
    """What running a mechanism yields, in a process that remembers nothing."""

    def ask() -> object:
        run._known.clear()
        return run.results(SENET)

    def compute(stale: list[str]) -> None:
        kept.count()
        for name in stale:
            run._keep({"name": name, "results": to_json(FOUND)}, run.cache_key(name))

    kept = Store(ask)
    patch.setattr(run, "_known", {})
    patch.setattr(run, "_run", compute)
    patch.setattr(run, "CATALOGUE", {"senet": SENET})
    patch.setattr(run, "figures", lambda: iter(()))
    return kept


def formulas(patch: pytest.MonkeyPatch, folder: Path) -> Store:
    """The formulas as JavaScript."""

    def translated(formula: str, symbols: list[str]) -> str:
        kept.made += 1 / len(javascript.KINDS)
        return formula.upper()

    kept = Store(javascript.module)
    patch.setattr(javascript, "CATALOGUE", {"senet": SENET})
    patch.setattr(javascript, "results", lambda mechanism: FOUND)
    patch.setattr(javascript, "translated", translated)
    return kept


def notebooks(patch: pytest.MonkeyPatch, folder: Path) -> Store:
    """The outputs of a notebook."""

    def ran(notebook: NotebookNode, file: Path) -> None:
        kept.count()
        for cell in notebook.cells:
            cell.outputs = [new_output("stream", text="0.5\n")]

    file = folder / "halves.py"
    file.write_text("# %%\nprint(1 / 2)\n")
    kept = Store(lambda: execute.execute(file).cells[0].outputs)
    patch.setattr(execute, "_run", ran)
    return kept


def font(patch: pytest.MonkeyPatch, folder: Path) -> Store:
    """The font of the formulas."""

    def subset(source: Any) -> SimpleNamespace:
        kept.count()
        content = b"wOF2" + bytes(4) + (1000).to_bytes(4) + bytes(988)
        return SimpleNamespace(save=lambda file: file.write(content))

    kept = Store(lambda: mathfont.math_font().read_bytes())
    patch.setattr(mathfont, "_subset", subset)
    return kept


STORES = {"results": results, "formulas": formulas, "notebooks": notebooks, "font": font}
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1].rstrip(),
    "of another kind": lambda content: b'["?"]',
}


@pytest.fixture(params=STORES)
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    return STORES[request.param](monkeypatch, tmp_path)


def stored() -> list[Path]:
    """Every file that is kept; what a build has not finished writing has no place there."""
    return [file for file in paths.CACHE.rglob("*") if file.is_file()]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_made_anew(kept: Store, damage: str) -> None:
    first = kept.ask()
    assert kept.ask() == first
    assert kept.made == 1
    (file,) = stored()
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    assert kept.ask() == first
    assert kept.made == 2
    assert kept.ask() == first
    assert kept.made == 2
    assert stored() == [file]


def test_what_cannot_be_kept_is_one_sentence(kept: Store) -> None:
    """A file stands where a folder is needed: that stops the superuser too."""
    paths.CACHE.write_text("")
    with pytest.raises(BuildError, match=r"^cannot write \S+: (Not a directory|File exists)$"):
        kept.ask()


def test_a_write_that_breaks_off_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "folder" / "x.json"
    store.write(file, b"old")
    whole = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        whole(self, content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BuildError, match=r"^cannot write .*x\.json: No space left on device$"):
        store.write(file, b"new")
    assert [(found, found.read_bytes()) for found in file.parent.iterdir()] == [(file, b"old")]


def test_builds_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Each has a temporary name of its own: none moves away what another is still writing."""
    file = tmp_path / "x.json"
    contents = [bytes([number]) * 100_000 for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(store.write, itertools.repeat(file), contents):
            assert len(set(file.read_bytes())) == 1
            assert len(file.read_bytes()) == 100_000
    assert list(tmp_path.iterdir()) == [file]


def test_all_stores_write_in_one_step() -> None:
    """Whatever knows the folder of the cache leaves the writing to sitekit.store."""
    writes = re.compile(r"\.write_(text|bytes)\(|\.save\((?!woff2\))|\bopen\(")
    for file in (ROOT / "sitekit").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if "paths.CACHE" in text:
            assert not writes.search(text), file
            assert "store.write(" in text, file


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> SmallAtlas:
    """A small atlas that has been built once; not to be changed."""
    atlas = small_atlas.create(tmp_path_factory.mktemp("built"))
    atlas.write("docs/en/comparison.md", "# Comparison\n\n```comparison\n```")
    done = atlas.build()
    assert done.returncode == 0, done.stderr
    return atlas


@pytest.fixture
def atlas(built: SmallAtlas, tmp_path: Path) -> SmallAtlas:
    return SmallAtlas(Path(shutil.copytree(built.root, tmp_path / "atlas")))


def test_a_build_fills_empty_caches_anew(atlas: SmallAtlas) -> None:
    files = [file for file in (atlas.root / ".sitecache").rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".json", ".woff2"}
    assert {"results", "formulas", ".sitecache"} <= {file.parent.name for file in files}
    before = {file: file.read_bytes() for file in files}
    for file in files:
        file.write_bytes(b"")
    done = atlas.build()
    assert done.returncode == 0, done.stderr
    assert {file: file.read_bytes() for file in files} == before


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from mkdocs.__main__ import cli
cli(["build", "--strict", "-f", "mkdocs.en.yml"])
"""


@pytest.mark.parametrize("cached", [True, False])
def test_a_build_on_a_full_disk_ends_in_one_sentence(atlas: SmallAtlas, cached: bool) -> None:
    """No file may be larger than 2,000 bytes: neither those of the cache nor those of the site."""
    pytest.importorskip("resource")
    if not cached:
        shutil.rmtree(atlas.root / ".sitecache")
    done = atlas.python("-c", LIMITED)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if line and "INFO" not in line]
    expected = "the disk: File too large; the build must" if cached else "Error: cannot write .sitecache/"
    assert len(said) == 1, said
    assert said[0].startswith(expected)


@pytest.mark.parametrize("number", ["EROFS", "ENOSPC", "EACCES"])
def test_an_error_of_the_disk_stops_in_words(number: str) -> None:
    error = OSError(getattr(errno, number), "Read-only file system", "site/index.html")
    with pytest.raises(
        Abort, match=r"^site/index.html: Read-only file system; the build must be able to write"
    ):
        on_build_error(error)
    on_build_error(FileNotFoundError(errno.ENOENT, "No such file or directory", "x"))  # a mistake: as it is
