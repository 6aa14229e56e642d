"""Suites of views: the questions they ask, the same for every model, from one load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lnln.corruption import make_masks
from lnln.data.manifest import FeatureManifest
from lnln.data.schema import Split, Utterances
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import SUITES, Evaluator, evaluate, evaluate_suites
from lnln.evaluate.suites import MASK_SEEDS, choose_suites, present_letters
from lnln.evaluations import evaluation_specs
from tests.lnln.conftest import RunStore


def test_suites_ask_what_they_say() -> None:
    assert SUITES["ten_rates"].rates == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    absent = SUITES["absent"]
    assert [absent.name_rate(rate) for rate in absent.rates] == ["L", "A", "V", "L+A", "L+V", "A+V"]
    assert absent.rates[4] == (0.0, 1.0, 0.0)
    grid = SUITES["grid"]
    assert len(set(grid.rates)) == 27 and {0.0, 0.5, 1.0, (1.0, 0.5, 0.0)} <= set(grid.rates)
    assert grid.name_rate((1.0, 0.5, 0.0)) == "1/0.5/0" and present_letters((1.0, 0.5, 0.0)) == ("A", "V")


def test_mask_seeds_only_where_they_change_something() -> None:
    assert SUITES["ten_rates"].mask_seeds() == MASK_SEEDS and SUITES["noise"].mask_seeds([7, 8]) == (7, 8)
    assert SUITES["absent"].mask_seeds() == MASK_SEEDS[:1] and SUITES["absent"].mask_seeds([7, 8]) == (7,)


@pytest.mark.parametrize("name", SUITES)
def test_states_whether_it_is_random(run_store: RunStore, name: str) -> None:
    utterances = read_split(run_store.store, run_store.manifest, "test")
    suite = SUITES[name]
    if suite.protocol == "noise":
        return  # its masks are those of `frame`
    masks = [
        [
            make_masks(spec, utterances.utterance_id, utterances.lengths()).kept
            for spec in evaluation_specs(suite.corruption(), mask_seeds=[seed])
        ]
        for seed in (1, 2)
    ]
    differ = any(
        not np.array_equal(one[m].values, other[m].values) for one, other in zip(*masks, strict=True) for m in one
    )
    assert differ == suite.is_random


def test_unknown_suite_is_refused_and_all_is_all() -> None:
    assert list(choose_suites(["noise", "all"])) == ["noise", "ten_rates", "absent", "text_missing", "block", "grid"]
    with pytest.raises(
        RefusedError, match="one of ten_rates, absent, text_missing, block, noise, grid or all, got 'ten'"
    ):
        choose_suites(["ten_rates", "ten"])


def test_one_load_of_the_corpus_for_all(run_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Split] = []

    def read(store: Store, manifest: FeatureManifest, split: Split) -> Utterances:
        reads.append(split)
        return read_split(store, manifest, split)

    monkeypatch.setattr("lnln.evaluate.run.read_split", read)
    evaluator = Evaluator(run_store.store)
    made = [evaluator.open(name).score_suites(["ten_rates", "absent", "block"]) for name in run_store[2:]]
    assert reads == ["test"]
    assert [each.name for each in made[1].values()] == [run_store.better] * 3
    evaluator.open(run_store.better, split="valid").score_suites(["absent"])
    assert reads == ["test", "valid"]


def test_equals_single_evaluations(run_store: RunStore) -> None:
    suites = evaluate_suites(run_store.store, run_store.worse, ["ten_rates", "absent"], mask_seeds=[0])
    ten_rates = evaluate(run_store.store, run_store.worse, rates=SUITES["ten_rates"].rates, force=True)
    assert suites["ten_rates"] == ten_rates
    absent = evaluate(
        run_store.store, run_store.worse, protocol="modality", rates=SUITES["absent"].rates, mask_seeds=[0], force=True
    )
    assert suites["absent"] == absent and absent.protocol == "modality"
    everything = evaluate_suites(run_store.store, run_store.worse, ["grid"], mask_seeds=[0])["grid"]
    # Everything of a modality erased step by step is the modality absent.
    for rate in SUITES["absent"].rates:
        first, second = (each.by_rate()[each.rates.index(rate)] for each in (absent, everything))
        assert first == pytest.approx(second, abs=1e-5)


def test_nothing_is_scored_where_one_suite_cannot_be(run_store: RunStore, tmp_path: Path) -> None:
    subject = Evaluator(run_store.store).open(run_store.worse)
    with pytest.raises(RefusedError, match="got 'nothing'"):
        subject.score_suites(["absent", "nothing"])
    with pytest.raises(RefusedError, match="given twice"):
        subject.score_suites(["absent", "ten_rates"], mask_seeds=[3, 3])
    assert not list((tmp_path / "store" / "runs" / run_store.worse).rglob("evaluations/*"))
    with pytest.raises(RefusedError, match="got none"):
        subject.score([])
