"""`make bench`: its statistics by hand, its baselines by what they must return, the whole of it on tiny sizes."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.performance import __main__ as command
from benchmarks.performance import baselines, sections
from benchmarks.performance.corpus import MOSEI_DIMS, MOSI_MEANS, MOSI_PADDED, draw_lengths, write_mmsa_pickle
from benchmarks.performance.data import CORPUS, Sizes, measure_data
from benchmarks.performance.measure import AnyComparison, Comparison, Contender, Peak, PeakComparison, Timing, compare
from benchmarks.performance.page import read_records, render, rows
from benchmarks.performance.record import Record, make_record, read_record, write_record
from benchmarks.performance.sections import SECTIONS, Section, choose_sections
from lnln.data.manifest import read_features
from lnln.data.sample import make_sample
from lnln.data.schema import MODALITIES
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.errors import RefusedError

TINY = Sizes({"train": 20, "valid": 6, "test": 7}, {"train": 30, "valid": 6, "test": 9}, num_draws=2)
HAND_MADE = Comparison(
    name="work",
    clock="wall",
    unit="MB",
    amount=100,
    ours=Timing("ours", [2.0, 1.0, 4.0, 2.0, 5.0], 3_000_000),
    baselines=[Timing("theirs", [4.0, 4.0, 4.0, 3.0, 1.0])],
)


def record_of(*comparisons: AnyComparison, shared: bool = False) -> Record:
    return make_record("data", list(comparisons), shared=shared)


def test_the_committed_page_is_of_the_committed_seconds() -> None:
    assert command.PAGE.read_text() == render(read_records(command.TIMINGS)), "run `make bench-table`"


def test_committed_seconds_are_of_enough_repetitions_and_say_where() -> None:
    assert {path.stem for path in command.TIMINGS.iterdir()} <= set(SECTIONS)
    for record in read_records(command.TIMINGS).values():
        for each in (each for c in record.comparisons for each in (c.ours, *c.baselines)):
            assert len(each.seconds if isinstance(each, Timing) else each.num_bytes) >= 5
        assert all(comparison.baselines for comparison in record.comparisons)
        assert record.cpu and record.num_cores > 0 and set(record.versions) >= {"python", "numpy", "pyarrow", "lnln"}


def test_a_ratio_is_paired_by_repetition() -> None:
    spread = HAND_MADE.ratio(HAND_MADE.baselines[0])  # 2, 4, 1, 1.5, 0.2
    assert (spread.median, spread.lowest, spread.highest) == (1.5, 0.2, 4.0)


def test_a_row_says_medians_and_the_spread() -> None:
    (row,) = rows(record_of(HAND_MADE))
    assert row["ours"] == "50.0 MB/s, writes 3.00 MB"
    assert row["baseline's figure"] == "25.0 MB/s"
    assert row["ratio"] == "**1.50** (0.20–4.00)"


@pytest.mark.parametrize(("limit", "said"), [(2.5, "kept"), (2.0, "not kept")])
def test_a_limit_is_judged_by_the_median(limit: float, said: str) -> None:
    timed = Comparison("stage", "wall", "", 0, HAND_MADE.ours, HAND_MADE.baselines, limit_seconds=limit)
    (row,) = rows(record_of(timed))
    assert row["work"].endswith(f"s; {said})") and row["ours"].startswith("2.00 s")


def test_contenders_take_turns_in_changing_order(tmp_path: Path) -> None:
    turns: list[str] = []
    folder = tmp_path / "out"

    def write() -> None:
        turns.append("a")
        (folder / "new").touch(exist_ok=False)  # the folder is empty again
        (folder / "new").write_bytes(b"12345")

    comparison = compare(
        "turns",
        Contender("a", write, folder),
        [Contender("b", lambda: turns.append("b")), Contender("c", lambda: turns.append("c"))],
        repetitions=3,
    )
    assert "".join(turns) == "cab" + "abc" + "bca" + "cab"  # the first round is not measured
    assert [len(each.seconds) for each in (comparison.ours, *comparison.baselines)] == [3, 3, 3]
    assert [each.num_bytes for each in (comparison.ours, *comparison.baselines)] == [5, None, None]


def test_clocks_differ() -> None:
    """Waiting takes time, and none of a core's."""
    from time import sleep

    timed = {
        clock: compare("wait", Contender("wait", lambda: sleep(0.05)), [], repetitions=1, clock=clock).ours.median()
        for clock in ("wall", "core")
    }
    assert timed["wall"] >= 0.05 > 0.04 > timed["core"]


