"""What several people, or one person twice, say about the same windows.

The label of a window is what all who decided agree on. People who disagree leave it empty, so that
nothing disputed is trained on; who was unsure has no say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from jobs.label.answers import Answer, Event, Verdict
from jobs.page.journal import replay
from wpcrack.data.manifest import Label

UNSURE: Verdict = "unsure"

People = Mapping[str, Sequence[Event]]
"""Each person's journal, by name."""


@dataclass(frozen=True)
class Pair:
    """Two answers about one window; `settled`: a later answer has decided between them."""

    file: str
    first: Verdict
    second: Verdict
    settled: bool = False

    @property
    def decided(self) -> bool:
        """Whether both said crack or road."""
        return UNSURE not in (self.first, self.second)

    @property
    def differs(self) -> bool:
        """Whether one said crack and the other road."""
        return self.decided and self.first != self.second


@dataclass(frozen=True)
class Agreement:
    """How far pairs of answers agree.

    Attributes:
        pairs: where both said crack or road.
        same: of these, where both said the same.
        unsure: further pairs, in which one or both were unsure.
        kappa: Cohen's, of `pairs`; None where it is not defined.
        open: files whose two answers differ and that no later answer has settled.
    """

    pairs: int
    same: int
    unsure: int
    kappa: float | None
    open: tuple[str, ...]

    def text(self) -> str:
        """Return it as a part of a sentence."""
        kappa = "" if self.kappa is None else f" (kappa {self.kappa:.2f})"
        return f"{self.same} of {self.pairs} second answers the same{kappa}"


def last_words(answers: Iterable[Answer]) -> dict[str, Answer]:
    """Return the last answer about each file."""
    return {answer.file: answer for answer in answers}


def merge(people: People) -> dict[str, Label | None]:
    """Return the label of each file that a journal names; None where there is none.

    The order of the journals and their clocks do not matter. Where every answer was taken back, the
    label is the one from before.
    """
    words = [last_words(replay(events)) for events in people.values()]
    merged: dict[str, Label | None] = {}
    for event in (event for events in people.values() for event in events):
        if isinstance(event, Answer):
            merged[event.file] = merged.get(event.file) or event.before
    for file in merged:
        said = {word[file].verdict for word in words if file in word}
        decided: set[Label] = {verdict for verdict in said if verdict != "unsure"}
        if said:
            merged[file] = decided.pop() if len(decided) == 1 else None
    return merged


def agreement(people: People) -> Agreement:
    """Compare the two passes of each person, and each person with every other."""
    answers = {name: replay(events) for name, events in people.items()}
    pairs = [pair for own in answers.values() for pair in second_looks(own)]
    words = {name: last_words(own) for name, own in sorted(answers.items())}
    for one, other in combinations(words.values(), 2):
        shared = (file for file in one if file in other)
        pairs += [Pair(file, one[file].verdict, other[file].verdict) for file in shared]
    decided = [pair for pair in pairs if pair.decided]
    return Agreement(
        pairs=len(decided),
        same=sum(not pair.differs for pair in decided),
        unsure=len(pairs) - len(decided),
        kappa=cohens_kappa([(pair.first, pair.second) for pair in decided]),
        open=tuple(sorted({pair.file for pair in decided if pair.differs and not pair.settled})),
    )


def second_looks(answers: Sequence[Answer]) -> list[Pair]:
    """Pair each second look of a person with what they had said before."""
    final = last_words(answers)
    before: dict[str, Verdict] = {}
    pairs = []
    for answer in answers:
        if answer.again and answer.file in before:
            settled = final[answer.file] is not answer
            pairs.append(Pair(answer.file, before[answer.file], answer.verdict, settled))
        before[answer.file] = answer.verdict
    return pairs


def cohens_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Return the agreement beyond chance, (p_o - p_e) / (1 - p_e) (Cohen, 1960).

    p_o is the share of equal pairs, p_e the one that would be expected of two raters who answer
    independently, each as often crack as they did.

    >>> cohens_kappa([("crack", "crack"), ("road", "road"), ("road", "crack"), ("road", "road")])
    0.5

    Returns:
        1 for full agreement, 0 for that of chance; None without pairs, or if both raters gave one
        and the same answer throughout.
    """
    if not pairs:
        return None
    n = len(pairs)
    observed = sum(a == b for a, b in pairs) / n
    firsts, seconds = [a for a, _ in pairs], [b for _, b in pairs]
    expected = sum(firsts.count(c) * seconds.count(c) for c in {*firsts, *seconds}) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)
