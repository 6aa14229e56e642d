"""Shards that are fetched and checked a few at a time: hides the latency of S3, uses idle cores, bounds memory.

for utterances in read_ahead(lambda entry: read_shard(store, entry, dims), entries): ...
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

NUM_READERS = 4

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def read_ahead(read: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> Iterator[ResultT]:
    """`read(item)` of each item in order, up to NUM_READERS of them being read or waiting to be taken.

    What `read` raises is raised in its place; then, as after a caller that stops early, no further item is begun.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(NUM_READERS) as pool:
        pending: deque[Future[ResultT]] = deque(pool.submit(read, item) for item in islice(waiting, NUM_READERS))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(read, item) for item in islice(waiting, 1))
                yield result
                del result  # not held while the next one is waited for
        finally:
            pool.shutdown(cancel_futures=True)
