"""A sample of the damaged inputs of `benchmarks.fuzz`: read or refused, and nothing else."""

from __future__ import annotations

import importlib

import pytest

CASES = 144
"""Six turns of the targets; the program itself reads ten thousand."""


@pytest.fixture
def fuzz():
    return importlib.import_module("benchmarks.fuzz.__main__")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_damaged_inputs_are_read_or_refused(fuzz, tmp_path):
    cases = list(fuzz.campaign(CASES, 0, tmp_path))
    assert [case for case in cases if case.is_fault] == []
    assert {case.outcome for case in cases} == {"read", "refused"}
    assert {case.target for case in cases} == {target.name for target in fuzz.TARGETS}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_each_fault_of_a_reader_is_noticed_and_the_cases_after_it_are_read(
    fuzz, tmp_path, monkeypatch
):
    def spin():
        while True:
            pass

    readers = {
        "traceback": lambda: 1 // 0,
        "memory": lambda: bytearray(2 * fuzz.MEMORY_BYTES),
        "crash": lambda: fuzz.os.kill(fuzz.os.getpid(), fuzz.signal.SIGSEGV),
        "hang": spin,
        "read": lambda: None,
    }

    def draw(folder):
        for name in readers:
            (folder / name).write_text(name)
        return [folder / name for name in readers]

    monkeypatch.setattr(fuzz, "TIME_S", 0.2)
    target = fuzz.Target("drawn", draw, lambda path: readers[path.name]())
    cases = list(fuzz.Sample.draw(target, tmp_path).cases(range(20), 0))
    assert [case.number for case in cases] == list(range(20))
    assert {(case.file, case.outcome) for case in cases} == {(name, name) for name in readers}
