"""A Hugging Face image encoder's view of the face, or of the whole picture: one vector for each picture.

    load("vision", "image_encoder", {"model": "facebook/dinov2-base", "crop": "picture"}).extract(clip).values

Pictures are prepared as the model's preprocessor_config.json says, by `transformers` with Pillow, whether torchvision
is installed or not. SDUMC reads 1,024 columns of face crops from MANet, which `transformers` does not have; the default
has as many (CLIP ViT-L/14: Radford et al., ICML 2021). A frame without a face is zeros, which no encoder gives; a clip
without any face lacks the modality. With `crop: picture` no face is looked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lnln.errors import RefusedError
from pipelines.extractors import hub
from pipelines.extractors.base import Clip, Features, Picture, no_features
from pipelines.extractors.faces import OPENCV, Box, FaceConfig, FaceFinder, follow


@dataclass(frozen=True)
class Config:
    # A Hugging Face name (`NAME@REVISION` for one of its revisions) or a folder, with safetensors weights.
    model: str = "openai/clip-vit-large-patch14"
    # What the encoder is shown: the face that the clip is about, or the whole picture.
    crop: Literal["face", "picture"] = "face"
    # Added around the face on each side, as a share of it: hair and chin, which detectors leave out.
    margin: float = 0.15
    # One vector of many: the encoder's own pooled output, its first token, or the mean of its last hidden state.
    pooling: Literal["pooled", "first", "mean"] = "pooled"
    # Pictures a second.
    rate_hz: float = 5.0
    # Pictures are shrunk until no side is above this.
    longest_side: int = 640
    # Pictures that are encoded at once.
    batch_size: int = 8
    # How faces are looked for.
    faces: FaceConfig = field(default_factory=FaceConfig)

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise RefusedError("vision.model must be a Hugging Face name or a folder, got an empty one")
        if not 0 <= self.margin <= 2:
            raise RefusedError(f"vision.margin must be from 0 to 2, got {self.margin:g}")
        if not 0 < self.rate_hz <= 1000:
            raise RefusedError(f"vision.rate_hz must be above 0 and at most 1000, got {self.rate_hz:g}")
        for key in ("longest_side", "batch_size"):
            if getattr(self, key) < 1:
                raise RefusedError(f"vision.{key} must be 1 or more, got {getattr(self, key)}")


VERSION = 1
PACKAGES = (OPENCV, "pillow", "torch", "transformers")

# Models of pictures and texts, of which only the part that sees is loaded.
_SEEING_PART = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel", "chinese_clip": "ChineseCLIPVisionModel"}
# A longer picture is cut to its middle, all that a square encoder would be shown of it; enlarged whole, one of a single
# row would fill the memory.
_LONGEST_TO_SHORTEST = 4


class Extractor:
    """A `FrameExtractor` of vision."""

    def __init__(self, config: Config) -> None:
        """RefusedError where the weights are not at hand, or are of no model that sees pictures."""
        self.config = config
        self.rate_hz = config.rate_hz
        self._find = FaceFinder(config.faces).find if config.crop == "face" else _no_faces
        folder = hub.find(config.model, "vision.model", hub.MODEL_FILES, needed=("config.json", "*.safetensors"))
        # Weights of a pooling that is not used: many models come without it.
        unread = () if config.pooling == "pooled" else ("pooler.",)
        self._loaded = hub.load_model(config.model, "vision.model", auto=_seeing_part(folder), unread=unread)
        self._prepare = hub.load_preprocessor(self._loaded, "vision.model", auto="AutoImageProcessor", backend="pil")
        try:
            width = self._encode([np.zeros((64, 64, 3), np.uint8)]).shape[1]
        except Exception as error:  # whatever a model raises that is shown a picture and does not see
            raise RefusedError(
                f"vision.model={config.model} gives no {config.pooling} output for a picture ({_first_line(error)}); "
                f"it must be an image encoder such as clip, siglip, dinov2 or vit, and vision.pooling one that it has"
            ) from error
        self.columns = tuple(f"{config.pooling}_{index}" for index in range(width))

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The SHA-256 of the model's files."""
        return {"sha256": self._loaded.sha256}

    def extract(self, clip: Clip) -> Features:
        """(T, width of the encoder) at `rate_hz`. counts, with `crop: face`: those of the extractor `face`."""
        times: list[float] = []
        rows: list[int] = []  # of the frames that show a face
        encoded: list[NDArray[np.float32]] = []
        waiting: list[NDArray[np.uint8]] = []
        num_several = 0
        for picture, shown, num_faces in self._shown(clip):
            times.append(picture.time)
            num_several += num_faces > 1
            if shown is not None:
                rows.append(len(times) - 1)
                waiting.append(shown)
            if len(waiting) == self.config.batch_size:
                encoded.append(self._encode(waiting))
                waiting = []
        if waiting:
            encoded.append(self._encode(waiting))
        counts = {}
        if self.config.crop == "face":
            counts = {
                "frames_without_face": len(times) - len(rows) if rows else 0,
                "frames_with_several_faces": num_several,
                "clips_without_face": int(clip.has_picture and not rows),
            }
        if not rows:
            none = no_features(len(self.columns))
            return Features(none.values, none.times, counts)
        values = np.zeros((len(times), len(self.columns)), np.float32)
        values[rows] = np.concatenate(encoded)
        return Features(values, np.array(times, np.float64), counts)

    def _shown(self, clip: Clip) -> Iterator[tuple[Picture, NDArray[np.uint8] | None, int]]:
        """Each picture, what the encoder is to be shown of it, and how many faces it has."""
        pictures = clip.pictures(self.config.rate_hz, self.config.longest_side)
        if self.config.crop == "picture":
            yield from ((picture, _not_too_long(picture.image), 0) for picture in pictures)
            return
        for sighting in follow(pictures, self._find, self.config.faces.patience_seconds):
            shown = None
            if sighting.face is not None:
                # A copy, since a view would keep the whole picture.
                shown = _not_too_long(
                    _with_margin(sighting.face, self.config.margin).cut(sighting.picture.image)
                ).copy()
            yield sighting.picture, shown, sighting.num_faces

    def _encode(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """(N, width) of N pictures (H, W, 3), each of its own size."""
        import torch

        pixels = self._prepare(images, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            output = self._loaded.model(pixel_values=pixels)
        if self.config.pooling == "pooled":
            encoded = output.pooler_output.flatten(1)  # of a convolutional encoder: (N, width, 1, 1)
        elif self.config.pooling == "first":
            encoded = _tokens(output.last_hidden_state)[:, 0]
        else:
            encoded = _tokens(output.last_hidden_state).mean(1)
        vectors: NDArray[np.float32] = encoded.numpy()
        return vectors


def _tokens(hidden: Any) -> Any:
    """(N, tokens, width), also of a convolutional encoder's (N, width, rows, columns)."""
    return hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden


def _seeing_part(folder: Any) -> str:
    """The class of `transformers` for the model in `folder`."""
    try:
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return "AutoModel"  # which says what is wrong with it
    return _SEEING_PART.get(model_type, "AutoModel")


def _with_margin(face: Box, margin: float) -> Box:
    across, down = round(margin * face.width), round(margin * face.height)
    return Box(face.left - across, face.top - down, face.width + 2 * across, face.height + 2 * down)


def _not_too_long(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of a picture that is more than four times as long as it is wide, or the other way round."""
    height, width = image.shape[:2]
    longest = _LONGEST_TO_SHORTEST * min(height, width)
    across, down = max(width - longest, 0) // 2, max(height - longest, 0) // 2
    return image[down : height - down, across : width - across]


def _no_faces(image: NDArray[np.uint8]) -> list[Box]:
    return []


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
