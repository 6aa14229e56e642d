"""Choosing: what is shown better is published, what is not is said to be noise; nothing is trained or scored twice."""

from __future__ import annotations

import dataclasses
import json
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from lnln.checkpoint import describe_file
from lnln.config import Config
from lnln.data.manifest import FeatureManifest
from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError
from lnln.evaluate.bootstrap import resampled_scores
from lnln.evaluate.paired import Difference, paired_difference
from lnln.evaluate.predictions import read_predictions
from lnln.evaluations import read_evaluation
from lnln.model_store import list_models, resolve
from lnln.train.session import ray_session
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_content
from tests.finished_run import TINY, finished_run, small_corpus
from tests.made_study import PAPER, complete, failed, interrupted, made_study, pruned
from tuning.choice import Choice, ScoredRun, Setting, candidates_of, load_choice, save_choice, verdict_of
from tuning.choose import choose, planned_runs
from tuning.record import Study, TrialRecord, save_study
from tuning.space import Range, Space, with_parameters

SEEDS = (5, 6, 7)
CONFIG = Config.from_dict(TINY)
# Of trials, by number: 0 is what is configured.
PARAMETERS = {0: PAPER, **{i: {**PAPER, "adversarial": i / 10} for i in range(1, 6)}}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    return Store(tmp_path / "store")


@pytest.fixture
def manifest(store: Store, tmp_path: Path) -> FeatureManifest:
    return small_corpus(store, tmp_path)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lnln.train.seeds.ray_session", lambda *_: pytest.fail("Ray was started"))


def stored_study(store: Store, manifest: FeatureManifest, *trials: TrialRecord, **more: Any) -> Study:
    """A study of `manifest` whose trials have PARAMETERS and lost 0.1 with each number, in the store."""
    made = trials or (complete(0, 1.0, parameters=PAPER), complete(1, 0.9, parameters=PARAMETERS[1]))
    study = made_study(
        *made,
        **{
            "corpus": manifest.corpus,
            "feature_id": manifest.feature_id,
            "config": CONFIG.to_dict(),
            "configured": PAPER,
            "study_id": "small-lnln-study",
            **more,
        },
    )
    save_study(store, study)
    return study


def trained(
    store: Store, manifest: FeatureManifest, parameters: Mapping[str, float], offsets: Sequence[float]
) -> list[str]:
    """A finished run for each of SEEDS, whose model's answers are moved by its offset."""
    loss = with_parameters(CONFIG, parameters).to_dict()["loss"]
    ids = []
    for seed, offset in zip(SEEDS, offsets, strict=False):
        # The model's weights are random by seed alone, so that settings differ by offset alone.
        run_id = finished_run(store, manifest, seed=seed, score=1.0 + abs(offset), loss=loss)
        _move(store, f"runs/{run_id}", offset)
        ids.append(run_id)
    return ids


def _move(store: Store, folder: str, offset: float) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model.safetensors"
        store.download(f"{folder}/model/model.safetensors", path)
        weights = load_file(path)
        weights["sentiment_head.bias"] += offset
        save_file(weights, path)
        store.upload(path, f"{folder}/model/model.safetensors")
        result = store.read_json(f"{folder}/result.json")
        result["files"]["model.safetensors"] = describe_file(path)
    store.write_json(f"{folder}/result.json", result)


