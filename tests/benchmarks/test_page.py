"""The results page: as the scores say, and nothing where there are none."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import cast

import pytest

from benchmarks.results.__main__ import PAGE, SCORES
from benchmarks.results.__main__ import PLAN as COMMITTED
from benchmarks.results.figure import curve_points, curves_digest
from benchmarks.results.page import Found, _curves, _figure_name, render, write_page
from benchmarks.results.plan import Plan, read_plan
from benchmarks.results.report import read_report, report_path
from benchmarks.results.scores import read_all, scores_path, write_scores
from benchmarks.results.search import read_search, search_path
from benchmarks.results.statistics import compare, pooled_chance, summarise
from tests.benchmarks.made_scores import CODE, PLAN, made_scores, small_plan


def tables(page: str) -> list[list[dict[str, str]]]:
    """Every table of a Markdown page, as rows by column."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n?)+", page, re.M):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()]
        assert all(len(line) == len(lines[0]) for line in lines), block
        found.append([dict(zip(lines[0], line, strict=True)) for line in lines[2:]])
    return found


def found_of(plan: Plan, *without: tuple[str, int]) -> Found:
    errors = {"clean": 0.5, "text_only": 1.5}
    return {
        (each.name, seed): made_scores(plan, each, seed, errors.get(each.name, 0.6))
        for each in plan.experiments()
        for seed in each.seeds
        if (each.name, seed) not in without
    }


def test_the_committed_page_is_of_the_committed_scores() -> None:
    plan = read_plan(COMMITTED)
    found = read_all(SCORES, plan)
    search, report = read_search(SCORES, plan), read_report(SCORES, plan)
    assert PAGE.read_text() == render(plan, found, search, report), "run `make results-table`"
    for group in plan.groups:
        if group.kind == "systems" and (curves := _curves(group, found)):
            figure = PAGE.parent / _figure_name(plan, group)
            assert curves_digest(curves) in figure.read_text(), "run `make results-table`"


def test_committed_scores_belong_to_the_plan() -> None:
    plan = read_plan(COMMITTED)
    known = {scores_path(SCORES, plan, each, seed) for each in plan.experiments() for seed in each.seeds}
    known |= {search_path(SCORES, plan), report_path(SCORES, plan)}
    assert {path for path in SCORES.glob("*/*") if not path.name.startswith(".")} <= known


