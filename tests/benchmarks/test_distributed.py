"""The benchmark of data-parallel training works and computes what it says."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

from wpcrack.training.stages import STAGES


@pytest.fixture
def benchmark() -> ModuleType:
    return importlib.import_module("benchmarks.training.distributed")


def test_a_training_takes_its_stages_by_their_default_steps(benchmark: ModuleType) -> None:
    cost = benchmark.Cost(step_s=dict.fromkeys(STAGES, 2.0))
    steps = benchmark.StageSteps()
    assert cost.seconds() == 2 * (steps.warmup + steps.adversarial + steps.detector)


def test_the_estimate_is_the_ring_formula(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.extrapolate({"some": dict.fromkeys(STAGES, 32e6)})
    lines = [line for line in capsys.readouterr().out.splitlines() if "PCIe" in line]
    assert len(lines) == 3
    assert [float(value) for value in lines[0].split()[-3:]] == [32.0, 1.75, 33.25]
    assert set(benchmark.paper_bytes()) == set(STAGES)


@pytest.mark.slow
def test_everything_but_ray_is_measured_on_tiny_networks(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "on_ray", lambda o, folder: benchmark.measure(o, folder, 1))
    benchmark.main(["--quick"])
    text = capsys.readouterr().out
    assert "two workers / one, images/s" in text
    assert "share of averaging and waiting" in text
    for side in (96, 128):
        assert f"\n{side:6}" in text
    assert text.count("25 GbE") == 6
