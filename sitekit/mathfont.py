"""The font of the formulas: a WOFF2 subset of STIX Two Math, cut from the copy in the ziamath wheel.

Browsers need a font with a MATH table for stretched brackets, roots and scripts, and neither Linux nor
Android has one. STIX Two Math is under the SIL Open Font License 1.1, which allows this subset; the
copyright and licence notices stay in its name table, and the family is renamed because it is changed.
"""

from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

from sitekit.webfont import cut, packed

FAMILY = "Attention Atlas Math"
NARROW = {"√": 1.0} | dict.fromkeys("()[]{}⌈⌉⌊⌋⟨⟩", 1.2)  # widest size, relative to the smallest
CHARACTERS = (
    (0x20, 0x7E),  # Latin letters, digits, punctuation
    (0xA0, 0xFF),  # accents, plus-minus, times, middle dot
    (0x131, 0x131),  # dotless i
    (0x237, 0x237),  # dotless j
    (0x2C6, 0x2DD),  # spacing accents: hat, check, breve, tilde
    (0x300, 0x30C),  # combining accents
    (0x338, 0x338),  # stroke of "not equal"
    (0x391, 0x3F6),  # Greek
    (0x2010, 0x2027),  # dashes, double bars, ellipsis
    (0x2032, 0x2034),  # primes
    (0x2061, 0x2064),  # invisible operators
    (0x20D7, 0x20D7),  # vector arrow
    (0x2102, 0x211D),  # letter-like symbols: the blackboard R, the script L
    (0x2190, 0x2199),  # arrows
    (0x21A6, 0x21A6),  # maps to
    (0x21D0, 0x21D5),  # double arrows
    (0x2200, 0x222D),  # for all ... integrals: element of, sum, root
    (0x223C, 0x2248),  # similar, approximately
    (0x2260, 0x226B),  # not equal, less, greater
    (0x2282, 0x2287),  # subsets
    (0x2295, 0x2299),  # operators in circles
    (0x22A4, 0x22A5),  # top (transpose), bottom
    (0x22C5, 0x22C6),  # dot, star
    (0x22EE, 0x22F1),  # dots
    (0x2308, 0x230B),  # ceiling, floor
    (0x23DE, 0x23DF),  # braces above and below
    (0x27E8, 0x27E9),  # angle brackets
    (0x2A7D, 0x2A7E),  # slanted less or equal
    (0x1D400, 0x1D467),  # bold, italic letters
    (0x1D49C, 0x1D4B5),  # script capitals
    (0x1D538, 0x1D551),  # blackboard capitals
    (0x1D6A4, 0x1D6A5),  # dotless italics
    (0x1D6E2, 0x1D755),  # italic, bold italic Greek
    (0x1D7CE, 0x1D7D7),  # bold digits
)


def make(name: str) -> str:
    """Return the WOFF2 file in base64."""
    font = cut(
        "ziamath",
        "ziamath/fonts/STIXTwoMath-Regular.ttf",
        CHARACTERS,
        ["dtls", "flac"],  # dotless and flattened forms under accents
        "A subset of STIX Two Math with narrower tall brackets and roots.",
    )
    _narrow(font)
    return packed(font, FAMILY)


def _narrow(font: TTFont) -> None:
    """Limit how much wider the taller sizes of a bracket or root sign are than the smallest.

    Chromium reserves the width of the widest size whatever size it draws, which leaves gaps around
    brackets on one line and after every root.
    """
    variants = font["MATH"].table.MathVariants
    glyphs, metrics = font["glyf"], font["hmtx"]
    for character, factor in NARROW.items():
        base = font.getBestCmap()[ord(character)]
        sizes = variants.VertGlyphConstruction[variants.VertGlyphCoverage.glyphs.index(base)]
        names = {record.VariantGlyph for record in sizes.MathGlyphVariantRecord}
        if sizes.GlyphAssembly:
            names |= {part.glyph for part in sizes.GlyphAssembly.PartRecords}
        limit = round(factor * metrics[base][0])
        for name in sorted(names):
            glyph, advance = glyphs[name], metrics[name][0]
            if advance > limit:
                glyph.coordinates.scale((limit / advance, 1))
                glyph.coordinates.toInt()
                glyph.recalcBounds(glyphs)
                metrics[name] = (limit, glyph.xMin)
