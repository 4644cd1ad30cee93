"""The page "How it is proved": the change it tells the reader to make, made in a copy."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

PAGE = (ROOT / "docs/en/how-it-is-proved.md").read_text(encoding="utf-8")
CHANGE = re.compile(r'^```diff title="(.*)"\n-(.*)\n\+(.*)\n```', re.MULTILINE)
RUN = re.compile(r"^```console\n\$ pytest (.*)\n((?:.*\n)+?)```", re.MULTILINE)


def test_the_mean_as_a_maximum_fails_as_the_page_says(tmp_path: Path) -> None:
    (change,), (run,) = CHANGE.findall(PAGE), RUN.findall(PAGE)
    for folder in ("snippets", "tests", "sitekit"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    name, old, new = change
    module = (tmp_path / name).read_text(encoding="utf-8")
    assert module.count(old) == 1
    (tmp_path / name).write_text(module.replace(old, new), encoding="utf-8")
    arguments, printed = run
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments.split()]
    tests = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    lines = [line.partition(" - ")[0] for line in tests.stdout.splitlines()]
    assert [line for line in lines if line.startswith("FAILED")] == printed.splitlines()[:-1]
    assert lines[-1].startswith(printed.splitlines()[-1] + " in "), tests.stdout
