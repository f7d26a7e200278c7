"""Whole cracks of regions: what a region decides alone, and what crosses the sides of regions.

What happens at one place is decided by what lies within the halo of linking and of networks. So a
region that knows all pieces within the halo around it finds the links of its own pieces as the
whole map would. Pieces, cracks and networks that hang together are a group. A group that holds
nothing but a region's own pieces is decided there: its rows are written at once. All other groups
cross a side; their pieces, and all that lies within the halo of them, are given on, and the very
same linking is run once more on these: first in windows that lie over the sides and corners of
regions, shifted by half a region, then on the few that cross those sides, too
(`geo.layers.region_rest`).

So a map made of regions has the same rows as one made at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from geo.arrays import BoolArray, IntArray
from geo.cracks.collect import BranchCollector
from geo.cracks.pixel_set import graph_components
from geo.cracks.regions import (
    MEASURED,
    WHOLE,
    Region,
    RegionFiles,
    TableWriter,
    boxes,
    cross_shifted,
    join,
    lie_in,
    merge,
    shifted_windows,
    side_of,
)
from geo.files import whole_file, write_text
from geo.grid import Grid
from geo.layers.crack_rows import MapIds, crack_rows, network_rows, outline_rows
from geo.layers.part_of_map import part_of_map
from geo.layers.roads import RoadNetwork, Segment
from geo.layers.schema import CRACK, NETWORK, OUTLINE, Layer
from geo.layers.segments import RoadSurvey
from geo.layers.totals import MapTotals
from geo.layers.whole_map import CrackMap, find_cracks
from geo.options import AssembleOptions, MapRules

ROW_LAYERS = (CRACK, NETWORK, OUTLINE)
"""Layers of which each region has rows of its own."""

FORMAT = 3
"""Version of the results of regions."""


@dataclass(frozen=True)
class MapSetting:
    """What all regions share.

    Attributes:
        grid: of the mosaic.
        options: of the map.
        segments: of its roads; None without roads.
    """

    grid: Grid
    options: AssembleOptions
    segments: tuple[Segment, ...] | None

    @property
    def halo_px(self) -> int:
        """How far around a region pieces have a part in it."""
        return halo_px(self.options, self.grid)

    def survey(self) -> RoadSurvey | None:
        """Return an empty survey of the roads; None without roads."""
        options = self.options
        if self.segments is None or options.roads is None:
            return None
        network = RoadNetwork(self.segments, self.grid.unit_m)
        return RoadSurvey(network, self.grid, options.type, options.roads.lane_m)


def halo_px(rules: MapRules, grid: Grid) -> int:
    """Return how far around a place decides what is found there: links follow networks."""
    halo_m = rules.link.halo_m + rules.network.halo_m
    return int(np.ceil(halo_m / min(grid.pixel_m))) + 1


@dataclass(frozen=True, eq=False)
class RegionMap:
    """A decided part of a map: cracks and networks, and the tables of their pieces."""

    found: CrackMap
    tables: Iterable[pa.Table]


@dataclass(frozen=True)
class RegionSteps:
    """The work on regions, and where its results lie; a worker is given one of these.

    Attributes:
        regions: of the whole map, without the names of their parts, which are many: a region
            that is to be merged comes with them.
        folder: of all files.
        at: of the map.
        keys: of the merged region by its name: hashes of what it is made of.
        key: of what is decided, which depends on all regions and all settings.
    """

    regions: tuple[Region, ...]
    folder: Path
    at: MapSetting
    keys: Mapping[str, str]
    key: str

    @classmethod
    def of(cls, regions: Sequence[Region], folder: Path, at: MapSetting) -> RegionSteps:
        """Name the results, and remove those of other blocks or settings."""
        common = [FORMAT, *at.grid.transform[:6], *at.grid.shape, at.grid.crs.to_wkt(), at.halo_px]
        keys = {}
        for region in regions:
            stats = [(part.name, part.stat()) for part in region.parts]
            stamps = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
            keys[region.name] = _digest([*common, astuple(region.window), stamps])
        roads = [[*astuple(replace(s, line=None)), s.line.wkb_hex] for s in at.segments or ()]
        key = _digest([keys, at.options.model_dump(mode="json"), roads])
        known = {*(f"{name}.{value}" for name, value in keys.items()), key}
        for path in folder.iterdir():
            name, _, rest = path.name.partition(".")
            if name and not {f"{name}.{rest.partition('.')[0]}", rest.partition(".")[0]} & known:
                path.unlink()
        places = tuple(replace(region, parts=()) for region in regions)
        return cls(places, folder, at, keys, key)

    def merge_files(self, region: Region) -> RegionFiles:
        """Return the files of `merge`."""
        return RegionFiles(self.folder, region.name, self.keys[region.name])

    @property
    def join_files(self) -> RegionFiles:
        """Return the files of `geo.cracks.regions.join`."""
        return RegionFiles(self.folder, "all", self.key)

    def decision_files(self, region: Region) -> RegionFiles:
        """Return the files of `decide`, or of `settle` of a window."""
        return RegionFiles(self.folder, region.name, self.key)

    @property
    def windows(self) -> list[Region]:
        """The windows that `settle` works on."""
        return shifted_windows(self.regions, self.at.grid)

    def merged_last(self, region: Region) -> Path:
        """Return the file that ends `merge`."""
        return self.merge_files(region).path("rows.json")

    def decided_last(self, region: Region) -> Path:
        """Return the file that ends `decide` or `settle`."""
        return self.decision_files(region).path("totals.json")

    @property
    def joined_last(self) -> Path:
        """Return the file that ends `join`."""
        return self.join_files.path("joined.parquet")

    def merge(self, region: Region) -> None:
        """Join the pieces of a region's blocks."""
        merge(region, self.merge_files(region), self.at.grid, self.at.halo_px)

    def join(self) -> None:
        """Join what goes on across regions."""
        join([self.merge_files(region) for region in self.regions], self.at.grid, self.join_files)

    def decide(self, region: Region) -> None:
        """Find the cracks of a region."""
        known = {other.name: self.merge_files(other) for other in self._near(region)}
        decide(region, known, self.join_files, self.decision_files(region), self.at)

    def settle(self, window: Region) -> None:
        """Find the cracks of a window of the shifted lattice that cross sides of regions."""
        decided = [self.decision_files(region) for region in self._near(window)]
        settle(window, self.join_files, decided, self.decision_files(window), self)

    def rest(self, number: int) -> RegionFiles:
        """Return the files of a batch of what is left after `settle`."""
        return RegionFiles(self.folder, f"rest{number:05d}", self.key)

    def _near(self, place: Region) -> list[Region]:
        """Return the regions within the halo."""
        around = place.window.pad(self.at.halo_px)
        return [region for region in self.regions if region.window.intersection(around)]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def decide(
    region: Region,
    merged: Mapping[str, RegionFiles],
    joined: RegionFiles,
    out: RegionFiles,
    at: MapSetting,
) -> None:
    """Find the cracks that lie in a region, and write their rows.

    Writes a table for each layer, `open` (the region's own pieces that it cannot decide), `context`
    (all within the halo of what is open), the sums of the roads, and at last `totals.json`.

    Args:
        region: this one.
        merged: by its name what `merge` made of it and of all others within the halo.
        joined: files of `geo.cracks.regions.join`.
        out: files of this step.
        at: of the map.

    Raises:
        InputError: a file cannot be read.
        OSError: a file cannot be written.
    """
    around = region.window.pad(at.halo_px)
    own = merged[region.name].table("whole", WHOLE)
    others = [
        files.table("rim", MEASURED, around)
        for name, files in merged.items()
        if name != region.name
    ]
    crossing = joined.table("joined", MEASURED, around)
    pieces = pa.concat_tables([own.select(MEASURED), *others, crossing])
    is_seed = np.arange(len(pieces)) >= len(pieces) - len(crossing)
    _decide_own(own, _Near(pieces, is_seed, own.slice(0, 0)), out, at)


