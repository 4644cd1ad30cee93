"""Copies of modules in a project: `python -m snippets add`, `status` and `update`."""

import runpy
from pathlib import Path

import pytest

from snippets import __version__, copies
from snippets.__main__ import main
from snippets.catalogue import CATALOGUE, Mechanism
from snippets.lookup import code, source


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a project that the command runs in."""
    monkeypatch.chdir(tmp_path)
    return Path("src/blocks")


def older(row: Mechanism) -> str:
    return code(row) + "# as it was\n"


@pytest.fixture
def behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of SENet that was made before the module changed."""
    with monkeypatch.context() as before:
        before.setattr(copies, "code", older)
        assert main(["add", "senet", "--to", str(folder)]) == 0
    return folder / "senet.py"


def test_a_copy_is_the_module_below_a_line_that_names_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["add", "SE block", "cbam", "senet", "--to", str(folder)]) == 0
    files = capsys.readouterr().out.splitlines()
    assert files == ["src/blocks/senet.py", "src/blocks/cbam.py"]
    first, rest = Path(files[0]).read_text("utf-8").split("\n", 1)
    assert first.startswith(f"# attention-atlas {__version__}, attention_domain/channel/senet.py, sha256 ")
    assert rest == source(CATALOGUE["senet"]).read_text("utf-8")
    assert runpy.run_path(files[0])["__doc__"].startswith("SENet: ")


def test_status_tells_edited_copies_from_those_behind(
    behind: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["add", "eca", "cbam", "--to", str(behind.parent)])
    edited = behind.with_name("eca.py")
    edited.write_text(edited.read_text("utf-8").replace("import torch", "import torch  # mine", 1), "utf-8")
    behind.with_name("ours.py").write_text("# ours\n")
    capsys.readouterr()
    assert main(["status"]) == 0
    version = f"(atlas {__version__})"
    assert capsys.readouterr().out.splitlines() == [
        f"src/blocks/cbam.py: up to date {version}",
        f"src/blocks/eca.py: edited {version}",
        f"src/blocks/senet.py: behind {version}",
    ]


def test_line_ends_of_another_system_are_no_edit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["add", "senet", "--to", str(folder)])
    file = folder / "senet.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    main(["status"])
    assert "up to date" in capsys.readouterr().out


def test_update_shows_the_difference_and_replaces_what_was_not_edited(
    behind: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["update", str(behind.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "-# as it was" in lines
    assert lines[-1] == f"{behind}: replaced"
    assert behind.read_text("utf-8").endswith(code(CATALOGUE["senet"]))
    assert main(["update"]) == 0
    assert capsys.readouterr().out == f"{behind}: up to date\n"


def test_update_never_replaces_what_was_edited(behind: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = behind.read_text("utf-8") + "# mine\n"
    behind.write_text(mine, "utf-8")
    assert main(["status"]) == 0
    assert f"{behind}: edited and behind" in capsys.readouterr().out
    assert main(["update"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "-# mine" in lines
    assert lines[-1] == f"{behind}: edited, so it stays as it is"
    assert behind.read_text("utf-8") == mine


def test_a_module_that_the_atlas_has_no_longer_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["add", "senet", "--to", str(folder)])
    monkeypatch.setattr(copies, "CATALOGUE", {})
    capsys.readouterr()
    main(["update"])
    assert capsys.readouterr().out == "src/blocks/senet.py: no longer in the atlas\n"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that ends with status 2 says."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    answer = capsys.readouterr()
    assert not answer.out
    return answer.err


def test_an_unknown_name_gets_the_nearest_and_copies_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "add", "cbam", "sennet", "--to", str(folder))
    assert said == "unknown mechanism 'sennet'; did you mean 'senet'?\n"
    assert not folder.exists()


def test_a_file_that_is_there_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir(parents=True)
    (folder / "senet.py").write_text("mine")
    said = refused(capsys, "add", "cbam", "senet", "--to", str(folder))
    assert said == "nothing was copied, as src/blocks/senet.py is there; `update` renews copies\n"
    assert [file.read_text() for file in folder.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_written_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.parent.write_text("a file, not a folder")
    assert refused(capsys, "add", "senet", "--to", str(folder)) == "src/blocks: Not a directory\n"


@pytest.mark.parametrize("command", ["status", "update"])
def test_where_there_are_no_copies_the_way_to_one_is_said(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir(parents=True)
    (folder / "ours.py").write_text("")
    said = refused(capsys, command, str(folder))
    assert said == "no copies in src/blocks; `add NAME --to src/blocks` makes one\n"
