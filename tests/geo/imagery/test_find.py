"""Where tiles come from: folders, globs, lists, tile indices, web servers."""

from __future__ import annotations

import base64
import http.server
import os
import re
import socket
import threading
import time
import zipfile
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import ClassVar

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from factories import EAST, NORTH, write_tile
from factories import GSD_M as GSD

from geo import read_tiles
from geo.errors import InputError
from geo.grid import Window
from geo.imagery.find import TILE_SUFFIXES, find_tiles, scan
from geo.imagery.headers import inspect
from geo.imagery.opening import driver_by_suffix, gdal_path
from geo.imagery.web import look_at
from geo.options import ReadOptions

SIDE = 32


def picture(rows=2, cols=3):
    shape = (rows * SIDE, cols * SIDE, 3)
    return np.random.default_rng(0).integers(1, 256, shape).astype(np.uint8)


def write_city(folder, image):
    """Write a picture as SIDE x SIDE tiles in subfolders; returns their paths in byte order."""
    paths = []
    for row in range(0, image.shape[0], SIDE):
        for col in range(0, image.shape[1], SIDE):
            part = image[row : row + SIDE, col : col + SIDE]
            paths.append(write_tile(folder / f"row{row}" / f"c{col:03}.tif", part, row, col))
    return sorted(paths, key=os.fsencode)


def index_of(paths, column="location", crs=None, shift=0.0):
    """A tile index of rasters, as gdaltindex would write it."""
    tiles = [inspect(path) for path in paths]
    outlines = [shapely.affinity.translate(tile.grid.footprint(), shift) for tile in tiles]
    frame = geopandas.GeoDataFrame({column: map(str, paths)}, geometry=outlines, crs=25832)
    return frame.to_crs(crs) if crs else frame


def test_a_folder_is_searched_to_the_bottom_in_byte_order(tmp_path):
    paths = write_city(tmp_path, picture())
    write_tile(tmp_path / ".hidden.tif", picture(1, 1))
    write_tile(tmp_path / "row0" / ".Trash-1000" / "files" / "a.tif", picture(1, 1))
    (tmp_path / "note.doc").touch()
    assert find_tiles(str(tmp_path)).paths == tuple(map(str, paths))


def test_a_folder_with_an_archive_alone_says_what_to_do(tmp_path):
    (tmp_path / "city.zip").write_bytes(b"PK\3\4")
    with pytest.raises(InputError, match=r"but city\.zip; unpack it"):
        find_tiles(str(tmp_path))


def test_an_archive_is_named_if_nothing_of_its_imagery_lies_there(tmp_path):
    path = write_tile(tmp_path / "a.tif", picture(1, 1))
    for name, held in (("old", "x/a.tif"), ("new", "x/b.TIF"), ("roads", "roads.shp")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr(held, "")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "new.zip").read_bytes()[:40])
    found = scan(str(tmp_path))
    assert [tile.path for tile in found.tiles] == [str(path)]
    assert [os.path.basename(problem.path) for problem in found.problems] == ["new.zip"]
    assert "unpack it" in found.problems[0].reason


def test_archives_that_are_not_read_are_named_unless_they_seem_unpacked(tmp_path):
    tile = write_tile(tmp_path / "tiles" / "a.tif", picture(1, 1))
    (tile.parent / "north").mkdir()
    for name in ("a.7z", "north.tar.gz", "a.tif.gz", "log.txt.gz", "tiles.rar", ".x.7z"):
        (tile.parent / name).write_bytes(b"?")
    assert not scan(str(tile.parent)).problems
    kinds = {"b.7z": b"7z\xbc\xaf\x27\x1c", "c.rar": b"Rar!\x1a\x07\1", "d.tif.gz": b"\x1f\x8b\x08"}
    kinds |= {"e.TAR": bytes(257) + b"ustar", "f.tgz": b"\x1f\x8b\x08", "g.tar.xz": b"\xfd7zXZ\0"}
    for name, begin in kinds.items():
        (tile.parent / "north" / name).write_bytes(begin)
    found = {os.path.basename(p.path): p.reason for p in scan(str(tile.parent)).problems}
    assert found.keys() == kinds.keys()
    assert all("unpack it, and give the folder" in reason for reason in found.values())
    tile.unlink()
    with pytest.raises(InputError, match=r"no usable tile .*b\.7z is a 7z archive; unpack it"):
        scan(str(tile.parent))


