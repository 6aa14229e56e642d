"""Predictions for millions of utterances: a job per feature shard, a Parquet file per job, a manifest last.

    made = predict_corpus(store, "mosi-lnln@best", "mosi", "s3://bucket/mosi-said", client=client)
    made = predict_files(store, "mosi-lnln@best", ["shards/*.parquet"], "./said")

    <out>/_request.json                       what the folder is for: one model, one source, one view
    <out>/part-<request>-<number>.parquet     a row per utterance of one shard, in its order (pipelines/predicted.py)
    <out>/_manifest.json                      last: every part, with rows, bytes and SHA-256

Readers of Parquet pass over names that begin with `_`, so `<out>` is one table for pandas, and `<out>/*.parquet` for
others. A job holds one shard in memory. The same command again makes what is missing or damaged, wherever it was
killed: a part tells whether it is whole. Of two processes that make the same part, the first one's stays.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lnln import __version__
from lnln.config import Protocol, Rate, fingerprint
from lnln.corruption import ViewSpec, format_rate
from lnln.corruption.noise import NoiseSource
from lnln.data.manifest import FeatureManifest, ShardEntry, read_features
from lnln.data.schema import STORED_SPLITS, Split, Utterances
from lnln.data.shard_files import fetch_shard
from lnln.data.shards import shard_entries
from lnln.data.simulated_shards import read_simulated_shard
from lnln.data.simulated_text import Simulation
from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError, StoreFailedError
from lnln.evaluations import evaluation_specs
from lnln.model_store.opened import OpenedModel, open_model
from lnln.model_store.simulator import text_source
from lnln.predict import COMPLETE, Predictor, check_corpus, choose_device
from pipelines.execute import run
from pipelines.found_shards import find_shards
from pipelines.plan import Job, Plan
from pipelines.predicted import encode_part, whole_rows
from pipelines.unfinished import signed

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

# Raised when the meaning of a request, a part or the manifest changes.
FORMAT = 1
REQUEST, MANIFEST = "_request.json", "_manifest.json"


@dataclass(frozen=True)
class Request:
    """What one folder of predictions is for.

    model: as it was asked for, with its version where it has one. view: the ViewSpec, None for complete utterances.
    source: the corpus with its features and splits, or how many files there are and their fingerprint.
    """

    model: str
    weights_sha256: str
    view: Mapping[str, Any] | None
    source: Mapping[str, Any]

    @property
    def request_id(self) -> str:
        """Fingerprint of all but the model's name: the same weights say the same under any."""
        return fingerprint({"format": FORMAT, **{k: v for k, v in self.to_dict().items() if k != "model"}})

    def __str__(self) -> str:
        source = self.source
        if "corpus" in source:
            said = f"{' and '.join(source['splits'])} of {source['corpus']}, features {source['manifest_digest'][:12]}"
        else:
            said = f"{source['num_files']} files, fingerprint {source['files']}"
        if self.view is not None:
            said += f", missing rate {format_rate(self.view['rates'])} of view {fingerprint(self.view)}"
        return f"{said}, by {self.model} with weights {self.weights_sha256[:12]}"

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)


@dataclass(frozen=True)
class Shard:
    """A feature shard to be predicted: the file `path` of `store`.

    source: what its rows say of where they come from. entry: what it must weigh; None where no manifest says.
    simulated: the shard of simulated text beside it, None where the model's own simulator is applied, or none is read.
    """

    source: str
    store: Store
    path: str
    entry: ShardEntry | None = None
    simulated: ShardEntry | None = None

    def read(self) -> bytes:
        """RefusedError where it is not there any more, or is not what its manifest lists."""
        if self.entry is not None:
            return fetch_shard(self.store, self.entry)
        try:
            return self.store.read(self.path)
        except FileNotFoundError:
            raise RefusedError(f"{self.store.url}/{self.path} is not there any more; put it back") from None


@dataclass(frozen=True)
class PredictedPart:
    """One file of predictions. is_new: whether it was made just now."""

    shard: ShardEntry
    is_new: bool


