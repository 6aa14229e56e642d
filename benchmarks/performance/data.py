"""Section `data`: import, decoding, masks and views, each beside what one would do without this project."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.performance import baselines
from benchmarks.performance.corpus import MOSEI_DIMS, MOSEI_PADDED, write_mmsa_pickle, write_mosei_sized
from benchmarks.performance.measure import Comparison, Contender, compare
from lnln.config import Config, load_config
from lnln.corruption import evaluation_views, make_many_masks
from lnln.data.manifest import FeatureManifest
from lnln.data.schema import MODALITIES, Modality, Split
from lnln.data.shards import read_lengths, read_split
from lnln.data.store import Store
from lnln.data.view_shards import write_view_shard
from pipelines.corrupt import corrupt
from pipelines.execute import dask_client
from pipelines.ingest import import_corpus
from pipelines.settings import Settings

CORPUS = "generated"
MEGA = 1e6
_ON_DASK, _HERE = "2 Dask workers", "in this process"
Lengths = Mapping[Modality, NDArray[np.int64]]

EXPLANATION = """\
Data is noise in the shapes that MMSA publishes, with log-normal lengths (means of steps for MOSI: text 14, audio 54, \
vision 64; for MOSEI: 24, 220, 220); files are warm in memory, and what is written goes to a folder store, each file \
flushed to disk (the baselines do not flush).

- *Import* counts the bytes of the pickle, with the padding that the shards no longer have. `pickle.load` alone checks \
nothing and writes nothing; the other baseline also writes the padded arrays that ours imports as Parquet by pyarrow's \
defaults. Where token ids are there, the large array `text` is not needed: ours leaves it in the file.
- *Decode* counts bytes of ragged arrays in memory. Ours also verifies each shard's SHA-256 and its values; the \
baseline holds the same columns by pyarrow's defaults (dictionary and snappy) and checks nothing.
- *Masks* counts the real steps of all modalities times ten missing rates, per second of one core. The baseline is a \
plain transcription of what the published code does: one seed set again before every modality, uniforms for all padded \
steps, once per rate; its masks are then written as `.npy` files of bool.
- *Views* is the whole stage for a corpus of MOSEI's size: ten rates of valid and test, 20 draws of train, from the \
feature shards, 2 GB whose checksums are verified, to committed manifests; the start of the Dask cluster is left \
out. The baseline draws as many masks from lengths in memory and writes `.npy` files."""


@dataclass(frozen=True)
class Sizes:
    """Utterances by split, and training draws. The defaults are CMU-MOSI's and CMU-MOSEI's numbers."""

    mosi: Mapping[Split, int] = field(default_factory=lambda: {"train": 1284, "valid": 229, "test": 686})
    mosei: Mapping[Split, int] = field(default_factory=lambda: {"train": 16_326, "valid": 1871, "test": 4659})
    num_draws: int = 20


def measure_data(
    folder: Path, repetitions: int, sizes: Sizes | None = None, *, with_dask: bool = True
) -> list[Comparison]:
    """All comparisons of the section, in `folder`, which takes up to 2.6 GB for the default sizes."""
    sizes = sizes or Sizes()
    comparisons = [
        measure_import(folder, repetitions, sizes, with_text_array=with_text_array) for with_text_array in (False, True)
    ]
    store = Store(str(folder / "store"))
    features = write_mosei_sized(store, CORPUS, sizes.mosei)
    comparisons.append(measure_decode(folder, repetitions, store, features))
    lengths = {split: split_lengths(store, features, split) for split in features.splits}
    comparisons += measure_masks(folder, repetitions, lengths["test"])
    config = load_config(None, [f"train.epochs={sizes.num_draws}", f"corruption.num_stored_draws={sizes.num_draws}"])
    comparisons += measure_views(folder, repetitions, store, lengths, config, with_dask=with_dask)
    return comparisons


def measure_import(folder: Path, repetitions: int, sizes: Sizes, *, with_text_array: bool) -> Comparison:
    path, store, converted = folder / "corpus.pkl", folder / "imported", folder / "converted"
    write_mmsa_pickle(path, sizes.mosi, with_text_array=with_text_array)
    comparison = compare(
        f"import a pickle {'with' if with_text_array else 'without'} the array `text`",
        Contender("import in this process", lambda: import_corpus(Store(str(store)), path, CORPUS), store),
        [
            Contender("pickle.load alone", lambda: baselines.load_pickle(path)),
            Contender("pickle.load, Parquet by defaults", lambda: baselines.convert_pickle(path, converted), converted),
        ],
        repetitions=repetitions,
        unit="MB",
        amount=path.stat().st_size / MEGA,
    )
    for each in (store, converted):
        shutil.rmtree(each)
    path.unlink()
    return comparison


