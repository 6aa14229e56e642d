"""The list of a clip folder: every clip is either tried or said to be lost, whatever the list and the folder hold."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.clips import table as clip_table
from pipelines.clips.table import ClipTable, read_clip_table
from pipelines.clips.word_times import Word
from pipelines.extractors.config import ClipConfig

HEADER = "video_id,clip_id,text,label,annotation,mode\n"


def write(folder: Path, listed: str | bytes, files: Mapping[str, bytes] | Sequence[str] = ("v/1.mp4",)) -> Store:
    """A clip folder with the label.csv `listed` and files below Raw."""
    contents = files if isinstance(files, Mapping) else dict.fromkeys(files, b"x")
    for name, data in contents.items():
        path = folder / "Raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "label.csv").write_bytes(listed if isinstance(listed, bytes) else listed.encode())
    return Store(folder)


def read(folder: Path, listed: str | bytes, files: Mapping[str, bytes] | Sequence[str] = ("v/1.mp4",)) -> ClipTable:
    return read_clip_table(write(folder, listed, files), ClipConfig())


def lost(table: ClipTable) -> dict[str, tuple[str, str]]:
    return {row.utterance_id: (row.stage, row.reason) for row in (*table.problems, *table.unlisted)}


def test_what_a_list_says(tmp_path: Path) -> None:
    listed = HEADER + 'v,1," well, 你好 ",-0.8,Negative,train\nv,2,,,,\nw,001,"two\nlines",3,,Validation\n'
    table = read(tmp_path, listed, ["v/1.mp4", "v/2.WAV", "w/001.mkv"])
    first, second, third = table.rows
    assert (first.utterance_id, first.text, first.label, first.split) == ("v$_$1", "well, 你好", -0.8, "train")
    assert (second.utterance_id, second.text, second.label, second.split) == ("v$_$2", None, None, "unassigned")
    assert (third.utterance_id, third.text, third.label, third.split) == ("w$_$001", "two\nlines", 3.0, "valid")
    assert [file.path for row in table.rows for file in row.files] == ["Raw/v/1.mp4", "Raw/v/2.WAV", "Raw/w/001.mkv"]
    assert table.label_range == (-3.0, 3.0) and table.labelled_modalities == () and not lost(table)
    assert table.counts == {
        "clips": 3,
        "rows_repeated": 0,
        "clips_with_several_files": 0,
        "files_beside_clips": 0,
        "files_unlisted": 0,
    }


@pytest.mark.parametrize("begin", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_mark_and_ends_of_lines(tmp_path: Path, begin: bytes, end: str) -> None:
    listed = begin + (HEADER + "v,1,hi,1,,test\n").replace("\n", end).encode()
    assert [row.split for row in read(tmp_path, listed).rows] == ["test"]


@pytest.mark.parametrize(
    ("mode", "split"),
    [
        ("train", "train"),
        (" TRAIN ", "train"),
        ("valid", "valid"),
        ("Dev", "valid"),
        ("val", "valid"),
        ("test", "test"),
        ("nan", "unassigned"),
        ("", "unassigned"),
        ("unassigned", "unassigned"),
    ],
)
def test_modes(tmp_path: Path, mode: str, split: str) -> None:
    assert read(tmp_path, HEADER + f"v,1,hi,1,,{mode}\n").rows[0].split == split


@pytest.mark.parametrize(("label", "value"), [("", None), ("nan", None), ("NaN", None), ("0", 0.0), ("+1e-1", 0.1)])
def test_labels(tmp_path: Path, label: str, value: float | None) -> None:
    assert read(tmp_path, HEADER + f"v,1,hi,{label},,train\n").rows[0].label == value


def test_labels_of_each_modality_make_it_ch_sims(tmp_path: Path) -> None:
    listed = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\nv,1,hi,0.6,1,,-1.0,Positive,train\n"
    table = read(tmp_path, listed)
    assert table.label_range == (-1.0, 1.0) and table.labelled_modalities == ("text", "vision")
    assert table.rows[0].modality_labels == {"text": 1.0, "vision": -1.0}
    wrong = listed.replace("-1.0", "2")
    sims = read_clip_table(write(tmp_path, wrong), ClipConfig(label_range=(-1.0, 1.0)))
    reason = "label_V is 2, expected -1 to 1; clips.label_range states another scale"
    assert lost(sims) == {"v$_$1": ("table", reason)}
    wide = read_clip_table(write(tmp_path, wrong), ClipConfig(label_range=(-3.0, 3.0)))
    assert wide.label_range == (-3.0, 3.0) and len(wide.rows) == 1


def test_columns_are_found_however_they_are_capitalised(tmp_path: Path) -> None:
    table = read(tmp_path, "Video_ID,Clip_ID,Text,Label,LABEL_T,Annotation,Mode\nv,1,hi,0.6,0.5,,Valid\n")
    (row,) = table.rows
    assert (row.text, row.label, row.split, row.modality_labels) == ("hi", 0.6, "valid", {"text": 0.5})


def test_a_list_of_mosi_with_the_columns_of_ch_sims_keeps_its_scale(tmp_path: Path) -> None:
    header = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
    mosi = [-2.4, 0.6, 3.0, -0.2, 1.8]
    blank = read(tmp_path / "blank", header + "".join(f"v,{i},hi,{y},,,,,train\n" for i, y in enumerate(mosi)))
    filled = read(
        tmp_path / "filled", header + "".join(f"v,{i},hi,{y},{y},{y},{y},,train\n" for i, y in enumerate(mosi))
    )
    assert blank.label_range == filled.label_range == (-3.0, 3.0)
    assert blank.labelled_modalities == () and len(filled.labelled_modalities) == 3
    sims = "".join(f"v,{i},hi,{i / 40},{i / 40},,,,train\n" for i in range(40))
    one_mistake = read(tmp_path / "sims", header + sims + "v,40,hi,5,0.2,,,,train\n")
    assert one_mistake.label_range == (-1.0, 1.0)


def test_a_label_that_is_rounded_above_the_end_of_the_scale(tmp_path: Path) -> None:
    assert read(tmp_path, HEADER + "v,1,hi,3.00005,,train\n").rows[0].label == 3.00005


@pytest.mark.parametrize(
    ("row", "stage", "reason"),
    [
        ("v,1,hi,much,,train", "table", "label must be a number or blank, got 'much'"),
        ("v,1,hi,1_0,,train", "table", "label must be a number"),
        ("v,1,hi,inf,,train", "table", "label must be a number"),
        (
            "v,1,hi,3.2,,train",
            "table",
            "label is 3.2, expected -3 to 3; clips.label_range states another scale",
        ),
        ("v,1,hi,1e999,,train", "table", "label must be a number"),
        ("v,1,hi,1e99,,train", "table", "label is 1e+99"),
        ("v,1,hi,1,,trian", "table", "mode must be train, valid, test or blank, got 'trian'"),
        ("v,1,hi,there,1,,train", "table", "line 2 has 7 fields for 6 columns; a text with commas"),
        ("v,1,hi", "table", "line 2 has 3 fields for 6 columns"),
        ("v,2,hi,1,,train", "file", "there is no Raw/v/2.*"),
        ("../v,1,hi,1,,train", "table", "video_id must be the name of a file or folder, got '../v'"),
        ("..,1,hi,1,,train", "table", "video_id must be"),
        ("v,../1,hi,1,,train", "table", "clip_id must be"),
        ("v,.1,hi,1,,train", "table", "clip_id must be"),
        ("/etc,passwd,hi,1,,train", "table", "video_id must be"),
        ("v\\..,1,hi,1,,train", "table", "video_id must be"),
        (",1,hi,1,,train", "table", "video_id must be the name of a file or folder, got ''"),
        ("v,,hi,1,,train", "table", "clip_id must be"),
        ("v\0,1,hi,1,,train", "table", "video_id must be"),
    ],
)
def test_a_row_that_is_wrong_costs_its_clip_and_no_other(tmp_path: Path, row: str, stage: str, reason: str) -> None:
    table = read(tmp_path, HEADER + f"{row}\nw,9,fine,1,,train\n", ["v/1.mp4", "w/9.mp4"])
    assert [good.utterance_id for good in table.rows] == ["w$_$9"]
    (problem,) = table.problems
    assert problem.stage == stage and problem.reason.startswith(reason), problem
    assert table.counts["clips"] == 2


def test_a_row_listed_again_is_used_once_and_counted(tmp_path: Path) -> None:
    table = read(tmp_path, HEADER + "v,1,hi,1,A,train\n v ,1,hi , 1,B,train\nv,1,hi,1,A,train\n")
    assert len(table.rows) == 1 and table.counts["rows_repeated"] == 2 and table.counts["clips"] == 1


@pytest.mark.parametrize(
    ("other", "column"), [("ho,1,,train", "text"), ("hi,2,,train", "label"), ("hi,1,,test", "mode")]
)
def test_rows_that_contradict_each_other(tmp_path: Path, other: str, column: str) -> None:
    table = read(tmp_path, HEADER + f"v,1,hi,1,,train\nv,1,hi,1,,train\nv,1,{other}\n")
    assert not table.rows
    assert lost(table) == {"v$_$1": ("table", f"listed in lines 2 and 4 with another {column}")}
    assert table.counts["rows_repeated"] == 1 and table.counts["clips"] == 1


def test_two_clips_that_would_have_one_id(tmp_path: Path) -> None:
    files = ["a$_$b/c.mp4", "a/b$_$c.mp4"]
    table = read(tmp_path, HEADER + "a$_$b,c,hi,1,,train\na,b$_$c,hi,1,,train\n", files)
    assert lost(table) == {"a$_$b$_$c": ("table", "listed in lines 2 and 3 with another video_id")}


def test_numbers_are_names(tmp_path: Path) -> None:
    table = read(
        tmp_path, HEADER + "v,1,a,1,,train\nv,01,b,1,,train\nv,1.5,c,1,,train\n", ["v/1.mp4", "v/01.mp4", "v/1.5.avi"]
    )
    assert [row.files[0].path for row in table.rows] == ["Raw/v/1.mp4", "Raw/v/01.mp4", "Raw/v/1.5.avi"]
    assert not lost(table)


def test_files_of_one_clip(tmp_path: Path) -> None:
    files = ["v/1.wav", "v/1.MP4", "v/1.srt", "v/1.jpg", "w/2.dat", "w/3"]
    table = read(tmp_path, HEADER + "v,1,hi,1,,train\nw,2,hi,1,,train\nw,3,hi,1,,train\n", files)
    assert [[file.path for file in row.files] for row in table.rows] == [
        ["Raw/v/1.MP4", "Raw/v/1.wav"],
        ["Raw/w/2.dat"],
        ["Raw/w/3"],
    ]
    assert table.counts["clips_with_several_files"] == 1 and table.counts["files_beside_clips"] == 2


def test_files_that_no_clip_can_be_read_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_table, "MAX_FILE_BYTES", 5)
    files = {"v/1.mp4": b"", "v/2.mp4": b"123456", "v/3.mp4": b"", "v/3.wav": b"x"}
    table = read(tmp_path, HEADER + "v,1,hi,1,,train\nv,2,hi,1,,train\nv,3,hi,1,,train\n", files)
    assert lost(table) == {
        "v$_$1": ("file", "Raw/v/1.mp4 is empty"),
        "v$_$2": ("file", "Raw/v/2.mp4 has 6 bytes; cut it into clips of 5 at most"),
    }
    assert [file.path for file in table.rows[0].files] == ["Raw/v/3.wav"]
    assert table.counts["files_beside_clips"] == 1


def test_files_that_are_not_listed(tmp_path: Path) -> None:
    files = [
        "v/1.mp4",
        "v/2.mp4",
        "loose.mp4",
        "v/deep/1.mp4",
        ".hidden/1.mp4",
        "v/.1.mp4",
        "v/Thumbs.db",
        "v/.DS_Store",
    ]
    table = read(tmp_path, HEADER + "v,1,hi,1,,train\n", files)
    reason = ("table", "not in label.csv")
    assert lost(table) == dict.fromkeys(["Raw/loose.mp4", "Raw/v/2.mp4", "Raw/v/deep/1.mp4"], reason)
    assert table.counts["files_unlisted"] == 3 and table.counts["clips"] == 1 and not table.problems


def test_names_in_another_unicode_form(tmp_path: Path) -> None:
    """As a Mac writes them."""
    apart = unicodedata.normalize("NFD", "Café")
    table = read(tmp_path, HEADER + "Café,né,hi,1,,train\n", [f"{apart}/{unicodedata.normalize('NFD', 'né')}.mp4"])
    assert [row.utterance_id for row in table.rows] == ["Café$_$né"] and not lost(table)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    store = write(tmp_path, HEADER + "v,1,hi,1,,train\n")
    odd = os.fsencode(tmp_path / "Raw" / "v") + b"/\xff.mp4"
    Path(os.fsdecode(odd)).write_bytes(b"x")
    table = read_clip_table(store, ClipConfig())
    assert list(lost(table)) == ["Raw/v/\\xff.mp4"] and len(table.rows) == 1


def test_links_are_what_they_lead_to(tmp_path: Path) -> None:
    """Corpora are large, and lie elsewhere; a link to where one came from never ends."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "v").mkdir(parents=True)
    (elsewhere / "v" / "1.mp4").write_bytes(b"x")
    (elsewhere / "one.mp4").write_bytes(b"yy")
    folder = tmp_path / "clips"
    (folder / "Raw").mkdir(parents=True)
    write(folder, HEADER + "v,1,hi,1,,train\nw,2,hi,1,,train\n", [])
    (folder / "Raw" / "v").symlink_to(elsewhere / "v")
    (folder / "Raw" / "w").mkdir()
    (folder / "Raw" / "w" / "2.mp4").symlink_to(elsewhere / "one.mp4")
    (folder / "Raw" / "w" / "broken.mp4").symlink_to(elsewhere / "nothing")
    (folder / "Raw" / "w" / "up").symlink_to(folder)
    (elsewhere / "v" / "round").symlink_to(folder / "Raw" / "w")
    (folder / "Raw" / "w" / "about").symlink_to(elsewhere / "v")
    table = read_clip_table(Store(folder), ClipConfig())
    assert [(row.files[0].path, row.files[0].num_bytes) for row in table.rows] == [
        ("Raw/v/1.mp4", 1),
        ("Raw/w/2.mp4", 2),
    ]
    assert len(table.unlisted) < 20


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ("", "has no column video_id, clip_id, text, label, its first line has nothing"),
        ("a;b\n1;2\n", "has no column video_id, clip_id, text, label, its first line has a;b"),
        (
            "video_id,clip_id,label\nv,1,2\n",
            "has no column text, its first line has video_id, clip_id, label; expected",
        ),
        (HEADER, "lists nothing below its first line"),
        (HEADER + ",,,,,\n\n", "lists nothing below its first line"),
        ("video_id,clip_id,text,label,label\nv,1,a,1,2\n", "has column label twice"),
        (HEADER + 'v,1,"never closed,1,,train\n', "line 2 is no CSV"),
        (HEADER + 'v,1,"hi" there,1,,train\n', "line 2 is no CSV"),
        (HEADER.encode() + "v,1,你好,1,,train\n".encode("gb18030"), "line 2 is not UTF-8; save it as CSV in UTF-8"),
        ((HEADER + "v,1,a,1,,train\n").encode("utf-16"), "line 1 is not UTF-8"),
        (b"\x00\xff" * 50, "is not UTF-8"),
        (HEADER + f"v,1,{'x' * 200_000},1,,train\n", "line 2 is no CSV: field larger than field limit"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, listed: str | bytes, reason: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read(tmp_path, listed)
    assert reason in str(refused.value) and str(tmp_path / "label.csv") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"there is no .*nowhere/label\.csv; .* video_id, clip_id, text, label"):
        read_clip_table(Store(tmp_path / "nowhere"), ClipConfig())
    with pytest.raises(RefusedError, match=r"no files in .*/Raw; clips lie in Raw/<video_id>/<clip_id>\.mp4"):
        read(tmp_path, HEADER + "v,1,hi,1,,train\n", [])
    with pytest.raises(RefusedError, match=r"cannot read label\.csv: Not a directory"):
        read_clip_table(Store(tmp_path / "label.csv"), ClipConfig())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["label.csv"]


