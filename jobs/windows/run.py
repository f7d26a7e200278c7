"""`wpcrack windows`: windows of a city's own tiles or photographs, to be labeled by hand.

    wpcrack windows tiles=tiles/ --count 2000 --out windows
    wpcrack windows --images photos --count 400 --out windows

They are listed in the order in which their labels teach a model most. `wpcrack label windows` asks
for the labels by key; `wpcrack train data.root=windows run_dir=runs/own` takes them.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geo.errors import InputError, count_of
from geo.grid import Window
from geo.imagery.find import scan, summary
from geo.imagery.mosaic import Mosaic, Raster
from geo.imagery.samples import Candidate, sample_windows
from geo.imagery.suspect import suspicions
from jobs.runtime.terminal import say
from jobs.settings.map import Imagery
from jobs.windows.cut import Cutter, WindowsOptions, write_manifest
from jobs.windows.photographs import Photographs
from wpcrack.data.folder import replace_set
from wpcrack.data.images import left_out, list_images
from wpcrack.data.manifest import NAME
from wpcrack.errors import DataError
from wpcrack.inference.graph import require_torch_or_graph
from wpcrack.inference.teaching import teaching_order
from wpcrack.model import find_model


@dataclass(frozen=True)
class WindowsReport:
    """What was cut.

    Attributes:
        out: the folder.
        n_windows: how many.
        origins: from how many tiles or photographs, in words.
        gsd_mm: size of a pixel; None: not known of photographs.
        left_out: what could not be used, in words.
        has_failures: some of that is damaged.
        cracks: how many the model expects to show a crack; None: none was asked.
    """

    out: Path
    n_windows: int
    origins: str
    gsd_mm: float | None
    left_out: str
    has_failures: bool
    cracks: float | None

    @property
    def exit_code(self) -> int:
        """0: all done; 3: delivered, but something could not be read."""
        return 3 if self.has_failures else 0

    def summary(self, wanted: int) -> str:
        """Return a few lines for the terminal."""
        lines = [f"{count_of(self.n_windows, 'window')} from {self.origins} in {self.out}"]
        if self.cracks is not None:
            crack = round(self.cracks)
            lines.append(
                f"the model expects about {crack} with a crack and {self.n_windows - crack} without"
                "; those that it is unsure of come early"
            )
        if self.n_windows < wanted:
            lines.append(f"warning: the imagery holds no more than that; {wanted} were asked for")
        if self.left_out:
            lines.append(f"left out: {self.left_out}")
        folder = shlex.quote(str(self.out))
        size = f" data.gsd_mm={self.gsd_mm:.3g}" if self.gsd_mm else ""
        lines.append(
            f"next: wpcrack label {folder} (or sort them into {self.out / 'crack'} and "
            f"{self.out / 'road'}), then: wpcrack train data.root={folder}{size} run_dir=runs/own"
        )
        return "\n".join(lines)


def run_windows(
    source: Imagery | Path, out: Path, options: WindowsOptions | None = None
) -> WindowsReport:
    """Cut windows out of tiles or photographs, as PNG files with a manifest without labels.

    Args:
        source: The tiles, or a folder of photographs.
        out: A folder that does not exist yet or is empty: labels are never overwritten.
        options: What is cut, and how it is ordered.

    Raises:
        WpcrackError, GeoError: Nothing usable, a folder in use, no model.
    """
    options = options or WindowsOptions()
    if options.ordered:
        require_torch_or_graph(find_model(options.model))
    ground = ground_of(source, options)
    with replace_set(out, keep=True) as folder:
        say("choosing windows")
        watched = _Watched(ground) if isinstance(ground, Mosaic) else ground
        chosen = _choose(watched, options)
        cut = Cutter(ground, folder, options).cut(chosen)
        order: Sequence[int] = range(len(cut))
        if options.ordered:
            described = np.stack([item.described for item in cut])
            order = [int(k) for k in teaching_order(described, [item.guess for item in cut])]
        write_manifest(folder / NAME, ground, [cut[index] for index in order])
    tiles = len({item.place.tile for item in chosen})
    is_mapped = isinstance(ground, Mosaic)
    return WindowsReport(
        out=out,
        n_windows=len(chosen),
        origins=count_of(tiles, "tile" if is_mapped else "photograph"),
        gsd_mm=1000 * ground.grid.gsd_m if isinstance(ground, Mosaic) else None,
        left_out=watched.left_out,
        has_failures=bool(watched.failures),
        cracks=sum(item.guess for item in cut) if options.ordered else None,
    )


class _Watched:
    """Tiles, and which of them cannot be used, be it for their headers or their pixels."""

    def __init__(self, mosaic: Mosaic) -> None:
        """Begin with the tiles that are left out for their headers."""
        self._mosaic, self.windows, self.inside = mosaic, mosaic.windows, mosaic.inside
        self.failures = {problem.path: problem for problem in mosaic.problems}

    def read(self, window: Window) -> Raster:
        """Read a window and keep what failed."""
        seen = self._mosaic.read(window)
        self.failures |= {failure.path: failure for failure in seen.failures}
        return seen

    @property
    def left_out(self) -> str:
        """Say what cannot be used, and why; empty if nothing."""
        return summary(list(self.failures.values()))


def _choose(ground: _Watched | Photographs, options: WindowsOptions) -> list[Candidate]:
    """Choose windows.

    Raises:
        DataError: No tile or photograph can be read.
        InputError: No window lies wholly on imagery.
    """
    try:
        return sample_windows(ground, options.count, options.window, options.seed)
    except InputError as error:
        if ground.failures:
            kind = "photograph" if isinstance(ground, Photographs) else "tile"
            raise DataError(f"no {kind} can be used: {ground.left_out}") from error
        raise


def ground_of(source: Imagery | Path, options: WindowsOptions) -> Mosaic | Photographs:
    """Open tiles or photographs, and say what is odd about them.

    Raises:
        WpcrackError, GeoError: Nothing of them can be used.
    """
    if isinstance(source, Path):
        say("reading the headers of the photographs")
        paths = list(list_images(source).values())
        for sentence in left_out(source):
            say(f"left out: {sentence}")
        return Photographs(paths, options.window)
    say("reading the headers of the tiles")
    mosaic = source.limit(source.mosaic(scan(source.tiles, source.patience)))
    for sentence in suspicions(mosaic):
        say(f"warning: {sentence}")
    return mosaic
