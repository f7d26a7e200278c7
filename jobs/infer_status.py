"""How far an inference job is, told from its work folder while it runs or afterwards.

wpcrack infer --status maps/cracks.gpkg
"""

from __future__ import annotations

import fcntl
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.infer_manifest import ManifestLine, read_manifest, read_session
from jobs.infer_progress import clock, has_failure
from jobs.infer_state import LOCK
from wpcrack.errors import ConfigError


@dataclass(frozen=True)
class JobStatus:
    """State of a job.

    Attributes:
        work: its work folder.
        total: blocks of the job.
        done: blocks that are finished, also the failed ones.
        failed: those of them that failed, wholly or in part.
        is_running: whether a process works on them now.
        mpx_per_s: speed since the job was last started; None before its second block.
        eta_s: seconds to the last block at that speed.
    """

    work: Path
    total: int
    done: int
    failed: int
    is_running: bool
    mpx_per_s: float | None
    eta_s: float | None

    def text(self) -> str:
        """One line.

        >>> JobStatus(Path("a.work"), 96, 12, 1, True, 3.42, 42).text()
        'a.work: 12/96 blocks, 1 with failures, 3.4 Mpx/s, ETA 0:42, running'
        """
        parts = [f"{self.done}/{self.total} blocks", f"{self.failed} with failures"]
        if self.mpx_per_s is not None:
            parts.append(f"{self.mpx_per_s:.1f} Mpx/s")
        if self.is_running and self.eta_s is not None:
            parts.append(f"ETA {clock(self.eta_s)}")
        stopped = "all blocks finished" if self.done == self.total else "not running"
        parts.append("running" if self.is_running else stopped)
        return f"{self.work}: {', '.join(parts)}"

    def values(self) -> dict[str, Any]:
        """The figures of `--json`."""
        return asdict(self) | {"work": str(self.work)}


def read_status(path: Path) -> JobStatus:
    """Reads the state of a job; changes nothing and disturbs nobody.

    Args:
        path: The GeoPackage of the job, its work folder, or a folder that holds one work folder.

    Raises:
        ConfigError: There is no job.
    """
    work = work_folder(path)
    session, lines = read_session(work), read_manifest(work)
    if session is None:
        raise ConfigError(f"{work} holds no job that was started; give its GeoPackage")
    results = [line.result for line in lines.values()]
    recent = sorted((line for line in lines.values() if line.at >= session.started), key=_time)
    speed = eta = None
    if len(recent) > 1 and (elapsed := recent[-1].at - recent[0].at) > 0:
        speed = sum(line.result.valid_px for line in recent[1:]) / 1e6 / elapsed
        eta = (session.blocks - len(results)) * elapsed / (len(recent) - 1)
    failed = sum(has_failure(result) for result in results)
    return JobStatus(work, session.blocks, len(results), failed, _is_locked(work), speed, eta)


def _time(line: ManifestLine) -> float:
    return line.at


def work_folder(path: Path) -> Path:
    """The work folder that a GeoPackage, a folder with one work folder, or itself means.

    Raises:
        ConfigError: There is none.
    """
    if path.suffix.lower() == ".gpkg":
        work = path.with_suffix(".work")
        if work.is_dir():
            return work
        raise ConfigError(f"{path} has no work folder {work.name}; start the job first")
    if not path.is_dir():
        raise ConfigError(f"{path} does not exist; give the GeoPackage of a job or its work folder")
    if path.suffix == ".work":
        return path
    works = sorted(path.glob("*.work"))
    if len(works) != 1:
        raise ConfigError(f"{path} holds {len(works)} work folders; give the GeoPackage of a job")
    return works[0]


def _is_locked(work: Path) -> bool:
    try:
        with (work / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
