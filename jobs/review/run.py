"""`wpcrack review`: judge a sample of a map on a local page; its precision and recall.

    wpcrack review maps/cracks.gpkg
    wpcrack review maps/cracks.gpkg tiles=/new/place

The page is for this machine alone. Ctrl-C ends the program, which then writes what was found into
the map, its report and its page; the same command goes on.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geo.errors import count_of
from geo.imagery.mosaic import Mosaic
from geo.imagery.overview import Overview, read_backdrop, reduce
from geo.outputs import require_replaceable
from geo.page.crops import read_crops
from geo.page.map_page import write_map
from geo.page.preview import OVERVIEW_PX
from geo.page.report import write_report
from geo.review.estimate import Accuracy
from geo.review.places import axes_of, read_places
from geo.review.record import write_accuracy
from jobs.infer.outputs import MapFiles
from jobs.infer.work_folder import BACKDROP, CROPS
from jobs.page.server import require_port, serve
from jobs.review.server import make_app
from jobs.review.session import Plan, Session, open_session
from jobs.review.source import MapRun, Scenes, open_imagery
from jobs.runtime.folder import THEN_AGAIN, hold_output, require_writable
from jobs.runtime.signals import ignore_signals
from jobs.runtime.terminal import say
from wpcrack.errors import ConfigError

LEAST_COUNT = 20
"""A smaller sample says nothing."""


@dataclass(frozen=True)
class ReviewOptions:
    """What is drawn: places, seed, side of a place in pixels of the map."""

    count: int = 300
    seed: int = 0
    window: int = 128

    def __post_init__(self) -> None:
        """Refuse a sample that is none."""
        if self.count < LEAST_COUNT or self.seed < 0 or not 32 <= self.window <= 1024:
            raise ConfigError(
                f"--count {self.count} --seed {self.seed} --window {self.window}: give at least "
                f"{LEAST_COUNT} places, a seed of 0 or more, a side of 32 to 1024 pixels"
            )


@dataclass(frozen=True)
class ReviewReport:
    """What the review says at the end."""

    package: Path
    accuracy: Accuracy
    left: int
    windows: Path | None

    def values(self) -> dict[str, Any]:
        """Return the figures of `--json`."""
        return {
            "package": str(self.package),
            "left": self.left,
            "windows": str(self.windows) if self.windows else None,
            **self.accuracy.values(),
        }

    def summary(self) -> str:
        """Return a few lines for the terminal."""
        lines = [self.accuracy.text()]
        for title, shares in (
            ("type", self.accuracy.by_type),
            ("severity", self.accuracy.by_severity),
        ):
            found = ", ".join(f"{name} {share.text()}" for name, share in shares.items())
            lines += [f"precision by {title}: {found}"] if found else []
        if self.left:
            lines.append(f"{count_of(self.left, 'place')} to go; the same command goes on")
        if self.windows:
            lines.append(f"windows for a training: {self.windows}")
            root = shlex.quote(str(self.windows))
            lines.append(f"next: wpcrack train data.root={root} run_dir=runs/own")
        return "\n".join(lines)


def run_review(
    package: Path,
    options: ReviewOptions,
    settings: Sequence[str] = (),
    *,
    port: int = 0,
    open_browser: bool = True,
) -> ReviewReport:
    """Serve the page until Ctrl-C or SIGTERM, then write what was found.

    Args:
        package: the map.
        options: what is drawn.
        settings: of the imagery, `key=value`, where they differ from those of the run.
        port: of the page; 0: any free one.
        open_browser: show the page.

    Raises:
        WpcrackError, GeoError: the file is no map, its imagery is not there, or something cannot
            be written; or the map was replaced or edited meanwhile, and answers on the one before
            say nothing of it.
    """
    require_port(port)
    run = MapRun.read(package)
    files = MapFiles.of(package)
    require_writable(package.parent, str(package))
    require_replaceable([files.package, files.page, files.report, files.figures])
    say("reading the headers of the tiles")
    mosaic = open_imagery(package, run, settings)
    plan = draw_plan(package, run, options, mosaic)
    root = review_folder(package)
    with open_session(root, plan, Scenes(package, mosaic, options.window)) as session:
        serve(partial(make_app, session), lambda: None, port=port, open_browser=open_browser)
        with ignore_signals(), hold_output(package, str(package), THEN_AGAIN):  # else they differ
            return _conclude(session, package, options, mosaic)


def _conclude(
    session: Session, package: Path, options: ReviewOptions, mosaic: Mosaic
) -> ReviewReport:
    """Write windows, and what was found into map, report and page."""
    accuracy, left = session.accuracy(), session.progress()["left"]
    windows = session.write_windows()
    if accuracy.judged:
        run = MapRun.read(package)
        if draw_plan(package, run, options, mosaic) != session.plan:
            raise ConfigError(
                f"{package} was replaced or edited while it was reviewed, so nothing was written "
                f"into it; the answers, on the map before, are kept in {review_folder(package)}: "
                "move it away to review the map as it is now"
            )
        write_accuracy(package, accuracy)
        work = run.work_folder(package)
        backdrop = read_backdrop(work / BACKDROP) or reduce(mosaic, OVERVIEW_PX)
        draw_again(MapFiles.of(package), work, backdrop)
    return ReviewReport(package, accuracy, left, windows)


def review_folder(package: Path) -> Path:
    """Return where the answers about a map are kept."""
    return package.parent / f"{package.stem}.review"


def draw_plan(package: Path, run: MapRun, options: ReviewOptions, mosaic: Mosaic) -> Plan:
    """Draw the sample of a map: squares of its imagery, as they are shown."""
    grid = mosaic.grid
    places = read_places(package, options.window * grid.gsd_m, axes_of(grid))
    return Plan.draw(run.run_id, places, options.count, options.seed, options.window)


def draw_again(files: MapFiles, work: Path, backdrop: Overview | None) -> None:
    """Write page and report of a map anew.

    Args:
        files: of the map.
        work: its work folder, which may be gone.
        backdrop: the imagery reduced, if it is known.

    Raises:
        GeoError: a file cannot be written.
    """
    shown = backdrop if backdrop is not None and backdrop.valid.any() else None
    write_map(files.package, files.page, shown, read_crops(work / CROPS))
    write_report(files.package, files.report, files.figures)
