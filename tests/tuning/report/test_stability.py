"""Stability: every trial is in one bin, counts are of what can be said, intervals are Wilson's."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuning.report.drawn_study import SPACE, drawn_study
from tuning.record import TrialRecord
from tuning.report.stability import NUM_BINS, count_outcomes, stability, wilson
from tuning.space import Range, Space


@given(st.integers(0, 60), st.integers(0, 60))
def test_intervals_are_wilsons(one: int, other: int) -> None:
    bad, num = sorted((one, other))
    if num == 0:
        assert wilson(0, 0) == (0.0, 1.0)
        return
    low, high = wilson(bad, num)
    assert 0 <= low <= bad / num <= high <= 1 and low < high
    # Its ends are the shares from which what was seen lies 1.96 standard errors away.
    for end in (low, high):
        assert abs(bad / num - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / num), abs=1e-9)


@pytest.mark.parametrize("span", [Range(0.05, 3.0, zero=0.1), Range(0.05, 3.0), Range(0.0, 3.0, scale="linear")])
def test_every_trial_is_in_one_bin(span: Range) -> None:
    study = drawn_study(80, space=Space({"adversarial": span}))
    ends = [dataclasses.replace(study.trials[0], parameters={"adversarial": end}) for end in (span.low, span.high)]
    study = dataclasses.replace(study, trials=(*study.trials, *ends))
    rows = [row for row in stability(study) if row.outcome == "failed"]
    assert len(rows) == NUM_BINS + (span.zero > 0)
    assert sum(row.num_trials for row in rows) == 82
    assert rows[0].start == 0.0 and rows[-1].end == 1.0
    zeros = sum(trial.parameters["adversarial"] == 0 for trial in study.trials)
    if span.zero:
        assert rows[0].label == "0" and rows[0].num_trials == zeros > 0


def test_strong_weights_that_diverge_and_collapse_are_seen() -> None:
    study = drawn_study(100, collapse=lambda parameters: 0.95 if 0.5 < parameters["adversarial"] <= 1 else 0.5)
    trials = [
        dataclasses.replace(trial, state="failed", values={}, seeds=(), has_diverged=True)
        if trial.parameters["adversarial"] > 1
        else trial
        for trial in study.trials
    ]
    rows = stability(dataclasses.replace(study, trials=tuple(trials)))
    shares = {(row.label, row.outcome): row.share for row in rows}
    labels = list(dict.fromkeys(row.label for row in rows))
    assert shares[labels[0], "diverged"] == shares[labels[1], "collapsed"] == 0
    # The fourth bin begins below 1, the last above it.
    collapsed, diverged = shares[labels[3], "collapsed"], shares[labels[3], "diverged"]
    assert collapsed is not None and diverged is not None and collapsed > 0.5 > diverged
    assert shares[labels[-1], "diverged"] == shares[labels[-1], "failed"] == 1
    assert shares[labels[-1], "collapsed"] is None, "who diverged did not reach the end of an epoch"


def trial(state: str, collapse: float | None = None, diverged: bool = False) -> TrialRecord:
    made = drawn_study(1, collapse=lambda _: 0.0 if collapse is None else collapse).trials[0]
    seeds = made.seeds if collapse is not None else ()
    return dataclasses.replace(made, state=state, seeds=seeds, has_diverged=diverged)  # type: ignore[arg-type]


def test_counts_are_of_trials_that_it_can_be_said_of() -> None:
    trials = [
        trial("complete", 0.3),
        trial("complete", 0.91),
        trial("complete", 0.9),
        trial("pruned", 1.0),
        trial("failed"),
        trial("failed", diverged=True),
        trial("interrupted"),
        trial("running"),
        trial("complete", float("nan")),
    ]
    assert count_outcomes(trials, "collapsed") == (2, 4)
    assert count_outcomes(trials, "diverged") == (1, 7)
    assert count_outcomes(trials, "failed") == (2, 7)
    assert count_outcomes([], "failed") == (0, 0)


def test_parameters_that_do_not_vary_have_no_rows() -> None:
    assert {row.parameter for row in stability(drawn_study(5))} == {"adversarial"}
    both = Space({**SPACE.ranges, "reversal_strength": Range(0.1, 2.0)})
    assert {row.parameter for row in stability(drawn_study(5, space=both))} == {"adversarial", "reversal_strength"}
    neither = Space({"completeness": SPACE.ranges["completeness"]})
    assert stability(drawn_study(5, lambda _: 1.0, space=neither)) == []
    assert all(row.share is None and row.num_trials == 0 for row in stability(drawn_study(0)))
