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
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


def loaded_by(statement: str, names: Iterable[str]) -> list[str]:
    """Which of some modules a statement loads in a fresh interpreter."""
    code = f"import sys; {statement}; print(*(m for m in {tuple(names)} if m in sys.modules))"
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def wait_until(condition: Callable[[], object], patience_s: float = 600.0) -> None:
    """Wait for something that another process does; the clock is for hangs only."""
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing happened in {patience_s:g} s")
        time.sleep(0.02)


@contextmanager
def ending_within(patience_s: float) -> Iterator[None]:
    """Interrupt what the main thread does if it hangs; the clock is for hangs only.

    Raises:
        TimeoutError: The block took longer.
    """

    def give_up(*_: object) -> None:
        raise TimeoutError(f"no end in {patience_s:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, patience_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def grid_of(
    shape: tuple[int, ...], gsd: float = GSD_M, high: float | None = None, crs: Any = UTM32
) -> Any:
    """Make the grid of the drawn ground; `high` is the height of a pixel that is not square."""
    from geo.grid import Grid

    place = Affine(gsd, 0, EAST, 0, -(high or gsd), NORTH)
    return Grid(place, rasterio.CRS.from_user_input(crs), (shape[0], shape[1]))


def windows_of(grid: Any, cut: int | tuple[int, int] | None = None) -> Iterator[Any]:
    """Cut a grid into blocks of some (rows, cols), or of a side; None: into one."""
    from geo.grid import Window

    height, width = (cut, cut) if isinstance(cut, int) else cut or grid.shape
    for row in range(0, grid.shape[0], height):
        for col in range(0, grid.shape[1], width):
            yield Window(row, col, height, width).intersection(grid.window)


def pieces_of(
    grid: Any,
    mask: NDArray[np.bool_],
    probability: NDArray[np.uint8] | None = None,
    cut: int | tuple[int, int] | None = None,
    valid: NDArray[np.bool_] | None = None,
    image: NDArray[np.uint8] | None = None,
) -> Iterator[tuple[Any, list[Any]]]:
    """Cut a mask into blocks, each with its pieces; beyond the grid nothing is missing."""
    from geo.cracks.branch_sums import WIDTH_OPTIONS
    from geo.cracks.light import Picture
    from geo.cracks.pieces import pieces

    around = np.pad(np.ones(mask.shape, bool) if valid is None else valid, 1, mode="edge")
    for window in windows_of(grid, cut):
        here, halo = window.slices_in(grid.window), window.pad(1).slices_in(grid.window.pad(1))
        weights = (mask * np.uint8(200) if probability is None else probability)[here]
        light = None
        if image is not None:
            seen = window.pad(WIDTH_OPTIONS.reach_px).intersection(grid.window)
            part = seen.slices_in(grid.window)
            known = np.ones(mask.shape, bool) if valid is None else valid
            light = Picture.of_bands(image[part], known[part], seen)
        yield window, pieces(mask[here], weights, window, grid, around[halo], light)


def join(pieces: list[Any], grid: Any) -> list[Any]:
    """Join the pieces of any blocks to whole cracks, by topmost, then leftmost pixel."""
    from geo.cracks.seams import crack_of_each, unite

    whole = [piece for piece in pieces if not len(piece.seam_pixels)]
    cut = [piece for piece in pieces if len(piece.seam_pixels)]
    if cut:
        counts = np.array([len(piece.seam_pixels) for piece in cut])
        crack = crack_of_each(np.concatenate([piece.seam_pixels for piece in cut]), counts)
        groups: list[list[Any]] = [[] for _ in range(int(crack.max()) + 1)]
        for number, piece in zip(crack, cut, strict=True):
            groups[number].append(piece)
        whole += unite(groups, grid)
    return sorted(whole, key=lambda piece: (piece.top, piece.left))


def write_parts(
    folder: Path,
    grid: Any,
    mask: NDArray[np.bool_],
    probability: NDArray[np.uint8] | None = None,
    cut: int | tuple[int, int] | None = None,
    valid: NDArray[np.bool_] | None = None,
    image: NDArray[np.uint8] | None = None,
    **row: Any,
) -> list[Path]:
    """Write the part of each block of a mask; keywords are those of `InspectedRow.of`."""
    from geo.cracks.parts import InspectedRow, write_part
    from geo.imagery.mosaic import Block

    folder.mkdir(parents=True, exist_ok=True)
    paths, told = [], {"failures": (), "seconds": 0.0, "grid": grid, **row}
    for window, found in pieces_of(grid, mask, probability, cut, valid, image):
        seen = (np.ones(mask.shape, bool) if valid is None else valid)[
            window.slices_in(grid.window)
        ]
        block = Block(f"r{window.row_off:05d}_c{window.col_off:05d}", window)
        paths.append(folder / f"{block.block_id}.parquet")
        write_part(paths[-1], found, InspectedRow.of(block, seen, **told))
    return paths


