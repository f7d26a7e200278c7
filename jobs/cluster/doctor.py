"""What is missing for a job, here or on a cluster: one line each, and what to do.

wpcrack doctor --storage runs
wpcrack doctor --address http://127.0.0.1:8265 --storage /mnt/wpcrack
"""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from jobs.cluster.api import ClusterError, connect, dashboard_url, explain_refusals, nodes
from jobs.cluster.follow import JobLog
from jobs.cluster.machine import facts
from jobs.cluster.submit import start
from jobs.runtime.versions import LEFT_OUT_TO_MAP

GIB = 2**30
LEAST_MEMORY, GOOD_MEMORY = 2 * GIB, 6 * GIB
"""An inference actor takes up to 1.5 GiB beside the driver; training with two workers about 5."""

LEAST_DISK, GOOD_DISK = GIB, 20 * GIB
"""A run folder takes some 100 MB, stored probability about 1 byte per pixel."""

RAY_FULL_SHARE = 0.05
"""Ray keeps nothing more on a disk of which less than this share is free."""

GOOD_SHM_SHARE = 0.3
"""Of the memory: what Ray reserves for its objects on a node."""

LOCAL_SHM = 512 * 2**20
"""Object store of a Ray that a job starts for itself (jobs.runtime.ray_session)."""

CLUSTER = "cluster"
LEAST_PYTHON = (3, 11)
CHECKOUT = Path(__file__).resolve().parents[2] / "pyproject.toml"

