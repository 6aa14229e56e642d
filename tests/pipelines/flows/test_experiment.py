"""The `experiment` flow, on an API of the test's own: study, run, evaluation, published model, report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.testing.utilities import prefect_test_harness

from lnln.config import load_config
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.runs import load_run
from pipelines.flows.experiment import compare, experiment
from tests.finished_run import TINY, small_corpus
from tests.made_study import PAPER, complete
from tests.tuning.test_choose import PARAMETERS, SEEDS, stored_study, trained
from tuning.record import load_study
from tuning.select import best_config, best_trial


@pytest.fixture(scope="module")
def api() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Path of a config that trains for seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "train": {"batch_size": 16, "epochs": 2}, "tune": {"epochs": 1}}))
    return str(path)


def written_at(store: Path) -> dict[str, int]:
    """When each run was finished."""
    return {str(path): path.stat().st_mtime_ns for path in store.glob("runs/*/result.json")}


@pytest.mark.slow
def test_from_a_corpus_to_a_published_model(
    api: None, tmp_path: Path, config: str, capfd: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    small_corpus(store, tmp_path)
    capfd.readouterr()
    space = {"adversarial": {"low": 0.1, "high": 2}, "dropout": {"low": 0, "high": 0.5, "scale": "linear"}}
    made = experiment("small", config=config, store=store.url, num_trials=2, space=space, publish_as="small-lnln")
    assert capfd.readouterr().out == ""

    study, run = load_study(store, made["study_id"]), load_run(store, made["run_id"])
    assert study.space.to_dict().keys() == space.keys()
    assert [trial.state for trial in study.trials] == ["complete"] * 2
    best = best_trial(study)
    assert run.config.fingerprint() == best_config(load_config(config), study).fingerprint()
    assert run.config.model.dropout == best.parameters["dropout"]
    assert made["model"] == "small-lnln@v1"
    report = Path(made["report"])
    assert report == tmp_path / "store" / "reports" / "small-lnln" / "index.html"
    assert {"index.md", "scores.csv", "scores.json", "tables"} <= {path.name for path in report.parent.iterdir()}
    assert (report.parent / "tables" / "ten_rates-mae.tex").is_file()

    page = tmp_path / "store" / "reports" / made["study_id"] / "index.html"
    assert made["study_report"] == str(page) and made["study_id"] in page.read_text()
    assert (page.parent / "trials.csv").is_file()

    with get_client(sync_client=True) as client:
        assert {flow_run.name for flow_run in client.read_flow_runs()} == {"experiment on small"}
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="%-small")))
        texts = {
            artifact.key: str(artifact.data) for artifact in found if artifact.key and artifact.key.endswith("-small")
        }
        (said,) = [artifact.description for artifact in found if artifact.key == "study-small"]
    assert texts.keys() == {"study-small", "experiment-small", "curve-small", "progress-train-small"}
    assert texts["curve-small"].startswith("data:image/svg+xml;base64,")
    assert "0 (configured)" in texts["study-small"]
    assert said is not None and f"trial {best.number} is best of 2 complete" in said
    assert [line.split("|")[1].strip() for line in texts["experiment-small"].splitlines()[4:8]] == [
        "0",
        "0.5",
        "0.9",
        "mean",
    ]

    written = written_at(tmp_path / "store")
    again = experiment("small", config=config, store=store.url, num_trials=2, space=space, publish_as="small-lnln")
    assert again == made  # all of it is done: nothing is trained, published or scored again
    assert written_at(tmp_path / "store") == written

    keys = {"adversarial": "loss.adversarial", "dropout": "model.dropout"}
    overrides = [f"{keys[name]}={value!r}" for name, value in best.parameters.items()]
    alone = experiment("small", config=config, overrides=overrides, store=store.url)
    assert alone == {**made, "study_id": None, "study_report": None, "model": None, "report": alone["report"]}
    assert alone["report"] == f"{store.url}/reports/{made['run_id']}/index.html"


@pytest.mark.slow
def test_what_cannot_be_is_refused(api: None, tmp_path: Path, config: str) -> None:
    url = str(tmp_path / "store")
    with pytest.raises(RefusedError, match="absent"):
        experiment("absent", config=config, store=url)
    with pytest.raises(RefusedError, match="no config called"):
        experiment("absent", config="nothing", store=url)
    small_corpus(Store(url), tmp_path)
    with pytest.raises(RefusedError, match="1 trial or more"):
        experiment("small", config=config, store=url, num_trials=-1)
    with pytest.raises(RefusedError, match="unknown parameter 'speed'"):
        experiment("small", config=config, store=url, num_trials=1, space={"speed": {"low": 1, "high": 2}})
    assert not (tmp_path / "store" / "runs").exists()


@pytest.mark.slow
def test_only_parameters_that_are_shown_to_be_better_are_taken(api: None, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    manifest = small_corpus(store, tmp_path)
    trained(store, manifest, PAPER, [3.0, 3.1, 2.9])
    trained(store, manifest, PARAMETERS[1], [0.2, 0.1, 0.3])
    better = stored_study(store, manifest)
    assert compare(store.url, better.study_id, list(SEEDS), 1) == {"trial": 1, "parameters": PARAMETERS[1]}
    trained(store, manifest, PARAMETERS[2], [2.0, 3.4, 2.9])
    trials = (complete(0, 1.0, parameters=PAPER), complete(2, 0.9, parameters=PARAMETERS[2]))
    noise = stored_study(store, manifest, *trials, study_id="small-lnln-noise")
    assert compare(store.url, noise.study_id, list(SEEDS), 1) == {"trial": None, "parameters": PAPER}
