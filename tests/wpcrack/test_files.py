"""What is written appears whole or not at all, wherever the writing ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wpcrack.files import set_aside, whole_file, whole_folder


def tree(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): p.read_text() for p in root.rglob("*") if p.is_file()}


def write(path: Path, text: str, error: type[BaseException] | None) -> None:
    with whole_file(path) as part:
        part.write_text(text)
        assert part.parent == path.parent
        if error:
            raise error


def fill(folder: Path, text: str, error: type[BaseException] | None) -> None:
    with whole_folder(folder) as part:
        (part / "inner").write_text(text)
        if error:
            raise error


@pytest.mark.parametrize(("writer", "name"), [(write, "a"), (fill, "a/inner")])
def test_a_link_in_the_place_of_a_temporary_name_leads_nowhere(
    tmp_path: Path, writer: object, name: str
) -> None:
    for other in ("file", "folder"):
        target = tmp_path / other
        target.write_text("keep") if other == "file" else target.mkdir()
        (tmp_path / ".a.part").symlink_to(target)
        writer(tmp_path / "a", "new", None)
    assert tree(tmp_path) == {name: "new", "file": "keep"}
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize(("writer", "name"), [(write, "a"), (fill, "a/inner")])
def test_a_failure_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, writer: object, name: str, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        writer(tmp_path / "a", "half", error)
    assert list(tmp_path.iterdir()) == []
    writer(tmp_path / "a", "old", None)
    with pytest.raises(error):
        writer(tmp_path / "a", "half", error)
    assert tree(tmp_path) == {name: "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    writer(tmp_path / "a", "new", None)
    assert tree(tmp_path) == {name: "new"}


def test_a_folder_killed_between_its_renames_is_put_back_before_it_is_replaced(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a"
    fill(folder, "old", None)
    os.replace(folder, set_aside(folder))
    with pytest.raises(OSError, match="full"), whole_folder(folder):
        raise OSError("full")
    assert tree(tmp_path) == {"a/inner": "old"}
