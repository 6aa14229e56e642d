"""With tiny encoders of random weights, saved as trained ones are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnln.errors import RefusedError
from pipelines.clips.drawn_faces import DrawnFace
from pipelines.extractors import choose
from pipelines.extractors.vision.image_encoder import Config, Extractor
from tests.pipelines.extractors.vision.picture_clip import PictureClip, drawn, noise, speaking

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
TOWER: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


def save(folder: Path, kind: str) -> str:
    """A model of `kind` with random weights in `folder`, as published ones are: safetensors and preparation."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    words = {**TOWER, "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    make: dict[str, Any] = {
        "clip": lambda: hf.CLIPModel(hf.CLIPConfig(text_config=words, vision_config=TOWER, projection_dim=8)),
        "siglip": lambda: hf.SiglipModel(hf.SiglipConfig(text_config=words, vision_config=TOWER)),
        "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**{**TOWER, "mlp_ratio": 2})),
        "vit": lambda: hf.ViTModel(hf.ViTConfig(**TOWER)),
        "vit_for_labels": lambda: hf.ViTForImageClassification(hf.ViTConfig(**TOWER)),  # has no pooler
        "convnext": lambda: hf.ConvNextModel(hf.ConvNextConfig(hidden_sizes=[8, 16, 16, 24], depths=[1, 1, 1, 1])),
        "bert": lambda: hf.BertModel(hf.BertConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
                                                   intermediate_size=24, vocab_size=64)),
    }  # fmt: skip
    make[kind]().save_pretrained(folder)
    preparation = {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 32, "width": 32},
        "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN,
        "image_std": STD,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation))
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    kinds = ("clip", "siglip", "dinov2", "vit", "vit_for_labels", "convnext", "bert")
    return {kind: save(tmp_path_factory.mktemp(kind), kind) for kind in kinds}


def extractor(folders: dict[str, str], kind: str = "clip", **knobs: Any) -> Extractor:
    return Extractor(Config(model=folders[kind], **{"crop": "picture", **knobs}))


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("clip", "pooled"), ("clip", "first"), ("clip", "mean"), ("siglip", "pooled"), ("dinov2", "pooled"),
     ("vit", "pooled"), ("vit_for_labels", "mean"), ("convnext", "pooled"), ("convnext", "mean")],
)  # fmt: skip
def test_encoders_of_many_kinds(folders: dict[str, str], kind: str, pooling: str) -> None:
    made = extractor(folders, kind, pooling=pooling)
    features = made.extract(PictureClip(speaking(3), rate_hz=5))
    assert features.values.shape == (3, 24) == (3, len(made.columns))
    assert made.columns[0] == f"{pooling}_0"
    assert np.isfinite(features.values).all() and features.values.std(axis=1).min() > 0
    assert not np.allclose(features.values[0], features.values[1], atol=1e-6)
    assert features.times == pytest.approx([0, 0.2, 0.4])
    assert features.counts == {}


def test_it_is_the_output_that_the_model_gives(folders: dict[str, str]) -> None:
    """A picture of the encoder's own size, so that all there is to prepare is arithmetic."""
    import torch
    from transformers import CLIPVisionModel

    [image] = noise(1, size=(32, 32))
    pixels = (image / 255 - np.array(MEAN)) / np.array(STD)
    model = CLIPVisionModel.from_pretrained(folders["clip"]).eval()
    with torch.inference_mode():
        expected = model(pixel_values=torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32))
    for pooling, values in {
        "pooled": expected.pooler_output, "first": expected.last_hidden_state[:, 0],
        "mean": expected.last_hidden_state.mean(1),
    }.items():  # fmt: skip
        found = extractor(folders, pooling=pooling).extract(PictureClip([image])).values
        assert found == pytest.approx(values.numpy(), abs=1e-5)


def test_the_model_is_not_training(folders: dict[str, str]) -> None:
    made, clip = extractor(folders), PictureClip(speaking(5))
    assert made.extract(clip).values.tobytes() == made.extract(clip).values.tobytes()
    assert made.extract(clip).values == pytest.approx(extractor(folders, batch_size=2).extract(clip).values, abs=1e-5)


