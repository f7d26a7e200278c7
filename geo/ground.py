"""What is known of the ground of a block besides its picture: where it was seen, and how finely."""

from __future__ import annotations

import base64
import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geo.errors import InputError
from geo.grid import Grid, Window
from geo.polygon_pixels import pixels_of
from geo.polygonize import Piece, pieces


@dataclass(frozen=True, eq=False)
class Ground:
    """The imagery of a block.

    Attributes:
        ring: (H + 2, W + 2) bool, where there is imagery, in the block and one pixel around it.
        gsd_m: (H, W) float64, size of the imagery's own pixels, at least the grid's; None: the
            grid's everywhere.
    """

    ring: NDArray[np.bool_]
    gsd_m: NDArray[np.float64] | None = None

    def text(self) -> str:
        """As ASCII text of a few hundred bytes, more where imagery is ragged."""
        shape, bits = np.array(self.ring.shape), np.packbits(self.ring)
        sizes = np.empty((0, 0)) if self.gsd_m is None else self.gsd_m
        stream = io.BytesIO()
        np.savez_compressed(stream, shape=shape, ring=bits, gsd_m=sizes)
        return base64.b64encode(stream.getvalue()).decode("ascii")

    @classmethod
    def of_text(cls, text: str) -> Ground:
        """The inverse of `text`.

        Raises:
            InputError: the text is none of ours.
        """
        try:
            with np.load(io.BytesIO(base64.b64decode(text))) as arrays:
                rows, cols = arrays["shape"].tolist()
                bits = np.unpackbits(arrays["ring"], count=rows * cols)
                sizes = arrays["gsd_m"]
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"the record of a block's imagery is damaged ({error})") from error
        return cls(bits.reshape(rows, cols).astype(bool), sizes if sizes.size else None)

    def resolve(self, found: Sequence[Piece], window: Window) -> list[Piece]:
        """Give each piece the size of the coarsest imagery under it.

        Args:
            found: of the block.
            window: the block.
        """
        if self.gsd_m is None:
            return list(found)
        corner = np.array([window.row_off, window.col_off])
        places = ((pixels_of(piece.geometry) - corner).T for piece in found)
        largest = (float(self.gsd_m[rows, cols].max()) for rows, cols in places)
        return [replace(piece, gsd_m=gsd) for piece, gsd in zip(found, largest, strict=True)]


def vectorized(
    probability: NDArray[np.uint8],
    level: int,
    window: Window,
    grid: Grid,
    ground: Ground,
) -> list[Piece]:
    """Pieces of the cracks of a block.

    Args:
        probability: (H, W), 255 = certain; 0 where nothing counts.
        level: smallest probability that is crack.
        window: the block.
        grid: of the mosaic.
        ground: of the block.
    """
    found = pieces(probability >= level, probability, window, grid, ground.ring)
    return ground.resolve(found, window)
