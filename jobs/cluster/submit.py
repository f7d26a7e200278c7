"""A job on a Ray cluster: upload, follow its log, end with its exit code.

    wpcrack submit infer tiles=/mnt/tiles.txt model=/mnt/runs/city out=/mnt/maps/cracks.gpkg \
        --address http://127.0.0.1:8265

The job runs on the cluster whatever happens here; the same command continues it after a stop.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from jobs.cluster.api import ClusterError, connect, dashboard_url, explain_refusals, nodes
from jobs.cluster.follow import JobLog, Outcome, outcome
from jobs.runtime.folder import SQLITE, from_anywhere, is_address
from jobs.runtime.signals import INTERRUPTED
from jobs.runtime.terminal import say
from wpcrack.errors import ConfigError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

STOP_WAIT_S = 60
"""Time that a stopped job gets to keep its state, before Ray kills it; Ray's default is 3."""

SIGNALED = 128
"""A shell adds the number of the signal that ended its program."""

PROGRAM_NOT_FOUND = 127
"""Exit code of a shell that does not find the program."""


PACKAGES = ("wpcrack", "geo", "jobs")
"""Every dependency beside them is expected on the nodes."""

JOB_FILE = "job.yaml"
"""Config of the job; JSON, which is YAML that every reader understands alike."""

LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.py[co]", ".*")

TEXT_KEYS = frozenset({"tiles", "storage_path", "mlflow"})
"""Keys that name files although they are text: they may also be globs and URLs."""

Place = Callable[[str, str], str]
"""Gets a key and the path that it holds; returns the path for the cluster."""


@dataclass(frozen=True)
class Submission:
    """What is to run where.

    Attributes:
        command: subcommand of `wpcrack`.
        job: its validated config.
        address: of the cluster's dashboard.
        again: the command by which the user continues the job.
    """

    command: str
    job: BaseModel
    address: str
    again: str


def run_submit(submission: Submission, *, detach: bool = False) -> int:
    """Start a job on a cluster and stay with it until its end.

    Args:
        submission: What is to run where.
        detach: Leave as soon as the job is submitted.

    Returns:
        The exit code of the job; 130 after Ctrl-C; 0 after detaching as asked.

    Raises:
        ClusterError: The cluster does not answer, refuses us or the job, or is lost on the way.
        ConfigError: A path that the cluster cannot see.
    """
    url = dashboard_url(submission.address)
    client = connect(url)
    is_local = all(node.is_this_machine for node in nodes(url))
    place = on_this_machine if is_local else on_the_cluster
    values = map_paths(submission.job, place)
    entrypoint = shlex.join(["python", "-m", "jobs.cli", submission.command, JOB_FILE])
    job_id = start(client, url, entrypoint, values)
    say(_instructions(job_id, url, submission.again))
    return 0 if detach else _stay(client, url, job_id)


def run_attach(job_id: str, address: str) -> int:
    """Follow a job that was submitted before, from the beginning of its log.

    Returns:
        As for `run_submit`.

    Raises:
        ClusterError: As for `run_submit`, or there is no such job.
    """
    url = dashboard_url(address)
    client = connect(url)
    _require_job(client, url, job_id)
    return _stay(client, url, job_id)


def run_stop(job_id: str, address: str) -> int:
    """Stop a job and wait until it has kept its state.

    Returns:
        0: The job has ended, now or before.

    Raises:
        ClusterError: As for `run_attach`.
    """
    url = dashboard_url(address)
    client = connect(url)
    _require_job(client, url, job_id)
    with explain_refusals(url):
        if not client.stop_job(job_id):
            say(f"job {job_id} had ended already")
            return 0
    JobLog(client, url, job_id).wait()
    say(f"job {job_id} is stopped; what it finished is kept, and the same command continues")
    return 0


def start(
    client: JobSubmissionClient, url: str, entrypoint: str, values: dict[str, Any] | None
) -> str:
    """Upload our packages with the config of a job and start a command beside them.

    Returns:
        The id of the job.

    Raises:
        ClusterError: The upload or the job was refused.
    """
    with tempfile.TemporaryDirectory(prefix="wpcrack-") as name:
        folder = Path(name) / "job"
        folder.mkdir()
        collect(folder, values)
        with explain_refusals(url):
            return client.submit_job(
                entrypoint=entrypoint,
                runtime_env={
                    "working_dir": str(folder),
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
                },
            )


def _stay(client: JobSubmissionClient, url: str, job_id: str) -> int:
    """Show the log until the job ends or the user has enough."""
    log = JobLog(client, url, job_id)
    try:
        log.follow()
    except KeyboardInterrupt:
        if not _wants_stop():
            say(f"detached; job {job_id} goes on")
            return INTERRUPTED
        try:
            with explain_refusals(url):
                client.stop_job(job_id)
            log.follow()
        except KeyboardInterrupt:
            say(f"detached; job {job_id} is being stopped")
            return INTERRUPTED
    return _report(outcome(client, url, job_id), job_id)


