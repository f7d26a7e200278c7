"""Self-training: three-valued labels, windows that keep them, rounds that continue, a check."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import street, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from wpcrack.config import AugmentConfig, ModelConfig
from wpcrack.config_block import SEEDS
from wpcrack.errors import CheckpointError, DataError
from wpcrack.inference.engine import load_predictor
from wpcrack.model import WEIGHTS, find_model, read_info, save_model
from wpcrack.networks import Networks
from wpcrack.training import adapt as adaption
from wpcrack.training import fusion
from wpcrack.training import standing as checks
from wpcrack.training.adapt import (
    LONGEST_PX,
    REPORT,
    adapt,
    kept_updates,
    label,
    read_pictures,
    round_rule,
)
from wpcrack.training.drawn import Progress, train_path
from wpcrack.training.fusion import Fusion
from wpcrack.training.taught_windows import (
    CRACK,
    IGNORED,
    ROAD,
    AdaptConfig,
    TaughtBatches,
    keep_taught,
    read_taught,
)

TINY: dict[str, Any] = {
    "steps": 2,
    "batch": {"side": 64, "count": 2},
    "check": {"windows": 4, "side": 64, "agreement": 0, "lost_iou": 1, "more_false": 1},
}
STILL = AugmentConfig(flip=False, brightness=0, contrast=0, color=0, fade=0, blur_px=0, grain=0)


def tiny(**changes: Any) -> AdaptConfig:
    return AdaptConfig.model_validate({**TINY, **changes})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model and six pictures; the engine needs no conversion, which takes seconds."""
    quick = partial(load_predictor, engine="torch")
    for module in (adaption, checks):
        monkeypatch.setattr(module, "load_predictor", lambda path, threads: quick(path))
    monkeypatch.setattr(adaption, "deliver_graph", lambda folder: folder)
    tiny_model(tmp_path / "base")
    (tmp_path / "photos").mkdir()
    for k in range(6):
        image, _ = street(96 + 8 * k, ((((5, 10 + k), (90, 70)), 4),))
        Image.fromarray(image).save(tmp_path / "photos" / f"{k}.png")
    return tmp_path


def run(place: Path, out: str, config: AdaptConfig, **more: Any) -> adaption.Adapted:
    photos = sorted((place / "photos").iterdir())
    return adapt(place / "base", photos, config, place / out, **more)


