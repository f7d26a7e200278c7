"""A Ray of our own, or one that was joined: started patiently, left as it was found."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray  # before the environment of a test is bare: it reads then whether tokens are asked
from factories import descendants, infer_job, processes, running_python, wait_until
from ray.exceptions import AuthenticationError

from jobs.infer.run import run_inference
from jobs.runtime import losses, ray_needs, ray_private
from jobs.runtime.capacity import Request
from jobs.runtime.losses import LostProcess, explain_losses
from jobs.runtime.ray_needs import LONGEST_SOCKET, RayStartError, short_folder
from jobs.runtime.ray_private import patient_start
from jobs.runtime.ray_session import (
    DRIVER_ENVIRONMENT,
    LOCAL_ENVIRONMENT,
    _join,
    _wait_for_data_threads,
    joins_cluster,
    prepare_environment,
    ray_session,
)
from jobs.runtime.signals import stop_on_sigterm
from wpcrack.errors import ConfigError

ONE = Request("worker", 1, {"CPU": 1})


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*LOCAL_ENVIRONMENT, *DRIVER_ENVIRONMENT, "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")  # so that what the test sets is taken back
        monkeypatch.delenv(name)
    return monkeypatch


def caused_by(cause: Exception) -> Exception:
    """Wrap an error as Ray does."""
    error = ConnectionError("not connected")
    error.__cause__ = cause
    return error


def test_a_local_ray_gets_its_environment_but_what_the_user_set_stays(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    bare_environment.setenv("RAY_USAGE_STATS_ENABLED", "1")
    prepare_environment()
    expected = LOCAL_ENVIRONMENT | {"RAY_USAGE_STATS_ENABLED": "1"}
    assert {name: os.environ[name] for name in LOCAL_ENVIRONMENT} == expected


def test_settings_of_a_local_ray_are_not_forced_on_a_named_cluster(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    bare_environment.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    prepare_environment()
    assert not set(LOCAL_ENVIRONMENT) & set(os.environ)
    assert set(DRIVER_ENVIRONMENT) <= set(os.environ)


def test_a_job_that_joins_a_cluster_shows_no_line_of_ray(
    bare_environment: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bare_environment.setattr("ray.init", lambda **_: os.write(2, b"Set ray log level"))
    _join("local")
    assert capfd.readouterr().err == ""


def test_a_cluster_that_is_not_there_is_named_before_ray_tries_for_minutes(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    bare_environment.setattr("ray.init", lambda **_: pytest.fail("Ray was asked"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        bare_environment.setenv("RAY_ADDRESS", address)
        with pytest.raises(ConfigError, match=f"no Ray answers at RAY_ADDRESS={address}"):
            ray_session(ONE).__enter__()


def test_a_head_with_a_number_of_ipv6_is_asked_at_that_number(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    asked = []
    bare_environment.setattr(
        "socket.create_connection", lambda place, **_: asked.append(place) or nullcontext()
    )
    bare_environment.setattr("ray.init", lambda **_: None)
    _join("[fd00::1]:6379")
    assert asked == [("fd00::1", 6379)]


REFUSED = "Traceback:\nray.exceptions.AuthenticationError: RPC error: InvalidAuthToken"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AuthenticationError("no token"), "asks for a token and got none, or a wrong one"),
        (caused_by(RuntimeError(REFUSED)), "asks for a token and got none, or a wrong one"),
        (caused_by(RuntimeError("timed out")), r"no Ray answers at .* \(not connected\)"),
    ],
)
def test_a_cluster_that_asks_for_a_token_is_told_from_one_that_is_not_there(
    bare_environment: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def init(**_: object) -> None:
        raise error

    bare_environment.setattr("ray.init", init)
    with pytest.raises(ConfigError, match=words):
        _join("auto")


def test_sigterm_interrupts_a_job_and_is_restored_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stop_on_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_processes_of_a_ray_of_our_own_are_told_where_it_is(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    bare_environment.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    seen: list[tuple[str, str]] = []

    def started(**_: object) -> None:
        seen.append((os.environ["RAY_ADDRESS"], os.environ["RAY_GCS_SERVER_PORT"]))

    bare_environment.setattr("ray.init", started)
    bare_environment.setattr("jobs.runtime.ray_session.require", lambda *_: None)
    bare_environment.setattr("ray.shutdown", lambda: None)
    with ray_session(ONE, local=True):
        assert os.environ["RAY_ADDRESS"] == "10.0.0.1:6379"
        assert "RAY_GCS_SERVER_PORT" not in os.environ
    ((address, port),) = seen
    assert address == f"127.0.0.1:{port}"


UNUSED = {"monitor.py", "dashboard.py", "default_worker.py"}
"""Programs of Ray that a Ray of our own goes without."""

INTRUDER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(ray.get(ray.remote(lambda: "intruded").remote()))
"""


