"""Speed of the site and of its tests beside another checkout: `python -m benchmarks.house PATH`.

Both are copied into a temporary folder and measured there in turns, so neither is changed. A checkout without
a `.venv` of its own uses the Python that runs this.
"""

import argparse
import contextlib
import http.client
import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, CDPSession, sync_playwright
from tqdm import tqdm

from benchmarks.turns import Ratio

ROOT = Path(__file__).parents[1]
PAGE, SNIPPET = "attention-domain/channel/senet", "snippets/attention_domain/channel/senet.py"
SHOWN = ("weight-assignment/self-attention/transformer", PAGE)
LEFT_BEHIND = (".git", ".venv", "__pycache__", "node_modules")
CACHES = (".sitecache", "site", ".cache", ".pytest_cache", ".mypy_cache", ".ruff_cache")
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")
SLOWED, WIDTH = 4, 412  # times, pixels
PATIENCE = 1800  # seconds
NUMBERS = itertools.count(576, 64)  # of channels, too: none that the table of costs has anyway
Measure = Callable[["House"], dict[str, float]]


@dataclass
class House:
    """A copy of a checkout, and the address where it is served, if it is."""

    root: Path
    address: str = ""

    @classmethod
    def copy(cls, checkout: Path, to: Path) -> "House":
        """Copy a checkout with its caches; its environment is used where it lies."""
        shutil.copytree(checkout, to, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        own = checkout.resolve() / ".venv"
        (to / ".venv").symlink_to(own if own.exists() else sys.prefix)
        return cls(to)

    def command(self, *arguments: str) -> list[str]:
        return [".venv/bin/python", *arguments]

    def run(self, *command: str) -> float:
        """Run a command to its end; return the seconds it took.

        Raises:
            SystemExit: it failed.
        """
        start = time.perf_counter()
        done = subprocess.run(command, cwd=self.root, env=quiet(), capture_output=True, text=True)
        if done.returncode:
            sys.exit(
                f"{' '.join(command)} in {self.root.name} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
            )
        return time.perf_counter() - start

    def build(self) -> float:
        return self.run(*self.command("-m", "mkdocs", "build", "--strict", "--quiet"))

    def mechanisms(self) -> int:
        script = "from snippets.catalogue import CATALOGUE; print(len(CATALOGUE))"
        return int(subprocess.check_output(self.command("-c", script), cwd=self.root))

    def empty(self) -> None:
        """Forget all results."""
        for name in CACHES:
            shutil.rmtree(self.root / name, ignore_errors=True)


def quiet() -> dict[str, str]:
    return os.environ | {"NO_MKDOCS_2_WARNING": "1"}


@contextlib.contextmanager
def live(house: House, language: str, port: int) -> Iterator[None]:
    """Serve a copy the way it serves those who write, and wait until its first site stands."""
    own = house.root / "sitekit" / "live.py"
    old = ("mkdocs", "serve", "--strict", "--dev-addr", f"127.0.0.1:{port}")
    command = house.command("-m", *(("sitekit.live", language, str(port)) if own.exists() else old))
    with (house.root / "live.log").open("w") as log:
        server = subprocess.Popen(command, cwd=house.root, env=quiet(), stdout=log, stderr=log)
        try:
            house.address = f"http://127.0.0.1:{port}/{'' if language == 'en' else f'{language}/'}"
            wait_for(house, PAGE, "</html>")
            yield
        finally:
            server.terminate()
            server.wait()


def wait_for(house: House, page: str, text: str) -> None:
    """Ask for a page until it holds a text."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = urllib.request.urlopen(f"{house.address}{page}/", timeout=PATIENCE)
            if text in answer.read().decode():
                return
        time.sleep(0.02)
    sys.exit(f"{house.root.name} does not show {text!r}, see the end of its log:\n{log(house)}")


def log(house: House) -> str:
    return (house.root / "live.log").read_text()[-3000:]


@dataclass(frozen=True)
class Save:
    """A change of a file, and what the page then shows; `{}` is a number, another each time."""

    name: str
    file: str
    old: str  # a regular expression
    new: str
    shown: str
    rest: float  # seconds that a server may still be busy

    def measure(self, house: House) -> dict[str, float]:
        """Return the seconds until the page shows it."""
        number = next(NUMBERS)
        file = house.root / self.file
        text, count = re.subn(self.old, self.new.format(number), file.read_text(encoding="utf-8"), count=1)
        assert count, f"{self.file} has no {self.old}"
        start = time.perf_counter()
        file.write_text(text, encoding="utf-8")
        wait_for(house, PAGE, self.shown.format(number))
        taken = time.perf_counter() - start
        time.sleep(self.rest)
        return {self.name: taken}


def saves(language: str) -> list[Save]:
    """A page, the code of a snippet, and what running it yields."""
    page = f"docs/{language}/{PAGE}.md"
    return [
        Save("save a page", page, r"\Z", "\nmark{}\n", "mark{}", rest=2),
        Save("save a snippet: its code", SNIPPET, r"\Z", "\nMARK = 'mark{}'\n", "mark{}", rest=15),
        Save("save a snippet: its cost", SNIPPET, r"C: int = \d+", "C: int = {}", "C = {}", rest=15),
    ]


def warm(house: House) -> dict[str, float]:
    return {"warm build, both languages": house.build()}


def cold(house: House) -> dict[str, float]:
    house.empty()
    return {"cold build, per mechanism": house.build() / house.mechanisms()}


def tests(house: House) -> dict[str, float]:
    """The tests with the packages there, whatever the dates of the files say."""
    house.empty()
    packages = [f"--assume-old=.venv/{name}" for name in (".python", ".site", ".test")]
    return {"make test, cold, per mechanism": house.run("make", *packages, "test") / house.mechanisms()}


def load(browser: Browser, house: House) -> dict[str, float]:
    """Open pages as a slow phone does; return the seconds of the main thread, and until the first paint."""
    figures = {}
    for page in SHOWN:
        context = browser.new_context(viewport={"width": WIDTH, "height": 915})
        tab = context.new_page()
        protocol = context.new_cdp_session(tab)
        protocol.send("Performance.enable", {"timeDomain": "threadTicks"})
        protocol.send("Emulation.setCPUThrottlingRate", {"rate": SLOWED})
        answer = tab.goto(f"{house.address}{page}/", wait_until="load", timeout=PATIENCE * 1e3)
        if answer is None or not answer.ok:
            sys.exit(f"{house.root.name} has no page {page}")
        before, now = -1.0, work(protocol)
        while now > before + 0.02:  # until it rests
            tab.wait_for_timeout(1000)
            before, now = now, work(protocol)
        name = page.rpartition("/")[2]
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        figures[f"{name}: main thread"] = now
        figures[f"{name}: first paint"] = tab.evaluate(paint) / 1e3
        context.close()
    return figures


def work(protocol: CDPSession) -> float:
    """Return the seconds that the main thread has worked."""
    metrics = protocol.send("Performance.getMetrics")["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


class Handler(SimpleHTTPRequestHandler):
    """Serves files as they are, without a line of log for each."""

    def log_message(self, format: str, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(house: House) -> Iterator[None]:
    """Serve the built site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=house.root / "site")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        house.address = f"http://127.0.0.1:{server.server_port}/"
        yield
        server.shutdown()


