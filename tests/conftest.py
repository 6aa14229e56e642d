"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

from tests.s3 import s3_endpoint, s3_store_url

__all__ = ["s3_endpoint", "s3_store_url"]
