"""The tools around the code: pinned versions, the server's complaints."""

import re
import socket
import subprocess
import sys
import tomllib

from tests.conftest import ROOT

PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sitekit.serve", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {name.split("[")[0] for group in groups for name in group}
    assert names <= {name.lower() for name in PINS}
    assert "+" not in PINS["torch"]


def test_doctests_of_the_snippets_are_part_of_the_run() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "--doctest-modules" in options["addopts"].split()
    folders = {path.partition("/")[0] for path in options["testpaths"]}
    assert folders == {"snippets", "sitekit", "tests", "docs"}


def test_pre_commit_has_the_pinned_versions() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.search(r"ruff-pre-commit\n +rev: v(\S+)", text)[1] == PINS["ruff"]
    assert re.search(r"mirrors-mypy\n +rev: v(\S+)", text)[1] == PINS["mypy"]
    assert f"torch=={PINS['torch']}" in text


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = serve("--check", str(port))
    assert result.returncode == 1
    assert result.stderr == f"Port {port} is in use: choose another, e.g. make site PORT={port + 1}\n"


def test_a_number_that_is_no_port_is_one_line() -> None:
    result = serve("--check", "70000")
    assert result.returncode == 1
    assert result.stderr.startswith("PORT=70000 is not a port")
