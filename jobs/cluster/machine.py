"""What a machine has, as far as our jobs depend on it.

    python -m jobs.cluster.machine [STORAGE]      prints the facts of each node, a line of JSON each

Runs here and, as a job, on the head of a cluster and in a small task on each of its nodes, where
nothing may be installed yet: at import it needs the standard library alone.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from jobs.runtime.cpus import usable_cpus
from jobs.runtime.memory import usable_memory

PACKAGES = (
    *("ray", "torch", "torchvision", "timm", "openvino", "numpy", "scipy", "safetensors"),
    *("opencv-python-headless", "pydantic", "pyyaml", "typer", "tensorboard", "scikit-image"),
    *("rasterio", "pyogrio", "geopandas", "shapely", "pyproj", "pyarrow"),
)
"""Distributions that a job imports on every node."""

RASTER_DRIVERS = ("GTiff", "COG", "VRT", "PNG", "JPEG")
VECTOR_DRIVERS = ("GPKG", "GeoJSON")

NODE_PATIENCE_S = 120.0
"""For all nodes together; importing torch on a busy one takes half a minute."""


def facts(storage: str | None = None, token: str | None = None) -> dict[str, Any]:
    """Collect everything at once, as plain data.

    Args:
        storage: Folder of runs and maps, where writing, renaming and locking is tried.
        token: Name of a file that the head has written there; None: there is no other machine.
    """
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpus": usable_cpus(),
        "memory": _memory(),
        "shm": _space("/dev/shm") if Path("/dev/shm").is_dir() else None,
        "disk": {"path": tempfile.gettempdir(), **_space(tempfile.gettempdir())},
        "torch": _torch(),
        "maps": _maps(),
        "storage": None if storage is None else _storage(Path(storage), token),
    }


def facts_of_nodes(storage: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the facts of each node of the cluster that this job runs on, the head first.

    Each has its address as `node`; of one that gives no answer nothing but the reason, `error`.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    from jobs.cluster import machine  # not __main__, which other processes do not have

    ray.init(logging_level=logging.ERROR, log_to_driver=False)
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    alive.sort(key=lambda node: "node:__internal_head__" not in node["Resources"])
    sees_gpus = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}  # though it asks for none
    look = ray.remote(num_cpus=0, max_retries=0, runtime_env=sees_gpus)(machine.facts)
    with _token(storage) as token:
        answers = [
            look.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote(storage, token)
            for node in alive
        ]
        ray.wait(answers, num_returns=len(answers), timeout=NODE_PATIENCE_S)
        for node, answer in zip(alive, answers, strict=True):
            found: dict[str, Any]
            try:
                found = ray.get(answer, timeout=0)
            except Exception as error:  # whatever keeps a node from answering is what is asked for
                found = {"error": _one_line(error)}
            yield {"node": node["NodeManagerAddress"], **found}


@contextmanager
def _token(storage: str | None) -> Iterator[str | None]:
    """Leave a file in the storage, which all nodes should see."""
    name = f".wpcrack-{secrets.token_hex(8)}"
    try:
        Path(storage or os.devnull, name).touch()
    except OSError:
        yield None  # said of the storage itself
        return
    try:
        yield name
    finally:
        Path(storage or os.devnull, name).unlink(missing_ok=True)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _memory() -> dict[str, int]:
    """Return bytes in total and available, within the limit of a container."""
    has = usable_memory()
    return {"total": 0, "available": 0} if has is None else asdict(has)


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


def _storage(folder: Path, token: str | None) -> dict[str, Any]:
    """Try what a run folder needs: write, lock, rename, remove; and be that of the head.

    A folder that a job would make is tried where it would be made: in the nearest one above.
    """
    found: dict[str, Any] = {"path": str(folder), "free": None, "error": None}
    found["is_there"] = os.path.isdir(folder)  # False, too, where a folder above may not be entered
    found["is_shared"] = token is None or os.path.exists(folder / token)
    tried = folder.absolute()
    while not os.path.exists(tried):
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
    for one in facts_of_nodes(sys.argv[1] if len(sys.argv) > 1 else None):
        print(json.dumps(one), flush=True)
