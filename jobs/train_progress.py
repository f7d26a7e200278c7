"""One line per epoch on the driver's terminal, read from metrics.jsonl as rank 0 writes it."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from jobs.train_folder import read_metrics
from wpcrack.selection import objective

POLL_S = 1.0


class ProgressLines:
    """Follows a metrics file in a thread while the workers train."""

    def __init__(self, metrics: Path) -> None:
        self.metrics = metrics
        self.shown = {line["epoch"] for line in read_metrics(metrics)}
        self.started, self.progress_at_start = time.monotonic(), self._progress()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> ProgressLines:
        """Starts to follow."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Shows what is left and ends."""
        self._stop.set()
        self._thread.join()
        self._show_new()

    def _follow(self) -> None:
        while not self._stop.wait(POLL_S):
            self._show_new()

    def _progress(self) -> float:
        lines = read_metrics(self.metrics)
        return float(lines[-1]["train/progress"]) if lines else 0.0

    def _show_new(self) -> None:
        for line in read_metrics(self.metrics):
            if line["epoch"] not in self.shown:
                self.shown.add(line["epoch"])
                for warning in line.get("warnings", ()):
                    print(f"warning: {warning}", file=sys.stderr, flush=True)
                elapsed = time.monotonic() - self.started
                print(describe(line, elapsed, self.progress_at_start), file=sys.stderr, flush=True)


def describe(line: dict[str, Any], elapsed_s: float, progress_at_start: float) -> str:
    """`train epoch 3 adversarial 190 steps, loss ..., score 0.773, 12 images/s, ETA 2:10`."""
    phases = {"cls": 0.0, "rec": 0.0, "det": 0.0}
    for name, value in line.items():
        if name.startswith("train/"):
            term = name.removeprefix("train/")
            phase = "cls" if term == "ceccm" else term.split("_")[0]
            if phase in phases:
                phases[phase] += float(value)
    losses = " ".join(f"{k} {v:.3f}" for k, v in phases.items() if v)
    progress = float(line["train/progress"])
    gained = max(progress - progress_at_start, 1e-6)
    eta = elapsed_s * (1 - progress) / gained
    return (
        f"train epoch {line['epoch']} {line['stage']}, {line['step']} steps, loss {losses}, "
        f"score {line[objective(line)]:.3f}{' (best)' if line['best'] else ''}, "
        f"{line['train/images_per_s']:.1f} images/s, data wait {line['train/data_wait']:.0%}, "
        f"{progress:.0%}, ETA {int(eta) // 60}:{int(eta) % 60:02d}"
    )
