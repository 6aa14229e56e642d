"""Servers that answer otherwise than AWS: Ceph, old ones without conditions, and lost answers."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lnln.data.store import Store, StoreAbilities

pytestmark = pytest.mark.slow


class _Server(ThreadingHTTPServer):
    """Objects in memory, with the behaviours that real servers were seen to have."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, tuple[bytes, str | None]] = {}
        self.lock = threading.Lock()
        self.ignores_conditions = False
        self.refuses_conditions = False
        self.wants_unquoted_etag = False
        self.num_answers_to_lose = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        create, match = self.headers.get("If-None-Match"), self.headers.get("If-Match")
        if self.server.refuses_conditions and (create or match):
            return self._answer(501, _error("NotImplemented"))
        with self.server.lock:
            before = self.server.objects.get(self.path)
            if not self.server.ignores_conditions:
                if create and before:
                    return self._answer(412, _error("PreconditionFailed"))
                if match and (not before or match != self._etag(before[0])):
                    return self._answer(412, _error("PreconditionFailed"))
            self.server.objects[self.path] = (data, self.headers.get("x-amz-meta-writer"))
            if self.server.num_answers_to_lose:
                self.server.num_answers_to_lose -= 1
                self.close_connection = True
                return None
        return self._answer(200, b"", ETag=f'"{_md5(data)}"')

    def do_GET(self) -> None:
        found = self.server.objects.get(self.path.partition("?")[0])
        if found is None:
            return self._answer(404, _error("NoSuchKey"))
        data, writer = found
        metadata = {"x-amz-meta-writer": writer} if writer else {}
        return self._answer(200, data, ETag=f'"{_md5(data)}"', **metadata)

    def do_HEAD(self) -> None:
        if self.path in ("/bucket", "/bucket/"):
            return self._answer(200, b"")
        return self.do_GET()

    def do_DELETE(self) -> None:
        self.server.objects.pop(self.path.partition("?")[0], None)
        self._answer(204, b"")

    def _etag(self, data: bytes) -> str:
        return _md5(data) if self.server.wants_unquoted_etag else f'"{_md5(data)}"'

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    with _Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield server
        server.shutdown()


def _store(server: _Server) -> Store:
    # What a store can do is kept by URL: another server, another URL.
    return Store(f"s3://bucket/{server.server_port}")


def test_ceph(server: _Server) -> None:
    """412 without saying which condition, and an ETag compared without its quotes."""
    server.wants_unquoted_etag = True
    store = _store(server)
    assert store.probe() == StoreAbilities(conditional_create=True, conditional_update=True)
    assert store.create("a", b"1") and not store.create("a", b"1")
    assert store.update("a", lambda before: (before or b"") + b"2") == b"12"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.update("n", lambda before: str(int(before or b"0") + 1).encode()), range(12)))
    assert store.read("n") == b"12"


@pytest.mark.parametrize("behaviour", ["ignores_conditions", "refuses_conditions"])
def test_server_without_conditions(server: _Server, behaviour: str, caplog: pytest.LogCaptureFixture) -> None:
    setattr(server, behaviour, True)
    store = _store(server)
    with caplog.at_level(logging.WARNING):
        assert store.create("a", b"1") and not store.create("a", b"2")
        assert store.update("a", lambda before: (before or b"") + b"2") == b"12"
        assert Store(store.url).probe() == StoreAbilities(conditional_create=False, conditional_update=False)
    assert [record.message for record in caplog.records if "does not honour" in record.message] == [
        f"store {store.url} does not honour conditional writes: let one process at a time publish, commit or tune there"
    ]
    assert len(server.objects) == 1


def test_lost_answer_is_no_lost_race(server: _Server) -> None:
    store = _store(server)
    store.probe()
    server.num_answers_to_lose = 1
    assert store.create("a", b"1")
    server.num_answers_to_lose = 1
    assert store.update("a", lambda before: (before or b"") + b"2") == b"12"
    assert store.read("a") == b"12"
