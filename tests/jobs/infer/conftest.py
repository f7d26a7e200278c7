"""What tests of inference share: a server of object storage, maps without pictures."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pyarrow.fs
import pytest
from factories import free_port

from jobs.infer import run as infer

KEYS = {"AWS_ACCESS_KEY_ID": "us", "AWS_SECRET_ACCESS_KEY": "them"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of S3 on loopback with a bucket: what its addresses end with."""
    moto = pytest.importorskip("moto.server", reason="comes with the extra dev")
    there = moto.ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    there.start()
    host, port = there.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        place = {"endpoint_override": f"{host}:{port}", "scheme": "http", "region": "us-east-1"}
        pyarrow.fs.S3FileSystem(**place, allow_bucket_creation=True).create_dir("city")
        yield urlencode(place)
        there.stop()


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is computed: the pages and pictures of a map take half of its time."""
    monkeypatch.setattr(infer, "draw_map", lambda *_: None)
