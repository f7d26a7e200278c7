"""map.html: contents, safety of text, and a real browser without a network."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from geo.features import AssembleOptions
from geo.grid import Grid
from geo.map_data import MapOptions, legend
from geo.map_page import page, write_map
from geo.mosaic import Mosaic, scan
from geo.package import InspectedRow, assemble, write_part
from geo.polygonize import pieces
from geo.reduce import reduced
from geo.roads import RoadOptions
from geo.rules import Rules

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def street(tmp_path_factory) -> tuple[Path, Mosaic]:
    """A package with two roads (one of hostile name), three cracks, and its imagery."""
    folder = tmp_path_factory.mktemp("map")
    transform = Affine(0.02, 0, 5e5, 0, -0.02, 5.8e6)
    grid = Grid(transform, CRS.from_epsg(25832), (400, 1000))
    mask = np.zeros(grid.shape, bool)
    mask[100:103, 50:600] = mask[200:206, 50:150] = mask[150:300, 700:704] = True
    image = np.where(mask, 40, 120).astype(np.uint8)
    (folder / "tiles").mkdir()
    with rasterio.open(
        folder / "tiles" / "a.tif", "w", driver="GTiff", height=400, width=1000, count=1,
        dtype="uint8", crs=grid.crs, transform=transform,
    ) as tiff:  # fmt: skip
        tiff.write(image, 1)
    mosaic = Mosaic.build(scan(str(folder / "tiles")))
    lines = [shapely.LineString([(5e5, 5.8e6 - y), (5e5 + 20, 5.8e6 - y)]) for y in (2.0, 6.0)]
    roads = geopandas.GeoDataFrame(
        {"ref": ["R1", "R2"], "street": ["Am Markt", HOSTILE], "wide": [4.0, 4.0]},
        geometry=lines,
        crs=25832,
    )
    roads.to_file(folder / "roads.gpkg")
    (block,) = mosaic.blocks(1024)
    found = pieces(mask, mask * np.uint8(200), block.window, mosaic.grid)
    row = InspectedRow.of(block, np.ones_like(mask), (), mosaic.grid, seconds=0)
    write_part(folder / "b.parquet", found, row)
    chosen = RoadOptions(folder / "roads.gpkg", id="ref", name="street", width="wide")
    assemble([folder / "b.parquet"], folder / "out.gpkg", grid, AssembleOptions(roads=chosen))
    return folder / "out.gpkg", mosaic


def data_of(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_holds_every_layer_and_no_address(street, tmp_path):
    package, mosaic = street
    write_map(package, tmp_path / "map.html", reduced(mosaic, 2000))
    text = (tmp_path / "map.html").read_text(encoding="utf-8")
    data = data_of(text)
    assert len(data["cracks"]["rows"]) == 3
    assert len(data["segments"]["rows"]) == 2
    assert len(data["inspected"]["rows"]) == 1
    (south, west), (north, east) = data["bounds"]
    assert 52.3 < south < north < 52.4
    assert 8.9 < west < east < 9.1
    names = data["segments"]["columns"]
    assert data["segments"]["rows"][1][names.index("name")] == HOSTILE
    assert text.count("<script") == 3
    assert "{{" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)\s*=\s*['\"]?https?:", text.split("<script>")[0])
    assert "default-src 'none'" in text
    assert data["image"]["url"].startswith("data:image/webp;base64,")


def test_beyond_the_cap_the_worst_cracks_are_drawn(street, tmp_path):
    package, _ = street
    write_map(package, tmp_path / "map.html", options=MapOptions(max_cracks=1))
    data = data_of((tmp_path / "map.html").read_text(encoding="utf-8"))
    (crack,) = data["cracks"]["rows"]
    assert crack[data["cracks"]["columns"].index("length_m")] == pytest.approx(11, rel=0.01)
    assert "worst 1 " in data["summary"]
    assert data["image"] is None


def browse(path, script="", *, log=None):
    """The page's document after it ran offline, with a script of the test at its end."""
    tried = path.with_name("tried.html")
    text = path.read_text(encoding="utf-8")
    head, tail = text.rsplit("</body>", 1)
    tried.write_text(f"{head}<script>{script}</script></body>{tail}", encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--no-first-run",
        f"--user-data-dir={path.parent / 'profile'}", "--virtual-time-budget=20000",
        "--window-size=1200,800", *([f"--log-net-log={log}"] if log else []),
        f"--screenshot={path.parent / 'shot.png'}", "--dump-dom", tried.as_uri(),
    ]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return answer.stdout


BROWSERS_OWN = (".google.com", ".gvt1.com", ".googleapis.com")
"""Hosts that the browser itself calls, whatever page it shows."""

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed here")

