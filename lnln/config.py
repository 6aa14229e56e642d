"""Every knob, as frozen dataclasses: what it means stands beside it, what it may be is checked when it is made.

A config is built from defaults, then a YAML file of differences (`lnln/configs/*.yaml`), then `--set key=value`:

    config = load_config("mosi", overrides=["loss.adversarial=0.5"])
    config.fingerprint()          # stored with every result
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import types
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from lnln.errors import RefusedError

T = TypeVar("T")

# How views are made (see `lnln.corruption`).
Protocol = Literal["frame", "block", "modality", "noise"]
# A missing rate: one for all modalities, or those of text, audio, vision.
Rate = float | tuple[float, float, float]


def _require(holds: bool, key: str, expected: str, value: object) -> None:
    if not holds:
        raise RefusedError(f"config key {key} must be {expected}, got {value!r}")


@dataclasses.dataclass(frozen=True)
class CorruptionConfig:
    """What is erased, and how often (paper, section 4.1)."""

    # Which positions fall out. `frame`, the paper's: each by itself; `block`: one stretch; `modality`: all or none, the
    # rate being the chance of all (so in training a drawn rate says little of what is there: to be used with
    # `loss.completeness_target: realised`); `noise`: those of `frame`, disturbed instead of erased.
    protocol: Protocol = "frame"
    # Evaluation views, one for each missing rate: a number for all modalities, or three for text, audio, vision. So
    # `modality` with [1, 0, 0] is "audio and vision only".
    rates: tuple[Rate, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    # Rates whose mean validation MAE selects the checkpoint, like `rates`.
    validation_rates: tuple[Rate, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    # Seed of the evaluation masks; the training draws use `train.seed`.
    mask_seed: int = 0
    # Training: the chance that a modality of an utterance is left whole; otherwise its rate is uniform in (0, 1).
    complete_share: float = 0.5
    # Training: a fresh draw for every epoch; fresh rates at positions whose order of erasure never changes (D9, D10);
    # or one draw for ever, by `mask_seed` and so the same for every `train.seed` (what the published code comes
    # close to, D4, D8).
    draws: Literal["fresh", "fixed_positions", "fixed"] = "fresh"
    # One stream of random numbers for audio and vision, so that frame t falls out of both together, as in the published
    # MOSEI (D5).
    shared_uniforms: bool = False
    # Protocol `noise`: deviation of what is added to a frame, in deviations of each dimension over the training split.
    noise_scale: float = 1.0
    # Training draws that `lnln corrupt` stores; later epochs compute theirs, with the same result.
    num_stored_draws: int = 20

    def __post_init__(self) -> None:
        for key in ("rates", "validation_rates"):
            rates = tuple(_one_rate(rate, f"corruption.{key}") for rate in getattr(self, key))
            _require(len(rates) > 0, f"corruption.{key}", "a non-empty list", rates)
            _require(len(set(rates)) == len(rates), f"corruption.{key}", "without repetition", rates)
            object.__setattr__(self, key, rates)
        _require(0 <= self.complete_share <= 1, "corruption.complete_share", "within [0, 1]", self.complete_share)
        _require(self.noise_scale >= 0, "corruption.noise_scale", "0 or more", self.noise_scale)
        _require(self.num_stored_draws >= 0, "corruption.num_stored_draws", "0 or more", self.num_stored_draws)
        _require(self.mask_seed >= 0, "corruption.mask_seed", "0 or more", self.mask_seed)


def _one_rate(rate: Rate, key: str) -> Rate:
    """`rate`, as one number where it is the same for all modalities."""
    values = rate if isinstance(rate, tuple) else (rate,) * 3
    _require(len(values) == 3, key, "numbers, or lists of three (text, audio, vision)", rate)
    _require(all(0 <= value <= 1 for value in values), key, "within [0, 1]", rate)
    return values[0] if len(set(values)) == 1 else rate


# The corrections of `clean` mode, each a switch of its own: (value in reference mode, value in clean mode).
SWITCHES: dict[str, tuple[Any, Any]] = {
    "mask_padding": (False, True),
    "mask_erased": (False, True),
    "reverse_before_mixing": (True, False),
    "discriminate": ("mixture", "proxy"),
    "detach_targets": (False, True),
    "residual": ("normalised", "plain"),
    "standardize": (False, True),
    "normalise_discriminated": (False, True),
    "proxy_read": ("own_tokens", "proxy_tokens"),
    "position_std": (1.0, 0.02),
}


# Of SDUMC the same, in the section `model.sdumc`.
SDUMC_SWITCHES: dict[str, tuple[Any, Any]] = {
    "normalise_weights": (False, True),
    "detach_fused": (False, True),
    "difference": ("batch", "utterance"),
}


@dataclasses.dataclass(frozen=True)
class SdumcConfig:
    """What SDUMC has beside the keys of `model` that it shares with the others: hidden_dim (256 as published), the
    lengths, mode, modalities, mask_padding, mask_erased, standardize. Numbers of reference.md's section E."""

    # Width of what the queries find in each modality, and of the fused representation.
    query_dim: int = 128
    # Width of what Rank-N-Contrast compares.
    rank_dim: int = 64
    # Dropout in front of and behind the pooling and the attention of the queries, and between the layers of each MLP.
    dropout: float = 0.5
    hidden_dropout: float = 0.3
    # Factor in front of the softmax of pooling and queries (S5).
    attention_scale: float = 0.3
    # Modality imagination autoencoder (MIA), which the released main file has switched off (S1).
    imagination: bool = True
    # What its output is added to: its own transformed input, as in the file that has it, or the text.
    imagination_residual: Literal["input", "text"] = "input"
    # What the missing flow reads in training: always the simulated text, or what the corruption left of the text, and
    # the simulated one where that counts as missing (`model.text_missing_share`).
    missing_flow: Literal["simulated", "corrupted"] = "simulated"

    # The switches, `None` = as the mode says.
    # Weights of modalities and queries are positive and add up to 1 (S5).
    normalise_weights: bool | None = None
    # The complete flow is not pulled towards the missing one by the difference of their fused representations (S8).
    detach_fused: bool | None = None
    # The root of a mean square is over all entries of a batch, or of each utterance, so that it does not hang on who
    # else is in the batch.
    difference: Literal["batch", "utterance"] | None = None

    def __post_init__(self) -> None:
        for key in ("query_dim", "rank_dim"):
            _require(getattr(self, key) >= 1, f"model.sdumc.{key}", "1 or more", getattr(self, key))
        for key in ("dropout", "hidden_dropout"):
            _require(0 <= getattr(self, key) < 1, f"model.sdumc.{key}", "within [0, 1)", getattr(self, key))
        _require(self.attention_scale > 0, "model.sdumc.attention_scale", "above 0", self.attention_scale)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network: sizes as in the paper's Table 1 and section 3, and where it departs from the published code."""

    # `text_only` is the baseline that a multimodal model has to beat: the text encoder, its mean, one linear layer.
    # `late_fusion` is the one that fusion has to beat: the mean of each modality, a head each, a mean of the heads.
    name: Literal["lnln", "sdumc", "text_only", "late_fusion"] = "lnln"
    # `reference` equals the published code to rounding; `clean` is right where that is wrong. Sets the switches below.
    mode: Literal["reference", "clean"] = "clean"
    # `minilm` (offline default), `tiny` (random, for tests), any Hugging Face BERT by name, or a folder.
    text_encoder: str = "minilm"
    hidden_dim: int = 128
    # Learnable tokens kept from each embedding (T of eq. 1).
    num_tokens: int = 8
    num_heads: int = 8
    # Width of one attention head everywhere but in the hyper-modality layers, whose heads share hidden_dim.
    head_dim: int = 64
    embedding_depth: int = 2
    completeness_depth: int = 2
    proxy_depth: int = 2
    reconstructor_depth: int = 2
    # H_d^1 .. H_d^n of eq. 2: one hyper-modality layer for each, so dominant_depth + 1 of them.
    dominant_depth: int = 2
    # eq. 4; the published configuration has 2 for MOSI, 4 for MOSEI and SIMS, the paper says 4.
    fusion_depth: int = 4
    # Longest input in steps; longer ones are cut. 0: the longest of the training split.
    max_text_length: int = 0
    max_audio_length: int = 0
    max_vision_length: int = 0
    # Strength of the gradient reversal in front of the discriminator (eq. 10).
    reversal_strength: float = 1.0
    # Dropout of LNLN's own attention and feed-forward layers; the paper has none. The text encoder keeps its own.
    dropout: float = 0.0

    # Ablations (Tables 4 and 6). What the model reads; a modality left out is one that every utterance lacks.
    modalities: tuple[Literal["text", "audio", "vision"], ...] = ("text", "audio", "vision")
    # Dominant modality correction (DMC): completeness check, proxy and discriminator; without, H_d^1 is language.
    correction: bool = True
    # The reconstructors and their loss term.
    reconstruction: bool = True
    # Dominant modality based learning (DMML): eq. 2 to 4, or the three modalities' tokens side by side.
    fusion: Literal["dominant", "concat"] = "dominant"
    # What is reconstructed: the embedded tokens as published, or the erased steps of the features (eq. 11, 12; D17).
    reconstruct: Literal["tokens", "features"] = "tokens"

    # Simulated text (`lnln simulate`) as the language input of utterances whose text counts as missing. SDUMC always
    # reads it, and so is `when_missing` whatever stands here.
    simulated_text: Literal["none", "when_missing"] = "none"
    # Which: a simulation_id of the corpus; empty: the one in use when training starts.
    simulation: str = ""
    # A text counts as missing where at least this share of its erasable tokens is erased, or where it has none.
    text_missing_share: float = 1.0
    # Of SDUMC alone.
    sdumc: SdumcConfig = dataclasses.field(default_factory=SdumcConfig)

    # The switches, `None` = as the mode says (numbers of reference.md's list in parentheses).
    # Padded steps take no part in any attention (D12).
    mask_padding: bool | None = None
    # Nor do erased steps, [UNK] and zero frames, which say nothing but that they are missing (D12).
    mask_erased: bool | None = None
    # Gradient reversal on the proxy before it is mixed, so the sentiment loss is reversed too (D15).
    reverse_before_mixing: bool | None = None
    # What the discriminator tells from complete language: the mixture H_d^1 or the proxy H_p^1 itself (D16).
    discriminate: Literal["mixture", "proxy"] | None = None
    # No gradient into the reconstruction target, nor into the discriminator's complete language (D15, D17).
    detach_targets: bool | None = None
    # Hyper-modality residual: eq. 3, or on the normalised value as published (D18).
    residual: Literal["normalised", "plain"] | None = None
    # Audio and vision to zero mean and unit deviation of the training split (D11).
    standardize: bool | None = None
    # What the discriminator sees has mean 0 and deviation 1 in each token: otherwise the generator wins against it by
    # size alone, and its loss, bounded by nothing, rises far above ln 2 in one epoch or another.
    normalise_discriminated: bool | None = None
    # Which outputs of the proxy generator are the proxy: those of the Transformer's own tokens, or of H_p^0 (D20).
    proxy_read: Literal["own_tokens", "proxy_tokens"] | None = None
    # Deviation of the learned positions at the start; 1 is large against the features (D20).
    position_std: float | None = None

    def __post_init__(self) -> None:
        for switch, by_mode in SWITCHES.items():
            if getattr(self, switch) is None:
                object.__setattr__(self, switch, by_mode[self.mode == "clean"])
        chosen = {key: by_mode[self.mode == "clean"] for key, by_mode in SDUMC_SWITCHES.items()}
        stated = {key: getattr(self.sdumc, key) for key in chosen if getattr(self.sdumc, key) is not None}
        object.__setattr__(self, "sdumc", dataclasses.replace(self.sdumc, **{**chosen, **stated}))
        if self.name == "sdumc":
            object.__setattr__(self, "simulated_text", "when_missing")
        for key in ("hidden_dim", "num_tokens", "num_heads", "head_dim", "embedding_depth", "completeness_depth"):
            _require(getattr(self, key) >= 1, f"model.{key}", "1 or more", getattr(self, key))
        for key in ("proxy_depth", "reconstructor_depth", "dominant_depth", "fusion_depth"):
            _require(getattr(self, key) >= 1, f"model.{key}", "1 or more", getattr(self, key))
        for key in ("max_text_length", "max_audio_length", "max_vision_length"):
            _require(getattr(self, key) >= 0, f"model.{key}", "0 or more", getattr(self, key))
        _require(self.hidden_dim % self.num_heads == 0, "model.hidden_dim", "a multiple of num_heads", self.hidden_dim)
        _require(self.reversal_strength >= 0, "model.reversal_strength", "0 or more", self.reversal_strength)
        _require(0 <= self.dropout < 1, "model.dropout", "within [0, 1)", self.dropout)
        _require(len(self.modalities) > 0, "model.modalities", "a non-empty list", self.modalities)
        in_order = tuple(name for name in ("text", "audio", "vision") if name in self.modalities)
        _require(
            self.modalities == in_order, "model.modalities", "some of text, audio, vision, in order", self.modalities
        )
        reads_text = self.name != "text_only" or "text" in self.modalities
        _require(reads_text, "model.modalities", "with text for model.name text_only", self.modalities)
        _require((self.position_std or 0) >= 0, "model.position_std", "0 or more", self.position_std)
        _require(0 < self.text_missing_share <= 1, "model.text_missing_share", "within (0, 1]", self.text_missing_share)

    @property
    def reads_simulated_text(self) -> bool:
        return self.simulated_text == "when_missing"


