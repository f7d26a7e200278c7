"""Letters of the pages as PDF."""

from __future__ import annotations

import io

import pytest
from reportlab.pdfgen.canvas import Canvas

from geo.page.letters import BOLD, FONT, is_unwritable, lettered


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Straße é — x", "Straße é — x"),
        ("Łódzka?", "Łódzka?"),
        ("Dvořákova", "Dvorákova"),
        ("улица 5", "????? 5"),
    ],
)
def test_names_keep_what_a_font_has(name, shown):
    text, font = lettered(name, FONT)
    assert text == shown
    assert is_unwritable(name) == (shown.count("?") > name.count("?"))
    assert (font == FONT) == name.startswith("Straße")


def test_a_font_of_which_little_is_used_makes_the_file_little_larger():
    sizes = []
    for name in ("Lodzka", "Łódzka"):
        document = io.BytesIO()
        canvas = Canvas(document, invariant=1)
        for font in (FONT, BOLD):
            text, own = lettered(name, font)
            canvas.setFont(own, 9)
            canvas.drawString(50, 50, text)
        canvas.save()
        sizes.append(len(document.getvalue()))
    assert 0 < sizes[1] - sizes[0] < 50_000
