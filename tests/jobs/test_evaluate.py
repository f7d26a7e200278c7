"""evaluate and predict with a stand-in network that takes darkness for probability."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from geo.errors import OutputError
from jobs.cli import app
from jobs.dataset import run_dataset
from jobs.evaluate import report as score_figure
from jobs.evaluate import run as evaluate
from jobs.evaluate.run import EvaluateOptions, run_evaluate
from jobs.predict import ENDINGS, run_predict
from jobs.runtime.memory import Memory
from wpcrack.data.build import BuildOptions
from wpcrack.data.images import read_rgb
from wpcrack.data.manifest import read_manifest
from wpcrack.errors import CheckpointError, ConfigError, DataError
from wpcrack.scoring import metrics
from wpcrack.scoring.scores import ImageScore

KEYS = [
    "n_images",
    "threshold",
    "native",
    "miou_2class",
    "per_image",
    "ods",
    "ois",
    "f1_macro",
    "fp_area_share",
    "ci95",
    "seconds",
]


def darkness(windows: np.ndarray) -> np.ndarray:
    assert windows.dtype == np.uint8
    return (1 - windows.mean(axis=-1) / 255).astype(np.float32)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight bright photographs with a dark crack and a dark stain, and two without crack."""
    root = tmp_path_factory.mktemp("drawn")
    for name in ("images", "masks", "road"):
        (root / name).mkdir()
    for k in range(10):
        image = np.full((96, 128, 3), 200, np.uint8)
        mask = np.zeros((96, 128), np.uint8)
        image[80:84, 100 : 103 + k] = 20
        if k < 8:
            mask[:, 20 + k : 23 + k] = 255
            image[mask > 0] = 20
            Image.fromarray(mask).save(root / "masks" / f"p{k}.png")
        Image.fromarray(image).save(root / ("images" if k < 8 else "road") / f"p{k}.png")
    return root


def options(drawn: Path, **changes: object) -> EvaluateOptions:
    paths = {"model": drawn, "images": drawn / "images", "masks": drawn / "masks"}
    return EvaluateOptions(**(paths | changes))


def score(drawn: Path, **changes: object) -> dict[str, Any]:
    return run_evaluate(options(drawn, **changes), darkness).values()


