"""The command line: every job is there, with its help, its errors and its exit code."""

from __future__ import annotations

import inspect
import json
import runpy
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from factories import loaded_by
from typer.testing import CliRunner, Result

import jobs.cli
from geo.compare.options import RegistrationOptions
from geo.errors import GeoError
from jobs.cli.command import read_job
from jobs.demo.run import DemoOptions
from jobs.infer.job import InferJob
from jobs.registry import JOBS, find
from jobs.review.run import ReviewOptions
from jobs.runtime.signals import Interrupted
from jobs.runtime.versions import versions
from jobs.settings.load import shipped_configs
from jobs.windows.cut import WindowsOptions
from wpcrack.data.build import BuildOptions
from wpcrack.errors import WpcrackError
from wpcrack.files import whole_folder
from wpcrack.inference.predict import DEFAULT_THRESHOLD

ROOT = Path(__file__).parents[3]
COMMANDS = [command.name for command in jobs.cli.app.registered_commands]


DEFAULTS: dict[str, dict[str, Any]] = {
    "compare": {"limit": RegistrationOptions.limit_m},
    "dataset": vars(BuildOptions()),
    "demo": vars(DemoOptions()),
    "predict": {"threshold": DEFAULT_THRESHOLD},
    "review": vars(ReviewOptions()),
    "windows": vars(WindowsOptions()),
}
"""What jobs do without an option, which the help shows: it starts without importing them."""


def wpcrack(*arguments: str) -> Result:
    return CliRunner().invoke(jobs.cli.app, list(arguments))


@dataclass
class Calls:
    """Records with what a job was called, in the job's place."""

    jobs: list[InferJob]
    outcome: BaseException | int = 0

    def __call__(self, job: InferJob) -> Calls:
        self.jobs.append(job)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self

    @property
    def exit_code(self) -> int:
        assert isinstance(self.outcome, int)
        return self.outcome

    def summary(self) -> str:
        return "3 cracks"

    def values(self) -> dict[str, object]:
        return {"n_cracks": 3}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    recorded = Calls([])
    monkeypatch.setattr("jobs.infer.run.run_inference", recorded)
    return recorded


NEEDED = ("tiles=t", "model=m", "out=o.gpkg")


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_option_has_the_default_of_its_job(name: str) -> None:
    parameters = inspect.signature(find(JOBS[name].command)).parameters
    shown = {key: value.default for key, value in parameters.items() if key in DEFAULTS[name]}
    of_job = {key: DEFAULTS[name][key] for key, value in shown.items() if value not in (None, "")}
    assert of_job
    assert of_job == {key: shown[key] for key in of_job}


def test_every_command_of_the_product_is_there() -> None:
    assert {"demo", "dataset", "train", "evaluate", "predict", "infer", "config"} <= set(COMMANDS)


def test_the_help_of_the_program_begins_with_an_example_and_cuts_no_line() -> None:
    text = wpcrack("--help").stdout
    assert "Example:\n    wpcrack demo" in text
    assert "..." not in text.partition("Commands:")[2]


@pytest.mark.parametrize("name", [path.stem for path in shipped_configs()])
def test_the_help_of_config_names_what_it_knows(name: str) -> None:
    assert name in wpcrack("config", "--help").stdout.partition("NAME <str>")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_an_example_that_names_its_options(command: str) -> None:
    result = wpcrack(command, "--help")
    assert result.exit_code == 0
    _, _, example = result.stdout.partition("Example:\n  ")
    words = example.splitlines()[0].split()
    assert words[:2] == ["wpcrack", command]
    for word in words[2:]:
        if word.startswith("--"):
            assert f"{word} " in result.stdout.replace(example, "") + example.partition("\n")[2]


def test_the_command_starts_quickly_and_without_heavy_libraries() -> None:
    heavy = ("torch", "ray", "rasterio", "numpy", "pydantic")
    assert loaded_by("import jobs.cli", heavy) == []


