"""Builds one language again and again, a child of sitekit.live: `python -m sitekit.builder en FOLDER URL`.

Each line of input lists the files that have changed, as JSON; each is answered with the folder of the site,
or with an empty line if a mistake has stopped its build.
"""

import importlib
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from sitekit.errors import explain


def main(language: str, folder: str, url: str) -> int:
    """Build until the input ends; say in one sentence what is wrong, and try it again at the next change."""
    try:
        importlib.import_module("sitekit.markdown.extension")  # with all parts, and the catalogue
        from sitekit.rebuild import Rebuild
    except Exception as error:
        print(explain(error), file=sys.stderr)
        return 1
    site = Rebuild(language, Path(folder), url)
    for line in sys.stdin:
        with redirect_stdout(sys.stderr):
            for mistake in site.update(set(map(Path, json.loads(line)))):
                print(mistake)
        print(site.folder or "", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
