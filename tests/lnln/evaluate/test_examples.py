"""Examples are chosen by rule, and show what the models saw and said."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.corruption import ViewSpec, make_masks
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.data.wordpiece import decode
from lnln.errors import RefusedError
from lnln.evaluate.examples import choose, examples
from lnln.evaluate.predictions import read_predictions
from lnln.evaluate.systems import score_systems
from lnln.evaluate.words import FEATURES, NO_WORDS, OTHER_TRANSCRIPT
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_content, with_text_features
from tests.finished_run import TINY, finished_run, small_corpus
from tests.lnln.conftest import RunStore

RULES = ["largest disagreement", "largest error", "largest loss", "median error"]


def test_show_what_was_seen_and_said(run_store: RunStore) -> None:
    store = run_store.store
    reference = finished_run(store, run_store.manifest, model={**TINY["model"], "mode": "reference"})
    names = [run_store.worse, run_store.better, reference]
    systems = score_systems(store, names, ["ten_rates"], mask_seeds=[5, 0])
    made = examples(store, systems, run_store.manifest)
    assert [each.rule for each in made] == RULES and made == examples(store, systems)
    assert len({each.utterance_id for each in made}) == 4
    utterances = read_split(store, run_store.manifest, "test")
    for each in made:
        row = utterances.utterance_id.index(each.utterance_id)
        assert each.label == utterances.label[row] and each.rates == (0.0, 0.1, 0.5, 0.9) and each.mask_seed == 0
        for place, rate in enumerate(each.rates):
            text = each.texts[place]
            assert text.note == OTHER_TRANSCRIPT
            assert "".join(span.text for span in text.spans) == decode(utterances.text[row])
            masks = make_masks(ViewSpec.evaluation(rate, 0), utterances.utterance_id, utterances.lengths())
            erased = [not kept for kept in masks.kept["text"][row]]
            # Every word of this corpus is one piece.
            marked = [span.is_erased for span in text.spans for _ in span.text.split()]
            assert marked == erased[1:-1]
            for system in systems:
                said = [read_predictions(store, evaluation) for evaluation in system.evaluations["ten_rates"]]
                views = [
                    next(i for i, v in enumerate(e.views) if (v.missing_rate, v.mask_seed) == (rate, 0))
                    for e in system.evaluations["ten_rates"]
                ]
                expected = np.mean([p.sentiment[view, row] for p, view in zip(said, views, strict=True)])
                assert each.predictions[system.title][place] == pytest.approx(float(expected), abs=1e-6)


def test_one_system_and_few_rates(run_store: RunStore) -> None:
    systems = score_systems(run_store.store, [run_store.worse], ["ten_rates", "absent"], mask_seeds=[0])
    made = examples(run_store.store, systems, rates=[0.9, 0.0], num_each=2)
    assert [each.rule for each in made] == [rule for rule in RULES[1:] for _ in range(2)]
    assert made[0].rates == (0.0, 0.9) and list(made[0].predictions) == ["LNLN"]
    assert examples(run_store.store, systems, rates=[0.55]) == [] == examples(run_store.store, systems, suite="absent")


def test_features_and_missing_transcripts(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps(with_text_features(mmsa_content())))
    manifest = import_corpus(store, path, "features")
    (system,) = score_systems(store, [finished_run(store, manifest)], ["ten_rates"], mask_seeds=[0])
    assert {text.note for each in examples(store, [system]) for text in each.texts} <= {FEATURES, NO_WORDS}


def test_systems_on_other_utterances_are_refused(run_store: RunStore, tmp_path: Path) -> None:
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps(mmsa_content(seed=3)))
    manifest = import_corpus(run_store.store, path, "other")
    other = finished_run(run_store.store, manifest)
    systems = score_systems(run_store.store, [run_store.worse, other], ["ten_rates"], mask_seeds=[0])
    with pytest.raises(RefusedError, match="not scored on the same utterances, so no example shows both"):
        examples(run_store.store, systems)
    same = small_corpus(run_store.store, tmp_path, "same")
    again = finished_run(run_store.store, same)
    systems = score_systems(run_store.store, [run_store.worse, again], ["ten_rates"], mask_seeds=[0])
    assert len(examples(run_store.store, systems)) == 4, "one split of two features"


def test_choice_by_hand() -> None:
    label = np.array([0.0, 0.0, 0.0, 0.0, 0.0])
    first = np.array([[0.0, 1.0, 3.0, 0.0, 2.0], [2.0, 1.0, 3.0, 0.0, 2.0]])
    second = first + np.array([0.0, 0.0, 0.0, 0.5, 0.1])
    assert choose([first, second], label) == [
        ("largest disagreement", 3),
        ("largest error", 2),
        ("largest loss", 0),
        ("median error", 1),
    ]
    assert choose([first[:1]], label)[1] == ("median error", 1), "no loss at a single rate"


@settings(max_examples=60, deadline=None)
@given(
    num=st.integers(1, 9),
    num_rates=st.integers(1, 3),
    num_systems=st.integers(1, 3),
    num_each=st.integers(1, 4),
    chance=st.integers(0, 2**16),
)
def test_nobody_is_shown_twice(num: int, num_rates: int, num_systems: int, num_each: int, chance: int) -> None:
    random = np.random.default_rng(chance)
    answers = list(random.integers(-2, 3, (num_systems, num_rates, num)).astype(np.float64))
    label = random.integers(-2, 3, num).astype(np.float64)
    chosen = choose(answers, label, num_each)
    rows = [row for _, row in chosen]
    assert len(set(rows)) == len(rows) <= num
    num_rules = 2 + (num_systems > 1) + (num_rates > 1)
    assert len(rows) == min(num, num_rules * num_each)
