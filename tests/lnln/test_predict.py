"""Predictions for sentences and shards, friendly and hostile ones."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lnln.corruption import ViewSpec
from lnln.data.extractors import identity_of
from lnln.data.schema import Ragged, Utterances
from lnln.data.shards import encode_shard, read_split
from lnln.errors import RefusedError
from lnln.evaluate import evaluate
from lnln.model_store import publish, pull
from lnln.model_store.opened import open_model
from lnln.predict import MOSI_WORDS, Predictor, check_corpus, describe, predict, predict_lines
from tests.extracted_corpus import EXTRACTORS, extracted_corpus
from tests.finished_run import TINY, finished_run
from tests.lnln.conftest import RunStore


@pytest.fixture
def predictor(run_store: RunStore) -> Predictor:
    return Predictor.open(run_store.store, run_store.worse)


@pytest.fixture
def utterances(run_store: RunStore) -> Utterances:
    return read_split(run_store.store, run_store.manifest, "test")


def test_sentences(predictor: Predictor) -> None:
    first, second = predictor.predict_texts(["a great movie", "an awful movie"])
    assert first.utterance_id == "sentence 1" and first.text == "a great movie"
    assert first.missing == ("audio", "vision") and first.notes == () and first.label is None
    assert first.label_text == describe(first.sentiment, (-3, 3))
    assert first.completeness is not None and 0 <= first.completeness <= 1
    assert first.sentiment != second.sentiment
    assert set(first.to_dict()) >= {"utterance_id", "sentiment", "label_text", "completeness", "missing", "label"}
    assert predictor.predict_texts([]) == []


def test_a_sentence_is_predicted_the_same_in_any_company(predictor: Predictor) -> None:
    texts = [f"a great movie {'and a bad one ' * n}" for n in range(9)]
    together = [made.sentiment for made in predictor.predict_texts(texts)]
    alone = [predictor.predict_texts([text])[0].sentiment for text in texts]
    assert together == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\0", "\x7f\x01"])
def test_empty_sentence_is_refused_by_number(predictor: Predictor, text: str) -> None:
    with pytest.raises(RefusedError, match="sentence 2 is empty"):
        predictor.predict_texts(["fine", text])


@pytest.mark.parametrize("text", ["x " * 60_000, "x" * 1_000_000, "great " * 9])
def test_long_sentence_is_cut_and_says_so(predictor: Predictor, text: str) -> None:
    (made,) = predictor.predict_texts([text])
    if text.startswith("x" * 200):  # one word of no vocabulary
        assert made.notes == ()
    else:
        assert made.notes[0].startswith("text cut from ") and made.notes[0].endswith(
            "to 9 steps, the longest of its training"
        )


@pytest.mark.parametrize(
    "text",
    [
        "\udcff\udc80",
        "Ünïcödé",
        "我很高兴",
        "<script>alert(1)</script>",
        "'; DROP TABLE x; --",
        "[CLS] [SEP] [UNK]",
        "🙂",
    ],
)
def test_hostile_sentences_are_only_words(predictor: Predictor, text: str) -> None:
    (made,) = predictor.predict_texts([text])
    assert np.isfinite(made.sentiment)
    made.label_text.encode()
    assert made.text is not None and made.text.encode()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60))
def test_any_text_is_predicted_or_refused_in_one_line(predictor: Predictor, text: str) -> None:
    try:
        (made,) = predictor.predict_texts([text])
        assert np.isfinite(made.sentiment)
    except RefusedError as refusal:
        assert "\n" not in str(refusal)


def test_shard_gives_what_the_evaluation_at_rate_0_gave(
    run_store: RunStore, predictor: Predictor, utterances: Utterances, tmp_path: Path
) -> None:
    path = tmp_path / "shard.parquet"
    path.write_bytes(encode_shard(utterances))
    made = predictor.predict_shard(path)
    assert [row.utterance_id for row in made] == utterances.utterance_id
    assert [row.label for row in made] == pytest.approx(utterances.label.tolist())
    mae = float(np.abs(np.array([row.sentiment for row in made]) - utterances.label).mean())
    assert mae == pytest.approx(evaluate(run_store.store, run_store.worse).views[0].scores["mae"], abs=1e-4)
    assert made[0].missing == ("audio",) and made[-1].missing == ("vision",) and made[1].missing == ()


def test_unlabelled_and_wholly_absent_utterances(predictor: Predictor, utterances: Utterances) -> None:
    empty = Utterances(
        utterance_id=["nothing"],
        raw_text=[None],
        label=np.array([np.nan], np.float32),
        text=Ragged.from_lengths(np.empty(0, np.int32), [0]),
        audio=Ragged.from_lengths(np.empty((0, 4), np.float32), [0]),
        vision=Ragged.from_lengths(np.empty((0, 3), np.float32), [0]),
    )
    (made,) = predictor.predict_utterances(empty)
    assert made.missing == ("text", "audio", "vision") and made.label is None and np.isfinite(made.sentiment)
    assert predictor.predict_utterances(utterances.take([])) == []


def test_longer_features_are_cut_and_say_so(predictor: Predictor, utterances: Utterances) -> None:
    one = utterances.take([1])
    long = replace(one, audio=Ragged.from_lengths(np.ones((50, 4), np.float32), [50]))
    (made,) = predictor.predict_utterances(long)
    assert made.notes == ("audio cut from 50 to 7 steps, the longest of its training",)


def test_wrong_features_are_refused(predictor: Predictor, utterances: Utterances, tmp_path: Path) -> None:
    one = utterances.take([1])
    wide = replace(one, audio=Ragged.from_lengths(np.ones((2, 9), np.float32), [2]))
    (tmp_path / "wide.parquet").write_bytes(encode_shard(wide))
    with pytest.raises(RefusedError, match="audio"):
        predictor.predict_shard(tmp_path / "wide.parquet")
    with pytest.raises(RefusedError, match="takes audio of 4 dimensions, got 9"):
        predictor.predict_utterances(wide)
    for bad in (np.nan, np.inf, -np.inf):
        broken = replace(one, vision=Ragged.from_lengths(np.full((2, 3), bad, np.float32), [2]))
        with pytest.raises(RefusedError, match="not finite"):
            predictor.predict_utterances(broken)
    for token in (-1, 30522):
        foreign = replace(one, text=Ragged.from_lengths(np.array([101, token, 102], np.int32), [3]))
        with pytest.raises(RefusedError, match="text ids"):
            predictor.predict_utterances(foreign)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all", None])
def test_files_that_are_no_shards_are_refused(predictor: Predictor, tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "file.parquet"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(RefusedError) as refusal:
        predictor.predict_shard(path)
    assert "file.parquet" in str(refusal.value) and "\n" not in str(refusal.value)
    with pytest.raises(RefusedError):
        predictor.predict_shard(tmp_path)


def test_front_door_keeps_the_order_of_its_inputs(run_store: RunStore, utterances: Utterances, tmp_path: Path) -> None:
    path = tmp_path / "two.parquet"
    path.write_bytes(encode_shard(utterances.take([0, 1])))
    publish(run_store.store, run_store.worse, "small-lnln")
    folder = pull(run_store.store, "small-lnln", tmp_path / "pulled")
    for model in (run_store.worse, "small-lnln@best", str(folder)):
        made = predict(run_store.store, model, ["good", str(path), "bad"])
        assert [row["utterance_id"] for row in made] == ["sentence 1", *utterances.utterance_id[:2], "sentence 2"]
        assert [row["input"] for row in made] == ["good", None, None, "bad"]
        assert json.loads(json.dumps(made)) == made
    with pytest.raises(RefusedError, match="nothing to predict"):
        predict(run_store.store, run_store.worse, [])


def test_model_without_a_tokenizer_takes_shards_only(run_store: RunStore, tmp_path: Path) -> None:
    publish(run_store.store, run_store.worse, "small-lnln")
    folder = pull(run_store.store, "small-lnln", tmp_path / "pulled")
    (folder / "tokenizer.json").unlink()
    (folder / "manifest.json").unlink()
    predictor = Predictor.open(run_store.store, str(folder))
    with pytest.raises(RefusedError, match="reads no sentences"):
        predictor.predict_texts(["good"])


@pytest.mark.parametrize(
    ("sentiment", "label_range", "word"),
    [
        (-9.0, (-3, 3), "strongly negative"),
        (-0.5, (-3, 3), "weakly negative"),
        (-0.49, (-3, 3), "neutral"),
        (0.5, (-3, 3), "neutral"),
        (0.51, (-3, 3), "weakly positive"),
        (2.6, (-3, 3), "strongly positive"),
        (-0.7, (-1, 1), "negative"),
        (0.0, (-1, 1), "neutral"),
        (0.7, (-1, 1), "weakly positive"),
        (5.0, (-1, 1), "positive"),
    ],
)
def test_words(sentiment: float, label_range: tuple[float, float], word: str) -> None:
    assert describe(sentiment, label_range) == word


def test_words_are_the_seven_classes() -> None:
    assert len(MOSI_WORDS) == 7 and [end for end, _ in MOSI_WORDS] == sorted(end for end, _ in MOSI_WORDS)


def test_a_model_without_completeness_says_none(run_store: RunStore, tmp_path: Path) -> None:
    model = {"name": "text_only", "text_encoder": "tiny"}
    run_id = finished_run(run_store.store, run_store.manifest, model=model)
    utterances = read_split(run_store.store, run_store.manifest, "test")
    shard = tmp_path / "clips.parquet"
    shard.write_bytes(encode_shard(utterances))
    rows = predict(run_store.store, run_id, ["a great movie", str(shard)])
    assert len(rows) == 1 + len(utterances)
    assert all(row["completeness"] is None and np.isfinite(row["sentiment"]) for row in rows)
    assert json.loads(json.dumps(rows))[0]["completeness"] is None
    # What is not read is not cut either.
    assert not any("audio" in note or "vision" in note for row in rows for note in row["notes"])
    values = evaluate(run_store.store, run_id, rates=[0.0])
    errors = [abs(row["sentiment"] - row["label"]) for row in rows[1:]]
    assert values.mean["mae"] == pytest.approx(np.mean(errors), abs=1e-5)


def test_a_shard_of_other_extractors_is_refused_with_both_sides(
    run_store: RunStore, predictor: Predictor, utterances: Utterances, tmp_path: Path
) -> None:
    extracted = Predictor.open(
        run_store.store, finished_run(run_store.store, extracted_corpus(run_store.store, tmp_path))
    )
    shard = tmp_path / "clips.parquet"
    shard.write_bytes(encode_shard(utterances, EXTRACTORS))
    assert len(extracted.predict_shard(shard)) == len(utterances)

    other = {**EXTRACTORS, "audio": {**EXTRACTORS["audio"], "version": 4}}
    shard.write_bytes(encode_shard(utterances, other))
    with pytest.raises(RefusedError, match=r"clips\.parquet has audio made by tones version 4, .* by tones version 3"):
        extracted.predict_shard(shard)
    faster = {**EXTRACTORS, "vision": {**EXTRACTORS["vision"], "config": {"rate_hz": 10.0}}}
    shard.write_bytes(encode_shard(utterances, faster))
    with pytest.raises(RefusedError, match=r"drawn version 1 with rate_hz 10\.0, .* drawn version 1 with rate_hz 5\.0"):
        extracted.predict_shard(shard)
    # A model of imported features takes no extracted ones, equal in dimensions as they are.
    shard.write_bytes(encode_shard(utterances, EXTRACTORS))
    with pytest.raises(RefusedError, match=r"has text made by wordpiece version 1, .* made by WordPiece"):
        predictor.predict_shard(shard)
    # What was imported does not say what made it, so its dimensions have to do.
    shard.write_bytes(encode_shard(utterances))
    assert len(extracted.predict_shard(shard)) == len(utterances)


def test_a_model_that_says_nothing_of_extractors_still_predicts(run_store: RunStore, tmp_path: Path) -> None:
    publish(run_store.store, run_store.worse, "small-lnln")
    folder = pull(run_store.store, "small-lnln", tmp_path / "pulled")
    (folder / "manifest.json").unlink()
    features = json.loads((folder / "features.json").read_text())
    for key in ("extraction", "extractors"):
        del features[key]
    (folder / "features.json").write_text(json.dumps(features))
    shard = tmp_path / "clips.parquet"
    shard.write_bytes(encode_shard(read_split(run_store.store, run_store.manifest, "test"), EXTRACTORS))
    assert len(predict(run_store.store, str(folder), ["good", str(shard)])) == 15


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_shard_is_refused_in_one_line_or_does_no_harm(
    predictor: Predictor, utterances: Utterances, share: float, bit: int
) -> None:
    """Shards that no manifest lists have no SHA-256 to be checked by."""
    data = bytearray(encode_shard(utterances.take([1, 2])))
    data[int(share * len(data))] ^= 1 << bit
    try:
        predictor.predict_utterances(predictor.decode(bytes(data), "x.parquet"))
    except RefusedError as refusal:
        assert "\n" not in str(refusal)


def lines(*texts: bytes) -> io.BytesIO:
    return io.BytesIO(b"\n".join(texts))


def test_lines_are_sentences_whatever_they_look_like(run_store: RunStore, predictor: Predictor) -> None:
    given_ = (b"a great movie", b"", b"  ", b"clip.mp4", b"x.parquet", b"\xff\xfe bytes", b"-")
    rows = predict_lines(run_store.store, run_store.worse, lines(*given_))
    assert [row["utterance_id"] for row in rows] == ["line 1", "line 4", "line 5", "line 6", "line 7"]
    assert rows[1]["input"] == "clip.mp4" and rows[3]["input"].endswith(" bytes")
    assert rows[0]["sentiment"] == pytest.approx(predictor.predict_texts(["a great movie"])[0].sentiment, abs=1e-5)
    assert json.loads(json.dumps(rows)) == rows
    with_end = predict_lines(run_store.store, run_store.worse, io.BytesIO(b"a great movie\r\n"))
    assert [row["input"] for row in with_end] == ["a great movie"]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"  \n\t\n"])
def test_a_stream_without_a_sentence_is_refused(run_store: RunStore, data: bytes) -> None:
    with pytest.raises(RefusedError, match="no sentence came in"):
        predict_lines(run_store.store, run_store.worse, io.BytesIO(data))


def test_a_stream_that_does_not_end_is_refused_soon(run_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        def __init__(self, pattern: bytes) -> None:
            self.pattern, self.num_bytes = pattern, 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            part = (self.pattern * (len(buffer) // len(self.pattern) + 1))[: len(buffer)]
            buffer[:] = part
            self.num_bytes += len(part)
            assert self.num_bytes < 50e6
            return len(part)

    with pytest.raises(RefusedError, match="line 1 is longer than 100,000 bytes"):
        predict_lines(run_store.store, run_store.worse, io.BufferedReader(Endless(b"x")))
    with pytest.raises(RefusedError, match="more than 100,000 lines"):
        predict_lines(run_store.store, run_store.worse, io.BufferedReader(Endless(b"yes\n")))


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "meta:x"])
def test_a_device_that_is_not_there_is_refused(run_store: RunStore, device: str) -> None:
    with pytest.raises(RefusedError, match=f"cannot compute on device '{device}'") as refusal:
        Predictor.open(run_store.store, run_store.worse, device)
    assert "\n" not in str(refusal.value)


def test_endless_features_are_cut_before_anything_is_padded(run_store: RunStore, utterances: Utterances) -> None:
    """Padded to the longest, 14 utterances of two million steps and more would take gigabytes."""
    text_only = finished_run(run_store.store, run_store.manifest, model={"name": "text_only", "text_encoder": "tiny"})
    endless = Ragged.concatenate(
        [utterances.audio.rows(0, 13), Ragged.from_lengths(np.ones((2_000_000, 4), np.float32), [2_000_000])]
    )
    with_it = replace(utterances, audio=endless)
    short = replace(
        utterances,
        audio=Ragged.concatenate([endless.rows(0, 13), Ragged.from_lengths(np.ones((50, 4), np.float32), [50])]),
    )
    for run, is_read in ((run_store.worse, True), (text_only, False)):
        predictor = Predictor.open(run_store.store, run)
        made, expected = predictor.predict_utterances(with_it), predictor.predict_utterances(short)
        assert [row.sentiment for row in made] == pytest.approx([row.sentiment for row in expected], abs=1e-6)
        assert (made[-1].notes == ("audio cut from 2000000 to 7 steps, the longest of its training",)) == is_read
        assert is_read or made[-1].notes == ()


def test_what_a_view_takes_is_said(predictor: Predictor, utterances: Utterances) -> None:
    nothing = predictor.predict_columns(utterances)
    assert set(nothing.missing.ravel().tolist()) == {0.0, 1.0}
    half = predictor.predict_columns(utterances, ViewSpec.evaluation(0.5, seed=0))
    is_absent = nothing.missing == 1
    assert (half.missing[is_absent] == 1).all() and 0.3 < half.missing[~is_absent].mean() < 0.7
    everything = predictor.predict_columns(utterances, ViewSpec.evaluation(1.0, seed=0))
    assert (everything.missing == 1).all() and not np.allclose(everything.sentiment, nothing.sentiment)
    with pytest.raises(RefusedError, match="needs the statistics of the corpus"):
        predictor.predict_columns(utterances, ViewSpec.evaluation(0.5, seed=0, protocol="noise"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 13), min_size=1, max_size=20), rate=st.sampled_from([0.0, 0.3, 0.8]))
def test_an_utterance_is_predicted_the_same_in_any_shard(
    predictor: Predictor, utterances: Utterances, rows: list[int], rate: float
) -> None:
    """However a corpus is cut into shards, so that masks and batches do not hang on it."""
    view = ViewSpec.evaluation(rate, seed=3)
    whole, part = predictor.predict_columns(utterances, view), predictor.predict_columns(utterances.take(rows), view)
    assert part.sentiment == pytest.approx(whole.sentiment[rows], abs=1e-5)
    np.testing.assert_array_equal(part.missing, whole.missing[rows])


def test_a_corpus_of_other_features_is_refused_with_both_sides(run_store: RunStore, tmp_path: Path) -> None:
    opened = open_model(run_store.store, run_store.worse)
    check_corpus(opened, run_store.manifest)
    wide = replace(run_store.manifest, corpus="wide", dims={**run_store.manifest.dims, "audio": 9})
    with pytest.raises(RefusedError, match=r"not fit corpus wide: it takes audio of 4 dimensions, not 9 dimensions"):
        check_corpus(opened, wide)
    features = replace(run_store.manifest, corpus="features", dims={**run_store.manifest.dims, "text": 6})
    with pytest.raises(RefusedError, match="takes text of 30522 token ids of bert-base-uncased, not 6 dimensions"):
        check_corpus(opened, features)
    extracted = extracted_corpus(run_store.store, tmp_path)
    of_extracted = open_model(run_store.store, finished_run(run_store.store, extracted))
    check_corpus(of_extracted, extracted)
    other = {**EXTRACTORS, "audio": {**EXTRACTORS["audio"], "version": 4}}
    with pytest.raises(RefusedError, match=r"audio made by tones version 3, corpus .* made by tones version 4"):
        check_corpus(of_extracted, replace(extracted, extractors=other))


def test_of_what_a_model_does_not_read_nothing_is_asked(
    run_store: RunStore, predictor: Predictor, utterances: Utterances, tmp_path: Path
) -> None:
    """Not how wide it is, nor what made it, nor whether it is finite."""
    store, manifest = run_store.store, run_store.manifest
    opened = open_model(store, finished_run(store, manifest, model={**TINY["model"], "name": "text_only"}))
    words = Predictor(opened)
    expected = [made.sentiment for made in words.predict_utterances(utterances)]
    num = len(utterances)
    other = replace(
        utterances,
        audio=Ragged.from_lengths(np.full((2 * num, 9), np.nan, np.float32), [2] * num),
        vision=Ragged.from_lengths(np.ones((num, 1), np.float32), [1] * num),
    )
    path = tmp_path / "other.parquet"
    path.write_bytes(encode_shard(other, {**identity_of(manifest.extractors), "audio": EXTRACTORS["audio"]}))
    assert [made.sentiment for made in words.predict_shard(path)] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(RefusedError, match="has audio made by tones version 3"):
        predictor.predict_shard(path)
    path.write_bytes(encode_shard(other))
    with pytest.raises(RefusedError, match="audio has 9 dimensions, expected 4"):
        predictor.predict_shard(path)
    wide = replace(manifest, corpus="wide", dims={**manifest.dims, "audio": 9, "vision": 1})
    check_corpus(opened, wide)
    with pytest.raises(RefusedError, match="takes text of 30522 token ids"):
        check_corpus(opened, replace(wide, dims={**wide.dims, "text": 6}))
