"""The weights that the published code would have kept of a run: for each metric those of its best epoch on test (D1).

A run has them if it was trained with `train.selection: published` (lnln/train/published_selection.py). They score as
no model does, so nothing here can be published or become a choice: an evaluation of them has an identity of its own.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError
from lnln.metrics import metric_names
from lnln.model_store.files import ModelFile, fetch
from lnln.model_store.opened import OpenedModel
from lnln.runs import Run, load_run, selected_on_test, selection_file, selection_folder, selection_weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SelectedOnTest:
    """epochs: by metric, in the order of tables. files: `sha256` and `num_bytes` of each epoch's weights."""

    run: Run
    epochs: Mapping[str, int]
    files: Mapping[int, Mapping[str, Any]]

    @property
    def digest(self) -> str:
        """SHA-256 of those of the weights, with the metrics that they are for."""
        sha256 = {metric: self.files[epoch]["sha256"] for metric, epoch in self.epochs.items()}
        return hashlib.sha256(encode_json(sha256)).hexdigest()

    def weights(self, store: Store, epoch: int) -> dict[str, Tensor]:
        """The state_dict of `epoch`. RefusedError where it is missing or damaged: only training makes it."""
        from lnln.checkpoint import load_weights

        name, entry = selection_file(epoch), self.files[epoch]
        with tempfile.TemporaryDirectory(prefix="lnln-") as temporary:
            file = ModelFile(name, int(entry["num_bytes"]), str(entry["sha256"]))
            try:
                fetch(store, selection_folder(self.run.folder), [file], Path(temporary))
            except RefusedError as error:
                raise RefusedError(
                    f"{store.url}/{selection_folder(self.run.folder)}/{name} is missing or damaged; remove "
                    f"{store.url}/{self.run.folder} and train again"
                ) from error
            return load_weights(Path(temporary) / name)


def open_selected_on_test(store: Store, opened: OpenedModel) -> SelectedOnTest:
    """What `opened` has of it. RefusedError for a model that is no run or was not trained so."""
    if opened.config is None or opened.config.train.selection != "published":
        raise RefusedError(
            f"{opened.reference} was not trained with train.selection published, so it has no weights that were "
            f"selected on test; leave --selection out, or train with --set train.selection=published"
        )
    if opened.run_id != opened.reference:
        raise RefusedError(
            f"{opened.reference} holds the weights selected on validation only; those selected on test stay in run "
            f"{opened.run_id}: evaluate that"
        )
    run = load_run(store, opened.reference)
    best = selected_on_test(run.history)
    metrics = metric_names(opened.features["label_range"])
    if set(metrics) != set(best):
        raise RefusedError(
            f"{store.url}/{run.folder}/result.json lacks the scores on test that train.selection published makes; "
            f"remove {store.url}/{run.folder} and train again"
        )
    return SelectedOnTest(run, {metric: best[metric] for metric in metrics}, selection_weights(run))
