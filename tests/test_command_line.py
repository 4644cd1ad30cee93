"""The command line: `python -m snippets`."""

import subprocess
import sys

import pytest

from snippets.__main__ import main
from snippets.catalogue import CATALOGUE
from tests.conftest import ROOT


@pytest.mark.parametrize("arguments", [[], ["list"]])
def test_lists_every_mechanism_below_its_place(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    for row in CATALOGUE.values():
        place = f"{row.weights} x {row.domain}" if row.weights and row.domain else "foundations"
        at = next(i for i, line in enumerate(lines) if line.split()[:1] == [row.slug])
        headings = [line for line in lines[:at] if line and not line.startswith(" ")]
        assert headings[-1] == place


@pytest.mark.parametrize("name", ["senet", "SENet", "squeeze-and-excitation", "se block", "挤压与激励"])
def test_shows_the_source_under_any_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", name]) == 0
    assert capsys.readouterr().out == (ROOT / "snippets/attention_domain/channel/senet.py").read_text()


@pytest.mark.parametrize("slug", CATALOGUE)
def test_runs_every_mechanism(slug: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", slug]) == 0
    assert capsys.readouterr().out.strip()


def test_an_unknown_name_gets_the_nearest_and_status_2() -> None:
    command = [sys.executable, "-m", "snippets", "run", "sennet"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == "unknown mechanism 'sennet'; did you mean 'senet'?\n"
    assert not run.stdout


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["draw", "senet"])
