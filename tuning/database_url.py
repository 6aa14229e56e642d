"""The URL of a study's database, and the passwords in it, which nobody is to be told."""

from __future__ import annotations

import sqlalchemy as sql

# What drivers call passwords that stand behind the question mark.
_SECRETS = ("password", "passwd", "sslpassword")


def has_password(url: str) -> bool:
    """Whether `url` holds one. What is no URL counts as one that does."""
    if not url:
        return False
    try:
        parsed = sql.make_url(url)
    except sql.exc.ArgumentError:
        return True
    return parsed.password is not None or any(name.lower() in _SECRETS for name in parsed.query)


def without_password(url: str) -> str:
    """`url` as it may be shown and stored."""
    if not has_password(url):
        return url
    try:
        parsed = sql.make_url(url)
    except sql.exc.ArgumentError:
        return "***"
    query = {name: "***" if name.lower() in _SECRETS else value for name, value in parsed.query.items()}
    return parsed.set(query=query).render_as_string(hide_password=True)
