"""map.html: contents, safety of text, and a real browser without a network."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from factories import EAST, NORTH, grid_of, write_parts, write_roads, write_tile

from geo import read_tiles
from geo.imagery.headers import TileProblem
from geo.imagery.mosaic import Mosaic
from geo.imagery.overview import reduce
from geo.layers.assemble import assemble
from geo.layers.schema import CRACK
from geo.options import AssembleOptions, RoadOptions, Rules
from geo.page.map_page import (
    CRACK_COLUMNS,
    STEPS_PER_M,
    encode_shapes,
    legend,
    page,
    records,
    write_map,
)

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def street(tmp_path_factory) -> tuple[Path, Mosaic]:
    """A package with two roads (one of hostile name), three cracks, and its imagery."""
    folder = tmp_path_factory.mktemp("map")
    grid = grid_of((400, 1000), 0.02)
    mask = np.zeros(grid.shape, bool)
    mask[100:103, 50:600] = mask[200:206, 50:150] = mask[150:300, 700:704] = True
    image = np.where(mask, 40, 120).astype(np.uint8)
    mosaic = read_tiles(write_tile(folder / "tiles" / "a.tif", image, gsd=0.02))
    lines = [[(EAST, NORTH - y), (EAST + 20, NORTH - y)] for y in (2.0, 6.0)]
    columns = {"ref": ["R1", "R2"], "street": ["Am Markt", HOSTILE], "wide": [4.0, 4.0]}
    write_roads(folder / "roads.gpkg", lines, **columns)
    parts = write_parts(folder, grid, mask)
    chosen = RoadOptions(path=folder / "roads.gpkg", id="ref", name="street", width="wide")
    broken = TileProblem(f"{HOSTILE}.tif", "is not a GeoTIFF; convert it")
    options = AssembleOptions(roads=chosen)
    assemble(parts, folder / "out.gpkg", grid, options, problems=[broken])
    return folder / "out.gpkg", mosaic


def data_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def values(layer, name):
    (column,) = (column for column in layer["columns"] if column["name"] == name)
    if "levels" in column:
        return [column["levels"][code] for code in column["codes"]]
    return column["values"]


def test_the_page_holds_every_layer_and_no_address(street, tmp_path):
    package, mosaic = street
    write_map(package, tmp_path / "map.html", reduce(mosaic, 2000))
    text, data = (tmp_path / "map.html").read_text(encoding="utf-8"), data_of(tmp_path / "map.html")
    assert len(values(data["cracks"], "crack_id")) == 3
    assert values(data["segments"], "name") == ["Am Markt", HOSTILE]
    assert values(data["inspected"], "status") == ["inspected"]
    assert data["failures"] == [[f"{HOSTILE}.tif", "is not a GeoTIFF; convert it"]]
    (south, west), (north, east) = data["bounds"]
    assert 51.4 < south < north < 51.5
    assert 8.9 < west < east < 9.1
    assert text.count("<script") == 4
    assert "{{" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)\s*=\s*['\"]?https?:", text.split("<script>")[0])
    assert "default-src 'none'" in text
    assert data["image"]["url"].startswith("data:image/webp;base64,")


def test_the_license_of_the_shipped_library_lies_beside_it():
    static = Path(__file__).parents[3] / "geo" / "page" / "static"
    assert "Leaflet" in (static / "leaflet.js").read_text(encoding="utf-8")[:200]
    assert "BSD 2-Clause" in (static / "leaflet-LICENSE.txt").read_text(encoding="utf-8")


def test_beyond_the_cap_the_worst_cracks_are_drawn(street, tmp_path):
    package, _ = street
    write_map(package, tmp_path / "map.html", max_cracks=1)
    data = data_of(tmp_path / "map.html")
    assert values(data["cracks"], "length_m") == pytest.approx([11], rel=0.01)
    assert data["cracks"]["shapes"]["parts"] == [1]
    assert "worst 1 " in data["summary"]
    assert data["image"] is None


def test_steps_of_shapes_add_up_to_their_places():
    ring = shapely.box(5e5, 5.8e6, 5e5 + 100, 5.8e6 + 50)
    shapes = geopandas.GeoSeries(
        [shapely.MultiLineString([[(5e5, 5.8e6), (5e5 + 3, 5.8e6)], [(5e5, 0), (5e5, 9)]]), ring],
        crs=25832,
    )
    flat = encode_shapes(shapes)
    places = np.cumsum(np.reshape(flat["steps"], (-1, 2)), axis=0) / STEPS_PER_M
    assert (flat["parts"], flat["points"]) == ([2, 1], [2, 2, 5])
    expected = shapely.get_coordinates(shapes.to_crs(3857).to_numpy())
    assert np.abs(places - expected).max() < 0.51 / STEPS_PER_M


BROWSERS_OWN = (".google.com", ".gvt1.com", ".googleapis.com")
"""Hosts that the browser itself calls, whatever page it shows."""

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed here")


class Browser:
    """A headless Chromium that shows one page, driven over its debugging pipe."""

    def __init__(self, reading, writing, process):
        self._reading, self._writing, self._process = reading, writing, process
        self._asked = 0
        self._session = {}
        (page,) = (t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def ask(self, method, **params):
        self._asked += 1
        call = {"id": self._asked, "method": method, "params": params} | self._session
        self._writing.write(json.dumps(call).encode() + b"\0")
        self._writing.flush()
        answer = {}
        while answer.get("id") != self._asked:
            answer = json.loads(self._until_zero())
        assert "error" not in answer, answer
        return answer["result"]

    def _until_zero(self):
        message = bytearray()
        while (byte := self._reading.read(1)) != b"\0":
            assert byte, "the browser has ended"
            message += byte
        return message

    def run(self, script):
        """The value of an expression in the page; a promise is waited for."""
        answer = self.ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"never happened: {condition}"
            time.sleep(0.05)

    def click(self, x, y):
        where = {"x": x, "y": y, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, **where)

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def picture(self, path):
        """(3, H, W) what is seen, also kept as a file."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))
        with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
            return rasterio.open(path).read()[:3].astype(int)


