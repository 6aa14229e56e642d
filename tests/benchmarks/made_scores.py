"""A small plan, and scores that nobody trained: predictions made up here, scored as real ones are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from benchmarks.results.plan import Experiment, Plan, read_plan
from benchmarks.results.scores import NUM_RESAMPLES, UNIT, Scores, SplitScores
from lnln.evaluate.bootstrap import interval, resampled_scores
from lnln.metrics import baseline_answers, score, score_answers
from lnln.runs import trained_values

RANGE = (-3.0, 3.0)
CODE = "c0de"

PLAN = """
corpus: tiny
config: sample
set: [train.epochs=2]
rates: [0, 0.5]
validation_rates: [0, 0.5]
mask_seeds: [0, 1]
groups:
  main:
    kind: systems
    title: Main systems
    seeds: [1, 2]
    against: text_only
    experiments:
      clean: {title: clean LNLN}
      text_only: {title: text-only baseline, set: [model.name=text_only]}
  ablations:
    kind: changes
    title: What it needs
    seeds: [1]
    base: clean
    experiments:
      no_adversarial: {title: without the adversarial term, set: [loss.adversarial=0]}
      no_audio: {title: without audio, set: ['model.modalities=[text, vision]']}
"""


def small_plan(folder: Path, text: str = PLAN) -> Plan:
    path = folder / "plan.yaml"
    path.write_text(text)
    return read_plan(path)


def made_split(
    view_ids: list[str], rates: tuple[float, ...], mask_seeds: tuple[int, ...], error: float, seed: int, num: int = 60
) -> SplitScores:
    """Scores of predictions that miss labels, the same ones for every call, by noise of deviation `error`."""
    labels = np.random.default_rng(7).uniform(-3, 3, num).round(1).astype(np.float32)
    noise = np.random.default_rng(seed).normal(0, error, (len(view_ids), num))
    predictions = (labels + noise).astype(np.float32)
    views = [score(row, labels, RANGE) for row in predictions]
    mean = {metric: float(np.mean([view[metric] for view in views])) for metric in views[0]}
    per_rate = [views[i :: len(rates)] for i in range(len(rates))]
    drawn = resampled_scores(predictions, labels, RANGE, num_resamples=NUM_RESAMPLES, seed=3)
    answers = baseline_answers(labels, labels, RANGE)
    baselines = score_answers(answers, labels, RANGE)
    return SplitScores(
        rates=rates,
        mask_seeds=mask_seeds,
        view_ids=tuple(view_ids),
        num_labelled=num,
        mean=mean,
        by_rate=[{m: float(np.mean([view[m] for view in part])) for m in mean} for part in per_rate],
        rate_intervals={
            metric: [list(interval(samples[:, i :: len(rates)].mean(axis=1))) for i in range(len(rates))]
            for metric, samples in drawn.items()
        },
        views=views,
        baselines=baselines,
        margins={
            name: {metric: [0.1, 0.0, 0.2] for metric in scores if metric != "corr"}
            for name, scores in baselines.items()
        },
        samples={m: [int(x) for x in np.round(samples.mean(axis=1) / UNIT)] for m, samples in drawn.items()},
    )


def made_scores(plan: Plan, experiment: Experiment, seed: int, error: float = 1.0) -> Scores:
    chance = sum(map(ord, experiment.name)) + seed
    test = all_missing = None
    if experiment.read_test:
        test = made_split(plan.test_view_ids(), plan.rates, plan.mask_seeds, error, chance)
        all_missing = made_split(["all"], (1.0,), plan.mask_seeds[:1], 2 * error, chance)
        all_missing = dataclasses.replace(all_missing, samples={})
    return Scores(
        experiment=experiment.name,
        seed=seed,
        selection=experiment.selection,
        corpus=plan.corpus,
        synthetic=True,
        source_sha256="ab" * 32,
        feature_id="f1",
        manifest_digest="cd" * 32,
        label_range=RANGE,
        config_name=experiment.config_name,
        config=trained_values(experiment.config(seed)),
        run_id=f"{plan.corpus}-{experiment.name}-{seed}",
        best_epoch=1,
        num_epochs=2,
        selection_score=1.0,
        num_parameters=1_234_567,
        seconds=8.0,
        device="2 CPU cores",
        versions={"lnln": "0.1.0"},
        code=CODE,
        validation=made_split(plan.validation_view_ids(), plan.validation_rates, plan.mask_seeds, error, chance + 500),
        test=test,
        all_missing=all_missing,
    )
