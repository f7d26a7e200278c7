"""Looking again and again at what other processes write, in a thread beside the work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

POLL_S = 0.5
"""Between two looks."""


class Followed:
    """Looks while its block runs, and once more at the end."""

    def __init__(self, look: Callable[[], None]) -> None:
        """Take what looks and tells of what is new."""
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        """Look from now on."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Tell what is left, and end."""
        self._stop.set()
        self._thread.join()
        self._look()

    def _follow(self) -> None:
        while not self._stop.wait(POLL_S):
            self._look()
