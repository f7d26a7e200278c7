"""What a job does when its terminal or its reader goes away."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.runtime.signals import postpone_signals, stop_on_sigterm

ROOT = Path(__file__).resolve().parents[3]

WORK = """
import os, sys
from jobs.runtime.terminal import outlast_readers, say
outlast_readers()
print("x" * 100_000, flush=True)
say("y")
sys.stderr.flush()  # as libraries do
with open(sys.argv[1], "w") as file:
    file.write(str(file.fileno()))
"""


def nobody_reads(kind: str) -> int:
    """Open what takes nothing: writing to each is an error of its own (EPIPE, EIO, ENOSPC)."""
    if kind == "a full disk":
        return os.open("/dev/full", os.O_WRONLY)
    reader, writer = os.pipe() if kind == "a pipe" else pty.openpty()
    os.close(reader)
    return writer


@pytest.mark.parametrize("kind", ["a pipe", "a terminal", "a full disk"])
def test_a_job_whose_reader_has_gone_does_its_work(tmp_path: Path, kind: str) -> None:
    out, log = tmp_path / "done", nobody_reads(kind)
    said = subprocess.DEVNULL if kind == "a full disk" else log  # its results are no log
    subprocess.run([sys.executable, "-c", WORK, out], stdout=said, stderr=log, check=True)
    os.close(log)
    assert out.is_file()


@pytest.mark.parametrize("name", ["infer", "paper"], ids=["beyond the buffer", "within it"])
def test_a_result_that_a_full_disk_does_not_take_is_an_error(name: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "jobs.cli", "config", name]
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran.stderr
    assert ran.stderr.startswith("error: ")


def test_what_is_not_to_be_buffered_is_written_line_by_line() -> None:
    """The container image sets PYTHONUNBUFFERED."""
    code = (
        "import os; from jobs.runtime.terminal import outlast_readers; outlast_readers(); "
        "print('told'); os._exit(0)"
    )
    ran = subprocess.run([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert ran.stdout == b"told\n"


def test_no_file_of_a_job_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    out = tmp_path / "done"
    closed = f'exec "{sys.executable}" -c "$1" "$2" >&- 2>&-'
    subprocess.run(["sh", "-c", closed, "sh", WORK, out], check=True)
    assert int(out.read_text()) > 2


def test_the_end_of_the_terminal_ends_a_job_as_ctrl_c_does() -> None:
    done = []

    def work() -> None:
        with stop_on_sigterm():
            with postpone_signals():
                os.kill(os.getpid(), signal.SIGHUP)
                done.append("step")
            done.append("next step")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["step"]


def test_a_job_under_nohup_goes_on() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_sigterm(), postpone_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
