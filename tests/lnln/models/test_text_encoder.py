from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

from lnln.errors import RefusedError
from lnln.models.text_encoder import TINY, TextEncoder, load_text_encoder
from tests.lnln.models.random_inputs import ENCODER

IDS = torch.tensor([[101, 5, 6, 7, 102], [101, 9, 102, 0, 0], [0, 0, 0, 0, 0]])
MASK = IDS != 0


def test_tiny_has_the_uncased_vocabulary_and_is_decided_by_the_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return load_text_encoder("tiny").get_parameter("model.embeddings.word_embeddings.weight")

    assert weights(3).shape == (30522, 32)
    assert torch.equal(weights(3), weights(3)) and not torch.equal(weights(3), weights(4))


def test_minilm_comes_from_its_package_without_chatter(capfd: pytest.CaptureFixture[str]) -> None:
    encoder = load_text_encoder("minilm").eval()
    assert (encoder.dim, encoder.vocabulary_size, encoder.max_length) == (384, 30522, 512)
    # Trained weights, not random ones: words of a kind are closer than words of two.
    good, great, table = (
        encoder(torch.tensor([[101, i, 102]]), torch.ones(1, 3).bool())[0, 1] for i in (2204, 2307, 2795)
    )
    similarity = torch.nn.functional.cosine_similarity
    assert similarity(good, great, dim=0) > similarity(good, table, dim=0) + 0.1
    assert capfd.readouterr() == ("", "")


def test_padding_does_not_change_features_and_no_text_is_finite() -> None:
    encoder = TextEncoder.from_config(ENCODER).eval()
    features = encoder(IDS, MASK)
    assert features.shape == (3, 5, 16) and features.isfinite().all()
    torch.testing.assert_close(encoder(IDS[1:2, :3], MASK[1:2, :3]), features[1:2, :3], atol=1e-6, rtol=1e-5)


def test_segments_are_zero_unless_given() -> None:
    encoder = TextEncoder.from_config(ENCODER).eval()
    torch.testing.assert_close(encoder(IDS, MASK, torch.zeros_like(IDS)), encoder(IDS, MASK))
    assert not torch.allclose(encoder(IDS, MASK, torch.ones_like(IDS)), encoder(IDS, MASK))


def test_every_weight_is_read() -> None:
    encoder = TextEncoder.from_config(ENCODER)
    encoder(IDS, MASK).square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_config_is_json_that_rebuilds_the_encoder_and_names_no_folder() -> None:
    for encoder in (load_text_encoder("minilm"), TextEncoder.from_config(TINY)):
        config = encoder.config_dict()
        assert json.loads(json.dumps(config)) == config
        assert "/" not in json.dumps(config)
        rebuilt = TextEncoder.from_config(config)
        assert rebuilt.config_dict() == config
        rebuilt.load_state_dict(encoder.state_dict())


def test_a_folder_is_read(tmp_path: Path) -> None:
    encoder = TextEncoder.from_config(ENCODER).eval()
    encoder.model.save_pretrained(tmp_path)
    loaded = load_text_encoder(str(tmp_path)).eval()
    assert torch.equal(loaded(IDS, MASK), encoder(IDS, MASK))


def test_other_bert_likes_are_read() -> None:
    for model_type in ("distilbert", "electra"):
        config = {"model_type": model_type, "vocab_size": 150, "max_position_embeddings": 20}
        small = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 8} if model_type == "distilbert" else {}
        encoder = TextEncoder.from_config(config | small)
        assert encoder(IDS, MASK).shape == (3, 5, encoder.dim)
        assert encoder.vocabulary_size == 150 and encoder.max_length == 20


@pytest.mark.parametrize("name", ["nobody/has-this-model", "no such name", "", "./not-a-folder", "../x"])
def test_a_missing_model_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RefusedError, match="cannot be loaded: expected `minilm`, `tiny`, a folder"):
        load_text_encoder(name)


def test_folders_that_hold_no_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError):
        load_text_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(RefusedError, match="gpt2"):
        load_text_encoder(str(tmp_path))
    encoder = TextEncoder.from_config(ENCODER)
    encoder.model.save_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(RefusedError):
        load_text_encoder(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    torch.save(encoder.model.state_dict(), tmp_path / "pytorch_model.bin")  # a pickle is not read
    with pytest.raises(RefusedError):
        load_text_encoder(str(tmp_path))


def test_a_folder_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    TextEncoder.from_config(ENCODER).model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["embeddings.word_embeddings.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RefusedError, match="lacks 1 of its weights"):
        load_text_encoder(str(tmp_path))


def test_python_code_of_a_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    names = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": names}))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\n"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(RefusedError):
        load_text_encoder(str(tmp_path))
    assert not (tmp_path / "ran").exists()
