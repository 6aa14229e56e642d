"""Fixtures that more than one folder of tests needs, and Ctrl-C as the tests take it."""

from __future__ import annotations

import signal

from tests.radosgw import radosgw_endpoint, radosgw_store_url
from tests.s3 import s3_endpoint, s3_store_url

__all__ = ["radosgw_endpoint", "radosgw_store_url", "s3_endpoint", "s3_store_url"]

# A shell lets what it starts in the background ignore SIGINT, and so would everything that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)
