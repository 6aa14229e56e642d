"""One part left out at a time: what is trained, what makes no sense, and what the differences are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnln.config import SDUMC_TERMS, Config, load_config
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate.run import evaluate_suites
from lnln.runs import is_finished, load_run, run_id_for, trained_values
from lnln.train.ablations import (
    ABLATIONS,
    BASE,
    SDUMC_ABLATIONS,
    SUITE,
    Ablations,
    ablate,
    ablated,
    choose_ablations,
)
from lnln.train.seeds import with_seed
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_content
from tests.finished_run import TINY, finished_run

SLOW = pytest.mark.slow
CONFIG = Config.from_dict(TINY)


def finish(store: Store, manifest: FeatureManifest, names: list[str], seeds: list[int]) -> dict[str, list[str]]:
    """Runs of the base and some ablations of it, made without training."""
    made = {}
    for name in names:
        config = CONFIG if name == BASE else ablated(CONFIG, ABLATIONS[name])
        sections = {key: value for key, value in config.to_dict().items() if key not in ("train", "tune")}
        made[name] = [finished_run(store, manifest, seed=seed, **sections) for seed in seeds]
        for seed, run_id in zip(seeds, made[name], strict=True):
            assert run_id == run_id_for(with_seed(config, seed), "small", manifest)
    return made


def test_each_ablation_changes_one_thing_and_no_two_the_same(manifest: FeatureManifest) -> None:
    for config in (CONFIG, load_config("mosi"), load_config("mosei"), load_config("sims"), load_config("published")):
        chosen, left_out = choose_ablations(config, manifest)
        assert list(chosen) == list(ABLATIONS) and left_out == {}
        values = [repr(trained_values(each)) for each in (config, *chosen.values())]
        assert len(set(values)) == len(values)
        assert all(trained_values(each)["train"] == trained_values(config)["train"] for each in chosen.values())


def test_the_list_has_what_the_papers_tables_have() -> None:
    changes = {change for ablation in ABLATIONS.values() for change in ablation.changes}
    assert {f"loss.{term}=0" for term in ("completeness", "adversarial", "reconstruction")} <= changes
    assert {"model.correction=false", "model.reconstruction=false", "model.fusion=concat"} <= changes
    assert {f"model.modalities=[{kept}]" for kept in ("text, audio", "text, vision", "audio, vision")} <= changes
    assert "corruption.complete_share=1" in changes
    assert len({ablation.title for ablation in ABLATIONS.values()}) == len(ABLATIONS)
    assert all(ablation.source.startswith("Table") for ablation in ABLATIONS.values())


def test_sdumc_has_a_list_of_its_own(store: Store, manifest: FeatureManifest) -> None:
    config = load_config(None, ["model.name=sdumc"])
    chosen, left_out = choose_ablations(config, manifest)
    assert list(chosen) == list(SDUMC_ABLATIONS) and left_out == {}
    values = [repr(trained_values(each)) for each in (config, *chosen.values())]
    assert len(set(values)) == len(values)
    left = {term for term in SDUMC_TERMS if getattr(chosen["no_missing_flow"].loss, term)}
    assert left == {"full_sentiment", "rank_contrast"}
    assert not chosen["no_imagination"].model.sdumc.imagination and not chosen["no_rank_contrast"].loss.rank_contrast
    with pytest.raises(RefusedError, match=r"an ablation of sdumc is one of no_missing_flow, .*, got 'no_correction'"):
        choose_ablations(config, manifest, ["no_correction"])
    with pytest.raises(RefusedError, match=r"an ablation of lnln is one of no_correction, .*, got 'no_imagination'"):
        choose_ablations(CONFIG, manifest, ["no_imagination"])
    without = load_config(None, ["model.name=sdumc", "model.sdumc.imagination=false"])
    assert "no_imagination" in choose_ablations(without, manifest)[1]
    with pytest.raises(RefusedError, match="lnln simulate small"):
        ablate(store, "small", config, [1])


@pytest.mark.parametrize(
    ("changes", "without"),
    [
        ({"model": {"name": "text_only"}}, {*ABLATIONS} - {"no_missing_data"}),
        ({"model": {"name": "late_fusion"}}, {*ABLATIONS} - {"no_missing_data", "no_text", "no_audio", "no_vision"}),
        (
            {"model": {"correction": False}},
            {"no_correction", "no_adversarial", "no_completeness", "no_correction_no_reconstruction"},
        ),
        (
            {"model": {"reconstruction": False}},
            {"no_reconstruction", "no_reconstruction_term", "no_correction_no_reconstruction"},
        ),
        ({"model": {"fusion": "concat"}}, {"no_dominant_fusion"}),
        ({"loss": {"adversarial": 0.0}}, {"no_adversarial"}),
        ({"corruption": {"complete_share": 1.0}}, {"no_missing_data"}),
        ({"model": {"modalities": ["text", "audio"]}}, {"no_text", "no_audio", "no_vision"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",  # sets have no order
)
def test_what_changes_nothing_of_a_base_is_left_out_and_refused_by_name(
    manifest: FeatureManifest, changes: dict[str, Any], without: set[str]
) -> None:
    config = Config.from_dict(changes)
    chosen, left_out = choose_ablations(config, manifest)
    assert set(left_out) == without and set(chosen) == {*ABLATIONS} - without
    for name, reason in left_out.items():
        assert reason
        if name != "no_correction_no_reconstruction":  # it is another one's double, which is not asked for here
            with pytest.raises(RefusedError, match=f"ablation {name} makes no sense here: .*; leave it out of --only"):
                choose_ablations(config, manifest, [name])


def test_a_modality_that_nobody_has_cannot_be_left_out(store: Store, tmp_path: Path) -> None:
    import pickle

    content = mmsa_content()
    for split in content.values():
        split["vision"][:] = 0
        split["vision_lengths"] = [0] * len(split["id"])
    (tmp_path / "blind.pkl").write_bytes(pickle.dumps(content))
    manifest = import_corpus(store, tmp_path / "blind.pkl", "blind")
    _, left_out = choose_ablations(CONFIG, manifest)
    assert left_out == {"no_vision": "no training utterance of blind has vision"}
    for split in content.values():
        split["audio"][:] = 0
        split["audio_lengths"] = [0] * len(split["id"])
    (tmp_path / "mute.pkl").write_bytes(pickle.dumps(content))
    _, left_out = choose_ablations(CONFIG, import_corpus(store, tmp_path / "mute.pkl", "mute"))
    assert set(left_out) == {"no_vision", "no_audio", "no_text"}
    assert left_out["no_text"] == "no training utterance of mute has anything else"


@pytest.mark.parametrize(
    ("seeds", "options", "said"),
    [
        ([1], {"only": ["no_dmc"]}, "an ablation of lnln is one of no_correction, .*, got 'no_dmc'"),
        ([1], {"only": []}, "expected one ablation or more"),
        ([1], {"split": "dev"}, "a split is one of train, valid, test, got 'dev'"),
        ([], {}, "expected different seeds"),
        ([1, 1], {}, "expected different seeds"),
        ([1], {"num_parallel": 0}, "1 or more, got 0"),
    ],
)
def test_what_cannot_be_trained_or_scored_is_refused_at_once(
    store: Store, manifest: FeatureManifest, no_ray: None, seeds: list[int], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RefusedError, match=said):
        ablate(store, "small", CONFIG, seeds, **options)
    assert not Path(store.url, "runs").exists()


def test_differences_are_paired_with_the_base_over_all_rates_and_over_the_highest(
    store: Store, manifest: FeatureManifest, no_ray: None
) -> None:
    names = ["no_audio", "no_adversarial"]
    ids = finish(store, manifest, [BASE, *names], [1, 2])
    lines: list[str] = []
    made = ablate(store, "small", CONFIG, [1, 2], only=names, progress=lines.append)
    assert list(made.settings) == [BASE, "no_audio", "no_adversarial"] and made.left_out == {} and made.failed == {}
    for name, setting in made.settings.items():
        assert [setting.runs[seed].run_id for seed in (1, 2)] == ids[name]
    assert made.base.title == "base" and made.base.differences is None and made.base.high is None
    by_rate = {
        name: np.array(
            [
                [scores["mae"] for scores in evaluate_suites(store, run_id, [SUITE])[SUITE].by_rate()]
                for run_id in run_ids
            ]
        )
        for name, run_ids in ids.items()
    }
    for name in names:
        setting, gaps = made.settings[name], by_rate[name] - by_rate[BASE]
        assert setting.differences is not None and setting.high is not None and setting.scores is not None
        assert setting.differences["mae"].value == pytest.approx(gaps.mean())
        assert setting.high["mae"].value == pytest.approx(gaps[:, 7:].mean())
        assert setting.scores.mean["mae"].value == pytest.approx(by_rate[name].mean())
        for difference in (*setting.differences.values(), *setting.high.values()):
            assert difference.seeds == (1, 2) and difference.counts_training
            assert difference.low <= difference.value <= difference.high
    # Left out of the loss, but in the weights of a random model: the same network, so no difference at all.
    same = made.settings["no_adversarial"].differences
    assert same is not None and same["mae"].value == 0 and same["mae"].is_better is None


def test_a_seed_that_failed_stops_nothing_and_the_rest_is_compared(
    store: Store, manifest: FeatureManifest, no_ray: None
) -> None:
    ids = finish(store, manifest, [BASE, "no_audio", "no_vision"], [1, 2])
    store.write(f"runs/{ids['no_audio'][0]}/result.json", b"{}")
    for run_id in ids["no_vision"]:
        store.write(f"runs/{run_id}/result.json", b"{}")
    made = ablate(store, "small", CONFIG, [1, 2], only=["no_audio", "no_vision"], progress=None)
    assert set(made.failed) == {"no_audio", "no_vision"} and list(made.failed["no_audio"]) == [1]
    half, gone = made.settings["no_audio"], made.settings["no_vision"]
    assert half.differences is not None and half.differences["mae"].seeds == (2,)
    assert gone.scores is None and gone.differences is None and gone.high is None


def test_without_the_base_there_is_nothing_to_compare_with(
    store: Store, manifest: FeatureManifest, no_ray: None
) -> None:
    ids = finish(store, manifest, [BASE, "no_audio"], [1])
    store.write(f"runs/{ids[BASE][0]}/result.json", b"{}")
    made = ablate(store, "small", CONFIG, [1], only=["no_audio"], progress=None)
    assert made.base.scores is None and list(made.failed) == [BASE]
    assert made.settings["no_audio"].scores is not None and made.settings["no_audio"].differences is None
    store.write(f"runs/{ids['no_audio'][0]}/result.json", b"{}")
    assert set(ablate(store, "small", CONFIG, [1], only=["no_audio"], progress=None).failed) == {BASE, "no_audio"}


def test_a_single_seed_says_that_it_does_not_count_training(
    store: Store, manifest: FeatureManifest, no_ray: None
) -> None:
    finish(store, manifest, [BASE, "no_audio"], [1])
    made: Ablations = ablate(store, "small", CONFIG, [1], only=["no_audio"], split="valid", progress=None)
    differences = made.settings["no_audio"].differences
    assert made.split == "valid" and differences is not None and not differences["mae"].counts_training


@SLOW
def test_it_trains_what_is_missing_and_a_second_call_nothing(
    store: Store, manifest: FeatureManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"seed": 1, "epochs": 1, "batch_size": 20}
    config = Config.from_dict({**TINY, "train": train})
    base, lines = finished_run(store, manifest, seed=1, train=train), list[str]()
    made = ablate(store, "small", config, [1], only=["no_missing_data"], progress=lines.append)
    assert not made.failed and any(line.startswith("without missing data in training: seed 1: ") for line in lines)
    run = made.settings["no_missing_data"].runs[1]
    assert made.base.runs[1].run_id == base and not any(line.startswith("base: seed 1: epoch") for line in lines)
    assert is_finished(store, run.run_id) and load_run(store, run.run_id).config.corruption.complete_share == 1
    assert read_features(store, "small").feature_id == run.feature_id
    monkeypatch.setattr("lnln.train.seeds.ray_session", lambda *_: pytest.fail("Ray was started"))
    again = ablate(store, "small", config, [1], only=["no_missing_data"], progress=None)
    assert again.settings["no_missing_data"].differences == made.settings["no_missing_data"].differences