CLICK = """
const seen = document.body.dataset;
const button = document.querySelectorAll("#tables button")[1];
seen.legend = document.getElementById("legend").textContent;
seen.scale = document.querySelector(".leaflet-control-scale-line").textContent;
seen.focusable = [...document.querySelectorAll("#tables button, .leaflet-control a, input")]
    .every((one) => one.tabIndex === 0);
const before = document.querySelector(".leaflet-control-scale-line").textContent;
button.focus();
button.click();
setTimeout(() => {
    seen.popup = document.querySelector(".leaflet-popup-content").textContent;
    seen.said = document.getElementById("said").textContent;
    seen.backdrop = document.querySelector(".leaflet-image-layer").src.slice(0, 15);
    seen.asked = performance.getEntriesByType("resource")
        .map((entry) => entry.name).filter((name) => !name.startsWith("data:")).join(" ");
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
    setTimeout(() => {
        seen.closed = document.querySelector(".leaflet-popup") === null;
        [...document.querySelectorAll("#tables button")].at(-1).click();  // the shortest crack
        setTimeout(() => {
            const after = document.querySelector(".leaflet-control-scale-line").textContent;
            seen.zoomed = before !== after;
        }, 1000);
    }, 1000);
}, 500);
"""


def said(dom, name):
    """What the script of a test left in the document."""
    return html.unescape(re.search(rf'data-{name}="(.*?)"', dom, re.DOTALL)[1])


@pytest.mark.slow
@needs_browser
def test_a_browser_draws_the_page_offline_and_shows_hostile_text_as_text(street, tmp_path):
    package, mosaic = street
    write_map(package, tmp_path / "map.html", reduced(mosaic, 2000))
    dom = browse(tmp_path / "map.html", CLICK, log=tmp_path / "net.json")
    assert re.search(r'data-ready="\d+"', dom)
    assert "<title>Crack map</title>" in dom
    assert "R2-000" in said(dom, "popup")
    assert HOSTILE in said(dom, "popup")
    assert "segment_id R2-000" in said(dom, "said")
    assert "<img src" not in dom
    assert said(dom, "asked") == ""
    asked = set(re.findall(r'"url":"https?://([^/"]*)', (tmp_path / "net.json").read_text()))
    assert not {host for host in asked if not host.endswith(BROWSERS_OWN)}
    for label in ("high (> 75 mm)", "poor (> 20 %)", "no imagery"):
        assert label in said(dom, "legend")
    assert re.fullmatch(r"\d+ (m|km)", said(dom, "scale"))
    assert said(dom, "backdrop") == "data:image/webp"
    for fact in ("focusable", "zoomed", "closed"):
        assert said(dom, fact) == "true", fact


@pytest.mark.slow
@needs_browser
def test_segments_and_cracks_have_the_colors_of_the_legend(street, tmp_path):
    package, _ = street
    write_map(package, tmp_path / "map.html")
    browse(tmp_path / "map.html")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        picture = rasterio.open(tmp_path / "shot.png").read()[:3].astype(int)[:, :, :800]
    assert (picture == np.reshape((0xCC, 0x79, 0xA7), (3, 1, 1))).all(axis=0).sum() > 50
    blue = picture[2] - picture[0] > 60  # a segment in good condition shines through
    assert blue.sum() > 200


@pytest.mark.slow
@needs_browser
def test_a_hundred_thousand_lines_are_ready_in_five_seconds(tmp_path):
    rng = np.random.default_rng(0)
    start = rng.random((100_000, 1, 2)) * [0.1, 0.1] + [52, 9]
    lines = np.concatenate((start, start + rng.random((100_000, 3, 2)) * 1e-4), axis=1)
    nothing = {"columns": [], "meanings": [], "rows": [], "shapes": [], "ranked": []}
    columns = ["length_m", "crack_id", "width_mean_mm", "severity_d6433"]
    rows = [[1.0, str(k), 4.0, "low"] for k in range(100_000)]
    cracks = {
        "columns": columns,
        "meanings": columns,
        "rows": rows,
        "shapes": lines.round(7).tolist(),
        "ranked": [0],
    }
    data = {"summary": "", "note": "", "bounds": [[52, 9], [52.1, 9.1]], "image": None}
    data["legend"] = legend(Rules())
    data |= {"cracks": cracks, "segments": nothing, "inspected": nothing}
    (tmp_path / "map.html").write_text(page(data), encoding="utf-8")
    dom = browse(tmp_path / "map.html")
    assert int(re.search(r'data-ready="(\d+)"', dom)[1]) < 5000  # of a machine without other load
