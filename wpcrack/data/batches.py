"""From the pictures of a set to batches: sampling, augmentation, sharding, prefetching.

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
from wpcrack.data.batch import Batch, Exact, Foreseen
from wpcrack.data.pictures import Images
from wpcrack.data.read import Item
from wpcrack.errors import ConfigError, DataError, TrainingError
from wpcrack.synthetic.pavement import PavementConfig, draw_pavement

PREFETCH = 3
"""Batches prepared ahead."""


@dataclass(frozen=True)
class Shard:
    """Which part of each global batch this rank reads."""

    rank: int = 0
    ranks: int = 1

    def of(self, size: int) -> range:
        """Return which of `size` images this rank reads; ranks differ by one image at most.

        >>> [list(Shard(rank, 3).of(8)) for rank in range(3)]
        [[0, 1], [2, 3, 4], [5, 6, 7]]
        """
        first, end = (size * rank // self.ranks for rank in (self.rank, self.rank + 1))
        return range(first, end)


@dataclass(frozen=True)
class Mined:
    """Road images that a model marks wrongly, to be shown more often.

    Attributes:
        items: Their numbers.
        share: Of the road images of all batches that are these.
    """

    items: tuple[int, ...]
    share: float

    def take(self, position: int) -> tuple[int, int] | None:
        """Return the item and its pass at a position among all road images; None: another one.

        >>> [Mined((5, 6), 0.5).take(k) for k in range(6)]
        [None, (5, 1000000), None, (6, 1000000), None, (5, 1000001)]
        """
        number = int(position * self.share)
        if int((position + 1) * self.share) == number:
            return None
        turn, place = divmod(number, len(self.items))
        return self.items[place], MINED_TURNS + turn


MINED_TURNS = 1_000_000
"""Passes over mined images are counted from here, so that they are changed in other ways."""


class Sampler:
    """An endless, seeded stream of balanced global batches."""

    def __init__(self, items: Sequence[Item], batch_size: int, seed: int) -> None:
        self.seed, self.batch_size = seed, batch_size
        self.members = [[i for i, x in enumerate(items) if x.has_crack == c] for c in (True, False)]
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}  # of each class, its last pass

    def batch(self, step: int, mined: Mined | None = None) -> list[tuple[int, int]]:
        """Draw (item number, pass over its class) of a global step; crack and road alternate.

        Args:
            step: of the run.
            mined: road images that take the places of others.
        """
        share = self.batch_size // 2
        sides = [
            [self._draw(side, step * n + k) for k in range(n)]
            for side, n in ((0, self.batch_size - share), (1, share))
        ]
        if mined is not None and mined.items:
            sides[1] = [mined.take(step * share + k) or sides[1][k] for k in range(share)]
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
    seen: NDArray[np.float32] | None = None
    """(1, H, W) what a model saw in it before, or (0, H, W); None: drawn."""


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


def _foreseen(seen: Sequence[NDArray[np.float32] | None], size: tuple[int, int]) -> Foreseen:
    """Stack what was seen in each image: (1, H, W), or nothing of it."""
    nothing = np.zeros((1, *size), np.float32)
    known = [part is not None and len(part) > 0 for part in seen]
    parts = [part if part is not None and len(part) else nothing for part in seen]
    return Foreseen(
        known=torch.tensor(known, dtype=torch.float32),
        probability=torch.from_numpy(np.stack(parts)),
    )


Foresee = Callable[[Item], "NDArray[np.uint8] | None"]
"""Image of a set -> probability (h, w) that a model sees in it, in 255 steps; None: not known."""


class BatchSource:
    """Batches of this rank, in order, prepared by a thread or processes ahead of the training.

    Args:
        images: of the set.
        config: of the run.
        shard: which part of each batch is read.
        loaders: processes that prepare batches; 0: a thread.
        pin: put batches where a GPU can fetch them while it works.
        foresee: what a model saw in crack images; it goes to other processes.
        mined: road images to be shown more often.
    """

    def __init__(
        self,
        images: Images,
        config: MethodConfig,
        shard: Shard,
        *,
        loaders: int = 0,
        pin: bool = False,
        foresee: Foresee | None = None,
        mined: Mined | None = None,
    ) -> None:
        self.images, self.config, self.shard, self.pin = images, config, shard, pin
        self.foresee, self.mined = foresee, mined
        self._loaders = Loaders(self, loaders) if loaders else None
        self.sampler = Sampler(images.items, config.train.batch_size, config.seed)
        size = config.train.batch_size
        if size < shard.ranks:
            raise ConfigError(
                f"train.batch_size is {size}, of which some of {shard.ranks} workers would get "
                "nothing; set fewer workers or a larger batch"
            )

    def load(self, step: int, epoch: int, drawn_share: float = 0.0, taught: bool = False) -> Batch:
        """Load the local part of a global step.

        Args:
            step: of the run.
            epoch: sets how much is erased.
            drawn_share: of the images, spread evenly, that are drawn in place of a labeled one of
                the same class.
            taught: for the detector stage: with what a model saw in crack images before, and with
                mined ones.
        """
        asked = taught and self.foresee is not None
        places = self.sampler.batch(step, self.mined if taught else None)
        cracks = sum(self.images.items[i].has_crack for i, _ in places)
        mine = self.shard.of(len(places))
        is_drawn = [drawn_at(k, drawn_share) for k in range(len(places))]
        labels = [self.images.items[places[k][0]].has_crack for k in mine]
        samples = [
            self._draw_window(step, k, label) if draw else self._sample(*places[k], epoch, asked)
            for k, draw, label in zip(mine, is_drawn[mine.start : mine.stop], labels, strict=True)
        ]
        plain = [s.plain for s in samples] if changes_colors(self.config.augment) else None
        return Batch(
            image=torch.from_numpy(np.stack([s.image for s in samples])),
            has_crack=torch.tensor(labels, dtype=torch.float32),
            erased=torch.from_numpy(np.stack([s.erased for s in samples])),
            images=torch.tensor(len(places) / self.shard.ranks),
            cracks=torch.tensor(max(cracks, 1) / self.shard.ranks),
            plain=None if plain is None else torch.from_numpy(np.stack(plain)),
            exact=_exact(samples) if any(is_drawn) else None,
            foreseen=_foreseen([s.seen for s in samples], self.images.size) if asked else None,
        )

    def _draw_window(self, step: int, place: int, has_crack: bool) -> Sample:
        """Draw the window at a place of a global batch, whatever rank reads it."""
        height, width = self.images.size
        pavement = PavementConfig(size=max(height, width), crack_share=float(has_crack))
        seed = np.random.SeedSequence([self.config.seed, step, place])
        window = draw_pavement(seed, pavement)
        seen = ~cv2.dilate(window.faint.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        image = as_planes(window.image[:height, :width])
        target, weight = (m[None, :height, :width].astype(np.float32) for m in (window.mask, seen))
        return Sample(image, image, np.zeros_like(target), (target * weight, weight))

    def _sample(self, index: int, turn: int, epoch: int, asked: bool) -> Sample:
        rng = np.random.default_rng(np.random.SeedSequence([self.config.seed, turn, index]))
        seen = self.foresee(self.images.items[index]) if asked and self.foresee else None
        cut = reorient(self.images.cut(index, rng, seen), rng, self.config.augment)
        plain = cut[..., :3]
        image = recolor(plain, rng, self.config.augment)
        size = (image.shape[1], image.shape[2])
        erased = erase_grid(size, epoch, rng, self.config.erase)
        return Sample(image, as_planes(plain), erased, seen=as_planes(cut[..., 3:]))

    def stream(
        self, first: int, count: int, epoch: int, drawn_share: float = 0.0, taught: bool = False
    ) -> Generator[Batch, None, None]:
        """Yield the batches of `count` steps from `first` on (see `load`), which are read ahead.

        Raises:
            DataError: if an image cannot be read.
        """
        if self._loaders is not None:
            steps = range(first, first + count)
            orders = [(step, epoch, drawn_share, taught) for step in steps]
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
                    batch = self.load(step, epoch, drawn_share, taught)
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


Order = tuple[int, int, float, bool]
"""What `BatchSource.load` takes."""


class Loaders:
    """Processes that prepare batches; they live as long as the source, and end with its process."""

    def __init__(self, source: BatchSource, count: int) -> None:
        """Start none yet: they come with the first batch."""
        self._orders: list[Order] = []
        self._pin = source.pin
        plain = BatchSource(
            source.images,
            source.config,
            source.shard,
            foresee=source.foresee,
            mined=source.mined,
        )
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
        try:
            for batch in self._loader:
                if isinstance(batch, DataError):
                    raise batch
                yield batch.each(Tensor.pin_memory) if self._pin else batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(
                "a process that prepares batches was killed (out of memory, or of room in "
                "/dev/shm?); set fewer scaling.loaders, or 0, and the same command continues"
            ) from error


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
    images: Images, batch_size: int, shard: Shard, foresee: Foresee | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, Foreseen | None]]:
    """Yield this rank's part of `images`, unchanged.

    Args:
        images: to validate with.
        batch_size: B.
        shard: this rank's part.
        foresee: what a model saw in crack images before.

    Yields:
        (B, 3, H, W) images, (B,) labels, and what was foreseen, if that is asked.
    """
    mine = range(shard.rank, len(images), shard.ranks)
    for start in range(0, len(mine), batch_size):
        part = mine[start : start + batch_size]
        seen = [None if foresee is None else foresee(images.items[i]) for i in part]
        cuts = [as_planes(images.still(i, s)) for i, s in zip(part, seen, strict=True)]
        yield (
            torch.from_numpy(np.stack([cut[:3] for cut in cuts])),
            torch.tensor([float(images.items[i].has_crack) for i in part]),
            None if foresee is None else _foreseen([cut[3:] for cut in cuts], images.size),
        )
