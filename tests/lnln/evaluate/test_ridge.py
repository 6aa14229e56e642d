"""Ridge on text: the numbers of a plain regression, on the views of every model, made once."""

from __future__ import annotations

import json
import pickle
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lnln.config import CorruptionConfig
from lnln.corruption import ViewSpec, evaluation_views, make_masks, training_view
from lnln.data.manifest import FeatureManifest, SplitEntry, commit_features
from lnln.data.schema import Utterances
from lnln.data.shards import read_split, write_shard
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate_suites, read_predictions
from lnln.evaluate.comparison import compare_systems
from lnln.evaluate.ridge import ALPHAS, DRAW_SEED, RIDGE, Design, Ridge, baseline_systems, ridge_evaluations
from lnln.evaluate.systems import score_systems
from lnln.evaluations import Evaluation
from lnln.metrics import score
from pipelines.ingest import import_corpus
from tests.corpora import CLS, SEP, UNKNOWN, mmsa_content, with_text_features
from tests.finished_run import small_corpus
from tests.lnln.conftest import RunStore

CORRUPTION = CorruptionConfig(complete_share=0.5, validation_rates=(0.0, 0.5))


def surviving(utterances: Utterances, spec: ViewSpec, *, keep_ends: bool = True) -> list[NDArray[Any]]:
    """What is left of each text, one utterance at a time."""
    found = []
    for row in range(len(utterances)):
        one = utterances.take([row])
        kept = make_masks(spec, one.utterance_id, one.lengths(), keep_ends=keep_ends).kept["text"]
        found.append(one.text.values[kept.values])
    return found


def counts(texts: list[NDArray[Any]], words: list[int]) -> NDArray[np.float64]:
    return np.array([[np.sum(ids == word) for word in words] for ids in texts], np.float64)


def plain_ridge(x: NDArray[np.float64], y: NDArray[np.float64], alpha: float) -> tuple[NDArray[np.float64], float]:
    """By least squares with a row for each weight that is held back; the intercept is not."""
    num, width = x.shape
    rows = np.concatenate(
        [np.hstack([x, np.ones((num, 1))]), np.hstack([np.sqrt(alpha) * np.eye(width), np.zeros((width, 1))])]
    )
    solution = np.linalg.lstsq(rows, np.concatenate([y, np.zeros(width)]), rcond=None)[0]
    return solution[:-1], float(solution[-1])


def test_it_is_the_regression_on_counts_of_words_that_survive(run_store: RunStore) -> None:
    store, manifest = run_store.store, run_store.manifest
    ridge = Ridge(store, manifest, CORRUPTION)
    train, valid, test = (read_split(store, manifest, split) for split in ("train", "valid", "test"))
    occurs = np.unique(np.concatenate([np.unique(train.text[i]) for i in range(len(train))]), return_counts=True)
    words = [int(word) for word, num in zip(*occurs, strict=True) if num > 1 and word not in (0, CLS, SEP, UNKNOWN)]
    assert ridge.design.width == len(words) > 5 and ridge.num_draws == 10
    draws = [training_view(CORRUPTION, DRAW_SEED, draw) for draw in range(10)]
    x = np.concatenate([counts(surviving(train, spec), words) for spec in draws])
    y = np.tile(train.label.astype(np.float64), 10)
    maes = {}
    for alpha in ALPHAS:
        weights, bias = plain_ridge(x, y, 10 * alpha)
        said = [
            (counts(surviving(valid, spec), words) @ weights + bias).clip(-3, 3)
            for spec in evaluation_views(CORRUPTION, CORRUPTION.validation_rates)
        ]
        maes[alpha] = float(np.mean([np.abs(each - valid.label).mean() for each in said]))
    best = min(maes, key=lambda alpha: (maes[alpha], -alpha))
    weights, bias = plain_ridge(x, y, 10 * best)
    assert ridge.fitted.alpha == best and ridge.fitted.mae == pytest.approx(maes[best], abs=1e-6)
    np.testing.assert_allclose(ridge.fitted.weights, weights, atol=1e-6)
    assert ridge.fitted.bias == pytest.approx(bias, abs=1e-6)
    for spec in (ViewSpec.evaluation(0.5, 3), ViewSpec.evaluation(0.7, 0, "block"), ViewSpec.evaluation(1.0, 0)):
        expected = (counts(surviving(test, spec), words) @ weights + bias).clip(-3, 3)
        np.testing.assert_allclose(ridge.predict(manifest, test, spec), expected, atol=1e-5)
    assert len({float(value) for value in ridge.predict(manifest, test, ViewSpec.evaluation(1.0, 0))}) == 1


