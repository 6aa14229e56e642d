"""Predictions for many: the numbers of the evaluation, what is skipped and made again, and what is refused first."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from lnln.config import Protocol, Rate
from lnln.data.manifest import FeatureManifest, commit_features, read_features
from lnln.data.schema import MODALITIES, Ragged
from lnln.data.shards import encode_shard, read_split
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate
from lnln.evaluate.predictions import read_predictions
from lnln.model_store import publish, pull
from pipelines import ingest
from pipelines import predict as predict_module
from pipelines.execute import StageFailedError, dask_client
from pipelines.ingest import import_corpus
from pipelines.predict import PredictedPart, predict_corpus, predict_files
from pipelines.settings import Settings
from tests.corpora import mmsa_content, mmsa_pickle
from tests.dask_processes import dask_processes
from tests.finished_run import TINY, finished_run, small_corpus
from tests.memory import peak_bytes


class Models(NamedTuple):
    """A store with the corpus `small` in several shards, a run on it, and where predictions go."""

    store: Store
    manifest: FeatureManifest
    run: str
    out: Path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("models")
    store = Store(folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "SHARD_BYTES", 400)
        manifest = small_corpus(store, folder)
    return folder, finished_run(store, manifest)


@pytest.fixture
def models(template: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    folder, run = template
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(folder / "store", tmp_path / "store")
    store = Store(tmp_path / "store")
    manifest = read_features(store, "small")
    assert len(manifest.splits["test"].shards) >= 4
    return Models(store, manifest, run, tmp_path / "said")


def table(folder: Path | str) -> pa.Table:
    """All of it, as any reader of Parquet sees the folder, in the order of the files' names."""
    return pyarrow.dataset.dataset(str(folder), format="parquet").to_table()


def content(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / "_manifest.json").read_bytes())
    made: dict[str, Any] = manifest["content"]
    return made


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def floats(column: pa.ChunkedArray) -> Any:
    return np.asarray(column.to_numpy(), np.float64)


@pytest.mark.parametrize(
    ("rate", "mask_seed", "protocol"),
    [
        (None, None, None),
        (0.0, None, None),
        (0.5, None, None),
        (0.9, 2, None),
        ((1.0, 0.0, 0.3), 1, None),
        (0.5, 1, "block"),
        ((0.0, 1.0, 1.0), None, "modality"),
        (0.5, 0, "noise"),
    ],
)
def test_the_numbers_are_those_of_the_evaluation(
    models: Models, rate: Rate | None, mask_seed: int | None, protocol: Protocol | None
) -> None:
    made = predict_corpus(
        models.store, models.run, "small", str(models.out), rate=rate, mask_seed=mask_seed, protocol=protocol
    )
    evaluation = evaluate(
        models.store,
        models.run,
        rates=[0.0 if rate is None else rate],
        mask_seeds=None if mask_seed is None else [mask_seed],
        protocol=protocol,
    )
    expected, found = read_predictions(models.store, evaluation), table(models.out)
    assert made.num_utterances == len(found) == 14 and made.num_parts == made.num_new >= 4
    assert found["utterance_id"].to_pylist() == expected.utterance_id
    assert expected.completeness is not None
    np.testing.assert_allclose(floats(found["sentiment"]), expected.sentiment[0], atol=2e-6)
    np.testing.assert_allclose(floats(found["completeness"]), expected.completeness[0], atol=2e-6)
    np.testing.assert_array_equal(floats(found["label"]), expected.label)
    assert set(found["source"].to_pylist()) == {"test"}
    lengths = read_split(models.store, models.manifest, "test").lengths()
    rates = rate if isinstance(rate, tuple) else (rate or 0.0,) * 3
    for modality, of_modality in zip(MODALITIES, rates, strict=True):
        missing, is_absent = floats(found[f"missing_{modality}"]), lengths[modality] == 0
        assert (missing[is_absent] == 1).all()
        if of_modality in (0, 1):
            assert (missing[~is_absent & (lengths[modality] > 2)] == of_modality).all()
        else:
            assert 0 < missing[~is_absent].mean() < 1


