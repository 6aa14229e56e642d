"""Token ids: the packaged vocabulary, other tokenizers from folders, and which word each piece is of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln import predict
from lnln.data import wordpiece
from lnln.errors import RefusedError
from pipelines.extractors import choose, load
from pipelines.extractors.text.wordpiece import MAX_CHARACTERS

UNCASED = load("text", "wordpiece")
SENTENCES = ["I don't like it.", "Hello wörld 😀 喜欢", "unbelievably good", "a  b\tc\nd", "ÉTÉ", "\x00ab\x01"]


def save_byte_pairs(folder: Path, *, has_ends: bool = True, add_prefix_space: bool = False) -> Any:
    """A tokenizer as RoBERTa has it, trained on a few words: <s>, </s>, <unk>, <pad>; pieces of bytes."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing
    from transformers import PreTrainedTokenizerFast

    fast = ByteLevelBPETokenizer(add_prefix_space=add_prefix_space, trim_offsets=True)
    fast.train_from_iterator(SENTENCES * 4, vocab_size=320, special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    names = {"pad_token": "<pad>", "unk_token": "<unk>"}
    if has_ends:
        fast._tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=add_prefix_space)
        names |= {"cls_token": "<s>", "sep_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast._tokenizer, model_max_length=8, **names)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_pieces_of_sentences(folder: Path) -> None:
    """A tokenizer as XLM-RoBERTa has it: unigram pieces that begin with the mark of the blank before them."""
    from tokenizers import SentencePieceUnigramTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    fast = SentencePieceUnigramTokenizer()
    special = ["[CLS]", "[SEP]", "[PAD]", "[UNK]"]
    fast.train_from_iterator(SENTENCES * 4, vocab_size=80, special_tokens=special, unk_token="[UNK]")
    fast._tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=fast._tokenizer, **names).save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp("tokenizers") / name for name in ("bytes", "prefixed", "sentences")}
    save_byte_pairs(made["bytes"])
    save_byte_pairs(made["prefixed"], add_prefix_space=True)
    save_pieces_of_sentences(made["sentences"])
    return made


def test_the_default_is_what_a_model_reads_sentences_with() -> None:
    for ids, expected in zip(UNCASED.encode(SENTENCES), wordpiece.encode(SENTENCES), strict=True):
        np.testing.assert_array_equal(ids, expected)
        assert ids.dtype == np.int32
    assert UNCASED.tokenizer == wordpiece.UNCASED
    assert MAX_CHARACTERS == predict.MAX_CHARACTERS


def test_no_text_gives_no_ids() -> None:
    assert [len(ids) for ids in UNCASED.encode([None, "", " \t\n", "a"])] == [0, 0, 0, 3]
    for words in ([], [""], [" ", ""]):
        ids, word = UNCASED.encode_words(words)
        assert ids.shape == word.shape == (0,) and ids.dtype == np.int32 and word.dtype == np.int64


def test_nothing_is_cut_but_beyond_a_hundred_thousand_characters() -> None:
    [ids] = UNCASED.encode(["good " * 3000])
    assert len(ids) == 3002
    [ids], (word_ids, word) = UNCASED.encode(["a " * 500_000]), UNCASED.encode_words(["a"] * 500_000)
    assert len(ids) == len(word_ids) == MAX_CHARACTERS // 2 + 2 and word.max() == MAX_CHARACTERS // 2 - 1
    assert len(UNCASED.encode(["x" * 1_000_000])[0]) == 3


def test_pieces_know_their_word() -> None:
    ids, word = UNCASED.encode_words(["Unbelievably", "", "good,", "\x01", "don't", "😀", "喜欢", "New York"])
    pieces = [UNCASED._fast.id_to_token(int(i)) for i in ids]
    by_word = [[piece for piece, at in zip(pieces, word, strict=True) if at == index] for index in range(8)]
    assert "".join(by_word[0]).replace("##", "") == "unbelievably" and len(by_word[0]) > 1
    assert by_word[1] == by_word[3] == []
    assert by_word[2] == ["good", ","] and by_word[4] == ["don", "'", "t"]
    assert len(by_word[5]) == 1 and len(by_word[6]) == 2 and by_word[7] == ["new", "york"]
    assert (word[0], word[-1]) == (-1, -1) and (ids[0], ids[-1]) == (101, 102)


def test_damaged_unicode_is_a_question_mark() -> None:
    [damaged, mark] = UNCASED.encode(["good \ud800 film", "good ? film"])
    np.testing.assert_array_equal(damaged, mark)
    assert UNCASED.encode_words(["good", "\udfff\ud800"])[1].tolist() == [-1, 0, 1, 1, -1]


