"""A model on another corpus: what has to fit is refused, what does not carry over is said, in the record too."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnln.data.manifest import FeatureManifest, SplitEntry, commit_features
from lnln.data.shards import read_labels, read_split, write_shard
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate, evaluate_suites
from lnln.evaluate.transfer import say_labels
from lnln.evaluations import Evaluation
from lnln.model_store import publish as publish_run
from lnln.model_store import pull
from pipelines.ingest import import_corpus, import_sample
from tests.corpora import mmsa_content
from tests.finished_run import TINY, finished_run, small_corpus
from tests.lnln.conftest import RunStore


def imported(store: Store, folder: Path, name: str, content: dict[str, dict[str, Any]]) -> FeatureManifest:
    path = folder / f"{name}.pkl"
    path.write_bytes(pickle.dumps(content))
    return import_corpus(store, path, name)


def wider(content: dict[str, dict[str, Any]], modality: str, num: int) -> dict[str, dict[str, Any]]:
    """With `num` more columns."""
    for split in content.values():
        split[modality] = np.concatenate([split[modality], split[modality][..., :1].repeat(num, axis=-1)], axis=-1)
    return content


def test_what_does_not_carry_over_stands_in_the_record(run_store: RunStore, tmp_path: Path) -> None:
    store, content = run_store.store, mmsa_content((20, 6, 9), seed=5)
    for split in content.values():
        split["audio"] = 10 * split["audio"] + 4 * (split["audio"] != 0)
        split["vision"][:] = 0
        split["vision_lengths"] = [0] * len(split["id"])
    other = imported(store, tmp_path, "other", content)
    made = evaluate(store, run_store.worse, "other")
    assert made.corpus == "other" and made.trained_on == "small"
    assert made.title == f"{run_store.worse} (trained on small)"
    said = "\n".join(made.carries_over)
    assert "carries over: the weights, the vocabulary bert-base-uncased and the label range -3 to 3" in said
    assert "vision is absent from every utterance of other, and was there in training" in said
    assert "baselines: what they predict is from the training labels of other" in said
    theirs, ours = (say_labels(read_labels(store, *of)) for of in ((run_store.manifest, "train"), (other, "test")))
    assert f"labels: small train {theirs}; other test {ours}" in said
    shift, low, high = map(
        float,
        re.search(
            r"frames are standardised by .* audio with means up to (\S+) deviations away \(median \S+\) and "
            r"deviations (\S+) to (\S+) times as large$",
            said,
            re.MULTILINE,
        ).groups(),  # type: ignore[union-attr]
    )
    mean, std = (np.array(run_store.manifest.statistics["audio"][key]) for key in ("mean", "std"))
    expected = np.abs(np.array(other.statistics["audio"]["mean"]) - mean) / std
    assert shift == pytest.approx(expected.max(), rel=0.06) and shift > 1 and 8 < low <= high < 14
    # Out of the store, and by suite.
    assert evaluate(store, run_store.worse, "other") == made
    assert Evaluation.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    suites = evaluate_suites(store, run_store.worse, ["absent"], "other")
    assert suites["absent"].carries_over == made.carries_over


def test_on_its_own_features_nothing_is_said(run_store: RunStore) -> None:
    for corpus in (None, "small"):
        made = evaluate(run_store.store, run_store.worse, corpus)
        assert made.trained_on == "" and made.carries_over == () and made.title == run_store.worse


def test_records_from_before_are_read(run_store: RunStore) -> None:
    values = evaluate(run_store.store, run_store.worse).to_dict()
    whole = Evaluation.from_dict(json.loads(json.dumps(values)))
    del values["trained_on"], values["carries_over"]
    assert Evaluation.from_dict(values) == whole


def test_other_features_of_the_same_corpus_are_another_corpus(run_store: RunStore) -> None:
    again = replace(run_store.manifest, feature_id="abcdef123456")
    commit_features(run_store.store, again)
    made = evaluate(run_store.store, run_store.worse, "small")
    assert made.trained_on == f"small, features {run_store.manifest.feature_id}"
    assert evaluate(run_store.store, run_store.worse).trained_on == ""


def test_of_what_a_model_does_not_read_nothing_is_asked(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store
    text_only = finished_run(store, run_store.manifest, model={**TINY["model"], "name": "text_only"})
    for name, modality, num, said in (
        ("wide", "audio", 2, "audio dim 4, not 6"),
        ("broad", "vision", 1, "vision dim 3, not 4"),
    ):
        imported(store, tmp_path, name, wider(mmsa_content(seed=5), modality, num))
        with pytest.raises(RefusedError, match=f"does not fit corpus {name}: it takes {said}; evaluate"):
            evaluate(store, run_store.worse, name)
        made = evaluate(store, text_only, name)
        assert not any("scale" in said or "audio" in said or "vision" in said for said in made.carries_over)
    # The same words and labels: what it says does not hang on frames.
    imported(store, tmp_path, "narrow", mmsa_content(seed=5))
    assert evaluate(store, text_only, "narrow").mean == made.mean


def test_other_words_labels_and_widths_are_refused_before_anything_is_read(
    run_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest = run_store.store, run_store.manifest
    monkeypatch.setattr("lnln.evaluate.run.read_split", lambda *_: pytest.fail("read"))
    chinese = replace(manifest.tokenizer, name="bert-base-chinese", vocabulary_size=21128)
    for number, (changes, said) in enumerate(
        (
            ({"tokenizer": chinese}, r"tokenizer bert-base-uncased \(30522 ids\), not bert-base-chinese \(21128 ids\)"),
            ({"label_range": (-1.0, 1.0)}, "label range -3 to 3, not -1 to 1"),
            ({"dims": {**manifest.dims, "text": 6}}, "text dim 0, not 6"),
        )
    ):
        commit_features(store, replace(manifest, corpus=f"other{number}", **changes))  # type: ignore[arg-type]
        for kind in ("lnln", "text_only", "late_fusion"):
            run_id = finished_run(store, manifest, seed=9, model={**TINY["model"], "name": kind})
            with pytest.raises(RefusedError, match=said):
                evaluate(store, run_id, f"other{number}")


def test_the_names_of_other_makers_are_said(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store
    made_by: Any = {**run_store.manifest.extractors, "audio": {"name": "COVAREP"}}
    commit_features(store, replace(run_store.manifest, corpus="other", extractors=made_by))
    said = evaluate(store, run_store.worse, "other").carries_over
    assert "audio: made by MMSA layout for training, here by COVAREP, known by name alone" in said


def test_longer_utterances_are_cut_and_it_is_said(run_store: RunStore) -> None:
    store, manifest = run_store.store, run_store.manifest
    short = finished_run(store, manifest, seed=4, model={**TINY["model"], "max_audio_length": 2, "max_text_length": 3})
    commit_features(store, replace(manifest, corpus="other"))
    longest = manifest.lengths["test"]
    said = evaluate(store, short, "other").carries_over
    assert (
        f"lengths: the model cuts text after 3 steps (the longest has {longest['text'].max}), "
        f"audio after 2 steps (the longest has {longest['audio'].max})"
    ) in said


def test_a_corpus_for_testing_alone(run_store: RunStore) -> None:
    """Its baselines predict the mean of the corpus that the model was trained on, if that is there."""
    store, manifest = run_store.store, run_store.manifest
    alone = replace(manifest, corpus="alone", splits={"test": manifest.splits["test"]}, statistics={})
    commit_features(store, replace(alone, lengths={"test": manifest.lengths["test"]}))
    made = evaluate(store, run_store.worse, "alone")
    own = evaluate(store, run_store.worse)
    assert made.mean == own.mean and made.baselines == own.baselines
    assert "baselines: what they predict is from the training labels of small" in made.carries_over
    assert any("audio of unknown scale" in said for said in made.carries_over)


def test_a_model_from_elsewhere_whose_corpus_is_not_in_the_store(run_store: RunStore, tmp_path: Path) -> None:
    publish_run(run_store.store, run_store.worse, "small-lnln")
    folder = pull(run_store.store, "small-lnln", tmp_path / "pulled")
    store = Store(tmp_path / "elsewhere")
    manifest = small_corpus(store, tmp_path, "other")
    made = evaluate(store, str(folder), "other")
    assert made.trained_on == "small"
    assert any(said.startswith("labels: small train their labels are not in this store;") for said in made.carries_over)
    alone = replace(manifest, corpus="alone", splits={"test": manifest.splits["test"]}, statistics={})
    commit_features(store, replace(alone, lengths={"test": manifest.lengths["test"]}))
    with pytest.raises(RefusedError, match=r"corpus alone has one nor is the corpus that .* import that too"):
        evaluate(store, str(folder), "alone")


def test_a_split_without_labels_is_refused(run_store: RunStore) -> None:
    store, manifest = run_store.store, run_store.manifest
    utterances = read_split(store, manifest, "test")
    unlabelled = replace(utterances, label=np.full_like(utterances.label, np.nan))
    entry = write_shard(store, "unlabelled/test", "test", unlabelled)
    commit_features(
        store, replace(manifest, corpus="unlabelled", splits={**manifest.splits, "test": SplitEntry(14, (entry,))})
    )
    with pytest.raises(RefusedError, match="scoring needs labelled utterances"):
        evaluate(store, run_store.worse, "unlabelled")


def test_labels_in_words() -> None:
    assert (
        say_labels([1.0, -1.0, 0.0, float("nan"), 2.0]) == "mean +0.50, sd 1.12, 25% negative, 25% zero, 50% positive"
    )
    assert say_labels([float("nan")]) == say_labels([]) == "has no label"


def test_the_sample_does_not_fit(run_store: RunStore) -> None:
    import_sample(run_store.store, "sample")
    with pytest.raises(RefusedError, match=r"takes audio dim 4, not 8; vision dim 3, not 10"):
        evaluate(run_store.store, run_store.worse, "sample")
