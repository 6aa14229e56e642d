"""What stays of one training: its scores as a small JSON file that may be shared where the corpus may not.

    benchmarks/scores/<corpus>/<experiment>-<seed>.json

It holds no utterance, no label and no prediction. For intervals it holds bootstrap samples: the mean over all views of
each metric, on resamples of the utterances that are the same ones for every training, so differences are paired.

A sample is linear in the errors of the utterances, weighted by how often each was drawn. Whoever knows these counts and
has enough samples can solve for the errors, and for hits, which are 0 or 1, far fewer do. So the counts stay unknown:
their seed is made from the ids and labels of the split (`resample_seed`) and stored nowhere. Who has the corpus can
draw them again, and learn how well a model does on each utterance, which training it would show too. The intervals of
single rates and of margins come from resamples that anyone can draw, and are two numbers each. With everything missing
a model says nearly the same of all utterances and its hits are their labels, so no samples are kept of that.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results.plan import Experiment, Plan, Selection
from lnln.config import Config
from lnln.data.manifest import FeatureManifest
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate.bootstrap import resampled_scores
from lnln.evaluate.predictions import Predictions, read_predictions
from lnln.evaluations import Evaluation
from lnln.runs import trained_values

# Raised when the same training would be scored otherwise.
FORMAT = 2
NUM_RESAMPLES = 1000
# Samples are whole numbers of this: five digits.
UNIT = 1e-5

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SplitScores:
    """One evaluation, without its predictions. V views: every rate with every mask seed.

    mean: over the views. by_rate: for each of `rates` the mean over mask seeds. rate_intervals: metric to a 95%
    interval over utterances for each rate. views: scores of each view, in the order of view_ids. baselines: scores of
    constant answers; margins: by baseline and metric, how much better `mean` is, and its 95% interval over utterances.
    samples: metric to whole numbers of UNIT, the mean over the views on each resample; empty where none are kept.
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
    def of(cls, store: Store, evaluation: Evaluation, *, with_samples: bool) -> SplitScores:
        """The scores in `evaluation`, whose predictions lie in `store`."""
        metrics = evaluation.metrics()
        return cls(
            rates=tuple(rate for rate in evaluation.rates if not isinstance(rate, tuple)),
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
            samples=_samples(store, evaluation) if with_samples else {},
        )


@dataclass(frozen=True)
class Scores:
    """The scores of one training.

    config: what the model hangs on (`trained_values`). validation: the views of the plan's validation_rates. test:
    those of its rates; all_missing: missing rate 1, one view, since no mask seed changes it; both None while test is
    not read. manifest_digest: see `features_digest`. selection_score: mean validation MAE that chose best_epoch, under
    the masks of the config. device: its hardware class. code: what trained and scored it, several with + between
    (`benchmarks.results.code`).
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
    code: str
    validation: SplitScores
    test: SplitScores | None
    all_missing: SplitScores | None

    def is_of(self, plan: Plan, experiment: Experiment, manifest: FeatureManifest | None = None) -> bool:
        """Whether these are scores of `experiment` as the plan has it now, with this seed and on these views.

        manifest: and on these features; None where it does not matter which. A switch of the network that was not
        there when this was trained counts as published (`lnln.config.stored_model`), any other new key as its default.
        """
        try:
            trained = trained_values(Config.from_stored(self.config))
        except RefusedError:  # of a version with other keys
            return False
        return (
            (self.experiment, self.selection, self.corpus) == (experiment.name, experiment.selection, plan.corpus)
            and trained == trained_values(experiment.config(self.seed))
            and (manifest is None or self._features() == (manifest.feature_id, features_digest(manifest)))
            and set(self.validation.view_ids) == set(plan.validation_view_ids())
            and (self.test is None or set(self.test.view_ids) == set(plan.test_view_ids()))
        )

    def is_complete(self, experiment: Experiment) -> bool:
        """Whether everything that is wanted of the experiment has been scored."""
        return self.test is not None or not experiment.read_test

    def is_current(
        self, plan: Plan, experiment: Experiment, manifest: FeatureManifest, code: str | None = None
    ) -> bool:
        """Whether nothing is left to be done for `experiment` with this seed. code: and it was made by this code."""
        return self.is_of(plan, experiment, manifest) and self.is_complete(experiment) and code in (None, self.code)

    def _features(self) -> tuple[str, str]:
        return self.feature_id, self.manifest_digest


def scores_path(folder: Path, plan: Plan, experiment: Experiment, seed: int) -> Path:
    return folder / plan.corpus / f"{experiment.name}-{seed}.json"


def features_digest(manifest: FeatureManifest) -> str:
    """Digest of the manifest, whatever the file was called that the features came from."""
    return dataclasses.replace(manifest, source={**manifest.source, "name": ""}).digest()


def write_scores(path: Path, scores: Scores) -> None:
    write_record(path, {"format": FORMAT, **dataclasses.asdict(scores)})


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Whole or not at all; what a kill leaves beside it is ignored by git, and cleared by `clear_unfinished`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(_to_json(values) + "\n", encoding="utf-8")
    temporary.replace(path)


def clear_unfinished(folder: Path) -> None:
    """Remove what processes left behind that were killed while they wrote scores."""
    for path in folder.glob("*/.*.json.*"):
        if not _is_running(path.suffix[1:]):
            path.unlink(missing_ok=True)


def read_scores(path: Path) -> Scores | None:
    """The scores at `path`, None where there are none, or where another version scored; RefusedError if damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            return None
        for split in ("validation", "test", "all_missing"):
            if values[split] is not None:
                values[split] = _split(values[split], with_samples=split != "all_missing")
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