@dataclass(frozen=True)
class PredictedFolder:
    """Where predictions lie, and how many they are. num_new: of the parts, those that were not there before."""

    url: str
    request: Request
    num_utterances: int
    num_parts: int
    num_new: int

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "folder": self.url,
            "manifest": f"{self.url}/{MANIFEST}",
            "request_id": self.request.request_id,
            **self.request.to_dict(),
            "num_utterances": self.num_utterances,
            "num_parts": self.num_parts,
            "num_new": self.num_new,
        }


def predict_corpus(
    store: Store,
    model: str,
    corpus: str,
    out: str | None = None,
    *,
    split: str = "test",
    rate: Rate | None = None,
    mask_seed: int | None = None,
    protocol: Protocol | None = None,
    device: str | None = None,
    client: Client | None = None,
) -> PredictedFolder:
    """Predict every utterance of a split of `corpus` (`all`: of every split), by the features in use for it.

    out: a folder or s3://bucket/prefix of its own; None: one below `reports/` of the store, for this request. rate:
    what is to be missing, as `lnln evaluate` would take it away (masks and protocol are the model's own, unless
    mask_seed and protocol say others), so that the numbers are those of the evaluation; None: nothing. device: as
    Predictor's, of every worker.

    RefusedError for an unknown model, corpus or split, features that do not fit the model, a view that cannot be drawn,
    and a folder that was begun for something else: all of it before a shard is read. StageFailedError where shards
    could not be predicted; the others are.
    """
    opened = open_model(store, model)
    manifest = read_features(store, corpus)
    check_corpus(opened, manifest)
    if split == "all":
        splits = list(manifest.splits)
    elif split in STORED_SPLITS:
        splits = [split]
    else:
        raise RefusedError(f"a split is one of {', '.join(STORED_SPLITS)} or all, got {split!r}")
    texts = text_source(store, opened, manifest)
    simulation = None if texts is None else texts.simulation
    shards = [
        Shard(name, store, entry.path, entry, beside)
        for name in splits
        for entry, beside in zip(
            shard_entries(manifest, name), _simulated_entries(manifest, simulation, name), strict=True
        )
    ]
    view = choose_view(opened, rate, mask_seed, protocol)
    if view is not None and view.protocol == "noise":
        NoiseSource.of(manifest)  # refuses what it could not draw
    source = {"corpus": corpus, "manifest_digest": manifest.digest(), "splits": splits}
    if texts is not None and texts.identity:  # not what the model was trained with, which its weights stand for
        source["simulated_text"] = texts.identity
    return _predict(store, opened, source, shards, view, out, device, client, manifest)


def predict_files(
    store: Store,
    model: str,
    inputs: Sequence[str],
    out: str | None = None,
    *,
    rate: Rate | None = None,
    mask_seed: int | None = None,
    protocol: Protocol | None = None,
    device: str | None = None,
    client: Client | None = None,
) -> PredictedFolder:
    """As `predict_corpus`, for feature shards from elsewhere: those that `find_shards` finds, but for what is in `out`.

    Files of other names or sizes are another request, which another folder is for. Workers on other machines must see
    the files at the same place. RefusedError, before anything is predicted, where neither the first nor the last file
    fits the model, and for protocol noise, which needs the statistics of a corpus.
    """
    opened = open_model(store, model)
    view = choose_view(opened, rate, mask_seed, protocol)
    if view is not None and view.protocol == "noise":
        raise RefusedError(
            "noise is drawn by the statistics of a corpus, and files have none; import them as a corpus and name that, "
            "or choose another protocol"
        )
    found = find_shards(inputs, but_below=None if out is None else Store(out).url)
    shards = [Shard(shard.url, shard.store, shard.path) for shard in found]
    files = fingerprint([[shard.url, shard.num_bytes] for shard in found])
    source = {"num_files": len(found), "files": files}
    return _predict(store, opened, source, shards, view, out, device, client)


def choose_view(
    opened: OpenedModel, rate: Rate | None, mask_seed: int | None = None, protocol: Protocol | None = None
) -> ViewSpec | None:
    """The view at `rate` that `lnln evaluate` would show the model; None: complete utterances."""
    if rate is None:
        if mask_seed is not None or protocol is not None:
            raise RefusedError("a mask seed and a protocol belong to a view; say its missing rate too")
        return None
    corruption = opened.corruption if protocol is None else replace(opened.corruption, protocol=protocol)
    [view] = evaluation_specs(corruption, [rate], None if mask_seed is None else [mask_seed])
    return view


