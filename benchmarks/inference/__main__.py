"""Benchmarks of inference by name: `python -m benchmarks.inference terapixel [...]`."""

from __future__ import annotations

import sys

from benchmarks.inference import terapixel

if __name__ == "__main__":
    if sys.argv[1:2] != ["terapixel"]:
        sys.exit("give: python -m benchmarks.inference terapixel [--nodes N ...] [--check]")
    terapixel.main(sys.argv[2:])
