"""Files that are damaged: tiles, vector files, photographs, masks, manifests and configs.

Each kind has a function that writes sound ones into a folder, and one that does with a file what
the program does.
"""

from __future__ import annotations

from contextlib import suppress
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


def grid():
    """Return the grid of drawn inputs."""
    from geo.grid import Grid

    return Grid(PLACE, CRS.from_epsg(25832), (SIDE, SIDE))


def picture(seed: int = 0):
    """Return bands (3, SIDE, SIDE) of noise without black."""
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
            tif.write(picture())
    with rasterio.open(folder / "deep.tif", "w", "GTiff", count=1, dtype="uint16", **shape) as tif:
        tif.write(picture()[:1].astype(np.uint16) * 99)
    world = "\n".join(map(str, (GSD_M, 0, 0, -GSD_M, EAST + GSD_M / 2, NORTH - GSD_M / 2)))
    for name, ending in (("a.png", "pgw"), ("b.jpg", "jgw")):
        Image.fromarray(picture().transpose(1, 2, 0)).save(folder / name)
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
    return read_roads(RoadOptions(path=path, id="ref", width="wide"), grid())


def draw_photographs(folder: Path) -> list[Path]:
    """Write photographs in three formats, and a mask."""
    image = Image.fromarray(picture().transpose(1, 2, 0))
    for name in ("a.png", "b.jpg", "c.tif"):
        image.save(folder / name)
    image.convert("P").save(folder / "d.png")
    return [folder / name for name in ("a.png", "b.jpg", "c.tif", "d.png")]


def read_photograph(path: Path) -> object:
    """Read a photograph."""
    from wpcrack.data.images import read_rgb

    return read_rgb(path)


def draw_masks(folder: Path) -> list[Path]:
    """Write a photograph, and masks of it in several modes."""
    Image.fromarray(picture().transpose(1, 2, 0)).save(folder / "a.jpg")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[40:44] = 255
    image = Image.fromarray(mask)
    modes = {"l.png": image, "one.png": image.convert("1"), "rgba.png": image.convert("RGBA")}
    modes |= {"palette.png": image.convert("P"), "deep.tif": Image.fromarray(mask * np.uint16(257))}
    for name, picture_of in (modes | {"lossy.jpg": image, "b.bmp": image}).items():
        picture_of.save(folder / name)
    return [folder / name for name in (*modes, "lossy.jpg", "b.bmp")]


def read_mask(path: Path) -> object:
    """Read a photograph with its mask, also by the values of the mask."""
    from wpcrack.data.images import Pair
    from wpcrack.data.masks import read_pair

    image = path.parent / "a.jpg"
    read_pair(Pair("a", image, path, (1, 255)))
    return read_pair(Pair("a", image, path))


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


CONFIGS = {
    "infer": "tiles: tiles\nout: a.gpkg\ncrs: EPSG:25832\nseverity: {d6433_mm: [10, 75]}\n",
    "assemble": "out: a.gpkg\nthreshold: 0.5\nroads: {path: r.gpkg, section_m: 50}\nworkers: 2\n",
    "adapt": "tiles: [a, b.tif]\nrounds: 2\nsteps: 9\ncheck: {windows: 4}\nseed: 3\n",
    "train": "run_dir: run\ndata: {root: set, val_fraction: 0.2}\ntrain: {batch_size: 4}\n",
    "tune": "run_dir: run\ndata: {root: set}\ntune:\n  trials: 4\n  sampler: grid\n"
    "  space: {seed: {choice: [1, 2]}, optim.encoder_lr: {loguniform: [0.001, 0.1]}}\n",
}
"""Name of a job -> a config of it."""


def draw_configs(folder: Path) -> list[Path]:
    """Write a config of each job."""
    for name, text in CONFIGS.items():
        (folder / f"{name}.yaml").write_text(text)
    return [folder / f"{name}.yaml" for name in CONFIGS]


def read_config(path: Path) -> object:
    """Read a config, and the space of a sweep."""
    from jobs.registry import JOBS, find
    from jobs.settings.load import load
    from jobs.tune.job import TuneJob, read_space

    job = load(find(JOBS[path.stem].config), path, ())
    return read_space(job) if isinstance(job, TuneJob) else job
