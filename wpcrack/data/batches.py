"""From an image-level data set to batches: sampling, augmentation, sharding, prefetching.

Which samples a global batch holds, and how each is changed, depends on the seed and the step
alone; a rank reads its part of it.

Shape letters: B images, C of them with a crack, H W pixels.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wpcrack.config import MethodConfig
from wpcrack.data.augment import as_planes, changes_colors, erase_grid, recolor, reorient
from wpcrack.data.images import read_rgb
from wpcrack.data.read import Item
from wpcrack.errors import ConfigError, DataError
from wpcrack.synthetic.pavement import PavementConfig, draw_pavement

SIDE_MULTIPLE = 16
"""Image sides are padded to a multiple of this: encoder stride 8, decoder stride 2 and a down."""
SMALLEST_SIDE = 32
CACHE_BYTES = 2 * 2**30
"""Decoded images kept in memory, per worker."""
PREFETCH = 3
"""Batches prepared ahead."""
MOST_OFTEN_MISSED = 4.0
"""Pictures of more than so many windows: most cuts miss the crack that one of them shows."""
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
        )

    def pieces(self, count: int) -> list[Batch]:
        """Cut the batch into at most `count` pieces of about equal length.

        What sums are divided by stays that of the whole, so the gradients of the pieces add up to
        the gradient of the batch.
        """
        images = self.image.chunk(count)
        plain = [None] * len(images) if self.plain is None else self.plain.chunk(count)
        exact = [None] * len(images) if self.exact is None else self.exact.chunk(count)
        has_crack, erased = self.has_crack.chunk(count), self.erased.chunk(count)
        parts = zip(images, has_crack, erased, plain, exact, strict=True)
        return [
            Batch(image, shown, erased, self.images, self.cracks, clear, known)
            for image, shown, erased, clear, known in parts
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


@dataclass(frozen=True)
class Shard:
    """Which part of each global batch this rank reads."""

    rank: int = 0
    ranks: int = 1


class Images:
    """Decoded images, cut to one size, by item number; small sets stay in memory.

    The size is the usual one of that class whose images are smaller, so that whole photographs with
    a crack and windows without one are seen alike, and at most `window_px` on each side. Larger
    images are cut at random: a cut that misses the crack keeps its label, which pooling over the
    CAM and pseudo labels from it bear.
    """

    def __init__(self, items: Sequence[Item], window_px: int | None = None) -> None:
        self.items = tuple(items)
        smallest = min(min(i.height, i.width) for i in self.items)
        if smallest < SMALLEST_SIDE:
            raise DataError(
                f"an image is only {smallest} pixels wide, at least {SMALLEST_SIDE} are needed; "
                "leave it out or cut larger windows"
            )
        height, width = common_size(self.items)
        self.size = (min(height, window_px or height), min(width, window_px or width))
        self._kept: dict[int, NDArray[np.uint8]] = {}
        decoded = sum(i.height * i.width * 3 for i in self.items)
        self.kept_bytes = decoded if decoded <= CACHE_BYTES else 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """Say that cuts out of large crack images mostly miss the crack."""
        height, width = self.size
        sizes = [(i.height, i.width) for i in self.items if i.has_crack]
        large = [s for s in sizes if s[0] * s[1] > MOST_OFTEN_MISSED * height * width]
        if 2 * len(large) <= len(sizes):
            return ()
        rows, cols = max(large)
        return (
            f"windows of {width} x {height} px are cut at random out of crack images of up to "
            f"{cols} x {rows} px, and most of them will not show the crack; the model learns "
            "better from pictures cut to about that size and then sorted",
        )

    def __len__(self) -> int:
        """Count the images."""
        return len(self.items)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Read a whole image, uint8, at least (H, W, 3): smaller ones are reflected at an edge."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        image = reflect_to(read_rgb(self.items[index].path), self.size)
        if self.kept_bytes:
            self._kept[index] = image
        return image

    def cut(self, index: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Cut a random (H, W, 3) out of a larger image; the generator serves only those."""
        image = self[index]
        for axis, side in enumerate(self.size):
            if image.shape[axis] > side:
                start = int(rng.integers(image.shape[axis] - side + 1))
                image = image.take(range(start, start + side), axis)
        return image

    def still(self, index: int) -> NDArray[np.uint8]:
        """Cut (H, W, 3) out of a larger image, the same each time: for validation."""
        return self.cut(index, np.random.default_rng(index))


