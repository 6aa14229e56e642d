"""From a study's best trial to a model that may be promoted: trained with fresh seeds, beside what is configured.

    choice = choose(store, study_id, seeds=[2111, 2112, 2113], publish_as="mosi-lnln")
    print(choice.verdict)

The best of many trials is partly the luckiest, so its score says too much. Here its parameters and the configured ones
are trained anew, for `train.epochs`, with seeds that the study did not use; both are scored on validation and test at
all missing rates, and compared by `lnln.evaluate.paired`. Validation decides, test is reported. Published is only what
was shown to be better. Whatever is trained and scored stays, so the same call continues, and at the end does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lnln
from lnln.config import Config
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate, read_predictions
from lnln.evaluate.bootstrap import resampled_scores
from lnln.evaluate.paired import Difference, paired_difference, seeds_to_show, share_for
from lnln.evaluate.scores import BOOTSTRAP_SEED, NUM_RESAMPLES
from lnln.evaluations import Evaluation
from lnln.metrics import accuracy_names
from lnln.model_store import Origin, publish
from lnln.model_store.catalog import check_name
from lnln.progress import line
from lnln.runs import Run, is_finished, run_id_for
from lnln.train.seeds import SeedsFailedError, train_seeds, with_seed
from tuning.choice import (
    JUDGING_METRIC,
    JUDGING_SPLIT,
    SPLIT_TITLES,
    Choice,
    Outcome,
    ScoredRun,
    ScoredSplit,
    Setting,
    candidates_of,
    load_choice,
    save_choice,
    verdict_of,
)
from tuning.record import Study, TrialRecord, load_study
from tuning.space import with_parameters

__all__ = ["Choice", "choose", "load_choice", "planned_runs"]

Progress = Callable[[str], None]
Values = NDArray[np.float64]
# By split and metric, (R,): the mean over the missing rates on each resample of the utterances.
Samples = Mapping[ScoredSplit, Mapping[str, Values]]

# What a training says that diverged (`DivergedError` of lnln/train/finite.py), whatever wrapped it.
_DIVERGED = re.compile(r"\b(?:is|are) not finite\b")


def choose(
    store: Store,
    study_id: str,
    *,
    seeds: Sequence[int],
    num_candidates: int = 1,
    num_workers: int | tuple[int, int] = 1,
    gpus_per_worker: float = 1.0,
    num_parallel: int | None = None,
    publish_as: str | None = None,
    progress: Progress | None = line,
) -> Choice:
    """Train and score the study's `num_candidates` best trials and the configured parameters with each of `seeds`.

    Candidates are the best by the study's first objective, the configured trial not among them. With several, the
    intervals allow for picking one of them. publish_as: name in the model store under which the chosen candidate's run
    with the best validation score is published, if it was shown to be better. The others: as of `train_seeds`, of each
    setting in turn. A candidate that diverges is out; any other failure is raised once all else was trained.

    RefusedError at once for fewer than two seeds or such as the study used, for an unknown study or one without a trial
    to compare, where the corpus has other features than the study's, and for a name that cannot be one.
    """
    if publish_as is not None:
        check_name(publish_as)
    study = load_study(store, study_id)
    _check_seeds(study, seeds)
    seeds = sorted(seeds)
    candidates = candidates_of(study, num_candidates)
    manifest = _read_features(store, study)
    earlier = _earlier(store, study_id, progress)
    if earlier is not None and _answers(store, earlier, planned_runs(study, manifest, candidates, seeds)):
        choice = earlier
    else:
        train = partial(
            train_seeds,
            store,
            study.corpus,
            seeds=seeds,
            num_workers=num_workers,
            gpus_per_worker=gpus_per_worker,
            num_parallel=num_parallel,
        )
        trained = [_train(study, trial, train, progress) for trial in (None, *candidates)]
        _refuse_failures(trained)
        choice = _compare(store, study, manifest, trained, progress)
        choice = replace(choice, earlier=_history(earlier, choice))
        save_choice(store, choice)
    return _publish(store, choice, publish_as)


def planned_runs(
    study: Study, manifest: FeatureManifest, candidates: Sequence[TrialRecord], seeds: Sequence[int]
) -> dict[tuple[int | None, int], str]:
    """The ids of the runs that a choice is made from, by trial (None: what is configured) and seed."""
    return {
        (_number(trial), seed): run_id_for(with_seed(_config(study, trial), seed), study.corpus, manifest)
        for trial in (None, *candidates)
        for seed in seeds
    }


def _number(trial: TrialRecord | None) -> int | None:
    return None if trial is None else trial.number


def _parameters(study: Study, trial: TrialRecord | None) -> dict[str, float]:
    return dict(study.configured if trial is None else trial.parameters)


def _config(study: Study, trial: TrialRecord | None) -> Config:
    return with_parameters(study.trained_config(), _parameters(study, trial))


def _check_seeds(study: Study, seeds: Sequence[int]) -> None:
    given = ", ".join(map(str, seeds)) or "none"
    if len(seeds) < 2 or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise RefusedError(
            f"choosing takes two different seeds from 0 on, or more, got {given}; one says nothing of what another "
            "would have changed"
        )
    if used := [str(seed) for seed in seeds if seed in study.seeds]:
        free = max(study.seeds) + 1000
        proposed = ",".join(str(free + i) for i in range(len(seeds)))
        raise RefusedError(
            f"study {study.study_id} found its parameters with seed {', '.join(used)}, which cannot judge them too; "
            f"give fresh ones, such as --seeds {proposed}"
        )


def _read_features(store: Store, study: Study) -> FeatureManifest:
    manifest = read_features(store, study.corpus)
    if manifest.feature_id != study.feature_id:
        raise RefusedError(
            f"study {study.study_id} is of features {study.feature_id}, and corpus {study.corpus} now has "
            f"{manifest.feature_id}; `lnln tune {study.corpus}` begins a study of these"
        )
    return manifest


def _earlier(store: Store, study_id: str, progress: Progress | None) -> Choice | None:
    try:
        return load_choice(store, study_id)
    except RefusedError as error:
        if progress is not None:
            progress(f"{error}: choosing anew")
        return None


def _answers(store: Store, choice: Choice, planned: Mapping[tuple[int | None, int], str]) -> bool:
    """Whether `choice` is of the runs that are `planned`, but for those that diverged, and all of them are there."""
    settings = (choice.configured, *choice.candidates)
    runs = {(setting.trial, run.seed): run.run_id for setting in settings for run in setting.runs}
    return (
        {(setting.trial, seed) for setting in settings for seed in choice.seeds} == set(planned)
        and runs.items() <= planned.items()
        and all(is_finished(store, run_id) for run_id in runs.values())
    )


def _history(earlier: Choice | None, choice: Choice) -> tuple[dict[str, Any], ...]:
    """What was compared before `choice`."""
    if earlier is None:
        return ()
    entries = (*earlier.earlier, {**_question(earlier), "verdict": earlier.verdict})
    return tuple(entry for entry in entries if not _question(choice).items() <= entry.items())


def _question(choice: Choice) -> dict[str, Any]:
    return {"seeds": list(choice.seeds), "trials": [setting.trial for setting in choice.candidates]}


@dataclass(frozen=True)
class _Trained:
    """One setting, its runs, and why some seeds failed."""

    setting: Setting
    runs: Sequence[Run]
    failure: SeedsFailedError | None = None

    @property
    def is_out(self) -> bool:
        """Whether it is a candidate that diverged."""
        reasons = [] if self.failure is None else list(self.failure.reasons.values())
        return bool(reasons) and self.setting.trial is not None and all(map(_DIVERGED.search, reasons))


def _train(
    study: Study, trial: TrialRecord | None, train: Callable[..., list[Run]], progress: Progress | None
) -> _Trained:
    def say(text: str) -> None:
        assert progress is not None
        progress(f"{setting.title}: {text}")

    setting = Setting(_number(trial), _parameters(study, trial), ())
    try:
        runs = train(config=_config(study, trial), progress=None if progress is None else say)
    except SeedsFailedError as failure:
        return _Trained(replace(setting, reason=str(failure)), list(failure.runs.values()), failure)
    return _Trained(setting, runs)


def _refuse_failures(trained: Sequence[_Trained]) -> None:
    failed = [each for each in trained if each.failure is not None and not each.is_out]
    if failed:
        raise RefusedError(
            f"{'; '.join(f'{each.setting.title}: {each.failure}' for each in failed)}; all else is trained, and the "
            "same command continues"
        )


@dataclass(frozen=True)
class _Scored:
    """One setting scored. samples: of its runs, in their order. num_utterances: labelled ones by split."""

    setting: Setting
    samples: Sequence[Samples]
    num_utterances: dict[str, int]

    def pairs(self, reference: _Scored, split: ScoredSplit, metric: str) -> tuple[Values, Values]:
        """(K,) differences of the runs, and (K, R) of their samples."""
        points = np.subtract(self.setting.values(split, metric), reference.setting.values(split, metric))
        both = zip(self.samples, reference.samples, strict=True)
        return points, np.stack([mine[split][metric] - theirs[split][metric] for mine, theirs in both])


def _compare(
    store: Store, study: Study, manifest: FeatureManifest, trained: Sequence[_Trained], progress: Progress | None
) -> Choice:
    """The choice, not yet published. trained: what is configured, then the candidates."""
    metrics = ("mae", "corr", accuracy_names(manifest.label_range)[0])
    configured, *others = (_score(store, each, metrics, progress) for each in trained)
    share = share_for(len(others))
    candidates = []
    for each in others:
        candidates.append(replace(each.setting, differences=_differences(each, configured, metrics, share)))
    chosen = _pick(candidates)
    judged = None if chosen is None else chosen.judged()
    outcome: Outcome = "diverged" if judged is None else "within noise"
    num_to_show = None
    if judged is not None and judged.is_better is not None:
        outcome = "better" if judged.is_better else "worse"
    elif chosen is not None and judged is not None and judged.value < 0 and len(judged.seeds) > 2:
        pairs = others[candidates.index(chosen)].pairs(configured, JUDGING_SPLIT, JUDGING_METRIC)
        num_to_show = seeds_to_show(*pairs, share) or 0
    return Choice(
        study_id=study.study_id,
        corpus=study.corpus,
        feature_id=study.feature_id,
        seeds=tuple(run.seed for run in configured.setting.runs),
        num_trials=len(study.of_state("complete")),
        metrics=metrics,
        num_utterances=configured.num_utterances,
        configured=configured.setting,
        candidates=tuple(candidates),
        chosen=None if chosen is None else chosen.trial,
        outcome=outcome,
        seeds_to_show=num_to_show,
        verdict=verdict_of(configured.setting, candidates, chosen, num_to_show),
        code_version=lnln.__version__,
    )


def _score(store: Store, trained: _Trained, metrics: Sequence[str], progress: Progress | None) -> _Scored:
    runs, samples = [], []
    num_utterances: dict[str, int] = {}
    for run in trained.runs:
        if progress is not None:
            progress(f"{trained.setting.title}: scoring seed {run.config.train.seed}")
        by_split = {split: evaluate(store, run.run_id, split=split) for split in SPLIT_TITLES}
        runs.append(
            ScoredRun(
                seed=run.config.train.seed,
                run_id=run.run_id,
                best_epoch=run.best_epoch,
                score=run.score,
                evaluation_ids={split: each.evaluation_id for split, each in by_split.items()},
                scores={split: {name: each.mean[name] for name in metrics} for split, each in by_split.items()},
            )
        )
        samples.append({split: _samples(store, each, metrics) for split, each in by_split.items()})
        num_utterances |= {split: each.num_labelled for split, each in by_split.items()}
    return _Scored(replace(trained.setting, runs=tuple(runs)), samples, num_utterances)


def _samples(store: Store, evaluation: Evaluation, metrics: Sequence[str]) -> dict[str, Values]:
    """The resamples are the same ones for every run."""
    said = read_predictions(store, evaluation).labelled()
    drawn = resampled_scores(
        said.sentiment, said.label, evaluation.label_range, num_resamples=NUM_RESAMPLES, seed=BOOTSTRAP_SEED
    )
    return {metric: drawn[metric].mean(axis=1) for metric in metrics}


def _differences(
    scored: _Scored, configured: _Scored, metrics: Sequence[str], share: float
) -> dict[str, dict[str, Difference]] | None:
    """By split and metric; None for a setting that diverged."""
    if scored.setting.reason is not None:
        return None
    seeds = [run.seed for run in scored.setting.runs]
    assert seeds == [run.seed for run in configured.setting.runs]
    return {
        split: {
            metric: paired_difference(metric, seeds, *scored.pairs(configured, split, metric), share=share)
            for metric in metrics
        }
        for split in SPLIT_TITLES
    }


def _pick(candidates: Sequence[Setting]) -> Setting | None:
    """The best mean among those shown to be better, else among all; None where all diverged."""
    judged = [(setting, difference) for setting in candidates if (difference := setting.judged()) is not None]
    shown = [each for each in judged if each[1].is_better]
    return min(shown or judged, key=lambda each: each[1].value)[0] if judged else None


def _publish(store: Store, choice: Choice, name: str | None) -> Choice:
    """With the best run of what was shown to be better published as `name`, noted in the record."""
    if name is None or choice.outcome != "better" or choice.best_run is None:
        return choice
    origin = Origin(choice.study_id, choice.chosen)
    version = f"{name}@{publish(store, choice.best_run.run_id, name, origin=origin)}"
    if version != choice.published:
        choice = replace(choice, published=version)
        save_choice(store, choice)
    return choice