@contextmanager
def browser(path):
    """The page after it is drawn; the log of the network lies beside it when the browser ended."""
    to_read, answers = os.pipe()
    calls, to_write = os.pipe()
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--no-first-run",
        f"--user-data-dir={path.parent / 'profile'}", "--window-size=1200,800",
        f"--log-net-log={path.parent / 'net.json'}", "--remote-debugging-pipe", path.as_uri(),
    ]  # fmt: skip
    shell = f"exec {shlex.join(command)} 3<&{calls} 4>&{answers}"
    process = subprocess.Popen(
        ["bash", "-c", shell], pass_fds=(calls, answers), stderr=subprocess.DEVNULL
    )
    os.close(calls)
    os.close(answers)
    with open(to_read, "rb") as reading, open(to_write, "wb") as writing:
        try:
            shown = Browser(reading, writing, process)
            shown.wait("document.body?.dataset.ready !== undefined", seconds=120)
            yield shown
            with suppress(AssertionError):
                shown.ask("Browser.close")
            process.wait(30)
        finally:
            process.kill()
            process.wait()


SAID = "document.getElementById('said').textContent"
POPUP = "document.querySelector('.leaflet-popup-content')?.textContent"
SCALE = "document.querySelector('.leaflet-control-scale-line').textContent"
BUTTONS = "[...document.querySelectorAll('#tables button')]"


@pytest.mark.slow
@needs_browser
def test_a_browser_draws_the_page_offline_and_shows_hostile_text_as_text(street, tmp_path):
    package, mosaic = street
    write_map(package, tmp_path / "map.html", reduce(mosaic, 2000))
    with browser(tmp_path / "map.html") as shown:
        legend_text = shown.run("document.getElementById('legend').textContent")
        for label in ("high (> 75 mm)", "poor (> 20 %)", "no imagery"):
            assert label in legend_text
        assert re.fullmatch(r"\d+ (m|km)", shown.run(SCALE))
        backdrop = "document.querySelector('.leaflet-image-layer').src.slice(0, 15)"
        assert shown.run(backdrop) == "data:image/webp"
        shown.run(f"{BUTTONS}[1].click()")
        assert "R2-000" in shown.run(POPUP)
        assert HOSTILE in shown.run(POPUP)
        assert "segment_id R2-000" in shown.run(SAID)
        failed = shown.run("document.querySelector('#tables li').textContent")
        assert failed == f"{HOSTILE}.tif: is not a GeoTIFF; convert it"
        assert shown.run("document.title") == "Crack map"
        assert shown.run("document.querySelectorAll('img[src=x], #tables script').length") == 0
        shown.picture(tmp_path / "shot.png")
        entries = "performance.getEntriesByType('resource').map((entry) => entry.name)"
        assert [name for name in shown.run(entries) if not name.startswith("data:")] == []
    asked = set(re.findall(r'"url":"https?://([^/"]*)', (tmp_path / "net.json").read_text()))
    assert not {host for host in asked if not host.endswith(BROWSERS_OWN)}


