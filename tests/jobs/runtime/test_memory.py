"""Memory that there is: of the machine, within the limits of all control groups of a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.runtime.memory import Memory, require_memory, usable_memory
from wpcrack.errors import ConfigError

GIB = 2**30


def write_group(folder: Path, names: tuple[str, str], limit: str, used: int, stat: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (*zip(names, (limit, str(used)), strict=True), ("memory.stat", stat)):
        (folder / name).write_text(f"{text}\n")


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    file = tmp_path / "meminfo"
    file.write_text(f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {12 * GIB // 1024} kB\n")
    return file


def test_limits_of_groups_count_and_what_is_only_cached_is_free(
    tmp_path: Path, meminfo: Path
) -> None:
    own = tmp_path / "own"
    assert usable_memory(meminfo, tmp_path / "none", own) == Memory(16 * GIB, 12 * GIB)
    own.write_text("0::/user/job\n")
    newer = ("memory.max", "memory.current")
    write_group(tmp_path / "user" / "job", newer, "max", 5 * GIB, "")
    assert usable_memory(meminfo, tmp_path, own) == Memory(16 * GIB, 12 * GIB)
    write_group(tmp_path / "user", newer, str(8 * GIB), 7 * GIB, f"file 5\ninactive_file {GIB}")
    assert usable_memory(meminfo, tmp_path, own) == Memory(8 * GIB, 2 * GIB)
    own.write_text("5:cpu:/x\n4:memory,pids:/box\n")
    older = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    stat = f"total_inactive_file {GIB}"
    write_group(tmp_path / "memory" / "box", older, str(4 * GIB), 4 * GIB, stat)
    assert usable_memory(meminfo, tmp_path, own) == Memory(4 * GIB, GIB)
    assert usable_memory(tmp_path / "none", tmp_path, own) is None


def test_what_does_not_fit_is_refused_in_a_sentence_with_both_numbers() -> None:
    require_memory(1e9, "a job", "do less", Memory(4 * 10**9, 10**9))
    with pytest.raises(ConfigError, match=r"a job needs about 3\.0 GB .* 2\.0 of 4\.0 GB .* less"):
        require_memory(3e9, "a job", "do less", Memory(4 * 10**9, 2 * 10**9))
