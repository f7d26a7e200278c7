"""What a work folder's log says: the job as it was last started, and a line per block.

job.jsonl is the job's memory. Its first line decides what of the parts beside it still holds.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import shapely
from affine import Affine
from pydantic import BaseModel, ConfigDict, Field
from rasterio.crs import CRS
from rasterio.errors import CRSError

from geo.addresses import all_without_secrets, without_secrets
from geo.cracks.parts import InspectedRow
from geo.errors import first_line
from geo.files import whole_file
from geo.grid import Grid, Window
from geo.imagery.headers import TileProblem
from geo.imagery.mosaic import Block, Mosaic
from geo.imagery.opening import is_remote
from geo.options import MapRules
from jobs.infer.inputs import ModelFiles
from jobs.infer.job import InferJob
from jobs.infer.plan import Plan
from jobs.runtime.folder import DAMAGE, require_plain
from wpcrack.errors import ConfigError

LEAST_PIXEL_M = 1e-6
"""Smaller pixels are those of a damaged log; their area may round to 0."""

LOG = "job.jsonl"

OLD = ("fingerprint.json", "manifest.jsonl", "session.json", "job.json")
"""Of the version that kept all this in four files."""

FORMAT = 3
"""Version of parts and log; parts of another version are never mixed in."""

BLOCK_KEYS = ("threshold", "block_strides", "engine", "nodata", "band4")
"""Settings that decide what lies in a part, besides those of the lattice."""

MAP_KEYS = frozenset({"roads", *MapRules.model_fields}) - {"formats", "parquet_rows"}
"""Settings that are applied to finished parts: a change leaves all of them standing. Formats
change no row, so they are no part of a run's identity at all."""

BLOCK_NAME = re.compile(r"\w+", re.ASCII)
"""It is part of the names of files, and leads to no other folder."""

NAMED_INPUTS = 2
"""Changed files that a message spells out."""


@dataclass(frozen=True)
class JobRecord:
    """A job as its work folder remembers it; a map can be made of it without tiles or model.

    Records of equal `run_id` have equal results.

    Attributes:
        started: the last start, seconds since 1970.
        config: all settings, as JSON values.
        model, model_hash: name of the model, and hash of its files.
        ground: grid (transform, rows, cols, CRS), stretch and area, as JSON values.
        inputs: path -> [bytes, mtime in ns, row, col, height, width] of each tile; a file that
            cannot be used has no place.
        problems: files that are left out.
        blocks: of the whole job, finished or not.
        roads: hash of what the map takes of its roads; None without any.
    """

    started: float
    config: dict[str, Any]
    model: str
    model_hash: str
    ground: dict[str, Any]
    inputs: dict[str, list[int]]
    problems: tuple[TileProblem, ...]
    blocks: tuple[Block, ...]
    roads: str | None = None

    @classmethod
    def of(
        cls, job: InferJob, plan: Plan, model: ModelFiles, started: float, roads: str | None = None
    ) -> JobRecord:
        """Return the record of a job that starts."""
        mosaic, grid = plan.mosaic, plan.mosaic.grid
        ground = {
            "grid": [*grid.transform[:6], *grid.shape, grid.crs.to_wkt()],
            "stretch": list(astuple(mosaic.stretch)) if mosaic.stretch else None,
            "area": mosaic.area.digest if mosaic.area else None,
        }
        return cls(
            started=started,
            config=all_without_secrets(settings_anywhere(job)),
            model=model.name,
            model_hash=model.sha256,
            ground=ground,
            inputs=_inputs(mosaic),
            problems=mosaic.problems,
            blocks=plan.blocks,
            roads=roads,
        )

    @property
    def model_label(self) -> str:
        """Name and hash of the model in a few characters, for the attribute `model`."""
        return f"{self.model}@{self.model_hash[:12]}"

    @property
    def settings(self) -> dict[str, Any]:
        """Dotted key -> value of each setting that changes the result."""
        chosen = {key: self.config[key] for key in (*BLOCK_KEYS, *sorted(MAP_KEYS))}
        chosen |= {f"lattice.{key}": value for key, value in self.config["lattice"].items()}
        return chosen | self.ground | {"model": self.model_hash, "format": FORMAT}

    @property
    def run_id(self) -> str:
        """First 12 hex digits of the hash of settings, inputs and roads."""
        content: dict[str, Any] = {"settings": self.settings, "inputs": self.inputs}
        content |= {"roads": self.roads} if self.roads else {}
        text = json.dumps(content, sort_keys=True, indent=1)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def changed_settings(self, other: JobRecord) -> list[str]:
        """Return the names of the settings that differ and decide what lies in a part."""
        changed = _differences(self.settings, other.settings)
        return [name for name in changed if name not in MAP_KEYS]

    def changed_inputs(self, other: JobRecord) -> list[str]:
        """Return the paths that are new, gone, or of another size, time or place."""
        return _differences(self.inputs, other.inputs)

    def place(self, path: str) -> Window | None:
        """Return where a tile lies on the grid; None for one that is not part of it."""
        place = self.inputs.get(path, [])[2:]
        return Window(*place) if place else None

    def difference(self, other: JobRecord) -> str:
        """Say why parts of this record do not hold for a later one; "" if all of them do."""
        changes = []
        for name in self.changed_settings(other):
            before, now = self.settings.get(name), other.settings.get(name)
            brief = name in ("model", "grid", "area", "format")
            changes.append(f"another {name}" if brief else f"{name} was {before}, is {now}")
        if paths := self.changed_inputs(other):
            more = f" and {len(paths) - NAMED_INPUTS} more" if len(paths) > NAMED_INPUTS else ""
            changes.append(f"other inputs: {', '.join(paths[:NAMED_INPUTS])}{more}")
        return "; ".join(changes)

    def text(self) -> str:
        """Return the first line of the log, with its end."""
        problems = [_problem_row(problem) for problem in self.problems]
        blocks = [[block.block_id, *astuple(block.window)] for block in self.blocks]
        content = {"format": FORMAT, **vars(self), "problems": problems, "blocks": blocks}
        return json.dumps(content) + "\n"

    @classmethod
    def of_text(cls, text: str) -> JobRecord:
        """Return the inverse of `text`.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: It is something else.
        """
        content = json.loads(text)
        if (found := content.pop("format")) != FORMAT:
            raise ValueError(f"its format is {found}, not {FORMAT}")
        problems = tuple(_problem_of(row) for row in content.pop("problems"))
        blocks = tuple(_block_of(*row) for row in content.pop("blocks"))
        record = cls(problems=problems, blocks=blocks, **_Noted.model_validate(content).values())
        if not record.run_id:  # asks for every setting
            raise ValueError("it has no settings")
        return record


