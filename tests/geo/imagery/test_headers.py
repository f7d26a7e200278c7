"""Headers of tiles: what may lie beside one, where it can lie, and remedies that help."""

from __future__ import annotations

import os
import socket
import zipfile

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from factories import GSD_M as GSD
from factories import write_tile
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import from_origin

from geo import read_tiles
from geo.errors import InputError
from geo.imagery.find import scan
from geo.imagery.headers import crs_name, inspect
from geo.imagery.overview import reduce
from geo.imagery.placing import job_crs
from geo.options import ReadOptions

IMAGE = np.random.default_rng(0).integers(1, 256, (32, 32, 3)).astype(np.uint8)


def test_nothing_but_world_file_and_prj_is_read_beside_a_tile(tmp_path):
    image = IMAGE
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"/vsicurl/http://127.0.0.1:{server.getsockname()[1]}/x.tif"
        metadata = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{url}</MDI></Metadata>'
        source = f"<SourceFilename>{url}</SourceFilename><SourceBand>1</SourceBand>"
        vrt = (
            f'<VRTDataset rasterXSize="{image.shape[1]}" rasterYSize="{image.shape[0]}">'
            f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{source}</SimpleSource>'
            "</VRTRasterBand></VRTDataset>"
        )
        beside = {"aux.xml": f"<PAMDataset>{metadata}</PAMDataset>", "ovr": vrt, "msk": vrt}
        for kind, text in beside.items():
            path = write_tile(tmp_path / f"{kind}.tif", image)
            path.with_name(f"{path.name}.{kind}").write_text(text)
            mosaic = read_tiles(path)
            assert np.array_equal(mosaic.read(mosaic.grid.window).image, image)
            reduce(mosaic, 10)
        path = write_tile(tmp_path / "tag.tif", image)
        with rasterio.open(path, "r+") as tif:
            tif.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=url)
        with pytest.raises(InputError, match="other files are never opened"):
            read_tiles(path)
        with pytest.raises(BlockingIOError):  # nobody has asked
            server.accept()