def test_a_record_comes_back_and_names_no_machine(tmp_path: Path) -> None:
    written = record_of(HAND_MADE, shared=True)
    write_record(tmp_path, written)
    assert read_record(tmp_path, "data") == written
    text = (tmp_path / "data.json").read_text()
    assert json.loads(text)["shared"] is True
    for private in (str(Path.home()), str(tmp_path), "/tmp"):
        assert private not in text
    assert socket.gethostname() not in re.findall(r"[\w.-]+", text)
    assert "Other work ran" in render({"data": written}) and "Other work ran" not in render(
        {"data": record_of(HAND_MADE)}
    )


def test_memory_comes_back_and_is_judged_by_its_ratio(tmp_path: Path) -> None:
    ours, theirs = Peak("ours", [1, 2, 9], [3 * 10**9, 10**9, 2 * 10**9]), Peak("theirs", [0] * 3, [6 * 10**9] * 3)
    for limit, said in ((3.0, "; kept)"), (3.1, "; not kept)"), (None, "a step")):
        record = record_of(HAND_MADE, PeakComparison("a step", ours, [theirs], limit))
        write_record(tmp_path, record)
        assert read_record(tmp_path, "data") == record
        _, row = rows(record)
        assert row["work"].endswith(said) and row["ratio"] == "**3.00** (2.00–6.00)"
        assert row["ours"] == "2.00 GB (0.00 before)" and row["baseline's figure"].startswith("6.00 GB")
    with pytest.raises(ValueError, match="zip"):
        PeakComparison("a step", ours, []).ratio(Peak("fewer", [0], [1]))


def test_nothing_is_invented_where_nothing_was_run(tmp_path: Path) -> None:
    page = render(read_records(tmp_path))
    measured, arithmetic = page.split("## Scaling")
    assert "Not yet run." in measured and "|" not in measured and "|" in arithmetic


def test_sections_go_by_name() -> None:
    measurable = [name for name, section in SECTIONS.items() if not section.needs()]
    assert choose_sections(None) == measurable and choose_sections(" data") == ["data"]
    assert {"data", "training", "extract"} <= set(measurable)
    with pytest.raises(RefusedError, match=r"no section called 'speed'; ONLY takes .*data"):
        choose_sections("data,speed")


def test_the_published_masks_are_what_is_said_of_them() -> None:
    lengths = {m: np.array([3, 50, 20] * 300) for m in MODALITIES}
    padded = dict.fromkeys(MODALITIES, 60)
    masks = {rate: baselines.draw_masks(lengths, padded, rate) for rate in (0.0, 0.3, 0.7)}
    is_step = np.arange(60) < lengths["audio"][:, None]
    for rate, drawn in masks.items():
        assert (drawn["audio"] == drawn["vision"]).all()  # one seed before each modality (D5)
        assert not (drawn["audio"] & ~is_step).any()
        assert drawn["audio"].sum() / is_step.sum() == pytest.approx(1 - rate, abs=0.01)
        assert drawn["text"][:, 0].all() and drawn["text"][np.arange(900), lengths["text"] - 1].all()
    assert (masks[0.0]["vision"] == is_step).all()
    assert not (masks[0.7]["audio"] & ~masks[0.3]["audio"]).any()  # nested
    rates = {m: np.array([0.0, 1.0, 0.5] * 300) for m in MODALITIES}
    by_utterance = baselines.draw_masks(lengths, padded, rates)["audio"].sum(axis=1)
    assert (by_utterance[::3] == 3).all() and not by_utterance[1::3].any()


def test_the_baseline_reads_what_it_wrote(tmp_path: Path) -> None:
    train = make_sample().splits["train"]
    baselines.write_by_defaults(tmp_path / "train.parquet", train)
    dims = {m: train.sequences(m).values.shape[1] for m in ("audio", "vision")}
    read = baselines.read_by_defaults(tmp_path / "train.parquet", dims)  # type: ignore[arg-type]
    assert (read.utterance_id, read.raw_text) == (train.utterance_id, train.raw_text)
    for modality in MODALITIES:
        ours, theirs = train.sequences(modality), read.sequences(modality)
        assert ours.values.dtype == theirs.values.dtype
        np.testing.assert_array_equal(ours.values, theirs.values)
        np.testing.assert_array_equal(ours.offsets, theirs.offsets)


