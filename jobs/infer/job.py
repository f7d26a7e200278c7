"""What a user can set for `wpcrack infer`."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from geo.options import MapRules
from jobs.runtime.folder import require_plain
from jobs.runtime.objects import as_uri
from jobs.settings.map import Imagery
from wpcrack.config_block import Count, NonNegative
from wpcrack.errors import ConfigError
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import DEFAULT_THRESHOLD, Engine

LEAST_FAILURES = 10
"""A percentage in `max_failed` never stops a job before more than this many failures."""


OVERVIEW = "overview.png"
"""Ends the name of the picture of a map."""

ADDRESS = r"[A-Za-z][A-Za-z0-9+.-]+:/"
"""How addresses begin, also those that a path has eaten a stroke of."""

Probability = Annotated[float, Field(gt=0, le=1)]


def crack_level(threshold: float) -> int:
    """Return the smallest 8-bit probability that is crack: p / 255 >= threshold."""
    return math.ceil(threshold * 255 - 1e-9)


def require_geopackage(out: Path) -> None:
    """Refuse an output of another name.

    Raises:
        ValueError: It is not called *.gpkg, or is an address.
    """
    if re.match(ADDRESS, str(out)):
        raise ValueError(f"out is the address {out}; give the path of a file")
    if out.suffix.lower() != ".gpkg":
        raise ValueError(f"out is {out}; the file is a GeoPackage, name it *.gpkg")


class InferJob(MapRules, Imagery):
    """From georeferenced tiles to a GeoPackage of cracks."""

    model: Path | None = None
    """Run folder of `wpcrack train`, or its folder model/; null: the model that ships with the
    program."""
    out: Path
    """The GeoPackage to write; its work folder, page and pictures lie beside it. With `work` also
    an address like s3://bucket/maps/cracks.gpkg."""
    work: Path | None = None
    """For a map in object storage: folder in which it is made and finished blocks are kept, which
    every node sees; the finished files are copied from there."""
    deliver_to: str | None = None
    """Folder in object storage to which the finished files are copied, such as s3://bucket/maps or
    gs://bucket/maps; an out that is an address sets it."""
    parts: str | None = None
    """Folder in object storage, such as s3://bucket/blocks/city, for nodes that share none:
    finished blocks are copied there, and from there into the work folder, which the driver alone
    sees. A driver with an empty work folder goes on with what is there."""
    resample: Literal["auto", "never"] = "auto"
    """auto: imagery whose pixels differ by more than 1.5 x from those of the model's training
    images is brought to their size, unless gsd_mm is given; never: it is taken as it is."""
    threshold: Probability = DEFAULT_THRESHOLD
    """A pixel is crack from this probability on."""
    lattice: Lattice = Lattice()
    """Windows that the network sees."""
    block_strides: Count = 5
    """Side of a block in strides of the lattice: the unit of work, memory and restart."""
    batch: Count = 4
    """Windows per call of the network."""
    engine: Engine = "auto"
    """What computes the network; auto: torch on a GPU, else openvino where it is installed. Their
    results differ by rounding, so blocks of different engines are not mixed."""
    actors: Count | None = None
    """Processes that hold the model; null: as many as the CPUs allow."""
    cpus_per_actor: Count = 1
    """CPU threads of each of them."""
    gpus_per_actor: NonNegative | None = None
    """GPUs of each of them, may be a fraction; null: one, where there are any."""
    probability: Literal["drop", "keep"] = "drop"
    """keep: the 8-bit probability of each block stays in the work folder as a COG, with a VRT."""
    on_bad_tile: Literal["record", "stop"] = "record"
    """What an unreadable tile means: a row in the layer inspected, or the end of the job."""
    max_failed: Annotated[int, Field(ge=0)] | str = "5%"
    """The job stops beyond this many failed tiles and blocks; a percentage means of the tiles,
    and at least 10."""
    resume: Literal["auto", "never", "force"] = "auto"
    """auto: continue, but refuse a work folder whose blocks have other settings (those of the map
    alone may change: no block depends on them); never: start anew; force: keep what still holds
    and recompute the rest."""

    @model_validator(mode="before")
    @classmethod
    def _take_address(cls, values: Any) -> Any:
        """Read out=s3://bucket/maps/a.gpkg work=W as out=W/a.gpkg deliver_to=s3://bucket/maps."""
        if not isinstance(values, dict):
            return values
        out, work = (str(values.get(key) or "") for key in ("out", "work"))
        if re.match(ADDRESS, work):
            raise ValueError(
                f"work is {work}; a map is made from files under a lock, which object storage does "
                "not have: give a folder that every node sees, or a folder and parts=ADDRESS"
            )
        if not re.match(ADDRESS, out):
            return values
        if not work:
            raise ValueError(
                f"out is {out}, where no map can be made in place; set work=FOLDER, one that every "
                "node sees (or parts=ADDRESS as well): blocks are kept there, and the finished "
                "files are copied to out"
            )
        path, mark, query = out.partition("?")
        folder, _, name = path.rpartition("/")
        return {**values, "out": Path(work) / name, "deliver_to": f"{folder}{mark}{query}"}

    @field_validator("deliver_to", "parts")
    @classmethod
    def _as_uri(cls, address: str | None) -> str | None:
        return address and as_uri(address)

    @model_validator(mode="after")
    def _is_consistent(self) -> InferJob:
        if self.work is not None and self.out.parent != self.work:
            raise ValueError(f"work is {self.work}, but out={self.out} lies elsewhere; drop work")
        if self.parts is not None and not re.match(ADDRESS, self.parts):
            raise ValueError(
                f"parts is {self.parts}; give an address like s3://bucket/blocks/city, or drop it: "
                "blocks are kept in the work folder beside out"
            )
        if isinstance(self.max_failed, str) and not re.fullmatch(
            r"\d{1,2}(\.\d+)?%|100%", self.max_failed
        ):
            raise ValueError(
                f"max_failed is {self.max_failed!r}; write a number or a percentage like 5%"
            )
        require_geopackage(self.out)
        return self

    @property
    def block_px(self) -> int:
        """Side of a block in pixels."""
        return self.block_strides * self.lattice.stride

    @property
    def level(self) -> int:
        """Smallest 8-bit probability that is crack."""
        return crack_level(self.threshold)

    @property
    def work_folder(self) -> Path:
        """Where finished blocks are kept."""
        return self.out.with_name(f"{self.out.stem}.work")

    @property
    def overview(self) -> Path:
        """The picture."""
        return self.out.with_name(f"{self.out.stem}.{OVERVIEW}")

    def failures_allowed(self, n_tiles: int) -> int:
        """Return how many tiles and blocks may fail before the job stops."""
        if isinstance(self.max_failed, int):
            return self.max_failed
        share = Fraction(self.max_failed.removesuffix("%")) / 100  # 0.29 * 100 is below 29
        return max(LEAST_FAILURES, math.floor(share * n_tiles))


def find_work_folder(path: Path) -> Path:
    """Find the work folder that a GeoPackage, a folder with one work folder, or itself means.

    Raises:
        ConfigError: There is none.
    """
    if path.suffix.lower() == ".gpkg":
        work = path.with_suffix(".work")
        if work.is_dir():
            return _plain(work)
        raise ConfigError(f"{path} has no work folder {work.name}; start the job first")
    if not path.is_dir():
        raise ConfigError(f"{path} does not exist; give the GeoPackage of a job or its work folder")
    if path.suffix == ".work":
        return _plain(path)
    works = sorted(path.glob("*.work"))
    if len(works) != 1:
        raise ConfigError(f"{path} holds {len(works)} work folders; give the GeoPackage of a job")
    return _plain(works[0])


def _plain(work: Path) -> Path:
    require_plain(work)
    return work
