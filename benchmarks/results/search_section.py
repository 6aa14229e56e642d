"""The section of docs/results.md on the study over the loss weights, from what is stored of it alone."""

from __future__ import annotations

from benchmarks.results.plan import Plan
from benchmarks.results.search import Search, num_done
from lnln.markdown import code, escape, table
from tuning.choice import CAUTION
from tuning.report.tables import importance_rows
from tuning.select import table as trial_rows

_IMPORTANCES = (
    "fANOVA gives the share of the scores' variance over the space that a parameter explains, or a pair beyond its "
    "two; PED-ANOVA how far a parameter's values among the best quarter of the trials differ from those of all, as a "
    "share of all such differences. The spread is over resamples of the trials. *By chance* is what one study of "
    "twenty would give, were the scores dealt to the trials at random: what is not above it says nothing."
)


def search_section(plan: Plan, search: Search) -> list[str]:
    """Its parts: the study, its trials, what matters, the choice."""
    assert plan.search is not None
    parts = [f"## {escape(plan.search.title)}"]
    if plan.search.note:
        parts.append(plan.search.note.strip())
    parts += [_measured(search), table(trial_rows(search.study))]
    parts += ["### What matters", *_what_matters(search)]
    parts += ["### With fresh seeds", *_choice(search)]
    return parts


def _measured(search: Search) -> str:
    study, config = search.study, search.study.trained_config()
    states = {state: len(study.of_state(state)) for state in ("complete", "pruned", "failed")}
    counts = ", ".join(f"{num} {state}" for state, num in states.items() if num)
    minutes = sum(trial.seconds or 0 for trial in study.trials) / 60
    versions = ", ".join(f"{package} {version}" for package, version in study.versions.items())
    return (
        f"{num_done(study)} trials of {_epochs(config.tune.epochs)} each ({counts}), with training seed "
        f"{', '.join(map(str, study.seeds))}, proposed by {code(config.tune.sampler)}; the first has the configured "
        f"parameters. Trained in {minutes:.0f} minutes on {escape(search.device)}, with {escape(versions)}, by the "
        f"code {code(search.code)}. {code('make results DATA=FILE ONLY=search')} makes all of this section; "
        f"{code('lnln tune')} and {code('lnln choose')} do the same for any corpus."
    )


def _what_matters(search: Search) -> list[str]:
    if search.too_little:
        return [search.too_little]
    singles = [each for each in search.importances if len(each.parameters) == 1]
    pairs = [each for each in search.importances if len(each.parameters) > 1]
    return [_IMPORTANCES, *(table(importance_rows(rows)) for rows in (singles, pairs) if rows)]


def _choice(search: Search) -> list[str]:
    choice, config = search.choice, search.study.trained_config()
    verdict = choice.verdict[0].upper() + choice.verdict[1:]
    seeds = ", ".join(map(str, choice.seeds))
    parts = [
        f"**{escape(verdict)}.**",
        f"The best trial and the configured parameters, trained for up to {_epochs(config.train.epochs)} with seeds "
        f"{seeds}, which the study did not use; means over all missing rates, ± over seeds. {CAUTION}",
        table(choice.rows()),
    ]
    differences = choice.difference_rows()
    if differences:
        parts.append(
            "Paired differences to the configured parameters, with their intervals over utterances and seeds "
            "(`lnln/evaluate/paired.py`):"
        )
        parts.append(table(differences))
    if choice.earlier:
        verdicts = "\n".join(
            f"- seeds {', '.join(map(str, each['seeds']))}: {escape(each['verdict'])}" for each in choice.earlier
        )
        parts.append(f"Compared before, which makes one of these by chance more likely:\n\n{verdicts}")
    return parts


def _epochs(num: int) -> str:
    return f"{num} epoch{'' if num == 1 else 's'}"
