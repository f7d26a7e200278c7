"""An actor, a Ray node and the driver are killed in one job; nothing of it shows in the map."""

from __future__ import annotations

import importlib

import pytest


@pytest.fixture
def kill():
    return importlib.import_module("benchmarks.kills.__main__")


@pytest.mark.ray
def test_kills_of_an_actor_a_raylet_and_the_driver_leave_no_trace(kill, tmp_path):
    outcome = kill.campaign(tmp_path / "job", kill.KINDS, seed=0)
    assert outcome.kills == ("actor", "raylet", "driver")
    assert max(outcome.moments) < outcome.blocks  # each met the job at work
    assert sorted(outcome.lines) == sorted(set(outcome.lines))
    assert len(outcome.lines) == outcome.blocks == 49
    assert outcome.recomputed == ()
    assert outcome.differences == ()
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