def test_a_config_file_and_overrides_reach_the_job(calls: Calls, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("threshold: 0.7\nbatch: 3\n")
    result = wpcrack("infer", str(file), *NEEDED, "batch=4", "lattice.window=256")
    assert result.exit_code == 0, result.output
    (job,) = calls.jobs
    assert (job.threshold, job.batch, job.lattice.window) == (0.7, 4, 256)
    assert result.stdout == "3 cracks\n"
    as_json = wpcrack("infer", str(file), *NEEDED, "--json", "-")
    assert json.loads(as_json.stdout) == {"n_cracks": 3}


def test_many_tiles_may_be_listed_first(calls: Calls) -> None:
    names = [f"tile_{number:04d}.tif" for number in range(50)]
    result = wpcrack("infer", f"tiles=[{','.join(names)}]", "out=o.gpkg")
    assert result.exit_code == 0, result.output
    assert calls.jobs[0].tiles == tuple(names)


def test_the_config_is_optional_and_may_be_a_shipped_name(calls: Calls) -> None:
    assert wpcrack("infer", *NEEDED).exit_code == 0
    assert wpcrack("infer", "infer", *NEEDED).exit_code == 0
    expected = InferJob(tiles="t", model=Path("m"), out=Path("o.gpkg"))
    assert calls.jobs == [expected, expected]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (0, 0),
        (3, 3),
        (WpcrackError("model m is odd; choose another"), 1),
        (GeoError("tile t is odd; choose another"), 1),
        (KeyboardInterrupt(), 130),
        (Interrupted(), 130),
    ],
)
def test_exit_codes_say_what_happened(
    calls: Calls, outcome: BaseException | int, code: int
) -> None:
    calls.outcome = outcome
    result = wpcrack("infer", *NEEDED)
    assert result.exit_code == code
    if code == 1:
        assert result.stderr == f"error: {outcome}\n"
        assert result.stdout == ""
    if code == 130:
        told = isinstance(outcome, Interrupted)  # by the job itself
        assert result.stderr == ("" if told else "interrupted: give the same command again\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_ends_a_program_ends_every_command_as_ctrl_c_does(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        with whole_folder(tmp_path / "set"):
            signal.raise_signal(number)

    monkeypatch.setattr("jobs.dataset.run_dataset", killed)
    before = signal.signal(number, lambda *_: None)
    try:
        assert wpcrack("dataset", "--images=a", "--masks=b", "--out=c").exit_code == 130
    finally:
        signal.signal(number, before)
    assert list(tmp_path.iterdir()) == []


def test_a_working_folder_that_was_removed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = wpcrack("infer", "tiles=t", "out=o.gpkg")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the folder in which you are was removed")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/other/set"), "may not be entered, read or"),
        (OSError(36, "File name too long", "/other/set"), "cannot be the name of a file"),
    ],
)
def test_a_path_that_cannot_be_looked_at_is_one_sentence(
    calls: Calls, error: OSError, words: str
) -> None:
    calls.outcome = error
    result = wpcrack("infer", *NEEDED)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: /other/set {words}")
    assert result.stderr.count("\n") == 1
    calls.outcome = FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")
    assert "set TMPDIR to a folder" in wpcrack("infer", *NEEDED).stderr
    calls.outcome = PermissionError(13, "Permission denied")  # of no path
    assert isinstance(wpcrack("infer", *NEEDED).exception, PermissionError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiels=t",), "error: unknown key tiels on the command line; did you mean tiles?"),
        (("threshold=high", *NEEDED), "error: threshold is 'high', but must be a valid number"),
        (("nowhere.yaml", *NEEDED), "error: config nowhere.yaml does not exist"),
        ((), "error: tiles is required; set it as tiles=VALUE"),
        (
            ("tiles=a", "tiles=b", "out=o.gpkg"),
            "error: got tiles=a and tiles=b; give tiles once; several are written tiles=[a,b]\n",
        ),
        (
            (*NEEDED, "roads.id=ref", "roads={path: a.gpkg}"),
            "error: got roads.id=ref and roads={path: a.gpkg}; give roads once\n",
        ),
        (
            (*NEEDED, "roads={path: a.gpkg}", "roads={id: ref}"),
            "error: got roads={path: a.gpkg} and roads={id: ref}; give roads once\n",
        ),
    ],
)
def test_a_wrong_config_is_one_sentence_and_exit_1(
    calls: Calls, arguments: tuple[str, ...], message: str
) -> None:
    result = wpcrack("infer", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert calls.jobs == []


def test_of_a_single_value_that_is_set_twice_the_last_counts(calls: Calls) -> None:
    assert wpcrack("infer", *NEEDED, "batch=4", "batch=5").exit_code == 0
    assert [job.batch for job in calls.jobs] == [5]


@pytest.mark.parametrize(
    "words",
    ["windows --out o", "adapt --out o", "review map.gpkg", "submit infer --address http://h:1"],
)
def test_tiles_that_are_named_twice_are_refused_by_every_command(words: str) -> None:
    result = wpcrack(*words.split(), "tiles=a", "tiles=b")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: got tiles=a and tiles=b; give tiles once")


@pytest.mark.parametrize("arguments", [("review", "."), ("compare", "a", "b", "--out", "/")])
def test_a_folder_without_a_name_in_the_place_of_a_map_is_one_sentence(
    arguments: tuple[str, ...],
) -> None:
    result = wpcrack(*arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "is not a file; give a GeoPackage" in result.stderr


WHOLE = ("dataset", "--images", "i", "--masks", "m", "--out", "o", "--protocol", "whole")


@pytest.mark.parametrize(
    "arguments",
    [
        ("bogus",),
        ("infer", "--bogus"),
        ("infer", "infer", "another"),
        ("predict", "--model", "m", "--out", "o"),
        ("dataset", "--images", "i"),
        (*WHOLE, "--window", "96"),
        ("evaluate", "--model", "m", "--images", "i", "--masks", "k", "--split", "test"),
        ("config",),
    ],
)
def test_wrong_usage_exits_2(arguments: tuple[str, ...]) -> None:
    assert wpcrack(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("adapt --out o --images a --images b", "--images is given twice; give it once"),
        ("predict a --out o --out o", "--out is given twice"),
        ("predict a --out=", "--out is empty; give a value"),
        ("predict a | --out o", "an argument is empty; give a value"),
        ("predict --out=o |", "an argument is empty"),
        ("infer out=o.gpkg --plan |", "an argument is empty"),
        ("infer tiles=t out=o.gpkg --json=", "--json is empty"),
        ("label |", "an argument is empty"),
    ],
)
def test_an_option_given_twice_and_an_empty_path_are_refused(words: str, told: str) -> None:
    result = wpcrack(*("" if word == "|" else word for word in words.split()))
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


@pytest.mark.parametrize("name", ["train", "infer"])
def test_config_prints_documented_yaml(name: str) -> None:
    result = wpcrack("config", name)
    assert result.exit_code == 0
    assert result.stdout.startswith("# ")
    values = yaml.safe_load(result.stdout)
    assert isinstance(values, dict)


@pytest.mark.parametrize(
    ("name", "required"),
    [("train", ["data.root=d", "run_dir=r"]), ("infer", ["tiles=t", "out=o.gpkg"])],
)
def test_the_printed_config_is_what_the_command_takes_without_one(
    name: str, required: list[str], tmp_path: Path
) -> None:
    printed = tmp_path / "mine.yaml"
    printed.write_text(wpcrack("config", name).stdout, encoding="utf-8")
    assert read_job(name, [str(printed), *required]) == read_job(name, required)


def test_what_a_config_leaves_out_is_what_is_printed(tmp_path: Path) -> None:
    mine, required = tmp_path / "mine.yaml", ["data.root=d", "run_dir=r"]
    mine.write_text("data: {root: d}\nrun_dir: r\n")
    assert read_job("train", [str(mine)]) == read_job("train", required)
    mine.write_text("train: {steps: {adversarial: 0}}\n")
    steps = read_job("train", [str(mine), *required]).train.steps
    assert (steps.warmup, steps.adversarial, steps.detector) == (200, 0, 1000)
    mine.write_text("tune: {space: {seed: {choice: [1, 2]}}}\n")  # a space of its own
    assert list(read_job("tune", [str(mine), *required]).tune.space) == ["seed"]


def test_an_unknown_config_name_is_refused_with_the_known_ones() -> None:
    result = wpcrack("config", "nothing")
    assert result.exit_code == 1
    assert "infer, paper, pretrain, train" in result.stderr


def test_options_reach_the_functions_behind_the_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("jobs.dataset.run_dataset", lambda *a: seen.update(dataset=a))
    run_evaluate = Mock()
    run_evaluate.return_value = Mock(
        figure_error=None, **{"values.return_value": {}, "summary.return_value": ""}
    )
    monkeypatch.setattr("jobs.evaluate.run.run_evaluate", run_evaluate)
    run_predict = Mock()
    run_predict.return_value.exit_code = 0
    monkeypatch.setattr("jobs.predict.run_predict", run_predict)
    monkeypatch.setattr("jobs.demo.run.run_demo", lambda *a, **k: seen.update(demo=(a, k)))
    common = ("--images", "i", "--masks", "k")
    for arguments in (
        ("dataset", *common, "--out", "o", "--window", "96", "--val", "0.25", "--road", "r"),
        (
            "evaluate",
            *common,
            "--model",
            "m",
            "--resize",
            "256",
            "--json",
            "-",
            "--engine",
            "torch",
        ),
        ("predict", "--model", "m", "--out", "o", "a.jpg", "b.jpg", "--engine", "openvino"),
        ("demo", "--out", str(tmp_path), "--seed", "3", "--train"),
    ):
        result = wpcrack(*arguments)
        assert result.exit_code == 0, result.output
    images, masks, out, options = seen["dataset"]
    assert (images, masks, out) == (Path("i"), Path("k"), Path("o"))
    assert (options.window, options.val, options.road) == (96, 0.25, Path("r"))
    (scored,) = run_evaluate.call_args.args
    assert scored.engine == "torch"
    assert (scored.model, scored.images, scored.masks) == (Path("m"), Path("i"), Path("k"))
    assert (scored.resize, scored.manifest, scored.road) == (256, None, None)
    assert run_predict.call_args == (
        (Path("m"), Path("o"), [Path("a.jpg"), Path("b.jpg")]),
        {"threshold": 0.5, "engine": "openvino"},
    )
    assert seen["demo"] == ((tmp_path,), {"seed": 3, "options": DemoOptions(train=True)})


def test_a_tilde_in_options_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    run_predict = Mock()
    run_predict.return_value.exit_code = 0
    monkeypatch.setattr("jobs.predict.run_predict", run_predict)
    monkeypatch.setenv("HOME", "/home/anna")
    assert wpcrack("predict", "--out=~/o", "~/a.jpg", "b~.jpg").exit_code == 0
    _, out, images = run_predict.call_args.args
    assert (out, images) == (Path("/home/anna/o"), [Path("/home/anna/a.jpg"), Path("b~.jpg")])


@pytest.mark.parametrize("job", ["infer", "train"])
def test_a_job_file_is_a_program_of_its_own(job: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", f"jobs.{job}", "bogus=1"], capture_output=True, text=True, cwd=ROOT
    )
    assert run.returncode == 1
    assert run.stderr.startswith("error: unknown key bogus on the command line; ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("infer", *NEEDED),
        ("infer", *NEEDED, "--plan"),
        ("train", "data.root=d", "run_dir=r"),
        ("train", "data.root=d", "run_dir=r", "--dry-run"),
        ("tune", "data.root=d", "run_dir=r"),
        ("evaluate", "--model", "m", "--images", "i", "--masks", "k"),
    ],
)
def test_a_file_that_cannot_hold_the_figures_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    for place in ("jobs.cli.learn", "jobs.cli.map"):
        for name in ("read_job", "run_job"):
            monkeypatch.setattr(f"{place}.{name}", lambda *_: pytest.fail("work has begun"))
    for file in (tmp_path / "missing" / "a.json", tmp_path):
        result = wpcrack(*arguments, "--json", str(file))
        assert result.exit_code == 1
        assert result.stderr.endswith("name a file in a folder that exists and may be written\n")
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "missing").exists()


