"""A batch in pieces gives the update of the whole batch, in every stage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from factories import in_float64, tiny_batch, tiny_config, tiny_learner, weights_of
from torch import Tensor

from wpcrack.config import MethodConfig
from wpcrack.data.batch import Batch
from wpcrack.data.batches import Shard
from wpcrack.errors import ConfigError
from wpcrack.training.stages import STAGES, Learner
from wpcrack.training.trainer import require_common_statistics

LABELS = ([1, 0, 1, 0, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0], [0] * 8)
"""Of three steps; pieces without any crack image are among them."""
CASES = [
    *((stage, {}) for stage in STAGES),
    ("adversarial", {"schedule": "fresh"}),
    ("adversarial", {"schedule": "fresh", "recompute": True}),
    ("adversarial", {"joint_after": 0, "joint_every": 1, "epoch_steps": 1}),
    ("detector", {"joint": False}),
    ("detector", {"channels_last": False}),
]


@pytest.fixture(autouse=True)
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Losses are computed in float32 on purpose; here nothing is rounded."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    return


def config(**train: object) -> MethodConfig:
    return tiny_config(**{"batch_size": 8, **train})


def batch_of(step: int) -> Batch:
    return in_float64(tiny_batch(LABELS[step], seed=step, side=32))


def learned(stage: str, **train: object) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Weights and terms after three steps in float64."""
    made = tiny_learner(config(**train))
    made.nets.double()
    made.teacher.double()
    terms = [
        {k: float(v) for k, v in made.step(stage, batch_of(k), 0.5, k + 1, k + 1).items()}
        for k in range(3)
    ]
    return weights_of(made.nets), terms


@pytest.mark.parametrize(("stage", "train"), CASES)
def test_pieces_add_up_to_the_update_of_the_whole_batch(
    stage: str, train: dict[str, object]
) -> None:
    whole, whole_terms = learned(stage, **train)
    start = Learner(config(**train), torch.device("cpu")).nets.state_dict()
    assert max((whole[k] - start[k].double()).abs().max() for k in whole) > 1e-3
    for pieces in (3,) if train else (2, 8):
        found, terms = learned(stage, accumulate=pieces, **train)
        for name, value in whole.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=name)
        for a, b in zip(terms, whole_terms, strict=True):
            assert a == pytest.approx(b, rel=1e-9, abs=1e-12)


def test_pieces_are_parts_of_the_batch_that_are_divided_by_its_counts() -> None:
    batch = batch_of(0)
    parts = batch.pieces(3)
    assert [len(p.image) for p in parts] == [3, 3, 2]
    assert torch.equal(torch.cat([p.has_crack for p in parts]), batch.has_crack)
    assert all((p.images, p.cracks) == (batch.images, batch.cracks) for p in parts)


def test_statistics_of_a_piece_are_refused() -> None:
    moving = config(freeze_batchnorm=False, accumulate=2)
    with pytest.raises(ConfigError, match=r"freeze_batchnorm=false with train\.accumulate=2"):
        require_common_statistics(moving, Shard())
    require_common_statistics(config(freeze_batchnorm=False), Shard())
    released = {"model": {"detector": "released"}, "train": {"accumulate": 2}}
    with pytest.raises(ConfigError, match="detector=released normalizes over the whole batch"):
        require_common_statistics(MethodConfig.model_validate(released), Shard())
