"""What stays of one training: its scores as a small JSON file that may be shared where the corpus may not.

    benchmarks/scores/<corpus>/<experiment>-<seed>.json

It holds no utterance, no label and no prediction. For intervals it holds bootstrap samples: the mean over all views of
each metric, on resamples of the utterances that are the same ones for every training, so differences are paired.

A sample is a sum over utterances whose counts anyone can draw again: from as many samples as there are utterances each
one's error could be solved for. Hence there are only three samples for every four utterances, 1000 at most.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results.plan import Experiment, Plan, Selection, trained_values
from lnln.config import Config
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate.bootstrap import resampled_scores
from lnln.evaluate.predictions import read_predictions
from lnln.evaluations import Evaluation

# Raised when the same training would be scored otherwise.
FORMAT = 1
MAX_RESAMPLES = 1000
RESAMPLE_SEED = 0
# Samples are whole numbers of this: five digits.
UNIT = 1e-5

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SplitScores:
    """One evaluation, without its predictions. V views: every rate with every mask seed.

    mean: over the views. by_rate: for each of `rates` the mean over mask seeds. rate_intervals: metric to a 95%
    interval over utterances for each rate. views: scores of each view, in the order of view_ids. baselines: scores of
    constant answers; margins: by baseline and metric, how much better `mean` is, and its 95% interval over utterances.
    samples: metric to whole numbers of UNIT, the mean over the views on each resample.
    """

    rates: tuple[float, ...]
    mask_seeds: tuple[int, ...]
    view_ids: tuple[str, ...]
    num_labelled: int
    mean: dict[str, float]
    by_rate: list[dict[str, float]]
    rate_intervals: dict[str, list[list[float]]]
    views: list[dict[str, float]]
    baselines: dict[str, dict[str, float]]
    margins: dict[str, dict[str, list[float]]]
    samples: dict[str, list[int]]

    def drawn(self, metric: str) -> Array:
        """(R,) samples of `metric`."""
        return np.asarray(self.samples[metric], np.float64) * UNIT

    @classmethod
    def of(cls, store: Store, evaluation: Evaluation) -> SplitScores:
        """The scores in `evaluation`, whose predictions lie in `store`."""
        metrics = evaluation.metrics()
        return cls(
            rates=evaluation.rates,
            mask_seeds=evaluation.mask_seeds,
            view_ids=tuple(view.view_id for view in evaluation.views),
            num_labelled=evaluation.num_labelled,
            mean=_rounded(evaluation.mean),
            by_rate=[_rounded({metric: row[metric] for metric in metrics}) for row in evaluation.by_rate()],
            rate_intervals={
                metric: [[round(each.low, 5), round(each.high, 5)] for each in intervals]
                for metric, intervals in evaluation.rate_intervals.items()
            },
            views=[_rounded(view.scores) for view in evaluation.views],
            baselines={name: _rounded(scores) for name, scores in evaluation.baselines.items()},
            margins={
                name: {metric: [round(x, 5) for x in (m.value, m.low, m.high)] for metric, m in by_metric.items()}
                for name, by_metric in evaluation.margins.items()
            },
            samples=_samples(store, evaluation),
        )


@dataclass(frozen=True)
class Scores:
    """The scores of one training.

    config: what the model hangs on (`trained_values`). validation: the views of the plan's validation_rates. test:
    those of its rates; all_missing: missing rate 1, one view, since no mask seed changes it; both None while test is
    not read. selection_score: mean validation MAE that chose best_epoch, under the masks of the config. device: its
    hardware class.
    """

    experiment: str
    seed: int
    selection: Selection
    corpus: str
    synthetic: bool
    source_sha256: str
    feature_id: str
    manifest_digest: str
    label_range: tuple[float, float]
    config_name: str
    config: dict[str, Any]
    run_id: str
    best_epoch: int
    num_epochs: int
    selection_score: float
    num_parameters: int
    seconds: float
    device: str
    versions: dict[str, str]
    validation: SplitScores
    test: SplitScores | None
    all_missing: SplitScores | None

    def is_of(self, plan: Plan, experiment: Experiment) -> bool:
        """Whether these are scores of `experiment` as the plan has it now, with this seed and on these views."""
        try:
            mine = trained_values(Config.from_dict(self.config))
        except RefusedError:  # of a version with other keys
            return False
        return (
            (self.experiment, self.selection, self.corpus) == (experiment.name, experiment.selection, plan.corpus)
            and mine == trained_values(experiment.config(self.seed))
            and set(self.validation.view_ids) == set(plan.validation_view_ids())
            and (self.test is None or set(self.test.view_ids) == set(plan.test_view_ids()))
        )

    def is_complete(self, experiment: Experiment) -> bool:
        """Whether everything that is wanted of the experiment has been scored."""
        return self.test is not None or not experiment.read_test


def scores_path(folder: Path, plan: Plan, experiment: Experiment, seed: int) -> Path:
    return folder / plan.corpus / f"{experiment.name}-{seed}.json"


def write_scores(path: Path, scores: Scores) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(_to_json({"format": FORMAT, **dataclasses.asdict(scores)}) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_scores(path: Path) -> Scores | None:
    """The scores at `path`, None where there are none, or where another version scored; RefusedError if damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            return None
        for split in ("validation", "test", "all_missing"):
            if values[split] is not None:
                values[split] = _split(values[split])
        scores = Scores(**{**values, "label_range": tuple(values["label_range"])})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(
            f"{path} holds no scores ({type(error).__name__}: {error}); remove it and run `make results` again"
        ) from error
    if scores.seed != _seed_of(path):
        raise RefusedError(f"{path} holds the scores of seed {scores.seed}; remove it and run `make results` again")
    return scores