def _wants_stop() -> bool:
    """Ask what Ctrl-C meant; without a terminal, and after a second Ctrl-C, it means detach."""
    if not _has_terminal():
        return False
    try:
        answer = input("\nstop the job, or detach and leave it running? [s/D] ")
    except (KeyboardInterrupt, EOFError):
        return False
    return answer.strip().lower() in ("s", "stop")


def _has_terminal() -> bool:
    return sys.stdin.isatty()


def _report(end: Outcome, job_id: str) -> int:
    """Say how a job ended, where its log does not, and return the exit code."""
    if end.status == "STOPPED":
        say(f"job {job_id} was stopped; what it finished is kept, and the same command continues")
        return INTERRUPTED
    if end.status == "SUCCEEDED":
        return 0
    if end.exit_code is None:
        raise ClusterError(
            f"job {job_id} failed before or beside its own work: {end.message}; the same command "
            "continues what was begun"
        )
    if end.exit_code == PROGRAM_NOT_FOUND:
        raise ClusterError(
            "the head node finds no `python`; start Ray there in an environment that is "
            "activated and holds this program's dependencies"
        )
    if end.exit_code < 0 or (end.exit_code > SIGNALED and end.exit_code != INTERRUPTED):
        raise ClusterError(
            f"the driver of job {job_id} was killed (exit code {end.exit_code}), often for want "
            "of memory on the head node; the same command continues"
        )
    return end.exit_code


def _require_job(client: JobSubmissionClient, url: str, job_id: str) -> None:
    try:
        client.get_job_info(job_id)
    except RuntimeError as error:
        raise ClusterError(
            f"the cluster at {url} knows no job {job_id}; `ray job list --address {url}` shows "
            "what it knows"
        ) from error


def _instructions(job_id: str, url: str, again: str) -> str:
    return "\n".join(
        (
            f"job {job_id} is submitted; it goes on if this terminal ends",
            f"  follow    wpcrack submit --attach {job_id} --address {url}",
            f"  stop      wpcrack submit --stop {job_id} --address {url}",
            f"  continue  {again}",
        )
    )


# -- paths: what the cluster can see, and what it cannot ----------------------------------------


def map_paths(job: BaseModel, place: Place, prefix: str = "") -> dict[str, Any]:
    """Return the values of a job as plain data, each path replaced by what `place` makes of it."""
    values = job.model_dump(mode="json")
    for name in type(job).model_fields:
        value, key = getattr(job, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            values[name] = map_paths(value, place, f"{key}.")
        elif isinstance(value, tuple | list):
            values[name] = [
                place(key, str(item)) if _is_path(name, item) else plain
                for item, plain in zip(value, values[name], strict=True)
            ]
        elif _is_path(name, value):
            values[name] = place(key, str(value))
    return values


def on_this_machine(key: str, text: str) -> str:
    """Return a path as seen from anywhere on this machine; URLs stay as they are."""
    return from_anywhere(text)


def on_the_cluster(key: str, text: str) -> str:
    """Return a path that means the same on other machines.

    Raises:
        ConfigError: A path that is relative to this machine's folders.
    """
    path = text.removeprefix(SQLITE)
    if is_address(path) or Path(path).is_absolute():
        return text
    raise ConfigError(
        f"{key}={text} is relative to a folder of this machine, which the cluster cannot see; "
        "give an absolute path on storage that every node mounts, or for tiles an s3:// or "
        "https:// address"
    )


def _is_path(name: str, value: object) -> bool:
    return isinstance(value, Path) or (name in TEXT_KEYS and isinstance(value, str))


# -- upload: our three packages and the config of the job, nothing else ------------------------


def collect(folder: Path, values: Mapping[str, Any] | None = None) -> None:
    """Copy our packages into an empty folder, and write the config of the job beside them.

    The files are collected instead of excluding what must not go: data, runs and environments lie
    wherever the user put them.

    Args:
        folder: Becomes the working directory of the job on every node.
        values: Of the job; None: the job has no config.
    """
    for name in PACKAGES:
        shutil.copytree(package_folder(name), folder / name, ignore=LEFT_OUT)
    if values is not None:
        text = json.dumps(values, indent=1, sort_keys=True) + "\n"
        (folder / JOB_FILE).write_text(text, encoding="utf-8")


def package_folder(name: str) -> Path:
    """Find where a package of ours lies, in a checkout or as installed; does not import it."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
