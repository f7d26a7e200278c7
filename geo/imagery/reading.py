"""Open rasters: handles that are kept, windows as 8-bit RGB, the stretch of 16-bit imagery."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.windows import Window as RasterWindow

from geo.errors import InputError
from geo.grid import Window
from geo.imagery.missing import MARGIN, gaps
from geo.imagery.opening import STREAM_ENDS, open_dataset, stamp_of, take_damage
from geo.options import ReadOptions

MAX_OPEN = 32
"""Rasters kept open per thread: striped files reopened per window read 7 x slower."""

PERCENTILES = (1.0, 99.0)
"""Of all sampled values; what lies beyond becomes 0 or 255."""

MOST_OVERVIEWS = 64
"""Rasters that are sampled."""

OVERVIEW_PX = 256
"""Longest side of a raster's sample."""

WHOLE_PX = 8192
"""A raster without overviews is read whole up to this side, a larger one in patches."""

PATCHES = 4
"""Patches along each axis of a large raster."""

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@dataclass(frozen=True)
class Stretch:
    """The 16-bit values that become 0 and 255; between them linear, beyond them clipped."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(
                f"stretch is {self.low:g} to {self.high:g}; give two values in rising order"
            )

    def apply(self, bands: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Bring 16-bit pixels of any shape to 8 bits.

        >>> Stretch(100, 355).apply(np.array([0, 100, 200, 60000], np.uint16))
        array([  0,   0, 100, 255], dtype=uint8)
        """
        scaled = (bands.astype(np.float32) - self.low) * np.float32(255 / (self.high - self.low))
        eight: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
        return eight


@dataclass(eq=False)
class OpenRaster:
    """An open raster and what reading it needs to know, asked once.

    Asking GDAL for a property after a failed read raises that read's error again, so everything
    is asked before the first read.
    """

    dataset: Any
    bands: tuple[int, ...]
    palette: NDArray[np.uint8] | None
    """(N, 4) red, green, blue and alpha of each value."""
    white_is_zero: bool
    """Of a gray TIFF (6.0, PhotometricInterpretation 0); GDAL gives its values as they are."""
    has_mask: bool
    """An alpha band or a mask tells what is valid."""
    nodata: float | None
    """Value of pixels that may be missing, if there is one."""
    is_stream: bool
    """A PNG or JPEG: behind a fault nothing is known."""
    block_shape: tuple[int, int]
    shape: tuple[int, int]
    dtype: str

    @classmethod
    def open(cls, path: str, driver: str, options: ReadOptions) -> OpenRaster:
        """Open a raster with one driver.

        Raises:
            RasterioIOError: it cannot be opened.
        """
        try:
            return cls._of(open_dataset(path, driver), options)
        except CPLE_BaseError as error:  # of a damaged tag, raised as a property is asked for
            raise RasterioIOError(str(error)) from error

    @classmethod
    def _of(cls, dataset: Any, options: ReadOptions) -> OpenRaster:
        flags = {flag for of_band in dataset.mask_flag_enums for flag in of_band}
        has_alpha = MaskFlags.alpha in flags
        has_mask = options.band4 == "alpha" if has_alpha else MaskFlags.per_dataset in flags
        own = None if has_mask else dataset.nodata
        return cls(
            dataset=dataset,
            bands=_bands(dataset),
            palette=_palette(dataset),
            white_is_zero=dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES",
            has_mask=has_mask,
            nodata=own if options.nodata is None else options.nodata,
            is_stream=dataset.driver in STREAM_ENDS,
            block_shape=dataset.block_shapes[0],
            shape=dataset.shape,
            dtype=dataset.dtypes[0],
        )

    def reopen(self) -> None:
        """Open it again, with a decoder that begins anew and an empty cache."""
        name, driver = self.dataset.name, self.dataset.driver
        self.dataset.close()
        self.dataset = open_dataset(name, driver)

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """Give the data set, and make a failure of damage of which it only warns.

        It would give such a block from its cache from then on, without a word.

        Raises:
            RasterioIOError: a block is damaged.
        """
        take_damage()
        try:
            yield self.dataset
        finally:
            if damage := take_damage():
                self.reopen()
                raise RasterioIOError(damage)

    def valid(
        self, pixels: NDArray[Any], area: RasterWindow, shape: tuple[int, int]
    ) -> NDArray[np.bool_]:
        """Return which pixels (H, W, bands) of an area are not marked as missing, (H, W)."""
        valid = np.ones(shape, bool)
        if self.has_mask:
            valid = self.dataset.dataset_mask(window=area, out_shape=shape) > 0
        if self.nodata is not None:
            valid &= (pixels != self.nodata).any(axis=2)
        if self.palette is not None:
            valid &= self.palette[pixels[..., 0], 3] > 0
        return valid


