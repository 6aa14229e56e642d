"""Import at scale: what it holds in memory, beside what a pickle weighs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lnln.data.schema import SPLITS
from tests.memory import peak_bytes

pytestmark = pytest.mark.slow

SHARD_BYTES = 4 << 20
# At most this many times the pickle, plus one shard.
MOST = 1.5

IMPORT = """
import pipelines.ingest as ingest
from lnln.data.store import Store
from pipelines.execute import dask_client
from pipelines.settings import Settings

if __name__ == "__main__":
    warm, pickle, folder, text, dask = sys.argv[1:]
    ingest.SHARD_BYTES = int(4 << 20)
    store = Store(folder)
    with dask_client(Settings(store=folder, dask=dask)) as client:
        ingest.import_corpus(store, Path(warm), "warm", client, text=text)  # what is imported and allotted once
        begin()
        ingest.import_corpus(store, Path(pickle), "big", client, text=text)
        end()
"""


def padded(random: np.random.Generator, lengths: NDArray[np.int64], longest: int, dim: int) -> NDArray[np.float32]:
    frames = random.standard_normal((len(lengths), longest, dim), dtype=np.float32)
    frames[np.arange(longest) >= lengths[:, None]] = 0
    return frames


def mosei_like(num: int, seed: int, *, fills: bool) -> dict[str, Any]:
    """One split with MOSEI's dims and widths. fills: every utterance is as long as the array is wide."""
    random = np.random.default_rng(seed)
    lengths = {
        key: np.full(num, longest)
        if fills
        else np.clip(random.lognormal(np.log(mean), 0.5, num).astype(int), 3, longest)
        for key, longest, mean in (("text", 50, 22), ("audio", 500, 180), ("vision", 500, 200))
    }
    text_bert = np.zeros((num, 3, 50), np.float32)
    is_real = np.arange(50) < lengths["text"][:, None]
    text_bert[:, 0], text_bert[:, 1] = np.where(is_real, 2003, 0), is_real
    return {
        "id": [f"v{seed}$_${i}" for i in range(num)],
        "raw_text": ["it is"] * num,
        "text_bert": text_bert,
        "text": padded(random, lengths["text"], 50, 768),
        "audio": padded(random, lengths["audio"], 500, 74),
        "vision": padded(random, lengths["vision"], 500, 35),
        "audio_lengths": lengths["audio"].tolist(),
        "vision_lengths": lengths["vision"].tolist(),
        "regression_labels": random.uniform(-3, 3, num).astype(np.float32),
    }


def write_pickle(path: Path, num: tuple[int, int, int], *, fills: bool, protocol: int = 4) -> Path:
    content = {split: mosei_like(n, i, fills=fills) for i, (split, n) in enumerate(zip(SPLITS, num, strict=True))}
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of a few shards that are as large as any."""
    return write_pickle(tmp_path_factory.mktemp("warm") / "warm.pkl", (30, 5, 5), fills=True)


def held_by_import(source: Path, warm: Path, text: str, dask: str = "none") -> int:
    """Bytes at the peak of importing `source` to a store beside it, above what the process held before."""
    return peak_bytes(IMPORT, warm, source, source.with_name("store"), text, dask)


@pytest.mark.parametrize(
    ("protocol", "text", "dask", "most"),
    # What is held anyway, some 10 MB of allocators, is much of so small a pickle.
    [(4, "ids", "none", 0.75), (4, "features", "none", 1.0), (2, "ids", "none", 0.75), (4, "ids", "local", 0.75)],
)
def test_padding_and_what_is_not_wanted_are_never_in_memory(
    warm: Path, tmp_path: Path, protocol: int, text: str, dask: str, most: float
) -> None:
    source = write_pickle(tmp_path / "big.pkl", (120, 20, 40), fills=False, protocol=protocol)
    assert source.stat().st_size > 60e6
    assert held_by_import(source, warm, text, dask) < most * source.stat().st_size + SHARD_BYTES


def test_a_pickle_without_any_padding(warm: Path, tmp_path: Path) -> None:
    """The worst case: all of it is wanted, and none of it can be dropped."""
    source = write_pickle(tmp_path / "full.pkl", (120, 20, 40), fills=True)
    assert held_by_import(source, warm, "features") < MOST * source.stat().st_size + SHARD_BYTES
