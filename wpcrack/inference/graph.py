"""The OpenVINO graph of a trained model on disk: mapping with it needs neither torch nor timm.

A graph lies beside the weights, in a folder with a record of what it was made from and of itself.
Where either hash differs, a bit has flipped or the files are of two models, and the graph is not
used: it is made again from the weights where torch is installed, and refused where it is not.
What is hashed is what is used: the files are read once.

* `openvino/`: delivered with the model by the training that made it, weights at half precision,
  with the ranges of its activations for 8-bit numbers.
* `openvino-<hash>/`: kept here at the first use of a model, by what it follows from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wpcrack.errors import CheckpointError, StorageError
from wpcrack.files import whole_file, whole_folder
from wpcrack.inference.eight_bits import Ranges, attach_ranges, measure_ranges
from wpcrack.inference.machine import is_installed, native_bfloat16, openvino, openvino_core
from wpcrack.inference.openvino_engine import OpenVinoPredictor
from wpcrack.model import CONFIG, WEIGHTS, find_model, load_model
from wpcrack.synthetic.pavement import draw_alternating

log = logging.getLogger(__name__)

DELIVERED = "openvino"
"""Folder of the graph that comes with a model."""

GRAPH, CONSTANTS, RECORD = "model.xml", "model.bin", "hashes.json"
"""Files of a graph's folder."""

RANGES = "ranges.json"
"""File beside a graph, for `wpcrack.inference.eight_bits`; it names the graph's hashes, since it is
of use to no other. A graph that was kept gets it where it is first needed: on a processor without
bfloat16. Without ranges a graph runs with single precision."""

RANGE_WINDOWS, CHECK_WINDOWS, RANGE_SIDE, RANGE_SEED = 32, 8, 256, 4_000_037
"""Drawn windows on which ranges are measured, and those on which they are tried; their side in
pixels; their seed."""

LARGEST_SHIFT = 0.005
"""Mean change of the probability up to which 8-bit numbers are used; .0005 with the shipped model,
.002 where zero was no level of the activations: a twentieth of what it marked was another then."""


def load_graph(path: Path | None) -> Any:
    """Return the graph of a run folder or model folder: read if it is there, else made and kept.

    None stands for the shipped model. A model folder that cannot be written to is no obstacle.

    Raises:
        CheckpointError: The model is missing, unreadable or of another architecture; or no graph
            fits it, and torch, which would make one, is not installed.
    """
    folder = find_model(path)
    for place in _places(folder):
        if (graph := _read(place, folder)) is not None:
            return graph
    require_torch_or_graph(folder, found=False)
    # Hashed before it is read: a training that goes on may replace the model meanwhile.
    made_from, place = _made_from(folder), folder / f"{DELIVERED}-{_fingerprint(folder)}"
    graph = _convert(folder)
    shutil.rmtree(place, ignore_errors=True)  # it is not there, or does not fit
    _keep(graph, place, made_from)
    return graph if native_bfloat16() else _read(place, folder) or graph


def require_torch_or_graph(folder: Path, *, found: bool | None = None) -> None:
    """Refuse a model that this installation cannot map with, before any work.

    Args:
        folder: Of the model.
        found: Whether a graph fits it; None: look.

    Raises:
        CheckpointError: No graph fits it, and torch is not installed.
    """
    if is_installed("torch"):
        return
    if found is None:
        found = any(_read(place, folder) is not None for place in _places(folder))
    if not found:
        raise CheckpointError(
            f"model {folder} has no graph that fits its weights, and torch, which would make one, "
            "is not installed; copy the whole model folder again, or predict with it once where "
            "torch is installed and copy it then"
        )


def deliver_graph(folder: Path) -> Path:
    """Write the graph that is delivered with a model folder, at half precision; give its folder.

    Raises:
        CheckpointError: The model cannot be read.
        StorageError: The folder cannot be written.
    """
    try:
        with whole_folder(folder / DELIVERED) as part:
            _write(_convert(folder), part, _made_from(folder), half=True)
            write_ranges(part)
    except (OSError, RuntimeError) as error:
        raise StorageError(
            f"the graph cannot be written to {folder} ({error}); free space or choose another "
            "folder"
        ) from error
    return folder / DELIVERED


