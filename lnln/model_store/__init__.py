"""Published models: immutable versions, aliases that move, verified copies. `publishing.py` tells how they are kept."""

from lnln.model_store.catalog import (
    AliasMove,
    PublishedModel,
    Version,
    list_models,
    read_model,
    resolve,
    set_alias,
)
from lnln.model_store.comparison import Comparison, compare, read_lineage
from lnln.model_store.importing import import_model
from lnln.model_store.lineage import Origin
from lnln.model_store.opened import open_model
from lnln.model_store.publishing import damaged_files, load, publish, pull

__all__ = [
    "AliasMove",
    "Comparison",
    "Origin",
    "PublishedModel",
    "Version",
    "compare",
    "damaged_files",
    "import_model",
    "list_models",
    "load",
    "open_model",
    "publish",
    "pull",
    "read_lineage",
    "read_model",
    "resolve",
    "set_alias",
]
