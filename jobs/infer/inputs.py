"""What an inference job starts from: its tiles on one grid, and its trained model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2

from geo.errors import InputError
from geo.files import readable
from geo.imagery.find import Scan, scan, summary
from geo.imagery.headers import Tile
from geo.imagery.mosaic import Mosaic
from geo.imagery.placing import MOST_RESAMPLING, resampling, true_gsd_m
from geo.imagery.suspect import suspicions
from jobs.infer.job import InferJob
from wpcrack.errors import CheckpointError
from wpcrack.inference.graph import require_torch_or_graph
from wpcrack.inference.predict import Engine, WindowPredictor
from wpcrack.model import CONFIG, WEIGHTS, find_model, read_info, run_name

MOST_GSD_RATIO = 1.5
"""Networks see cracks as wide in pixels as they were trained; beyond this factor they are lost."""

READ_BYTES = 2**20
"""Files are hashed in pieces of this size."""


def open_mosaic(job: InferJob, model_gsd_mm: float | None, say: Callable[[str], None]) -> Mosaic:
    """Find the tiles of a job and place them on one grid.

    Args:
        job: Names the tiles, and what the user decides about the grid.
        model_gsd_mm: Pixel size of the model's training images; None: photographs, any size.
        say: Receives what the user should know.

    Raises:
        InputError: No usable tile, an output among the inputs, an unusable area, pixels of quite
            another size than asked for, or a tile that cannot be used if that is to end the job.
    """
    refuse_among_tiles(job.out, job.tiles)
    say("reading the headers of the tiles")
    found = scan(job.tiles, job.patience)
    _refuse_outputs_as_tiles(job, found)
    mosaic = job.mosaic(found)
    _report_problems(job, mosaic, say)
    for sentence in suspicions(mosaic):
        say(f"warning: {sentence}")
    if model_gsd_mm is not None:
        mosaic = _fit_to_model(job, mosaic, model_gsd_mm, say)
    return job.limit(mosaic)


def _report_problems(job: InferJob, mosaic: Mosaic, say: Callable[[str], None]) -> None:
    if not mosaic.problems:
        return
    if job.on_bad_tile == "stop":
        raise InputError(
            f"{summary(mosaic.problems)}; repair that, or set on_bad_tile=record to leave it out"
        )
    say(f"left out: {summary(mosaic.problems)}")


def _fit_to_model(
    job: InferJob, mosaic: Mosaic, model_gsd_mm: float, say: Callable[[str], None]
) -> Mosaic:
    """Bring imagery of quite another pixel size to that of the model, and say so.

    Raises:
        InputError: It is of a size that cannot be brought there.
    """
    _warn_of_other_pixels(mosaic, model_gsd_mm, say)
    gsd_mm = 1000 * mosaic.grid.gsd_m
    factor = resampling(gsd_mm, model_gsd_mm)
    if factor <= MOST_GSD_RATIO or job.gsd_mm or job.resample == "never":
        return mosaic
    if factor > MOST_RESAMPLING:
        raise InputError(
            f"the pixels of most of the imagery have {gsd_mm:.3g} mm, and those of the model's "
            f"training images {model_gsd_mm:g} mm: that is {factor:g} x, and imagery is "
            f"resampled by at most {MOST_RESAMPLING:g} x; give another model, set gsd_mm, or keep "
            "the pixels of the tiles with resample=never"
        )
    say(f"resampling to {model_gsd_mm:g} mm; resample=never keeps the pixels of the tiles")
    return Mosaic.build(
        Scan(
            tuple(tile for tile in mosaic.tiles if isinstance(tile, Tile)),
            mosaic.problems,
            tuple(tile for tile in mosaic.tiles if not isinstance(tile, Tile)),
        ),
        mosaic.grid.crs,
        gsd_m=model_gsd_mm / 1000,
        stretch=mosaic.stretch,
        reading=mosaic.reading,
    )


def _warn_of_other_pixels(mosaic: Mosaic, model_gsd_mm: float, say: Callable[[str], None]) -> None:
    opened = [tile for tile in mosaic.tiles if isinstance(tile, Tile)]
    sizes = {tile.path: 1000 * true_gsd_m(tile, mosaic.grid.crs) for tile in opened}
    other = [path for path, mm in sizes.items() if resampling(mm, model_gsd_mm) > MOST_GSD_RATIO]
    if other:
        say(
            f"warning: {len(other)} of {len(opened)} tiles have pixels that differ from the "
            f"{model_gsd_mm:g} mm of the model's training images by more than {MOST_GSD_RATIO} x, "
            f"like {other[0]} with {sizes[other[0]]:.3g} mm"
        )


def refuse_among_tiles(out: Path, tiles: str | Sequence[str]) -> None:
    """Refuse an output among the tiles: the next run would take its picture for a tile.

    Raises:
        InputError: It lies in a folder of them.
    """
    for value in [tiles] if isinstance(tiles, str) else tiles:
        folder = Path(os.path.expanduser(value))
        if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"out={out} lies in the folder of the tiles; choose another one")


def _refuse_outputs_as_tiles(job: InferJob, found: Scan) -> None:
    """Refuse what an earlier run wrote, which a glob or a list may name."""
    overview, work = job.overview.resolve(), job.work_folder.resolve()
    named = [tile.path for tile in found.tiles]
    named += [tile.path for tile in found.listed]
    named += [problem.path for problem in found.problems]
    for path in map(Path, named):
        if path == overview or path.is_relative_to(work):
            raise InputError(
                f"{path} is an output of this job, but tiles= names it; narrow tiles= or choose "
                "another out"
            )


@dataclass(frozen=True)
class ModelFiles:
    """Where a model lies and what identifies it.

    Attributes:
        folder: Of the model's files.
        name: Of the run.
        sha256: Of the files.
        gsd_mm: Pixel size of the training images; None: photographs.
    """

    folder: Path
    name: str
    sha256: str
    gsd_mm: float | None = None

    @classmethod
    def stand_in(cls) -> ModelFiles:
        """Return what stands for a predictor that is no trained model."""
        return cls(Path(), "stand-in", "0" * 64)


def model_files(model: Path | None) -> ModelFiles:
    """Find the model of a run folder or model folder, read its description, and hash it.

    None stands for the shipped model.

    Raises:
        CheckpointError: There is no model, its description cannot be read, or it has no graph for
            an installation without torch.
    """
    folder = find_model(model).absolute()
    require_torch_or_graph(folder)
    digest = _hash([folder / WEIGHTS, folder / CONFIG])
    return ModelFiles(folder, readable(run_name(folder)), digest, read_info(folder).gsd_mm)


def load_model(
    model: ModelFiles, threads: int, engine: Engine = "auto", gsd_mm: float | None = None
) -> WindowPredictor:
    """Load the network and give it its share of the machine; runs inside an actor.

    Raises:
        CheckpointError: It is unusable, or no longer the one that the job began with: a training
            that goes on replaces its model.
    """
    from wpcrack.inference.engine import load_predictor

    cv2.setNumThreads(threads)
    predictor = load_predictor(model.folder, engine, threads, gsd_mm=gsd_mm)
    found = ""
    with suppress(FileNotFoundError):  # as between the two renames that replace a folder
        found = _hash([model.folder / WEIGHTS, model.folder / CONFIG])
    if found != model.sha256:
        raise CheckpointError(
            f"model {model.folder} was replaced after the job had begun; give a copy that nobody "
            "changes, or the same command with resume=never, which maps with the model as it is now"
        )
    return predictor


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while piece := stream.read(READ_BYTES):
                digest.update(piece)
    return digest.hexdigest()
