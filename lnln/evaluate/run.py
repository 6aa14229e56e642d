"""Score a model at every missing rate, from one load of the corpus, beside what needs no model.

    evaluation = evaluate(store, "mosi-lnln@best")          # or a run id, or a pulled folder
    for row in evaluation.rows(): ...
    evaluate_suites(store, "mosi-lnln@best", ["ten_rates", "absent"])["absent"].mean["mae"]

An evaluation is known by its weights, features, split and views: asked for again, the stored one is returned. It is
computed in float32 whatever precision the model was trained in.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lnln import __version__
from lnln.config import CorruptionConfig, Protocol, Rate
from lnln.corruption import ViewSpec
from lnln.corruption.noise import NoiseSource
from lnln.data.manifest import FeatureManifest
from lnln.data.schema import SPLITS, Split, Utterances
from lnln.data.shards import read_labels, read_split
from lnln.data.store import Store
from lnln.data.verify import is_intact
from lnln.errors import RefusedError, StoreFailedError
from lnln.evaluate.predictions import Answers, encode_predictions
from lnln.evaluate.published import SelectedOnTest, open_selected_on_test
from lnln.evaluate.scores import BOOTSTRAP_SEED, NUM_RESAMPLES, merge_scores, score_views
from lnln.evaluate.suites import choose_suites
from lnln.evaluate.transfer import features_for, transfer_to
from lnln.evaluations import (
    PUBLISHED_SELECTION,
    SELECTIONS,
    Evaluation,
    evaluation_id,
    evaluation_specs,
    read_evaluation,
)
from lnln.model_store.opened import OpenedModel, open_model
from lnln.model_store.simulator import TextSource, text_source
from lnln.progress import bar
from lnln.runs import run_folder

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

Values = NDArray[np.float32]


def evaluate(
    store: Store,
    name: str,
    corpus: str | None = None,
    *,
    split: str = "test",
    rates: Sequence[Rate] | None = None,
    mask_seeds: Sequence[int] | None = None,
    selection: str = "validation",
    protocol: Protocol | None = None,
    corruption: CorruptionConfig | None = None,
    batch_size: int = 256,
    force: bool = False,
) -> Evaluation:
    """Score the model `name` (a run, a published model, a folder) on a split of `corpus`, default: its own.

    Another corpus must have the same widths, vocabulary and label range; what else of the model does not hold there
    stands in the result (`carries_over`).

    rates and mask_seeds default to those of the model's config; every rate is scored under every mask seed. selection:
    `validation` for the model itself; `published` for each metric with the weights of the epoch that was best in it on
    test, of a run with `train.selection: published`, for comparison with tables made so and for nothing else.
    corruption: how views erase, default as the model's config says; models whose configs differ in it are compared on
    the same views by giving one. protocol: instead of its. The result is stored below the run or model and returned as
    it is the next time, unless `force`. Raises RefusedError for an unknown model, corpus or split, features that do not
    fit the model, a split without labels, a model without weights of the selection, and noise on token ids of a
    vocabulary that is not at hand.
    """
    subject = Evaluator(store, batch_size=batch_size).open(name, corpus, split=split, selection=selection)
    chosen = corruption or subject.opened.corruption
    if protocol is not None:
        chosen = replace(chosen, protocol=protocol)
    return subject.score(evaluation_specs(chosen, rates, mask_seeds), force=force)


def evaluate_suites(
    store: Store,
    name: str,
    suites: Sequence[str] = ("ten_rates",),
    corpus: str | None = None,
    *,
    split: str = "test",
    mask_seeds: Sequence[int] | None = None,
    selection: str = "validation",
    batch_size: int = 256,
    force: bool = False,
) -> dict[str, Evaluation]:
    """As `evaluate`, on the views of each of `suites` (lnln/evaluate/suites.py), by its name; from one load of all.

    mask_seeds: default MASK_SEEDS. Raises RefusedError as `evaluate`, and for an unknown suite.
    """
    evaluator = Evaluator(store, batch_size=batch_size)
    subject = evaluator.open(name, corpus, split=split, selection=selection)
    return subject.score_suites(suites, mask_seeds, force=force)


class Evaluator:
    """Scores models of one store. What was read of a corpus for one model serves the next ones.

    evaluator = Evaluator(store)
    for name in names:
        evaluations = evaluator.open(name).score_suites(["ten_rates", "absent"])
    """

    def __init__(self, store: Store, *, batch_size: int = 256) -> None:
        self.store, self.batch_size = store, batch_size
        # The last split that was read, by features and split: all of it lies in memory.
        self._read: dict[tuple[str, Split], tuple[Utterances, Values | None]] = {}
        # The same with the simulated text that was last wanted.
        self._simulated: dict[tuple[str, Split, str], Utterances] = {}

    def open(
        self, name: str, corpus: str | None = None, *, split: str = "test", selection: str = "validation"
    ) -> Subject:
        """The model `name` on a split of `corpus`; arguments and errors as those of `evaluate`."""
        if split not in SPLITS:
            raise RefusedError(f"a split is one of {', '.join(SPLITS)}, got {split!r}")
        if selection not in SELECTIONS:
            raise RefusedError(f"a selection is one of {', '.join(SELECTIONS)}, got {selection!r}")
        opened = open_model(self.store, name)
        selected = open_selected_on_test(self.store, opened) if selection == "published" else None
        manifest = features_for(self.store, opened, corpus)
        return Subject(self, opened, selected, manifest, split, text_source(self.store, opened, manifest))

    def read(self, manifest: FeatureManifest, split: Split) -> tuple[Utterances, Values | None]:
        """The utterances of the split, and the labels of the training split, None where there is none."""
        key = manifest.digest(), split
        if key not in self._read:
            utterances = read_split(self.store, manifest, split)
            labels = utterances.label if split == "train" else None
            if labels is None and "train" in manifest.splits:
                labels = read_labels(self.store, manifest, "train")
            self._read = {key: (utterances, labels)}
            self._simulated = {}
        return self._read[key]

    def read_with(
        self, manifest: FeatureManifest, split: Split, source: TextSource | None
    ) -> tuple[Utterances, Values | None]:
        """As `read`, with the simulated text of `source`."""
        utterances, labels = self.read(manifest, split)
        if source is None:
            return utterances, labels
        key = manifest.digest(), split, source.said if source.simulation is None else source.simulation.digest()
        if source.simulation is None or key not in self._simulated:
            self._simulated = {key: source.add(self.store, split, utterances)}
        return self._simulated[key], labels


@dataclass(frozen=True)
class Subject:
    """A model on a split, ready to be scored. selected: its weights selected on test, where these are scored.

    source: of the simulated text that it reads, None where it reads none.
    """

    evaluator: Evaluator
    opened: OpenedModel
    selected: SelectedOnTest | None
    manifest: FeatureManifest
    split: Split
    source: TextSource | None = None

    def score_suites(
        self, suites: Sequence[str], mask_seeds: Sequence[int] | None = None, *, force: bool = False
    ) -> dict[str, Evaluation]:
        """`evaluate_suites`."""
        chosen = choose_suites(suites)
        specs = {
            name: evaluation_specs(suite.corruption(), mask_seeds=suite.mask_seeds(mask_seeds))
            for name, suite in chosen.items()
        }
        for each in specs.values():  # all of it, before the first is scored
            self._check(each)
        return {name: self.score(each, force=force) for name, each in specs.items()}

    def score(self, specs: Sequence[ViewSpec], *, force: bool = False) -> Evaluation:
        """All numbers under the views `specs`, every rate with every mask seed: stored, or computed and stored."""
        self._check(specs)
        opened, selected, manifest, store = self.opened, self.selected, self.manifest, self.evaluator.store
        weights = opened.weights_sha256 if selected is None else selected.digest
        source, view_ids = self.source, [spec.view_id for spec in specs]
        simulated = "" if source is None else source.identity
        identity = evaluation_id(weights, manifest.digest(), self.split, view_ids, simulated)
        if not force and (stored := _stored(store, opened, identity)) is not None:
            return stored
        utterances, train_labels = self.evaluator.read_with(manifest, self.split, source)
        transfer = transfer_to(store, opened, manifest, self.split, utterances.label)
        if train_labels is None and transfer is not None:
            train_labels = transfer.train_labels
        if train_labels is None:
            raise RefusedError(
                f"the baselines need labels of a training split, and neither corpus {manifest.corpus} has one nor is "
                f"the corpus that {opened.reference} was trained on in {store.url}; import that too"
            )
        inputs = (manifest, self.split, utterances, specs, self.evaluator.batch_size)
        answers: dict[int | None, Answers] = {}
        if selected is None:
            answers[None] = predict_views(store, opened, *inputs)
        else:
            for epoch in selected.files:
                answers[epoch] = predict_views(store, opened, *inputs, weights=selected.weights(store, epoch))
        scored = {
            epoch: score_views(specs, a.sentiment, a.completeness, utterances.label, train_labels, manifest.label_range)
            for epoch, a in answers.items()
        }
        model: dict[str, Any] = {"run_id": opened.run_id, "weights_sha256": weights}
        carries_over = () if transfer is None else transfer.carries_over
        if source is not None:
            model["simulated_text"] = source.said
            carries_over = (*carries_over, *([] if transfer is None else [f"simulated text: {source.said}"]))
        if selected is None:
            numbers = scored[None]
        else:
            numbers = merge_scores({metric: scored[e] for metric, e in selected.epochs.items()}, manifest.label_range)
            model["weights_sha256_by_epoch"] = {str(epoch): file["sha256"] for epoch, file in selected.files.items()}
        return store_evaluation(
            store,
            opened.evaluations,
            identity,
            (manifest, self.split, utterances, specs),
            answers,
            name=opened.reference,
            model=model,
            selection="validation" if selected is None else "published",
            epochs={} if selected is None else dict(selected.epochs),
            note="" if selected is None else PUBLISHED_SELECTION,
            absent_modalities=tuple(opened.features.get("absent_modalities", ())),
            trained_on="" if transfer is None else transfer.trained_on,
            carries_over=carries_over,
            **numbers,
        )

    def _check(self, specs: Sequence[ViewSpec]) -> None:
        if not specs:
            raise RefusedError("an evaluation needs one missing rate and one mask seed or more, got none")
        if len({spec.view_id for spec in specs}) < len(specs):
            raise RefusedError("an evaluation takes every missing rate and mask seed once; some were given twice")
        if specs[0].protocol == "noise":
            NoiseSource.of(self.manifest)  # refuses what it could not draw before anything is read


def predict_views(
    store: Store,
    opened: OpenedModel,
    manifest: FeatureManifest,
    split: Split,
    utterances: Utterances,
    specs: Sequence[ViewSpec],
    batch_size: int,
    *,
    weights: Mapping[str, Tensor] | None = None,
) -> Answers:
    """Sentiment and completeness of every view and utterance, in float32, on the accelerator if there is one.

    weights: to be used instead of the model's own.
    """
    import torch

    from lnln.batches import EvaluationBatches
    from lnln.views import Views

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = opened.load()
    if weights is not None:
        model.load_state_dict(weights)
    model = model.to(device).eval()
    views = Views(utterances, split, store, manifest)
    unknown_id = manifest.tokenizer.unknown_id
    batches = EvaluationBatches(utterances, views, specs, unknown_id, batch_size=batch_size, device=device)
    sentiment, completeness = np.empty(batches.shape, np.float32), np.full(batches.shape, np.nan, np.float32)
    is_estimated = False
    with bar(f"evaluate {opened.reference}", len(batches)) as advance, torch.inference_mode():
        for batch in batches:
            output = model(batch.inputs)
            sentiment[batch.view, batch.utterance] = output.sentiment.float().cpu().numpy()
            if output.completeness is not None:
                is_estimated = True
                completeness[batch.view, batch.utterance] = output.completeness.float().cpu().numpy()
            advance()
    return Answers(sentiment, completeness if is_estimated else None)


def store_evaluation(
    store: Store,
    folder: str,
    identity: str,
    scored_on: tuple[FeatureManifest, Split, Utterances, Sequence[ViewSpec]],
    answers: Mapping[int | None, Answers],
    **fields: Any,
) -> Evaluation:
    """Write predictions and, last, the record of an evaluation to `folder`.

    answers: to the views of `scored_on`, by the epoch of the weights, or None. fields: the numbers of `score_views`,
    and what else the record has that does not follow from these.
    """
    manifest, split, utterances, specs = scored_on
    table = encode_predictions(utterances, specs, answers)
    sha256 = hashlib.sha256(table).hexdigest()
    path = f"{folder}/{identity}-{sha256[:12]}.parquet"
    store.write(path, table)
    evaluation = Evaluation(
        evaluation_id=identity,
        corpus=manifest.corpus,
        feature_id=manifest.feature_id,
        manifest_digest=manifest.digest(),
        synthetic=bool(manifest.source.get("synthetic", False)),
        split=split,
        label_range=manifest.label_range,
        num_utterances=len(utterances),
        num_labelled=int(np.isfinite(utterances.label).sum()),
        predictions={"path": path, "sha256": sha256, "num_bytes": len(table)},
        bootstrap={"num_resamples": NUM_RESAMPLES, "seed": BOOTSTRAP_SEED},
        code_version=__version__,
        protocol=specs[0].protocol,
        noise_scale=specs[0].noise_scale,
        **fields,
    )
    store.write_json(f"{folder}/{identity}.json", evaluation.to_dict())
    return evaluation


def stored_evaluation(store: Store, folder: str, identity: str) -> Evaluation | None:
    """The evaluation of `folder`, None where it or its predictions are absent, or damaged and to be made anew."""
    try:
        stored = read_evaluation(store, folder, identity)
    except StoreFailedError:
        raise
    except RefusedError as error:
        log.warning("%s: evaluating anew", error)
        return None
    if stored is None:
        return None
    said = stored.predictions
    if not is_intact(store, str(said["path"]), int(said["num_bytes"]), str(said["sha256"])):
        log.warning("%s/%s is missing or damaged: evaluating anew", store.url, said["path"])
        return None
    return stored


def _stored(store: Store, opened: OpenedModel, identity: str) -> Evaluation | None:
    """The evaluation as it was made before, of this model or of the run that it was published from."""
    folders = [opened.evaluations]
    if opened.run_id is not None:
        folders.append(f"{run_folder(opened.run_id)}/evaluations")
    for folder in dict.fromkeys(folders):
        if (stored := stored_evaluation(store, folder, identity)) is not None:
            return replace(stored, name=opened.reference)
    return None
