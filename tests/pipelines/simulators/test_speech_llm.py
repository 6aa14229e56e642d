"""A language model that listens, as a small one: its steps are those of what it wrote."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lnln.data.manifest import NO_TOKENIZER
from lnln.errors import RefusedError
from pipelines.simulators import choose
from pipelines.simulators.base import CorpusText
from pipelines.simulators.speech_llm import load_projector
from tests.pipelines.extractors.audio.sounds import SoundClip, noise
from tests.pipelines.simulators.tiny_models import save_listener, save_projector, save_writer

RATE = 16_000
TEXT = CorpusText(NO_TOKENIZER, 16, "")


@pytest.fixture(scope="module")
def knobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return save_listener(tmp_path_factory.mktemp("listener"))


def clip(seconds: float = 1.0) -> SoundClip:
    return SoundClip(noise(round(seconds * RATE)), RATE)


def make(knobs: dict[str, Any], **changed: Any) -> Any:
    return choose("speech_llm", {**knobs, **changed}).make(TEXT)


def by_one_pass(simulator: Any, embedded: Any, ids: Any, num_layers: int) -> Any:
    """The states at the places that each token of `ids` was chosen by: a forward pass over all of it."""
    model = simulator._writer.model
    with torch.no_grad():
        whole = torch.cat([embedded, model.get_input_embeddings()(ids[None])], dim=1)
        states = model(inputs_embeds=whole, output_hidden_states=True).hidden_states
    return sum(layer[0, embedded.shape[1] - 1 : -1] for layer in states[-num_layers:])


@pytest.mark.parametrize("num_beams", [1, 2, 4])
def test_steps_are_those_of_the_hypothesis_that_won(tmp_path: Path, knobs: dict[str, Any], num_beams: int) -> None:
    """For several models, in some of which the winner was not the first beam all the way."""
    num_moved = 0
    for seed in range(6):
        writer = tmp_path / f"writer{seed}"
        save_writer(writer, seed=seed)
        simulator = make(knobs, language_model=str(writer), num_beams=num_beams, num_layers=3)
        with torch.inference_mode():
            embedded = simulator.embed(torch.randn(60, 32, generator=torch.Generator().manual_seed(seed)))
            steps, ids = simulator.write(embedded)
            again = simulator._writer.model.generate(
                inputs_embeds=embedded,
                attention_mask=torch.ones(embedded.shape[:2], dtype=torch.int64),
                num_beams=num_beams,
                max_new_tokens=12,
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=True,
                pad_token_id=0,
            )
        assert torch.equal(again.sequences[0], ids)
        expected = by_one_pass(simulator, embedded.clone(), ids.clone(), 3)
        num_steps = len(steps)
        assert 1 <= num_steps <= 12
        torch.testing.assert_close(steps.clone(), expected[:num_steps], atol=1e-4, rtol=1e-4)
        # Behind the last step stands nothing but padding.
        assert num_steps == len(ids) or set(ids[num_steps:].tolist()) <= {0, 2}
        if num_beams > 1:
            num_moved += any(beam > 0 for beam in again.beam_indices[0].tolist())
    assert num_beams == 1 or num_moved, "no beam changed its place, so nothing was shown"


def test_the_first_step_is_left_out_where_that_is_asked(knobs: dict[str, Any]) -> None:
    kept, dropped = (make(knobs, drop_first=drop).simulate(clip()).steps for drop in (False, True))
    np.testing.assert_array_equal(kept[1:], dropped)
    single = make(knobs, drop_first=True, max_new_tokens=1).simulate(clip())
    assert single.steps.shape == (0, 16)


def test_layers_are_summed(knobs: dict[str, Any]) -> None:
    one, all_of_them = (make(knobs, num_layers=n).simulate(clip()) for n in (1, 5))
    assert one.text == all_of_them.text and one.steps.shape == all_of_them.steps.shape
    assert not np.allclose(one.steps, all_of_them.steps)
    assert one.steps.dtype == np.float32 and one.steps.shape[1] == 16 and len(one.steps) <= 12
    np.testing.assert_array_equal(one.steps, make(knobs, num_layers=1).simulate(clip()).steps)


@pytest.mark.parametrize("seconds", [0.0, 1 / RATE, 0.01, 0.03, 5.0])
def test_any_length(knobs: dict[str, Any], seconds: float) -> None:
    said = make(knobs).simulate(clip(seconds))
    assert (len(said.steps) == 0) == (seconds == 0) == (said.text is None)
    assert np.isfinite(said.steps).all()


def test_the_record_has_every_file_and_no_place(knobs: dict[str, Any], tmp_path: Path) -> None:
    chosen = choose("speech_llm", knobs)
    record = chosen.record(chosen.make(TEXT))
    assert set(record["models"]) == {"speech_encoder", "projector", "language_model"}
    assert all(len(model["sha256"]) >= 1 for model in record["models"].values())
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(record["models"]["language_model"]["sha256"])
    folder = Path(knobs["projector"]).parent
    assert str(folder) not in str(record)
    copied = shutil.copytree(folder, tmp_path / "copied")
    moved = {key: str(copied / Path(knobs[key]).name) for key in ("speech_encoder", "projector", "language_model")}
    elsewhere = choose("speech_llm", {**knobs, **moved})
    assert elsewhere.record(elsewhere.make(TEXT)) == record


def test_a_projector_stacks_frames_and_leaves_the_rest(tmp_path: Path) -> None:
    for prefix in ("", "encoder_projector."):
        save_projector(tmp_path / f"p{prefix}", prefix=prefix)
    project, _ = load_projector(str(tmp_path / "p"), 32, 16)
    prefixed, _ = load_projector(str(tmp_path / "pencoder_projector."), 32, 16)
    frames = torch.randn(13, 32)
    out = project(frames)
    assert out.shape == (2, 16) and torch.equal(out, project(frames[:10])) and torch.equal(out, prefixed(frames))
    torch.testing.assert_close(project(frames[5:10]), out[1:])
    assert project(frames[:1]).shape == project(frames[:4]).shape == (1, 16)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"projector": ""}, "projector must be a folder with the weights"),
        ({"projector": "/nowhere"}, "must be a folder with one safetensors file, it has 0"),
        ({"language_model": "/nowhere/at/all"}, "language_model"),
        ({"speech_encoder": " "}, "speech_encoder must be a Hugging Face name"),
        ({"num_layers": 6}, "num_layers must be from 1 to 5"),
        ({"num_beams": 0}, "num_beams must be 1 or more"),
        ({"hidden_state": 9}, "hidden_state must be from -5 to 4"),
        ({"precision": "int8"}, "precision must be one of float32"),
        ({"timeout_seconds": 0.0}, "timeout_seconds must be above 0"),
    ],
)
def test_what_cannot_be_is_refused(knobs: dict[str, Any], changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        make(knobs, **changed)


def test_parts_that_do_not_fit_are_refused(knobs: dict[str, Any], tmp_path: Path) -> None:
    save_projector(tmp_path / "wide", word_dim=17)
    save_projector(tmp_path / "narrow", frame_dim=7, stacked=3)
    for name in ("wide", "narrow"):
        with pytest.raises(RefusedError, match="expected a map from a multiple of 32"):
            make(knobs, projector=str(tmp_path / name))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(RefusedError, match="cannot be read"):
        make(knobs, projector=str(tmp_path / "damaged"))
    writer = tmp_path / "writer"
    save_writer(writer)
    (writer / "model.safetensors").unlink()
    with pytest.raises(RefusedError, match=r"is a folder without model.safetensors"):
        make(knobs, language_model=str(writer))
