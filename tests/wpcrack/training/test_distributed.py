"""Laws of data-parallel training. Run as a program, this file is two ranks:

`python test_distributed.py FOLDER` writes FOLDER/rank0.pt and FOLDER/rank1.pt for the tests below.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from factories import (
    end_session,
    in_float64,
    noise_set,
    street,
    tiny_batch,
    tiny_config,
    tiny_learner,
    weights_of,
)
from torch import Tensor, nn

from wpcrack import distributed
from wpcrack.data.batches import Shard
from wpcrack.errors import ConfigError, TrainingError
from wpcrack.networks import Networks
from wpcrack.training.adapt import round_rule
from wpcrack.training.drawn import Lesson, keep_start, train_path
from wpcrack.training.drawn_windows import WindowShape
from wpcrack.training.optim import descend
from wpcrack.training.stages import STAGES, Learner
from wpcrack.training.taught_windows import AdaptConfig, TaughtBatches
from wpcrack.training.trainer import EpochReport, Trainer

RANKS = 2
CPU = torch.device("cpu")
CASES: dict[str, tuple[str, dict[str, object]]] = {
    **{stage: (stage, {}) for stage in STAGES},
    "fresh": ("adversarial", {"schedule": "fresh"}),
    "joint": ("adversarial", {"joint_after": 0, "joint_every": 1, "epoch_steps": 1}),
    "pieces": ("adversarial", {"accumulate": 2}),
    "uneven": ("adversarial", {}),
}
SET = {"train": 8, "val": 4, "side": 64}
LABELS = ([1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1])
"""Of five steps; in the second, rank 1 has no crack image, in the third neither has one, in the
fourth rank 0 has none. In the case "uneven" a further crack image goes to rank 1."""


# -- what a rank does --------------------------------------------------------------------------


def five_steps(name: str, shard: Shard) -> dict[str, Tensor]:
    """Weights after five steps of a case in float64."""
    stage, train = CASES[name]
    further = [1] if name == "uneven" else []
    learner = tiny_learner(tiny_config(**train))
    learner.nets.double()
    learner.teacher.double()
    for step in range(5):
        labels = LABELS[step] + further
        part = in_float64(tiny_batch(labels, seed=step, side=32, shard=shard))
        learner.step(stage, part, 0.5, step, step)
    return weights_of(learner.nets)


def message_of(function: Any, *args: Any) -> str:
    try:
        function(*args)
    except TrainingError as error:
        return str(error)
    return ""


def broken_on_rank_1(rank: int) -> str:
    """The error of an update whose loss is broken on rank 1 only."""
    weight = nn.Parameter(torch.ones(1))
    terms = {"fine": weight.sum(), "rec_full": weight.sum() * (math.nan if rank else 1.0)}
    message = message_of(descend, [terms], torch.optim.SGD([weight], lr=1.0), 5.0)
    assert weight.item() == 1
    return message


def drifted(rank: int) -> tuple[str, str]:
    """The errors of comparing equal and different weights."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    distributed.broadcast_weights(net)
    equal = message_of(distributed.assert_equal_weights, net)
    with torch.no_grad():
        net[1].bias += 1e-7 * rank
    return equal, message_of(distributed.assert_equal_weights, net)


def run_of(folder: Path, shard: Shard, minutes: float | None) -> Trainer:
    """A short run."""
    steps = {"warmup": 2, "adversarial": 2, "detector": 2}
    method = tiny_config(steps=steps, epoch_steps=2, val_items=4, max_minutes=minutes)
    return Trainer(method, noise_set(folder, **SET), shard=shard)


def untimed(report: EpochReport) -> tuple[int, dict[str, float]]:
    """Step and metrics of an epoch, without those that depend on the clock."""
    timed = ("train/images_per_s", "train/data_wait")
    return report.step, {k: v for k, v in report.metrics.items() if k not in timed}


def whole_run(
    folder: Path, shard: Shard, minutes: float | None
) -> list[tuple[int, dict[str, float]]]:
    """Steps and metrics of each epoch of a short run."""
    return [untimed(report) for report in run_of(folder, shard, minutes).epochs()]


