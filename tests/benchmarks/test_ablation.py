"""The ablation on drawn photographs, with a tiny encoder."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from factories import tiny_model, wait_until

from wpcrack.config import MethodConfig, StageSteps, TrainConfig
from wpcrack.data.images import write_png
from wpcrack.data.read import read_image_level
from wpcrack.model import read_info
from wpcrack.training import fusion
from wpcrack.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "model.encoder=test_efficientnet",
    "model.pretrained=none",
    "model.cam_channels=8",
    "model.recon_channels=8",
    "model.decoder_widths=[8, 8]",
    "model.detector_channels=8",
    "train.batch_size=4",
]
STEPS = ["--steps", "2", "1", "1"]
ONE_ROW = ["--collections", "cfd", "--rows", "CAM + darkness"]


@pytest.fixture
def ablation() -> ModuleType:
    return importlib.import_module("benchmarks.ablation.__main__")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six gray photographs with a dark line each, for two collections; two without for cfd."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for collection in ("deepcrack", "cfd"):
        for name in ("images", "masks", "road"):
            (root / collection / name).mkdir(parents=True)
        for k in range(8):
            image = rng.integers(120, 160, (192, 256, 3), np.uint8)
            mask = np.zeros((192, 256), np.uint8)
            if k < 6:
                cv2.line(mask, (20 + 9 * k, 0), (60 + 9 * k, 191), 255, 3)
                image[mask > 0] = 30
                write_png(root / collection / "masks" / f"p{k}.png", mask)
            folder = "images" if k < 6 else "road"
            write_png(root / collection / folder / f"p{k}.png", image)
    return root


def arguments(photographs: Path, out: Path, *more: str) -> list[str]:
    fixed = ["--data", str(photographs), "--out", str(out), "--threads", "1"]
    return [*TINY, *more, *STEPS, *fixed]


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(text) for text in out.read_text(encoding="utf-8").splitlines()]


def test_a_finished_cell_never_runs_again(
    ablation: ModuleType,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "results.jsonl"
    given = arguments(photographs, out, "--collections", "cfd")
    run, ran = ablation.run_cell, []

    def counted(cell: object, place: object) -> object:
        ran.append(cell.row)  # type: ignore[attr-defined]
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run(cell, place)

    monkeypatch.setattr(ablation, "run_cell", counted)
    with pytest.raises(KeyboardInterrupt):
        ablation.main(given)
    with out.open("a", encoding="utf-8") as file:
        file.write('{"key": "half a li')  # what a kill leaves
    assert ablation.main([*given, "--table"]) == 0
    assert "1 of 3 cells" in capsys.readouterr().out
    assert ablation.main(given) == 0
    assert ran == ["CAM + darkness", "two-stage", "two-stage", "everything"]
    assert [line["row"] for line in lines(out)] == ["CAM + darkness", "two-stage", "everything"]
    table = capsys.readouterr().out
    assert "3 of 3 cells" in table
    assert "| two-stage | 2 + 0 + 2 | 1 of 1 |" in table
    assert "| everything | 2 + 1 + 1 | 1 of 1 |" in table
    assert len(list(tmp_path.glob("results.work/warm-*"))) == 2  # of clear and of faded images
    assert ablation.main(given) == 0
    assert len(ran) == 4


def test_rows_of_one_configuration_are_one_cell_and_all_others_differ(ablation: ModuleType) -> None:
    cells = ablation.plan(ablation.ROWS, ablation.COLLECTIONS, ablation.BUDGET, TINY)
    assert {cell.config.model.init for cell in cells} == {"imagenet"}
    assert {cell.config.train.drawn_share for cell in cells} == {0}
    keys: dict[str, set[str]] = {}
    for cell in cells:
        keys.setdefault(cell.key, set()).add(cell.row)
    assert all(len(rows) == 1 for rows in keys.values())
    assert len(cells) == len(keys) == 2 * 12 + 3 + 3
    doubled = (*ablation.ROWS, ablation.Row("once more", everywhere=True))
    again = ablation.plan(doubled, ablation.COLLECTIONS, ablation.BUDGET, TINY)
    assert {cell.key for cell in again} == set(keys)


def test_from_the_shipped_model_one_part_is_left_out_at_a_time(ablation: ModuleType) -> None:
    options = ablation.parse(["--shipped", "--collections", "deepcrack"])
    cells = ablation.chosen(options, None)
    whole = {cell.config.seed: cell for cell in cells if cell.row == "everything"}
    assert sorted(whole) == [0, 1, 2]
    assert whole[0].config == MethodConfig(
        train=TrainConfig(steps=StageSteps(warmup=40, adversarial=20, detector=120), val_items=2)
    )
    assert len({cell.key for cell in cells}) == len(cells) == 3 * 7
    for cell in cells:
        if cell.row != "everything":
            was = whole[cell.config.seed].config.model_dump()
            now = cell.config.model_dump()
            changed = {name for name in now if now[name] != was[name]}
            assert 0 < len(changed) < 3, cell.row
            assert changed <= {"losses", "train", "pseudo_label"}, cell.row


def test_a_model_that_looks_at_several_scales_is_scored_with_the_fusion_chosen_for_it(
    ablation: ModuleType, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model(tmp_path / "base", scales=(1.0, 0.5))
    run = importlib.import_module("benchmarks.ablation.run")
    monkeypatch.setattr(fusion, "choose_fusion", lambda *_: fusion.Fusion(2.5, {2.5: 0.6}))
    load, seen = run.load_predictor, []

    def noting(folder: Path, threads: int) -> object:
        seen.append(read_info(folder))
        return load(folder, threads=threads)

    monkeypatch.setattr(run, "load_predictor", noting)
    init = f"model.init={tmp_path / 'base'}"
    chosen = ["--collections", "cfd", "--rows", "everything"]
    assert ablation.main(arguments(photographs, tmp_path / "r.jsonl", init, *chosen)) == 0
    assert [(info.scales, info.fusion_power) for info in seen] == [((1.0, 0.5), 2.5)]


def test_a_cell_on_the_shared_classifier_equals_a_run_from_scratch(
    ablation: ModuleType, photographs: Path, tmp_path: Path
) -> None:
    run = importlib.import_module("benchmarks.ablation.run")
    cfd = [c for c in ablation.COLLECTIONS if c.name == "cfd"]
    budget = ablation.Budget(2, 2, 1)
    two_stage, whole = (
        ablation.plan([replace(row, everywhere=True)], cfd, budget, TINY)[0]
        for row in ablation.ROWS
        if row.name in ("two-stage", "+ PAAM")
    )
    place = ablation.Workplace(photographs, tmp_path, 1)
    data = read_image_level(run.prepare(cfd[0], place).windows)
    run.warm_state(two_stage, data, tmp_path)
    scratch, continued = Trainer(whole.config, data), Trainer(whole.config, data)
    run.continue_from(continued, run.warm_state(whole, data, tmp_path))
    assert len(list(tmp_path.glob("warm-*"))) == 1
    assert continued.position.step == 2
    for trainer in (scratch, continued):
        list(trainer.epochs())
    pairs = zip(
        scratch.nets.state_dict().items(), continued.nets.state_dict().values(), strict=True
    )
    assert all(torch.equal(a, b) for (_, a), b in pairs)


def test_the_leading_rows_are_those_of_highest_iou(
    ablation: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.jsonl"
    options = ablation.parse([*TINY, "--out", str(out), "--longer"])
    trained = [row for row in ablation.ROWS if row.trained]
    with ablation.Results.filling(out) as results:
        for row, value in zip(trained, (0.5, 0.6, 0.7, 0.55, *[0.4] * 4), strict=True):
            for cell in ablation.plan([row], ablation.COLLECTIONS[:1], ablation.BUDGET, TINY):
                iou = {"native": {"iou": value}}
                results.add(cell, {"scores": iou, "seconds": 1.0})
        cells = ablation.chosen(options, results)
    assert [cell.row for cell in cells] == ["+ reconstructor game", "+ CECCM", "+ PAAM"]
    assert all(cell.config.train.steps.warmup == ablation.LONG.warmup for cell in cells)
    assert ablation.main(["--out", str(tmp_path / "none.jsonl"), "--longer"]) == 1
    assert "run `make ablation` first" in capsys.readouterr().err


def test_few_named_rows_run_longer_without_results_to_choose_by(
    ablation: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["two-stage", "everything"]
    options = ablation.parse([*TINY, "--longer", "--rows", *named])
    cells = ablation.chosen(options, ablation.Results(tmp_path / "none.jsonl"))
    assert [cell.row for cell in cells] == named
    assert {cell.config.train.steps.warmup for cell in cells} == {ablation.LONG.warmup}
    assert ablation.main(["--table", "--longer", "--rows", "CAM only"]) == 1
    assert "no row of ['CAM only'] learns" in capsys.readouterr().err


def test_what_is_missing_is_said_in_a_sentence(
    ablation: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.jsonl"
    assert ablation.main(arguments(tmp_path / "nowhere", out, *ONE_ROW)) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(
        "nowhere/cfd lacks images/ and masks/ and road/; "
        "give the folder of the collections with --data"
    )
    assert ablation.main([*arguments(tmp_path, out, *ONE_ROW), "model.encodr=x"]) == 1
    assert "model.encoder" in capsys.readouterr().err
    with ablation.Results.filling(out):
        assert ablation.main(arguments(tmp_path, out, *ONE_ROW)) == 1
    assert "another process fills" in capsys.readouterr().err
    out.write_text("something else\n")
    assert ablation.main(arguments(tmp_path, out, *ONE_ROW)) == 1
    assert "line 1, is not a result" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_ablation_continues_where_it_was(
    ablation: ModuleType, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.jsonl"
    given = arguments(photographs, out, "--collections", "cfd")
    script = [sys.executable, "-m", "benchmarks.ablation", *given]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(script, cwd=tmp_path, env=environment)
    wait_until(lambda: (out.is_file() and out.read_text()) or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = lines(out)
    assert 1 <= len(before) < 3
    assert ablation.main(given) == 0
    after = lines(out)
    assert after[: len(before)] == before
    assert len({str(line["key"]) for line in after}) == len(after) == 3