def test_each_way_to_name_tiles_gives_the_same_picture(tmp_path):
    image = picture()
    paths = write_city(tmp_path / "tiles", image)
    relative = [str(path.relative_to(tmp_path)) for path in paths]
    (tmp_path / "tiles.txt").write_text("# all\n" + "\n".join(relative))
    index_of(paths).to_file(tmp_path / "index.gpkg", layer="tiles")
    index_of(paths, "path", crs=4326).to_parquet(tmp_path / "index.parquet")
    index_of(paths, "Href").assign(location=None).rename(columns={"location": "note"}).to_file(
        tmp_path / "index.geojson"
    )
    merged = write_tile(tmp_path / "one.tif", image)
    ways = [str(tmp_path / "tiles"), str(tmp_path / "tiles" / "**" / "*.tif"), str(merged)]
    ways += [str(tmp_path / f"index.{kind}") for kind in ("gpkg", "parquet", "geojson")]
    ways += [str(tmp_path / "tiles.txt"), f"file://{tmp_path}/til%65s"]
    for way in [*ways, [str(path) for path in paths]]:
        mosaic = read_tiles(way)
        raster = mosaic.read(mosaic.grid.window)
        assert np.array_equal(raster.image, image), way
        assert (raster.valid.all(), raster.failures) == (True, ())
        assert tuple(mosaic.grid.transform[:6]) == pytest.approx((GSD, 0, EAST, 0, -GSD, NORTH))


@pytest.mark.parametrize("indexed", [False, True])
def test_names_in_a_list_or_index_mean_what_other_programs_mean(tmp_path, monkeypatch, indexed):
    def find(*names):
        if indexed:
            boxes = [shapely.box(0, 0, 1, 1)] * len(names)
            frame = geopandas.GeoDataFrame({"location": names}, geometry=boxes, crs=25832)
            frame.to_file(tmp_path / "index.gpkg")
            return [tile.path for tile in find_tiles(str(tmp_path / "index.gpkg")).indexed]
        (tmp_path / "tiles.txt").write_text("\n".join(names))
        return list(find_tiles(str(tmp_path / "tiles.txt")).paths)

    monkeypatch.setenv("HOME", "/home/anna")
    names = ["~/a.tif", "file:///data/a%20b.tif", "/vsicurl/https://city.org/c.tif"]
    meant = ["/data/a b.tif", "/home/anna/a.tif", "https://city.org/c.tif", "s3://city/d.tif"]
    assert find(*names, "/vsis3/city/d.tif") == meant
    with pytest.raises(InputError, match=r"names gs://city/a.tif, an address of a kind"):
        find("b.tif", "gs://city/a.tif")


def test_an_index_is_planned_from_a_sample_of_headers(tmp_path, monkeypatch):
    monkeypatch.setattr("geo.imagery.mosaic.SAMPLED_HEADERS", 2)
    paths = write_city(tmp_path, picture())
    index_of(paths).to_file(tmp_path / "index.gpkg")
    opened = []
    original = rasterio.open
    monkeypatch.setattr(
        rasterio, "open", lambda p, *a, **k: opened.append(p) or original(p, *a, **k)
    )
    mosaic = read_tiles(tmp_path / "index.gpkg")
    assert len(mosaic.blocks(SIDE)) == 6
    assert opened == [str(paths[0]), str(paths[-1])]
    mosaic.read(Window(0, SIDE, 4, 4))
    assert set(opened[2:]) <= {str(path) for path in paths[:3]}


def test_what_an_index_gets_wrong_is_said_with_the_file(tmp_path):
    paths = write_city(tmp_path, picture(1, 3))
    right, moved = index_of(paths[:2]), index_of(paths[2:], shift=5.0)
    gone = index_of(paths[:1]).assign(location="gone.tif")
    frame = geopandas.pd.concat((right, moved, gone))
    frame.to_file(tmp_path / "index.gpkg")
    mosaic = read_tiles(tmp_path / "index.gpkg")
    assert "cannot be found" in mosaic.problems[0].reason
    assert mosaic.problems[0].path == str(tmp_path / "gone.tif")
    raster = mosaic.read(mosaic.grid.window)
    assert [os.path.basename(f.path) for f in raster.failures] == [paths[2].name]
    assert "not where the tile index says" in raster.failures[0].reason
    assert raster.valid[:, : 2 * SIDE].all()


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ({"name": ["a.tif"], "geometry": [shapely.box(0, 0, 1, 1)]}, "no column of raster paths"),
        ({"path": [None], "geometry": [shapely.box(0, 0, 1, 1)]}, "row 0"),
        ({"path": ["a.tif"], "geometry": [None]}, "row 0"),
        ({"path": ["a.tif"], "geometry": [shapely.Point(1, 1)]}, "row 0"),
        ({"path": [], "geometry": []}, "lists no raster"),
    ],
)
def test_an_unusable_index_is_refused_with_its_name(tmp_path, frame, words):
    path = tmp_path / "index.parquet"
    geopandas.GeoDataFrame(frame, geometry="geometry", crs=25832).to_parquet(path)
    with pytest.raises(InputError, match=words) as caught:
        scan(str(path))
    assert str(path) in str(caught.value)


