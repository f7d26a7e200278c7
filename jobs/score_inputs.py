"""Which images `wpcrack evaluate` scores: all pairs, or the held-out sources of a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wpcrack.errors import ConfigError, DataError
from wpcrack.image_folders import Pair, list_images, named, pair
from wpcrack.manifest import Row, read_manifest


@dataclass(frozen=True)
class ScoreInputs:
    """Where truth lies.

    Attributes:
        images: folder of photographs.
        masks: folder of their masks.
        road: folder of photographs that show no crack and have no mask.
        manifest: manifest.csv of a built set; only source images of `split` are scored.
        split: side of the manifest, val if not given.
    """

    images: Path
    masks: Path
    road: Path | None = None
    manifest: Path | None = None
    split: Literal["train", "val"] | None = None


@dataclass(frozen=True)
class Selection:
    """Images with masks, photographs free of cracks, and what the user should know."""

    pairs: tuple[Pair, ...]
    roads: tuple[Path, ...]
    note: str | None = None


def select(inputs: ScoreInputs) -> Selection:
    """Choose the images to score.

    With a manifest, sources that gave road windows only and have no mask are crack-free images:
    those of the split that lie in `images` or `road` are scored as such, the others are noted.

    Raises:
        ConfigError: a split without a manifest.
        DataError: files that do not pair up, or a manifest that does not belong to these images.
    """
    roads = {} if inputs.road is None else list_images(inputs.road)
    if inputs.manifest is None:
        if inputs.split is not None:
            raise ConfigError(f"split {inputs.split} needs a manifest; give --manifest too")
        return Selection(tuple(pair(inputs.images, inputs.masks)), tuple(roads.values()))
    rows = [row for row in read_manifest(inputs.manifest) if row.label]
    cracked = {row.source for row in rows if row.label == "crack"}
    free = {row.source for row in rows} - cracked
    wanted = _sources(rows, inputs)
    pairs = [p for p in pair(inputs.images, inputs.masks, unmasked=free) if p.stem in wanted]
    paired = {p.stem for p in pairs}
    absent = (wanted & cracked) - paired
    if absent or not pairs:
        raise DataError(
            f"{inputs.images} lacks source images of {inputs.manifest} "
            f"({named(absent or wanted)}); give the folders that the set was built from"
        )
    unmasked = (list_images(inputs.images) | roads).items()
    chosen = {stem: path for stem, path in unmasked if stem in wanted - paired}
    unseen = wanted - paired - chosen.keys()
    note = f"crack-free images of the split not found: {named(unseen)}; add --road to score them"
    return Selection(tuple(pairs), tuple(chosen.values()), note if unseen else None)


def _sources(rows: list[Row], inputs: ScoreInputs) -> set[str]:
    split = inputs.split or "val"
    sources = {row.source for row in rows if row.split == split}
    if not sources:
        raise DataError(
            f"{inputs.manifest} has no item of the {split} split; give a manifest.csv made by "
            "`wpcrack dataset`"
        )
    return sources
