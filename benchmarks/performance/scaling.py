"""What several machines can gain, as far as arithmetic says: the gradient's bytes beside the time of a step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from benchmarks.performance.corpus import MOSI_DIMS, MOSI_PADDED
from lnln.config import ModelConfig, TrainConfig, to_dict
from lnln.data.schema import FeatureSpec
from lnln.data.wordpiece import UNCASED
from lnln.markdown import table
from lnln.models.lnln import LNLN
from lnln.models.text_encoder import TINY

TITLE = "Scaling"
# Of a step of 64 utterances with bert-base on one H200, in bfloat16: an estimate, not a measurement.
STEP_SECONDS = (0.006, 0.007)
GIGABITS = (10, 25, 100, 400)
NUM_NODES = (2, 8)

_ENCODERS: dict[str, dict[str, Any]] = {
    "MiniLM": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
_BYTES: dict[Literal["float32", "bfloat16"], int] = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Gradient:
    """What every worker sends in each step. frozen: of `train.frozen`; sent_as: by `train.gradient_compression`."""

    encoder: str
    frozen: Literal["none", "embeddings"]
    sent_as: Literal["float32", "bfloat16"]

    @property
    def num_bytes(self) -> int:
        return num_trained(self.encoder, self.frozen) * _BYTES[self.sent_as]


@cache
def num_trained(encoder: str, frozen: Literal["none", "embeddings"]) -> int:
    """Parameters of LNLN with `encoder`, in the published sizes for CMU-MOSI, that get a gradient."""
    spec = FeatureSpec(
        audio_dim=MOSI_DIMS["audio"],
        vision_dim=MOSI_DIMS["vision"],
        text_length=MOSI_PADDED["text"],
        audio_length=MOSI_PADDED["audio"],
        vision_length=MOSI_PADDED["vision"],
        vocabulary_size=UNCASED.vocabulary_size,
        unknown_id=UNCASED.unknown_id,
        label_range=(-3.0, 3.0),
    )
    with torch.device("meta"):  # shapes without values
        model = LNLN(to_dict(ModelConfig()), to_dict(spec), {**TINY, **_ENCODERS[encoder]})
    model.freeze(TrainConfig(frozen=frozen))
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def least_seconds(num_bytes: int, num_nodes: int, gigabits: float) -> float:
    """Of a ring all-reduce over links of `gigabits` each way, with no latency and nothing else on them: every node
    sends each byte but its own share twice, once to be summed and once summed."""
    return 2 * (num_nodes - 1) / num_nodes * num_bytes * 8 / (gigabits * 1e9)


def gradients() -> list[Gradient]:
    return [
        Gradient(encoder, frozen, sent_as)
        for encoder in _ENCODERS
        for frozen in ("none", "embeddings")
        for sent_as in _BYTES
    ]


def note() -> str:
    """The section of the page, as Markdown."""
    few, many = NUM_NODES
    largest, smallest = Gradient("bert-base", "none", "float32"), Gradient("bert-base", "embeddings", "bfloat16")
    return "\n\n".join(
        [
            f"Arithmetic, not a measurement: the gradient of one step, and the least time that a ring all-reduce of it "
            f"takes between {few} / {many} nodes, were a network as fast as its name and without latency.",
            table([_row(gradient) for gradient in gradients()]),
            f"Beside it stands the step itself. For 64 utterances with bert-base one H200 might reach {_steps()} ms: "
            "an estimate from its peak rate; the section on a GPU has what was measured. Sending can hide behind the "
            "backward pass, but no step is shorter than the longer of both. At 100 Gb/s and 64 utterances per GPU, "
            f"sending bert-base's whole gradient takes {_times(largest, few)} times the step with {few} nodes and "
            f"{_times(largest, many)} times with {many}. The network bounds it: all of them together are slower than "
            "one of them alone. With `train.frozen=embeddings` and `train.gradient_compression=bfloat16` it is "
            f"{_times(smallest, few)} and {_times(smallest, many)} times, so that {many} nodes do about the work of "
            "two. `train.accumulation_steps` sends as often, once a step, but lets a step be of more utterances; how "
            "many it has changes what is learnt.",
            "So spend nodes on trials and seeds first: they send nothing to each other. One training over several "
            "nodes is for a network of 400 Gb/s or more, for larger batches, or for data that one machine does not "
            "hold. GPUs of one machine with NVLink between them are not meant here.",
        ]
    )


def _row(gradient: Gradient) -> dict[str, str]:
    within = {
        f"{gigabits} Gb/s": " / ".join(
            f"{1e3 * least_seconds(gradient.num_bytes, nodes, gigabits):.1f}" for nodes in NUM_NODES
        )
        + " ms"
        for gigabits in GIGABITS
    }
    return {
        "text encoder": gradient.encoder,
        "frozen": gradient.frozen,
        "sent as": gradient.sent_as,
        "a step": f"{gradient.num_bytes / 1e6:.0f} MB",
        **within,
    }


def _steps() -> str:
    return " to ".join(f"{1e3 * seconds:.0f}" for seconds in STEP_SECONDS)


def _times(gradient: Gradient, num_nodes: int) -> str:
    seconds = least_seconds(gradient.num_bytes, num_nodes, 100)
    least, most = (seconds / each for each in reversed(STEP_SECONDS))
    return f"{least:.1f} to {most:.1f}"