def write_roads(path: Path, lines: Any, crs: Any = UTM32, **columns: Any) -> Path:
    """Write road lines, (x, y) points each, with columns, as a GeoPackage."""
    import geopandas
    import shapely

    shapes = [shapely.LineString(line) for line in lines]
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs).to_file(path, driver="GPKG")
    return path


def tiny_released(**changes: Any) -> Any:
    """Make the config of the authors' networks at a sixteenth of their width."""
    from wpcrack.released_weights import RELEASED

    widths = {"cam_channels": 8, "recon_channels": 14, "decoder_widths": (8,) * 5}
    return RELEASED.model_copy(update={"width_divisor": 16, **widths, **changes})


def noise_set(folder: Path, *, train: int, val: int, side: int) -> Any:
    """Write images of noise, every other one labeled crack; give them as an ImageLevelSet."""
    from wpcrack.data.read import ImageLevelSet, Item

    items = []
    for k in range(train + val):
        path = folder / f"{k}.png"
        if not path.exists():
            noise = np.random.default_rng(k).integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(noise).save(path)
        split = "train" if k < train else "val"
        items.append(Item(path, k % 2 == 0, path.stem, 0, 0, side, side, split))
    return ImageLevelSet(folder, tuple(items))


def tiny_batch(labels: Any, *, seed: int = 0, side: int = 64, shard: Any = None) -> Any:
    """Make the part of a batch of noise that one rank reads; a third of its cells are erased.

    Args:
        labels: 1 for each crack image of the global batch, 0 for each road image.
        seed: of the noise.
        side: of the images, in pixels.
        shard: which part; None: all.
    """
    import torch

    from wpcrack.data.batch import Batch
    from wpcrack.data.batches import Shard

    shard, g = shard or Shard(), torch.Generator().manual_seed(seed)
    image = torch.rand(len(labels), 3, side, side, generator=g)
    erased = (torch.rand(len(labels), 1, side, side, generator=g) < 0.3).float()
    part = shard.of(len(labels))
    mine = slice(part.start, part.stop)
    return Batch(
        image=image[mine],
        has_crack=torch.tensor(labels, dtype=torch.float32)[mine],
        erased=erased[mine],
        images=torch.tensor(len(labels) / shard.ranks),
        cracks=torch.tensor(max(sum(labels), 1.0) / shard.ranks),
    )


def in_float64(batch: Any) -> Any:
    """Give a batch in float64, to compare sums that are added in another order."""
    from wpcrack.data.batch import Batch

    floats = batch.image.double(), batch.has_crack.double(), batch.erased.double()
    return Batch(*floats, batch.images, batch.cracks)


def tiny_learner(config: Any = None) -> Any:
    """Make networks with teacher and optimizers, in the modes of a training."""
    import torch

    from wpcrack.training.stages import Learner

    made = Learner(config or tiny_config(), torch.device("cpu"))
    made.nets.train()
    for module in made.nets.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return made


def weights_of(module: Any) -> dict[str, Any]:
    """Copy the weights of a module."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed_tensors(module: Any, before: dict[str, Any]) -> set[str]:
    """Name the tensors of a module that are not those of `weights_of` any more."""
    return {name for name, value in module.state_dict().items() if not value.equal(before[name])}


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
        """Compute the blocks; with a storage of blocks in a folder that nobody else sees."""
        from jobs.infer.block_store import BlockStore
        from jobs.infer.worker import BlockWorker

        store = BlockStore.of(job)
        if store is not None:
            plan = plan.moved_to(Path(tempfile.mkdtemp(dir=job.out.parent)))
        worker = BlockWorker(plan, factory(), store)
        with ThreadPoolExecutor(self.threads) as calls:
            results = calls.map(worker.run, todo) if self.threads > 1 else map(worker.run, todo)
            for count in range(len(todo)):
                if count == self.stop_after:
                    raise KeyboardInterrupt
                result = next(results)
                self.computed.append(result.block_id)
                yield result


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


def descendants(pid: int) -> list[int]:
    """List the processes that a process started, and theirs."""
    started: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            started += map(int, path.read_text().split())
    return [*started, *(one for child in started for one in descendants(child))]


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
