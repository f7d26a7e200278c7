"""The dense CRF: its unary rule, its kernels, its processes, and runs without the extra."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
import torch
from factories import tiny_config
from numpy.typing import NDArray

from wpcrack.errors import ConfigError, TrainingError
from wpcrack.label_config import CrfConfig, PseudoLabelConfig
from wpcrack.labels.dense_crf import dense_crf, dense_crf_batch, pool
from wpcrack.labels.pseudo_label import pseudo_label, refine
from wpcrack.training.stages import Learner

installed = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None, reason="needs the extra crf (pydensecrf2)"
)
UNARY_ONLY = {"near_weight": 0.0, "color_weight": 0.0}
RULE = PseudoLabelConfig(refiners=("crf",), cam_crack=0.5, cam_road=0.5)


def drawn() -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
    """A dark line of 4 pixels, a map that is 20 pixels wide around it, and the line."""
    rng = np.random.default_rng(0)
    line = np.zeros((48, 64), bool)
    line[22:26] = True
    gray = np.where(line, 40, 170) + rng.normal(0, 3, line.shape)
    crack_map = np.zeros(line.shape, np.float32)
    crack_map[14:34] = 0.6
    return np.repeat(gray.astype(np.uint8)[..., None], 3, 2), crack_map, line


@installed
@pytest.mark.parametrize("alpha", [0.5, 1.0, 6.0])
def test_without_kernels_a_pixel_is_crack_where_its_unary_says_so(alpha: float) -> None:
    image, _, _ = drawn()
    crack_map = np.random.default_rng(1).random(image.shape[:2], np.float32)
    found = dense_crf(image, crack_map, CrfConfig(alpha=alpha, **UNARY_ONLY))
    np.testing.assert_array_equal(found, crack_map > (1 - crack_map) ** alpha)


@installed
def test_a_wide_map_shrinks_to_the_dark_line_inside_it() -> None:
    image, crack_map, line = drawn()
    found = dense_crf(image, crack_map, CrfConfig(alpha=1.0))
    assert (found & line).sum() / (found | line).sum() > 0.8


@installed
def test_the_released_alpha_finds_no_more_than_the_mended_one() -> None:
    image, crack_map, _ = drawn()
    released = dense_crf(image, crack_map * 0.8, CrfConfig(alpha=0.5))
    mended = dense_crf(image, crack_map * 0.8, CrfConfig(alpha=6.0))
    assert not (released & ~mended).any()
    assert mended.sum() > released.sum()


@installed
def test_the_pool_gives_the_same_in_the_same_order() -> None:
    image, crack_map, _ = drawn()
    images = [image, image[::-1].copy(), image]
    maps = [crack_map, crack_map, crack_map[:, ::-1] * 0]
    alone = [dense_crf(i, m, CrfConfig()) for i, m in zip(images, maps, strict=True)]
    pooled = dense_crf_batch(images, maps, CrfConfig(), 2)
    for a, b in zip(alone, pooled, strict=True):
        np.testing.assert_array_equal(a, b)


@installed
def test_refined_labels_ignore_nothing_and_road_stays_empty() -> None:
    image, crack_map, _ = drawn()
    images = torch.from_numpy(image).permute(2, 0, 1)[None].float().repeat(2, 1, 1, 1) / 255
    maps = torch.from_numpy(np.stack([crack_map, crack_map * 0]))[:, None]
    refined = refine(images, maps, RULE)
    assert set(refined.unique().tolist()) == {0.0, 1.0}
    assert not refined[1].any()
    label = pseudo_label(refined, torch.tensor([1.0, 0.0]), RULE)
    assert label.weight.min() == 1


@installed
def test_a_killed_process_is_an_error_and_the_next_batch_works() -> None:
    image, crack_map, _ = drawn()
    pool(2).submit(os._exit, 9).exception()
    with pytest.raises(TrainingError, match=r"crf\.processes=1"):
        dense_crf_batch([image] * 2, [crack_map] * 2, CrfConfig(), 2)
    assert len(dense_crf_batch([image] * 2, [crack_map] * 2, CrfConfig(), 2)) == 2


def test_without_the_extra_a_run_is_refused_before_it_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wpcrack.labels.dense_crf.PACKAGE", "package_that_nobody_has")
    config = tiny_config().model_copy(update={"pseudo_label": RULE})
    with pytest.raises(ConfigError, match=r"pip install 'wpcrack\[crf\]'"):
        Learner(config, torch.device("cpu"))
    with pytest.raises(ConfigError, match="not installed"):
        refine(torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8), RULE)
