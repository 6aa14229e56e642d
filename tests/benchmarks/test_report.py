"""The report on the main systems: of the runs that there are, of nobody's utterances, on the page as it is stored."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.results.page import render
from benchmarks.results.plan import Plan
from benchmarks.results.report import (
    MainReport,
    is_report_missing,
    make_report,
    read_report,
    report_names,
    report_path,
    wants_report,
    without_report,
    write_report,
)
from benchmarks.results.report_section import report_section
from benchmarks.results.run import run_plan
from lnln.data.manifest import FeatureManifest
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.report.data import ReportData
from lnln.report.score_tables import highest_table
from lnln.report.tables import to_markdown
from tests.benchmarks.made_scores import small_plan
from tests.benchmarks.test_page import tables
from tests.finished_run import finished_run, small_corpus
from tests.lnln.report.made_report import made_corpus, made_report, made_system

PLAN = """
corpus: tiny
config: sample
set: [model.text_encoder=tiny, model.hidden_dim=16, model.num_heads=2, model.head_dim=8, model.num_tokens=2]
mask_seeds: [0]
groups:
  main:
    kind: systems
    title: Main systems
    seeds: [1, 2]
    against: text_only
    experiments:
      clean: {title: 'clean LNLN, a=b'}
      text_only: {title: text-only baseline, set: [model.name=text_only]}
  ablations:
    kind: changes
    title: What it needs
    seeds: [1]
    base: clean
    experiments:
      no_adversarial: {title: without the adversarial term, set: [loss.adversarial=0]}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return small_plan(tmp_path, PLAN)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    return Store(tmp_path / "store")


@pytest.fixture
def manifest(store: Store, tmp_path: Path) -> FeatureManifest:
    return small_corpus(store, tmp_path, "tiny")


def finish(plan: Plan, store: Store, manifest: FeatureManifest, name: str, seed: int) -> str:
    config = plan.experiment(name).config(seed)
    values = {key: value for key, value in config.to_dict().items() if key not in ("train", "tune")}
    return finished_run(store, manifest, seed, train=config.to_dict()["train"], **values)


def made_main_report(reference: str = "text-only baseline") -> MainReport:
    systems = [made_system(reference, seeds=(1, 2)), made_system("clean LNLN, a=b", seeds=(1, 2))]
    data = made_report(made_corpus(*systems, corpus="tiny", differences={"clean LNLN, a=b": (-0.2, 0.1)}))
    return MainReport(data.without_utterances(), "ab" * 32, "cd" * 32, "c0de")


def test_runs_that_there_are_are_reported(plan: Plan, store: Store, manifest: FeatureManifest, tmp_path: Path) -> None:
    assert not is_report_missing(plan, store, tmp_path), "nothing is trained"
    with pytest.raises(RefusedError, match="ONLY=main"):
        make_report(plan, store, tmp_path)
    clean = finish(plan, store, manifest, "clean", 1)
    assert report_names(plan, store, tmp_path) == [] and not is_report_missing(plan, store, tmp_path), (
        "no reference yet"
    )
    references = [finish(plan, store, manifest, "text_only", seed) for seed in (1, 2)]
    finish(plan, store, manifest, "no_adversarial", 1)
    assert report_names(plan, store, tmp_path) == [
        f"clean LNLN, a=b={clean}",
        *(f"text-only baseline={run_id}" for run_id in references),
    ]
    assert is_report_missing(plan, store, tmp_path)
    make_report(plan, store, tmp_path)
    assert not is_report_missing(plan, store, tmp_path) and is_report_missing(plan, store, tmp_path, "other code")
    made = read_report(tmp_path, plan, manifest)
    assert made is not None and made.corpus.reference == "text-only baseline"
    assert {system.title: len(system.trainings) for system in made.corpus.models} == {
        "clean LNLN, a=b": 1,
        "text-only baseline": 2,
    }
    assert [system.kind for system in made.corpus.systems][-1] == "baseline", "ridge is beside them"
    assert made.corpus.suites["ten_rates"].mask_seeds == (0,)
    content = report_path(tmp_path, plan).read_text()
    assert not [name for name in read_split(store, manifest, "test").utterance_id if name in content]
    # One training more, and it is of others than there are.
    finish(plan, store, manifest, "clean", 2)
    assert is_report_missing(plan, store, tmp_path)
    make_report(plan, store, tmp_path)
    assert report_path(tmp_path, plan).read_text() != content
    make_report(plan, store, tmp_path / "again")
    assert report_path(tmp_path / "again", plan).read_bytes() == report_path(tmp_path, plan).read_bytes()