def test_an_index_without_system_or_of_no_kind_is_refused(tmp_path):
    frame = {"path": ["a.tif"], "geometry": [shapely.box(0, 0, 1, 1)]}
    geopandas.GeoDataFrame(frame).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no coordinate system"):
        scan(str(tmp_path / "a.parquet"))
    for name in ("b.gpkg", "b.parquet"):
        (tmp_path / name).write_text("nothing")
        with pytest.raises(InputError, match="not a tile index: it is not a GeoPackage"):
            scan(str(tmp_path / name))


def test_a_tile_named_by_file_and_by_index_is_one_tile(tmp_path):
    paths = write_city(tmp_path, picture(1, 2))
    index_of(paths).to_file(tmp_path / "index.gpkg")
    found = scan([str(paths[0]), str(tmp_path / "index.gpkg")])
    assert [tile.path for tile in found.tiles] == [str(paths[0])]
    assert [tile.path for tile in found.listed] == [str(paths[1])]


def test_an_index_gives_a_foreign_grid_tile_its_own_place(tmp_path):
    paths = [
        write_tile(tmp_path / "a.tif", picture(2, 2)),
        write_tile(tmp_path / "b.tif", picture(1, 1), 0, 80, gsd=2 * GSD),
    ]
    index_of(paths).to_file(tmp_path / "index.gpkg")
    listed = read_tiles(tmp_path / "index.gpkg")
    opened = read_tiles(paths)
    assert listed.grid == opened.grid
    one, other = (mosaic.read(mosaic.grid.window) for mosaic in (listed, opened))
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.valid, other.valid)
    assert one.gsd_m == other.gsd_m == pytest.approx(2 * GSD)


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files by byte ranges; `log` collects (method, path, range)."""

    log: ClassVar[list] = []
    delay_s = 0.0
    broken_until = 0

    def log_message(self, *arguments):
        """Says nothing."""

    def do_HEAD(self):
        self.log.append(("HEAD", self.path, None))
        super().do_HEAD()

    def do_GET(self):
        asked = self.headers.get("Range")
        self.log.append(("GET", self.path, asked))
        time.sleep(self.delay_s)
        path = Path(self.translate_path(self.path))
        if len(self.log) <= self.broken_until:
            self.send_error(503)
        elif not path.is_file():
            self.send_error(404)
        else:
            first, last = (int(n or 10**12) for n in re.match(r"bytes=(\d+)-(\d*)", asked).groups())
            content = path.read_bytes()
            part = content[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Length", str(len(part)))
            total = len(content)
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{total}")
            self.end_headers()
            with suppress(BrokenPipeError):
                self.wfile.write(part)


@contextmanager
def serving(folder, **behavior):
    """Serve a folder; yields (base URL, log of requests)."""
    handler = type("Handler", (RangeHandler,), {"log": [], **behavior})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.log
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


LOCAL = ReadOptions(allow_private=True)


def large_picture(side=1024):
    return np.random.default_rng(0).integers(1, 256, (side, side, 3)).astype(np.uint8)


TILED = {"tiled": True, "blockxsize": 256, "blockysize": 256}


def test_a_raster_on_a_web_server_is_read_by_ranges(tmp_path):
    image = large_picture()
    size = write_tile(tmp_path / "a.tif", image, **TILED).stat().st_size
    with serving(tmp_path) as (base, log):
        mosaic = read_tiles(f"{base}/a.tif", reading=LOCAL)
        raster = mosaic.read(Window(300, 300, 100, 100))
        asked = {path for _, path, _ in log}
        ranges = [re.match(r"bytes=(\d+)-(\d+)", r).groups() for _, _, r in log if r]
    assert np.array_equal(raster.image, image[300:400, 300:400])
    assert not raster.failures
    assert asked == {"/a.tif"}  # no sidecar is looked for
    assert sum(int(last) - int(first) + 1 for first, last in ranges) < size / 2
    assert mosaic.tiles[0].stamp[0] == size


@pytest.mark.parametrize("listed", [False, True])
def test_a_raster_that_is_replaced_on_its_server_is_a_failure(tmp_path, listed):
    path = write_tile(tmp_path / "tiles" / "a.tif", large_picture(), **TILED)
    with serving(path.parent) as (base, _):
        tiles = f"{base}/a.tif"
        if listed:
            index_of([path]).assign(location=[tiles]).to_file(tmp_path / "index.gpkg")
            tiles = tmp_path / "index.gpkg"
        mosaic = read_tiles(tiles, reading=LOCAL)
        assert not mosaic.read(Window(300, 300, 100, 100)).failures
        write_tile(path, large_picture(512))
        (failure,) = mosaic.read(Window(300, 300, 100, 100)).failures
    assert "was changed after the job had begun" in failure.reason


@pytest.mark.parametrize("compress", ["none", "deflate"])
def test_a_raster_that_is_replaced_in_an_object_store_has_another_stamp(
    tmp_path, monkeypatch, compress
):
    path = tmp_path / "a.tif"
    monkeypatch.setattr("geo.imagery.opening.gdal_path", lambda _: str(path))
    stamps = []
    for image in (large_picture(), ~large_picture() // 2, large_picture()):
        write_tile(path, image, compress=compress, **TILED)
        (tile,) = scan("s3://city/a.tif").tiles
        stamps.append(tile.stamp)
    assert stamps[0] == stamps[2] != stamps[1]


def test_urls_stand_in_lists_and_indices_too(tmp_path):
    image = picture()
    paths = write_city(tmp_path / "tiles", image)
    with serving(tmp_path / "tiles") as (base, _):
        urls = [f"{base}/{path.relative_to(tmp_path / 'tiles')}" for path in paths]
        (tmp_path / "list.txt").write_text("\n".join(urls))
        index_of(paths).assign(location=urls).to_file(tmp_path / "index.gpkg")
        for way in ("list.txt", "index.gpkg"):
            mosaic = read_tiles(tmp_path / way, reading=LOCAL)
            assert np.array_equal(mosaic.read(mosaic.grid.window).image, image)


def test_what_a_server_does_not_have_is_a_problem(tmp_path):
    (tmp_path / "text.tif").write_text("no raster " * 100)
    write_tile(tmp_path / "good.tif", picture())
    with serving(tmp_path) as (base, _):
        found = scan([f"{base}/{name}.tif" for name in ("good", "gone", "text")], LOCAL)
    reasons = {os.path.basename(p.path): p.reason for p in found.problems}
    assert len(found.tiles) == 1
    assert "404" in reasons["gone.tif"]
    assert "not a GeoTIFF" in reasons["text.tif"]


def test_an_address_may_hold_spaces_and_umlauts(tmp_path):
    write_tile(tmp_path / "Köln 1.tif", picture())
    with serving(tmp_path) as (base, _):
        (tmp_path / "tiles.txt").write_text(f"{base}/Köln 1.tif?sig=x y\n")
        for given in (f"{base}/Köln 1.tif", f"{base}/K%C3%B6ln%201.tif", tmp_path / "tiles.txt"):
            mosaic = read_tiles(given, reading=LOCAL)
            assert mosaic.read(mosaic.grid.window).valid.all()
        with pytest.raises(InputError, match="404") as told:
            scan(f"{base}/none.tif?sig=a secret", LOCAL)
    assert "secret" not in str(told.value)


def test_a_server_that_recovers_costs_nothing(tmp_path):
    image = picture()
    write_tile(tmp_path / "a.tif", image)
    with serving(tmp_path, broken_until=1) as (base, log):
        mosaic = read_tiles(f"{base}/a.tif", reading=LOCAL)
        assert np.array_equal(mosaic.read(mosaic.grid.window).image, image)
        assert len(log) > 1


def test_a_server_that_does_not_answer_is_given_up(tmp_path):
    write_tile(tmp_path / "a.tif", picture())
    patience = ReadOptions(retries=0, timeout_s=1, allow_private=True)
    with serving(tmp_path, delay_s=2.5) as (base, _):
        start = time.monotonic()
        with pytest.raises(InputError, match="timed out"):
            scan(f"{base}/a.tif", patience)
        assert time.monotonic() - start < 10


def test_servers_in_private_networks_are_asked_only_if_the_user_allows_it(tmp_path):
    write_tile(tmp_path / "a.tif", picture())
    with serving(tmp_path) as (base, log):
        with pytest.raises(InputError, match="allow_private=true"):
            scan(f"{base}/a.tif")
        assert not log
        assert scan(f"{base}/a.tif", LOCAL).tiles


def test_user_and_password_of_an_address_are_sent_to_its_server_and_to_no_other(tmp_path):
    class Guarded(RangeHandler):
        def do_GET(self):
            if self.path == "/moved.tif":
                self.send_response(302)
                self.send_header("Location", f"{other}/a.tif")
                self.end_headers()
            elif self.headers.get("Authorization") == expected:
                RangeHandler.do_GET(self)
            else:
                self.send_error(401)

    class Other(RangeHandler):
        def do_GET(self):
            self.log.append(self.headers.get("Authorization"))
            RangeHandler.do_GET(self)

    expected = f"Basic {base64.b64encode(b'anna:p@ss').decode()}"
    image = picture()
    write_tile(tmp_path / "a.tif", image)
    with (
        serving(tmp_path, do_GET=Other.do_GET) as (other, log),
        serving(tmp_path, do_GET=Guarded.do_GET) as (base, _),
    ):
        address = base.replace("://", "://anna:p%40ss@")
        mosaic = read_tiles(f"{address}/a.tif", reading=LOCAL)
        assert np.array_equal(mosaic.read(mosaic.grid.window).image, image)
        assert look_at(f"{address}/moved.tif", LOCAL).head
        assert log[0] is None
        with pytest.raises(InputError, match="401"):
            scan(f"{base}/a.tif", LOCAL)


def test_a_redirection_into_a_private_network_is_not_followed(tmp_path, monkeypatch):
    class Redirecting(RangeHandler):
        def do_GET(self):
            self.log.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/inside")
            self.end_headers()

    real = socket.getaddrinfo

    def resolve(host, *arguments, **named):
        public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 0))
        return (
            [public]
            if host == "city.test" and arguments == (None,)
            else real("127.0.0.1", *arguments, **named)
        )

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with serving(tmp_path, do_GET=Redirecting.do_GET) as (base, log):
        with pytest.raises(InputError, match="allow_private=true"):
            scan(base.replace("127.0.0.1", "city.test") + "/a.tif")
        assert log == ["/a.tif"]


def test_each_suffix_of_a_tile_calls_for_its_driver():
    tiffs = {suffix for suffix in TILE_SUFFIXES if driver_by_suffix(f"s3://c/a{suffix}") == "GTiff"}
    assert tiffs == {".tif", ".tiff"}


def test_object_stores_are_left_to_gdal_and_lists_on_servers_refused():
    assert gdal_path("s3://city/2026/a.tif") == "/vsis3/city/2026/a.tif"
    assert find_tiles("s3://city/2026/a.tif").paths == ("s3://city/2026/a.tif",)
    for url in ("https://city.org/tiles.txt", "s3://city/index.gpkg"):
        with pytest.raises(InputError, match="download it"):
            find_tiles(url)
    for url in ("https://city.org/2026/?sig=x1", "s3://city/2026/*.tif"):
        with pytest.raises(InputError, match=r"names no single raster.*into a text file"):
            find_tiles(url)


@pytest.mark.parametrize("url", ["gs://city/a.tif", "S3://city/a.tif", "az://c/*.tif"])
def test_addresses_of_other_kinds_are_refused_as_what_they_are(url):
    with pytest.raises(InputError, match=r"is an address .* begin with https:// or s3://"):
        find_tiles(url)


def test_many_files_are_read_by_several_processes_in_the_same_order(tmp_path, monkeypatch):
    monkeypatch.setattr("geo.imagery.find.CHUNK", 2)
    paths = write_city(tmp_path, picture())
    (tmp_path / "row0" / "c001.tif").touch()
    found = scan(str(tmp_path))
    assert [tile.path for tile in found.tiles] == [str(path) for path in paths]
    assert "empty" in found.problems[0].reason
    assert len({id(tile.crs) for tile in found.tiles}) == 1


def test_links_to_folders_are_followed_and_never_in_circles(tmp_path):
    write_tile(tmp_path / "tiles" / "a.tif", picture())
    write_tile(tmp_path / "elsewhere" / "b.tif", picture())
    (tmp_path / "tiles" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tiles" / "twice").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "tiles")
    (tmp_path / "tiles" / "IMG_1.HEIC").write_bytes(b"....ftypheic")
    (tmp_path / "tiles" / "c.NTF").write_bytes(b"NITF02.10")
    (tmp_path / "tiles" / "d.jpx").write_bytes(b"\0\0\0\x0cjP  ")
    found = scan(str(tmp_path / "tiles"))
    assert [os.path.relpath(tile.path, tmp_path) for tile in found.tiles] == [
        "tiles/a.tif",
        "tiles/linked/b.tif",
    ]
    left_out = [os.path.basename(problem.path) for problem in found.problems]
    assert left_out == ["IMG_1.HEIC", "c.NTF", "d.jpx"]
