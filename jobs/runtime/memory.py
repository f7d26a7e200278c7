"""Memory that a process may use, which may be less than the machine has; and what is beyond it.

At import it needs the standard library alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUP, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")

FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Limit, use, and in memory.stat what is given back when it is needed; of version 2 and 1."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a process may use: in total, and now."""

    total: int
    available: int


def usable_memory(
    meminfo: Path = MEMINFO, cgroup: Path = CGROUP, own_groups: Path = OWN_GROUPS
) -> Memory | None:
    """Return the memory of this machine, within the limits of the container and its groups.

    Args:
        meminfo: of the kernel.
        cgroup: root of the control groups, of version 2 or 1.
        own_groups: names those of this process.

    Returns:
        None where the kernel does not tell.
    """
    try:
        lines = meminfo.read_text().splitlines()
        values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        total, available = values["MemTotal"], values["MemAvailable"]
    except (OSError, ValueError, IndexError, KeyError):
        return None
    for limit, used in _limits(cgroup, own_groups):
        total, available = min(total, limit), min(available, max(limit - used, 0))
    return Memory(total, available)


def require_memory(needed: float, what: str, remedy: str, has: Memory | None = None) -> None:
    """Refuse what needs more memory than there is, before the work.

    Args:
        needed: bytes, estimated.
        what: that needs them, for the message.
        remedy: what the user can do.
        has: None: what this machine has.

    Raises:
        ConfigError: It does not fit.
    """
    from wpcrack.errors import ConfigError

    has = has or usable_memory()
    if has is not None and needed > has.available:
        raise ConfigError(
            f"{what} needs about {needed / 1e9:.1f} GB of memory, and {has.available / 1e9:.1f} of "
            f"{has.total / 1e9:.1f} GB are free here; {remedy}"
        )


def _limits(cgroup: Path, own_groups: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and use of each group that this process is in, from its own up to the root."""
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, kinds, name = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        root = cgroup / "memory" if kinds else cgroup
        for folder in (root / name.lstrip("/"), *(root / name.lstrip("/")).parents):
            for limit, use, returned in FILES:
                values = [_number(folder / limit), _number(folder / use)]
                if None not in values:
                    stat = _stat(folder / "memory.stat").get(returned, 0)
                    yield values[0] or 0, (values[1] or 0) - stat
            if folder == root:
                break


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no limit
        return None


def _stat(path: Path) -> dict[str, int]:
    try:
        pairs = (line.split() for line in path.read_text().splitlines())
        return {name: int(value) for name, value in pairs}
    except (OSError, ValueError):
        return {}
