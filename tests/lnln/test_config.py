"""Configs: what may stand in them, what is refused, and what their fingerprint means."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnln.config import (
    SDUMC_SWITCHES,
    SWITCHES,
    Config,
    ModelConfig,
    config_for,
    config_names,
    fingerprint,
    load_config,
)
from lnln.errors import RefusedError


def test_every_shipped_config_loads_and_says_what_it_needs_costs_and_runs() -> None:
    import importlib.resources

    for name in config_names():
        load_config(name)
        header = (importlib.resources.files("lnln.configs") / f"{name}.yaml").read_text().split("\n\n")[0]
        for word in ("needs", "cost", "command"):
            assert f"# {word}" in header, f"{name}.yaml: the header lacks {word!r}"


def test_dict_round_trip_is_exact_for_every_shipped_config() -> None:
    for name in [None, *config_names()]:
        config = load_config(name)
        assert Config.from_dict(config.to_dict()) == config
        assert Config.from_dict(config.to_dict()).fingerprint() == config.fingerprint()


def test_defaults_are_the_papers_loss_weights() -> None:
    loss = Config().loss
    assert (loss.completeness, loss.adversarial, loss.reconstruction, loss.sentiment) == (0.9, 0.8, 0.1, 1.0)


def test_mode_sets_every_switch_and_each_can_be_set_alone() -> None:
    for switch, (reference, clean) in SWITCHES.items():
        assert getattr(ModelConfig(mode="reference"), switch) == reference
        assert getattr(ModelConfig(), switch) == clean
        chosen: dict[str, Any] = {switch: reference}
        alone = ModelConfig(**chosen)
        for other, (_, clean_value) in SWITCHES.items():
            assert getattr(alone, other) == (reference if other == switch else clean_value)


def test_fingerprint_ignores_how_a_study_is_run_and_nothing_else() -> None:
    base = Config()
    assert base.fingerprint() == load_config(None, ["tune.epochs=9", "tune.storage_url=sqlite:///x"]).fingerprint()
    for change in ["loss.adversarial=0.7", "train.seed=1112", "model.mode=reference", "corruption.mask_seed=1"]:
        assert load_config(None, [change]).fingerprint() != base.fingerprint(), change


def test_fingerprints_are_pinned() -> None:
    """Stored runs are found by them: a change here, a new key too, orphans every run, so it must be meant."""
    assert Config().fingerprint() == "d47169281d12"
    assert fingerprint({"b": [1, 2.5, None], "a": "ü"}) == "91ff63a7ddb1"


def test_a_model_is_known_by_what_it_looks_at() -> None:
    for name in ("lnln", "text_only", "late_fusion"):
        base = load_config(None, [f"model.name={name}"])
        for change in ["loss.fused=0.7", "loss.rank_temperature=1", "model.sdumc.query_dim=3", "model.simulation=a"]:
            assert load_config(None, [f"model.name={name}", change]).fingerprint() == base.fingerprint(), change
        reads = load_config(None, [f"model.name={name}", "model.simulated_text=when_missing"])
        assert reads.fingerprint() != base.fingerprint() and reads.model.reads_simulated_text
    base = load_config(None, ["model.name=sdumc"])
    assert base.model.reads_simulated_text
    for change in ["loss.fused=0.7", "model.sdumc.query_dim=3", "model.simulation=a", "model.sdumc.detach_fused=false"]:
        assert load_config(None, ["model.name=sdumc", change]).fingerprint() != base.fingerprint(), change


def test_mode_sets_the_switches_of_sdumc_too() -> None:
    for switch, (reference, clean) in SDUMC_SWITCHES.items():
        assert getattr(ModelConfig(mode="reference").sdumc, switch) == reference
        assert getattr(ModelConfig().sdumc, switch) == clean
        own = load_config(None, [f"model.sdumc.{switch}={json.dumps(reference)}"])
        assert getattr(own.model.sdumc, switch) == reference


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("loss.adverserial=1", "did you mean 'adversarial'"),
        ("losses.adversarial=1", "did you mean 'loss'"),
        ("loss=3", "must be a section"),
        ("loss.adversarial=-1", "0 or more, got -1.0"),
        ("loss.adversarial=.nan", "finite"),
        ("loss.adversarial=.inf", "finite"),
        ("loss.adversarial=true", "of type float"),
        ("train.seed=9223372036854775808", "below 2**63"),
        ("train.epochs=0", "1 or more, got 0"),
        ("train.epochs=2.5", "of type int"),
        ("train.epochs=true", "of type int"),
        ("train.warmup_share=1", "within [0, 1)"),
        ("model.mode=clever", "one of reference, clean"),
        ("model.hidden_dim=100", "multiple of num_heads"),
        ("corruption.rates=[0.1, 2]", "within [0, 1]"),
        ("corruption.rates=[]", "non-empty"),
        ("corruption.rates=[0.1, 0.1]", "without repetition"),
        ("train", "takes key=value"),
        ("=3", "takes key=value"),
        ("train.epochs.more=3", "of type int"),
        ("train.epochs=[", "cannot read the value"),
    ],
)
def test_a_bad_override_is_refused_in_one_line(override: str, expected: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        load_config(None, [override])
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_cuda_graphs_cannot_do_is_refused() -> None:
    recorded = "train.compile=reduce-overhead"
    with pytest.raises(RefusedError, match=r"accumulation_steps must be 1 with train\.compile reduce-overhead, got 2"):
        load_config(None, [recorded, "train.accumulation_steps=2"])
    assert load_config(None, [recorded]).train.accumulation_steps == 1


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    assert load_config(None, ["train.learning_rate=1e-4"]).train.learning_rate == 1e-4


def test_unknown_and_damaged_config_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no config called 'mosy'; there are"):
        load_config("mosy")
    with pytest.raises(RefusedError, match="no config file at"):
        load_config(str(tmp_path / "absent.yaml"))
    for content in [b"a: [", b"- 1\n- 2\n", b"!!python/object/apply:os.system ['true']\n", b"\x00", b"\xff\xfe: 1"]:
        path = tmp_path / "bad.yaml"
        path.write_bytes(content)
        with pytest.raises(RefusedError) as refusal:
            load_config(str(path))
        assert "\n" not in str(refusal.value)


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert load_config(str(path)) == Config()


def test_a_corpus_finds_its_own_config_and_others_get_the_defaults() -> None:
    assert config_for("sample") == load_config("sample")
    assert config_for("mine") == Config()
    assert config_for("sample", "mosi") == load_config("mosi")


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text(max_size=5)), max_size=3))
def test_arbitrary_mappings_never_raise_anything_but_a_refusal(values: dict[str, Any]) -> None:
    try:
        Config.from_dict(values)
    except RefusedError:
        pass
    else:
        assert not set(values) - {field.name for field in dataclasses.fields(Config)}
