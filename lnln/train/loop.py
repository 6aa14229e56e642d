"""Training as one worker sees it, in plain torch: epochs of steps, validation, what to keep.

    loop = Loop(model, config, train_batches, validation_batches, labels, label_range, ranks, device)
    for record in loop.epochs(): ...                  # rank 0 saves loop.checkpoint() in between
    loop.restore(checkpoint)                          # and goes on exactly as if it had never stopped

Every epoch seeds torch by (seed, epoch, rank), so what a run does next hangs on its checkpoint alone. The gradient is
that of the whole batch over all workers and all parts of their shares (`train.accumulation_steps`), so the number of
either changes the curve by no more than rounding, dropout aside: each worker and part draws its own.
Scores are those of float32 whatever `train.precision` is: what selects a model is what `lnln evaluate` finds of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from lnln.batches import Batch, EvaluationBatches, TrainBatches, split_batch
from lnln.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from lnln.config import Config, Rate
from lnln.corruption import format_rate
from lnln.losses import loss_terms, total_loss
from lnln.metrics import collapse_share, score
from lnln.models import SentimentModel
from lnln.train.average import WeightAverage
from lnln.train.compiled import compile_model
from lnln.train.distributed import distributed, sending
from lnln.train.finite import DivergedError, FiniteWatch
from lnln.train.published_selection import SelectionSplit
from lnln.train.ranks import Ranks
from lnln.train.schedule import rate_factor


class Loop:
    """One worker of one run.

    model: on `device`; what `train.frozen` names is frozen here. labels: (N,) of the validation utterances, NaN where
    unlabelled. test: scored after every epoch too, for the record alone (`train.selection: published`).
    history: one JSON-able record per finished epoch. best_epoch: from 1, 0 before the first.
    """

    def __init__(
        self,
        model: SentimentModel,
        config: Config,
        train: TrainBatches,
        validation: EvaluationBatches,
        labels: NDArray[np.float32],
        label_range: tuple[float, float],
        ranks: Ranks,
        device: torch.device,
        test: SelectionSplit | None = None,
    ) -> None:
        self.config, self.history, self.best_epoch, self.best_score = config, list[dict[str, Any]](), 0, math.inf
        self._model, self._train, self._validation = model, train, validation
        self._labels, self._label_range, self._ranks, self._device = labels, label_range, ranks, device
        self._test = test
        model.freeze(config.train)
        compile_model(model, config.train)
        self._forward = distributed(model, config.train, device, ranks)
        groups = model.parameter_groups(config.train)
        self._optimizer = torch.optim.AdamW(groups, fused=device.type in ("cpu", "cuda"))
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        decay = config.train.average_decay
        self._average = WeightAverage(model, decay) if decay > 0 else None

    @property
    def is_done(self) -> bool:
        """All epochs are trained, or `patience` of them brought nothing better."""
        done = len(self.history)
        patience = self.config.train.patience
        return done >= self.config.train.epochs or (0 < patience <= done - self.best_epoch)

    @property
    def selected(self) -> dict[str, Tensor]:
        """The live weights that are scored and kept: the average where there is one."""
        return self._model.state_dict() if self._average is None else self._average.values

    def epochs(self) -> Iterator[dict[str, Any]]:
        """Train what is left, epoch by epoch; yields each one's record, equal on all workers."""
        while not self.is_done:
            epoch, started = len(self.history), time.perf_counter()
            losses, learning_rate = self._train_epoch(epoch)
            trained = time.perf_counter()
            validation, collapse = self._score(self._validation, self._labels, "validation")
            ended = time.perf_counter()
            record = {
                "epoch": epoch + 1,
                "loss": losses,
                "learning_rate": learning_rate,
                "validation": validation,
                "score": sum(scores["mae"] for scores in validation.values()) / len(validation),
                "collapse_share": collapse,
                "train_seconds": round(trained - started, 3),
                "validation_seconds": round(ended - trained, 3),
            }
            if self._test is not None:
                scores, _ = self._score(self._test.batches, self._test.labels, "the score on test")
                (record["test"],) = scores.values()
            record = self._ranks.from_first(record)
            self.history.append(record)
            if record["score"] < self.best_score:
                self.best_epoch, self.best_score = record["epoch"], record["score"]
            yield record

    def checkpoint(self) -> Checkpoint:
        """The run as it stands between two epochs. Its tensors are the live ones: save it before going on."""
        return Checkpoint(
            weights=self._model.state_dict(),
            average=None if self._average is None else self._average.values,
            optimizer=optimizer_tensors(self._model, self._optimizer),
            progress={"history": self.history, "best_epoch": self.best_epoch, "best_score": self.best_score},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become what `checkpoint` was taken from."""
        self._model.load_state_dict(checkpoint.weights)
        restore_optimizer(self._model, self._optimizer, checkpoint.optimizer)
        if self._average is not None:
            assert checkpoint.average is not None, "a run with an average saves it"
            self._average.load(checkpoint.average)
        self.history = list(checkpoint.progress["history"])
        self.best_epoch, self.best_score = checkpoint.progress["best_epoch"], checkpoint.progress["best_score"]

    def _train_epoch(self, epoch: int) -> tuple[dict[str, float], float]:
        """Loss terms as means over the utterances, the weighted total among them, and the rate of the last step."""
        train = self.config.train
        self._ranks.seed(train.seed, epoch)
        self._model.train()
        watch = FiniteWatch(self._ranks, epoch)
        sums: dict[str, Tensor] = {}
        factor = 0.0
        for step, batch in enumerate(self._train.epoch(epoch)):
            factor = rate_factor(train, len(self._train), epoch, step)
            terms = self._backward(batch, self._train.size(step))
            # Without a limit this only measures the norm.
            norm = nn.utils.clip_grad_norm_(self._model.parameters(), train.clip_norm or math.inf)
            watch.add(step, batch.utterance_ids, terms, norm)
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            if self._average is not None:
                self._average.update(self._model, epoch * len(self._train) + step)
            for name, term in terms.items():
                value = (batch.weight * term).sum(dtype=torch.float64)
                sums[name] = sums[name] + value if name in sums else value
        watch.check()
        num_utterances = sum(self._train.size(step) for step in range(len(self._train)))
        means = self._ranks.sum(torch.stack(list(sums.values()))) / num_utterances
        return dict(zip(sums, means.tolist(), strict=True)), train.learning_rate * factor

    def _backward(self, batch: Batch, num_utterances: int) -> dict[str, Tensor]:
        """This worker's share of the gradient, part by part; loss terms per utterance, their weighted total first.

        num_utterances: of the step, over all workers.
        """
        parts = split_batch(batch, self.config.train.accumulation_steps)
        found = []
        for part in parts:
            with sending(self._forward, is_last=part is parts[-1]):
                found.append(self._backward_part(part, num_utterances))
        return {name: torch.cat([terms[name] for terms in found]) for name in found[0]}

    def _backward_part(self, part: Batch, num_utterances: int) -> dict[str, Tensor]:
        with self._precision():
            output = self._forward(part.corrupted, part.complete)
        loss = self.config.loss
        terms = loss_terms(output, part, loss)
        # Workers' gradients are averaged, hence the division by their number; those of parts are summed.
        total_loss(terms, part.weight, loss, num_utterances / self._ranks.world).backward()
        total = torch.stack([getattr(loss, name) * term.detach() for name, term in terms.items()]).sum(dim=0)
        # Copies, since the next part of a compiled model may be computed where this one's output lies.
        return {"total": total, **{name: term.detach().clone() for name, term in terms.items()}}

    def _score(
        self, batches: EvaluationBatches, labels: NDArray[np.float32], what: str
    ) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Metrics, and the share of the utterances in the most frequent class, by missing rate: of the weights that
        would be kept, the same on all workers."""
        predictions = self._ranks.sum(self._predict(batches)).cpu().numpy()
        found: tuple[dict[str, dict[str, float]], dict[str, float]] | None = None
        if self._ranks.is_first and np.isfinite(predictions).all():
            labelled = ~np.isnan(labels)
            rates = [_rate_name(spec.rate) for spec in batches.specs]
            scores = [score(predicted[labelled], labels[labelled], self._label_range) for predicted in predictions]
            shares = [collapse_share(predicted, self._label_range) for predicted in predictions]
            found = dict(zip(rates, scores, strict=True)), dict(zip(rates, shares, strict=True))
        found = self._ranks.from_first(found)
        if found is None:
            raise DivergedError(
                f"{what} after epoch {len(self.history) + 1} predicts numbers that are not finite; "
                "the last checkpoint stays; lower train.learning_rate"
            )
        return found

    @torch.no_grad()
    def _predict(self, batches: EvaluationBatches) -> Tensor:
        """(views, utterances) sentiment where this worker is responsible, else 0: the sum over workers is exact."""
        predictions = torch.zeros(batches.shape, device=self._device)
        weights = self.selected
        self._model.eval()
        for batch in batches:
            output = functional_call(self._model, weights, (batch.inputs,))
            view, utterance = torch.from_numpy(batch.view), torch.from_numpy(batch.utterance)
            predictions[view.to(self._device), utterance.to(self._device)] = output.sentiment.float()
        return predictions

    def _precision(self) -> torch.autocast:
        enabled = self.config.train.precision == "bfloat16"
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=enabled)


def _rate_name(rate: Rate) -> str:
    """The key of a rate in a run's record."""
    return format_rate(rate) if isinstance(rate, tuple) else str(rate)
