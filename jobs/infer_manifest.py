"""What a work folder says about the progress of a job: finished blocks, and the last start."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.infer_worker import BlockResult

MANIFEST = "manifest.jsonl"
SESSION = "session.json"


@dataclass(frozen=True)
class Session:
    """The last start of a job."""

    started: float
    """Seconds since 1970."""
    blocks: int
    """Of the whole job."""

    def save(self, root: Path) -> None:
        """Writes session.json; it appears complete or not at all."""
        temporary = root / "session.tmp"
        temporary.write_text(json.dumps(asdict(self)), "utf-8")
        os.replace(temporary, root / SESSION)


@dataclass(frozen=True)
class ManifestLine:
    """One line of the manifest."""

    result: BlockResult
    at: float
    """When it was written, in seconds since 1970."""

    def text(self) -> str:
        """The line, with its end."""
        return json.dumps(self.result.row() | {"at": self.at}) + "\n"

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> ManifestLine:
        """The inverse of `text`, after parsing."""
        at = float(row.pop("at"))
        return cls(BlockResult.from_row(row), at)


def read_manifest(root: Path) -> dict[str, ManifestLine]:
    """The last line of each block; the end of one that is just being written is left out."""
    manifest = root / MANIFEST
    text = manifest.read_text("utf-8") if manifest.exists() else ""
    whole, _, _ = text.rpartition("\n")
    lines = (ManifestLine.of_row(json.loads(line)) for line in whole.splitlines())
    return {line.result.block_id: line for line in lines}


def read_session(root: Path) -> Session | None:
    """The last start of the job; None if there was none."""
    try:
        return Session(**json.loads((root / SESSION).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
