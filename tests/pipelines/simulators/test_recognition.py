"""Speech recognition, as small recognisers with random weights: their words, read by the text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lnln.data.manifest import NO_TOKENIZER, Tokenizer
from lnln.data.wordpiece import UNCASED
from lnln.errors import RefusedError
from pipelines.simulators import choose
from pipelines.simulators.base import CorpusText
from pipelines.simulators.texts import encode, load_encoder
from tests.pipelines.extractors.audio.sounds import SoundClip, noise
from tests.pipelines.simulators.tiny_models import save_ctc, save_whisper

RATE = 16_000
TEXT = CorpusText(UNCASED, 0, UNCASED.name)
SAVED = {"ctc": save_ctc, "whisper": save_whisper}


@pytest.fixture(scope="module", params=SAVED)
def knobs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp(request.param) / "model"
    SAVED[request.param](folder)
    return {"model": str(folder), "text_encoder": "tiny", "max_new_tokens": 10}


def make(knobs: dict[str, Any], **changed: Any) -> Any:
    return choose("recognition", {**knobs, **changed}).make(TEXT)


def test_steps_are_what_the_encoder_says_of_the_transcript(knobs: dict[str, Any]) -> None:
    simulator = make(knobs)
    said = simulator.simulate(SoundClip(noise(RATE), RATE))
    assert said.text
    from lnln.data.wordpiece import encode as tokens

    encoder = load_encoder("tiny", "text_encoder").model
    ids = tokens([said.text])
    np.testing.assert_array_equal(said.steps, encode(encoder, ids)[0])
    assert said.steps.shape == (len(ids[0]), 32)


def test_a_transcript_is_what_transformers_gives(knobs: dict[str, Any]) -> None:
    from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoModelForSpeechSeq2Seq, AutoTokenizer

    samples = noise(RATE)
    folder = knobs["model"]
    prepare, words = AutoFeatureExtractor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    heard = prepare(samples, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        if "input_values" in heard:
            ids = AutoModelForCTC.from_pretrained(folder)(heard.input_values).logits.argmax(-1)
        else:
            ids = AutoModelForSpeechSeq2Seq.from_pretrained(folder).generate(heard.input_features, max_new_tokens=10)
    said = make(knobs).simulate(SoundClip(samples, RATE))
    assert said.text == " ".join(words.batch_decode(ids, skip_special_tokens=True)[0].split())


@pytest.mark.parametrize("num_samples", [1, 2, 399, 400, RATE, 2 * RATE, 2 * RATE + 1, 5 * RATE])
def test_any_length(knobs: dict[str, Any], num_samples: int) -> None:
    said = make(knobs, window_seconds=2.0).simulate(SoundClip(noise(num_samples), RATE))
    assert said.text is not None and np.isfinite(said.steps).all()
    assert (len(said.steps) == 0) == (said.text == "")


def test_without_sound_there_is_no_text(knobs: dict[str, Any]) -> None:
    said = make(knobs).simulate(SoundClip(np.zeros(0, np.float32), RATE))
    assert said.text is None and said.steps.shape == (0, 32)


def test_the_record_tells_the_files_of_all_that_is_read(knobs: dict[str, Any]) -> None:
    chosen = choose("recognition", knobs)
    record = chosen.record(chosen.make(TEXT))
    assert {"model.safetensors", "config.json", "tokenizer_config.json"} <= set(record["models"]["model"]["sha256"])
    assert record["models"]["tokenizer"]["sha256"]["tokenizer.json"]
    assert str(Path(knobs["model"]).parent) not in str(record)


def test_corpora_whose_text_it_cannot_be_are_refused(knobs: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="reads transcripts by a tokenizer"):
        choose("recognition", knobs).make(CorpusText(NO_TOKENIZER, 6, ""))
    other = Tokenizer("other", 21128, 0, 100, 101, 102)
    with pytest.raises(RefusedError, match=r"knows 30522 ids.*--set text_encoder"):
        choose("recognition", knobs).make(CorpusText(other, 0, "other"))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"model": ""}, "model must be a Hugging Face name"),
        ({"window_seconds": 0.5}, "window_seconds must be 1 or more"),
        ({"num_beams": 0}, "num_beams must be 1 or more"),
        ({"text_encoder": "/nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_is_refused(knobs: dict[str, Any], changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        make(knobs, **changed)


def test_damaged_folders_are_refused(knobs: dict[str, Any], tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(knobs["model"], tmp_path / "model"))
    (folder / "config.json").write_text("{")
    with pytest.raises(RefusedError, match=r"config.json cannot be read"):
        make(knobs, model=str(folder))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(RefusedError, match=r"without preprocessor_config.json"):
        make(knobs, model=str(folder))
