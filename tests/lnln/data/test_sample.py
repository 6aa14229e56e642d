from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from lnln.data.sample import make_sample
from lnln.data.schema import MODALITIES, Modality, Utterances
from lnln.data.wordpiece import UNCASED, encode
from lnln.errors import RefusedError

# Of make_sample(): a change of the sample must be meant, and then sample.VERSION is raised.
KNOWN_SHA256 = "8e3f585f7c89276cec1563cf099ab16b945e5c5beb4f206581dc2bab4bf13e9c"


def test_known_answer() -> None:
    corpus = make_sample()
    assert corpus.source["sha256"] == KNOWN_SHA256
    assert corpus.splits["train"].raw_text[0] == "the acting was somewhat wonderful"


def test_stated_to_be_synthetic() -> None:
    source = make_sample().source
    assert source["synthetic"] is True and "synthetic" in source["name"] and source["published_as"] is None


def test_sizes_and_content() -> None:
    corpus = make_sample()
    assert [len(utterances) for utterances in corpus.splits.values()] == [240, 60, 60]
    names = [name for utterances in corpus.splits.values() for name in utterances.utterance_id]
    assert len(set(names)) == 360
    for utterances in corpus.splits.values():
        assert np.isfinite(utterances.label).all() and np.abs(utterances.label).max() <= 3
        for modality in MODALITIES:
            lengths = utterances.sequences(modality).lengths
            assert (lengths == 0).any() and lengths.max() > 8
        assert utterances.audio.values.dtype == np.float32 and np.isfinite(utterances.audio.values).all()
        for row, ids in enumerate(encode(utterances.raw_text)):
            np.testing.assert_array_equal(utterances.text[row], ids)
            assert UNCASED.unknown_id not in ids


@pytest.mark.parametrize("num", [12, 13, 100])
def test_any_size(num: int) -> None:
    assert sum(len(utterances) for utterances in make_sample(num_utterances=num).splits.values()) == num
    with pytest.raises(RefusedError, match="at least 12"):
        make_sample(num_utterances=11)


def test_seeds_differ_and_no_split_repeats_another() -> None:
    one, other = make_sample(0), make_sample(1)
    assert one.source["sha256"] != other.source["sha256"]
    seeds = [tuple(u.label[:20]) for corpus in (one, other) for u in corpus.splits.values()]
    assert len(set(seeds)) == 6


def test_every_modality_adds_something() -> None:
    corpus = make_sample()
    error = {
        parts: _ridge_error(corpus.splits["train"], corpus.splits["test"], parts)
        for parts in ((), ("text",), ("audio",), ("vision",), ("audio", "vision"), MODALITIES)
    }
    for modality in MODALITIES:
        assert error[(modality,)] < 0.9 * error[()]
    assert error[MODALITIES] < 0.8 * min(error[(modality,)] for modality in MODALITIES)


def _ridge_error(train: Utterances, test: Utterances, parts: tuple[Modality, ...]) -> float:
    def inputs(utterances: Utterances) -> NDArray[np.float64]:
        columns: list[NDArray[np.float64]] = [np.ones((len(utterances), 1))]
        for modality in parts:
            sequences = utterances.sequences(modality)
            if modality == "text":
                words = np.zeros((len(utterances), UNCASED.vocabulary_size))
                for row in range(len(utterances)):
                    words[row, sequences[row]] = 1
                columns.append(words)
            else:
                columns.append(sequences.padded().sum(axis=1) / np.maximum(sequences.lengths, 1)[:, None])
        return np.concatenate(columns, axis=1)

    model = Ridge(1.0).fit(inputs(train), train.label)
    return float(np.abs(model.predict(inputs(test)) - test.label).mean())
