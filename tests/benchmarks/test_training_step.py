"""What the lean step leaves out changes nothing: the released step is its reference."""

from __future__ import annotations

import argparse
import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from wpcrack.training.stages import Learner

TINY = (
    "model.width_divisor=16",
    "model.cam_channels=8",
    "model.recon_channels=14",
    "model.decoder_widths=[8,8,8,8,8]",
)


@pytest.fixture
def train_step() -> ModuleType:
    return importlib.import_module("benchmarks.training.step")


def make(train_step: ModuleType, variant: str, *settings: str, drops: bool = False) -> Learner:
    """A tiny learner in float64; without dropout, whose draws follow the order of calls."""
    made: Learner = train_step.make_learner(variant, *TINY, *settings)
    made.nets.double()
    for module in made.nets.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d) and not drops:
            module.p = 0.0
    return made


def doubled(train_step: ModuleType, side: int = 64) -> object:
    batch = train_step.noise(side)
    return replace(batch, **{k: v.double() for k, v in vars(batch).items() if v is not None})


@pytest.mark.parametrize("recompute", ["true", "false"])
def test_the_lean_step_does_what_the_released_one_does(
    train_step: ModuleType, recompute: str
) -> None:
    batch = doubled(train_step)
    released = make(train_step, "released")
    lean = make(train_step, "equal", f"train.recompute={recompute}")
    released._set_learning_rates("adversarial", 0.0)
    reference = train_step.ReleasedStep(released)
    for number in range(2):
        want = reference(batch, number)
        got = lean.step("adversarial", batch, 0.0, number, number)
        assert set(got) == set(want)
        for name in want:
            torch.testing.assert_close(got[name].double(), want[name].double(), msg=name)
    pairs = zip(released.nets.named_parameters(), lean.nets.parameters(), strict=True)
    for (name, a), b in pairs:
        # AdamW, which the detector has, divides its smallest gradients by themselves
        close = 1e-4 if name.startswith("detector") else 1e-9
        torch.testing.assert_close(a, b, rtol=1e-7, atol=close, msg=lambda m, n=name: f"{n}: {m}")


def test_recomputed_paintings_repeat_their_dropout(train_step: ModuleType) -> None:
    batch = doubled(train_step)
    kept, again = (
        make(train_step, "equal", f"train.recompute={value}", drops=True)
        for value in ("false", "true")
    )
    for made in (kept, again):
        made.step("adversarial", batch, 0.0, 0, 0)
    pairs = zip(kept.nets.named_parameters(), again.nets.parameters(), strict=True)
    for (name, a), b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=name)


def test_after_a_step_no_network_holds_gradients_but_the_detector(train_step: ModuleType) -> None:
    made = make(train_step, "equal")
    made.step("adversarial", doubled(train_step), 0.0, 0, 0)
    for network in (made.nets.classifier, made.nets.reconstructor):
        assert all(p.grad is None for p in network.parameters())


def test_bf16_computes_almost_the_same_and_keeps_weights_in_fp32(train_step: ModuleType) -> None:
    batch = train_step.noise(64)
    terms = {}
    for precision in ("fp32", "bf16"):
        made = train_step.make_learner("shared", *TINY, f"train.precision={precision}")
        terms[precision] = made.step("adversarial", batch, 0.0, 0, 0)
        assert all(p.dtype == torch.float32 for p in made.nets.parameters())
    changed = 0.0
    for name, want in terms["fp32"].items():
        got = terms["bf16"][name]
        assert got.dtype == torch.float32, name
        torch.testing.assert_close(got, want, rtol=0.1, atol=0.02, msg=name)
        changed += float((got - want).detach().abs())
    assert changed > 0


@pytest.mark.parametrize("variant", ["released", "equal", "shared", "shared bf16"])
def test_every_variant_is_measured(train_step: ModuleType, variant: str) -> None:
    options = argparse.Namespace(divisor=16, side=32, steps=1)
    assert all(value > 0 for value in train_step.measured(variant, options))


@pytest.mark.slow
def test_each_variant_runs_in_a_process_of_its_own(
    train_step: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--threads", "1", "paper", "--divisor", "16", "--side", "64", "--steps", "1"]
    train_step.main([*small, "--variants", "released", "equal"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["released", "equal"]


def test_the_default_preset_is_measured_stage_by_stage(
    train_step: ModuleType, tmp_path: Path
) -> None:
    tiny = {
        "model": {"encoder": "test_efficientnet", "pretrained": "none"},
        "train": {"batch_size": 2, "epoch_steps": 1, "val_items": 2},
    }
    data = train_step.drawn_set(tmp_path, 128, streets=2, windows=2)
    costs = train_step.default_costs(data, 1, compiled=False, settings=tiny)
    assert [stage for stage, _ in costs] == ["warmup", "adversarial", "detector", "drawn"]
    assert all(cost[0] > 0 and cost[1] > 0 and 0 <= cost[3] <= 1 for _, cost in costs)
