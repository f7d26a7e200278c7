"""split.json of a run or sweep: which images its training holds out.

Images that are added later change no side.
"""

from __future__ import annotations

import json
from pathlib import Path

from geo.files import write_text
from jobs.runtime.folder import explain_damage
from wpcrack.data.manifest import Split
from wpcrack.data.read import ImageLevelSet

SPLIT = "split.json"


def read_sides(root: Path, remedy: str) -> dict[str, Split] | None:
    """Return the side of each file, by its place in the set; None: no training has begun here.

    Args:
        root: run folder.
        remedy: what the user can do about a damaged file.

    Raises:
        ConfigError: the file is damaged.
    """
    path = root / SPLIT
    if not path.is_file():
        return None
    with explain_damage(path, remedy):
        return dict(json.loads(path.read_text(encoding="utf-8")))


def keep_split(root: Path, data: ImageLevelSet) -> None:
    """Write which images are held out, for later starts and for the workers of this one."""
    write_text(root / SPLIT, json.dumps(data.sides, indent=0) + "\n")


def share_split(root: Path, run_dir: Path) -> None:
    """Give a run folder the split of another one, if it has none."""
    if (root / SPLIT).is_file() and not (run_dir / SPLIT).exists():
        run_dir.mkdir(parents=True, exist_ok=True)
        write_text(run_dir / SPLIT, (root / SPLIT).read_text(encoding="utf-8"))