def weights(folder: Path) -> bytes:
    return (folder / "model" / WEIGHTS).read_bytes()


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_a_label_is_crack_or_road_where_the_teacher_is_sure_and_ignored_between(
    level: int, one: int, other: int
) -> None:
    road, crack = sorted((one / 255, other / 255))
    image = np.zeros((32, 32, 3), np.uint8)

    def teacher(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.full(windows.shape[:3], level / 255, np.float32)

    want = CRACK if level / 255 >= crack else ROAD if level / 255 < road else IGNORED
    found = label(image, teacher, AdaptConfig(road=road, crack=crack))
    assert set(found.ravel().tolist()) <= {want, *([ROAD] if road == crack else [])}


@pytest.mark.parametrize("zoom", [(1.0, 1.0), (0.8, 1.5)])
def test_windows_show_what_their_labels_say_however_they_are_turned_and_zoomed(
    zoom: tuple[float, float],
) -> None:
    image = np.full((120, 160, 3), 200, np.uint8)
    labels = np.zeros((120, 160), np.uint8)
    image[40:56], labels[40:56] = 20, CRACK
    image[80:96], labels[80:96] = 110, IGNORED
    turned = STILL.model_copy(update={"flip": True})
    config = tiny(drawn_share=0, zoom=zoom, augment=turned, batch={"side": 64, "count": 8})
    batches = TaughtBatches(config, 0, [image], [labels])
    pixels, mask, ignored = (part.numpy() for part in batches[3])
    dark, middle = pixels[..., 0] < 65, (pixels[..., 0] > 90) & (pixels[..., 0] < 140)
    assert mask.any()
    assert (dark != mask).mean() < 0.03
    assert (middle != ignored).mean() < 0.04
    again = TaughtBatches(config, 0, [image], [labels])[3]
    assert all(np.array_equal(a, b) for a, b in zip(again, (pixels, mask, ignored), strict=True))
    other = TaughtBatches(config, 1, [image], [labels])[3]
    assert not np.array_equal(other[0], pixels)


@pytest.mark.parametrize("flip", [True, False, "horizontal"])
def test_windows_are_turned_as_the_settings_allow(flip: bool | str) -> None:
    rows, cols = np.mgrid[0:96, 0:96]
    image = np.dstack((rows, cols, rows)).astype(np.uint8)
    still = {**STILL.model_dump(), "flip": flip}
    config = tiny(drawn_share=0, zoom=(1.0, 1.0), augment=still, batch={"side": 64, "count": 16})
    pixels = TaughtBatches(config, 0, [image], [np.zeros((96, 96), np.uint8)])[0][0].numpy()
    down = pixels[:, -1, 0, 0] > pixels[:, 0, 0, 0]
    right = pixels[:, 0, -1, 1] > pixels[:, 0, 0, 1]
    seen = set(zip(down.tolist(), right.tolist(), strict=True))
    wanted = {False: {(True, True)}, "horizontal": {(True, True), (True, False)}}
    assert seen == wanted[flip] if flip in wanted else len(seen) > 2


def test_the_largest_zoom_shows_one_pixel() -> None:
    image, labels = np.full((32, 32, 3), 90, np.uint8), np.full((32, 32), ROAD, np.uint8)
    config = tiny(zoom=(900, 900), augment=STILL, drawn_share=0)
    pixels, mask, _ = TaughtBatches(config, 0, [image], [labels])[0]
    assert (pixels == 90).all()
    assert not mask.any()


def test_a_zoom_of_trainings_is_refused() -> None:
    with pytest.raises(ValueError, match="an adaption zooms as zoom says"):
        tiny(augment={"zoom": (1.5, 2.0)})


def test_labeled_pictures_come_back_as_they_were_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = [(40, 70), (32, 32)]
    images = [rng.integers(256, size=(*shape, 3), dtype=np.uint8) for shape in shapes]
    labels = [rng.integers(3, size=shape, dtype=np.uint8) for shape in shapes]
    keep_taught(tmp_path / "taught", images, labels)
    for kept, wanted in zip(read_taught(tmp_path / "taught"), (images, labels), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(kept, wanted, strict=True))
    (tmp_path / "taught" / "00001.png").write_bytes(b"no picture")
    with pytest.raises(CheckpointError, match=r"00001\.png is damaged"):
        read_taught(tmp_path / "taught")
    with pytest.raises(CheckpointError, match="holds no picture"):
        read_taught(tmp_path)


def test_a_half_of_the_windows_is_drawn_with_exact_masks() -> None:
    blank, labels = np.full((96, 96, 3), 200, np.uint8), np.zeros((96, 96), np.uint8)
    config = tiny(augment=STILL, batch={"side": 64, "count": 12})
    pixels, mask, _ = TaughtBatches(config, 0, [blank], [labels])[0]
    is_drawn = [len(np.unique(image)) > 1 for image in pixels.numpy()]
    assert is_drawn == [True] * 6 + [False] * 6
    assert mask[:6].any()
    assert not mask[6:].any()


def test_an_interrupted_adaption_goes_on_to_the_same_model(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = tiny(rounds=2)
    run(place, "whole", twice)
    rounds = []

    def stop(line: str) -> Callable[[Progress], None]:
        rounds.append(line)
        if len(rounds) == 2:
            raise KeyboardInterrupt
        return lambda progress: None

    with pytest.raises(KeyboardInterrupt):
        run(place, "cut", twice, report=stop)
    assert not (place / "cut" / REPORT).exists()
    first = place / "photos" / "0.png"
    with monkeypatch.context() as patched:
        patched.setattr(adaption, "label", lambda *_: pytest.fail("work was done before"))
        with pytest.raises(CheckpointError, match="another config"):
            run(place, "cut", tiny(rounds=2, crack=0.7))
        first.rename(place / "0.png")
        with pytest.raises(CheckpointError, match="another config, model or pictures"):
            run(place, "cut", twice)
        (place / "0.png").rename(first)
    images = read_pictures(sorted((place / "photos").iterdir()), twice)
    assert kept_updates(place / "base", twice, images, place / "cut") == 2
    adapted = run(place, "cut", twice)
    assert adapted.is_better
    assert weights(place / "cut") == weights(place / "whole")
    assert weights(place / "cut") != (place / "base" / WEIGHTS).read_bytes()
    assert not list((place / "cut").glob("round-*"))


def test_another_blend_is_refused_before_any_work_once_a_round_follows_from_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(rule: Any, nets: Networks, folder: Path, *more: Any) -> Networks:
        found = train_path(rule, nets, folder, *more)
        if folder.name == "round-1":
            raise KeyboardInterrupt
        return found

    with pytest.raises(KeyboardInterrupt):
        run(place, "out", tiny(rounds=2), learn=learn)
    other = tiny(rounds=2, blend=1)
    with monkeypatch.context() as patched:
        patched.setattr(adaption, "label", lambda *_: pytest.fail("work was done before"))
        with pytest.raises(CheckpointError, match=r"blend=0\.5, not 1; set blend=0\.5, or choose"):
            run(place, "out", other)
    shutil.rmtree(place / "out" / "round-1")
    images = read_pictures(sorted((place / "photos").iterdir()), other)
    assert kept_updates(place / "base", other, images, place / "out") == 2


def test_an_adaption_that_learns_nothing_gives_the_model_that_it_started_from(place: Path) -> None:
    still = {"encoder_lr": 1e-30, "head_lr": 1e-30, "augment": STILL, "steps": 1}
    image = np.random.default_rng(0).integers(0, 255, (1, 96, 96, 3), np.uint8)
    nets = Networks(read_info(place / "base").model)
    for shares in (False, True):
        if shares:
            nets.share_encoder()
        save_model(place / "base", nets, read_info(place / "base"), predicts_only=shares)
        run(place, f"out {shares}", tiny(**still))
        old, new = (
            load_predictor(place / name, "torch")(image) for name in ("base", f"out {shares}")
        )
        assert np.abs(new - old).max() < 1e-3


def test_a_round_teaches_the_next_by_the_fusion_that_suits_its_networks(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model(place / "base", scales=(1.0, 0.5))
    powers = iter([2.5, 1.25])

    def chosen(networks: Networks, scales: tuple[float, ...], _: Any) -> Fusion:
        assert scales == (1.0, 0.5)
        power = next(powers)
        return Fusion(power, {power: 0.7})

    monkeypatch.setattr(fusion, "choose_fusion", chosen)
    teachers = []
    load = adaption.load_predictor

    def seen(path: Path, threads: int) -> Any:
        teachers.append(read_info(path).fusion_power)
        return load(path, threads)

    monkeypatch.setattr(adaption, "load_predictor", seen)
    run(place, "out", tiny(rounds=2))
    assert teachers == [read_info(place / "base").fusion_power, 2.5]
    assert read_info(find_model(place / "out")).fusion_power == 1.25
    assert read_info(find_model(place / "out")).trained["drawn_iou"] == 0.7


@pytest.mark.parametrize(
    ("demand", "reason"),
    [
        ({"agreement": 1}, "agrees with the old model"),
        ({"more_false": 0}, "drawn pavement without cracks"),
        ({"lost_iou": 0}, "IoU on drawn cracks"),
    ],
)
def test_the_old_model_is_kept_if_the_new_one_is_worse(
    place: Path, demand: dict[str, float], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = iter([checks.Standing(0.6, 0.001), checks.Standing(0.5, 0.002)])
    monkeypatch.setattr(checks, "standing", lambda *_: next(worse))
    monkeypatch.setattr(checks, "iou", lambda _: 0.9)
    adapted = run(place, "out", tiny(rounds=1, check={**TINY["check"], **demand}))
    assert not adapted.is_better
    assert reason in adapted.reasons[0]
    assert weights(place / "out") == (place / "base" / WEIGHTS).read_bytes()
    report = json.loads((place / "out" / REPORT).read_text("utf-8"))
    assert report["before"]["iou"] == 0.6


def test_what_marks_everything_has_false_alarms_and_what_marks_nothing_has_none() -> None:
    check = tiny().check

    def always(value: float) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
        return lambda windows: np.full(windows.shape[:3], value, np.float32)

    assert checks.standing(always(1.0), check).false_share == 1
    nothing = checks.standing(always(0.0), check)
    assert (nothing.iou, nothing.false_share) == (0, 0)


def test_a_single_picture_is_refused(place: Path) -> None:
    with pytest.raises(DataError, match="at least 2"):
        adapt(place / "base", [place / "photos" / "0.png"], tiny(), place / "out")


def test_large_photographs_are_not_kept_whole(tmp_path: Path) -> None:
    for k in range(2):
        Image.new("L", (2 * LONGEST_PX, 40)).save(tmp_path / f"{k}.png")
    for image in read_pictures(sorted(tmp_path.iterdir()), AdaptConfig()):
        assert image.shape == (40, LONGEST_PX, 3)
        assert image.base is None  # a view would hold all pixels of its picture


def test_each_round_has_a_seed_of_its_own_after_the_largest_one_too() -> None:
    config, model = AdaptConfig(seed=SEEDS - 1), ModelConfig()
    assert [round_rule(config, model, k).seed for k in range(3)] == [SEEDS - 1, 0, 1]