def settings_anywhere(job: BaseModel) -> dict[str, Any]:
    """Return all settings as JSON values; tiles and roads are found from any folder.

    Other commands read them later: `assemble` the roads, `review` the tiles.
    """
    config = job.model_dump(mode="json")
    for section, key in ((config, "tiles"), (config["roads"], "path")):
        if given := section.get(key):
            section[key] = _absolute(given)
    return config


def _absolute(given: str | list[str]) -> str | list[str]:
    if isinstance(given, list):
        return [str(_absolute(one)) for one in given]
    return given if is_remote(given) else os.path.abspath(os.path.expanduser(given))


class _Noted(BaseModel):
    """What a record says besides problems and blocks, as JSON; more settings than these."""

    model_config = ConfigDict(extra="forbid", strict=True)

    class Settings(BaseModel):
        """Settings that are asked for when a map is made again."""

        model_config = ConfigDict(extra="allow", strict=True)

        tiles: str | list[str]
        threshold: float = Field(gt=0, le=1)
        engine: str
        lattice: dict[str, Any]

    class Ground(BaseModel):
        """Grid, stretch and area."""

        model_config = ConfigDict(extra="forbid")

        grid: tuple[float, float, float, float, float, float, int, int, str]
        stretch: tuple[float, float] | None
        area: str | None

    started: float = Field(allow_inf_nan=False)
    config: Settings
    model: str
    model_hash: str
    ground: Ground
    inputs: dict[str, list[int]]
    roads: str | None = None

    def values(self) -> dict[str, Any]:
        """Return the values, of which the grid is one that can be."""
        *transform, rows, cols, system = self.ground.grid
        if not all(map(math.isfinite, transform)) or min(rows, cols) < 1:
            raise ValueError("its grid is none")
        grid = Grid(Affine(*transform), CRS.from_wkt(system), (rows, cols))
        if not grid.crs.is_projected or not LEAST_PIXEL_M < grid.gsd_m < math.inf:
            raise ValueError("its grid is none")
        return self.model_dump(mode="json")


def _block_of(name: str, *place: int) -> Block:
    """Return a block whose name, which names its files, leads nowhere else."""
    if not BLOCK_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a block")
    return Block(name, Window(*place))


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [key for key in sorted(one.keys() | other) if one.get(key) != other.get(key)]


def _inputs(mosaic: Mosaic) -> dict[str, list[int]]:
    inputs = {problem.path: _stamp(problem.path) for problem in mosaic.problems}
    placed, twins = zip(mosaic.tiles, mosaic.windows, strict=True), dict.fromkeys(inputs, 1)
    rows = [(without_secrets(tile.path), *tile.stamp, *astuple(place)) for tile, place in placed]
    for name, *row in sorted(rows):
        count = twins[name] = twins.get(name, 0) + 1  # addresses may differ in their query alone
        inputs[name if count == 1 else f"{name} ({count})"] = row
    return inputs


