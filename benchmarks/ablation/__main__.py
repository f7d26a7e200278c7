"""What each part of the method contributes, on held-out images of three collections.

Run from the repository root (`make ablation` is the first line):
    python -m benchmarks.ablation [--data ../shared/data] [--out FILE] [KEY=VALUE ...]
    python -m benchmarks.ablation --longer     the three leading rows again, some 30 minutes each
    python -m benchmarks.ablation --shipped    from the shipped model, one part left out at a time
    python -m benchmarks.ablation --table      print what is there, compute nothing

Every finished cell (row x collection x seed) is one line of the results file and never runs again,
so the command may be stopped and repeated at will; a cell whose configuration has changed is
another cell. KEY=VALUE are settings of `wpcrack train` that hold for every row; without --shipped
all start from ImageNet weights and see no drawn window unless KEY=VALUE say otherwise. DATA holds
deepcrack/, cfd/ and crack500/ with images/ and masks/ each.

A seeded fifth of the source images is held out, the same for every row; masks of the others
decide labels of windows and nothing else. No epoch is chosen: a cell is scored with its last
weights, so the held-out images play no part in it. Lengths are step counts, not minutes, so a
busy machine changes no score. Rows of one seed start from one warm classifier.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ablation.cells import Budget, Cell, Collection, Workplace
from benchmarks.ablation.results import Results, leading, render
from benchmarks.ablation.run import run_cell
from jobs.runtime.allocator import keep_freed_memory
from jobs.settings.load import load
from wpcrack.config import MethodConfig, TrainConfig
from wpcrack.errors import ConfigError, WpcrackError

COLLECTIONS = (
    Collection("deepcrack", window=128, resize=256),
    Collection("cfd", window=96, has_road=True),
    Collection("crack500", window=128),
)
SEEDS = {"deepcrack": (0, 1), "cfd": (0,), "crack500": (0,)}
"""Seeds of the training; the held-out fifth is the same for all."""
SHIPPED_SEEDS = {"deepcrack": (0, 1, 2), "cfd": (0, 1, 2), "crack500": (0, 1, 2)}
"""Those of --shipped, where differences are small."""

BUDGET = Budget(warmup=150, adversarial=40, detector=220)
"""Below four minutes a cell on two cores."""
LONG = Budget(warmup=300, adversarial=300, detector=1900)
"""About 30 minutes on two cores."""
SHIPPED = Budget(warmup=40, adversarial=20, detector=120)
"""As in docs/results for the label curve, where one took ten minutes of one core on DeepCrack."""
LEADING = 3


@dataclass(frozen=True)
class Row:
    """One line of the table: what differs from the defaults.

    Attributes:
        name: as printed.
        settings: as on the command line.
        trained: False: the refined map of the warm classifier itself is scored, nothing is learned.
        game: False: no adversarial steps; the detector gets them, so that it learns as long.
        everywhere: also on the collections beside DeepCrack.
    """

    name: str
    settings: tuple[str, ...] = ()
    trained: bool = True
    game: bool = True
    everywhere: bool = False


SCRATCH = ("model.init=imagenet", "train.drawn_share=0")
"""For every row of ROWS, before KEY=VALUE: image-level labels alone, from ImageNet weights."""
DRAWN = f"train.drawn_share={TrainConfig().drawn_share}"
NO_PAAM = ("model.paam.spatial=false", "model.paam.channel=false")
NO_CECCM = ("losses.ceccm.enabled=false",)
CLEAR = ("augment.fade=0", "augment.blur_px=0", "augment.grain=0")
NO_ALARM = ("losses.det_false_alarm=0",)
NO_TEACHER = ("train.detector_ema=0", "pseudo_label.self_training=0")
NO_EXTRAS = (*CLEAR, *NO_ALARM, *NO_TEACHER)
"""What the defaults hold beyond the parts of the paper; off until the last rows add it."""


def refined(name: str, refiners: str, *, everywhere: bool = False) -> Row:
    """Make a row that scores the refined map of the warm classifier."""
    settings = (f"pseudo_label.refiners=[{refiners}]", *CLEAR)
    return Row(name, settings, trained=False, everywhere=everywhere)


ROWS = (
    refined("CAM only", ""),
    refined("CAM + darkness", "darkness", everywhere=True),
    refined("CAM + darkness + PAR", "darkness, par"),
    refined("CAM + darkness + guided filter", "darkness, guided"),
    Row("two-stage", (*NO_PAAM, *NO_CECCM, *NO_EXTRAS), game=False, everywhere=True),
    Row("+ reconstructor game", (*NO_PAAM, *NO_CECCM, *NO_EXTRAS)),
    Row("+ CECCM", (*NO_PAAM, *NO_EXTRAS)),
    Row("+ PAAM", NO_EXTRAS),
    Row("+ averaged detector as teacher", (*CLEAR, *NO_ALARM)),
    Row("+ false alarms", CLEAR),
    Row("everything", everywhere=True),  # + faded, blurred and grainy images
    Row("everything but the game", game=False),
)

SHIPPED_ROWS = (
    Row("everything", everywhere=True),
    Row("all but the game", game=False, everywhere=True),
    Row("all but CECCM", NO_CECCM, everywhere=True),
    Row("all but drawn windows", ("train.drawn_share=0",), everywhere=True),
    Row("all with two encoders", ("train.one_encoder=false",), everywhere=True),
    Row("all but the averaged detector as teacher", NO_TEACHER, everywhere=True),
    Row("all but false alarms", NO_ALARM, everywhere=True),
)
"""From the shipped model. PAAM is one of its layers, so that it cannot be left out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and prints the table."""
    options = parse(arguments)
    try:
        if options.table:
            results = Results(options.out)
            cells = chosen(options, results)
        else:
            with Results.filling(options.out) as results:
                cells = chosen(options, results)
                fill(cells, results, options)
        print(render(cells, results, command(arguments)))
    except WpcrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def fill(cells: Sequence[Cell], results: Results, options: argparse.Namespace) -> None:
    """Run the cells that have no result yet."""
    keep_freed_memory()  # as `wpcrack train` does
    place = Workplace(options.data, options.out.with_suffix(".work"), options.threads)
    for cell in cells:
        if results.of(cell) is None:
            print(f"{cell.title} ...", file=sys.stderr, flush=True)
            results.add(cell, run_cell(cell, place))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [c.name for c in COLLECTIONS]
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="for every row")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("out/ablation/results.jsonl"))
    parser.add_argument("--collections", nargs="+", choices=names, default=names)
    names = list(dict.fromkeys(row.name for row in (*ROWS, *SHIPPED_ROWS)))
    parser.add_argument("--rows", nargs="+", choices=names, metavar="NAME")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--longer", action="store_true", help="the leading rows, 30 minutes each")
    kinds.add_argument("--shipped", action="store_true", help="rows from the shipped model")
    parser.add_argument("--table", action="store_true", help="compute nothing")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--steps", type=int, nargs=3, metavar=("WARMUP", "ADVERSARIAL", "DETECTOR"), default=None
    )
    return parser.parse_intermixed_args(arguments)


def chosen(options: argparse.Namespace, results: Results) -> list[Cell]:
    """Choose the cells that the command line means, in the order of running."""
    budget = Budget(*options.steps) if options.steps else SHIPPED if options.shipped else BUDGET
    known = SHIPPED_ROWS if options.shipped else ROWS
    rows = [row for row in known if options.rows is None or row.name in options.rows]
    if not rows:
        raise ConfigError(f"--rows: none of {options.rows} is a row of this table")
    collections = [c for c in COLLECTIONS if c.name in options.collections]
    if options.shipped:
        settings = ["model.init=shipped", DRAWN, *options.settings]
        return plan(rows, collections, budget, settings, seeds=SHIPPED_SEEDS)
    if options.longer:
        first = COLLECTIONS[0]
        best = [row for row in rows if row.trained]
        if not best:
            raise ConfigError(f"no row of {options.rows} learns; name others with --longer")
        if len(best) > LEADING:
            plans = {r.name: plan([r], [first], budget, options.settings) for r in best}
            if any(results.of(cell) is None for cells in plans.values() for cell in cells):
                raise ConfigError(
                    f"{options.out} lacks rows to choose the leading {LEADING} from; "
                    f"run `make ablation` first, or name at most {LEADING} with --rows"
                )
            ranked = leading(plans, results)[:LEADING]
            best = [row for row in best if row.name in ranked]
        return plan(best, [first], LONG, options.settings, seeds={first.name: (0,)})
    return plan(rows, collections, budget, options.settings)


def plan(
    rows: Sequence[Row],
    collections: Sequence[Collection],
    budget: Budget,
    settings: Sequence[str],
    *,
    seeds: dict[str, tuple[int, ...]] | None = None,
) -> list[Cell]:
    """Plan rows x collections x seeds; rows of one seed follow each other and share its classifier.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """
    return [
        Cell(row.name, collection, row.trained, configured(row, budget, seed, settings))
        for collection in collections
        for seed in (seeds or SEEDS)[collection.name]
        for row in rows
        if row.everywhere or collection is COLLECTIONS[0]
    ]


def configured(row: Row, budget: Budget, seed: int, settings: Sequence[str]) -> MethodConfig:
    """Read the defaults, then settings for every row, then those of the row; see SCRATCH."""
    steps = budget.settings(trained=row.trained, game=row.game)
    fixed = (f"seed={seed}", "train.val_items=2")  # nothing is chosen, so nothing is validated
    return load(MethodConfig, None, [*fixed, *SCRATCH, *settings, *row.settings, *steps])


def command(arguments: Sequence[str] | None) -> str:
    """Return the command that gives the table again."""
    words = sys.argv[1:] if arguments is None else arguments
    return f"python -m benchmarks.ablation {shlex.join(w for w in words if w != '--table')}".strip()


if __name__ == "__main__":
    raise SystemExit(main())
