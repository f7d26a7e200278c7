"""What is damaged: small drawn inputs of each kind, and how the program reads them.

A target writes its sound inputs into a folder; each is a file, perhaps with others beside it. Its
reader is what a command does with the file before and during its work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fuzz import folders, inputs, maps


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        name: of the kind.
        draw: writes sound inputs into a folder and names them.
        read: does with one what the program does.
        edit: changes a sound file as its program would; None: only bytes are changed.
        is_slow: has its turn half as often.
    """

    name: str
    draw: Callable[[Path], Sequence[Path]]
    read: Callable[[Path], object]
    edit: Callable[[Path, np.random.Generator], None] | None = None
    is_slow: bool = False


TARGETS = (
    Target("tile", inputs.draw_tiles, inputs.read_tile),
    Target("vector", inputs.draw_vectors, inputs.read_vector),
    Target("photograph", inputs.draw_photographs, inputs.read_photograph),
    Target("mask", inputs.draw_masks, inputs.read_mask),
    Target("manifest", inputs.draw_manifest, inputs.read_table),
    Target("config", inputs.draw_configs, inputs.read_config),
    Target("model", folders.draw_model, folders.read_model),
    Target("weight file", folders.draw_weights, folders.read_weights),
    Target("work folder", folders.draw_work, folders.read_work),
    Target("training", folders.draw_training, folders.read_training),
    Target("sweep", folders.draw_sweep, folders.read_sweep, is_slow=True),
    Target("adaption", folders.draw_adaption, folders.read_adaption),
    Target("map", maps.draw_map, maps.read_map, maps.edit, is_slow=True),
)