def settle(
    place: Region,
    joined: RegionFiles,
    decided: Sequence[RegionFiles],
    out: RegionFiles,
    steps: RegionSteps,
) -> None:
    """Find the cracks that cross sides of regions and lie in a window of the shifted lattice.

    Writes the same as `decide`; `open` are pieces that it cannot decide, and those that begin in
    the window and go on beyond it.

    Args:
        place: the window.
        joined: files of `geo.cracks.regions.join`.
        decided: files of `decide`, of the regions within the halo.
        out: files of this step.
        steps: of the map.

    Raises:
        InputError: a file cannot be read.
        OSError: a file cannot be written.
    """
    at, around = steps.at, place.window.pad(steps.at.halo_px)
    open_ = [files.table("open", WHOLE, around) for files in decided]
    every = pa.concat_tables([joined.table("joined", WHOLE, around), *open_])
    inside = lie_in(every, place.window)
    own, others = every.filter(pa.array(inside)), every.filter(pa.array(~inside))
    contexts = [files.table("context", MEASURED, around) for files in decided]
    pieces = once_each([own, others, *contexts], at.grid)
    is_other = (np.arange(len(pieces)) >= len(own)) & (np.arange(len(pieces)) < len(every))
    crosses = is_other & cross_shifted(boxes(pieces), side_of(steps.regions))
    rows, cols = (others[name].to_numpy() for name in ("top", "left"))
    begins = (rows >= place.window.row_off) & (rows < place.window.row_end)
    begins &= (cols >= place.window.col_off) & (cols < place.window.col_end)
    _decide_own(own, _Near(pieces, crosses, others.filter(pa.array(begins))), out, at)


