"""Verbs from a corpus to its views and its simulated text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lnln.cli import show
from lnln.cli.arguments import (
    ConfigName,
    Corpus,
    Overrides,
    Seed,
)
from lnln.cli.session import Session, chosen_config


def import_(
    context: typer.Context,
    pickle: Annotated[Path, typer.Argument(help="An MMSA pickle such as unaligned_50.pkl; `sample` makes the sample.")],
    corpus: Annotated[str, typer.Option(help="What to call the corpus.")],
    text: Annotated[
        Literal["ids", "features"] | None,
        typer.Option(help="Token ids or ready-made language features; default: ids, where the pickle has them."),
    ] = None,
    tokenizer: Annotated[
        Literal["bert-base-uncased", "bert-base-chinese"] | None,
        typer.Option(help="What made the token ids; default: what transcripts, ids or labels show."),
    ] = None,
) -> None:
    """An MMSA pickle to feature shards."""
    from pipelines.execute import dask_client
    from pipelines.ingest import import_corpus, import_sample
    from pipelines.settings import Settings

    session: Session = context.obj
    with session.console.as_progress(), dask_client(Settings()) as client:
        if str(pickle) == "sample" and text != "features" and tokenizer is None and not pickle.exists():
            manifest = import_sample(session.store, corpus, client=client)
        else:
            manifest = import_corpus(session.store, pickle, corpus, client=client, text=text, tokenizer=tokenizer)
    show.corpus(session.console, manifest)


def extract(
    context: typer.Context,
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="Clips: label.csv and Raw/<video_id>/<clip_id>.<ext>, in a folder or s3://bucket/prefix; `sample` "
            "draws some.",
        ),
    ],
    corpus: Annotated[str, typer.Option(help="What to call the corpus.")],
    config: Annotated[
        str | None, typer.Option("--config", help="Extractors and their knobs, by name or .yaml path.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="One key, such as audio.name=egemaps or vision.rate_hz=5; may be repeated."),
    ] = None,
) -> None:
    """Raw clips to feature shards; what cannot be used is listed, and why.

    Extractors by modality, as in --set audio.name=egemaps:

    text: wordpiece

    audio: egemaps, librosa_sims, none, speech_encoder

    vision: face, image_encoder, none, openface

    configs: sdumc, sims; without one wordpiece, librosa_sims, face
    """
    from lnln.data.quarantine import read_quarantine
    from pipelines.execute import dask_client
    from pipelines.extract import extract_corpus
    from pipelines.extractors.config import load_extract_config
    from pipelines.settings import Settings

    session: Session = context.obj
    chosen = load_extract_config(config, overrides or [])
    there = f"./{folder}" if folder == "sample" and Path(folder).exists() else folder
    with session.console.as_progress(), dask_client(Settings()) as client:
        manifest = extract_corpus(session.store, there, corpus, chosen, client)
        left_out = read_quarantine(session.store, manifest)
    show.extraction(session.console, manifest, left_out, store_url=session.store.url)


def corrupt(
    context: typer.Context, corpus: Corpus, config: ConfigName = None, overrides: Overrides = None, seed: Seed = None
) -> None:
    """The evaluation views and the training draws of a corpus."""
    from pipelines.corrupt import corrupt as write_views
    from pipelines.execute import dask_client
    from pipelines.settings import Settings

    session: Session = context.obj
    with session.console.as_progress(), dask_client(Settings()) as client:
        views = write_views(session.store, corpus, chosen_config(corpus, config, overrides, seed), client=client)
    show.views(session.console, corpus, views)


def simulate(
    context: typer.Context,
    corpus: Corpus,
    provider: Annotated[
        str, typer.Option(help="What simulates: regressor, learned from the corpus; recognition or speech_llm.")
    ] = "regressor",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="One knob of the provider, such as num_steps=16; may be repeated."),
    ] = None,
    clips: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Of a provider that hears clips: where they lie, as `lnln extract` takes it."),
    ] = None,
) -> None:
    """What the text's features might be, judged by the audio: for models that go without text."""
    from pipelines.execute import dask_client
    from pipelines.settings import Settings
    from pipelines.simulate import simulate as simulate_corpus
    from pipelines.simulators import load_provider

    session: Session = context.obj
    chosen = load_provider(provider, overrides or [])
    with session.console.as_progress(), dask_client(Settings()) as client:
        outcome = simulate_corpus(session.store, corpus, chosen, client, clips=clips)
    show.simulation(session.console, outcome.simulation, was_there=outcome.was_there)
