"""Models by name or folder: what is missing is said in one line and soon, and nothing is unpickled."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from lnln.errors import RefusedError
from pipelines.extractors import hub
from tests.pipelines.extractors.audio.test_speech_encoder import save

KEY = "audio.model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "model")
    return tmp_path / "model"


class Hub:
    """A hub of one model, `nobody/wavlm`: the files of a folder. It keeps what was asked for."""

    def __init__(self, files: Path) -> None:
        self.asked: list[str] = []
        self.is_silent = False

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805
                self.asked.append(handler.path)
                if self.is_silent:
                    time.sleep(60)
                if handler.path.startswith("/api/models/nobody/wavlm"):
                    siblings = [{"rfilename": path.name} for path in sorted(files.iterdir())]
                    body = json.dumps({"id": "nobody/wavlm", "sha": "a" * 40, "siblings": siblings}).encode()
                elif handler.path.startswith("/nobody/wavlm/resolve/"):
                    body = (files / handler.path.rpartition("/")[2]).read_bytes()
                else:
                    handler.send_error(404)
                    return
                handler.send_response(200)
                handler.send_header("Content-Type", "application/json")
                handler.send_header("Content-Length", str(len(body)))
                handler.send_header("ETag", f'"{len(body)}"')
                handler.send_header("X-Repo-Commit", "a" * 40)
                handler.end_headers()
                if handler.command == "GET":
                    handler.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(handler, format: str, *args: object) -> None:  # noqa: N805
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def served(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub(folder)
    point_at(f"http://127.0.0.1:{made.server.server_address[1]}", tmp_path / "cache", monkeypatch)
    yield made
    made.server.shutdown()
    made.server.server_close()


def point_at(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


def test_a_folder_is_read_in_float32_without_gradients(folder: Path) -> None:
    loaded = hub.load_model(str(folder), KEY)
    assert not loaded.model.training and loaded.folder == folder
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in loaded.model.parameters())


def test_weights_of_half_precision_become_float32(folder: Path) -> None:
    hub.load_model(str(folder), KEY).model.half().save_pretrained(folder)
    loaded = hub.load_model(str(folder), KEY)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("config.json", "config.json"),
        ("preprocessor_config.json", "preprocessor_config.json"),
        ("model.safetensors", "model.safetensors.*would have to be unpickled.*give that folder"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(folder: Path, absent: str, said: str) -> None:
    (folder / absent).unlink()
    with pytest.raises(RefusedError, match=f"audio.model=.* is a folder without {said}") as refusal:
        hub.load_model(str(folder), KEY)
    assert "\n" not in str(refusal.value)


def test_nothing_is_unpickled(folder: Path, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "executed",)

    (folder / "model.safetensors").unlink()
    torch.save(Harmful(), folder / "pytorch_model.bin")
    with pytest.raises(RefusedError, match="unpickled"):
        hub.load_model(str(folder), KEY)
    (folder / "model.safetensors").write_bytes((folder / "pytorch_model.bin").read_bytes())
    with pytest.raises(RefusedError, match="cannot be loaded"):
        hub.load_model(str(folder), KEY)
    assert not (tmp_path / "executed").exists()


def test_code_of_a_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(RefusedError, match="cannot be loaded"):
        hub.load_model(str(folder), KEY)
    assert not (tmp_path / "executed").exists()


def test_damaged_files_are_refused(folder: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        content = (folder / name).read_bytes()
        for damage in (content[: len(content) // 2], b"", b"\xff" * 100):
            (folder / name).write_bytes(damage)
            with pytest.raises(RefusedError, match=r"audio.model=") as refusal:
                hub.load_model(str(folder), KEY)
            assert "\n" not in str(refusal.value)
        (folder / name).write_bytes(content)
    loaded = hub.load_model(str(folder), KEY)
    for damage in (b"", b"[]", b'{"feature_extractor_type": "Nothing"}'):
        (folder / "preprocessor_config.json").write_bytes(damage)
        with pytest.raises(RefusedError, match=r"cannot be loaded from .*preprocessor_config.json"):
            hub.load_preprocessor(loaded, KEY)


def test_missing_weights_are_refused_unless_nothing_reads_them(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["masked_spec_embed"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(RefusedError, match="lacks 1 of its weights, the first is masked_spec_embed"):
        hub.load_model(str(folder), KEY)
    hub.load_model(str(folder), KEY, unread=("masked_spec_embed",))
    weights["encoder.layer_norm.weight"] = torch.ones(5)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(RefusedError, match=r"audio.model="):
        hub.load_model(str(folder), KEY, unread=("masked_spec_embed",))


def test_a_name_is_downloaded_once_and_then_read_without_asking(served: Hub, folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"large and unwanted")
    loaded = hub.load_model("nobody/wavlm", KEY)
    assert sorted(path.name for path in loaded.folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert loaded.sha256 == hub.load_model(str(folder), KEY).sha256
    served.asked.clear()
    assert hub.load_model("nobody/wavlm", KEY).folder == loaded.folder
    assert served.asked == []


def test_a_revision_is_asked_for(served: Hub) -> None:
    hub.load_model("nobody/wavlm@refs/pr/6", KEY)
    assert any("refs%2Fpr%2F6" in path for path in served.asked)
    assert not any("/main" in path for path in served.asked)


def test_a_cache_that_lacks_a_file_is_completed(served: Hub) -> None:
    loaded = hub.load_model("nobody/wavlm", KEY)
    (loaded.folder / "preprocessor_config.json").unlink()
    hub.load_preprocessor(hub.load_model("nobody/wavlm", KEY), KEY)


def test_a_model_without_safetensors_is_not_downloaded(served: Hub, folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(RefusedError, match=r"has no model.safetensors .* on the hub; .*NAME@refs/pr/N"):
        hub.load_model("nobody/wavlm", KEY)
    assert not any("/resolve/" in path for path in served.asked)


def test_a_hub_that_does_not_answer_is_given_up(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_ANSWER_SECONDS", 0.5)
    served.is_silent = True
    start = time.monotonic()
    with pytest.raises(RefusedError, match=r"run `hf download nobody/wavlm --revision v1` where there is a network"):
        hub.load_model("nobody/wavlm@v1", KEY)
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("name", ["nobody/has-this", "unknown"])
def test_without_a_network_it_says_what_to_bring(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:9", tmp_path, monkeypatch)
    start = time.monotonic()
    with pytest.raises(RefusedError) as refusal:
        hub.load_model(name, KEY)
    assert time.monotonic() - start < 10
    said = str(refusal.value)
    assert f"run `hf download {name}` where there is a network, or set audio.model to a folder with config.json" in said
    assert "\n" not in said


@pytest.mark.parametrize("name", ["no such name", "../x", "a/b/c", "/nowhere/at/all", "-x", "\x00", "a" * 300])
def test_names_that_can_be_no_model_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:9", tmp_path, monkeypatch)
    with pytest.raises(RefusedError, match=r"audio.model must be a folder or a Hugging Face name"):
        hub.load_model(name, KEY)
