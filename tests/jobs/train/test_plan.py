"""`wpcrack train --dry-run` says what a training would do, and does nothing."""

from __future__ import annotations

import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from factories import TINY_MODEL, image_level_set, loaded_by, tiny_model
from PIL import Image
from typer.testing import CliRunner, Result

import jobs.cli
from jobs.settings.load import load
from jobs.train.folder import METRICS, open_run, read_data
from jobs.train.job import TrainJob
from jobs.train.needs import FEW_LABELS, warn_of_few_labels, warn_of_idle_keys
from jobs.train.plan import plan_training
from jobs.train.report import (
    ProgressLines,
    TrainReport,
    closing_lines,
    next_command,
    read_report,
)
from wpcrack.config import MethodConfig
from wpcrack.data.masks import ORIENTATION
from wpcrack.errors import ConfigError
from wpcrack.networks import Networks
from wpcrack.scoring.windows import WindowScores
from wpcrack.training.footprint import COPIES_SHARE, footprint, measure, on_meta, parameters
from wpcrack.training.optim import freeze_norms, make_optimizers
from wpcrack.training.stages import STAGES

STEPS = {"warmup": 150, "adversarial": 40, "detector": 300}
TINY = {
    "model": TINY_MODEL,
    "train": {"steps": STEPS, "batch_size": 8, "epoch_steps": 100, "val_items": 4},
}


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_level_set(tmp_path_factory.mktemp("set"))


def arguments(data_set: Path, run_dir: Path, *more: str) -> list[str]:
    (run_dir.parent / "tiny.yaml").write_text(json.dumps(TINY))
    config = str(run_dir.parent / "tiny.yaml")
    given = {"data.root": data_set, "run_dir": run_dir}
    for text in more:
        given.pop(text.partition("=")[0], None)
    required = [f"{key}={value}" for key, value in given.items()]
    return ["train", config, *required, "--dry-run", *more]


