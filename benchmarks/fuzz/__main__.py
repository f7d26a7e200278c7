"""Damaged inputs of every kind: each must be read or refused in a sentence, by its own process.

    python -m benchmarks.fuzz --cases 10000 --seed 0

A case is a sound input with a few bytes or words changed, read in a forked process that may take
2 GiB of memory and 20 seconds of the CPU. Whatever is no user error counts as a fault and is
printed.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fuzz.targets import TARGETS, Target
from jobs.runtime.terminal import USER_ERRORS

MEMORY_BYTES, TIME_S, WAIT_S = 2 * 2**30, 20, 300
"""Memory and CPU time of a case; and time on the clock, which a busy machine makes long."""

EDITED = 0.7
"""Share of the cases that are edited rather than damaged, where a target can be edited."""

READ, REFUSED, TRACEBACK, MEMORY = range(4)
"""Exit codes of a case's process."""

NAMES = ("read", "refused", "traceback", "memory", "hang", "crash")

TEXTS = (".csv", ".yaml", ".json", ".jsonl", ".geojson", ".prj")

WORDS = (
    *("NaN", "-Infinity", "1e999", "-1", "0", "null", "[]", "{}", '""', "true", "9" * 5000),
    *("../../x", "/etc/passwd", "\0", "\ufeff", "x" * 400, '"', "\n", "[" * 2000, "&a [*a,*a]"),
    *("!!python/object:os.system", "<OGRVRTDataSource>", "1;2", "\ud83d\ude00"[:0] + "ü"),
)


@dataclass(frozen=True)
class Case:
    """A damaged input and what came of it."""

    number: int
    target: str
    file: str
    outcome: str
    detail: str

    @property
    def is_fault(self) -> bool:
        """Whether it is neither read nor refused."""
        return self.outcome not in NAMES[:2]


def damage(content: bytes, is_text: bool, rng: np.random.Generator) -> bytes:
    """Return a content with one to four changes."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(data) + 1))
        length = int(min(rng.integers(1, 40), max(len(data) - at, 0)))
        how = int(rng.integers(0, 7 if is_text else 6))
        if how == 0 and length:
            data[at] = int(rng.integers(0, 256))
        elif how == 1 and length:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif how == 2:
            data[at : at + length] = rng.bytes(length)
        elif how == 3:
            data[at:at] = data[at : at + length]
        elif how == 4 and rng.random() < 0.3:
            del data[at:]
        elif how == 5:
            data[at : at + length] = bytes(length) if rng.random() < 0.5 else b"\xff" * length
        elif how == 6:
            word = WORDS[int(rng.integers(0, len(WORDS)))]
            data[at : at + length] = word.encode("utf-8", "replace")
    return bytes(data)


def campaign(cases: int, seed: int, folder: Path, only: str | None = None) -> Iterator[Case]:
    """Yield the cases of a seed, the targets and their files in turn.

    Args:
        cases: their number.
        seed: what is changed follows from it and the number of the case.
        folder: an empty one.
        only: name of the target to damage; None: all.

    Raises:
        Exception: a sound input is not read.
    """
    targets = [target for target in TARGETS if only in (None, target.name)]
    samples = [Sample.draw(target, folder) for target in targets]
    for sample in samples:
        for file in sample.files:  # in this process, so that no child has to import
            sample.read_sound(file)
    turns = [*samples, *(sample for sample in samples if not sample.target.is_slow)]
    for number in range(cases):
        rng = np.random.default_rng([seed, number])
        sample = turns[number % len(turns)]
        yield sample.damaged(number, sample.files[int(rng.integers(0, len(sample.files)))], rng)


@dataclass(frozen=True)
class Sample:
    """The sound inputs of a target.

    Attributes:
        target: of which kind.
        place: folder that holds them.
        case: where they are copied to, to be read; they were written there, too.
        files: that are damaged, relative to the folder.
    """

    target: Target
    place: Path
    case: Path
    files: tuple[Path, ...]

    @classmethod
    def draw(cls, target: Target, folder: Path) -> Sample:
        """Write the inputs of a target."""
        place, case = folder / target.name.replace(" ", "_"), folder / "case"
        case.mkdir()
        files = tuple(path.relative_to(case) for path in target.draw(case))
        case.rename(place)
        return cls(target, place, case, files)

    def read_sound(self, file: Path) -> None:
        """Read a sound file in this process.

        Raises:
            Exception: that fails.
        """
        shutil.copytree(self.place, self.case)
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.target.read(self.case / file)
        shutil.rmtree(self.case)

    def damaged(self, number: int, file: Path, rng: np.random.Generator) -> Case:
        """Damage a file, and read it in a process of its own."""
        shutil.copytree(self.place, self.case)
        try:
            path = self.case / file
            if self.target.edit is not None and rng.random() < EDITED:
                self.target.edit(path, rng)
            else:
                path.write_bytes(damage(path.read_bytes(), path.suffix in TEXTS, rng))
            code, detail = _in_child(self.target.read, path)
            return Case(number, self.target.name, str(file), NAMES[code], detail)
        finally:
            shutil.rmtree(self.case)


def _in_child(read: Callable[[Path], object], path: Path) -> tuple[int, str]:
    """Read a file in a process of its own; return the index of its outcome, and why."""
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        os.close(receiver)
        os._exit(_child(read, path, sender))
    os.close(sender)
    with os.fdopen(receiver, "rb") as stream:
        detail = stream.read().decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        by = os.WTERMSIG(status)
        return NAMES.index(
            "hang" if by in (signal.SIGALRM, signal.SIGPROF) else "crash"
        ), f"signal {by}"
    return os.WEXITSTATUS(status), detail


def _child(read: Callable[[Path], object], path: Path, sender: int) -> int:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(WAIT_S)
    signal.setitimer(signal.ITIMER_PROF, TIME_S)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    warnings.simplefilter("ignore")
    faulthandler.disable()
    try:
        read(path)
        return READ
    except USER_ERRORS as error:
        os.write(sender, str(error)[:300].encode("utf-8", "replace"))
        return REFUSED
    except MemoryError:
        return MEMORY
    except BaseException:
        os.write(sender, traceback.format_exc()[-1500:].encode("utf-8", "replace"))
        return TRACEBACK


def main() -> int:
    """Run a campaign and print what came of it, also after Ctrl-C; 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="the name of one target")
    given = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    faults = 0
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        for case in campaign(given.cases, given.seed, Path(folder), given.only):
            counts[case.target, case.outcome] += 1
            if case.is_fault:
                faults += 1
                print(f"case {case.number}: {case.target} {case.file}: {case.outcome}")
                print("  " + case.detail.strip().replace("\n", "\n  "), flush=True)
    for (target, outcome), count in sorted(counts.items()):
        print(f"{target:12} {outcome:10} {count}")
    print(f"{faults} faults in {counts.total()} cases, seed {given.seed}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
