"""`probability=keep`: the 8-bit probability of each block as a COG, and a VRT over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geo.errors import InputError, first_line
from geo.files import whole_file
from geo.grid import Grid, Window
from geo.imagery.mosaic import Block
from geo.imagery.writing import write_raster

VRT = "probability.vrt"
"""Inside the folder of the blocks; its paths are relative, so the folder can be moved."""


def probability_file(folder: Path, block: Block) -> Path:
    """Return the file of a block's probability."""
    return folder / f"{block.block_id}.tif"


def ground_file(folder: Path, block: Block) -> Path:
    """Return the file of what else another threshold needs to know of a block's imagery."""
    return folder / f"{block.block_id}.npz"


def write_probability(
    path: Path, probability: NDArray[np.uint8], window: Window, grid: Grid
) -> None:
    """Write the probability * 255 of a block; the file appears complete or not at all.

    Args:
        path: Of the file.
        probability: (H, W).
        window: Of the block on the mosaic's grid.
        grid: Of the mosaic.

    Raises:
        OSError: The disk does not take it.
    """
    write_raster(path, probability[None], grid.subgrid(window), "COG")


def read_probability(path: Path) -> NDArray[np.uint8]:
    """Read what `write_probability` wrote: (H, W) probability * 255.

    Raises:
        InputError: The file is missing, damaged or none of ours.
    """
    try:
        with rasterio.open(path, driver="GTiff") as dataset:
            probability: NDArray[np.uint8] = dataset.read(1)
            return probability
    except RasterioError as error:
        raise InputError(
            f"the probability in {path} cannot be read ({first_line(error)}); compute it again "
            "with `wpcrack infer ... probability=keep resume=never`"
        ) from error


def write_vrt(folder: Path, blocks: Sequence[Block], grid: Grid) -> Path:
    """Join the blocks that have a file into one raster; the others read as 0.

    Raises:
        OSError: The disk does not take it.
    """
    height, width = grid.shape
    root = Xml.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    Xml.SubElement(root, "SRS").text = grid.crs.to_wkt()
    numbers = grid.transform.to_gdal()
    Xml.SubElement(root, "GeoTransform").text = ", ".join(repr(float(n)) for n in numbers)
    band = Xml.SubElement(root, "VRTRasterBand", dataType="Byte", band="1")
    for block in blocks:
        path = probability_file(folder, block)
        if path.exists():
            _add_source(band, path.name, block.window)
    vrt = folder / VRT
    with whole_file(vrt) as temporary:
        temporary.write_bytes(Xml.tostring(root))
    return vrt


def _add_source(band: Xml.Element, name: str, window: Window) -> None:
    source = Xml.SubElement(band, "SimpleSource")
    Xml.SubElement(source, "SourceFilename", relativeToVRT="1").text = name
    Xml.SubElement(source, "SourceBand").text = "1"
    size = {"xSize": str(window.width), "ySize": str(window.height)}
    place = {"xOff": str(window.col_off), "yOff": str(window.row_off)}
    Xml.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0"} | size)
    Xml.SubElement(source, "DstRect", place | size)
