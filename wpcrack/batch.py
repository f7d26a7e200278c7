"""What a training step works on: the images of a batch, and those of them that show a crack.

Shape letters: B images, C of them with a crack, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_COUNT = 1e-3
"""Divides a sum over no image, which is 0."""


@dataclass(frozen=True)
class Batch:
    """The local part of one global batch."""

    image: Tensor
    """(B, 3, H, W) in [0, 1]."""
    has_crack: Tensor
    """(B,) float, 1 = crack, 0 = road."""
    erased: Tensor
    """(B, 1, H, W) 1 in erased cells, 0 elsewhere."""
    images: Tensor
    """Images of the global batch per rank (scalar): divisor of sums over images."""
    cracks: Tensor
    """Crack images of the global batch per rank (scalar, >= 1 / ranks)."""
    plain: Tensor | None = None
    """(B, 3, H, W) before brightness, contrast and grain were changed; None: they were not."""

    @property
    def roads(self) -> Tensor:
        """Road images of the global batch per rank (scalar), above 0: divisor of sums over them."""
        return (self.images - self.cracks).clamp_min(MIN_COUNT)

    @property
    def to_label(self) -> Tensor:
        """(B, 3, H, W) that pseudo labels are made of: the plain images."""
        return self.image if self.plain is None else self.plain

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def label(self) -> Tensor:
        """(B, 2) one-hot road / crack."""
        return torch.stack([1 - self.has_crack, self.has_crack], 1)

    def pieces(self, count: int) -> list[Batch]:
        """At most `count` pieces of about equal length; what sums are divided by stays the whole's.

        So the gradients of the pieces add up to the gradient of the batch.
        """
        images = self.image.chunk(count)
        plain = [None] * len(images) if self.plain is None else self.plain.chunk(count)
        has_crack, erased = self.has_crack.chunk(count), self.erased.chunk(count)
        parts = zip(images, has_crack, erased, plain, strict=True)
        return [
            Batch(image, shown, erased, self.images, self.cracks, clear)
            for image, shown, erased, clear in parts
        ]


@dataclass(frozen=True)
class CrackPart:
    """The crack images of a batch; if there is none, one road image that counts nothing.

    So the work of a phase follows the labels, but its collectives and finite values do not.
    """

    index: Tensor
    """(C,) positions in the batch."""
    shown: Tensor
    """(C,) 1 for crack images, 0 for the stand-in."""

    @classmethod
    def of(cls, batch: Batch) -> CrackPart:
        """Of a batch with at least one image."""
        index = batch.has_crack.nonzero().flatten()
        if len(index) == 0:
            index = torch.zeros(1, dtype=torch.long, device=batch.image.device)
        return cls(index, batch.has_crack[index])

    def rows(self, values: Tensor) -> Tensor:
        """The part's rows of (B, ...) values; values of the part alone, (C, ...), pass.

        If both are of one length, every image has a crack and the order is the same.
        """
        return values if len(values) == len(self.index) else values[self.index]
