"""Utterances that show what two systems make of missing words, chosen by rule and not by hand.

    for example in examples(store, systems[:2]):
        print(example.rule, example.utterance_id, example.label, example.predictions)

Each is shown under the first mask seed at a few missing rates; predictions are means over a system's trainings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lnln.corruption import make_masks
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.schema import Split, Utterances
from lnln.data.shards import iterate_shards
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate.confusion import RATES
from lnln.evaluate.estimates import suite_rates, view_order
from lnln.evaluate.suites import SUITES
from lnln.evaluate.systems import System
from lnln.evaluate.words import MarkedText, WordMarker, mark_features
from lnln.evaluations import evaluation_specs

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Example:
    """rule: why it was chosen. label: in the corpus's units. texts, predictions: for each of `rates`; predictions by
    title of the system."""

    utterance_id: str
    rule: str
    label: float
    mask_seed: int
    rates: tuple[float, ...]
    texts: tuple[MarkedText, ...]
    predictions: dict[str, tuple[float, ...]]


def examples(
    store: Store,
    systems: Sequence[System],
    manifest: FeatureManifest | None = None,
    *,
    suite: str = "ten_rates",
    rates: Sequence[float] = RATES,
    num_each: int = 1,
) -> list[Example]:
    """`num_each` utterances by each rule, none of them twice; fewer where a split has fewer.

    Errors and differences are means over `rates`. Of two systems: the largest disagreement; of the first: the largest
    error, the median one, and where it loses most from the lowest to the highest rate. manifest: default that of the
    evaluations. RefusedError where the systems were not scored on the same utterances, and as `read_predictions`.
    """
    first = systems[0].evaluations[suite][0]
    shown = [rate for rate in suite_rates(first, suite) if rate in rates and not isinstance(rate, tuple)]
    if not shown:
        return []
    said = {system.title: system.predictions(store, suite) for system in systems}
    start = said[systems[0].title][0]
    for system in systems[1:]:
        other = said[system.title][0]
        if (other.utterance_id, other.label.tolist()) != (start.utterance_id, start.label.tolist()):
            raise RefusedError(
                f"{systems[0].title} and {system.title} were not scored on the same utterances, so no example shows "
                "both; evaluate them on one corpus and split"
            )
    answers = {
        system.title: np.mean(
            [
                each.sentiment[view_order(evaluation, shown)[0]].astype(np.float64)
                for each, evaluation in zip(said[system.title], system.evaluations[suite], strict=True)
            ],
            axis=0,
        )
        for system in systems
    }
    label = start.label.astype(np.float64)
    chosen = choose(list(answers.values()), label, num_each)
    mask_seed = min(first.mask_seeds)
    manifest = manifest or read_features(store, first.corpus, first.feature_id)
    names = [start.utterance_id[row] for _, row in chosen]
    texts = _mark(store, manifest, first.split, suite, shown, mask_seed, names)
    return [
        Example(
            utterance_id=start.utterance_id[row],
            rule=rule,
            label=float(label[row]),
            mask_seed=mask_seed,
            rates=tuple(shown),
            texts=texts[start.utterance_id[row]],
            predictions={title: tuple(map(float, made[:, row])) for title, made in answers.items()},
        )
        for rule, row in chosen
    ]


def choose(answers: Sequence[Array], label: Array, num_each: int = 1) -> list[tuple[str, int]]:
    """(rule, row) of each example. answers: of one or more systems, (T, N), rates ascending; label: (N,).

    The first of equals in the order of the split.
    """
    errors = np.abs(answers[0] - label)
    mean = errors.mean(axis=0)
    order = np.argsort(mean, kind="stable")
    from_the_middle = np.argsort(np.abs(np.arange(len(order)) - (len(order) - 1) // 2), kind="stable")
    by_rule: dict[str, NDArray[np.int64]] = {}
    if len(answers) > 1:
        apart = np.abs(answers[0] - answers[1]).mean(axis=0)
        by_rule["largest disagreement"] = np.argsort(-apart, kind="stable")
    by_rule["largest error"] = np.argsort(-mean, kind="stable")
    if len(errors) > 1:
        by_rule["largest loss"] = np.argsort(errors[0] - errors[-1], kind="stable")
    by_rule["median error"] = order[from_the_middle]
    chosen: list[tuple[str, int]] = []
    for rule, rows in by_rule.items():
        taken = {row for _, row in chosen}
        chosen += [(rule, row) for row in rows.tolist() if row not in taken][:num_each]
    return chosen


def _mark(
    store: Store,
    manifest: FeatureManifest,
    split: Split,
    suite: str,
    rates: Sequence[float],
    mask_seed: int,
    names: Sequence[str],
) -> dict[str, tuple[MarkedText, ...]]:
    """By utterance its text under each of `rates`."""
    specs = evaluation_specs(SUITES[suite].corruption(), rates, [mask_seed])
    marker = WordMarker(manifest.tokenizer)
    marked: dict[str, tuple[MarkedText, ...]] = {}
    for utterance in _find(store, manifest, split, set(names)):
        name, raw_text = utterance.utterance_id[0], utterance.raw_text[0]
        if manifest.text_dim:
            marked[name] = (mark_features(raw_text),) * len(rates)
            continue
        masks = [make_masks(spec, [name], utterance.lengths()) for spec in specs]
        marked[name] = tuple(marker.mark(raw_text, utterance.text[0], each.kept["text"][0]) for each in masks)
    return marked


def _find(store: Store, manifest: FeatureManifest, split: Split, names: set[str]) -> Iterator[Utterances]:
    """The utterances `names`, one at a time, from one shard after another."""
    for shard in iterate_shards(store, manifest, split):
        for row, name in enumerate(shard.utterance_id):
            if name in names:
                yield shard.take([row])
