"""Simulated text: what the features of a transcript might be, judged by the audio; a column beside the features.

    simulation = read_simulation(store, "mosi", features.feature_id)         # the one in use
    utterances = add_simulated_text(store, simulation, "test", utterances)   # utterances.simulated_text
    load_simulator(store, simulation).simulate(audio)                        # of a new utterance

    <corpus>/simulated/<feature_id>/<simulation_id>/manifest.json         Simulation, written last
    <corpus>/simulated/<feature_id>/<simulation_id>/<split>/part-….parquet    see `simulated_shards.py`
    <corpus>/simulated/<feature_id>/<simulation_id>/simulator/…           weights of what was learned
    <corpus>/simulated/<feature_id>/current.json                          the simulation_id in use
    <corpus>/simulated/<feature_id>/index.json                            the simulation_ids that are whole

`lnln simulate CORPUS` makes it (`pipelines/simulate.py`). Like views it is joined by row, so features stay untouched.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lnln.data.manifest import LengthSummary, ShardEntry, SplitEntry, check_corpus_name
from lnln.data.name_list import add_name, read_names
from lnln.data.read_ahead import read_ahead
from lnln.data.regressor import DESCRIPTION, NAME, WEIGHTS, Regressor, load_regressor
from lnln.data.schema import STORED_SPLITS, FeatureSpec, Split, Utterances
from lnln.data.simulated_shards import SimulatedRows, read_simulated_shard
from lnln.data.store import Store, encode_json
from lnln.data.verify import is_intact
from lnln.errors import RefusedError, StoreFailedError

# Raised when the meaning of a manifest or the layout of a shard changes.
FORMAT = 1


@dataclass(frozen=True)
class SimulatorFile:
    """One file of a learned simulator: where it lies under the store, and what it must weigh."""

    path: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Simulation:
    """The simulated text of the features `feature_id`, utterance for utterance, shard for shard.

    provider: what made it: name, version, knobs, models (by the knob that names each: its files' sha256); all of it is
    in the simulation_id. dim: width of a step. lengths: steps, by split. files: by name, of a learned simulator.
    quality: of one that is learned, how much of the text's features the audio tells, by split. counts: what was met.
    """

    corpus: str
    feature_id: str
    simulation_id: str
    provider: Mapping[str, Any]
    dim: int
    lengths: Mapping[Split, LengthSummary]
    splits: Mapping[Split, SplitEntry]
    files: Mapping[str, SimulatorFile]
    quality: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        return simulation_folder(self.corpus, self.feature_id, self.simulation_id)

    def digest(self) -> str:
        """SHA-256 of the content, as it stands in the file."""
        return _digest(_content(self))


def simulation_folder(corpus: str, feature_id: str, simulation_id: str) -> str:
    return f"{_parent(corpus, feature_id)}/{simulation_id}"


def put_simulator_file(store: Store, folder: str, name: str, data: bytes) -> SimulatorFile:
    """Write a file of a learned simulator under `folder`, by a name that says its content."""
    sha256 = hashlib.sha256(data).hexdigest()
    stem, dot, ending = name.partition(".")
    file = SimulatorFile(f"{folder}/simulator/{stem}-{sha256[:12]}{dot}{ending}", len(data), sha256)
    store.write(file.path, data)
    return file


def commit_simulation(store: Store, simulation: Simulation, *, anew: bool = False) -> Simulation:
    """Make a simulation exist, and the one in use for its features. Its shards and files must be written before.

    Returns the one in force: that of an earlier commit of the same simulation_id, where there was one. anew: this one,
    since what the earlier one names was found damaged, and has been written again.
    """
    committed = _commit(store, simulation, anew)
    parent = _parent(simulation.corpus, simulation.feature_id)
    add_name(store, f"{parent}/index.json", simulation.simulation_id)
    current = encode_json({"simulation_id": simulation.simulation_id})
    store.update(f"{parent}/current.json", lambda _: current)
    return committed


def read_simulation(store: Store, corpus: str, feature_id: str, simulation_id: str = "") -> Simulation:
    """The simulation `simulation_id` of the features, or with "" the one in use.

    RefusedError where there is none, or its manifest is damaged.
    """
    parent = _parent(corpus, feature_id)
    chosen = simulation_id or _current(store, corpus, parent)
    if not _is_id(chosen):
        raise RefusedError(f"a simulation is named by twelve hexadecimal digits, got {chosen!r}; see {_make(corpus)}")
    simulation = _read(store, f"{parent}/{chosen}/manifest.json", corpus)
    if simulation is None:
        there = ", ".join(list_simulations(store, corpus, feature_id)) or "none"
        raise RefusedError(
            f"store {store.url} holds no simulated text {chosen} of corpus {corpus!r}, features {feature_id} (it has "
            f"{there}); run {_make(corpus)} with the options that made it"
        )
    return simulation


def list_simulations(store: Store, corpus: str, feature_id: str) -> list[str]:
    """The ids of the simulations that exist for these features, sorted."""
    return read_names(store, f"{_parent(corpus, feature_id)}/index.json")


def add_simulated_text(store: Store, simulation: Simulation, split: Split, utterances: Utterances) -> Utterances:
    """`utterances`, all of `split` in corpus order, with their simulated text.

    RefusedError where the simulation is of other utterances, or a shard is missing or damaged.
    """
    if split not in simulation.splits:
        raise RefusedError(
            f"simulated text {simulation.simulation_id} of corpus {simulation.corpus!r} has no split {split!r}, it has "
            f"{', '.join(simulation.splits)}; run {_make(simulation.corpus)} again"
        )
    entries = simulation.splits[split].shards
    rows = SimulatedRows.concatenate(
        list(read_ahead(lambda entry: read_simulated_shard(store, entry, simulation.dim), entries))
    )
    if rows.utterance_id != utterances.utterance_id:
        pairs = zip(rows.utterance_id, utterances.utterance_id, strict=False)
        same = min(len(rows.steps), len(utterances))
        row = next((row for row, (one, other) in enumerate(pairs) if one != other), same)
        raise RefusedError(
            f"{store.url}/{simulation.folder} has simulated text of {len(rows.steps)} utterances of split {split}, "
            f"expected those of the features, {len(utterances)} (row {row} is the first to differ); run "
            f"{_make(simulation.corpus)} again"
        )
    return replace(utterances, simulated_text=rows.steps)


def with_simulation(spec: FeatureSpec, simulation: Simulation) -> FeatureSpec:
    """`spec` with what a model must know of the simulated text."""
    longest = max((lengths.max for lengths in simulation.lengths.values()), default=0)
    return replace(spec, simulated_text_dim=simulation.dim, simulated_text_length=longest)


def damaged_simulation_files(store: Store, simulation: Simulation) -> list[str]:
    """Paths of shards and files that are missing or not as the manifest states; empty where all is well."""
    listed = listed_simulation_files(simulation)
    intact = read_ahead(lambda entry: is_intact(store, entry.path, entry.num_bytes, entry.sha256), listed)
    return [entry.path for entry, is_whole in zip(listed, intact, strict=True) if not is_whole]


def listed_simulation_files(simulation: Simulation) -> list[ShardEntry | SimulatorFile]:
    """All that `simulation` names: the shards in order, then the files of its simulator."""
    shards = [shard for split in simulation.splits.values() for shard in split.shards]
    return [*shards, *simulation.files.values()]


def load_simulator(store: Store, simulation: Simulation) -> Regressor:
    """What was learned, for audio that is in no corpus: an object with `.simulate(audio)`.

    RefusedError where a file is damaged, or the simulation is of speech: then the sound is needed, not its features.
    """
    _require_learned(str(simulation.provider.get("name")), f"{store.url}/{simulation.folder}")
    return load_regressor(read_simulator_files(store, simulation), name=f"{store.url}/{simulation.folder}/simulator")


def load_simulator_folder(path: Path) -> Regressor:
    """As `load_simulator`, from the files of `read_simulator_files` in a local folder."""
    files = {name: (path / name).read_bytes() for name in (DESCRIPTION, WEIGHTS) if (path / name).is_file()}
    return load_regressor(files, name=str(path))


def read_simulator_files(store: Store, simulation: Simulation) -> dict[str, bytes]:
    """By name, the files that a published model carries along so that it can simulate text of new audio; none where
    nothing was learned. RefusedError where one is missing or damaged."""
    return {
        name: read_simulator_file(store, simulation.files[name])
        for name in (DESCRIPTION, WEIGHTS)
        if name in simulation.files
    }


def read_simulator_file(store: Store, file: SimulatorFile) -> bytes:
    """The bytes of one file; RefusedError where they are not what the manifest states."""
    corpus = file.path.partition("/")[0]
    try:
        data = store.read(file.path)
    except FileNotFoundError:
        raise RefusedError(f"{store.url}/{file.path} is missing; run {_make(corpus)} again") from None
    if (len(data), hashlib.sha256(data).hexdigest()) != (file.num_bytes, file.sha256):
        raise RefusedError(
            f"{store.url}/{file.path} does not have the SHA-256 of its manifest; run {_make(corpus)} again"
        )
    return data


def _require_learned(provider: str, where: str) -> None:
    if provider != NAME:
        raise RefusedError(
            f"{where} was made by provider {provider}, which hears the sound of a clip and has learned nothing from "
            f"features; text of new features is simulated by provider {NAME} alone"
        )


def _make(corpus: str) -> str:
    return f"`lnln simulate {corpus}`"


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{12}", text) is not None


def _parent(corpus: str, feature_id: str) -> str:
    return f"{check_corpus_name(corpus)}/simulated/{feature_id}"


def _current(store: Store, corpus: str, parent: str) -> str:
    try:
        current = store.read_json(f"{parent}/current.json")
    except FileNotFoundError:
        raise RefusedError(
            f"corpus {corpus!r} of {store.url} has no simulated text for the features in use; run {_make(corpus)}"
        ) from None
    chosen = current.get("simulation_id") if isinstance(current, dict) else None
    if not isinstance(chosen, str) or not _is_id(chosen):
        raise RefusedError(f"{store.url}/{parent}/current.json must hold a simulation_id; run {_make(corpus)} again")
    return chosen


def _commit(store: Store, simulation: Simulation, anew: bool) -> Simulation:
    path, data = f"{simulation.folder}/manifest.json", _encode(simulation)
    if store.create(path, data):
        return simulation
    # An earlier commit stands, since its shards do; unless it is damaged, which a new one mends.
    try:
        earlier = _read(store, path, simulation.corpus)
    except StoreFailedError:  # which says nothing of the manifest
        raise
    except RefusedError:
        earlier = None
    if earlier is None or (anew and _encode(earlier) != data):
        store.write(path, data)
        return simulation
    return earlier


def _encode(simulation: Simulation) -> bytes:
    content = _content(simulation)
    return encode_json({"content": content, "sha256": _digest(content)})


def _content(simulation: Simulation) -> dict[str, Any]:
    # Through JSON, so that what is hashed is what a reader gets.
    content: dict[str, Any] = json.loads(encode_json({"format": FORMAT, **asdict(simulation)}))
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(encode_json(content)).hexdigest()


def _read(store: Store, path: str, corpus: str) -> Simulation | None:
    try:
        value = store.read_json(path)
    except FileNotFoundError:
        return None
    where, again = f"{store.url}/{path}", f"run {_make(corpus)} again"
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, dict) or value.get("sha256") != _digest(content):
        raise RefusedError(f"{where} is damaged: its content does not have the SHA-256 it states; {again}")
    if content.get("format") != FORMAT:
        raise RefusedError(f"{where} has format {content.get('format')}, this version reads {FORMAT}; {again}")
    try:
        simulation = _decode(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RefusedError(f"{where} is no Simulation: {type(error).__name__} {error}; {again}") from error
    if f"{simulation.folder}/manifest.json" != path:
        raise RefusedError(f"{where} belongs to {simulation.folder}; it was copied to the wrong place")
    return simulation


def _decode(content: Mapping[str, Any]) -> Simulation:
    values = {key: value for key, value in content.items() if key != "format"}
    splits: dict[Split, SplitEntry] = {}
    for split in STORED_SPLITS:
        if split in values["splits"]:
            entry = values["splits"][split]
            splits[split] = SplitEntry(entry["num_utterances"], tuple(ShardEntry(**shard) for shard in entry["shards"]))
    return Simulation(
        **{
            **values,
            "splits": splits,
            "lengths": {split: LengthSummary(**values["lengths"][split]) for split in splits},
            "files": {name: SimulatorFile(**file) for name, file in values["files"].items()},
        }
    )
