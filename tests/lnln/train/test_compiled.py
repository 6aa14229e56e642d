"""A compiled training step has the gradients of the one that is not, and makes few graphs."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

from lnln.batches import NUM_SHAPES, Batch, TrainBatches
from lnln.config import Config, LossConfig, TrainConfig
from lnln.data.schema import Ragged, Utterances
from lnln.errors import RefusedError
from lnln.losses import loss_terms, total_loss
from lnln.models import SentimentModel
from lnln.train.compiled import compile_model
from lnln.views import Views
from tests.finished_run import SHALLOW
from tests.lnln.models.random_inputs import FEATURE_SPEC, SPEC, random_batch, small_config, small_model, small_text_only


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No graphs of another test, and torch's settings as they were."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    dynamo = torch._dynamo.config
    kept = {"optimize_ddp": dynamo.optimize_ddp, "recompile_limit": dynamo.recompile_limit}
    # A pool of compiling processes costs more than it brings for so little.
    with dynamo.patch(kept), torch._inductor.config.patch(compile_threads=1):
        yield
    torch._dynamo.reset()


def num_graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def num_breaks() -> int:
    return sum(torch._dynamo.utils.counters["graph_break"].values())


def gradients(model: SentimentModel, batch: Batch, precision: str = "float32") -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        output = model(batch.corrupted, batch.complete)
    terms = loss_terms(output, batch, LossConfig())
    total_loss(terms, batch.weight, LossConfig(), len(batch.label)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_to_rounding(left: dict[str, Tensor], right: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert left.keys() == right.keys()
    total = torch.stack([gradient.norm() for gradient in left.values()]).norm()
    for name, gradient in left.items():
        assert float((gradient - right[name]).norm() / total) < tolerance, name


def make_batches(config: Config, num: int) -> TrainBatches:
    """Utterances of the widths of SPEC, as different in length as there are."""
    random = np.random.default_rng(0)
    lengths = {"text": 40, "audio": 40, "vision": 50}
    drawn = {m: random.integers(1, longest + 1, num) for m, longest in lengths.items()}
    utterances = Utterances(
        [f"u{row}" for row in range(num)],
        [None] * num,
        random.uniform(-3, 3, num).astype(np.float32),
        Ragged.from_lengths(random.integers(1, 200, drawn["text"].sum()).astype(np.int32), drawn["text"]),
        Ragged.from_lengths(np.ones((drawn["audio"].sum(), SPEC.audio_dim), np.float32), drawn["audio"]),
        Ragged.from_lengths(np.ones((drawn["vision"].sum(), SPEC.vision_dim), np.float32), drawn["vision"]),
    )
    return TrainBatches(utterances, Views(utterances, "train"), config, SPEC.unknown_id)


@pytest.mark.parametrize("mode", ["clean", "reference"])
def test_a_traced_step_is_one_graph_with_the_gradients_of_the_eager_one(mode: str) -> None:
    eager = small_model(mode=mode, **SHALLOW).train()
    traced = copy.deepcopy(eager)
    compile_model(traced, TrainConfig(compile="default"), backend="eager")
    batch = random_batch([(5, 3, 2), (4, 8, 9), (1, 0, 3)])
    for _ in range(2):
        assert_equal_to_rounding(gradients(eager, batch), gradients(traced, batch))
    assert (num_breaks(), num_graphs()) == (0, 1)
    # Other shapes come in every batch of a validation, of other weights: none of them makes a graph.
    other = {name: value + 0.1 for name, value in traced.state_dict().items()}
    eager.eval()
    traced.eval()
    for lengths in ([(5, 3, 2)], [(4, 8, 9), (1, 1, 3)], [(7, 2, 2)] * 3):
        inputs = random_batch(lengths).corrupted
        expected = functional_call(eager, other, (inputs,)).sentiment
        assert torch.equal(functional_call(traced, other, (inputs,)).sentiment, expected)
        assert not torch.equal(traced(inputs).sentiment, expected)
    assert num_graphs() == 1
    assert traced.state_dict().keys() == eager.state_dict().keys()


def test_epochs_make_few_graphs() -> None:
    spec = dataclasses.replace(SPEC, text_length=40)
    config = Config(
        model=small_config(name="text_only"), train=TrainConfig(compile="default", batch_size=4, length_window=3)
    )
    eager = small_text_only(spec).train()
    eager.dropout.p = 0.0
    traced = copy.deepcopy(eager)
    compile_model(traced, config.train, backend="eager")
    batches, shapes = make_batches(config, 27), set()
    for epoch in range(3):
        for batch in batches.epoch(epoch):
            assert_equal_to_rounding(gradients(eager, batch), gradients(traced, batch))
            shapes.add(batch.complete.text.shape)
    # The other modalities are not read, so that shapes that differ in them alone may share a graph or not.
    assert 1 < len(shapes) <= num_graphs() <= 2 * NUM_SHAPES and num_breaks() == 0


def test_without_compilation_nothing_is_done() -> None:
    model = small_text_only()
    compile_model(model, TrainConfig())
    assert "forward" not in vars(model)


def test_without_a_compiler_it_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "CXX", "no-such-compiler")
    with pytest.raises(RefusedError, match=r"C\+\+ compiler \(no-such-compiler\).*apt install g\+\+.*compile=none"):
        compile_model(small_text_only(), TrainConfig(compile="default"))
    compile_model(small_text_only(), TrainConfig(compile="default"), backend="eager")


@pytest.mark.slow
def test_compiled_steps_have_the_gradients_of_eager_ones() -> None:
    """By torch's C++ compiler, which takes seconds for each kernel: the smallest model that has an encoder."""
    eager = small_text_only().train()
    assert eager.text_encoder is not None
    layers = eager.text_encoder.model.encoder.layer
    eager.text_encoder.model.encoder.layer = layers[:1]
    compiled = copy.deepcopy(eager)
    compile_model(compiled, TrainConfig(compile="default"))
    for model in (eager, compiled):
        model.dropout.p = 0.0
    batch = random_batch([(5, 3, 2), (4, 8, 9), (1, 0, 3), (9, 1, 1)])
    for _ in range(2):
        assert_equal_to_rounding(gradients(eager, batch), gradients(compiled, batch))
    assert (num_breaks(), num_graphs()) == (0, 1)


