"""Where a job's Ray comes from, and how it is left behind.

RAY_ADDRESS decides: if it is set (by a person, or by `ray job submit`), the job joins that
cluster. Otherwise it starts a Ray of its own on this machine, which nobody else joins and which
ends with the job, however the job ends. It never attaches to a Ray that merely happens to run here.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from jobs.runtime.signals import ignore_signals, keep_sigterm_handler
from jobs.runtime.terminal import first_line, say
from wpcrack.errors import ConfigError, WpcrackError

START_PATIENCE_S = 300.0
"""A Ray of our own starts in 7 s on a quiet machine, and in more than 30 s on one at work."""

LOCAL_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # else a local Ray writes a token into the home directory
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` starts every worker anew
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default; the old one warns
    # Beside other work the parts of a Ray need minutes to find each other; Ray gives them 5 to 60 s
    "RAY_py_gcs_connect_timeout_s": f"{START_PATIENCE_S:.0f}",
    "RAY_gcs_rpc_server_connect_timeout_s": f"{START_PATIENCE_S:.0f}",
    "RAY_agent_register_timeout_ms": f"{1000 * START_PATIENCE_S:.0f}",
    "RAY_worker_register_timeout_seconds": f"{START_PATIENCE_S:.0f}",
    "RAY_health_check_timeout_ms": "120000",  # a node that is slow is not taken for dead
}
"""Set for a Ray of our own, where the user did not set them; read when ray is imported."""

DRIVER_ENVIRONMENT = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray Data triggers a spurious error line for each actor
}
"""Set for our own process on every Ray, where the user did not set it."""

LOCAL_OBJECT_STORE_BYTES = 512 * 2**20
"""No pixels travel through the object store; Ray would reserve 30 % of the memory."""

READER_CPUS = 1
"""Logical CPUs left for Ray Data's own tasks: an actor pool that takes all of them hangs."""

DATA_THREADS = ("StreamingExecutor", "iter_threaded")
"""First words of the names of threads with which Ray Data executes and reads a data set."""

DATA_THREADS_TIMEOUT_S = 10.0
"""Ray Data's threads end within tenths of a second after their data set is closed."""