@pytest.fixture
def manifest(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    build = BuildOptions(window=32, val=0.25, road=drawn / "road")
    run_dataset(drawn / "images", drawn / "masks", tmp_path / "set", build)
    capsys.readouterr()
    return tmp_path / "set" / "manifest.csv"


def test_scores_are_those_of_the_drawn_pixels(drawn: Path) -> None:
    scores = score(drawn)
    assert list(scores) == KEYS
    tp, fp = 8 * 96 * 3, sum(4 * (3 + k) for k in range(8))
    assert scores["n_images"] == 8
    native = scores["native"]
    assert list(native) == ["iou", "precision", "recall", "f1", "f1_tol2", "f1_tol5"]
    assert native["iou"] == pytest.approx(tp / (tp + fp))
    assert native["recall"] == 1
    assert scores["fp_area_share"] is None


def wpcrack(drawn: Path, *more: object) -> Result:
    """The command, with darkness in the place of the network."""
    given = ("--model", drawn, "--images", drawn / "images", "--masks", drawn / "masks", *more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "find_model", lambda _: None)
        patch.setattr(evaluate, "load_predictor", lambda *_: darkness)
        return CliRunner().invoke(app, ["evaluate", *map(str, given)])


def test_json_file_holds_what_is_returned_and_the_table_is_printed(
    drawn: Path, tmp_path: Path
) -> None:
    file = tmp_path / "scores.json"
    result = wpcrack(drawn, "--json", file, "--resize", 64)
    found, scores = json.loads(file.read_text()), score(drawn, resize=64)
    assert found | {"seconds": 0} == json.loads(json.dumps(scores | {"seconds": 0}))
    assert set(scores["resize_64"]) == set(scores["native"])
    assert f"{scores['native']['f1']:.3f}" in result.stdout
    assert "64x64" in result.stdout


def test_a_figure_that_cannot_be_drawn_costs_no_score(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: object) -> None:
        raise OutputError(f"{path} could not be written (No space left on device)")

    monkeypatch.setattr(evaluate, "write_picture", full)
    file = tmp_path / "scores.json"
    result = wpcrack(drawn, "--json", file, "--figure", tmp_path / "figure.png")
    assert result.exit_code == 1
    assert "figure.png could not be written" in result.stderr
    assert list(json.loads(file.read_text())) == KEYS
    assert f"{score(drawn)['native']['f1']:.3f}" in result.stdout


def test_dash_prints_json_and_nothing_else(drawn: Path) -> None:
    assert list(json.loads(wpcrack(drawn, "--json", "-").stdout)) == KEYS


def test_the_figure_shows_the_best_and_worst_images_with_hits_and_misses(
    drawn: Path, tmp_path: Path
) -> None:
    file = tmp_path / "best.png"
    plain = score(drawn)
    scores = score(drawn, figure=file)
    assert {k: v for k, v in scores.items() if k != "seconds"} == {
        k: v for k, v in plain.items() if k != "seconds"
    }
    picture = read_rgb(file)
    strip = score_figure.PANEL_WIDTH * 96 // 128
    assert picture.shape[0] == (
        score_figure.HEADER + 8 * (score_figure.LABEL + strip) + score_figure.GAP
    )
    first = picture[score_figure.HEADER : score_figure.HEADER + score_figure.LABEL + strip]
    share = {
        name: float((first == color).all(2).mean())
        for name, color in (
            ("hit", score_figure.HIT),
            ("false alarm", score_figure.FALSE_ALARM),
            ("missed", score_figure.MISS),
        )
    }
    panels = first[..., 0].size / (score_figure.PANEL_WIDTH * strip)
    assert share["hit"] * panels == pytest.approx(3 / 128, rel=0.2)  # p0: 3 of 128 columns
    assert share["false alarm"] * panels == pytest.approx(4 * 3 / (96 * 128), rel=0.4)
    assert share["missed"] == 0


def test_best_and_worst_are_ranked_by_iou_and_never_the_same_image() -> None:
    images = [
        ImageScore(f"p{k}", metrics.Counts(tp=tp, fp=10), 0.0)
        for k, tp in enumerate((3, 9, 1, 3, 7))
    ]
    best, worst = score_figure.best_and_worst(images, each=2)
    assert [image.name for image in best] == ["p1", "p4"]
    assert [image.name for image in worst] == ["p2", "p3"]
    best, worst = score_figure.best_and_worst(images[:3])
    assert [image.name for image in best] == ["p1", "p0"]
    assert [image.name for image in worst] == ["p2"]
    assert score_figure.best_and_worst(images[:1])[1] == []


def test_resized_scores_resize_the_thresholded_prediction(drawn: Path) -> None:
    scores = score(drawn, resize=48)
    pooled = metrics.Counts()
    for path in sorted((drawn / "images").iterdir()):
        predicted = read_rgb(path)[..., 0] < 128
        truth = read_rgb(drawn / "masks" / path.name)[..., 0] > 127
        pooled += metrics.count(*(metrics.resize_nearest(mask, 48) for mask in (predicted, truth)))
    assert scores["resize_48"]["iou"] == pytest.approx(metrics.iou(pooled))


def test_manifest_limits_scores_to_the_sources_of_its_split(drawn: Path, manifest: Path) -> None:
    rows = read_manifest(manifest)
    for split in ("train", "val"):
        sources = {r.source for r in rows if r.split == split} - {"p8", "p9"}
        scores = score(drawn, manifest=manifest, split=split)
        assert scores["n_images"] == len(sources)
    assert score(drawn, manifest=manifest)["n_images"] == 2


def test_road_images_of_the_split_are_scored_by_false_area(drawn: Path, manifest: Path) -> None:
    held = next(
        r.source for r in read_manifest(manifest) if r.split == "val" and r.source in ("p8", "p9")
    )
    found = run_evaluate(options(drawn, manifest=manifest), darkness)
    assert found.values()["fp_area_share"] is None
    assert f"not found: {held}; add --road" in found.summary()
    scores = score(drawn, manifest=manifest, road=drawn / "road")
    assert scores["fp_area_share"] == 4 * (3 + int(held[1])) / (96 * 128)
    assert scores["n_images"] == 2
    both = score(drawn, road=drawn / "road")
    assert both["fp_area_share"] == (4 * 11 + 4 * 12) / (2 * 96 * 128)


def test_road_images_that_the_manifest_does_not_list_are_named(
    drawn: Path, manifest: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(drawn / "road" / "p8.png", tmp_path / "other" / "lane.png")
    found = run_evaluate(options(drawn, manifest=manifest, road=tmp_path / "other"), darkness)
    assert f"that {manifest} does not list are left out: lane" in found.summary()
    both = run_evaluate(options(drawn, manifest=manifest, road=drawn / "road"), darkness)
    assert both.note is None


@pytest.mark.parametrize("name", ["images", "masks", "road"])
def test_a_figure_among_the_pictures_is_refused(drawn: Path, name: str) -> None:
    figure = drawn / "images" / ".." / name / "figure.png"
    with pytest.raises(ConfigError, match="would be taken for a picture the next time"):
        score(drawn, road=drawn / "road", figure=figure)
    assert not figure.exists()


def test_road_images_may_lie_among_the_images_of_a_manifest(
    drawn: Path, manifest: Path, tmp_path: Path
) -> None:
    (tmp_path / "all").mkdir()
    for path in [*(drawn / "images").iterdir(), *(drawn / "road").iterdir()]:
        (tmp_path / "all" / path.name).write_bytes(path.read_bytes())
    scores = score(drawn, images=tmp_path / "all", manifest=manifest)
    assert scores["fp_area_share"] is not None
    with pytest.raises(DataError, match=r"images without a mask: p8\.png, p9\.png"):
        score(drawn, images=tmp_path / "all")


def test_manifest_of_other_images_or_without_the_split_is_refused(
    drawn: Path, manifest: Path
) -> None:
    text = manifest.read_text()
    manifest.write_text(text.replace(",p", ",other"))
    with pytest.raises(DataError, match=r"lacks source images of .*other"):
        score(drawn, manifest=manifest)
    manifest.write_text(text.replace(",val\n", ",train\n"))
    with pytest.raises(DataError, match="has no item of the val split"):
        score(drawn, manifest=manifest)
    with pytest.raises(ConfigError, match="split val needs a manifest"):
        score(drawn, split="val")


def test_missing_model_bad_figures_and_unwritable_json_stop_before_any_work(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()

    def never(_: np.ndarray) -> np.ndarray:
        raise AssertionError("predicted")

    with pytest.raises(CheckpointError, match="gone does not exist"):
        run_evaluate(options(drawn, model=tmp_path / "gone"))
    with pytest.raises(CheckpointError, match="gone does not exist"):
        run_predict(tmp_path / "gone", tmp_path / "out", [drawn / "images" / "p0.png"])
    with pytest.raises(ConfigError, match="resize is 0"):
        options(drawn, resize=0)
    with pytest.raises(ConfigError, match="threshold is 0"):
        options(drawn, threshold=0)
    with pytest.raises(ConfigError, match=r"figure is .*a\.jpg"):
        options(drawn, figure=tmp_path / "a.jpg")
    with pytest.raises(OutputError, match="cannot be made"):
        run_predict(drawn, tmp_path / "file", [drawn / "images" / "p0.png"], predictor=never)
    monkeypatch.setattr(evaluate, "run_evaluate", never)
    (tmp_path / "folder.png").mkdir()
    for option, name in (("--json", "."), ("--figure", "folder.png"), ("--json", "file/a.json")):
        result = wpcrack(drawn, option, tmp_path / name)
        assert result.exit_code == 1
        assert "name a file in a folder that exists" in result.stderr


def test_a_square_too_large_for_the_memory_is_refused_before_any_work(drawn: Path) -> None:
    def never(_: np.ndarray) -> np.ndarray:
        raise AssertionError("predicted")

    with pytest.raises(ConfigError, match=r"--resize 10000000 needs about .* give a smaller"):
        run_evaluate(options(drawn, resize=10_000_000), never)
    has = Memory(total=8 * 10**9, available=4 * 10**9)
    evaluate.require_resize(20_000, has)
    with pytest.raises(ConfigError, match="--resize 30000"):
        evaluate.require_resize(30_000, has)
    evaluate.require_resize(None, Memory(0, 0))


def test_mask_of_another_size_stops_evaluation(drawn: Path, tmp_path: Path) -> None:
    for folder in ("i", "m"):
        (tmp_path / folder).mkdir()
    (tmp_path / "i/a.png").write_bytes((drawn / "images" / "p0.png").read_bytes())
    Image.new("L", (64, 48)).save(tmp_path / "m/a.png")
    with pytest.raises(DataError, match=r"a\.png has 64 x 48 pixels, its image has 128 x 96"):
        score(drawn, images=tmp_path / "i", masks=tmp_path / "m")


@pytest.mark.parametrize("name", ["masks/p7.png", "images/p7.png", "road/p9.png"])
def test_what_cannot_be_read_is_refused_before_anything_is_predicted(
    drawn: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(drawn, tmp_path / "all")
    broken = (tmp_path / "all" / name).with_suffix(".jpg")  # its header says nothing of the end
    Image.open(broken.with_suffix(".png")).save(broken)
    broken.with_suffix(".png").unlink()
    broken.write_bytes(broken.read_bytes()[:-90])

    def never(_: np.ndarray) -> np.ndarray:
        raise AssertionError("predicted")

    folders = {name: tmp_path / "all" / name for name in ("images", "masks", "road")}
    with pytest.raises(DataError, match=f"{broken.name} cannot be read"):
        run_evaluate(options(drawn, **folders), never)


def test_predict_writes_probability_mask_and_overlay_of_the_image_size(
    drawn: Path, tmp_path: Path
) -> None:
    image = np.full((70, 90, 3), 255, np.uint8)
    image[10, 0:3] = [[128] * 3, [127] * 3, [0] * 3]
    Image.fromarray(image).save(tmp_path / "a.tif")
    found = run_predict(drawn, tmp_path / "out", [tmp_path / "a.tif"], predictor=darkness)
    assert [path.name for path in found.written] == ["a_prob.png", "a_mask.png", "a_overlay.png"]
    probability, mask, overlay = (np.asarray(Image.open(path)) for path in found.written)
    np.testing.assert_array_equal(probability, 255 - image[..., 0])
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.where(probability / 255 >= 0.5, 255, 0))
    assert mask[10, :3].tolist() == [0, 255, 255]
    np.testing.assert_array_equal((overlay != image).any(-1), mask > 0)
    assert overlay[10, 2, 0] > overlay[10, 2, 2]  # a black crack is painted red


def test_predict_takes_folders_and_files_and_names_what_it_leaves_out(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two/deeper"):
        (tmp_path / name).mkdir(parents=True)
    for place, k in (("one/a.png", 0), ("one/.b.png", 1), ("two/deeper/c.png", 2), ("d.png", 3)):
        (tmp_path / place).write_bytes((drawn / "images" / f"p{k}.png").read_bytes())
    (tmp_path / "two" / "e.png").write_bytes((drawn / "images" / "p4.png").read_bytes())
    (tmp_path / "one" / "photo.HEIC").touch()
    twice = ("one/a.png", "d.png", "two/../d.png")
    given = [tmp_path / name for name in ("one", "two", "d.png", *twice)]
    found = run_predict(drawn, tmp_path / "out", given, predictor=darkness)
    assert found.exit_code == 0
    assert len(found.written) == 3 * 3
    assert {p.name for p in (tmp_path / "out").glob("*_mask.png")} == {
        f"{stem}_mask.png" for stem in "aed"
    }
    told = capsys.readouterr().err
    assert "photo.HEIC" in told
    assert "deeper" in told
    with pytest.raises(DataError, match="folder of the photographs"):
        run_predict(drawn, tmp_path / "two", given, predictor=darkness)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none holds no image"):
        run_predict(drawn, tmp_path / "out", [tmp_path / "none"], predictor=darkness)


def test_inputs_of_equal_stem_are_refused_before_any_work(drawn: Path, tmp_path: Path) -> None:
    inputs = [drawn / "images" / "p0.png", tmp_path / "p0.jpg"]
    with pytest.raises(DataError, match="same stem would overwrite"):
        run_predict(drawn, tmp_path / "out", inputs, predictor=darkness)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="no image is given"):
        run_predict(drawn, tmp_path / "out", [], predictor=darkness)


def test_a_name_too_long_for_results_and_windows_is_named(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(drawn / "images" / "p0.png", tmp_path / "photos" / "b.png")
    shutil.copy(drawn / "images" / "p1.png", tmp_path / "photos" / f"a{'ü' * 110}.png")
    report = run_predict(drawn, tmp_path / "out", [tmp_path / "photos"], predictor=darkness)
    assert report.exit_code == 3
    assert {path.name for path in report.written} == {f"b_{x}.png" for x in ENDINGS}
    assert "has a name of more than 220 bytes" in capsys.readouterr().err
    (tmp_path / "photos" / "b.png").rename(tmp_path / "photos" / f"{'b' * 220}.png")
    (tmp_path / "photos" / f"a{'ü' * 110}.png").unlink()
    report = run_predict(drawn, tmp_path / "out", [tmp_path / "photos"], predictor=darkness)
    assert report.exit_code == 0
    for folder in ("images", "masks"):
        shutil.copytree(drawn / folder, tmp_path / folder)
        (tmp_path / folder / "p0.png").rename(tmp_path / folder / f"{'p' * 221}.png")
    build = BuildOptions(window=32)
    with pytest.raises(DataError, match=r"names of more than 220 bytes \(1, such as ppp"):
        run_dataset(tmp_path / "images", tmp_path / "masks", tmp_path / "set", build)
    for folder in ("images", "masks"):
        (tmp_path / folder / f"{'p' * 221}.png").rename(tmp_path / folder / f"{'p' * 220}.png")
    run_dataset(tmp_path / "images", tmp_path / "masks", tmp_path / "set", build)


def test_values_that_no_mask_has_are_refused_before_anything_is_predicted(
    drawn: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"said to be crack \(77\); p0\.png has values 0, 255"):
        score(drawn, mask_values=(77,))
    with pytest.raises(DataError, match="check that the masks are of the values 77 on cracks"):
        run_dataset(
            drawn / "images",
            drawn / "masks",
            tmp_path / "set",
            BuildOptions(window=32, mask_values=(77,)),
        )
    shutil.copytree(drawn / "masks", tmp_path / "empty")
    for path in (tmp_path / "empty").iterdir():
        Image.fromarray(np.zeros((96, 128), np.uint8)).save(path)
    assert score(drawn, masks=tmp_path / "empty", mask_values=(1,))["fp_area_share"] > 0


def test_one_bad_photograph_of_two_is_named_and_the_other_delivered_with_exit_code_3(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.predict.load_predictor", lambda *_: darkness)
    monkeypatch.setattr("jobs.predict.find_model", lambda model: model)
    data = (drawn / "images" / "p0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    files = [str(tmp_path / "cut.png"), str(drawn / "images" / "p1.png")]
    told = CliRunner().invoke(app, ["predict", *files, "--out", str(tmp_path / "out")])
    assert told.exit_code == 3, told.output
    assert "cut.png cannot be read" in told.stderr
    assert "1 of 2 photographs are in" in told.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        f"p1_{ending}.png" for ending in ("mask", "overlay", "prob")
    }
    told = CliRunner().invoke(app, ["predict", files[0], "--out", str(tmp_path / "none")])
    assert told.exit_code == 1
    assert told.stderr.count("\n") == 1


def test_dataset_prints_balance_sources_and_warnings(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dataset(drawn / "images", drawn / "masks", tmp_path / "s", BuildOptions(window=64))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["split", "crack", "road", "sources", "frames"]
    assert [line.split()[0] for line in lines[1:3]] == ["train", "val"]
    assert lines[3].startswith("identical files across splits: ")
    assert any(line.startswith("warning: only") for line in lines)
