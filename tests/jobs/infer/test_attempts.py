"""Work that kills its worker is given up, and tried alone before; other work keeps its name."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.infer.attempts import MOST_DEATHS, Attempts, FolderMarks, WorkerDied

ROOT = Path(__file__).resolve().parents[3]
DIE = (
    "import os, signal, sys; from pathlib import Path\n"
    "from jobs.infer.attempts import Attempts, FolderMarks\n"
    "with Attempts(FolderMarks(Path(sys.argv[1]))).begin('a', 'it'):\n"
    "    os.kill(os.getpid(), signal.SIGKILL)"
)


def die(folder: Path) -> None:
    command = [sys.executable, "-c", DIE, str(folder)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_what_kills_its_worker_three_times_is_given_up(tmp_path: Path) -> None:
    for _ in range(MOST_DEATHS):
        die(tmp_path)
    with (
        pytest.raises(WorkerDied, match="the block killed its worker 3 times"),
        Attempts(FolderMarks(tmp_path)).begin("a", "the block"),
    ):
        pytest.fail("it was begun again")
    with Attempts(FolderMarks(tmp_path)).begin("a", "the block"):  # the next job tries again
        pass
    assert not list(tmp_path.iterdir())


def test_an_exception_is_no_death(tmp_path: Path) -> None:
    for _ in range(MOST_DEATHS + 1):
        with (
            pytest.raises(ValueError, match="bad data"),
            Attempts(FolderMarks(tmp_path)).begin("a", "it"),
        ):
            raise ValueError("bad data")


def test_what_killed_a_worker_is_tried_alone(tmp_path: Path) -> None:
    die(tmp_path)
    attempts, go, order = Attempts(FolderMarks(tmp_path)), threading.Event(), []

    def work(name: str) -> None:
        with attempts.begin(name, "it"):
            order.append(f"{name} begins")
            go.wait(600)
            order.append(f"{name} ends")

    with ThreadPoolExecutor(2) as pool:
        innocent = pool.submit(work, "b")
        while not order:
            pass
        suspect = pool.submit(work, "a")
        go.set()
        innocent.result()
        suspect.result()
    assert order == ["b begins", "b ends", "a begins", "a ends"]
