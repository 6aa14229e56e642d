"""Where the data work runs and where its results go, from the environment.

| variable | says | default |
| --- | --- | --- |
| `LNLN_STORE` | the store: a folder, or `s3://bucket/prefix` | `./store` |
| `LNLN_DASK` | `none` (this process), `local` (a cluster of processes here), or a scheduler's address | see below |
| `DASK_SCHEDULER_ADDRESS` | a scheduler's address, where `LNLN_DASK` says nothing | |

With neither of the last two, the command line works in this process and the flows start a local cluster.
An empty variable is an absent one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from lnln.data.store import default_store


def dask_from_environment(default: str = "none") -> str:
    """`none`, `local`, or the address of a scheduler such as `tcp://10.0.0.1:8786`."""
    return os.environ.get("LNLN_DASK") or os.environ.get("DASK_SCHEDULER_ADDRESS") or default


@dataclass(frozen=True)
class Settings:
    """store: URL or folder. dask: as `dask_from_environment` says. The environment fills in what is not given."""

    store: str = field(default_factory=default_store)
    dask: str = field(default_factory=dask_from_environment)

    @classmethod
    def of_flow(cls, store: str | None) -> Settings:
        """As a flow has them: `store` where given, and a local cluster where no Dask is named."""
        return cls(store=store or default_store(), dask=dask_from_environment("local"))
