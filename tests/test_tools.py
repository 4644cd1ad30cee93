"""The tools around the code: pinned versions, the server's complaints."""

import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from mkdocs.utils.yaml import yaml_load

from snippets import __version__
from tests.conftest import ROOT

PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sitekit.serve", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_commands_without_make_are_those_that_ci_runs() -> None:
    workflow = yaml_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    runs = "".join(step.get("run", "") + "\n" for step in workflow["jobs"]["windows"]["steps"])
    run = [line.removesuffix(" &") for line in runs.splitlines() if not line.startswith("curl")]
    for readme in ("README.md", "README.zh.md"):
        text = (ROOT / readme).read_text(encoding="utf-8")
        commands = "".join(re.findall(r"^```powershell\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
        assert commands.splitlines() == [line for line in run if line], readme


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.stem)
def test_actions_are_pinned_by_commit(workflow: Path) -> None:
    actions = re.findall(r"uses: (.*)", workflow.read_text(encoding="utf-8"))
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action), action


def test_version_and_date_are_the_same_everywhere() -> None:
    citation = yaml_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(
        r"^## \[(.*)\] - (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert newest
    assert newest[1] == citation["version"] == __version__
    assert newest[2] == str(citation["date-released"])


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
    assert folders == {"snippets", "sitekit", "census", "tests", "docs"}


def test_pre_commit_has_the_pinned_version() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.search(r"ruff-pre-commit\n +rev: v(\S+)", text)[1] == PINS["ruff"]


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = serve("--check", str(port))
    assert result.returncode == 1
    assert result.stderr == f"Port {port}: Address already in use. Choose another, e.g. PORT=8001.\n"


def test_a_number_that_is_no_port_is_one_line() -> None:
    result = serve("--check", "70000")
    assert result.returncode == 1
    assert result.stderr == "Port 70000: ports go from 1 to 65535. Choose another, e.g. PORT=8001.\n"
