"""The page "In your project": what it prints, run in a made-up project, with the atlas installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mkdocs.utils.yaml import yaml_load

from snippets import __version__
from tests.conftest import ROOT

PAGE = (ROOT / "docs/en/in-your-project.md").read_text(encoding="utf-8")
FENCE = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)
INSTALL, ADD, LOOK_AFTER, DIFF, IMPORT, DOCTESTS = (
    body for kind, _, body in FENCE.findall(PAGE) if kind == "bash"
)
FILES = {title: body for _, title, body in FENCE.findall(PAGE) if title}
(STAMP,) = (body for kind, _, body in FENCE.findall(PAGE) if kind == "text")
WITHOUT_NETWORK = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
INTO_FOLDER = {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_DEPS": "1"}  # pip reads 0 here as: without isolation


class Project:
    """A folder with the page's files, in which its commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages = folder / "packages"
        path = [str(self.packages / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        self.environment = os.environ | WITHOUT_NETWORK | {"PATH": os.pathsep.join(path)}
        self.environment |= {"PYTHONPATH": str(self.packages), "PYTEST_ADDOPTS": "-p no:cacheprovider"}

    def run(self, command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-euc", command],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
        )

    def prints(self, command: str, **environment: str) -> str:
        run = self.run(command, **environment)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """With the package installed and two modules copied, as the page says."""
    project = Project(tmp_path_factory.mktemp("project"))
    clone = project.folder / "attention-atlas"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "snippets", clone / "snippets", ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    project.prints(INSTALL, PIP_TARGET=str(project.packages), **INTO_FOLDER)
    shutil.rmtree(clone)
    project.prints(ADD)
    for name, text in FILES.items():
        file = project.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return project


def configuration(project: Project, name: str) -> Any:
    return yaml_load((project.folder / name).read_text())


def test_the_package_has_every_file_of_the_folder(project: Project) -> None:
    def files(folder: Path) -> set[str]:
        found = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
        return {file.as_posix() for file in found if "__pycache__" not in file.parts}

    assert files(project.packages / "attention_atlas") == files(ROOT / "snippets")
    assert "py.typed" in files(project.packages / "attention_atlas")


def test_the_modules_are_imported_under_the_name_of_the_package(project: Project) -> None:
    assert project.prints(IMPORT).startswith("SEBlock(")
    command = "import attention_atlas.catalogue as c; print(c.CATALOGUE['senet'].module)"
    assert project.prints(f'python -c "{command}"') == "attention_atlas.attention_domain.channel.senet\n"


def test_the_command_names_itself(project: Project) -> None:
    assert "python -m attention_atlas" in project.prints("attention-atlas --help")
    assert project.run("attention-atlas run zzz").stderr.endswith("; `python -m attention_atlas` lists all\n")


def test_copies_are_looked_after(project: Project) -> None:
    with (project.folder / "src/blocks/senet.py").open() as file:
        line = file.readline()
    assert re.sub("[0-9a-f]{16}", "", line) == re.sub("[0-9a-f]{16}", "", STAMP)
    assert __version__ in line
    cbam, senet = "src/blocks/cbam.py: up to date", "src/blocks/senet.py: up to date"
    at = f" (atlas {__version__})"
    assert project.prints(LOOK_AFTER).splitlines() == [cbam + at, senet + at, cbam, senet]
    assert project.prints(DIFF).startswith("--- senet.py\n+++ cbam.py\n")


def test_the_workflow_passes_and_finds_a_broken_copy(project: Project) -> None:
    (job,) = configuration(project, ".github/workflows/blocks.yml")["jobs"].values()
    *install, doctests = [step["run"] for step in job["steps"] if "run" in step]
    for command in install:
        project.prints(command)  # all is there already
    assert f"{doctests}\n" == DOCTESTS
    assert re.search(r"\d+ passed", project.prints(doctests))
    file = project.folder / "src/blocks/senet.py"
    sound = file.read_text()
    file.write_text(sound.replace("nn.Sigmoid()", "nn.Tanh()"))
    broken = project.run(doctests)
    file.write_text(sound)
    assert broken.returncode == 1
    assert "SEBlock" in broken.stdout


def test_the_hook_runs_for_the_copies(project: Project) -> None:
    (repository,) = configuration(project, ".pre-commit-config.yaml")["repos"]
    (hook,) = repository["hooks"]
    assert re.search(hook["files"], "src/blocks/senet.py")
    assert (repository["repo"], hook["language"], hook["pass_filenames"]) == ("local", "system", False)
    assert re.search(r"\d+ passed", project.prints(hook["entry"]))
