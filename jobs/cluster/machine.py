"""What a machine has, as far as our jobs depend on it.

    python -m jobs.cluster.machine [STORAGE]      prints the facts as one line of JSON

Runs here and, as a job, on the head of a cluster, where nothing may be installed yet: at import it
needs the standard library alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("ray", "torch", "torchvision", "timm", "openvino", "numpy", "scipy", "safetensors"),
    *("opencv-python-headless", "pydantic", "pyyaml", "typer", "tensorboard", "scikit-image"),
    *("rasterio", "pyogrio", "geopandas", "shapely", "pyproj", "pyarrow"),
)
"""Distributions that a job imports on every node."""

RASTER_DRIVERS = ("GTiff", "COG", "VRT", "PNG", "JPEG")
VECTOR_DRIVERS = ("GPKG", "GeoJSON")

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Of a container; /proc/meminfo shows the machine around it."""


def facts(storage: str | None = None) -> dict[str, Any]:
    """Collect everything at once, as plain data.

    Args:
        storage: Folder of runs and maps, where writing, renaming and locking is tried.
    """
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpus": len(os.sched_getaffinity(0)),
        "memory": _memory(),
        "shm": _space("/dev/shm") if Path("/dev/shm").is_dir() else None,
        "disk": {"path": tempfile.gettempdir(), **_space(tempfile.gettempdir())},
        "torch": _torch(),
        "maps": _maps(),
        "storage": None if storage is None else _storage(Path(storage)),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _memory() -> dict[str, int]:
    """Return bytes in total and available, within the limit of a container."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    total, available = values["MemTotal"], values["MemAvailable"]
    for path in map(Path, CGROUP_LIMITS):
        text = path.read_text().strip() if path.exists() else ""
        if text.isdigit():
            total = min(total, int(text))
    return {"total": total, "available": min(available, total)}


def _space(path: str) -> dict[str, int]:
    usage = shutil.disk_usage(path)
    return {"total": usage.total, "free": usage.free}


def _torch() -> dict[str, Any]:
    """Name the torch that torchvision was built for, what fails on import, and the GPUs."""
    found: dict[str, Any] = {"wanted": None, "error": None, "gpus": []}
    found["has_nvidia"] = shutil.which("nvidia-smi") is not None
    try:
        needs = [text for text in requires("torchvision") or () if text.startswith("torch==")]
        found["wanted"] = needs[0].partition("==")[2].split(";")[0].strip() if needs else None
        import torch
        import torchvision  # fails if it was built for another torch

        assert torchvision is not None
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        found["gpus"] = [torch.cuda.get_device_name(number) for number in range(count)]
    except Exception as error:  # whatever a broken installation raises is what we are asked for
        found["error"] = _one_line(error)
    return found


def _maps() -> dict[str, Any]:
    """Name GDAL's version, the drivers that are missing, and whether PROJ finds its database."""
    found: dict[str, Any] = {"gdal": None, "missing": [], "error": None}
    try:
        import pyogrio
        import pyproj
        import rasterio

        found["gdal"] = rasterio.__gdal_version__
        with rasterio.Env() as env:
            rasters = env.drivers()
        vectors = {name: mode for name, mode in pyogrio.list_drivers().items() if "w" in mode}
        found["missing"] = [name for name in RASTER_DRIVERS if name not in rasters]
        found["missing"] += [name for name in VECTOR_DRIVERS if name not in vectors]
        pyproj.CRS.from_epsg(25832)
        rasterio.crs.CRS.from_epsg(25832).to_wkt()
    except Exception as error:  # as above: a broken installation may raise anything
        found["error"] = _one_line(error)
    return found


def _storage(folder: Path) -> dict[str, Any]:
    """Try what a run folder needs: write, lock, rename, remove.

    A folder that a job would make is tried where it would be made: in the nearest one above.
    """
    found: dict[str, Any] = {"path": str(folder), "free": None, "error": None}
    found["is_there"] = folder.is_dir()
    tried = folder.absolute()
    while not tried.exists():
        tried = tried.parent
    try:
        with tempfile.TemporaryDirectory(dir=tried, prefix=".wpcrack-") as name:
            one, other = Path(name) / "one", Path(name) / "other"
            with one.open("w") as stream:
                fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                stream.write("x")
                os.fsync(stream.fileno())
            os.replace(one, other)
        found["free"] = shutil.disk_usage(tried).free
    except OSError as error:
        found["error"] = error.strerror or _one_line(error)
    return found


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200]


if __name__ == "__main__":
    print(json.dumps(facts(sys.argv[1] if len(sys.argv) > 1 else None)), flush=True)