# Letters of many scripts, blanks, controls, marks that join, emoji of several characters, lone surrogates.
WORDS = st.lists(
    st.text(max_size=6) | st.sampled_from(["don't", "é", "e\u0301", "👩‍👧", "\u200b", "ﬁ", "\ud800", "##s"]), max_size=8
)


@settings(max_examples=150, deadline=None)
@given(words=WORDS, name=st.sampled_from(["default", "bytes", "prefixed", "sentences"]))
def test_words_give_the_ids_of_their_text_in_order(folders: dict[str, Path], words: list[str], name: str) -> None:
    extractor = UNCASED if name == "default" else made(folders[name])
    ids, word = extractor.encode_words(words)
    text = " ".join(word.strip() for word in words if word.strip())
    np.testing.assert_array_equal(ids, extractor.encode([text])[0])
    if not len(ids):
        return
    assert (word[0], word[-1]) == (-1, -1)
    inner = word[1:-1]
    assert (np.diff(inner) >= 0).all() and ((inner >= 0) & (inner < len(words))).all()
    assert all(words[index].strip() for index in inner), "an empty word has no pieces"


@settings(max_examples=100, deadline=None)
@given(words=st.lists(st.text("abdehiklnotuv", min_size=1, max_size=5), min_size=1, max_size=8))
@pytest.mark.parametrize("name", ["default", "bytes", "prefixed", "sentences"])
def test_the_pieces_of_each_word_spell_it(folders: dict[str, Path], name: str, words: list[str]) -> None:
    extractor = UNCASED if name == "default" else made(folders[name])
    ids, word = extractor.encode_words(words)
    for index, expected in enumerate(words):
        spelled = "".join(extractor._fast.id_to_token(int(i)) for i in ids[word == index])
        spelled = spelled.replace("##", "").replace("Ġ", "").replace("▁", "")
        assert spelled == expected or "UNK" in spelled


_MADE: dict[Path, Any] = {}


def made(folder: Path) -> Any:
    if folder not in _MADE:
        _MADE[folder] = load("text", "wordpiece", {"tokenizer": str(folder)})
    return _MADE[folder]


def test_a_tokenizer_of_roberta_is_read_from_a_folder(folders: dict[str, Path]) -> None:
    extractor = made(folders["bytes"])
    assert extractor.tokenizer.name == "bytes"
    special = (extractor.tokenizer.cls_id, extractor.tokenizer.pad_id, extractor.tokenizer.sep_id)
    assert special == (0, 1, 2) and extractor.tokenizer.unknown_id == 3
    [ids] = extractor.encode(["unbelievably good " * 20])
    assert len(ids) > 40, "it is not cut at the tokenizer's own length of 8"
    assert (ids[0], ids[-1]) == (0, 2) and ids.max() < extractor.tokenizer.vocabulary_size


def test_a_folder_with_only_a_vocabulary_is_read(tmp_path: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "喜", "欢", "我"]
    folder = tmp_path / "bert-base-chinese"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    extractor = load("text", "wordpiece", {"tokenizer": str(folder)})
    assert extractor.tokenizer.name == "bert-base-chinese" and extractor.tokenizer.vocabulary_size == 8
    assert extractor.encode(["我喜欢x"])[0].tolist() == [2, 7, 5, 6, 1, 3]


def test_a_tokenizer_without_ends_is_refused(tmp_path: Path) -> None:
    save_byte_pairs(tmp_path, has_ends=False)
    with pytest.raises(RefusedError, match=r"text.tokenizer must put a first and a last token.*no token for cls, sep"):
        load("text", "wordpiece", {"tokenizer": str(tmp_path)})


def test_a_tokenizer_that_does_not_use_its_ends_is_refused(tmp_path: Path) -> None:
    tokenizer = save_byte_pairs(tmp_path, has_ends=False)
    tokenizer.add_special_tokens({"cls_token": "<s>", "sep_token": "</s>"})
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RefusedError, match="does not put its tokens around a text"):
        load("text", "wordpiece", {"tokenizer": str(tmp_path)})


def test_folders_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"is a folder without tokenizer.json or vocab.txt"):
        load("text", "wordpiece", {"tokenizer": str(tmp_path)})
    for content in ("", "{}", '{"model": {"type": "WordPiece", "vocab": {}}}', "\x00"):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(RefusedError, match=r"text.tokenizer="):
            load("text", "wordpiece", {"tokenizer": str(tmp_path)})


def test_the_manifest_gets_the_vocabulary() -> None:
    chosen = choose("text", "wordpiece")
    record = chosen.record(UNCASED)
    assert record["vocabulary"] == "bert-base-uncased"
    assert record["sha256"] == {"tokenizer.json": hashlib.sha256(wordpiece.tokenizer_bytes()).hexdigest()}


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"text.tokenizer must be a Hugging Face name or a folder"):
        choose("text", "wordpiece", {"tokenizer": ""})
