"""What is learned from a corpus: folds, targets, and simulations that tell what there is to tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnln.data.manifest import NO_TOKENIZER, Tokenizer
from lnln.data.schema import Ragged, Utterances
from lnln.data.wordpiece import UNCASED
from lnln.errors import RefusedError
from pipelines.simulators import choose, load_provider, names
from pipelines.simulators.base import CorpusText
from pipelines.simulators.regressor import assign_folds, group_of, video_of
from pipelines.simulators.texts import encode, load_encoder

TEXT = CorpusText(UNCASED, 0, UNCASED.name)


@pytest.mark.parametrize(
    ("utterance_id", "video"),
    [
        ("video$_$clip", "video"),
        ("a$_$b$_$3", "a$_$b"),
        ("-3g5yACwYnA[12]", "-3g5yACwYnA"),
        ("plain", "plain"),
        ("[3]", "[3]"),
        ("$_$1", ""),
        ("a[1][2]", "a[1]"),
    ],
)
def test_the_video_of_an_utterance(utterance_id: str, video: str) -> None:
    assert video_of(utterance_id) == video


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12), num_folds=st.integers(2, 6))
def test_folds_keep_videos_together_and_are_of_like_size(sizes: list[int], num_folds: int) -> None:
    ids = [f"v{video}$_${clip}" for video, size in enumerate(sizes) for clip in range(size)]
    if len(ids) < 2:
        with pytest.raises(RefusedError, match="1 utterances of the training split have both"):
            assign_folds(ids, num_folds)
        return
    fold_of = assign_folds(ids, num_folds)
    assert fold_of == assign_folds(ids[::-1], num_folds)
    folds = [fold_of[group_of(name, fold_of)] for name in ids]
    filled = np.bincount(folds)
    assert 2 <= len(filled) <= num_folds and filled.min() >= 1
    assert filled.max() - filled.min() <= max(sizes)
    if len(sizes) > 1:
        by_video = {video_of(name): fold for name, fold in zip(ids, folds, strict=True)}
        assert [by_video[video_of(name)] for name in ids] == folds


def test_targets_are_means_of_what_the_encoder_says() -> None:
    texts = [[101, 2204, 2143, 102], [], [101, *[2003] * 700, 102], [101, 102]]
    ids = Ragged.from_lengths(np.array([i for text in texts for i in text], np.int32), [len(text) for text in texts])
    none = Ragged.from_lengths(np.zeros((0, 1), np.float32), [0] * 4)
    rows = Utterances(list("abcd"), [None] * 4, np.zeros(4, np.float32), ids, none, none)
    teacher = choose("regressor", {"text_encoder": "tiny", "num_steps": 2}).make(TEXT)
    targets = teacher.targets(rows)
    assert [each.shape for each in targets] == [(2, 32), (0, 32), (2, 32), (2, 32)]
    [features] = encode(load_encoder("tiny", "text_encoder").model, [np.array(texts[0], np.int32)])
    np.testing.assert_allclose(targets[0], [features[:2].mean(axis=0), features[2:].mean(axis=0)], atol=1e-6)
    # Of another batch, and of the ids that the encoder can take.
    [alone] = teacher.targets(rows.take([2]))
    np.testing.assert_allclose(alone, targets[2], atol=1e-5)


def test_language_features_are_targets_as_they_are() -> None:
    chosen = choose("regressor", {"num_steps": 2})
    teacher = chosen.make(CorpusText(NO_TOKENIZER, 3, ""))
    text = Ragged.from_lengths(np.arange(12, dtype=np.float32).reshape(4, 3), [4, 0])
    none = Ragged.from_lengths(np.zeros((0, 1), np.float32), [0, 0])
    targets = teacher.targets(Utterances(["a", "b"], [None] * 2, np.zeros(2, np.float32), text, none, none))
    np.testing.assert_allclose(targets[0], [[1.5, 2.5, 3.5], [7.5, 8.5, 9.5]])
    assert teacher.dim == 3 and len(targets[1]) == 0
    other = choose("regressor", {"num_steps": 2, "text_encoder": "tiny"})
    assert chosen.record(teacher) == other.record(other.make(CorpusText(NO_TOKENIZER, 3, "")))


def test_providers_are_found_by_name() -> None:
    assert names() == ("recognition", "regressor", "speech_llm")
    assert load_provider("regressor", ["num_steps=3"]).config.num_steps == 3


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("num_step=3", "unknown config key 'num_step'; did you mean 'num_steps'"),
        ("num_steps=0", "num_steps must be from 1 to 512, got 0"),
        ("num_steps=1.5", "num_steps must be of type int"),
        ("num_folds=1", "num_folds must be from 2"),
        ("text_encoder=' '", "text_encoder must be a Hugging Face name"),
        ("nonsense", "key=value such as num_steps=16"),
    ],
)
def test_what_cannot_be_is_refused(override: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        load_provider("regressor", [override])


def test_an_encoder_of_another_vocabulary_is_refused() -> None:
    chinese = Tokenizer("bert-base-chinese", 21128, 0, 100, 101, 102)
    with pytest.raises(RefusedError, match=r"of a vocabulary of 21128.*--set text_encoder=NAME"):
        choose("regressor").make(CorpusText(chinese, 0, chinese.name))
    with pytest.raises(RefusedError, match="no provider of simulated text is called 'magic'"):
        choose("magic")
