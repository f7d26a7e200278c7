"""What a work folder must say for itself, so that a map can be made of it without tiles or model.

job.json in the work folder: the settings, the model's name and hash, files left out, all blocks.
"""

from __future__ import annotations

import json
import os
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import shapely
from rasterio.crs import CRS

from geo.errors import InputError
from geo.grid import Window
from geo.mosaic import Block, TileProblem

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