CONNECT_TIMEOUT_S = 5.0
"""A cluster that does not take a connection within this time is not there."""

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts the config of its autoscaler on the head, and where our start command (see
cluster.yaml) reads it; drivers run on the head."""


class RayStartError(WpcrackError):
    """A Ray of our own does not start on this machine."""


def prepare_environment(*, local: bool = False) -> None:
    """Set what Ray must find in the environment; call before `import ray`."""
    is_own = local or os.environ.get("RAY_ADDRESS", "local") in ("", "local")
    for name, value in {**DRIVER_ENVIRONMENT, **(LOCAL_ENVIRONMENT if is_own else {})}.items():
        os.environ.setdefault(name, value)


@contextmanager
def ray_session(
    cpus: float, *, gpus: float = 0, dashboard: bool = False, local: bool = False
) -> Iterator[None]:
    """Give a job its Ray: one that is already initialized, RAY_ADDRESS, or one of its own.

    A Ray of our own has at least the asked logical CPUs (they are counters, not cores), so a job
    that fits its plan never waits for resources that do not exist. What was started or joined here
    is left at the end, also after an exception; Ctrl-C cannot interrupt that.

    Args:
        cpus: Logical CPUs of the job's actors together, without READER_CPUS.
        gpus: GPUs of the job's actors together.
        dashboard: Whether a Ray of our own tries to run its dashboard: Ray Train logs less with it,
            and works without it.
        local: Never join RAY_ADDRESS (demo).

    Raises:
        ConfigError: Nobody answers at RAY_ADDRESS, or the cluster is smaller than asked.
        RayStartError: A Ray of our own did not start.
    """
    prepare_environment(local=local)
    import ray

    if ray.is_initialized():
        yield
        return
    address = "local" if local else os.environ.get("RAY_ADDRESS") or "local"
    try:
        with keep_sigterm_handler():
            if address == "local":
                _start(math.ceil(cpus) + READER_CPUS, dashboard)
            else:
                _join(address)
        _require(cpus + READER_CPUS, gpus, address)
        yield
    finally:
        with ignore_signals():
            _wait_for_data_threads()
            ray.shutdown()


def training_session(cpus: int, gpus: int, local: bool) -> AbstractContextManager[None]:
    """Give a training its Ray for the workers."""
    return ray_session(cpus, gpus=gpus, dashboard=True, local=local)


def run_interruptibly(work: Callable[[], object]) -> None:
    """Run `work` in a thread, so that Ctrl-C and SIGTERM reach this one as KeyboardInterrupt.

    In the main thread Ray Train would replace the handler by one that ends the process with a
    code of its own; leaving the session ends the workers as surely.
    """
    outcome: Future[object] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # handed to the waiting thread, which raises it
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True, name="wpcrack-fit").start()
    while not outcome.done():
        with suppress(TimeoutError):
            outcome.exception(timeout=0.2)  # short waits: a blocked lock would hold signals back
    outcome.result()


def reachable_resources() -> dict[str, float]:
    """Return resources of the joined cluster, at least those that it may grow to.

    Returns:
        Like ray.cluster_resources(); larger values where an autoscaler may add nodes, and no
        "memory" if only the nodes at hand say how much they have.
    """
    import ray
    from ray._private.state import state  # Ray Train and Data read the limits in the same way

    most: dict[str, float] = dict(ray.cluster_resources())  # type: ignore[no-untyped-call]
    limits: list[Mapping[str, float]] = [state.get_max_resources_from_cluster_config() or {}]
    file = BOOTSTRAP.expanduser()
    if file.is_file():
        import yaml

        limits.append(launcher_limit(yaml.safe_load(file.read_text("utf-8"))))
    for limit in limits:
        if limit and "memory" not in limit:
            most.pop("memory", None)  # that of the nodes to come is not known
        for name, value in limit.items():
            most[name] = max(most.get(name, 0.0), float(min(value, sys.maxsize)))
    return most


def launcher_limit(config: Mapping[str, Any]) -> dict[str, float]:
    """Return the largest sum of resources that a config of `ray up` allows.

    Args:
        config: As filled in by `ray up`: each node type with its resources and max_workers.
    """
    head, cap = config.get("head_node_type"), config.get("max_workers", 0)
    sums: dict[str, float] = {}
    for name, kind in (config.get("available_node_types") or {}).items():
        count = 1 if name == head else min(kind.get("max_workers", cap), cap)
        for resource, amount in (kind.get("resources") or {}).items():
            sums[resource] = sums.get(resource, 0.0) + count * float(amount)
    return sums


def knock(host: str, port: int) -> None:
    """Fail within seconds where nobody listens; Ray's own clients try for minutes.

    Raises:
        OSError: No connection.
    """
    with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S):
        pass


def _wait_for_data_threads() -> None:
    """Let Ray Data's threads end first: one that drops an object while Ray ends ends the process.

    Ray exits with code 1 and no word then ("the core worker has already been shutdown").
    """
    for thread in threading.enumerate():
        if thread.name.startswith(DATA_THREADS):
            thread.join(DATA_THREADS_TIMEOUT_S)


def _start(cpus: int, dashboard: bool) -> None:
    import ray

    try:
        with _quiet_stderr(), _own_address(), _patient_start():
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, cpus),
                include_dashboard=None if dashboard else False,  # None: go on if it fails
                object_store_memory=LOCAL_OBJECT_STORE_BYTES,
                logging_level=logging.WARNING,
                log_to_driver=False,
            )
    except Exception as error:  # of any kind, bare Exception among them
        raise RayStartError(
            f"Ray did not start on this machine ({first_line(error)}); end other programs or free "
            "memory and disk space, then give the same command again. Its logs are in "
            "/tmp/ray/session_latest/logs"
        ) from error


@contextmanager
def _patient_start() -> Iterator[None]:
    """Give a node START_PATIENCE_S to appear; Ray gives it 30 s, which no setting changes."""
    from ray._private import services

    once = services.get_node
    end = time.monotonic() + START_PATIENCE_S

    def patiently(gcs_address: str, node_id: str) -> object:
        while True:
            try:
                return once(gcs_address, node_id)  # type: ignore[no-untyped-call]
            except RuntimeError:  # not there yet
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    services.get_node = patiently
    try:
        yield
    finally:
        services.get_node = once


@contextmanager
def _own_address() -> Iterator[None]:
    """Let the processes of a Ray that is started inside know which one they belong to.

    Ray Train has a helper that asks whether its run is alive. Without RAY_ADDRESS it asks the
    latest Ray of this machine; if that is somebody else's, which knows no such run, the helper
    takes the workers from under it ("its placement group was removed").
    """
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = str(probe.getsockname()[1])
    address = {"RAY_GCS_SERVER_PORT": port, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    before = {name: os.environ.get(name) for name in address}
    os.environ.update(address)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _join(address: str) -> None:
    import ray

    try:
        host, _, port = address.rpartition("://")[2].rpartition(":")
        if host and port.isdigit():
            knock(host, int(port))
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    except ray.exceptions.AuthenticationError as error:
        raise ConfigError(
            f"the cluster at RAY_ADDRESS={address} asks for a token and got none, or a wrong one; "
            "set RAY_AUTH_MODE=token, and have its token in ~/.ray/auth_token"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"no Ray answers at RAY_ADDRESS={address} ({first_line(error)}); start that cluster, "
            "set RAY_AUTH_MODE=token if it asks for a token, or unset RAY_ADDRESS to work on this "
            "machine"
        ) from error


def _require(cpus: float, gpus: float, address: str) -> None:
    import ray

    now = ray.cluster_resources()  # type: ignore[no-untyped-call]
    has = reachable_resources()
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        if now.get(name, 0) < wanted <= has.get(name, 0):
            say(f"the cluster has {now.get(name, 0):g} of {wanted:g} {name}; waiting for nodes")
        elif has.get(name, 0) < wanted:
            place = "this machine" if address == "local" else f"the cluster at {address}"
            raise ConfigError(
                f"the job asks for {wanted:g} {name}, {place} has {has.get(name, 0):g}; "
                "ask for fewer workers or actors"
            )


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drop what libraries write to stderr, in C++ too; Ray's own logs have it."""
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
