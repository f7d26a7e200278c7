"""Measure inference at the size of a city, on drawn rasters that compress well.

Run from the repository root; each part runs alone, and small with --quick:
    python -m benchmarks.inference.scale throughput [--model RUN] [--threads 2] [--tile-px 8192]
    python -m benchmarks.inference.scale sizes          .25, 1 and 4 Gpx with a stand-in network
    python -m benchmarks.inference.scale listing        100 000 tiles, as files and as an index
    python -m benchmarks.inference.scale actors [--model RUN]      two actors against one

Without --model the networks have random weights; whatever they say, the drawing decides what is a
crack, so that the load on vectorizing is the same. Wall times mean something on a quiet machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.inference.scale_draw import draw_tiles, write_index
from benchmarks.inference.scale_job import Measured, run_alone, run_job
from benchmarks.inference.scale_shares import in_one_process
from benchmarks.machine import machine
from jobs.infer.job import InferJob
from wpcrack.config import ModelConfig
from wpcrack.model import ModelInfo, save_model
from wpcrack.networks import Networks

SMALL_TILE_PX = 2048
TINY_TILE_PX = 32


def main() -> None:
    """Run the parts that were asked for."""
    parts: dict[str, Callable[[argparse.Namespace, Path], None]] = {
        "throughput": throughput,
        "sizes": sizes,
        "listing": listing,
        "actors": actors,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--quick", action="store_true", help="small: to see that it works")
    parser.add_argument("--model", type=Path, help="run folder; default: random weights")
    parser.add_argument("--threads", type=int, default=2, help="of all actors together")
    parser.add_argument("--tile-px", type=int, default=8192, help="side of a tile, if not --quick")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing")
    parser.add_argument("--folder", type=Path, help="for rasters and maps; default: a new one")
    options = parser.parse_args()
    print(f"{machine(options.threads)}, seed {options.seed}{', quick' * options.quick}")
    if unknown := set(options.parts) - parts.keys():
        parser.error(f"no part is called {min(unknown)}; there are {', '.join(parts)}")
    for name in options.parts or list(parts):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            parts[name](options, Path(folder))


def throughput(options: argparse.Namespace, folder: Path) -> None:
    """Measure the whole job against the bare engine, and where the time goes."""
    side, count = (SMALL_TILE_PX, 2) if options.quick else (options.tile_px, 2)
    draw_tiles(folder / "tiles", (count, count), side, options.seed)
    model = options.model or random_model(folder / "random")
    values = job_values(folder, "tiles", options.quick)
    alone = in_one_process(InferJob.model_validate({"model": "none"} | values), model, options)
    whole = run_job(values | {"actors": options.threads}, model, 1)
    bare = alone.mpx / alone.bare_s
    speed = whole.mpx / (whole.work_s + whole.deliver_s)
    cpu = {name: seconds / alone.mpx for name, seconds in alone.cpu_s.items()}
    cpu["assembly"] = whole.deliver_cpu_s / whole.mpx
    spent = (whole.work_cpu_s + whole.deliver_cpu_s) / whole.mpx
    cpu["Ray and waiting"] = spent - sum(cpu.values())
    print(f"throughput of {whole.mpx:.0f} Mpx in {whole.blocks} blocks, {options.threads} threads")
    figure("bare engine", f"{bare:.2f} Mpx/s", "")
    figure("whole job, read to GeoPackage", f"{speed:.2f} Mpx/s", ">= 3")
    figure("ratio", f"{speed / bare:.2f}", ">= .75")
    figure("the same by CPU time", f"{cpu['model'] / spent:.2f}", "")
    for name, seconds in cpu.items():
        share = 100 * seconds / spent
        figure(f"  {name}", f"{1000 * seconds:.0f} ms CPU per Mpx", "", f"{share:.0f} %")


def sizes(options: argparse.Namespace, folder: Path) -> None:
    """Measure time per pixel and memory for growing mosaics, with a network that costs nothing."""
    side, counts = (SMALL_TILE_PX, (1, 2, 4)) if options.quick else (options.tile_px, (2, 4, 8))
    print("growing mosaics, stand-in network, two actors")
    each = []
    for count in counts:
        name = f"tiles{count}"
        draw_tiles(folder / name, (count, count), side, options.seed)
        done = run_job(job_values(folder, name, options.quick) | {"actors": 2}, None, 1)
        each.append(done.between_s / done.between_mpx)
        print(f"{done.mpx / 1000:.2f} Gpx in {done.blocks} blocks")
        figure("first to last block", f"{1000 * each[-1]:.1f} ms per Mpx", "")
        figure("CPU of all processes", f"{1000 * done.work_cpu_s / done.mpx:.1f} ms per Mpx", "")
        figure("planned", f"{done.planned_s:.1f} s", "< 20 (4 Gpx)")
        figure("driver, peak", f"{done.driver_mb:.0f} MB", "< 1500")
        figure("largest actor, peak", f"{done.actor_mb:.0f} MB", "< 1500")
        figure("object store in use", f"{done.store_mb:.0f} MB", "< 500")
    figure("spread of the time per Mpx", f"{100 * (max(each) / min(each) - 1):.0f} %", "<= 10 %")


def listing(options: argparse.Namespace, folder: Path) -> None:
    """List tiny tiles as a folder and as an index."""
    shape = (20, 100) if options.quick else (250, 400)
    draw_tiles(folder / "tiles", shape, TINY_TILE_PX, options.seed)
    write_index(folder / "tiles", shape, TINY_TILE_PX, folder / "index.parquet")
    for what in ("index.parquet", "tiles"):
        done = run_alone("plan", {"values": job_values(folder, what, quick=False)})
        print(f"{done['tiles']} tiles from {what} in {done['blocks']} blocks")
        figure("listed and planned", f"{done['seconds']:.1f} s", "< 60")
        figure("CPU of all processes", f"{done['cpu_s']:.1f} s", "")
        figure("peak memory of a process", f"{done['peak_mb']:.0f} MB", "< 1000")


def actors(options: argparse.Namespace, folder: Path) -> None:
    """Compare one actor with two of one thread each."""
    side, count = (SMALL_TILE_PX, 2) if options.quick else (options.tile_px, 2)
    draw_tiles(folder / "tiles", (count, count), side, options.seed)
    model = options.model or random_model(folder / "random")
    speed: dict[int, Measured] = {}
    for number in (1, 2):
        values = job_values(folder, "tiles", options.quick) | {"block_strides": 4}
        values |= {"actors": number, "out": str(folder / f"{number}.gpkg")}
        speed[number] = run_job(values, model, 1)
        rate = speed[number].mpx / speed[number].work_s
        figure(f"{number} actors of one thread", f"{rate:.2f} Mpx/s", "")
    figure("ratio", f"{speed[1].work_s / speed[2].work_s:.2f}", ">= 1.7")


def job_values(folder: Path, tiles: str, quick: bool) -> dict[str, Any]:
    """Return settings of a job; small blocks if there is little imagery."""
    values: dict[str, Any] = {"tiles": str(folder / tiles), "out": str(folder / f"{tiles}.gpkg")}
    return values | ({"block_strides": 2} if quick else {})


def random_model(folder: Path) -> Path:
    """Save a model folder with weights that mean nothing."""
    torch.manual_seed(0)
    save_model(folder, Networks(ModelConfig()), ModelInfo(model=ModelConfig()))
    return folder


def figure(name: str, value: str, target: str, more: str = "") -> None:
    """Print a line of the table."""
    print(f"  {name:32}{value:>22}  {target:12}{more}".rstrip())


if __name__ == "__main__":
    main()
