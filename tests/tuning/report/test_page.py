"""The page: whole, closed to the network and to text from outside, the same each time, and there for any study."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lnln.config import load_config
from lnln.data.store import Store
from lnln.errors import RefusedError
from tests.tuning.report.drawn_study import SPACE, Scores, drawn_study
from tests.tuning.report.test_verdict import made_choice
from tuning.choice import save_choice
from tuning.record import State, Study, save_study, study_folder
from tuning.report import study_report
from tuning.select import best_config
from tuning.space import Range, Space

CSV_FILES = {"trials.csv", "importances.csv", "interactions.csv", "stability.csv", "curves.csv"}
VOID = {"meta", "br", "path", "rect"}


class Page(HTMLParser):
    """What a page holds; fails where tags do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID or not self.get_starttag_text().endswith("/>"):  # type: ignore[union-attr]
            self.open += [tag] if tag != "meta" else []
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing that is open"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)
            if {"td", "th"} & set(self.open):
                self.tables[-1][-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def by_adversarial(parameters: Scores) -> float:
    return 1 + abs(parameters["adversarial"] - 0.4)


def mixed(number: int) -> State:
    return "failed" if number % 7 == 3 else "pruned" if number % 5 == 4 else "complete"


def written(study: Study, tmp_path: Path, **more: Any) -> tuple[Path, Page]:
    store = Store(tmp_path / "store")
    save_study(store, study)
    path = study_report(store, study.study_id, tmp_path / "report", num_resamples=2, **more)
    page = Page(path.read_text())
    require_closed(path.read_text(), page)
    return path, page


def require_closed(text: str, page: Page) -> None:
    """Nothing is loaded, nothing runs but the page's own script, every drawing can be told to who does not see it."""
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert not {"src", "srcset", "style", "xlink:href", "action", "data"} & set(attributes)
    assert all(":" not in (link["href"] or "") for link in page.of("a"))
    assert not {"link", "img", "iframe", "object", "form", "base", "use", "image"} & {tag for tag, _ in page.tags}
    assert "url(" not in text and "@import" not in text
    assert len(page.of("script")) == len(page.of("style")) == len(page.of("h1")) == 1
    policy = next(each["content"] for each in page.of("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256("".join(page.texts[tag]).encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    for drawing in page.of("svg"):
        assert drawing.get("aria-hidden") == "true" or (drawing.get("role") == "img" and drawing["aria-label"])
    assert len(page.of("figure")) == len(page.of("figcaption"))
    assert all(attributes.get("scope") == "col" for attributes in page.of("th"))
    for rows in page.tables:
        assert len({len(row) for row in rows}) == 1, "a row has more or fewer cells than its heading"
    assert "nan" not in re.findall(r"[\w.]+", " ".join(attributes.get("d") or "" for attributes in page.of("path")))


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_a_report_is_whole(tmp_path: Path) -> None:
    space = Space({**SPACE.ranges, "reversal_strength": Range(0.1, 2.0)})
    study = drawn_study(40, by_adversarial, space=space, state=mixed, seeds=(1, 2), seed_noise=0.02)
    path, page = written(study, tmp_path)
    assert path == tmp_path / "report" / "index.html"
    assert {entry.name for entry in path.parent.iterdir()} == {"index.html", "best.yaml", *CSV_FILES}
    headings = page.texts["h2"]
    assert headings == [
        "Be careful",
        "Trials",
        "What matters",
        "Where it is good",
        "Stability of the adversarial term",
        "How to read this",
        "How to go on",
    ]
    text = path.read_text()
    assert text.index('class="verdict"') < text.index("<h2>"), "the verdict comes first"
    # History, curves, three bar charts, four slices, six contours, parallel coordinates, two of stability.
    assert len(page.of("figure")) == 2 + 3 + 4 + 6 + 1 + 2
    assert {link["href"] for link in page.of("a")} == {"best.yaml", *CSV_FILES}
    trials = page.tables[0]
    assert len(trials) == 41 and [row[0] for row in trials[1:]].count("0 (configured)") == 1
    scores = [float(row[2]) for row in trials[1:] if row[2]]
    assert scores == sorted(scores) and len(scores) == len(study.of_state("complete"))
    assert "lnln choose sample-lnln-0123456789ab --seeds 2111,2112,2113" in "".join(page.texts["pre"])


def test_what_programs_read_is_what_the_record_has(tmp_path: Path) -> None:
    study = drawn_study(30, by_adversarial, state=mixed, seeds=(1, 2), seed_noise=0.02)
    path, _ = written(study, tmp_path)
    rows = read_csv(path.parent / "trials.csv")
    assert [int(row["number"]) for row in rows] == list(range(30))
    for row, trial in zip(rows, study.trials, strict=True):
        assert float(row["adversarial"]) == trial.parameters["adversarial"] and row["state"] == trial.state
        assert row["validation_mae"] == ("" if trial.state != "complete" else repr(trial.values["mae"]))
        assert row["reason"] == (trial.reason or "") and row["has_diverged"] == str(trial.has_diverged)
    importances = read_csv(path.parent / "importances.csv")
    assert len(importances) == 6 and {row["method"] for row in importances} == {"fANOVA", "PED-ANOVA"}
    assert all(0 <= float(row["share"]) <= 1 and row["num_resamples"] == "2" for row in importances)
    assert len(read_csv(path.parent / "interactions.csv")) == 3
    stability = read_csv(path.parent / "stability.csv")
    ended = [trial for trial in study.trials if trial.state != "interrupted"]
    assert sum(int(row["num_trials"]) for row in stability if row["outcome"] == "failed") == len(ended)
    curves = read_csv(path.parent / "curves.csv")
    assert len(curves) == sum(len(result.valid_mae_by_epoch) for trial in study.trials for result in trial.seeds)
    best = load_config(str(path.parent / "best.yaml"))
    assert best == best_config(study.trained_config(), study)


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    study = drawn_study(20, by_adversarial, state=mixed, seeds=(1, 2), seed_noise=0.02)
    (tmp_path / "a").mkdir()
    first, _ = written(study, tmp_path / "a")
    second = study_report(Store(tmp_path / "a" / "store"), study.study_id, tmp_path / "b", num_resamples=2)
    for entry in first.parent.iterdir():
        assert entry.read_bytes() == (second.parent / entry.name).read_bytes(), entry.name
    # Over an earlier report of a longer study too.
    shorter = dataclasses.replace(study, trials=study.trials[:9])
    save_study(Store(tmp_path / "a" / "store"), shorter)
    third = study_report(Store(tmp_path / "a" / "store"), study.study_id, tmp_path / "b", num_resamples=2)
    assert third.read_bytes() != first.read_bytes() and len(read_csv(third.parent / "trials.csv")) == 9


# One whose config a later version stored, which this one cannot read.
LATER = drawn_study(12, by_adversarial)
LATER = dataclasses.replace(LATER, config={**LATER.config, "later": {}}, sampler={}, versions={})


def all_of(state: State, num_trials: int) -> Study:
    return drawn_study(num_trials, state=lambda _: state)


@pytest.mark.parametrize(
    "study",
    [
        drawn_study(0),
        drawn_study(1),
        drawn_study(2),
        *(all_of(state, num_trials) for state in get_args(State) for num_trials in (1, 12)),
        drawn_study(12, by_adversarial, space=Space({"adversarial": SPACE.ranges["adversarial"]})),
        drawn_study(12, lambda _: 1.0, space=Space({"completeness": SPACE.ranges["completeness"]})),
        drawn_study(12, lambda _: 1.0),
        drawn_study(12, lambda _: 1.0, seeds=(1, 2)),
        drawn_study(2, objectives={"mae@clean": "minimize", "mae@corrupted": "minimize"}),
        drawn_study(9, lambda parameters: 1e9 * parameters["adversarial"]),
        LATER,
        dataclasses.replace(
            drawn_study(12, by_adversarial),
            trials=tuple(
                dataclasses.replace(trial, parameters={}, is_configured=False)
                for trial in drawn_study(12, state=lambda _: "interrupted").trials
            ),
        ),
    ],
)
def test_few_trials_give_a_page(study: Study, tmp_path: Path) -> None:
    path, page = written(study, tmp_path)
    assert {entry.name for entry in path.parent.iterdir()} >= CSV_FILES
    assert "What matters" in page.texts["h2"]
    assert (path.parent / "best.yaml").exists() == bool(study.of_state("complete") and study is not LATER)
    assert len(read_csv(path.parent / "trials.csv")) == len(study.trials)


states = st.lists(st.sampled_from(get_args(State)), max_size=14)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    states,
    st.sampled_from([(1,), (1, 2)]),
    st.sampled_from([0.0, 0.05]),
    st.sampled_from([["mae"], ["acc7"], ["mae@clean", "mae@corrupted"], ["mae", "acc7", "mae@clean"]]),
    st.sampled_from([["adversarial"], ["completeness", "adversarial"], list(SPACE.ranges)]),
    st.integers(0, 10),
)
def test_any_study_gives_a_page(
    tmp_path: Path,
    states: list[State],
    seeds: tuple[int, ...],
    noise: float,
    objectives: list[str],
    names: list[str],
    draw: int,
) -> None:
    study = drawn_study(
        len(states),
        by_adversarial,
        space=Space({name: SPACE.ranges[name] for name in names}),
        seeds=seeds,
        seed_noise=noise,
        objectives={name: "maximize" if name == "acc7" else "minimize" for name in objectives},
        state=lambda number: states[number],
        draw=draw,
    )
    _, page = written(study, tmp_path)
    assert ("Front" in page.texts["h2"]) == (len(objectives) > 1 and "complete" in states)


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</style><script>x</script>",
    "</title><b>x",
    "`<b>x</b>`",
    "a\x00b\u2028c\u202e",
    "&lt;b&gt; &#60;",
    "javascript:alert(1)",
    "]]>--><!--",
    "=1+1",
    'a,b\n"c"',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_stays_text(text: str, tmp_path: Path) -> None:
    study = drawn_study(12, by_adversarial, state=mixed)
    trials = [dataclasses.replace(trial, reason=text) for trial in study.trials]
    study = dataclasses.replace(
        study,
        corpus=text,
        feature_id=text,
        trials=tuple(trials),
        versions={text: text},
        sampler={"name": text, "seed": text},
        config={**study.config, "tune": {**study.config["tune"], "epochs": text}},
    )
    save_choice(Store(tmp_path / "store"), made_choice(study, 1, text))
    path, page = written(study, tmp_path)
    save_choice(Store(tmp_path / "plain" / "store"), made_choice(study, 1, "x"))
    _, expected = written(drawn_study(12, by_adversarial, state=mixed), tmp_path / "plain")
    # A code element may come of backticks; nothing else may.
    ours, theirs = ([tag for tag, _ in each.tags if tag != "code"] for each in (page, expected))
    assert [tag for tag in ours if tag != "a"] == [tag for tag in theirs if tag != "a"]
    seen = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    assert seen in " ".join(row[-1] for row in page.tables[-1] + page.tables[0] + page.tables[1] + page.tables[2])
    assert [row["reason"] for row in read_csv(path.parent / "trials.csv")] == [text] * 12


def test_a_choice_is_shown_and_one_that_cannot_be_read_costs_a_sentence(tmp_path: Path) -> None:
    study = drawn_study(12, by_adversarial)
    store = Store(tmp_path / "store")
    save_choice(store, made_choice(study, 3, "trial 3 is better than the configured parameters: so and so"))
    path, page = written(study, tmp_path)
    assert "Choice" in page.texts["h2"] and "With fresh seeds: trial 3 is better" in path.read_text()
    assert [row[0] for row in page.tables[0]] == ["setting", "configured", "trial 3"]
    assert [row[0] for row in page.tables[1]] == ["setting", "trial 3"]
    store.write(f"{study_folder(study.study_id)}/choice.json", b"{}")
    path, page = written(study, tmp_path)
    assert "Choice" not in page.texts["h2"] and "The choice is not shown" in path.read_text()
    assert "Each trial trained with one seed" in path.read_text()


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    objectives = {"mae@clean": "minimize", "mae@corrupted": "minimize"}  # one rises where the other falls
    _, page = written(drawn_study(9, by_adversarial, objectives=objectives), tmp_path)
    assert page.texts["h2"].count("Front") == 1 and "MAE, clean" in page.texts["h3"]
    front = next(rows for rows in page.tables if len(rows) == 10 and rows is not page.tables[0])
    assert {row[0] for row in front[1:]} == {"0 (configured)", *map(str, range(1, 9))}


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(RefusedError, match="no study 'absent'"):
        study_report(store, "absent", tmp_path / "report")
    assert not (tmp_path / "report").exists()
    study = drawn_study(2)
    save_study(store, study)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RefusedError, match="give another folder"):
        study_report(store, study.study_id, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_every_kind_of_trial_has_its_mark(tmp_path: Path) -> None:
    study = drawn_study(12, by_adversarial, state=mixed)
    _, page = written(study, tmp_path)
    told = "".join(page.texts["title"])
    for trial in study.trials:
        assert f"trial {trial.number}{' (configured)' if trial.is_configured else ''}: " in told
    classes = [attributes.get("class") for _, attributes in page.tags]
    shown = {kind: classes.count(kind) for kind in ("pruned", "failed", "best")}
    # In the history, three slices and three contours where there are importances, and once in each legend.
    assert shown["best"] >= 1 + 3 + 2 and shown["failed"] >= (1 + 3) * len(study.of_state("failed")) + 2
    assert shown["pruned"] >= (1 + 3) * len(study.of_state("pruned")) + 2
