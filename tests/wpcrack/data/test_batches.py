"""Batches: balanced, seeded, shared by ranks without overlap, read ahead without leftovers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wpcrack.config import MethodConfig
from wpcrack.data.batches import (
    BatchSource,
    Sample,
    Sampler,
    Shard,
    validation_batches,
    validation_part,
)
from wpcrack.data.pictures import Images, reflect_to
from wpcrack.data.read import Item
from wpcrack.errors import ConfigError, DataError, TrainingError

HEIGHT, WIDTH = 32, 48


def item(path: Path, has_crack: bool, height: int = HEIGHT, width: int = WIDTH) -> Item:
    return Item(path, has_crack, path.stem, 0, 0, height, width, "train")


def draw(folder: Path, sizes: list[tuple[int, int]], cracks: int) -> list[Item]:
    """Write an image of noise of each (height, width); the first ones show a crack."""
    made = []
    for k, (height, width) in enumerate(sizes):
        pixels = np.random.default_rng(k).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:02d}.png")
        made.append(item(folder / f"{k:02d}.png", k < cracks, height, width))
    return made


def named_items(cracks: int, roads: int) -> list[Item]:
    return [item(Path(f"{k}.png"), k < cracks) for k in range(cracks + roads)]


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Five crack and seven road images of noise."""
    return draw(tmp_path_factory.mktemp("images"), [(HEIGHT, WIDTH)] * 12, cracks=5)


def source(items: list[Item], shard: Shard | None = None, **values: object) -> BatchSource:
    config = MethodConfig.model_validate({"train": {"batch_size": 8}, **values})
    return BatchSource(Images(items), config, shard or Shard())


# -- ahead of the training ---------------------------------------------------------------------


def test_each_reaches_every_tensor_of_a_batch(items: list[Item]) -> None:
    made = BatchSource(Images(items), MethodConfig(), Shard(), foresee=lambda _: None)
    moved = made.load(0, 0, 0.5, True).each(lambda tensor: tensor.to("meta"))
    exact, foreseen = moved.exact, moved.foreseen
    assert exact is not None
    assert foreseen is not None
    tensors = [*vars(moved).values(), *vars(exact).values(), *vars(foreseen).values()]
    found = [value.device.type for value in tensors if isinstance(value, torch.Tensor)]
    assert found == ["meta"] * (len(tensors) - 2)  # all but `exact` and `foreseen` themselves


@pytest.mark.slow
def test_loading_processes_change_no_batch(items: list[Item], tmp_path: Path) -> None:
    thread, made = source(items), source(items)
    processes = BatchSource(made.images, made.config, made.shard, loaders=2)
    for first in (0, 7):  # the second time after an end before the last batch
        expected = thread.stream(first, 5, 1, 0.5)
        found = processes.stream(first, 5, 1, 0.5)
        for _ in range(3):
            one, other = next(found), next(expected)
            assert one.image.equal(other.image)
            assert one.has_crack.equal(other.has_crack)
        found.close()
        expected.close()
    broken = draw(tmp_path, [(HEIGHT, WIDTH)] * 4, cracks=2)
    broken[0].path.write_bytes(b"no image")
    lost = BatchSource(Images(broken), made.config, made.shard, loaders=1)
    with pytest.raises(DataError, match=r"00\.png"):
        list(lost.stream(0, 3, 0))


def test_a_loading_process_that_is_killed_is_one_sentence(items: list[Item]) -> None:
    def killed() -> Iterator[Any]:
        yield thread.load(0, 0)
        raise RuntimeError("DataLoader worker (pid(s) 23520) exited unexpectedly")

    thread = source(items)
    processes = BatchSource(thread.images, thread.config, thread.shard, loaders=1)
    processes._loaders.__dict__["_loader"] = killed()
    with pytest.raises(TrainingError, match=r"was killed .*fewer scaling\.loaders"):
        list(processes.stream(0, 2, 0))


# -- drawn windows -----------------------------------------------------------------------------


@given(share=st.floats(0, 1), step=st.integers(0, 5))
@settings(max_examples=15)
def test_a_share_of_a_batch_is_drawn_with_exact_pixels_and_the_classes_stay(
    items: list[Item], share: float, step: int
) -> None:
    made = source(items)
    plain, mixed = made.load(step, 0), made.load(step, 0, share)
    assert mixed.has_crack.equal(plain.has_crack)
    exact = mixed.exact
    assert (exact is None) == (share < 1 / 8)
    if exact is None:
        return
    seen = exact.drawn > 0
    for label in (0, 1):
        assert abs(int(seen[mixed.has_crack == label].sum()) - 4 * share) <= 1
    assert mixed.image[~seen].equal(plain.image[~seen])
    assert not exact.weight[~seen].any()
    assert not (exact.target * (1 - exact.weight)).any(), "what counts not is no crack"
    roads = seen & (mixed.has_crack == 0)
    assert not exact.target[roads].any()
    assert exact.weight[roads].all(), "each pixel of a road is known"
    if share > 0.5:
        assert exact.target[seen & (mixed.has_crack == 1)].any()


