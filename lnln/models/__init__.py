"""Models by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lnln.config import ModelConfig, to_dict
from lnln.data.schema import FeatureSpec
from lnln.models.lnln import LNLN, Output
from lnln.models.text_encoder import load_text_encoder

__all__ = ["LNLN", "Output", "build_model"]


def build_model(
    config: ModelConfig, spec: FeatureSpec, statistics: Mapping[str, Mapping[str, Any]] | None = None
) -> LNLN:
    """A new model with a trained text encoder and everything else random (`torch.manual_seed` decides how).

    statistics: of the training split's audio and vision, as a feature manifest has them; used when `standardize`.
    Raises RefusedError for a text encoder that cannot be had or does not know the corpus's ids.
    """
    encoder = load_text_encoder(config.text_encoder)
    model = LNLN(model=to_dict(config), spec=to_dict(spec), encoder=encoder.config_dict())
    model.text_encoder.load_state_dict(encoder.state_dict())
    if statistics is not None:
        model.set_statistics(statistics)
    return model
