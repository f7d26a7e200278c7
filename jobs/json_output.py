"""Figures of a command for people and, on request, for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geo.errors import OutputError

STDOUT = Path("-")


def report_figures(summary: str, values: Mapping[str, Any], path: Path | None) -> None:
    """Prints the summary; writes the values as JSON to a file, or to stdout in its place.

    Raises:
        OutputError: The file cannot be written.
    """
    text = json.dumps(values, indent=1, ensure_ascii=False)
    if path == STDOUT:
        print(text)
        return
    print(summary)
    if path is not None:
        try:
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"--json {path} cannot be written ({error.strerror}); name a file in a folder "
                "that exists"
            ) from error
