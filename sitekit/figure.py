"""The figures, drawn by running figures/PATH.py: matplotlib to inline SVG."""

import importlib
import io
import random
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from sitekit.errors import BuildError
from sitekit.svg import clean

LIMIT = 120_000  # bytes of one figure


def make(path: str, say: Callable[[str, str], str]) -> str:
    """Return the figure of figures/PATH.py as SVG; its ids start with the last name of the path.

    Raises:
        BuildError: the figure is too large.
    """
    torch.manual_seed(0)  # whatever was drawn before
    np.random.seed(0)
    random.seed(0)
    module = importlib.import_module("figures." + path.replace("/", "."))
    with matplotlib.rc_context():
        return to_svg(module.figure(say), path.removesuffix("/index").rpartition("/")[2])


def to_svg(figure: Figure, name: str) -> str:
    """Return `figure` as an SVG element for HTML, the same text for the same figure.

    Args:
        figure: what to draw; black stands for the text colour of the page.
        name: prefix of the ids, unique among the figures of a page.

    Raises:
        BuildError: the SVG is larger than LIMIT.
    """
    buffer = io.StringIO()
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": name, "image.composite_image": False}
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = clean(buffer.getvalue(), name)
    if len(svg.encode()) > LIMIT:
        raise BuildError(f"figure {name} has {len(svg.encode()):,} bytes, at most {LIMIT:,} are allowed")
    return svg