# Terms of the losses, by the names of their weights.
LNLN_TERMS = ("completeness", "adversarial", "reconstruction", "sentiment")
SDUMC_TERMS = ("full_sentiment", "missing_sentiment", "text_hidden", "text_query", "fused", "rank_contrast")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of eq. 14, alpha to delta, by the names of what they weigh; then those of SDUMC's loss."""

    completeness: float = 0.9
    adversarial: float = 0.8
    reconstruction: float = 0.1
    sentiment: float = 1.0
    # How far a prediction is from its label: `mse` is eq. 13.
    sentiment_distance: Literal["mse", "l1", "huber"] = "mse"
    # What completeness is measured against: 1 - the stated missing rate, or the share of erasable tokens kept (D6).
    completeness_target: Literal["stated", "realised"] = "stated"

    # SDUMC's six terms, w1 to w6 as in the later of the two published training scripts: the labels against the
    # predictions of the complete and of the missing flow, both by `sentiment_distance`; text as it was pooled, what the
    # queries found in it, and the fused representation, of the missing flow against the complete one; Rank-N-Contrast.
    full_sentiment: float = 0.5
    missing_sentiment: float = 0.5
    text_hidden: float = 0.1
    text_query: float = 0.7
    fused: float = 0.13
    rank_contrast: float = 0.5
    # Divides the distances that Rank-N-Contrast compares.
    rank_temperature: float = 2.0

    def __post_init__(self) -> None:
        for key in (*LNLN_TERMS, *SDUMC_TERMS):
            _require(getattr(self, key) >= 0, f"loss.{key}", "0 or more", getattr(self, key))
        _require(self.rank_temperature > 0, "loss.rank_temperature", "above 0", self.rank_temperature)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How one run is trained."""

    seed: int = 1111
    epochs: int = 20
    # Utterances in one step over all workers together, so the number of workers does not change the result.
    batch_size: int = 64
    # Batches whose utterances are sorted by length together, so that little is padded; 1: none are. The epoch's
    # shuffling decides which utterances share a window, and the batches of all windows are shuffled.
    length_window: int = 1
    learning_rate: float = 5e-4
    # The text encoder's own, since it is pre-trained and the rest is not.
    encoder_learning_rate: float = 5e-5
    weight_decay: float = 1e-2
    # The encoder's rate falls by this factor per layer from its last to its embeddings; 1: the same for all.
    encoder_layer_decay: float = 1.0
    # Weight decay on biases and normalisation weights too, as the published code does (D14).
    decay_everything: bool = False
    # Share of all steps over which the rate climbs; then it falls along a cosine.
    warmup_share: float = 0.1
    # `step` as above, or the published schedule: by epoch, 20 of warm-up, epoch 1 at rate 0 (D13).
    schedule: Literal["step", "published"] = "step"
    # Largest norm of the gradient; 0: no limit.
    clip_norm: float = 1.0
    # Decay of the exponential average of the weights that is validated and kept; 0: the weights themselves.
    average_decay: float = 0.0
    # Epochs without a better validation score before the run stops; 0: never.
    patience: int = 0
    # Arithmetic of the forward pass in training; losses and everything that is scored are always float32.
    precision: Literal["float32", "bfloat16"] = "float32"
    # Parts in which a worker computes its share of a step, one after the other, for batches that do not fit into memory
    # at once; the gradient is that of the whole batch.
    accumulation_steps: int = 1
    # What workers send each other of a gradient: bfloat16 halves the bytes, which on Ethernet are what a step waits for
    # (docs/performance.md), and rounds every part to 8 bits.
    gradient_compression: Literal["none", "bfloat16"] = "none"
    # What of the text encoder is not trained: `embeddings`, of which a corpus shows few rows (MiniLM: 12 of 23 million
    # weights, bert-base: 24 of 110), or all of it, which then reads without dropout. Frozen weights are neither
    # decayed nor sent.
    frozen: Literal["none", "embeddings", "encoder"] = "none"
    # torch.compile's mode for the forward and backward pass; `reduce-overhead` records CUDA graphs. For GPUs, where a
    # step waits for many small kernels to be started. Each shape of batches costs a minute at the start.
    compile: Literal["none", "default", "reduce-overhead"] = "none"
    # How the model is chosen: by the mean validation MAE; `published` keeps beside it, for each metric, the epoch that
    # is best on TEST at rate 0.5, as the published code does (D1). Only for comparison with printed tables.
    selection: Literal["validation", "published"] = "validation"
    # Checkpoints kept, the newest and the best always among them.
    num_checkpoints: int = 2

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "length_window", "num_checkpoints", "accumulation_steps"):
            _require(getattr(self, key) >= 1, f"train.{key}", "1 or more", getattr(self, key))
        for key in ("seed", "weight_decay", "clip_norm", "patience"):
            _require(getattr(self, key) >= 0, f"train.{key}", "0 or more", getattr(self, key))
        _require(self.seed < 2**63, "train.seed", "below 2**63", self.seed)
        for key in ("learning_rate", "encoder_learning_rate"):
            _require(getattr(self, key) > 0, f"train.{key}", "above 0", getattr(self, key))
        # The gradient of a recorded graph lies where the graph's next run writes (pytorch issue 169545).
        is_one_part = self.compile != "reduce-overhead" or self.accumulation_steps == 1
        _require(
            is_one_part, "train.accumulation_steps", "1 with train.compile reduce-overhead", self.accumulation_steps
        )
        _require(
            0 < self.encoder_layer_decay <= 1, "train.encoder_layer_decay", "within (0, 1]", self.encoder_layer_decay
        )
        _require(0 <= self.warmup_share < 1, "train.warmup_share", "within [0, 1)", self.warmup_share)
        _require(0 <= self.average_decay < 1, "train.average_decay", "within [0, 1)", self.average_decay)


@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """How a study is run; no part of a run's identity."""

    # Epochs of each training of a trial, instead of `train.epochs`.
    epochs: int = 5
    # Seeds that every trial trains with, one after the other, its scores their means; empty: `train.seed` alone. What
    # seeds differ by is as large as what most weights do.
    seeds: tuple[int, ...] = ()
    # Scores on the validation split that are made good, the first of them choosing the best trial: see
    # tuning/objectives.py. Several: a front of trials, and no pruning.
    objectives: tuple[str, ...] = ("mae",)
    # `tpe`, `random`, or any sampler of Optuna by the name of its class, such as CmaEsSampler.
    sampler: str = "tpe"
    seed: int = 0
    # `asha` stops a trial whose objective, after `grace_epochs` and again after each `reduction_factor` times as many,
    # is not among the best 1/reduction_factor of those that came as far.
    pruning: Literal["none", "asha"] = "asha"
    grace_epochs: int = 2
    reduction_factor: int = 3
    # Trials that run at the same time; 0: as many as there is room for. With one at a time a study that was interrupted
    # proposes what it would have.
    max_concurrent_trials: int = 0
    # Optuna storage; empty: a journal file in the study's folder.
    storage_url: str = ""

    def __post_init__(self) -> None:
        for key, least in (("epochs", 1), ("grace_epochs", 1), ("reduction_factor", 2), ("max_concurrent_trials", 0)):
            _require(getattr(self, key) >= least, f"tune.{key}", f"{least} or more", getattr(self, key))
        seeds_differ = len(set(self.seeds)) == len(self.seeds) and all(0 <= seed < 2**63 for seed in self.seeds)
        _require(seeds_differ, "tune.seeds", "different numbers from 0 on", list(self.seeds))


