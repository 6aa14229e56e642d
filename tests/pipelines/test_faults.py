"""The import and view flows through a server that fails: every run ends whole or is refused and mended by a rerun, and
nobody who reads meanwhile sees anything by halves.

The faults are those of `tests/faulty_proxy.py`; readers and the final checks go past it, straight to the server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lnln.config import Config
from lnln.data import retries
from lnln.data.manifest import (
    FeatureManifest,
    ViewManifest,
    feature_folder,
    list_corpora,
    list_views,
    read_features,
    read_view,
)
from lnln.data.schema import SPLITS
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.data.store_s3 import S3
from lnln.data.verify import damaged_shards
from lnln.data.view_shards import read_view_shard
from lnln.errors import RefusedError, StoreFailedError
from lnln.verify import verify
from pipelines.corrupt import corrupt, view_specs
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_pickle
from tests.faulty_proxy import FAULTS, FaultyProxy

pytestmark = pytest.mark.slow

NUM_FAULTS = 200
NUM = (24, 6, 8)
CORPUS = "c"
CONFIG = Config.from_dict(
    {"corruption": {"rates": [0.0, 0.5, 0.9], "validation_rates": [0.0, 0.5], "num_stored_draws": 2}}
)


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.ingest.SHARD_BYTES", 300)
    monkeypatch.setattr("pipelines.unfinished.SAVE_EVERY_SECONDS", 0.2)
    monkeypatch.setattr(retries, "FIRST_DELAY_SECONDS", 0.02)


@pytest.fixture
def proxy(s3_endpoint: str, s3_store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """In front of the server; the stores of this process go through it, but for those that are `straight`."""
    with FaultyProxy(s3_endpoint, seed=20261) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


def straight(endpoint: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that stays with the server at `endpoint`, whatever the environment says later."""
    store = Store(url)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert isinstance(store._backend, S3) and store._backend._fs.endpoint_url == endpoint
    return store


class Reader(threading.Thread):
    """Looks at a corpus again and again, and keeps what it saw that should not be."""

    def __init__(self, store: Store, undisturbed: Store) -> None:
        super().__init__(daemon=True)
        self.store = store
        self.feature_id = read_features(undisturbed, CORPUS).feature_id
        self.complaints: list[str] = []
        self.num_manifests = 0
        self._ended = threading.Event()

    def __enter__(self) -> Reader:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(0.01):
            try:
                self.look()
            except Exception as error:
                self.complaints.append(repr(error))

    def look(self) -> None:
        """By every way that leads to a manifest: the lists, and the ids that are known beforehand."""
        if CORPUS in list_corpora(self.store):
            features = read_features(self.store, CORPUS)
        elif self.store.exists(f"{feature_folder(CORPUS, self.feature_id)}/manifest.json"):
            features = read_features(self.store, CORPUS, self.feature_id)
        else:
            return
        self.check(features)
        listed = list_views(self.store, CORPUS, self.feature_id)
        for view_id in sorted({*listed, *(spec.view_id for spec in view_specs(CONFIG))}):
            view = read_view(self.store, CORPUS, self.feature_id, view_id)
            if view is not None:
                self.check(view)
            elif view_id in listed:
                self.complaints.append(f"{view_id} is listed and absent")

    def check(self, manifest: FeatureManifest | ViewManifest) -> None:
        self.num_manifests += 1
        if damaged := damaged_shards(self.store, manifest):
            self.complaints.append(f"not whole: {damaged}")


def make(store: Store, pickle: Path) -> None:
    import_corpus(store, pickle, CORPUS)
    corrupt(store, CORPUS, CONFIG)


def count_refusals(store: Store, pickle: Path, most: int) -> int:
    """Make it until it goes well, at most so many times; how often it was refused."""
    for num in range(most):
        try:
            make(store, pickle)
        except RefusedError as refusal:
            assert "\n" not in str(refusal) and " again" in str(refusal)
        else:
            return num
    return most


