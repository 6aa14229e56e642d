"""A server between a client and a store that does what networks and overloaded servers do, from a seed.

    with FaultyProxy(s3_endpoint, seed=1) as proxy:
        proxy.rate = 0.3                     # share of the requests that meet a fault; 0 at first
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        ...
        proxy.counts["reset"], proxy.num_faults

What a request meets is drawn from the kinds that fit it: a body can only be cut short where there is one.
`proxy.coming = ["lost answer"]` is met first, by the next request that it fits. `proxy.deaf_to = {"if-none-match"}`
drops that header of every request, as old servers do that do not know it.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self, get_args
from urllib.parse import urlsplit

Fault = Literal[
    "500",  # InternalError, nothing done
    "503",  # SlowDown, nothing done
    "reset",  # the connection breaks before the request is read
    "reset in request",  # ... in the middle of what is sent
    "reset in answer",  # ... in the middle of what comes back
    "truncated answer",  # the connection closes in order, too early
    "slow answer",  # byte by byte, nearly
    "lost answer",  # what was asked is done, and the connection breaks
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
_SLOW_SECONDS, _SLOW_PIECES = 0.2, 8
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


class FaultyProxy:
    """Forwards to `target`. rate: share of requests that meet a fault. kinds: which; by default any that fits.

    coming: what the next requests meet, before any chance. num_to_spare: how many then go well before any chance.
    counts: faults done, by kind. requests: method and path of all, answered or not. deaf_to: headers that the target
    never sees, in lower case.
    """

    def __init__(self, target: str, seed: int) -> None:
        self.be_good()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._server = _Server(self, target)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def be_good(self) -> None:
        """No faults from now on, and none counted."""
        self.rate = 0.0
        self.kinds: tuple[Fault, ...] = FAULTS
        self.counts: Counter[str] = Counter()
        self.coming: list[Fault] = []
        self.num_to_spare = 0
        self.requests: list[tuple[str, str]] = []
        self.deaf_to: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def num_faults(self) -> int:
        return sum(self.counts.values())

    @property
    def listings(self) -> list[str]:
        """What was asked of a bucket and not of an object, but for the bucket's own head."""
        return [path for method, path in self.requests if method == "GET" and "/" not in urlsplit(path).path.strip("/")]

    def draw(self, method: str, path: str, has_body: bool) -> Fault | None:
        """What the next request meets; counted here, done by the handler."""
        does_not_fit = {
            "reset in request": not has_body,
            "lost answer": method not in ("PUT", "POST", "DELETE"),
            **dict.fromkeys(("reset in answer", "truncated answer", "slow answer"), method != "GET"),
        }
        with self._lock:
            self.requests.append((method, path))
            coming = next((kind for kind in self.coming if not does_not_fit.get(kind)), None)
            if coming is not None:
                self.coming.remove(coming)
            elif self.num_to_spare:
                self.num_to_spare -= 1
            elif self._random.random() < self.rate:
                coming = self._random.choice([kind for kind in self.kinds if not does_not_fit.get(kind)] or [None])
            if coming is not None:
                self.counts[coming] += 1
            return coming


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, proxy: FaultyProxy, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        address = urlsplit(target)
        assert address.hostname and address.port
        self.target = (address.hostname, address.port)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that go away are part of the play


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _handle(self) -> None:
        num_bytes = int(self.headers.get("Content-Length") or 0)
        fault = self.server.proxy.draw(self.command, self.path, num_bytes > 1)
        if fault == "reset":
            return self._reset()
        if fault == "reset in request":
            self.rfile.read(num_bytes // 2)
            return self._reset()
        body = self.rfile.read(num_bytes)
        if fault == "500":
            return self._refuse(500, "InternalError")
        if fault == "503":
            return self._refuse(503, "SlowDown")
        status, headers, answer = self._forward(body)
        if fault == "lost answer" or (fault in ("reset in answer", "truncated answer") and len(answer) < 2):
            return self._reset()
        self._begin(status, headers, len(answer))
        if fault in ("reset in answer", "truncated answer"):
            self.wfile.write(answer[: len(answer) // 2])
            self.wfile.flush()
            if fault == "reset in answer":
                return self._reset()
            self.close_connection = True
        elif fault == "slow answer":
            size = max(1, -(-len(answer) // _SLOW_PIECES))
            for first in range(0, len(answer), size):
                time.sleep(_SLOW_SECONDS / _SLOW_PIECES)
                self.wfile.write(answer[first : first + size])
                self.wfile.flush()
        elif self.command != "HEAD":
            self.wfile.write(answer)
        return None

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """What the target answers. The length of the answer to a HEAD is in its headers."""
        connection = http.client.HTTPConnection(*self.server.target, timeout=60)
        try:
            unheard = _HOP_BY_HOP | self.server.proxy.deaf_to
            headers = {name: value for name, value in self.headers.items() if name.lower() not in unheard}
            connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _begin(self, status: int, headers: list[tuple[str, str]], num_bytes: int) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        stated = next((value for name, value in headers if name.lower() == "content-length"), str(num_bytes))
        if status != 204:
            self.send_header("Content-Length", stated if self.command == "HEAD" else str(num_bytes))
        self.end_headers()

    def _refuse(self, status: int, code: str) -> None:
        answer = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as asked by the test</Message></Error>"
        self._begin(status, [("Content-Type", "application/xml")], len(answer))
        if self.command != "HEAD":
            self.wfile.write(answer.encode())

    def _reset(self) -> None:
        """End the connection with RST, not FIN: the client gets ECONNRESET."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()  # holds the socket open
        self.wfile.close()
        self.connection.close()

    def finish(self) -> None:
        if not self.wfile.closed:
            super().finish()

    def log_message(self, *_: object) -> None:
        pass