@dataclasses.dataclass(frozen=True)
class Config:
    """All of it. `to_dict` and `from_dict` are exact inverses."""

    corruption: CorruptionConfig = dataclasses.field(default_factory=CorruptionConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    tune: TuneConfig = dataclasses.field(default_factory=TuneConfig)

    def to_dict(self) -> dict[str, Any]:
        return dict(to_dict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        return from_dict(cls, values)

    @classmethod
    def from_stored(cls, values: Mapping[str, Any]) -> Config:
        """The config that a run or a model was stored with, perhaps by an earlier version: see `stored_model`."""
        return cls.from_dict({**values, "model": stored_model(values["model"])})

    def fingerprint(self) -> str:
        """Identity of what is trained: everything but `tune`, and what a model of this name does not look at."""
        return fingerprint({key: value for key, value in looked_at(self).items() if key != "tune"})


def load_config(name: str | None = None, overrides: Iterable[str] = ()) -> Config:
    """The config called `name` (a file of `lnln/configs/`, or a path to a YAML file), with `key=value` overrides.

    Raises RefusedError for an unknown name or key, or a value outside its range.
    """
    values: dict[str, Any] = {}
    if name is not None:
        values = read_yaml(name, resources.files("lnln.configs"), config_names())
    for override in overrides:
        assign(values, override, example="loss.adversarial=0.5")
    return Config.from_dict(values)


def looked_at(config: Config) -> dict[str, Any]:
    """`config` as a dict, without what came after the first version and a model of this name does not look at: so the
    same training keeps its identity."""
    values = config.to_dict()
    model, loss = values["model"], values["loss"]
    if config.model.name != "sdumc":
        del model["sdumc"]
        for key in (*SDUMC_TERMS, "rank_temperature"):
            del loss[key]
    if not config.model.reads_simulated_text:
        for key in ("simulated_text", "simulation", "text_missing_share"):
            del model[key]
    return values


def config_for(corpus: str, name: str | None = None, overrides: Iterable[str] = ()) -> Config:
    """`load_config(name, overrides)`; without a name the config called like the corpus, if there is one."""
    return load_config(corpus if name is None and corpus in config_names() else name, overrides)


def stored_model(values: Mapping[str, Any]) -> dict[str, Any]:
    """The `model` section that a run or a model was stored with, every switch in it.

    A stored section has every switch there was; one that it lacks came later, and until then the model did what was
    published, in both modes.
    """
    published = {switch: by_mode[0] for switch, by_mode in SWITCHES.items()}
    return {**published, **values}


def config_names() -> list[str]:
    """Names of the configs that come with the package."""
    folder = resources.files("lnln.configs")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def fingerprint(value: object) -> str:
    """Twelve hexadecimal digits of the SHA-256 of `value` as canonical JSON: equal content, equal fingerprint."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def to_dict(value: Any) -> Any:
    """Dataclasses to dicts, tuples to lists: what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    return value


def from_dict(cls: type[T], values: Mapping[str, Any], *, where: str = "") -> T:
    """The dataclass `cls` from nested mappings; keys may be left out. RefusedError for unknown keys and wrong types."""
    hints = get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        full = f"{where}{key}"
        if key not in hints:
            raise RefusedError(f"unknown config key {full!r}{_suggest(str(key), hints)}")
        arguments[key] = _convert(hints[key], value, full)
    return cls(**arguments)


def _suggest(key: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise RefusedError(f"config key {where} must be a section with keys of its own, got {value!r}")
        return from_dict(hint, value, where=f"{where}.")
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        parts = [part for part in get_args(hint) if part is not type(None)]
        # A list is for the part that is a tuple, where there is one; anything else is for the first.
        is_list = isinstance(value, (list, tuple))
        return _convert(next((p for p in parts if is_list and get_origin(p) is tuple), parts[0]), value, where)
    if origin is Literal:
        if value not in get_args(hint):
            raise RefusedError(
                f"config key {where} must be one of {', '.join(map(str, get_args(hint)))}, got {value!r}"
            )
        return value
    if origin is tuple:
        if isinstance(value, str) and get_args(hint)[0] in (int, float):
            raise RefusedError(f"config key {where} must be a list such as [-3, 3], got {value!r}")
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_convert(get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # an integer of more than 308 digits
            number = float("inf")
        _require(number == number and abs(number) != float("inf"), where, "a finite number", value)
        return number
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            return _convert(float, float(value), where)
        except ValueError as error:
            if isinstance(error, RefusedError):
                raise
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise RefusedError(f"config key {where} must be of type {hint.__name__}, got {value!r}")


def read_yaml(name: str, folder: Traversable, names: Sequence[str]) -> dict[str, Any]:
    """The sections of the config `name`: one of `names`, files of `folder`, or a path to a YAML file.

    RefusedError where there is none, or it holds no sections.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RefusedError(f"no config file at {name}")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RefusedError(f"config {name} is not UTF-8 text: {error.reason}") from error
    elif name in names:
        text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise RefusedError(f"no config called {name!r}; there are {', '.join(names)}, or give a .yaml file")
    try:
        values = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        raise RefusedError(f"config {name} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RefusedError(f"config {name} must hold sections such as `train:`, got {type(values).__name__}")
    return values


def assign(values: dict[str, Any], override: str, *, example: str) -> None:
    """Set in `values` what `override` says, a `section.key=value` in YAML; RefusedError where it says nothing."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RefusedError(f"--set takes key=value such as {example}, got {override!r}")
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise RefusedError(f"--set {key}: {section} is not a section")
    try:
        values[last] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RefusedError(f"--set {key}: cannot read the value {text!r}") from error
