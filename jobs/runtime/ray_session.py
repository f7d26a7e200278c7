"""Where a job's Ray comes from, and how it is left behind.

RAY_ADDRESS decides: if it is set (by a person, or by `ray job submit`), the job joins that
cluster. Otherwise it starts a Ray of its own on this machine, which nobody else joins and which
ends with the job, however the job ends. It never attaches to a Ray that merely happens to run here.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from jobs.runtime.capacity import Request, require
from jobs.runtime.cpus import usable_cpus
from jobs.runtime.losses import end_with_ray, explain_losses, knock, watch_head
from jobs.runtime.ray_needs import (
    RayStartError,
    require_open_files,
    require_space,
    short_folder,
    usual_folder,
)
from jobs.runtime.ray_private import few_processes, patient_start
from jobs.runtime.signals import ignore_signals, keep_sigterm_handler
from jobs.runtime.terminal import say
from wpcrack.errors import ConfigError, first_line

START_PATIENCE_S = 300.0
"""A Ray of our own starts in 7 s on a quiet machine, and in more than 30 s on one at work."""

STARTS = 3
"""Tries to start a Ray of our own, whose processes may give each other up on a machine at work."""

TOKEN_BYTES = 32

LOCAL_ENVIRONMENT = {
    # Else anybody in the network could run code here. The token goes to the processes of this job
    # through the environment; without one Ray would write it into the home directory.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(TOKEN_BYTES),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # everywhere: all ports on loopback alone
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` starts every worker anew
    "RAY_prestart_worker_first_driver": "0",  # else a worker for each CPU, which nobody may need
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

DATA_THREADS = ("StreamingExecutor", "iter_threaded")
"""First words of the names of threads with which Ray Data executes and reads a data set."""

DATA_THREADS_TIMEOUT_S = 10.0
"""Ray Data's threads end within tenths of a second after their data set is closed."""

FIT_ENDS_S = 10.0
"""Patience with the thread of a training whose controller was ended."""


