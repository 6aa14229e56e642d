"""Versions and threads of a Dask cluster: `python -m lnln.doctor.ask_dask tcp://10.0.0.1:8786`. See `child.py`."""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Security
from distributed.comm import connect
from distributed.core import send_recv

from lnln.doctor.child import NoAnswerError, answer

CONNECT_SECONDS = 5
ANSWER_SECONDS = 10
# Whose versions decide whether a job of this machine can be read there, and gives the same bytes.
PACKAGES = ("lnln", "pyarrow")


def look(address: str) -> dict[str, Any]:
    """scheduler: versions by package. workers: the same of each, by address. num_threads: of all workers."""
    return asyncio.run(_look(address))


async def _look(address: str) -> dict[str, Any]:
    try:
        security = Security().get_connection_args("client")
        comm = await connect(address, timeout=CONNECT_SECONDS, **security)
    except (OSError, ValueError, TypeError) as error:  # TypeError: for tls:// without certificates
        raise NoAnswerError(" ".join(str(error).split()), "unreachable") from error
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            scheduler = await send_recv(comm, op="versions", packages=PACKAGES)
            identity = await send_recv(comm, op="identity")
            message = {"op": "versions", "packages": PACKAGES}
            workers = await send_recv(comm, op="broadcast", msg=message, on_error="ignore")
    finally:
        comm.abort()
    return {
        "scheduler": _versions(scheduler),
        "workers": {name: _versions(found) for name, found in workers.items()},
        "num_threads": sum(worker["nthreads"] for worker in identity["workers"].values()),
    }


def _versions(found: dict[str, Any]) -> dict[str, str]:
    """Version by package, those without one left out."""
    packages = {name: str(version) for name, version in found["packages"].items() if version}
    return {"python": packages.pop("python", "").removesuffix(".final.0"), **packages}


if __name__ == "__main__":
    answer(look)