WORDS = "video_id,clip_id,word,start,end\n"
ALIGNED = ClipConfig(align="words")


def test_words(tmp_path: Path) -> None:
    listed = HEADER + "v,1,hello you,1,,train\nv,2,none,1,,train\n"
    store = write(tmp_path, listed, ["v/1.mp4", "v/2.mp4"])
    (tmp_path / "words.csv").write_text(WORDS + "v,1,hello,0.1,0.5\nv,1,you,0.5,0.75\nx,9,lost,0,1\n")
    table = read_clip_table(store, ALIGNED)
    assert table.rows[0].words == (Word("hello", 0.1, 0.5), Word("you", 0.5, 0.75))
    assert lost(table) == {"v$_$2": ("table", "words.csv has no words of it, and clips.align is words")}
    assert table.counts["word_rows_of_unlisted_clips"] == 1
    assert all(not row.words for row in read_clip_table(store, ClipConfig()).rows)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("v,1,a,1,0.5\n", "words.csv line 2: 'a' must have a start and a later end"),
        ("v,1,a,-1,0.5\n", "words.csv line 2: 'a' must have a start"),
        ("v,1,a,,0.5\n", "words.csv line 2: 'a' must have a start"),
        ("v,1,a,x,0.5\n", "words.csv line 2: start must be a number or blank, got 'x'"),
        ("v,1,,0,0.5\n", "words.csv line 2 has no word"),
        ("v,1,a,0\n", "line 2 has 4 fields for 5 columns"),
        ("v,1,a,1,2\nv,1,b,0.5,2\n", "words.csv line 3: 'b' begins before the word above it"),
    ],
)
def test_words_that_cannot_be_true(tmp_path: Path, rows: str, reason: str) -> None:
    store = write(tmp_path, HEADER + "v,1,a,1,,train\n")
    (tmp_path / "words.csv").write_text(WORDS + rows)
    (problem,) = read_clip_table(store, ALIGNED).problems
    assert problem.stage == "table" and problem.reason.startswith(reason)