def run_cut(folder: Path, shard: Shard) -> list[tuple[int, dict[str, float]]]:
    """The same of a run that each rank leaves in its second epoch and continues from rank 0."""
    states: list[Any] = [None]

    def within() -> None:
        if cut.position.step == 3:
            cut.meter.settle(CPU)
            states[0] = cut.state_dict()
            dist.broadcast_object_list(states)
            raise KeyboardInterrupt

    cut, other = run_of(folder, shard, None), run_of(folder, shard, None)
    found: list[tuple[int, dict[str, float]]] = []
    with suppress(KeyboardInterrupt):
        found.extend(map(untimed, cut.epochs(within)))
    other.load_state_dict(states[0])
    return [*found, *map(untimed, other.epochs())]


def drifting_run(folder: Path, shard: Shard) -> None:
    """One rank changes a weight by itself in the second epoch."""
    steps = {"warmup": 6, "adversarial": 0, "detector": 0}
    made = Trainer(
        tiny_config(steps=steps, epoch_steps=2, val_items=4), noise_set(folder, **SET), shard=shard
    )
    for report in made.epochs():
        assert report.epoch < 2
        if report.epoch == 1 and shard.rank == 1:
            with torch.no_grad():
                made.nets.detector.logit.weight += 1e-6


def taught(folder: Path, seed: int, *, begins: bool) -> dict[str, Tensor]:
    """Weights after three updates of an adaption in float64.

    Args:
        folder: of the state.
        seed: of the first weights; those of a state that lies in the folder take their place.
        begins: writes the first state alone.
    """
    torch.manual_seed(seed)
    nets = Networks(tiny_config().model).double()
    images = [street(96, ((((5, 10 + k), (90, 70)), 4),)) for k in range(3)]
    config = AdaptConfig(steps=3, batch=WindowShape(side=64, count=4))
    pixels, labels = [image for image, _ in images], [mask.astype(np.uint8) for _, mask in images]
    rule = round_rule(config, nets.config, 0)
    lesson = Lesson(TaughtBatches(config, 0, pixels, labels))
    if begins:
        keep_start(rule, nets, folder, lesson)
        return {}
    return weights_of(train_path(rule, nets, folder, lesson))


def run_rank(rank: int, folder: Path) -> None:
    found: dict[str, Any] = {}
    single = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    if rank == 0:  # the reference, before there is a group
        for name in CASES:
            found[f"one {name}"] = five_steps(name, Shard())
        taught(folder / "one", 7, begins=True)
        shutil.copytree(folder / "one", folder / "both")
        found["one taught"] = taught(folder / "one", 7, begins=False)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=RANKS)
    shard = Shard(rank, RANKS)
    for name in CASES:
        found[f"both {name}"] = five_steps(name, shard)
    found["both taught"] = taught(folder / "both", 8 + rank, begins=False)
    torch.Tensor.float = single  # type: ignore[method-assign]
    found["seeds"] = weights_of(Learner(tiny_config(seed=rank), CPU).nets)
    found["broken"] = broken_on_rank_1(rank)
    found["equal"], found["drifted"] = drifted(rank)
    found["run"] = whole_run(folder, shard, None)
    found["run cut"] = run_cut(folder, shard)
    found["run that drifts"] = message_of(drifting_run, folder, shard)
    found["capped"] = whole_run(folder, shard, 1e-4)
    dist.destroy_process_group()
    if rank == 0:
        found["run alone"] = whole_run(folder, Shard(), None)
    torch.save(found, folder / f"rank{rank}.pt")


