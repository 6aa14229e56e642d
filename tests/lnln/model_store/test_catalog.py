"""Numbers, aliases and races of the model catalog."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.metrics import higher_is_better
from lnln.model_store.catalog import (
    BEST_ALIASES,
    PublishedModel,
    Version,
    add_version,
    check_name,
    list_models,
    parse_reference,
    read_model,
    resolve,
    set_alias,
)


def candidate(
    run: int,
    score: float | None = 1.0,
    name: str = "mosi-lnln",
    features: str = "f1",
    scores: Mapping[str, float] | None = None,
) -> Version:
    return Version(
        name=name,
        version="",
        folder=f"models/{name}/{run:064x}",
        manifest_sha256=f"{run:064x}",
        weights_sha256=f"{run:064x}",
        run_id=f"run-{run}",
        corpus="mosi",
        feature_id=features,
        synthetic=False,
        validation_view_ids=("a", "b"),
        selection_score=score,
        validation_scores=scores or {},
    )


def imported(number: int, features: str = "f1") -> Version:
    """A version that no run made."""
    unscored = candidate(number, None, features=features)
    return dataclasses.replace(unscored, run_id="", validation_view_ids=(), imported_sha256=f"{number:064x}")


def test_versions_count_up_and_the_same_run_keeps_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert [add_version(store, candidate(run)).version for run in (1, 2, 1, 3, 2)] == ["v1", "v2", "v1", "v3", "v2"]
    assert [model.name for model in list_models(store)] == ["mosi-lnln"]


def test_best_moves_only_to_a_lower_comparable_score(tmp_path: Path) -> None:
    store = Store(tmp_path)
    scores = [(1, 1.0, "f1"), (2, 1.2, "f1"), (3, 0.9, "f1"), (4, 0.1, "f2"), (5, 0.9, "f1"), (6, 0.8, "f1")]
    for run, score, features in scores:
        add_version(store, candidate(run, score, features=features))
    model = read_model(store, "mosi-lnln")
    assert model is not None and model.aliases == {"best": "v6"}
    assert [(move.before, move.after) for move in model.history] == [(None, "v1"), ("v1", "v3"), ("v3", "v6")]
    other_views = dataclasses.replace(candidate(7, 0.01), validation_view_ids=("a",))
    add_version(store, other_views)
    assert resolve(store, "mosi-lnln").version == "v6"


def test_each_metric_has_a_best_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add_version(store, candidate(1, 1.0, scores={"mae": 1.0, "corr": 0.5, "acc7": 0.40}))
    add_version(store, candidate(2, 0.9, scores={"mae": 0.9, "corr": 0.5, "acc7": 0.39}))
    add_version(store, candidate(3, 1.1, scores={"mae": 1.1, "corr": 0.6}))
    add_version(store, candidate(4, 0.1, features="f2", scores={"mae": 0.1, "corr": 0.9, "acc7": 0.9, "acc2_np": 0.8}))
    model = read_model(store, "mosi-lnln")
    assert model is not None
    assert model.aliases == {"best": "v2", "best-corr": "v3", "best-acc7": "v1", "best-acc2_np": "v4"}
    reasons = {(move.alias, move.after): move.reason for move in model.history}
    assert reasons["best", "v2"] == "mean validation MAE 0.9000 below 1.0000"
    assert reasons["best-corr", "v3"] == "mean validation Corr 0.6000 above 0.5000"
    assert reasons["best-corr", "v1"] == "first version"
    assert reasons["best-acc2_np", "v4"] == "first version with a mean validation Acc-2 np"
    assert resolve(store, "mosi-lnln@best-corr").version == "v3"
    assert resolve(store, "mosi-lnln@best-mae") == resolve(store, "mosi-lnln@best")


def test_what_was_imported_is_best_until_there_is_a_score(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert [add_version(store, imported(number)).version for number in (1, 2, 1)] == ["v1", "v2", "v1"]
    assert add_version(store, imported(1, features="f2")).version == "v3", "the same weights for other features"
    assert resolve(store, "mosi-lnln").version == "v1"
    add_version(store, candidate(7, 9.0, scores={"mae": 9.0, "corr": 0.1}))
    add_version(store, imported(8))
    model = read_model(store, "mosi-lnln")
    assert model is not None and model.aliases == {"best": "v4", "best-corr": "v4"}
    assert [move.reason for move in model.history] == [
        "first version, without a validation score",
        "first version with a mean validation MAE, 9.0000",
        "first version with a mean validation Corr",
    ]


METRICS = ("mae", "corr", "acc7")
SCORES = st.dictionaries(st.sampled_from(METRICS), st.sampled_from([0.0, 0.25, 0.5, 1.0]))


@given(st.lists(st.tuples(SCORES, st.sampled_from(["f1", "f2"])), min_size=1, max_size=8))
def test_an_alias_of_the_best_is_the_first_best_of_those_it_can_be_compared_with(
    entries: list[tuple[dict[str, float], str]],
) -> None:
    model = PublishedModel("mosi-lnln")
    for number, (scores, features) in enumerate(entries):
        model = model.with_version(candidate(number, scores.get("mae"), features=features, scores=scores))
    for metric in METRICS:
        best = model.find(BEST_ALIASES[metric])
        scored = [version for version in model.versions if version.score(metric) is not None]
        if not scored:
            assert (best is None) == (metric != "mae")
            continue
        assert best is not None and best.is_comparable(scored[0]), "the first that has a score says on what"
        like = [version for version in scored if version.is_comparable(scored[0])]
        sign = -1 if higher_is_better(metric) else 1
        assert best == min(like, key=lambda version: sign * (version.score(metric) or 0.0))
    replayed: dict[str, str] = {}
    for move in model.history:
        assert replayed.get(move.alias) == move.before != move.after
        replayed[move.alias] = move.after
    assert replayed == model.aliases
    assert PublishedModel.from_bytes(model.to_bytes(), "here") == model


def test_a_catalog_of_before_there_were_scores_of_all_metrics_is_read_and_added_to(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add_version(store, candidate(1, 1.0))
    path = "models/mosi-lnln/catalog.json"
    values = store.read_json(path)
    for key in ("validation_scores", "study_id", "trial", "imported_sha256", "published_at"):
        del values["versions"][0][key]
    store.write_json(path, values)
    add_version(store, candidate(2, 1.5, scores={"mae": 1.5, "corr": 0.5}))
    model = read_model(store, "mosi-lnln")
    assert model is not None and model.aliases == {"best": "v1", "best-corr": "v2"}
    assert [version.published_at != "" for version in model.versions] == [False, True]


def test_references(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for run, score in ((1, 1.0), (2, 2.0)):
        add_version(store, candidate(run, score))
    set_alias(store, "mosi-lnln", "production", "v2")
    set_alias(store, "mosi-lnln", "canary", "production")
    found = {
        selector: resolve(store, f"mosi-lnln{selector}").version for selector in ("", "@best", "@v2", "@2", "@canary")
    }
    assert found == {"": "v1", "@best": "v1", "@v2": "v2", "@2": "v2", "@canary": "v2"}
    for reference in ("mosi-lnln@v3", "mosi-lnln@0", "mosi-lnln@v", "other", "mosi-lnln@", "@best", "../x", "a@b@c"):
        with pytest.raises(RefusedError):
            resolve(store, reference)


def test_an_alias_that_stands_where_it_should_is_not_moved(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for run in (1, 2):
        add_version(store, candidate(run))
    assert [set_alias(store, "mosi-lnln", "production", version) for version in ("1", "v1", "best", "v2")] == [
        "v1",
        "v1",
        "v1",
        "v2",
    ]
    model = read_model(store, "mosi-lnln")
    assert model is not None
    moves = [(move.before, move.after) for move in model.history if move.alias == "production"]
    assert moves == [(None, "v1"), ("v1", "v2")]


@pytest.mark.parametrize(
    "alias", ["best", "best-mae", "best-acc7", "best-f1_nn", "v1", "v99", "7", "", "a b", "../x", "Ä"]
)
def test_aliases_that_cannot_be_set_by_hand(tmp_path: Path, alias: str) -> None:
    store = Store(tmp_path)
    add_version(store, candidate(1))
    with pytest.raises(RefusedError):
        set_alias(store, "mosi-lnln", alias, "v1")


@given(st.text(max_size=80))
def test_a_name_is_a_safe_path_part_or_refused(name: str) -> None:
    try:
        assert check_name(name) == name
        assert not set(name) & set("/\\.@: \0\n") and name
    except RefusedError:
        pass


def test_reference_needs_a_selector_after_the_sign() -> None:
    assert parse_reference("a@v2") == ("a", "v2")
    assert parse_reference("a") == ("a", "best")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"name": "x"}', b'{"versions": [{"bad": 1}]}', b"\xff"])
def test_damaged_catalog_is_refused_by_name_and_kept(tmp_path: Path, data: bytes) -> None:
    store = Store(tmp_path)
    store.write("models/mosi-lnln/catalog.json", data)
    for act in (lambda: read_model(store, "mosi-lnln"), lambda: add_version(store, candidate(1))):
        with pytest.raises(RefusedError, match=r"models/mosi-lnln/catalog\.json is not a model catalog"):
            act()
    assert store.read("models/mosi-lnln/catalog.json") == data


@pytest.mark.parametrize(
    ("data", "message"), [(b"{", r"models/catalog\.json must hold"), (b'["../../etc"]', r"got '\.\./\.\./etc'")]
)
def test_damaged_list_of_names_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    store = Store(tmp_path)
    store.write("models/catalog.json", data)
    with pytest.raises(RefusedError, match=message):
        list_models(store)


def test_catalog_survives_its_bytes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add_version(store, candidate(1))
    model = read_model(store, "mosi-lnln")
    assert model is not None and PublishedModel.from_bytes(model.to_bytes(), "here") == model


def _publish(url: str, run: int) -> str:
    return add_version(Store(url), candidate(run, score=2.0 - run / 100)).version


def check_race(url: str, versions: list[str], num_runs: int) -> None:
    """Every run has a number of its own, none is lost, and `best` is the lowest score."""
    assert len(set(versions)) == num_runs
    model = read_model(Store(url), "mosi-lnln")
    assert model is not None
    assert sorted(version.run_id for version in model.versions) == sorted(f"run-{run}" for run in range(num_runs))
    assert [version.version for version in model.versions] == [f"v{i + 1}" for i in range(num_runs)]
    best = model.find("best")
    assert best is not None and best.run_id == f"run-{num_runs - 1}"


def test_twenty_threads_lose_nothing(tmp_path: Path) -> None:
    barrier = threading.Barrier(20)

    def publish(run: int) -> str:
        barrier.wait()
        return _publish(str(tmp_path), run)

    with ThreadPoolExecutor(20) as pool:
        check_race(str(tmp_path), list(pool.map(publish, range(20))), 20)
