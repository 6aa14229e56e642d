"""What each verb shows of its result: one function for one kind of result, the same content as table and as JSON."""

from __future__ import annotations

import shlex
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich.console
import rich.table

from lnln.cli.console import Console, table, visible
from lnln.config import to_dict

if TYPE_CHECKING:
    from lnln.data.manifest import FeatureManifest, ViewManifest
    from lnln.data.quarantine import Quarantined
    from lnln.data.simulated_text import Simulation
    from lnln.doctor import Finding
    from lnln.evaluations import Evaluation
    from lnln.gc import Garbage
    from lnln.model_store import Comparison, PublishedModel, Version
    from lnln.runs import Run
    from tuning.choice import Choice
    from tuning.record import Study, TrialRecord


# Of a lineage what only programs read; it is in --json.
LINEAGE_OF_PROGRAMS = ("config", "model", "extraction", "view_ids")

# Rows of the quarantine table that are shown; all of them with --json.
NUM_QUARANTINED_SHOWN = 20


def corpus(console: Console, manifest: FeatureManifest) -> None:
    value, rows, lines = _corpus(manifest)
    console.result(value, table=rows, lines=lines)


def extraction(console: Console, manifest: FeatureManifest, left_out: Sequence[Quarantined], *, store_url: str) -> None:
    """What `corpus` shows, what was met, and the clips that are not in it."""
    from lnln.data.counts import say_counts

    assert manifest.extraction is not None
    value, utterances, lines = _corpus(manifest)
    value["quarantine"] = [to_dict(row) for row in left_out]
    met = table(["what was met", "how many"], say_counts(manifest.extraction.counts))
    tables = [utterances, met]
    if left_out:
        shown = [[row.utterance_id, row.stage, row.reason] for row in left_out[:NUM_QUARANTINED_SHOWN]]
        tables.append(table(["clip or file", "stage", "reason"], shown, "not in the corpus"))
        assert manifest.extraction.quarantine is not None
        hidden = len(left_out) - len(shown)
        more = f"and {hidden} more; all {len(left_out)} that are not in the corpus are in" if hidden > 0 else "kept in"
        lines.append(f"{more} {store_url}/{manifest.extraction.quarantine.path}")
    console.result(value, table=rich.console.Group(*tables), lines=lines)


def _corpus(manifest: FeatureManifest) -> tuple[dict[str, Any], rich.table.Table, list[str]]:
    """The manifest as a value, a table and lines."""
    rows = []
    for split, entry in manifest.splits.items():
        lengths = manifest.lengths[split]
        num_bytes = sum(shard.num_bytes for shard in entry.shards)
        steps = [f"{lengths[m].mean:.1f} ({lengths[m].num_absent} absent)" for m in lengths]
        rows.append([split, entry.num_utterances, len(entry.shards), f"{num_bytes / 1e6:.1f}", *steps])
    dims = ", ".join(f"{modality} {dim}" for modality, dim in manifest.dims.items())
    columns = ["split", "utterances", "shards", "MB", "text steps", "audio steps", "vision steps"]
    lines = [f"corpus {manifest.corpus}, features {manifest.feature_id}, dims {dims}"]
    if manifest.source.get("synthetic"):
        lines.append("This corpus is synthetic: scores on it say nothing about people.")
    if manifest.source.get("published_as"):
        lines.append(f"Recognised as the published file {manifest.source['published_as']}.")
    if "train" not in manifest.splits:
        lines.append("No clip is for training: the column `mode` of label.csv says which are train, valid and test.")
    for modality in manifest.absent_modalities() if "train" in manifest.splits else ():
        lines.append(f"{modality}: absent from the whole training split; a model can learn nothing from it.")
    cleaned = {m: counts for m, counts in manifest.cleaned.items() if any(counts.values())}
    for modality, counts in cleaned.items():
        said = " and ".join(f"{count:,} {kind.removeprefix('num_')}" for kind, count in counts.items() if count)
        lines.append(f"{modality}: {said} values were set to 0.")
    value = {**to_dict(manifest), "absent_modalities": list(manifest.absent_modalities())}
    return value, table(columns, rows), lines


def views(console: Console, name: str, made: Sequence[ViewManifest]) -> None:
    rows = []
    for view in made:
        realised = next(iter(view.realised_rates.values()), {})
        rates = view.spec.get("rates")
        asked = f"draw {view.spec['draw']}" if rates is None else " ".join(f"{rate:g}" for rate in rates)
        rows.append([view.view_id, view.spec["protocol"], asked, *(f"{realised[m]:.3f}" for m in realised)])
    columns = ["view", "protocol", "rates or draw", "text erased", "audio erased", "vision erased"]
    value = {"corpus": name, "views": [{"view_id": view.view_id, "spec": to_dict(view.spec)} for view in made]}
    console.result(value, table=table(columns, rows, f"views of {name}"), lines=[f"{len(made)} views"])