def joins_cluster(*, local: bool = False) -> bool:
    """Return whether a job joins the cluster that RAY_ADDRESS names.

    Args:
        local: Never join RAY_ADDRESS.

    Raises:
        ConfigError: RAY_ADDRESS is of a kind that a job cannot join.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if local or address in ("", "local"):
        return False
    scheme = address.partition("://")[0] if "://" in address else ""
    if scheme in ("http", "https"):
        raise ConfigError(
            f"RAY_ADDRESS={address} is the address of a dashboard, which no job can join; give it "
            "to `wpcrack submit ... --address`, or on a node of the cluster set "
            "RAY_ADDRESS=HEAD:6379"
        )
    if scheme:
        raise ConfigError(
            f"RAY_ADDRESS={address} is for Ray Client, which this program does not use; give "
            "`wpcrack submit ... --address http://HEAD:8265`, or on a node of the cluster set "
            "RAY_ADDRESS=HEAD:6379"
        )
    return True


def prepare_environment(*, local: bool = False) -> None:
    """Set what Ray must find in the environment; call before `import ray`."""
    is_own = local or os.environ.get("RAY_ADDRESS", "local") in ("", "local")
    for name, value in {**DRIVER_ENVIRONMENT, **(LOCAL_ENVIRONMENT if is_own else {})}.items():
        os.environ.setdefault(name, value)


@contextmanager
def ray_session(
    request: Request, *, dashboard: bool = False, local: bool = False
) -> Iterator[None]:
    """Give a job its Ray: one that is already initialized, RAY_ADDRESS, or one of its own.

    A Ray of our own has at least the asked logical CPUs (they are counters, not cores), so a job
    that fits its plan never waits for resources that do not exist. What was started or joined here
    is left at the end, also after an exception; Ctrl-C cannot interrupt that.

    Args:
        request: What the job needs at least.
        dashboard: Whether a Ray of our own tries to run its dashboard: Ray Train logs less with it,
            and works without it.
        local: Never join RAY_ADDRESS (demo).

    Raises:
        ConfigError: Nobody answers at RAY_ADDRESS, or its nodes can never hold what is asked.
        RayStartError: A Ray of our own did not start.
        LostProcess: A process of Ray, or a machine, ended too often.
    """
    prepare_environment(local=local)
    import ray

    if ray.is_initialized():
        with explain_losses():
            yield
        return
    address = os.environ["RAY_ADDRESS"] if joins_cluster(local=local) else "local"
    try:
        with keep_sigterm_handler():
            if address == "local":
                _start(math.ceil(request.cpus), dashboard)
            else:
                _join(address)
        require(request, "this machine" if address == "local" else f"the cluster at {address}")
        is_own = address == "local"
        with (
            explain_losses(),
            end_with_ray() if is_own else watch_head(ray.get_runtime_context().gcs_address),
        ):
            yield
    finally:
        with ignore_signals():
            _wait_for_data_threads()
            ray.shutdown()


def training_session(request: Request, local: bool) -> AbstractContextManager[None]:
    """Give a training its Ray for the workers."""
    return ray_session(request, dashboard=True, local=local)


def run_interruptibly(
    work: Callable[[], object], release: Callable[[], bool] | None = None
) -> None:
    """Run `work` in a thread, so that Ctrl-C and SIGTERM reach this one as KeyboardInterrupt.

    In the main thread Ray Train would replace the handler by one that ends the process with a
    code of its own; leaving the session ends the workers as surely.

    Args:
        work: What is done.
        release: Called after an interruption: ends what `work` waits for, so that its thread is
            over before Ray ends. Returns whether it found anything.
    """
    outcome: Future[object] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # handed to the waiting thread, which raises it
            outcome.set_exception(error)

    thread = threading.Thread(target=run, daemon=True, name="wpcrack-fit")
    thread.start()
    try:
        while not outcome.done():
            with suppress(TimeoutError):
                outcome.exception(timeout=0.2)  # short waits: a blocked lock would hold signals
    except KeyboardInterrupt:
        with ignore_signals():
            if release is not None and release():
                thread.join(FIT_ENDS_S)
        raise
    outcome.result()


def _wait_for_data_threads() -> None:
    """Let Ray Data's threads end first: one that drops an object while Ray ends ends the process.

    Ray exits with code 1 and no word then ("the core worker has already been shutdown").
    """
    for thread in threading.enumerate():
        if thread.name.startswith(DATA_THREADS):
            thread.join(DATA_THREADS_TIMEOUT_S)


def _start(cpus: int, dashboard: bool) -> None:
    import ray

    require_open_files()
    short = short_folder()
    require_space(short or usual_folder())
    for left in reversed(range(STARTS)):
        try:
            with (
                _quiet_stderr(),
                _own_address(),
                patient_start(START_PATIENCE_S),
                few_processes(dashboard),
            ):
                ray.init(
                    address="local",
                    num_cpus=max(usable_cpus(), cpus),
                    include_dashboard=None if dashboard else False,  # None: go on if it fails
                    object_store_memory=LOCAL_OBJECT_STORE_BYTES,
                    logging_level=logging.WARNING,
                    log_to_driver=False,
                    _temp_dir=short,
                )
            return
        except Exception as error:  # of any kind, bare Exception among them
            if left and isinstance(error, ConnectionError):
                say(f"Ray did not start ({first_line(error)}); starting it again")
                continue
            logs = f"{short or os.path.join(usual_folder(), 'ray')}/session_latest/logs"
            raise RayStartError(
                f"Ray did not start on this machine ({first_line(error)}); end other programs or "
                "free memory and disk space, then give the same command again. Its logs are in "
                f"{logs}"
            ) from error


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
        with _quiet_stderr():  # Ray tells there that it has read RAY_BACKEND_LOG_LEVEL
            ray.init(logging_level=logging.WARNING, log_to_driver=False)
    except (ray.exceptions.AuthenticationError, OSError, ValueError, RuntimeError) as error:
        if _lacks_token(error):
            raise ConfigError(
                f"the cluster at RAY_ADDRESS={address} asks for a token and got none, or a wrong "
                "one; set RAY_AUTH_MODE=token, and have its token in ~/.ray/auth_token"
            ) from error
        raise ConfigError(
            f"no Ray answers at RAY_ADDRESS={address} ({first_line(error)}); start that cluster, "
            "set RAY_AUTH_MODE=token if it asks for a token, or unset RAY_ADDRESS to work on this "
            "machine"
        ) from error


def _lacks_token(error: BaseException | None) -> bool:
    """Return whether a cluster asks for a token; Ray hides that in the text of a cause."""
    from ray.exceptions import AuthenticationError

    while error is not None:
        if isinstance(error, AuthenticationError) or AuthenticationError.__name__ in str(error):
            return True
        error = error.__cause__
    return False


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
