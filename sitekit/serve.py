"""Serves the built site on this machine: `python -m sitekit.serve PORT`.

With `--check` it only says whether the port is free, so that nobody waits for a build in vain.
"""

import argparse
import os
import sys
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


def main() -> int:
    """Serve until interrupted; return 1 in one line when the port cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m sitekit.serve")
    parser.add_argument("port", type=int)
    parser.add_argument("--check", action="store_true", help="only say whether the port is free")
    options = parser.parse_args()
    try:
        server = Server((HOST, options.port), partial(Handler, directory=ROOT / "site"))
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "ports go from 1 to 65535"
        print(f"Port {options.port}: {reason}. Choose another, e.g. PORT=8001.", file=sys.stderr)
        return 1
    with server:
        if options.check:
            return 0
        print(f"Attention Atlas: http://{HOST}:{server.server_port}/  (stop with Ctrl+C)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