def simulation(console: Console, made: Simulation, *, was_there: bool) -> None:
    """was_there: it had been made before this call, which then did nothing."""
    rows = [
        [split, made.splits[split].num_utterances, f"{lengths.mean:.1f}", lengths.max, lengths.num_absent]
        for split, lengths in made.lengths.items()
    ]
    tables = [table(["split", "utterances", "mean steps", "most", "without"], rows, f"simulated text of {made.corpus}")]
    lines = [
        f"simulated text {made.simulation_id} of corpus {made.corpus}, features {made.feature_id}, by "
        f"{made.provider['name']}, {made.dim} dimensions{': was there already, nothing was done' if was_there else ''}"
    ]
    judged = {split: made.quality[split] for split in ("train", "valid") if split in made.quality}
    if judged:
        told = [
            [split, one["num_utterances"], *(_scored(one[of][score]) for score in ("r2", "cosine") for of in _SAID)]
            for split, one in judged.items()
        ]
        columns = ["learned, and judged on", "utterances", "R²", "R² of the mean", "cosine", "cosine of the mean"]
        tables.append(table(columns, told, "what the audio tells of the text's features"))
        useless = [s for s, one in judged.items() if not _is_better(one["simulated"]["r2"], one["mean_step"]["r2"])]
        if useless:
            lines.append(
                f"On {' and '.join(useless)}, none of which its map has seen, the mean step is as near to the text's "
                "features as the simulated ones."
            )
    if failed := made.counts.get("utterances_failed", 0):
        lines.append(f"{failed} utterances could not be heard and have no steps.")
    if lost := made.counts.get("utterances_without_clip", 0):
        lines.append(f"{lost} utterances have no clip there, and no steps.")
    value = {**to_dict(made), "was_there": was_there}
    console.result(value, table=rich.console.Group(*tables), lines=lines)


# What is judged: the simulated steps, and the mean step in place of each.
_SAID = ("simulated", "mean_step")


def _scored(score: float | None) -> str:
    return "undefined" if score is None else f"{score:.3f}"


def _is_better(score: float | None, other: float | None) -> bool:
    return score is not None and other is not None and score > other


def run(console: Console, finished: Run, *, was_finished: bool) -> None:
    """was_finished: it had been trained before this call, which then did nothing."""
    from lnln.runs import absence

    rows = [[rate, f"{scores['mae']:.3f}", f"{scores['corr']:.3f}"] for rate, scores in finished.validation.items()]
    lines = [
        f"run {finished.run_id}{' finished before' if was_finished else ''}: mean validation MAE "
        f"{finished.score:.4f} at epoch {finished.best_epoch}, {finished.num_parameters:,} parameters, "
        f"{finished.seconds:.0f} s",
    ]
    if finished.absent_modalities:
        lines.append(absence(finished.corpus, finished.absent_modalities))
    console.result(_run(finished), table=table(["missing rate", "MAE", "Corr"], rows, "validation"), lines=lines)


def seeds(
    console: Console, runs: Mapping[int, Run], failed: Mapping[int, str], *, were_finished: Sequence[int], command: str
) -> None:
    """runs: by seed, one or more. failed: why, by seed. were_finished: seeds whose runs had been trained before this
    call. command: `lnln` as the user has to write it."""
    from lnln.runs import absence

    scores = [finished.score for finished in runs.values()]
    mean, sd = statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else None
    rows = [[seed, finished.run_id, finished.best_epoch, f"{finished.score:.4f}"] for seed, finished in runs.items()]
    said = f"{len(runs)} seeds: mean validation MAE {mean:.4f}, sd {sd:.4f}" if sd is not None else "1 seed: no sd"
    lines = [said]
    if were_finished:
        lines.append(f"finished before: {', '.join(map(str, were_finished))}")
    first, *_ = runs.values()
    if first.absent_modalities:
        lines.append(absence(first.corpus, first.absent_modalities))
    report = f"{command} report {' '.join(finished.run_id for finished in runs.values())}"
    lines.append(f"compare them: {report}")
    value = {
        "runs": [{"seed": seed, **_run(finished)} for seed, finished in runs.items()],
        "mean": mean,
        "sd": sd,
        "failed": [{"seed": seed, "reason": reason} for seed, reason in failed.items()],
        "report": report,
    }
    console.result(value, table=table(["seed", "run", "best epoch", "validation MAE"], rows), lines=lines)


