"""A study's page: the verdict first, then trials, what matters, where it is good, what is unstable, how to go on.

    path = study_report(store, "mosi-lnln-1f3a0c9d2b44", Path("reports/mosi-study"))

Writes `index.html`, which needs no other file and no network, `trials.csv`, `importances.csv`, `interactions.csv`,
`stability.csv`, `curves.csv` and, where a trial is complete, `best.yaml`, which `lnln train --config` takes. All of it
comes from the study's record and is the same for the same record.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.report.markup import document, escape, figure, table
from lnln.report.svg import Mark, legend
from tuning.choice import CAUTION, Choice, load_choice
from tuning.objectives import objective as objective_called
from tuning.record import Study, load_study
from tuning.report.charts import (
    contour_ends,
    draw_contour,
    draw_curves,
    draw_front,
    draw_history,
    draw_importances,
    draw_parallel,
    draw_slice,
    draw_stability,
)
from tuning.report.importance import METHODS, NUM_RESAMPLES, Learnt, axes, learn, scored
from tuning.report.stability import OUTCOMES, TERMS, count_outcomes, stability
from tuning.report.tables import files, importance_rows, stability_rows, trial_rows
from tuning.report.verdict import cautions, choose_command, count_states, verdict
from tuning.select import best_config, pareto_front, ranked_trials

PAGE, BEST = "index.html", "best.yaml"
# Contours are drawn of the pairs whose interactions are largest.
NUM_CONTOURS, NUM_BARS = 6, 10


def study_report(store: Store, study_id: str, folder: Path | str, *, num_resamples: int = NUM_RESAMPLES) -> Path:
    """Write the report on a study to `folder`; returns its index.html.

    num_resamples: of the trials, for the spread of what is learnt. RefusedError for an unknown study, one whose record
    is damaged, and a folder that cannot be written.
    """
    study = load_study(store, study_id)
    choice, lost = _read_choice(store, study_id)
    learnt = [learn(study, name, num_resamples=num_resamples) for name in study.directions]
    written = files(study, learnt)
    config = _best_config(study)
    if config is not None:
        written[BEST] = config
    page = render(study, learnt, choice, [*([lost] if lost else []), *cautions(study, learnt)], list(written))
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RefusedError(f"cannot write a report to {folder}: {error.strerror}; give another folder") from error
    target = Store(folder)
    for name, data in {**written, PAGE: page.encode()}.items():
        target.write(name, data)
    return folder / PAGE


def render(
    study: Study, learnt: Sequence[Learnt], choice: Choice | None, careful: Sequence[str], beside: Sequence[str]
) -> str:
    """index.html. learnt: one for each objective. careful: sentences. beside: names of the other files."""
    sections = [
        _head(study, verdict(study, learnt, choice), careful),
        _choice(choice),
        _trials(study),
        _matters(learnt),
        _where(study, learnt),
        _front(study),
        _stable(study),
        _reading(learnt),
        _further(study, beside),
    ]
    return document(f"Study {study.study_id}", "\n".join(section for section in sections if section))


def _head(study: Study, said: Sequence[str], careful: Sequence[str]) -> str:
    tune = study.config.get("tune", {})
    objectives = "; ".join(objective_called(name).title for name in study.directions)
    seeds = ", ".join(map(str, study.seeds))
    facts = (
        f"Corpus {study.corpus}, features {study.feature_id}. Trials: {count_states(study) or 'none'}. "
        f"Objective on validation: {objectives}. Each trial: up to {tune.get('epochs', '?')} epochs with seed {seeds}. "
        f"Sampler: {study.sampler.get('name', '?')}, seed {study.sampler.get('seed', '?')}."
    )
    warned = f"<h2>Be careful</h2>{_list(careful)}" if careful else ""
    box = "".join(f"<p>{_prose(sentence)}</p>" for sentence in said)
    return (
        f'<header><h1>Study {escape(study.study_id)}</h1><p class="facts">{escape(facts)}</p></header>'
        f'<section class="verdict" aria-label="Verdict">{box}</section>{warned}'
    )


def _choice(choice: Choice | None) -> str:
    if choice is None:
        return ""
    caption = "Means over fresh seeds, ± their standard deviation, over all missing rates."
    differences = choice.difference_rows()
    parts = [f"<h2>Choice</h2><p>{_prose(CAUTION)}</p>", table(choice.rows(), caption)]
    if differences:
        parts.append(table(differences, "Difference to the configured parameters, with its interval."))
    return "".join(parts)


def _trials(study: Study) -> str:
    if not study.trials:
        return ""
    rows = trial_rows(study)
    lit = [0] if ranked_trials(study) else []
    caption = "Trials, the best first. One class: mean share of utterances that get the most frequent class."
    drawn = [
        figure(
            draw_history(study, name),
            f"{objective_called(name).title} by trial, and the best so far. Along the upper edge: without a score.",
        )
        for name in study.directions
        if scored(study, name)
    ]
    if any(result.valid_mae_by_epoch for trial in study.trials for result in trial.seeds):
        caption_of_curves = "Validation MAE by epoch, a line for each training; dashed short ones were stopped."
        drawn.append(figure(draw_curves(study), caption_of_curves))
    charts = f'<div class="charts large">{"".join(drawn)}</div>' if drawn else ""
    return f"<h2>Trials</h2>{_legend(study)}{charts}{table(rows, caption, highlighted=lit)}"


def _matters(learnt: Sequence[Learnt]) -> str:
    parts = ["<h2>What matters</h2>"]
    for found in learnt:
        if len(learnt) > 1:
            parts.append(f"<h3>{escape(objective_called(found.objective).title)}</h3>")
        if found.too_little:
            parts.append(f"<p>{_prose(found.too_little)}</p>")
            continue
        charts = [
            figure(draw_importances(found.of_method(method)), MEANING[method]) for method in METHODS
        ]  # fmt: skip
        charts.append(figure(draw_importances(found.interactions[:NUM_BARS]), MEANING["interactions"]))
        parts.append(f'<div class="charts">{"".join(charts)}</div>')
        parts.append(table(importance_rows(found.importances), "Importance of each parameter."))
        parts.append(table(importance_rows(found.interactions), "Interactions of pairs: what two explain beyond each."))
    return "".join(parts)


def _where(study: Study, learnt: Sequence[Learnt]) -> str:
    along = {axis.name: axis for axis in axes(study)}
    parts = []
    for found in learnt:
        if not scored(study, found.objective):
            continue
        slices = [figure(draw_slice(study, found, axis), f"Over {axis.name}.") for axis in along.values()]
        pairs = [each.parameters for each in found.interactions[:NUM_CONTOURS]]
        contours = [figure(draw_contour(study, found, along[a], along[b]), f"Over {a} and {b}.") for a, b in pairs]
        title = f"<h3>{escape(objective_called(found.objective).title)}</h3>" if len(learnt) > 1 else ""
        parts.append(f'{title}<div class="charts">{"".join(slices)}</div>')
        if contours:
            best, worst = contour_ends(found)
            more = len(found.interactions) - len(pairs)
            said = f"Means over two parameters: the strongest colour is {best:.4f}, the faintest {worst:.4f} or worse."
            left_out = f" Drawn are the {len(pairs)} pairs that interact most; {more} are not." if more else ""
            parts.append(f'<p>{said}{left_out}</p><div class="charts">{"".join(contours)}</div>')
        parallel = "A line for each complete trial, through its parameters to its score; the best quarter in blue."
        parts.append(figure(draw_parallel(study, found.objective), parallel, is_wide=True))
    if not parts:
        return ""
    intro = (
        "Lines are the forest's mean over all other parameters, bands its spread over resamples of the trials. "
        "A grey band at the left holds what is switched off (0)."
    )
    lines = any(found.slices for found in learnt)
    return f"<h2>Where it is good</h2>{_legend(study)}{f'<p>{intro}</p>' if lines else ''}{''.join(parts)}"


def _front(study: Study) -> str:
    names = list(study.directions)
    if len(names) < 2 or not ranked_trials(study):
        return ""
    front = pareto_front(study)
    numbers = {str(trial.number) for trial in front} | {f"{trial.number} (configured)" for trial in front}
    rows = [row for row in trial_rows(study) if row["trial"] in numbers]
    charts = [
        figure(draw_front(study, a, b), f"{objective_called(b).title} over {objective_called(a).title}.")
        for a, b in itertools.combinations(names, 2)
    ]
    caption = "The front: trials that no other beats in one objective without losing in another."
    return f'<h2>Front</h2><div class="charts">{"".join(charts)}</div>{table(rows, caption)}'


def _stable(study: Study) -> str:
    rows = stability(study)
    counts = "; ".join(
        f"{outcome} {num_bad} of {num_trials}"
        for outcome in OUTCOMES
        for num_bad, num_trials in [count_outcomes(study.trials, outcome)]
    )
    parts = [f"<h2>Stability of the adversarial term</h2><p>Of all trials: {escape(counts)}.</p>"]
    of_terms = [(axis, [row for row in rows if row.parameter == axis.name]) for axis in axes(study)]
    charts = [
        figure(
            draw_stability(of_term, axis),
            f"By {axis.name}, with 95% intervals; from the left in each bin: diverged, collapsed, failed.",
        )
        for axis, of_term in of_terms
        if of_term
    ]
    if charts:
        parts.append(f'<div class="charts">{"".join(charts)}</div>')
    parts += [table(stability_rows(rows), f"Trials by {axis.name}.") for axis, rows in of_terms if rows]
    held = [name for name in TERMS if name not in study.space.ranges]
    if held:
        parts.append(
            f"<p>The study did not vary {escape(' or '.join(held))}, so it says nothing of "
            f"{'their' if len(held) > 1 else 'its'} part.</p>"
        )
    return "".join(parts)


def _reading(learnt: Sequence[Learnt]) -> str:
    num = max((found.num_resamples for found in learnt), default=0)
    lines = [
        f"Spread: from the 5th to the 95th percentile over {num} resamples of the trials, drawn with replacement. It "
        "says how far a share hangs on single trials.",
        f"By chance: the 95th percentile over {num} studies whose scores were dealt to the trials at random. A share "
        "below it is what a parameter without any influence would show in one study of twenty.",
        "fANOVA: share of the score's variance over the whole space, by a forest fitted to complete trials; in it a "
        "parameter explains what its mean over all others varies by, and a pair what that of both does beyond them.",
        "PED-ANOVA: how far values among the best quarter of the trials lie otherwise than those of all trials, as a "
        "share of all such differences; trials that were stopped count as worse than any complete one.",
        "Diverged: a loss, a gradient or a prediction was no finite number. Collapsed: more than 90% of the utterances "
        "get the same class, over the missing rates. Intervals of these shares are Wilson's.",
        "Points at the edge of a chart may lie beyond it; hovering shows their score.",
    ]
    return f"<h2>How to read this</h2>{_list(lines)}"


def _further(study: Study, beside: Sequence[str]) -> str:
    corpus = shlex.quote(study.corpus)
    commands = [choose_command(study)] if any(not trial.is_configured for trial in ranked_trials(study)) else []
    commands += [f"lnln train {corpus} --config {BEST}"] if BEST in beside else []
    commands.append(f"lnln report {shlex.quote(study.study_id)}")
    shown = "\n".join(map(escape, commands))
    links = ", ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in beside)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(study.versions.items()))
    return (
        f"<h2>How to go on</h2><p>With the same store (<code>--store</code> or <code>LNLN_STORE</code>), in this "
        f"folder:</p><pre>{shown}</pre><p>Beside this page: {links}.</p>"
        f'<p class="facts">Made with {escape(versions or "unknown versions")}.</p>'
    )


MEANING = {
    "fANOVA": "fANOVA: share of the score's variance that each parameter explains.",
    "PED-ANOVA": "PED-ANOVA: what sets the best quarter of the trials apart.",
    "interactions": "Interactions by fANOVA: what two parameters explain beyond each of them. Dashed: by chance.",
}


def _read_choice(store: Store, study_id: str) -> tuple[Choice | None, str]:
    """The choice, or a sentence on why it cannot be read: the rest of the page does not hang on it."""
    try:
        return load_choice(store, study_id), ""
    except RefusedError as error:
        return None, f"The choice is not shown: {error}."


def _best_config(study: Study) -> bytes | None:
    try:
        config = best_config(study.trained_config(), study)
    except RefusedError:  # no complete trial, or a config that this version does not know
        return None
    return yaml.safe_dump(config.to_dict(), sort_keys=False).encode()


def _legend(study: Study) -> str:
    names: dict[Mark, str] = {"best": "best", "configured": "configured", "complete": "complete"}
    names |= {"pruned": "stopped early"} if study.of_state("pruned") else {}
    names |= {"failed": "failed"} if study.of_state("failed") else {}
    return legend(names)


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_prose(sentence)}</li>' for sentence in sentences)}</ul>"


def _prose(sentence: str) -> str:
    """A sentence as HTML; what stands between backticks is code."""
    parts = escape(sentence).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
