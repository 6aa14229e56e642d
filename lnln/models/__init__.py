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
from lnln.models.lnln import LNLN, Output
from lnln.models.text_encoder import load_text_encoder

__all__ = ["LNLN", "Output", "build_model", "load_model"]


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


def load_model(folder: str | Path) -> LNLN:
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
        if name != "lnln":
            raise RefusedError(f"{folder / 'config.json'} is of model {name!r}, expected 'lnln'")
        return LNLN.from_pretrained(folder).eval()
    except RefusedError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"{folder / 'config.json'} is no config of a saved model: {error!r}") from error
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise RefusedError(f"{folder / 'model.safetensors'} does not hold this model's weights: {reason}") from error
