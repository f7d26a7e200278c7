"""`wpcrack demo`: draw a city, map its cracks, compare the map with the truth.

    wpcrack demo --out demo
    wpcrack demo --out demo --train
    python -m jobs.demo --out demo

With --train the model learns from image-level labels of drawn windows before; without, it is the
one that ships with the package. Everything on one machine, nothing to download. Truth is drawn with
the city and read only by the comparison at the end.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError

from geo.errors import OutputError, first_line
from geo.files import write_text
from geo.packages import make_way
from jobs.demo.draw import TrainingSetSize, city_grid, write_city, write_training_set
from jobs.demo.score import MapScore, score_map
from jobs.demo.truth import CityTruth, TruthFigures, score_truth
from jobs.infer.job import InferJob
from jobs.infer.report import InferReport
from jobs.infer.run import run_inference
from jobs.runtime.folder import explain_write_errors, hold_lock
from jobs.runtime.signals import Interrupted
from jobs.runtime.terminal import say
from wpcrack.errors import ConfigError, DataError
from wpcrack.model import find_model
from wpcrack.synthetic import City, CityConfig, WindowConfig, draw_city

_MARKER, _LOCK = "demo.json", ".lock"
_FOLDERS = ("train", "tiles", "truth", "run", "cracks.work")
_MAP = "cracks.gpkg"
_FILES = (
    _MAP,
    "cracks.report.md",
    "cracks.report.json",
    "cracks.segments.csv",
    "cracks.overview.png",
    "cracks.map.html",
    "report.json",
)


@dataclass(frozen=True)
class DemoOptions:
    """How large the demo is; the defaults take two minutes on two cores, ten with training."""

    city: CityConfig = field(default_factory=CityConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)
    training_set: TrainingSetSize = field(default_factory=TrainingSetSize)
    train: bool = False
    """Whether to train a model first, from image-level labels alone."""
    train_minutes: float = 8.0
    """Cap on the training time."""

    @property
    def stages(self) -> int:
        """Number of stages."""
        return 4 if self.train else 3


_TIMED = ("draw", "train", "infer", "vectorize")
"""What report.json gives the seconds of; where nothing is trained that took none."""


@dataclass(frozen=True)
class DemoReport:
    """What the demo made and how good it is."""

    score: MapScore
    truth: TruthFigures
    seconds: dict[str, float]
    """draw, train, infer (reading, network, outlines of each block), vectorize (joining across
    blocks, writing, drawing overview and map)."""
    cracks: Path
    overview: Path
    page: Path
    report: Path


def run_demo(out: Path, seed: int = 0, options: DemoOptions | None = None) -> DemoReport:
    """Run the whole demo into `out`, which is created, or emptied of an earlier demo.

    Args:
        out: Folder for everything.
        seed: Of the drawn streets, the network's weights and the training.
        options: How large it is.

    Raises:
        ConfigError: There is no such seed, or another process makes a demo in `out`.
        DataError: `out` holds something that no demo made.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the user is told that nothing is continued.
    """
    options = options or DemoOptions()
    if seed < 0:
        raise ConfigError(f"seed is {seed}; give 0 or more")
    if not options.train:
        find_model(None)  # refused before anything is drawn
    _require_own(out)
    busy = ConfigError(f"another process makes a demo in {out}; wait for its end or choose another")
    try:
        with hold_lock(out / _LOCK, busy):
            return _make(out, seed, options)
    except KeyboardInterrupt as error:
        say("interrupted: a demo is not continued, the same command begins it anew")
        raise Interrupted from error


def _make(out: Path, seed: int, options: DemoOptions) -> DemoReport:
    """Make the demo in a folder that nobody else works in."""
    _empty(out, seed)
    seconds: dict[str, float] = {}
    stages = _Stages(options.stages)
    with stages.run("draw", "streets with cracks, as tiles of a city", seconds):
        try:
            city = _draw(out, seed, options)
        except (OSError, DataLayerError, DataSourceError, FeatureError) as error:
            raise OutputError(
                f"--out {out} cannot be written ({first_line(error)}); free space there, then give "
                "the same command again"
            ) from error
    if options.train:
        with stages.run("train", "the three networks, from image-level labels alone", seconds):
            _train(out, seed, options)
    with stages.run("infer", "the city's tiles to a crack map", seconds):
        inferred = _infer(out, out / "run" if options.train else None)
    seconds |= {"infer": inferred.infer_s, "vectorize": inferred.assemble_s}
    with stages.run("compare", "the map with the drawn truth", {}):
        score = score_map(inferred.package, city)
        truth = score_truth(inferred.package, CityTruth.of(city, city_grid(city)))
    files = inferred.package, inferred.overview, inferred.map_page, out / "report.json"
    report = DemoReport(score, truth, seconds, *files)
    values = {
        **asdict(score),
        **{name: round(value, 4) for name, value in asdict(truth).items()},
        "seed": seed,
        "seconds": {name: round(seconds.get(name, 0.0), 1) for name in _TIMED},
    }
    write_text(report.report, json.dumps(values, indent=2) + "\n")
    print(render(report))
    return report


def render(report: DemoReport) -> str:
    """Lay out the table that the demo prints."""
    score, truth = report.score, report.truth
    times = ", ".join(f"{name} {value:.0f} s" for name, value in report.seconds.items())
    return "\n".join(
        [
            "",
            "compared with the truth                                value     length",
            f"recall_2cm      true cracks >= 5 mm found            {score.recall_2cm:7.3f}"
            f" {score.true_m:8.1f} m",
            f"                thinner cracks (below one pixel)     {score.recall_2cm_thin:7.3f}"
            f" {score.thin_m:8.1f} m",
            f"precision_2cm   mapped cracks that are true          {score.precision_2cm:7.3f}"
            f" {score.predicted_m:8.1f} m",
            f"pixel_iou       crack pixels, no tolerance           {score.pixel_iou:7.3f}",
            f"f1              crack pixels, no tolerance           {score.f1:7.3f}",
            f"type_accuracy   meters of the right type             {truth.type_accuracy:7.3f}",
            f"severity_accuracy  meters of the right class         {truth.severity_accuracy:7.3f}"
            f"   ({truth.severity_claimed:.0%} have one)",
            f"width_mae_mm    mean error of a given width          {truth.width_mae_mm:7.2f}",
            f"network_iou     areas of alligator cracking          {truth.network_iou:7.3f}",
            f"whole_cracks    true branches that are one crack     {truth.whole_cracks:7.3f}",
            f"count_error     cracks of at least 1 m               {truth.count_error:+7.1%}",
            "",
            times,
            f"crack map  {report.cracks}  ({score.cracks} cracks)",
            f"picture    {report.overview}",
            f"page       {report.page}",
            f"figures    {report.report}",
        ]
    )


def _require_own(out: Path) -> None:
    """Refuse a folder of something else, or one in which nothing can be made."""
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out} is a file; give a folder")
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if found - {_LOCK} and not (out / _MARKER).is_file():
        raise DataError(f"--out {out} holds files that no demo made; give an empty or new folder")
    with explain_write_errors(f"--out {out}", "give another folder", DataError):
        out.mkdir(parents=True, exist_ok=True)
        (out / _LOCK).touch()


def _empty(out: Path, seed: int) -> None:
    """Remove an earlier demo, and mark the folder as a demo's."""
    with explain_write_errors(f"--out {out}", "give another folder", DataError):
        for folder in _FOLDERS:
            if (out / folder).is_dir():
                shutil.rmtree(out / folder)
        make_way(out / _MAP)
        for file in _FILES:
            (out / file).unlink(missing_ok=True)
        write_text(out / _MARKER, json.dumps({"seed": seed}) + "\n")