def read_all(folder: Path, plan: Plan, manifest: FeatureManifest | None = None) -> dict[tuple[str, int], Scores]:
    """By experiment and seed, what of the plan is scored; scores of another config or other views count as missing.

    manifest: those of other features than these do so too. RefusedError where a file is damaged, or scores do not
    compare (`check_same_data`).
    """
    found: dict[tuple[str, int], Scores] = {}
    for experiment in plan.experiments():
        for seed in experiment.seeds:
            scores = read_scores(scores_path(folder, plan, experiment, seed))
            if scores is not None and scores.is_of(plan, experiment):
                found[experiment.name, seed] = scores
    check_same_data(folder, list(found.values()), manifest)
    return {
        (name, seed): scores
        for (name, seed), scores in found.items()
        if scores.is_of(plan, plan.experiment(name), manifest)
    }


def check_same_data(folder: Path, scores: Sequence[Scores], manifest: FeatureManifest | None = None) -> None:
    """RefusedError where scores are of another file than `manifest`, or, without one, of different files or features.

    With a manifest, features that are not its own are no error: they are scored again.
    """
    expected = None if manifest is None else str(manifest.source["sha256"])
    for each in scores:
        where = folder / each.corpus / f"{each.experiment}-{each.seed}.json"
        expected = expected or each.source_sha256
        if each.source_sha256 != expected:
            raise RefusedError(
                f"{where} was scored on data with SHA-256 {each.source_sha256[:12]}, this is {expected[:12]}: the two "
                "do not compare; give DATA that file, or another corpus name in the plan"
            )
        if manifest is None and each._features() != scores[0]._features():
            raise RefusedError(
                f"{where} was scored on other features of the same file than {scores[0].experiment}-{scores[0].seed}: "
                "the two do not compare; `make results` scores what is of older features again"
            )


def resample_seed(said: Predictions) -> int:
    """Of the resamples of a split: the same for every model, known to nobody without the split's ids and labels."""
    secret = hashlib.sha256(json.dumps(said.utterance_id).encode())
    secret.update(said.label.astype("<f4").tobytes())
    return int.from_bytes(secret.digest())


def resampled(said: Predictions, label_range: Sequence[float]) -> dict[str, list[int]]:
    """For each metric but F1 the mean over the views on each resample, as whole numbers of UNIT.

    said: labelled utterances alone.
    """
    drawn = resampled_scores(
        said.sentiment, said.label, label_range, num_resamples=NUM_RESAMPLES, seed=resample_seed(said)
    )
    return {metric: [int(x) for x in np.round(rows.mean(axis=1) / UNIT)] for metric, rows in drawn.items()}


def _samples(store: Store, evaluation: Evaluation) -> dict[str, list[int]]:
    """`resampled`; a metric whose model was selected for it alone has the predictions of that model."""
    made: dict[str, list[int]] = {}
    for own in evaluation.metrics() if evaluation.epochs else ["mae"]:
        drawn = resampled(read_predictions(store, evaluation, own).labelled(), evaluation.label_range)
        made |= {metric: drawn[metric] for metric in drawn if metric == own or not evaluation.epochs}
    return made


def _split(values: dict[str, Any], *, with_samples: bool) -> SplitScores:
    for key in ("rates", "mask_seeds", "view_ids"):
        values[key] = tuple(values[key])
    scores = SplitScores(**values)
    if len({len(drawn) for drawn in scores.samples.values()}) > 1 or ("mae" in scores.samples) != with_samples:
        raise ValueError("samples of different lengths, none, or of what none are kept of")
    return scores


def _is_running(pid: str) -> bool:
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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
