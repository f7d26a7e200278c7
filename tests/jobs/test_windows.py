"""`wpcrack windows`: labeling windows of a city's own tiles."""

from __future__ import annotations

import csv
import shutil

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from factories import EAST, GSD_M, NORTH, darkness, write_tile
from PIL import Image
from typer.testing import CliRunner

from geo.errors import InputError
from jobs.cli import app
from jobs.label.session import Who, open_session
from jobs.settings.map import Imagery
from jobs.windows.cut import WindowsOptions
from jobs.windows.run import run_windows
from wpcrack.data.folder import write_marker
from wpcrack.data.images import read_rgb
from wpcrack.data.read import read_image_level
from wpcrack.errors import CheckpointError, ConfigError, DataError


def noise(height, width, low=1, high=250, seed=0):
    return np.random.default_rng(seed).integers(low, high, (height, width, 3)).astype(np.uint8)


@pytest.fixture
def stand_in(monkeypatch):
    """In place of a model: what is dark is a crack."""
    monkeypatch.setattr("jobs.windows.cut.load_predictor", lambda *_, **__: darkness())


@pytest.fixture
def photographs(tmp_path):
    """A large and a small photograph with a dark line, one too small, one damaged, one format."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, shape in (("large", (260, 700)), ("long street.1", (70, 330)), ("tiny", (20, 90))):
        image = noise(*shape, 120, 180, seed=len(name))
        image[:, 100:104] = 10
        Image.fromarray(image).save(folder / f"{name}.png")
    (folder / "damaged.jpg").write_bytes((folder / "large.png").read_bytes()[:900])
    (folder / "phone.heic").write_bytes(b"0")
    return folder


@pytest.fixture
def city(tmp_path):
    """Six tiles of 200 px, one of them half in shadow, one half empty."""
    for number in range(6):
        image = noise(200, 200, 120, 180, seed=number)
        if number == 2:
            image[:, :100] //= 4
        if number == 4:
            image[:, :100] = 0
        write_tile(tmp_path / "tiles" / f"t{number}.tif", image, 0, 200 * number, nodata=0)
    return tmp_path / "tiles"


def manifest_of(folder):
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def cut(tiles, out, **options):
    given = {"count": 24, "window": 32, "ordered": False} | options
    return run_windows(Imagery(tiles=str(tiles)), out, WindowsOptions(**given))


def test_each_window_holds_the_pixels_of_its_tile_at_its_place(city, tmp_path):
    report = cut(city, tmp_path / "w")
    rows = manifest_of(tmp_path / "w")
    assert report.n_windows == len(rows) == len({row["file"] for row in rows}) == 24
    for row in rows:
        r, c = int(row["row"]), int(row["col"])
        with rasterio.open(row["tile"]) as tiff:
            whole = tiff.read().transpose(1, 2, 0)
            x, y = tiff.transform @ (c, r)
        assert np.array_equal(read_rgb(tmp_path / "w" / row["file"]), whole[r : r + 32, c : c + 32])
        assert (float(row["x"]), float(row["y"])) == pytest.approx((x, y), abs=1e-3)
        assert row["label"] == row["split"] == ""
        assert (row["height"], row["width"]) == ("32", "32")


def test_windows_are_spread_over_tiles_and_brightness_and_avoid_missing_imagery(city, tmp_path):
    cut(city, tmp_path / "w")
    rows = manifest_of(tmp_path / "w")
    tiles = [row["tile"][-6:-4] for row in rows]
    assert set(tiles) == {f"t{number}" for number in range(6)}
    images = [read_rgb(tmp_path / "w" / row["file"]) for row in rows]
    assert sum(image.mean() < 80 for image in images) >= 3  # 1/12 of the area, 1/8 of the windows
    assert all(image.min() > 0 for image in images)


def test_windows_do_not_overlap_and_the_seed_decides(city, tmp_path):
    cut(city, tmp_path / "a", count=60)
    cut(city, tmp_path / "b", count=60)
    cut(city, tmp_path / "c", count=60, seed=1)
    rows = manifest_of(tmp_path / "a")
    assert manifest_of(tmp_path / "b") == rows
    assert manifest_of(tmp_path / "c") != rows
    by_tile: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        by_tile.setdefault(row["tile"], []).append((int(row["row"]), int(row["col"])))
    for corners in by_tile.values():
        for index, (r, c) in enumerate(corners):
            assert all(abs(r - s) >= 32 or abs(c - d) >= 32 for s, d in corners[index + 1 :])


def test_sorted_windows_can_be_trained_on(city, tmp_path):
    folder = tmp_path / "w"
    cut(city, folder)
    for number, row in enumerate(manifest_of(folder)):
        label = folder / ("crack" if number % 2 else "road")
        label.mkdir(exist_ok=True)
        shutil.move(folder / row["file"], label / row["file"])
    found = read_image_level(folder)
    assert len(found.items) == 24
    assert not {item.source for item in found.train} & {item.source for item in found.val}


def test_a_filled_label_column_can_be_trained_on(city, tmp_path):
    folder = tmp_path / "w"
    cut(city, folder)
    rows = manifest_of(folder)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        for number, row in enumerate(rows):
            writer.writerow(row | {"label": "crack" if number % 2 else "road"})
    found = read_image_level(folder)
    assert len(found.items) == 24
    assert {item.source for item in found.items} == {f"t{number}" for number in range(6)}


def test_a_city_in_one_file_can_be_split(tmp_path, monkeypatch):
    monkeypatch.setattr("geo.imagery.samples.SOURCE_PX", 100)
    write_tile(tmp_path / "city.tif", noise(300, 400))
    cut(tmp_path / "city.tif", tmp_path / "w")
    rows = manifest_of(tmp_path / "w")
    assert len({row["source"] for row in rows}) == 12
    assert {row["tile"] for row in rows} == {str(tmp_path / "city.tif")}
    assert min(row["file"] for row in rows).startswith("city.y0x0_r")


def test_tiles_of_equal_name_have_names_of_their_own(tmp_path):
    for number, folder in enumerate(("north", "south")):
        write_tile(tmp_path / "t" / folder / "a.tif", noise(64, 64), 64 * number)
    cut(tmp_path / "t", tmp_path / "w", count=4)
    sources = {row["source"] for row in manifest_of(tmp_path / "w")}
    assert sources == {"north-a", "south-a"}


def test_fewer_windows_than_wanted_are_said_aloud(tmp_path):
    write_tile(tmp_path / "a.tif", noise(70, 70))
    report = cut(tmp_path / "a.tif", tmp_path / "w")
    assert report.n_windows == 4
    assert "24 were asked for" in report.summary(24)
    assert "data.gsd_mm=5" in report.summary(24)


def test_windows_lie_inside_the_area_of_interest(city, tmp_path):
    aoi = shapely.box(EAST + 200 * GSD_M, NORTH - 100 * GSD_M, EAST + 400 * GSD_M, NORTH)
    geopandas.GeoSeries([aoi], crs=25832).to_file(tmp_path / "aoi.gpkg")
    imagery = Imagery(tiles=str(city), aoi=tmp_path / "aoi.gpkg")
    run_windows(imagery, tmp_path / "w", WindowsOptions(9, 32, ordered=False))
    for row in manifest_of(tmp_path / "w"):
        assert row["source"] == "t1"
        assert int(row["row"]) + 32 <= 100


def test_labels_are_never_overwritten_and_nonsense_is_refused(city, tmp_path):
    cut(city, tmp_path / "w")
    with pytest.raises(DataError, match="w"):
        cut(city, tmp_path / "w")
    for wrong in ({"count": 0}, {"window": 0}, {"seed": -1}):
        with pytest.raises(ConfigError, match="give positive numbers"):
            cut(city, tmp_path / "v", **wrong)
    with pytest.raises(InputError, match="choose smaller"):
        cut(city, tmp_path / "v", window=201)
    with pytest.raises(InputError, match="that is 4 x, and imagery is resampled by at most 3 x"):
        run_windows(Imagery(tiles=str(city), gsd_mm=20), tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_a_set_of_another_command_is_not_replaced(city, tmp_path):
    built = tmp_path / "set"
    built.mkdir()
    (built / "manifest.csv").write_text("file,label\na.png,crack\n")
    (built / "a.png").touch()
    write_marker(built, {})
    with pytest.raises(DataError, match="set is not empty; choose another"):
        cut(city, built)
    assert (built / "a.png").exists()


def test_the_command_says_what_comes_next(city, tmp_path):
    out = tmp_path / "w"
    given = ["--count", "6", "--window", "32", "--out", str(out), "--unordered"]
    result = CliRunner().invoke(app, ["windows", f"tiles={city}", *given])
    assert result.exit_code == 0, result.output
    assert "6 windows from 6 tiles" in result.output
    assert f"wpcrack label {out}" in result.output
    assert f"wpcrack train data.root={out} data.gsd_mm=5 run_dir=runs/own" in result.output
    for wrong, code in (["tiles=x", "tiels=y"], 1), ([], 2), (["--images", "a", "tiles=b"], 2):
        assert CliRunner().invoke(app, ["windows", *wrong, *given]).exit_code == code


def test_a_tile_that_cannot_be_read_is_named_and_the_exit_code_is_3(city, tmp_path):
    tile = city / "t1.tif"
    with rasterio.open(tile) as tiff:
        pixels, profile = tiff.read(), tiff.profile
    with rasterio.open(tile, "w", **{**profile, "compress": "lzw"}) as tiff:
        tiff.write(pixels)
    data = bytearray(tile.read_bytes())
    data[len(data) // 3 : len(data) // 2] = b"\xff" * (len(data) // 2 - len(data) // 3)
    tile.write_bytes(data)
    (city / "t3.tif").write_bytes(b"junk")
    given = ["--count", "6", "--window", "32", "--unordered", "--out", str(tmp_path / "w")]
    result = CliRunner().invoke(app, ["windows", f"tiles={city}", *given])
    assert result.exit_code == 3, result.output
    assert "t1.tif failed on reading" in result.output
    assert "t3.tif is not a GeoTIFF" in result.output


@pytest.mark.usefixtures("stand_in")
def test_photographs_of_any_size_need_no_coordinate_system(photographs, tmp_path):
    out = tmp_path / "w"
    report = run_windows(photographs, out, WindowsOptions(20, 32))
    rows = manifest_of(out)
    assert {row["source"] for row in rows} == {"large", "long_street.1"}
    assert "tiny.png" in report.left_out
    assert "damaged.jpg" in report.left_out
    assert report.exit_code == 3
    assert "tile" not in rows[0]
    for row in rows:
        whole = read_rgb(photographs / f"{row['source'].replace('_', ' ')}.png")
        r, c = int(row["row"]), int(row["col"])
        assert np.array_equal(read_rgb(out / row["file"]), whole[r : r + 32, c : c + 32])
        around = read_rgb(out / row["surroundings"])
        assert around.shape == (64, 64, 3)
        assert np.abs(around[16:48, 16:48].mean() - whole[r : r + 32, c : c + 32].mean()) < 3
    assert "20 windows from 2 photographs" in report.summary(20)


@pytest.mark.usefixtures("stand_in")
def test_the_model_says_how_many_of_each_kind_and_its_guess_is_known_to_label(city, tmp_path):
    with rasterio.open(city / "t0.tif", "r+") as tiff:
        for row in range(8, 200, 16):
            tiff.write(np.full((3, 4, 200), 20, np.uint8), window=((row, row + 4), (0, 200)))
    report = cut(city, tmp_path / "w", ordered=True)
    rows = manifest_of(tmp_path / "w")
    images = [read_rgb(tmp_path / "w" / row["file"]) for row in rows]
    dark = [bool((image.mean(-1) < 80).sum() > 15) for image in images]  # lines of t0, shadow of t2
    guesses = [float(row["probability"]) for row in rows]
    assert [guess > 0.5 for guess in guesses] == dark
    assert report.cracks == pytest.approx(sum(guesses), abs=0.02)
    crack = round(report.cracks)
    assert f"about {crack} with a crack and {24 - crack} without" in report.summary(24)
    assert any(dark[:4]), "the model's few cracks are no last in the list"
    with open_session(tmp_path / "w", Who()) as session:
        assert session.window(0).probability == guesses[0]
        (picture,) = session.look(0).around
        assert (picture.kind, picture.row, picture.height) == ("surroundings", -16, 64)


def test_a_missing_model_is_said_before_any_pixel_is_read(city, tmp_path):
    with pytest.raises(CheckpointError):
        cut(city, tmp_path / "w", ordered=True, model=tmp_path / "none")
    assert not (tmp_path / "w").exists()


def test_long_and_equal_names_give_files_of_their_own(tmp_path):
    for name in ("a b", "a_b", "x" * 240):
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        Image.fromarray(noise(40, 40)).save(folder / f"{name}.png")
    options = WindowsOptions(3, 32, ordered=False)
    assert run_windows(tmp_path / "photos", tmp_path / "w", options).n_windows == 3
    rows = manifest_of(tmp_path / "w")
    assert len({row["source"] for row in rows}) == 3
    assert all((tmp_path / "w" / row["file"]).is_file() for row in rows)
