"""URLs of databases: no password is shown, whatever it looks like and wherever it stands."""

from __future__ import annotations

import pytest

from tuning.database_url import has_password, without_password

SECRETS = [
    "postgresql://user:se/cret@host/db",
    "postgresql://user:se#cr/et@host/db",
    "postgresql://user:se?cret@host/db",
    "postgresql+psycopg://user:secret@host:5432/db?sslmode=require",
    "postgresql://host/db?user=u&password=secret",
    "mysql://host/db?passwd=secret&PassWord=secret",
    "postgresql://host/db?sslpassword=secret",
    "no url with a secret",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_password_is_seen_and_hidden(url: str) -> None:
    assert has_password(url)
    shown = without_password(url)
    assert not any(part in shown for part in ("secret", "cret", "cr/et", "cr%2Fet"))
    assert without_password(shown) == shown


@pytest.mark.parametrize("url", ["", "sqlite:////srv/studies.db", "postgresql://user@host/db?sslmode=require"])
def test_other_urls_stay_as_they_are(url: str) -> None:
    assert not has_password(url)
    assert without_password(url) == url
