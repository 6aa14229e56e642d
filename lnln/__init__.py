"""Multimodal sentiment analysis with incomplete data: corpora, corruption, models, training, evaluation.

import lnln
model = lnln.load("mosi-lnln@best", store="s3://bucket/prefix")     # in eval mode
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__version__ = "0.1.0"


def load(name: str, store: str | None = None) -> nn.Module:
    """The published model `name` (`mosi-lnln`, `mosi-lnln@best`, `mosi-lnln@v2`) in eval mode, checksums verified.

    `store` is a folder or `s3://bucket/prefix`; default: the environment's LNLN_STORE, else `./store`.
    Raises RefusedError for an unknown model or a damaged file.
    """
    from lnln.data.store import default_store
    from lnln.model_store import load as load_model

    return load_model(name, store if store is not None else default_store())
