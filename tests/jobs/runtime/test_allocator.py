"""Memory that is freed stays with the process, unless the user has decided otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from jobs.runtime.allocator import SETTINGS, keep_freed_memory, worker_environment

ROUNDS, BLOCK = 8, 128 * 2**20
FAULTS = f"""
import ctypes, os, resource, sys, threading
from jobs.runtime.allocator import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.memset.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
if "keep" in sys.argv:
    assert keep_freed_memory()
def use():
    for _ in range({ROUNDS}):
        block = libc.malloc({BLOCK})
        libc.memset(block, 1, {BLOCK})
        libc.free(block)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
if "thread" in sys.argv:
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
else:
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's"
)


def faults(*words: str, **variables: str) -> int:
    environment = {k: v for k, v in os.environ.items() if k not in SETTINGS} | variables
    command = [sys.executable, "-c", FAULTS, *words]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


@glibc
@pytest.mark.parametrize("where", ["main", "thread"])
def test_freed_blocks_are_used_again(where: str) -> None:
    plain = faults(where)
    assert faults("keep", where) < plain / 4
    assert faults(where, **worker_environment({})) < plain / 4


@pytest.mark.parametrize("name", SETTINGS)
def test_what_the_user_has_set_stays(name: str) -> None:
    assert worker_environment({name: "1"}) == {}
    assert not keep_freed_memory({name: "1"})
