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
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from jobs.runtime.signals import sigterm_kept, undisturbed
from wpcrack.errors import ConfigError

LOCAL_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # else a local Ray writes a token into the home directory
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` starts every worker anew
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default; the old one warns
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


def prepare_environment(*, local: bool = False) -> None:
    """Sets what Ray must find in the environment; call before `import ray`."""
    is_own = local or os.environ.get("RAY_ADDRESS", "local") in ("", "local")
    for name, value in {**DRIVER_ENVIRONMENT, **(LOCAL_ENVIRONMENT if is_own else {})}.items():
        os.environ.setdefault(name, value)


@contextmanager
def ray_session(
    cpus: float, *, gpus: float = 0, dashboard: bool = False, local: bool = False
) -> Iterator[None]:
    """Gives a job its Ray: one that is already initialized, RAY_ADDRESS, or one of its own.

    A Ray of our own has at least the asked logical CPUs (they are counters, not cores), so a job
    that fits its plan never waits for resources that do not exist. What was started or joined here
    is left at the end, also after an exception; Ctrl-C cannot interrupt that.

    Args:
        cpus: Logical CPUs of the job's actors together, without READER_CPUS.
        gpus: GPUs of the job's actors together.
        dashboard: Whether a Ray of our own runs its dashboard (Ray Train logs without it).
        local: Never join RAY_ADDRESS (demo).

    Raises:
        ConfigError: Nobody answers at RAY_ADDRESS, or the cluster is smaller than asked.
    """
    prepare_environment(local=local)
    import ray

    if ray.is_initialized():
        yield
        return
    address = "local" if local else os.environ.get("RAY_ADDRESS") or "local"
    try:
        with sigterm_kept():
            if address == "local":
                _start(math.ceil(cpus) + READER_CPUS, dashboard)
            else:
                _join(address)
        _require(cpus + READER_CPUS, gpus, address)
        yield
    finally:
        with undisturbed():
            _wait_for_data_threads()
            ray.shutdown()


def _wait_for_data_threads() -> None:
    """Lets Ray Data's threads end first: one that drops an object while Ray ends ends the process.

    Ray exits with code 1 and no word then ("the core worker has already been shutdown").
    """
    for thread in threading.enumerate():
        if thread.name.startswith(DATA_THREADS):
            thread.join(DATA_THREADS_TIMEOUT_S)


def _start(cpus: int, dashboard: bool) -> None:
    import ray

    with _stderr_held_back(), _own_address():
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, cpus),
            include_dashboard=dashboard,
            object_store_memory=LOCAL_OBJECT_STORE_BYTES,
            logging_level=logging.WARNING,
            log_to_driver=False,
        )


@contextmanager
def _own_address() -> Iterator[None]:
    """Lets the processes of a Ray that is started inside know which one they belong to.

    Ray Train has a helper that asks whether its run is alive. Without RAY_ADDRESS it asks the
    latest Ray of this machine; if that is somebody else's, which knows no such run, the helper
    takes the workers from under it ("its placement group was removed").
    """
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = str(probe.getsockname()[1])
    told = {"RAY_GCS_SERVER_PORT": port, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
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
        _knock(address)
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    except ray.exceptions.AuthenticationError as error:
        raise ConfigError(
            f"the cluster at RAY_ADDRESS={address} asks for a token and got none, or a wrong one; "
            "set RAY_AUTH_MODE=token, and have its token in ~/.ray/auth_token"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"no Ray answers at RAY_ADDRESS={address} ({_first_line(error)}); start that cluster, "
            "set RAY_AUTH_MODE=token if it asks for a token, or unset RAY_ADDRESS to work on this "
            "machine"
        ) from error


def _knock(address: str) -> None:
    """Fails within seconds where nobody listens; ray.init() alone tries for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S):
            pass


def _require(cpus: float, gpus: float, address: str) -> None:
    import ray

    now = ray.cluster_resources()  # type: ignore[no-untyped-call]
    has = reachable_resources()
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        if now.get(name, 0) < wanted <= has.get(name, 0):
            print(
                f"the cluster has {now.get(name, 0):g} of {wanted:g} {name}; waiting for nodes",
                file=sys.stderr,
                flush=True,
            )
        elif has.get(name, 0) < wanted:
            place = "this machine" if address == "local" else f"the cluster at {address}"
            raise ConfigError(
                f"the job asks for {wanted:g} {name}, {place} has {has.get(name, 0):g}; "
                "ask for fewer workers or actors"
            )


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Keeps what libraries write to stderr to themselves, unless an exception makes it matter."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# ==== jobs.runtime.ray_session: What a cluster has, together with what its autoscaler may still add. A cluster at rest may have no worker at all; a job must not be refused for that. Nodes are added because tasks, actors and placement groups wait for them.


BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts the config of its autoscaler on the head, and where our start command (see
cluster.yaml) reads it; drivers run on the head."""


def reachable_resources() -> dict[str, float]:
    """Resources of the joined cluster, at least those that it may grow to.

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
        limits.append(launcher_limit(yaml.safe_load(file.read_text("utf-8"))))
    for limit in limits:
        if limit and "memory" not in limit:
            most.pop("memory", None)  # that of the nodes to come is not known
        for name, value in limit.items():
            most[name] = max(most.get(name, 0.0), float(min(value, sys.maxsize)))
    return most


def launcher_limit(config: Mapping[str, Any]) -> dict[str, float]:
    """The largest sum of resources that a config of `ray up` allows.

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


def interruptible(work: Callable[[], object]) -> None:
    """Runs `work` in a thread, so that Ctrl-C and SIGTERM reach this one as KeyboardInterrupt.

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


@contextmanager
def training_session(cpus: int, gpus: int, local: bool, *, in_process: bool) -> Iterator[None]:
    """Ray for the workers; in-process training needs none."""
    if in_process:
        yield
        return
    with ray_session(cpus, gpus=gpus, dashboard=True, local=local):
        yield
