"""Serves the built site on this machine: `python -m sitekit.serve PORT`.

With `--check` it only says whether the port is free, so that nobody waits for a build in vain.
"""

import argparse
import socket
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from sitekit.paths import ROOT

HOST = "127.0.0.1"


class Handler(SimpleHTTPRequestHandler):
    """Serves files without a line of log for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def taken(port: int) -> bool:
    """Whether something listens on the port already."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def main() -> int:
    """Serve until interrupted; return 1 in one line when the port is in use."""
    parser = argparse.ArgumentParser(prog="python -m sitekit.serve")
    parser.add_argument("port", type=int)
    parser.add_argument("--check", action="store_true", help="only say whether the port is free")
    options = parser.parse_args()
    if not 0 < options.port < 65536:
        print(f"PORT={options.port} is not a port: choose 1 to 65535.", file=sys.stderr)
        return 1
    if taken(options.port):
        print(
            f"Port {options.port} is in use: choose another, e.g. make site PORT={options.port + 1}",
            file=sys.stderr,
        )
        return 1
    if options.check:
        return 0
    with ThreadingHTTPServer((HOST, options.port), partial(Handler, directory=ROOT / "site")) as server:
        print(f"Attention Atlas: http://{HOST}:{options.port}/  (stop with Ctrl+C)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