def test_the_generated_pickle_has_the_published_shapes(tmp_path: Path) -> None:
    write_mmsa_pickle(tmp_path / "made.pkl", TINY.mosi, with_text_array=True)
    content = baselines.load_pickle(tmp_path / "made.pkl")
    assert {split: len(columns["id"]) for split, columns in content.items()} == dict(TINY.mosi)
    shapes = {key: content["train"][key].shape for key in ("text", "text_bert", "audio", "vision")}
    assert shapes == {"text": (20, 50, 768), "text_bert": (20, 3, 50), "audio": (20, 375, 5), "vision": (20, 500, 20)}
    lengths = draw_lengths(np.random.default_rng(1), 20_000, MOSI_MEANS, MOSI_PADDED)
    for modality, mean in MOSI_MEANS.items():
        assert lengths[modality].mean() == pytest.approx(mean, rel=0.05)
        assert lengths[modality].min() >= 3 and lengths[modality].max() <= MOSI_PADDED[modality]


def test_the_whole_section_on_tiny_sizes(tmp_path: Path) -> None:
    comparisons = measure_data(tmp_path, 2, TINY, with_dask=False)
    assert len(comparisons) == 6
    for comparison in comparisons:
        for timing in (comparison.ours, *comparison.baselines):
            assert len(timing.seconds) == 2 and min(timing.seconds) > 0
            assert timing.num_bytes is None or timing.num_bytes > 0
    # What both sides worked on, and that ours did all of it.
    store = Store(str(tmp_path / "store"))
    features = read_features(store, CORPUS)
    valid, test = read_split(store, features, "valid"), read_split(store, features, "test")
    num_bytes = sum(valid.sequences(modality).values.nbytes for modality in MODALITIES)
    num_steps = sum(len(test.sequences(modality).values) for modality in MODALITIES)
    assert test.audio.values.shape[1] == MOSEI_DIMS["audio"] == 74
    amounts = [comparison.amount for comparison in comparisons]
    assert amounts[2:] == pytest.approx([num_bytes / 1e6, num_steps * 10 / 1e6, num_steps * 10 / 1e6, 0])
    assert len(list((tmp_path / "store" / CORPUS / "views").rglob("manifest.json"))) == 10 + TINY.num_draws
    assert {path.name for path in tmp_path.iterdir()} == {"store", "saved"}
    assert len(rows(record_of(*comparisons))) == 8


@pytest.mark.slow
def test_views_are_measured_on_dask_too(tmp_path: Path) -> None:
    on_dask, here = measure_data(tmp_path, 1, TINY)[-2:]
    assert on_dask.name.endswith("2 Dask workers") and here.name.endswith("in this process")
    assert on_dask.ours != here.ours and on_dask.ours.num_bytes == here.ours.num_bytes
    assert on_dask.baselines == here.baselines and len(here.baselines) == 1


def run_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, fails: bool) -> tuple[int, str, list[Path]]:
    """Exit code and output of `run` with a section that needs no time, and the folders that it was given."""
    used = []

    def measure(folder: Path, repetitions: int) -> list[Comparison]:
        used.append(folder)
        (folder / "large").write_bytes(b"1" * 1000)
        if fails:
            raise OSError("no space left")
        assert repetitions == 5
        return [HAND_MADE]

    monkeypatch.setitem(sections.SECTIONS, "data", Section("Data", "What is what.", measure))
    arguments = [
        "run",
        "--only",
        "data",
        "--shared",
        "--timings",
        str(tmp_path / "t"),
        "--page",
        str(tmp_path / "p.md"),
    ]
    result = CliRunner().invoke(command.app, arguments)
    return result.exit_code, result.stdout, used


def test_a_run_shows_keeps_and_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, output, used = run_command(monkeypatch, tmp_path, fails=False)
    assert code == 0 and "**1.50** (0.20–4.00)" in output
    assert (tmp_path / "p.md").read_text() == render(read_records(tmp_path / "t"))
    assert "**1.50** (0.20–4.00)" in (tmp_path / "p.md").read_text()
    assert used and not used[0].exists()


def test_a_failure_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, _, used = run_command(monkeypatch, tmp_path, fails=True)
    assert code == 1 and used and not used[0].exists()
    assert not (tmp_path / "t").exists() and not (tmp_path / "p.md").exists()


def test_fewer_than_five_repetitions_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(command.app, ["run", "--repetitions", "4", "--timings", str(tmp_path)])
    assert result.exit_code == 2 and not list(tmp_path.iterdir())
