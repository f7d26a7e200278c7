"""What every typed configuration block is made of: its base, and kinds of numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
SEEDS = 2**63
"""Seeds that every generator takes; torch's takes no more."""
Seed = Annotated[int, Field(ge=0, lt=SEEDS)]


def _odd(side: int) -> int:
    if side % 2 == 0:
        raise ValueError(f"{side} has no center; set an odd number such as {side + 1}")
    return side


OddCount = Annotated[int, Field(ge=1), AfterValidator(_odd)]


def _rises(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"[{ends[0]:g}, {ends[1]:g}] falls; write the smaller number first")
    return ends


Rising = AfterValidator(_rises)
Range = Annotated[tuple[Positive, Positive], Rising]


class Block(BaseModel):
    """Base of all configuration blocks: immutable, unknown keys refused, field docstrings kept."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
