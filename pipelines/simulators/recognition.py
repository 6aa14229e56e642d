"""Speech recognition: what a clip says, as a model of Hugging Face hears it, read by the text encoder.

The words are cut up by the tokenizer of the corpus, and a step is what the encoder says of one token, as it is of real
text. Recognisers are those that write (Whisper and the like) and those that name the sound of each frame (CTC, as
wav2vec 2.0). Longer sound is heard in windows, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.errors import RefusedError
from pipelines.extractors.base import Clip
from pipelines.extractors.text.wordpiece import Config as TokenizerConfig
from pipelines.extractors.text.wordpiece import Extractor as TextTokens
from pipelines.simulators import speech
from pipelines.simulators.base import CorpusText, Simulated
from pipelines.simulators.texts import encode, encoder_record, load_encoder, require_vocabulary


@dataclass(frozen=True)
class Config:
    # What hears: a Hugging Face name (`NAME@REVISION` for one of its revisions) or a folder, with safetensors weights.
    model: str = "openai/whisper-small"
    # What reads: as `model.text_encoder` of the models that will read the simulated text.
    text_encoder: str = "minilm"
    # Of a recogniser of many languages, the one that is spoken, such as `en`; empty: it finds out by itself.
    language: str = ""
    # Transcripts that are weighed against each other, and the most tokens of one window; of recognisers that write.
    num_beams: int = 1
    max_new_tokens: int = 200
    # Longest stretch of sound that is heard at once; recognisers that write hear no more than they were made for.
    window_seconds: float = 30.0
    # A clip that takes longer has no simulated text.
    timeout_seconds: float = 600.0

    def __post_init__(self) -> None:
        for key in ("model", "text_encoder"):
            if not getattr(self, key).strip():
                raise RefusedError(f"{key} must be a Hugging Face name or a folder, got an empty one")
        for key in ("num_beams", "max_new_tokens"):
            if getattr(self, key) < 1:
                raise RefusedError(f"{key} must be 1 or more, got {getattr(self, key)}")
        if not self.window_seconds >= 1:
            raise RefusedError(f"window_seconds must be 1 or more, got {self.window_seconds:g}")
        if not self.timeout_seconds > 0:
            raise RefusedError(f"timeout_seconds must be above 0, got {self.timeout_seconds:g}")


VERSION = 1
PACKAGES = ("numpy", "torch", "transformers")
HEARS_CLIPS = True


class Simulator:
    """A `SpeechSimulator`."""

    def __init__(self, config: Config, text: CorpusText) -> None:
        """RefusedError where weights are not at hand, or the text of the corpus is no ids."""
        if text.text_dim:
            raise RefusedError(
                "provider recognition reads transcripts by a tokenizer and an encoder, and the corpus has language "
                "features that were made otherwise; import its ids, or use --provider regressor"
            )
        require_vocabulary(config.text_encoder, text.tokenizer)
        self._tokens = TextTokens(TokenizerConfig(text.source))
        if self._tokens.tokenizer.vocabulary_size != text.tokenizer.vocabulary_size:
            raise RefusedError(
                f"tokenizer {text.source} has {self._tokens.tokenizer.vocabulary_size} tokens here, and had "
                f"{text.tokenizer.vocabulary_size} where the corpus was made"
            )
        encoder = load_encoder(config.text_encoder, "text_encoder")
        self._encoder = encoder.model
        self._config = config
        folder = speech.find_folder(config.model, "model", ("preprocessor_config.json|processor_config.json",))
        self._names_frames = any(one.endswith("CTC") for one in speech.architectures(folder, "model", config.model))
        auto = "AutoModelForCTC" if self._names_frames else "AutoModelForSpeechSeq2Seq"
        self._loaded = speech.load_pretrained(config.model, "model", auto)
        self._preprocess = speech.load_part(self._loaded, "model", "AutoFeatureExtractor")
        self._words = speech.load_part(self._loaded, "model", "AutoTokenizer")
        self.rate_hz = int(self._preprocess.sampling_rate)
        self.dim = int(self._encoder.dim)
        self.models: Mapping[str, Mapping[str, Any]] = {
            "model": self._loaded.record(),
            "text_encoder": encoder_record(encoder),
            "tokenizer": {"name": text.tokenizer.name, **self._tokens.provenance},
        }
        self.knobs: Mapping[str, Any] = {key: self.models[key]["name"] for key in ("model", "text_encoder")}

    def simulate(self, clip: Clip) -> Simulated:
        """A step per token of what is heard; no steps, and no text, where there is no sound."""
        samples = clip.sound(self.rate_hz)
        if not len(samples):
            return Simulated(np.zeros((0, self.dim), np.float32))
        said = " ".join(part for part in map(self._transcribe, self._windows(samples)) if part)
        [ids] = self._tokens.encode([said])
        [steps] = encode(self._encoder, [ids])
        return Simulated(steps, said)

    def _windows(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Of equal length, none longer than can be heard at once."""
        longest = self._config.window_seconds * self.rate_hz
        longest = min(longest, getattr(self._preprocess, "n_samples", longest))
        yield from np.array_split(samples, math.ceil(len(samples) / longest))

    def _transcribe(self, samples: NDArray[np.float32]) -> str:
        import torch

        config = self._config
        heard = self._preprocess(samples, sampling_rate=self.rate_hz, return_tensors="pt")
        with torch.inference_mode():
            if self._names_frames:
                shortest = self._shortest()
                values = heard.input_values
                values = torch.nn.functional.pad(values, (0, max(0, shortest - values.shape[1])))
                ids = self._loaded.model(values).logits.argmax(dim=-1)
            else:
                asked = {"language": config.language} if config.language else {}
                ids = self._loaded.model.generate(
                    heard[self._loaded.model.main_input_name],
                    num_beams=config.num_beams,
                    max_new_tokens=config.max_new_tokens,
                    do_sample=False,
                    **asked,
                )
        return " ".join(self._words.batch_decode(ids, skip_special_tokens=True)[0].split())

    def _shortest(self) -> int:
        """Samples that one frame looks at."""
        reach, stride = 1, 1
        architecture = self._loaded.model.config
        for kernel, step in zip(
            getattr(architecture, "conv_kernel", ()), getattr(architecture, "conv_stride", ()), strict=True
        ):
            reach += (kernel - 1) * stride
            stride *= step
        return reach
