"""Models that were trained elsewhere, as versions: published checkpoints and model folders."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.performance.plain_lnln import Shape, make_args, make_weights
from lnln.data.digest import digest_file
from lnln.data.manifest import Tokenizer, commit_features
from lnln.data.schema import Modality
from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError
from lnln.evaluate import evaluate
from lnln.model_store import import_model, list_models, load, open_model, publish, pull, resolve
from lnln.model_store.files import MANIFEST, ModelManifest
from lnln.models import LNLN, load_model
from lnln.models.published import from_published
from lnln.predict import Predictor
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_content, with_text_features
from tests.lnln.conftest import RunStore

# Takes the features of the corpus `small`.
SMALL = Shape(vocabulary=30522, feature_dims=(3, 4))
ORACLE = Path(__file__).resolve().parents[4] / "shared" / "oracle" / "lnln"


def checkpoint(folder: Path, shape: Shape = SMALL, changed: Mapping[str, Tensor] | None = None) -> tuple[Path, Path]:
    """A published `.pth`, and the YAML that it was trained with. changed: weights that are not as made."""
    weights = {**make_weights(shape), **(changed or {})}
    torch.save({"state_dict": weights, "epoch": 3}, folder / "published.pth")
    (folder / "published.yaml").write_text(yaml.safe_dump(make_args(shape)))
    return folder / "published.pth", folder / "published.yaml"


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_published_checkpoint_becomes_a_version_that_predicts(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store
    path, args = checkpoint(tmp_path)
    assert import_model(store, path, "published-small", "small", args) == "v1"
    assert import_model(store, path, "published-small", "small", args) == "v1"
    version = resolve(store, "published-small@best")
    assert (version.run_id, version.selection_score, version.validation_view_ids) == ("", None, ())
    assert version.imported_sha256 == digest_file(path)[1] and version.corpus == "small"
    expected = from_published(torch.load(path, weights_only=True)["state_dict"], make_args(SMALL))
    model = load("published-small", store)
    assert isinstance(model, LNLN) and same_weights(model.state_dict(), expected.state_dict())
    folder = pull(store, "published-small", tmp_path / "pulled")
    assert same_weights(LNLN.from_pretrained(folder).state_dict(), expected.state_dict())
    assert {"tokenizer.json", "README.md", "lineage.json", "metrics.json"} <= {each.name for each in folder.iterdir()}
    evaluation = evaluate(store, "published-small@v1", rates=[0.5])
    assert evaluation.corpus == "small" and evaluation.label_range == (-3.0, 3.0)
    assert Predictor.open(store, "published-small").predict_texts(["fine"])[0].label_text


def test_what_is_not_known_of_a_checkpoint_is_not_claimed(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store
    path, args = checkpoint(tmp_path)
    import_model(store, path, "published-small", "small", args)
    folder = pull(store, "published-small", tmp_path / "pulled")
    lineage = json.loads((folder / "lineage.json").read_text())
    assert {lineage[key] for key in ("run_id", "config", "config_fingerprint", "seed", "selection", "study")} == {None}
    num_bytes, sha256 = digest_file(path)
    kind = "published checkpoint"
    assert lineage["imported"] == {"name": "published.pth", "kind": kind, "num_bytes": num_bytes, "sha256": sha256}
    assert lineage["manifest_digest"] == run_store.manifest.digest() and lineage["model"]["mode"] == "reference"
    opened = open_model(store, "published-small")
    assert opened.run_id is None and opened.config is None
    card = (folder / "README.md").read_text()
    assert f"**Imported** from the published checkpoint `published.pth` (SHA-256 `{sha256}`)" in card
    assert "no validation score is stated" in card and "Trained on" not in card
    # A run that has a score is then the best, whatever it is.
    publish(store, run_store.worse, "published-small")
    assert resolve(store, "published-small").run_id == run_store.worse


@pytest.mark.skipif(not ORACLE.is_dir(), reason="the published numbers are not beside this clone")
def test_the_weights_of_the_published_code_are_imported(run_store: RunStore, tmp_path: Path) -> None:
    numbers = load_file(ORACLE / "train_b6.safetensors")
    state = {name.removeprefix("sd."): value for name, value in numbers.items() if name.startswith("sd.")}
    args = json.loads((ORACLE / "train_b6.json").read_text())["args"]
    dims: dict[Modality, int] = {
        "audio": state["proj_a.0.weight"].shape[1],
        "vision": state["proj_v.0.weight"].shape[1],
    }
    tokenizer = Tokenizer("", vocabulary_size=1000, pad_id=0, unknown_id=100, cls_id=101, sep_id=102)
    manifest = dataclasses.replace(
        run_store.manifest, corpus="tiny", feature_id="0" * 12, dims=dims, tokenizer=tokenizer
    )
    commit_features(run_store.store, manifest)
    torch.save({"state_dict": state}, tmp_path / "published.pth")
    (tmp_path / "args.yaml").write_text(yaml.safe_dump(args))
    import_model(run_store.store, tmp_path / "published.pth", "tiny", "tiny", tmp_path / "args.yaml")
    expected = from_published(state, args).state_dict()
    assert same_weights(load("tiny", run_store.store).state_dict(), expected)


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"PK\x03\x04garbage",
        pickle.dumps({"state_dict": {}}),
        pickle.dumps([1, 2, 3]),
        b"\x80\x02}",
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused_by_name(run_store: RunStore, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "published.pth"
    path.write_bytes(content)
    with pytest.raises(RefusedError, match=r"published\.pth") as refusal:
        import_model(run_store.store, path, "published-small", "small")
    assert "\n" not in str(refusal.value) and list_models(run_store.store) == []


def test_code_in_a_checkpoint_does_not_run(run_store: RunStore, tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    torch.save({"state_dict": make_weights(SMALL), "extra": _Hostile(tmp_path / "marker")}, path)
    with pytest.raises(RefusedError, match="tensors alone"):
        import_model(run_store.store, path, "published-small", "small")
    path.write_bytes(pickle.dumps(_Hostile(tmp_path / "marker")))
    with pytest.raises(RefusedError, match="tensors alone"):
        import_model(run_store.store, path, "published-small", "small")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("content", [[1], {"state_dict": [1]}, {"state_dict": {"a": 1}}, {}, {1: torch.zeros(1)}, 7])
def test_what_holds_no_weights_is_refused(run_store: RunStore, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "published.pth")
    with pytest.raises(RefusedError, match=r"published\.pth must hold a state_dict"):
        import_model(run_store.store, tmp_path / "published.pth", "published-small", "small")


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (Shape(vocabulary=30522), r"audio dim 3, not 4; vision dim 4, not 3"),
        (dataclasses.replace(SMALL, vocabulary=30521), r"token ids 30521, not 30522"),
        (dataclasses.replace(SMALL, vocabulary=31000), r"token ids 31000, not 30522"),
    ],
)
def test_a_checkpoint_for_other_features_is_refused_with_both(
    run_store: RunStore, tmp_path: Path, shape: Shape, said: str
) -> None:
    path, args = checkpoint(tmp_path, shape)
    with pytest.raises(RefusedError, match=rf"does not fit corpus small: it takes .*{said}"):
        import_model(run_store.store, path, "published-small", "small", args)
    assert list_models(run_store.store) == []


def test_a_table_of_embeddings_may_be_padded(run_store: RunStore, tmp_path: Path) -> None:
    path, args = checkpoint(tmp_path, dataclasses.replace(SMALL, vocabulary=30592))
    assert import_model(run_store.store, path, "published-small", "small", args) == "v1"


def test_weights_that_are_not_finite_or_not_all_there_are_refused(run_store: RunStore, tmp_path: Path) -> None:
    path, args = checkpoint(tmp_path, changed={"dmml.3.bias": torch.tensor([float("nan")])})
    with pytest.raises(RefusedError, match=r"sentiment_head\.bias is not finite"):
        import_model(run_store.store, path, "published-small", "small", args)
    for changed in (torch.zeros(1, 5), torch.zeros(0), torch.zeros(())):
        path, args = checkpoint(tmp_path, changed={"dmml.3.weight": changed, "h_hyper": changed})
        with pytest.raises(RefusedError, match=r"published\.pth.*no published LNLN checkpoint"):
            import_model(run_store.store, path, "published-small", "small", args)


@pytest.mark.parametrize("text", ["{", "- 1", "7", "", "\x00", "model: 3", "model: {dmml: 7}", "model: [1]"])
def test_args_that_say_nothing_are_refused(run_store: RunStore, tmp_path: Path, text: str) -> None:
    path, args = checkpoint(tmp_path)
    args.write_text(text)
    with pytest.raises(RefusedError, match=r"published\.yaml"):
        import_model(run_store.store, path, "published-small", "small", args)
    args.unlink()
    with pytest.raises(RefusedError, match=r"published\.yaml"):
        import_model(run_store.store, path, "published-small", "small", args)


def test_a_checkpoint_needs_a_corpus_with_token_ids(run_store: RunStore, tmp_path: Path) -> None:
    path, args = checkpoint(tmp_path)
    (tmp_path / "features.pkl").write_bytes(pickle.dumps(with_text_features(mmsa_content())))
    import_corpus(run_store.store, tmp_path / "features.pkl", "featured")
    for corpus, said in (
        (None, "name its corpus with --corpus"),
        ("nothing", "holds no corpus 'nothing'"),
        ("featured", "has language features of width 6"),
    ):
        with pytest.raises(RefusedError, match=said):
            import_model(run_store.store, path, "published-small", corpus, args)
    with pytest.raises(RefusedError, match="model name"):
        import_model(run_store.store, path, "../x", "small", args)
    with pytest.raises(RefusedError, match="nothing at"):
        import_model(run_store.store, tmp_path / "none.pth", "published-small", "small", args)


@pytest.fixture
def pulled(run_store: RunStore, tmp_path: Path) -> Path:
    publish(run_store.store, run_store.worse, "small-lnln")
    return pull(run_store.store, "small-lnln", tmp_path / "pulled")


def test_a_copy_from_another_store_keeps_what_is_known_of_it(run_store: RunStore, tmp_path: Path) -> None:
    evaluate(run_store.store, run_store.worse)
    for run in (run_store.worse, run_store.better):
        publish(run_store.store, run, "small-lnln")
    pulled = pull(run_store.store, "small-lnln@v1", tmp_path / "pulled")
    better = pull(run_store.store, "small-lnln@v2", tmp_path / "better")
    elsewhere = Store(tmp_path / "elsewhere")
    assert [import_model(elsewhere, path, "copied") for path in (pulled, better, pulled)] == ["v1", "v2", "v1"]
    original, copied = resolve(run_store.store, "small-lnln@v1"), resolve(elsewhere, "copied@v1")
    for key in ("run_id", "weights_sha256", "selection_score", "validation_scores", "validation_view_ids"):
        assert getattr(copied, key) == getattr(original, key)
    assert resolve(elsewhere, "copied").run_id == run_store.better, "scores on the same views count for best"
    assert copied.imported_sha256 == original.manifest_sha256
    again = pull(elsewhere, "copied@v1", tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (pulled / "model.safetensors").read_bytes()
    lineage, before = (json.loads((folder / "lineage.json").read_text()) for folder in (again, pulled))
    assert lineage == {**before, "imported": lineage["imported"]} and lineage["imported"]["name"] == "pulled"
    metrics, before = (json.loads((folder / "metrics.json").read_text()) for folder in (again, pulled))
    assert metrics == before and metrics["test"] is not None
    assert "predict the train mean" in (again / "README.md").read_text()
    # A copy of a copy says where the first came from, and is the same version.
    assert import_model(elsewhere, again, "copied") == "v1"
    third = Store(tmp_path / "third")
    import_model(third, again, "copied")
    assert resolve(third, "copied").imported_sha256 == original.manifest_sha256


def test_the_store_that_it_is_from_knows_it_again(run_store: RunStore, pulled: Path) -> None:
    assert import_model(run_store.store, pulled, "small-lnln") == "v1"
    assert resolve(run_store.store, "small-lnln").imported_sha256 is None


@pytest.mark.parametrize("file", ["model.safetensors", "lineage.json", "metrics.json", "config.json", "features.json"])
def test_a_damaged_or_incomplete_copy_is_refused_by_file(run_store: RunStore, pulled: Path, file: str) -> None:
    data = bytearray((pulled / file).read_bytes())
    data[len(data) // 2] ^= 1
    (pulled / file).write_bytes(bytes(data))
    with pytest.raises(RefusedError, match=file.replace(".", r"\.")):
        import_model(run_store.store, pulled, "copied")
    (pulled / file).unlink()
    with pytest.raises(RefusedError, match=file.replace(".", r"\.")):
        import_model(run_store.store, pulled, "copied")
    (pulled / MANIFEST).write_text("garbage")
    with pytest.raises(RefusedError):
        import_model(run_store.store, pulled, "copied")
    assert [model.name for model in list_models(run_store.store)] == ["small-lnln"]


def vouch_for(folder: Path) -> None:
    """As somebody who makes a manifest of whatever is there."""
    names = [entry.name for entry in folder.iterdir() if entry.name != MANIFEST]
    (folder / MANIFEST).write_bytes(ModelManifest.of_folder(folder, names).to_bytes())


@pytest.mark.parametrize(
    "changed",
    [
        {"selection": {"value": float("inf")}},
        {"selection": {"value": "low"}},
        {"selection": {}},
        {"selection": 3},
        {"config": {}},
        {"config": {"model": {"name": "nothing"}}},
        {"view_ids": None},
        {"study": "x"},
        {"extractors": []},
        {"label_range": None},
    ],
)
def test_a_lineage_that_says_something_else_is_refused(
    run_store: RunStore, pulled: Path, changed: dict[str, Any]
) -> None:
    lineage = {**json.loads((pulled / "lineage.json").read_text()), **changed}
    (pulled / "lineage.json").write_text(json.dumps(lineage))
    vouch_for(pulled)
    with pytest.raises(RefusedError) as refusal:
        import_model(run_store.store, pulled, "copied")
    assert "\n" not in str(refusal.value)
    assert [model.name for model in list_models(run_store.store)] == ["small-lnln"]


def test_a_copy_of_before_lineages_knew_of_studies_is_taken(run_store: RunStore, pulled: Path) -> None:
    lineage = json.loads((pulled / "lineage.json").read_text())
    metrics = json.loads((pulled / "metrics.json").read_text())
    for key in ("model", "study", "imported"):
        del lineage[key]
    del metrics["other_corpora"]
    (pulled / "lineage.json").write_bytes(encode_json(lineage))
    (pulled / "metrics.json").write_bytes(encode_json(metrics))
    vouch_for(pulled)
    import_model(run_store.store, pulled, "copied")
    assert resolve(run_store.store, "copied").selection_score == 1.3


def test_without_a_manifest_nothing_is_believed_but_the_weights(run_store: RunStore, pulled: Path) -> None:
    (pulled / MANIFEST).unlink()
    import_model(run_store.store, pulled, "copied")
    version = resolve(run_store.store, "copied")
    assert (version.run_id, version.selection_score, version.corpus) == ("", None, "small")
    assert version.imported_sha256 == digest_file(pulled / "model.safetensors")[1] == version.weights_sha256
    with pytest.raises(RefusedError, match="takes the features of corpus small, not of other"):
        import_model(run_store.store, pulled, "copied", "other")


def test_a_hugging_face_folder_takes_the_features_of_the_corpus_that_is_named(
    run_store: RunStore, pulled: Path, tmp_path: Path
) -> None:
    load_model(pulled).save_pretrained(tmp_path / "snapshot")
    with pytest.raises(RefusedError, match=r"has no features\.json.*--corpus"):
        import_model(run_store.store, tmp_path / "snapshot", "copied")
    import_model(run_store.store, tmp_path / "snapshot", "copied", "small")
    assert evaluate(run_store.store, "copied@v1", rates=[0.5]).mean == pytest.approx(
        evaluate(run_store.store, run_store.worse, rates=[0.5]).mean
    )
    assert open_model(run_store.store, "copied").features["feature_id"] == run_store.manifest.feature_id
    assert Predictor.open(run_store.store, "copied").predict_texts(["fine"])[0].label_text


def test_folders_that_hold_no_model_are_refused(run_store: RunStore, pulled: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RefusedError, match=r"empty has no model\.safetensors"):
        import_model(run_store.store, tmp_path / "empty", "copied", "small")
    with pytest.raises(RefusedError, match="is a folder"):
        import_model(run_store.store, pulled, "copied", None, tmp_path / "args.yaml")
    shutil.copytree(pulled, tmp_path / "bare")
    for file in (MANIFEST, "features.json"):
        (tmp_path / "bare" / file).unlink()
    (tmp_path / "bare" / "config.json").write_text("{}")
    with pytest.raises(RefusedError, match=r"bare/config\.json"):
        import_model(run_store.store, tmp_path / "bare", "copied", "small")
    shutil.copyfile(pulled / "config.json", tmp_path / "bare" / "config.json")
    (tmp_path / "bare" / "features.json").write_text('{"corpus": "small"}')
    with pytest.raises(RefusedError, match=r"features\.json lacks feature_id"):
        import_model(run_store.store, tmp_path / "bare", "copied")
