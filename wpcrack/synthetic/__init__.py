"""Procedural pavement with exact truth: training windows and a small georeferenceable city.

Everything is drawn from seeds; nothing is derived from a photograph. Coordinates are those of one
pixel plane: x to the right, y down, pixel (r, c) covers [c, c+1] x [r, r+1].

The city has pixels of 5 mm and continues from frame to frame. Windows of any scale and of far more
surfaces, for training, are in `wpcrack.synthetic.pavement`.
"""

from wpcrack.synthetic.city import City, CityConfig, TileDrawing, TrueStreet, draw_city
from wpcrack.synthetic.furniture import FurnitureConfig
from wpcrack.synthetic.noise import Frame
from wpcrack.synthetic.street import Street, StreetConfig, TrueCrack
from wpcrack.synthetic.windows import DrawnWindow, WindowConfig, draw_training_street, draw_window

__all__ = [
    "City",
    "CityConfig",
    "DrawnWindow",
    "Frame",
    "FurnitureConfig",
    "Street",
    "StreetConfig",
    "TileDrawing",
    "TrueCrack",
    "TrueStreet",
    "WindowConfig",
    "draw_city",
    "draw_training_street",
    "draw_window",
]
