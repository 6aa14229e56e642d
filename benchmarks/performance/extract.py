"""Section `extract`: clips to feature shards, beside the same extractors fed by files in between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.performance.measure import Comparison, Contender, compare
from lnln.data.store import Store
from pipelines.clips.decode import open_clip
from pipelines.clips.extract_clip import ExtractorSet, make_extractors
from pipelines.execute import dask_client
from pipelines.extract import extract_corpus
from pipelines.extractors.base import Clip
from pipelines.extractors.config import load_extract_config
from pipelines.settings import Settings

CORPUS = "drawn"
NUM_CLIPS = 24

EXPLANATION = """\
Clips are drawn: faces that speak in made-up syllables, 320 × 240 at 25 pictures a second in H.264, sound in AAC, 1.5 \
to 3 seconds each; the extractors are the default ones (librosa's 33 columns at 43 frames a second, face descriptors \
at 10 a second).

- *Clips to feature shards* is the whole of `lnln extract`: the list, the SHA-256 of every file, decoding and \
extraction in a child process, shards, statistics, manifest and card. One process works at a time, so clips a second \
are clips a second *and core*. The baseline does what the field's tools do: it writes the sound of each clip to a WAV \
file and every picture to a JPEG file, reads them again, and gives them to the same extractors; it checks nothing, \
survives nothing and writes no features.
- *Decode*, *audio* and *vision alone* are the parts, each beside all of them together: one divided by the ratio is \
the part's share; audio and vision alone decode what they need themselves. Looking for faces is most of the work of \
these extractors, on both sides, so that decoding once saves little beside it."""


def measure_extract(
    folder: Path, repetitions: int, num_clips: int = NUM_CLIPS, *, with_dask: bool = True
) -> list[Comparison]:
    """All comparisons of the section, in `folder`, which takes about 1 MB a clip."""
    # Of the extra `media`: the page can be written without it.
    from benchmarks.performance.file_clip import through_files
    from pipelines.clips.sample import write_sample_clips

    clips, store = folder / "clips", folder / "store"
    write_sample_clips(clips, num_clips)
    config = load_extract_config()
    extractors = make_extractors(config)
    contents = [path.read_bytes() for path in sorted((clips / "Raw").glob("*/*"))]

    def extract() -> None:
        extract_corpus(Store(str(store)), str(clips), CORPUS, config)

    here = Contender("extract", extract, store)
    files = folder / "files"
    theirs = Contender("through files", lambda: through_files(contents, extractors, files), files)
    amount = float(len(contents))
    whole = compare(
        "clips to feature shards, one core", here, [theirs], repetitions=repetitions, unit="clips", amount=amount
    )
    comparisons = [whole, *measure_parts(contents, extractors, repetitions)]
    if with_dask:
        with dask_client(Settings(store=str(store), dask="local")) as client:

            def extract_on_dask() -> None:
                extract_corpus(Store(str(store)), str(clips), CORPUS, config, client)

            both = compare(
                "clips to feature shards, 2 Dask workers",
                Contender("extract", extract_on_dask, store),
                [replace(here, title="in this process")],
                repetitions=repetitions,
                unit="clips",
                amount=amount,
            )
        comparisons.append(both)
    return comparisons


def measure_parts(contents: list[bytes], extractors: ExtractorSet, repetitions: int) -> list[Comparison]:
    """The parts of the work on a clip, each beside all of them."""

    def decode(clip: Clip) -> None:
        for _ in clip.pictures(extractors.vision.rate_hz):
            pass
        clip.sound(22_050)

    def both(clip: Clip) -> None:
        extractors.audio.extract(clip)
        extractors.vision.extract(clip)

    def over_all(work: object) -> None:
        assert callable(work)
        for data in contents:
            with open_clip(data, "clip.mp4", max_seconds=600) as clip:
                work(clip)

    parts = {"decode": decode, "audio": extractors.audio.extract, "vision": extractors.vision.extract}
    return [
        compare(
            f"{name} alone",
            Contender(name, lambda work=work: over_all(work)),  # type: ignore[misc]
            [Contender("audio and vision, decoded once", lambda: over_all(both))],
            repetitions=repetitions,
            clock="core",
            unit="clips",
            amount=float(len(contents)),
        )
        for name, work in parts.items()
    ]
