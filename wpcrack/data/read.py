"""Read an image-level data set: images that show a crack, images that show none, nothing finer.

A set is what `wpcrack.data.build` made, labeled folders of one's own, or windows whose manifest
was filled by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wpcrack.data import manifest
from wpcrack.data.frames import Content, Frames, find_frames
from wpcrack.data.images import SUFFIXES, left_out, list_images, read_rgb, read_shape
from wpcrack.data.manifest import (
    LABELS,
    Label,
    Row,
    Split,
    few_items_warnings,
    hold_out,
    require_both_classes,
)
from wpcrack.data.surroundings import AROUND, Surroundings, find_surroundings
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
    surroundings: Surroundings | None = None


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
        """Items of held-out frames."""
        return tuple(item for item in self.items if item.split == "val")

    @property
    def sides(self) -> dict[str, Split]:
        """Side of each file, by its place under the root: what `read_image_level` keeps."""
        return {item.path.relative_to(self.root).as_posix(): item.split for item in self.items}


def read_image_level(
    root: Path,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    group: str | None = None,
    kept: Mapping[str, Split] | None = None,
) -> ImageLevelSet:
    """Read a set from manifest.csv, or from the folders crack/ and road/ where there is none.

    A manifest whose label column is still empty gives way to the folders, if there are any.
    Without a split of its own the set is split by frame, seeded (`wpcrack.data.frames`,
    `hold_out`); only then its images are decoded. Sizes that the manifest does not note are read
    from the files' headers.

    Args:
        root: folder of the set.
        val_fraction: share of frames to hold out, where the set has no split.
        seed: of that split.
        group: regular expression that names the frame of a source; see `find_frames`.
        kept: side of each file in an earlier reading of this set, by its place under `root`. They
            stay there, also where they were moved to the folder of the other label. A file that is
            new joins its frame, or train; one that ties both sides together is left out.

    Returns:
        The items in byte order of their files, with warnings worth showing.

    Raises:
        ConfigError: `val_fraction` or `seed` out of range.
        DataError: no set there, a class without an image, a class that a split lacks, a defect of
            the manifest, a file that is missing or no image.
    """
    rows, warnings = _labeled_rows(_set_at(root))
    is_given = any(row.split is not None for row in rows)
    if not is_given:
        rows, more = _split(root, rows, kept or {}, _Rule(val_fraction, seed, group))
        warnings += more
    elif group is not None:
        warnings = [
            *warnings,
            f"the split is the one of {root / manifest.NAME}, so the group {group!r} changes "
            "nothing; give --group to `wpcrack dataset`, or empty the column split",
        ]
    _require_whole_sources(root, rows)
    around, lost = find_surroundings(root, (row.file for row in rows))
    if lost:
        warnings = [
            *warnings,
            f"the surroundings of {len(lost)} windows of {root} do not exist, such as those of "
            f"{lost[0]}; labels are worse without them, so copy the folder {AROUND}/ as well",
        ]
    items = tuple(
        _item(root, row, around.get(row.file)) for row in sorted(rows, key=lambda row: row.file)
    )
    counts = Counter((item.split, _label(item)) for item in items)
    require_both_classes(counts, str(root), is_given=is_given)
    totals: dict[Label, int] = {c: counts["train", c] + counts["val", c] for c in LABELS}
    return ImageLevelSet(root, items, (*warnings, *few_items_warnings(totals)))


@dataclass(frozen=True)
class Labeled:
    """A labeled image, and the side that its set gives it; None: the set has no split."""

    path: Path
    has_crack: bool
    split: Split | None


def read_labeled(root: Path) -> tuple[list[Labeled], list[str]]:
    """List the labeled images of a set as they are, without splitting it.

    Args:
        root: folder of the set; see `read_image_level`.

    Returns:
        The images in byte order of their files, and warnings worth showing.

    Raises:
        DataError: no set there, a defect of the manifest, a file that is missing.
    """
    rows, warnings = _labeled_rows(_set_at(root))
    rows.sort(key=lambda row: row.file)
    return [Labeled(root / row.file, row.label == "crack", row.split) for row in rows], warnings


def _set_at(root: Path) -> Path:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the output of `wpcrack dataset`")
    return root


def _labeled_rows(root: Path) -> tuple[list[Row], list[str]]:
    folders = [label for label in LABELS if (root / label).is_dir()]
    path = root / manifest.NAME
    passed_over = [text for label in folders for text in left_out(root / label)]
    if not path.exists():
        return _folder_rows(root), passed_over
    rows = manifest.read_manifest(path)
    labeled = [row for row in rows if row.label]
    if not labeled and folders:
        return _folder_rows(root), passed_over
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
    unlisted = _find_unlisted(root, {row.file for row in rows})
    if unlisted:
        warnings.append(
            f"{len(unlisted)} images are not in {path} and are left out: {first_few(unlisted)}"
        )
    return labeled, warnings


def _folder_rows(root: Path) -> list[Row]:
    absent = [f"{label}/" for label in LABELS if not (root / label).is_dir()]
    if absent:
        raise DataError(
            f"{root} has neither {manifest.NAME} nor {' and '.join(absent)}; put images "
            "that show a crack into crack/ and images that show none into road/"
        )
    rows = []
    for label in LABELS:
        for stem, path in list_images(root / label).items():
            source, row, col = manifest.origin(stem)
            rows.append(Row(f"{label}/{path.name}", label, source, row, col, 0, 0, None))
    return rows


def _find_unlisted(root: Path, listed: set[str]) -> list[str]:
    present = (p for label in LABELS for p in (root / label).glob("[!.]*"))
    images = (p.relative_to(root).as_posix() for p in present if p.suffix.lower() in SUFFIXES)
    return [file for file in images if file not in listed]


@dataclass(frozen=True)
class _Rule:
    """How a set without a split is split."""

    fraction: float
    seed: int
    group: str | None


def _split(
    root: Path, rows: list[Row], kept: Mapping[str, Split], rule: _Rule
) -> tuple[list[Row], list[str]]:
    """Give each row a side; also return warnings."""
    kept = {**kept, **_find_relabeled(rows, kept)}
    if kept.keys() >= {row.file for row in rows}:
        return [replace(row, split=kept[row.file]) for row in rows], []
    contents = {row.file: Content.of(read_rgb(root / row.file)) for row in rows}
    frames = find_frames(contents, rule.group, {row.file: row.source for row in rows})
    warnings = [*frames.warnings, *_contradictions(rows, frames)]
    if kept:
        return _join(rows, frames, kept, warnings)
    labels: dict[str, set[Label]] = {}
    for row in rows:
        if row.label:
            labels.setdefault(frames.of[row.source], set()).add(row.label)
    val = hold_out(labels, rule.fraction, rule.seed)
    sides = {source: frame in val for source, frame in frames.of.items()}
    return [replace(row, split="val" if sides[row.source] else "train") for row in rows], warnings


def _find_relabeled(rows: Sequence[Row], kept: Mapping[str, Split]) -> dict[str, Split]:
    """Return the sides of known files that now lie in the folder of the other label."""
    files = {row.file for row in rows}
    gone = {_in_folder(file): side for file, side in kept.items() if file not in files}
    new = {row.file: _in_folder(row.file) for row in rows if row.file not in kept}
    return {file: gone[name] for file, name in new.items() if name and name in gone}


def _in_folder(file: str) -> str:
    """Return the path of a file inside crack/ or road/; nothing of one that lies elsewhere."""
    label, _, name = file.partition("/")
    return name if label in LABELS else ""


def _join(
    rows: list[Row], frames: Frames, kept: Mapping[str, Split], warnings: list[str]
) -> tuple[list[Row], list[str]]:
    """Keep the sides of known files; put new ones to those of their frame."""
    sides: dict[str, set[Split]] = {}
    for row in rows:
        if row.file in kept:
            sides.setdefault(frames.of[row.source], set()).add(kept[row.file])
    placed: list[Row] = []
    torn: list[str] = []
    for row in rows:
        known = sides.get(frames.of[row.source], {"train"})
        side = kept.get(row.file) or (next(iter(known)) if len(known) == 1 else None)
        if side is None:
            torn.append(row.file)
        else:
            placed.append(replace(row, split=side))
    if torn:
        warnings.append(
            f"{len(torn)} new images show what images of both train and val show, and are left "
            f"out: {first_few(torn)}"
        )
    return placed, warnings


def _contradictions(rows: Sequence[Row], frames: Frames) -> list[str]:
    label = {row.file: row.label for row in rows}
    pairs = [f"{a} = {b}" for a, b in frames.identical if label[a] != label[b]]
    if not pairs:
        return []
    return [f"{len(pairs)} images of road are identical to images of crack: {first_few(pairs)}"]


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


def _item(root: Path, row: Row, around: Path | None) -> Item:
    path = root / row.file
    height, width = (row.height, row.width) if row.height and row.width else read_shape(path)
    side: Split = row.split or "train"
    surroundings = None if around is None else Surroundings.of(around, row.row, row.col)
    return Item(
        path,
        row.label == "crack",
        row.source,
        row.row,
        row.col,
        height,
        width,
        side,
        surroundings,
    )


def _label(item: Item) -> Label:
    return "crack" if item.has_crack else "road"
