"""The model that a training starts from looks around windows, and labels them by that."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import TINY_MODEL
from torch import Tensor

from wpcrack.config import MethodConfig
from wpcrack.data.batch import Foreseen
from wpcrack.data.batches import BatchSource, Mined, Shard, validation_batches
from wpcrack.data.images import write_jpeg, write_png
from wpcrack.data.pictures import Images
from wpcrack.data.read import Item
from wpcrack.data.surroundings import Surroundings
from wpcrack.labels.pseudo_label import Opinion, label_batch, say
from wpcrack.model import SHIPPED
from wpcrack.networks import Networks
from wpcrack.synthetic.pavement import draw_alternating
from wpcrack.training.foresight import (
    KEPT_BYTES,
    MODEL_BYTES,
    Foresight,
    find_marked,
    foreseen_bytes,
    warn_of_narrow_windows,
)
from wpcrack.training.stages import Learner
from wpcrack.training.start import REPLACED

SIDE = 64
SIZE = (SIDE, SIDE)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Windows out of the middle of drawn pictures, crack and road by turns."""
    root, made = tmp_path_factory.mktemp("windows"), list[Item]()
    for k, drawn in enumerate(draw_alternating(8, 8, 2 * SIDE)):
        shows = bool(k % 2)
        core = slice(SIDE // 2, SIDE // 2 + SIDE)
        write_png(root / f"{k}.png", np.ascontiguousarray(drawn.image[core, core]))
        write_jpeg(root / f"{k}_around.jpg", drawn.image)
        around = Surroundings(root / f"{k}_around.jpg") if shows else None
        made.append(
            Item(root / f"{k}.png", shows, str(k), 0, 0, SIDE, SIDE, "train", surroundings=around)
        )
    return made


def mark(item: Item) -> np.ndarray | None:
    """A model that sees a bright corner in the first crack window and in no other."""
    if item.path.stem != "1":
        return None
    seen = np.zeros((SIDE, SIDE), np.uint8)
    seen[:8, :16] = 255
    return seen


def test_what_lies_around_a_window_changes_what_is_seen_in_it(items: list[Item]) -> None:
    foresight = Foresight(SHIPPED)
    alone = [replace(item, surroundings=None) for item in items]
    assert all(foresight(item) is None for item in alone)
    seen = [foresight(item) for item in items]
    assert [s is not None for s in seen] == [item.has_crack for item in items]
    assert all(s.shape == (SIDE, SIDE) and s.dtype == np.uint8 for s in seen if s is not None)
    assert max(s.max() for s in seen if s is not None) > 128, "a crack is seen"
    assert foresight(items[1]) is seen[1], "it is asked once"
    there = pickle.loads(pickle.dumps(foresight))
    assert np.array_equal(there(items[1]), seen[1])


def test_a_picture_is_its_own_surroundings_where_windows_are_cut_out_of_it(
    items: list[Item], tmp_path: Path
) -> None:
    drawn = next(d for d in draw_alternating(8, 8, 2 * SIDE) if d.mask.any())
    write_png(tmp_path / "whole.png", drawn.image)
    whole = Item(tmp_path / "whole.png", True, "whole", 0, 0, 2 * SIDE, 2 * SIDE, "train")
    foresight = Foresight(SHIPPED, SIZE)
    seen = foresight(whole)
    assert seen is not None
    assert seen.shape == (2 * SIDE, 2 * SIDE)
    assert Foresight(SHIPPED)(whole) is None
    assert Foresight(SHIPPED, (2 * SIDE, 2 * SIDE))(whole) is None
    assert not foresight.knows(replace(whole, has_crack=False))
    assert not foresight.knows(replace(whole, height=4000, width=3000)), "that takes too long"
    mixed = [whole, *(item for item in items if not item.has_crack)]
    images = Images(mixed)
    assert images.size == SIZE
    found = images.cut(0, np.random.default_rng(3), seen)
    assert found.shape == (SIDE, SIDE, 4)
    rows, cols = np.nonzero((seen == found[0, 0, 3]) & (drawn.image == found[0, 0, :3]).all(2))
    assert any(
        np.array_equal(seen[r : r + SIDE, c : c + SIDE], found[..., 3])
        for r, c in zip(rows, cols, strict=True)
    ), "both are cut at one place"


def test_what_was_seen_is_turned_with_the_window(items: list[Item]) -> None:
    source = BatchSource(Images(items), MethodConfig(), Shard(), foresee=mark)
    found = 0
    for step in range(3):
        batch = source.load(step, 0, 0.0, True)
        seen = batch.foreseen
        assert seen is not None
        assert seen.probability.shape == (len(batch.image), 1, SIDE, SIDE)
        assert set(seen.known.tolist()) <= {0.0, 1.0}
        for known, probability in zip(seen.known, seen.probability, strict=True):
            assert probability.sum() == known * 8 * 16
            if known:
                found += 1
                corners = probability[0, ::56, ::48]  # of the mark, turned and mirrored
                assert corners.numel() > 0
                rows, cols = (probability[0].amax(axis).nonzero() for axis in (1, 0))
                assert sorted((len(rows), len(cols))) == [8, 16]
                assert rows.min() == 0 or rows.max() == SIDE - 1
                assert cols.min() == 0 or cols.max() == SIDE - 1
    assert found > 0
    plain = source.load(0, 0, 0.0)
    assert plain.foreseen is None
    assert torch.equal(plain.image, source.load(0, 0, 0.0, True).image)


def test_it_stays_with_its_image_in_pieces_and_on_another_device(items: list[Item]) -> None:
    source = BatchSource(Images(items), MethodConfig(), Shard(), foresee=mark)
    batch = source.load(0, 0, 0.25, True)
    assert batch.foreseen is not None
    pieces = [piece.foreseen for piece in batch.pieces(3)]
    assert torch.equal(torch.cat([p.known for p in pieces if p]), batch.foreseen.known)
    moved = batch.each(lambda tensor: tensor.to("meta"))
    assert moved.foreseen is not None
    assert moved.foreseen.probability.device.type == "meta"
    assert batch.exact is not None
    assert not (batch.foreseen.known * batch.exact.drawn).any(), "drawn images were not foreseen"


def test_validation_sees_it_too(items: list[Item]) -> None:
    images = Images(items)
    seen = [foreseen for *_, foreseen in validation_batches(images, 3, Shard(), mark)]
    assert torch.cat([s.known for s in seen if s]).tolist() == [float(i == 1) for i in range(8)]
    assert all(s is None for *_, s in validation_batches(images, 3, Shard()))


def opinion_of(value: float, asked: list[int]) -> Opinion:
    def of(image: Tensor) -> Tensor:
        asked.append(len(image))
        return torch.full((len(image), 1, *image.shape[2:]), value)

    return Opinion(of, 0.7)


def test_a_detector_says_what_was_not_foreseen() -> None:
    image, asked = torch.zeros(2, 3, 4, 4), list[int]()
    opinion = opinion_of(0.25, asked)
    seen = torch.full((2, 1, 4, 4), 0.75)
    half = say(opinion, image, Foreseen(torch.tensor([1.0, 0.0]), seen))
    assert half[:, 0, 0, 0].tolist() == [0.75, 0.25]
    assert say(opinion, image, None).unique().tolist() == [0.25]
    assert asked == [2, 2]
    assert say(opinion, image, Foreseen(torch.ones(2), seen)) is seen
    assert asked == [2, 2], "all were foreseen"


@pytest.mark.parametrize(("level", "crack", "counts"), [(1.0, 1.0, 1.0), (0.0, 0.0, 1.0)])
def test_labels_follow_what_was_foreseen(
    level: float, crack: float, counts: float, items: list[Item]
) -> None:
    config, asked = MethodConfig(model=TINY_MODEL), list[int]()

    def see(item: Item) -> np.ndarray | None:
        return np.full((SIDE, SIDE), 255 * level, np.uint8) if item.has_crack else None

    batch = BatchSource(Images(items), config, Shard(), foresee=see).load(0, 0, 0.0, True)
    own = {key: getattr(config.pseudo_label, other) for key, other in REPLACED.items()}
    rule = config.pseudo_label.model_copy(update=own)
    teacher = Networks(config.model).classifier.eval()
    label = label_batch(teacher, batch, rule, "sigmoid", opinion=opinion_of(1 - level, asked))
    shown = batch.has_crack > 0
    assert label.target[shown].unique().tolist() == [crack]
    assert label.weight[shown].unique().tolist() == [counts]
    assert not label.target[~shown].any()
    assert asked == [], "the averaged detector is not asked"


def test_only_a_training_from_a_model_looks_around(items: list[Item]) -> None:
    config, cpu = MethodConfig(), torch.device("cpu")
    learner = Learner(config, cpu)
    assert learner.foresight(items, SIZE) is not None
    assert learner.foresight([replace(item, surroundings=None) for item in items], SIZE) is None
    rule = config.pseudo_label
    for label in (
        rule.model_copy(update={"look_around": False}),
        rule.model_copy(update={"self_training": 0.0}),
        rule.model_copy(update={"trained_detector": 0.0}),
    ):
        learner.config = config.model_copy(update={"pseudo_label": label})
        assert learner.foresight(items, SIZE) is None
    learner.config = config
    learner.start = replace(learner.start, folder=None)
    assert learner.foresight(items, SIZE) is None


def test_what_it_holds_in_memory_is_known_before(items: list[Item]) -> None:
    assert foreseen_bytes(items, SIZE) == MODEL_BYTES + 4 * SIDE * SIDE, "a byte per crack pixel"
    assert foreseen_bytes(items * 50_000, SIZE) == MODEL_BYTES + KEPT_BYTES
    assert foreseen_bytes([replace(item, surroundings=None) for item in items], SIZE) == 0


def test_narrow_windows_without_surroundings_are_warned_of(
    items: list[Item], tmp_path: Path
) -> None:
    assert warn_of_narrow_windows(items) == ()
    alone = [replace(item, surroundings=None) for item in items]
    (text,) = warn_of_narrow_windows(alone)
    assert "4 of 4 crack windows are below 256 px" in text
    assert warn_of_narrow_windows([replace(i, height=256, width=300) for i in alone]) == ()


def test_windows_that_a_model_marks_wrongly_are_found(items: list[Item]) -> None:
    every = find_marked(SHIPPED, items, 0.0)
    assert every == tuple(k for k, item in enumerate(items) if not item.has_crack)
    marked = [replace(item, has_crack=False) for item in items]  # those with a crack, too
    found = find_marked(SHIPPED, marked, 0.002)
    assert 0 < len(found) < len(items)
    assert set(found) & {1, 3, 5, 7}, "cracks"


def test_mined_windows_take_their_share_of_the_road_images(items: list[Item]) -> None:
    mined = Mined((2,), 0.5)
    config = MethodConfig.model_validate({"train": {"batch_size": 8}})
    source = BatchSource(Images(items), config, Shard(), mined=mined)
    sampler = source.sampler
    for step in range(4):
        plain, taken = sampler.batch(step), sampler.batch(step, mined)
        assert plain[::2] == taken[::2], "crack images stay"
        roads = [item for item, _ in taken[1::2]]
        assert roads.count(2) >= 2
        assert [a == b for a, b in zip(plain[1::2], taken[1::2], strict=True)].count(False) == 2
    passes = [turn for step in range(4) for k, turn in sampler.batch(step, mined) if turn > 99]
    assert len(set(passes)) == len(passes) == 8, "each is changed in another way"
    assert torch.equal(source.load(1, 0).image, BatchSource(*bare(items, config)).load(1, 0).image)
    assert not torch.equal(source.load(1, 0, taught=True).image, source.load(1, 0).image)
    assert sampler.batch(0, Mined((), 0.5)) == sampler.batch(0), "none is marked"


def bare(items: list[Item], config: MethodConfig) -> tuple[Images, MethodConfig, Shard]:
    return Images(items), config, Shard()
