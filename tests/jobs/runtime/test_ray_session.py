""""""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import pytest

from jobs.runtime.ray_session import (
    DRIVER_ENVIRONMENT,
    LOCAL_ENVIRONMENT,
    _wait_for_data_threads,
    prepare_environment,
    ray_session,
)
from jobs.runtime.signals import stop_on_sigterm
from wpcrack.errors import ConfigError


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*LOCAL_ENVIRONMENT, *DRIVER_ENVIRONMENT, "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")  # so that what the test sets is taken back
        monkeypatch.delenv(name)
    return monkeypatch


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


def test_a_cluster_that_is_not_there_is_named_within_seconds(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        bare_environment.setenv("RAY_ADDRESS", address)
        start = time.monotonic()
        with pytest.raises(ConfigError, match=f"no Ray answers at RAY_ADDRESS={address}"):
            ray_session(1).__enter__()
        assert time.monotonic() - start < 30


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
    bare_environment.setattr("jobs.runtime.ray_session._require", lambda *_: None)
    bare_environment.setattr("ray.shutdown", lambda: None)
    with ray_session(1, local=True):
        assert os.environ["RAY_ADDRESS"] == "10.0.0.1:6379"
        assert "RAY_GCS_SERVER_PORT" not in os.environ
    ((address, port),) = seen
    assert address == f"127.0.0.1:{port}"


def test_what_still_reads_from_ray_data_ends_before_ray_does() -> None:
    go = threading.Event()
    reader = threading.Thread(target=go.wait, name="iter_threaded", daemon=True)
    timer = threading.Timer(0.3, go.set)
    reader.start()
    timer.start()
    _wait_for_data_threads()
    assert go.is_set()
    assert not reader.is_alive()