State = Literal["ok", "note", "FAIL"]


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        state: note: works, but could be better; FAIL: a job will fail.
        name: what was looked at.
        text: what was found and, unless ok, what to do.
        where: "" for this machine; "cluster" for a cluster and its head; "node" and its address.
    """

    state: State
    name: str
    text: str
    where: str = ""

    def line(self) -> str:
        """Return the line as shown.

        >>> Check("ok", "python", "3.11.7").line()
        'ok    python              3.11.7'
        """
        return f"{self.state:<5} {f'{self.where} {self.name}'.strip():<19} {self.text}"


def run_doctor(address: str | None, storage: Path | None) -> list[Check]:
    """Look at this machine, and at each node of a cluster.

    Args:
        address: Of the cluster's dashboard; None: this machine alone.
        storage: Folder for runs and maps, on the cluster if there is one.
    """
    here = facts(None if address else str(storage or Path.cwd()))
    checks = list(machine_checks(here))
    if address is not None:
        checks += _cluster_checks(address, storage, here)
    return checks


def values(checks: list[Check]) -> dict[str, Any]:
    """Return the report for programs."""
    return {"ok": not has_failed(checks), "checks": [asdict(check) for check in checks]}


def has_failed(checks: list[Check]) -> bool:
    """Return whether something will fail."""
    return any(check.state == "FAIL" for check in checks)


def machine_checks(found: Mapping[str, Any], *, is_node: bool = False) -> Iterator[Check]:
    """Say what the facts of a machine mean.

    Args:
        found: See `jobs.cluster.machine.facts`.
        is_node: It runs a Ray that others use, not only ours.
    """
    yield _python(found["python"])
    yield from _packages(found["packages"])
    yield _torch(found)
    yield _gpu(found["torch"])
    yield _maps(found["maps"])
    yield _memory(found)
    yield _shm(found, is_node)
    yield _disk(found["disk"])
    if found["storage"] is not None:
        yield _storage(found["storage"], is_node)


def compare_versions(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[Check]:
    """Say whether a cluster runs the Ray and the Python that this program was made for."""
    ours, theirs = here["packages"]["ray"], there["packages"]["ray"]
    if ours == theirs:
        yield Check("ok", "same ray", ours or "none")
    else:
        yield Check("FAIL", "same ray", f"{theirs} there, {ours} here; install one on both sides")
    minor = [".".join(python.split(".")[:2]) for python in (here["python"], there["python"])]
    if minor[0] == minor[1]:
        yield Check("ok", "same python", minor[0])
    else:
        text = f"{minor[1]} there, {minor[0]} here; use an image with Python {minor[0]}"
        yield Check("FAIL", "same python", text)


def _cluster_checks(address: str, storage: Path | None, here: Mapping[str, Any]) -> Iterator[Check]:
    try:
        url = dashboard_url(address)
        client = connect(url)
        yield Check("ok", "dashboard", f"answers at {url}", CLUSTER)
        alive = nodes(url)
        sums = {kind: sum(node.resources.get(kind, 0) for node in alive) for kind in ("CPU", "GPU")}
        text = f"{len(alive)} alive with {sums['CPU']:g} CPU and {sums['GPU']:g} GPU"
        more = "" if sums["CPU"] else "; jobs wait until the autoscaler has added some"
        yield Check("note" if more else "ok", "nodes", text + more, CLUSTER)
        head, *others = _facts_of(client, url, storage)
    except ClusterError as error:
        yield Check("FAIL", "", str(error), CLUSTER)
        return
    if "error" in head:
        yield Check("FAIL", "head", f"gives no answer ({head['error']})", CLUSTER)
    else:
        for check in (*compare_versions(here, head), *machine_checks(head, is_node=True)):
            yield replace(check, where=CLUSTER)
    for other in others:
        yield from node_checks(here, other)


def node_checks(here: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Check]:
    """Say on a line what a further node has, and on lines of their own what is wrong with it.

    Args:
        here: facts of this machine.
        found: those of the node, or why there are none.
    """
    where = f"node {found['node']}"
    if "error" in found:
        text = f"gives no answer ({found['error']}); see its logs in /tmp/ray/session_latest/logs"
        yield Check("FAIL", "", text, where)
        return
    checks = [*compare_versions(here, found), *machine_checks(found, is_node=True)]
    gpus = ", ".join(found["torch"]["gpus"]) or "no GPU"
    free = f"{_gib(found['memory']['available'])} of {_gib(found['memory']['total'])} available"
    yield Check("ok", "", f"{found['cpus']} CPUs, {free}, {gpus}", where)
    for check in checks:
        if check.state != "ok":
            yield replace(check, where=where)


def _facts_of(client: Any, url: str, storage: Path | None) -> list[dict[str, Any]]:
    """Run jobs.cluster.machine as a job on the head; return what each node says, the head first."""
    command = ["python", "-m", "jobs.cluster.machine", *([] if storage is None else [str(storage)])]
    job_id = start(client, url, shlex.join(command), None)
    JobLog(client, url, job_id).wait()
    with explain_refusals(url):
        lines = client.get_job_logs(job_id).strip().splitlines()
    if found := [json.loads(line) for line in lines if line.startswith("{")]:
        return found
    raise ClusterError(
        f"a trial job ({job_id}) did not run: {lines[-1] if lines else 'it left no log'}; start "
        "Ray on the nodes in an activated environment with this program's dependencies"
    )


def _python(found: str) -> Check:
    if tuple(int(part) for part in found.split(".")[:2]) >= LEAST_PYTHON:
        return Check("ok", "python", found)
    least = ".".join(map(str, LEAST_PYTHON))
    return Check("FAIL", "python", f"{found} is too old; install {least} or newer")


def _packages(found: Mapping[str, str | None]) -> Iterator[Check]:
    """Yield one line for Ray, one for all others together."""
    wanted = requirements()
    wrong = []
    if _makes_maps_alone(found):
        found = {name: found[name] for name in found if name not in LEFT_OUT_TO_MAP}
    for name, version in found.items():
        need = wanted.get(name)
        if version is None or (need and not need.specifier.contains(version, prereleases=True)):
            wrong.append(f"{name} {version or 'is missing'} ({need.specifier if need else 'any'})")
    ray = [text for text in wrong if text.startswith("ray ")]
    yield (
        Check("FAIL", "ray", f"{ray[0]}; pip install '{wanted['ray']}'")
        if ray
        else Check("ok", "ray", str(found["ray"]))
    )
    others = [text for text in wrong if text not in ray]
    if others:
        yield Check("FAIL", "packages", f"{', '.join(others)}; install the package wpcrack again")
    else:
        yield Check("ok", "packages", f"{len(found)} found in the required versions")


def requirements() -> dict[str, Requirement]:
    """Return what this program asks for: of the checkout, which may be newer, or as installed."""
    texts: list[str] = []
    if CHECKOUT.is_file():
        texts = tomllib.loads(CHECKOUT.read_text("utf-8"))["project"]["dependencies"]
    else:
        with suppress(PackageNotFoundError):
            texts = requires("wpcrack") or []
    parsed = [Requirement(text) for text in texts]
    return {one.name: one for one in parsed if one.marker is None or one.marker.evaluate()}


def _makes_maps_alone(packages: Mapping[str, str | None]) -> bool:
    return not any(packages.get(name) for name in LEFT_OUT_TO_MAP)


def _torch(found: Mapping[str, Any]) -> Check:
    if _makes_maps_alone(found["packages"]):
        text = "is missing: maps can be made; to train, install all that wpcrack asks for"
        return Check("note", "torch", text)
    versions = f"{found['packages']['torch']}, torchvision {found['packages']['torchvision']}"
    error, wanted = found["torch"]["error"], found["torch"]["wanted"]
    if error:
        return Check("FAIL", "torch", f"{versions} do not load ({error}); install both again")
    public = str(found["packages"]["torch"]).partition("+")[0]
    if wanted and public != wanted:
        return Check("FAIL", "torch", f"{versions} belongs to torch {wanted}; install both again")
    return Check("ok", "torch", versions)


def _gpu(found: Mapping[str, Any]) -> Check:
    if found["gpus"]:
        return Check("ok", "gpu", ", ".join(found["gpus"]))
    if found["has_nvidia"]:
        return Check(
            "note", "gpu", "nvidia-smi is there, but torch sees no GPU; update the driver, or "
            "install a torch built for CUDA"
        )  # fmt: skip
    return Check("ok", "gpu", "none here; training and inference use the CPU")


def _maps(found: Mapping[str, Any]) -> Check:
    if found["error"]:
        return Check(
            "FAIL", "maps", f"{found['error']}; unset GDAL_DATA, PROJ_LIB and PROJ_DATA, or "
            "install rasterio, pyogrio and pyproj from their wheels"
        )  # fmt: skip
    if found["missing"]:
        names = ", ".join(found["missing"])
        return Check("FAIL", "maps", f"GDAL {found['gdal']} lacks {names}; install the wheels")
    return Check("ok", "maps", f"GDAL {found['gdal']} with every driver that is used")


def _memory(found: Mapping[str, Any]) -> Check:
    available, total = found["memory"]["available"], found["memory"]["total"]
    text = f"{_gib(available)} of {_gib(total)} available, {found['cpus']} CPUs"
    if available < LEAST_MEMORY:
        return Check("FAIL", "memory", f"{text}; free {_gib(LEAST_MEMORY)}")
    if available < GOOD_MEMORY:
        return Check("note", "memory", f"{text}; use actors=1 or scaling.num_workers=1")
    return Check("ok", "memory", text)


def _shm(found: Mapping[str, Any], is_node: bool) -> Check:
    shm = found["shm"]
    wanted = GOOD_SHM_SHARE * found["memory"]["total"] if is_node else LOCAL_SHM
    if shm is None or shm["total"] < 0.9 * wanted:
        size = "none" if shm is None else _gib(shm["total"])
        text = f"/dev/shm has {size}; start the container with --shm-size={_gib(wanted, 'g')}"
        return Check("note", "shm", text)
    return Check("ok", "shm", f"{_gib(shm['total'])} in /dev/shm")


def _disk(found: Mapping[str, Any]) -> Check:
    free, text = found["free"], f"{_gib(found['free'])} free in {found['path']}"
    if free < LEAST_DISK:
        return Check("FAIL", "disk", f"{text}, where Ray keeps its logs; free {_gib(LEAST_DISK)}")
    if free < RAY_FULL_SHARE * found["total"]:
        wanted = _gib(RAY_FULL_SHARE * found["total"])
        return Check("note", "disk", f"{text}; Ray takes a disk for full below {wanted}")
    return Check("ok", "disk", text)


def _storage(found: Mapping[str, Any], is_node: bool) -> Check:
    path, free = found["path"], found["free"]
    if is_node and not found["is_there"]:
        text = f"{path} is not there; mount the shared folder on every node"
        return Check("FAIL", "storage", text)
    if is_node and not found["is_shared"]:
        text = f"{path} is not the folder of the head; mount the shared folder at that path"
        return Check("FAIL", "storage", text)
    if found["error"]:
        text = f"{path}: {found['error']}; choose a folder that can be written, locked and renamed"
        return Check("FAIL", "storage", text)
    if free < LEAST_DISK:
        return Check("FAIL", "storage", f"{_gib(free)} free in {path}; free {_gib(LEAST_DISK)}")
    state: State = "ok" if free >= GOOD_DISK else "note"
    can = "can be written" if found["is_there"] else "is not there yet and can be made"
    more = "" if state == "ok" else "; too little for probability=keep of a city"
    return Check(state, "storage", f"{path} {can}, {_gib(free)} free{more}")


def _gib(size: float, unit: str = " GiB") -> str:
    return f"{size / GIB:.{0 if size >= 10 * GIB else 1}f}{unit}"
