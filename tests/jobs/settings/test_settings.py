""""""

from __future__ import annotations

from datetime import date
from functools import reduce
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from geo.options import MapRules
from jobs.adapt.job import AdaptOptions
from jobs.settings.docs import render_defaults
from jobs.settings.fields import key_names
from jobs.settings.load import find_config, load, shipped_configs
from jobs.settings.map import Tiles
from jobs.settings.yaml_text import parse_value
from jobs.train.job import TrainJob
from wpcrack.config import AugmentConfig, MethodConfig, TrainConfig
from wpcrack.config_block import Block
from wpcrack.errors import ConfigError
from wpcrack.label_config import PseudoLabelConfig
from wpcrack.training.drawn_windows import DrawnTrainConfig
from wpcrack.training.shipped import ShippedConfig
from wpcrack.training.taught_windows import AdaptConfig


class Optimizer(Block):
    """How to descend."""

    lr: Annotated[float, Field(gt=0)] = 0.1
    """Learning rate."""
    name: Literal["adam", "sgd"] = "adam"
    """Which update."""
    low: int = 1
    """Not above high."""
    high: int = 2
    """Not below low."""

    @model_validator(mode="after")
    def _low_is_not_above_high(self) -> Optimizer:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class Job(Block):
    """A job for tests.

    With a second paragraph.
    """

    run_dir: Path
    """Where the run is kept."""
    optimizer: Optimizer = Optimizer()
    """How to descend."""
    fallback: Optimizer | None = None
    """Tried when the first one fails."""
    steps: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2)
    """Steps per stage; a description so long that it does not fit into one line and therefore has
    to be wrapped in the rendered text."""
    limit: Annotated[int, Field(ge=0)] | str = "5%"
    """A number or a percentage."""
    ends: tuple[float, float] | None = None
    """First and last."""
    names: Annotated[tuple[str, ...], Field(min_length=1)] | int = 1
    """Names, or how many."""
    crs: str | None = None
    """Coordinate system."""
    flown: date | None = None
    """Day of survey."""

    @model_validator(mode="after")
    def _limit_is_percent(self) -> Job:
        if isinstance(self.limit, str) and not self.limit.endswith("%"):
            raise ValueError(f"limit is {self.limit!r}; write a number or a percentage like 5%")
        return self


class Outer(Block):
    """A job inside another."""

    job: Job
    """A section without a default."""


