"""Speech encoders, as small ones with random weights: what `transformers` gives, whole and in windows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.errors import RefusedError
from pipelines.extractors import choose, load
from pipelines.extractors.audio.speech_encoder import _windows
from tests.pipelines.extractors.audio.sounds import SoundClip, check_form, noise

RATE = 16_000
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
KINDS = {
    "wavlm": {"do_stable_layer_norm": True, "feat_extract_norm": "layer"},  # as WavLM-large
    "wav2vec2": {},  # normalises over all it is given
    "hubert": {},
}


def save(folder: Path, kind: str = "wavlm", *, is_normalised: bool = True, **config: Any) -> Any:
    """A model with random weights, kept in `folder` as the hub keeps them."""
    from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **SMALL, **KINDS.get(kind, {}), **config)).eval()
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=is_normalised, sampling_rate=RATE).save_pretrained(folder)
    return model


@pytest.fixture(scope="module", params=KINDS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    return folder, save(folder, request.param)


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "wavlm"
    save(folder)
    return folder


def directly(model: Any, samples: Any, hidden_state: int) -> Any:
    """(T, D) by `transformers` alone, of the whole clip."""
    heard = torch.from_numpy((samples - samples.mean()) / np.sqrt(samples.var() + 1e-7))
    with torch.no_grad():
        return model(heard[None], output_hidden_states=True).hidden_states[hidden_state][0].numpy()


@pytest.mark.parametrize("hidden_state", [-5, -2, -1, 0, 3])
@pytest.mark.parametrize("num_samples", [400, 47_123])
def test_it_gives_what_the_model_gives(saved: tuple[Path, Any], hidden_state: int, num_samples: int) -> None:
    folder, model = saved
    extractor = load("audio", "speech_encoder", {"model": str(folder), "hidden_state": hidden_state})
    samples = 0.1 * noise(num_samples) + 0.05
    features = extractor.extract(SoundClip(samples, RATE))
    np.testing.assert_allclose(features.values, directly(model, samples, hidden_state), atol=1e-5)
    assert features.values.dtype == np.float32 and features.values.flags.writeable


def test_sound_is_normalised_only_where_the_model_says_so(tmp_path: Path) -> None:
    save(tmp_path, is_normalised=False)
    extractor = load("audio", "speech_encoder", {"model": str(tmp_path)})
    loud, quiet = (extractor.extract(SoundClip(a * noise(8000), RATE)).values for a in (1.0, 0.01))
    assert not np.allclose(loud, quiet, atol=1e-3)
    save(tmp_path, is_normalised=True)
    extractor = load("audio", "speech_encoder", {"model": str(tmp_path)})
    loud, quiet = (extractor.extract(SoundClip(a * noise(8000), RATE)).values for a in (1.0, 0.01))
    assert np.allclose(loud, quiet, atol=1e-2)


def test_windows_give_nearly_what_the_whole_gives_and_are_used(wavlm: Path) -> None:
    knobs = {"model": str(wavlm), "hidden_state": -2}
    clip = SoundClip(noise(20 * RATE), RATE)
    whole = load("audio", "speech_encoder", knobs).extract(clip)
    parts = load("audio", "speech_encoder", {**knobs, "window_seconds": 6.0, "context_seconds": 2.0}).extract(clip)
    torn = load("audio", "speech_encoder", {**knobs, "window_seconds": 6.0, "context_seconds": 0.0}).extract(clip)
    np.testing.assert_array_equal(whole.times, parts.times)
    # Attention to all that is far away is lost, and nothing at the joints beyond that.
    difference, at_joints = (np.abs(made.values - whole.values).max(axis=1) for made in (parts, torn))
    assert 0 < difference.max() < 0.1 * at_joints.max()
    assert difference.max() < 0.05 * np.abs(whole.values).mean()


@settings(deadline=None)
@given(num_frames=st.integers(1, 3000), core=st.integers(1, 300), context=st.integers(0, 100))
def test_windows_cover_every_frame_once(num_frames: int, core: int, context: int) -> None:
    longest = core + 2 * context
    frames = np.arange(num_frames)
    kept = []
    for window, inner in _windows(num_frames, longest, context):
        part = frames[window]
        assert 1 <= len(part) <= longest
        inside = part[inner]
        assert len(inside)
        assert inside[0] - part[0] >= context or part[0] == 0
        assert part[-1] - inside[-1] >= context or part[-1] == num_frames - 1
        kept.append(inside)
    np.testing.assert_array_equal(np.concatenate(kept), frames)


@pytest.mark.parametrize("num_samples", [0, 1, 2, 399, 400, 401, 719, 720, 16_000, 47_999, 48_000, 48_400, 80_001])
@pytest.mark.parametrize("is_silent", [True, False])
def test_any_length_gives_finite_features(wavlm: Path, num_samples: int, is_silent: bool) -> None:
    knobs = {"model": str(wavlm), "window_seconds": 3.0, "context_seconds": 1.0}
    extractor = load("audio", "speech_encoder", knobs)
    clip = SoundClip(np.zeros(num_samples, np.float32) if is_silent else noise(num_samples), RATE)
    features = extractor.extract(clip)
    check_form(features, extractor.columns, clip)
    assert len(features.values) == (max(1, 1 + (num_samples - 400) // 320) if num_samples else 0)
    np.testing.assert_array_equal(features.values, extractor.extract(clip).values)


def test_frames_are_50_a_second_from_12_5_milliseconds(wavlm: Path) -> None:
    extractor = load("audio", "speech_encoder", {"model": str(wavlm)})
    assert extractor.rate_hz == 50
    times = extractor.extract(SoundClip(noise(RATE), RATE)).times
    np.testing.assert_allclose(times, 0.0125 + 0.02 * np.arange(49))


def test_a_frame_lies_where_its_time_says(wavlm: Path) -> None:
    """What the first layer is given differs only around a change of one moment."""
    extractor = load("audio", "speech_encoder", {"model": str(wavlm), "hidden_state": 0})
    samples = noise(2 * RATE)
    changed = samples.copy()
    changed[RATE : RATE + 10] *= -1
    before, after = (extractor.extract(SoundClip(sound, RATE)) for sound in (samples, changed))
    difference = np.abs(before.values - after.values).max(axis=1)
    assert before.times[difference.argmax()] == pytest.approx(1.0, abs=0.02)


def test_the_manifest_gets_the_weights_checksum(wavlm: Path) -> None:
    chosen = choose("audio", "speech_encoder", {"model": str(wavlm)})
    record = chosen.record(chosen.make())
    weights = (wavlm / "model.safetensors").read_bytes()
    assert record["sha256"]["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert set(record["sha256"]) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert len(record["columns"]) == 32


def test_a_model_tuned_for_transcription_is_read(tmp_path: Path) -> None:
    """It comes with a head, and without the embedding that only training uses."""
    from safetensors.torch import load_file, save_file
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    model = Wav2Vec2ForCTC(Wav2Vec2Config(**SMALL)).eval()
    model.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["wav2vec2.masked_spec_embed"]
    # Older files call the two parts of a normalised weight so.
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        place = "wav2vec2.encoder.pos_conv_embed.conv."
        weights[place + old] = weights.pop(f"{place}parametrizations.weight.{new}")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    extractor = load("audio", "speech_encoder", {"model": str(tmp_path), "hidden_state": -1})
    samples = noise(9000)
    expected = directly(model.wav2vec2, samples, -1)
    np.testing.assert_allclose(extractor.extract(SoundClip(samples, RATE)).values, expected, atol=1e-5)


def test_hidden_states_that_are_not_there_are_refused(wavlm: Path) -> None:
    for hidden_state in (-6, 5):
        with pytest.raises(RefusedError, match=r"audio.hidden_state must be from -5 to 4"):
            load("audio", "speech_encoder", {"model": str(wavlm), "hidden_state": hidden_state})


def test_a_model_of_other_input_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, Wav2Vec2FeatureExtractor

    config = BertConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(RefusedError, match=r"must hear the waveform.* is a bert"):
        load("audio", "speech_encoder", {"model": str(tmp_path)})


def test_windows_too_short_for_their_context_are_refused() -> None:
    with pytest.raises(RefusedError, match=r"audio.window_seconds must be at least 1 second above twice"):
        choose("audio", "speech_encoder", {"window_seconds": 10.5})
    with pytest.raises(RefusedError, match=r"audio.context_seconds"):
        choose("audio", "speech_encoder", {"context_seconds": -1})
    with pytest.raises(RefusedError, match=r"audio.model"):
        choose("audio", "speech_encoder", {"model": " "})
