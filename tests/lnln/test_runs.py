from __future__ import annotations

import pytest

from lnln.config import Config, load_config
from lnln.errors import RefusedError
from lnln.runs import is_finished, load_run, run_id_for
from tests.lnln.conftest import RunStore


def test_a_run_is_named_by_what_it_trains(run_store: RunStore) -> None:
    def name(*overrides: str) -> str:
        return run_id_for(load_config(None, overrides), "small", run_store.manifest)

    assert name() == name("train.accumulation_steps=2") == name("train.compile=default") == name("tune.epochs=7")
    assert name().startswith("small-lnln-")
    changes = ["loss.adversarial=0.5", "train.seed=1", "corruption.mask_seed=1", "model.mode=reference"]
    assert len({name(), *(name(change) for change in changes)}) == 5


def test_a_finished_run_is_read(run_store: RunStore) -> None:
    run = load_run(run_store.store, run_store.better)
    assert is_finished(run_store.store, run.run_id) and run.folder == f"runs/{run.run_id}"
    assert run.corpus == "small" and isinstance(run.config, Config) and run.config.train.seed == 2
    assert run.score == 1.2 and run.best_epoch == 3 and run.files["model.safetensors"]["num_bytes"] > 0
    assert run.view_ids.keys() == {"validation", "training"} and len(run.view_ids["validation"]) == 2


def test_a_run_stored_before_a_switch_existed_did_as_published(run_store: RunStore) -> None:
    store, path = run_store.store, f"runs/{run_store.better}/run.json"
    made = store.read_json(path)
    for switch in ("proxy_read", "position_std", "normalise_discriminated", "mask_erased"):
        del made["config"]["model"][switch]
    store.write_json(path, made)
    model = load_run(store, run_store.better).config.model
    assert model.mode == "clean" and model.detach_targets
    assert (model.proxy_read, model.position_std) == ("own_tokens", 1.0)
    assert not model.normalise_discriminated and not model.mask_erased
    del made["config"]["model"]
    store.write_json(path, made)
    with pytest.raises(RefusedError, match=r"damaged: KeyError 'model'"):
        load_run(store, run_store.better)


@pytest.mark.parametrize("run_id", ["nothing", "../small", "", "a/b"])
def test_an_unknown_run_is_refused(run_store: RunStore, run_id: str) -> None:
    with pytest.raises(RefusedError):
        load_run(run_store.store, run_id)


def test_an_unfinished_or_damaged_run_is_refused(run_store: RunStore) -> None:
    store, path = run_store.store, f"runs/{run_store.better}"
    store.write(f"{path}/result.json", b"{}")
    with pytest.raises(RefusedError, match=r"damaged: KeyError"):
        load_run(store, run_store.better)
    store.write(f"{path}/result.json", b"[")
    with pytest.raises(RefusedError, match=r"result\.json"):
        load_run(store, run_store.better)
    store.remove(f"{path}/result.json")
    with pytest.raises(RefusedError, match="is not finished"):
        load_run(store, run_store.better)