def content_of(store: Store) -> dict[str, tuple[int, bytes]]:
    """Every file, with when it was written."""
    return {
        str(path.relative_to(store.url)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in Path(store.url).rglob("*")
        if path.is_file()
    }


def test_what_is_shown_better_is_published_and_said_again_without_work(
    store: Store, manifest: FeatureManifest, no_ray: None
) -> None:
    study = stored_study(store, manifest)
    configured = trained(store, manifest, PAPER, [3.0, 3.1, 2.9])
    candidate = trained(store, manifest, PARAMETERS[1], [0.2, 0.1, 0.3])
    lines: list[str] = []
    choice = choose(store, study.study_id, seeds=(7, 5, 6), publish_as="small-best", progress=lines.append)

    assert choice.outcome == "better" and choice.chosen == 1 and choice.seeds == SEEDS
    assert choice.verdict.startswith("trial 1 is better than the configured parameters: mean validation MAE ")
    assert "on test, which decided nothing, −" in choice.verdict and "3 seeds" in choice.verdict
    assert choice.seeds_to_show is None and "every other time" not in choice.verdict
    assert [run.run_id for run in choice.configured.runs] == configured
    assert [run.run_id for run in choice.candidates[0].runs] == candidate
    # The run with the best validation score, which is the second.
    published = resolve(store, "small-best")
    assert choice.published == "small-best@v1" and published.run_id == candidate[1]
    assert (published.study_id, published.trial) == (study.study_id, choice.chosen)
    assert lines[0] == "configured: scoring seed 5" and lines[-1] == "trial 1: scoring seed 7" and len(lines) == 6

    before = content_of(store)
    lines.clear()
    assert choose(store, study.study_id, seeds=SEEDS, publish_as="small-best", progress=lines.append) == choice
    assert load_choice(store, study.study_id) == choice
    assert content_of(store) == before and lines == []


def test_the_record_holds_what_can_be_computed_again(store: Store, manifest: FeatureManifest, no_ray: None) -> None:
    study = stored_study(store, manifest)
    trained(store, manifest, PAPER, [3.0, 3.1, 2.9])
    trained(store, manifest, PARAMETERS[1], [0.2, 0.1, 0.3])
    choose(store, study.study_id, seeds=SEEDS, progress=None)
    record = store.read_json(f"studies/{study.study_id}/choice.json")
    assert (record["num_trials"], record["metrics"], record["published"]) == (2, ["mae", "corr", "acc7"], None)
    assert record["num_utterances"] == {"valid": 12, "test": 14}
    (candidate,) = record["candidates"]
    assert candidate["trial"] == 1 and candidate["parameters"] == PARAMETERS[1]
    for split in ("valid", "test"):
        values: dict[str, list[Any]] = {"mine": [], "theirs": []}
        for side, setting in (("mine", candidate), ("theirs", record["configured"])):
            for run in setting["runs"]:
                found = read_evaluation(store, f"runs/{run['run_id']}/evaluations", run["evaluation_ids"][split])
                assert found is not None and found.split == split and found.rates == (0.0, 0.5, 0.9)
                assert run["scores"][split] == {name: found.mean[name] for name in ("mae", "corr", "acc7")}
                said = read_predictions(store, found).labelled()
                samples = resampled_scores(said.sentiment, said.label, (-3, 3))
                values[side].append((found.mean, {name: drawn.mean(axis=1) for name, drawn in samples.items()}))
        for metric in ("mae", "corr", "acc7"):
            pairs = list(zip(values["mine"], values["theirs"], strict=True))
            points = [mine[0][metric] - theirs[0][metric] for mine, theirs in pairs]
            samples_of = np.array([mine[1][metric] - theirs[1][metric] for mine, theirs in pairs])
            expected = paired_difference(metric, SEEDS, points, samples_of)
            stated = candidate["differences"][split][metric]
            assert Difference(**{**stated, "seeds": tuple(stated["seeds"])}) == expected


def test_a_gain_within_noise_promotes_nothing(store: Store, manifest: FeatureManifest, no_ray: None) -> None:
    study = stored_study(store, manifest)
    trained(store, manifest, PAPER, [3.0, 3.0, 3.0])
    trained(store, manifest, PARAMETERS[1], [2.0, 3.4, 1.8])
    choice = choose(store, study.study_id, seeds=SEEDS, publish_as="small-best", progress=None)
    assert choice.outcome == "within noise" and choice.chosen == 1 and choice.published is None
    assert list_models(store) == [] and not Path(store.url, "models").exists()
    assert choice.verdict.startswith("no gain is shown: trial 1 differs from the configured parameters within noise")
    judged = choice.candidates[0].judged()
    assert judged is not None and judged.low < 0 < judged.high and judged.value < 0
    assert choice.seeds_to_show and choice.seeds_to_show > 3
    assert choice.verdict.endswith(f"about {choice.seeds_to_show} seeds would show it every other time")

    # Of two seeds nobody can say how many it would take.
    two = choose(store, study.study_id, seeds=SEEDS[:2], progress=None)
    assert two.outcome == "within noise" and two.seeds_to_show is None and "every other time" not in two.verdict
    assert [entry["seeds"] for entry in two.earlier] == [[5, 6, 7]] and two.earlier[0]["verdict"] == choice.verdict
    again = choose(store, study.study_id, seeds=SEEDS, progress=None)
    assert [entry["seeds"] for entry in again.earlier] == [[5, 6]] and again.verdict == choice.verdict


def test_a_loss_is_called_one(store: Store, manifest: FeatureManifest, no_ray: None) -> None:
    study = stored_study(store, manifest)
    trained(store, manifest, PAPER, [0.2, 0.1, 0.3])
    trained(store, manifest, PARAMETERS[1], [3.0, 3.1, 2.9])
    choice = choose(store, study.study_id, seeds=SEEDS, publish_as="small-best", progress=None)
    assert choice.outcome == "worse" and choice.published is None and not Path(store.url, "models").exists()
    assert choice.verdict.startswith("trial 1 is worse than the configured parameters")


def test_validation_decides_and_test_does_not(store: Store, tmp_path: Path, no_ray: None) -> None:
    """Labels of validation and test lie on different sides, so what gains on one loses on the other."""
    content = mmsa_content()
    for split, sign in (("valid", 1), ("test", -1)):
        labels = content[split]["regression_labels"]
        content[split]["regression_labels"] = (sign * np.maximum(np.abs(labels), 1)).astype(np.float32)
    path = tmp_path / "sided.pkl"
    path.write_bytes(pickle.dumps(content))
    manifest = import_corpus(store, path, "sided")
    study = stored_study(store, manifest)
    trained(store, manifest, PAPER, [-1.0, -1.0, -1.0])
    trained(store, manifest, PARAMETERS[1], [1.0, 1.0, 1.1])
    choice = choose(store, study.study_id, seeds=SEEDS, publish_as="sided", progress=None)
    differences = choice.candidates[0].differences
    assert differences is not None
    assert (differences["valid"]["mae"].word, differences["test"]["mae"].word) == ("better", "worse")
    assert choice.outcome == "better" and choice.published == "sided@v1"
    assert "on test, which decided nothing, +" in choice.verdict


def test_several_candidates_widen_the_intervals_and_one_that_is_shown_goes_before_a_better_mean(
    store: Store, manifest: FeatureManifest, no_ray: None
) -> None:
    trials = [complete(i, 1.0 - i / 100, parameters=PARAMETERS[i]) for i in range(4)]
    study = stored_study(store, manifest, *trials)
    trained(store, manifest, PAPER, [6.0, 6.0, 6.0])
    trained(store, manifest, PARAMETERS[1], [3.5, 3.5, 3.5])
    trained(store, manifest, PARAMETERS[2], [6.2, 6.1, 6.3])
    trained(store, manifest, PARAMETERS[3], [0.0, 0.0, 5.9])
    alone = choose(store, study.study_id, seeds=SEEDS, progress=None)
    assert alone.chosen == 3 and alone.outcome == "within noise"
    lines: list[str] = []
    choice = choose(store, study.study_id, seeds=SEEDS, num_candidates=3, progress=lines.append)
    assert [each.trial for each in choice.candidates] == [3, 2, 1]
    judged = {each.trial: each.judged() for each in choice.candidates}
    first, single = judged[3], alone.candidates[0].judged()
    assert first is not None and single is not None and judged[1] is not None
    assert first.value < judged[1].value and first.word == "no difference shown", "better on average, but not shown"
    assert first.low < single.low < single.high < first.high
    assert choice.chosen == 1 and choice.outcome == "better"
    assert "the best of 3 candidates" in choice.verdict and "98.3% interval" in choice.verdict
    assert "scoring seed 5" in lines[0] and len(choice.rows()) == 4 and len(choice.difference_rows()) == 9


def test_it_may_be_published_later_under_any_name(store: Store, manifest: FeatureManifest, no_ray: None) -> None:
    study = stored_study(store, manifest)
    trained(store, manifest, PAPER, [3.0, 3.1, 2.9])
    trained(store, manifest, PARAMETERS[1], [0.2, 0.1, 0.3])
    first = choose(store, study.study_id, seeds=SEEDS, progress=None)
    lines: list[str] = []
    second = choose(store, study.study_id, seeds=SEEDS, publish_as="later", progress=lines.append)
    assert second == dataclasses.replace(first, published="later@v1") and lines == []
    assert load_choice(store, study.study_id) == second
    # As if it had been killed between the two.
    save_choice(store, first)
    assert choose(store, study.study_id, seeds=SEEDS, publish_as="later", progress=None) == second


def test_a_study_that_went_on_is_chosen_from_anew(store: Store, manifest: FeatureManifest, no_ray: None) -> None:
    study = stored_study(store, manifest)
    trained(store, manifest, PAPER, [3.0, 3.1, 2.9])
    trained(store, manifest, PARAMETERS[1], [0.2, 0.1, 0.3])
    first = choose(store, study.study_id, seeds=SEEDS, publish_as="small-best", progress=None)
    save_study(store, dataclasses.replace(study, trials=(*study.trials, complete(2, 0.5, parameters=PARAMETERS[2]))))
    trained(store, manifest, PARAMETERS[2], [0.2, 0.1, 0.3])
    lines: list[str] = []
    second = choose(store, study.study_id, seeds=SEEDS, progress=lines.append)
    assert second.chosen == 2 and second.num_trials == 3 and second.published is None
    assert lines == [f"{title}: scoring seed {seed}" for title in ("configured", "trial 2") for seed in SEEDS]
    assert second.earlier == ({"seeds": [5, 6, 7], "trials": [1], "verdict": first.verdict},)


def test_a_record_that_is_damaged_is_refused_and_made_anew(
    store: Store, manifest: FeatureManifest, no_ray: None
) -> None:
    study = stored_study(store, manifest)
    trained(store, manifest, PAPER, [3.0, 3.1, 2.9])
    trained(store, manifest, PARAMETERS[1], [0.2, 0.1, 0.3])
    assert load_choice(store, study.study_id) is None
    choice = choose(store, study.study_id, seeds=SEEDS, progress=None)
    path = f"studies/{study.study_id}/choice.json"
    whole = store.read(path)
    values = json.loads(whole)
    damaged = [whole[:100], b"[]", b"{}", b"null", encode_json({**values, "candidates": [{}]})]
    damaged += [
        encode_json({key: value for key, value in values.items() if key != name}) for name in ("seeds", "corpus")
    ]
    for data in damaged:
        store.write(path, data)
        with pytest.raises(RefusedError, match=r"choice\.json"):
            load_choice(store, study.study_id)
        lines: list[str] = []
        assert choose(store, study.study_id, seeds=SEEDS, progress=lines.append) == choice
        assert lines[0].endswith("choosing anew") and store.read(path) == whole


@pytest.mark.parametrize(
    ("seeds", "options", "said"),
    [
        ((5,), {}, "two different seeds from 0 on, or more, got 5;"),
        ((), {}, "got none"),
        ((5, 5, 6), {}, "got 5, 5, 6"),
        ((-1, 5), {}, "got -1, 5"),
        ((5, 1111), {}, "found its parameters with seed 1111, .* such as --seeds 2112,2113$"),
        ((2**63, 5), {}, "train.seed"),
        ((5, 6), {"num_candidates": 0}, "1 or more, got 0"),
        ((5, 6), {"publish_as": "Not A Name"}, "a model name is"),
        ((5, 6), {"num_parallel": 0}, "1 or more, got 0"),
        ((5, 6), {"num_workers": 0}, "1 or more, got 0"),
    ],
)
def test_refusals_come_before_any_work(
    store: Store, manifest: FeatureManifest, no_ray: None, seeds: tuple[int, ...], options: dict[str, Any], said: str
) -> None:
    trials = (complete(0, 1.0, 1.1, parameters=PAPER), complete(1, 0.9, 0.8, parameters=PARAMETERS[1]))
    study = stored_study(store, manifest, *trials, seeds=(1111, 1112))
    with pytest.raises(RefusedError, match=said):
        choose(store, study.study_id, seeds=seeds, progress=None, **options)
    assert not Path(store.url, "runs").exists()


def test_a_study_without_another_trial_or_of_other_features_is_refused(
    store: Store, manifest: FeatureManifest, no_ray: None
) -> None:
    with pytest.raises(RefusedError, match="no study 'absent'"):
        choose(store, "absent", seeds=SEEDS)
    alone = stored_study(store, manifest, complete(0, 1.0, parameters=PAPER), pruned(1, 0.5), failed(2), interrupted(3))
    with pytest.raises(RefusedError, match="no complete trial beside the configured parameters"):
        choose(store, alone.study_id, seeds=SEEDS)
    other = stored_study(store, manifest, feature_id="0" * 12)
    with pytest.raises(RefusedError, match=f"of features 000000000000, and corpus small now has {manifest.feature_id}"):
        choose(store, other.study_id, seeds=SEEDS)


def test_candidates_are_the_best_with_parameters_of_their_own() -> None:
    study = made_study(
        complete(0, 0.1, parameters=PAPER),
        complete(1, 0.9, parameters=PARAMETERS[1]),
        complete(2, 0.7, parameters=PARAMETERS[2]),
        complete(3, 0.6, parameters=PARAMETERS[2]),
        pruned(4, 0.2),
        complete(5, 0.8, parameters=PARAMETERS[3]),
    )
    assert [trial.number for trial in candidates_of(study, 9)] == [3, 5, 1]
    assert [trial.number for trial in candidates_of(study, 2)] == [3, 5]
    maximised = dataclasses.replace(study, directions={"mae": "maximize"})
    assert [trial.number for trial in candidates_of(maximised, 1)] == [1]


def test_the_runs_are_those_of_the_config_but_for_parameters_and_seed(store: Store, manifest: FeatureManifest) -> None:
    study = stored_study(store, manifest)
    planned = planned_runs(study, manifest, candidates_of(study, 1), SEEDS)
    assert list(planned) == [(None, 5), (None, 6), (None, 7), (1, 5), (1, 6), (1, 7)]
    assert [planned[None, seed] for seed in SEEDS] == [finished_run(store, manifest, seed=seed) for seed in SEEDS]
    assert len(set(planned.values())) == 6


def made_setting(trial: int | None, *values: float, against: Sequence[float] = (), num_utterances: int = 30) -> Setting:
    runs = tuple(
        ScoredRun(
            seed,
            f"run-{trial}-{seed}",
            2,
            value,
            {"valid": "v", "test": "t"},
            {split: {"mae": value} for split in ("valid", "test")},
        )
        for seed, value in enumerate(values)
    )
    differences = None
    if against:
        points = np.subtract(values, against)
        made = paired_difference("mae", range(len(points)), points, np.repeat(points[:, None], num_utterances, axis=1))
        differences = {"valid": {"mae": made}, "test": {"mae": made}}
    return Setting(trial, {"adversarial": 0.5, "completeness": 0.1}, runs, differences)


def test_verdicts_say_how_many_seeds_only_where_that_can_be_said() -> None:
    configured = made_setting(None, 1.0, 1.0, 1.0)
    noisy = made_setting(3, 0.9, 1.05, 0.8, against=(1.0, 1.0, 1.0))
    for num, said in (
        (12, "about 12 seeds would show it every other time"),
        (0, "would take more utterances, or far more seeds"),
    ):
        assert verdict_of(configured, [noisy], noisy, num).endswith(said)
    assert verdict_of(configured, [noisy], noisy, None).endswith(")")
    diverged = dataclasses.replace(made_setting(4, 0.9), reason="seed 6 failed: the loss is not finite")
    assert verdict_of(configured, [diverged], None, None) == (
        "no gain is shown: trial 4 diverged with fresh seeds, which the configured parameters did not"
    )


def test_rows_have_spreads_and_parameters_in_the_order_of_tables() -> None:
    diverged = dataclasses.replace(made_setting(4, 0.9), reason="seed 6 failed: the loss is not finite")
    choice = Choice(
        "s", "small", "f", (0, 1), 5, ("mae",), {"valid": 12, "test": 14}, made_setting(None, 1.0, 1.2),
        (made_setting(2, 0.9, 0.9, against=(1.0, 1.2)), diverged), 2, "within noise", None, "so it is", "0.1.0",
    )  # fmt: skip
    first, second, third = choice.rows()
    assert list(first) == ["setting", "completeness", "adversarial", "validation MAE", "test MAE"]
    assert list(first.values()) == ["configured", "0.1", "0.5", "1.100 ± 0.141", "1.100 ± 0.141"]
    assert second["setting"] == "trial 2" and second["validation MAE"] == "0.900 ± 0.000"
    assert third["validation MAE"] == "diverged" == third["test MAE"]
    (row,) = choice.difference_rows()
    assert row["setting"] == "trial 2" and row["difference in"] == "MAE" and row["test"].startswith("−0.200 (")
    assert Choice.from_dict(json.loads(encode_json(choice.to_dict()))) == choice


@pytest.mark.parametrize("num_lines", [1, 3, 6])
def test_interrupted_it_continues(store: Store, manifest: FeatureManifest, no_ray: None, num_lines: int) -> None:
    study = stored_study(store, manifest)
    trained(store, manifest, PAPER, [3.0, 3.1, 2.9])
    trained(store, manifest, PARAMETERS[1], [0.2, 0.1, 0.3])
    lines: list[str] = []

    def interrupt(text: str) -> None:
        lines.append(text)
        if len(lines) == num_lines:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose(store, study.study_id, seeds=SEEDS, publish_as="small-best", progress=interrupt)
    assert load_choice(store, study.study_id) is None and list_models(store) == []
    scored = {path: written for path, (written, _) in content_of(store).items() if "/evaluations/" in path}
    assert len(scored) == 4 * (num_lines - 1), "a record and predictions, of each run and split"
    choice = choose(store, study.study_id, seeds=SEEDS, publish_as="small-best", progress=None)
    assert choice.outcome == "better" and choice.published == "small-best@v1"
    after = {path: written for path, (written, _) in content_of(store).items()}
    assert scored.items() <= after.items(), "what was scored is not scored again"


# Trials 1 and 2: one that trains, and one whose numbers become infinite.
LEARNING = {0: {"learning_rate": 1e-3}, 1: {"learning_rate": 2e-3}, 2: {"learning_rate": 1e30}}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_missing_is_trained_and_a_candidate_that_diverges_is_out(
    store: Store, manifest: FeatureManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configured parameters are trained already, as is one seed of trial 1."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train = {**CONFIG.to_dict()["train"], "epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    config = Config.from_dict({**TINY, "train": train})
    trials = [complete(i, 1.0 - i / 10, parameters=LEARNING[i]) for i in range(3)]
    stored_study(
        store,
        manifest,
        *(dataclasses.replace(trial, is_configured=trial.number == 0) for trial in trials),
        config=config.to_dict(),
        configured=LEARNING[0],
        space=Space({"learning_rate": Range(1e-4, 1e30)}),
    )
    for number, seed in ((0, 5), (0, 6), (1, 6)):
        finished_run(store, manifest, seed=seed, train={**train, **LEARNING[number], "seed": seed})
    ended = {path: written for path, (written, _) in content_of(store).items() if path.endswith("result.json")}
    lines: list[str] = []
    with ray_session(2):
        choice = choose(store, "small-lnln-study", seeds=[5, 6], num_candidates=2, progress=lines.append)
    after = {path: written for path, (written, _) in content_of(store).items() if path.endswith("result.json")}
    assert len(ended) == 3 and len(after) == 4 and ended.items() <= after.items()
    assert not [line for line in lines if line.startswith("configured: seed")]
    assert not [line for line in lines if line.startswith("trial 1: seed 6")]
    assert [line for line in lines if line.startswith("trial 1: seed 5: epoch 1/1")]
    first, second = choice.candidates
    assert (first.trial, second.trial, choice.chosen) == (2, 1, 1)
    assert first.reason and "not finite" in first.reason and first.differences is None and first.runs == ()
    assert second.differences is not None and "the best of 2 candidates" in choice.verdict
    assert choice.rows()[1]["validation MAE"] == "diverged"
    assert load_choice(store, "small-lnln-study") == choice
    # Done: now without Ray.
    monkeypatch.setattr("lnln.train.seeds.ray_session", lambda *_: pytest.fail("Ray was started"))
    assert choose(store, "small-lnln-study", seeds=[6, 5], num_candidates=2, progress=None) == choice
