"""Counters for Prometheus, through the metrics of Ray (`ray_` stands before their names there)."""

from __future__ import annotations

from collections.abc import Callable


def counter(name: str, meaning: str) -> Callable[[float], None]:
    """Return what adds to a counter; outside of Ray's processes it adds to nothing.

    Args:
        name: of the counter.
        meaning: one line.
    """
    import ray

    if not ray.is_initialized():
        return lambda _: None
    from ray.util.metrics import Counter

    made = Counter(name, description=meaning)

    def add(amount: float) -> None:
        if amount > 0:  # Ray refuses 0
            made.inc(amount)

    return add
