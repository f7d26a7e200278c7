"""One person's review of a map: the sample, the verdicts, how far it is, what they mean."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from geo.files import write_text
from geo.review.estimate import VERDICTS, Accuracy, Share, Stratum, precision, recall
from geo.review.estimate import Verdict as Judgment
from geo.review.places import Places, draw_sample
from jobs.page.journal import Codec, Journal, open_journal, replay
from jobs.page.pace import pace
from jobs.review.source import AROUND, Picture, Scenes
from wpcrack.data.images import write_png
from wpcrack.data.manifest import NAME, Row, window_name, write_manifest
from wpcrack.data.surroundings import write_surroundings
from wpcrack.errors import ConfigError, DataError
from wpcrack.inference.predict import fill_invalid

SAMPLE, JOURNAL, PICTURES, WINDOWS = "sample.json", "answers.jsonl", "pictures", "windows"
"""Names in the folder of a review."""

AHEAD = 2
"""Pictures that the page loads before they are shown."""

SOURCE_PX = 2048
"""Windows within such a square are one source: they never stand on both sides of a split."""

Verdict = Judgment | Literal["unsure"]
ALL_VERDICTS: tuple[str, ...] = (*VERDICTS, "unsure")


@dataclass(frozen=True)
class Place:
    """A place of the sample: its middle in the world, and what the map says of it."""

    x: float
    y: float
    stratum: str
    marked: bool
    kind: str
    severity: str
    confidence: float | None


@dataclass(frozen=True)
class Plan:
    """What is reviewed: made once, so that a review goes on as it began.

    Attributes:
        run_id: of the map.
        count, seed, window: as asked for.
        sizes: stratum -> its number of places.
        places: in the order in which they are shown.
    """

    run_id: str
    count: int
    seed: int
    window: int
    sizes: Mapping[str, int]
    places: tuple[Place, ...]

    @classmethod
    def draw(cls, run_id: str, found: Places, count: int, seed: int, window: int) -> Plan:
        """Draw a sample of a map."""
        sample = draw_sample(found, count, seed)
        middle = found.middle[sample.index]
        places = tuple(
            Place(
                x=float(middle[k, 0]),
                y=float(middle[k, 1]),
                stratum=str(sample.stratum[k]),
                marked=bool(found.marked[i]),
                kind=str(found.kind[i]),
                severity=str(found.severity[i]),
                confidence=float(found.confidence[i]) if found.marked[i] else None,
            )
            for k, i in enumerate(sample.index)
        )
        return cls(run_id, count, seed, window, sample.sizes, places)

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read a plan.

        Raises:
            DataError: the file is damaged.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            places = tuple(Place(**place) for place in values.pop("places"))
            return cls(**values, places=places)
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise DataError(
                f"{path} cannot be read ({error}); move its folder away to review anew"
            ) from error

    def write(self, path: Path) -> None:
        """Write it.

        Raises:
            OutputError: that fails.
        """
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")


@dataclass(frozen=True)
class Answer:
    """What a person said of a place, by its number; seconds since 1970."""

    place: int
    verdict: Verdict
    time_s: float


def _read(values: Mapping[str, Any]) -> Answer | None:
    place, verdict = values["place"], values["verdict"]
    if type(place) is not int or place < 0 or verdict not in ALL_VERDICTS:
        return None
    return Answer(place, verdict, float(values["time"]))


def _write(answer: Answer) -> Mapping[str, object]:
    time_s = round(answer.time_s, 3)
    return {"place": answer.place, "verdict": answer.verdict, "time": time_s}


CODEC = Codec(_read, _write, "one person at a time reviews a map")


def assess(plan: Plan, verdicts: Mapping[int, Verdict]) -> Accuracy:
    """Return what verdicts on places, by number, say of the map."""
    given = {k: v for k, v in verdicts.items() if v != "unsure" and k < len(plan.places)}
    strata = _strata(plan, given)
    marked = sum(s.size for s in strata if s.marked)
    return Accuracy(
        precision=precision(strata),
        recall=recall(strata, plan.seed),
        judged=len(given),
        marked=marked,
        unmarked=sum(plan.sizes.values()) - marked,
        by_type=_by_class(plan, given, "kind"),
        by_severity=_by_class(plan, given, "severity"),
    )


def _strata(plan: Plan, given: Mapping[int, Verdict]) -> list[Stratum]:
    counts: dict[str, Counter[Any]] = {name: Counter() for name in plan.sizes}
    for number, verdict in given.items():
        counts[plan.places[number].stratum][verdict] += 1
    kinds = {place.stratum: place.marked for place in plan.places}
    return [
        Stratum(kinds.get(name, False), size, dict(counts[name]))
        for name, size in plan.sizes.items()
    ]


def _by_class(plan: Plan, given: Mapping[int, Verdict], name: str) -> dict[str, Share]:
    """Return the precision of each class; the size of its part of a stratum is estimated, too.

    It is rounded up: of a stratum that is not wholly judged, no class is taken to be.
    """
    found = {}
    judged = Counter(plan.places[k].stratum for k in given)
    for value in sorted({getattr(p, name) for p in plan.places if p.marked}):
        own = {k: v for k, v in given.items() if getattr(plan.places[k], name) == value}
        counts = {stratum: Counter[Any]() for stratum in plan.sizes}
        for k, verdict in own.items():
            counts[plan.places[k].stratum][verdict] += 1
        strata = [
            Stratum(True, -(-size * sum(c.values()) // judged[stratum]), c)
            for stratum, size in plan.sizes.items()
            if (c := counts[stratum])
        ]
        share = precision([s for s in strata if s.judged])
        if share is not None and value:
            found[value] = share
    return found


class Session:
    """The sample, the journal, and the questions that the page asks; by `open_session`."""

    def __init__(self, root: Path, plan: Plan, scenes: Scenes, journal: Journal[Answer]) -> None:
        self.plan, self._root, self._scenes, self._journal = plan, root, scenes, journal

    def answer(self, number: int, verdict: Verdict) -> None:
        """Write an answer to disk.

        Raises:
            DataError: there is no such place, or the journal cannot be written.
        """
        place = self.place(number)
        if not place.marked and verdict in ("partly", "reject"):
            raise DataError("the map has nothing here: accept it, or say that it missed a crack")
        self._journal.add(Answer(number, verdict, time.time()))

    def undo(self) -> int | None:
        """Take the last answer back; return its place, None if there was no answer."""
        answer = self._journal.take_back()
        return None if answer is None else answer.place

    def place(self, number: int) -> Place:
        """Return a place of the sample.

        Raises:
            DataError: there is no such one.
        """
        if not 0 <= number < len(self.plan.places):
            raise DataError(f"there is no place {number}; reload the page")
        return self.plan.places[number]

    def verdicts(self) -> dict[int, Verdict]:
        """Return the last verdict on each place."""
        return {answer.place: answer.verdict for answer in replay(self._journal.events)}

    def next_places(self) -> list[int]:
        """Return the places to be shown next."""
        done = self.verdicts()
        free = (k for k in range(len(self.plan.places)) if k not in done)
        return [k for k, _ in zip(free, range(AHEAD + 1), strict=False)]

    def picture(self, number: int) -> Path:
        """Return the picture of a place with its surroundings, cut when it is first asked for.

        Raises:
            DataError: the imagery does not answer, or the picture cannot be written.
        """
        path = self._root / PICTURES / f"{number}.png"
        if not path.exists():
            seen = self._cut(number)
            if not seen.valid.any():
                raise DataError(
                    "the imagery of this place cannot be read now; see that its drive is there, "
                    "then reload the page"
                )
            path.parent.mkdir(exist_ok=True)
            write_png(path, seen.image)
        return path

    def view(self, number: int) -> dict[str, Any]:
        """Return what the page shows of a place."""
        place = self.place(number)
        return {
            "index": number,
            "side": self.plan.window,
            "around": AROUND,
            "marks": self._scenes.marks(place.x, place.y),
            "verdict": self.verdicts().get(number),
            **asdict(place),
        }

    def progress(self) -> dict[str, Any]:
        """Return how far it is."""
        answers = replay(self._journal.events)
        done = self.verdicts()
        left = len(self.plan.places) - len(done)
        rate = pace([answer.time_s for answer in answers])
        return {
            "total": len(self.plan.places),
            "done": len(done),
            "left": left,
            "counts": dict(Counter(done.values())),
            "per_minute": rate,
            "rest_s": 60 * left / rate if rate else None,
            "last": answers[-1].verdict if answers else None,
        }

    def accuracy(self) -> Accuracy:
        """Return what the verdicts say so far."""
        return assess(self.plan, self.verdicts())

    def write_windows(self) -> Path | None:
        """Write the judged places as windows with labels, as `wpcrack train` reads them.

        Places that only partly lie on imagery are left out.

        Returns:
            Their folder; None if there is none.
        """
        folder = self._root / WINDOWS
        rows = list(self._windows(folder))
        if not rows:
            return None
        write_manifest(folder / NAME, rows)
        return folder

    def _windows(self, folder: Path) -> Iterator[Row]:
        for number, verdict in sorted(self.verdicts().items()):
            if verdict == "unsure" or number >= len(self.plan.places):
                continue
            place = self.plan.places[number]
            has_crack = verdict in ("partly", "missed") or (verdict == "accept" and place.marked)
            window = self._scenes.window(place.x, place.y)
            row, col = max(window.row_off, 0), max(window.col_off, 0)
            source = f"place.y{row // SOURCE_PX}x{col // SOURCE_PX}"
            file, side = window_name(source, row, col), self.plan.window
            if not (folder / file).exists():
                wide = self._cut(number)
                seen = wide.inner(side)
                if not seen.valid.all():
                    continue
                folder.mkdir(exist_ok=True)
                write_surroundings(folder, file, fill_invalid(wide.image, wide.valid))
                write_png(folder / file, seen.image)
            yield Row(file, "crack" if has_crack else "road", source, row, col, side, side, None)

    def _cut(self, number: int) -> Picture:
        place = self.place(number)
        return self._scenes.cut(place.x, place.y)


@contextmanager
def open_session(root: Path, plan: Plan, scenes: Scenes) -> Iterator[Session]:
    """Open the folder of a review, or begin it.

    Args:
        root: the folder.
        plan: as it would be drawn now.
        scenes: pictures of the places.

    Raises:
        ConfigError: another map or sample is reviewed there, or the map as it was before an edit.
        DataError: it cannot be read or written, or another process reviews.
    """
    try:
        root.mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(f"{root} cannot be made ({error.strerror}); check the folder") from error
    with open_journal(root / JOURNAL, CODEC) as journal:
        if (root / SAMPLE).exists():
            known = Plan.read(root / SAMPLE)
            asked = (plan.run_id, plan.count, plan.seed, plan.window)
            if asked != (known.run_id, known.count, known.seed, known.window):
                raise ConfigError(
                    f"{root} holds a review of run {known.run_id} with --count {known.count} "
                    f"--seed {known.seed} --window {known.window}; give these, or move it away"
                )
            if plan != known:
                raise ConfigError(
                    f"{root} holds a review of run {known.run_id} as the map was before it was "
                    "edited or made again; move the folder away to review the map as it is now"
                )
        else:
            plan.write(root / SAMPLE)
        yield Session(root, plan, scenes, journal)
