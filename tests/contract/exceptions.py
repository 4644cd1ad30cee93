"""Checks that a snippet cannot pass, each with its reason.

An entry is run all the same and must fail: when it passes, it is no longer needed and the run goes red.
"""

EXCEPTIONS: dict[str, dict[str, str]] = {}
"""Name of the test -> slug -> reason."""
