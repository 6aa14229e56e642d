"""What a study amounts to, in plain sentences: the verdict, and what to be careful of.

for sentence in verdict(study, learnt, choice): print(sentence)
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from lnln.report.markup import percent
from tuning.choice import Choice
from tuning.objectives import objective as objective_called
from tuning.record import Study
from tuning.report.axis import Axis
from tuning.report.importance import METHODS, Importance, Learnt
from tuning.report.noise import Compared, compare
from tuning.report.stability import OUTCOMES, count_outcomes
from tuning.select import fresh_seeds

# With fewer, PED-ANOVA's best quarter is below the five trials that its authors advise.
FEW_TRIALS = 20
# As part of a range: closer to its end, the best may lie beyond.
EDGE = 0.05


def verdict(study: Study, learnt: Sequence[Learnt], choice: Choice | None) -> list[str]:
    """What is best, by how much, whether that is within noise, and what matters. learnt: one for each objective."""
    compared = compare(study)
    if compared is None:
        counts = count_states(study)
        return [f"No trial is complete, so nothing is best yet: {counts or 'the study has no trials'}."]
    said = [_best(study, compared), _beside(study, compared), *_noise(study, compared, choice)]
    return [sentence for sentence in said if sentence] + [_what_matters(each, len(learnt) > 1) for each in learnt]


def cautions(study: Study, learnt: Sequence[Learnt]) -> list[str]:
    """What a reader could be misled by, the worst first."""
    compared = compare(study)
    best = compared.best if compared else None
    said = []
    if best is not None and count_outcomes([best], "collapsed")[0]:
        said.append(f"Trial {best.number}, the best, gives nearly all utterances the same class: it has collapsed.")
    for outcome in OUTCOMES:
        num_bad, num_trials = count_outcomes(study.trials, outcome)
        if num_bad and outcome != "diverged":
            diverged = count_outcomes(study.trials, "diverged")[0] if outcome == "failed" else 0
            why = f", {diverged} since a loss, a gradient or a prediction was no finite number" if diverged else ""
            said.append(f"{num_bad} of {_trials(num_trials)} {outcome}{why}.")
    num_complete, num_pruned = len(study.of_state("complete")), len(study.of_state("pruned"))
    if 0 < num_complete < FEW_TRIALS:
        said.append(f"Shares of importance settle from {FEW_TRIALS} complete trials or so on; here are {num_complete}.")
    if best is not None:
        for name, span in study.space.ranges.items():
            axis = Axis(name, span)
            place = axis.position(best.parameters[name]) if name in best.parameters else 0.5
            if place > 1 - EDGE or (not span.zero and span.low > 0 and place < EDGE):
                end = span.high if place > 0.5 else span.low
                said.append(
                    f"The best {name} is {best.parameters[name]:.3g}, near the end of its range ({end:g}); widen it."
                )
        lengths = [(result.best_epoch, len(result.valid_mae_by_epoch)) for result in best.seeds]
        if lengths and all(best_epoch == length for best_epoch, length in lengths):
            said.append(
                "The best trial was still getting better at its last epoch; with more epochs the order may change."
            )
    if num_pruned:
        said.append(
            f"{_trials(num_pruned)} stopped early, without a final score: fANOVA, slices and contours are of "
            "complete trials alone, PED-ANOVA counts those that were stopped as worse."
        )
    unended = len(study.of_state("interrupted")) + len(study.of_state("running"))
    if unended:
        said.append(f"{_trials(unended)} did not end (interrupted or running), and take no part.")
    if num_complete > 1:
        said.append(
            f"Scores are of the validation split, on which the best of {num_complete} was picked, so they flatter it."
        )
    return said


def choose_command(study: Study) -> str:
    """What compares the best with the configured parameters on seeds that the study did not use."""
    return f"lnln choose {shlex.quote(study.study_id)} --seeds {','.join(map(str, fresh_seeds(study)))}"


def count_states(study: Study) -> str:
    """Such as `12 complete, 3 pruned`; empty without trials."""
    states = list(dict.fromkeys(trial.state for trial in study.trials))
    return ", ".join(f"{len(study.of_state(state))} {state}" for state in states)


def _trials(num: int) -> str:
    return f"{num} trial{'s' if num != 1 else ''}"


def _best(study: Study, compared: Compared) -> str:
    best, name = compared.best, study.first_objective
    settings = ", ".join(
        f"{key} {value:.3g}{' (switched off)' if value == 0 and study.space.ranges[key].zero else ''}"
        for key, value in best.parameters.items()
    )
    num_seeds = len(study.seeds)
    mean = f" (mean of {num_seeds} seeds)" if num_seeds > 1 else ""
    which = ", the configured parameters," if best.is_configured else ""
    score = f"validation {objective_called(name).title} {best.values[name]:.4f}{mean}"
    num_complete = len(study.of_state("complete"))
    return f"Trial {best.number}{which} is the best of {num_complete} complete ones: {score} with {settings}."


def _beside(study: Study, compared: Compared) -> str:
    best, configured, name = compared.best, compared.configured, study.first_objective
    if best.is_configured:
        return "No trial did better than what is configured."
    if configured is None:
        return "The configured parameters have no complete trial, so there is nothing to compare it with."
    score = configured.values[name]
    return f"It is {compared.gain:.4f} better than the configured parameters (trial {configured.number}: {score:.4f})."


def _noise(study: Study, compared: Compared, choice: Choice | None) -> list[str]:
    if choice is not None:
        said = [f"With fresh seeds: {choice.verdict}."]
        if choice.candidates and compared.best.number not in [setting.trial for setting in choice.candidates]:
            said.append(
                f"That was chosen from {choice.num_trials} complete trials; trial {compared.best.number} is not among "
                f"the candidates: `{choose_command(study)}` compares it."
            )
        return said
    if compared.gain is None or compared.best.is_configured:
        return []
    command = choose_command(study)
    if compared.by_chance is None:
        why = "Each trial trained with one seed" if len(study.seeds) == 1 else "The record has no spread over seeds"
        return [f"{why}, so nothing here says how much of that is noise: `{command}` does, with fresh seeds."]
    num_trials = len(study.of_state("complete")) + len(study.of_state("pruned"))
    chance = (
        f"were all {num_trials} trials equally good, the best of them would seem up to {compared.by_chance:.4f} better "
        f"(in 19 studies of 20; one training differs by {compared.seed_spread:.4f} from seed to seed)"
    )
    if compared.gain <= compared.by_chance:
        return [f"That is within noise: {chance}. `{command}` compares the two with fresh seeds."]
    return [f"That is more than noise gives: {chance}. `{command}` says how much of it stays with fresh seeds."]


def _what_matters(learnt: Learnt, is_one_of_many: bool) -> str:
    label = objective_called(learnt.objective).title
    where = f" for {label}" if is_one_of_many else ""
    if learnt.too_little:
        return f"What matters{where} is not to be said: {learnt.too_little[0].lower()}{learnt.too_little[1:]}"
    firsts = {method: _first(learnt.of_method(method)) for method in METHODS}
    stands_out = [first for first in firsts.values() if first.is_above_chance]
    shares = " and ".join(_share(first) for first in firsts.values())
    if not stands_out:
        return f"No parameter stands out{where} from what chance would give: {shares}."
    name = stands_out[0].parameters[0]
    if len({first.parameters for first in firsts.values()}) == 1:
        agree = (
            "by both measures" if len(stands_out) == 2 else f"though only {stands_out[0].method} tells it from chance"
        )
        return f"What matters most{where} is {name}, {agree}: {shares}."
    if len(stands_out) == 2:
        return f"The two measures disagree on what matters most{where}: {shares}."
    return f"What matters most{where} is {name} by {stands_out[0].method} alone: {shares}."


def _first(found: Sequence[Importance]) -> Importance:
    """The most important of those above chance, or of all."""
    return next((each for each in found if each.is_above_chance), found[0])


def _share(each: Importance) -> str:
    return (
        f"{each.method} gives {each.parameters[0]} {percent(each.share)} (spread {percent(each.low)} to "
        f"{percent(each.high)}, by chance up to {percent(each.by_chance)})"
    )
