"""Models by name: a new one for a corpus, or one from a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lnln.config import ModelConfig, to_dict
from lnln.data.schema import FeatureSpec
from lnln.errors import RefusedError
from lnln.models.base import SentimentModel
from lnln.models.late_fusion import LateFusion
from lnln.models.lnln import LNLN
from lnln.models.output import Output
from lnln.models.sdumc import SDUMC
from lnln.models.text_encoder import check_vocabulary, load_text_encoder
from lnln.models.text_only import TextOnly

__all__ = ["LNLN", "MODELS", "SDUMC", "LateFusion", "Output", "SentimentModel", "TextOnly", "build_model", "load_model"]

# By `model.name` of their config.
MODELS: dict[str, type[LNLN] | type[TextOnly] | type[LateFusion] | type[SDUMC]] = {
    "lnln": LNLN,
    "text_only": TextOnly,
    "late_fusion": LateFusion,
    "sdumc": SDUMC,
}


def build_model(
    config: ModelConfig, spec: FeatureSpec, statistics: Mapping[str, Mapping[str, Any]] | None = None
) -> SentimentModel:
    """A new model with a trained text encoder and everything else random (`torch.manual_seed` decides how).

    A corpus with ready-made language features (`spec.text_dim`) has no use for a text encoder: `config.text_encoder` is
    not looked at. statistics: of the training split's audio, vision and text features, as a feature manifest has them;
    used when `standardize`. Raises RefusedError for a text encoder that cannot be had, or whose vocabulary is not the
    one of the corpus's ids.
    """
    encoder = None
    if not spec.text_dim:
        check_vocabulary(config.text_encoder, spec.tokenizer, spec.vocabulary_size, spec.unknown_id)
        encoder = load_text_encoder(config.text_encoder)
    model = MODELS[config.name](
        model=to_dict(config), spec=to_dict(spec), encoder=None if encoder is None else encoder.config_dict()
    )
    if encoder is not None and model.text_encoder is not None:
        model.text_encoder.load_state_dict(encoder.state_dict())
    if statistics is not None:
        model.set_statistics(statistics)
    return model


def load_model(folder: str | Path) -> SentimentModel:
    """The model saved in `folder` (model.safetensors and config.json), in eval mode; nothing is downloaded.

    Raises RefusedError when a file is absent, damaged, or does not fit the other.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise RefusedError(f"a model folder holds config.json and model.safetensors, {folder} has no {name}")
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name = values["model"]["name"]
        if name not in MODELS:
            raise RefusedError(f"{folder / 'config.json'} is of model {name!r}, expected one of {', '.join(MODELS)}")
        model: SentimentModel = MODELS[name].from_pretrained(folder)
        return model.eval()
    except RefusedError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"{folder / 'config.json'} is no config of a saved model: {error!r}") from error
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise RefusedError(f"{folder / 'model.safetensors'} does not hold this model's weights: {reason}") from error
