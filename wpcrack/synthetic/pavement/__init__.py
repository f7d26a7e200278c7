"""Windows of pavement at any scale, drawn from a seed, with exact truth.

`draw_pavement` makes one window. A ground (asphalt, concrete) gets marks (joints, paint, stains),
a crack is carved into it, bodies (stones, leaves, kerbs) lie on top; light falls on the relief, and
a camera takes the picture. Nothing is derived from a photograph.
"""

from wpcrack.synthetic.pavement.canvas import Kind
from wpcrack.synthetic.pavement.draw import (
    DrawnPavement,
    PavementConfig,
    draw_alternating,
    draw_pavement,
)

__all__ = ["DrawnPavement", "Kind", "PavementConfig", "draw_alternating", "draw_pavement"]