def error_of(*overrides: str, path: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(Job, path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text("run_dir: out\noptimizer:\n  lr: 1e-3\n", encoding="utf-8")
    return path


def test_a_file_changes_only_what_it_names(file: Path) -> None:
    job = load(Job, file)
    assert job == Job(run_dir=Path("out"), optimizer=Optimizer(lr=0.001))


def test_an_override_wins_over_the_file(file: Path) -> None:
    job = load(Job, file, ["optimizer.lr=0.5", "fallback.name=sgd"])
    assert job.optimizer.lr == 0.5
    assert job.fallback == Optimizer(name="sgd")


def test_the_last_override_wins(file: Path) -> None:
    assert load(Job, file, ["optimizer.lr=1", "optimizer.lr=2"]).optimizer.lr == 2


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.001", "1.e-3", "+.001"])
def test_an_exponent_without_a_point_is_a_number(text: str) -> None:
    assert parse_value(text) == 0.001
    assert load(Job, overrides=["run_dir=r", f"optimizer.lr={text}"]).optimizer.lr == 0.001


@pytest.mark.parametrize("text", ["no", "on", "12:30:00", "2026-05-01", "007", "1_000"])
def test_words_that_only_look_like_values_stay_text(text: str) -> None:
    assert parse_value(text) == text


@given(st.floats(allow_nan=False))
def test_every_float_survives_its_written_form(number: float) -> None:
    value = parse_value(repr(number).replace("inf", ".inf"))
    assert isinstance(value, float)
    assert value == number


def test_overrides_are_read_as_yaml() -> None:
    job = load(Job, overrides=["run_dir=r", "steps=[3, 4]", "fallback=null", "flown=2026-05-01"])
    assert (job.steps, job.fallback, job.flown) == ((3, 4), None, date(2026, 5, 1))


TYPED = ["2026", "007", "1e5", "true", "a=b", "city #2", "[2024]", "{x}", "null", "a: b", "*", "'"]


@pytest.mark.parametrize("text", TYPED)
def test_a_path_and_a_text_keep_what_was_typed(text: str) -> None:
    job = load(Job, overrides=[f"run_dir={text}", f"crs={text}"])
    assert (job.run_dir, job.crs) == (Path(text), text)


def test_nothing_behind_the_equals_sign_unsets_a_text(file: Path) -> None:
    file.write_text("run_dir: out\ncrs: x\n")
    assert load(Job, file, ["crs="]).crs is None
    assert error_of("run_dir=").startswith("run_dir is None, but must be a path")


def test_several_texts_are_a_list_unless_a_file_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(Tiles, overrides=["tiles=[2024, b c]"]).tiles == ("2024", "b c")
    (tmp_path / "[2024, b c]").mkdir()
    assert load(Tiles, overrides=["tiles=[2024, b c]"]).tiles == "[2024, b c]"
    assert load(Tiles, overrides=["tiles=in/y #2"]).tiles == "in/y #2"


def test_the_address_of_a_file_of_tiles_is_its_path() -> None:
    assert load(Tiles, overrides=["tiles=[file:///a%20b, c]"]).tiles == ("/a b", "c")
    assert load(Tiles, overrides=["tiles=file:///a"]).tiles == "/a"


def test_a_tilde_is_the_home_directory_in_files_and_overrides(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    file.write_text("run_dir: ~/runs\n")
    assert load(Job, file).run_dir == Path("/home/anna/runs")
    assert load(Job, overrides=["run_dir=~/runs"]).run_dir == Path("/home/anna/runs")
    assert load(Job, overrides=["run_dir=a/~"]).run_dir == Path("a/~")
    assert load(Tiles, overrides=["tiles=[~/a, b]"]).tiles == ("/home/anna/a", "b")


def test_text_or_number_takes_either() -> None:
    assert load(Job, overrides=["run_dir=r", "limit=3"]).limit == 3
    assert load(Job, overrides=["run_dir=r", "limit=7%"]).limit == "7%"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("run_dri", "run_dir"),
        ("optimiser.lr", "optimizer.lr"),
        ("optimizer.rl", "optimizer.lr"),
        ("fallback.nmae", "fallback.name"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(key: str, nearest: str) -> None:
    message = error_of("run_dir=r", f"{key}=1")
    assert f"did you mean {nearest}?" in message


def test_an_unknown_key_that_resembles_none_lists_the_valid_ones() -> None:
    assert "valid keys are lr, name" not in (message := error_of("run_dir=r", "zzz=1"))
    assert "valid keys are run_dir, optimizer" in message


@pytest.mark.parametrize(
    ("override", "valid"),
    [
        ("optimizer={zz: 1}", "did you mean optimizer."),
        ("qqq.y=1", "valid keys are run_dir, optimizer, fallback"),
    ],
)
def test_an_unknown_key_names_no_section_around_it(override: str, valid: str) -> None:
    assert f"; {valid}" in error_of("run_dir=r", override)


def test_an_unknown_key_of_the_file_names_the_file(file: Path) -> None:
    file.write_text("run_dir: r\nstpes: [1]\n", encoding="utf-8")
    assert error_of(path=file) == f"unknown key stpes in {file}; did you mean steps?"


@pytest.mark.parametrize(
    "key",
    ["optimizer.rl", "optimizer.rl.x", "zzz", "zzz.y"],
    ids=["leaf", "below", "top", "section"],
)
def test_an_unknown_key_of_the_command_line_is_not_blamed_on_the_file(key: str, file: Path) -> None:
    message = error_of(f"{key}=1", path=file)
    assert message.startswith(f"unknown key {key} on the command line; ")
    assert str(file) not in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=fast", "optimizer.lr is 'fast', but must be a valid number"),
        ("optimizer.lr=true", "optimizer.lr is 'true', but must be a valid number"),
        ("optimizer.lr=-1", "optimizer.lr is -1, but must be greater than 0"),
        ("optimizer.name=lion", "optimizer.name is 'lion', but must be 'adam' or 'sgd'"),
        ("optimizer=3", "optimizer is 3, but it is a section with keys of its own"),
        ("fallback=3", "fallback is 3, but it is a section with keys of its own"),
        ("steps=3", "steps is 3, but must be a list, written [3]"),
        ("steps=3,4", "steps is '3,4', but must be a list, written [3,4]"),
        ("ends=[500]", "ends is [500], but must be a list of 2 values"),
        ("ends=[1, 2, 3]", "ends is [1, 2, 3], but must be a list of 2 values"),
        ("ends=500,900", "ends is '500,900', but must be a list of 2 values, written [500,900]"),
        ("ends=500", "ends is 500, but must be a list of 2 values, written [a, b]"),
        ("flown=2024", "flown is 2024, but must be a date like 2025-05-31"),
        ("flown=31.5.2024", "flown is '31.5.2024', but must be a date like 2025-05-31"),
        ("names=[]", "names is [], but must be a list of at least 1 or a valid integer"),
        ("steps=[1, x]", "steps[1] is 'x', but must be a valid integer"),
        ("steps=[1, true]", "steps[1] is 'true', but must be a valid integer"),
        ("limit=[1]", "limit is '[1]'; write a number or a percentage like 5%"),
        ("limit=many", "limit is 'many'; write a number or a percentage like 5%"),
        ("run_dir=", "run_dir is None, but must be a path"),
        ("run_dir.x=1", "run_dir.x: run_dir is 'r', not a section with keys"),
        ("steps", "got 'steps'; an override is written section.key=value"),
        ("=3", "got '=3'; an override is written section.key=value"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(override: str, message: str) -> None:
    assert error_of("run_dir=r", override) == message


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize(
    ("model", "key"), [(PseudoLabelConfig, "darkness.zero"), (MapRules, "min_length_m")]
)
def test_a_number_without_end_is_none(
    model: type[PseudoLabelConfig | MapRules], key: str, number: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{key} is -?(inf|nan), but must be a finite number"):
        load(model, overrides=[f"{key}={number}"])


@pytest.mark.parametrize(
    ("model", "key"),
    [(AugmentConfig, "zoom"), (AdaptConfig, "zoom"), (DrawnTrainConfig, "gsd_mm")],
)
def test_a_range_that_falls_is_refused(
    model: type[AugmentConfig | AdaptConfig | DrawnTrainConfig], key: str
) -> None:
    with pytest.raises(
        ConfigError, match=rf"{key}: \[2, 1\] falls; write the smaller number first"
    ):
        load(model, overrides=[f"{key}=[2,1]"])
    load(model, overrides=[f"{key}=[1,1]"])


def test_a_wrong_value_of_the_file_names_the_file(file: Path) -> None:
    file.write_text("run_dir: r\noptimizer: {lr: fast}\n", encoding="utf-8")
    assert f"'fast' in {file}, but must be a valid number" in error_of(path=file)
    file.write_text("run_dir: r\nlimit: true\n", encoding="utf-8")
    assert error_of(path=file).startswith("limit is 'true'")
    file.write_text("run_dir: ''\n", encoding="utf-8")
    assert error_of(path=file) == f"run_dir is None in {file}, but must be a path"


@pytest.mark.parametrize(
    "override", ["optimizer.low=3", "optimizer={low: 3}", "steps=[1, x]", "steps=x"]
)
def test_a_wrong_value_of_the_command_line_is_not_blamed_on_the_file(
    override: str, file: Path
) -> None:
    message = error_of(override, path=file)
    assert message.startswith(("optimizer: low is above high", "steps"))
    assert str(file) not in message


def test_a_missing_required_key_is_named() -> None:
    assert error_of() == "run_dir is required; set it as run_dir=VALUE or in the config file"


def test_a_missing_section_is_named_by_the_key_that_must_be_set() -> None:
    with pytest.raises(ConfigError, match=r"^job\.run_dir is required; set it as job\.run_dir="):
        load(Outer)


def test_further_wrong_keys_are_named_too() -> None:
    message = error_of("run_dir=r", "optimizer.lr=x", "steps=[0]")
    assert message.endswith("(also wrong: steps[0])")


LAUGHS = "{x0: &x0 [1, 1], " + ", ".join(
    f"x{k}: &x{k} [*x{k - 1}, *x{k - 1}]" for k in range(1, 30)
)
"""A few lines of aliases that stand for a thousand million values."""


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (f"steps: {LAUGHS}}}", "aliases stand for more than"),
        ("steps: &s [*s]", "nested too deeply"),
        ("steps: " + 2000 * "[", "nested too deeply"),
        ("steps: " + 5000 * "9", "is not valid YAML"),
        ("- a\n- b\n", "holds a list"),
        ("just text", "holds a str"),
        ("a: [1", "is not valid YAML"),
        ("steps: [1]\nsteps: [2]\n", "the key 'steps' stands twice"),
    ],
)
def test_a_file_that_is_no_config_is_refused(file: Path, text: str, part: str) -> None:
    file.write_text(text, encoding="utf-8")
    message = error_of(path=file)
    assert part in message
    assert str(file) in message


def test_an_empty_file_means_the_defaults(file: Path) -> None:
    file.write_text("# nothing\n", encoding="utf-8")
    assert load(TrainConfig, file) == TrainConfig()


@pytest.mark.parametrize("name", ["", "binary.yaml"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in error_of(path=tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in error_of(path=tmp_path / "none.yaml")


def test_rendered_defaults_read_back_as_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(render_defaults(TrainConfig), encoding="utf-8")
    assert load(TrainConfig, path) == TrainConfig()
    path.write_text(render_defaults(Job), encoding="utf-8")
    assert load(Job, path, ["run_dir=r"]) == Job(run_dir=Path("r"))
    path.write_text(render_defaults(Outer), encoding="utf-8")
    assert load(Outer, path, ["job.run_dir=r"]) == Outer(job=Job(run_dir=Path("r")))


@pytest.mark.parametrize("kind", [AdaptOptions, ShippedConfig, MethodConfig])
def test_a_key_that_is_set_to_its_default_leaves_all_others_alone(kind: type[Block]) -> None:
    defaults = kind()
    for key in key_names(kind):
        *sections, last = key.split(".")
        section = reduce(getattr, sections, defaults)
        value = section.model_dump()[last]
        for name in (last, *reversed(sections)):
            value = {name: value}
        assert load(kind, base=value) == defaults, key


def test_rendered_defaults_document_every_key() -> None:
    text = render_defaults(Job)
    assert text.startswith("# A job for tests.\n")
    assert "# Where the run is kept.\n# run_dir:  (required)" in text
    assert "  # Which update. One of: adam, sgd.\n  name: adam" in text
    assert max(map(len, text.splitlines())) <= 96


def test_rendered_defaults_name_all_that_a_key_may_be_besides_its_names() -> None:
    text = " ".join(render_defaults(TrainJob).replace("#", "").split())
    assert "One of: shipped, imagenet, a path. init: shipped" in text
    assert "One of: horizontal, true, false. flip: true" in text


def test_shipped_configs_are_found_by_name_and_by_path(file: Path) -> None:
    assert find_config(str(file)) == file
    for path in shipped_configs():
        assert find_config(path.stem) == path


def test_a_folder_is_no_config_and_hides_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("paper", "run"):
        (tmp_path / name).mkdir()
    assert find_config("paper").is_file()
    with pytest.raises(ConfigError, match=r"config run is a folder; give a YAML file, or one of"):
        find_config("run")


def test_a_config_that_is_neither_path_nor_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"config trian\.yaml does not exist"):
        find_config("trian.yaml")
