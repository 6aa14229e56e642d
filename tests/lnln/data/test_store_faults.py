"""Every verb of a store in a bucket against every fault, and that what is hopeless is not asked for again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lnln.data import retries, s3_client, s3_reader, store_s3
from lnln.data.retries import MAX_ATTEMPTS
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from tests.faulty_proxy import FAULTS, Fault, FaultyProxy

pytestmark = pytest.mark.slow

CONTENT = bytes(range(256)) * 40
FAILURES = [fault for fault in FAULTS if fault != "slow answer"]


@pytest.fixture(scope="module")
def one_proxy(s3_endpoint: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_endpoint, seed=0) as proxy:
        yield proxy


@pytest.fixture
def proxy(one_proxy: FaultyProxy, s3_store_url: str, monkeypatch: pytest.MonkeyPatch) -> FaultyProxy:
    """Between this process and moto, which the bucket of `s3_store_url` is made at. Faultless at first."""
    monkeypatch.setattr(retries, "FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setenv("AWS_ENDPOINT_URL", one_proxy.url)
    one_proxy.be_good()
    return one_proxy


@pytest.fixture
def store(proxy: FaultyProxy, s3_store_url: str) -> Store:
    """A store behind the proxy, probed; `there` holds CONTENT."""
    store = Store(s3_store_url)
    store.probe()
    store.write("there", CONTENT)
    proxy.requests.clear()
    return store


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(s3_reader, "PIECE_BYTES", 1000)
    return 1000


def read(store: Store, folder: Path) -> object:
    return store.read("there") == CONTENT


def exists(store: Store, folder: Path) -> object:
    return store.exists("there") and not store.exists("none")


def open_(store: Store, folder: Path) -> object:
    with store.open("there") as file:
        return file.read() == CONTENT


def download(store: Store, folder: Path) -> object:
    store.download("there", folder / "copy")
    return (folder / "copy").read_bytes() == CONTENT


def write(store: Store, folder: Path) -> object:
    store.write("new", CONTENT)
    return store.read("new") == CONTENT


def upload(store: Store, folder: Path) -> object:
    (folder / "source").write_bytes(CONTENT)
    store.upload(folder / "source", "new")
    return store.read("new") == CONTENT


def create(store: Store, folder: Path) -> object:
    return store.create("new", CONTENT) and not store.create("new", b"other") and store.read("new") == CONTENT


def update(store: Store, folder: Path) -> object:
    store.update("new", lambda before: (before or b"") + b"1")
    store.update("new", lambda before: (before or b"") + b"2")
    return store.read("new") == b"12"


def remove(store: Store, folder: Path) -> object:
    store.remove("there")
    return not store.exists("there")


def probe(store: Store, folder: Path) -> object:
    abilities = store._backend.probe()
    return abilities.conditional_create and abilities.conditional_update


def list_(store: Store, folder: Path) -> object:
    return [(file.path, file.num_bytes) for file in store.list_files() if file.path == "there"] == [
        ("there", len(CONTENT))
    ]


def arrow(store: Store, folder: Path) -> object:
    filesystem, path = store.arrow("there")
    with filesystem.open_input_stream(path) as stream:
        return stream.read() == CONTENT


VERBS = [read, exists, open_, download, write, upload, create, update, remove, probe, list_, arrow]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_survives_every_fault(
    verb: Callable[[Store, Path], object], store: Store, proxy: FaultyProxy, tmp_path: Path
) -> None:
    for fault in FAULTS:
        proxy.coming = [fault] * 2
        store.write("there", CONTENT)
        store.remove("new")
        assert verb(store, tmp_path), fault
        assert not any(path.name.endswith(".part") for path in tmp_path.iterdir())
    assert proxy.num_faults >= 8


@pytest.mark.parametrize("fault", ["500", "503", "reset", "reset in answer", "truncated answer"])
@pytest.mark.parametrize("verb", [read, open_, download])
def test_a_break_in_the_middle_costs_one_piece(
    verb: Callable[[Store, Path], object],
    fault: Fault,
    store: Store,
    proxy: FaultyProxy,
    small_pieces: int,
    tmp_path: Path,
) -> None:
    proxy.rate, proxy.kinds = 0.3, (fault,)
    assert verb(store, tmp_path)
    num_pieces = -(-len(CONTENT) // small_pieces)
    assert proxy.num_faults and len(proxy.requests) == num_pieces + proxy.num_faults


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 3000])
def test_pieces_make_the_whole(size: int, store: Store, small_pieces: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    store.write("sized", data)
    assert store.read("sized") == data
    store.download("sized", tmp_path / "sized")
    assert (tmp_path / "sized").read_bytes() == data
    with store.open("sized") as file:
        assert file.read() == data and file.read(1) == b""
        for start in (0, 1, size // 2, max(size - 1, 0), size, size + 5):
            assert file.seek(start) == start and file.read(1500) == data[start : start + 1500]
        assert file.seek(-min(3, size), os.SEEK_END) == size - min(3, size) and file.read() == data[size - 3 :][:3]
        with pytest.raises((OSError, ValueError)):
            file.seek(-1)


def test_an_object_that_is_replaced_is_read_as_one_of_both(
    store: Store, proxy: FaultyProxy, small_pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never the beginning of the one and the end of the other."""
    other = bytes(reversed(CONTENT))[: len(CONTENT) - 1500]
    in_parallel, rounds = s3_client.in_parallel, []

    async def replace_first(work: Any, starts: Any) -> Any:
        rounds.append(len(starts))
        if len(rounds) == 1:
            await store._backend._put("there", other)  # type: ignore[attr-defined]
        return await in_parallel(work, starts)

    monkeypatch.setattr(store_s3, "in_parallel", replace_first)
    assert store.read("there") == other and len(rounds) == 2
    with store.open("there") as file:
        assert file.read(small_pieces) == other[:small_pieces]
        Store(store.url).write("there", CONTENT)
        with pytest.raises(StoreFailedError, match=r"there cannot be read on: it was replaced while it was read"):
            file.read()


