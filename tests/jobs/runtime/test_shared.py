"""Who works proves that it sees the driver's files; nobody else's folder of that name will do."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from jobs.runtime import shared as runtime_shared
from jobs.runtime.shared import NotShared, is_seen, share


def test_a_folder_of_the_same_name_is_not_the_shared_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_shared, "NEW_NAME_S", 0.0)
    root, tiles = tmp_path / "out.work", tmp_path / "tiles"
    root.mkdir()
    tiles.mkdir()
    with share(root, [tiles, tmp_path / "s3:" / "never"]) as shared:
        shared.require()
        tiles.rmdir()
        with pytest.raises(NotShared, match=r"does not see .*tiles as the driver does"):
            shared.require()
        shutil.rmtree(root)
        root.mkdir()  # as a node without the mount may have it
        with pytest.raises(NotShared, match=r"does not see .*out\.work as the driver does"):
            shared.require()
    assert not list(root.iterdir())


def test_the_file_of_a_killed_driver_goes_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / ".shared-old").touch()
    with share(tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())


def test_a_file_that_appears_late_is_waited_for(tmp_path: Path) -> None:
    late = threading.Timer(0.3, (tmp_path / "part").touch)
    late.start()
    assert is_seen(tmp_path / "part", 60)
    assert not is_seen(tmp_path / "never", 0.3)
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
