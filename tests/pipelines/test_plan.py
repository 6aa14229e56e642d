"""Plans are data: counted, printed, pickled, and never two jobs of one name."""

from __future__ import annotations

import pickle

import pytest

from pipelines.plan import Job, Plan


def test_a_plan_is_counted_printed_and_pickled() -> None:
    plan = Plan("sort words", tuple(Job(f"list {i}", sorted, {"key": None}) for i in range(2)))
    assert len(plan) == 2
    assert str(plan) == "sort words: 2 jobs\n  list 0\n  list 1"
    assert str(Plan("rest", ())) == "rest: 0 jobs"
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_a_job_is_a_call() -> None:
    assert Job("count", dict, {"a": 1})() == {"a": 1}


def test_two_jobs_of_one_name_are_our_mistake() -> None:
    with pytest.raises(AssertionError, match="one name"):
        Plan("twice", (Job("a", dict), Job("a", list)))
