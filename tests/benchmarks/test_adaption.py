"""The benchmark of adaption shows it no frame that is scored."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace

import cv2
import numpy as np
from PIL import Image

from benchmarks.training import adaption
from wpcrack.data.manifest import read_manifest
from wpcrack.scoring.scores import PixelScores


def test_what_is_scored_was_not_shown_and_the_settings_are_those_given(
    tmp_path, monkeypatch, capsys
):
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for k in range(10):
        image = rng.integers(120, 180, (300, 420, 3)).astype(np.uint8)
        mask = np.zeros(image.shape[:2], np.uint8)
        cv2.line(mask, (0, 20 * k + 40), (420, 60 + 10 * k), 255, 4)
        image[mask > 0] = 20
        Image.fromarray(image).save(tmp_path / "data" / "images" / f"street{k}.png")
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"street{k}.png")
    shown, scored = [], []

    def adapt(config, out, *, images):
        shown.append(({path.stem for path in images.iterdir()}, config.steps, config.seed, out))
        return SimpleNamespace(summary=lambda: "adapted")

    def score(options):
        held = {row.source for row in read_manifest(options.manifest) if row.split == "val"}
        scored.append((held, options.model))
        native = PixelScores(*[0.25 * len(scored)] * len(fields(PixelScores)))
        return SimpleNamespace(scores=SimpleNamespace(native=native))

    monkeypatch.setattr(adaption, "run_adapt", adapt)
    monkeypatch.setattr(adaption, "run_evaluate", score)
    given = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--seed", "3"]
    for _ in range(2):  # it goes on where it was
        scored.clear()
        adaption.main([*given, "steps=7"])
    pictures, *rest = shown[-1]
    held = scored[0][0]
    assert rest == [7, 3, tmp_path / "out" / "run"]
    assert held
    assert not pictures & held
    assert len(pictures | held) == 10
    assert [model for _, model in scored] == [None, tmp_path / "out" / "run"]
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[-2:]] == [
        ["shipped", "0.250"],
        ["adapted", "0.500"],
    ]
