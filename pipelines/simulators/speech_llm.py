"""A language model that listens: speech encoder, projector, prompt, and the hidden states of what it writes (SDUMC).

    sound -> speech encoder (a hidden state) -> projector (frames stacked, linear, ReLU, linear)
          -> [projected frames, prompt] -> causal language model, beam search
          -> of each token that it writes, the sum of its last layers: one step of simulated text

As SDUMC's `take_generate_wordembed`, whose released code reads the first beam at every step; here the states are those
of the hypothesis that won, since beams change places (reference.md, S10). That code also leaves out the first step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lnln.errors import RefusedError
from pipelines.extractors import hub
from pipelines.extractors.audio.speech_encoder import Config as EncoderConfig
from pipelines.extractors.audio.speech_encoder import Extractor as SpeechEncoder
from pipelines.extractors.base import Clip
from pipelines.simulators import speech
from pipelines.simulators.base import CorpusText, Simulated

# The prompt that the released features were made with.
PROMPT = (
    "USER: Transcribe speech to text. Output the transcription directly without redundant content. Ensure that the "
    "output is not duplicated. \n ASSISTANT:"
)
# Of a projector's weights; SLAM-LLM keeps them with the second prefix.
_LAYERS = ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")
_PREFIXES = ("", "encoder_projector.")


@dataclass(frozen=True)
class Config:
    # What hears, and which of its hidden states: a Hugging Face name or a folder; -1 is the output of the last layer.
    speech_encoder: str = "microsoft/wavlm-large@refs/pr/6"
    hidden_state: int = -1
    # A folder with one safetensors file: linear1.weight (H, n D), linear1.bias, linear2.weight (E, H), linear2.bias,
    # for n frames of width D at a time, and a language model whose words have width E.
    projector: str = ""
    # What writes: a Hugging Face name or a folder of a causal language model, and the precision that it computes in.
    language_model: str = "lmsys/vicuna-7b-v1.5"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    # What it reads behind the sound.
    prompt: str = PROMPT
    # Hypotheses that are weighed against each other, and the most tokens of one.
    num_beams: int = 4
    max_new_tokens: int = 200
    # A step is the sum of the last so many layers.
    num_layers: int = 4
    # Leave out the first step, the state that the first token is chosen by, as the released code does.
    drop_first: bool = False
    # Longest stretch of sound that the encoder hears at once.
    window_seconds: float = 30.0
    # A clip that takes longer has no simulated text.
    timeout_seconds: float = 600.0

    def __post_init__(self) -> None:
        for key in ("speech_encoder", "language_model"):
            if not getattr(self, key).strip():
                raise RefusedError(f"{key} must be a Hugging Face name or a folder, got an empty one")
        if not self.projector.strip():
            raise RefusedError(
                "projector must be a folder with the weights of a projector, which speech encoder and language model "
                "share; set it with --set projector=FOLDER"
            )
        for key in ("num_beams", "max_new_tokens", "num_layers"):
            if getattr(self, key) < 1:
                raise RefusedError(f"{key} must be 1 or more, got {getattr(self, key)}")
        if not self.timeout_seconds > 0:
            raise RefusedError(f"timeout_seconds must be above 0, got {self.timeout_seconds:g}")


VERSION = 1
PACKAGES = ("numpy", "torch", "transformers")
HEARS_CLIPS = True


class Simulator:
    """A `SpeechSimulator`."""

    def __init__(self, config: Config, text: CorpusText) -> None:
        """RefusedError where weights are not at hand, or do not fit together."""
        self._config = config
        encoder = EncoderConfig(
            model=config.speech_encoder, hidden_state=config.hidden_state, window_seconds=config.window_seconds
        )
        try:
            self._encoder = SpeechEncoder(encoder)
        except RefusedError as error:
            raise RefusedError(f"speech_encoder: {error}") from error
        needed = ("tokenizer.json|tokenizer.model|vocab.json",)
        self._writer = speech.load_pretrained(
            config.language_model, "language_model", "AutoModelForCausalLM", needed=needed, precision=config.precision
        )
        self._words = speech.load_part(self._writer, "language_model", "AutoTokenizer")
        self.dim = int(self._writer.model.config.get_text_config().hidden_size)
        if not config.num_layers <= self._num_layers:
            raise RefusedError(
                f"num_layers must be from 1 to {self._num_layers} for {config.language_model}, got {config.num_layers}"
            )
        self._projector, projector_record = load_projector(config.projector, len(self._encoder.columns), self.dim)
        self.models: Mapping[str, Mapping[str, Any]] = {
            "speech_encoder": {"name": hub.short_name(config.speech_encoder), **self._encoder.provenance},
            "projector": projector_record,
            "language_model": self._writer.record(),
        }
        self.knobs: Mapping[str, Any] = {key: model["name"] for key, model in self.models.items()}

    @property
    def _num_layers(self) -> int:
        return int(self._writer.model.config.get_text_config().num_hidden_layers)

    def simulate(self, clip: Clip) -> Simulated:
        """A step per token that is written; no steps where there is no sound."""
        import torch

        frames = self._encoder.extract(clip).values
        if not len(frames):
            return Simulated(np.zeros((0, self.dim), np.float32))
        with torch.inference_mode():
            steps, ids = self.write(self.embed(torch.from_numpy(frames)))
        said = self._words.decode(ids, skip_special_tokens=True)
        return Simulated(steps.float().numpy(), " ".join(said.split()))

    def embed(self, frames: Any) -> Any:
        """(T, D) frames -> (1, L, E): what is heard, projected, and behind it the prompt."""
        import torch

        table = self._writer.model.get_input_embeddings()
        asked = table(torch.tensor(self._words(self._config.prompt).input_ids, dtype=torch.int64)[None])
        return torch.cat([self._projector(frames)[None].to(asked.dtype), asked], dim=1)

    def write(self, embedded: Any) -> tuple[Any, Any]:
        """(1, L, E) -> the (steps, E) states that the tokens of the winning hypothesis were chosen by, and its ids."""
        import torch

        config = self._config
        written = self._writer.model.generate(
            inputs_embeds=embedded,
            attention_mask=torch.ones(embedded.shape[:2], dtype=torch.int64),
            num_beams=config.num_beams,
            max_new_tokens=config.max_new_tokens,
            do_sample=False,
            num_return_sequences=1,
            return_dict_in_generate=True,
            output_hidden_states=True,
            output_scores=True,
            pad_token_id=self._padding(),
        )
        ids = written.sequences[0]
        # Which beam each token of the winner came from, -1 behind its end; beams change places from step to step.
        beams = written.beam_indices[0].tolist() if config.num_beams > 1 else [0] * len(written.hidden_states)
        steps = [
            sum(layer[beam, -1] for layer in states[-config.num_layers :])
            for beam, states in zip(beams, written.hidden_states, strict=False)
            if beam >= 0
        ]
        return torch.stack(steps[config.drop_first :] or [embedded.new_zeros((0, self.dim))]).reshape(-1, self.dim), ids

    def _padding(self) -> int:
        """What stands behind the end of shorter hypotheses: any token will do."""
        known = (self._words.pad_token_id, self._words.eos_token_id)
        return next((token for token in known if token is not None), 0)


def load_projector(folder: str, frame_dim: int, word_dim: int) -> tuple[Any, dict[str, Any]]:
    """The projector in `folder` as a function of (T, frame_dim) frames, and what the manifest says of it.

    RefusedError where its file is missing or damaged, or fits neither the encoder nor the language model.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found = sorted(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else []
    if len(found) != 1:
        raise RefusedError(f"projector={folder} must be a folder with one safetensors file, it has {len(found)}")
    try:
        tensors = load_file(found[0])
    except (OSError, ValueError, SafetensorError) as error:
        raise RefusedError(f"projector={folder}: {found[0].name} cannot be read: {error}") from error
    prefix = next((p for p in _PREFIXES if all(p + layer in tensors for layer in _LAYERS)), None)
    if prefix is None:
        raise RefusedError(f"projector={folder} must have {', '.join(_LAYERS)}, it has {', '.join(sorted(tensors))}")
    first, first_bias, second, second_bias = (tensors[prefix + layer].float() for layer in _LAYERS)
    shapes = [tuple(weights.shape) for weights in (first, first_bias, second, second_bias)]
    hidden = len(first_bias)
    num_stacked = first.shape[-1] // frame_dim
    if not num_stacked or shapes != [(hidden, num_stacked * frame_dim), (hidden,), (word_dim, hidden), (word_dim,)]:
        raise RefusedError(
            f"projector={folder} has weights of shapes {shapes}, expected a map from a multiple of {frame_dim}, the "
            f"width of the speech encoder, to {word_dim}, that of the language model"
        )

    def project(frames: torch.Tensor) -> torch.Tensor:
        """(T, D) -> (T // n, E); frames behind the last whole stack are left out, and one stack is filled up."""
        if len(frames) < num_stacked:
            frames = torch.nn.functional.pad(frames, (0, 0, 0, num_stacked - len(frames)))
        whole = len(frames) // num_stacked
        stacked = frames[: whole * num_stacked].reshape(whole, num_stacked * frame_dim)
        inner = torch.nn.functional.linear(stacked, first, first_bias).relu()
        return torch.nn.functional.linear(inner, second, second_bias)

    record = {"name": Path(folder).resolve().name, "sha256": {found[0].name: speech.file_sha256(found[0])}}
    return project, record