def test_it_finds_the_words_that_tell_and_knows_nothing_without_them(run_store: RunStore) -> None:
    evaluations = ridge_evaluations(run_store.store, run_store.manifest, ["ten_rates", "absent"], corruption=CORRUPTION)
    whole = evaluations["ten_rates"].by_rate()
    assert whole[0]["mae"] < 0.75 * evaluations["ten_rates"].baselines["predict_mean"]["mae"]
    assert whole[0]["mae"] < whole[9]["mae"]
    absent = dict(zip(evaluations["absent"].rates, evaluations["absent"].views, strict=True))
    assert absent[0.0, 1.0, 1.0].scores == whole_view(evaluations["ten_rates"])
    for rate in ((1.0, 0.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0)):
        assert absent[rate].collapse_share == 1 and absent[rate].scores["corr"] == 0


def whole_view(evaluation: Evaluation) -> dict[str, float]:
    return next(view.scores for view in evaluation.views if view.missing_rate == 0)


def test_its_record_is_one_of_an_evaluation_and_is_made_once(
    run_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest = run_store.store, run_store.manifest
    made = ridge_evaluations(store, manifest, ["absent", "noise"])
    folder = f"baselines/{manifest.feature_id}/ridge"
    for evaluation in made.values():
        assert evaluation.name == RIDGE and evaluation.model["baseline"] == "ridge"
        assert evaluation.model["run_id"] is None and evaluation.model["alpha"] in ALPHAS
        assert Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict()))) == evaluation
        record = f"{folder}/{evaluation.evaluation_id}.json"
        assert Evaluation.from_dict(store.read_json(record)) == evaluation
        assert evaluation.predictions["path"].startswith(f"{folder}/{evaluation.evaluation_id}-")
        said = read_predictions(store, evaluation)
        assert said.completeness is None and np.abs(said.sentiment).max() <= 3
        for view, row in zip(evaluation.views, said.sentiment, strict=True):
            assert view.scores == score(row, said.label, (-3, 3))
    models = evaluate_suites(store, run_store.worse, ["absent", "noise"])
    for suite, evaluation in made.items():
        assert [view.view_id for view in models[suite].views] == [view.view_id for view in evaluation.views]
        assert read_predictions(store, models[suite]).utterance_id == read_predictions(store, evaluation).utterance_id
    monkeypatch.setattr(Ridge, "predict", lambda *_: pytest.fail("computed again"))
    assert ridge_evaluations(store, manifest, ["noise", "absent"]) == made
    with pytest.raises(pytest.fail.Exception):
        ridge_evaluations(store, manifest, ["absent"], split="valid")
    with pytest.raises(pytest.fail.Exception):
        ridge_evaluations(store, manifest, ["absent"], corruption=replace(CORRUPTION, complete_share=0.2))
    store.write(f"{folder}/{made['absent'].evaluation_id}.json", b"{")
    with pytest.raises(pytest.fail.Exception):
        ridge_evaluations(store, manifest, ["absent"])


def test_the_same_features_give_the_same_bytes(run_store: RunStore, tmp_path: Path) -> None:
    other = Store(tmp_path / "elsewhere")
    again = small_corpus(other, tmp_path)
    made = ridge_evaluations(run_store.store, run_store.manifest, ["ten_rates"])["ten_rates"]
    assert ridge_evaluations(other, again, ["ten_rates"])["ten_rates"] == made


