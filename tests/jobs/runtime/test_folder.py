"""A folder of a job belongs to one process at a time, and to nothing else."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from factories import wait_until

from geo.errors import OutputError
from geo.files import whole_file, write_text
from jobs.runtime import folder
from jobs.runtime.folder import (
    explain_write_errors,
    hold_lock,
    hold_output,
    is_locked,
    refuse_foreign,
)
from wpcrack.errors import ConfigError

BUSY = ConfigError("another process is at work")


def test_a_lock_is_held_by_one_and_goes_with_its_block(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    assert not is_locked(lock)
    with hold_lock(lock, BUSY):
        assert is_locked(lock)
        with pytest.raises(ConfigError, match="another process"), hold_lock(lock, BUSY):
            pass
    assert not is_locked(lock)
    with hold_lock(lock, BUSY):
        pass


def test_files_of_a_map_are_written_by_one_process_and_its_lock_goes(tmp_path: Path) -> None:
    out = tmp_path / "maps" / "a.gpkg"
    with hold_output(out, f"out={out}"):
        with (
            pytest.raises(OutputError, match=r"another process writes out=.*; wait for its end or"),
            hold_output(out, f"out={out}"),
        ):
            pass
        with hold_output(out.with_name("b.gpkg"), "out=b"):
            pass
        out.touch()
    assert list(out.parent.iterdir()) == [out]
    with hold_output(tmp_path / "new" / "maps" / "a.gpkg", "a"):
        pass
    assert not (tmp_path / "new").exists()  # nothing was written
    other = tmp_path / "other"
    other.write_text("precious")
    (out.parent / ".a.lock").symlink_to(other)
    with pytest.raises(OutputError, match="cannot be written"), hold_output(out, f"out={out}"):
        pass
    assert other.read_text() == "precious"


def test_a_lock_that_goes_while_it_is_waited_for_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, lock = tmp_path / "a.gpkg", tmp_path / ".a.lock"
    monkeypatch.setattr(folder, "try_lock", lambda _: lock.unlink() is None)
    with pytest.raises(OutputError, match="another process writes a"), hold_output(out, "a"):
        pass


def test_a_folder_in_which_a_link_or_a_device_lies_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    refuse_foreign(tmp_path / "job", {"parts"}, "the work folder", "a job")
    for make in (lambda path: path.symlink_to(tmp_path), os.mkfifo):
        make(tmp_path / "job" / "parts")
        with pytest.raises(ConfigError, match="holds parts, which is a link or a device"):
            refuse_foreign(tmp_path / "job", {"parts"}, "the work folder", "a job")
        (tmp_path / "job" / "parts").unlink()


def test_a_lock_goes_with_a_process_that_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    code = (
        "import sys, time; from pathlib import Path; from jobs.runtime.folder import hold_lock\n"
        "with hold_lock(Path(sys.argv[1]), ValueError()): time.sleep(3600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], cwd=Path(__file__).parents[3]
    )
    try:
        wait_until(lambda: is_locked(lock) or holder.poll() is not None)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with hold_lock(lock, BUSY, patience_s=60):
        pass


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "one")

    def is_stopped_halfway() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        is_stopped_halfway()
    assert path.read_text() == "one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_what_is_not_ours_is_named_and_what_is_hidden_may_stay(tmp_path: Path) -> None:
    refuse_foreign(tmp_path / "new", (), "run_dir", "a run")
    for name in ("config.yaml", ".lock", "thesis.docx"):
        (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match=r"run_dir .* holds thesis\.docx, which does not belong"):
        refuse_foreign(tmp_path, {"config.yaml"}, "run_dir", "a run")
    with pytest.raises(ConfigError, match="is a file"):
        refuse_foreign(tmp_path / "thesis.docx", (), "run_dir", "a run")


def test_what_the_file_system_refuses_is_a_sentence() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(
            OutputError, match=r"^out cannot be written \(No space left on device\); give"
        ),
        explain_write_errors("out", "give another"),
    ):
        raise full


def test_a_lock_of_another_machine_is_waited_for_until_a_dead_client_would_have_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "run" / ".lock"
    lock.parent.mkdir()
    monkeypatch.setattr("socket.gethostname", lambda: "there")
    monkeypatch.setattr(folder, "LEASE_S", 0.3)
    with hold_lock(lock, BUSY):
        assert lock.read_text() == "there\n"
        for name, lines in (("there", 0), ("here", 1)):
            monkeypatch.setattr("socket.gethostname", lambda name=name: name)
            with pytest.raises(ConfigError, match="another process"), hold_lock(lock, BUSY):
                pass
            told = capsys.readouterr().err.splitlines()
            assert len(told) == lines
    assert told[0].startswith(f"{lock.parent} is held by there; waiting 0 s")
    with hold_lock(lock, BUSY):
        assert lock.read_text() == "here\n"
