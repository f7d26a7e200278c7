"""The label curve on drawn photographs, with stand-ins of the training and the score."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from factories import darkness
from PIL import Image

from benchmarks import label_curve
from wpcrack.data.images import read_rgb
from wpcrack.data.manifest import read_manifest
from wpcrack.errors import DataError
from wpcrack.scoring.scores import PixelScores


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Ten gray photographs with a dark line each, and their masks."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "data" / "deepcrack" / name).mkdir(parents=True)
    for k in range(10):
        image = rng.integers(120, 180, (300, 420, 3)).astype(np.uint8)
        mask = np.zeros(image.shape[:2], np.uint8)
        cv2.line(mask, (0, 20 * k + 40), (420, 60 + 10 * k), 255, 4)
        image[mask > 0] = 20
        folder = tmp_path / "data" / "deepcrack"
        Image.fromarray(image).save(folder / "images" / f"street{k}.png")
        Image.fromarray(mask).save(folder / "masks" / f"street{k}.png")
    return tmp_path / "data"


def test_only_labels_of_frames_that_are_not_scored_are_learned_and_nothing_runs_twice(
    photographs, tmp_path, monkeypatch, capsys
):
    learned, scored = {}, []

    def train(job):
        rows = [row for row in read_manifest(job.data.root / "manifest.csv") if row.label]
        learned[job.run_dir] = rows
        for row in rows:
            assert read_rgb(job.data.root / row.file).shape == (128, 128, 3)
            assert ((read_rgb(job.data.root / row.file) < 60).sum() > 0) == (row.label == "crack")

    def score(options):
        scored.append({r.source for r in read_manifest(options.manifest) if r.split == "val"})
        native = PixelScores(*[0.5 + 0.1 * len(learned)] * len(fields(PixelScores)))
        return SimpleNamespace(scores=SimpleNamespace(native=native))

    monkeypatch.setattr(label_curve, "run_training", train)
    monkeypatch.setattr(label_curve, "run_evaluate", score)
    monkeypatch.setattr("jobs.windows.cut.load_predictor", lambda *_, **__: darkness())
    given = ["--data", str(photographs), "--out", str(tmp_path / "out" / "r.jsonl")]
    given += ["--collections", "deepcrack", "--counts", "6", "--pool", "20"]
    assert label_curve.main(given) == 0
    assert len(scored) == 4  # 0, all, 6 ordered, 6 at random
    sizes = [len(rows) for rows in learned.values()]
    assert sizes[0] >= max(sizes[1:])
    assert max(sizes[1:]) <= 6
    sources = [{row.source for row in rows} for rows in learned.values()]
    assert not set.union(*sources) & set.union(*scored)
    files = [{row.file for row in rows} for rows in learned.values()]
    assert files[1] != files[2]
    table = capsys.readouterr().out
    assert label_curve.main(given) == 0
    assert len(scored) == 4
    assert capsys.readouterr().out == table
    assert "100.0%" in table
    lines = [json.loads(line) for line in (tmp_path / "out" / "r.jsonl").read_text().splitlines()]
    assert sorted(sum(line["answers"].values()) for line in lines) == [0, 6, 6, 20]


def test_labels_that_cannot_be_learned_are_a_line_and_the_others_go_on(
    photographs, tmp_path, monkeypatch, capsys
):
    def refuse(job):
        raise DataError("the train split has no road item")

    native = PixelScores(*[0.5] * len(fields(PixelScores)))
    scores = SimpleNamespace(scores=SimpleNamespace(native=native))
    monkeypatch.setattr(label_curve, "run_training", refuse)
    monkeypatch.setattr(label_curve, "run_evaluate", lambda _: scores)
    monkeypatch.setattr("jobs.windows.cut.load_predictor", lambda *_, **__: darkness())
    given = ["--data", str(photographs), "--out", str(tmp_path / "out" / "r.jsonl")]
    given += ["--collections", "deepcrack", "--counts", "6", "--pool", "20"]
    assert label_curve.main(given) == 0
    table = capsys.readouterr().out.splitlines()
    assert sum("not trained: the train split has no road item" in line for line in table) == 3
    assert sum("0.500" in line for line in table) == 1
    assert len((tmp_path / "out" / "r.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("row", "said"), [(0, "crack"), (4, "crack"), (36, "road"), (29, None), (21, None)]
)
def test_the_answers_are_those_of_the_rule(row, said):
    mask = np.zeros((200, 128), bool)
    mask[26:28] = True
    assert label_curve.answer(mask, row, 0) == said