def test_ranks_draw_the_windows_that_one_rank_would(items: list[Item]) -> None:
    whole = source(items).load(3, 0, 0.5)
    parts = [source(items, Shard(rank, 2)).load(3, 0, 0.5) for rank in range(2)]
    assert torch.cat([part.image for part in parts]).equal(whole.image)
    for name in ("drawn", "target", "weight"):
        found = [getattr(part.exact, name) for part in (whole, *parts)]
        assert torch.cat(found[1:]).equal(found[0])
    pieces = whole.pieces(3)
    assert torch.cat([piece.exact.target for piece in pieces if piece.exact]).equal(
        whole.exact.target if whole.exact else torch.empty(0)
    )


# -- sampling ----------------------------------------------------------------------------------


@given(
    cracks=st.integers(1, 9),
    roads=st.integers(1, 9),
    size=st.integers(2, 9),
    step=st.integers(0, 99),
)
def test_every_batch_is_half_crack(cracks: int, roads: int, size: int, step: int) -> None:
    drawn = Sampler(named_items(cracks, roads), size, seed=0).batch(step)
    assert len(drawn) == size
    assert sum(index < cracks for index, _ in drawn) == size - size // 2


@given(seed=st.integers(0, 99), cracks=st.integers(1, 7), roads=st.integers(1, 7))
def test_each_pass_over_a_class_shows_each_of_its_images_once(
    seed: int, cracks: int, roads: int
) -> None:
    sampler = Sampler(named_items(cracks, roads), 4, seed)
    drawn = Counter(pair for step in range(2 * cracks * roads) for pair in sampler.batch(step))
    assert set(drawn.values()) == {1}
    for turn in range(2):
        assert {i for i, t in drawn if t == turn} == set(range(cracks + roads))


def test_a_class_is_put_in_order_once_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [Sampler(named_items(50, 70), 8, seed=3).batch(step) for step in range(30)]
    orders, make = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: orders.append(seed) or make(seed))
    sampler = Sampler(named_items(50, 70), 8, seed=3)
    assert [sampler.batch(step) for step in range(30)] == wanted
    assert sorted(orders) == [
        [3, turn, side] for turn, side in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))
    ]


def test_a_step_is_drawn_alike_whatever_came_before() -> None:
    a, b = (Sampler(named_items(5, 7), 8, seed=3) for _ in range(2))
    want = [a.batch(step) for step in range(6)]
    assert b.batch(5) == want[5]
    assert b.batch(2) == want[2]
    assert Sampler(named_items(5, 7), 8, seed=4).batch(5) != want[5]


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_the_shards_of_all_ranks_are_the_batch_of_one(items: list[Item], ranks: int) -> None:
    for step in (0, 5):
        whole = source(items).load(step, epoch=2)
        parts = [source(items, Shard(rank, ranks)).load(step, epoch=2) for rank in range(ranks)]
        for name in ("image", "has_crack", "erased"):
            together = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(together, getattr(whole, name))
        assert all(part.images * ranks == pytest.approx(whole.images) == 8 for part in parts)
        assert all(part.cracks * ranks == pytest.approx(whole.cracks) == 4 for part in parts)


def test_a_sample_changes_with_each_pass_and_with_the_seed(items: list[Item]) -> None:
    def drawn(index: int, turn: int, epoch: int, seed: int = 0) -> Sample:
        return source(items, seed=seed)._sample(index, turn, epoch, False)

    sample = drawn(3, 0, 0)
    assert np.array_equal(sample.image, drawn(3, 0, 5).image)  # the epoch sets what is erased
    assert not np.array_equal(sample.image, drawn(3, 1, 0).image)
    assert not np.array_equal(sample.image, drawn(3, 0, 0, seed=1).image)
    assert (sample.erased <= drawn(3, 0, 20).erased).all()


def test_pseudo_labels_are_made_of_the_image_before_its_colors_changed(items: list[Item]) -> None:
    batch = source(items).load(0, 0)
    assert batch.to_label.shape == batch.image.shape
    assert not torch.equal(batch.to_label, batch.image)
    levels = batch.to_label * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


def test_a_batch_that_ranks_cannot_share_is_refused(items: list[Item]) -> None:
    with pytest.raises(ConfigError, match=r"batch_size is 8, of which some of 9 workers would get"):
        source(items, Shard(0, 9))


