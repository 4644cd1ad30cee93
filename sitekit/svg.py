"""SVG files of matplotlib made fit for HTML: no ids shared with other figures, black is the text colour."""

import base64
import io
import re
from xml.etree import ElementTree

from PIL import Image

PHOTOGRAPH = 4096  # pixels; smaller pictures stay exact

_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"


def size(svg: str) -> tuple[float, float]:
    """Return width and height of an SVG element, in its own units: points in those of matplotlib."""
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0]
    return float(width), float(height)


def clean(text: str, name: str) -> str:
    """Return an SVG file of matplotlib as an element for HTML whose ids start with `name`."""
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)  # matplotlib's style element would apply to the whole page
    _rename_ids(root, name)
    for element in root.iter():
        if element.tag == f"{{{_SVG}}}image":
            _shrink(element)
        if style := element.get("style"):
            style = re.sub(r"#000000|\bblack\b", "currentColor", style)
            element.set("style", re.sub(r"(font(?:-family)?:[^;']*)'[^;]*", r"\1sans-serif", style))
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("width", "100%")
    root.set("role", "img")
    root.set("style", "fill: currentColor; stroke-linejoin: round; stroke-linecap: butt")
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))


def _rename_ids(root: ElementTree.Element, name: str) -> None:
    """Drop the ids that nothing refers to, put `name` before the others."""
    used: set[str] = set()
    for element in root.iter():
        for attribute, value in list(element.items()):
            used.update(re.findall(r"url\(#([^)]+)\)", value))
            element.set(attribute, value.replace("url(#", f"url(#{name}-"))
        if target := element.attrib.pop(_HREF, ""):
            used.add(target.removeprefix("#"))
            element.set("href", re.sub("^#", f"#{name}-", target))
    for element in root.iter():
        if (identifier := element.attrib.pop("id", "")) in used:
            element.set("id", f"{name}-{identifier}")


def _shrink(element: ElementTree.Element) -> None:
    """Store a picture as PNG, or as JPEG if it is a photograph: large, opaque and hard to pack."""
    image: Image.Image = Image.open(io.BytesIO(base64.b64decode(element.get("href", "").split(",", 1)[1])))
    opaque = image.mode == "RGB" or image.getchannel("A").getextrema() == (255, 255)
    if opaque:
        red, green, blue = image.convert("RGB").split()
        image = red if red == green == blue else image.convert("RGB")
    kind, data = "png", _encoded(image, "png")
    if opaque and image.width * image.height >= PHOTOGRAPH:
        jpeg = _encoded(image, "jpeg", quality=85)
        if 2 * len(jpeg) < len(data):
            kind, data = "jpeg", jpeg
            element.attrib.pop("style", None)  # which asks for hard pixels
    element.set("href", f"data:image/{kind};base64,{base64.b64encode(data).decode()}")


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, optimize=True, **options)
    return buffer.getvalue()