@pytest.mark.slow
def test_compiled_dropout_follows_the_seed_and_autocast_the_precision() -> None:
    eager = small_text_only(FEATURE_SPEC).train()
    compiled = copy.deepcopy(eager)
    compile_model(compiled, TrainConfig(compile="reduce-overhead"))
    batch = random_batch([(5, 3, 2), (4, 8, 9), (1, 0, 3), (9, 1, 1)], FEATURE_SPEC)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(gradients(compiled, batch))
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert not all(torch.equal(drawn[0][name], drawn[2][name]) for name in drawn[0])
    for model in (eager, compiled):
        model.dropout.p = 0.0
    # Fused kernels round less often than one operation after the other.
    assert_equal_to_rounding(gradients(eager, batch, "bfloat16"), gradients(compiled, batch, "bfloat16"), 0.05)
    assert (num_breaks(), num_graphs()) == (0, 2)


@pytest.mark.slow
def test_workers_average_the_gradients_of_compiled_steps(tmp_path: Path) -> None:
    eager = small_model(mode="clean", **SHALLOW).train()
    compiled = copy.deepcopy(eager)
    config = TrainConfig(compile="default")
    compile_model(compiled, config, backend="aot_eager")
    batch = random_batch([(5, 3, 2), (4, 8, 9), (1, 0, 3)])
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", world_size=1, rank=0)
    try:
        # As between several workers, with so small buckets that there are many.
        forward = DistributedDataParallel(compiled, find_unused_parameters=True, bucket_cap_mb=0.01)
        expected = gradients(eager, batch)
        for _ in range(2):
            compiled.zero_grad(set_to_none=True)
            output = forward(batch.corrupted, batch.complete)
            total_loss(loss_terms(output, batch, LossConfig()), batch.weight, LossConfig(), 3).backward()
            found = {name: p.grad for name, p in compiled.named_parameters() if p.grad is not None}
            assert_equal_to_rounding(expected, found)
    finally:
        torch.distributed.destroy_process_group()