# -- images ------------------------------------------------------------------------------------


def test_images_are_continued_by_reflection_to_a_common_size(tmp_path: Path) -> None:
    images = Images(draw(tmp_path, [(40, 33), (32, 50)], cracks=2))
    assert images.size == (48, 48)
    got = images[0]
    assert got.shape == (48, 48, 3)
    assert np.array_equal(got[40], got[38])
    assert np.array_equal(got[:, 33], got[:, 31])
    assert images[0] is got  # kept


def test_whole_photographs_are_cut_to_the_size_of_the_windows_without_a_crack(
    tmp_path: Path,
) -> None:
    images = Images(draw(tmp_path, [(96, 160), (96, 160), (64, 64)], cracks=2))
    assert images.size == (64, 64)
    whole = images[0]
    assert whole.shape == (96, 160, 3)
    cuts = [images.cut(0, np.random.default_rng(k)) for k in range(20)]
    corners = {
        (row, col)
        for cut in cuts
        for row in range(33)
        for col in range(97)
        if np.array_equal(whole[row : row + 64, col : col + 64], cut)
    }
    assert len(corners) > 10
    assert np.array_equal(images.cut(0, np.random.default_rng(3)), cuts[3])
    assert images.cut(2, np.random.default_rng(0)) is images[2]


def test_windows_are_cut_out_of_large_photographs_of_both_classes_and_it_is_said(
    tmp_path: Path,
) -> None:
    items = draw(tmp_path, [(160, 200), (160, 200), (170, 210)], cracks=2)
    images = Images(items, 64)
    assert images.size == (64, 64)
    assert images.cut(2, np.random.default_rng(0)).shape == (64, 64, 3)
    assert "64 x 64 px are cut at random out of crack images of up to 200 x 160" in str(
        images.warnings
    )
    assert Images(items).size == (160, 208)
    assert Images(items, 128).warnings == ()


def test_the_same_cuts_are_validated_each_time(tmp_path: Path) -> None:
    images = Images(draw(tmp_path, [(80, 80), (64, 64)], cracks=1))
    first, second = (next(validation_batches(images, 2, Shard()))[0] for _ in range(2))
    assert first.shape == (2, 3, 64, 64)
    assert torch.equal(first, second)


def test_an_image_of_the_right_size_is_not_copied() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    assert reflect_to(image, (4, 4)) is image


def test_an_image_too_small_to_learn_from_is_refused() -> None:
    with pytest.raises(DataError, match="only 31 pixels wide, at least 32 are needed"):
        Images([item(Path("a.png"), True, 40, 31)])


# -- reading ahead -----------------------------------------------------------------------------


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "wpcrack-batches"]


def test_the_stream_gives_the_steps_in_order_and_ends_its_thread(items: list[Item]) -> None:
    made = source(items)
    got = list(made.stream(3, 4, 1))
    assert len(got) == 4
    for step, batch in enumerate(got, start=3):
        assert torch.equal(batch.image, made.load(step, 1).image)
    assert threads() == []


def test_a_stream_that_is_left_early_ends_its_thread(items: list[Item]) -> None:
    stream = source(items).stream(0, 1000, 0)
    next(stream)
    assert threads()
    stream.close()
    assert threads() == []


def test_an_unreadable_image_is_reported_where_the_batch_is_used(items: list[Item]) -> None:
    broken = [*items[1:], item(Path("missing.png"), True)]
    with pytest.raises(DataError, match=r"missing\.png"):
        list(source(broken).stream(0, 20, 0))
    assert threads() == []


# -- validation --------------------------------------------------------------------------------


def test_validation_holds_as_many_of_each_class_and_is_seeded() -> None:
    pool = named_items(20, 30)
    part = validation_part(pool, 12, seed=0)
    assert Counter(i.has_crack for i in part) == {True: 6, False: 6}
    assert part == validation_part(pool, 12, seed=0)
    assert part != validation_part(pool, 12, seed=1)
    assert set(validation_part(pool, 999, seed=0)) == set(pool)


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_ranks_validate_each_image_once_and_unchanged(items: list[Item], ranks: int) -> None:
    images = Images(items)
    seen = []
    for rank in range(ranks):
        for batch, labels, _ in validation_batches(images, 2, Shard(rank, ranks)):
            assert len(batch) == len(labels) <= 2
            seen += [(x.numpy().tobytes(), bool(y)) for x, y in zip(batch, labels, strict=True)]
    want = [
        (torch.from_numpy(images[k]).permute(2, 0, 1).div(255).numpy().tobytes(), i.has_crack)
        for k, i in enumerate(items)
    ]
    assert Counter(seen) == Counter(want)