def test_noise_on_words_is_what_models_read(run_store: RunStore) -> None:
    from lnln.batches import EvaluationBatches
    from lnln.views import Views

    store, manifest = run_store.store, run_store.manifest
    test, spec = read_split(store, manifest, "test"), ViewSpec.evaluation(0.8, 1, "noise")
    ridge = Ridge(store, manifest, CORRUPTION)
    (batch,) = EvaluationBatches(test, Views(test, "test", store, manifest), [spec], 100)
    read = batch.inputs.text.numpy()
    assert ridge.design.column is not None
    column = np.where(read < len(ridge.design.column), ridge.design.column[read], -1)
    weights = np.append(ridge.fitted.weights, 0.0)
    expected = (weights[column].sum(axis=1) + ridge.fitted.bias).clip(-3, 3)
    np.testing.assert_allclose(ridge.predict(manifest, test, spec)[batch.utterance], expected, atol=1e-5)


def imported(store: Store, content: dict[str, dict[str, Any]], folder: Path, name: str) -> FeatureManifest:
    path = folder / f"{name}.pkl"
    path.write_bytes(pickle.dumps(content))
    return import_corpus(store, path, name)


def test_language_features_are_averaged_over_the_steps_that_survive(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    manifest = imported(store, with_text_features(mmsa_content()), tmp_path, "features")
    assert manifest.text_dim == 6
    ridge = Ridge(store, manifest, CORRUPTION)
    test = read_split(store, manifest, "test")
    mean, std = (np.array(manifest.statistics["text"][key]) for key in ("mean", "std"))
    for spec in (ViewSpec.evaluation(0.5, 0), ViewSpec.evaluation(1.0, 0)):
        texts = surviving(test, spec, keep_ends=False)
        x = np.stack([(text - mean).mean(axis=0) / std if len(text) else np.zeros(6) for text in texts])
        expected = (x @ ridge.fitted.weights + ridge.fitted.bias).clip(-3, 3)
        np.testing.assert_allclose(ridge.predict(manifest, test, spec), expected, atol=1e-4)
    evaluation = ridge_evaluations(store, manifest, ["ten_rates", "noise"])["ten_rates"]
    assert evaluation.by_rate()[0]["mae"] < evaluation.baselines["predict_mean"]["mae"]


def test_it_is_a_system_beside_others(run_store: RunStore) -> None:
    store = run_store.store
    models = score_systems(store, [run_store.worse, run_store.better], ["ten_rates"])
    (ridge,) = baseline_systems(store, "small", ["ten_rates"])
    assert (ridge.title, ridge.names, ridge.seeds, ridge.config) == (RIDGE, (RIDGE,), (None,), None)
    assert ridge.first.manifest_digest == models[0].first.manifest_digest
    assert len(ridge.predictions(store, "ten_rates")) == 1
    differences = compare_systems(store, [*models, ridge], ridge, "ten_rates")
    assert differences["LNLN"]["mae"].value == pytest.approx(
        np.mean([each.mean["mae"] for each in models[0].evaluations["ten_rates"]]) - ridge.first.mean["mae"]
    )
    assert baseline_systems(store, run_store.manifest, ["ten_rates"]) == [ridge]


def with_labels(store: Store, manifest: FeatureManifest, name: str, **labels: list[float]) -> FeatureManifest:
    """The corpus with other labels of some splits."""
    splits = dict(manifest.splits)
    for split in ("train", "valid", "test"):
        if split in labels:
            utterances = read_split(store, manifest, split)
            changed = replace(utterances, label=np.resize(np.array(labels[split], np.float32), len(utterances)))
            splits[split] = SplitEntry(len(changed), (write_shard(store, f"{name}/{split}", split, changed),))
    return commit_features(store, replace(manifest, corpus=name, splits=splits))


def test_utterances_without_a_label_teach_nothing(run_store: RunStore) -> None:
    store, nan = run_store.store, float("nan")
    some = with_labels(store, run_store.manifest, "some", train=[1.0, nan, -2.0], valid=[nan, 1.0])
    fitted = Ridge(store, some, CORRUPTION).fitted
    assert np.isfinite(fitted.weights).all() and np.isfinite(fitted.bias) and np.isfinite(fitted.mae)
    for split in ("train", "valid"):
        none = with_labels(store, run_store.manifest, f"none-{split}", **{split: [nan]})
        with pytest.raises(RefusedError, match=f"no utterance of split {split} of corpus none-{split} has one"):
            ridge_evaluations(store, none, ["absent"])


def test_one_label_for_all_is_what_it_says(run_store: RunStore) -> None:
    same = with_labels(run_store.store, run_store.manifest, "same", train=[1.5], valid=[1.5])
    evaluation = ridge_evaluations(run_store.store, same, ["absent"])["absent"]
    said = read_predictions(run_store.store, evaluation)
    np.testing.assert_allclose(said.sentiment, 1.5, atol=1e-6)
    # Of equals the one that holds back most.
    assert evaluation.model["alpha"] == max(ALPHAS)


def test_one_utterance_of_each_split(tmp_path: Path) -> None:
    """No word occurs twice, so there is no column: it says the one label."""
    store = Store(tmp_path / "store")
    manifest = imported(store, mmsa_content((1, 1, 1)), tmp_path, "one")
    evaluation = ridge_evaluations(store, manifest, ["ten_rates"])["ten_rates"]
    label = float(read_split(store, manifest, "train").label[0])
    assert evaluation.model["num_columns"] == 0
    np.testing.assert_allclose(read_predictions(store, evaluation).sentiment, label, atol=1e-6)


def test_from_another_corpus_it_says_what_carries_over(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store
    other = imported(store, mmsa_content((20, 6, 9), seed=5), tmp_path, "other")
    made = ridge_evaluations(store, other, ["absent"], trained_on=run_store.manifest)["absent"]
    assert made.trained_on == "small" and made.corpus == "other" and made.num_utterances == 9
    assert made.title == f"{RIDGE} (trained on small, modality)"
    assert made.carries_over[0].startswith("carries over: the weight of each word piece")
    assert made.carries_over[1].startswith("labels: small train mean ") and "; other test mean " in made.carries_over[1]
    own = ridge_evaluations(store, other, ["absent"])["absent"]
    assert own.trained_on == "" and own.carries_over == () and own.evaluation_id != made.evaluation_id


@pytest.mark.parametrize(
    ("suites", "options", "said"),
    [
        (["ten"], {}, "one of ten_rates, absent"),
        (["absent"], {"split": "dev"}, "a split is one of train, valid, test, got 'dev'"),
    ],
)
def test_unknown_suites_and_splits_are_refused(
    run_store: RunStore, suites: list[str], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RefusedError, match=said):
        ridge_evaluations(run_store.store, run_store.manifest, suites, **options)


def test_what_it_cannot_learn_from_is_refused_with_both_values(run_store: RunStore, tmp_path: Path) -> None:
    store, manifest = run_store.store, run_store.manifest
    only_test = replace(manifest, splits={"test": manifest.splits["test"]})
    with pytest.raises(RefusedError, match=r"corpus small has no 'train', it has test"):
        ridge_evaluations(store, only_test, ["absent"])
    features = imported(store, with_text_features(mmsa_content()), tmp_path, "features")
    with pytest.raises(RefusedError, match=r"text dim 0, not 6"):
        ridge_evaluations(store, features, ["absent"], trained_on=manifest)
    sims = replace(manifest, label_range=(-1.0, 1.0))
    with pytest.raises(RefusedError, match=r"label range \(-3\.0, 3\.0\), not \(-1\.0, 1\.0\)"):
        ridge_evaluations(store, sims, ["absent"], trained_on=manifest)


def test_of_validation_one_chunk_is_held_at_a_time(run_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many views choose alpha: the design of a large corpus under eleven of them is more than memory."""
    ridge = Ridge(run_store.store, run_store.manifest, CorruptionConfig(validation_rates=(0.0, 0.3, 0.5, 0.7, 0.9)))
    expected, alive, most = ridge.fitted, [0], [0]
    made = Design.chunks

    def gone() -> None:
        alive[0] -= 1

    def counted(*arguments: Any) -> Iterator[NDArray[np.float32]]:
        for chunk in made(*arguments):
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            weakref.finalize(chunk, gone)
            yield chunk
            del chunk

    monkeypatch.setattr(Design, "chunks", counted)
    monkeypatch.setattr("lnln.evaluate.ridge._CHUNK", 4)
    again = Ridge(run_store.store, run_store.manifest, ridge.corruption).fitted
    # The loop's last one, and the one that is being made.
    assert most[0] <= 2
    assert again.alpha == expected.alpha and again.mae == pytest.approx(expected.mae, abs=1e-6)
