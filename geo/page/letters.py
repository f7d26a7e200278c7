"""Letters of the pages as PDF: which font has them, and what stands for those that none has."""

from __future__ import annotations

import unicodedata
from functools import cache

from reportlab.pdfbase.pdfmetrics import getFont, registerFont
from reportlab.pdfbase.ttfonts import TTFont

FONT, BOLD = "Helvetica", "Helvetica-Bold"
"""Of every reader, with the letters of Western Europe."""

EMBEDDED = {FONT: "Vera", BOLD: "VeraBd"}
"""Fonts of reportlab for texts with other letters; only what is used of them is in the file."""


def lettered(text: str, font: str) -> tuple[str, str]:
    """Return a text in letters that can be shown, and the font that has them."""
    return (text, font) if _is_western(text) else (_written(text), _embedded(font))


def is_unwritable(name: str) -> bool:
    """Return whether a name has letters that no font of the pages has: `?` stands for them.

    >>> is_unwritable("Łódzka"), is_unwritable("улица Мира")
    (False, True)
    """
    return not _is_western(name) and _written(name).count("?") > name.count("?")


def _is_western(text: str) -> bool:
    return text.encode("cp1252", "ignore").decode("cp1252") == text


def _written(text: str) -> str:
    """Return a text in the letters of the embedded fonts: without an accent, or `?` at last."""
    known = [getFont(_embedded(font)).face.charToGlyph for font in EMBEDDED]
    tried = ((letter, unicodedata.normalize("NFD", letter)[0], "?") for letter in text)
    return "".join(next(c for c in some if all(ord(c) in own for own in known)) for some in tried)


@cache
def _embedded(font: str) -> str:
    """Return the name of the font that stands in for one, and make it known."""
    name = EMBEDDED[font]
    registerFont(TTFont(name, f"{name}.ttf"))
    return name
