"""Colour and sign of each value of the axes: there, legible on every ground, in both schemes, told apart."""

import re
from collections.abc import Mapping

import pytest

from sitekit.hooks.axes import SIGNS, VALUES
from sitekit.pieces.refer import axis
from snippets.catalogue import Domain, Weights
from tests.conftest import ROOT

GROUNDS = ("paper", "surface")
LIMIT = 4.5  # of WCAG for text, though only signs and edges have these colours


def schemes() -> dict[str, Mapping[str, str]]:
    """The colours of palette.css by name, in the light and the dark scheme."""
    text = (ROOT / "styles" / "palette.css").read_text(encoding="utf-8")
    light, dark = text.split("@media screen", 1)
    found = re.compile(r"--atlas-([\w-]+): (#\w{6})")
    return {"light": dict(found.findall(light)), "dark": dict(found.findall(dark))}


def luminance(colour: str) -> float:
    values = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_of_the_axes_are_legible(scheme: str) -> None:
    colours = schemes()[scheme]
    for value in VALUES:
        for ground in GROUNDS:
            found = contrast(colours[axis(value).replace("_", "-")], colours[ground])
            assert found >= LIMIT, f"{value} on {ground}: {found:.2f}"


def test_each_value_has_a_colour_and_a_sign_of_its_own() -> None:
    text = (ROOT / "styles" / "axes.css").read_text(encoding="utf-8")
    rule = re.compile(r'\[data-axis="(\w+)"\], \.md-status--(\w+) \{\s*--axis: (.+?);\s*--sign: (.+?);\s*\}')
    rules = {name: (status, colour, sign) for name, status, colour, sign in rule.findall(text)}
    assert set(rules) == {axis(value) for value in VALUES}
    assert all(name == status for name, (status, _, _) in rules.items())
    for kind in (1, 2):
        assert len({found[kind] for found in rules.values()}) == len(rules)


def test_the_side_bar_shows_the_axis_that_the_folder_does_not_tell() -> None:
    assert SIGNS["attention-domain/channel/index.md"] == Domain.CHANNEL
    assert SIGNS["attention-domain/channel/senet.md"] == Weights.SOFT
    assert SIGNS["weight-assignment/self-attention/transformer.md"] == Domain.SEQUENCE
    assert "foundations/scores.md" not in SIGNS
