"""What a completeness score is worth, from scores whose worth is known."""

from __future__ import annotations

import dataclasses
import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from lnln.corruption import ViewSpec, make_masks
from lnln.data.shards import read_split
from lnln.evaluate.calibration import Calibration, calibration
from lnln.evaluate.systems import System, score_systems
from tests.finished_run import finished_run
from tests.lnln.conftest import RunStore


def evaluated(run_store: RunStore, suite: str = "ten_rates", seeds: tuple[int, ...] = (0, 1)) -> System:
    (system,) = score_systems(run_store.store, [run_store.worse, run_store.better], [suite], mask_seeds=seeds)
    return system


def with_completeness(run_store: RunStore, system: System, values: NDArray[np.float64], suite: str) -> Calibration:
    """The calibration of `system`, had it said `values` (V, N), in the order of its views."""
    changed = []
    for number, evaluation in enumerate(system.evaluations[suite]):
        table = pq.read_table(io.BytesIO(run_store.store.read(evaluation.predictions["path"])))
        column = table.column_names.index("completeness")
        table = table.set_column(column, "completeness", pa.array(values.reshape(-1).astype(np.float32)))
        sink = io.BytesIO()
        pq.write_table(table, sink)
        path, data = f"changed/{number}.parquet", sink.getvalue()
        run_store.store.write(path, data)
        entry = {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data)}
        changed.append(dataclasses.replace(evaluation, predictions=entry))
    made = calibration(run_store.store, dataclasses.replace(system, evaluations={suite: tuple(changed)}), suite)
    assert made is not None
    return made


def kept_shares(run_store: RunStore, system: System) -> NDArray[np.float64]:
    """(V, N) share of the words that each view leaves."""
    utterances = read_split(run_store.store, run_store.manifest, "test")
    masks = [
        make_masks(
            ViewSpec.evaluation(view.missing_rate, view.mask_seed), utterances.utterance_id, utterances.lengths()
        )
        for view in system.first.views
    ]
    return np.stack([1.0 - each.realised_rates("text") for each in masks])


def stated(system: System) -> NDArray[np.float64]:
    rates = np.array([view.missing_rate for view in system.first.views])
    return np.repeat(1 - rates[:, None], system.first.num_utterances, axis=1)


def test_who_says_the_rate_has_no_gap(run_store: RunStore) -> None:
    system = evaluated(run_store)
    made = with_completeness(run_store, system, stated(system), "ten_rates")
    assert made.gap.value == pytest.approx(0, abs=1e-6) and made.correlation.value == pytest.approx(1, abs=1e-6)
    assert made.within is not None and made.within.value == 0, "it knows nothing of single utterances"
    assert [each.rate for each in made.bins] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for each in made.bins:
        assert each.mean == pytest.approx(1 - each.rate, abs=1e-6) and each.sd == pytest.approx(0, abs=1e-6)
        assert each.low == pytest.approx(each.high, abs=1e-6) and each.num == 2 * 2 * 14


def test_who_counts_the_words_knows_the_utterances_too(run_store: RunStore) -> None:
    system = evaluated(run_store)
    kept = kept_shares(run_store, system)
    made = with_completeness(run_store, system, kept, "ten_rates")
    assert made.within is not None and made.within.value == pytest.approx(1, abs=1e-5)
    assert made.within.sd_seeds == pytest.approx(0) and made.correlation.value < 0.99
    assert made.gap.value == pytest.approx(np.abs(kept - stated(system)).mean(), abs=1e-6)
    assert made.gap.low < made.gap.value < made.gap.high


def test_who_says_one_thing_knows_nothing(run_store: RunStore) -> None:
    system = evaluated(run_store)
    made = with_completeness(run_store, system, np.full((20, 14), 0.3), "ten_rates")
    assert made.correlation.value == 0 and made.within is not None and made.within.value == 0
    assert made.gap.value == pytest.approx(np.abs(0.3 - np.arange(0.1, 1.05, 0.1)).mean(), abs=1e-6)


def test_of_a_model(run_store: RunStore) -> None:
    system = evaluated(run_store)
    made = calibration(run_store.store, system)
    assert made is not None
    for place, each in enumerate(made.bins):
        means = [e.views[v].mean_completeness for e in system.evaluations["ten_rates"] for v in (place, place + 10)]
        assert each.mean == pytest.approx(np.mean([mean for mean in means if mean is not None]), abs=1e-6)
        assert 0 <= each.low <= each.mean <= each.high <= 1
    assert made.gap.sd_seeds is not None and made.gap.sd_masks is not None
    assert -1 <= made.correlation.low <= made.correlation.value <= made.correlation.high <= 1


def test_without_estimates_there_is_nothing_to_say(run_store: RunStore) -> None:
    run_id = finished_run(run_store.store, run_store.manifest, model={"name": "text_only", "text_encoder": "tiny"})
    (system,) = score_systems(run_store.store, [run_id], ["ten_rates"], mask_seeds=[0])
    assert calibration(run_store.store, system) is None


def test_bins_are_of_the_rate_of_text(run_store: RunStore) -> None:
    made = calibration(run_store.store, evaluated(run_store, "absent"), "absent")
    assert made is not None and [each.rate for each in made.bins] == [0.0, 1.0]
    assert [each.num for each in made.bins] == [3 * 2 * 14] * 2
    assert made.within is None, "at rates of 0 and 1 all utterances keep the same share"
    grid = calibration(run_store.store, evaluated(run_store, "grid", (0,)), "grid")
    assert grid is not None and [each.num for each in grid.bins] == [9 * 2 * 14] * 3 and grid.within is not None
