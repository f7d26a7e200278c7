"""evaluate --windows: labels of windows judge a model, those alone that it did not learn from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from factories import tiny_model
from PIL import Image
from typer.testing import CliRunner

from geo.review.estimate import wilson
from jobs.cli import app
from jobs.evaluate.windows import WindowEvaluation, WindowOptions, evaluate_windows
from jobs.train.split import SPLIT
from wpcrack.errors import ConfigError, DataError
from wpcrack.scoring.windows import WindowScores

SIDE, DARK_PX = 64, 200
"""Of a window; pixels of a line or a stain, far more than a window needs to count as marked."""


def darkness(windows: np.ndarray) -> np.ndarray:
    return (1 - windows.mean(axis=-1) / 255).astype(np.float32)


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    """Four windows with a crack, of which one is too faint; three without, one with a stain."""
    for name, is_dark in {
        "crack/a.png": True,
        "crack/b.png": True,
        "crack/c.png": True,
        "crack/d.png": False,
        "road/e.png": False,
        "road/f.png": True,
        "road/g.png": False,
    }.items():
        image = np.full((SIDE, SIDE, 3), 200, np.uint8)
        if is_dark:
            image.reshape(-1, 3)[:DARK_PX] = 20
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "set"


def held_out_by_a_training(folder: Path, *names: str) -> Path:
    """Make a run that learned from the set of `labeled` but held some of its windows out."""
    tiny_model(folder / "run" / "model")
    every = [f"{'crack' if name < 'e' else 'road'}/{name}.png" for name in "abcdefg"]
    sides = {file: "val" if Path(file).stem in names else "train" for file in every}
    (folder / "run" / SPLIT).write_text(json.dumps(sides))
    return folder / "run"


def seen(model: Path | None, labeled: Path, **changes: object) -> WindowEvaluation:
    return evaluate_windows(WindowOptions(model, labeled, **changes), darkness)  # type: ignore[arg-type]


def test_a_window_is_found_where_enough_of_it_is_marked(labeled: Path) -> None:
    found = seen(None, labeled)
    assert found.scores == WindowScores(
        cracks=4, found=3, roads=3, marked=1, road_share=DARK_PX / (3 * SIDE**2)
    )
    assert found.scores.wrong == 2
    values = found.values()
    assert values["which"] == "all that are labeled"
    assert (values["n_windows"], values["recall"], values["f1"]) == (7, 0.75, 6 / 8)
    assert values["false_alarms"] == pytest.approx(1 / 3)
    interval = wilson(0.75, 4)
    assert values["ci95"]["recall"] == (interval.low, interval.high)  # type: ignore[index]
    assert "4, a crack found in 3: 75.0% (95 % interval 30.1% - 95.4%)" in found.summary()


@pytest.mark.parametrize(("px", "is_found"), [(8, False), (9, True)])
def test_the_least_share_is_that_of_the_config(labeled: Path, px: int, is_found: bool) -> None:
    image = np.full((SIDE, SIDE, 3), 200, np.uint8)
    image.reshape(-1, 3)[:px] = 20  # .002 of 4096 pixels are 8.2
    Image.fromarray(image).save(labeled / "crack" / "d.png")
    assert seen(None, labeled).scores.found == 3 + is_found


def test_windows_that_a_training_learned_from_judge_nothing(labeled: Path, tmp_path: Path) -> None:
    run = held_out_by_a_training(tmp_path, "a", "d", "f")
    for model in (run, run / "model"):
        found = seen(model, labeled)
        assert found.which == "held out by the training"
        assert found.scores == WindowScores(2, 1, 1, 1, DARK_PX / SIDE**2)
    assert seen(run, labeled, split="train").scores.cracks == 2


def test_another_set_with_the_same_names_is_scored_as_a_whole(
    labeled: Path, tmp_path: Path
) -> None:
    run = held_out_by_a_training(tmp_path, "a", "d", "f")
    for name in ("crack", "road"):  # the set of the training, which is still there
        (tmp_path / "learned" / name).mkdir(parents=True)
        for path in (labeled / name).iterdir():
            Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(
                tmp_path / "learned" / name / path.name
            )
    (run / "config.yaml").write_text(json.dumps({"data": {"root": str(tmp_path / "learned")}}))
    assert seen(run, labeled).which == "all that are labeled"
    assert seen(run, tmp_path / "learned").which == "held out by the training"
    shutil.copytree(tmp_path / "learned", tmp_path / "copy")
    assert seen(run, tmp_path / "copy").which == "held out by the training"
    shutil.rmtree(tmp_path / "learned")  # nothing but the names is known now
    assert seen(run, labeled).which == "held out by the training"
    (run / "config.yaml").write_text("data:")
    with pytest.raises(ConfigError, match=r"config\.yaml is damaged"):
        seen(run, labeled)


def test_a_split_of_the_set_is_used_if_it_is_asked_for(labeled: Path, tmp_path: Path) -> None:
    names = sorted(p.relative_to(labeled).as_posix() for p in labeled.glob("*/*.png"))
    lines = ["file,label,source,row,col,height,width,split"]
    for name in names:
        side = "val" if Path(name).stem in "ae" else "train"
        lines.append(f"{name},{name.split('/')[0]},{Path(name).stem},0,0,{SIDE},{SIDE},{side}")
    (labeled / "manifest.csv").write_text("\n".join(lines) + "\n")
    assert seen(None, labeled).values()["n_windows"] == 7
    assert seen(None, labeled, split="val").scores == WindowScores(1, 1, 1, 0, 0.0)
    assert seen(None, labeled, split="train").values()["n_windows"] == 5


def test_a_split_that_nobody_knows_is_refused(labeled: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no split.*leave out --split val"):
        seen(None, labeled, split="val")


def test_a_split_without_a_window_is_refused(labeled: Path, tmp_path: Path) -> None:
    run = held_out_by_a_training(tmp_path, *"abcdefg")
    with pytest.raises(DataError, match="no labeled window of the split train"):
        seen(run, labeled, split="train")


def test_a_damaged_split_is_named(labeled: Path, tmp_path: Path) -> None:
    run = held_out_by_a_training(tmp_path, "a")
    (run / SPLIT).write_text("{")
    with pytest.raises(ConfigError, match=r"split\.json is damaged"):
        seen(run, labeled)
    (tmp_path / "copy").mkdir()
    (run / "model").rename(tmp_path / "copy" / "model")  # as the sentence says
    assert seen(tmp_path / "copy", labeled).which == "all that are labeled"


def test_a_damaged_window_is_refused_before_anything_is_predicted(labeled: Path) -> None:
    broken = labeled / "road" / "h.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(broken)
    broken.write_bytes(broken.read_bytes()[:-900])

    def never(_: np.ndarray) -> np.ndarray:
        raise AssertionError("predicted")

    with pytest.raises(DataError, match=rf"{broken.name} cannot be read"):
        evaluate_windows(WindowOptions(None, labeled), never)


def test_labels_of_one_kind_alone_are_scored(labeled: Path) -> None:
    lines = ["file,label,source,row,col", "crack/a.png,crack,a,0,0"]
    (labeled / "manifest.csv").write_text("\n".join(lines) + "\n")
    found = seen(None, labeled)
    assert found.values()["false_alarms"] is None
    assert "windows without       none" in found.summary()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give --images and --masks, or --windows"),
        (["--images", "x"], "give --images and --masks, or --windows"),
        (["--windows", "x", "--masks", "y"], "with --windows only"),
        (["--windows", "x", "--resize", "256"], "with --windows only"),
        (["--images", "x", "--masks", "y", "--gsd-mm", "2"], "--gsd-mm belongs to --windows"),
    ],
)
def test_options_that_do_not_belong_together_are_wrong_usage(words: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["evaluate", *words])
    assert result.exit_code == 2
    assert says in result.output


def test_the_command_writes_the_figures(labeled: Path, tmp_path: Path) -> None:
    tiny_model(tmp_path / "run" / "model")
    words = ["--model", str(tmp_path / "run"), "--windows", str(labeled), "--gsd-mm", "5"]
    result = CliRunner().invoke(app, ["evaluate", *words, "--json", str(tmp_path / "f.json")])
    assert result.exit_code == 0, result.output
    values = json.loads((tmp_path / "f.json").read_text())
    assert (values["cracks"], values["roads"]) == (4, 3)
    for wrong in ("0", "inf", "nan"):
        refused = CliRunner().invoke(app, ["evaluate", *words[:-1], wrong])
        assert refused.exit_code == 1
        assert f"gsd-mm is {wrong}; give millimeters" in refused.output
