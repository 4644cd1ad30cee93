"""Makes all that is stale, a child of sitekit.live: `python -m sitekit.maker`.

The results go to the store, where sitekit.builder finds them.
"""

import sys

from sitekit import store
from sitekit.errors import explain


def main() -> None:
    """Make what is soonest there first; say in one sentence each what is wrong."""
    try:
        _, stale = store.look(store.current())
        store.make(stale, sorted(stale, key=store.took), tell=lambda mistake: print(mistake, file=sys.stderr))
    except Exception as error:
        sys.exit(explain(error))


if __name__ == "__main__":
    main()