@pytest.mark.slow
@needs_browser
def test_a_click_on_the_map_opens_the_attributes_of_what_lies_there(street, tmp_path):
    package, _ = street
    write_map(package, tmp_path / "map.html")
    crack_ids = values(data_of(tmp_path / "map.html")["cracks"], "crack_id")
    with browser(tmp_path / "map.html") as shown:
        width, height = shown.run("Object.values(crackMap.map.getSize())")
        for kind, k, expected in (
            ("cracks", 0, crack_ids[0]), ("cracks", 2, crack_ids[2]), ("segments", 1, HOSTILE),
        ):  # fmt: skip
            place = f"crackMap.map.latLngToContainerPoint(crackMap.layers.{kind}.middle({k}))"
            x, y = shown.run(f"Object.values({place})")
            assert 0 < x < width
            assert 0 < y < height
            shown.click(x + 2, y)
            shown.wait(f"{POPUP} !== undefined")
            assert expected in shown.run(POPUP), kind
            shown.press("Escape")
            shown.wait(f"{POPUP} === undefined")
        shown.run("crackMap.layers.cracks.remove(); null")
        shown.click(x, y + 40)
        assert "block_id" in shown.run(POPUP)


@pytest.mark.slow
@needs_browser
def test_the_page_can_be_used_by_keyboard(street, tmp_path):
    package, mosaic = street
    write_map(package, tmp_path / "map.html", reduce(mosaic, 2000))
    with browser(tmp_path / "map.html") as shown:
        every = "[...document.querySelectorAll('#map, #tables button, .leaflet-control a, input')]"
        assert shown.run(f"{every}.every((one) => one.tabIndex === 0)")
        before = shown.run(SCALE)
        shown.run("document.querySelectorAll('#tables details')[1].open = true")
        shown.run(f"{BUTTONS}.at(-1).focus()")
        shown.ask("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r")
        shown.wait(f"{POPUP} !== undefined")
        shown.wait(f"{SCALE} !== {json.dumps(before)}")
        shown.press("Escape")
        shown.wait(f"{POPUP} === undefined")


@pytest.mark.slow
@needs_browser
def test_segments_and_cracks_have_the_colors_of_the_legend(street, tmp_path):
    package, _ = street
    write_map(package, tmp_path / "map.html")
    with browser(tmp_path / "map.html") as shown:
        picture = shown.picture(tmp_path / "shot.png")[:, :, :800]
        pink = (picture == np.reshape((0xCC, 0x79, 0xA7), (3, 1, 1))).all(axis=0)
        assert pink.sum() > 50
        yellow = picture[:2].min(axis=0) - picture[2] > 60  # a fair segment shines through
        assert yellow.sum() > 200


@pytest.mark.slow
@needs_browser
def test_layers_keep_their_order_when_they_are_switched(street, tmp_path):
    package, mosaic = street
    write_map(package, tmp_path / "map.html", reduce(mosaic, 2000))
    with browser(tmp_path / "map.html") as shown:
        before = shown.picture(tmp_path / "shot.png")[:, :, :800]
        boxes = "document.querySelectorAll('.leaflet-control-layers input')"
        assert shown.run(f"{boxes}.length") == 4
        for _ in range(2):
            shown.run(f"{boxes}.forEach((box) => box.click())")
        shown.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 500)))")
        assert np.abs(shown.picture(tmp_path / "again.png")[:, :, :800] - before).mean() < 0.5


def many_cracks(count):
    """The page of a city with so many cracks of five vertices, some tenths of a meter long."""
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 0.2, (count, 4, 2)) + rng.normal(0, 0.2, (count, 1, 2))
    start = rng.random((count, 1, 2)) * 6000 + [5e5, 5.8e6]
    lines = shapely.linestrings(np.concatenate((start, start + np.cumsum(steps, axis=1)), axis=1))
    frame = geopandas.GeoDataFrame({name: rng.random(count) for name in CRACK_COLUMNS})
    frame = frame.set_geometry(lines, crs=25832)
    frame["crack_id"] = [f"{k:016x}" for k in range(count)]
    frame["severity_d6433"] = rng.choice(["high", "medium", "low", "not_measurable"], count)
    nothing = {"columns": [], "shapes": {"parts": [], "points": [], "steps": []}, "ranked": []}
    status = {"name": "status", "meaning": "", "values": []}
    (south, north), (west, east) = (52.35, 52.40), (9.0, 9.09)
    return {
        "summary": f"{count} cracks",
        "note": "",
        "failures": [],
        "bounds": [[south, west], [north, east]],
        "image": None,
        "legend": legend(Rules()),
        "cracks": records(frame, CRACK, list(range(500))),
        "segments": nothing,
        "inspected": nothing | {"columns": [status]},
    }


@pytest.mark.slow
@needs_browser
def test_a_hundred_thousand_lines_are_ready_in_five_seconds(tmp_path):
    (tmp_path / "map.html").write_text(page(many_cracks(100_000)), encoding="utf-8")
    with browser(tmp_path / "map.html") as shown:
        ready = int(shown.run("document.body.dataset.ready"))
        picture = shown.picture(tmp_path / "shot.png")[:, :, :800]
    assert ready < 5000
    dull = np.ptp(picture, axis=0) < 20
    assert (~dull).mean() > 0.05  # of the map is cracks
