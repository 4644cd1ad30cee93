"""The command line: `python -m snippets`."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pybtex.database import parse_file

from snippets import __main__ as command_line
from snippets.__main__ import main, without_torch
from snippets.catalogue import CATALOGUE, Chapter, Domain, UnknownMechanismError, Weights, fold
from snippets.lookup import named, titles
from tests.conftest import ROOT

PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
TRANSLATED = {"query_key_value", "key_value"}  # from a book in Chinese


def command(
    *arguments: str, python: Sequence[str] = (sys.executable,), **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Run the command line in a process of its own."""
    return subprocess.run([*python, "-m", "snippets", *arguments], cwd=ROOT, text=True, **PIPES | options)


@pytest.mark.parametrize("arguments", [[], ["list"]])
def test_lists_every_mechanism_below_its_place(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each place has one heading, in the order of the axes."""
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    for row in CATALOGUE.values():
        place = f"{row.weights} x {row.domain}" if row.weights and row.domain else "foundations"
        at = next(i for i, line in enumerate(lines) if line.split()[:1] == [row.slug])
        headings = [line for line in lines[:at] if line and not line.startswith(" ")]
        assert headings[-1] == f"{place}: {row.chapter}"
    headings = [line for line in lines if line and not line.startswith(" ")]
    axes = ["foundations", *(f"{weights} x {domain}" for weights in Weights for domain in Domain)]
    places = [f"{place}: {chapter}" for place in axes for chapter in Chapter]
    assert headings == [place for place in places if place in headings]
    assert sum(line.startswith(" ") for line in lines) == len(CATALOGUE)


@pytest.mark.parametrize("name", ["senet", "SENet", "squeeze-and-excitation", "se block", "挤压与激励"])
def test_shows_the_source_under_any_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", name]) == 0
    assert capsys.readouterr().out == (ROOT / "snippets/attention_domain/channel/senet.py").read_text()


@pytest.mark.parametrize("slug", CATALOGUE)
def test_runs_every_mechanism(slug: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", slug]) == 0
    assert capsys.readouterr().out.strip()


@cache
def entries() -> dict[str, Any]:
    """The bibliography."""
    return dict(parse_file(ROOT / "docs/references.bib").entries)


@pytest.mark.parametrize("slug", [slug for slug in CATALOGUE if slug not in TRANSLATED])
def test_the_title_of_the_paper_finds_its_modules(slug: str) -> None:
    """The title as the bibliography has it; where a paper has several modules, they are named."""
    title = re.sub("[{}]", "", entries()[CATALOGUE[slug].citation].fields["title"])
    found = [row for row in CATALOGUE.values() if fold(title) == fold(titles(row)[0])]
    assert CATALOGUE[slug] in found
    if len(found) == 1:
        assert named(title).slug == slug
    else:
        with pytest.raises(UnknownMechanismError, match=rf"several modules name this paper: .*\b{slug}\b"):
            named(title)


def test_a_paper_that_is_named_second_is_found() -> None:
    assert named("on layer normalization in the transformer architecture").slug == "transformer"
    with pytest.raises(UnknownMechanismError, match="multi_head, self_attention, transformer"):
        named("Attention is all you need")


def test_without_torch_one_sentence_says_which_python_has_it(tmp_path: Path) -> None:
    without = (sys.executable, "-S")  # no packages but the standard library
    run = command("run", "senet", python=without)
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1
    assert run.stderr.startswith(f"{sys.executable} has no torch")
    assert not run.stdout
    assert command("list", python=without).returncode == 0
    assert command("show", "senet", python=without).returncode == 0


def test_torch_is_looked_for_in_the_environment_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    row = CATALOGUE["senet"]
    python = sys.executable
    install = f"{python} has no torch: {python} -m pip install torch, or `make build`, which sets up .venv"
    assert without_torch(row) == install
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    assert without_torch(row) == install  # an environment, not yet filled
    (tmp_path / ".venv/lib/python3.11/site-packages/torch").mkdir(parents=True)
    assert without_torch(row).endswith(": run .venv/bin/python -m snippets run senet")


@pytest.mark.parametrize("arguments", [["list"], ["show", "senet"], ["run", "senet"], ["--help"]])
def test_a_closed_pipe_ends_it_quietly(arguments: list[str]) -> None:
    """As `| head -1` closes it, only sooner."""
    read, write = os.pipe()
    os.close(read)
    run = command(*arguments, stdout=write)
    os.close(write)
    assert run.returncode == 0
    assert run.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "cp1252"])
def test_any_encoding_of_the_terminal_will_do(encoding: str) -> None:
    """The source is the file itself; what a module prints has escapes for what the terminal lacks."""
    environment = os.environ | {"PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0"}
    for slug in ("gumbel", "highway"):
        shown = subprocess.run(
            [sys.executable, "-m", "snippets", "show", slug], cwd=ROOT, env=environment, capture_output=True
        )
        assert shown.stdout == (ROOT / f"snippets/{CATALOGUE[slug].path}.py").read_bytes()
    assert not (ROOT / f"snippets/{CATALOGUE['gumbel'].path}.py").read_bytes().isascii()
    assert command("list", env=environment).returncode == 0
    stand_in = (
        "import snippets.__main__ as c; c.main = lambda: print('\\u0394 = 0') or 0; raise SystemExit(c.run())"
    )
    printed = subprocess.run([sys.executable, "-c", stand_in], cwd=ROOT, env=environment, capture_output=True)
    assert printed.returncode == 0
    assert printed.stdout.endswith(b" = 0\n")


def test_an_unknown_name_gets_the_nearest_and_status_2() -> None:
    run = command("run", "sennet")
    assert run.returncode == 2
    assert run.stderr == "unknown mechanism 'sennet'; did you mean 'senet'?\n"
    assert not run.stdout


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["draw", "senet"])
