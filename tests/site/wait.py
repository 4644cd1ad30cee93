"""Waiting for what an act brings about: in a browser it may come after the act."""

import time
from collections.abc import Callable

TIMEOUT = 20_000  # ms; a busy machine is no fault of the site


def wait_for(expected: object, read: Callable[[], object]) -> None:
    """Read again and again until it is what is expected."""
    last = time.monotonic() + TIMEOUT / 1000
    while (found := read()) != expected and time.monotonic() < last:
        time.sleep(0.02)
    assert found == expected