@pytest.mark.ray
def test_nobody_else_can_join_a_ray_of_our_own(bare_environment: pytest.MonkeyPatch) -> None:
    """Not by the network, as all listens on loopback; not by the machine, without the token.

    Nor does it run a process that it does not use: each costs a second of CPU and may listen.
    """
    with ray_session(ONE, local=True):
        address = ray.get_runtime_context().gcs_address
        session = {os.getpid(), *(int(p) for p in descendants(os.getpid()))}
        assert {place for place in listening(session) if not is_loopback(place)} == set()
        words = [Path(f"/proc/{p}/cmdline").read_text().split("\0") for p in session]
        assert UNUSED & {os.path.basename(word) for word in itertools.chain(*words)} == set()
        given = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        given["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else it does not even look on loopback
        intruders = [
            subprocess.Popen(
                [sys.executable, "-c", INTRUDER, address],
                env=given | token,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for token in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32})
        ]  # at once: each tries for a while
        for intruder in intruders:
            output, errors = intruder.communicate()
            assert intruder.returncode != 0
            assert "intruded" not in output
            assert "Failed to connect to Ray cluster" in errors
        names = [Path(f"/proc/{p}/cmdline").read_text() for p in descendants(os.getpid())]
        assert not [name for name in names if name.startswith("ray::") and "Agent" not in name]
        assert ray.get(ray.remote(lambda: "ours").remote()) == "ours"


def listening(pids: set[int]) -> set[str]:
    """List the addresses, as /proc writes them, on which processes listen."""
    inodes = set()
    for pid in pids:
        with suppress(OSError):
            for file in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    inodes.add(os.readlink(file))
    rows = [line.split() for name in ("tcp", "tcp6") for line in tcp_lines(name)]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def tcp_lines(name: str) -> list[str]:
    return Path(f"/proc/net/{name}").read_text().splitlines()[1:]


def is_loopback(place: str) -> bool:
    """Return whether an address of /proc/net is 127.0.0.1, or that in IPv6, or ::1."""
    host = place.partition(":")[0]
    return host.endswith("0100007F") or host == "00000000000000000000000001000000"


def test_what_still_reads_from_ray_data_ends_before_ray_does() -> None:
    go = threading.Event()
    reader = threading.Thread(target=go.wait, name="iter_threaded", daemon=True)
    timer = threading.Timer(0.3, go.set)
    reader.start()
    timer.start()
    _wait_for_data_threads()
    assert go.is_set()
    assert not reader.is_alive()


def test_a_ray_that_does_not_start_is_one_sentence(
    bare_environment: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> None:
        os.write(2, b"a traceback of 95 lines")
        raise Exception("The current node timed out during startup.\nFurther lines")  # as Ray does

    bare_environment.setattr("ray.init", fails)
    with (
        pytest.raises(RayStartError, match="did not start") as caught,
        ray_session(ONE, local=True),
    ):
        pass
    assert "timed out during startup); end" in str(caught.value)  # no period in brackets
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_node_that_takes_long_to_appear_is_waited_for(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    from ray._private import services

    answers = [RuntimeError("no such node"), RuntimeError("no such node"), {"labels": {}}]

    def look(address: str, node: str) -> object:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    bare_environment.setattr(services, "get_node", look)
    bare_environment.setattr(ray_private, "has_raylet", lambda: True)
    with patient_start(60):
        assert services.get_node("127.0.0.1:1", "a") == {"labels": {}}
    assert services.get_node is look


def test_a_dashboard_that_fails_does_not_prevent_a_training(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []
    bare_environment.setattr("ray.init", lambda **given: asked.append(given["include_dashboard"]))
    bare_environment.setattr("jobs.runtime.ray_session.require", lambda *_: None)
    bare_environment.setattr("ray.shutdown", lambda: None)
    for wanted in (True, False):
        with ray_session(ONE, local=True, dashboard=wanted):
            pass
    assert asked == [None, False]  # True would make Ray raise


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:8265", "is the address of a dashboard.*wpcrack submit"),
        ("ray://10.0.0.1:10001", "is for Ray Client.*wpcrack submit.*RAY_ADDRESS=HEAD:6379"),
    ],
)
def test_an_address_that_no_job_can_join_is_refused_before_any_work(
    bare_environment: pytest.MonkeyPatch, address: str, words: str
) -> None:
    bare_environment.setenv("RAY_ADDRESS", address)
    bare_environment.setattr("ray.init", lambda **_: pytest.fail("Ray was asked"))
    with pytest.raises(ConfigError, match=words):
        ray_session(ONE).__enter__()
    job = infer_job(Path("never"), Path("never.gpkg"))
    with pytest.raises(ConfigError, match=words):
        run_inference(job)
    assert not joins_cluster(local=True)


def test_a_long_folder_of_temporary_files_is_replaced_by_a_short_one(
    bare_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str | None] = []
    bare_environment.setattr("ray.init", lambda **given: asked.append(given["_temp_dir"]))
    bare_environment.setattr("jobs.runtime.ray_session.require", lambda *_: None)
    bare_environment.setattr("ray.shutdown", lambda: None)
    bare_environment.delenv("RAY_TMPDIR", raising=False)
    for folder in ("/tmp/slurm", f"/scratch/{'x' * 40}/job"):
        bare_environment.setenv("TMPDIR", folder)
        with ray_session(ONE, local=True):
            pass
    usual, short = asked
    assert usual is None
    assert short is not None
    assert len(short + LONGEST_SOCKET) <= 107
    with pytest.raises(RayStartError, match="set RAY_TMPDIR to a short folder"):
        short_folder([str(tmp_path / "missing")])


def test_a_folder_of_temporary_files_that_is_gone_or_full_is_not_rays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "file" / "job"))  # nobody can make it
    assert short_folder([str(tmp_path)]) == str(tmp_path / f"ray-{os.getuid()}")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1e6))
    with pytest.raises(RayStartError, match="has 1 MB free, and Ray needs 20; free space there"):
        ray_needs.require_space(str(tmp_path / "new"))


