"""Pictures that a job delivers: they appear whole, and say that they are the program's own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geo.files import output_errors, whole_file
from geo.outputs import seal_png
from jobs.runtime.memory import Memory, require_memory
from wpcrack.data.images import PART_PX, read_shape
from wpcrack.inference.predict import PICTURE_PX_BYTES

PROGRAM_BYTES = 6e8
"""Memory of the program and the network beside the picture."""


def require_room(path: Path, has: Memory | None = None) -> None:
    """Refuse a photograph that this machine cannot predict in its memory, by its header.

    Args:
        path: of the photograph.
        has: None: what this machine has.

    Raises:
        DataError: It is unreadable.
        ConfigError: It does not fit.
    """
    height, width = read_shape(path)
    require_memory(
        height * width * PICTURE_PX_BYTES + PROGRAM_BYTES,
        f"{path} with {width} x {height} pixels",
        f"cut it: gdal_retile.py -ps {PART_PX} {PART_PX} -targetDir parts {path.name}",
        has,
    )


def write_picture(path: Path, array: NDArray[np.uint8]) -> None:
    """Write (H, W) or (H, W, 3) uint8 as a sealed PNG.

    Raises:
        OutputError: The file cannot be written.
    """
    data = io.BytesIO()
    Image.fromarray(array).save(data, format="PNG", compress_level=3)
    with output_errors(path), whole_file(path) as temporary:
        temporary.write_bytes(seal_png(data.getvalue()))