@dataclass(frozen=True, eq=False)
class _Near:
    """What lies in and around a place.

    Attributes:
        pieces: (P,) its own first.
        is_seed: (P,) which of the others are open, so that what is near them is given on.
        given_on: of the others those that are given on from here.
    """

    pieces: pa.Table
    is_seed: BoolArray
    given_on: pa.Table


def _decide_own(own: pa.Table, near: _Near, out: RegionFiles, at: MapSetting) -> None:
    """Write the rows of the groups of a place's own pieces alone, and what is left to others."""
    everything = cracks_of(near.pieces, at)
    is_own = np.arange(len(near.pieces)) < len(own)
    decided = is_own & ~_hang_together_with(everything, ~is_own)
    chosen = part_of_map(everything, decided[everything.branches.piece])
    write_rows(RegionMap(chosen, [own]), out, at)
    seeds = near.is_seed | (is_own & ~decided)
    context = _near(boxes(near.pieces), seeds, at.halo_px) & ~seeds
    with TableWriter(out.path("open.parquet"), WHOLE) as writer:
        writer.add(own.filter(pa.array(~decided[: len(own)])))
        writer.add(near.given_on)
    with TableWriter(out.path("context.parquet"), MEASURED) as writer:
        writer.add(near.pieces.filter(pa.array(context)))
    write_text(out.path("totals.json"), json.dumps(MapTotals.of(chosen).values()))


def once_each(tables: Sequence[pa.Table], grid: Grid) -> pa.Table:
    """Put tables together; of a piece that several hold the first stays."""
    pieces = pa.concat_tables([table.select(MEASURED) for table in tables])
    place = pieces["top"].to_numpy() * grid.shape[1] + pieces["left"].to_numpy()
    once = np.zeros(len(pieces), bool)
    once[np.unique(place, return_index=True)[1]] = True
    return pieces.filter(pa.array(once))


def write_rows(part: RegionMap, out: RegionFiles, at: MapSetting) -> None:
    """Write the rows of all layers of a decided part, and its sums on the roads."""
    survey = at.survey()
    for layer, batches in zip(ROW_LAYERS, rows_of(part, at, survey), strict=True):
        with (
            whole_file(out.path(f"{layer.name}.parquet")) as temporary,
            pq.ParquetWriter(temporary, layer.arrow(), compression="zstd") as writer,
        ):
            for batch in batches:
                writer.write_batch(batch)
    if survey is not None:
        with whole_file(out.path("roads.npz")) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **survey.state())


def rows_of(
    part: RegionMap, at: MapSetting, survey: RoadSurvey | None
) -> tuple[Iterator[pa.RecordBatch], ...]:
    """Return the rows of ROW_LAYERS; a survey takes the cracks in."""
    found, options = part.found, at.options
    on_roads = None if survey is None else survey.add(found)
    ids = MapIds.of(found)
    return (
        crack_rows(found, ids, options, on_roads),
        iter([network_rows(found, ids, options, on_roads)]),
        outline_rows(part.tables, found, ids, options),
    )


def stored_rows(layer: Layer, decided: Sequence[RegionFiles]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a layer that `decide` wrote, region by region."""
    for files in decided:
        with pq.ParquetFile(files.path(f"{layer.name}.parquet")) as stored:
            for batch in stored.iter_batches(use_threads=False):
                yield batch.cast(layer.arrow())


def add_roads(survey: RoadSurvey, path: Path) -> None:
    """Add the sums that a region wrote to those of the map."""
    with np.load(path) as state:
        survey.add_state(state)


def cracks_of(pieces: pa.Table, at: MapSetting) -> CrackMap:
    """Find the cracks and networks of pieces."""
    collector = BranchCollector(at.grid)
    collector.add(pieces)
    return find_cracks(collector.branches(), at.grid, at.options)


def _hang_together_with(found: CrackMap, chosen: BoolArray) -> BoolArray:
    """Return (P,) pieces of groups that hold a chosen piece; a group hangs together by cracks."""
    piece, count = found.branches.piece, len(chosen)
    nodes = count + len(found.figures.first)
    group = graph_components(piece, count + found.owner, nodes)[:count]
    hit = np.zeros(nodes, bool)
    hit[group[chosen]] = True
    return np.asarray(hit[group])


def _near(sides: IntArray, seeds: BoolArray, reach_px: int) -> BoolArray:
    """Return (N,) boxes that come within a reach of those chosen."""
    tree = shapely.STRtree(shapely.box(*sides.T))
    west, north, east, south = sides[seeds].T
    grown = shapely.box(west - reach_px, north - reach_px, east + reach_px, south + reach_px)
    near = np.zeros(len(sides), bool)
    near[np.unique(tree.query(grown)[1])] = True
    return near
