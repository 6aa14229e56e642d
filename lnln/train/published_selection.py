"""Selection as the published code does it, beside ours: for each metric the epoch that is best on TEST at rate 0.5.

What that gives is no estimate of how good a model is (reference.md D1); it exists so that a run can be compared with
tables that were made so. `model/` is selected on validation whatever happens here, and a trial never looks at test.

Weights lie in the store by epoch. Those of an epoch are written before Ray hears of its checkpoint, and removed when a
newer checkpoint is known by which no metric wants them: so a run that is killed at any moment and continues, from the
newest checkpoint that is known, finds all that its history refers to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lnln.batches import EvaluationBatches
from lnln.checkpoint import describe_file, save_weights
from lnln.config import Config
from lnln.corruption import evaluation_views
from lnln.data.model_inputs import ModelInputs
from lnln.data.store import Store
from lnln.runs import SELECTION_RATE, selected_on_test, selection_file, selection_folder
from lnln.train.leftovers import temporary_folder
from lnln.train.ranks import Ranks
from lnln.views import Views


@dataclass(frozen=True)
class SelectionSplit:
    """The test split in the one view that selects. labels: (N,), NaN where unlabelled."""

    batches: EvaluationBatches
    labels: NDArray[np.float32]


def selection_split(
    store: Store, inputs: ModelInputs, config: Config, ranks: Ranks, device: torch.device
) -> SelectionSplit:
    """Test at SELECTION_RATE, masks by `corruption.mask_seed`."""
    manifest, utterances = inputs.manifest, inputs.read_split(store, "test")
    batches = EvaluationBatches(
        utterances,
        Views(utterances, "test", store, manifest),
        evaluation_views(config.corruption, [SELECTION_RATE]),
        manifest.tokenizer.unknown_id,
        rank=ranks.rank,
        world=ranks.world,
        device=device,
    )
    return SelectionSplit(batches, utterances.label)


def keep_weights(store: Store, folder: str, history: Sequence[dict[str, Any]], weights: Mapping[str, Tensor]) -> None:
    """Write `weights`, of the last epoch of `history`, if a metric is best there, and note them in its record."""
    record = history[-1]
    if record["epoch"] not in selected_on_test(history).values():
        return
    with temporary_folder(folder) as temporary:
        path = Path(temporary) / selection_file(record["epoch"])
        save_weights(path, weights)
        store.upload(path, f"{selection_folder(folder)}/{path.name}")
        record["selection_weights"] = describe_file(path)


def prune_weights(store: Store, folder: str, history: Sequence[Mapping[str, Any]], *, is_over: bool) -> None:
    """Remove what no metric of `history` refers to; while the run goes on, only of epochs that `history` has."""
    from pyarrow.fs import FileSelector, FileType

    wanted = {selection_file(epoch) for epoch in selected_on_test(history).values()}
    trained = {selection_file(record["epoch"]) for record in history}
    filesystem, path = store.arrow(selection_folder(folder))
    for entry in filesystem.get_file_info(FileSelector(path, allow_not_found=True)):
        name = entry.base_name
        if entry.type == FileType.File and name not in wanted and (is_over or name in trained):
            store.remove(f"{selection_folder(folder)}/{name}")