def plan_predictions(request: Request, shards: Sequence[Shard], common: Mapping[str, Any]) -> Plan:
    """One job per shard, `shard <number> of <split>` or where it lies. common: arguments that all of them have."""
    width = max(5, len(str(len(shards))))
    jobs = tuple(
        Job(
            f"shard {number} of {shard.source}" if shard.entry is not None else shard.source,
            predict_shard,
            {**common, "shard": shard, "path": f"part-{request.request_id}-{number:0{width}d}.parquet"},
            num_steps=1 if shard.entry is None else shard.entry.num_rows,
        )
        for number, shard in enumerate(shards)
    )
    return Plan(f"predict by {request.model}", jobs)


def predict_shard(
    store: Store,
    model: str,
    weights_sha256: str,
    shard: Shard,
    view: ViewSpec | None,
    features: tuple[str, str] | None,
    out: Store,
    path: str,
    device: str | None = None,
) -> PredictedPart:
    """Write the predictions for one shard to `path` of `out`, unless they are there and whole.

    features: corpus and feature_id, by which noise is drawn. RefusedError where the shard is damaged or does not fit
    the model, and where `model` means another one on this machine than `weights_sha256`.
    """
    data = None if shard.entry is not None else shard.read()
    made_of = {
        "format": FORMAT,
        "weights_sha256": weights_sha256,
        "view": None if view is None else view.to_dict(),
        "source": shard.source,
        "shard_sha256": shard.entry.sha256 if shard.entry is not None else hashlib.sha256(data or b"").hexdigest(),
        **({} if shard.simulated is None else {"simulated_sha256": shard.simulated.sha256}),
    }
    there = _content(out, path)
    if there is not None and (num_rows := whole_rows(there, made_of)) is not None:
        return PredictedPart(_entry(path, there, num_rows), is_new=False)
    predictor = _open_predictor(store, model, weights_sha256, device)
    utterances = predictor.decode(shard.read() if data is None else data, f"{shard.store.url}/{shard.path}")
    data = None
    if shard.simulated is not None:
        utterances = _with_simulated_text(store, shard.simulated, predictor, utterances)
    noise = _noise_source(store, *features) if view is not None and view.protocol == "noise" and features else None
    said = predictor.predict_columns(utterances, view or COMPLETE, noise)
    made = encode_part(shard.source, utterances, said, predictor.label_range, made_of)
    # What another process wrote meanwhile stays if it is whole, since that process has told its digest.
    stored = out.update(path, lambda there: made if there is None or whole_rows(there, made_of) is None else there)
    return PredictedPart(_entry(path, stored, len(utterances)), is_new=stored == made)


def _simulated_entries(
    manifest: FeatureManifest, simulation: Simulation | None, split: Split
) -> tuple[ShardEntry | None, ...]:
    """The shard of simulated text beside each shard of the features."""
    entries = shard_entries(manifest, split)
    if simulation is None:
        return (None,) * len(entries)
    found = simulation.splits[split].shards if split in simulation.splits else ()
    if [entry.num_rows for entry in found] != [entry.num_rows for entry in entries]:
        raise RefusedError(
            f"simulated text {simulation.simulation_id} of corpus {manifest.corpus} is not of the same utterances as "
            f"split {split} of its features; run `lnln simulate {manifest.corpus}` again"
        )
    return found


def _with_simulated_text(store: Store, entry: ShardEntry, predictor: Predictor, utterances: Utterances) -> Utterances:
    """RefusedError where the shard is damaged, or of other utterances."""
    rows = read_simulated_shard(store, entry, predictor.simulated_text_dim)
    if rows.utterance_id != utterances.utterance_id:
        raise RefusedError(
            f"{store.url}/{entry.path} has simulated text of other utterances than the features beside it; run "
            f"`lnln simulate {entry.path.partition('/')[0]}` again"
        )
    return replace(utterances, simulated_text=rows.steps)


