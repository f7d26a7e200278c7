"""Letters of pages as PDF and of pictures: which font has them, and what stands for the rest."""

from __future__ import annotations

import unicodedata
from collections.abc import Container, Sequence
from contextlib import suppress
from functools import cache

from PIL import ImageFont
from reportlab.pdfbase.pdfmetrics import getFont, registerFont, stringWidth
from reportlab.pdfbase.ttfonts import TTFError, TTFont

FONT, BOLD = "Helvetica", "Helvetica-Bold"
"""Of every reader, with the letters of Western Europe."""

EMBEDDED = {FONT: ("DejaVuSans", "Vera"), BOLD: ("DejaVuSans-Bold", "VeraBd")}
"""Fonts for texts with other letters, the first that is there; only what is used is in the file.

DejaVu is Vera with the letters of more scripts, and installed on most systems; Vera is reportlab's.
"""

MAX_LETTERS, LAST_LETTERS = 24, 9
"""Of a name in a table, and of its end: there segments of one road differ."""

RIGHT_TO_LEFT = ("R", "AL")
"""Classes of letters that would stand in the wrong order."""


def letters_for(text: str, font: str) -> tuple[str, str]:
    """Return a text in letters that can be shown, and the font that has them."""
    return (text, font) if _is_western(text) else (_transcribe(text), _embed(font))


def drawable(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    """Return a text in letters that a picture can show, and the font; Pillow's own has ASCII."""
    if text.isascii():
        return text, ImageFont.load_default(size)
    return _transcribe(text), ImageFont.truetype(getFont(_embed(FONT)).face.filename, size)


def shorten(name: str, font: str, size: float, width: float) -> str:
    """Return a name, or its beginning and end, that is no wider than some points."""
    most = min(len(name), MAX_LETTERS) - LAST_LETTERS
    cut = (f"{name[:k]}…{name[-LAST_LETTERS:]}" for k in reversed(range(most)))
    tried = (name, *cut) if len(name) <= MAX_LETTERS else cut
    return next((x for x in tried if stringWidth(*letters_for(x, font), size) <= width), name)


def is_unwritable(name: str) -> bool:
    """Return whether a name has letters that no font of the pages has: `?` stands for them.

    >>> is_unwritable("Łódzka"), is_unwritable("和平路")
    (False, True)
    """
    return not _is_western(name) and _transcribe(name).count("?") > name.count("?")


def _is_western(text: str) -> bool:
    return text.encode("cp1252", "ignore").decode("cp1252") == text


def _transcribe(text: str) -> str:
    """Return a text in the letters of the embedded fonts: without an accent, or `?` at last."""
    known = [getFont(_embed(font)).face.charToGlyph for font in EMBEDDED]
    tried = ((letter, unicodedata.normalize("NFD", letter)[0], "?") for letter in text)
    return "".join(next(c for c in some if _is_in(c, known)) for some in tried)


def _is_in(letter: str, known: Sequence[Container[int]]) -> bool:
    if unicodedata.bidirectional(letter) in RIGHT_TO_LEFT:
        return False
    return all(ord(letter) in own for own in known)


@cache
def _embed(font: str) -> str:
    """Return the name of the font that stands in for one, and make it known."""
    *wide, own = EMBEDDED[font]
    for name in wide:
        with suppress(TTFError):
            registerFont(TTFont(name, f"{name}.ttf"))
            return name
    registerFont(TTFont(own, f"{own}.ttf"))
    return own