def read_window(
    raster: OpenRaster,
    window: Window,
    shape: tuple[int, int] | None = None,
    *,
    stretch: Stretch | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read a window of an open raster as RGB with its validity.

    Args:
        raster: an open raster.
        window: pixels inside the raster.
        shape: (rows, cols) to reduce to by averaging; None reads every pixel.
        stretch: how 16-bit pixels become 8-bit ones.

    Returns:
        image: (H, W, 3) uint8; one band is repeated, a palette is expanded, bands beyond the third
            are left out.
        valid: (H, W) bool; False for zero alpha, masked pixels and gaps of the nodata value; in a
            reduced window, for all pixels of that value.

    Raises:
        RasterioIOError: a block of the file cannot be decoded.
    """
    area = RasterWindow(window.col_off, window.row_off, window.width, window.height)
    rows, cols = shape or (window.height, window.width)
    image = np.empty((rows, cols, len(raster.bands)), raster.dtype)
    with raster.reading() as dataset:
        dataset.read(
            raster.bands,
            window=area,
            # GDAL interleaves the bands itself, 3 x faster than numpy
            out=image.transpose(2, 0, 1),
            resampling=Resampling.average if raster.palette is None else Resampling.nearest,
        )
        valid = raster.valid(image, area, (rows, cols))
    if raster.palette is not None:
        image = raster.palette[image[..., 0], :3]
    else:
        if raster.dtype == "uint16":
            assert stretch is not None, f"{raster.dataset.name} has 16 bits"
            image = stretch.apply(image)
        if raster.white_is_zero:
            image = ~image
        if image.shape[2] == 1:
            image = image.repeat(3, axis=2)
    return image, valid


def read_readable(
    raster: OpenRaster, window: Window, *, stretch: Stretch | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], str | None]:
    """Read a window like `read_window`, but leave out what the file cannot deliver.

    A corrupt block costs its own pixels (invalid afterwards) and no others, so what is lost does
    not depend on the window that asked for it.

    Returns:
        image and valid as in `read_window`, and the reason of the first failure or None.
    """
    try:
        image, valid = read_window(raster, window, stretch=stretch)
        return image, valid | _islands(raster, window, valid), None
    except RasterioIOError as error:
        reason = str(error.__cause__ or error)
    image = np.zeros((window.height, window.width, 3), np.uint8)
    valid = np.zeros((window.height, window.width), bool)
    if raster.is_stream:
        raster.reopen()
    for block in _file_blocks(raster, window):
        here = block.slices_in(window)
        try:
            image[here], valid[here] = read_window(raster, block, stretch=stretch)
        except RasterioIOError:  # the reason is already known
            if raster.is_stream:
                return image, valid, reason
    return image, valid | _islands(raster, window, valid), reason


def _islands(raster: OpenRaster, window: Window, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a window that have the nodata value, but are imagery."""
    if raster.nodata is None or valid.all():
        return np.zeros_like(valid)
    rows, cols = raster.shape
    around = window.pad(MARGIN).intersection(Window(0, 0, rows, cols))
    assert around is not None, "windows lie in their raster"
    absent = _absent(raster, around)
    edges = (
        around.row_off == 0,
        around.row_end == rows,
        around.col_off == 0,
        around.col_end == cols,
    )
    islands = absent & ~gaps(absent, edges)
    return islands[window.slices_in(around)]


def _absent(raster: OpenRaster, window: Window) -> NDArray[np.bool_]:
    """Return which pixels of a window have the nodata value; none in corrupt blocks."""

    def read(part: Window) -> NDArray[np.bool_]:
        area = RasterWindow(part.col_off, part.row_off, part.width, part.height)
        with raster.reading() as dataset:
            bands = dataset.read(raster.bands, window=area)
        return np.asarray((bands == raster.nodata).all(axis=0))

    with suppress(RasterioIOError):
        return read(window)
    absent = np.zeros((window.height, window.width), bool)
    for block in _file_blocks(raster, window):
        with suppress(RasterioIOError):
            absent[block.slices_in(window)] = read(block)
    return absent


def _file_blocks(raster: OpenRaster, window: Window) -> Iterator[Window]:
    """Yield the parts of a window that the blocks of the file cut out of it."""
    rows, cols = raster.block_shape
    for row in range(window.row_off // rows * rows, window.row_end, rows):
        for col in range(window.col_off // cols * cols, window.col_end, cols):
            part = Window(row, col, rows, cols).intersection(window)
            assert part is not None, "a block in the window's range meets the window"
            yield part


def open_raster(path: str, driver: str, options: ReadOptions) -> OpenRaster:
    """Return the open raster of ``path``, kept for the next call; reopened if the file changed.

    Raises:
        OSError: the file has vanished or is not readable (RasterioIOError is one).
    """
    key = (path, *stamp_of(path), options)
    raster = _handles.open.pop(key, None) or OpenRaster.open(path, driver, options)
    _handles.open[key] = raster
    while len(_handles.open) > MAX_OPEN:
        _handles.open.popitem(last=False)[1].dataset.close()
    return raster


class _Handles(threading.local):
    """Open rasters of one thread (GDAL data sets must not be shared between threads)."""

    def __init__(self) -> None:
        self.open: OrderedDict[tuple[str, int, int, ReadOptions], OpenRaster] = OrderedDict()


_handles = _Handles()


def forget(path: str) -> None:
    """Close the kept rasters of a path, so that the next call opens it anew."""
    for key in [key for key in _handles.open if key[0] == path]:
        _handles.open.pop(key).dataset.close()


def _bands(dataset: Any) -> tuple[int, ...]:
    """Return the numbers of red, green and blue, else of the first three bands, or of the first."""
    kinds = list(dataset.colorinterp)
    if set(RGB) <= set(kinds):
        return tuple(kinds.index(color) + 1 for color in RGB)
    return (1, 2, 3) if dataset.count >= 3 else (1,)


def _palette(dataset: Any) -> NDArray[np.uint8] | None:
    """Return the color and alpha of each value of a raster with a palette, or None for others."""
    if dataset.colorinterp[0] != ColorInterp.palette:
        return None
    table = np.zeros((np.iinfo(dataset.dtypes[0]).max + 1, 4), np.uint8)
    table[:, 3] = 255
    for index, color in dataset.colormap(1).items():
        table[index] = color
    return table


def measure_stretch(files: Sequence[tuple[str, str]], options: ReadOptions) -> Stretch | None:
    """Take the percentiles 1 and 99 of 16-bit imagery, all bands together so that hues stay.

    Args:
        files: path and driver of the rasters with 16 bits; up to MOST_OVERVIEWS of them, evenly
            spread, are sampled.
        options: what in them is no imagery.

    Returns:
        The stretch; None without files. A file that cannot be read is passed over (it is reported
        when it is mapped); if none can, the whole range is taken.
    """
    if not files:
        return None
    chosen = np.unique(np.linspace(0, len(files) - 1, MOST_OVERVIEWS).round().astype(int))
    sampled = (files[index] for index in chosen)
    values = [part for name, kind in sampled for part in _sample_values(name, kind, options)]
    if not sum(part.size for part in values):
        return Stretch(0, np.iinfo(np.uint16).max)
    low, high = (float(v) for v in np.percentile(np.concatenate(values), PERCENTILES))
    return Stretch(low, max(high, low + 1))


def _sample_values(path: str, driver: str, options: ReadOptions) -> Iterator[NDArray[np.uint16]]:
    """Yield valid values of a reduced raster, or of patches of a large one; none if unreadable."""
    try:
        raster = open_raster(path, driver, options)
        if max(raster.shape) <= WHOLE_PX or raster.dataset.overviews(1):
            factor = max(1.0, max(raster.shape) / OVERVIEW_PX)
            rows, cols = (max(1, round(side / factor)) for side in raster.shape)
            yield _values(raster, RasterWindow(0, 0, *raster.shape[::-1]), (rows, cols))
            return
        for window in _patches(raster.shape):
            yield _values(raster, window, (window.height, window.width))
    except (OSError, RasterioError):
        return


def _patches(shape: tuple[int, int]) -> Iterator[RasterWindow]:
    height, width = (min(side, OVERVIEW_PX // PATCHES) for side in shape)
    for row in np.linspace(0, shape[0] - height, PATCHES).astype(int):
        for col in np.linspace(0, shape[1] - width, PATCHES).astype(int):
            yield RasterWindow(int(col), int(row), width, height)


def _values(raster: OpenRaster, window: RasterWindow, shape: tuple[int, int]) -> NDArray[np.uint16]:
    with raster.reading() as dataset:
        bands = dataset.read(raster.bands, window=window, out_shape=(len(raster.bands), *shape))
        valid = raster.valid(np.moveaxis(bands, 0, -1), window, shape)
    values: NDArray[np.uint16] = bands[:, valid].ravel()
    return values
