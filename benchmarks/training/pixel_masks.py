"""What would pixel masks teach the shipped model? A ceiling for labels that say less.

    python -m benchmarks.training.pixel_masks --data ../shared/data/deepcrack --out FOLDER
        [--model RUN] [--steps 300] [--drawn 0.25] [--seed 0] [--window 128]

A fifth of the frames is held out, as `wpcrack dataset` does. The detector then learns the masks
of the other photographs, by the updates of `wpcrack adapt` with the masks in place of a teacher's
labels. Image-level labels never see a mask, so no model of this command is one of the product. The
table says how the photographs that are held out are scored before and after; the command goes on
where it was interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from jobs.evaluate.run import EvaluateOptions, run_evaluate
from wpcrack.data.build import BuildOptions, build_image_level
from wpcrack.data.images import pair
from wpcrack.data.manifest import NAME, read_manifest
from wpcrack.data.masks import read_pair
from wpcrack.inference.graph import deliver_graph
from wpcrack.model import MODEL_FOLDER, find_model, load_model, read_info, save_model
from wpcrack.training.drawn import Lesson, train_path
from wpcrack.training.drawn_windows import DrawnTrainConfig, WindowShape
from wpcrack.training.taught_windows import CRACK, AdaptConfig, TaughtBatches

SIDE = 256
"""Masks are also compared at this size, as the paper does."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print a row for the model before and one for the trained one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="in place of the shipped one")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--drawn", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--window", type=int, default=128)
    given = parser.parse_args(arguments)
    split = given.out / "split"
    if not (split / NAME).is_file():
        options = BuildOptions(window=given.window, seed=given.seed)
        build_image_level(given.data / "images", given.data / "masks", split, options=options)
    shape = WindowShape(side=given.window, count=12)
    config = AdaptConfig(
        seed=given.seed,
        rounds=1,
        steps=given.steps,
        batch=shape,
        drawn_share=given.drawn,
        encoder_lr=1.5e-4,  # exact labels may move more than a teacher's
        head_lr=7e-4,
    )
    train(given, config)
    print(f"{machine()}; seed {given.seed}, {given.steps} updates, one thread")
    print(f"{'model':12} {'IoU':>6} {'F1':>6} {'2 px':>6}   at {SIDE}: {'IoU':>6} {'2 px':>6}")
    for name, model in (("before", given.model), ("with masks", given.out)):
        scores = run_evaluate(
            EvaluateOptions(
                model,
                given.data / "images",
                given.data / "masks",
                split / NAME,
                "val",
                resize=SIDE,
            )
        ).scores
        assert scores.resized is not None
        own, small = scores.native, scores.resized
        row = f"{own.iou:6.3f} {own.f1:6.3f} {own.f1_tol2:6.3f}"
        print(f"{name:12} {row}   {'':{len(str(SIDE)) + 4}}{small.iou:6.3f} {small.f1_tol2:6.3f}")


def train(given: argparse.Namespace, config: AdaptConfig) -> None:
    """Teach a model the masks of the photographs that are not held out."""
    if (given.out / MODEL_FOLDER).is_dir():
        return
    base = find_model(given.model)
    taught = {row.source for row in read_manifest(given.out / "split" / NAME) if row.split != "val"}
    shown = [
        read_pair(each)
        for each in pair(given.data / "images", given.data / "masks")
        if each.stem in taught
    ]
    images, masks = [image for image, _ in shown], [mask for _, mask in shown]
    labels = [np.where(mask, np.uint8(CRACK), np.uint8(0)) for mask in masks]
    networks = load_model(base).networks
    rule = DrawnTrainConfig(
        seed=config.seed,
        model=networks.config,
        steps=config.steps,
        batches=(config.batch,),
        encoder_lr=config.encoder_lr,
        head_lr=config.head_lr,
        threads=config.threads,
    )
    lesson = Lesson(TaughtBatches(config, 0, images, labels), f"{base}: masks of {given.data}")
    networks = train_path(rule, networks, given.out / "state", lesson, None)
    info = read_info(base).model_copy(update={"trained": {"on": "pixel masks"}})
    save_model(given.out / MODEL_FOLDER, networks, info, predicts_only=True)
    deliver_graph(given.out / MODEL_FOLDER)


if __name__ == "__main__":
    main()
