"""Published models: immutable versions, aliases that move, verified copies. `publishing.py` tells how they are kept."""

from lnln.model_store.catalog import (
    PublishedModel,
    Version,
    list_models,
    read_model,
    resolve,
    set_alias,
)
from lnln.model_store.opened import open_model
from lnln.model_store.publishing import damaged_files, load, publish, pull

__all__ = [
    "PublishedModel",
    "Version",
    "damaged_files",
    "list_models",
    "load",
    "open_model",
    "publish",
    "pull",
    "read_model",
    "resolve",
    "set_alias",
]
