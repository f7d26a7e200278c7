"""Pictures that a job delivers: they appear whole, and say that they are the program's own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geo.files import output_errors, whole_file
from geo.outputs import seal_png


def write_picture(path: Path, array: NDArray[np.uint8]) -> None:
    """Write (H, W) or (H, W, 3) uint8 as a sealed PNG.

    Raises:
        OutputError: The file cannot be written.
    """
    data = io.BytesIO()
    Image.fromarray(array).save(data, format="PNG", compress_level=3)
    with output_errors(path), whole_file(path) as temporary:
        temporary.write_bytes(seal_png(data.getvalue()))
