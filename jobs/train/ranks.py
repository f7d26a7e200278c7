"""How the workers of a training become ranks that talk to each other, told without torch.

The controller of a training needs to know no more than where rank 0 listens. Ray's `TorchConfig`
has it import torch all the same, before it asks for workers: some 4 s of CPU time. Here only the
workers do; what they do is Ray's, by functions that it keeps to itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ray.train.backend import Backend, BackendConfig

LEAVING_S = 30.0
"""Patience with workers that leave; Ray's own. One that was killed never does."""


@dataclass
class Ranks(BackendConfig):
    """Takes the place of `ray.train.torch.TorchConfig`.

    Attributes:
        timeout_s: ranks wait so long for each other.
        backend: of torch.distributed; None: Ray's trainer chooses nccl for GPUs, gloo without.
    """

    timeout_s: int
    backend: str | None = None

    @property
    def backend_cls(self) -> type[Backend]:
        """Return what makes ranks of workers."""
        return _Meeting

    @property
    def train_func_context(self) -> Any:
        """Return the context of what workers run: Ray's, which chooses their GPU."""
        from ray.train.torch.config import TorchConfigContextManager

        return TorchConfigContextManager


class _Meeting(Backend):
    """In the controller: has the workers meet at rank 0, and leave."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Return when all have met."""
        import ray

        place = worker_group.execute_single(0, find_place)
        size = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(rank, meet, backend_config, place, rank, size)
                for rank in range(size)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Return when all have left, or have had their time."""
        import ray

        left = worker_group.execute_async(leave)
        ray.wait(left, num_returns=len(left), timeout=LEAVING_S)


def find_place() -> tuple[str, int]:
    """Return an address of this worker and a port that nobody uses there."""
    from ray.train._internal.utils import get_address_and_port

    host, port = get_address_and_port()
    return str(host), int(port)


def meet(config: Ranks, place: tuple[str, int], rank: int, size: int) -> None:
    """Make this worker a rank, as Ray does."""
    from ray.train.torch import config as rays

    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = place[0], str(place[1])
    rays._set_torch_distributed_env_vars()  # type: ignore[no-untyped-call]
    rays._setup_torch_process_group(
        backend=config.backend or "gloo",
        world_rank=rank,
        world_size=size,
        init_method="env://",
        timeout_s=config.timeout_s,
    )


def leave() -> None:
    """Leave the others, as Ray has it."""
    import torch.distributed as dist
    from ray.train.torch import config as rays

    many = dist.is_initialized() and dist.get_world_size() > 1
    rays._shutdown_torch(destroy_process_group=many)  # type: ignore[no-untyped-call]
