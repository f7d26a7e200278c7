"""No command replaces an input, or a file that it did not write; said before any work."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from factories import in_process, infer_job, street, write_tile
from PIL import Image
from typer.testing import CliRunner

import jobs.cli
import jobs.cli.learn
import jobs.cli.map
from geo.errors import OutputError
from jobs.cli.command import report_figures
from jobs.infer import run as infer
from jobs.predict import run_predict
from jobs.train.folder import CARD, LOCK, METRICS, REPORT
from jobs.train.split import SPLIT
from jobs.tune.folder import JOURNAL
from wpcrack.data.folder import MARKER, replace_set, write_marker
from wpcrack.data.images import write_png
from wpcrack.errors import DataError


def darkness() -> Callable[[np.ndarray], np.ndarray]:
    return lambda windows: (windows.mean(-1) < 90).astype(np.float32)


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "compute", in_process)


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    image, _ = street(128)
    return write_tile(tmp_path / "tiles" / "a.tif", image).parent


@pytest.mark.parametrize("name", ["map.html", "overview.png", "segments.csv", "report.md"])
def test_a_map_replaces_no_file_of_the_user(tiles: Path, name: str) -> None:
    mine = tiles.parent / f"cracks.{name}"
    mine.write_text("mine")
    roads = {"path": "roads.gpkg"} if name == "segments.csv" else {}
    job = infer_job(tiles, tiles.parent / "cracks.gpkg", roads=roads)
    for attempt in (lambda: infer.run_inference(job, darkness), lambda: infer.plan_inference(job)):
        with pytest.raises(OutputError, match="was not written by this program"):
            attempt()
    assert mine.read_text() == "mine"
    assert not job.work_folder.exists()


def test_what_a_user_edits_while_a_map_is_made_is_not_replaced(tiles: Path) -> None:
    job = infer_job(tiles, tiles.parent / "cracks.gpkg")
    infer.run_inference(job, darkness)
    mine, package = tiles.parent / "cracks.report.md", job.out.read_bytes()

    def edit() -> Callable[[np.ndarray], np.ndarray]:
        mine.write_text("mine")
        return darkness()

    with pytest.raises(OutputError, match="or was changed since"):
        infer.run_inference(job.model_copy(update={"resume": "never"}), edit)
    assert (mine.read_text(), job.out.read_bytes()) == ("mine", package)


def test_a_mask_that_a_user_corrects_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    photo, mine = tmp_path / "a.png", tmp_path / "found" / "a_mask.png"
    write_png(photo, street(64)[0])
    run_predict(None, mine.parent, [photo], predictor=darkness())

    def edit(windows: np.ndarray) -> np.ndarray:
        mine.write_bytes(b"mine")
        return darkness()(windows)

    with pytest.raises(OutputError, match="or was changed since"):
        run_predict(None, mine.parent, [photo], predictor=edit)
    assert mine.read_bytes() == b"mine"


def test_results_of_a_photograph_are_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    photos, out = [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "found"
    for photo in photos:
        write_png(photo, street(64)[0])
    inner: list[str] = []

    def again(windows: np.ndarray) -> np.ndarray:
        for photo in photos:
            try:
                run_predict(None, out, [photo], predictor=darkness(), threshold=0.9)
            except OutputError as error:
                inner.append(str(error))
        return darkness()(windows)

    run_predict(None, out, photos[:1], predictor=again)
    assert inner == [
        f"another process writes {out / 'a_prob.png'}; wait for its end or choose another --out"
    ]
    ends = ("prob", "mask", "overlay")
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{photo.stem}_{end}.png" for photo in photos for end in ends
    )


def test_figures_do_not_replace_what_a_user_wrote_meanwhile(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text("mine")
    with pytest.raises(OutputError, match="was not written by this program"):
        report_figures("text", {"a": 1}, file)
    assert file.read_text() == "mine"


def test_a_set_that_a_user_fills_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "set" / "mine.txt"

    def build(keep: bool) -> None:
        with replace_set(mine.parent, keep=keep):
            mine.parent.mkdir(exist_ok=True)
            mine.write_text("mine")

    for keep in (True, False):
        with pytest.raises(DataError, match="is not empty"):
            build(keep)
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine.txt"]
        mine.unlink()


def test_a_map_that_is_its_own_roads_area_or_tile_index_is_refused(tiles: Path) -> None:
    out = tiles.parent / "cracks.gpkg"
    infer.run_inference(infer_job(tiles, out), darkness)
    same = Path(os.path.relpath(out))
    for named, values in ((tiles, {"roads": {"path": same}}), (tiles, {"aoi": same}), (same, {})):
        with pytest.raises(OutputError, match="would replace the input"):
            infer.run_inference(infer_job(named, out, **values), darkness)


def test_the_same_command_again_keeps_an_edited_map_and_says_so(
    tiles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tiles.parent / "cracks.gpkg"
    infer.run_inference(infer_job(tiles, out), darkness)
    with closing(sqlite3.connect(out)) as base, base:
        base.execute("INSERT INTO qgis_projects (name) VALUES ('mine')")
    infer.run_inference(infer_job(tiles, out), darkness)
    told = capsys.readouterr()
    assert "changes in qgis_projects" in told.err + told.out
    assert "cracks.kept.gpkg" in told.err + told.out
    assert out.with_name("cracks.kept.gpkg").exists()


def test_predict_replaces_neither_a_drawn_mask_nor_an_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path("own")
    own.mkdir()
    image, mask = street(64)
    write_png(own / "a.png", image)
    write_png(own / "a_mask.png", mask.astype(np.uint8) * 255)
    drawn = (own / "a_mask.png").read_bytes()
    for images, message in (
        ([own / "a.png"], "was not written by this program"),
        ([own / "a.png", own / "a_mask.png"], "would replace the input own/a_mask.png"),
    ):
        with pytest.raises(OutputError, match=message):
            run_predict(None, own, images, predictor=darkness())
    assert (own / "a_mask.png").read_bytes() == drawn


def test_predict_renews_its_own_results_but_not_a_mask_corrected_by_hand(tmp_path: Path) -> None:
    image, _ = street(64)
    write_png(tmp_path / "a.png", image)
    for _ in range(2):
        run_predict(None, tmp_path / "out", [tmp_path / "a.png"], predictor=darkness())
    with Image.open(tmp_path / "out" / "a_mask.png") as mask:
        mask.point(lambda gray: 255 - gray).save(tmp_path / "out" / "a_mask.png")
    with pytest.raises(OutputError, match="changed since"):
        run_predict(None, tmp_path / "out", [tmp_path / "a.png"], predictor=darkness())


def test_predict_takes_no_result_of_its_own_for_a_photograph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, _ = street(64)
    for name in ("a.png", "b_mask.png"):
        write_png(tmp_path / name, image)
    run_predict(None, tmp_path, [tmp_path / "a.png"], predictor=darkness())
    report = run_predict(None, tmp_path / "out", [tmp_path], predictor=darkness())
    assert {path.name for path in report.written if "overlay" in path.name} == {
        "a_overlay.png",
        "b_mask_overlay.png",
    }
    assert "left out: 3 files that `wpcrack predict` wrote" in capsys.readouterr().err


def test_figures_replace_only_figures(tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text("run_dir: r\n")
    told = CliRunner().invoke(jobs.cli.app, ["doctor", "--json", str(config)])
    assert (told.exit_code, "was not written by this program" in told.stderr) == (1, True)
    assert config.read_text() == "run_dir: r\n"
    for name in ("map.gpkg", "map.map.html", "found_mask.png", "segments.CSV"):
        told = CliRunner().invoke(jobs.cli.app, ["doctor", "--json", str(tmp_path / name)])
        assert (told.exit_code, "name the file *.json" in told.stderr) == (1, True)
    roads = tmp_path / "roads.json"
    roads.write_text(json.dumps({"type": "FeatureCollection", "features": []}, indent=2) + "\n")
    told = CliRunner().invoke(jobs.cli.app, ["doctor", "--json", str(roads)])
    assert "was not written by this program" in told.stderr
    figures = tmp_path / "figures.json"
    for _ in range(2):
        told = CliRunner().invoke(jobs.cli.app, ["doctor", "--json", str(figures)])
        assert "was not written" not in told.stderr
    assert isinstance(json.loads(figures.read_text()), dict)


def told_of_figures(file: Path) -> str:
    """What a command says that would write figures there, and has nothing else to do with it."""
    told = CliRunner().invoke(jobs.cli.app, ["doctor", "--json", str(file)])
    return told.stderr if "error: --json" in told.stderr else ""


@pytest.mark.parametrize("mark", [CARD, METRICS, LOCK, JOURNAL])
@pytest.mark.parametrize("name", [REPORT, SPLIT])
def test_figures_replace_no_report_of_a_run(tmp_path: Path, mark: str, name: str) -> None:
    (tmp_path / mark).touch()
    assert "is a report or record of other work" in told_of_figures(tmp_path / name)
    for indent in (1, 2):  # of an adaption before, and of a training
        (tmp_path / name).write_text(json.dumps({"epochs": 3}, indent=indent) + "\n")
        assert "is a report or record of other work" in told_of_figures(tmp_path / name)
        assert json.loads((tmp_path / name).read_text()) == {"epochs": 3}
    (tmp_path / mark).unlink()  # figures may have this name where no run is
    (tmp_path / name).write_text(json.dumps({"epochs": 3}, indent=1) + "\n")
    assert not told_of_figures(tmp_path / name)


def test_figures_replace_no_report_of_a_map_nor_a_record(tiles: Path, tmp_path: Path) -> None:
    infer.run_inference(infer_job(tiles, tmp_path / "cracks.gpkg"), darkness)
    report = tmp_path / "cracks.report.json"
    before = report.read_bytes()
    assert "is a report or record of other work" in told_of_figures(report)
    assert report.read_bytes() == before
    report.rename(tmp_path / "kept.json")
    assert told_of_figures(tmp_path / "kept.json")
    assert told_of_figures(report)  # the next `assemble` or `review` writes it again
    (tmp_path / "manifest.csv").write_text("file,label\n")
    write_marker(tmp_path, {"images": "i"})
    assert told_of_figures(tmp_path / MARKER)
    assert not told_of_figures(tmp_path / "scores.report.json")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("infer tiles=t model=m out=n.gpkg", "n.report.json"),
        ("infer tiles=t model=m out=n.gpkg --plan", "n.report.json"),
        ("infer tiles=t model=m out=o.gpkg", "run/../o.work/a.json"),
        ("compare old.gpkg new.gpkg --out n.gpkg", "n.report.json"),
        ("train data.root=d run_dir=run", "run/report.json"),
        ("train data.root=d run_dir=run --dry-run", "run/figures.json"),
        ("tune data.root=d run_dir=run", "run/report.json"),
        ("tune --status run", "run/status.json"),
        ("adapt --images i --out run --plan", "run/report.json"),
    ],
)
def test_figures_lie_apart_from_what_the_command_itself_will_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, name: str
) -> None:
    for module in (jobs.cli.learn, jobs.cli.map):
        monkeypatch.setattr(module, "run_job", lambda *_, **__: pytest.fail("work has begun"))
    monkeypatch.chdir(tmp_path)
    for folder in ("run", "o.work"):
        Path(folder).mkdir()
    told = CliRunner().invoke(jobs.cli.app, [*words.split(), "--json", name])
    where = "is what this command writes" if name[0] == "n" else "lies in this command's folder"
    assert (told.exit_code, where in told.stderr) == (1, True), told.output
    assert told.stderr.count("\n") == 1


def test_another_map_of_a_run_keeps_its_report(tiles: Path, tmp_path: Path) -> None:
    infer.run_inference(infer_job(tiles, tmp_path / "cracks.gpkg"), darkness)
    again, report = tmp_path / "again.gpkg", tmp_path / "again.report.json"
    words = ["assemble", str(tmp_path / "cracks.gpkg"), f"out={again}", "--json", str(report)]
    told = CliRunner().invoke(jobs.cli.app, words)
    assert (told.exit_code, "what this command writes" in told.stderr) == (1, True)
    assert not again.exists()
