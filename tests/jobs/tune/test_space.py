"""The search space of a sweep is checked before anything starts; samplers keep to it."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from factories import TINY_MODEL, image_level_set, tiny_model, tiny_training
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.settings.fields import key_names
from jobs.settings.load import load, shipped_configs
from jobs.tune.folder import Trial
from jobs.tune.job import AshaConfig, Dimension, Space, TuneJob, read_space
from jobs.tune.plan import _rungs, plan_sweep
from jobs.tune.results import importances
from jobs.tune.sampler import PastTrial, Tpe, make_sampler
from jobs.tune.starts import find_judged_stages
from jobs.tune.sweep import Halving
from wpcrack.errors import ConfigError, DataError

TUNE_YAML = next(path for path in shipped_configs() if path.stem == "tune")


def job(space: dict[str, Any], **tune: Any) -> TuneJob:
    return TuneJob.model_validate(
        {"data": {"root": "set"}, "run_dir": "run", "tune": {"space": space, **tune}}
    )


def space(entries: dict[str, Any]) -> Space:
    return read_space(job(entries))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "tune.space is empty"),
        ({"optim.haed_lr": {"choice": [1]}}, r"unknown key optim\.haed_lr; did you mean optim"),
        ({"optin.head_lr": {"uniform": [0.1, 0.2]}}, r"unknown key optin\.head_lr; did you mean"),
        ({"optim.head_lr": {"choice": [1e-3, "high"]}}, r"head_lr is 'high', but must be a val"),
        ({"optim.head_lr": {"uniform": [0, 0.1]}}, r"head_lr is 0, but must be greater than 0"),
        ({"erase.grid": {"uniform": [8, 32]}}, r"grid is 17\.168, but must be a valid integer"),
        ({"erase.grid": {"randint": [8, 100]}}, r"grid is 100, but must be less than"),
        ({"model.paam.kernel_length": {"randint": [3, 9]}}, r"kernel_length: 4 has no center"),
        ({"pseudo_label.refiners": {"choice": [["darknes"]]}}, r"refiners\[0\] is 'darknes'"),
        ({"seed": {"grid": [1, 2]}}, r"tune\.space\.seed.*write one of choice"),
        ({"seed": {"choice": []}}, r"write choice: \[value"),
        ({"seed": {"choice": 3}}, r"write choice: \[value"),
        ({"seed": 3}, r"tune\.space\.seed is 3; write one of"),
        ({"losses.rec_full": {"uniform": [2, 1]}}, r"give two numbers \[low, high\]"),
        ({"losses.rec_full": {"uniform": [0, float("inf")]}}, r"give two numbers"),
        ({"losses.rec_full": {"loguniform": [0, 1]}}, r"loguniform needs low > 0"),
        ({"losses.rec_full": {"uniform": [0, 1], "step": 2}}, r"step is 2"),
        ({"losses.rec_full": {"uniform": [0, 1], "step": 1e-12}}, r"1e\+12 values.*larger step"),
        ({"seed": {"randint": [0, 10**400]}}, r"give two numbers"),
        ({"train.batch_size": {"randint": [2, 8.5]}}, r"randint takes whole numbers"),
        ({"run_dir": {"choice": ["a", "b"]}}, r"run_dir is the same for all trials"),
        ({"scaling.num_workers": {"choice": [1, 2]}}, r"is the same for all trials"),
        ({"data.val_fraction": {"uniform": [0.1, 0.4]}}, r"is the same for all trials"),
        ({"train.false_alarm_weight": {"uniform": [0, 9]}}, r"is the same for all trials"),
    ],
)  # fmt: skip
def test_a_wrong_space_is_one_sentence_that_names_the_key(
    entries: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        space(entries)
    assert "\n" not in str(caught.value)


def test_the_shipped_space_covers_the_method_and_every_sweep_setting_is_written_out() -> None:
    shipped = load(TuneJob, TUNE_YAML, ["data.root=d", "run_dir=r"])
    keys = read_space(shipped).keys
    for part in ("model.paam.", "losses.ceccm", "losses.cls", "erase.", "optim.", "pseudo_label."):
        assert any(key.startswith(part) for key in keys), part
    text = TUNE_YAML.read_text("utf-8")
    for key in key_names(TuneJob):
        if key.startswith("tune."):
            assert f"{key.rpartition('.')[2]}:" in text, key


def test_overrides_change_and_remove_single_keys_of_the_space() -> None:
    given = ["tune.space.erase.grid=null", "tune.space.optim.head_lr={choice: [1e-3]}"]
    changed = load(TuneJob, TUNE_YAML, ["data.root=d", "run_dir=r", *given])
    by_key = {d.key: d for d in read_space(changed).dimensions}
    assert "erase.grid" not in by_key
    assert by_key["optim.head_lr"].values == (1e-3,)


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid"])
def test_the_first_trial_has_the_defaults(sampler: str) -> None:
    made = job({"erase.grid": {"choice": [8, 16]}}, sampler=sampler)
    suggest, _ = make_sampler(made, read_space(made))
    assert suggest(0, []) == {"erase.grid": 16}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_suggestions_repeat_for_one_seed_lie_in_range_and_go_together(sampler: str) -> None:
    entries = {
        "pseudo_label.cam_crack": {"uniform": [0.1, 0.6]},
        "pseudo_label.cam_road": {"uniform": [0.1, 0.6]},
        "optim.head_lr": {"loguniform": [1e-4, 1e-2]},
        "erase.grid": {"randint": [4, 20], "step": 4},
        "pseudo_label.refiners": {"choice": [["darkness"], ["darkness", "par"]]},
    }
    made = job(entries, sampler=sampler, startup=2, trials=8)
    read = read_space(made)
    runs = []
    for _ in range(2):
        suggest, total = make_sampler(made, read)
        told: list[PastTrial] = []
        for number in range(total):
            params = suggest(number, told)
            assert params is not None
            assert read.allows(params)
            status = ("finished", "stopped", "failed", "running")[number % 4]
            told.append(PastTrial(params, status, [0.1 * number, float("nan")]))  # type: ignore[arg-type]
        runs.append([t.params for t in told])
    assert runs[0] == runs[1]
    for params in runs[0][1:]:
        assert all(d.holds(params[d.key]) for d in read.dimensions)
        assert params["pseudo_label.cam_road"] <= params["pseudo_label.cam_crack"]
        assert isinstance(params["erase.grid"], int)
    assert len({str(p) for p in runs[0]}) == 8


@settings(deadline=None)
@given(st.integers(-50, 50), st.integers(1, 300), st.integers(1, 70), st.sampled_from((1, 0.1, 3)))
def test_a_stepped_range_is_its_list_of_values(low: int, span: int, step: int, unit: float) -> None:
    kind: Literal["randint", "uniform"] = "uniform" if unit == 0.1 else "randint"
    made = Dimension("a", kind, (), low * unit, (low + span) * unit, min(step, span) * unit)
    whole = range(low, low + span + 1, min(step, span))
    listed = made.list_values()
    assert listed == tuple(round(k * unit, 12) for k in whole)
    assert made.count == len(whole)
    drawn = made.draw(np.random.default_rng(span))
    assert drawn == listed[int(np.random.default_rng(span).integers(len(whole)))]
    values = np.linspace((low - 2) * unit, (low + span + 2) * unit, 40).tolist()
    for value in (*values, *listed):
        assert made.holds(value) == (value in listed)
        away = np.abs(value - np.array(listed))
        assert away[made.number(value)] == pytest.approx(away.min(), abs=1e-9)
    assert not made.holds(None)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_range_of_billions_of_values_is_never_listed(sampler: str) -> None:
    """Its list takes a hundred times the memory that numpy and Optuna may take here."""
    entries = {
        "seed": {"randint": [0, 2**31 - 1]},
        "losses.rec_full": {"uniform": [0, 1], "step": 1e-9},
    }
    made = job(entries, sampler=sampler, startup=2, trials=6)
    told: list[PastTrial] = []
    tracemalloc.start()
    try:
        suggest, total = make_sampler(made, read_space(made))
        for number in range(total):
            params = suggest(number, told)
            assert params is not None
            assert all(d.holds(params[d.key]) for d in read_space(made).dimensions)
            told.append(PastTrial(params, "finished", [0.1 * number]))
        assert tracemalloc.get_traced_memory()[1] < 1e9
    finally:
        tracemalloc.stop()
    assert len({str(trial.params) for trial in told}) == 6


def test_tpe_learns_where_scores_are_high() -> None:
    read = space({"losses.rec_full": {"uniform": [0.0, 1.0]}, "erase.grid": {"choice": [8, 16]}})
    sampler, told = Tpe(read, seed=0, startup=8), []
    for number in range(30):
        params = sampler(number, told)
        score = -abs(params["losses.rec_full"] - 0.8) - 0.3 * (params["erase.grid"] == 16)
        told.append(PastTrial(params, "finished", [score]))
    late = [t.params for t in told[20:]]
    assert np.mean([abs(p["losses.rec_full"] - 0.8) for p in late]) < 0.15
    assert Counter(p["erase.grid"] for p in late)[8] >= 8


def test_a_space_without_settings_that_go_together_is_refused() -> None:
    impossible = {
        "pseudo_label.cam_crack": {"uniform": [0.2, 0.3]},
        "pseudo_label.cam_road": {"uniform": [0.4, 0.5]},
    }
    suggest, _ = make_sampler(job(impossible, sampler="random"), space(impossible))
    with pytest.raises(ConfigError, match="no settings that go together"):
        suggest(1, [])


def test_a_grid_has_every_combination_once_the_defaults_first() -> None:
    entries = {
        "pseudo_label.cam_crack": {"choice": [0.3, 0.5]},
        "pseudo_label.cam_road": {"uniform": [0.2, 0.4], "step": 0.1},
    }
    made = job(entries, sampler="grid")
    suggest, total = make_sampler(made, read_space(made))
    found = [suggest(number, []) for number in range(total)]
    assert suggest(total, []) is None
    pairs = [(p["pseudo_label.cam_crack"], p["pseudo_label.cam_road"]) for p in found if p]
    assert pairs == [(0.5, 0.2), (0.3, 0.2), (0.3, 0.3), (0.5, 0.3), (0.5, 0.4)]


@pytest.mark.parametrize(
    ("entry", "trials", "message"),
    [
        ({"uniform": [0.1, 0.2]}, None, r"cannot list losses\.rec_full"),
        (
            {"uniform": [0, 1], "step": 1e-9},
            None,
            "1000000001 combinations.* at most 100000 trials",
        ),
        ({"choice": [0.1, 0.2]}, 100_001, "trials is 100001; a sweep has at most 100000"),
        ({"choice": [0.1, 0.2, 0.3]}, 2, "3 combinations and tune.trials is 2"),
    ],
)
def test_a_grid_that_cannot_be_run_whole_is_refused(
    entry: dict[str, Any], trials: int | None, message: str
) -> None:
    made = job({"losses.rec_full": entry}, sampler="grid", trials=trials)
    with pytest.raises(ConfigError, match=message):
        make_sampler(made, read_space(made))


def epoch(number: int, score: float, stage: str = "detector") -> dict[str, Any]:
    return {"epoch": number, "stage": stage, "val/score": score}


def test_asha_stops_the_weaker_half_after_its_grace_but_never_the_defaults() -> None:
    halving = Halving(AshaConfig(grace=2, factor=2))
    assert not any(halving.stops(1, epoch(k, 0.9)) for k in range(3))
    assert not any(halving.stops(2, epoch(k, 0.1, "warmup")) for k in range(9))
    assert not halving.stops(2, epoch(9, 0.1))  # within its grace
    assert not halving.stops(2, epoch(9, 0.1))  # told again after a restart
    assert halving.stops(2, epoch(10, 0.1))
    assert not any(halving.stops(0, epoch(k, 0.0)) for k in range(5))
    off = Halving(AshaConfig(enabled=False))
    assert not any(off.stops(n, epoch(k, -n)) for n in range(5) for k in range(5))


def test_a_trial_from_a_model_is_not_stopped_by_epochs_that_cannot_be_its_best(
    tmp_path: Path,
) -> None:
    """Before its own stage the detector is judged beside encoders that left it behind."""
    steps = {"warmup": 1, "adversarial": 4, "detector": 3}

    def judged(init: object) -> tuple[str, ...]:
        tune = {"space": {"losses.cls_crack": {"choice": [0.1]}}}
        values = tiny_training(tmp_path, tmp_path, train={"steps": steps}, tune=tune)
        sweep = TuneJob.model_validate({**values, "model": {**TINY_MODEL, "init": init}})
        return find_judged_stages(sweep, read_space(sweep))

    assert judged("imagenet") == ("adversarial", "detector")
    stages = judged(tiny_model(tmp_path / "run" / "model").parent)
    assert stages == ("detector",)
    halving = Halving(AshaConfig(grace=1), stages)
    for number, score in ((1, 0.9), (2, 0.1)):
        assert not any(halving.stops(number, epoch(k, score, "adversarial")) for k in range(4))
    assert not halving.stops(1, epoch(4, 0.9))
    assert halving.stops(2, epoch(4, 0.1))


def test_a_factor_whose_steps_would_not_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"greater than or equal to 1\.1"):
        AshaConfig(factor=1.000001)


def test_a_grace_longer_than_any_trial_stops_none() -> None:
    halving = Halving(AshaConfig(grace=10**9))
    assert not any(halving.stops(n, epoch(k, -n)) for n in range(5) for k in range(5))


def test_a_trial_that_ran_to_its_end_was_not_stopped() -> None:
    halving, judged = Halving(AshaConfig(grace=2, factor=1.5)), 5
    stops = []
    for number in range(1, 9):
        for k in range(judged):
            score = 0.5 if k < judged - 1 else 1 - 0.1 * number
            line = {**epoch(k, score), "train/progress": (k + 1) / judged}
            stops.append(halving.stops(number, line))
    assert not any(stops)


@pytest.mark.parametrize(
    ("asha", "judged", "checks"),
    [
        ({}, 6, [3]),
        ({}, 7, [3, 6]),
        ({"grace": 2, "factor": 1.5}, 5, [2, 3]),  # not at 4.5, which is the fifth and last
        ({"grace": 1, "factor": 1.3}, 4, [1, 2, 3]),
        ({"grace": 5}, 5, []),
        ({"enabled": False}, 9, []),
    ],
)
def test_the_plan_names_the_epochs_at_which_trials_are_stopped(
    asha: dict[str, Any], judged: int, checks: list[int]
) -> None:
    config = AshaConfig(**asha)
    assert _rungs(config, judged) == checks
    stopped = set()
    for end in range(1, judged + 1):  # a weak trial from its epoch `end` on, after good ones
        halving = Halving(config)
        for number in range(9):
            for k in range(judged):
                is_weak = number == 8 and k + 1 >= end
                line = {**epoch(k, 0.1 if is_weak else 0.9), "train/progress": (k + 1) / judged}
                if halving.stops(number, line):
                    stopped.add(k + 1)
    assert sorted(stopped) == checks


def test_asha_judges_by_masked_iou_where_there_is_one() -> None:
    halving = Halving(AshaConfig(grace=1))
    halving.stops(1, {**epoch(0, 0.1), "val/iou": 0.8})
    assert halving.stops(2, {**epoch(0, 0.9), "val/iou": 0.2})


def trial(number: int, params: dict[str, Any], score: float, status: Any = "finished") -> Trial:
    return Trial(number, params, status, ({**epoch(0, score), "seconds": 1.0},))


def test_importance_finds_the_setting_that_matters_and_owns_to_chance() -> None:
    rng = np.random.default_rng(1)
    dimensions = [Dimension("a", "uniform", (), 0, 1), Dimension("b", "choice", ("x", "y"))]
    dimensions.append(Dimension("c", "uniform", (), 0, 1))
    trials = []
    for number in range(20):
        params = {"a": rng.random(), "b": "xy"[number % 2], "c": rng.random()}
        trials.append(trial(number, params, -params["a"]))
    first, *others = importances(dimensions, trials)
    assert (first.key, first.sign) == ("a", -1)
    assert first.strength == pytest.approx(1.0)
    assert first.is_clear
    assert not any(one.is_clear for one in others)
    assert importances(dimensions, trials[:4]) == []


def test_importance_of_a_choice_needs_no_order() -> None:
    dimension = Dimension("b", "choice", (["x"], ["y"], ["z"]))
    scores = {"x": 0.1, "y": 0.9, "z": 0.2}
    trials = [trial(n, {"b": ["xyz"[n % 3]]}, scores["xyz"[n % 3]]) for n in range(12)]
    (one,) = importances([dimension], trials)
    assert (one.sign, one.strength) == (0, pytest.approx(1.0))
    assert one.is_clear


def test_the_plan_of_the_shipped_sweep_reads_its_data_and_refuses_a_missing_folder(
    tmp_path: Path,
) -> None:
    root = image_level_set(tmp_path / "set")
    plan = plan_sweep(load(TuneJob, TUNE_YAML, [f"data.root={root}", f"run_dir={tmp_path}/s"]))
    assert plan.text().startswith("20 trials (tpe), trial 0 with the defaults")
    assert "warning: only 8 crack items" in plan.text()
    assert (plan.values()["trials"], plan.values()["sampler"]) == (20, "tpe")
    assert not (tmp_path / "s").exists()
    with pytest.raises(DataError, match="nowhere is not a folder"):
        plan_sweep(load(TuneJob, TUNE_YAML, ["data.root=nowhere", f"run_dir={tmp_path}/s"]))
