"""map.html: contents, safety of text, and a real browser without a network."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from browser import BROWSERS_OWN, browser, needs_browser
from factories import EAST, NORTH, grid_of, write_parts, write_roads, write_tile
from rasterio.io import MemoryFile

from geo import read_tiles
from geo.grid import Window
from geo.imagery.headers import TileProblem
from geo.imagery.mosaic import Mosaic
from geo.imagery.overview import reduce
from geo.layers.assemble import assemble
from geo.layers.schema import CRACK, NETWORK
from geo.layers.style import rgb
from geo.options import AssembleOptions, RoadOptions, Rules
from geo.page.crops import CROP_PX, MAX_CROPS, _corners, cut_crops, read_crops, save_crops
from geo.page.kinds import MAP_FILTER, MAP_KINDS
from geo.page.map_page import (
    CRACK_COLUMNS,
    STEPS_PER_M,
    _image,
    bounds_of,
    encode_shapes,
    legend,
    map_data,
    page,
    records,
    write_map,
)

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"


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
    options = AssembleOptions(roads=chosen, survey_date="2026-05-04", model="drawn", run_id="0123")
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
    assert "Failed, wholly or in part: 1 of 1 block and 1 file." in data["summary"]
    assert "0 networks, 0.00 m²." in data["summary"]  # as units stand in tables and attributes
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


def test_crops_show_original_pixels_around_the_worst_and_are_bounded(street, tmp_path, monkeypatch):
    package, mosaic = street
    crops = cut_crops(mosaic, package)
    assert len(crops) == 3
    with MemoryFile(crops[0].picture) as memory, memory.open() as seen:
        picture = seen.read()
    assert picture.shape == (3, CROP_PX, CROP_PX)
    row = int(np.nonzero(picture[0] < 80)[0][0])
    assert abs(row - CROP_PX // 2) < 3  # the crack of 11 m runs through its middle
    assert abs(float(picture[:, 200:220].mean()) - 120) < 3
    _, north = np.transpose(crops[0].corners)
    assert 111_000 * np.ptp(north) == pytest.approx(CROP_PX * 0.02, rel=0.05)
    save_crops(tmp_path / "crops.json", crops)
    assert read_crops(tmp_path / "crops.json") == crops
    (tmp_path / "crops.json").write_text('[{"url": 1}]')
    assert read_crops(tmp_path / "crops.json") == []
    monkeypatch.setitem(MAX_CROPS, CRACK.name, 2)
    assert cut_crops(mosaic, package) == crops[:2]
    monkeypatch.setattr("geo.page.crops.MAX_CROP_BYTES", len(crops[0].picture))
    assert cut_crops(mosaic, package) == crops[:1]


@pytest.mark.parametrize("at_once", [1, 10])
def test_steps_of_shapes_add_up_to_their_places(at_once, monkeypatch):
    monkeypatch.setattr("geo.page.map_page.SHAPES_AT_ONCE", at_once)
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


def test_a_map_across_180_degrees_is_in_one_piece(tmp_path):
    place = Affine(0.1, 0, 819_446, 0, -0.1, 8_118_000)
    image = np.full((90, 90, 3), 150, np.uint8)
    mosaic = read_tiles(write_tile(tmp_path / "a.tif", image, crs=32760, transform=place))
    shapes = geopandas.GeoDataFrame(geometry=[mosaic.grid.footprint()], crs=32760)
    (south, west), (north, east) = bounds_of(shapes)
    assert west < 180 < east
    assert east - west == pytest.approx(9 / 106_500, rel=0.05)
    picture = _image(reduce(mosaic, 90))
    assert np.array(picture["bounds"]) == pytest.approx(np.array([[south, west], [north, east]]))
    corners = np.array(_corners(Window(0, 0, 90, 90), mosaic.grid))
    assert corners.min(axis=0).tolist() == pytest.approx([west, south], abs=1e-6)
    assert corners.max(axis=0).tolist() == pytest.approx([east, north], abs=1e-6)
    steps = np.reshape(encode_shapes(shapes.geometry)["steps"], (-1, 2))[1:]
    assert np.abs(steps).max() < 12 * STEPS_PER_M


def test_columns_of_people_are_left_out_and_a_day_has_no_hour():
    columns = {"area_m2": [2.0, 1.0], "note": ["mine", None]}
    days = pd.to_datetime(["2026-05-04", None])
    squares = [shapely.box(0, 0, 2, 1), shapely.box(3, 0, 4, 1)]
    frame = geopandas.GeoDataFrame(columns | {"survey_date": days}, geometry=squares, crs=25832)
    found = records(frame, NETWORK, [])
    assert [column["name"] for column in found["columns"]] == ["area_m2", "survey_date"]
    assert values(found, "survey_date") == ["2026-05-04", None]


def test_what_has_no_shape_is_in_no_table_as_a_click_could_not_show_it():
    shapes = [shapely.box(0, 0, 2, 1), None, shapely.Polygon(), shapely.box(3, 0, 4, 1)]
    frame = geopandas.GeoDataFrame({"area_m2": [2.0, 3.0, 4.0, 1.0]}, geometry=shapes, crs=25832)
    found = records(frame, NETWORK, [2, 1, 0, 3])
    assert found["ranked"] == [0, 3]
    assert found["shapes"]["parts"] == [1, 0, 0, 1]
    assert values(found, "area_m2") == [2, 3, 4, 1]


SAID = "document.getElementById('said').textContent"
CHOSEN = "document.getElementById('chosen').textContent"
MARKS = "document.querySelectorAll('.leaflet-chosen-pane path').length"
DATA = "JSON.parse(document.getElementById('data').textContent)"
SCALE = "document.querySelector('.leaflet-control-scale-line').textContent"
BUTTONS = "[...document.querySelectorAll('#tables button.id')]"
SHOWN = "document.getElementById('shown').textContent"
LATER = "new Promise((done) => requestAnimationFrame(() => setTimeout(done, 500)))"


@pytest.fixture(scope="module")
def shown(street, tmp_path_factory):
    """The page of the street with imagery and crops, in a browser; tests leave nothing chosen."""
    package, mosaic = street
    folder = tmp_path_factory.mktemp("page")
    write_map(package, folder / "map.html", reduce(mosaic, 2000), cut_crops(mosaic, package))
    with browser((folder / "map.html").as_uri(), folder) as page:
        page.resize(1200, 800)
        page.run(LATER)
        yield page


def picture(page, path):
    """(3, H, W) what is seen."""
    page.picture(path)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        return rasterio.open(path).read()[:3].astype(int)


def point(page, kind, k):
    """Where the middle of a shape is seen, x and y."""
    place = f"crackMap.map.latLngToContainerPoint(crackMap.layers.{kind}.middle({k}))"
    return page.run(f"Object.values({place})")


def click_at(page, x, y):
    where = {"x": x, "y": y, "button": "left", "clickCount": 1}
    for kind in ("mousePressed", "mouseReleased"):
        page.ask("Input.dispatchMouseEvent", type=kind, **where)


@pytest.mark.slow
@needs_browser
def test_the_page_asks_no_server_and_shows_hostile_text_as_text(street, tmp_path):
    package, mosaic = street
    write_map(package, tmp_path / "map.html", reduce(mosaic, 2000), cut_crops(mosaic, package))
    with browser((tmp_path / "map.html").as_uri(), tmp_path) as page:
        legend_text = page.run("document.getElementById('legend').textContent")
        for label in ("high (> 75 mm)", "high priority (cracked area > 20 %)", "no imagery"):
            assert label in legend_text
        header = page.run("document.getElementById('header').textContent")
        assert header == "surveyed2026-05-04modeldrawnrun0123"
        backdrop = "document.querySelector('.leaflet-image-layer').src.slice(0, 15)"
        assert page.run(backdrop) == "data:image/webp"
        page.run(f"{BUTTONS}[1].click()")
        assert HOSTILE in page.run(CHOSEN)
        assert HOSTILE in page.run(SAID)
        failed = page.run("document.querySelector('#tables li').textContent")
        assert failed == f"{HOSTILE}.tif: is not a GeoTIFF; convert it"
        assert page.run("document.title") == "Crack map"
        assert page.run("document.querySelectorAll('img[src=x], #tables script').length") == 0
        entries = "performance.getEntriesByType('resource').map((entry) => entry.name)"
        assert [name for name in page.run(entries) if not name.startswith("data:")] == []
    asked = set(re.findall(r'"url":"https?://([^/"]*)', (tmp_path / "net.json").read_text()))
    assert not {host for host in asked if not host.endswith(BROWSERS_OWN)}


@pytest.mark.slow
@needs_browser
def test_a_click_marks_what_lies_there_and_tells_it_in_words(shown):
    for kind, k, words in (
        ("cracks", 0, "length11 m"), ("cracks", 2, "length2.02 m"), ("segments", 1, HOSTILE),
    ):  # fmt: skip
        x, y = point(shown, kind, k)
        click_at(shown, x + 2, y)
        shown.wait(f"{MARKS} > 0")
        assert words in shown.run(CHOSEN), kind
        assert shown.run(f"{MARKS}") == 3  # with the crop's border, or the segment's color
        assert shown.run("document.querySelectorAll('#chosen img').length") == (kind == "cracks")
        shown.press("Escape")
        shown.wait(f"{MARKS} === 0 && document.getElementById('chosen').hidden")


@pytest.mark.slow
@needs_browser
def test_filters_leave_what_they_name_on_map_and_in_tables(shown):
    rows = "[...document.querySelectorAll('#tables details')[1].querySelectorAll('tbody tr')]"
    change = "document.querySelector('#filter').dispatchEvent(new Event('input'))"
    shown.run(f"document.querySelector('[name=length]').value = 2.5; {change}")
    assert shown.run(SHOWN).startswith("Shown: 2 of 3 cracks, 14")
    assert shown.run(f"{rows}.filter((row) => !row.hidden).length") == 2
    street = "document.querySelector('[name=street]')"
    shown.run(f"{street}.value = 'Am Markt'; {change}")
    assert shown.run(SHOWN).startswith("Shown: 1 of 3 cracks, 11")
    named = shown.run("document.getElementById('named').textContent")
    assert named == "Only Am Markt; at least 2.5 m"  # on paper, which has no form
    assert shown.run("[...crackMap.layers.segments.hidden]") == [0, 1]
    x, y = point(shown, "segments", 1)
    click_at(shown, x, y)
    assert HOSTILE not in shown.run(CHOSEN)
    shown.press("Escape")
    shown.run(f"{street}.value = ''; document.querySelector('[name=length]').value = 0; {change}")
    assert shown.run(SHOWN) == ""
    address = shown.run("location.href")
    shown.run("document.querySelector('[name=length]').focus()")
    shown.press("9")
    assert shown.run(SHOWN) != ""
    shown.ask("Page.navigate", url="about:blank")
    shown.run("history.back()")
    shown.wait(f"location.href === {address!r} && document.body?.dataset.ready !== undefined")
    shown.run(LATER)  # a browser fills forms in again after the page has begun
    filled = "document.querySelector('[name=length]').value"
    assert (shown.run(filled), shown.run(SHOWN)) == ("0", "")


@pytest.mark.slow
@needs_browser
def test_the_page_can_be_used_by_keyboard(shown):
    every = "[...document.querySelectorAll('#map, #tables button, .leaflet-control a, input')]"
    assert shown.run(f"{every}.every((one) => one.tabIndex === 0)")
    before = shown.run(SCALE)
    shown.run("document.querySelectorAll('#tables details')[1].open = true")
    shown.run(f"{BUTTONS}.at(-1).focus()")
    shown.press("Enter")
    shown.wait(f"{MARKS} > 0")
    shown.wait(f"{SCALE} !== {json.dumps(before)}")
    for k, segment in enumerate(shown.run(f"{DATA}.segments.ranked")):
        shown.run(f"{BUTTONS}[{k}].click()")
        shown.run(LATER)  # each lies in the middle, also where the one before is near
        seen = f"crackMap.map.getBounds().contains(crackMap.layers.segments.bounds({segment}))"
        assert shown.run(seen)
        middle = f"crackMap.layers.segments.bounds({segment}).getCenter()"
        away = f"crackMap.map.latLngToContainerPoint({middle})"
        away += ".distanceTo(crackMap.map.getSize().divideBy(2))"
        assert shown.run(away) < 20
    shown.press("Escape")
    shown.wait(f"{MARKS} === 0")
    shown.run(f"crackMap.map.fitBounds({DATA}.bounds, {{animate: false}}); null")


@pytest.mark.slow
@needs_browser
def test_odd_classes_large_numbers_and_long_lists_are_told_as_they_are(street, tmp_path):
    """A person may have drawn a crack without a class, and a city has a rank of four digits."""
    data = map_data(street[0], 10)

    def put(kind, name, values):
        column = next(one for one in data[kind]["columns"] if one["name"] == name)
        column.pop("levels", None)
        column["values"] = values

    put("cracks", "severity_d6433", [None, "hoch", "high"])
    put("segments", "segment_id", ["{3f2504e0-4f89-11d3-9a0c-0305e82c3301}-000", "R2-000"])
    put("segments", "name", ["Donauschifffahrtselektrizitätswerkstraße" * 2, None])
    put("segments", "rank", [1234, 2])
    put("segments", "from_m", [12050.4, 0])
    put("segments", "density_m_per_m2", [0.43056, -5e-6])
    data["failures"], data["failed"] = [["a.tif", "is cut short"]] * 2, 1200
    (tmp_path / "map.html").write_text(page(data), encoding="utf-8")
    with browser((tmp_path / "map.html").as_uri(), tmp_path) as shown:
        look = "crackMap.layers.cracks.looks[crackMap.layers.cracks.lookOf({})].color"
        assert shown.run(f"[0, 1, 2].map((k) => {look.format('k')})") == ["#ffffff"] * 2 + [
            "#d55e00"
        ]
        change = "document.querySelector('#filter').dispatchEvent(new Event('input'))"
        chosen = "document.querySelector('[name=class]').value"
        shown.run(f"{chosen} = 'not_measurable'; {change}")
        assert shown.run(SHOWN).startswith("Shown: 2 of 3 cracks")
        shown.run(f"{chosen} = ''; {change}")
        shown.run(f"{BUTTONS}[0].click()")
        for words in ("rank1234", "from12050 m", "line per area0.431 m/m²"):
            assert words in shown.run(CHOSEN), words
        shown.run(f"{BUTTONS}[1].click()")
        assert "line per area0 m/m²" in shown.run(CHOSEN)
        failed = "document.querySelector('#tables details:last-child').textContent"
        assert shown.run(failed).startswith("Not inspected (1200)")
        assert shown.run(failed).endswith("and 1198 more (layer inspected)")
        side = "document.getElementById('side')"
        assert shown.run(f"{side}.scrollWidth <= {side}.clientWidth")
        shown.run(f"{BUTTONS}[0].click()")
        popup = "document.querySelector('.leaflet-popup-content')"
        assert shown.run(f"{popup}.scrollWidth <= {popup}.clientWidth")


COVERED = """(() => {
  const parts = [...document.querySelectorAll(
    '.leaflet-control, #header, #summary, #legend, #filter, #tables, #chosen')];
  const seen = (one) => { // a part of the side is cut off at its border
    const box = one.getBoundingClientRect(), side = one.closest('#side, #map');
    const { top, bottom } = side.getBoundingClientRect();
    return { left: box.left, right: box.right, top: Math.max(box.top, top),
      bottom: Math.min(box.bottom, bottom) };
  };
  const boxes = parts.filter((one) => one.offsetParent).map(seen);
  let count = 0;
  boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b) => {
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1 && down > 1) count++;
  }));
  return [count, document.documentElement.scrollWidth - innerWidth,
    document.querySelectorAll('.leaflet-popup').length];
})()"""


@pytest.mark.slow
@needs_browser
def test_on_a_phone_nothing_covers_anything(shown):
    for side, other in ((390, 844), (844, 390)):  # upright, and turned
        shown.resize(side, other, phone=True)
        shown.ask("Page.reload")
        shown.wait("window.crackMap !== undefined && document.body.dataset.ready !== undefined")
        assert shown.run(COVERED) == [0, 0, 0]
        assert not shown.run("document.querySelectorAll('.leaflet-control-layers-expanded').length")
        shown.run(f"{BUTTONS}.at(-1).click()")
        assert shown.run(COVERED) == [0, 0, 0]
        shown.click("#chosen .close")  # it can be seen
    shown.resize(1200, 800)
    shown.ask("Page.reload")
    shown.wait("window.crackMap !== undefined && document.body.dataset.ready !== undefined")


@pytest.mark.slow
@needs_browser
def test_paper_shows_whole_tables_the_whole_view_and_the_colors(shown):
    shown.run(f"{BUTTONS}[0].click()")
    shown.run("dispatchEvent(new Event('beforeprint'))")
    box = "document.getElementById('map').getBoundingClientRect()"
    screen = shown.run(f"[{box}.width, {box}.height]")
    shown.ask("Emulation.setEmulatedMedia", media="print")
    width, height = shown.run(f"[{box}.width, {box}.height]")
    assert (width / screen[0], height) == pytest.approx((height / screen[1], 450), rel=0.01)
    assert shown.run("getComputedStyle(document.querySelector('#chosen .close')).display") == "none"
    color = "getComputedStyle(document.querySelector('#legend i')).printColorAdjust"
    assert shown.run(color) == "exact"
    closed = "document.querySelectorAll('#tables details:not([open])').length"
    assert shown.run(closed) == 0
    side = "document.getElementById('side')"
    assert shown.run(f"{side}.scrollHeight - {side}.clientHeight") <= 1
    assert shown.run("document.documentElement.scrollHeight > innerHeight")
    shown.ask("Emulation.setEmulatedMedia", media="")
    shown.run("dispatchEvent(new Event('afterprint'))")
    assert shown.run(closed) == 2
    shown.press("Escape")


@pytest.mark.slow
@needs_browser
def test_segments_and_cracks_have_the_colors_of_the_legend(shown, tmp_path):
    shown.run("crackMap.map.setZoom(crackMap.map.getZoom() + 0.5, {animate: false}); null")
    shown.run(LATER)
    seen = picture(shown, tmp_path / "shot.png")[:, :, :800]
    white = (seen >= 250).all(axis=0)  # cracks of an array without light have no width
    assert white.sum() > 50
    color = shown.run("crackMap.layers.segments.looks[crackMap.layers.segments.lookOf(0)].color")
    through = 0.6 * np.array(rgb(color)) + 0.4 * 120  # over gray imagery
    near = np.abs(seen - np.reshape(through, (3, 1, 1))).max(axis=0) < 10
    assert near.sum() > 200


@pytest.mark.slow
@needs_browser
def test_words_of_classes_are_not_cut_in_tables(shown):
    shown.run("document.querySelectorAll('#tables details').forEach((box) => { box.open = true; })")
    lines = shown.run("""(() => { const range = document.createRange();
      const cells = [...document.querySelectorAll('#tables td.text:first-child')];
      return cells.map((cell) => { range.selectNodeContents(cell);
        const tops = [...range.getClientRects()].map((box) => box.top);
        return [cell.textContent, new Set(tops).size]; }); })()""")
    assert ["not measurable", 2] in lines
    assert all(count <= text.count(" ") + 1 for text, count in lines)
    sides = "document.querySelector('#side')"
    assert shown.run(f"{sides}.scrollWidth - {sides}.clientWidth") == 0
    shown.run("document.querySelectorAll('#tables details').forEach((box, k) => { "
              "box.open = k === 0; })")  # fmt: skip


@pytest.mark.slow
@needs_browser
def test_a_chosen_segment_keeps_the_color_of_its_priority(shown, tmp_path):
    """It is translucent: over a white mark medium priority looked like low."""
    shown.run(f"{BUTTONS}[0].click()")
    shown.run(LATER)
    seen = picture(shown, tmp_path / "shot.png")[:, :, :800]
    segments, k = "crackMap.layers.segments", f"{DATA}.segments.ranked[0]"
    color = shown.run(f"{segments}.looks[{segments}.lookOf({k})].color")
    near = np.abs(seen - np.reshape(rgb(color), (3, 1, 1))).max(axis=0) < 4
    assert near.sum() > 200
    shown.press("Escape")
    shown.run(LATER)


@pytest.mark.slow
@needs_browser
def test_layers_keep_their_order_when_they_are_switched(shown, tmp_path):
    before = picture(shown, tmp_path / "shot.png")[:, :, :800]
    boxes = "document.querySelectorAll('.leaflet-control-layers input')"
    assert shown.run(f"{boxes}.length") == 4
    for _ in range(2):
        shown.run(f"{boxes}.forEach((box) => box.click())")
    shown.run(LATER)
    assert np.abs(picture(shown, tmp_path / "again.png")[:, :, :800] - before).mean() < 0.5


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
        "title": "Crack map",
        "kinds": {name: asdict(kind) for name, kind in MAP_KINDS.items()},
        "filter": asdict(MAP_FILTER),
        "header": [],
        "crops": [],
        "summary": f"{count} cracks",
        "note": "",
        "failures": [],
        "failed": 0,
        "bounds": [[south, west], [north, east]],
        "image": None,
        "legend": legend(Rules()),
        "cracks": records(frame, CRACK, list(range(500))),
        "segments": nothing,
        "networks": nothing,
        "inspected": nothing | {"columns": [status]},
    }


@pytest.mark.slow
@needs_browser
def test_a_hundred_thousand_lines_are_drawn(tmp_path):
    (tmp_path / "map.html").write_text(page(many_cracks(100_000)), encoding="utf-8")
    with browser((tmp_path / "map.html").as_uri(), tmp_path) as page_:
        seen = picture(page_, tmp_path / "shot.png")[:, :, :800]
    dull = np.ptp(seen, axis=0) < 20
    assert (~dull).mean() > 0.05  # of the map is cracks
