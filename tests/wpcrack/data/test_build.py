"""Building image-level sets: labels follow the rule, sources stay whole, nothing is overwritten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wpcrack.data.build import BuildOptions, BuildReport, build_image_level
from wpcrack.data.folder import replace_set
from wpcrack.data.images import read_rgb
from wpcrack.data.label_rule import label_windows
from wpcrack.data.manifest import COLUMNS, hold_out
from wpcrack.data.read import read_image_level
from wpcrack.errors import ConfigError, DataError

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten photographs of 128 x 192 with a crack through their left half, and two without."""
    root = tmp_path_factory.mktemp("drawn")
    for name in ("images", "masks", "road"):
        (root / name).mkdir()
    rng = np.random.default_rng(0)
    for k in range(12):
        image = rng.integers(90, 160, (128, 192, 3), np.uint8)
        mask = np.zeros((128, 192), np.uint8)
        if k < 10:
            mask[:, 20 + k : 24 + k] = 255
            image[mask > 0] //= 4
            Image.fromarray(mask).save(root / "masks" / f"p{k}_mask.png")
        Image.fromarray(image).save(root / ("images" if k < 10 else "road") / f"p{k}.png")
    return root


def build(drawn: Path, out: Path, **options: object) -> BuildReport:
    options = {"window": 64, **options}
    return build_image_level(
        drawn / "images", drawn / "masks", out, options=BuildOptions(**options)
    )


