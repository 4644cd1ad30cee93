"""Speed and memory of the snippets beside the public implementations a reader would otherwise take."""

import sys

# transformers loads torchvision where it is installed; its wheel does not load beside the CPU build of torch
sys.modules["torchvision"] = None  # type: ignore[assignment]
