"""Which system is better: pairs where there are pairs, means where there are none, and never over other views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.errors import RefusedError
from lnln.evaluate.bootstrap import draw_counts
from lnln.evaluate.comparison import (
    FEWEST_UTTERANCES,
    HIGH_RATES,
    compare_by_rate,
    compare_scores,
    compare_systems,
    compare_with_baselines,
)
from lnln.evaluate.estimates import score_suite
from lnln.evaluate.paired import paired_difference
from lnln.evaluate.robustness import effective_robustness
from lnln.evaluate.systems import score_systems
from tests.finished_run import TINY, finished_run
from tests.lnln.conftest import RunStore
from tests.lnln.evaluate.made_scores import made_scores

RATES = (0.0, 0.7, 0.8, 0.9)


def test_over_the_seeds_that_both_have() -> None:
    mine = made_scores({"mae": [[1.0] * 4, [1.2] * 4]}, rates=RATES, seeds=[1, 2])
    theirs = made_scores({"mae": [[5.0] * 4, [1.0] * 4]}, rates=RATES, seeds=[3, 2], title="text only")
    (by_metric,) = compare_scores([mine], theirs).values()
    assert by_metric["mae"].seeds == (2,) and by_metric["mae"].value == pytest.approx(0.2)
    # One pair takes the chance of training from both: squares 0.02 and 8, a degree of freedom each.
    assert by_metric["mae"].counts_training
    assert by_metric["mae"].high > 0.2 + np.sqrt(2) * np.sqrt(8.02 / 2)
    assert by_metric["acc7"].value == 0


def test_no_seed_in_common_compares_means() -> None:
    mine = made_scores({"mae": [[1.0] * 4, [1.2] * 4]}, rates=RATES, seeds=[1, 2])
    theirs = made_scores({"mae": [[2.0] * 4]}, rates=RATES, seeds=[None], title="imported")
    difference = compare_scores([mine], theirs)["LNLN"]["mae"]
    assert difference.value == pytest.approx(-0.9) and difference.seeds == () and difference.counts_training
    ridge = made_scores({"mae": [[2.0] * 4]}, rates=RATES, seeds=[None], title="ridge", is_trained=False)
    untrained = compare_scores([mine], ridge)["LNLN"]["mae"]
    assert untrained.value == pytest.approx(-0.9) and untrained.high < difference.high


def test_rates_that_are_asked_for() -> None:
    mine = made_scores({"mae": [[1.0, 2.0, 3.0, 4.0]]}, rates=RATES)
    theirs = made_scores({"mae": [[1.0, 1.0, 1.0, 1.0]]}, rates=RATES, title="text only")
    assert compare_scores([mine], theirs)["LNLN"]["mae"].value == pytest.approx(1.5)
    assert compare_scores([mine], theirs, HIGH_RATES)["LNLN"]["mae"].value == pytest.approx(2)
    assert compare_scores([mine], theirs, [0.3]) == {}
    assert [each.value for each in compare_by_rate([mine], theirs)["LNLN"]["mae"]] == pytest.approx([0, 1, 2, 3])
    assert mine.over(HIGH_RATES)["mae"].value == pytest.approx(3) and mine.over([0.3]) == {}


def test_a_reference_among_the_systems_is_left_out() -> None:
    mine, theirs = made_scores({"mae": [[1.0, 1, 1]]}), made_scores({"mae": [[2.0, 2, 2]]}, title="text only")
    assert list(compare_scores([theirs, mine], theirs)) == ["LNLN"]
    assert compare_scores([theirs], theirs) == {} == compare_by_rate([theirs], theirs)


def test_what_was_selected_on_test_says_nothing_of_the_chance_of_training() -> None:
    single = made_scores({"mae": [[1.0, 1, 1]]})
    theirs = made_scores({"mae": [[2.0, 2, 2]]}, title="text only")
    shipped = made_scores({"mae": [[0.0, 0, 0], [9.0, 9, 9]]}, title="as it ships", is_selected_on_test=True)
    difference = compare_scores([single, shipped], theirs)["LNLN"]["mae"]
    assert not difference.counts_training
    assert compare_scores([single, made_scores({"mae": [[0.0] * 3, [9.0] * 3]}, title="b")], theirs)["LNLN"][
        "mae"
    ].counts_training


@pytest.mark.parametrize("other", [{"basis": "another split"}, {"suite": "block"}])
def test_other_views_or_utterances_do_not_compare(other: dict[str, Any]) -> None:
    mine = made_scores({"mae": [[1.0, 1, 1]]})
    with pytest.raises(RefusedError, match=r"LNLN \(ten_rates, 40 labelled.* do not compare; evaluate both"):
        compare_scores([mine], made_scores({"mae": [[1.0, 1, 1]]}, title="text only", **other))


def test_against_constants() -> None:
    scores = made_scores({"mae": [[1.0, 1.2, 1.5], [1.0, 1.2, 1.5]], "acc7": [[0.3, 0.2, 0.1], [0.3, 0.2, 0.1]]})
    made = compare_with_baselines(scores)
    assert set(made) == {"predict_mean", "predict_median", "one_class"}
    assert "corr" not in made["predict_mean"] and "mae" not in made["one_class"]
    assert made["predict_mean"]["mae"].value == pytest.approx(1.2333 - 1.4, abs=1e-4)
    assert made["predict_mean"]["mae"].word == "better" and made["one_class"]["acc7"].word == "no difference shown"
    high = compare_with_baselines(scores, rates=[0.9])
    assert high["predict_mean"]["mae"].word == "worse" and high["one_class"]["acc7"].word == "worse"
    assert compare_with_baselines(scores, rates=HIGH_RATES)["one_class"]["acc7"] == high["one_class"]["acc7"]
    single = made_scores({"mae": [[1.0, 1.2, 1.5]]})
    assert not compare_with_baselines(single)["predict_mean"]["mae"].counts_training
    assert compare_with_baselines(single, [made_scores({"mae": [[1.0] * 3, [1.2] * 3]}, title="b")])["predict_mean"][
        "mae"
    ].counts_training


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    first_seed=st.integers(1, 4),
    chance=st.integers(0, 2**16),
    metric=st.sampled_from(["mae", "acc7"]),
)
def test_sides_may_be_exchanged(shapes: tuple[int, int], first_seed: int, chance: int, metric: str) -> None:
    random = np.random.default_rng(chance)
    points = [random.normal(1, 0.2, (num, 2, 3)) for num in shapes]
    mine, theirs = (
        made_scores(
            {metric: each},
            samples={metric: each.mean(axis=1)[:, None] + random.normal(0, 0.05, (len(each), 200, 3))},
            title=title,
            seeds=range(start, start + len(each)),
        )
        for each, title, start in zip(points, ("a", "b"), (1, first_seed), strict=True)
    )
    one, other = compare_scores([mine], theirs)["a"][metric], compare_scores([theirs], mine)["b"][metric]
    assert one.value == pytest.approx(-other.value) and one.seeds == other.seeds
    assert [one.low, one.high] == pytest.approx([-other.high, -other.low], abs=1e-9)


def test_of_evaluations_equals_pairs_by_hand(run_store: RunStore) -> None:
    store = run_store.store
    text_only = [
        finished_run(store, run_store.manifest, seed=seed, model={**TINY["model"], "name": "text_only"})
        for seed in (1, 2)
    ]
    systems = score_systems(store, [run_store.worse, run_store.better, *text_only], ["ten_rates"], mask_seeds=[0, 4])
    made = compare_systems(store, systems, systems[1], "ten_rates", [0.0, 0.9])
    mine, theirs = (score_suite(store, system, "ten_rates") for system in systems)
    expected = paired_difference(
        "mae",
        (1, 2),
        (mine.points["mae"] - theirs.points["mae"])[..., [0, 9]].mean(axis=(1, 2)),
        (mine.samples["mae"] - theirs.samples["mae"])[..., [0, 9]].mean(axis=2),
    )
    difference = made["LNLN"]["mae"]
    assert list(made) == ["LNLN"] and difference.seeds == (1, 2)
    ends = difference.value, difference.low, difference.high
    assert ends == pytest.approx((expected.value, expected.low, expected.high))
    assert set(made["LNLN"]) == set(systems[0].first.metrics()), "F1 too"


@pytest.mark.parametrize("num", [1, 29, 30])
def test_of_few_utterances_nothing_is_called_better(num: int) -> None:
    """Of one utterance every resample is the same, so that any difference would be shown."""
    mine = made_scores({"mae": [[1.0, 1, 1]]}, num_labelled=num)
    theirs = made_scores({"mae": [[2.0, 2, 2]]}, title="text only", num_labelled=num)
    word = "better" if num == 30 else "no difference shown"
    difference = compare_scores([mine], theirs)["LNLN"]["mae"]
    assert difference.value == -1 and difference.word == word
    assert {each.word for each in compare_by_rate([mine], theirs)["LNLN"]["mae"]} == {word}
    unpaired = made_scores({"mae": [[2.0, 2, 2]]}, title="imported", num_labelled=num, seeds=[None])
    assert compare_scores([mine], unpaired)["LNLN"]["mae"].word == word
    assert compare_with_baselines(mine)["predict_mean"]["mae"].word == word
    effective = effective_robustness(made_scores({"mae": [[1.0, 1, 1]]}, num_labelled=num), mine, "mae")
    assert effective is not None and effective.mean.word == "no difference shown"
    gained = made_scores({"mae": [[1.0, 0.9, 0.8]]}, num_labelled=num, title="a")
    effective = effective_robustness(gained, mine, "mae")
    assert effective is not None and effective.mean.word == word


def called_different(num: int, num_cases: int = 600) -> float:
    """How often equal systems of one training each are told apart by `num` utterances."""
    random, wrong = np.random.default_rng(num), 0
    counts = draw_counts(num, 400, 0) / num
    for _ in range(num_cases):
        errors = np.abs(random.normal(0, 1, (2, num)))
        points, drawn = errors.mean(axis=1), counts @ errors.T
        sides = [
            made_scores(
                {"mae": [[points[side]]]},
                rates=(0.0,),
                samples={"mae": drawn[None, :, side, None]},
                num_resamples=400,
                title="ab"[side],
                num_labelled=FEWEST_UTTERANCES,  # as if they were enough
            )
            for side in (0, 1)
        ]
        wrong += compare_scores(sides[:1], sides[1])["a"]["mae"].is_better is not None
    return wrong / num_cases


def test_with_the_fewest_utterances_an_interval_is_nearly_what_it_says() -> None:
    assert called_different(1) == 1 and 0.12 < called_different(5) < 0.24
    assert 0.07 < called_different(10) < 0.16
    assert 0.03 < called_different(FEWEST_UTTERANCES) < 0.09
