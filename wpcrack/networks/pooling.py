"""From a class activation map to class logits."""

from __future__ import annotations

from torch import Tensor


def top_mean(cam: Tensor, fraction: float) -> Tensor:
    """Mean of the highest `fraction` of cells: (B, K, h, w) -> (B, K).

    Fraction 1 is global average pooling (the paper); a small fraction tolerates a crack that
    fills few cells, since a thin crack then is not averaged away.
    """
    cells = cam.flatten(2)
    count = max(1, round(fraction * cells.shape[2]))
    return cells.topk(count, dim=2).values.mean(2)
