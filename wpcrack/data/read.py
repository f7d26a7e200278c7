"""Read an image-level data set: images that show a crack, images that show none, nothing finer.

A set is what `wpcrack.data.build` made, labeled folders of one's own, or windows whose manifest
was filled by hand.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from wpcrack.data import manifest
from wpcrack.data.images import SUFFIXES, list_images, read_shape
from wpcrack.data.manifest import (
    LABELS,
    Label,
    Row,
    Split,
    few_items_warnings,
    hold_out,
    require_both_classes,
)
from wpcrack.errors import DataError, first_few


@dataclass(frozen=True)
class Item:
    """One labeled image; (row, col) is its corner in `source`, sizes are in pixels."""

    path: Path
    has_crack: bool
    source: str
    row: int
    col: int
    height: int
    width: int
    split: Split


@dataclass(frozen=True)
class ImageLevelSet:
    """A data set in a fixed order; both splits hold both classes, no source lies in both."""

    root: Path
    items: tuple[Item, ...]
    warnings: tuple[str, ...] = ()

    @property
    def train(self) -> tuple[Item, ...]:
        """Items to learn from."""
        return tuple(item for item in self.items if item.split == "train")

    @property
    def val(self) -> tuple[Item, ...]:
        """Items of held-out source images."""
        return tuple(item for item in self.items if item.split == "val")


def read_image_level(root: Path, *, val_fraction: float = 0.2, seed: int = 0) -> ImageLevelSet:
    """Read a set from manifest.csv, or from the folders crack/ and road/ where there is none.

    A manifest whose label column is still empty gives way to the folders, if there are any.
    Without a split of its own the set is split by source, seeded (`hold_out`). Images are not
    decoded; sizes that the manifest does not note are read from the files' headers.

    Args:
        root: folder of the set.
        val_fraction: share of source images to hold out, where the set has no split.
        seed: of that split.

    Returns:
        The items in byte order of their files, with warnings worth showing.

    Raises:
        ConfigError: `val_fraction` or `seed` out of range.
        DataError: no set there, a class without an image, a class that a split lacks, a defect of
            the manifest, a file that is missing or no image.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the output of `wpcrack dataset`")
    rows, warnings = _labeled_rows(root)
    if all(row.split is None for row in rows):
        rows = _split(rows, val_fraction, seed)
    _require_whole_sources(root, rows)
    items = tuple(_item(root, row) for row in sorted(rows, key=lambda row: row.file))
    counts = Counter((item.split, _label(item)) for item in items)
    require_both_classes(counts, str(root))
    totals: dict[Label, int] = {c: counts["train", c] + counts["val", c] for c in LABELS}
    return ImageLevelSet(root, items, (*warnings, *few_items_warnings(totals)))


def _labeled_rows(root: Path) -> tuple[list[Row], list[str]]:
    folders = [label for label in LABELS if (root / label).is_dir()]
    path = root / manifest.NAME
    if not path.exists():
        return _folder_rows(root), []
    rows = manifest.read_manifest(path)
    labeled = [row for row in rows if row.label]
    if not labeled and folders:
        return _folder_rows(root), []
    if not labeled:
        raise DataError(
            f"the label column of {path} is empty; fill in crack or road, or sort the files into "
            "the folders crack/ and road/"
        )
    missing = [row.file for row in labeled if not (root / row.file).is_file()]
    if missing:
        raise DataError(
            f"{path} lists {len(missing)} files that do not exist: {first_few(missing)}"
        )
    warnings = []
    if len(labeled) < len(rows):
        warnings.append(
            f"{len(rows) - len(labeled)} files of {path} have no label and are left out"
        )
    unlisted = _unlisted(root, {row.file for row in rows})
    if unlisted:
        warnings.append(
            f"{len(unlisted)} images are not in {path} and are left out: {first_few(unlisted)}"
        )
    return labeled, warnings


def _folder_rows(root: Path) -> list[Row]:
    absent = [f"{label}/" for label in LABELS if not (root / label).is_dir()]
    if absent:
        raise DataError(
            f"{root} has neither {manifest.NAME} nor the folder {' and '.join(absent)}; put images "
            "that show a crack into crack/ and images that show none into road/"
        )
    rows = []
    for label in LABELS:
        for stem, path in list_images(root / label).items():
            source, row, col = manifest.origin(stem)
            rows.append(Row(f"{label}/{path.name}", label, source, row, col, 0, 0, None))
    return rows


def _unlisted(root: Path, listed: set[str]) -> list[str]:
    present = (p for label in LABELS for p in (root / label).glob("[!.]*"))
    images = (p.relative_to(root).as_posix() for p in present if p.suffix.lower() in SUFFIXES)
    return [file for file in images if file not in listed]


def _split(rows: list[Row], fraction: float, seed: int) -> list[Row]:
    labels: dict[str, set[Label]] = {}
    for row in rows:
        if row.label:
            labels.setdefault(row.source, set()).add(row.label)
    val = hold_out(labels, fraction, seed)
    return [replace(row, split="val" if row.source in val else "train") for row in rows]


def _require_whole_sources(root: Path, rows: list[Row]) -> None:
    sides: dict[str, set[Split | None]] = {}
    for row in rows:
        sides.setdefault(row.source, set()).add(row.split)
    torn = [source for source, splits in sides.items() if len(splits) > 1]
    if torn:
        raise DataError(
            f"{root / manifest.NAME} spreads sources over train and val, or leaves the split of "
            f"some windows empty ({first_few(torn)}); give all windows of a source the same split"
        )
    undecided = [source for source, splits in sides.items() if None in splits]
    if undecided:
        raise DataError(
            f"{root / manifest.NAME} gives no split for {first_few(undecided)}; fill in train or "
            "val, or empty the whole column"
        )


def _item(root: Path, row: Row) -> Item:
    path = root / row.file
    height, width = (row.height, row.width) if row.height and row.width else read_shape(path)
    side: Split = row.split or "train"
    return Item(path, row.label == "crack", row.source, row.row, row.col, height, width, side)


def _label(item: Item) -> Label:
    return "crack" if item.has_crack else "road"
