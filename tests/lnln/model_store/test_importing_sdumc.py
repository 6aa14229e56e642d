"""SDUMC's published checkpoints as versions."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lnln.data.manifest import FeatureManifest
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate
from lnln.model_store import import_model, load, read_lineage, resolve
from lnln.models.sdumc import SDUMC
from lnln.predict import Predictor
from pipelines.ingest import import_corpus
from pipelines.simulate import simulate
from pipelines.simulators import choose
from tests.corpora import mmsa_content, mmsa_pickle, with_text_features

ORACLE = Path(__file__).resolve().parents[4] / "shared" / "oracle" / "sdumc"
WIDTHS = {
    "frame_dim_reshape_0": 4,
    "frame_dim_reshape_1": 6,
    "frame_dim_reshape_2": 3,
}  # audio, text, vision of `small`

pytestmark = pytest.mark.skipif(not ORACLE.is_dir(), reason="the published weights' names are not here")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    return Store(tmp_path / "store")


def corpus(store: Store, folder: Path) -> FeatureManifest:
    (folder / "small.pkl").write_bytes(pickle.dumps(with_text_features(mmsa_content())))
    return import_corpus(store, folder / "small.pkl", "small")


def checkpoint(folder: Path, case: str = "sdumc_mia_on", text_dim: int = 6) -> Path:
    """Published names and random weights, of the widths of the corpus."""
    found = load_file(ORACLE / f"{case}.safetensors")
    state = {name.removeprefix("sd."): value for name, value in found.items() if name.startswith("sd.")}
    torch.manual_seed(0)
    for name, width in {**WIDTHS, "frame_dim_reshape_1": text_dim}.items():
        weight: Tensor = state[f"{name}.weight"]
        state[f"{name}.weight"] = torch.randn(len(weight), width)
    torch.save(state, folder / "sdumc.pth")
    return folder / "sdumc.pth"


def test_a_published_checkpoint_becomes_a_version_that_predicts(store: Store, tmp_path: Path) -> None:
    manifest = corpus(store, tmp_path)
    path = checkpoint(tmp_path)
    with pytest.raises(RefusedError, match="lnln simulate small"):
        import_model(store, path, "sdumc", "small")
    made = simulate(store, "small", choose("regressor", {"num_steps": 2})).simulation
    assert import_model(store, path, "sdumc", "small") == "v1" == import_model(store, path, "sdumc", "small")
    model = load("sdumc", store)
    assert isinstance(model, SDUMC) and model.config.mode == "reference" and model.config.sdumc.imagination
    lineage = read_lineage(store, resolve(store, "sdumc"))
    assert lineage["simulation"]["simulation_id"] == made.simulation_id and lineage["run_id"] is None
    evaluation = evaluate(store, "sdumc", rates=[0.0, (1.0, 0.0, 0.0)])
    assert evaluation.corpus == manifest.corpus and "regressor" in evaluation.model["simulated_text"]
    assert Predictor.open(store, "sdumc").label_range == (-3, 3)


def test_whether_it_imagines_can_be_said(store: Store, tmp_path: Path) -> None:
    corpus(store, tmp_path)
    simulate(store, "small", choose("regressor", {"num_steps": 2}))
    (tmp_path / "args.yaml").write_text("imagination: false\n")
    import_model(store, checkpoint(tmp_path), "sdumc", "small", tmp_path / "args.yaml")
    assert not load("sdumc", store).config.sdumc.imagination


def test_features_that_it_does_not_take_are_refused(store: Store, tmp_path: Path) -> None:
    import_corpus(store, mmsa_pickle(tmp_path / "ids.pkl"), "ids")
    with pytest.raises(RefusedError, match="reads language features, and corpus ids has token ids"):
        import_model(store, checkpoint(tmp_path), "sdumc", "ids")
    corpus(store, tmp_path)
    simulate(store, "small", choose("regressor", {"num_steps": 2}))
    with pytest.raises(RefusedError, match=r"simulated text of width 7|text dim 7, not 6"):
        import_model(store, checkpoint(tmp_path, text_dim=7), "sdumc", "small")
    state = torch.load(checkpoint(tmp_path), weights_only=True)
    del state["fc_out_v.weight"]
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(RefusedError, match="SDUMC checkpoint"):
        import_model(store, tmp_path / "broken.pth", "sdumc", "small")
    state = torch.load(checkpoint(tmp_path), weights_only=True)
    state["fc_out_v.weight"][:] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(RefusedError, match="not finite"):
        import_model(store, tmp_path / "nan.pth", "sdumc", "small")
