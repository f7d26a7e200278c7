"""Does `wpcrack adapt` help on frames that it did not see?

    python -m benchmarks.training.adaption --data ../shared/data/deepcrack --out FOLDER
        [--seed 0] [--window 128] [KEY=VALUE ...]

A fifth of the frames is held out, as `wpcrack dataset` does. `wpcrack adapt` gets the photographs
of the others, without their masks; KEY=VALUE are its settings. The table says how the photographs
that are held out are scored before and after. If the check of `adapt` keeps the old model, both
rows are the same. The command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import machine
from jobs.adapt.job import AdaptOptions
from jobs.adapt.run import run_adapt
from jobs.evaluate.run import EvaluateOptions, run_evaluate
from jobs.settings.load import load
from wpcrack.data.build import BuildOptions, build_image_level
from wpcrack.data.images import pair
from wpcrack.data.manifest import NAME, read_manifest


def main(arguments: Sequence[str] | None = None) -> None:
    """Adapt, and print a row for the shipped model and one for the adapted one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of wpcrack adapt")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the adaption")
    parser.add_argument("--window", type=int, default=128)
    given = parser.parse_intermixed_args(arguments)
    shown = hold_out(given)
    config = load(AdaptOptions, None, [f"seed={given.seed}", *given.settings])
    print(run_adapt(config, given.out / "run", images=shown).summary())
    print(f"{machine()}; seed {given.seed}")
    print(f"{'model':10} {'IoU':>6} {'precision':>9} {'recall':>6} {'F1':>6} {'2 px':>6}")
    for name, model in (("shipped", None), ("adapted", given.out / "run")):
        options = EvaluateOptions(
            model, given.data / "images", given.data / "masks", given.out / "split" / NAME, "val"
        )
        own = run_evaluate(options).scores.native
        figures = f"{own.iou:6.3f} {own.precision:9.3f} {own.recall:6.3f} {own.f1:6.3f}"
        print(f"{name:10} {figures} {own.f1_tol2:6.3f}")


def hold_out(given: argparse.Namespace) -> Path:
    """Split by frame; return a folder with links to the photographs that are not held out."""
    images, masks = given.data / "images", given.data / "masks"
    split, shown = given.out / "split", given.out / "photographs"
    if not (split / NAME).is_file():
        build = BuildOptions(window=given.window, seed=given.seed)
        build_image_level(images, masks, split, options=build)
    seen = {row.source for row in read_manifest(split / NAME) if row.split == "train"}
    shown.mkdir(exist_ok=True)
    for found in pair(images, masks):
        link = shown / found.image.name
        if found.stem in seen and not link.is_symlink():
            link.symlink_to(found.image.absolute())
    return shown


if __name__ == "__main__":
    main()
