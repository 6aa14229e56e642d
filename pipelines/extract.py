"""Extraction: a folder of clips becomes feature shards and a manifest.

    manifest = extract_corpus(Store("./store"), "./clips", "mine", load_extract_config())
    manifest = extract_corpus(Store("s3://bucket/lnln"), "s3://bucket/clips", "mine", config, client)

The folder's list is read here (`clips/table.py`), its files are weighed (`clips/files.py`), and clips are grouped into
jobs, one shard each. A job makes utterances of its clips and writes them (`clips/extract_shard.py`); the manifest comes
last. A clip that cannot be used goes to the quarantine table and no further. The same clips and extractors have the
same feature_id, and are not extracted twice. After a failure the same command makes what is missing.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lnln.config import fingerprint, to_dict
from lnln.data.manifest import Extraction, FeatureManifest, check_corpus_name, feature_folder
from lnln.data.quarantine import Quarantined, put_quarantine
from lnln.data.schema import STORED_SPLITS, Modality
from lnln.data.store import Store, encode_json
from lnln.data.wordpiece import UNCASED, are_chinese
from lnln.errors import RefusedError
from pipelines.clips.extract_clip import COUNTS, EXTRACT_VERSION
from pipelines.clips.extract_rows import CLEANED, Description, Limits, describe
from pipelines.clips.extract_shard import EXTRACTED, ExtractedShard, extract_shard
from pipelines.clips.files import WeighedClip, weigh
from pipelines.clips.table import ClipTable, read_clip_table
from pipelines.commit import (
    commit_recorded,
    refuse_to_replace_real,
    run_recorded,
    split_entries,
    use_again,
    whole_features,
)
from pipelines.extractors.config import ExtractConfig
from pipelines.frame_statistics import measured
from pipelines.isolate import for_this_process
from pipelines.plan import Job, Plan
from pipelines.unfinished import Unfinished

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

# Of one job: enough for few shards of many megabytes, few enough that many workers have work and a death costs little.
CLIPS_PER_SHARD = 64
CLIP_BYTES_PER_SHARD = 256 << 20
# Stands for a folder of clips that are drawn for the occasion.
SAMPLE = "sample"
_NUM_SPELLED_OUT = 3


def extract_corpus(
    store: Store,
    folder: str,
    corpus: str,
    config: ExtractConfig,
    client: Client | None = None,
    *,
    limits: Limits | None = None,
) -> FeatureManifest:
    """The features of the clips in `folder`, as corpus `corpus` of the store, and from now on the ones in use.

    folder: a folder or s3://bucket/prefix that every worker can read; `sample` stands for clips that are drawn here.
    limits: of time, and whether each clip is kept from taking others with it; no part of what features mean.

    RefusedError where the list of clips is refused, no clip can be used, an extractor's package, program or weights are
    missing, or shards cannot be written.
    """
    check_corpus_name(corpus)
    limits = limits or Limits()
    if folder != SAMPLE:
        return _extract(
            store, Store(folder), corpus, config, client, limits, {"name": _name(folder), "synthetic": False}
        )
    refuse_to_replace_real(store, corpus)
    from pipelines.clips.sample import write_sample_clips

    with TemporaryDirectory() as drawn:
        write_sample_clips(Path(drawn))
        return _extract(store, Store(drawn), corpus, config, client, limits, {"name": "drawn clips", "synthetic": True})


def _extract(
    store: Store,
    source: Store,
    corpus: str,
    config: ExtractConfig,
    client: Client | None,
    limits: Limits,
    about: Mapping[str, Any],
) -> FeatureManifest:
    """about: what the manifest says of the source beside its digest and size."""
    table = read_clip_table(source, config.clips)
    made_by = describe(config, limits)
    _warn_of_language(table, made_by)
    if table.unlisted:
        first, num = table.unlisted[0].utterance_id, len(table.unlisted)
        log.warning("%d files of %s are not in label.csv and are left out, the first is %s", num, source.url, first)
    if client is not None:  # the work is elsewhere, and extractors may be large
        for_this_process().close()
    clips, unreadable = weigh(source, table, client)
    lost = [*table.problems, *unreadable]
    identity = _identity(table, clips, lost, made_by, config)
    feature_id = fingerprint(identity)
    if (there := whole_features(store, corpus, feature_id)) is not None:
        return use_again(store, there)  # perhaps not the ones in use

    folder = feature_folder(corpus, feature_id)
    how = {"config": config, "made_by": made_by, "labelled": table.labelled_modalities, "limits": limits}
    plan = plan_extraction(store, source, folder, clips, how)
    record = Unfinished(store, folder, plan, EXTRACTED)
    results = run_recorded(plan, client, record)
    lost += [row for result in results for row in result.quarantine]
    splits = split_entries(plan, [result.shard for result in results])
    if not splits:
        record.remove()
        raise _nothing_usable(source, lost)
    counts = _counts(table, results, len(lost))
    manifest = FeatureManifest(
        corpus=corpus,
        feature_id=feature_id,
        source={
            **about,
            "sha256": hashlib.sha256(encode_json([identity["rows"], identity["lost"]])).hexdigest(),
            "num_bytes": sum(clip.num_bytes for clip in clips),
            "published_as": None,
            "decoded_by": identity["decoder"],
        },
        extractors=made_by.records,
        tokenizer=made_by.tokenizer,
        dims=made_by.dims,
        lengths={},
        label_range=table.label_range,
        statistics={},
        cleaned=_cleaned(results, made_by),
        splits=splits,
        extraction=Extraction(
            config.to_dict(), counts, put_quarantine(store, folder, [*lost, *table.unlisted]), EXTRACT_VERSION
        ),
    )
    log.info("%s: %d clips extracted, %d quarantined", folder, counts["clips_extracted"], len(lost))
    return commit_recorded(store, measured(store, manifest), record)


def _warn_of_language(table: ClipTable, made_by: Description) -> None:
    if made_by.tokenizer.name == UNCASED.name and are_chinese([row.text for row in table.rows if row.text]):
        log.warning(
            "most transcripts are Chinese, and text.tokenizer %s knows few of their characters: extract with `--set "
            "text.tokenizer=google-bert/bert-base-chinese`, and train with model.text_encoder of that name",
            UNCASED.name,
        )


def plan_extraction(
    store: Store, source: Store, folder: str, clips: Sequence[WeighedClip], how: Mapping[str, Any]
) -> Plan:
    """One job per shard, each of clips of one split in the order of the list; named `<split> <number>`.

    how: the other arguments of `extract_shard`.
    """
    jobs = []
    for split in STORED_SPLITS:
        own = [clip for clip in clips if clip.row.split == split]
        for number, group in enumerate(_groups(own)):
            arguments = {"store": store, "source": source, "folder": folder, "split": split, "clips": group, **how}
            jobs.append(Job(f"{split} {number}", extract_shard, arguments, num_steps=len(group)))
    return Plan(f"extract {folder.partition('/')[0]}", tuple(jobs))


def _groups(clips: Sequence[WeighedClip]) -> Iterator[tuple[WeighedClip, ...]]:
    """Runs of at most CLIPS_PER_SHARD clips and about CLIP_BYTES_PER_SHARD bytes, at least one clip each."""
    group: list[WeighedClip] = []
    for clip in clips:
        num_bytes = sum(other.num_bytes for other in group) + clip.num_bytes
        if group and (len(group) == CLIPS_PER_SHARD or num_bytes > CLIP_BYTES_PER_SHARD):
            yield tuple(group)
            group = []
        group.append(clip)
    if group:
        yield tuple(group)


def _identity(
    table: ClipTable,
    clips: Sequence[WeighedClip],
    lost: Sequence[Quarantined],
    made_by: Description,
    config: ExtractConfig,
) -> dict[str, Any]:
    """All that the features depend on, as JSON. Where the clips lie, and who works on them, is no part of it."""
    rows = []
    for clip in clips:
        row = {key: to_dict(value) for key, value in vars(clip.row).items() if key != "files"}
        rows.append({**row, "files": [asdict(file) for file in clip.files]})
    return {
        "rows": rows,
        "lost": [asdict(row) for row in lost],
        "label_range": list(table.label_range),
        "labelled": list(table.labelled_modalities),
        "extractors": to_dict(made_by.records),
        "clips": to_dict(config.clips),
        "decoder": made_by.decoder,
        "extract": EXTRACT_VERSION,
    }


def _counts(table: ClipTable, results: Sequence[ExtractedShard], num_lost: int) -> dict[str, int]:
    """What was met, over all clips; names that every clip is counted under are there even where it was none."""
    counts = Counter({**table.counts, **dict.fromkeys(COUNTS, 0), "clips_quarantined": num_lost})
    for result in results:
        counts.update(result.counts)
    return dict(sorted(counts.items()))


def _cleaned(results: Sequence[ExtractedShard], made_by: Description) -> dict[Modality, dict[str, int]]:
    """By the modalities of frames, values set to 0; a warning says of how many."""
    cleaned: dict[Modality, dict[str, int]] = {}
    for modality in made_by.dims:
        cleaned[modality] = {kind: sum(result.cleaned[modality][kind] for result in results) for kind in CLEANED}
        if total := sum(cleaned[modality].values()):
            log.warning("%s NaN or infinite values of %s were set to 0", f"{total:,}", modality)
    return cleaned


def _nothing_usable(source: Store, lost: Sequence[Quarantined]) -> RefusedError:
    reasons = [f"{row.utterance_id}: {row.stage}: {row.reason}" for row in lost]
    more = f"; and {len(reasons) - _NUM_SPELLED_OUT} more" if len(reasons) > _NUM_SPELLED_OUT else ""
    return RefusedError(f"no clip of {source.url} can be used ({'; '.join(reasons[:_NUM_SPELLED_OUT])}{more})")


def _name(folder: str) -> str:
    """What the folder is called, without where it lies."""
    return Store(folder).url.rstrip("/").rpartition("/")[2]