def _run(finished: Run) -> dict[str, Any]:
    shown = ("run_id", "corpus", "score", "best_epoch", "validation", "history", "num_parameters", "seconds")
    return {key: to_dict(getattr(finished, key)) for key in (*shown, "absent_modalities")}


def study(console: Console, made: Study, commands: Mapping[str, str]) -> None:
    """commands: what may follow, by verb: `train`, `choose`, `report`; those that make sense."""
    from tuning import select

    ranked, rows = select.ranked_trials(made), select.table(made)
    content = made.to_dict()
    said = ", ".join(f"{count} {state}" for state, count in content["num_trials"].items() if count) or "no trial"
    lines = [f"study {made.study_id}: {said}", select.verdict(made)]
    told = {"train": "train with the best", "choose": "find out by fresh seeds", "report": "see what it shows"}
    lines += [f"{told[verb]}: {command}" for verb, command in commands.items()]
    value = {
        **content,
        "trials": [trial.to_dict() for trial in made.trials],
        "best": _trial(ranked[0] if ranked else None),
        "configured_trial": _trial(select.configured_trial(made)),
        "front": [_trial(trial) for trial in select.pareto_front(made)],
        "verdict": select.verdict(made),
        **{verb: commands.get(verb) for verb in told},
    }
    shown = table(list(rows[0]), [list(row.values()) for row in rows]) if rows else None
    console.result(value, table=shown, lines=lines)


def _trial(made: TrialRecord | None) -> dict[str, Any] | None:
    """What identifies a trial, and its scores."""
    if made is None:
        return None
    return {"number": made.number, "parameters": made.parameters, "values": made.values}


def choice(console: Console, made: Choice, *, command: str) -> None:
    """command: `lnln` as the user has to write it."""
    from tuning.choice import CAUTION

    tables = [
        table(list(rows[0]), [list(row.values()) for row in rows])
        for rows in (made.rows(), made.difference_rows())
        if rows
    ]
    lines = [f"{setting.title}: {setting.reason}" for setting in made.candidates if setting.reason]
    lines += [made.verdict, CAUTION]
    if made.published is not None:
        lines.append(f"published: {made.published}; see it: {command} report {made.published}")
    elif made.outcome == "better" and made.best_run is not None:
        lines.append(f"publish its best run: {command} publish {made.best_run.run_id} --name NAME")
    console.result(made.to_dict(), table=rich.console.Group(*tables), lines=lines)


def evaluation(console: Console, made: Evaluation) -> None:
    title = f"{made.title} {_where(made)}"
    title = f"{title}\n{made.note}" if made.note else title
    lines = [f"evaluation {made.evaluation_id}", *_cautions(made)]
    console.result(made.to_dict(), table=_by_column(made.rows(), title), lines=lines)


def suites(console: Console, made: Mapping[str, Evaluation]) -> None:
    """made: by the suite's name, one or more, all of one model on one split."""
    from lnln.evaluate.suites import SUITES

    first = next(iter(made.values()))
    tables = [
        _by_column(each.rows(SUITES[name].name_rate), f"{SUITES[name].title}: {SUITES[name].question}")
        for name, each in made.items()
    ]
    ids = ", ".join(f"{name} {each.evaluation_id}" for name, each in made.items())
    lines = [f"{first.name} {_where(first)}; evaluations {ids}", *_cautions(first)]
    value = {"suites": {name: each.to_dict() for name, each in made.items()}}
    console.result(value, table=rich.console.Group(*tables), lines=lines)


def _where(made: Evaluation) -> str:
    return f"on {made.corpus} {made.split}, {made.num_labelled} labelled utterances"


def _by_column(rows: Sequence[Mapping[str, str]], title: str) -> rich.table.Table:
    return table(list(rows[0]), [list(row.values()) for row in rows], title)


def _cautions(made: Evaluation) -> list[str]:
    """What must be said beside the scores."""
    lines = []
    if made.note:
        lines.append(f"These scores are {made.note}.")
    if made.absent_modalities:
        lines.append(f"The model was trained without {' and '.join(made.absent_modalities)}: no utterance had it.")
    if made.trained_on:
        lines.append(f"The model was trained on {made.trained_on}, not on these features:")
        lines += [f"  {sentence}" for sentence in made.carries_over]
    if made.synthetic:
        lines.append("This corpus is synthetic: its scores say nothing about people.")
    return lines


