"""What many tests build: tiles, streets, image-level sets, tiny models, stand-ins of the network.

A module beside conftest.py and no fixture, so that property tests, module constants and child
processes can use it, too: `from factories import write_tile`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

GSD_M = 0.005
"""Size of the pixels of drawn tiles."""

EAST, NORTH = 500_000.0, 5_700_000.0
"""World coordinates of the corner of pixel (0, 0) of drawn tiles, in UTM32."""

UTM32 = "EPSG:25832"

SMALL_LATTICE = {"lattice": {"window": 96, "overlap": 32, "blend": 16}, "block_strides": 2}
"""Settings of inference that give several blocks for pictures of a few hundred pixels."""

TINY_MODEL: dict[str, Any] = {
    "encoder": "test_efficientnet",
    "pretrained": "none",
    "cam_channels": 8,
    "recon_channels": 8,
    "decoder_widths": (8, 8),
    "detector_channels": 8,
}
"""Settings of networks that a test can train: some hundred thousand weights."""


def write_tile(
    path: Path,
    image: NDArray[Any],
    row: int = 0,
    col: int = 0,
    *,
    gsd: float = GSD_M,
    crs: Any = UTM32,
    transform: Affine | None = None,
    **options: Any,
) -> Path:
    """Write a GeoTIFF whose corner lies at pixel (row, col) of the drawn ground.

    Args:
        path: file; its folder is made.
        image: (H, W) or (H, W, bands) pixels; their dtype is the file's.
        row, col: in pixels of GSD_M, south and east of the corner of the ground.
        gsd: size of a pixel.
        crs: anything that rasterio takes.
        transform: takes the place of row, col and gsd.
        options: of the GeoTIFF driver, and nodata.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = np.atleast_3d(image).transpose(2, 0, 1)
    count, height, width = bands.shape
    if transform is None:
        transform = Affine(gsd, 0, EAST + col * GSD_M, 0, -gsd, NORTH - row * GSD_M)
    shape = {"width": width, "height": height, "count": count, "dtype": bands.dtype}
    with rasterio.open(path, "w", "GTiff", crs=crs, transform=transform, **shape, **options) as tif:
        tif.write(bands)
    return path


def street(
    side: int = 320, lines: tuple[tuple[tuple[tuple[int, int], ...], int], ...] = ()
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw gray pavement (side, side, 3) with dark cracks, and their exact mask.

    Args:
        side: in pixels.
        lines: (col, row) points and width in pixels of each crack; none: two that do not meet.
    """
    drawn = lines or (
        (((10, 20), (side // 2, 140), (side - 10, 290)), 5),
        (((20, 300), (90, 240)), 4),
    )
    mask = np.zeros((side, side), np.uint8)
    for points, width in drawn:
        cv2.polylines(mask, [np.array(points)], False, 255, width)
    image = np.random.default_rng(0).integers(140, 170, (side, side, 3), np.uint8)
    image[mask > 0] = 20
    return image, mask > 0


def darkness() -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Make a stand-in of the network: what is dark is a crack."""
    return lambda windows: np.where(windows.mean(-1) < 80, 0.9, 0.1).astype(np.float32)


def in_process(
    job: Any, plan: Any, todo: list[int], factory: Callable[[], Any], *, local: bool = False
) -> Iterator[Any]:
    """Take the place of `jobs.infer.run.compute`: one worker in this process, no Ray."""
    from jobs.infer.worker import BlockWorker

    worker = BlockWorker(plan, factory())
    yield from (worker.run(index) for index in todo)


def image_level_set(root: Path, *, per_class: int = 8, side: int = 64) -> Path:
    """Write label folders crack/ and road/ of four streets: gray noise with and without a line."""
    rng = np.random.default_rng(0)
    for folder, dark in (("crack", 40), ("road", 0)):
        (root / folder).mkdir(parents=True)
        for k in range(per_class):
            image = rng.integers(100, 160, (side, side, 3)).astype(np.uint8)
            image[:, side // 2 - 2 : side // 2 + 1] -= np.uint8(dark)
            Image.fromarray(image).save(root / folder / f"street{k % 4}_r{k}_c{dark}.png")
    return root


def tiny_config(seed: int = 0, **train: Any) -> Any:
    """Make the config of a method with the networks of TINY_MODEL; keywords are keys of `train`."""
    from wpcrack.config import MethodConfig

    settings = {"batch_size": 4, **train}
    return MethodConfig.model_validate({"seed": seed, "model": TINY_MODEL, "train": settings})


def tiny_model(folder: Path, *, seed: int = 0, **info: Any) -> Path:
    """Save an untrained model with the networks of TINY_MODEL; give its folder back."""
    import torch

    from wpcrack.config import ModelConfig
    from wpcrack.model import ModelInfo, save_model
    from wpcrack.networks import Networks

    torch.manual_seed(seed)
    model = ModelConfig(**TINY_MODEL)
    save_model(
        folder, Networks(model), ModelInfo(model=model, **{"gsd_mm": None, "trained": {}, **info})
    )
    return folder


def wait_until(condition: Callable[[], object], patience_s: float = 600.0) -> None:
    """Wait for something that another process does; the clock is for hangs only."""
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing happened in {patience_s:g} s")
        time.sleep(0.02)


def describe_model(folder: Path, **info: Any) -> Path:
    """Make a model folder that can be found and described, but has no weights to load."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").touch()
    networks = {**TINY_MODEL, "decoder_widths": list(TINY_MODEL["decoder_widths"])}
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": networks, **info}))
    return folder


def infer_job(tiles: Path, out: Path, **values: Any) -> Any:
    """Make an inference job of small blocks that keeps every crack and needs no model."""
    from jobs.infer.job import InferJob

    given = {"tiles": str(tiles), "model": "none", "out": out, "min_area_m2": 0}
    return InferJob.model_validate(given | SMALL_LATTICE | values)


def layer(package: Path, name: str = "crack", without: tuple[str, ...] = ("run_id",)) -> Any:
    """Read a spatial layer as a plain table in a fixed order, its geometry as bytes."""
    import geopandas
    import pandas as pd

    frame = geopandas.read_file(package, layer=name)
    frame = frame.sort_values(frame.columns[0], ignore_index=True)
    dropped = [column for column in ("geometry", *without) if column in frame]
    return pd.DataFrame(frame.drop(columns=dropped)).assign(wkb=frame.geometry.to_wkb())


class Pool:
    """Takes the place of `jobs.infer.run.compute`: workers in this process that take turns, no Ray.

    Attributes:
        computed: names of the blocks, in the order of completion.
        stop_after: blocks after which somebody presses Ctrl-C.
        threads: calls of one worker at a time.
    """

    def __init__(self) -> None:
        self.computed: list[str] = []
        self.stop_after: int | None = None
        self.threads = 1

    def __call__(
        self,
        job: Any,
        plan: Any,
        todo: list[int],
        factory: Callable[[], Any],
        *,
        local: bool = False,
    ) -> Iterator[Any]:
        """Compute the blocks."""
        from jobs.infer.worker import BlockWorker

        worker = BlockWorker(plan, factory())
        with ThreadPoolExecutor(self.threads) as calls:
            results = calls.map(worker.run, todo) if self.threads > 1 else map(worker.run, todo)
            for count in range(len(todo)):
                if count == self.stop_after:
                    raise KeyboardInterrupt
                result = next(results)
                self.computed.append(result.block_id)
                yield result
