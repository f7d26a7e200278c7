"""`wpcrack predict`: crack probability, mask and overlay of plain photographs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geo.errors import count_of
from geo.outputs import is_own, require_replaceable
from jobs.runtime.folder import explain_write_errors, hold_output, require_writable
from jobs.runtime.pictures import require_room, write_picture
from jobs.runtime.terminal import say
from wpcrack.data.images import (
    LONGEST_STEM,
    is_named_too_long,
    left_out,
    list_images,
    read_rgb,
)
from wpcrack.errors import NAMED_AT_MOST, ConfigError, DataError
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import DEFAULT_THRESHOLD, Engine, WindowPredictor, predict_image
from wpcrack.model import find_model
from wpcrack.scoring.metrics import mask_at

ENDINGS = ("prob", "mask", "overlay")
"""What the results of a photograph are called: `<stem>_prob.png` and so on."""

MARK, MARK_SHARE = (213, 94, 0), 0.65
"""Color of cracks in the overlay (vermillion of Okabe and Ito), and its share of their pixels."""


@dataclass(frozen=True)
class PredictReport:
    """What was delivered: files, and one sentence for each photograph that could not be read."""

    written: tuple[Path, ...]
    failures: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0: all photographs; 3: delivered, but some could not be read."""
        return 3 if self.failures else 0


def run_predict(
    model: Path | None,
    out: Path,
    images: Sequence[Path],
    *,
    threshold: float = DEFAULT_THRESHOLD,
    engine: Engine = "auto",
    predictor: WindowPredictor | None = None,
) -> PredictReport:
    """Write probability (8 bit), mask (0 / 255) and overlay of each photograph to `out`.

    Photographs that cannot be read, do not fit into memory, or have too long a name, are named
    after all others were delivered.

    Args:
        model: run folder, or its model/ folder; None: the shipped model.
        out: folder, made if need be.
        images: files with distinct stems, and folders of them.
        threshold: of the 8-bit probability / 255.
        engine: what computes the network.
        predictor: takes the model's place, for tests.

    Raises:
        WpcrackError: a missing model, equal stems, or no image that can be read.
        OutputError: `out` cannot be written, or another process writes the results of the same
            photograph there; or one would replace an input, or a file that is not this program's
            own.
    """
    if predictor is None:
        find_model(model)
    paths = _photographs(images, out)
    _require_distinct(paths, out)
    _make_folder(out)
    predictor = predictor or load_predictor(model, engine)
    written: list[Path] = []
    failures: list[str] = []
    for path in paths:
        try:
            _require_short(path)
            require_room(path)
            image = read_rgb(path)
        except (DataError, ConfigError) as error:
            failures.append(str(error))
            continue
        results = [out / f"{path.stem}_{ending}.png" for ending in ENDINGS]
        with hold_output(results[0], str(results[0]), "or choose another --out"):
            probability = predict_image(image, predictor, Lattice())
            mask = mask_at(probability, threshold)
            drawn = (probability, mask.astype(np.uint8) * 255, overlay(image, mask))
            require_replaceable(results)  # edited meanwhile?
            for file, array in zip(results, drawn, strict=True):
                write_picture(file, array)
        written += results
        print(f"{path.name}: {np.count_nonzero(mask) / mask.size:.2%} crack -> {results[-1]}")
    if not written:
        raise DataError("; ".join(failures[:NAMED_AT_MOST]))
    for sentence in failures:
        say(f"left out: {sentence}")
    if failures:
        read = len(paths) - len(failures)
        say(f"{read} of {count_of(len(paths), 'photograph')} are in {out}")
    return PredictReport(tuple(written), tuple(failures))


def overlay(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Paint the pixels of a mask (H, W) into a copy of an image (H, W, 3)."""
    painted = image.copy()
    for channel, color in enumerate(MARK):
        mixed = np.round((1 - MARK_SHARE) * np.arange(256) + MARK_SHARE * color).astype(np.uint8)
        painted[mask, channel] = mixed[image[mask, channel]]
    return painted


def _photographs(given: Sequence[Path], out: Path) -> list[Path]:
    """Replace each folder by the photographs in it, and say what in it is left out.

    One that is named twice, as by its folder and by itself, is taken once.

    Raises:
        DataError: see `list_images`; or the results would lie among the photographs of a folder.
    """
    paths: list[Path] = []
    for path in given:
        if not path.is_dir():
            paths.append(path)
            continue
        if path.resolve() == out.resolve():
            raise DataError(
                f"out={out} is the folder of the photographs, where results would be taken for "
                "photographs the next time; choose another one"
            )
        found = list_images(path).values()
        results = [image for image in found if _is_result(image)]
        paths += [image for image in found if image not in results]
        if results:
            files = count_of(len(results), "file")
            say(f"left out: {files} that `wpcrack predict` wrote to {path}")
        for sentence in left_out(path):
            say(f"left out: {sentence}")
    return list({path.parent.resolve() / path.name: path for path in paths}.values())


def _is_result(path: Path) -> bool:
    """Return whether a file is what an earlier call made of a photograph."""
    return path.stem.endswith(tuple(f"_{ending}" for ending in ENDINGS)) and is_own(path)


def _require_short(path: Path) -> None:
    if is_named_too_long(path):
        raise DataError(
            f"{path} has a name of more than {LONGEST_STEM} bytes, and those of its results would "
            "be too long; rename it"
        )


def _make_folder(out: Path) -> None:
    require_writable(out, f"--out {out}")
    with explain_write_errors(f"--out {out}", "choose another folder"):
        out.mkdir(parents=True, exist_ok=True)


def _require_distinct(images: Sequence[Path], out: Path) -> None:
    if not images:
        raise DataError("no image is given; name at least one")
    equal = [stem for stem, times in Counter(path.stem for path in images).items() if times > 1]
    if equal:
        first = " and ".join(str(path) for path in images if path.stem == equal[0])
        raise DataError(
            f"images with the same stem would overwrite each other's result ({first}); rename one "
            "or predict them into different folders"
        )
    require_replaceable(
        (out / f"{path.stem}_{ending}.png" for path in images for ending in ENDINGS), images
    )