def test_figures_for_programs_lie_in_a_file_beside_the_text(calls: Calls, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert wpcrack("infer", *NEEDED, "--json", str(file)).stdout == "3 cracks\n"
    assert json.loads(file.read_text()) == {"n_cracks": 3}


def test_a_system_without_locks_of_folders_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with pytest.raises(SystemExit, match=r"^error: wpcrack needs Linux .* WSL 2 "):
        runpy.run_path(jobs.cli.__file__)


def test_the_version_is_that_of_the_package() -> None:
    assert wpcrack("--version").stdout == f"wpcrack {versions(('wpcrack',))['wpcrack']}\n"


@pytest.mark.parametrize("name", JOBS)
def test_what_the_registry_names_is_there(name: str) -> None:
    job = JOBS[name]
    places = [job.command, job.run, job.config, job.check]
    assert all(callable(find(place)) for place in places if place is not None)
    assert (job.shown == "file") <= (name in {path.stem for path in shipped_configs()})
    assert job.is_submitted <= (job.config is not None)


@pytest.mark.parametrize(
    "words",
    [
        "predict photos --out s3://us:pw@city/found?x=y",
        "evaluate --images photos --masks masks --model s3://city/found",
        "infer tiles=tiles out=o.gpkg model=s3://city/found",
        "train data.root=s3://city/found run_dir=run",
    ],
)
def test_an_address_in_the_place_of_a_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = wpcrack(*words.split())
    assert result.exit_code == 1
    assert "s3://city/found is an address, which is neither read nor written" in result.stderr
    assert not list(tmp_path.iterdir())
