"""Settings that must stand before Ray is imported, and what several test files share."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import signal

from hypothesis import settings

from jobs.runtime.ray_session import LOCAL_ENVIRONMENT

RAY_SETTINGS = LOCAL_ENVIRONMENT | {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # report() waits for this poll (default 2 s)
    "RAY_DEDUP_LOGS": "0",
    "RAY_worker_niceness": "0",  # else workers starve beside other work: Ray gives them 15
}
os.environ.update(RAY_SETTINGS)
os.environ.pop("RAY_ADDRESS", None)  # tests never join a Ray that somebody else started
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small arrays: more threads only fight for cores
# A shell lets what it starts in the background ignore Ctrl-C; tests send it to their processes.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup lets it be ignored, as a job would respect
settings.register_profile("tests", deadline=None)  # clocks in tests are for hangs only
settings.load_profile("tests")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_finish() -> None:
    """Leave what all imports have made out of garbage collections, each of which would walk it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the checkout; tests that use it are marked `data`."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the image collections in {folder}")
    return folder


@pytest.fixture
def uninstalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the program look as in a checkout of which only the dependencies are installed."""
    installed = importlib.metadata.distribution

    def distribution(name: str) -> importlib.metadata.Distribution:
        if name == "wpcrack":
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
