"""A disk that cannot be written, read-only, full or somebody else's, is one sentence and no traceback."""

import errno

from mkdocs.exceptions import Abort

NAMES = ("EROFS", "ENOSPC", "EDQUOT", "EACCES", "EPERM", "EFBIG")  # not all systems have all
UNWRITABLE = {getattr(errno, name) for name in NAMES if hasattr(errno, name)}


def on_build_error(error: Exception) -> None:
    """Stop in words.

    Raises:
        Abort: the error is one of the disk.
    """
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        where = error.filename or "the disk"
        raise Abort(f"{where}: {error.strerror}; the build must be able to write to site/ and .sitecache/")
