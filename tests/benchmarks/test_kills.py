"""Actors, Ray nodes, drivers and workers are killed in one job; nothing of it shows in the map."""

from __future__ import annotations

import functools
import importlib
import time
from pathlib import Path

import pytest


@pytest.fixture
def kill():
    return importlib.import_module("benchmarks.kills.__main__")


@pytest.mark.ray
def test_kills_of_an_actor_a_raylet_and_the_driver_leave_no_trace(kill, tmp_path):
    outcome = kill.campaign(tmp_path / "job", kill.KINDS, joining=(), seed=0)
    assert outcome.kills == ("actor", "raylet", "driver")
    assert max(outcome.moments) < outcome.blocks  # each met the job at work
    assert sorted(outcome.lines) == sorted(set(outcome.lines))
    assert len(outcome.lines) == outcome.blocks == 49
    assert outcome.recomputed == ()
    assert outcome.differences == ()
    assert outcome.is_equal


@pytest.mark.ray
@pytest.mark.slow
def test_kills_while_regions_are_joined_leave_no_trace(kill, tmp_path):
    outcome = kill.campaign(tmp_path / "job", (), joining=kill.JOINING_KINDS, seed=0)
    assert outcome.kills == ("worker", "raylet", "driver")
    assert outcome.is_equal


def test_a_map_that_differs_is_noticed(kill):
    parts = {"kills": ("actor",), "moments": (1,), "blocks": 2, "seconds": 1.0}
    clean = {"lines": ("a", "b"), "recomputed": (), "differences": ()}
    assert kill.Outcome(**parts, **clean).is_equal
    for change in (
        {"lines": ("a",)},
        {"lines": ("a", "b", "b")},
        {"recomputed": ("a",)},
        {"differences": ("crack",)},
    ):
        assert not kill.Outcome(**parts, **clean | change).is_equal


def halves(path: Path, *, whole: bool) -> None:
    """Write a file in two steps, under another name if it is to appear whole."""
    place = path.with_suffix(".tmp") if whole else path
    place.write_text("one ")
    time.sleep(0.05)
    with place.open("a") as stream:
        stream.write("two")
    place.replace(path)


@pytest.mark.parametrize("whole", [True, False])
def test_a_kill_that_leaves_half_a_file_is_noticed(tmp_path, whole):
    alone = importlib.import_module("benchmarks.kills.alone")
    path = tmp_path / "made"

    def flaws(is_finished: bool) -> list[str]:
        text = path.read_text() if path.exists() else ""
        return [] if text in (("one two",) if is_finished else ("one two", "")) else [f"is {text}"]

    run = functools.partial(halves, path, whole=whole)
    reset = functools.partial(path.unlink, missing_ok=True)
    trial = alone.Trial(run, reset, flaws, tmp_path / "step")
    if whole:
        assert alone.campaign(trial, 5, seed=0).total() >= 5
    else:
        with pytest.raises(AssertionError, match="is one"):
            alone.campaign(trial, 50, seed=0)