def alternate(measure: Measure, houses: list[House], rounds: int, report: Callable[[], object]) -> None:
    """Measure ours, theirs, theirs, ours and so on; print what came of it."""
    seconds: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for number in range(rounds):
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            for name, value in measure(houses[index]).items():
                seconds[name][index].append(value)
            report()
    for name, (ours, theirs) in seconds.items():
        tqdm.write(f"| {name} | {median(ours):.2f} | {median(theirs):.2f} | {Ratio.of(ours, theirs)} |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.house", description=__doc__)
    parser.add_argument("other", type=Path, help="checkout of another commit")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind (default 5)")
    parser.add_argument("--language", default="en", help="which is written (default en)")
    parser.add_argument("--port", type=int, default=8700, help="this and the next must be free")
    parser.add_argument("--cold", action="store_true", help="also build without results, minutes each")
    parser.add_argument(
        "--test", action="store_true", help="also run all tests without results, minutes each"
    )
    options = parser.parse_args()
    if not (options.other / "mkdocs.base.yml").exists():
        parser.error(f"{options.other} is no checkout of the atlas")
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    with TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        houses = [House.copy(ROOT, Path(folder, "ours")), House.copy(options.other, Path(folder, "theirs"))]
        kinds = 5 + options.cold + options.test
        bar = stack.enter_context(tqdm(total=2 * options.rounds * kinds, unit="measurement"))
        tqdm.write("| what | ours, s | theirs, s | ours / theirs (quartiles) |\n|---|---|---|---|")
        turns = partial(alternate, houses=houses, rounds=options.rounds, report=bar.update)
        for house in houses:
            house.build()
        turns(warm)
        with sync_playwright() as playwright, served(houses[0]), served(houses[1]):
            browser = playwright.chromium.launch(executable_path=chromium)
            for house in houses:
                load(browser, house)  # a browser's first page is slow
            turns(partial(load, browser))
        with contextlib.ExitStack() as servers:
            for index, house in enumerate(houses):
                servers.enter_context(live(house, options.language, options.port + index))
            for change in saves(options.language):
                turns(change.measure)
        for wanted, measure in ((options.cold, cold), (options.test, tests)):
            if wanted:
                turns(measure)


if __name__ == "__main__":
    main()
