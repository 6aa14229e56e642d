"""What `lnln ablate` says: the same content as table and as JSON, with what a reader has to know beside it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lnln.cli import app
from lnln.config import Config
from lnln.evaluate.systems import score_systems
from lnln.train.ablations import ABLATIONS, ablated
from tests.command import lnln
from tests.finished_run import TINY, finished_run
from tests.lnln.conftest import RunStore


@pytest.fixture
def trained(run_store: RunStore, tmp_path: Path) -> tuple[RunStore, list[str]]:
    """The two runs of the fixture as the base, and those of one ablation; the arguments that mean them."""
    base = Config.from_dict(TINY)
    sections: dict[str, Any] = {
        key: value
        for key, value in ablated(base, ABLATIONS["no_audio"]).to_dict().items()
        if key not in ("train", "tune")
    }
    for seed in (1, 2):
        finished_run(run_store.store, run_store.manifest, seed=seed, **sections)
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(base.to_dict()))  # JSON is YAML
    return run_store, ["ablate", "small", "--config", str(config), "--only", "no_audio", "--seeds"]


def test_json_has_every_metric_and_the_command_of_the_report(trained: tuple[RunStore, list[str]]) -> None:
    run_store, arguments = trained
    value = lnln(*arguments, "1,2", store=run_store.store.url).json
    assert list(value["settings"]) == ["base", "no_audio"] and value["left_out"] == {}
    assert value["high_rates"] == [0.7, 0.8, 0.9] and (value["corpus"], value["split"]) == ("small", "test")
    base, changed = value["settings"]["base"], value["settings"]["no_audio"]
    assert base["runs"] == {"1": run_store.worse, "2": run_store.better} and base["differences"] is None
    assert changed["source"] == "Table 6"
    for kind in ("differences", "high"):
        assert changed[kind].keys() == base["mean"].keys()
        for difference in changed[kind].values():
            assert difference["word"] in ("better", "worse", "no difference shown")
            assert difference["low"] <= difference["value"] <= difference["high"] and difference["seeds"] == [1, 2]
    gap = changed["mean"]["mae"]["value"] - base["mean"]["mae"]["value"]
    assert changed["differences"]["mae"]["value"] == pytest.approx(gap)
    words = shlex.split(value["report"])
    assert words[:4] == ["lnln", "--store", run_store.store.url, "report"]
    systems = score_systems(run_store.store, words[4:], ["ten_rates"])
    assert [system.title for system in systems] == ["base", "without audio"]
    assert [system.seeds for system in systems] == [(1, 2), (1, 2)]


def test_the_tables_are_of_all_rates_and_of_the_highest(trained: tuple[RunStore, list[str]]) -> None:
    run_store, arguments = trained
    shown = lnln(*arguments, "1,2", store=run_store.store.url, as_json=False)
    assert shown.code == 0, shown.err
    assert "means over ten missing rates" in shown.out and "0.7, 0.8, 0.9 alone" in shown.out
    rows = [line for line in shown.out.splitlines() if line.strip().startswith("without audio")]
    assert len(rows) == 2 and all("(" in row and " to " in row for row in rows)
    assert "another seed" not in shown.out and "lnln --store" in shown.out.splitlines()[-1]

    alone = lnln(*arguments, "2", store=run_store.store.url, as_json=False)
    assert "Intervals of a single seed do not say what another seed would change" in alone.out


def test_what_failed_is_said_beside_what_did_not(trained: tuple[RunStore, list[str]]) -> None:
    run_store, arguments = trained
    store = run_store.store
    changed = lnln(*arguments, "1,2", store=store.url).json["settings"]["no_audio"]["runs"]
    store.write(f"runs/{changed['1']}/result.json", b"{}")
    outcome = lnln(*arguments, "1,2", store=store.url)
    assert outcome.refusal == ("without audio: some seeds failed; all else is trained, and the same command continues")
    value = json.loads(outcome.out)["settings"]["no_audio"]
    assert list(value["failed"]) == ["1"] and "is damaged" in value["failed"]["1"] and list(value["runs"]) == ["2"]
    assert value["differences"]["mae"]["seeds"] == [2]
    shown = lnln(*arguments, "1,2", store=store.url, as_json=False)
    assert "without audio: seed 1 failed: " in shown.out


def test_nothing_to_show_is_no_table(trained: tuple[RunStore, list[str]]) -> None:
    run_store, arguments = trained
    store = run_store.store
    changed = lnln(*arguments, "1", store=store.url).json["settings"]["no_audio"]["runs"]
    for run_id in (changed["1"], run_store.worse):
        store.write(f"runs/{run_id}/result.json", b"{}")
    outcome = lnln(*arguments, "1", store=store.url, as_json=False)
    assert outcome.code == 1 and "base, without audio: some seeds failed" in outcome.err
    assert "report" not in outcome.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["ablate", "small"],
        ["ablate", "small", "--seeds", "1,1"],
        ["ablate", "small", "--seeds", "x"],
        ["ablate", "small", "--seeds", "1", "--set", "train.seed=3"],
        ["ablate", "small", "--seeds", "1", "--workers", "0"],
        ["ablate", "small", "--seeds", "1", "--parallel", "0"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--store", str(tmp_path), *arguments])
    assert done.exit_code == 2, done.output


def test_unknown_ablations_are_refused(run_store: RunStore) -> None:
    refused = lnln("ablate", "small", "--seeds", "1", "--only", "no_audio, no_dmc", store=run_store.store.url).refusal
    assert "got 'no_dmc'" in refused


def test_the_command_of_the_report_is_of_the_same_split(trained: tuple[RunStore, list[str]]) -> None:
    run_store, arguments = trained
    value = lnln(*arguments, "1", "--split", "valid", store=run_store.store.url).json
    assert value["report"].endswith(" --split valid")