def test_an_object_that_was_replaced_is_another_tile(tmp_path, monkeypatch):
    """No size or time of it is known; its pixels take another number of bytes."""
    path = tmp_path / "a.tif"
    monkeypatch.setattr("geo.imagery.opening.gdal_path", lambda _: str(path))
    stamps = []
    for image in (IMAGE, IMAGE // 2):
        write_tile(path, image, compress="deflate")
        stamps += [inspect("s3://city/a.tif").stamp, inspect("s3://city/a.tif").stamp]
    assert stamps[0] == stamps[1] != stamps[2] == stamps[3]


def test_a_place_that_only_an_aux_xml_gives_is_named_with_a_remedy(tmp_path):
    """What gdal_translate writes beside a PNG or JPEG."""
    path = tmp_path / "a.png"
    Image.fromarray(IMAGE).save(path)
    aside = tmp_path / "a.png.aux.xml"
    aside.write_text("<PAMDataset><SRS>EPSG:25832</SRS></PAMDataset>")
    with pytest.raises(InputError, match=r"place in a\.png\.aux\.xml.*gdal_translate a\.png"):
        scan(str(path))
    aside.write_text("<PAMDataset><Metadata/></PAMDataset>")
    with pytest.raises(InputError, match=r"add a \.prj file"):
        scan(str(path))


@pytest.mark.parametrize("ending", ["_RPC.TXT", ".RPB"])
def test_coefficients_beside_a_tile_are_named_with_a_remedy(tmp_path, ending):
    path = tmp_path / "a.png"
    Image.fromarray(IMAGE).save(path)
    (tmp_path / f"a{ending}").touch()
    with pytest.raises(InputError, match=rf"in a{ending}, but.* gdalwarp -rpc -r bilinear a\.png"):
        scan(str(path))


def test_what_is_wrong_with_a_tile_on_a_server_gets_a_remedy_for_servers(tmp_path, monkeypatch):
    """Nothing is read beside it, and nobody can replace what is not there."""
    path = write_tile(tmp_path / "a.tif", IMAGE, crs=None)
    monkeypatch.setattr("geo.imagery.opening.gdal_path", lambda _: str(path))
    assert inspect("s3://city/a.tif").reason.endswith("system; set tiles_crs=EPSG:...")
    path.unlink()
    told = inspect("s3://city/a.tif", ReadOptions(retries=0)).reason
    assert told.endswith("must be that of one raster, your rights and the network")


@pytest.mark.parametrize("indexed", [False, True])
def test_a_world_file_or_prj_that_is_written_anew_makes_another_tile(tmp_path, indexed):
    def stamp(path):
        found = scan(str(tmp_path / "index.gpkg" if indexed else path))
        return (found.listed or found.tiles)[0].stamp

    path, world, prj = (tmp_path / f"a.{ending}" for ending in ("png", "pgw", "prj"))
    Image.fromarray(IMAGE).save(path)
    with rasterio.open(write_tile(tmp_path / "own" / "a.tif", IMAGE)) as tif:
        prj.write_text(tif.crs.to_wkt())
        a, b, c, d, e, f = tif.transform[:6]
    world.write_text("\n".join(map(str, (a, d, b, e, c, f))))
    for file in (path, world, prj):
        os.utime(file, ns=(0, 10**18))
    outline = inspect(path).grid.footprint()
    frame = geopandas.GeoDataFrame({"path": ["a.png"]}, geometry=[outline], crs=25832)
    frame.to_file(tmp_path / "index.gpkg")
    stamps = [stamp(path)]
    for file in (world, prj):
        os.utime(file, ns=(0, 2 * 10**18))
        stamps.append(stamp(path))
        os.utime(file, ns=(0, 10**18))
    assert stamps == [(path.stat().st_size, k * 10**18) for k in (1, 2, 2)]
    beside = write_tile(tmp_path / "b.tif", IMAGE)
    beside.with_suffix(".tfw").write_text(world.read_text())
    os.utime(beside, ns=(0, 10**18))
    assert scan(str(beside)).tiles[0].stamp[1] == 10**18  # it is not read: the tile has a place


def test_heights_of_a_system_do_not_count(tmp_path):
    path = write_tile(tmp_path / "a.tif", IMAGE, crs="EPSG:25832+7837")
    with rasterio.open(path) as tif:
        assert tif.crs.to_epsg() != 25832
    assert inspect(path).crs == job_crs("EPSG:25832+7837") == CRS.from_epsg(25832)


def test_a_system_with_a_shift_to_wgs_84_has_its_own_name():
    place = "+proj=tmerc +lon_0=12.5 +x_0=0 +y_0=0 +ellps=bessel +towgs84=598.1,73.7,418.2"
    assert crs_name(CRS.from_string(place)) == "unknown"


def test_world_files_and_prj_are_read_under_any_usual_name_and_encoding(tmp_path):
    image = IMAGE
    own = write_tile(tmp_path / "own.tif", image)
    with rasterio.open(own) as tif:
        transform, wkt = tif.transform, tif.crs.to_wkt()
    a, b, c, d, e, f = transform[:6]
    world = "\n".join(f"{v:.9f}" for v in (a, d, b, e, c + (a + b) / 2, f + (d + e) / 2))
    umlaut = wkt.replace("ETRS89 / UTM zone 32N", "ETRS89 Zone 32 für Köln", 1)
    variants = {
        "a.tif": ("a.tfw", "a.prj", wkt.encode()),
        "b.tif": ("b.TFW", "b.PRJ", wkt.encode()),
        "c.png": ("c.pgw", "c.prj", umlaut.encode("cp1252")),
        "d.png": ("d.wld", "d.prj", umlaut.encode("utf-8-sig")),
        "e.JPG": ("e.JGW", "e.Prj", None),
    }
    for name, (world_name, prj, text) in variants.items():
        Image.fromarray(image).save(tmp_path / name)
        (tmp_path / world_name).write_text(world.replace(".", ",") if name == "b.tif" else world)
        if text:
            (tmp_path / prj).write_bytes(text)
        reading = None if text else ReadOptions(tiles_crs="EPSG:25832")
        (tile,) = scan(str(tmp_path / name), reading).tiles
        assert tuple(tile.transform) == pytest.approx(tuple(transform), abs=1e-6)
        assert tile.crs.to_epsg() == 25832 or "für" in tile.crs.to_wkt()
    with pytest.raises(InputError, match="tiles_crs="):
        scan(str(tmp_path / "e.JPG"))
    with pytest.raises(InputError, match="is not a coordinate system"):
        scan(str(tmp_path / "e.JPG"), ReadOptions(tiles_crs="Berlin"))


@pytest.mark.parametrize("east", [32_500_000.0, 1e15])
def test_a_tile_that_lies_nowhere_is_refused_with_a_remedy_that_helps(tmp_path, east):
    path = write_tile(tmp_path / "a.tif", IMAGE, transform=from_origin(east, 5.7e6, GSD, GSD))
    with pytest.raises(InputError, match="is not defined") as caught:
        scan(str(path))
    assert ("tiles_crs=EPSG:4647" in str(caught.value)) == (east < 1e9)
    if east < 1e9:
        assert scan(str(path), ReadOptions(tiles_crs="EPSG:4647")).tiles


def test_remedies_for_archives_control_points_and_odd_bands_help(tmp_path):
    image = IMAGE
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.tif", "")
    points = [GroundControlPoint(r, c, 5e5 + c, 5.7e6 - r) for r, c in ((0, 0), (0, 9), (9, 0))]
    shape = {"width": 9, "height": 9, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "b.tif", "w", "GTiff", gcps=points, crs=25832, **shape) as tif:
        tif.write(np.ones((3, 9, 9), np.uint8))
    one, line, sample = ([float(i == place) for i in range(20)] for place in (0, 2, 1))
    rpcs = RPC(0, 100, 50, 1e-5, one, line, 4, 4, 10, 1e-5, one, sample, 4, 4)
    with rasterio.open(tmp_path / "r.tif", "w", "GTiff", rpcs=rpcs, **shape) as tif:
        tif.write(np.ones((3, 9, 9), np.uint8))
    write_tile(tmp_path / "c.tif", np.dstack((image, image[..., :2])))
    many_disks = b"PK\6\7" + bytes(12) + b"\2\0\0\0PK\5\6" + bytes(18)
    (tmp_path / "d.zip").write_bytes(b"PK\3\4" + many_disks)
    (tmp_path / "e.tif").write_bytes(b"xx" + many_disks)
    of_zips = (("a.zip", "unpack it"), ("d.zip", "unpack it"), ("e.tif", "no GeoTIFF|not a"))
    write_tile(tmp_path / "f.tif", image[..., :1] // 16, nbits=4)
    of_bands = (("c.tif", "-b RED"), ("f.tif", "pixels of 4 bits.*-scale 0 15 0 255"))
    write_tile(tmp_path / "h.tif", image.astype(np.float32))
    of_bands += (("h.tif", "float32 pixels.*the same LOW.*UInt16 -scale LOW HIGH 1 65534 h.tif"),)
    for name, count, alpha in (("i.tif", 3, 2), ("j.tif", 5, 4)):
        with rasterio.open(write_tile(tmp_path / name, IMAGE[..., [0] * count]), "r+") as tif:
            tif.colorinterp = [
                ColorInterp.alpha if band == alpha else ColorInterp.undefined
                for band in range(count)
            ]
    of_bands += (("i.tif", "has 2 bands and alpha.* -b 1 -b 3 i"), ("j.tif", "-b BLUE -b 5 j"))
    of_places = (("b.tif", "gdalwarp -tps"), ("r.tif", "RPCs.*gdalwarp -rpc .*r.tif"))
    alpha_first = write_tile(tmp_path / "g.tif", np.dstack((image[..., :1], image)))
    with rasterio.open(alpha_first, "r+") as tif:
        tif.colorinterp = [ColorInterp.alpha, ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    of_bands += (("g.tif", "-b 2 -b 3 -b 4 -b 1 g.tif"),)
    for name, words in (*of_zips, *of_bands, *of_places):
        with pytest.raises(InputError, match=words):
            scan(str(tmp_path / name))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_palette_of_16_bits_is_expanded(tmp_path):
    values = np.array([[7, 300], [65535, 0]], np.uint16)
    path = write_tile(tmp_path / "a.tif", values, photometric="palette")
    with rasterio.open(path, "r+") as tif:
        tif.write_colormap(1, {7: (1, 2, 3, 255), 300: (4, 5, 6, 255), 65535: (7, 8, 9, 255)})
    mosaic = read_tiles(path)
    found = mosaic.read(mosaic.grid.window).image
    assert found[0].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found[1, 0].tolist() == [7, 8, 9]


def test_the_picture_of_tiles_whose_rows_count_northward_has_north_above(tmp_path):
    write_tile(tmp_path / "a.tif", IMAGE)
    with rasterio.open(tmp_path / "a.tif") as tif:
        a, b, c, d, e, f = tif.transform[:6]
    for name, pixels, place in (
        ("b.tif", IMAGE[::-1], (a, b, c, d, -e, f + 32 * e)),
        ("c.tif", IMAGE[::-1, ::-1], (-a, b, c + 32 * a, d, -e, f + 32 * e)),
    ):
        write_tile(tmp_path / name, pixels, transform=Affine(*place))
        one, other = (reduce(read_tiles(tmp_path / tile), 32) for tile in ("a.tif", name))
        assert np.array_equal(one.image, other.image)
        assert tuple(one.grid.transform) == pytest.approx(tuple(other.grid.transform))


def test_a_tile_that_is_gone_is_named_once(tmp_path):
    found = inspect(tmp_path / "a.tif", ReadOptions(retries=0))
    assert found.reason == "cannot be opened (No such file or directory); replace or remove it"
