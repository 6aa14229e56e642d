"""What a study's best parameters are worth when they are trained again: `studies/<study_id>/choice.json`.

choice = load_choice(store, study_id)
print(choice.verdict)

`choose.py` makes it.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate.paired import Difference, format_difference
from lnln.evaluations import format_score
from lnln.metrics import TITLES
from tuning.record import Study, TrialRecord, study_folder
from tuning.select import ranked_trials
from tuning.space import PARAMETERS

ScoredSplit = Literal["valid", "test"]
# Where a difference is judged, and the metric that judges.
JUDGING_SPLIT: ScoredSplit = "valid"
JUDGING_METRIC = "mae"
SPLIT_TITLES: Mapping[ScoredSplit, str] = {"valid": "validation", "test": "test"}

Outcome = Literal["better", "worse", "within noise", "diverged"]

CAUTION = (
    "The study found its parameters by scores on the same validation utterances, with other seeds; so differences on "
    "validation flatter them somewhat. Test had no part in the study, in the choice or in this verdict."
)

CHOICE_FILE = "choice.json"


@dataclass(frozen=True)
class ScoredRun:
    """One training. score: mean validation MAE that selected its epoch. scores: by split and metric, means over all
    missing rates, of the evaluations that `evaluation_ids` name."""

    seed: int
    run_id: str
    best_epoch: int
    score: float
    evaluation_ids: dict[str, str]
    scores: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Setting:
    """Parameters that were trained with every seed. trial: their number in the study, None for the configured ones.

    differences: to the configured parameters, by split and metric; None for those themselves. reason: why a seed's
    training diverged; then `runs` are the others, and there are no differences.
    """

    trial: int | None
    parameters: dict[str, float]
    runs: tuple[ScoredRun, ...]
    differences: dict[str, dict[str, Difference]] | None = None
    reason: str | None = None

    @property
    def title(self) -> str:
        return "configured" if self.trial is None else f"trial {self.trial}"

    def values(self, split: str, metric: str) -> list[float]:
        return [run.scores[split][metric] for run in self.runs]

    def mean(self, split: str, metric: str) -> float:
        return statistics.fmean(self.values(split, metric))

    def judged(self) -> Difference | None:
        """The difference that judges it; None where there is none."""
        return self.differences[JUDGING_SPLIT][JUDGING_METRIC] if self.differences else None


@dataclass(frozen=True)
class Choice:
    """A study's best parameters against the configured ones, both trained with fresh seeds.

    num_trials: complete ones of the study at that time. metrics: those compared. num_utterances: labelled ones by
    split. candidates: the best trials of the study, the best first; chosen: number of the one whose mean is best, among
    those shown to be better if there are any, None where all diverged. seeds_to_show: see `paired.seeds_to_show`, 0
    where no number would do; None where the difference was shown, looks like a loss, or fewer than three seeds say too
    little. published: `name@version` of the chosen trial's best run.
    earlier: verdicts of other comparisons of this study, with their seeds and trials, the oldest first.
    """

    study_id: str
    corpus: str
    feature_id: str
    seeds: tuple[int, ...]
    num_trials: int
    metrics: tuple[str, ...]
    num_utterances: dict[str, int]
    configured: Setting
    candidates: tuple[Setting, ...]
    chosen: int | None
    outcome: Outcome
    seeds_to_show: int | None
    verdict: str
    code_version: str
    published: str | None = None
    earlier: tuple[dict[str, Any], ...] = ()

    @property
    def best(self) -> Setting | None:
        """The chosen candidate."""
        return next((each for each in self.candidates if each.trial == self.chosen), None)

    @property
    def best_run(self) -> ScoredRun | None:
        """The chosen candidate's run with the best validation score, the first of equals."""
        return min(self.best.runs, key=lambda run: run.score) if self.best else None

    def rows(self) -> list[dict[str, str]]:
        """A row of text per setting, the configured one first; keys are the columns."""
        return [self._row(setting) for setting in (self.configured, *self.candidates)]

    def difference_rows(self) -> list[dict[str, str]]:
        """A row of text per candidate and metric: its difference to the configured parameters on either split."""
        return [
            {
                "setting": setting.title,
                "difference in": TITLES[metric],
                **{title: format_difference(metric, by[split][metric]) for split, title in SPLIT_TITLES.items()},
            }
            for setting in self.candidates
            if (by := setting.differences)
            for metric in self.metrics
        ]

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; `from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Choice:
        lists = {key: tuple(values[key]) for key in ("seeds", "metrics", "earlier")}
        candidates = tuple(_setting(each) for each in values["candidates"])
        return cls(**{**values, **lists, "configured": _setting(values["configured"]), "candidates": candidates})

    def _row(self, setting: Setting) -> dict[str, str]:
        row = {"setting": setting.title}
        row |= {name: f"{setting.parameters[name]:.3g}" for name in PARAMETERS if name in setting.parameters}
        for split, title in SPLIT_TITLES.items():
            for metric in self.metrics:
                values = setting.values(split, metric)
                row[f"{title} {TITLES[metric]}"] = "diverged" if setting.reason else _mean_and_spread(metric, values)
        return row


def candidates_of(study: Study, num_candidates: int) -> list[TrialRecord]:
    """The best trials that are not the configured one, each with parameters of its own, the best first."""
    if num_candidates < 1:
        raise RefusedError(f"the number of candidates must be 1 or more, got {num_candidates}")
    found: list[TrialRecord] = []
    for trial in ranked_trials(study):
        if not trial.is_configured and trial.parameters not in [each.parameters for each in found]:
            found.append(trial)
    if not found:
        raise RefusedError(
            f"study {study.study_id} has no complete trial beside the configured parameters, so there is nothing to "
            f"choose from; `lnln tune {study.corpus}` with more trials continues it"
        )
    return found[:num_candidates]


def load_choice(store: Store, study_id: str) -> Choice | None:
    """The choice that was made of the study, None if none was; RefusedError where its record is damaged."""
    path = f"{study_folder(study_id)}/{CHOICE_FILE}"
    try:
        return Choice.from_dict(store.read_json(path))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RefusedError(
            f"{store.url}/{path} does not hold a choice ({' '.join(str(error).split())}); remove it, and "
            f"`lnln choose {study_id}` makes it anew from the runs that are there"
        ) from error


def save_choice(store: Store, choice: Choice) -> None:
    store.write_json(f"{study_folder(choice.study_id)}/{CHOICE_FILE}", choice.to_dict())


def verdict_of(
    configured: Setting, candidates: Sequence[Setting], chosen: Setting | None, num_to_show: int | None
) -> str:
    """One sentence: whether `chosen`, the best of `candidates`, was shown to differ from the configured parameters.

    num_to_show: seeds that would show it, None where that is not to be said; 0 where no number would.
    """
    if chosen is None or chosen.differences is None:
        which = " and ".join(f"trial {each.trial}" for each in candidates)
        return f"no gain is shown: {which} diverged with fresh seeds, which the configured parameters did not"
    judged, tested = (chosen.differences[split][JUDGING_METRIC] for split in ("valid", "test"))
    name = f"trial {chosen.trial}" + (f", the best of {len(candidates)} candidates," if len(candidates) > 1 else "")
    ours, theirs = (format_score("mae", each.mean(JUDGING_SPLIT, JUDGING_METRIC)) for each in (chosen, configured))
    share = f"the {100 * judged.share:.3g}% interval is over utterances and {len(judged.seeds)} seeds"
    if len(candidates) > 1:
        share += f", and allows for picking one of {len(candidates)}"
    said = (
        f"mean validation MAE {ours} against {theirs}, a difference of {format_difference('mae', judged)}; {share}; "
        f"on test, which decided nothing, {format_difference('mae', tested)}"
    )
    if judged.is_better is not None:
        return f"{name} is {judged.word} than the configured parameters: {said}"
    sentence = f"no gain is shown: {name} differs from the configured parameters within noise, {said}"
    if num_to_show:
        sentence += f"; were it as large as it looks, about {num_to_show} seeds would show it every other time"
    elif num_to_show == 0:
        sentence += "; to show a difference of this size would take more utterances, or far more seeds"
    return sentence


def _mean_and_spread(metric: str, values: Sequence[float]) -> str:
    spread = f" ± {format_score(metric, statistics.stdev(values))}" if len(values) > 1 else ""
    return f"{format_score(metric, statistics.fmean(values))}{spread}"


def _setting(values: Mapping[str, Any]) -> Setting:
    differences = values["differences"]
    if differences is not None:
        differences = {
            split: {metric: _difference(each) for metric, each in by_metric.items()}
            for split, by_metric in differences.items()
        }
    runs = tuple(ScoredRun(**run) for run in values["runs"])
    return Setting(**{**values, "runs": runs, "differences": differences})


def _difference(values: Mapping[str, Any]) -> Difference:
    return Difference(**{**values, "seeds": tuple(values["seeds"])})