def test_faces_are_cut_out(folders: dict[str, str]) -> None:
    """What is beside the face plays no part then, and does otherwise."""
    plain = drawn(DrawnFace(160, 120, 170), size=(640, 240))
    beside = plain.copy()
    beside[:, 400:] = 20
    for crop, differs in (("face", False), ("picture", True)):
        made = extractor(folders, crop=crop)
        first, second = (made.extract(PictureClip([image] * 2)).values for image in (plain, beside))
        assert first.shape == (2, 24)
        assert (np.abs(first - second).max() > 1e-4) == differs


def test_frames_without_a_face_are_zeros_and_counted(folders: dict[str, str]) -> None:
    made = extractor(folders, crop="face", batch_size=2)
    features = made.extract(PictureClip([*noise(2), *speaking(5), *noise(2)]))
    assert features.values.any(axis=1).tolist() == [False] * 2 + [True] * 5 + [False] * 2
    assert features.counts == {"frames_without_face": 4, "frames_with_several_faces": 0, "clips_without_face": 0}
    alone = made.extract(PictureClip(speaking(5)))
    assert features.values[2:7] == pytest.approx(alone.values, abs=1e-5)


def test_no_face_and_no_picture(folders: dict[str, str]) -> None:
    made = extractor(folders, crop="face")
    no_face, no_picture = made.extract(PictureClip(noise(2))), made.extract(PictureClip([]))
    assert no_face.values.shape == no_picture.values.shape == (0, 24)
    assert (no_face.counts["clips_without_face"], no_picture.counts["clips_without_face"]) == (1, 0)
    assert extractor(folders).extract(PictureClip([])).values.shape == (0, 24)


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 3), (3, 3), (4, 2), (3000, 1), (1, 3000)])
def test_any_size_of_picture(folders: dict[str, str], size: tuple[int, int]) -> None:
    """Three rows could be taken for three colours."""
    images = noise(2, size=size)
    features = extractor(folders).extract(PictureClip(images))
    assert features.values.shape == (2, 24) and np.isfinite(features.values).all()


def test_the_record_knows_the_weights_by_their_bytes(folders: dict[str, str]) -> None:
    chosen = choose("vision", "image_encoder", {"model": folders["vit"], "crop": "picture"})
    made = chosen.make()
    assert chosen.record(made)["columns"] == [f"pooled_{index}" for index in range(24)]
    digests = made.provenance["sha256"]
    assert set(digests) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert all(len(digest) == 64 for digest in digests.values())


# --- refusals ------------------------------------------------------------------------------------------------------


def test_a_model_that_reads_words_is_refused(folders: dict[str, str]) -> None:
    with pytest.raises(RefusedError, match=r"vision.model=.* it must be an image encoder"):
        extractor(folders, "bert")


def test_a_pooling_that_the_model_lacks_is_refused(folders: dict[str, str]) -> None:
    with pytest.raises(RefusedError, match=r"lacks 2 of its weights.*pooler"):
        extractor(folders, "vit_for_labels", pooling="pooled")


def test_a_folder_without_weights_or_preparation(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"vision.model=.* is a folder without config.json"):
        Extractor(Config(model=str(tmp_path)))
    source = Path(folders["vit"])
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    with pytest.raises(RefusedError, match=r"preprocessor_config.json"):
        Extractor(Config(model=str(tmp_path)))
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(RefusedError, match=r"vision.model"):
        Extractor(Config(model=str(tmp_path)))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(RefusedError, match=r"vision.model"):
        Extractor(Config(model=str(tmp_path)))


@pytest.mark.parametrize(
    "knobs",
    [{"model": " "}, {"margin": -1.0}, {"margin": float("nan")}, {"rate_hz": 0.0}, {"batch_size": 0},
     {"longest_side": 0}, {"crop": "eyes"}, {"pooling": "max"}],
)  # fmt: skip
def test_knobs_out_of_range(knobs: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="vision"):
        choose("vision", "image_encoder", knobs)
