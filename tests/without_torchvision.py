"""Hides torchvision from what is imported later.

Its wheel does not load beside the CPU build of torch, and transformers loads it where it is installed.
"""

import sys

sys.modules["torchvision"] = None  # type: ignore[assignment]
