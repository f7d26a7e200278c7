"""A sample of the damaged inputs of `benchmarks.fuzz`: read or refused, and nothing else."""

from __future__ import annotations

import importlib

import pytest

CASES = 300


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
def test_a_reader_that_fails_crashes_or_takes_all_memory_is_noticed(fuzz, tmp_path):
    def crash(path):
        fuzz.os.kill(fuzz.os.getpid(), fuzz.signal.SIGSEGV)

    readers = {
        "traceback": lambda path: 1 // 0,
        "memory": lambda path: bytearray(2 * fuzz.MEMORY_BYTES),
        "crash": crash,
    }
    for name, read in readers.items():
        assert fuzz.NAMES[fuzz._in_child(read, tmp_path)[0]] == name
