from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnln.data import file_array, mmsa, unpickle
from lnln.data.manifest import NO_TOKENIZER, Tokenizer
from lnln.data.mmsa import TextForm, TokenizerName, read_mmsa
from lnln.data.schema import MODALITIES, SPLITS
from lnln.data.wordpiece import CHINESE, UNCASED, decode, encode
from lnln.errors import RefusedError
from tests.corpora import CLS, SEP, mmsa_content, mmsa_split, with_text_features
from tests.real_data import real_data

Raw = dict[str, dict[str, Any]]


@pytest.fixture(params=["in memory", "in the file"], autouse=True)
def where_arrays_are(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test of this module with the arrays read at once, and with all but the smallest left in the file."""
    if request.param == "in the file":
        monkeypatch.setattr(unpickle, "LARGE_BYTES", 128)
        monkeypatch.setattr(file_array, "BLOCK_BYTES", 300)


def make_raw() -> Raw:
    return mmsa_content((9, 4, 5))


def read(
    tmp_path: Path, raw: Any, text: TextForm | None = None, tokenizer: TokenizerName | None = None
) -> mmsa.MmsaCorpus:
    path = tmp_path / "corpus.pkl"
    path.write_bytes(pickle.dumps(raw))
    return read_mmsa(path, text, tokenizer)


def refusal(tmp_path: Path, raw: Any, text: TextForm | None = None, tokenizer: TokenizerName | None = None) -> str:
    with pytest.raises(RefusedError) as error:
        read(tmp_path, raw, text, tokenizer)
    message = str(error.value)
    assert "\n" not in message and "corpus.pkl" in message
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.pkl"]
    return message


def test_what_is_read(tmp_path: Path) -> None:
    raw = make_raw()
    corpus = read(tmp_path, raw)
    data = (tmp_path / "corpus.pkl").read_bytes()
    assert corpus.dims == {"audio": 4, "vision": 3} and corpus.label_range == (-3.0, 3.0)
    assert corpus.tokenizer == UNCASED and tuple(corpus.splits) == SPLITS and set(corpus.extractors) == set(MODALITIES)
    assert corpus.source == {
        "name": "corpus.pkl",
        "sha256": hashlib.sha256(data).hexdigest(),
        "num_bytes": len(data),
        "published_as": None,
        "synthetic": False,
    }
    for split, utterances in corpus.splits.items():
        given = raw[split]
        assert utterances.utterance_id == given["id"] and utterances.raw_text == given["raw_text"]
        np.testing.assert_allclose(utterances.label, given["regression_labels"])
        assert utterances.modality_labels == {}
        for i in range(len(utterances)):
            num_tokens = given["text_bert"][i, 1].sum()
            np.testing.assert_array_equal(utterances.text[i], given["text_bert"][i, 0, :num_tokens])
            np.testing.assert_array_equal(utterances.audio[i], given["audio"][i, : given["audio_lengths"][i]])
            np.testing.assert_array_equal(utterances.vision[i], given["vision"][i, : given["vision_lengths"][i]])
        assert utterances.text.values.dtype == np.int32 and utterances.audio.values.dtype == np.float32


def test_not_finite_becomes_zero_and_is_counted(tmp_path: Path) -> None:
    raw = make_raw()
    train = raw["train"]
    row = int(np.argmax(train["audio_lengths"]))
    train["audio"][row, 0, :3] = [-np.inf, np.nan, np.inf]
    train["audio"][0] = -np.inf  # padding, since its length is 0: dropped, not counted
    raw["test"]["vision"] = raw["test"]["vision"].astype(np.float64)
    raw["test"]["vision"][0, 0, 1] = 1e300  # no float32
    corpus = read(tmp_path, raw)
    assert corpus.cleaned == {
        "audio": {"num_nan": 1, "num_infinite": 2},
        "vision": {"num_nan": 0, "num_infinite": 1},
    }
    np.testing.assert_array_equal(corpus.splits["train"].audio[row][0, :3], [0, 0, 0])
    assert all(np.isfinite(u.sequences(m).values).all() for u in corpus.splits.values() for m in corpus.dims)


def test_the_large_text_array_is_not_needed(tmp_path: Path) -> None:
    raw = make_raw()
    for split in raw.values():
        split["text"] = np.full((len(split["id"]), 10, 768), np.nan, np.float32)
    assert len(read(tmp_path, raw).splits["train"]) == 9


def test_modalities_wholly_absent(tmp_path: Path) -> None:
    raw = make_raw()
    for split in raw.values():
        num = len(split["id"])
        split["vision_lengths"] = [0] * num
        split["audio"], split["audio_lengths"] = np.zeros((num, 0, 6), np.float32), np.zeros(num, np.int64)
    corpus = read(tmp_path, raw)
    assert corpus.dims == {"audio": 6, "vision": 3}
    assert corpus.splits["test"].audio.values.shape == (0, 6)
    assert not corpus.splits["train"].vision.lengths.any()


def test_no_transcript(tmp_path: Path) -> None:
    raw = make_raw()
    raw["train"]["text_bert"][2] = 0
    raw["train"]["raw_text"][2:5] = [None, float("nan"), ""]
    utterances = read(tmp_path, raw).splits["train"]
    assert utterances.text.lengths[2] == 0 and utterances.text.lengths[3] > 0
    assert utterances.raw_text[2:5] == [None, None, ""]
    for split in raw.values():
        del split["raw_text"]
    assert read(tmp_path, raw).splits["train"].raw_text == [None] * 9


def test_without_text_bert_the_transcript_is_encoded(tmp_path: Path) -> None:
    raw = make_raw()
    for split in raw.values():
        del split["text_bert"]
    raw["train"]["raw_text"][:3] = ["Not GREAT!", None, "  "]
    utterances = read(tmp_path, raw).splits["train"]
    assert decode(utterances.text[0]) == "not great!" and utterances.text[0][[0, -1]].tolist() == [CLS, SEP]
    assert utterances.text.lengths[1:3].tolist() == [0, 0]


def test_text_bert_of_floats_and_other_containers(tmp_path: Path) -> None:
    raw = make_raw()
    expected = read(tmp_path, raw).splits["train"]
    train = raw["train"]
    train["text_bert"] = train["text_bert"].astype(np.float32)
    train["id"] = np.array(train["id"]).reshape(-1, 1)
    train["raw_text"] = np.array(train["raw_text"])
    train["audio_lengths"] = np.array(train["audio_lengths"], np.float64)
    train["regression_labels"] = train["regression_labels"].reshape(-1, 1).astype(">f8")
    train["audio"] = np.asfortranarray(train["audio"]).astype(np.float64)
    raw["valid"]["id"] = np.array(raw["valid"]["id"], object)
    raw["test"]["id"] = [[name.encode()] for name in raw["test"]["id"]]
    corpus = read(tmp_path, raw)
    assert corpus.splits["test"].utterance_id[0] == "video2$_$0" == raw["test"]["id"][0][0].decode()
    found = corpus.splits["train"]
    assert found.utterance_id == expected.utterance_id and found.raw_text == expected.raw_text
    for modality in MODALITIES:
        np.testing.assert_array_equal(found.sequences(modality).values, expected.sequences(modality).values)
    np.testing.assert_array_equal(found.label, expected.label)


def test_aligned_without_lengths(tmp_path: Path) -> None:
    raw: Raw = {
        name: mmsa_split(4, seed, text=10, audio=10, vision=7) for seed, name in enumerate(("train", "valid", "test"))
    }
    for split in raw.values():
        del split["audio_lengths"], split["vision_lengths"]
    raw["train"]["text_bert"][1] = 0
    utterances = read(tmp_path, raw).splits["train"]
    expected = utterances.text.lengths.copy()
    expected[1] = 10
    assert utterances.audio.lengths.tolist() == expected.tolist()
    assert utterances.vision.lengths.tolist() == [7] * 4


def test_sims(tmp_path: Path) -> None:
    raw = make_raw()
    for split in raw.values():
        num = len(split["id"])
        split["raw_text"] = [f"我不喜欢 {i}" for i in range(num)]
        split["regression_labels"] = np.linspace(-1, 1, num)
        for suffix in "TAV":
            split[f"regression_labels_{suffix}"] = np.linspace(1, -1, num)
    corpus = read(tmp_path, raw)
    assert corpus.label_range == (-1.0, 1.0) and corpus.tokenizer == CHINESE
    assert list(corpus.splits["train"].modality_labels) == list(MODALITIES)
    assert corpus.splits["train"].modality_labels["audio"][0] == 1
    del raw["valid"]["regression_labels_A"]
    assert "valid has no 'regression_labels_A'" in refusal(tmp_path, raw)
    raw["valid"]["regression_labels_A"] = np.array([0, 0, 1.2, 0])
    assert "regression_labels_A 1.2, expected -1.0 to 1.0" in refusal(tmp_path, raw)


def chinese(raw: Raw, scale: float = 1.0) -> Raw:
    """Transcripts in Chinese, labels from -scale to scale, none of modalities."""
    for split in raw.values():
        num = len(split["id"])
        split["raw_text"] = [f"我不喜欢 {i}" for i in range(num)]
        split["regression_labels"] = np.linspace(-scale, scale, num)
    return raw


def test_the_range_of_chinese_labels_does_not_need_those_of_modalities(tmp_path: Path) -> None:
    corpus = read(tmp_path, chinese(make_raw()))
    assert corpus.label_range == (-1.0, 1.0) and corpus.tokenizer == CHINESE
    assert all(utterances.modality_labels == {} for utterances in corpus.splits.values())
    assert read(tmp_path, with_text_features(chinese(make_raw()), only=False), "features").label_range == (-1.0, 1.0)
    assert read(tmp_path, chinese(make_raw(), 1.2)).label_range == (-3.0, 3.0)
    english = chinese(make_raw())
    for split in english.values():
        split["raw_text"] = ["in English"] * len(split["id"])
    assert read(tmp_path, english).label_range == (-3.0, 3.0)


def untold(*ids: int) -> Raw:
    """Labels within 1 and no transcripts; `ids` are among those of the text."""
    raw = chinese(make_raw())
    for split in raw.values():
        del split["raw_text"]
    text_bert = raw["valid"]["text_bert"]
    for row, token in enumerate(ids):
        text_bert[row, 0, 1] = token
    text_bert[:, 0][text_bert[:, 1] == 0] = 784  # padding says nothing
    return raw


@pytest.mark.parametrize(
    ("ids", "tokenizer"),
    [((784, 720), CHINESE), ((21128,), UNCASED), ((998,), CHINESE), ((25000, 30000, 500), UNCASED)],
)
def test_ids_without_transcripts_show_what_made_them(
    tmp_path: Path, ids: tuple[int, ...], tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = read(tmp_path, untold(*ids))
    assert corpus.tokenizer == tokenizer and corpus.extractors["text"]["vocabulary"] == tokenizer.name
    assert corpus.label_range == ((-1.0, 1.0) if tokenizer == CHINESE else (-3.0, 3.0))
    assert not caplog.records


def test_ids_that_show_nothing_are_taken_for_english_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read(tmp_path, untold()).tokenizer == UNCASED
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'corpus.pkl'} has no transcripts, and its ids do not show what made them: taken for "
        "bert-base-uncased; if that is wrong, import with `--tokenizer bert-base-chinese`"
    ]
    caplog.clear()
    stated = read(tmp_path, untold(), tokenizer="bert-base-chinese")
    assert stated.tokenizer == CHINESE and stated.label_range == (-1.0, 1.0)
    assert read(tmp_path, untold(784), tokenizer="bert-base-uncased").tokenizer == UNCASED
    sims = untold()
    for split in sims.values():
        for suffix in "TAV":
            split[f"regression_labels_{suffix}"] = split["regression_labels"]
    assert read(tmp_path, sims).tokenizer == CHINESE
    assert not caplog.records


def test_a_tokenizer_that_cannot_be_is_refused(tmp_path: Path) -> None:
    said = "text_bert ids that are not in the vocabulary of bert-base-chinese"
    assert said in refusal(tmp_path, untold(21128), tokenizer="bert-base-chinese")
    features = with_text_features(make_raw())
    assert "language features, which have no tokenizer" in refusal(tmp_path, features, tokenizer="bert-base-uncased")
    transcripts = make_raw()
    for split in transcripts.values():
        del split["text_bert"]
    assert read(tmp_path, transcripts, tokenizer="bert-base-uncased").tokenizer == UNCASED
    said = "ids of its transcripts can be made of bert-base-uncased only"
    assert said in refusal(tmp_path, transcripts, tokenizer="bert-base-chinese")


def test_published_files_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = str(read(tmp_path, make_raw()).source["sha256"])
    monkeypatch.setitem(mmsa.PUBLISHED, sha256, "MOSI/Processed/unaligned_50.pkl")
    corpus = read(tmp_path, make_raw())
    assert corpus.source["published_as"] == "MOSI/Processed/unaligned_50.pkl"
    assert corpus.extractors["audio"] == {"name": "MOSI/Processed/unaligned_50.pkl"}


def set_key(key: str, value: Any, row: int | None = None) -> Callable[[Raw], Any]:
    def act(raw: Raw) -> None:
        if row is None:
            raw["valid"][key] = value
        else:
            raw["valid"][key][row] = value

    return act


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw.pop("valid"), "has no split 'valid', expected train, valid and test; it has train, test"),
        (lambda raw: raw.update(test=[1]), "has no split 'test'"),
        (lambda raw: raw["valid"].pop("id"), "split valid must have a list of utterance ids"),
        (set_key("id", []), "split valid must have a list of utterance ids"),
        (set_key("id", "", 2), "split valid, utterance number 2 has no id"),
        (set_key("id", "video1$_$0", 2), "utterance video1$_$0 twice, in valid and valid"),
        (set_key("id", "video0$_$3", 2), "utterance video0$_$3 twice, in train and valid"),
        (lambda raw: raw["valid"].pop("audio"), "split valid has no 'audio'"),
        (lambda raw: raw["valid"].pop("regression_labels"), "split valid has no 'regression_labels'"),
        (set_key("regression_labels", float("nan"), 1), "utterance video1$_$1 has regression_labels nan"),
        (set_key("regression_labels", 3.2, 1), "video1$_$1 has regression_labels 3.2"),
        (set_key("regression_labels", ["Positive"] * 4), "one number per utterance"),
        (set_key("regression_labels", np.zeros(5)), "split valid has 5 rows of 'regression_labels' for 4 utterances"),
        (set_key("raw_text", ["a"]), "split valid has 1 rows of 'raw_text'"),
        (set_key("raw_text", "abcd"), "'raw_text' must be a list or an array"),
        (set_key("audio_lengths", 8, 1), "utterance video1$_$1 has audio_lengths 8, but its audio array has 7 steps"),
        (set_key("vision_lengths", -1, 0), "video1$_$0 has vision_lengths -1, but its vision array has 5 steps"),
        (set_key("audio_lengths", 1.5, 1), "audio_lengths 1.5"),
        (set_key("audio_lengths", [1, 2, None, 3]), "audio_lengths nan"),
        (set_key("audio_lengths", [1, 2]), "split valid has 2 rows of 'audio_lengths' for 4 utterances"),
        (set_key("audio", np.zeros((3, 7, 4))), "split valid has 3 rows of 'audio' for 4 utterances"),
        (set_key("audio", np.zeros((4, 7))), "'audio' must be a numeric array with 3 axes"),
        (set_key("audio", np.full((4, 7, 4), "x")), "'audio' must be a numeric array"),
        (set_key("audio", [np.zeros((2, 4))] * 4), "'audio' must be a numeric array with 3 axes, got list"),
        (set_key("audio", np.zeros((4, 7, 0))), "no dimensions"),
        (set_key("audio", np.zeros((4, 7, 5))), "same dimensions in every split, got train 4, valid 5, test 4"),
        (set_key("text_bert", np.zeros((4, 2, 9))), "must be (utterances, 3, steps)"),
        (set_key("text_bert", np.zeros((4, 30))), "'text_bert' must be a numeric array with 3 axes"),
        (lambda raw: raw["valid"].pop("text_bert"), "'text_bert' in train, test only"),
        (lambda raw: raw["valid"]["text_bert"].__setitem__((1, 1, 0), 0), "video1$_$1 has a text_bert mask"),
        (lambda raw: raw["valid"]["text_bert"].__setitem__((1, 1, 0), 2), "video1$_$1 has a text_bert mask"),
        (lambda raw: raw["valid"]["text_bert"].__setitem__((2, 0, 1), 30522), "video1$_$2 has text_bert ids"),
        (lambda raw: raw["valid"]["text_bert"].__setitem__((2, 0, 1), -1), "not in the vocabulary"),
        (set_key("text_bert", np.full((4, 3, 6), 1.5)), "mask"),
    ],
)
def test_contradictions_are_refused(damage: Callable[[Raw], Any], message: str, tmp_path: Path) -> None:
    raw = make_raw()
    damage(raw)
    assert message in refusal(tmp_path, raw)


@pytest.mark.parametrize("value", [[1, 2], None, "train", {}, {"train": {}, "valid": {}, "test": {}}])
def test_other_pickles_are_refused(value: Any, tmp_path: Path) -> None:
    refusal(tmp_path, value)


def test_neither_text_nor_ids(tmp_path: Path) -> None:
    raw = make_raw()
    for split in raw.values():
        del split["text_bert"], split["raw_text"]
    assert "neither 'text_bert' nor 'raw_text'" in refusal(tmp_path, raw)


def test_what_is_not_expected_to_be_infinite_is_named_in_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = make_raw()
    raw["train"]["audio"][1, 0, :2] = -np.inf  # as in the published files
    read(tmp_path, raw)
    assert not caplog.records
    raw["test"]["audio"][1, 0, :2] = [np.nan, -np.inf]
    row = int(np.argmax(raw["valid"]["vision_lengths"]))
    raw["valid"]["vision"][row, 0] = [-np.inf, np.inf, np.nan]
    read(tmp_path, raw)
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    path = tmp_path / "corpus.pkl"
    assert messages == [
        f"{path}: 1 NaN or infinite values of audio were set to 0, the first in split test, utterance video2$_$1",
        f"{path}: 3 NaN or infinite values of vision were set to 0, the first in split valid, utterance video1$_${row}",
    ]


@pytest.mark.parametrize("block", [1, 8, 1 << 20])
def test_an_utterance_that_is_half_nan_is_damaged_and_not_dirty(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmsa, "_CLEANING_BLOCK", block)
    raw = make_raw()
    train = raw["train"]
    train["audio_lengths"][3], train["audio_lengths"][4] = 2, 7
    train["audio"][4, :3] = np.nan
    train["audio"][3] = [[np.nan, np.inf, np.nan, -np.inf], [-np.inf] * 4] + [[np.nan] * 4] * 5  # the rest is padding
    train["audio"][5, 0, 1] = np.nan
    corpus = read(tmp_path, raw)  # 3 of 8, as -inf is nothing odd; 12 of 28; 1
    assert corpus.cleaned["audio"] == {"num_nan": 15, "num_infinite": 6}
    assert not corpus.splits["train"].audio[3].any() and not corpus.splits["train"].audio[4][:3].any()
    train["audio"][3, 1, 3] = np.inf  # 4 of 8
    assert refusal(tmp_path, raw) == (
        f"{tmp_path / 'corpus.pkl'}: split train, utterance video0$_$3 has 4 NaN or infinite values among the 8 of its "
        "audio (-inf aside), expected less than half; repair the utterance in the pickle or drop it, and import again"
    )
    train["audio"][4, :4] = np.nan
    assert "less than half; so have 1 more utterances of the split; repair" in refusal(tmp_path, raw)


@pytest.mark.parametrize("modality", ["text", "vision"])
def test_infinity_of_either_sign_is_damage_but_in_audio(tmp_path: Path, modality: str) -> None:
    raw = with_text_features(make_raw())
    raw["test"]["audio"][:] = -np.inf
    assert not read(tmp_path, raw).splits["test"].audio.values.any()
    row = int(np.argmax(raw["test"]["vision_lengths"]))
    raw["test"][modality][row] = -np.inf
    assert f"split test, utterance video2$_${row} has " in refusal(tmp_path, raw)


def test_a_dimension_that_is_half_nan_is_damaged(tmp_path: Path) -> None:
    raw = make_raw()
    valid = raw["valid"]
    frames = [(row, step) for row, length in enumerate(valid["audio_lengths"]) for step in range(length)]
    half = (len(frames) + 1) // 2
    for row, step in frames[1:half]:
        valid["audio"][row, step, 2] = np.nan
    assert read(tmp_path, raw).cleaned["audio"]["num_nan"] == half - 1
    valid["audio"][(*frames[0], 2)] = np.nan
    assert refusal(tmp_path, raw) == (
        f"{tmp_path / 'corpus.pkl'}: split valid: dimension 2 of audio is NaN or infinite (-inf aside) in {half} of "
        f"{len(frames)} frames, expected less than half; repair the dimension in the pickle or drop it from every "
        "split, and import again"
    )
    valid["audio"][:, :, 2] = -np.inf
    assert read(tmp_path, raw).cleaned["audio"]["num_infinite"] == len(frames)


@pytest.mark.parametrize("dim", [1, 6, 300])
def test_text_features_where_there_are_no_ids(tmp_path: Path, dim: int) -> None:
    raw = with_text_features(make_raw(), dim)
    corpus = read(tmp_path, raw)
    assert corpus.dims == {"text": dim, "audio": 4, "vision": 3} and list(corpus.dims) == list(MODALITIES)
    assert corpus.tokenizer == NO_TOKENIZER and corpus.extractors["text"] == {"name": "MMSA layout"}
    assert corpus.cleaned["text"] == {"num_nan": 0, "num_infinite": 0}
    for split, utterances in corpus.splits.items():
        assert utterances.text_dim == dim and utterances.text.values.dtype == np.float32
        for i in range(len(utterances)):
            num_steps = len(utterances.text[i])
            np.testing.assert_array_equal(utterances.text[i], raw[split]["text"][i, :num_steps])
            assert not raw[split]["text"][i, num_steps:].any() and utterances.text[i][-1].any()
    blank = with_text_features(make_raw(), dim)
    for split_columns in blank.values():
        split_columns["raw_text"] = ["", None, "  "] + [None] * (len(split_columns["id"]) - 3)
    assert read(tmp_path, blank).dims["text"] == dim


def test_text_features_where_they_are_asked_for(tmp_path: Path) -> None:
    raw = with_text_features(make_raw(), only=False)
    by_mask = read(tmp_path, raw, "features")
    for split, utterances in by_mask.splits.items():
        assert utterances.text.lengths.tolist() == raw[split]["text_bert"][:, 1].sum(axis=1).tolist()
        assert utterances.raw_text == raw[split]["raw_text"]
    ids = read(tmp_path, raw)
    assert ids.dims == {"audio": 4, "vision": 3} and ids.tokenizer == UNCASED == read(tmp_path, raw, "ids").tokenizer
    assert ids.splits["train"].text_dim == 0


def test_lengths_of_text_features(tmp_path: Path) -> None:
    raw = with_text_features(make_raw(), only=False)
    train = raw["train"]
    train["text"][0, 1] = 0  # a real step may be all zeros
    train["text_lengths"] = [3, 0, 10] + [1] * 6
    assert read(tmp_path, raw, "features").splits["train"].text.lengths.tolist() == train["text_lengths"]
    train["text_lengths"][1] = 11
    assert "video0$_$1 has text_lengths 11, but its text array has 10" in refusal(tmp_path, raw, "features")
    del train["text_lengths"]
    expected = train["text_bert"][:, 1].sum(axis=1).tolist()
    assert read(tmp_path, raw, "features").splits["train"].text.lengths.tolist() == expected
    train["text"] = train["text"][:, :3]
    assert "has more steps in its text_bert mask than its text array has, 3" in refusal(tmp_path, raw, "features")
    raw = with_text_features(make_raw())
    raw["train"]["text"][0, 1] = 0
    raw["train"]["text"][1] = 0
    raw["train"]["text"][2, -1, 0] = np.nan  # counts as a value
    expected[1:3] = [0, 10]
    assert read(tmp_path, raw).splits["train"].text.lengths.tolist() == expected


def test_aligned_frames_take_the_length_of_text_features(tmp_path: Path) -> None:
    raw = with_text_features(
        {name: mmsa_split(4, seed, text=10, audio=10) for seed, name in enumerate(("train", "valid", "test"))}
    )
    for split in raw.values():
        del split["audio_lengths"]
    utterances = read(tmp_path, raw).splits["train"]
    assert utterances.audio.lengths.tolist() == utterances.text.lengths.tolist()


def test_text_features_that_are_not_finite_are_cleaned_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = with_text_features(make_raw())
    raw["test"]["text"][2, 1, :2] = [np.nan, -np.inf]
    corpus = read(tmp_path, raw)
    assert corpus.cleaned["text"] == {"num_nan": 1, "num_infinite": 1}
    assert corpus.splits["test"].text[2][1, :2].tolist() == [0, 0]
    assert (
        "2 NaN or infinite values of text were set to 0, the first in split test, utterance video2$_$2" in caplog.text
    )


def change_text(value: Any) -> Callable[[Raw], Any]:
    return lambda raw: raw["valid"].__setitem__("text", value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_text(np.zeros((4, 10, 5))), "text must have the same dimensions in every split, got train 6, valid 5"),
        (change_text(np.zeros((4, 10, 0))), "'text' has no dimensions"),
        (change_text(np.zeros((3, 10, 6))), "split valid has 3 rows of 'text' for 4 utterances"),
        (change_text(np.zeros((4, 6))), "split valid: 'text' must be a numeric array with 3 axes"),
        (change_text(["a"] * 4), "'text' must be a numeric array with 3 axes, got list"),
        (change_text(None), "split valid has no 'text'"),
    ],
)
def test_wrong_text_features_are_refused(damage: Callable[[Raw], Any], message: str, tmp_path: Path) -> None:
    raw = with_text_features(make_raw())
    damage(raw)
    assert message in refusal(tmp_path, raw)


def test_a_form_of_text_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "has no 'text' array of language features" in refusal(tmp_path, make_raw(), "features")
    only_features = with_text_features(make_raw())
    assert "neither 'text_bert' nor transcripts to make token ids of" in refusal(tmp_path, only_features, "ids")


def test_real_mosi() -> None:
    corpus = read_mmsa(real_data("mosi/mosi_text_audio.pkl"))
    assert {split: len(utterances) for split, utterances in corpus.splits.items()} == {
        "train": 1284,
        "valid": 229,
        "test": 686,
    }
    assert corpus.dims == {"audio": 73, "vision": 20} and corpus.tokenizer == UNCASED
    for utterances in corpus.splits.values():
        assert not utterances.vision.lengths.any() and (utterances.audio.lengths == 1).all()
        # The file's ids are this vocabulary's, cut to 50.
        for i, ids in enumerate(encode(utterances.raw_text)):
            np.testing.assert_array_equal(utterances.text[i][:49], ids[:49])


def test_real_trimodal() -> None:
    corpus = read_mmsa(real_data("mosi/mosi_trimodal_229.pkl"))
    assert corpus.dims == {"audio": 74, "vision": 47}
    assert [len(utterances) for utterances in corpus.splits.values()] == [161, 21, 47]
    lengths = np.concatenate([utterances.audio.lengths for utterances in corpus.splits.values()])
    assert lengths.min() == 2 and lengths.max() == 44 and round(lengths.mean()) == 11
