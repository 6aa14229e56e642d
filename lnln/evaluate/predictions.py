"""What a model said under every view of an evaluation: one Parquet table in the store, and arrays again.

    said = read_predictions(store, evaluation).labelled()
    samples = resampled_scores(said.sentiment, said.label, evaluation.label_range)["mae"].mean(axis=1)

The table has one row per view and utterance, and is known by its content.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lnln.corruption import ViewSpec
from lnln.data.schema import MODALITIES, Utterances
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluations import Evaluation

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """What one set of weights says, (views, utterances); completeness None for a model that does not estimate it."""

    sentiment: Values
    completeness: Values | None


@dataclass(frozen=True)
class Predictions:
    """V views of N utterances, views in the order of `Evaluation.views`, utterances in that of the split.

    missing_rate, mask_seed: (V,); the rate is NaN where modalities have different ones. label: (N,), NaN where
    unlabelled. sentiment: (V, N). completeness: (V, N), or None for a model that does not estimate it.
    """

    missing_rate: NDArray[np.float64]
    mask_seed: NDArray[np.int64]
    utterance_id: list[str]
    label: Values
    sentiment: Values
    completeness: Values | None

    def labelled(self) -> Predictions:
        """Without the utterances that have no label, as `resampled_scores` wants them."""
        rows = np.flatnonzero(np.isfinite(self.label))
        return Predictions(
            missing_rate=self.missing_rate,
            mask_seed=self.mask_seed,
            utterance_id=[self.utterance_id[row] for row in rows],
            label=self.label[rows],
            sentiment=self.sentiment[:, rows],
            completeness=None if self.completeness is None else self.completeness[:, rows],
        )


def read_predictions(store: Store, evaluation: Evaluation, metric: str = "mae") -> Predictions:
    """The predictions that `evaluation` was scored from, checked against its record.

    metric: where each metric has weights of its own (`published` selection), whose predictions; else all are the same.
    Raises RefusedError where the file is absent or damaged.
    """
    path = str(evaluation.predictions["path"])
    again = f"evaluate {evaluation.name} again, which makes it anew"
    try:
        data = store.read(path)
    except FileNotFoundError:
        raise RefusedError(f"{store.url}/{path} is absent, but an evaluation names it; {again}") from None
    if hashlib.sha256(data).hexdigest() != evaluation.predictions["sha256"]:
        raise RefusedError(f"{store.url}/{path} does not have the SHA-256 that its evaluation states; {again}")
    table = pq.read_table(io.BytesIO(data))
    if evaluation.epochs:
        if metric not in evaluation.epochs:
            raise RefusedError(f"an evaluation has metrics {', '.join(evaluation.epochs)}, got {metric!r}")
        table = table.filter(pc.equal(table["epoch"], evaluation.epochs[metric]))
    shape = len(evaluation.views), evaluation.num_utterances
    estimated = table["completeness"]
    return Predictions(
        missing_rate=np.array(
            [np.nan if isinstance(view.missing_rate, tuple) else view.missing_rate for view in evaluation.views]
        ),
        mask_seed=np.array([view.mask_seed for view in evaluation.views], np.int64),
        utterance_id=table["utterance_id"][: shape[1]].to_pylist(),
        label=_floats(table["label"][: shape[1]]),
        sentiment=_floats(table["prediction"]).reshape(shape),
        completeness=None if estimated.null_count else _floats(estimated).reshape(shape),
    )


def encode_predictions(
    utterances: Utterances, specs: Sequence[ViewSpec], answers: Mapping[int | None, Answers]
) -> bytes:
    """The table as Parquet; with a column `epoch` where `answers` are by the epoch of their weights.

    A label or a completeness that is not known is null, and so is the missing rate of modalities that differ in it;
    each modality's own stands beside it.
    """
    parts = [_table(utterances, specs, epoch, each) for epoch, each in answers.items()]
    sink = io.BytesIO()
    pq.write_table(pa.concat_tables(parts), sink, compression="zstd")
    return sink.getvalue()


def _table(utterances: Utterances, specs: Sequence[ViewSpec], epoch: int | None, answers: Answers) -> pa.Table:
    num_views, num = answers.sentiment.shape
    rates = np.array([spec.rates for spec in specs])
    common = np.where((rates == rates[:, :1]).all(axis=1), rates[:, 0], np.nan)
    estimated = answers.completeness
    return pa.table(
        {
            **({} if epoch is None else {"epoch": np.full(num_views * num, epoch, np.int32)}),
            "utterance_id": pa.array(utterances.utterance_id * num_views, pa.string()),
            "missing_rate": pa.array(np.repeat(common, num), from_pandas=True),
            **{f"rate_{modality}": np.repeat(rates[:, column], num) for column, modality in enumerate(MODALITIES)},
            "mask_seed": np.repeat(np.array([spec.seed for spec in specs], np.int64), num),
            "label": pa.array(np.tile(utterances.label, num_views), pa.float32(), from_pandas=True),
            "prediction": answers.sentiment.reshape(-1),
            "completeness": pa.nulls(num_views * num, pa.float32()) if estimated is None else estimated.reshape(-1),
        }
    )


def _floats(column: pa.ChunkedArray) -> Values:
    """float32, NaN where null."""
    return np.asarray(column.to_numpy(), np.float32)