class Sampler:
    """An endless, seeded stream of balanced global batches."""

    def __init__(self, items: Sequence[Item], batch_size: int, seed: int) -> None:
        self.seed, self.batch_size = seed, batch_size
        self.members = [[i for i, x in enumerate(items) if x.has_crack == c] for c in (True, False)]
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}  # of each class, its last pass

    def batch(self, step: int) -> list[tuple[int, int]]:
        """Draw (item number, pass over its class) of a global step; crack and road alternate."""
        share = self.batch_size // 2
        sides = [
            [self._draw(side, step * n + k) for k in range(n)]
            for side, n in ((0, self.batch_size - share), (1, share))
        ]
        return [side[k] for k in range(self.batch_size - share) for side in sides if k < len(side)]

    def _draw(self, side: int, position: int) -> tuple[int, int]:
        members = self.members[side]
        turn, place = divmod(position, len(members))
        known, order = self._orders.get(side, (-1, np.empty(0, np.int64)))
        if known != turn:
            order = np.random.default_rng([self.seed, turn, side]).permutation(len(members))
            self._orders[side] = turn, order
        return members[order[place]], turn


@dataclass(frozen=True)
class Sample:
    """One image of a batch; fields as in `Batch`."""

    image: NDArray[np.float32]
    plain: NDArray[np.float32]
    erased: NDArray[np.float32]
    exact: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    """Target and weight of a drawn image."""


def drawn_at(place: int, share: float) -> bool:
    """Return whether the image at a place of a batch is drawn: a share of each class, spread.

    Crack and road alternate; cracks round to the nearest count, roads down.

    >>> [place for place in range(16) if drawn_at(place, 0.35)]
    [2, 5, 8, 11, 14]
    """
    turn, phase = place // 2, 0.0 if place % 2 else 0.5
    return int((turn + 1) * share + phase) > int(turn * share + phase)


def _exact(samples: Sequence[Sample]) -> Exact:
    known = [s.exact or (np.zeros_like(s.erased), np.zeros_like(s.erased)) for s in samples]
    return Exact(
        drawn=torch.tensor([float(s.exact is not None) for s in samples]),
        target=torch.from_numpy(np.stack([target for target, _ in known])),
        weight=torch.from_numpy(np.stack([weight for _, weight in known])),
    )