def models(console: Console, published: Sequence[PublishedModel]) -> None:
    rows = [
        [model.name, version.version, _aliases(model, version), version.corpus, _score("mae", version.score("mae"))]
        for model in published
        for version in model.versions
    ]
    columns = ["model", "version", "aliases", "corpus", "validation MAE"]
    lines = [] if rows else ["nothing published yet; `lnln publish RUN --name NAME` does it"]
    console.result({"models": to_dict(list(published))}, table=table(columns, rows) if rows else None, lines=lines)


def model(console: Console, shown: PublishedModel, version: Version, lineage: Mapping[str, Any]) -> None:
    """All versions of a name, every move of its aliases, and the lineage of one version."""
    from lnln.metrics import TITLES

    known = {metric for each in shown.versions for metric in each.validation_scores}
    metrics = [metric for metric in TITLES if metric == "mae" or metric in known]
    best = shown.find("best")
    versions = [
        [
            each.version,
            _aliases(shown, each),
            _minute(each.published_at),
            each.corpus,
            *(_score(metric, each.score(metric)) for metric in metrics),
            _beside(each, best),
        ]
        for each in shown.versions
    ]
    moves = [[_minute(move.moved_at), move.alias, move.before or "", move.after, move.reason] for move in shown.history]
    facts = {key: value for key, value in lineage.items() if key not in LINEAGE_OF_PROGRAMS}
    facts["validation_views"] = lineage.get("view_ids", {}).get("validation", [])
    told = [[key, _fact(value)] for key, value in facts.items() if value not in (None, "", [], {})]
    columns = [
        "version",
        "aliases",
        "published (UTC)",
        "corpus",
        *(TITLES[metric] for metric in metrics),
        "against best",
    ]
    tables = [
        table(columns, versions, f"{shown.name}: means over the validation views"),
        table(["moved (UTC)", "alias", "from", "to", "why"], moves, "what its aliases stood for"),
        table(["what", "value"], told, f"lineage of {version.reference}; with --json its config too"),
    ]
    value = {"model": to_dict(shown), "version": version.version, "lineage": dict(lineage)}
    console.result(value, table=rich.console.Group(*tables))


def comparison(console: Console, made: Comparison, *, command: str) -> None:
    """command: `lnln` as the user has to write it."""
    from lnln.evaluations import format_interval
    from lnln.metrics import TITLES

    first, second = (version.reference for version in made.versions)
    tables = []
    if made.settings:
        rows = [[key, *pair] for key, pair in made.settings.items()]
        tables.append(table(["what differs", first, second], rows))
    for scores in made.scores:
        rows = []
        for metric, values in scores.values.items():
            cells = [
                _score(metric, value) + ("" if i is None else f" ({format_interval(metric, (i.low, i.high))})")
                for value, i in zip(values, scores.intervals[metric], strict=True)
            ]
            rows.append([TITLES[metric], *cells, _score(metric, values[1] - values[0])])
        title = f"{'validation' if scores.split == 'valid' else scores.split}: {scores.what}"
        tables.append(table(["mean over the views", first, second, "second - first"], rows, title))
    lines = [] if made.settings else ["nothing of what made them differs"]
    lines += [f"{note}." for note in made.notes]
    lines.append(f"whether a difference is more than chance: {command} report {first} {second}")
    console.result(to_dict(made), table=rich.console.Group(*tables), lines=lines)


def _aliases(shown: PublishedModel, version: Version) -> str:
    """`best-*` where it is the best in every metric."""
    of_metrics = {alias for alias in shown.aliases if alias.startswith("best-")}
    own = [alias for alias, target in shown.aliases.items() if target == version.version]
    if len(of_metrics) > 1 and of_metrics <= set(own):
        own = [*(alias for alias in own if alias not in of_metrics), "best-*"]
    return ", ".join(own)


def _score(metric: str, value: float | None) -> str:
    from lnln.evaluations import PLAIN_NUMBERS, format_score

    if value is None:
        return "-"
    return f"{value:.4f}" if metric in PLAIN_NUMBERS else format_score(metric, value)


def _minute(moment: str) -> str:
    """A moment of UTC, such as 2026-11-21 19:55."""
    return moment[:16].replace("T", " ")


def _beside(version: Version, best: Version | None) -> str:
    """Whether the scores of `version` say anything beside those of `best`."""
    if best is None or version.version == best.version or version.is_comparable(best):
        return "comparable"
    if version.selection_score is None or best.selection_score is None:
        return "without a score"
    return "other features" if version.feature_id != best.feature_id else "other views"