def test_a_ray_whose_raylet_ends_while_it_starts_is_started_again(
    bare_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ray._private import services

    def absent(address: str, node: str) -> object:
        raise RuntimeError("no such node")

    starts: list[int] = []

    def start(**_: object) -> None:
        starts.append(1)
        if len(starts) < 3:
            services.get_node("127.0.0.1:1", "a")

    assert not ray_private.has_raylet()  # this process has none
    bare_environment.setattr(services, "get_node", absent)
    bare_environment.setattr("ray.init", start)
    bare_environment.setattr("jobs.runtime.ray_session.require", lambda *_: None)
    bare_environment.setattr("ray.shutdown", lambda: None)
    with ray_session(ONE, local=True):
        assert len(starts) == 3
    assert capsys.readouterr().err.count("its raylet ended while it started") == 2


def test_too_few_open_files_are_refused_and_enough_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = [(64, 64), (256, 10**6)]
    monkeypatch.setattr(ray_needs.resource, "getrlimit", lambda kind: limits.pop(0))
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(ray_needs.resource, "setrlimit", lambda kind, both: taken.append(both))
    monkeypatch.setattr(ray_needs, "usable_cpus", lambda: 4)
    with pytest.raises(RayStartError, match=r"64 open files.*ulimit -n 320"):
        ray_needs.require_open_files()
    ray_needs.require_open_files()
    assert taken == [(320, 10**6)]


def test_a_lost_process_is_one_sentence_and_a_fault_of_ours_is_not() -> None:
    from ray.exceptions import ActorDiedError, RayActorError, RaySystemError, WorkerCrashedError

    for lost in (ActorDiedError(), WorkerCrashedError()):
        told = pytest.raises(LostProcess, match=r"lost \(.+ what is finished is kept")
        with told, explain_losses():
            raise lost
    for ours in (
        RayActorError(error_msg="raised as it began", actor_init_failed=True),
        RaySystemError("a class that no worker can import"),
        ValueError("of a block"),
    ):
        with pytest.raises(type(ours)), explain_losses():
            raise ours


def test_a_ray_that_ends_ends_the_process_with_a_sentence(tmp_path: Path) -> None:
    code = """
import threading
from jobs.runtime import losses

ended = []
losses.lost_process = lambda: "raylet" if ended else ""
with losses.end_with_ray():
    pass
with losses.end_with_ray():
    ended.append(True)
    threading.Event().wait(600)
"""
    log = tmp_path / "log"
    with running_python(code, log) as process:
        assert process.wait(600) == 1
    told = log.read_text()
    assert told.startswith("error: a process of Ray, or its machine, was lost (raylet)")
    assert told.count("\n") == 1


def test_a_head_that_was_joined_and_answers_no_more_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(losses, "say", said.append)
    monkeypatch.setattr(losses, "KNOCK_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        monkeypatch.setattr(losses, "SILENT_S", 0.0)
        with losses.watch_head(address):
            for _ in range(3):
                head.accept()[0].close()  # it knocks again and again
            assert said == []
            head.close()
            wait_until(lambda: "wpcrack-head" not in {t.name for t in threading.enumerate()})
    (warning,) = said
    assert warning.startswith(f"warning: the head of the cluster at {address} has not answered for")


def test_what_processes_of_ray_have_started_ends_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in a session of its own, as Ray's agents are."""
    code = "import subprocess as s; print(s.Popen(['sleep', '600'], start_new_session=True).pid)"
    parent = subprocess.Popen(
        [sys.executable, "-u", "-c", f"{code}\nimport time; time.sleep(600)"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        node = SimpleNamespace(
            all_processes={"raylet": [SimpleNamespace(process=parent)]},
            kill_all_processes=lambda check_alive: parent.kill(),
        )
        monkeypatch.setattr("ray._private.worker._global_node", node)
        ray_private.kill_processes()
    wait_until(lambda: child not in processes())
