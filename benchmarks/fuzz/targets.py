"""What is damaged: small drawn inputs of each kind, and how the program reads them.

A target writes its sound inputs into a folder; each is a file, perhaps with others beside it. Its
reader is what a command does with the file before and during its work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

EAST, NORTH, GSD_M, SIDE = 500_000.0, 5_700_000.0, 0.02, 96
PLACE = Affine(GSD_M, 0, EAST, 0, -GSD_M, NORTH)


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        name: of the kind.
        draw: writes sound inputs into a folder and names them.
        read: does with one what the program does.
    """

    name: str
    draw: Callable[[Path], Sequence[Path]]
    read: Callable[[Path], object]


def _grid():
    from geo.grid import Grid

    return Grid(PLACE, CRS.from_epsg(25832), (SIDE, SIDE))


def _picture(seed: int = 0):
    return np.random.default_rng(seed).integers(1, 255, (3, SIDE, SIDE)).astype(np.uint8)


def draw_tiles(folder: Path) -> list[Path]:
    """Write GeoTIFFs of several layouts, and a PNG and a JPEG with world file and .prj."""
    shape = {"width": SIDE, "height": SIDE, "crs": "EPSG:25832", "transform": PLACE}
    layouts = {
        "striped.tif": {},
        "tiled.tif": {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"},
        "jpeg.tif": {"compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel"},
        "nodata.tif": {"nodata": 7, "compress": "lzw"},
    }
    for name, options in layouts.items():
        with rasterio.open(
            folder / name, "w", "GTiff", count=3, dtype="uint8", **shape, **options
        ) as tif:
            tif.write(_picture())
    with rasterio.open(folder / "deep.tif", "w", "GTiff", count=1, dtype="uint16", **shape) as tif:
        tif.write(_picture()[:1].astype(np.uint16) * 99)
    world = "\n".join(map(str, (GSD_M, 0, 0, -GSD_M, EAST + GSD_M / 2, NORTH - GSD_M / 2)))
    for name, ending in (("a.png", "pgw"), ("b.jpg", "jgw")):
        Image.fromarray(_picture().transpose(1, 2, 0)).save(folder / name)
        (folder / name).with_suffix(f".{ending}").write_text(world)
        (folder / name).with_suffix(".prj").write_text(CRS.from_epsg(25832).to_wkt())
    return [folder / name for name in (*layouts, "deep.tif", "a.png", "b.jpg")]


def read_tile(path: Path) -> object:
    """Find, place, read and reduce a tile."""
    from geo import read_tiles
    from geo.imagery.overview import reduce

    mosaic = read_tiles(path)
    window = mosaic.grid.window
    assert window.area_px < 1e9, "a tile that small files cannot hold"
    return mosaic.read(window), reduce(mosaic, 50)


def draw_vectors(folder: Path) -> list[Path]:
    """Write two roads and an area in each format."""
    lines = [shapely.LineString([(EAST, NORTH - k), (EAST + 9, NORTH - k)]) for k in (0.5, 1)]
    columns = {"ref": [1, 2], "wide": ["3", "4.5"], "location": ["a.tif", "b.tif"]}
    frame = geopandas.GeoDataFrame(columns, geometry=lines, crs=25832)
    frame.to_parquet(folder / "r.parquet")
    for name in ("r.gpkg", "r.fgb", "r.shp"):
        frame.to_file(folder / name)
    frame.to_crs(4326).to_file(folder / "r.geojson", driver="GeoJSON")
    return [folder / f"r.{kind}" for kind in ("parquet", "gpkg", "fgb", "shp", "geojson")]


def read_vector(path: Path) -> object:
    """Read a file as roads and as an index of tiles."""
    from geo.errors import InputError
    from geo.imagery.find import read_index
    from geo.layers.roads import read_roads
    from geo.options import RoadOptions

    with suppress(InputError):
        read_index(path)
    return read_roads(RoadOptions(path=path, id="ref", width="wide"), _grid())


def draw_photographs(folder: Path) -> list[Path]:
    """Write photographs in three formats, and a mask."""
    image = Image.fromarray(_picture().transpose(1, 2, 0))
    for name in ("a.png", "b.jpg", "c.tif"):
        image.save(folder / name)
    image.convert("P").save(folder / "d.png")
    return [folder / name for name in ("a.png", "b.jpg", "c.tif", "d.png")]


def read_photograph(path: Path) -> object:
    """Read a photograph."""
    from wpcrack.data.images import read_rgb

    return read_rgb(path)


def draw_manifest(folder: Path) -> list[Path]:
    """Write a manifest."""
    rows = ["file,label,source,row,col,height,width,split"]
    rows += [f"crack/a_r{k}_c0.png,crack,a,{k},0,96,96,train" for k in range(6)]
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return [folder / "manifest.csv"]


def read_table(path: Path) -> object:
    """Read a manifest, and look for its files."""
    from wpcrack.data.manifest import read_manifest

    return [(path.parent / row.file).is_file() for row in read_manifest(path)]


def draw_config(folder: Path) -> list[Path]:
    """Write a config of a map."""
    text = "tiles: tiles\nout: a.gpkg\ncrs: EPSG:25832\nseverity:\n  d6433_mm: [10, 75]\nbatch: 8\n"
    (folder / "infer.yaml").write_text(text)
    return [folder / "infer.yaml"]


def read_config(path: Path) -> object:
    """Read a config."""
    from jobs.infer.job import InferJob
    from jobs.settings.load import load

    return load(InferJob, path, ())


def draw_model(folder: Path) -> list[Path]:
    """Write the description of a model."""
    import yaml

    from wpcrack.config import ModelConfig
    from wpcrack.model import WEIGHTS, ModelInfo

    info = ModelInfo(model=ModelConfig(), gsd_mm=5.0, trained={})
    (folder / WEIGHTS).touch()
    (folder / "config.yaml").write_text(yaml.safe_dump(info.model_dump(mode="json")))
    return [folder / "config.yaml"]


def read_model(path: Path) -> object:
    """Read the description of a model."""
    from wpcrack.model import read_info

    return read_info(path.parent)


def draw_work(folder: Path) -> list[Path]:
    """Write the log of a job with two finished blocks, and their parts."""
    from dataclasses import asdict

    from geo.cracks.parts import InspectedRow, write_part
    from geo.grid import Window
    from geo.imagery.mosaic import Block
    from jobs.infer.job import InferJob
    from jobs.infer.job_log import FORMAT, LOG

    grid = _grid()
    config = InferJob(tiles="tiles", out=folder / "a.gpkg").model_dump(mode="json")
    ground = {"grid": [*PLACE[:6], SIDE, SIDE, grid.crs.to_wkt()], "stretch": None, "area": None}
    record = {"format": FORMAT, "started": 1.0, "config": config, "model": "m", "ground": ground}
    blocks = [Block(f"r0_c{k}", Window(0, 48 * k, SIDE, 48)) for k in range(2)]
    record |= {"model_hash": "0" * 64, "inputs": {"a.tif": [1, 2, 0, 0, SIDE, SIDE]}}
    record |= {
        "problems": [],
        "blocks": [[b.block_id, 0, b.window.col_off, SIDE, 48] for b in blocks],
    }
    lines, work = [json.dumps(record)], folder / "a.work"
    (work / "parts").mkdir(parents=True)
    for block in blocks:
        valid = np.arange(SIDE * 48).reshape(SIDE, 48) > 700
        row = InspectedRow.of(block, valid, (), grid, seconds=1.0)
        write_part(work / "parts" / f"{block.block_id}.parquet", [], row)
        lines.append(json.dumps(asdict(row) | {"coverage": "", "at": 2.0}))
    (work / LOG).write_text("\n".join(lines) + "\n")
    return [work / LOG, work / "parts" / "r0_c0.parquet"]


def read_work(path: Path) -> object:
    """Read what `--status` and `assemble` read of a work folder."""
    from geo.cracks.parts import read_part
    from geo.imagery.coverage import CoverageMap
    from jobs.assemble.source import Source
    from jobs.infer.report import read_status

    work = path.parent if path.suffix == ".jsonl" else path.parent.parent
    read_status(work).text()
    with Source.open(work) as source:
        rows = [read_part(source.part(block)).inspected for block in source.finished]
        grid = source.grid
        CoverageMap(grid, ((row.window, row.coverage) for row in rows))
        return source.settings, source.level, [row.imagery() for row in rows]


TARGETS = (
    Target("tile", draw_tiles, read_tile),
    Target("vector", draw_vectors, read_vector),
    Target("photograph", draw_photographs, read_photograph),
    Target("manifest", draw_manifest, read_table),
    Target("config", draw_config, read_config),
    Target("model", draw_model, read_model),
    Target("work folder", draw_work, read_work),
)
