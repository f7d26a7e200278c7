"""What a job does when its terminal or its reader goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.runtime.signals import postpone_signals, stop_on_sigterm

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


def test_a_job_whose_reader_has_gone_does_its_work(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    out = tmp_path / "done"
    with os.fdopen(writer, "w") as gone:
        subprocess.run([sys.executable, "-c", WORK, out], stdout=gone, stderr=gone, check=True)
    assert out.is_file()


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
