"""What a reader can move: runs explore() of figures/PATH.py and packs what it returns into one file.

The file is compressed by gzip. Its first line is the panel as JSON, in which a tensor is its shape and its
place behind that line: one float32 for each (H, W), the value of a step, then one byte for each number, in
steps; zero is at 0, or at 128 if some are negative. overrides/assets/javascripts/panels/read.js reads it.
"""

import base64
import gzip
import importlib
import io
import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from figures.panels import Field, Photograph
from sitekit.errors import BuildError

LIMIT = 150_000  # bytes of one file


def make(path: str, say: Callable[[str, str], str]) -> dict[str, str]:
    """Return the kind of the panel beside figures/PATH.py, and its file in base 64.

    Raises:
        BuildError: the file is too large.
    """
    torch.manual_seed(0)  # whatever ran before
    panel = importlib.import_module("figures." + path.replace("/", ".")).explore(say)
    packed = pack(panel)
    if len(packed) > LIMIT:
        raise BuildError(f"panel {path} has {len(packed):,} bytes, at most {LIMIT:,} are allowed")
    return {"kind": type(panel).__name__.lower(), "file": base64.b64encode(packed).decode()}


def pack(panel: object) -> bytes:
    """Return the file of a panel, the same bytes for the same panel."""
    data = bytearray()
    head = json.dumps(_plain(panel, data), ensure_ascii=False, separators=(",", ":"))
    return gzip.compress(head.encode() + b"\n" + data, mtime=0)


def _plain(value: Any, data: bytearray) -> Any:
    """Return a value for JSON; numbers of tensors go to `data`."""
    if isinstance(value, Photograph):
        return _photograph(value.pixels)
    if isinstance(value, Tensor):
        return _stored(value, data)
    if is_dataclass(value):
        plain = {field.name: _plain(getattr(value, field.name), data) for field in fields(value)}
        return plain | {"colours": _colours(value.colours)} if isinstance(value, Field) else plain
    if isinstance(value, tuple):
        return [_plain(part, data) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _stored(values: Tensor, data: bytearray) -> dict[str, Any]:
    at, signed = len(data), bool((values < 0).any())
    steps, zero = (127, 128) if signed else (255, 0)
    step = values.abs().amax(dim=(-2, -1), keepdim=True).float() / steps
    counts = (values / step.where(step > 0, 1)).round() + zero
    data += step.numpy().astype("<f4").tobytes() + counts.numpy().astype(np.uint8).tobytes()
    return {"shape": list(values.shape), "at": at, "zero": zero}


def _colours(name: str) -> str:
    """Return the 256 colours of a colour map, six figures each."""
    shades = 255 * matplotlib.colormaps[name](np.arange(256))[:, :3]
    return shades.round().astype(np.uint8).tobytes().hex()


def _photograph(pixels: Tensor) -> str:
    buffer = io.BytesIO()
    image = Image.fromarray((pixels.movedim(0, -1) * 255).round().byte().numpy())
    image.save(buffer, "jpeg", quality=85, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
