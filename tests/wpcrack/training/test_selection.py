"""The score of an epoch, counted by hand."""

from __future__ import annotations

import pytest
import torch

from wpcrack.config import TrainConfig
from wpcrack.training.selection import AgreementCounter

CPU = torch.device("cpu")


def masks(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.bool).view(len(rows), 1, 2, 5)


def counter() -> AgreementCounter:
    return AgreementCounter(TrainConfig(label_min_share=0.2, false_alarm_weight=10))


DETECTED = masks(
    [1, 1, 1, 0, 0, 0, 0, 0, 0, 0],  # crack, found, 2 of 4 agree
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],  # crack, one pixel of ten: not found
    [1, 1, 0, 0, 0, 0, 0, 0, 0, 0],  # road, false alarm
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],  # road
)
REFINED = masks(
    [0, 1, 1, 1, 0, 0, 0, 0, 0, 0],
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [1, 1, 1, 1, 0, 0, 0, 0, 0, 0],  # a road window's refined CAM does not count
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
)
SEEN = torch.tensor([True, True, True, False])
HAS_CRACK = torch.tensor([True, True, False, False])


def test_the_score_of_four_windows_counted_by_hand() -> None:
    made = counter()
    made.add(DETECTED, REFINED, SEEN, HAS_CRACK)
    got = made.result(CPU)
    assert got.agreement_iou == pytest.approx(3 / 5)
    assert got.image_f1 == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    assert got.road_share == pytest.approx(2 / 20)
    assert got.cam_f1 == pytest.approx(2 * 2 / (2 * 2 + 1 + 0))
    assert got.score == pytest.approx(0.5 * 0.6 + 0.5 * 0.5 - 10 * 0.1)


def test_batches_add_up() -> None:
    whole, parts = counter(), counter()
    whole.add(DETECTED, REFINED, SEEN, HAS_CRACK)
    for k in range(4):
        part = slice(k, k + 1)
        parts.add(DETECTED[part], REFINED[part], SEEN[part], HAS_CRACK[part])
    assert parts.result(CPU) == whole.result(CPU)


def test_the_share_that_counts_as_found_is_included() -> None:
    made = counter()
    made.add(DETECTED[2:3], REFINED[2:3], SEEN[2:3], torch.tensor([True]))  # 2 of 10 = .2
    assert made.result(CPU).image_f1 == 1


def test_nothing_to_count_scores_zero() -> None:
    assert counter().result(CPU).score == 0


def test_a_perfect_detector_scores_one_and_metrics_have_names() -> None:
    made = counter()
    truth = HAS_CRACK.view(-1, 1, 1, 1) & torch.ones(4, 1, 2, 5, dtype=torch.bool)
    made.add(truth, truth, HAS_CRACK, HAS_CRACK)
    assert made.result(CPU).by_name() == {
        "val/score": 1.0,
        "val/agreement_iou": 1.0,
        "val/image_f1": 1.0,
        "val/road_share": 0.0,
        "val/cam_f1": 1.0,
    }