@pytest.mark.parametrize(
    "config",
    [
        {"model": {"name": "text_only", "text_encoder": "tiny"}},
        {"model": {"name": "late_fusion", "text_encoder": "tiny", "hidden_dim": 16}},
        {"model": {**TINY["model"], "max_text_length": 5, "max_audio_length": 3}},
        {"model": {**TINY["model"], "mode": "reference"}, "corruption": {"shared_uniforms": True, "mask_seed": 3}},
    ],
    ids=["text only", "late fusion", "cut", "reference"],
)
def test_other_models_and_their_own_masks(models: Models, config: dict[str, Any]) -> None:
    run = finished_run(models.store, models.manifest, seed=4, **config)
    predict_corpus(models.store, run, "small", str(models.out), rate=0.6)
    expected = read_predictions(models.store, evaluate(models.store, run, rates=[0.6]))
    found = table(models.out)
    np.testing.assert_allclose(floats(found["sentiment"]), expected.sentiment[0], atol=1e-5)
    assert (found["completeness"].null_count == len(found)) == (expected.completeness is None)
    if "max_audio_length" in config["model"]:
        assert any("audio cut from" in note for notes in found["notes"].to_pylist() for note in notes)


def test_a_folder_is_one_table_and_its_manifest_names_all_of_it(models: Models) -> None:
    made = predict_corpus(models.store, models.run, "small", str(models.out), split="all")
    found, manifest = table(models.out), content(models.out)
    utterances = {split: read_split(models.store, models.manifest, split) for split in models.manifest.splits}
    assert found["utterance_id"].to_pylist() == [name for each in utterances.values() for name in each.utterance_id]
    assert found["source"].to_pylist() == [split for split, each in utterances.items() for _ in each.utterance_id]
    assert manifest["num_utterances"] == made.num_utterances == len(found) == 66
    assert {part["path"] for part in manifest["parts"]} | {"_request.json", "_manifest.json"} == {
        path.name for path in models.out.iterdir()
    }
    for part in manifest["parts"]:
        data = (models.out / part["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (part["num_bytes"], part["sha256"])
        assert pq.ParquetFile(models.out / part["path"]).metadata.num_rows == part["num_rows"]
    assert manifest["model"] == models.run and manifest["source"]["corpus"] == "small" and manifest["view"] is None
    assert json.loads(json.dumps(made.to_dict()))["num_parts"] == len(manifest["parts"])


def test_without_a_folder_they_lie_in_the_store_by_what_was_asked_for(models: Models) -> None:
    first = predict_corpus(models.store, models.run, "small")
    assert first.url == f"{models.store.url}/reports/predictions-{first.request.request_id}"
    at_half = predict_corpus(models.store, models.run, "small", rate=0.5)
    assert at_half.url != first.url and at_half.num_new == at_half.num_parts
    again = predict_corpus(models.store, models.run, "small")
    assert again.url == first.url and again.num_new == 0


def test_what_is_there_is_not_made_again(models: Models) -> None:
    predict_corpus(models.store, models.run, "small", str(models.out))
    times = {path: path.stat().st_mtime_ns for path in models.out.glob("part-*")}
    publish(models.store, models.run, "small-lnln")
    folder = pull(models.store, "small-lnln", models.out.parent / "pulled")
    for model in (models.run, "small-lnln@best", str(folder)):  # the same weights say the same
        again = predict_corpus(models.store, model, "small", str(models.out))
        assert again.num_new == 0 and again.num_utterances == 14
    assert {path: path.stat().st_mtime_ns for path in models.out.glob("part-*")} == times


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty", "another"])
def test_a_damaged_part_is_made_again_and_no_other(models: Models, damage: str) -> None:
    predict_corpus(models.store, models.run, "small", str(models.out))
    before = digests(models.out)
    victim, other = sorted(models.out.glob("part-*"))[1:3]
    data = victim.read_bytes()
    if damage == "gone":
        victim.unlink()
    else:
        flipped = bytearray(data)
        flipped[len(data) // 3] ^= 4
        changed = {"cut": data[:-9], "flipped": bytes(flipped), "empty": b"", "another": other.read_bytes()}
        victim.write_bytes(changed[damage])
    assert predict_corpus(models.store, models.run, "small", str(models.out)).num_new == 1
    assert digests(models.out) == before


def test_an_interruption_leaves_whole_parts_without_a_manifest(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def stop_at_third(**arguments: Any) -> PredictedPart:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(**arguments)

    original = predict_module.predict_shard
    with monkeypatch.context() as patch:
        patch.setattr(predict_module, "predict_shard", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            predict_corpus(models.store, models.run, "small", str(models.out))
    assert len(list(models.out.glob("part-*"))) == 2 and not (models.out / "_manifest.json").exists()
    made = predict_corpus(models.store, models.run, "small", str(models.out))
    assert made.num_new == made.num_parts - 2
    other = models.out.with_name("other")
    predict_corpus(models.store, models.run, "small", str(other))
    assert digests(other) == digests(models.out)


def test_a_damaged_shard_harms_only_its_own_part(models: Models) -> None:
    shard = Path(models.store.url) / models.manifest.splits["test"].shards[2].path
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(StageFailedError, match=shard.name) as failure:
        predict_corpus(models.store, models.run, "small", str(models.out))
    assert list(failure.value.failures) == ["shard 2 of test"]
    num_shards = len(models.manifest.splits["test"].shards)
    assert len(list(models.out.glob("part-*"))) == num_shards - 1 and not (models.out / "_manifest.json").exists()
    shard.write_bytes(whole)
    assert predict_corpus(models.store, models.run, "small", str(models.out)).num_new == 1
    assert len(table(models.out)) == 14


def test_a_folder_is_for_one_thing(models: Models) -> None:
    out = str(models.out)
    predict_corpus(models.store, models.run, "small", out)
    before = digests(models.out)
    other = finished_run(models.store, models.manifest, seed=5)
    for arguments, said in [
        ({"model": models.run, "rate": 0.5}, r"test of small.*asked for.*missing rate 0\.5/0\.5/0\.5"),
        ({"model": models.run, "split": "valid"}, "asked for are those of valid of small"),
        ({"model": other}, f"by {models.run} with weights .* by {other} with weights"),
    ]:
        with pytest.raises(RefusedError, match=said):
            predict_corpus(models.store, corpus="small", out=out, **arguments)  # type: ignore[arg-type]
    shard = Path(models.store.url) / models.manifest.splits["test"].shards[0].path
    with pytest.raises(RefusedError, match="asked for are those of 1 files"):
        predict_files(models.store, models.run, [str(shard)], out)
    assert digests(models.out) == before
    (models.out / "_request.json").write_text("[]")
    with pytest.raises(RefusedError, match=r"_request\.json is damaged"):
        predict_corpus(models.store, models.run, "small", out)


def test_refusals_come_before_anything_is_written(models: Models, tmp_path: Path) -> None:
    import_corpus(
        models.store, mmsa_pickle(tmp_path / "other.pkl", num=(5, 3, 3)), "chinese", tokenizer="bert-base-chinese"
    )
    cases: list[tuple[dict[str, Any], str]] = [
        ({"corpus": "absent"}, "holds no corpus 'absent'"),
        ({"model": "absent"}, "no run and no model"),
        ({"split": "dev"}, "train, valid, test, unassigned or all, got 'dev'"),
        ({"split": "unassigned"}, "no split 'unassigned'"),
        ({"mask_seed": 1}, "belong to a view"),
        ({"protocol": "block"}, "belong to a view"),
        ({"rate": 1.5}, r"within \[0, 1\]"),
        ({"rate": float("nan")}, r"within \[0, 1\]"),
        ({"corpus": "chinese"}, "takes text of 30522 token ids of bert-base-uncased, not 21128 .* bert-base-chinese"),
        ({"device": "cuda:99"}, "cannot compute on device 'cuda:99'"),
        ({"device": "nonsense"}, "cannot compute on device 'nonsense'"),
        ({"out": "ftp://x"}, "store URL must be"),
    ]
    for arguments, said in cases:
        asked: dict[str, Any] = {"model": models.run, "corpus": "small", "out": str(models.out), **arguments}
        with pytest.raises(RefusedError, match=said):
            predict_corpus(models.store, **asked)
    assert not models.out.exists()


def test_utterances_that_wait_for_a_prediction(models: Models) -> None:
    """Of a corpus that has no training split and no labels."""
    manifest = models.manifest
    waiting = replace(
        manifest,
        corpus="waiting",
        splits={"unassigned": manifest.splits["test"]},
        lengths={"unassigned": manifest.lengths["test"]},
    )
    commit_features(models.store, waiting)
    with pytest.raises(RefusedError, match="no split 'test'; it has unassigned"):
        predict_corpus(models.store, models.run, "waiting", str(models.out))
    made = predict_corpus(models.store, models.run, "waiting", str(models.out), split="all")
    assert made.num_utterances == 14 and set(table(models.out)["source"].to_pylist()) == {"unassigned"}


def test_two_at_once_end_with_the_same(models: Models) -> None:
    made: list[Any] = []

    def predict() -> None:
        made.append(predict_corpus(models.store, models.run, "small", str(models.out), split="all"))

    threads = [threading.Thread(target=predict) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3 and {each.num_utterances for each in made} == {66}
    for part in content(models.out)["parts"]:
        assert hashlib.sha256((models.out / part["path"]).read_bytes()).hexdigest() == part["sha256"]


@pytest.fixture
def shards(models: Models, tmp_path: Path) -> Path:
    """Three feature shards from elsewhere."""
    utterances = read_split(models.store, models.manifest, "test")
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(utterances)), 3)):
        (folder / f"{number}.parquet").write_bytes(encode_shard(utterances.take(rows)))
    return folder


def test_files_from_elsewhere(models: Models, shards: Path) -> None:
    predict_corpus(models.store, models.run, "small", str(models.out), rate=0.4)
    made = predict_files(models.store, models.run, [f"{shards}/*.parquet"], f"{shards}/said", rate=0.4)
    assert made.num_utterances == 14 and made.num_parts == 3
    found, of_corpus = table(f"{shards}/said"), table(models.out)
    assert found["source"].unique().to_pylist() == [f"{shards}/{number}.parquet" for number in range(3)]
    for column in ("utterance_id", "label", "notes", *(f"missing_{m}" for m in MODALITIES)):
        assert found[column].to_pylist() == of_corpus[column].to_pylist()
    np.testing.assert_allclose(floats(found["sentiment"]), floats(of_corpus["sentiment"]), atol=2e-6)
    # By folder too: what was written there meanwhile is no input.
    assert predict_files(models.store, models.run, [str(shards)], f"{shards}/said", rate=0.4).num_new == 0


def test_files_that_change(models: Models, shards: Path) -> None:
    out, changing = str(models.out), shards / "1.parquet"
    utterances = read_split(models.store, models.manifest, "test").take([3, 4])

    def named(number: int) -> bytes:
        return encode_shard(replace(utterances, utterance_id=[f"clip {number:04d}", f"clip {number + 1:04d}"]))

    changing.write_bytes(named(0))
    predict_files(models.store, models.run, [str(shards)], out)
    as_large = next(number for number in range(1, 5000) if len(named(number)) == len(named(0)))
    changing.write_bytes(named(as_large))
    assert predict_files(models.store, models.run, [str(shards)], out).num_new == 1
    assert f"clip {as_large:04d}" in table(out)["utterance_id"].to_pylist()
    (shards / "3.parquet").write_bytes(named(0))
    with pytest.raises(RefusedError, match=r"holds predictions of 3 files, .* asked for are those of 4 files"):
        predict_files(models.store, models.run, [str(shards)], out)


def test_a_damaged_file_of_several(models: Models, shards: Path) -> None:
    for damaged in ("0.parquet", "1.parquet"):
        out = models.out.with_name(f"without-{damaged}")
        whole = (shards / damaged).read_bytes()
        (shards / damaged).write_bytes(whole[:-20])
        with pytest.raises(StageFailedError, match=f"1 of 3 jobs failed .*{damaged} is no whole Parquet file"):
            predict_files(models.store, models.run, [str(shards)], str(out))
        assert len(list(out.glob("part-*"))) == 2
        (shards / damaged).write_bytes(whole)


def test_files_that_no_model_of_this_kind_takes_are_refused_at_once(models: Models, shards: Path) -> None:
    utterances = read_split(models.store, models.manifest, "test").take([1, 2])
    wide = replace(utterances, audio=Ragged.from_lengths(np.ones((2, 9), np.float32), [1, 1]))
    broken = replace(utterances, vision=Ragged.from_lengths(np.full((2, 3), np.inf, np.float32), [1, 1]))
    for made, said in ((wide, "audio has 9 dimensions, expected 4"), (broken, "vision values that are not finite")):
        for path in shards.iterdir():
            path.write_bytes(encode_shard(made))
        with pytest.raises(RefusedError, match=said) as refusal:
            predict_files(models.store, models.run, [str(shards)], str(models.out))
        assert not isinstance(refusal.value, StageFailedError)
    (shards / "0.parquet").write_bytes(b"no shard")
    with pytest.raises(RefusedError, match="no whole Parquet file"):
        predict_files(models.store, models.run, [f"{shards}/0.parquet"], str(models.out))
    with pytest.raises(RefusedError, match="noise is drawn by the statistics of a corpus"):
        predict_files(models.store, models.run, [str(shards)], str(models.out), rate=0.5, protocol="noise")
    assert not models.out.exists()


@pytest.mark.slow
def test_dask_writes_the_same_though_a_worker_dies(models: Models, tmp_path: Path) -> None:
    predict_corpus(models.store, models.run, "small", str(models.out), split="all", rate=0.5)
    other = tmp_path / "by-dask"
    with (
        dask_processes(tmp_path, num_workers=2) as processes,
        dask_client(Settings(dask=processes.address)) as client,
    ):
        assert client is not None
        client.wait_for_workers(2, timeout=60)
        ended = threading.Event()

        def kill() -> None:
            while not ended.wait(0.01):
                if len(list(other.glob("part-*"))) >= 2:
                    processes.workers[0].kill()
                    return

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            made = predict_corpus(
                models.store, models.run, "small", str(other), split="all", rate=0.5, device="cpu", client=client
            )
        finally:
            ended.set()
            killer.join()
        assert processes.workers[0].poll() is not None, "killed in the middle"
    assert made.num_utterances == 66
    expected, found = table(models.out), table(other)
    for column in expected.column_names:
        if column in ("sentiment", "completeness"):
            np.testing.assert_allclose(floats(found[column]), floats(expected[column]), atol=2e-6)
        else:
            assert found[column].to_pylist() == expected[column].to_pylist()
    # What the workers left is whole: here nothing is to be done.
    assert predict_corpus(models.store, models.run, "small", str(other), split="all", rate=0.5).num_new == 0


@pytest.mark.slow
def test_from_a_bucket_to_a_bucket(models: Models, shards: Path, s3_store_url: str) -> None:
    bucket = Store(s3_store_url)
    for path in shards.iterdir():
        bucket.write(f"in/{path.name}", path.read_bytes())
    out = f"{s3_store_url}/out"
    made = predict_files(models.store, models.run, [f"{s3_store_url}/in/*.parquet"], out)
    assert made.num_utterances == 14 and made.num_new == 3
    here = models.out
    predict_files(models.store, models.run, [str(shards)], str(here))
    for mine, theirs in zip(content(here)["parts"], _parts(Store(out)), strict=True):
        rows = pq.read_table(pa.BufferReader(Store(out).read(theirs["path"]))).drop_columns("source")
        assert rows.to_pylist() == pq.read_table(here / mine["path"]).drop_columns("source").to_pylist()
    victim = _parts(Store(out))[1]["path"]
    Store(out).write(victim, b"damaged")
    assert predict_files(models.store, models.run, [f"{s3_store_url}/in"], out).num_new == 1
    assert predict_files(models.store, models.run, [f"{s3_store_url}/in"], out).num_new == 0
    assert predict_corpus(models.store, models.run, "small", f"{s3_store_url}/of-corpus").num_utterances == 14


def _parts(out: Store) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = out.read_json("_manifest.json")["content"]["parts"]
    return parts


_PREDICT = """
from lnln.data.store import Store
from pipelines.predict import predict_corpus

def peak(split, name):
    begin()
    predict_corpus(Store(folder), run, "wide", f"{out}/{name}", split=split, device="cpu")
    return _status("VmHWM") - _before

if __name__ == "__main__":
    folder, run, out = sys.argv[1:]
    peak("valid", "first")  # what is imported and allotted once
    few, many = peak("valid", "few"), peak("train", "many")
    print(many - few)
"""


@pytest.mark.slow
def test_more_shards_take_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training split is ten shards of 1.7 MB, the validation split two."""
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ingest, "SHARD_BYTES", 2 << 20)
    store = Store(tmp_path / "store")
    manifest = import_corpus(store, wide_pickle(tmp_path / "wide.pkl"), "wide")
    shards = {split: manifest.splits[split].shards for split in ("train", "valid")}
    assert len(shards["train"]) >= len(shards["valid"]) + 8
    more = sum(shard.num_bytes for shard in shards["train"][len(shards["valid"]) :])
    assert more > 12e6
    assert peak_bytes(_PREDICT, store.url, finished_run(store, manifest), tmp_path / "said") < more / 3


def wide_pickle(path: Path) -> Path:
    """160 kB of audio per utterance."""
    made = mmsa_content((120, 20, 4))
    random = np.random.default_rng(0)
    for split in made.values():
        num = len(split["id"])
        split["audio"] = random.standard_normal((num, 10, 4000), dtype=np.float32)
        split["audio_lengths"] = [10] * num
    path.write_bytes(pickle.dumps(made))
    return path
