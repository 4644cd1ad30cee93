"""The files of the pinned version as text, from an installed copy or from the package index."""

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

PINNED = Path(__file__).with_name("requirements.txt")
FOLDER = "transformers/models/"
KINDS = ("modeling_", "configuration_")

Files = Mapping[str, Mapping[str, str]]
"""Text of each file by its name, by the folder of its family."""


def pinned() -> tuple[str, str]:
    """Return name and version of the package that is counted."""
    name, _, version = PINNED.read_text(encoding="utf-8").strip().partition("==")
    return name, version


def read() -> Files:
    """Return the files of all families; what is not installed in this version is downloaded by pip."""
    name, version = pinned()
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        installed = None
    if installed and installed.version == version:
        return of_folder(Path(str(installed.locate_file(""))))
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--requirement", PINNED, "--dest", folder], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        return of_wheel(wheel)


def of_folder(folder: Path) -> Files:
    """Read a folder of installed packages."""
    names = (file.relative_to(folder).as_posix() for file in (folder / FOLDER).glob("*/*.py"))
    return _sorted(names, lambda name: (folder / name).read_text(encoding="utf-8"))


def of_wheel(wheel: Path) -> Files:
    """Read a wheel as it was downloaded."""
    with ZipFile(wheel) as archive:
        return _sorted(archive.namelist(), lambda name: archive.read(name).decode("utf-8"))


def _sorted(paths: Iterable[str], content: Callable[[str], str]) -> Files:
    """Read models and their configurations, of the folders that have a model."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(path for path in paths if path.startswith(FOLDER)):
        family, _, name = path.removeprefix(FOLDER).partition("/")
        if name.startswith(KINDS) and name.endswith(".py") and family != "auto":
            found.setdefault(family, {})[name] = content(path)
    return {family: texts for family, texts in found.items() if any(map(_models, texts))}


def _models(name: str) -> bool:
    return name.startswith(KINDS[0])
