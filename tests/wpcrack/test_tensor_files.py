"""Writing states: what torch's writer hides comes out as it was."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from wpcrack.tensor_files import read_state, write_state


class Ending(io.BytesIO):
    """A file whose second piece cannot be written."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error, self.pieces = error, 0

    def write(self, data: Any, /) -> int:
        self.pieces += 1
        if self.pieces == 2:
            raise self.error
        return super().write(data)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_what_ends_the_writing_of_a_state_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda *_: Ending(error))
        with pytest.raises(type(error)):
            write_state({"weights": torch.zeros(9)}, tmp_path / "state.pt")
    write_state({"weights": torch.zeros(9)}, tmp_path / "state.pt")
    assert torch.equal(read_state(tmp_path / "state.pt", "")["weights"], torch.zeros(9))
