"""Serves one language while you write: `python -m sitekit.live en 8000`.

sitekit.builder builds in a process of its own. It keeps the site in memory, so that a changed page is the
work of one page; when code changes that it has imported, it starts anew. What running changed code yields is
made meanwhile by sitekit.maker; a new result is a change like any other, and until then pages show the old
one. Browsers ask for /.live, which is answered when there is something new.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from functools import partial
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

from sitekit import entries, serve
from sitekit.language import LANGUAGES
from sitekit.paths import ROOT

WATCHED = ("snippets", "figures", "sitekit", "overrides", "styles")
IMPORTED = (ROOT / "sitekit", ROOT / "snippets" / "catalogue.py")
LOOK, SETTLE = 0.15, 0.05  # seconds between looks at the files, and until a change counts as complete
Seen = dict[Path, tuple[int, int]]
LONGEST = 30.0  # seconds that a browser waits before it asks again


class Site:
    """The folder of the newest site, and when it became that."""

    def __init__(self) -> None:
        self.folder = ""
        self.since = 0.0
        self._changed = threading.Condition()

    def show(self, folder: str) -> None:
        """Serve this folder; let all browsers know."""
        with self._changed:
            self.folder, self.since = folder, time.time()
            self._changed.notify_all()

    def newer(self, than: float) -> bool:
        """Wait a while for something newer than a point in time; say whether there is."""
        with self._changed:
            return self._changed.wait_for(lambda: self.since > than, LONGEST)


class Handler(serve.Handler):
    """Serves the newest site, nothing of it from the memory of a browser."""

    def __init__(self, site: Site, *arguments: object) -> None:
        self.site = site
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer a browser that waits, or serve a file."""
        address = urlsplit(self.path)
        if address.path == "/.live":
            loaded = float(parse_qs(address.query)["since"][0]) / 1000
            self.send_response(HTTPStatus.OK if self.site.newer(loaded) else HTTPStatus.NO_CONTENT)
            self.end_headers()
        elif self.site.newer(0):
            self.directory = self.site.folder
            super().do_GET()
        else:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "There is no site yet")

    def end_headers(self) -> None:
        """Let browsers ask each time."""
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()


class Builder:
    """sitekit.builder in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "sitekit.builder", *arguments]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl+C is for this process, which ends that one
        )

    def build(self, changed: set[Path]) -> str:
        """Return the folder of the site after these files have changed, empty if it was not built."""
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):  # ended with a mistake in what it imports
            print(json.dumps(sorted(map(str, changed))), file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def fits(self, changed: set[Path]) -> bool:
        """Whether it still runs and has imported none of these files."""
        imported = any(file.is_relative_to(path) for file in changed for path in IMPORTED)
        return not imported and self._process.poll() is None

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.wait()


class Maker:
    """sitekit.maker in a process of its own, one at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make what is stale now; what was in the making would be of older code."""
        self.end()
        command = [sys.executable, "-m", "sitekit.maker"]
        self._process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)

    def end(self) -> None:
        """Stop it."""
        if self._process:
            self._process.kill()
            self._process.wait()


def files(language: str) -> Seen:
    """Return time and size of every file that a site is made from."""
    folders = [ROOT / name for name in WATCHED] + [ROOT / "docs" / language]
    found = [*ROOT.glob("mkdocs*.yml"), *ROOT.glob("docs/*.*"), *entries.files()]
    for folder in folders:
        for path, _, names in os.walk(folder):
            found += [Path(path, name) for name in names if not path.endswith("__pycache__")]
    seen = {}
    for file in found:
        try:
            stat = file.stat()
        except FileNotFoundError:  # an editor puts another in its place
            continue
        seen[file] = stat.st_mtime_ns, stat.st_size
    return seen


def watch(language: str, site: Site, folder: Path, url: str) -> None:
    """Build at each change, for ever."""
    arguments = language, str(folder), url
    builder, maker, seen = Builder(*arguments), Maker(), files(language)
    changed: set[Path] = set()
    try:
        while True:
            if not builder.fits(changed):
                builder.end()
                builder = Builder(*arguments)
            if built := builder.build(changed):
                site.show(built)
                if not changed.issubset(entries.files()):
                    maker.start()
            seen, changed = change(language, seen)
    finally:
        builder.end()
        maker.end()


def change(language: str, seen: Seen) -> tuple[Seen, set[Path]]:
    """Wait until files are no longer as they were seen; return how they are now, and those that differ."""
    now = seen
    while now == seen:
        time.sleep(LOOK)
        now = files(language)
    time.sleep(SETTLE)
    now = files(language)
    return now, {file for file, _ in seen.items() ^ now.items()}


def main() -> None:
    """Serve and build until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m sitekit.live")
    parser.add_argument("language")
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    if options.language not in LANGUAGES:
        sys.exit(f"LANGUAGE={options.language} is not one of {', '.join(LANGUAGES)}")
    site = Site()
    with TemporaryDirectory() as folder, serve.server(options.port, partial(Handler, site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://{serve.HOST}:{server.server_port}/"
        start = url if options.language == next(iter(LANGUAGES)) else f"{url}{options.language}/"
        print(f"Attention Atlas: {start}  (stop with Ctrl+C)", flush=True)
        try:
            watch(options.language, site, Path(folder), url)
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
