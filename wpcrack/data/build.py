"""Build an image-level set: windows labeled crack or road, held out by frame.

Pixel masks decide the labels and are then forgotten: no later step sees one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from wpcrack.data import manifest
from wpcrack.data.folder import replace_set, write_marker
from wpcrack.data.frames import Content, Frames, digest, find_frames, named_frame
from wpcrack.data.images import Pair, left_out, list_images, pair, read_rgb, write_png
from wpcrack.data.label_rule import label_windows
from wpcrack.data.manifest import (
    LABELS,
    SPLITS,
    Label,
    Row,
    Split,
    check_fraction,
    few_items_warnings,
    hold_out,
    require_both_classes,
    require_names,
    window_name,
)
from wpcrack.data.masks import read_pair
from wpcrack.data.surroundings import keep_surroundings
from wpcrack.errors import ConfigError, DataError, first_few

SMALLEST_WINDOW = 16
"""Below this the border of N // 16 vanishes, and so does any context."""


@dataclass(frozen=True)
class BuildOptions:
    """How to cut, label, balance and split.

    Attributes:
        window: side of a window in pixels (protocol windows).
        val: share of frames held out.
        group: regular expression that names the frame of an image; see `wpcrack.data.frames`.
        seed: of the split and of the undersampling.
        road: folder of further images that show no crack at all.
        protocol: windows cuts both classes as windows; whole takes each cracked image as one crack
            item at full size, and crack-free windows of `whole_road_window` as road.
        whole_road_window: side in pixels, 256 in the released set.
        whole_road_stride: step in pixels; small, because few places of a cracked photograph are
            free of cracks over 256 px (the released set has about 5 overlapping ones per image).
        mask_values: what in the masks is crack; nothing: what is white.
    """

    window: int = 128
    val: float = 0.2
    seed: int = 0
    road: Path | None = None
    protocol: Literal["windows", "whole"] = "windows"
    whole_road_window: int = 256
    whole_road_stride: int = 32
    group: str | None = None
    mask_values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_fraction(self.val, self.seed)
        if self.group is not None:
            named_frame("", self.group)  # refuses what is not a regular expression
        if self.protocol not in ("windows", "whole"):
            raise ConfigError(f"protocol={self.protocol!r} is unknown; use windows or whole")
        if self.whole_road_stride < 1:
            raise ConfigError(f"whole_road_stride={self.whole_road_stride} must be 1 or more")
        if min(self.window, self.whole_road_window) < SMALLEST_WINDOW:
            raise ConfigError(
                f"window={self.window} is too small to show a road; use {SMALLEST_WINDOW} or more"
            )

    @property
    def cut(self) -> Cut:
        """How this protocol cuts items."""
        if self.protocol == "windows":
            return Cut(self.window, self.window // 2, whole_cracks=False)
        return Cut(self.whole_road_window, self.whole_road_stride, whole_cracks=True)


@dataclass(frozen=True)
class SplitCount:
    """What one side of the split holds: items by class, source images with an item, frames."""

    split: Split
    crack: int
    road: int
    sources: int
    frames: int


@dataclass(frozen=True)
class BuildReport:
    """What was built, and pairs of files that have equal pixels or contents that overlap."""

    out: Path
    counts: tuple[SplitCount, SplitCount]
    identical: tuple[tuple[str, str], ...]
    """On both sides of the split."""
    contradictory: tuple[tuple[str, str], ...]
    """In both classes."""
    overlapping: tuple[tuple[str, str], ...]
    """Source images that were taken for one frame because their contents overlap."""
    warnings: tuple[str, ...]


def build_image_level(
    images: Path, masks: Path, out: Path, *, options: BuildOptions | None = None
) -> BuildReport:
    """Build the folders crack/ and road/ with manifest.csv from images and their pixel masks.

    The masks decide labels and nothing else; no mask pixel is written. The result depends on the
    files' contents and names, the options and the seed alone. `out` appears only when complete.

    Args:
        images: folder of photographs.
        masks: folder of masks of the same stems, with or without a `_mask` suffix.
        out: folder to make; an older set that this function built is replaced.
        options: defaults to `BuildOptions()`.

    Returns:
        Class balance and sources by split, identical files across splits, warnings.

    Raises:
        ConfigError: an option out of range.
        DataError: a defect of the input, a class that a split lacks, or an unusable `out`.
    """
    options = options or BuildOptions()
    _require_inputs_stay(out, [images, masks, *([options.road] if options.road else [])])
    sources = _list_sources(images, masks, options)
    require_names(source.image for source in sources)
    with replace_set(out) as part:
        surveys = [_survey(source, options.cut) for source in sources]
        _require_items(surveys, options)
        contents = {seen.source.stem: seen.content for seen in surveys if seen.items}
        frames = find_frames(contents, options.group)
        labels: dict[str, set[Label]] = {}
        for row in (row for seen in surveys for row in seen.items):
            if row.label:
                labels.setdefault(frames.of[row.source], set()).add(row.label)
        val = hold_out(labels, options.val, options.seed)
        split = [_split(seen, frames, val) for seen in surveys]
        chosen = _balance([row for seen in split for row in seen.items], options)
        digests = _write_items(part, split, chosen)
        manifest.write_manifest(part / manifest.NAME, chosen)
        report = _report(out, split, frames, _Chosen(chosen, digests))
        write_marker(
            part,
            {
                "images": str(images),
                "options": asdict(options) | {"road": options.road and str(options.road)},
            },
        )
    return report


@dataclass(frozen=True)
class Cut:
    """Side and stride of windows in pixels, and whether crack items are whole images."""

    side: int
    stride: int
    whole_cracks: bool


@dataclass(frozen=True)
class Source:
    """An image; without a mask it is crack-free by the user's word."""

    stem: str
    image: Path
    pair: Pair | None


@dataclass(frozen=True)
class Survey:
    """A source after its mask was seen: candidate items, and its content."""

    source: Source
    items: tuple[Row, ...]
    content: Content
    too_small: bool


def _list_sources(images: Path, masks: Path, options: BuildOptions) -> list[Source]:
    """List paired images, then those of the road folder.

    Raises:
        DataError: a folder or file that does not fit, or a stem that both folders have.
    """
    pairs = pair(images, masks, mask_values=options.mask_values)
    sources = [Source(found.stem, found.image, found) for found in pairs]
    if (road := options.road) is not None:
        extra = list_images(road)
        clash = extra.keys() & {source.stem for source in sources}
        if clash:
            raise DataError(
                f"{road} and {images} both hold images named {first_few(clash)}; rename one of each"
            )
        sources += [Source(stem, path, None) for stem, path in extra.items()]
    return sources


def _require_inputs_stay(out: Path, folders: Sequence[Path]) -> None:
    """Refuse to read what the set that is built replaces."""
    place = out.resolve()
    for folder in folders:
        if folder.resolve().is_relative_to(place):
            raise DataError(
                f"{folder} lies in {out}, which a new set would replace; choose another output"
            )


def _survey(source: Source, cut: Cut) -> Survey:
    """Read a source and list all items it can give.

    With `whole_cracks` the image is one crack item if its mask shows any crack; otherwise both
    classes are windows.

    Raises:
        DataError: an unreadable image or mask, or a mask of another size.
    """
    if source.pair is None:
        image = read_rgb(source.image)
        mask = np.zeros(image.shape[:2], bool)
    else:
        image, mask = read_pair(source.pair)
    height, width = image.shape[:2]
    windows = label_windows(mask, cut.side, cut.stride)
    size = (cut.side, cut.side)
    items = [_item(source.stem, "road", r, c, size) for r, c in windows.road.tolist()]
    if not cut.whole_cracks:
        items += [_item(source.stem, "crack", r, c, size) for r, c in windows.crack.tolist()]
    elif mask.any():
        items.append(_item(source.stem, "crack", 0, 0, (height, width)))
    return Survey(source, tuple(items), Content.of(image), min(height, width) < cut.side)


def _item(source: str, label: Label, row: int, col: int, size: tuple[int, int]) -> Row:
    file = f"{label}/{window_name(source, row, col)}"
    return Row(file, label, source, row, col, *size, None)


def _split(seen: Survey, frames: Frames, val: frozenset[str]) -> Survey:
    side: Split = "val" if frames.of.get(seen.source.stem) in val else "train"
    return replace(seen, items=tuple(replace(row, split=side) for row in seen.items))


def _require_items(surveys: Sequence[Survey], options: BuildOptions) -> None:
    windows = "" if options.protocol == "whole" else "use a smaller window, or "
    if all(seen.too_small for seen in surveys):
        raise DataError(
            f"every image is smaller than the window of {options.cut.side} px; "
            f"{windows}give larger images"
        )
    found = {row.label for seen in surveys for row in seen.items}
    if "crack" not in found:
        values = ", ".join(map(str, options.mask_values))
        crack = f"of the values {values}" if values else "white (above 127)"
        raise DataError(
            f"no window shows a crack; check that the masks are {crack} on cracks, "
            "or change the window"
        )
    if "road" not in found:
        raise DataError(
            f"no window of {options.cut.side} px is free of cracks; {windows}give a folder of "
            "road images"
        )


def _balance(rows: Iterable[Row], options: BuildOptions) -> list[Row]:
    """Undersample to 1:1 within each split; whole crack images are all kept."""
    rng = np.random.default_rng(np.random.SeedSequence([options.seed, 1]))
    groups: dict[tuple[Split, Label], list[Row]] = {(s, c): [] for s in SPLITS for c in LABELS}
    for row in rows:
        if row.split and row.label:
            groups[row.split, row.label].append(row)
    require_both_classes({key: len(group) for key, group in groups.items()}, "this set")
    chosen: list[Row] = []
    for side in SPLITS:
        fewer = min(len(groups[side, label]) for label in LABELS)
        for label in LABELS:
            group = sorted(groups[side, label], key=lambda row: (row.source, row.row, row.col))
            keep_all = label == "crack" and options.protocol == "whole"
            kept = rng.permutation(len(group))[: None if keep_all else fewer]
            chosen += [group[k] for k in sorted(kept)]
    return chosen


def _write_items(
    folder: Path, surveys: Sequence[Survey], chosen: Iterable[Row]
) -> dict[str, bytes]:
    """Cut and write the chosen items, one source image in memory at a time; digest by file."""
    wanted: dict[str, list[Row]] = {}
    for row in chosen:
        wanted.setdefault(row.source, []).append(row)
    for label in LABELS:
        (folder / label).mkdir()
    digests = {}
    for seen in surveys:
        rows = wanted.get(seen.source.stem, [])
        if not rows:
            continue
        image = read_rgb(seen.source.image)
        for row in rows:
            window = image[row.row : row.row + row.height, row.col : row.col + row.width]
            write_png(folder / row.file, np.ascontiguousarray(window))
            keep_surroundings(folder, row, image)
            digests[row.file] = digest(window)
    return digests


@dataclass(frozen=True)
class _Chosen:
    """Items of the set, and the digest of each file."""

    rows: Sequence[Row]
    digests: Mapping[str, bytes]


def _report(out: Path, surveys: Sequence[Survey], frames: Frames, chosen: _Chosen) -> BuildReport:
    counts = [_count(side, chosen.rows, frames) for side in SPLITS]
    windows = [(row, row.file, chosen.digests[row.file]) for row in chosen.rows]
    wholes = [
        (row, seen.source.image.name, seen.content.digest)
        for seen in surveys
        for row in seen.items[:1]
    ]
    identical = _equal(
        [(r.split == "train", name, print_) for r, name, print_ in (*windows, *wholes)]
    )
    contradictory = _equal([(r.label == "crack", name, print_) for r, name, print_ in windows])
    warnings = few_items_warnings(
        {label: sum(getattr(c, label) for c in counts) for label in LABELS}
    )
    folders = sorted({seen.source.image.parent for seen in surveys})
    warnings += [sentence for folder in folders for sentence in left_out(folder)]
    warnings += _left_out(surveys, {row.source for row in chosen.rows})
    for pairs, what in (
        (identical, "of val are identical to files of train"),
        (contradictory, "of road are identical to files of crack"),
    ):
        if pairs:
            shown = first_few(f"{a} = {b}" for a, b in pairs)
            warnings.append(f"{len(pairs)} files {what}: {shown}")
    return BuildReport(
        out,
        (counts[0], counts[1]),
        tuple(identical),
        tuple(contradictory),
        frames.overlapping,
        (*frames.warnings, *warnings),
    )


def _left_out(surveys: Sequence[Survey], chosen: Set[str]) -> Iterator[str]:
    """Say which images are too small for a window, or gave the set no item, and why."""
    large = [seen for seen in surveys if not seen.too_small]
    unclear = "gave no item, as no window of them shows a crack clearly or is free of cracks"
    lost = [seen for seen in large if seen.items and seen.source.stem not in chosen]
    for found, why in (
        ([seen for seen in surveys if seen.too_small], "are smaller than a window"),
        ([seen for seen in large if not seen.items], unclear),
        (lost, "gave no item, as the larger class was reduced at random"),
    ):
        if found:
            names = first_few(seen.source.image.name for seen in found)
            yield f"{len(found)} images {why}: {names}"


def _equal(files: Iterable[tuple[bool, str, bytes]]) -> list[tuple[str, str]]:
    """Pair files of equal pixels, the first of the one kind and each of the other."""
    known = list(files)
    first = {print_: name for is_first, name, print_ in known if is_first}
    return [(first[p], name) for is_first, name, p in known if not is_first and p in first]


def _count(side: Split, rows: Iterable[Row], frames: Frames) -> SplitCount:
    mine = [row for row in rows if row.split == side]
    by_label = Counter(row.label for row in mine)
    sources = {row.source for row in mine}
    places = {frames.of[source] for source in sources}
    return SplitCount(side, by_label["crack"], by_label["road"], len(sources), len(places))