@pytest.mark.parametrize("fault", FAILURES)
def test_a_server_that_keeps_failing_is_refused(fault: Fault, store: Store, proxy: FaultyProxy) -> None:
    """After MAX_ATTEMPTS requests: s3fs's and botocore's own retries would multiply them."""
    is_of_writes = fault in ("reset in request", "lost answer")
    proxy.rate, proxy.kinds = 1, (fault,)
    with pytest.raises(StoreFailedError, match=r"store s3://.* cannot \w+ \w+: .*failed 10 times in \d+ s; "):
        store.write("new", CONTENT) if is_of_writes else store.read("there")
    # aiohttp asks again at once where a connection breaks before an answer comes: it may have been closed long ago.
    is_broken_early = fault in ("reset", "reset in request", "lost answer")
    assert len(proxy.requests) in (MAX_ATTEMPTS, 2 * MAX_ATTEMPTS if is_broken_early else MAX_ATTEMPTS)


def test_a_server_that_does_not_answer_is_refused_in_time(
    store: Store, proxy: FaultyProxy, s3_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "READ_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setenv("LNLN_S3_RETRY_SECONDS", "0.5")
    impatient = Store(s3_store_url)
    assert impatient.read("there") == CONTENT
    monkeypatch.setattr("tests.faulty_proxy._SLOW_SECONDS", 8.0)
    proxy.requests.clear()
    proxy.rate, proxy.kinds = 1, ("slow answer",)
    with pytest.raises(StoreFailedError, match=r"cannot read there: .*[Tt]imeout"):
        impatient.read("there")
    assert 2 <= len(proxy.requests) <= 4


def test_what_is_hopeless_is_asked_once(store: Store, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("none")
    assert len(proxy.requests) == 2 and proxy.requests[1][0] == "HEAD"  # the bucket, once
    with pytest.raises(FileNotFoundError):
        store.open("none")
    assert not store.exists("none")
    assert len(proxy.requests) == 4
    proxy.requests.clear()
    with pytest.raises(RefusedError, match="no such bucket"):
        Store("s3://no-such-bucket/x").write("a", b"")
    assert [method for method, _ in proxy.requests] == ["PUT", "HEAD"]
    proxy.requests.clear()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(StoreFailedError, match="Unable to locate credentials"):
        Store(store.url).read("there")
    assert not proxy.requests


def test_a_lost_answer_to_a_create_is_a_win_unless_another_was_first(
    store: Store, proxy: FaultyProxy, s3_endpoint: str
) -> None:
    proxy.coming = ["lost answer"]
    assert store.create("a", b"ours")
    proxy.coming = ["lost answer"] * 3
    assert store.update("a", lambda before: (before or b"") + b" again") == b"ours again"
    assert not store.create("a", b"ours again")
    assert proxy.counts["lost answer"] == 4 and store.read("a") == b"ours again"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """5 MiB, the least that S3 takes."""
    monkeypatch.setattr(store_s3, "MULTIPART_BYTES", 6 << 20)
    monkeypatch.setattr(store_s3, "PART_BYTES", 5 << 20)
    return 5 << 20


@pytest.mark.parametrize("way", ["write", "upload"])
def test_a_large_file_goes_in_parts(
    way: str, store: Store, proxy: FaultyProxy, small_parts: int, tmp_path: Path
) -> None:
    data = os.urandom(11 << 20)
    (tmp_path / "large").write_bytes(data)
    proxy.coming = ["reset", "lost answer", "503", "reset in request", "500"]
    if way == "write":
        store.write("large", data)
    else:
        store.upload(tmp_path / "large", "large")
    assert not proxy.coming and sum("partNumber" in path for _, path in proxy.requests) >= 3
    assert store.read("large") == data


def test_a_lost_answer_to_the_last_request_of_an_upload(
    store: Store, proxy: FaultyProxy, small_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server no longer knows the upload when it is asked to complete it again."""
    draw = proxy.draw

    def lose_completion(method: str, path: str, has_body: bool) -> Fault | None:
        if method == "POST" and "uploadId" in path and not proxy.counts:
            proxy.coming = ["lost answer"]
        return draw(method, path, has_body)

    monkeypatch.setattr(proxy, "draw", lose_completion)
    data = os.urandom(6 << 20 | 1)
    store.write("large", data)
    assert proxy.counts == {"lost answer": 1} and store.read("large") == data


def test_an_upload_that_fails_leaves_no_parts(
    store: Store, proxy: FaultyProxy, small_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("large", b"before")
    draw = proxy.draw

    def fail_second_part(method: str, path: str, has_body: bool) -> Fault | None:
        if "partNumber=2" in path:
            proxy.coming = ["500"]
        return draw(method, path, has_body)

    monkeypatch.setattr(proxy, "draw", fail_second_part)
    with pytest.raises(StoreFailedError, match=r"cannot write large: .*failed 10 times"):
        store.write("large", os.urandom(11 << 20))
    assert store.list_uploads() == [] and store.read("large") == b"before"


def test_parts_that_remain_are_listed_and_dropped(
    store: Store, proxy: FaultyProxy, small_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_abort(*_: object) -> None:
        pass

    monkeypatch.setattr(store_s3.S3, "_abort", no_abort)
    monkeypatch.setenv("LNLN_S3_RETRY_SECONDS", "0")
    proxy.coming = ["reset in request"] * 6  # the requests with a body: all three parts, twice
    with pytest.raises(StoreFailedError):
        store.write("large", os.urandom(11 << 20))
    (upload,) = store.list_uploads()
    assert upload.path == "large"
    store.abort_upload(upload)
    store.abort_upload(upload)
    assert store.list_uploads() == [] and not store.exists("large")