def read_all(folder: Path, plan: Plan) -> dict[tuple[str, int], Scores]:
    """By experiment and seed, what of the plan is scored; scores of another config or other views count as missing.

    RefusedError where a file is damaged, or two are of different data.
    """
    found: dict[tuple[str, int], Scores] = {}
    for experiment in plan.experiments():
        for seed in experiment.seeds:
            scores = read_scores(scores_path(folder, plan, experiment, seed))
            if scores is not None and scores.is_of(plan, experiment):
                found[experiment.name, seed] = scores
    check_same_data(folder, list(found.values()))
    return found


def check_same_data(folder: Path, scores: Sequence[Scores], source_sha256: str | None = None) -> None:
    """RefusedError where scores are of different files, or of another one than that with `source_sha256`."""
    expected = source_sha256
    for each in scores:
        expected = expected or each.source_sha256
        if each.source_sha256 != expected:
            where = folder / each.corpus / f"{each.experiment}-{each.seed}.json"
            raise RefusedError(
                f"{where} was scored on data with SHA-256 {each.source_sha256[:12]}, this is {expected[:12]}: the two "
                "do not compare; give DATA that file, or another corpus name in the plan"
            )


def num_resamples(num_labelled: int) -> int:
    """How many samples may be published of so many utterances: fewer than could be solved for them."""
    return min(MAX_RESAMPLES, 3 * num_labelled // 4)


def _samples(store: Store, evaluation: Evaluation) -> dict[str, list[int]]:
    """Means over the views on each resample, as whole numbers of UNIT.

    A metric whose model was selected for it alone has the predictions of that model.
    """
    made: dict[str, list[int]] = {}
    for own in evaluation.metrics() if evaluation.epochs else ["mae"]:
        said = read_predictions(store, evaluation, own).labelled()
        drawn = resampled_scores(
            said.sentiment,
            said.label,
            evaluation.label_range,
            num_resamples=num_resamples(len(said.label)),
            seed=RESAMPLE_SEED,
        )
        for metric in [own] if evaluation.epochs else evaluation.metrics():
            if metric in drawn:  # F1 is not resampled
                made[metric] = [int(x) for x in np.round(drawn[metric].mean(axis=1) / UNIT)]
    return made


def _split(values: dict[str, Any]) -> SplitScores:
    for key in ("rates", "mask_seeds", "view_ids"):
        values[key] = tuple(values[key])
    scores = SplitScores(**values)
    if len({len(drawn) for drawn in scores.samples.values()}) > 1 or "mae" not in scores.samples:
        raise ValueError("samples of different lengths")
    return scores


def _seed_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {metric: round(value, 6) for metric, value in scores.items()}


def _to_json(value: Any, indent: str = "") -> str:
    """JSON with a line for each key, and for each list of plain values: small, and readable as a difference."""
    deeper = indent + " "
    if isinstance(value, Mapping) and any(isinstance(entry, (Mapping, list, tuple)) for entry in value.values()):
        lines = [f"{deeper}{json.dumps(key)}: {_to_json(entry, deeper)}" for key, entry in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, (list, tuple)) and any(isinstance(entry, Mapping) for entry in value):
        return "[\n" + ",\n".join(f"{deeper}{_to_json(entry, deeper)}" for entry in value) + f"\n{indent}]"
    return json.dumps(value, separators=(",", ":") if isinstance(value, (list, tuple)) else None)
