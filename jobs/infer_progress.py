"""One line that says how far a job is, how fast, and how long it will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from jobs.infer_worker import BlockResult

LOG_INTERVAL_S = 10.0
"""Without a terminal a new line is written at most this often."""


class Progress:
    """Counts finished blocks; rewrites its line on a terminal, else writes one now and then."""

    def __init__(
        self, total: int, done: Sequence[BlockResult] = (), stream: TextIO | None = None
    ) -> None:
        self.total = total
        self.done = len(done)
        self.failed = sum(has_failure(result) for result in done)
        self.stream = stream or sys.stderr
        self._timed_blocks = 0
        self._timed_px = 0
        self._first: float | None = None
        self._written = time.monotonic()
        self._width = 0

    def add(self, result: BlockResult) -> None:
        """Counts a block and shows the line."""
        self.done += 1
        self.failed += has_failure(result)
        now = time.monotonic()
        if self._first is None:
            self._first = now  # what came before was the start of Ray
        else:
            self._timed_blocks += 1
            self._timed_px += result.valid_px
        due = now - self._written >= LOG_INTERVAL_S or self.done == self.total
        if self.stream.isatty():
            self._show(end="")
        elif due:
            self._written = now
            self._show(end="\n")

    def close(self) -> None:
        """Ends the line of a terminal, so that what follows starts on a line of its own."""
        if self._width:
            print(file=self.stream)

    def line(self) -> str:
        """`infer 12/96 blocks, 3.4 Mpx/s, ETA 0:42, 1 with failures`."""
        parts = [f"infer {self.done}/{self.total} blocks"]
        if self._first is not None and self._timed_blocks:
            elapsed = max(time.monotonic() - self._first, 1e-9)
            remaining = (self.total - self.done) * elapsed / self._timed_blocks
            parts += [f"{self._timed_px / elapsed / 1e6:.1f} Mpx/s", f"ETA {clock(remaining)}"]
        if self.failed:
            parts.append(f"{self.failed} with failures")
        return ", ".join(parts)

    def _show(self, end: str) -> None:
        text = self.line()
        if self.stream.isatty():
            padding = " " * max(0, self._width - len(text))
            self._width = len(text)
            text = f"\r{text}{padding}"
        print(text, end=end, file=self.stream, flush=True)


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss from an hour on.

    >>> clock(42), clock(3700)
    ('0:42', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def has_failure(result: BlockResult) -> bool:
    """Whether a block is less than wholly inspected, because something failed."""
    return result.status in ("partial", "failed")
