"""Letters of the pages as PDF."""

from __future__ import annotations

import io

import pytest
from reportlab.pdfbase.pdfmetrics import getFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from geo.page import letters
from geo.page.letters import BOLD, FONT, is_unwritable, letters_for


@pytest.fixture
def only_vera(monkeypatch):
    """A machine without DejaVu."""
    own = {font: names[-1:] for font, names in letters.EMBEDDED.items()}
    monkeypatch.setattr(letters, "EMBEDDED", own)
    letters._embed.cache_clear()
    yield
    letters._embed.cache_clear()


def test_other_scripts_are_written_where_the_machine_has_a_font_with_them(monkeypatch):
    """A font of reportlab stands in for DejaVu, which is not on every machine."""
    asked = []

    def font(name, file):
        asked.append(file)
        return TTFont(name, file.replace("DejaVuSans-Bold", "VeraBd").replace("DejaVuSans", "Vera"))

    monkeypatch.setattr(letters, "TTFont", font)
    letters._embed.cache_clear()
    glyphs = dict.fromkeys(map(ord, "улица Мира 5"), 1)
    for name in (FONT, BOLD):
        face = getFont(letters._embed(name)).face
        monkeypatch.setattr(face, "charToGlyph", face.charToGlyph | glyphs | {ord("ש"): 1})
    assert letters_for("улица Мира 5", FONT) == ("улица Мира 5", "DejaVuSans")
    assert not is_unwritable("улица Мира 5")
    assert letters_for("ש 5", BOLD) == ("? 5", "DejaVuSans-Bold")  # drawn, it would read backward
    assert asked == ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf"]
    letters._embed.cache_clear()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Straße é — x", "Straße é — x"),
        ("Łódzka?", "Łódzka?"),
        ("Dvořákova", "Dvorákova"),
        ("улица 5", "????? 5"),
    ],
)
def test_names_keep_what_a_font_has(name, shown, only_vera):
    text, font = letters_for(name, FONT)
    assert text == shown
    assert is_unwritable(name) == (shown.count("?") > name.count("?"))
    assert (font == FONT) == name.startswith("Straße")


def test_a_font_of_which_little_is_used_makes_the_file_little_larger():
    sizes = []
    for name in ("Lodzka", "Łódzka"):
        document = io.BytesIO()
        canvas = Canvas(document, invariant=1)
        for font in (FONT, BOLD):
            text, own = letters_for(name, font)
            canvas.setFont(own, 9)
            canvas.drawString(50, 50, text)
        canvas.save()
        sizes.append(len(document.getvalue()))
    assert 0 < sizes[1] - sizes[0] < 50_000
