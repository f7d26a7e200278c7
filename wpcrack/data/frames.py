"""Which pictures show one place: they stand on one side of a split, or its score flatters.

Pictures are of one frame if their names say that they are parts of one photograph (`7_r0_c0`,
`7_r0_c512`) or differ in a trailing counter (`11156-1`, `11156-2`), if their pixels are equal, or
if their contents overlap: crops of one photograph, a photograph taken twice. Overlap is found by
ORB points (Rublee et al., ICCV 2011) that agree on one shift, and believed where the pixels of the
common part agree.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wpcrack.data.manifest import origin
from wpcrack.errors import ConfigError

COUNTER = re.compile(r"^(?P<frame>.*\d.*?)[-_ ]\(?\d{1,3}\)?$")
"""A name that ends in a counter after a separator; what stands before has a number of its own, so
`photo_1` and `photo_2` are two photographs."""

LARGEST_SHARE = 0.5
"""A rule that would make more than this share of the pictures one frame is not believed: a video
overlaps from picture to picture, and `2024_001` is the first photograph of a year."""

HOW_TO_NAME = "--group REGEX (data.group of a training)"
"""Where the user says what makes a frame."""

FEW_PICTURES = 4
"""With so few pictures the share says nothing."""

LONGEST_PX = 1024
"""Larger pictures are halved until they fit, before points are looked for."""

POINTS = 160
"""ORB points of a picture at most."""

NOISE_PX = 1.0
"""Sigma of the Gaussian that takes the noise of a camera away before."""

NEIGHBORS = 300
"""Contents are compared with so many pictures that follow in the order of the names."""

MOST_BITS = 64
"""Descriptors of 256 bits that differ in at most so many may be the same point."""

LEAST_VOTES = 5
"""So many points must agree on a shift."""

SHIFT_PX = 1.0
"""Shifts agree within so many pixels of the thumbnails."""

THUMBNAIL = 4
"""Pixels are compared at this fraction of the size at which points are found."""

LEAST_SHARE = 0.03
"""Common part of two pictures, as a share of the smaller one."""

LEAST_CORRELATION = 0.5
"""Of the gray values of the common part."""


@dataclass(frozen=True)
class Content:
    """What is kept of a picture to find it in others.

    Attributes:
        digest: Of its pixels and shape.
        thumbnail: (h, w) float32, gray.
        points: (N, 2) float32, x y in pixels of the thumbnail.
        descriptors: (N, 32) uint8.
    """

    digest: bytes
    thumbnail: NDArray[np.float32]
    points: NDArray[np.float32]
    descriptors: NDArray[np.uint8]

    @classmethod
    def of(cls, image: NDArray[np.uint8]) -> Content:
        """Look at a picture (H, W, 3)."""
        gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        while max(gray.shape) > LONGEST_PX:
            gray = _reduce(gray, 2)
        smooth = cv2.GaussianBlur(gray, (0, 0), NOISE_PX)
        # Faint pictures have few points. A lower threshold finds more, but then ties windows of
        # different streets: 2 pairs of 600 drawn ones.
        found, descriptors = cv2.ORB.create(POINTS).detectAndCompute(smooth, None)
        if descriptors is None:
            descriptors = np.zeros((0, 32), np.uint8)
        points = np.array([point.pt for point in found], np.float32).reshape(-1, 2)
        points /= np.float32(THUMBNAIL)
        small = _reduce(gray, THUMBNAIL).astype(np.float32)
        return cls(digest(image), small, points, np.asarray(descriptors, np.uint8))


def _reduce(gray: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    height, width = (max(1, side // factor) for side in gray.shape)
    return np.asarray(cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True)
class Frames:
    """The frame of each source.

    Attributes:
        of: Frame by source; the first source of a frame, or the photograph that it is a part of,
            stands for it.
        overlapping: Pairs of pictures that only their content ties together.
        identical: Pairs of pictures whose pixels are equal.
        warnings: What was not believed.
    """

    of: Mapping[str, str]
    overlapping: tuple[tuple[str, str], ...]
    identical: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


def digest(image: NDArray[np.uint8]) -> bytes:
    """Hash pixels and shape: equal digests are equal pictures, whatever their files."""
    head = repr(image.shape).encode()
    return hashlib.sha256(head + np.ascontiguousarray(image).tobytes()).digest()


def find_frames(
    contents: Mapping[str, Content],
    group: str | None = None,
    sources: Mapping[str, str] | None = None,
) -> Frames:
    """Find the frames of pictures.

    Args:
        contents: Of each picture by its name.
        group: Regular expression whose match in the name of a source (its first group, if it has
            one) names the frame, in place of counters and overlaps; equal pixels stay together.
        sources: Name of the photograph that each picture was cut from; None: its own name.

    Raises:
        ConfigError: `group` is not a regular expression.
    """
    of = dict(sources or {name: name for name in contents})
    identical = _identical(contents)
    if group is not None:
        names = sorted(set(of.values()))
        ties = _by_name({name: named_frame(name, group) for name in names})
        equal = [(of[a], of[b]) for a, b in identical]
        return Frames(_merge(names, [*equal, *ties]), (), identical, ())
    photograph = {source: origin(source)[0] for source in of.values()}
    of = {name: photograph[source] for name, source in of.items()}
    names = sorted(set(of.values()))
    equal = [(of[a], of[b]) for a, b in identical]
    warnings = []
    ties = [*equal, *_by_name({name: numbered_frame(name) for name in names})]
    if _is_too_large(names, ties):
        warnings.append(
            "the numbers at the end of the names are taken for those of photographs, not of parts "
            f"of one; {HOW_TO_NAME} says otherwise"
        )
        ties = equal
    overlapping = _overlaps(contents, of, _merge(names, ties))
    overlaps = [(of[a], of[b]) for a, b in overlapping]
    if _is_too_large(names, [*ties, *overlaps]):
        warnings.append(
            f"{len(overlapping)} pairs of pictures overlap, as in a video, so that pictures held "
            "out show what others show as well, and their score will flatter; "
            f"{HOW_TO_NAME} can name the parts of the road"
        )
        overlaps, overlapping = [], []
    frames = _merge(names, [*ties, *overlaps])
    by_source = {source: frames[name] for source, name in photograph.items()}
    return Frames(by_source, tuple(overlapping), identical, tuple(warnings))


def numbered_frame(name: str) -> str:
    """Return a name without its trailing counter.

    >>> [numbered_frame(name) for name in ("11156-2", "11156", "IMG_0012", "IMG_0012 (2)", "p_3")]
    ['11156', '11156', 'IMG_0012', 'IMG_0012', 'p_3']
    """
    found = COUNTER.match(name)
    return found["frame"] if found else name


def named_frame(name: str, group: str) -> str:
    """Return what a regular expression finds in a name, or the name.

    Raises:
        ConfigError: It is not a regular expression.
    """
    try:
        found = re.search(group, name)
    except re.error as error:
        raise ConfigError(
            f"group={group!r} is not a regular expression ({error}); give one such as '^[^-]+'"
        ) from error
    if found is None:
        return name
    return str((found[1] if found.re.groups else found[0]) or name)


Pairs = list[tuple[str, str]]


def _by_name(frames: Mapping[str, str]) -> Pairs:
    """Tie each picture to the first of its frame."""
    first: dict[str, str] = {}
    return [(first.setdefault(frame, name), name) for name, frame in frames.items()]


def _identical(contents: Mapping[str, Content]) -> tuple[tuple[str, str], ...]:
    first: dict[bytes, str] = {}
    pairs = [(first.setdefault(contents[name].digest, name), name) for name in sorted(contents)]
    return tuple((a, b) for a, b in pairs if a != b)


def _is_too_large(names: Sequence[str], ties: Pairs) -> bool:
    frames = list(_merge(names, ties).values())
    largest = max(map(frames.count, set(frames)), default=0)
    return largest > max(FEW_PICTURES, LARGEST_SHARE * len(names))


def _merge(names: Sequence[str], ties: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the first name of each connected group, by name."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for a, b in ties:
        first, second = sorted((root(a), root(b)))
        parent[second] = first
    return {name: root(name) for name in names}


# -- overlapping contents ----------------------------------------------------------------------


def _overlaps(
    contents: Mapping[str, Content], of: Mapping[str, str], known: Mapping[str, str]
) -> Pairs:
    """Find pairs that overlap; those whose frame is known to be one are not looked at."""
    names = sorted(contents)
    pictures = [contents[name] for name in names]
    frames = [known[of[name]] for name in names]
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
    pairs = []
    for k, picture in enumerate(pictures):
        later = range(k + 1, min(k + 1 + NEIGHBORS, len(pictures)))
        others = [j for j in later if frames[j] != frames[k]]
        pairs += [(names[k], names[j]) for j in _candidates(picture, pictures, others, matcher)]
    return pairs


def _candidates(
    picture: Content, pictures: Sequence[Content], others: Sequence[int], matcher: cv2.BFMatcher
) -> list[int]:
    """Return which of the others overlap with a picture."""
    counts = [len(pictures[j].descriptors) for j in others]
    if not len(picture.descriptors) or not sum(counts):
        return []
    matches = matcher.match(
        picture.descriptors, np.concatenate([pictures[j].descriptors for j in others])
    )
    near = [match for match in matches if match.distance <= MOST_BITS]
    owner = np.repeat(np.arange(len(others)), counts)
    points = np.concatenate([pictures[j].points for j in others])
    votes: dict[int, list[NDArray[np.float32]]] = {}
    for match in near:
        shift = points[match.trainIdx] - picture.points[match.queryIdx]
        votes.setdefault(int(owner[match.trainIdx]), []).append(shift)
    found = []
    for place, shifts in votes.items():
        shift = _common_shift(np.array(shifts))
        other = pictures[others[place]]
        if shift is not None and _agrees(picture.thumbnail, other.thumbnail, shift):
            found.append(others[place])
    return found


def _common_shift(shifts: NDArray[np.float32]) -> NDArray[np.int64] | None:
    """Return the shift (x, y) that most points agree on, if there are enough of them."""
    near = np.abs(shifts[:, None] - shifts[None]).max(-1) <= SHIFT_PX
    votes = near.sum(1)
    best = int(votes.argmax())
    if votes[best] < LEAST_VOTES:
        return None
    return np.asarray(np.rint(np.median(shifts[near[best]], axis=0)), np.int64)


def _agrees(one: NDArray[np.float32], other: NDArray[np.float32], shift: NDArray[np.int64]) -> bool:
    """Return whether the common part shows the same; pixel p of one is p + shift of the other."""
    dx, dy = int(shift[0]), int(shift[1])
    top, left = max(0, -dy), max(0, -dx)
    bottom = min(one.shape[0], other.shape[0] - dy)
    right = min(one.shape[1], other.shape[1] - dx)
    smaller = min(one.size, other.size)
    if bottom <= top or right <= left or (bottom - top) * (right - left) < LEAST_SHARE * smaller:
        return False
    a = one[top:bottom, left:right]
    b = other[top + dy : bottom + dy, left + dx : right + dx]
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return scale > 0 and float((a * b).sum()) / scale >= LEAST_CORRELATION
