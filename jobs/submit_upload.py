"""What a job needs on a cluster: our three packages and its own config, nothing else.

The files are collected into a folder of their own instead of excluding what must not go: data,
runs and environments lie wherever the user put them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGES = ("wpcrack", "geo", "jobs")
"""Every dependency beside them is expected on the nodes."""

JOB_FILE = "job.yaml"
"""Config of the job; JSON, which is YAML that every reader understands alike."""

LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.py[co]", ".*")


def collect(folder: Path, values: Mapping[str, Any] | None = None) -> None:
    """Copies our packages into an empty folder, and writes the config of the job beside them.

    Args:
        folder: Becomes the working directory of the job on every node.
        values: Of the job; None: the job has no config.
    """
    for name in PACKAGES:
        shutil.copytree(package_folder(name), folder / name, ignore=LEFT_OUT)
    if values is not None:
        text = json.dumps(values, indent=1, sort_keys=True) + "\n"
        (folder / JOB_FILE).write_text(text, encoding="utf-8")


def package_folder(name: str) -> Path:
    """Where a package of ours lies, in a checkout or as installed; does not import it."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