def _stamp(path: str) -> list[int]:
    """Return size and time of a file; zeros for one that has vanished."""
    try:
        stat = Path(path).stat()
    except OSError:
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]


def _problem_row(problem: TileProblem) -> list[str | None]:
    outline, crs = problem.footprint, problem.crs
    texts = (outline.wkt if outline else None, crs.to_wkt() if crs else None)
    return [problem.path, problem.reason, *texts]


def _problem_of(row: list[Any]) -> TileProblem:
    path, reason, outline, crs = row
    shape = shapely.from_wkt(outline) if outline else None
    return TileProblem(path, reason, shape, CRS.from_wkt(crs) if crs else None)


@dataclass(frozen=True)
class BlockLine:
    """What the log says of a block, and when that was written, in seconds since 1970."""

    inspected: InspectedRow
    at: float

    def text(self) -> str:
        """Return the line, with its end; the coverage is left to the part."""
        row = asdict(self.inspected)
        del row["coverage"]
        return json.dumps(row | {"at": self.at}) + "\n"

    @classmethod
    def of_text(cls, text: str) -> BlockLine:
        """Return the inverse of `text`."""
        row = json.loads(text)
        at = float(row.pop("at"))
        if not math.isfinite(at):
            raise ValueError(f"a block was computed at {at}")
        return cls(at=at, inspected=InspectedRow.of_row(row))


DAMAGED = (*DAMAGE, CRSError, shapely.errors.ShapelyError)
"""What reading a damaged log may raise."""


def _is_whole(line: str) -> bool:
    """Return whether the line of a block is not cut short; the part of that block is asked then."""
    return line.startswith("{") and line.endswith("}")


@dataclass(frozen=True)
class JobLog:
    """Content of job.jsonl: the job, and the last line of each block by its name."""

    record: JobRecord
    lines: dict[str, BlockLine]

    @classmethod
    def read(cls, root: Path) -> JobLog | None:
        """Read a log; None if there is none. Lines that are cut short are left out.

        Raises:
            ConfigError: It is damaged, or of another version of this program.
        """
        require_plain(root)
        file = root / LOG
        if not file.exists() and not any((root / name).exists() for name in OLD):
            return None
        try:
            whole, _, _ = file.read_text("utf-8").rpartition("\n")
            first, *others = whole.split("\n")
            record = JobRecord.of_text(first)
            lines = [BlockLine.of_text(text) for text in others if _is_whole(text)]
        except DAMAGED as error:
            reason = f"it has no {LOG}" if isinstance(error, FileNotFoundError) else None
            reason = reason or first_line(error)
            raise ConfigError(
                f"{root} is of another version of this program, or damaged ({reason}); give the "
                "command of `wpcrack infer` again with resume=never, which computes it anew"
            ) from error
        return cls(record, {line.inspected.block_id: line for line in lines})

    @classmethod
    def of_job(cls, job: InferJob) -> JobLog | None:
        """Read the log that a job continues; None if it starts anew.

        Raises:
            ConfigError: As for `read`.
        """
        return None if job.resume == "never" else cls.read(job.work_folder)

    def with_engine(self, job: InferJob) -> InferJob:
        """Return the job with the engine of these blocks, unless it asks for another one."""
        used = self.record.config["engine"]
        return job.model_copy(update={"engine": used}) if job.engine == "auto" else job

    def require_same(self, job: InferJob, now: JobRecord) -> None:
        """Refuse to continue blocks of other settings or inputs, unless `resume` says what to do.

        Raises:
            ConfigError: They are of another run.
        """
        if job.resume == "auto" and (what := self.record.difference(now)):
            raise ConfigError(
                f"{job.work_folder} holds blocks of another run ({what}); resume=force keeps what "
                "still holds and computes the rest, resume=never starts anew"
            )

    def save(self, root: Path) -> None:
        """Write the log as a whole.

        Raises:
            OSError: The folder cannot be written.
        """
        with whole_file(root / LOG) as temporary, temporary.open("w", encoding="utf-8") as stream:
            stream.write(self.record.text())
            stream.writelines(line.text() for line in self.lines.values())

    def without(self, blocks: Sequence[Block]) -> JobLog:
        """Return the log without the lines of some blocks."""
        gone = {block.block_id for block in blocks}
        kept = {name: line for name, line in self.lines.items() if name not in gone}
        return JobLog(self.record, kept)

    def usable_results(self, plan: Plan, now: JobRecord) -> list[InspectedRow]:
        """Return the results that a start would take over."""
        if self.record.difference(now):
            return []
        found = (self.lines.get(block.block_id) for block in plan.blocks)
        return [line.inspected for line in found if line and line.inspected.status != "failed"]
