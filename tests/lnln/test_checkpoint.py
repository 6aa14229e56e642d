from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lnln.checkpoint import (
    Checkpoint,
    describe_file,
    feature_contract,
    load_checkpoint,
    optimizer_tensors,
    read_progress,
    restore_optimizer,
    save_checkpoint,
    save_model,
    upload_checkpoint,
)
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.models import LNLN
from tests.extracted_corpus import CONFIG, EXTRACTORS, extracted_corpus
from tests.lnln.conftest import RunStore


def trained(seed: int) -> tuple[nn.Module, torch.optim.AdamW]:
    """A small network after two steps, one parameter of which never has a gradient."""
    torch.manual_seed(seed)
    model = nn.ModuleDict({"a": nn.Linear(3, 2), "unused": nn.Linear(2, 2)})
    weights: dict[str, Any] = {"params": [model["a"].weight]}
    unused: dict[str, Any] = {"params": list(model["unused"].parameters())}
    optimizer = torch.optim.AdamW([{"params": [model["a"].bias], "weight_decay": 0.0}, weights, unused], lr=0.1)
    for _ in range(2):
        step(model, optimizer)
    return model, optimizer


def step(model: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model["a"](torch.ones(1, 3)).square().sum().backward()
    optimizer.step()


def checkpoint(average: bool = True) -> Checkpoint:
    model, optimizer = trained(0)
    values = {name: value * 2 for name, value in model.state_dict().items()} if average else None
    return Checkpoint(model.state_dict(), values, optimizer_tensors(model, optimizer), {"history": [{"score": 0.1}]})


@pytest.mark.parametrize("average", [True, False])
def test_what_is_saved_is_loaded(tmp_path: Path, average: bool) -> None:
    saved = checkpoint(average)
    save_checkpoint(tmp_path / "a", saved)
    loaded = load_checkpoint(tmp_path / "a")
    assert loaded.progress == saved.progress
    assert loaded.selected.keys() == saved.weights.keys()
    for mine, theirs in ((saved.weights, loaded.weights), (saved.optimizer, loaded.optimizer)):
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert (loaded.average is not None) == average
    if average:
        assert torch.equal(loaded.selected["a.weight"], 2 * saved.weights["a.weight"])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_restored_optimizer_goes_on_as_before(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save_checkpoint(tmp_path / "a", Checkpoint(model.state_dict(), None, optimizer_tensors(model, optimizer), {}))
    loaded = load_checkpoint(tmp_path / "a")
    other, other_optimizer = trained(1)
    other.load_state_dict(loaded.weights)
    restore_optimizer(other, other_optimizer, loaded.optimizer)
    for _ in range(3):
        step(model, optimizer)
        step(other, other_optimizer)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_an_optimizer_of_another_model_is_refused() -> None:
    model, optimizer = trained(0)
    with pytest.raises(RefusedError, match=r"b\.weight"):
        restore_optimizer(model, optimizer, {"b.weight/step": torch.zeros(())})


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    weight = torch.ones(2, 2)
    save_checkpoint(tmp_path / "a", Checkpoint({"x": weight, "y": weight, "z": weight.T}, None, {}, {}))
    assert load_checkpoint(tmp_path / "a").weights.keys() == {"x", "y", "z"}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "average.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "short", "flipped"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, name: str, damage: str) -> None:
    save_checkpoint(tmp_path / "a", checkpoint())
    path = tmp_path / "a" / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(RefusedError, match=name):
        load_checkpoint(tmp_path / "a")


def test_a_state_that_says_something_else_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", checkpoint())
    path = tmp_path / "a" / "state.json"
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(RefusedError, match=r"state\.json does not have the SHA-256"):
        load_checkpoint(tmp_path / "a")


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "a", Checkpoint({}, None, {}, {"history": object()}))
    assert not list(tmp_path.iterdir())


def test_an_uploaded_checkpoint_is_read_back_and_its_description_comes_last(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", checkpoint())
    store = Store(tmp_path / "store")
    upload_checkpoint(tmp_path / "a", store, "runs/r/ray/epoch-0001")
    there = tmp_path / "store/runs/r/ray/epoch-0001"
    assert max(there.iterdir(), key=lambda path: path.stat().st_mtime_ns).name == "state.json"
    assert read_progress(store, "runs/r/ray/epoch-0001") == checkpoint().progress
    assert torch.equal(load_checkpoint(there).weights["a.weight"], checkpoint().weights["a.weight"])


def test_an_upload_that_fails_half_way_is_no_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", checkpoint())
    store = Store(tmp_path / "store")
    upload_checkpoint(tmp_path / "a", store, "r/epoch-0001")
    (tmp_path / "store/r/epoch-0001/optimizer.safetensors").unlink()
    (tmp_path / "store/r/epoch-0001/optimizer.safetensors").mkdir()  # in the way of the second file
    with pytest.raises(StoreFailedError):
        upload_checkpoint(tmp_path / "a", store, "r/epoch-0001")
    with pytest.raises(RefusedError, match=r"epoch-0001: state\.json is missing"):
        read_progress(store, "r/epoch-0001")


def test_a_saved_model_is_all_that_prediction_needs(run_store: RunStore, tmp_path: Path) -> None:
    from lnln.config import Config
    from lnln.models import build_model
    from tests.finished_run import TINY

    model = build_model(Config.from_dict(TINY).model, run_store.manifest.spec())
    save_model(tmp_path / "model", model, run_store.manifest)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"model.safetensors", "config.json", "features.json", "tokenizer.json"}
    loaded = LNLN.from_pretrained(tmp_path / "model")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    contract = json.loads((tmp_path / "model" / "features.json").read_text())
    assert contract["feature_id"] == run_store.manifest.feature_id and contract["dims"] == {"audio": 4, "vision": 3}
    assert contract["manifest_digest"] == run_store.manifest.digest() and contract["synthetic"] is False
    save_model(tmp_path / "again", model, run_store.manifest)
    for name in names:
        assert describe_file(tmp_path / "again" / name) == describe_file(tmp_path / "model" / name)


def test_a_model_keeps_how_its_features_were_extracted(run_store: RunStore, tmp_path: Path) -> None:
    assert feature_contract(run_store.manifest)["extraction"] is None
    contract = feature_contract(extracted_corpus(run_store.store, tmp_path))
    assert contract["extraction"] == CONFIG and contract["extractors"] == EXTRACTORS
    assert json.loads(json.dumps(contract)) == contract
