"""`wpcrack submit` against a stand-in of Ray's client: paths, exit codes, lost connections."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import jobs.cli
from jobs.cluster import follow as submit_follow
from jobs.cluster import submit
from jobs.cluster.api import (
    TALKATIVE,
    ClusterError,
    Node,
    bypass_proxy,
    connect,
    dashboard_url,
    explain_refusals,
    only_this_address,
    proxy_of,
    use_token,
)
from jobs.cluster.submit import Place, collect, map_paths, on_the_cluster, on_this_machine
from jobs.infer.job import InferJob
from jobs.settings.load import find_config, load
from jobs.train.job import TrainJob
from wpcrack.errors import ConfigError

URL = "http://127.0.0.1:8265"


class Client:
    """Takes the place of JobSubmissionClient: a job whose log and end are given."""

    def __init__(self) -> None:
        self.pieces: list[list[str | BaseException]] = [["one\n", "two\n"]]
        self.statuses = ["SUCCEEDED"]
        self.exit_code: int | None = 0
        self.stopped: list[str] = []
        self.sent: dict[str, Any] = {}
        self.files: dict[str, str] = {}

    def submit_job(self, *, entrypoint: str, runtime_env: dict[str, Any]) -> str:
        folder = Path(runtime_env["working_dir"])
        self.files = {
            str(p.relative_to(folder)): p.read_text("utf-8") if p.name == "job.yaml" else ""
            for p in folder.rglob("*")
            if p.is_file()
        }
        self.sent = {"entrypoint": entrypoint, **runtime_env}
        return "raysubmit_1"

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for piece in self.pieces.pop(0) if self.pieces else []:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def get_job_status(self, job_id: str) -> Any:
        name = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return SimpleNamespace(value=name, is_terminal=lambda: name not in ("PENDING", "RUNNING"))

    def get_job_info(self, job_id: str) -> Any:
        if job_id != "raysubmit_1":
            raise RuntimeError("Request failed with status code 404")
        status = SimpleNamespace(value=self.statuses[-1])
        return SimpleNamespace(status=status, driver_exit_code=self.exit_code, message="why\nnot")

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        self.statuses = ["STOPPED"]
        return True


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()
    monkeypatch.setattr(submit, "connect", lambda address: made)
    monkeypatch.setattr(submit, "nodes", lambda address: [Node("127.0.0.1", True, {"CPU": 2})])
    monkeypatch.setattr(submit_follow, "RETRY_S", (0, 0))
    return made


def wpcrack(*arguments: str) -> Result:
    return CliRunner().invoke(jobs.cli.app, ["submit", *arguments, "--address", URL])


INFER = ("infer", "tiles=t", "model=m", "out=o.gpkg")


def test_the_log_and_the_exit_code_of_the_job_come_through(client: Client) -> None:
    for status, code in (("SUCCEEDED", 0), ("FAILED", 1), ("FAILED", 3)):
        client.statuses, client.exit_code, client.pieces = [status], code, [["one\n", "two\n"]]
        result = wpcrack(*INFER)
        assert result.exit_code == code
        assert result.stdout == "one\ntwo\n"
        assert "wpcrack submit --attach raysubmit_1" in result.stderr
        assert "wpcrack submit infer tiles=t" in result.stderr


def test_only_our_packages_and_the_config_are_uploaded(client: Client) -> None:
    assert wpcrack(*INFER, "threshold=0.7").exit_code == 0
    assert {name.split("/")[0] for name in client.files} == {"wpcrack", "geo", "jobs", "job.yaml"}
    assert not [name for name in client.files if "__pycache__" in name or name.endswith(".pyc")]
    assert "jobs/configs/infer.yaml" in client.files
    assert "geo/page/static/" in "".join(client.files)
    job = json.loads(client.files["job.yaml"])
    assert job["threshold"] == 0.7
    assert client.sent["entrypoint"] == "python -m jobs.cli infer job.yaml"


def test_the_uploaded_config_gives_the_same_job(client: Client, tmp_path: Path) -> None:
    assert wpcrack("train", "data.root=/d", "run_dir=/1e3", "seed=7").exit_code == 0
    (tmp_path / "job.yaml").write_text(client.files["job.yaml"])
    expected = load(TrainJob, find_config("train"), ["data.root=/d", "run_dir=/1e3", "seed=7"])
    assert load(TrainJob, tmp_path / "job.yaml") == expected


def test_paths_are_absolute_for_a_job_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    job = InferJob.model_validate(
        {
            "tiles": ["t", "s3://b/t", "/vsizip/a.zip"],
            "model": "~/m",
            "out": "o.gpkg",
            "roads": {"path": "roads.gpkg", "id": "id"},
        }
    )
    values = map_paths(job, on_this_machine)
    assert values["tiles"] == [f"{tmp_path}/t", "s3://b/t", "/vsizip/a.zip"]
    assert values["model"] == "/home/someone/m"
    assert values["out"] == f"{tmp_path}/o.gpkg"
    assert values["roads"] == {**values["roads"], "path": f"{tmp_path}/roads.gpkg", "id": "id"}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"tiles": "t"}, "tiles=t"),
        ({"tiles": ["/a", "b/*.tif"]}, "tiles=b/"),
        ({"model": "runs/m"}, "model=runs/m"),
        ({"out": "~/o.gpkg"}, "out=~/o.gpkg"),
        ({"roads": {"path": "r.gpkg"}}, "roads.path=r.gpkg"),
    ],
)
def test_a_relative_path_is_refused_for_a_remote_cluster(change: dict[str, Any], key: str) -> None:
    fine = {"tiles": "s3://city/tiles", "model": "/mnt/m", "out": "/mnt/o.gpkg"}
    map_paths(InferJob.model_validate(fine), on_the_cluster)
    with pytest.raises(ConfigError, match=r"cannot see") as raised:
        map_paths(InferJob.model_validate(fine | change), on_the_cluster)
    assert str(raised.value).startswith(key)


def test_the_storage_of_checkpoints_is_a_path_too() -> None:
    job = {"data": {"root": "/d"}, "run_dir": "/r", "scaling": {"storage_path": "s3://b/runs"}}
    values = map_paths(TrainJob.model_validate(job), on_the_cluster)
    assert values["scaling"]["storage_path"] == "s3://b/runs"
    job["scaling"] = {"storage_path": "runs"}
    with pytest.raises(ConfigError, match=r"^scaling\.storage_path=runs is relative"):
        map_paths(TrainJob.model_validate(job), on_the_cluster)


def test_the_folder_of_mlflow_is_a_path_too() -> None:
    def sent(place: str, where: Place = on_the_cluster) -> Any:
        job = {"data": {"root": "/d"}, "run_dir": "/r", "tracking": {"mlflow": place}}
        return map_paths(TrainJob.model_validate(job), where)["tracking"]["mlflow"]

    for place in ("http://mlflow:5000", "sqlite:////mnt/runs.db", "/mnt/mlruns"):
        assert sent(place) == place
    for place in ("mlruns", "sqlite:///runs.db"):
        with pytest.raises(ConfigError, match=rf"^tracking\.mlflow={place} is relative"):
            sent(place)
    assert sent("mlruns", on_this_machine) == str(Path("mlruns").absolute())
    assert sent("sqlite:///r.db", on_this_machine) == f"sqlite:///{Path('r.db').absolute()}"
    assert sent("http://mlflow:5000", on_this_machine) == "http://mlflow:5000"


def test_a_cluster_with_a_node_elsewhere_is_remote(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Node("192.0.2.1", False, {})  # reserved for documentation: nobody's address
    monkeypatch.setattr(submit, "nodes", lambda address: [Node("127.0.0.1", True, {}), elsewhere])
    result = wpcrack(*INFER)
    assert result.exit_code == 1
    assert "cannot see" in result.stderr
    assert not client.sent


def test_a_connection_that_breaks_shows_each_line_once(client: Client) -> None:
    client.pieces = [["one\n", OSError("broken")], ["one\n", "two\n", RuntimeError("again")]]
    client.pieces.append(["one\ntwo\nthree\n"])
    assert wpcrack(*INFER).stdout == "one\ntwo\nthree\n"


def test_a_cluster_that_is_lost_or_forgot_the_job_is_given_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.pieces = [[RuntimeError("Request failed with status code 404")]]
    assert "started again" in wpcrack(*INFER).stderr
    monkeypatch.setattr(submit_follow, "PATIENCE_S", -1.0)
    client.pieces = [[OSError("no route")]]
    result = wpcrack(*INFER)
    assert result.exit_code == 1
    assert "has not answered" in result.stderr


def test_ctrl_c_without_a_terminal_leaves_the_job_running(client: Client) -> None:
    client.pieces = [[KeyboardInterrupt()]]
    result = wpcrack(*INFER)
    assert result.exit_code == 130
    assert "job raysubmit_1 goes on" in result.stderr
    assert client.stopped == []


@pytest.mark.parametrize(("answer", "stops"), [("s", True), ("d", False), ("", False)])
def test_ctrl_c_on_a_terminal_asks(
    client: Client, monkeypatch: pytest.MonkeyPatch, answer: str, stops: bool
) -> None:
    monkeypatch.setattr(submit, "_has_terminal", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    client.pieces = [["one\n", KeyboardInterrupt()], ["one\n", "kept\n"]]
    result = wpcrack(*INFER)
    assert result.exit_code == 130
    assert bool(client.stopped) == stops
    assert result.stdout == ("one\nkept\n" if stops else "one\n")


@pytest.mark.parametrize(
    ("code", "words"),
    [(None, "why not"), (127, "finds no `python`"), (137, "killed"), (-9, "killed")],
)
def test_a_driver_that_did_not_end_by_itself_is_explained(
    client: Client, code: int | None, words: str
) -> None:
    client.statuses, client.exit_code = ["FAILED"], code
    result = wpcrack(*INFER)
    assert result.exit_code == 1
    assert words in result.stderr


def test_detach_attach_and_stop(client: Client) -> None:
    assert wpcrack(*INFER, "--detach").stdout == ""
    assert wpcrack("--attach", "raysubmit_1").stdout == "one\ntwo\n"
    assert wpcrack("--attach", "raysubmit_2").exit_code == 1
    assert wpcrack("--stop", "raysubmit_1").exit_code == 0
    assert client.stopped == ["raysubmit_1"]


@pytest.mark.parametrize(
    "arguments", [(), ("infer", "--attach", "x"), ("fly",), ("--stop", "a", "--attach", "b")]
)
def test_wrong_usage_exits_2(client: Client, arguments: tuple[str, ...]) -> None:
    assert wpcrack(*arguments).exit_code == 2


def test_a_mistake_in_the_config_is_found_before_anything_is_sent(client: Client) -> None:
    result = wpcrack(*INFER, "treshold=1")
    assert result.exit_code == 1
    assert "did you mean threshold?" in result.stderr
    sweep = ("tune", "tune", "data.root=d", "run_dir=r", "tune.space={optim.speed: {choice: [1]}}")
    result = wpcrack(*sweep)
    assert result.exit_code == 1
    assert "unknown key optim.speed" in result.stderr
    assert not client.sent


@pytest.mark.parametrize("address", ["ray://head:10001", "auto://x", "http://", "http://h:x"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(ClusterError, match="dashboard"):
        dashboard_url(address)


def test_a_dashboard_that_is_not_there_is_named() -> None:
    with pytest.raises(ClusterError, match=r"no Ray dashboard answers at http://127\.0\.0\.1:1 "):
        connect("127.0.0.1:1")


def test_what_listens_but_is_no_dashboard_is_told_apart() -> None:
    with (
        pytest.raises(ClusterError, match="not answer like a Ray dash"),
        explain_refusals("http://h:1"),
    ):
        raise ConnectionError("Failed to connect to Ray at address: http://h:1.")
    with pytest.raises(ClusterError, match="refused: broken"), explain_refusals("http://h:1"):
        raise ConnectionResetError("broken")


def test_ray_does_not_tell_of_the_upload() -> None:
    from ray._private.runtime_env import packaging

    assert packaging.default_logger.name in TALKATIVE


def test_the_given_address_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    with only_this_address():
        assert "RAY_ADDRESS" not in os.environ
    assert os.environ["RAY_ADDRESS"] == "elsewhere:6379"


def test_a_token_switches_authentication_on_unless_the_user_decided(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    use_token()
    assert "RAY_AUTH_MODE" not in os.environ
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    use_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    use_token()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


def test_what_is_collected_runs_by_itself(tmp_path: Path) -> None:
    collect(tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "config", "infer"],
        cwd=tmp_path,
        env={"PATH": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "threshold" in run.stdout


def test_this_machine_is_reached_past_the_proxy_and_another_ones_proxy_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://proxy:3128")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "city.org")
    for url in ("http://127.0.0.1:8265", "http://localhost:8265"):
        assert proxy_of(url) == "http://proxy:3128"
        bypass_proxy(url)
        assert proxy_of(url) is None
    assert os.environ["NO_PROXY"] == "city.org,127.0.0.1,localhost"
    with socket.socket() as silent:
        silent.bind(("127.0.0.2", 0))
        url = f"http://127.0.0.2:{silent.getsockname()[1]}"
        with pytest.raises(ClusterError, match="no Ray dashboard answers"):
            connect(url)
    assert proxy_of(url) is None
    bypass_proxy("http://10.0.0.5:8265")
    with (
        pytest.raises(ClusterError, match=r"through the proxy http://proxy:3128.*NO_PROXY=10\.0"),
        explain_refusals("http://10.0.0.5:8265"),
    ):
        raise ConnectionError("403 Forbidden")
