"""A review: what is drawn, what is answered, where the result goes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pyogrio
import pytest
from affine import Affine
from aiohttp.test_utils import TestClient, TestServer
from factories import EAST, NORTH, UTM32
from rasterio.crs import CRS

from geo import packages
from geo.errors import InputError
from geo.grid import Grid
from geo.page.report import summarize
from geo.review.places import draw_sample, read_places
from geo.review.record import read_accuracy, write_accuracy
from jobs.infer.outputs import MapFiles
from jobs.page.server import make_token
from jobs.review.apply import run_apply
from jobs.review.run import ReviewOptions, draw_again, draw_plan, run_review
from jobs.review.server import make_app
from jobs.review.session import Place, Plan, assess
from jobs.review.source import MapRun, Scenes, open_imagery
from wpcrack.data.images import read_rgb
from wpcrack.data.manifest import read_manifest
from wpcrack.data.surroundings import find_surroundings
from wpcrack.errors import ConfigError, DataError

SIDE = 32


def test_places_cover_what_was_inspected_once(package):
    places = read_places(package, SIDE * 0.005)
    assert len(np.unique(places.cell, axis=0)) == len(places)
    assert 0 < places.marked.sum() < len(places)
    assert set(places.kind[places.marked]) <= {"longitudinal", "transverse", "diagonal", "unknown"}
    assert (places.kind[~places.marked] == "").all()
    assert len(places) <= (600 / SIDE + 1) ** 2


@pytest.mark.parametrize("degrees", [0, 45, 90])
def test_what_is_sampled_is_what_is_shown_however_the_imagery_lies(package, degrees):
    """Squares of a lattice do not overlap: neither do their frames, but for a row of pixels."""
    turned = (
        Affine.translation(EAST, NORTH) * Affine.rotation(degrees) * Affine.scale(0.005, -0.005)
    )
    mosaic = SimpleNamespace(grid=Grid(turned, CRS.from_user_input(UTM32), (600, 600)))
    plan = draw_plan(package, MapRun.read(package), ReviewOptions(count=200, window=SIDE), mosaic)
    scenes = Scenes(package, mosaic, SIDE)
    windows = [scenes.window(place.x, place.y) for place in plan.places]
    assert len(windows) > 100
    shared = [one.intersection(other) for one, other in combinations(windows, 2)]
    assert max((window.area_px for window in shared if window is not None), default=0) <= SIDE


def test_a_sample_has_every_stratum_and_no_place_twice(package):
    places = read_places(package, SIDE * 0.005)
    sample = draw_sample(places, 60, 0)
    assert len(np.unique(sample.index)) == len(sample.index)
    assert set(sample.stratum) == set(sample.sizes)
    assert sum(sample.sizes.values()) == len(places)


def test_a_person_who_is_right_measures_the_map(package, opened):
    """Everything is accepted but the stain: precision below one, recall whole."""
    with opened(package) as session:
        for number, place in enumerate(session.plan.places):
            wrong = place.marked and place.kind == "unknown"
            session.answer(number, "reject" if wrong else "accept")
        accuracy = session.accuracy()
    assert accuracy.precision is not None
    assert accuracy.recall is not None
    assert accuracy.recall.value == 1
    assert accuracy.recall.low < 1
    assert accuracy.judged == len(session.plan.places)
    assert set(accuracy.by_type) == {p.kind for p in session.plan.places if p.marked}


@pytest.mark.parametrize("kinds", ["abb", "aabb", "aabbb"])
def test_a_class_is_known_for_sure_only_where_its_stratum_is_wholly_judged(kinds: str) -> None:
    places = tuple(Place(0, 0, "small", True, kind, "low", 1.0) for kind in kinds)
    for unseen in (0, 1):
        plan = Plan("run", len(kinds), 0, 64, {"small": len(kinds) + unseen}, places)
        found = assess(plan, dict.fromkeys(range(len(kinds)), "accept"))
        assert [share.low < 1 for share in found.by_type.values()] == [bool(unseen)] * 2


def test_answers_survive_and_another_sample_is_refused(package, opened):
    with opened(package) as session:
        session.answer(0, "accept")
        session.answer(1, "missed")
        session.answer(2, "unsure")
        assert session.undo() == 2
    with opened(package) as session:
        assert session.verdicts() == {0: "accept", 1: "missed"}
        assert session.next_places()[0] == 2
    with (
        pytest.raises(ConfigError, match="holds a review"),
        opened(package, ReviewOptions(count=60, seed=5, window=SIDE)),
    ):
        pass


def test_answers_on_a_map_that_was_edited_since_are_not_taken_for_the_new_one(package, opened):
    with opened(package) as session:
        session.answer(0, "accept")
        write_accuracy(package, session.accuracy())
    rows = pyogrio.read_dataframe(package, layer="crack")
    longest = rows["length_m"] == rows["length_m"].max()
    pyogrio.write_dataframe(rows[~longest], package, layer="crack")
    assert run_apply(package).applied is not None
    with pytest.raises(ConfigError, match="before it was edited"), opened(package):
        pass
    assert read_accuracy(package).estimator.endswith("of the map before it was edited")
    package.with_suffix(".review").rename(package.with_suffix(".before"))
    with opened(package) as session:
        assert session.verdicts() == {}


def test_nothing_can_be_rejected_where_nothing_is_marked(package, opened):
    with opened(package) as session:
        number = next(k for k, place in enumerate(session.plan.places) if not place.marked)
        with pytest.raises(DataError, match="has nothing here"):
            session.answer(number, "reject")


def test_judged_places_become_windows_with_labels(package, opened):
    with opened(package) as session:
        for number, place in enumerate(session.plan.places):
            session.answer(number, "reject" if place.marked else "missed")
        folder = session.write_windows()
        wanted = {True: "road", False: "crack"}
        labels = {wanted[place.marked] for place in session.plan.places}
    rows = read_manifest(folder / "manifest.csv")
    assert {row.label for row in rows} == labels == {"crack", "road"}
    assert all((folder / row.file).is_file() and row.height == SIDE for row in rows)
    around, lost = find_surroundings(folder, [row.file for row in rows])
    assert len(around) == len(rows) > 0
    assert lost == []
    assert {read_rgb(path).shape for path in around.values()} == {(2 * SIDE, 2 * SIDE, 3)}


def test_the_result_stands_in_map_report_and_page(package, opened):
    run = MapRun.read(package)
    with opened(package) as session:
        for number in range(len(session.plan.places)):
            session.answer(number, "accept")
        accuracy = session.accuracy()
    write_accuracy(package, accuracy)
    assert read_accuracy(package) == accuracy
    assert packages.additions(package) == []
    files = MapFiles.of(package)
    draw_again(files, run.work_folder(package), None)
    assert summarize(package).accuracy == accuracy
    assert "## Accuracy" in files.report.read_text("utf-8")
    assert json.loads(files.figures.read_text("utf-8"))["accuracy"]["judged"] == accuracy.judged
    assert "Judged by people at" in files.page.read_text("utf-8")


def test_the_result_does_not_hide_what_people_edited(package, opened):
    rows = pyogrio.read_dataframe(package, layer="crack")
    pyogrio.write_dataframe(rows.iloc[1:], package, layer="crack")
    with opened(package) as session:
        session.answer(0, "accept")
        write_accuracy(package, session.accuracy())
    assert "changes in crack" in packages.additions(package)


def without_its_longest_crack(package):
    rows = pyogrio.read_dataframe(package, layer="crack")
    longest = rows["length_m"] == rows["length_m"].max()
    pyogrio.write_dataframe(rows[~longest], package, layer="crack")


@pytest.mark.parametrize("is_new_file", [True, False])
def test_answers_do_not_go_into_a_map_that_was_changed_meanwhile(package, monkeypatch, is_new_file):
    def serve(app, save, **options):
        app.args[0].answer(0, "accept")
        without_its_longest_crack(package)
        assert not is_new_file or run_apply(package).applied is not None

    monkeypatch.setattr("jobs.review.run.serve", serve)
    with pytest.raises(ConfigError, match=r"replaced or edited while .* kept in .*cracks\.review"):
        run_review(package, ReviewOptions(count=60, window=SIDE))
    assert read_accuracy(package) is None
    assert (package.with_suffix(".review") / "answers.jsonl").read_text("utf-8").count(
        "accept"
    ) == 1


def test_the_page_says_what_it_lost_meanwhile_and_keeps_no_white_picture(package, opened):
    async def talk(client, token, scenes):
        imagery = scenes._mosaic
        scenes._mosaic = replace(imagery, tiles=(replace(imagery.tiles[0], path="/gone.tif"),))
        answer = await client.get(f"/{token}/picture/0")
        assert (answer.status, "drive" in (await answer.json())["error"]) == (400, True)
        scenes._mosaic = imagery
        assert (await client.get(f"/{token}/picture/0")).status == 200
        package.rename(package.with_suffix(".old"))
        answer = await client.get(f"/{token}/state")
        assert (answer.status, "replaced" in (await answer.json())["error"]) == (400, True)

    async def visit():
        token = make_token()
        with opened(package) as session:
            async with TestClient(TestServer(make_app(session, token))) as client:
                await talk(client, token, session._scenes)

    asyncio.run(visit())


def test_imagery_that_moved_is_asked_for(package, tmp_path):
    with pytest.raises(InputError, match=r"say where .* tiles=DIR"):
        open_imagery(package, MapRun.read(package), [f"tiles={tmp_path / 'gone'}"])


def test_the_page_gets_pictures_marks_and_the_result(package, opened):
    async def talk(client, token):
        state = await (await client.get(f"/{token}/state")).json()
        view = state["next"]
        assert set(view["marks"]) == {"outline", "network", "crack"}
        picture = await client.get(f"/{token}/picture/{view['index']}")
        assert (picture.status, picture.content_type) == (200, "image/png")
        assert (await client.get(f"/{token}/picture/9999")).status == 400
        assert (await client.get("/wrong/state")).status == 403
        given = {"index": view["index"], "verdict": "accept"}
        state = await (await client.post(f"/{token}/answer", json=given)).json()
        assert (state["progress"]["done"], state["progress"]["last"]) == (1, "accept")
        answer = await client.post(f"/{token}/answer", json={"index": 0, "verdict": "maybe"})
        assert answer.status == 400
        undone = await (await client.post(f"/{token}/undo", json={})).json()
        assert undone["undone"] == view["index"]

    async def visit():
        token = make_token()
        with opened(package) as session:
            async with TestClient(TestServer(make_app(session, token))) as client:
                await talk(client, token)

    asyncio.run(visit())


def test_a_damaged_plan_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "sample.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be read"):
        Plan.read(tmp_path / "sample.json")
