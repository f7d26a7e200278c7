"""Damaged inputs of every kind: each must be read or refused in a sentence, by its own process.

    python -m benchmarks.fuzz --cases 10000 --seed 0

A case is a sound input with a few bytes or words changed, read in a forked process that may take
2 GiB of memory and 20 seconds of the CPU for it. Whatever is no user error counts as a fault and is
printed. A process reads a row of cases: forking, not reading, took most of the time.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fuzz.targets import TARGETS, Target
from jobs.runtime.terminal import USER_ERRORS

MEMORY_BYTES, TIME_S, WAIT_S = 2 * 2**30, 20, 300
"""Memory and CPU time of a case; and time on the clock, which a busy machine makes long."""

ROW = 50
"""Cases that one process reads, unless one of them ends it."""

CLOCKS = (signal.SIGALRM, signal.SIGPROF)
"""What ends a case that takes too long."""

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
    """Yield the cases of a seed, target by target.

    Args:
        cases: their number.
        seed: what is changed follows from it and the number of the case.
        folder: an empty one.
        only: name of the target to damage; None: all.

    Raises:
        Exception: a sound input is not read.
    """
    targets = [target for target in TARGETS if only in (None, target.name)]
    turns = [*targets, *(target for target in targets if not target.is_slow)]
    for target in targets:
        sample = Sample.draw(target, folder)
        for file in sample.files:  # in this process, so that no child has to import
            sample.read_sound(file)
        gc.freeze()  # a child's collection would copy the memory of this process
        mine = [k for k, turn in enumerate(turns) if turn is target]
        yield from sample.cases([n for n in range(cases) if n % len(turns) in mine], seed)


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

    def cases(self, numbers: Sequence[int], seed: int) -> Iterator[Case]:
        """Yield cases; a process reads a row of them, and another goes on after one that ended it.

        Args:
            numbers: of the cases.
            seed: of the campaign.
        """
        left = list(numbers)
        while left:
            receiver, sender = os.pipe()
            child = os.fork()
            if not child:
                os.close(receiver)
                try:
                    self._read_all(left[:ROW], seed, sender)
                finally:
                    os._exit(0)
            os.close(sender)
            with os.fdopen(receiver, encoding="utf-8") as stream:
                told = [json.loads(line) for line in stream]
            _, status = os.waitpid(child, 0)
            assert told, f"no case of {self.target.name} could be drawn"
            for number, file, code, detail in told:
                if code is not None:
                    left.remove(number)
                    yield Case(number, self.target.name, file, NAMES[code], detail)
            if told and told[-1][0] in left[:1]:
                ended = NAMES.index("hang" if os.WTERMSIG(status) in CLOCKS else "crash")
                yield Case(left.pop(0), self.target.name, told[-1][1], NAMES[ended], f"{status=}")
            shutil.rmtree(self.case, ignore_errors=True)

    def _read_all(self, numbers: Sequence[int], seed: int, sender: int) -> None:
        """Read a row of cases in this process, which is a child; none after one without memory."""
        _be_quiet()
        for number in numbers:
            rng = np.random.default_rng([seed, number])
            file = self.files[int(rng.integers(0, len(self.files)))]
            shutil.copytree(self.place, self.case)
            path = self.case / file
            if self.target.edit is not None and rng.random() < EDITED:
                self.target.edit(path, rng)
            else:
                path.write_bytes(damage(path.read_bytes(), path.suffix in TEXTS, rng))
            _tell(sender, number, file, None, "")
            code, detail = _outcome(self.target.read, path)
            _tell(sender, number, file, code, detail)
            if code == MEMORY:
                return
            shutil.rmtree(self.case)


def _tell(sender: int, number: int, file: Path, code: int | None, detail: str) -> None:
    line = json.dumps([number, str(file), code, detail.encode("utf-8", "replace").decode()])
    os.write(sender, (line + "\n").encode())


def _be_quiet() -> None:
    for clock in CLOCKS:
        signal.signal(clock, signal.SIG_DFL)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    warnings.simplefilter("ignore")
    faulthandler.disable()


def _outcome(read: Callable[[Path], object], path: Path) -> tuple[int, str]:
    """Read a file within the limits; return the index of the outcome, and why."""
    signal.alarm(WAIT_S)
    signal.setitimer(signal.ITIMER_PROF, TIME_S)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))
    try:
        read(path)
        return READ, ""
    except USER_ERRORS as error:
        return REFUSED, str(error)[:300]
    except MemoryError:
        return MEMORY, ""
    except BaseException:
        return TRACEBACK, traceback.format_exc()[-1500:]


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