def _draw(out: Path, seed: int, options: DemoOptions) -> City:
    """Draw training set and city from unrelated seeds: no street of the one is in the other."""
    train_seed, city_seed = np.random.SeedSequence(seed).spawn(2)
    if options.train:
        drawn = write_training_set(out / "train", options.windows, options.training_set, train_seed)
        print(f"      {drawn.crack} crack and {drawn.road} road windows of {drawn.streets} streets")
    city = draw_city(options.city, int(city_seed.generate_state(1)[0]))
    files = write_city(city, out / "tiles", out / "truth")
    n_cracks = len({crack.crack_id for crack in city.cracks})
    print(f"      {files.n_tiles} tiles along {len(city.streets)} streets, {n_cracks} cracks")
    return city


class _Stages:
    """Counts the stages, says which one runs, and how long it took."""

    def __init__(self, total: int) -> None:
        self._number, self._total = 0, total

    @contextmanager
    def run(self, name: str, what: str, seconds: dict[str, float]) -> Iterator[None]:
        """Say what is done; note the seconds."""
        self._number += 1
        print(f"[{self._number}/{self._total}] {name}: {what}", flush=True)
        started = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - started
        print(f"      {seconds[name]:.0f} s", flush=True)


def _train(out: Path, seed: int, options: DemoOptions) -> None:
    from jobs.train.job import TrainJob
    from jobs.train.run import run_training

    gsd_mm = options.windows.gsd_m * 1000
    job = TrainJob.model_validate(
        {
            "data": {"root": out / "train", "gsd_mm": gsd_mm},
            "run_dir": out / "run",
            "seed": seed,
            "train": {"max_minutes": options.train_minutes},
        }
    )
    run_training(job, local=True, alone=False)


def _infer(out: Path, model: Path | None) -> InferReport:
    job = InferJob.model_validate(
        {
            "tiles": str(out / "tiles"),
            "model": model,
            "out": out / _MAP,
            "roads": {
                "path": out / "truth" / "roads.gpkg",
                "id": "road_id",
                "name": "name",
                "width": "width_m",
                "section_m": 10.0,  # the streets are some 40 m long
            },
        }
    )
    return run_inference(job, local=True, alone=False)
