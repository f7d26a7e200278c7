"""The work of joining a large map on Ray: region by region, with results that outlive the job."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geo.cracks.parts import DamagedPart
from geo.cracks.regions import Region
from jobs.infer.attempts import Attempts, FolderMarks, WorkerDied
from jobs.runtime.capacity import Request, room_for
from jobs.runtime.cpus import usable_cpus
from jobs.runtime.ray_session import joins_cluster, ray_session
from jobs.runtime.shared import NotShared, SharedFolder, is_seen, share
from jobs.runtime.terminal import USER_ERRORS, say
from wpcrack.errors import WpcrackError

SPREAD_FROM = 1000
"""Blocks from which on joining is spread; fewer take less time than Ray needs to start."""

REGION_BLOCKS = 16
"""Blocks on the side of a region. With blocks of 3520 pixels of 5 mm that is 280 m."""

TASK_MEMORY_BYTES = 3 * 2**29
"""What a region needs at most (1.5 GiB)."""

SAY_EVERY_S = 10.0

DONE = {
    "merge": "joined {} regions",
    "decide": "linked and measured {} regions",
    "settle": "linked and measured {} windows over sides of regions",
}
"""What a step of `geo.layers.region_map.RegionSteps` has done."""


@dataclass(frozen=True)
class RaySpread:
    """Runs the work of regions on Ray, one CPU each; see `geo.layers.assemble.Run`.

    Attributes:
        folder: of the results, which all nodes see.
        shared: what a worker must see before it works.
        memory: that each task asks for.
    """

    folder: Path
    shared: SharedFolder
    memory: float

    def __call__(
        self,
        work: Callable[[Region], None],
        regions: Sequence[Region],
        result: Callable[[Region], Path],
    ) -> None:
        """Call ``work`` for each region; ``result`` names the file that it leaves last.

        Raises:
            WpcrackError: Work failed, its worker died too often, or a node does not see the folder.
        """
        import ray

        task = ray.remote(_run).options(num_cpus=1, memory=self.memory, max_retries=-1)
        setup = ray.put((work, self.folder, self.shared))
        waiting = {task.remote(setup, region): region for region in regions}
        said = time.monotonic()
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=SAY_EVERY_S)
            for reference in done:
                region = waiting.pop(reference)
                if error := ray.get(reference):
                    raise WpcrackError(error)
                if not is_seen(result(region)):
                    raise NotShared(
                        f"region {region.name} was finished on a node, but its files are not in "
                        f"{self.folder}; mount the folder of out= on every node at the same path, "
                        "then give the same command again"
                    )
            if not waiting or time.monotonic() - said >= SAY_EVERY_S:
                said = time.monotonic()
                done_with = DONE.get(getattr(work, "__name__", ""), "done with {} regions")
                say(done_with.format(f"{len(regions) - len(waiting)}/{len(regions)}"))


def _run(setup: tuple[Callable[[Region], None], Path, SharedFolder], region: Region) -> str:
    """Do the work of a region in a worker; return what went wrong, "" if nothing did."""
    work, folder, shared = setup
    try:
        shared.require()
        with Attempts(FolderMarks(folder)).begin(region.name, f"region {region.name}"):
            work(region)
    except DamagedPart as error:
        error.path.unlink(missing_ok=True)
        return f"{error}: the same command does that now"
    except USER_ERRORS as error:
        return str(error)
    except WorkerDied as error:
        return f"{error}; give the machines more memory, then give the same command again"
    except OSError as error:
        return f"{folder} cannot be written ({error}); check the folder and free space"
    return ""


def spread_on_ray(
    folder: Path,
    work: Callable[[RaySpread], Any],
    *,
    local: bool = False,
) -> Any:
    """Join a map with the help of Ray, and remove the results of regions at its end.

    After an error or an interruption they stay, and the same call goes on with them.

    Args:
        folder: of the results of regions; what holds it is shared by all nodes.
        work: is given what runs the regions.
        local: Never join RAY_ADDRESS.
    """
    count = 1 if joins_cluster(local=local) else usable_cpus()
    folder.mkdir(parents=True, exist_ok=True)
    with share(folder) as shared, ray_session(Request("task", count, {"CPU": 1.0}), local=local):
        each = {"CPU": 1.0, "memory": float(TASK_MEMORY_BYTES)}
        memory = each["memory"] if room_for(Request("task", 1, each)) else 0.0
        made = work(RaySpread(folder, shared, memory))
    shutil.rmtree(folder)
    return made
