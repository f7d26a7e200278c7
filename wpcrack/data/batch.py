"""One global batch as a rank holds it: images, labels, and what is known of pixels.

Shape letters: B images, C of them with a crack, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_COUNT = 1e-3
"""Divides a sum over no image, which is 0."""


@dataclass(frozen=True)
class Exact:
    """What is known of each pixel of the drawn images of a batch."""

    drawn: Tensor
    """(B,) 1 for drawn images, 0 for others, of whose pixels nothing is known."""
    target: Tensor
    """(B, 1, H, W) 1 on crack pixels."""
    weight: Tensor
    """(B, 1, H, W) 0 on the parts of a crack that nobody could see, 1 elsewhere."""

    def each(self, change: Callable[[Tensor], Tensor]) -> Exact:
        """Return what a function makes of each tensor."""
        return Exact(change(self.drawn), change(self.target), change(self.weight))

    def chunk(self, count: int) -> list[Exact]:
        """Cut into at most `count` pieces of about equal length."""
        parts = (self.drawn.chunk(count), self.target.chunk(count), self.weight.chunk(count))
        return [Exact(*part) for part in zip(*parts, strict=True)]


@dataclass(frozen=True)
class Foreseen:
    """What a model saw before the training in images with what lies around them."""

    known: Tensor
    """(B,) 1 for images of which it is known, else 0."""
    probability: Tensor
    """(B, 1, H, W) of a crack, in [0, 1]; 0 where it is not known."""

    def of(self, index: Tensor) -> Foreseen:
        """Return what is known of the images at positions of the batch."""
        return Foreseen(self.known[index], self.probability[index])

    def each(self, change: Callable[[Tensor], Tensor]) -> Foreseen:
        """Return what a function makes of each tensor."""
        return Foreseen(change(self.known), change(self.probability))

    def chunk(self, count: int) -> list[Foreseen]:
        """Cut into at most `count` pieces of about equal length."""
        parts = (self.known.chunk(count), self.probability.chunk(count))
        return [Foreseen(*part) for part in zip(*parts, strict=True)]


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
    exact: Exact | None = None
    """Of the drawn images; None: there are none in the global batch."""
    foreseen: Foreseen | None = None
    """Of images with surroundings; None: nobody asked."""

    @property
    def roads(self) -> Tensor:
        """Road images of the global batch per rank (scalar), above 0: divisor of sums over them."""
        return (self.images - self.cracks).clamp_min(MIN_COUNT)

    @property
    def to_label(self) -> Tensor:
        """(B, 3, H, W) images that pseudo labels are made from: the plain ones."""
        return self.image if self.plain is None else self.plain

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def label(self) -> Tensor:
        """(B, 2) one-hot road / crack."""
        return torch.stack([1 - self.has_crack, self.has_crack], 1)

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return what a function makes of each tensor, like a copy elsewhere."""
        return Batch(
            change(self.image),
            change(self.has_crack),
            change(self.erased),
            change(self.images),
            change(self.cracks),
            None if self.plain is None else change(self.plain),
            None if self.exact is None else self.exact.each(change),
            None if self.foreseen is None else self.foreseen.each(change),
        )

    def pieces(self, count: int) -> list[Batch]:
        """Cut the batch into at most `count` pieces of about equal length.

        What sums are divided by stays that of the whole, so the gradients of the pieces add up to
        the gradient of the batch.
        """
        images = self.image.chunk(count)
        plain = [None] * len(images) if self.plain is None else self.plain.chunk(count)
        exact = [None] * len(images) if self.exact is None else self.exact.chunk(count)
        seen = [None] * len(images) if self.foreseen is None else self.foreseen.chunk(count)
        has_crack, erased = self.has_crack.chunk(count), self.erased.chunk(count)
        parts = zip(images, has_crack, erased, plain, exact, seen, strict=True)
        return [
            Batch(image, shown, erased, self.images, self.cracks, *known)
            for image, shown, erased, *known in parts
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
        """Find the crack images of a batch with at least one image."""
        return cls.where(batch.has_crack)

    @classmethod
    def to_label(cls, batch: Batch) -> CrackPart:
        """Find the crack images whose pixels nobody knows."""
        if batch.exact is None:
            return cls.of(batch)
        return cls.where(batch.has_crack * (1 - batch.exact.drawn))

    @classmethod
    def where(cls, shown: Tensor) -> CrackPart:
        """Make the part of the images for which (B,) is 1."""
        index = shown.nonzero().flatten()
        if len(index) == 0:
            index = torch.zeros(1, dtype=torch.long, device=shown.device)
        return cls(index, shown[index])

    def rows(self, values: Tensor) -> Tensor:
        """Pick the part's rows of (B, ...) values; return (C, ...) values as they are.

        If both are of one length, every image has a crack and the order is the same.
        """
        return values if len(values) == len(self.index) else values[self.index]
