"""What is kept between builds: damaged files are made anew, two builds do not disturb each other, a disk that
cannot be written is one sentence.
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mkdocs.exceptions import Abort

from sitekit import entries, paths, store
from sitekit.errors import BuildError
from sitekit.hooks.disk import on_build_error
from sitekit.kinds import Kind
from tests.site import small_atlas
from tests.site.small_atlas import SmallAtlas
from tests.site.wait import wait_for

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "one byte changed": lambda content: content.replace(b"found", b"fount"),
    "of another kind": lambda content: b'["?"]',
    "under another key": lambda content: b"x" + content[1:],
}


class Made:
    """What stands for the worker: counts what it makes."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def ask(self, name: str = "a") -> object:
        """Ask in a process that remembers nothing."""
        store._known.clear()
        return store.ask("toy", name)

    def make(self, stale: dict[store.Name, str], order: list[store.Name]) -> None:
        """Answer as the worker would."""
        for (kind, name), key in stale.items():
            self.names.append(name)
            answer = {"result": {"found": name}, "seconds": float(len(self.names))}
            store._keep(kind, name, key, answer)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A store of one kind with two names."""
    toy = Kind("sitekit.errors", names=lambda: ["a", "folder/b"], files=lambda name: (), packages=())
    made = Made()
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(store, "_known", {})
    monkeypatch.setattr(store, "KINDS", {"toy": toy})
    monkeypatch.setattr(store, "make", made.make)
    return made


def kept() -> list[Path]:
    """Every file that is kept; what a build has not finished writing has no place there."""
    return sorted(file for file in paths.CACHE.rglob("*") if file.is_file())


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_made_anew(made: Made, damage: str) -> None:
    first = made.ask()
    assert made.ask() == first
    assert made.names == ["a", "folder/b"]
    file, other = kept()
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    assert made.ask() == first
    assert made.names == ["a", "folder/b", "a"]
    assert made.ask() == first
    assert made.names == ["a", "folder/b", "a"]
    assert kept() == [file, other]


def test_what_took_longest_comes_first_and_what_was_never_made_before_all(made: Made) -> None:
    made.ask()
    assert [entries.seconds("toy", name) for name in ("a", "folder/b", "c")] == [1.0, 2.0, float("inf")]


def test_a_full_build_removes_what_nothing_asks_for(made: Made) -> None:
    made.ask()
    current = kept()
    entries.write("toy", "gone", "key", 1, 0.0)
    entries.write("before", "a", "key", 1, 0.0)
    writing, cut_off = (paths.CACHE / "results" / "toy" / f"{name}.part" for name in ("now", "then"))
    for part in (writing, cut_off):
        part.touch()
    os.utime(cut_off, (0, time.time() - 2 * entries.UNFINISHED))
    entries.keep_only(store.current())
    assert kept() == sorted([*current, writing])


def test_what_cannot_be_kept_is_one_sentence(made: Made) -> None:
    """A file stands where a folder is needed: that stops the superuser too."""
    paths.CACHE.write_text("")
    with pytest.raises(BuildError, match=r"^cannot write \S+: (Not a directory|File exists)$"):
        made.ask()


def test_a_write_that_breaks_off_leaves_what_was_there(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    entries.write("toy", "a", "key", "old", 0.0)
    (file,) = kept()
    before, whole = file.read_bytes(), Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        whole(self, content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BuildError, match=r"^cannot write .*a\.json: No space left on device$"):
        entries.write("toy", "a", "key", "new", 0.0)
    assert [(file, file.read_bytes()) for file in kept()] == [(file, before)]


def test_builds_at_the_same_time_do_not_disturb_each_other(made: Made) -> None:
    """Each has a temporary name of its own: none moves away what another is still writing."""

    def build(number: int) -> None:
        entries.write("toy", "a", "key", [number] * 30_000, 0.0)
        found = entries.read("toy", "a", "key")
        assert len(set(found)) == 1
        assert len(found) == 30_000

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(build, range(40)))
    assert len(kept()) == 1


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


def test_a_build_fills_empty_files_anew(atlas: SmallAtlas) -> None:
    files = [file for file in (atlas.root / ".sitecache").rglob("*") if file.is_file()]
    assert {file.relative_to(atlas.root).parts[2] for file in files} == {
        "block",
        "cost",
        "diagram",
        "face",
        "figure",
        "font",
    }
    before = {file: json.loads(file.read_bytes().split(b"\n")[1]) for file in files}
    for file in files:
        file.write_bytes(b"")
    done = atlas.build()
    assert done.returncode == 0, done.stderr
    assert {file: json.loads(file.read_bytes().split(b"\n")[1]) for file in files} == before


def results(atlas: SmallAtlas) -> dict[str, object]:
    """Every result that is kept whole, by its file.

    Asserts that there is no other.
    """
    found = {}
    folder = atlas.root / ".sitecache" / "results"
    for file in (file for file in folder.rglob("*.json") if file.parent.name != "remembered"):
        head, content = file.read_bytes().split(b"\n", 1)
        assert head.decode().split()[1] == hashlib.sha256(content).hexdigest(), file
        found[file.relative_to(folder).as_posix()] = json.loads(content)
    return found


def test_a_build_that_is_killed_leaves_a_sound_store(atlas: SmallAtlas) -> None:
    whole = results(atlas)
    shutil.rmtree(atlas.root / ".sitecache")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "mkdocs.en.yml"]
    with subprocess.Popen(
        command, cwd=atlas.root, env=atlas.environment(), stderr=subprocess.DEVNULL
    ) as build:
        wait_for(True, lambda: any((atlas.root / ".sitecache").rglob("*.json")))
        build.kill()
    left = results(atlas)
    assert 0 < len(left) < len(whole)
    assert left.items() <= whole.items()
    done = atlas.build()
    assert done.returncode == 0, done.stderr
    assert results(atlas) == whole


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