def test_alignment_without_words_is_refused(tmp_path: Path) -> None:
    store = write(tmp_path, HEADER + "v,1,a,1,,train\n")
    with pytest.raises(RefusedError, match=r"needs .*words\.csv with columns .* leave clips.align at none"):
        read_clip_table(store, ALIGNED)


fields = st.one_of(
    st.sampled_from(["v", "1", "../1", "", "nan", "train", "2", "-1.5", "9", 'say "hi"', "a,b", "\r\n", "\0", "​v"]),
    st.text(max_size=8),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(fields, min_size=1, max_size=8), min_size=1, max_size=8), cut=st.integers(0, 12))
def test_no_clip_disappears(tmp_path: Path, rows: list[list[str]], cut: int) -> None:
    """Whatever the rows hold: the list is refused in one line, or each id is tried or lost, once."""
    text = io.StringIO()
    csv.writer(text).writerows([HEADER.strip().split(","), *rows])
    listed = text.getvalue().encode(errors="replace")
    try:
        table = read(tmp_path, listed[: len(listed) - cut])
    except RefusedError as refused:
        assert "\n" not in str(refused)
        return
    names = [*(row.utterance_id for row in table.rows), *(row.utterance_id for row in table.problems)]
    assert len(set(names)) == len(names) == table.counts["clips"]
    assert len(names) + table.counts["rows_repeated"] <= len(rows) + 1
    for row in table.rows:
        assert row.files[0].path == "Raw/v/1.mp4" and row.utterance_id == "v$_$1"
        assert row.label is None or -3.0001 <= row.label <= 3.0001
    for problem in (*table.problems, *table.unlisted):
        assert problem.reason and problem.utterance_id.encode() and problem.reason.encode()


@pytest.mark.slow
def test_a_bucket_is_read_and_nothing_written_to_it(s3_store_url: str, tmp_path: Path) -> None:
    source = Store(s3_store_url)
    source.write("label.csv", (HEADER + "v,1,hi,1,,train\nv,2,hi,1,,train\n").encode())
    source.write("Raw/v/1.mp4", b"x")
    source.write("Raw/v/3.mp4", b"x")
    before = sorted(file.path for file in source.list_files())
    table = read_clip_table(Store(s3_store_url), ClipConfig())
    assert [(row.utterance_id, row.files[0].path) for row in table.rows] == [("v$_$1", "Raw/v/1.mp4")]
    assert lost(table) == {"v$_$2": ("file", "there is no Raw/v/2.*"), "Raw/v/3.mp4": ("table", "not in label.csv")}
    assert sorted(file.path for file in source.list_files()) == before
