"""Compiled encoders compute the same; without a compiler the training goes on without."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from factories import noise_set, tiny_config, weights_of
from torch import Tensor

from wpcrack.config import MethodConfig
from wpcrack.data.read import ImageLevelSet
from wpcrack.networks.encoder import compile_encoders
from wpcrack.training import trainer
from wpcrack.training.trainer import Trainer


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageLevelSet:
    return noise_set(tmp_path_factory.mktemp("windows"), train=4, val=4, side=32)


def config(**settings: object) -> MethodConfig:
    steps = {"warmup": 2, "adversarial": 2, "detector": 2}
    return tiny_config(steps=steps, val_items=4, **settings)


def learned(data: ImageLevelSet, **settings: object) -> tuple[Trainer, dict[str, Tensor]]:
    made = Trainer(config(**settings), data)
    list(made.epochs())
    return made, weights_of(made.nets)


@pytest.fixture(scope="module")
def wanted(data: ImageLevelSet) -> dict[str, Tensor]:
    """What is learned without a compiler."""
    return learned(data)[1]


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor], close: float) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=close, msg=name)


def test_compiled_encoders_learn_the_same(
    data: ImageLevelSet, wanted: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = partial(compile_encoders, backend="aot_eager")
    monkeypatch.setattr(trainer, "compile_encoders", eager)
    made, found = learned(data, compile=True)
    assert made.warnings == ()
    assert_same(found, wanted, 1e-4)


def broken_compiler(*_: Any) -> None:
    raise RuntimeError("no C++ compiler\nand a long story")


def test_without_a_compiler_one_warning_is_all_that_changes(
    data: ImageLevelSet, wanted: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = partial(compile_encoders, backend=broken_compiler)
    monkeypatch.setattr(trainer, "compile_encoders", broken)
    made, found = learned(data, compile=True)
    (warning,) = made.warnings
    assert "train.compile=true has no effect" in warning
    assert "\n" not in warning
    assert_same(found, wanted, 0)


def test_trying_out_changes_no_weight_statistic_gradient_or_draw(data: ImageLevelSet) -> None:
    made = Trainer(config(freeze_batchnorm=False), data)
    made.nets.train()
    before, state = weights_of(made.nets), torch.get_rng_state()
    encoders = made.nets.classifier.encoder, made.nets.reconstructor.encoder
    assert compile_encoders(encoders, (4, 3, 32, 32), "aot_eager") is None
    assert_same(made.nets.state_dict(), before, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in made.nets.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_default_compiler_learns_the_same(
    data: ImageLevelSet, wanted: dict[str, Tensor]
) -> None:
    _, found = learned(data, compile=True)  # with a warning where there is no compiler
    assert_same(found, wanted, 5e-3)  # a gradient near 0 may become an update of either sign
