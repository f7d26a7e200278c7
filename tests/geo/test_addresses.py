"""What lets one in stands in the request alone."""

from __future__ import annotations

import pytest

from geo.addresses import all_without_secrets, without_secrets
from geo.imagery.headers import TileProblem


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://anna:s3cret@city.org:8443/a.tif", "https://city.org:8443/a.tif"),
        ("s3://key:s3cret@bucket/x/a.tif", "s3://bucket/x/a.tif"),
        ("/vsicurl/https://c.org/a.tif?X-Amz-Signature=s3cret&b=1", "/vsicurl/https://c.org/a.tif"),
        ("['https://c.org/a?s=s3cret', 'b.tif']", "['https://c.org/a', 'b.tif']"),
        ("403 of https://c.org/a.tif?sig=s3cret: denied", "403 of https://c.org/a.tif denied"),
        ("https:/anna:s3cret@c.org/roads.gpkg", "https:/c.org/roads.gpkg"),
        ("C:/data/a.tif, m@il, what?", "C:/data/a.tif, m@il, what?"),
    ],
)
def test_addresses_lose_user_password_query_and_nothing_else(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert all_without_secrets({"tiles": [text], "n": 3}) == {"tiles": [shown], "n": 3}


def test_a_problem_never_holds_a_secret() -> None:
    address = "https://anna:s3cret@c.org/a.tif?sig=s3cret"
    assert "s3cret" not in repr(TileProblem(address, f"cannot be read ({address})"))
