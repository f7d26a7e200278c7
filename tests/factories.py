"""What many tests build: tiles, streets, image-level sets, tiny models, stand-ins of the network.

A module beside conftest.py and no fixture, so that property tests, module constants and child
processes can use it, too: `from factories import write_tile`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


def tiny_training(root: Path, run_dir: Path, workers: int = 0, **changes: Any) -> dict[str, Any]:
    """Make settings of `wpcrack train` or `tune` with the networks of TINY_MODEL.

    Args:
        root: of the data set.
        run_dir: run folder.
        workers: of Ray Train; 0: in this process.
        changes: sections or keys that differ; those of `train` and `scaling` one by one.
    """
    train = {"batch_size": 4, "epoch_steps": 1, "val_items": 4, **changes.pop("train", {})}
    scaling = {"num_workers": workers, "cpus_per_worker": 1, **changes.pop("scaling", {})}
    places = {"data": {"root": root}, "run_dir": run_dir}
    return {**places, "model": TINY_MODEL, "train": train, "scaling": scaling, **changes}


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes(session: int | None = None, *names: bytes) -> list[int]:
    """List living processes.

    Args:
        session: of the processes; None: any.
        names: one of them stands in the command line; none: any command.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
            command = (path.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        is_named = not names or any(name in command for name in names)
        if session in (None, int(fields[3])) and fields[0] != "Z" and is_named:
            found.append(int(path.parent.name))
    return found


@contextmanager
def running_python(code: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run code in a process that leads a session of its own; nothing of it outlives the block.

    Args:
        code: for `python -c`.
        log: file to which both outputs are added.
    """
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        end_session(process)


def end_session(process: subprocess.Popen[Any]) -> None:
    """Kill a process that was started in a session of its own, and all that it has started."""
    for pid in {process.pid, *processes(process.pid)}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