def measure_decode(folder: Path, repetitions: int, store: Store, features: FeatureManifest) -> Comparison:
    """The split valid, which both sides return whole."""
    path = folder / "valid.parquet"
    valid = read_split(store, features, "valid")
    baselines.write_by_defaults(path, valid)
    num_bytes = sum(valid.sequences(modality).values.nbytes for modality in MODALITIES)
    del valid
    comparison = compare(
        "decode a split to ragged arrays",
        Contender("shards, verified", lambda: read_split(store, features, "valid")),
        [Contender("Parquet by defaults", lambda: baselines.read_by_defaults(path, MOSEI_DIMS))],
        repetitions=repetitions,
        unit="MB",
        amount=num_bytes / MEGA,
    )
    path.unlink()
    return comparison


def measure_masks(folder: Path, repetitions: int, lengths: Lengths) -> list[Comparison]:
    """Ten rates of one split, drawn, and drawn and written."""
    specs = evaluation_views(load_config().corruption)
    rates = [float(rate) for rate in load_config().corruption.rates if not isinstance(rate, tuple)]
    utterance_ids = [f"video{row // 10:05d}$_${row % 10}" for row in range(len(lengths["text"]))]
    ours_folder, saved = folder / "masks", folder / "saved"
    store = Store(str(ours_folder))

    def write_ours() -> None:
        masks = make_many_masks(specs, utterance_ids, lengths)
        for spec, each in zip(specs, masks, strict=True):
            write_view_shard(store, spec.view_id, "test", utterance_ids, each)

    def draw_theirs() -> None:
        for rate in rates:
            baselines.draw_masks(lengths, MOSEI_PADDED, rate)

    def write_theirs() -> None:
        for rate in rates:
            baselines.save_masks(saved, f"test-{rate}", baselines.draw_masks(lengths, MOSEI_PADDED, rate))

    num_positions = len(specs) * sum(int(lengths[modality].sum()) for modality in MODALITIES)
    drawn = compare(
        "draw masks for ten rates",
        Contender("masks", lambda: make_many_masks(specs, utterance_ids, lengths)),
        [Contender("published way", draw_theirs)],
        repetitions=repetitions,
        clock="core",
        unit="million positions",
        amount=num_positions / MEGA,
    )
    written = compare(
        "draw masks for ten rates and write them",
        Contender("view shards", write_ours, ours_folder),
        [Contender("published way, np.save", write_theirs, saved)],
        repetitions=repetitions,
        clock="core",
        unit="million positions",
        amount=num_positions / MEGA,
    )
    for each in (ours_folder, saved):
        shutil.rmtree(each)
    return [drawn, written]


def measure_views(
    folder: Path,
    repetitions: int,
    store: Store,
    lengths: Mapping[Split, Lengths],
    config: Config,
    *,
    with_dask: bool,
) -> list[Comparison]:
    """The stage `corrupt`, on two Dask workers where wanted, and in this process."""
    views, saved = folder / "store" / CORPUS / "views", folder / "saved"
    rates = [float(rate) for rate in config.corruption.rates if not isinstance(rate, tuple)]

    def save_theirs() -> None:
        for split in ("valid", "test"):
            for rate in rates:
                masks = baselines.draw_masks(lengths[split], MOSEI_PADDED, rate)
                baselines.save_masks(saved, f"{split}-{rate}", masks)
        random = np.random.default_rng(0)
        for draw in range(config.corruption.num_stored_draws):
            drawn_rates = baselines.draw_rates(random, len(lengths["train"]["text"]))
            masks = baselines.draw_masks(lengths["train"], MOSEI_PADDED, drawn_rates)
            baselines.save_masks(saved, f"train-{draw}", masks)

    here = Contender("corrupt", lambda: corrupt(store, CORPUS, config), views)
    theirs = Contender("published way, np.save, in this process", save_theirs, saved)
    name = "views of a corpus of MOSEI's size, "
    if not with_dask:
        return [compare(name + _HERE, here, [theirs], repetitions=repetitions, limit_seconds=60)]
    with dask_client(Settings(store=store.url, dask="local")) as client:
        on_dask = Contender("corrupt", lambda: corrupt(store, CORPUS, config, client), views)
        both = compare(name + _ON_DASK, on_dask, [here, theirs], repetitions=repetitions, limit_seconds=60)
    # One run of the baseline stands beside both.
    timing_here, timing_theirs = both.baselines
    return [
        replace(both, baselines=[timing_theirs]),
        replace(both, name=name + _HERE, ours=timing_here, baselines=[timing_theirs]),
    ]


def split_lengths(store: Store, features: FeatureManifest, split: Split) -> Lengths:
    """(N,) steps of each modality, from the feature shards."""
    parts = [read_lengths(store, shard)[1] for shard in features.splits[split].shards]
    return {modality: np.concatenate([part[modality] for part in parts]) for modality in MODALITIES}
