"""Real Ray clusters on loopback, which a test starts and ends.

A module beside conftest.py, like factories.py: `from clusters import running_head`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from factories import end_session, free_port, processes, wait_until

PATIENCE_S = 1200.0
"""For one command; on a quiet machine none takes a twentieth of it."""

OWN_MOUNTS = ("unshare", "--map-root-user", "--mount", "sh", "-c")
"""Runs a program in a mount namespace, in which it may mount what others do not see."""

LIFE_SIGNS = {
    "RAY_health_check_period_ms": "500",  # a killed node is noticed after 3 s, not 15
    "RAY_health_check_timeout_ms": "120000",  # a slow one is not taken for dead,
    "RAY_worker_register_timeout_seconds": "600",  # nor a process that starts slowly
    "RAY_prestart_worker_first_driver": "0",  # workers that nobody asked for
}
"""Settings of the cluster, so that the load of the machine decides nothing."""

START = """
from ray._private import services
from ray._private.node import Node
from ray.scripts.scripts import main

for name in ("start_monitor", "start_log_monitor", "start_ray_client_server"):
    setattr(Node, name, lambda *_, **options: None)
whole = services.start_ray_process

def start(command, kind, *given, **options):
    modules = ["--modules-to-load=JobHead,NodeHead,StateHead"] if kind == "dashboard" else []
    return whole([*command, *modules], kind, *given, **options)

services.start_ray_process = start
main()
"""
"""The program `ray`, whose head does without the processes that no command of ours asks: it adds
no nodes, shows no pages, and takes no drivers from elsewhere."""


class Head:
    """A Ray head of our own: its processes, its addresses and its token."""

    def __init__(self, folder: Path, cpus: int) -> None:
        self.folder = folder
        self.token = folder / "token"
        self.token.write_text("0123456789abcdef" * 4)
        gcs, dashboard, agent, client = (free_port() for _ in range(4))
        self.gcs, self.url = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        self.needed = dashboard, agent
        self.process = self._start(
            "head",
            "--head",
            f"--port={gcs}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}",
            f"--ray-client-server-port={client}",
            f"--temp-dir={folder}",
            f"--num-cpus={cpus}",
        )

    def join(self, cpus: int, *, hidden: Path | None = None) -> subprocess.Popen[bytes]:
        """Starts a second node on this machine; it has an empty folder in place of a hidden one."""
        agent = free_port()
        return self._start(
            "node",
            f"--address={self.gcs}",
            f"--num-cpus={cpus}",
            f"--dashboard-agent-listen-port={agent}",
            before=() if hidden is None else (*OWN_MOUNTS, f"mount -t tmpfs none {hidden}"),
        )

    def environment(self, token: Path | None = None) -> dict[str, str]:
        """What a user of this cluster has in the environment; our code is not on the path."""
        # the token and the loopback are those of Rays that tests start for themselves
        ours = {"PYTHONPATH", "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token or self.token)}
        return kept | secret | {"PATH": path}

    def _start(
        self, name: str, *options: str, before: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", START, "start", "--block", *options]
        command += ["--disable-usage-stats", f"--object-store-memory={100 * 2**20}"]
        if before:
            *tool, first = before
            command = [*tool, f"{first} && exec {shlex.join(command)}"]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=self.environment() | LIFE_SIGNS,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def answers(self) -> bool:
        """Whether the dashboard takes connections, and the agent that starts what it is sent."""
        assert self.process.poll() is None, (self.folder / "head.log").read_text()
        with suppress(OSError):
            for port in self.needed:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        return False


@contextmanager
def running_head(cpus: int) -> Iterator[Head]:
    """Start a head, and end it with all that it started."""
    folder = Path(tempfile.mkdtemp(prefix="wpc"))  # paths of sockets may have 107 characters
    started = Head(folder, cpus)
    try:
        wait_until(started.answers, PATIENCE_S)
        yield started
    finally:
        end_session(started.process)
        for pid in processes(None, os.fsencode(folder)):  # a worker that outlives a killed node
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
