"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

from tests.radosgw import radosgw_endpoint, radosgw_store_url
from tests.s3 import s3_endpoint, s3_store_url

__all__ = ["radosgw_endpoint", "radosgw_store_url", "s3_endpoint", "s3_store_url"]