# -- laws --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    noise_set(folder, **SET)
    root = Path(__file__).resolve().parents[3]
    paths = os.pathsep.join((str(root), str(root / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env=environment,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = started.wait(900)
        finally:
            end_session(started)
    assert code == 0, (folder / "log").read_text()[-2000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_learn_what_one_learns_from_both_parts(
    ranks: list[dict[str, Any]], case: str
) -> None:
    one, both = (ranks[0][f"{who} {case}"] for who in ("one", "both"))
    start = Learner(tiny_config(), CPU).nets.state_dict()
    moved = {k.partition(".")[0] for k in one if (one[k] - start[k].double()).abs().max() > 1e-3}
    assert "classifier" in moved or case == "detector"
    if CASES[case][0] == "adversarial":
        assert moved == {"classifier", "reconstructor", "detector"}
    for name, value in one.items():
        torch.testing.assert_close(both[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_two_ranks_adapt_a_model_as_one_does_from_the_state_that_rank_0_sees(
    ranks: list[dict[str, Any]],
) -> None:
    one, (both, other) = ranks[0]["one taught"], (found["both taught"] for found in ranks)
    torch.manual_seed(7)
    start = Networks(tiny_config().model).state_dict()
    for part in ("classifier.encoder", "detector"):
        names = [name for name in one if name.startswith(part)]
        assert max((one[name] - start[name].double()).abs().max() for name in names) > 1e-6
        for name in names:
            torch.testing.assert_close(both[name], one[name], rtol=1e-9, atol=1e-12, msg=name)
            assert torch.equal(both[name], other[name])


def test_all_ranks_hold_the_same_weights(ranks: list[dict[str, Any]]) -> None:
    for case in CASES:
        for name, value in ranks[0][f"both {case}"].items():
            assert torch.equal(ranks[1][f"both {case}"][name], value)


def test_every_rank_starts_from_the_weights_of_rank_0(ranks: list[dict[str, Any]]) -> None:
    want = Learner(tiny_config(seed=0), CPU).nets.state_dict()
    for found in ranks:
        assert all(torch.equal(found["seeds"][k], v) for k, v in want.items())


def test_a_loss_that_breaks_on_one_rank_stops_all(ranks: list[dict[str, Any]]) -> None:
    assert all("loss term rec_full is not finite" in found["broken"] for found in ranks)


def test_weights_that_drift_apart_are_named(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["equal"] == ""
        assert found["drifted"].startswith("tensor 1.bias differs between workers")


def test_a_run_whose_weights_drift_apart_stops_at_its_next_epoch_and_names_the_tensor(
    ranks: list[dict[str, Any]],
) -> None:
    for found in ranks:
        message = found["run that drifts"]
        assert message.startswith("tensor detector.logit.weight differs between workers")


def test_metrics_are_those_of_all_ranks(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["run"] == ranks[1]["run"]
    together, alone = ranks[0]["run"][0], ranks[0]["run alone"][0]
    assert together[0] == alone[0]
    for name, value in alone[1].items():
        assert together[1][name] == pytest.approx(value, rel=1e-3, abs=1e-3), name


def test_ranks_that_go_on_within_an_epoch_from_the_state_of_one_end_as_undisturbed(
    ranks: list[dict[str, Any]],
) -> None:
    for found in ranks:
        assert len(found["run"]) == 3
        for (step, cut), (wanted, whole) in zip(found["run cut"], found["run"], strict=True):
            assert (step, cut) == (wanted, pytest.approx(whole, rel=1e-12))


def test_ranks_leave_a_stage_together_when_time_is_up(ranks: list[dict[str, Any]]) -> None:
    steps = [[step for step, _ in found["capped"]] for found in ranks]
    assert steps == [[1, 2, 3]] * 2


def test_without_a_group_there_is_one_rank() -> None:
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.average([1.0, 2.0], CPU) == [1, 2]
    x = torch.ones(2)
    assert distributed.total(x, CPU).tolist() == [1, 1]
    assert distributed.total(x, CPU) is not x


def test_a_digest_tells_any_two_tensors_apart() -> None:
    x = torch.rand(2, 3, 4, 4)
    assert distributed.digest(x) == distributed.digest(x.to(memory_format=torch.channels_last))
    y = x.clone()
    y[1, 2, 3, 3] += 1e-6
    assert distributed.digest(x) != distributed.digest(y)
    assert distributed.digest(torch.tensor(1)) != distributed.digest(torch.tensor(2))


def test_statistics_of_local_batches_are_refused_for_several_workers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="freeze_batchnorm=false with 2 workers"):
        Trainer(tiny_config(freeze_batchnorm=False), noise_set(tmp_path, **SET), shard=Shard(0, 2))


def run_ranks(folder: Path) -> None:
    """Run rank 1 in a fork of the process of rank 0: importing torch takes seconds."""
    other = os.fork()
    run_rank(0 if other else 1, folder)
    if other:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))


if __name__ == "__main__":
    run_ranks(Path(sys.argv[1]))