def test_nothing_is_invented_where_nothing_was_run(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    page = render(plan, {})
    for rows in tables(page):
        for row in rows:
            assert not re.search(r"\d", "".join(list(row.values())[1:])), row
            assert "not yet run" in row.values()
    assert "0 of 6 trainings are scored" in page and ".svg" not in page


def test_a_system_alone_has_no_differences(tmp_path: Path) -> None:
    alone = PLAN.replace("against: text_only", "against: clean").replace(
        "      text_only: {title: text-only baseline, set: [model.name=text_only]}\n", ""
    )
    plan = small_plan(tmp_path, alone)
    assert "Paired difference" not in render(plan, {}) and "Paired difference" not in render(plan, found_of(plan))


def test_a_missing_seed_is_left_out_and_counted(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    page = render(plan, found_of(plan, ("clean", 2), ("no_audio", 1)))
    main, *_ = tables(page)
    assert [(row["system"], row["seeds"]) for row in main[:2]] == [("clean LNLN", "1"), ("text-only baseline", "2")]
    assert "±" not in main[0]["MAE"] and "±" in main[1]["MAE"]
    changes = tables(page)[-1]
    assert changes[2]["change"] == "without audio" and changes[2]["seeds"] == "–"
    assert set(list(changes[2].values())[2:]) == {"not yet run"}
    assert "4 of 6 trainings are scored" in page


def test_validation_alone_shows_no_test(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, PLAN.replace("against: text_only", "against: text_only\n    test: false"))
    main, _, cost, changes = tables(render(plan, found_of(plan)))
    assert cost[0]["validation MAE"][:1].isdigit()
    assert {main[0][column] for column in ("Acc-7", "MAE")} == {"test not yet read"}
    assert changes[0]["validation MAE"][:1].isdigit()
    assert changes[1]["validation MAE"][:1] in "+−"
    assert changes[1]["test MAE"] == "test not yet read"


def test_numbers_are_those_of_the_scores(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    found = found_of(plan)
    main, differences, mae, corr, all_missing, cost, changes = tables(render(plan, found))
    clean, text_only = ([found[name, seed].test for seed in (1, 2)] for name in ("clean", "text_only"))
    assert all(clean) and all(text_only)
    summary = summarise([each for each in clean if each], "acc7")
    assert main[0]["Acc-7"] == (
        f"{100 * summary.value:.2f} ± {100 * cast(float, summary.sd):.2f} "
        f"({100 * summary.low:.2f} to {100 * summary.high:.2f})"
    )
    assert [row["system"] for row in main[2:]] == ["predict the train mean", "predict the train median", "one class"]
    assert main[4]["MAE"] == "–" and main[2]["Corr"] == "0.000"

    assert [row["system"] for row in differences] == ["clean LNLN"], "not the reference with itself"
    by_seed = [{seed: each for seed, each in enumerate(side) if each} for side in (clean, text_only)]
    difference = compare(by_seed[0], by_seed[1], "mae")
    assert difference is not None
    assert differences[0]["MAE"] == (
        f"−{-difference.value:.3f} (−{-difference.low:.3f} to −{-difference.high:.3f}) better"
    )
    assert differences[0]["Corr"].endswith("better") and differences[0]["Acc-7"].startswith("+")

    assert list(mae[0])[1:] == ["0", "0.5", "1"] and [row["MAE"] for row in mae] == [
        "clean LNLN",
        "text-only baseline",
        "best constant of the train labels",
    ]
    expected = sum(each.by_rate[1]["mae"] for each in clean if each) / 2
    assert mae[0]["0.5"] == f"{expected:.3f}" and corr[2]["0.5"] == "0.000"
    assert all_missing[0]["MAE against predict the train mean"] == "+0.100 (0.000 to +0.200)"
    assert "Acc-2 np against one class" in all_missing[0]
    assert cost[0] == {
        "system": "clean LNLN",
        "parameters": "1.2 M",
        "seconds an epoch": "4",
        "epochs": "2",
        "best epoch": "1, 1",
        "validation MAE": cost[0]["validation MAE"],
    }

    chance = pooled_chance([[each for each in side if each] for side in (clean, text_only)], "mae")
    change = compare({1: found["no_audio", 1].test}, {1: found["clean", 1].test}, "mae", chance)  # type: ignore[dict-item]
    assert change is not None and change.counts_training
    assert changes[2]["test MAE"].startswith(f"+{change.value:.3f} (".replace("+-", "−"))
    assert changes[2]["test MAE"].endswith(change.word)


def test_a_base_stands_at_the_seeds_that_its_changes_have(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    found = found_of(plan)
    changes = tables(render(plan, found))[-1]
    assert [row["seeds"] for row in changes] == ["1", "1", "1"]
    alone, both = (summarise([found["clean", s].validation for s in seeds], "mae") for seeds in ((1,), (1, 2)))
    assert f"{alone.value:.3f}" != f"{both.value:.3f}"
    assert changes[0]["validation MAE"].startswith(f"{alone.value:.3f} (")
    assert not changes[0]["test MAE"].startswith("–") and "±" not in changes[0]["test MAE"]

    # At seed 1 the base is not yet there: seed 2 of it says nothing about the changes.
    changes = tables(render(plan, found_of(plan, ("clean", 1))))[-1]
    assert set(changes[0].values()) == {"*clean LNLN*", "–", "not yet run"}


def test_a_base_trained_for_the_group_is_no_change(tmp_path: Path) -> None:
    text = PLAN.replace(
        "    base: clean\n", "    base: clean\n    set: [train.epochs=1]\n    against: clean_1\n"
    ).replace("      no_adv", "      clean_1: {title: one epoch}\n      no_adv")
    plan = small_plan(tmp_path, text)
    page = render(plan, found_of(plan))
    changes = tables(page)[-1]
    assert [row["change"] for row in changes] == ["*one epoch*", "without the adversarial term", "without audio"]
    assert "- one epoch:" not in page and "- without audio: `model.modalities" in page


SHIPPED = PLAN.replace(
    "      clean: {title: clean LNLN}\n",
    "      clean: {title: clean LNLN, set: [train.selection=published]}\n"
    "      shipped: {title: as it ships, like: clean, selection: published}\n",
)


def test_trainings_are_counted_not_scores(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, SHIPPED)
    assert "0 of 6 trainings are scored" in render(plan, {})
    assert "6 of 6 trainings are scored" in render(plan, found_of(plan))
    assert "5 of 6 trainings are scored" in render(plan, found_of(plan, ("shipped", 2)))


def test_what_was_selected_on_test_is_not_judged(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, SHIPPED)
    found = {
        key: made_scores(plan, plan.experiment(each.experiment), each.seed, 0.5 if "shipped" in key else 1.5)
        for key, each in found_of(plan).items()
    }
    differences = tables(render(plan, found))[1]
    assert [row["system"] for row in differences] == ["clean LNLN", "as it ships"]
    for column, cell in differences[1].items():
        assert column == "system" or re.fullmatch(r"[+−][\d.]+ \(\S+ to \S+\)", cell), cell
    assert differences[0]["MAE"].endswith("no difference shown")


def test_the_page_names_the_code_that_made_its_scores(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    found = dict(found_of(plan))
    assert "Fingerprints of the code" not in render(plan, {})
    found["clean", 1] = dataclasses.replace(found["clean", 1], code="older")
    assert (
        f"Fingerprints of the code that made them: {', '.join(f'`{each}`' for each in sorted(['older', CODE]))}."
        in (render(plan, found))
    )


def test_pages_and_figures_are_the_same_bytes_again(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    for (name, seed), scores in found_of(plan).items():
        write_scores(scores_path(tmp_path / "scores", plan, plan.experiment(name), seed), scores)
    written = []
    for folder in ("first", "second"):
        write_page(plan, tmp_path / "scores", tmp_path / folder / "results.md")
        written.append({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {"results.md", "results-tiny.svg"}
    figure = written[0]["results-tiny.svg"].decode()
    assert "clean LNLN" in figure and "best constant" in figure and "<dc:date>" not in figure
    curves = _curves(plan.groups[0], read_all(tmp_path / "scores", plan))
    assert curves_digest(curves) in figure
    assert "](results-tiny.svg)" in written[0]["results.md"].decode()


def test_curves_end_where_everything_is_missing(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    found = found_of(plan)
    scored = [found["clean", seed] for seed in (1, 2)]
    points = curve_points(scored, "mae")
    assert [point[0] for point in points] == [0, 0.5, 1]
    ends = [each.all_missing.rate_intervals["mae"][0] for each in scored if each.all_missing]
    assert list(points[2][2:]) == pytest.approx([(a + b) / 2 for a, b in zip(*ends, strict=True)])
