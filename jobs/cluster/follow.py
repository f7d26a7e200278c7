"""The log of a job on a cluster, line by line, also over a network that comes and goes."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import ClientError

from jobs.cluster.api import ClusterError, explain_refusals

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PATIENCE_S = 300.0
"""A cluster that does not answer for so long is given up; the job may well go on."""

RETRY_S = (0.2, 5.0)
"""Between two tries: the first pause, which doubles up to the second."""

UNKNOWN_JOB = "status code 404"
"""What Ray's client says of a job that the cluster does not know."""

MESSAGE_CHARS = 300
"""Ray repeats the end of the log in its message."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: SUCCEEDED, FAILED or STOPPED.
        exit_code: of the driver; None: it was never started, or ended with the cluster.
        message: Ray's own words, on one line.
    """

    status: str
    exit_code: int | None
    message: str


class JobLog:
    """Writes the log of a job to stdout, each character once, whatever the connection does."""

    def __init__(self, client: JobSubmissionClient, url: str, job_id: str) -> None:
        self._client, self._url, self._job_id = client, url, job_id
        self._seen = 0

    def follow(self) -> None:
        """Return when the job has ended and all of its log is written.

        Raises:
            ClusterError: The cluster has not answered for PATIENCE_S.
        """
        self._patiently(lambda: asyncio.run(self._tail()))

    def wait(self) -> None:
        """Return when the job has ended, without its log.

        Raises:
            ClusterError: As for `follow`.
        """
        self._patiently(lambda: None)

    def _patiently(self, step: Callable[[], None]) -> None:
        """Repeat a step until the job has ended."""
        answered, pause = time.monotonic(), RETRY_S[0]
        while True:
            try:
                step()
                has_ended = bool(self._client.get_job_status(self._job_id).is_terminal())
            except (ClientError, OSError, RuntimeError) as error:  # OSError: those of requests too
                self._refuse_to_wait(error, time.monotonic() - answered)
            else:
                answered = time.monotonic()
                if has_ended:
                    return
            time.sleep(pause)
            pause = min(2 * pause, RETRY_S[1])

    def _refuse_to_wait(self, error: Exception, silence_s: float) -> None:
        """End the patience with a cluster that forgot the job or is away for too long."""
        if UNKNOWN_JOB in str(error):
            raise ClusterError(
                f"the cluster at {self._url} does not know job {self._job_id} any more: its head "
                "was started again; submit the same command again, and it continues"
            ) from error
        if silence_s > PATIENCE_S:
            raise ClusterError(
                f"the cluster at {self._url} has not answered for {PATIENCE_S:.0f} s; if it is "
                f"alive, job {self._job_id} goes on: attach again, or submit the same command "
                "after its end to continue"
            ) from error

    async def _tail(self) -> None:
        """Write what is new; a new connection delivers the log from its beginning."""
        position = 0
        async for text in self._client.tail_job_logs(self._job_id):
            fresh = text[max(0, self._seen - position) :]
            position += len(text)
            self._seen = max(self._seen, position)
            sys.stdout.write(fresh)
            sys.stdout.flush()


def outcome(client: JobSubmissionClient, url: str, job_id: str) -> Outcome:
    """Return how an ended job ended.

    Raises:
        ClusterError: The cluster does not answer.
    """
    with explain_refusals(url):
        info: Any = client.get_job_info(job_id)
    message = " ".join((info.message or "").split())[:MESSAGE_CHARS]
    return Outcome(str(info.status.value), info.driver_exit_code, message)