def _fact(value: Any) -> str:
    """A value of a lineage on one line; what is nested, without quotes and braces."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_fact(item)}" for key, item in value.items() if item not in (None, "", [], {}))
    return ", ".join(map(_fact, value)) if isinstance(value, (list, tuple)) else str(value)


def predictions(console: Console, rows: Sequence[dict[str, Any]], left_out: Sequence[Quarantined] = ()) -> None:
    """left_out: clips that could not be used."""
    columns = ["input", "sentiment", "in words", "label", "completeness", "missing"]
    cells = [
        [
            row["input"] if row["input"] is not None else row["utterance_id"],
            f"{row['sentiment']:+.2f}",
            row["label_text"],
            "" if row["label"] is None else f"{row['label']:+.2f}",
            "-" if row["completeness"] is None else f"{row['completeness']:.2f}",
            ", ".join(row["missing"]) or "nothing",
        ]
        for row in rows
    ]
    notes = [f"{row['utterance_id']}: {note}" for row in rows for note in row["notes"]]
    notes += [f"{row.utterance_id}: no prediction, at stage {row.stage}: {row.reason}" for row in left_out]
    value = {"predictions": list(rows), **({"quarantine": to_dict(list(left_out))} if left_out else {})}
    console.result(value, table=table(columns, cells, is_prose=True), lines=notes)


def findings(console: Console, found: Sequence[Finding]) -> None:
    """All of them as a table; of what is wrong, what was expected and what mends it too, in a line each."""
    rows = [[finding.topic, finding.level, finding.text] for finding in found]
    lines = [f"wrong: {' '.join(visible(finding.line).split())}" for finding in found if finding.level == "wrong"]
    console.result({"findings": to_dict(list(found))}, table=table(["what", "state", "found"], rows), lines=lines)


def garbage(console: Console, found: Garbage, removed: Sequence[str] | None, *, command: str) -> None:
    """removed: None where nothing was to be removed. command: what lists it again."""
    uploads = [upload.path for upload in found.uploads]
    value = {
        "num_files": len(found.paths),
        "num_bytes": found.num_bytes,
        "paths": found.paths,
        "unfinished_uploads": uploads,
        "kept": found.kept,
        "removed": None if removed is None else list(removed),
    }
    paths = (
        [*found.paths, *(f"{path} (an upload that never ended)" for path in uploads)] if removed is None else removed
    )
    lines = [f"kept {folder}: {reason}" for folder, reason in found.kept.items()]
    files = f"{len(found.paths)} file{'' if len(found.paths) == 1 else 's'} ({found.num_bytes:,} bytes)"
    count = f"{files} and {len(uploads)} unfinished upload{'' if len(uploads) == 1 else 's'}"
    if removed is not None:
        lines.append(f"removed {len(removed)} of {count} that nothing names")
    elif paths:
        lines.append(f"nothing names {count}; `{command} --delete` removes them")
    else:
        lines.append("nothing to remove")
    console.result(value, lines=[*paths, *lines])


def demo(console: Console, outcome: dict[str, Any], *, command: str, is_sample: bool) -> None:
    """command: `lnln` as the user has to write it. is_sample: no corpus of the user's own was given."""
    from lnln.evaluations import Evaluation

    if console.as_json:
        console.result(outcome)
        return
    evaluation(console, Evaluation.from_dict(outcome["evaluation"]))
    predictions(console, outcome["predictions"])
    model, folder = outcome["model"], outcome["folder"]
    lines = [
        f"Done in {outcome['seconds']:.0f} s.",
        f"  report   {outcome['report']}",
        f"  model    {model}, pulled to {folder}",
    ]
    if outcome["study_report"]:
        lines.append(f"  search   {outcome['study_report']}")
    lines.append("Try next:")
    if activate := _activation():
        lines.append(f"  {activate}    # puts lnln on the path")
    lines += [
        f'  {command} predict {shlex.quote(folder)} "the plot was thin but the music saved it"',
        f"  {command} evaluate {outcome['run_id']} --mask-seeds 0,1,2",
    ]
    if is_sample:
        lines.append(
            f"  {command} import unaligned_50.pkl --corpus mosi && {command} corrupt mosi && {command} train mosi"
        )
    console.result(None, lines=lines)


def _activation() -> str | None:
    """What makes `lnln` a command of this shell, where it is none and lies in a virtual environment."""
    script = Path(sys.prefix) / "bin" / "activate"
    if shutil.which("lnln") or not script.is_file():
        return None
    inside = script.is_relative_to(Path.cwd())
    return f"source {shlex.quote(str(script.relative_to(Path.cwd()) if inside else script))}"