def test_it_is_made_without_the_corpus_where_nothing_else_is_wanted(
    plan: Plan, store: Store, manifest: FeatureManifest, tmp_path: Path
) -> None:
    where = (plan, tmp_path / "plan.yaml")
    with pytest.raises(RefusedError, match=r"DATA=mosi\.pkl"):
        run_plan(*where, None, Path(store.url), tmp_path / "scores", num_jobs=1, only="main,report")
    with pytest.raises(RefusedError, match="no group or experiment 'reports'"):
        run_plan(*where, None, Path(store.url), tmp_path / "scores", num_jobs=1, only="reports")


@pytest.mark.slow
def test_one_command_makes_it(plan: Plan, store: Store, manifest: FeatureManifest, tmp_path: Path) -> None:
    finish(plan, store, manifest, "text_only", 1)
    where = (plan, tmp_path / "plan.yaml", None, Path(store.url), tmp_path / "scores")
    run_plan(*where, num_jobs=1, only="report")
    made = read_report(tmp_path / "scores", plan, manifest)
    assert made is not None and [system.title for system in made.corpus.models] == ["text-only baseline"]


def test_only_names_it_among_others(plan: Plan) -> None:
    assert wants_report(plan, None) and wants_report(plan, "main, report") and not wants_report(plan, "main")
    assert without_report(None) is None
    assert without_report("report") == "" and without_report("main, report") == "main"
    assert not wants_report(dataclasses.replace(plan, groups=plan.groups[1:]), None), "no systems, no report"


def test_what_is_stored_is_read_again(plan: Plan, tmp_path: Path) -> None:
    made = made_main_report()
    assert read_report(tmp_path, plan) is None
    write_report(report_path(tmp_path, plan), made)
    found = read_report(tmp_path, plan)
    assert found is not None and found.code == "c0de"
    again = report_path(tmp_path / "again", plan)
    write_report(again, found)
    assert again.read_bytes() == report_path(tmp_path, plan).read_bytes(), "rounding once is rounding for good"


@pytest.mark.parametrize(
    "made",
    [
        made_main_report(reference="another"),
        dataclasses.replace(made_main_report(), data=made_report(made_corpus(made_system("text-only baseline")))),
    ],
)
def test_a_report_on_other_systems_is_none_of_the_plan(plan: Plan, tmp_path: Path, made: MainReport) -> None:
    write_report(report_path(tmp_path, plan), made)
    assert read_report(tmp_path, plan) is None


def test_other_data_and_damage_are_refused(plan: Plan, tmp_path: Path) -> None:
    path = report_path(tmp_path, plan)
    write_report(path, made_main_report())
    with pytest.raises(RefusedError, match=r"report\.json is of data with SHA-256 abababababab, this is ffffffffffff"):
        read_report(tmp_path, plan, source_sha256="ff" * 32)
    assert read_report(tmp_path, plan, source_sha256="ab" * 32) is not None
    values = json.loads(path.read_text())
    damaged = [
        "{",
        "[]",
        json.dumps({**values, "report": {}}),
        json.dumps({key: value for key, value in values.items() if key != "code"}),
        json.dumps({**values, "report": {**values["report"], "corpora": []}}),
        json.dumps({**values, "report": {**values["report"], "corpora": 2 * values["report"]["corpora"]}}),
    ]
    for content in damaged:
        path.write_text(content)
        with pytest.raises(RefusedError, match=r"report\.json .*ONLY=report"):
            read_report(tmp_path, plan)
    path.write_text(json.dumps({**values, "format": 0}))
    assert read_report(tmp_path, plan) is None, "of another version"


def test_the_page_answers_the_open_question(plan: Plan) -> None:
    made = made_main_report()
    text = "\n\n".join(report_section(plan, made))
    assert text.index("The paper leaves open") < text.index("## Absent modalities") < text.index("## Robustness")
    assert "clean LNLN, a=b is shown to be better in MAE, worse in Corr, worse in Acc-7 and worse in Acc-2 np." in text
    assert to_markdown(highest_table(made.corpus, "ten_rates")).rstrip("\n") in text
    rows = next(rows for rows in tables(text) if "MAE, difference" in rows[0])
    assert [row["system"] for row in rows] == ["text-only baseline", "clean LNLN, a=b"]
    assert rows[1]["MAE, difference"].startswith("-0.200 (-0.300 to -0.100)") and rows[1]["in MAE"] == "better"
    page = render(plan, {}, None, made)
    assert text in page and page.index(text) < page.index("## What it needs")
    assert "highest missing rates" not in render(plan, {})


def test_nothing_shown_is_said_to_be_nothing(plan: Plan) -> None:
    made = made_main_report()
    corpus = made_corpus(*made.corpus.systems, corpus="tiny", differences={"clean LNLN, a=b": (-0.01, 0.1)})
    text = "\n\n".join(report_section(plan, dataclasses.replace(made, data=made_report(corpus))))
    assert "no system is shown to be better or worse than text-only baseline in any of them." in text
    assert ReportData.from_dict(made.data.to_dict()) == made.data
