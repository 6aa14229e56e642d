"""Reports from a store: the files are whole and closed, their numbers are the evaluations', and every form agrees."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lnln.config import Config, load_config
from lnln.data.manifest import commit_features, read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate_suites
from lnln.evaluate.paired import share_for
from lnln.evaluate.ridge import RIDGE
from lnln.model_store import publish
from lnln.report import ReportData, collect, files, report
from lnln.report.printed import RATES
from lnln.runs import load_run
from tests.extracted_corpus import extracted_corpus
from tests.finished_run import TINY, finished_run, small_corpus
from tests.lnln.conftest import RunStore
from tests.lnln.report.made_report import made_change, made_corpus, made_example, made_report, made_system
from tests.published_run import published_run
from tests.tuning.report.test_page import Page

TEXT_ONLY = {**TINY["model"], "name": "text_only"}


def text_only_run(run_store: RunStore, seed: int = 1) -> str:
    return finished_run(run_store.store, run_store.manifest, seed=seed, model=TEXT_ONLY)


@pytest.fixture(scope="module")
def made(
    run_store_template: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunStore, list[str], Path]]:
    """A store, models of it, and the index.html on them: two seeds of LNLN and one of another network."""
    template, worse, better = run_store_template
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(template, folder / "store")
    store = Store(folder / "store")
    run_store = RunStore(store, read_features(store, "small"), worse, better)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LNLN_CACHE", str(folder / "cache"))
        names = [worse, better, text_only_run(run_store), worse]
        yield run_store, names, report(store, names, folder / "deep" / "report")


def page_of(path: Path) -> Page:
    text = path.read_text()
    page = Page(text)
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert not {"src", "srcset", "style", "xlink:href", "action", "data"} & set(attributes)
    assert not {"link", "img", "iframe", "object", "form", "base", "use", "image"} & {tag for tag, _ in page.tags}
    assert "url(" not in text and "@import" not in text
    assert len(page.of("script")) == len(page.of("style")) == len(page.of("h1")) == 1
    for drawing in page.of("svg"):
        assert drawing.get("aria-hidden") == "true" or (drawing.get("role") == "img" and drawing["aria-label"])
    regions = [each["aria-label"] for _, each in page.tags if each.get("role") == "region"]
    assert len(regions) == len(set(regions)), "regions are told apart by their names"
    for rows in page.tables:
        assert len({len(row) for row in rows}) == 1, "a row has more or fewer cells than its heading"
    return page


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def levels(page: Page) -> list[int]:
    return [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]


def test_a_report_is_whole(made: tuple[RunStore, list[str], Path]) -> None:
    path = made[2]
    assert path.parts[-3:] == ("deep", "report", "index.html")
    folder, page = path.parent, page_of(path)
    text = path.read_text()
    assert text.index('class="verdict"') < text.index("<h2>"), "the verdict comes first"
    assert page.texts["h2"] == [
        *(["Be careful"] if "Be careful" in page.texts["h2"] else []),
        "Ten missing rates",
        "Absent modalities",
        "Ablations",
        "Which class for which",
        "What the completeness score knows",
        "Examples",
        "Robustness",
        "What was scored",
        "How to get the same",
        "How to read this",
    ]
    assert all(after - before <= 1 for before, after in zip([0, *levels(page)], levels(page), strict=False))
    assert not [entry for entry in folder.rglob("*") if entry.name.startswith(".")]
    names_of = {entry.name for entry in folder.iterdir()}
    assert {"index.html", "index.md", "scores.json", "scores.csv", "tables"} <= names_of
    assert {link["href"] for link in page.of("a")} == names_of - {"index.html", "tables"}
    forms = {entry.name for entry in (folder / "tables").iterdir()}
    stems = {name.partition(".")[0] for name in forms}
    assert forms == {f"{stem}.{ending}" for stem in stems for ending in ("csv", "md", "tex")}
    assert {"ten_rates-means", "ten_rates-mae", "absent-acc7", "highest", "trainings", "completeness"} <= stems
    assert len(page.of("table")) == len(stems)
    # Without what a form cannot have, Markdown has the same headings and tables.
    markdown = (folder / "index.md").read_text()
    assert re.findall(r"^## (.*)$", markdown, re.M) == page.texts["h2"]
    assert len(re.findall(r"^\| ---", markdown, re.M)) == len(stems) and "<svg" not in markdown


def test_everything_stored_is_read_again_and_renders_the_same(made: tuple[RunStore, list[str], Path]) -> None:
    run_store, names, path = made
    folder = path.parent
    data = ReportData.from_dict(json.loads((folder / "scores.json").read_text()))
    assert data == collect(run_store.store, names)
    for name, content in files(data).items():
        assert (folder / name).read_bytes() == content, name


def test_numbers_are_those_of_the_evaluations(made: tuple[RunStore, list[str], Path]) -> None:
    """Of two seeds: means of the two in every table, single views in scores.csv."""
    run_store, _, path = made
    scored = [evaluate_suites(run_store.store, name, ["ten_rates"]) for name in (run_store.worse, run_store.better)]
    evaluations = [each["ten_rates"] for each in scored]
    (row, *_) = read_csv(path.parent / "tables" / "ten_rates-means.csv")
    assert row["system"] == "LNLN" and row["trainings"] == "2.0"
    for metric in evaluations[0].metrics():
        expected = sum(each.mean[metric] for each in evaluations) / 2
        assert float(row[metric]) == pytest.approx(expected, abs=1e-12)
    (row, *_) = read_csv(path.parent / "tables" / "ten_rates-mae.csv")
    for place, rate in enumerate(evaluations[0].rates):
        expected = sum(each.by_rate()[place]["mae"] for each in evaluations) / 2
        assert float(row[f"at_{rate:g}"]) == pytest.approx(expected, abs=1e-12)
        assert float(row[f"at_{rate:g}_low"]) <= expected <= float(row[f"at_{rate:g}_high"])
    page = page_of(path)
    table = next(rows for rows in page.tables if rows[0][:3] == ["system", "0", "0.1"])
    assert table[1][1].startswith(f"{float(row['at_0']):.3f} ± ")

    views = [each for each in read_csv(path.parent / "scores.csv") if each["suite"] == "ten_rates"]
    assert len(views) == 4 * 30 and {each["system"] for each in views} == {"LNLN", "text only", RIDGE}
    by_view = {(each["name"], each["view_id"]): each for each in views}
    for evaluation in evaluations:
        for view in evaluation.views:
            found = by_view[evaluation.name, view.view_id]
            assert {metric: float(found[metric]) for metric in view.scores} == view.scores
            assert float(found["collapse_share"]) == view.collapse_share
            assert float(found["mean_completeness"]) == view.mean_completeness


def test_a_model_without_completeness_is_reported(run_store: RunStore, tmp_path: Path) -> None:
    path = report(run_store.store, [text_only_run(run_store)], tmp_path / "report", mask_seeds=[0])
    assert "What the completeness score knows" not in page_of(path).texts["h2"]
    assert {row["mean_completeness"] for row in read_csv(path.parent / "scores.csv")} == {""}


def test_one_model_compares_with_what_needs_none(run_store: RunStore, tmp_path: Path) -> None:
    path = report(run_store.store, [run_store.worse], tmp_path / "report", mask_seeds=[0])
    text = (path.parent / "index.md").read_text()
    assert "Against the train mean for everyone" in text and RIDGE in text and "one class" in text
    assert "## Ablations" not in text and "chance" not in text.partition("## Ten missing")[0]


def test_published_models_stand_for_their_runs(run_store: RunStore, tmp_path: Path) -> None:
    publish(run_store.store, run_store.better, "small-lnln")
    path = report(run_store.store, ["small-lnln@best"], tmp_path / "report", suites=["absent"])
    rows = read_csv(path.parent / "tables" / "trainings.csv")
    assert rows[0]["name"] == "small-lnln@v1" and rows[0]["run"] == run_store.better
    config = load_config(str(next(path.parent.glob("config-*.yaml"))))
    assert config == Config.from_dict(load_run(run_store.store, run_store.better).config.to_dict())
    commands = (path.parent / "index.md").read_text()
    assert "\nlnln evaluate small-lnln@v1 --suite absent\n" in commands
    assert "\nlnln report small-lnln@v1 --suite absent\n" in commands, "the alias may have moved"


def test_what_was_selected_on_test_is_a_system_of_its_own(run_store: RunStore, tmp_path: Path) -> None:
    run_id = published_run(run_store.store, run_store.manifest)
    path = report(run_store.store, [run_id, run_store.better], tmp_path / "report", mask_seeds=[0])
    page, text = page_of(path), (path.parent / "index.md").read_text()
    data = ReportData.from_dict(json.loads((path.parent / "scores.json").read_text()))
    shipped = next(system for system in data.corpora[0].systems if system.selection == "published")
    assert shipped.title.endswith("(selected on test)") and not shipped.is_judged
    assert data.corpora[0].reference != shipped.title
    assert f"lnln evaluate {run_id} --suite ten_rates,absent --mask-seeds 0 --selection published\n" in text
    assert shipped.note in "".join(page.texts["li"])
    for name in ("ten_rates-differences", "absent-differences"):
        row = next(each for each in read_csv(path.parent / "tables" / f"{name}.csv") if each["system"] == shipped.title)
        assert row["verdict"] == ""
    means = (path.parent / "tables" / "ten_rates-means.md").read_text()
    (line,) = [each for each in means.splitlines() if "selected on test" in each]
    assert "**" not in line, "it is the best of nothing"
    selections = {row["selection"] for row in read_csv(path.parent / "scores.csv")}
    assert selections == {"validation", "published"}


def test_a_reference_is_chosen_by_title_or_by_model(run_store: RunStore) -> None:
    other = text_only_run(run_store)
    for reference in ("words", other):
        names = [f"LNLN={run_store.worse}", f"words={other}"]
        data = collect(run_store.store, names, ["absent"], reference=reference)
        assert data.corpora[0].reference == "words"
        assert list(data.corpora[0].suites["absent"].differences) == ["LNLN", RIDGE]
    publish(run_store.store, other, "words")
    for given in ("words", "words@best", "words@v1"):
        data = collect(run_store.store, [run_store.worse, given], ["absent"], reference=given, with_examples=False)
        assert data.corpora[0].reference == "text only" and data.reference == "words@v1"
        assert data.names == (run_store.worse, "words@v1")
    with pytest.raises(RefusedError, match=r"one of the systems .* got 'nothing'"):
        collect(run_store.store, [run_store.worse], ["absent"], reference="nothing")


def test_differences_at_the_highest_rates_hold_together(made: tuple[RunStore, list[str], Path]) -> None:
    data = ReportData.from_dict(json.loads((made[2].parent / "scores.json").read_text()))
    corpus = data.corpora[0]
    view = corpus.suites["ten_rates"]
    shares = {each.share for by_metric in view.highest.values() for each in by_metric.values()}
    assert shares == {share_for(len(view.highest) * len(corpus.main_metrics))} and len(view.highest) == 2
    assert {each.share for by_metric in view.differences.values() for each in by_metric.values()} == {0.95}
    # 14 utterances.
    assert {each.word for by_metric in view.highest.values() for each in by_metric.values()} == {"no difference shown"}
    assert "14 labelled utterances are too few" in (made[2].parent / "index.md").read_text()


def test_an_earlier_report_in_the_folder_goes_and_nothing_else(run_store: RunStore, tmp_path: Path) -> None:
    folder, other = tmp_path / "report", text_only_run(run_store)
    report(run_store.store, [run_store.worse, other], folder, mask_seeds=[0])
    before = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    mine = ["tables/notes.txt", "config-mine.yaml", "tables/deep/a.csv", "notes.md"]
    for name in mine:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    report(run_store.store, [other], folder, suites=["absent"])
    report(run_store.store, [other], tmp_path / "alone", suites=["absent"])
    after, alone = (
        {path.relative_to(each).as_posix() for path in each.rglob("*") if path.is_file()}
        for each in (folder, tmp_path / "alone")
    )
    assert after == alone | set(mine) and before - alone
    # Without a report there nobody knows whose tables these are; nor with something else of its name.
    for number, content in enumerate((None, "", "[]", "{}", '{"format": 1}', "\0")):
        there = tmp_path / f"{number}"
        (there / "tables").mkdir(parents=True)
        (there / "tables" / "old.csv").write_text("mine")
        if content is not None:
            (there / "scores.json").write_text(content)
        report(run_store.store, [other], there, suites=["absent"])
        assert (there / "tables" / "old.csv").read_text() == "mine"


def test_ablations_are_of_one_corpus_and_its_features() -> None:
    change = (made_change(),)
    first = made_system("A")
    for trained_on, is_listed in (("", True), ("mosei", False), ("mosi, features f0", False)):
        second = made_system("B", changes=change, trained_on=trained_on)
        text = files(made_report(made_corpus(first, second)))["index.md"].decode()
        assert ("## Ablations" in text) == is_listed
    both = (replace(first, trained_on="mosei"), made_system("B", changes=change, trained_on="mosei"))
    assert "## Ablations" in files(made_report(made_corpus(*both)))["index.md"].decode()


def test_several_corpora_have_a_part_each(run_store: RunStore, tmp_path: Path) -> None:
    manifest = small_corpus(run_store.store, tmp_path, "other")
    other = finished_run(run_store.store, manifest)
    path = report(run_store.store, [run_store.worse, other], tmp_path / "report", mask_seeds=[0])
    page = page_of(path)
    assert [heading for heading in page.texts["h2"] if "split, features" in heading] == [
        f"small, test split, features {run_store.manifest.feature_id}",
        f"other, test split, features {manifest.feature_id}",
    ]
    assert page.texts["h3"].count("Ten missing rates") == 2
    stems = {entry.name for entry in (path.parent / "tables").glob("*.csv")}
    assert {"small-1-highest.csv", "other-2-highest.csv"} <= stems
    assert {row["corpus"] for row in read_csv(path.parent / "scores.csv")} == {"small", "other"}


def test_a_model_on_another_corpus_says_so(run_store: RunStore, tmp_path: Path) -> None:
    small_corpus(run_store.store, tmp_path, "other")
    path = report(run_store.store, [run_store.worse], tmp_path / "report", corpus="other", mask_seeds=[0])
    text = (path.parent / "index.md").read_text()
    assert "trained on small" in text.partition("## Ten missing")[0]
    assert f"lnln evaluate {run_store.worse} --suite ten_rates,absent --corpus other" in text
    assert "lnln train other" not in text
    said = f"- {RIDGE} learned from the training split of other itself, which what was trained on small did not see"
    assert said in text.partition("## Ten missing")[0]
    own = report(run_store.store, [run_store.worse], tmp_path / "own", mask_seeds=[0])
    assert f"{RIDGE} learned" not in (own.parent / "index.md").read_text()


def test_every_suite_can_be_asked_for(run_store: RunStore, tmp_path: Path) -> None:
    path = report(run_store.store, [run_store.worse], tmp_path / "report", suites=["grid", "block"], mask_seeds=[0])
    page = page_of(path)
    assert {"Rates by modality", "Lost stretches"} <= set(page.texts["h2"])
    assert not {"Ten missing rates", "Examples", "Which class for which"} & set(page.texts["h2"])
    grid = next(rows for rows in page.tables if rows[0][0] == "missing rates" and len(rows) == 28)
    assert grid[0][1] == "LNLN" and {"0", "0.5", "1", "0/0.5/1"} <= {row[0] for row in grid}
    with pytest.raises(RefusedError, match="suite of views is one of"):
        report(run_store.store, [run_store.worse], tmp_path / "r", suites=["grids"])


def test_validation_can_be_reported(run_store: RunStore, tmp_path: Path) -> None:
    path = report(run_store.store, [run_store.worse], tmp_path / "report", split="valid", suites=["absent"])
    text = (path.parent / "index.md").read_text()
    assert "small, valid split" in text and "--split valid" in text


def test_a_report_shows_what_an_extraction_met(run_store: RunStore, tmp_path: Path) -> None:
    manifest = extracted_corpus(run_store.store, tmp_path)
    other = finished_run(run_store.store, manifest)
    path = report(run_store.store, [other], tmp_path / "report", suites=["absent"])
    text = (path.parent / "index.md").read_text()
    assert "### What the extraction met" in text
    assert "| vision frames without face | 7 of 1,400 |" in text and "| rows repeated | 1 |" in text
    rows = read_csv(path.parent / "tables" / "left-out.csv")
    assert {"clip": "a/notes.txt", "stage": "table", "reason": "Raw/a/notes.txt is not in label.csv"} in rows
    page_of(path)
    assert (
        "extraction met"
        not in (
            report(run_store.store, [run_store.worse], tmp_path / "i", suites=["absent"]).parent / "index.md"
        ).read_text()
    )

    assert manifest.extraction is not None and manifest.extraction.quarantine is not None
    run_store.store.write(manifest.extraction.quarantine.path, b"damaged")
    text = (report(run_store.store, [other], tmp_path / "damaged", suites=["absent"]).parent / "index.md").read_text()
    assert "quarantine table cannot be read" in text and "| rows repeated | 1 |" in text


def test_printed_numbers_stand_beside_the_real_corpus_alone_and_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path / "store")
    run_id = finished_run(store, small_corpus(store, tmp_path, "mosi"))
    path = report(store, [run_id], tmp_path / "report", mask_seeds=[0])
    page, text = page_of(path), path.read_text()
    assert "Printed by others" in page.texts["h2"] and text.count('class="printed"') > 10
    methods = {row["method"] for row in read_csv(path.parent / "tables" / "printed.csv")}
    assert {"LNLN", "MISA"} <= methods
    for entry in (path.parent / "tables").glob("*.csv"):
        assert entry.name == "printed.csv" or "MISA" not in entry.read_text()
    assert "MISA" not in (path.parent / "scores.csv").read_text()
    data = ReportData.from_dict(json.loads((path.parent / "scores.json").read_text()))
    assert data.corpora[0].suites["ten_rates"].rates == RATES
    assert all(len(values) == 10 for line in data.corpora[0].printed for values in line.by_rate.values())
    # Not of another split, and not beside other labels.
    assert not collect(store, [run_id], mask_seeds=[0], split="valid", with_examples=False).corpora[0].printed


def test_a_corpus_that_ridge_cannot_learn_from_is_reported_without_it(run_store: RunStore, tmp_path: Path) -> None:
    splits = dict(run_store.manifest.splits)
    del splits["valid"]
    manifest = replace(run_store.manifest, corpus="halved", splits=splits)
    commit_features(run_store.store, manifest)
    run_id = finished_run(run_store.store, manifest)
    path = report(run_store.store, [run_id], tmp_path / "report", suites=["absent"])
    text = (path.parent / "index.md").read_text()
    assert f"- {RIDGE} does not stand beside the models: " in text and "'valid'" in text
    assert {row["system"] for row in read_csv(path.parent / "scores.csv")} == {"LNLN"}


def test_refusals(run_store: RunStore, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="got none"):
        report(run_store.store, [], tmp_path / "r")
    with pytest.raises(RefusedError, match="no run and no model"):
        report(run_store.store, ["nothing"], tmp_path / "r")
    assert not (tmp_path / "r").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RefusedError, match="another folder"):
        report(run_store.store, [run_store.worse], tmp_path / "file")


HOSTILE = [
    "<img src=x>",
    "a|b",
    "`x`",
    "# head",
    "[x](http://y)",
    "*b*",
    "a\n\n# b",
    "$x$",
    "\\",
    "```\n",
    "-x",
    "1. x",
    "",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_outside_text_never_becomes_markup(tmp_path: Path, name: str) -> None:
    first = made_system(name, changes=(), carries_over=(name,), trained_on=name)
    second = made_system(f"{name} 2", changes=(made_change("model.x", name, name),), seeds=(1,))
    third = made_system("ridge", kind="baseline", seeds=(None,))
    corpus = made_corpus(first, second, third, corpus=name, examples=(made_example([name], (name, name), name),))
    written = files(made_report(corpus))
    (tmp_path / "index.html").write_bytes(written["index.html"])
    page = page_of(tmp_path / "index.html")
    assert {link["href"] for link in page.of("a")} <= set(written)
    prose = re.sub(r"(`{3,})\n.*?\n\1", "", written["index.md"].decode(), flags=re.S)
    assert "<img" not in prose
    assert not re.search(r"^#+ (head|b)$", prose, re.M)
    assert "](http" not in prose.replace("\\](http", "")
    blocks = re.findall(r"(?:^\|.*\|\n)+", prose, re.M)
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block
    assert len(blocks) == len(page.of("table"))


def test_all_forms_of_a_table_have_the_numbers_of_the_report(made: tuple[RunStore, list[str], Path]) -> None:
    path = made[2]
    data = ReportData.from_dict(json.loads((path.parent / "scores.json").read_text()))
    for row in read_csv(path.parent / "tables" / "absent-mae.csv")[:3]:
        scores = data.corpora[0].system(row["system"]).scores["absent"]
        for name, estimate in zip(data.corpora[0].suites["absent"].names, scores.by_rate["mae"], strict=True):
            assert (float(row[f"at_{name}"]), float(row[f"at_{name}_low"])) == (estimate.value, estimate.low)
            for ending in ("md", "tex"):
                assert f"{estimate.value:.3f}" in (path.parent / "tables" / f"absent-mae.{ending}").read_text()


def test_a_table_of_single_trainings_does_not_say_that_it_allows_for_training(
    run_store: RunStore, tmp_path: Path
) -> None:
    single = finished_run(run_store.store, run_store.manifest, seed=1, loss={"adversarial": 0.5})
    for names, words in (
        ([run_store.worse, single], "over utterances alone, since no system has several trainings"),
        ([run_store.worse, run_store.better, single], "over utterances and trainings. Better"),
    ):
        report(run_store.store, names, tmp_path / f"{len(names)}")
        note = (tmp_path / f"{len(names)}" / "tables" / "ten_rates-differences.md").read_text()
        assert words in note, note
