"""Serves the built site on this machine: `python -m sitekit.serve PORT`.

With `--check` it only says whether the port is free, so that nobody waits for a build in vain.
"""

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from sitekit.paths import ROOT

HOST = "127.0.0.1"


class Handler(SimpleHTTPRequestHandler):
    """Serves files without a line of log for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Has its port alone: Windows would let two programs share one."""

    allow_reuse_address = os.name != "nt"


def server(port: int, handler: Callable[..., Handler]) -> Server:
    """Return a server; end the program with status 1 in one line if the port cannot be used."""
    try:
        return Server((HOST, port), handler)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "ports go from 1 to 65535"
        sys.exit(f"Port {port}: {reason}. Choose another, e.g. PORT=8001.")


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m sitekit.serve")
    parser.add_argument("port", type=int)
    parser.add_argument("--check", action="store_true", help="only say whether the port is free")
    options = parser.parse_args()
    with server(options.port, partial(Handler, directory=ROOT / "site")) as site:
        if options.check:
            return
        print(f"Attention Atlas: http://{HOST}:{site.server_port}/  (stop with Ctrl+C)", flush=True)
        try:
            site.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