@pytest.fixture
def built(drawn: Path, tmp_path: Path) -> Path:
    build(drawn, tmp_path / "set")
    return tmp_path / "set"


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(16, 90), st.integers(16, 90), st.sampled_from([16, 32, 33, 48]), st.integers(0, 99)
)
def test_window_labels_equal_counting_pixels(h: int, w: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((h, w), bool)
    mask[rng.integers(0, h, 12), rng.integers(0, w, 12)] = True
    mask[rng.integers(0, h)] |= rng.random(w) < rng.random()
    b, crack, road = n // 16, [], []
    for r in range(0, h - n + 1, n // 2):
        for c in range(0, w - n + 1, n // 2):
            if mask[r + b : r + n - b, c + b : c + n - b].sum() > 0.47 * n:
                crack.append([r, c])
            if not mask[max(r - b, 0) : r + n + b, max(c - b, 0) : c + n + b].any():
                road.append([r, c])
    labels = label_windows(mask, n)
    assert (labels.crack.tolist(), labels.road.tolist()) == (crack, road)


@given(
    st.dictionaries(
        st.text("abc123", min_size=1), st.sets(st.sampled_from(["crack", "road"]), min_size=1)
    ),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_hold_out_takes_its_share_of_each_kind_in_any_order(
    sources: dict[str, set[str]], fraction: float, seed: int
) -> None:
    val = hold_out(sources, fraction, seed)
    assert val == hold_out(dict(reversed(sources.items())), fraction, seed)
    for kind in (True, False):
        names = {name for name, labels in sources.items() if ("crack" in labels) == kind}
        if len(names) > 1:
            assert 1 <= len(names & val) < len(names)
            assert abs(len(names & val) - fraction * len(names)) <= 1
        else:
            assert not names & val


def test_built_set_is_balanced_cut_from_its_sources_and_reads_back(
    drawn: Path, built: Path
) -> None:
    data = read_image_level(built)
    assert len(data.items) == len(list(built.glob("*/*.png"))) > 20
    for items in (data.train, data.val):
        assert sum(i.has_crack for i in items) * 2 == len(items) > 0
    assert {i.source for i in data.val}.isdisjoint({i.source for i in data.train})
    assert len({i.source for i in data.val}) == 2
    for item in data.items:
        image = read_rgb(drawn / "images" / f"{item.source}.png")
        window = image[item.row : item.row + 64, item.col : item.col + 64]
        np.testing.assert_array_equal(read_rgb(item.path), window)
        assert item.path.name == f"{item.source}_r{item.row}_c{item.col}.png"
        assert item.path.parent.name == ("crack" if item.has_crack else "road")
        assert (window.min() < 45) == item.has_crack


def test_manifest_has_the_agreed_columns(built: Path) -> None:
    header = (built / "manifest.csv").read_text().splitlines()[0]
    assert header == "file,label,source,row,col,height,width,split"
    assert header == ",".join(COLUMNS)


def test_build_depends_on_content_and_seed_not_on_directory_order(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, seed: int = 0) -> dict[str, bytes]:
        build(drawn, tmp_path / name, seed=seed, road=drawn / "road")
        return tree(tmp_path / name)

    first = run("a")
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(list(listing(self))[::-1]))
    assert run("b") == first
    assert run("c", seed=1) != first


def test_road_images_join_the_road_class_and_are_split_too(drawn: Path, tmp_path: Path) -> None:
    build(drawn, tmp_path / "set", window=32, road=drawn / "road")
    extra = [i for i in read_image_level(tmp_path / "set").items if i.source in ("p10", "p11")]
    assert not any(item.has_crack for item in extra)
    assert {item.split for item in extra} == {"train", "val"}


def test_whole_protocol_keeps_each_cracked_image_at_full_size(tmp_path: Path, drawn: Path) -> None:
    build(drawn, tmp_path / "set", protocol="whole", whole_road_window=64)
    items = read_image_level(tmp_path / "set").items
    cracks = [item for item in items if item.has_crack]
    assert sorted(item.source for item in cracks) == sorted(f"p{k}" for k in range(10))
    assert {(item.height, item.width) for item in cracks} == {(128, 192)}
    assert {(item.height, item.width) for item in items if not item.has_crack} == {(64, 64)}
    for item in cracks:
        np.testing.assert_array_equal(
            read_rgb(item.path), read_rgb(drawn / "images" / f"{item.source}.png")
        )


def test_report_counts_what_was_written(drawn: Path, tmp_path: Path) -> None:
    report = build(drawn, tmp_path / "set")
    data = read_image_level(tmp_path / "set")
    for count, items in zip(report.counts, (data.train, data.val), strict=True):
        assert count.crack == sum(i.has_crack for i in items)
        assert count.road == sum(not i.has_crack for i in items)
        assert count.sources == len({i.source for i in items})
    assert report.identical == ()
    assert [warning.split()[2] for warning in report.warnings] == ["crack", "road"]


def test_pictures_of_one_frame_stand_on_one_side(drawn: Path, tmp_path: Path) -> None:
    """By a counter in the name, or by equal pixels."""
    for kind, ending in (("images", ""), ("masks", "_mask")):
        shutil.copytree(drawn / kind, tmp_path / kind)
        for k in range(2):
            copied = drawn / kind / f"p0{ending}.png"
            shutil.copy(copied, tmp_path / kind / f"copy{chr(97 + k)}{ending}.png")
            own = drawn / kind / f"p{k}{ending}.png"
            shutil.copy(own, tmp_path / kind / f"f9-{k}{ending}.png")
    sides: set[str] = set()
    for seed in range(6):
        folders = tmp_path / "images", tmp_path / "masks", tmp_path / "set"
        report = build_image_level(*folders, options=BuildOptions(window=64, seed=seed))
        split = {i.source: i.split for i in read_image_level(tmp_path / "set").items}
        one = {split[name] for name in ("p0", "p1", "copya", "copyb", "f9-0", "f9-1")}
        assert len(one) == 1
        sides |= one
        assert sum(count.frames for count in report.counts) == 9
        assert sum(count.sources for count in report.counts) == 14
        assert report.identical == ()
    assert sides == {"train", "val"}


def test_parts_of_one_photograph_stand_on_one_side(drawn: Path, tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for path in (drawn / folder).iterdir():
            stem = path.stem.removesuffix("_mask")
            for col in (0, 192):  # what stands beside it shows something else
                shutil.copy(path, tmp_path / folder / f"{stem}_r0_c{col}.png")
    for path in (tmp_path / "images").glob("*_c192.png"):
        Image.fromarray(read_rgb(path)[::-1]).save(path)
    report = build(tmp_path, tmp_path / "set", val=0.4)
    assert [(c.sources, c.frames) for c in report.counts] == [(12, 6), (8, 4)]


def test_a_set_of_one_frame_is_refused(drawn: Path, tmp_path: Path) -> None:
    for kind, ending in (("images", ""), ("masks", "_mask")):
        (tmp_path / kind).mkdir()
        for k in range(6):
            shutil.copy(drawn / kind / f"p0{ending}.png", tmp_path / kind / f"q{k}{ending}.png")
    with pytest.raises(DataError, match=r"whole frames go to one side.*another place"):
        build_image_level(
            tmp_path / "images", tmp_path / "masks", tmp_path / "s", options=BuildOptions(window=64)
        )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"val": 0.0}, "val=0.0 is not a share"),
        ({"val": 1.0}, "val=1.0 is not a share"),
        ({"seed": -1}, "seed=-1 is negative"),
        ({"window": 8}, "window=8 is too small"),
        ({"protocol": "half"}, "use windows or whole"),
        ({"group": "a["}, "not a regular expression"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        BuildOptions(**options)


def test_window_larger_than_every_image_is_refused_and_leaves_nothing(
    drawn: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="every image is smaller than the window of 129 px"):
        build(drawn, tmp_path / "set", window=129)
    assert list(tmp_path.iterdir()) == []


def test_images_smaller_than_the_window_are_named(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path / "d")
    Image.new("RGB", (40, 30)).save(tmp_path / "d/images/tiny.png")
    Image.new("L", (40, 30)).save(tmp_path / "d/masks/tiny.png")
    report = build(tmp_path / "d", tmp_path / "s")
    assert "1 images are smaller than a window: tiny.png" in report.warnings


def test_images_that_gave_no_item_are_named_with_the_reason(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "images", tmp_path / "images")
    shutil.copytree(drawn / "masks", tmp_path / "masks")
    shutil.copytree(drawn / "road", tmp_path / "road")
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(90, 160, (128, 128, 3), np.uint8))
    noise.save(tmp_path / "images/faint.png")
    mask = np.zeros((128, 128), np.uint8)
    mask[63:65, 63:65] = mask[31:33, ::40] = mask[95:97, ::40] = 255  # in each window, and short
    Image.fromarray(mask).save(tmp_path / "masks/faint.png")
    for k in range(40):
        noise = Image.fromarray(rng.integers(90, 160, (64, 64, 3), np.uint8))
        noise.save(tmp_path / f"road/{'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN'[k] * 3}.png")
    report = build(tmp_path, tmp_path / "set", road=tmp_path / "road", seed=3)
    unclear, reduced = (text for text in report.warnings if "gave no item" in text)
    assert unclear == (
        "1 images gave no item, as no window of them shows a crack clearly or is free of cracks: "
        "faint.png"
    )
    used = {item.source for item in read_image_level(tmp_path / "set").items}
    n_unused = sum(path.stem not in used for path in (tmp_path / "road").iterdir())
    assert reduced.startswith(f"{n_unused} images gave no item, as the larger class was reduced")


def test_classes_that_the_images_cannot_give_are_refused(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path / "d")
    for level, sentence in [(0, "no window shows a crack"), (255, "no window of 64 px is free of")]:
        for mask in (tmp_path / "d/masks").iterdir():
            Image.new("L", (192, 128), level).save(mask)
        with pytest.raises(DataError, match=sentence):
            build(tmp_path / "d", tmp_path / "s", mask_values=(255,))


def test_whole_photographs_are_not_advised_another_window(drawn: Path, tmp_path: Path) -> None:
    """`--window` does not go together with `--protocol whole`."""
    with pytest.raises(DataError, match="256 px; give larger images"):
        build(drawn, tmp_path / "s", protocol="whole")
    shutil.copytree(drawn, tmp_path / "d")
    for image in (*(tmp_path / "d/images").iterdir(), *(tmp_path / "d/masks").iterdir()):
        with Image.open(image) as small:
            small.resize((512, 512)).save(image)
    for mask in (tmp_path / "d/masks").iterdir():
        Image.new("L", (512, 512), 255).save(mask)
    with pytest.raises(DataError, match="256 px is free of cracks; give a folder of road images"):
        build(tmp_path / "d", tmp_path / "s", protocol="whole", mask_values=(255,))


def test_one_cracked_image_cannot_be_split(drawn: Path, tmp_path: Path) -> None:
    for name in ("images/p0.png", "masks/p0_mask.png"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(drawn / name, tmp_path / name)
    with pytest.raises(DataError, match="val split has no crack item"):
        build(tmp_path, tmp_path / "s", road=drawn / "road")


def test_stems_shared_by_images_and_road_are_refused(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="both hold images named p0, p1"):
        build(drawn, tmp_path / "s", road=drawn / "images")


def test_rebuilding_replaces_an_own_set_and_nothing_else(drawn: Path, built: Path) -> None:
    build(drawn, built, window=32)
    assert {i.height for i in read_image_level(built).items} == {32}
    before = tree(built)
    (built / "crack" / "mine.png").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"1 files that its build did not write.*crack/mine\.png"):
        build(drawn, built, window=32)
    assert tree(built) == before | {"crack/mine.png": b"precious"}
    (built / "crack" / "mine.png").unlink()
    (built / "dataset.json").unlink()
    with pytest.raises(DataError, match="not empty and was not built here"):
        build(drawn, built, window=32)
    assert [p.name for p in built.parent.iterdir()] == ["set"]


def test_a_manifest_that_was_edited_is_not_replaced(drawn: Path, built: Path) -> None:
    path = built / "manifest.csv"
    as_built = path.read_text()
    path.write_text(as_built.replace(",crack,", ",,", 1))
    before = tree(built)
    with pytest.raises(DataError, match=r"manifest\.csv was edited since it was built"):
        build(drawn, built, window=32)
    assert tree(built) == before
    path.write_text(as_built)
    marker = json.loads((built / "dataset.json").read_text())
    del marker["manifest_sha256"]  # as built by earlier versions
    (built / "dataset.json").write_text(json.dumps(marker))
    build(drawn, built, window=32)


def test_a_set_never_replaces_the_images_that_it_is_built_from(drawn: Path, built: Path) -> None:
    before = tree(built)
    with pytest.raises(DataError, match=r"road lies in .*set, which a new set would replace"):
        build(drawn, built, road=built / "road")
    assert tree(built) == before


def test_failed_build_keeps_the_old_set_and_leaves_no_part(
    drawn: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(built)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wpcrack.data.build.write_png", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(drawn, built, window=32)
    assert tree(built) == before
    assert [p.name for p in built.parent.iterdir()] == ["set"]


def test_a_second_build_of_the_same_set_is_refused_and_disturbs_nothing(
    drawn: Path, tmp_path: Path
) -> None:
    with replace_set(tmp_path / "set") as part:
        (part / "file").write_text("first")
        with pytest.raises(DataError, match="another process builds"):
            build(drawn, tmp_path / "set")
    assert tree(tmp_path) == {"set/file": b"first"}


def test_what_a_killed_build_left_does_not_enter_the_next(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / ".set.part" / "crack").mkdir(parents=True)
    (tmp_path / ".set.part" / "crack" / "old.png").write_text("old")
    (tmp_path / ".set.part" / "manifest.csv").write_text("old")
    for name in ("set", "other"):
        build(drawn, tmp_path / name)
    assert tree(tmp_path / "set") == tree(tmp_path / "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "set"]


def test_output_that_is_a_file_or_lies_below_one_is_refused(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(DataError, match="is a file; choose another output folder"):
        build(drawn, tmp_path / "f")
    with pytest.raises(DataError, match="cannot write in"):
        build(drawn, tmp_path / "f" / "set")


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
def test_crackforest_builds_as_the_documentation_says(tmp_path: Path) -> None:
    cfd = DATA / "cfd"
    options = BuildOptions(window=96, val=0.25, road=cfd / "road")
    report = build_image_level(cfd / "images", cfd / "masks", tmp_path / "cfd", options=options)
    train, val = report.counts
    assert train.crack == train.road > 1000
    assert val.crack == val.road > 300
    assert (train.sources, val.sources) == (60, 20)
    assert report.identical == ()
    assert report.warnings == ()