def content(store: Store) -> dict[str, bytes]:
    """All but probes, which a lost DELETE may leave; `lnln gc` removes those."""
    return {file.path: store.read(file.path) for file in store.list_files() if not file.path.startswith(".probe-")}


def check_whole(store: Store, undisturbed: Store) -> None:
    """Every checksum, every utterance once, every byte as without faults."""
    assert verify(store, CORPUS)["views"] == len(view_specs(CONFIG))
    features = read_features(store, CORPUS)
    for split, num in zip(SPLITS, NUM, strict=True):
        ids = read_split(store, features, split).utterance_id
        assert len(ids) == len(set(ids)) == num and len(features.splits[split].shards) > 1
    for spec in view_specs(CONFIG):
        view = read_view(store, CORPUS, features.feature_id, spec.view_id)
        assert view is not None
        for split, entry in view.splits.items():
            rows = [name for shard in entry.shards for name in read_view_shard(store, shard).utterance_id]
            assert rows == read_split(store, features, split).utterance_id
    assert content(store) == content(undisturbed)


@pytest.fixture
def undisturbed(tmp_path: Path) -> Store:
    store = Store(tmp_path / "undisturbed")
    make(store, mmsa_pickle(tmp_path / "made.pkl", num=NUM))
    return store


@dataclass(frozen=True)
class Weather:
    """What a run meets. rate: share of requests that fail. seconds: how long one is tried again. most: runs that may
    be refused before the air clears; 0 if none is."""

    rate: float
    seconds: float = 60
    most: int = 0


def test_flows_through_faults(
    undisturbed: Store,
    proxy: FaultyProxy,
    s3_endpoint: str,
    s3_store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    survived = [Weather(0.3), Weather(0.3), Weather(0.4)]
    too_much = [Weather(0.05, seconds=0, most=60), Weather(0.6, seconds=0.03, most=4)]
    began, num_seen = time.monotonic(), 0
    for number, weather in enumerate([*survived, *too_much]):
        url = f"{s3_store_url}/{number}"
        proxy.rate = weather.rate
        monkeypatch.setenv("LNLN_S3_RETRY_SECONDS", str(weather.seconds))
        direct = straight(s3_endpoint, url, monkeypatch)
        with Reader(direct, undisturbed) as reader:
            if weather.most:
                assert count_refusals(Store(url), tmp_path / "made.pkl", weather.most) > 1
                proxy.rate = 0.2
                monkeypatch.setenv("LNLN_S3_RETRY_SECONDS", "60")
            make(Store(url), tmp_path / "made.pkl")
        assert reader.complaints == []
        num_seen += reader.num_manifests
        check_whole(direct, undisturbed)
    assert proxy.num_faults >= NUM_FAULTS and set(proxy.counts) == set(FAULTS), proxy.counts
    assert min(proxy.counts.values()) >= 5 and num_seen > 20
    assert proxy.listings == [], "nobody lists"
    seconds = time.monotonic() - began
    print(f"{proxy.num_faults} faults in {len(proxy.requests)} requests and {seconds:.0f} s: {dict(proxy.counts)}")


def test_a_store_that_cannot_be_read_is_not_taken_for_damaged(
    proxy: FaultyProxy, s3_endpoint: str, s3_store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is whole would be taken out of use, to be made again."""
    pickle = mmsa_pickle(tmp_path / "made.pkl", num=NUM)
    store, direct = Store(s3_store_url), straight(s3_endpoint, s3_store_url, monkeypatch)
    make(store, pickle)
    before = content(direct)
    monkeypatch.setenv("LNLN_S3_RETRY_SECONDS", "0")
    for number in range(12):
        proxy.rate = 1
        for act in (lambda: import_corpus(store, pickle, CORPUS), lambda: corrupt(store, CORPUS, CONFIG)):
            proxy.num_to_spare = number
            with pytest.raises(StoreFailedError):
                act()
    assert content(direct) == before
