"""Work in other processes: Ctrl-C does not reach it, and it ends with the program."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from geo.processes import processors, spread


def test_processors_are_those_of_the_machine_where_no_process_is_bound(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 7}, raising=False)
    assert processors() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert processors() == 8


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_ctrl_c_is_for_the_caller_alone(start):
    heard = spread(signal.raise_signal, [signal.SIGINT] * 4, 2, start)
    assert list(heard) == [None] * 4
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_a_script_without_a_guard_does_not_begin_anew_in_other_processes(
    start, tmp_path, monkeypatch
):
    main = sys.modules["__main__"]
    (tmp_path / "script.py").write_text("raise SystemExit('begun anew')")
    monkeypatch.setattr(main, "__file__", str(tmp_path / "script.py"), raising=False)
    monkeypatch.setattr(main, "__spec__", None, raising=False)
    before = dict(vars(main))
    assert list(spread(abs, [1, -2], 1, start)) == [1, 2]
    assert vars(main) == before


def test_nobody_waits_for_work_that_is_given_up():
    begun = time.monotonic()
    answers = spread(time.sleep, [0, 600, 600], 2, "forkserver")
    assert next(answers) is None
    with pytest.raises(KeyboardInterrupt):
        answers.throw(KeyboardInterrupt())
    assert time.monotonic() - begun < 300
    with pytest.raises(TypeError):
        list(spread(time.sleep, [0, "long"], 2, "forkserver"))
