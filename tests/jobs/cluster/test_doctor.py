"""`wpcrack doctor` tells what will fail, from facts that are given."""

from __future__ import annotations

import copy
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import jobs.cli
from jobs.cluster import doctor, machine
from jobs.cluster.api import ClusterError
from jobs.cluster.doctor import Check, compare_versions, machine_checks
from jobs.cluster.machine import PACKAGES, facts
from jobs.runtime.versions import LEFT_OUT_TO_MAP

ROOT = Path(__file__).resolve().parents[3]
GIB = 2**30


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return facts(str(tmp_path_factory.mktemp("storage")))


@pytest.fixture
def found(real: dict[str, Any]) -> dict[str, Any]:
    roomy = {"memory": {"total": 32 * GIB, "available": 20 * GIB}}
    roomy["shm"] = {"total": 12 * GIB, "free": 12 * GIB}
    roomy["disk"] = {"path": "/tmp", "total": 200 * GIB, "free": 100 * GIB}
    changed = copy.deepcopy(real) | roomy
    changed["storage"]["free"] = 100 * GIB
    return changed


def states(found: dict[str, Any], *, is_node: bool = False) -> dict[str, Check]:
    return {check.name: check for check in machine_checks(found, is_node=is_node)}


def test_a_machine_that_runs_the_tests_fails_nothing(found: dict[str, Any]) -> None:
    assert {check.state for check in states(found).values()} == {"ok"}
    assert "GDAL 3" in states(found)["maps"].text


@pytest.mark.parametrize(
    ("path", "value", "name", "words"),
    [
        (("python",), "3.10.1", "python", "3.11 or newer"),
        (("packages", "ray"), "2.9.0", "ray", "pip install 'ray["),
        (("packages", "ray"), None, "ray", "is missing"),
        (("packages", "pyogrio"), "0.1", "packages", "pyogrio 0.1 (>=0."),
        (("torch", "error"), "RuntimeError: nms", "torch", "install both again"),
        (("torch", "wanted"), "1.0.0", "torch", "belongs to torch 1.0.0"),
        (("maps", "missing"), ["GPKG"], "maps", "lacks GPKG"),
        (("maps", "error"), "CRSError: proj.db", "maps", "PROJ_LIB"),
        (("memory", "available"), GIB, "memory", "free 2.0 GiB"),
        (("disk", "free"), 10**6, "disk", "free 1.0 GiB"),
        (("storage", "error"), "Permission denied", "storage", "Permission denied"),
        (("storage", "free"), 10**6, "storage", "free 1.0 GiB"),
    ],
)
def test_what_will_fail_is_one_line_with_a_remedy(
    found: dict[str, Any], path: tuple[str, ...], value: object, name: str, words: str
) -> None:
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    check = states(found)[name]
    assert check.state == "FAIL"
    assert words in check.text
    assert "\n" not in check.line()
    assert [c.name for c in states(found).values() if c.state == "FAIL"] == [name]


def test_what_could_be_better_is_a_note(found: dict[str, Any]) -> None:
    found["torch"] |= {"gpus": [], "has_nvidia": True}
    found["shm"] = {"total": 64 * 2**20, "free": 64 * 2**20}
    found["memory"]["available"] = 3 * GIB
    noted = {name for name, check in states(found).items() if check.state == "note"}
    assert noted == {"gpu", "shm", "memory"}
    found["disk"]["free"] = 6 * GIB
    assert states(found)["disk"].state == "note"
    assert "--shm-size=9.6g" in states(found, is_node=True)["shm"].text


def test_an_installation_for_maps_alone_is_one(found: dict[str, Any]) -> None:
    found["packages"] |= dict.fromkeys(LEFT_OUT_TO_MAP)
    found["torch"] |= {"error": "ModuleNotFoundError: No module named 'torch'", "wanted": None}
    assert {name: c.state for name, c in states(found).items() if c.state != "ok"} == {
        "torch": "note"
    }
    assert "maps can be made" in states(found)["torch"].text
    found["packages"]["torchvision"] = "0.29.1"
    assert states(found)["torch"].state == "FAIL"


def test_other_versions_on_the_cluster_fail(found: dict[str, Any]) -> None:
    assert {check.state for check in compare_versions(found, found)} == {"ok"}
    other = copy.deepcopy(found) | {"python": "3.12.1"}
    other["packages"]["ray"] = "2.61.0"
    assert [check.state for check in compare_versions(found, other)] == ["FAIL", "FAIL"]
    assert "2.61.0 there" in next(compare_versions(found, other)).text


def test_a_cluster_that_does_not_answer_fails(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]
) -> None:
    def refuse(url: str) -> None:
        raise ClusterError("no Ray dashboard answers")

    monkeypatch.setattr(doctor, "connect", refuse)
    monkeypatch.setattr(doctor, "facts", lambda storage: found | {"storage": None})
    result = CliRunner().invoke(jobs.cli.app, ["doctor", "--address", "http://h:1", "--json", "-"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert not report["ok"]
    assert report["checks"][-1]["text"] == "no Ray dashboard answers"


def test_the_report_is_written_and_exit_codes_follow(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "facts", lambda storage: found)
    file = tmp_path / "report.json"
    result = CliRunner().invoke(jobs.cli.app, ["doctor", "--json", str(file)])
    assert result.exit_code == 0
    assert "ok    ray " in result.stdout
    assert json.loads(file.read_text())["ok"]
    nowhere = ["doctor", "--json", str(tmp_path / "a" / "b.json")]
    assert "does not exist; name a file" in CliRunner().invoke(jobs.cli.app, nowhere).stderr


def test_a_folder_that_a_job_would_make_is_fine_here_and_missing_on_a_cluster(
    found: dict[str, Any], tmp_path: Path
) -> None:
    found["storage"] = facts(str(tmp_path / "absent" / "deep"))["storage"]
    found["storage"]["free"] = 100 * GIB
    assert not list(tmp_path.iterdir())
    assert states(found)["storage"].state == "ok"
    assert "not there yet" in states(found)["storage"].text
    on_the_head = states(found, is_node=True)["storage"]
    assert on_the_head.state == "FAIL"
    assert "mount the shared folder" in on_the_head.text


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert facts(str(tmp_path / "file"))["storage"]["error"] == "Not a directory"


def test_a_folder_below_one_that_may_not_be_entered_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = os.stat

    def locked(path: Any, **how: Any) -> os.stat_result:
        if str(path).startswith(f"{tmp_path}/others/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return looking(path, **how)

    def full(**_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "others").mkdir()
    monkeypatch.setattr(os, "stat", locked)
    monkeypatch.setattr(machine.tempfile, "TemporaryDirectory", full)
    found = machine._storage(tmp_path / "others" / "runs" / "deep", None)
    assert (found["is_there"], found["error"]) == (False, "Permission denied")


def test_facts_are_gathered_without_our_dependencies() -> None:
    code = (
        "import sys\n"
        "class Nothing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {sorted(sys.stdlib_module_names)!r} + ['jobs']: return\n"
        "        raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Nothing())\n"
        "from jobs.cluster.machine import facts\n"
        "print(facts()['torch']['error'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout == "ModuleNotFoundError: torch\n", run.stderr


def test_every_package_that_is_looked_for_is_asked_for() -> None:
    assert set(PACKAGES) <= set(doctor.requirements())
