"""The work folder of an inference job: what was asked, and which blocks are finished.

<out stem>.work/
    fingerprint.json   settings, model, grid and input files that the result depends on
    manifest.jsonl     one line per finished or failed block, in the order of completion
    session.json       when the job was last started, and how many blocks it has: for --status
    probability/       with probability=keep: one COG per block, and a VRT over all of them
    job.json           settings, model, blocks: for `wpcrack assemble`
    backdrop.tif       the imagery reduced, as it lies behind the map
    parts/             one file per block, written atomically: the truth about what is finished
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import shapely
from rasterio.crs import CRS

from geo.errors import InputError, OutputError
from geo.grid import Window
from geo.imagery.headers import TileProblem
from geo.imagery.mosaic import Block, Mosaic
from jobs.infer.job import InferJob
from jobs.infer.probability import probability_file
from jobs.infer.worker import BlockResult, Plan
from jobs.settings.map import MapRules
from wpcrack.errors import ConfigError

# ==== jobs.infer.work_folder: What a work folder must say for itself, so that a map can be made of it without tiles or model. job.json in the work folder: the settings, the model's name and hash, files left out, all blocks.


RECORD = "job.json"

BACKDROP = "backdrop.tif"
"""The reduced imagery, as it lies behind the first map."""


@dataclass(frozen=True)
class JobRecord:
    """An inference job as its work folder remembers it.

    Attributes:
        config: settings of the job, as JSON values.
        model: name of the model.
        model_hash: of its files.
        problems: files that are left out.
        blocks: of the whole job, finished or not.
    """

    config: dict[str, Any]
    model: str
    model_hash: str
    problems: tuple[TileProblem, ...]
    blocks: tuple[Block, ...]

    def save(self, root: Path) -> None:
        """Writes job.json; it appears complete or not at all.

        Raises:
            OSError: The folder cannot be written.
        """
        content = {
            "config": self.config,
            "model": self.model,
            "model_hash": self.model_hash,
            "problems": [_problem_row(problem) for problem in self.problems],
            "blocks": [[block.block_id, *astuple(block.window)] for block in self.blocks],
        }
        temporary = root / "job.tmp"
        temporary.write_text(json.dumps(content), "utf-8")
        os.replace(temporary, root / RECORD)

    @classmethod
    def read(cls, root: Path) -> JobRecord:
        """Reads job.json.

        Raises:
            InputError: There is none that can be read.
        """
        try:
            content = json.loads((root / RECORD).read_text("utf-8"))
            problems = tuple(_problem_of(row) for row in content.pop("problems"))
            blocks = tuple(Block(name, Window(*place)) for name, *place in content.pop("blocks"))
            return cls(problems=problems, blocks=blocks, **content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{root} has no {RECORD} that can be read ({type(error).__name__}), so it does not "
                "say what it holds; give the command of `wpcrack infer` again, which writes it"
            ) from error


def _problem_row(problem: TileProblem) -> list[str | None]:
    outline, crs = problem.footprint, problem.crs
    return [
        problem.path,
        problem.reason,
        None if outline is None else outline.wkt,
        None if crs is None else crs.to_wkt(),
    ]


def _problem_of(row: list[str | None]) -> TileProblem:
    path, reason, outline, crs = row
    return TileProblem(
        str(path),
        str(reason),
        None if outline is None else shapely.from_wkt(outline),
        None if crs is None else CRS.from_wkt(crs),
    )


# ==== jobs.infer.work_folder: What a work folder says about the progress of a job: finished blocks, and the last start.


MANIFEST = "manifest.jsonl"
SESSION = "session.json"


@dataclass(frozen=True)
class Session:
    """The last start of a job."""

    started: float
    """Seconds since 1970."""
    blocks: int
    """Of the whole job."""

    def save(self, root: Path) -> None:
        """Writes session.json; it appears complete or not at all."""
        temporary = root / "session.tmp"
        temporary.write_text(json.dumps(asdict(self)), "utf-8")
        os.replace(temporary, root / SESSION)


@dataclass(frozen=True)
class ManifestLine:
    """One line of the manifest."""

    result: BlockResult
    at: float
    """When it was written, in seconds since 1970."""

    def text(self) -> str:
        """The line, with its end."""
        return json.dumps(self.result.row() | {"at": self.at}) + "\n"

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> ManifestLine:
        """The inverse of `text`, after parsing."""
        at = float(row.pop("at"))
        return cls(BlockResult.from_row(row), at)


def read_manifest(root: Path) -> dict[str, ManifestLine]:
    """The last line of each block; the end of one that is just being written is left out."""
    manifest = root / MANIFEST
    text = manifest.read_text("utf-8") if manifest.exists() else ""
    whole, _, _ = text.rpartition("\n")
    lines = (ManifestLine.of_row(json.loads(line)) for line in whole.splitlines())
    return {line.result.block_id: line for line in lines}


def read_session(root: Path) -> Session | None:
    """The last start of the job; None if there was none."""
    try:
        return Session(**json.loads((root / SESSION).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


# ==== jobs.infer.work_folder: What the result of an inference job depends on, and what has changed since the last time.


FORMAT = 2
"""Version of parts and fingerprint; parts of another version are never mixed in."""

ASSEMBLY_KEYS = frozenset({"roads", *MapRules.model_fields}) - {"formats"}
"""Settings that are applied to finished parts: a change leaves all of them standing. Formats
change no row, so they are no part of a fingerprint at all."""

NAMED_INPUTS = 2
"""Changed files that a message spells out."""


@dataclass(frozen=True)
class Fingerprint:
    """What a result depends on; equal fingerprints mean equal results.

    Attributes:
        settings: dotted key -> value of each setting that changes the result.
        inputs: path -> [bytes, mtime in ns, row, col, height, width] of each tile; a file that
            cannot be used has no place.
    """

    settings: dict[str, Any]
    inputs: dict[str, list[int]]

    @classmethod
    def of(cls, job: InferJob, mosaic: Mosaic, model_hash: str) -> Fingerprint:
        """The fingerprint of a job on a mosaic with a model."""
        values = job.model_dump(mode="json")
        chosen = {
            key: values[key] for key in ("threshold", "block_strides", "survey_date", "engine")
        }
        chosen |= {key: values[key] for key in sorted(ASSEMBLY_KEYS)}
        chosen |= {f"lattice.{key}": value for key, value in values["lattice"].items()}
        grid = mosaic.grid
        chosen["model"] = model_hash
        chosen["grid"] = [*grid.transform[:6], *grid.shape, grid.crs.to_wkt()]
        chosen["stretch"] = astuple(mosaic.stretch) if mosaic.stretch else None
        chosen["area"] = mosaic.area.digest if mosaic.area else None
        chosen["format"] = FORMAT
        inputs = {problem.path: _stamp(problem.path) for problem in mosaic.problems}
        for tile, place in zip(mosaic.tiles, mosaic.windows, strict=True):
            inputs[tile.path] = [*tile.stamp, *astuple(place)]
        return cls(chosen, inputs)

    @property
    def run_id(self) -> str:
        """First 12 hex digits of the hash of all of it."""
        return hashlib.sha256(self._text().encode()).hexdigest()[:12]

    def changed_settings(self, other: Fingerprint) -> list[str]:
        """Names of the settings that differ."""
        names = sorted(self.settings.keys() | other.settings.keys())
        return [name for name in names if self.settings.get(name) != other.settings.get(name)]

    def changed_inputs(self, other: Fingerprint) -> list[str]:
        """Paths that are new, gone, or of another size, time or place."""
        paths = sorted(self.inputs.keys() | other.inputs.keys())
        return [path for path in paths if self.inputs.get(path) != other.inputs.get(path)]

    def place(self, path: str) -> Window | None:
        """Where a tile lies on the mosaic's grid; None for one that is not part of it."""
        place = self.inputs.get(path, [])[2:]
        return Window(*place) if place else None

    def save(self, path: Path) -> None:
        """Writes the fingerprint as JSON; the file appears complete or not at all."""
        temporary = path.with_suffix(".tmp")
        temporary.write_text(self._text(), encoding="utf-8")
        os.replace(temporary, path)

    @classmethod
    def read(cls, path: Path) -> Fingerprint | None:
        """A saved fingerprint; None if there is none that can be read."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _text(self) -> str:
        content = {"settings": self.settings, "inputs": self.inputs}
        return json.dumps(content, sort_keys=True, indent=1)

    def difference(self, other: Fingerprint, without: Collection[str] = ()) -> str:
        """What changed from this one to another, for a message; "" if nothing did.

        Args:
            other: a later one.
            without: settings whose change does not count.
        """
        changes = []
        for name in self.changed_settings(other):
            if name in without:
                continue
            before, now = self.settings.get(name), other.settings.get(name)
            brief = name in ("model", "grid", "area", "format")
            changes.append(f"another {name}" if brief else f"{name} was {before}, is {now}")
        if paths := self.changed_inputs(other):
            more = f" and {len(paths) - NAMED_INPUTS} more" if len(paths) > NAMED_INPUTS else ""
            changes.append(f"other inputs: {', '.join(paths[:NAMED_INPUTS])}{more}")
        return "; ".join(changes)


def _stamp(path: str) -> list[int]:
    """Size and time of a file; zeros for one that has vanished."""
    try:
        stat = os.stat(path)
    except OSError:
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]


LOCK = ".lock"
"""Held while a process works in the folder."""

LOCK_PATIENCE_S = 0.5
"""`--status` holds the lock for a moment to see whether it is free."""

OWN = frozenset(
    {"fingerprint.json", "fingerprint.tmp", MANIFEST, "manifest.tmp", SESSION, "session.tmp"}
    | {"parts", "probability", LOCK, RECORD, "job.tmp", BACKDROP}
)
"""What a work folder may hold."""


@contextmanager
def open_work(job: InferJob, plan: Plan, fingerprint: Fingerprint) -> Iterator[WorkFolder]:
    """Opens the work folder of a job as `resume` asks for, and keeps other processes out of it.

    Raises:
        ConfigError: The folder belongs to other settings or inputs, to another running process,
            or to nobody that we know.
        OutputError: The folder cannot be written.
    """
    root = job.work_folder
    _refuse_foreign(root)
    with explained(root):
        plan.parts.mkdir(parents=True, exist_ok=True)
        _make_probability(plan)
        lock = (root / LOCK).open("w")
    with lock:
        _acquire(lock.fileno(), root)
        with explained(root):
            _sweep(job, plan)
            _prepare(root, job, plan, fingerprint)
            Session(time.time(), len(plan.blocks)).save(root)
        yield WorkFolder(root, plan)


def finished_blocks(job: InferJob, plan: Plan, now: Fingerprint) -> list[BlockResult]:
    """Results that a start of the job would take over; reads only the manifest, writes nothing."""
    before = Fingerprint.read(job.work_folder / "fingerprint.json")
    if before is None or job.resume == "never" or before.difference(now, ASSEMBLY_KEYS):
        return []
    lines = read_manifest(job.work_folder)
    return [
        line.result
        for block in plan.blocks
        if (line := lines.get(block.block_id)) and line.result.status != "failed"
    ]


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turns what the file system refuses into a sentence."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"the work folder {root} cannot be written ({error}); check its folder and the free "
            "space, or choose another out"
        ) from error


def _refuse_foreign(root: Path) -> None:
    """Never works, and above all never deletes, in a folder that holds something else."""
    strange = sorted({path.name for path in root.iterdir()} - OWN) if root.is_dir() else []
    if strange or (root.exists() and not root.is_dir()):
        what = f"holds {strange[0]}" if strange else "is a file"
        raise ConfigError(
            f"{root} is where finished blocks are kept, but {what}, which is not of this program; "
            "move it away or choose another out"
        )


def _acquire(lock: int, root: Path) -> None:
    end = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise ConfigError(
                    f"another process works in {root}; wait for its end or choose another out"
                ) from None
            time.sleep(LOCK_PATIENCE_S / 10)
        else:
            return


def _sweep(job: InferJob, plan: Plan) -> None:
    """Removes the unfinished files of a process that was killed; the lock says that it is gone."""
    for path in (
        *job.out.absolute().parent.glob(f".{glob.escape(job.out.stem)}.*.tmp.gpkg*"),
        *plan.parts.glob(".*.tmp*"),
        *(plan.parts.parent / "probability").glob(".*.tmp*"),
        *plan.parts.parent.glob(".*.tmp*"),
    ):
        path.unlink(missing_ok=True)


def _prepare(root: Path, job: InferJob, plan: Plan, now: Fingerprint) -> None:
    """Leaves only parts that hold for the present fingerprint, and saves that."""
    before = Fingerprint.read(root / "fingerprint.json")
    if before is None or job.resume == "never":
        _clear(root, plan)
    elif job.resume == "auto" and (difference := before.difference(now, ASSEMBLY_KEYS)):
        raise ConfigError(
            f"{root} holds blocks of another run ({difference}); resume=force keeps what still "
            "holds and computes the rest, resume=never starts anew"
        )
    elif set(before.changed_settings(now)) - ASSEMBLY_KEYS:
        _clear(root, plan)
    else:
        _drop_changed(root, plan, before, now)
    now.save(root / "fingerprint.json")


def _make_probability(plan: Plan) -> None:
    if plan.probability is not None:
        plan.probability.mkdir(exist_ok=True)


def _clear(root: Path, plan: Plan) -> None:
    (root / "fingerprint.json").unlink(missing_ok=True)
    (root / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(plan.parts)
    plan.parts.mkdir()
    shutil.rmtree(root / "probability", ignore_errors=True)
    _make_probability(plan)


def _drop_changed(root: Path, plan: Plan, before: Fingerprint, now: Fingerprint) -> None:
    """Removes the parts of blocks whose windows saw an input that has changed."""
    paths = before.changed_inputs(now)
    places = [place for path in paths for place in (before.place(path), now.place(path)) if place]
    reach = [place.pad(plan.lattice.window) for place in places]
    stale = [b for b in plan.blocks if any(b.window.intersection(area) for area in reach)]
    WorkFolder(root, plan).discard(stale)


class WorkFolder:
    """Finished blocks on disk; survives any end of the process that writes it."""

    def __init__(self, root: Path, plan: Plan) -> None:
        self.root = root
        self.plan = plan

    @property
    def manifest(self) -> Path:
        """One JSON line per block."""
        return self.root / MANIFEST

    def results(self) -> dict[str, BlockResult]:
        """The last result of each block of the plan whose part exists.

        A part without a line in the manifest was finished as the job was killed: its line is
        written now. A part that cannot be read is computed again.
        """
        known = read_manifest(self.root)
        results = {}
        for block in self.plan.blocks:
            if not self.plan.is_complete(block):
                continue
            line = known.get(block.block_id)
            result = line.result if line else self.plan.stored(block)
            if line is None and result is not None:
                self.record(result)
            if result is not None:
                results[block.block_id] = result
        return results

    def record(self, result: BlockResult) -> None:
        """Appends a line to the manifest."""
        with explained(self.root), self.manifest.open("a", encoding="utf-8") as stream:
            stream.write(ManifestLine(result, round(time.time(), 3)).text())

    def discard(self, blocks: Sequence[Block]) -> None:
        """Removes parts, and rewrites the manifest without them or a line that a kill cut short."""
        for block in blocks:
            self.plan.part(block).unlink(missing_ok=True)
            stored = probability_file(self.root / "probability", block)
            stored.unlink(missing_ok=True)  # also of a start that kept it, while this one does not
        block_ids = {block.block_id for block in blocks}
        kept = [line for name, line in read_manifest(self.root).items() if name not in block_ids]
        temporary = self.manifest.with_suffix(".tmp")
        temporary.write_text("".join(line.text() for line in kept), "utf-8")
        os.replace(temporary, self.manifest)