def write_ranges(place: Path) -> None:
    """Measure the ranges of a graph on drawn windows; write them beside it.

    There are none if the networks would see something else with them.

    Args:
        place: Folder of the graph.

    Raises:
        OSError: It cannot be written to.
    """
    content = {name: (place / name).read_bytes() for name in (GRAPH, CONSTANTS)}
    graph = openvino_core().read_model(content[GRAPH], content[CONSTANTS])
    drawn = draw_alternating(RANGE_SEED, RANGE_WINDOWS + CHECK_WINDOWS, RANGE_SIDE)
    images = np.stack([window.image for window in drawn])
    measured = measure_ranges(graph, images[:RANGE_WINDOWS])
    ranges = {name: (float(f"{a:.4g}"), float(f"{b:.4g}")) for name, (a, b) in measured.items()}
    if not ranges or _shift(graph, ranges, images[RANGE_WINDOWS:]) > LARGEST_SHIFT:
        log.info("the networks of %s run with single precision: 8 bits would change them", place)
        ranges = {}
    record = {
        "graph": {name: _hash(data) for name, data in content.items()},
        "ranges": ranges,
        "hash": _hash_ranges(ranges),
    }
    with whole_file(place / RANGES) as fresh:
        fresh.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _shift(graph: Any, ranges: Ranges, images: NDArray[np.uint8]) -> float:
    """Return by how much 8-bit numbers change the probability of a pixel, on average."""
    exact, rounded = graph.clone(), graph.clone()
    attach_ranges(rounded, ranges)
    probability = OpenVinoPredictor(rounded, precision="int8")(images)
    return float(np.abs(probability - OpenVinoPredictor(exact, precision="f32")(images)).mean())


# -- places and records ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Record:
    """SHA-256 of files, in hex."""

    made_from: Mapping[str, str]
    """Weights and description of the model."""
    files: Mapping[str, str]
    """Of the graph itself."""

    @classmethod
    def read(cls, place: Path) -> _Record | None:
        """Read the record of a graph's folder; None if there is none that can be read."""
        with suppress(OSError, ValueError, TypeError):
            return cls(**json.loads((place / RECORD).read_text(encoding="utf-8")))
        return None


def _places(folder: Path) -> Sequence[Path]:
    """Return where a graph of this model may lie, the best first."""
    delivered = folder / DELIVERED
    if is_installed("torch"):
        return delivered, folder / f"{DELIVERED}-{_fingerprint(folder)}"
    return delivered, *sorted(folder.glob(f"{DELIVERED}-*"))  # made where torch was installed


def _read(place: Path, folder: Path) -> Any | None:
    """Return the graph in a place; None if there is none or it does not fit the model."""
    if not place.is_dir():
        return None
    record = _Record.read(place)
    try:
        content = {name: (place / name).read_bytes() for name in (GRAPH, CONSTANTS)}
        if record is None or record.files != {n: _hash(data) for n, data in content.items()}:
            log.warning("%s is damaged and is not used", place)
        elif record.made_from != _made_from(folder):
            log.warning("%s belongs to other weights and is not used", place)
        else:
            graph = openvino_core().read_model(content[GRAPH], content[CONSTANTS])
            if not (place / RANGES).exists() and not native_bfloat16():
                with suppress(OSError):  # read-only, or full
                    write_ranges(place)
            attach_ranges(graph, _read_ranges(place, record.files))
            return graph
    except (OSError, RuntimeError) as error:
        log.warning("%s cannot be read (%s) and is not used", place, error)
    return None


def _read_ranges(place: Path, files: Mapping[str, str]) -> Ranges:
    """Return the ranges beside a graph of these hashes; none if they are not of it or damaged."""
    path = place / RANGES
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        ranges: Ranges = record["ranges"]
        if record["graph"] == files and record["hash"] == _hash_ranges(ranges):
            return ranges
    except (OSError, ValueError, TypeError, KeyError):
        pass
    log.warning("%s is damaged or of another graph; its networks run with single precision", path)
    return {}


def _hash_ranges(ranges: Ranges) -> str:
    return _hash(json.dumps(ranges, sort_keys=True).encode())


def _keep(graph: Any, place: Path, made_from: Mapping[str, str]) -> None:
    """Write a graph under a name of its own, then move it: readers see all of it or nothing."""
    fresh = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        fresh.mkdir()
        _write(graph, fresh, made_from, half=False)
        os.rename(fresh, place)
    except (OSError, RuntimeError) as error:  # read-only, full, or another worker was faster
        log.info("the OpenVINO graph was not kept in %s (%s)", place, error)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write(graph: Any, place: Path, made_from: Mapping[str, str], *, half: bool) -> None:
    openvino().save_model(graph, place / GRAPH, compress_to_fp16=half)
    files = {name: _hash((place / name).read_bytes()) for name in (GRAPH, CONSTANTS)}
    record = {"made_from": made_from, "files": files}
    (place / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _made_from(folder: Path) -> dict[str, str]:
    return {name: _hash((folder / name).read_bytes()) for name in (WEIGHTS, CONFIG)}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _fingerprint(folder: Path) -> str:
    """Hash everything that a graph made here follows from: weights, config, code, versions."""
    here = Path(__file__)
    sources = [*here.parents[1].joinpath("networks").glob("*.py")]
    sources += [here.with_name("convert.py"), here.with_name("scales.py")]
    versions = openvino().get_version(), version("torch"), version("timm")
    digest = hashlib.sha256(" ".join(versions).encode())
    for file in (folder / WEIGHTS, folder / CONFIG, *sorted(sources)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _convert(folder: Path) -> Any:
    """Make the graph of a model folder; only here torch is needed."""
    from wpcrack.inference.convert import convert

    model = load_model(folder)
    return convert(model.networks, model.info.scales, model.info.fusion_power)
