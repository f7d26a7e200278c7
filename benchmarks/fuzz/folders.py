"""Folders that are damaged: models, work folders, trainings, sweeps and adaptions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.fuzz.inputs import PLACE, SIDE, grid

NETWORKS = {
    "encoder": "test_efficientnet",
    "pretrained": "none",
    "cam_channels": 8,
    "recon_channels": 8,
    "decoder_widths": (8, 8),
    "detector_channels": 8,
}
"""The smallest networks."""

EPOCHS = [
    {
        "epoch": k,
        "stage": stage,
        "best": k == 2,
        "seconds": 1.5,
        "progress": 0.3 * k,
        **{f"val/{name}": 0.1 * k for name in ("score", "agreement_iou", "image_f1", "road_share")},
    }
    for k, stage in enumerate(("warmup", "adversarial", "detector"))
]


def draw_model(folder: Path) -> list[Path]:
    """Write a small model."""
    import torch

    from wpcrack.config import ModelConfig
    from wpcrack.model import CONFIG, WEIGHTS, ModelInfo, save_model
    from wpcrack.networks import Networks

    torch.manual_seed(0)
    config = ModelConfig(**NETWORKS)
    info = ModelInfo(model=config, gsd_mm=5.0, trained={"epoch": 3, "seed": 0})
    save_model(folder / "model", Networks(config), info)
    return [folder / "model" / CONFIG, folder / "model" / WEIGHTS]


def read_model(path: Path) -> object:
    """Read a model: description and weights."""
    from wpcrack.model import load_model, read_info

    read_info(path.parent)
    return load_model(path.parent)


def draw_weights(folder: Path) -> list[Path]:
    """Write weight files as others do: a checkpoint, a pickle of old, safetensors."""
    import torch
    from safetensors.torch import save_file

    tensors = {f"net_main.layer{k}.weight": torch.ones(4, 3) for k in range(3)}
    content = {"state_dict": tensors, "epoch": 3, "hyper_parameters": {"lr": 0.1}}
    torch.save(content, folder / "zip.ckpt")
    torch.save(content, folder / "old.pt", _use_new_zipfile_serialization=False)
    save_file(tensors, folder / "a.safetensors")
    return [folder / "zip.ckpt", folder / "old.pt", folder / "a.safetensors"]


def read_weights(path: Path) -> object:
    """Read tensors of others."""
    from wpcrack.tensor_files import read_tensors

    return read_tensors(path)


def draw_work(folder: Path) -> list[Path]:
    """Write the log of a job with two finished blocks, and their parts."""
    from geo.cracks.parts import InspectedRow, write_part
    from geo.grid import Window
    from geo.imagery.mosaic import Block
    from jobs.infer.job import InferJob
    from jobs.infer.job_log import FORMAT, LOG

    place = grid()
    config = InferJob(tiles="tiles", out=folder / "a.gpkg").model_dump(mode="json")
    ground = {"grid": [*PLACE[:6], SIDE, SIDE, place.crs.to_wkt()], "stretch": None, "area": None}
    record = {"format": FORMAT, "started": 1.0, "config": config, "model": "m", "ground": ground}
    blocks = [Block(f"r0_c{k}", Window(0, 48 * k, SIDE, 48)) for k in range(2)]
    record |= {"model_hash": "0" * 64, "inputs": {"a.tif": [1, 2, 0, 0, SIDE, SIDE]}}
    record |= {
        "problems": [],
        "blocks": [[b.block_id, 0, b.window.col_off, SIDE, 48] for b in blocks],
    }
    lines, work = [json.dumps(record)], folder / "a.work"
    (work / "parts").mkdir(parents=True)
    for block in blocks:
        valid = np.arange(SIDE * 48).reshape(SIDE, 48) > 700
        row = InspectedRow.of(block, valid, (), place, seconds=1.0)
        write_part(work / "parts" / f"{block.block_id}.parquet", [], row)
        lines.append(json.dumps(asdict(row) | {"coverage": "", "at": 2.0}))
    (work / LOG).write_text("\n".join(lines) + "\n")
    return [work / LOG, work / "parts" / "r0_c0.parquet"]


def read_work(path: Path) -> object:
    """Read what `--status` and `assemble` read of a work folder."""
    from geo.cracks.parts import read_part
    from geo.imagery.coverage import CoverageMap
    from jobs.assemble.source import Source
    from jobs.infer.report import read_status

    work = path.parent if path.suffix == ".jsonl" else path.parent.parent
    read_status(work).text()
    with Source.open(work) as source:
        rows = [read_part(source.part(block)).inspected for block in source.finished]
        CoverageMap(source.grid, ((row.window, row.coverage) for row in rows))
        return source.settings, source.level, [row.imagery() for row in rows]


def _draw_set(folder: Path) -> Path:
    """Write an image-level set of six windows."""
    rng = np.random.default_rng(0)
    for k in range(6):
        place = folder / "set" / ("crack", "road")[k % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(
            place / f"street{k // 2}_r{k}_c0.png"
        )
    return folder / "set"


def _settings(folder: Path) -> dict[str, object]:
    train = {"batch_size": 2, "epoch_steps": 1, "val_items": 2}
    places = {"data": {"root": str(folder / "set")}, "run_dir": str(folder / "run")}
    return {**places, "model": NETWORKS, "train": train, "scaling": {"num_workers": 0}}


def _write_lines(path: Path, lines: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def draw_training(folder: Path) -> list[Path]:
    """Write the run folder of a training."""
    from jobs.train.folder import CONFIG, METRICS, REPORT, open_run, read_data
    from jobs.train.job import TrainJob
    from jobs.train.report import write_report
    from jobs.train.split import SPLIT, keep_split

    _draw_set(folder)
    job = TrainJob.model_validate(_settings(folder))
    with open_run(job) as root:
        data = read_data(job)
        keep_split(root, data)
        _write_lines(root / METRICS, EPOCHS)
        write_report(root, job, data, 3.0, "ImageNet")
    return [folder / "run" / name for name in (CONFIG, SPLIT, METRICS, REPORT)]


def read_training(path: Path) -> object:
    """Look at a run, as plan, continue and end it do."""
    from jobs.train.folder import open_run, read_data, truncate_metrics
    from jobs.train.job import TrainJob
    from jobs.train.plan import standing_of
    from jobs.train.report import closing_lines, read_report, write_report

    settings = _settings(path.parent.parent)
    job = TrainJob.model_validate(settings)
    standing_of(job)
    data = read_data(job)
    finished = read_report(path.parent)
    if finished is not None:
        closing_lines(finished, job, data)
    force = TrainJob.model_validate({**settings, "resume": "force"})
    with open_run(force) as root:
        write_report(root, job, data, 1.0, "ImageNet")
        truncate_metrics(root, 2)
    return finished


def draw_sweep(folder: Path) -> list[Path]:
    """Write the folder of a sweep: one trial has ended, another goes on."""
    from jobs.train.folder import CONFIG, METRICS, REPORT, open_run, read_data
    from jobs.train.split import SPLIT, keep_split
    from jobs.tune.folder import JOURNAL, SWEEP, note, trial_folder

    _draw_set(folder)
    job = sweep_of(folder)
    with open_run(job, SWEEP) as root:
        keep_split(root, read_data(job))
        for number in range(2):
            note(root, number, params={"optim.encoder_lr": 3e-4 * (number + 1), "seed": number})
            trial_folder(root, number).mkdir(parents=True)
            _write_lines(trial_folder(root, number) / METRICS, EPOCHS)
        note(root, 0, status="finished")
        (root / REPORT).write_text(json.dumps({"trials": 2}))
    files = (CONFIG, SPLIT, JOURNAL, REPORT, f"trials/00000/{METRICS}")
    return [folder / "run" / name for name in files]


def sweep_of(folder: Path):
    """Return the job of a sweep in a folder."""
    from jobs.tune.job import TuneJob

    space = {"optim.encoder_lr": {"loguniform": [1e-4, 1e-2]}, "seed": {"choice": [0, 1]}}
    tune = {"space": space, "trials": 3, "startup": 1}
    return TuneJob.model_validate({**_settings(folder), "tune": tune})


def read_sweep(path: Path) -> object:
    """Look at a sweep, as `--status`, `--plan` and the next start do."""
    from jobs.train.folder import open_run, read_data
    from jobs.tune.folder import SWEEP
    from jobs.tune.plan import require_folder
    from jobs.tune.run import conclude, is_finished
    from jobs.tune.status import read_status
    from jobs.tune.sweep import Sweep

    root = path.parent if path.parent.name == "run" else path.parents[2]
    read_status(root).text()
    job = sweep_of(root.parent)
    require_folder(job, 3)
    read_data(job)
    with open_run(job, SWEEP):
        is_finished(root, 3)
        sweep = Sweep(job, root)
        sweep.next()
        sweep.write()
        conclude(job, root)
    return read_status(root)


def draw_adaption(folder: Path) -> list[Path]:
    """Write the run folder of a finished adaption, and a round under way."""
    import torch

    from jobs.adapt.plan import WINDOWS
    from wpcrack.config import ModelConfig
    from wpcrack.model import CONFIG, WEIGHTS, ModelInfo, save_model
    from wpcrack.networks import Networks
    from wpcrack.training.adapt import REPORT, Adapted
    from wpcrack.training.standing import Standing

    torch.manual_seed(0)
    config, out = ModelConfig(**NETWORKS), folder / "run"
    save_model(out / "model", Networks(config), ModelInfo(model=config), predicts_only=True)
    outcome = Adapted(True, (), Standing(0.5, 0.1), Standing(0.6, 0.1), 0.7, 9, 0.02)
    (out / REPORT).write_text(json.dumps(asdict(outcome)))
    (out / WINDOWS).mkdir()
    manifest = out / WINDOWS / "manifest.csv"
    manifest.write_text("file,label,source,row,col,height,width,split\na.png,,a,0,0,64,64,\n")
    Image.new("RGB", (64, 64)).save(out / WINDOWS / "a.png")
    return [out / REPORT, out / "model" / CONFIG, out / "model" / WEIGHTS, manifest]


def read_adaption(path: Path) -> object:
    """Look at an adaption as the next start and a map with its model do."""
    from jobs.adapt.job import AdaptOptions
    from jobs.adapt.run import run_adapt
    from wpcrack.data.manifest import read_manifest
    from wpcrack.model import find_model, load_model

    run = path.parents[0] if path.name == "report.json" else path.parents[1]
    if path.name == "manifest.csv":
        return read_manifest(path)
    report = run_adapt(AdaptOptions(), run, model=run, images=run / "windows")
    report.summary(), report.values()
    return load_model(find_model(run))
