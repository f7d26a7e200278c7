"""Splits by source image: no window of a validation image is ever seen in training."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np

from wpcrack.errors import ConfigError, DataError

Split = Literal["train", "val"]
Label = Literal["crack", "road"]
SPLITS: tuple[Split, Split] = ("train", "val")
LABELS: tuple[Label, Label] = ("crack", "road")

FEW_ITEMS = 50
"""A class with fewer items than this is worth a warning."""


def hold_out(
    sources: Mapping[str, Collection[Label]], fraction: float, seed: int
) -> frozenset[str]:
    """Draw the validation sources, seeded and independent of the order they are given in.

    Sources that show a crack and sources that show none are drawn apart, each kind with `fraction`
    rounded to whole images, at least one and never all (a single one stays in training).

    Args:
        sources: labels that occur among the items of each source image.
        fraction: share of the sources to hold out, in (0, 1).
        seed: >= 0.

    Returns:
        Names of the validation sources.

    Raises:
        ConfigError: fraction or seed out of range.
    """
    check_fraction(fraction, seed)
    rng = np.random.default_rng(seed)
    held: set[str] = set()
    for cracked in (True, False):
        kind = [name for name, labels in sources.items() if ("crack" in labels) == cracked]
        kind.sort(key=os.fsencode)
        count = min(max(int(fraction * len(kind) + 0.5), 1), len(kind) - 1)
        held.update(kind[k] for k in rng.permutation(len(kind))[: max(count, 0)])
    return frozenset(held)


def check_fraction(fraction: float, seed: int) -> None:
    """Raise ConfigError unless 0 < fraction < 1 and seed >= 0."""
    if not 0 < fraction < 1:
        raise ConfigError(
            f"val={fraction} is no share of the images; give a number between 0 and 1"
        )
    if seed < 0:
        raise ConfigError(f"seed={seed} is negative; give 0 or more")


def require_both_classes(counts: Mapping[tuple[Split, Label], int], where: str) -> None:
    """Raise DataError naming the first class that a split lacks.

    Args:
        counts: number of items by split and class.
        where: the data set as the user knows it, for the message.
    """
    for split in SPLITS:
        for label in LABELS:
            if not counts.get((split, label), 0):
                raise DataError(
                    f"{where}: the {split} split has no {label} item; whole source images go to "
                    "one side, so add images of that kind, or try another seed or val fraction"
                )


def few_items_warnings(counts: Mapping[Label, int]) -> list[str]:
    """Warn about each class of fewer than 50 items."""
    return [
        f"only {count} {label} items; with fewer than {FEW_ITEMS} scores say little"
        for label, count in counts.items()
        if count < FEW_ITEMS
    ]