def test_a_dry_run_prints_a_config_that_trains_and_touches_nothing(
    data_set: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(jobs.cli.app, arguments(data_set, tmp_path / "run"))
    assert result.exit_code == 0, result.output
    values = yaml.safe_load(result.stdout)
    assert TrainJob.model_validate(values).train.batch_size == 8
    assert not (tmp_path / "run").exists()
    for text in (
        "# run               starts in",
        "# train             6 crack and 6 road windows of 3 sources",
        "# val               2 crack and 2 road windows of 1 source; 4 are scored",
        "# images            64 x 64 px, 8 a batch, 8 for each of 1 worker",
        "# stage warmup      150 steps in 2 epochs",
        "# parameters        classifier 0.",
        "# memory            about 1.",
        "# warning           only 8 crack items",
    ):
        assert text in result.stdout, text


def test_few_labels_are_a_risk_for_a_model_that_is_there_already(
    data_set: Path, tmp_path: Path
) -> None:
    few = "# warning           16 labeled windows are few: the model may get worse than the one it"
    tiny_model(tmp_path / "base")
    assert few not in CliRunner().invoke(jobs.cli.app, arguments(data_set, tmp_path / "run")).stdout
    given = arguments(data_set, tmp_path / "run", f"model.init={tmp_path / 'base'}")
    assert few in CliRunner().invoke(jobs.cli.app, given).stdout
    assert not warn_of_few_labels(FEW_LABELS)


def test_a_model_with_its_classifier_may_go_on_with_the_detector_alone(
    data_set: Path, tmp_path: Path
) -> None:
    tiny_model(tmp_path / "base")
    more = [f"model.init={tmp_path / 'base'}", "train.steps={warmup: 0, adversarial: 0}"]
    result = CliRunner().invoke(jobs.cli.app, arguments(data_set, tmp_path / "run", *more))
    assert result.exit_code == 0, result.output


def test_a_setting_that_changes_nothing_with_this_start_is_told() -> None:
    def told(*settings: str, from_model: bool) -> list[str]:
        job = load(TrainJob, None, ["data.root=set", "run_dir=run", *settings])
        return [text.split(":")[0] for text in warn_of_idle_keys(job, from_model=from_model)]

    mine = ["pseudo_label.cam_crack=0.6"]
    other = ["train.blend=1", "optim.trained_share=0.3", "train.one_encoder=false"]
    assert told(from_model=True) == told(from_model=False) == []
    assert told(*mine, *other, from_model=True) == ["pseudo_label.cam_crack changes nothing"]
    assert told(*mine, *other, from_model=False) == [
        "optim.trained_share changes nothing",
        "train.blend changes nothing",
        "train.one_encoder changes nothing",
    ]
    for used in ("pseudo_label.self_training=0", "train.detector_ema=0", "train.joint_after=1"):
        assert told(*mine, used, from_model=True) == []


def test_a_dry_run_for_programs(data_set: Path, tmp_path: Path) -> None:
    more = ["--json", "-", "train.steps.warmup=101", "scaling.num_workers=2"]
    result = CliRunner().invoke(jobs.cli.app, arguments(data_set, tmp_path / "run", *more))
    values = json.loads(result.stdout)
    assert values["stages"]["warmup"] == {"steps": 101, "epochs": 2}
    assert values["steps"] == 101 + 40 + 300
    assert values["size_px"] == [64, 64]
    nets = Networks(MethodConfig.model_validate(TINY).model)
    assert values["parameters"] == {k: parameters(v) for k, v in nets.named_children()}
    assert set(values["averaged_bytes"]) == set(STAGES)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.root=nowhere"], "nowhere is not a folder"),
        (["train.acumulate=2"], r"unknown key train.acumulate on the command line; did you mean"),
        (["train.accumulate=3"], "in 3 pieces each (train.accumulate); set a multiple of 3"),
        (["model.pretrained=package"], "holds weights of tf_efficientnet_lite0, tf"),
        (
            ["model.encoder=resnet38d", "model.pretrained=timm", "model.width_divisor=16"],
            "model.pretrained=timm has no weights of resnet38d",
        ),
        (["model.encoder=nonsense"], "timm cannot build 'nonsense'"),
        (["model.decoder_widths=[8,8,8,8,8,8]"], "6 levels, which need images of 128 pixels"),
        (["train.freeze_batchnorm=false", "scaling.num_workers=2"], "freeze_batchnorm=false with"),
        (["data.val_images=a", "data.val_masks=b"], "a "),
        (
            ["train.steps.adversarial=0", "train.steps.detector=0"],
            "the warmup alone gives no model",
        ),
        (
            ["train.steps.warmup=0", "train.steps.adversarial=0"],
            "brings no classifier, so the map that labels the detector stage would be noise",
        ),
        (["scaling.use_gpu=true", "scaling.num_workers=0"], "asks for 1 GPU here, and torch sees"),
        (["scaling.use_gpu=true", "scaling.num_workers=2"], "asks for 2 GPU here, and torch sees"),
    ],
)
def test_what_would_stop_the_training_is_said_by_the_dry_run(
    data_set: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    result = CliRunner().invoke(jobs.cli.app, arguments(data_set, tmp_path / "run", *more))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Large pictures in crack/ and road/."""
    root = tmp_path / "photographs"
    for k in range(8):
        folder = root / ("crack" if k % 2 else "road")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).resize((1920, 1080)).save(folder / f"{'abcdefgh'[k] * 4}.jpg")
    return root


def test_windows_are_cut_out_of_large_photographs_and_the_rest_is_refused_before_work(
    photographs: Path, tmp_path: Path
) -> None:
    def told(*more: str, command: str = "--dry-run") -> Result:
        given = arguments(photographs, tmp_path / "run", *more)
        return CliRunner().invoke(jobs.cli.app, [command if x == "--dry-run" else x for x in given])

    small = told()
    assert small.exit_code == 0, small.output
    assert "# images            256 x 256 px" in small.stdout
    assert "out of crack images of up to 1920 x 1080 px" in small.stdout
    for command in ("--dry-run", "resume=auto"):
        large = told("train.window_px=null", "train.batch_size=20000", command=command)
        assert large.exit_code == 1
        assert large.stderr.count("\n") == 1
        assert "20000 windows of 1920 x 1088 px a batch needs about" in large.stderr
        assert not (tmp_path / "run").exists()


def test_a_damaged_picture_and_a_folder_that_cannot_be_made_are_said_by_the_dry_run(
    tmp_path: Path,
) -> None:
    root = image_level_set(tmp_path / "set")
    (tmp_path / "file").touch()
    below = f"run_dir={tmp_path}/file/run"
    told = CliRunner().invoke(jobs.cli.app, arguments(root, tmp_path / "run", below))
    assert (told.exit_code, "is not a folder" in told.stderr) == (1, True)
    files = [path.relative_to(root) for path in root.glob("*/*.png")]
    lines = [f"{file},{file.parent},64,64" for file in files]
    (root / "manifest.csv").write_text("\n".join(["file,label,height,width", *lines]))
    picture = root / files[0]
    Image.open(picture).resize((96, 80)).save(picture)
    told = CliRunner().invoke(jobs.cli.app, arguments(root, tmp_path / "run"))
    assert told.exit_code == 1
    assert f"{picture.name} has 96 x 80 pixels, its manifest says 64 x 64" in told.stderr
    picture.write_bytes(picture.read_bytes()[:-900])
    told = CliRunner().invoke(jobs.cli.app, arguments(root, tmp_path / "run"))
    assert (told.exit_code, f"{picture.name} cannot be read" in told.stderr) == (1, True)


def test_surroundings_that_are_damaged_too_small_or_missing_are_said_by_the_dry_run(
    tmp_path: Path,
) -> None:
    root = image_level_set(tmp_path / "set")
    (root / "around").mkdir()
    for path in (root / "crack").glob("*.png"):
        wide = Image.open(path).resize((128, 128))
        wide.save(root / "around" / f"{path.stem}_around.jpg")

    given = [f"data.root={root}", f"run_dir={tmp_path / 'run'}", "scaling.num_workers=0"]

    def told() -> Result:
        return CliRunner().invoke(jobs.cli.app, ["train", *given, "--dry-run"])

    assert (told().exit_code, "without their surroundings" in told().stdout) == (0, False)
    around, *_ = sorted((root / "around").iterdir())
    whole = around.read_bytes()
    around.write_bytes(whole[:-300])
    assert (told().exit_code, f"{around.name} cannot be read" in told().stderr) == (1, True)
    Image.open(io.BytesIO(whole)).resize((60, 128)).save(around)
    assert told().exit_code == 1
    assert f"{around.name} has 60 x 128 pixels, and " in told().stderr
    assert "does not lie in it; correct the column surroundings" in told().stderr
    shutil.rmtree(root / "around")
    alone = told()
    assert alone.exit_code == 0
    assert "crack windows are below 256 px and come without their surroundings" in alone.stdout


def test_masked_pictures_that_a_training_cannot_read_are_said_by_the_dry_run(
    data_set: Path, tmp_path: Path
) -> None:
    photographs, masks = tmp_path / "photographs", tmp_path / "masks"
    photographs.mkdir()
    masks.mkdir()
    gray = np.random.default_rng(0).integers(100, 140, (96, 96)).astype(np.uint8)
    gray[10:14, 10:80] = 40
    picture = Image.fromarray(gray)
    picture.getexif()[ORIENTATION] = 3
    picture.save(photographs / "a.jpg", quality=95, exif=picture.getexif())
    Image.fromarray(gray < 60).save(masks / "a.png")
    more = [f"data.val_images={photographs}", f"data.val_masks={masks}"]
    told = CliRunner().invoke(jobs.cli.app, arguments(data_set, tmp_path / "run", *more))
    assert (told.exit_code, "is turned by its EXIF tag (3)" in told.stderr) == (1, True)
    picture = Image.fromarray(gray)
    picture.save(photographs / "a.jpg", quality=95)
    told = CliRunner().invoke(jobs.cli.app, arguments(data_set, tmp_path / "run", *more))
    assert told.exit_code == 0, told.output
    (photographs / "a.jpg").write_bytes((photographs / "a.jpg").read_bytes()[:-500])
    told = CliRunner().invoke(jobs.cli.app, arguments(data_set, tmp_path / "run", *more))
    assert (told.exit_code, "a.jpg cannot be read" in told.stderr) == (1, True)


# -- what a run says at its end ----------------------------------------------------------------


def test_a_finished_run_says_what_its_score_means_and_names_the_next_command(
    data_set: Path, tmp_path: Path
) -> None:
    job = load(TrainJob, None, [f"data.root={data_set}", f"run_dir={tmp_path}/my run"])
    data = read_data(job)
    good = {"image_f1": 0.9, "road_share": 0.001}
    report = TrainReport(job.run_dir, 3, 2, 0.6, 1.0, good)
    lines = closing_lines(report, job, data)
    assert lines[0] == f"best epoch 2 of 3, score 0.600; model in {tmp_path}/my run/model"
    assert "not the overlap with drawn cracks" in lines[1]
    assert lines[2:] == [
        f"next: wpcrack predict --out '{tmp_path}/my run-found' {data_set}/crack "
        f"--model '{tmp_path}/my run'"
    ]
    for val, doubt in (
        ({"image_f1": 0.0, "road_share": 0.0}, "warning: the model finds nothing"),
        ({"image_f1": 0.5, "iou": 0.0}, "warning: the model finds nothing"),
        ({"image_f1": 0.7, "road_share": 0.4}, "warning: the model marks 40% of"),
    ):
        found = closing_lines(replace(report, val=val), job, data)
        assert [line.startswith(doubt) for line in found].count(True) == 1
    start, better = WindowScores(8, 6, 9, 1, 0.01), WindowScores(8, 7, 9, 1, 0.01)
    worse = WindowScores(8, 6, 9, 6, 0.01)
    by_chance = WindowScores(8, 6, 9, 3, 0.01)
    said = "held-out windows: a crack found in 7 of 8 that show one, and in 1 of 9 that show none"
    judged = replace(report, held_out={"trained": better})
    assert closing_lines(judged, job, data)[2:-1] == [said]
    judged = replace(report, held_out={"trained": better, "start": start})
    since = f"{said}; by the model that it started from in 6 and 1"
    assert closing_lines(judged, job, data)[2:-1] == [since]
    judged = replace(report, held_out={"trained": worse, "start": start})
    (warning,) = closing_lines(judged, job, data)[3:-1]
    assert warning.startswith("warning: the model that it started from (model.init=shipped) is")
    assert "3 in place of 8" in warning
    judged = replace(report, held_out={"trained": by_chance, "start": start})
    assert not [line for line in closing_lines(judged, job, data) if "warning" in line]
    masked = job.model_copy(
        update={"data": job.data.model_copy(update={"val_images": data_set / "crack"})}
    )
    masked = masked.model_copy(
        update={"data": masked.data.model_copy(update={"val_masks": data_set / "crack copy"})}
    )
    assert "not the overlap with drawn cracks" in closing_lines(report, masked, data)[1], (
        "masks were late"
    )
    by_masks = replace(report, val={**good, "iou": 0.6})
    assert "with your masks" in closing_lines(by_masks, masked, data)[1]
    assert next_command(masked, data) == (
        f"wpcrack evaluate --images {data_set}/crack --masks '{data_set}/crack copy' "
        f"--model '{tmp_path}/my run'"
    )


def test_an_epoch_that_runs_again_after_a_crash_is_shown_again_and_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(*seconds: float) -> None:
        lines = (
            {"epoch": k, "stage": "detector", "step": k, "best": True, "seconds": each}
            | {"val/score": 0.5, "train/progress": (k + 1) / 10}
            | {"train/images_per_s": 1.0, "train/data_wait": 0.0}
            for k, each in enumerate(seconds)
        )
        metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    metrics, told = tmp_path / "metrics.jsonl", list[int]()
    write(1.0, 2.0)  # the state of the second epoch was not kept
    shown = ProgressLines(metrics, [lambda line: told.append(line["epoch"])])
    shown.started -= 60
    for epochs in ((1.0, 3.0), (1.0, 3.0, 4.0), (1.0, 3.0, 5.0), (1.0, 3.0, 5.0)):
        write(*epochs)
        shown._show_new()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines] == ["1", "2", "2"]
    assert lines[0].endswith("20%, ETA 8:00")
    assert told == [2]


def test_a_damaged_report_of_a_run_is_a_sentence(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"epochs": "x"}', '{"epochs": 1, "best_epoch": null}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(ConfigError, match="is damaged"):
            read_report(tmp_path)


def test_a_dry_run_says_what_lies_in_the_run_folder(data_set: Path, tmp_path: Path) -> None:
    def standing(**changes: Any) -> str:
        return plan_training(job.model_copy(update=changes)).standing

    config = load(TrainJob, None, [f"data.root={data_set}", "run_dir=x"])
    job = TrainJob.model_validate({**config.model_dump(), **TINY, "run_dir": tmp_path / "run"})
    assert standing().startswith("starts in")
    with open_run(job) as root:
        (root / METRICS).write_text(
            '{"epoch": 0, "stage": "warmup"}\n{"epoch": 1, "stage": "warmup"}\n'
        )
    assert standing().endswith("after 2 epochs")
    assert standing(resume="never").endswith("2 finished epochs there are dropped")
    sound = (root / METRICS).read_text()
    (root / METRICS).write_text("[1\n")
    assert standing(resume="never").endswith("1 finished epochs there are dropped")
    (root / METRICS).write_text(sound)
    result = CliRunner().invoke(jobs.cli.app, arguments(data_set, root, "seed=1"))
    assert result.exit_code == 1
    assert "seed: 0 -> 1" in result.stderr
    values = {"epochs": 2, "best_epoch": 1, "score": 0.5, "seconds": 1.0}
    (root / "report.json").write_text(json.dumps(values))
    assert standing().startswith("is finished in")


def test_a_dry_run_needs_no_ray(data_set: Path, tmp_path: Path) -> None:
    before = {name for name in sys.modules if name.split(".")[0] == "ray"}
    assert CliRunner().invoke(jobs.cli.app, arguments(data_set, tmp_path / "run")).exit_code == 0
    assert {name for name in sys.modules if name.split(".")[0] == "ray"} == before


def test_a_controller_loads_no_networks() -> None:
    """It has to know the loop of the workers; torch's compiler alone takes longer than torch."""
    heavy = ("timm", "torchvision", "torch._dynamo")
    assert loaded_by("import jobs.train.loop", heavy) == []


# -- what is counted ---------------------------------------------------------------------------


def test_what_a_forward_pass_keeps_is_counted_without_the_weights() -> None:
    nets = on_meta(MethodConfig.model_validate(TINY).model)
    layer = nets.classifier.head.score
    x = torch.empty(2, 8, 4, 4, device="meta")
    assert measure(nets, lambda: layer(x))[1] == x.numel() * 4
    assert measure(nets, lambda: torch.relu(layer(x)))[1] == x.numel() * 4 + 2 * 2 * 16 * 4


def test_what_the_default_networks_keep_on_a_cpu_is_what_is_counted() -> None:
    config = MethodConfig.model_validate({"model": {"pretrained": "none"}})
    found, elsewhere = (
        footprint(config, (64, 96), 4, on_cpu=on_cpu).activations["warmup"]
        for on_cpu in (True, False)
    )
    nets = Networks(config.model).train()
    freeze_norms(nets)
    image = torch.rand(4, 3, 64, 96)
    kept = measure(nets, lambda: nets.classifier(image))[1]
    assert found == pytest.approx((1 + COPIES_SHARE) * kept, rel=0.01)
    assert found < 0.7 * elsewhere


def test_pieces_recomputing_and_bf16_lower_the_estimate_and_windows_raise_it() -> None:
    def held(side: int = 64, **train: object) -> int:
        merged = {**TINY, "train": {**TINY["train"], **train}}  # type: ignore[dict-item]
        config = MethodConfig.model_validate(merged)
        return footprint(config, (side, side), 8).activations["adversarial"]

    assert held(accumulate=4) < held(accumulate=2) < held()
    assert held(recompute=True) < held()
    assert held(precision="bf16") < 0.6 * held()
    assert held(128) == pytest.approx(4 * held(), rel=0.05)


def test_optimizer_states_and_gradients_are_those_of_the_optimizers() -> None:
    for kind in ("adamw", "sgd"):
        config = MethodConfig.model_validate({**TINY, "optim": {"kind": kind}})
        nets = Networks(config.model)
        moments = 0
        for optimizer in make_optimizers(nets, config.optim).by_name().values():
            each = 1 if isinstance(optimizer, torch.optim.SGD) else 2
            groups = optimizer.param_groups
            moments += each * sum(p.numel() for g in groups for p in g["params"])
        found = footprint(config, (64, 64), 8)
        assert found.optimizers == 4 * moments
        assert found.weights == 4 * (2 * parameters(nets) + parameters(nets.classifier))