class BatchSource:
    """Batches of this rank, in order, prepared by a thread or processes ahead of the training.

    Args:
        images: of the set.
        config: of the run.
        shard: which part of each batch is read.
        loaders: processes that prepare batches; 0: a thread.
        pin: put batches where a GPU can fetch them while it works.
    """

    def __init__(
        self,
        images: Images,
        config: MethodConfig,
        shard: Shard,
        *,
        loaders: int = 0,
        pin: bool = False,
    ) -> None:
        self.images, self.config, self.shard, self.pin = images, config, shard, pin
        self._loaders = Loaders(self, loaders) if loaders else None
        self.sampler = Sampler(images.items, config.train.batch_size, config.seed)
        size = config.train.batch_size
        if size % shard.ranks:
            raise ConfigError(
                f"train.batch_size is {size}, which {shard.ranks} workers cannot share equally; "
                f"set a multiple of {shard.ranks}"
            )

    def load(self, step: int, epoch: int, drawn_share: float = 0.0) -> Batch:
        """Load the local part of a global step.

        Args:
            step: of the run.
            epoch: sets how much is erased.
            drawn_share: of the images, spread evenly, that are drawn in place of a labeled one of
                the same class.
        """
        places = self.sampler.batch(step)
        cracks = sum(self.images.items[i].has_crack for i, _ in places)
        local = len(places) // self.shard.ranks
        mine = range(self.shard.rank * local, (self.shard.rank + 1) * local)
        is_drawn = [drawn_at(k, drawn_share) for k in range(len(places))]
        labels = [self.images.items[places[k][0]].has_crack for k in mine]
        samples = [
            self._drawn(step, k, label) if draw else self._sample(*places[k], epoch)
            for k, draw, label in zip(mine, is_drawn[mine.start : mine.stop], labels, strict=True)
        ]
        plain = [s.plain for s in samples] if changes_colors(self.config.augment) else None
        return Batch(
            image=torch.from_numpy(np.stack([s.image for s in samples])),
            has_crack=torch.tensor(labels, dtype=torch.float32),
            erased=torch.from_numpy(np.stack([s.erased for s in samples])),
            images=torch.tensor(float(local)),
            cracks=torch.tensor(max(cracks, 1) / self.shard.ranks),
            plain=None if plain is None else torch.from_numpy(np.stack(plain)),
            exact=_exact(samples) if any(is_drawn) else None,
        )

    def _drawn(self, step: int, place: int, has_crack: bool) -> Sample:
        """Draw the window at a place of a global batch, whatever rank reads it."""
        height, width = self.images.size
        pavement = PavementConfig(size=max(height, width), crack_share=float(has_crack))
        seed = np.random.SeedSequence([self.config.seed, step, place])
        window = draw_pavement(seed, pavement)
        seen = ~cv2.dilate(window.faint.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        image = as_planes(window.image[:height, :width])
        target, weight = (m[None, :height, :width].astype(np.float32) for m in (window.mask, seen))
        return Sample(image, image, np.zeros_like(target), (target * weight, weight))

    def _sample(self, index: int, turn: int, epoch: int) -> Sample:
        rng = np.random.default_rng(np.random.SeedSequence([self.config.seed, turn, index]))
        plain = reorient(self.images.cut(index, rng), rng, self.config.augment)
        image = recolor(plain, rng, self.config.augment)
        size = (image.shape[1], image.shape[2])
        erased = erase_grid(size, epoch, rng, self.config.erase)
        return Sample(image, as_planes(plain), erased)

    def stream(
        self, first: int, count: int, epoch: int, drawn_share: float = 0.0
    ) -> Generator[Batch, None, None]:
        """Yield the batches of `count` steps from `first` on (see `load`), which are read ahead.

        Raises:
            DataError: if an image cannot be read.
        """
        if self._loaders is not None:
            orders = [(step, epoch, drawn_share) for step in range(first, first + count)]
            yield from self._loaders.stream(orders)
            return
        ahead: queue.Queue[Batch | Exception] = queue.Queue(PREFETCH)
        stop = threading.Event()

        def put(item: Batch | Exception) -> None:
            while not stop.is_set():
                try:
                    return ahead.put(item, timeout=0.1)
                except queue.Full:
                    continue

        def work() -> None:
            for step in range(first, first + count):
                if stop.is_set():
                    return
                try:
                    batch = self.load(step, epoch, drawn_share)
                    put(batch.each(Tensor.pin_memory) if self.pin else batch)
                except Exception as error:  # handed to the consumer, who raises it
                    return put(error)

        thread = threading.Thread(target=work, daemon=True, name="wpcrack-batches")
        thread.start()
        try:
            for _ in range(count):
                item = ahead.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()


Order = tuple[int, int, float]
"""Step, epoch and share of drawn images: what `BatchSource.load` takes."""


class Loaders:
    """Processes that prepare batches; they live as long as the source, and end with its process."""

    def __init__(self, source: BatchSource, count: int) -> None:
        """Start none yet: they come with the first batch."""
        self._orders: list[Order] = []
        self._pin = source.pin
        plain = BatchSource(source.images, source.config, source.shard)
        self._loader: DataLoader[Batch | DataError] = DataLoader(
            _Loading(plain),
            batch_size=None,
            sampler=self._orders,
            num_workers=count,
            multiprocessing_context="spawn",  # a copy of a process with threads may hang
            persistent_workers=True,
        )

    def stream(self, orders: Sequence[Order]) -> Iterator[Batch]:
        """Yield batches in the order in which they are asked for."""
        self._orders[:] = orders
        for batch in self._loader:
            if isinstance(batch, DataError):
                raise batch
            yield batch.each(Tensor.pin_memory) if self._pin else batch


class _Loading(Dataset["Batch | DataError"]):
    """What runs in a loading process."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source

    def __getitem__(self, order: Order) -> Batch | DataError:
        try:
            return self._source.load(*order)
        except DataError as error:  # as it is: the loader would put a traceback into its text
            return error


def validation_part(items: Sequence[Item], limit: int, seed: int) -> list[Item]:
    """Choose at most `limit` items, half of each class, seeded; the same on every rank."""
    rng = np.random.default_rng([seed, len(items)])
    chosen: list[Item] = []
    for has_crack in (True, False):
        members = [i for i in items if i.has_crack == has_crack]
        order = rng.permutation(len(members))[: limit // 2]
        chosen += [members[k] for k in sorted(order)]
    return chosen


def validation_batches(
    images: Images, batch_size: int, shard: Shard
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield this rank's part of `images`: (B, 3, H, W), unchanged, with (B,) labels."""
    mine = range(shard.rank, len(images), shard.ranks)
    for start in range(0, len(mine), batch_size):
        part = mine[start : start + batch_size]
        yield (
            torch.from_numpy(np.stack([as_planes(images.still(i)) for i in part])),
            torch.tensor([float(images.items[i].has_crack) for i in part]),
        )


def common_size(items: Sequence[Item]) -> tuple[int, int]:
    """Return (H, W): the median sides of the class with smaller images, up to a multiple of 16."""
    classes = [[i for i in items if i.has_crack == c] for c in (True, False)]
    members = [side for side in classes if side]
    height = min(np.median([i.height for i in side]) for side in members)
    width = min(np.median([i.width for i in side]) for side in members)
    return up_to_multiple(int(height)), up_to_multiple(int(width))


def up_to_multiple(side: int) -> int:
    """Round a side up to a multiple of SIDE_MULTIPLE.

    >>> up_to_multiple(96), up_to_multiple(100)
    (96, 112)
    """
    return -(-side // SIDE_MULTIPLE) * SIDE_MULTIPLE


def reflect_to(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Continue an image by reflection at its lower and right edge up to (H, W)."""
    down, right = size[0] - image.shape[0], size[1] - image.shape[1]
    if down <= 0 and right <= 0:
        return image
    return np.pad(image, ((0, max(down, 0)), (0, max(right, 0)), (0, 0)), mode="reflect")
