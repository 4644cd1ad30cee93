"""Run as `python -I -W error alone.py`: runs each file named on standard input as a program of its own.

Torch is imported once, each program is a fork: the import takes longer than most programs. Answers one line
of JSON per file: exit status, output, errors.
"""

import json
import os
import runpy
import sys
import tempfile
import traceback

import torch  # noqa: F401  # so that forks have it


def run(file: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the program, run from an empty folder."""
    with (
        tempfile.TemporaryDirectory() as empty,
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as errors,
    ):
        if (process := os.fork()) == 0:
            os.chdir(empty)
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            status = 1
            try:
                runpy.run_path(file, run_name="__main__")
                status = 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        output.seek(0)
        errors.seek(0)
        return status, output.read(), errors.read()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(line.strip())), flush=True)