def _predict(
    store: Store,
    opened: OpenedModel,
    source: Mapping[str, Any],
    shards: Sequence[Shard],
    view: ViewSpec | None,
    out: str | None,
    device: str | None,
    client: Client | None,
    features: FeatureManifest | None = None,
) -> PredictedFolder:
    request = Request(opened.reference, opened.weights_sha256, None if view is None else view.to_dict(), source)
    there = Store(f"{store.url}/reports/predictions-{request.request_id}" if out is None else out)
    # A folder is the same one from wherever a worker was started.
    model = str(opened.folder.absolute()) if opened.reference == str(opened.folder) else opened.reference
    common = {
        "store": store,
        "model": model,
        "weights_sha256": opened.weights_sha256,
        "view": view,
        "features": None if features is None else (features.corpus, features.feature_id),
        "out": there,
        "device": device,
    }
    plan = plan_predictions(request, shards, common)
    try:
        if client is None:
            choose_device(device)  # refuses what is not here
        if features is None:
            where = device if client is None else "cpu"
            _check_files(_open_predictor(store, model, opened.weights_sha256, where), shards)
        _begin(there, request)
        made: list[PredictedPart] = run(plan, client)
    finally:
        _opened_predictor.cache_clear()  # of this process
    parts = [part.shard for part in made]
    content = {
        "format": FORMAT,
        **request.to_dict(),
        "label_range": list(opened.features["label_range"]),
        "num_utterances": sum(part.num_rows for part in parts),
        "parts": [{"source": shard.source, **asdict(part)} for shard, part in zip(shards, parts, strict=True)],
        "code_version": __version__,
    }
    there.write_json(MANIFEST, signed(content))
    num_new = sum(part.is_new for part in made)
    log.info("%s: %d parts made, %d there already", there.url, num_new, len(parts) - num_new)
    return PredictedFolder(there.url, request, content["num_utterances"], len(parts), num_new)


def _check_files(predictor: Predictor, shards: Sequence[Shard]) -> None:
    """RefusedError where neither the first nor the last is what the model takes; one that is damaged is not all."""
    refusals = []
    for shard in dict.fromkeys((shards[0], shards[-1])):
        try:
            predictor.decode(shard.read(), f"{shard.store.url}/{shard.path}")
            return
        except StoreFailedError:  # which says nothing of the files
            raise
        except RefusedError as error:
            refusals.append(error)
    raise refusals[0]


def _begin(out: Store, request: Request) -> None:
    """RefusedError where `out` was begun for another request."""
    mine = encode_json({"request_id": request.request_id, "asked_for": str(request)})
    stored = out.update(REQUEST, lambda there: mine if there is None else there)
    try:
        theirs = json.loads(stored)
        request_id, asked_for = theirs["request_id"], theirs["asked_for"]
    except (ValueError, TypeError, KeyError) as error:
        raise RefusedError(f"{out.url}/{REQUEST} is damaged; remove that folder, or name another") from error
    if request_id != request.request_id:
        raise RefusedError(
            f"{out.url} holds predictions of {asked_for}; asked for are those of {request}; name another folder"
        )


_opening = threading.Lock()


def _open_predictor(store: Store, model: str, weights_sha256: str, device: str | None) -> Predictor:
    """The same one for the jobs of a process, be it that several threads want it at once."""
    with _opening:
        return _opened_predictor(store, model, weights_sha256, device)


@lru_cache(maxsize=1)
def _opened_predictor(store: Store, model: str, weights_sha256: str, device: str | None) -> Predictor:
    predictor = Predictor.open(store, model, device)
    if (found := predictor.opened.weights_sha256) != weights_sha256:
        raise RefusedError(
            f"{model} has weights {found[:12]}… here, and {weights_sha256[:12]}… where it was asked for; let all "
            "machines see the same model"
        )
    return predictor


@lru_cache(maxsize=1)
def _noise_source(store: Store, corpus: str, feature_id: str) -> NoiseSource:
    return NoiseSource.of(read_features(store, corpus, feature_id))


def _content(store: Store, path: str) -> bytes | None:
    try:
        return store.read(path)
    except FileNotFoundError:
        return None


def _entry(path: str, data: bytes, num_rows: int) -> ShardEntry:
    return ShardEntry(path, num_rows, len(data), hashlib.sha256(data).hexdigest())
