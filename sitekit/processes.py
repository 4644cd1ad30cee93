"""How processes of their own are started.

A fork need not import torch again; but macOS ends those that use its libraries, and Windows has none.
"""

import sys
from multiprocessing import get_context

if sys.platform == "linux":
    CONTEXT = get_context("fork")
else:
    CONTEXT = get_context("spawn")
